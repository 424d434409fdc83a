"""Servers that others wrote, governed: through the host's client, this server, and theirs (run by Node), and back."""

import base64
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import anyio
import mcp_types as t
import pytest
from mcp import Client, StdioServerParameters

from cra_mcp.trace.event import verify
from tests.clients import install
from tests.faces.mcp.conftest import ROOT, Place, environment
from tests.forks.command import forked

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])]
Mode = Literal["legacy", "2026-07-28"]


@pytest.fixture(scope="session")
def npm() -> ModuleType:
    """tests/clients/install.py, everything installed."""
    install.ready()
    return install


def governing(place: Place, atlas: Path, **more: str) -> StdioServerParameters:
    args = forked("serve", "--atlas", atlas, "--data-dir", place.data)
    return StdioServerParameters(command=sys.executable, args=args, env={**environment(), **more})


def everything(place: Place, npm: ModuleType) -> Path:
    """An atlas of some tools of the MCP project's reference server; ``get-env``, which tells secrets, is not among them."""
    tools = {
        "look": "get-tiny-image",
        "weather": "get-structured-content",
        "sum": "get-sum",
        "links": "get-resource-links",
        "work": "trigger-long-running-operation",
    }
    script = npm.package_file("@modelcontextprotocol/server-everything", "dist/index.js")
    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.everything",
        "version": "1.0.0",
        "name": "Everything",
        "description": "A reference server, governed.",
        "upstreams": {"reference": {"command": str(npm.node()), "args": [str(script), "stdio"]}},
        "actions": [
            {
                "action_id": f"reference.{name}",
                "name": name,
                "description": name,
                "parameters_schema": {"type": "object"},
                "executor": {"type": "mcp", "upstream": "reference", "tool": tool},
                "timeout_seconds": 60,
            }
            for name, tool in tools.items()
        ],
    }
    folder = place.folder / "everything"
    folder.mkdir()
    (folder / "atlas.json").write_text(json.dumps(manifest))
    return folder


def checked(place: Place) -> list[dict[str, Any]]:
    (path,) = place.traces()
    assert verify(path.read_bytes().splitlines()).ok
    return place.events()


async def test_what_a_reference_server_answers_arrives_whole(place: Place, npm: ModuleType, mode: Mode) -> None:
    async with Client(governing(place, everything(place, npm)), mode=mode, cache=None) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "reference_look" in listed
        assert listed["reference_look"].annotations is not None
        assert listed["reference_look"].annotations.open_world_hint is True

        looked = await client.call_tool("reference_look", {})
        image = next(block for block in looked.content if isinstance(block, t.ImageContent))
        assert image.mime_type == "image/png"
        assert base64.b64decode(image.data).startswith(b"\x89PNG\r\n\x1a\n")
        weather = await client.call_tool("reference_weather", {"location": "New York"})
        assert set(weather.structured_content) == {"temperature", "conditions", "humidity"}
        links = await client.call_tool("reference_links", {"count": 2})
        assert [block.type for block in links.content] == ["text", "resource_link", "resource_link"]

        failed = await client.call_tool("reference_sum", {"a": "one", "b": 2})
        assert failed.is_error, "a tool's own error stays one"
        assert failed.meta is not None
        assert failed.meta["dev.cra/receipt"]["error"] == "tool_error"
        assert (await client.call_tool("reference_sum", {"a": 1, "b": 2})).is_error is False
    kinds = [event["event_type"] for event in checked(place)]
    assert (kinds.count("action.executed"), kinds.count("action.failed")) == (4, 1)


async def test_progress_and_cancellation_pass_through(place: Place, npm: ModuleType, mode: Mode) -> None:
    seen: list[tuple[float, float | None]] = []
    began = anyio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total))
        began.set()

    async with Client(governing(place, everything(place, npm)), mode=mode, cache=None) as client:
        work = {"duration": 0.4, "steps": 4}
        assert (await client.call_tool("reference_work", work, progress_callback=progress)).is_error is False
        assert seen[:3] == [(1.0, 4.0), (2.0, 4.0), (3.0, 4.0)]
        began = anyio.Event()
        async with anyio.create_task_group() as group:

            async def long() -> None:
                await client.call_tool("reference_work", {"duration": 60, "steps": 600}, progress_callback=progress)

            group.start_soon(long)
            with anyio.fail_after(20):
                await began.wait()
            group.cancel_scope.cancel()
        assert (await client.call_tool("reference_sum", {"a": 1, "b": 2})).is_error is False
    failed = [event["payload"] for event in checked(place) if event["event_type"] == "action.failed"]
    assert [payload["error_code"] for payload in failed] == ["cancelled"]


async def test_the_filesystem_atlas_reads_asks_before_it_writes_and_never_moves(
    place: Place, npm: ModuleType, mode: Mode
) -> None:
    atlas = shutil.copytree(ROOT / "atlases" / "filesystem", place.folder / "filesystem")
    manifest = json.loads((atlas / "atlas.json").read_text())
    server = manifest["upstreams"]["files"]
    # What `npx` would fetch is installed already; its version is the one that tests/clients pins.
    script = npm.package_file("@modelcontextprotocol/server-filesystem", "dist/index.js")
    wanted = json.loads((ROOT / "tests" / "clients" / "package.json").read_text())["dependencies"]
    assert server["args"][1].rpartition("@")[2] == wanted["@modelcontextprotocol/server-filesystem"]
    server["command"], server["args"] = str(npm.node()), [str(script), "${CRA_FILESYSTEM_ROOT}"]
    (atlas / "atlas.json").write_text(json.dumps(manifest))
    files = place.folder / "files"
    files.mkdir()
    (files / "note.txt").write_text("content ü")
    asked: list[str] = []

    async def answer(_context: Any, params: Any) -> t.ElicitResult:
        asked.append(params.message)
        return t.ElicitResult(action="accept", content={"approve": len(asked) == 1})

    parameters = governing(place, atlas, CRA_FILESYSTEM_ROOT=str(files))
    async with Client(parameters, mode=mode, cache=None, elicitation_callback=answer) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"file_read", "file_write"} <= names
        assert "file_move" not in names
        read = await client.call_tool("file_read", {"path": str(files / "note.txt")})
        assert [block.text for block in read.content if isinstance(block, t.TextContent)] == ["content ü"]
        written = await client.call_tool("file_write", {"path": str(files / "new.txt"), "content": "written"})
        assert written.is_error is False
        refused = await client.call_tool("file_write", {"path": str(files / "other.txt"), "content": "written"})
        assert refused.is_error
        moved = await client.call_tool(
            "file_move", {"source": str(files / "note.txt"), "destination": str(files / "gone.txt")}
        )
        assert moved.is_error
        outside = await client.call_tool("file_read", {"path": str(place.atlas / "atlas.json")})
        assert outside.is_error, "the upstream's own rule holds as well"
    assert sorted(path.name for path in files.iterdir()) == ["new.txt", "note.txt"]
    assert "new.txt" in asked[0]
    kinds = [event["event_type"] for event in checked(place)]
    assert [kinds.count(kind) for kind in ("action.executed", "approval.granted", "approval.rejected")] == [2, 1, 1]
