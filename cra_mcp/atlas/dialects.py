"""Older JSON Schemas, read as 2020-12.

Rule: a translation accepts exactly what the schema accepts in its own dialect, so that what policy, validation and hosts see is one
schema. A schema that names no dialect is 2020-12; only what has no meaning there is taken for what it meant before.
Source: JSON Schema drafts 4, 6, 7, 2019-09 and 2020-12, and their release notes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import unquote, urljoin

from cra_mcp.atlas.json_pointer import pointer, steps_of

_DIALECTS: Final = {
    "json-schema.org/draft-04/schema": 4,
    "json-schema.org/draft-06/schema": 6,
    "json-schema.org/draft-07/schema": 7,
    "json-schema.org/draft/2019-09/schema": 2019,
}
_UNDECLARED = 0
_REF_STANDS_ALONE = 7
"""The last draft that ignores what stands beside a reference."""

_SINCE_2019 = frozenset(
    {
        *("prefixItems", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
        *(
            "minContains",
            "maxContains",
            "$anchor",
            "$dynamicRef",
            "$dynamicAnchor",
            "$recursiveRef",
            "$recursiveAnchor",
        ),
    }
)
_UNKNOWN: Mapping[int, frozenset[str]] = {
    4: _SINCE_2019 | {"if", "then", "else", "const", "contains", "propertyNames"},
    6: _SINCE_2019 | {"if", "then", "else"},
    7: _SINCE_2019,
    2019: frozenset({"prefixItems", "$dynamicRef", "$dynamicAnchor", "dependencies"}),
    _UNDECLARED: frozenset(),
}
_BESIDE_REF = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "definitions", "$defs"}
)
_ONE = frozenset(
    {
        *("additionalProperties", "unevaluatedProperties", "propertyNames", "items", "additionalItems", "contains"),
        *("unevaluatedItems", "not", "if", "then", "else", "contentSchema"),
    }
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "items", "prefixItems"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})

_At = tuple[str, ...]


@dataclass(slots=True)
class Translation:
    """A schema in 2020-12.

    Attributes:
        schema: the very schema if there was nothing to translate.
        dropped: what its own dialect ignores and 2020-12 wouldn't, by pointer into the original.
        is_changed: something was written otherwise.
    """

    schema: Mapping[str, object]
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    is_changed: bool = False
    origins: dict[_At, _At] = field(default_factory=dict[_At, _At])

    def origin(self, at: str) -> str:
        """Where in the original something stands that stands ``at`` in the translation (RFC 6901 both)."""
        return pointer(*_moved(steps_of(at), self.origins))


def translate(schema: Mapping[str, object]) -> Translation:
    """The schema in 2020-12. What no dialect allows is left as it is, for the check that follows."""
    named = schema.get("$schema")
    dialect = _UNDECLARED
    if isinstance(named, str):
        known = _DIALECTS.get(named.removesuffix("#").removeprefix("http://").removeprefix("https://"))
        if known is None:
            return Translation(schema)
        dialect = known
    elif not _is_old(schema):
        return Translation(schema)
    return _Translator(schema, dialect).result


def _is_old(node: object) -> bool:
    """Whether anything in it is from before 2020-12. May say so of a mere name; then nothing comes of it."""
    if isinstance(node, dict):
        members = cast("dict[str, object]", node)
        if "dependencies" in members or isinstance(members.get("items"), list):
            return True
        if any(isinstance(members.get(each), bool) for each in ("exclusiveMinimum", "exclusiveMaximum")):
            return True
        return any(_is_old(each) for each in members.values())
    return isinstance(node, list) and any(_is_old(each) for each in cast("list[object]", node))


class _Translator:
    """Writes the schema anew, then leads its references to where their targets have gone."""

    def __init__(self, schema: Mapping[str, object], dialect: int) -> None:
        self.result = Translation(schema, is_changed=True)
        self._dialect = dialect
        self._moves: dict[_At, _At] = {}
        self._resources: dict[str, _At] = {}
        self._references: list[tuple[dict[str, object], str, str, _At]] = []
        self.result.schema = self._node(schema, (), (), ("", ()))
        for node, keyword, base, root in self._references:
            node["$ref"] = self._led(str(node.pop(keyword)), base, root)
        self.result.origins = {new: old for old, new in self._moves.items()}

    def _node(self, node: Mapping[str, object], old: _At, new: _At, base: tuple[str, _At]) -> dict[str, object]:
        self._moves[old] = new
        known = self._known(node, old)
        base = self._identified(known, old, base)
        result: dict[str, object] = {}

        def inner(schema: object, at: _At, to: _At) -> object:
            if not isinstance(schema, dict):
                self._moves[(*old, *at)] = (*new, *to)
                return schema
            return self._node(cast("dict[str, object]", schema), (*old, *at), (*new, *to), base)

        for keyword, value in known.items():
            result |= self._keyword(known, keyword, value, inner)
        for keyword in ("$ref", "$recursiveRef"):
            if isinstance(result.get(keyword), str):
                self._references.append((result, keyword, *base))
        return result

    def _known(self, node: Mapping[str, object], old: _At) -> dict[str, object]:
        """What its dialect gives a meaning to."""
        kept = {key: value for key, value in node.items() if key not in _UNKNOWN[self._dialect] and key != "$schema"}
        if _UNDECLARED < self._dialect <= _REF_STANDS_ALONE and isinstance(node.get("$ref"), str):
            beside = _BESIDE_REF | ({"$ref"} if old else {"$ref", "type"})
            kept = {key: value for key, value in kept.items() if key in beside}
        for key in node.keys() - kept.keys() - {"$schema", "$comment", "$id", "id"}:
            self.result.dropped[pointer(*old, key)] = "has no effect in the dialect that the schema names"
        return kept

    def _identified(self, node: dict[str, object], old: _At, base: tuple[str, _At]) -> tuple[str, _At]:
        """The base of references in a schema. Without identifiers, all of them lead from the root."""
        keyword = "id" if self._dialect == min(_DIALECTS.values()) else "$id"
        name = node.get(keyword)
        if self._dialect == _UNDECLARED or not isinstance(name, str):
            return base
        del node[keyword]
        if name.startswith("#"):
            if len(name) > 1:
                node["$anchor"] = name[1:]
            return base
        uri = _joined(base[0], name.removesuffix("#"))
        self._resources[uri] = old
        return uri, old

    def _keyword(
        self, node: Mapping[str, object], keyword: str, value: object, inner: Callable[[object, _At, _At], object]
    ) -> dict[str, object]:
        match keyword:
            case _ if _is_void(node, keyword):
                return {}
            case "items" if isinstance(value, list):
                each = enumerate(cast("list[object]", value))
                return {"prefixItems": [inner(item, ("items", str(at)), ("prefixItems", str(at))) for at, item in each]}
            case "additionalItems":
                return {"items": inner(value, (keyword,), ("items",))}
            case "dependencies" if isinstance(value, dict):
                return _dependencies(node, cast("dict[str, object]", value), inner)
            case "exclusiveMinimum" | "exclusiveMaximum" if isinstance(value, bool):
                return {keyword: node[keyword.replace("exclusiveM", "m")]}
            case _:
                return {keyword: _within(keyword, value, inner)}

    def _led(self, reference: str, base: str, root: _At) -> str:
        name, _, fragment = reference.partition("#")
        if name:
            found = self._resources.get(_joined(base, name))
            if found is None:
                return reference
            root = found
        if fragment and not fragment.startswith("/"):
            return f"#{fragment}"
        return "#" + pointer(*_moved((*root, *steps_of(unquote(fragment))), self._moves)).replace("%", "%25")


def _is_void(node: Mapping[str, object], keyword: str) -> bool:
    """Whether a keyword says nothing here, or what the keyword beside it says too."""
    match keyword:
        case "items":
            return node["items"] == []
        case "additionalItems":
            return not isinstance(node.get("items"), list)
        case "exclusiveMinimum" | "exclusiveMaximum":
            return node[keyword] is False or (node[keyword] is True and keyword.replace("exclusiveM", "m") not in node)
        case "minimum" | "maximum":
            return node.get(f"exclusive{keyword.capitalize()}") is True
        case _:
            return keyword == "$recursiveAnchor"


def _within(keyword: str, value: object, inner: Callable[[object, _At, _At], object]) -> object:
    """The value of a keyword that keeps its name."""
    if keyword in _MAPS and isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {name: inner(each, (keyword, name), (keyword, name)) for name, each in members.items()}
    if keyword in _MANY and isinstance(value, list):
        return [
            inner(each, (keyword, str(index)), (keyword, str(index)))
            for index, each in enumerate(cast("list[object]", value))
        ]
    return inner(value, (keyword,), (keyword,)) if keyword in _ONE else value


def _dependencies(
    node: Mapping[str, object], value: dict[str, object], inner: Callable[[object, _At, _At], object]
) -> dict[str, object]:
    names: dict[str, object] = {}
    schemas: dict[str, object] = {}
    for name, each in value.items():
        if isinstance(each, list):
            names[name] = each
        else:
            schemas[name] = inner(each, ("dependencies", name), ("dependentSchemas", name))
    result: dict[str, object] = {}
    if names:
        result["dependentRequired"] = names
    if schemas:
        result["dependentSchemas"] = schemas
    if result.keys() & node.keys():
        return {"dependencies": value}
    return result


def _moved(tokens: _At, moves: Mapping[_At, _At]) -> _At:
    """The place of something, by the nearest schema around it that has moved."""
    for length in range(len(tokens), -1, -1):
        to = moves.get(tokens[:length])
        if to is not None:
            return (*to, *tokens[length:])
    return tokens


def _joined(base: str, name: str) -> str:
    try:
        return urljoin(base, name)
    except ValueError:
        return name
