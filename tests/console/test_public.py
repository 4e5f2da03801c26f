"""The public view, crawled whole: of what is secret, nothing comes out of any page, stream, file, header or error."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin

import httpx
import pytest
import pytest_asyncio
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import AuthorizationPlugin, Principal
from exequatur.console.app import create_app
from exequatur.revocation.entry import revocation
from exequatur.statements.encoding import compact_json
from tests.authority.running import eventually
from tests.console.lineage_runs import TIMEOUT, Continued, Order, Refunds, look_up, pay, refund
from tests.console.reporting import report, reported
from tests.console.running import Running, decision, running, write

S = "zqsecret"
"""What no public viewer may read, in whatever place; what follows it tells where it came from."""
SHORT = "zq7"
"""The same as an id that is shorter than what is shown of one."""
POLICIES = f"""
// {S}-comment
@id("all") @owner("{S}-annotation")
permit(principal, action, resource);

@id("limit") @reason("{S}-policy-reason")
forbid(principal, action == Action::"pay", resource)
when {{ context.args.order.amount > 1000 }}
unless {{ principal == User::"{S}-person" }};

@id("two-person") @approval("{S}-group, 1, 4h") @reason("{S}-approval-reason")
forbid(principal, action == Action::"refund", resource)
unless {{ context has approvals && context.approvals.groups.contains("{S}-group") }};
"""
CLOSED = f"""
@id("all") permit(principal, action, resource);
@id("closed") @reason("{S}-closed")
forbid(principal is Unauthenticated, action == Action::"console.view", resource);
"""
PAGES = (
    "/", "/start?token=x", "/login", "/login/back?code=x&state=y", "/nowhere", f"/{S}", "/governance",
    "/governance?outcome=deny", "/governance?kind=shadow", "/governance?kind=message", "/governance?kind=receipt",
    "/governance/policies", "/governance/approvals", "/governance/revocations", "/governance/decision?log=x&index=1",
    "/governance/decision?log=0123456789abcdef&index=1", "/governance/events?after=x", "/lineage",
    "/lineage?status=Running", "/lineage/run", "/lineage/run?ref=x", "/lineage/run?tab=x",
    "/lineage/state.json?ref=x", "/lineage/graph.json?ref=x", "/lineage/why?ref=x", "/lineage/compare?ref=x",
    "/lineage/report.html?ref=x", "/lineage/report.json", "/lineage/evidence.json", "/lineage?page=x",
    "/lineage?type=Payments", "/lineage?type=Refunds", "/lineage?since=x", "/proof", "/proof/trust",
    "/proof/evidence?workflow=w", "/proof/evidence", "/proof/viewer", "/proof/viewer?workflow=w", "/health",
    "/health.json", "/metrics", "/demo", "/demo/state.json", "/demo/policies.json", "/demo/history.json?run=1",
    "/demo/follow", "/static/console.css", "/static/",
)  # fmt: skip
OTHERS = ("/lineage", "/lineage?status=Running", "/lineage?page=x", "/lineage?since=x")
VIEWS = ("timeline", "graph", "messages", "findings", "family")
STREAMS = tuple(f"/governance/events?after=0&kind={kind}" for kind in ("", "shadow", "receipt"))
LINK = re.compile(r'(?:href|src|action)="([^"]*)"')


@activity.defn
async def fails(note: str) -> None:
    raise ApplicationError(note, non_retryable=True)


@workflow.defn
class Payments:
    """Is allowed, denied and failing, with secrets as arguments, results, errors and ids."""

    def __init__(self) -> None:
        self.told = False

    @workflow.run
    async def run(self, note: str) -> str:
        paid = Order(1, note)
        await workflow.execute_activity(pay, paid, start_to_close_timeout=TIMEOUT, activity_id=f"{S}-activity")
        with suppress(ActivityError):
            await workflow.execute_activity(pay, Order(5000, note), start_to_close_timeout=TIMEOUT)
        with suppress(ActivityError):
            await workflow.execute_activity(fails, note, start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: self.told)
        child = f"{workflow.info().workflow_id}-child"
        await workflow.execute_child_workflow(Continued.run, 2, id=child)
        return note

    @workflow.signal
    def tell(self, note: str) -> None:
        self.told = bool(note)


@asynccontextmanager
async def spent(target: str, folder: Path) -> AsyncIterator[None]:
    """Runs with secrets in every place; one waits for people."""
    (folder / "policies").mkdir()
    (folder / "policies" / "main.cedar").write_text(POLICIES)
    who = Principal("Agent", f"{S}-agent", attributes={"mail": f"{S}-mail"}, parents=[f'Role::"{S}-role"'])
    plugin = AuthorizationPlugin.embedded(folder / "policies", state_dir=folder / "state", principal=who)
    client = await Client.connect(target, plugins=[plugin], identity=f"{S}-identity")
    queue = f"{S}-{uuid.uuid4().hex[:8]}"
    workflows: list[type] = [Payments, Continued, Refunds]
    runner = UnsandboxedWorkflowRunner()
    activities = [pay, fails, look_up, refund]
    async with Worker(client, task_queue=queue, workflows=workflows, activities=activities, workflow_runner=runner):
        waiting = await client.start_workflow(Refunds.run, 7, id=f"{S}-w-{uuid.uuid4()}", task_queue=queue)
        paying = await client.start_workflow(Payments.run, f"{S}-note", id=f"{S}-w-{uuid.uuid4()}", task_queue=queue)
        await paying.signal(Payments.tell, f"{S}-signal")
        assert await paying.result() == f"{S}-note"
        yield
        plain = await Client.connect(target)
        await plain.get_workflow_handle(waiting.id).terminate(f"{S}-terminated")


def told(folder: Path) -> None:
    """Evidence and reports with secrets in every place."""
    text = {
        "principal": f'User::"{S}-principal"',
        "workflow_id": f"{S}-workflow",
        "run_id": f"{S}-run",
        "activity_id": SHORT,
        "reason": f"policy limit: {S}-reason",
        "arguments": json.dumps({S: f"{S}-argument"}),
        "facts": json.dumps({S: f"{S}-fact"}),
        "vouched": {"attributes": {S: S}, "parents": [S]},
        "fault": f"{S}-fault",
        "bundle": f"bundle-{S}",
    }
    write(folder, decision(**text, decision="deny"), decision(**{**text, "workflow_id": SHORT}, decision="allow"))
    beside = {"decision": "allow", "policies": [], "bundle": S}
    write(folder, decision(**text, enforced=beside), kind="shadow")
    message = {**text, "kind": "signal", "name": "tell", "accepted": False, "sender": S}
    write(folder, compact_json(message), kind="message")
    write(folder, compact_json({**text, "action": "workflow.start", "decision": "deny"}), kind="authority")
    reported(
        folder,
        report(1, host=f"{S}-host", unavailable=f"the journal {S} cannot be written", worker=f"spiffe://{S}/w"),
        report(2, host=SHORT, task_queues=(f"{S}-queue",), namespaces=(f"{S}-namespace",), name=f"{S}-bundle",
               version=f"{S}-version", refused=f"{S}.cedar:1", unshipped=f"{S}-unshipped"),
    )  # fmt: skip
    (folder / "state" / "in-force" / f"{S}.json").write_text("{}")


CONFIG = {"public": True, "principal": None, "temporal_ui": f"https://{S}-ui.example"}
TROUBLE = {
    **CONFIG,
    "evidence": [f"postgresql://{S}-user:{S}-password@127.0.0.1:1/{S}-database", f"/{S}-nowhere"],
    "authority": f"http://127.0.0.1:1/{S}-authority",
}


async def crawled(console: Running) -> dict[str, str]:
    """All that a public viewer can get, by how it was asked for."""
    found: dict[str, str] = {}
    async with console.browser(None) as anybody:
        client = anybody.client

        async def keep(name: str, answer: httpx.Response) -> None:
            found[name] = f"{answer.status_code}\n{answer.headers}\n{answer.text}"

        waiting = list(PAGES)
        while waiting and len(found) < 600:
            path = waiting.pop(0)
            if path in found or (path.startswith(("/governance/events", "/demo/follow")) and "after=x" not in path):
                continue
            answer = await client.get(path)
            for _ in range(400):  # an audit is under way
                if answer.status_code != 202:
                    break
                await asyncio.sleep(0.05)
                answer = await client.get(path)
            await keep(path, answer)
            if answer.status_code >= 400:
                await keep(f"{path} json", await client.get(path, headers={"Sec-Fetch-Dest": "empty"}))
            links = {urljoin(path, unescape(each)).partition("#")[0] for each in LINK.findall(answer.text)}
            if path in OTHERS:  # runs of other tests stand there, too
                links = {each for each in links if "ref=" not in each}
            for reference in set(re.findall(r"ref=([0-9a-f]{24})", "".join(links))):
                links |= {f"/lineage/run?ref={reference}&tab={tab}" for tab in VIEWS}
                links |= {f"/lineage/{each}?ref={reference}" for each in ("graph.json", "state.json", "evidence.json")}
                links |= {f"/lineage/why?ref={reference}&event={event}" for event in (5, 11, 17)}
                links.add(f"/lineage/compare?ref={reference}&other_ref={reference}&all=1")
            waiting += sorted(each for each in links if each.startswith("/"))
        for method in ("POST", "PUT", "HEAD", "OPTIONS"):
            for path in ("/governance/approvals", "/governance/revocations", "/logout", "/lineage", "/metrics"):
                await keep(
                    f"{method} {path}",
                    await client.request(method, path, content=b"a=b", headers={"Origin": console.url}),
                )
        for path in STREAMS:
            with suppress(TimeoutError):
                async with asyncio.timeout(10), client.stream("GET", path) as answer:
                    found[f"stream {path}"] = str(answer.headers)
                    async for line in answer.aiter_lines():
                        found[f"stream {path}"] += f"\n{line}"
                        if '"counts"' in line:
                            break
        for row in console.console.decisions.since(0).rows:
            path = f"/governance/decision?log={row.log}&index={row.index}"
            await keep(path, await client.get(path))
    return found


def spilt(found: Mapping[str, str], secrets: tuple[str, ...]) -> list[tuple[str, str]]:
    """What came out, and where."""
    spilt = []
    for name, text in found.items():
        for plain in (text, unescape(text), unquote(text)):
            for secret in secrets:
                if at := re.search(rf"(?<![A-Za-z0-9]){re.escape(secret)}", plain):  # not in the middle of random text
                    spilt.append((name, plain[max(0, at.start() - 150) : at.start() + 50]))
                    break
    return spilt


@pytest_asyncio.fixture(scope="module")
async def whole(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A public console that has everything to tell."""
    folder = tmp_path_factory.mktemp(f"{S}-folder")
    async with (
        spent(target, folder),
        running(folder, policies=folder / "policies", target=target, config=CONFIG) as console,
    ):
        told(folder)
        feed = console.console.governing.gate.revocations
        feed.add(revocation(reason=f"{S}-revoked", principal=f'User::"{S}-person"', workflow=f"{S}-w", until=4e9))
        feed.add(revocation(reason=f"{S}-killed", everything=True))
        await eventually(lambda: console.console.decisions.counts().shadow)
        yield console


def nothing_spilt(found: Mapping[str, str], console: Running) -> None:
    """Nothing secret is in anything that was found."""
    secrets = (S, SHORT, str(console.folder), console.console.config.address)
    assert spilt(found, secrets) == []


@pytest.mark.rule("redact.D1", "redact.D2", "render.R3", "live.T1", "errors.X3")
async def test_nothing_secret_comes_out_of_the_public_view(whole):
    found = await crawled(whole)
    nothing_spilt(found, whole)
    asked = {name.partition("?")[0].partition(" ")[0] for name in found} | {each.partition("?")[0] for each in STREAMS}
    for route in create_app(whole.console).routes:
        path = getattr(route, "path", "")
        if "GET" in (getattr(route, "methods", None) or ()):
            assert path in asked, path  # a page that is new is crawled, too
    answered = [name for name, text in found.items() if text.startswith("200") and "/lineage/" in name]
    for view in (*VIEWS, "why", "compare", "graph.json"):
        assert any(view in name for name in answered), view
    everything = "".join(found.values())
    for shown in ("Payments", "limit", "pay", "two-person"):  # what happened is shown
        assert shown in everything


@pytest.mark.rule("errors.X3", "redact.D1")
@pytest.mark.parametrize("how", ["away", "closed", "revoked"])
async def test_no_error_tells_the_public_anything_secret(tmp_path_factory, how):
    folder = tmp_path_factory.mktemp(f"{S}-{how}")
    policies = CLOSED if how == "closed" else 'permit(principal, action == Action::"console.view", resource);'
    async with running(folder, policies=policies, config=TROUBLE) as console:
        told(folder)
        (folder / "state" / "journal" / f"{S}.db").write_bytes(b"garbage")
        feed = console.console.governing.gate.revocations
        if how == "revoked":
            feed.add(revocation(reason=f"{S}-revoked", principal='Unauthenticated::"anonymous"'))
        else:
            feed.add(revocation(reason=f"{S}-killed", everything=True))
        await eventually(lambda: len(console.console.decisions.problems) > 2)
        found = await crawled(console)
        nothing_spilt(found, console)
        page = found["/governance"]
        assert page.startswith("200" if how == "away" else "403")
