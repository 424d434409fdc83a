"""TRACE events: their form, how one is linked to the chain before it, and how a chain is verified.

Rule: pure; no clock, file or randomness. The fixed forms are what makes the hashed text unambiguous, so nothing is
hashed before they are checked. The fast check (``linked``) only ever says yes; what it doesn't accept is examined field by field.
Source: specs/trace.md; RFC 8785; FIPS 180-4.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple, cast

from cra_mcp.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, parse_json
from cra_mcp.errors import CanonicalError, TraceError
from cra_mcp.trace.forms import EVENT_TYPES, EXTENSION, GENESIS_HASH, ID, REQUIRED_FIELDS, TIMESTAMP, TRACE_VERSION
from cra_mcp.trace.linked import LinkedLines

_EXTENSION = re.compile(EXTENSION)
_ID_FORM = re.compile(ID)
_FORMS: Mapping[str, re.Pattern[str]] = {
    "trace_version": re.compile(re.escape(TRACE_VERSION)),
    "event_id": _ID_FORM,
    "trace_id": _ID_FORM,
    "span_id": _ID_FORM,
    "session_id": _ID_FORM,
    "timestamp": re.compile(TIMESTAMP),
    "event_hash": re.compile(r"[0-9a-f]{64}"),
    "previous_event_hash": re.compile(r"[0-9a-f]{64}"),
}
_FIELDS = frozenset({*_FORMS, "parent_span_id", "sequence", "event_type", "payload"})
_SECOND_US = 1_000_000
_LAST_SECOND = 253_402_300_799  # of year 9999: later ones don't fit 27 characters


class Head(NamedTuple):
    """Last link of a chain: what the next event is linked to."""

    sequence: int
    event_hash: str
    timestamp: str


# Half the time of Head(...), which every recorded event pays.
_new_head: Callable[[tuple[int, str, str]], Head] = partial(tuple.__new__, Head)  # pyright: ignore[reportUnknownMemberType]


class Draft(NamedTuple):
    """An event before it has a place in a chain. A payload of type ``bytes`` is a canonical JSON object already."""

    event_type: str
    payload: Mapping[str, object] | bytes
    span_id: str
    parent_span_id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a chain; every field has its form (specs/trace.md, "Event")."""

    trace_version: str
    event_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None
    session_id: str
    sequence: int
    timestamp: str
    event_type: str
    payload: Mapping[str, object]
    event_hash: str
    previous_event_hash: str

    def __repr__(self) -> str:
        return f"Event(sequence={self.sequence}, event_type={self.event_type!r}, session_id={self.session_id!r})"

    def to_dict(self) -> dict[str, object]:
        """The event as a JSON object."""
        return {name: getattr(self, name) for name in Event.__slots__}

    def compute_hash(self) -> str:
        """The hash the event should have."""
        text = (
            f"{self.trace_version}{self.event_id}{self.trace_id}{self.span_id}{self.parent_span_id or ''}"
            f"{self.session_id}{self.sequence}{self.timestamp}{self.event_type}"
        )
        return sha256(text.encode() + canonical_bytes(self.payload) + self.previous_event_hash.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Verification:
    """What verification of a chain found.

    Attributes:
        ok: nothing is wrong.
        events: how many events from the start are good.
        head: the last good one; None if there is none.
        bad_index: position, from 0, of the first event that is bad or missing; None if ``ok``.
        code: what is wrong with it (specs/trace.md, "Verification"); None if ``ok``.
        message: the same for people; None if ``ok``.
    """

    ok: bool
    events: int
    head: Head | None = None
    bad_index: int | None = None
    code: str | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, object]:
        """A JSON object of the same names; ``head`` is an object or null."""
        return {
            "ok": self.ok,
            "events": self.events,
            "head": self.head._asdict() if self.head is not None else None,
            "bad_index": self.bad_index,
            "code": self.code,
            "message": self.message,
        }


def is_identifier(text: str) -> bool:
    """Whether ``text`` has the form of an identifier: UUIDv7, lower-case, 36 characters."""
    return _ID_FORM.fullmatch(text) is not None


_known: set[str] = set()  # identifiers whose form is good: spans come again and again
_MAX_KNOWN = 4096


def _learn(identifier: str) -> bool:
    """Whether ``identifier``, not met lately, is one."""
    if not _ID_FORM.fullmatch(identifier):
        return False
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known.add(identifier)
    return True


# The current second: its start in microseconds and its text. One value, replaced whole: a thread sees either.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00.")


def format_timestamp(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 UTC with six fractional digits, rounded down.

    Raises:
        TraceError: ``clock_out_of_range``, before 1970 or after 9999.
    """
    global _second  # noqa: PLW0603 - a cache
    start, text = _second
    micros = ns // 1_000 - start
    if not 0 <= micros < _SECOND_US:
        seconds, micros = divmod(ns // 1_000, _SECOND_US)
        if not 0 <= seconds <= _LAST_SECOND:
            raise TraceError("the clock is out of range", code="clock_out_of_range", hint="Set the system clock.")
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))
        _second = (seconds * _SECOND_US, text)
    return f"{text}{str(micros).zfill(6)}Z"


def link(
    previous: Head | None, draft: Draft, *, session_id: str, trace_id: str, event_id: str, timestamp: str
) -> tuple[Head, bytes]:
    """Make ``draft`` the event after ``previous`` (None: the first of its chain).

    The caller vouches for ``session_id``, ``trace_id``, ``event_id`` and ``timestamp``: their forms, and that time does
    not run backwards. Required payload fields are checked by ``verify``, not here.

    Returns:
        The new head, and the stored line: the RFC 8785 form of the whole event, without line feed.

    Raises:
        CanonicalError: the payload has no canonical form.
        TraceError: ``malformed_event``: the event type or a span id breaks its form.
    """
    event_type, payload, span_id, parent_span_id = draft
    if event_type not in EVENT_TYPES and not _EXTENSION.fullmatch(event_type):
        raise _malformed(f"event type {event_type[:80]!r} is neither of the protocol nor of the form x.name")
    if span_id not in _known and not _learn(span_id):
        raise _malformed("span_id is not a lower-case UUIDv7")
    if parent_span_id is None:
        parent, parent_json = "", "null"
    elif parent_span_id in _known or _learn(parent_span_id):
        parent, parent_json = parent_span_id, f'"{parent_span_id}"'
    else:
        raise _malformed("parent_span_id is not a lower-case UUIDv7")
    if not isinstance(payload, bytes):
        payload = canonical_bytes(payload if isinstance(payload, dict) else dict(payload))
    body = payload.decode()
    sequence, previous_hash = (0, GENESIS_HASH) if previous is None else (previous.sequence + 1, previous.event_hash)
    event_hash = sha256(
        f"1.0{event_id}{trace_id}{span_id}{parent}{session_id}{sequence}{timestamp}{event_type}{body}{previous_hash}".encode()
    ).hexdigest()
    line = (
        f'{{"event_hash":"{event_hash}","event_id":"{event_id}","event_type":"{event_type}","parent_span_id":{parent_json},'
        f'"payload":{body},"previous_event_hash":"{previous_hash}","sequence":{sequence},"session_id":"{session_id}",'
        f'"span_id":"{span_id}","timestamp":"{timestamp}","trace_id":"{trace_id}","trace_version":"1.0"}}'
    )
    return _new_head((sequence, event_hash, timestamp)), line.encode()


def parse(line: bytes) -> Event:
    """Read one event; any JSON form of it is accepted. Its hash and its place in a chain are not checked.

    Raises:
        TraceError: ``malformed_event``.
    """
    try:
        value = parse_json(line, max_bytes=len(line), max_depth=MAX_DEPTH + 1, whole_doubles=True)
    except CanonicalError as error:
        raise _malformed(error.message) from error
    if not isinstance(value, dict):
        raise _malformed("not a JSON object")
    fields = cast("dict[str, object]", value)
    if fields.keys() != _FIELDS:
        wrong = sorted(fields.keys() ^ _FIELDS)[0]
        raise _malformed(f"field {wrong[:80]!r} is {'missing' if wrong in _FIELDS else 'not known'}")
    for name, form in _FORMS.items():
        text = fields[name]
        if not isinstance(text, str) or not form.fullmatch(text):
            raise _malformed(f"{name} breaks its form")
    _check_untabled(fields)
    return Event(**fields)  # pyright: ignore[reportArgumentType]  # every field was checked


def _check_untabled(fields: Mapping[str, object]) -> None:
    """Check the fields whose form is more than one pattern."""
    parent, sequence, event_type = fields["parent_span_id"], fields["sequence"], fields["event_type"]
    if parent is not None and not (isinstance(parent, str) and is_identifier(parent)):
        raise _malformed("parent_span_id breaks its form")
    if type(sequence) is not int or not 0 <= sequence <= MAX_INTEGER:
        raise _malformed("sequence breaks its form")
    if not isinstance(event_type, str) or not (event_type in EVENT_TYPES or _EXTENSION.fullmatch(event_type)):
        raise _malformed("event_type is neither of the protocol nor of the form x.name")
    if not isinstance(fields["payload"], dict):
        raise _malformed("payload is not an object")


def verify(
    lines: Iterable[bytes], *, session_id: str | None = None, expect_head: Head | None = None, tail: bytes = b""
) -> Verification:
    """Verify a chain from its first event.

    Args:
        lines: the stored lines, in order; some are taken before those in front of them have been found good.
        session_id: the session the chain must belong to; None: the one its first event names.
        expect_head: a link known from elsewhere (a receipt, a copy of the head): the chain must reach and hold it.
        tail: what a file holds after its last line feed (``split_lines``); anything there is an unfinished event.
    """
    chain = _Chain(session_id, expect_head)
    remaining = iter(lines)
    while batch := list(islice(remaining, chain.room)):
        fault = chain.advance(batch)
        if fault is not None:
            return chain.bad(*fault)
    if tail:
        return chain.bad("truncated", "the file ends in the middle of an event")
    if expect_head is not None and expect_head.sequence >= chain.events:
        return chain.bad("truncated", f"the chain ends before event {expect_head.sequence}, which was expected")
    return Verification(ok=True, events=chain.events, head=chain.head)


def split_lines(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole lines of a file, without line feeds, and the unfinished tail (empty in a file that ends well)."""
    *lines, tail = data.split(b"\n")
    return lines, tail


def _malformed(message: str) -> TraceError:
    return TraceError(message, code="malformed_event")


_BATCH = 512  # lines taken in at once: more of them don't stay in a processor's cache


class _Chain:
    """A verification under way: what the next event must continue."""

    __slots__ = ("_expected", "_hash", "_linked", "_session", "_timestamp", "_wanted_session", "events")

    def __init__(self, session_id: str | None, expect_head: Head | None) -> None:
        self.events = 0
        self._hash = GENESIS_HASH.encode()
        self._session: bytes | None = None  # of the events so far
        self._linked: LinkedLines | None = None  # checks lines of that session
        self._timestamp: bytes = b""
        self._wanted_session = session_id
        self._expected = expect_head

    @property
    def head(self) -> Head | None:
        """Last good event."""
        return Head(self.events - 1, self._hash.decode(), self._timestamp.decode()) if self.events else None

    @property
    def room(self) -> int:
        """How many lines may be taken in at once: their sequences have equally many digits, and the first is alone."""
        return min(_BATCH, 10 ** len(str(self.events)) - self.events) if self.events else 1

    def bad(self, code: str, message: str) -> Verification:
        """The outcome where the next event is bad or missing."""
        return Verification(
            ok=False, events=self.events, head=self.head, bad_index=self.events, code=code, message=message
        )

    def advance(self, lines: list[bytes]) -> tuple[str, str] | None:
        """Take in ``lines``, at most ``room`` of them; code and message of the first that is bad, and none after it counts."""
        if self._linked is not None and self._take_in(self._linked, lines):
            return None
        if len(lines) == 1:
            return self.examine(lines[0])
        half = len(lines) // 2
        return self.advance(lines[:half]) or self.advance(lines[half:])

    def _take_in(self, linked: LinkedLines, lines: list[bytes]) -> bool:
        """Take in all of ``lines`` if they are good beyond doubt, else none."""
        found = linked.check(lines, first=self.events, previous=self._hash, timestamp=self._timestamp)
        if found is None:
            return False
        hashes, timestamp = found
        expected = self._expected
        if (
            expected is not None
            and 0 <= expected.sequence - self.events < len(lines)
            and hashes[expected.sequence - self.events] != expected.event_hash.encode()
        ):
            return False
        self.events, self._hash, self._timestamp = self.events + len(lines), hashes[-1], timestamp
        return True

    def examine(self, line: bytes) -> tuple[str, str] | None:
        """What is wrong with ``line`` as the next event, as code and message; None if nothing, and it is the new head.

        The order of the checks is part of the protocol.
        """
        try:
            event = parse(line)
        except TraceError as error:
            return error.code, error.message
        fault = self._link_fault(event) or self._order_fault(event)
        if fault is None:
            self._hash = event.event_hash.encode()
            self._timestamp = event.timestamp.encode()
            if self._session is None:
                self._session = event.session_id.encode()
                self._linked = LinkedLines(self._session)
            self.events += 1
        return fault

    def _link_fault(self, event: Event) -> tuple[str, str] | None:
        if not self.events and (event.sequence != 0 or event.previous_event_hash != GENESIS_HASH):
            return "invalid_genesis", "the first event must have sequence 0 and a previous hash of zeros"
        if event.event_hash != event.compute_hash():
            return "hash_mismatch", "the event's content does not have the hash it states"
        if event.previous_event_hash.encode() != self._hash:
            return "chain_broken", "the event is not linked to the one before it"
        if not self._expects(event.event_hash.encode()):
            return "chain_broken", "the event is not the one that was expected here"
        return None

    def _order_fault(self, event: Event) -> tuple[str, str] | None:
        if event.sequence != self.events:
            return "sequence_gap", f"sequence is {event.sequence}, not {self.events}"
        if event.timestamp.encode() < self._timestamp:
            return "timestamp_regression", "the event is dated before the one it follows"
        session = self._session.decode() if self._session is not None else self._wanted_session
        if session is not None and event.session_id != session:
            return "session_mismatch", "the event belongs to another session"
        missing = [name for name in REQUIRED_FIELDS.get(event.event_type, ()) if name not in event.payload]
        if missing:
            return "malformed_event", f"the payload of {event.event_type} lacks {missing[0]}"
        return None

    def _expects(self, event_hash: bytes) -> bool:
        expected = self._expected
        return expected is None or expected.sequence != self.events or expected.event_hash.encode() == event_hash
