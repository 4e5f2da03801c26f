"""Released policy bundles in the evidence store, so that all workers of a site can follow one place.

The store vouches for nothing: a worker verifies what it reads. Rows are only added, so a release that is not the newest
any more can still be read; a channel can be emptied, which is how a canary is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select

from exequatur.errors import EvidenceError
from exequatur.lineage.store_records import insert_into
from exequatur.lineage.store_schema import connect, name_of, releases, transaction


@dataclass(frozen=True, slots=True)
class Stored:
    """A release as it is stored; nobody has verified it."""

    sequence: int
    address: str
    file: bytes


class ReleaseStore:
    """The releases of one bundle in an evidence store.

    Args:
        engine: As :func:`~exequatur.lineage.store_schema.connect` gives it.
        name: Of the bundle.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    @classmethod
    def open(cls, where: str | Path, name: str, *, create: bool = False) -> Self:
        """Open a store.

        Args:
            where: As for :meth:`exequatur.lineage.store.EvidenceStore.open`.
            name: Of the bundle.
            create: Whether a SQLite file that does not exist is made.

        Raises:
            ConfigurationError: ``where`` is not the URL of a store.
            EvidenceError: It is another kind of database, or a store of a later version.
            StoreUnavailableError: It cannot be reached or written.
        """
        return cls(connect(where, create=create), name)

    def __str__(self) -> str:
        return name_of(self._engine)

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def newest(self, channel: str) -> tuple[int, str] | None:
        """Sequence and address of the newest release on a channel.

        Raises:
            StoreUnavailableError: The store cannot be read.
        """
        with transaction(self._engine, writes=False) as db:
            row = db.execute(
                select(releases.c.sequence, releases.c.address)
                .where(*self._on(channel))
                .order_by(releases.c.sequence.desc())
                .limit(1)
            ).one_or_none()
        return None if row is None else (row.sequence, row.address)

    def read(self, channel: str, *, max_bytes: int) -> Stored | None:
        """The newest release on a channel.

        Args:
            channel: The channel.
            max_bytes: A larger one is not read.

        Raises:
            EvidenceError: It is larger, or of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        with transaction(self._engine, writes=False) as db:
            return self._read(db, channel, max_bytes)

    def add(self, channel: str, release: Stored, check: Callable[[Stored | None], None], *, max_bytes: int) -> None:
        """Add a release to a channel.

        Args:
            channel: The channel.
            release: The release.
            check: Is given the newest one there, and raises when the release must not follow it.
            max_bytes: As for :meth:`read`.

        Raises:
            EvidenceError: As for :meth:`read`.
            StoreUnavailableError: It could not be stored.
        """
        with transaction(self._engine, writes=True) as db:
            check(self._read(db, channel, max_bytes))
            row = {"name": self._name, "channel": channel, "sequence": release.sequence}
            row |= {"address": release.address, "file": release.file}
            added = db.execute(insert_into(db, releases).values(row).on_conflict_do_nothing()).rowcount
            if not added:  # by somebody else, since it was checked
                check(self._read(db, channel, max_bytes))

    def clear(self, channel: str) -> bool:
        """Delete all releases on a channel; tells whether there were any.

        Raises:
            StoreUnavailableError: Nothing is deleted.
        """
        with transaction(self._engine, writes=True) as db:
            return db.execute(delete(releases).where(*self._on(channel))).rowcount > 0

    def _read(self, db: Connection, channel: str, max_bytes: int) -> Stored | None:
        newest = select(func.max(releases.c.sequence)).where(*self._on(channel)).scalar_subquery()
        here = (*self._on(channel), releases.c.sequence == newest)
        size = db.execute(select(func.length(releases.c.file)).where(*here)).scalar_one_or_none()
        if size is None:
            return None
        if size > max_bytes:
            raise EvidenceError(f"{self}: the {channel} release of {self._name} has {size} bytes; no bundle file has")
        row = db.execute(select(releases).where(*here)).one()
        if not isinstance(row.file, bytes):
            raise EvidenceError(f"{self}: the {channel} release of {self._name} is of a wrong type: it was edited")
        return Stored(row.sequence, row.address, row.file)

    def _on(self, channel: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return releases.c.name == self._name, releases.c.channel == channel
