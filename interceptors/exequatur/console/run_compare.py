"""``/lineage/compare``: two runs side by side, and which ones can be compared."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.console import comparing
from exequatur.console.addressing import at, number, run_of, visible
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.render import page
from exequatur.console.run_list import status_of
from exequatur.console.run_pages import audit_of, beginning, waiting
from exequatur.console.runs import Audited, Progress
from exequatur.console.searching import Search

router = APIRouter()

PAIRS = 300
"""Rows of a comparison on a page."""
OFFERED = 20
"""Runs that are offered."""
_OTHER = {"workflow": "other", "run": "other_run", "namespace": "other_namespace", "ref": "other_ref"}
"""What names the second run."""


@router.get("/lineage/compare")
async def compare(request: Request) -> Response:
    """Two runs side by side; with one, those that it can be compared with."""
    asked = request.query_params
    left = await audit_of(request, await run_of(request))
    if isinstance(left, Progress):
        return waiting(request, left)
    other = {name: asked.get(given, "") for name, given in _OTHER.items()}
    told = await beginning(request, left, "compare")
    if not other["ref" if viewer_of(request).public else "workflow"]:
        offered = await _offered(request, left)
        return page(request, "lineage_compare.html.jinja", at="lineage", **told, right=None, offered=offered)
    right = await audit_of(request, await run_of(request, other))
    if isinstance(right, Progress):
        return waiting(request, right)
    pairs = await asyncio.to_thread(comparing.compared, left.run, right.run)
    everything = asked.get("all") == "1"
    shown = [each for each in pairs if everything or not each.same]
    first = max(number(asked.get("first"), "first") or 1, 1)
    return page(
        request,
        "lineage_compare.html.jinja",
        at="lineage",
        **told,
        right={
            "at": at(request, right.place),
            "workflow_id": right.run.workflow_id,
            "run_id": right.run.run_id,
            "workflow_type": right.run.workflow_type,
        },
        differences=comparing.run_differences(left.run, right.run),
        pairs=[comparing.pair_data(each) for each in shown[first - 1 : first - 1 + PAIRS]],
        total=len(pairs),
        differing=sum(not each.same for each in pairs),
        everything=everything,
        first=first,
        after=first + PAIRS if first + PAIRS <= len(shown) else None,
        before=max(1, first - PAIRS) if first > 1 else None,
        both_at={**at(request, left.place), **_other_at(request, right.place)},
    )


async def _offered(request: Request, left: Audited) -> list[dict[str, Any]]:
    """The runs that are next to it, then the newest of its type."""
    console, here = console_of(request), left.place
    found: list[dict[str, Any]] = []
    for link in left.run.links[:OFFERED]:
        place = Place(link.namespace or here.namespace, link.workflow_id, link.run_id or "")
        if place.run_id and place.namespace in console.temporal.namespaces:
            found.append(_offer(request, place, link.relation))
    try:
        query = Search(workflow_type=left.run.workflow_type).query()
        newest, _ = await console.temporal.page(here.namespace, query, OFFERED + 1, None)
    except ProblemError:  # what is offered is a help only
        newest = []
    known = {here.run_id, *(each["run_id"] for each in found)}
    for run in newest:
        if run.run_id not in known:
            status, started = status_of(run), run.start_time.timestamp()
            found.append(_offer(request, Place(here.namespace, run.id, run.run_id), "same type", status, started))
    return [each for each in found if await visible(request, each["workflow_id"])][:OFFERED]


def _offer(
    request: Request, place: Place, relation: str, status: str = "", started: float | None = None
) -> dict[str, Any]:
    return {
        "at": _other_at(request, place),
        "workflow_id": place.workflow_id,
        "run_id": place.run_id,
        "relation": relation,
        "status": status,
        "started": started,
    }


def _other_at(request: Request, place: Place) -> dict[str, str]:
    return {_OTHER[name]: value for name, value in at(request, place).items()}
