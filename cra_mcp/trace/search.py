"""Questions to the index: which sessions there are, and which events are of a kind.

Rule: every condition narrows by the index alone, so that an answer takes as long as what is rarest in it; what the text index
says of a field is checked against the field. Source: specs/trace.md, "Index".
"""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cra_mcp.errors import TraceError
from cra_mcp.trace.entries import hash_start, place_of, term
from cra_mcp.trace.event import format_timestamp

_WORD = re.compile(r"[^\W_]+\*?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_VALUES = 500
_FIELDS = {
    "agent": "agent_id",
    "action": "action_id",
    "decision": "decision",
    "policy": "policy_id",
    "type": "event_type",
}
_COLUMNS = (
    "session_id, agent_id, sequence, timestamp, event_type, action_id, decision, policy_id, duration_ms, event_id"
)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; all that is given must hold.

    Attributes:
        session: a session id, or a beginning of one.
        agent, action, policy, type: the value, or a beginning of it and ``*``.
        decision: ``allow``, ``deny``, ``approval`` or ``error``.
        since, until: RFC 3339 moments; the first included, the second not.
        text: words of the payload, each with ``*`` at its end for a beginning; case and accents make no difference.
    """

    session: str | None = None
    agent: str | None = None
    action: str | None = None
    decision: str | None = None
    policy: str | None = None
    type: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One event found; the trace has the rest of it."""

    session_id: str
    agent_id: str | None
    sequence: int
    timestamp: str
    event_type: str
    action_id: str | None
    decision: str | None
    policy_id: str | None
    duration_ms: float | None
    event_id: str | None

    def to_dict(self) -> dict[str, object]:
        """A JSON object of the same names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Listed:
    """One session; times as RFC 3339 UTC, ``ended`` the reason it gave, None while it has not."""

    session_id: str
    agent_id: str | None
    goal: str | None
    started: str | None
    ended: str | None
    events: int
    size_bytes: int
    modified: str


def search(connection: sqlite3.Connection, query: Query, *, limit: int = 50) -> list[Found]:
    """The latest events a query finds, the latest first.

    Raises:
        TraceError: ``invalid_query``: a moment is none, or the text has no word.
    """
    if any(_SURROGATE.search(value) for value in asdict(query).values() if value is not None):
        raise TraceError("a lone surrogate is no text", code="invalid_query", hint="Give whole characters.")
    conditions = list(_conditions(query))
    words = [*_field_words(connection, query), *_text_words(query.text)]
    if None in words:
        return []
    joined, place = "events", "event"
    if words:
        joined, place = "event_text JOIN events ON event = event_text.rowid", "event_text.rowid"
        conditions.insert(0, ("event_text MATCH ?", " AND ".join(word for word in words if word)))
    for name, moment in (("since", query.since), ("until", query.until)):
        if moment is not None:
            conditions.append((f"{place} {'>=' if name == 'since' else '<'} ?", _place(name, moment)))
    where = " AND ".join(condition for condition, _ in conditions) or "1"
    values = [value for _, value in conditions]
    statement = (
        f"SELECT {_COLUMNS} FROM {joined} JOIN sessions USING (session) WHERE {where} ORDER BY {place} DESC LIMIT ?"  # noqa: S608 - texts of ours
    )
    return [Found(*row) for row in connection.execute(statement, (*values, limit))]


def locate(connection: sqlite3.Connection, name: str) -> list[tuple[str, int]]:
    """Where events may be that have an id or a hash: session id and sequence. Whoever uses it looks whether they are there."""
    start = hash_start(name)
    condition, value = ("event_id = ?", name) if start is None else ("hash_start = ?", start)
    rows = connection.execute(
        f"SELECT session_id, sequence FROM events JOIN sessions USING (session) WHERE {condition} ORDER BY event LIMIT ?",  # noqa: S608 - texts of ours
        (value, _MAX_VALUES),
    )
    return list(rows)


def list_sessions(connection: sqlite3.Connection, *, limit: int = -1) -> list[Listed]:
    """Sessions, the last written first; -1 for all."""
    rows = connection.execute(
        "SELECT session_id, agent_id, goal, started, ended, events, size_bytes, modified_ns FROM sessions "
        "ORDER BY modified_ns DESC, session_id DESC LIMIT ?",
        (limit,),
    )
    return [Listed(*rest, modified=format_timestamp(max(0, modified_ns))) for *rest, modified_ns in rows]


def count_sessions(connection: sqlite3.Connection) -> int:
    """How many sessions there are."""
    return connection.execute("SELECT COUNT(*) FROM sessions").fetchone()[0]


def _conditions(query: Query) -> Iterator[tuple[str, object]]:
    """What the columns themselves must say, whatever words somebody wrote."""
    for name, column in _FIELDS.items():
        value = getattr(query, name)
        if value is not None:
            if value.endswith("*"):
                yield f"substr({column}, 1, {len(value) - 1}) = ?", value[:-1]
            else:
                yield f"{column} = ?", value
    if query.session is not None:
        yield "instr(session_id, ?) = 1", query.session


def _field_words(connection: sqlite3.Connection, query: Query) -> Iterator[str | None]:
    """The words fields are found by; None for one that nothing has."""
    for name in _FIELDS:
        value = getattr(query, name)
        if value is not None and value.endswith("*"):
            # Looked up first: the text index would go through all events of all values to find the latest.
            rows = connection.execute(
                "SELECT value FROM field_values WHERE field = ? AND substr(value, 1, ?) = ? LIMIT ?",
                (name, len(value) - 1, value[:-1], _MAX_VALUES),
            )
            yield _any([term(name, found) for (found,) in rows])
        elif value is not None:
            yield term(name, value)
    if query.session is not None:
        rows = connection.execute(
            "SELECT session FROM sessions WHERE session_id >= :beginning AND session_id < :beginning || 'g' LIMIT :most",
            {"beginning": query.session, "most": _MAX_VALUES},
        )
        yield _any([term("session", str(session)) for (session,) in rows])


def _any(words: list[str]) -> str | None:
    return f"({' OR '.join(words)})" if words else None


def _text_words(text: str | None) -> Iterator[str]:
    if text is None:
        return
    words = _WORD.findall(text)
    if not words:
        raise TraceError("there is no word to look for", code="invalid_query", hint="Give letters or digits.")
    for word in words:
        yield f'"{word[:-1]}"*' if word.endswith("*") else f'"{word}"'


def _place(name: str, moment: str) -> int:
    try:
        return place_of(f"{moment}T00:00:00Z" if _DAY.fullmatch(moment) else moment)
    except ValueError:
        raise TraceError(
            f"{name} is no moment: {moment[:80]!r}",
            code="invalid_query",
            hint="Give it as 2026-01-31T08:00:00Z, or a day.",
        ) from None
