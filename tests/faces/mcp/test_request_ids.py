"""Requests that share an id on one pipe: nothing but the id tells them apart, so the second is refused, and recorded."""

import json
from typing import Any

import pytest

from tests.faces.mcp.conftest import Place, Wire

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
ERAS = pytest.mark.parametrize("era", ["2025", "2026"])


def send(wire: Wire, name: str, arguments: object, request_id: object, meta: object = None) -> None:
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    if meta:
        params["_meta"] = meta
    wire.send(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}).encode())


def cancel(wire: Wire, request_id: object) -> None:
    params = {"requestId": request_id}
    wire.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode())


def begun(wire: Wire, place: Place, era: str, request_id: object) -> dict[str, Any]:
    """A call that waits; what is said in the ``_meta`` of requests of this era."""
    if era == "2025":
        wire.initialize()
    meta = META if era == "2026" else {}
    send(wire, "tool_wait", {"marks": str(place.marks)}, request_id, meta)
    while "began" not in place.marked():
        assert wire.process.poll() is None
    return meta


def recorded(place: Place, kind: str) -> list[dict[str, Any]]:
    return [event["payload"] for event in place.events() if event["event_type"] == kind]


@ERAS
@pytest.mark.parametrize("request_id", [7, "seven"])
def test_the_second_of_two_is_refused_and_recorded_and_the_first_goes_on(
    wire: Wire, place: Place, era: str, request_id: object
) -> None:
    meta = begun(wire, place, era, request_id)
    send(wire, "tool_echo", {"secret": "of another"}, request_id, meta)
    refused = wire.read()
    assert (refused["id"], refused["error"]["code"]) == (request_id, -32600)
    assert refused["error"]["data"]["error"] == "duplicate_request_id"
    wire.send(
        json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/list", "params": {"_meta": meta}}).encode()
    )
    assert wire.read()["error"]["data"]["error"] == "duplicate_request_id"
    assert "ended" not in place.marked()
    cancel(wire, request_id)
    while "ended" not in place.marked():
        assert wire.process.poll() is None
    send(wire, "tool_echo", {"again": True}, request_id, meta)
    assert wire.read()["result"]["isError"] is False
    assert wire.close() == 0
    assert [each["error_code"] for each in recorded(place, "error.occurred")] == ["duplicate_request_id"]
    assert [each["action_id"] for each in recorded(place, "action.executed")] == ["tool.echo"]


@ERAS
def test_a_number_and_a_text_are_two_ids(wire: Wire, place: Place, era: str) -> None:
    meta = begun(wire, place, era, 1)
    send(wire, "tool_slow", {"marks": str(place.marks), "seconds": 0.2}, "1", meta)
    while place.marked().count("began") != 2:
        assert wire.process.poll() is None
    cancel(wire, 1)
    answer = wire.read()
    assert (answer["id"], answer["result"]["isError"]) == ("1", False)
    assert place.marked() == ["began", "began", "ended"]


@ERAS
def test_an_id_is_free_again_once_its_request_is_answered_or_cancelled(wire: Wire, place: Place, era: str) -> None:
    meta = begun(wire, place, era, "same")
    cancel(wire, "same")
    for number in range(3):
        send(wire, "tool_echo", {"number": number}, "same", meta)
        answer = wire.read()
        assert json.loads(answer["result"]["content"][0]["text"])["echo"] == {"number": number}


def test_a_progress_token_is_one_calls_only(wire: Wire, place: Place) -> None:
    wire.initialize()
    send(wire, "tool_wait", {"marks": str(place.marks)}, "first", {"progressToken": "t"})
    while "began" not in place.marked():
        assert wire.process.poll() is None
    send(wire, "tool_steps", {}, "second", {"progressToken": "t"})
    assert wire.read()["id"] == "second", "nothing could tell whose a report with this token is"
    cancel(wire, "first")
    while "ended" not in place.marked():
        assert wire.process.poll() is None
    reports = 0
    for number in range(100):  # it is free once what was cancelled has ended, which nothing tells
        send(wire, "tool_steps", {}, number, {"progressToken": "t"})
        while "id" not in wire.read():
            reports += 1
        if reports:
            break
    assert reports == 3


@pytest.mark.parametrize("request_id", ["null", "1.5", "1e2", "true", "{}", str(10**400), '"\\ud800"'])
def test_an_id_that_can_not_be_read_is_answered_and_the_connection_lives(wire: Wire, request_id: str) -> None:
    wire.send(b'{"jsonrpc":"2.0","id":%s,"method":5}' % request_id.encode())
    assert wire.read()["error"]["code"] in {-32600, -32700}
    assert wire.request("ping")["result"] == {}


@pytest.mark.parametrize("request_id", [0, -1, 2**53 + 1, 10**40, "", "x" * 10_000, "1 ", '"'])
def test_an_id_comes_back_as_it_was(wire: Wire, request_id: object) -> None:
    wire.initialize()
    send(wire, "tool_echo", {}, request_id)
    answer = wire.read()
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)


def test_a_subscription_is_named_by_the_id_its_client_gave_it(wire: Wire) -> None:
    params = {"notifications": {"toolsListChanged": True}, "_meta": META}
    wire.send(json.dumps({"jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen", "params": params}).encode())
    said = wire.read()
    assert said["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "mine"
