"""Resources a 2025-era client watches."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession
from tests.faces.mcp.conftest import write_atlas

pytestmark = [
    pytest.mark.anyio,
    # The client warns that a later era has no such request.
    pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed"),
]

OTHER = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.other",
    "version": "1.0.0",
    "name": "Other",
    "description": "Comes later.",
}


@dataclass
class World:
    runtime: CRARuntime
    server: GovernedServer
    sessions: ConnectionSession
    told: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async def keep(message: object) -> None:
            if isinstance(message, t.ResourceUpdatedNotification):
                self.told.append(str(message.params.uri))

        async with Client(self.server, mode="legacy", cache=None, message_handler=keep) as client:
            yield client

    async def until_told(self, times: int) -> None:
        with anyio.fail_after(10):
            while len(self.told) < times:
                await anyio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(write_atlas(tmp_path / "atlas"))
        options = ServeOptions()
        sessions = ConnectionSession(runtime, local_principal(runtime, options), "")
        yield World(runtime, GovernedServer(runtime, options, ProcessSession(sessions)), sessions)


async def test_a_client_is_told_that_the_trace_it_watches_has_grown(world: World) -> None:
    session_id = world.sessions.current().session_id
    uri = f"cra://trace/{session_id}"
    async with world.client() as client:
        await client.session.subscribe_resource(uri)
        await client.call_tool("tool_echo", {})
        await world.until_told(1)
        assert set(world.told) == {uri}
        before = len(world.told)
        await client.call_tool("tool_delete", {})
        await world.until_told(before + 1)
        await client.session.unsubscribe_resource(uri)
        world.told.clear()
        await client.call_tool("tool_echo", {})
        await client.session.subscribe_resource(f"cra://chain/{session_id}")
        await client.call_tool("tool_echo", {})
        await world.until_told(1)
    assert set(world.told) == {f"cra://chain/{session_id}"}


async def test_a_trace_of_another_session_tells_nothing(world: World) -> None:
    other = world.runtime.create_session("other", "")
    async with world.client() as client:
        await client.session.subscribe_resource(f"cra://trace/{other.session_id}")
        await client.call_tool("tool_echo", {})
        world.runtime.record(other.session_id, "x.test", {})
        await world.until_told(1)
    assert world.told == [f"cra://trace/{other.session_id}"]


async def test_what_an_atlas_allows_is_told_of_when_the_catalogue_changes(world: World) -> None:
    uri = "cra://atlas/com.example.faces"
    async with world.client() as client:
        await client.session.subscribe_resource(uri)
        await client.call_tool("tool_echo", {})
        await anyio.to_thread.run_sync(world.runtime.load_atlas_from_json, json.dumps(OTHER))
        await world.until_told(1)
    assert world.told == [uri]


@pytest.mark.parametrize(
    "uri",
    ["cra://trace/no-such-session", "cra://atlas/no.such", "cra://context/a/b", "file:///etc/passwd", "cra://sessions"],
)
async def test_what_can_not_be_read_or_never_changes_can_not_be_watched(world: World, uri: str) -> None:
    async with world.client() as client:
        with pytest.raises(MCPError):
            await client.session.subscribe_resource(uri)


async def test_a_connection_watches_so_many_resources_at_most(world: World) -> None:
    sessions = [world.runtime.create_session("other", "").session_id for _ in range(257)]
    async with world.client() as client:
        for session_id in sessions[:256]:
            await client.session.subscribe_resource(f"cra://trace/{session_id}")
        await client.session.subscribe_resource(f"cra://trace/{sessions[0]}")
        with pytest.raises(MCPError):
            await client.session.subscribe_resource(f"cra://trace/{sessions[256]}")


async def test_nothing_is_kept_of_a_connection_that_has_ended(world: World) -> None:
    session_id = world.sessions.current().session_id
    async with world.client() as client:
        await client.session.subscribe_resource(f"cra://trace/{session_id}")
        assert len(world.server.subscriptions) == 1
    with anyio.fail_after(10):
        while len(world.server.subscriptions):
            await anyio.sleep(0.005)
