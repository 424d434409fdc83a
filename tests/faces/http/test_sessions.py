"""Sessions over HTTP: whose they are, how they are found, and how they end."""

import json
from pathlib import Path
from typing import Any

import pytest

from cra_mcp.trace.event import verify
from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import initialize, legacy, modern, refusal, request

SESSION = "dev.cra/session"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def start(server: HttpServer, token: str, goal: str = "x", **arguments: str) -> str:
    params = {"name": "cra_start_session", "arguments": {"goal": goal, **arguments}}
    _, answer = modern(server, "tools/call", params, bearer(token))
    assert not answer["result"].get("isError"), answer
    return answer["result"]["_meta"][SESSION]


def call(server: HttpServer, token: str, handle: object = None, name: str = "tool_echo") -> dict[str, Any]:
    params: dict[str, Any] = {"name": name, "arguments": {}}
    if handle is not None:
        params["_meta"] = {SESSION: handle}
    return modern(server, "tools/call", params, bearer(token))[1]["result"]


def session_of(result: dict[str, Any]) -> str:
    return result["_meta"]["dev.cra/receipt"]["session_id"]


def events_of(server: HttpServer, session_id: str) -> list[dict[str, Any]]:
    path = server.place.data / "traces" / f"{session_id}.trace.jsonl"
    lines = path.read_bytes().splitlines()
    assert verify(lines).ok
    return [json.loads(line) for line in lines]


@pytest.fixture
def tokens(servers: Servers) -> HttpServer:
    return servers.start_with_tokens()


def test_without_a_credential_nothing_is_answered_but_health(tokens: HttpServer, servers: Servers) -> None:
    for method, path in (
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("DELETE", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/messages/?session_id=1"),
    ):
        status, headers, body = request(tokens, method, path, b"{}" if method == "POST" else None)
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="test"')
        assert refusal(body)["error"] == "unauthenticated"
    status, _, body = request(tokens, "POST", "/mcp", b"{}", bearer("nobody"))
    assert (status, refusal(body)["error"]) == (403, "forbidden")
    status, _, body = request(tokens, "POST", "/mcp", b"{}", bearer("broken"))
    assert (status, refusal(body)["error"]) == (503, "authentication_unavailable")
    assert "secret of the key store" not in servers.errors()
    assert request(tokens, "GET", "/healthz")[0] == 200


def test_a_call_is_recorded_for_its_principal(tokens: HttpServer) -> None:
    started = events_of(tokens, session_of(call(tokens, "ann/acme")))[0]["payload"]
    assert started["principal"]["subject"] == "ann"
    assert (started["tenant"], started["agent_id"]) == ("acme", "agent-of-ann")


def test_another_principal_using_an_mcp_session_id_gets_404(tokens: HttpServer) -> None:
    session = initialize(tokens, **bearer("ann"))[1]["mcp-session-id"]
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    unknown = legacy(tokens, ping, "0" * 32, **bearer("bob"))
    for token in ("bob", "ann/other"):
        status, headers, body = legacy(tokens, ping, session, **bearer(token))
        assert (status, body) == (unknown[0], unknown[2]) == (404, unknown[2])
        assert "mcp-session-id" not in headers
        for method in ("GET", "DELETE"):
            sent = {"Mcp-Session-Id": session, "Accept": "text/event-stream", **bearer(token)}
            assert request(tokens, method, "/mcp", headers=sent)[0] == 404
    assert legacy(tokens, ping, session, **bearer("ann"))[0] == 200


def test_calls_without_a_handle_fall_into_the_principals_current_session(tokens: HttpServer) -> None:
    first = session_of(call(tokens, "ann"))
    assert session_of(call(tokens, "ann")) == first
    assert session_of(call(tokens, "bob")) != first
    started = start(tokens, "ann", "another thing")
    assert session_of(call(tokens, "ann")) == started


def test_a_handle_finds_its_session_and_nobody_elses(tokens: HttpServer) -> None:
    one, two = start(tokens, "ann", "one"), start(tokens, "ann", "two")
    assert session_of(call(tokens, "ann", one)) == one
    assert session_of(call(tokens, "ann", two)) == two
    before = len(events_of(tokens, one))
    answers = [call(tokens, "bob", handle) for handle in (one, "01a1fc73-f9e8-77e7-ae2a-f959b49e453e", "", 7, {"a": 1})]
    assert all(answer["isError"] for answer in answers)
    assert all(answer == answers[0] for answer in answers), "somebody else's handle looks like one that never was"
    assert len(events_of(tokens, one)) == before
    stolen = {"name": "cra_end_session", "arguments": {}, "_meta": {SESSION: one}}
    assert modern(tokens, "tools/call", stolen, bearer("bob"))[1]["result"]["isError"]
    assert session_of(call(tokens, "ann", one)) == one, "and it is still open"


def test_nobody_reads_somebody_elses_trace_through_any_door(tokens: HttpServer) -> None:
    session_id = session_of(call(tokens, "ann/acme"))

    def asked(token: str, session: str) -> list[object]:
        """What each door answers, the id left out."""
        doors: list[tuple[str, dict[str, Any]]] = [
            ("tools/call", {"name": "cra_trace", "arguments": {"session_id": session}}),
            ("tools/call", {"name": "cra_trace", "arguments": {"session_id": session, "after": -1}}),
            *(
                ("resources/read", {"uri": f"cra://{uri}"})
                for uri in (f"trace/{session}", f"trace/{session}/table", f"trace/{session}/0", f"chain/{session}")
            ),
        ]
        answers = [modern(tokens, method, params, bearer(token))[1] for method, params in doors]
        return [
            json.loads(json.dumps([answer.get("result"), answer.get("error")]).replace(session, "?"))
            for answer in answers
        ]

    own = asked("ann/acme", session_id)
    assert [(error, (result or {}).get("isError")) for result, error in own] == [(None, False)] * 2 + [(None, None)] * 4
    unknown = "01980000-0000-7000-8000-000000000001"
    for stranger in ("bob/acme", "ann/other"):
        assert asked(stranger, session_id) == asked(stranger, unknown), "as if there were no such trace"
        assert all(result is None or result["isError"] for result, _ in asked(stranger, session_id))


def test_an_ended_session_says_so_to_its_own_principal(tokens: HttpServer) -> None:
    one = start(tokens, "ann")
    ended = {"name": "cra_end_session", "arguments": {}, "_meta": {SESSION: one}}
    assert f'"ended": "{one}"' in modern(tokens, "tools/call", ended, bearer("ann"))[1]["result"]["content"][0]["text"]
    assert events_of(tokens, one)[-1]["event_type"] == "session.ended"
    assert "has ended" in call(tokens, "ann", one)["content"][0]["text"]
    assert "no such session" in call(tokens, "bob", one)["content"][0]["text"]


def test_parent_and_child_are_linked_in_both_traces(tokens: HttpServer) -> None:
    parent = start(tokens, "ann", "the whole")
    child = start(tokens, "ann", "a part", parent_session_id=parent)
    assert session_of(call(tokens, "ann")) == child
    assert session_of(call(tokens, "ann", parent)) == parent
    begun = events_of(tokens, child)[0]
    assert begun["payload"]["parent_session_id"] == parent
    [linked] = [event for event in events_of(tokens, parent) if event["event_type"] == "x.cra.session.child"]
    assert linked["payload"] == {"session_id": child, "agent_id": "agent-of-ann"}
    assert linked["trace_id"] == begun["trace_id"]
    modern(tokens, "tools/call", {"name": "cra_end_session", "arguments": {}}, bearer("ann"))
    assert session_of(call(tokens, "ann")) == parent, "the work goes on where it came from"


def test_nobody_gets_a_child_under_somebody_elses_session(tokens: HttpServer) -> None:
    parent = start(tokens, "ann")
    unknown = "01a1fc73-f9e8-77e7-ae2a-f959b49e453e"
    texts: list[str] = []
    for parent_id in (parent, unknown):
        params = {"name": "cra_start_session", "arguments": {"goal": "x", "parent_session_id": parent_id}}
        result = modern(tokens, "tools/call", params, bearer("bob"))[1]["result"]
        assert result["isError"]
        texts.append(result["content"][0]["text"])
    assert texts[0] == texts[1]
    assert "x.cra.session.child" not in {event["event_type"] for event in events_of(tokens, parent)}


def test_an_unused_session_ends_with_a_timeout(servers: Servers) -> None:
    server = servers.start_with_tokens(session_idle_s=0.5)
    old = session_of(call(server, "ann"))
    connection = initialize(server, **bearer("ann"))[1]["mcp-session-id"]
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool_echo", "arguments": {}}}
    assert legacy(server, message, connection, **bearer("ann"))[0] == 200
    wait_until_ended(server, 2)
    reasons = {event["payload"]["reason"] for event in server.place.events() if event["event_type"] == "session.ended"}
    assert reasons == {"timeout"}
    assert session_of(call(server, "ann")) != old
    assert legacy(server, message, connection, **bearer("ann"))[0] == 404


def wait_until_ended(server: HttpServer, count: int) -> None:
    """Until that many sessions have ended: each look asks the server for something, so no time is guessed."""
    for _ in range(2_000):
        if sum(event["event_type"] == "session.ended" for event in server.place.events()) >= count:
            return
        request(server, "GET", "/healthz")
    raise AssertionError("the sessions do not end")


def test_too_many_sessions_are_refused_to_one_and_not_to_others(servers: Servers) -> None:
    server = servers.start_with_tokens(max_sessions_per_principal=2, max_sessions=3)
    for _ in range(2):
        assert initialize(server, **bearer("ann"))[0] == 200
    status, headers, body = initialize(server, **bearer("ann"))
    assert (status, refusal(body)["error"], headers["retry-after"]) == (429, "too_many_sessions", "30")
    mine = initialize(server, **bearer("bob"))
    assert mine[0] == 200
    status, _, body = initialize(server, **bearer("cat"))
    assert (status, refusal(body)["error"]) == (503, "too_many_sessions")
    assert (
        request(server, "DELETE", "/mcp", headers={"Mcp-Session-Id": mine[1]["mcp-session-id"], **bearer("bob")})[0]
        == 200
    )
    assert initialize(server, **bearer("cat"))[0] == 200

    for _ in range(2):
        handle = start(server, "ann")
    params = {"name": "cra_start_session", "arguments": {"goal": "x"}}
    result = modern(server, "tools/call", params, bearer("ann"))[1]["result"]
    assert (result["isError"], "too many sessions" in result["content"][0]["text"]) == (True, True)
    end = {"name": "cra_end_session", "arguments": {}, "_meta": {SESSION: handle}}
    modern(server, "tools/call", end, bearer("ann"))
    assert start(server, "ann")


def test_the_traces_of_a_server_are_whole_files(tokens: HttpServer) -> None:
    for token in ("ann", "bob"):
        call(tokens, token)
    assert tokens.stop()[0] == 0
    for path in Path(tokens.place.data / "traces").glob("*.jsonl"):
        assert events_of(tokens, path.name.split(".")[0])[-1]["payload"]["reason"] == "cancelled"
