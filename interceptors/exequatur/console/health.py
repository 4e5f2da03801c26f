"""The page ``/health``, and the same as JSON and Prometheus metrics.

Nothing here waits for a server or a disk: what is shown was seen in the background (:mod:`exequatur.console.watch`).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from exequatur.console.condition import health_of
from exequatur.console.entering import entered
from exequatur.console.metrics import exposed
from exequatur.console.parts import Console, console_of
from exequatur.console.perimeter import READY
from exequatur.console.problems import Authority
from exequatur.console.render import data, page

router = APIRouter()


@router.get("/health")
async def show(request: Request) -> Response:
    """The page."""
    await entered(request, "health")
    return page(request, "health.html.jinja", health=_plain(console_of(request)))


@router.get("/health.json")
async def tell(request: Request) -> Response:
    """The same for machines, and for the page's script."""
    await entered(request, "health")
    return data(request, _plain(console_of(request)))


@router.get(READY)
async def ready(request: Request) -> Response:
    """For whoever spreads requests over consoles; it tells nothing else, and asks nobody who they are."""
    if console_of(request).standing.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The same for Prometheus."""
    viewer = await entered(request, "health")
    accept = request.headers.get("accept", "")
    body, media_type = exposed(_plain(console_of(request)), accept, workers=not viewer.public)
    return Response(body, media_type=None, headers={"Content-Type": media_type})


def _plain(console: Console) -> dict[str, Any]:
    counts = console.decisions.counts()
    return health_of(
        console.watch.reports(),
        console.watch.services(),
        _authority(console),
        console.decisions.facts(),
        counts.minutes,
        console.clock(),
    ).plain()


def _authority(console: Console) -> Authority:
    gate, now = console.governing.gate, console.clock()
    standing = gate.revocations.feed.standing(now)
    stopped = next(((each.at, number, each.reason) for number, each in standing if each.everything), None)
    expires = gate.policy.expires
    return Authority(
        ended=gate.policy.ended(now),
        ended_at=expires if expires <= now else None,
        known_at=now - gate.revocations.age(),
        doubt=gate.revocations.doubt(),
        stopped=stopped,
        revocations=gate.revocations.version,
        digest=gate.policy.bundle.digest,
        freshness=gate.settings.revocation_freshness.total_seconds(),
    )
