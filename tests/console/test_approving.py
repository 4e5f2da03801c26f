"""What people are asked, and how they answer, against a real Temporal server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import AuthorizationPlugin
from exequatur.statements.encoding import digest
from tests.asking import Refund, challenge_of, entry, finance, plugin_in
from tests.console.running import FAY, MALLORY, Looking, Running, running
from tests.gate.conftest import unique

LIST = "/governance/approvals"
FORM = re.compile(r'name="challenge" value="([^"]+)"')
LOOK = '@id("look") permit(principal, action == Action::"console.view", resource);\n'
QUEUE = "console-approvals"
AUD = 'User::"aud"'
PAYROLL = {"activity_type": "payroll", "places": ("default", "refunds", ("payroll",))}


@dataclass
class Desk:
    """A console beside workflows that wait for people."""

    console: Running
    client: Client
    plugin: AuthorizationPlugin
    signed: dict[str, str] = field(default_factory=dict)
    """The digest of each challenge, which a form names, by its id."""

    async def waits(self, **changes: Any) -> tuple[WorkflowHandle[Refund, list[str]], str]:
        """Has a workflow wait with one challenge; gives it and the challenge's id."""
        name = unique()
        request = digest(name)
        challenge = challenge_of(self.plugin, workflow_id=name, request=request, **changes)
        handle = await self.client.start_workflow(Refund.run, [entry(challenge)], id=name, task_queue=QUEUE)
        assert await handle.query(Refund.ready)
        self.signed[request] = digest(challenge[0])
        return handle, request

    async def shown(self, looking: Looking, request: str) -> str:
        """The page, once the server lists the workflow."""
        seen: list[str] = []

        async def there() -> bool:
            seen.append((await looking.get(LIST)).text)
            return request in seen[-1]

        for _ in range(200):
            if await there():
                return seen[-1]
        raise AssertionError(seen[-1][:2000])


@pytest_asyncio.fixture
async def desk(target: str, tmp_path: Path) -> AsyncIterator[Desk]:
    plugin = plugin_in(tmp_path)
    (tmp_path / "policies" / "look.cedar").write_text(LOOK)
    client = await Client.connect(target)
    async with (
        Worker(client, task_queue=QUEUE, workflows=[Refund], workflow_runner=UnsandboxedWorkflowRunner()),
        running(tmp_path, policies=tmp_path / "policies", target=target) as console,
    ):
        yield Desk(console, client, plugin)


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_a_person_answers_and_the_run_is_told(desk, verdict):
    handle, request = await desk.waits(arguments='{"refund":{"amount":"900.00","note":"<script>x</script>"}}')
    async with desk.console.browser(FAY) as fay:
        page = await desk.shown(fay, request)
        for part in ("refund_order", "finance: 0 of 1", "900.00", "needs somebody of finance besides", handle.id):
            assert part in page
        assert "<script>x" not in page
        form = {"workflow": handle.id, "verdict": verdict, "reason": "I called them"}
        [shown] = [each for each in FORM.findall(page) if each == desk.signed[request]]
        done = await fay.post(LIST, {**form, "challenge": shown})
        assert done.status_code == 303
        assert done.headers["location"].startswith(f"{LIST}?said=")
        after = (await fay.get(done.headers["location"])).text
        assert "User::&#34;fay&#34;" in after
        assert "I called them" in after
    await handle.signal(Refund.end)
    [answer] = await handle.result()
    assert answer.count(".") == 2
    [record] = desk.console.records()
    assert (record["action"], record["principal"]) == (f"approval.{verdict}", FAY)


@pytest.mark.rule("approving.A2", "asking.V4")
async def test_who_is_not_asked_answers_nothing_whatever_the_form_says(desk):
    handle, request = await desk.waits()
    async with desk.console.browser(MALLORY) as mallory:
        form = {"challenge": desk.signed[request], "workflow": handle.id, "verdict": "approve", "as": FAY}
        refused = await mallory.post(LIST, {**form, "principal": FAY})
        assert refused.status_code == 403
        assert "The policies do not permit it" in refused.text
        [record] = desk.console.records()
        assert (record["action"], record["principal"]) == ("approval.approve", MALLORY)
        assert record["decision"] != "allow"
    await handle.signal(Refund.end)
    assert await handle.result() == []


@pytest.mark.parametrize(
    ("who", "changes", "buttons", "said"),
    [
        (FAY, {}, {"approve", "reject"}, None),
        (MALLORY, {}, set(), "You cannot answer this: finance is asked; you are not in it."),
        (FAY, {"sub": FAY}, {"reject"}, "You cannot approve this: no policy permits approval.self to"),
        (FAY, PAYROLL, set(), "no policy permits approval.reject to"),
    ],
)
async def test_who_cannot_answer_reads_so_beforehand_and_nothing_of_it_is_recorded(desk, who, changes, buttons, said):
    handle, request = await desk.waits(**changes)
    async with desk.console.browser(who) as viewer:
        page = await desk.shown(viewer, request)
    [shown] = [each for each in page.split("<article") if request[:20] in each]
    assert set(re.findall(r'name="verdict" value="(\w+)"', shown)) == buttons
    assert ("<form" in shown) == bool(buttons)
    assert (said in shown) if said else ("You cannot" not in shown)
    assert desk.console.records() == []
    await handle.signal(Refund.end)
    await handle.result()


@pytest.mark.rule("approving.A1")
async def test_a_form_that_names_another_challenge_answers_nothing(desk):
    handle, request = await desk.waits()
    other, _ = await desk.waits()
    shown = desk.signed[request]
    forms = [
        {"challenge": shown, "workflow": other.id, "verdict": "approve"},
        {"challenge": shown[:12], "workflow": handle.id, "verdict": "approve"},
        {"challenge": digest("nothing"), "workflow": handle.id, "verdict": "approve"},
        {"challenge": request, "workflow": handle.id, "verdict": "approve"},
        {"challenge": shown, "workflow": "nowhere", "verdict": "approve"},
        {"challenge": shown, "workflow": handle.id, "verdict": "agree"},
        {"challenge": shown, "workflow": handle.id, "verdict": "approve", "namespace": "another"},
        {"challenge": shown, "verdict": "approve"},
        {},
    ]
    async with desk.console.browser(FAY) as fay:
        for form in forms:
            refused = await fay.post(LIST, form)
            assert refused.status_code in (400, 404, 409), form
            assert "<h1>" in refused.text
    for each in (handle, other):
        await each.signal(Refund.end)
        assert await each.result() == []
    assert desk.console.records() == []


@pytest.mark.rule("approving.A1")
async def test_an_answer_is_about_what_was_shown_and_not_about_what_stands_there_since(desk):
    """A worker that may request can have two challenges of one request signed, with other arguments."""
    handle, request = await desk.waits(arguments='{"refund":{"amount":"9.00"}}')
    async with desk.console.browser(FAY) as fay:
        page = await desk.shown(fay, request)
        assert "9.00" in page
        other = challenge_of(
            desk.plugin, workflow_id=handle.id, request=request, arguments='{"refund":{"amount":"900000.00"}}'
        )
        await handle.signal(Refund.put, [entry(other)])
        await handle.query(Refund.ready)
        form = {"challenge": desk.signed[request], "id": request, "workflow": handle.id, "verdict": "approve"}
        refused = await fay.post(LIST, form)
        assert refused.status_code == 409
        assert "Nothing waits" in refused.text
    await handle.signal(Refund.end)
    assert await handle.result() == []
    assert desk.console.records() == []


@pytest.mark.rule("approving.A1")
async def test_all_of_what_is_signed_is_shown(desk):
    texts = [json.dumps({"refund": {"note": "x" * 3900 + "THE-END"}}), json.dumps([*[0] * 1300, "THE-END"])]
    assert all(len(each) <= 4000 for each in texts)
    for text in [*texts, None]:
        handle, request = await desk.waits(arguments=text)
        async with desk.console.browser(FAY) as fay:
            page = await desk.shown(fay, request)
        shown = page.partition(request[:20])[2].partition("</article>")[0]
        assert ("THE-END" in shown) == (text is not None)
        if text is None:
            assert "too long" in shown
            assert digest("args") in shown  # what the signature is about, to compare
        await handle.signal(Refund.end)
        await handle.result()


async def test_two_people_and_two_clicks_are_two_answers_and_no_error(desk):
    handle, request = await desk.waits(needs=(finance(quorum=2),))
    form = {"challenge": desk.signed[request], "workflow": handle.id, "verdict": "approve"}
    async with AsyncExitStack() as entered:
        fay = await entered.enter_async_context(desk.console.browser(FAY))
        await fay.csrf()  # the link is used up by the first page
        aud = await entered.enter_async_context(desk.console.browser(AUD))
        answers = await asyncio.gather(fay.post(LIST, form), fay.post(LIST, form), aud.post(LIST, form))
        assert [each.status_code for each in answers] == [303] * 3
        page = await desk.shown(fay, request)
        assert "finance: 2 of 2" in page.partition(request)[2].partition("</article>")[0]
    await handle.signal(Refund.end)
    await handle.result()
    assert sorted(each["principal"] for each in desk.console.records()) == [AUD, FAY, FAY]


@pytest.mark.parametrize("how", ["oneself", "ended", "too long a reason"])
async def test_what_may_not_be_answered_is_not(desk, how):
    who, reason = FAY, "r"
    if how == "oneself":
        handle, request = await desk.waits(sub=FAY)
    elif how == "ended":
        handle, request = await desk.waits()
        await handle.terminate("over")
    else:
        handle, request = await desk.waits()
        reason = "r" * 3000
    form = {"challenge": desk.signed[request], "workflow": handle.id, "verdict": "approve", "reason": reason}
    async with desk.console.browser(who) as viewer:
        refused = await viewer.post(LIST, form)
    assert refused.status_code == (409 if how == "ended" else 403)
    if how == "oneself":
        assert [each["action"] for each in desk.console.records() if each["decision"] != "allow"] == ["approval.self"]
    if how != "ended":
        await handle.signal(Refund.end)
        assert await handle.result() == []


async def test_what_did_not_verify_is_counted_and_not_shown(desk):
    handle = await desk.client.start_workflow(
        Refund.run, [{"challenge": "<script>", "credential": "x"}], id=unique(), task_queue=QUEUE
    )
    async with desk.console.browser(FAY) as fay:
        pages: list[str] = []

        async def look() -> None:
            pages.append((await fay.get(LIST)).text)

        for _ in range(200):
            await look()
            if "did not verify" in pages[-1]:
                break
        assert "did not verify" in pages[-1]
        assert "&lt;script&gt;" not in pages[-1]
    await handle.signal(Refund.end)
    await handle.result()


async def test_a_server_that_goes_away_is_a_page_that_says_so(desk):
    async with desk.console.browser(FAY) as fay:

        async def away(_: str) -> Client:
            raise RuntimeError("connection refused")

        temporal = desk.console.console.temporal
        temporal._clients.clear()
        temporal._connect = away
        page = await fay.get(LIST)
        assert page.status_code == 200
        assert "The Temporal server does not answer" in page.text
        refused = await fay.post(LIST, {"challenge": digest("x"), "workflow": "w", "verdict": "approve"})
        assert refused.status_code == 503
        assert "Start the server" in refused.text
