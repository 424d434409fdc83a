"""The server killed outright, and a disk that takes no more: what was acknowledged stays, what was not recorded did not happen."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cra_mcp.trace.event import verify
from cra_mcp.trace.file import FileStore
from tests.faces.mcp.conftest import Place, Wire, environment, write_atlas


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, write_atlas(tmp_path / "atlas"))


def start(place: Place, *before: str) -> Wire:
    command = [sys.executable, *before, *place.fresh_command()]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(), bufsize=0
    )
    wire = Wire(process)
    wire.initialize()
    return wire


def kill_once(place: Place, seed: int) -> None:
    """Call until a random moment, kill -9 there (between calls or in one), then hold the server to its word."""
    chance = random.Random(seed)
    marks = place.folder / f"marks-{seed}"
    wire = start(place)
    acknowledged: list[dict] = []
    calls = chance.randrange(1, 12)
    for number in range(calls):
        answer = wire.call("tool_mark", {"marks": str(marks), "text": f"m{number}"})
        acknowledged.append(answer["result"]["_meta"]["dev.cra/receipt"])
    if chance.random() < 0.7:
        # In the middle of one: the answer is never read.
        arguments = {"marks": str(marks), "text": f"m{calls}"}
        call = {"name": "tool_mark", "arguments": arguments}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 999, "method": "tools/call", "params": call}).encode())
        time.sleep(chance.random() * 0.004)
    wire.process.kill()
    wire.close()
    (path,) = [item for item in place.traces() if item.name.startswith(acknowledged[0]["session_id"])]
    FileStore(path.parent).recover(acknowledged[0]["session_id"])
    lines = path.read_bytes().splitlines()
    assert verify(lines, session_id=acknowledged[0]["session_id"]).ok
    events = [json.loads(line) for line in lines]
    for receipt in acknowledged:
        assert events[receipt["sequence"]]["event_hash"] == receipt["event_hash"]
    approved = {event["payload"]["execution_id"] for event in events if event["event_type"] == "action.approved"}
    assert {receipt["execution_id"] for receipt in acknowledged} <= approved
    ran = marks.read_text().split() if marks.exists() else []
    assert len(ran) <= len(approved), "an action ran without an event that approves it"
    asked = [event["payload"]["parameters"]["text"] for event in events if event["event_type"] == "action.requested"]
    assert ran == asked[: len(ran)]


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_server_keeps_its_word(place: Place, seed: int) -> None:
    kill_once(place, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_killed_servers_keep_their_word(place: Place, seed: int) -> None:
    kill_once(place, seed)


FULL = (
    "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY)); "
    "sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[1], run_name='__main__', alter_sys=True)"
)


def test_a_full_disk_refuses_calls_and_says_why(place: Place) -> None:
    command = place.fresh_command()
    wrapper = ["-c", FULL.replace("sys.argv = sys.argv[1:]; ", "").replace("sys.argv[1]", "'cra_mcp'"), *command[2:]]
    process = subprocess.Popen(
        [sys.executable, *wrapper],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        bufsize=0,
    )
    wire = Wire(process)
    wire.initialize()
    refused = None
    ran = 0
    for number in range(30):
        result = wire.call("tool_mark", {"marks": str(place.marks), "text": f"m{number}"})["result"]
        if result["isError"]:
            refused = result
            break
        ran += 1
    assert refused is not None
    text = refused["content"][0]["text"]
    assert "can't record" in text or "could not be recorded" in text
    assert "What can be done" in text
    assert refused["_meta"]["dev.cra/receipt"]["error"] == "trace_unavailable"
    assert wire.request("tools/list")["result"]["tools"]
    again = wire.call("tool_mark", {"marks": str(place.marks), "text": "never"})["result"]
    assert again["isError"]
    assert "never" not in place.marked()
    assert len(place.marked()) <= ran + 1
    wire.close()
    for path in place.traces():
        assert verify(path.read_bytes().splitlines()).ok


def test_a_trace_folder_that_can_not_be_used_refuses_calls_and_says_why(place: Place) -> None:
    place.data.mkdir()
    (place.data / "traces").write_text("a file where the folder should be")
    wire = start(place)
    assert wire.request("tools/list")["result"]["tools"]
    for _ in range(2):
        result = wire.call("tool_mark", {"marks": str(place.marks), "text": "never"})["result"]
        assert result["isError"]
        assert result["_meta"]["dev.cra/receipt"]["error"] == "trace_unavailable"
        assert "What can be done" in result["content"][0]["text"]
    assert place.marked() == []
    os.unlink(place.data / "traces")
    assert wire.call("tool_mark", {"marks": str(place.marks), "text": "again"})["result"]["isError"] is False
    wire.close()
