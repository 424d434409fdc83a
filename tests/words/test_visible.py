"""Foreign text as it may be shown: one rule for terminals, forms, tables, pages and logs."""

import ast
import json
import sys
import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import cra_mcp
from cra_mcp.words import visible, visible_json, visible_lines

STEERS = ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\xa0", "\u2028", "\u2029", "\ud800"]
HIDES = [
    "\u200b",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u00ad",
    "\u202e",
    "\u2066",
    "\U000e0041",
    "\ufe0f",
    "\u3164",
    "\u2800",
]


def test_what_steers_or_is_not_seen_is_escaped() -> None:
    for part in STEERS + HIDES:
        assert visible(f"a{part}b") == f"a\\u{{{ord(part):x}}}b"


def test_what_people_write_stays() -> None:
    for text in ("", "plain", "Zürich", "日本語", "עברית", "a\u0301", "😀", "x = {1} \\ | `y`"):
        assert visible(text) == text
    assert visible("a" + "\u0301" * 6) == "a" + "\u0301" * 4 + "\\u{301}" * 2


def test_every_character_is_either_seen_or_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        shown = visible(chr(code))
        assert shown.isprintable()
        if shown == chr(code) != " ":
            assert unicodedata.category(shown)[0] in "LMNPS"


def test_only_line_feeds_end_a_line() -> None:
    assert visible_lines("a\nb\u2028c\rd\x85e") == "a\nb\\u{2028}c\\u{d}d\\u{85}e"


@given(st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from([*STEERS[:-1], *HIDES]))))
def test_json_reads_back_the_same_and_shows_nothing_raw(text: str) -> None:
    shown = visible_json(json.dumps({text: [text]}, ensure_ascii=False, indent=2))
    assert json.loads(shown) == {text: [text]}
    assert all(visible(part) == part for part in shown if part != "\n")


def test_no_text_is_split_where_only_unicode_ends_a_line() -> None:
    """``str.splitlines`` ends lines at U+2028, U+0085 and eight more characters that anybody can write into a value."""
    for file in Path(cra_mcp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Attribute) and node.attr == "splitlines"), f"{file.name}:{node.lineno}"
