"""Requests worth trying: values on both sides of what policies and schemas distinguish.

Rule: deterministic. For every condition that can be read off its text there is a value that meets it and one that doesn't, plain
regular expressions included (``patterns``); of arithmetic there is not, and nothing is claimed for it.
Source: specs/policy.md, "Comparing".
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from cra_mcp.analysis import patterns
from cra_mcp.policy.expression import Expression
from cra_mcp.policy.model import MICRO, ActionFacts, Policy, TimeWindow
from cra_mcp.policy.windows import Schedule

BASE_US: Final = 1_767_614_400_000_000
"""2026-01-05T12:00:00Z, a Monday."""

OTHER: Final = "somebody-else"
_HOUR_US = 3_600_000_000
_WEEK_US = 168 * _HOUR_US
_LITERAL = re.compile(r"""'([^'\\\n]*)'|"([^"\\\n]*)"|(?<![\w.])([0-9]+(?:\.[0-9]+)?)""")
_MAX_EACH = 24
_MAX_CALLS = 200
_MAX_SAMPLES = 4
_NONE: Mapping[str, object] = {}

Path = tuple[str, ...]


def texts_for(globs: Iterable[str], usual: str) -> list[str]:
    """A usual text, one of somebody else, and two that match each glob."""
    found = {usual: None, OTHER: None}
    for glob in globs:
        found.update({glob.replace("*", ""): None, glob.replace("*", "x"): None})
    return [text for text in found if text][:_MAX_EACH]


def literals(expressions: Iterable[Expression]) -> list[object]:
    """The texts and numbers that are written out in expressions, and texts that their regular expressions tell apart."""
    found: list[object] = []
    for expression in expressions:
        for literal, _ in expression.patterns:
            found += patterns.texts_of(_unquoted(literal))
        for one, other, number in _LITERAL.findall(expression.text):
            found.append(json.loads(number) if number else one or other)
    return found


def _unquoted(literal: str) -> str:
    """A string of an expression, as far as regular expressions are written: raw, or with backslashes doubled."""
    quote = 3 if literal.lstrip("rRbB")[1:3] in {'""', "''"} else 1
    inside = literal.lstrip("rRbB")[quote:-quote]
    return inside if literal[0] in "rR" else inside.replace("\\\\", "\\")


def instants(policies: Iterable[Policy]) -> list[int]:
    """A Monday noon, both sides of every boundary in the week after it, and every hour of a day where the clock is read."""
    found = {BASE_US: None}
    for policy in policies:
        if policy.conditions.time_window is not None:
            found.update(dict.fromkeys(_boundaries(policy.conditions.time_window)))
        if policy.when is not None and "now" in policy.when.fields:
            found.update({BASE_US + hour * _HOUR_US: None for hour in range(24)})
    return list(found)[: 4 * _MAX_EACH]


def _boundaries(window: TimeWindow) -> Iterator[int]:
    schedule, at = Schedule(window), BASE_US
    while (change := schedule.next_change(at)) is not None and change < BASE_US + _WEEK_US:
        yield from (change, change - 1)
        at = change


def contexts(policies: Sequence[Policy]) -> list[dict[str, object]]:
    """None; and for each key that is read, values that match, one that doesn't, and all keys met at once."""
    values: dict[str, list[object]] = {}
    for policy in policies:
        for key, glob in policy.conditions.context_matches:
            values.setdefault(key, []).extend([glob.replace("*", ""), glob.replace("*", "x")])
        if policy.when is not None:
            for reference in policy.when.references:
                if reference.root == "context" and reference.path:
                    values.setdefault(reference.path[0], []).extend(around(literals([policy.when])))
    every: list[dict[str, object]] = [{}]
    if values:
        met: dict[str, object] = {key: held[0] for key, held in values.items() if held}
        unmet: dict[str, object] = {key: OTHER for key, _ in values.items()}
        every += [met, unmet]
    for key, held in values.items():
        every += [{key: value} for value in [*held[:_MAX_EACH], OTHER]]
    return every


def around(found: Iterable[object]) -> list[object]:
    """Literals, and what lies just beside them."""
    values: list[object] = []
    for literal in found:
        values.append(literal)
        if isinstance(literal, str):
            values.append(f"{literal}x")
        elif isinstance(literal, int | float):
            values += [literal - 1, literal + 1, literal + 0.5]
    return values


def arguments(
    actions: Sequence[ActionFacts], policies: Sequence[Policy], samples: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Samples, the least that the schemas ask for, and these with one member changed to each value that makes a difference."""
    values: dict[Path, list[object]] = {}
    for action in actions:
        _from_schema(action.parameters, (), values)
    for policy in policies:
        if policy.conditions.arguments:
            _from_schema(cast("Mapping[str, object]", json.loads(policy.conditions.arguments)), (), values)
        costs = [policy.budget.cost] if policy.budget is not None and policy.budget.cost is not None else []
        for expression in [*costs, *([policy.when] if policy.when is not None else [])]:
            for reference in expression.references:
                if reference.root == "args" and reference.path:
                    values.setdefault(reference.path, []).extend([*around(literals([expression])), True, False])
    bases = [*map(dict, samples[:_MAX_SAMPLES]), *(_least(action.parameters) for action in actions)]
    every = [base for at, base in enumerate(bases) if base not in bases[:at]]
    for base in tuple(every):
        for path, held in values.items():
            every += [_with(base, path, value) for value in held[: 4 * _MAX_EACH]]
            every.append(_without(base, path))
    return every


def _from_schema(schema: object, path: Path, values: dict[Path, list[object]]) -> None:
    if not isinstance(schema, dict):
        return
    known = cast("dict[str, object]", schema)
    if path:
        held = values.setdefault(path, [])
        for key in ("enum", "examples"):
            held += cast("list[object]", known[key]) if isinstance(known.get(key), list) else []
        held += [known[key] for key in ("const", "default") if key in known]
        numbers = (known.get(key) for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
        held += around(each for each in numbers if isinstance(each, int | float))
        lengths = (known.get(key) for key in ("minLength", "maxLength"))
        held += [
            "x" * max(0, each + more)
            for each in lengths
            if isinstance(each, int) and each < _MAX_CALLS
            for more in (-1, 0, 1)
        ]
        pattern = known.get("pattern")
        held += patterns.texts_of(pattern) if isinstance(pattern, str) else []
        kinds = known.get("type")
        each_alone = (
            [{**known, "type": kind} for kind in cast("list[object]", kinds)] if isinstance(kinds, list) else [known]
        )
        held += map(_sample, each_alone)
    members = known.get("properties")
    if isinstance(members, dict):
        for name, member in cast("dict[str, object]", members).items():
            _from_schema(member, (*path, name), values)


def _least(schema: Mapping[str, object]) -> dict[str, object]:
    members = schema.get("properties")
    known = cast("Mapping[str, object]", members) if isinstance(members, dict) else _NONE
    required = schema.get("required")
    names = cast("list[str]", required) if isinstance(required, list) else []
    return {name: _sample(known.get(name)) for name in names}


def _sample(schema: object) -> object:
    known = cast("Mapping[str, object]", schema) if isinstance(schema, dict) else _NONE
    for key in ("const", "default"):
        if key in known:
            return known[key]
    for key in ("enum", "examples"):
        held = known.get(key)
        if isinstance(held, list) and held:
            return cast("list[object]", held)[0]
    kind, least = known.get("type"), known.get("minimum", 0)
    if isinstance(kind, list):
        kind = next(iter(cast("list[object]", kind)), None)
    length, pattern = known.get("minLength", 1), known.get("pattern")
    length = length if isinstance(length, int) else 1
    fitting = patterns.matching_texts(pattern) if isinstance(pattern, str) else []
    text = next((each for each in fitting if len(each) >= length), "x" * length)
    plain: dict[object, object] = {
        "integer": least, "number": least, "boolean": False, "array": [], "null": None,
        "string": text,
    }  # fmt: skip
    return _least(known) if kind == "object" else plain.get(kind, text)


def _with(base: Mapping[str, object], path: Path, value: object) -> dict[str, object]:
    changed = dict(base)
    inner = changed.get(path[0])
    below = cast("dict[str, object]", inner) if isinstance(inner, dict) else {}
    changed[path[0]] = value if len(path) == 1 else _with(below, path[1:], value)
    return changed


def _without(base: Mapping[str, object], path: Path) -> dict[str, object]:
    return {name: value for name, value in base.items() if name != path[0]}


def histories(policies: Iterable[Policy]) -> list[tuple[int, int]]:
    """How many calls went before, and how many microseconds: about as many as limits admit, about as long as they count."""
    found: dict[tuple[int, int], None] = {(0, 0): None}
    for policy in policies:
        limit, budget = policy.limit, policy.budget
        if limit is not None:
            sizes, window_us = {limit.max_calls - 1, limit.max_calls}, limit.window_us
        elif budget is not None:
            sizes, window_us = {1, 2, 3, budget.max_cost // MICRO - 1, budget.max_cost // MICRO}, budget.window_us
        else:
            continue
        for size in sorted(each for each in sizes if 0 < each <= _MAX_CALLS):
            found.update({(size, gap): None for gap in (0, window_us - 1, window_us)})
    return list(found)[:_MAX_EACH]
