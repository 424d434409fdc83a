"""Control tools for people who approve from elsewhere: what waits for an answer, and giving one.

Rule: they exist for principals only whose roles may approve, and show what belongs to their tenant; nobody settles the approval of
their own call. Source: specs/mcp.md, "Approval"; specs/identity.md, "Approving".
"""

from typing import Any, Final, cast
from urllib.parse import unquote

from cra_mcp.access import Access
from cra_mcp.approval.model import Approval
from cra_mcp.errors import RequestError
from cra_mcp.faces.mcp.control_tool import (
    BOOLEAN,
    ID,
    OPTIONAL,
    STRING,
    Arguments,
    ControlTool,
    Later,
    Value,
    control_tool,
    many,
    record,
)
from cra_mcp.faces.mcp.sessions import Caller
from cra_mcp.trace.event import format_timestamp

URI: Final = "cra://approvals"
"""The resource that has what waits."""

_MAX_COMMENT: Final = 1_000
_MAX_LISTED: Final = 100
_MAX_AFTER: Final = 100
_MAX_DIGITS: Final = 20
_PAGES: Final = f"{URI}?after="
_PENDING: dict[str, Any] = {
    "approval_id": STRING,
    "session_id": STRING,
    "agent_id": STRING,
    "action_id": STRING,
    "parameters": {"description": "The arguments, as the trace keeps them."},
    "parameters_hash": STRING,
    "policy_id": STRING,
    "reason": STRING,
    "risk_tier": {"enum": ["low", "medium", "high", "critical"]},
    "requested_at": STRING,
    "expires_at": STRING,
    "may_settle": {**BOOLEAN, "description": "False for calls of your own."},
}


def pending(access: Access, after: str | None = None) -> Value:
    """A page of what waits for an answer, the newest first; ``after`` is the ``next`` of the page before.

    Raises:
        ForbiddenError: none of the principal's roles may approve.
        RequestError: ``invalid_request``: ``after`` is no page's ``next``.
    """
    found = access.pending_approvals()
    if after is not None:
        last = _place(after)
        found = [approval for approval in found if (approval.requested_at_us, approval.approval_id) < last]
    page, more = found[:_MAX_LISTED], max(0, len(found) - _MAX_LISTED)
    return {
        "approvals": [_shown(access, approval) for approval in page],
        "more": more,
        "next": f"{page[-1].requested_at_us}-{page[-1].approval_id}" if more else None,
    }


def read_pending(access: Access, uri: str) -> Value | None:
    """What a URI of the resource reads as, or that of a page of it; None if it is none."""
    if uri == URI:
        return pending(access)
    return pending(access, unquote(uri.removeprefix(_PAGES))) if uri.startswith(_PAGES) else None


def _place(after: str) -> tuple[int, str]:
    requested, mark, approval_id = after.partition("-")
    if not (mark and requested.isascii() and requested.isdigit() and len(requested) <= _MAX_DIGITS):
        raise RequestError("invalid_request", "after is not the next of a page", hint="leave it out, and begin again")
    return int(requested), approval_id


def approval_tools() -> list[ControlTool]:
    """The tools of this module."""
    return [
        control_tool(
            "cra_pending_approvals",
            "Calls that wait for approval",
            "List the calls of your tenant that wait for a person's approval, the newest first, with their exact arguments.",
            run=lambda caller, arguments: Later(
                lambda: pending(caller.access, cast("str | None", arguments.get("after"))), reads=True
            ),
            needs="approve",
            arguments={
                "after": {"type": "string", "maxLength": _MAX_AFTER, "description": "`next` of the page before."}
            },
            answers={
                "approvals": many(record(_PENDING)),
                "more": {"type": "integer", "minimum": 0, "description": "How many older ones wait."},
                "next": {**OPTIONAL, "description": "`after` of the next page; null at the end."},
            },
            reads=True,
        ),
        control_tool(
            "cra_settle_approval",
            "Approve or reject a call",
            "Let one waiting call go ahead, once and with exactly the arguments shown, or reject it. Only a person decides "
            "this: ask them. It can't be taken back.",
            run=_settle,
            needs="approve",
            arguments={
                "approval_id": {**ID, "description": "Which; see cra_pending_approvals."},
                "decision": {"type": "string", "enum": ["approve", "reject"]},
                "comment": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": _MAX_COMMENT,
                    "description": "Why. The trace keeps it.",
                },
            },
            required=["approval_id", "decision"],
            answers={
                "approval_id": STRING,
                "session_id": STRING,
                "action_id": STRING,
                "status": {"enum": ["granted", "rejected"]},
                "by": STRING,
                "channel": STRING,
                "grade": STRING,
                "comment": OPTIONAL,
            },
            destroys=True,
        ),
    ]


def _settle(caller: Caller, arguments: Arguments) -> Later:
    return Later(lambda: _settled(caller.access, arguments), reads=False)


def _settled(access: Access, arguments: Arguments) -> Value:
    settled = access.settle_approval(
        cast("str", arguments["approval_id"]),
        granted=arguments["decision"] == "approve",
        comment=cast("str | None", arguments.get("comment")),
    )
    return {
        "approval_id": settled.approval_id,
        "session_id": settled.session_id,
        "action_id": settled.action_id,
        "status": settled.status,
        "by": settled.decided_by,
        "channel": settled.channel,
        "grade": settled.grade,
        "comment": settled.comment,
    }


def _shown(access: Access, approval: Approval) -> Value:
    return {
        "approval_id": approval.approval_id,
        "session_id": approval.session_id,
        "agent_id": approval.agent_id,
        "action_id": approval.action_id,
        "parameters": approval.parameters,
        "parameters_hash": approval.parameters_hash,
        "policy_id": approval.policy_id,
        "reason": approval.reason,
        "risk_tier": approval.risk_tier,
        "requested_at": format_timestamp(approval.requested_at_us * 1_000),
        "expires_at": format_timestamp(approval.expires_at_us * 1_000),
        "may_settle": access.may_settle(approval),
    }
