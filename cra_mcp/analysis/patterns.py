"""Texts that a regular expression tells apart: some that match, and some that just don't.

Rule: deterministic, and bounded for every pattern. Each branch, each end of a range of characters and each count that a repetition
allows is there once; look-arounds, back references, flags and properties are not understood, and nothing is claimed of them.
Source: the syntax that RE2 and ECMA-262 share; specs/policy.md, "Comparing".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

_MAX_PATTERN: Final = 500
_MAX_DEPTH: Final = 24
_MAX_TEXTS: Final = 48
_MAX_LENGTH: Final = 1_000
_MORE: Final = (0, 1, 3, 8)
"""How many more than the least a repetition without an end is tried with."""

_Span = tuple[str, str]
_CLASSES: Final[Mapping[str, Sequence[_Span]]] = {
    "d": [("0", "9")],
    "w": [("a", "z"), ("A", "Z"), ("0", "9"), ("_", "_")],
    "s": [(" ", " "), ("\t", "\n")],
}
_OTHERS: Final = {"D": "x-", "W": "- .", "S": "x0-"}
_COUNTS: Final[Mapping[str, list[int]]] = {"*": list(_MORE), "+": [1 + more for more in _MORE], "?": [0, 1]}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS: Final = {"x": 2, "u": 4}
_NOTHING: Final = frozenset("bBAzZ")
_POOL: Final = "x0X _-./@~\u00e9"
"""Where a class says what is not in it."""


class _UnknownSyntaxError(ValueError):
    """A pattern has what is not understood here."""


def matching_texts(pattern: str) -> list[str]:
    """Texts in which a pattern is found, the plainest first; none where it is not understood."""
    try:
        return _Reader(pattern).read()
    except _UnknownSyntaxError:
        return []


def texts_of(pattern: str) -> list[str]:
    """Texts in which a pattern is found, and after them some like the first of these, in which it may not be."""
    matching = matching_texts(pattern)
    near = [each for text in matching[:4] for each in (f"x{text}", f"{text}x", text[:-1], text[1:], text.swapcase())]
    return _once([*matching, *near])


class _Reader:
    """A pattern read from left to right. Every part gives the texts it can stand for, the plainest first."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _MAX_PATTERN:
            raise _UnknownSyntaxError
        self._rest = list(reversed(pattern))
        self._depth = 0

    def read(self) -> list[str]:
        found = self._branches()
        if self._rest:
            raise _UnknownSyntaxError  # a bracket that closes nothing
        return found

    def _branches(self) -> list[str]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _UnknownSyntaxError
        found = self._sequence()
        while self._next_is("|"):
            found += self._sequence()
        self._depth -= 1
        return _once(found)

    def _sequence(self) -> list[str]:
        parts: list[list[str]] = []
        while self._rest and self._rest[-1] not in "|)":
            parts.append(self._repeated(self._atom()))
        plain = [part[0] for part in parts]
        found = ["".join(plain)]
        for at, part in enumerate(parts):
            found += ["".join([*plain[:at], text, *plain[at + 1 :]]) for text in part[1:]]
        return _once(found)

    def _atom(self) -> list[str]:
        mark = self._take()
        if mark == "(":
            return self._group()
        if mark == "[":
            return self._class()
        if mark == "\\":
            return self._escape()
        if mark in "^$":
            return [""]
        if mark in "*+?{":
            raise _UnknownSyntaxError
        return ["x", "-", "0"] if mark == "." else [mark]

    def _group(self) -> list[str]:
        if self._next_is("?") and not self._next_is(":"):
            self._next_is("P")
            if not self._next_is("<") or self._rest[-1:] in (["="], ["!"]):
                raise _UnknownSyntaxError
            while self._take() != ">":
                pass
        found = self._branches()
        if not self._next_is(")"):
            raise _UnknownSyntaxError
        return found

    def _escape(self) -> list[str]:
        mark = self._take()
        if mark in _CLASSES:
            return _once(end for span in _CLASSES[mark] for end in span)
        if mark in _OTHERS:
            return list(_OTHERS[mark])
        return [""] if mark in _NOTHING else [self._character(mark)]

    def _character(self, mark: str) -> str:
        """The character an escape stands for; ``mark`` is what follows the backslash."""
        if mark in _HEX_DIGITS:
            digits = "".join(self._take() for _ in range(_HEX_DIGITS[mark]))
            try:
                return chr(int(digits, 16))
            except ValueError:
                raise _UnknownSyntaxError from None
        if mark in _CONTROLS:
            return _CONTROLS[mark]
        if mark.isalnum():
            raise _UnknownSyntaxError
        return mark

    def _class(self) -> list[str]:
        unlike = self._next_is("^")
        if self._next_is("]"):  # RE2 and ECMA-262 read it differently
            raise _UnknownSyntaxError
        spans: list[_Span] = []
        while not self._next_is("]"):
            found = self._members()
            if len(found) == 1 and self._rest[-2:-1] != ["]"] and self._next_is("-"):
                found = [(found[0][0], self._members()[-1][1])]
            spans += found
        if any(high < low for low, high in spans):
            raise _UnknownSyntaxError
        if not unlike:
            return _once(end for span in spans for end in span)
        others = [each for each in _POOL if not any(low <= each <= high for low, high in spans)]
        if not others:
            raise _UnknownSyntaxError
        return others

    def _members(self) -> "list[_Span]":
        """One character of a class, or the several that an escape means."""
        mark = self._take()
        if mark == "[" and self._rest[-1:] == [":"]:
            raise _UnknownSyntaxError
        if mark == "\\":
            mark = self._take()
            if mark in _CLASSES:
                return list(_CLASSES[mark])
            mark = self._character(mark)
        return [(mark, mark)]

    def _repeated(self, options: list[str]) -> list[str]:
        counts = self._counts()
        if counts is None:
            return options
        self._next_is("?")  # lazy: the same texts
        some = next((count for count in counts if count), 0)
        found = [options[0] * count for count in counts]
        found += [option + options[0] * (some - 1) for option in options[1:] if some]
        found += [option * count for count in counts for option in options[1:]]
        if max(map(len, found)) > _MAX_LENGTH:
            raise _UnknownSyntaxError
        return _once(found)

    def _counts(self) -> list[int] | None:
        for mark, counts in _COUNTS.items():
            if self._next_is(mark):
                return counts
        return self._bounds() if self._next_is("{") else None

    def _bounds(self) -> list[int]:
        inside = ""
        while (mark := self._take()) != "}":
            inside += mark
        least, comma, most = inside.partition(",")
        if not (least.isdecimal() and (most.isdecimal() or not most)):
            raise _UnknownSyntaxError
        low = int(least)
        if low > _MAX_LENGTH:
            raise _UnknownSyntaxError
        if comma and not most:
            return [low + more for more in _MORE]
        high = min(int(most or low), _MAX_LENGTH)
        if high < low:
            raise _UnknownSyntaxError
        return sorted({low, min(low + 1, high), high})

    def _next_is(self, mark: str) -> bool:
        """Whether ``mark`` comes next; it is taken if so."""
        if self._rest[-1:] != [mark]:
            return False
        self._rest.pop()
        return True

    def _take(self) -> str:
        if not self._rest:
            raise _UnknownSyntaxError
        return self._rest.pop()


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))[:_MAX_TEXTS]
