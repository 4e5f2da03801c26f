"""Child workflows hold no more than their parents, however deep and however they go on, and are used as always."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, is_cancelled_exception
from temporalio.worker import Replayer

import exequatur.workflow
from exequatur.audit.evidence import DecisionRecord
from exequatur.gate.wire import START_HEADER, payloads_digest, read_start_header, start_header
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Delegation, Seal, WorkflowAuthorization
from tests.gate.conftest import (
    PERMIT_ALL,
    Scheduling,
    deeds,
    failure_of,
    happened,
    headed,
    sandbox,
    start_headers,
    unique,
)
from tests.gate.single import eventually
from tests.gate.test_grants import reset_to_second_task

TIMEOUT = timedelta(seconds=60)
DENIED, REJECTED = "AuthorizationDenied", "GrantRejected"
LIMIT = '@id("limit") forbid(principal, action == Action::"pay", resource) when { context.args.amount > 100 };'
TIGHTER = LIMIT.replace("limit", "tighter").replace("100", "10")
SOON = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=50))


@activity.defn
async def look(what: str) -> str:
    happened(f"look {what}")
    return what


@activity.defn
async def pay(amount: int) -> int:
    happened(f"pay {amount}")
    return amount


@activity.defn
async def slow(what: str) -> str:
    happened(f"slow {what}")
    await asyncio.sleep(0.5)
    return what


ACTIVITIES = [look, pay, slow]


async def tried(name: str, arg: Any) -> str:
    """Ask for an activity; gives what came of it."""
    try:
        return str(await workflow.execute_activity(name, arg, start_to_close_timeout=TIMEOUT))
    except FailureError as err:
        return str(getattr(err.__cause__, "type", repr(err)))


@workflow.defn
class Family:
    """Tries everything, and has a child do the same as often as it is told, under a restriction of its own."""

    @workflow.run
    async def run(self, depth: int, restrictions: list[dict[str, Any]]) -> list[list[str]]:
        found = [[await tried("look", "x"), await tried("pay", 11), await tried("pay", 101)]]
        if depth:
            wanted, *rest = restrictions
            if seconds := wanted.pop("expires_in", None):
                wanted["expires_in"] = timedelta(seconds=seconds)
            child = f"{workflow.info().workflow_id}-{depth}"
            if wanted:
                with exequatur.workflow.restricted(**wanted):
                    found += await workflow.execute_child_workflow(Family.run, args=[depth - 1, rest], id=child)
            else:
                found += await workflow.execute_child_workflow(Family.run, args=[depth - 1, rest], id=child)
            found.append([await tried("pay", 102)])
        return found


async def delegations(s: Any, workflow_id: str) -> list[Delegation]:
    """Those that a run was started with, the outermost first."""
    tokens = read_start_header(await start_headers(s.client.get_workflow_handle(workflow_id))) or []
    return [parse(token, Delegation).claims for token in tokens if is_delegation(token)]


def is_delegation(token: str) -> bool:
    try:
        return bool(parse(token, Delegation))
    except Exception:
        return False


@pytest.mark.rule("W11")
async def test_a_child_and_its_own_children_are_held_to_what_they_were_started_under(stage):
    s = await stage()
    async with s.worker([Family], ACTIVITIES):
        handle = await s.start(Family.run, 3, [{"forbid": LIMIT}, {"activities": ["pay"], "forbid": TIGHTER}, {}])
        assert await handle.result() == [
            ["x", "11", "101"],
            ["x", "11", DENIED],
            ["GrantRejected", DENIED, DENIED],
            ["GrantRejected", DENIED, DENIED],
            [DENIED],
            [DENIED],
            ["102"],
        ]
        ids = [handle.id, f"{handle.id}-3", f"{handle.id}-3-2", f"{handle.id}-3-2-1"]
        held = [each.authorization for each in await delegations(s, ids[-1])]
        history = await s.client.get_workflow_handle(ids[1]).fetch_history()
    assert [deeds(each) for each in ids] == [["look x", "pay 11", "pay 101", "pay 102"], ["look x", "pay 11"], [], []]
    assert [each.forbid for each in held] == [(LIMIT,), (LIMIT, TIGHTER), (LIMIT, TIGHTER)]
    assert [each.activities for each in held] == [("*",), ("pay",), ("pay",)]
    replayer = Replayer(workflows=[Family], plugins=[s.plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(history)
    await Replayer(workflows=[Family], workflow_runner=sandbox()).replay_workflow(history)


@pytest.mark.rule("W11")
async def test_a_child_ends_when_the_restriction_that_it_was_started_under_does(stage):
    s = await stage()
    async with s.worker([Family], ACTIVITIES):
        handle = await s.start(Family.run, 2, [{"expires_in": 0.001}, {"expires_in": 3600}])
        assert await handle.result() == [["x", "11", "101"], [DENIED] * 3, [DENIED] * 3, [DENIED], ["102"]]
        first, second = await delegations(s, f"{handle.id}-2-1")
    assert first.authorization.until == second.authorization.until
    assert second.exp <= first.exp
    assert deeds(f"{handle.id}-2") == deeds(f"{handle.id}-2-1") == []


@workflow.defn
class Parent:
    """Starts a child on a task queue."""

    @workflow.run
    async def run(self, child_id: str, what: str, queue: str) -> str:
        return await workflow.execute_child_workflow(Child.run, args=[what], id=child_id, task_queue=queue)


@workflow.defn
class Child:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(look, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class OtherChild:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(look, what, start_to_close_timeout=TIMEOUT)


def asked_forbid(kind: str) -> str:
    return f'@id("none") forbid(principal, action == Action::"workflow.child", resource) when {{ {kind} }};'


@pytest.mark.rule("A14")
@pytest.mark.parametrize("permitted", [True, False])
async def test_a_child_acts_only_where_cedar_allows_children(stage, permitted):
    s = await stage(PERMIT_ALL + ("" if permitted else asked_forbid('context.run.workflow_type == "Child"')))
    async with s.worker([Parent, Child], ACTIVITIES):
        child_id = unique("child")
        handle = await s.start(Parent.run, child_id, "x", s.queue)
        if permitted:
            assert await handle.result() == "x"
        else:
            failure = await failure_of(handle)
            assert failure.type == DENIED
            assert "workflow.child" in failure.message
            assert "none" in failure.message
            [record] = s.records("decision")
            assert DecisionRecord.model_validate_json(record.body).question == "workflow.child"
    assert deeds(child_id) == (["look x"] if permitted else [])


async def test_a_child_under_a_grant_of_an_earlier_version_is_not_asked_about(stage):
    s = await stage(PERMIT_ALL + asked_forbid("true"))
    async with s.worker([Parent, Child], ACTIVITIES):
        workflow_id, child_id = unique(), unique("child")
        grant = await s.grant("Parent", workflow_id, child_id, "x", s.queue, ver=1)
        handle = await s.start_with(headed(grant), Parent.run, child_id, "x", s.queue, id=workflow_id)
        assert await handle.result() == "x"
    assert deeds(child_id) == ["look x"]


@pytest.mark.rule("A13")
async def test_a_run_may_forbid_that_what_it_starts_acts(stage):
    s = await stage()
    async with s.worker([Family], ACTIVITIES):
        forbid = 'forbid(principal, action == Action::"workflow.child", resource);'
        handle = await s.start(Family.run, 1, [{"forbid": forbid}])
        assert await handle.result() == [["x", "11", "101"], [DENIED] * 3, ["102"]]
    assert deeds(f"{handle.id}-1") == []


# A parent whose worker cheats: each delegation is signed with a good key and says one wrong thing.


def delegation(s: Any, before: Token[Any], child: Any, run_id: str, **changes: Any) -> Token[Delegation]:
    """What an honest worker signs for a child, but for the changes; those with an underscore are to what it holds."""
    held = before.claims.authorization
    details = {
        "workflow_type": child.workflow,
        "workflow_id": child.id,
        "task_queue": child.task_queue,
        "activities": held.activities,
        "input": payloads_digest(workflow.payload_converter().to_payloads(child.args)),
        "reuse": "once",
        "forbid": held.forbid,
        "until": held.until,
        "child": True,
    } | {name[1:]: value for name, value in changes.items() if name.startswith("_")}
    workload = s.plugin.gate.workload
    claims = {
        "iss": workload.id,
        "aud": before.claims.aud,
        "iat": round(workflow.time(), 3),
        "exp": before.claims.exp,
        "jti": digest(str(workflow.uuid4())),
        "parent": before.digest,
        "parent_run_id": run_id,
        "depth": 1,
        "authorization_details": (WorkflowAuthorization(**details),),
    } | {name: value for name, value in changes.items() if not name.startswith("_")}
    return workload.sign(Delegation(**claims))


async def cheat(s: Any, tamper: Callable[[Any, Token[Any]], list[str]], child_id: str, **authorization: Any) -> Any:
    """Start a parent on a worker that gives its child these tokens, and the child on an honest one."""
    parent_id = unique()
    queue = unique("queue")
    grant = await s.grant("Parent", parent_id, child_id, "x", queue, authorization=authorization)

    def give(child: Any) -> None:
        child.headers = {**child.headers, START_HEADER: start_header(tamper(child, grant))}

    async with (
        s.worker([Child, OtherChild], ACTIVITIES, queue=queue),
        s.worker([Parent], client=s.plain, interceptors=[Scheduling(child=give)]),
    ):
        handle = await s.start_with(headed(grant), Parent.run, child_id, "x", queue, id=parent_id)
        return await failure_of(handle)


CHEATS: dict[str, tuple[str, dict[str, Any]]] = {
    "more activities": ("D4", {"_activities": ("*",)}),
    "a later end": ("D5", {"exp": 4_000_000_000.0}),
    "without what is forbidden": ("D7", {"_forbid": ()}),
    "with another forbid in its place": ("D7", {"_forbid": (LIMIT.replace("100", "1000"),)}),
    "without the restriction's end": ("D8", {"_until": None}),
    "after the restriction's end": ("D8", {"_until": 4_000_000_000.0}),
    "at another depth": ("D3", {"depth": 2}),
    "under another parent": ("D2", {"parent": digest("another grant")}),
    "for another place": ("D6", {"aud": "exequatur.local/default/other"}),
    "for another workflow": ("R7", {"_workflow_id": "another"}),
    "for another type": ("R7", {"_workflow_type": "OtherChild"}),
    "for another input": ("R14", {"_input": digest("another")}),
}


@pytest.mark.parametrize(("rule", "changes"), CHEATS.values(), ids=CHEATS)
async def test_a_child_with_a_delegation_that_says_too_much_or_something_else_does_nothing(stage, rule, changes):
    s = await stage()
    child_id = unique("child")

    def tamper(child: Any, grant: Token[Any]) -> list[str]:
        signed = delegation(s, grant, child, workflow.info().run_id, **changes)
        return [grant.text, s.plugin.gate.workload.credential.text, signed.text]

    held = {"activities": ("look", "pay"), "forbid": (LIMIT,), "until": 3_000_000_000.0}
    failure = await cheat(s, tamper, child_id, **held)
    assert failure.type == REJECTED
    assert f"[{rule}]" in failure.message
    assert deeds(child_id) == []


async def test_a_delegation_whose_claims_were_edited_does_nothing(stage):
    s = await stage()
    child_id = unique("child")

    def tamper(child: Any, grant: Token[Any]) -> list[str]:
        honest = delegation(s, grant, child, workflow.info().run_id)
        wider = delegation(s, grant, child, workflow.info().run_id, _forbid=())
        header, _, signature = honest.text.split(".")
        edited = ".".join([header, wider.text.split(".")[1], signature])
        return [grant.text, s.plugin.gate.workload.credential.text, edited]

    failure = await cheat(s, tamper, child_id, forbid=(LIMIT,))
    assert failure.type == REJECTED
    assert "[V7]" in failure.message
    assert deeds(child_id) == []


@pytest.mark.parametrize(("rule", "kept"), [("D2", (1,)), ("D2", (1, 0)), ("D2", (0, 0))], ids=str)
async def test_a_chain_with_a_link_that_is_missing_or_in_another_place_does_nothing(stage, rule, kept):
    s = await stage()
    child_id = unique("child")

    def tamper(child: Any, grant: Token[Any]) -> list[str]:
        first = delegation(s, grant, child, "run", _forbid=(LIMIT,))
        second = delegation(s, first, child, "run", depth=len(kept))
        links = [(first, second)[index].text for index in kept]
        return [grant.text, s.plugin.gate.workload.credential.text, *links]

    failure = await cheat(s, tamper, child_id)
    assert failure.type == REJECTED
    assert f"[{rule}]" in failure.message
    assert deeds(child_id) == []


async def test_the_delegation_of_a_sibling_does_nothing_for_another_child(stage):
    s = await stage()
    child_id = unique("child")

    def tamper(child: Any, grant: Token[Any]) -> list[str]:
        sibling = delegation(s, grant, child, workflow.info().run_id, _workflow_id="sibling")
        return [grant.text, s.plugin.gate.workload.credential.text, sibling.text]

    failure = await cheat(s, tamper, child_id)
    assert failure.type == REJECTED
    assert "sibling" in failure.message
    assert deeds(child_id) == []


# As they are used.


@workflow.defn
class Uses:
    """Child workflows with the options that people give them."""

    @workflow.run
    async def run(self, how: str) -> Any:
        if how == "no id":
            handle = await workflow.start_child_workflow(Child.run, "x")
            return [str(uuid.UUID(handle.id)), await handle]
        if how == "cancel":
            running = await workflow.start_child_workflow(
                Waits.run, id=f"{workflow.info().workflow_id}-child", cancellation_type=CANCEL
            )
            running.cancel()
            try:
                await running
            except ChildWorkflowError as err:
                return is_cancelled_exception(err)
            return False
        try:
            return await workflow.execute_child_workflow(Fails.run, static_summary="a child", memo={"a": 1})
        except ChildWorkflowError as err:
            return [type(err.cause).__name__, str(err.cause)]


CANCEL = workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
ABANDON = workflow.ParentClosePolicy.ABANDON


@workflow.defn
class Waits:
    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(3600)


@workflow.defn
class Fails:
    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("as told", non_retryable=True)


async def used(stage: Any, how: str) -> tuple[Any, Any]:
    s = await stage()
    async with s.worker([Uses, Child, Waits, Fails], ACTIVITIES):
        handle = await s.start(Uses.run, how)
        return s, [handle.id, await handle.result()]


async def test_a_child_without_an_id_gets_one_and_acts(stage):
    _, (_, (child_id, what)) = await used(stage, "no id")
    assert what == "x"
    assert deeds(child_id) == ["look x"]


async def test_a_child_is_cancelled_as_without_the_plugin(stage):
    s, (workflow_id, cancelled) = await used(stage, "cancel")
    assert cancelled is True
    described = await s.client.get_workflow_handle(f"{workflow_id}-child").describe()
    assert described.status == WorkflowExecutionStatus.CANCELED


async def test_the_failure_of_a_child_is_seen_as_without_the_plugin(stage):
    _, (_, found) = await used(stage, "fail")
    assert found == ["ApplicationError", "as told"]


@workflow.defn
class Leaves:
    """Leaves a child behind that acts after it."""

    @workflow.run
    async def run(self) -> str:
        child = f"{workflow.info().workflow_id}-child"
        await workflow.start_child_workflow(Sleeps.run, id=child, parent_close_policy=ABANDON)
        return child


@workflow.defn
class Sleeps:
    @workflow.run
    async def run(self) -> str:
        await asyncio.sleep(0.3)
        return await tried("look", "after")


async def test_a_child_that_its_parent_leaves_behind_goes_on(stage):
    s = await stage()
    async with s.worker([Leaves, Sleeps], ACTIVITIES):
        child_id = await (await s.start(Leaves.run)).result()
        assert await s.client.get_workflow_handle(child_id).result() == "after"
    assert deeds(child_id) == ["look after"]


# How runs go on.


@workflow.defn
class GoesOn:
    """Acts in each run, and goes on as it is told; it tries something else wherever it is."""

    @workflow.run
    async def run(self, how: str, left: int) -> str:
        info = workflow.info()
        found = await tried("look", f"{how} {left} attempt {info.attempt}"), await tried("pay", 11)
        if how == "retry" and info.attempt == 1:
            raise ApplicationError("again")
        if how in ("continue", "change") and left:
            with exequatur.workflow.restricted(forbid=TIGHTER):
                if how == "change":
                    workflow.continue_as_new(args=[left - 1], workflow=Changed.run)
                workflow.continue_as_new(args=[how, left - 1])
        return found[1]


@workflow.defn
class Changed:
    @workflow.run
    async def run(self, left: int) -> str:
        return await tried("pay", 11)


@workflow.defn
class HasOne:
    """Has a child that goes on as it is told, under a restriction."""

    @workflow.run
    async def run(self, how: str, left: int) -> Any:
        options: dict[str, Any] = {"retry_policy": SOON} if how == "retry" else {}
        if how == "cron":
            options["cron_schedule"] = "@every 1s"
        with exequatur.workflow.restricted(forbid=LIMIT):
            child = await workflow.start_child_workflow(
                GoesOn.run, args=[how, left], id=f"{workflow.info().workflow_id}-child", **options
            )
        return await child


GOING_ON = [GoesOn, Changed, HasOne, Family]
ALLOWING = {"continues_as": {"GoesOn": ("Changed",)}}


@pytest.mark.rule("W10")
async def test_the_runs_that_continue_a_restricted_one_are_held_to_it_for_good(stage):
    s = await stage()
    async with s.worker(GOING_ON, ACTIVITIES):
        handle = await s.start(GoesOn.run, "continue", 2)
        assert await handle.result() == DENIED
        last = s.client.get_workflow_handle(handle.id)
        seal = parse((read_start_header(await start_headers(last)) or [])[-1], Seal).claims
        history = await last.fetch_history()
    assert deeds(handle.id) == [
        "look continue 2 attempt 1",
        "pay 11",
        "look continue 1 attempt 1",
        "look continue 0 attempt 1",
    ]
    assert seal.next is not None
    assert seal.next.restriction is not None
    assert seal.next.restriction.forbid == (TIGHTER,)
    await Replayer(workflows=GOING_ON, plugins=[s.plugin], workflow_runner=sandbox()).replay_workflow(history)


@pytest.mark.rule("W10")
async def test_a_run_that_continues_a_restricted_one_as_another_type_is_held_to_it(stage):
    s = await stage(**ALLOWING)
    async with s.worker(GOING_ON, ACTIVITIES):
        handle = await s.start(GoesOn.run, "change", 1)
        assert await handle.result() == DENIED
    assert deeds(handle.id) == ["look change 1 attempt 1", "pay 11"]


@pytest.mark.parametrize("how", ["retry", "continue"])
async def test_a_child_goes_on_under_its_delegation(stage, how):
    s = await stage()
    async with s.worker(GOING_ON, ACTIVITIES):
        handle = await s.start(HasOne.run, how, 1)
        assert await handle.result() == ("11" if how == "retry" else DENIED)
        [held] = await delegations(s, f"{handle.id}-child")
    assert held.authorization.forbid == (LIMIT,)
    twice = ["look retry 1 attempt 1", "pay 11", "look retry 1 attempt 2", "pay 11"]
    once = ["look continue 1 attempt 1", "pay 11", "look continue 0 attempt 1"]
    assert deeds(f"{handle.id}-child") == (twice if how == "retry" else once)


async def test_a_cron_child_goes_on_under_its_delegation(stage):
    s = await stage()
    async with s.worker(GOING_ON, ACTIVITIES):
        handle = await s.start(HasOne.run, "cron", 0)
        await eventually(lambda: len(deeds(f"{handle.id}-child")) >= 4)
        await s.plain.get_workflow_handle(handle.id).terminate()
    assert deeds(f"{handle.id}-child")[:4] == ["look cron 0 attempt 1", "pay 11"] * 2


async def test_a_continued_run_that_is_reset_is_still_held_to_what_it_was_handed(stage):
    s = await stage()
    async with s.worker([GoesOn], ACTIVITIES):
        handle = await s.start(GoesOn.run, "continue", 1)
        assert await handle.result() == DENIED
        last = await s.client.get_workflow_handle(handle.id).describe()
        done = deeds(handle.id)
        again = await reset_to_second_task(s.plain, handle.id, last.run_id)
        assert await s.client.get_workflow_handle(handle.id, run_id=again).result() == DENIED
    assert deeds(handle.id) == done


@pytest.mark.rule("A8")
@pytest.mark.parametrize("permitted", [True, False])
async def test_what_a_child_asked_for_before_it_was_reset_runs_again_only_if_cedar_allows_the_reset(stage, permitted):
    forbid = '@id("no-reset") forbid(principal, action == Action::"workflow.reset", resource);'
    s = await stage(PERMIT_ALL + ("" if permitted else forbid))
    async with s.worker([Keeps, Nudged], ACTIVITIES):
        handle = await s.start(Keeps.run)
        child = s.client.get_workflow_handle(f"{handle.id}-child")
        await eventually(lambda: deeds(child.id))
        await child.signal(Nudged.nudge)
        assert await handle.result() == "first"
        first = await child.describe()
        again = await reset_to_second_task(s.plain, child.id, first.run_id)
        second = await s.client.get_workflow_handle(child.id, run_id=again).result()
    assert second == ("first" if permitted else DENIED)
    assert deeds(child.id) == ["slow first"] * (2 if permitted else 1)


@workflow.defn
class Keeps:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_child_workflow(Nudged.run, id=f"{workflow.info().workflow_id}-child")


@workflow.defn
class Nudged:
    """Its activity is under way when a signal ends its first workflow task, so that a reset does it again."""

    def __init__(self) -> None:
        self.nudged = False

    @workflow.run
    async def run(self) -> str:
        handle = asyncio.create_task(tried("slow", "first"))
        await workflow.wait_condition(lambda: self.nudged)
        return await handle

    @workflow.signal
    def nudge(self) -> None:
        self.nudged = True


async def test_delegations_go_no_deeper_than_configured_whatever_they_restrict(stage):
    s = await stage(max_delegation_depth=1)
    async with s.worker([Family], ACTIVITIES):
        handle = await s.start(Family.run, 2, [{"forbid": LIMIT}, {}])
        assert await handle.result() == [
            ["x", "11", "101"],
            ["x", "11", DENIED],
            [REJECTED] * 3,
            [DENIED],
            ["102"],
        ]
    assert deeds(f"{handle.id}-2-1") == []


@workflow.defn
class Twin:
    """Tries an activity, and has a child try the same; goes on as new first if it is told to."""

    @workflow.run
    async def run(self, what: str, child: bool, again: bool) -> list[str]:
        if again:
            workflow.continue_as_new(args=[what, child, False])
        own = [await tried("look", what)]
        if child:
            args = [what, False, False]
            own += await workflow.execute_child_workflow(Twin.run, args=args, id=f"{workflow.info().workflow_id}-child")
        return own


@pytest.mark.rule("W12")
@pytest.mark.parametrize("again", [False, True], ids=["itself", "the run that continues it"])
async def test_a_run_whose_start_is_not_covered_covers_no_child_and_no_run_that_continues_it(stage, again):
    s = await stage()
    id = unique()
    copied = headed(await s.grant("Twin", id, "good", True, again))
    async with s.worker([Twin], ACTIVITIES):
        thief = await s.start_with(copied, Twin.run, "evil", True, again, id=id)
        assert await thief.result() == [REJECTED, REJECTED]
    assert deeds(id) == deeds(f"{id}-child") == []


@pytest.mark.rule("F5")
async def test_another_execution_of_a_grant_does_not_act_through_its_children(stage):
    s = await stage()
    async with s.worker([Twin], ACTIVITIES):
        handle = await s.start(Twin.run, "x", True, False)
        assert await handle.result() == ["x", "x"]
        copy = await s.start_with(await start_headers(handle), Twin.run, "x", True, False, id=handle.id)
        assert await copy.result() == [REJECTED, REJECTED]
    assert deeds(handle.id) == deeds(f"{handle.id}-child") == ["look x"]
