"""What clients see over HTTP, in both protocol eras and over both transports: the same as over a pipe."""

import json
from typing import Any, Literal

import pytest
from mcp import Client
from mcp.client.sse import sse_client

from cra_mcp.trace.event import verify
from tests.faces.http.conftest import HttpServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("mode", ["legacy", "2026-07-28"]),
    pytest.mark.parametrize("transport", ["mcp", "sse"]),
]
Mode = Literal["legacy", "2026-07-28"]
Transport = Literal["mcp", "sse"]


def connect(server: HttpServer, transport: Transport, mode: Mode, **more: Any) -> Client:
    target = server.url if transport == "mcp" else sse_client(server.sse)
    return Client(target, mode=mode, cache=None, **more)


def text(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_a_governed_call_is_in_a_trace_that_verifies(
    server: HttpServer, transport: Transport, mode: Mode
) -> None:
    async with connect(server, transport, mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools == sorted(tools)
        assert server.place.traces() == [], "listing starts no session"
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
