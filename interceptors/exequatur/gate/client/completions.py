"""The client reports on an activity from outside of its worker: it asks, and signs what it says.

Rules, numbered as the code marks them (N are those of :mod:`exequatur.gate.client.pending`):

L1  Nothing is told to the server before Cedar allowed ``activity.complete`` for this principal and this activity: no
    result, failure, cancellation or heartbeat. Cedar is told the activity's type and task queue where the server has it
    pending, and otherwise only its id. An allow for heartbeats stands as long as one stands for a running activity.
L2  A result is not reported, nor an activity kept alive, when the run's grant, its principal, the workflow or the
    activity type is revoked, the grant is beyond its lifetime, or the header does not verify.
L3  The result of a governed activity goes out with a receipt that names who completed it, and heartbeat details with a
    mark.
L4  What is asked and signed for one run is told to the server of that run.
L5  A token whose activity is not pending is not sent, for the server may go by something else in it: it is told by ids,
    and refuses them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import temporalio.common
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    AsyncActivityIDReference,
    CompleteAsyncActivityInput,
    FailAsyncActivityInput,
    HeartbeatAsyncActivityInput,
    ReportCancellationAsyncActivityInput,
)
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from exequatur.errors import JournalError
from exequatur.failures import AuthorizationRevoked, AuthorizationUnavailable, GrantRejected
from exequatur.gate.client.asking import Asking
from exequatur.gate.client.pending import Pending, find_pending, named_by
from exequatur.gate.heartbeat import sign_details
from exequatur.gate.issuing import ActionOrder, Leave
from exequatur.gate.wire import RECEIPT, payloads_digest, without_ours
from exequatur.identity.acting import OnBehalf
from exequatur.identity.actors import involved
from exequatur.policy.told import ACTIVITY_COMPLETE_ACTION
from exequatur.statements.jws import Token
from exequatur.statements.models import Outcome, Receipt, RevocationState, first_names
from exequatur.statements.packing import pack
from exequatur.statements.standalone import standalone_id

logger = logging.getLogger("exequatur")

_KEPT = 256
"""Activities that are heartbeated for, whose request is remembered."""

_Reference = AsyncActivityIDReference | bytes


@dataclass(frozen=True)
class _Beating:
    """An activity that was heartbeated for, and the allow for it."""

    pending: Pending
    who: OnBehalf
    epoch: int
    at: float


class Completions(Asking):
    """Asks, and signs what an outside client says about an activity."""

    _beating: OrderedDict[_Reference, _Beating] | None = None

    async def complete_async_activity(self, input: CompleteAsyncActivityInput) -> None:
        pending = await self._find(input.id_or_token)
        await self._gate.revocations.look()
        self._check_standing(pending)
        if pending.request is None:
            await self._ask(pending, "completed")
            await super().complete_async_activity(replace(input, id_or_token=_pinned(input.id_or_token, pending)))
            return
        payload = self._result(input)
        result = payloads_digest([payload])
        leave = await self._ask(pending, "completed", result)
        async with self._signing(pending):
            receipt = self._receipt(pending, leave, "completed", result)
            payload.metadata[RECEIPT] = pack([receipt.text], [self._gate.workload.credential.text])  # L3
        reference = _pinned(input.id_or_token, pending)
        await super().complete_async_activity(replace(input, id_or_token=reference, result=RawValue(payload)))
        self._keep(receipt)

    async def fail_async_activity(self, input: FailAsyncActivityInput) -> None:
        pending = await self._find(input.id_or_token)
        leave = await self._ask(pending, "failed")
        reference = _pinned(input.id_or_token, pending)
        if pending.request is None:
            await super().fail_async_activity(replace(input, id_or_token=reference))
            return
        async with self._signing(pending):
            receipt = self._receipt(pending, leave, "failed")
            details = self._marked(input.last_heartbeat_details, pending, input.data_converter_override)
        await super().fail_async_activity(replace(input, id_or_token=reference, last_heartbeat_details=details))
        self._keep(receipt)

    async def report_cancellation_async_activity(self, input: ReportCancellationAsyncActivityInput) -> None:
        pending = await self._find(input.id_or_token)
        leave = await self._ask(pending, "cancelled")
        reference = _pinned(input.id_or_token, pending)
        if pending.request is None:
            await super().report_cancellation_async_activity(replace(input, id_or_token=reference))
            return
        async with self._signing(pending):
            receipt = self._receipt(pending, leave, "cancelled")
        await super().report_cancellation_async_activity(replace(input, id_or_token=reference))
        self._keep(receipt)

    async def heartbeat_async_activity(self, input: HeartbeatAsyncActivityInput) -> None:
        try:
            await self._heartbeat(input)
        except RPCError as err:
            # What an allow is remembered for may be gone, and another run be there under the same ids.
            known = self._beating.pop(input.id_or_token, None) if self._beating else None
            if known is None or err.status != RPCStatusCode.NOT_FOUND:
                raise
            await self._heartbeat(input)

    async def _heartbeat(self, input: HeartbeatAsyncActivityInput) -> None:
        pending = await self._still_allowed(input.id_or_token)
        if pending.request is not None:
            async with self._signing(pending):
                input = replace(input, details=self._marked(input.details, pending, input.data_converter_override))
        await super().heartbeat_async_activity(replace(input, id_or_token=_pinned(input.id_or_token, pending)))

    async def _find(self, reference: _Reference) -> Pending:
        await self._gate.learn_keys()
        return await find_pending(self._client(), self._gate, named_by(reference))

    async def _ask(self, pending: Pending, outcome: str, result: str | None = None) -> Leave:
        """L1."""
        named = pending.named
        who = await self._acting(f"activity {named.activity_id} is reported on")
        facts = {
            "run": {"namespace": self._client().namespace, "workflow_id": named.workflow_id},
            "activity": {"type": pending.activity_type, "id": named.activity_id, "task_queue": pending.task_queue},
        }
        record = {
            "activity_id": named.activity_id,
            "run_id": named.run_id or None,
            "request": pending.request,
            "outcome": outcome,
            "result": result,
        }
        resource = named.workflow_id or standalone_id(named.activity_id)
        order = ActionOrder(
            who.principal,
            ACTIVITY_COMPLETE_ACTION,
            resource,
            facts,
            record,
            acting=who.acting,
            credential=who.credential,
        )
        return await self._authority.authorize(order)  # L1

    async def _still_allowed(self, reference: _Reference) -> Pending:
        """L1 for a heartbeat: asked again when the policies changed or an allow has stood for long enough."""
        if self._beating is None:
            self._beating = OrderedDict()
        gate, who = self._gate, await self._acting("an activity is heartbeated for")
        known = self._beating.get(reference)
        lasts = gate.settings.recheck_interval.total_seconds()
        if known is None or known.epoch != gate.epoch or known.who != who or not 0 <= gate.clock() - known.at < lasts:
            epoch, now = gate.epoch, gate.clock()
            pending = await self._find(reference)
            await gate.revocations.look()
            self._check_standing(pending)
            await self._ask(pending, "heartbeat")
            known = _Beating(pending, who, epoch, now)
            if pending.request is not None:
                self._beating[reference] = known
                while len(self._beating) > _KEPT:
                    self._beating.popitem(last=False)
        return known.pending

    def _check_standing(self, pending: Pending) -> None:
        """L2.

        Raises:
            GrantRejected: The header does not verify, or the grant has ended.
            AuthorizationRevoked: Something was revoked.
        """
        gate, named = self._gate, pending.named
        if pending.fault is not None:  # [L2]
            raise GrantRejected(f"Activity {named.activity_id} is not covered by its grant: {pending.fault}")
        subject: dict[str, str | frozenset[str]] = {
            "workflow": named.workflow_id or standalone_id(named.activity_id),
            "activity": pending.activity_type,
        }
        if pending.authorized is not None:
            chain = pending.authorized.chain
            grant = chain.grant.claims
            subject |= {"grant": grant.jti, "principal": involved(grant.sub, grant.act)}
            if gate.clock() >= max(chain.expires, grant.renew_until or 0):  # [L2]
                raise GrantRejected(f"The grant of {named.workflow_id} has ended; start the workflow again")
        elif pending.permit is not None:
            permit = pending.permit.claims
            subject |= {"grant": permit.jti, "principal": involved(permit.sub, permit.act)}
        revoked = gate.revoked(subject)
        if revoked is not None:  # [L2]
            raise AuthorizationRevoked(f"Activity {named.activity_id} has been revoked: {revoked.reason}")

    @asynccontextmanager
    async def _signing(self, pending: Pending) -> AsyncIterator[None]:
        """As long as this lasts, this process is credentialed for the activity's place.

        Raises:
            AuthorizationUnavailable: It cannot be now.
        """
        gate = self._gate
        with gate.workload.covering(self._client().namespace, pending.task_queue, [pending.activity_type]):
            if gate.workload.far:
                await asyncio.to_thread(gate.renew_credential)
            else:
                gate.renew_credential()
            if not gate.workload.valid(gate.clock()):
                raise AuthorizationUnavailable(f"No receipt can be signed: {gate.workload.problem or 'set the clock'}")
            yield

    def _result(self, input: CompleteAsyncActivityInput) -> Payload:
        """The result as it is sent, before the codec. Where there is none, a receipt needs one to stand on."""
        converter = (input.data_converter_override or self._client().data_converter).payload_converter
        given = None if input.result is temporalio.common._arg_unset else input.result
        [payload] = converter.to_payloads([given])
        return without_ours(payload) if isinstance(given, RawValue) else payload

    def _marked(self, details: Sequence[Any], pending: Pending, override: DataConverter | None) -> Sequence[Any]:
        """L3 for heartbeat details."""
        if not details or pending.request is None:
            return details
        converter = (override or self._client().data_converter).payload_converter
        named = pending.named
        return sign_details(
            details,
            self._gate,
            converter,
            request=pending.request,
            run_id=named.run_id,
            attempt=pending.attempt,
        )

    def _receipt(self, pending: Pending, leave: Leave, outcome: Outcome, result: str | None = None) -> Token[Receipt]:
        gate, named = self._gate, pending.named
        policy = gate.policy
        return gate.workload.sign(
            Receipt(
                iss=gate.workload.id,
                iat=round(gate.clock(), 3),
                request=pending.request,
                request_digest=pending.request_digest,
                activity_id=named.activity_id,
                activity_type=pending.activity_type,
                workflow_id=None if pending.authorized else standalone_id(named.activity_id),
                run_id=named.run_id,
                attempt=pending.attempt,
                decision="allow",
                enforced=True,
                policies=first_names(leave.policies),
                bundle=policy.bundle.digest,
                bundle_sequence=policy.sequence,
                revocations=RevocationState(version=gate.revocations.version, age=round(gate.revocations.age(), 3)),
                outcome=outcome,
                result=result,
                completed_by=leave.principal,
            )
        )

    def _keep(self, receipt: Token[Receipt]) -> None:
        """Put a receipt into this process's evidence if a worker keeps one here; the authority recorded the leave."""
        if self._gate.journal is not None:
            try:
                self._gate.journal.enqueue("receipt", receipt.text.encode())
            except JournalError as err:
                logger.error("A receipt of a completion is not in the evidence: %s", err)


def _pinned(reference: _Reference, pending: Pending) -> _Reference:
    """L4 and L5: a reference without a run means whichever is there when it arrives."""
    named = pending.named
    if not isinstance(reference, bytes) and not reference.run_id:  # [L4]
        return replace(reference, run_id=named.run_id or None)
    if isinstance(reference, bytes) and not pending.activity_type:  # [L5]
        return AsyncActivityIDReference(named.workflow_id or None, named.run_id, named.activity_id)
    return reference
