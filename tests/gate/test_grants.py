"""A grant is good for one workflow, one input, one chain of executions, in its time; a copy of it gains nothing."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from exequatur import AuthorizationDenied, Principal, acting_as
from exequatur.gate.wire import (
    ACTIVITY_HEADER,
    PREFIX,
    START_HEADER,
    activity_header,
    read_activity_header,
    read_start_header,
)
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant
from tests.gate.conftest import (
    BOT,
    PERMIT_ALL,
    Scheduling,
    activity_headers,
    deeds,
    events,
    failure_of,
    happened,
    headed,
    start_headers,
    unique,
)
from tests.gate.single import eventually

TIMEOUT = timedelta(seconds=60)


@activity.defn
def act(what: str) -> str:
    happened(what)
    return what


@activity.defn
async def slow(what: str) -> str:
    happened(what)
    await asyncio.sleep(0.5)
    return what


@workflow.defn
class One:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)

    @workflow.signal
    def nudge(self) -> None: ...

    @workflow.update
    def ask(self) -> str:
        return "answer"


@workflow.defn
class Two:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Twice:
    """Executes the same activity with the same arguments twice."""

    @workflow.run
    async def run(self, what: str) -> str:
        await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Waits:
    """Lets its grant grow old before it acts."""

    @workflow.run
    async def run(self, what: str) -> str:
        await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)
        await asyncio.sleep(2.5)
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Fails:
    """Fails its first attempt after it has acted."""

    @workflow.run
    async def run(self, what: str) -> str:
        attempt = workflow.info().attempt
        await workflow.execute_activity(act, f"{what} {attempt}", start_to_close_timeout=TIMEOUT)
        if attempt == 1:
            raise ApplicationError("again")
        return what


@workflow.defn
class Resettable:
    """Has an activity under way when the signal brings its second workflow task."""

    nudged = False

    @workflow.signal
    def nudge(self) -> None:
        self.nudged = True

    @workflow.run
    async def run(self, what: str) -> str:
        first = workflow.start_activity(slow, what, start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: self.nudged)
        await first
        return await workflow.execute_activity(act, "after", start_to_close_timeout=TIMEOUT)


WORKFLOWS = [One, Two, Twice, Waits, Fails, Resettable]
ACTIVITIES = [act, slow]


@pytest.mark.rule("I3")
async def test_a_grant_names_its_workflow_its_input_its_end_and_how_soon_the_run_must_start(stage):
    s = await stage(grant_ttl=timedelta(hours=2), start_within=timedelta(seconds=40))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(One.run, "x")
        await handle.result()
    [token] = read_start_header(await start_headers(handle))
    grant = parse(token, Grant).claims
    expected = parse((await s.grant("One", handle.id, "x")).text, Grant).claims
    assert grant.authorization == expected.authorization
    assert grant.authorization.workflow_id == handle.id
    assert grant.aud == "exequatur.local/default/default"
    assert grant.exp - grant.iat == 7200
    assert grant.start_by - grant.iat == 40
    assert (grant.sub, grant.policies) == (str(BOT), ("all",))


@pytest.mark.rule("I7")
async def test_a_delayed_start_lasts_from_its_beginning_and_is_not_delayed_for_ever(stage):
    s = await stage(grant_ttl=timedelta(hours=2), max_lifetime=timedelta(days=2))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(One.run, "x", start_delay=timedelta(days=1))
        [token] = read_start_header(await start_headers(handle))
        await handle.terminate()
        with pytest.raises(AuthorizationDenied, match="max_lifetime"):
            await s.start(One.run, "x", start_delay=timedelta(days=365 * 50))
    grant = parse(token, Grant).claims
    assert grant.exp - grant.iat == 26 * 3600
    assert grant.renew_until is not None
    assert grant.renew_until - grant.iat == 3 * 24 * 3600


async def test_however_many_policies_permit_a_start_and_a_message_their_statements_have_room(stage):
    many = "".join(f'@id("{i}-{"p" * 900}") permit(principal, action, resource);\n' for i in range(20))
    s = await stage(many)
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(One.run, "x")
        await handle.result()
    assert deeds(handle.id) == ["x"]


@pytest.mark.rule("W2")
@pytest.mark.rule("W4")
@pytest.mark.parametrize("difference", ["workflow id", "workflow type", "input"])
async def test_a_copied_grant_gains_nothing_under_another_id_type_or_input(stage, difference):
    s = await stage()
    victim = unique()
    copied = headed(await s.grant("One", victim, "x"))
    kind = Two.run if difference == "workflow type" else One.run
    async with s.worker(WORKFLOWS, ACTIVITIES):
        thief = await s.start_with(
            copied,
            kind,
            "y" if difference == "input" else "x",
            id=unique() if difference == "workflow id" else victim,
        )
        failure = await failure_of(thief)
    assert failure.type == "GrantRejected"
    assert deeds(thief.id) == []


async def test_the_same_grant_presented_by_any_client_for_what_it_was_issued_is_good(stage):
    s = await stage()
    workflow_id = unique()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(headed(await s.grant("One", workflow_id, "x")), One.run, "x", id=workflow_id)
        assert await handle.result() == "x"
    assert deeds(workflow_id) == ["x"]


@pytest.mark.rule("W4")
@pytest.mark.parametrize("begins", [-300, 120], ids=["too late", "too early"])
async def test_a_run_that_starts_outside_of_its_window_does_nothing(stage, begins):
    s = await stage(PERMIT_ALL, clock_leeway=timedelta(seconds=30))
    workflow_id, now = unique(), time.time()
    grant = await s.grant(
        "One", workflow_id, "x", iat=now + begins, nbf=now - 400, start_by=now + begins + 60, exp=now + 4000
    )
    # The gate's own clock rule (A4) is not to be what refuses the early one.
    s.plugin.gate.clock = lambda: time.time() + (begins if begins > 0 else 0)
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(headed(grant), One.run, "x", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


@pytest.mark.rule("A4")
@pytest.mark.parametrize("when", ["ended", "not yet begun"])
async def test_a_grant_outside_of_its_time_is_refused(stage, when):
    s = await stage()
    workflow_id, now = unique(), time.time()
    times = (
        {"iat": now - 50, "nbf": now - 50, "start_by": now - 10, "exp": now - 5, "renew_until": None}
        if when == "ended"
        else {"nbf": now + 200}
    )
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(
            headed(await s.grant("One", workflow_id, "x", **times)), One.run, "x", id=workflow_id
        )
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "ended" in failure.message or "begins" in failure.message
    assert deeds(workflow_id) == []


async def test_a_run_that_outlives_a_grant_without_renewal_does_nothing_more(stage):
    lifetime = timedelta(minutes=10)
    s = await stage(grant_ttl=lifetime, start_within=lifetime, max_lifetime=lifetime)
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(Waits.run, "x")
        await eventually(lambda: deeds(handle.id))
        s.plugin.gate.clock = lambda: time.time() + lifetime.total_seconds() + 1
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(handle.id) == ["x"]


class Impostor:
    """Signs with a key of its own under the name of another."""

    def __init__(self, real: SigningKey) -> None:
        self.kid, self.x, self._own = real.kid, SigningKey.generate().x, SigningKey.generate()

    def sign(self, data: bytes) -> bytes:
        return self._own.sign(data)


@pytest.mark.rule("A3")
async def test_a_forged_grant_gains_nothing(stage):
    s = await stage()
    workflow_id = unique()
    state: Any = s.plugin._authority
    forged = await s.grant("One", workflow_id, "x", signer=Impostor(state._state.signer("grant")), mode="observe")
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(headed(forged), One.run, "x", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


async def test_a_grant_signed_with_the_credential_key_gains_nothing(stage):
    s = await stage()
    workflow_id = unique()
    state: Any = s.plugin._authority
    forged = await s.grant("One", workflow_id, "x", signer=state._state.signer("credential"))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(headed(forged), One.run, "x", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


@pytest.mark.parametrize(
    "audience", ["exequatur.local/default/other", "exequatur.local/other/default", "x.y/default/default"]
)
async def test_a_grant_for_another_namespace_cluster_or_trust_domain_gains_nothing(stage, audience):
    s = await stage()
    workflow_id = unique()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(
            headed(await s.grant("One", workflow_id, "x", aud=audience)), One.run, "x", id=workflow_id
        )
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


async def test_a_grant_that_lists_its_activities_allows_no_other(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        for allowed, expected in ((("act",), ["x"]), (("other*",), [])):
            workflow_id = unique()
            grant = await s.grant("One", workflow_id, "x", authorization={"activities": allowed})
            handle = await s.start_with(headed(grant), One.run, "x", id=workflow_id)
            if expected:
                await handle.result()
            else:
                assert (await failure_of(handle)).type == "GrantRejected"
            assert deeds(workflow_id) == expected


UNREADABLE = {
    "not JSON": {START_HEADER: Payload(data=b"\xff{")},
    "not a string": {START_HEADER: Payload(data=b"[1]")},
    "not a token": {START_HEADER: Payload(data=b'"abc"')},
    "empty": {START_HEADER: Payload(data=b'""')},
    "foreign header of ours": {PREFIX + "other": Payload(data=b'"abc"')},
    "too large": {START_HEADER: Payload(data=b'"' + b"a" * 70_000 + b'"')},
}


@pytest.mark.rule("W1")
@pytest.mark.rule("X1")
@pytest.mark.parametrize("header", UNREADABLE)
async def test_a_run_whose_start_header_cannot_be_read_schedules_nothing_even_if_it_needs_no_grant(stage, header):
    s = await stage(allow_ungoverned=("One",))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(UNREADABLE[header], One.run, "x")
        failure = await failure_of(handle)
        scheduled = [e for e in await events(handle) if e.HasField("activity_task_scheduled_event_attributes")]
    assert failure.type == "GrantRejected"
    assert scheduled == []
    assert deeds(handle.id) == []


def replacing(headers: dict[str, Payload]) -> Scheduling:
    """A workflow worker without the plugin that puts headers on its activities."""

    def change(scheduled: Any) -> None:
        scheduled.headers = {**scheduled.headers, **headers}

    return Scheduling(activity=change)


PARTIAL = {
    "malformed": {ACTIVITY_HEADER: Payload(data=b"\x01\x00")},
    "of another format": {ACTIVITY_HEADER: Payload(data=b"\x63abc")},
    "the start header instead": {START_HEADER: Payload(data=b'"abc"')},
    "one too many": {ACTIVITY_HEADER: Payload(data=b"\x01"), PREFIX + "other": Payload(data=b"x")},
}


@pytest.mark.rule("A2")
@pytest.mark.parametrize("header", PARTIAL)
async def test_a_partial_foreign_or_malformed_header_is_refused_even_if_none_is_needed(stage, header):
    s = await stage(allow_ungoverned=("One",))
    async with (
        s.worker([One], client=s.plain, interceptors=[replacing(PARTIAL[header])]),
        s.worker(activities=ACTIVITIES),
    ):
        handle = await s.start(One.run, "x", client=s.plain)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(handle.id) == []


@pytest.mark.parametrize("kept", ["grant only", "request only", "without the credential"])
async def test_a_header_with_a_part_of_what_belongs_together_is_refused(stage, kept):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        honest = await s.start(One.run, "x")
        await honest.result()
    [header] = await activity_headers(honest)
    tokens = read_activity_header(header)
    parts = {"grant only": tokens[:1], "request only": tokens[-1:], "without the credential": [tokens[0], tokens[-1]]}
    partial = {ACTIVITY_HEADER: activity_header(parts[kept], [])}
    async with (
        s.worker([One], client=s.plain, interceptors=[replacing(partial)]),
        s.worker(activities=ACTIVITIES),
    ):
        handle = await s.start(One.run, "x", client=s.plain, id=honest.id)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(handle.id) == ["x"]


@pytest.mark.rule("A3")
async def test_a_request_of_one_run_used_by_a_rogue_workflow_worker_in_another_is_refused(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        honest = await s.start(One.run, "x")
        await honest.result()
    [header] = await activity_headers(honest)
    async with (
        s.worker([One], client=s.plain, interceptors=[replacing(header)]),
        s.worker(activities=ACTIVITIES),
    ):
        rogue = await s.start(One.run, "x", client=s.plain)
        failure = await failure_of(rogue)
    assert failure.type == "GrantRejected"
    assert deeds(rogue.id) == []


async def scheduled(handle: Any) -> list[dict[str, Payload]]:
    """The headers of a run's activities, once there are any."""
    for _ in range(1000):
        if headers := await activity_headers(handle):
            return headers
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was scheduled")


@pytest.mark.rule("A3")
async def test_arguments_that_a_rogue_workflow_worker_puts_behind_a_copied_request_are_refused(stage):
    s = await stage()
    async with s.worker([One], queue=(queue := unique("queue"))):
        # The honest worker asks for an activity on a queue that nobody serves yet.
        honest = await s.start(One.run, "x", task_queue=queue)
        headers = await scheduled(honest)
    await honest.terminate()
    async with (
        s.worker([One], client=s.plain, interceptors=[replacing(headers[0])], queue=queue),
        s.worker(activities=ACTIVITIES, queue=queue),
    ):
        rogue = await s.start(One.run, "y", client=s.plain, id=honest.id, task_queue=queue)
        failure = await failure_of(rogue)
    assert failure.type == "GrantRejected"
    assert "arguments" in failure.message
    assert deeds(rogue.id) == []


@workflow.defn(name="One")
class Other:
    """What a rogue worker runs under the name ``One``: another activity with the same arguments."""

    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(slow, what, start_to_close_timeout=TIMEOUT)


@pytest.mark.rule("A3")
async def test_a_request_for_one_activity_type_is_refused_for_another(stage):
    s = await stage()
    async with s.worker([One], queue=(queue := unique("queue"))):
        honest = await s.start(One.run, "x", task_queue=queue)
        headers = await scheduled(honest)
    await honest.terminate()
    async with (
        s.worker([Other], client=s.plain, interceptors=[replacing(headers[0])], queue=queue),
        s.worker(activities=ACTIVITIES, queue=queue),
    ):
        rogue = await s.start(Other.run, "x", client=s.plain, id=honest.id, task_queue=queue)
        failure = await failure_of(rogue)
    assert failure.type == "GrantRejected"
    assert "activity type" in failure.message
    assert deeds(rogue.id) == []


@pytest.mark.rule("F4")
async def test_a_request_is_good_for_one_activity_of_its_run(stage):
    s = await stage()
    async with s.worker([Twice], queue=(queue := unique("queue"))):
        honest = await s.start(Twice.run, "x", task_queue=queue)
        headers = await scheduled(honest)
    await honest.terminate()
    # The policies permit the reset for which the gate takes the second run (A8), and the grant has not been used (F5).
    async with (
        s.worker([Twice], client=s.plain, interceptors=[replacing(headers[0])], queue=queue),
        s.worker(activities=ACTIVITIES, queue=queue),
    ):
        rogue = await s.start(Twice.run, "x", client=s.plain, id=honest.id, task_queue=queue)
        failure = await failure_of(rogue)
    assert failure.type == "GrantRejected"
    assert "already used" in failure.message
    assert deeds(rogue.id) == ["x"]


class Meddling(Interceptor):
    """An interceptor behind the gate that changes the arguments."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                input.args = ["changed"]
                return await super().execute_activity(input)

        return Inbound(next)


async def test_arguments_that_an_inner_interceptor_changes_after_they_were_authorized_are_refused(stage):
    s = await stage(PERMIT_ALL + '@id("x") forbid(principal, action, resource) when { context.args.what == "y" };')
    s.write(PERMIT_ALL)
    async with s.worker(WORKFLOWS, ACTIVITIES, interceptors=[Meddling()]):
        handle = await s.start(One.run, "x")
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "changed" in failure.message
    assert deeds(handle.id) == []


@pytest.mark.rule("F5")
async def test_a_stolen_grant_serves_no_second_execution(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        honest = await s.start(One.run, "x")
        await honest.result()
        thief = await s.start_with(await start_headers(honest), One.run, "x", id=honest.id)
        failure = await failure_of(thief)
    assert failure.type == "GrantRejected"
    assert "another execution" in failure.message
    assert deeds(honest.id) == ["x"]


@pytest.mark.rule("W6")
async def test_a_grant_for_one_attempt_does_not_serve_a_retried_workflow(stage):
    s = await stage()
    workflow_id = unique()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start_with(
            headed(await s.grant("Fails", workflow_id, "x")),
            Fails.run,
            "x",
            id=workflow_id,
            retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=50)),
        )
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == ["x 1"]


async def test_a_workflow_started_with_a_retry_policy_keeps_its_grant_when_it_is_retried(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(
            Fails.run, "x", retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=50))
        )
        assert await handle.result() == "x"
    assert deeds(handle.id) == ["x 1", "x 2"]


async def test_a_cron_workflow_keeps_its_grant_from_run_to_run(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(One.run, "x", cron_schedule="@every 1s")
        try:
            for _ in range(1000):
                if len(deeds(handle.id)) >= 2:
                    break
                await asyncio.sleep(0.05)
        finally:
            await s.plain.get_workflow_handle(handle.id).terminate()
    assert deeds(handle.id)[:2] == ["x", "x"]


async def reset_to_second_task(client: Client, workflow_id: str, run_id: str) -> str:
    """Reset a run to its second workflow task; gives the new run's id."""
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    done = [e.event_id for e in history.events if e.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            reason="a test",
            workflow_task_finish_event_id=done[1],
            request_id=unique(),
        )
    )
    return answer.run_id


@pytest.mark.rule("A8")
@pytest.mark.parametrize("may_reset", [True, False])
async def test_an_activity_under_way_is_done_again_after_a_reset_only_if_cedar_allows_the_reset(stage, may_reset):
    forbid = '@id("no-reset") forbid(principal, action == Action::"workflow.reset", resource);'
    s = await stage(PERMIT_ALL + ("" if may_reset else forbid))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        handle = await s.start(Resettable.run, "x")
        while not deeds(handle.id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await handle.signal(Resettable.nudge)
        assert await handle.result() == "after"
        again = await reset_to_second_task(s.plain, handle.id, handle.result_run_id)
        second = s.client.get_workflow_handle(handle.id, run_id=again)
        if may_reset:
            assert await second.result() == "after"
        else:
            failure = await failure_of(second)
            assert failure.type == "AuthorizationDenied"
            assert "no-reset" in failure.message
    assert deeds(handle.id) == (["x", "after", "x", "after"] if may_reset else ["x", "after"])


@pytest.mark.rule("I1")
async def test_a_start_that_cedar_denies_never_reaches_the_server(stage):
    s = await stage('@id("none") permit(principal, action == Action::"act", resource);')
    workflow_id = unique()
    with pytest.raises(AuthorizationDenied, match="may not start One"):
        await s.start(One.run, "x", id=workflow_id)
    with pytest.raises(AuthorizationDenied, match="may not start One"):
        await s.start(One.run, "x", id=workflow_id, start_signal="nudge")
    with pytest.raises(AuthorizationDenied, match="may not start One"):
        await update_with_start(s, workflow_id)
    with pytest.raises(RPCError) as raised:
        await s.plain.get_workflow_handle(workflow_id).describe()
    assert raised.value.status == RPCStatusCode.NOT_FOUND


@pytest.mark.rule("I2")
async def test_a_revoked_principal_or_workflow_is_not_started(stage):
    s = await stage()
    workflow_id = unique()
    s.plugin.revoke(workflow=workflow_id, reason="not this one")
    with pytest.raises(AuthorizationDenied, match="not this one"):
        await s.start(One.run, "x", id=workflow_id)
    s.plugin.revoke(principal=BOT, reason="gone rogue")
    with pytest.raises(AuthorizationDenied, match="gone rogue"):
        await s.start(One.run, "x")


async def test_a_start_on_behalf_of_nobody_is_refused(stage):
    s = await stage(principal=None)
    with pytest.raises(AuthorizationDenied, match="acting_as"):
        await s.start(One.run, "x")


async def update_with_start(s: Any, workflow_id: str) -> str:
    start = WithStartWorkflowOperation(
        One.run,
        "x",
        id=workflow_id,
        task_queue=s.queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        execution_timeout=timedelta(seconds=120),
    )
    return await s.client.execute_update_with_start_workflow(One.ask, start_workflow_operation=start)


async def test_signal_with_start_and_update_with_start_are_granted_too(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        signalled = await s.start(One.run, "x", start_signal="nudge")
        assert await signalled.result() == "x"
        workflow_id = unique()
        assert await update_with_start(s, workflow_id) == "answer"
        assert await s.client.get_workflow_handle(workflow_id).result() == "x"


async def test_concurrent_starts_each_act_for_their_own_principal(stage):
    s = await stage(
        '@id("start") permit(principal, action == Action::"workflow.start", resource);\n'
        '@id("even") permit(principal, action == Action::"act", resource) when { principal.even };'
    )

    async def start(number: int) -> Any:
        with acting_as(Principal("User", f"user{number}", attributes={"even": number % 2 == 0})):
            await asyncio.sleep(0)
            return await s.start(One.run, str(number))

    async with s.worker(WORKFLOWS, ACTIVITIES):
        handles = await asyncio.gather(*(start(number) for number in range(8)))
        for number, handle in enumerate(handles):
            [token] = read_start_header(await start_headers(handle))
            assert parse(token, Grant).claims.sub == f'User::"user{number}"'
            if number % 2 == 0:
                assert await handle.result() == str(number)
            else:
                assert (await failure_of(handle)).type == "AuthorizationDenied"
            assert deeds(handle.id) == ([str(number)] if number % 2 == 0 else [])
