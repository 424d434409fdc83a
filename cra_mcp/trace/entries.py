"""What the index keeps of an event, and the terms it is found by.

Rule: total over any line: what is no event is None, and a value of an unexpected type counts as absent. Hashes and identifiers in
payloads are left out of the text: nobody searches for them by word, and they would be most of it. Source: specs/trace.md, "Index".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import cast

import orjson

from cra_mcp.trace.event import Event, is_identifier
from cra_mcp.trace.summary import summarise

PLACES = 1_024
"""Ids of events per microsecond."""

_MAX_TEXT = 4_096
_MAX_DEPTH = 8
_LATEST_US = 2**53 - 1  # so that an id fits SQLite's integers
_OPAQUE = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_HASH_START_CHARS = 15  # what SQLite has room for in an integer
_OPAQUE_LENGTHS = {36, 64}
_KEYS = {"session": "xs", "agent": "xa", "action": "xc", "decision": "xd", "policy": "xp", "type": "xt"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the index.

    Attributes:
        place: its id, but for others of the same microsecond.
        columns: sequence, timestamp, event_type, action_id, decision, policy_id, duration_ms.
        names: event_id, hash_start: what it calls itself.
        text: the words of its payload.
        payload: as it was recorded.
    """

    place: int
    columns: tuple[int, str, str, str | None, str | None, str | None, float | None]
    names: tuple[str | None, int | None]
    text: str
    payload: Mapping[str, object]

    def fields(self, agent_id: str | None) -> list[tuple[str, str]]:
        """The fields it is found by, and their values."""
        _, _, event_type, action_id, decision, policy_id, _ = self.columns
        fields = (
            ("agent", agent_id),
            ("action", action_id),
            ("decision", decision),
            ("policy", policy_id),
            ("type", event_type),
        )
        return [(name, value) for name, value in fields if value is not None]


def entry_of(line: bytes) -> Entry | None:
    """The entry of a stored line; None where it is no event."""
    # Files may hold anything: what follows checks all that is used.
    try:
        fields = cast("object", orjson.loads(line))
        if not isinstance(fields, dict):
            return None
        known = cast("dict[str, object]", fields)
        payload, sequence = known.get("payload"), known.get("sequence")
        if not isinstance(payload, dict) or not isinstance(known.get("event_type"), str):
            return None
        if type(sequence) is not int or not 0 <= sequence <= _LATEST_US:
            return None
        event = Event(**known)  # pyright: ignore[reportArgumentType]
        place = place_of(event.timestamp)
        seen = summarise(event)
    except (ValueError, TypeError, OverflowError):
        return None
    columns = (
        seen.sequence,
        seen.timestamp,
        seen.event_type,
        seen.action_id,
        seen.decision,
        seen.policy_id,
        seen.duration_ms,
    )
    words: list[str] = []
    _words(event.payload, words)
    event_id = event.event_id if is_identifier(event.event_id) else None
    names = (event_id, hash_start(event.event_hash))
    return Entry(place, columns, names, " ".join(words)[:_MAX_TEXT], event.payload)


def hash_start(event_hash: object) -> int | None:
    """The first 60 bits of a hash, as a number; None where it is none."""
    if not isinstance(event_hash, str) or not _HASH.fullmatch(event_hash):
        return None
    return int(event_hash[:_HASH_START_CHARS], 16)


def place_of(timestamp: str) -> int:
    """The first id of a moment.

    Raises:
        TypeError: it is no text.
        ValueError: it is no moment.
    """
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        raise ValueError("a moment without its zone")
    return max(0, min(round(moment.timestamp() * 1_000_000), _LATEST_US)) * PLACES


def terms(entry: Entry, session: int, agent_id: str | None) -> str:
    """All an event is found by, as one text: its fields, each as one word that nobody writes, and its payload's words."""
    words = [term(name, value) for name, value in entry.fields(agent_id)]
    return " ".join([term("session", str(session)), *words, entry.text])


@lru_cache(maxsize=4_096)  # the same few come again and again
def term(name: str, value: str) -> str:
    """The word of one value of a field."""
    return f"{_KEYS[name]}{value.encode('utf-8', 'replace').hex()}"


def _words(value: object, into: list[str], depth: int = 0) -> None:
    """Collect the texts and numbers in a value."""
    if isinstance(value, str):
        if len(value) not in _OPAQUE_LENGTHS or not _OPAQUE.fullmatch(value):
            into.append(value[:_MAX_TEXT])
    elif isinstance(value, dict):
        if depth < _MAX_DEPTH:
            for inner in cast("dict[str, object]", value).values():
                _words(inner, into, depth + 1)
    elif isinstance(value, list):
        if depth < _MAX_DEPTH:
            for inner in cast("list[object]", value):
                _words(inner, into, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        into.append(str(value))
