"""Running policy tests: those a package brings, and those of the operator's policies.

Rule: the answers come from the engine that decides calls, with counters of their own; nothing is executed.
Source: specs/atlas.md, "Policy tests".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from cra_mcp.atlas.case_coverage import Considered, Coverage, policies_of
from cra_mcp.atlas.case_files import CaseFiles
from cra_mcp.atlas.model import Atlas, PolicyCase
from cra_mcp.atlas.overlay import Overlay, governed
from cra_mcp.atlas.overlay_loading import overlay_of
from cra_mcp.errors import AtlasConflictError
from cra_mcp.policy.calls import to_micro
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import ActionFacts, Charge, Decision

_NONE: Mapping[str, PolicySet] = {}


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
    _check_names(overlays)
    actions = atlas.tried if atlas.overlay else tuple(action.facts for action in atlas.actions)
    own, default = ((), "allow") if atlas.overlay else (atlas.policies, atlas.policy_set.default_effect)
    trial = _Trial(governed(own, actions, default, overlays), actions)
    return Run(tuple(trial.run(case) for case in atlas.cases), trial.coverage)


def run_case_files(files: CaseFiles, overlays: Sequence[Overlay], atlases: Sequence[Atlas] = ()) -> Run:
    """Run tests of ``overlays``, on the actions they bring and on those of ``atlases``, which their own policies govern besides.

    Coverage is that of the overlays.

    Raises:
        AtlasConflictError: two overlays have one name, or an action is declared twice.
        AtlasInvalidError: an expression of an overlay doesn't fit an action.
    """
    _check_names(overlays)
    actions, sets = list(files.tried), dict[str, PolicySet]()
    for atlas in atlases:
        facts = [action.facts for action in atlas.actions]
        made = governed(atlas.policies, facts, atlas.policy_set.default_effect, overlays)
        for action in facts:
            if any(action.action_id == each.action_id for each in actions):
                raise AtlasConflictError(
                    f"action {action.action_id} of {atlas.atlas_id} is there already",
                    hint="a test brings only actions that no atlas named beside it declares",
                )
        actions += facts
        sets.update((action.action_id, made) for action in facts)
    trial = _Trial(governed((), files.tried, "allow", overlays), actions, sets)
    return Run(tuple(trial.run(case) for case in files.cases), trial.coverage)


def _check_names(overlays: Sequence[Overlay]) -> None:
    names = [overlay.overlay_id for overlay in overlays]
    for name in names:
        if names.count(name) > 1:
            raise AtlasConflictError(f"overlay {name} is given twice", hint="leave one of them out")


class _Trial:
    """Policies being tested.

    Args:
        policy_set: what is watched, and decides where ``sets`` has nothing.
        actions: all that tests can be about.
        sets: what decides instead, by action.
    """

    def __init__(
        self, policy_set: PolicySet, actions: Sequence[ActionFacts], sets: Mapping[str, PolicySet] = _NONE
    ) -> None:
        self._policy_set = policy_set
        self._sets = sets
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
        return self._deciding(case).decide(
            case.action_id, case.facts, counters, case.at_us, approved=case.approved, args=case.args
        )

    def _deciding(self, case: PolicyCase) -> PolicySet:
        return self._sets.get(case.action_id, self._policy_set)

    def _charge(self, counters: Counters, case: PolicyCase, policy_id: str, amount: float) -> bool:
        """Charge a limit or budget, at most all of it; False if there is none of this name."""
        policy = next((each for each in policies_of(self._deciding(case)) if each.policy_id == policy_id), None)
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
