"""What is shared about the past: what a grant served, and what principals did. Kept in a ledger, off the event loop.

Rules, numbered as the code marks them:

C1  What a policy is told of behaviour was counted before it was asked: the attempt stands in the ledger, with its
     cost, and its numbers are those of what stands before it. Two hosts cannot both spend the last of a budget.
C2  Where it cannot be counted and a policy would read it, it is not known, and nothing runs.
C3  What came of an attempt is an event, too. Refused by policy: its cost is given back, and it counts as a denial.
     Refused otherwise, or not decided: it counts for nothing.
C4  Behaviour is counted from when a policy in force can read it, whatever the activity, and always with shared state.
     Where the policies for an activity do not read it, the activity does not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from exequatur.behavior.baseline import Baseline
from exequatur.errors import JournalError
from exequatur.gate.reservation import Entry, Pin, Reservation, end_of, voided
from exequatur.gate.writer import CLOSED, Writer, ledgers
from exequatur.lineage.journal import Journal
from exequatur.settings import Settings

logger = logging.getLogger("exequatur")

LEDGER = "ledger.db"
"""In the state folder, where no database is shared."""
BASELINE_RECORD = "baseline"
_PINS_REMEMBERED = 10_000


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
            ledgers()
        self._where = settings.shared_state or str(state_dir / LEDGER)
        self._patience = max(1.0, settings.unavailable_wait.total_seconds())
        self._writer: Writer | None = None
        self._pins: OrderedDict[str, str] = OrderedDict()

    @property
    def problem(self) -> str | None:
        """Why nothing can be shared or counted now, or ``None`` when it can."""
        return CLOSED if self._writer is None else self._writer.problem

    def start(self, journal: Journal) -> None:
        """Begin; the events go into this journal, too."""
        unsure = () if self._writer is None else self._writer.unsure
        self._writer = Writer(self._where, journal, self.voided, unsure)
        if self.shared:
            self._writer.begin()
        if self.baseline is not None:
            with suppress(JournalError, ValueError):  # then the first decision cannot be recorded, either
                journal.enqueue(BASELINE_RECORD, self.baseline.text)

    def stop(self) -> None:
        """Write what is waiting, if that is quick, and let go."""
        if self._writer is not None:
            self._writer.stop()

    async def pin(self, name: str, holder: str) -> bool:
        """As :meth:`exequatur.lineage.ledger.Ledger.pin`.

        Raises:
            JournalError: It could not be remembered.
        """
        known = self._pins.get(name)
        if known is not None:
            return known == holder
        item = Pin(name, holder, asyncio.get_running_loop().create_future())
        mine: bool = await self._waited(item, item.future)
        if mine:
            self._pins[name] = holder
            if len(self._pins) > _PINS_REMEMBERED:
                self._pins.popitem(last=False)
        return mine

    async def ask(self, reservation: Reservation) -> None:
        """Put an attempt into the ledger, and find out what stands before it (C1).

        Raises:
            JournalError: It could not be counted (C2).
        """
        future = asyncio.get_running_loop().create_future()
        await self._waited(Entry(reservation, reservation.event, future), future)

    def note(self, reservation: Reservation) -> None:
        """Put an attempt into the ledger without waiting (C4)."""
        self._unhurried(Entry(reservation, reservation.event))

    def denied(self, reservation: Reservation, *, ran: bool) -> None:
        """C3: it was refused by policy.

        Args:
            reservation: The attempt.
            ran: It ran all the same, because it was only observed.
        """
        if not reservation.over:
            self._unhurried(end_of(reservation, "denied", 0 if ran else reservation.event.cost))

    def voided(self, reservation: Reservation) -> None:
        """C3: it was refused otherwise, or could not be decided."""
        if not reservation.over:
            self._unhurried(voided(reservation))

    def ended(self, reservation: Reservation, took: float) -> None:
        """Its body is over.

        Args:
            reservation: The attempt.
            took: Seconds.
        """
        changed = {"kind": "ended", "cost": 0, "took": max(0, round(took * 1000)), "before": None, "shape": ""}
        self._unhurried(Entry(reservation, reservation.event.model_copy(update=changed)))

    async def _waited(self, item: Pin | Entry, future: asyncio.Future[Any]) -> Any:
        self._put(item)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._patience)
        except TimeoutError:
            raise JournalError("the ledger does not answer; check that its database can be reached") from None
        finally:
            future.cancel()  # if it is not done: nobody will use what comes of it

    def _put(self, item: Pin | Entry) -> None:
        if self._writer is None:
            raise JournalError(CLOSED)
        self._writer.put(item)

    def _unhurried(self, item: Entry) -> None:
        """Never raises: what came of an attempt must not depend on it."""
        try:
            self._put(item)
        except JournalError:
            logger.warning("What was done is not counted, because no worker runs any more")
