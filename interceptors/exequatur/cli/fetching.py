"""Histories from a Temporal server: one run and those that belong to it, or all that a query finds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from exequatur.audit.history import RunHistory, of_events
from exequatur.audit.links import linked
from exequatur.cli.auditing import Auditing
from exequatur.cli.server import Server
from exequatur.errors import EvidenceError

MAX_EVENTS = 200_000
"""Of one history. Temporal ends a run at 51,200; a server that sends more and more must not fill the memory."""
MAX_FOLLOWED = 10_000
"""Runs that belong to one; more are left out, and the report says so."""


class GoneError(EvidenceError):
    """The server has no such run, or no longer."""


async def one_run(auditing: Auditing, server: Server, workflow_id: str, run_id: str | None, *, follow: bool) -> None:
    """Audit a run, and if asked those that belong to it.

    Raises:
        EvidenceError: The server cannot be reached or does not have the run.
    """
    client = await server.connect()
    first = await fetched(client, workflow_id, run_id)
    seen = {(first.workflow_id, first.run_id)}
    waiting = await _audited(auditing, first, server)
    while follow and waiting:
        linked = waiting.popleft()
        if linked in seen:
            continue
        if len(seen) >= MAX_FOLLOWED:
            auditing.note("run-linked", f"More than {MAX_FOLLOWED} runs belong together; the others are left out")
            return
        seen.add(linked)
        try:
            waiting += await _audited(auditing, await fetched(client, *linked), server)
        except GoneError:
            continue  # the report says of the runs that it belongs to that it is missing
        except EvidenceError as error:
            auditing.unreadable(error)


async def _audited(auditing: Auditing, history: RunHistory, server: Server) -> deque[tuple[str, str]]:
    """Audit a history; returns what belongs to it, not the history, which is large."""
    await auditing.history(history, namespace=server.namespace)
    return deque(linked(history, server.namespace))


async def all_runs(auditing: Auditing, server: Server, query: str, parallel: int) -> None:
    """Audit all runs that a query finds, in the order in which the server lists them.

    Raises:
        EvidenceError: The server cannot be reached or refuses the query.
    """
    client = await server.connect()
    found = aiter(listed(client, query))
    places = iter(range(2**63))

    async def worker() -> None:
        while True:
            async with listing:  # a generator serves one at a time
                execution = await anext(found, None)
                place = next(places)
            if execution is None:
                return
            try:
                history = await fetched(client, *execution)
                await auditing.history(history, place, namespace=server.namespace)
            except GoneError as error:
                auditing.note("history-malformed", str(error))
            except EvidenceError as error:
                auditing.unreadable(error)
            progress.advance(task)

    listing = asyncio.Lock()
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=await _counted(client, query))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(parallel):
                    group.create_task(worker())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def fetched(client: Client, workflow_id: str, run_id: str | None) -> RunHistory:
    """Fetch a run's history.

    Raises:
        GoneError: The server has no such run.
        EvidenceError: The server cannot be asked, or what it sent is not the history of this run.
    """
    name = f"{workflow_id} run {run_id}" if run_id else workflow_id
    events: list[HistoryEvent] = []
    try:
        async for event in client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events():
            if len(events) == MAX_EVENTS:
                raise EvidenceError(f"{name}: the server sends more than {MAX_EVENTS} events, which no history has")
            events.append(event)
    except RPCError as error:
        gone = error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
        raise (GoneError if gone else EvidenceError)(f"{name}: the server has no history: {error}") from error
    history = of_events(events, workflow_id=workflow_id, source=name)
    if run_id is not None and run_id not in history.run_ids:
        raise EvidenceError(f"{name}: the server sent the history of another run, {history.run_id}")
    return history


async def listed(client: Client, query: str) -> AsyncIterator[tuple[str, str]]:
    """Workflow and run ids that a visibility query finds.

    Raises:
        EvidenceError: The server refuses it.
    """
    try:
        async for execution in client.list_workflows(query):
            yield execution.id, execution.run_id
    except RPCError as error:
        raise EvidenceError(f"the server refuses the query: {error}") from error


async def _counted(client: Client, query: str) -> int | None:
    try:
        return (await client.count_workflows(query)).count
    except RPCError:
        return None  # only the progress bar wants it
