"""Aligning two sequences: as few left over as any way could leave, and never more work than is allowed."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.replay.alignment import MAX_EDITS, Pair, align

FEW = st.lists(st.sampled_from("abc"), max_size=12)


def longest_common(old: Sequence[str], new: Sequence[str]) -> int:
    """The length of a longest common subsequence, by the textbook table."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for x in reversed(range(len(old))):
        for y in reversed(range(len(new))):
            table[x][y] = table[x + 1][y + 1] + 1 if old[x] == new[y] else max(table[x + 1][y], table[x][y + 1])
    return table[0][0]


def check(old: Sequence[object], new: Sequence[object], pairs: list[Pair]) -> list[Pair]:
    """Every position is there once and in order, and only equals are paired; the pairs of two."""
    assert [one for one, _ in pairs if one is not None] == list(range(len(old)))
    assert [other for _, other in pairs if other is not None] == list(range(len(new)))
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    assert all(old[one] == new[other] for one, other in both)
    return both


@given(FEW, FEW)
def test_as_few_are_left_over_as_can_be(old: list[str], new: list[str]) -> None:
    assert len(check(old, new, align(old, new))) == longest_common(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["c"] * 60_000, ["c"] * 59_000),
        (["a", "b"] * 30_000, ["b", "a", "c"] * 20_000),
        (list(range(60_000)), list(range(1, 60_001))),
        (list(range(60_000)), list(range(60_000, 120_000))),
    ],
    ids=["one key", "interleaved", "shifted", "nothing in common"],
)
def test_the_work_is_bounded(old: list[object], new: list[object]) -> None:
    """The textbook way compares 3.6 billion pairs here; what is allowed takes about a second of processor time."""
    began = time.process_time()
    check(old, new, align(old, new))
    assert time.process_time() - began < 20


def test_after_too_many_edits_elements_go_by_position() -> None:
    old = [f"old {number}" for number in range(MAX_EDITS)]
    new = [f"new {number}" for number in range(MAX_EDITS)]
    old[7] = new[7] = "same"
    assert align(["start", *old], ["start", *new])[:3] == [(0, 0), (1, None), (None, 1)]
    assert (8, 8) in align(["start", *old], ["start", *new])
