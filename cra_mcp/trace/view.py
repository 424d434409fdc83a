"""What an agent may read of a chain: each event without what policy keeps from agents.

Rule: pure, one event of the view for each event of the chain, so that no number is missing. What is not named here is left out. No
event has its id or its hashes: whoever knew all else of an event could try out by its hash what was left out.
Source: specs/trace.md, "The view of an agent".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

import orjson

from cra_mcp.canonical import MAX_DEPTH, canonical_bytes
from cra_mcp.errors import CanonicalError, TraceError
from cra_mcp.trace.event import Event, parse

VIEW_VERSION: Final = "1.0"
UNREADABLE: Final = "unreadable"
"""The type of a line that is no event. Nothing else of it is shown."""

Payload = Mapping[str, object]

_UNDECLARED: Final[Payload] = {"policy_id": "undeclared"}
_UNKNOWN_CALL: Final[Mapping[str, Payload]] = {
    "policy.evaluated": {**_UNDECLARED, "result": "deny", "basis": "default", "determining": []},
    "policy.violated": {**_UNDECLARED, "violation_type": "unauthorized"},
    "action.denied": {**_UNDECLARED, "reason": "no such action"},
}
"""What the events of a call say that was answered like one of an action that isn't there."""

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "session.started": (
        "agent_id", "goal", "atlases", "mode", "risk_tier", "tenant", "parent_session_id", "principal", "context",
    ),
    "carp.request.received": ("operation", "goal", "query"),
    "carp.resolution.cached": ("resolution_id", "first_sequence", "ttl_seconds"),
    "policy.evaluated": ("action_id", "policy_id", "result", "basis", "determining", "errors", "mode"),
    "atlas.loaded": ("atlas_id", "version", "digest", "replaces"),
    "atlas.unloaded": ("atlas_id", "version", "digest"),
    "error.occurred": ("error_code", "request_id"),
    "x.cra.shadow.evaluated": ("action_id",),
}  # fmt: skip
_WHOLE: Final = frozenset(
    (
        "session.ended", "action.requested", "policy.violated", "action.approved", "action.denied", "action.executed",
        "action.failed", "approval.requested", "approval.granted", "approval.rejected", "approval.expired",
        "context.injected", "context.redacted", "context.expired", "input.received", "output.produced",
        "action.reported", "feedback.received", "x.cra.session.child", "x.cra.session.summary", "x.cra.client.asked",
        "x.cra.client.answered", "x.cra.call.resumed", "x.cra.call.pending", "x.cra.action.replayed",
        "x.cra.approval.settled",
    )
)  # fmt: skip
"""Of these the agent knows everything, unless the event says that it is about something undisclosed."""

_ENVELOPE: Final = ("session_id", "trace_id", "span_id", "parent_span_id", "sequence", "timestamp", "event_type")


def view_of(line: bytes, position: int) -> bytes:
    """The view of one stored line, as JSON; ``position`` is its place in the chain."""
    try:
        event = parse(line)
        seen: dict[str, object] = {name: getattr(event, name) for name in _ENVELOPE}
        seen["payload"] = seen_payload(event.event_type, event.payload)
        return canonical_bytes({"view": VIEW_VERSION, **seen}, max_depth=MAX_DEPTH + 1)
    except (CanonicalError, TraceError):
        return canonical_bytes({"view": VIEW_VERSION, "sequence": position, "event_type": UNREADABLE, "payload": {}})


def read_view(line: bytes) -> Event:
    """A line that ``view_of`` made, as an event without its id and hashes.

    Raises:
        TraceError: it stands for a line that is no event.
    """
    seen = cast("dict[str, object]", orjson.loads(line))
    if seen["event_type"] == UNREADABLE:
        raise TraceError("the stored line is no event", code="malformed_event")
    fields = {name: seen[name] for name in _ENVELOPE}
    return Event(
        trace_version="",
        event_id="",
        event_hash="",
        previous_event_hash="",
        payload=cast("Payload", seen["payload"]),
        **fields,  # pyright: ignore[reportArgumentType] - they are those of an event
    )


def seen_payload(event_type: str, payload: Payload) -> Payload:
    """What an agent may know of the payload of an event."""
    if payload.get("disclosed") is False:
        return _as_unknown(event_type, payload)
    special = _SPECIAL.get(event_type)
    if special is not None:
        return special(payload)
    if event_type in _WHOLE:
        return payload
    return _some(payload, _FIELDS.get(event_type, ()))


def _as_unknown(event_type: str, payload: Payload) -> Payload:
    """A call of what must look unknown, as a call of what is unknown looks, by the name the agent used."""
    kept = _some(payload, ("resolution_id", "otel") if event_type == "action.requested" else ())
    return {"action_id": payload.get("called", payload.get("action_id")), **kept, **_UNKNOWN_CALL.get(event_type, {})}


def _resolved(payload: Payload) -> Payload:
    hidden = payload.get("undisclosed")
    ids = frozenset(each for each in _list(hidden) if isinstance(each, str))
    denied = [
        entry for entry in _list(payload.get("denied")) if isinstance(entry, dict) and entry.get("action_id") not in ids
    ]
    kept = ("resolution_id", "decision_type", "allowed_count", "allowed", "requires_approval")
    more = ("context_block_count", "context_blocks", "ttl_seconds")
    return {**_some(payload, (*kept, *more)), "denied": denied, "denied_count": len(denied)}


def _list(value: object) -> Sequence[Mapping[str, object] | str]:
    return cast("list[Mapping[str, object] | str]", value) if isinstance(value, list) else ()


def _some(payload: Payload, names: Sequence[str]) -> dict[str, object]:
    return {name: payload[name] for name in names if name in payload}


_SPECIAL: Final[Mapping[str, Callable[[Payload], Payload]]] = {"carp.resolution.completed": _resolved}
