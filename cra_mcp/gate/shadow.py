"""Shadow mode: what policy would have decided on a call that is carried out all the same.

Rule: it is an event of another type than a decision that was enforced, so that no reader takes one for the other.
Source: specs/policy.md, "Shadow mode".
"""

from cra_mcp.atlas.model import Action
from cra_mcp.gate.attempt import Attempt
from cra_mcp.gate.refusing import evaluated
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet
from cra_mcp.trace.event import format_timestamp

SHADOW_EVALUATED = "x.cra.shadow.evaluated"


def note_shadow(attempt: Attempt, action: Action, policies: PolicySet, counters: Counters) -> None:
    """Note what would have been decided. Limits are charged as if it had been: a call that would be refused costs nothing."""
    facts, at_us = attempt.call.resolution.facts, attempt.decided_us
    decision = policies.decide(action.action_id, facts, counters, at_us, args=attempt.parameters)
    if decision.effect == "allow":
        counters.take(decision.limits, facts, at_us, decision.charges)
    at = format_timestamp(at_us * 1_000) if policies.timed else None
    payload = evaluated(action.action_id, decision, at)
    attempt.note(SHADOW_EVALUATED, {**payload, "reason": decision.reason, "enforced": False})
