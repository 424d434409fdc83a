"""Whether a call that has waited is still made by whom it was: credentials expire and are taken back, roles are lost.

Rule: asked after a wait and before anything is carried out; what can't be told is a no. Source: specs/identity.md, "Requests".
"""

import logging
from typing import Final

import anyio

from cra_mcp.errors import CredentialError
from cra_mcp.gate.attempt import Attempt, Recorder
from cra_mcp.gate.call import Call, ExecutionOutcome, Fault, shown_id

POLICY_ID: Final = "credential"
"""What the trace names as refusing such a call."""

_CODES: Final = frozenset({"credential_lapsed", "credential_unchecked"})
_WITHIN_S: Final = 10.0
_log = logging.getLogger("cra_mcp")


async def check_again(call: Call) -> None:
    """Let a call that has waited go on, if its credential still stands for the same principal, roles and all.

    Raises:
        CredentialError: it does not, or that can't be told.
    """
    if call.recheck is None:
        return
    action_id = shown_id(call.action_id)
    try:
        with anyio.fail_after(_WITHIN_S):
            now = await call.recheck()
    except Exception as error:
        _log.warning("a credential could not be checked again: %s", type(error).__name__)
        raise CredentialError(
            "credential_unchecked",
            f"{action_id} has waited, and its credential can't be checked now",
            hint="call it again later",
        ) from error
    if now is None or now != call.principal:
        raise CredentialError(
            "credential_lapsed",
            f"{action_id} has waited, and its credential has expired, was taken back or has other roles by now",
            hint="call it again with a credential that is valid",
        )


def refuse_lapsed(recorder: Recorder, attempt: Attempt, fault: Fault) -> ExecutionOutcome:
    """Refuse a call whose credential did not last as long as its wait. No policy explains that.

    Raises:
        TraceUnavailableError: the refusal could not be stored.
    """
    action_id = shown_id(attempt.call.action_id)
    attempt.note("policy.violated", {"action_id": action_id, "policy_id": POLICY_ID, "violation_type": "unauthorized"})
    attempt.note("action.denied", {"action_id": action_id, "policy_id": POLICY_ID, "reason": fault.code})
    head = recorder.append(attempt)
    return recorder.outcome(attempt, "denied", head, fault=fault, explained=False)


def has_lapsed(outcome: ExecutionOutcome) -> bool:
    """Whether a call ended for its credential: with a good one it may be tried again."""
    return outcome.fault is not None and outcome.fault.code in _CODES
