"""Workers and clients with the plugin beside those without it, as in other languages (docs/mixed.md).

A worker without the plugin stands for one in Go, Java or TypeScript: to the others it is the same.
"""

from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import (
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, TerminatedError

from tests.gate.conftest import deeds, failure_of, happened

TIMEOUT = timedelta(seconds=60)


@activity.defn
async def act(what: str) -> str:
    happened(what)
    return what


@activity.defn
async def fail(what: str) -> str:
    happened(what)
    raise ApplicationError("it did not work", type="Broken", non_retryable=True)


@workflow.defn
class Acts:
    """Executes an activity on a queue."""

    @workflow.run
    async def run(self, name: str, queue: str) -> str:
        return await workflow.execute_activity(
            name,
            "x",
            task_queue=queue,
            result_type=str,
            start_to_close_timeout=TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=2),
        )


@workflow.defn
class Hands:
    """Has a child on a queue of its own act."""

    @workflow.run
    async def run(self, queue: str, acts_on: str) -> str:
        return await workflow.execute_child_workflow(
            Acts.run, args=["act", acts_on], id=f"{workflow.info().workflow_id}-child", task_queue=queue
        )


@workflow.defn
class Listens:
    def __init__(self) -> None:
        self.heard: list[str] = []

    @workflow.signal
    def say(self, what: str) -> None:
        self.heard.append(what)

    @workflow.update
    def tell(self, what: str) -> int:
        self.heard.append(what)
        return len(self.heard)

    @workflow.query
    def all(self) -> list[str]:
        return self.heard

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "end" in self.heard)
        return self.heard


WORKFLOWS = [Acts, Hands, Listens]


async def test_a_workflow_of_another_language_gets_nothing_done_by_a_gated_activity_worker(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS, client=s.plain, queue=other), s.worker((), [act]):
        for client in (s.client, s.plain):  # with a grant in its header, and without
            handle = await s.start(Acts.run, "act", s.queue, client=client, task_queue=other)
            failure = await failure_of(handle)
            assert failure.type == "GrantRejected"
            assert "carries no grant" in failure.message
            assert deeds(handle.id) == []


async def test_a_workflow_of_another_language_may_act_as_nobody_where_its_type_is_listed(stage: Any) -> None:
    s = await stage(
        "permit(principal is Agent, action, resource);"
        'permit(principal == Unauthenticated::"anonymous", action == Action::"act", resource);',
        allow_ungoverned=["Acts"],
    )
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS, client=s.plain, queue=other), s.worker((), [act, fail]):
        handle = await s.start(Acts.run, "act", s.queue, client=s.plain, task_queue=other)
        assert await handle.result() == "x"
        refused = await s.start(Acts.run, "fail", s.queue, client=s.plain, task_queue=other)
        assert (await failure_of(refused)).type == "AuthorizationDenied"
    assert (deeds(handle.id), deeds(refused.id)) == (["x"], [])


async def test_a_result_of_an_activity_in_another_language_is_not_believed(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS), s.worker((), [act], client=s.plain, queue=other):
        handle = await s.start(Acts.run, "act", other)
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"
    assert deeds(handle.id) == ["x"]  # it was done all the same: a receipt proves, it does not prevent


async def test_a_queue_that_is_recorded_may_serve_results_without_a_receipt(stage: Any) -> None:
    s = await stage(recorded_queues=["*-other"])
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS), s.worker((), [act], client=s.plain, queue=other):
        handle = await s.start(Acts.run, "act", other)
        assert await handle.result() == "x"
    assert s.receipts(handle) == []


async def test_a_failure_of_an_activity_in_another_language_arrives_as_it_is(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS), s.worker((), [fail], client=s.plain, queue=other):
        failure = await failure_of(await s.start(Acts.run, "fail", other))
    assert failure.type == "Broken"


@pytest.mark.parametrize("listed", [False, True], ids=["refused", "allow_ungoverned"])
async def test_what_a_client_in_another_language_starts_is_ungoverned(stage: Any, listed: bool) -> None:
    s = await stage(allow_ungoverned=["Acts"] if listed else [])
    async with s.worker(WORKFLOWS, [act]):
        handle = await s.start(Acts.run, "act", s.queue, client=s.plain)
        if listed:
            assert await handle.result() == "x"
        else:
            assert (await failure_of(handle)).type == "GrantRejected"
    assert deeds(handle.id) == (["x"] if listed else [])


async def test_a_child_in_another_language_gets_nothing_done_by_a_gated_activity_worker(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS, [act]), s.worker(WORKFLOWS, client=s.plain, queue=other):
        handle = await s.start(Hands.run, other, s.queue)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(f"{handle.id}-child") == []


async def test_a_child_of_a_workflow_in_another_language_is_ungoverned(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS, [act]), s.worker(WORKFLOWS, client=s.plain, queue=other):
        handle = await s.start(Hands.run, s.queue, s.queue, task_queue=other)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(f"{handle.id}-child") == []


async def test_messages_of_a_client_in_another_language_are_dropped_and_refused(stage: Any) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS):
        handle = await s.start(Listens.run)
        plain = s.plain.get_workflow_handle(handle.id)
        await plain.signal(Listens.say, "end")
        with pytest.raises(WorkflowUpdateFailedError):
            await plain.execute_update(Listens.tell, "end")
        with pytest.raises(WorkflowQueryFailedError):
            await plain.query(Listens.all)
        assert await handle.query(Listens.all) == []
        assert await handle.execute_update(Listens.tell, "told") == 1
        await handle.signal(Listens.say, "end")
        assert await handle.result() == ["told", "end"]


async def test_messages_that_are_open_may_come_from_any_client(stage: Any) -> None:
    s = await stage(open_messages=["signal:say", "query:*"])
    async with s.worker(WORKFLOWS):
        handle = await s.start(Listens.run)
        plain = s.plain.get_workflow_handle(handle.id)
        assert await plain.query(Listens.all) == []
        await plain.signal(Listens.say, "end")
        assert await handle.result() == ["end"]


async def test_messages_to_a_workflow_in_another_language_are_taken_as_they_come(stage: Any) -> None:
    s = await stage()
    other = s.queue + "-other"
    async with s.worker(WORKFLOWS, client=s.plain, queue=other):
        handle = await s.start(Listens.run, task_queue=other)
        await handle.execute_update(Listens.tell, "told")
        await s.plain.get_workflow_handle(handle.id).signal(Listens.say, "end")
        assert await handle.result() == ["told", "end"]


async def test_nothing_keeps_a_client_in_another_language_from_ending_a_governed_run(stage: Any) -> None:
    s = await stage(
        '@id("no") forbid(principal, action == Action::"workflow.terminate", resource);'
        "permit(principal, action, resource);"
    )
    async with s.worker(WORKFLOWS):
        handle = await s.start(Listens.run)
        await s.plain.get_workflow_handle(handle.id).terminate()
        with pytest.raises(WorkflowFailureError) as ended:
            await handle.result()
    assert isinstance(ended.value.cause, TerminatedError)
