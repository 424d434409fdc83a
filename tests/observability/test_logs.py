"""What the real server logs, and what it never does."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mcp import Client, MCPError

from cra_mcp.debug_log import open_debug_log
from cra_mcp.errors import SettingsError
from tests.observability.conftest import served

pytestmark = pytest.mark.anyio


async def called(url: str) -> list[dict[str, object]]:
    """Two calls; their receipts."""
    async with Client(f"{url}/mcp", cache=None) as client:
        good = await client.call_tool("do_echo", {"text": "password=hunter2"})
        bad = await client.call_tool("do_denied", {})
    return [(each.meta or {})["dev.cra/receipt"] for each in (good, bad)]


async def test_every_call_is_one_line_with_session_and_sequence(atlas: Path) -> None:
    async with served(atlas, "--verbose") as server:
        receipts = await called(server.url)
    lines = [line for line in server.lines if line["event"] == "call"]
    assert [(line["session"], line["sequence"]) for line in lines] == [
        (receipt["session_id"], receipt["sequence"]) for receipt in receipts
    ]
    assert [(line["status"], line.get("code")) for line in lines] == [("success", None), ("denied", "denied")]
    assert {line["level"] for line in lines} == {"debug"}
    assert "hunter2" not in str(server.lines)


async def test_calls_are_not_logged_unless_it_is_wanted(atlas: Path) -> None:
    async with served(atlas) as server:
        await called(server.url)
    assert [line for line in server.lines if line["event"] == "call"] == []


async def test_what_other_code_logs_during_a_call_stands_there_without_its_words(atlas: Path) -> None:
    (atlas / "python" / "functions.py").write_text(
        "import logging\ndef echo(text):\n    logging.getLogger('helper').warning('half %s', text)\n    return text\n"
    )
    debug = atlas.parent / "debug.log"
    async with served(atlas, "--debug-log", str(debug)) as server, Client(f"{server.url}/mcp", cache=None) as client:
        result = await client.call_tool("do_echo", {"text": MARK})
    receipt = (result.meta or {})["dev.cra/receipt"]
    (line,) = [line for line in server.lines if line.get("logger") == "helper"]
    assert (line["session"], line["sequence"]) == (receipt["session_id"], receipt["sequence"] - 1)
    assert (line["event"], line["at"]) == ("a message of other code, not shown", "functions.py:3")
    assert MARK not in server.stderr
    assert f"helper half {MARK}" in debug.read_text()
    assert debug.stat().st_mode & 0o777 == 0o600


# --- nothing foreign ---------------------------------------------------------------------------------------------------

MARK = "Zq7fOreign"
RAISING = """
import threading, warnings
class Late:
    def __init__(self, text): self.text = text
    def __del__(self): raise ValueError(self.text)
def echo(text):
    warnings.warn(text)
    thread = threading.Thread(target=fail, args=(text,))
    thread.start()
    thread.join()
    Late(text)
    fail(text)
def fail(text): raise ValueError(text)
"""


def notified(params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params})


def asked(method: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": MARK, "method": method, "params": {"x": MARK}})


def result(request: object, value: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request, "result": value})


FINE = {"content": [{"type": "text", "text": "fine"}]}
BODIES: dict[str, tuple[str, Callable[[object], str]]] = {
    "not JSON": ("application/json", lambda _: f"{{{MARK}"),
    "not a message": ("application/json", lambda _: json.dumps({"jsonrpc": "2.0", "x": MARK})),
    "another type": ("text/html", lambda _: f"<p>{MARK}"),
    "an error": (
        "application/json",
        lambda i: json.dumps({"jsonrpc": "2.0", "id": i, "error": {"code": 1, "message": MARK}}),
    ),
    "no result": ("application/json", lambda i: result(i, {"content": MARK})),
    "events, not JSON": ("text/event-stream", lambda i: f"data: {MARK}\n\ndata: {result(i, FINE)}\n\n"),
    "an unknown event": ("text/event-stream", lambda i: f"event: {MARK}\ndata: x\n\ndata: {result(i, FINE)}\n\n"),
    "a wrong notification": (
        "text/event-stream",
        lambda i: f"data: {notified({'level': MARK})}\n\ndata: {result(i, FINE)}\n\n",
    ),
    "a question": (
        "text/event-stream",
        lambda i: "".join(
            f"data: {each}\n\n" for each in (asked("sampling/createMessage"), asked(MARK), result(i, FINE))
        ),
    ),
    "broken off": ("text/event-stream", lambda _: f"data: {MARK}"),
}


@contextmanager
def hostile() -> Iterator[str]:
    """An MCP server over HTTP that answers each call as its argument says; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kind, data = "application/json", ""
            if body.get("method") == "initialize":
                info = {"name": MARK, "version": MARK}
                data = result(
                    body["id"], {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
                )
            elif body.get("method") == "tools/call":
                kind, write = BODIES[body["params"]["arguments"]["how"]]
                data = write(body["id"])
            elif "id" in body:
                error = {"code": -32601, "message": MARK}
                data = json.dumps({"jsonrpc": "2.0", "id": body["id"], "error": error})
            self.send_response(200 if data else 202)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.send_header("mcp-session-id", MARK)
            self.end_headers()
            self.wfile.write(data.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
        server.shutdown()


def with_upstream(atlas: Path, upstream: object) -> None:
    manifest = json.loads((atlas / "atlas.json").read_text())
    manifest["actions"][0]["executor"] = {"type": "mcp", "upstream": "up", "tool": "x"}
    manifest["actions"][0]["parameters_schema"] = {"type": "object"}
    manifest["upstreams"] = {"up": upstream}
    (atlas / "atlas.json").write_text(json.dumps(manifest))


async def test_no_word_of_an_upstream_over_http_is_logged(atlas: Path) -> None:
    debug = atlas.parent / "debug.log"
    with hostile() as url:
        with_upstream(atlas, {"url": url})
        async with (
            served(atlas, "--verbose", "--debug-log", str(debug)) as server,
            Client(f"{server.url}/mcp", cache=None) as client,
        ):
            for how in BODIES:
                await client.call_tool("do_echo", {"how": how, "more": MARK})
    assert len([line for line in server.lines if line["event"] == "call"]) == len(BODIES)
    assert MARK not in server.stderr
    assert MARK in debug.read_text()


async def test_what_an_upstream_writes_to_standard_error_is_in_the_debug_log_alone(atlas: Path) -> None:
    line = json.dumps({"event": "call", "status": "success", "x": MARK})
    with_upstream(atlas, {"command": sys.executable, "args": ["-c", f"import sys; sys.stderr.write({line!r}); 1/0"]})
    debug = atlas.parent / "debug.log"
    async with (
        served(atlas, "--verbose", "--debug-log", str(debug)) as server,
        Client(f"{server.url}/mcp", cache=None) as client,
    ):
        failed = await client.call_tool("do_echo", {})
    assert failed.is_error
    assert MARK not in server.stderr
    assert "ZeroDivisionError" not in server.stderr
    assert "ZeroDivisionError" in debug.read_text()


async def test_neither_parameters_nor_texts_of_exceptions_are_logged(atlas: Path) -> None:
    (atlas / "python" / "functions.py").write_text(RAISING)
    async with served(atlas, "--verbose") as server, Client(f"{server.url}/mcp", cache=None) as client:
        for name, arguments in (
            ("do_echo", {"text": MARK}),
            ("do_echo", {"text": [MARK]}),
            ("do_denied", {"x": MARK}),
            ("cra_request_context", {"goal": {"x": MARK}}),
        ):
            await client.call_tool(name, arguments)
        for name in (MARK, f"{MARK}\n{{}}"):
            with pytest.raises(MCPError):
                await client.call_tool(name, {})
        with pytest.raises(MCPError):
            await client.get_prompt(MARK, {"x": MARK})
        with pytest.raises(MCPError):
            await client.read_resource(f"cra://{MARK}")
    assert MARK not in server.stderr
    assert {"functions.py:13"} == {line["at"] for line in server.lines if line.get("raised") == "ValueError"} - {
        "functions.py:5"
    }
    assert {line.get("logger") for line in server.lines if "other code" in line["event"]} == {"py.warnings"}


def test_no_word_of_an_upstream_is_printed_by_a_command_or_a_program_that_embeds_the_runtime(atlas: Path) -> None:
    with hostile() as url:
        with_upstream(atlas, {"url": url})
        for how in ("not JSON", "a wrong notification", "another type"):
            done = subprocess.run(
                [sys.executable, "-c", EMBEDDING, str(atlas), how], capture_output=True, text=True, check=False
            )
            assert (MARK in done.stderr, "Traceback" in done.stderr) == (False, False)
            assert done.stderr == "MARK of its own\n"


EMBEDDING = """
import logging, sys
from cra_mcp import CRARuntime, RuntimeConfig
with CRARuntime(RuntimeConfig(store="memory")) as runtime:
    runtime.load_atlas(sys.argv[1])
    session = runtime.create_session("a", "b")
    print(runtime.execute_blocking(session.session_id, "do.echo", {"how": sys.argv[2]}).status)
logging.getLogger("mcp.client.streamable_http").error("MARK of its own")
"""
LOGGERS = """
import logging, mcp.client.streamable_http, mcp.server.streamable_http_manager, httpx2, uvicorn, uvicorn.main, sse_starlette
from cra_mcp.faces import logs
logs.to_stderr(verbose=True)
for name in [*logging.root.manager.loggerDict, "asyncio", "anyio.streams.tls", "a.new.one", "cra_mcpx"]:
    if name == "cra_mcp" or name.startswith("cra_mcp."):
        continue
    logger = logging.getLogger(name)
    logger.setLevel(1)
    for level in (1, 10, 20, 30, 40, 50):
        logger.log(level, "MARK %s", "MARK", extra={"MARK": "MARK", "event": "MARK"}, stack_info=True)
    try:
        raise ExceptionGroup("MARK", [ValueError("MARK")]) from KeyError("MARK")
    except ExceptionGroup:
        logger.exception("MARK")
logging.getLogger("cra_mcp.x").error("%d", "MARK")
raise SystemError("MARK")
"""


def test_no_other_logger_can_write_a_word_of_its_own_at_any_level() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGERS], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) > 60
    assert {line["logger"] for line in lines if "logger" in line} >= {
        "mcp.client.streamable_http",
        "httpx2",
        "a.new.one",
    }
    assert "MARK" not in done.stderr
    assert lines[-1]["event"] == "the server failed"


# --- the debug log -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_a_debug_log_is_a_file_of_ours_that_nobody_else_reads(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        for _ in range(2):
            os.close(open_debug_log(tmp_path / "new"))
    finally:
        os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "read").touch(0o644)
    (tmp_path / "read").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("read", "link", "pipe", "none/none", "."):
        with pytest.raises(SettingsError):
            open_debug_log(tmp_path / name)


def test_a_server_that_can_t_open_its_debug_log_does_not_start(tmp_path: Path) -> None:
    arguments = ["serve", "--atlas", "devops", "--debug-log", str(tmp_path / "none" / "x")]
    done = subprocess.run(
        [sys.executable, "-m", "cra_mcp", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 3
    assert "debug log" in done.stderr
