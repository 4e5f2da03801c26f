"""Policies that read what was done before: it is counted first, for all hosts, and where it cannot be, nothing runs."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from exequatur import action
from exequatur.lineage.ledger import Ledger
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one
from tests.lineage.postgres import Postgres


@activity.defn
async def pay(amount: int) -> int:
    happened(amount)
    return amount


@activity.defn
async def look(what: str) -> str:
    happened(what)
    return what


@activity.defn
@action(cost=lambda amount: amount)
async def spend(amount: int) -> int:
    happened(amount)
    return amount


def odd(told: Any) -> Any:
    if told == "raises":
        raise RuntimeError("secret")
    return {"text": "7", "negative": -1, "float": 1.0, "bool": True, "huge": 10**13, "nothing": None}[told]


@activity.defn
@action(cost=odd)
async def oddly(told: str) -> None:
    happened(told)


ACTIVITIES = [pay, look, spend, oddly]
TWICE = """
@id("twice") permit(principal, action, resource) when { context has behavior && context.behavior.last_hour < 2 };
@id("starts") permit(principal, action == Action::"workflow.start", resource);
"""
BUDGET = """
@id("budget") permit(principal, action == Action::"spend", resource)
when { context has behavior && context.behavior.cost_last_day + context.behavior.cost <= 100 };
@id("starts") permit(principal, action == Action::"workflow.start", resource);
"""


def told(stage: Stage) -> list[dict[str, Any]]:
    """What the decisions on this stage were told of behaviour."""
    facts = [json.loads(json.loads(record.body)["facts"]) for record in stage.records("decision")]
    return [each["behavior"] for each in facts if "behavior" in each]


@pytest.mark.rule("F12", "counting.C1", "counting.C3")
async def test_the_third_in_an_hour_does_not_run(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        for amount in (1, 2):
            assert await (await start_one(shop, pay, amount)).result() == amount
        third = await start_one(shop, pay, 3)
        assert (await failure_of(third)).type == "AuthorizationDenied"
        assert deeds(third.id) == []
        assert await (await start_one(shop, look, "else")).result() == "else"
    assert [each["last_hour"] for each in told(shop)] == [0, 1, 2, 0]
    assert [each["novel"] for each in told(shop)] == [True, False, False, True]
    assert [each["denials_last_hour"] for each in told(shop)] == [0, 0, 0, 1]


@pytest.mark.rule("counting.C1", "counting.C3")
async def test_hosts_that_share_state_cannot_both_spend_the_last_of_a_budget(
    stage: Callable[..., Any], postgres: Postgres
) -> None:
    with postgres.database() as shared:
        first = await stage(BUDGET, shared_state=shared)
        second = await stage(BUDGET, shared_state=shared)
        async with first.worker([OneActivity], ACTIVITIES), second.worker([OneActivity], ACTIVITIES):
            runs = [await start_one(each, spend, 30) for each in (first, second) * 4]
            done = await asyncio.gather(*(run.result() for run in runs), return_exceptions=True)
            assert sum(outcome == 30 for outcome in done) == 3
            assert sum(len(deeds(run.id)) for run in runs) == 3
            # What was denied gives its cost back, soon.
            with Ledger.open(shared) as ledger:
                await eventually(lambda: [each.event.kind for each in ledger.events()].count("denied") == 5)
            assert await (await start_one(second, spend, 10)).result() == 10
        with Ledger.open(shared) as ledger:
            kinds = [each.event.kind for each in ledger.events()]
        for each in (first, second):  # of the revocation feed, which is in the database, too
            each.plugin.gate.revocations._store.close()
        assert kinds.count("asked") == 9
        assert kinds.count("denied") == 5
        assert kinds.count("ended") == 4


@pytest.mark.rule("A17", "action.R2", "action.R3")
@pytest.mark.parametrize("value", ["raises", "text", "negative", "float", "bool", "huge", "nothing"])
async def test_a_cost_that_cannot_be_told_denies(stage: Callable[..., Any], value: str) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, oddly, value)
        failure = await failure_of(run)
    assert failure.type == "AuthorizationDenied"
    assert "The cost could not be told" in failure.message
    assert "secret" not in failure.message
    assert deeds(run.id) == []


@pytest.mark.rule("A17")
async def test_a_cost_that_a_budget_elsewhere_adds_up_must_be_told(stage: Callable[..., Any], tmp_path: Path) -> None:
    shop = await stage(PERMIT_ALL, shared_state=str(tmp_path / "shared.db"))
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, oddly, "raises")
        assert (await failure_of(run)).type == "AuthorizationDenied"
        assert deeds(run.id) == []


@pytest.mark.rule("counting.C4")
async def test_what_no_policy_reads_is_not_counted_and_no_ledger_is_made(stage: Callable[..., Any]) -> None:
    shop = await stage(PERMIT_ALL)
    async with shop.worker([OneActivity], ACTIVITIES):
        assert await (await start_one(shop, pay, 1)).result() == 1
        run = await start_one(shop, oddly, "raises")
        await run.result()
        assert deeds(run.id) == ["raises"]
    assert not (shop.state / "ledger.db").exists()
    assert shop.records("behavior") == []


@pytest.mark.rule("F12", "counting.C2")
async def test_where_it_cannot_be_counted_nothing_runs_until_it_can(stage: Callable[..., Any], tmp_path: Path) -> None:
    shop = await stage(TWICE, unavailable_wait="300ms", unavailable_retry_delay="100ms")
    (shop.state / "ledger.db").mkdir()
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        failure = await failure_of(run)
        assert failure.type == "AuthorizationUnavailable"
        assert "ledger" in failure.message
        assert deeds(run.id) == []
        (shop.state / "ledger.db").rmdir()
        again = await start_one(shop, pay, 1, attempts=0)
        assert await again.result() == 1
