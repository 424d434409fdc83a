"""Which calls have what approves them on disk before they run: as their atlas says, and never less than the operator does."""

import json

import pytest

from cra_mcp.errors import SettingsError
from cra_mcp.settings import RuntimeConfig, from_environment
from tests.gate.conftest import ATLAS, World, action, make_world

pytestmark = pytest.mark.anyio

ASK = {"policy_id": "ask", "type": "require_approval", "actions": ["act.asked*"], "reason": "money"}
ACTIONS = [
    action("act.low"),
    action("act.high", risk_tier="high"),
    action("act.asked"),
    action("act.low_durable", durability="durable"),
    action("act.high_kernel", risk_tier="high", durability="kernel"),
    action("act.asked_kernel", durability="kernel"),
]
# Whether it is on disk, by the operator's setting.
EXPECTED = {
    "act.low": {"atlas": False, "risk": False, "durable": True},
    "act.high": {"atlas": True, "risk": True, "durable": True},
    "act.asked": {"atlas": True, "risk": True, "durable": True},
    "act.low_durable": {"atlas": True, "risk": True, "durable": True},
    "act.high_kernel": {"atlas": False, "risk": True, "durable": True},
    "act.asked_kernel": {"atlas": False, "risk": True, "durable": True},
}


def load(world: World, **head: object) -> None:
    atlas = {**ATLAS, "atlas_id": "com.example.durable", "actions": ACTIONS, "policies": [ASK], **head}
    world.runtime.load_atlas_from_json(json.dumps(atlas))


async def was_durable(world: World, action_id: str) -> bool:
    """Call an action, with a person's consent where it needs one; whether its approval was stored durably."""
    outcome = await world.runtime.execute(world.session, action_id, {})
    if outcome.approval is not None:
        world.ledger.settle(outcome.approval.approval_id, granted=True, by="a person", channel="cli")
        world.store.durable.clear()
        outcome = await world.runtime.execute(world.session, action_id, {})
    assert outcome.status == "success"
    *_, approval, result = world.store.durable
    assert result is False
    return approval


@pytest.mark.parametrize("least", ["atlas", "risk", "durable"])
@pytest.mark.parametrize("action_id", EXPECTED)
async def test_the_operator_can_raise_what_an_atlas_asks_for_and_not_lower_it(action_id: str, least: str) -> None:
    world = make_world(durability=least)
    load(world)
    assert await was_durable(world, action_id) is EXPECTED[action_id][least]


async def test_an_atlas_says_it_for_all_of_its_actions_and_an_action_for_itself() -> None:
    world = make_world()
    load(world, durability="kernel")
    assert await was_durable(world, "act.high") is False
    assert await was_durable(world, "act.low_durable") is True


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(SettingsError, match="durability"):
        RuntimeConfig(durability="fast")  # pyright: ignore[reportArgumentType]
    assert from_environment({"CRA_DURABILITY": "risk", "CRA_SEGMENT_BYTES": "4096"}).durability == "risk"
