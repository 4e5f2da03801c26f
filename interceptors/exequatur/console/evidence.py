"""What was decided lately: the ends of all journals and stores, followed by one thread, in a bounded ring.

Rules, numbered as the code marks them:

E1  Journals and stores are only read. One that is locked, missing or damaged is named in ``problems`` and tried again;
    it stops nobody else from being followed.
E2  Memory is bounded: the ring holds :data:`KEPT` rows, and what is counted has bounded names and minutes.
E3  A reader has a place in the ring and nothing else. Who is too slow for the ring is told how much was lost.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exequatur.console.decision import COUNTED, Decision, decision_of
from exequatur.errors import EvidenceError, ExequaturError
from exequatur.lineage.record import Record, length, read_from

if TYPE_CHECKING:
    from exequatur.lineage.store import EvidenceStore

logger = logging.getLogger("exequatur")

KEPT = 20_000
"""Rows of about a kilobyte."""
EVERY = 0.1
"""Seconds between two looks."""
STORES_EVERY = 1.0
"""Seconds between two looks at a store, which may be far."""
FIRST = 5_000
"""Records of each journal that are read at the start."""
MINUTES = 60
MOST_NAMES = 2_000
"""Names that are counted apart."""
_PAGE = 1_000
_PAGE_BYTES = 8 * 1024 * 1024
_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Counts:
    """What has been counted since the console began to look.

    Args:
        total: Decisions.
        outcomes: By ``allow``, ``deny``, ``none``.
        observed: Refusals that kept nothing from happening.
        policies: By bundle and policy.
        shadow: Disagreements of candidate policies.
        minutes: For each of the last minutes, the oldest first: when it began, and decisions by outcome.
        rate: Decisions a second, over the last ten seconds.
    """

    total: int
    outcomes: dict[str, int]
    observed: int
    policies: dict[tuple[str, str], int]
    shadow: int
    minutes: tuple[tuple[int, dict[str, int]], ...]
    rate: float


@dataclass(frozen=True)
class Batch:
    """What came since a place.

    Args:
        rows: In their order.
        place: After the last of them.
        lost: How many were gone before they were read (E3).
    """

    rows: Sequence[Decision]
    place: int
    lost: int


class _Tail(Protocol):
    every: float

    def more(self) -> list[Record]: ...
    def one(self, log: str, index: int) -> Record | None: ...


class Decisions:
    """Follows evidence; start it with :meth:`start`, or look once with :meth:`look`.

    Args:
        sources: Each a folder with journals or a state folder, a journal file, or the URL or file of a store.
    """

    def __init__(self, sources: Sequence[str | Path]) -> None:
        self._folders = [path for each in sources if "://" not in str(each) and _folder(path := Path(each))]
        self._sources = [str(each) for each in sources if "://" in str(each) or not _folder(Path(each))]
        self._tails: dict[str, _Tail] = {}
        self._ring: deque[Decision] = deque(maxlen=KEPT)  # [E2]
        self._lock = threading.Lock()
        self._last = 0
        self._outcomes: Counter[str] = Counter()
        self._observed = 0
        self._shadow = 0
        self._policies: Counter[tuple[str, str]] = Counter()
        self._minutes: dict[int, Counter[str]] = {}
        self._seconds: dict[int, int] = {}
        self._due: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        """Why a source is not followed now, by its name."""
        self.looked = 0.0
        """When all was looked at last, in seconds since 1970."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(target=self._run, name="exequatur-console-evidence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)
        for tail in self._tails.values():
            if isinstance(tail, _StoreTail):
                tail.close()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except Exception:  # whatever it is: what follows goes on being followed
                logger.exception("The evidence could not be looked at")

    def look(self) -> None:
        """Read what has come. Never raises for a source that cannot be read (E1)."""
        self._find()
        came: list[Record] = []
        now = time.monotonic()
        for name, tail in list(self._tails.items()):
            if now < self._due.get(name, 0.0):
                continue
            self._due[name] = now + tail.every
            try:
                came += tail.more()
                self.problems.pop(name, None)
            except (ExequaturError, OSError, sqlite3.Error) as error:  # [E1]
                self.problems[name] = str(error)
                self._due[name] = now + STORES_EVERY
        came.sort(key=lambda record: record.at)
        self._take(came)
        self.looked = time.time()

    def _find(self) -> None:
        """Journals that are new, and whatever else is named."""
        for folder in self._folders:
            name = str(folder)
            try:
                files = sorted(_journals(folder).glob("*.db"))
            except OSError as error:  # E1
                self.problems[name] = f"{folder}: {error.strerror or error}"
                continue
            if not files and not folder.exists():
                self.problems[name] = f"{folder}: there is no such folder; name that of the workers with --state"
            elif not files:
                self.problems[name] = f"{folder}: there is no journal yet; it begins with the first worker"
            else:
                self.problems.pop(name, None)
            for path in files:
                self._tails.setdefault(str(path), _JournalTail(path))
        for source in self._sources:
            if source not in self._tails:
                try:
                    self._tails[source] = _opened(source)
                    self.problems.pop(source, None)
                except (ExequaturError, OSError, sqlite3.Error) as error:  # [E1]
                    self.problems[source] = str(error)

    def _take(self, records: Sequence[Record]) -> None:
        rows = []
        for record in records:
            row = decision_of(record, self._last + 1)
            if row is not None:
                rows.append(row)
                self._last += 1
        if not rows:
            return
        with self._lock:
            for row in rows:
                self._ring.append(row)
                self._count(row)

    def _count(self, row: Decision) -> None:
        if row.kind == "shadow":
            self._shadow += 1
        if row.kind not in COUNTED:
            return
        self._outcomes[row.outcome] += 1
        self._observed += row.outcome != "allow" and not row.enforced
        for policy in row.policies:
            key = (row.bundle, policy)
            if key in self._policies or len(self._policies) < MOST_NAMES:  # [E2]
                self._policies[key] += 1
        second = int(row.at) if abs(row.at) < 1e12 else 0
        self._minutes.setdefault(second // 60, Counter())[row.outcome] += 1
        self._seconds[second] = self._seconds.get(second, 0) + 1
        while len(self._minutes) > MINUTES:  # [E2]
            del self._minutes[min(self._minutes)]
        while len(self._seconds) > 60:  # [E2]
            del self._seconds[min(self._seconds)]

    @property
    def place(self) -> int:
        """After the last row."""
        return self._last

    def since(self, place: int) -> Batch:
        """What came since a place that an earlier batch named, or 0."""
        with self._lock:
            last = self._ring[-1].number if self._ring else 0
            first = self._ring[0].number if self._ring else 1
            if place >= last:
                return Batch((), place, 0)
            lost = max(0, first - place - 1) if place else 0  # [E3]
            wanted = min(last - place, len(self._ring))
            rows = [self._ring[index] for index in range(len(self._ring) - wanted, len(self._ring))]
        return Batch(rows, last, lost)

    def counts(self) -> Counts:
        """What has been counted."""
        now = int(time.time())
        with self._lock:
            minutes = range(now // 60 - MINUTES + 1, now // 60 + 1)
            return Counts(
                total=sum(self._outcomes.values()),
                outcomes={name: self._outcomes[name] for name in ("allow", "deny", "none")},
                observed=self._observed,
                policies=dict(self._policies),
                shadow=self._shadow,
                minutes=tuple((each * 60, dict(self._minutes.get(each, {}))) for each in minutes),
                rate=sum(self._seconds.get(each, 0) for each in range(now - 10, now)) / 10,
            )

    def record(self, log: str, index: int) -> Record | None:
        """One record, wherever it is followed.

        Args:
            log: Id of its journal.
            index: Its position there.
        """
        for name, tail in list(self._tails.items()):
            try:
                if (found := tail.one(log, index)) is not None:
                    return found
            except (ExequaturError, OSError, sqlite3.Error) as error:  # [E1]
                self.problems[name] = str(error)
        return None

    def facts(self) -> dict[str, Any]:
        """What is followed, for a page about health."""
        return {"sources": len(self._tails), "problems": dict(self.problems), "looked": self.looked, "rows": self._last}


class _JournalTail:
    """The end of one journal file."""

    every = 0.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._log: str | None = None
        self._next = 0

    def more(self) -> list[Record]:
        state = self._state()
        if state == self._seen:
            return []
        if self._log is None:
            self._log, size = length(self._path)
            self._next = max(0, size - FIRST)
        log, records = read_from(self._path, self._next, _PAGE, _PAGE_BYTES)
        if log != self._log:  # another journal is there now
            self._log, self._next = log, 0
            log, records = read_from(self._path, 0, _PAGE, _PAGE_BYTES)
        if records:
            self._next = records[-1].index + 1
        else:
            self._seen = state
        return records

    def one(self, log: str, index: int) -> Record | None:
        if log != self._log:
            return None
        found, records = read_from(self._path, index, 1, _PAGE_BYTES)
        return records[0] if found == log and records and records[0].index == index else None

    def _state(self) -> object:
        """What tells whether there may be more: database and write-ahead log as they were before the reading."""
        found: list[tuple[int, int, int] | None] = []
        for path in (self._path, self._path.with_name(self._path.name + "-wal")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(found)


class _StoreTail:
    """The ends of all logs of an evidence store."""

    every = STORES_EVERY

    def __init__(self, store: EvidenceStore) -> None:
        self._store = store
        self._next: dict[str, int] = {}

    def more(self) -> list[Record]:
        records: list[Record] = []
        for log in self._store.logs():
            first = self._next.get(log.log_id, max(0, log.size - FIRST))
            if first < log.size:
                part = self._store.part(log.log_id, first, _PAGE)
                records += part
                first = part[-1].index + 1 if part else log.size
            self._next[log.log_id] = first
        return records

    def one(self, log: str, index: int) -> Record | None:
        records = self._store.part(log, index, 1)
        return records[0] if records and records[0].index == index else None

    def close(self) -> None:
        self._store.close()


def _opened(source: str) -> _Tail:
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
            return _JournalTail(path)
    from exequatur.lineage.store import EvidenceStore

    return _StoreTail(EvidenceStore.open(source, create=False))


def _folder(path: Path) -> bool:
    return path.is_dir() or not path.exists()


def _journals(folder: Path) -> Path:
    inner = folder / "journal"
    return inner if inner.is_dir() else folder
