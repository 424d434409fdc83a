"""An atlas edited on disk while a real server serves it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.faces.mcp.conftest import MANIFEST, Place, write_atlas

pytestmark = pytest.mark.anyio
PATIENCE_S = 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Told:
    """What a client is told of."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._news = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, t.Notification) or hasattr(message, "method"):
            self.kinds.append(message.method)
            self._news.set()

    async def until(self, *kinds: str) -> None:
        with anyio.fail_after(PATIENCE_S):
            while not set(kinds) <= set(self.kinds):
                await self._news.wait()
                self._news = anyio.Event()
        self.kinds.clear()


LISTS = tuple(f"notifications/{what}/list_changed" for what in ("tools", "prompts", "resources"))


def edit(place: Place, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((place.atlas / "atlas.json").read_text())
    change(manifest)
    fresh = place.atlas.parent / "atlas.json.new"
    fresh.write_text(json.dumps(manifest))
    fresh.replace(place.atlas / "atlas.json")


def rename_echo(manifest: dict[str, Any]) -> None:
    (echo,) = [action for action in manifest["actions"] if action["action_id"] == "tool.echo"]
    echo["action_id"] = "tool.parrot"


async def test_an_edit_counts_as_a_whole_and_the_client_is_told(tmp_path: Path) -> None:
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", MANIFEST))
    told = Told()
    ours = tmp_path / "ours.yaml"
    ours.write_text("policies: []")
    served = place.parameters("--policy", str(ours))
    async with Client(served, mode="legacy", cache=None, message_handler=told) as client:
        assert "tool_echo" in [tool.name for tool in (await client.list_tools()).tools]
        await client.call_tool("tool_echo", {"n": 1})
        edit(place, rename_echo)
        await told.until(*LISTS)
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert ("tool_parrot" in names, "tool_echo" in names) == (True, False)
        assert (await client.call_tool("tool_parrot", {"n": 2})).is_error is False
        with pytest.raises(Exception, match="Unknown tool"):
            await client.call_tool("tool_echo", {"n": 3})
        python = place.atlas / "python" / "tools.py"
        python.write_text(python.read_text().replace('"echo": given', '"said": given'))
        await told.until(*LISTS)
        assert "said" in str((await client.call_tool("tool_parrot", {"n": 4})).content)
        ours.write_text("policies: [{policy_id: quiet, type: deny, actions: [tool.parrot], reason: No more.}]")
        await told.until(*LISTS)
        assert "tool_parrot" not in [tool.name for tool in (await client.list_tools()).tools]
        refusal = await client.call_tool("tool_parrot", {"n": 5})
        assert (refusal.is_error, "operator/quiet" in str(refusal)) == (True, True)
    changes = [event for event in place.events() if event["event_type"].startswith("atlas.")]
    assert [event["event_type"] for event in changes] == ["atlas.unloaded", "atlas.loaded"] * 2
    digests = [event["payload"]["digest"] for event in changes]
    assert digests[1] == digests[2]
    assert len(set(digests)) == 3


async def test_a_broken_edit_leaves_the_last_good_version_in_force(tmp_path: Path) -> None:
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", MANIFEST))
    told = Told()
    async with Client(place.parameters(), mode="legacy", cache=None, message_handler=told) as client:
        await client.list_tools()
        await client.call_tool("tool_echo", {"n": 1})
        session = json.loads((await client.read_resource("cra://session/current")).contents[0].text)["session"][
            "session_id"
        ]
        with pytest.warns(MCPDeprecationWarning):
            await client.session.subscribe_resource(f"cra://trace/{session}")
        good = (place.atlas / "atlas.json").read_text()
        (place.atlas / "atlas.json").write_text(good[:-40])
        await told.until("notifications/resources/updated")
        assert (await client.call_tool("tool_echo", {"n": 2})).is_error is False
        edit_of_good = json.loads(good)
        rename_echo(edit_of_good)
        (place.atlas / "atlas.json").write_text(json.dumps(edit_of_good))
        await told.until(*LISTS)
        assert (await client.call_tool("tool_parrot", {"n": 3})).is_error is False
    faults = [event["payload"]["error_code"] for event in place.events() if event["event_type"] == "error.occurred"]
    assert faults == ["atlas_invalid"]


async def test_what_is_not_watched_stays_as_it_was_loaded(tmp_path: Path) -> None:
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", MANIFEST))
    async with Client(place.parameters("--no-watch"), mode="legacy", cache=None) as client:
        edit(place, rename_echo)
        assert (await client.call_tool("tool_echo", {"n": 1})).is_error is False
