"""What is revoked, as a process knows it. This module is for those who keep the feed themselves: an authority, or a
plugin that is its own; :mod:`exequatur.revocation.following` is for those who follow one.

A feed that is read where it is kept needs no signature to be believed. The signed head beside it is for others, and for
this process after a restart (RH2).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from exequatur.errors import ExequaturError, RevocationFeedError
from exequatur.revocation.entry import Revocation, Subject
from exequatur.revocation.feed import Feed
from exequatur.revocation.head import HeadFile, check_contains
from exequatur.revocation.store import RevocationStore

if TYPE_CHECKING:
    from exequatur.revocation.publishing import Publisher

logger = logging.getLogger("exequatur")

STALE_AFTER = 5.0
"""Seconds without a look at one's own feed after which it is not known what is revoked."""


class Revocations(ABC):
    """What is known of a feed, and how well.

    Args:
        on_change: Called when there are new revocations, from whichever thread saw them.
        clock: Seconds since 1970.
        bound: How old what is known may be, in seconds.
    """

    slow = False
    """Whether looking at the feed takes a network."""

    def __init__(self, on_change: Callable[[], None], clock: Callable[[], float], bound: float) -> None:
        self._on_change = on_change
        self.clock = clock
        self.bound = bound
        self.feed = Feed()
        self.problem: str | None = "it has not been read yet"
        """Why it cannot be told what is revoked."""
        self.publisher: Publisher | None = None
        """Signs heads for those who follow; without it nobody can."""

    @property
    def version(self) -> int:
        """How many entries are known."""
        return self.feed.version

    @property
    def entries(self) -> tuple[Revocation, ...]:
        """All entries, in the feed's order."""
        return self.feed.entries

    def find(self, subject: Subject) -> Revocation | None:
        """The first revocation that ends what the subject is doing."""
        return self.feed.find(subject, self.clock())

    @abstractmethod
    def age(self) -> float:
        """Seconds since it was last certain that nothing is missing."""

    @property
    def lapsed(self) -> bool:
        """Whether what is known is so old that nothing may go on by it."""
        return self.age() > self.bound

    def doubt(self) -> str | None:
        """Why nothing new may be allowed by what is known, or ``None``."""
        return self.problem or ("the feed was not read in time" if self.lapsed else None)

    @abstractmethod
    def refresh(self) -> None:
        """Read what has been added. Never raises: a feed that cannot be used is named in ``problem``."""

    async def look(self) -> None:
        """As :meth:`refresh`, without holding up the event loop."""
        if self.slow:
            await asyncio.to_thread(self.refresh)
        else:
            self.refresh()

    @abstractmethod
    def tend(self) -> None:
        """Called several times a second beside a worker. Never raises and waits for no network."""

    def close(self) -> None:  # noqa: B027 (most hold nothing open)
        """Let go of what is held open, when no worker runs any more; it may be used again all the same."""

    @abstractmethod
    def add(self, entry: Revocation) -> int:
        """Revoke, or lift a revocation.

        Returns:
            The feed's version with the entry in it, once it can no longer be lost.

        Raises:
            ConfigurationError: It lifts what cannot be lifted, or the feed is kept elsewhere.
            ExequaturError: It could not be written, and nothing was revoked unless the message says so.
        """


class OwnRevocations(Revocations):
    """A feed that is read where it is kept.

    Args:
        store: Where.
        on_change: Called when there are new revocations, from whichever thread saw them.
        clock: Seconds since 1970.
        head: The signed head on disk.
    """

    def __init__(
        self,
        store: RevocationStore,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
        *,
        head: HeadFile | None = None,
    ) -> None:
        super().__init__(on_change, clock, STALE_AFTER)
        self._store = store
        self._head = head
        self.slow = store.slow
        self._unkept = ""
        """Why the last head was not kept on disk; said once."""
        self._keeping: threading.Thread | None = None
        self._read_at = 0.0
        self._reading = threading.Lock()
        self.refresh()

    def age(self) -> float:
        return max(0.0, time.monotonic() - self._read_at)

    def refresh(self) -> None:
        # One at a time: a reader that was overtaken would put an older feed in the place of a newer one.
        with self._reading:
            changed = self._read()
        if changed:
            self._on_change()

    def tend(self) -> None:
        self.refresh()
        if self.publisher is not None and self.problem is None and not (self._keeping and self._keeping.is_alive()):
            self._keep(self.publisher, beside=True)

    def _keep(self, publisher: Publisher, *, beside: bool = False) -> None:
        """Have a current head on disk; with ``beside`` this waits for no key that is elsewhere."""
        try:
            if beside and publisher.far:
                self._keeping = threading.Thread(target=self._keep, args=(publisher,), daemon=True)
                self._keeping.start()
                return
            publisher.keep()
        except ExequaturError as err:
            if self._unkept != str(err):
                logger.warning("Those who follow the revocation feed are not told that it is current: %s", err)
            self._unkept = str(err)
        else:
            self._unkept = ""

    def close(self) -> None:
        self._store.close()

    def _read(self) -> bool:
        """Whether there are new revocations."""
        try:
            # The head first: entries that are added in between only make the feed longer than it says.
            head = None if self._head is None else self._head.read()
            feed = self._store.read(self.feed)
            if head is not None:
                check_contains(feed, head, self._store)
        except ExequaturError as err:
            self.problem = str(err)
            return False
        changed, self.feed = feed.version > self.feed.version, feed
        self.problem = None
        self._read_at = time.monotonic()
        return changed

    def add(self, entry: Revocation) -> int:
        self.refresh()
        if self.problem:  # what is added to a feed that lacks entries makes another feed of it
            raise RevocationFeedError(f"Nothing was revoked: {self.problem}")
        version = self._store.add(entry)
        self.refresh()
        if self.problem:
            raise RevocationFeedError(f"It was revoked (entry {version}), but: {self.problem}")
        return version
