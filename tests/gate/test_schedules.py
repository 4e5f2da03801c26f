"""A schedule's runs act under a grant that is for them alone; it is asked before a schedule is changed."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Schedule,
    ScheduleAction,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy, SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from exequatur import AuthorizationDenied, Principal, acting_as
from exequatur.audit.wording import all_findings
from exequatur.cli.auditing import Auditing
from exequatur.gate.wire import START_HEADER, read_start_header
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant
from tests.gate.conftest import BOT, PERMIT_ALL, Stage, deeds, failure_of, happened, sandbox, start_headers, unique

TIMEOUT = timedelta(seconds=60)
BY = SearchAttributeKey.for_keyword("TemporalScheduledById")
FOR = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")


@activity.defn
async def act(what: str) -> str:
    happened(what)
    return what


@workflow.defn
class Once:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Other:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Long:
    """Fails once, continues as new, and has a child."""

    @workflow.run
    async def run(self, what: str, left: int) -> str:
        attempt = workflow.info().attempt
        await workflow.execute_activity(act, f"{what} {left} {attempt}", start_to_close_timeout=TIMEOUT)
        if attempt == 1 and left:
            raise ApplicationError("again")
        if left:
            workflow.continue_as_new(args=[what, left - 1])
        return await workflow.execute_child_workflow(
            Once.run, what, id=f"{workflow.info().workflow_id}-child", execution_timeout=TIMEOUT
        )


WORKFLOWS, ACTIVITIES = [Once, Other, Long], [act]


@dataclass
class Made:
    """A schedule, and what it starts."""

    stage: Stage
    handle: ScheduleHandle
    base: str

    async def grant(self) -> Grant:
        """The grant in the header of the schedule's action."""
        described = (await self.handle.describe()).raw_description.schedule
        [token] = read_start_header(dict(described.action.start_workflow.header.fields)) or []
        return parse(token, Grant).claims

    async def runs(self, count: int) -> list[WorkflowHandle[Any, Any]]:
        """Its first runs, once there are so many."""
        for _ in range(600):
            started = (await self.handle.describe()).info.recent_actions
            if len(started) >= count:
                return [
                    self.stage.client.get_workflow_handle(
                        each.action.workflow_id, run_id=each.action.first_execution_run_id
                    )
                    for each in started
                ]
            await asyncio.sleep(0.05)
        raise AssertionError("it did not happen")

    async def next_run(self) -> WorkflowHandle[Any, Any]:
        """Trigger it, and give the run."""
        before = len((await self.handle.describe()).info.recent_actions)
        await self.handle.trigger(overlap=ScheduleOverlapPolicy.ALLOW_ALL)
        return (await self.runs(before + 1))[-1]


@dataclass
class Making:
    """Makes schedules, and deletes them in the end."""

    made: list[ScheduleHandle] = field(default_factory=list)

    async def __call__(
        self, s: Stage, run: Any = Once.run, *args: Any, client: Client | None = None, **options: Any
    ) -> Made:
        base, action = unique("base"), options.pop("action", {})
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(
                run, args=args or ["x"], id=base, task_queue=s.queue, execution_timeout=TIMEOUT, **action
            ),
            spec=options.pop("spec", ScheduleSpec()),
        )
        handle = await (client or s.client).create_schedule(unique("schedule"), schedule, **options)
        self.made.append(handle)
        return Made(s, handle, base)


@pytest.fixture
async def make() -> Any:
    making = Making()
    yield making
    for handle in making.made:
        with suppress(RPCError):  # a scenario may have deleted it
            plain = await Client.connect(handle._client.service_client.config.target_host)
            await plain.get_schedule_handle(handle.id).delete()


async def another_second() -> None:
    """Runs of one second have one id, and what they did is counted by id."""
    await asyncio.sleep(1 - time.time() % 1)


Make = Callable[..., Awaitable[Made]]


@pytest.mark.rule("service.L7")
async def test_what_a_schedule_starts_acts_under_a_grant_that_is_bound_to_it(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s, trigger_immediately=True)
        [run] = await made.runs(1)
        assert await run.result() == "x"
    assert deeds(run.id) == ["x"]
    grant = await made.grant()
    assert (grant.authorization.workflow_id, grant.authorization.schedule) == (made.base, made.handle.id)
    assert (grant.authorization.reuse, grant.start_by, grant.renew_until) == ("schedule", grant.exp, None)
    assert grant.exp - grant.iat == s.plugin.gate.settings.schedule_grant_ttl.total_seconds()
    [token] = read_start_header(await start_headers(run)) or []
    assert parse(token, Grant).claims == grant
    asked = [record.body for record in s.records("authority")]
    for action in (b"schedule.create", b"schedule.trigger", b"workflow.start"):
        assert sum(b'"action":"%s"' % action in body for body in asked) == 1


async def test_a_trigger_a_backfill_and_an_interval_all_start_runs_that_may_act(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s, spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(seconds=1))]))
        runs = await made.runs(2)
        await made.handle.pause()
        runs.append(await made.next_run())
        past = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        before = len((await made.handle.describe()).info.recent_actions)
        for again in (1, 2):  # a backfill may be done again
            await made.handle.backfill(
                ScheduleBackfill(
                    start_at=past - timedelta(seconds=1), end_at=past, overlap=ScheduleOverlapPolicy.ALLOW_ALL
                )
            )
            runs += (await made.runs(min(10, before + again)))[-1:]
        for run in runs:
            assert await run.result() == "x"
            assert deeds(run.id)


@pytest.mark.rule("W5")
@pytest.mark.rule("W7")
async def test_a_scheduled_run_is_retried_continues_as_new_and_has_children(stage: Any, make: Make) -> None:
    s = await stage()
    retried = {"retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=3)}
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s, Long.run, "x", 1, action=retried, trigger_immediately=True)
        [run] = await made.runs(1)
        assert await s.client.get_workflow_handle(run.id).result() == "x"
    assert deeds(run.id) == ["x 1 1", "x 1 2", "x 0 1"]
    assert deeds(f"{run.id}-child") == ["x"]
    last = s.client.get_workflow_handle(run.id)
    for plugins in ([], [s.plugin]):
        replayer = Replayer(workflows=WORKFLOWS, workflow_runner=sandbox(), plugins=plugins)
        await replayer.replay_workflow(await last.fetch_history())


async def test_user_code_sees_of_a_schedule_what_it_wrote(stage: Any, make: Make) -> None:
    s = await stage()
    made, plain = await make(s), await make(s, client=s.plain)
    seen: list[Any] = []

    def update(given: ScheduleUpdateInput) -> None:
        seen.append(given.description.schedule.action)

    for each in (made, plain):
        described = await each.handle.describe()
        await each.handle.update(update)
        seen.append(described.schedule.action)
    for action in seen:
        assert isinstance(action, ScheduleActionStartWorkflow)
        assert action.headers is None
        assert action.args == await DataConverter.default.encode(["x"])
    with pytest.raises(ScheduleAlreadyRunningError):
        await s.client.create_schedule(made.handle.id, (await made.handle.describe()).schedule)


@pytest.mark.rule("schedules.Y3")
async def test_an_update_keeps_the_grant_until_what_is_started_changes_or_half_of_its_time_is_over(
    stage: Any, make: Make
) -> None:
    s = await stage()
    made = await make(s)
    first = await made.grant()

    async def changed(**changes: Any) -> Grant:
        async def update(given: ScheduleUpdateInput) -> ScheduleUpdate:
            await asyncio.sleep(0)
            for name, value in changes.items():
                setattr(given.description.schedule.action, name, value)
            return ScheduleUpdate(given.description.schedule)

        await made.handle.update(update)
        return await made.grant()

    assert await changed() == first
    assert await changed(task_timeout=timedelta(seconds=5)) == first
    grants = [first]
    changes: list[dict[str, Any]] = [
        {"args": ["y"]},
        {"workflow": "Other"},
        {"id": made.base + "s"},
        {"task_queue": s.queue + "s"},
    ]
    for change in changes:
        grants.append(await changed(**change))
        assert grants[-1].jti != grants[-2].jti
    s.plugin.gate.clock = lambda: first.iat + (first.exp - first.iat) * 0.6
    grants.append(await changed())
    assert grants[-1].exp > grants[-2].exp
    assert len({grant.jti for grant in grants}) == 6


async def test_a_run_after_an_update_has_what_the_update_says(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)

        def update(given: ScheduleUpdateInput) -> ScheduleUpdate:
            action: Any = given.description.schedule.action
            action.args = ["changed"]
            return ScheduleUpdate(given.description.schedule)

        await made.handle.update(update)
        run = await made.next_run()
        assert await run.result() == "changed"
    assert deeds(run.id) == ["changed"]


class Mirror(PayloadCodec):
    """Stands for encryption."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"mirrored"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if any(each.metadata.get("encoding") != b"mirrored" for each in payloads):
            raise ValueError("not mirrored")
        return [Payload.FromString(each.data[::-1]) for each in payloads]


async def test_with_an_encryption_codec_the_grant_is_encrypted_and_an_update_keeps_it(stage: Any, make: Make) -> None:
    s = await stage(client_options={"data_converter": DataConverter(payload_codec=Mirror())})
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)

        async def held() -> bytes:
            described = (await made.handle.describe()).raw_description.schedule
            payload = described.action.start_workflow.header.fields[START_HEADER]
            [plain] = await Mirror().decode([payload])
            return plain.data

        first = await held()
        for _ in range(2):
            await made.handle.update(lambda given: ScheduleUpdate(given.description.schedule))
            assert await held() == first
        run = await made.next_run()
        assert await run.result() == "x"


# What a grant of a schedule is not good for.


async def copied(made: Made) -> dict[str, Payload]:
    run = await made.next_run()
    await run.result()
    return await start_headers(run)


def by_hand(schedule: str, moment: datetime) -> TypedSearchAttributes:
    """What the scheduler sets, set by a client."""
    return TypedSearchAttributes([SearchAttributePair(BY, schedule), SearchAttributePair(FOR, moment)])


@pytest.mark.rule("W8")
@pytest.mark.rule("R7")
@pytest.mark.parametrize(
    "case",
    [
        "its base",
        "another id",
        "no time",
        "no mark",
        "another schedule",
        "another time",
        "not yet due",
        "beyond the calendar",
        "input",
        "type",
    ],
)
async def test_a_copied_grant_of_a_schedule_gains_nothing(stage: Any, make: Make, case: str) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        header = await copied(made)
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=2 if case == "not yet due" else -2)
        due = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        workflow_id = {
            "its base": made.base,
            "another id": f"{unique()}-{due}",
            "no time": f"{made.base}-soon",
        }.get(case, f"{made.base}-{due}")
        marks = by_hand(
            "other" if case == "another schedule" else made.handle.id,
            {
                "another time": moment - timedelta(seconds=1),
                "beyond the calendar": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
            }.get(case, moment),
        )
        thief = await s.start_with(
            header,
            Other.run if case == "type" else Once.run,
            "y" if case == "input" else "x",
            id=workflow_id,
            **({} if case == "no mark" else {"search_attributes": marks}),
        )
        failure = await failure_of(thief)
    assert failure.type == "GrantRejected"
    assert deeds(workflow_id) == []


async def test_a_grant_copied_into_another_schedule_gains_nothing(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        header = await copied(made)
        stolen = Schedule(
            # The scheduler does not let a schedule pass for another.
            action=ScheduleActionStartWorkflow(
                "Once",
                "x",
                id=made.base,
                task_queue=s.queue,
                execution_timeout=TIMEOUT,
                typed_search_attributes=TypedSearchAttributes([SearchAttributePair(BY, made.handle.id)]),
                headers=header,
            ),
            spec=ScheduleSpec(),
        )
        thief = Made(s, await s.plain.create_schedule(unique("schedule"), stolen), made.base)
        await another_second()
        run = await thief.next_run()
        failure = await failure_of(run)
        await thief.handle.delete()
    assert failure.type == "GrantRejected"
    assert deeds(run.id) == []


async def test_what_remains_a_copy_repeats_what_the_schedule_does_until_the_grant_ends_or_is_revoked(
    stage: Any, make: Make
) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        header = await copied(made)
        moment = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
        # Whoever may start workflows at the server may mark them as the scheduler does, and trigger the schedule too.
        options = {"search_attributes": by_hand(made.handle.id, moment)}
        again = await s.start_with(header, Once.run, "x", id=f"{made.base}-{moment:%Y-%m-%dT%H:%M:%SZ}", **options)
        assert await again.result() == "x"
        s.plugin.revoke(grant=(await made.grant()).jti, reason="its header was copied")
        once_more = await s.start_with(header, Once.run, "x", id=again.id, **options)
        assert (await failure_of(once_more)).type == "GrantRejected"
    assert deeds(again.id) == ["x"]


@pytest.mark.rule("W5")
async def test_a_continued_run_cannot_take_the_seal_of_another_run_of_the_schedule(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s, Long.run, "x", 1, action={"retry_policy": RetryPolicy(maximum_attempts=2)})
        first = await made.next_run()
        await s.client.get_workflow_handle(first.id).result()
        header = await start_headers(s.client.get_workflow_handle(first.id))
        assert len(read_start_header(header) or []) > 1
        moment = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
        thief = await s.start_with(
            header,
            Long.run,
            "x",
            0,
            id=f"{made.base}-{moment:%Y-%m-%dT%H:%M:%SZ}",
            search_attributes=by_hand(made.handle.id, moment),
            # Of a retry it is not known which run it continues.
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2),
        )
        failure = await failure_of(s.client.get_workflow_handle(thief.id))
    assert failure.type == "GrantRejected"
    assert deeds(thief.id) == []


async def test_runs_after_the_end_of_the_grant_do_nothing(stage: Any, make: Make) -> None:
    s = await stage(schedule_grant_ttl=timedelta(seconds=2))
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        assert await (await made.next_run()).result() == "x"
        await asyncio.sleep(2.1)
        run = await made.next_run()
        failure = await failure_of(run)
        assert failure.type == "GrantRejected"
        assert deeds(run.id) == []
        await made.handle.update(lambda given: ScheduleUpdate(given.description.schedule))
        assert await (await made.next_run()).result() == "x"


@pytest.mark.parametrize("what", ["grant", "principal"])
async def test_a_revocation_between_two_runs_ends_what_the_schedule_may_do(stage: Any, make: Make, what: str) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        assert await (await made.next_run()).result() == "x"
        grant = await made.grant()
        s.plugin.revoke(**{what: grant.jti if what == "grant" else grant.sub}, reason="no more of it")
        await another_second()
        # By somebody else, for who is revoked may not trigger either.
        with acting_as(Principal("User", "dana")):
            run = await made.next_run()
        failure = await failure_of(run)
    assert failure.type == "GrantRejected"
    assert "no more of it" in failure.message
    assert deeds(run.id) == []


async def test_a_schedule_without_a_grant_starts_runs_that_do_nothing(stage: Any, make: Make) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s, client=s.plain)
        run = await Made(s, s.client.get_schedule_handle(made.handle.id), made.base).next_run()
        failure = await failure_of(run)
    assert failure.type == "GrantRejected"
    assert deeds(run.id) == []


# Who may change schedules.


@pytest.mark.rule("schedules.Y1")
@pytest.mark.rule("schedules.Y2")
@pytest.mark.parametrize("action", ["schedule.create", "workflow.start", "schedule.trigger", "schedule.backfill"])
async def test_a_schedule_that_may_not_be_created_is_not(stage: Any, action: str) -> None:
    s = await stage(PERMIT_ALL + f'@id("no") forbid(principal, action == Action::"{action}", resource);')
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(Once.run, "x", id=unique(), task_queue=s.queue), spec=ScheduleSpec()
    )
    past = datetime.now(UTC) - timedelta(hours=1)
    name = unique("schedule")
    with pytest.raises(AuthorizationDenied):
        await s.client.create_schedule(
            name,
            schedule,
            trigger_immediately=action == "schedule.trigger",
            backfill=[ScheduleBackfill(past, past)] if action == "schedule.backfill" else [],
        )
    with pytest.raises(RPCError) as missing:
        await s.plain.get_schedule_handle(name).describe()
    assert missing.value.status == RPCStatusCode.NOT_FOUND
    assert b'"decision":"deny"' in s.records("authority")[-1].body


class Disguised(ScheduleAction):
    """An action of another class, which is sent as one that starts a workflow."""

    def __init__(self, inner: ScheduleAction) -> None:
        self.inner = inner

    async def _to_proto(self, client: Client) -> Any:
        return await self.inner._to_proto(client)


@pytest.mark.rule("schedules.Y4")
@pytest.mark.parametrize("why", ["revoked", "made through somebody who is revoked", "of another authority"])
async def test_an_update_replaces_a_grant_that_nobody_believes_any_more(stage: Any, make: Make, why: str) -> None:
    s = await stage()
    with acting_as(BOT, through=['Agent::"clerk"']):
        made, client = await make(s), s.client
    before = await made.grant()
    if why == "revoked":
        s.plugin.revoke(grant=before.jti, reason="its header was copied")
    elif why == "made through somebody who is revoked":
        s.plugin.revoke(principal='Agent::"clerk"', reason="left")
    else:
        client = (await stage()).client
    await client.get_schedule_handle(made.handle.id).update(lambda given: ScheduleUpdate(given.description.schedule))
    after = await made.grant()
    assert after.jti != before.jti
    assert after.authorization == before.authorization


@pytest.mark.rule("schedules.Y1")
async def test_an_action_of_another_class_is_asked_as_what_it_is_sent_as(stage: Any, make: Make) -> None:
    s = await stage(
        PERMIT_ALL + '@id("no") forbid(principal, action in [Action::"schedule.create", Action::"schedule.update"],'
        ' resource) when { context.run.workflow_type == "Other" };'
    )
    start = ScheduleActionStartWorkflow(Other.run, "x", id=unique(), task_queue=s.queue)
    hidden = Schedule(action=Disguised(start), spec=ScheduleSpec())
    with pytest.raises(AuthorizationDenied):
        await s.client.create_schedule(name := unique("schedule"), hidden)
    with pytest.raises(RPCError):
        await s.plain.get_schedule_handle(name).describe()
    made = await make(s)
    with pytest.raises(AuthorizationDenied):
        await made.handle.update(lambda _: ScheduleUpdate(hidden))
    action = (await made.handle.describe()).schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert action.workflow == "Once"


@pytest.mark.rule("operations.L3")
@pytest.mark.parametrize("action", ["update", "trigger", "backfill", "pause", "unpause", "delete"])
async def test_a_change_of_a_schedule_that_is_not_permitted_does_not_leave(stage: Any, make: Make, action: str) -> None:
    s = await stage(
        PERMIT_ALL + f'@id("no") forbid(principal, action == Action::"schedule.{action}", resource)'
        ' when { context.run.workflow_type == "Once" };'
    )
    paused = Schedule(
        action=ScheduleActionStartWorkflow(Once.run, "x", id=unique(), task_queue=s.queue),
        spec=ScheduleSpec(),
        state=ScheduleState(paused=action == "unpause"),
    )
    handle = await s.client.create_schedule(unique("schedule"), paused)
    before = (await handle.describe()).raw_description
    past = datetime.now(UTC) - timedelta(hours=1)
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "update": lambda: handle.update(lambda given: ScheduleUpdate(given.description.schedule)),
        "trigger": handle.trigger,
        "backfill": lambda: handle.backfill(ScheduleBackfill(past, past)),
        "pause": handle.pause,
        "unpause": handle.unpause,
        "delete": handle.delete,
    }
    with pytest.raises(AuthorizationDenied) as denied:
        await asked[action]()
    assert f"schedule.{action}" in denied.value.message
    after = (await handle.describe()).raw_description
    assert after.schedule == before.schedule
    assert not after.info.recent_actions
    await s.plain.get_schedule_handle(handle.id).delete()


@pytest.mark.rule("operations.L3")
@pytest.mark.rule("schedules.Y1")
@pytest.mark.parametrize("kept", ["Once", "Other"])
async def test_an_update_is_asked_with_what_the_schedule_started_and_with_what_it_will_start(
    stage: Any, make: Make, kept: str
) -> None:
    s = await stage(
        PERMIT_ALL + '@id("no") forbid(principal, action == Action::"schedule.update", resource)'
        f' when {{ context.run.workflow_type == "{kept}" }};'
    )
    made = await make(s)

    def other(given: ScheduleUpdateInput) -> ScheduleUpdate:
        given.description.schedule.action.workflow = "Other"  # type: ignore[attr-defined]
        return ScheduleUpdate(given.description.schedule)

    with pytest.raises(AuthorizationDenied):
        await made.handle.update(other)
    described = (await made.handle.describe()).raw_description.schedule
    assert described.action.start_workflow.workflow_type.name == "Once"


async def test_an_update_that_pauses_is_asked_for_that_as_well(stage: Any, make: Make) -> None:
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"schedule.pause", resource);')
    made = await make(s)

    def pausing(given: ScheduleUpdateInput) -> ScheduleUpdate:
        given.description.schedule.state.paused = True
        return ScheduleUpdate(given.description.schedule)

    with pytest.raises(AuthorizationDenied):
        await made.handle.update(pausing)
    assert not (await made.handle.describe()).schedule.state.paused


async def test_a_schedule_that_is_not_there_is_missing_as_without_the_plugin(stage: Any) -> None:
    s = await stage()
    for client in (s.plain, s.client):
        handle = client.get_schedule_handle(unique("schedule"))
        for call in (handle.trigger, handle.pause, handle.delete):
            with pytest.raises(RPCError) as missing:
                await call()
            assert missing.value.status == RPCStatusCode.NOT_FOUND


async def test_a_header_that_user_code_gives_a_schedule_is_left_alone(stage: Any, make: Make) -> None:
    s = await stage()
    made = await make(s)
    async with s.worker(WORKFLOWS, ACTIVITIES):
        header = await copied(made)
    own = await make(s, action={"headers": header})
    assert (await own.grant()) == (await made.grant())


# What the audit says.


def audited(s: Stage, path: Path, text: str) -> list[str]:
    """The codes of what an audit finds in a history."""
    path.write_text(text)
    with Auditing(trust=s.state / "trust.jwks", sources=(str(s.state / "journal"),), converter=None, witnesses=0) as a:
        a.file(path, namespace="default")
        return [finding.code for finding in all_findings(a.report())]


async def test_the_audit_believes_a_run_of_the_schedule_and_no_other(stage: Any, make: Make, tmp_path: Path) -> None:
    s = await stage()
    async with s.worker(WORKFLOWS, ACTIVITIES):
        made = await make(s)
        run = await made.next_run()
        await run.result()
    text = (await run.fetch_history()).to_json()
    [event, *_] = (await run.fetch_history()).events
    marks = event.workflow_execution_started_event_attributes.search_attributes.indexed_fields
    due, by = marks["TemporalScheduledStartTime"].data, marks["TemporalScheduledById"].data

    def marked(before: bytes, after: bytes) -> str:
        old, new = (base64.b64encode(each).decode() for each in (before, after))
        assert old in text
        return text.replace(old, new)

    honest = audited(s, tmp_path / "a.json", text)
    changes = [
        marked(by, b'"another"'),
        marked(due, b'"2026-01-01T00:00:00Z"'),
        marked(due, b'"soon"'),
        marked(due, b'"2026-01-01T00:00:00"'),
        marked(due, b"{"),
        marked(by, b"7"),
    ]
    for change in changes:
        assert set(audited(s, tmp_path / "a.json", change)) - set(honest) == {"start-not-granted"}
    assert "start-not-granted" not in honest
    renamed = audited(s, tmp_path / "a.json", text.replace(run.id, run.id + "s"))
    assert "grant-invalid" in renamed
