"""Running the policy tests a package brings.

Rule: the answers come from the engine that decides calls, with counters of their own; nothing is executed.
Source: specs/atlas.md, "Policy tests".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from cra_mcp.atlas.case_coverage import Considered, Coverage, policies_of
from cra_mcp.atlas.model import Atlas, PolicyCase
from cra_mcp.atlas.overlay import Overlay, governed
from cra_mcp.atlas.overlay_loading import overlay_of
from cra_mcp.errors import AtlasConflictError
from cra_mcp.policy.calls import to_micro
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import ActionFacts, Charge, Decision, Policy


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one policy test.

    Attributes:
        failures: names what the engine answered otherwise; none if it passed.
        considered: the policies whose globs match the action, and what their conditions came to.
    """

    case: PolicyCase
    decision: Decision
    failures: tuple[str, ...]
    considered: tuple[Considered, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the engine answered as expected."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Run:
    """What came of all policy tests of an atlas, and what they have seen of its policies."""

    results: tuple[CaseResult, ...]
    coverage: Coverage


def run_cases(atlas: Atlas) -> list[CaseResult]:
    """Run every policy test of an atlas, in order."""
    return list(run(atlas).results)


def run(atlas: Atlas, overlays: Sequence[Overlay] = ()) -> Run:
    """Run every policy test of an atlas, in order, with ``overlays`` in force besides.

    An overlay atlas is tried on the actions that its tests bring.

    Raises:
        AtlasConflictError: two overlays have one name.
        AtlasInvalidError: an expression of an overlay doesn't fit an action.
    """
    if atlas.overlay:
        overlays = (overlay_of(atlas, atlas.atlas_id), *overlays)
    names = [overlay.overlay_id for overlay in overlays]
    for name in names:
        if names.count(name) > 1:
            raise AtlasConflictError(f"overlay {name} is given twice", hint="leave one of them out")
    actions = atlas.tried if atlas.overlay else tuple(action.facts for action in atlas.actions)
    own, default = ((), "allow") if atlas.overlay else (atlas.policies, atlas.policy_set.default_effect)
    trial = _Trial(governed(own, actions, default, overlays), actions)
    return Run(tuple(trial.run(case) for case in atlas.cases), trial.coverage)


class _Trial:
    """Policies being tested."""

    def __init__(self, policy_set: PolicySet, actions: Sequence[ActionFacts]) -> None:
        self._policy_set = policy_set
        self._policies: Mapping[str, Policy] = {policy.policy_id: policy for policy in policies_of(policy_set)}
        self.coverage = Coverage(policy_set, actions)

    def run(self, case: PolicyCase) -> CaseResult:
        counters = Counters()
        failures = [
            f"counters: no limit or budget is called {policy_id}"
            for policy_id, amount in case.counters.items()
            if not self._charge(counters, case, policy_id, amount)
        ]
        for _ in range(case.calls_before):
            earlier = self._decide(case, counters)
            if earlier.effect == "deny":
                break  # a denied call costs nothing, so more of them change nothing
            counters.take(earlier.limits, case.facts, case.at_us, earlier.charges)
        decision = self._decide(case, counters)
        considered = self.coverage.watch(case.action_id, Inputs(case.facts, case.at_us, case.args), decision)
        got = answer(decision)
        failures += [
            f"{name}: expected {_shown(wanted)}, got {_shown(got[name])}"
            for name, wanted in case.expect.items()
            if got[name] != wanted
        ]
        return CaseResult(case, decision, tuple(failures), tuple(considered))

    def _decide(self, case: PolicyCase, counters: Counters) -> Decision:
        return self._policy_set.decide(
            case.action_id, case.facts, counters, case.at_us, approved=case.approved, args=case.args
        )

    def _charge(self, counters: Counters, case: PolicyCase, policy_id: str, amount: float) -> bool:
        """Charge a limit or budget, at most all of it; False if there is none of this name."""
        policy = self._policies.get(policy_id)
        if policy is None or (policy.limit is None and policy.budget is None):
            return False
        if policy.limit is not None:
            for _ in range(min(int(amount), policy.limit.max_calls)):
                counters.take([policy.limit], case.facts, case.at_us)
        if policy.budget is not None:
            spent = min(to_micro(amount) or 0, policy.budget.max_cost)
            counters.take((), case.facts, case.at_us, [Charge(policy.budget, spent, policy_id)])
        return True


def answer(decision: Decision) -> dict[str, object]:
    """What a policy test can expect of a decision, by the names it uses."""
    return {
        "effect": decision.effect,
        "policy_id": decision.policy_id,
        "basis": decision.basis,
        "disclose": decision.disclose,
        "errors": list(decision.errors),
        "retry_after_seconds": decision.retry_after_seconds,
    }


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[object]", value))) or "none"
    return "none" if value is None else str(value)
