"""Traces made for tests: linked as the runtime links them, long or hostile as a test wants."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from cra_mcp.trace.event import Draft, Head, format_timestamp, link

START_NS = 1_790_000_000_000_000_000
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def identifier(number: int) -> str:
    return f"01980000-0000-7000-8000-{number:012x}"


SESSION = identifier(0x5E55)

Step = tuple[str, dict[str, Any], int]
"""Event type, payload, and which call it belongs to."""


def chain(steps: Iterable[Step], *, session_id: str = SESSION, step_ns: int = 7_300_000) -> list[bytes]:
    lines: list[bytes] = []
    head: Head | None = None
    for number, (event_type, payload, call) in enumerate(steps):
        span = identifier(0xB0000 + call)
        head, line = link(
            head,
            Draft(event_type, payload, span, identifier(0xB0000) if call else None),
            session_id=session_id,
            trace_id=identifier(0xA),
            event_id=identifier(0xC0000 + number),
            timestamp=format_timestamp(START_NS + number * step_ns),
        )
        lines.append(line)
    return lines


def opening(goal: str = "Answer ticket 17 and refund the double charge", agent_id: str = "support-bot") -> Step:
    atlases = [{"atlas_id": "com.example.support", "version": "1.4.0", "digest": HASH}]
    return "session.started", {"agent_id": agent_id, "goal": goal, "atlases": atlases, "policy_digest": HASH}, 0


def allowed(call: int, action_id: str, parameters: dict[str, Any], ms: float = 12.5) -> list[Step]:
    ours = {"action_id": action_id}
    return [
        ("action.requested", {**ours, "parameters": parameters, "parameters_hash": HASH}, call),
        (
            "policy.evaluated",
            {**ours, "policy_id": "allow-read", "result": "allow", "determining": ["allow-read"]},
            call,
        ),
        ("action.approved", {**ours, "resolution_id": identifier(7)}, call),
        (
            "action.executed",
            {
                **ours,
                "execution_id": identifier(0xE0000 + call),
                "duration_ms": ms,
                "result_hash": HASH,
                "result_bytes": 311,
            },
            call,
        ),
    ]


def denied(call: int, action_id: str, reason: str) -> list[Step]:
    ours = {"action_id": action_id, "policy_id": "deny-delete"}
    return [
        ("action.requested", {"action_id": action_id, "parameters": {"id": 17}, "parameters_hash": HASH}, call),
        ("policy.evaluated", {**ours, "result": "deny", "determining": ["deny-delete"]}, call),
        ("policy.violated", {**ours, "violation_type": "denied_action"}, call),
        ("action.denied", {**ours, "reason": reason}, call),
    ]


def approved(call: int, action_id: str) -> list[Step]:
    ours = {"action_id": action_id, "approval_id": identifier(0xF0000 + call)}
    asked = {"action_id": action_id, "policy_id": "approve-refunds", "result": "require_approval"}
    return [
        ("action.requested", {"action_id": action_id, "parameters": {"amount": 49.9}, "parameters_hash": HASH}, call),
        ("policy.evaluated", {**asked, "determining": ["approve-refunds"]}, call),
        (
            "approval.requested",
            {**ours, "policy_id": "approve-refunds", "reason": "A person approves every refund."},
            call,
        ),
        ("approval.granted", {**ours, "by": "ann", "channel": "elicitation", "grade": "client_elicitation"}, call),
        (
            "action.approved",
            {"action_id": action_id, "resolution_id": identifier(7), "approval_id": ours["approval_id"]},
            call,
        ),
        (
            "action.failed",
            {
                "action_id": action_id,
                "error_code": "timeout",
                "error_message": "the payment service did not answer in 30 s",
                "duration_ms": 30_012,
            },
            call,
        ),
    ]


def session(calls: int = 6) -> list[Step]:
    """A plausible session: resolving, reading, a refusal, an approval, an error, more reading, the end."""
    steps: list[Step] = [
        opening(),
        ("carp.request.received", {"request_id": identifier(1), "operation": "resolve", "goal": "Answer ticket 17"}, 0),
        (
            "carp.resolution.completed",
            {
                "resolution_id": identifier(7),
                "request_id": identifier(1),
                "decision_type": "partial",
                "allowed_count": 9,
                "denied_count": 2,
                "context_block_count": 3,
                "ttl_seconds": 300,
                "allowed": ["ticket.get", "ticket.search"],
                "denied": [{"action_id": "ticket.delete", "policy_id": "deny-delete"}],
                "digest": HASH,
            },
            0,
        ),
        (
            "context.injected",
            {"block_id": "procedures", "source": "com.example.support/procedures.md", "token_count": 412},
            0,
        ),
        *allowed(1, "ticket.get", {"ticket_id": "T-17", "fields": ["subject", "customer", "charges"]}),
        *denied(2, "ticket.delete", "Nothing is deleted through support: open a ticket instead."),
        *approved(3, "refund.create"),
    ]
    names = ["ticket.get", "ticket.search", "customer.get", "ticket.update"]
    for call in range(4, 4 + calls):
        steps += allowed(call, names[call % len(names)], {"ticket_id": f"T-{call}"}, ms=3.2 * call)
    steps.append(("session.ended", {"reason": "completed", "duration_ms": 91_300}, 0))
    return steps


def changed(lines: list[bytes], index: int, change: Callable[[dict[str, Any]], None]) -> list[bytes]:
    """The lines with one event changed in place, its hash left as it was."""
    event = json.loads(lines[index])
    change(event)
    return [*lines[:index], json.dumps(event, sort_keys=True, separators=(",", ":")).encode(), *lines[index + 1 :]]
