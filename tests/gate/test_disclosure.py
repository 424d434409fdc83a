"""A call of what policy hides takes the steps of a call of what isn't there, and looks like one to its agent."""

import json
import re

import pytest

from cra_mcp.trace.view import view_of
from tests.gate.conftest import ATLAS, World, make_world

pytestmark = pytest.mark.anyio

SECRET = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"


def seen(world: World) -> list[str]:
    """What an agent may see of the session, without ids and times."""
    lines = world.runtime.read_trace(world.session)
    text = [view_of(line, at).decode() for at, line in enumerate(lines)]
    return [re.sub(r'"[0-9a-f-]{36}"|"20[0-9-]{8}T[^"]*"|"sequence":\d+', "ID", line) for line in text]


@pytest.mark.parametrize("mode", ["none", "hash", "redacted", "full"])
async def test_hidden_and_unknown_leave_the_same_events_and_look_alike_in_the_view(mode: str) -> None:
    world = make_world(recording=mode)
    async with world.runtime:
        before = world.count()
        for action_id, called in (("do.hidden", "a_name"), ("a_name", "a_name")):
            parameters = {"secret": SECRET, "mail": "ann@example.org"}
            outcome = await world.runtime.execute(world.session, action_id, parameters, called=called)
            assert outcome.status == "denied"
        after = world.count()
        half = before + (after - before) // 2
        shown = seen(world)
        assert shown[before:half] == shown[half:]
        assert "a_name" in "".join(shown[before:])
        assert not re.search(r"do\.hidden|hide|secret", "".join(shown))
        hidden, unknown = world.payloads("action.requested")
        assert (hidden["action_id"], hidden["called"], hidden["disclosed"]) == ("do.hidden", "a_name", False)
        assert "called" not in unknown
        kept = {"parameters": {"secret": SECRET, "mail": "ann@example.org"}} if mode == "full" else {"parameters": None}
        assert kept.items() <= hidden.items()
        assert kept.items() <= unknown.items()
        assert [each["policy_id"] for each in world.payloads("action.denied")] == ["hide", "undeclared"]


async def test_nothing_is_bound_for_a_call_of_a_hidden_action(world: World) -> None:
    for action_id in ("do.hidden", "do.unheard_of"):
        await world.runtime.execute(world.session, action_id, {})
    assert world.backend.bound == []
    await world.runtime.execute(world.session, "do.plain", {})
    assert world.backend.bound == ["do.plain"]


async def test_what_was_not_offered_is_unknown_whatever_has_its_id(world: World) -> None:
    outcome = await world.runtime.execute(world.session, "do.plain", {}, offered=False)
    assert outcome.fault is not None
    assert outcome.fault.code == "unknown_action"
    assert world.payloads("action.denied")[-1]["policy_id"] == "undeclared"
    assert world.backend.done == []


async def test_what_a_resolution_hides_is_decided_again_once_its_atlas_has_changed(world: World) -> None:
    held = world.runtime.resolve(world.session)
    assert set(held.outcome.hidden) == {"do.hidden"}
    world.runtime.unload_atlas(ATLAS["atlas_id"])
    opened = {**ATLAS, "policies": [each for each in ATLAS["policies"] if each["policy_id"] != "hide"]}
    world.runtime.load_atlas_from_json(json.dumps(opened))
    outcome = await world.runtime.execute(world.session, "do.hidden", {}, resolution_id=held.resolution_id)
    assert outcome.status == "success"


async def test_the_view_of_a_resolution_has_no_trace_of_what_it_hides(world: World) -> None:
    completed = world.payloads("carp.resolution.completed") if world.session else []
    assert completed[0]["undisclosed"] == ["do.hidden"]
    assert "do.hidden" in [each["action_id"] for each in completed[0]["denied"]]
    shown = next(line for line in seen(world) if "resolution.completed" in line)
    assert not re.search(r"hidden|hide|undisclosed|digest", shown)
    assert f'"denied_count":{len(completed[0]["denied"]) - 1}' in shown
