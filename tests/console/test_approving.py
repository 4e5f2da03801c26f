"""What people are asked, and how they answer, against a real Temporal server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import AuthorizationPlugin
from exequatur.statements.encoding import digest
from tests.asking import Refund, challenge_of, entry, plugin_in
from tests.console.running import FAY, MALLORY, Looking, Running, running
from tests.gate.conftest import unique

LIST = "/governance/approvals"
LOOK = '@id("look") permit(principal, action == Action::"console.view", resource);\n'
QUEUE = "console-approvals"


@dataclass
class Desk:
    """A console beside workflows that wait for people."""

    console: Running
    client: Client
    plugin: AuthorizationPlugin

    async def waits(self, **changes: str) -> tuple[WorkflowHandle[Refund, list[str]], str]:
        """Has a workflow wait with one challenge; gives it and the challenge's id."""
        name = unique()
        request = digest(name)
        challenge = challenge_of(self.plugin, workflow_id=name, request=request, **changes)
        handle = await self.client.start_workflow(Refund.run, [entry(challenge)], id=name, task_queue=QUEUE)
        assert await handle.query(Refund.ready)
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
        form = {"id": request, "workflow": handle.id, "verdict": verdict, "reason": "I called them"}
        done = await fay.post(LIST, form)
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
        form = {"id": request, "workflow": handle.id, "verdict": "approve", "as": FAY, "principal": FAY}
        refused = await mallory.post(LIST, form)
        assert refused.status_code == 403
        assert "The policies do not permit it" in refused.text
    await handle.signal(Refund.end)
    assert await handle.result() == []


@pytest.mark.rule("approving.A1")
async def test_a_form_that_names_another_challenge_answers_nothing(desk):
    handle, request = await desk.waits()
    other, _ = await desk.waits()
    forms = [
        {"id": request, "workflow": other.id, "verdict": "approve"},
        {"id": request[:12], "workflow": handle.id, "verdict": "approve"},
        {"id": digest("nothing"), "workflow": handle.id, "verdict": "approve"},
        {"id": request, "workflow": "nowhere", "verdict": "approve"},
        {"id": request, "workflow": handle.id, "verdict": "agree"},
        {"id": request, "workflow": handle.id, "verdict": "approve", "namespace": "another"},
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
        refused = await fay.post(LIST, {"id": "x" * 43, "workflow": "w", "verdict": "approve"})
        assert refused.status_code == 503
        assert "Start the server" in refused.text
