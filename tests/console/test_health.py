"""Health as people and machines see it: real workers with a real server, and what happens to both."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from temporalio import activity

from exequatur.integrity.guard import ALTERED
from exequatur.policy.offer import Provenance
from exequatur.revocation.entry import Revocation
from tests.console.reporting import report, reported, traffic
from tests.console.running import KIM, Looking, Running, decision, running, write
from tests.gate.conftest import PERMIT_ALL, Stage, executor, failure_of, stage
from tests.gate.single import OneActivity, start_one
from tests.gate.test_availability import (
    corrupt_feed,
    lapsed_credential,
    next_century,
    no_journal,
    past_century,
    stale_feed,
)
from tests.gate.test_crash import process
from tests.integrity.test_gate import guarded

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

__all__ = ["executor", "stage"]

START = Callable[..., Awaitable[Stage]]
POLICIES = PERMIT_ALL + '@id("no") forbid(principal, action == Action::"forbidden", resource);'
TOKEN = "a-token-that-nobody-guesses"
XSS = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"'><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "{{ 7 * 7 }} ${7*7}",
    "\u202etxt.exe\x07\n",
)


@activity.defn
async def act() -> str:
    return "done"


@activity.defn
async def forbidden() -> None:
    pass


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has ten seconds to wait for a report."""
    monkeypatch.setattr("exequatur.gate.serving._REPORT_EVERY", 0.2)
    monkeypatch.setattr("exequatur.console.watch._EVERY", 0.1)
    monkeypatch.setattr("exequatur.console.probes.EVERY", 0.2)
    monkeypatch.setattr("exequatur.console.probes._SELDOM", 0.5)
    monkeypatch.setattr("exequatur.console.probes.WITHIN", 2.0)


async def until(looking: Looking, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Wait until the JSON says so."""
    give_up = time.monotonic() + 20
    while True:
        answered = await looking.get("/health.json")
        told: dict[str, Any] = answered.json()
        if answered.status_code == 200 and condition(told):
            return told
        assert time.monotonic() < give_up, json.dumps(told)[:3000]
        await asyncio.sleep(0.05)


def kinds(told: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in told["problems"]]


def service(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in told["services"] if each["service"] == name)
    return found


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus reads."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@asynccontextmanager
async def watched(here: Stage, **config: Any) -> AsyncIterator[tuple[Running, Looking]]:
    """A console for the workers of a stage, and somebody who looks."""
    settings = config.pop("settings", None)
    target = config.pop("target", here.target)
    shown_at = running(here.path, policies=here.policies, target=target, config=config, settings=settings)
    async with shown_at as shown, shown.browser() as looking:
        yield shown, looking


async def test_a_worker_and_what_it_did_are_the_same_as_json_metrics_and_page(stage: START) -> None:
    here = await stage(POLICIES)
    async with here.worker([OneActivity], [act, forbidden]), watched(here) as (_, looking):
        for _ in range(3):
            await (await start_one(here, act)).result()
        await failure_of(await start_one(here, forbidden))
        told = await until(looking, lambda told: told["workers"] and told["workers"][0]["kinds"]["denied"] == 1)
        [worker] = told["workers"]
        assert (worker["state"], worker["queues"], worker["kinds"]["allowed"]) == ("ready", [here.queue], 3)
        assert worker["digest"] == here.plugin.gate.policy.bundle.digest
        assert (sum(worker["buckets"]), worker["latency"]["count"], worker["integrity"]) == (4, 4, "unmeasured")
        assert sum(each["kinds"]["denied"] for each in told["minutes"]) == 1
        assert {each["source"] for each in told["minutes"]} == {"workers"}
        await until(looking, lambda told: service(told, "temporal")["state"] == "up")

        metrics = await looking.get("/metrics")
        page = (await looking.get("/health")).text
    assert metrics.headers["content-type"].startswith("text/plain")
    read = samples(metrics.text)
    mine = ("worker", worker["worker"])
    for kind, number in worker["kinds"].items():
        assert read["exequatur_worker_outcomes_total", frozenset({mine, ("kind", kind)})] == number
    below = 0
    for bound, number in zip([*told["bounds"], "+Inf"], worker["buckets"], strict=True):
        below += number
        place = frozenset({mine, ("le", bound if bound == "+Inf" else f"{bound:g}")})
        assert read["exequatur_worker_gate_latency_seconds_bucket", place] == below
    assert read["exequatur_worker_gate_latency_seconds_sum", frozenset({mine})] == pytest.approx(worker["seconds"])
    assert read["exequatur_worker_gate_latency_seconds_count", frozenset({mine})] == 4
    assert read["exequatur_worker_ready", frozenset({mine})] == 1
    assert read["exequatur_console_health", frozenset({("state", told["state"])})] == 1
    assert read["exequatur_console_service_up", frozenset({("service", "temporal")})] == 1
    expires = read["exequatur_worker_credential_expires_timestamp_seconds", frozenset({mine})]
    assert expires == worker["credential_expires"]
    assert worker["worker"] in page
    assert "1 of 1 worker can authorize" in page


async def test_a_worker_that_is_revoked_says_so_until_it_is_lifted(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [act]), watched(here) as (_, looking):
        told = await until(looking, lambda told: told["states"]["ready"] == 1)
        identity, feed = told["workers"][0]["identity"], here.plugin.gate.revocations
        number = feed.add(Revocation(at=time.time(), reason="its host was stolen", worker=identity))
        told = await until(looking, lambda told: "worker-revoked" in kinds(told))
        first = told["problems"][0]
        assert (told["state"], first["kind"]) == ("failing", "worker-revoked")
        assert "its host was stolen" in first["text"]
        assert "--lift" in first["advice"]
        assert first["since"] == pytest.approx(time.time(), abs=20)
        feed.add(Revocation(at=time.time(), reason="it was found", lifts=number))
        await until(looking, lambda told: kinds(told) == [])
        feed.add(Revocation(at=time.time(), reason="incident 512", everything=True))
        told = await until(looking, lambda told: "everything-revoked" in kinds(told))
        assert "incident 512" in told["problems"][0]["text"]


async def test_a_worker_that_is_not_what_its_manifest_says_is_the_gravest(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [act]), watched(here) as (_, looking):
        guard = await guarded(here)
        await until(looking, lambda told: told["workers"] and told["workers"][0]["integrity"] == "verified")
        guard.problem = "a.py cannot be read"
        await until(looking, lambda told: "worker-unavailable" in kinds(told))
        guard.problem, guard.violation = None, f"{ALTERED}: a.py was changed"
        told = await until(looking, lambda told: "worker-violated" in kinds(told))
        assert (told["workers"][0]["state"], told["workers"][0]["integrity"]) == ("violated", "violated")
        assert "a.py was changed" in told["problems"][0]["text"]
        assert "queue-unserved" in kinds(told)


async def test_policies_that_a_worker_refused_are_told_until_they_are_right(stage: START) -> None:
    here = await stage(policy_poll_interval="100ms")
    async with here.worker([OneActivity], [act]), watched(here) as (_, looking):
        await until(looking, lambda told: told["states"]["ready"] == 1)
        here.write("permit(principal", "more.cedar")
        told = await until(looking, lambda told: "bundle-refused" in kinds(told))
        assert (told["workers"][0]["state"], told["state"]) == ("ready", "warning")
        assert "more.cedar" in told["workers"][0]["refused"]
        (here.policies / "more.cedar").unlink()
        told = await until(looking, lambda told: "bundle-refused" not in kinds(told))
        assert told["workers"][0]["refused"] is None


async def test_a_worker_that_was_killed_is_missed(stage: START) -> None:
    here = await stage()
    async with watched(here) as (_, looking):
        told = await until(looking, lambda told: service(told, "state")["state"] != "unknown")
        assert (told["state"], kinds(told)[-1]) == ("idle", "no-workers")
        async with process(here) as worker:
            await until(looking, lambda told: told["states"]["ready"] == 1)
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            told = await until(looking, lambda told: told["states"]["ended"] == 1)
        assert {"queue-unserved", "worker-ended"} <= set(kinds(told))
        async with here.worker([OneActivity], [act]):
            told = await until(looking, lambda told: "worker-replaced" in kinds(told))
        assert told["states"]["ready"] == 1


async def test_a_store_that_is_locked_is_named_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.console.probes.WITHIN", 0.5)
    monkeypatch.setattr("exequatur.lineage.store_schema._LOCK_PATIENCE", 1.0)
    from exequatur.lineage.store import EvidenceStore

    store = f"sqlite:///{tmp_path / 'evidence.db'}"
    EvidenceStore.open(store).close()
    console = running(tmp_path, policies=PERMIT_ALL, settings={"evidence_store": store})
    async with console as shown, shown.browser() as looking:
        told = await until(looking, lambda told: service(told, "store")["state"] == "up")
        began = service(told, "store")["since"]
        with sqlite3.connect(tmp_path / "evidence.db", isolation_level=None) as locking:
            locking.execute("PRAGMA locking_mode = EXCLUSIVE")
            locking.execute("BEGIN EXCLUSIVE")
            told = await until(looking, lambda told: "store-down" in kinds(told))
            down = service(told, "store")
            assert "no answer" in down["text"] or "locked" in down["text"]
            assert down["advice"]
            assert down["since"] >= began
        locking.close()
        await until(looking, lambda told: service(told, "store")["state"] == "up")


async def test_a_temporal_server_that_goes_away_is_named_until_it_is_back(target: str, tmp_path: Path) -> None:
    host, _, port = target.rpartition(":")
    there: set[asyncio.StreamWriter] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.add(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(forward(reader, back), forward(onward, writer))

    proxy = await asyncio.start_server(between, "127.0.0.1", 0)
    address = proxy.sockets[0].getsockname()
    console = running(tmp_path, policies=PERMIT_ALL, target=f"127.0.0.1:{address[1]}")
    async with console as shown, shown.browser() as looking:
        await until(looking, lambda told: service(told, "temporal")["state"] == "up")
        proxy.close()
        for each in there:
            each.close()
        told = await until(looking, lambda told: "temporal-down" in kinds(told))
        assert service(told, "temporal")["advice"].startswith("Start the server")
        assert (await looking.get("/health")).status_code == 200
        proxy = await asyncio.start_server(between, *address)
        await until(looking, lambda told: service(told, "temporal")["state"] == "up")
    proxy.close()
    for each in there:
        each.close()


async def test_an_authority_service_that_is_away_is_named(tmp_path: Path) -> None:
    console = running(tmp_path, policies=PERMIT_ALL, config={"authority": "http://127.0.0.1:1"})
    async with console as shown, shown.browser() as looking:
        told = await until(looking, lambda told: "authority-down" in kinds(told))
    assert "cannot be reached" in service(told, "authority")["text"]


@pytest.mark.rule("metrics.M1")
async def test_in_public_nobody_is_named_in_json_metrics_or_page(tmp_path: Path) -> None:
    reported(
        tmp_path,
        report(
            4711, host="secret-host", unavailable="the evidence journal cannot be written", worker="spiffe://secret"
        ),
        report(4712, host="secret-host", task_queues=("secret-queue",), name="secret-bundle", refused="secret.cedar"),
    )
    console = running(tmp_path, policies=PERMIT_ALL, config={"public": True})
    async with console as shown, shown.browser(None) as looking:
        told = await until(looking, lambda told: len(told["workers"]) == 2 and told["services"])
        answers = [await looking.get(path) for path in ("/health", "/health.json", "/metrics")]
    assert [each.status_code for each in answers] == [200, 200, 200]
    assert (told["state"], "worker-unavailable" in kinds(told)) == ("failing", True)
    for each in answers:
        for name in ("secret", "4711", "4712", str(tmp_path), "127.0.0.1:1"):
            assert name not in each.text
    assert "exequatur_worker_" not in answers[2].text
    read = samples(answers[2].text)
    assert read["exequatur_console_workers", frozenset({("state", "unavailable")})] == 1


async def test_metrics_are_read_by_whoever_has_the_token_if_the_policies_permit_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITORING", TOKEN)
    policy = 'permit(principal == Service::"monitoring", action == Action::"console.view", resource);'
    async with running(tmp_path, policies=policy, config={"monitoring_token_env": "MONITORING"}) as shown:
        async with shown.browser(None) as looking:
            answered = await looking.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            told = await looking.get("/health.json", headers={"Authorization": f"Bearer {TOKEN}"})
            others = [
                await looking.get(path, headers={"Authorization": f"Bearer {token}"}, follow_redirects=False)
                for path, token in (("/metrics", "another-token-of-somebody"), ("/health", TOKEN))
            ]
        async with shown.browser(KIM) as looking:
            denied = [await looking.get(path) for path in ("/health", "/health.json", "/metrics")]
    assert (answered.status_code, told.status_code) == (200, 200)
    assert all(each.status_code != 200 for each in others)
    assert [each.status_code for each in denied] == [403, 403, 403]


def hostile(folder: Path) -> None:
    """Reports in which every text is an attack."""
    for pid, text in enumerate(XSS, 1):
        reported(
            folder,
            report(
                pid,
                worker=text,
                namespaces=(text,),
                task_queues=(text, f"../../{text}"),
                unavailable=text if pid % 2 else None,
                refused=text,
                unshipped=text,
                name=text,
                version=text,
                digest=text,
                integrity={"state": "verified", "manifest": text},
                traffic=traffic(time.time(), 0.001 * pid, 0.2, allowed=1, denied=1),
            ),
        )


async def test_whatever_reports_say_metrics_can_be_parsed_and_stay_bounded(tmp_path: Path) -> None:
    hostile(tmp_path)
    for each in range(200):
        reported(tmp_path, report(1000 + each, task_queues=(f"queue-{each}",), digest=f"{each}"))
    async with running(tmp_path, policies=PERMIT_ALL) as shown, shown.browser() as looking:
        told = await until(looking, lambda told: len(told["workers"]) == 200 and told["unlisted"] == len(XSS))
        read = samples((await looking.get("/metrics")).text)
        openly = await looking.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert len({dict(labels)["worker"] for name, labels in read if name == "exequatur_worker_info"}) == 200
    assert len(read) < 200 * 40
    assert openly.text.endswith("# EOF\n")
    assert len(told["problems"]) <= 100


@asynccontextmanager
async def looked_at(chromium: Browser, shown: Running, **options: Any) -> AsyncIterator[tuple[Page, list[str]]]:
    """The page in a browser, and what went wrong there."""
    wrong: list[str] = []
    context = await chromium.new_context(**options)
    try:
        page = await context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        await page.goto(shown.link())
        await page.wait_for_url("**/governance**")
        await page.goto(f"{shown.url}/health")
        await page.wait_for_selector("#latency-plot svg")
        yield page, wrong
    finally:
        await context.close()


async def look_again(page: Page) -> None:
    """What the page does every few seconds, and whenever somebody comes back to it."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_the_numbers_of_the_gate_say_what_they_count_and_fit_each_other(tmp_path: Path) -> None:
    """One worker runs and has observed a denial; others have ended, and the evidence has what they decided."""
    now = time.time()
    reported(tmp_path, report(7, traffic=traffic(now, 0.004, observed=1, receipt=2)))
    write(tmp_path, *[decision() for _ in range(3)], decision(decision="deny", enforced=False))
    async with running(tmp_path) as shown, shown.browser() as looking:
        told = await until(looking, lambda told: told["workers"] and sum(told["decided"].values()) == 4)
        page = (await looking.get("/health")).text
    assert told["decided"] == {"allow": 3, "deny": 1, "none": 0}
    tiles = dict(re.findall(r"<dt[^>]*>([^<]+)</dt><dd>([\d,]+)", page))
    assert tiles["Decisions, 15 min"] == "1"
    numbers = [int(tiles[name]) for name in ("Not allowed", "Only observed", "Could not decide", "Refused later")]
    assert numbers == [0, 1, 0, 2]
    # What is drawn and what stands in the table are the same.
    drawn = [int(each) for each in re.findall(r'data-of="\w+" class="kind">(\d+)<', page)]
    assert sum(drawn) == sum(numbers)
    words = " ".join(re.sub("<[^>]+>", "", page).split())
    assert "One worker that reports here tells this of its activities" in words
    assert "of these 15 minutes it has 4 decisions (3 allowed, 1 denied, 0 refused)" in words


async def test_a_person_sees_what_fails_as_it_happens_and_what_to_do(stage: START, chromium: Browser) -> None:
    here = await stage(POLICIES)
    async with here.worker([OneActivity], [act, forbidden]), watched(here) as (shown, looking):
        await (await start_one(here, act)).result()
        await failure_of(await start_one(here, forbidden))
        await until(looking, lambda told: told["workers"][0]["kinds"]["denied"] == 1 and told["state"] == "ok")
        async with looked_at(chromium, shown) as (page, wrong):
            assert await page.inner_text("#verdict h2") == "All is well"
            # The table has the numbers that are drawn.
            await page.click("#minutes-details summary")
            assert await page.locator("#minutes tbody tr").count() == 15
            denied = await page.locator('#minutes td[data-of="denied"]').all_inner_texts()
            assert sum(map(int, denied)) == 1
            assert await page.locator("#errors-plot .drawing rect.kind-denied").count() == 1
            assert await page.locator("#latency-plot .dot, #latency-plot .line").count() > 3
            assert await page.get_by_role("img", name="Refusals and errors: 1 in 15 minutes").count() == 1

            guard = await guarded(here)
            guard.violation = f"{ALTERED}: a.py was changed"
            await until(looking, lambda told: told["state"] == "failing")
            await look_again(page)
            await page.wait_for_selector('#verdict[data-state="failing"]')
            assert "A worker is not what its manifest says" in await page.inner_text("#problems")
            assert "Find out who changed it" in await page.inner_text("#problems li >> nth=0")
            assert "Something is failing" in await page.inner_text("#said")
            assert await page.locator("#minutes-details[open]").count() == 1
            guard.violation = None
            await until(looking, lambda told: told["state"] == "ok")
            await look_again(page)
            await page.wait_for_selector('#verdict[data-state="ok"]')
            assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_hostile_reports_run_nothing_and_axe_finds_nothing_serious(
    tmp_path: Path, chromium: Browser, scheme: str
) -> None:
    from axe_playwright_python.async_playwright import Axe

    hostile(tmp_path)
    config = {"temporal_ui": "http://127.0.0.1:8233"}
    async with running(tmp_path, policies=PERMIT_ALL, config=config) as shown, shown.browser() as looking:
        await until(looking, lambda told: len(told["workers"]) == len(XSS) and "temporal-down" in kinds(told))
        options = {"color_scheme": scheme, "viewport": {"width": 390 if scheme == "dark" else 1280, "height": 900}}
        async with looked_at(chromium, shown, **options) as (page, wrong):
            await page.click("#minutes-details summary")
            found = await Axe().run(page)
            serious = [each for each in found.response["violations"] if each["impact"] in ("serious", "critical")]
            assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
            assert await page.evaluate("window.hacked") is None
            assert "<script>window.hacked" in await page.inner_text("#workers")
            links = await page.eval_on_selector_all("#main a", "all => all.map(each => each.href)")
            assert all(each.startswith((shown.url, "http://127.0.0.1:8233/namespaces/")) for each in links)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert wrong == []


async def test_a_console_that_goes_away_is_said_on_the_page(tmp_path: Path, chromium: Browser) -> None:
    async with running(tmp_path, policies=PERMIT_ALL) as shown, looked_at(chromium, shown) as (page, _):
        assert await page.inner_text("#verdict h2") == "Something is failing"
        shown.stop.set()
        await asyncio.sleep(0.3)
        await look_again(page)
        await page.wait_for_selector("#freshness .lost")
        assert "does not answer" in await page.inner_text("#freshness")


@asynccontextmanager
async def ended_release(stage: Stage) -> AsyncIterator[None]:
    """Nobody released the policies again in time."""
    gate = stage.plugin.gate
    kept = gate.policy
    gate.policy = replace(kept, provenance=Provenance("acme", "1.0.0", "team", "address", expires=time.time() - 1))
    yield
    gate.policy = kept


@pytest.mark.parametrize(
    ("broken", "kind", "why", "advice"),
    [
        (no_journal, "worker-unavailable", "journal cannot be written", "Make room"),
        (corrupt_feed, "feed", "cannot be used", "revocation feed"),
        (stale_feed, "worker-unavailable", "not read in time", "revocation feed"),
        (past_century, "worker-unavailable", "clock shows", "NTP"),
        (next_century, "worker-unavailable", "clock shows", "NTP"),
        (lapsed_credential, "worker-unavailable", "credential has ended", "reaches its authority"),
        (ended_release, "worker-unavailable", "release of policy bundle", "policy sign"),
    ],
)
async def test_each_reason_to_fail_closed_is_named_with_what_to_do_until_it_is_over(
    stage: START, broken: Any, kind: str, why: str, advice: str
) -> None:
    here = await stage()
    async with here.worker([OneActivity], [act]), watched(here) as (_, looking):
        await until(looking, lambda told: told["states"]["ready"] == 1)
        began = time.time()
        async with broken(here):
            told = await until(looking, lambda told: told["states"]["unavailable"] == 1 and kind in kinds(told))
            first = next(each for each in told["problems"] if each["kind"] == kind)
            assert told["state"] == "failing"
            assert why in first["text"]
            assert advice in first["advice"]
            if why not in ("clock shows", "credential has ended"):  # nobody knows by a clock that is wrong
                assert first["since"] == pytest.approx(began, abs=60)
            page = html.unescape((await looking.get("/health")).text)
            assert first["headline"] in page
            assert first["advice"] in page
        await until(looking, lambda told: told["states"]["ready"] == 1 and told["state"] == "ok")
