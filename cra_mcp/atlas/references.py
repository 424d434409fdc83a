"""Where the references inside a schema lead.

Source: JSON Schema 2020-12 (core, section 8.2).
"""

from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import unquote

from cra_mcp.atlas.json_pointer import steps_of

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_ONE = frozenset(
    {
        *("additionalProperties", "unevaluatedProperties", "propertyNames", "items", "contains", "unevaluatedItems"),
        *("not", "if", "then", "else", "contentSchema"),
    }
)


def resolve(
    reference: str, root: Mapping[str, object]
) -> tuple[tuple[str | int, ...], Mapping[str, object] | bool] | None:
    """Where a local reference leads, and the schema there; None if that is nowhere."""
    fragment = unquote(reference.partition("#")[2])
    if fragment and not fragment.startswith("/"):
        return _anchored(fragment, root)
    node: object = root
    steps: list[str | int] = []
    for step in steps_of(fragment):
        if isinstance(node, dict) and step in node:
            node = cast("Mapping[str, object]", node)[step]
            steps.append(step)
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(cast("list[object]", node)):
            node = cast("list[object]", node)[int(step)]
            steps.append(int(step))
        else:
            return None
    return (tuple(steps), cast("Mapping[str, object] | bool", node)) if isinstance(node, dict | bool) else None


def _anchored(name: str, root: Mapping[str, object]) -> tuple[tuple[str | int, ...], Mapping[str, object]] | None:
    pending: list[tuple[tuple[str | int, ...], object]] = [((), root)]
    while pending:
        at, node = pending.pop()
        if isinstance(node, dict):
            members = cast("dict[str, object]", node)
            if name in (members.get("$anchor"), members.get("$dynamicAnchor")):
                return at, members
            pending.extend(((*at, *below), each) for below, each in _subschemas(members))
    return None


def _subschemas(node: Mapping[str, object]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    for keyword, value in node.items():
        if keyword in _MAPS and isinstance(value, dict):
            yield from (((keyword, name), each) for name, each in cast("dict[str, object]", value).items())
        elif keyword in _MANY and isinstance(value, list):
            yield from (((keyword, index), each) for index, each in enumerate(cast("list[object]", value)))
        elif keyword in _ONE:
            yield (keyword,), value
