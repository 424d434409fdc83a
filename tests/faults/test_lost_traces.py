"""What a running runtime records in is taken away, cut or replaced: calls are refused and say why, or all of it is on disk."""

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import TraceLockedError, TraceUnavailableError
from cra_mcp.trace.checkpoint import parse_checkpoint, split_notes
from cra_mcp.trace.event import Draft, parse, verify
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.keyfile import load_key, make_key
from tests.faces.mcp.conftest import TOOLS, action

posix = pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files where they are")
pytestmark = posix

MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.lost",
    "version": "1.0.0",
    "name": "Lost",
    "description": "d",
    "actions": [action("tool.mark", "mark"), action("tool.pay", "mark", risk_tier="high")],
}


@dataclass
class Running:
    """A runtime at work, what it was asked, and what it answered."""

    folder: Path
    store: str = "file"
    segment_bytes: int = 67_108_864
    receipts: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        atlas = self.folder / "atlas"
        (atlas / "python").mkdir(parents=True)
        (atlas / "atlas.json").write_text(json.dumps(MANIFEST))
        (atlas / "python" / "tools.py").write_text(TOOLS)
        store = f"sqlite:{self.database}" if self.store == "sqlite" else "file"
        self.runtime = CRARuntime(
            RuntimeConfig(
                data_dir=self.folder / "data",
                store=store,
                checkpoint_every=1,
                segment_bytes=self.segment_bytes,
                flush_interval_s=0.02,
            )
        )
        self.runtime.load_atlas(atlas)
        self.session = self.runtime.create_session("agent", "goal").session_id
        self.runtime.resolve(self.session)

    @property
    def traces(self) -> Path:
        return self.folder / "data" / "traces"

    @property
    def database(self) -> Path:
        return self.folder / "db" / "traces.sqlite3"

    @property
    def file(self) -> Path:
        return self.traces / f"{self.session}.trace.jsonl"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def ran(self) -> int:
        return self.marks.read_text().count("\n") if self.marks.exists() else 0

    def call(self, action_id: str = "tool.mark") -> Any:
        outcome = self.runtime.execute_blocking(self.session, action_id, {"marks": str(self.marks), "text": "m"})
        if outcome.status == "success":
            self.receipts.append(outcome)
        return outcome

    def work(self) -> None:
        before = self.ran()
        for action_id in ("tool.mark", "tool.pay", "tool.mark"):
            outcome = self.call(action_id)
            assert outcome.status == "success", outcome
        assert self.ran() == before + 3

    def refused(self, reason: str | None) -> None:
        """Calls of both classes are refused, don't run, say why and what to do; readiness says so too."""
        before = self.ran()
        for action_id in ("tool.mark", "tool.pay", "tool.mark"):
            outcome = self.call(action_id)
            assert outcome.status == "error", outcome
            fault = outcome.fault
            assert (fault.code, bool(fault.hint)) == ("trace_unavailable", True)
        assert self.ran() == before, "an action ran that is not recorded"
        with pytest.raises(TraceUnavailableError) as caught:
            self.runtime.check()
        assert caught.value.hint
        assert caught.value.reason in (reason or "").split(" or ")

    def lines(self, where: Path | None = None) -> list[bytes]:
        """What is on disk now, by another reader than the runtime's."""
        if self.store == "sqlite":
            with closing(sqlite3.connect(f"file:{where or self.database}?mode=ro", uri=True)) as connection, connection:
                rows = connection.execute(
                    "SELECT line FROM events WHERE session_id = ? ORDER BY sequence", [self.session]
                )
                found = [line for (line,) in rows]
            connection.close()
            return found
        parts = [self.file, *sorted((self.traces / f"{self.session}.trace.d").glob("*.jsonl"))]
        return b"".join(path.read_bytes() for path in parts).split(b"\n")[:-1]

    def all_there(self) -> None:
        """What was answered for is where it was put, and the chain holds."""
        lines = self.lines()
        assert verify(lines, session_id=self.session).ok
        hashes = [parse(line).event_hash for line in lines]
        for outcome in self.receipts:
            receipt = outcome.receipt
            assert hashes[receipt.sequence] == receipt.event_hash

    def signed(self) -> int:
        """How many events checkpoints speak of, wherever they are by now."""
        notes = [
            note
            for path in self.folder.rglob(f"{self.session}.checkpoints")
            for note in split_notes(path.read_bytes())[0]
        ]
        return max((parse_checkpoint(note).checkpoint.size for note in notes), default=0)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def begin(**given: Any) -> Running:
        made.append(Running(tmp_path, **given))
        made[0].work()
        return made[0]

    yield begin
    for each in made:
        each.runtime.close()


@dataclass(frozen=True)
class Way:
    """One way of losing what is written to, what is said of it, and how it is put back, if it can be."""

    name: str
    lose: Callable[[Running], object]
    reason: str | None
    mend: Callable[[Running], object] | None = None


def aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.aside")


def move(path: Path) -> None:
    path.rename(aside(path))


def put_back(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    aside(path).rename(path)


def copy_and_cut(path: Path, size: int = 0) -> None:
    """As logrotate's copytruncate does."""
    shutil.copy2(path, aside(path))
    os.truncate(path, size)


def pour_back(path: Path) -> None:
    """The copy back into the file that was cut."""
    path.write_bytes(aside(path).read_bytes())


def delete(folder: Path) -> None:
    while folder.exists():  # something may be made in it meanwhile
        shutil.rmtree(folder, ignore_errors=True)


def add_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"{}\n")


def regrow(path: Path, data: bytes) -> None:
    copy_and_cut(path)
    size = aside(path).stat().st_size
    with path.open("r+b") as file:
        file.write((data * size)[:size])


def replace(path: Path, other: Callable[[Path], object]) -> None:
    move(path)
    other(path)


def with_copy(path: Path) -> None:
    shutil.copy2(aside(path), path)


def with_link(path: Path) -> None:
    copy = path.with_name(f"{path.name}.copy")
    (shutil.copytree if aside(path).is_dir() else shutil.copy2)(aside(path), copy)
    path.symlink_to(copy)


FILES = (
    Way("moved", lambda run: move(run.file), "missing", lambda run: put_back(run.file)),
    Way("deleted", lambda run: run.file.unlink(), "missing"),
    Way("cut to nothing", lambda run: copy_and_cut(run.file), "cut", lambda run: pour_back(run.file)),
    Way(
        "cut by a byte",
        lambda run: copy_and_cut(run.file, run.file.stat().st_size - 1),
        "cut",
        lambda run: pour_back(run.file),
    ),
    Way(
        "cut at a line",
        lambda run: copy_and_cut(run.file, run.file.read_bytes()[:-1].rfind(b"\n") + 1),
        "cut",
        lambda run: pour_back(run.file),
    ),
    Way(
        "cut, then as long again with zeros",
        lambda run: regrow(run.file, b"\0"),
        "changed",
        lambda run: pour_back(run.file),
    ),
    Way(
        "cut, then as long again with lines",
        lambda run: regrow(run.file, b"{}\n"),
        "changed",
        lambda run: pour_back(run.file),
    ),
    Way("a copy in its place", lambda run: replace(run.file, with_copy), "replaced", lambda run: put_back(run.file)),
    Way(
        "an empty file in its place",
        lambda run: replace(run.file, Path.touch),
        "replaced",
        lambda run: put_back(run.file),
    ),
    Way("a folder in its place", lambda run: replace(run.file, Path.mkdir), "replaced", lambda run: put_back(run.file)),
    Way(
        "a link to a copy in its place",
        lambda run: replace(run.file, with_link),
        "replaced",
        lambda run: put_back(run.file),
    ),
    Way(
        "written to by another",
        lambda run: add_to(run.file),
        "grown",
        lambda run: os.truncate(run.file, run.file.stat().st_size - 3),
    ),
    Way("its folder moved", lambda run: move(run.traces), "missing", lambda run: put_back(run.traces)),
    Way("its folder deleted", lambda run: delete(run.traces), "missing"),
    Way(
        "another folder in its folder's place",
        lambda run: replace(run.traces, Path.mkdir),
        "missing",
        lambda run: put_back(run.traces),
    ),
    Way(
        "a file in its folder's place",
        lambda run: replace(run.traces, Path.touch),
        "missing",
        lambda run: put_back(run.traces),
    ),
    Way(
        "a link to a copy of its folder",
        lambda run: replace(run.traces, with_link),
        "replaced",
        lambda run: put_back(run.traces),
    ),
    Way(
        "the data folder moved",
        lambda run: move(run.folder / "data"),
        "missing",
        lambda run: put_back(run.folder / "data"),
    ),
)


def check_way(run: Running, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """Lose it, be refused; put it back, go on."""
    caplog.set_level(logging.WARNING, "cra_mcp.trace")
    good = run.lines()
    way.lose(run)
    run.refused(way.reason)
    assert [record for record in caplog.records if record.levelname == "ERROR"], "it is logged"
    assert run.signed() <= len(good), "what is not on disk is signed"
    if way.mend is None:
        run.runtime.close()
        assert run.signed() <= len(good)
        return
    way.mend(run)
    assert run.lines() == good, "what was refused left nothing"
    run.work()
    run.runtime.check()
    assert "again" in caplog.records[-1].getMessage()
    run.all_there()
    run.runtime.close()
    run.all_there()
    assert run.signed() == len(run.lines())


@pytest.mark.parametrize("way", FILES, ids=lambda way: way.name)
def test_a_trace_lost_under_its_writer_refuses_calls_until_it_is_back(start, caplog, way: Way) -> None:
    check_way(start(), way, caplog)


def first_of(run: Running) -> Path:
    return sorted((run.traces / f"{run.session}.trace.d").glob("*.jsonl"))[0]


EARLIER = (
    Way("the first file moved", lambda run: move(run.file), "missing", lambda run: put_back(run.file)),
    Way("the first file cut", lambda run: copy_and_cut(run.file, 10), "cut", lambda run: pour_back(run.file)),
    Way(
        "the first file replaced", lambda run: replace(run.file, with_copy), "replaced", lambda run: put_back(run.file)
    ),
    Way("the second file deleted", lambda run: first_of(run).unlink(), "missing"),
    Way(
        "the folder of files moved",
        lambda run: move(first_of(run).parent),
        "missing",
        lambda run: put_back(run.traces / f"{run.session}.trace.d"),
    ),
    Way(
        "the folder of files replaced",
        lambda run: replace(first_of(run).parent, with_link),
        "replaced",
        lambda run: put_back(run.traces / f"{run.session}.trace.d"),
    ),
)


@pytest.mark.parametrize("way", EARLIER, ids=lambda way: way.name)
def test_a_part_of_a_trace_lost_under_its_writer_refuses_calls_until_it_is_back(start, caplog, way: Way) -> None:
    run = start(segment_bytes=3_000)
    run.work()
    assert len(list(first_of(run).parent.iterdir())) > 1
    way.lose(run)
    before = run.ran()
    assert run.call("tool.pay").status == "error", "before anything risky runs, all of it is looked at"
    assert run.ran() == before
    with pytest.raises(TraceUnavailableError) as caught:
        run.runtime.check()
    assert (caught.value.reason, bool(caught.value.hint)) == (way.reason, True)
    if way.mend is not None:
        way.mend(run)
        run.work()
        run.all_there()


def wal(run: Running) -> Path:
    return run.database.with_name("traces.sqlite3-wal")


def backup(run: Running) -> Path:
    """All of it as it is now, in another file."""
    path = run.database.with_name("backup")
    with closing(sqlite3.connect(run.database)) as source, source, closing(sqlite3.connect(path)) as target, target:
        source.backup(target)
    source.close()
    target.close()
    return path


def empty_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (a)")
    connection.close()


def db(run: Running) -> Path:
    return run.database


DATABASES = (
    Way("moved", lambda run: move(db(run)), "missing", lambda run: put_back(db(run))),
    Way("deleted", lambda run: db(run).unlink(), "missing"),
    Way(
        "a whole copy in its place",
        lambda run: replace(db(run), lambda path: backup_from(run, path)),
        "replaced",
        lambda run: put_back(db(run)),
    ),
    Way("a copy without its log", lambda run: replace(db(run), with_copy), "replaced", lambda run: put_back(db(run))),
    Way("another database in its place", lambda run: replace(db(run), empty_database), "replaced"),
    Way(
        "an empty file in its place",
        lambda run: replace(db(run), Path.touch),
        "replaced",
        lambda run: put_back(db(run)),
    ),
    Way("a folder in its place", lambda run: replace(db(run), Path.mkdir), "replaced", lambda run: put_back(db(run))),
    Way(
        "a link to a copy in its place",
        lambda run: replace(db(run), with_link),
        "replaced",
        lambda run: put_back(db(run)),
    ),
    Way("its folder moved", lambda run: move(db(run).parent), "missing", lambda run: put_back(db(run).parent)),
    Way("its folder deleted", lambda run: shutil.rmtree(db(run).parent), "missing"),
    Way(
        "another folder in its folder's place",
        lambda run: replace(db(run).parent, Path.mkdir),
        "missing",
        lambda run: put_back(db(run).parent),
    ),
    Way(
        "a link to a copy of its folder",
        lambda run: replace(db(run).parent, with_link),
        "replaced",
        lambda run: put_back(db(run).parent),
    ),
    Way("its log cut to nothing", lambda run: os.truncate(wal(run), 0), "cut"),
    Way("its log and itself cut", lambda run: [os.truncate(path, 0) for path in (wal(run), db(run))], "cut"),
    Way("its log as long with zeros", lambda run: regrow(wal(run), b"\0"), "cut or changed"),
    Way("its rows deleted by another", lambda run: delete_rows(db(run)), "cut"),
)


def backup_from(run: Running, path: Path) -> None:
    """A database with all that is in the one moved aside, and in its log, which still has its name."""
    shutil.copy2(aside(path), path.with_name("other"))
    shutil.copy2(wal(run), path.with_name("other-wal"))
    with (
        closing(sqlite3.connect(path.with_name("other"))) as source,
        source,
        closing(sqlite3.connect(path.with_name("backup"))) as target,
        target,
    ):
        source.backup(target)
    source.close()
    target.close()
    path.with_name("backup").rename(path)


def delete_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM events WHERE sequence > 3")
    connection.close()


@pytest.mark.parametrize("way", DATABASES, ids=lambda way: way.name)
def test_a_database_lost_under_its_writer_refuses_calls_until_it_is_back(start, caplog, way: Way) -> None:
    check_way(start(store="sqlite"), way, caplog)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
def test_what_lies_beside_a_database_is_made_again_and_nothing_is_lost(start, suffix: str) -> None:
    run = start(store="sqlite")
    run.database.with_name(f"traces.sqlite3{suffix}").unlink()
    for _ in range(3):
        run.call()
    run.work()
    run.runtime.check()
    run.all_there()
    assert run.database.with_name("traces.sqlite3.lock").exists()
    run.runtime.close()
    run.all_there()


def test_a_database_cut_while_all_of_it_is_in_its_log_loses_nothing(start) -> None:
    run = start(store="sqlite")
    regrow(run.database, b"\0")
    run.work()
    run.all_there()
    run.runtime.close()
    run.all_there()


def test_a_lock_that_was_removed_is_made_again_before_another_process_can_have_it(start) -> None:
    run = start()
    (lock,) = (run.traces / ".locks").glob(f"{run.session}.lock")
    shutil.rmtree(lock.parent)
    run.runtime.check()
    run.work()
    with pytest.raises(TraceLockedError):
        FileStore(run.traces).begin(run.session, run.session)
    run.all_there()


def test_a_trace_another_process_went_on_with_takes_no_more_events(start) -> None:
    run = start()
    (run.traces / ".locks" / f"{run.session}.lock").unlink()
    other = FileStore(run.traces)
    other.begin(run.session, run.session)
    head = other.append(run.session, [Draft("x.test.note", {}, run.session)])
    run.refused("grown")
    assert other.head(run.session) == head
    other.close()
    assert verify(run.lines(), session_id=run.session).ok


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_key_lost_under_its_user_signs_on_and_that_is_logged(start, caplog, what: str) -> None:
    run = start()
    path = run.folder / "data" / "checkpoint.key"
    name = load_key(None, run.folder / "data", {}).verifier
    path.unlink()
    if what == "replaced":
        make_key(path)
    run.work()
    run.runtime.close()
    assert run.signed() == len(run.lines())
    for note in split_notes((run.traces / f"{run.session}.checkpoints").read_bytes())[0]:
        parse_checkpoint(note).verify([name])
    assert [record for record in caplog.records if "was removed or replaced" in record.getMessage()]
    assert path.exists() == (what == "replaced"), "nothing makes another one meanwhile"


@contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Root can enter any folder, so it becomes someone else; whoever else it is loses the folder's permissions."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    else:
        folder.chmod(0)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        folder.chmod(0o700)


@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_permissions_taken_from_the_writer_refuse_calls_until_they_are_back(start, store: str) -> None:
    run = start(store=store)
    good = run.lines()
    with without_permission(run.traces if store == "file" else run.database.parent):
        for _ in range(2):
            outcome = run.call()
            assert outcome.fault.code == "trace_unavailable"
    assert run.lines() == good
    run.work()
    run.all_there()
