"""The decision point: may this action be called, by this requester, now?

Rule: a pure function of compiled policies, facts, counters and the instant. Nothing here charges a counter. What is
kept between calls are results that depend on nothing else.
Source: specs/policy.md, "Evaluation".
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from cra_mcp import canonical
from cra_mcp.policy.calls import CallTest, Cost, call_test, cost_of
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.clock import clock_use
from cra_mcp.policy.compiler import canonical_form
from cra_mcp.policy.conditions import (
    UNKNOWN,
    FactsCondition,
    Truth,
    compile_facts,
    facts_part,
    higher,
    static_part_holds,
)
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.matching import ActionIndex
from cra_mcp.policy.memo import Memo
from cra_mcp.policy.model import ActionFacts, Charge, Conditions, Decision, Facts, Layer, Policy, RiskTier
from cra_mcp.policy.tables import DefaultEffect, LayerDefault, Path, Plan, Rule, refuse_cost, refuse_spent

UNDECLARED: Final = Decision(
    effect="deny",
    policy_id="undeclared",
    basis="default",
    reason="no loaded atlas declares this action",
    disclose=False,  # so that whoever hides what must be hidden treats both alike
)

_MAX_PREVIEWS = 512
_NO_ARGUMENTS: Mapping[str, object] = {}

Outcome = tuple[RiskTier, tuple[Truth, ...], tuple[Truth, ...]]


class PolicySet:
    """Policies compiled for the actions they govern. May be used from any thread. Made by ``compile_policies``.

    Attributes:
        policies: those of the atlas, in file order.
        default_effect: what holds where none of them decides.
        overlays: those that govern every action.
        digest: lower-case hex SHA-256 over the canonical form of all three.
        timed: decisions can depend on the instant: a policy has a time window, a limit or a budget, or reads the clock.
    """

    __slots__ = (
        "_asked_early", "_early", "_plans", "_previews", "_schedules", "_settling", "_truths", "default_effect", "digest",
        "overlays", "policies", "timed",
    )  # fmt: skip

    def __init__(
        self,
        policies: tuple[Policy, ...],
        default_effect: DefaultEffect,
        overlays: tuple[Layer, ...],
        *,
        conditions: Sequence[FactsCondition],
        calls: Sequence[CallTest],
        plans: Mapping[str, Mapping[RiskTier, Plan]],
        settling: Mapping[tuple[str, str], Cost],
    ) -> None:
        self.policies: tuple[Policy, ...] = policies
        self.default_effect: DefaultEffect = default_effect
        self.overlays: tuple[Layer, ...] = overlays
        self.digest: str = canonical.digest(canonical_form(policies, default_effect, overlays))
        self._plans = plans
        everything = [*policies, *(policy for overlay in overlays for policy in overlay.policies)]
        clocks = [clock_use(policy.when) for policy in everything if policy.when]
        schedules = [condition.schedule for condition in conditions]
        self._schedules = tuple(each for each in (*schedules, *clocks) if each is not None)
        self.timed: bool = bool(self._schedules) or any(
            policy.limit is not None
            or policy.budget is not None
            or (policy.when is not None and "now" in policy.when.fields)
            for policy in everything
        )
        self._truths: Memo[tuple[Truth, ...]] = Memo(conditions, lambda truths: truths)
        self._early: tuple[Truth, ...] = tuple(UNKNOWN if each.known is None else each.known for each in calls)
        self._asked_early = tuple((at, each) for at, each in enumerate(calls) if each.known is None)
        self._previews: dict[Outcome, tuple[Decision, ...]] = {}
        self._settling = settling

    def decide(
        self,
        action_id: str,
        facts: Facts,
        counters: Counters,
        now_us: int,
        *,
        approved: bool = False,
        args: Mapping[str, object] = _NO_ARGUMENTS,
    ) -> Decision:
        """Decide on one call.

        Args:
            action_id: an action that isn't declared is denied.
            facts: what the requester brings.
            counters: read, never charged.
            now_us: microseconds since the epoch.
            approved: somebody who may has approved this very call. It satisfies every require_approval policy and then
                stands in for an allow; where no such policy applies it means nothing.
            args: the arguments of the call. What is left out can't be read, and what reads it fails closed.
        """
        by_tier = self._plans.get(action_id)
        if by_tier is None:
            return UNDECLARED
        plan = by_tier[facts.task_risk]
        verdict = plan.certain
        if verdict is None:
            memo = plan.memo
            verdict = memo.get(facts, now_us) if memo is not None else plan.weigh(Inputs(facts, now_us, args))
        path = verdict.granted if approved else verdict.asked
        for limit, policy in path.limits:
            wait = counters.retry_after_us(limit, facts, now_us)
            if wait:
                return _refuse(path, {policy.policy_id: wait}, counters, facts, now_us)
        return _spend(path, counters, Inputs(facts, now_us, args)) if path.budgets else path.decision

    def foresee(self, action_id: str, facts: Facts, now_us: int) -> Decision:
        """Say what the best arguments would be told, as if no limit were spent. What waits for them is in ``waiting``."""
        by_tier = self._plans.get(action_id)
        if by_tier is None:
            return UNDECLARED
        return by_tier[facts.task_risk].foresee_alone(facts, now_us)

    def before_arguments(self, action_id: str, facts: Facts, counters: Counters, now_us: int) -> Decision:
        """Say what a call is told before its arguments are looked at.

        What is refused whatever they are, and whatever room there is, is refused here; where they can change nothing, this is
        the decision.
        """
        foreseen = self.foresee(action_id, facts, now_us)
        if foreseen.effect == "deny" or self.reads_args(action_id, facts):
            return foreseen
        return self.decide(action_id, facts, counters, now_us)

    def reads_args(self, action_id: str, facts: Facts) -> bool:
        """Tell whether decisions on an action can depend on the arguments."""
        by_tier = self._plans.get(action_id)
        return by_tier is not None and by_tier[facts.task_risk].reads_args

    def outcome(self, facts: Facts, now_us: int) -> Outcome:
        """Return a key that is equal for requests that every policy here treats alike before their arguments are known."""
        calls = self._early
        if self._asked_early:
            early = list(calls)
            for at, each in self._asked_early:
                early[at] = each.early(facts, now_us)
            calls = tuple(early)
        return facts.task_risk, self._truths.get(facts, now_us), calls

    def preview(self, facts: Facts, now_us: int) -> tuple[Decision, ...]:
        """Foresee every action in order of declaration."""
        tier, truths, calls = outcome = self.outcome(facts, now_us)
        found = self._previews.get(outcome)
        if found is None:
            if len(self._previews) >= _MAX_PREVIEWS:
                self._previews.clear()
            found = self._previews[outcome] = tuple(
                by_tier[tier].foresee(truths, calls) for by_tier in self._plans.values()
            )
        return found

    def next_boundary(self, now_us: int) -> int | None:
        """Return an instant after ``now_us`` before which nothing changes that is foreseen; None if nothing ever does.

        Exact for time windows; ``ClockUse`` says how far it is for expressions that read the clock.
        """
        if not self._schedules:
            return None
        changes = [schedule.next_change(now_us) for schedule in self._schedules]
        return min((change for change in changes if change is not None), default=None)

    def settle(self, action_id: str, charges: Sequence[Charge], inputs: Inputs) -> Iterator[tuple[Charge, int | None]]:
        """Give the charges of a call that its result settles, and what it has cost: None where the result doesn't say."""
        for charge in charges:
            cost = self._settling.get((action_id, charge.policy_id))
            if cost is not None:
                yield charge, cost.after(inputs)


def compile_policies(
    policies: Sequence[Policy],
    actions: Sequence[ActionFacts],
    default_effect: DefaultEffect,
    overlays: Sequence[Layer] = (),
) -> PolicySet:
    """Compile policies for the actions they govern.

    Args:
        policies: of the atlas; file order is ``Policy.order``, then the order here.
        actions: in order of declaration.
        default_effect: what holds where none of its policies decides.
        overlays: policies that govern every action besides. None of these loosens what another says.

    Raises:
        ExpressionError: an expression doesn't fit the parameters of an action.
        ValueError: an id is used twice, a rate limit has no limit or one that admits nothing, a time zone is unknown.
    """
    ordered = tuple(sorted(policies, key=lambda policy: policy.order))
    layers = [*(governing(layer) for layer in overlays), Layer("", ordered, default_effect)]
    _check([policy for layer in layers for policy in layer.policies], actions)
    builder = _Builder(actions, layers)
    plans = builder.plans()
    return PolicySet(
        ordered,
        default_effect,
        tuple(overlays),
        conditions=builder.facts,
        calls=builder.calls,
        plans=plans,
        settling=builder.settling,
    )


def governing(layer: Layer) -> Layer:
    """Return a layer as its policies are named in decisions: after their overlay."""
    return replace(
        layer,
        policies=tuple(
            replace(policy, policy_id=f"{layer.overlay_id}/{policy.policy_id}")
            for policy in sorted(layer.policies, key=lambda policy: policy.order)
        ),
    )


class _Builder:
    """Compiles plans, and numbers the tests they share."""

    def __init__(self, actions: Sequence[ActionFacts], layers: Sequence[Layer]) -> None:
        self._actions = actions
        self._defaults = [
            LayerDefault(f"{layer.overlay_id}/default" if layer.overlay_id else "default", layer.default_effect)
            for layer in layers
        ]
        self._rules = [(policy, number) for number, layer in enumerate(layers) for policy in layer.policies]
        self.conditions: dict[Conditions, int] = {}
        self._tests: list[int | None] = []
        for policy, _ in self._rules:
            part = facts_part(policy.conditions)
            plain = part == Conditions()
            self._tests.append(None if plain else self.conditions.setdefault(part, len(self.conditions)))
        self.facts = [compile_facts(part) for part in self.conditions]
        self.calls: list[CallTest] = []
        self.settling: dict[tuple[str, str], Cost] = {}

    def plans(self) -> dict[str, Mapping[RiskTier, Plan]]:
        """A plan for each action at each risk tier of a task."""
        fresh = [_is_compiled_anew(policy) for policy, _ in self._rules]
        index = ActionIndex([action.action_id for action in self._actions])
        chosen: list[list[int]] = [[] for _ in self._actions]
        for number, (policy, _) in enumerate(self._rules):
            for at in index.matching(policy.actions):
                chosen[at].append(number)
        shared: dict[object, Mapping[RiskTier, Plan]] = {}
        found: dict[str, Mapping[RiskTier, Plan]] = {}
        for action, numbers in zip(self._actions, chosen, strict=True):
            own = any([fresh[number] for number in numbers])  # noqa: C419 - a list is quicker, and there are many
            key: object = action.action_id if own else (action.risk_tier, action.capabilities, tuple(numbers))
            if key not in shared:
                rules = [self._rule(number, action) for number in numbers]
                shared[key] = self._plans(action, rules)
            found[action.action_id] = shared[key]
        return found

    def _rule(self, number: int, action: ActionFacts) -> Rule:
        policy, layer = self._rules[number]
        test = call_test(policy, action)
        call = None
        if test is not None:
            call = len(self.calls)
            self.calls.append(test)
        cost = cost_of(policy.budget, action) if policy.budget is not None else None
        if cost is not None and cost.settles:
            self.settling[action.action_id, policy.policy_id] = cost
        return Rule(policy, self._tests[number], call, layer, cost)

    def _plans(self, action: ActionFacts, rules: Sequence[Rule]) -> Mapping[RiskTier, Plan]:
        """A plan for each risk tier of a task; tiers at which the same policies bear on the action share one."""
        plans: dict[RiskTier, Plan] = {}
        last: tuple[list[Rule], Plan] | None = None
        for task in RiskTier:
            risk = higher(action.risk_tier, task)
            bearing = [rule for rule in rules if static_part_holds(rule.policy.conditions, risk, action.capabilities)]
            if last is None or last[0] != bearing:
                last = bearing, Plan(bearing, self.facts, self.calls, self._defaults)
            plans[task] = last[1]
        return plans


def _is_compiled_anew(policy: Policy) -> bool:
    """Whether a policy is compiled for each action by itself."""
    return policy.when is not None or bool(policy.conditions.arguments) or policy.budget is not None


def _check(policies: Sequence[Policy], actions: Sequence[ActionFacts]) -> None:
    for what, ids in (
        ("action", [action.action_id for action in actions]),
        ("policy", [policy.policy_id for policy in policies]),
        ("limit", [policy.limit.limit_id for policy in policies if policy.limit is not None]),
        ("budget", [policy.budget.budget_id for policy in policies if policy.budget is not None]),
    ):
        twice = sorted(name for name, times in Counter(ids).items() if times > 1)
        if twice:
            msg = f"{what} {', '.join(twice)} is declared twice"
            raise ValueError(msg)
    for policy in policies:
        limit, budget = policy.limit, policy.budget
        if (policy.type == "rate_limit") != (limit is not None):
            msg = f"policy {policy.policy_id}: a rate_limit policy has a limit, and no other"
            raise ValueError(msg)
        if (policy.type == "budget") != (budget is not None):
            msg = f"policy {policy.policy_id}: a budget policy has a budget, and no other"
            raise ValueError(msg)
        if limit is not None and (limit.max_calls < 1 or limit.window_us < 1):
            msg = f"policy {policy.policy_id}: a limit admits at least one call in at least a microsecond"
            raise ValueError(msg)
        if budget is not None and (budget.max_cost < 0 or budget.window_us < 1):
            msg = f"policy {policy.policy_id}: a budget is no debt, and lasts at least a microsecond"
            raise ValueError(msg)


def _refuse(path: Path, known: Mapping[str, int], counters: Counters, facts: Facts, now_us: int) -> Decision:
    """Refuse for the spent limit in ``known`` (another thread may have freed it since) and all others that are spent."""
    waits = [
        (policy, known.get(policy.policy_id) or counters.retry_after_us(limit, facts, now_us))
        for limit, policy in path.limits
    ]
    return refuse_spent(path, [(policy, wait) for policy, wait in waits if wait])


def _spend(path: Path, counters: Counters, inputs: Inputs) -> Decision:
    """Say what a call takes from budgets, or refuse it for those that have no room or can't tell what it costs."""
    charges: list[Charge] = []
    refusing: list[tuple[Policy, int | None]] = []
    untold: list[str] = []
    for policy, cost in path.budgets:
        budget, amount = policy.budget, cost.before(inputs)
        assert budget is not None  # noqa: S101 - a policy with a cost has one
        if amount is None:
            untold.append(policy.policy_id)
            refusing.append((policy, None))
            continue
        charges.append(Charge(budget, amount, policy.policy_id))
        wait = counters.room_after_us(charges[-1], inputs.facts, inputs.now_us)
        if wait != 0:
            refusing.append((policy, wait))
    if refusing:
        return refuse_cost(path, refusing, frozenset(untold))
    decision = path.decision
    return replace(decision, charges=tuple(charges)) if decision.effect == "allow" else decision
