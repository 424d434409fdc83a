"""Records as comma-separated values, safe to open in a spreadsheet.

Rule: every cell is quoted; a text a spreadsheet would run as a formula begins with an apostrophe. Source: RFC 4180; OWASP, "CSV
Injection"; specs/export.md, "CSV".
"""

from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.export.record import Record

COLUMNS = (
    "timestamp",
    "session_id",
    "sequence",
    "event_type",
    "severity",
    "outcome",
    "decision",
    "agent_id",
    "tenant",
    "subject",
    "action_id",
    "policy_id",
    "duration_ms",
    "message",
    "trace_id",
    "span_id",
    "parent_span_id",
    "event_id",
    "event_hash",
    "previous_event_hash",
    "payload",
)
"""The columns; ``payload`` is JSON."""

_FORMULA = tuple("=+-@\t\r\n|%\uff1d\uff0b\uff0d\uff20")
_NOT_TEXT = str.maketrans("", "", "\0")

HEAD = (",".join(f'"{column}"' for column in COLUMNS) + "\r\n").encode()


def row(record: Record) -> bytes:
    """One row, with its line end."""
    event, origin = record.event, record.origin
    cells = (
        event.timestamp,
        event.session_id,
        event.sequence,
        event.event_type,
        record.severity,
        record.outcome,
        record.decision,
        origin.agent_id,
        origin.tenant,
        origin.subject,
        record.action_id,
        record.policy_id,
        record.duration_ms,
        record.message,
        event.trace_id,
        event.span_id,
        event.parent_span_id,
        event.event_id,
        event.event_hash,
        event.previous_event_hash,
        canonical_bytes(dict(event.payload)).decode(),
    )
    return (",".join(map(_cell, cells)) + "\r\n").encode()


def _cell(value: object) -> str:
    text = "" if value is None else str(value).translate(_NOT_TEXT)
    if isinstance(value, str) and text.lstrip(" ").startswith(_FORMULA):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"'
