"""The Merkle tree: published vectors, the definition in the RFC's own words, and proofs of what is not so."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import EvidenceError
from exequatur.lineage.merkle import (
    EMPTY_ROOT,
    Tree,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves that Certificate Transparency implementations test with, and the roots of the trees over the first
# of them. Source: github.com/transparency-dev/merkle, testonly/constants.go (LeafInputs, RootHashes).
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# Source: github.com/transparency-dev/merkle, testdata/inclusion/{1,2,3,4}/happy-path.json; (index, size) and the proof.
CT_INCLUSION = {
    (0, 8): (
        "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=",
    ),
    (5, 8): (
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ),
    (2, 3): ("+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=",),
    (1, 5): (
        "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ),
}
# Source: the same, testdata/consistency/{1,2,3,4}/happy-path.json; the two sizes and the proof.
CT_CONSISTENCY = {
    (1, 8): (
        "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=",
    ),
    (6, 8): (
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ),
    (2, 5): (
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ),
    (6, 7): (
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ),
}
# Source: draft-ietf-plants-merkle-tree-certs, appendix "Subtree Test Vectors": SHA-256 over one line for each subtree
# of trees of up to 130 leaves 0x00, 0x01, …; over the subtrees' roots, and over the inclusion proofs of their leaves.
DRAFT_ROOTS = "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"
DRAFT_INCLUSION = "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"

LEAVES = [bytes([number]) for number in range(130)]
HASHES = [leaf_hash(leaf) for leaf in LEAVES]
TREE = Tree(HASHES)
ROOTS = [TREE.root(size) for size in range(len(LEAVES) + 1)]
SIZES = st.integers(1, len(LEAVES))


# The definitions of RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1, word for word and without a thought for speed.


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


@lru_cache(None)
def mth(start: int, end: int) -> bytes:
    n = end - start
    if n == 0:
        return hashlib.sha256().digest()
    if n == 1:
        return hashlib.sha256(b"\x00" + LEAVES[start]).digest()
    k = largest_power_below(n)
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, end)).digest()


def path(m: int, start: int, end: int) -> list[bytes]:
    n = end - start
    if n == 1:
        return []
    k = largest_power_below(n)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, known: bool) -> list[bytes]:
    n = end - start
    if m == n:
        return [] if known else [mth(start, end)]
    k = largest_power_below(n)
    if m <= k:
        return [*subproof(m, start, start + k, known), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, False), mth(start, start + k)]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    tree = Tree()
    for size, published in enumerate(CT_ROOTS):
        if size:
            assert tree.append(leaf_hash(CT_LEAVES[size - 1])) == size - 1
        assert len(tree) == size
        assert tree.root().hex() == root(map(leaf_hash, CT_LEAVES[:size])).hex() == published
    assert [tree.root(size).hex() for size in range(9)] == CT_ROOTS
    assert EMPTY_ROOT.hex() == CT_ROOTS[0]


@pytest.mark.parametrize(("index", "size"), CT_INCLUSION)
def test_the_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    published = tuple(map(b64decode, CT_INCLUSION[index, size]))
    assert Tree(map(leaf_hash, CT_LEAVES)).inclusion_proof(index, size) == published
    verify_inclusion(leaf_hash(CT_LEAVES[index]), index, size, published, bytes.fromhex(CT_ROOTS[size]))


@pytest.mark.parametrize(("earlier", "later"), CT_CONSISTENCY)
def test_the_consistency_proofs_are_those_of_certificate_transparency(earlier: int, later: int) -> None:
    published = tuple(map(b64decode, CT_CONSISTENCY[earlier, later]))
    assert Tree(map(leaf_hash, CT_LEAVES)).consistency_proof(earlier, later) == published
    roots = [bytes.fromhex(CT_ROOTS[size]) for size in (earlier, later)]
    verify_consistency(earlier, roots[0], later, roots[1], published)


def test_all_subtrees_are_those_of_the_merkle_tree_certificates_draft() -> None:
    roots, proofs = hashlib.sha256(), hashlib.sha256()
    for end in range(len(LEAVES) + 1):
        for start in range(end + 1):
            length = end - start
            if start and length and start % (1 << (length - 1).bit_length()):
                continue  # such leaves are not below one node
            tree = Tree(HASHES[start:end])
            roots.update(f"[{start}, {end}) {tree.root().hex()}\n".encode())
            for index in range(start, end):
                line = [f"{index} [{start}, {end})", *(item.hex() for item in tree.inclusion_proof(index - start))]
                proofs.update(f"{' '.join(line)}\n".encode())
    assert roots.hexdigest() == DRAFT_ROOTS
    assert proofs.hexdigest() == DRAFT_INCLUSION


def test_every_root_up_to_130_leaves_is_the_defined_one() -> None:
    assert [mth(0, size) for size in range(len(LEAVES) + 1)] == ROOTS


def test_every_inclusion_proof_up_to_130_leaves_is_the_defined_one_and_verifies() -> None:
    for size in range(len(LEAVES) + 1):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            assert list(proof) == path(index, 0, size)
            verify_inclusion(HASHES[index], index, size, proof, ROOTS[size])


def test_every_consistency_proof_up_to_130_leaves_is_the_defined_one_and_verifies() -> None:
    for later in range(1, len(LEAVES) + 1):
        for earlier in range(1, later + 1):
            proof = TREE.consistency_proof(earlier, later)
            assert list(proof) == subproof(earlier, 0, later, True)
            verify_consistency(earlier, ROOTS[earlier], later, ROOTS[later], proof)


def test_a_tree_of_50_000_leaves_proves_its_last_leaf_and_its_growth() -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(50_000)]
    tree = Tree(hashes)
    verify_inclusion(hashes[-1], 49_999, 50_000, tree.inclusion_proof(49_999), tree.root())
    verify_consistency(32_769, tree.root(32_769), 50_000, tree.root(), tree.consistency_proof(32_769))


def test_a_leaf_that_looks_like_a_node_is_another_tree() -> None:
    left, right = HASHES[:2]
    assert leaf_hash(left + right) != node_hash(left, right) == root([left, right])


def test_a_leaf_that_is_not_hashed_is_refused() -> None:
    with pytest.raises(ValueError, match="append leaf_hash"):
        Tree().append(b"an event")


@pytest.mark.parametrize(("index", "size"), [(3, 3), (-1, 3), (0, 0), (0, 131), (0, -1)])
def test_there_is_no_inclusion_proof_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        TREE.inclusion_proof(index, size)


@pytest.mark.parametrize(("earlier", "later"), [(0, 3), (4, 3), (1, 131), (-1, 3)])
def test_there_is_no_consistency_proof_from_nothing_or_to_a_smaller_tree(earlier: int, later: int) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        TREE.consistency_proof(earlier, later)


def test_the_tree_of_one_leaf_needs_no_hashes() -> None:
    verify_inclusion(HASHES[0], 0, 1, (), HASHES[0])


def test_a_proof_for_another_leaf_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[T5\]"):
        verify_inclusion(HASHES[6], 5, 100, TREE.inclusion_proof(5, 100), ROOTS[100])


def test_a_proof_for_another_position_is_refused() -> None:
    for index in set(range(100)) - {5}:
        with pytest.raises(EvidenceError, match=r"\[T[45]\]"):
            verify_inclusion(HASHES[5], index, 100, TREE.inclusion_proof(5, 100), ROOTS[100])


def test_a_proof_against_another_root_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[T5\]"):
        verify_inclusion(HASHES[5], 5, 100, TREE.inclusion_proof(5, 100), ROOTS[99])


def test_a_leaf_outside_the_tree_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[T3\]"):
        verify_inclusion(HASHES[0], 1, 1, (), HASHES[0])
    with pytest.raises(EvidenceError, match=r"\[T3\]"):
        verify_inclusion(EMPTY_ROOT, 0, 0, (), EMPTY_ROOT)


def test_a_node_is_not_taken_for_a_leaf_of_a_smaller_tree() -> None:
    # The proof of a node is the tail of the proof of a leaf below it: only the number of hashes tells them apart.
    with pytest.raises(EvidenceError, match=r"\[T4\]"):
        verify_inclusion(mth(4, 6), 5, 8, TREE.inclusion_proof(5, 8)[1:], ROOTS[8])


def test_an_inclusion_proof_with_hashes_left_over_is_refused() -> None:
    proof = (*TREE.inclusion_proof(5, 8), ROOTS[8])
    # The very root that the longer proof leads to, so that nothing but its length is wrong.
    with pytest.raises(EvidenceError, match=r"\[T4\]"):
        verify_inclusion(HASHES[5], 5, 8, proof, node_hash(ROOTS[8], ROOTS[8]))


def test_equal_sizes_with_equal_roots_are_consistent_without_hashes() -> None:
    verify_consistency(7, ROOTS[7], 7, ROOTS[7], ())
    with pytest.raises(EvidenceError, match=r"\[T4\]"):
        verify_consistency(7, ROOTS[7], 7, ROOTS[7], (ROOTS[7],))


def test_equal_sizes_with_different_roots_are_a_fork() -> None:
    with pytest.raises(EvidenceError, match=r"forked or rewritten.*\[T6\]"):
        verify_consistency(7, ROOTS[7], 7, ROOTS[8], ())


def test_an_empty_tree_proves_nothing_about_a_later_one() -> None:
    for size in (0, 7):
        with pytest.raises(EvidenceError, match=r"\[T3\]"):
            verify_consistency(0, EMPTY_ROOT, size, ROOTS[size], ())


def test_a_log_that_shrank_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[T3\]"):
        verify_consistency(8, ROOTS[8], 7, ROOTS[7], TREE.consistency_proof(7, 8))


@pytest.mark.parametrize("earlier", range(1, 64))
def test_a_log_with_one_changed_leaf_is_refused(earlier: int) -> None:
    rewritten = Tree([*HASHES[: earlier - 1], leaf_hash(b"changed"), *HASHES[earlier:64]])
    with pytest.raises(EvidenceError, match=r"\[T6\]"):
        verify_consistency(earlier, ROOTS[earlier], 64, rewritten.root(), rewritten.consistency_proof(earlier))
    with pytest.raises(EvidenceError, match=r"\[T6\]"):
        verify_consistency(earlier, ROOTS[earlier], 64, rewritten.root(), TREE.consistency_proof(earlier, 64))


def test_a_consistency_proof_without_its_hashes_is_refused() -> None:
    for earlier, later in ((4, 8), (6, 8), (3, 7), (1, 130)):
        proof = TREE.consistency_proof(earlier, later)
        for end in range(len(proof)):
            with pytest.raises(EvidenceError, match=r"\[T4\]"):
                verify_consistency(earlier, ROOTS[earlier], later, ROOTS[later], proof[:end])


def test_a_consistency_proof_with_hashes_left_over_is_refused() -> None:
    proof = (*TREE.consistency_proof(6, 8), ROOTS[8])
    for later_root in (ROOTS[8], node_hash(ROOTS[8], ROOTS[8])):
        with pytest.raises(EvidenceError, match=r"\[T4\]"):
            verify_consistency(6, ROOTS[6], 8, later_root, proof)


def test_what_is_out_of_bounds_is_refused_before_anything_is_hashed() -> None:
    proof = TREE.inclusion_proof(5, 8)
    for index, size in ((5, 2**63), (2**63, 2**64), (-1, 8), (5, -8)):
        with pytest.raises(EvidenceError, match=r"\[T1\]"):
            verify_inclusion(HASHES[5], index, size, proof, ROOTS[8])
        with pytest.raises(EvidenceError, match=r"\[T1\]"):
            verify_consistency(index, ROOTS[5], size, ROOTS[8], proof)
    with pytest.raises(EvidenceError, match=r"65 hashes.*\[T1\]"):
        verify_inclusion(HASHES[5], 5, 2**62, [HASHES[0]] * 65, ROOTS[8])
    for short in ((HASHES[5][1:], ROOTS[8], proof), (HASHES[5], b"", proof), (HASHES[5], ROOTS[8], [b"short"])):
        with pytest.raises(EvidenceError, match=r"\[T1\]"):
            verify_inclusion(short[0], 5, 8, short[2], short[1])
        with pytest.raises(EvidenceError, match=r"\[T1\]"):
            verify_consistency(5, short[0], 8, short[1], short[2])


@pytest.mark.parametrize("index", [0, 2**62, 2**63 - 2])
def test_proofs_in_the_largest_trees_are_followed_to_their_end(index: int) -> None:
    # Built from the proof upwards: nobody has such a tree.
    sibling, reached, node, last = HASHES[0], HASHES[1], index, 2**63 - 2
    proof: list[bytes] = []
    while last:
        if node % 2 or node < last:
            proof.append(sibling)
            reached = node_hash(sibling, reached) if node % 2 else node_hash(reached, sibling)
        node, last = node // 2, last // 2
    verify_inclusion(HASHES[1], index, 2**63 - 1, proof, reached)
    with pytest.raises(EvidenceError, match=r"\[T4\]"):
        verify_inclusion(HASHES[1], index, 2**63 - 1, proof[1:], reached)


@given(SIZES, st.data())
def test_no_inclusion_proof_verifies_after_a_bit_was_flipped(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    whole = [HASHES[index], *TREE.inclusion_proof(index, size), ROOTS[size]]
    leaf, *proof, top = flipped(whole, data)
    with pytest.raises(EvidenceError):
        verify_inclusion(leaf, index, size, proof, top)


@given(SIZES, st.data())
def test_no_consistency_proof_verifies_after_a_bit_was_flipped(later: int, data: st.DataObject) -> None:
    earlier = data.draw(st.integers(1, later))
    whole = [ROOTS[earlier], *TREE.consistency_proof(earlier, later), ROOTS[later]]
    first, *proof, second = flipped(whole, data)
    with pytest.raises(EvidenceError):
        verify_consistency(earlier, first, later, second, proof)


def flipped(hashes: Sequence[bytes], data: st.DataObject) -> list[bytes]:
    at = data.draw(st.integers(0, len(hashes) - 1))
    bit = data.draw(st.integers(0, 255))
    changed = int.from_bytes(hashes[at], "big") ^ 1 << bit
    return [*hashes[:at], changed.to_bytes(32, "big"), *hashes[at + 1 :]]


NUMBERS = st.one_of(st.integers(-2, 140), st.integers(-(2**65), 2**65))
KNOWN = st.one_of(st.sampled_from([*HASHES[:8], *ROOTS[:9], mth(4, 6), mth(4, 8)]), st.binary(max_size=40))


@given(KNOWN, NUMBERS, NUMBERS, st.lists(KNOWN, max_size=70), KNOWN)
def test_no_input_crashes(item: bytes, low: int, high: int, proof: list[bytes], other: bytes) -> None:
    with suppress(EvidenceError):
        verify_inclusion(item, low, high, proof, other)
    with suppress(EvidenceError):
        verify_consistency(low, item, high, other, proof)


@given(KNOWN, st.integers(0, 9), st.integers(0, 8), st.lists(KNOWN, max_size=4))
def test_only_leaves_are_included(leaf: bytes, index: int, size: int, proof: list[bytes]) -> None:
    with suppress(EvidenceError):
        verify_inclusion(leaf, index, size, proof, ROOTS[size])
        assert leaf == HASHES[index]
        assert TREE.inclusion_proof(index, size) == tuple(proof)


@given(st.integers(0, 9), KNOWN, st.integers(0, 8), st.lists(KNOWN, max_size=4))
def test_only_beginnings_are_consistent(earlier: int, root1: bytes, later: int, proof: list[bytes]) -> None:
    with suppress(EvidenceError):
        verify_consistency(earlier, root1, later, ROOTS[later], proof)
        assert root1 == ROOTS[earlier]
        assert TREE.consistency_proof(earlier, later) == tuple(proof)
