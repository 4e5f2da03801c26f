"""What is asked of an authority elsewhere, and what is believed of its answers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from exequatur import AuthorizationDenied, AuthorizationPlugin, AuthorizationUnavailable, Principal, Settings
from exequatur.authority.api import (
    AUTHORIZATIONS_PATH,
    CREDENTIALS_PATH,
    RENEWALS_PATH,
    SUBJECT_HEADER,
    TOKEN_PATH,
    TRUST_PATH,
    TYPE_HEADER,
    credential_from,
)
from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.gate.issuing import ActionOrder, GrantOrder, PermitOrder, RenewalOrder
from exequatur.identity.credential import LOCAL_TYPE, Credential
from exequatur.identity.principal import UNAUTHENTICATED
from exequatur.identity.workload import ROLES, CredentialOrder
from exequatur.policy.told import SIGNAL_ACTION, TERMINATE_ACTION
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, Permit, WorkloadCredential
from tests.remote.parties import AuthorityProcess, Between

ANA = Principal("User", "ana")
SERVICE = Principal("Service", "shop")
DIGEST = "A" * 43
GRANT = GrantOrder(
    principal=UNAUTHENTICATED,
    namespace="default",
    workflow_type="Order",
    workflow_id="order-1",
    task_queue="orders",
    input=DIGEST,
    reuse="once",
    start_delay=0.0,
)
PERMIT = PermitOrder(
    principal=UNAUTHENTICATED, namespace="default", kind="signal", target="order-1", name="hurry", args=DIGEST
)
LEAVE = ActionOrder(
    UNAUTHENTICATED, TERMINATE_ACTION, "order-1", {"run": {"namespace": "default", "workflow_id": "order-1"}}
)

Made = Callable[..., Any]


@pytest.fixture
def plugin(middle: Between, folder: Path) -> Made:
    """A plugin whose way to the authority leads past somebody."""

    def make(principal: Principal = SERVICE, **settings: Any) -> AuthorizationPlugin:
        return AuthorizationPlugin(middle.url, principal=principal, state_dir=folder, settings=Settings(**settings))

    return make


def credential_order() -> CredentialOrder:
    key = SigningKey.generate()
    return CredentialOrder(key.public, ROLES, ("default",), ("orders",), ("charge",), signer=key)


async def asked_all(plugin: AuthorizationPlugin) -> list[type[BaseException]]:
    """How the authority's answers to every kind of question end."""
    ended: list[type[BaseException]] = []
    for question in (
        lambda: plugin._authority.issue_grant(GRANT),
        lambda: plugin._authority.issue_permit(PERMIT),
        lambda: plugin._authority.authorize(LEAVE),
    ):
        with pytest.raises(Exception, match=r"\A[^\n]{10,1000}\Z") as raised:
            await question()
        ended.append(raised.type)
    try:
        plugin._authority.issue_credential(credential_order())
    except ConfigurationError:
        ended.append(ConfigurationError)
    except ExequaturError:
        ended.append(ExequaturError)
    return ended


# What is asked.


async def test_this_process_asks_for_itself(plugin: Made, middle: Between) -> None:
    grant = parse(await plugin()._authority.issue_grant(GRANT), Grant).claims
    assert (grant.sub, grant.act) == ('Service::"shop"', None)
    assert grant.authorization.workflow_id == "order-1"
    [form] = middle.bodies(TOKEN_PATH)
    assert (form["subject_token"], form["subject_token_type"]) == ('Service::"shop"', LOCAL_TYPE)
    assert "actor_token" not in form


@pytest.mark.rule("remote.N13")
async def test_whoever_acts_for_somebody_is_the_actor(plugin: Made, middle: Between) -> None:
    subject = Credential('User::"ana"', LOCAL_TYPE)
    grant = parse(await plugin()._authority.issue_grant(replace(GRANT, credential=subject)), Grant).claims
    permit = parse(await plugin()._authority.issue_permit(replace(PERMIT, credential=subject)), Permit).claims
    leave = await plugin()._authority.authorize(replace(LEAVE, credential=subject))
    for claims in (grant, permit):
        assert claims.sub == 'User::"ana"'
        assert claims.act is not None
        assert claims.act.sub == 'Service::"shop"'
    assert leave.principal == 'User::"ana"'
    assert all(form["actor_token"] == 'Service::"shop"' for form in middle.bodies(TOKEN_PATH))
    [headers] = [headers for path, headers, _ in middle.seen if path == AUTHORIZATIONS_PATH]
    shown = credential_from(headers["authorization"].removeprefix("Bearer "), headers[TYPE_HEADER.lower()])
    assert shown.token == 'Service::"shop"'
    assert credential_from(headers[SUBJECT_HEADER.lower()], LOCAL_TYPE).token == 'User::"ana"'


async def test_a_principal_is_a_name_that_an_authority_for_development_believes(plugin: Made) -> None:
    named = Principal("User", "ana", {"region": "emea"}, ['Role::"ops"'])
    grant = parse(await plugin()._authority.issue_grant(replace(GRANT, principal=named)), Grant).claims
    assert (grant.sub, grant.attributes, grant.parents) == ('User::"ana"', {"region": "emea"}, ('Role::"ops"',))


async def test_a_denial_is_the_authoritys_sentence_with_its_details(plugin: Made) -> None:
    with pytest.raises(AuthorizationDenied) as denied:
        await plugin()._authority.issue_grant(replace(GRANT, principal=Principal("User", "stranger")))
    assert "strangers start nothing" in denied.value.message
    assert denied.value.details[0]["policies"] == ["no-strangers"]
    assert denied.value.non_retryable


async def test_a_credential_that_the_authority_does_not_know_says_what_to_check(plugin: Made) -> None:
    token = "eyJhbGciOiJub25lIn0.e30."
    for order in (replace(GRANT, credential=Credential(token)), replace(LEAVE, credential=Credential(token))):
        ask = plugin()._authority
        with pytest.raises(AuthorizationDenied, match=r"does not know who asks|cannot take this") as denied:
            await (ask.issue_grant(order) if isinstance(order, GrantOrder) else ask.authorize(order))
        assert token not in denied.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"workflow_id": ""},
        {"workflow_id": "x" * 2000},
        {"workflow_id": "\udcff"},
        {"start_delay": -1.0},
        {"input": "?"},
    ],
)
async def test_what_cannot_be_written_down_is_denied_and_not_sent(
    plugin: Made, middle: Between, change: dict[str, Any]
) -> None:
    with pytest.raises(AuthorizationDenied):
        await plugin()._authority.issue_grant(replace(GRANT, **change))
    assert not middle.bodies(TOKEN_PATH)


# What is believed.

NO_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "a page": lambda _: HTMLResponse("<html>login</html>"),
    "a page that says no": lambda _: HTMLResponse("<html>Forbidden</html>", 403),
    "a page that says who are you": lambda _: HTMLResponse("<html>Unauthorized</html>", 401),
    "nothing": lambda _: Response(b""),
    "no content": lambda _: Response(status_code=204),
    "garbage": lambda _: Response(b"\xff\xfe\x00", media_type="application/json"),
    "deep nesting": lambda _: Response(b"[" * 100_000, media_type="application/json"),
    "a list": lambda _: JSONResponse([1, 2]),
    "another answer": lambda _: JSONResponse({"answer": "yes"}),
    "more than an answer": lambda _: JSONResponse({"policies": [], "principal": "x", "allowed": True}),
    "a wrong type": lambda _: JSONResponse({"access_token": 7, "issued_token_type": None, "expires_in": "soon"}),
    "a redirect": lambda _: RedirectResponse("http://127.0.0.1:1/"),
    "too much": lambda _: Response(b" " * (1024 * 1024 + 1), media_type="application/json"),
    "a broken server": lambda _: Response(b"Internal Server Error", 500),
    "a proxy": lambda _: HTMLResponse("<h1>502 Bad Gateway</h1>", 502),
    "an answer of another type": lambda _: JSONResponse(
        {"principal": 'Service::"shop"', "policies": []}, media_type="text/html"
    ),
    "a denial of another type": lambda _: JSONResponse(
        {"error": "access_denied", "error_description": "no"}, 403, media_type="text/html"
    ),
    "a denial that is none": lambda _: JSONResponse({"error": "access_denied"}, 403),
    "another word with 403": lambda _: JSONResponse({"error": "slow_down", "error_description": "no"}, 403),
    "a denial as long as a book": lambda _: JSONResponse(
        {"error": "access_denied", "error_description": "no " * 100_000}, 403
    ),
    "an unknown word": lambda _: JSONResponse({"error": "teapot", "error_description": "no"}, 418),
}


@pytest.mark.rule("remote.N8")
@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_of_an_authority_allows_and_denies_nothing(
    plugin: Made, middle: Between, answer: Callable[[Any], Any]
) -> None:
    for path in (TOKEN_PATH, AUTHORIZATIONS_PATH, CREDENTIALS_PATH):
        middle.instead[path] = answer
    assert await asked_all(plugin()) == [AuthorizationUnavailable] * 3 + [ExequaturError]


async def test_the_authority_says_when_to_ask_again(plugin: Made, middle: Between) -> None:
    busy = {"error": "slow_down", "error_description": "too many requests"}
    for given, seconds in (("7", 7.0), ("100000", 300.0), ("0", 0.1), ("soon", 5.0), ("-1", 5.0), ("٣", 5.0)):
        middle.instead[TOKEN_PATH] = lambda _, given=given: JSONResponse(
            busy, 429, headers={"Retry-After": given.encode().decode("latin-1")}
        )
        with pytest.raises(AuthorizationUnavailable, match="too many requests") as raised:
            await plugin()._authority.issue_grant(GRANT)
        assert raised.value.next_retry_delay.total_seconds() == seconds
        assert not raised.value.non_retryable


OTHER_GRANTS: dict[str, dict[str, Any]] = {
    "another workflow": {"workflow_id": "order-2"},
    "another type": {"workflow_type": "Refund"},
    "another queue": {"task_queue": "elsewhere"},
    "another input": {"input": "B" * 43},
    "more uses": {"reuse": "cron"},
    "a schedule": {"reuse": "schedule", "schedule": "nightly"},
    "another namespace": {"namespace": "other"},
}


@pytest.mark.rule("remote.N9")
@pytest.mark.parametrize("other", OTHER_GRANTS.values(), ids=OTHER_GRANTS.keys())
async def test_a_grant_for_something_else_is_not_used(plugin: Made, middle: Between, other: dict[str, Any]) -> None:
    middle.asked[TOKEN_PATH] = lambda form: {
        **{name: value for name, value in form.items() if name != "audience"},
        "authorization_details": json.dumps([json.loads(form["authorization_details"])[0] | other]),
    }
    with pytest.raises(AuthorizationUnavailable, match="something else than what was asked for"):
        await plugin()._authority.issue_grant(GRANT)


OTHER_PERMITS: dict[str, dict[str, Any]] = {
    "another target": {"target": "order-2"},
    "another kind": {"kind": "update"},
    "another name": {"name": "cancel"},
    "other arguments": {"args": "B" * 43},
    "one run": {"run_id": "r1"},
    "another namespace": {"namespace": "other"},
}


@pytest.mark.rule("remote.N9")
@pytest.mark.parametrize("other", OTHER_PERMITS.values(), ids=OTHER_PERMITS.keys())
async def test_a_permit_for_something_else_is_not_used(plugin: Made, middle: Between, other: dict[str, Any]) -> None:
    middle.asked[TOKEN_PATH] = lambda form: {
        **{name: value for name, value in form.items() if name != "audience"},
        "authorization_details": json.dumps([json.loads(form["authorization_details"])[0] | other]),
    }
    with pytest.raises(AuthorizationUnavailable, match="something else than what was asked for"):
        await plugin()._authority.issue_permit(PERMIT)


@pytest.mark.rule("remote.N9")
async def test_what_is_for_another_principal_than_the_named_one_is_not_used(plugin: Made, middle: Between) -> None:
    middle.asked[TOKEN_PATH] = lambda form: form | {"subject_token": 'User::"eve"'}
    middle.answered[AUTHORIZATIONS_PATH] = lambda said: said | {"principal": 'User::"eve"'}
    ask = plugin()._authority
    for question in (
        ask.issue_grant(replace(GRANT, principal=ANA)),
        ask.issue_permit(replace(PERMIT, principal=ANA)),
        ask.authorize(replace(LEAVE, principal=ANA)),
    ):
        with pytest.raises(AuthorizationUnavailable, match="eve"):
            await question


@pytest.mark.rule("remote.N9")
async def test_what_another_key_signed_is_not_used(plugin: Made, middle: Between) -> None:
    forger = SigningKey.generate()

    def forged(kind: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda said: said | {"access_token": sign(parse(said["access_token"], kind).claims, forger).text}

    made = plugin()
    middle.answered[TOKEN_PATH] = forged(Grant)
    with pytest.raises(AuthorizationUnavailable, match="no key"):
        await made._authority.issue_grant(GRANT)
    middle.answered[TOKEN_PATH] = forged(Permit)
    with pytest.raises(AuthorizationUnavailable, match="no key"):
        await made._authority.issue_permit(PERMIT)


def key_of(authority: AuthorityProcess, role: str) -> SigningKey:
    """The authority's own key: what it signs verifies, whatever it says."""
    return SigningKey.from_pem((authority.state / "keys" / f"{role}.pem").read_bytes())


@pytest.mark.rule("remote.N9")
@pytest.mark.parametrize("claims", [{"renews": DIGEST}, {"child": True}, {"aud": "exequatur.local/default/other"}])
async def test_a_grant_for_a_run_that_has_begun_or_for_elsewhere_is_not_used(
    plugin: Made, middle: Between, running_authority: AuthorityProcess, claims: dict[str, Any]
) -> None:
    def changed(said: dict[str, Any]) -> dict[str, Any]:
        grant = parse(said["access_token"], Grant).claims
        if "child" in claims:
            held = grant.authorization.model_copy(update=claims)
            grant = grant.model_copy(update={"authorization_details": (held,)})
        else:
            grant = grant.model_copy(update=claims)
        return said | {"access_token": sign(grant, key_of(running_authority, "grant")).text}

    middle.answered[TOKEN_PATH] = changed
    with pytest.raises(AuthorizationUnavailable, match="something else than what was asked for"):
        await plugin()._authority.issue_grant(GRANT)


@pytest.mark.rule("remote.N9")
async def test_another_type_of_token_is_not_used(plugin: Made, middle: Between) -> None:
    middle.answered[TOKEN_PATH] = lambda said: (
        said | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    )
    with pytest.raises(AuthorizationUnavailable, match="another type of token"):
        await plugin()._authority.issue_grant(GRANT)


@pytest.mark.rule("remote.N9")
async def test_what_is_not_good_by_this_clock_is_not_used(plugin: Made) -> None:
    made = plugin()
    for clock in (4e9, 1.7e9):
        made._authority.clock = lambda clock=clock: clock
        for question in (made._authority.issue_grant(GRANT), made._authority.issue_permit(PERMIT)):
            with pytest.raises(AuthorizationUnavailable, match=r"ended|clocks"):
                await question


# Credentials of workers.


OTHER_CREDENTIALS: dict[str, dict[str, Any]] = {
    "fewer roles": {"roles": ["receipt"]},
    "another namespace": {"namespaces": ["other"]},
    "another queue": {"task_queues": ["elsewhere"]},
    "all activities": {"activities": ["*"]},
}


def test_a_credential_is_for_this_key_and_these_places(plugin: Made) -> None:
    order = credential_order()
    claims = parse(plugin()._authority.issue_credential(order), WorkloadCredential).claims
    assert claims.cnf.jwk == order.key
    assert claims.sub == "spiffe://exequatur.local/workers/one"
    assert (claims.namespaces, claims.task_queues, claims.activities) == (("default",), ("orders",), ("charge",))


@pytest.mark.rule("remote.N12")
@pytest.mark.parametrize("other", OTHER_CREDENTIALS.values(), ids=OTHER_CREDENTIALS.keys())
def test_a_credential_for_another_place_is_not_used(plugin: Made, middle: Between, other: dict[str, Any]) -> None:
    """The authority signs what it is asked for, so somebody between who knows the key asks for something else."""
    from exequatur.authority.api import CredentialBody
    from exequatur.authority.possession import prove

    order = credential_order()

    def changed(body: dict[str, Any]) -> dict[str, Any]:
        wanted = CredentialBody.model_validate_json(json.dumps(body | other))
        assert order.signer is not None
        proven = prove(wanted, order.signer, site="exequatur.local/default", now=__import__("time").time())
        return proven.model_dump(mode="json", exclude_none=True)

    middle.asked[CREDENTIALS_PATH] = changed
    with pytest.raises(ExequaturError, match="something else than what was asked for"):
        plugin()._authority.issue_credential(order)


@pytest.mark.rule("remote.N12")
def test_a_credential_for_another_key_or_place_or_time_or_by_another_key_is_not_used(
    plugin: Made, middle: Between
) -> None:
    made, order = plugin(), credential_order()
    other = made._authority.issue_credential(credential_order())
    middle.answered[CREDENTIALS_PATH] = lambda _: {"credential": other}
    with pytest.raises(ExequaturError, match="another key"):
        made._authority.issue_credential(order)
    forger = SigningKey.generate()
    middle.answered[CREDENTIALS_PATH] = lambda said: {
        "credential": sign(parse(said["credential"], WorkloadCredential).claims, forger).text
    }
    with pytest.raises(ExequaturError, match="no key"):
        made._authority.issue_credential(order)


@pytest.mark.rule("remote.N12")
@pytest.mark.parametrize("changes", [{"exp": 1.7e9}, {"nbf": 4e9, "exp": 4.1e9}], ids=["ended", "not begun"])
def test_a_credential_that_is_not_valid_now_is_not_used(
    plugin: Made, middle: Between, running_authority: AuthorityProcess, changes: dict[str, float]
) -> None:
    def changed(said: dict[str, Any]) -> dict[str, Any]:
        claims = parse(said["credential"], WorkloadCredential).claims.model_copy(update=changes)
        return {"credential": sign(claims, key_of(running_authority, "credential")).text}

    middle.answered[CREDENTIALS_PATH] = changed
    with pytest.raises(ExequaturError, match="not valid now; check the clocks"):
        plugin()._authority.issue_credential(credential_order())


@pytest.mark.rule("remote.N12")
def test_a_credential_of_another_site_is_not_used(
    plugin: Made, middle: Between, running_authority: AuthorityProcess
) -> None:
    def elsewhere(said: dict[str, Any]) -> dict[str, Any]:
        claims = parse(said["credential"], WorkloadCredential).claims
        changed = claims.model_copy(update={"aud": "exequatur.local/elsewhere"})
        return {"credential": sign(changed, key_of(running_authority, "credential")).text}

    middle.answered[CREDENTIALS_PATH] = elsewhere
    with pytest.raises(ExequaturError, match=r"and this is exequatur\.local/default"):
        plugin()._authority.issue_credential(credential_order())


@pytest.mark.rule("remote.N10")
@pytest.mark.parametrize(
    ("status", "error", "ended"),
    [
        (400, "invalid_request", AuthorizationUnavailable),
        (401, "invalid_token", AuthorizationUnavailable),
        (404, "not_found", AuthorizationUnavailable),
        (403, "access_denied", AuthorizationDenied),
    ],
)
async def test_only_a_denial_keeps_a_run_from_being_renewed(
    plugin: Made, middle: Between, status: int, error: str, ended: type[Exception]
) -> None:
    middle.instead[RENEWALS_PATH] = lambda _: JSONResponse({"error": error, "error_description": "so be it"}, status)
    with pytest.raises(ended, match="so be it"):
        await plugin()._authority.renew_grant(RenewalOrder("default", ("grant", "request")))


def test_who_is_no_worker_gets_no_credential(plugin: Made) -> None:
    with pytest.raises(ExequaturError, match="no worker"):
        plugin(ANA)._authority.issue_credential(credential_order())


# How a plugin is made.


def test_a_plugin_asks_nothing_before_it_is_used(folder: Path) -> None:
    plugin = AuthorizationPlugin("http://127.0.0.1:1", principal=SERVICE, state_dir=folder, settings=Settings())
    assert sorted(path.name for path in folder.iterdir()) == []
    assert "no policies yet" in (plugin.gate.policy.ended(0) or "")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "how this process identifies itself"),
        ({"principal": SERVICE, "identity": object()}, "not both"),
        ({"principal": SERVICE, "settings": Settings(), "grant_ttl": "1h"}, "not both"),
        ({"principal": SERVICE, "authority_ca": "/nonexistent"}, "authority_ca"),
    ],
)
def test_what_cannot_work_is_said_at_once(folder: Path, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        AuthorizationPlugin("https://authority.example", state_dir=folder, **given)


async def test_who_names_an_actor_without_a_credential_is_told_so(plugin: Made) -> None:
    from exequatur import acting_as
    from exequatur.gate.client.asking import acting_for

    with acting_as(ANA, through=[Principal("Agent", "bot")]):
        who = await acting_for("it starts", lambda: None, plugin()._serving.refresh)
    with pytest.raises(AuthorizationDenied, match="through="):
        await plugin()._authority.issue_grant(replace(GRANT, principal=who.principal, acting=who.acting))


async def test_leave_is_not_given_for_what_a_permit_is_for(plugin: Made) -> None:
    with pytest.raises(AuthorizationDenied):
        await plugin()._authority.authorize(replace(LEAVE, action=SIGNAL_ACTION))


def test_trust_anchors_are_fetched_when_they_are_needed(plugin: Made, middle: Between) -> None:
    made = plugin()
    made._authority.issue_credential(credential_order())
    made._authority.issue_credential(credential_order())
    assert len(middle.bodies(TRUST_PATH)) == 1
