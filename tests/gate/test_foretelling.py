"""What is explained is what the gate then answers: random policies, limits, freezes, arguments and closed layers."""

import json
from collections.abc import Mapping

import anyio
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.gate.conftest import World, action, make_world

SENT = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
    "additionalProperties": False,
}
ACTIONS = ("one.read", "one.write", "two.write")
WHENS = (
    None, None, "args.n > 5", "args.s == 'x'", "has(args.n) && agent.id == 'agent'",
    "args.n == 1 && agent.id == 'other'", "agent.id == 'other'",
    "agent.id == 'agent' || args.n == 2", "context.none == 1", "1 / args.n == 1", "true",
)  # fmt: skip
COSTS = (None, {"unit": "usd", "cost": "args.n"}, {"unit": "usd", "cost": "context.none"}, {"unit": "usd", "cost": "2"})
ARGUMENTS = (
    {},
    {"n": 1},
    {"n": 6, "s": "x"},
    {"n": "6"},
    {"m": 1},
    {"s": "x\0"},
    {"s": "\ud800"},
    {"n": 2**53},
    {"n": 0, "s": "x"},
)


@st.composite
def policies(draw, number):
    kind = draw(
        st.sampled_from(["deny", "require_approval", "rate_limit", "rate_limit", "budget", "budget", "allow", "allow"])
    )
    made = {"policy_id": f"p{number}", "type": kind, "actions": [draw(st.sampled_from(["*", "*", "one.*", "*.write"]))]}
    made["priority"] = draw(st.sampled_from([0, 0, 1]))
    if (when := draw(st.sampled_from(WHENS))) is not None:
        made["when"] = when
    if draw(st.integers(0, 5)) == 0:
        made["conditions"] = draw(
            st.sampled_from([{"risk_tiers": ["high"]}, {"agents": ["other"]}, {"context_matches": {"none": "*"}}])
        )
    if kind == "deny" and draw(st.booleans()):
        made["disclose"] = False
    if kind == "rate_limit":
        made["parameters"] = {"max_calls": draw(st.integers(1, 2)), "window_seconds": 60}
    if kind == "budget":
        cost = draw(st.sampled_from(COSTS))
        made["parameters"] = {"max_cost": draw(st.sampled_from([0, 1, 3, 10])), "window_seconds": 90, **(cost or {})}
    return made


@st.composite
def atlases(draw):
    return {
        "atlas_version": "1.0",
        "atlas_id": "com.example.told",
        "version": "1.0.0",
        "name": "Told",
        "description": "d",
        "default_effect": draw(st.sampled_from(["allow", "deny"])),
        "actions": [action(name, parameters_schema=SENT, cost=1) for name in ACTIONS],
        "policies": [draw(policies(number)) for number in range(draw(st.integers(0, 6)))],
    }


steps = st.lists(
    st.tuples(
        st.sampled_from([*ACTIONS, "one.gone"]),
        st.sampled_from(ARGUMENTS),
        st.sampled_from(["", "", "", "", "agent", "all", "lift"]),
    ),
    min_size=1,
    max_size=7,
)
REFUSED = {"rate_limit": "rate_limited", "budget": "budget_exceeded", "freeze": "frozen"}


def code_of(told) -> str:
    """What the answer of a call must be, by its explanation."""
    decision = told.decision
    if decision.effect == "deny" and decision.basis in {"deny", "default", "freeze"}:
        return REFUSED.get(decision.basis, "denied") if decision.disclose else "unknown_action"
    if told.faults:
        return "invalid_parameters"
    if decision.effect == "deny":
        return REFUSED[decision.basis]
    return "approval_pending" if decision.effect == "require_approval" else "none"


async def play(atlas: Mapping[str, object], history: list) -> None:
    world: World = make_world()
    world.runtime.load_atlas_from_json(json.dumps(atlas))
    async with world.runtime:
        facts = world.runtime.get_session(world.session).facts
        for action_id, arguments, switch in history:
            if switch == "lift":
                world.runtime.unfreeze("all")
                world.runtime.unfreeze("agent", "agent")
            elif switch:
                world.runtime.freeze(switch, "agent" if switch == "agent" else "", reason="drill")
            before = world.count()
            told = world.runtime.explain(action_id, arguments, facts=facts)
            outcome = await world.runtime.execute(world.session, action_id, arguments)
            code = outcome.fault.code if outcome.fault is not None else "none"
            assert code == code_of(told), (action_id, arguments, told.to_dict())
            events = world.runtime.get_trace(world.session)[before:]
            recorded = next((dict(each.payload) for each in events if each.event_type == "policy.evaluated"), None)
            if code != "approval_pending":  # of which approval.requested tells
                assert without_instant(told.event) == without_instant(recorded)
            if outcome.fault is not None and "retry_after_seconds" in outcome.fault.details:
                assert outcome.fault.details["retry_after_seconds"] == told.decision.retry_after_seconds
            world.clock.advance(7)


def without_instant(payload: Mapping[str, object] | None) -> dict[str, object] | None:
    return None if payload is None else {name: value for name, value in payload.items() if name != "at"}


@given(atlases(), steps)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_gate_answers_what_was_explained(atlas, history):
    anyio.run(play, atlas, history)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_the_gate_answers_what_was_explained_in_many_more_cases(part):
    @seed(part)
    @given(atlases(), steps)
    @settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def holds(atlas, history):
        anyio.run(play, atlas, history)

    holds()
