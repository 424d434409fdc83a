"""Traces decided again."""

import json
from pathlib import Path

import pytest

from cra_mcp.canonical import digest
from cra_mcp.errors import TraceError
from cra_mcp.replay.again import Replayed, replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.trace.event import Draft, Head, link, parse, verify
from tests.replay.conftest import ARGUED, History, Maker, Only, load, revised


def _replayed(history: History, session_id: str) -> Replayed:
    return replay(read_session(history.traces[session_id]), Library(history))


def _check_random(tmp_path: Path, seeds: range, sessions: int, steps: int) -> tuple[int, int]:
    resolutions = decisions = 0
    for seed in seeds:
        maker = Maker(seed, tmp_path)
        history = maker.make(sessions, steps)
        assert maker.refused <= {"unknown_capability", "unknown_atlas"}
        for session_id, lines in history.traces.items():
            assert verify(lines).ok
            found = _replayed(history, session_id)
            assert found.divergences == [], (seed, session_id)
            resolutions += found.resolutions
            decisions += found.decisions
    return resolutions, decisions


def test_random_sessions_are_decided_again_as_they_were(tmp_path: Path) -> None:
    resolutions, decisions = _check_random(tmp_path, range(12), sessions=3, steps=20)
    assert resolutions > 100
    assert decisions > 400


def test_sessions_in_shadow_mode_are_decided_again_as_they_were(tmp_path: Path) -> None:
    for seed in range(6):
        history = Maker(seed, tmp_path).make(2, 25, mode="shadow")
        for session_id in history.traces:
            assert _replayed(history, session_id).divergences == [], (seed, session_id)


@pytest.mark.long
def test_a_thousand_random_sessions_are_decided_again_as_they_were(tmp_path: Path) -> None:
    _check_random(tmp_path, range(1_000, 1_200), sessions=5, steps=25)


def _rewritten(lines: list[bytes], sequence: int, **changes: object) -> list[bytes]:
    """A trace with one payload changed and every hash made anew: a chain that holds and says something else."""
    head: Head | None = None
    found: list[bytes] = []
    for line in lines:
        event = parse(line)
        payload = {**event.payload, **changes} if event.sequence == sequence else event.payload
        head, made = link(
            head,
            Draft(event.event_type, payload, event.span_id, event.parent_span_id),
            session_id=event.session_id,
            trace_id=event.trace_id,
            event_id=event.event_id,
            timestamp=event.timestamp,
        )
        found.append(made)
    return found


def _one(tmp_path: Path) -> tuple[History, str, list[bytes]]:
    history = Maker(27, tmp_path).make(1, 60, live=False)
    session_id, lines = next(iter(history.traces.items()))
    return history, session_id, lines


def _first(lines: list[bytes], event_type: str, **fields: object) -> int:
    for line in lines:
        event = parse(line)
        if event.event_type == event_type and all(event.payload.get(name) == value for name, value in fields.items()):
            return event.sequence
    raise AssertionError(event_type)


@pytest.mark.parametrize(
    ("event_type", "fields", "change"),
    [
        ("policy.evaluated", {"result": "deny"}, {"result": "allow"}),
        ("policy.evaluated", {"result": "allow"}, {"result": "deny"}),
        ("policy.evaluated", {"result": "require_approval"}, {"policy_id": "ask-nobody"}),
        ("policy.evaluated", {"result": "allow"}, {"determining": ["another"]}),
        ("carp.resolution.completed", {}, {"decision_type": "nothing"}),
        ("carp.resolution.completed", {}, {"allowed": ["doc.read"]}),
        ("carp.resolution.completed", {}, {"denied": []}),
        ("carp.resolution.completed", {}, {"context_blocks": ["p", "p"]}),
    ],
)
def test_an_event_that_says_otherwise_is_named(tmp_path: Path, event_type: str, fields: dict, change: dict) -> None:
    history, _, lines = _one(tmp_path)
    sequence = _first(lines, event_type, **fields)
    changed = _rewritten(lines, sequence, **change)
    assert verify(changed).ok
    found = replay(read_session(changed), Library(history))
    assert [divergence.sequence for divergence in found.divergences][:1] == [sequence]
    assert found.divergences[0].recorded.items() >= change.items() or "denied" in change
    assert not found.ok


def _refused_parameters(lines: list[bytes]) -> int:
    """Sequence of a call whose parameters are an object and were refused."""
    refused = {parse(line).span_id for line in lines if b'"violation_type":"invalid_parameters"' in line}
    return next(
        event.sequence
        for event in map(parse, lines)
        if event.event_type == "action.requested"
        and event.span_id in refused
        and isinstance(event.payload["parameters"], dict)
    )


def test_a_call_recorded_as_invalid_that_is_not_is_named(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    sequence = _refused_parameters(lines)
    good: dict[str, object] = {"n": 1}
    changed = _rewritten(lines, sequence, parameters=good, parameters_hash=digest(good))
    found = replay(read_session(changed), Library(history))
    assert [divergence.sequence for divergence in found.divergences] == [sequence]


def test_another_atlas_under_the_same_digest_shows_everywhere(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    other = revised(ARGUED, drop=["read-all"])
    found = replay(read_session(lines), Library(Only(other, history)))
    assert {divergence.action_id for divergence in found.divergences} >= {None, "doc.read"}


def test_a_missing_atlas_is_named(tmp_path: Path) -> None:
    _, _, lines = _one(tmp_path)
    with pytest.raises(TraceError, match=r"com\.example\.first 1\.0\.0") as caught:
        replay(read_session(lines), Library(Only(None)))
    assert caught.value.code == "atlas_missing"


def test_arguments_the_trace_does_not_hold_are_counted_and_not_guessed(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    before = replay(read_session(lines), Library(history))
    changed = _rewritten(lines, _refused_parameters(lines), parameters=None)
    found = replay(read_session(changed), Library(history))
    assert found.ok
    assert found.undetermined == before.undetermined + 1


@pytest.mark.parametrize(
    ("event_type", "change"),
    [
        ("session.started", {"atlases": "none"}),
        ("session.started", {"atlases": [1]}),
        ("session.started", {"atlases": [{}]}),
        ("session.started", {"goal": 1}),
        ("session.started", {"risk_tier": "enormous"}),
        ("session.started", {"principal": []}),
        ("session.started", {"principal": {"subject": "a", "roles": [1]}}),
        ("session.started", {"principal": {"subject": "a", "roles": "agent"}}),
        ("carp.resolution.completed", {"request_id": "another"}),
        ("carp.resolution.completed", {"resolution_id": 1}),
        ("carp.resolution.completed", {"at": "yesterday"}),
        ("carp.resolution.cached", {"first_sequence": 10**9}),
        ("carp.resolution.cached", {"first_sequence": "1"}),
        ("policy.evaluated", {"determining": "x"}),
        ("policy.evaluated", {"result": None}),
        ("action.requested", {"action_id": {}}),
    ],
)
def test_a_payload_that_means_nothing_is_refused_with_its_event(tmp_path: Path, event_type: str, change: dict) -> None:
    _, _, lines = _one(tmp_path)
    sequence = _first(lines, event_type)
    with pytest.raises(TraceError, match=f"event {sequence}:") as caught:
        read_session(_rewritten(lines, sequence, **change))
    assert caught.value.code == "not_replayable"


@pytest.mark.parametrize("timestamp", ["2026-13-45T99:00:00.000000Z", "not an instant, 27 characters"[:27], "2026"])
def test_an_event_that_has_no_instant_is_refused(tmp_path: Path, timestamp: str) -> None:
    _, _, lines = _one(tmp_path)
    event = parse(lines[1])
    lines[1] = lines[1].replace(event.timestamp.encode(), timestamp.encode())
    with pytest.raises(TraceError) as caught:
        read_session(lines)
    assert caught.value.code in {"not_replayable", "malformed_event"}


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b"\xff", b'{"event_type":1}'])
def test_a_line_that_is_no_event_is_refused(tmp_path: Path, line: bytes) -> None:
    _, _, lines = _one(tmp_path)
    with pytest.raises(TraceError) as caught:
        read_session([lines[0], line])
    assert caught.value.code == "malformed_event"


def test_a_trace_that_does_not_begin_at_its_beginning_is_refused(tmp_path: Path) -> None:
    _, _, lines = _one(tmp_path)
    with pytest.raises(TraceError) as caught:
        read_session(lines[1:])
    assert caught.value.code == "not_replayable"
    with pytest.raises(TraceError) as caught:
        read_session([])
    assert caught.value.code == "not_replayable"


def test_a_call_under_a_resolution_the_trace_does_not_have_is_refused(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    sequence = _first(lines, "action.requested")
    changed = _rewritten(lines, sequence, resolution_id="01900000-0000-7000-8000-000000000000")
    with pytest.raises(TraceError, match=f"event {sequence}:"):
        replay(read_session(changed), Library(history))


def test_a_trace_of_before_resolutions_were_named_replays(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    for line in lines:
        event = parse(line)
        if event.event_type == "action.requested":
            lines = _rewritten(lines, event.sequence, resolution_id=None)
    assert replay(read_session(lines), Library(history)).ok


def test_what_is_found_is_plain_json(tmp_path: Path) -> None:
    history, session_id, lines = _one(tmp_path)
    changed = _rewritten(lines, _first(lines, "policy.evaluated", result="deny"), result="allow")
    found = replay(read_session(changed), Library(history)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["session_id"] == session_id


def test_atlases_of_a_trace_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    history, _, lines = _one(tmp_path)
    started = parse(lines[0]).payload["atlases"]
    assert isinstance(started, list)
    changed = _rewritten(lines, 0, atlases=[*started, *started])
    with pytest.raises(TraceError) as caught:
        replay(read_session(changed), Library(history))
    assert caught.value.code == "not_replayable"
    assert load(ARGUED).digest in history.atlases
