"""What every format says of an event, whatever its form: who, what, how it ended, how much it matters.

Rule: pure, and total over any parsed event: payloads come from outside, and a value of an unexpected type counts as absent.
Source: specs/export.md, "What is said of an event".
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from cra_mcp.errors import TraceError
from cra_mcp.trace.event import Event, parse
from cra_mcp.trace.summary import DecisionKind, summarise

Severity = Literal["informational", "low", "medium", "high"]
Outcome = Literal["success", "failure", "unknown"]

PRODUCT = "cra-mcp"
VENDOR = "CRA"

_SEVERITIES: Mapping[str, Severity] = {
    "action.denied": "medium",
    "action.failed": "low",
    "approval.expired": "low",
    "approval.rejected": "medium",
    "approval.requested": "low",
    "context.redacted": "medium",
    "error.occurred": "low",
    "policy.violated": "medium",
}
_HIGH = ("definition_changed", "budget")
_OUTCOMES: Mapping[DecisionKind, Outcome] = {"allow": "success", "deny": "failure", "error": "failure"}
_MAX_ORIGINS = 10_000
_MAX_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose session it is, as its first event says; None where that is not known."""

    agent_id: str | None = None
    tenant: str | None = None
    subject: str | None = None
    goal: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One event, ready for any format.

    Attributes:
        line: the stored line, byte for byte.
        time_ns: nanoseconds since the epoch.
        message: one line for people.
    """

    line: bytes
    event: Event
    origin: Origin
    time_ns: int
    severity: Severity
    outcome: Outcome
    decision: DecisionKind | None
    action_id: str | None
    policy_id: str | None
    duration_ms: float | None
    message: str


class Recorder:
    """Makes records of lines. It must see the first event of a session to say whose the others are."""

    def __init__(self) -> None:
        self._origins: OrderedDict[str, Origin] = OrderedDict()

    def record(self, line: bytes) -> Record:
        """The record of a stored line.

        Raises:
            TraceError: ``malformed_event``.
        """
        event = parse(line)
        glance = summarise(event)
        try:
            moment = datetime.strptime(event.timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        except ValueError:  # 30 February has the form of a timestamp
            raise TraceError("the timestamp is no time", code="malformed_event") from None
        return Record(
            line=line,
            event=event,
            origin=self._origin(event),
            time_ns=(moment - _EPOCH) // _MICROSECOND * 1_000,
            severity=_severity(event),
            outcome=_OUTCOMES.get(glance.decision, "unknown") if glance.decision is not None else "unknown",
            decision=glance.decision,
            action_id=glance.action_id,
            policy_id=glance.policy_id,
            duration_ms=glance.duration_ms,
            message=_message(event, glance.action_id, glance.policy_id),
        )

    def _origin(self, event: Event) -> Origin:
        if event.event_type == "session.started":
            self._origins[event.session_id] = _origin_of(event.payload)
            if len(self._origins) > _MAX_ORIGINS:
                self._origins.popitem(last=False)
        return self._origins.get(event.session_id, _UNKNOWN)


_UNKNOWN = Origin()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution


def text_of(payload: Mapping[str, object], name: str) -> str | None:
    """A text of a payload; None where there is none."""
    value = payload.get(name)
    return value if isinstance(value, str) else None


def clean(text: str, instead: str = " ") -> str:
    """A text on one line, without control characters or what reorders it."""
    return text if text.isprintable() else "".join(part if part.isprintable() else instead for part in text)


def _origin_of(payload: Mapping[str, object]) -> Origin:
    principal = payload.get("principal")
    subject = text_of(cast("Mapping[str, object]", principal), "subject") if isinstance(principal, Mapping) else None
    return Origin(text_of(payload, "agent_id"), text_of(payload, "tenant"), subject, text_of(payload, "goal"))


def _severity(event: Event) -> Severity:
    if event.event_type == "policy.violated" and event.payload.get("violation_type") in _HIGH:
        return "high"
    return _SEVERITIES.get(event.event_type, "informational")


def _message(event: Event, action_id: str | None, policy_id: str | None) -> str:
    payload = event.payload
    parts = [event.event_type]
    if action_id is not None:
        parts.append(action_id)
    if policy_id is not None:
        parts.append(f"by {policy_id}")
    for name in ("reason", "error_message", "goal"):
        if text := text_of(payload, name):
            parts.append(f"({text})")
            break
    return clean(" ".join(parts))[:_MAX_MESSAGE]
