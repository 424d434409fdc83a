"""Plain words for policies that have none of their own. Source: specs/policy.md, "What decides"."""

from cra_mcp.policy.model import MICRO, Policy
from cra_mcp.words import count_of


def reason_of(policy: Policy) -> str:
    """Return the policy's own words, or plain ones where it has none."""
    if policy.reason:
        return policy.reason
    if policy.limit is not None:
        limit = policy.limit
        calls = count_of(limit.max_calls, "call")
        return f"policy {policy.policy_id} admits {calls} in {_span(limit.window_us)}{_whose(limit.scope)}"
    if policy.budget is not None:
        budget = policy.budget
        amount = f"{budget.max_cost / MICRO:g} {budget.unit}"
        return f"policy {policy.policy_id} lets {amount} be spent in {_span(budget.window_us)}{_whose(budget.scope)}"
    verb = {"deny": "denies", "require_approval": "requires approval of"}.get(policy.type, "allows")
    return f"policy {policy.policy_id} {verb} this action"


def _span(window_us: int) -> str:
    return f"{window_us / 1_000_000:g} seconds"


def _whose(scope: str) -> str:
    return "" if scope == "global" else f" per {scope}"
