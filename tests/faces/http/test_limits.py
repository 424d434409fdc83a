"""What one caller, or a slow one, can take up: bounded, with an answer that says so."""

import json
import select
import signal
import socket
import time

import pytest
from starlette.types import Message, Receive, Scope, Send

from cra_mcp.faces.mcp.http.answers import RefusedError
from cra_mcp.faces.mcp.http.limits import Failures
from cra_mcp.faces.mcp.http.options import Limits
from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_front_door import ACCEPT, META, initialize, legacy, modern, refusal, request
from tests.faces.http.test_sessions import bearer


def opened(server: HttpServer, path: str, token: str, *more: str) -> socket.socket:
    """A stream that has begun."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "Accept: text/event-stream",
        f"Authorization: Bearer {token}",
    ]
    client.sendall("\r\n".join([*head, *more, "", ""]).encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def is_dropped(client: socket.socket, within_s: float = 20) -> bool:
    """Whether the server has let go of a connection, seen without reading from it."""
    poller = select.poll()
    poller.register(client, select.POLLRDHUP)
    return bool(poller.poll(within_s * 1_000))


def test_too_many_requests_wait_as_long_as_they_are_told(servers: Servers) -> None:
    server = servers.start_with_tokens(requests_per_second=0.01, burst=3)
    statuses = [modern(server, "tools/list", {}, bearer("ann"))[0] for _ in range(3)]
    assert statuses == [200] * 3
    for path in ("/mcp", "/messages/?session_id=0"):
        status, headers, body = request(server, "POST", path, b"{}", bearer("ann"))
        assert (status, refusal(body)["error"]) == (429, "rate_limited")
        assert 90 <= int(headers["retry-after"]) <= 100
    assert modern(server, "tools/list", {}, bearer("bob"))[0] == 200, "somebody else's pace is their own"


def test_whoever_guesses_waits_before_the_next_guess_is_looked_at(servers: Servers) -> None:
    server = servers.start_with_tokens(failures_per_second=0.01, failure_burst=3)

    def status_from(address: str, *headers: str) -> tuple[int, bytes]:
        with socket.create_connection(("127.0.0.1", server.port), 30, source_address=(address, 0)) as client:
            lines = ["POST /messages/ HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Connection: close", *headers]
            client.sendall("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
            return int(answer.split()[1]), answer

    right, wrong = "Authorization: Bearer ann", "Authorization: Basic ann"
    for _ in range(5):
        assert status_from("127.0.0.1", right)[0] == 415, "let in, and a right credential costs nothing"
    assert [status_from("127.0.0.1", guess)[0] for guess in (wrong, wrong, wrong)] == [401] * 3
    for guess in (wrong, right):
        status, answer = status_from("127.0.0.1", guess)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (status, refusal(body)["error"]) == (429, "too_many_failures")
        assert 90 <= int(head.lower().partition(b"retry-after: ")[2].split()[0]) <= 100
    assert status_from("127.0.0.2", right)[0] == 415, "another address is another's"
    assert status_from("127.0.0.2", wrong)[0] == 401


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
@pytest.mark.anyio
async def test_an_ipv6_network_guesses_as_one(one: str, other: str, same: bool) -> None:
    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})

    async def nothing(_message: Message) -> None: ...

    async def never() -> Message:
        raise AssertionError("no body is asked for")

    app = Failures(Limits(failures_per_second=0.01, failure_burst=1)).over(refuse)
    await app({"type": "http", "client": (one, 1)}, never, nothing)
    if same:
        with pytest.raises(RefusedError):
            await app({"type": "http", "client": (other, 1)}, never, nothing)
    else:
        await app({"type": "http", "client": (other, 1)}, never, nothing)


def test_too_many_streams_are_refused_to_one_and_not_to_others(servers: Servers) -> None:
    server = servers.start_with_tokens(max_streams_per_principal=1, max_streams=2)
    first = opened(server, "/sse", "ann")
    session = initialize(server, **bearer("ann"))[1]["mcp-session-id"]
    sent = {"Mcp-Session-Id": session, "Accept": "text/event-stream", **bearer("ann")}
    for path in ("/mcp", "/sse"):
        status, _, body = request(server, "GET", path, headers=sent)
        assert (status, refusal(body)["error"]) == (429, "too_many_streams")
    listen = {"Mcp-Method": "subscriptions/listen", "MCP-Protocol-Version": "2026-07-28", "Accept": ACCEPT}
    status, _, body = request(
        server, "POST", "/mcp", b"{}", {"Content-Type": "application/json", **listen, **bearer("ann")}
    )
    assert (status, refusal(body)["error"]) == (429, "too_many_streams")
    second = opened(server, "/sse", "bob")
    status, _, body = request(server, "GET", "/sse", headers={"Accept": "text/event-stream", **bearer("cat")})
    assert (status, refusal(body)["error"]) == (503, "too_many_streams")
    first.close()
    for _ in range(1_000):
        status, _, _ = request(server, "GET", "/mcp", headers={**sent, "Accept": "text/html"})
        if status == 406:  # let in as far as the transport, which does not give that type
            break
    assert status == 406, "a stream that has gone counts no more"
    second.close()


def test_a_connection_that_never_says_what_it_wants_is_dropped(servers: Servers) -> None:
    server = servers.start_with_tokens(receive_s=0.5, keep_alive_s=1)
    for begun in (
        b"",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /hea",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(begun)
            assert is_dropped(client), begun


def answer_to(server: HttpServer, sent: bytes) -> bytes:
    """All that the server says until it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        try:
            client.sendall(sent)
            while chunk := client.recv(65_536):
                answer += chunk
        except ConnectionError:
            pass  # it has heard enough, and closed
    return answer


def test_a_head_is_kept_up_to_a_bound_and_trailers_are_neither_kept_nor_believed(servers: Servers) -> None:
    server = servers.start_with_tokens()
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    for begun in (b"X: " + b"a" * 70_000, b"X: y\r\n" * 20_000):
        assert answer_to(server, b"GET /healthz HTTP/1.1\r\n" + host + begun).startswith(b"HTTP/1.1 431")
    assert answer_to(server, b"GET /" + b"a" * 70_000).startswith(b"HTTP/1.1 431")
    sent = b"POST /mcp HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    sent += b"Accept: %s\r\n" % ACCEPT.encode()
    late = b"\r\n2\r\n{}\r\n0\r\n"
    # Whoever says who it is after the body has not said it.
    answered = answer_to(server, sent + b"Connection: close\r\n" + late + b"Authorization: Bearer ann\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 401")
    early = sent + b"Authorization: Bearer ann\r\n"
    assert answer_to(server, early + b"Connection: close\r\n" + late + b"\r\n").startswith(b"HTTP/1.1 400")
    answer_to(server, early + late + b"X: " + b"a" * 300_000)  # ends, though its trailer does not
    answer_to(server, early + b"\r\n2;" + b"a" * 300_000)  # and so does this chunk's head
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"a":"' + b"b" * 50_000 + b'"}')
    small = answer_to(server, early + b"Connection: close\r\n\r\n" + body + b"0\r\n\r\n")
    assert small.startswith(b"HTTP/1.1 400"), "small chunks are taken: it is no message"


def test_a_body_that_does_not_come_is_not_waited_for(servers: Servers) -> None:
    server = servers.start_with_tokens(receive_s=0.5)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer ann\r\n"
        client.sendall((head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode())
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert refusal(answer.partition(b"\r\n\r\n")[2])["error"] == "body_too_slow"


def test_a_client_that_does_not_read_is_dropped_and_what_it_did_is_recorded(servers: Servers) -> None:
    server = servers.start_with_tokens(send_s=0.5)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(30)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            f"GET /sse HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: */*\r\nAuthorization: Bearer ann\r\n\r\n".encode()
        )
        begun = b""
        while b"session_id=" not in begun or not begun.endswith(b"\r\n\r\n\r\n"):
            begun += client.recv(1_000)
        path = "/messages/?" + begun.partition(b"/messages/?")[2].split()[0].decode()
        params = {"name": "tool_large", "arguments": {"size": 500_000}, "_meta": META}
        for number in range(200):
            body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()
            status = request(server, "POST", path, body, {"Content-Type": "application/json", **bearer("ann")})[0]
            if status == 404:
                break
            assert status == 202
        assert is_dropped(client)
    assert modern(server, "tools/call", {"name": "tool_echo", "arguments": {}}, bearer("ann"))[0] == 200
    kinds = [event["event_type"] for event in server.place.events()]
    assert kinds.count("action.requested") == kinds.count("action.executed") + kinds.count("action.failed") > 1
    assert resident_kib(server) < 400_000


def resident_kib(server: HttpServer) -> int:
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def held_blocks(server: HttpServer) -> int:
    """How many blocks of memory the objects of a server take up."""
    server.process.send_signal(signal.SIGUSR1)
    assert server.process.stdout is not None
    return json.loads(server.process.stdout.readline())["blocks"]


def wait_until_given_back(server: HttpServer, before: int) -> None:
    """By the server itself, which looks from time to time."""
    until = time.monotonic() + 30
    while (held := held_blocks(server)) > before * 1.2:
        assert time.monotonic() < until, (before, held)
        request(server, "GET", "/healthz")


@pytest.mark.long
def test_a_thousand_idle_sessions_are_bounded_and_what_they_took_is_given_back(servers: Servers) -> None:
    server = servers.start_with_tokens(
        max_sessions=1_100, max_sessions_per_principal=1_000, requests_per_second=10_000, burst=10_000
    )
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool_echo", "arguments": {}}}

    def cycle(count: int) -> int:
        """That many sessions, each used once and ended; blocks held while all were open."""
        sessions = [initialize(server, **bearer("ann"))[1]["mcp-session-id"] for _ in range(count)]
        for session in sessions:
            assert legacy(server, call, session, **bearer("ann"))[0] == 200
        if count == 1_000:
            assert initialize(server, **bearer("ann"))[0] == 429
        peak = held_blocks(server)
        for session in sessions:
            sent = {"Mcp-Session-Id": session, **bearer("ann")}
            assert request(server, "DELETE", "/mcp", headers=sent)[0] == 200
        return peak

    cycle(10)  # what is loaded at first use
    before = held_blocks(server)
    peak = cycle(1_000)
    assert peak > before * 1.5, "this measures what sessions take"
    wait_until_given_back(server, before)
    # What the process keeps of the system's memory is up to the allocator. It keeps it once: it is there for the next thousand.
    resident = resident_kib(server)
    cycle(1_000)
    wait_until_given_back(server, before)
    assert resident_kib(server) <= resident * 1.1
    assert server.stop()[0] == 0
