"""What calls use up: limits and budgets charged, given back, and settled by what a result tells.

Rule: what can't be undone or settled stays spent, which refuses calls and admits none. Source: specs/policy.md,
"Rate limits" and "Budgets".
"""

from contextlib import suppress

from cra_mcp.gate.attempt import Attempt, in_thread
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import MICRO, Charge, Decision, Facts
from cra_mcp.state.database import StateUnavailableError


class Charging:
    """Charges calls, off the event loop where that waits for a disk."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    async def take(self, decision: Decision, facts: Facts, taken_us: int) -> bool:
        """Charge a call, off the event loop where that waits for a disk. Raises ``StateUnavailableError``."""
        if self._counters.blocks(decision.limits, decision.charges):
            return await in_thread(lambda: self._counters.take(decision.limits, facts, taken_us, decision.charges))
        return self._counters.take(decision.limits, facts, taken_us, decision.charges)

    async def give_back(self, decision: Decision, facts: Facts, taken_us: int) -> None:
        """Undo a charge; one that can't be undone stays, which refuses calls and admits none."""
        with suppress(StateUnavailableError):
            await in_thread(lambda: self._counters.give_back(decision.limits, facts, taken_us, decision.charges))

    async def settle(self, attempt: Attempt, policy_set: PolicySet | None, value: object) -> list[dict[str, object]]:
        """Put what the result tells in the place of what was reserved; return what the call has cost, by policy."""
        facts = attempt.call.resolution.facts
        costs = {charge.policy_id: charge.amount for charge in attempt.charges}
        if policy_set is not None:
            inputs = Inputs(facts, attempt.decided_us, attempt.parameters, value)
            for charge, cost in policy_set.settle(attempt.call.action_id, attempt.charges, inputs):
                if cost is not None and await self._settle_one(charge, facts, attempt.decided_us, cost):
                    costs[charge.policy_id] = cost
        return [
            {"policy_id": charge.policy_id, "unit": charge.budget.unit, "cost": costs[charge.policy_id] / MICRO}
            for charge in attempt.charges
        ]

    async def _settle_one(self, charge: Charge, facts: Facts, taken_us: int, cost: int) -> bool:
        """Whether it could be settled; what can't be leaves the reserve spent."""
        try:
            if self._counters.blocks((), (charge,)):
                await in_thread(lambda: self._counters.settle(charge, facts, taken_us, cost))
            else:
                self._counters.settle(charge, facts, taken_us, cost)
        except StateUnavailableError:
            return False
        return True
