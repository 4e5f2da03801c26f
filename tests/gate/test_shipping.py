"""A worker with a shared evidence store: what it decided is in the store, and an audit needs nothing else."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from temporalio import activity

from exequatur.audit.history import of_events
from exequatur.audit.report import Verdict
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.lineage.store import EvidenceStore
from tests.gate.conftest import events
from tests.gate.single import OneActivity, eventually, start_one


@activity.defn
async def act(what: str) -> str:
    return what


def count(store: Path) -> int:
    with EvidenceStore.open(store) as opened:
        return sum(log.size for log in opened.logs())


async def test_what_a_worker_decides_reaches_the_shared_store_while_it_runs(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    store = tmp_path / "evidence.db"
    s = await stage(evidence_store=str(store), ship_interval="100ms")
    async with s.worker([OneActivity], [act]):
        handle = await start_one(s, act, "x")
        await handle.result()
        await eventually(lambda: store.exists() and count(store) == len(s.records()) >= 4)
    with OpenEvidence([str(store)]) as evidence:
        history = of_events(await events(handle), workflow_id=handle.id)
        report = audit_run(history, evidence, read_trust(s.state / "trust.jwks"))
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert all(each.recomputed for activity in report.activities for each in activity.decisions)


async def test_what_was_decided_last_is_shipped_when_the_worker_ends(stage: Callable[..., Any], tmp_path: Path) -> None:
    store = tmp_path / "evidence.db"
    s = await stage(evidence_store=str(store), ship_interval="1h")
    async with s.worker([OneActivity], [act]):
        await (await start_one(s, act, "x")).result()
    assert count(store) == len(s.records())


async def test_a_store_that_is_down_does_not_disturb_the_worker(stage: Callable[..., Any]) -> None:
    s = await stage(evidence_store="postgresql://nobody@127.0.0.1:1/nowhere", ship_interval="100ms")
    async with s.worker([OneActivity], [act]):
        await asyncio.sleep(0.3)
        assert await (await start_one(s, act, "x")).result() == "x"
    assert s.records("decision")


async def test_a_journal_that_was_lost_before_it_was_shipped_is_missed(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        handle = await start_one(s, act, "x")
        await handle.result()
    store = tmp_path / "evidence.db"
    EvidenceStore.open(store).close()
    with OpenEvidence([str(store)]) as evidence:
        history = of_events(await events(handle), workflow_id=handle.id)
        report = audit_run(history, evidence, read_trust(s.state / "trust.jwks"))
    assert report.verdict is Verdict.UNCHECKED
    assert "evidence-missing" in {each.code for each in report.findings}
