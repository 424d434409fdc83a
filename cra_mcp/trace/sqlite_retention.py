"""Retention in a SQLite store: chains that ended long ago go, their statements stay, and their space is given back.

Rule: a chain and its statement change places in one transaction, so none is ever broken; it is done by the one process that may
write. Source: specs/trace.md, "Retention" and "SQLite".
"""

import os
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceError, TraceUnavailableError
from cra_mcp.trace.checkpoint import VerifierKey
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.event import format_timestamp, is_identifier
from cra_mcp.trace.keeping import STAMPED, SUFFIX, KeptCheckpoints
from cra_mcp.trace.sqlite import open_to_query
from cra_mcp.trace.sqlite_writer import SCHEMA, check_schema, claim_database, lock_of
from cra_mcp.trace.statement import (
    Beside,
    Pruning,
    Rule,
    Sign,
    fields_of,
    fingerprint,
    fingerprint_of,
    judge,
    signer_of,
    with_signature,
)

_BUSY_S = 5.0


def prune_database(
    path: Path,
    checkpoints: Path,
    rule: Rule,
    now_ns: int,
    *,
    sign: Sign | None = None,
    keys: Sequence[VerifierKey] = (),
) -> Iterator[Pruning]:
    """Go through the chains of a database, one at a time, and let go what is old.

    Args:
        path: the database.
        checkpoints: the folder in which the checkpoints of its chains are kept.
        rule: what goes.
        now_ns: nanoseconds since the epoch.
        sign: signs statements.
        keys: ours: statements they signed are believed.

    Raises:
        TraceLockedError: a process writes the database.
        TraceUnavailableError: it can't be read or written.
    """
    if not path.is_file():
        return
    with _opened(path, dry_run=rule.dry_run) as connection:
        if not rule.dry_run:
            yield from _finish(connection, checkpoints, keys)
        is_written = rule.dry_run and Claim.is_taken(lock_of(path))
        until = format_timestamp(rule.until_ns(now_ns))
        old = connection.execute(
            "SELECT session_id, writing FROM chains WHERE modified < ? ORDER BY session_id", (until,)
        ).fetchall()
        for session_id, writing in old:
            if not isinstance(session_id, str) or not is_identifier(session_id):
                continue
            if is_written and writing:
                yield Pruning(session_id, None, "live")
                continue
            try:
                done = _judge(connection, session_id, checkpoints, rule, now_ns)
            except TraceError as error:
                done = Pruning(session_id, None, error.code)
            except OSError:
                done = Pruning(session_id, None, "unreadable")
            if done is not None and done.statement is not None and not rule.dry_run:
                statement = with_signature(done.statement, sign)
                _replace(connection, session_id, statement)
                _delete_checkpoints(checkpoints, session_id, statement)
                done = Pruning(session_id, statement)
            if done is not None:
                yield done


def compact(path: Path) -> None:
    """Give the space of what went back to the file system.

    Raises:
        TraceLockedError: a process writes the database.
        TraceUnavailableError: it can't be done now: there is no room for a copy, or someone reads it.
    """
    if path.is_file():
        with _opened(path, dry_run=False) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _opened(path: Path, *, dry_run: bool) -> Generator[sqlite3.Connection]:
    claim = None if dry_run else claim_database(path)
    try:
        connection = open_to_query(path) if dry_run else sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            if not dry_run:
                check_schema(connection, path)
                # What goes is not to be read from free pages, and its statement is on disk before it goes.
                connection.executescript(f"PRAGMA secure_delete = ON; PRAGMA synchronous = FULL; {SCHEMA}")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TraceUnavailableError(
            f"can't prune traces: {error}", hint="Look at the disk, and run it again."
        ) from error
    finally:
        if claim is not None:
            claim.give_up()


def _finish(connection: sqlite3.Connection, checkpoints: Path, keys: Sequence[VerifierKey]) -> Iterator[Pruning]:
    """Delete the checkpoints that an interrupted run left of chains that went; those of a chain that is there stay."""
    rows = connection.execute("SELECT session_id, statement FROM pruned").fetchall()
    there = {session_id for (session_id,) in connection.execute("SELECT session_id FROM chains")}
    for session_id, data in rows:
        if not isinstance(session_id, str) or not is_identifier(session_id):
            continue
        left = [KeptCheckpoints(checkpoints, suffix).path(session_id) for suffix in (SUFFIX, STAMPED)]
        if session_id in there or not any(map(os.path.lexists, left)):
            continue
        try:
            fields = fields_of(data, session_id)
        except TraceError as error:
            yield Pruning(session_id, None, error.code)
            continue
        if signer_of(fields, keys) is None:
            yield Pruning(session_id, None, "statement_unsigned")
        else:
            _delete_checkpoints(checkpoints, session_id, fields)


def _judge(
    connection: sqlite3.Connection, session_id: str, checkpoints: Path, rule: Rule, now_ns: int
) -> Pruning | None:
    if connection.execute("SELECT 1 FROM pruned WHERE session_id = ?", (session_id,)).fetchone() is not None:
        return Pruning(session_id, None, "statement_unsigned")  # ours comes in the transaction in which its chain goes
    beside = Beside.of(checkpoints, session_id)
    done = judge(session_id, _lines(connection, session_id, "events"), beside, rule, now_ns)
    if done is None or done.statement is None:
        return done
    files = [
        fingerprint(table, (line + b"\n" for line in _lines(connection, session_id, table)))
        for table in ("events", "set_aside")
    ]
    files += [fingerprint_of(checkpoints, path) for path in beside.paths]
    return Pruning(session_id, {**done.statement, "files": [file for file in files if file["bytes"]]})


def _lines(connection: sqlite3.Connection, session_id: str, table: str) -> Iterator[bytes]:
    order = "sequence" if table == "events" else "number"
    query = f"SELECT COALESCE(CAST(line AS BLOB), X'00') FROM {table} WHERE session_id = ? ORDER BY {order}"  # noqa: S608 - names of ours
    rows = connection.execute(query, (session_id,))
    return (line for (line,) in rows)


def _replace(connection: sqlite3.Connection, session_id: str, statement: Mapping[str, object]) -> None:
    """A statement comes and its chain goes, both or neither."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("INSERT INTO pruned VALUES (?, ?)", (session_id, canonical_bytes(dict(statement))))
        for table in ("events", "set_aside", "chains"):
            connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))  # noqa: S608 - names of ours
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _delete_checkpoints(folder: Path, session_id: str, statement: Mapping[str, object]) -> None:
    """Delete the checkpoints of a chain that went, if they are what its statement says."""
    for suffix in (SUFFIX, STAMPED):
        path = KeptCheckpoints(folder, suffix).path(session_id)
        with suppress(OSError, TraceError):
            if fingerprint_of(folder, path) in cast("list[object]", statement["files"]):
                path.unlink()
