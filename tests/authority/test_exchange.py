"""A credential is exchanged for a grant or a permit, or it is said why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from exequatur.authority import api
from exequatur.identity.credential import LOCAL_TYPE
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant, Permit
from tests.authority.running import (
    DANA,
    EVE,
    WORKER,
    Running,
    eventually,
    form,
    message,
    running,
    workflow,
)


async def test_a_credential_becomes_a_grant_for_exactly_what_was_asked(authority: Running) -> None:
    answer = await authority.exchange(authorization_details=[workflow(start_delay=5, schedule=None)])
    assert answer.status_code == 200, answer.text
    said = api.Exchanged.model_validate_json(answer.content)
    token = parse(said.access_token, Grant)
    authority.service.authority.state.trust.verify(token)
    grant = token.claims
    assert (grant.sub, grant.aud, grant.act) == (DANA, "exequatur.local/default/default", None)
    held = grant.authorization
    assert (held.workflow_type, held.workflow_id, held.task_queue, held.reuse) == ("Order", "order-1", "orders", "once")
    assert (said.issued_token_type, said.token_type) == (api.GRANT_TYPE, "N_A")
    assert said.expires_in == int(grant.exp - grant.iat)
    [record] = [each for each in authority.records() if each.get("grant") == grant.jti]
    assert (record["principal"], record["decision"], record["action"]) == (DANA, "allow", "workflow.start")


@pytest.mark.rule("answers.H2")
async def test_what_was_answered_is_not_to_be_stored(authority: Running) -> None:
    for answer in (await authority.exchange(), await authority.exchange(EVE)):
        assert answer.headers["cache-control"] == "no-store"


async def test_a_credential_becomes_a_permit(authority: Running) -> None:
    answer = await authority.exchange(authorization_details=[message()], requested_token_type=api.PERMIT_TYPE)
    said = api.Exchanged.model_validate_json(answer.content)
    token = parse(said.access_token, Permit)
    authority.service.authority.state.trust.verify(token)
    assert (token.claims.sub, token.claims.kind, token.claims.target) == (DANA, "signal", "order-1")
    assert said.issued_token_type == api.PERMIT_TYPE


async def test_who_is_not_permitted_gets_a_reason_and_no_grant(authority: Running) -> None:
    answer = await authority.exchange(EVE, authorization_details=[workflow(workflow_id="of-eve")])
    assert answer.status_code == 403
    problem = api.Problem.model_validate_json(answer.content)
    assert problem.error == "access_denied"
    assert "eve has left" in problem.error_description
    assert problem.details == {"principal": EVE, "policies": ["not-eve"]}
    [record] = [each for each in authority.records() if each["workflow_id"] == "of-eve"]
    assert (record["decision"], record["policies"]) == ("deny", ["not-eve"])


async def test_a_service_acts_for_a_user_and_the_grant_says_so(authority: Running) -> None:
    acting = {"actor_token": WORKER, "actor_token_type": LOCAL_TYPE}
    answer = await authority.exchange(**acting)
    grant = parse(answer.json()["access_token"], Grant).claims
    assert grant.sub == DANA
    assert grant.act is not None
    assert (grant.act.sub, grant.act.act) == (WORKER, None)


async def test_policies_decide_who_may_act_for_whom(authority: Running) -> None:
    answer = await authority.exchange(actor_token='Service::"untrusted"', actor_token_type=LOCAL_TYPE)
    assert answer.status_code == 403
    assert answer.json()["details"]["policies"] == ["no-actor"]


@pytest.mark.rule("callers.H7")
@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "boss"},
        {"X-Client-Cert": "boss"},
        {"Exequatur-Subject-Token": 'User::"boss"'},
        {"Authorization": 'Bearer User::"boss"'},
    ],
)
async def test_no_header_says_who_a_grant_is_for(authority: Running, headers: dict[str, str]) -> None:
    answer = await authority.client.post(api.TOKEN_PATH, data=form(), headers=headers)
    assert parse(answer.json()["access_token"], Grant).claims.sub == DANA


@pytest.mark.parametrize(
    ("token", "type"),
    [
        ("dana", LOCAL_TYPE),
        ('User::"da"na"', LOCAL_TYPE),
        ("", LOCAL_TYPE),
        ("x" * 16_385, LOCAL_TYPE),
        ("a.b.c", "urn:ietf:params:oauth:token-type:jwt"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJib3NzIn0.", "urn:ietf:params:oauth:token-type:jwt"),
        ("x", "urn:ietf:params:oauth:token-type:saml2"),
        ("connection", "urn:exequatur:params:oauth:token-type:client-certificate"),
        ('{"principal": ' + "[" * 5000, LOCAL_TYPE),
    ],
)
async def test_a_credential_that_proves_nothing_gets_nothing(authority: Running, token: str, type: str) -> None:
    before = len(authority.records())
    answer = await authority.exchange(token, subject_token_type=type)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "invalid_request"
    assert "access_token" not in answer.text
    assert len(authority.records()) == before


@pytest.mark.rule("exchange.H12")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"scope": "everything"}, "invalid_request"),
        ({"client_id": "me"}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
    ],
)
async def test_nothing_is_ignored_that_was_asked_for(authority: Running, changes: Any, error: str) -> None:
    answer = await authority.exchange(**changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.rule("exchange.H12")
async def test_a_parameter_that_comes_twice_is_refused(authority: Running) -> None:
    fields = [*form().items(), ("subject_token", EVE)]
    answer = await authority.client.post(
        api.TOKEN_PATH,
        content=urlencode(fields),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "twice" in answer.json()["error_description"]


@pytest.mark.rule("exchange.H13")
@pytest.mark.parametrize(
    "details",
    [
        None,
        "",
        "[]",
        "{}",
        "null",
        "7",
        "no json",
        "[" * 20_000,
        '[{"type": "temporal_workflow", "type": "temporal_message"}]',
        [workflow(), workflow()],
        [workflow(), message()],
        [workflow(type="payment_initiation")],
        [workflow(reuse="schedule_or_so")],
        [workflow(input="not a digest")],
        [workflow(workflow_id="")],
        [workflow(start_delay=-1)],
        [workflow(start_delay=1e300)],
        [workflow(principal='User::"boss"')],
        [{**workflow(), "namespace": ["default"]}],
        [message(kind="terminate")],
    ],
)
async def test_one_thing_of_a_known_type_is_authorized_at_a_time(authority: Running, details: Any) -> None:
    answer = await authority.exchange(authorization_details=details)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@pytest.mark.rule("exchange.H13")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"requested_token_type": api.PERMIT_TYPE}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"audience": "exequatur.local/default/other"}, "invalid_target"),
        ({"audience": "other.example/default/default"}, "invalid_target"),
        ({"resource": "https://api.example"}, "invalid_target"),
    ],
)
async def test_what_is_asked_for_besides_agrees_with_the_details(authority: Running, changes: Any, error: str) -> None:
    answer = await authority.exchange(**changes)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    fitting = await authority.exchange(audience="exequatur.local/default/default", requested_token_type=api.GRANT_TYPE)
    assert fitting.status_code == 200


async def test_a_start_that_may_not_wait_so_long_is_denied(authority: Running) -> None:
    answer = await authority.exchange(authorization_details=[workflow(start_delay=365 * 86_400)])
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")


@pytest.mark.rule("answers.H1")
async def test_nothing_is_issued_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        journal = authority.service.gate.require_journal()
        aside = journal.path.with_suffix(".aside")
        journal.path.rename(aside)
        await eventually(lambda: not journal.healthy)
        answer = await authority.exchange()
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert str(tmp_path) not in answer.text
        ready = await authority.ask("GET", api.READY_PATH, None)
        assert ready.status_code == 503
        assert str(tmp_path) not in ready.text
        assert (await authority.ask("GET", api.LIVE_PATH, None)).status_code == 200
        aside.rename(journal.path)
        await eventually(lambda: journal.healthy)
        assert (await authority.exchange()).status_code == 200


async def test_nothing_is_issued_by_a_clock_in_the_wrong_century(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        clock, authority.service.gate.clock = authority.service.gate.clock, lambda: 1000.0
        answer = await authority.exchange()
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        authority.service.gate.clock = clock
        assert (await authority.exchange()).status_code == 200


async def test_nothing_is_issued_while_it_is_not_known_what_is_revoked(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        feed = tmp_path / "state" / "revocations"
        feed.write_bytes(b"no revocation\n")
        answer = await authority.exchange()
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert "revocations" not in answer.text
        feed.write_bytes(b"")
        assert (await authority.exchange()).status_code == 200


def test_the_form_is_documented(authority: Running) -> None:
    assert json.loads(form()["authorization_details"]) == [workflow()]
