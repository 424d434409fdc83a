"""Explanations of calls: what they foretell is what the gate then does and records."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.gate.conftest import World, make_world
from tests.gate.test_call_conditions import RULES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    made.runtime.load_atlas_from_json(json.dumps(RULES))
    async with made.runtime:
        yield made


CALLS = [
    ("do.plain", {}),
    ("do.delete", {}),
    ("do.hidden", {}),
    ("do.pay", {}),
    ("do.unknown", {}),
    ("do.number", {"n": "x"}),
    ("do.delete", {"n": object}),
    ("pay.out", {"amount": 5}),
    ("pay.out", {"amount": 501}),
    ("pay.gone", {"amount": 2}),
    ("pay.gone", {}),
    ("pay.quiet", {"amount": 6}),
    ("pay.quiet", {}),
]


def without_at(payload: dict | None) -> dict:
    """The test's clock goes on between the two; whether the instant is stated must agree."""
    payload = payload or {}
    return {**payload, "at": "at" in payload}


@pytest.mark.parametrize(("action_id", "arguments"), CALLS)
async def test_the_event_foretold_is_the_one_the_call_leaves(world: World, action_id: str, arguments: dict) -> None:
    arguments = {key: value for key, value in arguments.items() if value is not object}
    facts = world.runtime.get_session(world.session).facts
    before = world.count()
    foretold = world.runtime.explain(action_id, arguments, facts=facts)
    assert world.count() == before
    outcome = await world.runtime.execute(world.session, action_id, arguments)
    recorded = world.payloads("policy.evaluated")[-1:]
    if outcome.status != "pending_approval":  # of which approval.requested tells
        assert [without_at(foretold.event)] == [without_at(each) for each in recorded or [None]]
    assert (foretold.decision.effect == "deny") == (outcome.status == "denied")
    assert bool(foretold.faults) == (outcome.fault is not None and outcome.fault.code == "invalid_parameters")


async def test_a_denied_call_can_be_explained_and_its_explanation_says_what_was_recorded(world: World) -> None:
    for _ in range(3):
        outcome = await world.runtime.execute(world.session, "do.limited")
    assert outcome.fault is not None
    assert outcome.fault.code == "rate_limited"
    explained = world.runtime.explain_outcome(outcome)
    assert explained.to_dict()["event"] == {
        "event_type": "policy.evaluated",
        "payload": world.payloads("policy.evaluated")[-1],
    }
    limit = next(each for each in explained.policy.policies if each.policy.policy_id == "limit")
    assert limit.to_dict()["room"]["spent"] == limit.to_dict()["room"]["maximum"] == 2
    assert limit.outcome == "decides"


async def test_an_action_nobody_declares_can_be_explained_too(world: World) -> None:
    outcome = await world.runtime.execute(world.session, "do.unknown")
    explained = world.runtime.explain_outcome(outcome)
    assert (explained.atlas_id, explained.decision.policy_id) == (None, "undeclared")
    assert not explained.to_dict()["at"].startswith("1970")


async def test_what_was_not_denied_has_no_explanation_and_outcomes_show_no_arguments(world: World) -> None:
    done = await world.runtime.execute(world.session, "do.plain")
    assert world.runtime.explain_outcome(done) is None
    denied = await world.runtime.execute(world.session, "do.delete", {"password": "hunter2"})
    assert world.runtime.explain_outcome(denied) is not None
    assert "hunter2" not in repr(denied)
    assert "hunter2" not in json.dumps(denied.to_dict())


async def test_a_freeze_shows_unless_policy_refuses_anyway(world: World) -> None:
    world.runtime.freeze("all", reason="fire")
    frozen = world.runtime.explain("do.plain", {})
    assert (frozen.decision.policy_id, frozen.policy.decision.effect) == ("freeze", "allow")
    assert frozen.event["policy_id"] == "freeze"
    assert world.runtime.explain("do.hidden", {}).decision.policy_id == "hide"


async def test_before_the_arguments_are_known_no_event_is_foretold(world: World) -> None:
    foreseen = world.runtime.explain("pay.out")
    assert (foreseen.policy.arguments, foreseen.event) == ("unknown", None)
    assert foreseen.to_dict()["event"] is None
    assert {each.policy.policy_id for each in foreseen.policy.policies if each.outcome == "waits"} == {"cap", "ask"}


async def test_an_approved_call_can_be_explained_as_such(world: World) -> None:
    assert world.runtime.explain("do.pay", {}).decision.effect == "require_approval"
    assert world.runtime.explain("do.pay", {}, approved=True).decision.effect == "allow"


async def test_secrets_are_not_shown_whether_the_schema_marks_them_or_a_detector_finds_them() -> None:
    rules = {
        **RULES,
        "actions": [
            {
                **RULES["actions"][0],
                "parameters_schema": {
                    "type": "object",
                    "properties": {
                        "pin": {"type": "string", "x-cra-sensitive": True},
                        "note": {"type": "string"},
                        "n": {"type": "integer"},
                    },
                },
            }
        ],
        "policies": [
            {
                "policy_id": "all",
                "type": "deny",
                "conditions": {
                    "arguments": {"properties": {"pin": {"const": "1"}}},
                    "context_matches": {"note": "*"},
                },
                "when": "args.pin != args.note && context.note != args.pin",
            },
        ],
    }
    world = make_world()
    world.runtime.load_atlas_from_json(json.dumps(rules))
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"
    given = {"pin": "98765", "note": f"use {token}", "n": 3}
    facts = world.runtime.get_session(world.session).facts
    explained = world.runtime.explain("pay.out", given, facts=replace(facts, context={"note": f"key {token}"}))
    shown = json.dumps(explained.to_dict())
    assert "98765" not in shown
    assert token not in shown
    assert explained.policy.policies[0].parts[-1].truth == "true"
    invalid = world.runtime.explain("pay.out", {"pin": 98765, "n": "98765"})
    assert {fault.pointer for fault in invalid.faults} == {"/pin", "/n"}
    assert "98765" not in json.dumps(invalid.to_dict())
