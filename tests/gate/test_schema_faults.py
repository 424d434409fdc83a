"""What is wrong with arguments is found in bounded work, and is what a validator that lists everything would say."""

import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.schema_check import compile_schema, explain

_NODE = {"$ref": "#/$defs/node"}


def _folders(kind: str) -> dict[str, Any]:
    def branch(name: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"kind": {"const": name}, "children": {"type": "array", "items": _NODE}},
            "required": ["kind", "children"],
            "additionalProperties": False,
        }

    return {"$defs": {"node": {kind: [branch("folder"), branch("album")]}}, **_NODE}


def _nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"kind": "nothing", "children": []}
    for _ in range(depth):
        tree = {"kind": "folder", "children": [tree]}
    return tree


def _lists(depth: int) -> object:
    tree: object = True
    for _ in range(depth):
        tree = [tree]
    return tree


_TWICE = {"allOf": [{"properties": {"a": _NODE}}, {"properties": {"a": _NODE}}], "type": "object"}
_IN_LISTS = {"anyOf": [{"items": _NODE, "type": "array"}, {"items": _NODE, "minItems": 1}, {"type": "integer"}]}


def _objects(depth: int) -> object:
    tree: object = 1
    for _ in range(depth):
        tree = {"a": tree}
    return tree


_HOSTILE: list[tuple[Any, Any]] = [
    (_folders("oneOf"), _nested(14)),
    (_folders("oneOf"), _nested(60)),
    (_folders("anyOf"), _nested(60)),
    ({"$defs": {"node": _TWICE}, **_NODE}, _objects(100)),
    ({"$defs": {"node": _IN_LISTS | {"not": {"type": "boolean"}}}, **_NODE}, [_lists(60)]),
    ({"items": {"type": "string"}}, [[]] * 300_000),
    ({"propertyNames": {"pattern": "^x"}}, {f"k{number}": 1 for number in range(20_000)}),
    ({"required": [f"r{number}" for number in range(2_000)]}, {f"k{number}": 1 for number in range(20_000)}),
    ({"additionalProperties": False}, {f"k{number}": 1 for number in range(20_000)}),
    ({"maxLength": 3}, "x" * 4_000_000),
    ({"enum": [1]}, [[]] * 300_000),
    ({"uniqueItems": True}, [{"a": number % 50_000} for number in range(100_000)]),
]


@pytest.mark.parametrize(
    ("schema", "value"),
    _HOSTILE,
    ids=["small", "oneOf", "anyOf", "allOf", "lists", "items", "names", "required", "more", "long", "enum", "unique"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_faults_take_bounded_work_whatever_the_schema_and_the_value(schema: Any, value: Any, masked: bool) -> None:
    assert not compile_schema(schema).is_valid(value)
    began = time.process_time()
    faults = explain(schema, value, masked=masked)
    # Collecting all errors takes from seconds to years here.
    assert time.process_time() - began < 1.0
    assert 1 <= len(faults) <= 5
    assert all(len(fault.message) <= 301 for fault in faults)


def test_the_place_is_named_where_the_work_is_used_up() -> None:
    value: dict[str, Any] = {"good": [0] * 50_000, "bad": [[]] * 50_000}
    schema = {"properties": {"good": {"items": {"type": "integer"}}, "bad": {"items": {"type": "integer"}}}}
    [fault] = explain(schema, value, masked=False)
    assert (fault.pointer, fault.keyword, fault.message) == ("", "schema", "the value does not fit the schema")
    [fault] = explain(schema, {"bad": [*[0] * 20_000, "x"]}, masked=False)
    assert (fault.pointer, fault.keyword) == ("/bad", "schema")


def test_what_is_not_evaluated_is_told_by_its_keyword() -> None:
    schema = {"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}
    assert [fault.keyword for fault in explain(schema, {"b": 1}, masked=False)] == ["unevaluatedProperties"]


def test_references_are_followed_by_pointer_and_by_anchor() -> None:
    schema = {
        "$id": "https://example.com/schema",
        "properties": {"a": {"$ref": "#whole"}, "b": {"$ref": "#/$defs/b~1c"}, "c": {"$dynamicRef": "#loop"}},
        "$defs": {
            "a": {"$anchor": "whole", "type": "integer"},
            "b/c": {"type": "integer"},
            "c": {"$dynamicAnchor": "loop", "type": "integer"},
        },
    }
    faults = explain(schema, {"a": "x", "b": "x", "c": "x"}, masked=False)
    assert [(fault.pointer, fault.keyword) for fault in faults] == [("/a", "type"), ("/b", "type"), ("/c", "type")]


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "b@c.de"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3),
    max_leaves=6,
)
_LEAVES: list[Any] = [
    {"type": "integer"},
    {"type": ["string", "array"]},
    {"enum": [1, "a", [1]]},
    {"const": "a"},
    {"minimum": 1},
    {"maxLength": 1},
    {"pattern": "^a"},
    {"minItems": 2},
    {"uniqueItems": True},
    {"maxProperties": 1},
    {"required": ["a", "b"]},
    {"additionalProperties": False},
    {"dependentRequired": {"a": ["b"]}},
    {"propertyNames": {"maxLength": 1}},
    {"contains": {"type": "integer"}, "minContains": 2},
    {"format": "email"},
    {"multipleOf": 2},
    {"$ref": "#/$defs/d"},
    {"not": {"type": "null"}},
    True,
    False,
]
_leaves = st.sampled_from(_LEAVES)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    form = st.fixed_dictionaries
    return st.one_of(
        form({"properties": form({"a": inner}), "additionalProperties": inner}),
        form({"patternProperties": form({"^a": inner}), "properties": form({"b": inner})}),
        form({"prefixItems": st.tuples(inner).map(list), "items": inner}),
        form({"items": inner}),
        *(form({keyword: st.tuples(inner, inner).map(list)}) for keyword in ("allOf", "anyOf", "oneOf")),
        form({"if": inner, "then": inner, "else": inner}),
        form({"dependentSchemas": form({"a": inner})}),
    )


_schemas: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "allOf": st.tuples(st.recursive(_leaves, _grown, max_leaves=6)).map(list),
        "$defs": st.fixed_dictionaries({"d": st.sampled_from([{"type": "string"}, {"required": ["a"]}, True])}),
    }
)


@given(schema=_schemas, value=_values)
@settings(max_examples=600)
def test_faults_are_those_of_a_validator_that_lists_all(schema: Any, value: Any) -> None:
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    every = {
        ("".join(f"/{part}" for part in error.instance_path), error.kind.name) for error in validator.iter_errors(value)
    }
    found = {(fault.pointer, fault.keyword) for fault in explain(schema, value, masked=False)}
    assert bool(found) == (not validator.is_valid(value)) == bool(every)
    assert {pointer for pointer, _ in found} <= {pointer for pointer, _ in every}
    if len(found) < 5:
        assert {pointer for pointer, _ in found} == {pointer for pointer, _ in every}
