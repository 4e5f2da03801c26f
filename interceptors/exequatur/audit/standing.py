"""What a run stands on: the grant or delegation that it was started with, and what renewed it.

Rules, numbered as the code marks them (Z are those of :mod:`exequatur.statements.renewal` and
:mod:`exequatur.authority.renewal`):

J1  A renewed grant stands in the failure of an activity that had asked under the leaf which it renews (Z1 to Z5), and
    was issued when that leaf had ended (Z9).
J2  A run stands on what it was started with, or on what renewed it before it asked, and does not go back to an earlier
    one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from exequatur.audit.start import LEEWAY
from exequatur.errors import StatementError
from exequatur.statements.jws import Token
from exequatur.statements.models import Grant
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain


@dataclass(frozen=True)
class Leaf:
    """What the run may have stood on.

    Args:
        chain: Verified.
        before: Digest of the leaf that it renews; ``None`` for the one that the run was started with.
        event_id: Of the event that brought it.
    """

    chain: Chain
    before: str | None = None
    event_id: int = 0

    @property
    def tokens(self) -> list[str]:
        """Grant and delegations, as headers carry them."""
        return [self.chain.grant.text, *(each.text for each in self.chain.delegations)]


class Standing:
    """What one run stood on, in the order of its history.

    Args:
        chain: What it was started with, verified.
        trust: The anchors.
    """

    def __init__(self, chain: Chain, trust: TrustStore) -> None:
        self._trust = trust
        first = chain.leaf.digest
        self._leaves = {first: Leaf(chain)}
        self._moves = [(0, first)]
        """Event and leaf, each time that the run asked under another one."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """Digests of all that it may have stood on."""
        return tuple(self._leaves)

    @property
    def renewals(self) -> int:
        """How many renewed grants the run has asked under."""
        return len(self._moves) - 1

    def offered(self, text: str, under: str, event_id: int) -> Token[Grant]:
        """Take a renewed grant from a failure.

        Args:
            text: Compact token.
            under: Digest of the leaf that the failed activity was asked for under.
            event_id: Of the failure.

        Returns:
            The renewed grant.

        Raises:
            UnknownKeyError: The trust store does not know the key of the grant.
            StatementError: J1.
        """
        renewed = self._leaves.get(under)
        if renewed is None:
            raise StatementError("J1", "It renews a grant that the run did not stand on")
        root = renewed.chain.grant.claims
        if root.ver < 2 or root.mode != "enforce":
            raise StatementError("J1", "It renews a grant whose run cannot answer")
        chain = verify_renewal(text, renewed.chain, self._trust)  # [J1]
        if chain.grant.claims.iat + LEEWAY < renewed.chain.expires:  # [J1]
            raise StatementError("J1", "It was issued before the grant that it renews had ended")
        self._leaves.setdefault(chain.leaf.digest, Leaf(chain, under, event_id))
        return chain.grant

    def moved_to(self, leaf: str, event_id: int) -> Chain | None:
        """What the run stands on when it asks under a leaf; ``None`` where it cannot (J2).

        Args:
            leaf: Digest.
            event_id: Of the event that says so.
        """
        if not self.may(leaf, event_id):  # [J2]
            return None
        if leaf != self._moves[-1][1]:
            self._moves.append((event_id, leaf))
        return self._leaves[leaf].chain

    def may(self, leaf: str, event_id: int) -> bool:
        """Whether the run may stand on a leaf by an event (J2)."""
        known = self._leaves.get(leaf)
        if known is None or known.event_id > event_id:
            return False
        stood = self._moves[bisect_right(self._moves, event_id, key=lambda move: move[0]) - 1][1]
        return stood in self._down_from(leaf)

    def find(self, leaf: str) -> Leaf | None:
        """What the run may have stood on at some time, by its digest."""
        return self._leaves.get(leaf)

    def _down_from(self, leaf: str) -> Iterator[str]:
        at: str | None = leaf
        while at is not None:
            yield at
            at = self._leaves[at].before
