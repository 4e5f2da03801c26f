"""The demo page in a real browser: its whole story, and two visitors who do not see each other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.console.running import Running, running
from tests.console.test_demo_page import DEMO

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

WIDE, NARROW = (1280, 900), (390, 800)
HOSTILE = '</script><img src=x onerror="window.hit=1">{{7*7}}'


@pytest_asyncio.fixture(scope="module")
async def shown(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("demo-browser")
    async with running(folder, target=target, config=DEMO) as started:
        yield started


@asynccontextmanager
async def visiting(chromium: Browser, shown: Running, size: tuple[int, int] = WIDE) -> AsyncIterator[Page]:
    """A visitor with a browser of their own; nothing may go wrong in it, nor be blocked."""
    context = await chromium.new_context(viewport={"width": size[0], "height": size[1]})
    page = await context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    try:
        await page.goto(shown.link())
        await page.wait_for_url("**/governance")
        await page.goto(f"{shown.url}/demo")
        await page.wait_for_selector("html[data-ready]")
        yield page
        # What the console refuses is shown on the page; the browser notes its status besides.
        assert [each for each in wrong if "the server responded with a status of" not in each] == []
        assert await page.evaluate("window.hit") is None
    finally:
        await context.close()


async def run(page: Page, example: str, ends: str) -> None:
    await page.get_by_role("button", name=example).click()
    await page.get_by_role("button", name="Start the agent").click()
    await expect(page.locator(".run-head .tag")).to_have_text(ends)


def steps(page: Page) -> str:
    return "#run .step .title .tag"


async def test_the_whole_story(chromium: Browser, shown: Running) -> None:
    async with visiting(chromium, shown) as page:
        # Some steps pass, one does not, and the page says why.
        await run(page, "A complaint of three steps", "Stopped")
        assert await page.locator(steps(page)).all_inner_texts() == ["Grant issued", "Allowed", "Allowed", "Denied"]
        await expect(page.locator("#run .why")).to_contain_text("decided by a person, never by an agent")
        await expect(page.locator("#facts")).to_contain_text("42.50 of o-1001")
        await expect(page.locator("#said")).to_contain_text("Step 3")
        await page.locator("#run summary").nth(2).click()
        await expect(page.locator("#run details[open]")).to_contain_text("Digest of the arguments")
        await expect(page.locator("#run details[open]")).to_contain_text("Signed receipt")

        # Tampered with: the original is verified, the copy is not, and the audit says why.
        await page.get_by_role("button", name="A hundred times the amount").click()
        verdicts = page.locator(".verdicts > div")
        await expect(verdicts.nth(0)).to_contain_text("Verified")
        await expect(verdicts.nth(1)).to_contain_text("Violations found")
        await expect(verdicts.nth(1)).to_contain_text("The arguments are not those that were requested")
        await page.get_by_text("Choose an event and a change yourself").click()
        await page.get_by_label("Event", exact=True).select_option("2")
        await page.get_by_label("Change", exact=True).select_option("edit")
        await page.get_by_label("The event as JSON").fill("{" + HOSTILE)
        await page.get_by_role("button", name="Change a copy and audit it").click()
        await expect(page.locator("#verdict")).to_contain_text("not JSON")

        # The same inputs are denied once the policy says so, and allowed again when it is as it was.
        await run(page, "A refund within the limit", "Completed")
        await page.get_by_role("button", name="Let nobody refund more than 40.00").click()
        await page.get_by_role("button", name="Put in force").click()
        await page.locator("#checked").get_by_role("button", name="Run the same again").click()
        await expect(page.locator(".run-head .tag")).to_have_text("Stopped")
        await expect(page.locator("#run .why")).to_contain_text("a refund above 40.00 is not paid")
        await page.get_by_text("What differs from the original").click()
        await expect(page.locator("#difference .plus").last).to_contain_text('decimal("40.00")')
        # A broken edit shows where and how to mend it, and what was in force stays.
        await page.get_by_role("button", name="Break it").click()
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("#checked")).to_contain_text("refunds.cedar, line 4, column 9")
        await expect(page.locator("#checked")).to_contain_text("Fix: write: permit")
        await expect(page.locator("#gutter .bad")).to_have_text("4")
        # What merely follows from the error, as that nothing permits a refund any more, is not told besides.
        assert await page.locator("#checked .problems .tag").all_inner_texts() == ["error"]
        await expect(page.locator("#in-force")).to_contain_text("your edit of refunds.cedar")
        # What a policy says is text, whatever it is.
        text = await page.evaluate("fetch('/demo/policies.json').then(a => a.json()).then(b => b.files[0].text)")
        await page.get_by_label("Policies in refunds.cedar").fill(
            text.replace("a refund above 40.00", HOSTILE.replace('"', "'"))
        )
        await page.get_by_role("button", name="Put in force").click()
        await expect(page.locator("#checked")).to_contain_text("In force now")
        await run(page, "A refund within the limit", "Stopped")
        await expect(page.locator("#run .why")).to_contain_text("<img src=x onerror=")
        await page.get_by_role("button", name="Restore the original").click()
        await expect(page.locator("#in-force")).to_contain_text("the original")

        # Revoked in the middle.
        await run(page, "A long migration", "Running")
        await expect(page.locator("#facts")).to_contain_text(re.compile("[1-9]0 of 2,000"))
        await page.get_by_role("button", name="Revoke now").click()
        await expect(page.locator(".run-head .tag")).to_have_text("Stopped")
        assert await page.locator(steps(page)).all_inner_texts() == ["Grant issued", "Revoked"]
        # The policy that had allowed it did not revoke it.
        await expect(page.locator("#run .step").last).to_contain_text(
            "Before that, it was allowed by the policy migrations-by-operations"
        )

        # People are asked.
        await run(page, "A refund that finance must agree to", "Waits for people")
        await page.get_by_role("button", name=re.compile("Agree as")).click()
        await expect(page.locator(".run-head .tag")).to_have_text("Completed")
        await expect(page.locator("#run .step").last.get_by_text('Agreed by User::"fay"', exact=True)).to_be_visible()

        # What was done is there after a reload, and gone after a reset.
        await page.reload()
        await expect(page.locator("#runs li")).to_have_count(6)
        await page.get_by_role("button", name="Reset the sandbox").click()
        await expect(page.locator("#run")).to_contain_text("Nothing has run yet")
        await expect(page.locator("#facts-panel")).to_be_hidden()


async def test_two_visitors_do_not_see_each_other(chromium: Browser, shown: Running) -> None:
    async with visiting(chromium, shown) as first, visiting(chromium, shown, NARROW) as second:
        await run(first, "A refund within the limit", "Completed")
        await second.reload()
        await expect(second.locator("#run")).to_contain_text("Nothing has run yet")
        await run(second, "A refund above the limit", "Stopped")
        await expect(second.locator("#facts")).to_contain_text("none")
        await expect(first.locator("#facts")).to_contain_text("42.50 of o-1001")
        await expect(first.locator(".run-head .tag")).to_have_text("Completed")


async def test_the_address_says_which_run_file_and_event_are_looked_at(chromium: Browser, shown: Running) -> None:
    async with visiting(chromium, shown) as page:
        await run(page, "A refund within the limit", "Completed")
        await run(page, "A refund above the limit", "Stopped")
        title = page.locator(".run-head h3")
        assert "run=2" in page.url
        await page.locator("#runs a").filter(has_text="1. Refund 42.50").click()
        await expect(title).to_have_text("Refund 42.50 to Ada Okafor")
        await page.get_by_role("button", name="starts.cedar").click()
        await page.get_by_text("Choose an event and a change yourself").click()
        await page.get_by_label("Event", exact=True).select_option("5")
        await page.get_by_label("Change", exact=True).select_option("drop")
        link = page.url

        # A reload, or the same link in another tab, shows the same.
        other = await page.context.new_page()
        for each in (page, other):
            await each.goto(link)
            await expect(each.locator(".run-head h3")).to_have_text("Refund 42.50 to Ada Okafor")
            await expect(each.get_by_label("Policies in starts.cedar")).to_be_visible()
            await expect(each.get_by_label("Event", exact=True)).to_have_value("5")
            await expect(each.get_by_label("Change", exact=True)).to_have_value("drop")

        # So does a falsification that was picked.
        await page.get_by_role("button", name="A hundred times the amount").click()
        await expect(page.locator(".verdicts")).to_be_visible()
        await expect(page).to_have_url(re.compile(r"[?&]event=[0-9]+&change=arguments"))
        event = await page.get_by_label("Event", exact=True).input_value()
        await other.goto(page.url)
        await expect(other.get_by_label("Event", exact=True)).to_have_value(event)
        await expect(other.get_by_label("Change", exact=True)).to_have_value("arguments")
        await other.close()

        # "Back" goes the way back.
        while "event=" in page.url:
            await page.go_back()
        await expect(page.get_by_label("Policies in starts.cedar")).to_be_visible()
        while "run=1" in page.url:
            await page.go_back()
        await expect(title).to_have_text(re.compile("Refund 9000.00"))
        await page.go_forward()
        await expect(title).to_have_text("Refund 42.50 to Ada Okafor")

        # What is not there is said.
        trouble = page.locator("#trouble")
        await page.goto(link.replace("run=1", "run=77"))
        await expect(trouble).to_contain_text("There is no run 77 in your sandbox")
        async with visiting(chromium, shown) as stranger:
            await stranger.goto(link)
            await expect(stranger.locator("#trouble")).to_contain_text(
                "run 1 of a sandbox that has ended, or to somebody"
            )
            await expect(stranger.locator("#run")).to_contain_text("Nothing has run yet")
        await page.goto(link)
        await page.get_by_role("button", name="Reset the sandbox").click()
        await expect(page.locator("#run")).to_contain_text("Nothing has run yet")
        assert page.url.endswith("/demo")
        await page.goto(link)
        await expect(trouble).to_contain_text("a sandbox that has ended")
        await page.goto(f"{shown.url}/demo?sandbox={HOSTILE}&run={HOSTILE}&file={HOSTILE}&event={HOSTILE}")
        await expect(trouble).to_contain_text("run </script><img")


async def test_an_input_that_cannot_be_used_is_said_at_its_field(chromium: Browser, shown: Running) -> None:
    async with visiting(chromium, shown) as page:
        amount = page.get_by_label("Amount to refund")
        await amount.fill(HOSTILE)
        await amount.press("Enter")

        await expect(page.locator("#wrong")).to_contain_text("must be a number such as 42.50")
        await expect(amount).to_be_focused()
        await expect(amount).to_have_attribute("aria-invalid", "true")
        await page.get_by_label("What the agent is told to do").select_option("migrate")
        await expect(amount).to_be_hidden()


async def test_the_page_is_accessible_and_fits_in_light_and_dark(chromium: Browser, shown: Running) -> None:
    from axe_playwright_python.async_playwright import Axe

    async with visiting(chromium, shown) as page:
        await run(page, "A complaint of three steps", "Stopped")
        await page.get_by_role("button", name="Break it").click()
        await page.get_by_role("button", name="Put in force").click()
        await expect(page.locator(".problems")).to_be_visible()
        await page.get_by_role("button", name="Take the receipt out").click()
        await expect(page.locator(".verdicts")).to_be_visible()
        for (width, height), scheme in ((WIDE, "dark"), (NARROW, "light")):
            await page.set_viewport_size({"width": width, "height": height})
            await page.emulate_media(color_scheme=scheme)
            found = await Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_console_that_stops_is_said_on_the_page(
    chromium: Browser, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stopping")
    async with running(folder, target=target, config=DEMO) as started:
        context = await chromium.new_context()
        page = await context.new_page()
        await page.goto(started.link())
        await page.wait_for_url("**/governance")
        await page.goto(f"{started.url}/demo")
        await page.wait_for_selector("html[data-ready]")
    try:
        await page.get_by_role("button", name="Start the agent").click()
        await expect(page.locator("#trouble")).to_contain_text("does not answer")
    finally:
        await context.close()
