"""Policy tests of a package, run."""

from collections.abc import Callable, Mapping
from pathlib import Path

from cra_mcp.atlas.cases import run_cases
from cra_mcp.atlas.loader import load_atlas
from tests.atlas.conftest import action, manifest

Folder = Callable[[Mapping[str, object]], Path]

ATLAS = manifest(
    actions=[action("t.read"), action("t.write"), action("t.secret"), action("t.delete")],
    policies=[
        {"policy_id": "no", "type": "deny", "actions": ["t.delete"]},
        {"policy_id": "hide", "type": "deny", "actions": ["t.secret"], "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["t.write"]},
        {
            "policy_id": "office",
            "type": "deny",
            "actions": ["t.read"],
            "conditions": {"time_window": {"start": "18:00", "end": "08:00"}},
        },
        {"policy_id": "calm", "type": "rate_limit", "parameters": {"max_calls": 2, "window_seconds": 60}},
    ],
)


def run(folder: Folder, *cases: dict[str, object]) -> list[tuple[str, ...]]:
    named = [{"name": f"case {number}", **case} for number, case in enumerate(cases)]
    atlas = load_atlas(folder({"atlas.json": ATLAS, "tests/a.json": {"name": "all", "cases": named}}))
    return [result.failures for result in run_cases(atlas)]


def case(action_id: str, effect: str, policy_id: str | None = None, **more: object) -> dict[str, object]:
    expect = {"effect": effect, **({"policy_id": policy_id} if policy_id else {})}
    return {"action_id": action_id, "expect": expect, **more}


def test_what_the_policies_say_passes(folder: Folder) -> None:
    outcomes = run(
        folder,
        case("t.read", "allow", "default"),
        case("t.read", "deny", "office", at="2026-01-05T18:00:00Z"),
        case("t.read", "allow", calls_before=1),
        case("t.read", "deny", "calm", calls_before=2),
        case("t.write", "require_approval", "ask"),
        case("t.write", "allow", approved=True),
        case("t.write", "deny", "calm", approved=True, calls_before=2),
        case("t.write", "require_approval", calls_before=2),  # what waits for approval costs nothing yet
        case("t.delete", "deny", "no", calls_before=1_000),
        {"action_id": "t.secret", "expect": {"effect": "deny", "disclose": False}},
        case("t.unheard", "deny", "undeclared"),
    )
    assert outcomes == [()] * len(outcomes)


def test_what_they_do_not_say_is_named(folder: Folder) -> None:
    outcomes = run(
        folder,
        case("t.read", "deny", "no"),
        {"action_id": "t.delete", "expect": {"effect": "deny", "disclose": False}},
    )
    assert outcomes == [
        ("effect: expected deny, got allow", "policy_id: expected no, got default"),
        ("disclose: expected False, got True",),
    ]


def test_cases_do_not_see_each_other(folder: Folder) -> None:
    outcomes = run(folder, *(case("t.read", "allow", calls_before=1) for _ in range(5)))
    assert outcomes == [()] * 5


def test_facts_reach_the_engine(folder: Folder) -> None:
    limited = manifest(
        actions=[action()],
        policies=[
            {
                "policy_id": "who",
                "type": "allow",
                "conditions": {"agents": ["bot-*"], "context_matches": {"region": "eu-*"}, "risk_tiers": ["high"]},
            }
        ],
    )
    facts = {"agent_id": "bot-1", "context": {"region": "eu-west"}, "task_risk": "high"}
    cases = [
        {"name": "all", "facts": facts, **case("t.read", "allow", "who")},
        {"name": "agent", "facts": {**facts, "agent_id": "man-1"}, **case("t.read", "deny", "default")},
        {"name": "context", "facts": {**facts, "context": {}}, **case("t.read", "deny")},
        {"name": "risk", "facts": {**facts, "task_risk": "low"}, **case("t.read", "deny")},
    ]
    atlas = load_atlas(folder({"atlas.json": limited, "tests/a.json": [{"name": "a", "cases": cases}]}))
    assert [result.case.name for result in run_cases(atlas) if not result.passed] == []
