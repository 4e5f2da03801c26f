"""Two-person rule: a denial waits for people, and what they agree to runs once."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.worker import Replayer

from exequatur import AuthorizationPlugin, Settings, acting_as
from exequatur.gate.wire import ACTIVITY_HEADER, activity_header, read_activity_header
from exequatur.identity.actors import names_of
from exequatur.statements.approvals import APPROVAL_SIGNAL, CHALLENGES_MEMO
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse, sign, type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Approval, Challenge, Request, RequestCore
from tests.gate.conftest import (
    BOT,
    PERMIT_ALL,
    Scheduling,
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
from tests.gate.single import eventually

ONE = PERMIT_ALL + (
    '@id("two-person") @approval("finance, 1, 4h") @reason("somebody of finance has to agree")\n'
    'forbid(principal, action == Action::"pay", resource)\n'
    'unless { context has approvals && context.approvals.groups.contains("finance") };\n'
)
TWO = ONE.replace("finance, 1, 4h", "finance, 2, 4h")
SOON = ONE.replace("finance, 1, 4h", "finance, 1, 2s")
TWO_GROUPS = ONE + (
    '@id("operations") @approval("operations, 1, 4h")\n'
    'forbid(principal, action == Action::"pay", resource)\n'
    'unless { context has approvals && context.approvals.groups.contains("operations") };\n'
)


@activity.defn
async def pay(amount: int) -> str:
    happened(amount)
    return f"paid {amount}"


@activity.defn
async def pay_slowly(amount: int) -> str:
    happened(amount)
    for _ in range(600):
        activity.heartbeat()
        await asyncio.sleep(0.05)
    return f"paid {amount}"


@workflow.defn
class Pays:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(pay, amount, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class PaysTwice:
    @workflow.run
    async def run(self, amount: int) -> list[str]:
        handles = [workflow.start_activity(pay, amount, start_to_close_timeout=timedelta(seconds=10)) for _ in range(2)]
        return [await handle for handle in handles]


@workflow.defn
class PaysSlowly:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(
            pay_slowly, amount, start_to_close_timeout=timedelta(seconds=30), heartbeat_timeout=timedelta(seconds=5)
        )


@workflow.defn
class PaysLocally:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_local_activity(pay, amount, start_to_close_timeout=timedelta(seconds=10))


@workflow.defn
class GivesUp:
    """Cancels what waits, and goes on."""

    def __init__(self) -> None:
        self.enough = False

    @workflow.signal
    def give_up(self) -> None:
        self.enough = True

    @workflow.run
    async def run(self, amount: int) -> str:
        handle = workflow.start_activity(pay, amount, start_to_close_timeout=timedelta(seconds=10))
        await workflow.wait_condition(lambda: self.enough)
        handle.cancel()
        with pytest.raises(ActivityError) as raised:
            await handle
        return "given up" if is_cancelled_exception(raised.value) else "failed"


@workflow.defn
class PaysMany:
    @workflow.run
    async def run(self, count: int) -> list[str]:
        handles = [
            workflow.start_activity(pay, number, start_to_close_timeout=timedelta(seconds=10))
            for number in range(count)
        ]
        ended = await asyncio.gather(*handles, return_exceptions=True)
        return [str(each.cause) for each in ended if isinstance(each, ActivityError)]


@workflow.defn
class MovesOn:
    """Continues as new while a challenge is open."""

    @workflow.run
    async def run(self, again: bool) -> str:
        if again:
            handle = workflow.start_activity(pay, 1, start_to_close_timeout=timedelta(seconds=10))
            await workflow.wait_condition(lambda: CHALLENGES_MEMO in workflow.memo())
            assert not handle.done()
            workflow.continue_as_new(False)
        return "moved on"


@workflow.defn(name="Pays")
class PaysMore:
    """A later version of the workflow."""

    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(pay, amount + 1, start_to_close_timeout=timedelta(seconds=10))


WORKFLOWS = [Pays, PaysTwice, PaysSlowly, PaysLocally, GivesUp, PaysMany, MovesOn]


async def until(found: Callable[[], Awaitable[Any]]) -> Any:
    """What is found in the end; a search in vain ends, too."""
    async with asyncio.timeout(20):
        while True:
            if result := await found():
                return result
            await asyncio.sleep(0.05)


async def challenges(handle: WorkflowHandle[Any, Any]) -> list[Token[Challenge]]:
    memo = await (await handle.describe()).memo()
    return [parse(each["challenge"], Challenge) for each in memo.get(CHALLENGES_MEMO) or []]


async def challenged(handle: WorkflowHandle[Any, Any], count: int = 1) -> list[Token[Challenge]]:
    """The open challenges of a run, once there are so many."""

    async def found() -> list[Token[Challenge]]:
        there = await challenges(handle)
        return there if len(there) == count else []

    result: list[Token[Challenge]] = await until(found)
    return result


def approval(
    s: Stage, challenge: Token[Challenge], sub: str = 'User::"fay"', /, *, signer: Any = None, **changes: Any
) -> str:
    """What the authority signs, or somebody else."""
    issuer: Any = s.plugin._authority
    asked = challenge.claims
    now = round(s.plugin.gate.clock(), 3)
    claims = {
        "iss": issuer._state.issuer,
        "sub": sub,
        "aud": "exequatur.local/default/default",
        "iat": now,
        "exp": now + min(need.ttl for need in asked.needs),
        "jti": f"approval of {sub}",
        "verdict": "approve",
        "challenge": challenge.digest,
        "request": asked.request,
        "workflow_id": asked.workflow_id,
        "original_run_id": asked.original_run_id,
        "activity_type": asked.activity_type,
        "args": asked.args,
        "groups": tuple(need.group for need in asked.needs),
        "bundle": digest("bundle"),
        "policies": ("approvals",),
    } | changes
    return sign(Approval(**claims), signer or issuer._state.signer("approval")).text


async def approve(s: Stage, handle: WorkflowHandle[Any, Any], *args: Any, **changes: Any) -> None:
    await s.plain.get_workflow_handle(handle.id).signal(APPROVAL_SIGNAL, approval(s, *args, **changes))


async def replays(s: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    """The history that a run made replays."""
    replayer = Replayer(workflows=WORKFLOWS, plugins=[s.plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


async def ends_denied(handle: WorkflowHandle[Any, Any], saying: str) -> ApplicationError:
    failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert saying in failure.message, failure.message
    return failure


async def test_what_finance_agrees_to_runs_once(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        assert deeds(handle.id) == []
        assert "somebody of finance has to agree" in (asked.claims.reason or "")
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    assert await challenges(handle) == []
    await replays(s, handle)


@pytest.mark.rule("L5")
async def test_a_challenge_says_who_acts_for_whom(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        with acting_as(BOT, through=['User::"fay"']):
            handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        assert (asked.claims.sub, names_of(asked.claims.act)) == (str(BOT), ('User::"fay"',))
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    await replays(s, handle)


USELESS = {
    "nothing": (),
    "a number": (17,),
    "another text": ("yes",),
    "half a token": ("a.b",),
    "an endless text": ("x" * 100_000,),
    "two things": ("yes", {"amount": 1}),
}


@pytest.mark.rule("O22")
@pytest.mark.parametrize("name", USELESS)
async def test_what_is_no_approval_is_dropped_and_the_run_goes_on(stage, name):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await s.plain.get_workflow_handle(handle.id).signal(APPROVAL_SIGNAL, args=USELESS[name])
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]


INVALID: dict[str, Callable[[Stage, Token[Challenge]], str]] = {
    "signed by nobody who may": lambda s, asked: approval(s, asked, signer=SigningKey.generate()),
    "signed with the grant key": lambda s, asked: approval(s, asked, signer=s.plugin._authority._state.signer("grant")),
    "with a broken signature": lambda s, asked: approval(s, asked)[:-6] + "AAAAAA",
    "that has ended": lambda s, asked: approval(s, asked, iat=asked.claims.iat - 50, exp=asked.claims.iat - 1),
    "that lasts too long": lambda s, asked: approval(s, asked, exp=asked.claims.exp + 86_400),
    "from before the challenge": lambda s, asked: approval(s, asked, iat=asked.claims.iat - 7200),
    "for another place": lambda s, asked: approval(s, asked, aud="exequatur.local/default/other"),
    "for another challenge": lambda s, asked: approval(s, asked, challenge=digest("another")),
    "for another request": lambda s, asked: approval(s, asked, request=digest("another")),
    "for another workflow": lambda s, asked: approval(s, asked, workflow_id="another"),
    "for another run": lambda s, asked: approval(s, asked, original_run_id="another"),
    "for another activity": lambda s, asked: approval(s, asked, activity_type="refund"),
    "for other arguments": lambda s, asked: approval(s, asked, args=digest("other arguments")),
    "of another group": lambda s, asked: approval(s, asked, groups=("operations",)),
    "of no group": lambda s, asked: approval(s, asked, groups=()),
}


@pytest.mark.rule("O22")
@pytest.mark.parametrize("name", INVALID)
async def test_an_approval_that_is_not_for_exactly_this_does_not_count(stage, name):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        other = s.plain.get_workflow_handle(handle.id)
        await other.signal(APPROVAL_SIGNAL, INVALID[name](s, asked))
        # Had it counted, the run would not wait any more and this would come too late.
        await other.signal(APPROVAL_SIGNAL, approval(s, asked, verdict="reject", reason="not now"))
        await ends_denied(handle, 'User::"fay" rejected it: not now')
    assert deeds(handle.id) == []
    await replays(s, handle)


@pytest.mark.rule("O11")
async def test_one_person_is_one_however_often_they_agree(stage):
    s = await stage(TWO)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        await approve(s, handle, asked, jti="once more")
        await approve(s, handle, asked, 'User::"rob"', verdict="reject")
        await ends_denied(handle, 'User::"rob" rejected it')
    assert deeds(handle.id) == []


async def test_two_people_are_two(stage):
    s = await stage(TWO)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        await approve(s, handle, asked, 'User::"rob"')
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    [allowed] = [
        json.loads(each.body) for each in s.records("decision") if json.loads(each.body)["decision"] == "allow"
    ]
    facts = json.loads(allowed["facts"])
    assert facts["approvals"] == {"groups": ["finance"], "approvers": ['User::"fay"', 'User::"rob"']}
    await replays(s, handle)


async def test_every_group_that_is_asked_has_to_agree(stage):
    s = await stage(TWO_GROUPS)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        assert {need.group for need in asked.claims.needs} == {"finance", "operations"}
        await approve(s, handle, asked, groups=("finance",))
        await approve(s, handle, asked, 'User::"olga"', groups=("operations",))
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]


@pytest.mark.rule("O23")
async def test_a_challenge_that_nobody_answers_ends_in_a_denial(stage):
    s = await stage(SOON)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        failure = await ends_denied(handle, "Not enough people agreed in time")
    assert deeds(handle.id) == []
    assert failure.details[0]["policies"] == [{"id": "two-person", "reason": "somebody of finance has to agree"}]
    assert await challenges(handle) == []
    await replays(s, handle)


async def test_an_approval_after_the_run_has_ended_finds_nobody(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked, verdict="reject")
        await ends_denied(handle, "rejected it")
        with pytest.raises(Exception, match="already completed"):
            await approve(s, handle, asked)
    assert deeds(handle.id) == []


async def test_a_run_waits_through_the_end_of_its_worker(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay], max_cached_workflows=0):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
    await approve(s, handle, asked)
    again = AuthorizationPlugin.embedded(s.policies, state_dir=s.state, settings=Settings())
    client = await s.connect(again)
    async with s.worker(WORKFLOWS, [pay], client=client, max_cached_workflows=0):
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    await replays(s, handle)


@pytest.mark.rule("O7")
async def test_one_consent_is_for_one_of_two_activities_that_are_alike(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(PaysTwice, 900)
        first, second = await challenged(handle, 2)
        assert first.claims.args == second.claims.args
        await approve(s, handle, first)
        assert await challenged(handle) == [second]
        await approve(s, handle, first)  # late, and for what was answered
        await approve(s, handle, second, verdict="reject")
        await ends_denied(handle, "rejected it")
    assert deeds(handle.id) == [900]
    await replays(s, handle)


@pytest.mark.rule("F10")
async def test_what_people_agreed_to_once_does_not_run_again_for_a_rogue_worker(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
        tokens = read_activity_header((await activity_headers(handle))[-1])
        assert tokens is not None
        honest = parse(tokens[-1], Request).claims

        def forge(input: Any) -> None:
            claims = dict(honest) | {
                "seq": 17,
                "run_id": workflow.info().run_id,
                "iat": round(workflow.time(), 3),
            }
            core = RequestCore(**{name: claims[name] for name in RequestCore.model_fields})
            request = s.plugin.gate.workload.sign(Request(**claims | {"jti": core.hash()}))
            input.headers = {ACTIVITY_HEADER: activity_header([request.text], tokens[:-1])}
            input.task_queue = s.queue

        rogue = "rogue"
        async with s.worker([Pays], client=s.plain, queue=rogue, interceptors=[Scheduling(forge)]):
            thief = await s.start(Pays, 900, client=s.plain, id=handle.id, task_queue=rogue)
            failure = await failure_of(thief)
    assert failure.type == "GrantRejected"
    assert "already used for another request" in failure.message
    assert deeds(handle.id) == [900]


async def reset(s: Stage, handle: WorkflowHandle[Any, Any], after: int) -> WorkflowHandle[Any, Any]:
    """Let the run begin anew after the workflow task that scheduled the last of so many activities, without signals."""
    there = await events(handle)
    scheduled = [each.event_id for each in there if each.HasField("activity_task_scheduled_event_attributes")]
    tasks = [each.event_id for each in there if each.HasField("workflow_task_completed_event_attributes")]
    answer = await s.plain.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id),
            reason="the test says so",
            workflow_task_finish_event_id=max(task for task in tasks if task < scheduled[after]),
            reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_NONE,
            request_id=unique(),
        )
    )
    return s.client.get_workflow_handle(handle.id, run_id=answer.run_id)


@pytest.mark.rule("F10")
async def test_what_people_agreed_to_once_does_not_run_again_after_a_reset(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
        failure = await failure_of(await reset(s, handle, after=1))
    assert failure.type == "GrantRejected"
    assert "already used for another request, or before the workflow was reset" in failure.message
    assert deeds(handle.id) == [900]


async def test_after_a_reset_people_are_asked_anew(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
        again = await reset(s, handle, after=0)
        [anew] = await challenged(again)
        await approve(s, again, asked)  # what was agreed to before is not for this
        await approve(s, again, anew)
        assert await again.result() == "paid 900"
    assert deeds(handle.id) == [900, 900]


@pytest.mark.rule("O27")
async def test_a_policy_that_asks_for_more_people_meanwhile_gets_them(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        s.write(TWO)
        await eventually(lambda: s.plugin.gate.policy.sequence == 2)
        await approve(s, handle, asked)

        async def another() -> Token[Challenge] | None:
            return next((each for each in await challenges(handle) if each != asked), None)

        anew = await until(another)
        assert [need.quorum for need in anew.claims.needs] == [2]
        await approve(s, handle, anew)
        await approve(s, handle, anew, 'User::"rob"')
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    await replays(s, handle)


@pytest.mark.rule("O27")
async def test_a_policy_that_lets_approvals_count_for_less_time_meanwhile_is_heeded(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        s.write(ONE.replace("4h", "2h"))
        await eventually(lambda: s.plugin.gate.policy.sequence == 2)
        await approve(s, handle, asked)

        async def another() -> Token[Challenge] | None:
            return next((each for each in await challenges(handle) if each != asked), None)

        anew = await until(another)
        assert [need.ttl for need in anew.claims.needs] == [7200]
        await approve(s, handle, anew, verdict="reject")
        await ends_denied(handle, "rejected it")
    assert deeds(handle.id) == []


@pytest.mark.rule("O13")
async def test_code_that_changes_while_people_are_asked_fails_no_task_and_does_what_nobody_agreed_to_not(stage):
    s = await stage(ONE)
    async with s.worker([Pays], [pay], max_cached_workflows=0):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
    await approve(s, handle, asked)
    async with s.worker([PaysMore], [pay], max_cached_workflows=0):
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "The challenge is for another args" in failure.message
    assert deeds(handle.id) == []
    assert not [each for each in await events(handle) if each.HasField("workflow_task_failed_event_attributes")]


@pytest.mark.rule("O26")
async def test_an_activity_that_is_cancelled_while_it_waits_does_not_run(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(GivesUp, 900)
        await challenged(handle)
        await handle.signal(GivesUp.give_up)
        assert await handle.result() == "given up"
    assert deeds(handle.id) == []
    assert await challenges(handle) == []
    await replays(s, handle)


async def test_a_workflow_that_is_cancelled_while_it_waits_ends_as_cancelled(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        await challenged(handle)
        await s.plain.get_workflow_handle(handle.id).cancel()
        with pytest.raises(Exception, match="Workflow execution failed") as raised:
            await handle.result()
        assert is_cancelled_exception(raised.value.__cause__)
    assert deeds(handle.id) == []
    await replays(s, handle)


@pytest.mark.rule("O24")
async def test_no_more_than_32_challenges_of_a_run_are_open(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(PaysMany, 36)
        for asked in await challenged(handle, 32):
            await approve(s, handle, asked, verdict="reject", reason="too much")
        ended = await handle.result()
    assert len([each for each in ended if "32 challenges of this run are open already" in each]) == 4
    assert len([each for each in ended if "too much" in each]) == 32
    assert deeds(handle.id) == []
    await replays(s, handle)


@pytest.mark.rule("O24")
@pytest.mark.rule("O15")
async def test_whose_consent_was_revoked_does_not_count_and_is_not_asked_for_ever(stage):
    s = await stage(ONE)
    s.plugin.revoke(principal='User::"fay"', reason="left the company")
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        seen: set[str] = set()
        for _ in range(3):

            async def next_one() -> Any:
                return next((each for each in await challenges(handle) if each.digest not in seen), None)

            asked = await until(next_one)
            seen.add(asked.digest)
            await approve(s, handle, asked)
        await ends_denied(handle, "was challenged 3 times")
    assert deeds(handle.id) == []
    await replays(s, handle)


async def test_a_local_activity_waits_for_people_too(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(PaysLocally, 900)
        [asked] = await challenged(handle)
        assert deeds(handle.id) == []
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]
    await replays(s, handle)


async def test_a_local_activity_waits_through_replays(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay], max_cached_workflows=0):
        handle = await s.start(PaysLocally, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        assert await handle.result() == "paid 900"
    assert deeds(handle.id) == [900]


async def test_a_run_that_continues_another_does_not_inherit_its_challenges(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(MovesOn, True)
        assert await handle.result() == "moved on"
        last = s.client.get_workflow_handle(handle.id)
        assert await challenges(last) == []
    assert deeds(handle.id) == []
    await replays(s, handle)


SLOW = ONE.replace('"pay"', '"pay_slowly"')


@pytest.mark.rule("O15")
async def test_an_approver_who_is_revoked_ends_what_is_running(stage):
    s = await stage(SLOW)
    async with s.worker(WORKFLOWS, [pay_slowly]):
        handle = await s.start(PaysSlowly, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)

        async def begun() -> bool:
            return bool(deeds(handle.id))

        await until(begun)
        s.plugin.revoke(principal='User::"fay"', reason="left the company")
        assert (await failure_of(handle)).type == "AuthorizationRevoked"


@pytest.mark.rule("O15")
async def test_an_approval_that_ends_ends_what_is_running(stage):
    s = await stage(SLOW)
    async with s.worker(WORKFLOWS, [pay_slowly]):
        handle = await s.start(PaysSlowly, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked, exp=round(s.plugin.gate.clock() + 600, 3))
        await eventually(lambda: deeds(handle.id))
        s.plugin.gate.clock = lambda: time.time() + 600
        assert (await failure_of(handle)).type == "AuthorizationRevoked"
    assert deeds(handle.id) == [900]


async def test_in_observe_nobody_is_asked(stage):
    s = await stage(ONE, mode="observe")
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        assert await handle.result() == "paid 900"
    assert s.records("challenge") == []


async def denied_at_once(s: Stage, handle: WorkflowHandle[Any, Any], saying: str) -> None:
    await ends_denied(handle, saying)
    assert deeds(handle.id) == []
    assert s.records("challenge") == []


@pytest.mark.rule("O16")
@pytest.mark.parametrize(
    "other",
    [
        '@id("never") forbid(principal, action == Action::"pay", resource);\n',
        '@id("typing-error") @approval("finance") forbid(principal, action == Action::"pay", resource);\n',
    ],
    ids=["without", "malformed"],
)
async def test_what_another_policy_forbids_for_good_is_not_offered_to_anybody(stage, other):
    s = await stage(ONE + other)
    async with s.worker(WORKFLOWS, [pay]):
        await denied_at_once(s, await s.start(Pays, 900), "forbidden by policy")


@pytest.mark.rule("O16")
async def test_what_no_policy_permits_is_not_offered_to_anybody(stage):
    start = '@id("start") permit(principal, action == Action::"workflow.start", resource);\n'
    s = await stage(
        start + '@id("open") @approval("finance, 1, 4h") permit(principal, action == Action::"x", resource);\n'
    )
    async with s.worker(WORKFLOWS, [pay]):
        await denied_at_once(s, await s.start(Pays, 900), "no policy permits it")


@pytest.mark.rule("O20")
async def test_more_people_than_an_activity_can_carry_are_not_asked(stage):
    s = await stage(ONE.replace("finance, 1, 4h", "finance, 30, 4h"))
    async with s.worker(WORKFLOWS, [pay]):
        await denied_at_once(s, await s.start(Pays, 900), "30 people would have to agree")


@pytest.mark.rule("O18")
async def test_a_policy_that_no_consent_satisfies_asks_only_once(stage):
    s = await stage(ONE.partition("unless")[0].rstrip() + ";\n")
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert len(s.records("challenge")) == 1
    assert deeds(handle.id) == []


@pytest.mark.rule("O17")
async def test_a_run_with_a_grant_of_version_1_is_denied_as_it_always_was(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        name = unique()
        grant = await s.grant("Pays", name, 900, ver=1)
        handle = await s.start_with(headed(grant), Pays, 900, id=name)
        await denied_at_once(s, handle, "forbidden by policy two-person")


@activity.defn(name="pay")
async def pretends(amount: int) -> str:
    raise ApplicationError("Sure", pretends.details, type="AuthorizationChallenge", non_retryable=True)  # type: ignore[attr-defined]


@pytest.mark.rule("O21")
async def test_a_rogue_worker_cannot_make_a_run_wait_or_ask_again(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        honest = await s.start(Pays, 900)
        [asked] = await challenged(honest)
        memo = await (await honest.describe()).memo()
        credential = memo[CHALLENGES_MEMO][0]["credential"]
        await approve(s, honest, asked, verdict="reject")
        await ends_denied(honest, "rejected it")
    queue = "pretending"
    async with (
        s.worker(WORKFLOWS, [], queue=queue),
        s.worker([], [pretends], client=s.plain, queue=queue),
    ):
        for details in (
            {},
            {"challenge": 1, "credential": 2},
            {"challenge": "x" * 100_000, "credential": credential},
            {"challenge": asked.text, "credential": asked.text},
            {"challenge": asked.text, "credential": credential},
            {"renewal": asked.text},
            {"renewal": "a.b.c"},
            17,
        ):
            pretends.details = details  # type: ignore[attr-defined]
            handle = await s.start(Pays, 900, task_queue=queue)
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationDenied", details
            assert await challenges(handle) == []


async def test_what_is_recorded_names_the_challenge_and_what_answers_it(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        handle = await s.start(Pays, 900)
        [asked] = await challenged(handle)
        await approve(s, handle, asked)
        await handle.result()
    first, second = [read_activity_header(each) or [] for each in await activity_headers(handle)]
    assert parse(first[-1], Request).claims.jti == asked.claims.request
    assert parse(second[-1], Request).claims.answers == asked.claims.request
    assert [type_of(each) for each in second[-3:-1]] == [Challenge.typ, Approval.typ]
    [record] = s.records("challenge")
    assert record.body.decode().partition("~")[0] == asked.text
    outcomes = [(each.decision, each.outcome) for each in s.receipts(handle)]
    assert outcomes == [("deny", "denied"), ("allow", "completed")]
    failed = [each for each in await events(handle) if each.HasField("activity_task_failed_event_attributes")]
    info = failed[0].activity_task_failed_event_attributes.failure.application_failure_info
    assert (info.type, info.non_retryable) == ("AuthorizationChallenge", True)


@pytest.mark.rule("F9")
async def test_nobody_is_asked_on_behalf_of_a_stolen_grant(stage):
    s = await stage(ONE)
    async with s.worker(WORKFLOWS, [pay]):
        honest = await s.start(Pays, 900)
        [asked] = await challenged(honest)
        await approve(s, honest, asked, verdict="reject")
        await ends_denied(honest, "rejected it")
        thief = await s.start_with(await start_headers(honest), Pays, 900, id=honest.id)
        await ends_denied(thief, "somebody of finance has to agree")
    assert len(s.records("challenge")) == 1
    assert deeds(honest.id) == []


@pytest.mark.rule("O25")
async def test_what_does_not_fit_into_a_header_is_denied(stage):
    s = await stage(ONE.replace("finance, 1, 4h", "finance, 24, 4h"))
    async with s.worker(WORKFLOWS, [pay]):
        name = unique()
        grant = await s.grant("Pays", name, 900, attributes={f"a{number}": "x" * 100 for number in range(80)})
        handle = await s.start_with(headed(grant), Pays, 900, id=name)
        [asked] = await challenged(handle)
        for number in range(24):
            await approve(s, handle, asked, f'User::"person {number}"', reason="y" * 400)
        await ends_denied(handle, "does not fit into its header")
    assert deeds(name) == []
    await replays(s, handle)


@pytest.mark.rule("O19")
async def test_nobody_waits_longer_than_approvals_count_or_the_run_lasts(stage):
    s = await stage(ONE.replace("4h", "1h"), approval_wait=timedelta(days=1))
    brief = await stage(ONE, approval_wait=timedelta(minutes=5))
    short = await stage(ONE, max_lifetime=timedelta(minutes=30), grant_ttl=timedelta(minutes=20))
    for each, seconds in ((s, 3600), (brief, 300), (short, 1800)):
        async with each.worker(WORKFLOWS, [pay]):
            handle = await each.start(Pays, 900)
            [asked] = await challenged(handle)
            assert 0.9 * seconds < asked.claims.exp - asked.claims.iat <= seconds
            await handle.terminate()
