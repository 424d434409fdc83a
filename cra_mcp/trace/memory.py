"""Traces kept in memory: for tests, demonstrations and embedding. They end with the process.

Source: ``store.TraceStore``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import ClassVar

from cra_mcp.errors import TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.event import Draft, Head, format_timestamp
from cra_mcp.trace.store import Recovery, Tap, TraceInfo, check_identifiers, link_all, new_identifier


@dataclass(slots=True)
class _Chain:
    """One chain; ``lock`` guards all of it. Lines beyond the head don't count: an append was interrupted."""

    trace_id: str
    modified: str
    writing: bool = True
    head: Head | None = None
    lines: list[bytes] = field(default_factory=list[bytes])
    lock: Lock = field(default_factory=Lock)

    @property
    def events(self) -> int:
        """How many events the chain has."""
        return self.head.sequence + 1 if self.head is not None else 0


class MemoryStore:
    """Meets ``TraceStore``; ``durable`` changes nothing here."""

    remote: ClassVar[bool] = False

    def __init__(
        self, *, clock_ns: Callable[[], int] = time.time_ns, new_id: Callable[[], str] = new_identifier
    ) -> None:
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._chains: dict[str, _Chain] = {}
        self._lock = Lock()  # over the set of chains
        self._closed = False
        self.tap: Tap | None = None

    def begin(self, session_id: str, trace_id: str) -> None:
        """See ``TraceStore.begin``."""
        check_identifiers(session_id, trace_id)
        with self._lock:
            if self._closed:
                raise TraceUnavailableError("the trace store is closed")
            chain = self._chains.get(session_id)
            if chain is None:
                self._chains[session_id] = _Chain(trace_id, format_timestamp(self._clock_ns()))
                return
        with chain.lock:
            chain.trace_id = trace_id
            chain.writing = True

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        chain = self._chain(session_id)
        with chain.lock:
            if not chain.writing:
                raise UnknownTraceError(f"session {session_id} is not being written")
            head, lines = link_all(
                chain.head,
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=self._clock_ns(),
                new_id=self._new_id,
            )
            chain.lines[chain.events :] = lines
            chain.modified = head.timestamp
            chain.head = head
            if self.tap is not None:
                self.tap.grown(session_id, head, lines)
            return head

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        return self._chain(session_id).head

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        chain = self._chain(session_id)
        start = max(after + 1, 0)
        with chain.lock:
            end = chain.events if limit is None else min(chain.events, start + max(limit, 0))
            return chain.lines[start:end]

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``; memory tears nothing."""
        self._chain(session_id)
        return b""

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        with self._lock:
            chains = list(self._chains.items())
        found: list[TraceInfo] = []
        for session_id, chain in chains:
            with chain.lock:
                size_bytes = sum(len(line) + 1 for line in chain.lines[: chain.events])
                found.append(TraceInfo(session_id, size_bytes, chain.modified, live=chain.writing))
        return sorted(found, key=lambda info: (info.modified, info.session_id), reverse=True)

    def flush(self, session_id: str) -> None:
        """See ``TraceStore.flush``; there is no disk."""
        if not self._chain(session_id).writing:
            raise UnknownTraceError(f"session {session_id} is not being written")

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        chain = self._chains.get(session_id)
        if chain is not None:
            with chain.lock:
                given_up, chain.writing = chain.writing, False
            if given_up and self.tap is not None:
                self.tap.released(session_id)

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``; memory tears nothing."""
        chain = self._chain(session_id)
        with chain.lock:
            if chain.writing:
                raise TraceLockedError(f"session {session_id} is being written")
            return Recovery(session_id, kept=chain.events, set_aside_bytes=0, set_aside_to=None)

    def abandoned(self) -> list[str]:
        """See ``TraceStore.abandoned``: what is in memory dies with its writer."""
        return []

    def check(self) -> None:
        """See ``TraceStore.check``."""
        if self._closed:
            raise TraceUnavailableError("the trace store is closed")

    def close(self) -> None:
        """See ``TraceStore.close``. What was written stays readable."""
        with self._lock:
            self._closed = True
            session_ids = list(self._chains)
        for session_id in session_ids:
            self.release(session_id)

    def _chain(self, session_id: str) -> _Chain:
        chain = self._chains.get(session_id)
        if chain is None:
            raise UnknownTraceError(f"no trace of session {session_id[:80]!r}")
        return chain
