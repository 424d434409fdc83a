"""Words that people read, and the text of others made safe to read.

Rule: text that an agent, a tool or a file name brings is shown on one line, without anything that steers the reader or that nobody
sees. Every face uses ``visible``: terminal, form, table, page and log. Source: Unicode 15, general categories; Unicode TR 36.
"""

import unicodedata

BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters shown as nothing although their categories are those of letters, marks or symbols."""

_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_VARIATION = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_MAX_MARKS = 4  # on one letter; more are drawn over the lines around it


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number of things: ``1 event``, ``2 events``; ``plural`` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def visible(text: str, markup: frozenset[str] = frozenset()) -> str:
    r"""``text`` on one line, with everything that steers a reader, or that nobody sees, written as an escape (``\u{202e}``).

    Args:
        text: foreign text; line breaks are escaped as well.
        markup: further characters to escape, which mean something where the text is shown.
    """
    if text.isascii() and text.isprintable() and not markup:
        return text
    parts: list[str] = []
    marks = 0
    for part in text:
        category = unicodedata.category(part)
        marks = marks + 1 if category.startswith("M") else 0
        hidden = part in markup or marks > _MAX_MARKS or _is_unseen(part, category)
        parts.append(f"\\u{{{ord(part):x}}}" if hidden else part)
    return "".join(parts)


def visible_lines(text: str) -> str:
    """As ``visible``, for text of several lines: line feeds, and nothing else, end a line."""
    return "\n".join(visible(line) for line in text.split("\n"))


def visible_json(text: str) -> str:
    r"""JSON text that reads back the same, with everything unseen in its strings written as JSON's own escapes (``\u202e``)."""
    if text.isascii() and "\x7f" not in text:
        return text
    unseen = (part for part in set(text) if part != "\n" and visible(part) != part)
    return text.translate({ord(part): _json_escape(part) for part in unseen})


def _json_escape(part: str) -> str:
    units = part.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _is_unseen(part: str, category: str) -> bool:
    if part == " ":
        return False
    return category in _UNSEEN or part in BLANK or any(ord(part) in variation for variation in _VARIATION)
