"""Workers go by the feed, wherever it is kept, and stop when they cannot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle

from exequatur import AuthorizationPlugin, Settings
from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.failures import AuthorizationUnavailable
from exequatur.gate.backing import backed_by
from exequatur.identity.workload import CredentialOrder
from exequatur.revocation.following import FollowedRevocations
from exequatur.statements.keys import SigningKey
from tests.gate.conftest import BOT, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, grant_of, start_one
from tests.integrity.test_gate import guarded

SOON = {"unavailable_wait": "200ms", "unavailable_retry_delay": "200ms"}


@activity.defn
async def quick() -> str:
    happened("ran")
    return "done"


@activity.defn
async def sleeps() -> None:
    happened("began")
    await asyncio.sleep(60)


@activity.defn
async def beats() -> None:
    happened("began")
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.02)


@activity.defn
def in_thread() -> None:
    happened("began")
    while True:
        time.sleep(0.02)


BODIES = [quick, sleeps, beats, in_thread]


def itself(s: Stage, what: str) -> str:
    """What a revocation names of this stage's worker."""
    credential = s.plugin.gate.workload.credential
    return {
        "worker": credential.claims.sub,
        "key": s.plugin.gate.workload.kid,
        "bundle": s.plugin.gate.policy.bundle.digest,
        "authority": credential.kid,
    }[what]


async def running(s: Stage, *bodies: Callable[..., Any], **options: Any) -> list[WorkflowHandle[Any, Any]]:
    handles = [await start_one(s, body, heartbeat=10, **options) for body in bodies]
    await eventually(lambda: all(deeds(handle.id) for handle in handles))
    return handles


@pytest.mark.rule("U8")
@pytest.mark.rule("A5")
@pytest.mark.parametrize("what", ["worker", "key", "bundle", "authority"])
async def test_a_worker_that_is_revoked_ends_what_runs_and_begins_nothing(stage: Callable[..., Any], what: str) -> None:
    s = await stage(**SOON)
    async with s.worker([OneActivity], BODIES):
        handles = await running(s, sleeps, beats)
        waiting = await start_one(s, quick)
        assert await waiting.result() == "done"
        name = "key" if what == "authority" else what
        entry = s.plugin.revoke(**{name: itself(s, what)}, reason="it was taken over")
        for handle in handles:
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationRevoked"
            assert "it was taken over" in failure.message
        why = s.plugin.gate.unavailable()
        assert why is not None
        assert "it was taken over" in why
        if what != "authority":
            s.plugin.lift(entry, reason="it is ours again")
            later = await start_one(s, quick)
            assert await later.result() == "done"


@pytest.mark.rule("U8")
async def test_workers_of_a_revoked_code_end_what_runs_and_begin_nothing(stage: Callable[..., Any]) -> None:
    s = await stage(**SOON)
    async with s.worker([OneActivity], BODIES):
        await guarded(s)
        handles = await running(s, sleeps, beats)
        s.plugin.revoke(code="A" * 43, reason="it has a hole")
        for handle in handles:
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationRevoked"
            assert "it has a hole" in failure.message
        assert "it has a hole" in (s.plugin.gate.unavailable() or "")


@pytest.mark.rule("A5")
@pytest.mark.parametrize("what", ["grant", "principal", "workflow", "activity", "everything"])
async def test_what_is_revoked_ends_whether_or_not_it_heartbeats(stage: Callable[..., Any], what: str) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        for body in (sleeps, beats):
            [handle] = await running(s, body)
            [others] = await running(s, in_thread)
            named = {
                "grant": (await grant_of(handle)).jti,
                "principal": str(BOT),
                "workflow": handle.id,
                "activity": body.__name__,
                "everything": True,
            }
            entry = s.plugin.revoke(**{what: named[what]}, reason="stop that")
            failure = await failure_of(handle)
            assert (failure.type, "stop that" in failure.message) == ("AuthorizationRevoked", True)
            if what in ("principal", "everything"):
                assert (await failure_of(others)).type == "AuthorizationRevoked"
            else:
                assert others.id in {each.attempt.info.workflow_id for each in s.plugin.gate.running}
            s.plugin.lift(entry, reason="go on")


async def test_other_workers_keys_and_bundles_are_no_matter(stage: Callable[..., Any]) -> None:
    s = await stage()
    for name in ("worker", "key", "bundle", "code"):
        s.plugin.revoke(**{name: "another"}, reason="not us")
    async with s.worker([OneActivity], BODIES):
        assert await (await start_one(s, quick)).result() == "done"


@pytest.mark.rule("A5")
async def test_what_a_revoked_worker_asked_for_is_refused_by_others(stage: Callable[..., Any]) -> None:
    s = await stage()
    other = await stage(state=s.state)
    for each in (s, other):
        # As on another host, where the process has another name.
        issue = each.plugin._authority.issue_credential
        name = f"spiffe://exequatur.local/worker/{id(each)}"
        each.plugin.gate.workload._issuer.issue_credential = lambda order, issue=issue, name=name: issue(
            order, worker=name
        )
    async with s.worker([OneActivity], []), other.worker([], BODIES, queue=s.queue):
        await eventually(lambda: not s.plugin.gate.unavailable() and not other.plugin.gate.unavailable())
        asked = s.plugin.gate.workload.credential.claims.sub
        assert asked != other.plugin.gate.workload.credential.claims.sub
        s.plugin.revoke(worker=asked, reason="it was steered")
        await eventually(lambda: other.plugin.gate.revocations.version == 1)
        handle = await start_one(s, quick)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "it was steered" in failure.message
    assert deeds(handle.id) == []


@pytest.mark.rule("A5")
async def test_every_key_that_a_request_stands_on_can_be_revoked(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, quick)
        await handle.result()
        grant_key = s.plugin._authority._state.signer("grant").kid
        s.plugin.revoke(key=grant_key, reason="the grant key leaked")
        second = await start_one(s, quick)
        failure = await failure_of(second)
    assert failure.type == "GrantRejected"
    assert "the grant key leaked" in failure.message
    assert deeds(second.id) == []


@pytest.mark.rule("I9")
async def test_a_revoked_worker_or_key_gets_no_credential(stage: Callable[..., Any]) -> None:
    s = await stage()
    key = SigningKey.generate()
    order = CredentialOrder(key.public, ("request",), ("default",), ("q",), ("*",))
    assert s.plugin._authority.issue_credential(order)
    s.plugin.revoke(key=key.kid, reason="it was copied")
    with pytest.raises(ExequaturError, match="it was copied"):
        s.plugin._authority.issue_credential(order)
    s.plugin.revoke(worker="spiffe://exequatur.local/fleet/7", reason="scrapped")
    other = replace(order, key=SigningKey.generate().public)
    with pytest.raises(ExequaturError, match="scrapped"):
        s.plugin._authority.issue_credential(other, worker="spiffe://exequatur.local/fleet/7")
    assert s.plugin._authority.issue_credential(other, worker="spiffe://exequatur.local/fleet/8")


async def test_a_revocation_that_ends_or_is_lifted_lets_what_comes_later_pass(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        number = s.plugin.revoke(activity="quick", reason="for now", until=time.time() + 3600)
        assert (await failure_of(await start_one(s, quick))).type == "GrantRejected"
        s.plugin.lift(number, reason="enough")
        assert await (await start_one(s, quick)).result() == "done"
        s.plugin.revoke(everything=True, reason="fire", until=time.time() + 1.5)
        await eventually(lambda: s.plugin.gate.revocations.find({}) is None)
        assert await (await start_one(s, quick)).result() == "done"
        with pytest.raises(ConfigurationError, match="lifted already"):
            s.plugin.lift(number, reason="again")


@pytest.mark.rule("U3")
@pytest.mark.rule("B3")
async def test_a_feed_that_cannot_be_read_ends_what_runs_when_it_lapses(stage: Callable[..., Any]) -> None:
    s = await stage(**SOON)
    async with s.worker([OneActivity], BODIES):
        handles = await running(s, sleeps, beats, in_thread)
        (s.state / "revocations").write_text("nonsense\n")
        await eventually(lambda: s.plugin.gate.revocations.problem)
        # What is known counts as long as it is fresh.
        assert not s.plugin.gate.revocations.lapsed
        assert len(s.plugin.gate.running) == 3
        s.plugin.gate.revocations._read_at -= 60
        for handle in handles:
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationUnavailable"
            assert "what is revoked" in failure.message


@pytest.fixture
async def following(stage: Callable[..., Any], tmp_path: Path) -> tuple[Stage, Stage]:
    """An authority that runs a worker of its own, and a worker elsewhere that follows its folder."""
    keeper = await stage()
    folder = tmp_path / "elsewhere"
    folder.mkdir(mode=0o700)
    for name in ("issuer", "trust.jwks"):
        (folder / name).write_bytes((keeper.state / name).read_bytes())
        (folder / name).chmod(0o600)
    (folder / "keys").mkdir(mode=0o700)
    for key in (keeper.state / "keys").iterdir():
        (folder / "keys" / key.name).write_bytes(key.read_bytes())
        (folder / "keys" / key.name).chmod(0o600)
    plugin = AuthorizationPlugin.embedded(
        keeper.policies,
        state_dir=folder,
        principal=BOT,
        settings=Settings(revocation_feed=str(keeper.state), revocation_freshness="5s", **SOON),
    )
    return keeper, await stage(plugin=plugin, state=folder)


async def test_a_worker_follows_the_folder_of_its_authority_and_ends_what_is_revoked_there(
    following: tuple[Stage, Stage],
) -> None:
    keeper, s = following
    assert isinstance(s.plugin.gate.revocations, FollowedRevocations)
    async with keeper.worker([], [quick], queue="elsewhere"), s.worker([OneActivity], BODIES):
        await eventually(lambda: s.plugin.gate.unavailable() is None)
        [handle] = await running(s, sleeps)
        keeper.plugin.revoke(workflow=handle.id, reason="stop there")
        failure = await failure_of(handle)
        assert failure.type == "AuthorizationRevoked"
        assert "stop there" in failure.message
        with pytest.raises(ConfigurationError, match="Revoke where that is kept"):
            s.plugin.revoke(workflow="w", reason="here")
    [receipt] = s.receipts(handle)
    assert receipt.revocations.version == 1


@pytest.mark.rule("U3")
async def test_a_followed_feed_that_falls_silent_stops_the_worker(following: tuple[Stage, Stage]) -> None:
    keeper, s = following
    async with s.worker([OneActivity], BODIES):
        async with keeper.worker([], [quick], queue="elsewhere"):
            await eventually(lambda: s.plugin.gate.unavailable() is None)
            [handle] = await running(s, sleeps)
            waiting = await start_one(s, quick, attempts=0, start_delay=timedelta(seconds=1))
        # Nobody signs any more.
        s.plugin.gate.revocations._came -= 60
        assert "what is revoked" in (s.plugin.gate.unavailable() or "")
        assert (await failure_of(handle)).type == "AuthorizationUnavailable"
        with pytest.raises(AuthorizationUnavailable, match="what is revoked"):
            await start_one(s, quick)
        await asyncio.sleep(1)
        assert deeds(waiting.id) == []
        async with keeper.worker([], [quick], queue="elsewhere"):
            assert await waiting.result() == "done"


async def test_the_evidence_has_the_entries_with_their_numbers(stage: Callable[..., Any]) -> None:
    s = await stage()
    s.plugin.revoke(workflow="a", reason="one")
    s.plugin.revoke(key="k", reason="two", until=time.time() + 60)
    s.plugin.lift(1, reason="three")
    async with s.worker([OneActivity], [quick]):
        await (await start_one(s, quick)).result()
    bodies = [record.body for record in s.records("revocation")]
    assert bodies == [entry.line for entry in s.plugin.gate.revocations.entries]


async def test_what_came_along_names_its_keys_workers_and_code(stage: Callable[..., Any]) -> None:
    s = await stage()
    token = await s.grant("OneActivity", "w")
    backed = backed_by([token.text])
    assert backed.keys == {token.kid}
    assert backed.workers == backed.code == frozenset()
