"""CARP resolve: order, types of decision, constraints, context, time to live, and what the trace keeps of it."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.auth.principal import Principal
from cra_mcp.errors import RequestError
from cra_mcp.resolution.model import Query, Resolution

NOON = int(datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp() * 1_000_000_000)


def action(action_id: str, **more: object) -> dict:
    return {
        "action_id": action_id,
        "name": action_id,
        "description": "d",
        "parameters_schema": {"type": "object"},
        **more,
    }


def atlas(atlas_id: str = "com.example.one", actions: tuple = ("a.read", "a.write"), **more: object) -> str:
    return json.dumps(
        {
            "atlas_version": "1.0",
            "atlas_id": atlas_id,
            "version": "1.0.0",
            "name": "One",
            "description": "d",
            "actions": [action(item) if isinstance(item, str) else item for item in actions],
            **more,
        }
    )


def runtime(*atlases: str, now_ns: int = NOON, **settings: object) -> CRARuntime:
    made = CRARuntime(RuntimeConfig(store="memory", clock_ns=lambda: now_ns, **settings))
    for text in atlases:
        made.load_atlas_from_json(text)
    return made


def resolve(made: CRARuntime, goal: str = "goal", **more: object) -> Resolution:
    return made.resolve(made.create_session("agent", "g").session_id, goal=goal, **more)


DENY_WRITE = {"policy_id": "no-write", "type": "deny", "actions": ["*.write"], "reason": "read only"}
ASK_ALL = {"policy_id": "ask", "type": "require_approval", "reason": "ask first"}
ASK_WRITE = {"policy_id": "ask", "type": "require_approval", "actions": ["*.write"], "reason": "ask first"}
HIDE_WRITE = {"policy_id": "hide", "type": "deny", "actions": ["*.write"], "reason": "x", "disclose": False}
DENY_ALL = {"policy_id": "none", "type": "deny", "reason": "closed"}


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], "allow"),
        ([DENY_WRITE], "partial"),
        ([ASK_WRITE], "partial"),
        ([ASK_ALL], "requires_approval"),
        ([ASK_ALL, DENY_WRITE], "requires_approval"),
        ([DENY_ALL], "deny"),
        ([HIDE_WRITE], "allow"),
    ],
)
def test_the_type_of_decision_follows_from_what_is_usable(policies: list, expected: str) -> None:
    with runtime(atlas(policies=policies)) as made:
        assert resolve(made).decision_type == expected


def test_actions_are_in_load_order_then_manifest_order() -> None:
    with runtime(atlas("com.example.two", ("z.last", "y.first")), atlas("com.example.one", ("a.x",))) as made:
        assert [item.action.action_id for item in resolve(made).allowed_actions] == ["z.last", "y.first", "a.x"]


def test_a_hidden_action_is_nowhere_in_the_answer_but_in_the_trace() -> None:
    with runtime(atlas(policies=[HIDE_WRITE])) as made:
        session = made.create_session("agent", "g")
        answer = json.dumps(made.resolve(session.session_id).to_dict())
        assert "a.write" not in answer
        completed = made.get_trace(session.session_id)[-1]
        assert completed.payload["denied"] == [{"action_id": "a.write", "policy_id": "hide"}]


def test_the_message_says_what_an_agent_needs() -> None:
    limit = {
        "policy_id": "limit",
        "type": "rate_limit",
        "actions": ["a.read"],
        "parameters": {"max_calls": 5, "window_seconds": 60},
    }
    deny = {**DENY_WRITE, "actions": ["*.delete"]}
    read = action("a.read", returns_schema={"type": "object"}, rate_limit={"max_calls": 2, "window_seconds": 60})
    with runtime(atlas(actions=(read, "a.write", "a.delete"), policies=[limit, ASK_WRITE, deny])) as made:
        message = resolve(made).to_dict()
    allowed = {entry["action_id"]: entry for entry in message["allowed_actions"]}
    assert allowed["a.read"]["rate_limit"] == {"max_calls": 2, "window_seconds": 60}
    assert allowed["a.read"]["returns_schema"] == {"type": "object"}
    assert allowed["a.write"]["requires_confirmation"] is True
    assert message["denied_actions"] == [{"action_id": "a.delete", "reason": "read only", "policy_id": "no-write"}]
    kinds = {(entry["constraint_id"], entry["type"]) for entry in message["constraints"]}
    assert ("com.example.one/limit", "rate_limit") in kinds
    assert ("ask", "require_approval") in kinds
    assert message["ttl_seconds"] == 300


def test_what_is_decided_by_a_schema_of_the_arguments_is_told_with_it() -> None:
    schema = {"required": ["amount"]}
    form = {**DENY_WRITE, "policy_id": "form", "conditions": {"arguments": schema}}
    with runtime(atlas(actions=("a.read", "a.write"), policies=[form])) as made:
        (told,) = resolve(made).to_dict()["constraints"]
    assert (told["constraint_id"], told["type"], told["parameters"]["arguments"]) == ("form", "arguments", schema)
    assert "when" not in told["parameters"]


PACKS = [
    {"pack_id": "low", "name": "Low", "content": "l", "priority": 1, "keywords": ["refund"]},
    {"pack_id": "plain", "name": "Plain", "content": "p", "priority": 50},
    {"pack_id": "refunds", "name": "Refunds", "content": "r", "priority": 50, "keywords": ["refund", "money back"]},
    {"pack_id": "shipping", "name": "Shipping", "content": "s", "priority": 50, "keywords": ["parcel"]},
    {
        "pack_id": "production",
        "name": "Production",
        "content": "x",
        "priority": 900,
        "conditions": {"context_matches": {"env": "prod*"}},
    },
]
CAPABILITIES = [
    {"capability_id": "reading", "name": "R", "actions": ["a.read"], "context_packs": ["shipping"]},
    {"capability_id": "writing", "name": "W", "actions": ["*.write"]},
]


def blocks(resolution: Resolution) -> list[str]:
    return [block.block_id for block in resolution.context_blocks]


def test_context_is_ordered_by_priority_then_relevance_then_id() -> None:
    with runtime(atlas(context_packs=PACKS)) as made:
        assert blocks(resolve(made)) == ["plain", "refunds", "shipping", "low"]
        assert blocks(resolve(made, "Money back, please: a REFUND")) == ["refunds", "plain", "shipping", "low"]
        assert blocks(resolve(made, "refund", context_hints=["parcel"])) == ["shipping", "refunds", "plain", "low"]


def test_a_block_whose_condition_fails_or_is_not_known_is_left_out() -> None:
    with runtime(atlas(context_packs=PACKS)) as made:
        for context, shown in (({}, False), ({"env": "test"}, False), ({"env": "production"}, True)):
            session = made.create_session("agent", "g", context=context)
            assert ("production" in blocks(made.resolve(session.session_id))) is shown


def test_capabilities_restrict_actions_and_packs() -> None:
    with runtime(atlas(context_packs=PACKS, capabilities=CAPABILITIES)) as made:
        resolution = resolve(made, required_capabilities=["reading"])
        assert [item.action.action_id for item in resolution.allowed_actions] == ["a.read"]
        assert blocks(resolution) == ["shipping"]
        assert len(resolve(made, required_capabilities=["reading", "writing"]).allowed_actions) == 2


def test_atlas_ids_restrict_what_is_considered() -> None:
    with runtime(atlas(), atlas("com.example.two", ("b.read",))) as made:
        assert [i.action.action_id for i in resolve(made, atlas_ids=["com.example.two"]).allowed_actions] == ["b.read"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"required_capabilities": ["nope"]}, "unknown_capability"),
        ({"atlas_ids": ["com.example.nope"]}, "unknown_atlas"),
        ({"goal": "x" * 10_001}, "invalid_request"),
    ],
)
def test_what_is_not_there_is_an_error_and_recorded(more: dict, code: str) -> None:
    with runtime(atlas(context_packs=PACKS, capabilities=CAPABILITIES)) as made:
        session = made.create_session("agent", "g")
        with pytest.raises(RequestError) as caught:
            made.resolve(session.session_id, **more)
        assert caught.value.code == code
        events = made.get_trace(session.session_id)
        assert [event.event_type for event in events[-2:]] == ["carp.request.received", "error.occurred"]
        assert events[-1].payload["error_code"] == code


def test_the_time_to_live_ends_when_a_window_opens_or_closes() -> None:
    window = {"start": "08:00", "end": "12:02", "timezone": "UTC"}
    policy = {**DENY_WRITE, "conditions": {"time_window": window}}
    with runtime(atlas(policies=[policy])) as made:
        assert resolve(made).ttl_seconds == 120
    with runtime(atlas(policies=[policy]), now_ns=NOON + 3_600 * 1_000_000_000) as made:
        assert resolve(made).ttl_seconds == 300
        assert resolve(made).decision_type == "allow"


def test_the_time_to_live_ends_when_an_expression_can_change_with_the_hour() -> None:
    closing = "now >= timestamp('2026-11-21T12:02:00Z')"
    actions = (action("a.read"), action("a.write", parameters_schema={"type": "object", "properties": {"n": {}}}))
    for when, ttl_seconds in (
        (closing, 120),
        ("string(now) > '2027'", 0),
        (f"has(args.n) && {closing}", 120),
        ("has(args.n)", 300),
    ):
        with runtime(atlas(actions=actions, policies=[{**DENY_WRITE, "when": when}])) as made:
            assert resolve(made).ttl_seconds == ttl_seconds
            assert made.unchanged_for_ms(300_000) == ttl_seconds * 1_000


def test_the_time_to_live_ends_too_when_documents_come_or_go_and_those_of_other_atlases_do_not_count() -> None:
    window = {"start": "08:00", "end": "12:02", "timezone": "UTC"}
    pack = {**PACKS[0], "conditions": {"time_window": window}}
    with runtime(atlas(context_packs=[pack]), atlas("com.example.other", actions=())) as made:
        assert resolve(made).ttl_seconds == 120
        assert resolve(made, atlas_ids=["com.example.other"]).ttl_seconds == 300
        assert made.unchanged_for_ms(5_000) == 5_000
        assert made.unchanged_for_ms(500_000) == 120_000
    with runtime(atlas()) as made:
        assert made.unchanged_for_ms(500_000) == 500_000


def test_a_repeated_answer_is_recorded_as_one_event_that_names_the_full_one() -> None:
    with runtime(atlas()) as made:
        session = made.create_session("agent", "g")
        first = made.resolve(session.session_id, goal="same")
        second = made.resolve(session.session_id, goal="same")
        made.resolve(session.session_id, goal="other")
        events = made.get_trace(session.session_id)
        assert [event.event_type for event in events[1:]] == [
            "carp.request.received",
            "carp.resolution.completed",
            "carp.resolution.cached",
            "carp.request.received",
            "carp.resolution.completed",
        ]
        assert events[3].payload["first_sequence"] == 2
        assert events[3].payload["resolution_id"] == second.resolution_id
        assert first.outcome is second.outcome
        assert made.verify_chain(session.session_id).ok


def test_risk_of_a_task_raises_what_needs_approval() -> None:
    policy = {**ASK_WRITE, "conditions": {"risk_tiers": ["critical"]}}
    with runtime(atlas(policies=[policy])) as made:
        calm = made.create_session("agent", "g")
        tense = made.create_session("agent", "g", risk_tier="critical")
        assert made.resolve(calm.session_id).decision_type == "allow"
        assert made.resolve(tense.session_id).decision_type == "partial"


def test_memos_are_bounded_and_forgetting_changes_nothing() -> None:
    with runtime(atlas(context_packs=PACKS)) as made:
        session = made.create_session("agent", "g")
        expected = blocks(made.resolve(session.session_id, goal="refund"))
        for number in range(600):
            made.resolve(session.session_id, goal=f"goal {number}")
        assert len(made._resolving._resolver._queries) <= 512
        assert blocks(made.resolve(session.session_id, goal="refund")) == expected
        assert len(made.get_session(session.session_id).resolutions) == 256


@given(
    st.lists(
        st.sampled_from([DENY_WRITE, ASK_WRITE, HIDE_WRITE, ASK_ALL, DENY_ALL]), unique_by=lambda p: p["policy_id"]
    )
)
def test_what_is_listed_is_what_could_be_allowed(policies: list) -> None:
    with runtime(atlas(policies=policies)) as made:
        session = made.create_session("agent", "g").session_id
        listed = {item.action.action_id for item in made.permissions(Principal("ann", agent_id="agent"))}
        for action_id in ("a.read", "a.write"):
            outcome = made.execute_blocking(session, action_id, {})
            refused = outcome.fault is not None and outcome.fault.code in {"denied", "unknown_action"}
            assert (action_id in listed) is not refused


def test_context_blocks_are_in_the_message_with_where_they_come_from() -> None:
    with runtime(atlas(context_packs=PACKS[:1], policies=[DENY_WRITE])) as made:
        resolution = resolve(made)
        (block,) = resolution.to_dict()["context_blocks"]
        assert block == {
            "block_id": "low",
            "source": "com.example.one/low",
            "content_type": "text/markdown",
            "content": "l",
            "priority": 1,
            "token_estimate": 1,
            "metadata": {"name": "Low", "pack_id": "low"},
        }
        assert [item.action.action_id for item in resolution.denied_actions] == ["a.write"]


def test_a_query_is_a_value() -> None:
    assert Query("g") == Query("g", (), (), ())
