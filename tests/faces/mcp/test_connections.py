"""What a connection does over its life: how it opens, how long it waits, how it pages, and what ids it answers to."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import mcp_types as t
import pytest
from mcp import Client, StdioServerParameters

from tests.faces.mcp.conftest import MANIFEST, Place, Wire, environment, write_atlas


@pytest.fixture
def connect(place: Place) -> Iterator[Callable[..., Wire]]:
    """Starts servers that end with the test."""
    wires: list[Wire] = []

    def start(*arguments: str, **variables: str) -> Wire:
        process = subprocess.Popen(
            [sys.executable, *place.fresh_command(*arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment(), **variables},
            bufsize=0,
        )
        wires.append(Wire(process))
        return wires[-1]

    yield start
    for wire in wires:
        wire.close()


@pytest.mark.anyio
async def test_a_client_that_finds_the_era_itself_is_served(place: Place) -> None:
    async with Client(place.parameters(), mode="auto", cache=None) as client:
        result = await client.call_tool("tool_add", {"a": 2, "b": 3})
        assert result.structured_content == {"sum": 5}
    assert len(place.traces()) == 1, "probing starts no session"


@pytest.mark.anyio
async def test_an_unanswered_question_fails_closed(place: Place) -> None:
    given = place.parameters()
    parameters = StdioServerParameters(
        command=given.command, args=given.args, env={**(given.env or {}), "CRA_ELICITATION_TIMEOUT_S": "0.3"}
    )
    answered = anyio.Event()

    async def never(_context: Any, _params: Any) -> t.ElicitResult:
        await answered.wait()
        return t.ElicitResult(action="accept", content={"approve": True})

    async with Client(parameters, mode="legacy", cache=None, elicitation_callback=never) as client:
        result = await client.call_tool("tool_pay", {"to": "ann"})
        assert result.is_error
        assert result.meta is not None
        assert result.meta["dev.cra/receipt"]["error"] == "approval_expired"
        answered.set()  # an answer after the end counts for nothing
        assert (await client.call_tool("tool_echo", {})).is_error is False
    kinds = [(event["event_type"], event["payload"].get("action_id")) for event in place.events()]
    assert ("approval.expired", "tool.pay") in kinds
    assert ("action.executed", "tool.pay") not in kinds


def test_an_approval_nobody_used_in_time_is_asked_for_anew(place: Place, connect: Callable[..., Wire]) -> None:
    wire = connect(CRA_APPROVAL_TTL_S="1")
    wire.initialize()
    first = wire.call("tool_pay", {"to": "ann"})["result"]["_meta"]["dev.cra/receipt"]["details"]["approval_id"]
    assert place.cli("approve", first, "--yes").returncode in {0, 1}, "the command may come too late"
    deadline = time.monotonic() + 30
    while f'"{first}"' in place.cli("pending", "--json").stdout:
        assert time.monotonic() < deadline
    requested = next(event for event in place.events() if event["event_type"] == "approval.requested")
    expires_at = requested["payload"]["expires_at"]
    while True:
        # Its own clock says when the approval is over: a call's events carry it.
        wire.call("tool_echo", {})
        if place.events()[-1]["timestamp"] > expires_at:
            break
    again = wire.call("tool_pay", {"to": "ann"})["result"]
    assert again["isError"] is True
    assert again["_meta"]["dev.cra/receipt"]["details"]["approval_id"] != first


def test_long_lists_of_resources_come_in_pages(place: Place, connect: Callable[..., Wire]) -> None:
    packs = [{"pack_id": f"doc-{n:03}", "name": f"Document {n}", "content": f"text {n}"} for n in range(230)]
    (place.atlas / "atlas.json").write_text(json.dumps({**MANIFEST, "context_packs": packs}))
    wire = connect()
    wire.initialize()
    uris: list[str] = []
    sizes: list[int] = []
    params: dict[str, str] = {}
    while True:
        page = wire.request("resources/list", params)["result"]
        sizes.append(len(page["resources"]))
        uris.extend(resource["uri"] for resource in page["resources"])
        if "nextCursor" not in page:
            break
        params = {"cursor": page["nextCursor"]}
    assert len(uris) == len(set(uris))
    assert len([uri for uri in uris if uri.startswith("cra://context/")]) == 230
    assert len(sizes) == 3
    assert max(sizes) <= 100
    for cursor in ("", "LTE=", "OTk5OTk5", "é"):
        assert wire.request("resources/list", {"cursor": cursor})["error"]["code"] == -32602


def test_a_long_trace_comes_in_pages_that_join_to_the_file(place: Place, connect: Callable[..., Wire]) -> None:
    wire = connect(CRA_ROLES="agent,auditor")
    wire.initialize()
    text = "x" * 60_000
    for number in range(12):
        found = wire.call("tool_echo", {"n": number, "text": text})["result"]["_meta"]["dev.cra/receipt"]
    uri: str | None = f"cra://trace/{found['session_id']}"
    pages: list[str] = []
    while uri is not None:
        content = wire.request("resources/read", {"uri": uri})["result"]["contents"][0]
        pages.append(content["text"])
        uri = content.get("_meta", {}).get("dev.cra/next")
    assert len(pages) > 1
    assert max(len(page.encode()) for page in pages) <= 524_288
    assert "".join(pages) == place.traces()[0].read_text()


def test_an_id_used_twice_has_two_answers(connect: Callable[..., Wire]) -> None:
    wire = connect()
    wire.initialize()
    for identifier in (7, 7, "seven", "seven"):
        params = {"name": "tool_echo", "arguments": {"id": identifier}}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}).encode())
        answer = wire.read()
        assert answer["id"] == identifier
        assert answer["result"]["isError"] is False


def test_ids_under_way_at_once_are_each_answered(place: Place, connect: Callable[..., Wire]) -> None:
    wire = connect()
    wire.initialize()
    for identifier in range(500, 540):
        params = {"name": "tool_echo", "arguments": {"id": identifier}}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}).encode())
    answers = [wire.read() for _ in range(40)]
    assert sorted(answer["id"] for answer in answers) == list(range(500, 540))
    for answer in answers:
        assert json.loads(answer["result"]["content"][0]["text"]) == {"echo": {"id": answer["id"]}}
    assert [event["sequence"] for event in place.events()] == list(range(len(place.events())))


def test_an_atlas_that_can_not_be_loaded_ends_the_server_with_every_problem(place: Place) -> None:
    broken = write_atlas(place.folder / "broken", {**MANIFEST, "version": "one", "nonsense": 1})
    done = subprocess.run(
        [sys.executable, "-m", "cra_mcp", "serve", "--atlas", str(broken), "--data-dir", str(place.data)],
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == "", "standard output belongs to the protocol"
    assert "/version" in done.stderr
    assert "/nonsense" in done.stderr
