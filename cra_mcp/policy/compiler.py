"""From policies as a manifest writes them to ``Policy`` values, and from those to the form that is digested.

Rule: what is written but would have no effect, or could be read two ways, is refused, never ignored.
Source: specs/policy.md, "Policies".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, cast, get_args

from cra_mcp.canonical import canonical_bytes
from cra_mcp.policy.calls import to_micro
from cra_mcp.policy.expression import Expression, ExpressionError, Kind, parse_expression
from cra_mcp.policy.model import (
    EVIDENCE,
    Budget,
    Conditions,
    Layer,
    Limit,
    Policy,
    PolicyType,
    RiskTier,
    Scope,
    TimeWindow,
)
from cra_mcp.policy.windows import load_zone

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RESERVED_IDS = frozenset({"default", "freeze", "undeclared"})
"""What a decision is named that no policy made."""

_ALIASES = {"requires_approval": "require_approval"}
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_SECOND_US = 1_000_000
_EMPTY: Mapping[str, object] = {}

_T = TypeVar("_T")


class PolicyError(ValueError):
    """A policy has a value that can't be used. The message begins with its key.

    Attributes:
        column: 1-based position in the text that is the value, where it is an expression.
    """

    def __init__(self, key: str, why: str, column: int | None = None) -> None:
        super().__init__(f"{key}: {why}")
        self.column: int | None = column


def policy_from_manifest(obj: Mapping[str, object], order: int, *, namespace: str = "") -> Policy:
    """Make a policy of its manifest form.

    Args:
        obj: has passed the manifest's model: names and types are right. A key that is None counts as left out.
        order: position in the file order of its atlas.
        namespace: the atlas id. It goes into the limit's id, so that limits of one name in two atlases count apart.

    Raises:
        PolicyError: a value can't be used. The message begins with its key.
    """
    policy_id = cast("str", obj["policy_id"])
    if policy_id in RESERVED_IDS:
        raise _refusal("policy_id", f"{policy_id!r} is what a decision is named that no policy made")
    kind = _policy_type(cast("str", obj["type"]))
    disclose = _get(obj, "disclose", True)
    if not disclose and kind != "deny":
        raise _refusal("disclose", "only a deny policy can hide the action it is about")
    parameters = _get(obj, "parameters", _EMPTY)
    counter_id = f"{namespace}/{policy_id}" if namespace else policy_id
    return Policy(
        policy_id=policy_id,
        type=kind,
        actions=_strings(obj, "actions") or ("*",),
        reason=_reason(obj, parameters),
        disclose=disclose,
        priority=_get(obj, "priority", 0),
        conditions=conditions_from_manifest(_get(obj, "conditions", _EMPTY)),
        limit=_limit(kind, parameters, counter_id),
        order=order,
        min_evidence=_min_evidence(kind, parameters),
        when=_expression(obj, "when", "when"),
        budget=_budget(kind, parameters, counter_id),
    )


def conditions_from_manifest(obj: Mapping[str, object]) -> Conditions:
    """Make conditions of their manifest form, which has passed the manifest's model.

    A list that is there but empty is refused: it could mean "none" or "any".

    Raises:
        ValueError: a value can't be used. The message begins with its key.
    """
    matches = _get(obj, "context_matches", cast("Mapping[str, str] | None", None))
    if matches is not None and not matches:
        raise _empty("context_matches")
    window = _get(obj, "time_window", cast("Mapping[str, object] | None", None))
    schema = _get(obj, "arguments", cast("Mapping[str, object] | None", None))
    if schema is not None and not schema:
        raise _empty("arguments")
    return Conditions(
        risk_tiers=frozenset(_one_of("risk_tiers", tier, tuple(RiskTier)) for tier in _strings(obj, "risk_tiers")),
        agents=_strings(obj, "agents"),
        capabilities=frozenset(_strings(obj, "capabilities")),
        context_matches=tuple((matches or {}).items()),
        time_window=None if window is None else _time_window(window),
        principals=_strings(obj, "principals"),
        roles=frozenset(_strings(obj, "roles")),
        arguments="" if schema is None else canonical_bytes(schema).decode(),
    )


def default_effect(policies: Sequence[Policy], override: str | None = None) -> Literal["allow", "deny"]:
    """Return what holds where no policy decides: deny if some policy allows (what none names is not meant), else allow.

    ``override`` is the manifest's own ``default_effect``, if it has one.
    """
    if override is not None:
        return "allow" if override == "allow" else "deny"
    return "deny" if any(policy.type == "allow" for policy in policies) else "allow"


def canonical_form(policies: Sequence[Policy], default: str, overlays: Sequence[Layer] = ()) -> dict[str, object]:
    """Return everything that bears on decisions as plain JSON, in file order; digested, it names a set of policies."""
    form: dict[str, object] = {
        "default_effect": default,
        "policies": [
            {
                "policy_id": policy.policy_id,
                "type": policy.type,
                "actions": list(policy.actions),
                "reason": policy.reason,
                "disclose": policy.disclose,
                "priority": policy.priority,
                "conditions": _canonical_conditions(policy.conditions),
                "limit": None if policy.limit is None else _canonical_limit(policy.limit),
                # Younger than the others: left out where empty, so that policies without them keep their digest.
                **({} if policy.min_evidence is None else {"min_evidence": policy.min_evidence}),
                **({} if policy.when is None else {"when": policy.when.text}),
                **({} if policy.budget is None else {"budget": _canonical_budget(policy.budget)}),
            }
            for policy in policies
        ],
    }
    if overlays:
        form["overlays"] = [
            {"overlay_id": layer.overlay_id, **canonical_form(layer.policies, layer.default_effect)}
            for layer in overlays
        ]
    return form


def _canonical_conditions(conditions: Conditions) -> dict[str, object]:
    window = conditions.time_window
    form: dict[str, object] = {
        "risk_tiers": sorted(str(tier) for tier in conditions.risk_tiers),
        "agents": list(conditions.agents),
        "capabilities": sorted(conditions.capabilities),
        "context_matches": dict(conditions.context_matches),
        "time_window": None
        if window is None
        else {"start": window.start, "end": window.end, "timezone": window.timezone, "days": sorted(window.days)},
    }
    # Younger, too.
    if conditions.principals:
        form["principals"] = list(conditions.principals)
    if conditions.roles:
        form["roles"] = sorted(conditions.roles)
    if conditions.arguments:
        form["arguments"] = conditions.arguments
    return form


def _canonical_limit(limit: Limit) -> dict[str, object]:
    return {
        "limit_id": limit.limit_id,
        "max_calls": limit.max_calls,
        "window_us": limit.window_us,
        "scope": limit.scope,
    }


def _canonical_budget(budget: Budget) -> dict[str, object]:
    return {
        "budget_id": budget.budget_id,
        "max_cost": budget.max_cost,
        "window_us": budget.window_us,
        "unit": budget.unit,
        "scope": budget.scope,
        "cost": None if budget.cost is None else budget.cost.text,
        "reserve": budget.reserve,
    }


def _policy_type(name: str) -> PolicyType:
    return _one_of("type", _ALIASES.get(name, name), get_args(PolicyType))


def _reason(obj: Mapping[str, object], parameters: Mapping[str, object]) -> str:
    reason, other = _get(obj, "reason", ""), _get(parameters, "reason", "")
    if reason and other and reason != other:
        raise _refusal("parameters.reason", "differs from reason: give one of them")
    return reason or other


def _limit(kind: PolicyType, parameters: Mapping[str, object], limit_id: str) -> Limit | None:
    if kind != "rate_limit":
        _refuse_given(parameters, ("max_calls",), "only a rate_limit policy has one")
        if kind != "budget":
            _refuse_given(parameters, ("window_seconds", "scope"), "only a rate_limit or budget policy has one")
        return None
    return Limit(
        limit_id=limit_id,
        max_calls=_positive(parameters, "max_calls"),
        window_us=_positive(parameters, "window_seconds") * _SECOND_US,
        scope=_one_of("parameters.scope", _get(parameters, "scope", "agent"), get_args(Scope)),
    )


def _budget(kind: PolicyType, parameters: Mapping[str, object], budget_id: str) -> Budget | None:
    if kind != "budget":
        _refuse_given(parameters, ("max_cost", "unit", "cost", "reserve"), "only a budget policy has one")
        return None
    unit = _get(parameters, "unit", "calls")
    cost = _expression(parameters, "cost", "cost", within="parameters.")
    if cost is not None and unit == "calls":
        raise _refusal("parameters.cost", "a call is one call: name another unit, or leave cost out")
    settles = cost is not None and cost.reads("result")
    if settles != (parameters.get("reserve") is not None):
        raise _refusal(
            "parameters.cost" if settles else "parameters.reserve",
            "what the result tells is not known before: reserve must say how much to hold until then"
            if settles
            else "goes with a cost that reads the result, and no other",
        )
    return Budget(
        budget_id=budget_id,
        max_cost=_cost(parameters, "max_cost"),
        window_us=_positive(parameters, "window_seconds") * _SECOND_US,
        unit=unit,
        scope=_one_of("parameters.scope", _get(parameters, "scope", "agent"), get_args(Scope)),
        cost=cost,
        reserve=_cost(parameters, "reserve") if settles else None,
    )


def _cost(parameters: Mapping[str, object], key: str) -> int:
    amount = to_micro(parameters.get(key))
    if amount is None:
        raise _refusal(f"parameters.{key}", "must be a number from 0 to 1000000000")
    return amount


def _expression(obj: Mapping[str, object], key: str, kind: Kind, *, within: str = "") -> Expression | None:
    text = _get(obj, key, cast("str | None", None))
    if text is None:
        return None
    try:
        return parse_expression(text, kind)
    except ExpressionError as error:
        raise PolicyError(within + key, error.message, error.column) from error


def _refuse_given(parameters: Mapping[str, object], keys: tuple[str, ...], why: str) -> None:
    for key in keys:
        if parameters.get(key) is not None:
            raise _refusal(f"parameters.{key}", why)


def _min_evidence(kind: PolicyType, parameters: Mapping[str, object]) -> str | None:
    grade = _get(parameters, "min_evidence", cast("str | None", None))
    if grade is None:
        return None
    if kind != "require_approval":
        raise _refusal("parameters.min_evidence", "only a require_approval policy asks for evidence")
    return _one_of("parameters.min_evidence", grade, EVIDENCE)


def _positive(parameters: Mapping[str, object], key: str) -> int:
    value = parameters.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refusal(f"parameters.{key}", "a rate_limit or budget policy needs a whole number of at least 1")
    return value


def _time_window(obj: Mapping[str, object]) -> TimeWindow:
    zone = _get(obj, "timezone", "UTC")
    try:
        load_zone(zone)
    except ValueError as error:
        raise _refusal("time_window.timezone", str(error)) from error
    days = (_one_of("time_window.days", day, DAYS) for day in _strings(obj, "days", within="time_window."))
    return TimeWindow(
        start=_minute(obj, "start"),
        end=_minute(obj, "end"),
        timezone=zone,
        days=frozenset(DAYS.index(day) for day in days),
    )


def _minute(obj: Mapping[str, object], key: Literal["start", "end"]) -> int:
    """Read HH:MM as minutes after midnight. Only an end may be 24:00."""
    text = cast("str", obj[key])
    if key == "end" and text == "24:00":
        return 1_440
    found = _TIME_OF_DAY.fullmatch(text)
    if found is None:
        raise _refusal(f"time_window.{key}", f"{text!r} is not a time of day such as '09:30'")
    return int(found[1]) * 60 + int(found[2])


def _strings(obj: Mapping[str, object], key: str, *, within: str = "") -> tuple[str, ...]:
    values = obj.get(key)
    if values is None:
        return ()
    if not values:
        raise _empty(within + key)
    return tuple(cast("Sequence[str]", values))


def _one_of(key: str, value: str, allowed: tuple[_T, ...]) -> _T:
    for candidate in allowed:
        if candidate == value:
            return candidate
    raise _refusal(key, f"{value!r} is not one of {', '.join(str(candidate) for candidate in allowed)}")


def _get(obj: Mapping[str, object], key: str, default: _T) -> _T:
    value = obj.get(key)
    return default if value is None else cast("_T", value)


def _empty(key: str) -> PolicyError:
    return _refusal(key, "is empty: leave it out, or name something")


def _refusal(key: str, why: str) -> PolicyError:
    return PolicyError(key, why)
