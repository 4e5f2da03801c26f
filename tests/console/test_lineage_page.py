"""The lineage pages in a real browser: the main story, hostile names, a run of ten thousand activities, and axe."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from playwright.async_api import expect

from exequatur.audit.report import Report
from exequatur.console import graph, timeline
from exequatur.console.references import Place
from exequatur.console.runs import Audited
from exequatur.lineage import document
from tests.console.lineage_runs import Made
from tests.console.running import Running
from tests.console.test_lineage import VIEWS, at
from tests.console.test_lineage_model import long_run

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page


@asynccontextmanager
async def looking(chromium: Browser, explorer: Running, **options: Any) -> AsyncIterator[Page]:
    """Somebody with a browser in which nothing goes wrong, nothing is blocked, and no script of others runs."""
    context = await chromium.new_context(**options)
    page = await context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    try:
        await page.goto(explorer.link())
        await page.wait_for_url(f"{explorer.url}/governance")
        yield page
        assert await page.evaluate("globalThis.pwned") is None
        assert wrong == []
    finally:
        await context.close()


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


async def ready(page: Page, url: str) -> None:
    """Open a page, and wait until its run was audited."""
    await page.goto(url)
    await expect(page.locator("#waiting")).to_have_count(0)


async def test_a_run_is_found_understood_and_exported(chromium: Browser, explorer: Running, made_runs: Made) -> None:
    agent = made_runs.ids["agent"]
    async with looking(chromium, explorer, accept_downloads=True) as page:
        await page.get_by_role("link", name="Lineage").click()
        await page.get_by_label("Workflow id begins").fill(agent)
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("link", name=agent, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(agent)
        await expect(page.get_by_role("heading", name="Verified")).to_be_visible()
        await expect(page.locator("table.activities tbody tr")).to_have_count(7)
        await page.get_by_label("Show").select_option("refused")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("table.activities tbody tr")).to_have_count(2)
        await page.get_by_role("link", name="Why: delete_record").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Why was this denied?")
        await expect(page.locator("pre").first).to_contain_text('forbid(principal, action == Action::"delete_record"')
        await page.get_by_role("link", name=agent).click()
        await expect(page.locator("tr.meant")).to_have_count(1)
        await page.get_by_role("link", name="Graph").click()
        await expect(page.locator("#graph g.node")).to_have_count(8)
        await expect(page.locator("#graph")).to_contain_text("look_up \u00d74")
        await page.get_by_role("link", name="child, completed").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"{agent}-child")
        await expect(page.get_by_text("1. to Continued")).to_be_visible()
        await page.get_by_role("link", name="Runs that belong to it").click()
        await expect(page.locator("table.family").get_by_text("Verified")).to_have_count(3)
        await page.goto(explorer.url + at(made_runs, "agent"))
        await page.get_by_role("link", name="Compare").click()
        await page.get_by_label("Compare with the workflow").fill(made_runs.ids["other"])
        await page.get_by_role("button", name="Compare").click()
        await expect(page.locator("table.pairs tbody tr")).to_have_count(1)
        await expect(page.locator("table.pairs")).to_contain_text("other arguments")
        await page.goto(explorer.url + at(made_runs, "agent"))
        await page.get_by_text("Export").click()
        async with page.expect_download() as saved:
            await page.get_by_role("link", name="Evidence bundle").click()
        content = document.read(io.BytesIO(_bytes(await (await saved.value).path())))
        assert content.proofs["workflow_id"] == agent


async def test_names_of_attackers_are_text_on_every_page(chromium: Browser, explorer: Running, made_runs: Made) -> None:
    async with looking(chromium, explorer) as page:
        for name in ("hostile", "tricky"):
            for tab in VIEWS:
                await ready(page, explorer.url + at(made_runs, name, tab=tab))
                if tab == "graph":
                    await expect(page.locator("#graph g.node").first).to_be_visible()
                assert await page.locator("main img, main script, main svg[onload]").count() == 0
            await page.goto(explorer.url + at(made_runs, name, "/lineage/why", activity="1"))
            assert await page.locator("main img").count() == 0
            await page.goto(explorer.url + at(made_runs, name, "/lineage/compare", other=made_runs.ids["agent"]))
            assert await page.locator("main img").count() == 0
        for name in ("hostile", "tricky"):
            await page.goto(f"{explorer.url}/lineage?{urlencode({'id': made_runs.ids[name]})}")
            link = page.locator("table.runs tbody tr").filter(has_text=made_runs.ids[name][-6:]).locator("a")
            told = await link.evaluate_all(
                "links => links.map(each => new URL(each.href).searchParams.get('workflow'))"
            )
            assert made_runs.ids[name] in told


async def test_a_run_of_ten_thousand_activities_stays_usable(
    chromium: Browser, explorer: Running, made_runs: Made
) -> None:
    kept = explorer.console.runs
    place = Place("default", made_runs.ids["other"], made_runs.first_runs["other"])
    await kept.audited(place.namespace, place.workflow_id, place.run_id, who="nobody", wait=20)
    before = kept.kept(place)
    assert before is not None
    many = long_run().model_copy(
        update={"workflow_id": place.workflow_id, "run_id": place.run_id, "events": before.run.events}
    )
    kept.keep(Audited(place, Report(runs=(many,)), explorer.console.clock()))
    try:
        async with looking(chromium, explorer) as page:
            url = explorer.url + at(made_runs, "other", run=place.run_id)
            await page.goto(url)
            rows = page.locator("table.activities tbody tr")
            await expect(rows).to_have_count(timeline.ROWS)
            await page.get_by_role("link", name="Last", exact=True).first.click()
            await expect(rows.last).to_contain_text(f"event {many.activities[-1].event_id}")
            await page.get_by_label("Go to event").fill(str(many.activities[5_000].event_id))
            await page.get_by_role("button", name="Show").click()
            await expect(page.locator("tr.meant")).to_contain_text(f"event {many.activities[5_000].event_id}")
            await page.goto(f"{url}&tab=graph")
            nodes = page.locator("#graph g.node")
            await expect(nodes.first).to_be_visible()
            assert await nodes.count() <= graph.MOST + 10
            assert await page.evaluate("document.querySelectorAll('*').length") < 3_000
    finally:
        kept.keep(before)


async def test_on_a_narrow_screen_nothing_is_cut(chromium: Browser, explorer: Running, made_runs: Made) -> None:
    async with looking(chromium, explorer, viewport={"width": 360, "height": 740}) as page:
        for path in ("/lineage", *(at(made_runs, "agent", tab=tab) for tab in VIEWS)):
            await ready(page, explorer.url + path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path


async def test_axe_finds_nothing(chromium: Browser, explorer: Running, made_runs: Made) -> None:
    from axe_playwright_python.async_playwright import Axe

    paths = [
        at(made_runs, "agent"),
        "/lineage",
        at(made_runs, "agent", tab="graph"),
        at(made_runs, "agent", tab="family"),
        at(made_runs, "agent", "/lineage/why", activity="7"),
        at(made_runs, "agent", "/lineage/compare", other=made_runs.ids["other"]),
        at(made_runs, "agent", "/lineage/compare"),
    ]
    for scheme in ("light", "dark"):
        async with looking_at_errors(chromium, explorer, color_scheme=scheme) as page:
            for path in paths if scheme == "light" else paths[:1]:
                await ready(page, explorer.url + path)
                if "tab=graph" in path:
                    await expect(page.locator("#graph g.node").first).to_be_visible()
                found = (await Axe().run(page)).response["violations"]
                assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == [], path


@asynccontextmanager
async def looking_at_errors(chromium: Browser, explorer: Running, **options: Any) -> AsyncIterator[Page]:
    """As :func:`looking`, where a page may be one that is not there."""
    context = await chromium.new_context(**options)
    page = await context.new_page()
    await page.goto(explorer.link())
    await page.wait_for_url(f"{explorer.url}/governance")
    try:
        yield page
    finally:
        await context.close()
