"""A disk whose calls fail when told, and that loses what was not flushed the way real ones do."""

import errno
import os
import threading
from pathlib import Path

from cra_mcp.trace.disk import Disk

OPERATIONS = ("open", "close", "read", "write", "seek", "truncate", "sync", "sync_folder", "unlink", "mkdir")


class FaultyDisk(Disk):
    """Counts calls and fails from the ``fail_at``-th on (1 is the first), ``times`` times.

    A call that fails has no effect, except: ``write`` with ``short`` takes half of what it was given first; ``sync`` replaces by
    zeros all that was never flushed, and reports it once: the next one succeeds, as on Linux. ``power_cut`` leaves of each file
    what was flushed.

    Args:
        folder: where the files are.
        error: the ``errno`` it fails with.
        short: writes take a part before they fail.
    """

    def __init__(self, folder: Path, error: int = errno.EIO, *, short: bool = False) -> None:
        self.folder = folder
        self.error = error
        self.short = short
        self.fail_at: int | None = None
        self.times = 1
        self.only: frozenset[str] = frozenset(OPERATIONS)
        self.calls = 0
        self.failed: list[str] = []
        self._flushed: dict[int, int] = {}  # bytes by inode
        self._named: set[str] = set()  # entries of folders that are on disk
        self._lock = threading.RLock()

    def fail(self, *operations: str, times: int = 1) -> None:
        """From now on, let the next ``times`` calls of these operations fail."""
        self.only, self.fail_at, self.times = frozenset(operations or OPERATIONS), self.calls + 1, times

    def _fails(self, operation: str) -> bool:
        if operation not in self.only:
            return False
        with self._lock:
            self.calls += 1
            if self.fail_at is None or not self.fail_at <= self.calls < self.fail_at + self.times:
                return False
            self.failed.append(operation)
            return True

    def _raise(self) -> None:
        raise OSError(self.error, os.strerror(self.error))

    def open(self, *args):  # pyright: ignore
        if self._fails("open"):
            self._raise()
        return os.open(*args)

    def close(self, fd: int) -> None:  # pyright: ignore
        os.close(fd)
        if self._fails("close"):
            self._raise()

    def read(self, fd: int, size: int) -> bytes:  # pyright: ignore
        if self._fails("read"):
            self._raise()
        return os.read(fd, size)

    def write(self, fd: int, data: bytes) -> int:  # pyright: ignore
        if self._fails("write"):
            if self.short and len(data) > 1:
                self.times += 1  # and the rest fails
                return os.write(fd, data[: len(data) // 2])
            self._raise()
        return os.write(fd, data)

    def seek(self, fd: int, place: int, how: int) -> int:  # pyright: ignore
        if self._fails("seek"):
            self._raise()
        return os.lseek(fd, place, how)

    def truncate(self, fd: int, size: int) -> None:  # pyright: ignore
        if self._fails("truncate"):
            self._raise()
        os.ftruncate(fd, size)
        with self._lock:
            inode = os.fstat(fd).st_ino
            self._flushed[inode] = min(size, self._flushed.get(inode, 0))

    def sync(self, fd: int) -> None:  # pyright: ignore
        status = os.fstat(fd)
        with self._lock:
            if self._fails("sync"):
                lost = status.st_size - self._flushed.get(status.st_ino, 0)
                self._overwrite(status.st_ino, status.st_size - lost, b"\0" * lost)
                self._raise()
            self._flushed[status.st_ino] = status.st_size

    def sync_folder(self, folder: Path) -> None:
        if self._fails("sync_folder"):
            self._raise()
        with self._lock:
            self._named.update(str(path) for path in folder.iterdir())

    def unlink(self, path: Path) -> None:  # pyright: ignore
        if self._fails("unlink"):
            self._raise()
        path.unlink()

    def mkdir(self, path: Path, mode: int) -> None:  # pyright: ignore
        if self._fails("mkdir"):
            self._raise()
        path.mkdir(mode)

    def power_cut(self, into: Path) -> None:
        """Copy to ``into`` what would be left of the traces were the power cut now."""
        into.mkdir()
        with self._lock:
            for path in sorted(self.folder.rglob("*.jsonl")):
                if str(path) not in self._named or (path.parent != self.folder and str(path.parent) not in self._named):
                    continue
                copy = into / path.relative_to(self.folder)
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(path.read_bytes()[: self._flushed.get(path.stat().st_ino, 0)])

    def _overwrite(self, inode: int, place: int, data: bytes) -> None:
        for path in self.folder.rglob("*"):
            if path.stat().st_ino == inode:
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(data)
