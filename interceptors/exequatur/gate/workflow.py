"""The workflow side of the gate: ask before each activity, and believe only what comes with a receipt.

Runs inside the workflow sandbox. An activity's handle stays the SDK's own: the request is signed and the activity
scheduled in the same call, and the receipt is verified where the SDK resolves the handle. So nothing resumes earlier or
later than without the gate.

Rules, numbered as the code marks them:

X1  A run whose start header cannot be read schedules nothing (W1).
X4  An unknown key is no verdict: the workflow task fails and is tried again, also where every exception is to fail the
    workflow.

What messages bring is for :mod:`exequatur.gate.incoming` to judge (rules M41 to M48), what signals to other runs carry
is :mod:`exequatur.gate.outgoing`'s (rules X6 to X9), and what comes back is the receiver's
(:mod:`exequatur.gate.receiver`, rules X2 and X3).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.converter import (
    ActivitySerializationContext,
    NexusSerializationContext,
    PayloadConverter,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import FailureError, is_cancelled_exception
from temporalio.nexus.system._support import signal_function_to_proto, workflow_function_name
from temporalio.nexus.system.workflow_service.models import SignalWithStartWorkflowRequest
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    SignalChildWorkflowInput,
    SignalExternalWorkflowInput,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    StartNexusOperationInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from exequatur.errors import UndecidedError, UnknownKeyError
from exequatur.failures import GrantRejected
from exequatur.gate.calling import call_headers
from exequatur.gate.gate import Gate
from exequatur.gate.incoming import Incoming
from exequatur.gate.outgoing import signal_header
from exequatur.gate.receiver import Asked, Receiver
from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import ACTIVITY_HEADER, MESSAGE_HEADER, START_HEADER, payloads_digest
from exequatur.statements.jws import Token
from exequatur.statements.models import NextRun, Reuse, Seal, SealOutcome

Signal = TypeVar("Signal", SignalChildWorkflowInput, SignalExternalWorkflowInput)


class WorkflowInbound(WorkflowInboundInterceptor):
    """Finds out whether the run is governed, and seals it when it closes."""

    gate: ClassVar[Gate]
    _run: GovernedRun | None = None
    _incoming: Incoming | None = None

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._run = GovernedRun.of(self.gate, outbound.info())  # [X4]
        self._incoming = Incoming.of(self._run, outbound.info())
        if self._run is not None:
            _fail_tasks_only()
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

    async def handle_signal(self, input: HandleSignalInput) -> None:
        if self._incoming is None or self._incoming.takes_signal(input):
            await super().handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        if self._incoming is not None:
            self._incoming.check_query(input)
        return await super().handle_query(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        if self._incoming is not None:
            self._incoming.check_validation(input)
        super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        if self._incoming is not None:
            self._incoming.check_update(input)
        return await super().handle_update_handler(input)


def _fail_tasks_only() -> None:
    """X4 and X7 of the run, whatever its ``failure_exception_types`` are: what is no verdict fails no workflow."""
    instance: Any = workflow._Runtime.current()
    fails_workflow = instance.workflow_is_failure_exception

    def is_failure(error: BaseException) -> bool:
        return not isinstance(error, (UnknownKeyError, UndecidedError)) and fails_workflow(error)  # [X4] [X7]

    instance.workflow_is_failure_exception = is_failure


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
        restriction = run.restriction()  # X5, before anything is changed
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
        sign = functools.partial(
            run.header_for,
            args=args,
            task_queue=task_queue,
            activity_id=input.activity_id or None,
            local=local,
            restriction=restriction,
        )
        # A local activity whose end is not recorded is executed after a replay, too.
        if not workflow.unsafe.is_replaying() or (local and run.can_sign):
            input.headers = {**input.headers, ACTIVITY_HEADER: sign(core)}
        result_type, input.ret_type = input.ret_type, RawValue
        recorded_queue = None if local else input.task_queue
        handle = schedule(input)
        run.requested(core)
        Receiver(run, core, handle, result_type, recorded_queue, Asked(args, local, sign)).attach()
        return handle

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> workflow.ChildWorkflowHandle[Any, Any]:
        run, info = self._run, self.next.info()
        if run.unreadable:  # [X1]
            raise GrantRejected(f"The start header of this run cannot be read: {run.unreadable}")
        holds = run.handed_on(run.restriction())  # X5
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
                holds=holds,
            )
            input.headers = {**input.headers, START_HEADER: header}
        return await super().start_child_workflow(input)

    async def signal_child_workflow(self, input: SignalChildWorkflowInput) -> None:
        target = (self.next.info().namespace, input.child_workflow_id, None)
        await super().signal_child_workflow(self._signed(input, *target))

    async def signal_external_workflow(self, input: SignalExternalWorkflowInput) -> None:
        target = (input.namespace, input.workflow_id, input.workflow_run_id)
        await super().signal_external_workflow(self._signed(input, *target))

    def _signed(self, input: Signal, namespace: str, workflow_id: str, run_id: str | None) -> Signal:
        """A copy of the input with the sender's chain (X6); the caller's own stays as it was."""
        run = self._run
        if run.ver < 2 or run.unreadable:
            return input
        restriction = run.restriction()
        if workflow.unsafe.is_replaying():
            return input
        converter = _converter(WorkflowSerializationContext(namespace=namespace, workflow_id=workflow_id))
        payloads = converter.to_payloads(input.args) if input.args else []
        header = signal_header(
            run,
            self.next.info(),
            namespace=namespace,
            target=workflow_id,
            target_run_id=run_id,
            name=input.signal,
            args=payloads_digest(payloads),
            restriction=restriction,
        )
        headers = {**input.headers, MESSAGE_HEADER: header} if header else input.headers
        return dataclasses.replace(input, args=[RawValue(payload) for payload in payloads], headers=headers)

    async def start_signal_with_start_workflow(
        self, request: SignalWithStartWorkflowRequest
    ) -> workflow.NexusOperationHandle[Any]:
        run, info = self._run, self.next.info()
        if run.unreadable:  # [X1]
            raise GrantRejected(f"The start header of this run cannot be read: {run.unreadable}")
        restriction = run.restriction()  # X5
        holds = run.handed_on(restriction)  # X5
        if run.ver >= 2 and not workflow.unsafe.is_replaying():
            converter = _converter(WorkflowSerializationContext(namespace=request.namespace, workflow_id=request.id))
            args = converter.to_payloads(request.args) if request.args else []
            signal_args = converter.to_payloads(request.signal_args) if request.signal_args else []
            headers = {
                START_HEADER: run.delegate(
                    workflow_type=workflow_function_name(request.workflow),
                    workflow_id=request.id,
                    task_queue=request.task_queue,
                    input_digest=payloads_digest(args),
                    reuse="cron" if request.cron_schedule else "retry" if request.retry_policy else "once",
                    holds=holds,
                    detached=True,
                ),
                MESSAGE_HEADER: signal_header(
                    run,
                    info,
                    namespace=request.namespace,
                    target=request.id,
                    target_run_id=None,
                    name=signal_function_to_proto(request.signal),
                    args=payloads_digest(signal_args),
                    restriction=restriction,
                ),
            }
            request = copy.copy(request)
            request.headers = {**(request.headers or {}), **{name: each for name, each in headers.items() if each}}
            request.args = [RawValue(payload) for payload in args] if request.args is not None else None
            if request.signal_args is not None:
                request.signal_args = [RawValue(payload) for payload in signal_args]
        return await super().start_signal_with_start_workflow(request)

    async def start_nexus_operation(
        self, input: StartNexusOperationInput[Any, Any]
    ) -> workflow.NexusOperationHandle[Any]:
        run = self._run
        if run.unreadable:  # [X1]
            raise GrantRejected(f"The start header of this run cannot be read: {run.unreadable}")
        restriction = run.restriction()  # X5
        if not workflow.unsafe.is_replaying():
            converter = _converter(
                NexusSerializationContext(
                    endpoint=input.endpoint, service=input.service, operation=input.operation_name
                )
            )
            try:
                payload = converter.to_payload(input.input)
            except Exception:
                # The SDK converts it later and raises what it raises; so it must stay.
                return await super().start_nexus_operation(input)
            input = copy.copy(input)  # not replaced: that would set what a user's interceptor changed back
            input.headers = call_headers(run, input, payload, restriction)
            input.input = RawValue(payload)
        return await super().start_nexus_operation(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        run, info = self._run, self.next.info()
        restriction = None if run.unreadable else run.restriction()  # X5
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
                    restriction=restriction,
                ),
            )
            input.headers = {**input.headers, START_HEADER: run.continued_header(seal)}
            _keep_seal(run, seal)
        super().continue_as_new(input)


def _converter(context: SerializationContext) -> PayloadConverter:
    converter = workflow.payload_converter()
    if isinstance(converter, WithSerializationContext):
        converter = cast(PayloadConverter, converter.with_context(context))
    return converter
