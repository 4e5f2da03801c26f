"""The governance page in a real Chromium: it keeps up, it runs nothing that a record says, and everybody can use it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from exequatur.lineage.journal import Journal
from exequatur.policy.bundle import PolicyBundle
from exequatur.release.report import Standing, report_of, write_report
from exequatur.statements.encoding import compact_json
from tests.authority.running import eventually
from tests.console.running import REFERENCE, Running, decision, running, write

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PER_SECOND = 200
SECONDS = 4
HOSTILE = [
    "<script>pwned()</script>",
    '"><img src=x onerror=pwned()>',
    "'><svg onload=pwned()>",
    "javascript:pwned()",
    "</textarea></title></style></script><script>pwned()</script>",
    "{{7*7}}{% import os %}${7*7}#{7*7}",
    "<iframe srcdoc='<script>parent.pwned()</script>'>",
    "\u202e\u2066\u0000\u0007\u200b\ufeff\ud7ff",
    "]]><!--><script>pwned()</script>",
    "&lt;script&gt;&#x3c;script&#x3e;",
    "onmouseover=pwned() x=",
    "\n\ndata: {}\n\nevent: ended\n",
    "../../../etc/passwd?x#y%00%0d%0aSet-Cookie:a=b",
    "a" * 3000,
]
FIELDS = (
    "principal",
    "activity_type",
    "workflow_id",
    "run_id",
    "activity_id",
    "reason",
    "bundle",
    "arguments",
    "facts",
)
LOOK = """() => ({
    ran: window.ran === true,
    scripts: [...document.scripts].filter((each) => !each.src.startsWith(`${location.origin}/static/`)).length,
    odd: document.querySelectorAll(
        "main img, main iframe, main svg[onload], main [onerror], main [onmouseover], main [srcdoc]"
    ).length,
    links: [...document.links].filter((each) => new URL(each.href).origin !== location.origin).length,
})"""


@asynccontextmanager
async def opened(browser: Browser, console: Running, path: str = "/governance", **context: Any) -> AsyncIterator[Page]:
    """A page of somebody who is in, and what goes wrong on it."""
    looking = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    try:
        page = await looking.new_page()
        page.wrong = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.wrong.append(str(error)))  # type: ignore[attr-defined]
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)  # type: ignore[attr-defined]
        page.on("dialog", lambda dialog: page.wrong.append(dialog.message))  # type: ignore[attr-defined]
        await page.goto(console.link())
        await page.wait_for_url("**/governance")
        if path != "/governance":
            await page.goto(console.url + path)
        yield page
        assert page.wrong == []  # type: ignore[attr-defined]
    finally:
        await looking.close()


async def test_the_live_page_holds_200_decisions_a_second(chromium, tmp_path):
    async with running(tmp_path) as console, opened(chromium, console) as page:
        await expect(page.locator("#state")).to_have_text("Live")
        whole, began, behind = PER_SECOND * SECONDS, time.monotonic(), []
        with Journal.open(tmp_path / "state" / "journal") as journal:
            for tenth in range(SECONDS * 10):
                for number in range(PER_SECOND // 10):
                    journal.enqueue("decision", decision(workflow_id=f"w-{tenth}-{number}"))
                await asyncio.sleep(max(0.0, began + (tenth + 1) / 10 - time.monotonic()))
                if tenth % 10 == 9:
                    shown = await page.locator('[data-count="total"]').text_content()
                    behind.append((tenth + 1) * (PER_SECOND // 10) - int((shown or "0").replace(",", "")))
        await expect(page.locator('[data-count="total"]')).to_have_text(f"{whole:,}")
        assert console.console.decisions.counts().total == whole
        # It never falls behind: what is not shown yet does not grow with what was decided.
        assert max(behind) < 2 * PER_SECOND, behind
        assert await page.locator("#decisions tbody tr").count() <= 300
        first = page.locator("#decisions tbody tr").first
        assert f"w-{SECONDS * 10 - 1}-{PER_SECOND // 10 - 1}" in (await first.text_content() or "")
        assert await page.locator("#lost").is_hidden()


async def test_nothing_that_a_record_says_is_run(chromium, tmp_path):
    async with running(tmp_path) as console:
        rows = [dict.fromkeys(FIELDS, text) | {"policies": [text]} for text in HOSTILE]
        write(tmp_path, *[decision(**row, decision="deny") for row in rows[: len(rows) // 2]])
        async with opened(chromium, console) as page:
            await page.evaluate("window.pwned = () => { window.ran = true; }")
            write(tmp_path, *[decision(**row, decision="deny") for row in rows[len(rows) // 2 :]])
            body = {"name": HOSTILE[0], "kind": HOSTILE[1], "reason": HOSTILE[2], "accepted": False}
            write(tmp_path, compact_json({**body, "principal": HOSTILE[3], "workflow_id": HOSTILE[4]}), kind="message")
            for_all = len(rows) + 1
            await expect(page.locator("#decisions tbody tr")).to_have_count(for_all)
            listed = console.console.decisions.since(0).rows
            paths = ["/governance", "/governance?policy=%3Cscript%3Epwned()%3C%2Fscript%3E", "/governance/policies"]
            paths += [f"/governance/decision?log={row.log}&index={row.index}" for row in listed]
            for path in paths:
                await page.goto(console.url + path)
                found = await page.evaluate(LOOK)
                assert found == {"ran": False, "scripts": 0, "odd": 0, "links": 0}, path
            text = await page.locator("main").text_content() or ""
            assert "\u202e" not in text


async def test_a_time_that_is_none_stops_nothing(chromium, tmp_path):
    async with running(tmp_path) as console, opened(chromium, console) as page:
        await expect(page.locator("#state")).to_have_text("Live")
        (tmp_path / "other").mkdir()
        write(tmp_path / "other", *[decision(workflow_id=f"odd-{n}") for n in range(4)])
        [path] = (tmp_path / "other" / "state" / "journal").glob("*.db")
        with closing(sqlite3.connect(path)) as db, db:
            times = (1e300, 9e999, -1e300, 1e12)
            db.executemany("UPDATE records SET at = ? WHERE idx = ?", [(at, n) for n, at in enumerate(times)])
        write(tmp_path, decision(workflow_id="sound"))
        await expect(page.locator("#decisions tbody tr")).to_have_count(1)
        shutil.copy(path, tmp_path / "state" / "journal" / "other.db")
        await expect(page.locator("#decisions tbody tr")).to_have_count(5)
        await expect(page.get_by_text("unknown")).to_have_count(4)
        await page.reload()
        await expect(page.locator("#decisions tbody tr")).to_have_count(5)


async def test_a_filter_is_a_deep_link_and_holds_for_what_comes(chromium, tmp_path):
    async with running(tmp_path) as console:
        write(
            tmp_path, decision(activity_type="refund_order"), decision(activity_type="delete_records", decision="deny")
        )
        async with opened(chromium, console) as page:
            await page.get_by_label("Activity or action").fill("delete")
            await page.get_by_role("button", name="Filter").click()
            await page.wait_for_url("**/governance?activity=delete")
            rows = page.locator("#decisions tbody tr")
            assert await rows.count() == 1
            await expect(page.locator("#state")).to_have_text("Live")
            write(tmp_path, decision(activity_type="refund_order"), decision(activity_type="delete_more"))
            await expect(rows).to_have_count(2)
            assert "delete_more" in (await rows.first.text_content() or "")
            await page.reload()
            assert await page.get_by_label("Activity or action").input_value() == "delete"
            await page.get_by_label("Outcome").select_option("deny")
            await page.wait_for_url("**/governance?activity=delete&outcome=deny")
            assert await rows.count() == 1
            await rows.first.get_by_role("link").first.click()
            await page.wait_for_url("**/governance/decision?**")
            assert await page.get_by_text("Arguments that Cedar was given").count() == 1


async def test_a_page_that_was_paused_goes_on_with_what_it_missed(chromium, tmp_path):
    async with running(tmp_path) as console, opened(chromium, console) as page:
        await expect(page.locator("#state")).to_have_text("Live")
        await page.get_by_role("button", name="Pause").click()
        write(tmp_path, decision(workflow_id="while-paused"))
        await expect(page.locator("#state")).to_have_text("Paused; 1 new")
        assert await page.locator("#decisions tbody tr").count() == 0
        await page.get_by_role("button", name="Go on").click()
        assert await page.get_by_text("while-paused").count() == 1


async def test_a_person_revokes_and_lifts_with_what_is_typed(chromium, tmp_path):
    async with running(tmp_path) as console:
        write(tmp_path, decision(principal='Agent::"ops-bot"'))
        async with opened(chromium, console) as page:
            await page.locator("#decisions tbody a").first.click()
            await page.get_by_role("link", name="Revoke this principal").click()
            assert await page.get_by_label("Its name").input_value() == 'Agent::"ops-bot"'
            revoke = page.locator("form", has=page.get_by_role("button", name="Revoke", exact=True))
            await revoke.get_by_label("Why").fill("its token leaked")
            await revoke.get_by_label("Type the name once more").fill('Agent::"ops-bot"')
            await revoke.get_by_role("button", name="Revoke", exact=True).click()
            await page.get_by_text("Revoked. What matches ends within seconds").wait_for()
            assert console.console.governing.gate.revocations.entries[0].principal == 'Agent::"ops-bot"'
            await page.get_by_text("Lift…").click()
            lift = page.locator("form", has=page.get_by_role("button", name="Lift 1"))
            await lift.get_by_label("Why").fill("a new one was issued")
            await lift.get_by_label("Type its number").fill("1")
            await lift.get_by_role("button", name="Lift 1").click()
            await page.get_by_text("lifted by 2").wait_for()
    assert [each["action"] for each in console.records()] == ["revocation.add", "revocation.lift"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_the_pages(chromium, tmp_path, scheme):
    async with running(tmp_path) as console:
        bundle = PolicyBundle.from_folder(REFERENCE)
        standing = Standing(at=time.time(), worker="spiffe://x/w", task_queues=("operations",))
        write_report(tmp_path / "state", report_of(bundle.digest, None, time.time(), standing))
        outcomes = ("allow", "deny", "none")
        rows = [decision(decision=each, enforced=each != "none", reason="r", bundle=bundle.digest) for each in outcomes]
        write(tmp_path, *rows)
        row = {"what": "activity", "value": "x", "confirm": "x", "reason": "r"}
        async with console.browser() as kim:
            assert (await kim.post("/governance/revocations", row)).status_code == 303
        await eventually(lambda: console.console.decisions.place >= 3)
        first = console.console.decisions.since(0).rows[0]
        paths = ["", "/policies", "/approvals", "/revocations", f"/decision?log={first.log}&index={first.index}"]
        async with opened(chromium, console, color_scheme=scheme) as page:
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.textContent") == "Skip to the page"
            for width in (1280, 360):
                await page.set_viewport_size({"width": width, "height": 800})
                for path in paths:
                    await page.goto(f"{console.url}/governance{path}")
                    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                    assert wide <= 0, (path, width, wide)
                    if width == 1280:
                        found = (await Axe().run(page)).response["violations"]
                        assert [(each["id"], each["impact"]) for each in found] == [], (path, found)


async def test_the_first_paint_comes_within_a_second(chromium, tmp_path):
    async with running(tmp_path) as console:
        write(tmp_path, *[decision(workflow_id=f"w-{n}") for n in range(500)])
        async with opened(chromium, console) as page:
            await page.goto(f"{console.url}/governance")
            paint = await page.evaluate(
                """() => new Promise((done) => new PerformanceObserver((list) => {
                    const found = list.getEntriesByName("first-contentful-paint")[0];
                    if (found) done(found.startTime);
                }).observe({ type: "paint", buffered: true }))"""
            )
    print(f"first contentful paint after {paint:.0f} ms")


async def test_light_or_dark_is_remembered(chromium, tmp_path):
    async with running(tmp_path) as console, opened(chromium, console, color_scheme="light") as page:
        dark = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(dark) == "rgb(255, 255, 255)"
        await page.get_by_role("button", name="Light or dark").click()
        assert await page.evaluate(dark) == "rgb(20, 23, 26)"
        await page.goto(f"{console.url}/governance/policies")
        assert await page.evaluate(dark) == "rgb(20, 23, 26)"
