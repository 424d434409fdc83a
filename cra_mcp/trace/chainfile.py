"""One chain open for writing: lines go in whole or not at all, from one file to the next.

Rule: what a failed write left behind is taken back before anything else is written. After a failed flush the system may have
dropped what it had not written yet, and says so once: so all that was written since the last good flush is kept in memory, and
is written again, flushed and read back before the chain takes another event. Nothing is acknowledged unless the file is the one
that was opened, where it was opened, and holds what was written. Source: specs/trace.md, "Files".
"""

import errno
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.folders import give_back
from cra_mcp.trace.disk import PLAIN, Disk, unavailable, write_all
from cra_mcp.trace.event import Head, parse
from cra_mcp.trace.recovery import recover
from cra_mcp.trace.segments import Segment, check_regular, first_segment, later_segment, lines_of, segments_of
from cra_mcp.trace.standing import TAIL_BYTES, Identity, check_end, check_place, identity_of, lost

_READ_BYTES = 1_048_576
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far files go.

    Attributes:
        segment_bytes: a file of so many bytes is followed by another.
        segment_age_s: so is one whose first event is so old.
        unflushed_bytes: how much of a chain may wait for the disk; the event that makes it more waits for it itself.
    """

    segment_bytes: int = 67_108_864
    segment_age_s: float = 86_400.0
    unflushed_bytes: int = 4_194_304


class _Left(NamedTuple):
    """A file that takes no more events, as it was left."""

    place: str
    identity: Identity
    size: int

    @classmethod
    def of(cls, segment: Segment) -> "_Left":
        status = os.stat(segment.path, follow_symlinks=False)
        return cls(os.path.abspath(segment.path), identity_of(status), status.st_size)


class _Opened:
    """The file events go to now. ``segments`` are all files of the chain, this one last; ``earlier``: how others were left."""

    __slots__ = ("earlier", "fd", "identity", "named", "path", "place", "segments", "until_ns")

    def __init__(self, fd: int, segments: tuple[Segment, ...], earlier: "tuple[_Left, ...]", until_ns: int) -> None:
        self.fd = fd
        self.segments = segments
        self.earlier = earlier
        self.path = segments[-1].path
        self.place = os.path.abspath(self.path)  # as text, and wherever the process goes
        self.until_ns = until_ns  # when it is old
        self.named = False  # its folder's entry for it is on disk
        self.identity = identity_of(os.fstat(fd))


class ChainFile:
    """A chain and its last link. The caller serialises all methods but ``flush``, which may run beside the others.

    Opening recovers the chain first: see ``recover``.

    Raises:
        OSError: a file can't be opened, recovered or created.
        TraceUnavailableError: something that is no regular file stands in its place.
    """

    def __init__(
        self,
        directory: Path,
        session_id: str,
        *,
        disk: Disk | None = None,
        bounds: Bounds | None = None,
        now_ns: int = 0,
    ) -> None:
        self._disk = disk = disk or Disk()
        self._bounds = bounds or Bounds()
        self._directory = directory
        self._session_id = session_id
        self._write = disk.write
        self._sync_lock = threading.Lock()  # over flushing, and changing to another file
        self._closed = False
        # Where each write began that no flush has covered, and what was written; those beyond the tip don't count.
        self._unflushed: list[tuple[int, bytes]] = []
        self._fault: str | None = None
        self._lost = False  # found while flushing: all is looked at before the next event
        self.dirty = False
        """Written since the last flush began."""
        self.recovery, head, segments = recover(segments_of(directory, session_id), session_id, disk)
        earlier = tuple(_Left.of(segment) for segment in segments[:-1])
        opened = self._open(tuple(segments) or (first_segment(directory, session_id),), earlier, now_ns)
        size = os.fstat(opened.fd).st_size
        tail = disk.read_at(opened.fd, TAIL_BYTES, max(0, size - TAIL_BYTES))
        self.tip: tuple[Head | None, int, _Opened, bytes] = (head, size, opened, tail)
        """The last event written, the bytes up to its end, the file they are in, and how that ends. One value, so that an
        interrupt can't split it."""

    @property
    def extent(self) -> tuple[tuple[Segment, ...], int]:
        """Its files in order, and how many bytes of the last are acknowledged: what follows is being written, or taken back."""
        _, end, opened, _ = self.tip
        return opened.segments, end

    def append(self, data: bytes, head: Head, *, durable: bool) -> None:
        """Write ``data``, whole lines ending with the event ``head``; all of it or nothing.

        Raises:
            TraceUnavailableError: nothing was written.
        """
        if self._fault is not None:
            self.heal()
        if self._lost:
            self.check()
            self._lost = False
        _, size, opened, _ = self.tip
        self._check_end(more=1)  # before writing, so that a file that was cut or written to is left as it is
        try:
            written = self._write(opened.fd, data)
            if written < len(data):
                written += write_all(self._disk, opened.fd, data[written:])
            end = size + written
            self._unflushed.append((size, data))
            if durable or end - self._unflushed[0][0] > self._bounds.unflushed_bytes:
                self._flush()
                self._check_earlier(opened)
            check_place(opened.place, opened.identity, end)
            # One assignment: an interrupt falls before it, and the write is taken back, or after it, and it counts.
            self.tip = (head, end, opened, data[-TAIL_BYTES:])
        except BaseException as error:
            self._take_back(size + len(data))
            if isinstance(error, OSError):
                raise unavailable("record an event", error) from error
            raise

    def check(self, *, exactly: bool = True) -> None:
        """Look whether all of it is where it was put, and ends as it was left. Not ``exactly``: something may be written now.

        Raises:
            TraceUnavailableError: it is not; ``reason`` says what became of it.
        """
        _, size, opened, _ = self.tip
        check_place(opened.place, opened.identity, size, exactly=exactly)
        self._check_end(more=exactly)
        self._check_earlier(opened)

    def is_full(self, now_ns: int) -> bool:
        """Whether the next event belongs in another file."""
        _, size, opened, _ = self.tip
        return size >= self._bounds.segment_bytes or (now_ns >= opened.until_ns and size > 0)

    def roll(self, now_ns: int) -> None:
        """Go on in another file. The one so far is on disk, whole, before there is another.

        Raises:
            TraceUnavailableError: it can't be; the chain is as it was.
        """
        if self._fault is not None:
            self.heal()
        head, _, opened, _ = self.tip
        segment = later_segment(self._directory, self._session_id, head.sequence + 1 if head is not None else 0)
        try:
            self._flush()
            self.check()
            with suppress(FileExistsError):
                self._disk.mkdir(segment.path.parent, 0o700)
                give_back(segment.path.parent, 0o700)
            self._disk.sync_folder(self._directory)
            earlier = (*opened.earlier, _Left.of(opened.segments[-1]))
            fresh = self._open((*opened.segments, segment), earlier, now_ns)
            if os.fstat(fresh.fd).st_size:
                self._disk.close(fresh.fd)
                raise OSError(errno.ESTALE, f"{segment.path.name} is there already")
        except OSError as error:
            raise unavailable("begin another file of a trace", error) from error
        with self._sync_lock:
            self.tip = (head, 0, fresh, b"")
        with suppress(OSError):  # all of it is on disk
            self._disk.close(opened.fd)

    def flush(self) -> bool:
        """Flush what was written to disk. False if that failed, now or before: ``heal`` is what helps then.

        Raises:
            TraceUnavailableError: what was flushed is not where it was put.
        """
        self.dirty = False
        try:
            self._flush()
        except OSError:
            return False
        with self._sync_lock:  # or else it may go on in another file meanwhile
            if not self._closed:
                try:
                    self.check(exactly=False)
                except TraceUnavailableError:
                    self._lost = True
                    raise
        return True

    def heal(self) -> None:
        """Write again what may have been lost, flush it and read it back. Nothing to do where nothing failed.

        Raises:
            TraceUnavailableError: the disk still refuses, or the file is not the one that was written.
        """
        with self._sync_lock:
            if self._fault is None or self._closed:
                return
            try:
                self._rewrite()
            except OSError as error:
                raise unavailable(f"record events since {self._fault}", error) from error
            self._fault = None

    def close(self) -> None:
        """Flush and close. Safe to call twice.

        Raises:
            TraceUnavailableError: it is closed, and what the system had not written yet may be lost with it.
        """
        try:
            if not self.flush():
                self.heal()
        finally:
            with self._sync_lock:
                if not self._closed:
                    self._closed = True
                    with suppress(OSError):
                        self._disk.close(self.tip[2].fd)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _open(self, segments: tuple[Segment, ...], earlier: tuple[_Left, ...], now_ns: int) -> _Opened:
        fd = self._disk.open(segments[-1].path, os.O_RDWR | os.O_APPEND | os.O_CREAT | PLAIN, 0o600)
        try:
            check_regular(fd)
            give_back(segments[-1].path, 0o600)
            born_ns = now_ns
            for line in islice(lines_of(segments[-1:]), 1):
                born_ns = _timestamp_ns(line, now_ns)
            return _Opened(fd, segments, earlier, born_ns + int(self._bounds.segment_age_s * _NS))
        except BaseException:
            self._disk.close(fd)
            raise

    def _flush(self) -> None:
        with self._sync_lock:
            if self._closed:
                return
            if self._fault is not None:  # the system reports a loss once: a flush that succeeds now says nothing
                raise OSError(errno.EIO, self._fault)
            opened = self.tip[2]
            covered = len(self._unflushed)
            try:
                self._sync(opened.fd, opened)
            except OSError as error:
                self._fault = f"a flush to disk failed ({error.strerror or error})"
                raise
            written, self._unflushed[:covered] = self._unflushed[:covered], ()
            self._check_written(written, opened)

    def _check_written(self, written: list[tuple[int, bytes]], opened: _Opened) -> None:
        """Read back what was flushed just now. The caller holds the lock."""
        data = b"".join(data for _, data in written)
        if data and self._disk.read_at(opened.fd, len(data), written[0][0]) != data:
            self._lost = True
            raise lost("changed", opened.path.name)

    def _check_end(self, *, more: int) -> None:
        """See that the file ends as it was left, and that no more follows. Raises as ``check``."""
        _, size, opened, tail = self.tip
        try:
            found = self._disk.read_at(opened.fd, len(tail) + more, size - len(tail))
        except OSError as error:
            raise unavailable("look at the trace file", error) from error
        check_end(found, tail, opened.place)

    def _check_earlier(self, opened: _Opened) -> None:
        for left in opened.earlier:
            check_place(*left)

    def _sync(self, fd: int, opened: _Opened) -> None:
        self._disk.sync(fd)
        if not opened.named:
            self._disk.sync_folder(opened.path.parent)
            opened.named = True

    def _take_back(self, written_to: int) -> None:
        """Cut off what an append left, which is no further than ``written_to``. What is not from here is left alone."""
        before = self._fault
        self._fault = "a write could not be taken back"
        with self._sync_lock:
            _, end, opened, _ = self.tip
            self._forget_beyond(end)
            with suppress(OSError):
                if end < os.fstat(opened.fd).st_size <= written_to:
                    self._disk.truncate(opened.fd, end)
                self._fault = before

    def _forget_beyond(self, end: int) -> None:
        while self._unflushed and self._unflushed[-1][0] >= end:
            self._unflushed.pop()

    def _rewrite(self) -> None:
        head, end, opened, tail = self.tip
        self._forget_beyond(end)
        start = self._unflushed[0][0] if self._unflushed else end
        data = b"".join(data for _, data in self._unflushed)
        # Not the descriptor that appends: what is there may still be good, so it is written over in place.
        fd = self._disk.open(opened.path, os.O_RDWR | PLAIN)
        try:
            status = os.fstat(fd)
            if identity_of(status) != opened.identity or status.st_size < start:
                raise OSError(errno.ESTALE, "the trace file was replaced or cut")
            self._disk.seek(fd, start, os.SEEK_SET)
            if data:
                write_all(self._disk, fd, data)
            self._disk.truncate(fd, end)
            opened.named = False
            self._sync(fd, opened)
            self._disk.seek(fd, start, os.SEEK_SET)
            if _read(self._disk, fd, len(data)) != data:
                raise OSError(errno.EIO, "the disk does not give back what was written")
        finally:
            self._disk.close(fd)
        again = self._disk.open(opened.path, os.O_RDWR | os.O_APPEND | PLAIN)
        fresh = _Opened(again, opened.segments, opened.earlier, opened.until_ns)
        if fresh.identity != opened.identity:
            self._disk.close(fresh.fd)
            raise OSError(errno.ESTALE, "the trace file was replaced")
        self.tip = (head, end, fresh, tail)
        self._unflushed.clear()
        with suppress(OSError):
            self._disk.close(opened.fd)


def _read(disk: Disk, fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := disk.read(fd, min(size, _READ_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _timestamp_ns(line: bytes, otherwise: int) -> int:
    """When a stored event was."""
    try:
        return int(datetime.fromisoformat(parse(line).timestamp).timestamp()) * _NS
    except ValueError:  # the 31st of a short month has the form of a timestamp
        return otherwise
