"""Old chains of a SQLite store go whole, what is said of them stays, and the file gets smaller."""

import base64
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, join_notes
from cra_mcp.trace.event import Draft, verify
from cra_mcp.trace.merkle import leaf_hash, root_of
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.sqlite_retention import compact, prune_database
from cra_mcp.trace.statement import Pruning, Rule, Sign, fingerprint_of, with_signature
from tests.trace.test_retention import KEY, SIGN, signing
from tests.trace.test_sqlite_store import HOLD, ROOT

OLD = "01980000-0000-7000-8000-00000000ab01"
YOUNG = "01980000-0000-7000-8000-00000000ab02"
TRACE = "01980000-0000-7000-8000-000000000004"
DAY_NS = 86_400 * 1_000_000_000
NOW_NS = 1_767_323_045_000_000_000 + 40 * DAY_NS
MONTH = Rule(30 * 86_400)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "traces.sqlite3"
    for session, days in ((OLD, 40), (YOUNG, 29)):
        store = SqliteStore(made, clock_ns=lambda days=days: NOW_NS - days * DAY_NS)
        store.begin(session, TRACE)
        store.append(session, [Draft("x.test.note", {"note": "secret " * 2_000}, TRACE)] * 50)
        store.close()
    return made


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def prune(path: Path, rule: Rule = MONTH, *, sign: Sign | None = None) -> list[Pruning]:
    return list(prune_database(path, path.parent / "traces", rule, NOW_NS, sign=sign, keys=[KEY.verifier]))


def sign(path: Path, lines: list[bytes]) -> Path:
    """A checkpoint of so many lines beside the chain."""
    key, folder = SignerKey.generate(), path.parent / "traces"
    folder.mkdir(exist_ok=True)
    note = key.sign(Checkpoint(f"{key.verifier.name}/{OLD}", len(lines), root_of([leaf_hash(line) for line in lines])))
    (folder / f"{OLD}.checkpoints").write_bytes(join_notes([note]))
    return folder / f"{OLD}.checkpoints"


def test_an_old_chain_goes_whole_its_statement_stays_and_its_space_is_given_back(path: Path) -> None:
    store = SqliteStore(path)
    lines, head = store.read(OLD), store.head(OLD)
    assert head is not None
    checkpoints = sign(path, lines)
    store.close()
    before, dry = path.stat().st_size, prune(path, Rule(30 * 86_400, dry_run=True))
    assert checkpoints.exists()
    (done,) = prune(path)
    assert done.statement is not None
    assert {**(dry[0].statement or {}), "signature": None} == done.statement
    assert (done.statement["events"], done.statement["head_hash"]) == (50, head.event_hash)
    assert done.statement["root"] == base64.b64encode(root_of([leaf_hash(line) for line in lines])).decode()
    whole = b"".join(line + b"\n" for line in lines)
    events, beside = done.statement["files"]
    assert events == {"name": "events", "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert beside["name"] == f"{OLD}.checkpoints"
    assert not checkpoints.exists()
    compact(path)
    assert path.stat().st_size < before * 0.7
    assert [name.name for name in path.parent.glob("traces.sqlite3*")] == ["traces.sqlite3"]
    connection = sqlite3.connect(path)
    assert json.loads(connection.execute("SELECT statement FROM pruned").fetchone()[0]) == done.statement
    connection.close()
    store = SqliteStore(path)
    assert [info.session_id for info in store.sessions()] == [YOUNG]
    assert verify(store.read(YOUNG), session_id=YOUNG).events == 50
    with pytest.raises(UnknownTraceError, match="pruned"):
        store.read(OLD)
    with pytest.raises(TraceUnavailableError, match="pruned"):
        store.begin(OLD, TRACE)
    store.close()
    assert prune(path) == []


def test_what_went_is_not_to_be_read_from_the_file_even_where_no_space_was_given_back(path: Path) -> None:
    prune(path, Rule(0))
    assert b"secret" not in path.read_bytes()


def test_a_database_that_is_written_by_another_process_is_left_alone(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), OLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        change(path, "UPDATE chains SET modified = '2020-01-01T00:00:00.000000Z'")
        for call in (lambda: prune(path), lambda: compact(path)):
            with pytest.raises(TraceLockedError, match=f"process {process.pid} on "):
                call()
        assert [each.kept_because for each in prune(path, Rule(0, dry_run=True))] == ["live", None]
        process.kill()
    assert [each.session_id for each in prune(path, Rule(0))] == [YOUNG]  # OLD got a young event


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE events SET line = CAST(replace(line, 'secret', 'sacred') AS BLOB) WHERE sequence = 3", "hash_mismatch"),
        ("DELETE FROM events WHERE sequence = 3", "chain_broken"),
        ("DELETE FROM events WHERE sequence > 3", "truncated"),
    ],
)  # fmt: skip
def test_a_chain_that_does_not_verify_or_contradicts_its_checkpoint_stays_unless_it_is_asked_for(
    path: Path, statement: str, code: str
) -> None:
    store = SqliteStore(path)
    sign(path, store.read(OLD))
    store.close()
    change(path, statement)
    (done,) = prune(path)
    assert (done.statement, done.kept_because) == (None, code)
    (done,) = prune(path, Rule(30 * 86_400, damaged=True))
    assert done.statement is not None
    assert done.statement["code"] == code


def test_an_interrupted_run_is_finished_by_the_next(path: Path) -> None:
    store = SqliteStore(path)
    checkpoints = sign(path, store.read(OLD))
    store.close()
    kept = checkpoints.read_bytes()
    prune(path, sign=SIGN)
    checkpoints.write_bytes(b"other")
    prune(path, sign=SIGN)
    assert checkpoints.read_bytes() == b"other"
    checkpoints.write_bytes(kept)
    prune(path, sign=SIGN)
    assert not checkpoints.exists()


def test_what_is_no_database_is_refused_and_one_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert prune(path) == []
    compact(path)
    path.write_bytes(b"no database" * 1_000)
    for call in (lambda: prune(path), lambda: compact(path)):
        with pytest.raises(TraceUnavailableError):
            call()
    assert [file.name for file in tmp_path.iterdir()] == ["none"]


@pytest.mark.parametrize("statement", [b"{", b"", b"[]", b"forged", b"another", b"of another", "text", None])
def test_a_row_that_is_not_ours_deletes_no_checkpoints_and_stops_nothing(
    path: Path, statement: bytes | str | None
) -> None:
    """Of a chain that is there, of one that went, and of none."""
    store = SqliteStore(path)
    checkpoints = sign(path, store.read(OLD))
    store.close()
    files = [fingerprint_of(checkpoints.parent, checkpoints)]
    (would,) = prune(path, Rule(30 * 86_400, dry_run=True))
    told = {**dict(would.statement or {}), "files": files}
    told.pop("signature", None)
    if statement == b"forged":
        statement = canonical_bytes({**told, "signature": None})
    elif statement == b"another":
        statement = canonical_bytes(with_signature(told, signing(SignerKey.generate())))
    elif statement == b"of another":
        statement = canonical_bytes(with_signature({**told, "session_id": YOUNG}, SIGN))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DROP TABLE pruned")
        connection.execute("CREATE TABLE pruned (session_id, statement)")
        connection.executemany(
            "INSERT INTO pruned VALUES (?, ?)", [(OLD, statement), (5, statement), ("../x", statement)]
        )
    connection.close()
    for _ in range(2):
        (found,) = prune(path)
        assert (found.session_id, found.statement) == (OLD, None)
        assert checkpoints.exists()
    change(path, "DELETE FROM chains WHERE session_id LIKE '%ab01'")
    (found,) = prune(path)
    assert found.kept_because in {"statement_unsigned", "malformed_statement"}
    assert checkpoints.exists()
    assert len(SqliteStore(path).read(YOUNG)) == 50


def test_a_row_of_an_odd_type_is_a_damaged_event_and_stops_nothing(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE other AS SELECT * FROM events")
        connection.execute("DROP TABLE events")
        connection.execute("ALTER TABLE other RENAME TO events")
        connection.execute("UPDATE events SET line = 5 WHERE session_id = ? AND sequence = 3", [OLD])
        connection.execute("UPDATE events SET line = NULL WHERE session_id = ? AND sequence = 4", [OLD])
    connection.close()
    (done,) = prune(path)
    assert done.kept_because == "malformed_event"
    (done,) = prune(path, Rule(30 * 86_400, damaged=True))
    assert done.statement is not None
