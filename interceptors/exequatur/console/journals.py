"""The evidence about one run out of journals that grow: an index in memory, and the records where they are.

An audit that reads all journals of a busy place for each run would read the same again and again. Here each record is
looked at once, when it is new, and its position is remembered under what it is about; its body stays in the file.

Rules, numbered as the code marks them:

J1  Journals are only read. What they hold is judged by the audit, as if it had read the files itself: every record
    comes with whether it follows from the one before it (V1 of :mod:`exequatur.audit.evidence`).
J2  A bundle is the one that its digest names.
J3  Memory is bounded: a place beyond :data:`MOST` records is refused, and said to be too large for a console.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exequatur.audit.evidence import COUNTED, follows
from exequatur.audit.records import BUNDLES
from exequatur.errors import EvidenceError, JournalError
from exequatur.lineage.link import Link, genesis_of
from exequatur.lineage.record import Record, length, read_from
from exequatur.lineage.subject import subject_of
from exequatur.statements.encoding import digest

MOST = 5_000_000
"""Records of one place; each takes some 30 bytes here."""
_PAGE = 2_000
_PAGE_BYTES = 16 * 1024 * 1024
_EVERYWHERE = frozenset({"revocation", "integrity"})


class Journals:
    """The journals of some folders.

    Args:
        folders: State folders, folders of journals, or journal files.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._files: dict[Path, _File] = {}
        self._lock = threading.Lock()

    def reader(self) -> JournalEvidence:
        """What the journals hold by now.

        Raises:
            EvidenceError: One cannot be read.
        """
        with self._lock:
            for path in self._paths():
                file = self._files.get(path)
                try:
                    log_id, size = length(path)
                    if file is None or file.log_id != log_id or size < file.next:
                        file = self._files[path] = _File(path, log_id)
                    file.catch_up()
                except JournalError as error:
                    raise EvidenceError(str(error)) from None
            if sum(each.next for each in self._files.values()) > MOST:  # [J3]
                raise EvidenceError(
                    f"the journals hold more than {MOST:,} records; ship them to an evidence store, and name it with "
                    "--evidence"
                )
            return JournalEvidence([each for path, each in self._files.items() if path.exists()])

    def _paths(self) -> Iterator[Path]:
        for folder in self._folders:
            if folder.is_file():
                yield folder
                continue
            inner = folder / "journal"
            yield from sorted((inner if inner.is_dir() else folder).glob("*.db"))


class JournalEvidence:
    """What journals hold, as an audit reads it."""

    def __init__(self, files: Sequence[_File]) -> None:
        self._files = files

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        for link in self.links_of(workflow_id, run_ids):
            yield link.record, follows(link)  # J1

    def links_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[Link]:
        """The same records, each with the head before it."""
        for file in self._files:
            places = [place for run_id in sorted(run_ids) for place in file.by_run.get(run_id, ())]
            yield from file.links([*places, *file.by_workflow.get(workflow_id, ()), *file.everywhere])

    def told_of(self, workflow_id: str, run_id: str) -> tuple[tuple[str, int], ...]:
        """How much each journal tells of a run: another value when there is more of it, or another journal."""
        return tuple(
            (
                each.log_id,
                len(each.by_run.get(run_id, ()))
                + len(each.by_workflow.get(workflow_id, ()))
                + len(each.everywhere)
                + len(each.bundles),
            )
            for each in self._files
        )

    def counted(self) -> Iterator[tuple[Record, bool]]:
        for file in self._files:
            for link in file.links(file.counted):
                yield link.record, follows(link)

    def bundle(self, address: str) -> bytes | None:
        found = self.bundle_link(address)
        return found.record.body if found is not None and found.record.kind == "bundle" else None

    def bundle_link(self, address: str) -> Link | None:
        """The record of an archived bundle."""
        for file in self._files:
            if (place := file.bundles.get(address)) is not None:
                for link in file.links([place]):
                    if digest(link.record.body) == address:  # [J2]
                        return link
        return None

    def checkpoints(self, origin: str) -> Sequence[str]:
        return ()


class _File:
    """One journal file, and what stands where in it."""

    def __init__(self, path: Path, log_id: str) -> None:
        self._path = path
        self.log_id = log_id
        self.next = 0
        self.by_run: dict[str, array[int]] = {}
        self.by_workflow: dict[str, array[int]] = {}
        self.everywhere = array("Q")
        self.counted = array("Q")
        self.bundles: dict[str, int] = {}

    def catch_up(self) -> None:
        """Look at what is new."""
        while self.next <= MOST:
            _, records = read_from(self._path, self.next, _PAGE, _PAGE_BYTES)
            for record in records:
                self._take(record)
            if not records:
                return
            self.next = records[-1].index + 1

    def _take(self, record: Record) -> None:
        if record.kind in BUNDLES:
            # What was only a candidate decided nothing; it gives way to the same bundle in force.
            address = digest(record.body)
            if record.kind == "bundle":
                self.bundles[address] = record.index
            else:
                self.bundles.setdefault(address, record.index)
        elif record.kind in _EVERYWHERE:
            self.everywhere.append(record.index)
        elif record.kind in COUNTED:
            self.counted.append(record.index)
        elif (subject := subject_of(record.kind, record.body)).run_id:
            self.by_run.setdefault(subject.run_id, array("Q")).append(record.index)
        elif subject.workflow_id:
            self.by_workflow.setdefault(subject.workflow_id, array("Q")).append(record.index)

    def links(self, places: Iterable[int]) -> Iterator[Link]:
        """The records at these positions, in their order, read in stretches."""
        wanted = sorted(set(places))
        start = 0
        while start < len(wanted):
            stop = start + 1
            while stop < len(wanted) and wanted[stop] - wanted[start] < _PAGE and wanted[stop] - wanted[stop - 1] < 50:
                stop += 1
            yield from self._stretch(wanted[start:stop])
            start = stop

    def _stretch(self, wanted: Sequence[int]) -> Iterator[Link]:
        left = set(wanted)
        first, last = wanted[0], wanted[-1]
        at, before = max(first - 1, 0), None if first else genesis_of(self.log_id)
        while at <= last:
            log_id, records = read_from(self._path, at, last - at + 1, _PAGE_BYTES)
            if log_id != self.log_id or not records:
                return
            for record in records:
                if record.index in left:
                    # Without the record before it, what it follows from is not known, and it does not count.
                    yield Link(record, before if before is not None else "")
                before = record.head
            at = records[-1].index + 1
