"""Which schemas an action may have, and that checking values against them ends."""

import time

import jsonschema_rs
import pytest

from cra_mcp.atlas.json_schema import check_schema
from cra_mcp.atlas.shape import Place
from cra_mcp.errors import Problem

BASE = "/s"


def faults(schema: dict[str, object], *, object_root: bool = False) -> list[tuple[str, str]]:
    found: list[Problem] = []
    check_schema(schema, Place("f", BASE, found), object_root=object_root)
    return [(problem.pointer.removeprefix(BASE), problem.code) for problem in found]


def chain(length: int, keyword: str, last: object, **around: object) -> dict[str, object]:
    """``length`` definitions, each applying the next one twice."""
    definitions: dict[str, object] = {}
    for number in range(length):
        twice = [{"$ref": f"#/$defs/d{number + 1}"}] * 2
        definitions[f"d{number}"] = {keyword: {"anyOf": twice}} if keyword == "items" else {keyword: twice}
    return {"$defs": {**definitions, f"d{length}": last}, "$ref": "#/$defs/d0", **around}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": True, "b": False, "c": {}}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/s"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema#"},
        {"properties": {"child": {"$ref": "#"}, "children": {"items": {"$ref": "#"}}}},
        {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
        {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}},
        {"definitions": {"a b/c~d%": {}}, "$ref": "#/definitions/a%20b~1c~0d%25"},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}},
        {
            "enum": [{"$ref": "http://example.com/"}, {"pattern": "("}],
            "const": {"$ref": "#/nope"},
            "default": {"type": 5},
        },
        {"pattern": r"^[\w.-]+@\p{L}+$", "patternProperties": {"^x-": {}}},
        {"x-vendor": {"$ref": 5, "pattern": "("}},
        {"prefixItems": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"contentSchema": {}}}},
        {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
        chain(14, "allOf", {}),
    ],
)
def test_it_may_be_used(schema: dict[str, object]) -> None:
    assert faults(schema) == []


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "text"}, [("/type", "invalid_schema")]),
        ({"properties": {"a": 5}}, [("/properties/a", "invalid_schema")]),
        ({"properties": {"a": {"minimum": "1"}, "b": {"required": [1, 1]}}}, None),
        ({"$ref": "http://example.com/s"}, [("/$ref", "remote_ref")]),
        ({"$ref": "other.json#/a"}, [("/$ref", "remote_ref")]),
        ({"$ref": "file:///etc/passwd"}, [("/$ref", "remote_ref")]),
        ({"$dynamicRef": "//example.com/"}, [("/$dynamicRef", "remote_ref")]),
        ({"$id": "https://example.com/s", "$ref": "https://example.com/s#/$defs/a"}, [("/$ref", "remote_ref")]),
        ({"$ref": "#/$defs/a"}, [("/$ref", "unresolvable_ref")]),
        ({"$ref": "#nowhere"}, [("/$ref", "unresolvable_ref")]),
        ({"$ref": "#%ff"}, [("/$ref", "unresolvable_ref")]),
        ({"$ref": "#/enum/0", "enum": [{}]}, [("/$ref", "unresolvable_ref")]),
        ({"$ref": "#/x-vendor", "x-vendor": {}}, [("/$ref", "unresolvable_ref")]),
        ({"$ref": "#"}, [("", "ref_cycle")]),
        ({"allOf": [{"anyOf": [{"$ref": "#"}]}]}, [("/allOf/0/anyOf/0", "ref_cycle")]),
        ({"if": {"$ref": "#/then"}, "then": {"not": {"$ref": "#/if"}}}, None),
        ({"dependentSchemas": {"a": {"$ref": "#"}}}, [("/dependentSchemas/a", "ref_cycle")]),
        ({"$dynamicAnchor": "n", "oneOf": [{"$dynamicRef": "#n"}]}, [("/oneOf/0", "ref_cycle")]),
        ({"properties": {"a": {"$id": "urn:a"}}}, [("/properties/a/$id", "invalid_schema")]),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, [("/$schema", "unsupported_dialect")]),
        ({"items": {"$schema": "urn:mine"}}, [("/items/$schema", "unsupported_dialect")]),
        ({"pattern": "(?=a)"}, [("/pattern", "invalid_pattern")]),
        ({"pattern": r"(a)\1"}, [("/pattern", "invalid_pattern")]),
        ({"pattern": "("}, [("/pattern", "invalid_pattern")]),
        ({"pattern": "(a{1000}){1000}"}, [("/pattern", "invalid_pattern")]),
        ({"pattern": "a" * 1_025}, [("/pattern", "invalid_pattern")]),
        ({"patternProperties": {"(?!x)": {}}}, [("/patternProperties/(?!x)", "invalid_pattern")]),
        (chain(20, "allOf", {}), [("", "schema_too_complex")]),
        (chain(20, "items", {}), [("", "schema_too_complex")]),
        ({"allOf": [{}] * 2_000}, [("", "schema_too_complex")]),
        ({"enum": ["x" * 262_144]}, [("", "schema_too_complex")]),
    ],
)
def test_it_may_not_be_used(schema: dict[str, object], expected: list[tuple[str, str]] | None) -> None:
    found = faults(schema)
    assert found == expected if expected is not None else found


def test_every_fault_is_located() -> None:
    schema = {"properties": {"a": {"minimum": "1"}, "b": {"pattern": "("}, "c": {"$ref": "#/no"}}, "items": 5}
    assert sorted(faults(schema)) == [
        ("/items", "invalid_schema"),
        ("/properties/a/minimum", "invalid_schema"),
        ("/properties/b/pattern", "invalid_pattern"),
        ("/properties/c/$ref", "unresolvable_ref"),
    ]


@pytest.mark.parametrize(
    "schema", [{}, {"type": "string"}, {"type": ["object"]}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}]
)
def test_parameters_are_an_object(schema: dict[str, object]) -> None:
    assert faults(schema) == []
    assert faults(schema, object_root=True) == [("", "invalid_schema")]


@pytest.mark.parametrize("patch", [{}, {"properties": {}}, {"type": {"a": 1}}, {"allOf": 5, "items": "x", "$ref": 7}])
def test_any_json_may_stand_where_a_schema_should(patch: dict[str, object]) -> None:
    for keyword in ("properties", "$defs", "allOf", "not", "patternProperties", "prefixItems", "items"):
        for value in (None, 5, "x", True, [], [None, 5, "x", []], {}, {"a": None, "b": [], "c": 5}):
            faults({keyword: value, **patch})


def nested(depth: int) -> object:
    value: object = {"op": "nonsense"}
    for _ in range(depth):
        value = {"op": "and", "args": [value]}
    return value


FILTER = {
    "type": "object",
    "$defs": {
        "filter": {
            "anyOf": [
                {"properties": {"op": {"const": "and"}, "args": {"items": {"$ref": "#/$defs/filter"}}}},
                {"properties": {"op": {"const": "or"}, "args": {"items": {"$ref": "#/$defs/filter"}}}},
            ]
        }
    },
    "$ref": "#/$defs/filter",
}


def test_deep_values_are_told_from_valid_ones_at_once() -> None:
    assert faults(FILTER) == []
    validator = jsonschema_rs.Draft202012Validator(FILTER, offline=True)
    started = time.process_time()
    for depth in range(60):
        assert not validator.is_valid(nested(depth))
    assert time.process_time() - started < 5
