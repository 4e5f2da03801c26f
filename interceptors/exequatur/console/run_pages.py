"""``/lineage/run``: the views of one run, and what its pages ask for while it is audited."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.audit.report import RunReport
from exequatur.console import graph, run_view
from exequatur.console.addressing import Named, at, number, run_of, visible, who_asks
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.family import family_of
from exequatur.console.known import rows_of
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.render import data, link, page
from exequatur.console.runs import Audited, Progress

router = APIRouter()


@router.get("/lineage/run")
async def run(request: Request) -> Response:
    """One run."""
    asked = request.query_params
    tab = asked.get("tab", "timeline")
    if tab not in run_view.TABS:
        raise ProblemError(404, "There is no such view", "A run has others.", "Choose one of the tabs of a run.")
    named = await run_of(request)
    again = asked.get("again") == "1"
    try:
        found = await audit_of(request, named, again=again)
    except ServerAwayError as error:
        return await _away(request, named, error)
    if again or (named.run_id is None and not viewer_of(request).public):
        # Under an address that names the run, and that does not begin an audit each time it is loaded.
        more = {name: asked[name] for name in ("tab", "event", "activity", "show", "type", "first") if name in asked}
        address = link("/lineage/run", **at(request, found.place), **more)
        return RedirectResponse(str(address).replace("&amp;", "&"), 303)
    if isinstance(found, Progress):
        return waiting(request, found)
    values = await _values(request, found, tab)
    return page(request, f"lineage_{tab}.html.jinja", at="lineage", **await beginning(request, found, tab), **values)


@router.get("/lineage/state.json")
async def state(request: Request) -> Response:
    """How far the audit of a run is."""
    found = await audit_of(request, await run_of(request))
    if isinstance(found, Progress):
        return data(request, {"state": "auditing", **_progress(found)})
    return data(request, {"state": "audited", "at": found.at})


@router.post("/lineage/stop")
async def stop(request: Request) -> Response:
    """Wait for an audit no more."""
    named = await run_of(request)
    if named.run_id is not None:
        place = Place(named.namespace, named.workflow_id, named.run_id)
        console_of(request).runs.give_up(place, who_asks(request))
    return RedirectResponse("/lineage", 303)


@router.get("/lineage/graph.json")
async def drawing(request: Request) -> Response:
    """The graph of a run."""
    found = await finished(request)
    drawn = await asyncio.to_thread(graph.graph_of, found.run)
    shown, named_by = console_of(request).temporal.namespaces, partial(at, request)
    for node in drawn["nodes"]:
        node["href"] = None
        if node["link"] is not None:
            node["href"] = run_view.linked(found, found.run.links[node["link"]], named_by, shown)
        elif node["first"] is not None:
            node["href"] = {**named_by(found.place), "event": node["first"]}
    return data(request, drawn)


async def audit_of(request: Request, named: Named, *, again: bool = False) -> Audited | Progress:
    """The audit of a run, or how far it is."""
    asks, wait = who_asks(request), 0.0 if again else None
    runs = console_of(request).runs
    return await runs.audited(named.namespace, named.workflow_id, named.run_id, who=asks, again=again, wait=wait)


async def finished(request: Request) -> Audited:
    """The audit of the run that the address names, which somebody looks at already.

    Raises:
        ProblemError: It is not finished.
    """
    found = await audit_of(request, await run_of(request))
    if isinstance(found, Progress):
        raise ProblemError(
            503, "The run is being audited", f"{found.events:,} of {found.total:,} events were read.", "Try again.",
            {"Retry-After": "2"},
        )  # fmt: skip
    return found


def waiting(request: Request, found: Progress) -> Response:
    """The page that says how far an audit is."""
    return page(
        request,
        "lineage_wait.html.jinja",
        status=202,
        at="lineage",
        run_at=at(request, found.place),
        workflow_id=found.place.workflow_id,
        **_progress(found),
    )


async def beginning(request: Request, found: Audited, tab: str) -> dict[str, Any]:
    """What every view of a run begins with."""
    console = console_of(request)
    ui = None if viewer_of(request).public else console.config.temporal_ui
    shown, named_by = console.temporal.namespaces, partial(at, request)
    told = await asyncio.to_thread(run_view.beginning_of, found, tab, named_by, ui, shown)
    return {**told, "converter": bool(console.config.converter)}


def _progress(found: Progress) -> dict[str, Any]:
    read = f"{found.events:,} of {found.total:,} events read; {found.step}"
    return {"events": found.events, "total": found.total, "since": found.since, "label": read}


async def _away(request: Request, named: Named, error: ServerAwayError) -> Response:
    """What the evidence tells of a run while the server does not answer."""
    decisions = console_of(request).decisions
    rows = await asyncio.to_thread(lambda: rows_of(decisions.since(0).rows, named.workflow_id, named.run_id))
    return page(
        request,
        "lineage_away.html.jinja",
        status=error.status,
        at="lineage",
        workflow_id=named.workflow_id,
        run_id=named.run_id,
        namespace=named.namespace,
        problem=error.text,
        step=error.step,
        rows=rows,
    )


async def _values(request: Request, found: Audited, tab: str) -> dict[str, Any]:
    asked, run = request.query_params, found.run
    match tab:
        case "timeline":
            first = number(asked.get("first"), "first") or 1
            event = _event(run, asked.get("event"), "" if viewer_of(request).public else asked.get("activity", ""))
            show, kind = asked.get("show", "all"), asked.get("type", "")
            return await asyncio.to_thread(run_view.timeline_of, run, show, kind, first, event)
        case "graph":
            drawn = await asyncio.to_thread(graph.graph_of, run)
            return {"told": drawn["words"], "nodes": drawn["nodes"]}
        case "messages":
            return await asyncio.to_thread(run_view.traffic_of, run)
        case "findings":
            return await asyncio.to_thread(run_view.findings_of, run)
    console = console_of(request)
    may_see = partial(visible, request)
    family = await family_of(console.runs, found, console.temporal.namespaces, who_asks(request), may_see)
    return run_view.family_data(family, partial(at, request))


def _event(run: RunReport, event: str | None, activity: str) -> int | None:
    found = number(event, "event")
    if found is None and activity:
        found = next((each.event_id for each in run.activities if each.activity_id == activity), None)
    return found
