"""Asking the person behind an MCP client to approve a call.

Three ways, by what the client can do: a 2025-era client is asked while the call waits; a 2026-era client gets an
``input_required`` result and makes the call again with the answer; any other is told which command grants it.
Rule: what comes back from a client is a claim, recorded with its grade; the ledger makes it count once, for the exact call.
Source: MCP specification, "Elicitation" and "Multi round-trip requests"; specs/carp.md, "Approval".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import mcp_types as t
import orjson
from mcp.shared.exceptions import MCPError

from cra_mcp.approval.model import Answer, Approval, Channel
from cra_mcp.errors import ApprovalError
from cra_mcp.faces.mcp.connection import RequestContext, can_fill_forms, is_modern, principal_of
from cra_mcp.faces.mcp.rounds import STATE_PREFIX, Request
from cra_mcp.gate.attempt import in_thread
from cra_mcp.runtime import Runtime
from cra_mcp.words import visible, visible_lines

_KEY = "approval"
_MAX_SHOWN = 2_000
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approve": {
            "type": "boolean",
            "title": "Approve this call",
            "description": "Tick to let this one call go ahead.",
            "default": False,
        }
    },
    "required": ["approve"],
}


@dataclass(frozen=True, slots=True)
class FormAsker:
    """Asks a 2025-era client with a form, on the connection the call came by."""

    ctx: RequestContext
    channel: Channel = "elicitation"

    async def ask(self, approval: Approval) -> Answer:
        """Send the form and wait for the answer; a client that fails to show it has not answered."""
        try:
            answer = await self.ctx.session.elicit_form(
                question(approval), _SCHEMA, related_request_id=self.ctx.request_id
            )
        except MCPError:
            return "unavailable"
        return read_answer(answer.action, cast("Mapping[str, object] | None", answer.content))


def asker_for(ctx: RequestContext) -> FormAsker | None:
    """How the caller can be asked while the call waits; None where it can't."""
    if is_modern(ctx) or not can_fill_forms(ctx) or not ctx.session.can_send_request:
        return None
    return FormAsker(ctx)


def question(approval: Approval) -> str:
    """What the person is asked: the action, its arguments as the trace keeps them, and which policy wants to know."""
    shown = visible_lines(orjson.dumps(approval.parameters, option=orjson.OPT_INDENT_2).decode())
    if len(shown) > _MAX_SHOWN:
        shown = shown[:_MAX_SHOWN] + f"\n… ({len(shown)} characters in all)"
    return (
        f"The agent {visible(approval.agent_id)!r} wants to call {visible(approval.action_id)} (risk: {approval.risk_tier}) with\n"
        f"{shown}\n\n"
        f"Policy {visible(approval.policy_id)} asks for your approval: {visible(approval.reason or 'no reason given')}"
    )


def read_answer(action: Literal["accept", "decline", "cancel"], content: Mapping[str, object] | None) -> Answer:
    """What a client's answer means: only an accepted form with the box ticked grants."""
    if action == "accept":
        return "granted" if content is not None and content.get("approve") is True else "rejected"
    # Hosts without a person at hand cancel by themselves; the question stays open for `cra-mcp approve`.
    return "rejected" if action == "decline" else "unavailable"


def ask_again(ctx: RequestContext, approval: Approval) -> t.InputRequiredResult | None:
    """For a 2026-era client that can fill forms: the interim result that carries the question."""
    if not is_modern(ctx) or not can_fill_forms(ctx):
        return None
    params = t.ElicitRequestFormParams(message=question(approval), requested_schema=_SCHEMA)
    return t.InputRequiredResult(
        input_requests={_KEY: t.ElicitRequest(params=params)}, request_state=approval.approval_id
    )


async def take_answer(ctx: RequestContext, request: Request, runtime: Runtime) -> bool:
    """Settle the approval a repeated 2026-era call answers; False if the client put the question aside.

    ``request_state`` has been unsealed by the boundary: it is ours, for this tool and these arguments. That it is used once
    is the ledger's business: an approval settled before stays as it was.
    """
    approval_id = request.request_state
    if approval_id is None or approval_id.startswith(STATE_PREFIX) or not is_modern(ctx):
        return True
    given = (request.input_responses or {}).get(_KEY)
    if not isinstance(given, t.ElicitResult):
        return True
    answer = read_answer(given.action, cast("Mapping[str, object] | None", given.content))
    if answer == "unavailable":
        return False
    by = principal_of(ctx).subject
    await in_thread(lambda: _settle(runtime, approval_id, granted=answer == "granted", by=by))
    return True


def _settle(runtime: Runtime, approval_id: str, *, granted: bool, by: str) -> None:
    try:
        runtime.settle_approval(approval_id, granted=granted, by=by, channel="elicitation")
    except ApprovalError:
        # Settled or expired already: the gate reads the ledger and says what holds. But nothing is done for somebody who says no.
        if not granted:
            runtime.withdraw_approval(approval_id, by=by, channel="elicitation")
