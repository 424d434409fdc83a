"""Where traces are kept: the obligations every store meets.

Rule: linking an event to its chain and storing it is one operation, so that two tasks can't fork a chain.
``tests/trace/test_store_contract.py`` holds every store to what is said here. Source: specs/trace.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from uuid_utils import uuid7

from cra_mcp.errors import TraceError
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, link


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """One chain in a store.

    ``size_bytes`` counts stored lines; ``modified`` is RFC 3339 UTC; ``live`` means that it has a writer now.
    """

    session_id: str
    size_bytes: int
    modified: str
    live: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """What recovery did.

    Attributes:
        session_id: the chain.
        kept: how many events are left.
        set_aside_bytes: how much was moved out of the chain.
        set_aside_to: where to; None if nothing was wrong.
        code: what verification found at the first event that was moved: ``truncated`` where a write was cut off, any
            other code where the chain was damaged or changed; None if nothing was wrong.
    """

    session_id: str
    kept: int
    set_aside_bytes: int
    set_aside_to: str | None
    code: str | None = None


class Tap(Protocol):
    """Is told what a store stores. Must neither raise nor wait: calls do."""

    def grown(self, session_id: str, head: Head, lines: Sequence[bytes]) -> None:
        """``lines`` were stored, and end with ``head``. Told in the order of the chain."""
        ...

    def released(self, session_id: str) -> None:
        """A chain was flushed to disk and given up."""
        ...


class TraceStore(Protocol):
    """Keeps one append-only chain a session. All methods are synchronous and may be called from any thread."""

    remote: ClassVar[bool]
    """True where a call waits on a network: the runtime then calls it on its own worker limiter."""

    @property
    def tap(self) -> Tap | None:
        """Told of everything that is stored; None: nobody is."""
        ...

    @tap.setter
    def tap(self, tap: Tap | None) -> None: ...

    def begin(self, session_id: str, trace_id: str) -> None:
        """Open a chain for writing; an existing one is recovered and continued.

        Beginning a chain this store is writing already only changes its trace id.

        Raises:
            TraceError: ``invalid_identifier``: an id that is not a lower-case UUIDv7.
            TraceLockedError: another process writes it.
            TraceUnavailableError: the store can't be written, or was closed.
        """
        ...

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """Link ``drafts`` in order and persist them all, or none of them.

        When this returns, the events survive the death of the process (in a store that outlives it); with ``durable``
        also a power cut. All of them carry one timestamp, never before that of the event they follow.

        Returns:
            The head after the last of them; the first has sequence ``head.sequence - len(drafts) + 1``.

        Raises:
            CanonicalError: a payload has no canonical form; nothing was appended.
            TraceError: ``malformed_event``: an event type or span id breaks its form; nothing was appended.
            TraceUnavailableError: nothing was appended and the chain is as it was.
            UnknownTraceError: ``begin`` was not called, or ``release`` was.
            ValueError: ``drafts`` is empty.
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

    def unfinished(self, session_id: str) -> bytes:
        """What a write that was cut off left after the last whole line; empty while the chain is being written.

        Raises:
            UnknownTraceError: no such chain.
        """
        ...

    def sessions(self) -> list[TraceInfo]:
        """All chains, the most recently written first."""
        ...

    def flush(self, session_id: str) -> None:
        """Bring what was appended to a chain to disk now.

        Raises:
            TraceUnavailableError: the disk refuses.
            UnknownTraceError: it is not being written here.
        """
        ...

    def release(self, session_id: str) -> None:
        """Flush a chain to disk and give up writing it. Unknown ids are ignored.

        Raises:
            TraceUnavailableError: it is given up, and events not ``durable`` since the last flush may be lost.
        """
        ...

    def recover(self, session_id: str) -> Recovery:
        """Keep the longest valid prefix of a chain nobody writes; set the rest aside, never drop it.

        Raises:
            TraceLockedError: a process is writing it.
            UnknownTraceError: no such chain.
        """
        ...

    def abandoned(self) -> list[str]:
        """Chains whose writer died before it gave them up, and that nobody writes now. That there are none is found quickly.

        Raises:
            TraceUnavailableError: it can't be seen.
        """
        ...

    def check(self) -> None:
        """Try whether something could be written now, without touching a chain.

        Raises:
            TraceUnavailableError: it could not, or the store was closed.
        """
        ...

    def close(self) -> None:
        """Flush and release every chain. Safe to call twice. Raises as ``release``, once all are released."""
        ...


def new_identifier() -> str:
    """A fresh UUIDv7."""
    return str(uuid7())


def check_identifiers(*identifiers: str) -> None:
    """Refuse ids that come from outside and are none; a store makes file names of them.

    Raises:
        TraceError: ``invalid_identifier``.
    """
    for identifier in identifiers:
        if not is_identifier(identifier):
            raise TraceError(
                f"{identifier[:80]!r} is not an identifier",
                code="invalid_identifier",
                hint="Identifiers are UUIDv7: lower-case, 36 characters.",
            )


def link_all(
    previous: Head | None,
    drafts: Sequence[Draft],
    *,
    session_id: str,
    trace_id: str,
    now_ns: int,
    new_id: Callable[[], str],
) -> tuple[Head, list[bytes]]:
    """Link ``drafts`` after ``previous``, as ``TraceStore.append`` says.

    Returns:
        The head after the last of them, and their lines.
    """
    if not drafts:
        raise ValueError("nothing to append")
    timestamp = format_timestamp(now_ns)
    if previous is not None and timestamp < previous.timestamp:
        timestamp = previous.timestamp  # the clock was set back
    lines: list[bytes] = []
    head: Head = previous  # pyright: ignore[reportAssignmentType]  # replaced below: there is a draft
    for draft in drafts:
        head, line = link(head, draft, session_id=session_id, trace_id=trace_id, event_id=new_id(), timestamp=timestamp)
        lines.append(line)
    return head, lines
