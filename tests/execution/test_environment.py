import pytest

from cra_mcp.errors import ExecutionError
from cra_mcp.execution.environment import child_environment, expand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${NAME}", "value"),
        ("a-${NAME}-${NAME}", "a-value-value"),
        ("${NAME:-other}", "value"),
        ("${UNSET:-other}", "other"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${UNSET:-a:-b}", "a:-b"),
        ("$NAME", "$NAME"),
        ("{NAME}", "{NAME}"),
        ("${1}", "${1}"),
        ("${NAME", "${NAME"),
        ("$${NAME}", "$value"),
    ],
)
def test_references_are_filled_in_and_everything_else_is_text(text: str, expected: str) -> None:
    assert expand(text, {"NAME": "value", "EMPTY": ""}) == expected


def test_a_value_is_not_expanded_again() -> None:
    assert expand("${NAME}", {"NAME": "${SECRET}", "SECRET": "s3cret"}) == "${SECRET}"


def test_an_unset_variable_is_named_and_no_value_is_shown() -> None:
    with pytest.raises(ExecutionError) as caught:
        expand("${SECRET}${TOKEN_X}", {"SECRET": "s3cret"})
    assert caught.value.code == "missing_setting"
    assert "TOKEN_X" in caught.value.message
    assert "TOKEN_X" in (caught.value.hint or "")
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"


def test_a_child_inherits_what_is_listed_and_what_is_named_and_nothing_else() -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "API_KEY": "k",
        "MINE": "m",
        "HOME": "/h",
        "LD_PRELOAD": "x",
        "PYTHONPATH": "y",
    }
    assert child_environment(environ) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h"}
    assert child_environment(environ, ["MINE", "ABSENT"]) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h", "MINE": "m"}
