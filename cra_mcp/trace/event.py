"""TRACE events: their form, how one is linked to the chain before it, and how a chain is verified.

Rule: pure; no clock, file or randomness. The fixed forms are what makes the hashed text unambiguous, so nothing is
hashed before they are checked. The fast check only ever says yes; what it doesn't accept is examined field by field.
Source: specs/trace.md; RFC 8785; FIPS 180-4.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from typing import NamedTuple, cast

from cra_mcp.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, parse_canonical_object, parse_json
from cra_mcp.errors import CanonicalError, TraceError

TRACE_VERSION = "1.0"
GENESIS_HASH = "0" * 64
"""``previous_event_hash`` of the first event of a chain."""

REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "session.started": ("agent_id", "goal", "atlases", "policy_digest"),
    "session.ended": ("reason", "duration_ms"),
    "carp.request.received": ("request_id", "operation", "goal"),
    "carp.resolution.completed": (
        "resolution_id",
        "request_id",
        "decision_type",
        "allowed_count",
        "denied_count",
        "context_block_count",
        "ttl_seconds",
        "allowed",
        "denied",
        "digest",
    ),
    "carp.resolution.cached": ("resolution_id", "request_id", "first_sequence"),
    "action.requested": ("action_id", "parameters_hash"),
    "policy.evaluated": ("policy_id", "result", "action_id", "determining"),
    "policy.violated": ("policy_id", "violation_type"),
    "action.approved": ("action_id", "resolution_id"),
    "action.denied": ("action_id", "reason", "policy_id"),
    "action.executed": ("action_id", "execution_id", "duration_ms", "result_hash"),
    "action.failed": ("action_id", "error_code", "error_message", "duration_ms"),
    "approval.requested": ("approval_id", "action_id"),
    "approval.granted": ("approval_id", "action_id", "by", "channel"),
    "approval.rejected": ("approval_id", "action_id", "by", "channel"),
    "approval.expired": ("approval_id", "action_id"),
    "context.injected": ("block_id", "source", "token_count"),
    "context.redacted": ("event_type", "found"),
    "context.expired": (),
    "atlas.loaded": ("atlas_id", "version", "digest"),
    "atlas.unloaded": ("atlas_id", "version", "digest"),
    "input.received": (),
    "output.produced": (),
    "action.reported": (),
    "feedback.received": (),
    "error.occurred": (),
}
"""Event types of the protocol and what their payloads must hold."""

EVENT_TYPES: frozenset[str] = frozenset(REQUIRED_FIELDS)
"""Event types of the protocol; all others must begin ``x.``."""

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TIMESTAMP = (
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)
_EXTENSION = re.compile(r"x(?:\.[a-z0-9_-]{1,62}){1,8}")
_ID_FORM = re.compile(_ID)
_FORMS: Mapping[str, re.Pattern[str]] = {
    "trace_version": re.compile(re.escape(TRACE_VERSION)),
    "event_id": _ID_FORM,
    "trace_id": _ID_FORM,
    "span_id": _ID_FORM,
    "session_id": _ID_FORM,
    "timestamp": re.compile(_TIMESTAMP),
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


_is_known_identifier = lru_cache(maxsize=4096)(is_identifier)  # spans and sessions come again and again

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
    if not _is_known_identifier(span_id):
        raise _malformed("span_id is not a lower-case UUIDv7")
    if parent_span_id is None:
        parent, parent_json = "", "null"
    elif _is_known_identifier(parent_span_id):
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
        lines: the stored lines, in order.
        session_id: the session the chain must belong to; None: the one its first event names.
        expect_head: a link known from elsewhere (a receipt, a copy of the head): the chain must reach and hold it.
        tail: what a file holds after its last line feed (``split_lines``); anything there is an unfinished event.
    """
    chain = _Chain(session_id, expect_head)
    remaining = iter(lines)
    while (line := chain.advance(remaining)) is not None:
        fault = chain.examine(line)
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


# The bytes `link` writes. Where a form is only a width, `_Chain.advance` compares with something of known form.
_LINE = re.compile(
    (
        r'\{"event_hash":"(.{64})","event_id":"(ID)","event_type":"([a-z0-9._-]+)","parent_span_id":(?:null|"(.{36})"),'
        r'"payload":(\{.*\}),"previous_event_hash":"(.{64})","sequence":(0|[1-9][0-9]{0,15}),"session_id":"(.{36})",'
        r'"span_id":"(.{36})","timestamp":"(TIME)","trace_id":"(.{36})","trace_version":"1\.0"\}'
    )
    .replace("ID", _ID)
    .replace("TIME", _TIMESTAMP)
    .encode(),
    re.DOTALL,  # far faster widths; no part that could hold a line feed goes unchecked
)
_NOTHING: frozenset[str] = frozenset()
_REQUIRED = {name.encode(): frozenset(fields) for name, fields in REQUIRED_FIELDS.items()}
_EXTENSION_BYTES = re.compile(_EXTENSION.pattern.encode())
_ID_BYTES = re.compile(_ID.encode())
_MAX_KNOWN = 4096


class _Chain:
    """A verification under way: what the next event must continue."""

    __slots__ = ("_expected", "_hash", "_known", "_session", "_timestamp", "_wanted_session", "events")

    def __init__(self, session_id: str | None, expect_head: Head | None) -> None:
        self.events = 0
        self._hash = GENESIS_HASH.encode()
        self._session: bytes | None = None  # of the events so far
        self._timestamp = b""
        self._known = {b""}  # identifiers met whose form is good; no parent is one
        self._wanted_session = session_id
        self._expected = expect_head

    @property
    def head(self) -> Head | None:
        """Last good event."""
        return Head(self.events - 1, self._hash.decode(), self._timestamp.decode()) if self.events else None

    def bad(self, code: str, message: str) -> Verification:
        """The outcome where the next event is bad or missing."""
        return Verification(
            ok=False, events=self.events, head=self.head, bad_index=self.events, code=code, message=message
        )

    def advance(self, lines: Iterator[bytes]) -> bytes | None:
        """Take in events as long as they are good beyond doubt; the first line that isn't, or None at the end.

        The first event of a chain, and events not byte for byte as ``link`` writes them, are left to ``examine``.
        """
        events, last_hash, last_timestamp, last_session = self.events, self._hash, self._timestamp, self._session
        expected = self._expected.sequence if self._expected is not None else -1
        known = self._known
        line = None
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                break
            event_hash, event_id, event_type, parent, payload, previous, sequence, session, span, timestamp, trace = (
                match.groups(b"")
            )
            if (
                previous != last_hash
                or session != last_session
                or int(sequence) != events
                or events == expected
                or timestamp < last_timestamp
                or not ((span in known and parent in known and trace in known) or self._learn(span, parent, trace))
                or not _payload_is_good(event_type, payload)
            ):
                break
            text = b"".join(
                (b"1.0", event_id, trace, span, parent, session, sequence, timestamp, event_type, payload, previous)
            )
            if sha256(text).hexdigest().encode() != event_hash:
                break
            last_hash, last_timestamp = event_hash, timestamp
            events += 1
        else:
            line = None
        self.events, self._hash, self._timestamp = events, last_hash, last_timestamp
        return line

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
            self._session = event.session_id.encode()
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

    def _learn(self, *identifiers: bytes) -> bool:
        """Check identifiers not all met before: spans and traces come again and again."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
            self._known.add(b"")
        for identifier in identifiers:
            if identifier and not _ID_BYTES.fullmatch(identifier):
                return False
            self._known.add(identifier)
        return True


def _payload_is_good(event_type: bytes, payload: bytes) -> bool:
    """Whether the type is a known one, and the payload canonical and complete for it."""
    required = _REQUIRED.get(event_type)
    if required is None:
        if not _EXTENSION_BYTES.fullmatch(event_type):
            return False
        required = _NOTHING
    try:
        return parse_canonical_object(payload).keys() >= required
    except CanonicalError:
        return False
