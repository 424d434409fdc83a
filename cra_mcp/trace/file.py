"""Traces in files: one append-only ``<session>.trace.jsonl`` a session, one writer at a time.

Rule: a line reaches the kernel before ``append`` returns, so the death of the process loses nothing acknowledged; a
background flush bounds what a power cut can take.
Source: ``store.TraceStore``; specs/trace.md, "Files".
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from cra_mcp.errors import TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.chainfile import ChainFile, open_to_read, unavailable, whole_lines
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, parse, verify
from cra_mcp.trace.store import Recovery, TraceInfo, check_identifiers, link_all, new_identifier

if TYPE_CHECKING:
    from filelock import BaseFileLock

SUFFIX = ".trace.jsonl"
_LOCKS = ".locks"
_LOCK_WAIT_S = 0.25  # rides over another process looking whether a chain is live
_TAIL_BYTES = 65_536


class _Chain:
    """A chain this store is writing; ``lock`` guards all of it."""

    __slots__ = ("claim", "file", "lock", "released", "trace_id")

    def __init__(self, file: ChainFile, trace_id: str, claim: "_Claim") -> None:
        self.file = file
        self.trace_id = trace_id
        self.claim = claim
        self.lock = threading.Lock()
        self.released = False


class FileStore:
    """Meets ``TraceStore``. Nothing is created before the first ``begin``.

    Args:
        directory: where the files are; made with mode 0700.
        clock_ns: wall clock, nanoseconds since the epoch.
        new_id: source of event ids.
        flush_interval_s: how long a written event may wait for the disk.
    """

    remote: ClassVar[bool] = False

    def __init__(
        self,
        directory: Path,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        new_id: Callable[[], str] = new_identifier,
        flush_interval_s: float = 1.0,
    ) -> None:
        self._directory = directory
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._flusher = _Flusher(flush_interval_s)
        self._chains: dict[str, _Chain] = {}
        self._lock = threading.Lock()  # over the set of chains
        self._closed = False

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
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                claim = _Claim.take(self._directory, session_id)
                try:
                    file = ChainFile(self._path(session_id), session_id)
                except BaseException:
                    claim.give_up()
                    raise
            except OSError as error:
                raise unavailable("begin a trace", error) from error
            self._chains[session_id] = _Chain(file, trace_id, claim)

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        chain = self._chains.get(session_id)
        if chain is None:
            raise _not_written(session_id)
        file = chain.file
        with chain.lock:
            if chain.released:
                raise _not_written(session_id)
            head, lines = link_all(
                file.tip[0],
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=self._clock_ns(),
                new_id=self._new_id,
            )
            lines.append(b"")
            file.append(b"\n".join(lines), head, durable=durable)
        if not durable and not file.dirty:
            self._flusher.mark(file)
        return head

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        with self._lock:
            chain = self._chains.pop(session_id, None)
        if chain is not None:
            with chain.lock:
                chain.released = True
                chain.file.close()
                chain.claim.give_up()

    def close(self) -> None:
        """See ``TraceStore.close``."""
        with self._lock:
            self._closed = True
            session_ids = list(self._chains)
        for session_id in session_ids:
            self.release(session_id)
        self._flusher.stop()

    # --- read ------------------------------------------------------------------------------------------------------

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        chain = self._chains.get(session_id)
        if chain is not None:
            return chain.file.tip[0]
        with self._opened(session_id) as file:
            return _last_head(file)

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        chain = self._chains.get(session_id)
        end = chain.file.tip[1] if chain is not None else None  # what is beyond is being written, or taken back
        start = max(after + 1, 0)
        stop = None if limit is None else start + max(limit, 0)
        with self._opened(session_id) as file:
            try:
                return list(islice(whole_lines(file, end), start, stop))
            except OSError as error:
                raise unavailable("read a trace", error) from error

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``."""
        with self._opened(session_id) as file:
            if self._is_live(session_id):
                return b""
            return file.read().rpartition(b"\n")[2]

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        found: list[tuple[int, TraceInfo]] = []
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unavailable("list traces", error) from error
        for entry in entries:
            session_id = entry.name.removesuffix(SUFFIX)
            if session_id == entry.name or not is_identifier(session_id):
                continue
            with suppress(FileNotFoundError):  # gone meanwhile
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    modified = format_timestamp(status.st_mtime_ns)
                    info = TraceInfo(session_id, status.st_size, modified, live=self._is_live(session_id))
                    found.append((status.st_mtime_ns, info))
        found.sort(key=lambda item: (item[0], item[1].session_id), reverse=True)
        return [info for _, info in found]

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``."""
        self._opened(session_id).close()
        with self._lock:
            if session_id in self._chains:
                raise TraceLockedError(
                    f"session {session_id} is being written by this process", hint="End the session first."
                )
            try:
                claim = _Claim.take(self._directory, session_id)
                try:
                    file = ChainFile(self._path(session_id), session_id)
                    file.close()
                    return file.recovery
                finally:
                    claim.give_up()
            except OSError as error:
                raise unavailable("recover a trace", error) from error

    # --- inside ----------------------------------------------------------------------------------------------------

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}{SUFFIX}"

    def _opened(self, session_id: str) -> BinaryIO:
        """A trace's file, for reading. Ids come from outside: what isn't one never becomes a path."""
        if not is_identifier(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]!r}")
        try:
            return open_to_read(self._path(session_id))
        except FileNotFoundError:
            raise UnknownTraceError(f"no trace of session {session_id}") from None
        except OSError as error:
            raise unavailable("read a trace", error) from error

    def _is_live(self, session_id: str) -> bool:
        return session_id in self._chains or _Claim.is_taken(self._directory, session_id)


class _Claim:
    """The right to write one chain; the operating system gives it up when this process dies.

    The lock file stays: were it deleted, two processes could each lock a file of that name. The owner file beside it
    says who has it, and is there only while someone has (or died having it).
    """

    def __init__(self, lock: "BaseFileLock", owner: Path) -> None:
        self._lock = lock
        self._owner = owner

    @classmethod
    def take(cls, directory: Path, session_id: str) -> "_Claim":
        """Take it.

        Raises:
            OSError: the lock can't be made.
            TraceLockedError: someone has it.
        """
        folder = directory / _LOCKS
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder / f"{session_id}.owner"
        lock = _try_lock(folder / f"{session_id}.lock", _LOCK_WAIT_S)
        if lock is None:
            raise TraceLockedError(
                f"session {session_id} is being written by {_owner_name(owner)}",
                hint="End that session, or stop the server it belongs to.",
            )
        try:
            fd = os.open(owner, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(fd, "w") as file, suppress(OSError):  # on a full disk it goes without the number
                file.write(str(os.getpid()))
                file.flush()
        except BaseException:
            lock.release()
            raise
        return cls(lock, owner)

    @staticmethod
    def is_taken(directory: Path, session_id: str) -> bool:
        """Whether some process has it now."""
        if not (directory / _LOCKS / f"{session_id}.owner").exists():
            return False
        try:
            lock = _try_lock(directory / _LOCKS / f"{session_id}.lock", 0)
        except OSError:
            return True  # someone else's folder: nothing to conclude but that an owner is named
        if lock is None:
            return True
        lock.release()  # its owner died
        return False

    def give_up(self) -> None:
        """Give it up."""
        with suppress(OSError):
            self._owner.unlink()
        self._lock.release()


def _try_lock(path: Path, wait_s: float) -> "BaseFileLock | None":
    from filelock import FileLock, Timeout  # noqa: PLC0415 - takes long to import, and readers don't need it

    lock = FileLock(path, timeout=wait_s, mode=0o600, thread_local=False)
    try:
        lock.acquire(poll_interval=0.01)
    except Timeout:
        return None
    return lock


def _owner_name(owner: Path) -> str:
    try:
        pid = owner.read_text().strip()
    except OSError:
        return "another process"
    return f"process {pid}" if pid.isdecimal() else "another process"


class _Flusher:
    """Flushes dirty files to disk, ``interval_s`` after the first write since the last time. Asleep while none is."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._dirty: list[ChainFile] = []
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def mark(self, file: ChainFile) -> None:
        """Have ``file`` flushed. What was written before this call is; so a clean file is marked after each write."""
        with self._lock:
            if file.dirty:
                return
            file.dirty = True
            self._dirty.append(file)
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="cra-trace-flush", daemon=True)
                self._thread.start()
        self._work.set()

    def stop(self) -> None:
        """End the thread. Safe to call twice."""
        self._stopping.set()
        self._work.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            self._work.wait()
            if self._stopping.wait(self._interval_s):
                return
            self._work.clear()
            with self._lock:
                files, self._dirty = self._dirty, []
            for file in files:
                file.flush()


def _last_head(file: BinaryIO) -> Head | None:
    """The link of the last whole line; in a damaged chain, of its last good event."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _TAIL_BYTES))
    before, *lines = file.read().split(b"\n")
    lines = [line for line in (before, *lines)[:-1] if line]
    if not lines and size <= _TAIL_BYTES:
        return None
    try:
        event = parse(lines[-1] if lines else b"")  # none: the file ends in something long that is no whole line
    except TraceError:
        file.seek(0)
        return verify(whole_lines(file)).head
    return Head(event.sequence, event.event_hash, event.timestamp)


def _not_written(session_id: str) -> UnknownTraceError:
    return UnknownTraceError(f"session {session_id[:80]!r} is not being written")
