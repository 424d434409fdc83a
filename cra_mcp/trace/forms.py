"""The forms of the fields of TRACE events, and what each type of event must hold.

Rule: data and patterns only. Source: specs/trace.md, "Event" and "Event types".
"""

from collections.abc import Mapping

TRACE_VERSION = "1.0"
GENESIS_HASH = "0" * 64
"""``previous_event_hash`` of the first event of a chain."""

REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "session.started": ("agent_id", "goal", "atlases", "policy_digest"),
    "session.ended": ("reason", "duration_ms"),
    "carp.request.received": ("request_id", "operation", "goal"),
    "carp.resolution.completed": (
        "resolution_id",
        "request_id",
        "decision_type",
        "allowed_count",
        "denied_count",
        "context_block_count",
        "ttl_seconds",
        "allowed",
        "denied",
        "digest",
    ),
    "carp.resolution.cached": ("resolution_id", "request_id", "first_sequence"),
    "action.requested": ("action_id", "parameters_hash"),
    "policy.evaluated": ("policy_id", "result", "action_id", "determining"),
    "policy.violated": ("policy_id", "violation_type"),
    "action.approved": ("action_id", "resolution_id"),
    "action.denied": ("action_id", "reason", "policy_id"),
    "action.executed": ("action_id", "execution_id", "duration_ms", "result_hash"),
    "action.failed": ("action_id", "error_code", "error_message", "duration_ms"),
    "approval.requested": ("approval_id", "action_id"),
    "approval.granted": ("approval_id", "action_id", "by", "channel"),
    "approval.rejected": ("approval_id", "action_id", "by", "channel"),
    "approval.expired": ("approval_id", "action_id"),
    "context.injected": ("block_id", "source", "token_count"),
    "context.redacted": ("event_type", "found"),
    "context.expired": (),
    "atlas.loaded": ("atlas_id", "version", "digest"),
    "atlas.unloaded": ("atlas_id", "version", "digest"),
    "input.received": (),
    "output.produced": (),
    "action.reported": (),
    "feedback.received": (),
    "error.occurred": (),
}
"""Event types of the protocol and what their payloads must hold."""

EVENT_TYPES: frozenset[str] = frozenset(REQUIRED_FIELDS)
"""Event types of the protocol; all others must begin ``x.``."""

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
"""Pattern of an identifier: UUIDv7, lower-case."""

DATE_AND_HOUR = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3])"
TIMESTAMP = DATE_AND_HOUR + r":[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
"""Pattern of a timestamp: RFC 3339 UTC with six fractional digits."""

EXTENSION = r"x(?:\.[a-z0-9_-]{1,62}){1,8}"
"""Pattern of an event type that is not of the protocol."""
