"""The TypeScript SDKs and the MCP Inspector drive the server over HTTP."""

import json
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from cra_mcp.trace.event import verify
from tests.faces.clients.test_typescript import packages, run
from tests.faces.http.conftest import HttpServer

DRIVE = Path(__file__).resolve().parents[1] / "clients" / "drive.mjs"


def failures(server: HttpServer) -> Counter[str]:
    return Counter(e["payload"]["error_code"] for e in server.place.events() if e["event_type"] == "action.failed")


@pytest.fixture
def server(shared: HttpServer) -> HttpServer:
    return shared


@pytest.mark.parametrize(
    ("sdk", "mode", "transport"),
    [
        ("1", "legacy", "mcp"),
        ("1", "legacy", "sse"),
        pytest.param("2", "legacy", "mcp", marks=pytest.mark.long),
        pytest.param("2", "legacy", "sse", marks=pytest.mark.long),
        ("2", "auto", "mcp"),
        pytest.param("2", "auto", "sse", marks=pytest.mark.long),
        ("2", "pin", "mcp"),
        ("2", "pin", "sse"),
    ],
)
def test_a_typescript_client_lists_calls_is_refused_approves_watches_cancels_and_sees_progress(
    server: HttpServer, sdk: str, mode: str, transport: str
) -> None:
    npm = packages()
    before = failures(server)  # of clients that used the server earlier
    marks = server.place.folder / f"marks-{uuid4()}"
    done = run([str(npm.node()), str(DRIVE), sdk, mode, str(npm.MODULES), str(marks), server.addresses[transport]])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "tool_add" in report["tools"]
    assert "tool_delete" not in report["tools"]
    assert report["allowed"]["structuredContent"] == {"sum": 5}
    assert report["denied"]["isError"] is True
    assert json.loads(report["approved"]["content"][0]["text"]) == {"echo": {"to": "ann"}}
    said, steps = report["steps"]
    # This client forgets the progress of a call whose answer came in the same read.
    assert (said, steps) == ("done", [[number, 3, f"step {number}"] for number in range(1, len(steps) + 1)])
    assert steps
    assert verify(report["trace"].encode().splitlines()).ok
    assert (report["updated"][:12], failures(server) - before) == ("cra://trace/", Counter(cancelled=1))


@pytest.mark.parametrize(("transport", "era"), [("http", "legacy"), ("http", "modern"), ("sse", "legacy")])
def test_the_inspector_lists_and_calls(server: HttpServer, transport: str, era: str) -> None:
    npm = packages()
    package = json.loads(npm.package_file("@modelcontextprotocol/inspector", "package.json").read_text())
    entry = npm.package_file("@modelcontextprotocol/inspector", package["bin"]["mcp-inspector"])
    url = server.sse if transport == "sse" else server.url
    target = ["--server-url", url, "--transport", transport, "--protocol-era", era]
    inspector = [str(npm.node()), str(entry), "--cli", "--connect-timeout", "60000", "--format", "json", "-q", *target]
    listed = run([*inspector, "--method", "tools/list"])
    assert listed.returncode == 0, listed.stderr
    assert "tool_add" in listed.stdout
    arguments = ["--tool-name", "tool_add", "--tool-args-json", '{"a": 2, "b": 3}']
    called = run([*inspector, "--method", "tools/call", *arguments])
    assert called.returncode == 0, called.stderr
    assert '"sum":5' in called.stdout.replace("\\", "").replace(" ", "")
    denied = run([*inspector, "--method", "tools/call", "--tool-name", "tool_delete", "--tool-args-json", "{}"])
    assert denied.returncode != 0
