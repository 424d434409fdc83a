"""The approval stage of the gate: find, ask for, and use up the consent a call needs.

Rule: an approval is bound to the session, the action and the exact arguments, and is used up by the call that is let through,
not by one that is refused after all. No answer in time is a no. Source: specs/carp.md, "Approval".
"""

import contextlib
import logging

import anyio

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import GRADES, Answer, Approval, Asker, is_enough
from cra_mcp.atlas.model import Action
from cra_mcp.auth.principal import LOCAL_REALM, LOCAL_SUBJECT, Owner
from cra_mcp.errors import ApprovalError, TraceUnavailableError
from cra_mcp.gate.attempt import PENDING, Attempt, Recorder, in_thread
from cra_mcp.gate.call import ExecutionOutcome, Fault
from cra_mcp.gate.elsewhere import Elsewhere
from cra_mcp.gate.refusing import evaluated
from cra_mcp.policy.model import Decision
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.database import StateUnavailableError
from cra_mcp.trace.event import format_timestamp

_log = logging.getLogger("cra_mcp")


class Approving:
    """Answers whether a person has consented to a call.

    Args:
        ledger: approvals.
        recorder: where events go.
        config: how long an approval and an answer may take.
    """

    def __init__(self, ledger: ApprovalLedger, recorder: Recorder, config: RuntimeConfig) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._config = config
        self._elsewhere = Elsewhere(ledger)

    async def consent(self, attempt: Attempt, action: Action, decision: Decision) -> Approval | ExecutionOutcome:
        """A granted approval for exactly this call, not used up yet; or what to answer instead.

        Raises:
            StateUnavailableError: the ledger can't be read or written.
            TraceUnavailableError: the request could not be stored, so nobody was asked.
        """
        call = attempt.call
        asked = await in_thread(
            lambda: self._ledger.latest(call.session.session_id, action.action_id, attempt.parameters_hash)
        )
        least = decision.min_evidence
        if asked is not None and asked.status == "granted" and is_enough(asked.grade, least):
            return asked
        if asked is not None and asked.status == "rejected" and asked.expires_at_us > self._now_us():
            return self._refuse_unapproved(attempt, asked, "approval.rejected")
        if asked is None or asked.status != "pending":
            asked = await self._request(attempt, action, decision)
        if isinstance(asked, ExecutionOutcome):
            return asked
        if call.asker is None or not is_enough(GRADES[call.asker.channel], least):
            return self._leave_pending(attempt, asked, least)
        return await self._ask(attempt, asked, call.asker, least)

    async def use(self, attempt: Attempt, granted: Approval) -> ExecutionOutcome | None:
        """Use a granted approval up: it serves one call. None, or the refusal if it is used or expired by now.

        Raises:
            StateUnavailableError: the ledger can't be written.
        """
        if not await in_thread(lambda: self._ledger.consume(granted.approval_id)):
            return self._refuse_unapproved(attempt, granted, "approval.expired")
        attempt.note("approval.granted", _approval_payload(granted))
        return None

    def note_unused(self, attempt: Attempt, granted: Approval) -> None:
        """Note that consent was given to a call which is refused after all; it stays good for another try."""
        attempt.note("approval.granted", {**_approval_payload(granted), "used": False})

    async def _request(self, attempt: Attempt, action: Action, decision: Decision) -> Approval | ExecutionOutcome:
        now_us = self._now_us()
        session = attempt.call.session
        approval = Approval(
            approval_id=self._config.new_id(),
            session_id=session.session_id,
            agent_id=session.agent_id,
            action_id=action.action_id,
            parameters_hash=attempt.parameters_hash,
            parameters=attempt.recorded,
            policy_id=decision.policy_id,
            reason=decision.reason,
            risk_tier=action.risk_tier.value,
            requested_at_us=now_us,
            expires_at_us=now_us + self._config.approval_ttl_s * 1_000_000,
        )
        attempt.note("policy.evaluated", evaluated(action.action_id, decision, attempt.at))
        attempt.note(
            "approval.requested",
            {
                "approval_id": approval.approval_id,
                "action_id": approval.action_id,
                "policy_id": approval.policy_id,
                "parameters_hash": approval.parameters_hash,
                "expires_at": format_timestamp(approval.expires_at_us * 1_000),
            },
        )
        await self._recorder.store(attempt, durable=False)
        owner, at_most = _owner(attempt), self._config.max_pending_approvals

        def request() -> Approval | ApprovalError:
            try:
                return self._ledger.request(approval, owner=owner, at_most=at_most)
            except ApprovalError as error:
                return error

        asked = await in_thread(request)
        return self._refuse_unasked(attempt, approval, asked) if isinstance(asked, ApprovalError) else asked

    async def _ask(
        self, attempt: Attempt, asked: Approval, asker: Asker, least: str | None
    ) -> Approval | ExecutionOutcome:
        """Ask while the call waits; no answer in time is a no. Whoever settles it first, here or elsewhere, has settled it."""
        answer: Answer = "unanswered"
        try:
            with anyio.move_on_after(self._config.elicitation_timeout_s):
                answer = await self._answer(asked, asker)
        except anyio.get_cancelled_exc_class():
            with contextlib.suppress(TraceUnavailableError, StateUnavailableError):
                await in_thread(lambda: self._ledger.expire(asked.approval_id))
                self._refuse_unapproved(attempt, asked, "approval.expired")
            raise
        if answer == "unanswered":
            await in_thread(lambda: self._ledger.expire(asked.approval_id))
        elif answer != "unavailable":
            with contextlib.suppress(ApprovalError):
                await in_thread(
                    lambda: self._ledger.settle(
                        asked.approval_id, granted=answer == "granted", by=_who(attempt), channel=asker.channel
                    )
                )
        settled = await in_thread(lambda: self._ledger.get(asked.approval_id))
        if settled.status == "pending":
            return self._leave_pending(attempt, asked)
        if settled.status == "granted" and is_enough(settled.grade, least):
            return settled
        event = "approval.rejected" if settled.status == "rejected" else "approval.expired"
        return self._refuse_unapproved(attempt, settled, event)

    async def _answer(self, asked: Approval, asker: Asker) -> Answer:
        """What the asked person answers; ``unavailable`` where it is settled elsewhere before that."""
        answer: Answer = "unavailable"
        async with anyio.create_task_group() as group:

            async def give_up() -> None:
                await self._elsewhere.settled(asked.approval_id)
                group.cancel_scope.cancel()

            group.start_soon(give_up)
            try:
                answer = await asker.ask(asked)
            except Exception as error:  # noqa: BLE001 - foreign code; the question stays open for others to answer
                _log.warning("asking for approval failed: %s", type(error).__name__)
            group.cancel_scope.cancel()
        return answer

    def _now_us(self) -> int:
        return self._config.clock_ns() // 1_000

    def _leave_pending(self, attempt: Attempt, asked: Approval, min_evidence: str | None = None) -> ExecutionOutcome:
        attempt.note(PENDING, {"action_id": asked.action_id, "approval_id": asked.approval_id})
        head = self._recorder.append(attempt)
        details: dict[str, object] = {
            "approval_id": asked.approval_id,
            "policy_id": asked.policy_id,
            "reason": asked.reason,
        }
        if min_evidence is not None:
            details["min_evidence"] = min_evidence
        fault = Fault(
            "approval_pending",
            f"{asked.action_id} needs approval by policy {asked.policy_id}: {asked.reason or 'no reason given'}",
            hint=f"ask the person to run `cra-mcp approve {asked.approval_id}` in a terminal, then call it again with "
            "the same arguments",
            details=details,
        )
        return self._recorder.outcome(attempt, "pending_approval", head, fault=fault, approval=asked)

    def _refuse_unapproved(self, attempt: Attempt, approval: Approval, event_type: str) -> ExecutionOutcome:
        word = event_type.removeprefix("approval.")
        attempt.note(event_type, _approval_payload(approval))
        attempt.note(
            "action.denied",
            {"action_id": approval.action_id, "policy_id": approval.policy_id, "reason": f"approval {word}"},
        )
        head = self._recorder.append(attempt)
        fault = Fault(
            f"approval_{word}",
            f"{approval.action_id} needs approval by policy {approval.policy_id}, and its approval was {word}"
            if word == "rejected"
            else f"{approval.action_id} needs approval by policy {approval.policy_id}, and nobody answered in time",
            hint="don't call it again unless the person asks for it",
            details={"approval_id": approval.approval_id, "policy_id": approval.policy_id},
        )
        return self._recorder.outcome(attempt, "denied", head, fault=fault, approval=approval)

    def _refuse_unasked(self, attempt: Attempt, approval: Approval, error: ApprovalError) -> ExecutionOutcome:
        """Refuse a call that nobody was asked about, since so many of its owner's wait for an answer already."""
        attempt.note("approval.expired", _approval_payload(approval))
        attempt.note(
            "action.denied",
            {"action_id": approval.action_id, "policy_id": approval.policy_id, "reason": error.code},
        )
        head = self._recorder.append(attempt)
        fault = Fault(
            error.code,
            f"{approval.action_id} needs approval by policy {approval.policy_id}, and {error.message}",
            hint=error.hint,
            details={"policy_id": approval.policy_id},
        )
        return self._recorder.outcome(attempt, "denied", head, fault=fault)


def _owner(attempt: Attempt) -> Owner:
    """Whose a call is; one without a principal is of whoever runs this process."""
    call = attempt.call
    return call.by.owner if call.by is not None else Owner(call.session.facts.tenant, LOCAL_REALM, LOCAL_SUBJECT)


def _who(attempt: Attempt) -> str:
    """Whose client it is that answers; the person at it is known no better."""
    principal = attempt.call.by
    return principal.subject if principal is not None else attempt.call.session.agent_id


def _approval_payload(approval: Approval) -> dict[str, object]:
    return {
        "approval_id": approval.approval_id,
        "action_id": approval.action_id,
        "policy_id": approval.policy_id,
        "by": approval.decided_by,
        "channel": approval.channel,
        "grade": approval.grade,
        **({"comment": approval.comment} if approval.comment is not None else {}),
    }
