"""The demo's sandboxes on a real server: what a visitor does there, and what nobody can."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment

from exequatur.console.sandbox import checking
from exequatur.console.sandbox.application import Input, application_of, read_inputs
from exequatur.console.sandbox.checking import check
from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.policies import Policies
from exequatur.console.sandbox.run import Run
from exequatur.console.sandbox.sandbox import Sandbox
from exequatur.console.sandbox.sandboxes import Sandboxes
from exequatur.errors import ConfigurationError
from exequatur.identity.acting import acting_as
from workflows.console_demo import DEMO

LIMITS = Limits(check_seconds=120)
ADA, BEN = "a" * 43, "b" * 43
"""The secrets of two visitors."""


class World:
    """Sandboxes with a clock that a test moves."""

    def __init__(self, client: Client, limits: Limits = LIMITS) -> None:
        self.client = client
        self.ahead = 0.0
        self.sandboxes = Sandboxes(DEMO, self.connect, limits, clock=lambda: time.monotonic() + self.ahead)

    async def connect(self) -> Client:
        return self.client


@pytest_asyncio.fixture(scope="module")
async def world(server: WorkflowEnvironment) -> AsyncIterator[World]:
    made = World(server.client)
    try:
        yield made
    finally:
        await made.sandboxes.aclose()


@pytest_asyncio.fixture(scope="module")
async def sandbox(world: World) -> Sandbox:
    return await world.sandboxes.enter(ADA)


async def until(what: Callable[[], Any], within: float = 120.0) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


async def ended(run: Run) -> Run:
    await until(lambda: not run.open)
    return run


async def ran(sandbox: Sandbox, **inputs: str) -> Run:
    return await ended(await sandbox.start(inputs))


def facts(sandbox: Sandbox) -> dict[str, str]:
    return {each["label"]: each["value"] for each in sandbox.view()["facts"]}


async def test_each_step_shows_the_gates_decision_the_policies_the_digest_and_the_receipt(sandbox: Sandbox) -> None:
    run = await ran(sandbox, activity="complaint", amount="12.50")
    await until(lambda: all(step.receipts for step in run.view.steps))

    assert run.view.start is not None
    assert run.view.start.policies == ("starts-operations",)
    assert [step.state for step in run.view.steps] == ["done", "done", "denied"]
    assert [step.decisions[0].policies for step in run.view.steps] == [
        ("exports-by-operations",),
        ("refunds-by-operations",),
        ("deletions-by-people",),
    ]
    assert "decided by a person" in run.view.steps[2].sentence
    assert run.view.state == "stopped"
    assert all(len(step.decisions[0].arguments or "") == 43 for step in run.view.steps)
    assert [step.receipts[0].outcome for step in run.view.steps] == ["completed", "completed", "denied"]
    await until(lambda: facts(sandbox)["Refunds paid"] == "12.50 of o-1001")
    assert "Ada Okafor" in facts(sandbox)["Customers"]


async def test_a_run_without_a_grant_is_shown_as_not_started(sandbox: Sandbox) -> None:
    run = await sandbox.start({"activity": "refund", "principal": "stray"})

    assert run.view.state == "refused"
    assert "may not start OperationsAgent" in run.view.sentence
    assert [step.state for step in run.view.steps] == ["skipped"]
    with pytest.raises(SandboxError, match="never started"):
        sandbox.events(run.number)


async def test_a_run_waits_for_people_and_goes_on_when_they_agree(sandbox: Sandbox) -> None:
    run = await sandbox.start({"activity": "refund", "customer": "c-3", "amount": "700.00"})
    await until(lambda: run.view.state == "waiting")

    await sandbox.answer(run.number, agree=True)
    await ended(run)

    [step] = run.view.steps
    assert run.view.state == "completed"
    assert [each.decision for each in step.decisions] == ["deny", "allow"]
    assert step.decisions[1].approvers == ('User::"fay"',)
    with pytest.raises(SandboxError, match="does not wait"):
        await sandbox.answer(run.number, agree=True)


async def test_an_edited_policy_decides_the_same_inputs_otherwise_and_a_broken_one_changes_nothing(
    sandbox: Sandbox,
) -> None:
    text = sandbox.editing.policies.policies["refunds.cedar"]
    before = await ran(sandbox, activity="refund", amount="30.00")
    lowered = await sandbox.apply({"refunds.cedar": text.replace('Than(decimal("5000.00"))', 'Than(decimal("20.00"))')})
    after = await ran(sandbox, activity="refund", amount="30.00")
    broken = await sandbox.apply({"refunds.cedar": text.replace("permit (", "permit ((")})
    still = await ran(sandbox, activity="refund", amount="30.00")
    difference = sandbox.editing.texts()["difference"]
    await sandbox.restore()
    restored = await ran(sandbox, activity="refund", amount="30.00")

    assert lowered.good
    assert [run.view.state for run in (before, after, still, restored)] == [
        "completed",
        "stopped",
        "stopped",
        "completed",
    ]
    assert after.view.steps[0].decisions[0].policies == ("refunds-limit",)
    assert '+when { context.args.refund.amount.greaterThan(decimal("20.00")) };' in difference
    error = broken.problems[0]
    assert not broken.good
    assert (error.severity, error.file, error.line, error.column) == ("error", "refunds.cedar", 4, 9)
    assert "permit (principal, action, resource)" in error.fix
    assert sandbox.editing.texts()["difference"] == ""


async def test_a_running_step_ends_when_its_run_is_revoked(sandbox: Sandbox) -> None:
    run = await sandbox.start({"activity": "migrate", "batch": "10"})
    await until(lambda: facts(sandbox)["Entries migrated"] != "0 of 2,000")

    await sandbox.revoke(run.number)
    await ended(run)
    stopped = facts(sandbox)["Entries migrated"]

    assert run.view.steps[0].state == "revoked"
    assert stopped != "2,000 of 2,000"
    with pytest.raises(SandboxError, match="has ended already"):
        await sandbox.revoke(run.number)


async def test_what_one_visitor_does_is_nothing_to_another(world: World, sandbox: Sandbox) -> None:
    other = await world.sandboxes.enter(BEN)
    text = other.editing.policies.policies["refunds.cedar"]
    await other.apply({"refunds.cedar": text.replace('Than(decimal("5000.00"))', 'Than(decimal("20.00"))')})

    denied = await ran(other, activity="refund", amount="30.00")
    allowed = await ran(sandbox, activity="refund", amount="30.00")

    assert denied.view.state == "stopped"
    assert allowed.view.state == "completed"
    assert facts(other)["Refunds paid"] == "none"
    assert len(other.runs) == 1
    assert not denied.workflow_id.startswith(sandbox.name)
    assert world.sandboxes.find("c" * 43) is None


@pytest.mark.rule("sandbox.B2", "worker.O1")
async def test_a_grant_of_one_sandbox_is_worth_nothing_in_another(world: World, sandbox: Sandbox) -> None:
    other = await world.sandboxes.enter(BEN)
    plan = DEMO.plan(read_inputs(DEMO, {"activity": "refund"}))
    with acting_as(plan.principal):
        handle = await other.worker.client.start_workflow(
            plan.workflow, plan.argument, id=f"{other.name}-stray", task_queue=sandbox.name
        )
    history = []
    try:
        while not any(event.HasField("workflow_task_failed_event_attributes") for event in history):
            history = list((await world.client.get_workflow_handle(handle.id).fetch_history()).events)
            assert not any(event.HasField("activity_task_scheduled_event_attributes") for event in history)
            await asyncio.sleep(0.05)
    finally:
        await world.client.get_workflow_handle(handle.id).terminate()

    assert sandbox.name != other.name
    assert len(sandbox.name) >= 20


@pytest.mark.rule("worker.O2")
async def test_what_configures_this_process_configures_no_sandbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXEQUATUR_MODE", "observe")
    other = await world.sandboxes.enter("c" * 43)
    run = await ran(other, activity="delete")
    await world.sandboxes.close("c" * 43)

    assert run.view.steps[0].state == "denied"


# What visitors ask for.


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"amount": "1e9"}, "amount"),
        ({"amount": "1e999"}, "amount"),
        ({"amount": "-1e999999999999"}, "amount"),
        ({"amount": "sNaN"}, "amount"),
        ({"amount": "🪙"}, "amount"),
        ({"amount": "-100000.01"}, "amount"),
        ({"amount": "1" * 1_000_000}, "amount"),
        ({"amount": "42.505"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "Infinity"}, "amount"),
        ({"amount": "٤٢"}, "amount"),
        ({"amount": "1_000"}, "amount"),
        ({"amount": "9" * 100_000}, "amount"),
        ({"amount": 42.5}, "amount"),
        ({"amount": ["42.50"]}, "amount"),
        ({"amount": "42.50\u202e"}, "amount"),
        ({"customer": "c-9"}, "customer"),
        ({"customer": None}, "customer"),
        ({"activity": "migrate", "batch": "4"}, "batch"),
        ({"activity": "migrate", "batch": "1e3"}, "batch"),
        ({"activity": "../../etc/passwd"}, "activity"),
        ({"else": "1"}, None),
        ([], None),
        (None, None),
        ("amount", None),
    ],
)
def test_an_input_that_is_none_of_those_it_can_be_is_refused_by_name(inputs: object, field: str | None) -> None:
    with pytest.raises(SandboxError) as refused:
        read_inputs(DEMO, inputs)

    assert refused.value.why == "input"
    assert refused.value.field == field
    assert len(str(refused.value)) < 200


def test_an_input_that_was_not_asked_for_has_its_default() -> None:
    assert read_inputs(DEMO, {"activity": "migrate", "amount": "nonsense"})["amount"] == Decimal("42.50")
    assert Input("note", "Note", "text", "", most=5).read(" hi ") == "hi"


@pytest.mark.parametrize("reference", ["nowhere.at.all:DEMO", "workflows.console_demo:NONE", "json:loads", "a:b"])
def test_a_demo_that_is_no_application_is_refused_when_the_console_starts(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="--demo"):
        application_of(reference)


def test_the_reference_agent_is_an_application_whose_every_input_can_be_planned() -> None:
    assert application_of("workflows.console_demo:DEMO") is DEMO
    for example in DEMO.examples:
        assert DEMO.plan(read_inputs(DEMO, example.values)).steps
    texts = {each.name: each.text for each in map(_named, DEMO.policies.glob("*.cedar"))}
    assert set(DEMO.files) <= texts.keys()
    assert all(old in texts[edit.file] for edit in DEMO.edits for old, _ in edit.changes)


def _named(path: Any) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(name=path.name, text=path.read_text())


async def test_every_example_edit_is_found_good_or_shows_what_is_wrong() -> None:
    original = Policies.read(DEMO.policies)

    async def judged(number: int) -> tuple[str, bool, set[str]]:
        edit = DEMO.edits[number]
        text = original.policies[edit.file]
        for old, new in edit.changes:
            text = text.replace(old, new)
        edited = original.edited({edit.file: text})
        checked = await check(edited.policies, edited.schema, edited.entities, LIMITS)
        return edit.label, checked.good, {each.severity for each in checked.problems}

    found = [await judged(number) for number in range(len(DEMO.edits))]

    # What merely follows from an error, as that nothing is permitted any more, is not told besides.
    assert [(label, told) for label, good, told in found if not good] == [("Break it: one bracket too many", {"error"})]


@pytest.mark.rule("editing.I2")
async def test_one_edit_is_looked_at_at_a_time(sandbox: Sandbox) -> None:
    text = sandbox.editing.policies.policies["refunds.cedar"]
    found = await asyncio.gather(*(sandbox.check({"refunds.cedar": text}) for _ in range(3)), return_exceptions=True)

    assert [isinstance(each, SandboxError) for each in found] == [False, True, True]


# Hostile policies.


@pytest.mark.rule("checking.X1")
async def test_a_policy_of_megabytes_is_refused_before_anything_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_MODULE", "exequatur.nothing_that_could_run")
    found = await check({"a.cedar": "permit(principal, action, resource);\n" * 100_000}, None, None, LIMITS)

    assert not found.good
    assert "24 KiB" in found.problems[0].message


@pytest.mark.parametrize(
    "text",
    [
        "permit(principal, action, resource) when { " + "(" * 9000 + "true" + ")" * 9000 + " };",
        "permit(principal, action, resource) when { " + "!" * 9000 + "true };",
        "permit(principal, action, resource) when { " + "if true then " * 900 + "true" + " else false" * 900 + " };",
        "\x00" * 20_000,
        "\ud800",
        '@id("\u202e")',
        "",
    ],
    ids=["brackets", "nots", "ifs", "zeros", "surrogate", "direction", "nothing"],
)
async def test_a_policy_that_would_overflow_cedar_is_refused_with_a_place(text: str) -> None:
    found = await check({"a.cedar": text}, None, None, LIMITS)

    assert not found.good or not text
    assert all(each.line >= 1 and each.column >= 1 for each in found.problems)
    json.dumps([each.message for each in found.problems])


@pytest.mark.rule("checking.X2")
async def test_a_check_that_takes_too_long_is_a_refusal_and_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_MODULE", "tests.console.stalling")
    begun = time.monotonic()
    found = await asyncio.wait_for(check({"a.cedar": ""}, None, None, replace(LIMITS, check_seconds=0.5)), 20)

    assert not found.good
    assert "takes too long" in found.problems[0].message
    assert time.monotonic() - begun < 20


@pytest.mark.rule("checking.X3")
@pytest.mark.parametrize("module", ["exequatur.nothing_that_could_run", "this", "tests.console.dying"])
async def test_a_check_whose_process_dies_or_says_something_else_lets_nothing_through(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(checking, "_MODULE", module)
    found = await check({"a.cedar": "permit(principal, action, resource);"}, None, None, LIMITS)

    assert not found.good
    assert found.digest is None
    assert found.problems[0].severity == "error"


@pytest.mark.rule("editing.I1")
@pytest.mark.parametrize(
    "texts",
    [{}, None, [], "x", {"schema.cedarschema": ""}, {"../x.cedar": ""}, {"refunds.cedar": 5}, {"console.cedar": ""}]
    + [{name: ""} for name in ("/etc/x.cedar", "C:\\x.cedar", "refunds.cedar\0", "./refunds.cedar", "CON", "")],
)
async def test_an_edit_of_anything_but_the_policies_is_refused(sandbox: Sandbox, texts: object) -> None:
    with pytest.raises(SandboxError):
        await sandbox.apply(texts)


@pytest.mark.rule("editing.I3")
async def test_policies_that_the_worker_does_not_take_are_taken_back(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = sandbox.editing.policies
    monkeypatch.setattr("exequatur.console.sandbox.editing._IN_FORCE_WITHIN", 0.0)
    text = good.policies["refunds.cedar"]
    with pytest.raises(SandboxError, match="stay in force"):
        await sandbox.apply({"refunds.cedar": text + "\n// another comment\n"})
    written = (sandbox._folder / "policies" / "refunds.cedar").read_text()

    assert written == text
    assert sandbox.editing.policies == good


@pytest.mark.rule("editing.I3")
async def test_a_policy_with_errors_is_never_written(sandbox: Sandbox) -> None:
    with_error = await sandbox.apply({"refunds.cedar": "permit (principal, action, resource);"})

    assert not with_error.good
    assert "permit (principal, action, resource);" not in (sandbox._folder / "policies" / "refunds.cedar").read_text()


# Bounds and ends.


@pytest.mark.rule("sandbox.B3", "editing.I2")
async def test_runs_edits_and_audits_are_bounded(sandbox: Sandbox) -> None:
    run = await ran(sandbox, activity="refund", amount="1.00")
    few = replace(LIMITS, runs=len(sandbox.runs), edits=0, audits=0)
    saved, sandbox._limits, sandbox.editing._limits = sandbox._limits, few, few
    try:
        with pytest.raises(SandboxError, match="has had its"):
            await sandbox.start({})
        with pytest.raises(SandboxError, match="enough edits"):
            await sandbox.check({"refunds.cedar": ""})
        with pytest.raises(SandboxError, match="enough edits"):
            await sandbox.restore()
        with pytest.raises(SandboxError, match="enough audits"):
            await sandbox.tamper(run.number, 2, "drop")
    finally:
        sandbox._limits = sandbox.editing._limits = saved


@pytest.mark.rule("sandbox.B3")
async def test_only_so_many_runs_are_open_at_a_time_and_the_server_ends_what_is_late(sandbox: Sandbox) -> None:
    saved, sandbox._limits = sandbox._limits, replace(LIMITS, at_once=1, run_seconds=1)
    try:
        run = await sandbox.start({"activity": "migrate"})
        with pytest.raises(SandboxError, match="Wait until"):
            await sandbox.start({})
        await ended(run)
    finally:
        sandbox._limits = saved

    assert run.view.sentence.startswith("It took longer")
    assert run.view.steps[0].state == "failed"


@pytest.mark.rule("sandboxes.G1", "sandboxes.G2")
async def test_a_flood_of_visitors_finds_no_room_and_no_one_address_takes_it_all(
    server: WorkflowEnvironment,
) -> None:
    world = World(server.client, replace(LIMITS, visitors=3, each=2))
    try:
        first, again = await asyncio.gather(*(world.sandboxes.enter(ADA, "10.0.0.1") for _ in range(2)))
        second = await world.sandboxes.enter(BEN, "10.0.0.1")
        with pytest.raises(SandboxError, match="From where you are"):
            await world.sandboxes.enter("c" * 43, "10.0.0.1")
        await world.sandboxes.enter("d" * 43, "10.0.0.2")
        with pytest.raises(SandboxError, match="Come back"):
            await world.sandboxes.enter("e" * 43, "10.0.0.3")
        assert first is again
        assert len(world.sandboxes) == 3
        assert all(secret not in world.sandboxes._held for secret in (ADA, BEN))

        # What nobody has used for a while makes room, and what is used does not.
        world.ahead = world.sandboxes.limits.yielding + 1
        second.used = time.monotonic() + world.ahead
        await world.sandboxes.enter("e" * 43, "10.0.0.3")
        assert first.ended
        assert not second.ended
    finally:
        await world.sandboxes.aclose()
    with pytest.raises(SandboxError, match="being stopped"):
        await world.sandboxes.enter(ADA)


@pytest.mark.rule("sandbox.B1", "sandboxes.G3")
async def test_a_sandbox_ends_by_itself_and_leaves_nothing_behind(server: WorkflowEnvironment) -> None:
    world = World(server.client)
    try:
        quiet, old = await world.sandboxes.enter(ADA), await world.sandboxes.enter(BEN)
        run = await old.start({"activity": "migrate"})
        assert stat.S_IMODE(quiet._folder.stat().st_mode) == 0o700
        world.ahead = LIMITS.idle + 1
        world.sandboxes.tend()
        await until(lambda: quiet.ended and not quiet._folder.exists())
        assert world.sandboxes.find(ADA) is None
        assert not old.ended  # its run is open

        world.ahead = LIMITS.age + 1
        world.sandboxes.tend()
        await until(lambda: old.ended and not old._folder.exists())
        described = await server.client.get_workflow_handle(run.workflow_id).describe()
        assert described.status == WorkflowExecutionStatus.TERMINATED
        with pytest.raises(SandboxError, match="has ended"):
            await old.start({})
        folder = world.sandboxes._base
    finally:
        await world.sandboxes.aclose()
    assert folder is not None
    assert not folder.path.exists()


async def test_a_server_that_goes_away_in_the_middle_is_said_to_be_away_and_used_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def served() -> WorkflowEnvironment:
        return await WorkflowEnvironment.start_local(
            port=port,
            dev_server_existing_path=shutil.which("temporal"),
            dev_server_database_filename=str(tmp_path / "server.db"),
            dev_server_log_level="error",
        )

    own = await served()
    world = World(own.client)
    try:
        sandbox = await world.sandboxes.enter(ADA)
        run = await sandbox.start({"activity": "migrate"})
        await until(lambda: run.view.steps[0].state == "running")
        await own.shutdown()
        await until(lambda: run.problem)
        problem = run.problem
        with pytest.raises(SandboxError) as refused:
            await sandbox.start({"activity": "refund"})
        assert len(sandbox.runs) == 1
        await sandbox.revoke(run.number)  # the gate needs no server
        own = await served()
        await until(lambda: not run.problem)
        after = await ran(sandbox, activity="refund")
    finally:
        await world.sandboxes.aclose()
        await own.shutdown()

    assert problem is not None
    assert "does not answer" in problem
    assert refused.value.why == "away"
    assert run.revoked
    assert after.view.state == "completed"


async def test_a_server_that_does_not_answer_is_said_to_be_away() -> None:
    client = await Client.connect("127.0.0.1:1", lazy=True)
    world = World(client)
    try:
        with pytest.raises(SandboxError) as refused:
            await world.sandboxes.enter(ADA)
        assert refused.value.why == "away"
        assert len(world.sandboxes) == 0
    finally:
        await world.sandboxes.aclose()
