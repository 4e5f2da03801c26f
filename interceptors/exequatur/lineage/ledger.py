"""The ledger: what hosts share of what a grant served and of what principals did, in one database and one order.

Rules, numbered as the code marks them:

L1  The first holder of a name keeps it, whichever host asks, and whoever asks at the same time.
L2  Events stand in one order without a gap. Whoever adds one holds the end of the ledger until it is stored, so the
     numbers that it is told are those of all events before it, and of no other.
L3  What cannot be stored is not in the ledger, and whoever asked is told so.
L4  Neither a name nor who holds it is stored, only their digests.
L5  What it held it holds for good: one that is smaller than it was is refused, and so is another one in its place.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Engine, delete, event, insert, select, update

from exequatur.errors import EvidenceError
from exequatur.lineage.event import Counted, Event, Numbers
from exequatur.lineage.ledger_schema import LAYOUT, Sums, before_of, events, head, numbers_of, pins, row_of
from exequatur.lineage.store_records import insert_into
from exequatur.lineage.store_schema import connect, name_of, stored_version, transaction
from exequatur.statements.encoding import compact_json

_PAGE = 1000
_SWEEP = 500
"""Pins with an end between two looks for those that have ended."""


class Ledger:
    """A ledger; made by :meth:`open`, used from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ending = 0
        self._known = 0
        """Events that it had when this process looked last."""
        with transaction(engine, writes=True) as db:
            # There is one row. Two who begin a ledger at the same time both try, and the second finds the first's.
            if engine.dialect.name == "postgresql":
                db.exec_driver_sql("LOCK TABLE ledger_head IN EXCLUSIVE MODE")
            found = db.execute(select(head.c.id)).scalar_one_or_none()
            if found is None:
                found = secrets.token_hex(8)
                db.execute(insert(head).values(id=found, size=0))
        self.id: str = found

    @classmethod
    def open(cls, where: str | Path, *, create: bool = True) -> Self:
        """Open a ledger, and make its tables or bring them up to date.

        Args:
            where: As for :meth:`exequatur.lineage.store.EvidenceStore.open`. A SQLite file is the ledger's own; in
                PostgreSQL it may share the database of the evidence store.
            create: Whether a ledger that does not exist is made; a SQLite file is readable by its owner only.

        Raises:
            ConfigurationError: ``where`` is not the URL of a database that can be used.
            EvidenceError: It is another kind of database, a ledger of a later version, or there is none.
            StoreUnavailableError: It cannot be reached or written.
        """
        if not create:
            name, version = stored_version(where, LAYOUT)
            if not version:
                raise EvidenceError(f"{name}: there is no ledger; policies that read context.behavior make one")
        engine = connect(where, create=create, layout=LAYOUT)
        if engine.dialect.name == "postgresql":
            event.listen(engine, "connect", _impatient)
            engine.dispose()  # what connected before knows nothing of it
        try:
            return cls(engine)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return name_of(self._engine)

    def pin(self, name: str, holder: str, *, until: float | None = None) -> bool:
        """Remember who holds a name, for good or until a time.

        Args:
            name: What may be held once, for example the ``jti`` of a token.
            holder: Who asks.
            until: Seconds since 1970 after which it need not be remembered, because nothing of that name is valid.

        Returns:
            Whether it is held by this holder, now or before.

        Raises:
            StoreUnavailableError: It could not be remembered, and is not.
            ValueError: Text is not representable in UTF-8.
        """
        if until is not None:
            self._ending += 1
            if self._ending % _SWEEP == 0:
                self.forget(time.time())
        return self.pins([(name, holder)], until=until)[0]

    def pins(self, batch: Sequence[tuple[str, str]], *, until: float | None = None) -> list[bool]:
        """As :meth:`pin`, for several names in one transaction."""
        asked = [(_digest(name), _digest(holder)) for name, holder in batch]  # [L4]
        answers = [False] * len(asked)
        with transaction(self._engine, writes=True) as db:
            # In the order of the names: two who hold one each must not wait for each other.
            for place in sorted(range(len(asked)), key=lambda place: asked[place]):
                name, holder = asked[place]
                row = {"name": name, "holder": holder, "until": until}
                db.execute(insert_into(db, pins).values(row).on_conflict_do_nothing())  # [L1]
                held = db.execute(select(pins.c.holder).where(pins.c.name == name)).scalar_one_or_none()
                answers[place] = held == holder
        return answers

    def forget(self, now: float) -> int:
        """Delete the pins whose time is over; tells how many.

        Args:
            now: Seconds since 1970.
        """
        with transaction(self._engine, writes=True) as db:
            return db.execute(delete(pins).where(pins.c.until < now)).rowcount

    def add(self, batch: Sequence[tuple[Event, bool]], *, log_id: str = "") -> list[tuple[Counted, Numbers | None]]:
        """Put events at the end, all or none.

        Args:
            batch: Events, each with whether its numbers are wanted. ``before`` of what is asked is filled in.
            log_id: The journal in which they will be found, too.

        Returns:
            Each in its place, and the numbers of what stood before it.

        Raises:
            EvidenceError: The ledger holds what nobody wrote into it.
            StoreUnavailableError: They could not be stored, and none of them is.
        """
        if not batch:
            return []
        done: list[tuple[Counted, Numbers | None]] = []
        with transaction(self._engine, writes=True) as db:
            size = db.execute(  # [L2]
                update(head).where(head.c.id == self.id).values(size=head.c.size + len(batch)).returning(head.c.size)
            ).scalar_one_or_none()
            if size is None:
                raise EvidenceError(f"{self}: another ledger took the place of {self.id}; restart the worker")
            if size - len(batch) < self._known:  # [L5]
                raise self.lost(self._known)
            sums = Sums(db)
            for position, (each, wanted) in enumerate(batch, start=size - len(batch)):
                found = each
                if each.kind == "asked" and each.attempt == 1:
                    found = each.model_copy(update={"before": self._activity(before_of(db, each.run))})
                numbers = None
                if wanted:
                    sums.write()
                    numbers = numbers_of(db, found)
                counted = Counted(ledger=self.id, position=position, event=found)
                db.execute(insert(events).values(row_of(position, log_id, found, _body(found))))
                sums.add(found)
                done.append((counted, numbers))
            sums.write()
        self._known = size
        return done  # [L3] only when the transaction is over

    def size(self) -> int:
        """How many events there are."""
        with transaction(self._engine, writes=False) as db:
            size: int = db.execute(select(head.c.size).where(head.c.id == self.id)).scalar_one()
        return size

    def lost(self, known: int) -> EvidenceError:
        """L5, in words.

        Args:
            known: Events that it had.
        """
        return EvidenceError(
            f"{self}: the ledger had {known} events and has fewer: a backup was restored, or it was edited; bring back "
            "the newest one, or begin another: remove the file, or drop the tables ledger_*, and restart the workers"
        )

    def events(self, *, after: int = -1, log_id: str | None = None) -> Iterator[Counted]:
        """The events in their order.

        Args:
            after: Only those after this position.
            log_id: Only those of this journal.

        Raises:
            EvidenceError: One cannot be read.
            StoreUnavailableError: The ledger cannot be read.
        """
        mine = [] if log_id is None else [events.c.log_id == log_id]
        while True:
            wanted = select(events.c.position, events.c.body).where(events.c.position > after, *mine)
            with transaction(self._engine, writes=False) as db:
                rows = db.execute(wanted.order_by(events.c.position).limit(_PAGE)).all()
            if not rows:
                return
            yield from (Counted(ledger=self.id, position=row.position, event=self._read(row.body)) for row in rows)
            after = rows[-1].position

    def _read(self, body: Any) -> Event:
        try:
            return Event.model_validate_json(body)
        except ValidationError as err:
            raise EvidenceError(f"{self}: holds an event that cannot be read: it was edited") from err

    def _activity(self, body: bytes | None) -> str:
        return "" if body is None else self._read(body).activity


def _body(each: Event) -> bytes:
    return compact_json(each.model_dump(mode="json", exclude_defaults=True))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _impatient(db: Any, _: object) -> None:
    """A host that dies while it holds the end of the ledger must not hold up the others for long."""
    cursor = db.cursor()
    cursor.execute("SET lock_timeout = '10s'")
    cursor.execute("SET idle_in_transaction_session_timeout = '10s'")
    cursor.close()
    db.commit()
