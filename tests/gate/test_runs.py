"""What a run may hand on: delegations to children, grant and seal to the run that continues it; and its seals."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from exequatur.gate.wire import START_HEADER, read_start_header, start_header
from exequatur.statements.jws import parse, type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Delegation, Grant, Seal, WorkloadCredential
from tests.gate.conftest import Scheduling, deeds, failure_of, happened, headed, start_headers, unique

TIMEOUT = timedelta(seconds=60)


@activity.defn
def act(what: str) -> str:
    happened(what)
    return what


@workflow.defn
class Child:
    """Acts, and starts a child of its own as deep as it is told."""

    @workflow.run
    async def run(self, what: str, depth: int = 0) -> str:
        await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)
        if depth:
            child_id = f"{workflow.info().workflow_id}-{depth}"
            return await workflow.execute_child_workflow(Child.run, args=[what, depth - 1], id=child_id)
        return what


@workflow.defn
class Parent:
    @workflow.run
    async def run(self, child_id: str, what: str) -> str:
        return await workflow.execute_child_workflow(
            Child.run, args=[what], id=child_id, retry_policy=RetryPolicy(maximum_attempts=1)
        )


@workflow.defn
class Counts:
    """Acts in each of its runs."""

    @workflow.run
    async def run(self, left: int) -> str:
        await workflow.execute_activity(act, f"left {left}", start_to_close_timeout=TIMEOUT)
        if left:
            workflow.continue_as_new(left - 1)
        return "done"


@workflow.defn
class Changes:
    @workflow.run
    async def run(self, what: str) -> str:
        await workflow.execute_activity(act, f"first {what}", start_to_close_timeout=TIMEOUT)
        workflow.continue_as_new(what, workflow=Changed.run)


@workflow.defn
class Changed:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, f"second {what}", start_to_close_timeout=TIMEOUT)


@workflow.defn
class Ends:
    @workflow.run
    async def run(self, how: str) -> str:
        await workflow.execute_activity(act, how, start_to_close_timeout=TIMEOUT)
        if how == "fail":
            raise ApplicationError("as told")
        if how == "wait":
            await asyncio.sleep(60)
        return how


@workflow.defn(name="Plain")
class Acts:
    """What honest workers know under the name ``Plain``."""

    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn(name="Plain")
class OnlyContinues:
    """What a rogue worker runs under the same name."""

    @workflow.run
    async def run(self, what: str) -> str:
        workflow.continue_as_new(what)


@workflow.defn
class Moves:
    """Continues on another task queue and acts there."""

    @workflow.run
    async def run(self, to: str) -> str:
        if to:
            workflow.continue_as_new("", task_queue=to)
        return await workflow.execute_activity(act, "moved", start_to_close_timeout=TIMEOUT)


WORKFLOWS = [Child, Parent, Counts, Changes, Changed, Ends]


async def test_a_child_acts_under_a_delegation_that_names_it(stage):
    s = await stage()
    child_id = unique("child")
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Parent.run, child_id, "x")
        assert await handle.result() == "x"
        tokens = read_start_header(await start_headers(s.client.get_workflow_handle(child_id)))
    assert deeds(child_id) == ["x"]
    kinds = [type_of(token) for token in tokens]
    assert (kinds[0], kinds[-1]) == (Grant.typ, Delegation.typ)
    delegation = parse(tokens[-1], Delegation).claims
    assert (delegation.authorization.workflow_id, delegation.authorization.workflow_type) == (child_id, "Child")
    assert delegation.parent_run_id == handle.result_run_id
    assert delegation.exp == parse(tokens[0], Grant).claims.exp


@pytest.mark.rule("W2")
async def test_the_header_of_a_parent_copied_to_a_child_gains_nothing(stage):
    s = await stage()
    child_id = unique("child")
    copied: dict[str, Any] = {}

    def copy(child: Any) -> None:
        child.headers = {**child.headers, **copied}

    parent_id = unique()
    async with (
        s.worker([Elsewhere], client=s.plain, interceptors=[Scheduling(child=copy)]),
        s.worker([Child], [act], queue=(queue := unique("queue"))),
    ):
        copied.update(headed(await s.grant("Elsewhere", parent_id, child_id, "x", queue)))
        handle = await s.start_with(copied, Elsewhere.run, child_id, "x", queue, id=parent_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(child_id) == []


@workflow.defn
class Elsewhere:
    """A parent that a rogue worker runs; the child is served by an honest one."""

    @workflow.run
    async def run(self, child_id: str, what: str, queue: str) -> str:
        return await workflow.execute_child_workflow(Child.run, args=[what], id=child_id, task_queue=queue)


async def test_delegations_go_no_deeper_than_configured(stage):
    s = await stage(max_delegation_depth=2)
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Child.run, "x", 3)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "delegations" in failure.message
    ids = [handle.id, f"{handle.id}-3", f"{handle.id}-3-2", f"{handle.id}-3-2-1"]
    assert [deeds(each) for each in ids] == [["x"], ["x"], ["x"], []]


async def test_the_run_that_continues_another_acts_under_its_grant_and_brings_its_seal(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Counts.run, 2)
        assert await handle.result() == "done"
        tokens = read_start_header(await start_headers(s.client.get_workflow_handle(handle.id)))
    assert deeds(handle.id) == ["left 2", "left 1", "left 0"]
    seal = parse(tokens[-1], Seal).claims
    assert (seal.outcome, seal.seq, seal.workflow_id) == ("continued", 1, handle.id)
    assert [each.outcome for each in s.statements("seal", Seal)] == ["continued", "continued", "completed"]
    assert len({each.head for each in s.statements("seal", Seal)}) == 3


async def test_a_run_that_many_workers_continue_brings_only_the_credential_of_the_last(stage):
    s = await stage()
    workload = s.plugin.gate.workload

    def another_worker(_: Any) -> None:
        workload._key = SigningKey.generate()
        workload._credential = None
        workload.renew_if_due(time.time())

    async with s.worker(WORKFLOWS, [act], interceptors=[Scheduling(activity=another_worker)]):
        handle = await s.start(Counts.run, 3)
        assert await handle.result() == "done"
        tokens = read_start_header(await start_headers(s.client.get_workflow_handle(handle.id)))
    assert [type_of(token) for token in tokens] == [Grant.typ, WorkloadCredential.typ, Seal.typ]


async def test_a_run_that_continues_on_another_task_queue_believes_the_workers_there(stage):
    s = await stage()
    there = await stage(state=s.state)
    async with s.worker([Moves], [act]), there.worker([Moves], [act]):
        handle = await s.start(Moves.run, there.queue)
        assert await handle.result() == "moved"
    assert deeds(handle.id) == ["moved"]


@pytest.mark.rule("W2")
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_run_continues_as_another_type_only_if_its_grant_allows(stage, allowed):
    s = await stage(continues_as={"Changes": ("Changed",)} if allowed else {})
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Changes.run, "x")
        if allowed:
            assert await handle.result() == "second x"
        else:
            assert (await failure_of(handle)).type == "GrantRejected"
    assert deeds(handle.id) == (["first x", "second x"] if allowed else ["first x"])


@pytest.mark.rule("W5")
@pytest.mark.parametrize("brings", ["no seal", "the seal of another run", "a seal with another signature"])
async def test_a_run_that_a_rogue_worker_continues_without_that_runs_seal_does_nothing(stage, brings):
    s = await stage()
    workflow_id = unique()
    start = await start_header_of_plain(s, workflow_id, brings)

    def keep(continued: Any) -> None:
        continued.headers = {**continued.headers, **start}

    async with s.worker([OnlyContinues], client=s.plain, interceptors=[Scheduling(continued=keep)]):
        handle = await s.start_with(start, OnlyContinues.run, "x", id=workflow_id)
        while (await s.plain.get_workflow_handle(workflow_id).describe()).run_id == handle.result_run_id:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with s.worker([Acts], [act]):
        failure = await failure_of(s.client.get_workflow_handle(workflow_id))
    assert failure.type == "GrantRejected"
    assert "seal" in failure.message.lower()
    assert deeds(workflow_id) == []


@workflow.defn(name="Plain")
class ContinuesOnce:
    """What an honest worker knew under the name ``Plain`` before."""

    @workflow.run
    async def run(self, what: str) -> str:
        if workflow.info().continued_run_id is None:
            workflow.continue_as_new(what)
        return what


async def start_header_of_plain(s: Any, workflow_id: str, brings: str) -> dict[str, Any]:
    """A start header for ``Plain``, and the seal of an earlier execution beside it where that is wanted."""
    if brings == "no seal":
        return headed(await s.grant("Plain", workflow_id, "x"))
    async with s.worker([ContinuesOnce]):
        earlier = await s.start(ContinuesOnce.run, "x", id=workflow_id)
        await earlier.result()
    headers = await start_headers(s.client.get_workflow_handle(workflow_id))
    if brings == "a seal with another signature":
        *others, seal = read_start_header(headers) or []
        forged = ".".join([*seal.split(".")[:2], others[-1].split(".")[2]])
        return {START_HEADER: start_header([*others, forged])}
    return headers


@pytest.mark.rule("W5")
async def test_the_header_of_a_continued_run_does_not_start_another_execution(stage):
    s = await stage()
    workflow_id = unique()
    header = await start_header_of_plain(s, workflow_id, "the seal of another run")
    async with s.worker([Acts], [act]):
        handle = await s.start_with(header, Acts.run, "x", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "seal" in failure.message
    assert deeds(workflow_id) == []


@pytest.mark.rule("W4")
async def test_the_seal_binds_the_input_of_the_run_that_continues(stage):
    s = await stage()
    workflow_id = unique()
    header = await start_header_of_plain(s, workflow_id, "the seal of another run")
    async with s.worker([Acts], [act]):
        handle = await s.start_with(header, Acts.run, "y", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


@pytest.mark.parametrize(("how", "outcome"), [("return", "completed"), ("fail", "failed"), ("wait", "cancelled")])
async def test_a_run_is_sealed_however_it_ends(stage, how, outcome):
    s = await stage()
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Ends.run, how)
        if how == "wait":
            while not deeds(handle.id):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await handle.cancel()
        try:
            await handle.result()
        except Exception:
            assert how != "return"
    [seal] = s.statements("seal", Seal)
    assert (seal.outcome, seal.workflow_id, seal.run_id, seal.seq) == (outcome, handle.id, handle.result_run_id, 1)


async def test_a_child_with_a_retry_policy_keeps_its_delegation_when_it_is_retried(stage):
    s = await stage()
    async with s.worker([Retrying, FailsOnce], [act]):
        handle = await s.start(Retrying.run, child_id := unique("child"))
        assert await handle.result() == "done"
    assert deeds(child_id) == ["attempt 1", "attempt 2"]


@workflow.defn
class Retrying:
    @workflow.run
    async def run(self, child_id: str) -> str:
        policy = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=50))
        return await workflow.execute_child_workflow(FailsOnce.run, id=child_id, retry_policy=policy)


@workflow.defn
class FailsOnce:
    @workflow.run
    async def run(self) -> str:
        attempt = workflow.info().attempt
        await workflow.execute_activity(act, f"attempt {attempt}", start_to_close_timeout=TIMEOUT)
        if attempt == 1:
            raise ApplicationError("again")
        return "done"


@pytest.mark.rule("W7")
async def test_the_header_of_a_child_does_not_start_the_same_workflow_without_its_parent(stage):
    s = await stage()
    child_id = unique("child")
    async with s.worker([Parent, Child], [act]):
        await (await s.start(Parent.run, child_id, "x")).result()
        done = deeds(child_id)
        header = await start_headers(s.client.get_workflow_handle(child_id))
        copy = await s.start_with(header, Child.run, "x", id=child_id)
        failure = await failure_of(copy)
    assert failure.type == "GrantRejected"
    assert "delegation comes from another workflow" in failure.message
    assert deeds(child_id) == done
