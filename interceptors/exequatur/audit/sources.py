"""Opens evidence wherever it is: journals, an evidence store, an exported document, or several of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from exequatur.audit.evidence import COUNTED, EvidenceReader, NoEvidence, RecordedEvidence, follows, journals_in
from exequatur.errors import EvidenceError
from exequatur.lineage.record import Record

if TYPE_CHECKING:
    from exequatur.lineage.store import EvidenceStore

SQLITE = b"SQLite format 3\x00"


class StoreEvidence:
    """The evidence in a store.

    Args:
        store: Open, and not closed here.
    """

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        for link in self._store.of_run(workflow_id, sorted(run_ids)):
            yield link.record, follows(link)
        for kind in ("revocation", "integrity"):
            yield from ((link.record, follows(link)) for link in self._store.of_kind(kind))

    def counted(self) -> Iterator[tuple[Record, bool]]:
        for kind in COUNTED:
            yield from ((link.record, follows(link)) for link in self._store.of_kind(kind))

    def bundle(self, address: str) -> bytes | None:
        return self._store.bundle(address)

    def checkpoints(self, origin: str) -> Sequence[str]:
        return list(self._store.checkpoints(origin))


class AllEvidence:
    """Several sources as one; what more than one of them has counts once."""

    def __init__(self, readers: Sequence[EvidenceReader]) -> None:
        self._readers = readers

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        seen: set[tuple[str, int, str]] = set()
        for reader in self._readers:
            for record, sound in reader.records_of(workflow_id, run_ids):
                place = (record.log_id, record.index, record.head)
                if place not in seen or not sound:
                    seen.add(place)
                    yield record, sound

    def counted(self) -> Iterator[tuple[Record, bool]]:
        for reader in self._readers:
            yield from reader.counted()

    def bundle(self, address: str) -> bytes | None:
        return next((found for reader in self._readers if (found := reader.bundle(address)) is not None), None)

    def checkpoints(self, origin: str) -> Sequence[str]:
        return list(dict.fromkeys(note for reader in self._readers for note in reader.checkpoints(origin)))


class OpenEvidence:
    """A context manager around what is opened.

    Args:
        sources: Each a journal file, a folder of journals, an evidence document, or the URL or file of a store.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self._stack = ExitStack()

    def __enter__(self) -> EvidenceReader:
        """Open everything.

        Raises:
            EvidenceError: One cannot be opened; it is named.
        """
        try:
            readers = [self._open(source) for source in self._sources]
        except BaseException:
            self._stack.close()
            raise
        return AllEvidence(readers) if len(readers) > 1 else (readers or [NoEvidence()])[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, source: str) -> EvidenceReader:
        path = Path(source)
        if "://" in source:
            return self._store(source)
        if path.is_dir():
            # A state folder holds its journals in a folder of their own.
            inner = path / "journal"
            return journals_in(inner if inner.is_dir() else path)
        try:
            with path.open("rb") as stream:
                beginning = stream.read(len(SQLITE))
        except OSError as error:
            raise EvidenceError(f"{source}: {error.strerror or error}; name evidence that exists") from None
        if beginning != SQLITE:
            return _document(path)
        return self._store(source) if is_store(path) else journals_in(path)

    def _store(self, source: str) -> EvidenceReader:
        from exequatur.lineage.store import EvidenceStore

        return StoreEvidence(self._stack.enter_context(EvidenceStore.open(source, create=False)))

    def __repr__(self) -> str:
        return f"OpenEvidence({list(self._sources)})"


def is_store(path: Path) -> bool:
    """Whether a SQLite file is a store; a journal has other tables."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence_version'").fetchone() is not None
    except sqlite3.Error as error:
        raise EvidenceError(f"{path}: {error}; name a journal or an evidence store") from None


def _document(path: Path) -> EvidenceReader:
    from exequatur.lineage import document
    from exequatur.lineage.checkpoint import claimed

    with path.open("rb") as stream:
        content = document.read(stream)
    notes: dict[str, list[str]] = {}
    for note in content.checkpoints:
        notes.setdefault(claimed(note).origin, []).append(note)
    return RecordedEvidence(((link.record, follows(link)) for link in content.links), notes)
