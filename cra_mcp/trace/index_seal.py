"""Whether an index is as its last update left it.

Rule: an index lies beside the traces, where others may be able to write, and the seal in the data folder: what of an index was
changed, put there, or linked to by anybody else is not read but made anew. Nobody can give a file the time of change it had.
Source: specs/trace.md, "Index".
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cra_mcp.canonical import sha256_hex
from cra_mcp.folders import make_private, open_private

_NAME_CHARS: Final = 32
_MAX_BYTES: Final = 1_024
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAKE: Final = os.O_WRONLY | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_BESIDE: Final = ("-journal", "-wal", "-shm")
"""What SQLite would take for a part of the index."""


class IndexSeal:
    """The seal of one index.

    Args:
        index: the index.
        folder: where its seal is kept.
    """

    def __init__(self, index: Path, folder: Path) -> None:
        self._index = index
        place = os.path.abspath(index)
        self._path = folder / "indexes" / f"{sha256_hex(os.fsencode(place))[:_NAME_CHARS]}.seal"

    def holds(self) -> bool:
        """Whether the index is the one that was sealed, and unchanged, with nothing beside it that SQLite would read."""
        if any(os.path.lexists(f"{self._index}{suffix}") for suffix in _BESIDE):
            return False
        now = self._look()
        return now is not None and now == self._sealed()

    def set(self) -> None:
        """Seal the index as it is. Where that can't be done it is made anew the next time."""
        now = self._look()
        with suppress(OSError):
            make_private(self._path.parent)
            draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
            try:
                with os.fdopen(open_private(draft, _MAKE), "wb") as file:
                    file.write(now or b"")
                draft.replace(self._path)
            finally:
                draft.unlink(missing_ok=True)

    def _look(self) -> bytes | None:
        """Which file it is, its size, and when it was changed; None where there is none, or something else."""
        try:
            status = os.lstat(self._index)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return " ".join(map(str, parts)).encode()

    def _sealed(self) -> bytes | None:
        try:
            with os.fdopen(os.open(self._path, _READ), "rb") as file:
                return file.read(_MAX_BYTES)
        except OSError:
            return None
