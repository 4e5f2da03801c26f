"""The thread that keeps the ledger: it writes what is to be counted, and tells whoever waits for the numbers.

One thread, so that many attempts share a transaction, and nobody's event loop waits for a database.

Rules, numbered as the code marks them:

W1  Every event is in the evidence of whoever wrote it, with its position. What a crash kept from it is added when the
     ledger is opened next.
W2  A ledger that has lost what this host wrote is not counted on, and neither is another one in its place, until a
     worker is started with it.
W3  Whoever was told that an attempt is not counted may ask again: what is in the ledger of the first time is voided.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from exequatur.errors import ConfigurationError, EvidenceError, ExequaturError, JournalError
from exequatur.gate.reservation import Entry, Pin, Reservation, voided
from exequatur.lineage.event import Counted, Event
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import last_of

if TYPE_CHECKING:  # at run time only what a worker with a ledger uses
    from exequatur.lineage.ledger import Ledger

logger = logging.getLogger("exequatur")

RECORD = "behavior"
"""The kind of the journal's records of events."""
CLOSED = "The ledger is open only while a worker runs"

_BATCH = 64
_LINGER = 0.1
"""Seconds that what nobody waits for may stay in memory."""
_RETRY = 0.5
"""Seconds between two attempts to reach a ledger that is down."""
_OPENING = "it is being opened"
_KEPT = 10_000
"""Events that nobody waits for and that are held while the ledger is down."""
_END = 5.0
"""Seconds that the end of the last worker waits for what is still to be written."""


class Writer:
    """Keeps a ledger for as long as workers run. The thread begins with the first event.

    Args:
        where: The file or the URL of the ledger.
        journal: The events go into it, too.
        void: Called for an attempt that is counted when nobody waits for it any more.
        unsure: What an earlier writer could not tell whether it is stored.
    """

    def __init__(
        self, where: str, journal: Journal, void: Callable[[Reservation], None], unsure: Sequence[Entry] = ()
    ) -> None:
        self.unsure = list(unsure)
        """Whoever waited for them was told that they are not stored; they may be, all the same."""
        self._where, self._journal, self._void = where, journal, void
        self._ledger: Ledger | None = None
        self._same: str | None = None
        """Id of the ledger that was used first."""
        self._trouble: str | None = _OPENING
        self._retry_at = 0.0
        self._queue: queue.SimpleQueue[Pin | Entry | None] = queue.SimpleQueue()
        self._entries: deque[Entry] = deque()
        self._dropped = 0
        self._entrance = threading.Lock()
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be shared or counted now, or ``None`` when it can."""
        return self._trouble if self._trouble is None else f"the ledger cannot be used: {self._trouble}"

    def begin(self) -> None:
        """Open the ledger before there is anything to write."""
        with self._entrance:
            self._begin()

    def put(self, item: Pin | Entry) -> None:
        """Have something written.

        Raises:
            JournalError: No worker runs any more.
        """
        with self._entrance:
            if self._stopped or not self._journal.ours:
                raise JournalError(CLOSED)
            self._begin()
            self._queue.put(item)

    def stop(self) -> None:
        """Write what is waiting, if that is quick, and let go."""
        with self._entrance:
            self._stopped, thread = True, self._thread
            if thread is None:
                return
            self._queue.put(None)
        thread.join(_END)
        if thread.is_alive():
            logger.warning("What was counted last is still being written to the ledger")

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="exequatur-ledger", daemon=True)
            self._thread.start()

    # What follows runs in the thread only.

    def _run(self) -> None:
        going_on, give_up = True, 0.0
        while going_on or (self._entries and time.monotonic() < give_up):
            batch, more = _taken(self._queue)
            if going_on and not more:
                going_on, give_up = False, time.monotonic() + _END / 2
            pins = [item for item in batch if isinstance(item, Pin)]
            self._entries.extend(item for item in batch if isinstance(item, Entry))
            try:
                self._work(pins)
            except Exception as error:  # this thread must not end, and nobody may be left waiting
                if not isinstance(error, ExequaturError):
                    logger.exception("Counting failed; it is tried again")
                self._failed(error, pins)
        if self._entries:
            logger.error("%d events are not in the ledger, because %s", len(self._entries), self._trouble)
            self._entries.clear()
        self._close("no worker runs")

    def _work(self, pins: Sequence[Pin]) -> None:
        if self._ledger is None:
            if time.monotonic() < self._retry_at:
                raise JournalError(self._trouble or "")
            self._retry_at = time.monotonic() + _RETRY
            self._ledger = self._opened()
            if self._trouble != _OPENING:
                logger.warning("The ledger %s can be used again", self._ledger)
            self._trouble = None
        if pins:
            answers = self._ledger.pins([(pin.name, pin.holder) for pin in pins])
            for pin, mine in zip(pins, answers, strict=True):
                _deliver(pin.future, mine)
        while self._entries:
            self._write(self._ledger)

    def _opened(self) -> Ledger:
        """Open the ledger, and find out what of it is not in the evidence of this folder (W1)."""
        ledger = ledgers().open(self._where)
        try:
            if self._same not in (None, ledger.id):  # [W2]
                raise EvidenceError(f"{ledger}: another ledger took the place of {self._same}; restart the worker")
            _, told = _told_last(self._journal.path)
            if self._same is None and told is not None and told.ledger != ledger.id:
                logger.warning(
                    "Until now it was counted in ledger %s; from now on it is in %s, anew", told.ledger, ledger
                )
            lost = [*self.unsure, *self._entries]
            for counted in _unrecorded(ledger, self._journal.path):
                _record(self._journal, counted)  # [W1]
                # It was stored although the database could not say so any more.
                entry = next((each for each in lost if each.is_at(counted.event)), None)
                if entry is not None:
                    lost.remove(entry)
                    self._settled(entry, counted)
            # Of processes that have ended. What one that lives is about to record, it records once more.
            for path in sorted(self._journal.path.parent.glob("*.db")):
                if path != self._journal.path:
                    with suppress(JournalError):  # whoever opens that journal is told
                        for counted in _unrecorded(ledger, path):
                            _record(self._journal, counted)  # [W1]
        except BaseException:
            ledger.close()
            raise
        self.unsure, self._same = [], ledger.id
        return ledger

    def _settled(self, entry: Entry, counted: Counted) -> None:
        if entry in self._entries:
            self._entries.remove(entry)
        if entry.asks:
            entry.of.counted = counted
            if entry.future is not None:  # whoever waited was told that it is not counted
                self._entries.appendleft(voided(entry.of))  # [W3]

    def _write(self, ledger: Ledger) -> None:
        """Write what comes next, as much at once as names what is written already."""
        self._entries = deque(entry for entry in self._entries if not entry.forsaken)  # [W3]
        some: list[Entry] = []
        rows: list[tuple[Event, bool]] = []
        for entry in islice(self._entries, _BATCH):
            about = entry.of.counted
            if not entry.asks and about is None and any(each.of is entry.of for each in some):
                break  # with the next: what it is about is written now
            some.append(entry)
            if entry.asks:
                rows.append((entry.event, entry.future is not None))
            elif about is not None:
                rows.append((entry.event.model_copy(update={"of": about.position}), False))
        written = iter(ledger.add(rows, log_id=self._journal.log_id))
        back: list[Entry] = []
        for entry in some:
            self._entries.popleft()
            if not entry.asks and entry.of.counted is None:
                continue  # what it is about was never counted
            counted, numbers = next(written)
            _record(self._journal, counted)
            if entry.asks:
                entry.of.counted, entry.of.numbers = counted, numbers
            if entry.forsaken:
                back.append(voided(entry.of))
            elif entry.future is not None:
                _deliver(entry.future, None, partial(self._void, entry.of))
        self._entries.extendleft(back)  # [W3] whoever asked again comes after it

    def _failed(self, error: Exception, pins: Sequence[Pin]) -> None:
        waited = [entry for entry in self._entries if entry.future is not None]
        self._entries = deque(entry for entry in self._entries if entry.future is None)
        if self._ledger is not None:  # else none of it was sent
            self.unsure += waited
        while len(self._entries) > _KEPT:
            self._entries.popleft()
            self._dropped += 1
            if self._dropped % 1000 == 1:
                logger.error("%d events waited for the ledger; older ones are being lost", _KEPT)
        if self._ledger is not None or self._trouble in (None, _OPENING):
            logger.error("The ledger cannot be used: %s", error)
        self._close(str(error))
        problem = JournalError(self.problem or "")
        for future in (*(pin.future for pin in pins), *(entry.future for entry in waited)):
            if future is not None:
                _deliver(future, problem)

    def _close(self, problem: str) -> None:
        ledger, self._ledger, self._trouble = self._ledger, None, problem
        if ledger is not None:
            ledger.close()


def ledgers() -> type[Ledger]:
    """The class of ledgers, which needs packages that only a worker with a ledger has.

    Raises:
        ConfigurationError: They are not installed.
    """
    try:
        from exequatur.lineage.ledger import Ledger
    except ModuleNotFoundError as err:
        raise ConfigurationError(
            f"the ledger needs {err.name}, which is not installed; run: pip install 'exequatur[store]'"
        ) from err
    return Ledger


def _taken(waiting: queue.SimpleQueue[Pin | Entry | None]) -> tuple[list[Pin | Entry], bool]:
    """What is waiting, as soon as somebody waits for one of it; and whether there is more to come."""
    batch: list[Pin | Entry] = []
    end = time.monotonic() + _LINGER
    while len(batch) < _BATCH:
        try:
            hurry = any(item.future is not None for item in batch)
            item = waiting.get(timeout=0 if hurry else max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if item is None:
            return batch, False
        batch.append(item)
    return batch, True


def _unrecorded(ledger: Ledger, path: Path) -> Iterator[Counted]:
    """The events that stand in a ledger behind the last one that a journal tells of.

    Raises:
        JournalError: The journal cannot be read, or was edited.
        EvidenceError: The ledger has lost what the journal tells of.
    """
    log_id, told = _told_last(path)
    last = told.position if told is not None and told.ledger == ledger.id else -1
    if last >= ledger.size():  # [W2]
        raise ledger.lost(last + 1)
    return ledger.events(after=last, log_id=log_id)


def _told_last(path: Path) -> tuple[str, Counted | None]:
    """The id of a journal, and the last event that it tells of."""
    log_id, body = last_of(path, RECORD)
    try:
        return log_id, None if body is None else Counted.model_validate_json(body)
    except ValidationError:
        raise JournalError(f"{path}: its last {RECORD} record cannot be read: the journal was edited") from None


def _record(journal: Journal, counted: Counted) -> None:
    try:
        journal.enqueue(RECORD, counted.record())
    except (JournalError, ValueError):
        logger.exception("What was counted is not in the evidence")


def _deliver(future: asyncio.Future[Any], outcome: Any, unclaimed: Callable[[], None] = lambda: None) -> None:
    """Wake whoever waits.

    Args:
        future: It waits for this.
        outcome: A result, or an exception.
        unclaimed: Called if nobody waits any more.
    """

    def resolve() -> None:
        if future.done():
            unclaimed()
        elif isinstance(outcome, BaseException):
            # One exception a waiter: raising it grows its traceback.
            future.set_exception(type(outcome)(*outcome.args))
        else:
            future.set_result(outcome)

    try:
        future.get_loop().call_soon_threadsafe(resolve)
    except RuntimeError:  # its loop was closed
        unclaimed()
