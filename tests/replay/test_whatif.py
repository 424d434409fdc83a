"""Past calls decided by other policies."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.policy.model import ActionFacts
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.replay.recorded import RecordedSession
from cra_mcp.replay.whatif import Changed, Tally, what_if
from cra_mcp.trace.event import parse
from tests.replay.conftest import FIRST, History, Maker, load, revised

CHANGES = {
    "nothing": ([], []),
    "a new deny": ([], [{"policy_id": "new", "type": "deny", "actions": ["doc.list"]}]),
    "a deny gone": (["no-night-delete", "only-bots"], []),
    "an allow gone": (["read-all"], []),
    "approval gone": (["ask", "ask-critical"], []),
    "approval wanted": ([], [{"policy_id": "new", "type": "require_approval", "actions": ["doc.*"]}]),
    "a tighter limit": (
        ["slow"],
        [
            {
                "policy_id": "new",
                "type": "rate_limit",
                "actions": ["doc.*"],
                "parameters": {"max_calls": 1, "window_seconds": 60},
            }
        ],
    ),
    "a limit for everybody": (
        [],
        [
            {
                "policy_id": "new",
                "type": "rate_limit",
                "actions": ["*"],
                "parameters": {"max_calls": 3, "window_seconds": 60, "scope": "global"},
            }
        ],
    ),
    "limits gone": (["slow", "slow-pay", "slow-agent"], []),
}


def _sources(history: History) -> list[tuple[int, Callable[[], RecordedSession]]]:
    read = [read_session(lines) for lines in history.traces.values()]
    return sorted(((each.started_us, lambda each=each: each) for each in read), key=lambda entry: entry[0])


def _changed(history: History, new: Atlas) -> tuple[list[Changed], Tally]:
    tally = Tally()
    library = Library(history, lambda catalogue: catalogue.with_replaced(new.atlas_id, new))
    return list(what_if(_sources(history), library, tally)), tally


def _expected(history: History, new: Atlas, oracle: ModuleType) -> set[tuple[str, int]]:
    """Calls that the literal specification decides otherwise, found from the bare events."""
    world = oracle.World(
        list(new.policies),
        [ActionFacts(action.action_id, action.risk_tier, action.capabilities) for action in new.actions],
        new.policy_set.default_effect,
    )
    calls = []
    for session_id, lines in history.traces.items():
        events = [parse(line) for line in lines]
        facts = read_session(lines).facts
        for event in events:
            if event.event_type == "action.requested":
                span = [other for other in events if other.span_id == event.span_id]
                calls.append((_instant(span), session_id, event, span, facts))
    charges: list[tuple] = []
    differing = set()
    for at_us, session_id, event, span, facts in sorted(calls, key=lambda call: call[0]):
        was = _was(span)
        now, _ = oracle.foresee(world, event.payload["action_id"], facts, at_us)
        if now["effect"] != "deny":  # else it is refused whatever its arguments, and whatever room is left
            now = oracle.decide(world, event.payload["action_id"], facts, at_us, charges)
        verdict = now["effect"]
        consented = any(other.event_type == "approval.granted" for other in span)
        limited = verdict == "deny" and now["basis"] == "rate_limit"
        if (verdict != "deny" or limited) and not _is_good(event.payload["parameters"]):
            verdict = "invalid"
        elif verdict == "require_approval" and consented:
            now = oracle.decide(world, event.payload["action_id"], facts, at_us, charges, approved=True)
            verdict = "deny" if now["effect"] == "deny" else verdict
        if verdict in {"allow", "require_approval"} and now["effect"] == "allow":
            charges += oracle.charge(
                world, event.payload["action_id"], now, facts, at_us, charges=charges, args={}, result=None
            )
        if verdict != was:
            differing.add((session_id, event.sequence))
    return differing


def _instant(span: list) -> int:
    from datetime import datetime  # noqa: PLC0415 - beside what it explains

    text = next((other.payload["at"] for other in span if "at" in other.payload), span[0].timestamp)
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def _is_good(parameters: object) -> bool:
    return isinstance(parameters, dict) and set(parameters) <= {"n"} and type(parameters.get("n", 1)) is int


def _was(span: list) -> str:
    if any(other.payload.get("violation_type") == "invalid_parameters" for other in span):
        return "invalid"
    results = [other.payload["result"] for other in span if other.event_type == "policy.evaluated"]
    if results and results[-1] == "deny":
        return "deny"
    asked = any(other.event_type.startswith("approval.") for other in span)
    return "require_approval" if asked or not results else results[0]


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_the_calls_the_literal_specification_names_are_listed(
    tmp_path: Path, oracle: ModuleType, change: str
) -> None:
    new = revised(FIRST, *CHANGES[change])
    listed = 0
    for seed in range(3):
        history = Maker(seed, tmp_path).make(4, 20, live=False, plain=True)
        found, tally = _changed(history, new)
        expected = _expected(history, new, oracle)
        assert {(each.session_id, each.sequence) for each in found} == expected
        assert tally.changed == len(found) == sum(tally.by_policy.values())
        assert tally.calls == sum(
            line.count(b'"event_type":"action.requested"') for lines in history.traces.values() for line in lines
        )
        listed += len(found)
    assert (listed > 0) == (change != "nothing")


def test_changes_come_in_the_order_of_time(tmp_path: Path) -> None:
    history = Maker(5, tmp_path).make(5, 20, live=False, plain=True)
    found, _ = _changed(history, revised(FIRST, *CHANGES["a new deny"]))
    assert len(found) > 3
    assert [each.requested_us for each in found] == sorted(each.requested_us for each in found)


def test_a_change_says_who_what_and_why(tmp_path: Path) -> None:
    history = Maker(5, tmp_path).make(2, 20, live=False, plain=True)
    found, tally = _changed(history, revised(FIRST, *CHANGES["a new deny"]))
    told = found[0].to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["action_id"] == "doc.list"
    assert told["now"] == {"verdict": "deny", "policy_id": "new", "reason": "policy new denies this action"}
    assert told["agent_id"] in {"bot-1", "guest-2", "bot-7"}
    assert set(tally.by_change) <= {"allow -> deny", "invalid -> deny"}
    assert tally.to_dict()["sessions"] == 2


def test_an_action_the_new_atlas_does_not_have_is_denied(tmp_path: Path) -> None:
    history = Maker(5, tmp_path).make(2, 20, live=False, plain=True)
    smaller = load({**FIRST, "actions": FIRST["actions"][1:], "capabilities": [], "policies": []})
    found, _ = _changed(history, smaller)
    gone = [each for each in found if each.action_id == "doc.read"]
    assert gone
    assert {(each.now, each.now_policy) for each in gone} == {("deny", "undeclared")}


def test_sessions_are_read_when_their_time_comes(tmp_path: Path) -> None:
    first = Maker(1, tmp_path).make(1, 10, live=False, plain=True)
    later = Maker(2, tmp_path).make(1, 10, live=False, plain=True)
    history = History(
        {**first.traces, **later.traces}, {**first.atlases, **later.atlases}, {**first.overlays, **later.overlays}
    )
    read: list[str] = []

    def source(session: RecordedSession) -> tuple[int, Callable[[], RecordedSession]]:
        def reader() -> RecordedSession:
            read.append(session.session_id)
            return session

        return session.started_us, reader

    sources = sorted((source(read_session(lines)) for lines in history.traces.values()), key=lambda entry: entry[0])
    changes = what_if(sources, Library(history, _deny_all), Tally())
    next(changes)
    assert len(read) == 1
    list(changes)
    assert len(read) == 2


def _deny_all(catalogue: Catalogue) -> Catalogue:
    everything = [{"policy_id": "all", "type": "deny"}]
    return catalogue.with_replaced("com.example.first", revised(FIRST, add=everything))
