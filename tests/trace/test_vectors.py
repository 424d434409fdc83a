"""The vectors of specs/conformance/hash-chain against this implementation."""

import json
from pathlib import Path

import pytest

from cra_mcp.faces.cli.conformance_chain import run
from tests.trace import generate_vectors

FOLDER = Path(__file__).parents[2] / "specs" / "conformance" / "hash-chain"
VECTORS = sorted(FOLDER.glob("*.json"))
CODES = {
    "malformed_event",
    "invalid_genesis",
    "hash_mismatch",
    "chain_broken",
    "sequence_gap",
    "timestamp_regression",
    "session_mismatch",
    "truncated",
}


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_vector_holds(path):
    vector = json.loads(path.read_text())
    assert run(vector) == vector["expect"]


def test_vectors_are_numbered_without_gaps_and_cover_every_code():
    assert [int(path.name[:4]) for path in VECTORS] == list(range(1, len(VECTORS) + 1))
    expected = [json.loads(path.read_text())["expect"] for path in VECTORS]
    assert {expect.get("code") for expect in expected} >= CODES


def test_generating_the_vectors_again_gives_the_same_bytes():
    assert generate_vectors.files() == {path.name: path.read_bytes() for path in VECTORS}
