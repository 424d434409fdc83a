"""Records in the Common Event Format.

Rule: header fields and extension values are escaped as the format says, so that no value can begin another field. Source: ArcSight,
"Implementing ArcSight Common Event Format", version 26; specs/export.md, "CEF".
"""

from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.event import TRACE_VERSION
from cra_mcp.trace.export.record import PRODUCT, VENDOR, Record

_LEVELS = {"informational": 1, "low": 3, "medium": 6, "high": 8}
_HEADER = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " ", "\r": " "})
_VALUE = str.maketrans({"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"})
_SHORT, _LONG = 1_023, 4_000  # characters of msg and of custom strings


def line(record: Record) -> bytes:
    """One event, without line end."""
    event, origin = record.event, record.origin
    header = (f"CEF:0|{VENDOR}|{PRODUCT}|{TRACE_VERSION}", _head(event.event_type), _head(record.message[:512]))
    fields = (
        ("rt", str(record.time_ns // 1_000_000)),
        ("externalId", event.event_id),
        ("cat", event.event_type),
        ("outcome", record.outcome if record.outcome != "unknown" else None),
        ("act", record.action_id),
        ("suser", origin.subject),
        ("suid", origin.agent_id),
        ("reason", record.policy_id),
        ("msg", record.message[:_SHORT]),
        *_custom("cs1", "session", event.session_id),
        *_custom("cs2", "trace", event.trace_id),
        *_custom("cs3", "span", event.span_id),
        *_custom("cs4", "eventHash", event.event_hash),
        *_custom("cs5", "tenant", origin.tenant),
        *_custom("cs6", "payload", canonical_bytes(dict(event.payload)).decode()[:_LONG]),
        *_custom("cn1", "sequence", str(event.sequence)),
        *_custom("cfp1", "durationMs", str(record.duration_ms) if record.duration_ms is not None else None),
        *_custom("flexString1", "decision", record.decision),
    )
    extension = " ".join(f"{name}={_text(value)}" for name, value in fields if value is not None)
    return f"{'|'.join(header)}|{_LEVELS[record.severity]}|{extension}".encode()


def _custom(name: str, label: str, value: str | None) -> tuple[tuple[str, str | None], ...]:
    """A field whose meaning its label says."""
    return ((name, value), (f"{name}Label", label if value is not None else None))


def _head(text: str) -> str:
    return _plain(text).translate(_HEADER)


def _text(text: str) -> str:
    return _plain(text.replace("\r\n", "\n"), keep="\n\r").translate(_VALUE)


def _plain(text: str, keep: str = "") -> str:
    return text if text.isprintable() else "".join(part if part.isprintable() or part in keep else " " for part in text)
