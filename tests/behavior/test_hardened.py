"""What goes wrong between an attempt and the ledger: who gave up waiting, and what was put in place."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from exequatur.gate.activity import ActivityInbound
from exequatur.gate.attempt import Attempt
from exequatur.lineage.ledger import Ledger
from tests.behavior.test_gate import ACTIVITIES, BUDGET, TWICE, pay, spend
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of
from tests.gate.single import OneActivity, start_one


def kinds(stage: Stage) -> list[str]:
    with Ledger.open(stage.state / "ledger.db") as ledger:
        return [each.event.kind for each in ledger.events()]


@pytest.mark.rule("counting.C3", "writer.W3")
async def test_what_nobody_waits_for_any_more_takes_nothing_from_the_next_try(stage: Callable[..., Any]) -> None:
    shop = await stage(BUDGET, unavailable_wait="300ms", unavailable_retry_delay="100ms")
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, spend, 1)).result()
        with closing(sqlite3.connect(shop.state / "ledger.db", isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")
            runs = [await start_one(shop, spend, amount, attempts=0) for amount in (40, 50)]
            await asyncio.sleep(1.5)  # each gave up once, and asked again
            busy.execute("ROLLBACK")
        assert [await run.result() for run in runs] == [40, 50]


@pytest.mark.rule("counting.C3")
async def test_an_attempt_that_is_cancelled_before_it_is_decided_counts_for_nothing(
    stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await stage(TWICE)
    hang, counted = asyncio.Event(), asyncio.Event()
    record = ActivityInbound._record

    async def slow(inbound: Any, attempt: Attempt, *arguments: Any, **named: Any) -> Any:
        if not counted.is_set():
            counted.set()
            await hang.wait()
        return await record(inbound, attempt, *arguments, **named)

    monkeypatch.setattr(ActivityInbound, "_record", slow)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        await asyncio.wait_for(counted.wait(), 60)
    assert deeds(run.id) == []
    assert kinds(shop) == ["asked", "voided"]
    await shop.plain.get_workflow_handle(run.id).terminate()


@pytest.mark.rule("A18")
async def test_policies_that_begin_to_read_behaviour_after_it_was_looked_at_are_not_asked_without_it(
    stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await stage(PERMIT_ALL, policy_poll_interval="20ms")
    never = (
        PERMIT_ALL + '@id("never") forbid(principal, action == Action::"pay", resource) when { context has behavior && '
        "context.behavior.last_hour >= 0 };"
    )
    judge = Attempt.judge
    changed = threading.Event()

    def late(attempt: Attempt) -> Any:
        if not changed.is_set():  # another thread puts policies in force between counting and judging
            changed.set()
            before = attempt.gate.policy.bundle.digest
            shop.write(never)
            for _ in range(500):
                if attempt.gate.policy.bundle.digest != before:
                    break
                threading.Event().wait(0.01)
        return judge(attempt)

    monkeypatch.setattr(Attempt, "judge", late)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        assert (await failure_of(run)).type == "AuthorizationDenied"
    assert deeds(run.id) == []


async def test_a_ledger_that_is_down_holds_nothing_of_who_gave_up(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE, unavailable_wait="600ms", unavailable_retry_delay="20ms")
    (shop.state / "ledger.db").mkdir()
    async with shop.worker([OneActivity], ACTIVITIES):
        runs = [await start_one(shop, pay, n) for n in range(5)]
        for run in runs:
            assert (await failure_of(run)).type == "AuthorizationUnavailable"
        counting = shop.plugin.gate.counting
        assert len(counting._writer.unsure) == 0
        (shop.state / "ledger.db").rmdir()
