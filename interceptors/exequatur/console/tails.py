"""The ends of journals and stores, as they grow: each gives what has come since it was asked last.

Rules, numbered as the code marks them:

W1  A journal of which a record that was read is gone, or another one, was edited or rolled back. That is said as long
    as this console runs, and what comes is shown all the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from exequatur.errors import EvidenceError
from exequatur.lineage.record import Record, length, read_from

if TYPE_CHECKING:
    from exequatur.lineage.store import EvidenceStore

SELDOM = 1.0
"""Seconds between two looks at a store, which may be far, at what has been quiet or cannot be read, and for journals
that are new."""
FIRST = 5_000
"""Records of each journal that are read at the start."""
_QUIET = 30.0
_PAGE = 200
_PAGE_BYTES = 8 * 1024 * 1024
_SQLITE = b"SQLite format 3\x00"


class Tail(Protocol):
    """The end of something that grows."""

    @property
    def every(self) -> float:
        """Seconds after which it is worth looking again."""
        ...

    def more(self, most: int) -> Iterator[Record]:
        """What has come, up to so many records.

        Raises:
            ExequaturError: It cannot be read; or whatever else a database's driver raises.
        """
        ...

    def one(self, log: str, index: int) -> Record | None:
        """One record, if it is here."""
        ...


class JournalTail:
    """The end of one journal file.

    Args:
        path: The file.
        ends: What was taken of each log; it goes back with a log that goes back.
    """

    def __init__(self, path: Path, ends: dict[str, int]) -> None:
        self._path = path
        self._ends = ends
        self._names = (str(path), f"{path}-wal")
        self._seen: object = None
        self._changed = 0.0
        self._log: str | None = None
        self._next = 0
        self._last: Record | None = None
        """The one before ``_next``, without its body."""
        self._overlap = 0
        """Bytes of that body."""
        self._since = float("-inf")
        self._why = ""

    @property
    def every(self) -> float:
        return 0.0 if time.monotonic() - self._changed < _QUIET else SELDOM

    def skip_unread(self) -> None:
        """Where nothing was read yet, show nothing of what is there by now, and do not even open the file."""
        if self._log is None:
            self._seen, self._since = self._state(), time.time()

    def more(self, most: int) -> Iterator[Record]:
        state, now = self._state(), time.monotonic()
        if state != self._seen:
            self._changed = now
        elif now - self._changed > SELDOM:  # what is written within a tick of its clock does not show in a file's times
            return
        self._seen = None
        for record in self._read(most):
            self._changed = now
            if record.at >= self._since:
                yield record
        if self._why:  # [W1]
            raise EvidenceError(self._why)
        self._seen = state

    def _read(self, most: int) -> Iterator[Record]:
        if self._log is None:
            self._log, size = length(self._path)
            self._next, self._last = max(0, size - min(FIRST, most)), None
        while most > 0:
            records = self._page(min(most, _PAGE))
            if not records:
                return
            for record in records:
                self._next, self._overlap = record.index + 1, len(record.body)
                self._last = replace(record, body=b"")
                most -= 1
                yield record

    def _page(self, count: int) -> list[Record]:
        """What is next, after it was seen that what was read last is still there."""
        last = self._last
        if last is None:
            log, records = read_from(self._path, self._next, count, _PAGE_BYTES)
        else:
            log, records = read_from(self._path, last.index, count + 1, _PAGE_BYTES + self._overlap)
            if log == self._log and records and records[0].head == last.head and records[0].index == last.index:
                return records[1:]
        if log != self._log:  # another journal is there now
            self._log, self._last = log, None
            _, size = length(self._path)
            self._next = max(0, size - FIRST)
            return self._page(count)
        if last is None:
            return records
        _, size = length(self._path)
        self._why = (
            f"{self._path}: record {last.index} was read, and is gone or another one now. The file was edited, or "
            "rolled back to an earlier one: keep it for the audit"
        )
        self._next, self._last = min(self._next, size), None
        self._ends[log] = min(self._ends.get(log, 0), self._next)
        return self._page(count)

    def one(self, log: str, index: int) -> Record | None:
        if log != self._log:
            return None
        found, records = read_from(self._path, index, 1, _PAGE_BYTES)
        return records[0] if found == log and records and records[0].index == index else None

    def _state(self) -> object:
        """What tells whether there may be more: database and write-ahead log as they were before the reading."""
        found: list[tuple[int, int, int] | None] = []
        for name in self._names:
            try:
                stat = os.stat(name)  # noqa: PTH116 (thousands of journals are looked at often)
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(found)


class StoreTail:
    """The ends of all logs of an evidence store."""

    every = SELDOM

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._next: dict[str, int] = {}

    def more(self, most: int) -> Iterator[Record]:
        for log in self._store.logs():
            if log.log_id not in self._next:
                self._next[log.log_id] = max(0, log.size - min(FIRST, most))
            while most > 0 and self._next[log.log_id] < log.size:
                part = self._store.part(log.log_id, self._next[log.log_id], min(most, _PAGE))
                for record in part:
                    self._next[log.log_id] = record.index + 1
                    most -= 1
                    yield record
                if not part:  # pruned
                    self._next[log.log_id] = log.size

    def one(self, log: str, index: int) -> Record | None:
        records = self._store.part(log, index, 1)
        return records[0] if records and records[0].index == index else None

    def close(self) -> None:
        self._store.close()


def place_of(source: str) -> str:
    """A source without the user, password and options that its URL may have."""
    scheme, mark, rest = source.partition("://")
    return f"{scheme}{mark}{rest.partition('?')[0].rpartition('@')[2]}" if mark else source


def opened(source: str, ends: dict[str, int]) -> Tail:
    """Follow a store, or a journal that is named itself.

    Raises:
        EvidenceError: It is neither.
    """
    if "://" not in source:
        from exequatur.audit.sources import is_store

        path = Path(source)
        with path.open("rb") as stream:
            if stream.read(len(_SQLITE)) != _SQLITE:
                raise EvidenceError(f"{source}: a document does not grow; open it on the proof page")
        if not is_store(path):
            return JournalTail(path, ends)
    from exequatur.lineage.store import EvidenceStore

    return StoreTail(EvidenceStore.open(source, create=False))


def written(path: Path) -> float:
    """When a journal was written last, as far as its files tell."""
    found = float("-inf")
    for name in (path, path.with_name(path.name + "-wal")):
        try:
            found = max(found, name.stat().st_mtime)
        except OSError:  # seen when it is read
            continue
    return found
