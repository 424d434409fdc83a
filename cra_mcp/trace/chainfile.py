"""One trace file open for writing: lines go in whole or not at all.

Rule: what a failed write left behind is taken back before anything else is written; where that, or a flush to disk,
fails, what is on the disk is no longer known and the file takes no more events until it is opened, and verified, again.
Source: specs/trace.md, "Files".
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.event import Head, verify
from cra_mcp.trace.store import Recovery

_COPY_BYTES = 1_048_576
# Never through a link that stands where the file should be, and never waiting for the other end of a pipe.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_flush_to_disk = getattr(os, "fdatasync", os.fsync)
_NO_FOLDER = "Something that is no folder stands where the trace folder should be: choose another with --trace-dir."
_HINTS = {
    errno.ENOSPC: "Free some disk space; recording goes on by itself.",
    errno.EDQUOT: "The disk quota is used up: free some space; recording goes on by itself.",
    errno.EFBIG: "A limit on file sizes is reached: raise it, or end the session and start another.",
    errno.EACCES: "Make the trace folder writable, or choose another with --trace-dir.",
    errno.EPERM: "Make the trace folder writable, or choose another with --trace-dir.",
    errno.EROFS: "The trace folder is on a read-only file system: choose another with --trace-dir.",
    errno.EEXIST: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.ELOOP: "A symbolic link stands where the trace file should be: move it out of the folder.",
}


def unavailable(what: str, error: OSError) -> TraceUnavailableError:
    """The error for ``error`` met while trying to ``what``, with what the person can do."""
    hint = _HINTS.get(error.errno or 0, "Check that the trace folder is writable and the disk is well.")
    return TraceUnavailableError(f"can't {what}: {error.strerror or error}", hint=hint)


class ChainFile:
    """A trace file and its last link. The caller serialises all methods but ``flush``, which may run beside the others.

    Opening recovers the file first: see ``recover``.

    Raises:
        OSError: it can't be opened, recovered or created.
        TraceUnavailableError: it is not a regular file.
    """

    def __init__(self, path: Path, session_id: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        self._open = True
        self._sync_lock = threading.Lock()  # over flushing and closing, so that no other file's descriptor is flushed
        self._named = False  # the folder's entry for this file is on disk
        self.fault: str | None = None
        """Why no more events are taken; None while all is well."""
        self.dirty = False
        """Written since the last flush began."""
        try:
            _check_regular(self._fd)
            self.recovery, head = recover(self._fd, path, session_id)
            self.tip: tuple[Head | None, int] = (head, os.fstat(self._fd).st_size)
            """The last event written, and the bytes up to its end. One value, so that an interrupt can't split it."""
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, data: bytes, head: Head, *, durable: bool) -> None:
        """Write ``data``, whole lines ending with the event ``head``; all of it or nothing.

        Raises:
            TraceUnavailableError: nothing was written.
        """
        if self.fault is not None:
            raise TraceUnavailableError(self.fault, hint="End the session and start another.")
        size = self.tip[1]
        try:
            written = os.write(self._fd, data)
            while written < len(data):  # the rest says why
                written += os.write(self._fd, data[written:])
            if durable:
                self._sync()
            # One assignment: an interrupt falls before it, and the write is taken back, or after it, and it counts.
            self.tip = (head, size + written)
        except BaseException as error:
            self._take_back()
            if isinstance(error, OSError):
                raise unavailable("record an event", error) from error
            raise

    def flush(self) -> None:
        """Flush what was written to disk; a failure becomes the file's ``fault``."""
        self.dirty = False
        with self._sync_lock:
            if self._open:
                try:
                    self._sync_unlocked()
                except OSError:
                    return  # noted as fault

    def close(self) -> None:
        """Flush and close. Safe to call twice."""
        self.flush()
        with self._sync_lock:
            if self._open:
                self._open = False
                os.close(self._fd)

    def _sync(self) -> None:
        with self._sync_lock:
            self._sync_unlocked()

    def _sync_unlocked(self) -> None:
        try:
            _flush_to_disk(self._fd)
            if not self._named:
                flush_folder(self._path.parent)
                self._named = True
            if os.fstat(self._fd).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "the trace file was deleted")
        except OSError as error:
            # After a failed flush the system may have dropped what it could not write.
            self.fault = f"the trace could not be flushed to disk: {error.strerror or error}"
            raise

    def _take_back(self) -> None:
        before = self.fault
        self.fault = "an interrupted write could not be taken back"
        try:
            os.ftruncate(self._fd, self.tip[1])
        except OSError:
            return
        self.fault = before


def open_to_read(path: Path) -> BinaryIO:
    """Open a trace file for reading.

    Raises:
        OSError: it can't be opened.
        TraceUnavailableError: it is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        _check_regular(fd)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def whole_lines(file: BinaryIO, end: int | None = None) -> Iterator[bytes]:
    """Lines up to byte ``end`` without their line feeds; an unfinished last one is left out."""
    place = 0
    for line in file:
        place += len(line)
        if not line.endswith(b"\n") or (end is not None and place > end):
            return
        yield line[:-1]


def recover(fd: int, path: Path, session_id: str) -> tuple[Recovery, Head | None]:
    """Keep the longest valid prefix of the file open as ``fd``; the rest is moved to a file beside it.

    The copy is on disk before the original is cut: a failure in between leaves both.

    Raises:
        OSError: the file can't be read, copied or cut.
    """
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        starts = [0, 0]  # of the line being verified, and of the one after it

        def lines() -> Iterator[bytes]:
            for line in whole_lines(file):
                starts[:] = starts[1], starts[1] + len(line) + 1
                yield line

        check = verify(lines(), session_id=session_id)
        kept_bytes = starts[1] if check.ok else starts[0]
        rest_bytes = os.fstat(fd).st_size - kept_bytes
        if not rest_bytes:
            return Recovery(session_id, check.events, 0, None), check.head
        file.seek(kept_bytes)
        aside = _set_aside(file, path, session_id)
    os.ftruncate(fd, kept_bytes)
    os.fsync(fd)
    code = check.code or "truncated"
    return Recovery(session_id, check.events, rest_bytes, str(aside), code), check.head


def flush_folder(folder: Path) -> None:
    """Make the entries of ``folder`` survive a power cut, where the file system can.

    Raises:
        OSError: the disk refuses.
    """
    if os.name == "nt":  # pragma: no cover - Windows has no handle on folders and needs none
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)


def _set_aside(source: BinaryIO, path: Path, session_id: str) -> Path:
    number = 1
    while True:
        aside = path.with_name(f"{session_id}.torn-{number}")
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        except FileExistsError:
            number += 1
            continue
        try:
            with os.fdopen(fd, "wb") as copy:
                while part := source.read(_COPY_BYTES):
                    copy.write(part)
                copy.flush()
                os.fsync(copy.fileno())
        except BaseException:
            aside.unlink()  # the chain still holds all of it, and recovery is tried again
            raise
        flush_folder(aside.parent)
        return aside


def _check_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise TraceUnavailableError(
            "what stands where the trace file should be is no regular file", hint="Move it out of the folder."
        )
