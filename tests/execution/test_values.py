import enum
import math
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.execution.values import MAX_DEPTH, NotJsonError, json_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


@given(JSON)
def test_json_comes_back_equal_and_is_a_copy(value: object) -> None:
    copy = json_value(value)
    assert copy == value
    if isinstance(value, dict | list):
        assert copy is not value


@pytest.mark.parametrize(
    ("value", "plain"), [(Colour.RED, "red"), (Number.ONE, 1), ({Colour.RED: [Number.ONE]}, {"red": [1]})]
)
def test_members_of_enumerations_become_plain(value: object, plain: object) -> None:
    result = json_value(value)
    assert result == plain
    assert type(result) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        (1, 2),
        {1, 2},
        b"bytes",
        object(),
        {1: "number as key"},
        "\ud800",
        {"\udfff": 1},
        [["\ud800"]],
        pytest.param(1 << 20_000, id="digits"),
    ],
)
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(NotJsonError):
        json_value(value)


def test_nesting_is_bounded_and_so_are_cycles() -> None:
    nested: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        nested = [nested]
    assert json_value(nested) == nested
    with pytest.raises(NotJsonError):
        json_value([nested])
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(NotJsonError):
        json_value(cycle)


def test_more_values_than_are_handed_on_are_refused() -> None:
    with pytest.raises(NotJsonError):
        json_value([[]] * 200_001)
    with pytest.raises(NotJsonError):
        json_value({str(number): None for number in range(100_001)})
    assert len(cast("list[object]", json_value([[]] * 90_000))) == 90_000
