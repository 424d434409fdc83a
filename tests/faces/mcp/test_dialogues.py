"""What real hosts say over stdio, recorded once from each, replayed to a real server: every message is answered as the host needs.

A dialogue holds the messages of the host in their order, and the points at which it waited for an answer or a request of the
server. Ids of sessions, calls and turns are replaced; nothing else of the messages is.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cra_mcp.trace.event import verify
from tests.faces.mcp.conftest import MANIFEST, Place, Wire, action, environment, write_atlas

DIALOGUES = {path.stem: path for path in sorted((Path(__file__).parent / "dialogues").glob("*.json"))}
MODERN = "2026-07-28"
PAY = {"type": "object", "properties": {"to": {"type": "string"}, "note": {"type": "string"}}, "required": ["to"]}
OUTCOMES = ("action.executed", "action.failed", "action.denied", "x.cra.call.pending")


@dataclass
class Replayed:
    """What a server made of a dialogue."""

    dialogue: dict[str, Any]
    answers: dict[object, dict[str, Any]] = field(default_factory=dict[object, dict[str, Any]])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    exit_code: int | None = None

    def requests(self, method: str) -> list[dict[str, Any]]:
        """Those of the host."""
        lines = (line["host"] for line in self.dialogue["lines"] if "host" in line)
        return [message for message in lines if message.get("method") == method]

    def results(self, method: str) -> list[dict[str, Any]]:
        """The answers to them."""
        return [self.answers[message["id"]]["result"] for message in self.requests(method)]

    def calls(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each call: the tool, its status, its result."""
        for message, result in zip(self.requests("tools/call"), self.results("tools/call"), strict=True):
            receipt = result.get("_meta", {}).get("dev.cra/receipt", {})
            yield message["params"]["name"], receipt.get("status", result.get("resultType", "")), result


def replay(wire: Wire, dialogue: dict[str, Any]) -> Replayed:
    """Say what the host said, waiting where it waited, and end as it ended."""
    seen = Replayed(dialogue)

    def take() -> None:
        message = wire.read()
        if "method" not in message:
            seen.answers[message["id"]] = message
        else:
            (seen.asked if "id" in message else seen.told).append(message)

    asked = 0
    for line in dialogue["lines"]:
        if "host" in line:
            wire.send(_filled(line["host"], seen).encode())
            continue
        if "id" in line["server"]:
            while line["server"]["id"] not in seen.answers:
                take()
        else:
            asked += 1
            while len(seen.asked) < asked:
                take()
            assert seen.asked[-1]["method"] == line["server"]["method"]
    _end(wire, dialogue["end"])
    seen.exit_code = wire.process.wait(20)
    return seen


def _filled(message: dict[str, Any], seen: Replayed) -> str:
    """With what only the server of this run knows: the state it handed out, and the id of what it asked."""
    if "result" in message:
        return json.dumps({**message, "id": seen.asked[-1]["id"]})
    states = [answer["result"].get("requestState") for answer in seen.answers.values() if "result" in answer]
    state = next((each for each in reversed(states) if each), "")
    return json.dumps(message).replace("$requestState", state)


def _end(wire: Wire, ends: list[dict[str, Any]]) -> None:
    began = time.monotonic()
    for end in ends:
        time.sleep(max(0.0, end["after_ms"] / 1_000 - (time.monotonic() - began)))
        if end["how"] == "close":
            assert wire.process.stdin is not None
            wire.process.stdin.close()
        elif wire.process.poll() is None:
            wire.process.send_signal(signal.Signals[end["how"]])


@pytest.fixture(scope="module", params=sorted(DIALOGUES))
def replayed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Replayed, Place]:
    """A dialogue with a server of its own, once for all tests of it."""
    dialogue = json.loads(DIALOGUES[request.param].read_text())
    folder = tmp_path_factory.mktemp(request.param)
    actions = [each for each in MANIFEST["actions"] if each["action_id"] != "tool.pay"]
    pay = action("tool.pay", "echo", risk_tier="high", parameters_schema=PAY)
    place = Place(folder, write_atlas(folder / "atlas", {**MANIFEST, "actions": [*actions, pay]}))
    process = subprocess.Popen(
        [sys.executable, *place.fresh_command()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        bufsize=0,
    )
    wire = Wire(process)
    try:
        return replay(wire, dialogue), place
    finally:
        wire.close()


def test_every_request_of_the_host_is_answered_and_none_with_an_error(replayed: tuple[Replayed, Place]) -> None:
    seen, _ = replayed
    requests = [line["host"] for line in seen.dialogue["lines"] if "host" in line and "id" in line["host"]]
    waited = {message["id"] for message in requests if message.get("method") not in (None, "subscriptions/listen")}
    assert waited <= seen.answers.keys()
    assert [answer for answer in seen.answers.values() if "error" in answer] == []


def test_the_host_gets_its_version_and_all_tools(replayed: tuple[Replayed, Place]) -> None:
    seen, _ = replayed
    for message, result in zip(seen.requests("initialize"), seen.results("initialize"), strict=True):
        assert result["protocolVersion"] == message["params"]["protocolVersion"]
    for result in seen.results("server/discover"):
        assert MODERN in result["supportedVersions"]
    (listed,) = seen.results("tools/list")
    names = {tool["name"] for tool in listed["tools"]}
    assert {"tool_add", "tool_pay", "tool_echo"} <= names
    assert not {"tool_delete", "tool_secret"} & names
    assert all(tool["inputSchema"]["type"] == "object" for tool in listed["tools"])


def test_an_allowed_call_is_answered_whatever_the_host_adds_to_it(replayed: tuple[Replayed, Place]) -> None:
    seen, place = replayed
    name, status, result = next(iter(seen.calls()))
    assert (name, status, result["structuredContent"]) == ("tool_add", "success", {"sum": 5})
    recorded = [event["payload"] for event in place.events() if event["event_type"] == "action.requested"]
    assert recorded[0]["parameters"] == {"a": 2, "b": 3}
    assert all(set(each["parameters"]) <= {"a", "b", "to", "marks"} for each in recorded), "no more than was meant"
    added = seen.requests("tools/call")[0]["params"]["arguments"].keys() - {"a", "b"}
    left_out = [{"pointer": f"/{each}", "reason": "added_by_host"} for each in sorted(added)]
    assert recorded[0].get("left_out", []) == left_out


ENDS_OF_PAY = {
    "claude": "pending_approval",  # cancels a form that nobody is there to fill in
    "codex": "denied",
    "copilot": "denied",
    "gemini": "pending_approval",  # has no forms
    "opencode": "pending_approval",
}


def test_what_needs_a_person_never_runs_where_none_was_asked(
    replayed: tuple[Replayed, Place],
) -> None:
    seen, place = replayed
    stem = next(name for name, path in DIALOGUES.items() if json.loads(path.read_text()) == seen.dialogue)
    statuses = [status for name, status, _ in seen.calls() if name == "tool_pay"]
    assert statuses[-1] == ENDS_OF_PAY[stem]
    executed = [event["payload"]["action_id"] for event in place.events() if event["event_type"] == "action.executed"]
    assert "tool.pay" not in executed
    forms = [each for each in seen.asked if each["method"] == "elicitation/create"]
    can_be_asked = "elicitation" in json.dumps(seen.requests("initialize"))
    assert len(forms) == (1 if can_be_asked else 0)


def test_however_the_host_ends_its_server_the_trace_is_whole(replayed: tuple[Replayed, Place]) -> None:
    seen, place = replayed
    killed = any(end["how"] == "SIGKILL" for end in seen.dialogue["end"])
    assert seen.exit_code in ((0, -signal.SIGKILL) if killed else (0,))
    (path,) = place.traces()
    assert verify(path.read_bytes().splitlines()).ok
    events = place.events()
    asked = [event["span_id"] for event in events if event["event_type"] == "action.requested"]
    settled = [event["span_id"] for event in events if event["event_type"] in OUTCOMES]
    assert len(asked) == len(seen.requests("tools/call"))
    assert sorted(asked) == sorted(settled), "each call has one outcome"
    if not killed:
        assert [event["payload"]["reason"] for event in events if event["event_type"] == "session.ended"] == [
            "completed"
        ]


def test_there_is_a_dialogue_of_each_host() -> None:
    assert sorted(DIALOGUES) == sorted(ENDS_OF_PAY)
