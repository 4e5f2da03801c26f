"""Workers whose authority is elsewhere: what runs, and what happens while it is away."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Replayer

from exequatur import (
    AuthorizationDenied,
    AuthorizationPlugin,
    AuthorizationUnavailable,
    OpenChallenge,
    Principal,
    Settings,
    acting_as,
    approve,
    list_challenges,
)
from exequatur.authority.api import APPROVALS_PATH, CREDENTIALS_PATH, RENEWALS_PATH
from exequatur.errors import ConfigurationError
from exequatur.gate.serving import standing_of
from exequatur.gate.wire import START_HEADER
from exequatur.identity.credential import LOCAL_TYPE, Credential
from exequatur.integrity.guard import Guard
from exequatur.integrity.manifest import Manifest
from exequatur.lineage.record import read
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Approval, Receipt
from tests.gate.conftest import Stage, deeds, events, failure_of, happened, sandbox, start_headers, unique
from tests.integrity.test_manifest import MEASURED
from tests.remote.conftest import SHOP
from tests.remote.parties import AuthorityProcess, Between, between

TIMEOUT = timedelta(seconds=60)

Remote = Callable[..., Awaitable[Stage]]


@activity.defn
async def act(text: str) -> str:
    happened(text)
    return text.upper()


@activity.defn
async def delete(text: str) -> str:
    happened(text)
    return text


@activity.defn
async def pay(text: str) -> str:
    happened(text)
    return text


@activity.defn
async def left(text: str) -> str:
    """Is completed from outside."""
    happened(activity.info().task_token)
    activity.raise_complete_async()


@activity.defn
async def long(text: str) -> str:
    """Goes on until it is told that its authorization has ended, or for a moment on its second attempt."""
    happened(f"begun {activity.info().attempt}")
    if activity.info().attempt == 1:
        while True:
            activity.heartbeat(text)
            await asyncio.sleep(0.02)
    return str(activity.info().heartbeat_details[0])


@workflow.defn
class One:
    @workflow.run
    async def run(self, name: str, text: str) -> str:
        return await workflow.execute_activity(
            name,
            text,
            result_type=str,
            start_to_close_timeout=TIMEOUT,
            heartbeat_timeout=TIMEOUT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=1.0),
        )


@workflow.defn(failure_exception_types=[Exception])
class Handing:
    """Runs an activity and hands over to another run, each after a while; it catches whatever it can."""

    @workflow.run
    async def run(self, handed: int, before: float, after: float) -> str:
        await asyncio.sleep(before)
        try:
            result: str = await workflow.execute_activity(act, f"run {handed}", start_to_close_timeout=TIMEOUT)
        except Exception as err:
            return repr(err)
        await asyncio.sleep(after)
        if handed == 0:
            workflow.continue_as_new(args=[1, 0.0, 0.0])
        return result


async def eventually(condition: Callable[[], Any]) -> None:
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")


async def its_timer(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until the run waits for a timer."""
    for _ in range(1500):
        if any(event.HasField("timer_started_event_attributes") for event in await events(handle)):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no timer was started")


async def last_task_failure(handle: WorkflowHandle[Any, Any]) -> str:
    """Why the run's last workflow task failed, once one has."""
    for _ in range(1500):
        for event in reversed(await events(handle)):
            if event.HasField("workflow_task_failed_event_attributes"):
                return event.workflow_task_failed_event_attributes.failure.message
        await asyncio.sleep(0.02)
    raise AssertionError("no workflow task has failed")


def past(stage: Stage, seconds: float) -> None:
    """Let this worker's clock show another time, though not for the age of the revocation feed."""
    stage.plugin.gate.clock = lambda: time.time() + seconds
    stage.plugin.gate.revocations.clock = time.time


# With the authority there.


async def test_a_workflow_runs_and_its_worker_holds_no_key_but_its_own(
    running_authority: AuthorityProcess, remote: Remote
) -> None:
    s = await remote(running_authority.url)
    async with s.worker([One], [act]):
        handle = await s.start(One, "act", "hello")
        assert await handle.result() == "HELLO"
        assert s.plugin.in_force.sequence == 1
        assert s.plugin.gate.workload.id == "spiffe://exequatur.local/workers/one"
    assert deeds(handle.id) == ["hello"]
    folder = s.plugin._serving._state_dir
    assert not (folder / "keys").exists()
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    [receipt] = [
        claims for claims in s_receipts(s) if claims.decision == "allow" and claims.run_id == handle.result_run_id
    ]
    assert receipt.outcome == "completed"


def s_receipts(stage: Stage) -> list[Receipt]:
    files = sorted((stage.plugin._serving._state_dir / "journal").glob("*.db"))
    return [
        parse(each.body.decode().partition("~")[0], Receipt).claims
        for file in files
        for each in read(file)
        if each.kind == "receipt"
    ]


async def test_what_policies_forbid_is_refused_by_authority_and_gate(
    running_authority: AuthorityProcess, remote: Remote
) -> None:
    s = await remote(running_authority.url)
    async with s.worker([One], [act, delete]):
        handle = await s.start(One, "delete", "records")
        error = await failure_of(handle)
        assert "records are kept" in error.message
        assert deeds(handle.id) == []
        with acting_as(Principal("User", "stranger")), pytest.raises(AuthorizationDenied, match="strangers"):
            await s.start(One, "act", "hello")


async def test_a_worker_that_gets_no_credential_says_why_once_and_where_it_waits(
    running_authority: AuthorityProcess, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    s = await remote(running_authority.url, Principal("User", "stranger"))
    asked = s.plugin.gate.renew_credential
    times: list[float] = []
    s.plugin.gate.renew_credential = lambda: (times.append(time.time()), asked())[1]
    async with s.worker([One], [act]):
        await eventually(lambda: len(times) >= 3)
        standing = standing_of(s.plugin.gate)
    assert [each for each in caplog.messages if "got no new credential" in each] == [
        f"This worker got no new credential, and goes on asking: {s.plugin.gate.workload.problem}"
    ]
    assert (standing.unavailable or "").startswith("this worker has no credential: User::")
    assert (standing.namespaces, standing.task_queues) == (("default",), (s.queue,))


async def test_a_history_of_it_replays(running_authority: AuthorityProcess, remote: Remote) -> None:
    s = await remote(running_authority.url)
    async with s.worker([One, Handing], [act]):
        one, handing = await s.start(One, "act", "hello"), await s.start(Handing, 0, 0.0, 0.0)
        await one.result()
        assert await handing.result() == "RUN 1"
    replayer = Replayer(workflows=[One, Handing], plugins=[s.plugin], workflow_runner=sandbox())
    last = s.client.get_workflow_handle(handing.id)
    first = s.client.get_workflow_handle(handing.id, run_id=handing.result_run_id)
    for each in (one, first, last):
        await replayer.replay_workflow(await each.fetch_history())


@pytest.mark.rule("remote.N10")
async def test_a_grant_is_renewed_by_the_authority_and_only_for_the_run_that_asks(
    own_authority: Callable[..., AuthorityProcess], remote: Remote
) -> None:
    # Long enough that the activity ends within a grant, also where everything is slow.
    authority = own_authority(grant_ttl="5s", start_within="5s")
    authority.start()
    with between(authority.url) as middle:
        s = await remote(middle.url)
        async with s.worker([Handing], [act]):
            another = await grant_of(await s.start(Handing, 1, 30.0, 0.0))
            middle.answered[RENEWALS_PATH] = lambda _: {"grant": another}
            handle = await s.start(Handing, 1, 6.5, 0.0)
            await eventually(lambda: len(middle.bodies(RENEWALS_PATH)) > 1)
            assert deeds(handle.id) == []
            middle.clear()
            assert await handle.result() == "RUN 1"
    assert deeds(handle.id) == ["run 1"]


async def grant_of(handle: WorkflowHandle[Any, Any]) -> str:
    [payload] = (await start_headers(handle)).values()
    return str(json.loads(payload.data))


@pytest.mark.rule("remote.N11")
async def test_people_agree_through_the_authority(middle: Between, remote: Remote) -> None:
    s = await remote(middle.url)
    async with s.worker([One], [pay]):
        handle = await s.start(One, "pay", "500")
        found: list[OpenChallenge] = []
        while not found:
            await asyncio.sleep(0.05)
            found = list((await list_challenges(s.client, s.plugin, workflow_id=handle.id)).challenges)
        with pytest.raises(AuthorizationDenied, match="nobody but finance"):
            await approve(s.client, s.plugin, found[0], principal=Credential('User::"eve"', LOCAL_TYPE))
        middle.asked[APPROVALS_PATH] = lambda body: body | {"reason": "because I say so"}
        dana = Principal("User", "dana", parents=['Role::"finance"'])
        with pytest.raises(AuthorizationUnavailable, match="something else than what was decided"):
            await approve(s.client, s.plugin, found[0], principal=dana)
        middle.clear()
        middle.answered[APPROVALS_PATH] = lambda said: {
            "approval": sign(parse(said["approval"], Approval).claims, SigningKey.generate()).text
        }
        with pytest.raises(AuthorizationUnavailable, match="a key that its challenge does not name"):
            await approve(s.client, s.plugin, found[0], principal=dana)
        middle.clear()
        assert deeds(handle.id) == []
        approval = await approve(s.client, s.plugin, found[0], principal=dana, reason="fine")
        assert (approval.sub, approval.reason) == ('User::"dana"', "fine")
        assert await handle.result() == "500"
    assert deeds(handle.id) == ["500"]


async def test_an_activity_is_completed_from_outside(
    running_authority: AuthorityProcess, remote: Remote, stage: Callable[..., Any], tmp_path: Path
) -> None:
    """By a process that runs no worker, and is credentialed for this."""
    s = await remote(running_authority.url)
    settings = Settings(policy_keys=str(s.plugin.gate.settings.policy_keys))
    outside = AuthorizationPlugin(
        running_authority.url, principal=SHOP, state_dir=tmp_path / "outside", settings=settings
    )
    client = await s.connect(outside)
    async with s.worker([One], [left]):
        handle = await s.start(One, "left", "hello")
        await eventually(lambda: deeds(handle.id))
        await client.get_async_activity_handle(task_token=deeds(handle.id)[0]).complete("from outside")
        assert await handle.result() == "from outside"


# While it is away.


def ready(stage: Stage) -> bool:
    return stage.plugin.gate.unavailable() is None


@pytest.mark.rule("U4")
async def test_a_worker_that_starts_while_the_authority_is_away_waits_for_it(middle: Between, remote: Remote) -> None:
    s = await remote(middle.url)
    middle.away = True
    with pytest.raises(AuthorizationUnavailable, match="502"):
        await s.start(One, "act", "hello")
    async with s.worker([One], [act]):
        await eventually(lambda: "502" in (s.plugin.gate.workload.problem or ""))
        assert "no policies yet" in (s.plugin.gate.policy.ended(time.time()) or "")
        assert not ready(s)
        middle.away = False
        await eventually(lambda: ready(s))
        handle = await s.start(One, "act", "hello")
        assert await handle.result() == "HELLO"
    assert deeds(handle.id) == ["hello"]


async def test_what_is_valid_stays_valid_and_nothing_new_is_issued(middle: Between, remote: Remote) -> None:
    s = await remote(middle.url)
    async with s.worker([Handing], [act]):
        handle = await s.start(Handing, 1, 1.0, 0.0)
        await eventually(lambda: ready(s))
        middle.away = True
        with pytest.raises(AuthorizationUnavailable) as away:
            await s.start(One, "act", "hello")
        assert not away.value.non_retryable
        assert await handle.result() == "RUN 1"
    assert deeds(handle.id) == ["run 1"]


async def test_a_worker_starts_again_with_what_it_had_learned(middle: Between, remote: Remote) -> None:
    """Anchors and policies are at hand; the credential is not, so nothing is authorized."""
    first = await remote(middle.url)
    async with first.worker([One], [act]):
        await (await first.start(One, "act", "hello")).result()
    middle.away = True
    again = await remote(middle.url)
    async with again.worker([One], [act]):
        await eventually(lambda: "502" in (again.plugin.gate.workload.problem or ""))
        assert list(again.plugin.gate.trust)
        assert again.plugin.in_force.sequence == 1
        assert not ready(again)


@pytest.mark.rule("U7")
async def test_an_activity_outlives_its_workers_credential_only_as_another_attempt(
    middle: Between, remote: Remote
) -> None:
    s = await remote(middle.url)
    async with s.worker([One], [long]):
        handle = await s.start(One, "long", "half way")
        await eventually(lambda: deeds(handle.id))
        middle.away = True
        past(s, 3601)
        await eventually(lambda: not s.plugin.gate.running)
        assert deeds(handle.id) == ["begun 1"]
        past(s, 0)
        middle.away = False
        assert await handle.result() == "half way"
    assert deeds(handle.id) == ["begun 1", "begun 2"]


@pytest.mark.rule("U7")
async def test_nothing_is_authorized_in_the_last_moments_of_a_credential(
    running_authority: AuthorityProcess, remote: Remote
) -> None:
    """What is signed then may be looked at after it has ended."""
    s = await remote(running_authority.url)
    async with s.worker([One], [act]):
        await eventually(lambda: ready(s))
        past(s, 3597)
        assert s.plugin.gate.workload.valid(s.plugin.gate.clock())
        assert "credential has ended" in (s.plugin.gate.unavailable() or "")


@pytest.mark.rule("F11")
async def test_a_result_that_nothing_can_prove_is_tried_for_again(middle: Between, remote: Remote) -> None:
    """The credential ends in the very moment in which the body returns."""
    s = await remote(middle.url)

    @activity.defn(name="leaping")
    async def leaping(text: str) -> str:
        happened(text)
        if activity.info().attempt == 1:
            middle.away = True
            past(s, 3601)
        return text

    async with s.worker([One], [leaping]):
        handle = await s.start(One, "leaping", "hello")
        await eventually(lambda: deeds(handle.id) and not s.plugin.gate.running)
        past(s, 0)
        middle.away = False
        assert await handle.result() == "hello"
    assert deeds(handle.id) == ["hello", "hello"]


@pytest.mark.rule("W13")
@pytest.mark.parametrize(
    ("before", "after", "done"), [(1.0, 0.0, []), (0.0, 1.0, ["run 0"])], ids=["asks", "hands over"]
)
async def test_a_run_signs_nothing_with_a_credential_that_has_ended(
    running_authority: AuthorityProcess, remote: Remote, before: float, after: float, done: list[str]
) -> None:
    """Its task fails and is tried again, although its code catches every exception; nothing is lost."""
    s = await remote(running_authority.url)
    async with s.worker([Handing], [act]):
        handle = await s.start(Handing, 0, before, after)
        await its_timer(handle)
        past(s, 3601)
        assert "credential has ended" in await last_task_failure(handle)
        assert deeds(handle.id) == done
        past(s, 0)
        assert await handle.result() == "RUN 1"
    assert deeds(handle.id) == ["run 0", "run 1"]


@pytest.mark.rule("U6")
async def test_an_altered_worker_asks_for_no_other_credential(middle: Between, remote: Remote) -> None:
    """Neither when half of its life is over nor when it has ended; what runs ends, and nothing begins."""
    s = await remote(middle.url, policy_poll_interval="50ms")
    gate, asked = s.plugin.gate, lambda: len(middle.bodies(CREDENTIALS_PATH))
    async with s.worker([One], [act, long]):
        await eventually(lambda: ready(s))
        before = asked()
        past(s, 2400)
        await eventually(lambda: asked() > before)  # it would
        past(s, 0)
        gate.guard = guard = Guard(Manifest("", "worker", "", "A" * 43, MEASURED), Settings(), gate.integrity_changed)
        handle = await s.start(One, "long", "half way")
        await eventually(lambda: deeds(handle.id))
        guard._violated(["a file was changed"])
        error = await failure_of(handle)
        assert (error.type, error.message) == ("AuthorizationRevoked", guard.violation)
        before, later = asked(), await s.start(One, "act", "hello")
        for seconds in (2400, 3601):
            past(s, seconds)
            await asyncio.sleep(0.5)
        assert asked() == before
        assert deeds(handle.id) + deeds(later.id) == ["begun 1"]
    [record] = [
        each
        for file in sorted((s.plugin._serving._state_dir / "journal").glob("*.db"))
        for each in read(file)
        if each.kind == "integrity"
    ]
    assert json.loads(record.body)["differences"] == ["a file was changed"]


async def test_a_worker_ends_while_its_authority_is_silent_and_leaves_no_thread(
    middle: Between, remote: Remote
) -> None:
    async def silent(_: Any) -> None:
        await asyncio.sleep(60)

    before = set(threading.enumerate())
    middle.instead[CREDENTIALS_PATH] = silent
    s = await remote(middle.url, authority_timeout="1s", policy_poll_interval="50ms")
    async with s.worker([One], [act]):
        await eventually(lambda: middle.bodies(CREDENTIALS_PATH))
    left = [each for each in threading.enumerate() if each not in before and each.name.startswith("exequatur")]
    names = {"exequatur-authority", "exequatur-refresh_0"}  # of the plugin, which may serve another worker
    await eventually(lambda: {each.name for each in left if each.is_alive()} <= names)


# How it is set up.


async def test_a_worker_without_policies_does_not_start(running_authority: AuthorityProcess, remote: Remote) -> None:
    s = await remote(running_authority.url, policy_keys=None)
    with pytest.raises(ConfigurationError, match="policy_keys"):
        async with s.worker([One], [act]):
            await asyncio.sleep(5)


async def test_a_process_that_only_starts_workflows_needs_no_policies(
    running_authority: AuthorityProcess, remote: Remote
) -> None:
    s = await remote(running_authority.url, policy_keys=None)
    handle = await s.start(One, "act", "hello", id=unique("only"))
    first = (await events(handle))[0].workflow_execution_started_event_attributes
    assert START_HEADER in first.header.fields
