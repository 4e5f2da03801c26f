"""The ways in, in a real Chromium: the link, a link on another site, several tabs, and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import expect

from tests.console.running import running

if TYPE_CHECKING:
    from playwright.async_api import Browser

ELSEWHERE = "http://wiki.example/"


async def test_the_link_opens_it_a_link_elsewhere_leads_into_it_and_leaving_ends_it(tmp_path, chromium: Browser):
    async with running(tmp_path) as console:
        context = await chromium.new_context()
        page = await context.new_page()
        deep = f"{console.url}/governance?outcome=deny"
        wiki = f'<a id="deep" href="{deep}">what was denied</a><a id="start" href="{console.opening}">start</a>'
        await context.route(f"{ELSEWHERE}**", lambda route: route.fulfill(content_type="text/html", body=wiki))

        await page.goto(ELSEWHERE)
        await page.click("#deep")
        await expect(page.get_by_role("heading", name="Open the console by its link")).to_be_visible()

        await page.goto(ELSEWHERE)
        await page.click("#start")
        await page.wait_for_url(f"{console.url}/governance")

        # The browser does not send a SameSite=Strict cookie on its way from another site.
        await page.goto(ELSEWHERE)
        await page.click("#deep")
        await page.wait_for_url(deep)
        await expect(page.get_by_role("button", name="Log out")).to_be_visible()

        other = await context.new_page()
        await other.goto(deep)
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url(f"{console.url}/left")
        await expect(page.get_by_role("heading", name="You have logged out")).to_be_visible()
        await other.reload()
        await expect(other.get_by_role("heading", name="Open the console by its link")).to_be_visible()
        await context.close()
