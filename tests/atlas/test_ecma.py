"""Patterns for hosts: what is published compiles there, and matches what the server's own engine matches."""

from collections.abc import Iterator

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.atlas.ecma import to_ecma
from tests.clients.judge import Judge

SUBJECTS = [
    *(
        "",
        "a",
        "A",
        "b",
        "ab",
        "aB",
        "aab",
        "_",
        "-",
        "9",
        "é",
        "É",
        "k",
        "K",
        "\u212a",
        "s",
        "\u017f",
        "٣",
        "\n",
        "\r",
    ),
    *(
        "\u2028",
        "\ufeff",
        "\u00a0",
        " ",
        "]",
        "[",
        "^",
        "\\",
        "/",
        "a\n",
        "\na",
        "1-2",
        "😀",
        "a😀",
        "&",
        "~~",
        "{",
        "}",
        "\x01",
    ),
]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as judge:
        yield judge


def ours(pattern: str) -> list[bool] | None:
    """What the server's engine matches; None if it doesn't take the pattern."""
    try:
        options = jsonschema_rs.RegexOptions()
        validator = jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True, pattern_options=options)
    except ValueError:
        return None
    return [validator.is_valid(each) for each in SUBJECTS]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^[a-z0-9_-]{1,64}$", r"^[a-z0-9_-]{1,64}$"),
        (r"^[\w.-]+@\d\S\/$", r"^[\w.-]+@\d\S\/$"),
        (r"a\_b\-c\#", "a_b-c#"),
        ("(?i)^ab1$", "^[aA][bB]1$"),
        ("(?i:k)s", r"(?:[kK\u212a])s"),
        (r"a|(?i)\w|b", r"a|[\w\u017f\u212a]|[bB]"),
        ("(?P<year>[0-9]{4})-(?<month>..)", r"(?:[0-9]{4})-(?:[^\n][^\n])"),
        (r"\A\x{41}\u{1F600}\U00000042\z", "^A😀B$"),
        ("(?s).(?-s).", r"[\s\S][^\n]"),
        ("a**", "(?:a*)*"),
        ("^*a", "(?:^)*a"),
        ("a}]", r"a\}\]"),
        ("", ""),
    ],
)
def test_a_pattern_is_written_for_hosts(judge: Judge, pattern: str, expected: str) -> None:
    assert to_ecma(pattern) == expected
    assert judge.pattern(expected, SUBJECTS) == ours(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"\p{L}",
            r"\bfoo\b",
            r"\<a",
            "[[:alpha:]]",
            "[a&&b]",
            "[a--b]",
            "[+--]",
            "[]a]",
            "[^]",
            "[\\d-z]",
            "(?m)^a$",
            "(?x)a b",
        ),
        *(
            "(?i)é",
            "(?i)[à-ö]",
            r"(?i)[a\W]",
            "(?=a)",
            "(a",
            "a)",
            "[a",
            "a{1, 2}",
            "{",
            "*",
            r"\8",
            "\\",
            r"\x{110000}",
            r"\x{d800}",
        ),
        *("(?", "(?i", r"\u12", "[z-a]", "[]", "(" * 60 + ")" * 60, "(a{1000}){10}", "a{99999}", "[a\\"),
    ],
)
def test_what_engines_differ_about_is_not_published(pattern: str) -> None:
    assert to_ecma(pattern) is None


PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "k",
            "é",
            "-",
            "_",
            ".",
            "^",
            "$",
            r"\d",
            r"\W",
            r"\s",
            r"\S",
            r"\_",
            r"\-",
            r"\.",
            r"\/",
            r"\x{41}",
            r"\u0041",
        ),
        *(
            "[a-c]",
            "[^a]",
            r"[\w-]",
            r"[\]a]",
            "[^k]",
            "[-a]",
            "[a^]",
            r"\A",
            r"\z",
            "(?i)",
            "(?-i)",
            "(?s)",
            "|",
            "(",
            "(?:",
            "(?i:",
        ),
        *(
            "(?P<n>",
            ")",
            "*",
            "+?",
            "{2}",
            "{0,1}",
            "{1,}",
            "]",
            "}",
            r"\cA",
            r"[\d\s]",
            r"\n",
            r"[\x00-\x20]",
            "&",
            "~",
            "K",
            "[S-s]",
        ),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_every_published_pattern_compiles_and_matches_the_same(judge: Judge, pattern: str) -> None:
    told = to_ecma(pattern)
    expected = ours(pattern)
    if told is None or expected is None:
        return
    assert judge.pattern(told, SUBJECTS) == expected
    assert (to_ecma(told) or told) == told, "what is published would be published as it is"
