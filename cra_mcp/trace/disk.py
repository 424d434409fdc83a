"""The system calls that change trace files, as one object.

Rule: nothing is decided here. Tests put an object in its place whose calls fail, or do half of what they were asked.
"""

import errno
import os
from pathlib import Path

from cra_mcp.errors import TraceUnavailableError

# Never through a link that stands where the file should be, and never waiting for the other end of a pipe.
PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags that every trace file is opened with."""

_NO_FOLDER = "Something that is no folder stands where the trace folder should be: choose another with --trace-dir."
_HINTS = {
    errno.ENOSPC: "Free some disk space; recording goes on by itself.",
    errno.EDQUOT: "The disk quota is used up: free some space; recording goes on by itself.",
    errno.EFBIG: "A limit on file sizes is reached: raise it, or end the session and start another.",
    errno.EACCES: "Make the trace folder writable, or choose another with --trace-dir.",
    errno.EPERM: "Make the trace folder writable, or choose another with --trace-dir.",
    errno.EROFS: "The trace folder is on a read-only file system: choose another with --trace-dir.",
    errno.EIO: "Look at the disk; recording goes on by itself once it takes writes again.",
    errno.ENOENT: "The trace file or its folder is gone: put it back, or end the session and start another.",
    errno.ESTALE: "The trace file was replaced or cut while it was written: end the session and start another.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.ELOOP: "A symbolic link stands where the trace file should be: move it out of the folder.",
}


def _read_at(fd: int, size: int, place: int) -> bytes:  # pragma: no cover - Windows
    os.lseek(fd, place, os.SEEK_SET)
    return os.read(fd, size)


class Disk:
    """The real calls. Each raises ``OSError`` as the one of its name in ``os`` does."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    read_at = staticmethod(getattr(os, "pread", _read_at))
    seek = staticmethod(os.lseek)
    truncate = staticmethod(os.ftruncate)
    sync = staticmethod(getattr(os, "fdatasync", os.fsync))
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)

    def sync_folder(self, folder: Path) -> None:
        """Make the entries of ``folder`` survive a power cut, where the file system can."""
        if os.name == "nt":  # pragma: no cover - Windows has no handle on folders and needs none
            return
        fd = os.open(folder, os.O_RDONLY)
        try:
            self.sync_entries(fd)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(fd)

    sync_entries = staticmethod(os.fsync)


def write_all(disk: Disk, fd: int, data: bytes) -> int:
    """Write all of ``data``; how many bytes that are.

    Raises:
        OSError: not all of it could be written.
    """
    written = disk.write(fd, data)
    while written < len(data):  # the rest says why
        more = disk.write(fd, data[written:])
        if not more:
            raise OSError(errno.EIO, "the disk takes no more bytes and does not say why")
        written += more
    return written


def unavailable(what: str, error: OSError) -> TraceUnavailableError:
    """The error for ``error`` met while trying to ``what``, with what the person can do."""
    hint = _HINTS.get(error.errno or 0, "Check that the trace folder is writable and the disk is well.")
    return TraceUnavailableError(f"can't {what}: {error.strerror or error}", hint=hint)
