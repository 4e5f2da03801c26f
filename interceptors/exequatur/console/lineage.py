"""The page ``/lineage``: runs, and of one run who did what on whose behalf, and why it was allowed.

Rules, numbered as the code marks them:

Y1  Ids are hostile: they come as query parameters, bounded in length, and go out through :func:`link`.
Y2  Before a run is shown, Cedar is asked about this viewer and this workflow.
Y3  A public viewer names runs by reference only (U3 of :mod:`exequatur.console.runs`), searches by nothing that names
    anybody, and exports nothing.
Y4  What is exported is sent as a download that no browser renders as a page of this console.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.audit.decided import Wanted
from exequatur.audit.document import to_json
from exequatur.audit.page import render_html
from exequatur.audit.report import RunReport
from exequatur.console import comparing, graph, run_view, why
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.family import family_of
from exequatur.console.known import Known, known_runs, rows_of
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.render import data, link, page
from exequatur.console.runs import Audited, Place, Progress
from exequatur.console.searching import LONGEST, STATUSES, Search

router = APIRouter()

RESULTS = 50
"""Runs on a page of the list."""
PAIRS = 300
"""Rows of a comparison on a page."""


@router.get("/lineage")
async def runs(request: Request) -> Response:
    """The list of runs; with ``workflow``, on to that run."""
    asked = request.query_params
    if asked.get("workflow"):
        named = {name: asked.get(name) or None for name in ("namespace", "workflow", "run", "activity", "event")}
        return RedirectResponse(str(link("/lineage/run", **named)).replace("&amp;", "&"), 303)
    viewer = await entered(request, "lineage")
    console = console_of(request)
    search = Search(
        "" if viewer.public else asked.get("id", "").strip(),  # Y3
        asked.get("type", "").strip(),
        asked.get("status", ""),
        asked.get("since", "").strip(),
    )
    who = "" if viewer.public else asked.get("who", "").strip()  # Y3
    namespace = _namespace(request)
    query = search.query()
    known = await asyncio.to_thread(known_runs, console.decisions.since(0).rows)
    away: dict[str, str] | None = None
    found: list[dict[str, Any]] = []
    following: str | None = None
    if who:
        those = [each for each in known.values() if any(who in name for name in each.principals)]
        found = [_known(request, namespace, each) for each in those if search.takes(each.workflow_id)]
    else:
        try:
            listed, token = await console.temporal.page(
                namespace, query, RESULTS, console.runs.unsealed(asked.get("page", ""))
            )
        except ServerAwayError as error:
            away = {"problem": error.text, "step": error.step}
            found = [_known(request, namespace, each) for each in known.values() if search.takes(each.workflow_id)]
        else:
            following = None if token is None else console.runs.sealed(token)
            for each in filter(lambda execution: search.takes(execution.id), listed):
                told = known.get((each.id, each.run_id))
                found.append(
                    {
                        "at": _at(request, Place(namespace, each.id, each.run_id)),
                        "workflow_id": each.id,
                        "run_id": each.run_id,
                        "workflow_type": each.workflow_type,
                        "status": "unknown" if each.status is None else each.status.name.replace("_", " ").lower(),
                        "started": each.start_time.timestamp(),
                        "closed": None if each.close_time is None else each.close_time.timestamp(),
                        "events": each.history_length,
                        "allowed": told.allowed if told else None,
                        "refused": told.refused if told else None,
                        "principals": sorted(told.principals)[:3] if told else [],
                    }
                )
    if who or away:
        found = sorted(found, key=lambda each: -each["started"])[: 4 * RESULTS]
    return page(
        request,
        "lineage.html.jinja",
        runs=found,
        away=away,
        by_evidence=bool(who) or away is not None,
        asked={
            "id": search.workflow_id, "type": search.workflow_type, "status": search.status, "since": search.since,
            "who": who, "namespace": namespace,
        },
        empty_search=search == Search() and not who,
        statuses=list(STATUSES),
        namespaces=list(console.temporal.namespaces),
        following=following,
        later=bool(asked.get("page")),
    )  # fmt: skip


@router.get("/lineage/run")
async def run(request: Request) -> Response:
    """One run."""
    asked = request.query_params
    tab = asked.get("tab", "timeline")
    if tab not in run_view.TABS:
        raise ProblemError(404, "There is no such view", "A run has others.", "Choose one of the tabs of a run.")
    place = await _place(request)
    try:
        found = await _found(request, place)
    except ServerAwayError as error:
        return await _away(request, place, error)
    if isinstance(found, Progress):
        return _waiting(request, found)
    if place[2] is None and not viewer_of(request).public:
        more = ("tab", "event", "activity", "show", "type", "first")
        query = {**_at(request, found.place), **{name: asked[name] for name in more if name in asked}}
        return RedirectResponse(str(link("/lineage/run", **query)).replace("&amp;", "&"), 303)
    values = await _values(request, found, tab)
    return page(request, f"lineage_{tab}.html.jinja", at="lineage", **_common(request, found, tab), **values)


@router.get("/lineage/state.json")
async def state(request: Request) -> Response:
    """How far the audit of a run is."""
    found = await _found(request, await _place(request))
    if isinstance(found, Progress):
        return data(request, {"state": "auditing", **_progress(found)})
    return data(request, {"state": "audited", "at": found.at})


@router.get("/lineage/graph.json")
async def drawing(request: Request) -> Response:
    """The graph of a run."""
    found = await _audited(request)
    drawn = await asyncio.to_thread(graph.graph_of, found.run)
    shown, at = console_of(request).temporal.namespaces, partial(_at, request)
    for node in drawn["nodes"]:
        node["href"] = None
        if node["link"] is not None:
            node["href"] = run_view.linked(found, found.run.links[node["link"]], at, shown)
        elif node["first"] is not None:
            node["href"] = {**at(found.place), "event": node["first"]}
    return data(request, drawn)


@router.get("/lineage/why")
async def explained(request: Request) -> Response:
    """Why an attempt was allowed, or not."""
    asked = request.query_params
    namespace, workflow_id, run_id = await _place(request)
    attempt = _number(asked.get("attempt"), "attempt")
    if run_id is None:
        run_id = (await console_of(request).temporal.described(namespace, workflow_id, None)).run_id
    place = Place(namespace, workflow_id, run_id)
    activity_id = _activity(request, place)
    wanted = Wanted(workflow_id, activity_id, run_id, attempt)
    console = console_of(request)
    in_force = console.governing.gate.policy.bundle
    told = await console.runs.looked_up(lambda reader: why.from_evidence(reader, wanted, in_force))
    if told is None:
        history = await console.temporal.history(namespace, workflow_id, run_id)
        told = await console.runs.looked_up(
            lambda reader: why.from_history(history, wanted, namespace, reader, in_force)
        )
    return page(
        request,
        "lineage_why.html.jinja",
        at="lineage",
        run_at=_at(request, place),
        workflow_id=workflow_id,
        event=_number(asked.get("event"), "event"),
        **told,
    )


@router.get("/lineage/compare")
async def compare(request: Request) -> Response:
    """Two runs side by side."""
    asked = request.query_params
    left = await _found(request, await _place(request))
    if isinstance(left, Progress):
        return _waiting(request, left)
    other = asked.get("other_ref", "") if viewer_of(request).public else asked.get("other", "").strip()
    if not other:
        return page(
            request, "lineage_compare.html.jinja", at="lineage", **_common(request, left, "compare"), right=None
        )
    right = await _found(request, await _place(request, "other_", "other"))
    if isinstance(right, Progress):
        return _waiting(request, right)
    pairs = await asyncio.to_thread(comparing.compared, left.run, right.run)
    everything = asked.get("all") == "1"
    shown = [each for each in pairs if everything or not each.same]
    first = max(_number(asked.get("first"), "first") or 1, 1)
    return page(
        request,
        "lineage_compare.html.jinja",
        at="lineage",
        **_common(request, left, "compare"),
        right={
            "at": _at(request, right.place),
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
        both_at={
            **_at(request, left.place),
            **{
                "other" if name == "workflow" else f"other_{name}": value
                for name, value in _at(request, right.place).items()
            },
        },
    )  # fmt: skip


@router.get("/lineage/report.html")
async def report_page(request: Request) -> Response:
    """The audit's HTML report as a download."""
    found = await _exported(request)
    text = await asyncio.to_thread(render_html, found.report)
    return _download(text.encode("utf-8", "replace"), "text/html; charset=utf-8", found.run, "html")


@router.get("/lineage/report.json")
async def report_json(request: Request) -> Response:
    """The audit's report as JSON."""
    found = await _exported(request)
    text = await asyncio.to_thread(to_json, found.report)
    return _download(text.encode("ascii", "replace"), "application/json", found.run, "report.json")


@router.get("/lineage/evidence.json")
async def evidence(request: Request) -> Response:
    """The evidence bundle of a run."""
    found = await _exported(request)
    body = await console_of(request).runs.document(found.place)
    return _download(body, "application/json", found.run, "evidence.json")


async def _place(request: Request, prefix: str = "", workflow: str = "workflow") -> tuple[str, str, str | None]:
    """Which run is meant, after it was asked whether this viewer may see it."""
    asked = request.query_params
    if viewer_of(request).public:  # [Y3]
        if not (reference := asked.get(f"{prefix}ref", "")):
            raise ProblemError(
                404, "The public view shows runs by its own links only", "Ids are not taken.", "Open the list of runs."
            )
        place = console_of(request).runs.referred(reference)
        named: tuple[str, str, str | None] = (place.namespace, place.workflow_id, place.run_id)
    else:
        workflow_id, run_id = asked.get(workflow, ""), asked.get(f"{prefix}run", "") or None
        if not 0 < len(workflow_id) <= LONGEST or len(run_id or "") > LONGEST:  # [Y1]
            raise ProblemError(
                400, "No run is named", "The address names none, or with more than 1,000 characters.", "Search for it."
            )
        named = (_namespace(request, prefix), workflow_id, run_id)
    await entered(request, "lineage", named[1])  # [Y2]
    return named


def _namespace(request: Request, prefix: str = "") -> str:
    shown = console_of(request).temporal.namespaces
    name = request.query_params.get(f"{prefix}namespace") or shown[0]
    if name not in shown:
        raise ProblemError(
            404, "That namespace is not shown here", "The console shows others.", "Start it with --namespace."
        )
    return name


async def _found(request: Request, place: tuple[str, str, str | None]) -> Audited | Progress:
    again = request.query_params.get("again") == "1" and request.url.path == "/lineage/run"
    return await console_of(request).runs.audited(*place, again=again)


async def _audited(request: Request) -> Audited:
    """The run, which somebody looks at already."""
    found = await _found(request, await _place(request))
    if isinstance(found, Progress):
        raise ProblemError(
            503, "The run is being audited", f"{found.events:,} of {found.total:,} events were read.", "Try again.",
            {"Retry-After": "2"},
        )  # fmt: skip
    return found


async def _exported(request: Request) -> Audited:
    if viewer_of(request).public:  # [Y3]
        await entered(request, "lineage")
        raise ProblemError(
            403, "The public view exports nothing", "Exports name people.", "Ask for an export at the console itself."
        )
    return await _audited(request)


def _at(request: Request, place: Place) -> dict[str, str]:
    """What names a run in an address of this viewer."""
    if viewer_of(request).public:  # [Y3]
        return {"ref": console_of(request).runs.reference(place)}
    return {"namespace": place.namespace, "workflow": place.workflow_id, "run": place.run_id}


def _activity(request: Request, place: Place) -> str:
    """The activity that is asked about: by its id, or by the event that scheduled it."""
    asked = request.query_params
    kept = console_of(request).runs.kept(place)
    event = _number(asked.get("event"), "event")
    if event is not None and kept is not None:
        found = next((each.activity_id for each in kept.run.activities if each.event_id == event), None)
        if found is not None:
            return found
    name = "" if viewer_of(request).public else asked.get("activity", "")  # Y3
    if not name or len(name) > LONGEST:
        raise ProblemError(404, "No activity is named", "The address names none of this run.", "Open it from the run.")
    return name


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ProblemError(400, "The address cannot be read", f"{name} is no number.", "Go back.")
    return int(text)


def _known(request: Request, namespace: str, known: Known) -> dict[str, Any]:
    return {
        "at": _at(request, Place(namespace, known.workflow_id, known.run_id)),
        "workflow_id": known.workflow_id,
        "run_id": known.run_id,
        "workflow_type": "",
        "status": "",
        "started": known.first,
        "closed": None,
        "events": None,
        "allowed": known.allowed,
        "refused": known.refused,
        "principals": sorted(known.principals)[:3],
    }


def _progress(found: Progress) -> dict[str, Any]:
    return {"events": found.events, "total": found.total, "since": found.since, "doing": found.step}


def _waiting(request: Request, found: Progress) -> Response:
    return page(
        request,
        "lineage_wait.html.jinja",
        status=202,
        at="lineage",
        run_at=_at(request, found.place),
        workflow_id=found.place.workflow_id,
        **_progress(found),
    )


async def _away(request: Request, place: tuple[str, str, str | None], error: ServerAwayError) -> Response:
    """What the evidence tells of a run while the server does not answer."""
    namespace, workflow_id, run_id = place
    rows = await asyncio.to_thread(rows_of, console_of(request).decisions.since(0).rows, workflow_id, run_id)
    return page(
        request,
        "lineage_away.html.jinja",
        status=error.status,
        at="lineage",
        workflow_id=workflow_id,
        run_id=run_id,
        namespace=namespace,
        problem=error.text,
        step=error.step,
        rows=rows,
    )


def _common(request: Request, found: Audited, tab: str) -> dict[str, Any]:
    console = console_of(request)
    ui = None if viewer_of(request).public else console.config.temporal_ui
    return run_view.beginning_of(found, tab, partial(_at, request), ui, console.temporal.namespaces)


async def _values(request: Request, found: Audited, tab: str) -> dict[str, Any]:
    asked, run = request.query_params, found.run
    match tab:
        case "timeline":
            first = _number(asked.get("first"), "first") or 1
            event = _event(run, asked.get("event"), "" if viewer_of(request).public else asked.get("activity", ""))
            show, kind = asked.get("show", "all"), asked.get("type", "")
            return await asyncio.to_thread(run_view.timeline_of, run, show, kind, first, event)
        case "graph":
            drawn = await asyncio.to_thread(graph.graph_of, run)
            return {"told": drawn["words"], "nodes": drawn["nodes"]}
        case "messages":
            return run_view.traffic_of(run)
        case "findings":
            return run_view.findings_of(run)
    console = console_of(request)
    family = await family_of(console.runs, found, console.temporal.namespaces)
    return run_view.family_data(family, partial(_at, request))


def _event(run: RunReport, event: str | None, activity: str) -> int | None:
    found = _number(event, "event")
    if found is None and activity:
        found = next((each.event_id for each in run.activities if each.activity_id == activity), None)
    return found


def _download(body: bytes, kind: str, run: RunReport, ending: str) -> Response:
    """Y4."""
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "-_") else "-" for each in run.workflow_id)
    headers = {
        "Content-Disposition": f'attachment; filename="{safe[:60] or "run"}-{run.run_id[:8]}.{ending}"',
    }
    return Response(body, media_type=kind, headers=headers)
