"""Records as events of the Open Cybersecurity Schema Framework.

Rule: calls are API Activity, sessions and atlases Application Lifecycle, hidden secrets Detection Finding, all else Base Event; the
payload is in ``unmapped``. Source: OCSF 1.4.0; specs/export.md, "OCSF".
"""

from collections.abc import Mapping

import orjson

from cra_mcp.trace.event import TRACE_VERSION
from cra_mcp.trace.export.record import PRODUCT, VENDOR, Record, text_of

VERSION = "1.4.0"

_API, _LIFECYCLE, _FINDING, _BASE = 6003, 6002, 2004, 0
_CATEGORIES = {_API: 6, _LIFECYCLE: 6, _FINDING: 2, _BASE: 0}
_CLASSES = {
    _API: "API Activity",
    _LIFECYCLE: "Application Lifecycle",
    _FINDING: "Detection Finding",
    _BASE: "Base Event",
}
_LIFECYCLES = {"session.started": 3, "session.ended": 4, "atlas.loaded": 1, "atlas.unloaded": 2}
_SEVERITIES = {"informational": (1, "Informational"), "low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High")}
_STATUSES = {"success": (1, "Success"), "failure": (2, "Failure"), "unknown": (0, "Unknown")}
_VERDICTS = {"allow": (1, "Allowed", 1, "Allowed"), "deny": (2, "Denied", 2, "Blocked")}
_APPROVED = {"approval.granted": (8, "Approved"), "approval.rejected": (25, "Rejected")}
_OTHER = 99


def line(record: Record) -> bytes:
    """One event as JSON, without line end."""
    return orjson.dumps(event_of(record))


def event_of(record: Record) -> dict[str, object]:
    """One event as a JSON object."""
    event = record.event
    class_uid = _class_of(event.event_type)
    activity_id = 1 if class_uid == _FINDING else _LIFECYCLES.get(event.event_type, _OTHER)
    severity_id, severity = _SEVERITIES[record.severity]
    result: dict[str, object] = {
        "activity_id": activity_id,
        "activity_name": event.event_type,
        "category_uid": _CATEGORIES[class_uid],
        "class_uid": class_uid,
        "class_name": _CLASSES[class_uid],
        "type_uid": class_uid * 100 + activity_id,
        "time": record.time_ns // 1_000_000,
        "severity_id": severity_id,
        "severity": severity,
        "message": record.message,
        "metadata": _metadata(record, ["security_control"] if class_uid == _API else []),
        "unmapped": {
            "session_id": event.session_id,
            "span_id": event.span_id,
            "event_hash": event.event_hash,
            "previous_event_hash": event.previous_event_hash,
            "payload": dict(event.payload),
        },
    }
    if class_uid == _API:
        result.update(_call(record))
    elif class_uid == _LIFECYCLE:
        result["app"] = _app(record)
    elif class_uid == _FINDING:
        result["finding_info"] = {"uid": event.event_id, "title": "Secrets were hidden in a recorded event"}
    if class_uid != _FINDING:
        result["status_id"], result["status"] = _STATUSES[record.outcome]
    return result


def _class_of(event_type: str) -> int:
    if event_type in _LIFECYCLES:
        return _LIFECYCLE
    if event_type == "context.redacted":
        return _FINDING
    return _API if event_type.startswith(("action.", "approval.", "policy.")) else _BASE


def _metadata(record: Record, profiles: list[str]) -> dict[str, object]:
    metadata: dict[str, object] = {
        "version": VERSION,
        "product": {"name": PRODUCT, "vendor_name": VENDOR},
        "uid": record.event.event_id,
        "sequence": record.event.sequence,
        "correlation_uid": record.event.trace_id,
        "log_name": "trace",
        "log_version": TRACE_VERSION,
        "log_provider": PRODUCT,
        "original_time": record.event.timestamp,
    }
    if record.origin.tenant is not None:
        metadata["tenant_uid"] = record.origin.tenant
    if profiles:
        metadata["profiles"] = profiles
    return metadata


def _call(record: Record) -> dict[str, object]:
    origin, payload = record.origin, record.event.payload
    user = origin.subject or origin.agent_id or "unknown"
    call: dict[str, object] = {
        "actor": {
            "user": {"uid": user, "name": user},
            "app_name": origin.agent_id or "unknown",
            "session": {"uid": record.event.session_id},
        },
        "api": {
            "operation": record.action_id or record.event.event_type,
            "service": {"name": PRODUCT, "uid": PRODUCT, "version": TRACE_VERSION},
        },
        "src_endpoint": {"name": origin.agent_id or "unknown", "svc_name": "agent"},
    }
    verdict = _VERDICTS.get(record.decision or "")
    if verdict is not None:
        action_id, action, disposition_id, disposition = verdict
        disposition_id, disposition = _APPROVED.get(record.event.event_type, (disposition_id, disposition))
        call |= {"action_id": action_id, "action": action}
        call |= {"disposition_id": disposition_id, "disposition": disposition}
    if record.policy_id is not None:
        call["authorizations"] = [
            {"decision": record.decision or "unknown", "policy": _policy(record.policy_id, payload)}
        ]
    if (code := text_of(payload, "error_code")) is not None:
        call["status_code"] = code
    return call


def _policy(policy_id: str, payload: Mapping[str, object]) -> dict[str, object]:
    policy: dict[str, object] = {"uid": policy_id, "name": policy_id}
    if (reason := text_of(payload, "reason")) is not None:
        policy["desc"] = reason
    return policy


def _app(record: Record) -> dict[str, object]:
    payload = record.event.payload
    if record.event.event_type.startswith("atlas."):
        atlas = text_of(payload, "atlas_id") or "unknown"
        return {"name": atlas, "uid": atlas, "vendor_name": VENDOR, "version": text_of(payload, "version") or "unknown"}
    return {
        "name": record.origin.agent_id or "unknown",
        "uid": record.event.session_id,
        "vendor_name": VENDOR,
        "feature": {"name": "session"},
    }
