"""The decision point: may this action be called, by this requester, now?

Rule: a pure function of compiled policies, facts, counters and the instant. Nothing here charges a counter. What is
kept between calls are results that depend on nothing else.
Source: specs/policy.md, "Evaluation".
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cra_mcp import canonical
from cra_mcp.policy.compiler import canonical_form
from cra_mcp.policy.conditions import (
    FactsCondition,
    Matcher,
    Truth,
    compile_facts,
    compile_globs,
    facts_part,
    higher,
    static_part_holds,
)
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.memo import Memo
from cra_mcp.policy.model import ActionFacts, Conditions, Decision, Facts, Policy, RiskTier
from cra_mcp.policy.tables import DefaultEffect, Path, Plan, Rule, refuse_spent

UNDECLARED: Final = Decision(
    effect="deny",
    policy_id="undeclared",
    basis="default",
    reason="no loaded atlas declares this action",
    disclose=False,  # so that whoever hides what must be hidden treats both alike
)

_MAX_PREVIEWS = 512

Outcome = tuple[RiskTier, tuple[Truth, ...]]


class PolicySet:
    """Policies compiled for the actions they govern. May be used from any thread. Made by ``compile_policies``.

    Attributes:
        policies: in file order.
        default_effect: what holds where no policy decides.
        digest: lower-case hex SHA-256 over the canonical form of the two.
        timed: decisions depend on the instant: a policy has a time window or a limit.
    """

    __slots__ = ("_plans", "_previews", "_schedules", "_truths", "default_effect", "digest", "policies", "timed")

    def __init__(
        self,
        policies: tuple[Policy, ...],
        default_effect: DefaultEffect,
        conditions: Sequence[FactsCondition],
        plans: Mapping[str, Mapping[RiskTier, Plan]],
    ) -> None:
        self.policies: tuple[Policy, ...] = policies
        self.default_effect: DefaultEffect = default_effect
        self.digest: str = canonical.digest(canonical_form(policies, default_effect))
        self._plans = plans
        self._schedules = tuple(condition.schedule for condition in conditions if condition.schedule is not None)
        self.timed: bool = bool(self._schedules) or any(policy.limit is not None for policy in policies)
        self._truths: Memo[tuple[Truth, ...]] = Memo(conditions, lambda truths: truths)
        self._previews: dict[Outcome, tuple[Decision, ...]] = {}

    def decide(
        self, action_id: str, facts: Facts, counters: Counters, now_us: int, *, approved: bool = False
    ) -> Decision:
        """Decide on one call.

        Args:
            action_id: an action that isn't declared is denied.
            facts: what the requester brings.
            counters: read, never charged.
            now_us: microseconds since the epoch.
            approved: somebody who may has approved this very call. It satisfies every require_approval policy and then
                stands in for an allow; where no such policy applies it means nothing.
        """
        by_tier = self._plans.get(action_id)
        if by_tier is None:
            return UNDECLARED
        plan = by_tier[facts.task_risk]
        verdict = plan.certain or plan.memo.get(facts, now_us)
        path = verdict.granted if approved else verdict.asked
        for limit, policy in path.limits:
            wait = counters.retry_after_us(limit, facts, now_us)
            if wait:
                return _refuse(path, {policy.policy_id: wait}, counters, facts, now_us)
        return path.decision

    def outcome(self, facts: Facts, now_us: int) -> Outcome:
        """Return a key that is equal for requests that every policy here treats alike, rate limits aside."""
        return facts.task_risk, self._truths.get(facts, now_us)

    def preview(self, facts: Facts, now_us: int) -> tuple[Decision, ...]:
        """Decide on every action in order of declaration, as if no limit were spent."""
        tier, truths = outcome = self.outcome(facts, now_us)
        found = self._previews.get(outcome)
        if found is None:
            if len(self._previews) >= _MAX_PREVIEWS:
                self._previews.clear()
            found = self._previews[outcome] = tuple(
                by_tier[tier].verdict_where(truths).asked.decision for by_tier in self._plans.values()
            )
        return found

    def next_boundary(self, now_us: int) -> int | None:
        """Return the first instant after ``now_us`` at which a time window opens or closes; None if none ever does."""
        if not self._schedules:
            return None
        changes = [schedule.next_change(now_us) for schedule in self._schedules]
        return min((change for change in changes if change is not None), default=None)


def compile_policies(
    policies: Sequence[Policy], actions: Sequence[ActionFacts], default_effect: DefaultEffect
) -> PolicySet:
    """Compile policies for the actions they govern.

    Args:
        policies: file order is ``Policy.order``, then the order here.
        actions: in order of declaration.
        default_effect: what holds where no policy decides.

    Raises:
        ValueError: an id is used twice, a rate limit has no limit or one that admits nothing, a time zone is unknown.
    """
    ordered = tuple(sorted(policies, key=lambda policy: policy.order))
    _check(ordered, actions)
    numbers: dict[Conditions, int] = {}
    rules: list[tuple[Matcher, Rule]] = []
    for policy in ordered:
        part = facts_part(policy.conditions)
        test = None if part == Conditions() else numbers.setdefault(part, len(numbers))
        rules.append((compile_globs(policy.actions), Rule(policy, test)))
    conditions = [compile_facts(part) for part in numbers]
    plans: dict[tuple[int, ...], Plan] = {}

    def plan(action: ActionFacts, task: RiskTier) -> Plan:
        chosen = _bearing_on(action, task, rules)
        if chosen not in plans:
            plans[chosen] = Plan([rules[index][1] for index in chosen], conditions, default_effect)
        return plans[chosen]

    return PolicySet(
        ordered,
        default_effect,
        conditions,
        {action.action_id: {task: plan(action, task) for task in RiskTier} for action in actions},
    )


def _bearing_on(action: ActionFacts, task: RiskTier, rules: Sequence[tuple[Matcher, Rule]]) -> tuple[int, ...]:
    """Pick the policies whose globs and static conditions hold."""
    risk = higher(action.risk_tier, task)
    return tuple(
        index
        for index, (matches, rule) in enumerate(rules)
        if matches(action.action_id) and static_part_holds(rule.policy.conditions, risk, action.capabilities)
    )


def _check(policies: Sequence[Policy], actions: Sequence[ActionFacts]) -> None:
    for what, ids in (
        ("action", [action.action_id for action in actions]),
        ("policy", [policy.policy_id for policy in policies]),
        ("limit", [policy.limit.limit_id for policy in policies if policy.limit is not None]),
    ):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            msg = f"{what} {', '.join(twice)} is declared twice"
            raise ValueError(msg)
    for policy in policies:
        limit = policy.limit
        if (policy.type == "rate_limit") != (limit is not None):
            msg = f"policy {policy.policy_id}: a rate_limit policy has a limit, and no other"
            raise ValueError(msg)
        if limit is not None and (limit.max_calls < 1 or limit.window_us < 1):
            msg = f"policy {policy.policy_id}: a limit admits at least one call in at least a microsecond"
            raise ValueError(msg)


def _refuse(path: Path, known: Mapping[str, int], counters: Counters, facts: Facts, now_us: int) -> Decision:
    """Refuse for the spent limit in ``known`` (another thread may have freed it since) and all others that are spent."""
    waits = [
        (policy, known.get(policy.policy_id) or counters.retry_after_us(limit, facts, now_us))
        for limit, policy in path.limits
    ]
    return refuse_spent(path, [(policy, wait) for policy, wait in waits if wait])
