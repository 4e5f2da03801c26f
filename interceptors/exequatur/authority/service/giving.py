"""The paths where something is handed out: trust anchors, bundles, the revocation feed, health and metadata."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from exequatur.authority import api
from exequatur.authority.service.answers import Refused, unavailable
from exequatur.authority.service.bundles import Part
from exequatur.authority.service.requests import Route, caller_of, elsewhere, problems, service_of, shown, told
from exequatur.authority.service.revoking import page_body
from exequatur.statements.models import MAX_SEQUENCE

BRIEFLY = 1.0
"""Seconds that who follows the feed waits where many wait already. None is sent away: a worker without it stops."""
_KEYS = "application/jwk-set+json"
_ANCHORS: dict[int | str, dict[str, Any]] = {200: {"content": {_KEYS: {"schema": {"type": "object"}}}}, **problems()}
_BYTES: dict[str, Any] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: _BYTES,
    206: {"description": "The rest of it", **_BYTES},
    304: {"description": "It is the one that is known"},
    416: {"description": "It is not that long"},
    **problems(400, 401, 404, 503),
}
_Tag = Annotated[str | None, Header(max_length=1000)]

router = APIRouter(route_class=Route)


@router.get(
    api.TRUST_PATH, operation_id="trust", summary="The trust anchors", response_class=Response, responses=_ANCHORS
)
@router.get(
    api.JWKS_PATH, operation_id="jwks", summary="The same, as a JWK set", response_class=Response, responses=_ANCHORS
)
async def _trust(request: Request) -> Response:
    anchors = service_of(request).authority.state.trust.to_jwks()
    return Response(anchors, media_type=_KEYS, headers={"Cache-Control": "no-cache"})


@router.get(
    f"{api.BUNDLES_PATH}/{{file}}",
    operation_id="bundle",
    summary="A released bundle file",
    response_class=Response,
    responses=_FILE,
)
async def _bundle(
    request: Request,
    file: Annotated[str, Path(max_length=200)],
    if_none_match: _Tag = None,
    range: _Tag = None,
    if_range: _Tag = None,
) -> Response:
    service = service_of(request)
    given = shown(request)

    async def work() -> Part:
        if service.config.bundles_for == "callers":
            caller_of(request, given)
        return service.bundles.get(file, known=if_none_match, wanted=range, if_range=if_range)

    part = await elsewhere(request, work)
    return Response(part.data, part.status, headers=part.headers, media_type="application/octet-stream")


@router.get(
    api.REVOCATIONS_PATH,
    operation_id="follow",
    summary="The revocation feed after a version, once there is something new",
    response_model=api.FeedPage,
    responses=problems(400, 401, 404, 503),
)
async def _follow(
    request: Request,
    after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0,
    wait: Annotated[float, Query(ge=0, le=api.MAX_WAIT, allow_inf_nan=False)] = 0.0,
) -> Response:
    service = service_of(request)
    given = shown(request)
    publisher = service.gate.revocations.publisher
    if publisher is None:
        raise Refused(404, "not_found", "This authority keeps no revocation feed")

    async def known() -> None:
        caller_of(request, given)  # H34

    await elsewhere(request, known)
    crowded = service.polls.locked()
    async with contextlib.nullcontext() if crowded else service.polls:
        waits = min(wait, BRIEFLY) if crowded else wait
        page = await publisher.next_page(after, waits, ended=lambda: service.health.stopping)
    return told(page_body(page))


@router.get(api.LIVE_PATH, operation_id="live", summary="Whether the process runs")
async def _live() -> dict[str, str]:
    return {"status": "live"}


@router.get(api.READY_PATH, operation_id="ready", summary="Whether it can decide", responses=problems(503))
async def _ready(request: Request) -> dict[str, str]:
    service = service_of(request)
    if why := await service.health.look(service.offload):
        raise unavailable(why)
    return {"status": "ready"}


@router.get(
    api.OAUTH_METADATA_PATH, operation_id="oauth_metadata", summary="What there is (RFC 8414)", responses=problems()
)
async def _oauth_metadata(request: Request) -> dict[str, Any]:
    url = service_of(request).url
    return {
        "issuer": url,
        "token_endpoint": url + api.TOKEN_PATH,
        "jwks_uri": url + api.JWKS_PATH,
        "grant_types_supported": [api.EXCHANGE],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_details_types_supported": ["temporal_workflow", "temporal_message"],
    }


@router.get(
    api.AUTHZEN_METADATA_PATH, operation_id="authzen_metadata", summary="What there is (AuthZEN)", responses=problems()
)
async def _authzen_metadata(request: Request) -> dict[str, Any]:
    url = service_of(request).url
    return {
        "policy_decision_point": url,
        "access_evaluation_endpoint": url + api.EVALUATION_PATH,
        "access_evaluations_endpoint": url + api.EVALUATIONS_PATH,
    }
