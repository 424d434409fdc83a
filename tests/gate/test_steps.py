"""Which refusal is named where several refuse: the steps of a call, in their order."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.gate.conftest import World, action, make_world

pytestmark = pytest.mark.anyio

SENT = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
RULES = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.steps",
    "version": "1.0.0",
    "name": "Steps",
    "description": "d",
    "default_effect": "deny",
    "actions": [
        action(name, parameters_schema=SENT)
        for name in ("all.open", "all.closed", "all.never", "all.quiet", "all.hidden", "all.late", "all.spends", "all.shut")
    ],
    "policies": [
        {"policy_id": "open", "type": "allow", "actions": ["all.open", "all.late", "all.spends", "all.quiet"]},
        {"policy_id": "shut", "type": "allow", "actions": ["all.shut"], "when": "has(context.never) && args.n == 1"},
        {"policy_id": "never", "type": "deny", "actions": ["all.never"]},
        {"policy_id": "hidden", "type": "deny", "actions": ["all.hidden"], "disclose": False},
        {"policy_id": "late", "type": "deny", "actions": ["all.late"], "when": "args.n == 1"},
        {"policy_id": "quiet", "type": "deny", "actions": ["all.quiet"], "when": "args.n == 1", "disclose": False},
        {"policy_id": "few", "type": "rate_limit", "parameters": {"max_calls": 1, "window_seconds": 60}},
        {
            "policy_id": "spend",
            "type": "budget",
            "actions": ["all.spends", "all.closed"],
            "parameters": {"max_cost": 0, "window_seconds": 60},
        },
    ],
}  # fmt: skip


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    made.runtime.load_atlas_from_json(json.dumps(RULES))
    async with made.runtime:
        yield made


async def told(world: World, action_id: str, **parameters: object) -> tuple[str, str | None]:
    """The code, and the policy that is recorded."""
    before = world.count()
    outcome = await world.runtime.execute(world.session, action_id, parameters)
    named = [event.payload.get("policy_id") for event in world.runtime.get_trace(world.session)[before:]]
    return outcome.fault.code if outcome.fault is not None else "none", next((each for each in named if each), None)


ROWS = [
    # action, code and policy: with good arguments, with bad ones, and with good ones while everything is frozen
    ("all.unknown", ("unknown_action", "undeclared"), ("unknown_action", "undeclared"), ("unknown_action", "undeclared")),
    ("all.never", ("denied", "never"), ("denied", "never"), ("denied", "never")),
    ("all.hidden", ("unknown_action", "hidden"), ("unknown_action", "hidden"), ("unknown_action", "hidden")),
    ("all.closed", ("denied", "default"), ("denied", "default"), ("denied", "default")),
    ("all.shut", ("denied", "default"), ("denied", "default"), ("denied", "default")),
    ("all.late", ("denied", "late"), ("invalid_parameters", "parameters_schema"), ("frozen", "freeze")),
    ("all.quiet", ("unknown_action", "quiet"), ("invalid_parameters", "parameters_schema"), ("frozen", "freeze")),
    ("all.open", ("rate_limited", "few"), ("invalid_parameters", "parameters_schema"), ("frozen", "freeze")),
    ("all.spends", ("rate_limited", "few"), ("invalid_parameters", "parameters_schema"), ("frozen", "freeze")),
]  # fmt: skip


@pytest.mark.parametrize(("action_id", "good", "bad", "frozen"), ROWS, ids=[row[0] for row in ROWS])
async def test_the_first_step_that_refuses_names_the_reason(world: World, action_id: str, good, bad, frozen) -> None:
    if action_id != "all.spends":
        assert await told(world, "all.open", n=1) == ("none", "open")
    else:
        assert await told(world, action_id, n=1) == ("budget_exceeded", "spend")
        assert await told(world, "all.open", n=1) == ("none", "open")
    assert await told(world, action_id, n=1) == good
    assert await told(world, action_id, n="1") == bad
    world.runtime.freeze("all", reason="drill")
    assert await told(world, action_id, n=1) == frozen
