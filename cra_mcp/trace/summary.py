"""What an event says at a glance: the action, the decision, who decided, how long it took.

Rule: pure, and total over any parsed event: payloads come from outside, and a value of an unexpected type counts as absent.
The page of the MCP App says the same (faces/mcp/app/summary.js); a test compares the two. Source: specs/trace.md, "Event types".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from cra_mcp.trace.event import Event

DecisionKind = Literal["allow", "deny", "approval", "error"]

_BY_TYPE: Mapping[str, DecisionKind] = {
    "action.approved": "allow",
    "action.denied": "deny",
    "action.executed": "allow",
    "action.failed": "error",
    "approval.requested": "approval",
    "approval.granted": "allow",
    "approval.rejected": "deny",
    "approval.expired": "deny",
    "error.occurred": "error",
    "policy.violated": "deny",
}
_BY_PAYLOAD: Mapping[str, str] = {"policy.evaluated": "result", "carp.resolution.completed": "decision_type"}
_BY_WORD: Mapping[str, DecisionKind] = {
    "allow": "allow",
    "deny": "deny",
    "require_approval": "approval",
    "requires_approval": "approval",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """One event in a table.

    Attributes:
        timestamp: RFC 3339 UTC, microseconds.
        decision: None where the event decides nothing.
        duration_ms: milliseconds; None where the event has none.
    """

    sequence: int
    timestamp: str
    event_type: str
    action_id: str | None
    decision: DecisionKind | None
    policy_id: str | None
    duration_ms: float | None


def summarise(event: Event) -> Summary:
    """The glance at one event."""
    payload = event.payload
    return Summary(
        sequence=event.sequence,
        timestamp=event.timestamp,
        event_type=event.event_type,
        action_id=_text(payload.get("action_id")),
        decision=_decision(event.event_type, payload),
        policy_id=_text(payload.get("policy_id")),
        duration_ms=_duration(payload.get("duration_ms")),
    )


def _decision(event_type: str, payload: Mapping[str, object]) -> DecisionKind | None:
    field = _BY_PAYLOAD.get(event_type)
    if field is None:
        return _BY_TYPE.get(event_type)
    word = payload.get(field)
    return _BY_WORD.get(word) if isinstance(word, str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _duration(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isfinite(value) and value >= 0 else None
