"""Traces in files: one append-only ``<session>.trace.jsonl`` a session, one writer at a time.

Rule: a line reaches the kernel before ``append`` returns, so that the death of the process loses nothing acknowledged; a
background flush bounds what a power cut can take. What a failed or interrupted write left behind is taken back before
anything else is written. Source: ``store.TraceStore``; specs/trace.md, "Files".
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cra_mcp.errors import TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.claim import Claim, claim, is_claimed
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, parse, split_lines, verify
from cra_mcp.trace.store import Recovery, TraceInfo, check_identifiers, link_all, new_identifier

SUFFIX = ".trace.jsonl"
# A link is never followed, and a pipe never waited for. Windows has neither flag, but one against changed line ends.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_flush_data = getattr(os, "fdatasync", os.fsync)


@dataclass(slots=True)
class _Chain:
    """One chain being written; ``lock`` guards all of it.

    Attributes:
        end: the last acknowledged event and where the next one goes. One value: an interruption can't split it.
        unsettled: the file may hold more than ``end`` says: a write was interrupted or could not be taken back.
        broken: why nothing may be appended any more; None while all is well.
        dirty: written since the last flush to disk.
        placed: the name of the file is on disk, too.
    """

    fd: int
    trace_id: str
    owner: Claim
    end: tuple[Head | None, int]
    unsettled: bool = False
    broken: str | None = None
    dirty: bool = True
    placed: bool = False
    released: bool = False
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

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        chain = self._chains.get(session_id)
        if chain is None:
            raise _not_writing(session_id)
        with chain.lock:
            if chain.unsettled or chain.broken is not None or chain.released:
                _settle(chain, session_id)
            previous, size = chain.end
            head, lines = link_all(
                previous,
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=self._clock_ns(),
                new_id=self._new_id,
            )
            lines.append(b"")
            data = b"\n".join(lines)
            chain.unsettled = True
            try:
                if os.write(chain.fd, data) != len(data):
                    raise OSError("the disk took only a part")
                if durable:
                    self._flush(chain)
            except OSError as error:
                _take_back(chain)
                raise _unavailable("record an event", error) from error
            chain.end = (head, size + len(data))
            chain.unsettled = False
            if not durable:
                chain.dirty = True
        if self._flusher is None:
            self._start_flusher()
        return head

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        with self._lock:
            chain = self._chains.get(session_id)
            if chain is None:
                return
            with chain.lock:
                chain.released = True
                if chain.unsettled:
                    _take_back(chain)
                with suppress(OSError):  # the writer is gone either way; the next one verifies what is there
                    self._flush(chain)
                os.close(chain.fd)
                chain.owner.release()
            del self._chains[session_id]

    def close(self) -> None:
        """See ``TraceStore.close``."""
        with self._lock:
            self._closing.set()
            session_ids = list(self._chains)
        for session_id in session_ids:
            self.release(session_id)
        flusher = self._flusher
        if flusher is not None:
            flusher.join()

    # --- read ------------------------------------------------------------------------------------------------------

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        chain = self._chains.get(session_id)
        if chain is not None:
            return chain.end[0]
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
        """See ``TraceStore.sessions``.

        Raises:
            TraceUnavailableError: the folder can't be read.
        """
        found: list[tuple[int, TraceInfo]] = []
        try:
            with os.scandir(self._directory) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable("list traces", error) from error
        for name in names:
            session_id = name.removesuffix(SUFFIX)
            if session_id == name or not is_identifier(session_id):
                continue
            with suppress(OSError):  # gone meanwhile
                status = (self._directory / name).stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    modified = format_timestamp(status.st_mtime_ns)
                    info = TraceInfo(session_id, status.st_size, modified, live=self._is_live(session_id))
                    found.append((status.st_mtime_ns, info))
        found.sort(key=lambda item: (item[0], item[1].session_id), reverse=True)
        return [info for _, info in found]

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``."""
        path = self._path(session_id)
        with self._lock:
            if session_id in self._chains:
                raise TraceLockedError(f"session {session_id} is being written by this process")
            if not os.path.lexists(path):
                raise UnknownTraceError(f"no trace of session {session_id}")
            try:
                owner = claim(self._directory, session_id)
                try:
                    fd = self._open_file(session_id, os.O_RDWR | os.O_APPEND)
                    try:
                        return self._mend(session_id, fd)[0]
                    finally:
                        os.close(fd)
                finally:
                    owner.release()
            except OSError as error:
                raise _unavailable("recover a trace", error) from error

    # --- inside ----------------------------------------------------------------------------------------------------

    def _path(self, session_id: str) -> Path:
        """Where a chain is. Ids come from outside: only what has the form of one ever becomes part of a path."""
        if not is_identifier(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]!r}")
        return self._directory / f"{session_id}{SUFFIX}"

    def _open_file(self, session_id: str, flags: int) -> int:
        """A descriptor of the file of a chain, which is a plain file or refused."""
        fd = os.open(self._path(session_id), flags | _SAFELY, 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("its file is not a plain file")
        return fd

    def _open(self, session_id: str, trace_id: str) -> _Chain:
        owner = claim(self._directory, session_id)
        try:
            fd = self._open_file(session_id, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                _, head, size = self._mend(session_id, fd)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            owner.release()
            raise
        return _Chain(fd, trace_id, owner, (head, size))

    def _is_live(self, session_id: str) -> bool:
        return session_id in self._chains or is_claimed(self._directory, session_id)

    def _mend(self, session_id: str, fd: int) -> tuple[Recovery, Head | None, int]:
        """Keep the longest valid prefix of an open file; what follows it is on disk beside it before it is cut off.

        Returns:
            What was done, the head and the size of what is left.
        """
        data = _read_all(fd)
        lines, tail = split_lines(data)
        check = verify(lines, session_id=session_id, tail=tail)
        if check.ok:
            return Recovery(session_id, check.events, 0, None), check.head, len(data)
        size = sum(len(line) + 1 for line in lines[: check.events])
        aside = self._set_aside(session_id, data[size:])
        os.ftruncate(fd, size)
        _flush_data(fd)
        return Recovery(session_id, check.events, len(data) - size, str(aside), check.code), check.head, size

    def _set_aside(self, session_id: str, rest: bytes) -> Path:
        number = 0
        while True:
            path = self._directory / f"{session_id}.torn-{number}"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600)
                break
            except FileExistsError:
                number += 1
        try:
            try:
                view = memoryview(rest)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            path.unlink()  # the chain still holds it all
            raise
        _flush_folder(self._directory)
        return path

    def _load(self, session_id: str) -> tuple[list[bytes], bytes]:
        """Lines and unfinished tail; of a chain written by this store only what was acknowledged."""
        chain = self._chains.get(session_id)
        try:
            fd = self._open_file(session_id, os.O_RDONLY)
            try:
                data = _read_all(fd, chain.end[1] if chain is not None else None)
            finally:
                os.close(fd)
        except FileNotFoundError:
            raise UnknownTraceError(f"no trace of session {session_id}") from None
        except OSError as error:
            raise _unavailable("read a trace", error) from error
        return split_lines(data)

    def _flush(self, chain: _Chain) -> None:
        """Bring a chain to disk, its name included.

        Raises:
            OSError: it is not there for sure.
        """
        if os.fstat(chain.fd).st_nlink == 0:
            chain.broken = "the trace file was removed while it was written"
            raise OSError(chain.broken)
        _flush_data(chain.fd)
        if not chain.placed:
            _flush_folder(self._directory)
            chain.placed = True

    def _start_flusher(self) -> None:
        with self._lock:
            if self._flusher is None and not self._closing.is_set():
                self._flusher = threading.Thread(target=self._flush_forever, name="cra-trace-flush", daemon=True)
                self._flusher.start()

    def _flush_forever(self) -> None:
        """Flush what was written, again and again; a chain whose flush fails takes no more events.

        A failed flush is never tried again: the system may have dropped the data and would report success.
        """
        while not self._closing.wait(self._flush_interval_s):
            for chain in list(self._chains.values()):
                if not chain.dirty:
                    continue
                chain.dirty = False
                # Without the chain's lock: a slow disk must not hold up calls.
                try:
                    self._flush(chain)
                except OSError as error:
                    if not chain.released:  # else the descriptor was closed under way, after a flush
                        chain.broken = f"the disk refused what was recorded ({_reason(error)})"


def _settle(chain: _Chain, session_id: str) -> None:
    """Make a chain fit for the next event, or say why it can't be."""
    if chain.released:
        raise _not_writing(session_id)
    if chain.unsettled:
        _take_back(chain)
    if chain.broken is not None:
        raise TraceUnavailableError(chain.broken, hint="End the session and start another.")


def _take_back(chain: _Chain) -> None:
    """Undo a write that failed, so that the file ends with the last event that was acknowledged."""
    try:
        os.ftruncate(chain.fd, chain.end[1])
        chain.unsettled = False
    except OSError:
        chain.broken = "a failed write could not be taken back, so nothing more can be recorded in this trace"


def _read_all(fd: int, size: int | None = None) -> bytes:
    """What a file holds, or its first ``size`` bytes."""
    if size is None:
        size = os.fstat(fd).st_size
    os.lseek(fd, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while size > 0 and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _head_of(lines: Sequence[bytes]) -> Head | None:
    if not lines:
        return None
    try:
        event = parse(lines[-1])
    except TraceError:
        return verify(lines).head
    return Head(event.sequence, event.event_hash, event.timestamp)


def _flush_folder(directory: Path) -> None:
    """Bring the names in a folder to disk, where the system knows such a thing."""
    if os.name != "nt":
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _not_writing(session_id: str) -> UnknownTraceError:
    return UnknownTraceError(f"session {session_id[:80]!r} is not being written")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _unavailable(what: str, error: OSError) -> TraceUnavailableError:
    return TraceUnavailableError(
        f"can't {what}: {_reason(error)}",
        hint="Check that the trace folder is writable and has free space, then try again.",
    )
