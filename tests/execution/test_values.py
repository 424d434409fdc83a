import enum
import json
import math
from typing import cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.execution.foreign_json import parse, strict
from cra_mcp.execution.values import MAX_DEPTH, NotJsonError, json_value, whole

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
        pytest.param(1 << 20_000, id="digits"),
    ],
)
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(NotJsonError):
        json_value(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb\U0001f600", "a\ufffdb\U0001f600"),
        ([["\udfff\ud800"]], [["\ufffd\ufffd"]]),
        (dict(zip(("\udfff", "\ud800", "\ufffd"), (1, 2, 3), strict=True)), {"\ufffd": 3, "\ufffd~": 1, "\ufffd~~": 2}),
    ],
)
def test_half_a_surrogate_pair_is_replaced_and_nothing_is_lost(value: object, plain: object) -> None:
    assert json_value(value) == whole(value) == plain
    text = json.dumps(value).encode()
    assert parse(text) == plain
    assert json.loads(strict(parse(text), text)) == plain
    assert orjson.loads(strict(parse(text), text)) == plain


def test_surrogates_written_as_bytes_are_replaced_and_other_bytes_refused() -> None:
    text = b'{"a\xed\xa0\x80": ["\xed\xbf\xbf", 123456789012345678901234567890]}'
    assert parse(text) == {"a\ufffd": ["\ufffd", 123456789012345678901234567890]}
    assert json.loads(strict(parse(text), text)) == parse(text)
    for broken in (b'"\xff"', b'["\\ud800", NaN]', b'"\\ud800', b'["\\ud800", 1e999]'):
        with pytest.raises(NotJsonError):
            parse(broken)


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
