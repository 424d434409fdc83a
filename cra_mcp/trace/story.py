"""A trace as a story: what was asked for, the calls made under each answer, and what became of every call.

Rule: pure; a trace comes from outside, unfinished or broken, and a value of an unexpected type counts as absent. ``telling`` puts
it together. Source: specs/trace.md, "Event types".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from cra_mcp.trace.event import Event
from cra_mcp.trace.payloads import between_ms, list_of, text_of, texts_of
from cra_mcp.trace.summary import summarise

Fate = Literal["executed", "failed", "denied", "waiting", "answered", "unfinished", "undecided"]
"""What became of a call.

``waiting``: for an approval; ``answered``: it waited, and was approved to be made again; ``unfinished``: approved, and nothing
tells how it ended; ``undecided``: nothing tells what became of it.
"""

FATES: tuple[Fate, ...] = ("executed", "failed", "denied", "waiting", "answered", "unfinished", "undecided")

_SETTLED = ("approval.granted", "approval.rejected", "approval.expired")
_ENDS: tuple[tuple[str, Fate], ...] = (
    ("action.executed", "executed"),
    ("action.failed", "failed"),
    ("action.denied", "denied"),
    ("approval.rejected", "denied"),
    ("approval.expired", "denied"),
    ("action.approved", "unfinished"),
    ("approval.requested", "waiting"),
    ("x.cra.call.pending", "waiting"),
)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no event; ``position`` counts lines from 0."""

    position: int
    message: str


@dataclass(frozen=True, slots=True)
class AtlasRef:
    """An atlas as a trace names it."""

    atlas_id: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy said of a call last.

    Attributes:
        result: ``allow``, ``require_approval`` or ``deny``.
        policy_id: the policy named; ``determining`` are all that led to it.
        basis: type of the policy, or ``default``.
        violation: what was violated, where the call was refused.
        reason: as it was recorded, which is for refused calls only.
    """

    result: str
    policy_id: str | None
    basis: str | None
    determining: tuple[str, ...]
    violation: str | None
    reason: str | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Consent:
    """An approval: asked for in one call, given before or in another, which is the same made again.

    Attributes:
        status: ``requested``, ``granted``, ``rejected`` or ``expired``.
        by, channel, grade, comment: who settled it, over what, how sure it is that it was them, and what they said.
        asked: sequence of the event that asks for it; ``settled`` of the one that settles it.
        waited_ms: milliseconds from the one to the other.
    """

    approval_id: str
    status: str
    by: str | None
    channel: str | None
    grade: str | None
    comment: str | None
    asked: int | None
    settled: int | None
    waited_ms: float | None


@dataclass(slots=True)
class Call:
    """One call: the events of its span, in order. Never without one."""

    span_id: str
    events: list[Event] = field(default_factory=list[Event])

    def last(self, *event_types: str) -> Event | None:
        """Its last event of these types."""
        return next((event for event in reversed(self.events) if event.event_type in event_types), None)

    def text(self, name: str) -> str | None:
        """The first text of that name in the payloads of its events."""
        return next((found for event in self.events if (found := text_of(event.payload, name)) is not None), None)

    @property
    def action_id(self) -> str | None:
        """What was called."""
        return self.text("action_id")

    @property
    def requested(self) -> Event | None:
        """The event it begins with, unless that is lost."""
        return self.last("action.requested")

    @property
    def own_fate(self) -> Fate:
        """What became of it, by its own events."""
        types = {event.event_type for event in self.events}
        for name, fate in _ENDS:
            if name in types:
                return fate
        return "undecided"

    @property
    def end(self) -> Event | None:
        """The event that says what became of it."""
        return next((event for name, _ in _ENDS if (event := self.last(name)) is not None), None)

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds that carrying it out took; None if it was not."""
        end = self.last("action.executed", "action.failed")
        return summarise(end).duration_ms if end is not None else None

    @property
    def elapsed_ms(self) -> float | None:
        """Milliseconds from its first event to its last."""
        return between_ms(self.events[0].timestamp, self.events[-1].timestamp)

    @property
    def decision(self) -> Decision | None:
        """What policy said last, or why it was refused before policy was asked."""
        evaluated, denied = self.last("policy.evaluated"), self.last("action.denied")
        source = evaluated or denied
        if source is None:
            return None
        payload = source.payload
        violated = self.last("policy.violated")
        return Decision(
            result=(text_of(payload, "result") or "unknown") if evaluated is not None else "deny",
            policy_id=text_of(payload, "policy_id"),
            basis=text_of(payload, "basis"),
            determining=texts_of(payload, "determining"),
            violation=text_of(violated.payload, "violation_type") if violated is not None else None,
            reason=text_of(denied.payload, "reason") if denied is not None else None,
            sequence=source.sequence,
        )


@dataclass(slots=True)
class Request:
    """A question what may be done: its events, and what followed under the answer."""

    events: list[Event] = field(default_factory=list[Event])
    parts: "list[Call | Event | Unreadable]" = field(default_factory=list["Call | Event | Unreadable"])

    @property
    def asked(self) -> Event | None:
        """What was asked; None where the answer repeats an earlier one, or the event is lost."""
        return next((event for event in self.events if event.event_type == "carp.request.received"), None)

    @property
    def answer(self) -> Event | None:
        """What was answered; ``error.occurred`` for a request that was refused, None where nothing was."""
        return next((event for event in reversed(self.events) if event.event_type != "carp.request.received"), None)

    @property
    def calls(self) -> list[Call]:
        """The calls made under it."""
        return [part for part in self.parts if isinstance(part, Call)]


Part = Request | Call | Event | Unreadable


@dataclass(slots=True)
class Story:
    """A whole trace.

    Attributes:
        parts: in order of their first events. A call stands under its request, whatever was asked meanwhile; a ``Call`` here was
            made under no request the trace has.
        calls: all of them, in order.
        approvals: the events of each approval, by its id.
        changes: of the atlases that are loaded.
        places: position of each event among the lines, from 0, by its ``id()``: what it says of its own may be false.
    """

    started: Event | None = None
    ended: Event | None = None
    events: list[Event] = field(default_factory=list[Event])
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])
    parts: list[Part] = field(default_factory=list[Part])
    calls: list[Call] = field(default_factory=list[Call])
    requests: list[Request] = field(default_factory=list[Request])
    approvals: dict[str, list[Event]] = field(default_factory=dict[str, list[Event]])
    changes: list[Event] = field(default_factory=list[Event])
    places: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def fates(self) -> dict[Fate, int]:
        """How many calls became what."""
        found = [self.fate(call) for call in self.calls]
        return {fate: found.count(fate) for fate in FATES if fate in found}

    @property
    def elapsed_ms(self) -> float | None:
        """Milliseconds from the first event to the last."""
        return between_ms(self.events[0].timestamp, self.events[-1].timestamp) if self.events else None

    def origin(self, name: str) -> str | None:
        """A text of the first event: ``agent_id``, ``goal``, ``tenant``."""
        return text_of(self.started.payload, name) if self.started is not None else None

    def last_place(self, part: Part) -> int:
        """The position of the last line that a part tells of, without what stands under a request."""
        if isinstance(part, Unreadable):
            return part.position
        events = part.events if isinstance(part, Call | Request) else [part]
        return max(self.places[id(event)] for event in events)

    def call_of(self, event: Event) -> Call | None:
        """The call an event of this story belongs to."""
        return next((call for call in self.calls if any(each is event for each in call.events)), None)

    def request_of(self, part: Call | Event) -> Request | None:
        """The request a call was made under, or an event is the question or the answer of."""
        for request in self.requests:
            if any(each is part for each in (request.calls if isinstance(part, Call) else request.events)):
                return request
        return None

    def fate(self, call: Call) -> Fate:
        """What became of a call, by all that the trace tells."""
        fate = call.own_fate
        if fate == "waiting" and (consent := self.consent(call)) is not None and consent.status != "requested":
            return "answered" if consent.status == "granted" else "denied"
        return fate

    def consent(self, call: Call) -> Consent | None:
        """The approval a call needed; None if it needed none."""
        approval_id = call.text("approval_id")
        if approval_id is None:
            return None
        events = self.approvals.get(approval_id, ())
        asked = next((event for event in events if event.event_type == "approval.requested"), None)
        settled = next((event for event in events if event.event_type in _SETTLED), None)
        said: Mapping[str, object] = settled.payload if settled is not None else {}
        return Consent(
            approval_id=approval_id,
            status=settled.event_type.removeprefix("approval.") if settled is not None else "requested",
            by=text_of(said, "by"),
            channel=text_of(said, "channel"),
            grade=text_of(said, "grade"),
            comment=text_of(said, "comment"),
            asked=asked.sequence if asked is not None else None,
            settled=settled.sequence if settled is not None else None,
            waited_ms=between_ms(asked.timestamp, settled.timestamp)
            if asked is not None and settled is not None
            else None,
        )

    def atlases_at(self, sequence: int) -> list[AtlasRef]:
        """The atlases that were loaded when an event was recorded, as far as the trace tells."""
        listed = self.started.payload.get("atlases") if self.started is not None else None
        found = [ref for each in list_of(listed) if (ref := _atlas_ref(each)) is not None]
        for event in self.changes:
            if event.sequence > sequence:
                break
            ref = _atlas_ref(event.payload)
            if ref is not None:
                gone = {ref.atlas_id, text_of(event.payload, "replaces")}
                found = [each for each in found if each.atlas_id not in gone]
                found += [ref] if event.event_type == "atlas.loaded" else []
        return found


def _atlas_ref(value: object) -> AtlasRef | None:
    if not isinstance(value, Mapping):
        return None
    fields = cast("Mapping[str, object]", value)
    named = [text_of(fields, name) for name in ("atlas_id", "version", "digest")]
    return AtlasRef(*cast("list[str]", named)) if None not in named else None
