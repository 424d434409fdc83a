"""Running the policy tests a package brings.

Rule: the answers come from the engine that decides calls, with counters of their own; nothing is executed.
Source: specs/atlas.md, "Policy tests".
"""

from dataclasses import dataclass

from cra_mcp.atlas.model import Atlas, PolicyCase
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Decision


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one policy test. ``failures`` names what the engine answered otherwise; none if it passed."""

    case: PolicyCase
    decision: Decision
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the engine answered as expected."""
        return not self.failures


def run_cases(atlas: Atlas) -> list[CaseResult]:
    """Run every policy test of an atlas, in order."""
    return [_run(atlas, case) for case in atlas.cases]


def _run(atlas: Atlas, case: PolicyCase) -> CaseResult:
    counters = Counters()

    def decide() -> Decision:
        return atlas.policy_set.decide(
            case.action_id, case.facts, counters, case.at_us, approved=case.approved, args=case.args
        )

    for _ in range(case.calls_before):
        earlier = decide()
        if earlier.effect == "deny":
            break  # a denied call costs nothing, so more of them change nothing
        counters.take(earlier.limits, case.facts, case.at_us, earlier.charges)
    decision = decide()
    expected = (
        ("effect", case.effect, decision.effect),
        ("policy_id", case.policy_id, decision.policy_id),
        ("disclose", case.disclose, decision.disclose),
    )
    failures = tuple(
        f"{name}: expected {wanted}, got {got}"
        for name, wanted, got in expected
        if wanted is not None and wanted != got
    )
    return CaseResult(case, decision, failures)
