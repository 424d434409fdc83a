"""Sessions whose process died: the next one that starts ends them.

Rule: what somebody writes is left alone, and so is what does not verify. What became of a call that had begun nobody knows, and
the trace then says so. Source: specs/trace.md, "Sessions whose process died".
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import orjson

from cra_mcp.errors import CRAError, TraceLockedError
from cra_mcp.trace.event import Draft, Event, Head, parse, verify
from cra_mcp.trace.store import TraceStore

_AT_ONCE = 1_000
_MAX_CALLS = 100
_ENDED = "session.ended"
_OUTCOMES = ("action.executed", "action.failed", "action.denied")
_log = logging.getLogger("cra_mcp")


@dataclass(frozen=True, slots=True)
class _Known:
    """What a chain says: its ends, and the calls that had begun and of which it has no outcome, by span."""

    first: Event
    last: Event
    begun: dict[str, str]


def end_abandoned(store: TraceStore) -> list[str]:
    """End the sessions in ``store`` whose process died; those that were ended. What keeps one from it is told, and is no error."""
    ended: list[str] = []
    try:
        for session_id in store.abandoned():
            try:
                if _end(store, session_id):
                    ended.append(session_id)
            except TraceLockedError:
                continue  # another process was quicker
            except CRAError as error:
                _log.warning("session %s, whose process died, can't be ended: %s", session_id, error.message)
    except CRAError as error:
        _log.warning("sessions whose process died can't be looked for: %s", error.message)
    return ended


def _end(store: TraceStore, session_id: str) -> bool:
    known = _known(store, session_id)
    if known is None:
        return False
    store.begin(session_id, known.first.trace_id)
    try:
        # Nobody else can write it from here on; who did until now has ended it.
        if known.last.event_type == _ENDED or store.head(session_id) != _head(known.last):
            return False
        store.append(session_id, [Draft(_ENDED, _payload(known), known.first.span_id)])
    finally:
        store.release(session_id)
    return True


def _known(store: TraceStore, session_id: str) -> _Known | None:
    check = verify(_lines(store, session_id), session_id=session_id)
    if not check.ok:
        _log.warning(
            "session %s, whose process died, is not ended: its trace does not verify (%s). `cra-mcp trace verify` says where",
            session_id,
            check.code,
        )
        return None
    first = last = b""
    begun: dict[str, str] = {}
    for line in _lines(store, session_id):
        first, last = first or line, line
        if b'"event_type":"action.' in line:
            event = orjson.loads(line)
            if event["event_type"] == "action.approved":
                begun[event["span_id"]] = event["payload"]["action_id"]
            elif event["event_type"] in _OUTCOMES:
                begun.pop(event["span_id"], None)
    return _Known(parse(first), parse(last), begun) if last else None


def _payload(known: _Known) -> dict[str, object]:
    lasted = datetime.fromisoformat(known.last.timestamp) - datetime.fromisoformat(known.first.timestamp)
    return {
        "reason": "error",
        "cause": "process_died",
        "duration_ms": round(lasted.total_seconds() * 1_000, 3),
        "last_event_at": known.last.timestamp,
        "outcome_unknown": [
            {"action_id": action_id, "span_id": span_id}
            for span_id, action_id in list(known.begun.items())[:_MAX_CALLS]
        ],
    }


def _lines(store: TraceStore, session_id: str) -> Iterator[bytes]:
    after = -1
    while lines := store.read(session_id, after=after, limit=_AT_ONCE):
        yield from lines
        after += len(lines)


def _head(event: Event) -> Head:
    return Head(event.sequence, event.event_hash, event.timestamp)
