"""The Merkle tree, against a second implementation (pymerkle), the definition of RFC 6962, and proofs that were tampered with."""

import hashlib
import random

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.trace.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 70)


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(b"line %d" % number) for number in range(size)]


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


def subproof(old: int, leaves: list[bytes], known: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, word for word."""
    if old == len(leaves):
        return [] if known else [by_definition(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*subproof(old, leaves[:split], known), by_definition(leaves[split:])]
    return [*subproof(old - split, leaves[split:], False), by_definition(leaves[:split])]


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 13, 33])
def test_a_consistency_proof_is_that_of_the_definition(size):
    for old in range(1, size + 1):
        assert consistency_proof(leaves_of(size), old) == subproof(old, leaves_of(size), True)


@pytest.mark.parametrize("size", range(66))
def test_a_tree_that_grows_has_the_root_of_the_definition_at_every_size(size):
    frontier = Frontier()
    for leaf in leaves_of(size):
        frontier.append(leaf)
    assert frontier.size == size
    assert frontier.root() == by_definition(leaves_of(size)) == root_of(leaves_of(size))


def test_an_empty_tree_has_the_root_of_nothing():
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64])
def test_every_leaf_is_proved_and_no_other_leaf_index_size_or_root_is(size):
    leaves = leaves_of(size)
    root = root_of(leaves)
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(leaves, index)
        assert verify_inclusion(leaf, index, size, proof, root)
        assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
        assert not any(verify_inclusion(leaf, other, size, proof, root) for other in range(size) if other != index)
        assert not verify_inclusion(leaf, index, size, [*proof, root], root)
        assert not proof or not verify_inclusion(leaf, index, size, proof[:-1], root)


@given(new=SIZES, data=st.data())
def test_every_beginning_of_a_tree_is_proved_to_be_one_and_nothing_else_is(new, data):
    old = data.draw(st.integers(1, new))
    leaves = leaves_of(new)
    old_root, new_root = root_of(leaves[:old]), root_of(leaves)
    proof = consistency_proof(leaves, old)
    assert verify_consistency(old, old_root, new, new_root, proof)
    assert not verify_consistency(old, leaf_hash(b"x"), new, new_root, proof)
    assert not verify_consistency(old, old_root, new, leaf_hash(b"x"), proof)
    assert not verify_consistency(old, old_root, new, new_root, [*proof, old_root])
    for place in range(len(proof)):
        changed = [*proof[:place], leaf_hash(b"x"), *proof[place + 1 :]]
        assert not verify_consistency(old, old_root, new, new_root, changed)
        assert not verify_consistency(old, old_root, new, new_root, proof[:place])


@given(size=SIZES, changed=st.data())
def test_a_tree_with_one_other_leaf_is_never_a_continuation(size, changed):
    """However the proof is made: here honestly, from the other tree."""
    place = changed.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    forked = [*leaves[:place], leaf_hash(b"other"), *leaves[place + 1 :], leaf_hash(b"more")]
    proof = consistency_proof(forked, size)
    assert not verify_consistency(size, root_of(leaves), size + 1, root_of(forked), proof)


def test_nothing_needs_to_be_shown_from_an_empty_tree_or_to_the_same_one():
    root = root_of(leaves_of(5))
    assert verify_consistency(0, EMPTY_ROOT, 5, root, [])
    assert verify_consistency(5, root, 5, root, [])
    assert not verify_consistency(0, root, 5, root, [])
    assert not verify_consistency(0, EMPTY_ROOT, 5, root, [root])
    assert not verify_consistency(5, root, 5, EMPTY_ROOT, [])
    assert not verify_consistency(5, root, 5, root, [root])
    assert not verify_consistency(6, root, 5, root, [])


def test_hashes_of_another_width_and_impossible_places_verify_nothing():
    leaves = leaves_of(4)
    proof, root = inclusion_proof(leaves, 1), root_of(leaves)
    assert not verify_inclusion(leaves[1], 1, 4, [proof[0][:31], proof[1]], root)
    assert not verify_inclusion(leaves[1], -1, 4, proof, root)
    assert not verify_inclusion(leaves[1], 4, 4, proof, root)
    assert not verify_inclusion(leaves[1], 1, 2**64, proof, root)
    assert not verify_consistency(1, leaves[0], 4, root, [b"short"])
    for index in (-1, 4):
        with pytest.raises(ValueError, match="index"):
            inclusion_proof(leaves, index)
    for size in (0, 5):
        with pytest.raises(ValueError, match="old tree"):
            consistency_proof(leaves, size)


def test_pymerkle_agrees_on_roots_and_proofs_of_random_trees():
    chance = random.Random(6962)
    for _ in range(12):
        size = chance.randint(1, 300)
        lines = [chance.randbytes(chance.randint(0, 80)) for _ in range(size)]
        leaves = [leaf_hash(line) for line in lines]
        other = pymerkle.InmemoryTree(algorithm="sha256")
        for line in lines:
            other.append_entry(line)
        assert other.get_root() == root_of(leaves)
        index, old = chance.randrange(size), chance.randint(1, size)
        path = other.prove_inclusion(index + 1, size).path
        assert path[0] == leaves[index]
        assert path[1:] == inclusion_proof(leaves, index)
        theirs = other.prove_consistency(old, size)
        pymerkle.verify_consistency(root_of(leaves[:old]), root_of(leaves), theirs)
        assert verify_consistency(old, root_of(leaves[:old]), size, root_of(leaves), consistency_proof(leaves, old))


@pytest.mark.long
def test_pymerkle_agrees_on_a_hundred_thousand_leaves_on_roots_and_on_ten_thousand_proofs():
    chance, size = random.Random(9162), 100_000
    other, ours, leaves = pymerkle.InmemoryTree(algorithm="sha256"), Frontier(), []
    for number in range(1, size + 1):
        line = chance.randbytes(chance.randint(0, 80))
        other.append_entry(line)
        leaves.append(leaf_hash(line))
        ours.append(leaves[-1])
        if number % 97 == 0:
            assert other.get_root() == ours.root()
    root = ours.root()
    for number, index in enumerate(chance.sample(range(size), 10_000)):
        path = other.prove_inclusion(index + 1, size).path
        assert verify_inclusion(leaves[index], index, size, path[1:], root)
        if number % 500 == 0:
            assert path[1:] == inclusion_proof(leaves, index)
    for _ in range(30):
        old = chance.randint(1, size)
        old_root = root_of(leaves[:old])
        pymerkle.verify_consistency(old_root, root, other.prove_consistency(old, size))
        assert verify_consistency(old, old_root, size, root, consistency_proof(leaves, old))
