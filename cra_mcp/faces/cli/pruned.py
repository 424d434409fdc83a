"""Traces that went, and were signed before: whether the statement that stays accounts for them.

Rule: only a statement signed by a trusted key counts, and only if no checkpoint contradicts it; it shows that whoever has the key
let the trace go, and not that they were right to.
"""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cra_mcp.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.checkpoint import Checkpoint, VerifierKey
    from cra_mcp.trace.statement import Statement


def accounted(
    config: "RuntimeConfig", session_id: str, checkpoints: "Iterable[Checkpoint]", keys: "Sequence[VerifierKey]"
) -> "Statement | str | None":
    """What accounts for a trace that is not there, or how a checkpoint contradicts it; None where nothing does."""
    from cra_mcp.trace.statement import read_statement  # noqa: PLC0415 - not for --help

    data = _kept(config, session_id)
    if data is None:
        return None
    try:
        statement = read_statement(data, session_id, keys)
    except TraceError:
        return None
    return statement.contradiction(checkpoints) or statement


def shown(statement: "Statement", covered: int) -> str:
    """What a statement and the checkpoints that agree with it show."""
    how = "A checkpoint says the same of all of them. " if covered == statement.events else ""
    damage = f" It did not verify when it went ({statement.code})." if statement.code is not None else ""
    return (
        f"Pruned at {statement.pruned_at}: {statement.events} events, says a statement signed by {statement.signer}. {how}"
        f"What they were can't be checked any more.{damage}"
    )


def _kept(config: "RuntimeConfig", session_id: str) -> bytes | None:
    from cra_mcp.compose import database_of  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.segments import open_to_read, statement_path  # noqa: PLC0415 - as said

    database = database_of(config)
    if database is not None:
        return _row(database, session_id)
    try:
        with open_to_read(statement_path(config.trace_path, session_id)) as file:
            return file.read()
    except (OSError, TraceError):
        return None


def _row(database: Path, session_id: str) -> bytes | None:
    from cra_mcp.trace.sqlite import open_to_query  # noqa: PLC0415 - not for --help

    with suppress(sqlite3.Error):  # there is no such table before something was pruned
        connection = open_to_query(database)
        try:
            row = connection.execute("SELECT statement FROM pruned WHERE session_id = ?", (session_id,)).fetchone()
        finally:
            connection.close()
        return row[0] if row is not None else None
    return None
