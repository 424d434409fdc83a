"""Stopping: at once, whatever clients do, and with every outcome recorded."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from cra_mcp.trace.event import verify
from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import ACCEPT, META, initialize, legacy, request
from tests.faces.http.test_limits import opened

STOPS_S = 1.0


@pytest.fixture
def servers(servers: Servers) -> Servers:
    servers.fresh = True
    return servers


@contextmanager
def posted(server: HttpServer, message: object, *more: str) -> Iterator[socket.socket]:
    """A request that is under way."""
    body = json.dumps(message)
    head = [
        "POST /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Content-Type: application/json",
        f"Accept: {ACCEPT}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as client:
        client.sendall("\r\n".join([*head, "", body]).encode())
        yield client


def calling(name: str, server: HttpServer, **more: object) -> dict[str, object]:
    params = {"name": name, "arguments": {"marks": str(server.place.marks)}, **more}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def wait_until_begun(server: HttpServer, count: int) -> None:
    for _ in range(2_000):
        if server.place.marked().count("began") >= count:
            return
        request(server, "GET", "/healthz")
    raise AssertionError("the calls do not begin")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_and_calls_under_way_do_not_hold_the_server(servers: Servers, number: int) -> None:
    server = servers.start()
    session = initialize(server)[1]["mcp-session-id"]
    with ExitStack() as stack:
        events = stack.enter_context(closing(opened(server, "/sse", "-")))
        listening = stack.enter_context(closing(opened(server, "/mcp", "-", f"Mcp-Session-Id: {session}")))
        idle = stack.enter_context(closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)))
        legacy = stack.enter_context(posted(server, calling("tool_wait", server), f"Mcp-Session-Id: {session}"))
        routed = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call")
        waiting = calling("tool_wait", server, _meta=META)
        modern = stack.enter_context(posted(server, waiting, *routed, "Mcp-Name: tool_wait"))
        blocking = calling("tool_slow", server, _meta=META)
        blocked = stack.enter_context(posted(server, blocking, *routed, "Mcp-Name: tool_slow"))
        wait_until_begun(server, 3)
        code, took = server.stop(number)
        assert code == 0, servers.errors()
        assert took < STOPS_S
        for stream in (events, listening, legacy):
            rest = b""
            while chunk := stream.recv(65_536):
                rest += chunk
            assert rest.endswith(b"0\r\n\r\n"), "a stream ends as streams end"
        for answer in (modern, blocked):
            assert answer.recv(65_536).startswith(b"HTTP/1.1 503")
        assert idle.recv(1) == b""
    for path in server.place.traces():
        lines = path.read_bytes().splitlines()
        assert verify(lines).ok
        assert (last := json.loads(lines[-1]))["event_type"] == "session.ended"
        assert last["payload"]["reason"] == "cancelled"
    failed = [
        event["payload"]["error_code"] for event in server.place.events() if event["event_type"] == "action.failed"
    ]
    assert failed == ["cancelled"] * 3


@pytest.mark.long
def test_two_hundred_sessions_with_open_streams_do_not_hold_the_server_either(servers: Servers) -> None:
    server = servers.start()
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool_echo", "arguments": {}}}
    with ExitStack() as stack:
        for _ in range(200):
            session = initialize(server)[1]["mcp-session-id"]
            assert legacy(server, call, session)[0] == 200
            stack.enter_context(closing(opened(server, "/mcp", "-", f"Mcp-Session-Id: {session}")))
        code, took = server.stop()
    assert code == 0, servers.errors()
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # with others, who then have their share of the time
    assert took < STOPS_S * busy
    assert len(server.place.traces()) == 200
    for path in server.place.traces():
        lines = path.read_bytes().splitlines()
        assert verify(lines).ok
        assert json.loads(lines[-1])["event_type"] == "session.ended"


def test_a_server_at_rest_stops_at_once(servers: Servers) -> None:
    server = servers.start()
    assert request(server, "GET", "/healthz")[0] == 200
    code, took = server.stop()
    assert code == 0
    assert took < STOPS_S
    assert "Traceback" not in servers.errors()
