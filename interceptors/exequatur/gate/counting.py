"""What is shared about the past: what a grant served, and what principals did. Kept in a ledger, off the event loop.

One thread talks to the ledger, so that many attempts share a transaction, and nobody's event loop waits for a database.

Rules, numbered as the code marks them:

C1  What a policy is told of behaviour was counted before it was asked: the attempt stands in the ledger, with its
     cost, and its numbers are those of what stands before it. Two hosts cannot both spend the last of a budget.
C2  Where it cannot be counted and a policy would read it, it is not known, and nothing runs.
C3  What came of an attempt is an event, too. Refused by policy: its cost is given back, and it counts as a denial.
     Refused otherwise, or not decided: it counts for nothing.
C4  Every event is in the evidence of whoever wrote it, with its position. What a crash kept from it is added when the
     ledger is opened next.
C5  Behaviour is counted from when a policy in force can read it, whatever the activity, and always with shared state.
     Where the policies for an activity do not read it, the activity does not wait for it.
C6  A ledger that has lost what this host wrote is not counted on, and neither is another one in its place, until a
    worker is started with it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from exequatur.behavior.arguments import Features
from exequatur.behavior.baseline import Baseline
from exequatur.behavior.told import told_of
from exequatur.errors import ConfigurationError, EvidenceError, ExequaturError, JournalError
from exequatur.lineage.event import Counted, Event, Numbers
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import last_of
from exequatur.settings import Settings

if TYPE_CHECKING:  # at run time only what a worker with a ledger uses
    from exequatur.lineage.ledger import Ledger

logger = logging.getLogger("exequatur")

LEDGER = "ledger.db"
"""In the state folder, where no database is shared."""
RECORD = "behavior"
"""The kind of the journal's records of events."""
BASELINE_RECORD = "baseline"

_BATCH = 64
_LINGER = 0.1
"""Seconds that what nobody waits for may stay in memory."""
_RETRY = 0.5
"""Seconds between two attempts to reach a ledger that is down."""
_KEPT = 10_000
"""Events that nobody waits for and that are held while the ledger is down."""
_PINS_REMEMBERED = 10_000
_OPENING = "it is being opened"
_END = 5.0
"""Seconds that the end of the last worker waits for what is still to be written."""


class Reservation:
    """An attempt in the ledger, or on its way there."""

    __slots__ = ("counted", "event", "features", "numbers", "over")

    def __init__(self, event: Event, features: Features) -> None:
        self.event = event
        self.features = features
        self.counted: Counted | None = None
        self.numbers: Numbers | None = None
        self.over = False
        """It was told what came of it, other than how long it ran."""

    def told(self, baseline: Baseline | None) -> dict[str, Any] | None:
        """``context.behavior``; ``None`` where nobody waited for the numbers."""
        if self.counted is None or self.numbers is None:
            return None
        return told_of(self.counted.event, self.numbers, self.features, baseline)

    def place(self, baseline: Baseline | None) -> dict[str, Any] | None:
        """Where it stands, for the evidence."""
        if self.counted is None or self.numbers is None:
            return None
        named = {} if baseline is None else {"baseline": baseline.digest}
        return {"ledger": self.counted.ledger, "position": self.counted.position, **named}


@dataclass(slots=True)
class _Pin:
    name: str
    holder: str
    future: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class _Entry:
    """An event to be written: of ``of`` the attempt that it is about, or the attempt itself."""

    of: Reservation
    event: Event
    future: asyncio.Future[Any] | None = None

    @property
    def asks(self) -> bool:
        return self.event.kind == "asked"

    @property
    def forsaken(self) -> bool:
        """Whether who waited for it was told that it is not counted, and may have asked again."""
        return self.future is not None and self.future.done()

    def is_at(self, event: Event) -> bool:
        """Whether an event that stands in the ledger is this one."""
        if self.asks or event.kind != self.event.kind:
            return event.model_copy(update={"before": None}) == self.event
        return self.of.counted is not None and event.of == self.of.counted.position


class Counting:
    """Keeps the ledger of one plugin.

    Args:
        settings: Where the ledger is, how long to wait for it, and the baseline.
        state_dir: Where it is when no database is shared.

    Raises:
        ConfigurationError: The packages for a shared database are not installed, or the baseline cannot be used.
    """

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        self.shared = settings.shared_state is not None
        """Whether what is used once is used once among all hosts."""
        self.baseline: Baseline | None = None
        if settings.behavior_baseline is not None:
            self.baseline = Baseline.read(Path(settings.behavior_baseline))
        if self.shared:
            _kind()
        self._where = settings.shared_state or str(state_dir / LEDGER)
        self._patience = max(1.0, settings.unavailable_wait.total_seconds())
        self._journal: Journal | None = None
        self._ledger: Ledger | None = None
        self._same: str | None = None
        """Id of the ledger that was used first."""
        self._problem: str | None = _OPENING
        self._retry_at = 0.0
        self._queue: queue.SimpleQueue[_Pin | _Entry | None] = queue.SimpleQueue()
        self._entries: deque[_Entry] = deque()
        self._unsure: list[_Entry] = []
        """Whoever waited for them was told that they are not stored; they may be, all the same."""
        self._dropped = 0
        self._entrance = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pins: OrderedDict[str, str] = OrderedDict()

    @property
    def problem(self) -> str | None:
        """Why nothing can be shared or counted now, or ``None`` when it can."""
        return self._problem if self._problem is None else f"the ledger cannot be used: {self._problem}"

    def start(self, journal: Journal) -> None:
        """Begin; the events go into this journal, too."""
        with self._entrance:
            self._journal, self._queue = journal, queue.SimpleQueue()
            self._problem, self._retry_at, self._same = _OPENING, 0.0, None
            if self.shared:
                self._begin()
        if self.baseline is not None:
            with suppress(JournalError, ValueError):  # then the first decision cannot be recorded, either
                journal.enqueue(BASELINE_RECORD, self.baseline.text)

    def stop(self) -> None:
        """Write what is waiting, if that is quick, and let go."""
        with self._entrance:
            thread, self._thread, self._journal = self._thread, None, None
            if thread is None:
                return
            self._queue.put(None)
        thread.join(_END)
        if thread.is_alive():
            logger.warning("What was counted last is still being written to the ledger")

    async def pin(self, name: str, holder: str) -> bool:
        """As :meth:`exequatur.lineage.ledger.Ledger.pin`.

        Raises:
            JournalError: It could not be remembered.
        """
        known = self._pins.get(name)
        if known is not None:
            return known == holder
        item = _Pin(name, holder, asyncio.get_running_loop().create_future())
        mine: bool = await self._waited(item, item.future)
        return mine

    async def ask(self, reservation: Reservation) -> None:
        """Put an attempt into the ledger, and find out what stands before it (C1).

        Raises:
            JournalError: It could not be counted (C2).
        """
        future = asyncio.get_running_loop().create_future()
        await self._waited(_Entry(reservation, reservation.event, future), future)

    def note(self, reservation: Reservation) -> None:
        """Put an attempt into the ledger without waiting (C5)."""
        self._unhurried(_Entry(reservation, reservation.event))

    def denied(self, reservation: Reservation, *, ran: bool) -> None:
        """C3: it was refused by policy.

        Args:
            reservation: The attempt.
            ran: It ran all the same, because it was only observed.
        """
        if not reservation.over:
            self._unhurried(_end_of(reservation, "denied", 0 if ran else reservation.event.cost))

    def voided(self, reservation: Reservation) -> None:
        """C3: it was refused otherwise, or could not be decided."""
        if not reservation.over:
            self._unhurried(_voided(reservation))

    def ended(self, reservation: Reservation, took: float) -> None:
        """Its body is over.

        Args:
            reservation: The attempt.
            took: Seconds.
        """
        changed = {"kind": "ended", "cost": 0, "took": max(0, round(took * 1000)), "before": None, "shape": ""}
        self._unhurried(_Entry(reservation, reservation.event.model_copy(update=changed)))

    async def _waited(self, item: _Pin | _Entry, future: asyncio.Future[Any]) -> Any:
        self._put(item)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._patience)
        except TimeoutError:
            raise JournalError("the ledger does not answer; check that its database can be reached") from None
        finally:
            future.cancel()  # if it is not done: nobody will use what comes of it

    def _put(self, item: _Pin | _Entry) -> None:
        with self._entrance:
            if self._journal is None or not self._journal.ours:
                raise JournalError("The ledger is open only while a worker runs")
            self._begin()
            self._queue.put(item)

    def _unhurried(self, item: _Entry) -> None:
        """Never raises: what came of an attempt must not depend on it."""
        try:
            self._put(item)
        except JournalError:
            logger.warning("What was done is not counted, because no worker runs any more")

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._journal, self._queue), name="exequatur-ledger", daemon=True
            )
            self._thread.start()

    # What follows runs in the thread only.

    def _run(self, journal: Journal, waiting: queue.SimpleQueue[_Pin | _Entry | None]) -> None:
        going_on, give_up = True, 0.0
        while going_on or (self._entries and time.monotonic() < give_up):
            batch, more = _taken(waiting)
            if going_on and not more:
                going_on, give_up = False, time.monotonic() + _END / 2
            pins = [item for item in batch if isinstance(item, _Pin)]
            self._entries.extend(item for item in batch if isinstance(item, _Entry))
            try:
                self._work(journal, pins)
            except Exception as error:  # this thread must not end, and nobody may be left waiting
                if not isinstance(error, ExequaturError):
                    logger.exception("Counting failed; it is tried again")
                self._failed(error, pins)
        if self._entries:
            logger.error("%d events are not in the ledger, because %s", len(self._entries), self._problem)
            self._entries.clear()
        self._close("no worker runs")

    def _work(self, journal: Journal, pins: Sequence[_Pin]) -> None:
        if self._ledger is None:
            if time.monotonic() < self._retry_at:
                raise JournalError(self._problem or "")
            self._retry_at = time.monotonic() + _RETRY
            self._ledger = self._opened(journal)
            if self._problem != _OPENING:
                logger.warning("The ledger %s can be used again", self._ledger)
            self._problem = None
        if pins:
            answers = self._ledger.pins([(pin.name, pin.holder) for pin in pins])
            for pin, mine in zip(pins, answers, strict=True):
                if mine:
                    self._remember(pin)
                _deliver(pin.future, mine)
        while self._entries:
            self._write(self._ledger, journal)

    def _opened(self, journal: Journal) -> Ledger:
        """Open the ledger, and find out what of it is not in the evidence of this folder (C4)."""
        ledger = _kind().open(self._where)
        try:
            if self._same not in (None, ledger.id):  # [C6]
                raise EvidenceError(f"{ledger}: another ledger took the place of {self._same}; restart the worker")
            _, told = _told_last(journal.path)
            if self._same is None and told is not None and told.ledger != ledger.id:
                logger.warning(
                    "Until now it was counted in ledger %s; from now on it is in %s, anew", told.ledger, ledger
                )
            lost = [*self._unsure, *self._entries]
            for counted in _unrecorded(ledger, journal.path):
                _record(journal, counted)  # [C4]
                # It was stored although the database could not say so any more.
                entry = next((each for each in lost if each.is_at(counted.event)), None)
                if entry is not None:
                    lost.remove(entry)
                    self._settled(entry, counted)
            # Of processes that have ended. What one that lives is about to record, it records once more.
            for path in sorted(journal.path.parent.glob("*.db")):
                if path != journal.path:
                    with suppress(JournalError):  # whoever opens that journal is told
                        for counted in _unrecorded(ledger, path):
                            _record(journal, counted)  # [C4]
        except BaseException:
            ledger.close()
            raise
        self._unsure, self._same = [], ledger.id
        return ledger

    def _settled(self, entry: _Entry, counted: Counted) -> None:
        if entry in self._entries:
            self._entries.remove(entry)
        if entry.asks:
            entry.of.counted = counted
            if entry.future is not None:  # whoever waited was told that it is not counted
                self._entries.appendleft(_voided(entry.of))  # [C3]

    def _write(self, ledger: Ledger, journal: Journal) -> None:
        """Write what comes next, as much at once as names what is written already."""
        self._entries = deque(entry for entry in self._entries if not entry.forsaken)  # [C3]
        some: list[_Entry] = []
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
        written = iter(ledger.add(rows, log_id=journal.log_id))
        back: list[_Entry] = []
        for entry in some:
            self._entries.popleft()
            if not entry.asks and entry.of.counted is None:
                continue  # what it is about was never counted
            counted, numbers = next(written)
            _record(journal, counted)
            if entry.asks:
                entry.of.counted, entry.of.numbers = counted, numbers
            if entry.forsaken:
                back.append(_voided(entry.of))
            elif entry.future is not None:
                _deliver(entry.future, None, partial(self.voided, entry.of))
        self._entries.extendleft(back)  # [C3] whoever asked again comes after it

    def _failed(self, error: Exception, pins: Sequence[_Pin]) -> None:
        waited = [entry for entry in self._entries if entry.future is not None]
        self._entries = deque(entry for entry in self._entries if entry.future is None)
        if self._ledger is not None:  # else none of it was sent
            self._unsure += waited
        while len(self._entries) > _KEPT:
            self._entries.popleft()
            self._dropped += 1
            if self._dropped % 1000 == 1:
                logger.error("%d events waited for the ledger; older ones are being lost", _KEPT)
        if self._ledger is not None or self._problem in (None, _OPENING):
            logger.error("The ledger cannot be used: %s", error)
        self._close(str(error))
        problem = JournalError(self.problem or "the ledger cannot be used")
        for future in (*(pin.future for pin in pins), *(entry.future for entry in waited)):
            if future is not None:
                _deliver(future, problem)

    def _close(self, problem: str) -> None:
        ledger, self._ledger, self._problem = self._ledger, None, problem
        if ledger is not None:
            ledger.close()

    def _remember(self, pin: _Pin) -> None:
        self._pins[pin.name] = pin.holder
        while len(self._pins) > _PINS_REMEMBERED:
            self._pins.popitem(last=False)


def _voided(reservation: Reservation) -> _Entry:
    return _end_of(reservation, "voided", reservation.event.cost)


def _end_of(reservation: Reservation, kind: str, cost: int) -> _Entry:
    """What came of an attempt, as an event to be written."""
    reservation.over = True
    changed = {"kind": kind, "cost": cost, "before": None, "shape": ""}
    return _Entry(reservation, reservation.event.model_copy(update=changed))


def _kind() -> type[Ledger]:
    try:
        from exequatur.lineage.ledger import Ledger
    except ModuleNotFoundError as err:
        raise ConfigurationError(
            f"the ledger needs {err.name}, which is not installed; run: pip install 'exequatur[store]'"
        ) from err
    return Ledger


def _taken(waiting: queue.SimpleQueue[_Pin | _Entry | None]) -> tuple[list[_Pin | _Entry], bool]:
    """What is waiting, as soon as somebody waits for one of it; and whether there is more to come."""
    batch: list[_Pin | _Entry] = []
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
    if last >= ledger.size():  # [C6]
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
