"""Reading, following and checking traces from the command line."""

import json
import signal
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from tests.faces.cli.conftest import cra, started
from tests.faces.mcp.conftest import Place


@pytest.fixture
def trace(place: Place, server: CRARuntime) -> Path:
    """The trace of an ended session with a call that ran and one that was denied."""
    session = server.create_session("ann", "Read what is there")
    server.execute_blocking(session.session_id, "tool.add", {"a": 1, "b": 2})
    server.execute_blocking(session.session_id, "tool.delete", {})
    server.end_session(session.session_id)
    return place.data / "traces" / f"{session.session_id}.trace.jsonl"


def test_a_list_says_who_and_what_for_and_how_many_it_leaves_out(place: Place, server: CRARuntime) -> None:
    for number in range(3):
        server.create_session(f"agent-{number}", f"Goal {number}")
    listed = cra("trace", "list", "--data-dir", place.data, "--limit", "2")
    assert listed.returncode == 0
    head, first, second = listed.stdout.splitlines()
    assert head.split() == ["SESSION", "LAST", "WRITTEN", "AGENT", "GOAL"]
    assert ("agent-2  Goal 2" in first, "agent-1  Goal 1" in second, "live" in first) == (True, True, True)
    assert "1 older ones not listed" in listed.stderr
    whole = json.loads(cra("trace", "list", "--data-dir", place.data, "--limit", "0", "--json").stdout)
    assert [entry["goal"] for entry in whole["sessions"]] == ["Goal 2", "Goal 1", "Goal 0"]
    assert whole["total"] == 3


def test_an_empty_folder_is_no_error_to_list(place: Place) -> None:
    listed = cra("trace", "list", "--trace-dir", place.folder / "none")
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "no traces here yet" in listed.stderr
    assert json.loads(cra("trace", "list", "--trace-dir", place.folder / "none", "--json").stdout)["sessions"] == []


def test_a_trace_is_shown_as_a_table_or_as_the_stored_bytes(place: Place, trace: Path) -> None:
    where = ("--trace-dir", place.data / "traces")
    shown = cra("trace", "show", trace.name[:10], "--events", *where)
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = shown.stdout.splitlines()
    assert rows[0].split() == ["SEQ", "TIME", "EVENT", "ACTION", "DETAIL"]
    assert [row.split()[0] for row in rows[1:]] == [str(number) for number in range(len(rows) - 1)]
    assert "ann: Read what is there" in rows[1]
    assert any("action.denied" in row and "no-delete: Deleting is for people" in row for row in rows)
    stored = cra("trace", "show", *where, "--json")
    assert stored.stdout.encode() == trace.read_bytes()


def test_what_was_hidden_is_told_and_whose_a_session_is_stays_known(place: Place, server: CRARuntime) -> None:
    session = server.create_session("ann", "Write to ann@example.com").session_id
    shown = cra("trace", "show", session, "--events", "--data-dir", place.data).stdout
    assert "in session.started: email" in shown
    assert "ann@example.com" not in shown
    (listed,) = json.loads(cra("trace", "list", "--data-dir", place.data, "--json").stdout)["sessions"]
    assert (listed["agent_id"], listed["goal"].startswith("Write to [redacted:email:")) == ("ann", True)
    owner = server.owner_of(session)
    assert owner is not None


def test_an_event_that_can_not_be_read_is_shown_and_hides_none(place: Place, trace: Path) -> None:
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join([*lines[:2], b'{"a":"\xff\x1b[31m"}\n', *lines[3:]]))
    told = cra("trace", "show", "--data-dir", place.data)
    assert (told.returncode, "line 2" in told.stdout, "#3" in told.stdout) == (1, True, True)
    shown = cra("trace", "show", "--events", "--data-dir", place.data)
    assert shown.returncode == 1
    rows = shown.stdout.splitlines()[1:]
    assert len(rows) == len(lines)
    assert rows[2].split()[:2] == ["?", "unreadable"]
    assert "trace verify" in shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr
    with (place.folder / "out").open("w+b") as out:
        cra("trace", "show", "--data-dir", place.data, "--json", stdout=out)
        out.seek(0)
        assert out.read() == trace.read_bytes()


def test_tail_follows_a_session_to_its_end(place: Place, server: CRARuntime) -> None:
    session = server.create_session("ann", "Followed")
    with started("trace", "tail", "-f", "-n", "1", "--data-dir", place.data) as command:
        assert "session.started" in command.line(command.process.stdout)
        server.execute_blocking(session.session_id, "tool.add", {"a": 1, "b": 2})
        seen = ""
        while "action.executed" not in seen:
            seen = command.line(command.process.stdout)
        server.end_session(session.session_id)
        assert "session.ended" in command.line(command.process.stdout)
        assert command.end() == (0, "", "")
    again = cra("trace", "tail", "-f", "-n", "2", "--data-dir", place.data, "--json")
    assert [json.loads(line)["event_type"] for line in again.stdout.splitlines()] == [
        "action.executed",
        "session.ended",
    ]


def test_all_sessions_are_followed_together_and_those_that_begin_later_too(place: Place, server: CRARuntime) -> None:
    first = server.create_session("ann", "First").session_id
    with started("trace", "tail", "-f", "--all", "-n", "1", "--data-dir", place.data) as command:
        assert command.line(command.process.stdout).startswith(f"{first[:18]}  0 ")
        second = server.create_session("bob", "Second").session_id
        line = command.line(command.process.stdout)
        assert (line[:18], "bob: Second" in line) == (second[:18], True)
        server.end_session(first)
        line = command.line(command.process.stdout)
        assert (line[:18], "session.ended" in line) == (first[:18], True)
        command.process.send_signal(signal.SIGINT)
        code, _, err = command.end()
    assert (code, "Traceback" in err) == (130, False)
    last = cra("trace", "tail", "--all", "-n", "2", "--data-dir", place.data, "--json")
    assert [json.loads(text)["event_type"] for text in last.stdout.splitlines()] == ["session.started", "session.ended"]
    assert cra("trace", "tail", first, "--all", "--data-dir", place.data).returncode == 2


def test_following_is_ended_by_an_interrupt(place: Place, server: CRARuntime) -> None:
    server.create_session("ann", "Followed")
    with started("trace", "tail", "--follow", "--data-dir", place.data) as command:
        command.line(command.process.stdout)
        command.process.send_signal(signal.SIGINT)
        code, _, err = command.end()
    assert (code, "Traceback" in err) == (130, False)


def test_verify_names_the_first_bad_event(place: Place, trace: Path) -> None:
    where = ("--data-dir", place.data)
    good = cra("trace", "verify", *where)
    assert good.returncode == 0
    assert "beside the trace" in good.stderr
    assert good.stdout.startswith("ok  latest  ")
    lines = trace.read_bytes().splitlines(keepends=True)
    copy = place.folder / "copy.trace.jsonl"
    copy.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    other = place.folder / "01a1fbca-d011-720e-b030-f1034a65cba2.trace.jsonl"
    other.write_bytes(trace.read_bytes())
    checked = cra("trace", "verify", trace.name[:20], copy, other, *where, "--json")
    assert checked.returncode == 1
    report = json.loads(checked.stdout)
    assert report["ok"] is False
    assert [(item["ok"], item["code"], item["bad_index"]) for item in report["traces"]] == [
        (True, None, None),
        (False, "chain_broken", 5),
        (False, "session_mismatch", 0),
    ]
    told = cra("trace", "verify", copy)
    assert told.stdout == f"BROKEN  {copy}  event 5: chain_broken (removed)\n"
    assert told.stderr.startswith(f"error: {copy}: event 5: ")


def test_verify_holds_a_chain_to_an_event_that_is_known(trace: Path) -> None:
    lines = trace.read_bytes().splitlines(keepends=True)
    last = json.loads(lines[-1])
    receipt = f"{last['sequence']}:{last['event_hash']}"
    assert cra("trace", "verify", trace, "--expect", receipt).returncode == 0
    cut = trace.with_name("cut.trace.jsonl")
    cut.write_bytes(b"".join(lines[:-1]))
    assert cra("trace", "verify", cut).returncode == 0, "a chain alone can't show that its end was cut off"
    found = cra("trace", "verify", cut, "--expect", receipt)
    assert (found.returncode, "truncated" in found.stdout) == (1, True)
    other = cra("trace", "verify", trace, "--expect", f"{last['sequence']}:{'0' * 64}")
    assert (other.returncode, "chain_broken" in other.stdout) == (1, True)
    assert cra("trace", "verify", trace, cut, "--expect", receipt).returncode == 2
    assert cra("trace", "verify", trace, "--expect", "24").returncode == 2


def test_recovery_keeps_what_is_whole_and_spares_what_is_written(place: Place, trace: Path, server: CRARuntime) -> None:
    where = ("--data-dir", place.data)
    whole = cra("trace", "recover", trace.name[:36], *where)
    assert (whole.returncode, "nothing to do" in whole.stderr) == (0, True)
    data = trace.read_bytes()
    trace.write_bytes(data[:-20])
    report = json.loads(cra("trace", "recover", trace.name[:36], *where, "--json").stdout)
    assert (report["kept"], report["code"]) == (len(data.splitlines()) - 1, "truncated")
    assert data.startswith(trace.read_bytes() + (Path(report["set_aside_to"])).read_bytes())
    live = server.create_session("ann", "At work")
    refused = cra("trace", "recover", live.session_id, *where)
    assert (refused.returncode, "trace_locked" in refused.stderr) == (3, True)


def test_a_session_must_be_named_by_enough_of_its_id(place: Place, server: CRARuntime) -> None:
    ids = [server.create_session("ann", "").session_id for _ in range(2)]
    ambiguous = cra("trace", "show", ids[0][:4], "--data-dir", place.data)
    assert (ambiguous.returncode, "2 sessions begin with" in ambiguous.stderr) == (2, True)
    unknown = cra("trace", "show", "f", "--data-dir", place.data)
    assert (unknown.returncode, "no session begins with 'f'" in unknown.stderr) == (3, True)
    assert "hint: see `cra-mcp trace list`" in unknown.stderr
