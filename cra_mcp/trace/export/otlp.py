"""Records as OpenTelemetry log records, in OTLP/JSON.

Rule: ids are hexadecimal, 64-bit integers texts, as the JSON mapping of OTLP says. A span id is the last half of our span's
UUID: its random part. Source: OTLP 1.5, "JSON Protobuf Encoding"; OpenTelemetry logs data model; specs/export.md, "OpenTelemetry".
"""

from collections.abc import Iterable, Mapping
from typing import cast

import orjson

from cra_mcp.trace.event import TRACE_VERSION
from cra_mcp.trace.export.record import PRODUCT, Record

_SEVERITIES = {"informational": (9, "INFO"), "low": (10, "INFO2"), "medium": (13, "WARN"), "high": (17, "ERROR")}
_MAX_INT64 = 2**63 - 1
_MAX_DEPTH = 32
_CUT = "…"


def request_of_logs(records: Iterable[Record]) -> bytes:
    """One export request (``ExportLogsServiceRequest``), without line end."""
    logs = [log_of(record) for record in records]
    scope = {"scope": {"name": "cra_mcp.trace", "version": TRACE_VERSION}, "logRecords": logs}
    return orjson.dumps({"resourceLogs": [{"resource": resource(), "scopeLogs": [scope]}]})


def resource() -> dict[str, object]:
    """What the records come from."""
    return {"attributes": attributes({"service.name": PRODUCT})}


def log_of(record: Record) -> dict[str, object]:
    """One ``LogRecord``."""
    number, text = _SEVERITIES[record.severity]
    return {
        "timeUnixNano": str(record.time_ns),
        "observedTimeUnixNano": str(record.time_ns),
        "severityNumber": number,
        "severityText": text,
        "eventName": record.event.event_type,
        "body": any_value(dict(record.event.payload)),
        "attributes": attributes(attributes_of(record)),
        "traceId": trace_id(record.event.trace_id),
        "spanId": span_id(record.event.span_id),
        "flags": 1,
    }


def attributes_of(record: Record) -> dict[str, object]:
    """What is said of an event, by the names of specs/observability.md and, where there are some, OpenTelemetry's."""
    event, origin = record.event, record.origin
    return {
        "cra.session.id": event.session_id,
        "cra.sequence": event.sequence,
        "cra.event.id": event.event_id,
        "cra.event.hash": event.event_hash,
        "cra.agent.id": origin.agent_id,
        "cra.tenant": origin.tenant,
        "enduser.id": origin.subject,
        "cra.action.id": record.action_id,
        "cra.decision": record.decision,
        "cra.policy.id": record.policy_id,
        "cra.outcome": record.outcome,
        "cra.duration_ms": record.duration_ms,
    }


def attributes(values: Mapping[str, object]) -> list[dict[str, object]]:
    """A list of ``KeyValue``; what is None is left out."""
    return [{"key": key, "value": any_value(value)} for key, value in values.items() if value is not None]


def any_value(value: object, room: int = _MAX_DEPTH) -> dict[str, object]:
    """One ``AnyValue``; an empty one for null."""
    if isinstance(value, dict | list | tuple):
        return _containing(cast("dict[str, object] | list[object]", value), room - 1) if room else {"stringValue": _CUT}
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and abs(value) <= _MAX_INT64:
        return {"intValue": str(value)}
    return {"doubleValue": float(value)} if isinstance(value, int | float) else {"stringValue": str(value)}


def _containing(value: dict[str, object] | list[object], room: int) -> dict[str, object]:
    if isinstance(value, dict):
        pairs = [{"key": key, "value": any_value(each, room)} for key, each in value.items()]
        return {"kvlistValue": {"values": pairs}}
    return {"arrayValue": {"values": [any_value(each, room) for each in value]}}


def trace_id(identifier: str) -> str:
    """16 bytes in hexadecimal: the whole UUID."""
    return identifier.replace("-", "")


def span_id(identifier: str) -> str:
    """8 bytes in hexadecimal: the last half of the UUID."""
    return identifier.replace("-", "")[16:]
