"""How a console is reached: raw requests, TLS of its own, proxies, many connections, and being told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from exequatur.authority.service.bounded import plain_cookies
from exequatur.console.config import read_config
from exequatur.console.streams import Streams
from exequatur.errors import ConfigurationError
from tests.authority.pki import LOOPBACK, Company
from tests.console.running import KIM, NOWHERE, REFERENCE, Running, running

DEADLINE = 60.0


async def raw(console: Running, *lines: str, session: str = "") -> bytes:
    """What the console answers to these lines, until it closes the connection."""
    host = httpx.URL(console.url).netloc.decode()
    head = [*lines, f"Host: {host}", "Connection: close"]
    if session:
        head.append(f"Cookie: {console.console.sessions.cookie}={session}")
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(console.url).port)
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "target",
    [
        "http://[/governance",
        "http://evil.example/governance",
        "*",
        "//evil.example/governance",
        "/governance%3F",
        "/health.json%23/../governance",
        "/static/%00",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fperimeter.py",
        "/static/..%5capp.py",
        "/static//etc/passwd",
        "/static/demo",
        "/static/Console.css",
        f"/static/{'a' * 300}",
        f"/static/{'a/' * 3000}",
        "/%ff%fe",
    ],
)
async def test_an_odd_target_leads_nowhere(console, target):
    async with console.browser() as kim:
        session = kim.client.cookies[console.console.sessions.cookie]
    answered = await raw(console, f"GET {target} HTTP/1.1", session=session)
    assert answered.startswith(b"HTTP/1.1 404 "), answered[:200]
    assert b"There is no such page" in answered
    assert b"from __future__" not in answered


async def test_a_link_in_the_folder_of_static_files_leads_nowhere(tmp_path):
    from exequatur.console.app import _Static

    (tmp_path / "static").mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "static" / "link.js").symlink_to(tmp_path / "secret.js")
    app = _Static(directory=tmp_path / "static")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        with pytest.raises(Exception, match="404"):
            await client.get("/link.js")


@pytest.mark.rule("bounded.H38")
@pytest.mark.parametrize(
    "other", ['seen={"a": "b"}', "x[1]=2", "a=b c", "ü=ö", "=x", 'a="', '"a"=1', "$Path=/", "a", ";;"]
)
async def test_an_odd_cookie_of_another_program_on_this_host_locks_nobody_out(console, other):
    async with console.browser() as kim:
        mine = f"{console.console.sessions.cookie}={kim.client.cookies[console.console.sessions.cookie]}"
        for given in (f"{other}; {mine}", f"{mine}; {other}"):
            assert (await kim.get("/governance", headers={"Cookie": given.encode()})).status_code == 200


@pytest.mark.rule("bounded.H38")
def test_only_plain_cookies_are_handed_on():
    given = [(b"cookie", b'a=1; b="2"; c=x y'), (b"host", b"x"), (b"cookie", b"d=\\\\; e=%22; f")]
    assert plain_cookies(given) == [(b"host", b"x"), (b"cookie", b"a=1; e=%22")]
    assert plain_cookies([(b"cookie", b'a="\\\\"')]) == []


@pytest.mark.rule("bounded.H38")
@pytest.mark.parametrize("path", ["/governance", "/login/back?state=x", "/demo"])
async def test_a_cookie_that_is_slow_to_parse_holds_nobody_up(tmp_path, path):
    # Python's own parser may take a minute for this one; meanwhile nobody would be answered.
    slow = b'a="' + b"\\\\" * 28_000 + b'"'
    policies = "permit(principal, action, resource);"
    async with running(tmp_path, policies=policies, config={"public": True}) as console, console.browser(None) as eve:
        async with asyncio.timeout(25):
            await eve.get(path, headers={"Cookie": slow})


@pytest.mark.rule("errors.X2")
async def test_a_script_is_refused_in_json_whatever_refuses_it(tmp_path):
    limits = {"per_address": 0.001, "burst": 3600, "body": 1024}
    scripted = {"Accept": "application/json"}
    async with running(tmp_path, config={"limits": limits}) as console, console.browser(None) as stranger:
        for _ in range(3):
            answers = [
                await stranger.client.post("/demo/start", content=b"x" * 9000, headers=scripted),
                *[await stranger.get("/governance", headers=scripted) for _ in range(2)],
            ]
    assert [each.json()["status"] for each in answers] == [each.status_code for each in answers] == [429, 429, 429]
    async with running(tmp_path, config={"limits": {"body": 1024}}) as console, console.browser(None) as stranger:
        large = await stranger.client.post("/demo/start", content=b"x" * 9000, headers=scripted)
        assert (large.status_code, large.json()["title"]) == (413, "That is too large")
        page = await stranger.client.post("/demo/start", content=b"x" * 9000)
        assert "<h1>That is too large</h1>" in page.text


async def test_no_address_is_free_of_the_limit(tmp_path):
    limits = {"per_address": 0.001, "burst": 3600}
    async with running(tmp_path, config={"limits": limits}) as console, console.browser(None) as stranger:
        statuses = [(await stranger.get("/health/x")).status_code for _ in range(6)]
    assert statuses[-1] == 429


async def test_what_an_address_takes_is_said_with_a_405(console):
    async with console.browser() as kim:
        answered = await kim.client.head("/governance")
    assert answered.status_code == 405
    assert answered.headers["allow"] == "GET"


@pytest.mark.rule("forwarded.P1")
async def test_people_behind_a_trusted_proxy_are_counted_one_by_one(tmp_path):
    limits = {"per_address": 0.001, "burst": 3000}
    config = {"limits": limits, "proxies": ["127.0.0.1", "10.0.0.0/8"]}
    async with running(tmp_path, config=config) as console, console.browser(None) as proxy:

        async def asked(forwarded: str) -> int:
            return (await proxy.get("/static/console.css", headers={"X-Forwarded-For": forwarded})).status_code

        assert [await asked("203.0.113.7") for _ in range(4)] == [200, 200, 200, 429]
        assert await asked("203.0.113.8") == 200
        # What stands before it, the person wrote; what stands after it are proxies.
        assert await asked("198.51.100.1, 203.0.113.7") == 429
        assert await asked("198.51.100.1, 203.0.113.7, 10.1.2.3") == 429
        assert await asked("[2001:db8::1]:4711") == 200
        # Where it says nothing that can be read, the proxy itself is counted.
        assert [await asked(each) for each in ("", "unknown", "203.0.113.9, x", "<script>")] == [200, 200, 200, 429]


@pytest.mark.rule("forwarded.P1")
@pytest.mark.parametrize("proxies", [[], ["10.0.0.0/8"]])
async def test_nobody_else_chooses_an_address(tmp_path, proxies):
    config = {
        "limits": {"per_address": 0.001, "burst": 3000},
        "proxies": proxies,
        "access_log": tmp_path / "access.log",
    }
    async with running(tmp_path, config=config) as console, console.browser(None) as eve:
        statuses = [
            (
                await eve.get(
                    "/static/console.css", headers={"X-Forwarded-For": f"203.0.113.{n}", "Forwarded": "for=203.0.113.1"}
                )
            ).status_code
            for n in range(4)
        ]
    assert statuses == [200, 200, 200, 429]
    assert {json.loads(line)["address"] for line in (tmp_path / "access.log").read_text().splitlines()} == {"127.0.0.1"}


async def test_the_log_has_neither_the_link_nor_a_session(tmp_path):
    async with (
        running(tmp_path, config={"access_log": tmp_path / "access.log"}) as console,
        console.browser(None) as kim,
    ):
        await kim.client.get(console.opening)
        await kim.get("/governance?principal=somebody")
        log = (tmp_path / "access.log").read_text()
        assert '"path":"/start"' in log
        cookie = kim.client.cookies[console.console.sessions.cookie]
        for secret in (console.opening.partition("token=")[2], cookie, await kim.csrf(), "somebody"):
            assert secret not in log


@pytest.mark.rule("streams.N1")
async def test_one_address_does_not_take_the_streams_of_all(tmp_path):
    config = {"proxies": ["127.0.0.1"]}
    async with (
        running(tmp_path, config=config) as console,
        console.browser() as kim,
        contextlib.AsyncExitStack() as held,
    ):
        streams, reading = console.console.streams, []

        async def follow(address: str) -> int:
            client = await held.enter_async_context(httpx.AsyncClient(base_url=console.url, cookies=kim.client.cookies))
            headers = {"X-Forwarded-For": address}
            answered = await held.enter_async_context(client.stream("GET", "/governance/events", headers=headers))
            if answered.status_code == 200:
                reading.append(answered.aiter_bytes())
                await anext(reading[-1])
            return answered.status_code

        statuses = [await follow("203.0.113.7") for _ in range(streams.each + 1)]
        assert statuses == [200] * streams.each + [503]
        assert await follow("203.0.113.8") == 200
        assert streams.each < streams.most


@pytest.mark.rule("streams.N1")
def test_streams_are_counted_by_network_and_together():
    streams = Streams(most=3, each=2)
    with contextlib.ExitStack() as held:
        for address in ("2001:db8::1", "2001:db8::2"):  # of one host's network
            assert streams.free(address)
            held.enter_context(streams.taken(address))
        assert not streams.free("2001:db8::3")
        assert streams.free("192.0.2.1")
        with streams.taken("192.0.2.1"):
            assert not streams.free("192.0.2.2")
        assert streams.free("192.0.2.2")
    assert streams.free("2001:db8::3")


@pytest.mark.rule("serve.H27")
async def test_connections_that_say_nothing_lock_nobody_out(tmp_path):
    async with (
        running(tmp_path, config={"limits": {"connections": 20}}) as console,
        contextlib.AsyncExitStack() as held,
    ):
        port = httpx.URL(console.url).port

        async def connect(said: bytes) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            held.callback(writer.close)
            return reader

        kept = b"GET /static/console.css HTTP/1.1\r\nHost: " + httpx.URL(console.url).netloc + b"\r\n\r\n"
        for said in (b"", b"GET / HTTP/1.1\r\n", kept):
            for _ in range(30):
                reader = await connect(said)
                if said == kept:
                    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with console.browser() as kim:
            assert (await kim.get("/governance")).status_code == 200


@pytest.fixture
def company(tmp_path: Path) -> Company:
    company = Company(tmp_path)
    company.issue("server", LOOPBACK, x509.DNSName("console.example"), server=True)
    return company


@pytest.mark.rule("perimeter.G2", "sessions.S6")
async def test_a_console_with_a_certificate_is_reached_over_tls_only(tmp_path, company):
    tls = {"cert": tmp_path / "server.crt", "key": tmp_path / "server.key"}
    async with running(tmp_path, config={"tls": tls}) as console:
        assert console.opening.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(company.file))
        async with httpx.AsyncClient(base_url=console.url, verify=context, timeout=DEADLINE) as kim:
            opened = await kim.get(console.opening)
            assert opened.status_code == 200
            cookie = opened.headers["set-cookie"]
            assert cookie.startswith("__Host-exequatur-console-")
            assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
            assert "max-age" not in opened.headers.get("strict-transport-security", "")  # other ports of this machine
            page = await kim.get("/governance")
            assert page.status_code == 200
            csrf = page.text.partition('data-csrf="')[2].partition('"')[0]
            left = await kim.post("/logout", data={"csrf": csrf}, headers={"Origin": console.url})
            assert left.status_code == 303
        port = httpx.URL(console.url).port
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get("/governance")


@pytest.mark.rule("perimeter.G2")
async def test_a_name_of_its_own_is_asked_for_over_tls_from_then_on(tmp_path, company):
    tls = {"cert": tmp_path / "server.crt", "key": tmp_path / "server.key"}
    async with running(tmp_path, config={"tls": tls, "url": "https://console.example"}) as console:
        context = ssl.create_default_context(cafile=str(company.file))
        async with httpx.AsyncClient(base_url=console.url, verify=context, timeout=DEADLINE) as client:
            answered = await client.get("/static/console.css", headers={"Host": "console.example"})
    assert answered.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"listen": "0.0.0.0:8400", "tls": {"cert": "x", "key": "x"}, "public": True}, "url"),
        ({"listen": "[::]:8400", "tls": {"cert": "x", "key": "x"}, "public": True}, "url"),
        ({"url": "https://user:word@console.example"}, "url"),
        ({"tls": {"cert": "x", "key": "x", "client_required": True}}, "client_required needs client_ca"),
        ({"evidence": [1, "journals"]}, "evidence"),
        ({"evidence": "journals"}, "evidence"),
        ({"namespaces": []}, "namespaces"),
        ({"namespaces": "default"}, "namespaces"),
        ({"limits": {"per_caller": 5}}, "per_caller"),
        ({"limits": {"body": "much"}}, "body"),
        ({"proxies": ["proxy.example"]}, "proxies"),
        ({"proxies": ["0.0.0.0/0"]}, "proxies"),
        ({"proxies": "127.0.0.1"}, "proxies"),
        ({"login": {"issuer": "https://x", "client_id": "y", "client_secret": "z"}}, "client_secret"),
        ({"grace": "soon"}, "grace"),
        ({"colour": "red"}, "colour: unknown key; there are access_log, address, authority"),
        ({"evidense": ["x"]}, "evidense: unknown key; did you mean evidence"),
        ({"limits": {"bodie": 5}}, "limits.bodie: unknown key; did you mean body"),
        ({"tls": {"cert": "x", "key": "y", "kee": "z"}}, "tls.kee: unknown key; did you mean key"),
        (
            {"login": {"issuer": "https://x", "client_id": "y", "zzz": "z"}},
            "login.zzz: unknown key; there are client_id",
        ),
        ({"demo_limits": {"visitor": 5}}, "demo_limits.visitor: unknown key; did you mean visitors"),
        ({"public": True, "principal": "x"}, "leave out one"),
        ({"state": ["x"]}, "state"),
        ({"public": "perhaps"}, "public"),
    ],
)
def test_a_file_that_cannot_work_is_refused_with_the_name_of_what_is_wrong(tmp_path, given, said):
    (tmp_path / "console.toml").write_text(_toml(given))
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_config(tmp_path / "console.toml", {})
    assert "\n" not in str(refused.value)


def test_one_limit_that_is_set_leaves_the_others_as_they_were():
    usual = read_config(None, {}).limits
    assert read_config(None, {"limits": {"per_address": 5}}).limits == usual.model_copy(update={"per_address": 5})


@pytest.mark.parametrize("token", ["too short", "ü" * 32, "with a space in it, twenty"])
def test_a_monitoring_token_that_nobody_could_send_is_refused(monkeypatch, token):
    monkeypatch.setenv("METRICS", token)
    with pytest.raises(ConfigurationError, match="monitoring_token_env"):
        read_config(None, {"monitoring_token_env": "METRICS"}).monitoring()


def _toml(given: dict[str, Any]) -> str:
    flat = [f"{name} = {json.dumps(value)}" for name, value in given.items() if not isinstance(value, dict)]
    tables = [
        "\n".join([f"[{name}]", *[f"{key} = {json.dumps(each)}" for key, each in value.items()]])
        for name, value in given.items()
        if isinstance(value, dict)
    ]
    return "\n".join([*flat, *tables, ""])


@contextlib.asynccontextmanager
async def process(folder: Path, **environment: str) -> AsyncIterator[tuple[subprocess.Popen[str], str]]:
    """``exequatur console`` as a process of its own, and the link that it printed."""
    from exequatur.authority.state import open_state

    open_state(folder / "state")
    command = [sys.executable, "-m", "exequatur.cli.main", "console", "--state", str(folder / "state"), "--as", KIM]
    command += ["--policies", str(REFERENCE), "--listen", "127.0.0.1:0", "--address", NOWHERE]
    with (folder / "errors").open("w") as errors:
        started = subprocess.Popen(  # noqa: ASYNC220
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder, env={**os.environ, **environment}
        )
    try:
        assert started.stdout is not None
        line = await asyncio.to_thread(started.stdout.readline)
        assert line.startswith("The console is at "), (folder / "errors").read_text()
        yield started, line.removeprefix("The console is at ").strip()
    finally:
        started.kill()
        await asyncio.to_thread(started.wait)
        if started.stdout is not None:
            started.stdout.close()


async def test_ctrl_c_ends_it_at_once_however_many_pages_are_open(tmp_path):
    there = {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
    async with process(tmp_path, **there) as (started, link), contextlib.AsyncExitStack() as held:
        url = link.partition("/start")[0]
        kim = await held.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE))
        assert (await kim.get(link)).status_code == 200
        streams = [
            await held.enter_async_context(kim.stream("GET", "/governance/events", timeout=DEADLINE)) for _ in range(8)
        ]
        assert {each.status_code for each in streams} == {200}
        for page in ("/governance", "/lineage", "/proof", "/health", "/demo", "/governance/approvals"):
            # Nothing but the console is there: no server, no worker, no decision.
            answered = await kim.get(page)
            assert answered.status_code in (200, 503), (page, (tmp_path / "errors").read_text())
            assert "<h1" in answered.text
        asyncio.get_running_loop().call_later(0.1, started.send_signal, signal.SIGINT)
        for each in streams:
            with contextlib.suppress(httpx.TransportError):
                async for _ in each.aiter_bytes():
                    pass
        assert await asyncio.to_thread(started.wait, DEADLINE) == 0
    said = (tmp_path / "errors").read_text()
    assert "Traceback" not in said
    # Over SSH there is a browser on the other side only.
    port = httpx.URL(url).port
    assert f"ssh -L {port}:127.0.0.1:{port}" in said
