"""How much JSON a text or a value holds, found out before anything large is made of it.

Rule: what comes from outside is bounded in bytes by who reads it, and here in values and depth, which cost far more: a byte of text
can become a hundred bytes of objects, and neither a time-out nor anybody else's call gets a turn while they are made. Pure.
Source: RFC 8259, section 9 ("An implementation may set limits").
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, cast

MAX_VALUES = 100_000
"""Values (objects, arrays, strings, numbers and literals) in one message or document."""

MAX_SENT_VALUES = 50_000
"""The same in a message of a client, which is looked at more often."""

MAX_DEPTH = 100
"""Objects and arrays within each other."""

INLINE_BYTES = 65_536
"""A text up to this size is read at once; a longer one off the event loop."""

_CHUNK = 16_384
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x02\x02\x00\x00")
_CHARACTERS = 1_000  # that count as one part of a value


class JsonBoundsError(ValueError):
    """A JSON text holds more than is read. The message says which bound it breaks."""


def check_json(data: bytes, *, max_values: int = MAX_VALUES, max_depth: int = MAX_DEPTH) -> None:
    """Refuse a JSON text that holds too much; whether it is JSON at all is not looked at.

    Raises:
        JsonBoundsError: it has more values, or is nested deeper.
    """
    openings = data.count(b"[") + data.count(b"{")
    commas = data.count(b",")
    if openings <= max_depth and openings + commas < max_values:
        return  # nearly always: what is in strings counts here too, and it is not too much even so
    values, depth = 1, 0
    for part in _without_strings(data):
        values += part.count(b",") + part.count(b"[") + part.count(b"{")
        if values > max_values:
            raise JsonBoundsError(f"more than {max_values} values")
        levels = list(accumulate(part.translate(_STEPS, _NOT_BRACKETS), _then, initial=depth))
        depth = levels[-1]
        if max(levels) > max_depth:
            raise JsonBoundsError(f"nested deeper than {max_depth}")


def parts(value: object, limit: int) -> int:
    """How many parts a value has, long texts counted as several; counted up to ``limit``."""
    waiting: list[object] = [value]
    count = 0
    while waiting and count < limit:
        part = waiting.pop()
        count += 1
        if isinstance(part, str):
            count += len(part) // _CHARACTERS
        elif isinstance(part, dict):
            members = cast("dict[Any, object]", part)
            count += len(members)
            if count < limit:
                waiting.extend(members.values())
        elif isinstance(part, list | tuple):
            items = cast("list[object]", part)
            if count + len(items) >= limit:
                return limit
            waiting.extend(items)
    return count


def _then(level: int, step: int) -> int:
    return level + step - 1


def _without_strings(data: bytes) -> Iterator[bytes]:
    """A JSON text in pieces, its strings taken out."""
    position, opened = 0, b""
    while position < len(data):
        piece = data[position : position + _CHUNK]
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        if backslashes % 2 and position + _CHUNK < len(data):
            piece = data[position : position + len(piece) + 1]  # an escape stays with what it escapes
        position += len(piece)
        # The quotation mark added here closes a string that goes on in the next piece, or begins one that is left over.
        rest = _STRING.sub(b"", opened + piece + b'"x')
        opened = b"" if rest.endswith(b'"x') else b'"'
        yield rest[: -1 if opened else -2]
