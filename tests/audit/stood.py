"""Real runs that stand on more than a grant, for the audit to look at: approvals, renewals, restrictions, resets.

:func:`record` runs them on a real server, as :mod:`tests.audit.runs` does the others.
"""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetActivityRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError, FailureError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import exequatur.workflow
    from exequatur import AuthorizationPlugin, Principal, Settings
    from exequatur.statements.approvals import APPROVAL_SIGNAL, CHALLENGES_MEMO
    from exequatur.statements.jws import Token, parse
    from exequatur.statements.models import Challenge
    from tests.audit.runs import Runs
    from tests.gate.conftest import sandbox
    from tests.gate.single import eventually
    from tests.gate.test_approvals import approval

TIMEOUT = timedelta(seconds=60)
POLICIES = """
@id("all") permit(principal, action, resource);
@id("two-person") @approval("finance, 2, 1h") @reason("two people of finance have to agree")
forbid(principal, action == Action::"transfer", resource)
unless { context has approvals && context.approvals.groups.contains("finance") };
@id("no-odd-child") forbid(principal, action == Action::"workflow.child", resource)
when { context.run.workflow_type == "Odd" };
"""
LIMIT = (
    '@id("limit") @reason("at most 100 here") forbid(principal, action == Action::"look", resource) '
    "when { context.args.number > 100 };"
)
FAY, ROB, SAM = 'User::"fay"', 'User::"rob"', 'User::"sam"'

_left: dict[str, activity.Info] = {}
_attempts: dict[str, int] = {}


@activity.defn
async def transfer(amount: int) -> int:
    return amount


@activity.defn
async def look(number: int) -> int:
    return number


@activity.defn
async def leaves() -> str:
    info = activity.info()
    _left[info.workflow_id or ""] = info
    activity.raise_complete_async()


@activity.defn
async def stumbles() -> int:
    """Fails twice, and once more after it was reset."""
    info = activity.info()
    count = _attempts[info.workflow_id or ""] = _attempts.get(info.workflow_id or "", 0) + 1
    if count < 4:
        raise ApplicationError("again")
    return info.attempt


ACTIVITIES = [transfer, look, leaves, stumbles]


async def tried(name: str, arg: Any, *, local: bool = False) -> str:
    run = workflow.execute_local_activity if local else workflow.execute_activity
    try:
        return str(await run(name, arg, start_to_close_timeout=TIMEOUT))
    except FailureError as err:
        cause = err if isinstance(err, ApplicationError) else err.__cause__
        return str(getattr(cause, "type", cause))


@workflow.defn
class Approved:
    """One transfer that people agree to, one that somebody rejects, and a local one."""

    @workflow.run
    async def run(self) -> list[str]:
        found = [await tried("look", 1), await tried("transfer", 900), await tried("transfer", 901)]
        return [*found, await tried("transfer", 902, local=True), await tried("look", 2)]


@workflow.defn
class Renewed:
    """Outlives its grant, starts a child under the renewed one, and continues as new."""

    @workflow.run
    async def run(self, again: bool) -> None:
        await workflow.execute_activity(look, 1, start_to_close_timeout=TIMEOUT)
        if not again:
            return
        await workflow.sleep(2.5)
        await asyncio.gather(
            *(workflow.execute_activity(look, number, start_to_close_timeout=TIMEOUT) for number in (2, 3))
        )
        await workflow.execute_child_workflow(One.run, 4, id=f"{workflow.info().workflow_id}-child")
        workflow.continue_as_new(False)


@workflow.defn
class One:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(look, number, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Odd:
    """A child that the policies let do nothing."""

    @workflow.run
    async def run(self) -> str:
        return await tried("look", 1)


@workflow.defn
class Restricted:
    """Holds itself, a child and the run that continues it to less than it holds."""

    @workflow.run
    async def run(self, again: bool) -> list[str]:
        found = [await tried("look", 1000)] if again else []
        with exequatur.workflow.restricted(activities=["look"], forbid=LIMIT, expires_in=timedelta(hours=1)):
            for local in (False, True):
                found += [await tried("look", number, local=local) for number in (1, 1000)]
                found.append(await tried("leaves", None, local=local))
            name = f"{workflow.info().workflow_id}-child-{again}"
            found += await workflow.execute_child_workflow(Held.run, id=name)
            with suppress(ChildWorkflowError):
                found.append(await workflow.execute_child_workflow(Odd.run, id=f"{name}-odd"))
            if again:
                workflow.continue_as_new(False)
        return found


@workflow.defn
class Held:
    """Asks for what it was handed, and for more."""

    @workflow.run
    async def run(self) -> list[str]:
        return [await tried("look", 1), await tried("look", 1000), await tried("leaves", None)]


@workflow.defn
class Outside:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(leaves, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Stumbles:
    @workflow.run
    async def run(self) -> int:
        policy = RetryPolicy(initial_interval=timedelta(seconds=0.05), backoff_coefficient=60)
        return await workflow.execute_activity(stumbles, start_to_close_timeout=TIMEOUT, retry_policy=policy)


WORKFLOWS: list[type] = [Approved, Renewed, One, Odd, Restricted, Held, Outside, Stumbles]


async def record(target: str, folder: Path) -> Runs:
    """Run everything once."""
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "main.cedar").write_text(POLICIES)
    recorder = _Recorder(Runs(folder / "state"), target)
    with ThreadPoolExecutor(20) as pool:
        async with AsyncExitStack() as workers:
            for settings in (Settings(), Settings(grant_ttl=timedelta(seconds=2), start_within=timedelta(seconds=1))):
                plugin = AuthorizationPlugin.embedded(
                    folder / "policies",
                    state_dir=recorder.runs.state,
                    principal=Principal("Agent", "auditee"),
                    settings=settings,
                )
                client = await Client.connect(target, plugins=[plugin])
                queue = f"stood-{uuid.uuid4().hex[:8]}"
                await workers.enter_async_context(
                    Worker(
                        client,
                        task_queue=queue,
                        workflows=WORKFLOWS,
                        activities=ACTIVITIES,
                        activity_executor=pool,
                        workflow_runner=sandbox(),
                    )
                )
                recorder.sides.append((plugin, client, queue))
            await recorder.all()
    return recorder.runs


class _Recorder:
    def __init__(self, runs: Runs, target: str) -> None:
        self.runs = runs
        self.sides: list[tuple[AuthorizationPlugin, Client, str]] = []
        """The plugin, a client and the task queue; the second one's grants are short."""
        self._target = target

    async def all(self) -> None:
        self._plain = await Client.connect(self._target)
        scenarios = asyncio.gather(
            self._approved(), self._renewed(), self._restricted(), self._outside(), self._stumbles(), self._scheduled()
        )
        async with asyncio.timeout(60):
            await scenarios

    async def _start(self, name: str, run: Any, *args: Any, side: int = 0) -> WorkflowHandle[Any, Any]:
        _, client, queue = self.sides[side]
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            run, args=args, id=f"{name}-{uuid.uuid4().hex[:8]}", task_queue=queue
        )
        return handle

    async def _keep(self, name: str, workflow_id: str, run_id: str | None = None) -> None:
        history = await self._plain.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        self.runs.histories[name] = history.to_json()

    async def _approved(self) -> None:
        handle = await self._start("approved", Approved.run)
        for people, verdicts in (
            ((FAY, ROB), ("approve", "approve")),
            ((FAY, SAM), ("approve", "reject")),
            ((ROB, SAM), ("approve", "approve")),
        ):
            [asked] = await self._challenged(handle)
            for who, verdict in zip(people, verdicts, strict=True):
                token = approval(SimpleNamespace(plugin=self.sides[0][0]), asked, who, verdict=verdict)  # type: ignore[arg-type]
                await self._plain.get_workflow_handle(handle.id).signal(APPROVAL_SIGNAL, token)
            await self._answered(handle, asked)
        assert await handle.result() == ["1", "900", "AuthorizationDenied", "902", "2"]
        await self._keep("approved", handle.id)

    async def _challenged(self, handle: WorkflowHandle[Any, Any]) -> list[Token[Challenge]]:
        async with asyncio.timeout(20):
            while True:
                memo = await (await handle.describe()).memo()
                if there := memo.get(CHALLENGES_MEMO):
                    return [parse(each["challenge"], Challenge) for each in there]
                await asyncio.sleep(0.02)

    async def _answered(self, handle: WorkflowHandle[Any, Any], asked: Token[Challenge]) -> None:
        async with asyncio.timeout(20):
            while True:
                memo = await (await handle.describe()).memo()
                if asked.text not in [each["challenge"] for each in memo.get(CHALLENGES_MEMO) or []]:
                    return
                await asyncio.sleep(0.02)

    async def _renewed(self) -> None:
        handle = await self._start("renewed", Renewed.run, True, side=1)
        await handle.result()
        await self._keep("renewed", handle.id, handle.result_run_id)
        await self._keep("renewed.child", f"{handle.id}-child")
        await self._keep("renewed.last", handle.id)

    async def _restricted(self) -> None:
        handle = await self._start("restricted", Restricted.run, True)
        await handle.result()
        await self._keep("restricted", handle.id, handle.result_run_id)
        await self._keep("restricted.last", handle.id)
        for name in ("child-True", "child-False", "child-True-odd"):
            await self._keep(f"restricted.{name}", f"{handle.id}-{name}")

    async def _outside(self) -> None:
        handle = await self._start("outside", Outside.run)
        await eventually(lambda: handle.id in _left)
        info = _left[handle.id]
        await self.sides[0][1].get_async_activity_handle(task_token=info.task_token).complete("done")
        assert await handle.result() == "done"
        await self._keep("outside", handle.id)

    async def _stumbles(self) -> None:
        handle = await self._start("stumbles", Stumbles.run)
        await eventually(lambda: _attempts.get(handle.id, 0) >= 2)
        async with asyncio.timeout(20):
            await asyncio.sleep(0.3)
            execution = WorkflowExecution(workflow_id=handle.id)
            while _attempts.get(handle.id, 0) < 4:
                await self._plain.workflow_service.reset_activity(
                    ResetActivityRequest(namespace="default", execution=execution, id="1", identity="an operator")
                )
                await asyncio.sleep(0.5)
        with suppress(WorkflowFailureError, ActivityError):
            await handle.result()
        await self._keep("stumbles", handle.id)

    async def _scheduled(self) -> None:
        _, client, queue = self.sides[0]
        name = f"scheduled-{uuid.uuid4().hex[:8]}"
        action = ScheduleActionStartWorkflow(One.run, 7, id=name, task_queue=queue)
        schedule = await client.create_schedule(name, Schedule(action=action, spec=ScheduleSpec()))
        await schedule.trigger()
        async with asyncio.timeout(20):
            started: Any = None
            while not started:
                await asyncio.sleep(0.1)
                started = (await schedule.describe()).info.recent_actions
        run: Any = started[0].action
        await client.get_workflow_handle(run.workflow_id).result()
        await self._keep("scheduled", run.workflow_id)
        await schedule.delete()
