"""Proofs in files of their own: that an event is in a signed trace, and that one checkpoint continues another.

Rule: pure, and strict like checkpoints. What a file says counts only as far as hashes and a trusted key bear it out: the event it
carries is the proof's leaf, and is read from nowhere else.
Source: C2SP tlog-proof; RFC 6962, section 2.1. Specified in specs/trace.md, "Proofs".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import SignedCheckpoint, VerifierKey, decode, encode, parse_checkpoint, split_notes
from cra_mcp.trace.event import Event, parse
from cra_mcp.trace.merkle import (
    HASH_BYTES,
    MAX_SIZE,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

INCLUSION = "c2sp.org/tlog-proof@v1"
CONSISTENCY = "cra.dev/consistency-proof@v1"
MAX_PROOF_BYTES = 16 * 1_048_576
_MAX_HASHES = 2 * 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A proof that was borne out: ``event`` is at ``index`` of the trace ``signed`` speaks of.

    Attributes:
        line: the stored line, byte for byte.
        key: who signed it.
    """

    line: bytes
    event: Event
    index: int
    signed: SignedCheckpoint
    key: VerifierKey


@dataclass(frozen=True, slots=True)
class Consistency:
    """A proof that was borne out: all that ``old`` speaks of is the beginning of what ``new`` speaks of."""

    old: SignedCheckpoint
    new: SignedCheckpoint
    key: VerifierKey


def prove_inclusion(lines: Sequence[bytes], index: int, signed: SignedCheckpoint) -> bytes:
    """The proof file for one event.

    Args:
        lines: the stored lines, at least as many as the checkpoint speaks of.
        index: of the event.
        signed: a checkpoint that covers it.

    Raises:
        TraceError: ``not_covered``: the checkpoint speaks of fewer events; ``checkpoint_mismatch``: it speaks of others.
    """
    size = signed.checkpoint.size
    if not 0 <= index < min(size, len(lines)):
        raise TraceError(f"the checkpoint speaks of {size} events, not of event {index}", code="not_covered")
    leaves = [leaf_hash(line) for line in lines[:size]]
    hashes = inclusion_proof(leaves, index)
    if not verify_inclusion(leaves[index], index, size, hashes, signed.checkpoint.root):
        raise _mismatch()
    head = [INCLUSION, f"extra {encode(lines[index])}", f"index {index}", *map(encode, hashes)]
    return "".join(f"{line}\n" for line in head).encode() + b"\n" + signed.note


def prove_consistency(lines: Sequence[bytes], old: SignedCheckpoint, new: SignedCheckpoint) -> bytes:
    """The proof file for two checkpoints of one session.

    Args:
        lines: the stored lines, at least as many as the newer one speaks of.
        old: the checkpoint of fewer events.
        new: that of more.

    Raises:
        TraceError: ``not_covered``: there are not as many events; ``checkpoint_mismatch``: the checkpoints speak of others.
    """
    size, new_size = old.checkpoint.size, new.checkpoint.size
    if not 1 <= size <= new_size <= len(lines):
        raise TraceError(f"the trace has no {size} and {new_size} events, in this order", code="not_covered")
    hashes = consistency_proof([leaf_hash(line) for line in lines[:new_size]], size)
    if not verify_consistency(size, old.checkpoint.root, new_size, new.checkpoint.root, hashes):
        raise _mismatch()
    head = [CONSISTENCY, *map(encode, hashes)]
    return "".join(f"{line}\n" for line in head).encode() + b"\n" + old.note + b"\n" + new.note


def verify_proof(data: bytes, keys: Iterable[VerifierKey]) -> Inclusion | Consistency:
    """Check a proof file of either kind.

    Raises:
        TraceError: ``malformed_proof``; ``proof_failed``: the hashes don't lead to what was signed; or what
            ``checkpoint.parse_checkpoint`` and ``SignedCheckpoint.verify`` raise.
    """
    if len(data) > MAX_PROOF_BYTES:
        raise _malformed("it is too long")
    head, separator, rest = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise _malformed("its head is not ASCII") from None
    if not separator:
        raise _malformed("it has no checkpoint")
    if lines[0] == INCLUSION:
        return _inclusion(lines[1:], rest, list(keys))
    if lines[0] == CONSISTENCY:
        return _consistency(lines[1:], rest, list(keys))
    raise _malformed("it is of no kind known here")


def _inclusion(lines: list[str], rest: bytes, keys: list[VerifierKey]) -> Inclusion:
    if not lines or not lines[0].startswith("extra "):
        raise _malformed("it carries no event")
    line = _decoded(lines[0].removeprefix("extra "))
    match = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if match is None or int(match[1]) > MAX_SIZE:
        raise _malformed("it names no index")
    index, hashes = int(match[1]), _hashes(lines[2:])
    signed = parse_checkpoint(rest)
    key = signed.verify(keys)
    checkpoint = signed.checkpoint
    if not verify_inclusion(leaf_hash(line), index, checkpoint.size, hashes, checkpoint.root):
        raise TraceError("the event is not in the trace that was signed, or not at this place", code="proof_failed")
    event = parse(line)
    if (event.session_id, event.sequence) != (checkpoint.session_id, index):
        raise TraceError("the event says that it belongs elsewhere than where it was signed", code="proof_failed")
    return Inclusion(line, event, index, signed, key)


def _consistency(lines: list[str], rest: bytes, keys: list[VerifierKey]) -> Consistency:
    hashes = _hashes(lines)
    notes, torn = split_notes(rest)
    if len(notes) != 2 or torn:  # noqa: PLR2004 - an old one and a new one
        raise _malformed("it holds no two checkpoints")
    old, new = (parse_checkpoint(note) for note in notes)
    key = old.verify(keys)
    new.verify(keys)
    if old.checkpoint.session_id != new.checkpoint.session_id:
        raise TraceError("the checkpoints are of two sessions", code="proof_failed")
    before, after = old.checkpoint, new.checkpoint
    if not verify_consistency(before.size, before.root, after.size, after.root, hashes):
        raise TraceError("the newer checkpoint does not continue the older one", code="proof_failed")
    return Consistency(old, new, key)


def _hashes(lines: list[str]) -> list[bytes]:
    hashes = [_decoded(line) for line in lines]
    if len(hashes) > _MAX_HASHES or any(len(each) != HASH_BYTES for each in hashes):
        raise _malformed("what should be hashes are none")
    return hashes


def _decoded(text: str) -> bytes:
    try:
        return decode(text)
    except TraceError:
        raise _malformed("it holds what is no Base64") from None


def _mismatch() -> TraceError:
    return TraceError(
        "the trace is not the one that was signed: nothing can be proved of it",
        code="checkpoint_mismatch",
        hint="`cra-mcp trace verify` says what was done to it.",
    )


def _malformed(what: str) -> TraceError:
    return TraceError(f"the proof can't be read: {what}", code="malformed_proof")
