"""An attempt that is counted, and what is to be told of it to the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from exequatur.behavior.arguments import Features
from exequatur.behavior.baseline import Baseline
from exequatur.behavior.told import told_of
from exequatur.lineage.event import Counted, Event, Numbers


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
class Pin:
    name: str
    holder: str
    future: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class Entry:
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


def voided(reservation: Reservation) -> Entry:
    return end_of(reservation, "voided", reservation.event.cost)


def end_of(reservation: Reservation, kind: str, cost: int) -> Entry:
    """What came of an attempt, as an event to be written."""
    reservation.over = True
    changed = {"kind": kind, "cost": cost, "before": None, "shape": ""}
    return Entry(reservation, reservation.event.model_copy(update=changed))
