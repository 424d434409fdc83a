import enum
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.canonical import canonical_bytes, lossy

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.floats(),
        st.integers(),
        st.text(),
        st.binary(max_size=3),
        st.just(object()),
        st.sets(st.integers(), max_size=2),
        st.complex_numbers(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers(), st.none(), st.booleans(), st.floats()), inner, max_size=4
        ),
    ),
    max_leaves=10,
)


class Colour(enum.StrEnum):
    RED = "red"


class Hostile(dict):
    def items(self):
        raise RuntimeError("never asked")


class HostileText(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError("never asked")


@given(anything)
@settings(max_examples=400, deadline=None)
def test_whatever_goes_in_what_comes_out_has_a_canonical_form(value):
    canonical_bytes(lossy(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**53, "9007199254740992"),
        (-(2**53), "-9007199254740992"),
        (10**5000, "<integer of 16610 bits>"),
        ("a\ud800b", "a\ufffdb"),
        ({1: "a", "1": "b", None: 0, 1.5: 2}, {"1": "a", "1~": "b", "null": 0, "1.5": 2}),
        ({False: 1, b"x": 2, 2**60: 3}, {"false": 1, "<bytes>": 2, "1152921504606846976": 3}),
        (dict.fromkeys(["\ud800", "\ud801"], 1), {"\ufffd": 1, "\ufffd~": 1}),
        (datetime.now(UTC), "<datetime>"),
        ({1, 2}, "<set>"),
        (b"", "<bytes>"),
        (Colour.RED, "red"),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        (OrderedDict(a=1), {"a": 1}),
        (namedtuple("Pair", "a b")(1, 2.5), [1, 2.5]),
        (True, True),
        (Hostile(a=1), {"a": 1}),
        (HostileText("t"), "t"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_json_becomes_the_nearest_thing_that_is(value, expected):
    result = lossy(value)
    assert result == expected
    assert type(result) is type(expected)


def test_levels_beyond_sixty_four_are_cut():
    value: object = 0
    for _ in range(65):
        value = [value]
    result = lossy(value)
    for _ in range(64):
        assert isinstance(result, list)
        result = result[0]
    assert result == "…"


def test_a_value_that_contains_itself_twice_is_cut_at_once():
    loop: dict[str, object] = {}
    loop["a"] = [loop, loop]
    loop["b"] = loop
    assert lossy(loop) == {"a": ["…", "…"], "b": "…"}


def test_the_same_object_in_two_places_is_no_loop():
    shared = [1]
    assert lossy([shared, shared]) == [[1], [1]]
