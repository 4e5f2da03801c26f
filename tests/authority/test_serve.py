"""The service as a process: TLS, client certificates, an orderly end, and a configuration that cannot work."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey

from exequatur.authority import api
from exequatur.authority.service.config import read_config
from exequatur.errors import ConfigurationError
from exequatur.identity.credential import JWT_TYPE
from exequatur.statements.encoding import to_base64url
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant
from tests.authority.pki import LOOPBACK, Company
from tests.authority.running import DANA, IDENTITY, POLICIES, Running, eventually, form, running

MTLS = """
[[verifier]]
name = "mesh"
kind = "mtls"
authorities = "company.pem"
subject = "uri"
[[principal]]
verifier = "mesh"
principal = 'Service::"{sub}"'
[[verifier]]
name = "corp"
kind = "oidc"
issuer = "https://login.example"
audience = ["exequatur"]
jwks = "corp.jwks"
[[principal]]
verifier = "corp"
principal = 'User::"{sub}"'
"""
TLS = '[tls]\ncert = "server.crt"\nkey = "server.key"\nclient_ca = "company.pem"\n'
CERTIFICATE = {"subject_token": api.CERTIFICATE.token, "subject_token_type": api.CERTIFICATE.type}
URI = "https://acme.example/worker-1"


@pytest.fixture
def company(tmp_path: Path) -> Company:
    company = Company(tmp_path)
    company.issue("server", LOOPBACK, server=True)
    (tmp_path / "corp.jwks").write_text('{"keys": []}')
    return company


def trusting(company: Company, *certificate: Path) -> dict[str, Any]:
    """Options of a client."""
    context = ssl.create_default_context(cafile=str(company.file))
    if certificate:
        context.load_cert_chain(*certificate)
    return {"verify": context}


def tls(folder: Path, client: dict[str, Any], config: str = TLS) -> Any:
    return running(folder, identity=IDENTITY + MTLS, config=config, client=client)


@pytest.mark.rule("serve.H25")
async def test_a_client_certificate_says_who_asks(tmp_path: Path, company: Company) -> None:
    certificate = company.issue("worker", x509.UniformResourceIdentifier(URI))
    async with tls(tmp_path, trusting(company, *certificate)) as authority:
        assert authority.url.startswith("https://")
        answer = await authority.client.post(api.TOKEN_PATH, data=form(**CERTIFICATE))
        assert parse(answer.json()["access_token"], Grant).claims.sub == f'Service::"{URI}"', answer.text
        acting = {"actor_token": api.CERTIFICATE.token, "actor_token_type": api.CERTIFICATE.type}
        answer = await authority.exchange(DANA, **acting)
        grant = parse(answer.json()["access_token"], Grant).claims
        assert (grant.sub, grant.act and grant.act.sub) == (DANA, f'Service::"{URI}"')
        answer = await authority.ask("GET", api.REVOCATIONS_PATH, None)
        assert answer.status_code == 200
        assert authority.log()[-1]["caller"] == f'Service::"{URI}"'


@pytest.mark.rule("serve.H25")
async def test_without_a_client_certificate_no_header_stands_for_one(tmp_path: Path, company: Company) -> None:
    cert, _ = company.issue("worker", x509.UniformResourceIdentifier(URI))
    pem = cert.read_text().replace("\n", "%0A")
    headers = {"X-Client-Cert": pem, "X-Forwarded-Client-Cert": f'Cert="{pem}"', "Client-Cert": ":x:"}
    async with tls(tmp_path, trusting(company)) as authority:
        answer = await authority.client.post(api.TOKEN_PATH, data=form(**CERTIFICATE), headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert (await authority.exchange(DANA)).status_code == 200


@pytest.mark.rule("serve.H25")
async def test_a_certificate_of_somebody_else_gets_no_connection(tmp_path: Path, company: Company) -> None:
    (tmp_path / "other").mkdir()
    other = Company(tmp_path / "other", "company").issue("worker", x509.UniformResourceIdentifier(URI))
    async with tls(tmp_path, trusting(company, *other)) as authority:
        with pytest.raises(httpx.TransportError):
            await authority.client.post(api.TOKEN_PATH, data=form(**CERTIFICATE))


async def test_where_certificates_are_required_nobody_connects_without(tmp_path: Path, company: Company) -> None:
    certificate = company.issue("worker", x509.UniformResourceIdentifier(URI))
    async with tls(tmp_path, trusting(company, *certificate), TLS + "client_required = true\n") as authority:
        assert (await authority.ask("GET", api.TRUST_PATH, None)).status_code == 200
        async with httpx.AsyncClient(**trusting(company)) as stranger:
            with pytest.raises(httpx.TransportError):
                await stranger.get(authority.url + api.TRUST_PATH)


async def test_a_token_that_is_bound_to_a_certificate_needs_its_connection(tmp_path: Path, company: Company) -> None:
    mine = company.issue("mine", x509.UniformResourceIdentifier(URI))
    other = company.issue("other", x509.UniformResourceIdentifier(URI))
    key, now = ECKey.generate_key("P-256", auto_kid=True), int(time.time())
    (tmp_path / "corp.jwks").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    der = x509.load_pem_x509_certificate(mine[0].read_bytes()).public_bytes(Encoding.DER)
    claims = {
        "iss": "https://login.example",
        "aud": "exequatur",
        "sub": "dana",
        "iat": now,
        "exp": now + 300,
        "cnf": {"x5t#S256": to_base64url(hashlib.sha256(der).digest())},
    }
    token = jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)
    async with tls(tmp_path, trusting(company, *mine)) as authority:
        assert (await authority.exchange(token, subject_token_type=JWT_TYPE)).status_code == 200
        for thief in (trusting(company), trusting(company, *other)):
            async with httpx.AsyncClient(base_url=authority.url, **thief) as client:
                answer = await client.post(api.TOKEN_PATH, data=form(token, subject_token_type=JWT_TYPE))
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.rule("serve.H26")
async def test_what_runs_is_finished_when_it_is_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exequatur.authority.service.serve.STOPPING", 1.0)
    began, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with running(tmp_path) as authority:
        issue = authority.service.authority.issue_grant

        async def slowly(order: Any) -> str:
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return await issue(order)

        monkeypatch.setattr(authority.service.authority, "issue_grant", slowly)
        asked = asyncio.ensure_future(authority.exchange())
        await began.wait()
        authority.stop.set()
        await eventually(lambda: authority.service.health.stopping)
        ready = await authority.ask("GET", api.READY_PATH, None)
        assert ready.status_code == 503
        assert (await authority.exchange()).status_code == 503
        go.set()
        assert (await asked).status_code == 200


async def test_a_renewed_server_certificate_is_used_without_a_restart(
    tmp_path: Path, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.authority.service.serve._RELOAD", 0.05)

    def served() -> bytes:
        port = int(authority.url.rpartition(":")[2])
        return ssl.get_server_certificate(("127.0.0.1", port)).encode()

    async with tls(tmp_path, trusting(company)) as authority:
        before = await asyncio.to_thread(served)
        cert, _ = company.issue("server", LOOPBACK, server=True)
        expected = cert.read_bytes()
        assert before.strip() != expected.strip()
        for _ in range(500):
            if (await asyncio.to_thread(served)).strip() == expected.strip():
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the old certificate is still used")
        assert (await authority.exchange()).status_code == 200


# The command.


KNOWS_CALLERS = """\
[[verifier]]
name = "corp"
kind = "oidc"
issuer = "https://login.acme.example"
audience = ["exequatur"]
jwks = "keys.jwks"

[[principal]]
principal = 'User::"{sub}"'
"""


async def served(folder: Path, **changes: str) -> Any:
    """Start the command."""
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "main.cedar").write_text(POLICIES)
    if not (folder / "identity.toml").exists():
        (folder / "identity.toml").write_text(IDENTITY)
    fields = {"state": "state", "policies": "policies", "identity": "identity.toml", "listen": "127.0.0.1:0"} | changes
    (folder / "authority.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in fields.items()))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "exequatur.cli.main",
        "authority",
        "serve",
        "--config",
        str(folder / "authority.toml"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


async def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    process = await served(tmp_path)
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
    assert line.startswith("The authority serves http://127.0.0.1:")
    async with httpx.AsyncClient(base_url=line.split()[-1]) as client:
        answer = await client.post(api.TOKEN_PATH, data=form())
        assert answer.status_code == 200, answer.text
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert json.loads(out.decode().splitlines()[0])["caller"] == DANA
    assert "believes whatever name" in err.decode()
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize(("kind", "named"), [("oidc", "authority:"), ("local", "dev:")])
async def test_a_service_that_knows_its_callers_is_no_development_authority(
    tmp_path: Path, kind: str, named: str
) -> None:
    (tmp_path / "keys.jwks").write_text(json.dumps({"keys": []}))
    (tmp_path / "identity.toml").write_text(KNOWS_CALLERS if kind == "oidc" else IDENTITY)
    for _ in range(2):  # and it keeps the name
        process = await served(tmp_path, identity="identity.toml")
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert line.startswith("The authority serves "), err.decode()
        assert (tmp_path / "state" / "issuer").read_text().startswith(named)


@pytest.mark.parametrize(
    ("changes", "said"), [({"listen": "0.0.0.0:8443"}, "add [tls]"), ({"identity": "missing.toml"}, "missing.toml")]
)
async def test_the_command_says_in_a_line_what_cannot_work(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    process = await served(tmp_path, **changes)
    _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert said in err.decode().strip().splitlines()[-1]
    assert "Traceback" not in err.decode()


@pytest.mark.rule("build.H37")
async def test_who_believes_names_is_not_reached_from_elsewhere(tmp_path: Path, company: Company) -> None:
    with pytest.raises(ConfigurationError, match="local"):
        async with running(tmp_path, config=TLS, listen="0.0.0.0:0"):
            pass
    names = '[[verifier]]\nname = "mesh"\nkind = "mtls"\nauthorities = "company.pem"\n'
    identity = names + "[[principal]]\nprincipal = 'Service::\"{sub}\"'\n"
    async with running(tmp_path, identity=identity, config=TLS, listen="0.0.0.0:0", client=trusting(company)):
        pass


async def test_a_port_that_is_taken_is_named(tmp_path: Path, authority: Running) -> None:
    place = authority.url.removeprefix("http://")
    with pytest.raises(ConfigurationError, match=f"listen: {place}"):
        async with running(tmp_path, listen=place):
            pass


async def test_a_certificate_without_its_key_is_named(tmp_path: Path, company: Company) -> None:
    (tmp_path / "server.key").write_text("no key")
    with pytest.raises(ConfigurationError, match=r"\[tls\]"):
        async with running(tmp_path, config=TLS):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "state = 7",
        "= nonsense",
        'state = "s"\npolicies = "p"\nidentity = "i"\nlisten = "8443"',
        'state = "s"\npolicies = "p"\nidentity = "i"\nlisten = "example.com:8443"',
        'state = "s"\npolicies = "p"\nidentity = "i"\nurl = "ftp://x"',
        'state = "s"\npolicies = "p"\nidentity = "i"\nurl = "http://example.com"',
        'state = "s"\npolicies = "p"\nidentity = "i"\n[tls]\ncert = "c"',
        'state = "s"\npolicies = "p"\nidentity = "i"\n[tls]\ncert = "c"\nkey = "k"\nclient_required = true',
        'state = "s"\npolicies = "p"\nidentity = "i"\n[limits]\nper_caller = 0',
        "x = " + "[" * 5000,
    ],
)
def test_a_configuration_that_cannot_work_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "authority.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"authority\.toml"):
        read_config(file)


def test_paths_do_not_depend_on_the_working_directory(tmp_path: Path) -> None:
    file = tmp_path / "authority.toml"
    file.write_text('state = "s"\npolicies = "p"\nidentity = "/etc/i"\n[tls]\ncert = "c"\nkey = "k"\n')
    config = read_config(file)
    assert (config.state, config.policies, config.identity) == (tmp_path / "s", str(tmp_path / "p"), Path("/etc/i"))
    assert config.tls is not None
    assert config.tls.cert == tmp_path / "c"
    file.write_text('state = "s"\npolicies = "https://example.com/p.bundle"\nidentity = "i"\n')
    assert read_config(file).policies == "https://example.com/p.bundle"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * 2_000_000])
def test_a_configuration_that_is_no_text_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "authority.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigurationError):
        read_config(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
