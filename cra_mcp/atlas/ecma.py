"""Patterns as every host can compile them: ECMA-262 with the ``u`` flag.

Rule: what is returned matches exactly the strings that the server's own engine matches; where that can't be said for certain,
there is no translation. A pattern that means the same already is returned as it is.
Source: ECMA-262, section 22.2.1; the syntax of Rust's ``regex`` crate; specs/mcp.md, "Published schemas".
"""

import re
from collections.abc import Callable
from typing import Final

MAX_ATOMS: Final = 5_000
"""How many atoms one pattern may have when its counted repetitions are written out, as some engines do."""

_SYNTAX = frozenset("^$\\.*+?()[]{}|")
_IN_CLASS = frozenset("\\]^-[")
_PLAIN_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_PERL = frozenset("dDwWsS")
_PUNCTUATION = frozenset("!\"#%&',-/:;=@_`~ ") | _SYNTAX
_COUNTED = re.compile(r"\{([0-9]{1,5})(,([0-9]{0,5}))?\}")
_HEX = re.compile(
    r"x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})"
)
_GROUP = re.compile(r"\?P?<[A-Za-z_][A-Za-z0-9_]*>|\?:")
_FLAGS = re.compile(r"\?([isU]*)(?:-([isU]+))?([:)])")
_FOLDED = {"k": 0x212A, "s": 0x17F}
_MAX_DEPTH = 50
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_ASCII_END = 0x80
_MAX_BMP = 0xFFFF


class _UntranslatableError(Exception):
    """The pattern has something in it that engines differ about."""


def to_ecma(pattern: str) -> str | None:
    """The pattern for ``new RegExp(pattern, "u")``; None if there is none that certainly means the same."""
    parser = _Parser(pattern)
    try:
        text = parser.alternatives(frozenset(), 0)
        if parser.at != len(pattern):
            return None
    except _UntranslatableError:
        return None
    return text if parser.is_foreign else pattern


class _Parser:
    """A reader of the common subset. ``is_foreign``: something that ECMA-262 writes otherwise has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.is_foreign = False
        self._atoms = 0

    def alternatives(self, flags: frozenset[str], depth: int) -> str:
        """All up to the end of the group. Flags set in one alternative hold in those after it."""
        if depth > _MAX_DEPTH:
            raise _UntranslatableError
        parts: list[str] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self._takes("|"):
                parts.append("|")
                continue
            found = self._flags_alone()
            if found is not None:
                flags = found(flags)
                continue
            before = self._atoms
            parts.append(self._repeated(self._atom(flags, depth), before))
        return "".join(parts)

    def _takes(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _flags_alone(self) -> Callable[[frozenset[str]], frozenset[str]] | None:
        match = _FLAGS.match(self.text, self.at + 1) if self.text.startswith("(?", self.at) else None
        if match is None or match[3] != ")":
            return None
        self.at = match.end()
        self.is_foreign = True
        return lambda flags: flags.union(match[1]).difference(match[2] or "")

    def _atom(self, flags: frozenset[str], depth: int) -> tuple[str, bool]:
        """One atom, and whether ECMA-262 lets it be repeated as it is."""
        char = self.text[self.at]
        if char == "(":
            return self._group(flags, depth), True
        if char == "[":
            return self._class("i" in flags), True
        if char == "\\":
            return self._escape(flags)
        self.at += 1
        if char in "^$":
            return char, False
        if char == ".":
            self.is_foreign = True
            return (r"[\s\S]" if "s" in flags else r"[^\n]"), True
        if char in "*+?{":
            raise _UntranslatableError
        self.is_foreign = self.is_foreign or char in "]}"
        return _one(ord(char), "i" in flags), True

    def _group(self, flags: frozenset[str], depth: int) -> str:
        self.at += 1
        opening = "("
        if self.text.startswith("?", self.at):
            plain = _GROUP.match(self.text, self.at)
            match = plain or _FLAGS.match(self.text, self.at)
            if match is None:
                raise _UntranslatableError
            if plain is None:
                flags = flags.union(match[1]).difference(match[2] or "")
            self.is_foreign = self.is_foreign or match[0] != "?:"
            self.at = match.end()
            opening = "(?:"
        body = self.alternatives(flags, depth + 1)
        if not self._takes(")"):
            raise _UntranslatableError
        return f"{opening}{body})"

    def _repeated(self, atom: tuple[str, bool], before: int) -> str:
        text, is_repeatable = atom
        self._atoms += 1
        while True:
            suffix, copies = self._quantifier()
            if not suffix:
                return text
            self._atoms = before + (self._atoms - before) * copies
            if self._atoms > MAX_ATOMS:
                raise _UntranslatableError
            if not is_repeatable:
                self.is_foreign = True
                text = f"(?:{text})"
            text += suffix
            is_repeatable = False

    def _quantifier(self) -> tuple[str, int]:
        """What repeats the atom before it, if anything does, and how many copies that is."""
        char = self.text[self.at : self.at + 1]
        suffix, copies = "", 1
        if char == "{":
            match = _COUNTED.match(self.text, self.at)
            if match is None:
                raise _UntranslatableError
            suffix, copies = match[0], max(int(match[1]), int(match[3] or 0), 1)
        elif char and char in "*+?":
            suffix = char
        self.at += len(suffix)
        return (suffix + "?" if suffix and self._takes("?") else suffix), copies

    def _escape(self, flags: frozenset[str]) -> tuple[str, bool]:
        following = self.text[self.at + 1 : self.at + 2]
        if following in ("A", "z"):
            self.at += 2
            self.is_foreign = True
            return ("^" if following == "A" else "$"), False
        if following in _PERL and following:
            self.at += 2
            return _perl(following, "i" in flags), True
        return _one(self._escaped(), "i" in flags), True

    def _escaped(self) -> int:
        """The character that an escape stands for."""
        self.at += 1
        following = self.text[self.at : self.at + 1]
        match = _HEX.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            self.is_foreign = self.is_foreign or match[0][:2] in ("x{", "u{") or match[0][0] == "U"
            code = int(next(group for group in match.groups() if group), 16)
            if code > _LAST or code in _SURROGATES:
                raise _UntranslatableError
            return code
        self.at += 1
        if following in _PLAIN_ESCAPES:
            return _PLAIN_ESCAPES[following]
        if following not in _PUNCTUATION or not following:
            raise _UntranslatableError
        self.is_foreign = self.is_foreign or following not in _SYNTAX | {"/"}
        return ord(following)

    def _class(self, is_folded: bool) -> str:
        self.at += 1
        opening = "[^" if self._takes("^") else "["
        parts: list[str] = []
        while not self._takes("]"):
            parts.append(self._item(is_folded))
        if not parts:
            raise _UntranslatableError
        return f"{opening}{''.join(parts)}]"

    def _item(self, is_folded: bool) -> str:
        if self.at >= len(self.text):
            raise _UntranslatableError
        following = self.text[self.at + 1 : self.at + 2]
        if self.text[self.at] == "\\" and following in _PERL and following:
            self.at += 2
            if self._is_range():
                raise _UntranslatableError
            return _perl(following, is_folded, in_class=True)
        low = self._member()
        high = low
        if self._is_range():
            self.at += 1
            if self.text.startswith("-", self.at):
                raise _UntranslatableError
            high = self._member()
        if high < low:
            raise _UntranslatableError
        return _span(low, high, is_folded)

    def _is_range(self) -> bool:
        return self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at)

    def _member(self) -> int:
        char = self.text[self.at : self.at + 1]
        if char == "\\":
            if self.text.startswith("\\-", self.at):
                self.at += 2
                return ord("-")
            return self._escaped()
        # Engines differ about set operations and nested classes; what could be read as one is not translated.
        if not char or char == "[" or self.text[self.at : self.at + 2] in ("&&", "~~", "--", "||"):
            raise _UntranslatableError
        self.at += 1
        return ord(char)


def _one(code: int, is_folded: bool) -> str:
    if is_folded and _is_cased(code, code):
        return f"[{_span(code, code, is_folded)}]"
    return _literal(code, _SYNTAX)


def _perl(letter: str, is_folded: bool, *, in_class: bool = False) -> str:
    if not is_folded or letter not in "wW":
        return f"\\{letter}"
    if letter == "W" and in_class:
        raise _UntranslatableError
    body = r"\w\u017f\u212a"
    return body if in_class else f"[{'^' if letter == 'W' else ''}{body}]"


def _span(low: int, high: int, is_folded: bool) -> str:
    """A member of a class, with what differs from it in case only."""
    first, last = _literal(low, _IN_CLASS), _literal(high, _IN_CLASS)
    text = first if low == high else f"{first}-{last}"
    if not is_folded:
        return text
    return text + "".join(sorted(_folded(low, high)))


def _is_cased(low: int, high: int) -> bool:
    if high >= _ASCII_END:
        return True
    return any(chr(code).isalpha() for code in range(low, high + 1))


def _folded(low: int, high: int) -> set[str]:
    """What a case-insensitive engine takes besides; only known for certain within ASCII."""
    if high >= _ASCII_END:
        raise _UntranslatableError
    found: set[str] = set()
    for code in range(low, high + 1):
        char = chr(code)
        if char.isalpha():
            found.add(char.swapcase())
            if char.lower() in _FOLDED:
                found.add(f"\\u{_FOLDED[char.lower()]:04x}")
    return {each for each in found if len(each) > 1 or not low <= ord(each) <= high}


def _literal(code: int, special: frozenset[str]) -> str:
    char = chr(code)
    if char in special:
        return f"\\{char}"
    if char.isprintable() or code > _MAX_BMP:
        return char
    return f"\\x{code:02x}" if code < _ASCII_END * 2 else f"\\u{code:04x}"
