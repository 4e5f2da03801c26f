"""What was decided lately: the ends of all journals and stores, followed in the background, in a bounded ring.

Rules, numbered as the code marks them:

E1  Journals and stores are only read. One that is locked, missing, damaged, rolled back or silent is named in
    ``problems``, without credentials, and tried again; it keeps nobody else from being followed.
E2  Memory is bounded: the ring holds :data:`KEPT` rows and :data:`MOST_BYTES` of their texts, a look brings no more,
    and what is counted has bounded names and minutes, which no clock of a worker pushes out.
E3  A reader has a place in the ring and nothing else. Who is too slow for the ring is told how much was lost.
E4  A record counts once, also where a journal and the store that it was shipped to are both followed.
"""

from __future__ import annotations

import logging
import math
import secrets
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from exequatur.console.decision import COUNTED, Decision, decision_of
from exequatur.console.tails import SELDOM, JournalTail, StoreTail, Tail, opened, place_of, written
from exequatur.errors import ExequaturError
from exequatur.lineage.record import Record

logger = logging.getLogger("exequatur")

KEPT = 20_000
"""Rows of about a kilobyte."""
MOST_BYTES = 64 * 1024 * 1024
"""Of their texts."""
EVERY = 0.1
"""Seconds between two looks."""
FIRST_WITHIN = 2.0
"""Seconds that the first look at all journals may take; of those that it does not reach, only what is new is shown."""
MINUTES = 60
MOST_NAMES = 2_000
"""Names that are counted apart."""


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


class Decisions:
    """Follows evidence; start it with :meth:`start`, or look once with :meth:`look`.

    Args:
        sources: Each a folder with journals or a state folder, a journal file, or the URL or file of a store.
    """

    def __init__(self, sources: Sequence[str | Path]) -> None:
        texts = [str(each) for each in sources]
        self._folders = [path for each in texts if "://" not in each and _folder(path := Path(each))]
        self._sources = {place_of(each): each for each in texts if "://" in each or not _folder(Path(each))}
        self._tails: dict[str, Tail] = {}
        self._ring: deque[Decision] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._ends: dict[str, int] = {}
        """Position after the last record that was taken, for each log."""
        self._last = 0
        self._outcomes: Counter[str] = Counter()
        self._observed = 0
        self._shadow = 0
        self._policies: Counter[tuple[str, str]] = Counter()
        self._minutes: dict[int, Counter[str]] = {}
        self._seconds: dict[int, int] = {}
        self._due: dict[str, float] = {}
        self._troubled: set[str] = set()
        """Names of those that could not be read the last time; one thread reads them, and another one the rest."""
        self._found = float("-inf")
        self.began = secrets.token_hex(4)
        """Tells the places of this ring from those of one before it."""
        self.problems: dict[str, str] = {}
        """Why a source is not followed now, by its name."""
        self.looked = 0.0
        """When journals were looked at last, in seconds since 1970."""
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Look at the journals once, and begin to follow everything."""
        self._look_at_journals()
        looks = [self._look_at_journals, self._look_at_troubled]
        looks += [partial(self._look_at_source, name) for name in self._sources]
        for look in looks:  # in a thread each: what hangs holds up nothing else
            thread = threading.Thread(target=self._run, args=(look,), name="exequatur-console-evidence", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()
        until = time.monotonic() + 2.0
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for tail in self._tails.values():
            if isinstance(tail, StoreTail):
                tail.close()

    def _run(self, look: Callable[[], None]) -> None:
        while not self._stop.wait(EVERY):
            try:
                look()
            except Exception:  # whatever it is: what follows goes on being followed
                logger.exception("The evidence could not be looked at")

    def look(self) -> None:
        """Read what has come, everywhere. Never raises for a source that cannot be read (E1)."""
        self._look_at_journals()
        self._look_at_troubled()
        for name in self._sources:
            self._look_at_source(name)

    def _look_at_journals(self) -> None:
        first, until = not self._tails, time.monotonic() + FIRST_WITHIN
        self._find()
        tails = [(name, tail) for name, tail in list(self._tails.items()) if name not in self._sources]
        well = ((name, tail) for name, tail in tails if name not in self._troubled)
        self._read(each for each in well if not first or time.monotonic() < until)
        for name, tail in tails if first else ():
            if isinstance(tail, JournalTail) and name not in self._troubled:
                tail.skip_unread()
        self.looked = time.time()

    def _look_at_troubled(self) -> None:
        """Try again what could not be read, apart from the others: it may take long to fail."""
        self._read((name, self._tails[name]) for name in sorted(self._troubled - self._sources.keys()))

    def _look_at_source(self, name: str) -> None:
        if name not in self._tails:
            if time.monotonic() < self._due.get(name, 0.0):
                return
            try:
                self._tails[name] = opened(self._sources[name], self._ends)
            except Exception as error:  # [E1] databases and their drivers raise anything
                self._failed(name, error)
                return
        self._read([(name, self._tails[name])])

    def _find(self) -> None:
        """Journals that are new."""
        if time.monotonic() - self._found < SELDOM:
            return
        self._found = time.monotonic()
        new: list[Path] = []
        for folder in self._folders:
            name = str(folder)
            try:
                files = list(_journals(folder).glob("*.db"))
            except OSError as error:  # E1
                self.problems[name] = f"{folder}: {error.strerror or error}"
                continue
            if not files and not folder.exists():
                self.problems[name] = f"{folder}: there is no such folder; name that of the workers with --state"
            elif not files:
                self.problems[name] = f"{folder}: there is no journal yet; it begins with the first worker"
            else:
                self.problems.pop(name, None)
            new += [path for path in files if str(path) not in self._tails]
        for path in sorted(new, key=written, reverse=True):
            self._tails[str(path)] = JournalTail(path, self._ends)

    def _read(self, tails: Iterable[tuple[str, Tail]]) -> None:
        """Take what some of the tails have, in the order of its times."""
        rows: list[Decision] = []
        held = 0
        for name, tail in tails:
            if time.monotonic() < self._due.get(name, 0.0):
                continue
            if held > MOST_BYTES:  # [E2]
                break
            try:
                for record in tail.more(KEPT - len(rows)):
                    if (row := decision_of(record, 0)) is not None:
                        rows.append(row)
                        held += row.size
                    if held > MOST_BYTES:  # [E2]
                        break
                self._troubled.discard(name)
                self.problems.pop(name, None)
                self._due[name] = time.monotonic() + tail.every
            except Exception as error:  # [E1] databases and their drivers raise anything
                self._failed(name, error)
                self._troubled.add(name)
        rows.sort(key=lambda row: row.at)
        self._take(rows)

    def _failed(self, name: str, error: Exception) -> None:
        if isinstance(error, ExequaturError | OSError | sqlite3.Error):
            why = str(error)
        else:
            why = f"{name}: it cannot be read ({type(error).__name__})"
            if self.problems.get(name) != why:
                logger.warning("%s", why, exc_info=error)
        self.problems[name] = why
        self._due[name] = time.monotonic() + SELDOM

    def _take(self, rows: Sequence[Decision]) -> None:
        with self._taking:
            new = {(row.log, row.index): row for row in rows if row.index >= self._ends.get(row.log, 0)}  # E4
            for log, index in new:
                self._ends[log] = max(self._ends.get(log, 0), index + 1)
            came = time.time()
            taken = [
                replace(row, number=self._last + place, order=min(came, row.at))
                for place, row in enumerate(new.values(), 1)
            ]
            with self._lock:
                self._last += len(taken)
                for row in taken:
                    self._ring.append(row)
                    self._bytes += row.size
                    self._count(row)
                while len(self._ring) > KEPT or self._bytes > MOST_BYTES:  # [E2]
                    self._bytes -= self._ring.popleft().size

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
        now = time.time()
        if not math.isfinite(row.at) or not now - 60 * MINUTES < row.at < now + 60:  # [E2]
            return
        minute, second = int(row.at // 60), int(row.at)
        if minute not in self._minutes:
            self._minutes = {each: told for each, told in self._minutes.items() if each > now // 60 - MINUTES}
        self._minutes.setdefault(minute, Counter())[row.outcome] += 1
        if second not in self._seconds:
            self._seconds = {each: many for each, many in self._seconds.items() if each > now - 60}
        self._seconds[second] = self._seconds.get(second, 0) + 1

    @property
    def place(self) -> int:
        """After the last row."""
        return self._last

    def since(self, place: int) -> Batch:
        """What came since a place that an earlier batch named, or 0."""
        with self._lock:
            last = self._last
            if place >= last:
                return Batch((), place, 0)
            first = last - len(self._ring) + 1
            lost = max(0, first - place - 1) if place else 0  # [E3]
            rows = list(islice(self._ring, max(0, place + 1 - first), None))
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
            except Exception as error:  # [E1] databases and their drivers raise anything
                self._failed(name, error)
        return None

    def facts(self) -> dict[str, Any]:
        """What is followed, for a page about health."""
        return {"sources": len(self._tails), "problems": dict(self.problems), "looked": self.looked, "rows": self._last}


def _folder(path: Path) -> bool:
    return path.is_dir() or not path.exists()


def _journals(folder: Path) -> Path:
    inner = folder / "journal"
    return inner if inner.is_dir() else folder
