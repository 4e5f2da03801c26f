"""The handler side of Nexus: no operation is started or cancelled by a worker without authorization.

Rules, numbered as the code marks them (N42 to N47 are those of :mod:`exequatur.gate.operation`, which judges):

N41  Nothing is handled while it cannot be decided: after a bounded wait the request fails with ``UNAVAILABLE``, and the
     server sends it again.
N48  The decision is in the evidence journal, on disk, before the handler's first line runs.
N49  A statement starts one operation: it is used with one request id, under which the server tries it again.
N50  If anything changed while the decision was being written, it is made again.
N51  The handler acts on behalf of the verified principal, and sees the headers without ours.
N52  A grant serves the first execution that shows it, and no other.

A start is not looked at again while it runs: the server gives it seconds, and what it leaves behind, such as a
workflow, is governed by itself. Where operations are only observed, all of it is done and recorded with
``enforced: false``, and nothing is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import nexusrpc
import nexusrpc.handler
import temporalio.nexus
from temporalio.api.common.v1 import Link
from temporalio.nexus._link_conversion import nexus_link_to_temporal_link
from temporalio.worker import (
    ExecuteNexusOperationCancelInput,
    ExecuteNexusOperationStartInput,
    NexusOperationInboundInterceptor,
)

from exequatur.errors import JournalError
from exequatur.failures import AuthorizationDenied, AuthorizationFailure, AuthorizationUnavailable, GrantRejected
from exequatur.gate.attempt import Judgement
from exequatur.gate.codec import decoded_here
from exequatur.gate.gate import Gate
from exequatur.gate.operation import Call
from exequatur.gate.pins import pinned, serves
from exequatur.gate.wire import payloads_digest, without_nexus
from exequatur.identity.acting import acting_as
from exequatur.identity.actors import names_of
from exequatur.statements.nexus import Origin, Start

logger = logging.getLogger("exequatur")

RECORD = "nexus"
"""Kind of the journal's records of what was decided about operations."""
_ORIGINS = frozenset(kind.DESCRIPTOR.full_name for kind in (Link.WorkflowEvent, Link.NexusOperation))
"""Types of the links that say where a request comes from."""
_LOOK_INTERVAL = 0.05
"""Seconds between two looks whether authorization has become possible."""
_MAX_TRIES = 8
"""How often a decision is made again because something changed meanwhile (N50)."""
_TYPES = {
    AuthorizationDenied: nexusrpc.HandlerErrorType.UNAUTHORIZED,
    GrantRejected: nexusrpc.HandlerErrorType.UNAUTHENTICATED,
    AuthorizationUnavailable: nexusrpc.HandlerErrorType.UNAVAILABLE,
}


class NexusInbound(NexusOperationInboundInterceptor):
    """Stands outermost around every Nexus operation of a worker."""

    def __init__(self, next: NexusOperationInboundInterceptor, gate: Gate) -> None:
        super().__init__(next)
        self._gate = gate

    async def execute_nexus_operation_start(
        self, input: ExecuteNexusOperationStartInput
    ) -> nexusrpc.handler.StartOperationResultSync[Any] | nexusrpc.handler.StartOperationResultAsync:
        ctx, decoded = input.ctx, decoded_here()
        start = Start(
            # Where external storage holds the input, its reference was decoded before.
            args=payloads_digest(decoded[-1] if decoded else ()),
            origins=_origins(ctx.inbound_links),
        )
        with await self._admit(ctx, start, request_id=ctx.request_id):
            own = replace(ctx, headers=without_nexus(ctx.headers))  # [N51]
            return await super().execute_nexus_operation_start(ExecuteNexusOperationStartInput(own, input.input))

    async def execute_nexus_operation_cancel(self, input: ExecuteNexusOperationCancelInput) -> None:
        ctx = input.ctx
        with await self._admit(ctx, None, token=input.token):
            own = replace(ctx, headers=without_nexus(ctx.headers))  # [N51]
            await super().execute_nexus_operation_cancel(ExecuteNexusOperationCancelInput(own, input.token))

    async def _admit(
        self,
        ctx: nexusrpc.handler.OperationContext,
        start: Start | None,
        *,
        request_id: str | None = None,
        token: str | None = None,
    ) -> AbstractContextManager[object]:
        """N41 to N50; what the handler is to run in.

        Raises:
            HandlerError: It may not run.
        """
        arrived = time.perf_counter()
        call = Call(self._gate, ctx, temporalio.nexus.info(), start, request_id, token)
        try:
            judgement = await self._decide(call)
        except AuthorizationFailure as failure:
            self._measure(call, type(failure).__name__, arrived, enforced=True)
            raise _handler_error(failure) from failure
        self._measure(call, "allowed" if judgement.allowed else "observed", arrived, enforced=call.enforced)
        if call.called is None or call.principal is None:
            return nullcontext()
        return acting_as(call.principal, through=names_of(call.called.vouched.act))  # [N51]

    def _measure(self, call: Call, outcome: str, arrived: float, *, enforced: bool) -> None:
        self._gate.metrics.decided(outcome, call.asked.name, enforced=enforced, seconds=time.perf_counter() - arrived)

    async def _decide(self, call: Call) -> Judgement:
        gate, loop = self._gate, asyncio.get_running_loop()
        deadline = loop.time() + min(gate.settings.unavailable_wait.total_seconds(), call.patience())
        tries = 0
        while True:
            why = gate.unavailable()
            judgement = call.judge() if why is None else None
            if judgement is not None and judgement.failure is AuthorizationUnavailable:  # the release ended just now
                why, judgement = judgement.reason, None
            if judgement is not None:
                try:
                    judgement = await self._record(call, judgement)
                except JournalError as err:
                    why = str(err)
                else:
                    tries += 1
                    if judgement.epoch != gate.epoch:  # [N50]
                        if tries < _MAX_TRIES:
                            continue
                        why = "the policies keep changing"
                    elif judgement.allowed or not call.enforced:
                        return judgement
                    else:
                        raise self._refused(call, judgement)
            if not call.enforced:
                logger.warning("Not enforced: %s", why, extra=call.about())
                return call.judge()
            if loop.time() >= deadline:  # [N41]
                raise AuthorizationUnavailable(f"It could not be decided: {why}")
            await asyncio.sleep(_LOOK_INTERVAL)

    async def _record(self, call: Call, judgement: Judgement) -> Judgement:
        """N48, N49 and N52."""
        journal, request_id = self._gate.require_journal(), call.request_id
        called = call.called if judgement.allowed else None
        if called and request_id is not None:
            used = None
            if not await pinned(self._gate, called.statement.digest, request_id):  # [N49]
                used = "What it came with was already used to start another operation"
            elif called.chain and not await serves(self._gate, called.chain, called.first_run_id):  # [N52]
                used = "The grant was already used by another execution"
            if used is not None:
                judgement = replace(judgement, decision="none", failure=GrantRejected, reason=used)
        await journal.append(RECORD, call.record(judgement))  # [N48]
        return judgement

    def _refused(self, call: Call, judgement: Judgement) -> AuthorizationFailure:
        failure = judgement.failure or GrantRejected
        logger.warning(
            "%s: %s",
            failure.__name__,
            judgement.reason,
            extra=call.about() | {"policies": [ref.id for ref in judgement.policies]},
        )
        return failure(
            judgement.reason or "",
            {
                "principal": judgement.principal,
                "operation": call.asked.name,
                "policies": [{"id": ref.id, "reason": ref.reason} for ref in judgement.policies],
            },
        )


def _origins(links: Sequence[nexusrpc.Link]) -> tuple[Origin, ...]:
    """Where the server says that a request comes from; other links, such as a caller's own, say nothing about it."""
    found = []
    for link in links:
        known = nexus_link_to_temporal_link(link) if link.type in _ORIGINS else None
        if known is None:
            continue
        if known.HasField("workflow_event"):
            event = known.workflow_event
            found.append(Origin(event.namespace, event.workflow_id, None, event.run_id))
        elif known.HasField("nexus_operation"):
            operation = known.nexus_operation
            found.append(Origin(operation.namespace, None, operation.operation_id, operation.run_id))
    return tuple(found)


def _handler_error(failure: AuthorizationFailure) -> nexusrpc.HandlerError:
    """What the caller sees: the kind of refusal stands in the message, and the failure itself is its cause."""
    return nexusrpc.HandlerError(
        f"{type(failure).__name__}: {failure.message}",
        type=_TYPES[type(failure)],
        retryable_override=failure.retryable,
    )
