"""What is wrong with policies that load: those that do nothing, and actions that none of them is about.

Rule: a finding is certain. What only looks suspicious, or holds for some requests, is not told.
Source: specs/policy.md, "Linting".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple, cast

from cra_mcp.analysis.condition_lint import lint_conditions
from cra_mcp.analysis.expression_lint import lint_expression
from cra_mcp.analysis.findings import Finding, found
from cra_mcp.analysis.subject import Source, Subject, Written
from cra_mcp.atlas.model import Action
from cra_mcp.canonical import canonical_bytes
from cra_mcp.policy.calls import call_test
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.compiler import canonical_form
from cra_mcp.policy.conditions import (
    ERROR,
    FALSE,
    TRUE,
    compile_glob,
    compile_globs,
    facts_part,
    higher,
    static_part_holds,
)
from cra_mcp.policy.expression import Expression
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Policy, RiskTier

_ANY = ActionFacts("any.action", parameters={"type": "object", "additionalProperties": True})
_MINUTES_A_DAY = 1_440
_WEEK = frozenset(range(7))
_CONTROLS = ("deny", "require_approval", "rate_limit", "budget")


def lint_policies(subject: Subject, now: datetime) -> Iterator[Finding]:
    """Everything wrong with the policies of atlases and overlays at an instant."""
    certain = _certain(subject)
    for index, source in enumerate(subject.sources):
        actions = subject.actions_of(source)
        for policy, where in source.policies:
            if where is None:
                continue
            yield from _constant(policy, where)
            concerned = _concerned(policy, actions)
            yield from lint_conditions(policy, where, concerned)
            yield from lint_expression(policy, where, concerned, now)
            if actions:
                yield from _reach(policy, where, actions)
                yield from _shadowed(_InForce(index, policy), where, actions, certain)
            if policy.type == "allow" and source.default_effect == "allow":
                message = "what no policy names is allowed here anyway: leave it out, or set default_effect to deny"
                yield found("useless_allow", where, "", message)
        yield from _duplicates(source)
        yield from _capabilities(source)
    yield from _uncovered(subject)


def _capabilities(source: Source) -> Iterator[Finding]:
    for where in source.capabilities:
        for at, glob in enumerate(cast("Sequence[str]", where.raw.get("actions", ()))):
            matches = compile_glob(glob)
            if not any(matches(action_id) for action_id in source.actions):
                yield found("undeclared_action", where, f"/actions/{at}", f"{glob} names no action of this atlas")


# --- one policy --------------------------------------------------------------------------------------------------------


def _reach(policy: Policy, where: Written, actions: Sequence[Action]) -> Iterator[Finding]:
    for at, glob in enumerate(policy.actions):
        matches = compile_glob(glob)
        if not any(matches(action.action_id) for action in actions):
            below = f"/actions/{at}" if "actions" in where.raw else ""
            yield found("unmatched_glob", where, below, f"{glob} matches no action")
    concerned = _concerned(policy, actions)
    if concerned and not any(_can_hold(policy, action) for action in concerned):
        message = "its risk tiers and capabilities hold for no action it is about"
        yield found("unreachable_policy", where, "/conditions", message)


def _concerned(policy: Policy, actions: Sequence[Action]) -> list[Action]:
    matches = compile_globs(policy.actions)
    return [action for action in actions if matches(action.action_id)]


def _can_hold(policy: Policy, action: Action) -> bool:
    """Whether risk tiers and capabilities hold for an action in some task."""
    return any(
        static_part_holds(policy.conditions, higher(action.risk_tier, task), action.capabilities) for task in RiskTier
    )


def _constant(policy: Policy, where: Written) -> Iterator[Finding]:
    conditions = policy.conditions

    def always(what: str) -> Finding:
        return found("constant_condition", where, f"/conditions/{what}", "holds for every request: leave it out")

    if conditions.risk_tiers == frozenset(RiskTier):
        yield always("risk_tiers")
    for name, globs in (("agents", conditions.agents), ("principals", conditions.principals)):
        if any(set(glob) == {"*"} for glob in globs):
            yield always(name)
    window = conditions.time_window
    if window is not None and (window.days or _WEEK) == _WEEK:
        whole = window.start == window.end or (window.start == 0 and window.end == _MINUTES_A_DAY)
        if whole:
            yield always("time_window")
    if policy.when is not None:
        value = constant_value(policy.when)
        if value is not None:
            message = f"is {str(value).lower()} for every request" + ("" if value else ": the policy never applies")
            yield found("constant_condition", where, "/when", message)


def constant_value(when: Expression) -> bool | None:
    """What an expression comes out as whatever it reads; None if that makes a difference, or can't be told.

    It is evaluated where nothing can be read. What has a value then has it whatever could be read, because an error is only
    left out of account where the rest settles the outcome.
    """
    if when.fields or any(reference.tested or not reference.path for reference in when.references):
        return None  # these have a value even there
    test = call_test(Policy("", "deny", when=when), _ANY)
    truth = ERROR if test is None else test.test(Inputs(Facts("", ""), 0, {}))
    return {TRUE: True, FALSE: False}.get(truth)


# --- several policies --------------------------------------------------------------------------------------------------


class _InForce(NamedTuple):
    """A policy, and the place of its source among the sources: overlays before atlases."""

    source: int
    policy: Policy

    @property
    def rank(self) -> tuple[int, int, int]:
        """Which of several of one type is named."""
        return -self.policy.priority, self.source, self.policy.order


def _certain(subject: Subject) -> dict[str, list[_InForce]]:
    """By action: the policies that match every request for it."""
    matching: dict[str, list[_InForce]] = {}
    for index, source in enumerate(subject.sources):
        for policy, _ in source.policies:
            for action in _concerned(policy, subject.actions_of(source)):
                if _is_certain(policy, action):
                    matching.setdefault(action.action_id, []).append(_InForce(index, policy))
    return matching


def _is_certain(policy: Policy, action: Action) -> bool:
    conditions = policy.conditions
    if facts_part(conditions) != Conditions() or conditions.arguments or policy.when is not None:
        return False
    return all(static_part_holds(conditions, higher(action.risk_tier, task), action.capabilities) for task in RiskTier)


def _shadowed(
    each: _InForce, where: Written, actions: Sequence[Action], certain: Mapping[str, list[_InForce]]
) -> Iterator[Finding]:
    concerned = [action for action in _concerned(each.policy, actions) if _can_hold(each.policy, action)]
    shadows: dict[str, None] = {}
    for action in concerned:
        shadow = next((other for other in certain.get(action.action_id, ()) if _shadows(other, each)), None)
        if shadow is None:
            return
        shadows[shadow.policy.policy_id] = None
    if shadows:
        message = f"never decides anything: {', '.join(shadows)} decides first, whatever the request"
        yield found("shadowed_policy", where, "", message)


def _shadows(other: _InForce, each: _InForce) -> bool:
    """Whether a policy that matches every request leaves nothing for another to decide."""
    if other.policy.type == "deny":
        if each.policy.type != "deny":
            return True
        return other.rank < each.rank and (each.policy.disclose or not other.policy.disclose)
    both = (other.policy.type, each.policy.type)
    return both == ("require_approval", "allow") and other.source == each.source


def _duplicates(source: Source) -> Iterator[Finding]:
    seen: dict[bytes, str] = {}
    for policy, where in source.policies:
        key = _effect_of(policy)
        first = seen.setdefault(key, policy.policy_id)
        if first != policy.policy_id and where is not None:
            yield found("duplicate_policy", where, "", f"does the same as {first}")


def _effect_of(policy: Policy) -> bytes:
    """All of a policy but its name, its words and its rank."""
    limit, budget = policy.limit, policy.budget
    bare = replace(
        policy,
        policy_id="",
        reason="",
        priority=0,
        actions=tuple(sorted(set(policy.actions))),
        limit=None if limit is None else replace(limit, limit_id=""),
        budget=None if budget is None else replace(budget, budget_id=""),
    )
    return canonical_bytes(canonical_form([bare], "deny"))


def _uncovered(subject: Subject) -> Iterator[Finding]:
    layers = [source for source in subject.sources if source.overlay is not None]
    for source in subject.sources:
        for action in source.atlas.actions if source.atlas is not None else ():
            if action.risk_tier.rank < RiskTier.HIGH.rank:
                continue
            if all(_leaves_open(layer, action) for layer in [*layers, source]):
                message = f"no policy is about this action of risk tier {action.risk_tier.value}: anybody may call it"
                yield found("uncovered_risk", source.actions[action.action_id], "/risk_tier", message)


def _leaves_open(layer: Source, action: Action) -> bool:
    """Whether a layer lets every call through without a policy that is about the action more than about all."""
    bearing = [policy for policy, _ in layer.policies if _concerned(policy, [action]) and _can_hold(policy, action)]
    if any(policy.type in _CONTROLS for policy in bearing):
        return False
    allowing = [policy for policy in bearing if policy.type == "allow"]
    if any(
        any(set(glob) != {"*"} and compile_glob(glob)(action.action_id) for glob in each.actions) for each in allowing
    ):
        return False
    return layer.default_effect == "allow" or bool(allowing)
