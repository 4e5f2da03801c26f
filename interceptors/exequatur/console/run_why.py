"""``/lineage/why``: why an attempt was allowed, or not."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.audit.decided import Wanted
from exequatur.console import why
from exequatur.console.addressing import at, number, run_of, who_asks
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.render import page
from exequatur.console.run_pages import audit_of, waiting
from exequatur.console.runs import Progress
from exequatur.console.searching import LONGEST

router = APIRouter()


@router.get("/lineage/why")
async def explained(request: Request) -> Response:
    """Why an attempt was allowed, or not."""
    asked, console, asks = request.query_params, console_of(request), who_asks(request)
    named = await run_of(request)
    attempt, event = number(asked.get("attempt"), "attempt"), number(asked.get("event"), "event")
    activity_id = "" if viewer_of(request).public else asked.get("activity", "")  # Y3 of addressing
    if activity_id:
        run_id = named.run_id
        if run_id is None:
            run_id = (await console.temporal.described(named.namespace, named.workflow_id, None)).run_id
        place = Place(named.namespace, named.workflow_id, run_id)
    else:
        found = await audit_of(request, named)
        if isinstance(found, Progress):
            return waiting(request, found)
        place = found.place
        activity_id = next((each.activity_id for each in found.run.activities if each.event_id == event), "")
    if not 0 < len(activity_id) <= LONGEST:
        raise ProblemError(404, "No activity is named", "The address names none of this run.", "Open it from the run.")
    wanted = Wanted(place.workflow_id, activity_id, place.run_id, attempt)
    in_force = console.governing.gate.policy.bundle
    told = await console.runs.looked_up(lambda reader: why.from_evidence(reader, wanted, in_force), asks)
    if told is None:
        told = await console.runs.with_history(
            place,
            asks,
            lambda history, reader: why.from_history(history, wanted, place.namespace, reader, in_force),
        )
    return page(
        request,
        "lineage_why.html.jinja",
        at="lineage",
        run_at=at(request, place),
        workflow_id=place.workflow_id,
        event=event,
        **told,
    )
