"""How a call is refused: the events it leaves and the answer it gets.

Rule: hidden and unknown actions leave by the same steps, so that they can't be told apart. Source: specs/carp.md,
"Execution"; specs/policy.md, "Disclosure".
"""

from cra_mcp.gate.attempt import Attempt, Recorder
from cra_mcp.gate.call import ExecutionOutcome, Fault, shown_id
from cra_mcp.policy.model import Decision

UNKNOWN_ACTION = "unknown_action"
_VIOLATIONS = {"rate_limit": "rate_limit", "budget": "budget", "freeze": "frozen"}
UNDECLARED = Decision(effect="deny", policy_id="undeclared", basis="default", reason="no such action", disclose=False)
"""What policy says of an action that isn't there."""


def is_denied(decision: Decision) -> bool:
    """Whether a call is refused for good; one that a limit refuses is looked at to the end, like any other."""
    return decision.effect == "deny" and decision.basis not in {"rate_limit", "budget"}


def refuse(recorder: Recorder, attempt: Attempt, decision: Decision) -> ExecutionOutcome:
    """Deny a call by policy.

    Raises:
        TraceUnavailableError: the refusal could not be stored.
    """
    action_id = shown_id(attempt.call.action_id)
    violation = _VIOLATIONS.get(decision.basis, "denied_action")
    if decision.policy_id == "undeclared":
        violation = "unauthorized"
    attempt.note("policy.evaluated", evaluated(action_id, decision, attempt.at))
    attempt.note(
        "policy.violated", {"action_id": action_id, "policy_id": decision.policy_id, "violation_type": violation}
    )
    attempt.note("action.denied", {"action_id": action_id, "policy_id": decision.policy_id, "reason": decision.reason})
    if not decision.disclose:
        called = shown_id(attempt.call.called or attempt.call.action_id)
        attempt.conceal(None if called == action_id and decision.policy_id == UNDECLARED.policy_id else called)
    head = recorder.append(attempt)
    if not decision.disclose:
        return recorder.outcome(attempt, "denied", head, fault=unknown_action(attempt.call.action_id))
    details: dict[str, object] = {"policy_id": decision.policy_id, "reason": decision.reason}
    if decision.basis in {"rate_limit", "budget"}:
        fault = _limited(action_id, decision, details)
    elif decision.basis == "freeze":
        fault = Fault(
            "frozen",
            f"{action_id} is refused: {decision.reason}",
            hint="stop, and ask the person; `cra-mcp unfreeze` lets it go on",
            details=details,
        )
    else:
        fault = Fault(
            "denied",
            f"{action_id} is denied by policy {decision.policy_id}: {decision.reason or 'no reason given'}",
            hint="don't call it again in this session; ask the person to change the policy if it is needed",
            details=details,
        )
    return recorder.outcome(attempt, "denied", head, fault=fault)


def _limited(action_id: str, decision: Decision, details: dict[str, object]) -> Fault:
    """What a call that a limit or budget refuses answers."""
    hint = "ask for less: waiting does not help"
    if decision.retry_after_seconds is not None:
        details["retry_after_seconds"] = decision.retry_after_seconds
        hint = f"call it again in {decision.retry_after_seconds} s"
    return Fault(
        "rate_limited" if decision.basis == "rate_limit" else "budget_exceeded",
        f"{action_id} is refused by policy {decision.policy_id}: {decision.reason}",
        hint=hint,
        details=details,
    )


def refuse_parameters(recorder: Recorder, attempt: Attempt, fault: Fault) -> ExecutionOutcome:
    """Refuse a call whose parameters are not valid. Raises as ``refuse``."""
    action_id = shown_id(attempt.call.action_id)
    attempt.note(
        "policy.violated",
        {
            "action_id": action_id,
            "policy_id": "parameters_schema",
            "violation_type": "invalid_parameters",
            "faults": fault.details.get("recorded", []),
        },
    )
    attempt.note(
        "action.denied",
        {"action_id": action_id, "policy_id": "parameters_schema", "reason": "the parameters are not valid"},
    )
    head = recorder.append(attempt)
    shown = Fault(
        fault.code,
        fault.message,
        fault.hint,
        {key: fault.details[key] for key in fault.details if key != "recorded"},
    )
    return recorder.outcome(attempt, "error", head, fault=shown)


def unknown_action(action_id: str) -> Fault:
    """What calling an unknown action answers; a hidden one answers the same."""
    return Fault(UNKNOWN_ACTION, f"Unknown action: {shown_id(action_id)}", hint="list the actions and call one of them")


def evaluated(action_id: str, decision: Decision, at: str | None) -> dict[str, object]:
    """Payload of ``policy.evaluated``. ``at``: the instant decided for, where the decision depends on it."""
    payload: dict[str, object] = {
        "action_id": action_id,
        "policy_id": decision.policy_id,
        "result": decision.effect,
        "basis": decision.basis,
        "determining": list(decision.determining),
        **({"errors": list(decision.errors)} if decision.errors else {}),
        **({} if decision.disclose else {"disclosed": False}),
        **(
            {} if decision.disclose or decision.policy_id == UNDECLARED.policy_id else {"called": action_id}
        ),  # or what it was called by
    }
    if at is not None:
        payload["at"] = at
    return payload
