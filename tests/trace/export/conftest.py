"""Traces with everything in them that breaks formats."""

from collections.abc import Iterator

import pytest

from cra_mcp.trace.event import Draft, Event, Head, format_timestamp, link, parse
from cra_mcp.trace.export.record import Record, Recorder

EVIL = "=cmd|'/C calc'!A0 \\ \"]\r\n<13>1 forged|CEF:0\tx=y\u2028\u202e\x00\x1b[31m ünï 日本 \U0001f600 | end"
START_NS = 1_760_000_000_123_456_000


def identifier(number: int) -> str:
    return f"0198{number:04x}-0000-7000-8000-{number:012x}"


def events() -> Iterator[tuple[str, dict[str, object], int, int | None]]:
    """``(type, payload, span, parent span)`` of one session: a call that ran, one denied, one left pending."""
    yield (
        "session.started",
        {
            "agent_id": EVIL,
            "goal": EVIL,
            "atlases": [],
            "policy_digest": "0" * 64,
            "tenant": "-2+3",
            "principal": {"subject": "@SUM(1)", "credential": "key"},
        },
        1,
        None,
    )
    yield "atlas.loaded", {"atlas_id": "com.example.x", "version": "1.0.0", "digest": "0" * 64}, 1, None
    yield "context.redacted", {"event_type": "action.requested", "found": [{"pointer": "/x", "detector": "card"}]}, 2, 1
    yield (
        "action.requested",
        {
            "action_id": "do.read",
            "parameters_hash": "1" * 64,
            "parameters": {"a": [1, 2.5, None, True, EVIL, 9007199254740991], EVIL: {}},
            "otel": {"trace_id": "a" * 32, "span_id": "b" * 16},
        },
        2,
        1,
    )
    yield (
        "policy.evaluated",
        {"policy_id": "p|1=2", "result": "allow", "action_id": "do.read", "determining": ["p|1=2"]},
        2,
        1,
    )
    yield "action.approved", {"action_id": "do.read", "resolution_id": identifier(9)}, 2, 1
    yield (
        "action.executed",
        {"action_id": "do.read", "execution_id": identifier(8), "duration_ms": 12.345, "result_hash": "2" * 64},
        2,
        1,
    )
    yield "action.requested", {"action_id": "do.delete", "parameters_hash": "3" * 64}, 3, 1
    yield (
        "policy.violated",
        {"policy_id": "no", "violation_type": "definition_changed", "action_id": "do.delete"},
        3,
        1,
    )
    yield "action.denied", {"action_id": "do.delete", "policy_id": "no", "reason": EVIL}, 3, 1
    yield "action.requested", {"action_id": "do.pay", "parameters_hash": "4" * 64}, 4, 1
    yield "approval.requested", {"approval_id": identifier(7), "action_id": "do.pay"}, 4, 1
    yield (
        "approval.rejected",
        {"approval_id": identifier(7), "action_id": "do.pay", "by": "ann", "channel": "cli"},
        5,
        1,
    )
    yield (
        "action.failed",
        {"action_id": "do.read", "error_code": "timeout", "error_message": EVIL, "duration_ms": 1},
        6,
        1,
    )
    yield "x.example." + "very-long-" * 5 + "name", {"n": 1}, 1, None
    yield "session.ended", {"reason": "completed", "duration_ms": 5}, 1, None


@pytest.fixture
def lines() -> list[bytes]:
    head: Head | None = None
    made: list[bytes] = []
    for number, (event_type, payload, span, parent) in enumerate(events()):
        head, line = link(
            head,
            Draft(event_type, payload, identifier(span), identifier(parent) if parent is not None else None),
            session_id=identifier(100),
            trace_id=identifier(101),
            event_id=identifier(200 + number),
            timestamp=format_timestamp(START_NS + number * 1_000_000),
        )
        made.append(line)
    return made


@pytest.fixture
def records(lines: list[bytes]) -> list[Record]:
    recorder = Recorder()
    return [recorder.record(line) for line in lines]


@pytest.fixture
def parsed(lines: list[bytes]) -> list[Event]:
    return [parse(line) for line in lines]
