"""Progress and other messages an upstream sends unasked, through the server to its caller."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import mcp_types as t
import pytest
from mcp import Client, StdioServerParameters

from tests.forks.command import forked

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
MANY = 3_000
UPSTREAM = """
import json, os, sys
def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    params = message["params"]
    if message["method"] == "initialize":
        info = {"name": "t", "version": "1"}
        result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    else:
        token = params.get("_meta", {}).get("progressToken")
        for number in range(params["arguments"]["many"]):
            match params["arguments"]["kind"]:
                case "progress":
                    report = {"progressToken": token, "progress": number + 1, "message": str(number)}
                    send({"method": "notifications/progress", "params": report})
                case "log":
                    send({"method": "notifications/message", "params": {"level": "info", "data": number}})
                case other:
                    send({"method": f"notifications/{other}/list_changed"})
        result = {"content": [{"type": "text", "text": json.dumps({"pid": os.getpid(), "token": token})}]}
    send({"id": message["id"], "result": result})
    sys.stdout.flush()
"""


@asynccontextmanager
async def serving(folder: Path, mode: str) -> AsyncIterator[Client]:
    (folder / "server.py").write_text(UPSTREAM)
    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.progress",
        "version": "1.0.0",
        "name": "Progress",
        "description": "For the tests.",
        "actions": [
            {
                "action_id": "a.far",
                "name": "Far",
                "description": "Far.",
                "parameters_schema": {"type": "object"},
                "executor": {"type": "mcp", "upstream": "up", "tool": "x"},
            }
        ],
        "upstreams": {"up": {"command": sys.executable, "args": ["-S", "./server.py"]}},
    }
    (folder / "atlas.json").write_text(json.dumps(manifest))
    server = StdioServerParameters(
        command=sys.executable,
        args=forked("serve", "--atlas", folder, "--data-dir", folder / "data"),
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    async with Client(server, mode=mode, cache=None) as client:
        yield client


def said(result: t.CallToolResult) -> dict[str, object]:
    (block,) = result.content
    assert isinstance(block, t.TextContent)
    assert not result.is_error, block.text
    found: dict[str, object] = json.loads(block.text)
    return found


@BOTH
async def test_progress_is_asked_for_where_the_caller_wants_it(tmp_path: Path, mode: str) -> None:
    async def on_progress(*_: object) -> None: ...

    async with serving(tmp_path, mode) as client:
        arguments = {"kind": "progress", "many": 0}
        unwanted = await client.call_tool("a_far", arguments)
        wanted = await client.call_tool("a_far", arguments, progress_callback=on_progress)
    assert (said(unwanted)["token"], said(wanted)["token"] is None) == (None, False)


@BOTH
async def test_a_flood_of_progress_reaches_the_caller_as_a_few_reports_the_last_among_them(
    tmp_path: Path, mode: str
) -> None:
    seen: list[float] = []

    async def on_progress(done: float, _total: float | None, message: str | None) -> None:
        assert message == str(int(done) - 1)
        seen.append(done)

    arguments = {"kind": "progress", "many": MANY}
    async with serving(tmp_path, mode) as client:
        for _ in range(2):
            seen.clear()
            with anyio.fail_after(30):
                result = await client.call_tool("a_far", arguments, progress_callback=on_progress)
            assert not result.is_error
            assert seen == sorted(set(seen))
            assert seen[-1] == MANY
            assert len(seen) < MANY / 5


async def test_few_reports_reach_the_caller_all(tmp_path: Path) -> None:
    seen: list[float] = []

    async def on_progress(done: float, *_: object) -> None:
        seen.append(done)

    async with serving(tmp_path, "legacy") as client:
        await client.call_tool("a_far", {"kind": "progress", "many": 10}, progress_callback=on_progress)
    assert seen == list(range(1, 11))


@BOTH
@pytest.mark.parametrize("kind", ["progress", "log", "tools", "resources", "prompts"])
async def test_no_flood_that_nobody_asked_for_ends_an_upstream(tmp_path: Path, mode: str, kind: str) -> None:
    pids = set()
    async with serving(tmp_path, mode) as client:
        for _ in range(3):
            with anyio.fail_after(30):
                result = await client.call_tool("a_far", {"kind": kind, "many": MANY})
            pids.add(said(result)["pid"])
    assert len(pids) == 1
