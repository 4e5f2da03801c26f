"""Runs activities behind the real gate, without a server.

As in ``temporalio.testing.ActivityEnvironment``, an activity is called and nothing else happens: no retry, no timeout.
But its arguments are converted, a grant is issued and a request signed, the gate judges them, the decision is written
to an evidence journal on disk, the body runs under the gate's eyes, and its result is believed only with a receipt.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from os import PathLike
from types import SimpleNamespace
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

import temporalio.activity
import temporalio.client
import temporalio.common
import temporalio.worker._activity as sdk
from temporalio.activity import ActivityCancellationDetails, Info
from temporalio.common import MetricMeter, RawValue
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.testing import ActivityEnvironment
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from exequatur.errors import ConfigurationError
from exequatur.failures import AuthorizationFailure
from exequatur.gate.wire import ACTIVITY_HEADER, payloads_digest
from exequatur.identity.acting import OnBehalf, acting_now
from exequatur.identity.principal import Principal
from exequatur.plugin import AuthorizationPlugin
from exequatur.statements.models import Receipt
from exequatur.testing.asking import AskingRun, receipt_in
from exequatur.testing.plugins import make_plugin, principal_of, tested

P = ParamSpec("P")
R = TypeVar("R")

_UNNAMED = ActivityEnvironment.default_info()
_REQUESTED = ActivityCancellationDetails(cancel_requested=True)
_TIMES = ("scheduled_time", "current_attempt_scheduled_time", "started_time")


class GatedActivityEnvironment:
    """An environment in which activities run behind the gate.

    Each :meth:`run` opens the evidence journal and closes it again. To keep it open over several runs, and the policy
    folder and the revocations followed in between, use the environment as ``async with``.

    Args:
        plugin: Whose gate. Without it one is made of ``policies`` and ``settings``.
        policies: The policy folder.
        principal: On whose behalf; text is ``Type::"id"``. :func:`exequatur.acting_as` takes precedence, and without
            either it is the plugin's.
        settings: Settings by name.
        data_converter: As the worker's client has it.
        interceptors: The worker's other interceptors.
        client: What ``activity.client()`` gives.

    Attributes:
        plugin: The plugin.
        principal: On whose behalf, or ``None`` for the plugin's.
        info: What ``activity.info()`` gives; change fields with :func:`dataclasses.replace`. Where the activity type
            and the times are left as they are, they are the function's and those of the run. Heartbeat details are
            signed as those of the attempt before.
        governed: Whether the activity's workflow carries a grant; false for work that never got one.
        on_heartbeat: Called with the details of each heartbeat that the gate let through.
        heartbeats: Those details.
        receipts: What the gate signed about each run, verified, in their order.
        metric_meter: What ``activity.metric_meter()`` gives.

    Raises:
        ConfigurationError: Not exactly one of plugin and policies is given, or one of the rest cannot be used.
        PolicyError: The policies cannot be used.
    """

    def __init__(
        self,
        plugin: AuthorizationPlugin | None = None,
        *,
        policies: str | PathLike[str] | None = None,
        principal: Principal | str | None = None,
        settings: Mapping[str, Any] | None = None,
        data_converter: DataConverter = DataConverter.default,
        interceptors: Sequence[Interceptor] = (),
        client: temporalio.client.Client | None = None,
    ) -> None:
        if (plugin is None) == (policies is None) or (plugin is not None and settings is not None):
            raise ConfigurationError("Give either a plugin, or policies and perhaps settings")
        self.plugin = tested(plugin) if plugin is not None else make_plugin(policies or "", settings=settings)
        self.principal = principal_of(principal)
        self.info: Info = ActivityEnvironment.default_info()
        self.governed = True
        self.on_heartbeat: Callable[..., None] = lambda *details: None
        self.heartbeats: list[tuple[Any, ...]] = []
        self.receipts: list[Receipt] = []
        self.metric_meter = MetricMeter.noop
        self._client = client
        # Of a client's configuration the plugin changes these two.
        client_config = cast("temporalio.client.ClientConfig", {"interceptors": [], "data_converter": data_converter})
        config = self.plugin.configure_client(client_config)
        self._converter = config["data_converter"]
        self._interceptors = [*cast("list[Interceptor]", config["interceptors"]), _Inside(self), *interceptors]
        self._kept = AsyncExitStack()
        self._asking: tuple[object, AskingRun] | None = None
        self._executions: set[_Execution] = set()
        self._cancelled: ActivityCancellationDetails | None = None
        self._shut_down = False

    async def __aenter__(self) -> Self:
        await self._kept.enter_async_context(self.plugin._serving.worker())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kept.aclose()

    @overload
    async def run(self, fn: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run an activity behind the gate.

        Args:
            fn: A function, a bound method or an object with ``__call__``, plain or ``async``. A plain one runs in a
                thread of its own.
            args: Its arguments. Temporal passes them by position.

        Returns:
            What the activity returned.

        Raises:
            AuthorizationFailure: It was refused, as a worker would have refused it.
            ConfigurationError: There is no principal, or it may not start the workflow around the activity.
            PolicyError: The policies do not fit the activity, as a worker would have said when it started.
            TypeError: Arguments were given by name.
        """
        if kwargs:
            raise TypeError("Temporal passes an activity's arguments by position; give them without names")
        definition = temporalio.activity._Definition.from_callable(fn)
        info = self._info_for(fn, definition)
        execution = _Execution(fn, info)
        self._executions.add(execution)
        try:
            dynamic = definition is not None and not definition.name
            async with self._serving(info, {} if dynamic else {info.activity_type: fn}):
                task = asyncio.create_task(self._execute(execution, definition, args))
                execution.running.task = task
                if self._shut_down:
                    execution.shut_down()
                if self._cancelled:
                    execution.cancel(self._cancelled)
                return await _finished(task, execution)
        finally:
            self._executions.discard(execution)

    def cancel(self, cancellation_details: ActivityCancellationDetails = _REQUESTED) -> None:
        """Cancel what runs here and what will. Only the first call has an effect.

        Args:
            cancellation_details: What ``activity.cancellation_details()`` gives then.
        """
        if self._cancelled is None:
            self._cancelled = cancellation_details
            for execution in list(self._executions):
                execution.cancel(cancellation_details)

    def worker_shutdown(self) -> None:
        """Tell what runs here, and what will, that the worker shuts down."""
        self._shut_down = True
        for execution in list(self._executions):
            execution.shut_down()

    def _info_for(self, fn: Callable[..., Any], definition: temporalio.activity._Definition | None) -> Info:
        info, now = self.info, datetime.fromtimestamp(self.plugin.gate.clock(), UTC)
        changes: dict[str, Any] = {name: now for name in _TIMES if getattr(info, name) == getattr(_UNNAMED, name)}
        if info.activity_type == _UNNAMED.activity_type:
            name = definition.name if definition is not None else getattr(fn, "__name__", None)
            if not name:
                raise ConfigurationError(f"{fn!r} has no activity type of its own; set activity_type in the info")
            changes["activity_type"] = name
        if info.heartbeat_details and info.attempt < 2 and self.governed:
            raise ConfigurationError("Heartbeat details come from an earlier attempt; set attempt in the info to 2")
        return dataclasses.replace(info, **changes)

    @asynccontextmanager
    async def _serving(self, info: Info, activities: Mapping[str, Callable[..., Any]]) -> AsyncIterator[None]:
        """What a worker for this one activity has beside it: journal, feeds, watchdog and a credential.

        Raises:
            PolicyError: The policies do not fit the activity, as a worker would have said when it started.
        """
        serving, workload = self.plugin._serving, self.plugin.gate.workload
        await serving.refresh()
        fits = self.plugin.gate.judging(activities) if activities else nullcontext()
        with workload.covering(info.namespace, info.task_queue, [info.activity_type]), fits:
            async with serving.worker():
                yield

    async def _run_around(self, info: Info) -> AskingRun | None:
        """The governed run that asks for the activity: one for as long as the principal and the names stay the same."""
        if not self.governed:
            return None
        named = self.principal or self.plugin._principal
        who = acting_now() or (OnBehalf(named) if named is not None else None)
        if who is None:
            raise ConfigurationError(
                "Nobody is named on whose behalf the activity runs; give the environment a principal, or use "
                'acting_as(Principal("Agent", "ops-bot"))'
            )
        names = (who, info.namespace, info.workflow_id, info.workflow_type, info.workflow_run_id, info.task_queue)
        if self._asking is None or self._asking[0] != names:
            self._asking = names, await AskingRun.begin(self.plugin, who, info)
        return self._asking[1]

    async def _execute(
        self, execution: _Execution, definition: temporalio.activity._Definition | None, args: Sequence[Any]
    ) -> Any:
        """Do with one activity what the SDK's worker does with its task."""
        info = execution.info
        converter = self._converter.with_context(
            ActivitySerializationContext(
                namespace=info.namespace,
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                activity_type=info.activity_type,
                activity_id=info.activity_id,
                activity_task_queue=info.task_queue,
                is_local=info.is_local,
            )
        )
        run = await self._run_around(info)
        payloads = converter.payload_converter.to_payloads(args) if args else []
        request, headers = None, {}
        if run is not None:
            request, header = run.ask(info, payloads_digest(payloads))
            headers = {ACTIVITY_HEADER: header}
        dynamic = definition is not None and not definition.name
        types: list[type] | None = definition.arg_types if definition is not None else None
        if dynamic:
            types = [cast(type, RawValue)] * len(payloads)
        elif types is not None and len(types) != len(payloads):
            types = None
        sent = await converter.encode([RawValue(payload) for payload in payloads]) if payloads else []
        values = await converter.decode(sent, types) if sent else []
        if info.heartbeat_details:
            details = list(info.heartbeat_details)
            if run is not None and request is not None:
                details = run.mark(details, request, info, converter.payload_converter)
            left = await converter.decode(await converter.encode(details))
            info = execution.info = dataclasses.replace(info, heartbeat_details=left)
        with execution.context(self, converter):
            impl: ActivityInboundInterceptor = execution.body(converter)
            for interceptor in reversed(self._interceptors):
                impl = interceptor.intercept_activity(impl)
            impl.init(_Outbound(info))
            try:
                result = await impl.execute_activity(
                    ExecuteActivityInput(
                        fn=definition.fn if definition is not None else execution.fn,
                        args=[values] if dynamic else values,
                        executor=execution.executor,
                        headers=headers,
                    )
                )
            except AuthorizationFailure as err:
                receipt = receipt_in(err)
                if receipt is not None:
                    self.receipts.append(receipt.claims)
                    if run is not None and request is not None:
                        run.received(request, receipt.digest)
                raise
        if run is not None and request is not None:
            self.receipts.append(run.believe(result.payload, request, info))
        return execution.returned


async def _finished(task: asyncio.Task[Any], execution: _Execution) -> Any:
    """Wait for an execution; who gives up waiting ends it."""
    try:
        return await task
    except asyncio.CancelledError:
        execution.running.cancel()
        raise
    finally:
        execution.finish()


class _Execution:
    """One activity that runs, as the SDK's worker keeps it."""

    returned: Any = None
    """What the activity, with the interceptors around it, returned to the gate."""

    def __init__(self, fn: Callable[..., Any], info: Info) -> None:
        self.fn = fn
        self.info = info
        self.executor: concurrent.futures.ThreadPoolExecutor | None = None
        self.running = sdk._RunningActivity()
        asynchronous = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
        self.running.sync = not asynchronous
        self._shutdown = _event(asynchronous=asynchronous)
        self.running.cancelled_event = _event(asynchronous=asynchronous)
        if not asynchronous:
            definition = temporalio.activity._Definition.from_callable(fn)
            if definition is None or not definition.no_thread_cancel_exception:
                self.running.cancel_thread_raiser = sdk._ThreadExceptionRaiser()
            self.executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="activity")

    def cancel(self, details: ActivityCancellationDetails) -> None:
        self.running.cancellation_details.details = details
        self.running.cancel(cancelled_by_request=True)

    def shut_down(self) -> None:
        self._shutdown.set()

    def finish(self) -> None:
        self.running.done = True
        if self.executor is not None:
            # A body that was revoked or cancelled may still be in its thread.
            self.executor.shutdown(wait=False)

    @contextmanager
    def context(self, environment: GatedActivityEnvironment, converter: DataConverter) -> Iterator[None]:
        """The activity's context, in which ``temporalio.activity`` and the gate find it."""
        raiser, cancelled = self.running.cancel_thread_raiser, self.running.cancelled_event
        token = temporalio.activity._Context.set(
            temporalio.activity._Context(
                info=lambda: self.info,
                heartbeat=None,
                cancelled_event=cast(temporalio.common._CompositeEvent, cancelled),
                worker_shutdown_event=self._shutdown,
                shield_thread_cancel_exception=raiser.shielded if raiser else None,
                payload_converter_class_or_instance=converter.payload_converter,
                runtime_metric_meter=environment.metric_meter,
                client=None if self.running.sync else environment._client,
                cancellation_details=self.running.cancellation_details,
            )
        )
        execution = _current.set(self)
        try:
            yield
        finally:
            _current.reset(execution)
            temporalio.activity._Context.reset(token)

    def body(self, converter: DataConverter) -> ActivityInboundInterceptor:
        """The SDK's own innermost interceptor, which calls the function."""
        worker: Any = SimpleNamespace(
            _data_converter=converter, _worker_shutdown_event=self._shutdown, _shared_state_manager=None
        )
        return sdk._ActivityInboundImpl(worker, self.running)


_current: ContextVar[_Execution] = ContextVar("exequatur_testing_execution")


def _event(*, asynchronous: bool) -> temporalio.common._CompositeEvent:
    return temporalio.common._CompositeEvent(
        thread_event=threading.Event(), async_event=asyncio.Event() if asynchronous else None
    )


class _Outbound(ActivityOutboundInterceptor):
    """Where a heartbeat would leave for the server."""

    def __init__(self, info: Info) -> None:
        # As in the SDK's own: there is nothing behind this one.
        self._info = info

    def info(self) -> Info:
        return self._info

    def heartbeat(self, *details: Any) -> None:
        """Nobody is there to get it; :class:`_Inside` has seen it before it was signed."""


class _Inside(Interceptor):
    """Right behind the gate: sees what it let in, and what comes back before it is signed."""

    def __init__(self, environment: GatedActivityEnvironment) -> None:
        self._environment = environment

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _InsideInbound(next, self._environment)


class _InsideInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, environment: GatedActivityEnvironment) -> None:
        super().__init__(next)
        self._environment = environment

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_InsideOutbound(outbound, self._environment))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        result = _current.get().returned = await super().execute_activity(input)
        return result


class _InsideOutbound(ActivityOutboundInterceptor):
    def __init__(self, next: ActivityOutboundInterceptor, environment: GatedActivityEnvironment) -> None:
        super().__init__(next)
        self._environment = environment

    def heartbeat(self, *details: Any) -> None:
        super().heartbeat(*details)  # the gate may refuse it
        self._environment.heartbeats.append(details)
        self._environment.on_heartbeat(*details)
