"""The client starts an activity that stands by itself: it gets a permit, and believes only a result with a receipt.

The handle of :meth:`temporalio.client.Client.start_activity` waits for the result without asking any interceptor, so
the one that is given back is a handle of ours, which is the SDK's in everything else. Handles that are made from an id,
with ``Client.get_activity_handle``, are the SDK's own and verify nothing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.api.activity.v1 import ActivityExecutionOutcome
from temporalio.api.common.v1 import Payload
from temporalio.client import ActivityFailureError, ActivityHandle, StartActivityInput
from temporalio.common import ActivityIDConflictPolicy, RawValue

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import AuthorizationUnavailable, ReceiptRejected
from exequatur.gate.client.asking import Asking, raw
from exequatur.gate.gate import Gate
from exequatur.gate.issuing import PermitOrder
from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, activity_header, payloads_digest, without_ours
from exequatur.statements.encoding import digest
from exequatur.statements.standalone import verify_lone_receipt
from exequatur.statements.verification import Scope, audience, site_of

logger = logging.getLogger("exequatur")


class Activities(Asking):
    """Puts a permit into the header of each activity start."""

    async def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
        if ACTIVITY_HEADER in input.headers:
            return await super().start_activity(input)
        who = await self._acting(f"{input.activity_type} starts")
        client = self._client()
        payloads = self._payloads(input.args, self._activity(input))
        permit = await self._authority.issue_permit(
            PermitOrder(
                principal=who.principal,
                namespace=client.namespace,
                kind="activity",
                target=input.id,
                name=input.activity_type,
                args=payloads_digest(payloads),
                task_queue=input.task_queue,
                acting=who.acting,
                credential=who.credential,
            )
        )
        headers = {**input.headers, ACTIVITY_HEADER: activity_header([permit], ())}
        handle = await super().start_activity(replace(input, args=raw(payloads), headers=headers))
        joined = input.id_conflict_policy == ActivityIDConflictPolicy.USE_EXISTING
        return ProvenHandle(
            handle,
            self._gate,
            activity_type=input.activity_type,
            task_queue=None if joined else input.task_queue,
            permit=None if joined else digest(permit),
        )


class ProvenHandle(ActivityHandle[Any]):
    """The SDK's handle, whose result is verified.

    Args:
        handle: The SDK's.
        gate: Knows the trust anchors and settings.
        activity_type: That was started.
        task_queue: The activity's; ``None`` where the start may have joined a run on another.
        permit: Digest of its permit; ``None`` where the start may have joined another's run.
    """

    def __init__(
        self, handle: ActivityHandle[Any], gate: Gate, *, activity_type: str, task_queue: str | None, permit: str | None
    ) -> None:
        super().__init__(handle._client, handle._id, run_id=handle._run_id, result_type=handle._result_type)
        self._gate = gate
        self._activity_type = activity_type
        self._task_queue = task_queue
        self._permit = permit

    async def result(
        self, *, rpc_metadata: Mapping[str, str | bytes] = {}, rpc_timeout: timedelta | None = None
    ) -> Any:
        """Wait for the result and verify its receipt.

        Raises:
            ActivityFailureError: The activity failed; its cause is ReceiptRejected where the result is not proven.
            AuthorizationUnavailable: The key behind the receipt is not known here.
            RPCError: As the SDK's.
        """
        await self._poll_until_outcome(rpc_metadata=rpc_metadata, rpc_timeout=rpc_timeout)
        outcome: ActivityExecutionOutcome | None = self._known_outcome
        if outcome is None or outcome.HasField("failure"):
            return await super().result(rpc_metadata=rpc_metadata, rpc_timeout=rpc_timeout)
        # As they were before the user's codec; what follows is what the SDK does with them.
        given = outcome.result.payloads
        values = await self._data_converter.decode(given, [RawValue] * len(given)) if given else []
        payloads = [value.payload for value in values]
        try:
            problem = self._verify(payloads)
        except AuthorizationUnavailable:
            await self._gate.learn_keys()
            problem = self._verify(payloads)
        if problem:
            observed = self._gate.settings.mode == "observe"
            self._gate.metrics.receipt_rejected(self._activity_type, enforced=not observed)
            logger.warning(
                "ReceiptRejected: the result of %s: %s",
                self._activity_type,
                problem,
                extra={"activity_id": self._id, "enforced": not observed},
            )
            if not observed:
                raise ActivityFailureError(
                    cause=ReceiptRejected(f"The result of {self._activity_type} is not proven: {problem}")
                )
        if not payloads:
            return None
        if len(payloads) > 1:
            warnings.warn(f"Expected single activity result, got {len(payloads)}", stacklevel=2)
        converter = self._data_converter.payload_converter
        hints = [self._result_type] if self._result_type else None
        return converter.from_payloads([without_ours(each) for each in payloads], hints)[0]

    def _verify(self, payloads: list[Payload]) -> str | None:
        """What is wrong with the result, or ``None``."""
        settings, namespace = self._gate.settings, self._client.namespace
        packed = payloads[0].metadata.get(RECEIPT) if payloads else None
        if packed is None and self._task_queue is not None and settings.recorded(self._task_queue):
            return None
        site = site_of(audience(settings.trust_domain, settings.cluster, namespace))
        try:
            verify_lone_receipt(
                packed,
                payloads_digest(payloads),
                self._gate.trust,
                Scope(site, namespace, self._task_queue, self._activity_type),
                activity_id=self._id,
                run_id=self._run_id or "",
                permit=self._permit,
            )
        except UnknownKeyError as err:
            raise AuthorizationUnavailable(
                f"It is not known whether the result of {self._activity_type} is proven: {err}"
            ) from err
        except StatementError as err:
            return str(err)
        return None
