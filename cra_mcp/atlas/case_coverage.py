"""What policy tests have seen of the policies they test: which decided, and every condition true, false and in error.

Rule: each condition is evaluated by itself, with what the engine evaluates it with, so that none hides behind another.
Source: specs/atlas.md, "Policy tests".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from cra_mcp.policy.calls import call_test
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.conditions import ERROR, FALSE, TRUE, Truth, compile_facts, compile_globs, higher
from cra_mcp.policy.engine import PolicySet, governing
from cra_mcp.policy.expression import Expression
from cra_mcp.policy.model import ActionFacts, Conditions, Decision, Policy

WORDS: Final[Mapping[Truth, str]] = {TRUE: "true", FALSE: "false", ERROR: "error"}

_NONE = Conditions()
_Probe = Callable[[ActionFacts, Inputs], Truth]


@dataclass(frozen=True, slots=True)
class Considered:
    """One policy whose globs match the action of a test, and what each of its conditions came to, by name."""

    policy_id: str
    type: str
    conditions: Mapping[str, str]


@dataclass(slots=True)
class PolicyCoverage:
    """What was seen of one policy.

    Attributes:
        decided: whether it was among the determining policies of a decision.
        possible: by condition, the outcomes it can have: ``true``, ``false``, ``error``.
        seen: by condition, those it had.
    """

    policy_id: str
    type: str
    decided: bool = False
    possible: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    seen: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def missing(self) -> dict[str, list[str]]:
        """By condition, the outcomes no test saw; none where all were."""
        left = {name: [word for word in words if word not in self.seen[name]] for name, words in self.possible.items()}
        return {name: words for name, words in left.items() if words}

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        left = self.missing()
        return {
            "policy_id": self.policy_id,
            "type": self.type,
            "decided": self.decided,
            "conditions": {
                name: {"seen": [word for word in words if word in self.seen[name]], "missing": left.get(name, [])}
                for name, words in self.possible.items()
            },
        }


class Coverage:
    """What a run of policy tests has seen of a set of policies."""

    def __init__(self, policy_set: PolicySet, actions: Iterable[ActionFacts]) -> None:
        self._actions = {action.action_id: action for action in actions}
        self._watched = [_Watched(policy) for policy in policies_of(policy_set)]

    @property
    def policies(self) -> list[PolicyCoverage]:
        """Each policy in order of evaluation: overlays first, then in file order."""
        return [watched.coverage for watched in self._watched]

    @property
    def total(self) -> int:
        """How much can be seen: policies that decide, and outcomes of conditions."""
        return sum(1 + sum(map(len, each.possible.values())) for each in self.policies)

    @property
    def covered(self) -> int:
        """How much of it was."""
        return sum(each.decided + sum(map(len, each.seen.values())) for each in self.policies)

    @property
    def percent(self) -> float:
        """``covered`` of ``total``, 0 to 100; 100 where there is nothing to see."""
        return 100 * self.covered / self.total if self.total else 100.0

    @property
    def policy_percent(self) -> float:
        """Policies that decided, of all."""
        return 100 * sum(each.decided for each in self.policies) / len(self._watched) if self._watched else 100.0

    def watch(self, action_id: str, inputs: Inputs, decision: Decision) -> list[Considered]:
        """Take note of one decision; returns the policies considered for it."""
        action = self._actions.get(action_id)
        for watched in self._watched:
            if watched.coverage.policy_id in decision.determining:
                watched.coverage.decided = True
        return (
            [] if action is None else [each.look(action, inputs) for each in self._watched if each.concerns(action_id)]
        )

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "percent": round(self.percent, 2),
            "policy_percent": round(self.policy_percent, 2),
            "covered": self.covered,
            "total": self.total,
            "policies": [each.to_dict() for each in self.policies],
        }


def policies_of(policy_set: PolicySet) -> list[Policy]:
    """All policies of a set, overlays first, called as decisions call them."""
    return [*(policy for layer in policy_set.overlays for policy in governing(layer).policies), *policy_set.policies]


class _Watched:
    """A policy, the parts of its condition, and what was seen of them."""

    def __init__(self, policy: Policy) -> None:
        parts = list(_parts(policy))
        self.concerns = compile_globs(policy.actions)
        self._probes = {name: probe for name, probe, _ in parts}
        self.coverage = PolicyCoverage(
            policy.policy_id,
            policy.type,
            possible={name: words for name, _, words in parts},
            seen={name: set() for name, _, _ in parts},
        )

    def look(self, action: ActionFacts, inputs: Inputs) -> Considered:
        found = {name: WORDS[probe(action, inputs)] for name, probe in self._probes.items()}
        for name, word in found.items():
            if word in self.coverage.possible[name]:
                self.coverage.seen[name].add(word)
        return Considered(self.coverage.policy_id, self.coverage.type, found)


def _parts(policy: Policy) -> Iterable[tuple[str, _Probe, tuple[str, ...]]]:
    """Name, test and possible outcomes of each part of a policy's condition."""
    conditions = policy.conditions
    for name in (each.name for each in fields(Conditions)):
        if getattr(conditions, name) != getattr(_NONE, name):
            words = ("true", "false", "error") if name == "context_matches" else ("true", "false")
            yield name, _condition_probe(policy, name), words
    if policy.when is not None:
        words = ("true", "false", "error") if may_fail(policy.when) else ("true", "false")
        yield "when", _call_probe(replace(policy, conditions=_NONE)), words


def may_fail(expression: Expression) -> bool:
    """Whether an expression reads an argument or context key that it doesn't ask for with ``has`` first."""
    tested = [(each.root, each.path) for each in expression.references if each.tested]
    return any(
        not each.tested and not any(root == each.root and path == each.path[: len(path)] for root, path in tested)
        for each in expression.references
    )


def _condition_probe(policy: Policy, name: str) -> _Probe:
    conditions = policy.conditions
    match name:
        case "risk_tiers":
            return lambda action, inputs: (
                TRUE if higher(action.risk_tier, inputs.facts.task_risk) in conditions.risk_tiers else FALSE
            )
        case "capabilities":
            return lambda action, _inputs: FALSE if conditions.capabilities.isdisjoint(action.capabilities) else TRUE
        case "arguments":
            return _call_probe(replace(policy, conditions=Conditions(arguments=conditions.arguments), when=None))
        case _:
            test = compile_facts(replace(_NONE, **{name: getattr(conditions, name)})).test
            return lambda _action, inputs: test(inputs.facts, inputs.now_us)


def _call_probe(policy: Policy) -> _Probe:
    """The test of arguments or ``when``, compiled for each action it is asked about."""

    def probe(action: ActionFacts, inputs: Inputs) -> Truth:
        test = call_test(policy, action)
        return TRUE if test is None else test.test(inputs)

    return probe


def sentences(policies: Sequence[PolicyCoverage]) -> list[str]:
    """What no test saw, one line for each policy or condition."""
    found: list[str] = []
    for each in policies:
        if not each.decided:
            found.append(f"{each.policy_id} ({each.type}) never decided")
        for name, words in each.missing().items():
            unseen = [("in " if word == "error" else "") + word for word in words]
            found.append(f"{each.policy_id}: {name} never {' nor '.join(unseen)}")
    return found
