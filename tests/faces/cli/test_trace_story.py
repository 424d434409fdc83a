"""``trace show`` as a story: what a person reads of a session, whatever is in it."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp import CRARuntime
from cra_mcp.faces.cli.kept_atlases import KeptAtlases
from cra_mcp.faces.cli.telling import print_story
from cra_mcp.faces.cli.wording import duration
from tests.faces.cli.conftest import cra
from tests.faces.mcp.app import made
from tests.faces.mcp.conftest import Place
from tests.trace import hostile

NOWHERE = KeptAtlases(Path("/nowhere/at/all"))


def told(lines: list[bytes]) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        print_story(made.SESSION, lines, NOWHERE)
    return out.getvalue()


def blocks(text: str) -> list[str]:
    return [" ".join(block.split()) for block in text.split("\n\n")]


def test_each_call_says_what_was_decided_why_by_whom_and_how_it_ended() -> None:
    head, request, read, deleted, refunded, *_ = blocks(told(made.chain(made.session(calls=0))))
    assert "support-bot: Answer ticket 17 and refund the double charge under com.example.support 1.4.0" in head
    assert head.endswith("ended: completed 19 events; 1 request; 3 calls: 1 executed, 1 failed, 1 denied")
    assert "#1-2" in request
    assert "resolve Answer ticket 17" in request
    assert "denied ticket.delete (by deny-delete)" in request
    assert "decision allowed by allow-read outcome executed in 12.5 ms, 311 bytes" in read
    assert "deny-delete: Nothing is deleted through support: open a ticket instead. outcome not carried out" in deleted
    assert "approval granted by ann over elicitation (client_elicitation) after 7.3 ms" in refunded
    assert "outcome failed after 30 s: timeout: the payment service did not answer in 30 s" in refunded


def test_a_policy_that_wants_approval_is_told_with_the_reason_its_atlas_gives(place: Place, server: CRARuntime) -> None:
    session = server.create_session("ann", "Pay the bill").session_id
    server.execute_blocking(session, "tool.pay", {})
    shown = cra("trace", "show", "--data-dir", place.data)
    assert (shown.returncode, shown.stderr) == (0, "")
    last = blocks(shown.stdout)[-1]
    assert re.search(r"decision needs approval by [a-z-]+: \S+", last), last
    assert last.endswith("approval not answered outcome not carried out: it waits for approval")
    assert "its end is not recorded" in shown.stdout
    kept = next((place.data / "traces" / ".atlases").glob("*/atlas.json"))
    kept.write_text(kept.read_text() + " ")
    changed = blocks(cra("trace", "show", "--data-dir", place.data).stdout)[-1]
    assert re.search(r"decision needs approval by [a-z-]+ approval", changed), "a changed copy says nothing"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_in_a_trace_stops_its_story_or_steers_a_terminal(seed: int) -> None:
    lines = hostile.lines(seed)
    text = told(lines)
    assert all(part.isprintable() for part in text.split("\n"))
    assert f"\n  {len(lines)} event" in text
    for part in range(len(lines)):
        assert told(lines[part:])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = made.chain(made.session(calls=0))
    plain = told(lines)
    assert "\x1b" not in plain
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    with redirect_stdout(terminal):
        print_story(made.SESSION, lines, NOWHERE)
    assert "\x1b[31mdenied by deny-delete" in terminal.getvalue()
    assert re.sub(r"\x1b\[[0-9]+m", "", terminal.getvalue()) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    silent = Terminal()
    with redirect_stdout(silent):
        print_story(made.SESSION, lines, NOWHERE)
    assert silent.getvalue() == plain


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "unknown time"),
        (0.25, "0.25 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (61_000, "1 min 1 s"),
        (3_660_000, "1 h 1 min"),
    ],
)
def test_durations_are_said_as_people_say_them(ms: float | None, text: str) -> None:
    assert duration(ms) == text
