"""What clients see over HTTP, in both protocol eras and over both transports: the same as over a pipe."""

import json
import secrets
import sys
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.client.sse import sse_client

from cra_mcp.trace.event import verify
from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.mcp.conftest import MANIFEST, Place, action

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("mode", ["legacy", "2026-07-28"]),
    pytest.mark.parametrize("transport", ["mcp", "sse"]),
]
UPSTREAM = Path(__file__).resolve().parents[2] / "execution" / "upstreams" / "server.py"
Mode = Literal["legacy", "2026-07-28"]
Transport = Literal["mcp", "sse"]


@pytest.fixture
def server(shared: HttpServer) -> HttpServer:
    return shared


def connect(server: HttpServer, transport: Transport, mode: Mode, **more: Any) -> Client:
    target = server.url if transport == "mcp" else sse_client(server.sse)
    return Client(target, mode=mode, cache=None, **more)


def identifiers(server: HttpServer) -> set[str]:
    """Of the events that are there already."""
    return {event["event_id"] for event in server.place.events()}


def is_new_failure(event: dict[str, Any], seen: set[str]) -> bool:
    return event["event_type"] == "action.failed" and event["event_id"] not in seen


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_a_governed_call_is_in_a_trace_that_verifies(
    server: HttpServer, transport: Transport, mode: Mode
) -> None:
    before = server.place.traces()
    async with connect(server, transport, mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools == sorted(tools)
        assert server.place.traces() == before, "listing starts no session"
        allowed = await client.call_tool("tool_add", {"a": 2, "b": 3})
        assert allowed.structured_content == {"sum": 5}
        denied = await client.call_tool("tool_delete", {})
        assert denied.is_error
        assert "no-delete" in text(denied)
        receipt = (allowed.meta or {})["dev.cra/receipt"]
        trace = (await client.read_resource(f"cra://trace/{receipt['session_id']}")).contents[0].text
        assert verify(trace.encode().splitlines()).ok
        events = [json.loads(line) for line in trace.splitlines()]
        assert events[receipt["sequence"]]["event_hash"] == receipt["event_hash"]
        assert {"action.executed", "action.denied"} <= {event["event_type"] for event in events}


@pytest.mark.parametrize("approves", [True, False])
async def test_a_person_is_asked_over_the_same_connection(
    server: HttpServer, transport: Transport, mode: Mode, approves: bool
) -> None:
    asked: list[str] = []
    seen = identifiers(server)
    somebody = secrets.token_hex(4)  # nobody was asked about before

    async def person(_context: Any, params: Any) -> t.ElicitResult:
        asked.append(params.message)
        return t.ElicitResult(action="accept", content={"approve": approves})

    async with connect(server, transport, mode, elicitation_callback=person) as client:
        result = await client.call_tool("tool_pay", {"to": somebody})
        assert result.is_error is not approves
        again = await client.session.call_tool("tool_pay", {"to": f"not {somebody}"}, allow_input_required=True)
    assert any("Money leaves the house" in message for message in asked)
    assert again is not None
    kinds = [event["event_type"] for event in server.place.events() if event["event_id"] not in seen]
    assert ("approval.granted" in kinds, "approval.rejected" in kinds) == (approves, not approves)


async def test_without_a_person_the_call_waits_for_the_command_line(
    server: HttpServer, transport: Transport, mode: Mode
) -> None:
    async with connect(server, transport, mode) as client:
        somebody = secrets.token_hex(4)
        pending = await client.call_tool("tool_pay", {"to": somebody})
        assert pending.is_error
        approval = (pending.meta or {})["dev.cra/receipt"]["details"]["approval_id"]
        done = await anyio.to_thread.run_sync(server.place.cli, "approve", approval, "--yes")
        assert done.returncode == 0, done.stderr
        assert not (await client.call_tool("tool_pay", {"to": somebody})).is_error
        assert (await client.call_tool("tool_pay", {"to": somebody})).is_error, "an approval counts once"


async def test_a_cancelled_call_is_recorded_so_and_the_next_is_answered(
    server: HttpServer, transport: Transport, mode: Mode, tmp_path: Path
) -> None:
    place = server.place
    seen = identifiers(server)
    marks = Place(tmp_path, place.atlas)
    async with connect(server, transport, mode) as client:
        await client.call_tool("tool_echo", {})
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "tool_wait", {"marks": str(marks.marks)})
                while "began" not in marks.marked():
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
            assert not (await client.call_tool("tool_echo", {})).is_error
            while "ended" not in marks.marked():
                await anyio.sleep(0.02)
            while not (failed := [event for event in place.events() if is_new_failure(event, seen)]):
                await anyio.sleep(0.02)
    assert [event["payload"]["error_code"] for event in failed] == ["cancelled"]


async def test_progress_reaches_the_caller(servers: Servers, transport: Transport, mode: Mode) -> None:
    place = servers.place
    work = {**action("far.work", "echo"), "executor": {"type": "mcp", "upstream": "far", "tool": "progress"}}
    far = {"far": {"command": sys.executable, "args": [str(UPSTREAM), "good", str(place.folder)]}}
    (place.atlas / "atlas.json").write_text(
        json.dumps({**MANIFEST, "actions": [work], "policies": [], "upstreams": far})
    )
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    async with connect(servers.start(), transport, mode) as client:
        result = await client.call_tool("far_work", {}, progress_callback=progress)
        assert not result.is_error, text(result)
        with anyio.fail_after(20):
            while len(seen) < 3:
                await anyio.sleep(0.02)
    assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
