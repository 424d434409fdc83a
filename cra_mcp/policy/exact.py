"""Values on their way into an expression: exactly as they are, or not at all.

Rule: the CEL engine must see the very value that is recorded and carried out. It reads a string only up to its first NUL, knows
no half of a surrogate pair, and rounds where whole numbers meet fractions; so what holds any of these is withheld, and what
reads it can't be evaluated. JSON doesn't tell 5.0 from 5, nor 0 from -0: here they are one value.
Source: specs/policy.md, "Expressions".
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Final, cast

from cra_mcp.canonical import MAX_DEPTH, MAX_INTEGER
from cra_mcp.policy.types import Type

_INT64: Final = range(-(1 << 63), 1 << 63)


class Withheld:
    """Stands for a value that an expression is not given.

    ``why`` follows "it holds", in words; "" where the value is not there, or of another type.
    """

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


MISSING: Final = Withheld("")
NUL: Final = Withheld("a NUL character")
SURROGATE: Final = Withheld("half a surrogate pair")
LARGE: Final = Withheld(f"a whole number beyond {MAX_INTEGER}")
NOT_FINITE: Final = Withheld("a number that is not finite")
DEEP: Final = Withheld(f"lists and objects nested more than {MAX_DEPTH} levels deep")
FOREIGN: Final = Withheld("something that is not JSON")


def as_string(value: object) -> object:
    """A string."""
    if type(value) is not str:
        return MISSING
    if "\0" in value:
        return NUL
    return value if value.isascii() or _is_whole(value) else SURROGATE


def as_int(value: object) -> object:
    """A whole number of 64 bits, written with a fraction of zero or without."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value in _INT64 else MISSING


def as_number(value: object) -> object:
    """A double that is the number exactly."""
    if type(value) is float:
        return value + 0.0 if isfinite(value) else NOT_FINITE  # -0.0 + 0.0 is 0.0
    if type(value) is int:
        return float(value) if -MAX_INTEGER <= value <= MAX_INTEGER else LARGE
    return MISSING


def as_bool(value: object) -> object:
    """A boolean."""
    return value if value is True or value is False else MISSING


def as_map(value: object) -> object:
    """An object."""
    return as_is(cast("object", value)) if type(value) is dict else MISSING


def as_is(value: object) -> object:
    """Any value of JSON."""
    return _exact(value, MAX_DEPTH)


def as_list_of(convert: Callable[[object], object]) -> Callable[[object], object]:
    """A list of what ``convert`` gives."""

    def convert_all(value: object) -> object:
        return _listed(cast("list[object]", value), convert) if type(value) in _LISTS else MISSING

    return convert_all


def texts(values: object) -> object:
    """Strings of any collection, sorted."""
    return _listed(sorted(cast("frozenset[str]", values)), as_string)


_LISTS: Final = (list, tuple)

CONVERTERS: Final[Mapping[Type, Callable[[object], object]]] = {
    "string": as_string,
    "int": as_int,
    "number": as_number,
    "bool": as_bool,
    "dyn": as_is,
    "map": as_map,
    "list_string": as_list_of(as_string),
    "list_int": as_list_of(as_int),
    "list_bool": as_list_of(as_bool),
    "list_dyn": as_list_of(as_is),
}
"""By type: the value to hand over for what was sent, or what stands for one that is withheld."""


def _exact(value: object, depth: int) -> object:
    kind = type(value)
    if kind is str:
        return as_string(value)
    if kind is int or kind is float:
        return _number(cast("int | float", value))
    if kind is dict:
        return _members(cast("dict[object, object]", value), depth - 1) if depth else DEEP
    if kind in _LISTS:
        return _listed(cast("list[object]", value), lambda item: _exact(item, depth - 1)) if depth else DEEP
    return value if kind is bool or value is None or value is MISSING else FOREIGN


def _number(value: float) -> object:
    """As its canonical form would be read: whole where it is whole and every reader keeps it."""
    if type(value) is int:
        return value if -MAX_INTEGER <= value <= MAX_INTEGER else LARGE
    if not isfinite(value):
        return NOT_FINITE
    return int(value) if value.is_integer() and -MAX_INTEGER <= value <= MAX_INTEGER else value


def _members(value: dict[object, object], depth: int) -> object:
    found: dict[object, object] = {}
    for name, member in value.items():
        key = as_string(name)
        if type(key) is Withheld:
            return key if key is not MISSING else FOREIGN
        seen = found[name] = _exact(member, depth)
        if type(seen) is Withheld:
            return seen
    return found


def _listed(values: list[object] | list[str], convert: Callable[[object], object]) -> object:
    found: list[object] = []
    for value in values:
        seen = convert(value)
        if type(seen) is Withheld:
            return seen
        found.append(seen)
    return found


def _is_whole(text: str) -> bool:
    """Whether it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
