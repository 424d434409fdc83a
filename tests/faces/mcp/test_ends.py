"""How a server ends, and what its trace says then: real processes, ended as hosts end them, or killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cra_mcp.trace.checkpoint import parse_checkpoint
from cra_mcp.trace.event import verify
from cra_mcp.trace.keeping import KeptCheckpoints
from tests.faces.mcp.conftest import Place, Wire, environment

IGNORES_SIGINT = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
)
PATIENCE_S = 60
QUIET_S = 1.0
HOST = """
import json, subprocess, sys, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for line in sys.stdin:
    server.stdin.write(line.encode())
    server.stdin.flush()
    if '"id"' in line:
        print(server.stdout.readline().decode(), end="", flush=True)
"""


@contextmanager
def served(place: Place, *before: str) -> Iterator[Wire]:
    process = subprocess.Popen(
        [sys.executable, *before, *place.fresh_command()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        bufsize=0,
    )
    made = Wire(process)
    with contextlib.ExitStack() as stack:
        stack.callback(made.close)
        yield made


def until(holds: Callable[[], object]) -> None:
    """Wait for another process, which nothing announces here."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def signed(place: Place, session_id: str) -> int:
    """Of how many events the newest checkpoint speaks."""
    sizes = [parse_checkpoint(note).checkpoint.size for note in KeptCheckpoints(place.data / "traces").read(session_id)]
    return max(sizes, default=0)


def trace(place: Place, session_id: str) -> list[dict[str, Any]]:
    lines = (place.data / "traces" / f"{session_id}.trace.jsonl").read_bytes().split(b"\n")[:-1]
    assert verify(lines).ok
    return [json.loads(line) for line in lines]


def call(wire: Wire) -> str:
    """One call; the session it belongs to."""
    return wire.call("tool_echo", {"n": 1})["result"]["_meta"]["dev.cra/receipt"]["session_id"]


def is_ended(place: Place, session_id: str) -> bool:
    return any(event["event_type"] == "session.ended" for event in trace(place, session_id))


def test_a_host_that_kills_right_after_asking_leaves_a_signed_trace_which_the_next_start_ends(place: Place) -> None:
    with served(place) as wire:
        wire.initialize()
        session_id = call(wire)
        time.sleep(QUIET_S)
        wire.process.send_signal(signal.SIGTERM)
        time.sleep(0.004)
        wire.process.kill()
        wire.process.wait()
        killed = [event for event in trace(place, session_id) if event["event_type"] != "session.ended"]
        assert killed[-1]["event_type"] == "action.executed"
        assert signed(place, session_id) >= len(killed), "all that was there before the end is signed"
    with served(place) as wire:
        wire.initialize()
        until(lambda: is_ended(place, session_id))
        last = trace(place, session_id)[-1]["payload"]
        if last["reason"] == "error":  # else four milliseconds were enough to end it properly
            assert last["cause"] == "process_died"
            until(lambda: signed(place, session_id) == len(trace(place, session_id)))
    assert place.cli("trace", "verify", "--all").returncode == 0


def test_the_first_checkpoint_comes_within_two_seconds_of_the_first_call_however_many_follow(place: Place) -> None:
    with served(place) as wire:
        wire.initialize()
        began = time.monotonic()
        session_id = call(wire)
        while not signed(place, session_id):
            call(wire)
            assert time.monotonic() - began < 2 + PATIENCE_S * (os.getloadavg()[0] > 2), (
                "two seconds, on a machine at rest"
            )


@pytest.mark.parametrize("how", ["closed", "SIGTERM", "SIGINT", "SIGHUP", "SIGINT ignored"])
def test_an_ordinary_exit_is_completed_and_signed(place: Place, how: str) -> None:
    how, _, ignored = how.partition(" ")
    with served(place, *(("-c", IGNORES_SIGINT, sys.executable) if ignored else ())) as wire:
        wire.initialize()
        session_id = call(wire)
        if how != "closed":
            wire.process.send_signal(getattr(signal, how))
        assert wire.close() == 0
    events = trace(place, session_id)
    assert (events[-1]["event_type"], events[-1]["payload"]["reason"]) == ("session.ended", "completed")
    assert signed(place, session_id) == len(events)


def test_a_host_that_is_killed_has_not_completed(place: Place) -> None:
    with served(place, "-c", HOST, sys.executable) as wire:
        wire.initialize()
        session_id = call(wire)
        wire.process.kill()
        until(lambda: is_ended(place, session_id))
    assert trace(place, session_id)[-1]["payload"]["reason"] == "error"


def test_what_a_killed_server_was_doing_is_said_to_be_unknown(place: Place) -> None:
    with served(place) as wire:
        wire.initialize()
        session_id = call(wire)
        params = {"name": "tool_wait", "arguments": {"marks": str(place.marks)}}
        wire.send(json.dumps({"jsonrpc": "2.0", "id": 50, "method": "tools/call", "params": params}).encode())
        until(lambda: "began" in place.marked())
        wire.process.kill()
        wire.process.wait()
        before = trace(place, session_id)
    with served(place) as wire:
        wire.initialize()
        until(lambda: is_ended(place, session_id))
    *rest, last = trace(place, session_id)
    assert rest == before
    payload = last["payload"]
    assert (payload["reason"], payload["cause"]) == ("error", "process_died")
    assert payload["last_event_at"] == before[-1]["timestamp"]
    assert [each["action_id"] for each in payload["outcome_unknown"]] == ["tool.wait"]


def test_servers_that_share_a_folder_leave_each_others_living_sessions_alone(place: Place) -> None:
    with served(place) as dying:
        dying.initialize()
        dead = call(dying)
        dying.process.kill()
        dying.process.wait()
    with served(place) as first, served(place) as second:
        first.initialize()
        living = call(first)
        second.initialize()
        call(second)
        until(lambda: is_ended(place, dead))
        with served(place) as third:
            third.initialize()
            call(third)
        assert not is_ended(place, living)
        assert call(first) == living
    assert [event["event_type"] for event in trace(place, living)].count("session.ended") == 1
    assert trace(place, living)[-1]["payload"]["reason"] == "completed"
    assert len([event for event in trace(place, dead) if event["event_type"] == "session.ended"]) == 1
