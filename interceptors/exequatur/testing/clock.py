"""What time it is for the gate in a test.

Everything in the gate that asks for the time asks ``Gate.clock``: grants and their end, credentials, requests,
``context.now``, ``@ttl``. A test may put one of these clocks there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from temporalio import activity, workflow

from exequatur.gate.gate import LATEST
from exequatur.statements.recent import Recent

_REMEMBERED = 4096
"""Runs and tasks whose time is remembered."""


class Clock:
    """The machine's clock, moved ahead by hand.

    It only goes forward: a key is not trusted for a time before it was made.
    """

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    @property
    def now(self) -> datetime:
        """The time that it shows, in UTC."""
        return datetime.fromtimestamp(self(), UTC)

    def advance(self, by: timedelta) -> None:
        """Move it ahead.

        Raises:
            ValueError: It would go back, or beyond the year 2100.
        """
        if by < timedelta():
            raise ValueError("the clock only goes forward; give a duration that is not negative")
        if self() + by.total_seconds() > LATEST:
            raise ValueError("the clock would show more than the year 2100, which no gate believes")
        self._ahead += by.total_seconds()

    def advance_to(self, moment: datetime) -> None:
        """Move it ahead to a moment.

        Args:
            moment: Aware, and not earlier than what the clock shows.

        Raises:
            ValueError: It is not aware, is past, or lies beyond the year 2100.
        """
        if moment.tzinfo is None:
            raise ValueError("the moment has no time zone; write datetime(..., tzinfo=UTC)")
        self.advance(moment - self.now)


class EnvironmentClock:
    """The clock of a workflow environment whose time is not the machine's.

    A time-skipping server is ahead of the machine, in newer ones each workflow by as much as it has skipped. So the
    time is asked of whom it is for: in a workflow it is the workflow's, in an activity it goes on from when the server
    says that the attempt was started, and elsewhere it is what the environment showed last.

    Args:
        machine: The machine's clock, in seconds since 1970.
    """

    def __init__(self, machine: Callable[[], float] = time.time) -> None:
        self._machine = machine
        self._ahead = 0.0
        self._runs: Recent[str, float] = Recent(_REMEMBERED)
        self._tasks: Recent[bytes, float] = Recent(_REMEMBERED)

    def showed(self, moment: float) -> None:
        """The environment has just shown this time, in seconds since 1970."""
        self._ahead = moment - self._machine()

    def __call__(self) -> float:
        machine = self._machine()
        if workflow.in_workflow():
            return self._of_run(machine)
        if activity.in_activity():
            return machine + self._of_attempt(activity.info(), machine)
        return machine + self._ahead

    def _of_run(self, machine: float) -> float:
        run = workflow.info().run_id
        if workflow.unsafe.is_replaying():
            # The workflow's time is that of the past which is repeated.
            known = self._runs.get(run)
            return machine + (self._ahead if known is None else known)
        now = workflow.time()
        self._runs.put(run, now - machine)
        return now

    def _of_attempt(self, info: activity.Info, machine: float) -> float:
        if info.is_local:
            # Its times are the machine's: the server does not know of it yet.
            known = self._runs.get(info.workflow_run_id or "")
            return self._ahead if known is None else known
        known = self._tasks.get(info.task_token)
        if known is None:
            known = info.started_time.timestamp() - machine
            self._tasks.put(info.task_token, known)
        return known
