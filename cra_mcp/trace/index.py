"""An index over the traces of a store: what makes lists and searches quick. It can be deleted at any time.

Rule: the traces are the truth; the index follows them. One that anybody else has changed, or that says what can't be, is made anew:
it never says more than the traces, nor less. It verifies nothing.
Source: specs/trace.md, "Index".
"""

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cra_mcp.errors import TraceLockedError, TraceUnavailableError
from cra_mcp.folders import open_private
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.index_builder import BATCH, Builder, Progress
from cra_mcp.trace.index_seal import IndexSeal
from cra_mcp.trace.index_source import IndexSource, Part

VERSION = 2
_SCHEMA = """
CREATE TABLE sessions (
  session INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, agent_id TEXT, goal TEXT, started TEXT, ended TEXT,
  events INTEGER NOT NULL DEFAULT 0, unreadable INTEGER NOT NULL DEFAULT 0,
  size_bytes INTEGER NOT NULL DEFAULT 0, modified_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sessions_by_time ON sessions (modified_ns, session_id);
CREATE TABLE parts (
  name TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, identity INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  modified_ns INTEGER NOT NULL, indexed_to INTEGER NOT NULL, last_line BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
  event INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, sequence INTEGER NOT NULL, timestamp TEXT NOT NULL,
  event_type TEXT NOT NULL, action_id TEXT, decision TEXT, policy_id TEXT, duration_ms REAL, event_id TEXT, hash_start INTEGER
);
CREATE INDEX events_of_sessions ON events (session, sequence);
CREATE INDEX events_by_id ON events (event_id);
CREATE INDEX events_by_hash ON events (hash_start);
CREATE TABLE gone (event INTEGER PRIMARY KEY);
CREATE VIRTUAL TABLE event_text USING fts5(text, content='', detail=none, tokenize="unicode61 remove_diacritics 2");
CREATE VIEW event_list AS
  SELECT event, session_id, agent_id, sequence, timestamp, event_type, action_id, decision, policy_id, duration_ms, event_id
  FROM events JOIN sessions USING (session);
CREATE TABLE field_values (field TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (field, value)) WITHOUT ROWID;
PRAGMA user_version = 2;
"""
_BUSY_S = 10.0
_GONE_SHARE = 4  # rebuilt when one in so many terms leads nowhere


@dataclass(frozen=True, slots=True)
class Update:
    """What an update did: events added and taken out, and lines that no event could be made of."""

    added: int = 0
    removed: int = 0
    unreadable: int = 0


class _Known(NamedTuple):
    """What the index knows of a part."""

    identity: int
    modified_ns: int
    indexed_to: int
    last_line: bytes

    def is_same(self, part: Part) -> bool:
        """Whether nothing tells that it changed."""
        return (self.identity, self.indexed_to, self.modified_ns) == (part.identity, part.length, part.modified_ns)


class TraceIndex:
    """The index of one store. Opened with the first use; not safe to share between threads.

    Args:
        source: where the traces are; it says where the index is kept too.
        seals: where it is kept what the index was like; None: beside it, where whoever can change the one can change the other.
    """

    def __init__(self, source: IndexSource, seals: Path | None = None) -> None:
        self._source = source
        self._path = source.index_path
        self._seal = IndexSeal(self._path, seals if seals is not None else self._path.parent)
        self._connection: sqlite3.Connection | None = None

    def update(self, progress: Progress | None = None) -> Update | None:
        """Bring the index up to date with the traces. None where another process is doing that now.

        Raises:
            TraceUnavailableError: a trace can't be read, or the index not written.
        """
        if not self._source.is_there():
            return Update()
        with _usable():
            try:
                claim = Claim.take(
                    self._path.with_name(f"{self._path.name}.lock"), "the index is being updated", "Wait for it."
                )
            except TraceLockedError:
                return None
            try:
                if not self._seal.holds():
                    self.discard()
                return self._sealed(progress or _say_nothing)
            finally:
                claim.give_up()

    def _sealed(self, progress: Progress) -> Update:
        """Follow the traces, and seal what came of it."""
        try:
            done = self._follow(progress)
        except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.discard()  # it is no database, a damaged one, or holds what nobody wrote there
            done = self._follow(progress)
        self._seal.set()
        return done

    def rebuild(self, progress: Progress | None = None) -> Update | None:
        """Make the index anew. Raises as ``update``."""
        with _usable():
            self.discard()
        return self.update(progress)

    def discard(self) -> None:
        """Delete the index.

        Raises:
            OSError: it can't be deleted.
        """
        self.close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(f"{self._path.name}{suffix}").unlink()

    def exists(self) -> bool:
        """Whether it was ever made."""
        return self._path.is_file()

    def is_live(self, session_id: str) -> bool:
        """Whether a chain has a writer now.

        Raises:
            TraceUnavailableError: the traces can't be read.
        """
        with _usable():
            return self._source.is_live(session_id)

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection to query, if only of an empty index.

        Raises:
            TraceUnavailableError: the index can't be used.
        """
        with _usable():
            if self._connection is None and self._source.is_there() and not self._seal.holds():
                raise sqlite3.OperationalError("another command is bringing it up to date")
            yield self._open()

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._source.close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if not self._source.is_there():
            connection = sqlite3.connect(":memory:", isolation_level=None)
        else:
            with suppress(FileExistsError):
                os.close(open_private(self._path, os.O_RDWR | os.O_EXCL))
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                _make(connection, empty=version == 0)
            # What a power cut destroys is made anew; what is deleted is not to be read from free pages.
            connection.executescript("PRAGMA synchronous = OFF; PRAGMA secure_delete = ON; PRAGMA cache_size = -65536")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _follow(self, progress: Progress) -> Update:
        connection = self._open()
        now = {part.name: part for part in self._source.parts()}
        rows = connection.execute("SELECT name, identity, modified_ns, indexed_to, last_line FROM parts")
        known = {name: _Known(*rest) for name, *rest in rows}
        differing = [part for part in now.values() if not (part.name in known and known[part.name].is_same(part))]
        # Of a chain of which a part is not what it was, or gone, all is indexed anew.
        anew = {name[:36] for name in known.keys() - now.keys()}
        anew |= {
            part.session_id for part in differing if part.name in known and not self._continues(part, known[part.name])
        }
        removed = sum(_forget(connection, session_id) for session_id in sorted(anew))
        differing = [part for part in now.values() if part.session_id in anew or part in differing]
        fresh = _Known(0, 0, 0, b"")
        starts = {part.name: fresh if part.session_id in anew else known.get(part.name, fresh) for part in differing}
        total = sum(part.length - starts[part.name].indexed_to for part in differing)
        builder = Builder(connection, self._source, progress, total)
        for part in sorted(differing, key=lambda part: (part.session_id, "/" in part.name, part.name)):
            builder.take(part, starts[part.name].indexed_to, starts[part.name].last_line)
        builder.store()
        if builder.added > BATCH:
            connection.execute("INSERT INTO event_text (event_text) VALUES ('optimize')")
        (lost, left) = connection.execute(
            "SELECT (SELECT COUNT(*) FROM gone), (SELECT COUNT(*) FROM events)"
        ).fetchone()
        if lost > BATCH and lost * _GONE_SHARE > left:
            self.discard()
            return self._follow(progress)
        return Update(builder.added, removed, builder.unreadable)

    def _continues(self, part: Part, known: _Known) -> bool:
        """Whether all that was indexed of a part is still its beginning, as far as its last line tells."""
        if part.identity != known.identity or part.length < known.indexed_to:
            return False
        if part.length == known.indexed_to and part.modified_ns != known.modified_ns:
            return False  # it was written to, and did not grow
        return known.indexed_to == 0 or self._source.holds(part, known.indexed_to, known.last_line)


def _make(connection: sqlite3.Connection, *, empty: bool) -> None:
    """Make the tables of an empty index; one of another version is emptied first.

    Raises:
        sqlite3.DatabaseError: it is none.
    """
    if not empty:
        raise sqlite3.DatabaseError("an index of another version")
    connection.executescript(f"BEGIN; {_SCHEMA}; COMMIT")


def _forget(connection: sqlite3.Connection, session_id: str) -> int:
    """Take a session out; how many events it had. What its text is found by stays, and leads nowhere."""
    row = connection.execute("SELECT session, events FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
    if row is None:
        return 0
    session, events = row
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("INSERT INTO gone SELECT event FROM events WHERE session = ?", (session,))
        for table in ("events", "parts", "sessions"):
            connection.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608 - names of ours
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return events


def _say_nothing(done: int, total: int) -> None:
    pass


@contextmanager
def _usable() -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError) as error:
        raise TraceUnavailableError(
            f"the index of the traces can't be used: {error}",
            hint="Check that the folder it is in is writable and has room; `cra-mcp trace index --rebuild` makes it anew.",
        ) from error
