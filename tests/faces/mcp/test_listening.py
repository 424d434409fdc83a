"""Streams of changes that a 2026-era client asks for."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client
from mcp.client.subscriptions import Subscription
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.auth.principal import Principal
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession
from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import MANIFEST, Place, Wire, write_atlas
from tests.faces.mcp.test_live import edit, rename_echo

pytestmark = pytest.mark.anyio
PATIENCE_S = 60
UNKNOWN = "01980000-0000-7000-8000-000000000000"
OTHER = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.other",
    "version": "1.0.0",
    "name": "Other",
    "description": "Comes later.",
}
PUBLISHED = {
    "action_id": "tool.page",
    "name": "Page",
    "description": "A page.",
    "parameters_schema": {"type": "object"},
    "executor": {"type": "python", "callable": "tools:echo"},
    "publish": {"as": "resource", "uri": "test://page"},
}


@dataclass
class World:
    runtime: CRARuntime
    server: GovernedServer
    sessions: ConnectionSession

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(self.server, mode="2026-07-28", cache=None) as client:
            yield client


async def following(subscription: Subscription, count: int = 1) -> list[object]:
    """The next events of a stream."""
    with anyio.fail_after(PATIENCE_S):
        return [await anext(subscription) for _ in range(count)]


async def until_open(world: World, count: int) -> None:
    with anyio.fail_after(PATIENCE_S):
        while len(world.server.listening) != count:
            await anyio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(write_atlas(tmp_path / "atlas"))
        options = ServeOptions()
        sessions = ConnectionSession(runtime, local_principal(runtime, options), "")
        server = GovernedServer(runtime, options, ProcessSession(sessions), max_subscriptions=2)
        yield World(runtime, server, sessions)


async def test_a_client_is_told_of_the_changes_it_asked_for_and_of_no_other(world: World) -> None:
    session_id = world.sessions.current().session_id
    other = world.runtime.create_session("other", "").session_id
    uri = f"cra://trace/{session_id}"
    async with (
        world.client() as client,
        client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as first,
        client.listen(prompts_list_changed=True, resources_list_changed=True) as second,
    ):
        assert first.honored.resource_subscriptions == [uri]
        await client.call_tool("tool_echo", {})
        assert await following(first) == [ResourceUpdated(uri)]
        world.runtime.record(other, "x.test", {})
        await anyio.to_thread.run_sync(world.runtime.load_atlas_from_json, json.dumps(OTHER))
        # Loading is recorded in the sessions under way, so the trace has grown as well.
        assert set(map(type, await following(first, 2))) == {ToolsListChanged, ResourceUpdated}
        assert await following(second, 2) == [PromptsListChanged(), ResourcesListChanged()]
        world.runtime.unload_atlas("com.example.other")
        assert await following(second, 2) == [PromptsListChanged(), ResourcesListChanged()]


async def test_an_atlas_and_an_action_that_is_a_resource_are_told_of_when_the_catalogue_changes(
    world: World, tmp_path: Path
) -> None:
    world.runtime.unload_atlas(MANIFEST["atlas_id"])
    manifest = {**MANIFEST, "actions": [*MANIFEST["actions"], PUBLISHED]}
    world.runtime.load_atlas(write_atlas(tmp_path / "more", manifest))
    uris = [f"cra://atlas/{MANIFEST['atlas_id']}", "test://page"]
    async with world.client() as client, client.listen(resource_subscriptions=uris) as stream:
        assert stream.honored.resource_subscriptions == uris
        await anyio.to_thread.run_sync(world.runtime.load_atlas_from_json, json.dumps(OTHER))
        assert await following(stream, 2) == [ResourceUpdated(uri) for uri in uris]


async def test_what_the_caller_may_not_read_is_not_honoured_like_what_is_not_there(world: World) -> None:
    own = world.sessions.current().session_id
    elses = world.runtime.create_session(principal=Principal("somebody else")).session_id
    wanted = [f"cra://chain/{own}", f"cra://trace/{own}", f"cra://chain/{own}"]
    refused = [f"cra://trace/{elses}", f"cra://chain/{elses}", f"cra://trace/{UNKNOWN}", "cra://sessions", "a://b", ""]
    async with world.client() as client, client.listen(resource_subscriptions=[*refused, *wanted]) as stream:
        assert stream.honored.resource_subscriptions == wanted[:2]
        world.runtime.record(elses, "x.test", {})
        world.runtime.record(own, "x.test", {})
        assert {event.uri for event in await following(stream, 2)} == set(wanted)  # type: ignore[attr-defined]


async def test_a_principal_has_so_many_streams_of_so_many_resources_and_gets_them_back(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(MCPError, match="256 resources"):
            async with client.listen(resource_subscriptions=[f"cra://trace/{n}" for n in range(257)]):
                pass
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(client.listen(tools_list_changed=True))
            with pytest.raises(MCPError, match="2 subscriptions open"):
                await stack.enter_async_context(client.listen(tools_list_changed=True))
            assert len(world.server.listening) == 2
        await until_open(world, 0)
        async with client.listen(tools_list_changed=True):
            await until_open(world, 1)
    await until_open(world, 0)


async def test_changes_that_come_faster_than_they_are_read_are_told_once(world: World) -> None:
    session_id = world.sessions.current().session_id
    uri = f"cra://trace/{session_id}"
    async with world.client() as client, client.listen(resource_subscriptions=[uri]) as stream:
        for _ in range(2_000):
            world.runtime.record(session_id, "x.test", {})
        world.runtime.load_atlas_from_json(json.dumps(OTHER))
        assert await following(stream) == [ResourceUpdated(uri)]
        world.server.listening.close()
        assert len([event async for event in stream]) <= 1


async def test_a_stream_that_the_server_ends_tells_what_is_pending_and_ends_as_one_that_was_meant_to(
    world: World,
) -> None:
    async with world.client() as client, client.listen(tools_list_changed=True) as stream:
        world.runtime.load_atlas_from_json(json.dumps(OTHER))
        with anyio.fail_after(PATIENCE_S):
            await anyio.lowlevel.checkpoint()
            await world.server.listening.aclose()
            assert [event async for event in stream] == [ToolsListChanged()]
    assert len(world.server.listening) == 0


async def test_listening_starts_no_session(world: World) -> None:
    async with world.client() as client, client.listen(tools_list_changed=True):
        assert world.runtime.active_sessions() == 0


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_each_era_is_told_the_truth_about_what_it_will_be_told(world: World, mode: Any) -> None:
    async with Client(world.server, mode=mode, cache=None) as client:
        capabilities = client.server_capabilities
        assert capabilities is not None
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        assert capabilities.tools is not None
        assert capabilities.prompts is not None
        assert capabilities.resources is not None
        changes = (capabilities.tools, capabilities.prompts, capabilities.resources)
        assert [each.list_changed for each in changes] == [True] * 3
        assert capabilities.resources.subscribe is True


LISTEN = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["cra://atlas/com.example.faces"]}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def listening(wire: Wire) -> dict[str, Any]:
    """Ask for changes with the request id ``mine``; the acknowledgement."""
    message = {"jsonrpc": "2.0", "id": "mine", "method": "subscriptions/listen", "params": {**LISTEN, "_meta": META}}
    wire.send(json.dumps(message).encode())
    return wire.read()


def test_every_frame_names_the_subscription_and_a_2025_era_client_has_none(wire: Wire) -> None:
    wire.initialize()
    assert wire.request("subscriptions/listen", LISTEN)["error"]["code"] == -32601
    acknowledged = listening(wire)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == LISTEN["notifications"]
    assert acknowledged["params"]["_meta"][SUBSCRIPTION_ID_META_KEY] == "mine"
    wire.process.send_signal(signal.SIGTERM)
    ended = wire.read()
    assert (ended["id"], ended["result"]["_meta"][SUBSCRIPTION_ID_META_KEY]) == ("mine", "mine")
    assert wire.process.wait(10) == 0


def test_a_stream_that_its_client_cancels_is_not_answered_and_the_pipe_lives_on(wire: Wire) -> None:
    listening(wire)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "mine"}}
    wire.send(json.dumps(cancelled).encode())
    assert wire.call("tool_echo", {}, modern=True)["result"]["isError"] is False
    assert wire.other == []
    assert wire.close() == 0


async def test_an_edit_of_a_served_atlas_is_told_of_over_a_pipe(tmp_path: Path) -> None:
    place = Place(tmp_path, write_atlas(tmp_path / "atlas"))
    async with (
        Client(place.parameters(), mode="2026-07-28", cache=None) as client,
        client.listen(tools_list_changed=True, prompts_list_changed=True) as stream,
    ):
        edit(place, rename_echo)
        assert await following(stream, 2) == [ToolsListChanged(), PromptsListChanged()]
        assert "tool_parrot" in [tool.name for tool in (await client.list_tools()).tools]


def test_the_end_of_input_ends_open_streams_and_the_session_with_its_trace(wire: Wire, place: Place) -> None:
    wire.call("tool_echo", {}, modern=True)
    listening(wire)
    assert wire.close() == 0
    (path,) = place.traces()
    assert verify(path.read_bytes().splitlines()).ok
    assert place.events()[-1]["event_type"] == "session.ended"
