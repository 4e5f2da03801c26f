"""Clients of the Temporal server, for reading: connected when they are first needed, one for each namespace.

Rules, numbered as the code marks them:

S1  A history is bounded in events, bytes and pages, whatever the server sends, and is that of the run that is meant.
S2  A server that does not answer is waited for a few seconds only, by all who ask at the same time together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from exequatur.audit.history import RunHistory, of_events
from exequatur.console.decoding import Decoder
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.errors import EvidenceError, ExequaturError

WITHIN = 10.0
"""Seconds that a page waits for the server."""
_CONNECT_WITHIN = 5.0
MAX_EVENTS = 51_200
"""Of one history. Temporal ends a run there; a server that sends more and more must not fill the memory."""
MAX_BYTES = 256 * 1024 * 1024
"""Of one history; Temporal ends a run at 50 MB."""
_EMPTY = 10
"""Pages without an event that one history may come with."""
_PAGE_WITHIN = 30.0
"""Seconds that one page of a history may take."""

Connect = Callable[[str], Awaitable[Client]]
T = TypeVar("T")


class Temporal:
    """The Temporal server that the console reads from.

    Args:
        connect: Connects a client without the plugin to a namespace.
        address: What errors call the server.
        namespaces: Those that are shown.
        decoder: Decodes payloads, where the workers have a converter of their own.
    """

    def __init__(
        self, connect: Connect, address: str, namespaces: Sequence[str], decoder: Decoder | None = None
    ) -> None:
        self._connect = connect
        self.address = address
        self.namespaces = tuple(namespaces)
        self._decoder = decoder
        self._clients: dict[str, Client] = {}
        self._connecting: dict[str, asyncio.Task[Client]] = {}

    async def client(self, namespace: str | None = None) -> Client:
        """A client of a namespace that reads what the workers wrote; as :meth:`plain`."""
        found = await self.plain(namespace)
        return found if self._decoder is None else self._decoder.using(found)

    async def plain(self, namespace: str | None = None) -> Client:
        """A client of a namespace, without the workers' converter; of the first one without a name.

        Raises:
            ProblemError: The namespace is not one that is shown.
            ServerAwayError: The server cannot be reached.
        """
        name = namespace or self.namespaces[0]
        if name not in self.namespaces:
            raise ProblemError(
                404, "That namespace is not shown here", "The console shows others.", "Start it with --namespace."
            )
        if name not in self._clients:
            if (connecting := self._connecting.get(name)) is None:  # [S2]
                connecting = self._connecting[name] = asyncio.get_running_loop().create_task(self._connected(name))
                connecting.add_done_callback(lambda done: self._over(name, done))
            # Whoever asks may go away meanwhile; others wait for the same.
            self._clients[name] = await asyncio.shield(connecting)
        return self._clients[name]

    async def _connected(self, name: str) -> Client:
        try:
            return await asyncio.wait_for(self._connect(name), _CONNECT_WITHIN)  # S2
        except (ExequaturError, RPCError, RuntimeError, TimeoutError, OSError) as error:
            raise ServerAwayError(self.address, _why(error)) from error

    def _over(self, name: str, done: asyncio.Task[Client]) -> None:
        del self._connecting[name]
        if not done.cancelled():
            done.exception()  # whoever waited has got it

    async def ask(self, question: Awaitable[T], within: float = WITHIN) -> T:
        """Wait for an answer of the server, but not for ever.

        Raises:
            ServerAwayError: It does not answer.
            RPCError: It says no.
        """
        try:
            return await asyncio.wait_for(question, within)
        except TimeoutError:
            raise ServerAwayError(self.address, f"no answer within {within:.0f} s") from None
        except RPCError as error:
            if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
                raise ServerAwayError(self.address, error.message or error.status.name) from error
            raise

    async def described(self, namespace: str, workflow_id: str, run_id: str | None) -> WorkflowExecution:
        """What the server says of a run; of the latest one without a run id.

        Raises:
            ProblemError: There is no such run.
            ServerAwayError: It does not answer.
        """
        client = await self.plain(namespace)
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            return await self.ask(handle.describe())
        except RPCError as error:
            raise _gone(error) from error

    async def history(
        self, namespace: str, workflow_id: str, run_id: str, came: Callable[[int], None] | None = None
    ) -> RunHistory:
        """The history of a run, as the server has it.

        Args:
            namespace: Where it is.
            workflow_id: Its workflow id.
            run_id: Its run id.
            came: Told how many events have come.

        Raises:
            ProblemError: There is no such run.
            ServerAwayError: It does not answer.
            EvidenceError: What it sends is not the history of this run.
        """
        client = await self.plain(namespace)
        events: list[HistoryEvent] = []
        size = empty = 0
        pages = client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events()
        try:
            while True:
                await self.ask(pages.fetch_next_page(), _PAGE_WITHIN)
                page = pages.current_page or ()
                events += page
                size += sum(event.ByteSize() for event in page)
                empty += not page
                if len(events) > MAX_EVENTS or size > MAX_BYTES or empty > _EMPTY:  # [S1]
                    raise EvidenceError(
                        f"The server sends more than {MAX_EVENTS:,} events, {MAX_BYTES >> 20} MiB or {_EMPTY} empty "
                        "pages, which no history has"
                    )
                if came is not None:
                    came(len(events))
                if not pages.next_page_token:
                    break
        except RPCError as error:
            raise _gone(error) from error
        history = await asyncio.to_thread(of_events, events, workflow_id=workflow_id, source="the run")
        if run_id not in history.run_ids:  # [S1]
            raise EvidenceError(f"The server sent the history of another run, {history.run_id}")
        return history

    async def page(
        self, namespace: str, query: str, size: int, token: bytes | None
    ) -> tuple[list[WorkflowExecution], bytes | None]:
        """A page of the runs that a visibility query finds, and what the next one is asked for with.

        Raises:
            ProblemError: The server refuses the query or the token.
            ServerAwayError: It does not answer.
        """
        client = await self.plain(namespace)
        found = client.list_workflows(query, page_size=size, next_page_token=token)
        try:
            await self.ask(found.fetch_next_page())
        except RPCError as error:
            raise ProblemError(
                400, "The server does not take this search", error.message[:300], "Change what is searched for."
            ) from error
        return list(found.current_page or ()), found.next_page_token or None


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {_CONNECT_WITHIN:.0f} s"
    return str(error)[:300] or type(error).__name__


def _gone(error: RPCError) -> ProblemError:
    if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
        return ProblemError(
            404,
            "The server has no such run",
            "It was never started here, or its retention has ended and the server has deleted it.",
            "Search for it. Of a run that was deleted, exequatur audit reads an exported history.",
        )
    return ProblemError(502, "The server refuses to show the run", error.message[:300], "Try again.")
