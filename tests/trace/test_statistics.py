"""Counts and times of traces: the index and the lines say the same, and it is what was recorded."""

import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.trace.index import TraceIndex
from cra_mcp.trace.index_source import FileSource
from cra_mcp.trace.statistics import By, Statistics, percentile
from tests.faces.mcp.app import made
from tests.trace import hostile

GROUPS: tuple[By, ...] = ("action", "agent", "policy", "decision", "hour")


def of_lines(traces: Sequence[list[bytes]], by: By = "action", since: str | None = None) -> Statistics:
    counted = Statistics(by)
    for lines in traces:
        counted.count_lines(lines, since=since)
    return counted


def of_index(folder: Path, by: By, sessions: list[str] | None = None, since: str | None = None) -> Statistics:
    counted, index = Statistics(by), TraceIndex(FileSource(folder))
    index.update()
    with index.reading() as connection:
        counted.count_index(connection, sessions=sessions, since=since)
    index.close()
    return counted


def write(folder: Path, number: int, lines: list[bytes]) -> str:
    session_id = made.identifier(0x5E55 + number)
    (folder / f"{session_id}.trace.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return session_id


def said(counted: Statistics) -> tuple[object, ...]:
    return counted.total, counted.groups(), counted.sessions, counted.unreadable


def test_what_happened_is_what_is_counted() -> None:
    counted = of_lines([made.chain(made.session(calls=4))] * 2)
    total = counted.total
    assert (counted.sessions, total.calls, total.executed, total.failed, total.denied) == (2, 14, 10, 2, 2)
    assert (total.asked, total.granted, total.refused, total.errors) == (2, 2, 0, 0)
    assert (total.p50_ms, total.p95_ms) == (16.0, 30_012)
    first, *_ = groups = counted.groups()
    assert (first.key, first.calls, first.p50_ms) == ("ticket.get", 4, 12.5)
    assert sum(group.calls or 0 for group in groups) == total.calls
    by_policy = {group.key: group for group in of_lines([made.chain(made.session(calls=0))], "policy").groups()}
    assert (by_policy["deny-delete"].denied, by_policy["deny-delete"].calls) == (1, None)
    assert (by_policy["approve-refunds"].asked, by_policy["approve-refunds"].executed) == (1, None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_the_index_and_the_lines_say_the_same_of_any_traces(seed: int) -> None:
    # A line that holds a line feed would be two in a file.
    traces = [[line for line in hostile.lines(seed + number) if b"\n" not in line] for number in range(3)]
    since = "2026-09-21T14:13:20.050000Z"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = [write(folder, number, lines) for number, lines in enumerate(traces)]
        for by in GROUPS:
            assert said(of_index(folder, by)) == said(of_lines(traces, by))
            assert said(of_index(folder, by, since=since)) == said(of_lines(traces, by, since))
            assert said(of_index(folder, by, ids[1:])) == said(of_lines(traces[1:], by))


def test_percentiles_are_the_nearest_rank() -> None:
    values = sorted(random.Random(7).random() for _ in range(1_000))
    assert percentile(values, 50) == statistics.median_low(values)
    assert percentile(values, 95) == values[949]
    assert (percentile([], 50), percentile([3.0], 50), percentile([3.0], 95)) == (None, 3.0, 3.0)


@pytest.mark.parametrize(("apart_h", "rows"), [(5, 6), (24 * 31 - 1, 24 * 31), (24 * 31, 2)])
def test_hours_without_an_event_are_counted_too_unless_they_are_very_many(apart_h: int, rows: int) -> None:
    lines = made.chain([made.opening(), ("x.later", {}, 0)], step_ns=apart_h * 3_600 * 10**9)
    hours = of_lines([lines], "hour").groups()
    assert (len(hours), hours[0].events, hours[-1].events) == (rows, 1, 1)
    assert all(hour.events == 0 for hour in hours[1:-1])
    assert [hour.key for hour in hours] == sorted(hour.key or "" for hour in hours)
