"""A worker gets a credential for its own key, in the places that policies allow it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from exequatur.authority import api
from exequatur.authority.possession import prove, verify_possession
from exequatur.errors import StatementError
from exequatur.identity.credential import Credential
from exequatur.identity.local import LASTS
from exequatur.integrity.keys import make_manifest_key
from exequatur.integrity.manifest import Interpreter, Measurement, sign_manifest
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import WorkloadCredential
from tests.authority.running import BOSS, DANA, POLICIES, WORKER, Running, running
from tests.identity.issuer import claims as token_claims
from tests.identity.issuer import jwks, new_key, signed

SITE = "exequatur.local/default"
HASH = "0" * 64
ID = "spiffe://exequatur.local/fleet/one"


def order(key: SigningKey, *, signer: SigningKey | None = None, site: str = SITE, **changes: Any) -> dict[str, Any]:
    """An order with its proof; ``then`` is changed afterwards."""
    then, now = changes.pop("then", {}), changes.pop("now", time.time())
    fields = {
        "key": key.public,
        "roles": ("request", "receipt"),
        "namespaces": ("default",),
        "task_queues": ("orders",),
        "activities": ("charge",),
        "proof": "",
    }
    body = prove(api.CredentialBody(**fields | changes), signer or key, site=site, now=now)
    return body.model_dump(mode="json", exclude_none=True) | then


async def enrol(authority: Running, body: dict[str, Any], who: str | None = WORKER, **more: Any) -> Any:
    return await authority.ask("POST", api.CREDENTIALS_PATH, who, body, **more)


async def test_a_worker_is_credentialed_for_its_key_and_its_places(authority: Running) -> None:
    key = SigningKey.generate()
    answer = await enrol(authority, order(key))
    token = parse(answer.json()["credential"], WorkloadCredential)
    authority.service.authority.state.trust.verify(token)
    claims = token.claims
    assert (claims.sub, claims.aud, claims.cnf.jwk) == (ID, SITE, key.public)
    assert (claims.roles, claims.task_queues, claims.activities) == (("request", "receipt"), ("orders",), ("charge",))
    assert claims.code is None
    record = [each for each in authority.records() if each["action"] == "worker.enroll"][-1]
    assert (record["principal"], record["worker"], record["key"]) == (WORKER, ID, key.kid)
    facts = json.loads(record["facts"])["worker"]
    assert (facts["id"], facts["integrity"], facts["task_queues"]) == (ID, "unmeasured", ["orders"])


@pytest.mark.rule("enrolment.H20")
async def test_policies_decide_where_a_worker_may_work(authority: Running) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), task_queues=("orders", "payroll")))
    assert (answer.status_code, answer.json()["details"]["policies"]) == (403, ["queues"])
    assert "credential" not in answer.json()


@pytest.mark.rule("enrolment.H36")
@pytest.mark.parametrize(
    "places",
    [
        {"task_queues": ("*",)}, {"task_queues": ("orders", "pay*")}, {"task_queues": ("[p]ayroll",)},
        {"task_queues": ("payrol?",)}, {"namespaces": ("*",)}, {"activities": ("pay*",)},
    ],
    ids=str,
)  # fmt: skip
async def test_a_pattern_does_not_get_around_a_policy_that_forbids_a_name(
    authority: Running, places: dict[str, Any]
) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), **places))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "credential" not in answer.json()


async def test_a_worker_with_a_dynamic_activity_asks_for_all_and_says_so(authority: Running) -> None:
    assert (await enrol(authority, order(SigningKey.generate(), activities=("*",)))).status_code == 200
    record = [each for each in authority.records() if each["action"] == "worker.enroll"][-1]
    assert json.loads(record["facts"])["worker"]["activities"] == ["*"]


@pytest.mark.rule("enrolment.H17")
async def test_only_whom_the_configuration_names_is_a_worker(authority: Running) -> None:
    body = order(SigningKey.generate())
    assert (await enrol(authority, body, DANA)).status_code == 403
    assert (await enrol(authority, body, None)).status_code == 401


@pytest.mark.rule("enrolment.H17")
async def test_nobody_is_enrolled_on_somebody_elses_behalf(authority: Running) -> None:
    answer = await enrol(authority, order(SigningKey.generate()), WORKER, subject=DANA)
    assert answer.status_code == 403


@pytest.mark.rule("enrolment.H18")
async def test_a_proof_is_taken_once(authority: Running) -> None:
    body = order(SigningKey.generate())
    assert (await enrol(authority, body)).status_code == 200
    again = await enrol(authority, body)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_request")
    assert "used before" in again.json()["error_description"]


@pytest.mark.rule("possession.B1", "enrolment.H18")
async def test_a_key_that_is_not_held_is_not_credentialed(authority: Running) -> None:
    body = order(SigningKey.generate(), signer=SigningKey.generate())
    assert (await enrol(authority, body)).status_code == 400


@pytest.mark.rule("possession.B2")
@pytest.mark.parametrize(
    "then",
    [
        {"task_queues": ["orders", "more"]},
        {"roles": ["request", "receipt", "delegate"]},
        {"activities": ["*"]},
        {"namespaces": ["production"]},
        {"manifest": "another"},
        {"instance": "another"},
    ],
)
async def test_what_was_not_proven_is_not_ordered(authority: Running, then: dict[str, Any]) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), then=then))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.rule("possession.B2")
async def test_a_proof_for_another_authority_is_refused(authority: Running) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), site="other.example/default"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.rule("possession.B3")
@pytest.mark.parametrize("ago", [200.0, -200.0])
async def test_an_old_proof_and_one_of_the_future_are_refused(authority: Running, ago: float) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), now=time.time() - ago))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("proof", ["", "x", "a.b.c", "x" * 1000, "é.é.é"])
async def test_what_is_no_proof_is_refused(authority: Running, proof: str) -> None:
    answer = await enrol(authority, order(SigningKey.generate(), then={"proof": proof}))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_proof_holds_within_the_leeway_of_the_clocks() -> None:
    key, now = SigningKey.generate(), 1_790_000_000.0
    for distance in (-140.0, -20.0, 0.0, 29.0):
        body = api.CredentialBody.model_validate(order(key, now=now + distance))
        assert verify_possession(body, site=SITE, now=now, leeway=30.0).kid == key.kid
    for distance in (-151.0, 31.0):
        body = api.CredentialBody.model_validate(order(key, now=now + distance))
        with pytest.raises(StatementError, match="B3"):
            verify_possession(body, site=SITE, now=now, leeway=30.0)


@pytest.mark.parametrize("count", [100, 4000])
async def test_more_places_than_a_credential_can_name_are_refused(authority: Running, count: int) -> None:
    queues = tuple(f"queue-{number:05}" for number in range(count))
    answer = await enrol(authority, order(SigningKey.generate(), task_queues=queues))
    assert answer.status_code == (200 if count == 100 else 400)


@pytest.mark.rule("enrolment.H20")
@pytest.mark.parametrize("what", ["worker", "key"])
async def test_a_revoked_worker_or_key_gets_no_credential(tmp_path: Path, what: str) -> None:
    key = SigningKey.generate()
    async with running(tmp_path) as authority:
        assert (await enrol(authority, order(key))).status_code == 200
        entry = {"reason": "stolen", what: ID if what == "worker" else key.kid}
        assert (await authority.ask("POST", api.REVOCATIONS_PATH, BOSS, entry)).json() == {"version": 1}
        answer = await enrol(authority, order(key))
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
        assert "stolen" in answer.json()["error_description"]


# Evidence of code.


def measured(build: str) -> Measurement:
    """A small worker."""
    return Measurement(
        interpreter=Interpreter(implementation="cpython", version="3.11.7", executable=HASH, standard={}, flags={}),
        distributions={},
        extra={},
        sources={"app": {"worker.py": HASH}},
        configuration={},
        environment={},
        build=build,
    )


@pytest.mark.rule("enrolment.H19")
async def test_what_is_signed_of_a_workers_code_is_told_to_policies_and_credentialed(tmp_path: Path) -> None:
    signer = make_manifest_key(tmp_path / "builder", tmp_path / "builders.jwks", "builder")
    policies = POLICIES + (
        '@id("measured") forbid(principal, action == Action::"worker.enroll", resource)'
        ' unless { context.worker.integrity == "measured" && context.worker.build == "b-7" };'
    )
    trusted = {"integrity_keys": str(tmp_path / "builders.jwks")}
    async with running(tmp_path, policies=policies, settings=trusted) as authority:
        key = SigningKey.generate()
        assert (await enrol(authority, order(key))).json()["details"]["policies"] == ["measured"]
        manifest = sign_manifest(measured("b-7"), "worker", signer)
        answer = await enrol(authority, order(key, manifest=manifest))
        claims = parse(answer.json()["credential"], WorkloadCredential).claims
        assert claims.build == "b-7"
        assert claims.code is not None
        assert claims.code.assurance == "self-asserted"
        other = sign_manifest(measured("b-8"), "worker", signer)
        assert (await enrol(authority, order(key, manifest=other))).status_code == 403
        forged = sign_manifest(measured("b-7"), "worker", SigningKey.generate())
        for bad in (forged, "{}", "", "x" * 1000):
            answer = await enrol(authority, order(key, manifest=bad))
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        entry = {"reason": "a hole in b-7", "code": claims.code.digest}
        assert (await authority.ask("POST", api.REVOCATIONS_PATH, BOSS, entry)).status_code == 200
        refused = await enrol(authority, order(key, manifest=manifest))
        assert refused.status_code == 403
        assert "a hole in b-7" in refused.json()["error_description"]


@pytest.mark.rule("enrolment.H35")
async def test_a_credential_ends_with_what_the_worker_showed(tmp_path: Path) -> None:
    async with running(tmp_path, settings={"credential_ttl": "8h"}) as authority:
        answer = await enrol(authority, order(SigningKey.generate()))
        claims = parse(answer.json()["credential"], WorkloadCredential).claims
        assert claims.exp <= time.time() + LASTS


@pytest.mark.rule("enrolment.H35")
async def test_a_credential_that_has_ended_already_is_not_issued(tmp_path: Path) -> None:
    key, now = new_key("one"), int(time.time())
    (tmp_path / "keys.jwks").write_bytes(jwks(key))
    identity = (
        '[[verifier]]\nname = "corp"\nkind = "oidc"\nissuer = "https://login.example.com"\naudience = "exequatur"\n'
        'jwks = "keys.jwks"\n[[principal]]\nprincipal = \'Service::"{sub}"\'\n[[workload]]\npath = "fleet/{sub}"\n'
    )
    async with running(tmp_path, identity=identity) as authority:
        # It has ended, and counts for as long as clocks may differ.
        ended = signed(key, token_claims(sub="worker-1", iat=now - 100, exp=now - 5))
        answer = await enrol(authority, order(SigningKey.generate()), None, headers=api.shown(Credential(ended)))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        assert authority.records() == []
