"""Parameters without an exact form in JSON: refused, and where they are."""

import math

import pytest

from cra_mcp.gate.intake import _unwritable


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"a": "x\ud800"}, "/a"),
        ({"a": ["b", {"c/d~": "\udfff"}]}, "/a/1/c~1d~0"),
        ({"a": {"\ud800": 1}}, "/a"),
        ({"\ud800": 1}, "/"),
        ({"a": 1, "b": [2**53]}, "/b/0"),
        ({"a": -(2**53)}, "/a"),
        ({"a": [1.5, math.inf]}, "/a/1"),
        ({"a": math.nan, "b": "\ud800"}, "/a"),
        ({"x" * 500: "\ud800"}, "/" + "x" * 199),
    ],
)
def test_the_first_that_has_none_is_named(parameters: object, pointer: str) -> None:
    fault = _unwritable(parameters)
    assert fault is not None
    assert fault.message.startswith(f"invalid parameters: {pointer}: ")
    assert fault.details["recorded"] == [{"pointer": pointer, "keyword": "form"}]
    fault.message.encode()


@pytest.mark.parametrize(
    "parameters", [{"a": [2**53 - 1, 1.5, None, True, "\U0001f600"]}, {1: object()}, {"a": [0] * 20_000 + ["\ud800"]}]
)
def test_what_is_not_found_in_bounded_work_is_not_named(parameters: object) -> None:
    assert _unwritable(parameters) is None
