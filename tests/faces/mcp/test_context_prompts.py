"""Context packs as prompts, for a real client in both protocol eras."""

from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from tests.faces.mcp.conftest import MANIFEST, Place, write_atlas

pytestmark = pytest.mark.anyio
Mode = Literal["legacy", "2026-07-28"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", "2026-07-28"])
def mode(request: Any) -> Mode:
    return request.param


async def test_a_pack_is_a_prompt_and_getting_it_is_recorded(tmp_path: Path, mode: Mode) -> None:
    secret = {
        "pack_id": "secret",
        "name": "Secret",
        "files": ["context/rules.md"],
        "conditions": {"agents": ["somebody-else"]},
    }
    manifest = {**MANIFEST, "context_packs": [*MANIFEST["context_packs"], secret]}
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", manifest))
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        prompts = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
        assert sorted(prompts) == ["faces_guide", "faces_rules"]
        assert [argument.name for argument in prompts["faces_guide"].arguments or []] == ["goal"]
        found = await client.get_prompt("faces_guide", {"goal": "learn the guide"})
        (message,) = found.messages
        assert message.content.type == "text", "hosts drop embedded resources, or fail at them"
        assert message.content.text.startswith("# Guide")
        uri = (message.content.meta or {})["dev.cra/context"]
        assert (await client.read_resource(uri)).contents[0].text == message.content.text
        for name in ("faces_secret", "faces_nothing"):
            with pytest.raises(MCPError, match="Unknown prompt"):
                await client.get_prompt(name)
        with pytest.raises(MCPError, match="goal must have"):
            await client.get_prompt("faces_guide", {"goal": "x" * 10_001})
    events = place.events()
    given = [event["payload"]["block_id"] for event in events if event["event_type"] == "context.injected"]
    assert given == [uri.rsplit("/", 1)[-1]] * 2, "once by the prompt, once by the resource"
    goals = [event["payload"]["goal"] for event in events if event["event_type"] == "carp.request.received"]
    assert "learn the guide" in goals
