"""Follows the revocation feed of a namespace's control workflow: its memo has the signed head, a query the entries.

Nothing that comes is believed here: rules RV of :mod:`exequatur.revocation.following` do that.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError, ServiceClient

from exequatur.control.state import ENTRIES, MAX_FEED_BYTES, MEMO, WORKFLOW_ID, Published
from exequatur.errors import FeedUnreachableError, RevocationFeedError, StatementError
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.revocation.feed import Page
from exequatur.statements.jws import parse
from exequatur.statements.models import RevocationHead

_LOOK_EVERY = 0.4
"""Seconds between two looks at the memo."""
_RPC = timedelta(seconds=5)


class ControlSource:
    """The control workflow of a namespace, once a client has been connected to one."""

    slow = True

    def __init__(self) -> None:
        self._place: tuple[ServiceClient, str] | None = None
        self._attaching = threading.Lock()

    def attach(self, service: ServiceClient, namespace: str) -> None:
        """Follow in this namespace, unless another came first.

        Args:
            service: What reaches the server, without the gate.
            namespace: The worker's.
        """
        with self._attaching:
            if self._place is None:
                self._place = (service, namespace)

    def fetch(self, after: int, wait: float) -> Page:
        if self._place is None:
            raise FeedUnreachableError("no client of the plugin has been connected yet")
        service, namespace = self._place
        # A loop of its own: a body that blocks the worker's must not keep a revocation from it.
        return asyncio.run(self._fetch(Client(service, namespace=namespace), after, wait))

    async def _fetch(self, client: Client, after: int, wait: float) -> Page:
        handle = client.get_workflow_handle(WORKFLOW_ID)
        try:
            head, version = await self._moved(handle, after, wait)
            if version <= after:
                return Page(head, ())
            return await self._entries(handle, after)
        except WorkflowQueryFailedError as err:
            raise FeedUnreachableError(f"{self} does not answer: {err}") from err
        except RPCError as err:
            raise FeedUnreachableError(
                f"{self} cannot be read in {client.namespace}: {err.message}; run `exequatur control`"
            ) from err
        except (StatementError, ValueError, TypeError) as err:
            raise RevocationFeedError(f"{self} tells nothing that is a feed: {err}") from err

    async def _moved(self, handle: WorkflowHandle[object, object], after: int, wait: float) -> tuple[str, int]:
        """The head in the memo, once its version is another or the time is over; believed by nobody yet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            told = await handle.describe(rpc_timeout=_RPC)
            head = await told.memo_value(MEMO, "", type_hint=str)
            if told.status is not WorkflowExecutionStatus.RUNNING or not head:
                raise FeedUnreachableError(f"{self} does not run in {told.namespace}; run `exequatur control`")
            version = parse(head, RevocationHead).claims.version
            if version != after or loop.time() >= until:
                return head, version
            await asyncio.sleep(_LOOK_EVERY)

    async def _entries(self, handle: WorkflowHandle[object, object], after: int) -> Page:
        found: list[Revocation] = []
        size = 0
        while True:
            told: Published = await handle.query(ENTRIES, after + len(found), result_type=Published, rpc_timeout=_RPC)
            found += [read_entry(line) for line in told.entries]
            size += sum(map(len, told.entries))
            if not told.more:
                return Page(told.head, tuple(found))
            if not told.entries or size > 2 * MAX_FEED_BYTES:
                raise RevocationFeedError(f"{self} promises entries and gives none, or never ends")

    def __str__(self) -> str:
        return f"the control workflow {WORKFLOW_ID}"
