"""Comparing policies: what is told is true, and what is planted is found."""

import json
import re

import pytest

from cra_mcp.analysis.diff import compare
from cra_mcp.analysis.subject import load_subject
from tests.faces.cli.conftest import cra

PAY = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "minimum": 0},
        "to": {"type": "object", "properties": {"country": {"type": "string"}}, "required": ["country"]},
        "note": {"type": "string", "minLength": 3, "maxLength": 9},
    },
    "required": ["amount"],
}


def manifest(policies, *, schema=PAY, risk="low", **more):
    action = {"action_id": "pay.out", "name": "n", "description": "d", "parameters_schema": schema, "risk_tier": risk}
    return {
        "atlas_version": "1.0",
        "atlas_id": "com.example.diff",
        "version": "1.0.0",
        "name": "D",
        "description": "d",
        "actions": [action],
        "policies": policies,
        **more,
    }


def side(folder, name, policies, **more):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(manifest(policies, **more)))
    return path


def differences(folder, old, new, **more):
    paths = side(folder, "old", old), side(folder, "new", new)
    sides = [load_subject([(str(path), path)]).atlases for path in paths]
    return compare(*sides, **more)


def deny(**more):
    return {"policy_id": "p", "type": "deny", **more}


def limit(**parameters):
    return {"policy_id": "p", "type": "rate_limit", "parameters": {"max_calls": 5, "window_seconds": 60, **parameters}}


def budget(**parameters):
    return {"policy_id": "p", "type": "budget", "parameters": {"max_cost": 5, "window_seconds": 60, **parameters}}


def ask(grade):
    return {"policy_id": "p", "type": "require_approval", "parameters": {"min_evidence": grade}}


def window(end, **more):
    return {"conditions": {"time_window": {"start": "09:00", "end": end, **more}}}


PLANTED = [
    # what, the stricter policies, the looser ones
    ("a deny is gone", [deny()], []),
    ("a threshold is higher", [deny(when="args.amount > 500.0")], [deny(when="args.amount > 501.0")]),
    ("a bound is in", [deny(when="args.amount >= 500.0")], [deny(when="args.amount > 500.0")]),
    (
        "a country is off the list",
        [deny(when="has(args.to) && args.to.country in ['DE', 'FR']")],
        [deny(when="has(args.to) && args.to.country in ['DE']")],
    ),
    (
        "two conditions must be met",
        [deny(when="agent.id == 'bot'")],
        [deny(when="agent.id == 'bot' && args.amount > 70.0")],
    ),
    ("an agent is let through", [deny(conditions={"agents": ["bot-*", "ci"]})], [deny(conditions={"agents": ["bot-*"]})]),
    ("a role is let through", [deny(conditions={"roles": ["agent", "auditor"]})], [deny(conditions={"roles": ["agent"]})]),
    ("a principal is let through", [deny(conditions={"principals": ["ann", "bob"]})], [deny(conditions={"principals": ["bob"]})]),
    (
        "a tier is let through",
        [deny(conditions={"risk_tiers": ["high", "critical"]})],
        [deny(conditions={"risk_tiers": ["critical"]})],
    ),
    (
        "a context is let through",
        [deny(conditions={"context_matches": {"env": "prod*"}})],
        [deny(conditions={"context_matches": {"env": "prod"}})],
    ),
    ("a window is a minute shorter", [deny(**window("17:01"))], [deny(**window("17:00"))]),
    (
        "a window leaves out a day",
        [deny(**window("17:00"))],
        [deny(**window("17:00", days=["mon", "tue", "wed", "thu", "fri", "sun"]))],
    ),
    ("an hour is let through", [deny(when="now.getHours() < 8")], [deny(when="now.getHours() < 7")]),
    (
        "a schema asks for less",
        [deny(conditions={"arguments": {"properties": {"amount": {"maximum": 99}}}})],
        [deny(conditions={"arguments": {"properties": {"amount": {"maximum": 98}}}})],
    ),
    (
        "a pattern takes less",
        [deny(conditions={"arguments": {"properties": {"note": {"pattern": "^[a-z0-9]+$"}}, "required": ["note"]}})],
        [deny(conditions={"arguments": {"properties": {"note": {"pattern": "^[a-z]+$"}}, "required": ["note"]}})],
    ),
    (
        "a regular expression takes less",
        [deny(when=r"has(args.note) && args.note.matches('^[A-Z]{3}(-\\\\d+)?$')")],
        [deny(when=r"has(args.note) && args.note.matches(r'^[A-Z]{3}$')")],
    ),
    (
        "an agent is matched to its end",
        [deny(when="agent.id.matches('^bot-[0-9]{2}')")],
        [deny(when="agent.id.matches('^bot-[0-9]{2}$')")],
    ),
    ("an approval is an allow", [{"policy_id": "p", "type": "require_approval"}], []),
    ("an approval may be weaker", [ask("local_cli")], [ask("application")]),
    ("a limit admits one more", [limit()], [limit(max_calls=6)]),
    ("a limit forgets sooner", [limit()], [limit(window_seconds=59)]),
    ("a limit counts each agent", [limit(scope="global")], [limit()]),
    ("a budget has more", [budget()], [budget(max_cost=6)]),
]  # fmt: skip


@pytest.mark.parametrize(("strict", "loose"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_what_is_wider_is_found_with_an_example_and_the_other_way_round_it_is_narrower(tmp_path, strict, loose):
    found = differences(tmp_path, strict, loose, max_requests=1_500)
    assert {change.direction for change in found.changes} == {"wider"}
    back = differences(tmp_path, loose, strict, max_requests=1_500)
    assert {change.direction for change in back.changes} == {"narrower"}
    assert not back.is_wider
    assert not found.unsearched


@pytest.mark.parametrize("kind", ["integer", "boolean", "array", "object", "null"])
def test_a_schema_of_several_types_is_searched(tmp_path, kind):
    required = {"type": "object", "properties": {"x": {"type": [kind, "string"]}}, "required": ["x"]}
    inner = {"type": ["object", "null"], "properties": {"x": {"type": ["string", kind]}}}
    nested = {"type": "object", "properties": {"to": inner}}
    for schema, member in ((required, "args.x"), (nested, "args.to.x")):
        old = side(tmp_path, "old", [deny(when=f"{member} == 'x'")], schema=schema)
        new = side(tmp_path, "new", [deny(when=f"{member} == 'y'")], schema=schema)
        found = compare(*[load_subject([(str(path), path)]).atlases for path in (old, new)])
        assert {change.direction for change in found.changes} == {"wider", "narrower"}


def test_equal_policies_do_not_differ_whatever_they_are_called(tmp_path):
    old = [deny(when="args.amount > 5.0", **window("17:00")), {**limit(), "policy_id": "q"}]
    new = [{**limit(), "policy_id": "r"}, deny(reason="other words", when="args.amount > 5.0", **window("17:00"))]
    assert differences(tmp_path, old, new, max_requests=1_000).changes == ()


def test_an_action_that_comes_or_whose_schema_takes_more_is_wider(tmp_path):
    old, new = side(tmp_path, "old", [], schema=PAY), side(tmp_path, "new", [], schema={**PAY, "required": []})
    sides = [load_subject([(str(path), path)]).atlases for path in (old, new)]
    (change,) = compare(*sides).changes
    assert (change.direction, change.old.policy_id) == ("wider", "parameters_schema")
    (come,) = compare([], sides[0]).changes
    assert (come.direction, come.old.policy_id, come.new.effect) == ("wider", "undeclared", "allow")
    (gone,) = compare(sides[0], []).changes
    assert gone.direction == "narrower"


def test_an_action_whose_arguments_cannot_be_guessed_is_named_unless_a_policy_test_shows_some(tmp_path):
    number = {"type": "integer", "multipleOf": 7_919, "minimum": 1}
    schema = {"type": "object", "properties": {"id": number}, "required": ["id"]}
    old, new = side(tmp_path, "old", [deny()], schema=schema), side(tmp_path, "new", [], schema=schema)
    sides = [load_subject([(str(path), path)]).atlases for path in (old, new)]
    assert compare(*sides).unsearched == ("pay.out",)
    folder = tmp_path / "with-tests"
    (folder / "tests").mkdir(parents=True)
    (folder / "atlas.json").write_text(json.dumps(manifest([deny()], schema=schema)))
    case = {"name": "c", "action_id": "pay.out", "args": {"id": 7_919}, "expect": {"effect": "deny"}}
    (folder / "tests" / "a.json").write_text(json.dumps({"name": "t", "cases": [case]}))
    tested = load_subject([("with-tests", folder)]).atlases
    found = compare(tested, sides[1])
    assert found.is_wider
    assert found.changes[0].request.args == {"id": 7_919}


def test_an_action_whose_text_must_fit_a_pattern_is_searched(tmp_path):
    old, new = (
        {"type": "string", "pattern": "^O-[0-9]{4}$"},
        {"type": "string", "pattern": "^O-[0-9]{4,5}$", "minLength": 6},
    )
    schemas = [{"type": "object", "properties": {"id": each}, "required": ["id"]} for each in (old, new)]
    paths = [side(tmp_path, name, [], schema=schema) for name, schema in zip(("old", "new"), schemas, strict=True)]
    sides = [load_subject([(str(path), path)]).atlases for path in paths]
    (change,) = compare(*sides).changes
    assert (change.direction, change.request.args) == ("wider", {"id": "O-00000"})


def test_the_command_shows_examples_and_ends_with_1_if_something_is_wider(tmp_path):
    old, new = side(tmp_path, "old", [deny(when="args.amount > 5.0")]), side(tmp_path, "new", [])
    done = cra("policy", "diff", old, new)
    assert done.returncode == 1
    assert "wider: pay.out: deny (p) becomes allow (default), for example" in done.stdout
    assert '"arguments":{"amount":' in done.stdout
    assert re.search(
        r"^wider: 1 found in [0-9]+ requests tried; narrower: not found in [0-9]+ requests tried\.", done.stderr
    )
    same = cra("policy", "diff", old, old)
    assert (same.returncode, same.stdout) == (0, "")
    assert re.search(
        r"^wider: not found in [0-9]+ requests tried; narrower: not found in [0-9]+ requests tried\.", same.stderr
    )
    narrower = cra("policy", "diff", new, old, "--json", "--max-requests", "200")
    assert narrower.returncode == 0
    told = json.loads(narrower.stdout)
    assert (told["wider"], told["changes"][0]["direction"]) == (False, "narrower")
    assert told["requests"] <= 200


def test_policy_files_are_compared_over_the_atlases_they_govern(tmp_path):
    atlas = side(tmp_path, "atlas", [])
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text("policies:\n- {policy_id: p, type: deny}\n")
    new.write_text("policies:\n- {policy_id: p, type: require_approval}\n")
    done = cra("policy", "diff", old, new, "--atlas", atlas)
    assert done.returncode == 1
    assert "deny (operator/p) becomes require_approval (operator/p)" in done.stdout
