"""Which runs take which messages, and what the evidence says of them."""

import asyncio

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from exequatur.gate.wire import START_HEADER, read_activity_header, read_start_header
from exequatur.lineage.chain import fold_message
from exequatur.statements.jws import parse
from exequatur.statements.models import Request, Seal, short_digest
from exequatur.statements.requests import split
from tests.gate.boxes import (
    WORKFLOWS,
    Again,
    Box,
    Busy,
    go_on,
    note,
    records,
    refusals,
    refused,
    replays,
)
from tests.gate.conftest import activity_headers, events, headed, unique
from tests.gate.single import eventually


async def test_the_sdks_own_queries_need_a_permit_like_any_other(stage):
    s = await stage(open_messages=("query:__temporal_*",))
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        plain = s.plain.get_workflow_handle(h.id)
        assert "Box" in str(await h.query("__stack_trace"))
        assert "[M11]" in await refused(plain.query("__stack_trace"))
        assert await plain.query("__temporal_workflow_metadata")
        assert "[M11]" in await refused(plain.query("count"))


@pytest.mark.rule("M41")
async def test_what_the_grant_lists_as_open_needs_no_permit(stage):
    s = await stage(open_messages=("signal:pu*", "update:swap"))
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        plain = s.plain.get_workflow_handle(h.id)
        await plain.signal("put", "one")
        assert await plain.execute_update("swap", "two") == ["one", "two"]
        await refused(plain.execute_update("checked", "evil"))
        await plain.signal("close")
        await h.signal(Box.close)
        assert await h.result() == ["one", "two"]
    assert [body["accepted"] for body in records(s, h)] == [True, True, False, False, True]


@pytest.mark.rule("M45")
async def test_a_run_that_observes_takes_every_message_and_reports_it(stage):
    s = await stage(mode="observe")
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        plain = s.plain.get_workflow_handle(h.id)
        await plain.signal("put", "one")
        assert await plain.query("count") == 1
        assert await plain.execute_update("swap", "two") == ["one", "two"]
        assert await plain.execute_update("checked", "three") == "THREE"
        await plain.signal("close")
        assert await h.result() == ["one", "two", "three"]
    assert {(body["accepted"], body["enforced"], body["rule"]) for body in records(s, h)} == {(False, False, "M11")}
    await replays(s, h)


async def test_an_ungoverned_run_takes_every_message(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run, client=s.plain)
        await h.signal(Box.put, "one")
        await s.client.get_workflow_handle(h.id).signal(Box.put, "two")
        assert await h.query(Box.count) == 2
        await h.signal(Box.close)
        assert await h.result() == ["one", "two"]
    assert records(s, h) == []


async def test_a_run_with_a_grant_of_version_1_takes_every_message(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        id = unique()
        h = await s.start_with(headed(await s.grant("Box", id, ver=1)), Box.run, id=id)
        await h.signal(Box.put, "one")
        await h.signal(Box.close)
        assert await h.result() == ["one"]


@pytest.mark.rule("M42")
async def test_a_run_whose_start_cannot_be_believed_takes_no_message(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        for headers in (
            {START_HEADER: Payload(metadata={"encoding": b"json/plain"}, data=b"no json")},
            headed(await s.grant("Box", "another workflow")),
        ):
            h = await s.start_with(headers, Box.run)
            await s.client.get_workflow_handle(h.id).signal(Box.put, "one")
            assert "[M42]" in await refused(s.client.get_workflow_handle(h.id).query(Box.count))
            await eventually(lambda h=h: ("signal", "M42") in refusals(s, h))
            await replays(s, h)
            await h.terminate()


@pytest.mark.rule("M42")
@pytest.mark.parametrize("forged", [False, True], ids=["of another run", "with another signature"])
async def test_a_run_with_the_seal_of_another_run_takes_no_message(stage, forged):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Again.run, [])
        await go_on(s, h.id)
        await h.execute_update(Again.swap, "here")
        started = (await events(s.client.get_workflow_handle(h.id)))[0].workflow_execution_started_event_attributes
        stolen = {START_HEADER: started.header.fields[START_HEADER]}
        await h.signal(Again.close)
        await h.result()
        if forged:
            *others, seal = read_start_header(stolen) or []
            signed, _, _ = seal.rpartition(".")
            stolen = headed(*others, f"{signed}.{others[0].rpartition('.')[2]}")
        copy = await s.start_with(stolen, Again.run, [], id=h.id)
        why = "does not verify [M42]" if forged else "another run [M42]"
        assert why in await refused(s.client.get_workflow_handle(h.id).query(Again.count))
        await copy.terminate()


async def test_requests_and_seals_say_which_messages_were_handled(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Busy.run)
        await s.plain.get_workflow_handle(h.id).signal("put", "evil")
        await h.signal(Busy.put, "one")
        await eventually(lambda: s.receipts(h))
        await h.query(Busy.count)
        await h.execute_update(Busy.swap, "two")
        await eventually(lambda: len(s.receipts(h)) == 2)
        await h.signal(Busy.close)
        await h.result()
    items = [body["message"] for body in records(s, h) if body["kind"] != "query"]
    requests = [
        parse(split(read_activity_header(headers) or [])[3], Request).claims for headers in await activity_headers(h)
    ]
    [seal] = [each for each in s.statements("seal", Seal) if each.run_id == h.result_run_id]
    assert [request.heard for request in requests] == [
        (short_digest(items[0]), short_digest(items[1])),
        (short_digest(items[2]),),
    ]
    assert seal.heard == (short_digest(items[3]),)
    head = None
    for item, said in zip(items, (None, requests[0], requests[1], seal), strict=True):
        head = fold_message(head, item)
        if said is not None:
            assert said.messages == head
    await replays(s, h)


async def test_refusals_are_counted(stage):
    buffer = MetricBuffer(10_000)
    s = await stage(client_options={"runtime": Runtime(telemetry=TelemetryConfig(metrics=buffer))})
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        await s.plain.get_workflow_handle(h.id).signal("put", "evil")
        await h.signal(Box.close)
        await h.result()
    counted = [
        (update.attributes["kind"], update.attributes["rule"], update.value)
        for update in buffer.retrieve_updates()
        if update.metric.name == "exequatur_message_refusals"
    ]
    assert counted == [("signal", "M11", 1)]


async def test_a_flood_of_messages_leaves_a_run_that_goes_on(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Again.run, [])
        plain = s.plain.get_workflow_handle(h.id)
        await asyncio.gather(*(plain.signal("put", f"evil {i}") for i in range(300)))
        await asyncio.gather(*(h.signal(Again.put, str(i)) for i in range(300)))
        await h.execute_update(Again.swap, "here")
        await go_on(s, h.id)
        await h.execute_update(Again.swap, "there")
        await h.signal(Again.close)
        heard = await h.result()
    assert sorted(heard) == sorted([*map(str, range(300)), "here", "|", "there"])
