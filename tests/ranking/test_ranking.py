"""Which documents come first for a need, and what a budget leaves."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.model import ContextBlock
from cra_mcp.ranking import Ranked, rank, within, words


def block(
    name: str, content: str, *, priority: int = 100, keywords: tuple[str, ...] = (), tokens: int = 10
) -> ContextBlock:
    return ContextBlock(name, "pack", name, f"a.b/{name}", "text/plain", content, priority, tokens, keywords)


REFUNDS = block("refunds", "Refunds are paid within 30 days. A refund above 500 needs a manager.")
SHIPPING = block("shipping", "Parcels leave the warehouse every day. Shipping abroad takes two weeks.")
TONE = block("tone", "Be friendly. Never promise a refund before the parcel is back.")
PRIVACY = block("privacy", "Do not tell anybody the address of a customer.", priority=900)
LIBRARY = (TONE, PRIVACY, SHIPPING, REFUNDS)


def order(need: str, *hints: str, of: tuple[ContextBlock, ...] = LIBRARY) -> list[str]:
    return [each.block.block_id for each in rank(of, need, hints)]


@pytest.mark.parametrize(
    ("need", "first"),
    [
        ("How do I pay a refund?", "refunds"),
        ("refunding rules for REFUNDS", "refunds"),
        ("when does the parcel arrive abroad", "shipping"),
        ("may I tell the address of a customer", "privacy"),
        ("friendly", "tone"),
    ],
)
def test_the_document_about_it_comes_first(need: str, first: str) -> None:
    assert order(need)[0] == first


def test_a_rare_word_counts_for_more_than_a_common_one() -> None:
    common = [block(f"d{n}", "server error server error") for n in range(5)]
    rare = block("rare", "server quorum")
    assert order("server quorum", of=(*common, rare))[0] == "rare"


def test_a_long_document_does_not_win_by_saying_more() -> None:
    long = block("long", "refund " + "and other words " * 500)
    short = block("short", "refund rules")
    assert order("refund", of=(long, short)) == ["short", "long"]


def test_saying_a_word_again_and_again_gains_less_and_less() -> None:
    stuffed = block("stuffed", "refund " * 50 + "filler " * 50)
    honest = block("honest", ("refund fee " * 3) + "filler " * 94)
    assert order("refund fee", of=(stuffed, honest))[0] == "honest"


def test_names_and_keywords_count_for_more_than_text() -> None:
    named = block("chargeback", "See there.")
    keyed = block("other", "See there.", keywords=("chargeback",))
    said = block("text", "chargeback here")
    assert order("chargeback", of=(said, named))[0] == "chargeback"
    assert order("chargeback", of=(said, keyed))[0] == "other"


def test_words_that_everybody_uses_find_nothing() -> None:
    assert {each.relevance for each in rank(LIBRARY, "What do I do if the ... is not in it?")} == {0.0}


def test_a_hint_counts_for_more_than_a_word_of_the_need() -> None:
    one, other = block("one", "alpha text"), block("other", "beta text")
    assert order("alpha", "beta", of=(one, other)) == ["other", "one"]
    assert order("alpha beta", of=(one, other)) == ["one", "other"], "alike, so by id"


def test_where_words_say_nothing_priority_decides_and_then_the_id() -> None:
    assert order("zzz") == ["privacy", "refunds", "shipping", "tone"]
    assert {each.relevance for each in rank(LIBRARY, "zzz")} == {0.0}
    assert order("") == order("zzz")


def test_priority_weighs_what_the_words_say() -> None:
    plain, weighty = block("a", "refund rules"), block("b", "refund rules", priority=500)
    assert order("refund", of=(plain, weighty)) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Refunds, REFUND; refund's", ["refund", "refund", "refund", "s"]),
        ("gas glass bus", ["gas", "glass", "bus"]),
        ("Straße_Weg 42", ["strasse", "weg", "42"]),
        ("退款政策", ["退款", "款政", "政策"]),
        ("退", ["退"]),
        ("", []),
    ],
)
def test_words_are_told_without_case_plural_and_in_scripts_without_spaces(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_need_in_a_script_without_spaces_finds_its_document() -> None:
    found = order("怎么退款", of=(block("a", "运输需要两周"), block("b", "退款在三十天内支付")))
    assert found[0] == "b"


def test_nothing_to_rank_is_nothing() -> None:
    assert rank((), "need") == ()
    assert [each.relevance for each in rank((block("", ""),), "need")] == [0.0]


def test_a_budget_takes_the_best_that_fit_and_goes_on_after_what_does_not() -> None:
    ranked = [
        Ranked(block(name, "", tokens=tokens), 1.0) for name, tokens in (("a", 50), ("b", 60), ("c", 50), ("d", 1))
    ]
    choice = within(ranked, 100)
    assert [each.block.block_id for each in choice.given] == ["a", "c"]
    assert [each.block.block_id for each in choice.left_out] == ["b", "d"]
    assert within(ranked, 1_000).left_out == ()
    assert within(ranked, 0).given == ()


@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 1_000)), max_size=8), st.text(max_size=60), st.randoms())
def test_the_order_depends_on_nothing_but_need_and_documents(
    texts: list[tuple[str, int]], need: str, shuffled: random.Random
) -> None:
    blocks = [block(f"d{n}", text, priority=priority) for n, (text, priority) in enumerate(texts)]
    first = rank(blocks, need)
    shuffled.shuffle(blocks)
    assert rank(blocks, need) == first
    assert all(each.relevance >= 0 for each in first)


@given(st.lists(st.integers(1, 50), max_size=10), st.integers(0, 200))
def test_a_budget_is_never_exceeded_and_nothing_is_lost(sizes: list[int], budget: int) -> None:
    ranked = [Ranked(block(f"d{n}", "", tokens=size), 0.0) for n, size in enumerate(sizes)]
    choice = within(ranked, budget)
    assert sum(each.block.token_estimate for each in choice.given) <= budget
    assert sorted((*choice.given, *choice.left_out), key=lambda each: each.block.block_id) == sorted(
        ranked, key=lambda each: each.block.block_id
    )
