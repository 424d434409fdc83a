"""A trace as a story: what belongs together, what became of each call, and that nothing in a trace can stop it being told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.trace.event import Event
from cra_mcp.trace.payloads import between_ms
from cra_mcp.trace.story import Call, Request, Unreadable
from cra_mcp.trace.telling import tell
from tests.faces.mcp.app import made
from tests.trace import hostile

ATLAS = {"atlas_id": "com.example.support", "version": "1.4.0", "digest": made.HASH}


def types(events: list[Event]) -> list[str]:
    return [event.event_type for event in events]


def test_calls_stand_under_the_request_they_were_made_under_in_order() -> None:
    story = tell(made.chain(made.session(calls=2)))
    (request,) = story.requests
    assert types(request.events) == ["carp.request.received", "carp.resolution.completed"]
    assert [call.action_id for call in request.calls] == [call.action_id for call in story.calls]
    assert [(call.action_id, story.fate(call)) for call in story.calls][:3] == [
        ("ticket.get", "executed"),
        ("ticket.delete", "denied"),
        ("refund.create", "failed"),
    ]
    assert story.fates == {"executed": 3, "failed": 1, "denied": 1}
    assert (story.origin("agent_id"), story.ended is not None) == ("support-bot", True)
    denied = story.calls[1].decision
    assert denied is not None
    assert (denied.result, denied.policy_id, denied.violation) == ("deny", "deny-delete", "denied_action")
    assert denied.reason == "Nothing is deleted through support: open a ticket instead."


def test_a_call_stands_under_its_own_request_whatever_was_asked_meanwhile() -> None:
    def asked(number: int) -> list[made.Step]:
        ours = {"request_id": made.identifier(number)}
        return [
            ("carp.request.received", {**ours, "operation": "resolve", "goal": f"goal {number}"}, 0),
            ("carp.resolution.completed", {**ours, "resolution_id": made.identifier(number + 100)}, 0),
        ]

    steps = [made.opening(), *asked(1), *asked(2)]
    hidden = ("context.redacted", {"event_type": "action.requested", "found": []}, 1)
    wanted = {"action_id": "a.b", "parameters_hash": made.HASH, "resolution_id": made.identifier(101)}
    story = tell(made.chain([*steps, hidden, ("action.requested", wanted, 1), *made.denied(2, "c.d", "no")]))
    first, second = story.requests
    assert [types(call.events) for call in first.calls] == [["context.redacted", "action.requested"]]
    assert [call.action_id for call in second.calls] == ["c.d"], "one that names no resolution is under the latest"
    assert story.fates == {"denied": 1, "undecided": 1}


def test_an_approval_joins_the_call_that_asked_and_the_one_made_again() -> None:
    approval = {"approval_id": made.identifier(9), "action_id": "refund.create"}
    asks: list[made.Step] = [
        ("action.requested", {"action_id": "refund.create", "parameters_hash": made.HASH}, 1),
        ("approval.requested", approval, 1),
    ]
    granted = {**approval, "by": "ann", "channel": "cli", "grade": "local_cli", "comment": "fine"}
    waiting = tell(made.chain([made.opening(), *asks]))
    assert [waiting.fate(call) for call in waiting.calls] == ["waiting"]
    for settled, fates in (("granted", ["answered", "unfinished"]), ("rejected", ["denied", "denied"])):
        again: list[made.Step] = [
            ("action.requested", {"action_id": "refund.create", "parameters_hash": made.HASH}, 2),
            (f"approval.{settled}", granted, 2),
        ]
        if settled == "granted":
            again.append(("action.approved", {"action_id": "refund.create", **approval}, 2))
        story = tell(made.chain([made.opening(), *asks, *again]))
        assert [story.fate(call) for call in story.calls] == fates
        for call in story.calls:
            consent = story.consent(call)
            assert consent is not None
            assert (consent.status, consent.by, consent.comment) == (settled, "ann", "fine")
            assert (consent.asked, consent.settled) == (2, 4)
            assert consent.waited_ms == pytest.approx(14.6)


def test_a_writer_that_gives_calls_no_spans_of_their_own_is_read_by_where_each_begins() -> None:
    steps = [(name, payload, 1) for name, payload, _ in [*made.allowed(1, "a.b", {}), *made.denied(2, "c.d", "no")]]
    story = tell(made.chain([made.opening(), *steps]))
    assert [(call.action_id, story.fate(call)) for call in story.calls] == [("a.b", "executed"), ("c.d", "denied")]


def test_lines_that_are_no_events_are_told_where_they_stand() -> None:
    lines = made.chain(made.session(calls=1))
    broken = [*lines[:4], b"\xff{", *lines[5:]]
    story = tell(broken)
    assert [found.position for found in story.unreadable] == [4]
    (request,) = story.requests
    kinds = [type(part) for part in request.parts]
    assert kinds == [Event, Unreadable, Call, Call, Call, Call]
    assert len(story.events) == len(lines) - 1


def test_a_trace_without_its_beginning_is_told_as_far_as_it_goes() -> None:
    lines = made.chain(made.session(calls=0))
    for cut in range(len(lines)):
        story = tell(lines[cut:])
        assert len(story.events) == len(lines) - cut
        assert (story.started is None) == (cut > 0)
    assert [type(part) for part in tell(lines[3:]).parts] == [Event, Call, Call, Call]
    assert [type(part) for part in tell(lines[2:]).parts] == [Request]


def test_atlases_are_those_loaded_when_an_event_was_recorded() -> None:
    newer = {**ATLAS, "version": "1.5.0"}
    other = {**ATLAS, "atlas_id": "com.example.other"}
    steps: list[made.Step] = [
        made.opening(),
        ("atlas.unloaded", ATLAS, 0),
        ("atlas.loaded", {**newer, "replaces": "com.example.support"}, 0),
        ("atlas.loaded", other, 0),
        ("atlas.unloaded", newer, 0),
        ("atlas.loaded", {"atlas_id": 7}, 0),
    ]
    story = tell(made.chain(steps))
    found = [[f"{ref.atlas_id} {ref.version}" for ref in story.atlases_at(sequence)] for sequence in range(5)]
    support, support_15, also = "com.example.support 1.4.0", "com.example.support 1.5.0", "com.example.other 1.4.0"
    assert found == [[support], [], [support_15], [support_15, also], [also]]


def test_times_that_are_no_moments_or_run_backwards_have_no_distance() -> None:
    good = "2026-01-01T00:00:00.000000Z"
    assert between_ms(good, "2026-01-01T00:00:01.500000Z") == 1500
    assert between_ms(good, "2026-02-30T00:00:00.000000Z") is None
    assert between_ms("2026-01-01T00:00:00.000001Z", good) is None


@given(st.integers(0, 2**32))
def test_any_lines_make_a_story_that_leaves_none_out(seed: int) -> None:
    lines = hostile.lines(seed)
    story = tell(lines)
    assert len(story.events) + len(story.unreadable) == len(lines)
    told: list[object] = [story.started, story.ended]
    for part in story.parts:
        inner = [part, *part.parts] if isinstance(part, Request) else [part]
        for each in inner:
            told += each.events if isinstance(each, Call | Request) else [each]
    assert sorted(map(id, filter(None, told))) == sorted(map(id, [*story.events, *story.unreadable]))
    for call in story.calls:
        assert call.events
        assert (story.fate(call), call.decision, story.consent(call), call.duration_ms) is not None
    assert story.atlases_at(5) is not None
    json.dumps(story.fates)
