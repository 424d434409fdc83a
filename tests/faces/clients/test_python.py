"""Python clients of two SDK lines and of FastMCP, and the bridge mcp-remote, drive the server over every transport they have."""

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cra_mcp.trace.event import verify
from tests.clients import environments
from tests.faces.clients.test_typescript import packages
from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.mcp.conftest import Place, environment, write_atlas

DRIVE = Path(__file__).parent / "drive.py"
CLIENTS = pytest.mark.parametrize(
    ("kind", "mode"), [("mcp1", "legacy"), ("mcp2", "legacy"), ("mcp2", "2026-07-28"), ("fastmcp", "auto")]
)


def python_of(kind: str) -> str:
    """The interpreter a client is installed in: the 2.x SDK is ours."""
    if kind == "mcp2":
        return sys.executable
    return str(environments.interpreter(kind))


def failures(place: Place) -> Counter[str]:
    return Counter(event["payload"]["error_code"] for event in place.events() if event["event_type"] == "action.failed")


def drive(kind: str, mode: str, place: Place, *target: str) -> dict[str, object]:
    before = failures(place)  # of clients that used the server earlier
    marks = place.folder / f"marks-{uuid4()}"
    # -P: the folder of the script has modules of ours in it
    done = subprocess.run(
        [python_of(kind), "-P", str(DRIVE), kind, mode, str(marks), *target],
        capture_output=True,
        text=True,
        env=environment("agent,auditor"),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return {**json.loads(done.stdout), "failed": dict(failures(place) - before)}


def check(report: dict) -> None:
    assert "tool_add" in report["tools"]
    assert "tool_delete" not in report["tools"]
    assert report["allowed"]["structuredContent"] == {"sum": 5}
    assert report["denied"]["isError"] is True
    assert "no-delete" in report["denied"]["content"][0]["text"]
    assert json.loads(report["approved"]["content"][0]["text"]) == {"echo": {"to": "ann"}}
    assert verify(report["trace"].encode().splitlines()).ok
    assert report["updated"].startswith("cra://trace/")
    assert report["steps"] == ["done", [[number, 3, f"step {number}"] for number in (1, 2, 3)]]
    assert report["failed"] == ({"cancelled": report["gave_up"]} if report["gave_up"] else {})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """One for all: each client is in a session of its own, or in the one of everybody, which may have been used."""
    folder = tmp_path_factory.mktemp("server")
    with contextlib.closing(Servers(Place(folder, write_atlas(folder / "atlas"), "agent,auditor"))) as servers:
        yield servers.start()


@CLIENTS
def test_a_python_client_lists_calls_is_refused_approves_watches_cancels_and_sees_progress_over_stdio(
    place: Place, kind: str, mode: str
) -> None:
    check(drive(kind, mode, place, sys.executable, *place.command()))


@pytest.mark.parametrize(
    ("transport", "kind", "mode"),
    [
        ("mcp", "mcp1", "legacy"),
        pytest.param("mcp", "mcp2", "legacy", marks=pytest.mark.long),
        ("mcp", "mcp2", "2026-07-28"),
        ("mcp", "fastmcp", "auto"),
        ("sse", "mcp1", "legacy"),
        pytest.param("sse", "mcp2", "legacy", marks=pytest.mark.long),
        ("sse", "mcp2", "2026-07-28"),
        pytest.param("sse", "fastmcp", "auto", marks=pytest.mark.long),
    ],
)
def test_a_python_client_lists_calls_is_refused_approves_watches_cancels_and_sees_progress_over_http(
    server: HttpServer, kind: str, mode: str, transport: str
) -> None:
    check(drive(kind, mode, server.place, server.addresses[transport]))


@pytest.mark.parametrize(("kind", "mode"), [("mcp1", "legacy"), ("mcp2", "2026-07-28")])
def test_a_client_that_only_speaks_stdio_comes_in_by_mcp_remote(server: HttpServer, kind: str, mode: str) -> None:
    npm = packages()
    entry = npm.package_file("mcp-remote", "dist/proxy.js")
    bridge = [str(npm.node()), str(entry), server.addresses["mcp"], "--allow-http", "--transport", "http-only"]
    check(drive(kind, mode, server.place, *bridge))
