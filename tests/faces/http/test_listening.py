"""Streams of changes over HTTP: whose they are, and how they end."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from tests.faces.http.conftest import HttpServer, Servers
from tests.faces.http.test_identity import key
from tests.faces.http.test_sessions import bearer, call, session_of
from tests.faces.mcp.conftest import environment
from tests.faces.mcp.test_live import Told, edit, rename_echo
from tests.forks.command import forked

pytestmark = pytest.mark.anyio
PATIENCE_S = 60
MODERN = "2026-07-28"
BOTH_PATHS = pytest.mark.parametrize("transport", ["mcp", "sse"])


@asynccontextmanager
async def connect(
    server: HttpServer, transport: str = "mcp", caller: str | None = None, **more: Any
) -> AsyncGenerator[Client]:
    headers = bearer(caller) if caller is not None else {}
    async with httpx2.AsyncClient(headers=headers, timeout=None) as http:
        target = sse_client(server.sse) if transport == "sse" else streamable_http_client(server.url, http_client=http)
        async with Client(target, cache=None, **{"mode": MODERN, **more}) as client:
            yield client


@BOTH_PATHS
async def test_a_stream_tells_of_the_trace_and_of_an_edit_and_ends_when_the_server_stops(
    server: HttpServer, transport: str
) -> None:
    async with connect(server, transport) as client:
        session_id = session_of(call(server, "-"))
        uri = f"cra://trace/{session_id}"
        async with client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as stream:
            assert stream.honored.resource_subscriptions == [uri]
            await anyio.to_thread.run_sync(call, server, "-")
            with anyio.fail_after(PATIENCE_S):
                assert await anext(stream) == ResourceUpdated(uri)
                edit(server.place, rename_echo)
                while await anext(stream) != ToolsListChanged():
                    pass
                stopped = await anyio.to_thread.run_sync(server.stop)
                assert stopped[0] == 0
                assert stopped[1] < 1
                assert [event async for event in stream if not isinstance(event, ResourceUpdated)] == []


async def test_connections_of_the_2025_era_are_told_of_an_edit_over_http(server: HttpServer) -> None:
    told = Told()
    async with connect(server, mode="legacy", message_handler=told) as client:
        await client.list_tools()
        edit(server.place, rename_echo)
        await told.until("notifications/tools/list_changed", "notifications/prompts/list_changed")
        assert "tool_parrot" in [tool.name for tool in (await client.list_tools()).tools]


async def test_nobody_listens_to_somebody_elses_trace(servers: Servers) -> None:
    server = servers.start_with_tokens()
    mine, other_tenants = session_of(call(server, "ann")), session_of(call(server, "ann/other"))
    uris = [f"cra://trace/{session}" for session in (mine, other_tenants)]
    async with (
        connect(server, caller="ann") as ann,
        connect(server, caller="bob") as bob,
        ann.listen(resource_subscriptions=uris) as anns,
        bob.listen(tools_list_changed=True, resource_subscriptions=uris) as bobs,
    ):
        assert anns.honored.resource_subscriptions == uris[:1]
        assert bobs.honored.resource_subscriptions is None
        await anyio.to_thread.run_sync(call, server, "ann/other")
        await anyio.to_thread.run_sync(call, server, "ann")
        with anyio.fail_after(PATIENCE_S):
            assert await anext(anns) == ResourceUpdated(uris[0])
    async with connect(server, caller="bob", mode="legacy") as bob:
        for uri in uris:
            with pytest.warns(MCPDeprecationWarning), pytest.raises(MCPError) as refused:
                await bob.session.subscribe_resource(uri)
            assert refused.value.error.code == -32002


async def test_a_stream_whose_client_has_gone_makes_room_for_the_next(servers: Servers) -> None:
    server = servers.start_with_tokens(max_streams_per_principal=1)
    async with connect(server, caller="ann") as client:
        async with client.listen(tools_list_changed=True):
            with pytest.raises(MCPError):
                async with client.listen(tools_list_changed=True):
                    pass
        with anyio.fail_after(PATIENCE_S):
            while True:
                try:
                    async with client.listen(tools_list_changed=True) as stream:
                        assert stream.honored.tools_list_changed
                        break
                except MCPError:
                    await anyio.sleep(0.01)


async def test_a_stream_ends_when_its_key_is_taken_back(servers: Servers) -> None:
    # Variables with this prefix are not handed on to servers by themselves.
    program = ["-c", "import os,sys; os.environ['CRA_HTTP_RECHECK_S']='0.2'; from cra_mcp.__main__ import main; main()"]
    command = servers.place.fresh_command("--transport", "streamable-http", "--port", "0", "--json", "--require-key")
    server = servers.start(program=[*program, *command[2:]])
    text, key_id = await anyio.to_thread.run_sync(key, server.place, "ann")
    kept, _ = await anyio.to_thread.run_sync(key, server.place, "bob")

    def revoke() -> None:
        subprocess.run(
            [sys.executable, *forked("keys", "revoke", key_id, "--data-dir", server.place.data)],
            env=environment(),
            check=True,
            capture_output=True,
        )

    async with connect(server, caller=kept) as other, other.listen(tools_list_changed=True) as others:
        with anyio.fail_after(PATIENCE_S):
            async with connect(server, caller=text) as client, client.listen(tools_list_changed=True) as stream:
                await anyio.to_thread.run_sync(revoke)
                with pytest.raises(SubscriptionLost):
                    await anext(stream)
            edit(server.place, rename_echo)
            assert await anext(others) == ToolsListChanged()
    assert "Traceback" not in servers.errors()
