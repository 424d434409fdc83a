"""Lines of a chain checked many at a time: those that are byte for byte as ``event.link`` writes them.

Rule: this only ever says yes. Fields are cut out where ``link`` puts them, every line is made again from what was cut out, and
only one that comes out the same is good: so what was cut where doesn't matter. Each field of all lines is handled in one
go, as a column, because that leaves nearly all of the work to compiled code. What is not accepted is examined field by
field by ``event.verify``, which finds out what is wrong, or that nothing is. Source: specs/trace.md, "Verification"; RFC 8785.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import repeat
from operator import ge
from struct import Struct

from cra_mcp.canonical import parse_canonical_objects
from cra_mcp.errors import CanonicalError
from cra_mcp.trace.forms import DATE_AND_HOUR, EXTENSION, ID, REQUIRED_FIELDS

# A line is these texts with fields between: hash, event id, kind (type and parent), payload, hash before, sequence, session, span,
# timestamp and trace. `_VERSION` ends it.
_HASH = b'{"event_hash":"'
_EVENT_ID = b'","event_id":"'
_PAYLOAD = b',"payload":'
_PREVIOUS = b',"previous_event_hash":"'
_SEQUENCE = b'","sequence":'
_SESSION = b',"session_id":"'
_SPAN = b'","span_id":"'
_TIMESTAMP = b'","timestamp":"'
_TRACE = b'","trace_id":"'
_VERSION = b'","trace_version":"1.0"}'

_HASH_CHARS = 64
_ID_CHARS = 36
_HASH_AT = len(_HASH)
_HASH_END = _HASH_AT + _HASH_CHARS
_ID_AT = _HASH_END + len(_EVENT_ID)
_KIND_AT = _ID_AT + _ID_CHARS
_TRACE_FROM_END = len(_VERSION) + _ID_CHARS
_SPAN_AND_TIMESTAMP = Struct(f"36s{len(_TIMESTAMP)}x27s{len(_TRACE) + _TRACE_FROM_END}x")
_AFTER_PAYLOAD = (  # and before the digits of the sequence are counted
    len(_PREVIOUS) + _HASH_CHARS + len(_SEQUENCE) + len(_SESSION) + _ID_CHARS + len(_SPAN) + _SPAN_AND_TIMESTAMP.size
)

_KIND = re.compile(
    rf'","event_type":"(?P<type>[a-z0-9._-]+)","parent_span_id":(?:null|"(?P<parent>{ID})")'.encode(),
)
_REQUIRED = {name.encode(): frozenset(fields) for name, fields in REQUIRED_FIELDS.items()}
_NOTHING: frozenset[str] = frozenset()
_EXTENSION_FORM = re.compile(EXTENSION.encode())
_HOUR_FORM = re.compile(DATE_AND_HOUR.encode())
_MAX_KINDS = 4096

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_HEX_TO_ZERO = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_ID_SHAPE = b"00000000-0000-0000-0000-000000000000"
_TIMESTAMP_SHAPE = b"0000-00-00T00:00:00.000000Z"
_HOUR_CHARS = 13
_KEYS = dict[str, object].keys

Kind = tuple[bytes, bytes, frozenset[str]]
"""What is hashed between span and sequence (parent and session), the type, and the fields its payload must hold."""


class LinkedLines:
    """Checks lines of one session, and remembers the kinds of events that were met."""

    __slots__ = ("_kinds", "_session")

    def __init__(self, session: bytes) -> None:
        self._session = session
        self._kinds: dict[bytes, Kind] = {}

    def check(
        self, lines: list[bytes], *, first: int, previous: bytes, timestamp: bytes
    ) -> tuple[Sequence[bytes], bytes] | None:
        """The hashes of ``lines`` and the last timestamp if all continue a chain beyond doubt; None if one may not.

        Args:
            lines: at least one; their sequences have equally many digits.
            first: the sequence the first must have.
            previous: the hash of the event before it, in hex.
            timestamp: that event's.
        """
        numbers = [b"%d" % number for number in range(first, first + len(lines))]
        end = -_AFTER_PAYLOAD - len(numbers[0])
        kinds, _, payloads = zip(*[line[_KIND_AT:end].partition(_PAYLOAD) for line in lines], strict=True)
        known = self._known(kinds)
        if known is None:
            return None
        owners, types, required = zip(*known, strict=True)
        hashes = [line[_HASH_AT:_HASH_END] for line in lines]
        ids = [line[_ID_AT:_KIND_AT] for line in lines]
        trace = lines[0][-_TRACE_FROM_END : -len(_VERSION)]
        # A line with a known kind is long enough for these fields; whether they are where they should be is seen below.
        spans: tuple[bytes, ...]
        stamps: tuple[bytes, ...]
        spans, stamps = zip(
            *map(_SPAN_AND_TIMESTAMP.unpack_from, lines, repeat(-_SPAN_AND_TIMESTAMP.size)), strict=True
        )
        if not (are_identifiers((trace, *ids, *spans)) and are_timestamps(stamps, since=timestamp)):
            return None
        linked_to = [previous, *hashes[:-1]]
        # Endless ones stand for what is the same in every line.
        columns = zip(
            repeat(_HASH), hashes, repeat(_EVENT_ID), ids, kinds, repeat(_PAYLOAD), payloads, repeat(_PREVIOUS), linked_to,
            repeat(_SEQUENCE), numbers, repeat(_SESSION + self._session + _SPAN), spans, repeat(_TIMESTAMP), stamps,
            repeat(_TRACE + trace + _VERSION),
        )  # fmt: skip
        if list(map(b"".join, columns)) != lines:
            return None
        hashed = zip(repeat(b"1.0"), ids, repeat(trace), spans, owners, numbers, stamps, types, payloads, linked_to)
        digests = [sha256(text).digest() for text in map(b"".join, hashed)]
        if b"".join(digests).hex().encode() != b"".join(hashes) or not _are_complete(payloads, required):
            return None
        return hashes, stamps[-1]

    def _known(self, kinds: Sequence[bytes]) -> Sequence[Kind] | None:
        """What ``kinds`` say; None if one is not of the form."""
        known = [*map(self._kinds.get, kinds)]
        if None in known:  # seldom: spans have few parents, and types are few
            if len(self._kinds) > _MAX_KINDS:
                self._kinds.clear()
            known = [self._learn(kind) for kind in kinds]
        return None if None in known else known  # pyright: ignore[reportReturnType]

    def _learn(self, kind: bytes) -> Kind | None:
        match = _KIND.fullmatch(kind)
        if match is None:
            return None
        event_type = match["type"]
        required = _REQUIRED.get(event_type)
        if required is None:
            if not _EXTENSION_FORM.fullmatch(event_type):
                return None
            required = _NOTHING
        self._kinds[kind] = found = ((match["parent"] or b"") + self._session, event_type, required)
        return found


def are_identifiers(texts: Sequence[bytes]) -> bool:
    """Whether each of ``texts``, of 36 bytes, has the form of an identifier."""
    column = b"".join(texts)
    return (
        column.translate(_HEX_TO_ZERO) == _ID_SHAPE * len(texts)
        and column[14::_ID_CHARS] == b"7" * len(texts)  # the version
        and not column[19::_ID_CHARS].translate(None, b"89ab")  # the variant: nothing else is left
    )


def are_timestamps(texts: Sequence[bytes], *, since: bytes) -> bool:
    """Whether each of ``texts``, of 27 bytes, has the form of a timestamp, and none is before the one in front of it."""
    column = b"".join(texts)
    tens = column[14 :: len(_TIMESTAMP_SHAPE)] + column[17 :: len(_TIMESTAMP_SHAPE)]  # of minutes and seconds
    return (
        column.translate(_DIGITS_TO_ZERO) == _TIMESTAMP_SHAPE * len(texts)
        and not tens.translate(None, b"012345")
        and all(map(_HOUR_FORM.fullmatch, {text[:_HOUR_CHARS] for text in texts}))
        and since <= texts[0]
        and sorted(texts) == list(texts)
    )


def _are_complete(payloads: Sequence[bytes], required: Iterable[frozenset[str]]) -> bool:
    """Whether ``payloads`` are canonical and hold what they must."""
    try:
        return all(map(ge, map(_KEYS, parse_canonical_objects(payloads)), required))
    except CanonicalError:
        return False
