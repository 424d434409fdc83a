"""Where in one text the secrets and personal data are.

Rule: most texts hold none, so most of the work is finding that out: a few searches for fixed bytes, at memory speed, come
before any pattern. What can't be searched within bounds is hidden as a whole. Source: specs/trace.md, "Detectors".
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from cra_mcp import secret_forms
from cra_mcp.trace.detect import rules
from cra_mcp.trace.detect.rules import CARD, EMAIL, ENTROPY, NAMED, PRIVATE_KEY, SECRET

T = TypeVar("T")

MAX_TEXT = 262_144
"""Characters of a text that is searched; a longer one is hidden as a whole."""

UNSEARCHED = "unsearched"
"""Stands for the detector where a text was too large, or too dense with what might be something, to be searched."""

_MAX_CANDIDATES = 1_024
_RUN = b"w" * rules.RUN_CHARS

Finder = Callable[[str], Iterable[tuple[int, int]]]


class Span(NamedTuple):
    """A part of a text: from ``start`` up to ``end``, and the detector that found it."""

    start: int
    end: int
    detector: str


class _Dense(Exception):  # noqa: N818 - not an error: it ends a search
    """A text has more candidates than are looked at."""


class Scanner:
    """Searches texts with some of the detectors.

    Args:
        detectors: names out of ``rules.BUILT_IN``.
        own: finders of an operator's own patterns by name; each runs in time linear in the text.
    """

    def __init__(self, detectors: Iterable[str], own: dict[str, Finder] | None = None) -> None:
        self.detectors = frozenset(detectors)
        self._own = own or {}
        on = self.detectors
        self._finds_runs = bool(on & {SECRET, ENTROPY, PRIVATE_KEY, NAMED})
        self._finds_ats = bool(on & {EMAIL, NAMED})
        self._finds_cards = CARD in on
        self._finds_emails = EMAIL in on
        self._finds_names = NAMED in on

    def may_hold(self, data: bytes) -> bool:
        """False if a text, or a JSON text with all its strings and names, certainly holds nothing. ``data`` is its UTF-8.

        What the name of a member says of its value is not looked at here.
        """
        if self._own or (self._finds_runs and _has_run(data)):
            return True
        if self._finds_ats and b"@" in data:
            return True
        if self._finds_cards and _has_digits(data):
            return True
        return self._finds_names and _may_assign(data, in_json=True)

    def spans(self, text: str) -> list[Span]:
        """What is found, in order and without overlaps."""
        if len(text) > MAX_TEXT:
            return [Span(0, len(text), UNSEARCHED)]
        data = text.encode("ascii", "replace")  # one byte a character: positions are those of the text
        if not self.may_hold(data) and not (self._finds_names and _may_assign(data, in_json=False)):
            return []
        try:
            return _without_overlaps(self._found(text, data))
        except _Dense:
            return [Span(0, len(text), UNSEARCHED)]

    def _found(self, text: str, data: bytes) -> Iterator[Span]:
        on = self.detectors
        if PRIVATE_KEY in on and "PRIVATE KEY" in text:
            yield from _private_keys(text)
        if SECRET in on or ENTROPY in on:
            yield from self._in_runs(text, data)
        if self._finds_names:
            yield from _named(text, data)
        if self._finds_cards and _has_digits(data):
            yield from _cards(text)
        if self._finds_emails and "@" in text:
            yield from _emails(text)
        for name, find in self._own.items():
            for start, end in find(text):
                if end > start:
                    yield Span(start, end, name)

    def _in_runs(self, text: str, data: bytes) -> Iterator[Span]:
        for run in _few(rules.RUN.finditer(data.translate(rules.TOKEN_CHARS))):
            start, end = run.span()
            if not data[start:end].strip(rules.HEX):
                continue
            if SECRET in self.detectors:
                for match in secret_forms.PREFIXED.finditer(text, start, end):
                    if not (match.start() > start and text[match.start() - 1].isalnum()):
                        yield Span(*match.span(), SECRET)
            if ENTROPY in self.detectors:
                for match in _few(secret_forms.ENTROPIC.finditer(text, start, end)):
                    if secret_forms.is_random(match[0]):
                        yield Span(*match.span(), ENTROPY)


def _few(matches: Iterable[T]) -> Iterator[T]:
    """Matches, as many of them as are looked at.

    Raises:
        _Dense: there are more.
    """
    for count, match in enumerate(matches):
        if count == _MAX_CANDIDATES:
            raise _Dense
        yield match


def _has_run(data: bytes) -> bool:
    """Whether there are characters enough in a row for a token, other than a digest's or a UUID's."""
    kinds = data.translate(rules.TOKEN_CHARS)
    if _RUN not in kinds:
        return False
    runs = rules.RUN.finditer(kinds)
    return any(data[run.start() : run.end()].strip(rules.HEX) for run in runs)


def _has_digits(data: bytes) -> bool:
    return rules.DIGIT_RUN in data.translate(rules.DIGITS, b" -")


def _may_assign(data: bytes, *, in_json: bool) -> bool:
    """Whether ``password=x`` or the like may be in a text. In JSON, a colon that follows a quotation mark is its own."""
    own = data.count(b'":') if in_json else 0
    has_mark = data.count(b":") > own or b"=" in data or b'\\"' in data
    return has_mark and rules.HINTS.search(data.lower()) is not None


def _named(text: str, data: bytes) -> Iterator[Span]:
    if rules.HINTS.search(data.lower()) is not None:
        yield from _values_of(secret_forms.ASSIGNED, text)
    if _has_run(data):
        yield from _values_of(secret_forms.BEARER, text)
    if "@" in text and "://" in text:
        yield from _values_of(secret_forms.URL_PASSWORD, text)


def _private_keys(text: str) -> Iterator[Span]:
    """From the first line to the last; to the end of the text where there is no last one."""
    position = 0
    while begin := secret_forms.PEM_BEGIN.search(text, position):
        end = secret_forms.PEM_END.search(text, begin.end())
        position = end.end() if end is not None else len(text)
        yield Span(begin.start(), position, PRIVATE_KEY)


def _values_of(pattern: "re.Pattern[str]", text: str) -> Iterator[Span]:
    for match in _few(pattern.finditer(text)):
        yield Span(*match.span("value"), NAMED)


def _cards(text: str) -> Iterator[Span]:
    """Numbers may stand in groups, and groups of other numbers beside them: a card begins and ends with a group."""
    looked_at = 0
    for match in rules.CARD_DIGITS.finditer(text):
        groups = [(group.start(), group.end()) for group in _GROUP.finditer(text, *match.span())]
        position = 0
        while position < len(groups):
            looked_at += 1
            if looked_at > _MAX_CANDIDATES:
                raise _Dense
            last = _card_from(text, groups, position)
            if last is not None and not _is_in_hex(text, groups[position][0], groups[last][1]):
                yield Span(groups[position][0], groups[last][1], CARD)
                position = last
            position += 1


_GROUP = re.compile("[0-9]+")


def _is_in_hex(text: str, start: int, end: int) -> bool:
    """Whether digits are a part of a UUID or a digest: one of some thousands looks like a card. Without letters it is no excuse."""
    around = rules.HEX_FORM.finditer(text, max(0, start - rules.MAX_HEX), end + rules.MAX_HEX)
    return any(
        each.start() <= start and end <= each.end() and not each[0].replace("-", "").isdecimal() for each in around
    )


def _card_from(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    """The last group of the card number that begins with the group ``first``; the longest one, None if there is none."""
    digits, found = "", None
    for number in range(first, len(groups)):
        start, end = groups[number]
        if end - start > rules.CARD_MAX_DIGITS:
            break
        digits += text[start:end]
        if len(digits) > rules.CARD_MAX_DIGITS:
            break
        if len(digits) >= rules.CARD_MIN_DIGITS and rules.is_card(digits):
            found = number
    return found


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    looked_at = 0
    while at >= 0:
        looked_at += 1
        if looked_at > _MAX_CANDIDATES:
            raise _Dense
        mailbox = rules.MAILBOX.search(text, max(0, at - rules.MAX_MAILBOX), at)
        domain = rules.MAIL_DOMAIN.match(text, at + 1) if mailbox is not None else None
        if mailbox is not None and domain is not None and mailbox[0] != "git":  # git@host:path names a repository
            yield Span(mailbox.start(), domain.end(), EMAIL)
        at = text.find("@", at + 1)


def _without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Overlapping ones become one, under the name of the first that found something there: detectors are in order."""
    found = list(spans)
    order = {span: place for place, span in reversed(list(enumerate(found)))}
    merged: list[Span] = []
    for span in sorted(found):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            surer = min(last, span, key=lambda each: order[each])
            joined = Span(last.start, max(last.end, span.end), surer.detector)
            order[joined] = min(order[last], order[span])
            merged[-1] = joined
        else:
            merged.append(span)
    return merged
