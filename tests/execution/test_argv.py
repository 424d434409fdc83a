import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.errors import ExecutionError
from cra_mcp.execution.argv import Template, TemplateError

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "other": {"type": "string"},
        "depth": {"type": "integer", "default": 3},
        "flag": {"type": "string", "x-cra-allow-option": True},
        "not_quite": {"type": "string", "x-cra-allow-option": "true"},
    },
}


def arguments(*argv: str, **parameters: object) -> list[str]:
    return Template(["program", *argv], SCHEMA).arguments(parameters)


@pytest.mark.parametrize(
    ("element", "parameters", "expected"),
    [
        ("{text}", {"text": "a b; $(x) `y` | z"}, ["a b; $(x) `y` | z"]),
        ("{text}", {"text": ""}, [""]),
        ("--name={text}", {"text": "-v"}, ["--name=-v"]),
        ("{text}:{other}", {"text": "a", "other": "-b"}, ["a:-b"]),
        ("{text}", {}, []),
        ("{text}", {"text": None}, []),
        ("{text}:{other}", {"text": "a"}, []),
        ("-n{depth}", {}, ["-n3"]),
        ("-n{depth}", {"depth": 5}, ["-n5"]),
        ("{{text}}", {"text": "x"}, ["{text}"]),
        ("a{{{text}}}b", {"text": "x"}, ["a{x}b"]),
        ("{text}", {"text": "{other}", "other": "no"}, ["{other}"]),
        ("{text}", {"text": True}, ["true"]),
        ("{text}", {"text": False}, ["false"]),
        ("{text}", {"text": 7}, ["7"]),
        ("{text}", {"text": 2.0}, ["2"]),
        ("{text}", {"text": 2.5}, ["2.5"]),
        ("{text}", {"text": 1e300}, ["1e+300"]),
        ("{flag}", {"flag": "--all"}, ["--all"]),
        ("", {}, [""]),
    ],
)
def test_a_parameter_fills_its_place(element: str, parameters: dict[str, object], expected: list[str]) -> None:
    assert arguments(element, **parameters) == expected


@pytest.mark.parametrize(
    ("element", "parameters"),
    [
        ("{text}", {"text": "-rf"}),
        ("{text}", {"text": "--upload-pack=evil"}),
        ("{text}", {"text": -5}),
        ("{text}", {"text": "-"}),
        ("{text}{other}", {"text": "", "other": "-x"}),
        ("{flag}{text}", {"flag": "", "text": "-x"}),
        ("{not_quite}", {"not_quite": "-x"}),
        ("{undeclared}", {"undeclared": "-x"}),
    ],
)
def test_a_value_does_not_become_an_option(element: str, parameters: dict[str, object]) -> None:
    with pytest.raises(ExecutionError) as caught:
        arguments(element, **parameters)
    assert caught.value.code == "option_injection"


@pytest.mark.parametrize("value", ["secret\0b", ["secret"], {"secret": 1}])
def test_what_fits_no_argument_is_refused(value: object) -> None:
    with pytest.raises(ExecutionError) as caught:
        arguments("{text}", text=value)
    assert caught.value.code == "execution_failed"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("element", ["{", "}", "{text", "text}", "{}", "{te{xt}", "}}}"])
def test_a_brace_without_partner_is_an_error(element: str) -> None:
    with pytest.raises(TemplateError):
        Template(["program", element], SCHEMA)


@pytest.mark.parametrize("argv", [[], ["{text}"], ["/bin/{text}"]])
def test_the_program_is_never_a_parameter(argv: list[str]) -> None:
    with pytest.raises(TemplateError):
        Template(argv, SCHEMA)


@given(value=st.text().filter(lambda text: "\0" not in text), before=st.sampled_from(["", "x", "--o="]))
def test_any_text_is_one_argument_as_it_is_or_refused(value: str, before: str) -> None:
    if value.startswith("-") and not before:
        with pytest.raises(ExecutionError) as caught:
            arguments("{text}", text=value)
        assert caught.value.code == "option_injection"
    else:
        assert arguments(before + "{text}", "last", text=value) == [before + value, "last"]
