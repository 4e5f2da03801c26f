"""Brings a revocation feed into a namespace, and keeps it fresh there: what ``exequatur control`` runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta

from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur.control.state import ENTRIES, PUBLISH, TASK_QUEUE, WORKFLOW_ID, Kept, Published
from exequatur.control.workflow import Control
from exequatur.errors import ExequaturError
from exequatur.revocation.feed import Page
from exequatur.revocation.revocations import Revocations
from exequatur.statements.jws import parse
from exequatur.statements.keys import warm_up
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import TrustStore

logger = logging.getLogger("exequatur")

PASSTHROUGH = ("exequatur", "cryptography", "_cffi_backend")
"""Modules that the workflow sandbox must not import anew."""
_LOOK_EVERY = 0.2
"""Seconds between two looks at the feed."""
_RPC = timedelta(seconds=10)
_PATIENCE = 15.0
"""Seconds for one page; a workflow that takes longer is none of ours."""


class ControlPublisher:
    """Publishes one feed.

    Args:
        revocations: The feed; it is tended here.
        page: Gives its pages.
        trust: The anchors that its heads are verified with.
        aud: Trust domain and cluster.
        every: Seconds between two heads while nothing is added.
        learn: Looks whether there are new anchors.
    """

    def __init__(
        self,
        revocations: Revocations,
        page: Callable[[int], Page],
        trust: TrustStore,
        *,
        aud: str,
        every: float,
        learn: Callable[[], object] = lambda: None,
    ) -> None:
        self._revocations = revocations
        self._page = page
        self._trust = trust
        self._aud = aud
        self._every = every
        self._learn_anchors = learn
        self._there = 0
        """The version that the workflow has."""
        self._refused = 0
        self.problem: str | None = "nothing has been published yet"

    async def run(self, client: Client, *, stop: asyncio.Event, said: Callable[[str], None] = logger.info) -> None:
        """Publish until told to stop.

        Args:
            client: Of the namespace; without the plugin.
            stop: Set to end it.
            said: Told what changes, a sentence each.
        """
        warm_up()
        runner = SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH)
        )
        worker = Worker(client, task_queue=TASK_QUEUE, workflows=[Control], workflow_runner=runner)
        async with worker:
            loop = asyncio.get_running_loop()
            at, version = -self._every, -1
            while not stop.is_set():
                await asyncio.to_thread(self._tend)
                now = loop.time()
                if self._revocations.version != version or now - at >= self._every or self.problem:
                    before, version, at = self.problem, self._revocations.version, now
                    await self._publish_once(client)
                    if self.problem != before:
                        said(self.problem or f"Version {version} of the revocation feed is in {client.namespace}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_EVERY)

    def _tend(self) -> None:
        self._learn_anchors()
        self._revocations.tend()

    async def _publish_once(self, client: Client) -> None:
        try:
            await self._publish(client)
        except RPCError as err:
            if err.status is RPCStatusCode.NOT_FOUND:
                self._there = 0
            self.problem = f"{client.namespace} cannot be reached: {err.message}"
        except ExequaturError as err:
            self.problem = f"Nothing can be published: {err}"
        except Exception as err:  # a workflow of somebody else's may answer anything, or nothing
            if await self._kept_by_another(client):
                self._refused, self.problem = 0, None
            else:
                # It was begun with other anchors, or by somebody else: after a second refusal its place is taken.
                self._refused += 1
                self.problem = f"The control workflow refuses: {_why(err)}"
        else:
            self._refused, self.problem = 0, None

    async def _publish(self, client: Client) -> None:
        handle = await self._started(client)
        more = True
        while more:
            page = await asyncio.to_thread(self._page, self._there)
            more = page.more
            sent = Published(page.head, self._there, [entry.line.decode() for entry in page.entries], more)
            update = handle.execute_update(PUBLISH, sent, result_type=int, rpc_timeout=_RPC)
            there = self._there + len(page.entries)
            if await asyncio.wait_for(update, _PATIENCE) != there:
                raise ValueError("it says that it has another version than it was given")
            self._there = there

    async def _started(self, client: Client) -> WorkflowHandle[Control, None]:
        """The control workflow; begun when there is none, and begun anew when it keeps refusing."""
        replaced = self._refused >= 2
        handle = await client.start_workflow(
            Control.run,
            Kept(self._trust.to_jwks().decode(), self._aud),
            id=WORKFLOW_ID,
            task_queue=TASK_QUEUE,
            id_conflict_policy=(
                WorkflowIDConflictPolicy.TERMINATE_EXISTING if replaced else WorkflowIDConflictPolicy.USE_EXISTING
            ),
            rpc_timeout=_RPC,
        )
        if replaced:
            self._refused = self._there = 0
        return handle

    async def _kept_by_another(self, client: Client) -> bool:
        """Find out which version the workflow has, and whether somebody else has just published this feed there."""
        self._there = 0
        try:
            handle = client.get_workflow_handle(WORKFLOW_ID)
            told = await handle.query(ENTRIES, 2**53, result_type=Published, rpc_timeout=_RPC)
            head = parse(told.head, RevocationHead)
            self._trust.verify(head)
        except Exception as err:
            logger.info("The control workflow does not say which version it has: %s", err)
            return False
        self._there = head.claims.version
        fresh = abs(self._revocations.clock() - head.claims.iat) < 2 * self._every
        return fresh and head.claims.aud == self._aud and head.claims.version >= self._revocations.version


def _why(error: Exception) -> str:
    if isinstance(error, WorkflowUpdateFailedError):
        return str(error.cause)
    if isinstance(error, TimeoutError | WorkflowUpdateRPCTimeoutOrCancelledError):
        return "it does not answer"
    return str(error)
