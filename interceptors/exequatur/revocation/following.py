"""What is revoked, as a process knows it that follows a feed of others: from a folder, an authority or Temporal.

Whoever stands between may be hostile, so nothing is believed that is not signed, and silence is not taken for "nothing
was revoked". Rules, numbered as the code marks them:

RV1  The head is signed by an anchor for revocations (rules V and T).
RV2  It is of this trust domain and cluster.
RV3  Its version is never below one that was known before, in this process or before a restart.
RV4  What is known and the entries that came lead to the head: none is missing, changed, added or out of order.
RV5  What is known is as old as the newest head, by this clock and by the time since it came, whichever is longer.
     Beyond the bound it counts no more. A head from the future is refused.
RV6  A head that is signed with a key which the feed revokes is refused, also one that lifts just that.
RV7  A version is remembered on disk when it is believed; one that cannot be is a problem.

A feed that cannot be reached counts until RV5 ends it. One that broke another rule is a problem at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exequatur.errors import (
    ConfigurationError,
    ExequaturError,
    FeedUnreachableError,
    RevocationFeedError,
    StatementError,
    UnknownKeyError,
)
from exequatur.revocation.entry import Revocation
from exequatur.revocation.feed import Page, page_of
from exequatur.revocation.head import HEAD, HeadFile, check_contains
from exequatur.revocation.revocations import Revocations
from exequatur.revocation.store import FolderStore, regular_content
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import TrustStore

logger = logging.getLogger("exequatur")

_ASK_AGAIN = 0.5
"""Seconds between two questions that were not answered, or that a process without a worker asks."""
_UNTENDED = 3.0
"""Seconds after which the thread that follows ends, when no worker has asked for it."""


class Source(Protocol):
    """Where a feed is followed. What it gives is believed by nobody yet."""

    slow: bool
    """Whether it is reached over a network."""

    def fetch(self, after: int, wait: float) -> Page:
        """All entries after a version, with the head that they lead to. May block, and may be called from any thread.

        Args:
            after: The version that is known already.
            wait: Seconds to wait for something new.

        Raises:
            FeedUnreachableError: There is no answer.
            RevocationFeedError: What came is no feed.
        """
        ...


@dataclass(frozen=True)
class Terms:
    """On which terms a head is believed.

    Args:
        trust: The anchors.
        aud: Trust domain and cluster.
        bound: How old the newest head may be, in seconds.
        leeway: How far two clocks may be apart, in seconds.
    """

    trust: TrustStore
    aud: str
    bound: float
    leeway: float


class FollowedRevocations(Revocations):
    """A feed that is kept elsewhere.

    Args:
        source: Where it is followed.
        terms: On which it is believed.
        known: The newest head that was believed, on disk.
        on_change: Called when there are new revocations, from whichever thread saw them.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        source: Source,
        terms: Terms,
        known: HeadFile,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(on_change, clock, terms.bound)
        self.source = source
        self.slow = source.slow
        self._terms = terms
        self._known = known
        self._kept: Token[RevocationHead] | None = None
        """What ``known`` has on disk."""
        self._head: Token[RevocationHead] | None = None
        self._came = 0.0
        self._asked = -_ASK_AGAIN
        self._silence = "nobody has asked for it yet"
        """Why there is nothing newer."""
        self._fetching = threading.Lock()
        self._taking = threading.Lock()
        self._thread: threading.Thread | None = None
        self._tended = 0.0
        self.problem = None
        if not source.slow:
            self.refresh()

    def age(self) -> float:
        head = self._head
        if head is None:
            return float("inf")
        by_clock = self.clock() - head.claims.iat - self._terms.leeway
        return max(0.0, by_clock, time.monotonic() - self._came)  # RV5

    def doubt(self) -> str | None:
        if self.problem is None and self.lapsed:
            heard = "was never heard of" if self._head is None else f"has said nothing new for {self.age():.0f} s"
            return f"{self.source} {heard}{self._silence and ': ' + self._silence}"
        return self.problem

    def refresh(self) -> None:
        if self._thread is not None and self._thread.is_alive() and not self.lapsed:
            return  # it hears of what is new as soon as anybody
        with self._fetching:
            if time.monotonic() - self._asked < (_ASK_AGAIN if self.slow else 0.0):
                return
            self._ask(0.0)

    async def look(self) -> None:
        await asyncio.to_thread(self.refresh)  # a folder may be on a share that does not answer

    def tend(self) -> None:
        self._tended = time.monotonic()
        if not self.slow:
            self.refresh()
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._follow, name="exequatur-revocation-feed", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        """Ask again and again, as long as somebody tends this."""
        while time.monotonic() - self._tended < _UNTENDED:
            with self._fetching:
                answered = self._ask(0.0 if self.lapsed else self.bound / 3)
            if not answered or self.lapsed:
                time.sleep(_ASK_AGAIN)

    def _ask(self, wait: float) -> bool:
        """Whether there was an answer that is believed. Never raises."""
        try:
            self._take(self.source.fetch(self.version, wait))
        except (FeedUnreachableError, UnknownKeyError) as err:  # an anchor may yet be learned
            self._silence = str(err)
            return False
        except (ExequaturError, ValueError) as err:
            self._refuse(str(err))
            return False
        except Exception:  # a source that fails in its own way must not end the thread
            logger.exception("Following the revocation feed failed; it is tried again")
            self._refuse(f"{self.source} could not be followed")
            return False
        finally:
            self._asked = time.monotonic()
        self.problem, self._silence = None, ""
        return True

    def _refuse(self, why: str) -> None:
        if self.problem != why:
            logger.error("The revocation feed is not believed: %s", why)
        self.problem = why

    def _take(self, page: Page) -> None:
        """Believe a head and the entries that lead to it.

        Raises:
            StatementError: RV1.
            RevocationFeedError: RV2 to RV7.
        """
        with self._taking:
            before = self.version
            try:
                self._believe(page)
            finally:
                if self.version > before:
                    self._on_change()

    def _believe(self, page: Page) -> None:
        terms, now, before = self._terms, self.clock(), self.feed
        token = parse(page.head, RevocationHead)
        terms.trust.verify(token)  # [RV1]
        claims = token.claims
        if claims.aud != terms.aud:  # [RV2]
            raise RevocationFeedError(f"{self.source} is the feed of {claims.aud}, and this is {terms.aud}")
        if claims.iat > now + terms.leeway:  # [RV5]
            raise RevocationFeedError(
                f"{self.source} was signed {claims.iat - now:.0f} s in the future; set the clocks of both machines"
            )
        if claims.version < before.version:  # [RV3]
            raise RevocationFeedError(
                f"{self.source} has {claims.version} entries and had {before.version}: it was rolled back"
            )
        feed = before.extended(page.entries)
        if (feed.version, feed.link) != (claims.version, claims.head):  # [RV4]
            raise RevocationFeedError(f"The entries of {self.source} do not lead to its signed head")
        for each in (before, feed):
            if each.revokes_key(token.kid, now):  # [RV6]
                raise RevocationFeedError(f"{self.source} is signed with key {token.kid}, which it revokes")
        if self._kept is None:
            self._kept = self._known.read()
            if self._kept is not None:
                check_contains(feed, self._kept, self.source)  # [RV3]
        # From here on it counts, whether or not it can be remembered.
        self.feed = feed
        if self._head is None or claims.iat > self._head.claims.iat:
            self._head, self._came = token, time.monotonic()
        self._remember(token)

    def _remember(self, token: Token[RevocationHead]) -> None:
        if self._kept is None or self._kept.claims.version < token.claims.version:
            self._known.write(token)  # [RV7]
            self._kept = token

    def page(self, after: int) -> Page:
        """The entries after a version with the newest head, for those who pass the feed on.

        Raises:
            RevocationFeedError: It is not known what is revoked.
        """
        with self._taking:
            head, feed, doubt = self._head, self.feed, self.doubt()
        if head is None or doubt:
            raise RevocationFeedError(doubt or "no head is known")
        entries, more = page_of(feed, after)
        return Page(head.text, entries, more)

    def add(self, entry: Revocation) -> int:
        raise ConfigurationError(
            f"Nothing was revoked: this process follows {self.source}. Revoke where that is kept: exequatur revoke "
            "--state DIR, or --authority URL"
        )


class FolderSource:
    """Follows a folder that those who hold the keys write.

    Args:
        folder: With ``revocations`` and ``revocations.head``.
    """

    slow = False

    def __init__(self, folder: Path) -> None:
        self._store = FolderStore(folder)
        self._head = folder / HEAD

    def fetch(self, after: int, wait: float) -> Page:
        try:
            # The head first: what is added in between is left out below.
            data = regular_content(self._head, RevocationHead.max_bytes + 1)
            if data is None:
                raise FeedUnreachableError(f"{self._head} is not there; run a worker or `exequatur control` on it")
            head = data.decode("ascii").removesuffix("\n")
            version = parse(head, RevocationHead).claims.version
        except OSError as err:
            raise FeedUnreachableError(f"{self._head} cannot be read: {err.strerror or err}") from err
        except (UnicodeDecodeError, StatementError) as err:
            raise RevocationFeedError(f"{self._head} is no head of a feed: {err}") from err
        return Page(head, self._store.all_entries()[after:version])

    def __str__(self) -> str:
        return str(self._store)
