"""The index says what the files say, however they change; and finds what a plain reading of all of them finds."""

import json
import os
import random
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from cra_mcp.errors import TraceError, TraceUnavailableError
from cra_mcp.trace import index as index_module
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.event import Draft, Event, parse
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.index import TraceIndex
from cra_mcp.trace.index_source import FileSource
from cra_mcp.trace.search import Found, Query, count_sessions, list_sessions, search
from cra_mcp.trace.summary import summarise

TRACE = "01980000-0000-7000-8000-000000000004"
START_NS = 1_767_323_045_000_000_000
SMALL = Bounds(segment_bytes=3_000)


def session_id(number: int) -> str:
    return f"01980000-0000-7000-8000-{number:012x}"


def started(agent: object = "ann", goal: object = "Something") -> Draft:
    payload = {"agent_id": agent, "goal": goal, "atlases": [], "policy_digest": "0" * 64}
    return Draft("session.started", payload, TRACE)


def denied(action: str, policy: str, reason: str) -> Draft:
    return Draft("action.denied", {"action_id": action, "policy_id": policy, "reason": reason}, TRACE)


class World:
    """A folder of traces that grows, and its index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ns = START_NS
        self.store = FileStore(folder, clock_ns=lambda: self.now_ns, bounds=SMALL)
        self.index = TraceIndex(FileSource(folder))

    def write(self, number: int, *drafts: Draft, step_ns: int = 1_000_000_000) -> None:
        self.store.begin(session_id(number), TRACE)
        for draft in drafts:
            self.now_ns += step_ns
            self.store.append(session_id(number), [draft])

    def path(self, number: int) -> Path:
        return self.folder / f"{session_id(number)}.trace.jsonl"

    def find(self, limit: int = 100_000, **conditions: str) -> list[Found]:
        with self.index.reading() as connection:
            return search(connection, Query(**conditions), limit=limit)

    def events(self) -> list[tuple[str, Event]]:
        """All events, read plainly; what is none is left out."""
        found = []
        for info in FileStore(self.folder).sessions():
            for line in FileStore(self.folder).read(info.session_id):
                try:
                    found.append((info.session_id, parse(line)))
                except TraceError:
                    continue
        return found

    def check(self) -> None:
        """The index says what the files say, and a new one would say the same."""
        plain = {
            (session, seen.sequence, seen.timestamp, seen.event_type, seen.action_id, seen.decision, seen.policy_id)
            for session, event in self.events()
            for seen in (summarise(event),)
        }
        for _ in range(2):
            indexed = [
                (
                    each.session_id,
                    each.sequence,
                    each.timestamp,
                    each.event_type,
                    each.action_id,
                    each.decision,
                    each.policy_id,
                )
                for each in self.find()
            ]
            assert len(indexed) == len(set(indexed))
            assert set(indexed) == plain
            stamps = [each[2] for each in indexed]
            assert stamps == sorted(stamps, reverse=True)
            with self.index.reading() as connection:
                listed = list_sessions(connection)
                assert count_sessions(connection) == len(listed)
            infos = FileStore(self.folder).sessions()
            assert [(each.session_id, each.size_bytes) for each in listed] == [
                (info.session_id, info.size_bytes) for info in infos
            ]
            self.index.rebuild()

    def close(self) -> None:
        self.store.close()
        self.index.close()


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path / "traces")
    yield made
    made.close()


NOTES = [denied(f"do.{number}", "no", f"word{number}") for number in range(12)]


def test_what_grows_is_added_and_nothing_is_read_twice(world):
    world.write(1, started(), *NOTES[:3])
    world.write(2, started("bob"))
    assert world.index.update().added == 5
    assert world.index.update() == index_module.Update()
    world.write(1, *NOTES)
    world.write(3, started("cid"))
    seen: list[tuple[int, int]] = []
    assert world.index.update(lambda done, total: seen.append((done, total))).added == 13
    assert seen[-1][0] == seen[-1][1] < sum(info.size_bytes for info in world.store.sessions())
    assert len(list(world.folder.rglob("*.trace.d/*"))) >= 2
    world.check()


def cut(world: World) -> None:
    world.path(1).write_bytes(world.path(1).read_bytes()[:-100])


def cut_to_an_event(world: World) -> None:
    lines = world.path(1).read_bytes().splitlines(keepends=True)
    world.path(1).write_bytes(b"".join(lines[:2]))


def edit_and_grow(world: World) -> None:
    data = world.path(1).read_bytes()
    last = data.splitlines(keepends=True)[-1]
    world.path(1).write_bytes(data.replace(last, last.replace(b'"no"', b'"on"')) + last)


def replace(world: World) -> None:
    other = world.path(1).with_suffix(".new")
    other.write_bytes(world.path(1).read_bytes().replace(b"do.1", b"do.9"))
    other.replace(world.path(1))


def damage(world: World) -> None:
    data = bytearray(world.path(1).read_bytes())
    data[-50] ^= 1
    world.path(1).write_bytes(bytes(data) + b"\xff{}\nnull\n[]\n" + b"\0" * 50 + b"\n")


def delete(world: World) -> None:
    world.path(1).unlink()


def lose_a_part(world: World) -> None:
    max(world.folder.rglob("*.trace.d/*")).unlink()


@pytest.mark.skipif(os.name == "nt", reason="files are changed while they are open")
@pytest.mark.parametrize("change", [cut, cut_to_an_event, edit_and_grow, replace, damage, delete, lose_a_part])
def test_what_shrinks_or_changes_is_read_anew(world, change):
    world.write(1, started(), *NOTES)
    world.write(2, started("bob"), *NOTES)
    world.index.update()
    world.store.close()
    change(world)
    os.utime(world.folder)
    for path in world.folder.rglob("*.jsonl"):
        os.utime(path, ns=(START_NS + 7, START_NS + 7 + hash(path.name) % 1_000))
    done = world.index.update()
    assert done is not None
    assert done.removed
    world.check()
    for word in ("word1", "word11"):
        plain = sum(word in json.dumps(dict(event.payload)).split('"') for _, event in world.events())
        assert len(world.find(text=word)) == plain


def test_a_line_that_is_being_written_is_taken_when_it_is_whole(world):
    world.write(1, started())
    world.store.close()
    whole = world.path(1).read_bytes()
    world.path(1).write_bytes(whole[:-20])
    assert world.index.update().added == 0
    world.path(1).write_bytes(whole)
    assert world.index.update().added == 1
    world.check()


def test_events_of_one_instant_are_all_kept_in_order(world):
    for number in range(1, 30):
        world.write(number, started(), *NOTES, step_ns=0)
    world.store.append(session_id(1), NOTES * 200)
    world.index.update()
    world.check()
    sequences = [each.sequence for each in world.find(session=session_id(1))]
    assert sequences == sorted(sequences, reverse=True)


def test_every_condition_finds_what_a_plain_reading_finds(world):
    chance = random.Random(5)
    agents, actions, policies = ["ann", "bob", "bo", "b*b"], ["a.read", "a.write", "b.read"], ["no-1", "no-2"]
    words = ["invoice", "Straße", "école", "naïve", "42", "x_y", "printer"]
    for number in range(1, 25):
        drafts = [
            denied(chance.choice(actions), chance.choice(policies), " ".join(chance.choices(words, k=3)))
            if chance.random() < 0.5
            else Draft(
                "action.executed",
                {"action_id": chance.choice(actions), "execution_id": TRACE, "duration_ms": 1, "result_hash": "x"},
                TRACE,
            )
            for _ in range(chance.randrange(6))
        ]
        world.write(number, started(chance.choice(agents), " ".join(chance.choices(words, k=2))), *drafts)
    world.index.update()
    agent_of = {session: event.payload["agent_id"] for session, event in world.events() if event.sequence == 0}
    days = [event.timestamp for _, event in world.events()]

    def holds(session: str, event: Event, query: dict[str, str]) -> bool:
        seen = summarise(event)
        of = {
            "agent": agent_of[session],
            "action": seen.action_id,
            "decision": seen.decision,
            "policy": seen.policy_id,
            "type": seen.event_type,
        }
        for name, wanted in query.items():
            if name in of:
                value = of[name]
                same = value is not None and (
                    value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted
                )
            elif name == "session":
                same = session.startswith(wanted)
            elif name == "text":
                same = set(folded(wanted)) <= set(folded(" ".join(str(value) for value in event.payload.values())))
            else:
                same = event.timestamp >= wanted if name == "since" else event.timestamp < wanted
            if not same:
                return False
        return True

    choices = {
        "session": [session_id(3), session_id(1)[:-1]],
        "agent": ["ann", "bo", "bo*", "nobody"],
        "action": ["a.read", "a.*", "*"],
        "decision": ["deny", "allow", "approval"],
        "policy": ["no-1", "no*", "none"],
        "type": ["action.denied", "session.*"],
        "text": ["invoice", "STRASSE", "straße", "ecole", "naive printer", "42", "y", "absent"],
        "since": days,
        "until": days,
    }
    found_any, events = 0, world.events()
    for _ in range(400):
        names = chance.sample(sorted(choices), chance.randrange(1, 4))
        query = {name: chance.choice(choices[name]) for name in names}
        wanted = {(session, event.sequence) for session, event in events if holds(session, event, query)}
        found = {(each.session_id, each.sequence) for each in world.find(**query)}
        assert found == wanted, query
        found_any += bool(found)
    assert found_any > 100


def folded(text: str) -> list[str]:
    """Words as the index sees them: lower-case, without accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    return "".join(c if c.isalnum() else " " for c in plain).split()


def test_words_somebody_wrote_do_not_pass_for_fields(world):
    from cra_mcp.trace.entries import term  # noqa: PLC0415 - only here

    fake = " ".join((term("decision", "deny"), term("agent", "root"), term("session", "1")))
    world.write(1, started("ann", fake), Draft("input.received", {"text": fake}, TRACE))
    world.index.update()
    assert world.find(decision="deny") == world.find(agent="root") == []
    assert len(world.find(text=term("agent", "root"))) == 2


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "'; DROP TABLE events; --",
        "a AND",
        "NEAR(a b)",
        "text:a",
        "(",
        "a*b*",
        "\ud800",
        "-a",
        "^a",
        "x" * 50_000,
        "a\0b",
    ],
)
def test_no_text_breaks_a_search(world, text):
    world.write(1, started())
    world.index.update()
    codes = []
    for name in ("text", "agent", "session", "decision"):
        try:
            world.find(**{name: text})
        except TraceError as error:
            codes.append(error.code)
    assert set(codes) <= {"invalid_query"}
    assert len(world.find()) == 1


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", "12:00", "2026-01-01T00:00:00", "9999999"])
def test_a_moment_that_is_none_is_refused(world, moment):
    with pytest.raises(TraceError) as caught:
        world.find(since=moment)
    assert caught.value.code == "invalid_query"


def test_values_of_unexpected_types_are_indexed_as_absent(world):
    deep: object = "deep"
    for _ in range(60):
        deep = {"a": [deep]}
    payload = {
        "action_id": 5,
        "policy_id": ["x"],
        "duration_ms": "long",
        "reason": deep,
        "more": [True, None, 1.5, "é" * 9_000],
    }
    world.write(1, started(7, ["x"]), Draft("action.denied", payload, TRACE))
    world.index.update()
    latest, first = world.find()
    assert (latest.action_id, latest.policy_id, latest.duration_ms, latest.decision) == (None, None, None, "deny")
    assert (first.agent_id, latest.agent_id) == (None, None)
    assert len(world.find(text="1")) == 1


@pytest.mark.parametrize("content", [b"", b"no database" * 1_000])
def test_an_index_that_is_damaged_or_of_another_version_is_made_anew(world, content):
    world.write(1, started())
    (world.folder / "index.sqlite3").write_bytes(content)
    assert world.index.update().added == 1
    world.index.close()
    with closing(sqlite3.connect(world.folder / "index.sqlite3")) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert world.index.update().added == 1
    world.check()


def test_one_process_updates_at_a_time_and_the_others_read_what_there_is(world):
    world.write(1, started())
    world.index.update()
    claim = Claim.take(world.folder / "index.sqlite3.lock", "it", "wait")
    world.write(2, started())
    assert world.index.update() is None
    assert len(world.find()) == 1
    claim.give_up()
    assert world.index.update().added == 1
    assert not (world.folder / "index.sqlite3.lock").exists()


def test_an_index_full_of_what_is_gone_is_made_anew(world, monkeypatch):
    monkeypatch.setattr(index_module, "BATCH", 3)
    world.write(1, started(), *NOTES)
    world.index.update()
    world.store.close()
    world.path(1).unlink()
    for path in world.folder.rglob("*.trace.d/*"):
        path.unlink()
    world.store = FileStore(world.folder)
    world.write(2, started())
    world.index.update()
    with world.index.reading() as connection:
        assert connection.execute("SELECT COUNT(*) FROM gone").fetchone() == (0,)
    world.check()


def test_a_folder_that_is_not_there_has_nothing_and_is_not_made(tmp_path):
    index = TraceIndex(FileSource(tmp_path / "none"))
    assert index.update() == index_module.Update()
    with index.reading() as connection:
        assert search(connection, Query()) == list_sessions(connection) == []
    index.close()
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_index_is_readable_by_its_owner_only(world):
    world.write(1, started())
    world.index.update()
    assert (world.folder / "index.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_folder_in_place_of_the_index_is_refused_with_advice(world):
    world.write(1, started())
    (world.folder / "index.sqlite3").mkdir()
    with pytest.raises(TraceUnavailableError) as caught:
        world.index.update()
    assert "rebuild" in (caught.value.hint or "")
