"""``policy explain`` as a person and a script meet it."""

import json
from pathlib import Path

import pytest

from tests.faces.cli.conftest import cra

MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.pay",
    "version": "1.0.0",
    "name": "Pay",
    "description": "d",
    "actions": [
        {
            "action_id": "pay.out",
            "name": "Pay",
            "description": "Pays.",
            "parameters_schema": {
                "type": "object",
                "properties": {"amount": {"type": "number"}, "pin": {"type": "string", "writeOnly": True}},
            },
        },
        {"action_id": "pay.list", "name": "List", "description": "Lists.", "parameters_schema": {"type": "object"}},
    ],
    "policies": [
        {
            "policy_id": "cap",
            "type": "deny",
            "actions": ["pay.out"],
            "when": "args.amount > 500.0 || args.pin == '0'",
            "disclose": False,
        },
        {"policy_id": "night", "type": "deny", "conditions": {"time_window": {"start": "22:00", "end": "06:00"}}},
        {"policy_id": "prod", "type": "require_approval", "conditions": {"context_matches": {"env": "prod*"}}},
        {"policy_id": "few", "type": "rate_limit", "parameters": {"max_calls": 3, "window_seconds": 60}},
    ],
}
NOON = "2026-11-20T12:00:00Z"


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    path = tmp_path / "pay.json"
    path.write_text(json.dumps(MANIFEST))
    return path


def explained(atlas: Path, *options: str | Path, action: str = "pay.out") -> dict:
    done = cra("policy", "explain", action, "--atlas", atlas, "--data-dir", atlas.parent / "data", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_policy_is_told_with_its_match_its_values_and_the_event(atlas: Path) -> None:
    args = json.dumps({"amount": 501, "pin": "98765"})
    told = explained(atlas, "--args", args, "--agent", "bot", "--context", "env=dev", "--at", NOON)
    assert (told["decision"]["effect"], told["decision"]["policy_id"]) == ("deny", "cap")
    assert [(each["policy_id"], each["outcome"], each["consulted"]) for each in told["policies"]] == [
        ("cap", "decides", True),
        ("night", "does_not_apply", True),
        ("prod", "does_not_apply", False),
        ("few", "applies", False),
    ]
    assert told["policies"][0]["conditions"][0]["read"] == {"args.amount": 501, "args.pin": "[redacted]"}
    assert told["policies"][3]["room"]["spent"] == 0
    assert told["at"] == "2026-11-20T12:00:00.000000Z"
    assert told["event"]["payload"] == {
        "action_id": "pay.out",
        "policy_id": "cap",
        "result": "deny",
        "basis": "deny",
        "determining": ["cap"],
        "at": "2026-11-20T12:00:00.000000Z",
        "disclosed": False,
        "called": "pay.out",
    }


def test_requester_time_and_approval_can_be_chosen_and_nothing_is_recorded(atlas: Path) -> None:
    night = explained(atlas, "--at", "2026-11-21T00:30:00+01:00", action="pay.list")
    assert night["decision"]["policy_id"] == "night"
    asked = explained(atlas, "--context", "env=prod-eu", "--at", NOON, action="pay.list")
    assert asked["decision"]["effect"] == "require_approval"
    granted = explained(atlas, "--context", "env=prod", "--at", NOON, "--approved", action="pay.list")
    assert granted["decision"]["effect"] == "allow"
    assert not list(atlas.parent.rglob("*.trace.jsonl"))


def test_the_operators_policies_are_told_before_those_of_the_atlas(atlas: Path) -> None:
    mine = atlas.with_name("mine.yaml")
    mine.write_text(
        "policies:\n- {policy_id: stop, type: deny, conditions: {roles: [auditor], principals: ['ann*']}}\n"
    )
    told = explained(
        atlas, "--policy", mine, "--role", "auditor", "--principal", "anna", "--at", NOON, action="pay.list"
    )
    assert told["policies"][0]["policy_id"] == "operator/stop"
    assert told["decision"]["determining"] == ["operator/stop"]
    assert [layer["overlay"] for layer in told["layers"]] == ["operator", None]


def test_people_are_told_what_decides_what_is_missing_and_what_is_not_known(atlas: Path) -> None:
    base = ("policy", "explain", "pay.out", "--atlas", atlas, "--data-dir", atlas.parent / "data", "--at", NOON)
    unknown = cra(*base)
    assert unknown.returncode == 0
    assert "the arguments are not known" in unknown.stdout
    assert "? deny             cap" in unknown.stdout
    assert "context.env is missing" in unknown.stdout
    assert "failed closed" in unknown.stdout
    assert "EVENT" not in unknown.stdout
    unseen = cra(*base, "--args", json.dumps({"amount": 1, "pin": "1\0"}))
    assert (
        "args.pin holds a NUL character: the expression can't be evaluated exactly, so it fails closed" in unseen.stdout
    )
    denied = cra(*base, "--args", '{"amount": 501}')
    assert "pay.out: deny by cap (deny), at 2026-11-20T12:00:00.000000Z" in denied.stdout
    assert "not disclosed" in denied.stdout
    assert "* deny             cap" in denied.stdout
    assert "args.amount = 501" in denied.stdout
    assert "0 of 3 calls spent in 60 s per agent; this call takes 1" in denied.stdout
    assert "EVENT policy.evaluated" in denied.stdout
    invalid = cra(*base, "--args", '{"amount": "x"}')
    assert "the arguments are not valid: /amount" in invalid.stdout


def test_an_undeclared_action_is_explained_as_such(atlas: Path) -> None:
    assert explained(atlas, action="pay.steal")["decision"]["policy_id"] == "undeclared"


@pytest.mark.parametrize(
    "options",
    [
        ("--at", "tomorrow"),
        ("--at", "2026-11-20T12:00:00"),
        ("--context", "env"),
        ("--context", "=x"),
        ("--args", "[]"),
        ("--args", "{"),
        ("--risk-tier", "extreme"),
        ("--role", "intern"),
    ],
)
def test_what_cannot_be_read_is_wrong_usage(atlas: Path, options: tuple[str, str]) -> None:
    done = cra("policy", "explain", "pay.out", "--atlas", atlas, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert options[0] in done.stderr
