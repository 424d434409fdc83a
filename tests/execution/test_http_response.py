"""What becomes of an answer, without any service: where it was cut, what it holds of secrets, which forms those are found in."""

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.model import SecretReference
from cra_mcp.execution.http_response import Answer, to_result
from cra_mcp.execution.http_secrets import Mask, Secret

SECRET = 'p4ss/w&rd+"x"\\<y>'  # noqa: S105 - made up
KEPT = Secret(SecretReference("Authorization", env="X", prefix="Bearer "), SECRET, f"Bearer {SECRET}")
MASK = Mask([KEPT])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower().replace("p4ss", "p4ss"),
        quote(SECRET),
        "".join(f"%{ord(letter):02X}" for letter in SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{ord(letter):04x}" for letter in SECRET),
        html.escape(SECRET),
        "".join(f"&#{ord(letter)};" for letter in SECRET),
        "".join(f"&#x{ord(letter):X};" for letter in SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
    ids=range(13),
)
def test_every_likely_form_of_a_secret_is_found(form: str) -> None:
    assert MASK.finds_in(f"before {form} after")
    assert "w&rd" not in MASK.text(form)
    assert MASK.text(f"before {form}").startswith("before [redacted]")
    assert SECRET.encode() not in MASK.data(b"\xff" + form.encode())


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_secret_inside_longer_base64_is_found(before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + SECRET.encode() + after).decode()
    assert MASK.finds_in(encoded)
    hidden = MASK.text(encoded)
    assert len(hidden.replace("[redacted]", "")) <= len(encoded) - 16


@given(st.text(max_size=40))
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    if "p4ss" not in text.lower():
        assert MASK.text(text) == text
    assert Mask([]).text(text) == text
    assert Mask([]).value([text]) == [text]


def test_a_secret_at_the_place_where_an_error_was_cut_is_hidden() -> None:
    for kept in range(1, len(SECRET)):
        body = b"x" * 500 + SECRET[:kept].encode()
        result = to_result(
            Answer(500, {"content-type": "text/plain"}, body, cut=True), method="GET", pointer=None, mask=MASK
        )
        assert isinstance(result.value, dict)
        shown = str(result.value["body"])
        assert set(shown.removesuffix(" [cut]")) == {"x"}


def test_nothing_of_a_secret_shows_in_its_text() -> None:
    assert SECRET not in repr(KEPT)
