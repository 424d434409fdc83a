"""An index over a SQLite store says what the store says, as one over files does; and finds an event by its id or hash."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cra_mcp.compose import open_index, open_store
from cra_mcp.errors import TraceUnavailableError, UnknownTraceError
from cra_mcp.faces.cli.finding import find_event
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import Draft, parse
from cra_mcp.trace.index import TraceIndex, Update
from cra_mcp.trace.search import Query, list_sessions, locate, search
from cra_mcp.trace.store import TraceStore

TRACE = "01980000-0000-7000-8000-000000000004"
START_NS = 1_767_323_045_000_000_000


def session_id(number: int) -> str:
    return f"01980000-0000-7000-8000-{number:012x}"


def started(agent: str = "ann", goal: str = "Something") -> Draft:
    payload: dict[str, object] = {"agent_id": agent, "goal": goal, "atlases": [], "policy_digest": "0" * 64}
    return Draft("session.started", payload, TRACE)


def note(text: str) -> Draft:
    return Draft("x.test.note", {"note": text}, TRACE)


class World:
    """A store of one kind that grows, and its index."""

    def __init__(self, config: RuntimeConfig, path: Path) -> None:
        self.config = config
        self.path = path
        self.store: TraceStore = open_store(config)
        self.index: TraceIndex = open_index(config) or pytest.fail("no index")

    def write(self, number: int, *drafts: Draft) -> None:
        self.store.begin(session_id(number), TRACE)
        for draft in drafts:
            self.store.append(session_id(number), [draft])

    def update(self) -> Update:
        done = self.index.update()
        assert done is not None
        return done

    def change(self, statement: str) -> None:
        """Change the database, as its owner could."""
        self.store.close()
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute(statement)
        connection.close()
        self.store = open_store(self.config)

    def check(self) -> None:
        """The index says what the store says, and one made anew says the same."""
        plain = [
            (info.session_id, event.sequence, event.timestamp, event.event_type, event.event_id)
            for info in self.store.sessions()
            for event in map(parse, self.store.read(info.session_id))
        ]
        for _ in range(2):
            with self.index.reading() as connection:
                found = search(connection, Query(), limit=100_000)
                listed = list_sessions(connection)
                places = [locate(connection, each.event_id or "") for each in found]
            rows = [(each.session_id, each.sequence, each.timestamp, each.event_type, each.event_id) for each in found]
            assert sorted(rows) == sorted(plain)
            assert places == [[(each.session_id, each.sequence)] for each in found]
            assert {(each.session_id, each.size_bytes, each.modified) for each in listed} == {
                (info.session_id, info.size_bytes, info.modified) for info in self.store.sessions()
            }
            assert [self.index.is_live(info.session_id) for info in self.store.sessions()] == [
                info.live for info in self.store.sessions()
            ]
            self.index.rebuild()


def make(tmp_path: Path, kind: str) -> World:
    now = iter(range(START_NS, START_NS * 2, 1_000_000_000))
    path = tmp_path / "deep" / "all.sqlite3"
    store = f"sqlite:{path}" if kind == "sqlite" else "file"
    return World(RuntimeConfig(data_dir=tmp_path, store=store, clock_ns=lambda: next(now)), path)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path, "sqlite")
    yield made
    made.store.close()
    made.index.close()


@pytest.fixture(params=["file", "sqlite"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = make(tmp_path, request.param)
    yield made
    made.store.close()
    made.index.close()


def test_what_grows_is_added_and_nothing_is_read_twice(world: World) -> None:
    assert world.index.update() == Update()
    assert not world.path.parent.exists()
    world.write(1, started(), *map(note, "abc"))
    world.write(2)
    assert world.update().added == 4
    assert world.update() == Update()
    world.write(1, note("d"))
    world.write(2, started("bob"))
    seen: list[tuple[int, int]] = []
    assert world.index.update(lambda done, total: seen.append((done, total))) == Update(2)
    assert seen[-1] == (2, 2)
    world.check()
    assert sorted(path.name for path in world.path.parent.glob("*.index.*")) == ["all.sqlite3.index.sqlite3"]


@pytest.mark.parametrize(
    ("statement", "removed", "added"),
    [
        ("DELETE FROM events WHERE session_id LIKE '%01' AND sequence > 1", 5, 2),
        (
            "UPDATE events SET line = CAST(replace(CAST(line AS TEXT), 'four', 'five') AS BLOB) WHERE sequence = 4",
            5,
            5,
        ),
        ("DELETE FROM chains WHERE session_id LIKE '%01'", 5, 0),
        ("UPDATE events SET line = CAST('no event' AS BLOB) WHERE sequence = 4", 5, 4),
    ],
)
def test_what_shrinks_or_changes_at_its_end_is_read_anew(
    world: World, statement: str, removed: int, added: int
) -> None:
    world.write(1, started(), *map(note, ("one", "two", "three", "four")))
    world.write(2, started("bob"))
    world.update()
    world.change(statement)
    world.change("UPDATE chains SET modified = '2030-01-01T00:00:00.000000Z' WHERE session_id LIKE '%01'")
    done = world.update()
    assert (done.removed, done.added) == (removed, added)
    with world.index.reading() as connection:
        assert len(search(connection, Query(text="four"))) == 0
        assert len(search(connection, Query(agent="bob"))) == 1


def test_another_database_under_the_same_name_is_read_anew(world: World) -> None:
    world.write(1, started())
    world.update()
    world.store.close()
    copy = world.path.with_name("copy")
    copy.write_bytes(world.path.read_bytes())
    copy.replace(world.path)
    world.store = open_store(world.config)
    assert (world.update().removed, world.update().removed) == (1, 0)
    world.check()


def test_a_time_of_writing_that_is_none_counts_as_long_ago(world: World) -> None:
    world.write(1, started())
    world.change("UPDATE chains SET modified = 'yesterday'")
    world.update()
    with world.index.reading() as connection:
        assert [each.modified for each in list_sessions(connection)] == ["1970-01-01T00:00:00.000000Z"]


def test_what_is_no_database_is_refused_with_advice(world: World) -> None:
    world.path.parent.mkdir()
    world.path.write_bytes(b"no database" * 1_000)
    with pytest.raises(TraceUnavailableError):
        world.index.update()


def test_an_event_is_found_by_its_id_and_its_hash_with_and_without_an_index(either: World) -> None:
    for number in (1, 2, 3):
        either.write(number, started(), *map(note, "abc"))
    lines = either.store.read(session_id(2))
    event = parse(lines[2])
    for _ in range(2):
        for name in (event.event_id, event.event_hash):
            assert find_event(either.config, either.store, name) == (session_id(2), 2, lines)
        either.update()
        with either.index.reading() as connection:
            for name in (event.event_id, event.event_hash):
                assert locate(connection, name) == [(session_id(2), 2)]
    for unknown in (session_id(9), "0" * 64):
        with pytest.raises(UnknownTraceError):
            find_event(either.config, either.store, unknown)


def test_an_index_that_lies_is_not_believed(either: World) -> None:
    either.write(1, started(), *map(note, "abc"))
    either.write(2, started(), *map(note, "abc"))
    either.update()
    right, wrong = either.store.read(session_id(1)), either.store.read(session_id(2))
    with either.index.reading() as connection:
        connection.execute(
            "UPDATE events SET event_id = ?, session = (SELECT session FROM sessions WHERE session_id = ?) "
            "WHERE event_id = ?",
            (parse(right[3]).event_id, session_id(2), parse(wrong[1]).event_id),
        )
        connection.execute(
            "UPDATE events SET sequence = 77, hash_start = 5 WHERE event_id = ?", (parse(right[2]).event_id,)
        )
    for place in (2, 3):
        event = parse(right[place])
        for name in (event.event_id, event.event_hash):
            assert find_event(either.config, either.store, name) == (session_id(1), place, right)


def test_an_event_that_calls_itself_nothing_is_indexed_without_a_name(world: World) -> None:
    world.write(1, started(), note("a"))
    world.change(
        'UPDATE events SET line = CAST(replace(replace(CAST(line AS TEXT), \'"event_id":"0\', \'"event_id":"X\'), '
        '\'"event_hash":"\', \'"event_hash":"-\') AS BLOB) WHERE sequence = 1'
    )
    assert world.update().added == 2
    with world.index.reading() as connection:
        rows = connection.execute(
            "SELECT event_id IS NULL, hash_start IS NULL FROM events ORDER BY sequence"
        ).fetchall()
    assert rows == [(0, 0), (1, 1)]
