"""Overlays: policies that govern every action of every atlas, from the operator's policy file or an overlay atlas.

Rule: an overlay only tightens. One with a problem is not loaded at all, and neither is an atlas that doesn't fit its expressions.
Source: specs/policy.md, "Overlays".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cra_mcp.atlas.model import Atlas
from cra_mcp.errors import AtlasInvalidError, Problem
from cra_mcp.policy.calls import program_for
from cra_mcp.policy.conditions import compile_globs
from cra_mcp.policy.engine import PolicySet, compile_policies
from cra_mcp.policy.expression import Expression, ExpressionError, Kind
from cra_mcp.policy.model import ActionFacts, Layer, Policy
from cra_mcp.policy.tables import DefaultEffect

MAX_FILE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Overlay:
    """Policies for all actions.

    Attributes:
        version: of an overlay atlas; "" for a policy file.
        digest: lower-case hex SHA-256 over the file, or over every file of the atlas.
        layer: its policies and default effect; ``layer.overlay_id`` is its name.
        places: file and pointer of each policy, in the order of ``layer.policies``.
        detectors: what it has hidden in whatever is recorded.
    """

    version: str
    digest: str
    layer: Layer
    places: tuple[tuple[str, str], ...]
    detectors: frozenset[str] = frozenset()

    @property
    def overlay_id(self) -> str:
        """Its name, which goes before those of its policies."""
        return self.layer.overlay_id

    @property
    def is_policy_file(self) -> bool:
        """Whether it is an operator's policy file, and no atlas."""
        return not self.version

    def to_dict(self) -> dict[str, object]:
        """As plain JSON, for traces and listings."""
        return {"overlay_id": self.overlay_id, "version": self.version, "digest": self.digest}


def govern(atlas: Atlas, overlays: Sequence[Overlay], *, shadow: bool = False) -> Atlas:
    """The atlas with its policies compiled together with those of overlays; ``shadow``: only the overlays' denials are enforced.

    Raises:
        AtlasInvalidError: an expression of an overlay does not fit the parameters of an action; located in the overlay.
    """
    facts = [action.facts for action in atlas.actions]
    default = (atlas.shadow_set or atlas.policy_set).default_effect
    everything = governed(atlas.policies, facts, default, overlays)
    if not shadow:
        return replace(atlas, policy_set=everything, shadow_set=None)
    denials = [_denials(overlay.layer) for overlay in overlays]
    return replace(atlas, policy_set=compile_policies((), facts, "allow", denials), shadow_set=everything)


def _denials(layer: Layer) -> Layer:
    return Layer(layer.overlay_id, tuple(policy for policy in layer.policies if policy.type == "deny"), "allow")


def governed(
    policies: Sequence[Policy],
    actions: Sequence[ActionFacts],
    default_effect: DefaultEffect,
    overlays: Sequence[Overlay],
) -> PolicySet:
    """Policies for ``actions`` compiled together with those of overlays.

    Raises:
        AtlasInvalidError: as ``govern``.
    """
    problems = [problem for overlay in overlays for problem in _misfits(overlay, actions)]
    if problems:
        raise AtlasInvalidError(problems, hint="guard arguments that not every action has with has(args.NAME)")
    return compile_policies(policies, actions, default_effect, [overlay.layer for overlay in overlays])


def _misfits(overlay: Overlay, actions: Sequence[ActionFacts]) -> list[Problem]:
    """The first misfit of each expression."""
    found: list[Problem] = []
    for policy, (file, pointer) in zip(overlay.layer.policies, overlay.places, strict=True):
        matches = compile_globs(policy.actions)
        concerned = [action for action in actions if matches(action.action_id)]
        for key, kind, expression in _expressions(policy):
            error = _misfit(expression, kind, concerned)
            if error is not None:
                found.append(Problem(file, f"{pointer}/{key}", "invalid_expression", error.message, error.column))
    return found


def _expressions(policy: Policy) -> list[tuple[str, Kind, Expression]]:
    found: list[tuple[str, Kind, Expression]] = []
    if policy.when is not None:
        found.append(("when", "when", policy.when))
    if policy.budget is not None and policy.budget.cost is not None:
        found.append(("parameters/cost", "cost", policy.budget.cost))
    return found


def _misfit(expression: Expression, kind: Kind, actions: Sequence[ActionFacts]) -> ExpressionError | None:
    try:
        for action in actions:
            program_for(expression, kind, action)
    except ExpressionError as error:
        return error
    return None
