"""What user code could notice of a gate that says yes: nothing."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import temporalio.client
from temporalio import activity, workflow
from temporalio.client import OutboundInterceptor, StartWorkflowInput, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from exequatur import AuthorizationPlugin, ConfigurationError
from tests.gate.conftest import PERMIT_ALL, sandbox, unique

TIMEOUT = timedelta(seconds=60)


@activity.defn
async def add(first: int, second: int) -> int:
    return first + second


@activity.defn
def beats_from_a_bare_thread(detail: str) -> Sequence[Any]:
    """Heartbeats from a thread that has no activity context, and gives what the next attempt finds."""
    context = activity._Context.current()
    if activity.info().attempt > 1:
        return activity.info().heartbeat_details
    assert context.heartbeat
    with ThreadPoolExecutor(1) as bare:
        bare.submit(context.heartbeat, detail).result()
    raise RuntimeError("try again")


@workflow.defn
class Adds:
    @workflow.run
    async def run(self, first: int, second: int) -> int:
        return await workflow.execute_activity(add, args=[first, second], start_to_close_timeout=TIMEOUT)


class SeesInput(Interceptor, temporalio.client.Interceptor):
    """Remembers what its inputs hold after the call went on, as a tracing interceptor may."""

    def __init__(self) -> None:
        self.started: list[Sequence[Any]] = []
        self.scheduled: list[Sequence[Any]] = []
        self.infos = 0

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        outer = self

        class Client(OutboundInterceptor):
            async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
                handle = await super().start_workflow(input)
                outer.started.append(list(input.args))
                return handle

        return Client(next)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        outer = self

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
                handle = super().start_activity(input)
                outer.scheduled.append(list(input.args))
                return handle

            def info(self) -> workflow.Info:
                outer.infos += 1
                return super().info()

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


@workflow.defn
class Beats:
    @workflow.run
    async def run(self) -> list[str]:
        return await workflow.execute_activity(
            beats_from_a_bare_thread,
            "so far",
            start_to_close_timeout=TIMEOUT,
            heartbeat_timeout=TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=10)),
        )


async def test_a_thread_without_an_activity_context_may_heartbeat(stage: Callable[..., Any]) -> None:
    s = await stage(PERMIT_ALL)
    async with s.worker([Beats], [beats_from_a_bare_thread]):
        assert await (await s.start(Beats.run)).result() == ["so far"]


async def test_interceptors_see_their_own_arguments_and_no_calls_of_ours(
    stage: Callable[..., Any], target: str
) -> None:
    gated, plain = SeesInput(), SeesInput()
    s = await stage(PERMIT_ALL, client_options={"interceptors": [gated]})
    async with s.worker([Adds], [add]):
        assert await (await s.start(Adds.run, 2, 3)).result() == 5
    client = await temporalio.client.Client.connect(target, interceptors=[plain])
    queue = unique("queue")
    async with Worker(client, task_queue=queue, workflows=[Adds], activities=[add], workflow_runner=sandbox()):
        handle = await client.start_workflow(Adds.run, args=[2, 3], id=unique("run"), task_queue=queue)
        assert await handle.result() == 5
    assert gated.started == plain.started == [[2, 3]]
    assert gated.scheduled == plain.scheduled == [[2, 3]]
    assert gated.infos == plain.infos


async def test_a_pool_that_is_too_small_is_warned_of_as_without_the_plugin(stage: Callable[..., Any]) -> None:
    s = await stage(PERMIT_ALL)
    with ThreadPoolExecutor(2) as executor, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Worker(
            s.client,
            task_queue=unique("queue"),
            activities=[add],
            activity_executor=executor,
            max_concurrent_activities=5,
        )
    assert [str(each.message) for each in caught if "max_workers is only 2" in str(each.message)]


async def test_a_tuner_and_a_number_of_activities_exclude_each_other_as_without_the_plugin(
    stage: Callable[..., Any],
) -> None:
    s = await stage(PERMIT_ALL)
    tuner = temporalio.worker.WorkerTuner.create_fixed(activity_slots=3)
    with pytest.raises(ValueError, match="when also specifying tuner"):
        Worker(s.client, task_queue=unique("queue"), activities=[add], tuner=tuner, max_concurrent_activities=5)


async def test_a_process_may_run_any_number_of_workers_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "main.cedar").write_text(PERMIT_ALL)
    plugin = AuthorizationPlugin.embedded(tmp_path / "policies", state_dir=tmp_path / "state")
    workload, now = plugin.gate.workload, plugin.gate.clock()
    sizes = []
    for number in range(100):
        with workload.covering("default", f"a-task-queue-with-a-long-name-{number}", ["an-activity"]):
            workload.renew_if_due(now)
            assert workload.valid(now)
            sizes.append(len(workload.credential.text))
    assert max(sizes) < 2 * min(sizes)


async def test_a_worker_with_too_many_activities_for_a_credential_does_not_start(stage: Callable[..., Any]) -> None:
    def named(number: int) -> Callable[..., Any]:
        @activity.defn(name=f"an-activity-with-a-very-long-name-{number}")
        async def body() -> None: ...

        return body

    s = await stage(PERMIT_ALL)
    worker = Worker(s.client, task_queue=s.queue, activities=[named(number) for number in range(150)])
    with pytest.raises(ConfigurationError, match="too many task queues or activities"):
        await worker.run()
