"""Checkpoints and proofs read by software of other makers."""

import base64
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, origin_of
from cra_mcp.trace.merkle import inclusion_proof, leaf_hash, root_of
from cra_mcp.trace.timestamp import add_stamp

KEY = SignerKey("example.com/agents", bytes(range(32)))
SESSION = "01980000-0000-7000-8000-000000000001"
SCRIPT = Path(__file__).with_name("with_sigstore.py")


def sigstore() -> str:
    """The Python that has sigstore."""
    path = Path(__file__).parents[1] / "clients" / "environments.py"
    spec = importlib.util.spec_from_file_location("cra_clients_environments", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.interpreter("sigstore"))


def read_by_sigstore(note: str, proofs: list[dict[str, object]]) -> subprocess.CompletedProcess[str]:
    public = KEY.verifier
    asked = {
        "note": note,
        "public_key": base64.b64encode(public.public).decode(),
        "key_id": public.key_id.hex(),
        "proofs": proofs,
    }
    return subprocess.run(
        [sigstore(), "-P", str(SCRIPT)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.long
def test_sigstore_reads_and_verifies_a_checkpoint_and_every_proof_of_it(chain):
    lines = chain(21)
    leaves = [leaf_hash(line) for line in lines]
    checkpoint = Checkpoint(origin_of(KEY.verifier.name, SESSION), 21, root_of(leaves))
    note = KEY.sign(checkpoint).decode()
    proofs: list[dict[str, object]] = [
        {
            "index": index,
            "line": base64.b64encode(line).decode(),
            "hashes": [base64.b64encode(each).decode() for each in inclusion_proof(leaves, index)],
        }
        for index, line in enumerate(lines)
    ]
    done = read_by_sigstore(note, proofs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"origin": checkpoint.origin, "size": 21, "root": checkpoint.root.hex()}
    stamped = add_stamp(note.encode(), "tsa.example", bytes(2_000)).decode()  # a line it knows nothing of
    assert read_by_sigstore(stamped, proofs).stdout == done.stdout
    proofs[3]["index"] = 4
    assert "VerificationError" in read_by_sigstore(note, proofs).stderr
    assert "VerificationError" in read_by_sigstore(note.replace("\n21\n", "\n22\n"), []).stderr
