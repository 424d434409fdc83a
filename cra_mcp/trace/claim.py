"""The right to write something that has one writer at a time, among all processes.

Rule: the operating system holds the lock, so it ends with the process that has it, however that ends. The file of a lock names
its owner, and is removed by the owner before it lets go; whoever gets a lock then looks whether its file is still the one of
that name, so that two processes never each hold a file that was.
"""

import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from cra_mcp.errors import TraceLockedError
from cra_mcp.folders import make_private, open_private

_WAIT_S = 0.25  # rides over another process that looks whether something is claimed
_PAUSE_S = 0.01
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_FAR = 0x4000_0000  # Windows keeps others from reading locked bytes; nothing is ever written here
_OWNER = re.compile(rb"([1-9][0-9]{0,9}) ([A-Za-z0-9._-]{1,253})\n")
_OWNER_BYTES = 300
_LOCK = ".lock"

if sys.platform == "win32":  # pragma: no cover - Windows
    import msvcrt

    def _seize(fd: int) -> None:
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _seize(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim_chain(directory: Path, session_id: str) -> "Claim":
    """The right to write a chain of the trace folder ``directory``. Raises as ``Claim.take``."""
    path = _chain_lock(directory, session_id)
    make_private(path.parent)
    return Claim.take(
        path,
        f"session {session_id} is being written",
        "End that session, or stop the server it belongs to.",
    )


def is_chain_claimed(directory: Path, session_id: str) -> bool:
    """Whether some process writes a chain now."""
    return Claim.is_taken(_chain_lock(directory, session_id))


def locked_chains(directory: Path) -> list[str]:
    """The chains there are locks of: those that are being written, and those whose writer died. What isn't an id is among them."""
    try:
        return sorted(name.removesuffix(_LOCK) for name in os.listdir(directory / ".locks") if name.endswith(_LOCK))
    except FileNotFoundError:
        return []


def _chain_lock(directory: Path, session_id: str) -> Path:
    return directory / ".locks" / f"{session_id}{_LOCK}"


class Claim:
    """A claim this process has. Made by ``take``."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._renewing = threading.Lock()

    @classmethod
    def take(cls, path: Path, what: str, hint: str) -> "Claim":
        """Claim what ``path`` stands for; the folder of ``path`` is there.

        Args:
            path: the lock's file.
            what: how a refusal begins: ``session … is being written``.
            hint: what a person can do about it.

        Raises:
            OSError: the file can't be made or locked.
            TraceLockedError: someone has it; the message names the process and its host.
        """
        until = time.monotonic() + _WAIT_S
        while True:
            fd = open_private(path, os.O_RDWR | _FLAGS)
            try:
                if _lock(fd):
                    if _is_at(fd, path):
                        _sign(fd)
                        return cls(fd, path)
                elif time.monotonic() > until:
                    raise TraceLockedError(f"{what} by {_owner(fd)}", hint=hint)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            time.sleep(_PAUSE_S)

    @staticmethod
    def is_taken(path: Path) -> bool:
        """Whether some process has it now. Makes no file."""
        try:
            fd = os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # someone else's folder: nothing to conclude but that there is a lock
        try:
            return not _lock(fd)
        finally:
            os.close(fd)

    def holds(self) -> bool:
        """Whether others can see it. One whose file was removed is made again, unless another process was quicker."""
        with self._renewing:
            if self._fd < 0 or _is_at(self._fd, self._path):
                return self._fd >= 0
            try:
                if self._path.parent.parent.is_dir():  # else it is the whole folder that went
                    make_private(self._path.parent)
                fd = open_private(self._path, os.O_RDWR | _FLAGS)
            except OSError:
                return False
            if not (_lock(fd) and _is_at(fd, self._path)):
                os.close(fd)
                return False
            _sign(fd)
            os.close(self._fd)
            self._fd = fd
            return True

    def give_up(self) -> None:
        """Give it up, and leave no file behind, but for another's. Safe to call twice."""
        with self._renewing:
            fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with suppress(OSError):  # Windows keeps open files
            if _is_at(fd, self._path):
                self._path.unlink()
        os.close(fd)
        if sys.platform == "win32":  # pragma: no cover - if another has it open by now, it stays
            with suppress(OSError):
                self._path.unlink()


def _lock(fd: int) -> bool:
    """Whether the lock is ours now. Closing the file gives it up."""
    try:
        _seize(fd)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Whether ``path`` still names this file: its last owner may have removed it since it was opened."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sign(fd: int) -> None:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:253] or "-"
    with suppress(OSError):  # on a full disk it goes without
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"{os.getpid()} {host}\n".encode())


def _owner(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    match = _OWNER.fullmatch(os.read(fd, _OWNER_BYTES))
    return f"process {match[1].decode()} on {match[2].decode()}" if match else "another process"
