"""JSON Schemas of actions: what may be one, and checking values against it.

Rule: nothing is ever fetched, no pattern can backtrack, and no schema can make checking run away. Faults name the place
in the value and the rule, never the value.
Source: JSON Schema 2020-12; specs/atlas.md, "Schemas".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import jsonschema_rs

from cra_mcp.atlas.schema_graph import MAX_SUBSCHEMAS, Graph, Node
from cra_mcp.atlas.shape import Place
from cra_mcp.canonical import canonical_bytes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 262_144
MAX_PATTERN_CHARACTERS = 1_024
MAX_PATTERN_BYTES = 1_048_576
"""Size of one compiled pattern; what bounded repetition can multiply."""

_MASK = "the value"
_MAX_FAULTS = 20
_meta: list[jsonschema_rs.Draft202012Validator] = []


def check_schema(schema: Mapping[str, object], place: Place, *, object_root: bool = False) -> None:
    """Report everything that makes ``schema`` unusable.

    Args:
        schema: any JSON object.
        place: where it stands.
        object_root: its root must say ``"type": "object"``, as parameters need it.
    """
    before = len(place.problems)
    if object_root and schema.get("type") != "object":
        place.add("invalid_schema", 'the root must have "type": "object"')
    if len(canonical_bytes(schema)) > MAX_SCHEMA_BYTES:
        place.add("schema_too_complex", f"the schema is over the limit of {MAX_SCHEMA_BYTES} bytes")
        return
    graph = Graph(schema)
    if graph.truncated:
        place.add("schema_too_complex", f"more than {MAX_SUBSCHEMAS} subschemas")
        return
    for at, message in _meta_faults(schema):
        place.below(*at).add("invalid_schema", message)
    for node in graph.nodes:
        _check_node(node, place)
    graph.link(place)
    if not graph.report_circles(place) and not graph.is_within_bounds():
        place.add("schema_too_complex", "its references multiply beyond bounds")
    if len(place.problems) == before:
        _check_build(schema, place)


def _build(schema: Mapping[str, object]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        dict(schema),
        offline=True,
        mask=_MASK,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES),
    )


def _faults(
    validator: jsonschema_rs.Draft202012Validator, value: object
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for error in validator.iter_errors(value):
        yield tuple(error.instance_path), error.message.removeprefix(f"{_MASK} ")


def _meta_faults(schema: Mapping[str, object]) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Where the schema breaks its own specification, once a place."""
    if not _meta:
        _meta.append(jsonschema_rs.Draft202012Validator({"$ref": DIALECT}, offline=True, mask=_MASK))
    if _meta[0].is_valid(schema):
        return ()
    found: dict[tuple[str | int, ...], str] = {}
    for at, message in _faults(_meta[0], schema):
        found.setdefault(at, message)
        if len(found) >= _MAX_FAULTS:
            break
    return found.items()


def _check_node(node: Node, place: Place) -> None:
    schema = node.schema
    if "$id" in schema and node.at:
        place.below(*node.at, "$id").add("invalid_schema", "only the root may have an $id")
    dialect = schema.get("$schema")
    if isinstance(dialect, str) and dialect.removesuffix("#") != DIALECT:
        place.below(*node.at, "$schema").add("unsupported_dialect", f"must be {DIALECT}, or be left out")
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        _check_pattern(pattern, place.below(*node.at, "pattern"))
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        for name in cast("dict[str, object]", patterns):
            _check_pattern(name, place.below(*node.at, "patternProperties", name))


def _check_pattern(pattern: str, place: Place) -> None:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        place.add("invalid_pattern", f"a pattern has at most {MAX_PATTERN_CHARACTERS} characters")
        return
    try:
        _build({"pattern": pattern})
    except ValueError:
        place.add(
            "invalid_pattern", "not a pattern that can be matched in linear time (no lookaround, no backreference)"
        )


def _check_build(schema: Mapping[str, object], place: Place) -> None:
    """The last word has the validator itself."""
    try:
        _build(schema)
    except ValueError:
        place.add("invalid_schema", "no validator can be made of the schema")
