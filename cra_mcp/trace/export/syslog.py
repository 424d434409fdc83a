"""Records as syslog messages, with structured data.

Rule: one message is one line whatever an event holds. Source: RFC 5424; RFC 5426 (UDP), RFC 6587 (framing over TCP);
specs/export.md, "Syslog".
"""

import socket
from functools import lru_cache

from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.export.record import PRODUCT, Record, clean

SD_ID = "cra@32473"
"""32473 is the enterprise number set aside for examples (RFC 5612): the element is ours by its name only."""

_FACILITY = 13  # log audit
_LEVELS = {"informational": 6, "low": 5, "medium": 4, "high": 3}
_BOM = b"\xef\xbb\xbf"
_MAX_MSGID = 32
_MAX_HOST = 255
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "]": "\\]"})


def message(record: Record, host: str | None = None, max_bytes: int | None = None) -> bytes:
    """One message, without framing. ``host``: this machine's name where None; longer than ``max_bytes``, its text is cut."""
    event, origin = record.event, record.origin
    pairs = (
        ("session", event.session_id),
        ("sequence", str(event.sequence)),
        ("event", event.event_id),
        ("hash", event.event_hash),
        ("trace", event.trace_id),
        ("span", event.span_id),
        ("agent", origin.agent_id),
        ("tenant", origin.tenant),
        ("subject", origin.subject),
        ("action", record.action_id),
        ("decision", record.decision),
        ("policy", record.policy_id),
        ("outcome", record.outcome),
    )
    data = " ".join(f'{name}="{_value(value)}"' for name, value in pairs if value is not None)
    priority = _FACILITY * 8 + _LEVELS[record.severity]
    head = f"<{priority}>1 {event.timestamp} {host or host_name()} {PRODUCT} - {event.event_type[:_MAX_MSGID]} [{SD_ID} {data}] "
    text = canonical_bytes(dict(event.payload)).decode()
    data_bytes = head.encode() + _BOM + (clean(text, "?") if not text.isprintable() else text).encode()
    if max_bytes is None or len(data_bytes) <= max_bytes:
        return data_bytes
    return data_bytes[:max_bytes].decode("utf-8", "ignore").encode()


@lru_cache(maxsize=1)
def host_name() -> str:
    """This machine's name as a header may have it; ``-`` where it has none."""
    name = "".join(part for part in socket.gethostname() if "!" <= part <= "~")
    return name[:_MAX_HOST] or "-"


def _value(text: str) -> str:
    return clean(text, "?").translate(_ESCAPES)
