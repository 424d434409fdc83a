"""Calls of actions, whatever they are presented as: a tool, a prompt, a resource.

Rule: one road for all of them: the same policy, the same approval, the same trace. Source: specs/mcp.md, "Publication".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import mcp_types as t
from mcp.shared.exceptions import MCPError

from cra_mcp.access import Access
from cra_mcp.actions.client import Client
from cra_mcp.approval.model import GRADES, is_enough
from cra_mcp.atlas.model import PythonExecutor
from cra_mcp.errors import AskError
from cra_mcp.faces import logs
from cra_mcp.faces.mcp import tracing
from cra_mcp.faces.mcp.approvals import ask_again, asker_for, take_answer
from cra_mcp.faces.mcp.clients import client_of
from cra_mcp.faces.mcp.connection import RequestContext, is_modern, principal_of, recheck_of
from cra_mcp.faces.mcp.host_arguments import host_arguments
from cra_mcp.faces.mcp.progress import Progress
from cra_mcp.faces.mcp.rounds import STATE_PREFIX, Owner, Request, Rounds
from cra_mcp.faces.mcp.sessions import SessionFinder
from cra_mcp.gate.call import ExecutionOutcome
from cra_mcp.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for: an action, by what its caller calls it. ``offered`` is as in ``cra_mcp.gate.call.Call``."""

    action_id: str
    called: str
    offered: bool = True


class Calls:
    """Hands calls of actions to the runtime, with whom to ask and whom to tell."""

    def __init__(self, runtime: Runtime, sessions: SessionFinder) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._rounds = Rounds()

    async def call(
        self, ctx: RequestContext, request: Request, wanted: Wanted, arguments: Mapping[str, object] | None
    ) -> ExecutionOutcome | t.InputRequiredResult:
        """What became of a call, or what the client is to answer first.

        Raises:
            CRAError: the session can't be used, or the call could not be recorded.
            MCPError: the action asks for what the client did not declare.
        """
        action_id = wanted.action_id
        session = self._sessions.of(ctx).current()
        access = Access(self._runtime, principal_of(ctx), recheck=recheck_of(ctx))
        access.check_caller(session.session_id, action_id)  # before anything it brings counts
        can_ask = await take_answer(ctx, request, self._runtime)
        logs.about(session.session_id, self._runtime.newest_sequence)
        otel = tracing.span_ids()
        # What the caller must not be told of takes the steps of what isn't there.
        action = access.action(action_id) if wanted.offered else None
        executor = action.executor if action is not None else None

        progress = Progress(ctx)

        async def carry(client: Client | None) -> ExecutionOutcome:
            try:
                outcome = await access.execute(
                    session.session_id,
                    action_id,
                    arguments,
                    asker=asker_for(ctx),
                    on_progress=progress.report if progress.wanted else None,
                    client=client,
                    otel=otel,
                    called=wanted.called,
                    offered=wanted.offered,
                    host_arguments=host_arguments(ctx),
                )
                await progress.sent()
            finally:
                progress.close()
            return outcome

        if not isinstance(executor, PythonExecutor) or executor.context is None:
            outcome = await carry(None)
        elif is_modern(ctx) and executor.asks:
            owner = (session.session_id, ctx.method, action_id, access.principal.roles)
            if (request.request_state or "").startswith(STATE_PREFIX):
                answered = await self._go_on(ctx, owner, request)
            else:
                answered = await self._rounds.begin(ctx, owner, request, carry)
            if isinstance(answered, t.InputRequiredResult):
                return answered
            outcome = answered
        else:
            outcome = await carry(client_of(ctx))
        logs.note_outcome(outcome)
        tracing.describe(outcome)
        if outcome.status == "pending_approval" and outcome.approval is not None and can_ask:
            question = ask_again(ctx, outcome.approval) if _counts(outcome) else None
            if question is not None:
                return question
        _refuse_lacking(ctx, outcome)
        return outcome

    async def _go_on(
        self, ctx: RequestContext, owner: Owner, request: Request
    ) -> ExecutionOutcome | t.InputRequiredResult:
        session_id, method, action_id, _ = owner

        def record(keys: Sequence[str]) -> None:
            payload = {"action_id": action_id, "method": method, "answers": list(keys)}
            self._runtime.record(session_id, "x.cra.call.resumed", payload)

        try:
            return await self._rounds.go_on(ctx, owner, request, record)
        except AskError as error:
            payload = {"error_code": error.code, "error_message": error.message}
            self._runtime.record(session_id, "error.occurred", payload)
            raise

    async def aclose(self) -> None:
        """End the calls that wait for answers."""
        await self._rounds.aclose()


def _counts(outcome: ExecutionOutcome) -> bool:
    """Whether the word of a client is worth enough for the call that waits."""
    least = outcome.fault.details.get("min_evidence") if outcome.fault is not None else None
    return is_enough(GRADES["elicitation"], cast("str | None", least))


def _refuse_lacking(ctx: RequestContext, outcome: ExecutionOutcome) -> None:
    """The 2026 era has an error of its own for a client that lacks what a request needs."""
    fault = outcome.fault
    if fault is None or fault.code != "ask_unsupported" or not is_modern(ctx) or "capability" not in fault.details:
        return
    raise MCPError(
        code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
        message=fault.message,
        data={"requiredCapabilities": {str(fault.details["capability"]): {}}},
    )
