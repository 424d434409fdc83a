"""Proofs: made, checked, and worth nothing once anything in them was changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, origin_of, parse_checkpoint
from cra_mcp.trace.merkle import leaf_hash, root_of
from cra_mcp.trace.proof import (
    MAX_PROOF_BYTES,
    Consistency,
    Inclusion,
    prove_consistency,
    prove_inclusion,
    verify_proof,
)

KEY = SignerKey("example.com/agents", bytes(range(32)))
SESSION = "01980000-0000-7000-8000-000000000001"


def signed(lines: list[bytes], size: int):
    root = root_of([leaf_hash(line) for line in lines[:size]])
    return parse_checkpoint(KEY.sign(Checkpoint(origin_of(KEY.verifier.name, SESSION), size, root)))


def code_of(call) -> str:
    with pytest.raises(TraceError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("size", [1, 2, 5, 8, 13])
def test_every_event_a_checkpoint_covers_can_be_proved_and_no_other(chain, size):
    lines = chain(13)
    checkpoint = signed(lines, size)
    for index in range(size):
        found = verify_proof(prove_inclusion(lines, index, checkpoint), [KEY.verifier])
        assert isinstance(found, Inclusion)
        assert (found.line, found.index, found.event.sequence, found.key) == (lines[index], index, index, KEY.verifier)
    assert code_of(lambda: prove_inclusion(lines, size, checkpoint)) == "not_covered"
    assert code_of(lambda: prove_inclusion(lines, -1, checkpoint)) == "not_covered"


def test_growth_can_be_proved_between_any_two_checkpoints(chain):
    lines = chain(9)
    for old in range(1, 10):
        for new in range(old, 10):
            found = verify_proof(prove_consistency(lines, signed(lines, old), signed(lines, new)), [KEY.verifier])
            assert isinstance(found, Consistency)
            assert (found.old.checkpoint.size, found.new.checkpoint.size) == (old, new)
    assert code_of(lambda: prove_consistency(lines, signed(lines, 5), signed(lines, 3))) == "not_covered"
    assert code_of(lambda: prove_consistency(lines[:4], signed(lines, 3), signed(lines, 5))) == "not_covered"


def test_nothing_is_proved_of_a_trace_that_is_not_the_one_that_was_signed(chain):
    lines = chain(6)
    other = [*lines[:2], lines[2].replace(b"event 2", b"event 9"), *lines[3:]]
    assert code_of(lambda: prove_inclusion(other, 4, signed(lines, 6))) == "checkpoint_mismatch"
    assert code_of(lambda: prove_inclusion(lines[:5], 4, signed(lines, 6))) == "checkpoint_mismatch"
    assert code_of(lambda: prove_consistency(other, signed(lines, 3), signed(lines, 6))) == "checkpoint_mismatch"


@given(data=st.data())
def test_no_change_of_a_byte_leaves_a_proof(data):
    proof = data.draw(st.sampled_from(PROOFS))
    place, flip = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(1, 255))
    changed = proof[:place] + bytes([proof[place] ^ flip]) + proof[place + 1 :]
    with pytest.raises(TraceError):
        verify_proof(changed, [KEY.verifier])


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_code(data):
    for text in (data, PROOFS[0][: len(data)] + data, b"c2sp.org/tlog-proof@v1\nextra " + data):
        with pytest.raises(TraceError):
            verify_proof(text, [KEY.verifier])


def test_a_proof_that_is_far_too_long_is_not_read():
    assert code_of(lambda: verify_proof(PROOFS[0] + b"\n" * MAX_PROOF_BYTES, [KEY.verifier])) == "malformed_proof"


def _proofs() -> list[bytes]:
    """Made here because a property test can't ask for the fixture that makes chains."""
    from cra_mcp.trace.event import Draft, Head, link  # noqa: PLC0415 - used once

    head: Head | None = None
    lines: list[bytes] = []
    for number in range(5):
        head, line = link(
            head,
            Draft("x.test.note", {"note": number}, SESSION),
            session_id=SESSION,
            trace_id=SESSION,
            event_id=SESSION,
            timestamp="2026-01-02T03:04:05.000006Z",
        )
        lines.append(line)
    return [
        prove_inclusion(lines, 3, signed(lines, 5)),
        prove_consistency(lines, signed(lines, 3), signed(lines, 5)),
    ]


PROOFS = _proofs()
