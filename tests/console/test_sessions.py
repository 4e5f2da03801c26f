"""Sessions: how they are opened, how long they last, and what a cookie is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from exequatur.console import sessions as module
from exequatur.console.sessions import IDLE, LONGEST, MOST, START_WITHIN, Sessions
from exequatur.identity.principal import Principal
from tests.console.running import running

KIM = Principal("User", "kim")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(8400, clock=clock)


@pytest.mark.rule("sessions.S1")
def test_the_start_token_opens_one_session(sessions):
    token = sessions.offer(KIM)
    assert sessions.begin(token[:-1]) is None
    assert sessions.begin("") is None
    assert sessions.begin("\udcff") is None
    cookie = sessions.begin(token)
    assert sessions.find(cookie).principal == KIM
    assert sessions.begin(token) is None


@pytest.mark.rule("sessions.S1")
def test_a_program_that_only_looks_at_the_link_does_not_use_it_up(sessions):
    token = sessions.offer(KIM)
    previewed = [sessions.begin(token) for _ in range(30)]
    assert len(sessions) == 0
    assert not sessions.alive(previewed[-1])
    cookie = sessions.begin(token)
    assert sessions.find(cookie).principal == KIM
    assert len(sessions) == 1
    assert [sessions.find(each) for each in previewed] == [None] * 30
    assert sessions.begin(token) is None


@pytest.mark.rule("sessions.S1")
def test_of_many_who_have_the_link_at_once_one_gets_in(sessions):
    token = sessions.offer(KIM)
    everybody = threading.Barrier(8)

    def come(_: int) -> bool:
        everybody.wait(30)
        cookie = sessions.begin(token)
        return cookie is not None and sessions.find(cookie) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(come, range(8))) == 1
    assert len(sessions) == 1


@pytest.mark.rule("sessions.S1")
def test_the_start_token_ends(sessions, clock):
    token = sessions.offer(KIM)
    cookie = sessions.begin(token)
    clock.now += START_WITHIN
    assert sessions.begin(token) is None
    assert sessions.find(cookie) is None


@pytest.mark.rule("sessions.S1")
def test_a_newer_token_replaces_the_one_before(sessions):
    before, token = sessions.offer(KIM), sessions.offer(KIM)
    assert sessions.begin(before) is None
    assert sessions.begin(token) is not None


@pytest.mark.rule("sessions.S2")
def test_only_the_digest_of_a_cookie_is_kept(sessions):
    cookie = sessions.open(KIM)
    assert len(cookie) >= 43
    assert cookie not in repr(vars(sessions))
    assert cookie not in repr(sessions._held)
    assert sessions.find(cookie).csrf not in repr(sessions._held)
    assert sessions.find(next(iter(sessions._held))) is None


@pytest.mark.rule("sessions.S3")
def test_a_session_that_nobody_uses_ends(sessions, clock):
    used, unused = sessions.open(KIM), sessions.open(KIM)
    clock.now += IDLE - 1
    assert sessions.find(used)
    assert sessions.alive(unused)
    clock.now += 1
    assert sessions.find(used)
    assert not sessions.alive(unused)
    assert sessions.find(unused) is None
    assert len(sessions) == 1


@pytest.mark.rule("sessions.S3")
def test_a_session_ends_however_much_it_is_used(sessions, clock):
    cookie = sessions.open(KIM)
    for _ in range(int(LONGEST // (IDLE / 2)) - 1):
        clock.now += IDLE / 2
        assert sessions.find(cookie)
    clock.now = 1000.0 + LONGEST
    assert not sessions.alive(cookie)
    assert sessions.find(cookie) is None


@pytest.mark.rule("sessions.S4")
def test_the_quietest_session_makes_room(sessions, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    first, second = sessions.open(KIM), sessions.open(KIM)
    assert sessions.find(first)
    for _ in range(2):
        sessions.open(KIM)
    assert len(sessions) == 3 < MOST
    assert sessions.find(first)
    assert sessions.find(second) is None


@pytest.mark.rule("sessions.S6")
async def test_the_cookie_is_not_for_scripts_nor_other_sites(console):
    async with console.browser(None) as looking:
        answered = await looking.client.get(console.link())
    cookie = answered.headers["set-cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert not cookie.startswith("__Host-")
    assert "Secure" not in cookie


@pytest.mark.rule("sessions.S6")
async def test_under_tls_the_cookie_is_for_tls_only(tmp_path):
    async with running(tmp_path, config={"url": "https://console.example.com"}) as console:
        async with console.browser(None) as looking:
            headers = {"Host": "console.example.com"}
            answered = await looking.client.get(console.link(), headers=headers)
        assert console.opening.startswith("https://console.example.com/start?token=")
    cookie = answered.headers["set-cookie"]
    assert cookie.startswith("__Host-exequatur-console-443=")
    assert "Secure" in cookie
    assert "max-age" in answered.headers["strict-transport-security"]


async def test_the_link_that_was_printed_opens_the_console_once(tmp_path):
    async with running(tmp_path) as console, console.browser(None) as first, console.browser(None) as second:
        assert (await first.client.get(console.opening)).status_code == 200
        assert (await first.get("/governance")).status_code == 200
        refused = await second.client.get(console.opening)
        assert refused.status_code == 403
        assert "This link opens nothing any more" in refused.text
        assert (await second.get("/governance")).status_code == 401


async def test_the_link_may_be_opened_again_by_the_browser_that_has_the_session(tmp_path):
    async with running(tmp_path) as console, console.browser(None) as kim:
        for _ in range(2):
            assert (await kim.client.get(console.opening)).status_code == 200
            assert (await kim.get("/governance")).status_code == 200
        assert len(console.console.sessions) == 1


@pytest.mark.rule("sessions.S6")
async def test_two_consoles_on_one_host_do_not_log_each_other_out(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    async with running(tmp_path / "one") as one, running(tmp_path / "two") as two, one.browser() as kim:
        # As a browser keeps them: by host, whatever the port.
        (kim.client.cookies.clear(), await kim.client.get(one.link()))
        (await kim.client.get(two.link()), await kim.client.get(f"{two.url}/governance"))
        assert len(kim.client.cookies) == 2
        for console in (one, two):
            assert (await kim.client.get(f"{console.url}/governance")).status_code == 200
