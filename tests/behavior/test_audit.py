"""The audit adds up again what policies were told of behaviour, and says where it cannot."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from exequatur.audit.evidence import EvidenceReader, RecordedEvidence, records_of_journal
from exequatur.audit.history import history_from_json
from exequatur.audit.report import RunReport
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.lineage.record import Record
from tests.behavior.test_gate import ACTIVITIES, TWICE, look, pay
from tests.gate.conftest import Stage, failure_of
from tests.gate.single import OneActivity, start_one

Edit = Callable[[Record], Record | None]


def records(stage: Stage, edit: Edit = lambda record: record) -> RecordedEvidence:
    """The evidence of a stage, with records changed or left out.

    What is changed counts as sound: whoever owns a journal can link it anew.
    """
    found = (
        (edit(record), True)
        for file in sorted((stage.state / "journal").glob("*.db"))
        for record, _ in records_of_journal(file)
    )
    return RecordedEvidence((record, sound) for record, sound in found if record is not None)


async def audited(stage: Stage, handle: WorkflowHandle[Any, Any], evidence: EvidenceReader) -> RunReport:
    history = history_from_json((await handle.fetch_history()).to_json().encode())

    return audit_run(replace(history, workflow_id=handle.id), evidence, read_trust(stage.state / "trust.jwks"))


def codes(report: RunReport) -> set[str]:
    return {each.code for each in report.findings} & {"behavior-contradicts", "behavior-unchecked", "decision-differs"}


def changed(record: Record, **changes: Any) -> Record:

    return replace(record, body=json.dumps(json.loads(record.body) | changes).encode())


@pytest.mark.rule("counted.D8")
async def test_what_policies_were_told_adds_up_again(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        runs = [await start_one(shop, pay, 1) for _ in range(1)]
        await runs[0].result()
        runs.append(await start_one(shop, pay, 2))
        await runs[1].result()
        runs.append(await start_one(shop, pay, 3))
        await failure_of(runs[2])
    for run in runs:
        report = await audited(shop, run, records(shop))
        assert codes(report) == set(), report.findings
        assert [each.recomputed for found in report.activities for each in found.decisions] == [True]


@pytest.mark.rule("counted.D8")
async def test_a_record_that_tells_of_less_than_was_done_contradicts(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, pay, 1)).result()
        run = await start_one(shop, pay, 2)
        await run.result()

    def forget(record: Record) -> Record:
        if record.kind != "decision":
            return record
        facts = json.loads(json.loads(record.body)["facts"])
        facts["behavior"]["last_hour"] = 0
        return changed(record, facts=json.dumps(facts))

    assert "behavior-contradicts" in codes(await audited(shop, run, records(shop, forget)))


@pytest.mark.rule("counted.D8", "counted.D9")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"principal": 'User::"other"'}, "behavior-contradicts"),
        ({"activity": "other"}, "behavior-contradicts"),
        ({"run": "other"}, "behavior-contradicts"),
        ({"shape": "other"}, "behavior-contradicts"),
        ({"at": 1}, "behavior-contradicts"),
        ({"before": "other"}, "behavior-contradicts"),
        ({"kind": "ended"}, "behavior-contradicts"),
        ({"attempt": 2}, "behavior-contradicts"),
        (None, "behavior-unchecked"),
    ],
    ids=str,
)
async def test_an_event_that_is_about_something_else_contradicts(
    stage: Callable[..., Any], change: dict[str, Any] | None, code: str
) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        await run.result()

    def edit(record: Record) -> Record | None:
        if record.kind != "behavior" or json.loads(record.body)["event"]["kind"] != "asked":
            return record
        return None if change is None else changed(record, event=json.loads(record.body)["event"] | change)

    assert codes(await audited(shop, run, records(shop, edit))) == {code}


@pytest.mark.rule("counted.D8", "counted.D9")
@pytest.mark.parametrize(
    ("left_out", "code"),
    [
        (("counted",), "behavior-contradicts"),
        (("behavior",), "behavior-contradicts"),
        (("counted", "behavior"), "behavior-unchecked"),
    ],
    ids=str,
)
async def test_a_record_without_what_it_must_tell_is_not_passed_over(
    stage: Callable[..., Any], left_out: tuple[str, ...], code: str
) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        await run.result()

    def edit(record: Record) -> Record:
        if record.kind != "decision":
            return record
        body = json.loads(record.body)
        facts = json.loads(body["facts"])
        for name in left_out:
            body.pop(name, None)
            facts.pop(name, None)
        return replace(record, body=json.dumps(body | {"facts": json.dumps(facts)}).encode())

    assert code in codes(await audited(shop, run, records(shop, edit)))


@pytest.mark.rule("counted.D9")
async def test_journals_that_tell_of_different_events_in_one_place_contradict(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        await (await start_one(shop, look, "x")).result()
        run = await start_one(shop, pay, 1)
        await run.result()
    honest = [record for record, _ in records(shop).counted()]
    first = json.loads(honest[0].body)
    forged = changed(honest[0], event=first["event"] | {"cost": 7})
    evidence = records(shop)
    evidence._counted.append((forged, True))
    assert codes(await audited(shop, run, evidence)) == {"behavior-contradicts"}
    # What is left out, or cannot be read, is a gap.
    for broken in (replace(honest[0], body=b"{}"), replace(honest[0], body=b"\xff")):
        gap = records(shop)
        gap._counted = [(broken, True), *((record, True) for record in honest[1:])]
        assert codes(await audited(shop, run, gap)) == {"behavior-unchecked"}


@pytest.mark.rule("counted.D9")
async def test_without_any_event_nothing_is_passed_over(stage: Callable[..., Any]) -> None:
    shop = await stage(TWICE)
    async with shop.worker([OneActivity], ACTIVITIES):
        run = await start_one(shop, pay, 1)
        await run.result()
    evidence = records(shop)
    evidence._counted = []
    assert codes(await audited(shop, run, evidence)) == {"behavior-unchecked"}
