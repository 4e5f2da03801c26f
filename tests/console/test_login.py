"""Logging in with an OpenID provider, and every way in which an answer may be wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from exequatur.console import login as module
from exequatur.console.login import BACK, WITHIN, inside
from exequatur.errors import ConfigurationError
from tests.console.provider import CLIENT, SECRET, Provider, provider
from tests.console.running import Running, running
from tests.identity.issuer import new_key, signed

POLICIES = """
@id("operations") permit(principal in Role::"ops", action == Action::"console.view", resource);
"""
IDENTITY = """
[[verifier]]
name = "corp"
kind = "oidc"
issuer = "{issuer}"
audience = ["exequatur-console", "another"]
loopback = true
token_types = ["id_token"]

[[principal]]
principal = 'User::"{{sub}}"'
parents = [{{ each = "groups", as = 'Role::"{{each}}"' }}]
"""


@pytest.fixture
def op() -> Iterator[Provider]:
    with provider() as started:
        yield started


@pytest_asyncio.fixture
async def console(op: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    (tmp_path / "identity.toml").write_text(IDENTITY.format(issuer=op.url))
    monkeypatch.setenv("CONSOLE_SECRET", SECRET)
    login = {"issuer": op.url, "client_id": CLIENT, "client_secret_env": "CONSOLE_SECRET"}
    config = {"login": login, "identity": tmp_path / "identity.toml", "principal": None}
    async with running(tmp_path, policies=POLICIES, config=config) as started:
        yield started


async def logged_in(browser: httpx.AsyncClient, path: str = "/governance") -> httpx.Response:
    """Go to a page as a person does, through the provider; gives the console's last answer."""
    answered = await browser.get(path)
    for _ in range(5):
        if answered.status_code not in (302, 303):
            break
        answered = await browser.get(answered.headers["location"])
    return answered


@pytest.mark.rule("login.L3")
async def test_a_person_logs_in_and_sees_what_was_asked_for(console, op):
    async with console.browser(None) as dana:
        assert console.opening == console.url
        answered = await logged_in(dana.client, "/governance?outcome=deny")
        assert answered.status_code == 200
        assert 'content="0;url=/governance?outcome=deny"' in answered.text
        cookies = [value for name, value in answered.headers.multi_items() if name == "set-cookie"]
        assert any("SameSite=strict" in each and "HttpOnly" in each for each in cookies)
        page = await dana.get("/governance?outcome=deny")
        assert page.status_code == 200
        assert "User::&#34;dana&#34;" in page.text
        done = await dana.post("/logout", {})
        assert (done.status_code, done.headers["location"]) == (303, "/left")
        # Where the provider still knows the person, going on would log them in again.
        left = await logged_in(dana.client, done.headers["location"])
        assert left.status_code == 200
        assert "You have logged out" in left.text
        assert len(console.console.sessions) == 0
        assert (await dana.get("/governance")).headers["location"].startswith("/login?then=")
    [asked] = op.asked
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", CLIENT)
    assert asked["scope"] == "openid profile email"
    assert asked["redirect_uri"] == console.url + BACK
    for each in (page.text, answered.text):
        assert SECRET not in each
        assert op.exchanged[0]["code_verifier"] not in each


async def test_who_is_logged_in_sees_what_policies_let_it(console, op):
    op.claims = {"groups": ["sales"]}
    async with console.browser(None) as dana:
        await logged_in(dana.client)
        assert (await dana.get("/governance")).status_code == 403


@pytest.mark.rule("login.L1")
async def test_an_answer_counts_once_and_from_the_browser_that_was_sent(console, op):
    async with console.browser(None) as dana, console.browser(None) as eve:
        sent = await dana.get("/login?then=/health")
        back = (await dana.client.get(sent.headers["location"])).headers["location"]
        assert (await eve.client.get(back)).status_code == 400
        # It was taken, and so it is not there for anybody any more.
        assert (await dana.client.get(back)).status_code == 400
        sent = await dana.get("/login")
        back = (await dana.client.get(sent.headers["location"])).headers["location"]
        wrong = back.replace(parse_qs(urlsplit(back).query)["state"][0], "x" * 43)
        assert (await dana.client.get(wrong)).status_code == 400
        dana.client.cookies.clear()
        assert (await dana.client.get(back)).status_code == 400
        assert (await dana.get("/governance")).status_code == 303
    assert op.exchanged == []


async def test_several_tabs_may_log_in_at_the_same_time(console, op):
    async with console.browser(None) as dana:
        sent = [await dana.get(f"/login?then=/{page}") for page in ("governance", "health")]
        backs = [(await dana.client.get(each.headers["location"])).headers["location"] for each in sent]
        for back, page in zip(backs, ("governance", "health"), strict=True):
            answered = await dana.client.get(back)
            assert answered.status_code == 200
            assert f'content="0;url=/{page}"' in answered.text


@pytest.mark.rule("login.L1")
async def test_under_tls_no_neighbour_can_plant_the_cookie_of_a_login(op, tmp_path):
    # A cookie with this prefix is taken from this very host only, over TLS (RFC 6265bis).
    (tmp_path / "identity.toml").write_text(IDENTITY.format(issuer=op.url))
    login = {"issuer": op.url, "client_id": CLIENT}
    config = {"login": login, "identity": tmp_path / "identity.toml", "url": "https://console.example"}
    async with running(tmp_path, policies=POLICIES, config=config) as console, console.browser(None) as dana:
        sent = await dana.get("/login", headers={"Host": "console.example"})
    cookie = sent.headers["set-cookie"]
    assert cookie.startswith("__Host-exequatur-login-443=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "redirect_uri=https%3A%2F%2Fconsole.example%2Flogin%2Fback" in sent.headers["location"]


@pytest.mark.rule("login.L1")
@pytest.mark.parametrize("planted", ["", "x", "x" * 42, "x" * 44, "<script>", "x" * 5000])
async def test_what_a_browser_brings_is_kept_only_where_it_is_one_of_ours(console, op, planted):
    async with console.browser(None) as dana:
        name = next(iter((await dana.get("/login")).cookies))
        sent = await dana.get("/login", headers={"Cookie": f"{name}={planted}"})
        assert len(sent.cookies[name]) == 43
        assert sent.cookies[name] != planted


async def test_a_key_that_was_rotated_in_is_found(console, op):
    async with console.browser(None) as dana, console.browser(None) as eve:
        assert (await logged_in(dana.client)).status_code == 200
        op.key = new_key("rotated")
        assert (await logged_in(eve.client)).status_code in (200, 503)


async def test_a_provider_that_is_away_is_said_and_holds_nobody_up(op, tmp_path, monkeypatch):
    monkeypatch.setattr("exequatur.identity.documents.DEADLINE", 120.0)
    (tmp_path / "identity.toml").write_text(IDENTITY.format(issuer=op.url))
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and says nothing
    issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
    config = {"login": {"issuer": issuer, "client_id": CLIENT}, "identity": tmp_path / "identity.toml"}
    async with running(tmp_path, policies=POLICIES, config=config) as console, console.browser(None) as dana:
        waiting = [asyncio.create_task(dana.get("/login")) for _ in range(60)]
        await asyncio.sleep(0.2)
        # Other pages go on using the threads that everybody shares.
        async with asyncio.timeout(60):
            await asyncio.to_thread(int)
        assert not any(each.done() for each in waiting)
        silent.close()
        answers = await asyncio.gather(*waiting)
    assert {each.status_code for each in answers} == {503}
    assert all("<h1>" in each.text for each in answers)


@pytest.mark.rule("login.L1")
async def test_an_answer_that_comes_too_late_logs_nobody_in(console, op, monkeypatch):
    async with console.browser(None) as dana:
        sent = await dana.get("/login")
        back = (await dana.client.get(sent.headers["location"])).headers["location"]
        now = console.console.clock()
        monkeypatch.setattr(console.console.login, "_clock", lambda: now + WITHIN)
        assert (await dana.client.get(back)).status_code == 400
    assert op.exchanged == []


@pytest.mark.rule("login.L2")
@pytest.mark.parametrize("issuer", ["https://other.example", "", None])
async def test_an_answer_of_another_provider_logs_nobody_in(console, op, issuer):
    op.answer = {"iss": issuer}
    async with console.browser(None) as dana:
        assert (await logged_in(dana.client)).status_code == 400
    assert op.exchanged == []


async def test_a_provider_that_promised_no_issuer_may_leave_it_out(console, op):
    op.answer, op.metadata = {"iss": None}, {"authorization_response_iss_parameter_supported": False}
    async with console.browser(None) as dana:
        assert (await logged_in(dana.client)).status_code == 200


@pytest.mark.rule("login.L3")
async def test_a_code_of_somebody_else_logs_nobody_in(console, op):
    async with console.browser(None) as dana, console.browser(None) as eve:
        stolen = op.authorize({**op.asked[0], "state": "x"} if op.asked else {"redirect_uri": "x", "state": "x"})
        code = parse_qs(urlsplit(stolen).query)["code"][0]
        op.codes[code] |= {"code_challenge_method": "S256", "code_challenge": "of another browser", "nonce": "n"}
        op.codes[code]["redirect_uri"] = console.url + BACK
        op.answer = {"code": code}
        assert (await logged_in(eve.client)).status_code == 403
        assert (await dana.get("/governance")).status_code == 303


@pytest.mark.rule("login.L3")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"id_token":7}'),
        (200, b'{"access_token":"x"}'),
        (200, b"{" + b" " * 2_000_000),
        (302, b""),
        (500, b"{}"),
    ],
)
async def test_a_token_endpoint_that_answers_anything_logs_nobody_in(console, op, status, body):
    op.token = (status, body)
    async with console.browser(None) as dana:
        answered = await logged_in(dana.client)
        assert answered.status_code in (403, 503)
        assert "<h1>" in answered.text
        assert (await dana.get("/governance")).status_code == 303


@pytest.mark.rule("login.L4")
@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "of another login"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["another", "exequatur-console"], "azp": "another"},
        {"aud": "nobody"},
        {"iss": "https://other.example"},
        {"exp": 1000},
        {"sub": None},
        {"sub": 'x"y'},
        {"sub": ""},
    ],
)
async def test_an_id_token_that_is_not_for_this_login_logs_nobody_in(console, op, claims):
    op.claims = claims
    async with console.browser(None) as dana:
        answered = await logged_in(dana.client)
        assert answered.status_code == 401
        assert "It could not be told who you are" in answered.text
        assert (await dana.get("/governance")).status_code == 303


@pytest.mark.rule("login.L4")
async def test_an_id_token_that_somebody_else_signed_logs_nobody_in(console, op):
    forged = signed(new_key("console"), {"iss": op.url, "sub": "dana", "aud": CLIENT, "exp": 9e9, "nonce": "x"})
    op.token = (200, b'{"id_token":"%s"}' % forged.encode())
    async with console.browser(None) as dana:
        assert (await logged_in(dana.client)).status_code == 401


@pytest.mark.rule("login.L4")
async def test_a_token_of_another_provider_that_is_believed_elsewhere_logs_nobody_in(op, tmp_path):
    with provider() as other:
        rules = IDENTITY.format(issuer=op.url)
        second = IDENTITY.format(issuer=other.url).partition("[[principal]]")[0].replace('"corp"', '"other"')
        (tmp_path / "identity.toml").write_text(second + rules)
        op.claims, op.key, op.secret = {"iss": other.url}, other.key, None
        config = {"login": {"issuer": op.url, "client_id": CLIENT}, "identity": tmp_path / "identity.toml"}
        async with (
            running(tmp_path, policies=POLICIES, config=config) as console,
            console.browser(None) as dana,
        ):
            answered = await logged_in(dana.client)
            assert answered.status_code == 401
            assert "of another provider" in answered.text


@pytest.mark.rule("login.L5")
async def test_whom_a_token_makes_says_the_configuration_and_no_parameter(console, op):
    op.answer = {"sub": "root", "principal": 'User::"root"'}
    async with console.browser(None) as dana:
        await logged_in(dana.client)
        assert "User::&#34;dana&#34;" in (await dana.get("/governance")).text


async def test_a_provider_that_refuses_says_why(console, op):
    op.answer = {"error": "access_denied", "error_description": "<script>alert(1)</script>", "code": None}
    async with console.browser(None) as dana:
        answered = await logged_in(dana.client)
    assert answered.status_code == 403
    assert "access_denied" in answered.text
    assert "<script>alert" not in answered.text


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": None},
    ],
)
async def test_a_discovery_document_that_cannot_be_believed_is_not(console, op, metadata):
    op.metadata = metadata
    async with console.browser(None) as dana:
        answered = await dana.get("/login")
    assert answered.status_code == 503


@pytest.mark.rule("login.L6")
@pytest.mark.parametrize(
    "then",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "governance",
        "",
        "/" + "x" * 5000,
        "/x\ny",
    ],
)
async def test_after_the_login_the_browser_stays_here(console, then):
    assert inside(then) == "/"
    async with console.browser(None) as dana:
        sent = await dana.client.get("/login", params={"then": then})
        back = await dana.client.get(sent.headers["location"])
        answered = await dana.client.get(back.headers["location"])
    assert 'content="0;url=/"' in answered.text
    assert "evil" not in answered.text


@pytest.mark.rule("login.L7")
async def test_logins_that_nobody_finishes_are_bounded(console, monkeypatch):
    monkeypatch.setattr(module, "MOST", 5)
    monkeypatch.setattr(module, "EACH", 7)
    async with console.browser(None) as dana:
        for asked in range(9):
            assert len(console.console.login._asked) == min(asked, 5)
            assert (await dana.get("/login")).status_code == 303
    assert len(console.console.login._asked) == 5


@pytest.mark.rule("login.L7")
async def test_who_begins_many_logins_ends_none_of_somebody_elses(op, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EACH", 3)
    monkeypatch.setattr(module, "MOST", 6)
    (tmp_path / "identity.toml").write_text(IDENTITY.format(issuer=op.url))
    op.secret = None
    config = {
        "login": {"issuer": op.url, "client_id": CLIENT},
        "identity": tmp_path / "identity.toml",
        "proxies": ["127.0.0.1"],
    }
    async with (
        running(tmp_path, policies=POLICIES, config=config) as console,
        console.browser(None) as dana,
        console.browser(None) as eve,
    ):
        sent = await dana.get("/login", headers={"X-Forwarded-For": "192.0.2.1"})
        for _ in range(9):
            assert (await eve.get("/login", headers={"X-Forwarded-For": "192.0.2.2"})).status_code == 303
        back = await dana.client.get(sent.headers["location"])
        assert (await dana.client.get(back.headers["location"])).status_code == 200


async def test_a_console_with_a_login_is_not_configured_by_halves(tmp_path, monkeypatch):
    from exequatur.console.config import read_config

    login = {"issuer": "https://login.example.com", "client_id": CLIENT}
    wrong = [
        {"login": login},
        {"login": login, "identity": tmp_path, "public": True},
        {"login": {**login, "issuer": "http://login.example.com"}, "identity": tmp_path},
        {"listen": "0.0.0.0:8400"},
        {"listen": "0.0.0.0:8400", "tls": {"cert": tmp_path, "key": tmp_path}},
        {"listen": "127.0.0.1:70000"},
        {"url": "http://console.example.com"},
        {"url": "https://console.example.com/path"},
        {"nonsense": 1},
        {"demo": "os:system; x"},
    ]
    for given in wrong:
        with pytest.raises(ConfigurationError):
            read_config(None, given)
    config = read_config(None, {"login": {**login, "client_secret_env": "NOT_SET"}, "identity": tmp_path})
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigurationError, match="NOT_SET is not set"):
        config.secret()
    assert SECRET not in repr(config)


async def test_who_believes_names_logs_nobody_in(op, tmp_path):
    (tmp_path / "identity.toml").write_text('[[verifier]]\nname = "dev"\nkind = "local"\n')
    config = {"login": {"issuer": op.url, "client_id": CLIENT}, "identity": tmp_path / "identity.toml"}
    with pytest.raises(ConfigurationError, match="believes whoever it is told"):
        async with running(tmp_path, policies=POLICIES, config=config):
            pass
