"""Conditions that can't hold as they are written: what no action takes, no number is, nobody is called.

Rule: a finding is certain, for every action the policy is about. Source: specs/policy.md, "Linting".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from cra_mcp.analysis.findings import Finding, found
from cra_mcp.analysis.subject import Written
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.model import Action
from cra_mcp.atlas.schema_graph import Graph
from cra_mcp.policy.calls import cost_of
from cra_mcp.policy.model import Policy
from cra_mcp.schema_check import compile_schema

_ARGUMENTS = "/conditions/arguments"
_RANGES = (
    *(("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")),
    *(("minProperties", "maxProperties"), ("minContains", "maxContains")),
)
_BOUNDS = (("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"))
_REFERENCES = frozenset({"$ref", "$dynamicRef"})

Object = Mapping[str, object]


def lint_conditions(policy: Policy, where: Written, actions: Sequence[Action]) -> Iterator[Finding]:
    """Everything wrong with a policy's conditions on arguments and names, and with its budget; ``actions`` it is about."""
    for name, globs in (("agents", policy.conditions.agents), ("principals", policy.conditions.principals)):
        for at, glob in enumerate(globs):
            if "," in glob:
                message = "has a comma, which a glob takes for itself: write one glob an item"
                yield found("comma_in_glob", where, f"/conditions/{name}/{at}", message)
    if policy.conditions.arguments:
        schema = cast("Object", json.loads(policy.conditions.arguments))
        yield from _ranges(schema, where)
        if actions:
            yield from _arguments(schema, where, [action.parameters_schema for action in actions])
    yield from _budget(policy, where, actions)


def _ranges(schema: Object, where: Written) -> Iterator[Finding]:
    for node in Graph(schema).nodes:
        for low, high in _RANGES:
            if _is_above(node.schema.get(low), node.schema.get(high)):
                message = f"no value has {low} {node.schema[low]} and {high} {node.schema[high]}"
                yield found("impossible_condition", where, _ARGUMENTS + pointer(*node.at, low), message)


def _is_above(low: object, high: object) -> bool:
    return isinstance(low, int | float) and isinstance(high, int | float) and low > high


def _arguments(schema: Object, where: Written, taken: Sequence[Object]) -> Iterator[Finding]:
    properties = cast("Object", schema.get("properties", {}))
    names = dict.fromkeys([*properties, *cast("Sequence[str]", schema.get("required", ()))])
    for name in names:
        declared = [property_of(each, name) for each in taken]
        below = _ARGUMENTS + (pointer("properties", name) if name in properties else "/required")
        if all(each is False for each in declared):
            yield found("unknown_argument", where, below, f"no action it is about takes an argument {name}")
        elif isinstance(properties.get(name), dict):
            yield from _property_findings(cast("Object", properties[name]), below, where, declared)


def property_of(schema: Object, name: str) -> Object | bool:
    """What a schema asks of an argument; True where that can't be told, False where it takes none of that name."""
    known = cast("Object", schema.get("properties", {}))
    if name in known:
        return cast("Object", known[name]) if isinstance(known[name], dict) else known[name] is not False
    return schema.get("additionalProperties") is not False or bool(schema.get("patternProperties"))


def _property_findings(
    condition: Object, below: str, where: Written, declared: Sequence[Object | bool]
) -> Iterator[Finding]:
    for keyword, values in (("enum", condition.get("enum")), ("const", [condition.get("const")])):
        for at, value in enumerate(cast("list[object]", values or ()) if keyword in condition else ()):
            if not any(can_be(each, value) for each in declared):
                place = below + (pointer(keyword, at) if keyword == "enum" else f"/{keyword}")
                yield found("impossible_condition", where, place, "no action it is about takes this value")
    for low, high in _BOUNDS:
        for keyword, other, sign in ((low, high, 1), (high, low, -1)):
            value = condition.get(keyword)
            if isinstance(value, int | float) and all(_is_beyond(each, other, value, sign) for each in declared):
                message = "no action it is about takes such a value: its own schema ends before"
                yield found("impossible_condition", where, f"{below}/{keyword}", message)


def can_be(schema: Object | bool, value: object) -> bool:
    """Whether an argument can have a value, as far as its schema alone can tell."""
    if isinstance(schema, bool):
        return schema
    if any(_REFERENCES & node.schema.keys() for node in Graph(schema).nodes):
        return True
    return compile_schema(schema).is_valid(value)


def _is_beyond(schema: Object | bool, keyword: str, value: float, sign: int) -> bool:
    """Whether a bound lies behind the opposite one of a number's schema."""
    if isinstance(schema, bool):
        return not schema
    limit = schema.get(keyword)
    numeric = schema.get("type") in {"integer", "number"}
    return numeric and isinstance(limit, int | float) and value * sign > limit * sign


def _budget(policy: Policy, where: Written, actions: Sequence[Action]) -> Iterator[Finding]:
    budget = policy.budget
    if budget is None:
        return
    if budget.reserve is not None and budget.reserve > budget.max_cost:
        message = "is more than the budget: no call is ever let through"
        yield found("unreachable_budget", where, "/parameters/reserve", message)
    elif budget.cost is None and actions:
        costs = [cost_of(budget, action.facts).amount for action in actions]
        if all(cost == 0 for cost in costs):
            yield found(
                "unreachable_budget", where, "/parameters", "no action it is about costs anything: it is never spent"
            )
        elif all(cost is not None and cost > budget.max_cost for cost in costs):
            message = "is less than any call costs: none is ever let through"
            yield found("unreachable_budget", where, "/parameters/max_cost", message)
