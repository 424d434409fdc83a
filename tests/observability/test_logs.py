"""What the real server logs."""

from pathlib import Path

import pytest
from mcp import Client

from tests.observability.conftest import served

pytestmark = pytest.mark.anyio


async def called(url: str) -> list[dict[str, object]]:
    """Two calls; their receipts."""
    async with Client(f"{url}/mcp", cache=None) as client:
        good = await client.call_tool("do_echo", {"text": "password=hunter2"})
        bad = await client.call_tool("do_denied", {})
    return [(each.meta or {})["dev.cra/receipt"] for each in (good, bad)]


async def test_every_call_is_one_line_with_session_and_sequence(atlas: Path) -> None:
    async with served(atlas, "--verbose") as server:
        receipts = await called(server.url)
    lines = [line for line in server.lines if line["event"] == "call"]
    assert [(line["session"], line["sequence"]) for line in lines] == [
        (receipt["session_id"], receipt["sequence"]) for receipt in receipts
    ]
    assert [(line["status"], line.get("code")) for line in lines] == [("success", None), ("denied", "denied")]
    assert {line["level"] for line in lines} == {"debug"}
    assert "hunter2" not in str(server.lines)


async def test_calls_are_not_logged_unless_it_is_wanted(atlas: Path) -> None:
    async with served(atlas) as server:
        await called(server.url)
    assert [line for line in server.lines if line["event"] == "call"] == []


async def test_what_goes_wrong_inside_a_call_is_logged_with_its_session_and_newest_sequence(atlas: Path) -> None:
    (atlas / "python" / "functions.py").write_text(
        "import logging\ndef echo(text):\n    logging.getLogger('helper').warning('half way')\n    return text\n"
    )
    async with served(atlas) as server, Client(f"{server.url}/mcp", cache=None) as client:
        result = await client.call_tool("do_echo", {"text": "x"})
    receipt = (result.meta or {})["dev.cra/receipt"]
    (line,) = [line for line in server.lines if line["event"] == "half way"]
    assert line["session"] == receipt["session_id"]
    assert line["sequence"] == receipt["sequence"] - 1
