"""A namespace carries the feed: the control workflow keeps it, and workers follow it with nothing but Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow as workflow_of
from temporalio.client import Client, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur import AuthorizationPlugin, Settings
from exequatur.control.publishing import PASSTHROUGH, ControlPublisher
from exequatur.control.source import ControlSource
from exequatur.control.state import ENTRIES, PUBLISH, TASK_QUEUE, WORKFLOW_ID, Kept, Published
from exequatur.control.workflow import Control
from exequatur.errors import FeedUnreachableError, RevocationFeedError
from exequatur.revocation.entry import revocation
from exequatur.revocation.feed import PAGE_ENTRIES, Feed
from exequatur.revocation.following import FollowedRevocations
from exequatur.statements.keys import SigningKey
from tests import record_control
from tests.gate.conftest import BOT, deeds, failure_of, unique
from tests.gate.single import OneActivity, eventually, start_one
from tests.revocation.conftest import AUD, Authority
from tests.revocation.test_gate import BODIES, quick, running, sleeps

RUNNER = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH))


@pytest.fixture
async def client(target: str) -> Client:
    return await Client.connect(target)


@asynccontextmanager
async def publishing(authority: Authority, client: Client, every: float = 1.0) -> AsyncIterator[ControlPublisher]:
    """``exequatur control`` in this process."""
    publisher = ControlPublisher(authority.own, authority.publisher.page, authority.trust, aud=AUD, every=every)
    stop = asyncio.Event()
    task = asyncio.ensure_future(publisher.run(client, stop=stop))
    try:
        await eventually(lambda: publisher.problem is None or task.done())
        yield publisher
    finally:
        stop.set()
        await task
        await client.get_workflow_handle(WORKFLOW_ID).terminate()


def source_in(client: Client) -> ControlSource:
    source = ControlSource()
    source.attach(client.service_client, client.namespace)
    return source


async def test_what_is_published_is_followed_from_any_thread(
    authority: Authority, client: Client, follow: Callable[..., FollowedRevocations]
) -> None:
    for number in range(PAGE_ENTRIES + 20):  # more than one page
        authority.own._store.add(revocation(workflow=f"w{number}", reason="stop"))
    async with publishing(authority, client):
        worker = follow(source_in(client))
        await worker.look()
        assert (worker.version, worker.doubt()) == (PAGE_ENTRIES + 20, None)
        authority.revoke(everything=True)
        worker.tend()
        await eventually(lambda: worker.find({}))
        assert worker.problem is None


async def test_a_control_workflow_that_was_terminated_is_begun_again(
    authority: Authority, client: Client, follow: Callable[..., FollowedRevocations]
) -> None:
    authority.revoke(workflow="a")
    async with publishing(authority, client):
        worker = follow(source_in(client))
        worker.tend()
        await eventually(lambda: worker.version == 1)
        await client.get_workflow_handle(WORKFLOW_ID).terminate()
        authority.revoke(workflow="b")
        await eventually(lambda: worker.version == 2)
        assert worker.doubt() is None


async def test_a_namespace_without_a_control_workflow_is_silence(client: Client) -> None:
    with pytest.raises(FeedUnreachableError, match="run `exequatur control`"):
        await asyncio.to_thread(source_in(client).fetch, 0, 0.0)
    with pytest.raises(FeedUnreachableError, match="no client"):
        ControlSource().fetch(0, 0.0)


@asynccontextmanager
async def workflow(authority: Authority, client: Client, kept: Kept | None = None) -> AsyncIterator[Any]:
    """The control workflow under another name, on a queue of its own."""
    queue = unique("control")
    async with Worker(client, task_queue=queue, workflows=[Control], workflow_runner=RUNNER):
        begin = kept or Kept(authority.trust.to_jwks().decode(), AUD)
        handle = await client.start_workflow(Control.run, begin, id=unique("control"), task_queue=queue)
        try:
            yield handle
        finally:
            await handle.terminate()


async def publish(handle: Any, authority: Authority, known: int, **changes: Any) -> int:
    page = authority.publisher.page(known)
    sent = {"head": page.head, "after": known, "entries": [each.line.decode() for each in page.entries]}
    version: int = await handle.execute_update(PUBLISH, Published(**(sent | changes)), result_type=int)
    return version


@pytest.mark.rule("CW1")
@pytest.mark.rule("CW2")
async def test_the_workflow_takes_what_is_signed_and_complete_and_nothing_else(
    authority: Authority, client: Client
) -> None:
    authority.revoke(workflow="a")
    authority.revoke(workflow="b")
    stranger = SigningKey.generate()
    early = authority.head(iat=1_790_000_000.0).text
    lines = [entry.line.decode() for entry in authority.own.entries]
    async with workflow(authority, client) as handle:
        assert await publish(handle, authority, 0) == 2
        before = await handle.query(ENTRIES, 0, result_type=Published)
        assert before.entries == lines
        for wrong, why in (
            ({"head": authority.head(key=stranger).text}, "T1"),
            ({"head": authority.head(aud="other/one").text}, "not of other/one"),
            ({"head": "nonsense"}, "V2"),
            ({"head": early}, "newer head"),
            ({"entries": lines[:1]}, "do not lead"),
            ({"entries": ["nonsense"]}, "line 1"),
            ({"after": 0, "entries": []}, "these follow 0"),
            ({"after": 7}, "these follow 7"),
        ):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await publish(handle, authority, 2, **wrong)
            assert why in str(refused.value.cause), wrong
        assert await handle.query(ENTRIES, 0, result_type=Published) == before
        history = await handle.fetch_history()
    # What is refused leaves nothing in the history, so that nobody can fill it.
    accepted = [each for each in history.events if each.HasField("workflow_execution_update_accepted_event_attributes")]
    assert len(accepted) == 1


@pytest.mark.rule("CW3")
async def test_a_feed_that_cannot_go_along_is_refused(authority: Authority, client: Client) -> None:
    for number in range(200):
        authority.own._store.add(revocation(workflow=f"w{number}" + "x" * 900, reason="r" * 900))
    authority.own.refresh()
    lines = [entry.line.decode() for entry in authority.own.entries]
    async with workflow(authority, client) as handle:
        for start in range(0, 700, 100):
            chunk = (lines * 5)[start : start + 100]
            await publish(handle, authority, 0, after=start, entries=chunk, more=True)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await publish(handle, authority, 0, after=700, entries=(lines * 5)[700:900], more=True)
        assert "bytes" in str(refused.value.cause)


@pytest.mark.rule("CW3")
async def test_what_is_told_in_other_scripts_counts_as_much_as_temporal_takes_for_it(authority: Authority) -> None:
    """Otherwise the workflow could not go on as a new run."""
    kept = Kept(authority.trust.to_jwks().decode(), AUD)
    keeps = Control(kept)
    feed = Feed().extended(revocation(workflow=f"w{number}", reason="\u0441" * 1000) for number in range(700))
    lines = [entry.line.decode() for entry in feed.entries]
    head = authority.head(feed).text
    with pytest.raises(ValueError, match="bytes"):
        for start in range(0, 700, 100):
            page = Published(head, start, lines[start : start + 100], start < 600)
            keeps._coming = keeps._checked(page)
    carried = Kept(kept.trust, kept.aud, head, [entry.line.decode() for entry in keeps._coming.entries])
    [payload] = await DataConverter.default.encode([carried])
    assert 1_000_000 < len(payload.data) < 2_000_000


async def test_it_goes_on_as_a_new_run_and_replays(authority: Authority, client: Client) -> None:
    authority.revoke(workflow="a")
    kept = Kept(
        authority.trust.to_jwks().decode(),
        AUD,
        authority.head().text,
        [entry.line.decode() for entry in authority.own.entries],
    )
    async with workflow(authority, client, kept) as handle:
        authority.revoke(workflow="b")
        assert await publish(handle, authority, 1) == 2
        told = await handle.query(ENTRIES, 1, result_type=Published)
        assert [asdict(told)[name] for name in ("after", "more")] == [1, False]
        described = await handle.describe()
        assert await described.memo_value("exequatur-revocations") == told.head
        history = await handle.fetch_history()
    await Replayer(workflows=[Control], workflow_runner=RUNNER).replay_workflow(history)


def recorded(name: str) -> WorkflowHistory:
    return WorkflowHistory.from_json(WORKFLOW_ID, (record_control.HISTORIES / f"{name}.json").read_text())


def test_the_recorded_histories_have_pages_and_a_new_run() -> None:
    first, second = recorded("first").events, recorded("second").events
    for events in (first, second):
        assert any(each.HasField("workflow_properties_modified_event_attributes") for each in events)
        assert any(each.HasField("workflow_execution_update_completed_event_attributes") for each in events)
    assert first[-1].HasField("workflow_execution_continued_as_new_event_attributes")


@pytest.mark.parametrize("name", ["first", "second"])
async def test_a_control_workflow_that_runs_goes_on_under_this_version(name: str) -> None:
    await Replayer(workflows=[Control], workflow_runner=RUNNER).replay_workflow(recorded(name))


async def test_a_version_that_takes_pages_in_another_way_does_not_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, the recorded histories would prove nothing."""
    checked = Control._checked

    def refuses_lifts(keeps: Control, page: Published) -> Feed:
        feed = checked(keeps, page)
        if any(entry.lifts for entry in feed.entries):
            raise ApplicationError("no lifts")
        return feed

    monkeypatch.setattr(Control, "_checked", refuses_lifts)
    with pytest.raises(Exception, match=r"(?i)nondeterminism|non-?determin"):
        await Replayer(workflows=[Control], workflow_runner=RUNNER).replay_workflow(recorded("first"))


async def test_a_workflow_of_somebody_elses_is_replaced(authority: Authority, client: Client, tmp_path: Any) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    other.revoke(workflow="theirs")
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[Control], workflow_runner=RUNNER):
        kept = Kept(other.trust.to_jwks().decode(), AUD)
        handle = await client.start_workflow(Control.run, kept, id=WORKFLOW_ID, task_queue=TASK_QUEUE)
        await publish(handle, other, 0)
    authority.revoke(workflow="ours")
    async with publishing(authority, client):
        page = await asyncio.to_thread(source_in(client).fetch, 0, 0.0)
        assert [entry.workflow for entry in page.entries] == ["ours"]


@workflow_of.defn(name="ExequaturControl")
class Nonsense:
    """Answers, and nothing that is a feed."""

    @workflow_of.run
    async def run(self, kept: Any) -> None:
        await workflow_of.wait_condition(lambda: False)

    @workflow_of.update(name=PUBLISH)
    async def publish(self, page: Any) -> Any:
        return {"version": "many"}

    @workflow_of.query(name=ENTRIES)
    def entries(self, after: int) -> Any:
        return ["no", "feed"]


@pytest.mark.parametrize("answers", [True, False], ids=["that answers nonsense", "that does not answer"])
async def test_a_workflow_of_another_kind_is_replaced(
    authority: Authority, client: Client, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr("exequatur.control.publishing._RPC", timedelta(seconds=0.5))
    authority.revoke(workflow="ours")
    queue = unique("other")
    await client.start_workflow("ExequaturControl", None, id=WORKFLOW_ID, task_queue=queue)
    async with AsyncExitStack() as stack:
        if answers:
            other = Worker(client, task_queue=queue, workflows=[Nonsense], workflow_runner=UnsandboxedWorkflowRunner())
            await stack.enter_async_context(other)
        async with publishing(authority, client) as publisher:
            assert publisher.problem is None
            page = await asyncio.to_thread(source_in(client).fetch, 0, 0.0)
            assert [entry.workflow for entry in page.entries] == ["ours"]


async def test_a_feed_signed_with_a_new_key_goes_on(
    authority: Authority, client: Client, follow: Callable[..., FollowedRevocations]
) -> None:
    authority.revoke(workflow="a")
    async with publishing(authority, client) as publisher:
        authority.key = SigningKey.generate()
        authority.anchor(authority.key)
        authority.revoke(workflow="b")
        worker = follow(source_in(client))
        worker.tend()
        await eventually(lambda: worker.version == 2)
        await eventually(lambda: publisher.problem is None)


async def test_two_that_publish_the_same_feed_do_not_disturb_each_other(
    authority: Authority, client: Client, target: str, follow: Callable[..., FollowedRevocations]
) -> None:
    twin = Authority(authority.folder, authority.key, authority.clock)
    other = await Client.connect(target, identity="the other")
    stop = asyncio.Event()
    async with publishing(authority, client, every=0.4):
        publisher = ControlPublisher(twin.own, twin.publisher.page, twin.trust, aud=AUD, every=0.4)
        task = asyncio.ensure_future(publisher.run(other, stop=stop))
        run = (await client.get_workflow_handle(WORKFLOW_ID).describe()).run_id
        worker = follow(source_in(client))
        try:
            for number in range(1, 6):
                (authority if number % 2 else twin).revoke(workflow=f"w{number}")
                worker.tend()
                await eventually(lambda number=number: worker.version == number)
                await asyncio.sleep(0.3)
        finally:
            stop.set()
            await task
        assert worker.problem is None
        assert (await client.get_workflow_handle(WORKFLOW_ID).describe()).run_id == run


async def test_a_memo_that_is_no_head_is_no_feed(client: Client, authority: Authority) -> None:
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[Control], workflow_runner=RUNNER):
        handle = await client.start_workflow(
            Control.run,
            Kept(authority.trust.to_jwks().decode(), AUD),
            id=WORKFLOW_ID,
            task_queue=TASK_QUEUE,
            memo={"exequatur-revocations": "no head"},
        )
        with pytest.raises(RevocationFeedError, match="nothing that is a feed"):
            await asyncio.to_thread(source_in(client).fetch, 0, 0.0)
        await handle.terminate()


async def test_workers_follow_their_namespace_and_stop_when_it_falls_silent(
    stage: Callable[..., Any], client: Client
) -> None:
    keeper = await stage()
    settings = Settings(revocation_feed="temporal", unavailable_wait="200ms", unavailable_retry_delay="200ms")
    plugin = AuthorizationPlugin.embedded(keeper.policies, state_dir=keeper.state, principal=BOT, settings=settings)
    s = await stage(plugin=plugin, state=keeper.state)
    own = keeper.plugin.gate.revocations
    publisher = ControlPublisher(own, own.publisher.page, keeper.plugin.gate.trust, aud=AUD, every=1.0)
    stop = asyncio.Event()
    task = asyncio.ensure_future(publisher.run(client, stop=stop))
    try:
        async with s.worker([OneActivity], BODIES):
            await eventually(lambda: s.plugin.gate.unavailable() is None)
            # A process without a worker looks by itself.
            [handle] = await running(s, sleeps)
            keeper.plugin.revoke(workflow=handle.id, reason="over Temporal")
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationRevoked"
            assert "over Temporal" in failure.message
            keeper.plugin.revoke(activity="quick", reason="no more")
            await eventually(lambda: s.plugin.gate.revocations.version == 2)
            refused = await start_one(s, quick)
            assert (await failure_of(refused)).type == "GrantRejected"
            assert deeds(refused.id) == []
    finally:
        stop.set()
        await task
        await client.get_workflow_handle(WORKFLOW_ID).terminate()
