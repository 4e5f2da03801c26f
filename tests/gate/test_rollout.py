"""The plugin is brought in, and taken back, under runs that are already there."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.worker import Replayer

from exequatur.statements.models import Receipt
from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened, sandbox
from tests.gate.single import eventually

T = timedelta(seconds=60)


@activity.defn
async def step(number: int) -> int:
    happened(number)
    return number


@workflow.defn
class Steps:
    """One activity for each signal, three in all."""

    def __init__(self) -> None:
        self.signals = 0

    @workflow.signal
    def go_on(self) -> None:
        self.signals += 1

    @workflow.run
    async def run(self) -> list[int]:
        done = []
        for number in range(3):
            await workflow.wait_condition(lambda number=number: self.signals > number)
            done.append(await workflow.execute_activity(step, number, start_to_close_timeout=T))
        return done


ONLY_STEPS = """
@id("start") permit(principal, action == Action::"workflow.start", resource);
@id("old") permit(principal == Unauthenticated::"anonymous", action == Action::"step", resource);
"""


async def test_a_run_from_before_the_plugin_completes_through_observe_to_enforce(stage: Callable[..., Any]) -> None:
    before = await stage()
    observing = await stage(mode="observe")
    enforcing = await stage(ONLY_STEPS, state=observing.state, allow_ungoverned=["Steps"])
    queue = before.queue
    async with before.worker([Steps], [step], client=before.plain):
        handle = await before.start(Steps.run, client=before.plain)
        await handle.signal(Steps.go_on)
        await eventually(lambda: deeds(handle.id) == [0])
    async with observing.worker([Steps], [step], queue=queue):
        await handle.signal(Steps.go_on)
        await eventually(lambda: deeds(handle.id) == [0, 1])
    async with enforcing.worker([Steps], [step], queue=queue):
        await handle.signal(Steps.go_on)
        assert await handle.result() == [0, 1, 2]
    observed, enforced = observing.statements("receipt", Receipt)
    assert (observed.decision, observed.enforced, observed.outcome) == ("none", False, "completed")
    assert (enforced.decision, enforced.enforced, enforced.outcome) == ("allow", True, "completed")
    assert enforced.policies == ("old",)
    history = await handle.fetch_history()
    for plugins in ([], [enforcing.plugin]):
        replayer = Replayer(workflows=[Steps], workflow_runner=sandbox(), plugins=plugins)
        await replayer.replay_workflow(history)


async def test_a_run_from_before_the_plugin_that_nobody_listed_is_refused_when_it_is_enforced(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    async with s.worker([Steps], [step], client=s.plain):
        handle = await s.start(Steps.run, client=s.plain)
        await handle.signal(Steps.go_on)
        await eventually(lambda: deeds(handle.id) == [0])
    async with s.worker([Steps], [step]):
        await handle.signal(Steps.go_on)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "allow_ungoverned" in failure.message
    assert deeds(handle.id) == [0]


async def test_what_is_listed_as_ungoverned_is_still_judged_by_the_policies(stage: Callable[..., Any]) -> None:
    s = await stage(
        PERMIT_ALL + '@id("anon") forbid(principal is Unauthenticated, action == Action::"step", resource);',
        allow_ungoverned=["Steps"],
    )
    async with s.worker([Steps], [step]):
        handle = await s.start(Steps.run, client=s.plain)
        await handle.signal(Steps.go_on)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "anon" in failure.message
    assert deeds(handle.id) == []


async def test_a_governed_run_is_observed_with_all_of_its_evidence(stage: Callable[..., Any]) -> None:
    s = await stage(
        PERMIT_ALL + '@id("no") forbid(principal, action == Action::"step", resource);',
        mode="observe",
    )
    async with s.worker([Steps], [step]):
        handle = await s.start(Steps.run)
        for _ in range(3):
            await handle.signal(Steps.go_on)
        assert await handle.result() == [0, 1, 2]
    receipts = s.statements("receipt", Receipt)
    assert [(r.decision, r.enforced, r.outcome, r.policies) for r in receipts] == [
        ("deny", False, "completed", ("no",))
    ] * 3
    assert len(s.records("seal")) == 1
    history = await handle.fetch_history()
    await Replayer(workflows=[Steps], workflow_runner=sandbox()).replay_workflow(history)


async def test_a_governed_run_goes_on_under_observe_when_enforcing_is_taken_back(stage: Callable[..., Any]) -> None:
    enforcing = await stage()
    observing = await stage(state=enforcing.state, mode="observe")
    async with enforcing.worker([Steps], [step]):
        handle = await enforcing.start(Steps.run)
        await handle.signal(Steps.go_on)
        await eventually(lambda: deeds(handle.id) == [0])
    async with observing.worker([Steps], [step], queue=enforcing.queue):
        for _ in range(2):
            await handle.signal(Steps.go_on)
        assert await handle.result() == [0, 1, 2]
    assert [receipt.enforced for receipt in enforcing.statements("receipt", Receipt)] == [True, False, False]


async def test_one_queue_may_observe_while_the_others_enforce(stage: Callable[..., Any]) -> None:
    s = await stage(
        PERMIT_ALL + '@id("no") forbid(principal, action == Action::"step", resource);',
        observe=[{"task_queue": "trial-*"}],
    )
    for queue, passes in (("trial-" + s.queue, True), (s.queue, False)):
        async with s.worker([Steps], [step], queue=queue):
            handle = await s.start(Steps.run, task_queue=queue)
            for _ in range(3):
                await handle.signal(Steps.go_on)
            if passes:
                assert await handle.result() == [0, 1, 2]
            else:
                assert (await failure_of(handle)).type == "AuthorizationDenied"
                assert deeds(handle.id) == []
