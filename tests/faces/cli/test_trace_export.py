"""Exporting traces from the command line."""

import csv
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from cra_mcp.trace.export.format import FORMATS
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


@pytest.fixture
def traces(place: Place, server: CRARuntime) -> list[Path]:
    """Two ended sessions, each with a call that ran and one that was denied."""
    made = []
    for name in ("ann", "=bob"):
        session = server.create_session(name, "Read what is there").session_id
        server.execute_blocking(session, "tool.add", {"a": 1, "b": 2})
        server.execute_blocking(session, "tool.delete", {})
        server.end_session(session)
        made.append(place.data / "traces" / f"{session}.trace.jsonl")
    return made


def test_one_or_all_or_a_file_are_exported_as_they_are_stored(place: Place, traces: list[Path]) -> None:
    where = ("--data-dir", place.data)
    first, second = traces
    assert cra("trace", "export", first.name[:36], *where).stdout == first.read_text()
    assert cra("trace", "export", first, second, *where).stdout == first.read_text() + second.read_text()
    assert cra("trace", "export", "--all", *where).stdout == first.read_text() + second.read_text()
    assert cra("trace", "export", *where).stdout in {first.read_text(), second.read_text()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_to_a_new_file_of_its_owner_only(place: Place, traces: list[Path], name: str) -> None:
    output = place.folder / "out"
    arguments = ("trace", "export", "--all", "--format", name, "--output", output, "--data-dir", place.data)
    done = cra(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["sessions"], told["unreadable"], told["format"]) == (2, 0, name)
    assert told["events"] == sum(trace.read_bytes().count(b"\n") for trace in traces)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert output.stat().st_size > 0
    if name != "csv":
        return
    before = output.read_bytes()
    again = cra(*arguments)
    assert (again.returncode, output.read_bytes()) == (3, before), "nothing is overwritten"
    assert "is there already" in again.stderr
    assert [entry.name for entry in place.folder.iterdir() if entry.name.endswith(".part")] == []


def test_since_and_until_choose_events(place: Place, traces: list[Path]) -> None:
    where = ("--data-dir", place.data, "--all")
    whole = sum(trace.read_bytes().count(b"\n") for trace in traces)
    stamp = json.loads(traces[1].read_text().splitlines()[0])["timestamp"]
    later = cra("trace", "export", *where, "--since", stamp).stdout.splitlines()
    earlier = cra("trace", "export", *where, "--until", stamp).stdout.splitlines()
    assert later
    assert len(later) + len(earlier) == whole
    assert all(json.loads(line)["timestamp"] >= stamp for line in later)
    assert len(cra("trace", "export", *where, "--since", "2h").stdout.splitlines()) == whole
    assert cra("trace", "export", *where, "--since", "2999-01-01").stdout == ""
    rows = list(
        csv.DictReader(io.StringIO(cra("trace", "export", *where, "--since", stamp, "-f", "csv").stdout, newline=""))
    )
    assert {row["agent_id"] for row in rows} == {"'=bob"}, "the session's start is known though it is not exported"
    for bad in ("yesterday", "9999999w", "2026-13-01"):
        assert cra("trace", "export", *where, "--since", bad).returncode == 2


def test_what_cant_be_read_is_left_out_and_told(place: Place, traces: list[Path]) -> None:
    lines = traces[0].read_text().splitlines()
    broken = place.folder / "copy.trace.jsonl"
    broken.write_text("\n".join([lines[0], "nonsense", *lines[1:]]) + "\n")
    done = cra("trace", "export", broken, "--data-dir", place.data)
    assert done.returncode == 1
    assert done.stdout == traces[0].read_text()
    assert "1 event left out that can't be read" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["nobody"], 3), (["--all", "x"], 2), (["--json"], 2), (["--format", "xml"], 2), (["missing.jsonl"], 3)],
)
def test_wrong_use_is_told(place: Place, traces: list[Path], arguments: list[str], code: int) -> None:
    done = cra("trace", "export", *arguments, "--data-dir", place.data)
    assert (done.returncode, done.stdout) == (code, "")
    assert "error:" in done.stderr


def test_a_server_does_not_start_with_an_export_it_cant_use(place: Place) -> None:
    for spec in ("ftp://x", "otlp+http://user:secret@x"):
        refused = cra("serve", "--atlas", place.atlas, "--data-dir", place.data, "--export", spec)
        assert (refused.returncode, "invalid_export" in refused.stderr) == (3, True)
        assert "secret" not in refused.stderr


def test_a_trace_of_many_pages_is_exported_whole(place: Place, runtime_at: Callable[..., CRARuntime]) -> None:
    server = runtime_at(place)
    session = server.create_session("ann").session_id
    for number in range(5_100):
        server.record(session, "x.test.note", {"n": number})
    done = cra("trace", "export", session, "--data-dir", place.data)
    assert [json.loads(line)["sequence"] for line in done.stdout.splitlines()] == list(range(5_101))
