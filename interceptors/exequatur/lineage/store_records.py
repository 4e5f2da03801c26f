"""Records in the evidence store's database: what goes in, what counts as a fork, and where a log ends.

The rules Z12 to Z15 at the head of :mod:`exequatur.lineage.store` are kept here. Every function works in the
transaction that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from exequatur.errors import EvidenceError
from exequatur.lineage.link import Link, genesis_of
from exequatur.lineage.record import Record
from exequatur.lineage.store_schema import logs, records
from exequatur.lineage.subject import subject_of
from exequatur.statements.encoding import digest

PAGE = 500  # records read or written at a time
_PAGE_BYTES = 8 * 1024 * 1024  # of bodies, unless one alone is larger
BUNDLES = ("bundle", "candidate")
"""Records that are an archived policy bundle: one that was in force, or one that was only compared with it."""


@dataclass(frozen=True, slots=True)
class Log:
    """How far a log is known without a gap.

    Args:
        log_id: Its id.
        size: Number of records, pruned ones included.
        head: After the last of them.
    """

    log_id: str
    size: int
    head: str


def page_of(columns: Select[Any], condition: ColumnElement[bool], count: int = PAGE) -> Select[Any]:
    return columns.where(condition).order_by(records.c.log_id, records.c.idx).limit(count)


def fitting(sizes: Sequence[int]) -> int:
    """How many of the next records are read at once: as many as fit, and at least one."""
    total = 0
    for count, size in enumerate(sizes):
        total += size
        if total > _PAGE_BYTES and count:
            return count
    return len(sizes)


def link_of(row: Row[Any]) -> Link:
    typed = (
        isinstance(row.at, float)
        and isinstance(row.attempt, int | None)
        and isinstance(row.body, bytes)
        and isinstance(row.previous, str)
        and isinstance(row.head, str)
    )
    if not typed:
        raise EvidenceError(f"log {row.log_id}: record {row.idx} holds a value of a wrong type: the store was edited")
    record = Record(row.log_id, row.idx, row.at, row.kind, row.request, row.run, row.attempt, row.body, row.head)
    return Link(record, row.previous)


def insert_into(db: Connection, table: Any) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if db.dialect.name == "postgresql" else sqlite.insert(table)


def locked(db: Connection, log_id: str) -> Log:
    """The log, which nobody else can add to until the transaction ends (Z14)."""
    first = {"log_id": log_id, "size": 0, "head": genesis_of(log_id)}
    db.execute(insert_into(db, logs).values(first).on_conflict_do_nothing())
    return Log(*db.execute(select(logs).where(logs.c.log_id == log_id).with_for_update()).one())


def merge(db: Connection, links: Iterable[Link], *, restore: bool) -> int:
    """Add what is not there.

    Args:
        db: A writing transaction.
        links: Ordered by log and position, each of them verified; there may be gaps.
        restore: Whether records that were pruned come back.

    Raises:
        EvidenceError: A log forked; the transaction is to be given up.
    """
    added = 0
    for log_id, group in groupby(links, key=lambda link: link.record.log_id):
        log = locked(db, log_id)  # [Z14]
        while page := list(islice(group, PAGE)):
            new = _new(db, log, page, restore=restore)
            if new:
                # Asked for an answer, SQLAlchemy puts many rows into one statement, which is one round trip.
                db.execute(insert(records).returning(records.c.idx), [_row(link) for link in new])
            end = _end(db, log)
            if end != log:
                db.execute(update(logs).where(logs.c.log_id == log_id).values(size=end.size, head=end.head))
            added, log = added + len(new), end
    return added


def _new(db: Connection, log: Log, links: Sequence[Link], *, restore: bool) -> list[Link]:
    """Those that are not there, after all were compared with what is."""
    table = records.c
    beside = table.idx.in_({link.record.index + offset for link in links for offset in (-1, 0, 1)})
    instead = table.previous.in_([link.previous for link in links])
    rows = db.execute(
        select(table.idx, table.previous, table.head).where(table.log_id == log.log_id, or_(beside, instead))
    )
    there: dict[int, tuple[str, str]] = {}
    place_after: dict[str, int] = {}
    for idx, previous, head in rows:
        there[idx], place_after[previous] = (previous, head), idx
    new: list[Link] = []
    for link in links:
        index, place = link.record.index, (link.previous, link.record.head)
        before, after = there.get(index - 1), there.get(index + 1)
        if (
            there.get(index, place) != place
            or place_after.get(link.previous, index) != index
            or (before is not None and before[1] != link.previous)
            or (after is not None and after[0] != link.record.head)
            or (index == log.size and link.previous != log.head)
            or (index == log.size - 1 and link.record.head != log.head)
        ):  # [Z12]
            raise EvidenceError(
                f"log forked: record {index} of log {log.log_id} is not the one that the store knows at this place; "
                "keep both for the audit"
            )
        if index not in there and (restore or index >= log.size):  # [Z15]
            new.append(link)
        there[index], place_after[link.previous] = place, index
    return new


def _end(db: Connection, log: Log) -> Log:
    """Where the records arrive that go on from the end of the log (Z13)."""
    while True:
        following = (
            select(records.c.idx, records.c.previous, records.c.head)
            .where(records.c.log_id == log.log_id, records.c.idx >= log.size)
            .order_by(records.c.idx)
            .limit(PAGE)
        )
        rows = db.execute(following).all()
        for idx, previous, head in rows:
            if (idx, previous) != (log.size, log.head):
                return log
            log = Log(log.log_id, idx + 1, head)
        if not rows:
            return log


def _row(link: Link) -> dict[str, Any]:
    record = link.record
    subject = subject_of(record.kind, record.body)
    return {
        "log_id": record.log_id,
        "idx": record.index,
        "at": record.at,
        "kind": record.kind,
        "request": record.request,
        "run": record.run,
        "attempt": record.attempt,
        "body": record.body,
        "previous": link.previous,
        "head": record.head,
        "workflow_id": subject.workflow_id,
        "run_id": subject.run_id,
        "bundle": subject.bundle,
        "address": digest(record.body) if record.kind in BUNDLES else None,
    }


def prune(db: Connection, before: float) -> int:
    """Delete what is older than a time, see :meth:`exequatur.lineage.store.EvidenceStore.prune`."""
    table = records.c
    copies = select(table.log_id, table.idx, table.address, table.at, table.kind).where(table.address.is_not(None))
    needed = set(db.scalars(select(table.bundle).where(table.at >= before, table.bundle.is_not(None)).distinct()))
    latest: dict[tuple[str, str], tuple[float, str, int]] = {}
    last: dict[tuple[str, str], tuple[str, int]] = {}
    for log_id, idx, address, at, kind in db.execute(copies.order_by(table.log_id, table.idx)):
        latest[address, kind] = max(latest.get((address, kind), (at, log_id, idx)), (at, log_id, idx))
        # A candidate that came later must not push out what is in force.
        last[log_id, kind] = (log_id, idx)
    kept = {place[1:] for (address, _), place in latest.items() if address in needed}.union(last.values())
    deleted = db.execute(delete(records).where(table.at < before, table.address.is_(None))).rowcount
    old = db.execute(select(table.log_id, table.idx).where(table.at < before, table.address.is_not(None))).all()
    for log_id, idx in old:
        if (log_id, idx) not in kept:
            deleted += db.execute(delete(records).where(table.log_id == log_id, table.idx == idx)).rowcount
    return deleted
