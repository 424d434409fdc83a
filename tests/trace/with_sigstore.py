"""Reads a checkpoint and a proof with the code of sigstore-python, in an environment of its own: JSON in, JSON out.

Its checkpoint and Merkle code is internal to it, and pinned (tests/clients/python/sigstore.txt) for that reason.
"""

import base64
import json
import sys
from types import SimpleNamespace

from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint
from sigstore._internal.trust import Keyring
from sigstore_models.common.v1 import PublicKeyDetails

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")


def main() -> None:
    asked = json.load(sys.stdin)
    signed = SignedCheckpoint.from_text(asked["note"])
    key = SimpleNamespace(
        raw_bytes=ED25519_PREFIX + base64.b64decode(asked["public_key"]), key_details=PublicKeyDetails.PKIX_ED25519
    )
    signed.signed_note.verify(Keyring([key]), bytes.fromhex(asked["key_id"]))
    checkpoint = signed.checkpoint
    for proof in asked["proofs"]:
        inner = SimpleNamespace(
            canonicalized_body=base64.b64decode(proof["line"]),
            inclusion_proof=SimpleNamespace(
                log_index=proof["index"],
                tree_size=checkpoint.log_size,
                hashes=[base64.b64decode(each) for each in proof["hashes"]],
                root_hash=bytes.fromhex(checkpoint.log_hash),
            ),
        )
        verify_merkle_inclusion(SimpleNamespace(_inner=inner))
    sys.stdout.write(
        json.dumps({"origin": checkpoint.origin, "size": checkpoint.log_size, "root": checkpoint.log_hash})
    )


main()
