"""The end of a release in running workers: nothing begins and nothing goes on under policies that are out of force."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one
from tests.gate.test_releases import in_force, released, team
from tests.release.parties import PolicyTeam, made

__all__ = ["released", "team"]  # fixtures

SOON = 60
TTL = '@id("all") @ttl("1s") permit(principal, action, resource);'


@activity.defn
async def beats() -> str:
    if activity.info().attempt > 1:
        return "again"
    while True:
        try:
            activity.heartbeat()
        except Exception as error:
            happened(type(error).__name__)
            raise
        await asyncio.sleep(0.1)


@activity.defn
def queued() -> str:
    happened("ran")
    return "done"


def end_it(stage: Any) -> None:
    """The release ends now, however slow the machine is."""
    stage.plugin.gate.clock = lambda: time.time() + SOON


def ending(team: PolicyTeam, policies: str = PERMIT_ALL) -> bytes:
    """A release that ends soon."""
    return team.release(made(policies), 1, expires=float(int(time.time()) + SOON)).to_bytes()


@pytest.mark.rule("U5")
@pytest.mark.filterwarnings("ignore:Worker max_concurrent_activities")
async def test_a_body_that_waited_for_a_thread_does_not_begin_under_a_release_that_has_ended(
    released: Callable[..., Any], team: PolicyTeam, tmp_path: Path
) -> None:
    path, go = tmp_path / "policies.bundle", threading.Event()
    path.write_bytes(ending(team))
    s = await released(path, watchdog_interval="5s")

    @activity.defn
    def slow() -> None:
        go.wait(20)

    with ThreadPoolExecutor(1) as pool:
        async with s.worker([OneActivity], [slow, queued], activity_executor=pool, max_concurrent_activities=10):
            await start_one(s, "slow")
            await asyncio.sleep(0.3)
            waiting = await start_one(s, "queued")
            await eventually(lambda: len(s.plugin.gate.running) == 2)
            end_it(s)
            await eventually(s.plugin.gate.unavailable)
            go.set()
            failure = await failure_of(waiting)
    assert (failure.type, deeds(waiting.id)) == ("AuthorizationUnavailable", [])
    assert "release it again" in failure.message


@pytest.mark.rule("U5")
@pytest.mark.parametrize("policies", [PERMIT_ALL, TTL], ids=["until the end", "renewed allows"])
async def test_a_running_body_ends_with_the_release_and_is_tried_again_under_the_next(
    policies: str, released: Callable[..., Any], team: PolicyTeam, tmp_path: Path
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(ending(team, policies))
    s = await released(path, recheck_interval="50ms", watchdog_interval="5s", unavailable_retry_delay="100ms")
    async with s.worker([OneActivity], [beats]):
        handle = await start_one(s, beats, heartbeat=5, attempts=0)
        await eventually(lambda: s.plugin.gate.running)
        end_it(s)
        await eventually(s.plugin.gate.unavailable)
        await eventually(lambda: not s.plugin.gate.running)
        path.write_bytes(team.released(PERMIT_ALL, 2))
        await in_force(s, 2)
        assert await handle.result() == "again"
    assert deeds(handle.id) == ["AuthorizationUnavailable"]
    s.path = tmp_path  # the journals are in its state folder
    ended, again = s.receipts(handle)
    assert [(ended.outcome, ended.decision), (again.outcome, again.decision)] == [
        ("unavailable", "none"),
        ("completed", "allow"),
    ]
    assert "release it again" in (ended.reason or "")
