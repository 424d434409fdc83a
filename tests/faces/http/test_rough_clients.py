"""What clients over HTTP do not take, and do to their connections."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_clients import Mode, Transport, connect
from tests.faces.http.test_front_door import META, initialize, legacy, request
from tests.faces.http.test_stopping import calling, posted
from tests.faces.mcp.conftest import MANIFEST, Place, write_atlas

PATIENCE_S = 20
MIB = 1_048_576
TRANSPORTS = pytest.mark.parametrize("transport", ["mcp", "sse"])
MODES = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@pytest.fixture
def large(servers: Servers, tmp_path: Path) -> HttpServer:
    names = [f"p{number}" for number in range(8)]
    packs = [{"pack_id": name, "name": name, "files": [f"context/{name}.md"]} for name in names]
    manifest = {**MANIFEST, "context_packs": [*MANIFEST["context_packs"], *packs]}
    atlas = write_atlas(tmp_path / "large", manifest)
    for name in names:
        (atlas / "context" / f"{name}.md").write_text("漢字" * 30_000)
    servers.place = Place(servers.place.folder, atlas)
    return servers.start("--control-tools", "all")


@pytest.mark.anyio
@MODES
@TRANSPORTS
async def test_no_answer_is_larger_than_clients_take(large: HttpServer, transport: Transport, mode: Mode) -> None:
    async with connect(large, transport, mode) as client:
        result = await client.call_tool("tool_large", {"size": 2 * MIB})
        assert (result.meta or {})["dev.cra/receipt"]["status"] in {"success", "error"}
        for name, arguments in (
            ("cra_bootstrap", {"goal": "漢字"}),
            ("cra_request_context", {"need": "漢字", "max_tokens": 30_000}),
        ):
            answer = (await client.call_tool(name, arguments)).structured_content
            assert answer is not None
            assert answer["context_blocks"]
            assert answer["left_out"]
        (contents,) = (await client.read_resource(f"cra://trace/{answer['session_id']}")).contents
        assert len(contents.text) < MIB
        assert (await client.call_tool("tool_echo", {})).is_error is False


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_client_that_drops_its_connection_gives_its_call_up_only_where_its_era_says_so(
    server: HttpServer, era: str
) -> None:
    place = server.place
    if era == "legacy":
        session = initialize(server)[1]["mcp-session-id"]
        message, more = calling("tool_wait", server), (f"Mcp-Session-Id: {session}",)
    else:
        message = calling("tool_wait", server, _meta=META)
        more = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: tool_wait")
    with posted(server, message, *more):
        deadline = time.monotonic() + PATIENCE_S
        while "began" not in place.marked():
            assert time.monotonic() < deadline

    def failed() -> list[str]:
        return [event["payload"]["error_code"] for event in place.events() if event["event_type"] == "action.failed"]

    if era == "modern":
        while not failed():
            assert time.monotonic() < deadline
        assert failed() == ["cancelled"]
        return
    for _ in range(20):
        assert request(server, "GET", "/healthz")[0] == 200
    assert failed() == [], "the answer may still be wanted"
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert legacy(server, cancelled, session)[0] == 202
    while not failed():
        assert time.monotonic() < deadline
    assert failed() == ["cancelled"]


@pytest.mark.anyio
@MODES
async def test_what_one_connection_ends_the_next_still_has(server: HttpServer, mode: Mode) -> None:
    uri: Any = None
    for transport in ("sse", "mcp", "sse"):
        async with connect(server, transport, mode) as client:
            if uri is not None:
                assert (await client.read_resource(uri)).contents[0].text
            receipt = ((await client.call_tool("tool_echo", {})).meta or {})["dev.cra/receipt"]
            uri = f"cra://trace/{receipt['session_id']}"
