"""Real runs for the audit to look at: one of each kind that the gate knows, with their evidence.

:func:`record` runs them on a real server; what comes back are histories as an auditor gets them, and the state folder
with the journals beside them.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Principal, Settings

TIMEOUT = timedelta(seconds=60)
QUEUE = "audited"
POLICIES = """
@id("all") permit(principal, action, resource);
@id("no-deletion") @reason("records are kept") forbid(principal, action == Action::"delete", resource);
@id("limit") forbid(principal, action == Action::"pay", resource) when { context.args.order.amount > 1000 };
@id("first-attempts") forbid(principal, action == Action::"pay", resource) when { context.activity.attempt > 5 };
"""


@dataclass
class Order:
    amount: int
    note: str = ""


@activity.defn
async def pay(order: Order) -> int:
    return order.amount


@activity.defn
def step(number: int) -> int:
    return number + 1


@activity.defn
def delete(number: int) -> int:
    return number


@activity.defn
async def flaky(number: int) -> int:
    if activity.info().attempt < 3:
        raise ApplicationError("not yet")
    return number


@activity.defn
async def fails() -> None:
    raise ApplicationError("it cannot be done", non_retryable=True)


@activity.defn
async def beats() -> str:
    while True:
        activity.heartbeat("working")
        await asyncio.sleep(0.05)


@activity.defn
async def silent() -> None:
    await asyncio.sleep(60)


ACTIVITIES = [pay, step, delete, flaky, fails, beats, silent]


@workflow.defn
class Sequential:
    @workflow.run
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total += await workflow.execute_activity(pay, Order(number), start_to_close_timeout=TIMEOUT)
        return total


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, width: int) -> int:
        asked = (workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT) for number in range(width))
        return sum(await asyncio.gather(*asked))


@workflow.defn
class Retried:
    @workflow.run
    async def run(self) -> int:
        policy = RetryPolicy(initial_interval=timedelta(milliseconds=10))
        got: int = await workflow.execute_activity(flaky, 7, start_to_close_timeout=TIMEOUT, retry_policy=policy)
        with suppress(ActivityError):
            await workflow.execute_activity(fails, start_to_close_timeout=TIMEOUT)
        return got


@workflow.defn
class Local:
    @workflow.run
    async def run(self) -> int:
        number = await workflow.execute_activity(step, 1, start_to_close_timeout=TIMEOUT)
        number = await workflow.execute_local_activity(step, number, start_to_close_timeout=TIMEOUT)
        with suppress(FailureError):
            await workflow.execute_local_activity(fails, start_to_close_timeout=TIMEOUT)
        with suppress(FailureError):
            await workflow.execute_local_activity(delete, number, start_to_close_timeout=TIMEOUT)
        numbers = await asyncio.gather(
            *(workflow.execute_local_activity(step, number, start_to_close_timeout=TIMEOUT) for _ in range(3)),
            workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT),
        )
        return sum(numbers)


@workflow.defn
class Parent:
    @workflow.run
    async def run(self) -> int:
        await workflow.execute_activity(step, 1, start_to_close_timeout=TIMEOUT)
        child = f"{workflow.info().workflow_id}-child"
        return await workflow.execute_child_workflow(Sequential.run, 2, id=child)


@workflow.defn
class Continued:
    @workflow.run
    async def run(self, number: int) -> int:
        number = await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)
        if number < 3:
            workflow.continue_as_new(number)
        return number


@workflow.defn
class Denied:
    @workflow.run
    async def run(self) -> int:
        with suppress(ActivityError):
            await workflow.execute_activity(delete, 1, start_to_close_timeout=TIMEOUT)
        with suppress(ActivityError):
            await workflow.execute_activity(pay, Order(2000), start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(step, 1, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Beating:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            beats, start_to_close_timeout=TIMEOUT, heartbeat_timeout=timedelta(seconds=5)
        )


@workflow.defn
class TimedOut:
    @workflow.run
    async def run(self) -> str:
        once = RetryPolicy(maximum_attempts=1)
        with suppress(ActivityError):
            await workflow.execute_activity(silent, start_to_close_timeout=timedelta(seconds=1), retry_policy=once)
        return "timed out"


@workflow.defn
class Withdrawn:
    """Cancels an activity before the server has heard of it, and one that is running."""

    @workflow.run
    async def run(self) -> int:
        unsent = workflow.start_activity(step, 1, start_to_close_timeout=TIMEOUT)
        unsent.cancel()
        running = workflow.start_activity(beats, start_to_close_timeout=TIMEOUT, heartbeat_timeout=timedelta(seconds=5))
        await asyncio.sleep(0.5)
        running.cancel()
        for each in (unsent, running):
            with suppress(ActivityError, asyncio.CancelledError):
                await each
        return await workflow.execute_activity(step, 2, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Again:
    """Fails the first time, and is tried again by the server."""

    @workflow.run
    async def run(self) -> int:
        number = await workflow.execute_activity(step, 1, start_to_close_timeout=TIMEOUT)
        if workflow.info().attempt == 1:
            raise ApplicationError("once more")
        return number


@workflow.defn
class Talkative:
    """Does what is no activity: waits, is signalled and updated, branches on a version, notes something down."""

    def __init__(self) -> None:
        self._told: list[str] = []

    @workflow.run
    async def run(self) -> int:
        await workflow.execute_activity(step, 1, start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: len(self._told) == 2)
        if workflow.patched("recorded"):
            await workflow.sleep(0.01)
        workflow.upsert_memo({"told": len(self._told)})
        return await workflow.execute_activity(step, len(self._told), start_to_close_timeout=TIMEOUT)

    @workflow.signal
    def tell(self, what: str) -> None:
        self._told.append(what)

    @workflow.update
    def ask(self, what: str) -> int:
        self._told.append(what)
        return len(self._told)


WORKFLOWS: list[type] = [
    Sequential, FanOut, Talkative, Retried, Local, Parent, Continued, Denied, Beating, TimedOut, Withdrawn, Again,
]  # fmt: skip


class Rot13(PayloadCodec):
    """Not a cipher, but as opaque to who does not have it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/turned"}, data=bytes(b ^ 0x5A for b in each.SerializeToString()))
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(bytes(b ^ 0x5A for b in each.data))
            if each.metadata.get("encoding") == b"binary/turned"
            else each
            for each in payloads
        ]


CONVERTER = replace(DataConverter.default, payload_codec=Rot13())


@dataclass
class Runs:
    """What was recorded.

    Args:
        state: The state folder, with the journals and the trust file.
        histories: JSON by name; a name after a dot tells which of several runs it is.
    """

    state: Path
    histories: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def journal(self) -> Path:
        return self.state / "journal"

    @property
    def trust(self) -> Path:
        return self.state / "trust.jwks"


async def record(target: str, folder: Path) -> Runs:
    """Run everything once."""
    policies = folder / "policies"
    policies.mkdir(parents=True)
    (policies / "main.cedar").write_text(POLICIES)
    runs = Runs(folder / "state")
    plugin = AuthorizationPlugin.embedded(
        policies,
        state_dir=runs.state,
        principal=Principal("Agent", "auditee", attributes={"level": 3}, parents=['Role::"ops"']),
        settings=Settings(allow_ungoverned=("Sequential",)),
    )
    plain = await Client.connect(target)
    client = await Client.connect(target, plugins=[plugin])
    turned = await Client.connect(target, plugins=[plugin], data_converter=CONVERTER)
    queue = f"{QUEUE}-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(20) as pool:
        options: dict[str, Any] = {"workflows": WORKFLOWS, "activities": ACTIVITIES, "activity_executor": pool}
        async with (
            Worker(client, task_queue=queue, **options),
            Worker(turned, task_queue=f"{queue}-turned", **options),
        ):
            await _Recorder(runs, plugin, client, plain, turned, queue).all()
    return runs


class _Recorder:
    def __init__(
        self, runs: Runs, plugin: AuthorizationPlugin, client: Client, plain: Client, turned: Client, queue: str
    ) -> None:
        self._runs = runs
        self._plugin = plugin
        self._client = client
        self._plain = plain
        self._turned = turned
        self._queue = queue

    async def all(self) -> None:
        await asyncio.gather(
            self._one("sequential", Sequential.run, 3),
            self._one("fan-out", FanOut.run, 8),
            self._one("retried", Retried.run),
            self._one("local", Local.run),
            self._one("denied", Denied.run),
            self._one("timed-out", TimedOut.run),
            self._one("withdrawn", Withdrawn.run),
            self._one("ungoverned", Sequential.run, 2, by=self._plain),
            self._one("turned", Denied.run, by=self._turned, queue=f"{self._queue}-turned"),
            self._one("turned-local", Local.run, by=self._turned, queue=f"{self._queue}-turned"),
            self._family(),
            self._series(),
            self._beating("cancelled", lambda handle: handle.cancel()),
            self._beating("terminated", lambda handle: handle.terminate("recorded")),
            self._open(),
            self._talkative(),
            self._tried_again(),
            self._reset(),
        )
        # By itself: a revocation has the decisions that are under way made again.
        await self._beating("revoked", lambda handle: self._plugin.revoke(workflow=handle.id, reason="recorded"))

    async def _start(self, name: str, run: Any, *args: Any, by: Client | None = None, **options: Any) -> Any:
        queue = options.pop("queue", self._queue)
        return await (by or self._client).start_workflow(
            run, args=args, id=f"{name}-{uuid.uuid4().hex[:8]}", task_queue=queue, **options
        )

    async def _one(self, name: str, run: Any, *args: Any, by: Client | None = None, **options: Any) -> Any:
        handle = await self._start(name, run, *args, by=by, **options)
        with suppress(WorkflowFailureError):
            await handle.result()
        await self._keep(name, handle.id, handle.result_run_id)
        return handle

    async def _keep(self, name: str, workflow_id: str, run_id: str | None = None) -> WorkflowHistory:
        history = await self._plain.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        self._runs.histories[name] = history.to_json()
        return history

    async def _family(self) -> None:
        handle = await self._one("parent", Parent.run)
        await self._keep("parent.child", f"{handle.id}-child")

    async def _series(self) -> None:
        handle = await self._one("continued", Continued.run, 1)
        await self._keep("continued.last", handle.id)

    async def _beating(self, name: str, end: Any) -> None:
        handle = await self._start(name, Beating.run)
        await self._started(handle)
        ended = end(handle)
        if asyncio.iscoroutine(ended):
            await ended
        with suppress(WorkflowFailureError):
            await handle.result()
        await self._keep(name, handle.id)

    async def _started(self, handle: WorkflowHandle[Any, Any]) -> None:
        for _ in range(400):
            pending = (await handle.describe()).raw_description.pending_activities
            if any(each.state for each in pending if each.attempt):
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)

    async def _open(self) -> None:
        handle = await self._start("open", Beating.run)
        await self._started(handle)
        await self._keep("open", handle.id)
        await handle.terminate("recorded")

    async def _talkative(self) -> None:
        handle = await self._start("talkative", Talkative.run)
        await handle.signal(Talkative.tell, "something")
        await handle.execute_update(Talkative.ask, "something else")
        await handle.result()
        await self._keep("talkative", handle.id)

    async def _tried_again(self) -> None:
        policy = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=10))
        handle = await self._one("again", Again.run, retry_policy=policy)
        await self._keep("again.last", handle.id)

    async def _reset(self) -> None:
        handle = await self._one("base", Sequential.run, 3)
        events = (await self._plain.get_workflow_handle(handle.id).fetch_history()).events
        done = [each.event_id for each in events if each.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
        reset = await self._plain.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id),
                reason="recorded",
                workflow_task_finish_event_id=done[1],
                request_id=uuid.uuid4().hex,
            )
        )
        await self._plain.get_workflow_handle(handle.id, run_id=reset.run_id).result()
        await self._keep("reset", handle.id, reset.run_id)


def events_of(history: str) -> list[dict[str, Any]]:
    """The events of a history as JSON values."""
    events: list[dict[str, Any]] = json.loads(history)["events"]
    return events
