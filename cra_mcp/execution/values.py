"""JSON values out of what foreign code returned.

Rule: what leaves here is a fresh tree of plain dicts, lists, strings, numbers, booleans and None that nobody else
holds, and that every program can read: half a surrogate pair, which has no UTF-8, becomes U+FFFD.
"""

import math
import re
from collections.abc import Iterable
from typing import cast

from cra_mcp.json_bounds import MAX_DEPTH, MAX_VALUES, parts

MAX_INTEGER_BITS = 14_283
"""What 4,300 digits can say; the interpreter prints no more."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_PARTS = 2 * MAX_VALUES  # members count twice, long texts for several


class NotJsonError(ValueError):
    """A value has no JSON form. The message names types and places, never contents."""


def json_value(value: object) -> object:
    """A copy of ``value`` in plain JSON types.

    Raises:
        NotJsonError: it holds something else, a NaN or infinity, or too much, or is nested too deep.
    """
    if parts(value, _MAX_PARTS) >= _MAX_PARTS:
        raise NotJsonError(f"it holds more than {MAX_VALUES} values")
    return _copy(value, 0)


def _copy(value: object, depth: int) -> object:
    if isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise NotJsonError(f"it is nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            members = cast("dict[object, object]", value).items()
            return _members((_key(key), _copy(item, depth + 1)) for key, item in members)
        return [_copy(item, depth + 1) for item in cast("list[object]", value)]
    return _scalar(value)


def _scalar(value: object) -> object:
    """A plain scalar; of a member of an enumeration or another subclass, its plain value."""
    if isinstance(value, str):
        return _text(str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(int.__int__(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotJsonError("it holds a number that is NaN or infinite")
        return float.__float__(value)
    raise NotJsonError(f"it holds a {type(value).__name__}")


def _integer(number: int) -> int:
    if number.bit_length() > MAX_INTEGER_BITS:
        raise NotJsonError(f"an integer has more than {MAX_INTEGER_BITS} bits")
    return number


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    raise NotJsonError(f"it holds an object with a key of type {type(key).__name__}")


def whole(value: object) -> object:
    """JSON, read by a reader that takes half a surrogate pair, with U+FFFD for each; names that collide by that get ``~``."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return _members((key, whole(item)) for key, item in cast("dict[str, object]", value).items())
    return [whole(item) for item in cast("list[object]", value)] if isinstance(value, list) else value


def _members(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    mended: list[tuple[str, object]] = []
    for key, item in pairs:
        if (name := _text(key)) == key:
            members[name] = item
        else:
            mended.append((name, item))
    for name, item in mended:
        while name in members:
            name += "~"  # noqa: PLW2901 - until it is free
        members[name] = item
    return members


def _text(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
