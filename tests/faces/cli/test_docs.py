"""``docs`` lists and prints the specifications, and refuses what is none."""

import json
from pathlib import Path

import pytest

from tests.faces.cli.conftest import cra

SPECS = Path(__file__).resolve().parents[3] / "specs"


def test_they_are_listed_by_name_and_title() -> None:
    told = cra("docs").stdout
    listed = {line.split()[0] for line in told.splitlines()[1:]}
    assert listed == {path.stem for path in SPECS.glob("*.md")} | {"conformance"}
    assert "Atlas/1.0" in told
    assert {each["name"] for each in json.loads(cra("docs", "--json").stdout)["documents"]} == listed


@pytest.mark.parametrize("name", ["policy", "policy.md"])
def test_one_is_printed_as_it_is(name: str) -> None:
    done = cra("docs", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, (SPECS / "policy.md").read_text(), "")
    assert json.loads(cra("docs", name, "--json").stdout) == {"name": "policy", "text": done.stdout}


@pytest.mark.parametrize("name", ["none", "../README", "/etc/passwd", "schemas/x", ""])
def test_no_other_file_is(name: str) -> None:
    done = cra("docs", name)
    assert (done.returncode, done.stdout) == (3, "")
    assert "policy" in done.stderr
