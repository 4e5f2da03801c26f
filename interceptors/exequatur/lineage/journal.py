"""The evidence journal: what this worker decided, written before it acted, in a log that cannot be edited unnoticed.

Rules this module keeps:

J1. What was acknowledged is on disk (WAL, ``synchronous=FULL``); what failed is not in the log and may be tried again.
J2. Each record is linked to all before it; position, kind, time, request, run, attempt and body are covered.
J3. A (request, run, attempt) is used at most once, and again only where the same activity was reset, so that its
    attempt was scheduled later than all uses before; a grant is pinned to one first run; both outlive the process.
J4. One writer: a file lock between processes, one thread within; a forked child can do nothing with what it inherited.
J5. When the file cannot be written, is not the one that was opened, or does not hold what was written to it, everything
    is refused and ``healthy`` is false until the same log is back and a trial write succeeds.
J6. What was enqueued without waiting is written first after a recovery; what cannot be kept is counted and logged.

"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import hashlib
import logging
import math
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, Self

from exequatur.errors import ExequaturError, JournalError, RepeatedRequestError, ReplayedRequestError
from exequatur.lineage.record import (
    COLUMNS,
    SCHEMA,
    Entry,
    FailuresNamed,
    head_text,
    log_id_of,
    next_step,
    record_bytes,
    tail_of,
    whole_of,
)
from exequatur.statements.encoding import strict_json

_log = logging.getLogger(__name__)

_BATCH = 512  # records a commit: bounds how long the first waiter of a batch waits for the last
_LINGER = 0.1  # seconds that a record nobody waits for may stay in memory
_KEPT = 10_000  # enqueued records held through an outage: at 2 KiB a receipt, about 20 MiB
_PINS_REMEMBERED = 10_000  # pins answered from memory: about 3 MiB
_BODY_LIMIT = 16 * 1024 * 1024  # a record that SQLite refuses for its size would block the journal for ever
_EXAMINE_INTERVAL = 0.25  # seconds between looks whether the files at our paths are still the ones we write
_TRIAL_BYTES = 64 * 1024  # a recovery is believed when this much can be written, so a full disk does not flap

_INSERT = f"INSERT INTO records ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 (a constant)
_PIN = "INSERT INTO pins VALUES (?, ?) ON CONFLICT DO NOTHING"
# What was used again stands under "request@time": these are all that begin with "request@".
_USES = (
    "SELECT body FROM records WHERE run IS ? AND attempt IS ? AND (request = ? OR (request > ? AND request < ?))"
    " ORDER BY idx DESC LIMIT 1"
)


class _Pending:
    """A record on its way to the disk; without a future nobody waits for it."""

    __slots__ = ("columns", "digest", "future", "reset")

    def __init__(
        self,
        future: asyncio.Future[Any] | None,
        kind: str,
        body: bytes,
        request: str | None = None,
        run: str | None = None,
        attempt: int | None = None,
        *,
        reset: bool = False,
    ) -> None:
        if len(body) > _BODY_LIMIT:
            raise ValueError(f"the body of a {kind} record has {len(body)} bytes; store its digest instead")
        at = time.time()
        # Encoded by the caller: what cannot be encoded is the caller's error and never reaches the writer.
        self.digest = hashlib.sha256(record_bytes(kind, at, request, run, attempt, body)).digest()
        self.columns = (at, kind, request, run, attempt, body)
        self.future = future
        self.reset = reset

    def once_more(self) -> _Pending:
        """The same for an attempt of the same number after a reset."""
        _, kind, request, run, attempt, body = self.columns
        return _Pending(self.future, kind, body, f"{request}@{_use_of(body)[1]:.6f}", run, attempt)


class _Pin:
    __slots__ = ("first_run", "future", "grant")

    def __init__(self, future: asyncio.Future[Any], grant: str, first_run: str) -> None:
        (grant + first_run).encode()
        self.future, self.grant, self.first_run = future, grant, first_run


class Journal:
    """The journal of this process; made by :meth:`open`, used from any thread and any event loop."""

    def __init__(self, path: Path, lock: int, retry_interval: float) -> None:
        self._path = path
        self._lock: int | None = lock
        self._retry_interval = retry_interval
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[_Pending | _Pin | None] = queue.SimpleQueue()
        self._unhurried: list[_Pending] = []  # nobody waits for them; they go with the next that somebody waits for
        self._entrance = threading.Lock()  # between "is it closed?" and putting: nothing is queued behind the end
        self._closed = False
        self._failure: JournalError | None = None
        self._observers: list[Callable[[bool], None]] = []
        self._pins: OrderedDict[str, str] = OrderedDict()
        self._pins_guard = threading.Lock()
        # From here on the writer's own, other threads only look.
        self._kept: deque[_Pending | _Pin] = deque()
        self._dropped = 0
        self._unconfirmed: tuple[int, bytes] | None = None
        self._retry_at = 0.0
        self._db = self._connect(new=True)
        try:
            with FailuresNamed(path):
                self._log_id = log_id_of(self._db, path)
                self._size, self._head = tail_of(self._db, self._log_id, path)
                self._trial()
                self._identify()
        except BaseException:
            self._db.close()
            raise
        self._writer = threading.Thread(target=self._run, name=f"exequatur-journal-{path.stem}", daemon=True)

    @classmethod
    def open(cls, folder: Path, *, retry_interval: float = 0.5) -> Self:
        """Open the first journal in a folder that no living process uses, or begin a new one.

        Args:
            folder: Made with owner-only permissions if it does not exist.
            retry_interval: Seconds between attempts to recover, and between looks at the files when idle.

        Raises:
            JournalError: The folder or the file in it cannot be used; the message names it and the next step.
        """
        with FailuresNamed(folder, "name a folder that this user can write"):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_folder(folder.parent)
            path, lock = _claim(folder)
        try:
            journal = cls(path, lock, retry_interval)
        except BaseException:
            os.close(lock)
            raise
        _open_journals.add(journal)
        journal._writer.start()
        return journal

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    @property
    def log_id(self) -> str:
        """The random name of this log: 8 bytes in hex, made when the file was."""
        return self._log_id

    @property
    def healthy(self) -> bool:
        """Whether records can be written now."""
        return self._failure is None and not self._closed and os.getpid() == self._pid

    @property
    def dropped(self) -> int:
        """How many enqueued records were lost, because an outage outlasted the room to keep them."""
        return self._dropped

    @property
    def ours(self) -> bool:
        """Whether this process opened it; a forked child can do nothing with what it inherited."""
        return self._pid == os.getpid()

    def on_health(self, callback: Callable[[bool], None]) -> None:
        """Have ``callback`` called with each new ``healthy``, from the writer's thread; it must not block."""
        self._observers.append(callback)

    async def append(self, kind: str, body: bytes) -> Entry:
        """Store a record and wait until it is on disk; if the waiting is cancelled, it is stored all the same.

        Args:
            kind: What the body is, for example ``"receipt"``.
            body: Canonical JSON in UTF-8, at most 16 MiB.

        Raises:
            JournalError: It could not be stored, and is not.
            ValueError: ``kind`` or ``body`` cannot be stored by any journal.
        """
        future = asyncio.get_running_loop().create_future()
        self._put(_Pending(future, kind, body))
        entry: Entry = await future
        return entry

    async def append_decision(
        self,
        body: bytes,
        *,
        request: str,
        run: str,
        attempt: int,
        reset: bool = False,
    ) -> Entry:
        """Store a record of kind ``decision`` as :meth:`append` does, unless the request was used before.

        Args:
            body: Canonical JSON in UTF-8, at most 16 MiB. What it says as ``activity_id``, ``first_scheduled`` and
                ``scheduled`` tells a reset from a replay; without the last, it is none.
            request: ``jti`` of the request.
            run: Run id.
            attempt: Attempt of the activity, from 1.
            reset: It is allowed after a reset, too.

        Raises:
            RepeatedRequestError: This journal holds a decision for the same three, about an attempt of the same
                activity that was scheduled before, and this one is not allowed after a reset; nothing is stored.
            ReplayedRequestError: It holds another one for the same three.
            JournalError: It could not be stored, and is not.
            ValueError: An argument cannot be stored by any journal.
        """
        future = asyncio.get_running_loop().create_future()
        self._put(_Pending(future, "decision", body, request, run, attempt, reset=reset))
        entry: Entry = await future
        return entry

    def enqueue(self, kind: str, body: bytes) -> None:
        """Store a record without waiting, from any thread; it is kept through an outage and written before a close.

        It is written with the next record that somebody waits for, or a tenth of a second later: one commit less.

        Args:
            kind: What the body is, for example ``"receipt"``.
            body: Canonical JSON in UTF-8, at most 16 MiB.

        Raises:
            JournalError: The journal is closed, or was opened by another process.
            ValueError: ``kind`` or ``body`` cannot be stored by any journal.
        """
        item = _Pending(None, kind, body)
        self._check_process()
        with self._entrance:
            if self._closed:
                raise JournalError(f"{self._path}: the journal is closed; open it again")
            self._unhurried.append(item)
            if len(self._unhurried) >= _BATCH:
                self._hurry()

    async def pin(self, grant: str, first_run: str) -> bool:
        """Remember the first run of a grant, for good.

        Args:
            grant: ``jti`` of the grant.
            first_run: First execution run id that it is presented with.

        Returns:
            Whether ``first_run`` is the one that the grant is pinned to.

        Raises:
            JournalError: The pin could not be stored.
            ValueError: Text is not representable in UTF-8.
        """
        self._check_process()
        with self._pins_guard:
            pinned = self._pins.get(grant)
            if pinned is not None and not self._closed:
                self._pins.move_to_end(grant)
                return pinned == first_run
        future = asyncio.get_running_loop().create_future()
        self._put(_Pin(future, grant, first_run))
        mine: bool = await future
        return mine

    def close(self) -> None:
        """Write what is queued, checkpoint, and release the file for the next process; a second call does nothing.

        Raises:
            JournalError: Enqueued records could not be written and are lost; their number is named.
        """
        self._check_process()
        with self._entrance:
            first, self._closed = not self._closed, True
            if first:
                self._hurry()
                self._queue.put(None)
        self._writer.join()
        _open_journals.discard(self)
        if first and self._kept:
            raise JournalError(f"{self._path}: closed with {len(self._kept)} records lost, because: {self._failure}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JournalError(f"{self._path}: opened by process {self._pid}; call Journal.open after the fork")

    def _put(self, item: _Pending | _Pin) -> None:
        self._check_process()
        with self._entrance:
            if self._closed:
                raise JournalError(f"{self._path}: the journal is closed; open it again")
            self._hurry()
            self._queue.put(item)

    def _hurry(self) -> None:
        """Queue what nobody waits for; with the entrance held."""
        for item in self._unhurried:
            self._queue.put(item)
        self._unhurried = []

    # What follows runs in the writer's thread only (or in __init__, before there is one).

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._take()
            if self._failure and (not going_on or time.monotonic() >= self._retry_at):
                self._recover()
            self._serve(batch)
        self._let_go()
        if self._kept:
            self._dropped += len(self._kept)
            _log.error("%s: closed with %d enqueued records lost", self._path, len(self._kept))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _let_go(self) -> None:
        # A file that was moved away takes its last records along, instead of leaving them to whatever is put in its
        # place. Where this fails nothing is lost: they are in the write-ahead log, which then stays.
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def _take(self) -> tuple[list[_Pending | _Pin], bool]:
        batch: list[_Pending | _Pin] = []
        try:
            item = self._queue.get(timeout=min(self._retry_interval, _LINGER))
        except queue.Empty:
            with self._entrance:
                self._hurry()
            if self._queue.empty():
                return batch, True
            item = self._queue.get_nowait()
        # This is the only consumer, so what qsize() counts can be had without waiting.
        more = min(self._queue.qsize(), _BATCH - 1)
        while item is not None:
            batch.append(item)
            if not more:
                return batch, True
            more -= 1
            item = self._queue.get_nowait()
        return batch, False

    def _serve(self, batch: list[_Pending | _Pin]) -> None:
        outcomes: list[Entry | bool | ExequaturError] = []
        if self._failure is None:
            try:
                self._examine()
                outcomes = self._store(batch) if batch else []
            except Exception as error:  # whatever it is: nobody may be left waiting, nothing may be let through
                self._fail(error)
        if self._failure is not None:
            outcomes = [self._failure] * len(batch)
            for item in batch:
                if item.future is None:
                    self._keep(item)
        self._deliver(zip(batch, outcomes, strict=True))

    def _store(self, batch: Iterable[_Pending | _Pin]) -> list[Entry | bool | ExequaturError]:
        """Write a batch in one transaction (J1): all of it is on disk when this returns, none of it if it raises."""
        execute = self._db.execute
        outcomes: list[Entry | bool | ExequaturError] = []
        pins: dict[str, str] = {}
        size, head = self._size, self._head
        execute("BEGIN IMMEDIATE")
        try:
            for item in batch:
                if isinstance(item, _Pin):
                    execute(_PIN, (item.grant, item.first_run))
                    (pinned,) = execute("SELECT first_run FROM pins WHERE grant_id = ?", (item.grant,)).fetchone()
                    pins[item.grant] = pinned
                    outcomes.append(pinned == item.first_run)
                    continue
                new_head = self._insert(size, head, item)
                if new_head is None and self._is_reset(item):
                    if not item.reset:
                        outcomes.append(_replayed(item, RepeatedRequestError))
                        continue
                    new_head = self._insert(size, head, item.once_more())
                if new_head is None:
                    outcomes.append(_replayed(item))
                    continue
                outcomes.append(Entry(size, head_text(new_head)))
                size, head = size + 1, new_head
            self._unconfirmed = (size, head)
            self._commit()
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.rollback()
            raise
        self._unconfirmed = None
        self._size, self._head = size, head
        if pins:
            self._remember(pins)
        return outcomes

    def _insert(self, size: int, head: bytes, item: _Pending) -> bytes | None:
        """Put a record at the end; gives the new head, or ``None`` if the request was used before."""
        new_head = hashlib.sha256(head + item.digest).digest()
        try:
            self._db.execute(_INSERT, (size, *item.columns, new_head))
        except sqlite3.IntegrityError as error:
            # A taken position (PRIMARYKEY) is not a replay but a second writer, and fails the batch.
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise
            return None
        return new_head

    def _is_reset(self, item: _Pending) -> bool:
        """Whether a request that was used is used for a later attempt of the same activity (J3)."""
        _, _, request, run, attempt, body = item.columns
        row = self._db.execute(_USES, (run, attempt, request, f"{request}@", f"{request}A")).fetchone()
        (used, before), (asked, now) = _use_of(row[0] if row else b""), _use_of(body)
        return used is not None and used == asked and before < now

    def _commit(self) -> None:
        self._db.execute("COMMIT")

    def _remember(self, pins: dict[str, str]) -> None:
        with self._pins_guard:
            self._pins.update(pins)
            while len(self._pins) > _PINS_REMEMBERED:
                self._pins.popitem(last=False)

    def _deliver(self, outcomes: Iterable[tuple[_Pending | _Pin, Entry | bool | ExequaturError]]) -> None:
        """Wake each event loop once for all of its waiters in the batch."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Entry | bool | ExequaturError]]] = {}
        for item, outcome in outcomes:
            if item.future is not None:
                by_loop.setdefault(item.future.get_loop(), []).append((item.future, outcome))
        for loop, resolved in by_loop.items():
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, resolved)

    def _keep(self, item: _Pending | _Pin) -> None:
        if len(self._kept) < _KEPT:
            self._kept.append(item)
            return
        if not self._dropped % 1000:
            _log.error("%s: %d records are waiting for the journal; new ones are being lost", self._path, _KEPT)
        self._dropped += 1

    def _fail(self, error: Exception) -> None:
        before, self._retry_at = self._failure, time.monotonic() + self._retry_interval
        reason = str(error) if isinstance(error, JournalError) else f"{self._path}: {error!r}; {next_step(error)}"
        self._failure = JournalError(f"{reason} (tried again every {self._retry_interval:g} s)")
        if before is None:
            _log.error("the evidence journal cannot be written, nothing is authorized: %s", self._failure)
            self._let_go()
            self._announce(False)

    def _announce(self, healthy: bool) -> None:
        for callback in list(self._observers):
            try:
                callback(healthy)
            except Exception:
                _log.exception("a callback for the journal's health failed")

    def _recover(self) -> None:
        try:
            self._db.close()
            self._db = self._connect(new=False)
            self._confirm()
            self._trial()
            self._identify()
            while self._kept:
                oldest = list(islice(self._kept, _BATCH))
                self._store(oldest)
                for _ in oldest:
                    self._kept.popleft()
        except Exception as error:  # as in _serve
            self._fail(error)
            return
        self._failure = None
        _log.warning("%s: the journal can be written again, %d records were lost so far", self._path, self._dropped)
        self._announce(True)

    def _connect(self, *, new: bool) -> sqlite3.Connection:
        with FailuresNamed(self._path):
            if new:
                _make_private(self._path)
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            db = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None, check_same_thread=False)
            try:
                if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                    raise JournalError(f"{self._path}: this file system cannot hold the journal; use a local disk")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves the data in the drive's cache
                if new and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    db.execute("BEGIN IMMEDIATE")
                    for statement in SCHEMA:
                        db.execute(statement)
                    db.execute("INSERT INTO meta VALUES ('log_id', ?), ('trial', x'')", (secrets.token_hex(8),))
                    db.execute("COMMIT")
                    _sync_folder(self._path.parent)
            except BaseException:
                db.close()
                raise
        return db

    def _confirm(self) -> None:
        """Make sure that the file which was opened again is the log as it was left (J5)."""
        log_id = log_id_of(self._db, self._path)
        found = tail_of(self._db, log_id, self._path)
        if _identity(str(self._path))[:2] != self._confirmed:
            # The end says nothing about the rest of another file, nor about the index that keeps requests single.
            found = whole_of(self._db, log_id, self._path)
            (sound,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                raise JournalError(f"{self._path}: changed under us: {sound}; put the right file back")
        if log_id == self._log_id and found == self._unconfirmed and found != (self._size, self._head):
            # The commit was reported as failed but had reached the disk. Its waiters were told otherwise (J1), and
            # nobody was given these positions.
            self._db.execute("DELETE FROM records WHERE idx >= ?", (self._size,))
            found = tail_of(self._db, log_id, self._path)
        if log_id != self._log_id or found != (self._size, self._head):
            raise JournalError(
                f"{self._path}: changed under us: {self._size} records of log {self._log_id} were written, the file "
                f"holds {found[0]} of log {log_id}; put the right file back, or restart the worker"
            )
        self._unconfirmed = None

    def _trial(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for size in (_TRIAL_BYTES, 0):
            self._db.execute("UPDATE meta SET value = zeroblob(?) WHERE name = 'trial'", (size,))

    def _identify(self) -> None:
        wal = self._path.with_name(self._path.name + "-wal")
        lock = self._path.with_suffix(".lock")
        self._confirmed = _identity(str(self._path))[:2]
        self._files = {str(file): _identity(str(file)) for file in (self._path, wal, lock)}
        # The lock itself is compared with what we hold: a new file at its path is a lock that others can take.
        if self._lock is None or self._files[str(lock)] != _identity(self._lock):
            raise JournalError(f"{lock}: replaced while in use; restart the worker")
        self._examined = 0.0
        self._examine()

    def _examine(self) -> None:
        """See whether what is written still lands in the files that the next process will read (J5)."""
        now = time.monotonic()
        if now - self._examined < _EXAMINE_INTERVAL:
            return
        for file, identity in self._files.items():
            found = _identity(file)
            if found[:2] != identity[:2]:
                raise JournalError(f"{file}: replaced while in use; put the original back or restart the worker")
            if found[2] != 0o600:
                raise JournalError(f"{file}: its permissions became {found[2]:o}; run chmod 600 {file}")
        self._examined = now


def _resolve(resolved: list[tuple[asyncio.Future[Any], Entry | bool | ExequaturError]]) -> None:
    for future, outcome in resolved:
        if future.done():  # cancelled: the record is stored, nobody waits for it
            continue
        if isinstance(outcome, ExequaturError):
            # One exception a waiter: raising it grows its traceback.
            future.set_exception(type(outcome)(*outcome.args))
        else:
            future.set_result(outcome)


def _use_of(body: bytes) -> tuple[tuple[str, float] | None, float]:
    """Which activity a decision was about, and when its attempt was scheduled; nothing where it does not say."""
    try:
        said = strict_json(body)
        if not isinstance(said, dict):
            return None, math.inf
        return (str(said["activity_id"]), float(said["first_scheduled"])), float(said["scheduled"])
    except (ValueError, TypeError, KeyError, OverflowError):  # of an earlier version, or a local activity's
        return None, math.inf


def _replayed(item: _Pending, error: type[ReplayedRequestError] = ReplayedRequestError) -> ReplayedRequestError:
    _, _, request, run, attempt, _ = item.columns
    return error(
        f"request {request} was already used for attempt {attempt} of run {run}; the workflow must schedule the "
        "activity again to get a new request"
    )


def _claim(folder: Path) -> tuple[Path, int]:
    for number in count():
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(lock, 0o600)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:
            os.close(lock)
            raise
        return folder / f"{number}.db", lock
    raise AssertionError


def _make_private(path: Path) -> None:
    # By name, never through a descriptor of our own: closing that would release SQLite's POSIX locks on the file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for file in (path, path.with_name(path.name + "-wal")):
        if file.exists():
            file.chmod(0o600)


def _identity(file: str | int) -> tuple[int, int, int]:
    status = os.stat(file)  # noqa: PTH116 (a descriptor, too)
    return status.st_dev, status.st_ino, status.st_mode & 0o777


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_open_journals: set[Journal] = set()
_inherited: list[Journal] = []


@atexit.register
def _close_all() -> None:
    for journal in list(_open_journals):
        with suppress(JournalError):  # logged by the writer
            journal.close()


def _disown() -> None:
    """In a forked child: let go of the lock, or the file could not be taken over while the child lives (J4)."""
    # Kept alive: to close the inherited connection would be to use it.
    _inherited.extend(_open_journals)
    _open_journals.clear()
    for journal in _inherited:
        if journal._lock is not None:
            os.close(journal._lock)
            journal._lock = None


os.register_at_fork(after_in_child=_disown)
