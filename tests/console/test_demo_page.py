"""The demo page over HTTP: who gets a sandbox, what the page takes, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from exequatur.console.demo import TOKEN, cookie_for
from tests.console.running import Looking, Running, running

DEMO = {"demo": "workflows.console_demo:DEMO", "demo_limits": {"visitors": 50, "each": 50, "check_seconds": 120}}


@dataclass
class Visitor:
    """Somebody with a session who has loaded the page."""

    looking: Looking
    token: str
    csrf: str

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        given = {"Origin": self.looking.url, "X-CSRF-Token": self.csrf, TOKEN: self.token, **headers}
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        return await self.looking.client.post(
            f"/demo/{path}", content=data, headers={"Accept": "application/json", **given}
        )

    async def get(self, path: str) -> httpx.Response:
        return await self.looking.client.get(f"/demo/{path}", headers={"Accept": "application/json"})

    async def run(self, inputs: Mapping[str, str]) -> dict[str, Any]:
        """Run to the end."""
        answered = await self.post("start", {"inputs": inputs})
        assert answered.status_code == 200, answered.text
        number = answered.json()["run"]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            runs = (await self.get("state.json")).json()["sandbox"]["runs"]
            found: dict[str, Any] = next(each for each in runs if each["number"] == number)
            if not found["open"]:
                return found
            await asyncio.sleep(0.05)
        raise TimeoutError


@asynccontextmanager
async def visiting(console: Running, who: str | None = 'User::"kim"') -> AsyncIterator[Visitor]:
    async with console.browser(who) as looking:
        page = (await looking.get("/demo")).text
        token, csrf = re.search(r'data-token="([^"]+)"', page), re.search(r'data-csrf="([^"]+)"', page)
        assert token is not None
        yield Visitor(looking, token[1], csrf[1] if csrf else "")


@pytest_asyncio.fixture(scope="module")
async def shown(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A console with the demo."""
    async with running(tmp_path_factory.mktemp("demo"), target=target, config=DEMO) as started:
        yield started


async def test_without_a_demo_the_page_says_how_to_turn_it_on(console: Running) -> None:
    async with console.browser() as looking:
        page = await looking.get("/demo")
        state = await looking.get("/demo/state.json")

    assert page.status_code == 200
    assert "<pre>--demo workflows.console_demo:DEMO</pre>" in page.text
    assert "make demo ARGS=--keep" in page.text
    assert state.status_code == 404
    assert state.json()["step"] == "Start it with --demo."


@pytest.mark.rule("demo.M1")
async def test_to_look_makes_no_sandbox_and_the_cookie_is_for_this_page_only(shown: Running) -> None:
    sandboxes = shown.console.demo
    assert sandboxes is not None
    before = len(sandboxes)
    async with shown.browser() as looking:
        page = await looking.get("/demo")
        again = await looking.get("/demo")
        state = await looking.get("/demo/state.json")
        policies = await looking.get("/demo/policies.json")

    cookie = next(each for each in page.headers.get_list("set-cookie") if each.startswith(cookie_for(shown.console)))
    assert page.status_code == 200
    assert "Settle a complaint" in page.text
    assert {"httponly", "samesite=strict", "path=/demo"} <= {each.strip().lower() for each in cookie.split(";")}
    assert again.headers["set-cookie"].split(";")[0] == cookie.split(";")[0]
    assert state.json() == {"sandbox": None}
    assert policies.json()["files"][0]["name"] == "refunds.cedar"
    assert len(sandboxes) == before


async def test_a_visitor_runs_edits_tampers_and_resets_and_another_sees_nothing_of_it(shown: Running) -> None:
    async with visiting(shown) as visitor, visiting(shown) as other:
        run = await visitor.run({"activity": "refund", "amount": "42.50"})
        text = (await visitor.get("policies.json")).json()["files"][0]["text"]
        broken = (await visitor.post("apply", {"texts": {"refunds.cedar": text + "permit"}})).json()
        history = (await visitor.get("history.json?run=1")).json()
        event = next(each for each in history["events"] if any(one["kind"] == "receipt" for one in each["changes"]))
        audit = (await visitor.post("audit", {"run": 1, "event": event["id"], "change": "receipt"})).json()
        of_other = [
            (await other.get("state.json")).json(),
            (await other.get("history.json?run=1")).status_code,
            (await other.post("revoke", {"run": 1})).status_code,
            (await other.post("audit", {"run": 1, "event": 1, "change": "grant"})).status_code,
        ]
        reset = (await visitor.post("reset")).json()
        gone = (await visitor.get("history.json?run=1")).json()
        begun_anew = await visitor.run({"activity": "refund", "amount": "9000.00", "customer": "c-2"})

    assert run["state"] == "completed"
    assert run["steps"][0]["decisions"][0]["policies"] == ["refunds-by-operations"]
    assert not broken["good"]
    assert broken["problems"][0]["line"] == text.count("\n") + 1
    assert audit["original"]["verdict"] == "verified"
    assert audit["copy"]["verdict"] == "violated"
    assert of_other == [{"sandbox": None}, 404, 404, 404]
    assert reset == {"sandbox": None}
    assert gone["why"] if "why" in gone else gone["status"] == 404
    assert (begun_anew["number"], begun_anew["steps"][0]["state"]) == (1, "denied")


async def test_what_happens_is_told_while_it_happens(shown: Running) -> None:
    async with visiting(shown) as visitor:
        await visitor.run({"activity": "refund"})
        states = []
        client = visitor.looking.client
        async with client.stream("GET", "/demo/follow") as stream:
            await visitor.post("start", {"inputs": {"activity": "complaint"}})
            assert stream.headers["content-type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    states.append(json.loads(line[6:])["runs"][0]["state"])
                if states and states[-1] == "stopped":
                    break

    assert states[-1] == "stopped"
    assert len(states) >= 3


@pytest.mark.rule("demo.M2")
async def test_what_changes_something_needs_the_token_of_this_browsers_page(shown: Running) -> None:
    async with visiting(shown) as visitor, visiting(shown) as other:
        answers = [
            await visitor.post("start", {"inputs": {}}, **{TOKEN: given}) for given in ("", "x", other.token, "0" * 64)
        ]
        without_cookie = visitor.looking.client.cookies.delete(
            cookie_for(shown.console), domain="127.0.0.1", path="/demo"
        )
        answers.append(await visitor.post("start", {"inputs": {}}))
        answers.append(await other.post("start", {"inputs": {}}, **{"X-CSRF-Token": "x"}))
        answers.append(await other.post("start", {"inputs": {}}, Origin="http://evil.example"))
        state = (await other.get("state.json")).json()

    assert without_cookie is None
    assert [answer.status_code for answer in answers] == [403] * 7
    assert state == {"sandbox": None}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("start", b"", 400),
        ("start", b"[]", 400),
        ("start", b"\xff\xfe", 400),
        ("start", b"[" * 100_000, 400),
        ("start", b'{"inputs": {}, "inputs": {}}', 400),
        ("start", {"inputs": {"activity": "<script>alert(1)</script>"}}, 400),
        ("start", {"inputs": {"amount": "9" * 5000}}, 400),
        ("start", {"inputs": 7}, 400),
        ("revoke", {"run": {"a": 1}}, 404),
        ("revoke", {"run": 10**40}, 404),
        ("answer", {"run": True, "agree": "yes"}, 404),
        ("apply", {"texts": {"refunds.cedar": "x" * 100_000}}, 200),
        ("apply", {"texts": {"../../etc/passwd": "x"}}, 400),
        ("check", {"texts": {"refunds.cedar": None}}, 400),
        ("audit", {"run": 1, "event": -1, "change": "drop"}, 400),
        ("audit", {"run": 1, "event": 1, "change": "edit", "text": {"a": 1}}, 400),
        ("start", b"x" * (5 * 1024 * 1024), 413),
    ],
)
async def test_a_hostile_request_is_answered_with_what_is_wrong(
    hostile: Visitor, path: str, body: object, status: int
) -> None:
    answered = await hostile.post(path, body)

    assert answered.status_code == status, answered.text
    assert answered.headers["content-type"] == "application/json" or status == 413
    assert "Traceback" not in answered.text
    if status == 200:
        assert answered.json()["good"] is False


@pytest_asyncio.fixture(scope="module")
async def hostile(shown: Running) -> AsyncIterator[Visitor]:
    async with visiting(shown) as visitor:
        await visitor.run({"activity": "refund"})
        yield visitor


async def test_a_visitor_who_finds_no_room_is_told_to_come_back(shown: Running) -> None:
    sandboxes = shown.console.demo
    assert sandboxes is not None
    saved, sandboxes.limits = sandboxes.limits, replace(sandboxes.limits, visitors=0)
    try:
        async with visiting(shown) as visitor:
            answered = await visitor.post("start", {"inputs": {}})
    finally:
        sandboxes.limits = saved

    assert answered.status_code == 503
    assert answered.headers["retry-after"] == "60"
    assert answered.json()["why"] == "full"
    assert "Come back" in answered.json()["text"]


async def test_a_server_that_is_away_leaves_a_page_and_a_sentence(tmp_path: Path) -> None:
    async with running(tmp_path, config=DEMO) as console, visiting(console) as visitor:
        answered = await visitor.post("start", {"inputs": {}})
        page = await visitor.looking.get("/demo")

    assert page.status_code == 200
    assert answered.status_code == 503
    assert answered.json()["why"] == "away"
    assert "Nothing" in answered.json()["text"] or "server" in answered.json()["text"]


@pytest.mark.rule("demo.M3")
async def test_a_public_console_offers_sandboxes_and_still_changes_nothing_of_its_own(
    target: str, tmp_path: Path
) -> None:
    permitted = '@id("all") permit (principal, action, resource);'
    async with (
        running(
            tmp_path, policies=permitted, target=target, config={**DEMO, "public": True, "principal": None}
        ) as open_,
        visiting(open_, None) as visitor,
    ):
        run = await visitor.run({"activity": "refund"})
        forged = await visitor.post("start", {"inputs": {}}, Origin="http://evil.example")
        without = await visitor.post("start", {"inputs": {}}, **{TOKEN: ""})
        other = await visitor.looking.client.post("/governance/revoke", headers={"Origin": open_.url})

    assert run["title"] == "Refund 42.50 to Ada Okafor"  # it is the visitor's own, and not redacted
    assert run["principal"] == 'Agent::"ops-bot"'
    assert (forged.status_code, without.status_code, other.status_code) == (403, 403, 403)


async def test_the_demo_leaves_nothing_behind_when_the_console_stops(target: str, tmp_path: Path) -> None:
    async with running(tmp_path, target=target, config=DEMO) as console:
        async with visiting(console) as visitor:
            answered = await visitor.post("start", {"inputs": {"activity": "migrate"}})
            assert answered.status_code == 200
        assert console.console.demo is not None
        folder = console.console.demo._base
        assert folder is not None
        assert folder.path.exists()

    assert not folder.path.exists()
    # Nothing of a sandbox is in what the console itself keeps.
    assert not [each for each in console.records() if str(each.get("workflow_id")).startswith("demo-")]
