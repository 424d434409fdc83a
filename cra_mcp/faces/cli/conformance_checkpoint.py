"""Runs conformance vectors of the kinds ``merkle``, ``checkpoint``, ``proof`` and ``diagnosis``.

Rule: nothing is decided here; a vector's input goes through the functions that make and verify checkpoints and proofs.
Source: specs/conformance/checkpoint/README.md.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import VerifierKey, parse_checkpoint
from cra_mcp.trace.diagnosis import diagnose
from cra_mcp.trace.event import verify
from cra_mcp.trace.merkle import consistency_proof, inclusion_proof, leaf_hash, root_of
from cra_mcp.trace.proof import Inclusion, verify_proof


def run(vector: Mapping[str, object]) -> object:
    """What the implementation makes of ``vector["input"]``, to be compared with ``vector["expect"]``."""
    given = cast("Mapping[str, object]", vector["input"])
    kind = vector["kind"]
    if kind == "merkle":
        return _merkle(given)
    try:
        keys = [VerifierKey.decode(text) for text in cast("Sequence[str]", given["keys"])]
        if kind == "checkpoint":
            return _checkpoint(given, keys)
        return _proof(given, keys) if kind == "proof" else _diagnosis(given, keys)
    except TraceError as error:
        return {"error": error.code}


def _merkle(given: Mapping[str, object]) -> dict[str, object]:
    leaves = [leaf_hash(text.encode()) for text in cast("Sequence[str]", given["lines"])]
    size = len(leaves)
    return {
        "root": root_of(leaves).hex(),
        "inclusion": [[each.hex() for each in inclusion_proof(leaves, index)] for index in range(size)],
        "consistency": [[each.hex() for each in consistency_proof(leaves, old)] for old in range(1, size + 1)],
    }


def _checkpoint(given: Mapping[str, object], keys: list[VerifierKey]) -> dict[str, object]:
    signed = parse_checkpoint(cast("str", given["note"]).encode())
    signer = signed.verify(keys)
    checkpoint = signed.checkpoint
    return {
        "origin": checkpoint.origin,
        "session_id": checkpoint.session_id,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "signer": signer.name,
    }


def _proof(given: Mapping[str, object], keys: list[VerifierKey]) -> dict[str, object]:
    found = verify_proof(cast("str", given["proof"]).encode(), keys)
    if isinstance(found, Inclusion):
        return {
            "kind": "inclusion",
            "index": found.index,
            "event_hash": found.event.event_hash,
            "signer": found.key.name,
        }
    sizes = {"old_size": found.old.checkpoint.size, "size": found.new.checkpoint.size}
    return {"kind": "consistency", **sizes, "signer": found.key.name}


def _diagnosis(given: Mapping[str, object], keys: list[VerifierKey]) -> dict[str, object]:
    lines = [line.encode() for line in cast("Sequence[str]", given["lines"])]
    signed = [parse_checkpoint(note.encode()) for note in cast("Sequence[str]", given["notes"])]
    for each in signed:
        each.verify(keys)
    session_id = cast("str", given["session_id"])
    found = diagnose(lines, verify(lines, session_id=session_id), [each.checkpoint for each in signed])
    return {
        "ok": found.ok,
        "kind": found.kind,
        "code": found.code,
        "bad_index": found.bad_index,
        "covered": found.covered,
        "ended": found.ended,
    }
