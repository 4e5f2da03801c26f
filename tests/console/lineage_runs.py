"""Runs for the lineage pages to show: made by a real server and a real gate, and some made by hostile people."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Principal, Settings
    from exequatur.approvals import approve, list_challenges

TIMEOUT = timedelta(seconds=60)
HOSTILE = '</script><img src=x onerror="globalThis.pwned=1">\'"><svg/onload=globalThis.pwned=1>{{7*7}}'
"""What an attacker names workflows and activities, and gives as a reason."""
TRICKY = "order/../?a=b&c=d#e %00 ' \\ \" \u202egrant \x1b[31m"
"""A workflow id that means something to addresses, queries and terminals."""
POLICIES = """
@id("all") permit(principal, action, resource);

@id("no-deletion") @reason("Records are kept for ten years")
forbid(principal, action == Action::"delete_record", resource);

@id("limit") @reason("Payments above 1000 are made by people")
forbid(principal, action == Action::"pay", resource)
when { context.args.order.amount > 1000 };

@id("two-person") @approval("finance, 1, 4h") @reason("Somebody of finance has to agree")
forbid(principal, action == Action::"refund", resource)
unless { context has approvals && context.approvals.groups.contains("finance") };
"""


@dataclass
class Order:
    amount: int
    note: str = ""


@activity.defn
async def look_up(number: int) -> int:
    return number + 1


@activity.defn
async def pay(order: Order) -> int:
    if order.note == "flaky" and activity.info().attempt < 3:
        raise ApplicationError("the bank is busy")
    return order.amount


@activity.defn
async def refund(order: Order) -> int:
    return order.amount


@activity.defn
async def delete_record(number: int) -> int:
    return number


@activity.defn(name=HOSTILE)
async def hostile(text: str) -> str:
    raise ApplicationError(text, non_retryable=True)


async def _look_up(number: int) -> int:
    return await workflow.execute_activity(look_up, number, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Agent:
    """Looks up, pays, is denied twice, and has a child do the rest."""

    @workflow.run
    async def run(self, amount: int) -> int:
        for number in range(4):
            await _look_up(number)
        await workflow.execute_activity(
            pay,
            Order(amount, "flaky"),
            start_to_close_timeout=TIMEOUT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )
        with suppress(ActivityError):
            await workflow.execute_activity(delete_record, 7, start_to_close_timeout=TIMEOUT)
        with suppress(ActivityError):
            await workflow.execute_activity(pay, Order(5000), start_to_close_timeout=TIMEOUT)
        child = f"{workflow.info().workflow_id}-child"
        return await workflow.execute_child_workflow(Continued.run, 1, id=child)


@workflow.defn
class Continued:
    @workflow.run
    async def run(self, number: int) -> int:
        number = await _look_up(number)
        if number < 3:
            workflow.continue_as_new(number)
        return number


@workflow.defn
class Refunds:
    @workflow.run
    async def run(self, amount: int) -> int:
        return await workflow.execute_activity(refund, Order(amount), start_to_close_timeout=TIMEOUT)


@workflow.defn
class Hostile:
    @workflow.run
    async def run(self) -> None:
        with suppress(ActivityError):
            await workflow.execute_activity(hostile, HOSTILE, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Long:
    @workflow.run
    async def run(self, count: int) -> int:
        total = 0
        for first in range(0, count, 50):
            numbers = range(first, min(first + 50, count))
            total += sum(await asyncio.gather(*map(_look_up, numbers)))
        return total


WORKFLOWS: list[type] = [Agent, Continued, Refunds, Hostile, Long]
ACTIVITIES = [look_up, pay, refund, delete_record, hostile]
BOT = Principal("Agent", "ops-bot", attributes={"level": 3}, parents=['Role::"operations"'])
FAY = Principal("User", "fay", parents=['Role::"finance"'])


@dataclass
class Made:
    """What was made.

    Args:
        folder: With the state folder, and the policies.
        ids: Workflow ids by name.
        first_runs: The first run of some.
    """

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    first_runs: dict[str, str] = field(default_factory=dict)


async def make(target: str, folder: Path, long: int = 220) -> Made:
    """Make the runs.

    Args:
        target: The Temporal server.
        folder: Where to.
        long: Activities of the long run.
    """
    policies = folder / "policies"
    policies.mkdir(parents=True)
    (policies / "main.cedar").write_text(POLICIES)
    plugin = AuthorizationPlugin.embedded(
        policies, state_dir=folder / "state", principal=BOT, settings=Settings(allow_ungoverned=("Continued",))
    )
    plain = await Client.connect(target)
    client = await Client.connect(target, plugins=[plugin])
    mark, queue = uuid.uuid4().hex[:6], f"lineage-{uuid.uuid4().hex[:8]}"
    made = Made(folder)

    async def start(name: str, run: Any, *args: Any, by: Client = client, workflow_id: str = "") -> Any:
        made.ids[name] = workflow_id or f"{name}-{mark}"
        handle = await by.start_workflow(run, args=args, id=made.ids[name], task_queue=queue)
        made.first_runs[name] = handle.result_run_id or ""
        return handle

    async with Worker(client, task_queue=queue, workflows=WORKFLOWS, activities=ACTIVITIES):
        waiting = await start("refund", Refunds.run, 40)
        handles = [
            await start("agent", Agent.run, 20),
            await start("other", Agent.run, 30),
            await start("loose", Continued.run, 3, by=plain),
            await start("hostile", Hostile.run, workflow_id=f"{HOSTILE} {mark}"),
            await start("tricky", Refunds.run, 1, workflow_id=f"{TRICKY} {mark}"),
            await start("long", Long.run, long),
        ]
        for handle in handles:
            if handle.id != made.ids["tricky"]:
                with suppress(WorkflowFailureError):
                    await handle.result()
        for _ in range(200):
            asked = (await list_challenges(client, plugin, workflow_id=waiting.id)).challenges
            if asked:
                break
            await asyncio.sleep(0.05)
        await approve(client, plugin, asked[0], principal=FAY, reason="the customer is right")
        await waiting.result()
        await plain.get_workflow_handle(made.ids["tricky"]).terminate("seen enough")
    made.ids["child"] = f"{made.ids['agent']}-child"
    return made
