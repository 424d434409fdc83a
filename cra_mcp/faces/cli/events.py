"""Events as a person reads them: one line each, with the part that tells most.

Rule: what can't be parsed is shown as such and hides nothing that follows; judging a chain is ``verify``'s business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import orjson

from cra_mcp.errors import TraceError
from cra_mcp.faces.cli.output import paint, printable
from cra_mcp.trace.event import Event, parse

Row = tuple[str, str, str, str, str]

HEAD: Row = ("SEQ", "TIME", "EVENT", "ACTION", "DETAIL")
COLOURS: Mapping[str, str] = {
    "action.denied": "red",
    "action.executed": "green",
    "action.failed": "red",
    "approval.expired": "red",
    "approval.granted": "green",
    "approval.rejected": "red",
    "approval.requested": "yellow",
    "error.occurred": "red",
    "policy.violated": "red",
    "unreadable": "red",
}

_WIDTHS = (4, 12, 26, 24)
_MAX_ACTION = 40
_MAX_DETAIL = 100


def rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """The cells of each stored line; sequence ``?`` where it is no event."""
    for line in lines:
        try:
            yield _row(parse(line))
        except TraceError as error:
            yield ("?", "", "unreadable", "", printable(error.message)[:_MAX_DETAIL])


def text_of(line: bytes) -> str:
    """A stored line in columns of fixed width: for output that grows."""
    (cells,) = rows([line])
    padded = [cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)]
    if cells[2] in COLOURS:
        padded[2] = paint(padded[2], COLOURS[cells[2]])
    return "  ".join((*padded, cells[4])).rstrip()


def _row(event: Event) -> Row:
    payload = cast("Mapping[str, Any]", event.payload)
    return (
        str(event.sequence),
        event.timestamp[11:23],
        event.event_type,
        printable(str(payload.get("action_id", "")))[:_MAX_ACTION],
        printable(detail(event))[:_MAX_DETAIL],
    )


def detail(event: Event) -> str:
    """The part of an event a person looks for, as the trace has it: not printable, and of any length."""
    tell = _DETAILS.get(event.event_type, _any)
    return tell(cast("Mapping[str, Any]", event.payload))


def _any(payload: Mapping[str, Any]) -> str:
    return next((str(payload[key]) for key in _TELLING if payload.get(key)), "")


def _approval(payload: Mapping[str, Any]) -> str:
    by = f" by {payload['by']} over {payload.get('channel')} ({payload.get('grade')})" if payload.get("by") else ""
    return f"{payload.get('approval_id')}{by}"


def _parameters(payload: Mapping[str, Any]) -> str:
    if payload.get("parameters") is not None:
        return orjson.dumps(payload["parameters"]).decode()
    return f"(not recorded) SHA-256 {str(payload.get('parameters_hash'))[:16]}…"


def _redacted(payload: Mapping[str, Any]) -> str:
    found = payload.get("found")
    each = cast("list[Any]", found) if isinstance(found, list) else []
    names = {str(cast("dict[str, Any]", one).get("detector")) for one in each if isinstance(one, dict)}
    return f"in {payload.get('event_type')}: {', '.join(sorted(names))}"


_TELLING = ("goal", "summary", "error_message", "reason", "block_id", "atlas_id", "action", "digest")
_DETAILS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "session.started": lambda payload: f"{payload.get('agent_id')}: {payload.get('goal') or 'no goal given'}",
    "session.ended": lambda payload: f"{payload.get('reason')} after {payload.get('duration_ms')} ms",
    "action.requested": _parameters,
    "policy.evaluated": lambda payload: f"{payload.get('result')} by {payload.get('policy_id')}",
    "policy.violated": lambda payload: f"{payload.get('policy_id')}: {payload.get('violation_type')}",
    "action.denied": lambda payload: f"{payload.get('policy_id')}: {payload.get('reason')}",
    "action.approved": lambda payload: f"by approval {payload['approval_id']}" if payload.get("approval_id") else "",
    "action.executed": lambda payload: f"{payload.get('duration_ms')} ms, {payload.get('result_bytes')} bytes",
    "action.failed": lambda payload: f"{payload.get('error_code')}: {payload.get('error_message')}",
    "approval.requested": _approval,
    "approval.granted": _approval,
    "approval.rejected": _approval,
    "approval.expired": _approval,
    "carp.resolution.completed": lambda payload: (
        f"{payload.get('decision_type')}: {payload.get('allowed_count')} allowed, {payload.get('denied_count')} denied"
    ),
    "carp.resolution.cached": lambda payload: f"as event {payload.get('first_sequence')}",
    "context.redacted": _redacted,
    "context.injected": lambda payload: f"{payload.get('source')} ({payload.get('token_count')} tokens)",
}
