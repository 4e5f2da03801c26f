"""The evidence store: the journals of all workers, and the checkpoints of all logs, in one database.

Rules, numbered as the code marks them; Z8 to Z10 are those of :mod:`exequatur.lineage.link`:

Z11  What is stored was recomputed first: each record follows from the head that is stored beside it (Z8 to Z10).
Z12  One place in a log has one record, and one head one record that follows it. Another one for the place or after the
     head, or one that does not fit those beside it, is a fork: the whole call is refused and stores nothing. What is
     there already and equal is left alone.
Z13  The end of a log is where its records, without a gap from the first, arrive. Only records that go on from there
     move it; what an import brings from further on is kept, and counts when the gap is closed.
Z14  Whoever adds to a log holds that log's lock until it is done, so that two writers cannot both find a place free.
Z15  A record that was pruned does not come back when its journal is shipped again.
Z16  Checkpoints are never deleted. Two of one origin and size that differ are both kept: they are the proof of a split
     view.

Nobody vouches for a record here: it is found by what it says (:mod:`exequatur.lineage.subject`), and a document that is
imported can take a place in a log before its owner does. Receipts and checkpoints say which records are the true ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    func,
    or_,
    select,
    tuple_,
    update,
)

from exequatur.errors import EvidenceError
from exequatur.lineage import document
from exequatur.lineage import note as notes
from exequatur.lineage.checkpoint import Checkpoint
from exequatur.lineage.link import Link, check_link, genesis_of, linked
from exequatur.lineage.record import Record
from exequatur.lineage.store_records import (
    BUNDLES,
    PAGE,
    Log,
    fitting,
    insert_into,
    link_of,
    locked,
    merge,
    page_of,
    prune,
)
from exequatur.lineage.store_schema import checkpoints, connect, logs, name_of, records, transaction
from exequatur.lineage.subject import subject_of
from exequatur.statements.encoding import digest


@dataclass(frozen=True, slots=True)
class Run:
    """A run that the evidence tells of.

    Args:
        workflow_id: As a record names it; ``None`` if no record about the run does.
        run_id: Run id.
    """

    workflow_id: str | None
    run_id: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Args:
        records: How many were new.
        checkpoints: How many were new, or got further signatures.
        trust: The JWKS that the document brought. It is not stored and nothing believes it: it is for the reader to
            compare with keys that came another way.
        proofs: What the document brought as such.
    """

    records: int
    checkpoints: int
    trust: Mapping[str, Any] | None
    proofs: Any


class EvidenceStore:
    """A store of evidence; made by :meth:`open`, used from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, where: str | Path, *, create: bool = True) -> Self:
        """Open a store, and make its tables or bring them up to date.

        Args:
            where: A path or ``sqlite:///PATH`` for a SQLite file, ``postgresql://USER:PASSWORD@HOST/DATABASE``, with
                ``?sslmode=verify-full&sslrootcert=FILE`` for TLS, or ``sqlite://`` for a store in memory.
            create: Whether a SQLite file that does not exist is made, readable by its owner only.

        Raises:
            ConfigurationError: ``where`` is not the URL of a store.
            EvidenceError: It is another kind of database, or a store of a later version.
            StoreUnavailableError: It cannot be reached or written.
        """
        return cls(connect(where, create=create))

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return name_of(self._engine)

    def append(self, log_id: str, batch: Sequence[Record], after: str) -> int:
        """Add records to a log, where it ends or where they are already.

        Args:
            log_id: The log.
            batch: Records without a gap between them.
            after: The head before the first of them.

        Returns:
            How many were new.

        Raises:
            EvidenceError: They do not follow from each other, begin behind the end of the log, or the log forked (Z11,
                Z12); nothing is stored.
            StoreUnavailableError: They could not be stored, and none of them is.
        """
        links = linked(batch, after)  # [Z11]
        if not links:
            return 0
        if links[0].record.log_id != log_id:
            raise EvidenceError(f"records of log {links[0].record.log_id} were given for log {log_id}")
        with self._writing() as db:
            log = locked(db, log_id)  # [Z14]
            if links[0].record.index > log.size:  # [Z13]
                raise EvidenceError(
                    f"log {log_id}: it ends at {log.size}, and records from {links[0].record.index} were given; ship "
                    "those between first"
                )
            return merge(db, links, restore=False)

    def log(self, log_id: str) -> Log:
        """How far a log is known; one that nobody has shipped has the size 0.

        Raises:
            EvidenceError: ``log_id`` is not that of a log.
            StoreUnavailableError: The store cannot be read.
        """
        first = genesis_of(log_id)
        with self._reading() as db:
            row = db.execute(select(logs).where(logs.c.log_id == log_id)).one_or_none()
        return Log(*row) if row else Log(log_id, 0, first)

    def logs(self) -> Iterator[Log]:
        """All logs, by their id.

        Raises:
            StoreUnavailableError: The store cannot be read.
        """
        last = ""
        while True:
            with self._reading() as db:
                rows = db.execute(select(logs).where(logs.c.log_id > last).order_by(logs.c.log_id).limit(PAGE)).all()
            if not rows:
                return
            yield from (Log(*row) for row in rows)
            last = rows[-1].log_id

    def records(self, log_id: str) -> Iterator[Link]:
        """All records of a log that are kept, in order; there may be gaps.

        Raises:
            EvidenceError: A value is of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        return self._links(records.c.log_id == log_id)

    def part(self, log_id: str, first: int, count: int) -> list[Record]:
        """Some records of a log that are kept, in order; the chain is not checked.

        Args:
            log_id: The log.
            first: Position of the first one, or of where it would be.
            count: The most records.

        Raises:
            EvidenceError: A value is of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        links = self._links(and_(records.c.log_id == log_id, records.c.idx >= first))
        return [link.record for link in islice(links, count)]

    def of_run(self, workflow_id: str, run_ids: Iterable[str]) -> Iterator[Link]:
        """The records about runs of a workflow, run by run, then log by log; last those that name no run.

        A record belongs to a run because it says so. One that contradicts the workflow id is left out, one that names
        only the run is not.

        Args:
            workflow_id: Workflow id.
            run_ids: Run ids.

        Raises:
            EvidenceError: A value is of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        mine = records.c.workflow_id == workflow_id
        for run_id in dict.fromkeys(run_ids):
            yield from self._links(and_(records.c.run_id == run_id, or_(mine, records.c.workflow_id.is_(None))))
        yield from self._links(and_(mine, records.c.run_id.is_(None)))

    def of_kind(self, kind: str) -> Iterator[Link]:
        """The records of a kind, log by log.

        Args:
            kind: For example ``revocation``, which is about no single run.

        Raises:
            EvidenceError: A value is of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        return self._links(records.c.kind == kind)

    def runs(self, workflow_id: str | None = None) -> Iterator[Run]:
        """The runs that records tell of, by run id.

        Args:
            workflow_id: Only those of this workflow.

        Raises:
            StoreUnavailableError: The store cannot be read.
        """
        mine = records.c.run_id.is_not(None) if workflow_id is None else records.c.workflow_id == workflow_id
        last = ""
        while True:
            ids = select(records.c.run_id).where(mine, records.c.run_id > last).distinct()
            ids = ids.order_by(records.c.run_id).limit(PAGE)
            pairs = select(records.c.run_id, records.c.workflow_id).where(records.c.run_id.in_(ids), mine).distinct()
            with self._reading() as db:
                rows = db.execute(pairs).all()
            if not rows:
                return
            named = sorted((run_id, name or "") for run_id, name in rows)
            for run_id, group in groupby(named, key=lambda pair: pair[0]):
                names = [name for _, name in group]
                yield from (Run(name or None, run_id) for name in names if name or len(names) == 1)
            last = named[-1][0]

    def bundle(self, address: str) -> bytes | None:
        """An archived policy bundle.

        Args:
            address: Its digest.

        Raises:
            EvidenceError: What is stored under the digest has another one.
            StoreUnavailableError: The store cannot be read.
        """
        with self._reading() as db:
            body = db.execute(select(records.c.body).where(records.c.address == address).limit(1)).scalar_one_or_none()
        if body is not None and (not isinstance(body, bytes) or digest(body) != address):
            raise EvidenceError(f"{self}: the policy bundle {address} was edited")
        return body

    def add_checkpoint(self, note: str, origin: str, size: int, root: bytes) -> bool:
        """Keep a checkpoint; if the same one is there, the signatures of both are kept.

        Args:
            note: The signed note. Its signatures are not verified.
            origin: The log's name, as the note has it.
            size: Its number of leaves, as the note has it.
            root: Its root, as the note has it: 32 bytes.

        Returns:
            Whether the store holds more than before.

        Raises:
            EvidenceError: The note is not a checkpoint, or one of something else; or it would have too many signatures.
            StoreUnavailableError: It could not be stored.
        """
        checkpoint = _checkpoint(note)
        if (checkpoint.origin, checkpoint.size, checkpoint.root) != (origin, size, root):
            raise EvidenceError(
                f"the checkpoint was given for {origin} at size {size}, but its note says another thing"
            )
        with self._writing() as db:
            return _add_checkpoint(db, note)

    def checkpoints(self, origin: str | None = None) -> Iterator[str]:
        """The signed notes of a log's checkpoints by size; nobody has verified them here.

        Args:
            origin: The log's name; without it those of all logs.

        Raises:
            EvidenceError: A value is of a wrong type.
            StoreUnavailableError: The store cannot be read.
        """
        table = checkpoints.c
        place = (table.origin_digest, table.size, table.address)
        wanted = select(*place, table.note).order_by(*place).limit(PAGE)
        if origin is not None:
            wanted = wanted.where(table.origin_digest == digest(origin))
        page = wanted
        while True:
            with self._reading() as db:
                rows = db.execute(page).all()
            if not rows:
                return
            yield from (row.note for row in rows)
            page = wanted.where(tuple_(*place) > tuple(rows[-1][:3]))

    def export(
        self,
        target: Path | IO[bytes],
        workflow_id: str | None = None,
        *,
        trust: Mapping[str, Any] | None = None,
        proofs: Any = None,
    ) -> int:
        """Write evidence as one JSON document, see :mod:`exequatur.lineage.document`.

        Args:
            target: A file, which is replaced when all is written, or an open binary stream.
            workflow_id: Only what is about the runs of this workflow, with the bundles that decided and the checkpoints
                of its runs.
            trust: A JWKS to put in.
            proofs: Proofs to put in, any JSON.

        Returns:
            The number of records.

        Raises:
            EvidenceError: A value is of a wrong type, or the file cannot be written.
            StoreUnavailableError: The store cannot be read.
            ValueError: ``trust`` or ``proofs`` is not JSON.
        """
        if workflow_id is None:
            links, signed = self._links(records.c.log_id.is_not(None)), self.checkpoints()
        else:
            links, signed = self._about(workflow_id), self._checkpoints_of(workflow_id)
        if not isinstance(target, Path):
            return document.write(target, links, signed, trust, proofs)
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
                try:
                    count = document.write(file, links, signed, trust, proofs)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(target)
                except BaseException:
                    Path(file.name).unlink()
                    raise
        except OSError as err:
            raise EvidenceError(f"{target}: {err.strerror}; name a file in a folder that this user can write") from err
        return count

    def import_(
        self,
        stream: IO[bytes],
        *,
        max_bytes: int = document.MAX_BYTES,
        max_records: int = document.MAX_RECORDS,
    ) -> Imported:
        """Add what a document holds; it may be a part of what is known here, or of a log.

        Args:
            stream: The document.
            max_bytes: A longer one is refused.
            max_records: One with more is refused.

        Raises:
            EvidenceError: The document is malformed or too large, a record does not follow from the head beside it, or
                a log forked (Z11, Z12); nothing is stored.
            StoreUnavailableError: It could not be stored, and nothing of it is.
        """
        read = document.read(stream, max_bytes=max_bytes, max_records=max_records)
        for link in read.links:
            check_link(link)  # [Z11]
        for note in read.checkpoints:
            _checkpoint(note)
        by_place = sorted(read.links, key=lambda link: (link.record.log_id, link.record.index))
        with self._writing() as db:
            added = merge(db, by_place, restore=True)
            changed = sum(_add_checkpoint(db, note) for note in sorted(read.checkpoints))
        return Imported(added, changed, read.trust, read.proofs)

    def merge(self, other: EvidenceStore) -> int:
        """Add all that another store holds, in one transaction.

        Args:
            other: Any other store; it is only read.

        Returns:
            How many records were new.

        Raises:
            EvidenceError: A record there does not follow from the head beside it, or a log forked (Z11, Z12); nothing
                is stored.
            StoreUnavailableError: One of them cannot be used, and nothing is stored.
        """
        with self._writing() as db:
            added = 0
            for log in other.logs():
                links = other.records(log.log_id)
                while page := list(islice(links, PAGE)):
                    for link in page:
                        check_link(link)  # [Z11]
                    added += merge(db, page, restore=True)
            for note in other.checkpoints():
                _add_checkpoint(db, note)
        return added

    def prune(self, before: float) -> int:
        """Delete the records that are older than a time.

        Every log keeps its end, and every record the head before it, so that what remains is as verifiable as before.
        Of a bundle that decided a record which remains the latest copy stays; and the last bundle of each log stays,
        because decisions to come may be made by it.

        Args:
            before: Seconds since 1970; compared with the time that the record's worker gave it.

        Returns:
            How many were deleted.

        Raises:
            StoreUnavailableError: Nothing is deleted.
        """
        with self._writing() as db:
            return prune(db, before)

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, writes=False)

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, writes=True)

    def _links(self, wanted: ColumnElement[bool]) -> Iterator[Link]:
        """Page by page, so that neither memory nor a transaction grows with what is read."""
        table = records.c
        place = (table.log_id, table.idx)
        condition = wanted
        while True:
            with self._reading() as db:
                sizes = db.execute(page_of(select(func.length(table.body)), condition)).scalars().all()
                rows = db.execute(page_of(select(records), condition, fitting(sizes))).all() if sizes else []
            if not rows:
                return
            yield from (link_of(row) for row in rows)
            condition = and_(wanted, tuple_(*place) > (rows[-1].log_id, rows[-1].idx))

    def _about(self, workflow_id: str) -> Iterator[Link]:
        bundles: set[str] = set()
        for link in self.of_run(workflow_id, (run.run_id for run in self.runs(workflow_id))):
            bundle = subject_of(link.record.kind, link.record.body).bundle
            if bundle is not None:
                bundles.add(bundle)
            yield link
        for address in sorted(bundles):
            for kind in BUNDLES:
                yield from islice(self._links(and_(records.c.address == address, records.c.kind == kind)), 1)
        # What was revoked is about no single run, and may have been about these.
        yield from self.of_kind("revocation")
        # So it is of what its workers were.
        yield from self.of_kind("integrity")

    def _checkpoints_of(self, workflow_id: str) -> Iterator[str]:
        mine = f"/workflows/{quote(workflow_id, safe='')}/runs/"
        return (note for note in self.checkpoints() if mine in _checkpoint(note).origin)


def _checkpoint(note: str) -> Checkpoint:
    return Checkpoint.parse(notes.parse(note).text)


def _add_checkpoint(db: Connection, note: str) -> bool:
    text, _, signatures = note.rpartition("\n\n")
    checkpoint, address = _checkpoint(note), digest(text)  # [Z16]
    row = {
        "address": address,
        "origin_digest": digest(checkpoint.origin),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root,
        "note": note,
    }
    if db.execute(insert_into(db, checkpoints).values(row).on_conflict_do_nothing()).rowcount:
        return True
    here = checkpoints.c.address == address
    known = db.execute(select(checkpoints.c.note).where(here).with_for_update()).scalar_one()
    lines = dict.fromkeys((*known.rpartition("\n\n")[2].splitlines(), *signatures.splitlines()))
    both = f"{text}\n\n" + "".join(f"{line}\n" for line in lines)
    if both == known:
        return False
    notes.parse(both)  # as many signatures as a note may have
    db.execute(update(checkpoints).where(here).values(note=both))
    return True
