"""Decision tables: what a set of policies makes of every combination of conditions, worked out once each.

Rule: deny > require_approval > rate_limit > allow > default. A condition that can't be evaluated applies a policy that
restricts and doesn't apply one that allows.
Source: specs/policy.md, "Evaluation".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cra_mcp.policy.conditions import ERROR, TRUE, FactsCondition, Truth
from cra_mcp.policy.memo import Memo
from cra_mcp.policy.model import EVIDENCE, Basis, Decision, Effect, Limit, Policy, PolicyType

DefaultEffect = Literal["allow", "deny"]

_MAX_VERDICTS = 256
_ORDER: Final = {"deny": 0, "require_approval": 1, "rate_limit": 2, "allow": 3}


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy and the number of its test; None where its conditions don't depend on the requester or the time."""

    policy: Policy
    test: int | None


@dataclass(frozen=True, slots=True)
class Path:
    """A decision, unless one of ``limits`` is spent; ``errors`` then go with the refusal."""

    decision: Decision
    limits: tuple[tuple[Limit, Policy], ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one combination of conditions leads to: asked for the first time, and with approval granted."""

    asked: Path
    granted: Path


class Plan:
    """The policies that can bear on an action at one risk tier; actions to which the same policies apply share one.

    Attributes:
        certain: the verdict, where it depends on nothing but the limits.
        memo: gives the verdict for a requester at an instant, always.
    """

    __slots__ = ("_default", "_rules", "_tests", "_verdicts", "certain", "memo")

    def __init__(self, rules: Sequence[Rule], conditions: Sequence[FactsCondition], default: DefaultEffect) -> None:
        """Take policies in file order. ``Rule.test`` is an index of ``conditions``."""
        self._rules = _worth_asking(rules)
        self._default: DefaultEffect = default
        self._tests = tuple(sorted({rule.test for rule in self._rules if rule.test is not None}))
        self._verdicts: dict[tuple[Truth, ...], Verdict] = {}
        self.memo: Memo[Verdict] = Memo([conditions[test] for test in self._tests], self._verdict_of)
        self.certain: Verdict | None = None if self._tests else self._verdict_of(())

    def verdict_where(self, truths: Sequence[Truth]) -> Verdict:
        """Return the verdict where all ``conditions`` came out as ``truths``."""
        return self._verdict_of(tuple([truths[test] for test in self._tests]))

    def _verdict_of(self, key: tuple[Truth, ...]) -> Verdict:
        found = self._verdicts.get(key)
        if found is None:
            if len(self._verdicts) >= _MAX_VERDICTS:
                self._verdicts.clear()
            results = dict(zip(self._tests, key, strict=True))
            found = self._verdicts[key] = _judge(
                [(rule.policy, TRUE if rule.test is None else results[rule.test]) for rule in self._rules],
                self._default,
            )
        return found


def refuse_spent(path: Path, spent: Sequence[tuple[Policy, int]]) -> Decision:
    """Decide for a call that comes too soon. ``spent``: policies and waits in us, the most important first."""
    named = spent[0][0]
    return Decision(
        effect="deny",
        policy_id=named.policy_id,
        basis="rate_limit",
        reason=_reason(named),
        determining=tuple(policy.policy_id for policy, _ in spent),
        retry_after_us=max(wait for _, wait in spent),
        errors=path.errors,
    )


def _worth_asking(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Leave out policies that can't matter because one before them decides whatever the request."""
    certain = {rule.policy.type for rule in rules if rule.test is None}
    if "deny" in certain:
        return tuple(rule for rule in rules if rule.policy.type == "deny")
    if "require_approval" in certain:
        return tuple(rule for rule in rules if rule.policy.type != "allow")
    return tuple(rules)


def _judge(results: Sequence[tuple[Policy, Truth]], default: DefaultEffect) -> Verdict:
    """Apply the rules of the specification to policies in file order and the results of their conditions."""
    denying = _in_force(results, "deny")
    if denying:
        refused = Path(
            _decision("deny", denying, _errors(results, "deny"), disclose=all(policy.disclose for policy in denying))
        )
        return Verdict(refused, refused)
    limiting = _in_force(results, "rate_limit")
    limits = tuple((policy.limit, policy) for policy in limiting if policy.limit is not None)
    charged = tuple(limit for limit, _ in limits)
    errors = _errors(results, "rate_limit")
    approving = _in_force(results, "require_approval")
    if approving:
        return Verdict(
            asked=Path(_decision("require_approval", approving, _errors(results, "require_approval"), limits=charged)),
            granted=Path(_decision("allow", approving, errors, limits=charged), limits, errors),
        )
    allowing = _in_force(results, "allow")
    if allowing:
        decision = _decision("allow", allowing, _errors(results, "allow"), limits=charged)
    else:
        decision = _default(default, charged, _errors(results, "allow"))
    path = Path(decision, limits, errors)
    return Verdict(path, path)


def _in_force(results: Iterable[tuple[Policy, Truth]], kind: PolicyType) -> list[Policy]:
    """Return the policies of a type that apply, the most important first. Errors fail closed."""
    applies = (TRUE,) if kind == "allow" else (TRUE, ERROR)
    found = [policy for policy, truth in results if policy.type == kind and truth in applies]
    return sorted(found, key=lambda policy: -policy.priority)  # stable: file order within one priority


def _errors(results: Iterable[tuple[Policy, Truth]], last: PolicyType) -> tuple[str, ...]:
    """Name the policies of types up to ``last`` whose conditions couldn't be evaluated."""
    return tuple(
        policy.policy_id for policy, truth in results if truth == ERROR and _ORDER[policy.type] <= _ORDER[last]
    )


def _decision(
    effect: Effect,
    policies: Sequence[Policy],
    errors: tuple[str, ...],
    *,
    disclose: bool = True,
    limits: tuple[Limit, ...] = (),
) -> Decision:
    named = policies[0]
    return Decision(
        effect=effect,
        policy_id=named.policy_id,
        basis=named.type,
        reason=_reason(named),
        disclose=disclose,
        determining=tuple(policy.policy_id for policy in policies),
        limits=limits,
        errors=errors,
        min_evidence=max(
            (policy.min_evidence for policy in policies if policy.min_evidence is not None),
            key=EVIDENCE.index,
            default=None,
        ),
    )


def _default(effect: DefaultEffect, limits: tuple[Limit, ...], errors: tuple[str, ...]) -> Decision:
    basis: Basis = "default"
    if effect == "allow":
        return Decision("allow", "default", basis, "no policy restricts this action", limits=limits, errors=errors)
    return Decision("deny", "default", basis, "no allow policy covers this action", errors=errors)


def _reason(policy: Policy) -> str:
    """Return the policy's own words, or plain ones where it has none."""
    if policy.reason:
        return policy.reason
    if policy.type == "deny":
        return f"policy {policy.policy_id} denies this action"
    if policy.type == "require_approval":
        return f"policy {policy.policy_id} requires approval of this action"
    if policy.limit is not None:
        seconds = f"{policy.limit.window_us / 1_000_000:g}"
        whose = "" if policy.limit.scope == "global" else f" per {policy.limit.scope}"
        return f"policy {policy.policy_id} admits {policy.limit.max_calls} calls in {seconds} seconds{whose}"
    return f"policy {policy.policy_id} allows this action"
