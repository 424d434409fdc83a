"""Tests of the operator's policies: read from files of their own, and run."""

import json
from pathlib import Path

import pytest

from cra_mcp.atlas.case_files import load_case_files
from cra_mcp.atlas.cases import run_case_files
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.overlay_loading import load_policy_file
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError
from tests.atlas.conftest import action, manifest

POLICIES = {
    "policies": [
        {"policy_id": "cap", "type": "deny", "actions": ["*.pay"], "when": "args.amount > 500"},
        {
            "policy_id": "few",
            "type": "rate_limit",
            "actions": ["*.pay"],
            "parameters": {"max_calls": 2, "window_seconds": 60},
        },
    ]
}
SCHEMA = {"type": "object", "properties": {"amount": {"type": "number"}}}
ATLAS = manifest(
    actions=[action("t.pay", parameters_schema=SCHEMA), action("t.read")],
    policies=[{"policy_id": "ask", "type": "require_approval", "actions": ["t.pay"]}],
)
BROUGHT = {"action_id": "x.pay", "parameters_schema": SCHEMA}


def case(action_id: str, amount: object, **expect: object) -> dict[str, object]:
    return {"name": f"{action_id} {amount}", "action_id": action_id, "args": {"amount": amount}, "expect": expect}


def written(tmp_path: Path, content: object, name: str) -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_they_are_about_actions_they_bring_and_actions_of_atlases(tmp_path: Path) -> None:
    overlay = load_policy_file(written(tmp_path, POLICIES, "ours.json"))
    spent = {
        **case("t.pay", 1, effect="deny", basis="rate_limit", policy_id="operator/few"),
        "approved": True,
        "counters": {"operator/few": 2},
    }
    mine = written(
        tmp_path,
        [
            {"name": "brought", "actions": [BROUGHT], "cases": [
                case("x.pay", 501, effect="deny", policy_id="operator/cap"),
                case("x.pay", 500, effect="allow"),
            ]},
            {"name": "declared", "cases": [
                case("t.pay", 501, effect="deny", policy_id="operator/cap"),
                case("t.pay", 500, effect="require_approval", policy_id="ask"),
                case("t.read", 0, effect="allow"),
                case("t.none", 0, effect="deny", policy_id="undeclared"),
                spent,
            ]},
        ],
        "cases.json",
    )  # fmt: skip
    run = run_case_files(load_case_files([mine]), [overlay], [load_atlas_text(json.dumps(ATLAS))])
    assert [result.failures for result in run.results] == [()] * 7
    assert [(each.policy_id, each.decided) for each in run.coverage.policies] == [
        ("operator/cap", True),
        ("operator/few", True),
    ]
    assert run.coverage.policies[0].missing() == {"when": ["error"]}


def test_every_problem_is_told_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    written(folder, "[1", "a.json")
    written(folder, "name: one\nactions: [{action_id: x.pay}]\ncases: [{name: a, action_id: x.pay}]", "b.yaml")
    twice = {
        "name": "two",
        "actions": [BROUGHT, BROUGHT],
        "cases": [{**case("x.pay", 1, effect="allow"), "at": "2026-02-30T00:00:00Z"}],
    }
    written(folder, twice, "c.json")
    written(folder, "nothing of ours", "notes.txt")
    with pytest.raises(AtlasInvalidError) as refusal:
        load_case_files([folder])
    assert [(each.file, each.pointer, each.code) for each in refusal.value.problems] == [
        ("a.json", "", "invalid_json"),
        ("b.yaml", "/cases/0", "missing_field"),
        ("c.json", "/cases/0/at", "invalid_format"),
        ("c.json", "/actions/1/action_id", "duplicate_id"),
    ]
    with pytest.raises(AtlasInvalidError):
        load_case_files([tmp_path / "none.json"])


def test_an_action_stands_for_one_thing(tmp_path: Path) -> None:
    overlay = load_policy_file(written(tmp_path, POLICIES, "ours.json"))
    brought = {"name": "a", "actions": [{**BROUGHT, "action_id": "t.pay"}], "cases": [case("t.pay", 1, effect="allow")]}
    files = load_case_files([written(tmp_path, brought, "cases.json")])
    with pytest.raises(AtlasConflictError):
        run_case_files(files, [overlay], [load_atlas_text(json.dumps(ATLAS))])
    with pytest.raises(AtlasConflictError):
        run_case_files(files, [overlay, overlay])
