"""An index that somebody else changed, put there or linked to says nothing: lists, searches, counts and lookups are the traces'."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from cra_mcp import RuntimeConfig
from cra_mcp.compose import open_index
from cra_mcp.trace.event import Draft, parse
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.search import Query, list_sessions, locate, search
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.statistics import Statistics
from tests.faces.cli.conftest import cra

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab02"
Change = Callable[[Path], object]


class Place:
    """Traces of two sessions, and the index a command made of them."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.traces = folder / "data" / "traces"
        database = folder / "t.sqlite3"
        store = f"sqlite:{database}" if kind == "sqlite" else "file"
        self.config = RuntimeConfig(data_dir=folder / "data", store=store)
        writer = SqliteStore(database) if kind == "sqlite" else FileStore(self.traces)
        for session, agent in ((SESSION, "ann"), (OTHER, "ben")):
            writer.begin(session, session)
            started = {"agent_id": agent, "goal": "g", "atlases": [], "policy_digest": "0" * 64}
            writer.append(session, [Draft("session.started", started, session)])
            for number in range(3):
                said = {"action_id": f"pay.{number}", "reason": "never", "policy_id": "no"}
                writer.append(session, [Draft("action.denied", said, session)])
        self.event_id = parse(writer.read(SESSION)[2]).event_id
        writer.close()
        self.answers()
        path = database.with_name("t.sqlite3.index.sqlite3") if kind == "sqlite" else self.traces / "index.sqlite3"
        assert path.is_file()
        self.index = path

    def answers(self) -> list[object]:
        """What every question to the index is answered with."""
        index = open_index(self.config)
        assert index is not None
        index.update()
        counted = Statistics("agent")
        try:
            with index.reading() as connection:
                counted.count_index(connection)
                found = search(connection, Query(decision="deny"))
                words = search(connection, Query(text="never"))
                return [
                    list_sessions(connection),
                    found,
                    words,
                    counted.total,
                    counted.groups(),
                    counted.sessions,
                    locate(connection, self.event_id) if hasattr(self, "event_id") else None,
                ]
        finally:
            index.close()


@pytest.fixture(params=["file", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def run(*statements: str) -> Change:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return change


def keep_times(change: Change) -> Change:
    def kept(path: Path) -> None:
        status = path.stat()
        change(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return kept


def by_copy(change: Change) -> Change:
    """In a copy, which then takes its place, as a trace folder from elsewhere brings one."""

    def copied(path: Path) -> None:
        copy = path.with_name("copy")
        shutil.copy2(path, copy)
        change(copy)
        copy.replace(path)

    return copied


def by_link(change: Change) -> Change:
    def linked(path: Path) -> None:
        copy = path.with_name("precious")
        shutil.copy2(path, copy)
        change(copy)
        path.unlink()
        path.symlink_to(copy)

    return linked


def by_journal(path: Path) -> None:
    """What SQLite rolls back: the pages of another index."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    connection = sqlite3.connect(other, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM events")
    shutil.copy2(f"{other}-wal", f"{path}-wal")
    connection.close()


def in_place(data: bytes) -> Change:
    def write(path: Path) -> None:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write((data * size)[:size])

    return write


DENIALS = "DELETE FROM events WHERE decision = 'deny'"
INVENTED = "INSERT INTO sessions VALUES (9, '01980000-0000-7000-8000-00000000ab09', 'eve', 'g', NULL, NULL, 4, 0, 9, 9)"
CHANGES: dict[str, Change] = {
    "denials deleted": run(DENIALS),
    "denials deleted, time kept": keep_times(run(DENIALS)),
    "denials become allowed": run("UPDATE events SET decision = 'allow', event_type = 'action.approved'"),
    "a session invented": run(INVENTED),
    "a session deleted": run("DELETE FROM sessions WHERE agent_id = 'ann'"),
    "agents forged": run("UPDATE sessions SET agent_id = 'root'"),
    "words deleted": run("INSERT INTO event_text (event_text) VALUES ('delete-all')"),
    "events point elsewhere": run("UPDATE events SET sequence = 99"),
    "texts for numbers": run("UPDATE sessions SET modified_ns = 'never', events = 'many'"),
    "nulls and bytes": run("UPDATE events SET duration_ms = X'00', policy_id = 5, action_id = X'FF'"),
    "huge numbers": run(
        "UPDATE sessions SET modified_ns = 9223372036854775807", "UPDATE parts SET identity = 9223372036854775807"
    ),
    "parts of odd types": run(
        "UPDATE parts SET indexed_to = 'x', last_line = 5", "UPDATE parts SET name = 5 WHERE session = 1"
    ),
    "no tables": run("DROP TABLE parts", "DROP VIEW event_list"),
    "a trigger": run(
        "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events WHERE decision = 'deny'; END", DENIALS
    ),
    "another version": run("PRAGMA user_version = 7"),
    "zeros": in_place(b"\0"),
    "text": in_place(b"no database "),
    "cut": lambda path: os.truncate(path, 5_000),
    "empty": lambda path: os.truncate(path, 0),
    "a journal beside it": by_journal,
    "a journal of nonsense": lambda path: Path(f"{path}-journal").write_bytes(
        b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600)
    ),
}


@pytest.mark.parametrize("way", [lambda change: change, by_copy, by_link], ids=["in place", "replaced", "linked"])
@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_was_changed_says_what_the_traces_say(
    place: Place, name: str, way: Callable[[Change], Change]
) -> None:
    good = place.answers()
    if way is not by_link or "journal" not in name:
        way(CHANGES[name])(place.index)
    assert place.answers() == good
    assert not place.index.is_symlink()
    precious = place.index.with_name("precious")
    assert place.answers() == good
    assert not precious.exists() or precious.stat().st_size >= 0


def test_what_a_link_points_to_is_not_written(place: Place, tmp_path: Path) -> None:
    good = place.answers()
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    place.index.unlink()
    place.index.symlink_to(target)
    assert place.answers() == good
    assert target.read_bytes() == b"precious"
    assert not place.index.is_symlink()


def test_commands_answer_from_the_traces_whatever_the_index_says(tmp_path: Path) -> None:
    place = Place(tmp_path, "file")
    asked = [("list",), ("stats", "--all"), ("search", "--decision", "deny"), ("why", place.event_id)]

    def ask() -> list[object]:
        done = [cra("trace", *words, "--json", "--data-dir", tmp_path / "data") for words in asked]
        assert [each.stderr for each in done if "Traceback" in each.stderr] == []
        return [(each.returncode, json.loads(each.stdout)) for each in done]

    good = ask()
    for name in ("denials deleted", "a session invented", "agents forged", "texts for numbers", "zeros"):
        CHANGES[name](place.index)
        assert ask() == good, name


def test_an_index_nobody_touched_is_not_made_anew(place: Place) -> None:
    before = place.index.stat()
    place.answers()
    after = place.index.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_trace_edited_in_place_is_read_anew(tmp_path: Path) -> None:
    place = Place(tmp_path, "file")
    path = place.traces / f"{SESSION}.trace.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"action_id":"pay.0"', b'"action_id":"nay.0"'))
    index = open_index(place.config)
    assert index is not None
    index.update()
    with index.reading() as connection:
        assert [each.session_id for each in search(connection, Query(action="pay.0"))] == [OTHER]
    index.close()


def test_files_of_other_names_in_the_folder_of_a_chain_are_no_part_of_it(tmp_path: Path) -> None:
    place = Place(tmp_path, "file")
    good = place.answers()
    folder = place.traces / f"{SESSION}.trace.d"
    folder.mkdir()
    shutil.copy2(place.traces / f"{OTHER}.trace.jsonl", folder / "0.jsonl")
    assert place.answers() == good
