"""What hosts get of schemas: never stricter than what is accepted, of bounded size, and nothing that hides other tools."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.atlas.json_schema import check_schema
from cra_mcp.atlas.portable import MAX_INLINED_BYTES, MAX_PUBLISHED_BYTES, portable, reshaped
from cra_mcp.atlas.shape import Place
from cra_mcp.errors import Problem
from tests.clients.judge import Judge

S = {"type": "string"}
N = {"type": "integer"}
EMPTY: dict[str, object] = {"type": "object", "properties": {}}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def told(schema: dict[str, object], role: Any = "parameters") -> Any:
    return portable(schema, role).schema


def of(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (of(a=True, b=False), of(a={}, b={"not": {}})),
        (of(a={"items": False}, b={"additionalProperties": False}),
         of(a={"items": {"not": {}}}, b={"additionalProperties": False})),
        (of(a={"enum": []}), of(a={"not": {}})),
        (of(a={**S, "nullable": True, "discriminator": {}, "x-ours": 1, "id": "i", "$comment": "c"}), of(a=S)),
        (of(a={**S, "pattern": r"^\_(?i)x$"}), of(a={**S, "pattern": "^_[xX]$"})),
        (
            of(a={**S, "description": "A.", "pattern": r"\bx", "format": "date-time"}),
            of(a={**S, "description": "A.\nMust match: \\bx\nFormat: date-time."}),
        ),
        (of(a={**N, "multipleOf": 3}), of(a={**N, "description": "A multiple of 3."})),
        (of(a={**S, "format": "uuid"}), of(a={**S, "format": "uuid"})),
        # What older readers of tuples would take for all items is left out.
        (of(a={"prefixItems": [S], "items": N}), of(a={"prefixItems": [S]})),
        (of(a={"prefixItems": [S], "items": False}), of(a={"prefixItems": [S], "maxItems": 1})),
        (of(a={"contains": S, "minContains": 0}, b={"contains": S, "maxContains": 2}), of(a={}, b={"contains": S})),
        # Looser where it is negated would be stricter.
        (of(a={"not": {**S, "format": "email"}}, b={"not": S}), of(a={}, b={"not": S})),
        (of(a={"oneOf": [S, {**N, "multipleOf": 2}]}), of(a={"anyOf": [S, {**N, "description": "A multiple of 2."}]})),
        (of(a={"oneOf": [S, N]}), of(a={"oneOf": [S, N]})),
        (
            of(a={"oneOf": [{"format": "email"}], "anyOf": [S], "allOf": [N]}),
            of(a={"anyOf": [S], "allOf": [N, {"anyOf": [{"description": "Format: email."}]}]}),
        ),
        (of(a={"if": {"format": "email"}, "then": N}, b={"if": S, "then": S}), of(a={}, b={"if": S, "then": S})),
        # Every object of JavaScript has these.
        (of(a=of(constructor=S, b=S)), of(a={**of(b=S), "description": 'Also takes "constructor".'})),
        (of(a={**of(__proto__=S), "additionalProperties": False}), of(a={**of(), "description": 'Also takes "__proto__".'})),
        # Hosts that can't read a pattern must not take what it lets through for something else.
        (of(a={"patternProperties": {r"\p{L}": S}, "additionalProperties": False}), of(a={"patternProperties": {}})),
        (of(a={"patternProperties": {r"^\_x": S}, "additionalProperties": N}),
         of(a={"patternProperties": {"^_x": S}, "additionalProperties": N})),
        (of(a={"unevaluatedProperties": False, "dependentRequired": {"b": ["c"]}}), of(a={})),
        (of(a={"exclusiveMaximum": 1e22, "exclusiveMinimum": 1}), of(a={"exclusiveMinimum": 1})),
        # A reference and what stands beside it.
        ({**of(a={"$ref": "#/$defs/d", "description": "A."}), "$defs": {"d": S}}, of(a={**S, "description": "A."})),
        ({**of(a={"$ref": "#/$defs/d", "maxLength": 9}), "$defs": {"d": {"maxLength": 5}}},
         of(a={"allOf": [{"maxLength": 5}, {"maxLength": 9}]})),
        ({**of(a={"$ref": "#/$defs/d", "minLength": 9}), "$defs": {"d": {"maxLength": 5}}}, of(a={"minLength": 9, "maxLength": 5})),
        (
            {**of(a={"$ref": "#/$defs/d", "properties": {"c": N}}), "$defs": {"d": {**of(b=S), "additionalProperties": False}}},
            of(a={"allOf": [{**of(b=S), "additionalProperties": False}, {"properties": {"c": N}}]}),
        ),
        ({**of(a=S), "$ref": "#/$defs/d", "required": ["a"], "$defs": {"d": {**of(b=N), "required": ["b", "c"]}}},
         {**of(b=N, a=S), "required": ["b", "a"]}),
        ({**of(a={"$ref": "#here"}, b={"$dynamicRef": "#here"}), "$defs": {"d": {**S, "$dynamicAnchor": "here"}}}, of(a=S, b=S)),
        ({**of(a={"$ref": "#/$defs/t"}, b={"$ref": "#/$defs/f"}), "$defs": {"t": True, "f": False}}, of(a={}, b={"not": {}})),
        # A recursive one becomes anything, and may stand nowhere where that would be stricter.
        ({**of(a={"$ref": "#/$defs/d"}), "$defs": {"d": of(d={"$ref": "#/$defs/d"})}}, of(a=of(d={}))),
        ({**of(a={"not": {"$ref": "#/$defs/d"}}), "$defs": {"d": of(d={"$ref": "#/$defs/d"})}}, of(a={})),
        (of(a={"$ref": "#"}), of(a={})),
        # At the root: no combinators, no requirement of what isn't there, no name that vendors refuse.
        ({**of(a=S), "anyOf": [{"required": ["a"]}], "required": ["a", "b"], "minProperties": 1},
         {**of(a=S), "required": ["a"], "minProperties": 1}),
        (
            {"type": "object", "description": "D.", "properties": {"a": S, "filter[id]": S},
                 "required": ["filter[id]"], "additionalProperties": False},
            {**of(a=S), "description": 'D.\nAlso takes "filter[id]".', "required": []},
        ),
        ({"type": "object"}, EMPTY),
    ],
)  # fmt: skip
def test_what_hosts_get(judge: Judge, schema: dict[str, object], expected: dict[str, object]) -> None:
    problems: list[Problem] = []
    check_schema(schema, Place("f", "", problems), object_root=True)
    assert problems == []
    assert told(schema) == expected
    judge.schema(told(schema), [{}])


def test_results_keep_their_root_and_large_numbers_apart() -> None:
    assert told({"type": "array", "uniqueItems": True, "items": N}, "returns") == {"type": "array", "items": N}
    assert told({**of(a=S), "anyOf": [{"required": ["a"]}]}, "returns") == {**of(a=S), "anyOf": [{"required": ["a"]}]}
    assert told({"type": "object", "properties": {"a b": S}}, "returns") == {"type": "object", "properties": {"a b": S}}
    assert told(of(a={"uniqueItems": True})) == of(a={"uniqueItems": True})


def chain(length: int, **last: object) -> dict[str, object]:
    """Written out, twice as large with every definition."""
    definitions = {
        f"d{at}": of(**{side: {"$ref": f"#/$defs/d{at + 1}"} for side in ("left", "right")}) for at in range(length)
    }
    return {**of(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, f"d{length}": {**S, **last}}}


def test_what_would_multiply_is_published_with_its_definitions(judge: Judge) -> None:
    schema = chain(11)
    assert len(json.dumps(schema)) < 1_700
    published = told(schema)
    assert len(json.dumps(published)) < 1_700
    assert published["properties"] == {"a": {"$ref": "#/$defs/d0"}}
    assert published["$defs"]["d0"] == of(left={"$ref": "#/$defs/d1"}, right={"$ref": "#/$defs/d1"})
    deep: Any = "x"
    for _ in range(11):
        deep = {"left": deep}
    for taken in judge.schema(published, [{"a": deep}, {"a": {"left": 1}}]).values():
        assert taken == [True, False]


def test_in_definitions_recursion_and_odd_names_are_kept(judge: Judge) -> None:
    schema = chain(11)
    schema["$defs"]["d11"] = of(
        up={"$ref": "#/$defs/d0"}, all={"$ref": "#"}, odd={"$ref": "#/$defs/a~1b c"}, b_c={"$ref": "#/$defs/b_c"}
    )  # type: ignore[index]
    schema["$defs"] |= {"a/b c": S, "b_c": N, "a_b_c": of(x={"$ref": "#/$defs/a_b_c"})}  # type: ignore[operator]
    schema["properties"]["z"] = {"$ref": "#/$defs/a_b_c"}  # type: ignore[index]
    published = told(schema)
    names = published["$defs"]
    assert {"root", "a_b_c", "a_b_c_2", "b_c"} <= names.keys()
    assert names["root"]["type"] == "object"
    judge.schema(published, [{}])


@pytest.mark.parametrize(
    ("schema", "size"),
    [
        (of(**{f"p{at}": {**S, "description": "d" * 900} for at in range(100)}), 100 * 200),
        ({**of(a={"enum": ["e" * 200_000]}), "required": ["a"]}, 0),
        (chain(11, description="d" * 100_000), 0),
    ],
)
def test_what_is_too_large_is_abridged_and_never_left_out(judge: Judge, schema: dict[str, object], size: int) -> None:
    assert len(json.dumps(schema)) > MAX_PUBLISHED_BYTES
    published = portable(schema, "parameters")
    assert size <= len(json.dumps(published.schema)) <= MAX_PUBLISHED_BYTES
    assert published.schema is not None
    assert published.schema["type"] == "object"
    assert published.schema["properties"].keys() == schema["properties"].keys()  # type: ignore[attr-defined]
    assert [change.pointer for change in published.changes] == [""]
    judge.schema(published.schema, [{}])
    assert portable(schema, "returns").schema is None


def test_even_names_can_be_too_many() -> None:
    published = portable(of(**{f"{at:064}": S for at in range(1_990)}), "parameters")
    assert published.schema is not None
    assert published.schema["properties"] == {}


def test_a_schema_of_many_definitions_in_a_row_is_no_recursion_of_ours() -> None:
    definitions = {f"d{at}": of(a={"$ref": f"#/$defs/d{at + 1}"}) for at in range(600)}
    schema = {**of(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, "d600": {"oneOf": [{"$ref": "#/$defs/d0"}, S]}}}
    published = told(schema)
    assert len(published["$defs"]) == 601
    assert "anyOf" in published["$defs"]["d600"]


def test_an_exact_schema_keeps_all_but_what_hides_every_tool() -> None:
    schema = {**of(a=True, b=False, c={"items": False}), "anyOf": [{}]}
    assert reshaped(schema) == {**of(a={}, b={"not": {}}, c={"items": False}), "anyOf": [{}]}
    assert reshaped({"type": "object"}) == {"type": "object"}


# --- never stricter ----------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(
    ["", "a", "A", "ab", "_", "é", "\n", "\u2028", "K", "2024-01-01", "a@b.c", "1.2.3.4", "constructor"]
)
NUMBERS = st.sampled_from([0, 1, 2, 1.5, -1, 0.3, 1e22, 2**53 - 1])
KEYS = st.sampled_from(["a", "b", "_", "é", "constructor", "__proto__", "toString"])
VALUES = st.recursive(
    TEXTS | NUMBERS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
PATTERNS = st.sampled_from(["^a$", r"^\_$", "(?i)^ab$", "^.$", r"^[^\W]$", r"\p{L}", r"\b", "a|(?i)b", r"^\x{41}$"])


def schemas() -> st.SearchStrategy[Any]:
    leaf = st.sampled_from(
        [
            {},
            True,
            False,
            S,
            N,
            {"type": "number"},
            {"type": ["null", "string"]},
            {"const": "a"},
            {"enum": []},
            {"enum": ["a", 1]},
        ]
    ) | st.sampled_from(
        [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/y"}, {"$ref": "#/$defs/r"}, {"$ref": "#"}, {"$dynamicRef": "#dyn"}]
    )

    def more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=2)
        named = st.dictionaries(KEYS, inner, max_size=3)
        count = st.sampled_from([0, 1, 2])
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["object", "array", "string", ["object", "integer"]]),
                "properties": named,
                "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
                "additionalProperties": inner,
                "propertyNames": inner,
                "required": st.lists(KEYS, max_size=2, unique=True),
                "items": inner,
                "prefixItems": some,
                "contains": inner,
                "minContains": count,
                "maxContains": count,
                "uniqueItems": st.just(True),
                "maxItems": count,
                "allOf": some,
                "anyOf": some,
                "oneOf": some,
                "not": inner,
                "if": inner,
                "then": inner,
                "else": inner,
                "unevaluatedProperties": inner,
                "unevaluatedItems": inner,
                "dependentRequired": st.just({"a": ["b"], "constructor": ["a"]}),
                "dependentSchemas": st.dictionaries(KEYS, inner, max_size=1),
                "pattern": PATTERNS,
                "format": st.sampled_from(["date", "email", "uri", "ipv4", "int32", "byte"]),
                "multipleOf": st.sampled_from([1, 2, 0.1]),
                "exclusiveMinimum": st.sampled_from([0, 1, 1e17]),
                "nullable": st.just(True),
                "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y", "#/$defs/r"]),
                "description": st.just("d"),
            },
        )

    return st.recursive(leaf, more, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(schemas(), st.sampled_from(["parameters", "returns"]), st.lists(VALUES, min_size=4, max_size=10), st.booleans())
def test_every_instance_that_is_accepted_is_accepted_by_hosts(
    judge: Judge, inner: Any, role: Any, values: list[Any], multiplied: bool
) -> None:
    schema: dict[str, Any] = of(a=inner, b={"items": inner})
    schema["$defs"] = {
        "x": {**of(a=S), "additionalProperties": False},
        "y": {"$dynamicAnchor": "dyn", "items": {"type": ["integer", "object"]}},
        "r": {"properties": {"a": {"$ref": "#/$defs/r"}, "b": N}},
    }
    if multiplied:
        schema["properties"]["c"] = chain(11)["properties"]["a"]  # type: ignore[index]
        schema["$defs"] |= chain(11)["$defs"]
    problems: list[Problem] = []
    check_schema(schema, Place("f", "", problems), object_root=True)
    if problems:
        return
    options = jsonschema_rs.RegexOptions()
    mine = jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=True, pattern_options=options)
    instances = [{"a": each} for each in values] + [{"b": values}, {"a": values[0], "b": values[1:]}]
    accepted = [each for each in instances if mine.is_valid(each)]
    published = portable(schema, role)
    assert published.schema is not None
    assert len(json.dumps(published.schema)) <= MAX_PUBLISHED_BYTES
    assert multiplied or "$defs" not in published.schema or len(json.dumps(published.schema)) > MAX_INLINED_BYTES
    for draft in (jsonschema_rs.Draft202012Validator, jsonschema_rs.Draft7Validator):
        theirs = draft(dict(published.schema), offline=True, validate_formats=True, pattern_options=options)
        assert all(theirs.is_valid(each) for each in accepted), (schema, published.schema)
    for name, taken in judge.schema(published.schema, accepted).items():
        assert all(taken), (
            name,
            schema,
            published.schema,
            [each for each, ok in zip(accepted, taken, strict=True) if not ok],
        )
