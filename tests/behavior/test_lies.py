"""What workers and operators may do to the ledger, and who notices: the gate at once, or the audit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from temporalio import workflow

import exequatur.workflow
from exequatur import Principal
from exequatur.audit.counted import Ledgers
from exequatur.behavior.tally import tally
from exequatur.lineage.ledger import Ledger
from exequatur.lineage.ledger_schema import LAYOUT
from exequatur.lineage.record import Record
from exequatur.lineage.store_schema import stored_version
from tests.behavior.test_audit import audited, changed, codes, records
from tests.behavior.test_gate import ACTIVITIES, BUDGET, TWICE, pay, spend
from tests.behavior.test_usual import Several
from tests.behavior.test_usual import exequatur as command
from tests.gate.conftest import PERMIT_ALL, deeds, failure_of
from tests.gate.single import OneActivity, eventually, start_one
from tests.lineage.postgres import Postgres

READS = (
    '@id("few") forbid(principal, action, resource) when { context has behavior && context.behavior.run.count >= 1 };'
)
CALM = '@id("calm") forbid(principal, action, resource) when { context.activity.attempt > 9 };'


@workflow.defn
class Held:
    """Asks for two activities under a restriction that it made."""

    @workflow.run
    async def run(self, forbid: str) -> None:
        with exequatur.workflow.restricted(forbid=forbid):
            for amount in (1, 2):
                await workflow.execute_activity("pay", amount, start_to_close_timeout=timedelta(seconds=20))


def untold(record: Record) -> Record:
    """A decision that tells nothing of behaviour."""
    if record.kind != "decision":
        return record
    body = json.loads(record.body)
    body.pop("counted", None)
    facts = json.loads(body["facts"])
    facts.pop("behavior", None)
    return replace(record, body=json.dumps(body | {"facts": json.dumps(facts)}).encode())


@pytest.mark.rule("counted.D9", "counting.C4")
async def test_a_restriction_that_reads_behaviour_is_told_it_and_the_audit_asks_for_it(
    stage: Callable[..., Any],
) -> None:
    shop = await stage(PERMIT_ALL)
    async with shop.worker([Held], ACTIVITIES):
        run = await shop.start(Held.run, READS)
        assert (await failure_of(run)).type == "AuthorizationDenied"
        assert deeds(run.id) == [1]
    assert codes(await audited(shop, run, records(shop))) == set()
    assert "behavior-unchecked" in codes(await audited(shop, run, records(shop, untold)))


@pytest.mark.rule("counting.C4")
async def test_a_restriction_that_reads_none_waits_for_no_ledger(stage: Callable[..., Any]) -> None:
    shop = await stage(PERMIT_ALL)
    async with shop.worker([Held], ACTIVITIES):
        run = await shop.start(Held.run, CALM)
        await run.result()
    assert not (shop.state / "ledger.db").exists()
    assert codes(await audited(shop, run, records(shop))) == set()


MANY = """
@id("few") permit(principal, action, resource) when { context has behavior && context.behavior.run.count < 2 };
@id("starts") permit(principal, action == Action::"workflow.start", resource);
"""


@pytest.mark.rule("counted.D8")
async def test_two_attempts_that_name_one_event_contradict(stage: Callable[..., Any]) -> None:
    shop = await stage(MANY)
    async with shop.worker([Several], ACTIVITIES):
        run = await shop.start(Several.run, [["pay", 1], ["pay", 2]])
        await run.result()
    honest = records(shop)
    assert codes(await audited(shop, run, honest)) == set()
    first = next(json.loads(record.body) for record in shop.records("decision"))

    def again(record: Record) -> Record:
        if record.kind != "decision":
            return record
        body, known = json.loads(record.body), json.loads(first["facts"])
        facts = json.loads(body["facts"]) | {"behavior": known["behavior"]}
        return changed(record, counted=first["counted"], facts=json.dumps(facts))

    assert "behavior-contradicts" in codes(await audited(shop, run, records(shop, again)))


@pytest.mark.rule("counted.D10")
@pytest.mark.parametrize("kind", ["denied", "voided"])
async def test_an_event_that_takes_back_what_ran_contradicts(stage: Callable[..., Any], kind: str) -> None:
    shop = await stage(BUDGET)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, spend, 30)
        await run.result()

    def refund(record: Record) -> Record:
        if record.kind != "behavior" or (body := json.loads(record.body))["event"]["kind"] != "ended":
            return record
        event = {name: value for name, value in body["event"].items() if name != "took"}
        return changed(record, event=event | {"kind": kind, "cost": 30})

    assert "behavior-contradicts" in codes(await audited(shop, run, records(shop, refund)))


@pytest.mark.rule("counted.D10")
@pytest.mark.parametrize(
    "change",
    [{"cost": 102}, {"principal": 'User::"other"'}, {"of": 1}, {"of": 7}, {"attempt": 2}, {"run": "x"}],
    ids=str,
)
async def test_what_gives_back_more_or_else_than_was_reserved_contradicts(
    stage: Callable[..., Any], change: dict[str, Any]
) -> None:
    shop = await stage(BUDGET)
    async with shop.worker([OneActivity], ACTIVITIES):
        await failure_of(await start_one(shop, spend, 101))
        await eventually(lambda: len(shop.records("behavior")) == 2)
        run = await start_one(shop, spend, 30)
        await run.result()
    assert codes(await audited(shop, run, records(shop))) == set()

    def forged(record: Record) -> Record:
        if record.kind != "behavior" or (body := json.loads(record.body))["position"] != 1:
            return record
        return changed(record, event=body["event"] | change)

    # What it was told is what such events come to.
    [ledger] = Ledgers(records(shop, forged).counted())._ledgers.values()
    numbers = tally(ledger.before(2, ledger.events[2]), ledger.events[2])

    def fitting(record: Record) -> Record:
        if record.kind != "decision":
            return forged(record)
        body = json.loads(record.body)
        if body["counted"]["position"] != 2:
            return record
        facts = json.loads(body["facts"])
        facts["behavior"] |= {"cost_last_day": numbers.cost_last_day, "denials_last_hour": numbers.denials_last_hour}
        facts["behavior"]["last_hour"] = numbers.last_hour
        return changed(record, facts=json.dumps(facts))

    assert "behavior-contradicts" in codes(await audited(shop, run, records(shop, fitting)))


@pytest.mark.rule("counted.D8")
async def test_rows_that_an_operator_took_away_or_changed_contradict(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        for amount in (1, 2):
            await (await start_one(shop, pay, amount)).result()
        await eventually(lambda: len(shop.records("behavior")) == 4)
        with Ledger.open(shop.state / "ledger.db") as ledger, ledger._engine.begin() as db:
            db.execute(text("DELETE FROM ledger_events WHERE position < 3"))
            db.execute(text("DELETE FROM ledger_sums"))
        run = await start_one(shop, pay, 3)
        assert await run.result() == 3
    assert "behavior-contradicts" in codes(await audited(shop, run, records(shop)))


@pytest.mark.rule("ledger.L5", "writer.W2")
async def test_a_ledger_that_another_took_the_place_of_is_not_counted_on(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE, unavailable_wait="300ms", unavailable_retry_delay="100ms")
    async with shop.worker([OneActivity], ACTIVITIES):
        for amount in (1, 2):
            await (await start_one(shop, pay, amount)).result()
        with Ledger.open(shop.state / "ledger.db") as ledger, ledger._engine.begin() as db:
            db.execute(text("DELETE FROM ledger_events"))
            db.execute(text("UPDATE ledger_head SET id = 'other', size = 0"))
        for amount in (3, 4):
            run = await start_one(shop, pay, amount)
            failure = await failure_of(run)
            assert failure.type == "AuthorizationUnavailable"
            assert "restart" in failure.message
            assert deeds(run.id) == []


@pytest.mark.rule("ledger.L5", "writer.W2")
async def test_a_ledger_that_lost_what_it_held_is_not_counted_on(stage: Callable[..., Any], tmp_path: Path) -> None:
    shop = await stage(TWICE, unavailable_wait="300ms", unavailable_retry_delay="100ms")
    where = shop.state / "ledger.db"
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, pay, 1)).result()
    shutil.copy(where, tmp_path / "backup.db")
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, pay, 2)).result()
    for extra in shop.state.glob("ledger.db-*"):
        extra.unlink()
    shutil.copy(tmp_path / "backup.db", where)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 3)
        failure = await failure_of(run)
        assert failure.type == "AuthorizationUnavailable"
        assert "backup" in failure.message
        assert deeds(run.id) == []


@pytest.mark.rule("counted.D11")
async def test_a_ledger_that_begins_anew_is_pointed_out(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, pay, 1)).result()
    for file in shop.state.glob("ledger.db*"):
        file.unlink()
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 2)
        await run.result()
    report = await audited(shop, run, records(shop))
    assert codes(report) == set()
    assert "anew" in caplog.text
    assert "behavior-restarted" in {each.code for each in report.findings}


async def test_a_candidate_that_reads_behaviour_is_not_asked_where_nobody_counted(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    candidate = tmp_path / "candidate"
    candidate.mkdir()
    (candidate / "main.cedar").write_text(MANY)
    shop = await stage(PERMIT_ALL, shadow_policies=str(candidate))
    async with shop.worker([OneActivity], ACTIVITIES):
        await eventually(lambda: shop.plugin.gate.shadow._candidate)
        await (await start_one(shop, pay, 1)).result()
    assert shop.records("shadow") == []


def test_showing_a_database_without_a_ledger_makes_none(postgres: Postgres) -> None:
    with postgres.database() as url:
        result = command("behavior", "show", url)
        assert result.exit_code == 2
        assert "there is no ledger" in result.output
        assert stored_version(url, LAYOUT)[1] == 0


@pytest.mark.parametrize("name", ["a\0b", "x" * 900, "ü\u202e"], ids=["NUL", "long", "turned"])
async def test_a_principal_of_any_name_is_counted(stage: Callable[..., Any], name: str) -> None:
    shop = await stage(TWICE, principal=Principal("Agent", name))
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        assert await run.result() == 1
    assert codes(await audited(shop, run, records(shop))) == set()
