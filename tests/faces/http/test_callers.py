"""One person with several keys in one session: each request has the roles of its own key, in every era and transport."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import ACCEPT, initialize, legacy, modern, request
from tests.faces.http.test_identity import key
from tests.faces.http.test_sessions import SESSION, bearer, events_of, start
from tests.faces.mcp.conftest import MANIFEST, Place, action, environment, write_atlas
from tests.forks.command import forked

FORM = {"elicitation": {"form": {}}}
YES = {"approval": {"action": "accept", "content": {"approve": True}}}
ASKING = """
async def ask(ctx):
    answer = await ctx.elicit("Who?", {"type": "object", "properties": {"name": {"type": "string"}}}, key="who")
    return answer["content"]["name"]
"""
OPERATORS = [
    {
        "policy_id": "operators",
        "type": "deny",
        "actions": ["tool.add"],
        "when": "!('operator' in principal.roles)",
        "reason": "Operators add",
    }
]
ADD = {"name": "tool_add", "arguments": {"a": 1, "b": 2}}


@pytest.fixture
def guarded(servers: Servers) -> HttpServer:
    asking = action(
        "tool.ask",
        "ask",
        executor={"type": "python", "callable": "asking:ask", "context": "ctx", "asks": ["elicitation"]},
    )
    manifest = {
        **MANIFEST,
        "actions": [*MANIFEST["actions"], asking],
        "policies": [*MANIFEST["policies"], *OPERATORS],
    }
    atlas = write_atlas(servers.place.folder / "roles", manifest)
    (atlas / "python" / "asking.py").write_text(ASKING)
    servers.place = Place(servers.place.folder, atlas)
    return servers.start("--require-key")


def revoke(server: HttpServer, key_id: str) -> None:
    command = [sys.executable, *forked("keys", "revoke", key_id, "--data-dir", server.place.data)]
    subprocess.run(command, capture_output=True, env=environment(), check=True)


def message(body: bytes) -> dict[str, Any]:
    """The JSON-RPC message of an answer, whether it came as one or as an event."""
    if not body.startswith(b"{"):
        body = next(line for line in body.splitlines() if line.startswith(b"data: {"))[6:]
    return json.loads(body)


@dataclass
class Sse:
    """A stream of the 2024 transport: opened with one key, messages posted with any."""

    server: HttpServer
    connection: http.client.HTTPConnection
    answer: http.client.HTTPResponse
    path: str

    def post(self, token: str, sent: dict[str, Any]) -> int:
        return request(
            self.server,
            "POST",
            self.path,
            json.dumps(sent).encode(),
            {"Content-Type": "application/json", **bearer(token)},
        )[0]

    def read(self) -> dict[str, Any]:
        while True:
            line = self.answer.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: {"):
                return json.loads(line[6:])


@contextlib.contextmanager
def sse(server: HttpServer, token: str) -> Iterator[Sse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request(
            "GET", "/sse", headers={"Host": f"127.0.0.1:{server.port}", "Accept": "text/event-stream", **bearer(token)}
        )
        answer = connection.getresponse()
        path = ""
        while not path:
            line = answer.readline()
            if line.startswith(b"data: /"):
                path = line[6:].strip().decode()
        yield Sse(server, connection, answer, path)


Tool = Callable[[str, dict[str, Any]], dict[str, Any]]


@contextlib.contextmanager
def through_2026(server: HttpServer, token: str) -> Iterator[Tool]:
    session = start(server, token)

    def call(with_token: str, params: dict[str, Any]) -> dict[str, Any]:
        return modern(server, "tools/call", {**params, "_meta": {SESSION: session}}, bearer(with_token))[1]

    yield call


@contextlib.contextmanager
def through_2025(server: HttpServer, token: str) -> Iterator[Tool]:
    connection = initialize(server, **bearer(token))[1]["mcp-session-id"]
    numbers = iter(range(1, 100))

    def call(with_token: str, params: dict[str, Any]) -> dict[str, Any]:
        sent = {"jsonrpc": "2.0", "id": next(numbers), "method": "tools/call", "params": params}
        return message(legacy(server, sent, connection, **bearer(with_token))[2])

    yield call


@contextlib.contextmanager
def through_sse(server: HttpServer, token: str) -> Iterator[Tool]:
    numbers = iter(range(1, 100))
    with sse(server, token) as stream:

        def ask(with_token: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
            sent = {"jsonrpc": "2.0", "id": next(numbers), "method": method, "params": params}
            assert stream.post(with_token, sent) == 202
            return stream.read()

        told = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        ask(token, "initialize", told)
        stream.post(token, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield lambda with_token, params: ask(with_token, "tools/call", params)


DOORS = pytest.mark.parametrize("door", [through_2025, through_2026, through_sse])


@DOORS
def test_each_request_has_the_roles_of_its_own_key(
    guarded: HttpServer, door: Callable[[HttpServer, str], contextlib.AbstractContextManager[Tool]]
) -> None:
    place = guarded.place
    operator, operator_id = key(place, "ann", "operator")
    agent, agent_id = key(place, "ann", "agent")
    auditor, _ = key(place, "ann", "auditor")
    with door(guarded, operator) as call:
        receipts = [call(operator, ADD)["result"]]
        receipts.append(call(agent, ADD)["result"])
        assert [each["isError"] for each in receipts] == [False, True]
        assert "Operators add" in receipts[1]["content"][0]["text"]
        for name in ("tool_add", "tool_echo", "tool_nothing"):
            refused = call(auditor, {"name": name, "arguments": {}})["result"]
            assert refused["_meta"]["dev.cra/receipt"] == {"error": "forbidden"}
        if door is not through_sse:  # which ends with the key it was opened with
            revoke(guarded, operator_id)
        assert call(agent, ADD)["result"]["isError"] is True
        assert call(agent, {"name": "tool_echo", "arguments": {}})["result"]["isError"] is False
    session = receipts[0]["_meta"]["dev.cra/receipt"]["session_id"]
    events = events_of(guarded, session)
    assert events[0]["payload"]["principal"]["credential_id"] == operator_id
    asked = [each["payload"] for each in events if each["event_type"] == "action.requested"]
    assert [each.get("principal", {}).get("roles") for each in asked] == [None, ["agent"], ["agent"], ["agent"]]
    assert {each["principal"]["credential_id"] for each in asked[1:]} == {agent_id}
    refusals = [each["payload"] for each in events if each["event_type"] == "error.occurred"]
    assert [(each["error_code"], each["principal"]["roles"]) for each in refusals] == [("forbidden", ["auditor"])] * 3
    assert sum(each["event_type"] == "action.executed" for each in events) == 2
    replayed = place.cli("replay", session, "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


@DOORS
def test_a_session_that_a_lesser_key_starts_on_anothers_connection_is_its_own(
    guarded: HttpServer, door: Callable[[HttpServer, str], contextlib.AbstractContextManager[Tool]]
) -> None:
    operator, _ = key(guarded.place, "ann", "operator")
    agent, agent_id = key(guarded.place, "ann", "agent")
    with door(guarded, operator) as call:
        call(operator, {"name": "tool_echo", "arguments": {}})
        started = call(agent, {"name": "cra_start_session", "arguments": {"goal": "x"}})["result"]["structuredContent"]
        denied = {each["action_id"] for each in started["denied_actions"]}
        assert "tool.add" in denied | {
            each for rule in started["constraints"] for each in rule["parameters"].get("actions", ())
        }
        principal = events_of(guarded, started["session"]["session_id"])[0]["payload"]["principal"]
        assert (principal["roles"], principal["credential_id"]) == (["agent"], agent_id)


def test_an_answer_to_an_approval_counts_from_who_may_call_only(guarded: HttpServer) -> None:
    operator, _ = key(guarded.place, "ann", "operator")
    auditor, _ = key(guarded.place, "ann", "auditor")
    pay: dict[str, Any] = {"name": "tool_pay", "arguments": {"to": "bob"}}
    capable = {"io.modelcontextprotocol/clientCapabilities": FORM}
    asked = modern(guarded, "tools/call", {**pay, "_meta": capable}, bearer(operator))[1]["result"]
    assert asked["resultType"] == "input_required"
    answer = {**pay, "_meta": capable, "requestState": asked["requestState"], "inputResponses": YES}
    refused = modern(guarded, "tools/call", answer, bearer(auditor))[1]["result"]
    assert refused["_meta"]["dev.cra/receipt"] == {"error": "forbidden"}
    assert len(json.loads(guarded.place.cli("pending", "--json").stdout)["pending"]) == 1, "it waits still"
    assert modern(guarded, "tools/call", answer, bearer(operator))[1]["result"]["isError"] is False


def test_a_call_that_asks_goes_on_for_the_roles_it_began_with_only(guarded: HttpServer) -> None:
    agent, _ = key(guarded.place, "ann", "agent")
    operator, _ = key(guarded.place, "ann", "operator")
    again, _ = key(guarded.place, "ann", "agent")
    params: dict[str, Any] = {"name": "tool_ask", "arguments": {}}
    capable = {"io.modelcontextprotocol/clientCapabilities": FORM}
    asked = modern(guarded, "tools/call", {**params, "_meta": capable}, bearer(agent))[1]["result"]
    answered = {
        **params,
        "_meta": capable,
        "requestState": asked["requestState"],
        "inputResponses": {"who": {"action": "accept", "content": {"name": "Ada"}}},
    }
    refused = modern(guarded, "tools/call", answered, bearer(operator))[1]["result"]
    assert refused["_meta"]["dev.cra/receipt"] == {"error": "ask_unanswered"}
    done = modern(guarded, "tools/call", answered, bearer(again))[1]["result"]
    assert "Ada" in done["content"][0]["text"]


def test_a_form_answered_after_its_key_was_taken_back_carries_nothing_out(guarded: HttpServer) -> None:
    place = guarded.place
    agent, key_id = key(place, "ann", "agent")
    other, _ = key(place, "ann", "agent")
    told = {"protocolVersion": "2025-11-25", "capabilities": FORM, "clientInfo": {"name": "t", "version": "1"}}
    first = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": told}
    session = legacy(guarded, first, **bearer(agent))[1]["mcp-session-id"]
    legacy(guarded, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session, **bearer(agent))
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "tool_pay", "arguments": {"to": "bob"}},
    }
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=30)
    with contextlib.closing(connection):
        headers = {
            "Host": f"127.0.0.1:{guarded.port}",
            "Content-Type": "application/json",
            "Accept": ACCEPT,
            "Mcp-Session-Id": session,
            **bearer(agent),
        }
        connection.request("POST", "/mcp", json.dumps(call).encode(), headers)
        stream = Sse(guarded, connection, connection.getresponse(), "/mcp")
        form = stream.read()
        assert form["method"] == "elicitation/create"
        revoke(guarded, key_id)
        answer = {"jsonrpc": "2.0", "id": form["id"], "result": {"action": "accept", "content": {"approve": True}}}
        assert legacy(guarded, answer, session, **bearer(other))[0] == 202
        result = stream.read()["result"]
    assert result["_meta"]["dev.cra/receipt"]["error"] == "credential_lapsed"
    kinds = [event["event_type"] for event in place.events()]
    assert (kinds.count("action.denied"), kinds.count("action.approved"), kinds.count("action.executed")) == (1, 0, 0)
    repeated = {**call, "id": 2}
    assert message(legacy(guarded, repeated, session, **bearer(other))[2])["result"]["isError"] is False
    replayed = place.cli("replay", result["_meta"]["dev.cra/receipt"]["session_id"], "--json")
    assert replayed.returncode == 0, replayed.stdout
