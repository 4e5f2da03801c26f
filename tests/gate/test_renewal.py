"""A run that outlives its grant has it renewed at its next activity, within its lifetime and if policies permit.

The clock of gate and authority is put forward, rather than that anybody waits.
"""

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import Replayer

from exequatur import AuthorizationPlugin, Settings
from exequatur.failures import AuthorizationDenied
from exequatur.gate.issuing import RenewalOrder
from exequatur.gate.wire import read_activity_header, read_start_header
from exequatur.statements.encoding import digest
from exequatur.statements.jws import kid_of, parse, sign, type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, Request, RequestCore, Seal
from tests.gate.conftest import (
    PERMIT_ALL,
    Stage,
    activity_headers,
    deeds,
    events,
    failure_of,
    happened,
    headed,
    sandbox,
    start_headers,
    unique,
)
from tests.gate.test_approvals import ONE, approve, challenged, pay, until

SHORT = {
    "grant_ttl": timedelta(seconds=20),
    "start_within": timedelta(seconds=10),
    "open_messages": ("signal:go",),
}
LATER = 30.0
"""Seconds: after the end of such a grant, and before that of a worker's credential."""


@activity.defn
async def work(step: int) -> int:
    happened(step)
    return step


@activity.defn
async def work_slowly() -> str:
    happened("began")
    for _ in range(600):
        activity.heartbeat()
        await asyncio.sleep(0.05)
    return "done"


async def step(number: int) -> int:
    return await workflow.execute_activity(work, number, start_to_close_timeout=timedelta(seconds=10))


class Sleeper:
    """Sleeps until it is told to go on."""

    def __init__(self) -> None:
        self._awake = False

    @workflow.signal
    def go(self) -> None:
        self._awake = True

    async def sleep(self) -> None:
        await workflow.wait_condition(lambda: self._awake)


@workflow.defn
class Sleeps(Sleeper):
    @workflow.run
    async def run(self) -> int:
        await step(1)
        await self.sleep()
        return await step(2)


@workflow.defn
class OnlySleeps(Sleeper):
    @workflow.run
    async def run(self) -> str:
        await self.sleep()
        return "awake"


@workflow.defn
class FansOut(Sleeper):
    @workflow.run
    async def run(self) -> list[int]:
        await self.sleep()
        return list(await asyncio.gather(*(step(number) for number in range(5))))


@workflow.defn
class SleepsLocally(Sleeper):
    @workflow.run
    async def run(self) -> int:
        await self.sleep()
        return await workflow.execute_local_activity(work, 1, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class Continues(Sleeper):
    @workflow.run
    async def run(self, again: bool) -> int:
        if again:
            await self.sleep()
            await step(2)
            workflow.continue_as_new(False)
        return await step(3)


@workflow.defn
class Parent(Sleeper):
    @workflow.run
    async def run(self, sleeps: bool) -> int:
        if sleeps:
            await self.sleep()
        result: int = await workflow.execute_child_workflow(Sleeps.run, id=f"{workflow.info().workflow_id}-child")
        return result


@workflow.defn
class WorksSlowly:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            work_slowly, start_to_close_timeout=timedelta(seconds=30), heartbeat_timeout=timedelta(seconds=5)
        )


@workflow.defn
class PaysSoon:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(pay, amount, start_to_close_timeout=timedelta(seconds=10))


WORKFLOWS = [Sleeps, OnlySleeps, FansOut, SleepsLocally, Continues, Parent, WorksSlowly, PaysSoon]


def later(s: Stage, seconds: float = LATER) -> None:
    """Let time pass for gate and authority."""
    s.plugin.gate.clock = lambda: time.time() + seconds


async def wake(s: Stage, workflow_id: str) -> None:
    await s.plain.get_workflow_handle(workflow_id).signal("go")


async def sleeping(s: Stage, workflow_id: str) -> None:
    """Until it has done its first step and sleeps."""

    async def first() -> bool:
        return bool(deeds(workflow_id))

    await until(first)


async def replays(s: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    replayer = Replayer(workflows=WORKFLOWS, plugins=[s.plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


def renewals(s: Stage) -> list[dict[str, Any]]:
    """What the authority was asked about renewals."""
    told = [json.loads(each.body) for each in s.records("authority")]
    return [each for each in told if each["action"] == "grant.renew"]


async def leaves(handle: WorkflowHandle[Any, Any]) -> list[Grant]:
    """The first statements of the activities' headers."""
    return [parse((read_activity_header(each) or [""])[0], Grant).claims for each in await activity_headers(handle)]


async def test_a_run_that_outlives_its_grant_has_it_renewed_once(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == 2
    assert deeds(handle.id) == [1, 2]
    first, ended, renewed = await leaves(handle)
    assert first == ended
    assert (renewed.jti, renewed.sub, renewed.authorization) == (first.jti, first.sub, first.authorization)
    assert renewed.exp > first.exp
    [asked] = renewals(s)
    assert (asked["decision"], asked["renews"]) == ("allow", renewed.renews)
    await replays(s, handle)


async def test_a_run_that_sleeps_has_nothing_renewed(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(OnlySleeps)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == "awake"
    assert renewals(s) == []


async def test_many_activities_at_once_go_on_under_one_renewed_grant(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(FansOut)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == [0, 1, 2, 3, 4]
    assert sorted(deeds(handle.id)) == [0, 1, 2, 3, 4]
    assert len({each.model_dump_json() for each in (await leaves(handle))[5:]}) == 1
    await replays(s, handle)


async def test_a_local_activity_has_the_grant_renewed(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(SleepsLocally)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == 1
    assert deeds(handle.id) == [1]
    await replays(s, handle)


async def test_a_worker_that_begins_anew_knows_that_the_grant_was_renewed(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work], max_cached_workflows=0):
        handle = await s.start(FansOut)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == [0, 1, 2, 3, 4]
    again = AuthorizationPlugin.embedded(s.policies, state_dir=s.state, settings=Settings(**SHORT))
    replayer = Replayer(workflows=WORKFLOWS, plugins=[again], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


@pytest.mark.rule("Z10")
async def test_what_policies_do_not_let_be_renewed_is_refused(stage):
    s = await stage(
        PERMIT_ALL + '@id("no-renewals") forbid(principal, action == Action::"grant.renew", resource);\n', **SHORT
    )
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        await wake(s, handle.id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "It was not renewed" in failure.message
    assert "no-renewals" in failure.message
    assert deeds(handle.id) == [1]
    await replays(s, handle)


@pytest.mark.rule("Z9")
async def test_no_run_outlives_its_lifetime(stage):
    s = await stage(max_lifetime=timedelta(seconds=25), **SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        await wake(s, handle.id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "start the workflow again" in failure.message
    assert deeds(handle.id) == [1]
    assert renewals(s) == []


@pytest.mark.rule("Z10")
async def test_a_grant_that_was_revoked_is_not_renewed(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        [token] = [read_start_header(await start_headers(handle))]
        s.plugin.revoke(grant=parse((token or [""])[0], Grant).claims.jti, reason="stolen")
        await wake(s, handle.id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "stolen" in failure.message
    assert deeds(handle.id) == [1]
    assert [each["decision"] for each in renewals(s)] == ["none"]


@pytest.mark.rule("Z3")
async def test_what_revokes_a_grant_revokes_what_renewed_it(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == 2
        renewed = (await leaves(handle))[-1]
        s.plugin.revoke(grant=renewed.jti, reason="stolen")
    [first] = [read_start_header(await start_headers(handle))]
    assert parse((first or [""])[0], Grant).claims.jti == renewed.jti


async def test_in_observe_nothing_is_renewed_and_nothing_refused(stage):
    s = await stage(mode="observe", **SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == 2
    assert renewals(s) == []


async def test_a_run_that_continues_another_stands_on_its_renewed_grant(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Continues, True)
        later(s)
        await wake(s, handle.id)
        assert await handle.result() == 3
        last = s.client.get_workflow_handle(handle.id)
        started = read_start_header(await start_headers(last))
    assert deeds(handle.id) == [2, 3]
    assert started is not None
    assert parse(started[0], Grant).claims.renews is not None
    assert [type_of(each) for each in started][-1] == Seal.typ
    await replays(s, handle)
    await replays(s, last)


@pytest.mark.rule("Z4")
@pytest.mark.parametrize("slept", [False, True], ids=["the child sleeps", "the parent slept"])
async def test_a_child_has_what_it_was_handed_renewed_and_not_more(stage, slept):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Parent, slept)
        child = s.client.get_workflow_handle(f"{handle.id}-child")
        if slept:
            later(s)
            await wake(s, handle.id)
        await sleeping(s, child.id)
        later(s)
        await wake(s, child.id)
        assert await handle.result() == 2
    assert deeds(child.id) == [1, 2]
    renewed = (await leaves(child))[-1]
    assert renewed.authorization.child
    assert renewed.authorization.workflow_id == child.id
    await replays(s, handle)
    await replays(s, child)


async def test_what_is_running_when_its_grant_ends_is_ended(stage):
    s = await stage(**SHORT)
    async with s.worker(WORKFLOWS, [work_slowly]):
        handle = await s.start(WorksSlowly)
        await sleeping(s, handle.id)
        later(s)
        assert (await failure_of(handle)).type == "AuthorizationRevoked"
    assert deeds(handle.id) == ["began"]
    assert renewals(s) == []


@pytest.mark.rule("W9")
async def test_a_renewed_grant_starts_no_run(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [work]):
        name = unique()
        stolen = await s.grant("Sleeps", name, renews="A" * 43)
        failure = await failure_of(await s.start_with(headed(stolen), Sleeps, id=name))
    assert failure.type == "GrantRejected"
    assert "a run that had started already" in failure.message
    assert deeds(name) == []


async def test_what_people_agreed_to_lasts_through_a_renewal(stage):
    s = await stage(ONE, **SHORT)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(PaysSoon, 900)
        [asked] = await challenged(handle)
        later(s)
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    assert len(renewals(s)) == 1
    last = (await activity_headers(handle))[-1]
    assert parse((read_activity_header(last) or [""])[-1], Request).claims.answers == asked.claims.request
    assert [each for each in await events(handle) if each.HasField("workflow_execution_completed_event_attributes")]
    await replays(s, handle)


async def ended(s: Stage) -> list[str]:
    """What an activity came with whose grant has ended since."""
    async with s.worker(WORKFLOWS, [work]):
        handle = await s.start(Sleeps)
        await sleeping(s, handle.id)
        tokens = read_activity_header((await activity_headers(handle))[0])
        await handle.terminate()
    assert tokens is not None
    return tokens


@pytest.mark.rule("Z10")
@pytest.mark.parametrize("what", ["the key of the grant", "the worker that asks", "its key"])
async def test_what_somebody_signed_who_is_revoked_is_not_renewed(stage, what):
    s = await stage(**SHORT)
    tokens = await ended(s)
    later(s)
    request = parse(tokens[-1], Request)
    named = {
        "the key of the grant": {"key": kid_of(tokens[0])},
        "the worker that asks": {"worker": request.claims.iss},
        "its key": {"key": request.kid},
    }
    s.plugin.revoke(**named[what], reason="stolen")
    with pytest.raises(AuthorizationDenied, match="stolen"):
        await s.plugin._authority.renew_grant(RenewalOrder("default", tuple(tokens)))


@pytest.mark.rule("Z11")
async def test_a_renewal_names_as_many_policies_as_a_grant_can(stage):
    long = "".join(f'@id("{"p" * 90}{number}") permit(principal, action, resource);\n' for number in range(300))
    s = await stage(long, **SHORT)
    tokens = await ended(s)
    later(s)
    text = await s.plugin._authority.renew_grant(RenewalOrder("default", tuple(tokens)))
    assert 0 < len(parse(text, Grant).claims.policies) < 300


@pytest.mark.rule("Z9")
async def test_the_authority_renews_no_grant_that_lasts(stage):
    s = await stage(**SHORT)
    tokens = await ended(s)
    with pytest.raises(AuthorizationDenied, match="has not ended"):
        await s.plugin._authority.renew_grant(RenewalOrder("default", tuple(tokens)))
    later(s)
    assert await s.plugin._authority.renew_grant(RenewalOrder("default", tuple(tokens)))


@pytest.mark.rule("Z8")
@pytest.mark.parametrize(
    "change",
    ["a stranger's request", "a request on another grant", "a request of another run", "no request", "another place"],
)
async def test_the_authority_believes_nothing_but_what_is_signed(stage, change):
    s = await stage(**SHORT)
    tokens = await ended(s)
    later(s)
    claims = parse(tokens[-1], Request).claims
    workload, place = s.plugin.gate.workload, "default"
    if change == "a stranger's request":
        tokens[-1] = sign(claims, SigningKey.generate()).text
    elif change == "a request on another grant":
        core = dict(claims) | {"grant": digest("another")}
        jti = RequestCore(**{name: core[name] for name in RequestCore.model_fields}).hash()
        tokens[-1] = workload.sign(Request(**core | {"jti": jti})).text
    elif change == "a request of another run":
        core = dict(claims) | {"workflow_id": "another"}
        jti = RequestCore(**{name: core[name] for name in RequestCore.model_fields}).hash()
        tokens[-1] = workload.sign(Request(**core | {"jti": jti})).text
    elif change == "no request":
        tokens.pop()
    else:
        place = "another"
    with pytest.raises(AuthorizationDenied, match="cannot be renewed"):
        await s.plugin._authority.renew_grant(RenewalOrder(place, tuple(tokens)))
    assert renewals(s) == []
