"""What policy tests have seen of the policies: every policy decided, every condition true, false and in error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cra_mcp.atlas.case_coverage import may_fail, sentences
from cra_mcp.atlas.cases import Run, run
from cra_mcp.atlas.loader import load_atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError
from cra_mcp.policy.expression import parse_expression
from tests.atlas.conftest import action, manifest, problems

Folder = Callable[[Mapping[str, object]], Path]
PAY = {
    "type": "object",
    "properties": {"amount": {"type": "number"}, "note": {"type": "string"}},
    "required": ["amount"],
}


def outcome_of(folder: Folder, atlas: Mapping[str, object], *cases: Mapping[str, object], overlays: Any = ()) -> Run:
    named = [{"name": f"case {number}", **case} for number, case in enumerate(cases)]
    file = {"name": "all", "cases": named, **({"actions": TRIED} if atlas.get("overlay") else {})}
    return run(load_atlas(folder({"atlas.json": atlas, "tests/a.json": file})), overlays)


_EXPECTED = ("policy_id", "errors", "basis", "retry_after_seconds")


def case(effect: str, action_id: str = "t.pay", **more: object) -> dict[str, object]:
    expect = {"effect": effect, **{name: more.pop(name) for name in _EXPECTED if name in more}}
    return {"action_id": action_id, "expect": expect, **more}


def one_policy(**fields: object) -> dict[str, object]:
    policy = {"policy_id": "p", "type": "deny", "actions": ["t.pay"], **fields}
    return manifest(actions=[action("t.pay", parameters_schema=PAY), action("t.read")], policies=[policy])


TRIED = [
    {"action_id": "t.pay", "risk_tier": "high", "capabilities": ["money"], "parameters_schema": PAY},
    {"action_id": "t.read"},
]


def left(done: Run) -> list[str]:
    assert [result.failures for result in done.results if not result.passed] == []
    return sentences(done.coverage.policies)


def test_a_policy_counts_once_it_has_decided(folder: Folder) -> None:
    atlas = one_policy()
    done = outcome_of(folder, atlas, case("allow", "t.read"))
    assert (left(done), done.coverage.percent, done.coverage.policy_percent) == (["p (deny) never decided"], 0, 0)
    done = outcome_of(folder, atlas, case("deny"))
    assert (left(done), done.coverage.percent, done.coverage.policy_percent) == ([], 100, 100)


def test_without_policies_there_is_nothing_to_cover(folder: Folder) -> None:
    done = outcome_of(folder, manifest(actions=[action()]), case("allow", "t.read"))
    assert (done.coverage.percent, done.coverage.policy_percent, done.coverage.total) == (100, 100, 0)


@pytest.mark.parametrize(
    ("conditions", "true", "false"),
    [
        ({"agents": ["bot-*"]}, {"agent_id": "bot-1"}, {"agent_id": "man"}),
        ({"principals": ["ann"]}, {"subject": "ann"}, {"subject": "bob"}),
        ({"roles": ["admin"]}, {"roles": ["admin", "agent"]}, {"roles": ["agent"]}),
        ({"risk_tiers": ["critical"]}, {"task_risk": "critical"}, {}),
    ],
)
def test_each_condition_must_be_seen_true_and_false(
    folder: Folder, conditions: object, true: object, false: object
) -> None:
    atlas = one_policy(conditions=conditions)
    (name,) = conditions  # pyright: ignore[reportGeneralTypeIssues]
    assert left(outcome_of(folder, atlas, case("deny", facts=true))) == [f"p: {name} never false"]
    assert left(outcome_of(folder, atlas, case("allow", facts=false))) == [
        "p (deny) never decided",
        f"p: {name} never true",
    ]
    assert left(outcome_of(folder, atlas, case("deny", facts=true), case("allow", facts=false))) == []


def test_capabilities_times_and_argument_schemas_count_likewise(folder: Folder) -> None:
    schema = {"properties": {"amount": {"minimum": 10}}}
    atlas = manifest(
        atlas_id="com.example.o",
        overlay=True,
        policies=[
            {"policy_id": "money", "type": "require_approval", "conditions": {"capabilities": ["money"]}},
            {"policy_id": "night", "type": "deny", "conditions": {"time_window": {"start": "22:00", "end": "06:00"}}},
            {"policy_id": "large", "type": "deny", "conditions": {"arguments": schema, "risk_tiers": ["high"]}},
        ],
    )
    night = case("deny", "t.read", at="2026-01-05T23:00:00Z", policy_id="com.example.o/night")
    large = case("deny", args={"amount": 10})
    done = outcome_of(folder, atlas, large, night)
    assert left(done) == [
        "com.example.o/money (require_approval) never decided",
        "com.example.o/large: arguments never false",
    ]
    asked = case("require_approval", args={"amount": 1}, policy_id="com.example.o/money")
    assert left(outcome_of(folder, atlas, asked, large, night)) == []


def test_what_can_fail_must_be_seen_failing(folder: Folder) -> None:
    atlas = one_policy(when="args.amount > 5.0")
    seen = [case("deny", args={"amount": 6}), case("allow", args={"amount": 5})]
    assert left(outcome_of(folder, atlas, *seen)) == ["p: when never in error"]
    assert left(outcome_of(folder, atlas, *seen, case("deny", errors=["p"]))) == []
    atlas = one_policy(conditions={"context_matches": {"k": "v"}})
    assert left(outcome_of(folder, atlas, case("deny", facts={"context": {"k": "v"}}))) == [
        "p: context_matches never false nor in error"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("args.a > 1", True),
        ("has(args.a) && args.a > 1", False),
        ("has(args.a) && args.a > args.b", True),
        ("has(args.a) && args.a.b == 'x'", False),
        ("context.k == 'x'", True),
        ("has(context.k) && context.k == 'x'", False),
        ("has(args.k) && context.k == 'x'", True),
        ("agent.id == 'x'", False),
        ("size(args) > 3", True),
    ],
)
def test_an_expression_can_fail_where_it_does_not_ask_first(text: str, expected: bool) -> None:
    assert may_fail(parse_expression(text)) is expected


def test_what_fails_without_having_to_counts_for_nothing(folder: Folder) -> None:
    atlas = one_policy(when="has(args.amount) && args.amount > 5.0")
    done = outcome_of(folder, atlas, case("deny", args={"amount": "much"}, errors=["p"]))
    assert left(done) == ["p: when never true nor false"]
    assert (done.coverage.covered, done.coverage.total) == (1, 3)


def test_a_condition_does_not_hide_behind_another(folder: Folder) -> None:
    atlas = one_policy(conditions={"agents": ["bot"]}, when="has(args.note) && args.note == 'x'")
    done = outcome_of(folder, atlas, case("allow", facts={"agent_id": "man"}, args={"amount": 1, "note": "x"}))
    assert left(done) == ["p (deny) never decided", "p: agents never true", "p: when never false"]
    (result,) = done.results
    assert [(each.policy_id, dict(each.conditions)) for each in result.considered] == [
        ("p", {"agents": "false", "when": "true"})
    ]


def test_what_a_policy_is_not_about_shows_nothing_of_it(folder: Folder) -> None:
    done = outcome_of(
        folder, one_policy(conditions={"agents": ["bot"]}), case("allow", "t.read"), case("deny", "t.unheard")
    )
    assert done.coverage.covered == 0
    assert [list(result.considered) for result in done.results] == [[], []]


def test_counters_spend_limits_and_budgets(folder: Folder) -> None:
    atlas = manifest(
        actions=[action("t.pay", parameters_schema=PAY), action("t.read")],
        policies=[
            {
                "policy_id": "calm",
                "type": "rate_limit",
                "actions": ["t.read"],
                "parameters": {"max_calls": 3, "window_seconds": 60},
            },
            {
                "policy_id": "purse",
                "type": "budget",
                "actions": ["t.pay"],
                "parameters": {"max_cost": 100, "unit": "EUR", "window_seconds": 60, "cost": "args.amount"},
            },
            {"policy_id": "no", "type": "deny", "actions": ["t.none*"]},
        ],
    )
    done = outcome_of(
        folder,
        atlas,
        case("allow", "t.read", counters={"calm": 2}),
        case("deny", "t.read", counters={"calm": 3}, policy_id="calm", basis="rate_limit", retry_after_seconds=60),
        case("deny", "t.read", counters={"calm": 1_000_000_000}),
        case("allow", args={"amount": 40}, counters={"purse": 60}),
        case("deny", args={"amount": 40.5}, counters={"purse": 60}, policy_id="purse", basis="budget"),
        case("deny", args={"amount": 1}, counters={"purse": 1_000_000_000}, policy_id="purse", errors=[]),
        case("deny", counters={"purse": 1_000_000_000}, errors=["purse"]),
    )
    assert left(done) == ["no (deny) never decided"]
    wrong = outcome_of(folder, atlas, case("allow", "t.read", counters={"no": 1, "none": 1}))
    assert wrong.results[0].failures == (
        "counters: no limit or budget is called no",
        "counters: no limit or budget is called none",
    )


def test_what_was_not_expected_is_told_in_words(folder: Folder) -> None:
    atlas = one_policy(when="args.amount > 5.0")
    done = outcome_of(folder, atlas, case("deny", errors=[], retry_after_seconds=3, basis="budget"))
    assert done.results[0].failures == (
        "basis: expected budget, got deny",
        "errors: expected none, got p",
        "retry_after_seconds: expected 3, got none",
    )


def overlay(tmp_path: Path, text: str) -> Overlay:
    path = tmp_path / "ours.yaml"
    path.write_text(text, encoding="utf-8")
    return load_policy_file(path)


def test_overlays_in_force_decide_and_are_covered(folder: Folder, tmp_path: Path) -> None:
    ours = overlay(tmp_path, "policies: [{policy_id: none, type: deny, actions: ['*.pay']}]")
    done = outcome_of(
        folder, one_policy(conditions={"agents": ["bot"]}), case("deny", policy_id="operator/none"), overlays=[ours]
    )
    assert left(done) == ["p (deny) never decided", "p: agents never true"]
    pack = manifest(
        atlas_id="com.example.o", overlay=True, policies=[{"policy_id": "p", "type": "deny", "actions": ["*.read"]}]
    )
    done = outcome_of(folder, pack, case("deny", policy_id="operator/none"), case("deny", "t.read"), overlays=[ours])
    assert left(done) == []


def test_an_overlay_counts_once_and_fits_what_it_is_tried_on(folder: Folder, tmp_path: Path) -> None:
    pack = manifest(
        atlas_id="com.example.o",
        overlay=True,
        policies=[{"policy_id": "p", "type": "deny", "when": "args.amount > 5.0"}],
    )
    path = folder(
        {"atlas.json": pack, "tests/a.json": {"name": "a", "actions": TRIED, "cases": [{"name": "c", **case("deny")}]}}
    )
    with pytest.raises(AtlasConflictError):
        run(load_atlas(path), [load_overlay_atlas(path)])
    with pytest.raises(AtlasInvalidError) as error:
        run(load_atlas(path))
    assert [problem.code for problem in error.value.problems] == ["invalid_expression"]


def test_actions_to_be_tried_on_are_checked(folder: Folder) -> None:
    twice = {
        "name": "a",
        "actions": [{"action_id": "t.a"}, {"action_id": "t.a"}],
        "cases": [{"name": "c", **case("deny")}],
    }
    assert problems(folder({"atlas.json": one_policy(), "tests/a.json": twice})) == [
        ("tests/a.json", "/actions", "invalid_value"),
        ("tests/a.json", "/actions/1/action_id", "duplicate_id"),
    ]
    broken = {
        "name": "a",
        "actions": [{"action_id": "t.a", "parameters_schema": {"type": "string"}}],
        "cases": [{"name": "c", **case("deny")}],
    }
    pack = manifest(overlay=True, policies=[{"policy_id": "p", "type": "deny"}])
    assert problems(folder({"atlas.json": pack, "tests/a.json": broken})) == [
        ("tests/a.json", "/actions/0/parameters_schema", "invalid_schema")
    ]
