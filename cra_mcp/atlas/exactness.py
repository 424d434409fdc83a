"""Whether every host reads a part of a schema exactly as the server does.

Rule: where a schema is negated, or counted, one that is published looser would refuse more. Only an exact one may stand there.
Source: JSON Schema 2020-12 and draft-07; Ajv's behaviour where it differs, checked against it by the tests.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from cra_mcp.atlas.ecma import to_ecma
from cra_mcp.atlas.references import resolve
from cra_mcp.canonical import MAX_INTEGER

SAFE_FORMATS: Final = frozenset({"uuid", "ipv4", "ipv6"})
"""Formats of which hosts take everything that the server takes."""

INHERITED: Final = frozenset(
    {
        *(
            "constructor",
            "hasOwnProperty",
            "isPrototypeOf",
            "propertyIsEnumerable",
            "toLocaleString",
            "toString",
            "valueOf",
        ),
        *("__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__"),
    }
)
"""Names that every object of JavaScript has; validators written in it find them where they aren't."""

_INEXACT = frozenset(
    {
        *("format", "multipleOf", "uniqueItems", "prefixItems", "minContains", "maxContains", "contentSchema"),
        *("unevaluatedProperties", "unevaluatedItems", "dependentRequired", "dependentSchemas", "dependencies"),
    }
)
_MAX_DEPTH = 24
_ONE = frozenset({"additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"})
_MANY = frozenset({"allOf", "anyOf", "oneOf"})
_MAPS = frozenset({"properties", "patternProperties"})
_VALUES = frozenset({"const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


class Exactness:
    """Which subschemas of a schema are published exactly. Remembers what it has found."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._known: dict[int, bool] = {}

    def of(self, schema: object, depth: int = 0) -> bool:
        """Whether this part is; one that contains itself, or much else, is not."""
        if not isinstance(schema, dict):
            return True
        node = cast("dict[str, object]", schema)
        found = self._known.get(id(node))
        if found is None:
            self._known[id(node)] = False
            found = self._known[id(node)] = _is_plain(node) and all(
                depth < _MAX_DEPTH and self.of(each, depth + 1) for each in self._parts(node)
            )
        return found

    def _parts(self, node: Mapping[str, object]) -> Iterator[object]:
        for keyword, value in node.items():
            if keyword in _ONE:
                yield value
            elif keyword in _MANY:
                yield from cast("Iterable[object]", value)
            elif keyword in _MAPS:
                yield from cast("Mapping[str, object]", value).values()
            elif keyword in ("$ref", "$dynamicRef"):
                found = resolve(str(value), self._root)
                yield found[1] if found is not None else {"format": ""}


def _is_plain(node: Mapping[str, object]) -> bool:
    if _INEXACT & node.keys() or (("$ref" in node or "$dynamicRef" in node) and len(node) > 1):
        return False
    pattern = node.get("pattern")
    patterns = cast("Iterable[str]", node.get("patternProperties", ()))
    if any(to_ecma(each) is None for each in (*patterns, *([pattern] if isinstance(pattern, str) else []))):
        return False
    names = (*cast("Iterable[str]", node.get("properties", ())), *cast("Iterable[str]", node.get("required", ())))
    return not INHERITED.intersection(names) and not any(_is_large(node.get(keyword)) for keyword in _VALUES)


def _is_large(value: object) -> bool:
    if isinstance(value, dict):
        return any(_is_large(each) for each in cast("dict[str, object]", value).values())
    if isinstance(value, list):
        return any(_is_large(each) for each in cast("list[object]", value))
    return isinstance(value, int | float) and abs(value) > MAX_INTEGER
