"""What a browser has to have before it paints a page: little, in few files, and nothing that waits for a server."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from exequatur.console.render import MENU
from exequatur.console.server import Temporal
from tests.console.running import Running, decision, running, write

PAGES = [
    *(place.path for place in MENU),
    "/governance/policies",
    "/governance/approvals",
    "/governance/revocations",
    "/nothing/here",
]
MOST_FILES = 3
"""Two stylesheets, and the script that knows whether it is light or dark: it runs before anything is drawn."""
MOST_BYTES = 96 * 1024
MOST_SCRIPT = 1024


class Head(HTMLParser):
    """What is asked for by a page, and in which way."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.modules: list[str] = []
        self.inline = 0
        self.other: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if tag == "link" and given.get("rel") == "stylesheet":
            self.styles.append(given["href"])
        elif tag == "script" and "src" not in given:
            self.inline += 1
        elif tag == "script":
            later = given.get("type") == "module" or "defer" in given or "async" in given
            (self.modules if later else self.scripts).append(given["src"])
        elif tag in ("iframe", "object", "embed", "style") or given.get("rel") in ("import", "preload"):
            self.other.append(tag)


@pytest.mark.parametrize("path", PAGES)
async def test_little_stands_between_a_page_and_its_first_paint(console: Running, path: str) -> None:
    async with console.browser() as looking:
        answered = await looking.get(path)
        head = Head(answered.text)
        blocking = [*head.styles, *head.scripts]
        files = [await looking.get(each) for each in blocking]
        later = [await looking.get(each) for each in head.modules]
    assert answered.headers["content-type"].startswith("text/html")
    assert (head.inline, head.other) == (0, [])
    assert head.scripts == ["/static/theme.js"]
    assert len(blocking) <= MOST_FILES
    assert all(each.startswith("/static/") for each in (*blocking, *head.modules))
    assert {each.status_code for each in (*files, *later)} == {200}
    assert len(files[-1].content) <= MOST_SCRIPT
    assert len(answered.content) + sum(len(each.content) for each in files) <= MOST_BYTES
    # A stylesheet that asks for more would hold up the paint by another round trip.
    assert all("@import" not in each.text and "url(" not in each.text for each in files)


async def test_pages_are_sent_without_asking_the_temporal_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(*_: Any) -> None:
        raise AssertionError("the Temporal server is asked before the page is sent")

    async with running(tmp_path, config={"demo": "workflows.console_demo:DEMO"}) as shown, shown.browser() as looking:
        write(tmp_path, *[decision() for _ in range(5)])
        monkeypatch.setattr(Temporal, "plain", asked)
        monkeypatch.setattr(Temporal, "ask", asked)
        for path in ("/governance", "/governance/policies", "/governance/revocations", "/proof", "/health", "/demo"):
            assert (await looking.get(path)).status_code == 200
