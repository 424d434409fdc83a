"""A person is asked in the host while somebody else answers at a terminal: the real server, the real command."""

import json
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client

from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import Place, Wire

pytestmark = pytest.mark.anyio
PATIENCE_S = 60
MODERN = "2026-07-28"


def said(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def kinds(place: Place) -> list[str]:
    (path,) = place.traces()
    assert verify(path.read_bytes().splitlines()).ok
    return [event["event_type"] for event in place.events()]


async def waiting(place: Place) -> str:
    """The id of the approval that waits, as the command tells it."""
    while True:
        listed = json.loads((await anyio.to_thread.run_sync(place.cli, "pending", "--json")).stdout)["pending"]
        if listed:
            return listed[0]["approval_id"]


async def answer(place: Place, command: str, approval_id: str) -> None:
    more = ("--yes",) if command == "approve" else ()
    done = await anyio.to_thread.run_sync(place.cli, command, approval_id, *more)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["approve", "deny"])
async def test_a_2025_era_client_that_is_asked_sees_the_question_withdrawn_and_the_call_end(
    place: Place, command: str
) -> None:
    withdrawn = anyio.Event()

    async def person(_context: Any, _params: Any) -> t.ElicitResult:
        try:
            await anyio.sleep_forever()
        finally:
            withdrawn.set()

    results: list[Any] = []
    async with Client(place.parameters(), mode="legacy", cache=None, elicitation_callback=person) as client:

        async def call() -> None:
            results.append(await client.call_tool("tool_pay", {"to": "ann"}))

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await answer(place, command, await waiting(place))
            await withdrawn.wait()
    assert results[0].is_error is (command == "deny")
    event = "approval.granted" if command == "approve" else "approval.rejected"
    assert kinds(place).count(event) == 1
    assert kinds(place).count("action.executed") == (command == "approve")
    (settled,) = [each["payload"] for each in place.events() if each["event_type"] == event]
    assert (settled["channel"], settled["grade"]) == ("cli", "local_cli")


@pytest.mark.parametrize(
    ("command", "says", "goes_ahead"),
    [
        ("approve", {"action": "accept", "content": {"approve": True}}, True),
        ("approve", {"action": "decline"}, False),
        ("approve", {"action": "cancel"}, True),
        ("deny", {"action": "accept", "content": {"approve": True}}, False),
        ("deny", {"action": "cancel"}, False),
    ],
)
async def test_a_2026_era_round_ends_with_what_was_said_elsewhere_unless_the_person_says_no(
    place: Place, command: str, says: dict[str, Any], goes_ahead: bool
) -> None:
    async def person(_context: Any, _params: Any) -> t.ElicitResult:
        await answer(place, command, await waiting(place))
        return t.ElicitResult.model_validate(says)

    async with Client(place.parameters(), mode=MODERN, cache=None, elicitation_callback=person) as client:
        with anyio.fail_after(PATIENCE_S):
            result = await client.call_tool("tool_pay", {"to": "ann"})
    assert result.is_error is not goes_ahead, said(result)
    assert kinds(place).count("action.executed") == goes_ahead
    assert kinds(place).count("approval.granted") == goes_ahead
    assert kinds(place).count("approval.rejected") == (not goes_ahead)


def test_a_2026_era_client_that_repeats_its_answer_gets_nothing_twice(place: Place, wire: Wire) -> None:
    capabilities = {"elicitation": {"form": {}}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }

    def call(**more: Any) -> dict[str, Any]:
        params = {"name": "tool_pay", "arguments": {"to": "ann"}, "_meta": meta, **more}
        return wire.request("tools/call", params)["result"]

    asked = call()
    assert asked["resultType"] == "input_required"
    reply = {
        "requestState": asked["requestState"],
        "inputResponses": {"approval": {"action": "accept", "content": {"approve": True}}},
    }
    assert call(**reply)["isError"] is False
    again = [call(**reply) for _ in range(3)]
    assert [each["resultType"] for each in again] == ["input_required"] * 3
    assert len({each["requestState"] for each in again}) == 3
    assert kinds(place).count("action.executed") == 1
