"""An index over the trace files of a folder: what makes lists and searches quick. It can be deleted at any time.

Rule: the files are the truth; the index follows them, and believes nothing of itself that a file contradicts. It verifies nothing.
Source: specs/trace.md, "Index".
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from cra_mcp.errors import TraceLockedError, TraceUnavailableError
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.entries import PLACES, Entry, entry_of, terms
from cra_mcp.trace.event import is_identifier
from cra_mcp.trace.segments import FOLDER, SUFFIX, open_to_read

NAME = "index.sqlite3"
VERSION = 1
_SCHEMA = """
CREATE TABLE sessions (
  session INTEGER PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, agent_id TEXT, goal TEXT, started TEXT, ended TEXT,
  events INTEGER NOT NULL DEFAULT 0, unreadable INTEGER NOT NULL DEFAULT 0,
  size_bytes INTEGER NOT NULL DEFAULT 0, modified_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX sessions_by_time ON sessions (modified_ns, session_id);
CREATE TABLE files (
  name TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, inode INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  modified_ns INTEGER NOT NULL, indexed_bytes INTEGER NOT NULL, last_line BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
  event INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, sequence INTEGER NOT NULL, timestamp TEXT NOT NULL,
  event_type TEXT NOT NULL, action_id TEXT, decision TEXT, policy_id TEXT, duration_ms REAL
);
CREATE INDEX events_of_sessions ON events (session, sequence);
CREATE TABLE gone (event INTEGER PRIMARY KEY);
CREATE VIRTUAL TABLE event_text USING fts5(text, content='', detail=none, tokenize="unicode61 remove_diacritics 2");
CREATE VIEW event_list AS
  SELECT event, session_id, agent_id, sequence, timestamp, event_type, action_id, decision, policy_id, duration_ms
  FROM events JOIN sessions USING (session);
CREATE TABLE field_values (field TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (field, value)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
_BUSY_S = 10.0
_BATCH = 20_000
_SPILL = PLACES * PLACES  # how far ids of a crowded instant may reach into what follows it
_GONE_SHARE = 4  # rebuilt when one in so many terms leads nowhere

Progress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update did: events added and taken out, and lines that no event could be made of."""

    added: int = 0
    removed: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A trace file as it is on disk now; ``name`` is relative to the folder."""

    name: str
    session_id: str
    inode: int
    size_bytes: int
    modified_ns: int


class _Known(NamedTuple):
    """What the index knows of a file."""

    inode: int
    size_bytes: int
    modified_ns: int
    indexed_bytes: int
    last_line: bytes

    def is_same(self, file: _File) -> bool:
        """Whether nothing tells that it changed."""
        return (self.inode, self.indexed_bytes, self.modified_ns) == (file.inode, file.size_bytes, file.modified_ns)


class TraceIndex:
    """The index of one folder. Opened with the first use; not safe to share between threads.

    Args:
        directory: where the traces are; the index is kept there too.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._connection: sqlite3.Connection | None = None

    def update(self, progress: Progress | None = None) -> Update | None:
        """Bring the index up to date with the files. None where another process is doing that now.

        Raises:
            TraceUnavailableError: a file can't be read, or the index not written.
        """
        if not self._directory.is_dir():
            return Update()
        with _usable():
            try:
                claim = Claim.take(self._directory / f"{NAME}.lock", "the index is being updated", "Wait for it.")
            except TraceLockedError:
                return None
            try:
                return self._follow(progress or _say_nothing)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self.discard()  # it is no database, or a damaged one
                return self._follow(progress or _say_nothing)
            finally:
                claim.give_up()

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
        for name in (NAME, f"{NAME}-journal"):
            with suppress(FileNotFoundError):
                (self._directory / name).unlink()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection to query, if only of an empty index.

        Raises:
            TraceUnavailableError: the index can't be used.
        """
        with _usable():
            yield self._open()

    def close(self) -> None:
        """Close it. Safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- inside ----------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if not self._directory.is_dir():
            connection = sqlite3.connect(":memory:", isolation_level=None)
        else:
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
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
        now = {file.name: file for file in _files(self._directory)}
        rows = connection.execute("SELECT name, inode, size_bytes, modified_ns, indexed_bytes, last_line FROM files")
        known = {name: _Known(*rest) for name, *rest in rows}
        differing = [file for file in now.values() if not (file.name in known and known[file.name].is_same(file))]
        # Of a chain of which a file is not what it was, or gone, all is indexed anew.
        anew = {name[:36] for name in known.keys() - now.keys()}
        anew |= {
            file.session_id for file in differing if file.name in known and not self._continues(file, known[file.name])
        }
        removed = sum(_forget(connection, session_id) for session_id in sorted(anew))
        differing = [file for file in now.values() if file.session_id in anew or file in differing]
        fresh = _Known(0, 0, 0, 0, b"")
        starts = {file.name: fresh if file.session_id in anew else known.get(file.name, fresh) for file in differing}
        total = sum(file.size_bytes - starts[file.name].indexed_bytes for file in differing)
        reader = _Reader(connection, self._directory, progress, total)
        for file in sorted(differing, key=lambda file: (file.session_id, "/" in file.name, file.name)):
            reader.take(file, starts[file.name].indexed_bytes, starts[file.name].last_line)
        reader.store()
        if reader.added > _BATCH:
            connection.execute("INSERT INTO event_text (event_text) VALUES ('optimize')")
        (lost, left) = connection.execute(
            "SELECT (SELECT COUNT(*) FROM gone), (SELECT COUNT(*) FROM events)"
        ).fetchone()
        if lost > _BATCH and lost * _GONE_SHARE > left:
            self.discard()
            return self._follow(progress)
        return Update(reader.added, removed, reader.unreadable)

    def _continues(self, file: _File, known: "_Known") -> bool:
        """Whether all that was indexed of a file is still its beginning, as far as its last line tells."""
        if file.inode != known.inode or file.size_bytes < known.indexed_bytes:
            return False
        with open_to_read(self._directory / file.name) as opened:
            opened.seek(known.indexed_bytes - len(known.last_line))
            return opened.read(len(known.last_line)) == known.last_line


class _Reader:
    """Makes rows of lines, a batch at a time."""

    def __init__(self, connection: sqlite3.Connection, directory: Path, progress: Progress, total: int) -> None:
        self._connection = connection
        self._directory = directory
        self._progress = progress
        self._total = total
        self._done = 0
        self._rows: dict[int, tuple[int, Entry]] = {}  # by id: session, entry
        self._files: dict[str, tuple[object, ...]] = {}
        self._bad: Counter[int] = Counter()
        self._free: dict[int, int] = {}  # where to look for an id in an instant that is crowded
        self._values: set[tuple[str, str]] = set()
        self._agents: dict[int, str | None] = dict(connection.execute("SELECT session, agent_id FROM sessions"))
        self.added = 0
        self.unreadable = 0

    def take(self, file: _File, start: int, last_line: bytes) -> None:
        """Index a file from byte ``start`` on, which is the end of ``last_line``."""
        session = self._session(file.session_id)
        end, before = start, -1
        with open_to_read(self._directory / file.name) as opened:
            opened.seek(start)
            for line in opened:
                if not line.endswith(b"\n"):
                    break
                end, last_line = end + len(line), line
                self._done += len(line)
                before = self._add(session, line, before)
                if len(self._rows) >= _BATCH:
                    self._note(file, session, end, last_line)
                    self.store()
        self._note(file, session, end, last_line)

    def store(self) -> None:
        """Write the batch so far, with how far each file was read: all of it or nothing."""
        if not self._files:
            return
        connection = self._connection
        rows = sorted(self._rows.items())  # the text index takes ids in order, or slowly
        sessions = {cast("int", session) for _, session, *_ in self._files.values()} | set(self._bad)
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((place, session, *entry.columns) for place, (session, entry) in rows),
            )
            connection.executemany(
                "INSERT INTO event_text (rowid, text) VALUES (?, ?)",
                ((place, terms(entry, session, self._agents.get(session))) for place, (session, entry) in rows),
            )
            values = {
                pair for session, entry in self._rows.values() for pair in entry.fields(self._agents.get(session))
            }
            connection.executemany("INSERT OR IGNORE INTO field_values VALUES (?, ?)", values - self._values)
            connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", self._files.values())
            connection.executemany(_COUNT, ((self._bad[session], session) for session in sessions))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._values |= values
        self.added += len(rows)
        self.unreadable += self._bad.total()
        self._rows, self._files, self._bad = {}, {}, Counter()
        self._progress(self._done, self._total)

    def _add(self, session: int, line: bytes, before: int) -> int:
        """Take one line in; the id it got, or ``before``, that of the line before."""
        entry = entry_of(line)
        if entry is None:
            self._bad[session] += 1
            return before
        # An id sorts by time, and among events of one chain and instant as they come.
        place = max(entry.place, before + 1) if before < entry.place + _SPILL else entry.place
        if self._is_taken(place):
            place = max(place, self._free.get(entry.place, place))
            while self._is_taken(place):
                place += 1
            self._free[entry.place] = place + 1
        self._rows[place] = (session, entry)
        if entry.columns[2] in {"session.started", "session.ended"}:
            self._describe(session, entry)
        return place

    def _is_taken(self, place: int) -> bool:
        return place in self._rows or self._connection.execute(_TAKEN, (place,)).fetchone() is not None

    def _describe(self, session: int, entry: Entry) -> None:
        """What the first and last event of a chain say of all of it."""
        texts = {name: value for name, value in entry.payload.items() if isinstance(value, str)}
        if entry.columns[2] == "session.started":
            self._agents[session] = texts.get("agent_id")
            query = "UPDATE sessions SET agent_id = ?, goal = ?, started = ? WHERE session = ?"
            values = (texts.get("agent_id"), texts.get("goal"), entry.columns[1], session)
        else:
            query, values = "UPDATE sessions SET ended = ? WHERE session = ?", (texts.get("reason"), session)
        self._connection.execute(query, values)

    def _note(self, file: _File, session: int, end: int, last_line: bytes) -> None:
        """Remember how far a file was read; one that has more beyond differs the next time."""
        seen = (file.inode, file.size_bytes, file.modified_ns)
        self._files[file.name] = (file.name, session, *seen, end, last_line)

    def _session(self, session_id: str) -> int:
        connection = self._connection
        connection.execute("INSERT OR IGNORE INTO sessions (session_id) VALUES (?)", (session_id,))
        (session,) = connection.execute("SELECT session FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return session


_TAKEN = "SELECT 1 FROM events WHERE event = ?1 UNION ALL SELECT 1 FROM gone WHERE event = ?1"
_COUNT = """
UPDATE sessions SET unreadable = unreadable + ?1,
  events = (SELECT COUNT(*) FROM events WHERE events.session = ?2),
  size_bytes = (SELECT TOTAL(size_bytes) FROM files WHERE files.session = ?2),
  modified_ns = (SELECT MAX(modified_ns) FROM files WHERE files.session = ?2)
WHERE session = ?2
"""


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
        for table in ("events", "files", "sessions"):
            connection.execute(f"DELETE FROM {table} WHERE session = ?", (session,))  # noqa: S608 - names of ours
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return events


def _files(directory: Path) -> Iterator[_File]:
    """The trace files of a folder as they are now."""
    for entry in os.scandir(directory):
        session_id, kind = entry.name[:36], entry.name[36:]
        if kind not in {SUFFIX, FOLDER} or not is_identifier(session_id):
            continue
        if kind == SUFFIX:
            yield from _file(entry, session_id, entry.name)
        elif entry.is_dir(follow_symlinks=False):
            for inside in os.scandir(entry.path):
                if inside.name.endswith(".jsonl"):
                    yield from _file(inside, session_id, f"{entry.name}/{inside.name}")


def _file(entry: "os.DirEntry[str]", session_id: str, name: str) -> Iterator[_File]:
    with suppress(FileNotFoundError):  # gone meanwhile
        if entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            yield _File(name, session_id, entry.inode(), status.st_size, status.st_mtime_ns)


def _say_nothing(done: int, total: int) -> None:
    pass


@contextmanager
def _usable() -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise TraceUnavailableError(
            f"the index of the traces can't be used: {error}",
            hint="Check that the trace folder is writable and has room; `cra-mcp trace index --rebuild` makes it anew.",
        ) from error
