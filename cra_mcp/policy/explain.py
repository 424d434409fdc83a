"""Explaining a decision: every policy asked once more, one condition at a time, and all that was read on the way.

Rule: pure, like the engine, and off the way of every call. The decision is the engine's own; what stands beside it comes from the
conditions one by one, and a property test holds the two together. Values are shown as ``shown`` has them, never as they were sent.
Source: specs/policy.md, "Explaining".
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, cast

from cra_mcp.policy.calls import call_test, cost_of, withheld
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.compiler import DAYS
from cra_mcp.policy.conditions import (
    ERROR,
    FALSE,
    TRUE,
    UNKNOWN,
    Truth,
    compile_facts,
    compile_glob,
    higher,
    static_part_holds,
)
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import UNDECLARED, PolicySet, governing
from cra_mcp.policy.explanation import Considered, Explanation, LayerState, Outcome, Part, Room, TruthName
from cra_mcp.policy.expression import Expression, Reference
from cra_mcp.policy.model import (
    MICRO,
    ActionFacts,
    Basis,
    Charge,
    Conditions,
    Decision,
    Facts,
    Layer,
    Policy,
    PolicyType,
    TimeWindow,
)
from cra_mcp.policy.windows import load_zone
from cra_mcp.schema_check import explain as schema_faults

_NAMES: Final[Mapping[Truth, TruthName]] = {FALSE: "false", TRUE: "true", ERROR: "error", UNKNOWN: "unknown"}
_TYPES: Final[tuple[PolicyType, ...]] = ("deny", "require_approval", "rate_limit", "budget", "allow")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Mapping[str, object] = {}


class Shown(NamedTuple):
    """Arguments and context as they may be shown: what is secret in them replaced, nothing moved."""

    args: object
    context: object


class _Asked(NamedTuple):
    """One request, and whether its arguments are known."""

    action: ActionFacts
    inputs: Inputs
    known: bool
    shown: Shown


def explain(
    policy_set: PolicySet,
    action: ActionFacts,
    facts: Facts,
    counters: Counters,
    now_us: int,
    *,
    args: Mapping[str, object] | None = None,
    approved: bool = False,
    shown: Shown | None = None,
    decision: Decision | None = None,
) -> Explanation:
    """Explain what policy says of one call.

    Args:
        policy_set: as ``decide`` is asked of.
        action: with the facts the set was compiled with.
        facts: what the requester brings.
        counters: read, never charged.
        now_us: microseconds since the epoch.
        args: the arguments; None: not known, and the explanation is of what can be said without them.
        approved: as for ``decide``.
        shown: what of the arguments and the context may be shown; None: all of it.
        decision: what the policy set has said; None: it is asked, without arguments for what the best of them are told.
    """
    layers = [
        *(governing(layer) for layer in policy_set.overlays),
        Layer("", policy_set.policies, policy_set.default_effect),
    ]
    given = _NOTHING if args is None else args
    known = args is not None or not any(_needs_arguments(each, action) for layer in layers for each in layer.policies)
    if decision is None and known:
        decision = policy_set.decide(action.action_id, facts, counters, now_us, approved=approved, args=given)
    elif decision is None:
        decision = policy_set.foresee(action.action_id, facts, now_us)
    if decision is UNDECLARED:
        layers = []
    asked = _Asked(action, Inputs(facts, now_us, given), known, shown or Shown(given, facts.context))
    considered = [
        _consider(policy, layer.overlay_id, asked, counters, decision) for layer in layers for policy in layer.policies
    ]
    return Explanation(
        action_id=action.action_id,
        at_us=now_us,
        approved=approved,
        arguments="given" if args is not None else "not_needed" if known else "unknown",
        decision=decision,
        policies=tuple(sorted(considered, key=_rank)),
        layers=tuple(
            LayerState(layer.overlay_id, layer.default_effect, _covered(layer.overlay_id, considered))
            for layer in layers
        ),
    )


def _needs_arguments(policy: Policy, action: ActionFacts) -> bool:
    reads = policy.may_read_args or (policy.budget is not None and policy.budget.reads_args)
    return reads and _glob(policy, action) is not None


def _rank(each: Considered) -> tuple[int, int]:
    """Of the order of evaluation; file order within one rank, because sorting is stable."""
    return _TYPES.index(each.policy.type), -each.policy.priority


def _covered(overlay: str, considered: list[Considered]) -> bool | None:
    letting = [
        each for each in considered if each.layer == overlay and each.policy.type in {"require_approval", "allow"}
    ]
    if any(each.applies for each in letting):
        return True
    return None if any(each.outcome == "waits" or each.truth == "unknown" for each in letting) else False


def _consider(policy: Policy, overlay: str, asked: _Asked, counters: Counters, decision: Decision) -> Considered:
    consulted = _is_consulted(policy.type, decision)
    glob = _glob(policy, asked.action)
    if glob is None:
        return Considered(policy, overlay, None, (), "false", "other_actions", consulted)
    tested = [
        *_action_parts(policy.conditions, asked),
        *_requester_parts(policy.conditions, asked),
        *_call_parts(policy, asked),
    ]
    truth = _joined([truth for truth, _ in tested])
    applies = truth == TRUE or (truth == ERROR and policy.type != "allow")
    outcome: Outcome = "does_not_apply"
    if policy.policy_id in decision.determining:
        outcome = "decides"
    elif truth == UNKNOWN:
        outcome = "waits"
    elif applies:
        outcome = "applies"
    room = _room(policy, asked, counters) if truth != FALSE else None
    return Considered(policy, overlay, glob, tuple(part for _, part in tested), _NAMES[truth], outcome, consulted, room)


def _is_consulted(kind: PolicyType, decision: Decision) -> bool:
    """Of the deciding type and those before it; all where the default decided; all that restrict after an approval."""
    basis: Basis = "budget" if decision.basis == "require_approval" and decision.effect == "allow" else decision.basis
    return basis not in _TYPES or _TYPES.index(kind) <= _TYPES.index(basis)


def _glob(policy: Policy, action: ActionFacts) -> str | None:
    return next((glob for glob in policy.actions if compile_glob(glob)(action.action_id)), None)


def _joined(truths: list[Truth]) -> Truth:
    """False settles it; otherwise what is unknown, then what failed, decides."""
    for settling in (FALSE, UNKNOWN, ERROR):
        if settling in truths:
            return settling
    return TRUE


# --- conditions --------------------------------------------------------------------------------------------------------


def _action_parts(conditions: Conditions, asked: _Asked) -> Iterator[tuple[Truth, Part]]:
    """Conditions on the action and on how risky the task is."""
    action, task = asked.action, asked.inputs.facts.task_risk

    def part(only: Conditions, name: str, wanted: list[str], read: Mapping[str, object]) -> tuple[Truth, Part]:
        holds = static_part_holds(only, higher(action.risk_tier, task), action.capabilities)
        return (TRUE, Part(name, "true", wanted, read)) if holds else (FALSE, Part(name, "false", wanted, read))

    tiers, names = conditions.risk_tiers, conditions.capabilities
    if tiers:
        wanted = [tier.value for tier in sorted(tiers, key=lambda tier: tier.rank)]
        read = {"action.risk_tier": action.risk_tier.value, "task.risk_tier": task.value}
        yield part(Conditions(risk_tiers=tiers), "risk_tiers", wanted, read)
    if names:
        read = {"action.capabilities": sorted(action.capabilities)}
        yield part(Conditions(capabilities=names), "capabilities", sorted(names), read)


def _requester_parts(conditions: Conditions, asked: _Asked) -> Iterator[tuple[Truth, Part]]:
    """Conditions on the requester and the instant."""
    facts, now_us, _, _ = asked.inputs

    def part(
        only: Conditions, name: str, wanted: object, read: Mapping[str, object], *missing: str
    ) -> tuple[Truth, Part]:
        truth = compile_facts(only).test(facts, now_us)
        return truth, Part(name, _NAMES[truth], wanted, read, missing)

    agents, principals, roles = conditions.agents, conditions.principals, conditions.roles
    if agents:
        yield part(Conditions(agents=agents), "agents", list(agents), {"agent.id": facts.agent_id})
    if principals:
        read = {"principal.subject": facts.subject}
        yield part(Conditions(principals=principals), "principals", list(principals), read)
    if roles:
        yield part(Conditions(roles=roles), "roles", sorted(roles), {"principal.roles": sorted(facts.roles)})
    for key, pattern in conditions.context_matches:
        values, missing = _found(f"context.{key}", facts.context, asked.shown.context, (key,))
        only = Conditions(context_matches=((key, pattern),))
        yield part(only, f"context_matches/{key}", pattern, values, *missing)
    if (window := conditions.time_window) is not None:
        yield part(Conditions(time_window=window), "time_window", _window_form(window), _clock(now_us, window.timezone))


def _call_parts(policy: Policy, asked: _Asked) -> Iterator[tuple[Truth, Part]]:
    """Conditions that are tested for each call. Before the arguments are known, those of a policy that reads them wait."""
    waits = policy.may_read_args and not asked.known
    schema, when = policy.conditions.arguments, policy.when
    if schema:
        truth = UNKNOWN if waits else _truth(Policy("", "deny", conditions=Conditions(arguments=schema)), asked)
        wanted = cast("Mapping[str, object]", json.loads(schema))
        faults: list[str] = []
        if truth == FALSE:
            found = schema_faults(wanted, asked.inputs.args, masked=True)
            faults = [f"{fault.pointer}: {fault.keyword}" for fault in found]
        values = {} if waits else {"args": asked.shown.args}
        yield truth, Part("arguments", _NAMES[truth], wanted, values, faults=tuple(faults))
    if when is not None:
        truth = _truth(Policy("", "deny", when=when), asked)
        values, missing = _read(when, asked)
        kept_back = () if waits else withheld(when, asked.action, asked.inputs)
        yield truth, Part("when", _NAMES[truth], when.text, values, missing, kept_back)


def _truth(only: Policy, asked: _Asked) -> Truth:
    """What a condition comes to; before the arguments are known, as far as it does whatever they are."""
    test = call_test(only, asked.action)
    early = TRUE if test is None else test.early(asked.inputs.facts, asked.inputs.now_us)
    return early if test is None or not asked.known else test.test(asked.inputs)


# --- values ------------------------------------------------------------------------------------------------------------


def _read(expression: Expression, asked: _Asked) -> tuple[dict[str, object], tuple[str, ...]]:
    """What an expression reads, by name, and the names of what is missing."""
    action, (facts, now_us, args, _) = asked.action, asked.inputs
    fields: dict[str, object] = {
        "action.id": action.action_id,
        "action.risk_tier": action.risk_tier.value,
        "action.capabilities": sorted(action.capabilities),
        "agent.id": facts.agent_id,
        "principal.roles": sorted(facts.roles),
        "principal.subject": facts.subject,
        "session.id": facts.session_id,
        "session.tenant": facts.tenant,
        "task.risk_tier": facts.task_risk.value,
        "now": instant(now_us),
    }
    values = {name: fields[name] for name in sorted(expression.fields)}
    missing: list[str] = []
    for reference in expression.references:
        if reference.root == "args" and not asked.known:
            continue
        whole, shown = (args, asked.shown.args) if reference.root == "args" else (facts.context, asked.shown.context)
        found, absent = _member(reference, whole, shown)
        values.update(found)
        missing += [name for name in absent if name not in missing]
    return values, tuple(missing)


def _member(reference: Reference, whole: object, shown: object) -> tuple[dict[str, object], tuple[str, ...]]:
    name = ".".join((reference.root, *reference.path))
    if not reference.tested:
        return _found(name, whole, shown, reference.path)
    *parents, last = reference.path
    _, absent = _found(".".join((reference.root, *parents)), whole, shown, tuple(parents))
    return ({}, absent) if absent else ({f"has({name})": not _found(name, whole, shown, (*parents, last))[1]}, ())


def _found(name: str, whole: object, shown: object, path: tuple[str, ...]) -> tuple[dict[str, object], tuple[str, ...]]:
    """The member as it may be shown, if it is there; where more than it is hidden, what stands in the place of that."""
    for step in path:
        if not isinstance(whole, dict) or step not in whole:
            return {}, (name,)
        whole = cast("Mapping[str, object]", whole)[step]
        if isinstance(shown, dict):
            shown = cast("Mapping[str, object]", shown).get(step)
    return {name: shown}, ()


def instant(now_us: int) -> str:
    """An instant as RFC 3339 UTC with six fractional digits; the number where the calendar has none."""
    try:
        return (_EPOCH + timedelta(microseconds=now_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    except OverflowError:
        return str(now_us)


def _clock(now_us: int, zone: str) -> dict[str, object]:
    """The instant, and what a clock on the wall shows there."""
    values: dict[str, object] = {"now": instant(now_us)}
    try:
        local = (_EPOCH + timedelta(microseconds=now_us)).astimezone(load_zone(zone))
    except OverflowError:
        return values
    values[f"now in {zone}"] = f"{DAYS[local.weekday()]} {local:%H:%M:%S}"
    return values


def _window_form(window: TimeWindow) -> dict[str, object]:
    def clock(minutes: int) -> str:
        return f"{minutes // 60:02}:{minutes % 60:02}"

    form: dict[str, object] = {"start": clock(window.start), "end": clock(window.end), "timezone": window.timezone}
    if window.days:
        form["days"] = [DAYS[day] for day in sorted(window.days)]
    return form


# --- counters ----------------------------------------------------------------------------------------------------------


def _room(policy: Policy, asked: _Asked, counters: Counters) -> Room | None:
    (facts, now_us, _, _), limit, budget = asked.inputs, policy.limit, policy.budget
    if limit is not None:
        wait = counters.retry_after_us(limit, facts, now_us)
        spent = counters.spent(limit, facts, now_us)
        return Room(
            "calls", limit.max_calls * MICRO, limit.window_us, limit.scope, spent * MICRO, MICRO, wait == 0, wait
        )
    if budget is None:
        return None
    spent = counters.cost(Charge(budget, 0, policy.policy_id), facts, now_us)

    def room(takes: int | None, *, fits: bool | None, wait_us: int | None) -> Room:
        return Room(budget.unit, budget.max_cost, budget.window_us, budget.scope, spent, takes, fits, wait_us)

    if not asked.known and budget.reads_args:
        return room(None, fits=None, wait_us=None)
    takes = cost_of(budget, asked.action).before(asked.inputs)
    if takes is None:
        kept_back = () if budget.cost is None else withheld(budget.cost, asked.action, asked.inputs)
        return replace(room(None, fits=False, wait_us=None), withheld=kept_back)
    wait_us = counters.room_after_us(Charge(budget, takes, policy.policy_id), facts, now_us)
    return room(takes, fits=wait_us == 0, wait_us=wait_us)
