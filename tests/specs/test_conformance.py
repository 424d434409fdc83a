"""Every published vector, run as `cra-mcp conformance` runs it."""

import json
from pathlib import Path

import pytest

from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.conformance import run_vector

FOLDER = Path(__file__).resolve().parents[2] / "specs" / "conformance"
GROUPS = ("checkpoint", "golden", "hash-chain", "policy", "resolution", "schema")
VECTORS = sorted(FOLDER.glob("*/*.json"))


def test_every_group_has_vectors() -> None:
    assert {path.parent.name for path in VECTORS} == set(GROUPS)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_vector_holds(path: Path) -> None:
    vector = json.loads(path.read_text())
    assert vector["description"]
    assert run_vector(vector) == vector["expect"]


def test_a_vector_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(SettingsError):
        run_vector({"kind": "nonsense"})
