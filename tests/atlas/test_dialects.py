"""Older JSON Schemas mean in 2020-12 what they meant."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.atlas.dialects import translate
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.errors import AtlasInvalidError

DIALECTS = {
    "http://json-schema.org/draft-04/schema#": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
}
SEVEN = "http://json-schema.org/draft-07/schema#"
WHERE = {"definitions": {"x": {"type": "integer"}, "y": {"items": [{"type": "string"}, {"$ref": "#/definitions/x"}]}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"$schema": SEVEN, "type": "object"}, {"type": "object"}),
        (
            {"$schema": SEVEN, "items": [{"type": "string"}, {}], "additionalItems": False},
            {"prefixItems": [{"type": "string"}, {}], "items": False},
        ),
        ({"$schema": SEVEN, "items": {"type": "string"}, "additionalItems": False}, {"items": {"type": "string"}}),
        (
            {"$schema": SEVEN, "dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
            {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}},
        ),
        (
            {"$schema": SEVEN, "properties": {"p": {"items": [{"minimum": 1}]}, "q": {"$ref": "#/properties/p/items/0"}}},
            {"properties": {"p": {"prefixItems": [{"minimum": 1}]}, "q": {"$ref": "#/properties/p/prefixItems/0"}}},
        ),
        (
            {"$schema": SEVEN, "$id": "https://example.com/a.json", "definitions": {"b": {"$id": "b.json", "type": "string"}},
             "properties": {"c": {"$ref": "b.json"}, "d": {"$ref": "a.json#/definitions/b"}}},
            {"definitions": {"b": {"type": "string"}},
             "properties": {"c": {"$ref": "#/definitions/b"}, "d": {"$ref": "#/definitions/b"}}},
        ),
        ({"$schema": SEVEN, "definitions": {"a": {"$id": "#n"}}, "not": {"$ref": "#n"}},
         {"definitions": {"a": {"$anchor": "n"}}, "not": {"$ref": "#n"}}),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "minimum": 1, "exclusiveMinimum": True, "maximum": 9},
            {"exclusiveMinimum": 1, "maximum": 9},
        ),
        ({"items": [{}], "minimum": 2, "exclusiveMinimum": False}, {"prefixItems": [{}], "minimum": 2}),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema", "properties": {"a": {"$recursiveRef": "#"}}},
         {"properties": {"a": {"$ref": "#"}}}),
        ({"$schema": SEVEN, "not": {"$ref": "https://elsewhere.example/s"}}, {"not": {"$ref": "https://elsewhere.example/s"}}),
        ({"$schema": SEVEN, "$id": "http://[", "not": {"$ref": "http://[x"}}, {"not": {"$ref": "http://[x"}}),
    ],
)  # fmt: skip
def test_it_is_written_in_2020_12(schema: dict[str, object], expected: dict[str, object]) -> None:
    translation = translate(schema)
    assert translation.schema == expected
    assert translation.is_changed


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": [{}], "dependencies": {"a": ["b"]}},
        {"$schema": "http://json-schema.org/draft-03/schema#"},
        {"properties": {"dependencies": {"type": "string"}}, "prefixItems": [True], "items": False, "$id": "x"},
    ],
)
def test_what_is_2020_12_or_unknown_is_left_as_it_is(schema: dict[str, object]) -> None:
    assert translate(schema).schema == schema


def test_what_its_dialect_ignores_has_no_effect_and_is_told() -> None:
    schema = {
        "$schema": SEVEN,
        "type": "object",
        "$ref": "#/definitions/x",
        "maxProperties": 1,
        "description": "d",
        "definitions": {"x": {"prefixItems": [False], "minContains": 2}},
    }
    translation = translate(schema)
    assert translation.schema == {
        "type": "object", "$ref": "#/definitions/x", "description": "d", "definitions": {"x": {}},
    }  # fmt: skip
    assert set(translation.dropped) == {"/maxProperties", "/definitions/x/prefixItems", "/definitions/x/minContains"}


VALUES = st.recursive(
    st.sampled_from([0, 1, 2, 3, "s", "t", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def schemas(dialect: str) -> st.SearchStrategy[object]:
    four = "draft-04" in dialect
    leaf = st.sampled_from(
        [{"type": "string"}, {"type": "integer"}, {"enum": [1, "s", [1]]}, {"$ref": "#/definitions/y"}]
    )

    def more(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        pair = st.lists(inner, min_size=1, max_size=2)
        bound = st.booleans() if four else st.sampled_from([1, 2])
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["array", "object", ["null", "string", "integer"]]),
                "minimum": st.sampled_from([1, 2]),
                "exclusiveMinimum": bound,
                "items": inner | pair,
                "additionalItems": inner,
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
                "additionalProperties": inner,
                "dependencies": st.dictionaries(st.sampled_from("ab"), inner | st.just(["c"]), max_size=2),
                "$ref": st.sampled_from(["#/definitions/x", "#/definitions/y", "#/definitions/y/items/1"]),
                "allOf": pair,
                "not": inner,
                "const": st.just(1),
                "contains": inner,
                "if": inner,
                "then": inner,
                "dependentRequired": st.just({"a": ["c"]}),
                "minContains": st.just(2),
                "title": st.just("t"),
            },
        )

    return st.recursive(leaf, more, max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(DIALECTS)).flatmap(lambda name: st.tuples(st.just(name), schemas(name))),
    st.lists(VALUES, max_size=6),
)
def test_the_translation_takes_exactly_what_the_schema_took(
    given_schema: tuple[str, object], values: list[object]
) -> None:
    name, inner = given_schema
    schema = {"$schema": name, **WHERE, "not": {"not": inner}}
    if name.endswith("2019-09/schema"):
        schema = json.loads(json.dumps(schema).replace('"dependencies"', '"x"'))
    try:
        before = DIALECTS[name](schema, offline=True)
    except ValueError:
        return  # draft 4 has no boolean schemas, say
    after = jsonschema_rs.Draft202012Validator(dict(translate(schema).schema), offline=True)
    assert [after.is_valid(each) for each in values] == [before.is_valid(each) for each in values]


def manifest(schema: object, **more: object) -> str:
    action = {"action_id": "t.read", "name": "r", "description": "d", "parameters_schema": schema, **more}
    head = {"atlas_version": "1.0", "atlas_id": "com.example.a", "version": "1.0.0", "name": "A", "description": "d"}
    return json.dumps({**head, "actions": [action]})


def test_policies_and_calls_see_the_translation_and_the_file_is_kept_as_it_is() -> None:
    schema = {
        "$schema": SEVEN,
        "type": "object",
        "properties": {"pair": {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}},
    }
    atlas = load_atlas_text(manifest(schema, returns_schema={**schema}))
    action = atlas.actions[0]
    pair = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}
    assert action.parameters_schema == {"type": "object", "properties": {"pair": pair}} == action.returns_schema
    assert action.facts.parameters == action.parameters_schema
    assert atlas.manifest["actions"][0]["parameters_schema"] == schema  # type: ignore[index]


def test_what_is_wrong_with_it_is_told_where_it_is_written() -> None:
    wrong = {
        "$schema": SEVEN,
        "type": "object",
        "properties": {"a": {"items": [{}, {"type": "text"}]}, "b": {"dependencies": {"c": {"pattern": "("}}}},
    }
    with pytest.raises(AtlasInvalidError) as caught:
        load_atlas_text(manifest(wrong))
    base = "/actions/0/parameters_schema/properties"
    assert {(each.pointer, each.code) for each in caught.value.problems} == {
        (f"{base}/a/items/1/type", "invalid_schema"),
        (f"{base}/b/dependencies/c/pattern", "invalid_pattern"),
    }


def test_a_fault_in_a_tuple_is_told_where_it_is_written() -> None:
    schema = {"type": "object", "properties": {"a": {"items": [True, None, {"items": [5]}]}}}
    with pytest.raises(AtlasInvalidError) as caught:
        load_atlas_text(manifest(schema))
    told = {each.pointer.removeprefix("/actions/0/parameters_schema") for each in caught.value.problems}
    assert told == {"/properties/a/items/1", "/properties/a/items/2/items/0"}
