"""JSON values out of what foreign code returned.

Rule: what leaves here is a fresh tree of plain dicts, lists, strings, numbers, booleans and None that nobody else
holds.
"""

import math
from typing import cast

from cra_mcp.json_bounds import MAX_DEPTH, MAX_VALUES, parts

MAX_INTEGER_BITS = 14_283
"""What 4,300 digits can say; the interpreter prints no more."""

_MAX_PARTS = 2 * MAX_VALUES  # members count twice, long texts for several


class NotJsonError(ValueError):
    """A value has no JSON form. The message names types and places, never contents."""


def json_value(value: object) -> object:
    """A copy of ``value`` in plain JSON types.

    Raises:
        NotJsonError: it holds something else, a NaN or infinity, a lone surrogate, or too much, or is nested too deep.
    """
    if parts(value, _MAX_PARTS) >= _MAX_PARTS:
        raise NotJsonError(f"it holds more than {MAX_VALUES} values")
    return _copy(value, 0)


def _copy(value: object, depth: int) -> object:
    if isinstance(value, dict | list):
        if depth >= MAX_DEPTH:
            raise NotJsonError(f"it is nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            return {_key(key): _copy(item, depth + 1) for key, item in cast("dict[object, object]", value).items()}
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
        return _text(str.__str__(key))
    raise NotJsonError(f"it holds an object with a key of type {type(key).__name__}")


def _text(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise NotJsonError("a text holds a lone surrogate") from None
    return text
