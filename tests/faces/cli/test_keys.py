"""``keys`` on the command line."""

import json

import pytest

from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


def test_a_key_is_made_listed_and_taken_back(place: Place) -> None:
    where = ("--data-dir", place.data)
    assert cra("keys", "list", *where).stderr == "there are no keys\n"
    made = cra("keys", "create", "ann", "--role", "agent", "--role", "auditor", "--expires", "30d", *where)
    assert made.returncode == 0
    text = made.stdout.strip()
    assert (text.startswith("cra_"), len(text)) == (True, 66)
    assert text not in made.stderr
    (key,) = json.loads(cra("keys", "list", "--json", *where).stdout)["keys"]
    assert (key["subject"], key["roles"], key["used_on"]) == ("ann", ["agent", "auditor"], None)
    assert key["expires_at_us"] - key["created_at_us"] == 30 * 86_400 * 1_000_000
    listed = cra("keys", "list", *where).stdout
    assert (key["key_id"] in listed, "good until" in listed, text in listed) == (True, True, False)
    gone = cra("keys", "revoke", key["key_id"], *where)
    assert (gone.returncode, gone.stderr) == (0, f"revoked: {key['key_id']} of ann\n")
    assert "revoked" in cra("keys", "list", *where).stdout
    missing = cra("keys", "revoke", "nothing", *where)
    assert (missing.returncode, "unknown_key" in missing.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ann", "--role", "root"), "is no role"),
        (("ann", "--role", "agent", "--expires", "soon"), "such as 12h or 30d"),
        (("ann",), "--role"),
    ],
)
def test_a_key_that_makes_no_sense_is_wrong_usage(place: Place, arguments: tuple[str, ...], said: str) -> None:
    done = cra("keys", "create", *arguments, "--data-dir", place.data)
    assert (done.returncode, said in done.stderr, done.stdout) == (2, True, "")
