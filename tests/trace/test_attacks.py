"""Every row of the attack table of specs/trace.md, done to real traces in files and in a SQLite store.

The store writes the chain; checkpoints are signed and kept in a folder elsewhere; ``trace verify`` judges with the public key.
"""

import base64
import io
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from cra_mcp.errors import UnknownTraceError
from cra_mcp.faces.cli.evidence import gather
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.verifying import Found, Look, examine, verify
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, origin_of
from cra_mcp.trace.event import Draft
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.merkle import leaf_hash, root_of
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.store import TraceStore
from tests.trace.test_diagnosis import EVENTS, SESSION, SPEC, TABLE, Lines, chain, identifier, told, truncated

SIZES = (4, 8, EVENTS)
OTHER = identifier(7)


@dataclass
class Place:
    """One store with two chains, and the checkpoints of the first elsewhere."""

    kind: str
    folder: Path
    copies: Path
    key: SignerKey = field(default_factory=SignerKey.generate)
    report: list[dict[str, Any]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "traces.sqlite3"

    def open(self) -> TraceStore:
        now = iter(range(1_760_000_000_000_000_000, 1_770_000_000_000_000_000, 1_000))
        if self.kind == "sqlite":
            return SqliteStore(self.database, clock_ns=lambda: next(now))
        return FileStore(self.folder, clock_ns=lambda: next(now), bounds=Bounds(segment_bytes=1_500))

    def write(self) -> Lines:
        """The lines of the first chain as they were written."""
        store = self.open()
        for session in (SESSION, OTHER):
            store.begin(session, identifier(4))
            for number in range(EVENTS):
                store.append(session, [Draft("x.test.note", {"note": f"event {number}"}, identifier(2))])
        store.close()
        assert self.kind == "sqlite" or len(list(self.folder.rglob("*.trace.d/*"))) > 2
        return store.read(SESSION)

    def replace(self, lines: Lines, session: str = SESSION) -> None:
        """Put other lines in the place of a chain."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.database)) as connection, connection:
                connection.execute("DELETE FROM events WHERE session_id = ?", (session,))
                rows = [(session, number, line) for number, line in enumerate(lines)]
                connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
            connection.close()
        else:
            shutil.rmtree(self.folder / f"{session}.trace.d")
            (self.folder / f"{session}.trace.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))

    def delete(self) -> None:
        """Have a chain never have been."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.database)) as connection, connection:
                connection.execute("DELETE FROM events WHERE session_id = ?", (SESSION,))
                connection.execute("DELETE FROM chains WHERE session_id = ?", (SESSION,))
            connection.close()
        else:
            shutil.rmtree(self.folder / f"{SESSION}.trace.d")
            (self.folder / f"{SESSION}.trace.jsonl").unlink()

    def sign(self, lines: Lines, size: int, *, key: SignerKey | None = None, name: str = "") -> Path:
        """A checkpoint of the first events, kept elsewhere."""
        key = key or self.key
        root = root_of([leaf_hash(line) for line in lines[:size]])
        path = self.copies / f"{SESSION}.{size}{name}.checkpoint"
        path.write_bytes(key.sign(Checkpoint(origin_of(key.verifier.name, SESSION), size, root)))
        return path

    def judge(self, *checkpoints: Path) -> Found:
        """What ``trace verify`` finds, with the folder of checkpoints, or some, or (an empty path) none at all."""
        pool = gather(checkpoints or (self.copies,), [self.key.verifier]) if checkpoints != (Path(),) else None
        look = Look(pool, [self.key.verifier], sure=True)
        return examine(self.open(), SESSION, None, look, self.folder)

    def verify_all(self, *checkpoints: Path) -> tuple[int, list[tuple[str, str, int]]]:
        """The exit code of ``trace verify --all``, and what is wrong with which trace."""
        printed = io.StringIO()
        with pytest.raises(typer.Exit) as left, redirect_stdout(printed):
            verify(
                all_traces=True,
                checkpoint=list(checkpoints),
                key=[self.key.verifier.encode()],
                trace_dir=self.folder,
                store=f"sqlite:{self.database}" if self.kind == "sqlite" else "file",
                as_json=True,
            )
        self.report = json.loads(printed.getvalue())["traces"]
        bad = [each for each in self.report if not each["ok"]]
        return left.value.exit_code, [(each["trace"], each["code"], each["bad_index"]) for each in bad]

    def alone(self) -> Found:
        return self.judge(Path())


@pytest.fixture(params=["file", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made = Place(request.param, tmp_path / "traces", tmp_path / "copies")
    made.copies.mkdir()
    return made


@pytest.fixture
def lines(place: Place) -> Lines:
    written = place.write()
    for size in SIZES:
        place.sign(written, size)
    return written


def outcome(found: Found) -> tuple[object, ...] | None:
    """Kind, code and event, or what is wrong with the checkpoints themselves; None where nothing is."""
    if found.evidence.fault is not None:
        return (found.evidence.fault[0],)
    return told(found.diagnosis)


def test_what_nobody_touched_agrees_with_every_checkpoint(place: Place, lines: Lines) -> None:
    found = place.judge()
    assert (found.ok, found.diagnosis.events, found.diagnosis.covered) == (True, EVENTS, EVENTS)
    assert place.alone().ok


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.attack)
def test_what_is_done_to_a_chain_is_convicted_by_checkpoints_elsewhere_and_alone_as_the_table_says(
    place: Place, lines: Lines, row
) -> None:
    place.replace(row.do(lines))
    assert outcome(place.alone()) == row.alone
    assert outcome(place.judge()) == row.signed
    assert not place.judge(place.copies / f"{SESSION}.{EVENTS}.checkpoint").ok, "one is enough"


def delete(place: Place, lines: Lines) -> None:
    place.delete()
    with pytest.raises(UnknownTraceError):
        place.alone()
    assert place.verify_all() == (OK, [])
    found = [(OTHER, "checkpoint_missing", None), (SESSION, "truncated", 0)]  # nothing was signed of the other
    assert place.verify_all(place.copies) == (NO, found)


@pytest.mark.parametrize("is_known", [True, False], ids=["our key", "another's key"])
def test_a_trace_of_which_only_the_checkpoints_beside_it_are_left_is_truncated(
    place: Place, lines: Lines, is_known: bool
) -> None:
    beside = place.folder / f"{SESSION}.checkpoints"
    key = place.key if is_known else SignerKey.generate("someone.example/else")
    beside.write_bytes(place.sign(lines, 8, key=key, name="-beside").read_bytes() + b"\n")
    assert place.verify_all()[0] == (OK if is_known else NO)
    place.delete()
    assert place.verify_all() == (NO, [(SESSION, "truncated", 0)])
    beside.rename(beside.with_suffix(".timestamps"))
    assert place.verify_all() == (NO, [(SESSION, "truncated", 0)])


def test_checkpoints_of_another_store_in_the_same_folder_are_no_loss(place: Place, lines: Lines) -> None:
    (place.folder / f"{SESSION}.checkpoints").write_bytes(place.sign(lines, 8).read_bytes() + b"\n")
    names = place.folder / ".atlases" / ".databases"
    names.mkdir(parents=True)
    (names / "one").write_bytes(os.fsencode(place.database) + b"\n")
    other = Place("file" if place.kind == "sqlite" else "sqlite", place.folder, place.copies, place.key)
    with pytest.raises(UnknownTraceError, match="nothing was verified"):
        other.verify_all()
    place.delete()
    assert other.verify_all() == (NO, [(SESSION, "truncated", 0)])


def fork(place: Place, lines: Lines) -> None:
    """The signer keeps two histories, and shows each to somebody else."""
    branch = chain(note="other", after=lines[:5])
    ours, theirs = place.sign(lines, 10, name="-ours"), place.sign(branch, 10, name="-theirs")
    for shown, agreed, other in ((lines, ours, theirs), (branch, theirs, ours)):
        if shown is branch:
            place.replace(branch)
        assert place.alone().ok
        assert place.judge(agreed).ok
        for seen in ((ours, theirs), (other,)):
            kind, code, _ = outcome(place.judge(*seen)) or (None, None, None)
            assert (kind in {"forked", "rewritten"}, code) == (True, "checkpoint_mismatch")
        assert (outcome(place.judge(place.copies / f"{SESSION}.4.checkpoint", ours, theirs)) or ())[0] == "forked"


def replay_an_old_checkpoint(place: Place, lines: Lines) -> None:
    place.replace(truncated(lines)[:8])
    (place.folder / f"{SESSION}.checkpoints").write_bytes(
        (place.copies / f"{SESSION}.8.checkpoint").read_bytes() + b"\n"
    )
    assert place.alone().ok
    assert place.judge(place.copies / f"{SESSION}.8.checkpoint").diagnosis.covered == 8
    assert outcome(place.judge()) == ("truncated", "truncated", 8)


def forged_key(place: Place, lines: Lines) -> None:
    forger = SignerKey.generate(place.key.verifier.name)
    forged = chain(note="forged")
    place.replace(forged)
    assert place.alone().ok
    theirs = place.sign(forged, EVENTS, key=forger, name="-forged")
    assert outcome(place.judge(theirs)) == ("checkpoint_unsigned",)
    blob = forger.verifier.key_id + base64.b64decode(theirs.read_bytes().rpartition(b" ")[2])[4:]
    with_our_id = place.key.verifier.key_id + blob[4:]
    text = theirs.read_bytes().rpartition(b" ")[0]
    theirs.write_bytes(text + b" " + base64.b64encode(with_our_id) + b"\n")
    assert outcome(place.judge(theirs)) == ("checkpoint_forged",)
    assert not place.judge().ok


def stripped_signature(place: Place, lines: Lines) -> None:
    place.replace(chain(note="forged"))
    assert place.alone().ok
    path = place.sign(chain(note="forged"), EVENTS)
    body = path.read_bytes().partition(b"\n\n")[0]
    for rest, code in (
        (b"\n", "malformed_checkpoint"),
        ("\n\n\u2014 other AAAAAAAA\n".encode(), "checkpoint_unsigned"),
    ):
        path.write_bytes(body + rest)
        assert outcome(place.judge(path)) == (code,)
        assert not place.judge().ok


OTHERS: dict[str, Callable[[Place, Lines], None]] = {
    "delete a whole trace": delete,
    "fork: two histories of one session, each shown to someone else": fork,
    "replay an old checkpoint": replay_an_old_checkpoint,
    "forged key": forged_key,
    "stripped signature": stripped_signature,
}


@pytest.mark.parametrize("attack", OTHERS)
def test_what_is_done_to_checkpoints_or_to_all_of_a_trace_is_convicted_by_those_elsewhere(
    place: Place, lines: Lines, attack: str
) -> None:
    OTHERS[attack](place, lines)


def test_every_row_of_the_page_is_an_attack_that_is_tried() -> None:
    page = SPEC.read_text().partition("### What was done to it")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+?) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    assert {attack for attack, _ in rows[1:]} == {row.attack for row in TABLE} | OTHERS.keys()
    assert {attack for attack, alone in rows[1:] if alone == "**not seen**"} == {
        row.attack for row in TABLE if row.alone is None
    } | OTHERS.keys()


@pytest.mark.parametrize(
    ("change", "alone"),
    [
        ("UPDATE events SET sequence = sequence + 100 WHERE sequence > 5", None),
        ("UPDATE events SET sequence = 99 WHERE sequence = 5", ("reordered", "chain_broken", 5)),
        ("DELETE FROM events WHERE sequence = 5", ("removed", "chain_broken", 5)),
        ("UPDATE events SET session_id = 'x' || session_id WHERE sequence = 0", ("removed", "invalid_genesis", 0)),
    ],
)  # fmt: skip
def test_what_only_a_database_can_have_done_to_it_is_seen_too(tmp_path: Path, change: str, alone: object) -> None:
    """Rows moved by their keys; a change of keys that leaves the order as it is changes no line and so no chain."""
    place = Place("sqlite", tmp_path / "traces", tmp_path / "copies")
    place.copies.mkdir()
    lines = place.write()
    place.sign(lines, EVENTS)
    with closing(sqlite3.connect(place.database)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(change)
    connection.close()
    assert outcome(place.alone()) == alone
    assert place.judge().ok is (alone is None)
