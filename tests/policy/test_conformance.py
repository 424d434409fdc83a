"""The vectors of specs/conformance/policy, against the engine and against the literal reading of the specification."""

import json
from pathlib import Path

import pytest

from cra_mcp.faces.cli.conformance_policy import run
from cra_mcp.policy.compiler import default_effect, policy_from_manifest

FOLDER = Path(__file__).parents[2] / "specs" / "conformance" / "policy"
VECTORS = sorted(FOLDER.glob("*.json"))


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_engine_gives_what_the_vector_expects(path):
    vector = load(path)
    assert vector["kind"] == "policy"
    assert run(vector) == vector["expect"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_specification_read_literally_gives_what_the_vector_expects(oracle, path):
    vector = load(path)
    assert oracle.run_vector(vector, policy_from_manifest, default_effect) == vector["expect"]


def test_there_are_vectors_and_their_numbers_have_no_gaps():
    assert [int(path.name[:4]) for path in VECTORS] == list(range(1, len(VECTORS) + 1))
    assert len(VECTORS) >= 25


def test_a_vector_with_a_policy_that_can_not_be_used_is_an_error():
    with pytest.raises(ValueError, match="policy_id"):
        run({"input": {"policies": [{"policy_id": "default", "type": "deny"}]}})
