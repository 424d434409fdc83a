"""What is particular to one SQLite file: one process writes, others read; what was changed in it is found; it heals."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cra_mcp.errors import TraceLockedError, TraceUnavailableError
from cra_mcp.trace.event import verify
from cra_mcp.trace.sqlite import SqliteStore

SESSION = "01980000-0000-7000-8000-00000000ab01"
OTHER = "01980000-0000-7000-8000-00000000ab09"
TRACE = "01980000-0000-7000-8000-000000000004"
ROOT = Path(__file__).parents[2]
HOLD = """
import sys, pathlib
from cra_mcp.trace.event import Draft
from cra_mcp.trace.sqlite import SqliteStore
store = SqliteStore(pathlib.Path(sys.argv[1]))
store.begin(sys.argv[2], sys.argv[2])
store.append(sys.argv[2], [Draft("x.test.note", {"n": 1}, sys.argv[2])])
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "traces.sqlite3"


@pytest.fixture
def store(path: Path):
    made = SqliteStore(path)
    yield made
    made.close()


def test_nothing_is_created_before_the_first_chain_is_begun(store, path):
    assert store.sessions() == []
    store.close()
    assert not path.parent.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_its_files_are_readable_by_their_owner_only(store, path, draft):
    before = os.umask(0)
    try:
        store.begin(SESSION, TRACE)
        store.append(SESSION, [draft()])
    finally:
        os.umask(before)
    assert len(list(path.parent.iterdir())) == 4
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["traces.sqlite3"]


def test_one_process_writes_and_others_read_what_it_has_written(store, path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for call in (lambda: store.begin(OTHER, TRACE), lambda: store.recover(SESSION)):
            with pytest.raises(TraceLockedError, match=f"process {process.pid} on "):
                call()
        assert len(store.read(SESSION)) == 1
        assert [info.live for info in store.sessions()] == [True]
        process.kill()
    assert [info.live for info in store.sessions()] == [False]
    store.begin(SESSION, TRACE)
    assert store.head(SESSION).sequence == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET line = CAST(replace(CAST(line AS TEXT), 'note', 'nope') AS BLOB) WHERE sequence = 3",
        "DELETE FROM events WHERE sequence = 3",
        "UPDATE events SET sequence = 30 WHERE sequence = 3",
    ],
)
def test_what_was_changed_is_found_and_set_aside(store, path, draft, change):
    store.begin(SESSION, TRACE)
    for number in range(6):
        store.append(SESSION, [draft(number)])
    store.close()
    lines = store.read(SESSION)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    connection.close()
    store = SqliteStore(path)
    checked = verify(store.read(SESSION), session_id=SESSION)
    assert not checked.ok
    store.begin(SESSION, TRACE)
    assert store.read(SESSION) == lines[: checked.events]
    assert store.append(SESSION, [draft()]).sequence == checked.events
    assert verify(store.read(SESSION)).ok
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        (aside,) = connection.execute("SELECT COUNT(*) FROM set_aside").fetchone()
    connection.close()
    assert checked.events + aside == 6 - change.startswith("DELETE")
    assert store.sessions()[0].size_bytes == sum(len(line) + 1 for line in store.read(SESSION))


def test_after_an_error_the_file_is_opened_anew_and_must_hold_what_was_acknowledged(store, path, draft):
    store.begin(SESSION, TRACE)
    store.append(SESSION, [draft()])
    before = store.append(SESSION, [draft()])
    store._writer.connection.execute("PRAGMA query_only = 1")  # as if the disk were read-only for a while
    with pytest.raises(TraceUnavailableError):
        store.append(SESSION, [draft()])
    assert store.append(SESSION, [draft()]).sequence == before.sequence + 1
    store._writer.connection.execute("DELETE FROM events WHERE sequence = 2")
    store._writer.connection.execute("PRAGMA query_only = 1")
    for _ in range(3):
        with pytest.raises(TraceUnavailableError):
            store.append(SESSION, [draft()])
    assert len(store.read(SESSION)) == 2


def test_what_is_no_database_is_refused_with_advice(path, store):
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1_000)
    for call in (lambda: store.begin(SESSION, TRACE), store.sessions):
        with pytest.raises(TraceUnavailableError) as caught:
            call()
        assert caught.value.hint
