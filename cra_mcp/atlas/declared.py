"""Which parameters a schema declares.

Source: JSON Schema 2020-12 (core, section 10.2: what applies to the same value).
"""

from collections.abc import Iterator, Mapping
from typing import cast

from cra_mcp.atlas.references import resolve

_SAME_MANY = ("allOf", "anyOf", "oneOf")
_SAME_ONE = ("if", "then", "else", "not")


def declared_names(schema: Mapping[str, object]) -> frozenset[str]:
    """The properties that the schema, or anything in it that applies to the same object, names."""
    names: set[str] = set()
    seen: set[int] = set()
    pending: list[object] = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict) and id(cast("dict[str, object]", node)) not in seen:
            members = cast("dict[str, object]", node)
            seen.add(id(members))
            names.update(cast("Mapping[str, object]", members.get("properties", {})))
            pending.extend(_applied(members, schema))
    return frozenset(names)


def takes_undeclared(schema: Mapping[str, object]) -> bool:
    """Whether it takes properties it doesn't name, without saying so."""
    return not {"additionalProperties", "unevaluatedProperties", "patternProperties", "$ref"} & schema.keys()


def _applied(node: Mapping[str, object], root: Mapping[str, object]) -> Iterator[object]:
    for keyword in _SAME_MANY:
        yield from cast("list[object]", node.get(keyword, ()))
    for keyword in _SAME_ONE:
        yield node.get(keyword)
    yield from cast("Mapping[str, object]", node.get("dependentSchemas", {})).values()
    for keyword in ("$ref", "$dynamicRef"):
        reference = node.get(keyword)
        found = resolve(reference, root) if isinstance(reference, str) else None
        yield found[1] if found is not None else None
