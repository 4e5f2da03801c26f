"""``with exequatur.workflow.restricted(...)`` narrows what the code inside of it may ask for, and nothing else."""

import asyncio
import contextvars
import importlib
import json
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

import exequatur.workflow
from exequatur.audit.evidence import DecisionRecord
from exequatur.policy.bundle import PolicyBundle
from tests.gate.conftest import BOT, PERMIT_ALL, deeds, failure_of, happened, headed, sandbox, unique
from tests.gate.single import eventually

TIMEOUT = timedelta(seconds=60)
LIMIT = (
    '@id("limit") @reason("at most 100 here") forbid(principal, action == Action::"pay", resource) '
    "when { context.args.amount > 100 };"
)


@activity.defn
async def look(what: str) -> str:
    happened(f"look {what}")
    return what


@activity.defn
async def pay(amount: int) -> int:
    happened(f"pay {amount}")
    return amount


@activity.defn
async def work() -> str:
    happened("work")
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.02)


@activity.defn
async def grab(what: str) -> str:
    happened(f"grab {what}")
    return what


ACTIVITIES = [look, pay, work, grab]


def named(error: BaseException) -> str:
    """The type of what an activity failed with; a local one has no error around it."""
    cause = error if isinstance(error, ApplicationError) else error.__cause__
    return str(cause.type) if isinstance(cause, ApplicationError) else repr(error)


async def tried(name: str, arg: Any, *, local: bool = False) -> str:
    """Ask for an activity; gives what came of it."""
    run = workflow.execute_local_activity if local else workflow.execute_activity
    try:
        return str(await run(name, arg, start_to_close_timeout=TIMEOUT))
    except FailureError as err:
        return named(err)


@workflow.defn
class Narrows:
    """Asks for activities inside and outside of a restriction to one."""

    @workflow.run
    async def run(self, local: bool) -> list[str]:
        found = [await tried("pay", 1, local=local)]
        with exequatur.workflow.restricted(activities=["look", "x*"]):
            found += [await tried("pay", 2, local=local), await tried("look", "in", local=local)]
        return [*found, await tried("pay", 3, local=local)]


@pytest.mark.rule("A11")
@pytest.mark.parametrize("local", [False, True])
async def test_inside_of_a_restriction_only_the_listed_activities_run(stage, local):
    s = await stage()
    async with s.worker([Narrows], ACTIVITIES):
        handle = await s.start(Narrows.run, local)
        assert await handle.result() == ["1", "AuthorizationDenied", "in", "3"]
        history = await handle.fetch_history()
    assert deeds(handle.id) == ["pay 1", "look in", "pay 3"]
    denied = [each for each in s.receipts(handle) if each.decision == "deny"]
    assert [(each.activity_type, each.outcome) for each in denied] == [("pay", "denied")]
    assert "restricted to other activities: look, x*" in denied[0].reason
    await Replayer(workflows=[Narrows], plugins=[s.plugin], workflow_runner=sandbox()).replay_workflow(history)
    await Replayer(workflows=[Narrows], workflow_runner=sandbox()).replay_workflow(history)


async def test_the_decision_in_the_journal_holds_what_the_run_was_restricted_to(stage):
    s = await stage()
    async with s.worker([Narrows], ACTIVITIES):
        handle = await s.start(Narrows.run, True)
        await handle.result()
    decisions = [DecisionRecord.model_validate_json(record.body) for record in s.records("decision")]
    held = [each.restriction and each.restriction.activities for each in decisions]
    assert held == [None, ("look", "x*"), ("look", "x*"), None]
    assert [each.decision for each in decisions] == ["allow", "deny", "allow", "allow"]


@workflow.defn
class Limited:
    @workflow.run
    async def run(self, forbid: str, amounts: list[Any]) -> list[str]:
        with exequatur.workflow.restricted(forbid=forbid):
            found = [await tried("pay", amount) for amount in amounts]
        return [*found, await tried("pay", 1000)]


@pytest.mark.rule("A13")
async def test_a_forbid_counts_besides_the_policies_in_force_and_is_named(stage):
    s = await stage()
    async with s.worker([Limited], ACTIVITIES):
        handle = await s.start(Limited.run, LIMIT, [100, 101])
        assert await handle.result() == ["100", "AuthorizationDenied", "1000"]
    assert deeds(handle.id) == ["pay 100", "pay 1000"]
    [denied] = [each for each in s.receipts(handle) if each.decision == "deny"]
    assert denied.policies == ("restriction/limit",)
    assert "at most 100 here" in denied.reason
    allowed, refused, _ = [DecisionRecord.model_validate_json(record.body) for record in s.records("decision")]
    assert (allowed.restriction.forbid, refused.restriction.forbid) == ((LIMIT,), (LIMIT,))
    assert [json.loads(each.arguments) for each in (allowed, refused)] == [{"amount": 100}, {"amount": 101}]


@pytest.mark.rule("A13")
@pytest.mark.parametrize(
    ("forbid", "amount"),
    [
        (LIMIT, 2**70),
        ("forbid(principal, action, resource) when { context.args.amount > };", 1),
        ("forbid(principal == ?principal, action, resource);", 1),
        ('forbid(principal, action, resource) when { context.nothing == "x" };', 1),
    ],
    ids=["no such number", "no Cedar", "a template", "an error"],
)
async def test_a_forbid_that_cannot_be_asked_denies(stage, forbid, amount):
    s = await stage()
    async with s.worker([Limited], ACTIVITIES):
        handle = await s.start(Limited.run, forbid, [amount])
        assert await handle.result() == ["AuthorizationDenied", "1000"]
    assert deeds(handle.id) == ["pay 1000"]


@workflow.defn
class Works:
    @workflow.run
    async def run(self) -> str:
        with exequatur.workflow.restricted(
            forbid='@id("trainees") forbid(principal in Role::"trainee", action, resource);'
        ):
            try:
                return str(await workflow.execute_activity("work", start_to_close_timeout=TIMEOUT))
            except ActivityError as err:
                return named(err)


@pytest.mark.rule("A13")
async def test_what_a_restriction_forbids_from_now_on_ends_a_running_activity(stage):
    s = await stage()
    agent = {"uid": BOT.uid, "attrs": {}, "parents": [{"type": "Role", "id": "trainee"}]}
    role = {"uid": {"type": "Role", "id": "trainee"}, "attrs": {}, "parents": []}
    async with s.worker([Works], ACTIVITIES):
        handle = await s.start(Works.run)
        await eventually(lambda: deeds(handle.id))
        s.plugin.gate.put_in_force(PolicyBundle.from_parts(PERMIT_ALL, entities=[agent, role]))
        assert await handle.result() == "AuthorizationRevoked"
    [receipt] = s.receipts(handle)
    assert receipt.policies == ("restriction/trainees",)


async def test_where_the_gate_only_observes_a_restriction_is_recorded_and_stops_nothing(stage):
    s = await stage(mode="observe")
    async with s.worker([Narrows], ACTIVITIES):
        handle = await s.start(Narrows.run, False)
        assert await handle.result() == ["1", "2", "in", "3"]
    assert [(each.decision, each.enforced) for each in s.receipts(handle)][1] == ("deny", False)


@workflow.defn
class Nested:
    @workflow.run
    async def run(self) -> list[str]:
        found = []
        with exequatur.workflow.restricted(activities=["look", "pay"], forbid=LIMIT):
            with exequatur.workflow.restricted(activities=["pay", "grab"], forbid=LIMIT.replace("100", "10")):
                found += [await tried("look", "deep"), await tried("grab", "deep")]
                found += [await tried("pay", 11), await tried("pay", 10)]
            found += [await tried("look", "up"), await tried("pay", 11), await tried("pay", 101)]
        return found


@pytest.mark.rule("W11")
async def test_restrictions_in_one_another_add_up_and_end_one_by_one(stage):
    s = await stage()
    denied = "AuthorizationDenied"
    async with s.worker([Nested], ACTIVITIES):
        handle = await s.start(Nested.run)
        assert await handle.result() == [denied, denied, denied, "10", "up", "11", denied]
    assert deeds(handle.id) == ["pay 10", "look up", "pay 11"]


@workflow.defn
class Deep:
    """So many restrictions in one another that no statement can hold them."""

    @workflow.run
    async def run(self) -> str:
        texts = [LIMIT + " // " + str(number) * 800 for number in range(8)]
        with (
            exequatur.workflow.restricted(forbid=texts[0]),
            exequatur.workflow.restricted(forbid=texts[1]),
            exequatur.workflow.restricted(forbid=texts[2]),
            exequatur.workflow.restricted(forbid=texts[3]),
            exequatur.workflow.restricted(forbid=texts[4]),
            exequatur.workflow.restricted(forbid=texts[5]),
            exequatur.workflow.restricted(forbid=texts[6]),
        ):
            return str(await workflow.execute_activity("look", "x", start_to_close_timeout=TIMEOUT))


@pytest.mark.rule("X5")
async def test_restrictions_that_no_statement_can_hold_let_nothing_be_asked_for(stage):
    s = await stage()
    async with s.worker([Deep], ACTIVITIES):
        handle = await s.start(Deep.run)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "put fewer in one another" in failure.message
    assert deeds(handle.id) == []


@workflow.defn
class Expires:
    @workflow.run
    async def run(self, milliseconds: int) -> list[str]:
        with exequatur.workflow.restricted(expires_in=timedelta(milliseconds=milliseconds)):
            found = []
            if milliseconds > 1:
                found.append(await self.work())
            await asyncio.sleep(0.05)
            found.append(await tried("look", "late"))
        return [*found, await tried("look", "outside")]

    async def work(self) -> str:
        try:
            await workflow.execute_activity(
                "work", start_to_close_timeout=TIMEOUT, heartbeat_timeout=timedelta(seconds=10)
            )
        except ActivityError as err:
            return named(err)
        return "done"


@pytest.mark.rule("A12")
async def test_when_a_restriction_is_over_nothing_runs_inside_of_it(stage):
    s = await stage()
    async with s.worker([Expires], ACTIVITIES):
        handle = await s.start(Expires.run, 1)
        assert await handle.result() == ["AuthorizationDenied", "outside"]
    assert deeds(handle.id) == ["look outside"]
    [denied] = [each for each in s.receipts(handle) if each.decision == "deny"]
    assert "restricted to the time before" in denied.reason


@pytest.mark.rule("A12")
async def test_an_activity_that_runs_when_its_restriction_is_over_ends(stage):
    s = await stage()
    async with s.worker([Expires], ACTIVITIES):
        handle = await s.start(Expires.run, 500)
        assert await handle.result() == ["AuthorizationRevoked", "AuthorizationDenied", "outside"]
    assert deeds(handle.id) == ["work", "look outside"]


SANDBOXED = """
import asyncio
from datetime import timedelta
from temporalio import workflow
from temporalio.exceptions import ActivityError
import exequatur.workflow


async def tried(name, arg):
    try:
        return await workflow.execute_activity(name, arg, start_to_close_timeout=timedelta(seconds=20))
    except ActivityError as err:
        return err.cause.type


@workflow.defn
class Branches:
    @workflow.run
    async def run(self):
        entered, left = asyncio.Event(), asyncio.Event()

        async def restricted():
            with exequatur.workflow.restricted(activities=["look"]):
                made_inside = asyncio.create_task(later())
                entered.set()
                found = [await tried("pay", 1), await tried("look", "a")]
            left.set()
            return [*found, await tried("pay", 2), *await made_inside]

        async def later():
            await left.wait()
            return [await tried("pay", 3), await tried("look", "b")]

        async def free():
            await entered.wait()
            return [await tried("pay", 4)]

        first, second = await asyncio.gather(restricted(), free())
        return [*first, *second]
"""


@pytest.fixture
def sandboxed(tmp_path, monkeypatch) -> ModuleType:
    """A module of workflows that the sandbox imports anew for each run, as it does everybody's."""
    name = unique("sandboxed").replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SANDBOXED)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


async def test_branches_do_not_see_each_others_restriction_and_tasks_made_inside_keep_it(stage, sandboxed):
    s = await stage()
    denied = "AuthorizationDenied"
    async with s.worker([sandboxed.Branches], ACTIVITIES, workflow_runner=SandboxedWorkflowRunner()):
        handle = await s.start("Branches")
        assert await handle.result() == [denied, "a", 2, denied, "b", 4]
        history = await handle.fetch_history()
    assert sorted(deeds(handle.id)) == ["look a", "look b", "pay 2", "pay 4"]
    replayer = Replayer(workflows=[sandboxed.Branches], plugins=[s.plugin], workflow_runner=SandboxedWorkflowRunner())
    await replayer.replay_workflow(history)


async def test_without_a_grant_or_without_the_plugin_a_restriction_does_nothing(stage, sandboxed):
    s = await stage(allow_ungoverned=("Branches",))
    for client in (s.client, s.plain):
        queue = unique("queue")
        async with s.worker(
            [sandboxed.Branches], ACTIVITIES, client=client, queue=queue, workflow_runner=SandboxedWorkflowRunner()
        ):
            handle = await s.start("Branches", client=s.plain, task_queue=queue)
            assert await handle.result() == [1, "a", 2, 3, "b", 4]


@workflow.defn
class Misuses:
    """Gives arguments that cannot be meant."""

    @workflow.run
    async def run(self) -> int:
        restricted: Any = exequatur.workflow.restricted
        for wrong in (
            {},
            {"activities": "look"},
            {"activities": [""]},
            {"activities": [1]},
            {"activities": 7},
            {"activities": ["a" * 1001]},
            {"activities": [f"activity {number}" for number in range(1000)]},
            {"activities": ["\ud800"]},
            {"expires_in": timedelta()},
            {"expires_in": -timedelta(seconds=1)},
            {"expires_in": timedelta.max},
            {"expires_in": 5},
            {"forbid": ""},
            {"forbid": 5},
            {"forbid": "// nothing"},
            {"forbid": "permit(principal, action, resource);"},
            {"forbid": '@forbid("x") permit(principal, action, resource);'},
            {"forbid": LIMIT + PERMIT_ALL},
            {"forbid": "forbid(principal, action, resource)"},
            {"forbid": LIMIT * 20},
            {"forbid": LIMIT + "\ud800"},
        ):
            with pytest.raises(ValueError), restricted(**wrong):  # noqa: PT011
                raise AssertionError(wrong)
        block = restricted(activities=[], forbid='@id("a)") @x forbid(principal, action, resource); // c')
        with block, pytest.raises(ValueError, match="already in force"), block:
            pass
        with block:
            assert len(exequatur.workflow.restrictions()) == 1
        assert not exequatur.workflow.restrictions()
        return 1


async def test_arguments_that_cannot_be_meant_are_refused_where_they_are_given(stage):
    s = await stage()
    async with s.worker([Misuses], ACTIVITIES):
        assert await (await s.start(Misuses.run)).result() == 1


def test_a_restriction_outside_of_a_workflow_does_no_harm():
    with exequatur.workflow.restricted(expires_in=timedelta(seconds=1), forbid=LIMIT):
        [entry] = exequatur.workflow.restrictions()
    assert entry.until is None
    assert exequatur.workflow.restrictions() == ()


def test_a_generator_that_is_closed_elsewhere_frees_nobody():
    def inside() -> Any:
        with exequatur.workflow.restricted(activities=["look"]):
            yield

    generator = inside()
    context = contextvars.copy_context()
    context.run(next, generator)
    generator.close()
    assert len(context.run(exequatur.workflow.restrictions)) == 1


@workflow.defn
class Acts:
    @workflow.run
    async def run(self) -> list[str]:
        return [await tried("pay", 100), await tried("pay", 101)]


@pytest.mark.rule("A13")
async def test_what_a_grant_forbids_is_forbidden_whatever_the_policies_permit(stage):
    s = await stage()
    async with s.worker([Acts], ACTIVITIES):
        workflow_id = unique()
        grant = await s.grant("Acts", workflow_id, authorization={"forbid": (LIMIT,)})
        handle = await s.start_with(headed(grant), Acts.run, id=workflow_id)
        assert await handle.result() == ["100", "AuthorizationDenied"]
    assert deeds(workflow_id) == ["pay 100"]
