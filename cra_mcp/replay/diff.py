"""What differs between two traces: requests and calls compared by what they say, not by ids, times or durations.

Rule: pure. A difference in what was asked, decided or done is breaking; one in how it came about is minor.
Source: specs/trace.md, "Diff".
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceError
from cra_mcp.replay.alignment import align
from cra_mcp.replay.fields import Fields
from cra_mcp.trace.event import Event, parse

Weight = Literal["breaking", "minor"]

# Facts of a step whose change means that something else was decided or done.
_BREAKING = frozenset(
    {
        "decision",
        "outcome",
        "error_code",
        "violation_type",
        "parameters_hash",
        "decision_type",
        "allowed",
        "denied",
        "requires_approval",
        "agent_id",
        "principal",
        "tenant",
        "risk_tier",
        "reason",
    }
)
_IGNORED = frozenset(
    {
        "at",
        "approval_id",
        "duration_ms",
        "execution_id",
        "expires_at",
        "first_sequence",
        "left_out",
        "otel",
        "parent_session_id",
        "request_id",
        "resolution_id",
        "session_id",
    }
)
_OUTCOMES = {
    "action.executed": "executed",
    "action.failed": "failed",
    "action.denied": "denied",
    "approval.requested": "pending",
    "x.cra.call.pending": "pending",
}
_APPROVALS = {"approval.granted", "approval.rejected", "approval.expired"}
_REQUESTS = {"carp.request.received", "carp.resolution.completed", "carp.resolution.cached"}


@dataclass(frozen=True, slots=True)
class Step:
    """A request, a call, or an event that stands alone.

    Attributes:
        kind: ``session``, ``request``, ``call``, or an event type.
        key: steps of two traces that have the same key are the same step.
        sequence: of its first event.
        facts: what it says.
    """

    kind: str
    key: Hashable
    sequence: int
    facts: Mapping[str, object]

    @property
    def name(self) -> str:
        """As people call it."""
        action_id = self.facts.get("action_id")
        return f"call of {action_id}" if self.kind == "call" else self.kind


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes:
        what: ``added``, ``removed``, or the name of the fact that changed.
        old: its value in the first trace; None where the step is not in it.
        old_sequence: where the step begins in the first trace; None where it is not in it. Likewise ``new``.
    """

    weight: Weight
    step: str
    what: str
    old: object
    new: object
    old_sequence: int | None
    new_sequence: int | None

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {name: getattr(self, name) for name in Difference.__slots__}


def diff(old: Iterable[bytes], new: Iterable[bytes]) -> list[Difference]:
    """Compare two traces, given as their stored lines. Hashes are not checked.

    Raises:
        TraceError: ``malformed_event``; ``not_replayable``: an event has a payload that means nothing.
    """
    before, after = steps_of(old), steps_of(new)
    found: list[Difference] = []
    for first, second in align([step.key for step in before], [step.key for step in after]):
        if first is not None and second is not None:
            found.extend(_changes(before[first], after[second]))
        elif first is not None:
            step = before[first]
            found.append(Difference(_weight_of(step), step.name, "removed", _shown(step), None, step.sequence, None))
        elif second is not None:
            step = after[second]
            found.append(Difference(_weight_of(step), step.name, "added", None, _shown(step), None, step.sequence))
    return found


def steps_of(lines: Iterable[bytes]) -> list[Step]:
    """A trace as steps, in the order they began."""
    calls: dict[str, _Call] = {}
    requests: dict[str, Event] = {}
    found: list[Step | _Call] = []
    for position, line in enumerate(lines):
        event = _event(line, position)
        if event.event_type == "action.requested":
            calls[event.span_id] = call = _Call(event)
            found.append(call)
        elif event.span_id in calls and (event.event_type in _OUTCOMES or not event.event_type.startswith("x.")):
            calls[event.span_id].take(event)
        elif event.event_type in _REQUESTS:
            step = _request(event, requests)
            if step is not None:
                found.append(step)
        else:
            found.append(_alone(event))
    return [step.step() if isinstance(step, _Call) else step for step in found]


def _event(line: bytes, position: int) -> Event:
    try:
        return parse(line)
    except TraceError as error:
        raise TraceError(
            f"event {position}: {error.message}", code=error.code, hint="verify the trace first"
        ) from error


class _Call:
    """A call, put together from the events of its span."""

    def __init__(self, requested: Event) -> None:
        payload = requested.payload
        Fields(payload, requested.sequence).text("action_id")
        self._sequence = requested.sequence
        self._facts: dict[str, object] = {
            "action_id": payload.get("action_id"),
            "parameters_hash": payload.get("parameters_hash"),
            "outcome": "unfinished",
        }
        if "principal" in payload:
            self._facts["principal"] = _without_id(payload["principal"])

    def take(self, event: Event) -> None:
        payload, facts = event.payload, self._facts
        if event.event_type == "policy.evaluated":
            facts["decision"] = payload.get("result")
            for name in ("policy_id", "basis", "determining"):
                facts[name] = payload.get(name)
        elif event.event_type in _APPROVALS:
            facts["approval"] = event.event_type.removeprefix("approval.")
            for name in ("by", "channel", "grade"):
                facts[name] = payload.get(name)
        for name in ("violation_type", "error_code", "error_message", "result_hash", "result_bytes"):
            if name in payload:
                facts[name] = payload[name]
        facts["outcome"] = _OUTCOMES.get(event.event_type, facts["outcome"])

    def step(self) -> Step:
        return Step("call", ("call", str(self._facts["action_id"])), self._sequence, self._facts)


def _request(event: Event, requests: dict[str, Event]) -> Step | None:
    """The step of a request once it is answered. A repeated answer says no more than that it was given."""
    request_id = Fields(event.payload, event.sequence).text("request_id")
    if event.event_type == "carp.request.received":
        requests[request_id] = event
        return None
    asked = requests.pop(request_id, None)
    facts = {**(_kept(asked.payload) if asked is not None else {}), **_kept(event.payload)}
    return Step("request", ("request",), asked.sequence if asked is not None else event.sequence, facts)


def _alone(event: Event) -> Step:
    if event.event_type == "session.started":
        return Step("session", ("session",), event.sequence, _kept(event.payload))
    return Step(event.event_type, (event.event_type,), event.sequence, _kept(event.payload))


def _kept(payload: Mapping[str, object]) -> dict[str, object]:
    kept = {name: value for name, value in payload.items() if name not in _IGNORED}
    if "principal" in kept:
        kept["principal"] = _without_id(kept["principal"])
    return kept


def _without_id(principal: object) -> object:
    """A principal, whichever of its credentials it used."""
    if not isinstance(principal, dict):
        return principal
    stated = cast("Mapping[str, object]", principal)
    return {name: value for name, value in stated.items() if name != "credential_id"}


def _changes(old: Step, new: Step) -> Iterator[Difference]:
    for name in [*old.facts, *(name for name in new.facts if name not in old.facts)]:
        one, other = old.facts.get(name), new.facts.get(name)
        if canonical_bytes(one) != canonical_bytes(other):
            weight: Weight = "breaking" if _is_breaking(old.kind, name) else "minor"
            yield Difference(weight, old.name, name, one, other, old.sequence, new.sequence)


def _is_breaking(kind: str, name: str) -> bool:
    # Why a session ended is a fact; why a call was denied is wording.
    return name in _BREAKING and (name != "reason" or kind == "session.ended")


def _weight_of(step: Step) -> Weight:
    return "minor" if step.kind.startswith(("x.", "context.", "atlas.", "request")) else "breaking"


def _shown(step: Step) -> object:
    return {name: step.facts[name] for name in ("action_id", "decision", "outcome") if name in step.facts} or step.kind
