"""The right to write one chain, held by at most one process.

Rule: the operating system gives a claim up when its process dies, so that a crash never locks a chain out. The file of a
claim is removed while the claim is still held: whoever locked a file that lost its name meanwhile tries again.
Source: specs/trace.md, "Files".
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cra_mcp.errors import TraceLockedError

if TYPE_CHECKING:
    from filelock import FileLock

_FOLDER = ".locks"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_PATIENCE_S = 0.25  # somebody may only be looking whether a chain is live
_OWNER_BYTES = 32


class Claim:
    """A held claim; ``release`` gives it up."""

    __slots__ = ("_lock", "_path")

    def __init__(self, lock: "FileLock", path: Path) -> None:
        self._lock = lock
        self._path = path

    def release(self) -> None:
        """Give the claim up. Safe to call twice."""
        if self._lock.is_locked:
            with suppress(OSError):  # where an open file can't be removed, it stays and means nothing
                self._path.unlink()
            self._lock.release()


def claim(directory: Path, session_id: str) -> Claim:
    """Become the one writer of a chain kept in ``directory``.

    Raises:
        OSError: the folder can't be written.
        TraceLockedError: another writer has the claim.
    """
    held = _try_claim(directory, session_id, _PATIENCE_S)
    if held is None:
        owner = _owner(directory, session_id)
        who = "by another process" if owner is None else f"by process {owner}"
        raise TraceLockedError(
            f"session {session_id} is being written {who}",
            hint="End that session, or stop the server it belongs to.",
        )
    return held


def is_claimed(directory: Path, session_id: str) -> bool:
    """Whether a chain has a writer now; what a dead one left is cleared away."""
    if not _path(directory, session_id).exists():
        return False
    try:
        held = _try_claim(directory, session_id, 0)
    except OSError:
        return True  # it can't be told: so nothing is done to the chain
    if held is None:
        return True
    held.release()
    return False


def _try_claim(directory: Path, session_id: str, timeout_s: float) -> Claim | None:
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only writers need it

    path = _path(directory, session_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(path, timeout=timeout_s, mode=0o600, thread_local=False)
    try:
        lock.acquire(poll_interval=0.01)
    except Timeout:
        return None
    _sign(path)
    return Claim(lock, path)


def _path(directory: Path, session_id: str) -> Path:
    return directory / _FOLDER / f"{session_id}.lock"


def _sign(path: Path) -> None:
    """Leave the process id for whoever is refused; where that fails, nothing depends on it."""
    with suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | _NO_FOLLOW)
        try:
            os.write(fd, str(os.getpid()).encode())
        finally:
            os.close(fd)


def _owner(directory: Path, session_id: str) -> int | None:
    try:
        fd = os.open(_path(directory, session_id), os.O_RDONLY | _NO_FOLLOW)
        try:
            text = os.read(fd, _OWNER_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return None
    return int(text) if text.isdigit() else None
