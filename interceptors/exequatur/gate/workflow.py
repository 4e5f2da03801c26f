"""The workflow side of the gate: ask before each activity, and believe only what comes with a receipt.

Runs inside the workflow sandbox. An activity's handle stays the SDK's own: the request is signed and the activity
scheduled in the same call, and the receipt is verified where the SDK resolves the handle. So nothing resumes earlier or
later than without the gate.

Rules, numbered as the code marks them:

X1  A run whose start header cannot be read schedules nothing (W1).
X2  A result without a valid receipt fails the activity where the workflow awaits it (rules P of
    :mod:`exequatur.statements.receipts`), unless the grant says ``observe``.
X3  A task queue that the grant lists as recorded may leave the receipt out, but not bring a wrong one.
X4  An unknown key is no verdict: the workflow task fails and is tried again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, cast

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import FAILURE_TYPES, GrantRejected, ReceiptRejected
from exequatur.gate.gate import Gate
from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, START_HEADER, payloads_digest, without_ours
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token
from exequatur.statements.models import NextRun, Receipt, RequestCore, Reuse, Seal, SealOutcome
from exequatur.statements.receipts import verify_receipt

logger = logging.getLogger("exequatur")

_MAX_FAILURE_RECEIPT = Receipt.max_bytes


class WorkflowInbound(WorkflowInboundInterceptor):
    """Finds out whether the run is governed, and seals it when it closes."""

    gate: ClassVar[Gate]
    _run: GovernedRun | None = None

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._run = GovernedRun.of(self.gate, outbound.info())  # [X4]
        super().init(outbound if self._run is None else WorkflowOutbound(outbound, self._run))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        if self._run is None:
            return await super().execute_workflow(input)
        try:
            result = await super().execute_workflow(input)
        except workflow.ContinueAsNewError:
            # Its seal was made with the header of the next run.
            raise
        except BaseException as err:
            if outcome := _closing(err):
                _record_seal(self._run, outcome)
            raise
        _record_seal(self._run, "completed")
        return result


def _closing(error: BaseException) -> SealOutcome | None:
    """How the run closes with this error, or ``None`` if it does not: a failed task, or an eviction."""
    if is_cancelled_exception(error):
        return "cancelled" if workflow.cancellation_reason() is not None else None
    return "failed" if isinstance(error, FailureError) else None


def _record_seal(run: GovernedRun, outcome: SealOutcome) -> None:
    if not workflow.unsafe.is_replaying() and not run.unreadable:
        _keep_seal(run, run.seal(outcome))


def _keep_seal(run: GovernedRun, seal: Token[Seal]) -> None:
    """Put a seal into the evidence, with the credential that verifies it: the run need not have shown it."""
    if run.gate.journal is not None:
        run.gate.journal.enqueue("seal", f"{seal.text}~{run.gate.workload.credential.text}".encode())


class WorkflowOutbound(WorkflowOutboundInterceptor):
    """What a governed run asks for."""

    def __init__(self, next: WorkflowOutboundInterceptor, run: GovernedRun) -> None:
        super().__init__(next)
        self._run = run

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        queue = input.task_queue or self.next.info().task_queue
        return self._schedule(input, self.next.start_activity, queue, local=False)

    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        return self._schedule(input, self.next.start_local_activity, self.next.info().task_queue, local=True)

    def _schedule(
        self,
        input: Any,
        schedule: Callable[[Any], workflow.ActivityHandle[Any]],
        task_queue: str,
        *,
        local: bool,
    ) -> workflow.ActivityHandle[Any]:
        run, info = self._run, self.next.info()
        if run.unreadable:  # [X1]
            raise GrantRejected(f"The start header of this run cannot be read: {run.unreadable}")
        core = run.next_core(input.activity)
        input = dataclasses.replace(input)  # a user's interceptor in front may still look at what it passed on
        converter = _converter(
            ActivitySerializationContext(
                namespace=info.namespace,
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                activity_type=input.activity,
                activity_id=input.activity_id,
                activity_task_queue=task_queue,
                is_local=local,
            )
        )
        payloads = converter.to_payloads(input.args) if input.args else []
        args = payloads_digest(payloads)
        input.args = [RawValue(payload) for payload in payloads]
        # A local activity whose end is not recorded is executed after a replay, too.
        if not workflow.unsafe.is_replaying() or (local and run.can_sign):
            header = run.header_for(
                core, args=args, task_queue=task_queue, activity_id=input.activity_id or None, local=local
            )
            input.headers = {**input.headers, ACTIVITY_HEADER: header}
        result_type, input.ret_type = input.ret_type, RawValue
        recorded_queue = None if local else input.task_queue
        handle = schedule(input)
        run.requested(core)
        _Receiver(run, core, handle, result_type, recorded_queue, args if local else None).attach()
        return handle

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        run, info = self._run, self.next.info()
        if run.unreadable:  # [X1]
            raise GrantRejected(f"The start header of this run cannot be read: {run.unreadable}")
        input = dataclasses.replace(input)
        if not workflow.unsafe.is_replaying():
            converter = _converter(WorkflowSerializationContext(namespace=info.namespace, workflow_id=input.id))
            payloads = converter.to_payloads(input.args) if input.args else []
            input.args = [RawValue(payload) for payload in payloads]
            reuse: Reuse = "cron" if input.cron_schedule else "retry" if input.retry_policy else "once"
            header = run.delegate(
                workflow_type=input.workflow,
                workflow_id=input.id,
                task_queue=input.task_queue or info.task_queue,
                input_digest=payloads_digest(payloads),
                reuse=reuse,
            )
            input.headers = {**input.headers, START_HEADER: header}
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        run, info = self._run, self.next.info()
        input = dataclasses.replace(input)
        if not workflow.unsafe.is_replaying() and not run.unreadable:
            try:
                payloads = workflow.payload_converter().to_payloads(input.args) if input.args else []
            except Exception:
                # The SDK converts them later and fails the workflow task; so it must stay.
                super().continue_as_new(input)
            input.args = [RawValue(payload) for payload in payloads]
            seal = run.seal(
                "continued",
                NextRun(
                    workflow_type=input.workflow or info.workflow_type,
                    task_queue=input.task_queue or info.task_queue,
                    input=payloads_digest(payloads),
                ),
            )
            input.headers = {**input.headers, START_HEADER: run.continued_header(seal)}
            _keep_seal(run, seal)
        super().continue_as_new(input)


class _Receiver:
    """Stands where the SDK resolves one activity's handle."""

    def __init__(
        self,
        run: GovernedRun,
        core: RequestCore,
        handle: Any,
        result_type: type | None,
        task_queue: str | None,
        local_args: str | None,
    ) -> None:
        self._run = run
        self._core = core
        self._handle = handle
        self._result_type = result_type
        self._task_queue = task_queue
        self._local_args = local_args

    def attach(self) -> None:
        self._succeed = self._handle._resolve_success
        self._fail = self._handle._resolve_failure
        self._handle._resolve_success = self.succeeded
        self._handle._resolve_failure = self.failed

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
                local_args=self._local_args,
            )
        except UnknownKeyError:  # X4
            raise
        except StatementError as err:
            return str(err)
        run.received(self._core.seq, receipt.digest)
        return None

    def failed(self, error: BaseException) -> None:
        """Fold the receipt that a failure of ours carries, then let the handle have the failure."""
        cause = error.cause if isinstance(error, ActivityError) else None
        if getattr(cause, "type", None) in FAILURE_TYPES:
            details = getattr(cause, "details", ())
            receipt = details[0].get("receipt") if details and isinstance(details[0], dict) else None
            if isinstance(receipt, str) and len(receipt) <= _MAX_FAILURE_RECEIPT:
                self._run.received(self._core.seq, digest(receipt))
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


def _converter(context: SerializationContext) -> PayloadConverter:
    converter = workflow.payload_converter()
    if isinstance(converter, WithSerializationContext):
        converter = cast(PayloadConverter, converter.with_context(context))
    return converter
