"""Requests by hand: what the server takes, what it refuses, and how it says so."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer, Servers

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
ACCEPT = "application/json, text/event-stream"


@pytest.fixture
def server(shared: HttpServer) -> HttpServer:
    return shared


def request(
    server: HttpServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body, {"Host": f"127.0.0.1:{server.port}", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def modern(server: HttpServer, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
    """One request of the 2026 era: status and JSON-RPC answer."""
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {**params, "_meta": {**META, **params.get("_meta", {})}},
    }
    name = params.get("name", params.get("uri"))
    named = {} if name is None else {"Mcp-Name": str(name)}
    status, _, answer = request(
        server,
        "POST",
        "/mcp",
        json.dumps(message).encode(),
        {
            "Content-Type": "application/json",
            "Accept": ACCEPT,
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
            **named,
            **(headers or {}),
        },
    )
    return status, json.loads(answer)


def legacy(
    server: HttpServer, message: object, session: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    sent = {"Content-Type": "application/json", "Accept": ACCEPT, **headers}
    if session is not None:
        sent["Mcp-Session-Id"] = session
    return request(server, "POST", "/mcp", json.dumps(message).encode(), sent)


def initialize(server: HttpServer, **headers: str) -> tuple[int, dict[str, str], bytes]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    return legacy(server, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, **headers)


def refusal(body: bytes) -> dict[str, Any]:
    answer = json.loads(body)
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] is None
    assert answer["error"]["data"]["hint"]
    return answer["error"]["data"]


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/", "/healthz", "/readyz", "/nothing"])
def test_every_path_refuses_a_foreign_host_and_a_foreign_origin(server: HttpServer, path: str) -> None:
    here = f"127.0.0.1:{server.port}"
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "", "localhost@evil.example"):
        status, _, body = request(server, "GET", path, headers={"Host": host})
        assert status in {400, 421}, host
        if status == 421:
            assert refusal(body)["error"] == "wrong_host"
    for origin in ("http://evil.example", "null", f"http://{here}.evil.example", "https://localhost.evil.example"):
        status, _, body = request(server, "GET", path, headers={"Origin": origin})
        assert (status, refusal(body)["error"]) == (403, "wrong_origin"), origin
    # Its own page may ask, by any of its names.
    for name in (here, f"localhost:{server.port}", f"[::1]:{server.port}"):
        status, _, _ = request(server, "GET", path, headers={"Host": name, "Origin": f"http://{name}"})
        assert status not in {403, 421}


def test_two_hosts_or_two_origins_are_none(server: HttpServer) -> None:
    for double in (
        b"Host: 127.0.0.1\r\nHost: evil.example",
        b"Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nOrigin: http://x",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\n" + double + b"\r\n\r\n")
            assert client.recv(65_536).split()[1] in {b"400", b"403", b"421"}


def test_named_hosts_and_origins_are_let_in_and_browsers_are_told(servers: Servers) -> None:
    server = servers.start("--allowed-host", "mcp.example.com", "--allowed-origin", "https://app.example.com")
    status, headers, _ = request(
        server, "GET", "/healthz", headers={"Host": "mcp.example.com:443", "Origin": "https://app.example.com"}
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example.com")
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    status, headers, _ = request(server, "OPTIONS", "/mcp", headers=asked)
    assert (status, "POST" in headers["access-control-allow-methods"]) == (200, True)
    status, headers, body = request(server, "OPTIONS", "/mcp", headers={**asked, "Origin": "https://other.example.com"})
    assert (status, refusal(body)["error"]) == (403, "wrong_origin")


def test_health_answers_say_nothing_but_that(server: HttpServer) -> None:
    status, headers, body = request(server, "GET", "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert "server" not in headers
    assert json.loads(request(server, "GET", "/readyz")[2]) == {"status": "ready"}


def test_a_message_that_is_too_large_is_refused_before_it_is_read(server: HttpServer) -> None:
    headers = {"Content-Type": "application/json", "Accept": ACCEPT}
    for path in ("/mcp", "/messages/?session_id=0"):
        status, _, body = request(server, "POST", path, b" " * 4_194_305, headers)
        assert (status, refusal(body)["error"]) == (413, "body_too_large")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        client.sendall((head + "Content-Length: 99999999999\r\n\r\n").encode())
        assert client.recv(65_536).split()[1] == b"413"
    assert request(server, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b"null",
        b"\xff\xfe",
        b'{"id":1}',
    ],
)
def test_what_is_no_message_is_answered_with_an_error(server: HttpServer, body: bytes) -> None:
    for headers in ({}, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "ping"}):
        sent = {"Content-Type": "application/json", "Accept": ACCEPT, **headers}
        status, _, answer = request(server, "POST", "/mcp", body, sent)
        assert status == 400
        assert json.loads(answer)["error"]["code"] in {-32700, -32600, -32602}
    assert server.process.poll() is None


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_nested_too_deeply_is_refused_before_it_is_read(server: HttpServer, body: bytes) -> None:
    for headers in ({}, {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "ping"}):
        sent = {"Content-Type": "application/json", "Accept": ACCEPT, **headers}
        status, _, answer = request(server, "POST", "/mcp", body, sent)
        assert (status, refusal(answer)["error"]) == (413, "body_too_complex")
    assert server.process.poll() is None


def test_space_around_the_value_of_a_header_is_no_part_of_it(server: HttpServer) -> None:
    params = {"name": "tool_echo", "arguments": {}, "_meta": META}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    head = [
        "POST /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Content-Type: application/json",
        f"Accept: {ACCEPT}",
        "MCP-Protocol-Version:\t2026-07-28 \t",
        "Mcp-Method:   tools/call  ",
        "Mcp-Name:  tool_echo\t ",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall("\r\n".join([*head, "", body]).encode())
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200"), answer


def test_wrong_content_types_accepts_and_methods_are_refused(server: HttpServer) -> None:
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    assert request(server, "POST", "/mcp", ping, {"Content-Type": "text/plain", "Accept": ACCEPT})[0] in {400, 415}
    assert request(server, "POST", "/mcp", ping, {"Content-Type": "application/json", "Accept": "text/html"})[0] == 406
    assert request(server, "PUT", "/mcp", ping, {"Content-Type": "application/json"})[0] in {400, 405}
    assert request(server, "GET", "/sse", headers={"Accept": "text/html"})[0] == 406
    assert request(server, "POST", "/sse", ping, {"Content-Type": "application/json"})[0] == 405
    assert request(server, "GET", "/messages/")[0] == 405
    assert request(server, "POST", "/messages/?session_id=0", ping, {"Content-Type": "text/plain"})[0] == 415
    status, _, body = request(server, "POST", "/messages/?session_id=0", ping, {"Content-Type": "application/json"})
    assert (status, refusal(body)["error"]) == (404, "unknown_session")


def test_an_unknown_or_deleted_mcp_session_answers_404(server: HttpServer) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert legacy(server, ping, "0123456789abcdef")[0] == 404
    session = initialize(server)[1]["mcp-session-id"]
    assert legacy(server, ping, session)[0] == 200
    assert request(server, "DELETE", "/mcp", headers={"Mcp-Session-Id": session})[0] == 200
    assert legacy(server, ping, session)[0] == 404


def test_deleting_an_mcp_session_ends_its_session_with_the_trace(server: HttpServer) -> None:
    session = initialize(server)[1]["mcp-session-id"]
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool_echo", "arguments": {}}}
    assert legacy(server, call, session)[0] == 200
    assert request(server, "DELETE", "/mcp", headers={"Mcp-Session-Id": session})[0] == 200
    last = server.place.events()[-1]
    assert (last["event_type"], last["payload"]["reason"]) == ("session.ended", "completed")


def test_lists_are_the_same_whatever_was_called_before(server: HttpServer) -> None:
    def lists() -> list[Any]:
        found = [
            modern(server, method, {})[1]["result"]
            for method in ("tools/list", "resources/list", "resources/templates/list")
        ]
        # The traces a person can pick are of what was called; all else is the same.
        found[1]["resources"] = [each for each in found[1]["resources"] if not each["uri"].startswith("cra://trace/01")]
        return found

    before = lists()
    assert modern(server, "tools/call", {"name": "cra_start_session", "arguments": {"goal": "x"}})[0] == 200
    assert modern(server, "tools/call", {"name": "tool_echo", "arguments": {}})[0] == 200
    assert lists() == before


def test_no_text_of_an_exception_reaches_the_wire(server: HttpServer) -> None:
    _, answer = modern(server, "tools/call", {"name": "tool_fail", "arguments": {}})
    assert answer["result"]["isError"] is True
    assert "hunter2" not in json.dumps(answer)
    session = initialize(server)[1]["mcp-session-id"]
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool_fail", "arguments": {}}}
    _, _, body = legacy(server, call, session)
    assert b"isError" in body
    assert b"hunter2" not in body
