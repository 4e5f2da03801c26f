"""Who asks is told by credentials, and by nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from exequatur.authority import api
from exequatur.authority.service.callers import shown_in
from exequatur.identity.credential import JWT_TYPE, LOCAL_TYPE, Credential
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant
from tests.authority.running import DANA, EVE, IDENTITY, WORKER, Running, local, running

CORP = """
[[verifier]]
name = "corp"
kind = "oidc"
issuer = "https://login.example"
audience = ["exequatur"]
jwks = "corp.jwks"
single_use = true
[[principal]]
verifier = "corp"
principal = 'User::"{sub}"'
"""
LEAVE = {
    "action": "workflow.terminate",
    "workflow_id": "order-1",
    "facts": {"run": {"namespace": "default", "workflow_id": "order-1"}},
}


@pytest.fixture
def token(tmp_path: Path) -> Callable[..., str]:
    """Makes tokens of the company's identity provider."""
    key = ECKey.generate_key("P-256", auto_kid=True)
    (tmp_path / "corp.jwks").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))

    def make(**changes: object) -> str:
        now = int(time.time())
        claims = {"iss": "https://login.example", "aud": "exequatur", "sub": "dana", "iat": now, "exp": now + 300}
        return jwt.encode({"alg": "ES256", "kid": key.kid}, claims | {"jti": f"t{now}"} | changes, key)

    return make


@pytest.mark.rule("callers.H9")
async def test_a_token_that_is_good_once_is_good_once_for_all_processes(
    tmp_path: Path, token: Callable[..., str]
) -> None:
    shared = {"shared_state": str(tmp_path / "shared.db")}
    async with (
        running(tmp_path, identity=IDENTITY + CORP, settings=shared) as one,
        running(tmp_path, identity=IDENTITY + CORP, settings=shared) as other,
    ):
        text = token(jti="only-once")
        first = await one.exchange(text, subject_token_type=JWT_TYPE)
        assert first.status_code == 200, first.text
        assert parse(first.json()["access_token"], Grant).claims.sub == DANA
        for again in (one, other):
            answer = await again.exchange(text, subject_token_type=JWT_TYPE)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
            assert "used before" in answer.json()["error_description"]
        assert (await other.exchange(token(jti="another"), subject_token_type=JWT_TYPE)).status_code == 200
        grants = {each.get("grant") for each in one.records() if each["action"] == "workflow.start"}
        assert len(grants) == 2
        assert (await one.exchange(token(jti=None), subject_token_type=JWT_TYPE)).status_code == 400


@pytest.mark.rule("callers.H9")
async def test_a_token_that_is_good_once_is_remembered_until_it_has_ended_itself(
    tmp_path: Path, token: Callable[..., str]
) -> None:
    async with running(tmp_path, identity=IDENTITY + CORP) as authority:
        now = int(time.time())
        text = token(exp=now + 10 * 3600, jti="long")
        # The one who acts shows a credential that ends far sooner.
        acting = {"subject_token_type": JWT_TYPE, "actor_token": WORKER, "actor_token_type": LOCAL_TYPE}
        assert (await authority.exchange(text, **acting)).status_code == 200
        authority.service.once._ledger.forget(now + 9 * 3600)
        assert (await authority.exchange(text, **acting)).status_code == 400


@pytest.mark.rule("callers.H9")
async def test_who_asked_too_often_has_not_used_the_token(tmp_path: Path, token: Callable[..., str]) -> None:
    limits = "[limits]\nper_caller = 1\nburst = 1\n"
    async with running(tmp_path, identity=IDENTITY + CORP, config=limits) as authority:
        first, second = token(jti="first"), token(jti="second")
        assert (await authority.exchange(first, subject_token_type=JWT_TYPE)).status_code == 200
        again = await authority.exchange(second, subject_token_type=JWT_TYPE)
        assert (again.status_code, again.headers["retry-after"]) == (429, "1")
        await asyncio.sleep(1)
        assert (await authority.exchange(second, subject_token_type=JWT_TYPE)).status_code == 200


@pytest.mark.rule("callers.H8")
async def test_the_type_of_a_credential_that_is_not_there_is_refused(authority: Running) -> None:
    for name, who in ((api.SUBJECT_TYPE_HEADER, WORKER), (api.TYPE_HEADER, None)):
        answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, who, LEAVE, headers={name: LOCAL_TYPE})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), name
        assert "came without" in answer.json()["error_description"]


async def test_a_token_is_in_no_log_and_in_no_evidence(tmp_path: Path, token: Callable[..., str]) -> None:
    text = token()
    async with running(tmp_path, identity=IDENTITY + CORP) as authority:
        assert (await authority.exchange(text, subject_token_type=JWT_TYPE)).status_code == 200
        assert (await authority.exchange(text, subject_token_type=JWT_TYPE)).status_code == 400
        await authority.ask("POST", api.AUTHORIZATIONS_PATH, None, LEAVE, headers=api.shown(Credential(text)))
    signature = text.rpartition(".")[2].encode()
    assert not [file for file in files_in(tmp_path) if signature in file.read_bytes()]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.rule("revoking.H34")
async def test_without_a_credential_nothing_is_answered(authority: Running) -> None:
    for method, path, body in [
        ("POST", api.AUTHORIZATIONS_PATH, LEAVE),
        ("GET", api.REVOCATIONS_PATH, None),
        ("GET", f"{api.BUNDLES_PATH}/policies.bundle", None),
        ("POST", api.REVOCATIONS_PATH, {"reason": "because", "everything": True}),
    ]:
        answer = await authority.ask(method, path, None, body)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["Basic ZGFuYTpkYW5h", "Bearer", "Bearer !!", "Bearer a.b", ""])
async def test_a_header_without_a_token_proves_nothing(authority: Running, value: str) -> None:
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, None, LEAVE, headers={"Authorization": value})
    assert answer.status_code == 401


async def test_a_local_name_in_any_script_is_shown_in_a_header(authority: Running) -> None:
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, 'User::"Þóra"', LEAVE)
    assert answer.json()["principal"] == 'User::"Þóra"'


@pytest.mark.rule("callers.H7")
async def test_who_asks_on_somebodys_behalf_is_the_actor(authority: Running) -> None:
    answer = await authority.ask("POST", api.AUTHORIZATIONS_PATH, WORKER, LEAVE, subject=DANA)
    assert answer.json()["principal"] == DANA
    record = [each for each in authority.records() if each["action"] == "workflow.terminate"][-1]
    assert json.loads(record["facts"])["acting"] == {"by": WORKER, "chain": [WORKER]}
    denied = await authority.ask("POST", api.AUTHORIZATIONS_PATH, WORKER, LEAVE, subject=EVE)
    assert denied.status_code == 403


@pytest.mark.rule("callers.H8")
async def test_two_credentials_in_one_place_are_refused(authority: Running) -> None:
    shown = api.shown(local(DANA), local(DANA))
    for name in shown:
        headers = [*shown.items(), (name, api.shown(local(EVE), local(EVE))[name])]
        answer = await authority.client.post(api.AUTHORIZATIONS_PATH, json=LEAVE, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert "twice" in answer.json()["error_description"]


def test_credentials_survive_their_headers() -> None:
    for asks in (
        local('User::"Þóra"'),
        Credential("a.b.c"),
        Credential("a.b.c", "urn:ietf:params:oauth:token-type:id_token"),
    ):
        given = {name.lower(): [value] for name, value in api.shown(asks, local(DANA)).items()}
        found = shown_in(given, None)
        assert (found.asks, found.subject) == (asks, local(DANA))
    assert shown_in({}, b"der").asks is None
