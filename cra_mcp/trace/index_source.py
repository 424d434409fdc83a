"""What an index is made from: the trace files of a folder, or the chains of a SQLite store.

Rule: a source only reads, and says of each part where it ends and what it ends with, so that an index can tell growth from change.
Source: specs/trace.md, "Index".
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cra_mcp.trace.claim import Claim, is_chain_claimed
from cra_mcp.trace.event import is_identifier
from cra_mcp.trace.segments import FOLDER, SEGMENT_NAME, SUFFIX, open_to_read
from cra_mcp.trace.sqlite import open_to_query
from cra_mcp.trace.sqlite_writer import lock_of

NAME = "index.sqlite3"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of one chain, as it is now.

    Attributes:
        name: tells it from all others; begins with the session id.
        session_id: the chain.
        identity: another one for another file under the same name.
        length: how far it can be read: bytes of a file, events of a chain in a database.
        size_bytes: of its lines.
        modified_ns: when it was last written to, nanoseconds since the epoch.
    """

    name: str
    session_id: str
    identity: int
    length: int
    size_bytes: int
    modified_ns: int


class IndexSource(Protocol):
    """Where the chains are that an index is made of. Used by one thread at a time."""

    index_path: Path
    """Where their index is kept."""

    def is_there(self) -> bool:
        """Whether there is anything an index could be kept beside."""
        ...

    def parts(self) -> Iterator[Part]:
        """All of it, as it is now. Raises ``OSError`` or ``sqlite3.Error`` where it can't be read, as the others do."""
        ...

    def lines(self, part: Part, start: int) -> Iterator[tuple[bytes, int]]:
        """The whole lines of a part from ``start`` on, and where each ends."""
        ...

    def holds(self, part: Part, end: int, line: bytes) -> bool:
        """Whether ``line``, as ``lines`` gave it, is what ends at ``end``."""
        ...

    def is_live(self, session_id: str) -> bool:
        """Whether a chain has a writer now."""
        ...

    def close(self) -> None:
        """Let go of what was opened to read. Safe to call twice."""
        ...


class FileSource:
    """The trace files of a folder. Meets ``IndexSource``."""

    def __init__(self, directory: Path) -> None:
        self.index_path = directory / NAME
        self._directory = directory

    def is_there(self) -> bool:
        """See ``IndexSource.is_there``."""
        return self._directory.is_dir()

    def parts(self) -> Iterator[Part]:
        """See ``IndexSource.parts``."""
        for entry in os.scandir(self._directory):
            session_id, kind = entry.name[:36], entry.name[36:]
            if kind not in {SUFFIX, FOLDER} or not is_identifier(session_id):
                continue
            if kind == SUFFIX:
                yield from _file(entry, session_id, entry.name)
            elif entry.is_dir(follow_symlinks=False):
                for inside in os.scandir(entry.path):
                    if SEGMENT_NAME.fullmatch(inside.name):
                        yield from _file(inside, session_id, f"{entry.name}/{inside.name}")

    def lines(self, part: Part, start: int) -> Iterator[tuple[bytes, int]]:
        """See ``IndexSource.lines``."""
        with open_to_read(self._directory / part.name) as opened:
            opened.seek(start)
            for line in opened:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield line, start

    def holds(self, part: Part, end: int, line: bytes) -> bool:
        """See ``IndexSource.holds``."""
        with open_to_read(self._directory / part.name) as opened:
            opened.seek(end - len(line))
            return opened.read(len(line)) == line

    def is_live(self, session_id: str) -> bool:
        """See ``IndexSource.is_live``."""
        return is_chain_claimed(self._directory, session_id)

    def close(self) -> None:
        """See ``IndexSource.close``: nothing stays open."""


class SqliteSource:
    """The chains of a SQLite store; their index is a database of its own, ``PATH.index.sqlite3``. Meets ``IndexSource``."""

    def __init__(self, path: Path) -> None:
        self.index_path = path.with_name(f"{path.name}.{NAME}")
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def is_there(self) -> bool:
        """See ``IndexSource.is_there``."""
        return self._path.is_file()

    def parts(self) -> Iterator[Part]:
        """See ``IndexSource.parts``."""
        identity = self._path.stat().st_ino
        for session_id, length, size_bytes, modified in self._open().execute(_PARTS).fetchall():
            if is_identifier(session_id):
                yield Part(session_id, session_id, identity, length, size_bytes, _nanoseconds(modified))

    def lines(self, part: Part, start: int) -> Iterator[tuple[bytes, int]]:
        """See ``IndexSource.lines``."""
        return iter(self._open().execute(_LINES, (part.session_id, start)))

    def holds(self, part: Part, end: int, line: bytes) -> bool:
        """See ``IndexSource.holds``."""
        return self._open().execute(_LINES, (part.session_id, end - 1)).fetchone() == (line, end)

    def is_live(self, session_id: str) -> bool:
        """See ``IndexSource.is_live``."""
        row = self._open().execute("SELECT writing FROM chains WHERE session_id = ?", (session_id,)).fetchone()
        return row == (1,) and Claim.is_taken(lock_of(self._path))

    def close(self) -> None:
        """See ``IndexSource.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_to_query(self._path)
        return self._connection


_PARTS = """
SELECT COALESCE(CAST(session_id AS TEXT), ''),
  (SELECT COALESCE(MAX(CAST(sequence AS INTEGER)) + 1, 0) FROM events WHERE events.session_id = chains.session_id),
  COALESCE(CAST(size_bytes AS INTEGER), 0), COALESCE(CAST(modified AS TEXT), '') FROM chains
"""
_LINES = """
SELECT COALESCE(CAST(line AS BLOB), X'00'), CAST(sequence AS INTEGER) + 1 FROM events
WHERE session_id = ? AND sequence >= ? ORDER BY sequence
"""


def _file(entry: "os.DirEntry[str]", session_id: str, name: str) -> Iterator[Part]:
    with suppress(FileNotFoundError):  # gone meanwhile
        if entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            size = status.st_size
            yield Part(name, session_id, entry.inode(), size, size, status.st_mtime_ns)


def _nanoseconds(timestamp: str) -> int:
    """When a chain was written to; 0 where what is there is no moment."""
    try:
        moment = datetime.fromisoformat(timestamp)
    except (ValueError, TypeError):
        return 0
    return max(0, round(moment.timestamp() * 1_000_000) * 1_000)
