"""Where traces are kept: the obligations every store meets.

Rule: linking an event to its chain and storing it is one operation, so that two tasks can't fork a chain.
``tests/trace/test_store_contract.py`` holds every store to what is said here. Source: specs/trace.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from cra_mcp.trace.event import Draft, Head


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """One chain in a store. ``size_bytes`` counts stored lines; ``modified`` is RFC 3339 UTC; ``live`` has a writer now."""

    session_id: str
    size_bytes: int
    modified: str
    live: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """What recovery did: ``kept`` whole events, ``set_aside_bytes`` moved to ``set_aside_to`` (None if nothing was torn)."""

    session_id: str
    kept: int
    set_aside_bytes: int
    set_aside_to: str | None


class TraceStore(Protocol):
    """Keeps one append-only chain a session. All methods are synchronous and may be called from any thread."""

    remote: ClassVar[bool]
    """True where a call waits on a network: the runtime then calls it on its own worker limiter."""

    def begin(self, session_id: str, trace_id: str) -> None:
        """Open a chain for writing; an existing one is recovered and continued.

        Raises:
            TraceLockedError: another process writes it.
            TraceUnavailableError: the store can't be written.
        """
        ...

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """Link ``drafts`` in order and persist them all, or none of them.

        When this returns, the events survive the death of the process; with ``durable`` also a power cut.

        Returns:
            The head after the last of them; the first has sequence ``head.sequence - len(drafts) + 1``.

        Raises:
            TraceUnavailableError: nothing was appended and the chain is as it was.
            UnknownTraceError: ``begin`` was not called, or ``release`` was.
        """
        ...

    def head(self, session_id: str) -> Head | None:
        """Last link of a chain; None for an empty one.

        Raises:
            UnknownTraceError: no such chain.
        """
        ...

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """Stored lines (no line feed) of the events whose sequence is above ``after``, oldest first.

        The unfinished tail of a chain being written is left out.

        Raises:
            UnknownTraceError: no such chain.
        """
        ...

    def sessions(self) -> list[TraceInfo]:
        """All chains, the most recently written first."""
        ...

    def release(self, session_id: str) -> None:
        """Flush a chain to disk and give up writing it. Unknown ids are ignored."""
        ...

    def recover(self, session_id: str) -> Recovery:
        """Keep the longest valid prefix of a chain nobody writes; set the rest aside, never drop it.

        Raises:
            TraceLockedError: a process is writing it.
            UnknownTraceError: no such chain.
        """
        ...

    def close(self) -> None:
        """Flush and release every chain. Safe to call twice."""
        ...
