"""Releases that do not fit the code of a worker: what fits is in force, in running workers and after a restart."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from exequatur.authoring.schema.generate import generate
from exequatur.errors import PolicyError
from exequatur.policy.source import SourceFile
from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one
from tests.gate.test_releases import (
    CANARY,
    FREEZE,
    PATH,
    act,
    in_force,
    outcome,
    released,
    running_server,
    shelf,
    team,
)
from tests.release.parties import PolicyTeam, Server, dripping, made, status

__all__ = ["released", "running_server", "shelf", "team"]  # fixtures


@activity.defn
async def other() -> None: ...


def schema_of(**activities: Any) -> SourceFile:
    return SourceFile("schema.cedarschema", generate(activities).text)


def fit(team: PolicyTeam, sequence: int, policies: str = PERMIT_ALL, **options: Any) -> bytes:
    return team.release(made(policies, schema=schema_of(act=act)), sequence, **options).to_bytes()


def unfit(team: PolicyTeam, sequence: int, **options: Any) -> bytes:
    return team.release(made(PERMIT_ALL, schema=schema_of(other=other)), sequence, **options).to_bytes()


@pytest.mark.rule("J31")
async def test_a_canary_that_does_not_fit_the_code_does_not_hold_up_the_stable_bundle(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(fit(team, 1))
    s = await released(path)
    async with s.worker([OneActivity], [act]):
        (tmp_path / "policies.canary.bundle").write_bytes(unfit(team, 3, share=100))
        path.write_bytes(fit(team, 2, FREEZE))
        await in_force(s, 2)
        assert await outcome(s) == ("AuthorizationDenied", False)
    assert "left aside" in caplog.text


@pytest.mark.rule("J31")
async def test_a_worker_starts_with_the_stable_bundle_when_the_canary_does_not_fit(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(fit(team, 1, FREEZE))
    (tmp_path / "policies.canary.bundle").write_bytes(unfit(team, 3, share=100))
    s = await released(path)
    async with s.worker([OneActivity], [act]):
        await in_force(s, 1)
        assert s.plugin.in_force.channel == "stable"
        assert await outcome(s) == ("AuthorizationDenied", False)
    assert "act: the bundle has no action for it" in caplog.text


@pytest.mark.rule("J32")
async def test_a_restart_with_a_release_that_does_not_fit_goes_on_with_what_was_adopted(
    released: Callable[..., Any], shelf: Server, team: PolicyTeam, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.files[PATH] = adopted = team.released(FREEZE, 1)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        assert await outcome(s) == ("AuthorizationDenied", False)
    shelf.files[PATH] = unfit(team, 2)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        await in_force(s, 1)
        assert await outcome(s) == ("AuthorizationDenied", False)
        await eventually(lambda: "were refused and bundle" in caplog.text)
        assert s.plugin.in_force.sequence == 1
    assert "is in force instead" in caplog.text
    for bad, there in (({PATH: status(500)}, unfit(team, 2)), ({}, adopted)):
        shelf.bad, shelf.files[PATH] = bad, there
        assert (await released(shelf.url())).plugin.in_force.sequence == 1, "it was not forgotten"


@pytest.mark.rule("conformance.C1")
async def test_a_worker_does_not_start_when_nothing_that_was_released_fits(
    released: Callable[..., Any], shelf: Server, team: PolicyTeam
) -> None:
    shelf.files = {PATH: unfit(team, 1), CANARY: unfit(team, 2, share=100)}
    s = await released(shelf.url())
    handle = await start_one(s, act)
    with pytest.raises(PolicyError, match="act: the bundle has no action for it"):
        async with s.worker([OneActivity], [act]):
            await asyncio.sleep(30)  # the error ends it
    assert deeds(handle.id) == []
    await handle.terminate()


@pytest.mark.rule("conformance.C1")
async def test_policies_without_a_schema_do_not_replace_those_that_have_one(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(fit(team, 1))
    s = await released(path)
    async with s.worker([OneActivity], [act]):
        path.write_bytes(team.released(PERMIT_ALL, 2))
        await eventually(lambda: "These policies have no schema and those in force have one" in caplog.text)
        assert s.plugin.in_force.sequence == 1


async def test_what_is_odd_about_policies_is_logged_once_when_they_are_put_in_force(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(PERMIT_ALL, 1))
    s = await released(path)
    unnamed = PERMIT_ALL + 'forbid(principal, action == Action::"x", resource);'
    async with s.worker([OneActivity], [act]):
        for sequence in (2, 3):
            path.write_bytes(team.released(unnamed, sequence))
            await in_force(s, sequence)
    warnings = [record.getMessage() for record in caplog.records if "policy without @id" in record.getMessage()]
    assert len(warnings) == 1


async def test_clients_that_wait_for_a_place_that_hangs_share_one_thread(
    released: Callable[..., Any], shelf: Server, team: PolicyTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.gate.serving._PATIENCE", 0.2)
    monkeypatch.setattr("exequatur.release.web.DEADLINE", 1.0)
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url(), policy_fetch_interval="1ms")
    shelf.bad[PATH] = dripping(bytes(1000))
    await asyncio.sleep(0.01)
    await asyncio.gather(*(start_one(s, act) for _ in range(20)))
    waited = s.plugin._serving._refresher
    assert len(waited._threads) == 1
    assert waited._work_queue.qsize() <= 1
    shelf.bad.clear()


@pytest.mark.rule("B1")
@pytest.mark.filterwarnings("ignore:Worker max_concurrent_activities")
async def test_what_is_said_to_be_in_force_decides_about_bodies_that_have_not_begun(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path
) -> None:
    """Between the log line and anything later, an older allow no longer lets a body begin."""
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(PERMIT_ALL, 1))
    s = await released(path)
    said, go, block = threading.Event(), threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is in force" in record.getMessage():
                said.set()
                go.wait(20)

    @activity.defn
    def slow() -> None:
        block.wait(20)

    @activity.defn
    def queued() -> None:
        happened("ran")

    logger, handler = logging.getLogger("exequatur"), Slow()
    handler.lock = None  # who else logs does not wait
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with ThreadPoolExecutor(1) as pool:
            async with s.worker([OneActivity], [slow, queued], activity_executor=pool, max_concurrent_activities=10):
                await start_one(s, "slow")
                await eventually(lambda: len(s.plugin.gate.running) == 1)
                waiting = await start_one(s, "queued")
                await eventually(lambda: len(s.plugin.gate.running) == 2)
                logger.addHandler(handler)
                path.write_bytes(team.released(PERMIT_ALL + FREEZE_QUEUED, 2))
                await eventually(said.is_set)
                block.set()
                failure = await failure_of(waiting)
                go.set()
        assert (failure.type, deeds(waiting.id)) == ("AuthorizationRevoked", [])
    finally:
        go.set()
        block.set()
        logger.removeHandler(handler)
        logger.setLevel(level)


FREEZE_QUEUED = '@id("no") forbid(principal, action == Action::"queued", resource);'
