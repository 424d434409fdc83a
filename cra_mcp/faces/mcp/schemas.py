"""Schemas as hosts can take them.

Rule: what a host gets may be looser than the atlas's schema, never stricter: the full schema is checked when the call arrives.
Hosts choke on combinators and references at the root, boolean subschemas, and keywords of our own; one bad schema can hide
every tool of a server.
"""

from collections.abc import Mapping
from typing import Any, cast

_ROOT_ONLY = frozenset(
    {"$schema", "$id", "$comment", "$anchor", "$dynamicAnchor", "$vocabulary", "definitions", "$defs"}
)
_COMBINATORS = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "unevaluatedProperties"}
)
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas"})
_SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"})
_MAX_DEPTH = 24


def portable(schema: Mapping[str, object]) -> dict[str, Any]:
    """An object schema without references, root combinators, boolean subschemas or keywords of our own."""
    body = _rewrite(schema, schema, (), 0)
    for keyword in _COMBINATORS & body.keys():
        del body[keyword]
    body["type"] = "object"
    body.setdefault("properties", {})
    required = body.get("required")
    if isinstance(required, list):
        # A host that sees a required name without a property drops the tool.
        body["required"] = [name for name in cast("list[str]", required) if name in body["properties"]]
    return body


def _rewrite(
    node: Mapping[str, object], root: Mapping[str, object], open_references: tuple[str, ...], depth: int
) -> dict[str, Any]:
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = _resolve(reference, root)
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        if reference in open_references or target is None or depth > _MAX_DEPTH:
            # A recursive shape has no finite expansion: anything goes here, and the full schema decides.
            return _rewrite(siblings, root, open_references, depth + 1) if siblings and depth <= _MAX_DEPTH else {}
        return _rewrite({**target, **siblings}, root, (*open_references, reference), depth + 1)
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key in _ROOT_ONLY or key.startswith("x-"):
            continue
        result[key] = _rewrite_keyword(key, value, root, open_references, depth)
    return result


def _rewrite_keyword(
    key: str, value: object, root: Mapping[str, object], open_references: tuple[str, ...], depth: int
) -> object:
    def inner(schema: object) -> object:
        if isinstance(schema, Mapping) and depth <= _MAX_DEPTH:
            return _rewrite(cast("Mapping[str, object]", schema), root, open_references, depth + 1)
        return {"not": {}} if schema is False else {}

    if key in _SCHEMA_MAPS and isinstance(value, Mapping):
        return {name: inner(schema) for name, schema in cast("Mapping[str, object]", value).items()}
    if key in _SCHEMA_LISTS and isinstance(value, list):
        return [inner(schema) for schema in cast("list[object]", value)]
    if key in _SCHEMAS and not (key == "additionalProperties" and isinstance(value, bool)):
        return inner(value)
    return value


def _resolve(reference: str, root: Mapping[str, object]) -> Mapping[str, object] | None:
    node = root
    for token in reference.removeprefix("#").split("/")[1:]:
        found = node.get(token.replace("~1", "/").replace("~0", "~"))
        if not isinstance(found, Mapping):
            return None
        node = cast("Mapping[str, object]", found)
    return node
