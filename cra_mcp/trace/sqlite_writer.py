"""The one connection that writes a database of traces, and whether what it writes is still where it was put.

Rule: one process writes, over one connection. Where its files are not as the last transaction left them, and after an error of the
disk, the database is opened anew, and must be the same file and hold every event that was acknowledged. While chains are written it
is never made anew. Source: specs/trace.md, "SQLite".
"""

import logging
import os
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from cra_mcp.errors import TraceError, TraceUnavailableError
from cra_mcp.folders import make_private, open_private
from cra_mcp.trace.claim import Claim
from cra_mcp.trace.disk import Disk
from cra_mcp.trace.event import Head, parse
from cra_mcp.trace.standing import Stamp, check_folder, lost, stamp_of

_log = logging.getLogger("cra_mcp.trace")
_BUSY_S = 5.0
_FREE = "Free some disk space, or look at the disk; recording goes on by itself."

SCHEMA = """
CREATE TABLE IF NOT EXISTS chains (
  session_id TEXT PRIMARY KEY, modified TEXT NOT NULL, size_bytes INTEGER NOT NULL, writing INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
  session_id TEXT NOT NULL REFERENCES chains,
  sequence INTEGER NOT NULL CHECK (sequence >= 0),
  line BLOB NOT NULL,
  PRIMARY KEY (session_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS set_aside (
  session_id TEXT NOT NULL, number INTEGER NOT NULL, line BLOB NOT NULL, PRIMARY KEY (session_id, number)
) STRICT;
CREATE TABLE IF NOT EXISTS pruned (session_id TEXT PRIMARY KEY, statement BLOB NOT NULL) STRICT;
"""


_FOREIGN = """
SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index') OR (type = 'table' AND sql LIKE 'CREATE VIRTUAL%')
"""


class Stamps(NamedTuple):
    """What the database and its write-ahead log are like."""

    database: Stamp | None = None
    log: Stamp | None = None


class Written(Protocol):
    """A chain that is being written."""

    @property
    def head(self) -> Head | None:
        """The last event that was acknowledged."""
        ...


class Writer:
    """Writes one database. The caller serialises all calls; nothing is opened, claimed or made before the first transaction.

    Args:
        path: the database.
        insecure: its folder may be one that others can write to.
    """

    def __init__(self, path: Path, *, insecure: bool = False) -> None:
        self._path = path
        self._insecure = insecure
        self._files = [os.path.abspath(f"{path}{suffix}") for suffix in ("", "-wal")]
        self._claim: Claim | None = None
        self.connection: sqlite3.Connection | None = None
        self._is_full: bool | None = None  # the setting of the connection
        self._left = Stamps()  # as the last transaction left the files
        self._trouble: str | None = None
        self.abandoned: list[str] = []
        """The chains that the process which wrote it before did not give up."""

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that writes the database."""
        return self._claim is not None

    @contextmanager
    def transaction(
        self, chains: Mapping[str, Written], what: str, *, durable: bool = False
    ) -> Generator[sqlite3.Connection]:
        """All of it is stored, or nothing; durable: and on disk.

        Args:
            chains: those being written, by session: what was acknowledged of them must be there.
            what: what is being done, for the error.
            durable: flush it to disk.

        Raises:
            TraceLockedError: another process writes the file.
            TraceUnavailableError: nothing was stored.
        """
        try:
            with self._told():
                connection = self._ready(chains)
                if durable != self._is_full:
                    # A commit leaves the log with the kernel; FULL flushes the log as well, and with it all that came before.
                    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._is_full = durable
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                now = self._stamps()
                _check_same(self._left, now, self._path)
                self._left = now
        except (sqlite3.Error, OSError) as error:
            self.drop()
            raise _unavailable(what, error) from error

    def check(self) -> None:
        """See that others can see the claim: if it was removed it is made again, if nobody took it."""
        if self._claim is not None and not self._claim.holds():
            raise TraceUnavailableError(
                f"can't record an event: the lock of {self._path.name} was removed, and can't be made again",
                hint="Another process may write this database: end that one, or this one.",
                reason="unlocked",
            )

    def drop(self) -> None:
        """Forget what the connection believes; the claim stays."""
        connection, self.connection, self._is_full = self.connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close it and give the claim up. Safe to call twice."""
        self.drop()
        if self._claim is not None:
            self._claim.give_up()
            self._claim = None

    # --- inside ----------------------------------------------------------------------------------------------------

    def _ready(self, chains: Mapping[str, Written]) -> sqlite3.Connection:
        if self.connection is not None and self._stamps() != self._left:
            self.drop()
        return self.connection or self._open(chains)

    def _open(self, chains: Mapping[str, Written]) -> sqlite3.Connection:
        if chains:
            _check_same(self._left, self._stamps(), self._path)
        else:
            make_private(self._path.parent)
            check_folder(self._path.parent, allowed=self._insecure)
            if self._claim is not None and not self._claim.holds():  # the folder may be another one
                self.close()
        self.check()
        if self._claim is None:
            self._claim = claim_database(self._path)
        if not chains:
            with suppress(FileExistsError):
                os.close(open_private(self._path, os.O_RDWR | os.O_EXCL))
                Disk().sync_folder(self._path.parent)
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # never made by SQLite
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            check_schema(connection, self._path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            # Whatever the last process that wrote it did not get to say.
            self.abandoned += [each for each in being_written(connection) if each not in chains]
            connection.execute("UPDATE chains SET writing = 0")
            for session_id, chain in chains.items():
                _check_chain(connection, session_id, chain.head)
                connection.execute("UPDATE chains SET writing = 1 WHERE session_id = ?", (session_id,))
        except BaseException:
            connection.close()
            raise
        self._left, self.connection = self._stamps(), connection
        return connection

    def _stamps(self) -> Stamps:
        return Stamps(*map(stamp_of, self._files))

    @contextmanager
    def _told(self) -> Generator[None]:
        """Log what keeps the database from being written, once, and that nothing does any more."""
        try:
            yield
        except TraceUnavailableError as error:
            if error.reason is not None:
                self._tell(error.message, error.hint or "")
            raise
        except (sqlite3.Error, OSError) as error:
            told = _unavailable("record events", error)
            self._tell(told.message, told.hint or "")
            raise
        if self._trouble is not None:
            self._trouble = None
            _log.warning("%s: events are recorded again", self._path.name)

    def _tell(self, message: str, hint: str) -> None:
        if self._trouble != message:
            self._trouble = message
            _log.error("%s: %s. %s", self._path.name, message, hint)


def _unavailable(what: str, error: Exception) -> TraceUnavailableError:
    """The error for one of SQLite or of the disk."""
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return TraceUnavailableError(
            f"can't {what}: the database is damaged ({error})",
            hint="Put back what it held from a copy, or give the server another file.",
            reason="changed",
        )
    return TraceUnavailableError(f"can't {what}: {error}", hint=_FREE)


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database in which something else than tables stands, or could act: it is not one that this program made.

    Raises:
        TraceUnavailableError: there are triggers, views or virtual tables.
    """
    connection.execute("PRAGMA trusted_schema = OFF")
    foreign = connection.execute(_FOREIGN).fetchone()
    if foreign is not None:
        raise TraceUnavailableError(
            f"{path.name} has a trigger, view or virtual table, which no database of traces has",
            hint="Find out who added it (`SELECT * FROM sqlite_master`), and put the database back from a copy.",
            reason="foreign",
        )


def claim_database(path: Path) -> Claim:
    """The right to write a database. Raises as ``Claim.take``."""
    return Claim.take(
        lock_of(path),
        "the trace database is being written",
        "One process writes it at a time: end that one, or give this one another file.",
    )


def lock_of(path: Path) -> Path:
    """The lock of the process that writes a database."""
    return path.with_name(f"{path.name}.lock")


def being_written(connection: sqlite3.Connection) -> list[str]:
    """The chains that a process writes, or did not give up before it died."""
    return [session_id for (session_id,) in connection.execute("SELECT session_id FROM chains WHERE writing = 1")]


def _check_same(before: Stamps, now: Stamps, path: Path) -> None:
    """Refuse to go on with another file than the one chains were begun in.

    Raises:
        TraceUnavailableError: it is another, or gone.
    """
    if now.database is None:
        raise lost("missing", path.name)
    if before.database is not None and before.database[0] != now.database[0]:
        raise lost("replaced", path.name)


def _check_chain(connection: sqlite3.Connection, session_id: str, head: Head | None) -> None:
    """Refuse to go on with a chain that lacks what was acknowledged last; what follows that was not, and is set aside."""
    if head is not None:
        query = "SELECT line FROM events WHERE session_id = ? AND sequence = ?"
        row = connection.execute(query, (session_id, head.sequence)).fetchone()
        if row is None or _hash_of(row[0]) != head.event_hash:
            raise TraceUnavailableError(
                f"the database lost events of session {session_id}",
                hint="Put back what it held, or end the session and start another.",
                reason="cut" if row is None else "changed",
            )
    last = head.sequence if head is not None else -1
    connection.execute(
        "INSERT INTO set_aside SELECT session_id, (SELECT COALESCE(MAX(number), 0) FROM set_aside WHERE session_id = :session) "
        "+ ROW_NUMBER() OVER (ORDER BY sequence), line FROM events WHERE session_id = :session AND sequence > :last",
        {"session": session_id, "last": last},
    )
    connection.execute("DELETE FROM events WHERE session_id = ? AND sequence > ?", (session_id, last))


def _hash_of(line: object) -> str | None:
    try:
        return parse(line).event_hash if isinstance(line, bytes) else None
    except TraceError:
        return None
