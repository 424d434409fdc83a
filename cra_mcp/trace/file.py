"""Traces in files: one append-only chain a session, in one file or several, one writer at a time.

Rule: a line reaches the kernel before ``append`` returns, so the death of the process loses nothing acknowledged; a
background flush bounds what a power cut can take.
Source: ``store.TraceStore``; specs/trace.md, "Files".
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ClassVar

from cra_mcp.errors import TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.folders import make_private
from cra_mcp.trace.chainfile import Bounds, ChainFile
from cra_mcp.trace.claim import Claim, claim_chain, is_chain_claimed, locked_chains
from cra_mcp.trace.disk import PLAIN, Disk, unavailable, write_all
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, parse, verify
from cra_mcp.trace.segments import FOLDER, SUFFIX, Segment, lines_of, open_to_read, segments_of, statement_path
from cra_mcp.trace.standing import Identity, check_folder, identity_of, lost
from cra_mcp.trace.store import Recovery, Tap, TraceInfo, check_identifiers, link_all, new_identifier
from cra_mcp.trace.writing import Chain, Flusher

_TAIL_BYTES = 65_536


class FileStore:
    """Meets ``TraceStore``. Nothing is created before the first ``begin``.

    Args:
        directory: where the files are; made with mode 0700.
        clock_ns: wall clock, nanoseconds since the epoch.
        new_id: source of event ids.
        flush_interval_s: how long a written event may wait for the disk.
        bounds: how far files go.
        disk: the calls that change files.
        insecure: the folder may be one that others can write to.
    """

    remote: ClassVar[bool] = False

    def __init__(
        self,
        directory: Path,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        new_id: Callable[[], str] = new_identifier,
        flush_interval_s: float = 1.0,
        bounds: Bounds | None = None,
        disk: Disk | None = None,
        insecure: bool = False,
    ) -> None:
        self._directory = directory
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._bounds = bounds or Bounds()
        self._disk = disk or Disk()
        self._insecure = insecure
        self._flusher = Flusher(flush_interval_s)
        self._chains: dict[str, Chain] = {}
        self._folder: Identity | None = None  # where the chains are that are being written
        self._lock = threading.Lock()  # over the set of chains
        self._closed = False
        self.tap: Tap | None = None

    # --- write -----------------------------------------------------------------------------------------------------

    def begin(self, session_id: str, trace_id: str) -> None:
        """See ``TraceStore.begin``."""
        check_identifiers(session_id, trace_id)
        with self._lock:
            if self._closed:
                raise TraceUnavailableError("the trace store is closed")
            known = self._chains.get(session_id)
            if known is not None:
                known.trace_id = trace_id
                return
            try:
                self._enter()
                claim = self._claim(session_id)
                try:
                    file = self._open(session_id)
                except BaseException:
                    claim.give_up()
                    raise
            except OSError as error:
                raise unavailable("begin a trace", error) from error
            self._chains[session_id] = Chain(session_id, file, trace_id, claim)

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        chain = self._chains.get(session_id)
        if chain is None:
            raise _not_written(session_id)
        file = chain.file
        with chain.lock:
            if chain.released:
                raise _not_written(session_id)
            now_ns = self._clock_ns()
            if file.is_full(now_ns):
                with chain.told():
                    file.roll(now_ns)
            head, lines = link_all(
                file.tip[0],
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=now_ns,
                new_id=self._new_id,
            )
            lines.append(b"")
            try:
                file.append(b"\n".join(lines), head, durable=durable)
            except TraceUnavailableError as error:
                chain.tell(error)
                raise
            if chain.trouble is not None:
                chain.tell(None)
            if self.tap is not None:
                del lines[-1]
                self.tap.grown(session_id, head, lines)
        if not durable and not file.dirty:
            self._flusher.mark(chain)
        return head

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        with self._lock:
            chain = self._chains.pop(session_id, None)
        if chain is not None:
            with chain.lock:
                chain.released = True
                try:
                    chain.file.close()
                finally:
                    chain.claim.give_up()
            if self.tap is not None:
                self.tap.released(session_id)

    def check(self) -> None:
        """See ``TraceStore.check``."""
        if self._closed:
            raise TraceUnavailableError("the trace store is closed")
        for chain in list(self._chains.values()):
            if not chain.released:
                with chain.told():
                    chain.check()
        try:
            with self._lock:
                self._enter()
            probe = self._directory / f".probe-{os.getpid()}"
            fd = self._disk.open(probe, os.O_WRONLY | os.O_CREAT | PLAIN, 0o600)
            try:
                write_all(self._disk, fd, b"\n")
            finally:
                self._disk.close(fd)
                self._disk.unlink(probe)
        except OSError as error:
            raise unavailable("record an event", error) from error

    def close(self) -> None:
        """See ``TraceStore.close``."""
        with self._lock:
            self._closed = True
            session_ids = list(self._chains)
        failed: TraceUnavailableError | None = None
        for session_id in session_ids:
            try:
                self.release(session_id)
            except TraceUnavailableError as error:
                failed = failed or error
        self._flusher.stop()
        if failed is not None:
            raise failed

    def flush(self, session_id: str) -> None:
        """See ``TraceStore.flush``."""
        chain = self._chains.get(session_id)
        if chain is None:
            raise _not_written(session_id)
        with chain.told():
            if not chain.file.flush():
                raise TraceUnavailableError("a flush to disk failed", hint="Free space, or check the disk.")
            chain.check()

    # --- read ------------------------------------------------------------------------------------------------------

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        chain = self._chains.get(session_id)
        if chain is not None:
            return chain.file.tip[0]
        with _reading():
            segments = self._segments(session_id)
            for segment in reversed(segments):
                with open_to_read(segment.path) as file:
                    if os.fstat(file.fileno()).st_size:
                        head = _last_head(file)
                        return head if head is not None else verify(lines_of(segments)).head
        return None

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        with _reading():
            return list(islice(self.lines(session_id, after=after), None if limit is None else max(limit, 0)))

    def lines(self, session_id: str, *, after: int = -1) -> Iterator[bytes]:
        """As ``read``, one by one: a chain need not fit in memory.

        Raises:
            OSError: a file can't be read.
            UnknownTraceError: no such chain.
        """
        chain = self._chains.get(session_id)
        segments, end = chain.file.extent if chain is not None else (self._segments(session_id), None)
        return lines_of(segments, after=after, end=end)

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``."""
        with _reading():
            segment = self._segments(session_id)[-1]
            with open_to_read(segment.path) as file:
                return b"" if self._is_live(session_id) else file.read().rpartition(b"\n")[2]

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        found: dict[str, tuple[int, int]] = {}
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unavailable("list traces", error) from error
        for entry in entries:
            session_id, dot, kind = entry.name.partition(".")
            if f"{dot}{kind}" not in {SUFFIX, FOLDER} or not is_identifier(session_id):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile, or none of ours
                for status in _statuses(entry, is_folder=kind == FOLDER[1:]):
                    modified_ns, size = found.get(session_id, (0, 0))
                    found[session_id] = max(modified_ns, status.st_mtime_ns), size + status.st_size
        latest = sorted(
            ((*what, session_id) for session_id, what in found.items()), key=lambda item: (item[0], item[2])
        )
        return [
            TraceInfo(session_id, size, format_timestamp(modified_ns), live=self._is_live(session_id))
            for modified_ns, size, session_id in reversed(latest)
        ]

    def abandoned(self) -> list[str]:
        """See ``TraceStore.abandoned``: those whose lock is still there, and nobody's."""
        with _reading():
            return [
                session_id
                for session_id in locked_chains(self._directory)
                if is_identifier(session_id)
                and segments_of(self._directory, session_id)
                and not self._is_live(session_id)
            ]

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``."""
        with _reading():
            self._segments(session_id)
        with self._lock:
            if session_id in self._chains:
                raise TraceLockedError(
                    f"session {session_id} is being written by this process", hint="End the session first."
                )
            try:
                claim = self._claim(session_id)
                try:
                    file = self._open(session_id)
                    file.close()
                    return file.recovery
                finally:
                    claim.give_up()
            except OSError as error:
                raise unavailable("recover a trace", error) from error

    # --- inside ----------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """Make the folder; but not anew, nor another one, while chains are written in the one there was. The caller holds the lock.

        Raises:
            OSError: it can't be made.
            TraceUnavailableError: it is not the one there was.
        """
        if not self._chains:
            make_private(self._directory)
        try:
            found = identity_of(os.stat(self._directory))
        except FileNotFoundError:
            raise lost("missing", "the trace folder") from None
        if self._chains and found != self._folder:
            raise lost("replaced", "the trace folder")
        check_folder(self._directory, allowed=self._insecure)
        self._folder = found

    def _claim(self, session_id: str) -> Claim:
        """The right to write a chain. Raises as ``claim_chain``, and ``TraceUnavailableError`` for one that was pruned."""
        claim = claim_chain(self._directory, session_id)
        if statement_path(self._directory, session_id).exists():  # not before it is claimed: it may go meanwhile
            claim.give_up()
            raise TraceUnavailableError(
                f"the trace of session {session_id} was pruned and can't be continued",
                hint="Start another session.",
            )
        return claim

    def _open(self, session_id: str) -> ChainFile:
        return ChainFile(self._directory, session_id, disk=self._disk, bounds=self._bounds, now_ns=self._clock_ns())

    def _segments(self, session_id: str) -> Sequence[Segment]:
        """A trace's files, at least one. Ids come from outside: what isn't one never becomes a path."""
        if not is_identifier(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]!r}")
        segments = segments_of(self._directory, session_id)
        if not segments:
            pruned = statement_path(self._directory, session_id)
            if pruned.exists():
                raise UnknownTraceError(f"the trace of session {session_id} was pruned", hint=f"See {pruned}.")
            raise UnknownTraceError(f"no trace of session {session_id}")
        return segments

    def _is_live(self, session_id: str) -> bool:
        return session_id in self._chains or is_chain_claimed(self._directory, session_id)


@contextmanager
def _reading() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise unavailable("read a trace", error) from error


def _statuses(entry: "os.DirEntry[str]", *, is_folder: bool) -> Iterator[os.stat_result]:
    """Of the file ``entry`` is, or of those in the folder it is."""
    if is_folder:
        if entry.is_dir(follow_symlinks=False):
            with os.scandir(entry.path) as inside:
                for each in inside:
                    yield from _statuses(each, is_folder=False)
    elif entry.is_file(follow_symlinks=False):
        yield entry.stat(follow_symlinks=False)


def _last_head(file: BinaryIO) -> Head | None:
    """The link of the last whole line; None if none can be read from the end of the file."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
    lines = [line for line in file.read().split(b"\n")[:-1] if line]
    try:
        event = parse(lines[-1] if lines else b"")
    except TraceError:
        return None
    return Head(event.sequence, event.event_hash, event.timestamp)


def _not_written(session_id: str) -> UnknownTraceError:
    return UnknownTraceError(f"session {session_id[:80]!r} is not being written")
