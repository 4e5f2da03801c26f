"""The Merkle tree of RFC 9162: heads, inclusion proofs and consistency proofs, over SHA-256.

It is the tree of RFC 6962 as well, and of every transparency log that follows either. Pure: no clock, no I/O.

Rules, numbered as the code marks them:

T1  Sizes are below 2**63, hashes have 32 bytes, a proof has at most 64 of them. Checked before anything is hashed.
T2  A leaf is hashed behind 0x00 and a node behind 0x01, so that no node can be passed off as a leaf.
T3  An inclusion proof is of a leaf inside the tree. A consistency proof does not lead to a smaller tree, and begins at
    one with at least one leaf: every tree continues the empty one, so nothing would be proved.
T4  A proof has exactly the hashes that the position and the size demand: none is missing, none is left over.
T5  An inclusion proof leads from the leaf to the very root that was given.
T6  A consistency proof leads to both roots that were given. Of two trees of one size the roots are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from exequatur.errors import EvidenceError

HASH_BYTES = 32
MAX_SIZE = 2**63
"""The first size that is refused. What is smaller fits a signed 64-bit integer, in which other logs hold sizes."""
MAX_PROOF = 64
"""Hashes. A tree below ``MAX_SIZE`` has 63 levels below its root; a consistency proof can need one hash more."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves (RFC 9162, section 2.1.1)."""

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf (RFC 9162, section 2.1.1).

    Args:
        data: The leaf itself, of any length.
    """
    return hashlib.sha256(_LEAF + data).digest()  # [T2]


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two others (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(_NODE + left + right).digest()  # [T2]


class Tree:
    """A tree that grows, and proves what it holds now or held at any earlier size.

    All complete subtrees are kept, level by level: 64 bytes a leaf, and every proof is made of look-ups and the few
    hashes along the ragged right edge.

    Args:
        leaf_hashes: What :func:`leaf_hash` made of the leaves, in order.

    Raises:
        ValueError: A leaf hash has not 32 bytes.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaf_hashes:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> int:
        """Add a leaf.

        Args:
            leaf: The leaf's hash.

        Returns:
            Its index.

        Raises:
            ValueError: ``leaf`` has not 32 bytes, as if it were the leaf itself.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}; append leaf_hash(data)")
        levels = self._levels
        levels[0].append(leaf)
        height = 0
        # An even number of nodes on a level: the last two are the halves of a node that has just become complete.
        while len(levels[height]) % 2 == 0:
            if height + 1 == len(levels):
                levels.append([])
            levels[height + 1].append(node_hash(levels[height][-2], levels[height][-1]))
            height += 1
        return len(levels[0]) - 1

    def root(self, size: int | None = None) -> bytes:
        """The root over the first leaves (RFC 9162, section 2.1.1).

        Args:
            size: Number of leaves; all, if not given.

        Raises:
            ValueError: The tree has not that many leaves.
        """
        return self._root_of(0, self._size(size))

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Prove that a leaf is in the tree over the first leaves (RFC 9162, section 2.1.3.1).

        Args:
            index: Of the leaf, from 0.
            size: Number of leaves; all, if not given.

        Returns:
            Hashes, from the leaf upwards.

        Raises:
            ValueError: There is no such leaf or size.
        """
        start, end = 0, self._size(size)
        if not 0 <= index < end:
            raise ValueError(f"leaf {index} is not in a tree of {end}")
        path = []
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._root_of(middle, end))
                end = middle
            else:
                path.append(self._root_of(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, earlier: int, size: int | None = None) -> tuple[bytes, ...]:
        """Prove that an earlier tree is the beginning of a later one (RFC 9162, section 2.1.4.1).

        Args:
            earlier: Number of leaves of the earlier tree, at least 1.
            size: Number of leaves of the later tree; all, if not given.

        Returns:
            Hashes; none, if the sizes are equal.

        Raises:
            ValueError: There is no such size, or the earlier tree is empty or larger.
        """
        start, end = 0, self._size(size)
        if not 0 < earlier <= end:
            raise ValueError(f"a tree of {earlier} is not the beginning of one of {end} that can be proved")
        path = []
        while end != earlier:
            middle = start + _split(end - start)
            if earlier <= middle:
                path.append(self._root_of(middle, end))
                end = middle
            else:
                path.append(self._root_of(start, middle))
                start = middle
        # From the very left, what is left is the earlier root, which the verifier has.
        if start:
            path.append(self._root_of(start, end))
        return tuple(reversed(path))

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            raise ValueError(f"size {size} is not one of a tree that has {len(self)} leaves")
        return size

    def _root_of(self, start: int, end: int) -> bytes:
        """The root over leaves ``start`` to ``end``. The tree above begins a subtree of that length at ``start``."""
        if start == end:
            return EMPTY_ROOT
        root = b""
        while end > start:
            # The smallest complete subtree at the right edge: its size is the lowest bit that is set.
            height = ((end - start) & (start - end)).bit_length() - 1
            node = self._levels[height][(end >> height) - 1]
            root = node_hash(node, root) if root else node
            end -= 1 << height
        return root


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes (RFC 9162, section 2.1.1).

    Raises:
        ValueError: A leaf hash has not 32 bytes.
    """
    return Tree(leaf_hashes).root()


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that a leaf is in a tree (RFC 9162, section 2.1.3.2).

    Args:
        leaf: The leaf's hash, computed by the verifier.
        index: The leaf's index, from 0.
        size: Number of leaves of the tree.
        proof: Hashes, from the leaf upwards.
        root: The root, from a head that the verifier trusts.

    Raises:
        EvidenceError: T1, T3, T4 or T5.
    """
    _check_bounds(index, size, (leaf, root), proof)
    if index >= size:  # [T3]
        raise _refused("T3", f"leaf {index} cannot be in a tree of {size}")
    node, last, reached = index, size - 1, leaf
    for sibling in proof:
        if last == 0:  # [T4]
            raise _refused("T4", f"the inclusion proof of leaf {index} in a tree of {size} has hashes left over")
        if node & 1 or node == last:
            reached = node_hash(sibling, reached)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            reached = node_hash(reached, sibling)
        node, last = node >> 1, last >> 1
    if last:  # [T4]
        raise _refused("T4", f"the inclusion proof of leaf {index} in a tree of {size} ends before the root")
    if reached != root:  # [T5]
        raise _refused("T5", f"the inclusion proof of leaf {index} in a tree of {size} leads to another root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Verify that one tree is the beginning of another (RFC 9162, section 2.1.4.2).

    Args:
        size1: Number of leaves of the earlier tree.
        root1: Its root, from a head that the verifier trusts.
        size2: Number of leaves of the later tree.
        root2: Its root, from a head that the verifier trusts.
        proof: Hashes; none, if the sizes are equal.

    Raises:
        EvidenceError: T1, T3, T4 or T6.
    """
    _check_bounds(size1, size2, (root1, root2), proof)
    if not 0 < size1 <= size2:  # [T3]
        raise _refused("T3", f"a tree of {size1} is not the beginning of one of {size2} that can be proved")
    about = f"the consistency proof from size {size1} to {size2}"
    if size1 == size2:
        if proof:  # [T4]
            raise _refused("T4", f"{about} has hashes left over")
        if root1 != root2:  # [T6]
            raise _refused("T6", f"two trees of size {size1} have different roots: the log was forked or rewritten")
        return
    # An earlier tree that is complete is a node of the later one, so its root is left out of the proof.
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not proof:  # [T4]
        raise _refused("T4", f"{about} is empty")
    node, last = size1 - 1, size2 - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    earlier = later = path[0]
    for sibling in path[1:]:
        if last == 0:  # [T4]
            raise _refused("T4", f"{about} has hashes left over")
        if node & 1 or node == last:
            earlier, later = node_hash(sibling, earlier), node_hash(sibling, later)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            later = node_hash(later, sibling)
        node, last = node >> 1, last >> 1
    if last:  # [T4]
        raise _refused("T4", f"{about} ends before the root")
    if earlier != root1:  # [T6]
        raise _refused("T6", f"{about} does not lead to the earlier root: leaves were changed, dropped or reordered")
    if later != root2:  # [T6]
        raise _refused("T6", f"{about} does not lead to the later root")


def _check_bounds(low: int, high: int, hashes: tuple[bytes, bytes], proof: Sequence[bytes]) -> None:
    if not (0 <= low < MAX_SIZE and 0 <= high < MAX_SIZE):  # [T1]
        raise _refused("T1", "a position or size in a proof is negative or does not fit 63 bits")
    if len(proof) > MAX_PROOF:  # [T1]
        raise _refused("T1", f"a proof of {len(proof)} hashes is longer than {MAX_PROOF}")
    if any(len(item) != HASH_BYTES for item in (*hashes, *proof)):  # [T1]
        raise _refused("T1", f"a hash in a proof has not {HASH_BYTES} bytes")


def _split(size: int) -> int:
    """The largest power of two that is smaller than ``size`` (RFC 9162, section 2.1.1)."""
    return 1 << (size - 1).bit_length() - 1


def _refused(rule: str, reason: str) -> EvidenceError:
    return EvidenceError(f"{reason} [{rule}]")
