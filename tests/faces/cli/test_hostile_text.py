"""What an agent, a trace or a file name says never steers a terminal and never passes for a line of ours."""

import os
import pty
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from cra_mcp import CRARuntime
from tests.faces.cli.conftest import PATIENCE_S, cra
from tests.faces.mcp.conftest import Place, environment
from tests.forks.command import forked

EVIL = "x\x1b[2J\u202egnp\u2028ok  forged\u2029\u0085\u200b\u2066y\nok  forged line"
"""Clears the screen, turns the direction of reading, hides, and breaks lines in every way."""

READING = [
    ("trace", "list"),
    ("trace", "show", "latest"),
    ("trace", "show", "latest", "--events"),
    ("trace", "show", "latest", "--json"),
    ("trace", "why", "latest", "2"),
    ("trace", "stats", "--all", "--by", "agent"),
    ("trace", "search", "--agent", EVIL),
    ("trace", "tail", "--all"),
    ("trace", "tail", "--all", "--json"),
    ("trace", "verify", "--all"),
    ("trace", "export", "latest", "--format", "jsonl"),
    ("trace", "report", "latest"),
    ("trace", "list", "--json"),
    ("replay", "--all"),
    ("pending",),
    ("pending", "--json"),
    ("freeze", "--list"),
]


@pytest.fixture
def hostile(place: Place, server: CRARuntime) -> Place:
    """A data folder in which everything a caller can choose is hostile."""
    server.freeze("agent", f"frozen {EVIL}", reason=EVIL)
    session = server.create_session(EVIL, EVIL).session_id
    server.execute_blocking(session, "tool.echo", {EVIL: EVIL})
    server.execute_blocking(session, EVIL, {})
    server.execute_blocking(session, "tool.pay", {EVIL: EVIL})
    return place


def raw(text: str) -> list[str]:
    """The characters of a text that nobody sees or that steer; colours of ours aside."""
    for colour in ("0", "1", "2", "31", "32", "33"):
        text = text.replace(f"\x1b[{colour}m", "")
    return [part for part in text if part not in "\n " and unicodedata.category(part)[0] in "CZ"]


def in_terminal(*arguments: str | Path) -> str:
    """All that a command writes when a person runs it in a terminal."""
    person, own = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *forked(*arguments)], stdin=subprocess.DEVNULL, stdout=own, stderr=own, env=environment()
    )
    os.close(own)
    shown = b""
    try:
        while True:
            try:
                data = os.read(person, 65_536)
            except OSError:  # the command has ended and so has its side of the terminal
                break
            if not data:
                break
            shown += data
    finally:
        os.close(person)
        process.wait(PATIENCE_S)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", READING, ids=lambda command: " ".join(command)[:40])
def test_a_terminal_is_never_steered(hostile: Place, command: tuple[str, ...]) -> None:
    shown = in_terminal(*command, "--data-dir", hostile.data)
    assert shown
    assert "Traceback" not in shown
    assert raw(shown) == []
    assert not [line for line in shown.split("\n") if line.startswith("ok  forged")]


def test_a_table_for_a_spreadsheet_does_not_steer_a_terminal(hostile: Place) -> None:
    """Its line ends are CRLF, and line feeds within quotes belong to a value."""
    shown = in_terminal("trace", "export", "latest", "--format", "csv", "--data-dir", hostile.data)
    assert raw(shown) == []
    assert "\\u{d}" not in shown


def test_a_file_name_is_no_line_of_ours(place: Place, server: CRARuntime, tmp_path: Path) -> None:
    session = server.create_session("ann", "Read").session_id
    server.end_session(session)
    trace = next(place.data.rglob(f"{session}.trace.jsonl"))
    broken = tmp_path / "a\nok  everything is well\u202e\x1b[31m.trace.jsonl"
    shutil.copy(trace, broken)
    broken.write_bytes(broken.read_bytes().replace(b'"Read"', b'"Rest"'))
    for command in (("trace", "verify"), ("trace", "show"), ("replay",), ("trace", "diff", str(trace))):
        done = cra(*command, str(broken), "--data-dir", place.data)
        for text in (done.stdout, done.stderr):
            assert raw(text) == []
            assert "\x1b" not in text
            assert not [line for line in text.split("\n") if line.lstrip().startswith("ok")], (command, text)


def test_what_is_piped_is_exact(hostile: Place) -> None:
    """Stored lines come out as they were hashed; only a terminal gets them escaped."""
    file = max(hostile.data.rglob("*.trace.jsonl"), key=lambda path: path.name)
    assert cra("trace", "export", "latest", "--format", "jsonl", "--data-dir", hostile.data).stdout == file.read_text(
        "utf-8"
    )
