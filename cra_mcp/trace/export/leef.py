"""Records in the Log Event Extended Format 2.0.

Rule: LEEF has no escapes, so what would end a field is replaced by a blank. Source: IBM, "LEEF event
components"; specs/export.md, "LEEF".
"""

from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.event import TRACE_VERSION
from cra_mcp.trace.export.record import PRODUCT, VENDOR, Record, clean

_LEVELS = {"informational": 1, "low": 3, "medium": 6, "high": 8}
_MAX_PAYLOAD = 4_000


def line(record: Record) -> bytes:
    """One event, without line end; its attributes are separated by tabs."""
    event, origin = record.event, record.origin
    attributes = (
        ("devTime", str(record.time_ns // 1_000_000)),
        ("cat", event.event_type.partition(".")[0]),
        ("sev", str(_LEVELS[record.severity])),
        ("usrName", origin.subject or origin.agent_id),
        ("agent", origin.agent_id),
        ("domain", origin.tenant),
        ("action", record.action_id),
        ("decision", record.decision),
        ("policy", record.policy_id),
        ("outcome", record.outcome),
        ("durationMs", str(record.duration_ms) if record.duration_ms is not None else None),
        ("session", event.session_id),
        ("sequence", str(event.sequence)),
        ("eventId", event.event_id),
        ("eventHash", event.event_hash),
        ("traceId", event.trace_id),
        ("spanId", event.span_id),
        ("msg", record.message),
        ("payload", canonical_bytes(dict(event.payload)).decode()[:_MAX_PAYLOAD]),
    )
    text = "\t".join(f"{name}={clean(value)}" for name, value in attributes if value is not None)
    return f"LEEF:2.0|{VENDOR}|{PRODUCT}|{TRACE_VERSION}|{event.event_type}|x09|{text}".encode()
