"""Stands where the SDK resolves one activity's handle: believes only what comes with a receipt.

Runs inside the workflow sandbox. Rules, numbered as the code marks them:

X2  A result without a valid receipt fails the activity where the workflow awaits it (rules P of
    :mod:`exequatur.statements.receipts`), unless the grant says ``observe``.
X3  A task queue that the grant lists as recorded may leave the receipt out, but not bring a wrong one.
X4  An unknown key is no verdict: the workflow task fails and is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import FAILURE_TYPES, AuthorizationChallenge, ReceiptRejected
from exequatur.gate.challenges import Answering
from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import RECEIPT, payloads_digest, without_ours
from exequatur.statements.encoding import digest
from exequatur.statements.models import Receipt, RequestCore
from exequatur.statements.receipts import verify_receipt

logger = logging.getLogger("exequatur")

_MAX_FAILURE_RECEIPT = Receipt.max_bytes


@dataclass(frozen=True)
class Asked:
    """What an activity was asked for with, so that it can be asked for again.

    Args:
        args: Digest of the arguments' payloads.
        local: Whether it is a local activity.
        sign: Signs a request for it; takes the core, and what :meth:`GovernedRun.header_for` takes besides.
    """

    args: str
    local: bool
    sign: Callable[..., Payload]


class Receiver:
    """Of one activity."""

    def __init__(
        self,
        run: GovernedRun,
        core: RequestCore,
        handle: Any,
        result_type: type | None,
        task_queue: str | None,
        asked: Asked,
    ) -> None:
        self._run = run
        self._handle = handle
        self._result_type = result_type
        self._task_queue = task_queue
        self._asked = asked
        self._first = core

    def attach(self) -> None:
        self._succeed = self._handle._resolve_success
        self._fail = self._handle._resolve_failure
        self._handle._resolve_success = self.succeeded
        self._handle._resolve_failure = self.failed
        self._answering = Answering(self._run, self._first, self._handle, self._asked, self._fail)

    @property
    def _core(self) -> RequestCore:
        """Of the request that the activity was last asked for with."""
        return self._answering.core

    def succeeded(self, result: Any) -> None:
        """Verify the receipt, then let the SDK's handle have the value or the failure."""
        payload = result.payload if isinstance(result, RawValue) else None
        problem = self._verify(payload)
        if problem is not None:
            self._report(problem)
            if self._run.enforced:
                self._fail(self._rejection(problem))
                return
        if payload is None:
            self._succeed(None)
            return
        handle = self._handle
        [value] = handle._instance._convert_payloads(
            [without_ours(payload)], [self._result_type] if self._result_type else None, handle._payload_converter
        )
        self._succeed(value)

    def _verify(self, payload: Payload | None) -> str | None:
        """X2 to X4: what is wrong with the result, or ``None``."""
        run = self._run
        packed = payload.metadata.get(RECEIPT) if payload is not None else None
        if packed is None and run.recorded_queue(self._task_queue):  # X3
            return None
        try:
            receipt = verify_receipt(  # [X2]
                packed,
                self._core,
                payloads_digest([payload]) if payload is not None else "",
                run.receivers,
                run.scope(self._core.activity_type, self._task_queue),
                local_args=self._asked.args if self._asked.local else None,
            )
        except UnknownKeyError:  # X4
            raise
        except StatementError as err:
            return str(err)
        run.received(self._core.seq, receipt.digest)
        return None

    def failed(self, error: BaseException) -> None:
        """Fold the receipt that a failure of ours carries, then answer a challenge or let the handle have the failure.

        Raises:
            UnknownKeyError: X4.
        """
        # A local activity's failure stands by itself.
        cause = error.cause if isinstance(error, ActivityError) else error
        kind = getattr(cause, "type", None)
        if isinstance(cause, ApplicationError) and kind in FAILURE_TYPES:
            details = cause.details[0] if cause.details and isinstance(cause.details[0], dict) else {}
            receipt = details.get("receipt")
            if cause is not error and isinstance(receipt, str) and len(receipt) <= _MAX_FAILURE_RECEIPT:
                self._run.received(self._core.seq, digest(receipt))
            if kind == AuthorizationChallenge.__name__ and self._run.ver >= 2:
                self._answering.answer(error, cause, details)
                return
        self._fail(error)

    def _report(self, problem: str) -> None:
        """Count and log. The SDK resolves handles outside of the workflow's event loop, where ``workflow`` fails."""
        if not self._handle._instance.workflow_is_replaying():
            self._run.gate.metrics.receipt_rejected(self._core.activity_type, enforced=self._run.enforced)
            logger.warning(
                "ReceiptRejected: the result of %s: %s",
                self._core.activity_type,
                problem,
                extra={"workflow_id": self._core.workflow_id, "enforced": self._run.enforced},
            )

    def _rejection(self, problem: str) -> ActivityError:
        asked = self._handle._input
        error = ActivityError(
            "Activity result refused",
            scheduled_event_id=0,
            started_event_id=0,
            identity="",
            activity_type=asked.activity,
            activity_id=asked.activity_id or str(self._handle._seq),
            retry_state=None,
        )
        error.__cause__ = ReceiptRejected(f"The result of {asked.activity} is not proven: {problem}")
        return error
