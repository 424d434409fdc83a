"""The view of an agent: what it shows of each event, and that it shows nothing else."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.errors import TraceError
from cra_mcp.trace import view
from cra_mcp.trace.event import parse
from cra_mcp.trace.forms import EVENT_TYPES
from tests.faces.mcp.app import made

OWN = "what-the-runtime-knows"


def seen(event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
    (line,) = made.chain([(event_type, payload, 1)])
    return json.loads(view.view_of(line, 0))


def test_each_event_of_a_chain_has_one_in_the_view_without_ids_and_hashes() -> None:
    lines = made.chain(made.session())
    for position, line in enumerate(lines):
        event, shown = parse(line), json.loads(view.view_of(line, position))
        assert shown["view"] == "1.0"
        assert (shown["sequence"], shown["event_type"]) == (position, event.event_type)
        assert set(shown) == {*view._ENVELOPE, "view", "payload"}
        assert event.event_id not in json.dumps(shown)
        assert event.event_hash not in json.dumps(shown)
        assert view.read_view(view.view_of(line, position)).payload == shown["payload"]


def test_every_event_type_of_the_protocol_is_thought_of() -> None:
    known = {*view._FIELDS, *view._WHOLE, *view._SPECIAL}
    assert set(EVENT_TYPES) <= known
    assert not set(view._FIELDS) & view._WHOLE


@pytest.mark.parametrize(
    ("event_type", "payload", "kept"),
    [
        (
            "session.started",
            {"agent_id": "a", "goal": "g", "policy_digest": OWN, "overlays": [OWN]},
            ["agent_id", "goal"],
        ),
        ("error.occurred", {"error_code": "c", "error_message": OWN, "request_id": "r"}, ["error_code", "request_id"]),
        ("policy.evaluated", {"policy_id": "p", "result": "allow", "at": OWN}, ["policy_id", "result"]),
        (
            "carp.resolution.cached",
            {"resolution_id": "r", "request_id": "q", "digest": OWN, "at": OWN},
            ["resolution_id"],
        ),
        ("x.cra.shadow.evaluated", {"action_id": "a", "policy_id": OWN, "reason": OWN}, ["action_id"]),
        ("x.cra.overlay.loaded", {"overlay_id": OWN}, []),
        ("x.of.somebody", {"anything": OWN}, []),
    ],
)
def test_what_is_not_named_is_left_out(event_type: str, payload: dict[str, Any], kept: list[str]) -> None:
    assert seen(event_type, payload)["payload"] == {name: payload[name] for name in kept}


def test_a_resolution_shows_what_is_disclosed_and_counts_that_alone() -> None:
    denied = [{"action_id": "a.b", "policy_id": "p"}, {"action_id": "a.c", "policy_id": OWN}, OWN, 7]
    payload = {
        "resolution_id": "r", "request_id": "q", "decision_type": "partial", "allowed": ["a.a"], "allowed_count": 1,
        "denied": denied, "denied_count": 4, "undisclosed": ["a.c", 3], "digest": OWN, "at": OWN, "context_blocks": ["x"],
    }  # fmt: skip
    shown = seen("carp.resolution.completed", payload)["payload"]
    assert (shown["denied"], shown["denied_count"]) == ([denied[0]], 1)
    assert OWN not in json.dumps(shown)
    assert seen("carp.resolution.completed", {"denied": "x"})["payload"] == {"denied": [], "denied_count": 0}


@given(
    st.sampled_from(sorted({*view._FIELDS, *view._WHOLE, *view._SPECIAL, "x.of.somebody"})),
    st.dictionaries(st.text("abc", min_size=1), st.just(OWN) | st.lists(st.just(OWN)) | st.integers(0, 9)),
    st.booleans(),
)
def test_nothing_of_an_undisclosed_event_shows_but_the_name_its_caller_used(
    event_type: str, payload: dict[str, Any], named: bool
) -> None:
    whole = {**payload, "action_id": OWN if named else "said", "policy_id": OWN, "reason": OWN, "parameters": OWN}
    if named:
        whole["called"] = "said"
    shown = seen(event_type, {**whole, "disclosed": False})["payload"]
    assert OWN not in json.dumps(shown)
    assert shown["action_id"] == "said"


def test_a_line_that_is_no_event_keeps_its_place_and_shows_nothing() -> None:
    for line in (b"\xff\xfe", b"{}", b'{"sequence": "x"}', made.chain(made.session())[3].replace(b"{", b"{{", 1)):
        shown = view.view_of(line, 7)
        assert orjson.loads(shown) == {"view": "1.0", "sequence": 7, "event_type": "unreadable", "payload": {}}
        with pytest.raises(TraceError, match="no event"):
            view.read_view(shown)


def test_a_payload_as_deep_as_events_may_be_is_shown() -> None:
    value: object = 1
    for _ in range(125):
        value = [value]
    assert seen("action.reported", {"action": value})["payload"] == {"action": value}
