"""What real hosts do, and what real actions bring along: none of it hides a tool, stops a pipe or is lost."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, StdioServerParameters

from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import MANIFEST, Place, Wire, action, environment, write_atlas

BOTH = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
ERAS = pytest.mark.parametrize("modern", [False, True])
Mode = Literal["legacy", "2026-07-28"]
NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
AWKWARD = [
    action("odd.list", "give_list", returns_schema={"type": "array", "items": {"type": "integer"}}),
    action("odd.any", "give_list", returns_schema={}),
    action(
        "odd.root",
        "echo",
        parameters_schema={
            "type": "object",
            "properties": {"a": True, "b": False, "node": {"$ref": "#/$defs/node"}},
            "oneOf": [{"required": ["a"]}, {"required": ["node"]}],
            "required": ["elsewhere"],
            "$defs": {"node": NODE},
        },
    ),
]
PLAIN_ROOT = {"allOf", "anyOf", "oneOf", "not", "$ref", "$defs", "if"}


@pytest.mark.anyio
@BOTH
async def test_no_schema_of_one_action_hides_the_tools_of_all(tmp_path: Path, mode: Mode) -> None:
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", {**MANIFEST, "actions": [*MANIFEST["actions"], *AWKWARD]}))
    with (place.atlas / "python" / "tools.py").open("a") as file:
        file.write("\ndef give_list(**_):\n    return [1, 2]\n")
    async with Client(place.parameters(), mode=mode, cache=None) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"odd_list", "odd_any", "odd_root", "tool_echo"} <= set(tools)
        schema = tools["odd_root"].input_schema
        assert schema["type"] == "object"
        assert not PLAIN_ROOT & set(schema)
        assert "$ref" not in json.dumps(schema)
        assert all(isinstance(each, dict) for each in schema["properties"].values())
        assert set(schema.get("required", ())) <= set(schema["properties"])
        for name in ("odd_list", "odd_any"):
            if mode == "legacy":
                assert tools[name].output_schema is None
            result = await client.call_tool(name, {})
            assert result.is_error is False
            assert json.loads(result.content[0].text) == [1, 2], "and in text, whatever the era can carry"


def test_a_schema_that_points_to_the_network_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    remote = {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}}
    manifest = {**MANIFEST, "actions": [action("odd.remote", "echo", parameters_schema=remote)]}
    place = Place(tmp_path, write_atlas(tmp_path / "atlas", manifest))
    done = subprocess.run(
        [sys.executable, *place.command()], input=b"", capture_output=True, env=environment(), check=False
    )
    assert done.returncode != 0
    assert b"parameters_schema" in done.stderr


@ERAS
def test_a_host_that_ends_its_lines_as_windows_does_is_answered_with_plain_lines(wire: Wire, modern: bool) -> None:
    send = wire.send
    wire.send = lambda raw: send(raw + b"\r")  # type: ignore[method-assign]
    if not modern:
        wire.initialize()
    assert wire.call("tool_echo", {"a": "b\r\n"}, modern=modern)["result"]["isError"] is False
    assert wire.process.stdout is not None
    send(json.dumps({"jsonrpc": "2.0", "id": 77, "method": "nothing"}).encode())
    assert not wire.process.stdout.readline().endswith(b"\r\n")


@ERAS
def test_as_many_blocking_actions_as_may_run_hold_up_neither_the_pipe_nor_what_needs_no_thread(
    wire: Wire, place: Place, modern: bool
) -> None:
    if not modern:
        wire.initialize()
    wire.request("tools/list", modern=modern)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    for number in range(48):
        call = {"name": "tool_slow", "arguments": {"marks": str(place.marks), "seconds": 6}}
        params = {**call, "_meta": meta} if modern else call
        message = {"jsonrpc": "2.0", "id": f"slow-{number}", "method": "tools/call", "params": params}
        wire.send(json.dumps(message).encode())
    deadline = time.monotonic() + 30
    while len(place.marked()) < 32:
        assert time.monotonic() < deadline
    began = time.monotonic()
    assert "result" in wire.request("tools/list", modern=modern)
    assert "result" in wire.request("resources/read", {"uri": "cra://session/current"}, modern=modern)
    assert "result" in wire.request("completion/complete", COMPLETE, modern=modern)
    took = time.monotonic() - began
    assert not [each for each in wire.other if str(each.get("id", "")).startswith("slow")], "they were all under way"
    assert took < 2.0


COMPLETE = {
    "ref": {"type": "ref/resource", "uri": "cra://trace/{session_id}{?after,limit}"},
    "argument": {"name": "session_id", "value": ""},
}


def test_a_state_that_another_process_sealed_is_refused_and_recorded_and_the_call_can_be_made_anew(
    wire: Wire, place: Place
) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
    }
    yes = {"approval": {"action": "accept", "content": {"approve": True}}}

    def call(on: Wire, **more: object) -> dict[str, Any]:
        return on.request("tools/call", {"name": "tool_pay", "arguments": {"to": "ann"}, "_meta": meta, **more})

    state = call(wire)["result"]["requestState"]
    assert wire.close() == 0
    process = subprocess.Popen(
        [sys.executable, *place.command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), bufsize=0
    )
    after = Wire(process)
    try:
        refused = call(after, requestState=state, inputResponses=yes)
        assert refused["error"]["code"] == -32602
        asked = call(after)["result"]
        assert asked["resultType"] == "input_required"
        assert call(after, requestState=asked["requestState"], inputResponses=yes)["result"]["isError"] is False
    finally:
        after.close()
    kinds = [event["event_type"] for event in place.events()]
    assert (kinds.count("error.occurred"), kinds.count("action.executed")) == (1, 1)


@ERAS
@pytest.mark.parametrize("how", ["eof", "SIGTERM"])
@pytest.mark.parametrize("under_way", [False, True])
def test_however_a_pipe_ends_every_event_is_on_disk_and_the_session_has_ended(
    wire: Wire, place: Place, modern: bool, how: str, under_way: bool
) -> None:
    if not modern:
        wire.initialize()
    receipts = [
        wire.call("tool_echo", {"n": number}, modern=modern)["result"]["_meta"]["dev.cra/receipt"]
        for number in range(5)
    ]
    if under_way:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        call = {"name": "tool_wait", "arguments": {"marks": str(place.marks)}, **({"_meta": meta} if modern else {})}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 50, "method": "tools/call", "params": call}).encode())
        deadline = time.monotonic() + 20
        while "began" not in place.marked():
            assert time.monotonic() < deadline
    if how == "SIGTERM":
        wire.process.send_signal(signal.SIGTERM)
        assert wire.process.wait(10) == 0
    else:
        assert wire.close() == 0
    (path,) = place.traces()
    assert verify(path.read_bytes().splitlines()).ok
    events = place.events()
    for receipt in receipts:
        assert events[receipt["sequence"]]["event_hash"] == receipt["event_hash"], "what was acknowledged is there"
    assert events[-1]["event_type"] == "session.ended"
    assert events[-1]["payload"]["reason"] == ("cancelled" if under_way and how != "eof" else "completed")
    assert (events[-2]["event_type"] == "action.failed") is under_way
    if under_way:
        assert "ended" in place.marked(), "the action was told"


@pytest.mark.anyio
async def test_a_host_that_probes_and_goes_away_again_and_again_leaves_nothing_behind(place: Place) -> None:
    for _ in range(2):
        given: StdioServerParameters = place.parameters()
        async with Client(given, mode="auto", cache=None) as client:
            await client.list_tools()
    assert not place.data.exists() or place.traces() == []
