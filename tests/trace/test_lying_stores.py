"""A store whose names, rows or tables say something else than its events: it is told, and no reader skips or repeats one."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.event import Draft
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.retention import prune
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.statement import Rule
from cra_mcp.trace.store import TraceStore
from tests.trace.test_attacks import EVENTS, OTHER, SESSION, Place

BAD_ID = "not an id\x1b[2J\u202e"


@pytest.fixture
def files(tmp_path: Path) -> Place:
    place = Place("file", tmp_path / "traces", tmp_path / "copies")
    place.copies.mkdir()
    place.write()
    return place


@pytest.fixture
def rows(tmp_path: Path) -> Place:
    place = Place("sqlite", tmp_path / "traces", tmp_path / "copies")
    place.copies.mkdir()
    place.write()
    return place


def change(place: Place, *statements: str) -> None:
    connection = sqlite3.connect(place.database, isolation_level=None)
    for statement in statements:
        connection.execute(statement, {"session": SESSION, "bad": BAD_ID})
    connection.close()


def paged(store: TraceStore, size: int) -> list[bytes]:
    """As exports and tails read a chain: each page from where the last ended."""
    found: list[bytes] = []
    while page := store.read(SESSION, after=len(found) - 1, limit=size):
        found += page
        assert len(found) <= 10 * EVENTS, "it never ends"
    return found


@pytest.mark.parametrize("lie", [-1, 1, 2, 1_000_000])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_file_with_another_number_is_told_and_nothing_is_skipped_or_repeated(
    files: Place, which: int, lie: int
) -> None:
    parts = sorted((files.folder / f"{SESSION}.trace.d").iterdir())
    number = int(parts[which].stem) + lie
    other = parts[which].with_name(f"{number:016d}.jsonl")
    if other.exists():
        other = parts[which].with_name(f"{number + 1:016d}.jsonl")
    parts[which].rename(other)
    store = FileStore(files.folder)
    whole = store.read(SESSION)
    assert len(whole) == EVENTS
    for size in (1, 2, 3, 7, EVENTS):
        assert paged(store, size) == whole
    code, bad = files.verify_all()
    assert (code, [each[0] for each in bad]) == (1, [SESSION])


def test_a_file_named_by_another_number_in_its_order_is_told_by_its_name(files: Place) -> None:
    last = max((files.folder / f"{SESSION}.trace.d").iterdir())
    last.rename(last.with_name(f"{999:016d}.jsonl"))
    assert files.verify_all() == (1, [(SESSION, "segment_misnamed", None)])
    told = next(each for each in files.report if each["trace"] == SESSION)
    assert f"{999:016d}.jsonl" in told["message"]
    last.with_name(f"{999:016d}.jsonl").rename(last)
    assert files.verify_all() == (0, [])


def test_an_earlier_file_that_lacks_an_event_makes_no_reader_repeat_one(files: Place) -> None:
    part = min((files.folder / f"{SESSION}.trace.d").iterdir())
    data = part.read_bytes()
    part.write_bytes(data[data.index(b"\n") + 1 :])
    store = FileStore(files.folder)
    whole = store.read(SESSION)
    assert len(whole) == EVENTS - 1
    for size in (1, 2, 3, 7):
        assert paged(store, size) == whole


@pytest.mark.parametrize("sequence", [5, EVENTS - 1])
def test_rows_with_other_numbers_are_neither_skipped_nor_repeated(rows: Place, sequence: int) -> None:
    moved = "UPDATE events SET sequence = sequence + 7 WHERE session_id = :session AND sequence >= "
    change(rows, f"{moved}{sequence}")
    store = SqliteStore(rows.database)
    whole = store.read(SESSION)
    assert len(whole) == EVENTS
    for size in (1, 2, 3, 7):
        assert paged(store, size) == whole
    store.close()


LOOSE = (
    "CREATE TABLE c2 AS SELECT * FROM chains", "DROP TABLE chains", "ALTER TABLE c2 RENAME TO chains",
    "CREATE TABLE e2 AS SELECT * FROM events", "DROP TABLE events", "ALTER TABLE e2 RENAME TO events",
)  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET line = 5 WHERE session_id = :session AND sequence = 3",
        "UPDATE events SET line = NULL WHERE session_id = :session AND sequence = 3",
        "UPDATE events SET line = 'text' WHERE session_id = :session AND sequence = 3",
        "UPDATE chains SET size_bytes = 'large', modified = NULL, writing = X'00' WHERE session_id = :session",
        "UPDATE chains SET modified = 7, size_bytes = NULL WHERE session_id = :session",
        "INSERT INTO chains VALUES (NULL, NULL, NULL, NULL)",
        "INSERT INTO chains VALUES (:bad, '2026', 1, 0)",
        "INSERT INTO chains VALUES (X'FF00', 5, 5, 5)",
    ],
)
def test_one_bad_row_does_not_keep_the_other_traces_from_being_verified(rows: Place, statement: str) -> None:
    change(rows, *LOOSE, statement)
    _, bad = rows.verify_all()
    names = {each["trace"]: each for each in rows.report}
    assert names[OTHER]["ok"]
    assert names[OTHER]["events"] == EVENTS
    assert len(bad) == (0 if statement.startswith("UPDATE chains") else 1)
    assert "\x1b" not in json.dumps(rows.report, ensure_ascii=False)


def test_events_no_chain_is_known_of_are_counted(rows: Place) -> None:
    change(rows, "DELETE FROM chains WHERE session_id = :session")
    assert rows.verify_all() == (1, [(SESSION, "orphaned_events", None)])
    assert f"{EVENTS} events" in next(each["message"] for each in rows.report if each["trace"] == SESSION)


FOREIGN = {
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",),
    "view": ("ALTER TABLE events RENAME TO real", "CREATE VIEW events AS SELECT * FROM real LIMIT 3"),
    "virtual table": ("CREATE VIRTUAL TABLE other USING fts5(a)",),
    "temporary names": ("CREATE VIEW chains2 AS SELECT * FROM chains",),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_database_with_what_acts_in_it_is_refused_by_readers_and_writers(
    rows: Place, what: str, tmp_path: Path
) -> None:
    change(rows, *FOREIGN[what])
    store = SqliteStore(rows.database)
    for call in (
        store.sessions,
        lambda: store.read(SESSION),
        lambda: store.begin(SESSION, SESSION),
        store.check,
        rows.verify_all,
    ):
        with pytest.raises(TraceUnavailableError) as caught:
            call()
        assert "virtual table" in caught.value.message
        assert caught.value.hint
    store.close()


def test_pruning_a_chain_whose_file_lies_about_its_number_stays_whole(tmp_path: Path) -> None:
    store = FileStore(tmp_path, bounds=Bounds(segment_bytes=500), clock_ns=lambda: 10**18)
    store.begin(SESSION, SESSION)
    for number in range(6):
        store.append(SESSION, [Draft("x.test.note", {"n": number}, SESSION)])
    store.close()
    last = max((tmp_path / f"{SESSION}.trace.d").iterdir())
    last.rename(last.with_name(f"{77:016d}.jsonl"))
    for path in tmp_path.rglob("*.jsonl"):
        os.utime(path, ns=(10**18, 10**18))
    (done,) = prune(tmp_path, Rule(1), 2 * 10**18)
    assert done.statement is not None
    assert done.statement["events"] == 6
