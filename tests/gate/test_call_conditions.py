"""Policies that the arguments decide, and budgets, on real calls."""

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from cra_mcp.execution.backend import Invocation, Result
from tests.gate.conftest import World, action, make_world

pytestmark = pytest.mark.anyio

PAY = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
RULES = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.rules",
    "version": "1.0.0",
    "name": "Rules",
    "description": "d",
    "actions": [
        action("pay.out", parameters_schema=PAY),
        action("pay.gone", parameters_schema=PAY),
        action("pay.quiet", parameters_schema=PAY),
        action("ask.model"),
        action("ask.fails"),
        action("ask.calls"),
    ],
    "policies": [
        {"policy_id": "cap", "type": "deny", "actions": ["pay.out"], "when": "args.amount > 500.0", "reason": "too much"},
        {"policy_id": "ask", "type": "require_approval", "actions": ["pay.out"], "when": "args.amount > 100.0"},
        {"policy_id": "gone", "type": "deny", "actions": ["pay.gone"], "when": "action.id == 'pay.gone'"},
        {"policy_id": "also", "type": "deny", "actions": ["pay.gone"], "when": "args.amount > 1.0"},
        {
            "policy_id": "quiet",
            "type": "deny",
            "actions": ["pay.quiet"],
            "when": "args.amount > 5.0",
            "disclose": False,
            "reason": "nobody's business",
        },
        {
            "policy_id": "spend",
            "type": "budget",
            "actions": ["ask.*"],
            "conditions": {"agents": ["agent"]},
            "parameters": {"max_cost": 3, "unit": "usd", "window_seconds": 60, "cost": "result.usd", "reserve": 1},
        },
        {
            "policy_id": "few",
            "type": "budget",
            "actions": ["ask.calls"],
            "parameters": {"max_cost": 2, "window_seconds": 60, "scope": "global"},
        },
    ],
}  # fmt: skip


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    made.runtime.load_atlas_from_json(json.dumps(RULES))
    async with made.runtime:
        yield made


async def call(world: World, action_id: str, **parameters: object) -> tuple[str, str | None]:
    outcome = await world.runtime.execute(world.session, action_id, parameters)
    return outcome.status, outcome.fault.code if outcome.fault is not None else None


async def test_the_arguments_decide(world: World) -> None:
    assert await call(world, "pay.out", amount=100) == ("success", None)
    assert await call(world, "pay.out", amount=100.5) == ("pending_approval", "approval_pending")
    assert await call(world, "pay.out", amount=501) == ("denied", "denied")
    assert world.payloads("policy.evaluated")[-1]["policy_id"] == "cap"
    assert len(world.backend.done) == 1


async def test_a_string_that_policy_cannot_see_to_its_end_reaches_no_back_end(world: World) -> None:
    said = {"type": "object", "properties": {"message": {"type": "string"}, "to": {"type": "object"}}}
    rules = {
        **RULES,
        "atlas_id": "com.example.chat",
        "actions": [action("chat.send", parameters_schema=said)],
        "policies": [
            {"policy_id": "ping", "type": "allow", "when": "args.message == 'ping' && !(args.to.name == 'x')"}
        ],
    }
    world.runtime.load_atlas_from_json(json.dumps(rules))
    assert await call(world, "chat.send", message="ping", to={"name": "y"}) == ("success", None)
    assert await call(world, "chat.send", message="ping\0; drop table users", to={"name": "y"}) == ("denied", "denied")
    assert await call(world, "chat.send", message="ping", to={"name": "x\0"}) == ("denied", "denied")
    assert world.payloads("policy.evaluated")[-1]["errors"] == ["ping"]
    assert len(world.backend.done) == 1


async def test_arguments_are_checked_against_the_schema_before_a_policy_sees_them(world: World) -> None:
    assert await call(world, "pay.out", amount="501") == ("error", "invalid_parameters")
    assert await call(world, "pay.out") == ("error", "invalid_parameters")


async def test_what_is_denied_whatever_the_arguments_is_denied_before_they_are_looked_at(world: World) -> None:
    assert await call(world, "pay.gone", amount="nonsense") == ("denied", "denied")
    assert world.payloads("policy.violated")[-1]["policy_id"] == "gone"


async def test_what_no_policy_allows_is_told_so_and_not_to_come_again_when_a_limit_has_room(world: World) -> None:
    closed = {
        **RULES,
        "atlas_id": "com.example.closed",
        "default_effect": "deny",
        "actions": [action("door.open"), action("door.shut")],
        "policies": [
            {"policy_id": "open", "type": "allow", "actions": ["door.open"]},
            {"policy_id": "once", "type": "rate_limit", "parameters": {"max_calls": 1, "window_seconds": 60}},
        ],
    }
    world.runtime.load_atlas_from_json(json.dumps(closed))
    assert await call(world, "door.open") == ("success", None)
    assert await call(world, "door.open") == ("denied", "rate_limited")
    assert await call(world, "door.shut") == ("denied", "denied")
    assert world.payloads("policy.evaluated")[-1]["basis"] == "default"


async def test_what_the_arguments_hide_looks_unknown_and_is_announced_nowhere(world: World) -> None:
    assert await call(world, "pay.quiet", amount=5) == ("success", None)
    assert await call(world, "pay.quiet", amount=6) == ("denied", "unknown_action")
    told = json.dumps(world.runtime.resolve(world.session).to_dict())
    assert "pay.quiet" in told
    assert "nobody" not in told
    assert "5.0" not in told


async def test_a_resolution_lists_what_waits_for_the_arguments(world: World) -> None:
    resolution = world.runtime.resolve(world.session, atlas_ids=["com.example.rules"])
    constraints = {each["constraint_id"]: each for each in resolution.to_dict()["constraints"]}
    assert constraints["cap"] == {
        "constraint_id": "cap",
        "type": "arguments",
        "parameters": {
            "policy_type": "deny",
            "reason": "too much",
            "when": "args.amount > 500.0",
            "actions": ["pay.out"],
        },
    }
    assert constraints["com.example.rules/spend"]["type"] == "budget"
    assert {"ask", "cap"} <= set(constraints)
    assert [item.action.action_id for item in resolution.denied_actions] == ["pay.gone"]


def priced(usd: object):
    async def run(_invocation: Invocation) -> Result:
        return Result(value={"usd": usd})

    return run


async def test_what_a_result_tells_takes_the_place_of_the_reserve(world: World) -> None:
    world.backend.behaviour["ask.model"] = priced(0.25)
    assert await call(world, "ask.model") == ("success", None)
    assert world.payloads("action.executed")[-1]["costs"] == [{"policy_id": "spend", "unit": "usd", "cost": 0.25}]
    world.backend.behaviour["ask.model"] = priced(2)
    assert await call(world, "ask.model") == ("success", None)
    assert await call(world, "ask.model") == ("denied", "budget_exceeded")
    violated = world.payloads("policy.violated")[-1]
    assert (violated["policy_id"], violated["violation_type"]) == ("spend", "budget")


async def test_a_result_that_tells_no_cost_leaves_the_reserve_spent_and_so_does_a_failure(world: World) -> None:
    async def fails(_invocation: Invocation) -> Result:
        raise ValueError

    world.backend.behaviour["ask.model"] = priced("a lot")
    world.backend.behaviour["ask.fails"] = fails
    assert await call(world, "ask.model") == ("success", None)
    assert world.payloads("action.executed")[-1]["costs"] == [{"policy_id": "spend", "unit": "usd", "cost": 1.0}]
    assert await call(world, "ask.fails") == ("error", "execution_failed")
    assert await call(world, "ask.model") == ("success", None)
    outcome = await world.runtime.execute(world.session, "ask.model", {})
    assert outcome.fault is not None
    assert outcome.fault.details["retry_after_seconds"] == 60


async def test_a_call_under_way_when_its_atlas_is_unloaded_keeps_its_reserve(world: World) -> None:
    async def unloads(_invocation: Invocation) -> Result:
        world.runtime.unload_atlas("com.example.rules")
        return Result(value={"usd": 0})

    world.backend.behaviour["ask.model"] = unloads
    assert await call(world, "ask.model") == ("success", None)
    assert world.payloads("action.executed")[-1]["costs"][0]["cost"] == 1.0


async def test_a_budget_of_calls_holds_under_64_concurrent_callers() -> None:
    world = make_world(max_concurrency=64)
    world.runtime.load_atlas_from_json(json.dumps(RULES))
    outcomes: list[str] = []

    async def one() -> None:
        outcomes.append((await call(world, "ask.calls"))[0])

    world.backend.behaviour["ask.calls"] = priced(0)
    async with world.runtime:
        assert world.session
        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(one)
        assert sorted(outcomes) == ["denied"] * 62 + ["success"] * 2
        assert len(world.backend.done) == 2


async def test_a_call_that_can_never_fit_is_told_that_waiting_does_not_help(world: World) -> None:
    world.runtime.load_atlas_from_json(
        json.dumps(
            {
                **RULES,
                "atlas_id": "com.example.costly",
                "actions": [action("buy.all", cost=9, parameters_schema=PAY)],
                "policies": [
                    {
                        "policy_id": "purse",
                        "type": "budget",
                        "parameters": {"max_cost": 5, "unit": "usd", "window_seconds": 60},
                    }
                ],
            }
        )
    )
    outcome = await world.runtime.execute(world.session, "buy.all", {"amount": 1})
    assert outcome.fault is not None
    assert outcome.fault.code == "budget_exceeded"
    assert "retry_after_seconds" not in outcome.fault.details
