"""What every request has to keep to, and every answer says."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from exequatur.console.perimeter import HEADERS
from tests.console.running import FAY, KIM, MALLORY, Running, running


def port_of(console: Running) -> int:
    return httpx.URL(console.url).port or 0


@pytest.mark.rule("perimeter.G1")
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1]:1", "0.0.0.0:{port}"),
        *("127.1:{port}", "localhost.:{port}", "[::ffff:127.0.0.1]:{port}", "user@127.0.0.1:{port}"),
    ],
)
async def test_a_name_that_somebody_pointed_here_is_refused(console, host):
    async with console.browser() as kim:
        answered = await kim.get("/governance", headers={"Host": host.format(port=port_of(console))})
    assert answered.status_code in (400, 421)
    assert "ops-bot" not in answered.text


@pytest.mark.rule("perimeter.G1")
async def test_the_names_of_this_machine_are_those_of_the_console(console):
    async with console.browser() as kim:
        for name in ("localhost", "127.0.0.1", "LOCALHOST"):
            answered = await kim.get("/governance", headers={"Host": f"{name}:{port_of(console)}"})
            assert answered.status_code == 200


@pytest.mark.rule("perimeter.G2")
async def test_every_answer_forbids_what_is_not_of_this_console(console):
    async with console.browser() as kim, console.browser(None) as stranger:
        answers = [
            *[await kim.get(path) for path in ("/", "/governance", "/static/console.css", "/nix", "/static/nix.js")],
            await kim.get("/governance/decision?log=x"),
            await kim.client.get("/governance", headers={"Host": "evil.example"}),
            await kim.client.put("/governance"),
            await kim.client.post("/logout"),
            await kim.client.post("/governance/revocations", content=b"x" * 5_000_000),
            await stranger.get("/governance"),
            await stranger.get("/start?token=x"),
        ]
    assert {each.status_code for each in answers} >= {200, 303, 400, 401, 403, 404, 405, 413, 421}
    for answered in answers:
        assert {name: answered.headers.get(name) for name in HEADERS} == HEADERS
        assert answered.headers["cache-control"] == (
            "no-cache" if "/static/console.css" in str(answered.url) else "no-store"
        )
        assert "Traceback" not in answered.text
        assert "server" not in answered.headers


@pytest.mark.rule("perimeter.G3")
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_refused(console, method):
    async with console.browser() as kim:
        answered = await kim.client.request(method, "/governance")
    assert answered.status_code == 405
    assert answered.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.rule("perimeter.G3", "perimeter.G5")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "{url}.evil.example"},
        {"Origin": "{url}/"},
    ],
)
async def test_a_form_of_another_site_does_nothing(console, headers):
    async with console.browser() as kim:
        csrf = await kim.csrf()
        given = {name: value.format(url=console.url) for name, value in headers.items()}
        answered = await kim.client.post("/logout", data={"csrf": csrf}, headers=given)
        assert answered.status_code == 403
        assert (await kim.get("/governance")).status_code == 200


@pytest.mark.rule("perimeter.G4")
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_what_the_page_of_another_site_asks_for_is_refused(console, site):
    embedded = [("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe"), ("navigate", "embed")]
    async with console.browser() as kim:
        for mode, dest in embedded:
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
            assert (await kim.get("/governance", headers=headers)).status_code == 403
        goes = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await kim.get("/governance", headers=goes)).status_code == 200
        posted = await kim.post("/logout", {}, headers=goes)
        assert posted.status_code == 403


@pytest.mark.rule("perimeter.G5", "sessions.S5")
async def test_a_form_without_the_token_of_its_session_does_nothing(console):
    async with console.browser() as kim, console.browser(FAY) as fay:
        cookie = next(iter(kim.client.cookies.values()))
        theirs, mine = await fay.csrf(), await kim.csrf()
        assert len({theirs, mine, cookie, hashlib.sha256(cookie.encode()).hexdigest()}) == 4
        origin = {"Origin": console.url}
        for form in ({}, {"csrf": ""}, {"csrf": theirs}, {"csrf": cookie}, {"csrf": mine + "x"}, {"csrf": [mine, "x"]}):
            assert (await kim.client.post("/logout", data=form, headers=origin)).status_code == 403
        assert (await kim.client.post("/logout", content=mine.encode(), headers=origin)).status_code == 403
        wrong = {**origin, "X-CSRF-Token": "x"}
        assert (await kim.client.post("/logout", headers=wrong)).status_code == 403
        assert (await kim.get("/governance")).status_code == 200
        right = {**origin, "X-CSRF-Token": mine}
        assert (await kim.client.post("/logout", headers=right)).status_code == 303
        assert (await kim.get("/governance")).status_code == 401


@pytest.mark.rule("perimeter.G5", "forms.F1")
@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded-not",
        "application/x-www-form-urlencoded, text/plain",
        "",
    ],
)
async def test_a_token_counts_in_a_form_only_and_a_form_is_what_it_says_it_is(console, kind):
    async with console.browser() as kim:
        csrf = await kim.csrf()
        form = f"csrf={csrf}&reason=x&principal=x".encode()
        multipart = b'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + csrf.encode() + b"\r\n--x--\r\n"

        async def chunks(body: bytes) -> AsyncIterator[bytes]:
            for n in range(len(body)):
                yield body[n : n + 1]

        headers = {"Origin": console.url, "Content-Type": kind}
        for body in (form, multipart):
            for content in (body, chunks(body)):
                answered = await kim.client.post("/governance/revocations", content=content, headers=headers)
                assert answered.status_code == 403
        right = {**headers, "X-CSRF-Token": csrf}
        answered = await kim.client.post("/governance/revocations", content=form, headers=right)
        assert answered.status_code == 400
        usual = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        thousands = b"csrf=" + csrf.encode() + b"&a=b" * 200_000
        for content in (chunks(form), thousands):
            answered = await kim.client.post("/governance/revocations", content=content, headers=usual)
            assert answered.status_code in (400, 403)
    assert console.console.governing.gate.revocations.feed.version == 0


@pytest.mark.rule("perimeter.G6", "errors.X2")
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/governance",
        "/governance/events",
        "/governance/policies",
        "/governance/decision",
        "/governance/approvals",
        "/governance/revocations",
        "/lineage",
        "/proof",
        "/health",
        "/demo",
        "/nowhere",
    ],
)
async def test_without_a_session_nothing_is_shown(console, path):
    async with console.browser(None) as stranger:
        for cookies in ({}, {console.console.sessions.cookie: "x" * 43}, {"other": "x"}):
            answered = await stranger.get(path, headers={"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())})
            assert answered.status_code == 401
            assert "Open the link that" in answered.text
        answered = await stranger.get(path, headers={"Accept": "application/json"})
        assert answered.json()["status"] == 401


@pytest.mark.rule("perimeter.G6", "asking.V1")
async def test_who_the_policies_do_not_let_look_is_told_which_policy_to_add(console):
    async with console.browser(MALLORY) as mallory:
        for path in ("/governance", "/governance/events", "/governance/policies", "/lineage", "/proof", "/health"):
            answered = await mallory.get(path)
            assert answered.status_code == 403
            assert "You may not see this page" in answered.text
            assert "console.view" in answered.text
            assert "ops-bot" not in answered.text


@pytest.mark.rule("asking.V3")
async def test_who_is_revoked_sees_nothing_but_the_kill_switch_can_be_lifted(tmp_path):
    from exequatur.revocation.entry import revocation

    async with running(tmp_path) as console, console.browser() as kim, console.browser(FAY) as fay:
        revocations = console.console.governing.gate.revocations
        revocations.add(revocation(reason="she left", principal=FAY))
        revocations.add(revocation(reason="incident", everything=True))
        refused = await fay.get("/governance")
        assert refused.status_code == 403
        assert "lift that revocation" in refused.text
        assert "permit (" not in refused.text
        assert (await kim.get("/governance/revocations")).status_code == 200
        done = await kim.post("/governance/revocations", {"lifts": "2", "confirm": "2", "reason": "it is over"})
        assert (done.status_code, done.headers["location"]) == (303, "/governance/revocations?said=lifted")


@pytest.mark.rule("asking.V3")
async def test_a_workflow_that_is_revoked_may_be_looked_at_and_lifted(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        on = {"what": "workflow", "value": "w-1", "confirm": "w-1", "reason": "stop it"}
        assert (await kim.post("/governance/revocations", on)).status_code == 303
        assert (await kim.get("/lineage/run?workflow=w-1&run=r-1")).status_code != 403
        done = await kim.post("/governance/revocations", {"lifts": "1", "confirm": "1", "reason": "it is over"})
        assert (done.status_code, done.headers["location"]) == (303, "/governance/revocations?said=lifted")


@pytest.mark.rule("asking.V3", "perimeter.G6")
async def test_there_is_no_page_that_somebody_revoked_may_open(tmp_path):
    from fastapi.openapi.utils import get_openapi

    from exequatur.console.app import PAGES
    from exequatur.console.perimeter import OPEN
    from exequatur.revocation.entry import revocation

    async with running(tmp_path) as console, console.browser(FAY) as fay, console.browser(None) as stranger:
        csrf = await fay.csrf()
        console.console.governing.gate.revocations.add(revocation(reason="she left", principal=FAY))
        paths = [
            (method, path)
            for module in PAGES
            for path, operations in get_openapi(title="", version="", routes=module.router.routes)["paths"].items()
            for method in operations
            if path not in OPEN
        ]
        assert len(paths) > 30
        for method, path in paths:
            headers = {"Origin": console.url, "X-CSRF-Token": csrf, "Accept": "application/json"}
            for who, statuses in ((fay, (400, 403)), (stranger, (401,))):
                query = {"workflow": "w", "run": "r"}
                answered = await who.client.request(method, path, params=query, headers=headers)
                longer = who is fay and path == "/lineage"  # it leads to /lineage/run
                assert answered.status_code in ((303,) if longer else statuses), (method, path, answered.text)


@pytest.mark.rule("asking.V2")
async def test_policies_that_have_ended_show_nothing(tmp_path):
    from dataclasses import replace

    async with running(tmp_path) as console, console.browser() as kim:
        gate = console.console.governing.gate
        gate.policy = replace(gate.policy, awaited="none were released")
        answered = await kim.get("/governance")
        assert answered.status_code == 403
        assert "none were released" in answered.text


@pytest.mark.rule("perimeter.G7")
async def test_metrics_are_read_by_whoever_has_the_token_and_nothing_else_is(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS", "m" * 32)
    policies = '@id("monitoring") permit(principal == Service::"monitoring", action, resource);'
    config = {"monitoring_token_env": "METRICS"}
    async with running(tmp_path, policies=policies, config=config) as console, console.browser(None) as prometheus:
        right = {"Authorization": f"Bearer {'m' * 32}"}
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "m" * 32}):
            assert (await prometheus.get("/health.json", headers=headers)).status_code == 401
        assert (await prometheus.get("/health.json", headers=right)).status_code != 401
        for path in ("/governance", "/health", "/lineage"):
            assert (await prometheus.get(path, headers=right)).status_code == 401
        posted = await prometheus.client.post("/health.json", headers={**right, "Origin": console.url})
        assert posted.status_code == 401


async def test_too_many_requests_of_one_address_are_refused(tmp_path):
    limits = {"per_address": 5, "burst": 1}
    async with running(tmp_path, config={"limits": limits}) as console, console.browser(None) as stranger:
        statuses = [(await stranger.get("/static/console.css")).status_code for _ in range(12)]
        answered = await stranger.get("/governance")
    assert statuses[0] == 200
    assert statuses[-1] == answered.status_code == 429
    assert int(answered.headers["retry-after"]) >= 1
    assert "Too many requests" in answered.text


@pytest.mark.rule("errors.X1")
async def test_what_goes_wrong_inside_is_a_page_that_tells_nothing_of_it(tmp_path, caplog):
    async with running(tmp_path) as console, console.browser() as kim:

        def broken(_: int) -> None:
            raise ZeroDivisionError("the secret of the inside")

        console.console.decisions.since = broken  # type: ignore[method-assign, assignment]
        answered = await kim.get("/governance")
        scripted = await kim.get("/governance", headers={"Accept": "application/json"})
    assert answered.status_code == scripted.status_code == 500
    assert "secret of the inside" not in answered.text + scripted.text
    assert "ZeroDivisionError" not in answered.text + scripted.text
    assert answered.headers["x-request-id"] in answered.text
    assert scripted.json()["title"] == "Something went wrong here"
    assert "Something went wrong here" in answered.text


async def test_where_no_page_can_be_made_a_line_says_what_happened(tmp_path, monkeypatch):
    from exequatur.console import render

    async with running(tmp_path) as console, console.browser() as kim:
        monkeypatch.setattr(render, "templates", lambda: {}["the templates are gone"])
        answered = await kim.get("/governance")
    assert answered.status_code == 500
    assert answered.text.startswith("Something went wrong here. ")
    assert "templates are gone" not in answered.text


async def test_hostile_addresses_get_a_page_that_says_so(console):
    hostile = [
        "/governance/decision?log=%00&index=1",
        "/governance/decision?log=" + "a" * 5000,
        "/governance/decision?log=0123456789abcdef&index=99999999999999",
        "/governance/events?after=-1",
        "/governance/events?after=%F0%9F%92%A9",
        "/governance?principal=" + "%3Cscript%3E" * 300,
        "/governance?outcome=%22%3E%3Cscript%3E&kind=..%2F..%2F",
        "/governance/revocations?said=%3Cscript%3E&principal=%3Cscript%3Ealert(1)%3C/script%3E",
        "/static/../app.py",
        "/static/..%2f..%2fapp.py",
        "/%3Cscript%3E",
    ]
    async with console.browser() as kim:
        for path in hostile:
            answered = await kim.get(path)
            assert answered.status_code in (200, 400, 404), path
            assert "<h1>" in answered.text, path
            assert "<script>" not in answered.text, path
            assert "from __future__" not in answered.text, path


async def test_a_head_request_does_not_use_up_the_link(console):
    async with console.browser(None) as stranger:
        link = console.link(KIM)
        assert (await stranger.client.head(link)).status_code == 405
        assert (await stranger.client.get(link)).status_code == 200
