"""Gives the feed to those who follow it: pages of entries with a head that is signed anew, again and again.

Rules, numbered as the code marks them:

RP1  A head is signed only over what is known to be the feed now: while it cannot be read, nothing is signed, and those
     who follow find out by the age of the last head.
RP2  Whoever asks after a later version than is known here has the feed read again, because another process that shares
     it may have been faster.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from exequatur.errors import RevocationFeedError
from exequatur.revocation.feed import Page, page_of
from exequatur.revocation.head import HeadFile
from exequatur.revocation.revocations import OwnRevocations
from exequatur.statements.jws import Token, sign
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.models import RevocationHead

SIGN_EVERY = 1.0
"""Seconds for which one signed head is given to all who ask."""
KEEP_EVERY = 3.0
"""Seconds between two heads on disk while nothing is added; a fifth of how old they may be by default."""
_LOOK_EVERY = 0.1


class Publisher:
    """Pages of a feed.

    Args:
        revocations: The feed, read where it is kept. Somebody refreshes it.
        signer: The key that signs heads now.
        iss: The authority's name.
        aud: Trust domain and cluster.
        file: Where the head is kept on disk.
    """

    def __init__(
        self, revocations: OwnRevocations, signer: Callable[[], Signer], *, iss: str, aud: str, file: HeadFile
    ) -> None:
        self.revocations = revocations
        self._signer = signer
        self._iss = iss
        self._aud = aud
        self._signing = threading.Lock()
        self._head: Token[RevocationHead] | None = None
        self._file = file

    @property
    def far(self) -> bool:
        """Whether the key is elsewhere, so that a signature may take its time."""
        return not isinstance(self._signer(), SigningKey)

    def head(self) -> Token[RevocationHead]:
        """The signed head of the feed as it is now.

        Raises:
            RevocationFeedError: RP1.
        """
        revocations = self.revocations
        if revocations.problem or revocations.age() > revocations.bound:  # [RP1]
            raise RevocationFeedError(revocations.problem or "The revocation feed was not read in time")
        with self._signing:
            feed, now, held = revocations.feed, revocations.clock(), self._head
            if (
                held is None
                or held.claims.head != feed.link
                or not 0 <= now - held.claims.iat < SIGN_EVERY
                or held.kid != self._signer().kid
            ):
                claims = RevocationHead(
                    iss=self._iss, aud=self._aud, iat=round(now, 3), version=feed.version, head=feed.link
                )
                held = self._head = sign(claims, self._signer())
            return held

    def keep(self) -> None:
        """Have a head on disk that is of this version, and not old.

        Raises:
            RevocationFeedError: RP1, or it cannot be written.
        """
        held = self._file.read()
        if (
            held is None
            or held.claims.head != self.revocations.feed.link
            or held.claims.aud != self._aud
            or not 0 <= self.revocations.clock() - held.claims.iat < KEEP_EVERY
        ):
            self._file.write(self.head())

    def page(self, after: int) -> Page:
        """The entries after a version, as many as fit.

        Args:
            after: The version that is known already, 0 for none.

        Raises:
            RevocationFeedError: RP1.
        """
        if after > self.revocations.version:  # [RP2]
            self.revocations.refresh()
        feed = self.revocations.feed
        head = self.head()
        while head.claims.version != feed.version:  # it grew in between
            feed = self.revocations.feed
            head = self.head()
        entries, more = page_of(feed, after)
        return Page(head.text, entries, more)

    async def next_page(self, after: int, wait: float, *, ended: Callable[[], bool] = lambda: False) -> Page:
        """As :meth:`page`, once there is something new or the time is over.

        Args:
            after: The version that is known already.
            wait: Seconds.
            ended: Whether to answer at once, because the service is about to stop.

        Raises:
            RevocationFeedError: RP1.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while self.revocations.version == after and loop.time() < until and not ended():  # noqa: ASYNC110 (threads)
            await asyncio.sleep(min(_LOOK_EVERY, max(0.0, until - loop.time())))
        return await asyncio.to_thread(self.page, after)
