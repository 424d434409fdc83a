"""Rows of an index, made of stored lines a batch at a time.

Rule: a batch is written with how far each part was read, all of it or nothing, so that an update that was interrupted is continued
where it was. Source: specs/trace.md, "Index".
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import cast

from cra_mcp.trace.entries import PLACES, Entry, entry_of, terms
from cra_mcp.trace.index_source import IndexSource, Part

BATCH = 20_000
"""Events written at once."""

_SPILL = PLACES * PLACES  # how far ids of a crowded instant may reach into what follows it

Progress = Callable[[int, int], None]
"""Told how much is done and how much there is, in the units of the source."""


class Builder:
    """Makes rows of lines, a batch at a time."""

    def __init__(self, connection: sqlite3.Connection, source: IndexSource, progress: Progress, total: int) -> None:
        self._connection = connection
        self._source = source
        self._progress = progress
        self._total = total
        self._done = 0
        self._rows: dict[int, tuple[int, Entry]] = {}  # by id: session, entry
        self._parts: dict[str, tuple[object, ...]] = {}
        self._bad: Counter[int] = Counter()
        self._free: dict[int, int] = {}  # where to look for an id in an instant that is crowded
        self._values: set[tuple[str, str]] = set()
        self._agents: dict[int, str | None] = dict(connection.execute("SELECT session, agent_id FROM sessions"))
        self.added = 0
        self.unreadable = 0

    def take(self, part: Part, start: int, last_line: bytes) -> None:
        """Index a part from ``start`` on, which is the end of ``last_line``."""
        session = self._session(part.session_id)
        end, before = start, -1
        for line, line_end in self._source.lines(part, start):
            self._done += line_end - end
            end, last_line = line_end, line
            before = self._add(session, line, before)
            if len(self._rows) >= BATCH:
                self._note(part, session, end, last_line)
                self.store()
        self._note(part, session, end, last_line)

    def store(self) -> None:
        """Write the batch so far, with how far each file was read: all of it or nothing."""
        if not self._parts:
            return
        connection = self._connection
        rows = sorted(self._rows.items())  # the text index takes ids in order, or slowly
        sessions = {cast("int", session) for _, session, *_ in self._parts.values()} | set(self._bad)
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((place, session, *entry.columns, *entry.names) for place, (session, entry) in rows),
            )
            connection.executemany(
                "INSERT INTO event_text (rowid, text) VALUES (?, ?)",
                ((place, terms(entry, session, self._agents.get(session))) for place, (session, entry) in rows),
            )
            values = {
                pair for session, entry in self._rows.values() for pair in entry.fields(self._agents.get(session))
            }
            connection.executemany("INSERT OR IGNORE INTO field_values VALUES (?, ?)", values - self._values)
            connection.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", self._parts.values())
            connection.executemany(
                _COUNT, ({"unreadable": self._bad[session], "session": session} for session in sessions)
            )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._values |= values
        self.added += len(rows)
        self.unreadable += self._bad.total()
        self._rows, self._parts, self._bad = {}, {}, Counter()
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
        return place in self._rows or self._connection.execute(_TAKEN, {"event": place}).fetchone() is not None

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

    def _note(self, part: Part, session: int, end: int, last_line: bytes) -> None:
        """Remember how far a part was read; one that has more beyond differs the next time."""
        seen = (part.identity, part.size_bytes, part.modified_ns)
        self._parts[part.name] = (part.name, session, *seen, end, last_line)

    def _session(self, session_id: str) -> int:
        connection = self._connection
        connection.execute("INSERT OR IGNORE INTO sessions (session_id) VALUES (?)", (session_id,))
        (session,) = connection.execute("SELECT session FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return session


_TAKEN = "SELECT 1 FROM events WHERE event = :event UNION ALL SELECT 1 FROM gone WHERE event = :event"
_COUNT = """
UPDATE sessions SET unreadable = unreadable + :unreadable,
  events = (SELECT COUNT(*) FROM events WHERE events.session = :session),
  size_bytes = (SELECT TOTAL(size_bytes) FROM parts WHERE parts.session = :session),
  modified_ns = (SELECT MAX(modified_ns) FROM parts WHERE parts.session = :session)
WHERE session = :session
"""
