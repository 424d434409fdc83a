"""The key of a data folder that turns what was hidden into tokens.

Rule: made when something is first hidden; readable by its owner only, or not used. Without a usable key what is hidden stays
hidden, and equal secrets are no longer seen to be equal. Source: specs/trace.md, "Tokens".
"""

import os
import secrets
import stat
import threading
from contextlib import suppress
from pathlib import Path

from cra_mcp.folders import make_private, open_private

_BYTES = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class TokenKey:
    """A key in a file, made when it is first asked for.

    Args:
        path: the file; None: a key of this process only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._key: bytes | None = secrets.token_bytes(_BYTES) if path is None else None
        self._asked = path is None

    def get(self) -> bytes | None:
        """The key, 32 bytes; None if there is none that may be used. It is looked for once."""
        with self._lock:
            if not self._asked and self._path is not None:
                with suppress(OSError, ValueError):
                    self._key = _read_or_make(self._path)
                self._asked = True
            return self._key


def _read_or_make(path: Path) -> bytes:
    """The key in a file; several processes may make it at once, and one of them does.

    Raises:
        OSError: it can be neither read nor made.
        ValueError: it holds no key, or others may read it.
    """
    with suppress(FileNotFoundError):
        return _read(path)
    make_private(path.parent)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fd = open_private(draft, os.O_WRONLY | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0))
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_hex(_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # whole, or not there: never half written
    finally:
        draft.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or (os.name == "posix" and status.st_mode & _OTHERS):
            raise ValueError("not a file of its owner's alone")
        key = bytes.fromhex(file.read(2 * _BYTES + 2).decode("ascii").strip())
    if len(key) != _BYTES:
        raise ValueError("not a key")
    return key
