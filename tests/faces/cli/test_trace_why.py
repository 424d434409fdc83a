"""``trace why``: what led to one event, and what it led to."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp import CRARuntime
from cra_mcp.canonical import canonical_bytes
from cra_mcp.faces.cli.kept_atlases import KeptAtlases
from cra_mcp.faces.cli.why import explain
from cra_mcp.trace.telling import tell
from tests.faces.cli.conftest import cra
from tests.faces.mcp.app import made
from tests.faces.mcp.conftest import Place
from tests.trace import hostile

NOWHERE = KeptAtlases(Path("/nowhere/at/all"))


def explained(lines: list[bytes], place: int) -> dict[str, Any]:
    story = tell(lines)
    return cast("dict[str, Any]", explain(story, story.events[place], NOWHERE))


def sequences(steps: list[dict[str, Any]]) -> list[int]:
    return [step["sequence"] for step in steps]


def test_an_event_of_a_call_is_explained_by_all_that_led_to_it_and_followed() -> None:
    told = explained(made.chain(made.session(calls=0)), 15)
    assert told["event"]["event_type"] == "approval.granted"
    assert (told["call"]["action_id"], told["call"]["outcome"]) == ("refund.create", "failed")
    assert told["request"]["asked"]["goal"] == "Answer ticket 17"
    assert sequences(told["chain"]) == [1, 2, 12, 13, 14, 15, 16, 17]
    assert (told["previous"]["event_type"], told["next"]["event_type"]) == ("approval.requested", "action.approved")
    assert (told["approval"]["by"], told["approval"]["asked"], told["approval"]["settled"]) == ("ann", 14, 15)
    assert told["policies"] == [{"policy_id": "approve-refunds", "deciding": True, "reason": None}]
    assert told["atlas"] == {
        "atlas_id": "com.example.support",
        "version": "1.4.0",
        "digest": made.HASH,
        "kept": False,
    }


def test_an_event_of_the_session_has_no_call_and_its_own_neighbours() -> None:
    lines = made.chain(made.session(calls=0))
    told = explained(lines, 3)
    assert told["event"]["event_type"] == "context.injected"
    assert (told["call"], told["request"], told["decision"], told["atlas"], told["chain"]) == (
        None,
        None,
        None,
        None,
        [],
    )
    assert (told["previous"]["sequence"], told["next"]["sequence"]) == (2, len(lines) - 1)
    assert explained(lines, 0)["previous"] is None
    assert sequences(explained(lines, 2)["chain"]) == [1, 2]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_event_of_any_trace_can_be_explained(seed: int) -> None:
    story = tell(hostile.lines(seed))
    for event in story.events:
        told = explain(story, event, NOWHERE)
        canonical_bytes(told)
        assert told["event"] == event.to_dict()


@pytest.fixture
def trace(place: Place, server: CRARuntime) -> Path:
    """A session with a call that was denied; another after it."""
    session = server.create_session("ann", "Read what is there").session_id
    server.execute_blocking(session, "tool.delete", {})
    server.end_session(session)
    server.create_session("bob", "Something else")
    return place.data / "traces" / f"{session}.trace.jsonl"


def test_an_event_is_found_by_id_by_hash_and_by_place(place: Place, trace: Path) -> None:
    where = ("--data-dir", place.data)
    last = json.loads(trace.read_bytes().splitlines()[-2])
    found = [
        json.loads(cra("trace", "why", *which, *where, "--json").stdout)
        for which in ((last["event_id"],), (last["event_hash"],), (trace.name[:36], last["sequence"]))
    ]
    assert found[0] == found[1] == found[2]
    assert (found[0]["event"], found[0]["next"]) == (last, None)
    (policy,) = found[0]["policies"]
    assert policy == {"policy_id": "no-delete", "deciding": True, "reason": "Deleting is for people"}
    assert found[0]["atlas"]["kept"] is True
    told = cra("trace", "why", last["event_id"], *where)
    assert (told.returncode, told.stderr) == (0, "")
    rows = {row.split()[0]: " ".join(row.split()[1:]) for row in told.stdout.splitlines() if not row.startswith(" ")}
    assert rows["policy"] == "no-delete (deciding): Deleting is for people"
    assert rows["outcome"] == "not carried out"
    assert rows["next"] == "none in this span"
    assert "  <- this" in told.stdout


def test_an_id_in_a_payload_is_not_taken_for_the_event_of_that_id(place: Place) -> None:
    steps = [made.opening(), ("x.note", {"event_id": made.identifier(0xC0002)}, 0), ("x.note", {"n": 2}, 0)]
    folder = place.data / "traces"
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{made.SESSION}.trace.jsonl").write_bytes(b"".join(line + b"\n" for line in made.chain(steps)))
    found = cra("trace", "why", made.identifier(0xC0002), "--data-dir", place.data, "--json")
    assert json.loads(found.stdout)["event"]["sequence"] == 2


def test_what_is_no_event_is_said_to_be_none(place: Place, trace: Path) -> None:
    where = ("--data-dir", place.data)
    assert cra("trace", "why", "abc", *where).returncode == 2
    assert cra("trace", "why", made.SESSION, *where).returncode == 3
    beyond = cra("trace", "why", trace.name[:36], "99", *where)
    assert (beyond.returncode, "events, from 0" in beyond.stderr) == (3, True)
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join([*lines[:2], b"\x1b[2J\n", *lines[3:]]))
    unreadable = cra("trace", "why", trace.name[:36], "2", *where)
    assert (unreadable.returncode, unreadable.stdout, "\x1b" in unreadable.stderr) == (1, "", False)
    after = json.loads(cra("trace", "why", trace.name[:36], "3", *where, "--json").stdout)
    assert (after["event"], after["intact"]) == (json.loads(lines[3]), True)
    trace.write_bytes(b"".join([*lines[:3], lines[3].replace(b"tool.delete", b"tool.delude"), *lines[4:]]))
    changed = cra("trace", "why", json.loads(lines[3])["event_id"], *where, "--json")
    assert (changed.returncode, json.loads(changed.stdout)["intact"], "was changed" in changed.stderr) == (
        1,
        False,
        True,
    )
