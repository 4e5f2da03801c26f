"""A revocation feed in a database that the processes of an authority share. Rules RS are those of
:mod:`exequatur.revocation.store`.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any, Self

from sqlalchemy import BigInteger, Column, Engine, Integer, LargeBinary, MetaData, String, Table, insert, select
from sqlalchemy.exc import IntegrityError

from exequatur.errors import ConfigurationError, RevocationFeedError, StoreUnavailableError
from exequatur.lineage.store_schema import Layout, connect, name_of, transaction
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.revocation.feed import Feed
from exequatur.revocation.store import RevocationStore

_metadata = MetaData()
entries = Table(
    "revocation_entries",
    _metadata,
    Column("version", BigInteger, primary_key=True),
    Column("link", String, nullable=False),
    Column("entry", LargeBinary, nullable=False),
)
LAYOUT = Layout(
    "a revocation feed",
    Table("revocation_version", _metadata, Column("version", Integer, primary_key=True)),
    (("CREATE TABLE revocation_entries (version BIGINT PRIMARY KEY, link TEXT NOT NULL, entry {bytes} NOT NULL)",),),
)
_TRIES = 20
"""How often an entry is added again when others were faster."""


class DatabaseStore:
    """A feed in SQL; made by :meth:`open`."""

    slow = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._newest = Feed()
        """What was read last, by whomever."""
        weakref.finalize(self, engine.dispose)  # who only revokes has no worker whose end would close it

    @classmethod
    def open(cls, where: str | Path, *, first: RevocationStore | None = None) -> Self:
        """Open a feed, and make its tables.

        Args:
            where: As for :meth:`exequatur.lineage.store.EvidenceStore.open`.
            first: A feed that was kept elsewhere before. It begins an empty one here.

        Raises:
            ConfigurationError: ``where`` cannot be used, or what is there lacks entries of ``first``.
            EvidenceError: It is another kind of database, or cannot be reached.
            RevocationFeedError: ``first`` cannot be read.
        """
        store = cls(connect(where, create=True, layout=LAYOUT))
        try:
            store._begin_with(first.read(Feed()) if first is not None else Feed())
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Let go of the connections. Others are made when it is used again."""
        self._engine.dispose()

    def _begin_with(self, before: Feed) -> None:
        if not before.version:
            return
        for _ in range(_TRIES):
            here = self.read(Feed())
            if here.version:
                if not here.continues(before):
                    raise ConfigurationError(
                        f"{self} lacks revocations that the state folder has; add them again with `exequatur revoke`, "
                        "then move the file `revocations` of the folder away"
                    )
                return
            if self._insert(Feed(), before.entries):
                return
        raise StoreUnavailableError(f"{self}: others keep adding revocations")

    def read(self, known: Feed) -> Feed:
        wanted = select(entries).where(entries.c.version >= known.version).order_by(entries.c.version)
        with transaction(self._engine, writes=False) as db:
            rows = db.execute(wanted).all()
        if known.version and (not rows or (rows[0].version, rows[0].link) != (known.version, known.link)):  # [RS2]
            raise RevocationFeedError(f"{self} cannot be used: entries have been changed or removed")
        self._newest = self._read(known, [row for row in rows if row.version > known.version])
        return self._newest

    def _read(self, known: Feed, rows: list[Any]) -> Feed:
        try:
            feed = known.extended(read_entry(row.entry) for row in rows)
        except (ValueError, TypeError) as err:
            raise RevocationFeedError(f"{self} cannot be used: {err}") from err
        told = [(row.version, row.link) for row in rows]
        if told != list(enumerate(feed.links[known.version + 1 :], known.version + 1)):  # [RS2]
            raise RevocationFeedError(f"{self} cannot be used: entries have been changed or removed")
        return feed

    def add(self, entry: Revocation) -> int:
        for _ in range(_TRIES):
            feed = self.read(self._newest)
            feed.admit(entry)
            if self._insert(feed, (entry,)):
                return feed.version + 1
        raise StoreUnavailableError(f"{self}: others keep adding revocations; nothing was revoked, try again")

    def _insert(self, feed: Feed, added: tuple[Revocation, ...]) -> bool:
        """Whether nobody else added in between."""
        after = feed.extended(added)
        rows = [
            {"version": version, "link": after.links[version], "entry": after.entries[version - 1].line}
            for version in range(feed.version + 1, after.version + 1)
        ]
        try:
            with transaction(self._engine, writes=True) as db:
                db.execute(insert(entries), rows)
        except StoreUnavailableError as err:
            if isinstance(err.__cause__, IntegrityError):
                return False
            raise
        return True

    def __str__(self) -> str:
        return name_of(self._engine)
