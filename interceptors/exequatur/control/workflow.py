"""The control workflow: keeps the revocation feed in a namespace, where every worker can read it.

It is deterministic: heads are verified against the trust anchors that it began with, and time plays no part. Workers
verify everything again with their own anchors and clocks, so whoever can write here can withhold the feed, which they
notice by its age, but can change nothing in it.

Rules, numbered as the code marks them:

CW1  A head is signed by an anchor for revocations, and is of this trust domain and cluster.
CW2  The feed only grows, its entries lead to the head, and no head takes the place of a newer one.
CW3  All of it fits into the input of the next run.
"""

from __future__ import annotations

import json

from temporalio import workflow

from exequatur.control.state import ENTRIES, MAX_FEED_BYTES, MEMO, PUBLISH, WORKFLOW_TYPE, Kept, Published
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.revocation.feed import Feed, page_of
from exequatur.statements.jws import parse
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import TrustStore


@workflow.defn(name=WORKFLOW_TYPE)
class Control:
    """See the head of the module."""

    @workflow.init
    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._trust = TrustStore.from_jwks(kept.trust.encode())
        self._feed = Feed().extended(read_entry(line) for line in kept.entries)
        self._head = kept.head
        self._coming = self._feed
        """The feed with entries whose head has not been reached yet."""

    @workflow.run
    async def run(self, kept: Kept) -> None:
        """Keep the feed for as long as the namespace is there."""
        if self._head:
            workflow.upsert_memo({MEMO: self._head})
        await workflow.wait_condition(lambda: workflow.info().is_continue_as_new_suggested())
        await workflow.wait_condition(workflow.all_handlers_finished)
        entries = [entry.line.decode() for entry in self._feed.entries]
        workflow.continue_as_new(Kept(kept.trust, kept.aud, self._head, entries))

    @workflow.update(name=PUBLISH)
    async def publish(self, page: Published) -> int:
        """Take over entries and a head.

        Returns:
            The version that is known now; whoever publishes goes on from there.
        """
        self._coming = feed = self._checked(page)
        if not page.more:
            self._feed, self._head = feed, page.head
            workflow.upsert_memo({MEMO: page.head})
        return feed.version

    @publish.validator
    def _publishable(self, page: Published) -> None:
        """Refuse before anything is written into the history, and right before the page is taken."""
        self._checked(page)

    @workflow.query(name=ENTRIES)
    def entries(self, after: int) -> Published:
        """The entries after a version, as many as fit, and the newest head."""
        found, more = page_of(self._feed, max(0, after))
        return Published(self._head, after, [entry.line.decode() for entry in found], more)

    def _checked(self, page: Published) -> Feed:
        """The feed with the page's entries.

        Raises:
            StatementError: CW1.
            ValueError: CW2, CW3, or what came is no feed.
        """
        token = parse(page.head, RevocationHead)
        self._trust.verify(token)  # [CW1]
        if token.claims.aud != self._kept.aud:  # [CW1]
            raise ValueError(f"this is the feed of {self._kept.aud}, not of {token.claims.aud}")
        if self._head and token.claims.iat < parse(self._head, RevocationHead).claims.iat:  # [CW2]
            raise ValueError("a newer head is known")
        coming = self._coming if page.after == self._coming.version else self._feed
        if page.after != coming.version:  # [CW2]
            raise ValueError(f"the feed has {self._feed.version} entries, and these follow {page.after}")
        feed = coming.extended(read_entry(line) for line in page.entries)
        if sum(map(_carried, feed.entries)) > MAX_FEED_BYTES:  # [CW3]
            raise ValueError(f"the feed has more than {MAX_FEED_BYTES} bytes; follow a folder or an authority instead")
        if not page.more and (feed.version, feed.link) != (token.claims.version, token.claims.head):  # [CW2]
            raise ValueError("the entries do not lead to the signed head")
        return feed


def _carried(entry: Revocation) -> int:
    """Bytes of an entry in the next run's input, where Temporal's JSON has quotes and other scripts escaped."""
    return len(json.dumps(entry.line.decode())) + 1
