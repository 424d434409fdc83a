"""The one small SQLite database of a data folder.

Rule: rollback journal and ``BEGIN IMMEDIATE``, so that several processes of one person share it safely (no WAL: SQLite before
3.51.3 can corrupt it with several writers). Nothing is created before the first use.
"""

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cra_mcp.errors import CRAError
from cra_mcp.folders import give_back, make_private

_BUSY_TIMEOUT_S = 5.0


class StateUnavailableError(CRAError):
    """The shared state can't be read or written now. What depended on it is refused."""

    default_code = "state_unavailable"


class Database:
    """A lazily opened connection, safe to use from any thread.

    Args:
        path: the file, or None for a database that lives in this object only.
        schema: ``CREATE ... IF NOT EXISTS`` statements, run once when the database is opened.
    """

    def __init__(self, path: Path | None, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """One ``BEGIN IMMEDIATE`` transaction: committed at the end, rolled back on any error.

        Raises:
            StateUnavailableError: the database can't be opened, read or written.
        """
        with self._lock:
            try:
                connection = self._open()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.commit()
            except (sqlite3.Error, OSError) as error:
                raise _unusable(error) from error

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """One statement that only reads, without taking the right to write.

        Raises:
            StateUnavailableError: the database can't be opened or read.
        """
        with self._lock:
            try:
                yield self._open()
            except (sqlite3.Error, OSError) as error:
                raise _unusable(error) from error

    def version(self) -> int:
        """A number that changes whenever another connection has changed the database. Raises as ``reading``."""
        with self.reading() as connection:
            return connection.execute("PRAGMA data_version").fetchone()[0]

    def exists(self) -> bool:
        """Whether opening it would find something to read."""
        return self._connection is not None or (self._path is not None and self._path.exists())

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path is not None:
                make_private(self._path.parent)
                self._path.touch(mode=0o600, exist_ok=True)
                give_back(self._path, 0o600)
            connection = sqlite3.connect(
                self._path or ":memory:", timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.executescript(self._schema)
            self._connection = connection
        return self._connection


def _unusable(error: Exception) -> StateUnavailableError:
    return StateUnavailableError(
        f"the state database can't be used ({type(error).__name__})",
        hint="check that the data folder exists, is writable and has free space",
    )
