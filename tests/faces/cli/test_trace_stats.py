"""``trace stats`` as a person and a script read it."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from cra_mcp.faces.cli.trace_stats import bar
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


@pytest.fixture
def traces(place: Place, server: CRARuntime) -> list[str]:
    """Two sessions with two calls that ran and one that was denied, each; ids, oldest first."""
    made = []
    for name in ("ann", "bo\x1bb"):
        session = server.create_session(name, "Read what is there").session_id
        server.execute_blocking(session, "tool.add", {"a": 1, "b": 2})
        server.execute_blocking(session, "tool.add", {"a": 1, "b": 3})
        server.execute_blocking(session, "tool.delete", {})
        server.end_session(session)
        made.append(session)
    return made


def test_calls_are_counted_by_what_was_asked_for(place: Place, traces: list[str]) -> None:
    where = ("--data-dir", place.data)
    one = json.loads(cra("trace", "stats", traces[0], *where, "--json").stdout)
    assert (one["sessions"], one["total"]["calls"], one["by"]) == (1, 3, "action")
    assert [(group["key"], group["calls"]) for group in one["groups"]] == [("tool.add", 2), ("tool.delete", 1)]
    every = cra("trace", "stats", "--all", "--by", "agent", *where)
    assert (every.returncode, every.stderr) == (0, "")
    first, *_, head, ann, bob = every.stdout.splitlines()
    assert first.startswith("2 sessions, ")
    assert "6 calls: 4 executed, 0 failed, 2 denied" in first
    assert head.split()[:6] == ["AGENT", "CALLS", "DECIDED", "EXECUTED", "FAILED", "DENIED"]
    assert (ann.split()[:2], bob.split()[:2]) == (["ann", "3"], ["bo\\u{1b}b", "3"])
    assert ann.endswith("#" * 24)
    later = json.loads(cra("trace", "stats", "--all", "--since", "2999-01-01", *where, "--json").stdout)
    assert (later["total"]["events"], later["groups"]) == (0, [])


def test_without_an_index_the_traces_themselves_are_counted(place: Place) -> None:
    store = ("--store", f"sqlite:{place.data / 'traces.sqlite3'}")
    cra("execute", "tool.add", "--args", '{"a":1,"b":2}', "--atlas", place.atlas, *store, "--data-dir", place.data)
    found = json.loads(cra("trace", "stats", "--all", *store, "--json").stdout)
    assert (found["sessions"], found["total"]["calls"], found["total"]["executed"]) == (1, 1, 1)
    assert not list(Path(place.data).rglob("index.sqlite3"))


def test_what_can_not_be_counted_by_is_wrong_usage(place: Place, traces: list[str]) -> None:
    where = ("--data-dir", place.data)
    assert cra("trace", "stats", "--all", traces[0], *where).returncode == 2
    assert cra("trace", "stats", "--since", "soon", *where).returncode == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_are_as_long_as_what_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stdout(Terminal()):
        assert [bar(value, 24) for value in (0, 1, 12, 24)] == ["", "█", "█" * 12, "█" * 24]
        assert (bar(1, 24 * 8), bar(1, 10**9), bar(3, 24 * 8)) == ("▏", "▏", "▍")
        monkeypatch.setenv("TERM", "dumb")
        assert bar(12, 24) == "#" * 12
    with redirect_stdout(io.StringIO()):
        assert (bar(1, 10**9), bar(24, 24), bar(0, 0)) == ("#", "#" * 24, "")
