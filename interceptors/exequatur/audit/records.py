"""What evidence and histories hold, one by one, wherever they are: what is compared need not be in memory at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exequatur.audit.history import MAX_BYTES, RunHistory, history_from_json, read_history
from exequatur.audit.sources import SQLITE, is_store
from exequatur.errors import EvidenceError, JournalError
from exequatur.lineage import document
from exequatur.lineage.record import Record, read
from exequatur.statements.encoding import digest

BUNDLES = ("bundle", "candidate")
"""The kinds of records that hold an archived bundle."""
_REMEMBERED = 64 * 1024 * 1024
"""Bytes of archived bundles that are at hand while records are read."""


def evidence_in(source: str) -> bool:
    """Whether a path or URL is evidence (journals, a store, an exported document), and not histories.

    Raises:
        EvidenceError: There is nothing.
    """
    path = Path(source)
    if "://" in source:
        return True
    if path.is_dir():
        return (path / "journal").is_dir() or any(path.glob("*.db"))
    return _begins(path, SQLITE) or document.VERSION.encode() in _beginning(path, 200)


class Evidence:
    """The records of journals, a store or an exported document, read one by one.

    Args:
        source: A state folder, a folder of journals, a journal, a document, or the file or URL of a store.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._met: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def records(self, *kinds: str) -> Iterator[Record]:
        """The records of these kinds; bundles that are met are remembered.

        Raises:
            EvidenceError: It cannot be read.
        """
        for record in self._all(kinds):
            if record.kind in BUNDLES:
                self._remember(record.body)
            if record.kind in kinds:
                yield record

    def find(self, address: str) -> bytes | None:
        """An archived bundle, wherever it stands.

        Raises:
            EvidenceError: It cannot be read.
        """
        with_address = (each.body for each in self.records(*BUNDLES) if digest(each.body) == address)
        return next(with_address, None)

    def met(self, address: str) -> bytes | None:
        """An archived bundle that was met while records were read."""
        return self._met.get(address)

    def _remember(self, body: bytes) -> None:
        address = digest(body)
        if address not in self._met:
            self._met[address] = body
            self._size += len(body)
            while self._size > _REMEMBERED and len(self._met) > 1:
                self._size -= len(self._met.popitem(last=False)[1])

    def _all(self, kinds: Sequence[str]) -> Iterator[Record]:
        source, path = self._source, Path(self._source)
        if "://" in source or (not path.is_dir() and _begins(path, SQLITE) and is_store(path)):
            from exequatur.lineage.store import EvidenceStore

            with EvidenceStore.open(source, create=False) as store:
                # Bundles first: a store has no order between logs.
                for kind in sorted(kinds, key=lambda kind: kind not in BUNDLES):
                    yield from (link.record for link in store.of_kind(kind))
        elif not path.is_dir() and not _begins(path, SQLITE):
            with path.open("rb") as stream:
                yield from (link.record for link in document.read(stream).links)
        else:
            inner = path / "journal"
            folder = inner if inner.is_dir() else path
            files = sorted(folder.glob("*.db")) if folder.is_dir() else [path]
            if not files:
                raise EvidenceError(f"{source}: there is no journal in this folder")
            for file in files:
                try:
                    yield from read(file)
                except JournalError as error:
                    raise EvidenceError(str(error)) from None


def histories_in(source: str, unreadable: Callable[[EvidenceError], None]) -> Iterator[RunHistory]:
    """The histories of a JSON file, of a file with one a line, or of a folder with such files in it.

    Args:
        source: The path.
        unreadable: Told of each that cannot be read; the others are read all the same.
    """
    path = Path(source)
    files = sorted((*path.rglob("*.json"), *path.rglob("*.jsonl"))) if path.is_dir() else [path]
    if not files:
        unreadable(EvidenceError(f"{source}: no journal, and no history as *.json or *.jsonl, is in this folder"))
    for file in files:
        try:
            if file.suffix == ".jsonl":
                yield from _lines(file, unreadable)
            else:
                yield read_history(file)
        except EvidenceError as error:
            unreadable(error)


def _lines(file: Path, unreadable: Callable[[EvidenceError], None]) -> Iterator[RunHistory]:
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_BYTES + 1):
                number += 1
                if not line.strip():
                    continue
                try:
                    yield history_from_json(line, f"{file}:{number}")
                except EvidenceError as error:
                    unreadable(error)
    except OSError as error:
        raise EvidenceError(f"{file}: {error.strerror or error}; name a readable file") from None


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}; name something that exists") from None


def _begins(path: Path, magic: bytes) -> bool:
    return _beginning(path, len(magic)) == magic
