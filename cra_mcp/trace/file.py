"""Traces in files: one append-only ``<session>.trace.jsonl`` a session, one writer at a time.

Rule: a line reaches the kernel before ``append`` returns, so the death of the process loses nothing acknowledged; a background
flush bounds what a power cut can take. What a failed write left behind is taken back before anything else is written.
Source: ``store.TraceStore``; specs/trace.md, "Files".
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cra_mcp.errors import TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, parse, split_lines, verify
from cra_mcp.trace.store import Recovery, TraceInfo, check_identifiers, link_all, new_identifier

if TYPE_CHECKING:
    from filelock import FileLock

SUFFIX = ".trace.jsonl"
_LOCKS = ".locks"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_TAIL_BYTES = 4_096
_flush_data = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class _Chain:
    """One chain being written; ``lock`` guards all of it.

    Attributes:
        size: bytes of whole lines in the file: where the next one goes.
        broken: why nothing may be appended any more; None while all is well.
        dirty: written since the last flush to disk.
    """

    fd: int
    trace_id: str
    owner: "FileLock"
    head: Head | None = None
    size: int = 0
    broken: str | None = None
    dirty: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


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
        self._flush_interval_s = flush_interval_s
        self._chains: dict[str, _Chain] = {}
        self._lock = threading.Lock()  # over the set of chains and the flusher
        self._flusher: threading.Thread | None = None
        self._closing = threading.Event()

    # --- write -----------------------------------------------------------------------------------------------------

    def begin(self, session_id: str, trace_id: str) -> None:
        """See ``TraceStore.begin``."""
        check_identifiers(session_id, trace_id)
        with self._lock:
            if self._closing.is_set():
                raise TraceUnavailableError("the trace store is closed")
            known = self._chains.get(session_id)
            if known is not None:
                known.trace_id = trace_id
                return
            try:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._chains[session_id] = self._open(session_id, trace_id)
            except OSError as error:
                raise _unavailable("begin a trace", error) from error
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_forever, name="cra-trace-flush", daemon=True)
                self._flusher.start()

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        chain = self._chains.get(session_id)
        if chain is None:
            raise UnknownTraceError(f"session {session_id[:80]!r} is not being written")
        with chain.lock:
            if chain.broken is not None:
                raise TraceUnavailableError(chain.broken, hint="end the session and start another")
            head, lines = link_all(
                chain.head,
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=self._clock_ns(),
                new_id=self._new_id,
            )
            lines.append(b"")
            data = b"\n".join(lines)
            try:
                written = os.write(chain.fd, data)
                if written != len(data):
                    raise OSError(0, "short write")
                if durable:
                    _flush_data(chain.fd)
            except OSError as error:
                self._take_back(chain)
                raise _unavailable("record an event", error) from error
            chain.head = head
            chain.size += written
            chain.dirty = chain.dirty or not durable
            return head

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        with self._lock:
            chain = self._chains.pop(session_id, None)
        if chain is None:
            return
        with chain.lock:
            chain.broken = "the trace was released"
            with suppress(OSError):
                _flush_data(chain.fd)
            os.close(chain.fd)
            chain.owner.release()
            with suppress(OSError):
                Path(chain.owner.lock_file).unlink()

    def close(self) -> None:
        """See ``TraceStore.close``."""
        self._closing.set()
        for session_id in list(self._chains):
            self.release(session_id)
        flusher = self._flusher
        if flusher is not None and flusher is not threading.current_thread():
            flusher.join(timeout=5)

    # --- read ------------------------------------------------------------------------------------------------------

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        chain = self._chains.get(session_id)
        if chain is not None:
            return chain.head
        lines, _ = self._load(session_id)
        return _head_of(lines)

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        lines, _ = self._load(session_id)
        start = max(after + 1, 0)
        return lines[start : None if limit is None else start + max(limit, 0)]

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``."""
        _, tail = self._load(session_id)
        return b"" if tail and self._is_live(session_id) else tail

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        found: list[tuple[int, TraceInfo]] = []
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable("list traces", error) from error
        for entry in entries:
            session_id = entry.name.removesuffix(SUFFIX)
            if session_id == entry.name or not is_identifier(session_id):
                continue
            with suppress(OSError):  # gone meanwhile
                if not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                modified = format_timestamp(status.st_mtime_ns)
                info = TraceInfo(session_id, status.st_size, modified, live=self._is_live(session_id))
                found.append((status.st_mtime_ns, info))
        found.sort(key=lambda item: (item[0], item[1].session_id), reverse=True)
        return [info for _, info in found]

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``."""
        self._path(session_id)
        with self._lock:
            if session_id in self._chains:
                raise TraceLockedError(f"session {session_id} is being written by this process")
            if not self._path(session_id).exists():
                raise UnknownTraceError(f"no trace of session {session_id}")
            try:
                owner = self._claim(session_id)
                try:
                    fd = os.open(self._path(session_id), os.O_RDWR | os.O_APPEND | _NO_FOLLOW | _BINARY)
                    try:
                        recovery, _ = self._mend(session_id, fd)
                        return recovery
                    finally:
                        os.close(fd)
                finally:
                    owner.release()
                    with suppress(OSError):
                        Path(owner.lock_file).unlink()
            except OSError as error:
                raise _unavailable("recover a trace", error) from error

    # --- inside ----------------------------------------------------------------------------------------------------

    def _path(self, session_id: str) -> Path:
        if not is_identifier(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]!r}")
        return self._directory / f"{session_id}{SUFFIX}"

    def _open(self, session_id: str, trace_id: str) -> _Chain:
        owner = self._claim(session_id)
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _NO_FOLLOW | _BINARY
            fd = os.open(self._path(session_id), flags, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise TraceUnavailableError("the trace file is not a regular file", hint="move it out of the folder")
                recovery, head = self._mend(session_id, fd)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            owner.release()
            raise
        chain = _Chain(fd, trace_id, owner, head, os.fstat(fd).st_size)
        if recovery.kept:
            chain.dirty = True
        return chain

    def _claim(self, session_id: str) -> "FileLock":
        """Become the one writer of a chain; the operating system gives the claim up if this process dies."""
        from filelock import FileLock, Timeout  # noqa: PLC0415 - only writers need it

        folder = self._directory / _LOCKS
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(folder / f"{session_id}.lock", timeout=0, mode=0o600, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise TraceLockedError(
                f"session {session_id} is being written by another process",
                hint="end that session, or stop the server it belongs to",
            ) from None
        return lock

    def _is_live(self, session_id: str) -> bool:
        if session_id in self._chains:
            return True
        if not (self._directory / _LOCKS / f"{session_id}.lock").exists():
            return False
        try:
            owner = self._claim(session_id)
        except (TraceLockedError, OSError):
            return True
        owner.release()
        return False

    def _mend(self, session_id: str, fd: int) -> tuple[Recovery, Head | None]:
        """Keep the longest valid prefix of an open file; what follows it goes to a file beside it first."""
        data = _read_all(fd)
        lines, tail = split_lines(data)
        check = verify(lines, session_id=session_id, tail=tail)
        if check.ok:
            return Recovery(session_id, check.events, 0, None), check.head
        size = sum(len(line) + 1 for line in lines[: check.events])
        rest = data[size:]
        aside = self._set_aside(session_id, rest)
        os.ftruncate(fd, size)
        _flush_data(fd)
        return Recovery(session_id, check.events, len(rest), str(aside), check.code), check.head

    def _set_aside(self, session_id: str, rest: bytes) -> Path:
        number = 0
        while True:
            path = self._directory / f"{session_id}.torn-{number}"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            except FileExistsError:
                number += 1
                continue
            try:
                view = memoryview(rest)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            return path

    def _take_back(self, chain: _Chain) -> None:
        """Undo a write that failed, so that the file ends with the last event that was acknowledged."""
        try:
            os.ftruncate(chain.fd, chain.size)
        except OSError:
            chain.broken = "a failed write could not be taken back, so nothing more can be recorded in this trace"

    def _load(self, session_id: str) -> tuple[list[bytes], bytes]:
        path = self._path(session_id)
        try:
            fd = os.open(path, os.O_RDONLY | _NO_FOLLOW | _BINARY)
        except FileNotFoundError:
            raise UnknownTraceError(f"no trace of session {session_id}") from None
        except OSError as error:
            raise _unavailable("read a trace", error) from error
        try:
            return split_lines(_read_all(fd))
        except OSError as error:
            raise _unavailable("read a trace", error) from error
        finally:
            os.close(fd)

    def _flush_forever(self) -> None:
        """Flush what was written, again and again; a chain whose flush fails takes no more events."""
        while not self._closing.wait(self._flush_interval_s):
            for chain in list(self._chains.values()):
                if not chain.dirty:
                    continue
                chain.dirty = False
                # Outside the lock: a slow disk must not hold up calls. The descriptor may be closed meanwhile.
                try:
                    _flush_data(chain.fd)
                except OSError as error:
                    with chain.lock:
                        if chain.broken is None:
                            chain.broken = f"the disk refused a flush ({error.strerror or error.errno})"


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts: list[bytes] = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset) if hasattr(os, "pread") else _read_at(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _read_at(fd: int, count: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, count)


def _head_of(lines: Sequence[bytes]) -> Head | None:
    if not lines:
        return None
    try:
        event = parse(lines[-1])
    except TraceError:
        return verify(lines).head
    return Head(event.sequence, event.event_hash, event.timestamp)


def _unavailable(what: str, error: OSError) -> TraceUnavailableError:
    return TraceUnavailableError(
        f"can't {what}: {error.strerror or 'the disk took only a part'}",
        hint="check that the trace folder is writable and has free space; the call can be made again",
    )
