"""One run of a visitor: followed while it is open, from the server's history and the sandbox's journals."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.service import RPCError

from exequatur.console.sandbox.application import Planned
from exequatur.console.sandbox.limits import Limits
from exequatur.console.sandbox.steps import RunView, view_of
from exequatur.errors import JournalError
from exequatur.lineage.record import Record, read_from

logger = logging.getLogger("exequatur")

_LOOK = 0.15
"""Seconds between two looks at the journals of an open run, and at what it has done."""
_AGAIN = 1.0
"""Seconds after which the server is asked again whether it is there."""
_HEALTHY_WITHIN = timedelta(seconds=2)
_AWAY = "The Temporal server does not answer; what is shown is what was known last."
_PAGE = 1000
_PAGE_BYTES = 4 * 1024 * 1024
_MOST_RECORDS = 20_000
"""Of one sandbox; its bounds let it write far fewer."""
_OVERDUE = 30.0
"""Seconds behind the time that a run may take, after which its end is no longer awaited."""
_CLOSED_FOR = 0.5
"""Seconds after a run has closed in which its last records are still awaited."""


async def answers(client: Client) -> bool:
    """Whether the server answers, now."""
    try:
        return await client.service_client.check_health(timeout=_HEALTHY_WITHIN)
    except (RPCError, RuntimeError):
        return False


class JournalTail:
    """The records of a sandbox's journals, read as they come.

    Args:
        folder: Where the journals are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next: dict[Path, int] = {}
        self._records: list[Record] = []
        self._reading = threading.Lock()
        """Several runs are followed at a time."""

    def read(self) -> tuple[Record, ...]:
        """All records so far, by time. It blocks."""
        with self._reading:
            return self._read()

    def _read(self) -> tuple[Record, ...]:
        for path in sorted(self._folder.glob("*.db")):
            if len(self._records) >= _MOST_RECORDS:
                break
            try:
                _, found = read_from(path, self._next.get(path, 0), _PAGE, _PAGE_BYTES)
            except JournalError:  # it is just being made
                continue
            if found:
                self._next[path] = found[-1].index + 1
                self._records += found
        return tuple(sorted(self._records, key=lambda each: each.at))


class Run:
    """A run.

    Args:
        number: From 1; its name in the sandbox.
        planned: What it does.
        workflow_id: Its id on the server.
        client: Without the plugin.
        tail: Of the sandbox's journals.
        limits: How long it may take.
        changed: Called when there is something new to see.
        worked: Called now and then while its activities may have done something, and at the end.
    """

    def __init__(
        self,
        number: int,
        planned: Planned,
        workflow_id: str,
        client: Client,
        tail: JournalTail,
        limits: Limits,
        changed: Callable[[], None],
        worked: Callable[[], Awaitable[None]],
    ) -> None:
        self.number = number
        self.planned = planned
        self.workflow_id = workflow_id
        self.started = time.time()
        self.problem: str | None = None
        self.revoked = False
        self.answered: str | None = None
        self.refused: str | None = None
        self.lost = False
        self._client = client
        self._tail = tail
        self._limits = limits
        self._changed = changed
        self._worked = worked
        self._events: list[HistoryEvent] = []
        self.run_id: str | None = None
        self.view: RunView = view_of(planned, workflow_id, (), ())
        self._following: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        return self.view.state in ("starting", "running", "waiting")

    def history(self) -> WorkflowHistory:
        """What the server has told so far."""
        return WorkflowHistory(self.workflow_id, self._events)

    async def refuse(self, why: str) -> None:
        """It was not started."""
        self.refused = why
        await self._look()

    def follow(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Begin to follow it."""
        self.run_id = handle.result_run_id
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def leave(self) -> None:
        """Follow it no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        reading = asyncio.get_running_loop().create_task(self._read())
        asked = time.monotonic()
        ends = asked + self._limits.run_seconds + _OVERDUE
        try:
            # Its end may be read before anybody has knocked again at a server that was away.
            while (self.open or self.problem) and time.monotonic() < ends:
                await asyncio.sleep(_LOOK)
                if time.monotonic() - asked > _AGAIN:
                    await self._knock()
                    asked = time.monotonic()
                await self._look()
                await self._worked()
            self.lost = self.open
            await asyncio.sleep(_CLOSED_FOR)
            await self._look()
            await self._worked()
        except Exception:  # a visitor is told what was seen last; the log has the rest
            logger.exception("A run of the demo page can no longer be followed")
            self.problem = "This run can no longer be followed. Reset the sandbox to begin anew."
            self._changed()
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _knock(self) -> None:
        """See whether the server is there. Whoever waits for the next event notices late that it is not."""
        problem = None if await answers(self._client) else _AWAY
        if problem != self.problem:
            self.problem = problem
            self._changed()

    async def _read(self) -> None:
        """Read the history as it grows."""
        handle = self._client.get_workflow_handle(self.workflow_id, run_id=self.run_id)
        while True:
            try:
                known = len(self._events)
                number = 0
                async for event in handle.fetch_history_events(wait_new_event=True):
                    number += 1
                    if number > known:
                        self._events.append(event)
                return
            except RPCError as error:
                logger.info("The history of a run of the demo page cannot be read: %s", error)
                await asyncio.sleep(_AGAIN)

    async def _look(self) -> None:
        records = await asyncio.to_thread(self._tail.read)
        view = view_of(self.planned, self.workflow_id, tuple(self._events), records, self.refused, self.lost)
        if view != self.view:
            self.view = view
            self._changed()
