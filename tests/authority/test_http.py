"""What HTTP wants of the service, and what strangers may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from exequatur.authority import api
from exequatur.authority.service.access_log import AccessLog
from exequatur.authority.service.answers import Refused
from exequatur.authority.service.app import create_app
from exequatur.authority.service.bounded import Bounded
from exequatur.authority.service.config import Limits
from exequatur.authority.service.limits import MAX_REMEMBERED, Buckets
from exequatur.statements.trust import TrustStore
from tests.authority.running import BOSS, DANA, EVE, LIMITS, Running, eventually, form, running, workflow

LEAVE = {
    "action": "workflow.terminate",
    "workflow_id": "order-1",
    "facts": {"run": {"namespace": "default", "workflow_id": "order-1"}},
}
JSON_TYPE = {"Content-Type": "application/json"}
INSIDE = ("Traceback", 'File "', "/work/", "/tmp/", "pydantic", "fastapi", "starlette", "uvicorn", "sqlite", "Error(")


def problem(answer: Any, status: int, error: str) -> api.Problem:
    """The refusal that an answer is."""
    assert answer.status_code == status, answer.text
    found = api.Problem.model_validate_json(answer.content)
    assert found.error == error
    assert answer.headers["content-type"] == "application/json"
    assert not [word for word in INSIDE if word in answer.text]
    return found


async def test_the_trust_anchors_are_for_everybody(authority: Running) -> None:
    for path in (api.TRUST_PATH, api.JWKS_PATH):
        answer = await authority.ask("GET", path, None)
        assert answer.status_code == 200
        found = {anchor.kid for anchor in TrustStore.from_jwks(answer.content)}
        assert found == {anchor.kid for anchor in authority.service.authority.state.trust}
        assert b'"d"' not in answer.content


async def test_the_service_describes_itself(authority: Running) -> None:
    oauth = (await authority.ask("GET", api.OAUTH_METADATA_PATH, None)).json()
    assert oauth["token_endpoint"] == oauth["issuer"] + api.TOKEN_PATH
    assert oauth["grant_types_supported"] == [api.EXCHANGE]
    authzen = (await authority.ask("GET", api.AUTHZEN_METADATA_PATH, None)).json()
    assert authzen["access_evaluations_endpoint"] == authzen["policy_decision_point"] + api.EVALUATIONS_PATH
    document = (await authority.ask("GET", "/openapi.json", None)).json()
    assert {api.TOKEN_PATH, api.CREDENTIALS_PATH, api.REVOCATIONS_PATH, api.EVALUATION_PATH} <= document["paths"].keys()
    for path in ("/docs", "/redoc"):
        problem(await authority.ask("GET", path, None), 404, "not_found")


@pytest.mark.rule("requests.H24")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_another_method_is_a_documented_refusal(authority: Running, method: str) -> None:
    problem(await authority.ask(method, api.CREDENTIALS_PATH, None), 405, "method_not_allowed")


@pytest.mark.rule("requests.H24")
@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/trust/", "/v1/trust/../../etc/passwd", "/%2e%2e/x", "/" + "x" * 5000, "//v1/trust"]
)
async def test_another_path_is_a_documented_refusal(authority: Running, path: str) -> None:
    answer = await authority.ask("GET", path, None)
    problem(answer, 404, "not_found")


async def test_a_head_has_no_body(authority: Running) -> None:
    answer = await authority.ask("HEAD", api.TRUST_PATH, None)
    assert (answer.status_code, answer.content) in ((405, b""), (200, b""))


@pytest.mark.rule("requests.H28")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"action": ' * 20_000,
        b'{"action": "workflow.terminate", "action": "workflow.delete", "workflow_id": "x"}',
        b'{"action": NaN, "workflow_id": "x"}',
        b'{"action": "\xff", "workflow_id": "x"}',
        b'{"action": "\\ud800", "workflow_id": "x"}',
        b'{"action": "workflow.terminate", "workflow_id": "x", "facts": {"n": 1e999}}',
        b'{"action": "workflow.terminate", "workflow_id": "x", "principal": "User::\\"boss\\""}',
        b"\x00" * 1000,
    ],
)
async def test_what_is_no_documented_body_is_refused(authority: Running, body: bytes) -> None:
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, content=body, headers=JSON_TYPE)
    problem(answer, 400, "invalid_request")


@pytest.mark.rule("requests.H28")
@pytest.mark.parametrize("type", ["", "text/plain", "application/x-www-form-urlencoded", "application/json-seq"])
async def test_a_body_of_another_type_is_refused(authority: Running, type: str) -> None:
    headers = {"Content-Type": type}
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, content=json.dumps(LEAVE), headers=headers)
    problem(answer, 415, "unsupported_media_type")


async def test_a_form_is_a_form(authority: Running) -> None:
    answer = await authority.client.post(api.TOKEN_PATH, json=form())
    problem(answer, 415, "unsupported_media_type")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"", b"&&&", b"=", b"grant_type=%ff", b"\xff", b"a=b&" * 40, b"grant_type"):
        answer = await authority.client.post(api.TOKEN_PATH, content=body, headers=headers)
        assert answer.status_code == 400


@pytest.mark.rule("bounded.H23")
async def test_a_body_that_is_too_large_is_not_read(authority: Running) -> None:
    large = b"x" * (api.MAX_BODY_BYTES + 1)
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, content=large, headers=JSON_TYPE)
    problem(answer, 413, "too_large")

    async def parts() -> Any:
        for _ in range(api.MAX_BODY_BYTES // 1024 + 2):
            yield b"x" * 1024

    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, content=parts(), headers=JSON_TYPE)
    problem(answer, 413, "too_large")


@pytest.mark.rule("bounded.H23")
async def test_a_body_that_does_not_come_is_not_waited_for(authority: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exequatur.authority.service.bounded.BODY_WITHIN", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(authority.url.rpartition(":")[2]))
    writer.write(b"POST /v1/authorizations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    head = await asyncio.wait_for(reader.read(), 60)
    assert head.startswith(b"HTTP/1.1 400")
    writer.close()


@pytest.mark.rule("serve.H27")
@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", b"GET /health/li"), (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /health/li")],
)
async def test_who_is_slow_to_ask_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes
) -> None:
    monkeypatch.setattr("exequatur.authority.service.serve.HEAD_WITHIN", 0.2)
    async with running(tmp_path) as authority:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(authority.url.rpartition(":")[2]))
        if before:
            writer.write(before)
            await reader.readuntil(b'live"}')
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_head_of_a_request_has_an_end(authority: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(authority.url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):  # it does not read what it does not want
        assert (await asyncio.wait_for(reader.read(), 60)).startswith(b"HTTP/1.1 400")
    writer.close()


@pytest.mark.rule("limits.H3")
async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    limits = "[limits]\nper_caller = 0.5\nburst = 4\nper_address = 1000\n"
    async with running(tmp_path, config=limits) as authority:
        assert [(await authority.exchange()).status_code for _ in range(2)] == [200, 200]
        answer = await authority.exchange()
        problem(answer, 429, "slow_down")
        assert 1 <= int(answer.headers["retry-after"]) <= 2
        assert (await authority.exchange(BOSS)).status_code == 200
        assert (await authority.ask("GET", api.TRUST_PATH, None)).status_code == 200


@pytest.mark.rule("limits.H3")
async def test_an_address_that_asks_too_often_is_refused_before_it_is_heard(tmp_path: Path) -> None:
    limits = "[limits]\nper_address = 0.5\nburst = 4\n"
    async with running(tmp_path, config=limits) as authority:
        assert [(await authority.ask("GET", "/", None)).status_code for _ in range(2)] == [404, 404]
        before = len(authority.records())
        problem(await authority.exchange(), 429, "slow_down")
        assert len(authority.records()) == before
        assert (await authority.ask("GET", api.LIVE_PATH, None)).status_code == 200
        assert (await authority.ask("GET", "/", None, headers={"X-Forwarded-For": "192.0.2.1"})).status_code == 429


@pytest.mark.rule("limits.H3")
def test_a_bucket_fills_again_and_never_beyond_its_size() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 2.0, lambda: now[0])
    for _ in range(4):
        buckets.take("a")
    with pytest.raises(Refused):
        buckets.take("a")
    buckets.take("b")
    now[0] = 0.5
    buckets.take("a")
    with pytest.raises(Refused):
        buckets.take("a")
    now[0] = 1000.0
    for _ in range(4):
        buckets.take("a")
    with pytest.raises(Refused):
        buckets.take("a")


@pytest.mark.rule("limits.H4")
def test_callers_without_end_do_not_fill_the_memory() -> None:
    buckets = Buckets(1.0, 1.0, lambda: 0.0)
    for number in range(MAX_REMEMBERED + 100):
        buckets.take(str(number))
    assert len(buckets) == MAX_REMEMBERED


@pytest.mark.rule("access_log.H5")
async def test_the_access_log_names_who_and_what_and_no_secret(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        await authority.exchange(headers=None, authorization_details=[workflow(workflow_id="secret-id")])
        await authority.exchange(EVE)
        await authority.ask("GET", f"{api.BUNDLES_PATH}/secret-file.bundle?secret=query")
        await authority.ask("GET", "/secret/path", None)
        await authority.ask("BREW", "/", None)
        lines = authority.log()
    assert [(line["method"], line["path"], line["status"], line.get("caller")) for line in lines] == [
        ("POST", api.TOKEN_PATH, 200, DANA),
        ("POST", api.TOKEN_PATH, 403, EVE),
        ("GET", f"{api.BUNDLES_PATH}/{{file}}", 404, DANA),
        ("GET", "unknown", 404, None),
        ("BREW", "unknown", 404, None),
    ]
    assert [line.get("error") for line in lines[:3]] == [None, "access_denied", "not_found"]
    assert all(line["ms"] >= 0 and line["time"] and line["request"] for line in lines)
    text = (tmp_path / "access.log").read_text()
    assert "secret" not in text
    assert "eyJ" not in text


@pytest.mark.rule("access_log.H6")
async def test_a_request_id_is_kept_if_it_is_plain(authority: Running) -> None:
    answer = await authority.ask("GET", api.TRUST_PATH, None, headers={"X-Request-ID": "bfe9eb29-ab87"})
    assert answer.headers["x-request-id"] == "bfe9eb29-ab87"
    for given in ("x" * 65, 'a"b', "a b", "a,b"):
        answer = await authority.ask("GET", api.TRUST_PATH, None, headers={"X-Request-ID": given})
        assert answer.headers["x-request-id"] != given
        assert len(answer.headers["x-request-id"]) == 16


@pytest.mark.rule("answers.H1", "requests.H24")
async def test_what_goes_wrong_inside_stays_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as authority:
        monkeypatch.setattr(authority.service.bundles, "get", lambda *_, **__: 1 / 0)
        answer = await authority.ask("GET", f"{api.BUNDLES_PATH}/policies.bundle")
        found = problem(answer, 500, "server_error")
        assert "division" not in found.error_description
        assert answer.headers["x-request-id"] in found.error_description
        assert "ZeroDivisionError" in caplog.text


async def test_more_than_can_be_decided_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, config="[limits]\nthreads = 1\n") as authority:
        offload = authority.service.offload
        go = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def slow() -> None:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()

        held = [asyncio.ensure_future(offload(slow)) for _ in range(17)]
        await asyncio.sleep(0.1)
        problem(await authority.exchange(), 503, "temporarily_unavailable")
        assert (await authority.ask("GET", api.LIVE_PATH, None)).status_code == 200
        go.set()
        await asyncio.gather(*held)
        assert (await authority.exchange()).status_code == 200


async def test_readiness_that_takes_long_is_looked_at_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, config="[limits]\nthreads = 2\n") as authority:
        go = threading.Event()
        monkeypatch.setattr(authority.service.once, "check", lambda: go.wait(20))
        try:
            asking = [asyncio.ensure_future(authority.ask("GET", api.READY_PATH, None)) for _ in range(40)]
            await eventually(lambda: authority.service.offload._busy)
            assert (await authority.exchange()).status_code == 200
        finally:
            go.set()
        assert {each.status_code for each in await asyncio.gather(*asking)} == {200}


@pytest.mark.rule("limits.H3")
async def test_who_has_a_network_of_addresses_is_one_address(tmp_path: Path) -> None:
    limited = Bounded(create_app(None), Limits(per_address=1, burst=1))  # type: ignore[arg-type]
    bounded = AccessLog(limited, io.StringIO())

    async def ask(address: str) -> int:
        transport = httpx.ASGITransport(bounded, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/missing")).status_code

    assert await ask("2001:db8:0:1::1") == 404
    assert await ask("2001:db8:0:1:ffff::2") == 429
    assert await ask("2001:db8:0:2::1") == 404
    assert await ask("192.0.2.1") == 404
    assert await ask("::ffff:192.0.2.1") == 429
    assert await ask("192.0.2.2") == 404


@pytest.mark.rule("bounded.H23")
async def test_a_body_that_tells_its_end_twice_is_refused(authority: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(authority.url.rpartition(":")[2]))
    writer.write(
        b"POST /v1/renewals HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    said = await asyncio.wait_for(reader.read(), 60)
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1  # what may be a part of the body is not taken for a request
    writer.close()


async def test_an_access_log_on_a_full_disk_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "access.log").symlink_to("/dev/full")
    async with running(tmp_path) as authority:
        assert (await authority.exchange()).status_code == 200
    assert "The access log cannot be written" in caplog.text


@pytest.mark.rule("serve.H27")
async def test_who_does_not_take_the_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exequatur.authority.service.serve.TAKEN_WITHIN", 0.2)
    async with running(tmp_path, config=LIMITS) as authority:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(authority.url.rpartition(":")[2])))
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        with slow, pytest.raises(ConnectionError):
            for _ in range(400):
                await loop.sock_sendall(slow, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
                await asyncio.sleep(0.05)
