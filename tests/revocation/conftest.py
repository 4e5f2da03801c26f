"""An authority's feed, those who follow it with nothing but its public keys, and a clock that a test can turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exequatur.revocation.entry import Revocation, revocation
from exequatur.revocation.feed import Feed, Page
from exequatur.revocation.following import FolderSource, FollowedRevocations, Source, Terms
from exequatur.revocation.head import HEAD, KNOWN, HeadFile
from exequatur.revocation.publishing import Publisher
from exequatur.revocation.revocations import OwnRevocations
from exequatur.revocation.store import FolderStore
from exequatur.statements.jws import Token, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import Anchor, TrustStore
from tests.gate.conftest import executor, stage
from tests.lineage.conftest import postgres, url

__all__ = ["executor", "postgres", "stage", "url"]

ISS, AUD = "dev:authority", "exequatur.local/default"
BOUND, LEEWAY = 15.0, 30.0


class Clock:
    """Shows the time, and as much more or less as a test wants."""

    def __init__(self) -> None:
        self.off = 0.0

    def __call__(self) -> float:
        return time.time() + self.off


@dataclass
class Authority:
    """Keeps a feed in a folder, and signs it."""

    folder: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.trust = TrustStore()
        self.anchor(self.key)
        file = HeadFile(self.folder / HEAD, self.trust)
        self.own = OwnRevocations(FolderStore(self.folder), clock=self.clock, head=file)
        self.publisher = Publisher(self.own, lambda: self.key, iss=ISS, aud=AUD, file=file)
        self.own.publisher = self.publisher

    def anchor(self, key: SigningKey, typ: str = RevocationHead.typ) -> None:
        self.trust.add(Anchor(kid=key.kid, x=key.x, typ=(typ,), iss=ISS, nbf=0.0))

    def revoke(self, reason: str = "stop", **named: Any) -> int:
        version = self.own.add(revocation(reason=reason, **named))
        self.publisher.keep()
        return version

    def head(self, feed: Feed | None = None, key: SigningKey | None = None, **changes: Any) -> Token[RevocationHead]:
        """A head over the feed, signed by this authority unless told otherwise."""
        of = self.own.feed if feed is None else feed
        claims = RevocationHead(iss=ISS, aud=AUD, iat=self.clock(), version=of.version, head=of.link)
        return sign(claims.model_copy(update=changes), key or self.key)


class Script:
    """A source that gives what a test puts into it."""

    slow = False

    def __init__(self) -> None:
        self.next: Page | Exception | None = None

    def fetch(self, after: int, wait: float) -> Page:
        if isinstance(self.next, Exception):
            raise self.next
        assert self.next is not None
        return Page(self.next.head, self.next.entries[after:])

    def __str__(self) -> str:
        return "the feed"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "authority"
    folder.mkdir(mode=0o700)
    return Authority(folder)


@pytest.fixture
def follow(authority: Authority, tmp_path: Path) -> Callable[..., FollowedRevocations]:
    """Follows the authority's folder, or what is given, in a state folder of its own."""
    state = tmp_path / "worker"
    state.mkdir(mode=0o700)

    def started(source: Source | None = None, **changes: Any) -> FollowedRevocations:
        terms = Terms(authority.trust, changes.pop("aud", AUD), BOUND, LEEWAY)
        known = HeadFile(state / KNOWN, authority.trust)
        return FollowedRevocations(
            source or FolderSource(authority.folder), terms, known, clock=authority.clock, **changes
        )

    return started


def entries(*reasons: str) -> tuple[Revocation, ...]:
    return tuple(revocation(workflow=reason, reason=reason) for reason in reasons)
