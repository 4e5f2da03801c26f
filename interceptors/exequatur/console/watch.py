"""What the page about health knows: reports and probes, looked at in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exequatur.console.probes import WITHIN, Probe, Service
from exequatur.console.repeated import Repeated
from exequatur.console.workers import Reports
from exequatur.errors import PolicyError
from exequatur.release.report import InForceReport, read_all_reports

_EVERY = 1.0
"""Seconds between two looks at the reports."""


class Watch:
    """Looks at the workers' reports and at what they stand on.

    Args:
        states: State folders with reports.
        probes: What they stand on.
    """

    def __init__(self, states: Sequence[Path], probes: Sequence[Probe]) -> None:
        self._states = tuple(dict.fromkeys(each.resolve() for each in states))
        self._probes = tuple(probes)
        self._reports = Repeated("reports", self._read, _EVERY)
        self._looks: tuple[Repeated[Any], ...] = (self._reports, *(each.repeated for each in self._probes))

    def start(self) -> None:
        """Begin to look."""
        for each in self._looks:
            each.start()

    def close(self) -> None:
        """Look no more."""
        for each in self._looks:
            each.close()

    def look(self) -> None:
        """Look at the reports once."""
        self._reports.look()

    def reports(self) -> Reports:
        """What the last look at the reports showed. Never waits."""
        seen = self._reports.seen()
        known = replace(seen.value or Reports(), age=seen.age)
        if seen.late > WITHIN:
            return replace(known, unread=f"{self._states[0]}: no answer within {WITHIN:.0f} s")
        if seen.value is None and seen.at is not None:
            return replace(known, unread="the console's log says why")
        return known

    def services(self) -> tuple[Service, ...]:
        """What the probes know. Never waits."""
        return tuple(each.service() for each in self._probes)

    def _read(self) -> Reports:
        running: list[InForceReport] = []
        ended: list[InForceReport] = []
        problems: list[str] = []
        unread: str | None = None
        for state in self._states:
            try:
                found = read_all_reports(state)
            except PolicyError as error:
                unread = unread or str(error)
            else:
                running += found[0]
                ended += found[1]
                problems += found[2]
        return Reports(tuple(running), tuple(ended), tuple(problems), unread)
