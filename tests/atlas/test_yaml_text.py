"""YAML 1.2 as JSON values, strictly; against the JSON reader where both can read a text."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.yaml_text import YamlTextError, parse_yaml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Zl", "Zp"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=10), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_json_is_yaml(value: object) -> None:
    assert parse_yaml(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, off, y, 010, 0o10, 0x1F, +1, -1, .5, 1., 1e3]",
         ["yes", "no", "on", "off", "y", 10, 8, 31, 1, -1, 0.5, 1.0, 1000.0]),
        ("[null, ~, Null, true, True, false, 2020-01-01, 1_000, 12:30:45]",
         [None, None, None, True, True, False, "2020-01-01", "1_000", "12:30:45"]),
        ("200: a\ntrue: b\nnull: c\n1.0: d", {"200": "a", "true": "b", "null": "c", "1.0": "d"}),
        ("a: &x {b: [1]}\nc: *x", {"a": {"b": [1]}, "c": {"b": [1]}}),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y", {"a": "x\ny\n", "b": "x y"}),
        ("a: '1'\nb: \"true\"\nc: !!str 1\nd: !!int '1'", {"a": "1", "b": "true", "c": "1", "d": 1}),
        ("a:\nb: ''", {"a": None, "b": ""}),
        ("%YAML 1.1\n---\na: yes", {"a": "yes"}),
        ("\ufeffa: 1", {"a": 1}),
        ("", None),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    assert parse_yaml(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nb: 2\na: 3", "line 3 column 1"),
        ("{a: 1, a: 2}", "line 1 column 8"),
        ("a:\n  <<: {b: 1}", "line 2 column 3"),
        ("a: !!python/object/apply:os.system [id]", "line 1 column 4"),
        ("a: !include x", "line 1 column 4"),
        ("a: .inf", "line 1 column 4"),
        ("a: -.INF", "line 1 column 4"),
        ("a: .nan", "line 1 column 4"),
        ("a: 1e999", "line 1 column 4"),
        ("a: " + "9" * 5_000, "line 1 column 4"),
        ("? [a]\n: b", "line 1 column 3"),
        ("? {a: b}\n: c", "line 1 column 3"),
        ("&a a: 1\n*a : 2", "line 2"),
        ("a: *nobody", "line 1 column 4"),
        ("a: &x [*x]", "line 1 column 8"),
        ("a\n---\nb", "line 2 column 1"),
        ("a: [", "line 1"),
        ("a: b: c", "line 1"),
        ("[" * 65 + "]" * 65, "line 1 column 65"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "line 2 column 44"),
        ("a: &a [" + "x," * 999 + "]\n" + "b: &b [" + "*a," * 999 + "]", "line 2"),
    ],
)
def test_what_has_no_json_value_is_refused_where_it_stands(text: str, where: str) -> None:
    with pytest.raises(YamlTextError) as caught:
        parse_yaml(text.encode())
    assert str(caught.value).startswith(where)


@pytest.mark.parametrize("data", [b"\xff", b"a: \x00", b"a: \x07", b"%FOO\n", b"@", b"\t- a"])
def test_what_is_not_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(YamlTextError):
        parse_yaml(data)


@given(st.text(st.sampled_from("ab:-[]{},&*!|>'\"%@#? \n\t<0.~"), max_size=60))
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    with suppress(YamlTextError):
        json.dumps(parse_yaml(text.encode()), allow_nan=False)
