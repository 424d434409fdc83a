"""Upstreams over Streamable HTTP: small servers on loopback, most of them bad ones."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest

from cra_mcp.atlas.model import McpExecutor, Upstream
from cra_mcp.errors import ExecutionError
from cra_mcp.execution import foreign_json, mcp_events
from cra_mcp.execution.backend import Result
from cra_mcp.execution.mcp_upstream import McpBackend

pytestmark = pytest.mark.anyio


class Handler(BaseHTTPRequestHandler):
    """A good server of the 2025 protocol; ``answers`` of its server replaces how it answers tools/call."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.server.gets += 1
        self.reply(405, b"")

    def do_DELETE(self) -> None:
        self.server.ended.append(self.headers["mcp-session-id"])
        self.reply(200, b"")

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.seen.append((dict(self.headers), body))
        method = body.get("method")
        if server.gate is not None and not server.gate(self, body):
            return
        if method == "initialize":
            server.sessions += 1
            info = {"name": "t", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            self.answer(body, result, {"mcp-session-id": f"session-{server.sessions}"})
        elif method == "tools/call":
            server.answers(self, body)
        elif "id" in body:
            self.json({"jsonrpc": "2.0", "id": body["id"], "error": {"code": -32601, "message": "no"}})
        else:
            self.reply(202, b"")

    def answer(self, body, result, headers=None) -> None:
        self.json({"jsonrpc": "2.0", "id": body["id"], "result": result}, headers)

    def json(self, message, headers=None, status=200) -> None:
        self.reply(status, json.dumps(message).encode(), {"content-type": "application/json", **(headers or {})})

    def reply(self, status, data, headers=None) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def events(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True


def good(handler: Handler, body) -> None:
    handler.answer(body, {"content": [{"type": "text", "text": body["params"]["arguments"].get("text", "")}]})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.seen: list[tuple[dict[str, str], dict[str, object]]] = []
        self.ended: list[str] = []
        self.sessions = 0
        self.gets = 0
        self.answers: Callable[[Handler, dict], None] = good
        self.gate: Callable[[Handler, dict], bool] | None = None
        self.connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mcp"

    @property
    def calls(self) -> list[dict[str, object]]:
        return [body for _, body in self.seen if body.get("method") == "tools/call"]

    def handle_error(self, *_: object) -> None: ...

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    server = Server(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        for connection in server.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture
async def backend():
    async with McpBackend(connect_timeout_s=5) as entered:
        yield entered


async def use(kit, backend, url, *, headers=None, parameters=None, **action) -> Result:
    upstream = Upstream("up", url=url, headers=headers or {})
    return await kit.call(
        backend, kit.action(McpExecutor("up", "echo"), **action), kit.atlas(upstream), parameters or {}
    )


async def refused(kit, backend, url, **options) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await use(kit, backend, url, **options)
    assert "127.0.0.1" not in caught.value.message
    return caught.value


def text(result: Result) -> str:
    assert result.content is not None
    return str(result.content[0]["text"])


async def test_calls_are_answered_over_one_session_that_is_ended(kit, server) -> None:
    async with McpBackend() as backend:
        for word in ("one", "two"):
            assert text(await use(kit, backend, server.url, parameters={"text": word})) == word
    assert server.sessions == 1
    assert server.ended == ["session-1"]


async def test_no_stream_of_unasked_messages_is_opened(kit, backend, server) -> None:
    await use(kit, backend, server.url)
    await use(kit, backend, server.url)
    assert server.gets == 0


async def test_headers_and_url_are_filled_in_and_sent(kit, server) -> None:
    environ = {"TOKEN_VALUE": "t0ken", "HOST_URL": server.url}
    async with McpBackend(environ=environ) as backend:
        await use(kit, backend, "${HOST_URL}", headers={"Authorization": "Bearer ${TOKEN_VALUE}"})
    assert all(headers["Authorization"] == "Bearer t0ken" for headers, _ in server.seen)


async def test_its_cookies_are_kept_for_nobody(kit, backend, server) -> None:
    def answers(handler, body) -> None:
        headers = {"set-cookie": "who=first; Path=/", "set-cookie2": "who=first"}
        handler.answer(body, {"content": [{"type": "text", "text": "x"}]}, headers)

    server.answers = answers
    for _ in range(3):
        await use(kit, backend, server.url)
    assert server.sessions == 1
    assert [headers for headers, _ in server.seen if "cookie" in {name.lower() for name in headers}] == []


async def test_an_event_stream_with_progress_is_read(kit, backend, server) -> None:
    def stream(handler: Handler, body) -> None:
        handler.events()
        token = body["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1, "total": 2}
        for message in (
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": params},
            {"jsonrpc": "2.0", "id": body["id"], "result": {"content": [{"type": "text", "text": "streamed"}]}},
        ):
            handler.wfile.write(f"event: message\ndata: {json.dumps(message)}\n\n".encode())

    server.answers = stream
    seen = []

    async def on_progress(*progress: object) -> None:
        seen.append(progress)

    upstream = Upstream("up", url=server.url)
    result = await kit.call(backend, kit.action(McpExecutor("up", "echo")), kit.atlas(upstream), {}, on_progress)
    assert text(result) == "streamed"
    assert seen == [(1.0, 2.0, None)]


@pytest.mark.parametrize("streamed", [True, False])
async def test_half_a_surrogate_pair_is_replaced(kit, backend, server, streamed) -> None:
    what: list[object] = []

    def answers(handler: Handler, body) -> None:
        message = {"jsonrpc": "2.0", "id": body["id"], **what[0]}
        if streamed:
            handler.events()
            params = {"progressToken": body["params"]["_meta"]["progressToken"], "progress": 1, "message": "p\ud800"}
            for each in ({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}, message):
                handler.wfile.write(f"event: message\ndata: {json.dumps(each)}\n\n".encode())
        else:
            handler.json(message)

    async def on_progress(_done: float, _total: float | None, message: str | None) -> None:
        seen.append(message)

    server.answers = answers
    seen: list[str | None] = []
    action, atlas = kit.action(McpExecutor("up", "echo")), kit.atlas(Upstream("up", url=server.url))
    what.append({"result": {"content": [{"type": "text", "text": "a\ud800"}], "structuredContent": {"\udfff": 1}}})
    result = await kit.call(backend, action, atlas, {}, on_progress)
    assert (text(result), result.value) == ("a\ufffd", {"\ufffd": 1})
    what[0] = {"error": {"code": 1, "message": "no \ud800!"}}
    with pytest.raises(ExecutionError) as caught:
        await kit.call(backend, action, atlas, {}, on_progress)
    assert caught.value.message.endswith("no \ufffd!")
    assert seen == (["p\ufffd"] * 2 if streamed else [])
    assert server.sessions == 1


async def test_a_flood_of_notifications_becomes_a_few_reports_and_the_answer(kit, backend, server) -> None:
    def stream(handler: Handler, body) -> None:
        handler.events()
        token = body["params"]["_meta"]["progressToken"]
        for number in range(3_000):
            params = {"progressToken": token, "progress": number + 1}
            for method, what in (
                ("progress", params),
                ("message", {"level": "info", "data": "x"}),
                ("tools/list_changed", {}),
            ):
                message = {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": what}
                handler.wfile.write(f"event: message\ndata: {json.dumps(message)}\n\n".encode())
        message = {"jsonrpc": "2.0", "id": body["id"], "result": {"content": [{"type": "text", "text": "streamed"}]}}
        handler.wfile.write(f"event: message\ndata: {json.dumps(message)}\n\n".encode())

    server.answers = stream
    seen = []

    async def on_progress(done: float, *_: object) -> None:
        seen.append(done)

    upstream = Upstream("up", url=server.url)
    for _ in range(2):
        seen.clear()
        result = await kit.call(backend, kit.action(McpExecutor("up", "echo")), kit.atlas(upstream), {}, on_progress)
        assert text(result) == "streamed"
        assert seen == sorted(set(seen))
        assert seen[-1] == 3_000
        assert len(seen) < 600
    assert server.sessions == 1


# --- gone and back -----------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_unavailable(kit, backend) -> None:
    with serving() as closed:
        url = closed.url
    assert (await refused(kit, backend, url)).code == "upstream_unavailable"


async def test_a_restarted_server_is_found_again_and_the_call_made_once(kit, backend) -> None:
    with serving() as first:
        assert text(await use(kit, backend, first.url, parameters={"text": "before"})) == "before"
        port = first.server_address[1]
    with serving(port) as second:
        assert text(await use(kit, backend, second.url, parameters={"text": "after"})) == "after"
        assert len(second.calls) == 1


@pytest.mark.parametrize("status", [400, 404])
async def test_a_forgotten_session_is_opened_again_and_the_call_made_once(kit, backend, server, status) -> None:
    await use(kit, backend, server.url)
    known = "session-1"

    def gate(handler: Handler, body) -> bool:
        if handler.headers.get("mcp-session-id") == known:
            error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no valid session"}}
            handler.json(error, status=status)
            return False
        return True

    server.gate = gate
    assert text(await use(kit, backend, server.url, parameters={"text": "again"})) == "again"
    assert server.sessions == 2


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_connection_that_breaks_during_a_call(kit, backend, server, idempotent) -> None:
    def break_once(handler: Handler, body) -> None:
        server.answers = good
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    await use(kit, backend, server.url)
    server.answers = break_once
    if idempotent:
        assert text(await use(kit, backend, server.url, parameters={"text": "x"}, idempotent=True)) == "x"
        assert len(server.calls) == 3
    else:
        assert (await refused(kit, backend, server.url)).code == "upstream_lost"
        assert len(server.calls) == 2
    assert text(await use(kit, backend, server.url, parameters={"text": "y"})) == "y"


@pytest.mark.parametrize("kind", ["json", "events"])
async def test_an_answer_that_breaks_off_loses_its_call_and_no_other(kit, backend, server, kind) -> None:
    def break_off(handler: Handler, body) -> None:
        if body["params"]["arguments"].get("text") == "waits":
            server.released.wait(10)
            good(handler, body)
            return
        if kind == "json":
            handler.send_response(200)
            handler.send_header("content-type", "application/json")
            handler.send_header("content-length", "1000")
            handler.end_headers()
        else:
            handler.events()
        handler.wfile.write(b'{"jsonrpc"')
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    server.released = threading.Event()
    server.answers = break_off
    results = []

    async def waits() -> None:
        results.append(text(await use(kit, backend, server.url, parameters={"text": "waits"})))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits)
        await kit.until(lambda: server.calls)
        assert (await refused(kit, backend, server.url)).code == "upstream_lost"
        server.released.set()
    assert results == ["waits"]


# --- bad ones ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "start"), [(401, True), (403, False), (500, False), (502, True)])
async def test_a_refusal_names_its_status(kit, backend, server, status, start) -> None:
    def gate(handler: Handler, body) -> bool:
        if start or body.get("method") == "tools/call":
            handler.reply(status, b"<html>SECRET</html>", {"content-type": "text/html"})
            return False
        return True

    server.gate = gate
    error = await refused(kit, backend, server.url)
    assert error.code == "upstream_unavailable"
    assert f"HTTP {status}" in error.message
    assert "SECRET" not in error.message


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"not json", "application/json"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"content":"text"}}', "application/json"),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"content":"text"}}', "application/json"),
        (b'{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"x":NaN}}}', "application/json"),
        (b"event: message\ndata: not json\n\n", "text/event-stream"),
    ],
)
async def test_an_answer_that_is_not_mcp_is_refused(kit, backend, server, data, content_type) -> None:
    def answer(handler: Handler, body) -> None:
        handler.reply(200, data.replace(b"ID", str(body["id"]).encode()), {"content-type": content_type})

    server.answers = answer
    with anyio.move_on_after(1 if b'"id":1,' in data else 20) as scope:
        assert (await refused(kit, backend, server.url)).code == "invalid_result"
    assert not scope.cancelled_caught or b'"id":1,' in data


@pytest.mark.parametrize("kind", ["json", "event", "events"])
async def test_an_answer_without_end_is_cut_off(kit, backend, server, monkeypatch, kind) -> None:
    monkeypatch.setattr(foreign_json, "MAX_BYTES", 2_000_000)
    monkeypatch.setattr(mcp_events, "MAX_STREAM_BYTES", 2_000_000)

    def flood(handler: Handler, body) -> None:
        if kind == "json":
            handler.send_response(200)
            handler.send_header("content-type", "application/json")
            handler.send_header("connection", "close")
            handler.end_headers()
            handler.close_connection = True
        else:
            handler.events()
        note = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * 900}}
        )
        part = f"event: message\ndata: {note}\n\n".encode() * 50 if kind == "events" else b"x" * 65536
        try:
            handler.wfile.write(b"" if kind == "events" else b"data: ")
            while True:
                handler.wfile.write(part)
        except OSError:
            server.cut = True

    server.cut = False
    server.answers = flood
    with anyio.fail_after(20):
        assert (await refused(kit, backend, server.url)).code == "output_too_large"
    await kit.until(lambda: server.cut)
    server.answers = good
    assert text(await use(kit, backend, server.url, parameters={"text": "next"})) == "next"


async def test_a_compressed_answer_is_refused_unread(kit, backend, server) -> None:
    def bomb(handler: Handler, body) -> None:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        handler.reply(200, gzip.compress(b"x" * 50_000_000), headers)

    server.answers = bomb
    error = await refused(kit, backend, server.url)
    assert error.code == "upstream_unavailable"
    assert all(headers["accept-encoding"] == "identity" for headers, _ in server.seen)


async def test_a_redirect_to_elsewhere_is_not_followed_with_our_headers(kit, backend, server) -> None:
    with serving() as elsewhere:

        def redirect(handler: Handler, body) -> bool:
            handler.reply(307, b"", {"location": elsewhere.url})
            return False

        server.gate = redirect
        error = await refused(kit, backend, server.url, headers={"X-Api-Key": "s3cret"})
        assert error.code == "upstream_unavailable"
        assert elsewhere.seen == []


async def test_one_that_hangs_is_left_at_once_and_does_not_hold_up_the_end(kit, server) -> None:
    released = threading.Event()

    def hang(handler: Handler, body) -> None:
        released.wait(20)

    try:
        async with McpBackend() as backend:
            await use(kit, backend, server.url)
            server.answers = hang
            before = time.monotonic()
            with anyio.move_on_after(0.2) as scope:
                await use(kit, backend, server.url)
            assert scope.cancelled_caught
            assert time.monotonic() - before < 2
            await kit.until(lambda: any(body.get("method") == "notifications/cancelled" for _, body in server.seen))
            server.answers = good
            assert text(await use(kit, backend, server.url, parameters={"text": "x"})) == "x"
    finally:
        released.set()


async def test_one_that_never_answers_the_handshake_is_given_up(kit, server) -> None:
    released = threading.Event()

    def hang(handler: Handler, body) -> bool:
        released.wait(20)
        return False

    server.gate = hang
    try:
        async with McpBackend(connect_timeout_s=0.5) as backend:
            error = await refused(kit, backend, server.url)
            assert error.code == "upstream_unavailable"
            assert "0.5 s" in error.message
    finally:
        released.set()


# --- answers over a bound ----------------------------------------------------------------------------------------------

_HEAD = b'{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"a":['
_OVER = {
    "values": (_HEAD + b"[]," * 5_000_000 + b"[]]}}}", "output_too_large"),
    "depth": (_HEAD + b"[" * 5_000 + b"]" * 5_000 + b"]}}}", "output_too_large"),
    "bytes": (_HEAD + b'"' + b"x" * 17_000_000 + b'"]}}}', "output_too_large"),
    "no JSON": (_HEAD + b"x" * 1_000_000 + b"]}}}", "invalid_result"),
    "blocks": (
        b'{"jsonrpc":"2.0","id":ID,"result":{"content":[' + b'{"type":1},' * 30_000 + b"{}]}}",
        "invalid_result",
    ),
}


def in_form(handler: Handler, body, data: bytes, form: str) -> None:
    data = data.replace(b"ID", str(body["id"]).encode())
    with suppress(OSError):
        if form == "json":
            handler.reply(200, data, {"content-type": "application/json"})
        else:
            handler.events()
            handler.wfile.write(b"event: message\ndata: " + data + b"\n\n")


@pytest.mark.parametrize("form", ["json", "event"])
@pytest.mark.parametrize("kind", _OVER)
async def test_an_answer_over_a_bound_fails_its_own_call_and_no_other(kit, backend, server, form, kind) -> None:
    data, code = _OVER[kind]
    held = threading.Event()

    def answer(handler: Handler, body) -> None:
        if body["params"]["arguments"].get("wait"):
            held.wait(20)
            good(handler, body)
        else:
            in_form(handler, body, data, form)

    server.answers = answer
    done = []

    async def neighbour() -> None:
        done.append(text(await use(kit, backend, server.url, parameters={"wait": True, "text": "neighbour"})))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(neighbour)
        await kit.until(lambda: server.calls)
        slowest, over = 0.0, anyio.Event()

        async def call() -> None:
            with anyio.fail_after(20):
                assert (await refused(kit, backend, server.url)).code == code
            over.set()

        tasks.start_soon(call)
        while not over.is_set():
            began = time.thread_time()
            await anyio.sleep(0.001)
            slowest = max(slowest, time.thread_time() - began)
        held.set()
    assert done == ["neighbour"]
    assert slowest < 0.5  # reading all the values takes seconds
    assert server.sessions == 1


@pytest.mark.parametrize("form", ["json", "event"])
async def test_results_pass_as_they_are(kit, backend, server, form) -> None:
    numbers = [2**53, 2**64, -(2**63) - 1, 10**400, 0.5]
    blocks = [{"type": "unheard-of", "x": None}, {"type": "text", "text": "\u2028a\nb"}]
    result = {"content": blocks, "structuredContent": {"n": numbers, "none": None}, "_meta": {"example.com/a": 1}}

    def answer(handler: Handler, body) -> None:
        in_form(handler, body, json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": result}).encode(), form)

    server.answers = answer
    got = await use(kit, backend, server.url)
    assert (list(got.content or ()), got.value, got.meta) == (blocks, result["structuredContent"], result["_meta"])


async def test_events_in_every_form_are_read(kit, backend, server) -> None:
    def answer(handler: Handler, body) -> None:
        handler.events()
        message = json.dumps(
            {"jsonrpc": "2.0", "id": body["id"], "result": {"content": [{"type": "text", "text": "x"}]}}
        )
        head, tail = message.split(" ", 1)
        data = f": a comment\r\nid: 1\r\rdata:{head}\rdata: {tail}\r\nunknown: x\r\n\r\n".encode()
        for byte in data:  # in the smallest of pieces
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()

    server.answers = answer
    assert text(await use(kit, backend, server.url)) == "x"


async def test_a_server_that_ends_its_stream_at_once_is_not_asked_in_a_loop(kit, backend, server, monkeypatch) -> None:
    asked = []

    def get(handler: Handler) -> None:
        asked.append(time.monotonic())
        handler.events()
        handler.wfile.write(b"id: 2\nretry: 0\ndata:\n\n")

    monkeypatch.setattr(Handler, "do_GET", get)

    def answer(handler: Handler, body) -> None:
        handler.events()
        handler.wfile.write(b"id: 1\nretry: 0\ndata:\n\n")

    server.answers = answer
    with anyio.move_on_after(4):
        await use(kit, backend, server.url)
    assert 1 <= len(asked) <= 3
