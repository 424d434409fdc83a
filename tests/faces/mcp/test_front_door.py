"""Bytes on the pipe: every era on one connection, and input no decent client sends."""

import json
import signal
import time

import pytest

from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import Place, Wire


def verified(place: Place) -> list[dict]:
    for path in place.traces():
        assert verify(path.read_bytes().splitlines()).ok
    return place.events()


def test_a_probe_of_2026_and_a_handshake_of_2025_are_served_on_one_pipe(wire: Wire, place: Place) -> None:
    probe = wire.request("server/discover", modern=True)
    assert probe["result"]["supportedVersions"] == ["2026-07-28"]
    assert wire.initialize()["result"]["protocolVersion"] == "2025-11-25"
    old = wire.request("tools/list")["result"]["tools"]
    new = wire.request("tools/list", modern=True)["result"]
    assert [tool["name"] for tool in old] == [tool["name"] for tool in new["tools"]]
    assert (new["cacheScope"], new["ttlMs"]) == ("private", 5_000)
    assert place.traces() == []
    first = wire.call("tool_echo", {"era": "old"})["result"]["_meta"]["dev.cra/receipt"]
    second = wire.call("tool_echo", {"era": "new"}, modern=True)["result"]["_meta"]["dev.cra/receipt"]
    assert first["session_id"] == second["session_id"]
    assert wire.close() == 0
    assert verified(place)[-1]["event_type"] == "session.ended"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ],
)
def test_a_handshake_gets_the_version_it_asks_for(wire: Wire, asked: str, answered: str) -> None:
    assert wire.initialize(asked)["result"]["protocolVersion"] == answered
    assert wire.call("tool_echo", {"n": 1})["result"]["isError"] is False


def test_what_is_no_message_is_answered_and_the_next_call_is_too(wire: Wire, place: Place) -> None:
    wire.initialize()
    nested = "[" * 100_000 + "]" * 100_000
    hostile = [
        (b"not json at all", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"', -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b"[]", -32600),
        (b'"text"', -32600),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":"b","method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b"\xff\xfe\x00", -32700),
        (nested.encode(), -32600),
        (b"x" * (16 * 1_048_576 + 10), -32600),
    ]
    for raw, code in hostile:
        wire.send(raw)
        answer = wire.read()
        assert answer["error"]["code"] == code, raw[:60]
        assert wire.call("tool_echo", {"still": "here"})["result"]["isError"] is False
    wire.send(b"")
    wire.send(b'{"jsonrpc":"2.0","method":"notifications/unheard_of"}')
    wire.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}')
    wire.send(b'{"jsonrpc":"2.0","id":77,"result":{}}')
    assert wire.call("tool_echo", {})["result"]["isError"] is False
    assert wire.close() == 0
    verified(place)


def test_requests_that_are_wrong_are_answered_with_an_error(wire: Wire, place: Place) -> None:
    wire.initialize()
    assert wire.request("no/such/method")["error"]["code"] == -32601
    assert wire.request("tools/call")["error"]["code"] == -32602
    assert wire.request("tools/call", {})["error"]["code"] == -32602
    assert wire.request("tools/call", {"name": 5})["error"]["code"] == -32602
    assert wire.request("tools/call", {"name": "tool_echo", "arguments": [1]})["error"]["code"] == -32602
    assert wire.request("tools/call", {"name": "tool_echo", "arguments": "x"})["error"]["code"] == -32602
    assert wire.request("resources/read", {})["error"]["code"] == -32602
    assert wire.request("resources/list", {"cursor": "zz"})["error"]["code"] == -32602
    assert wire.call("tool_nowhere", {})["error"]["code"] == -32602
    assert wire.call("x" * 100_000, {})["error"]["code"] == -32602
    assert wire.call("tool_echo", None)["result"]["isError"] is False
    assert wire.request("tools/call", {"name": "tool_echo"})["result"]["isError"] is False
    assert wire.call("tool_add", None)["result"]["isError"] is True
    assert wire.close() == 0
    kinds = [event["event_type"] for event in verified(place)]
    assert kinds.count("error.occurred") == 5, "a call the protocol refuses leaves an event"


def test_hostile_arguments_are_refused_and_recorded(wire: Wire, place: Place) -> None:
    wire.initialize()
    deep: list = [1]
    for _ in range(199):
        deep = [deep]
    assert wire.call("tool_echo", {"deep": deep})["error"]["code"] == -32600
    for arguments in ({"big": "x" * 4_194_304}, {"integer": 2**70}):
        answer = wire.call("tool_echo", arguments)
        assert answer["result"]["isError"] is True, str(arguments)[:50]
        assert "invalid parameters" in answer["result"]["content"][0]["text"]
    wire.number += 1
    wire.send(
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"tool_echo","arguments":{"n":NaN}}}'
        % wire.number
    )
    answer = wire.read()
    assert "error" in answer or answer["result"]["isError"] is True
    assert wire.call("tool_echo", {"after": "all"})["result"]["isError"] is False
    assert wire.close() == 0
    refused = [event for event in verified(place) if event["event_type"] == "action.denied"]
    assert len(refused) >= 2


@pytest.mark.parametrize("modern", [False, True])
def test_half_a_surrogate_pair_in_an_argument_is_refused_by_its_place(wire: Wire, place: Place, modern: bool) -> None:
    if not modern:
        wire.initialize()
    for arguments, pointer in (
        ({"a": "x\ud800"}, "/a"),
        ({"a": [{"b/c": "\udfff!"}]}, "/a/0/b~1c"),
        ({"a": {"k\ud800": 1}}, "/a"),
        ({"n": 2**53}, "/n"),
    ):
        answer = wire.call("tool_echo", arguments, modern=modern)
        assert answer["result"]["isError"] is True
        assert f"invalid parameters: {pointer}: " in answer["result"]["content"][0]["text"]
    assert wire.call("tool_echo", {"a": "\U0001f600"}, modern=modern)["result"]["isError"] is False
    assert wire.close() == 0
    denied = [event for event in verified(place) if event["event_type"] == "policy.violated"]
    assert [event["payload"]["faults"][0]["pointer"] for event in denied] == ["/a", "/a/0/b~1c", "/a", "/n"]


def test_every_message_that_is_refused_leaves_an_event(wire: Wire, place: Place) -> None:
    wire.initialize()
    refused = (
        b"{",
        b"[]",
        b'{"jsonrpc":"2.0","id":1,"method":5}',
        b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
        b'{"jsonrpc":"2.0","id":"\\ud800","method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\\ud800"}}',
        b"x" * (16 * 1_048_576 + 1),
    )
    for line in refused:
        wire.send(line)
        assert "error" in wire.read()
    assert wire.close() == 0
    events = [event["payload"] for event in verified(place) if event["event_type"] == "error.occurred"]
    assert [event["error_code"] for event in events] == ["invalid_request"] * len(refused)
    assert all("ud800" not in event["error_message"] for event in events)


def test_an_end_in_the_middle_of_a_line_ends_the_session_properly(wire: Wire, place: Place) -> None:
    wire.initialize()
    wire.call("tool_echo", {})
    assert wire.process.stdin is not None
    wire.process.stdin.write(b'{"jsonrpc":"2.0","id":9,"me')
    assert wire.close() == 0
    assert verified(place)[-1]["event_type"] == "session.ended"


@pytest.mark.parametrize("how", ["eof", "SIGTERM", "SIGINT"])
def test_a_call_under_way_at_the_end_is_recorded_as_cancelled(wire: Wire, place: Place, how: str) -> None:
    wire.initialize()
    wire.number += 1
    call = {"name": "tool_wait", "arguments": {"marks": str(place.marks)}}
    wire.send(json.dumps({"jsonrpc": "2.0", "id": 50, "method": "tools/call", "params": call}).encode())
    deadline = time.monotonic() + 10
    while "began" not in place.marked():
        assert time.monotonic() < deadline
    began = time.monotonic()
    if how != "eof":
        wire.process.send_signal(getattr(signal, how))
        assert wire.process.wait(10) == 0
    else:
        wire.close()
    assert time.monotonic() - began < 5
    events = verified(place)
    assert [event["event_type"] for event in events[-2:]] == ["action.failed", "session.ended"]
    assert events[-2]["payload"]["error_code"] == "cancelled"
    assert events[-1]["payload"]["reason"] == ("completed" if how == "eof" else "cancelled")


def test_what_an_action_prints_never_reaches_the_wire(wire: Wire, place: Place) -> None:
    (place.atlas / "python" / "tools.py").write_text("def echo(**_):\n    print('stray')\n    return input()\n")
    wire.initialize()
    answer = wire.call("tool_echo", {})
    assert answer["result"]["isError"] is True, "standard input is empty for actions"
    assert wire.request("ping")["result"] == {}


def test_an_approval_answered_once_is_not_answered_again_by_the_same_state(wire: Wire, place: Place) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    }

    def call(arguments: dict, **more: object) -> dict:
        params = {"name": "tool_pay", "arguments": arguments, "_meta": meta, **more}
        return wire.request("tools/call", params)

    asked = call({"to": "ann"})["result"]
    assert asked["resultType"] == "input_required"
    state = asked["requestState"]
    yes = {"approval": {"action": "accept", "content": {"approve": True}}}
    assert "error" in call({"to": "ann"}, requestState=state[:-4] + "AAAA", inputResponses=yes), "tampered"
    assert "error" in call({"to": "bob"}, requestState=state, inputResponses=yes), "other arguments"
    assert call({"to": "ann"}, requestState=state, inputResponses=yes)["result"]["isError"] is False
    for _ in range(3):
        again = call({"to": "ann"}, requestState=state, inputResponses=yes)["result"]
        assert again["resultType"] == "input_required", "asked for anew"
    assert wire.close() == 0
    executed = [event for event in verified(place) if event["event_type"] == "action.executed"]
    assert len(executed) == 1
