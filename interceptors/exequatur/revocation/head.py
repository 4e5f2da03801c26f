"""The signed head of a feed on disk: what a restart must not make anybody forget, and what followers of a folder read.

Rules, numbered as the code marks them:

RH1  A head is believed when an anchor for revocations has signed it (rules V and T).
RH2  A feed that has fewer entries than a head that was believed, or others, cannot be used.
RH3  A head on disk is never replaced by one of an earlier version.
RH4  A head that would not be believed, such as one that was signed under a wrong clock, is not written.
"""

from __future__ import annotations

from pathlib import Path

from exequatur.errors import RevocationFeedError, StatementError
from exequatur.files import locked, write_whole
from exequatur.revocation.feed import Feed
from exequatur.revocation.store import regular_content
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import TrustStore

HEAD = "revocations.head"
"""Beside the entries, in the folder of those who sign it."""
KNOWN = "revocations.known"
"""In the state folder of a worker that follows a feed elsewhere: the newest head that it believed."""


class HeadFile:
    """A head on disk.

    Args:
        path: The file; it need not exist yet.
        trust: Knows who may have signed it.
    """

    def __init__(self, path: Path, trust: TrustStore) -> None:
        self.path = path
        self._trust = trust

    def read(self) -> Token[RevocationHead] | None:
        """The head, or ``None`` where there is none.

        Raises:
            RevocationFeedError: It cannot be read, or RH1.
        """
        try:
            data = regular_content(self.path, RevocationHead.max_bytes + 1)
            if data is None:
                return None
            token = parse(data.decode("ascii").removesuffix("\n"), RevocationHead)
            self._trust.verify(token)  # [RH1]
        except (OSError, UnicodeDecodeError, StatementError) as err:
            raise RevocationFeedError(
                f"{self.path} cannot be believed: {err}. Put the right file back, or the right trust anchors"
            ) from err
        return token

    def write(self, head: Token[RevocationHead]) -> None:
        """Put a head on disk.

        Raises:
            RevocationFeedError: RH4, or it cannot be written.
        """
        try:
            self._trust.verify(head)  # [RH4]
        except StatementError as err:
            raise RevocationFeedError(
                f"{self.path}: the head of the feed was not written: {err}. Is the clock right?"
            ) from err
        try:
            with locked(self.path.parent):
                held = self.read()
                if held is None or held.claims.version <= head.claims.version:  # [RH3]
                    write_whole(self.path, head.text.encode() + b"\n")
        except OSError as err:
            raise RevocationFeedError(f"{self.path}: the head of the feed was not written: {err.strerror}") from err


def check_contains(feed: Feed, head: Token[RevocationHead], where: object) -> None:
    """Refuse a feed that is older than a head, or another than the head is of.

    Args:
        feed: All entries.
        head: Believed.
        where: What messages call the feed.

    Raises:
        RevocationFeedError: RH2.
    """
    claims = head.claims
    if claims.version > feed.version:  # [RH2]
        raise RevocationFeedError(
            f"{where} has {feed.version} entries and had {claims.version}: it was rolled back. Put all entries back"
        )
    if feed.links[claims.version] != claims.head:  # [RH2]
        raise RevocationFeedError(f"{where} has other entries than before: it was changed. Put the right ones back")
