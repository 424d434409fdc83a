"""Canonical JSON bytes and the only hashing of the package.

Rule: a value has exactly one byte form or none; nothing is rounded, dropped or guessed. The fast writer (orjson) is
used only for values on which it is proved to agree with RFC 8785, the reference writer (rfc8785) for all others.
Source: RFC 8785 (JSON Canonicalization Scheme); FIPS 180-4 (SHA-256).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any, cast

import orjson
import rfc8785

from cra_mcp.errors import CanonicalError

MAX_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exact."""

MAX_DEPTH = 128
"""Containers nested deeper than this have no canonical form here."""

_LOSSY_DEPTH = 64
_CUT = "…"  # stands for the part of a value that is left out
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_WHOLE_DOUBLE_CHARS = 22  # a sign and 21 digits: what is longer is written with an exponent
_ORJSON_DECIMAL_MIN = 1e-5  # below it orjson writes an exponent where RFC 8785 still writes zeros
_ORJSON_DECIMAL_MAX = 1e16  # above it every double is whole; infinities are shut out too
_kind: Callable[[object], type[object]] = type
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical_bytes(value: object, *, max_depth: int = MAX_DEPTH) -> bytes:
    """The RFC 8785 form of ``value``.

    Objects are ``dict`` with ``str`` keys, arrays ``list`` or ``tuple``. Subclasses, enumerations among them, are
    refused: writers disagree on them.

    Raises:
        CanonicalError: it has none, or is nested deeper than ``max_depth``.
    """
    if _agrees(value, _kind(value), max_depth):
        try:
            return orjson.dumps(value, option=_OPTIONS)
        except orjson.JSONEncodeError:
            pass  # refused below, in words
    try:
        return rfc8785.dumps(value)  # pyright: ignore[reportArgumentType]  # its types were checked above
    except ValueError as error:
        raise CanonicalError("an integer is beyond 2^53-1, or a string holds a lone surrogate") from error


def sha256_hex(data: bytes) -> str:
    """Lower-case hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest(value: object) -> str:
    """SHA-256 of the canonical form.

    Raises:
        CanonicalError: ``value`` has no canonical form.
    """
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def lossy(value: object) -> object:
    """The nearest value that has a canonical form: total, and the identity on JSON values of up to 64 levels.

    NaN and infinities become their names, integers beyond 2^53-1 decimal strings, lone surrogates U+FFFD, keys that
    aren't strings their text (with ``~`` added where that collides), what is too deep or contains itself ``…``,
    anything else that isn't JSON its type name in angle brackets. Subclasses count as the JSON type they extend.
    """
    return _lossy(value, _LOSSY_DEPTH, frozenset())


def parse_json(data: bytes, *, max_bytes: int, max_depth: int = 64, whole_doubles: bool = False) -> object:
    """Read JSON that comes from outside, strictly.

    Refused: more than ``max_bytes``, a byte order mark, anything but UTF-8, duplicate keys, NaN and infinities,
    integers beyond 2^53-1, numbers beyond the range of doubles, lone surrogates, more than ``max_depth`` nested
    containers. With ``whole_doubles`` an integer beyond 2^53-1 is read as the double whose canonical text it is, if there
    is one: so that whatever ``canonical_bytes`` wrote, 1e16 included, can be read back unchanged.

    Raises:
        CanonicalError: with line and column where the fault has a place.
    """
    if len(data) > max_bytes:
        raise CanonicalError(f"JSON text of {len(data)} bytes is over the limit of {max_bytes}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise CanonicalError("JSON text starts with a byte order mark", hint="Save the file as UTF-8 without BOM.")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise CanonicalError(f"JSON text is not UTF-8: bad byte at offset {error.start}") from error
    try:
        parse_int = _integer_or_double if whole_doubles else None
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=parse_int)
        canonical_bytes(value, max_depth=max_depth)
    except json.JSONDecodeError as error:
        raise CanonicalError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except (CanonicalError, ValueError, RecursionError) as error:
        # ValueError: an integer of thousands of digits.
        raise CanonicalError(_fault(text, max_depth)) from error
    return value


def parse_canonical_object(data: bytes) -> dict[str, object]:
    """Read a JSON object that must be in RFC 8785 form already: ``canonical_bytes`` of the result is ``data``. Fast.

    Refuses, as an integer, the text of a whole double from 2^53 to 2^64; ``parse_json`` can read it.

    Raises:
        CanonicalError: it is not such a form.
    """
    try:
        value: dict[str, object] = orjson.loads(data)
        if _kind(value) is not dict:
            raise CanonicalError("not a JSON object")
        if _object_agrees(value, MAX_DEPTH) and orjson.dumps(value, option=_OPTIONS) == data:
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise CanonicalError("not JSON, or an integer is beyond 2^53-1") from error
    if canonical_bytes(value) != data:
        raise CanonicalError("the JSON text is not in canonical form")
    return value


def parse_canonical_objects(texts: Sequence[bytes]) -> list[dict[str, object]]:
    """``parse_canonical_object`` of each, much faster than one by one.

    The forms of all are compared at once, with commas between: no object's text is the beginning of another's, so from the first
    on each text must be the form of its own object.

    Raises:
        CanonicalError: one is not in RFC 8785 form.
    """
    try:
        values: list[dict[str, object]] = list(map(orjson.loads, texts))
        joined = b"[" + b",".join(texts) + b"]"
        # All characters of what is ASCII and comes out the same are below U+D800: keys sort alike.
        if joined.isascii() and _parsed_agree(values) and orjson.dumps(values, option=_OPTIONS) == joined:
            return values
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # whichever it was is refused below, in words
    return [parse_canonical_object(text) for text in texts]


def _parsed_agree(values: Sequence[Any]) -> bool:
    """Whether ``values``, as orjson read them and with keys that sort alike, are objects that it writes as RFC 8785 says."""
    if {*map(_kind, values)} != {dict}:
        return False
    level = values
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for container in level:
            for item in container.values() if _kind(container) is dict else container:
                kind = _kind(item)
                if kind is str or kind is int:  # nearly all of them
                    continue
                if kind is dict or kind is list:
                    inner.append(item)
                elif kind is float and not (
                    _ORJSON_DECIMAL_MIN <= abs(item) <= _ORJSON_DECIMAL_MAX and not item.is_integer()
                ):
                    return False
        if not inner:
            return True
        level = inner
    return False


def _agrees(value: Any, kind: type[object], room: int) -> bool:
    """Whether orjson writes ``value`` of type ``kind`` exactly as RFC 8785 says; ``room``: how deep it may still nest.

    It does for literals, for strings and integers (lone surrogates and what is beyond 2^53-1 it refuses itself), for
    floats as ``_float_agrees`` says and objects as ``_object_agrees`` says. All of this runs for every recorded event,
    hence the care for speed.

    Raises:
        CanonicalError: not JSON, too deep, or a float without canonical form.
    """
    if kind is dict:
        return _object_agrees(value, room)
    if kind is list or kind is tuple:
        return _array_agrees(value, room)
    if kind is float:
        return _float_agrees(value)
    if kind is not str and kind is not int and kind is not bool and value is not None:
        raise CanonicalError(f"a value of type {kind.__name__} is not JSON")
    return True


def _object_agrees(value: dict[Any, Any], room: int) -> bool:
    """Keys sort alike as UTF-8 (orjson) and as UTF-16 (RFC 8785) if all their characters are below U+D800."""
    if room <= 0:
        raise CanonicalError("the value is nested too deeply")
    agrees = True
    for key, item in value.items():
        if _kind(key) is not str:
            raise CanonicalError(f"an object key of type {_kind(key).__name__} is not a string")
        if not key.isascii() and max(key) >= "\ud800":
            agrees = False
        kind = _kind(item)
        if kind is not str and kind is not int and not _agrees(item, kind, room - 1):
            agrees = False
    return agrees


def _array_agrees(value: Iterable[Any], room: int) -> bool:
    if room <= 0:
        raise CanonicalError("the value is nested too deeply")
    agrees = True
    for item in value:
        kind = _kind(item)
        if kind is not str and kind is not int and not _agrees(item, kind, room - 1):
            agrees = False
    return agrees


def _float_agrees(value: float) -> bool:
    """Both write the shortest digits; they differ on whole numbers (1.0, -0.0, 1e16) and on when to use an exponent."""
    if _ORJSON_DECIMAL_MIN <= abs(value) <= _ORJSON_DECIMAL_MAX:
        return not value.is_integer()
    if not isfinite(value):
        raise CanonicalError("NaN and infinities are not JSON")
    return False


# A subclass may have replaced these methods; its content is read by the base type's.
_DICT_ITEMS: Callable[[dict[Any, Any]], Iterable[tuple[Any, Any]]] = dict[Any, Any].items
_LIST_ITEMS: Callable[[list[Any]], Iterable[Any]] = list[Any].__iter__
_TUPLE_ITEMS: Callable[[tuple[Any, ...]], Iterable[Any]] = tuple[Any, ...].__iter__


def _lossy(value: Any, room: int, above: frozenset[int]) -> object:
    """``above`` holds the identities of the containers around ``value``."""
    kind = _kind(value)
    if not issubclass(kind, dict | list | tuple):
        return _lossy_scalar(value)
    if room <= 0 or id(value) in above:
        return _CUT
    within = above | {id(value)}
    if issubclass(kind, dict):
        return _lossy_object(value, room - 1, within)
    items = _LIST_ITEMS(value) if issubclass(kind, list) else _TUPLE_ITEMS(value)
    return [_lossy(item, room - 1, within) for item in items]


def _lossy_object(value: dict[Any, Any], room: int, above: frozenset[int]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, item in _DICT_ITEMS(value):
        name = _key(key)
        while name in result:
            name += "~"
        result[name] = _lossy(item, room, above)
    return result


def _lossy_scalar(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int.__int__(value)
        return number if -MAX_INTEGER <= number <= MAX_INTEGER else _decimal(number)
    if isinstance(value, float):
        real = float.__float__(value)
        return real if isfinite(real) else repr(real)
    return _type_name(value)


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key)
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    if isinstance(key, int):
        return _decimal(int.__int__(key))
    if isinstance(key, float):
        return float.__repr__(key)
    return _type_name(key)


def _text(value: str) -> str:
    return _SURROGATE.sub("\ufffd", str.__str__(value))


def _decimal(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # the interpreter refuses to print thousands of digits
        return f"<integer of {value.bit_length()} bits>"


def _type_name(value: object) -> str:
    return f"<{_text(type(value).__name__)}>"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise CanonicalError("a key occurs twice in one object")
    return result


def _integer_or_double(text: str) -> int | float:
    if len(text) <= _WHOLE_DOUBLE_CHARS and abs(int(text)) > MAX_INTEGER:
        double = float(text)
        if rfc8785.dumps(double) == text.encode():
            return double
    return int(text)


def _no_constant(name: str) -> object:
    raise CanonicalError(f"{name} is not JSON")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]+")
_INTEGER_CHARS = len(str(-MAX_INTEGER))


def _fault(text: str, max_depth: int) -> str:
    """Which rule beyond JSON's grammar ``text`` breaks, and where; slow, for texts already known to be refused."""
    containers: list[set[str] | None] = []  # keys seen in each open object; None for an array
    before = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in {"{", "["}:
            containers.append(None if "[" in token else set())
            reason = f"more than {max_depth} nested objects and arrays" if len(containers) > max_depth else None
        elif token in {"}", "]"}:
            containers.pop()
            reason = None
        elif token.startswith('"'):
            reason = _string_fault(token, containers[-1] if containers and before in {"{", ","} else None)
        else:
            reason = _number_fault(token)
        if reason:
            line = text.count("\n", 0, match.start()) + 1
            return f"{reason} at line {line} column {match.start() - text.rfind(chr(10), 0, match.start())}"
        before = token
    return "JSON text is too complex"  # the interpreter's own limits, met below ours


def _string_fault(token: str, keys: set[str] | None) -> str | None:
    content = cast("str", json.loads(token))
    if _SURROGATE.search(content):
        return "a string holds a lone surrogate"
    if keys is not None:
        if content in keys:
            return f"key {token} occurs twice in one object"
        keys.add(content)
    return None


def _number_fault(token: str) -> str | None:
    """Takes any token that is not a string or bracket; words and marks pass."""
    if _INTEGER.fullmatch(token):
        unsafe = len(token) > _INTEGER_CHARS or abs(int(token)) > MAX_INTEGER
        return "an integer beyond 2^53-1 (write it as a string)" if unsafe else None
    try:
        finite = isfinite(float(token))
    except ValueError:
        return None
    return None if finite else "a number that no double can hold"
