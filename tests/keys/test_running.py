"""Keys change while workflows run: nothing is interrupted, and old and new histories replay and are believed."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Replayer

from exequatur import AuthorizationPlugin, AuthorizationUnavailable, Principal
from exequatur.audit.history import read_history
from exequatur.audit.report import RunReport, Verdict
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.authority.keyring import KEYS, KeyRole
from exequatur.authority.rotation import retire, revoke, rotate, take
from exequatur.authority.state import State
from exequatur.gate.issuing import ApprovalOrder, GrantOrder
from exequatur.gate.wire import activity_header, read_start_header
from exequatur.revocation.entry import revocation
from exequatur.revocation.store import FolderStore
from exequatur.statements.anchors import Anchors
from exequatur.statements.jws import parse, sign
from exequatur.statements.models import Approval, Grant
from tests.asking import challenge_of, plugin_in
from tests.gate import test_nexus as nexus
from tests.gate import test_standalone as lone
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened, sandbox, start_headers, unique
from tests.keys import kms

FAY = Principal("User", "fay")
QUICKLY = timedelta(seconds=1)
"""A workflow task that meets a key that is not known is tried again after so long."""


@activity.defn
async def work(step: int) -> int:
    happened(step)
    return step


@activity.defn
async def work_on() -> None:
    happened("began")
    for _ in range(600):
        activity.heartbeat()
        await asyncio.sleep(0.05)


@workflow.defn
class Steps:
    """Does one step when it starts and one for each signal."""

    def __init__(self) -> None:
        self.wanted = 1

    @workflow.run
    async def run(self, steps: int) -> list[int]:
        done: list[int] = []
        while len(done) < steps:
            await workflow.wait_condition(lambda: self.wanted > len(done))
            done.append(await workflow.execute_activity(work, len(done), start_to_close_timeout=timedelta(seconds=10)))
        return done

    @workflow.signal
    def go(self) -> None:
        self.wanted += 1


@workflow.defn
class Long:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            work_on,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


@workflow.defn
class Elsewhere:
    """Its activity is another worker's."""

    @workflow.run
    async def run(self, queue: str) -> int:
        return await workflow.execute_activity(work, 1, task_queue=queue, start_to_close_timeout=timedelta(seconds=10))


WORKFLOWS = [Steps, Long, Elsewhere]


def state_of(plugin: AuthorizationPlugin) -> State:
    authority: Any = plugin._authority
    state: State = authority._state
    return state


def deaf(plugin: AuthorizationPlugin) -> Anchors:
    """Let a plugin look for new anchors only when it meets a key that it does not know, and never for a new ring."""
    anchors, ring = plugin.gate.anchors, state_of(plugin).ring
    assert anchors is not None
    anchors._every, ring._look = 1e9, lambda: ring._seen
    return anchors


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen")


async def grant_key(handle: WorkflowHandle[Any, Any]) -> str:
    """Which key signed the grant that a run was started with."""
    tokens = read_start_header(await start_headers(handle))
    assert tokens is not None
    return parse(tokens[0], Grant).kid


async def replays(plugin: AuthorizationPlugin, handle: WorkflowHandle[Any, Any]) -> None:
    replayer = Replayer(workflows=WORKFLOWS, plugins=[plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


async def audited(s: Stage, handle: WorkflowHandle[Any, Any]) -> RunReport:
    file = s.path / f"{handle.id}.json"
    file.write_text((await handle.fetch_history()).to_json())
    with OpenEvidence([str(s.state)]) as evidence:
        return audit_run(read_history(file), evidence, read_trust(s.state / "trust.jwks"))


async def test_keys_are_rotated_and_retired_in_the_middle_of_running_workflows(stage):
    s: Stage = await stage()
    client = await stage(state=s.state)  # another process that starts workflows: it holds the keys, too
    old = {role: state_of(s.plugin).signer(role).kid for role in KEYS}
    async with s.worker(WORKFLOWS, [work]):
        before = await s.start(Steps.run, 3, client=client.client)
        await until(lambda: deeds(before.id) == [0])
        new = {role: rotate(s.state, role, 0).key.kid for role in KEYS}
        assert {state_of(each.plugin).signer("grant").kid for each in (s, client)} == {new["grant"]}
        await client.client.get_workflow_handle(before.id).signal(Steps.go)
        await until(lambda: deeds(before.id) == [0, 1])
        for kid in old.values():
            retire(s.state, kid)
        after = await s.start(Steps.run, 2, client=client.client)
        for handle in (before, after):
            await client.client.get_workflow_handle(handle.id).signal(Steps.go)
        assert await before.result() == [0, 1, 2]
        assert await after.result() == [0, 1]
    assert (await grant_key(before), await grant_key(after)) == (old["grant"], new["grant"])
    fresh = await stage(state=s.state)
    for handle in (before, after):
        await replays(s.plugin, handle)
        await replays(fresh.plugin, handle)
        report = await audited(s, handle)
        assert report.verdict is Verdict.VERIFIED, report.findings


@pytest.mark.rule("T6")
async def test_workers_that_have_not_learned_a_key_look_for_it_and_lose_nothing(stage):
    s: Stage = await stage()
    there = await stage(state=s.state)
    async with s.worker([Elsewhere], []), there.worker([], [work]):
        for each in (s, there):
            deaf(each.plugin)
        new = rotate(s.state, "grant", 0).key
        client = await stage(state=s.state)
        handle = await s.start(Elsewhere.run, there.queue, client=client.client, task_timeout=QUICKLY)
        assert await handle.result() == 1
    assert deeds(handle.id) == [1]
    assert await grant_key(handle) == new.kid
    await replays(s.plugin, handle)


@pytest.mark.rule("T6")
async def test_an_operation_under_a_key_that_was_not_learned_yet_waits_and_runs(stage):
    s: Stage = await stage()
    there, key = await stage(state=s.state), unique()
    async with s.worker([nexus.Caller], []), there.worker([], [], **nexus.serving(there)):
        endpoint = await nexus.endpoint_for(there)
        deaf(there.plugin)
        rotate(s.state, "grant", 0)
        client = await stage(state=s.state)
        s.plugin.gate.trust.learn((s.state / "trust.jwks").read_bytes())
        handle = await s.start(nexus.Caller.run, endpoint, "note", key, client=client.client)
        assert await handle.result() == key
    assert len(nexus.handled(key)) == 1


@pytest.mark.rule("T6")
async def test_while_the_anchors_cannot_be_read_an_unknown_key_is_neither_believed_nor_refused(stage):
    s: Stage = await stage()
    there = await stage(state=s.state, unavailable_wait="100ms", unavailable_retry_delay="200ms")
    async with s.worker([Elsewhere], []), there.worker([], [work]):
        anchors = deaf(there.plugin)
        rotate(s.state, "grant", 0)
        client = await stage(state=s.state)
        whole = (s.state / "trust.jwks").read_bytes()
        s.plugin.gate.trust.learn(whole)
        (s.state / "trust.jwks").write_bytes(whole[:-40])
        handle = await s.start(Elsewhere.run, there.queue, client=client.client, task_timeout=QUICKLY)
        await until(lambda: anchors.problem is not None)
        assert anchors.asked(state_of(client.plugin).signer("grant").kid), "it may still become known"
        assert deeds(handle.id) == []
        (s.state / "trust.jwks").write_bytes(whole)
        assert await handle.result() == 1
    assert deeds(handle.id) == [1]


@pytest.mark.rule("T6")
async def test_what_stands_on_a_key_that_nobody_published_is_refused_after_one_look(stage):
    s: Stage = await stage()
    async with s.worker([], [lone.charge]):
        honest = await lone.begin(s, lone.charge, lone.Order(5))
        assert await honest.result() == lone.Order(5)
        name = unique("forged")
        claims = (await lone.permit_of(s, honest)).model_copy(update={"target": name})
        client = await lone.with_header(s, activity_header([sign(claims, kms.OTHER).text], ()))
        forged = await lone.begin(s, lone.charge, lone.Order(5), client=client, id=name)
        failure = await lone.failure_of(forged)
    assert failure.type == "GrantRejected"
    assert "[T1]" in failure.message
    assert lone._done[name] == []


async def test_a_revoked_key_ends_what_stands_on_it_and_the_next_one_goes_on(stage):
    s: Stage = await stage()
    old = {role: state_of(s.plugin).signer(role).kid for role in ("grant", "credential")}
    async with s.worker(WORKFLOWS, [work, work_on]):
        handle = await s.start(Long.run)
        await until(lambda: deeds(handle.id) == ["began"])
        for role, kid in old.items():
            rotate(s.state, role, 0)
            revoke(s.state, kid, lambda key: FolderStore(s.state).add(revocation(key=key.kid, reason="it was stolen")))
        failure = await failure_of(handle)
        assert failure.type == "AuthorizationRevoked"
        assert "it was stolen" in failure.message
        await until(lambda: s.plugin.gate.unavailable() is None)
        after = await s.start(Steps.run, 1)
        assert await after.result() == [0]
    assert await grant_key(after) != old["grant"]
    assert (await audited(s, after)).verdict is Verdict.VERIFIED


# Without a server.


@pytest.fixture
def plugin(tmp_path: Path) -> AuthorizationPlugin:
    return plugin_in(tmp_path)


async def test_an_approval_that_was_asked_for_before_a_rotation_is_signed_with_the_key_that_the_run_knows(plugin):
    state = state_of(plugin)
    asked, old = challenge_of(plugin), state.signer("approval").kid
    new = rotate(state.path, "approval", 0).key.kid
    assert state.signer("approval").kid == new
    order = ApprovalOrder(FAY, *asked, verdict="approve")
    assert parse(await plugin._authority.issue_approval(order), Approval).kid == old
    retire(state.path, old)
    with pytest.raises(Exception, match="does not know this authority's key"):
        await plugin._authority.issue_approval(order)


def grant_order() -> GrantOrder:
    return GrantOrder(Principal("Agent", "bot"), "default", "One", "one-1", "queue", "A" * 43, "once", 0.0)


@pytest.fixture
def permitting(tmp_path: Path) -> AuthorizationPlugin:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(PERMIT_ALL)
    return AuthorizationPlugin.embedded(tmp_path / "policies", state_dir=tmp_path / "state")


async def test_a_key_service_that_is_away_makes_grants_unavailable_and_another_key_makes_them_again(permitting):
    state = state_of(permitting)
    service = kms.signer("first")
    take(state.path, "grant", source="signer:tests.keys.kms:signer", argument="first")
    rotate(state.path, "grant", 0)
    issued = parse(await permitting._authority.issue_grant(grant_order()), Grant)
    state.trust.verify(issued)
    assert issued.kid == service.kid
    service.close()
    kms.signer.cache_clear()
    with pytest.raises(AuthorizationUnavailable, match=r"It could not be signed: tests\.keys\.kms:signer did not sign"):
        await permitting._authority.issue_grant(grant_order())
    rotate(state.path, "grant", 0)
    assert parse(await permitting._authority.issue_grant(grant_order()), Grant).kid != issued.kid


@pytest.mark.parametrize("role", ["grant", "credential"])
def test_a_forged_anchor_file_of_another_authority_is_not_learned(permitting, tmp_path, role: KeyRole):
    state = state_of(permitting)
    other = AuthorizationPlugin.embedded(tmp_path / "policies", state_dir=tmp_path / "other")
    kid = state_of(other).signer(role).kid
    (state.path / "trust.jwks").write_bytes((tmp_path / "other" / "trust.jwks").read_bytes())
    os.utime(state.path / "trust.jwks", ns=(1, 1))
    state.anchors._begun = -1e9
    state.anchors.refresh_if_due()
    assert state.trust.get(kid) is None
    assert "lacks key" in (state.problem or "")
    assert json.loads(state.trust.to_jwks())["keys"]
