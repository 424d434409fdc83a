"""Values without their secrets and personal data: each is replaced by a marker that says what it was.

Rule: total, bounded, and stable: markers are left as they are. Equal texts have equal tokens under one key; a token tells nobody
without the key what it stands for. Source: specs/trace.md, "Detectors" and "Tokens"; RFC 2104 (HMAC); FIPS 180-4.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, cast

import orjson

from cra_mcp.canonical import lossy
from cra_mcp.secret_forms import has_secret_name, hides_numbers, secret_name
from cra_mcp.trace.detect.rules import (
    BUILT_IN,
    CARD,
    CARD_MAX_DIGITS,
    CARD_MIN_DIGITS,
    EMAIL,
    NAMED,
    is_card,
)
from cra_mcp.trace.detect.scan import UNSEARCHED, Finder, Scanner

MAX_VALUE_BYTES = 1_048_576
"""JSON bytes of a value that is searched; a larger one is hidden as a whole."""

_TOKEN_HEX = 16  # 64 bits: two of a million secrets are alike by chance once in 10^7 data folders
_PURPOSE = b"cra-mcp redaction v1\0"
_BEGIN = "[redacted"
_MAX_FOUND = 64
_CONTAINERS = frozenset((dict, list, tuple))


class Found(NamedTuple):
    """Something that was hidden: where (a JSON pointer into the value), and the detector that found it."""

    pointer: str
    detector: str


class Detectors:
    """Hides what its detectors find.

    Args:
        detectors: names of built-in ones.
        own: further ones, by name.
        key: asked for the key of tokens when something is hidden; None: no token then.
    """

    def __init__(
        self,
        detectors: Iterable[str] = BUILT_IN,
        *,
        own: Mapping[str, Finder] | None = None,
        key: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        names = tuple(name for name in BUILT_IN if name in set(detectors))
        self._key = key
        self._own = dict(own or {})
        self._scanner = Scanner(names, self._own)
        self._more: dict[frozenset[str], Detectors] = {}  # a few: one for each choice of a loaded atlas

    def adding(self, names: frozenset[str]) -> "Detectors":
        """The same and further built-in ones: never fewer."""
        if names <= self._scanner.detectors:
            return self
        found = self._more.get(names)
        if found is None:
            found = self._more[names] = Detectors(self._scanner.detectors | names, own=self._own, key=self._key)
        return found

    def without_emails(self) -> "Detectors":
        """The same, but e-mail addresses stay."""
        names = self._scanner.detectors - {EMAIL}
        return Detectors(names, own=self._own, key=self._key)

    def text(self, text: str) -> str:
        """A text without them."""
        return self._text(text, "", [])

    def value(self, value: object) -> tuple[object, list[Found]]:
        """A JSON value without them, names of members included, and the first of what was hidden.

        The value itself is returned where nothing is found: the usual case.
        """
        try:
            data = orjson.dumps(value)
        except (orjson.JSONEncodeError, RecursionError):
            value = lossy(value)
            data = orjson.dumps(value)
        if len(data) > MAX_VALUE_BYTES:
            return self._marker(UNSEARCHED, data), [Found("", UNSEARCHED)]
        if not self._scanner.may_hold(data) and (NAMED not in self._scanner.detectors or not _has_secret_name(value)):
            return value, []
        found: list[Found] = []
        return self._value(value, "", found, None), found

    def _value(self, value: object, pointer: str, found: list[Found], word: str | None) -> object:
        """``word``: of the name of the member it stands in, where that says that texts in it are secrets."""
        match value:
            case str():
                return self._text(value, pointer, found, word)
            case dict():
                return self._object(cast("dict[str, object]", value), pointer, found)
            case list() | tuple():
                items = cast("list[object]", value)
                return [self._value(item, f"{pointer}/{place}", found, word) for place, item in enumerate(items)]
            case int() | float() if not isinstance(value, bool):
                return self._number(value, pointer, found, word)
            case _:
                return value

    def _object(self, value: dict[str, object], pointer: str, found: list[Found]) -> dict[str, object]:
        result: dict[str, object] = {}
        by_name = NAMED in self._scanner.detectors
        for key, member in value.items():
            name = self._text(key, pointer, found)
            while name in result:
                name += "~"
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            result[name] = self._value(member, place, found, secret_name(key) if by_name else None)
        return result

    def _text(self, text: str, pointer: str, found: list[Found], word: str | None = None) -> str:
        if text.startswith(_BEGIN) and text.endswith("]"):
            return text
        if word is not None and text:
            return self._hide(NAMED, text, pointer, found)
        spans = self._scanner.spans(text)
        if not spans:
            return text
        parts: list[str] = []
        position = 0
        for start, end, detector in spans:
            parts += text[position:start], self._hide(detector, text[start:end], pointer, found)
            position = end
        return "".join([*parts, text[position:]])

    def _number(self, value: float, pointer: str, found: list[Found], word: str | None) -> object:
        text = str(value)
        if word is not None and hides_numbers(word):
            return self._hide(NAMED, text, pointer, found)
        may_be_card = CARD in self._scanner.detectors and CARD_MIN_DIGITS <= len(text) <= CARD_MAX_DIGITS
        if may_be_card and text.isdecimal() and is_card(text):
            return self._hide(CARD, text, pointer, found)
        return value

    def _hide(self, detector: str, text: str, pointer: str, found: list[Found]) -> str:
        if len(found) < _MAX_FOUND:
            found.append(Found(pointer, detector))
        return self._marker(detector, text.encode("utf-8", "surrogatepass"))

    def _marker(self, detector: str, data: bytes) -> str:
        key = self._key()
        if key is None:
            return f"{_BEGIN}:{detector}]"
        token = hmac.digest(key, _PURPOSE + data, "sha256").hex()[:_TOKEN_HEX]
        return f"{_BEGIN}:{detector}:{token}]"


def _has_secret_name(value: object) -> bool:
    """Whether a name of a member, at any depth, says that its value is a secret. On the way of every call, hence its form."""
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        if has_secret_name(tuple(members)):
            return True
        inside = members.values()
    else:
        inside = cast("list[object]", value) if isinstance(value, list | tuple) else ()
    for each in inside:  # noqa: SIM110 - twice as fast as any()
        if type(each) in _CONTAINERS and _has_secret_name(each):
            return True
    return False
