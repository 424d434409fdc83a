"""Expressions, argument schemas and budgets in an atlas: what loads, and where what doesn't is refused."""

import json
import time

import jsonschema
import pytest

from cra_mcp.atlas.keywords import KEYWORDS
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.overlay_loading import load_policy_file
from cra_mcp.errors import AtlasInvalidError
from tests.atlas.conftest import action, load, manifest, problems

SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}
PAY = action("t.pay", parameters_schema=SCHEMA)
BUDGET = {"max_cost": 1, "unit": "usd", "window_seconds": 60}


def governed(*policies: dict[str, object], actions: tuple[object, ...] = (PAY, action("t.read"))) -> dict[str, object]:
    named = [{"policy_id": f"p{at}", "type": "deny", "actions": ["t.pay"], **each} for at, each in enumerate(policies)]
    return manifest(actions=list(actions), policies=named)


def test_what_is_right_loads() -> None:
    atlas = load(
        governed(
            {"when": "args.amount > 500"},
            {"when": "has(args.amount) && args.amount > 500", "actions": ["*"]},
            {"when": "true", "actions": ["none.*"]},
            {"conditions": {"arguments": {"required": ["amount"]}}},
            {"type": "budget", "parameters": {**BUDGET, "cost": "args.amount"}},
            {"type": "budget", "parameters": {"max_cost": 1, "window_seconds": 60}},
            {"type": "budget", "parameters": BUDGET, "actions": ["none.*"]},
        )
    )
    assert [policy.when is not None for policy in atlas.policies] == [True, True, True, False, False, False, False]


@pytest.mark.parametrize(
    ("policy", "pointer", "column"),
    [
        ({"when": "args.amuont > 5"}, "/policies/0/when", 1),
        ({"when": "true && args.amount > 'x'"}, "/policies/0/when", 21),
        ({"when": "args.amount > 5", "actions": ["*"]}, "/policies/0/when", 1),
        ({"when": "args.amount >"}, "/policies/0/when", 14),
        ({"when": "((args.amount > 5)"}, "/policies/0/when", 1),
        ({"when": "args.amount > 'x'", "actions": ["none.*"]}, None, None),
        ({"when": "args.amount >", "actions": ["none.*"]}, "/policies/0/when", 14),
        (
            {"type": "budget", "parameters": {**BUDGET, "cost": "args.amuont"}},
            "/policies/0/parameters/cost",
            1,
        ),
        (
            {"type": "budget", "parameters": {**BUDGET, "cost": "args.amount > 1"}},
            "/policies/0/parameters/cost",
            1,
        ),
        ({"type": "budget", "parameters": {**BUDGET, "cost": "1 _"}}, "/policies/0/parameters/cost", 3),
    ],
)
def test_an_expression_is_refused_at_file_pointer_and_column(
    policy: dict[str, object], pointer: str | None, column: int | None
) -> None:
    text = json.dumps(governed(policy))
    if pointer is None:
        load_atlas_text(text)
        return
    with pytest.raises(AtlasInvalidError) as refused:
        load_atlas_text(text, name="atlas.json")
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code, problem.column) == (pointer, "invalid_expression", column)
    assert str(problem).startswith(f"atlas.json:{pointer}:{column}: ")


@pytest.mark.parametrize(
    ("policy", "pointer", "code"),
    [
        ({"conditions": {"arguments": {"type": 5}}}, "/policies/0/conditions/arguments/type", "invalid_schema"),
        (
            {"conditions": {"arguments": {"pattern": "(?=x)"}}},
            "/policies/0/conditions/arguments/pattern",
            "invalid_pattern",
        ),
        ({"conditions": {"arguments": {}}}, "/policies/0/conditions/arguments", "out_of_range"),
        ({"when": 5}, "/policies/0/when", "wrong_type"),
        ({"when": ""}, "/policies/0/when", "out_of_range"),
        ({"when": "x" * 2_001}, "/policies/0/when", "out_of_range"),
        ({"when": None}, "/policies/0/when", "wrong_type"),
        ({"type": "budget", "parameters": BUDGET}, "/policies/0/parameters", "invalid_value"),
        ({"type": "budget", "parameters": {**BUDGET, "max_cost": -1}}, "/policies/0/parameters/max_cost", "out_of_range"),
        ({"type": "budget", "parameters": {**BUDGET, "reserve": 1}}, "/policies/0/parameters/reserve", "invalid_value"),
        ({"type": "budget", "parameters": {**BUDGET, "unit": "a b"}}, "/policies/0/parameters/unit", "invalid_format"),
        (
            {"type": "budget", "parameters": {**BUDGET, "cost": "result.x"}},
            "/policies/0/parameters/cost",
            "invalid_value",
        ),
    ],
)  # fmt: skip
def test_what_would_have_no_effect_or_no_meaning_is_refused(policy: dict[str, object], pointer: str, code: str) -> None:
    assert ("atlas.json", pointer, code) in problems(governed(policy))


def test_a_context_pack_has_no_arguments_to_ask_about() -> None:
    pack = {"pack_id": "p", "name": "P", "content": "x", "conditions": {"arguments": {"required": ["a"]}}}
    assert problems(manifest(context_packs=[pack])) == [
        ("atlas.json", "/context_packs/0/conditions/arguments", "unknown_field")
    ]


@pytest.mark.parametrize(
    "policy",
    [
        {"when": "(" * 1_999},
        {"when": "(" * 5_000_000},
        {"when": "args" + ".a" * 900 + " == 1"},
        {"when": "'x'.matches('" + "((x{1,30}){1,30}){1,30}" + "')"},
        {"when": "true ? " * 250 + "true" + " : true" * 250},
        {"when": {"$ref": "#"}},
        {"when": ["args.amount"]},
        {"when": "args.amount > 5", "conditions": {"arguments": {"$ref": "#"}}},
        {"conditions": {"arguments": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}},
        {"conditions": {"arguments": {"pattern": "(x+x+)+y" * 200}}},
        {"conditions": {"arguments": {"properties": {str(at): {"type": "no"} for at in range(3_000)}}}},
        {"type": "budget", "parameters": {**BUDGET, "max_cost": 1e300}},
        {"type": "budget", "parameters": {**BUDGET, "cost": "args.amount + " * 140 + "'x'"}},
        {"type": ["budget"]},
    ],
    ids=lambda policy: str(policy)[:40],
)
def test_hostile_policies_are_refused_with_their_place_in_under_a_second(policy: dict[str, object]) -> None:
    load(governed({"when": "true"}))  # the libraries, which take their time once
    text = json.dumps(governed(policy))
    started = time.process_time()  # how busy the machine is does not count
    with pytest.raises(AtlasInvalidError) as refused:
        load_atlas_text(text, name="atlas.json")
    assert time.process_time() - started < 1
    assert all(problem.pointer.startswith("/policies/0") for problem in refused.value.problems)


def test_a_policy_test_has_arguments(folder) -> None:
    from cra_mcp.atlas.cases import run_cases  # noqa: PLC0415
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415

    case = {"name": "c", "action_id": "t.pay", "expect": {"effect": "deny"}}
    cases = [{**case, "args": {"amount": 501}}, {**case, "args": {"amount": 5}, "expect": {"effect": "allow"}}]
    root = folder(
        {"atlas.json": governed({"when": "args.amount > 500"}), "tests/a.json": {"name": "t", "cases": cases}}
    )
    assert [result.failures for result in run_cases(load_atlas(root))] == [(), ()]


def test_an_atlas_without_expressions_never_loads_the_library() -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    text = json.dumps(governed({"reason": "no"}))
    script = (
        "import sys; from cra_mcp.atlas.loader import load_atlas_text; load_atlas_text(sys.argv[1]);"
        "assert not [name for name in sys.modules if name.startswith('cel_expr_python')]"
    )
    subprocess.run([sys.executable, "-c", script, text], check=True, timeout=60)


ARGUMENTS = "/policies/0/conditions/arguments"


@pytest.mark.parametrize(
    ("schema", "pointer", "code", "meant"),
    [
        ({"properties": {"amount": {"maximun": 100}}}, "/properties/amount/maximun", "unknown_keyword", "maximum"),
        ({"requried": ["amount"]}, "/requried", "unknown_keyword", "required"),
        ({"propertes": {"amount": {"maximum": 1}}}, "/propertes", "unknown_keyword", "properties"),
        ({"anyOf": [{"properties": {"a": {"items": {"MaxLength": 1}}}}]}, "/anyOf/0/properties/a/items/MaxLength",
         "unknown_keyword", "maxLength"),
        ({"$defs": {"a": {"enums": ["x"]}}, "properties": {"a": {"$ref": "#/$defs/a"}}}, "/$defs/a/enums",
         "unknown_keyword", "enum"),
        ({"not": {"a~/b": 1}}, "/not/a~0~1b", "unknown_keyword", "leave it out"),
        ({"dependencies": {"amount": ["reason"]}}, "/dependencies", "unknown_keyword", "dependentRequired"),
        ({"properties": {"a": {"prefixItems": [True], "additionalItems": False}}}, "/properties/a/additionalItems",
         "unknown_keyword", "items"),
        ({"then": {"required": ["a"]}}, "/then", "ignored_keyword", "if"),
        ({"if": {"required": ["a"]}}, "/if", "ignored_keyword", "then"),
        ({"properties": {"a": {"maxContains": 1}}}, "/properties/a/maxContains", "ignored_keyword", "contains"),
        ({"properties": {"a": {"format": "emial"}}}, "/properties/a/format", "ignored_keyword", "date-time"),
    ],
)  # fmt: skip
def test_a_keyword_that_would_be_ignored_is_refused(
    schema: dict[str, object], pointer: str, code: str, meant: str
) -> None:
    text = json.dumps(governed({"conditions": {"arguments": schema}, "type": "allow"}))
    with pytest.raises(AtlasInvalidError) as refused:
        load_atlas_text(text)
    (problem,) = refused.value.problems
    assert (problem.pointer, problem.code) == (ARGUMENTS + pointer, code)
    assert meant in problem.message


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_misspelt_keyword_in_a_policy_file_is_refused(tmp_path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    rule = {"policy_id": "p", "type": "allow", "conditions": {"arguments": {"properties": {"n": {"maximun": 1}}}}}
    path.write_text(json.dumps({"policies": [rule]}))
    with pytest.raises(AtlasInvalidError) as refused:
        load_policy_file(path)
    assert [(each.pointer, each.code) for each in refused.value.problems] == [
        (f"{ARGUMENTS}/properties/n/maximun", "unknown_keyword")
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"maximun": {"maximum": 1}}, "required": ["maximun"], "x-note": "small sums"},
        {"const": {"maximun": 1}, "default": {"requried": 1}, "examples": [{"then": 1}]},
        {"if": {"required": ["a"]}, "else": {"properties": {"b": {"format": "uuid"}}}},
        {"definitions": {"a": {"minContains": 2, "contains": {}}}, "properties": {"a": {"$ref": "#/definitions/a"}}},
        {"title": "t", "$comment": "c", "dependentRequired": {"a": ["b"]}, "unevaluatedProperties": False},
    ],
)
def test_names_values_notes_and_every_keyword_of_the_dialect_pass(schema: dict[str, object]) -> None:
    load(governed({"conditions": {"arguments": schema}}))


def test_every_keyword_of_the_dialect_is_known() -> None:
    """The validator's own metaschema names them."""
    named: set[str] = set()
    for name in ("core", "applicator", "unevaluated", "validation", "meta-data", "format-annotation", "content"):
        uri = f"https://json-schema.org/draft/2020-12/meta/{name}"
        named |= set(
            jsonschema.validators.Draft202012Validator({"$ref": uri})._resolver.lookup(uri).contents["properties"]
        )
    assert named | {"definitions"} == KEYWORDS


def test_thousands_of_wrong_keywords_are_told_by_a_few() -> None:
    began = time.process_time()
    found = problems(governed({"conditions": {"arguments": {f"maximu{at}" + "n" * 30: 1 for at in range(5_000)}}}))
    assert 0 < len(found) <= 20
    assert time.process_time() - began < 5
