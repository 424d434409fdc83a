"""Decision tables: what a set of policies makes of every combination of conditions, worked out once each.

Rule: deny > require_approval > rate_limit > budget > allow > default. A condition that can't be evaluated applies a policy that
restricts and doesn't apply one that allows. Every layer of policies must let a call through: none can loosen another.
Source: specs/policy.md, "Evaluation" and "Overlays".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from cra_mcp.policy.calls import CallTest, Cost
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.conditions import ERROR, FALSE, TRUE, UNKNOWN, FactsCondition, Truth
from cra_mcp.policy.memo import Memo
from cra_mcp.policy.model import EVIDENCE, Basis, Charge, Decision, Effect, Facts, Limit, Policy, PolicyType, Waiting
from cra_mcp.policy.wording import reason_of

DefaultEffect = Literal["allow", "deny"]

_MAX_VERDICTS = 256
_ORDER: Final = {"deny": 0, "require_approval": 1, "rate_limit": 2, "budget": 3, "allow": 4}


class LayerDefault(NamedTuple):
    """What a layer says where none of its policies decides. ``policy_id`` is what it is then called."""

    policy_id: str
    effect: DefaultEffect


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy on some actions.

    Attributes:
        test: number of the test of its facts; None where its conditions don't depend on the requester or the time.
        call: number of the test of each call; None where it has none.
        layer: number of the layer it belongs to.
        cost: what a call takes from its budget, if it is one.
    """

    policy: Policy
    test: int | None
    call: int | None = None
    layer: int = 0
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """A decision, unless one of ``limits`` or ``budgets`` is spent; errors then go with the refusal.

    ``in_order`` are the ids of all policies, in file order, where there are budgets.
    """

    decision: Decision
    limits: tuple[tuple[Limit, Policy], ...] = ()
    budgets: tuple[tuple[Policy, Cost], ...] = ()
    limit_errors: tuple[str, ...] = ()
    budget_errors: tuple[str, ...] = ()
    in_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one combination of conditions leads to: asked for the first time, and with approval granted."""

    asked: Path
    granted: Path


class Plan:
    """The policies that can bear on an action at one risk tier; actions to which the same policies apply share one.

    Attributes:
        certain: the verdict, where it depends on nothing but limits and budgets.
        memo: otherwise gives the verdict for a requester at an instant; None where each call is tested.
        reads_args: whether some test or cost needs the arguments.
    """

    __slots__ = (
        "_calls", "_defaults", "_foreseen", "_rules", "_tests", "_truths", "_verdicts", "certain", "memo", "reads_args",
    )  # fmt: skip

    def __init__(
        self,
        rules: Sequence[Rule],
        conditions: Sequence[FactsCondition],
        calls: Sequence[CallTest],
        defaults: Sequence[LayerDefault],
    ) -> None:
        """Take policies in file order. ``Rule.test`` is an index of ``conditions``, ``Rule.call`` one of ``calls``."""
        self._rules = _worth_asking(rules, defaults)
        self._defaults = tuple(defaults)
        self._tests = tuple(sorted({rule.test for rule in self._rules if rule.test is not None}))
        self._verdicts: dict[tuple[Truth, ...], Verdict] = {}
        self._foreseen: dict[tuple[Truth, ...], Decision] = {}
        self._calls = _call_tests(self._rules, self._tests, calls)
        self.reads_args: bool = any(test.reads_args for _, test, _ in self._calls) or any(
            rule.policy.budget is not None and rule.policy.budget.reads_args for rule in self._rules
        )
        self.certain: Verdict | None = None
        self.memo: Memo[Verdict] | None = None
        self._truths: Memo[tuple[Truth, ...]] | None = None
        chosen = [conditions[test] for test in self._tests]
        # There are many plans: each has what it can be asked, and no more.
        if self._calls:
            self._truths = Memo(chosen, lambda truths: truths)
        elif self._tests:
            self.memo = Memo(chosen, self._verdict_of)
        else:
            self.certain = self._verdict_of(())

    def weigh(self, inputs: Inputs) -> Verdict:
        """Return the verdict on one call, its own tests included; those that can't matter are not asked."""
        assert self._truths is not None  # noqa: S101 - asked only where each call is tested
        truths = self._truths.get(inputs.facts, inputs.now_us)
        asked: list[Truth] = [
            call.test(inputs) if at is None or truths[at] != FALSE else FALSE for _, call, at in self._calls
        ]
        return self._verdict_of((*truths, *asked))

    def foresee(self, truths: Sequence[Truth], calls: Sequence[Truth]) -> Decision:
        """Return what can be said before the arguments are known: what the best of them would be told.

        Args:
            truths: results of all ``conditions``.
            calls: results of all ``calls``; UNKNOWN for those that need the arguments.
        """
        key: tuple[Truth, ...] = (
            *[truths[test] for test in self._tests],
            *[calls[number] for number, _, _ in self._calls],
        )
        return self._foreseen_for(key)

    def foresee_alone(self, facts: Facts, now_us: int) -> Decision:
        """As ``foresee``, of this action alone: no condition is tested that is not about it."""
        if self.certain is not None:
            return self.certain.asked.decision
        if self.memo is not None:
            return self.memo.get(facts, now_us).asked.decision
        assert self._truths is not None  # noqa: S101 - has one of the three
        truths = self._truths.get(facts, now_us)
        early: list[Truth] = [
            call.early(facts, now_us) if at is None or truths[at] != FALSE else FALSE for _, call, at in self._calls
        ]
        return self._foreseen_for((*truths, *early))

    def _foreseen_for(self, key: tuple[Truth, ...]) -> Decision:
        found = self._foreseen.get(key)
        if found is None:
            if len(self._foreseen) >= _MAX_VERDICTS:
                self._foreseen.clear()
            found = self._foreseen[key] = _foresee(self._results(key), self._defaults)
        return found

    def _results(self, key: tuple[Truth, ...]) -> "list[_Result]":
        tests = dict(zip(self._tests, key, strict=False))
        calls: dict[int, Truth] = {
            number: truth for (number, _, _), truth in zip(self._calls, key[len(self._tests) :], strict=True)
        }
        found: list[_Result] = []
        for rule in self._rules:
            test: Truth = TRUE if rule.test is None else tests[rule.test]
            call: Truth = TRUE if rule.call is None else calls[rule.call]
            found.append(_Result(rule, _together(test, call)))
        return found

    def _verdict_of(self, key: tuple[Truth, ...]) -> Verdict:
        found = self._verdicts.get(key)
        if found is None:
            if len(self._verdicts) >= _MAX_VERDICTS:
                self._verdicts.clear()
            found = self._verdicts[key] = _judge(self._results(key), self._defaults)
        return found


class _Result(NamedTuple):
    rule: Rule
    truth: Truth


def _together(one: Truth, other: Truth) -> Truth:
    """Join two results: false settles it; otherwise what is unknown, then what failed, decides."""
    if FALSE in (one, other):
        return FALSE
    if UNKNOWN in (one, other):
        return UNKNOWN
    return ERROR if ERROR in (one, other) else TRUE


def _call_tests(
    rules: Sequence[Rule], tests: Sequence[int], calls: Sequence[CallTest]
) -> tuple[tuple[int, CallTest, int | None], ...]:
    """Number and test of each call, and where the result stands on which it depends whether it must be asked at all."""
    return tuple(
        (rule.call, calls[rule.call], None if rule.test is None else tests.index(rule.test))
        for rule in rules
        if rule.call is not None  # each belongs to one rule
    )


def refuse_spent(path: Path, spent: Sequence[tuple[Policy, int]]) -> Decision:
    """Decide for a call that comes too soon. ``spent``: policies and waits in us, the most important first."""
    named = spent[0][0]
    return Decision(
        effect="deny",
        policy_id=named.policy_id,
        basis="rate_limit",
        reason=reason_of(named),
        determining=tuple(policy.policy_id for policy, _ in spent),
        retry_after_us=max(wait for _, wait in spent),
        errors=path.limit_errors,
    )


def refuse_cost(path: Path, refusing: Sequence[tuple[Policy, int | None]], untold: frozenset[str]) -> Decision:
    """Decide for a call that a budget has no room for.

    Args:
        path: where it would have led.
        refusing: policies and waits in us, the most important first; no wait where waiting doesn't help.
        untold: ids of those that can't tell what the call costs.
    """
    named = refusing[0][0]
    waits = [wait for _, wait in refusing if wait is not None]
    failed = untold.union(path.budget_errors)
    return Decision(
        effect="deny",
        policy_id=named.policy_id,
        basis="budget",
        reason=reason_of(named),
        determining=tuple(policy.policy_id for policy, _ in refusing),
        retry_after_us=max(waits) if len(waits) == len(refusing) else None,
        errors=tuple(policy_id for policy_id in path.in_order if policy_id in failed),
    )


def _worth_asking(rules: Sequence[Rule], defaults: Sequence[LayerDefault]) -> tuple[Rule, ...]:
    """Leave out policies that can't matter because one before them decides whatever the request."""
    certain = [rule for rule in rules if rule.test is None and rule.call is None]
    if any(rule.policy.type == "deny" for rule in certain):
        return tuple(rule for rule in rules if rule.policy.type == "deny")
    approved = {rule.layer for rule in certain if rule.policy.type == "require_approval"}
    if approved and all(each.effect == "allow" or layer in approved for layer, each in enumerate(defaults)):
        return tuple(rule for rule in rules if rule.policy.type != "allow")
    return tuple(rules)


def _judge(results: Sequence[_Result], defaults: Sequence[LayerDefault]) -> Verdict:
    """Apply the rules of the specification to policies in file order and the results of their conditions."""
    denying = _policies(_in_force(results, "deny"))
    if denying:
        refused = Path(
            _decision("deny", denying, _errors(results, "deny"), disclose=all(policy.disclose for policy in denying))
        )
        return Verdict(refused, refused)
    approving = _in_force(results, "require_approval")
    allowing = _in_force(results, "allow")
    path = _counted(results)
    covered = {rule.layer for rule in (*approving, *allowing)}
    closed = [each for layer, each in enumerate(defaults) if layer not in covered and each.effect == "deny"]
    if closed:
        path = replace(path, decision=_uncovered(closed[0], _errors(results, "allow")))
        return Verdict(path, path)
    if approving:
        policies = _policies(approving)
        asked = _decision("require_approval", policies, _errors(results, "require_approval"))
        granted = _decision("allow", policies, path.budget_errors)
        return Verdict(Path(_charging(asked, path)), replace(path, decision=_charging(granted, path)))
    errors = _errors(results, "allow")
    decision = _decision("allow", _policies(allowing), errors) if allowing else _by_default(defaults[-1], errors)
    path = replace(path, decision=_charging(decision, path))
    return Verdict(path, path)


def _counted(results: Sequence[_Result]) -> Path:
    """The limits and budgets on the way."""
    budgets = tuple((rule.policy, rule.cost) for rule in _in_force(results, "budget") if rule.cost is not None)
    return Path(
        Decision("deny", "", "default"),
        limits=tuple(
            (rule.policy.limit, rule.policy)
            for rule in _in_force(results, "rate_limit")
            if rule.policy.limit is not None
        ),
        budgets=budgets,
        limit_errors=_errors(results, "rate_limit"),
        budget_errors=_errors(results, "budget"),
        in_order=tuple(rule.policy.policy_id for rule, _ in results) if budgets else (),
    )


def _foresee(results: Sequence[_Result], defaults: Sequence[LayerDefault]) -> Decision:
    """Decide as the best arguments would be: what they could lift is lifted, and listed as waiting for them."""

    def assume(*granted: PolicyType) -> Decision:
        hopeful = [
            each._replace(truth=TRUE if each.rule.policy.type in granted else FALSE) if each.truth == UNKNOWN else each
            for each in results
        ]
        return _judge(hopeful, defaults).asked.decision

    decision = assume("allow")
    if decision.effect == "deny" and decision.basis == "default":
        decision = assume(
            "allow", "require_approval"
        )  # what needs approval is usable with it, though no allow covers it
    if decision.effect == "deny":
        return decision
    waiting = tuple(
        _waiting(each.rule.policy)
        for each in results
        if each.truth == UNKNOWN and each.rule.policy.disclose and _matters(each.rule, results, defaults)
    )
    return replace(decision, waiting=waiting)


def _matters(rule: Rule, results: Sequence[_Result], defaults: Sequence[LayerDefault]) -> bool:
    """Whether a policy in doubt can change anything: an allow where its layer is open anyway can't."""
    if rule.policy.type != "allow":
        return True
    certain = any(
        each.truth == TRUE and each.rule.layer == rule.layer and each.rule.policy.type in {"allow", "require_approval"}
        for each in results
    )
    return defaults[rule.layer].effect == "deny" and not certain


def _waiting(policy: Policy) -> Waiting:
    return Waiting(
        policy_id=policy.policy_id,
        type=policy.type,
        reason=policy.reason,
        expression=policy.when.text if policy.when is not None else "",
        arguments=policy.conditions.arguments,
    )


def _in_force(results: Iterable[_Result], kind: PolicyType) -> list[Rule]:
    """Return the rules of a type that apply, the most important first. Errors fail closed."""
    applies = (TRUE,) if kind == "allow" else (TRUE, ERROR)
    found = [rule for rule, truth in results if rule.policy.type == kind and truth in applies]
    return sorted(found, key=lambda rule: -rule.policy.priority)  # stable: file order within one priority


def _policies(rules: Iterable[Rule]) -> list[Policy]:
    return [rule.policy for rule in rules]


def _errors(results: Iterable[_Result], last: PolicyType) -> tuple[str, ...]:
    """Name the policies of types up to ``last`` whose conditions couldn't be evaluated."""
    return tuple(
        rule.policy.policy_id for rule, truth in results if truth == ERROR and _ORDER[rule.policy.type] <= _ORDER[last]
    )


def _decision(
    effect: Effect, policies: Sequence[Policy], errors: tuple[str, ...], *, disclose: bool = True
) -> Decision:
    named = policies[0]
    return Decision(
        effect=effect,
        policy_id=named.policy_id,
        basis=named.type,
        reason=reason_of(named),
        disclose=disclose,
        determining=tuple(policy.policy_id for policy in policies),
        errors=errors,
        min_evidence=max(
            (policy.min_evidence for policy in policies if policy.min_evidence is not None),
            key=EVIDENCE.index,
            default=None,
        ),
    )


def _charging(decision: Decision, path: Path) -> Decision:
    """Name what to charge; what a call costs by its arguments is filled in when they are known."""
    charges = tuple(
        Charge(policy.budget, cost.amount or 0, policy.policy_id)
        for policy, cost in path.budgets
        if policy.budget is not None
    )
    return replace(decision, limits=tuple(limit for limit, _ in path.limits), charges=charges)


def _by_default(layer: LayerDefault, errors: tuple[str, ...]) -> Decision:
    basis: Basis = "default"
    return Decision("allow", layer.policy_id, basis, "no policy restricts this action", errors=errors)


def _uncovered(layer: LayerDefault, errors: tuple[str, ...]) -> Decision:
    overlay = layer.policy_id.rpartition("/")[0]
    reason = f"no allow policy of {overlay} covers this action" if overlay else "no allow policy covers this action"
    return Decision("deny", layer.policy_id, "default", reason, errors=errors)
