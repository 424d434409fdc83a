import sys

import pytest

from cra_mcp.canonical import parse_json
from cra_mcp.errors import CanonicalError


def parse(text: str | bytes, **limits: int) -> object:
    data = text if isinstance(text, bytes) else text.encode()
    return parse_json(data, **{"max_bytes": 1_000_000, **limits})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a":1,\n "a":2}', "line 2 column 2"),
        ('[{"a":1},\n{"b":[{"a":1,"c":{},"\\u0061":2}]}]', "line 2 column 21"),
        ("[1e999]", "line 1 column 2"),
        ("[NaN]", "line 1 column 2"),
        ('{"a":\n-Infinity}', "line 2 column 1"),
        ("[0, 9007199254740992]", "line 1 column 5"),
        ("[-9007199254740992]", "line 1 column 2"),
        ("[" + "9" * 5000 + "]", "line 1 column 2"),
        ("[" * 65 + "]" * 65, "line 1 column 65"),
        ("[" * 100_000, "line 1 column 65"),
        ('{"a":' * 65 + "0" + "}" * 65, "line 1 column 321"),
        ('["ok", "\\ud800"]', "line 1 column 8"),
        ('{"\\udfff":1}', "line 1 column 2"),
    ],
    ids=lambda value: value[:20],
)
def test_a_fault_is_refused_and_its_place_named(text, place):
    with pytest.raises(CanonicalError) as caught:
        parse(text)
    assert caught.value.message.endswith(place)


@pytest.mark.parametrize("text", ["[1,]", "", '{"a":1} x', "[01]", "['a']", '["\t"]', "[1] // no", "[1", '{"a"}', "+1"])
def test_what_is_not_json_is_refused_with_a_place(text):
    with pytest.raises(CanonicalError, match=r"not JSON: .* at line 1 column \d+$"):
        parse(text)


@pytest.mark.parametrize(
    "data",
    [b'\xef\xbb\xbf{"a":1}', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', '"a"'.encode("utf-16")],
    ids=["bom", "stray", "overlong", "surrogate", "utf16"],
)
def test_only_utf8_without_byte_order_mark_is_read(data):
    with pytest.raises(CanonicalError):
        parse(data)


def test_a_text_over_the_size_limit_is_refused_unread():
    assert parse(b"[11]", max_bytes=4) == [11]
    with pytest.raises(CanonicalError):
        parse(b"[11]", max_bytes=3)


def test_depth_is_counted_in_containers():
    assert parse("[[1]]", max_depth=2) == [[1]]
    with pytest.raises(CanonicalError):
        parse("[[1]]", max_depth=1)
    assert parse("1", max_depth=0) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":1,"b":{"a":2}}', {"a": 1, "b": {"a": 2}}),
        ('[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
        ('["\\ud83d\\ude00", "\\\\ud800"]', ["😀", "\\ud800"]),
        ('{"a":"a","b":"a"}', {"a": "a", "b": "a"}),
        (" \t\r\n[true,false,null,-0,1.5e3] ", [True, False, None, 0, 1500.0]),
        ("-9007199254740991", -9007199254740991),
    ],
)
def test_what_only_looks_like_a_fault_is_read(text, value):
    assert parse(text) == value


def test_a_text_beyond_the_interpreters_own_limits_is_refused_too():
    deep = sys.getrecursionlimit() * 50
    with pytest.raises(CanonicalError):
        parse("[" * deep + "nonsense", max_depth=deep + 1)


@pytest.mark.parametrize("text", ["10000000000000000", "-9007199254740992", "100000000000000000000"])
def test_an_integer_that_is_the_canonical_text_of_a_double_can_be_read_as_that_double(text):
    value = parse(text, whole_doubles=True)
    assert value == float(text)
    assert type(value) is float
    with pytest.raises(CanonicalError):
        parse(text)


@pytest.mark.parametrize(
    "text", ["9007199254740993", "18446744073709551615", "1" + "0" * 21, "1" * 5000, "-1" + "0" * 400]
)
def test_an_integer_that_no_double_holds_or_writes_so_is_never_read_as_one(text):
    with pytest.raises(CanonicalError, match="an integer beyond"):
        parse(text, whole_doubles=True)


def test_small_integers_stay_integers_where_doubles_are_read():
    assert [type(item) for item in parse("[1,-9007199254740991,1.5]", whole_doubles=True)] == [int, int, float]
