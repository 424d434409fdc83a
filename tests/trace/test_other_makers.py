"""Checkpoints and proofs read by software of other makers."""

import base64
import importlib.util
import json
import random
import subprocess
from pathlib import Path

import pytest

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, VerifierKey, origin_of, parse_checkpoint
from cra_mcp.trace.merkle import inclusion_proof, leaf_hash, root_of
from cra_mcp.trace.timestamp import add_stamp
from tests.trace.test_checkpoint_vectors import node

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


# Reads signed notes with nothing but what the C2SP pages say, and Node's own Ed25519; one verdict a line.
NODE = """
const crypto = require("node:crypto");
const strict = (text) => {
  const data = Buffer.from(text, "base64");
  if (data.toString("base64") !== text) throw new Error("base64");
  return data;
};
const read = (note, vkey) => {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(strict(note));
  const parts = /^((.+)\\/([^\\/\\n]+)\\n(0|[1-9]\\d{0,18})\\n(\\S+)\\n)\\n\\u2014 (\\S+) (\\S+)\\n$/.exec(text);
  if (!parts || /[\\x00-\\x09\\x0b-\\x1f]/.test(text)) throw new Error("form");
  const [, body, log, session, size, root, name, signature] = parts;
  const [, keyName, keyId, key] = /^([^+]+)\\+([^+]+)\\+(.+)$/.exec(vkey);
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), strict(key).subarray(1)]);
  const blob = strict(signature);
  if (name !== keyName || log !== name || blob.subarray(0, 4).toString("hex") !== keyId) throw new Error("signer");
  const publicKey = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
  if (!crypto.verify(null, Buffer.from(body), publicKey, blob.subarray(4))) throw new Error("signature");
  return `${session} ${size} ${strict(root).toString("hex")}`;
};
const lines = require("node:fs").readFileSync(0, "utf8").trim().split("\\n");
for (const line of lines) {
  const [note, vkey] = line.split(" ");
  let told; try { told = read(note, vkey); } catch { told = "no"; }
  console.log(told);
}
"""


def said(note: bytes, vkey: str) -> str:
    """What we read in a note, in the words of the script."""
    try:
        signed = parse_checkpoint(note)
        signed.verify([VerifierKey.decode(vkey)])
    except TraceError:
        return "no"
    checkpoint = signed.checkpoint
    return f"{checkpoint.session_id} {checkpoint.size} {checkpoint.root.hex()}"


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.long)])
def test_node_reads_random_checkpoints_as_we_do_and_refuses_the_same_changed_ones(count):
    chance = random.Random(count)
    keys = [SignerKey(f"example.com/{number}", chance.randbytes(32)) for number in range(20)]
    asked: list[tuple[bytes, str, bool]] = []
    for number in range(count):
        key = chance.choice(keys)
        session = f"01980000-0000-7000-8000-{number:012x}"
        size = chance.choice((0, 1, chance.getrandbits(8), chance.getrandbits(53), 2**63 - 1))
        note = bytearray(key.sign(Checkpoint(origin_of(key.verifier.name, session), size, chance.randbytes(32))))
        changed = chance.random() < 0.5
        if changed:
            note[chance.randrange(len(note))] ^= 1 << chance.randrange(8)
        asked.append((bytes(note), key.verifier.encode(), changed))
    text = "\n".join(f"{base64.b64encode(note).decode()} {vkey}" for note, vkey, _ in asked)
    done = subprocess.run([node(), "-e", NODE], input=text, capture_output=True, text=True, check=True, timeout=500)
    ours = [said(note, vkey) for note, vkey, _ in asked]
    assert done.stdout.splitlines() == ours
    assert [answer == "no" for answer in ours] == [changed for _, _, changed in asked]
