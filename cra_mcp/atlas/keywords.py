"""Keywords of a schema that decides: each must be one that a validator acts on.

Rule: JSON Schema ignores what it doesn't know, so a misspelt bound is no bound. In a condition that would widen a policy, and is
refused. Names that begin with ``x-`` are notes.
Source: JSON Schema 2020-12; specs/policy.md, "Conditions".
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Final

import jsonschema_rs

from cra_mcp.atlas.schema_graph import Graph
from cra_mcp.atlas.shape import Place

_ASSERTIONS: Final = (
    *("type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains"),
    *("maxProperties", "minProperties", "required", "dependentRequired", "format"),
)
_APPLICATORS: Final = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "prefixItems", "items", "contains"),
    *("properties", "patternProperties", "additionalProperties", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_NOTES: Final = (
    *("$schema", "$id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$comment", "$defs"),
    *("definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("contentEncoding", "contentMediaType", "contentSchema"),
)
BOUNDS: Final = frozenset({*_ASSERTIONS, *_APPLICATORS})
"""Those that make a schema accept less."""
KEYWORDS: Final = frozenset({*_ASSERTIONS, *_APPLICATORS, *_NOTES})
_NOW: Mapping[str, str] = {
    "dependencies": "dependentRequired or dependentSchemas",
    "additionalItems": "items, after prefixItems",
    "divisibleBy": "multipleOf",
    "extends": "allOf",
    "disallow": "not",
    "id": "$id",
    "$recursiveRef": "$dynamicRef",
}
"""Keywords of older dialects, and what says the same now."""
_NEEDS: Mapping[str, str] = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}
_FOLDED: Mapping[str, str] = {keyword.lower(): keyword for keyword in KEYWORDS}
_LIKENESS = 0.75
_MAX_FAULTS = 20
_MAX_LENGTH = 40
"""Comparing takes time; no keyword is as long as this."""


def check_keywords(schema: Mapping[str, object], place: Place) -> None:
    """Report every keyword and format that would be ignored; ``place`` is where the schema stands."""
    faults = ((node, *fault) for node in Graph(schema).nodes for fault in _faults(node.schema))
    for node, code, keyword, message in islice(faults, _MAX_FAULTS):
        place.below(*node.at, keyword).add(code, message)


def meant_by(keyword: str) -> str | None:
    """The keyword that a misspelt one stands for, or what an old one is called now; None where none is near."""
    if keyword in _NOW:
        return _NOW[keyword]
    near = get_close_matches(keyword[:_MAX_LENGTH].lower(), _FOLDED, 1, _LIKENESS)
    return _FOLDED[near[0]] if near else None


def _unknown(keyword: str) -> str:
    meant = meant_by(keyword)
    advice = f"write {meant}" if meant else 'leave it out, or begin it with "x-" if it is a note'
    return f"is no keyword of JSON Schema 2020-12, and would be ignored: {advice}"


def _faults(schema: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    for keyword in schema:
        if keyword not in KEYWORDS and not keyword.startswith("x-"):
            yield "unknown_keyword", keyword, _unknown(keyword)
    for keyword, needed in _NEEDS.items():
        if keyword in schema and needed not in schema:
            yield "ignored_keyword", keyword, f"has no effect without {needed} beside it"
    if "if" in schema and not {"then", "else"} & schema.keys():
        yield "ignored_keyword", "if", "has no effect without then or else beside it"
    name = schema.get("format")
    if isinstance(name, str) and not _is_checked(name):
        message = 'is no format that is checked: write one of JSON Schema, such as "date-time", or a pattern'
        yield "ignored_keyword", "format", message


def _is_checked(name: str) -> bool:
    try:
        jsonschema_rs.Draft202012Validator(
            {"format": name}, offline=True, validate_formats=True, ignore_unknown_formats=False
        )
    except ValueError:
        return False
    return True
