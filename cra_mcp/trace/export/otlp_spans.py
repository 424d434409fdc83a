"""Sessions and calls as OpenTelemetry spans, in OTLP/JSON.

Rule: one span a session, one a call in it, each with its events; a call is given out when it has ended, a session when it
has, and what has not ended when the export does. Source: OpenTelemetry traces data model and GenAI conventions; specs/export.md,
"OpenTelemetry".
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import orjson

from cra_mcp.trace.event import TRACE_VERSION
from cra_mcp.trace.export.otlp import attributes, attributes_of, resource, span_id, trace_id
from cra_mcp.trace.export.record import Record, text_of

_INTERNAL = 1
_OK, _ERROR = 1, 2
_LAST = frozenset(("action.executed", "action.failed", "action.denied", "session.ended"))
_MAX_OPEN = 10_000
_MAX_EVENTS = 1_000
_HEX32, _HEX16 = 32, 16


@dataclass(slots=True)
class _Open:
    """A span that has not ended."""

    records: list[Record] = field(default_factory=list[Record])
    dropped: int = 0

    def add(self, record: Record) -> None:
        if len(self.records) < _MAX_EVENTS:
            self.records.append(record)
        else:
            self.records[-1] = record  # the last one says how it ended
            self.dropped += 1


class Spans:
    """Meets ``Format``. What waits is bounded: beyond 10,000 open spans the oldest is given out as it is."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def begin(self) -> bytes:
        """See ``Format.begin``."""
        return b""

    def feed(self, record: Record) -> Iterator[bytes]:
        """See ``Format.feed``."""
        for span in self.spans(record):
            yield request_of_spans([span]) + b"\n"

    def finish(self) -> Iterator[bytes]:
        """See ``Format.finish``."""
        for span in self.rest():
            yield request_of_spans([span]) + b"\n"

    def spans(self, record: Record) -> Iterator[dict[str, object]]:
        """The spans a record ends."""
        key = record.event.span_id
        self._open.setdefault(key, _Open()).add(record)
        if record.event.event_type in _LAST:
            yield _span(self._open.pop(key))
        elif len(self._open) > _MAX_OPEN:
            yield _span(self._open.popitem(last=False)[1])

    def rest(self) -> Iterator[dict[str, object]]:
        """The spans that have not ended."""
        while self._open:
            yield _span(self._open.popitem(last=False)[1])


def request_of_spans(spans: Iterable[Mapping[str, object]]) -> bytes:
    """One export request (``ExportTraceServiceRequest``), without line end."""
    scope = {"scope": {"name": "cra_mcp.trace", "version": TRACE_VERSION}, "spans": list(spans)}
    return orjson.dumps({"resourceSpans": [{"resource": resource(), "scopeSpans": [scope]}]})


def _span(opened: _Open) -> dict[str, object]:
    first, last = opened.records[0], opened.records[-1]
    call = next(
        (record for record in opened.records if record.action_id is not None and record.event.parent_span_id), None
    )
    if call is not None:
        name, operation = f"execute_tool {call.action_id}", "execute_tool"
    else:
        name, operation = f"invoke_agent {first.origin.agent_id or 'unknown'}", "invoke_agent"
    said: dict[str, object] = {
        **attributes_of(last),
        "gen_ai.operation.name": operation,
        "gen_ai.agent.id": first.origin.agent_id,
        "gen_ai.tool.name": call.action_id if call is not None else None,
        "gen_ai.conversation.id": first.event.session_id,
        "error.type": text_of(last.event.payload, "error_code"),
    }
    span: dict[str, object] = {
        "traceId": trace_id(first.event.trace_id),
        "spanId": span_id(first.event.span_id),
        "name": name,
        "kind": _INTERNAL,
        "startTimeUnixNano": str(first.time_ns),
        "endTimeUnixNano": str(last.time_ns),
        "attributes": attributes(said),
        "events": [_event(record) for record in opened.records],
        "droppedEventsCount": opened.dropped,
        "links": list(_links(opened.records)),
        "status": _status(last),
        "flags": 1,
    }
    if first.event.parent_span_id is not None:
        span["parentSpanId"] = span_id(first.event.parent_span_id)
    return span


def _event(record: Record) -> dict[str, object]:
    said = {
        "cra.sequence": record.event.sequence,
        "cra.event.hash": record.event.event_hash,
        "cra.decision": record.decision,
    }
    return {
        "timeUnixNano": str(record.time_ns),
        "name": record.event.event_type,
        "attributes": attributes({**said, "cra.policy.id": record.policy_id}),
    }


def _links(records: Iterable[Record]) -> Iterator[dict[str, object]]:
    """To the span of the caller's own trace, where it said one."""
    for record in records:
        otel = record.event.payload.get("otel")
        if isinstance(otel, Mapping):
            claimed = cast("Mapping[str, object]", otel)
            trace, span = text_of(claimed, "trace_id") or "", text_of(claimed, "span_id") or ""
            if _is_hex(trace, _HEX32) and _is_hex(span, _HEX16):
                yield {"traceId": trace, "spanId": span}


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip("0123456789abcdef") and bool(text.strip("0"))


def _status(last: Record) -> dict[str, object]:
    if last.outcome == "failure":
        return {"code": _ERROR, "message": last.message}
    return {"code": _OK} if last.outcome == "success" else {}
