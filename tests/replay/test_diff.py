"""What differs between two traces."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp.compose import CRARuntime
from cra_mcp.errors import TraceError
from cra_mcp.replay.diff import Difference, diff
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import parse
from tests.replay.conftest import FIRST, Clock, Maker, Person

Steps = Callable[[CRARuntime, str], object]


def _trace(tmp_path: Path, steps: Steps, *, manifest: dict = FIRST, start: int = 1_767_600_000) -> list[bytes]:
    with CRARuntime(RuntimeConfig(store="memory", clock_ns=Clock(start * 10**9))) as runtime:
        runtime.load_atlas_from_json(json.dumps(manifest))
        session_id = runtime.create_session("bot", "a goal").session_id
        steps(runtime, session_id)
        runtime.end_session(session_id)
        return runtime.read_trace(session_id)


def _plain(runtime: CRARuntime, session_id: str) -> None:
    runtime.execute_blocking(session_id, "doc.read", {"n": 1})
    runtime.execute_blocking(session_id, "doc.secret", {})
    runtime.execute_blocking(session_id, "pay.small", {"n": 1}, asker=Person("granted"))


def _told(found: list[Difference]) -> set[tuple[str, str, str]]:
    return {(each.weight, each.step, each.what) for each in found}


def test_the_same_steps_at_another_time_differ_in_nothing(tmp_path: Path) -> None:
    assert diff(_trace(tmp_path, _plain), _trace(tmp_path, _plain, start=1_767_600_999)) == []


def test_a_trace_does_not_differ_from_itself(tmp_path: Path) -> None:
    for lines in Maker(3, tmp_path).make(2, 30).traces.values():
        assert diff(lines, lines) == []


def test_another_decision_is_breaking_and_another_policy_minor(tmp_path: Path) -> None:
    stricter = {**FIRST, "policies": [*FIRST["policies"], {"policy_id": "no", "type": "deny", "actions": ["doc.read"]}]}
    found = diff(_trace(tmp_path, _plain), _trace(tmp_path, _plain, manifest=stricter))
    assert {
        ("breaking", "call of doc.read", "decision"),
        ("breaking", "call of doc.read", "outcome"),
        ("breaking", "request", "allowed"),
        ("minor", "call of doc.read", "policy_id"),
        ("minor", "session", "policy_digest"),
    } <= _told(found)
    changed = next(each for each in found if each.what == "decision")
    assert (changed.old, changed.new) == ("allow", "deny")


def test_other_arguments_are_breaking(tmp_path: Path) -> None:
    def other(runtime: CRARuntime, session_id: str) -> None:
        runtime.execute_blocking(session_id, "doc.read", {"n": 2})
        runtime.execute_blocking(session_id, "doc.secret", {})
        runtime.execute_blocking(session_id, "pay.small", {"n": 1}, asker=Person("granted"))

    found = diff(_trace(tmp_path, _plain), _trace(tmp_path, other))
    assert ("breaking", "call of doc.read", "parameters_hash") in _told(found)


def test_a_call_more_or_fewer_is_breaking(tmp_path: Path) -> None:
    def more(runtime: CRARuntime, session_id: str) -> None:
        _plain(runtime, session_id)
        runtime.execute_blocking(session_id, "doc.list", {})

    one, other = _trace(tmp_path, _plain), _trace(tmp_path, more)
    added, removed = diff(one, other), diff(other, one)
    assert ("breaking", "call of doc.list", "added") in _told(added)
    assert ("breaking", "call of doc.list", "removed") in _told(removed)
    assert added[0].old_sequence is None
    assert removed[0].new_sequence is None


def test_another_answer_of_a_person_is_breaking_by_its_outcome(tmp_path: Path) -> None:
    def refused(runtime: CRARuntime, session_id: str) -> None:
        runtime.execute_blocking(session_id, "doc.read", {"n": 1})
        runtime.execute_blocking(session_id, "doc.secret", {})
        runtime.execute_blocking(session_id, "pay.small", {"n": 1}, asker=Person("rejected"))

    told = _told(diff(_trace(tmp_path, _plain), _trace(tmp_path, refused)))
    assert {("breaking", "call of pay.small", "outcome"), ("minor", "call of pay.small", "approval")} <= told


@pytest.mark.parametrize("reason", ["completed", "error"])
def test_why_a_session_ended_counts(tmp_path: Path, reason: str) -> None:
    def ends(runtime: CRARuntime, session_id: str) -> None:
        _plain(runtime, session_id)
        runtime.end_session(session_id, reason=reason)  # type: ignore[arg-type]

    told = _told(diff(_trace(tmp_path, _plain), _trace(tmp_path, ends)))
    assert (("breaking", "session.ended", "reason") in told) == (reason == "error")


def test_calls_under_way_at_once_are_told_apart(tmp_path: Path) -> None:
    """Whatever the order in which events of several calls are stored, they are compared call by call."""
    lines = _trace(tmp_path, _plain)
    events = [parse(line) for line in lines]
    calls = [event for event in events if event.event_type == "action.requested"]
    spans = [
        [line for line, event in zip(lines, events, strict=True) if event.span_id == call.span_id] for call in calls
    ]
    others = [
        line for line, event in zip(lines, events, strict=True) if event.span_id not in {c.span_id for c in calls}
    ]
    interleaved = [line for turn in range(9) for span in spans for line in span[turn : turn + 1]]
    assert diff([*others[:-1], *interleaved, others[-1]], lines) == []


ODD = [None, True, 1, -1.5, "", "x", "\u202e", [], [[]], {}, {"x": [1]}, [{"x": None}], 10**15, "y" * 5_000]


def test_any_trace_is_compared_or_refused_with_its_event(tmp_path: Path) -> None:
    """A trace comes from outside: whatever its payloads hold is a difference or a located fault."""
    lines = _trace(tmp_path, _plain)
    faults = set()
    for position, line in enumerate(lines):
        event = json.loads(line)
        for name in event["payload"]:
            for value in ODD:
                odd = {**event, "payload": {**event["payload"], name: value}}
                changed = [*lines[:position], json.dumps(odd).encode(), *lines[position + 1 :]]
                try:
                    diff(lines, changed)
                    diff(changed, lines)
                except TraceError as error:
                    faults.add((error.code, name, error.message.startswith(f"event {position}: ")))
    assert faults == {("not_replayable", "action_id", True), ("not_replayable", "request_id", True)}


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"\xff", b'{"a":1e999}', b"[" * 100_000])
def test_what_is_no_event_is_located(tmp_path: Path, line: bytes) -> None:
    lines = _trace(tmp_path, _plain)
    with pytest.raises(TraceError, match=r"^event 2: ") as caught:
        diff(lines, [*lines[:2], line, *lines[2:]])
    assert caught.value.code == "malformed_event"


def test_long_traces_are_compared_in_bounded_time(tmp_path: Path) -> None:
    """60,000 events of one action, half of them gone from the front: the same steps in every order are the worst case."""
    lines = _trace(tmp_path, lambda runtime, session: [runtime.execute_blocking(session, "doc.read", {"n": 1})])
    call = [line for line in lines if b'"action.' in line or b'"policy.evaluated"' in line]
    spans = [json.loads(line)["span_id"] for line in call]
    assert len(set(spans)) == 1
    many = [
        line.replace(spans[0].encode(), f"{spans[0][:-12]}{number:012x}".encode())
        for number in range(15_000)
        for line in call
    ]
    assert len(many) >= 45_000
    began = time.process_time()
    assert len(diff(many, many[len(call) * 100 :])) == 100
    assert time.process_time() - began < 60
