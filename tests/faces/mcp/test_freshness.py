"""How long what a server says of itself holds."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.faces.mcp.sessions import ConnectionSession, ProcessSession
from tests.faces.mcp.conftest import MANIFEST, write_atlas
from tests.faces.mcp.test_listening import OTHER

pytestmark = pytest.mark.anyio
NOON = int(datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp() * 1_000_000_000)
UNTIL_NOON = {"start": "08:00", "end": "12:00", "timezone": "UTC"}
CLOSED = {"policy_id": "closed", "type": "deny", "actions": ["tool.echo"], "reason": "", "conditions": {}}


class Served:
    """A server whose clock a test sets."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = NOON
        manifest = {
            **MANIFEST,
            "policies": [
                *MANIFEST["policies"],
                {**CLOSED, "reason": "mornings only", "conditions": {"time_window": UNTIL_NOON}},
            ],
        }
        self.runtime = CRARuntime(RuntimeConfig(store="memory", clock_ns=lambda: self.now_ns))
        self.runtime.load_atlas(write_atlas(folder / "atlas", manifest))
        options = ServeOptions()
        sessions = ConnectionSession(self.runtime, local_principal(self.runtime, options), "")
        self.server = GovernedServer(self.runtime, options, ProcessSession(sessions))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path)
    async with made.runtime:
        yield made


async def lists(client: Client) -> list[Any]:
    return [
        await client.list_tools(),
        await client.list_prompts(),
        await client.list_resources(),
        await client.list_resource_templates(),
    ]


@pytest.mark.parametrize(("before_noon_ms", "ttl_ms"), [(60_000, 5_000), (5_001, 5_000), (1_234, 1_234), (-1, 5_000)])
async def test_a_list_is_its_callers_own_and_holds_until_the_hour_changes_it(
    served: Served, before_noon_ms: int, ttl_ms: int
) -> None:
    served.now_ns = NOON - before_noon_ms * 1_000_000
    async with Client(served.server, mode="2026-07-28", cache=None) as client:
        for each in await lists(client):
            assert (each.ttl_ms, each.cache_scope) == (ttl_ms, "private")
        content = await client.read_resource("cra://sessions")
        assert (content.ttl_ms, content.cache_scope) == (0, "private")
        listed = "tool_echo" in [tool.name for tool in (await client.list_tools()).tools]
        assert listed is (before_noon_ms < 0)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_what_is_said_of_the_server_names_what_is_loaded_now(served: Served, mode: Any) -> None:
    served.runtime.load_atlas_from_json(json.dumps(OTHER))
    async with Client(served.server, mode=mode, cache=None) as client:
        assert "Faces, Other." in (client.instructions or "")
    served.runtime.unload_atlas(MANIFEST["atlas_id"])
    async with Client(served.server, mode=mode, cache=None) as client:
        said = client.instructions or ""
    assert ("Faces" in said, "Other" in said) == (False, True)
    assert len(said.splitlines()) <= 4
