"""The paths where something is decided."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from exequatur.authority import api
from exequatur.authority.service.answers import invalid
from exequatur.authority.service.callers import Shown
from exequatur.authority.service.enrolment import enrol
from exequatur.authority.service.evaluation import evaluate, evaluate_all
from exequatur.authority.service.exchange import PARAMETERS, issue, read_exchange
from exequatur.authority.service.orders import approve, give_leave, renew
from exequatur.authority.service.requests import (
    Route,
    certificate_of,
    decided,
    order,
    require,
    require_json,
    service_of,
)
from exequatur.authority.service.revoking import revoke
from exequatur.errors import IdentityError

FORM = "application/x-www-form-urlencoded"
_EXCHANGE = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in PARAMETERS},
    "required": ["grant_type", "subject_token", "subject_token_type", "authorization_details"],
    "additionalProperties": False,
}

router = APIRouter(route_class=Route)
_json = APIRouter(route_class=Route, dependencies=[Depends(require_json)])


@router.post(
    api.TOKEN_PATH,
    **order("exchange", api.Exchanged, "Exchange a credential for a grant or a permit (RFC 8693)"),
    openapi_extra={"requestBody": {"required": True, "content": {FORM: {"schema": _EXCHANGE}}}},
)
async def _exchange(request: Request) -> Response:
    require(request, FORM)
    wanted = read_exchange(await request.body(), service_of(request).settings)
    actor = wanted.actor
    shown = Shown(actor or wanted.subject, wanted.subject if actor else None, certificate_of(request))
    try:
        return await decided(request, lambda service, caller: issue(service.authority, wanted, caller), shown)
    except IdentityError as err:  # RFC 8693, section 2.2.2
        raise invalid(str(err)) from None


@_json.post(
    api.AUTHORIZATIONS_PATH, **order("authorize", api.Authorized, "Leave for what goes straight to the Temporal server")
)
async def _authorize(request: Request, body: api.AuthorizationBody) -> Response:
    return await decided(request, lambda service, caller: give_leave(service.authority, body, caller))


@_json.post(api.RENEWALS_PATH, **order("renew", api.Renewed, "A grant that replaces an ended one"))
async def _renew(request: Request, body: api.RenewalBody) -> Response:
    return await decided(request, lambda service, _: renew(service.authority, body))


@_json.post(api.APPROVALS_PATH, **order("approve", api.Approved, "Sign a person's decision about a challenge"))
async def _approve(request: Request, body: api.ApprovalBody) -> Response:
    return await decided(request, lambda service, caller: approve(service.authority, body, caller))


@_json.post(api.CREDENTIALS_PATH, **order("enrol", api.Credentialed, "A workload credential for a worker's own key"))
async def _enrol(request: Request, body: api.CredentialBody) -> Response:
    return await decided(request, lambda service, caller: enrol(service, body, caller))


@_json.post(api.REVOCATIONS_PATH, **order("revoke", api.Revoked, "Revoke something, or lift a revocation", more=(404,)))
async def _revoke(request: Request, body: api.RevocationBody) -> Response:
    return await decided(request, lambda service, caller: revoke(service.asking, body, caller))


@_json.post(api.EVALUATION_PATH, **order("evaluate", api.Decision, "What the policies say of one question (AuthZEN)"))
async def _evaluate(request: Request, body: api.Evaluation) -> Response:
    return await decided(request, lambda service, caller: evaluate(service.asking, body, caller))


@_json.post(
    api.EVALUATIONS_PATH,
    **order("evaluate_all", api.Decisions, "What the policies say of several questions (AuthZEN)"),
)
async def _evaluate_all(request: Request, body: api.Evaluations) -> Response:
    return await decided(request, lambda service, caller: evaluate_all(service.asking, body, caller))


router.include_router(_json)
