"""What a JSON text holds is known before it is read."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp import json_bounds
from cra_mcp.json_bounds import JsonBoundsError, check_json, parts

_TEXTS = st.text(alphabet='a",[]{}\\\u00e9\n', max_size=12)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth_of(item) for item in value.values()), default=0)
    return 1 + max((depth_of(item) for item in value), default=0) if isinstance(value, list) else 0


def count_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count_of(item) for item in inner)


def is_taken(text: bytes, *, max_values: int = 10**9, max_depth: int = 10**9) -> bool:
    try:
        check_json(text, max_values=max_values, max_depth=max_depth)
    except JsonBoundsError:
        return False
    return True


@given(value=_VALUES, ascii_only=st.booleans(), piece=st.integers(3, 20))
@settings(max_examples=500)
def test_depth_is_exact_and_values_are_told_within_a_factor_of_two(value: Any, ascii_only: bool, piece: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "_CHUNK", piece)
        depth, count = depth_of(value), count_of(value)
        assert is_taken(text, max_depth=depth)
        assert depth == 0 or not is_taken(text, max_depth=depth - 1)
        assert is_taken(text, max_values=2 * count)
        assert count < 4 or not is_taken(text, max_values=count // 2)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (b'"' + b"[,{" * 1_000_000 + b'"', True),
        (b'"' + b'\\"[,' * 1_000_000 + b'"', True),
        (b'["' + b"\\" * 999_998 + b'",[' + b"]", True),
        (b"[" * 101 + b"]" * 101, False),
        (b"[" * 100 + b"]" * 100, True),
        (b"[" * 5_000_000, False),
        (b"[" + b"[]," * 1_000_000, False),
        (b"[" + b'"",' * 1_000_000, False),
        (b"{" + b'"a":1,' * 1_000_000, False),
        (b"[" + b"1," * 90_000 + b"1]", True),
    ],
    ids=["text", "quotes", "backslashes", "101", "100", "open", "lists", "texts", "members", "many"],
)
def test_what_is_in_texts_does_not_count_and_what_is_not_does(text: bytes, taken: bool) -> None:
    try:
        check_json(text)
    except JsonBoundsError:
        assert not taken
    else:
        assert taken


def test_parts_are_counted_up_to_a_limit() -> None:
    ring: list[object] = []
    ring.append(ring)
    assert parts(ring, 50) == 50
    assert parts([[]] * 1_000_000, 1_000) == 1_000
    assert parts({"a": [1, 2], "b": "x" * 2_500}, 100) == 9
    assert parts(None, 100) == 1
