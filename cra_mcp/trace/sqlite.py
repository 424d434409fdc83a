"""Traces in one SQLite file, for those who want one file.

Rule: one process writes, over one connection, which also does the checkpoints (before SQLite 3.51.3, several writers could
corrupt a database with a write-ahead log); all others only read. A commit reaches the kernel before ``append`` returns; a durable
one the disk. What is acknowledged is in the file of that name (``sqlite_writer``).
Source: ``store.TraceStore``; specs/trace.md, "SQLite".
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cra_mcp.errors import TraceError, TraceLockedError, TraceUnavailableError, UnknownTraceError
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.event import Draft, Head, format_timestamp, is_identifier, parse, verify
from cra_mcp.trace.sqlite_writer import Writer, being_written, check_schema, lock_of
from cra_mcp.trace.store import Recovery, Tap, TraceInfo, check_identifiers, link_all, new_identifier

_BUSY_S = 5.0
# A row of another type is an event that is none.
_BY_NUMBER = """
SELECT COALESCE(CAST(line AS BLOB), X'00') FROM events
WHERE session_id = :session AND sequence > :start ORDER BY sequence LIMIT :count
"""
_BY_PLACE = """
SELECT COALESCE(CAST(line AS BLOB), X'00') FROM events
WHERE session_id = :session ORDER BY sequence LIMIT :count OFFSET :start
"""
_BEFORE = "SELECT COUNT(*) FROM events WHERE session_id = ? AND sequence <= ?"
_ORPHANS = """
WITH RECURSIVE found (id) AS (
  SELECT MIN(session_id) FROM events
  UNION ALL SELECT (SELECT MIN(session_id) FROM events WHERE session_id > found.id) FROM found WHERE found.id IS NOT NULL
)
SELECT id, (SELECT COUNT(*) FROM events WHERE session_id = id) FROM found
WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM chains WHERE session_id = id)
"""
_SESSIONS = """
SELECT COALESCE(CAST(session_id AS TEXT), ''), COALESCE(CAST(size_bytes AS INTEGER), 0),
  COALESCE(CAST(modified AS TEXT), ''), writing
FROM chains ORDER BY modified DESC, session_id DESC
"""
_PRUNED = "The table `pruned` of the database says what went."
_FREE = "Free some disk space, or look at the disk; recording goes on by itself."


@dataclass(slots=True)
class _Chain:
    """A chain this store is writing."""

    head: Head | None
    trace_id: str


class SqliteStore:
    """Meets ``TraceStore``. Nothing is created before the first ``begin``.

    Args:
        path: the database; beside it ``.lock`` names the process that writes.
        clock_ns: wall clock, nanoseconds since the epoch.
        new_id: source of event ids.
        insecure: its folder may be one that others can write to.
    """

    remote: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        new_id: Callable[[], str] = new_identifier,
        insecure: bool = False,
    ) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._lock = threading.RLock()  # over the chains and the connection that writes
        self._read_lock = threading.RLock()  # over the one that reads
        self._writer = Writer(path, insecure=insecure)
        self._reader: sqlite3.Connection | None = None
        self._chains: dict[str, _Chain] = {}
        self._closed = False
        self.tap: Tap | None = None

    # --- write -----------------------------------------------------------------------------------------------------

    def begin(self, session_id: str, trace_id: str) -> None:
        """See ``TraceStore.begin``. The first makes this process the one that writes the file."""
        check_identifiers(session_id, trace_id)
        with self._lock:
            if self._closed:
                raise TraceUnavailableError("the trace store is closed")
            known = self._chains.get(session_id)
            if known is not None:
                known.trace_id = trace_id
                return
            with self._writer.transaction(self._chains, "begin a trace") as writer:
                if _was_pruned(writer, session_id):
                    raise TraceUnavailableError(
                        f"the trace of session {session_id} was pruned and can't be continued",
                        hint="Start another session.",
                    )
                recovery, head = _recover(writer, session_id)
                writer.execute(
                    "INSERT INTO chains VALUES (?, ?, 0, 1) ON CONFLICT DO UPDATE SET writing = 1",
                    (session_id, format_timestamp(self._clock_ns())),
                )
                if recovery.code is not None:
                    _measure(writer, session_id)
            self._chains[session_id] = _Chain(head, trace_id)

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``."""
        with self._lock:
            chain = self._chains.get(session_id)
            if chain is None:
                raise _not_written(session_id)
            head, lines = link_all(
                chain.head,
                drafts,
                session_id=session_id,
                trace_id=chain.trace_id,
                now_ns=self._clock_ns(),
                new_id=self._new_id,
            )
            first = head.sequence - len(lines) + 1
            with self._writer.transaction(self._chains, "record an event", durable=durable) as writer:
                writer.executemany(
                    "INSERT INTO events VALUES (?, ?, ?)",
                    [(session_id, first + number, line) for number, line in enumerate(lines)],
                )
                writer.execute(
                    "UPDATE chains SET modified = ?, size_bytes = size_bytes + ? WHERE session_id = ?",
                    (head.timestamp, sum(map(len, lines)) + len(lines), session_id),
                )
            chain.head = head
            if self.tap is not None:
                self.tap.grown(session_id, head, lines)
            return head

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        with self._lock:
            if self._chains.pop(session_id, None) is not None:
                with self._writer.transaction(self._chains, "end a trace", durable=True) as writer:
                    writer.execute("UPDATE chains SET writing = 0 WHERE session_id = ?", (session_id,))
                if self.tap is not None:
                    self.tap.released(session_id)

    def flush(self, session_id: str) -> None:
        """See ``TraceStore.flush``. A flush of the log takes all of it to the disk."""
        with self._lock:
            if session_id not in self._chains:
                raise _not_written(session_id)
            with self._writer.transaction(self._chains, "flush a trace", durable=True) as writer:
                # A transaction that writes nothing flushes nothing.
                writer.execute("UPDATE chains SET writing = 1 WHERE session_id = ?", (session_id,))
            self._writer.check()

    def check(self) -> None:
        """See ``TraceStore.check``. Takes the file for this process, as ``begin`` does."""
        with self._lock:
            if self._closed:
                raise TraceUnavailableError("the trace store is closed")
            with self._writer.transaction(self._chains, "record events") as writer:
                writer.execute("PRAGMA user_version = 1")  # the least that is written
            self._writer.check()

    def close(self) -> None:
        """See ``TraceStore.close``."""
        with self._lock:
            self._closed = True
            failed: TraceUnavailableError | None = None
            for session_id in list(self._chains):
                try:
                    self.release(session_id)
                except TraceUnavailableError as error:
                    failed = failed or error
            with self._read_lock:
                if self._reader is not None:
                    self._reader.close()
                self._reader = None
            self._writer.close()
            if failed is not None:
                raise failed

    # --- read ------------------------------------------------------------------------------------------------------

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        with self._lock:
            chain = self._chains.get(session_id)
        if chain is not None:
            return chain.head
        with self._reading(session_id) as reader:
            line = _last_line(reader, session_id)
        if line is None:
            return None
        try:
            event = parse(line)
        except TraceError:
            return verify(self.read(session_id), session_id=session_id).head
        return Head(event.sequence, event.event_hash, event.timestamp)

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        count = -1 if limit is None else max(limit, 0)
        after = min(max(after, -1), 2**53)
        with self._reading(session_id) as reader:
            # By its number, where as many come before it as the numbers say; else by its place.
            query, start = _BY_NUMBER, after
            if after >= 0 and reader.execute(_BEFORE, (session_id, after)).fetchone() != (after + 1,):
                query, start = _BY_PLACE, after + 1
            rows = reader.execute(query, {"session": session_id, "start": start, "count": count})
            return [line for (line,) in rows]

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``; a transaction leaves nothing unfinished."""
        with self._reading(session_id):
            return b""

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        try:
            with self._reading(None) as reader:
                rows = reader.execute(_SESSIONS).fetchall()
        except UnknownTraceError:  # there is no file yet
            return []
        if self._writer.is_ours:
            return [TraceInfo(name, size, modified, live=name in self._chains) for name, size, modified, _ in rows]
        is_written = Claim.is_taken(lock_of(self._path))
        return [
            TraceInfo(name, size, modified, live=is_written and writing == 1) for name, size, modified, writing in rows
        ]

    def abandoned(self) -> list[str]:
        """See ``TraceStore.abandoned``. If there are any, this process becomes the one that writes the file."""
        with self._lock:
            if not self._writer.is_ours and self._path.exists() and not Claim.is_taken(lock_of(self._path)):
                with self._reading(None) as reader:
                    found = bool(being_written(reader))
                if found:
                    with self._writer.transaction(self._chains, "end a trace"):
                        pass
            left, self._writer.abandoned = self._writer.abandoned, []
            return [session_id for session_id in left if session_id not in self._chains]

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``. What is set aside goes to the table ``set_aside``."""
        with self._reading(session_id):
            pass
        with self._lock:
            if session_id in self._chains:
                raise TraceLockedError(
                    f"session {session_id} is being written by this process", hint="End the session first."
                )
            with self._writer.transaction(self._chains, "recover a trace", durable=True) as writer:
                recovery, _ = _recover(writer, session_id)
                if recovery.code is not None:
                    _measure(writer, session_id)
                return recovery

    # --- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self, session_id: str | None) -> Generator[sqlite3.Connection]:
        """A connection to read with, and to read a chain that is there, if one is named."""
        with self._read_lock:
            try:
                if self._reader is None and self._path.exists():
                    self._reader = open_to_query(self._path)
                reader = self._reader
                if reader is None or not (session_id is None or _is_there(reader, session_id)):
                    if reader is not None and _was_pruned(reader, session_id or ""):
                        raise UnknownTraceError(f"the trace of session {session_id} was pruned", hint=_PRUNED)
                    raise UnknownTraceError(f"no trace of session {(session_id or '')[:80]!r}")
                yield reader
            except sqlite3.Error as error:
                raise TraceUnavailableError(f"can't read a trace: {error}", hint=_FREE) from error


def open_to_query(path: Path) -> sqlite3.Connection:
    """A connection that can only read, and that threads may hand to each other.

    Raises:
        sqlite3.Error: it can't be opened.
        TraceUnavailableError: there is in it what no database of traces has.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        check_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def orphans(path: Path) -> list[tuple[str, int]]:
    """The sessions that have events in a database and are not in its list of chains, and how many events.

    Raises:
        TraceUnavailableError: it can't be read.
    """
    try:
        connection = open_to_query(path)
        try:
            return [(str(session_id), count) for session_id, count in connection.execute(_ORPHANS)]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TraceUnavailableError(f"can't read a trace: {error}", hint=_FREE) from error


def _is_there(reader: sqlite3.Connection, session_id: str) -> bool:
    query = "SELECT 1 FROM chains WHERE session_id = ?"
    return is_identifier(session_id) and reader.execute(query, (session_id,)).fetchone() is not None


def _was_pruned(connection: sqlite3.Connection, session_id: str) -> bool:
    with suppress(sqlite3.OperationalError):  # a database nothing was pruned from yet may have no such table
        return connection.execute("SELECT 1 FROM pruned WHERE session_id = ?", (session_id,)).fetchone() is not None
    return False


def _last_line(connection: sqlite3.Connection, session_id: str) -> bytes | None:
    query = "SELECT COALESCE(CAST(line AS BLOB), X'00') FROM events WHERE session_id = ? ORDER BY sequence DESC LIMIT 1"
    row = connection.execute(query, (session_id,)).fetchone()
    return row[0] if row is not None else None


def _recover(writer: sqlite3.Connection, session_id: str) -> tuple[Recovery, Head | None]:
    """Keep the longest valid prefix of a chain; the rest goes to ``set_aside``, in the transaction under way."""
    rows = writer.execute(_BY_NUMBER, {"session": session_id, "start": -1, "count": -1})
    check = verify((line for (line,) in rows), session_id=session_id)
    rest = writer.execute(
        "SELECT line FROM events WHERE session_id = ? ORDER BY sequence LIMIT -1 OFFSET ?", (session_id, check.events)
    ).fetchall()
    if not rest:
        return Recovery(session_id, check.events, 0, None), check.head
    (number,) = writer.execute(
        "SELECT COALESCE(MAX(number), 0) FROM set_aside WHERE session_id = ?", (session_id,)
    ).fetchone()
    writer.executemany(
        "INSERT INTO set_aside VALUES (?, ?, ?)",
        [(session_id, number + place, line) for place, (line,) in enumerate(rest, 1)],
    )
    writer.execute(
        "DELETE FROM events WHERE session_id = :session AND sequence NOT IN "
        "(SELECT sequence FROM events WHERE session_id = :session ORDER BY sequence LIMIT :kept)",
        {"session": session_id, "kept": check.events},
    )
    size = sum(len(line) + 1 for (line,) in rest)
    return Recovery(session_id, check.events, size, "table set_aside", check.code), check.head


def _measure(writer: sqlite3.Connection, session_id: str) -> None:
    writer.execute(
        "UPDATE chains SET size_bytes = (SELECT COALESCE(SUM(LENGTH(line) + 1), 0) FROM events WHERE session_id = :session) "
        "WHERE session_id = :session",
        {"session": session_id},
    )


def _not_written(session_id: str) -> UnknownTraceError:
    return UnknownTraceError(f"session {session_id[:80]!r} is not being written")
