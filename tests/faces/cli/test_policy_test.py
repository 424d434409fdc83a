"""``policy test`` as a person and continuous integration meet it: real processes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cra_mcp.faces.cli.junit import Case, Suite, document
from tests.atlas.conftest import action, manifest
from tests.faces.cli.conftest import cra

POLICIES = [
    {"policy_id": "no-drop", "type": "deny", "actions": ["t.drop"], "reason": "Never."},
    {"policy_id": "bots", "type": "require_approval", "actions": ["t.pay"], "conditions": {"agents": ["bot"]}},
]
GOOD = {"name": "dropping is denied", "action_id": "t.drop", "expect": {"effect": "deny", "policy_id": "no-drop"}}
BAD = {"name": "bots pay", "action_id": "t.pay", "facts": {"agent_id": "bot"}, "expect": {"effect": "allow"}}


def atlas(folder: Path, *cases: object) -> Path:
    (folder / "tests").mkdir(parents=True)
    body = manifest(actions=[action("t.pay"), action("t.drop")], policies=POLICIES)
    (folder / "atlas.json").write_text(json.dumps(body))
    if cases:
        (folder / "tests" / "a.json").write_text(json.dumps({"name": "all", "cases": cases}))
    return folder


def test_what_passes_is_said_with_what_was_not_seen(tmp_path: Path) -> None:
    done = cra("policy", "test", atlas(tmp_path / "a", GOOD))
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "com.example.a: 1 of 1 policy test passed, coverage 25.0 % (1 of 2 policies, 0 of 2 outcomes of conditions)",
            "  bots (require_approval) never decided",
            "  bots: agents never true nor false",
        ],
    )


def test_a_failure_says_what_was_expected_what_came_and_why(tmp_path: Path) -> None:
    junit = tmp_path / "out.xml"
    path = atlas(tmp_path / "a", GOOD, BAD)
    done = cra("policy", "test", path, "--junit", junit)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:4] == [
        "FAILED tests/a.json: bots pay",
        "  effect: expected allow, got require_approval",
        "  why: require_approval decided: policy bots requires approval of this action",
        "  * bots (require_approval): agents true",
    ]
    assert "1 of 2 policy tests failed" in done.stderr
    root = ElementTree.fromstring(junit.read_bytes())  # noqa: S314 - our own file
    assert dict(root.attrib) == {"tests": "2", "failures": "1", "errors": "0"}
    names = {each.get("name"): each.find("failure") is not None for each in root.iter("testcase")}
    assert names == {"dropping is denied": False, "bots pay": True}
    shown = json.loads(cra("policy", "test", path, "--json").stdout)
    assert (shown["ok"], shown["atlases"][0]["failed"]) == (False, 1)
    assert shown["atlases"][0]["cases"][1]["considered"] == [
        {"policy_id": "bots", "type": "require_approval", "conditions": {"agents": "true"}}
    ]
    assert shown["atlases"][0]["coverage"]["policies"][1]["conditions"] == {
        "agents": {"seen": ["true"], "missing": ["false"]}
    }


def test_coverage_below_the_least_fails(tmp_path: Path) -> None:
    path, junit = atlas(tmp_path / "a", GOOD), tmp_path / "out.xml"
    assert cra("policy", "test", path, "--min-coverage", "25").returncode == 0
    done = cra("policy", "test", path, "--min-coverage", "25.1", "--junit", junit)
    assert (done.returncode, "coverage is 25.0 %, below 25.1 %" in done.stderr) == (1, True)
    assert '<failure message="coverage is 25.00 %, below 25.1 %"' in junit.read_text()


def test_nothing_tested_is_no_success_and_hides_no_other(tmp_path: Path) -> None:
    good, none, broken = atlas(tmp_path / "a", GOOD), atlas(tmp_path / "b"), tmp_path / "c"
    broken.mkdir()
    (broken / "atlas.json").write_text("{}")
    junit = tmp_path / "out.xml"
    done = cra("policy", "test", broken, none, good, "--junit", junit, "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, [each["ok"] for each in shown["atlases"]]) == (1, [False, False, True])
    assert any("field atlas_id is missing" in problem for problem in shown["atlases"][0]["problems"])
    root = ElementTree.fromstring(junit.read_bytes())  # noqa: S314 - our own file
    assert dict(root.attrib) == {"tests": "3", "failures": "0", "errors": "2"}
    assert "has no policy tests" in cra("policy", "test", cwd=none).stderr


def test_the_policies_of_the_operator_are_in_force(tmp_path: Path) -> None:
    ours = tmp_path / "ours.yaml"
    ours.write_text("policies: [{policy_id: stop, type: deny, actions: ['*.drop'], priority: 1}]")
    path = atlas(tmp_path / "a", GOOD)
    done = cra("policy", "test", path, "--policy", ours)
    assert (done.returncode, "policy_id: expected no-drop, got operator/stop" in done.stdout) == (1, True)
    assert cra("policy", "test", path, env={"CRA_POLICY_FILES": str(ours)}).returncode == 1
    twice = cra("policy", "test", path, "--policy", ours, "--policy", ours)
    assert (twice.returncode, "given twice" in twice.stdout) == (1, True)
    assert cra("policy", "test", tmp_path / "nowhere").returncode == 3


def test_policies_of_the_operator_have_tests_of_their_own(tmp_path: Path) -> None:
    ours, cases = tmp_path / "ours.yaml", tmp_path / "tests"
    ours.write_text("policies: [{policy_id: stop, type: deny, actions: ['*.drop']}]")
    cases.mkdir()
    (cases / "ours.yaml").write_text(
        """\
name: Ours
actions: [{action_id: x.drop}]
cases:
  - {name: dropping stops, action_id: x.drop, expect: {effect: deny, policy_id: operator/stop}}
"""
    )
    done = cra("policy", "test", "--policy", ours, "--cases", cases, "--min-coverage", "100")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["operator: 1 of 1 policy test passed, coverage 100.0 % (1 of 1 policy, 0 of 0 outcomes of conditions)"],
    )
    (cases / "atlas.json").write_text(
        json.dumps({"name": "beside", "cases": [{**GOOD, "expect": {"effect": "deny", "policy_id": "no-drop"}}]})
    )
    junit, path = tmp_path / "out.xml", atlas(tmp_path / "a", BAD)
    done = cra("policy", "test", path, "--policy", ours, "--cases", cases, "--json", "--junit", junit)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["ok"], shown["policies"]["failed"]) == (1, False, 1)
    failures = [each["failures"] for each in shown["policies"]["cases"] if not each["passed"]]
    assert failures == [["policy_id: expected no-drop, got operator/stop"]]
    assert junit.read_text().count("<testcase") == 2
    assert cra("policy", "test", "--cases", cases).returncode == 2


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\ufffe", "\ud800", "]]>&<\"'", "\u202e"])
def test_junit_is_well_formed_whatever_a_name_holds(text: str) -> None:
    written = document(
        [Suite(text, [Case(text, text, failure=(text, text)), Case("c", "p", error=(text, text))], {"a": text})]
    )
    root = ElementTree.fromstring(written)  # noqa: S314 - our own file
    assert [each.get("classname") for each in root.iter("testcase")][1] == "p"
