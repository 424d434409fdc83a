"""Texts that regular expressions tell apart."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.analysis.patterns import matching_texts, texts_of

ATOMS = [
    "a",
    "7",
    "-",
    r"\.",
    r"\d",
    r"\w",
    r"\s",
    r"\D",
    r"\W",
    r"\S",
    ".",
    "[a-f]",
    "[^a-z]",
    r"[^\w\s]",
    r"[\d_-]",
    "[.a-]",
    "^",
    "$",
    r"\x41",
]
COUNTS = ["", "?", "*", "+", "{2}", "{0,1}", "{1,3}", "{2,}", "+?"]
PIECES = st.recursive(
    st.sampled_from([each for each in ATOMS if each not in {"^", "$"}]),
    lambda inner: st.one_of(
        st.builds("({}|{}){}".format, inner, inner, st.sampled_from(COUNTS)),
        st.builds("(?:{}{}){}".format, inner, inner, st.sampled_from(COUNTS)),
        st.builds("(?P<n>{})".format, inner).filter(lambda text: text.count("?P<n>") == 1),
        inner.map(lambda text: text if text.endswith(tuple("?*+}")) else f"{text}+"),
    ),
    max_leaves=6,
)


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_every_text_is_one_the_pattern_matches(pattern):
    try:
        compiled = re.compile(pattern, re.ASCII)
    except re.error:  # a group named twice
        return
    found = matching_texts(pattern)
    assert len(found) <= 48
    for text in found:
        assert compiled.fullmatch(text), text
    assert texts_of(pattern)[: len(found)] == found


@pytest.mark.parametrize(
    ("pattern", "some"),
    [
        ("^[a-z]+$", {"a", "z", "aa", "xa", "", "A", "aaaaaaaaa"}),
        ("^(dev|prod)-[0-9]{2,4}$", {"dev-00", "prod-00", "dev-000", "dev-0000", "dev-99", "dev-0", "dev-00x"}),
        ("a?", {"", "a"}),
        (r"^\d{3}\b", {"000", "999"}),
        (r"[^\w]", {" ", "-"}),
        (r"[^0x]", {"X", "~"}),
        (r"\n\u0041\-", {"\nA-"}),
        ("a|b|", {"a", "b", ""}),
        ("(?<name>a)(?P<more>b)", {"ab"}),
        ("x{0}", {""}),
        ("[x-]", {"x", "-"}),
    ],
)
def test_what_is_there(pattern, some):
    assert some <= set(texts_of(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b",
        "(?!a)b",
        "(?<=a)b",
        "(?<!a)b",
        "(?i)a",
        r"(a)\1",
        r"\p{L}",
        "[[:alpha:]]",
        "[]a]",
        "[^]a]",
        "a**",
        "*a",
        "a{,3}",
        "a{3,2}",
        "a{1001}",
        "(a{1000}){1000}",
        "(a",
        "a)",
        "[a",
        "a{2",
        "a\\",
        r"\xZZ",
        r"\u12",
        "[b-a]",
        r"[^\x00-\uffff]",
        "(" * 30 + ")" * 30,
        "a" * 501,
        "(?P<n",
        "(?P=n)",
    ],
)
def test_nothing_is_claimed_of_what_is_not_understood(pattern):
    assert texts_of(pattern) == []


@given(st.text(r"ab(){}[]|?*+\^$.-0,:<>P=!", max_size=20))
def test_any_text_is_read_or_refused(pattern):
    assert len(texts_of(pattern)) <= 48
