"""``/lineage``: the list of runs.

Rules, numbered as the code marks them:

L1  A public viewer searches by nothing that names anybody.
L2  A run that Cedar does not show to this viewer is not listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from temporalio.client import WorkflowExecution

from exequatur.console.addressing import at, namespace_of, visible
from exequatur.console.entering import entered
from exequatur.console.errors import ServerAwayError, wants_json
from exequatur.console.known import Known, Told
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.render import link, page
from exequatur.console.searching import STATUSES, Search, SearchError, parts
from exequatur.console.visitors import named_as_a_visitors

router = APIRouter()

RESULTS = 50
"""Runs on a page of the list."""
MOST_IDS = 200
"""Workflows, and runs of them, that the server is asked about for one principal."""


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
        "" if viewer.public else asked.get("id", "").strip(),  # L1
        asked.get("type", "").strip(),
        asked.get("status", ""),
        asked.get("since", "").strip(),
    )
    who = "" if viewer.public else asked.get("who", "").strip()  # L1
    namespace = namespace_of(request, asked)
    try:
        query = search.query()
    except SearchError as error:
        if wants_json(request):
            raise
        return _listed(request, search, who, namespace, Found(), error)
    told = await asyncio.to_thread(lambda: Told(console.decisions.since(0).rows))
    try:
        if who:
            found = await _of(request, namespace, search, who, told)
        else:
            listed = f"{namespace}\0{query}"
            token = console.runs.references.unsealed(asked.get("page", ""), listed)
            executions, token = await console.temporal.page(namespace, query, RESULTS, token)
            rows = [_row(request, namespace, each, told) for each in executions if search.takes(each.id)]
            found = Found(rows, None if token is None else console.runs.references.sealed(token, listed))
    except ServerAwayError as error:
        rows = [_known(request, namespace, each, told) for each in told.runs.values() if search.takes(each.workflow_id)]
        rows = [each for each in rows if _for(each, who)]
        found = Found(_newest(rows), away={"problem": error.text, "step": error.step})
    return await _shown(request, search, who, namespace, found)


@dataclass(frozen=True)
class Found:
    """What was found.

    Args:
        rows: The runs.
        following: What the next page is asked for with.
        away: Why the server could not be asked.
        unlisted: Runs that the evidence names, and the server does not.
        cut: Whether there may be more than were looked for.
        hidden: Runs that the viewer may not see.
    """

    rows: Sequence[dict[str, Any]] = ()
    following: str | None = None
    away: dict[str, str] | None = None
    unlisted: int = 0
    cut: bool = False
    hidden: int = 0


async def _of(request: Request, namespace: str, search: Search, who: str, told: Told) -> Found:
    """Runs on behalf of a principal: the evidence names the workflows, and the server knows the rest of them."""
    temporal = console_of(request).temporal
    ids = [each for each in told.workflows(who) if search.takes(each)]
    cut = len(ids) > MOST_IDS
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts(ids[:MOST_IDS]):
        executions, token = await temporal.page(namespace, search.query(part), MOST_IDS, None)
        cut = cut or token is not None
        rows |= {(each.id, each.run_id): _row(request, namespace, each, told) for each in executions}
    mine = [each for each in rows.values() if _for(each, who)]
    named = [key for key, each in told.runs.items() if key[0] in ids and any(who in name for name in each.principals)]
    everything = not (search.workflow_type or search.status or search.since or cut)
    unlisted = sum(key not in rows for key in named) if everything else 0
    return Found(_newest(mine), unlisted=unlisted, cut=cut or len(mine) > MOST_IDS)


def _for(row: Mapping[str, Any], who: str) -> bool:
    return not who or any(who in each for each in row["principals"])


def _newest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda each: -each["started"])[:MOST_IDS]


async def _shown(request: Request, search: Search, who: str, namespace: str, found: Found) -> Response:
    seen = [each for each in found.rows if await visible(request, each["workflow_id"])]  # L2
    return _listed(request, search, who, namespace, replace(found, rows=seen, hidden=len(found.rows) - len(seen)))


def _listed(
    request: Request, search: Search, who: str, namespace: str, found: Found, wrong: SearchError | None = None
) -> Response:
    """The page with what may be shown of what was found."""
    public = viewer_of(request).public
    return page(
        request,
        "lineage.html.jinja",
        status=200 if wrong is None else 400,
        runs=list(found.rows),
        hidden=found.hidden,
        away=found.away,
        unlisted=found.unlisted,
        cut=found.cut,
        empty_search=search == Search() and not who and not found.rows,
        namespaces=[] if public else list(console_of(request).temporal.namespaces),
        following=found.following,
        later=bool(request.query_params.get("page")),
        # What a viewer typed is their own.
        own={
            "asked": {
                "id": search.workflow_id, "type": search.workflow_type, "status": search.status, "since": search.since,
                "who": who, "namespace": "" if public else namespace,
            },
            "statuses": STATUSES,
            "wrong": {} if wrong is None else {wrong.name: wrong.text},
        },
    )  # fmt: skip


def status_of(run: WorkflowExecution) -> str:
    """Its status in words."""
    return "unknown" if run.status is None else run.status.name.replace("_", " ").lower()


def _row(request: Request, namespace: str, run: WorkflowExecution, told: Told) -> dict[str, Any]:
    """A run that the server lists, as plain data."""
    started = run.start_time.timestamp()
    return {
        "at": at(request, Place(namespace, run.id, run.run_id)),
        "workflow_id": run.id,
        "run_id": run.run_id,
        "workflow_type": run.workflow_type,
        "status": status_of(run),
        "started": started,
        "closed": None if run.close_time is None else run.close_time.timestamp(),
        "events": run.history_length,
        **_decided(told.runs.get((run.id, run.run_id))),
        "principals": told.principals(run.id, run.run_id, started),
        "visitors": named_as_a_visitors(run.id, run.task_queue),
    }


def _known(request: Request, namespace: str, known: Known, told: Told) -> dict[str, Any]:
    return {
        "at": at(request, Place(namespace, known.workflow_id, known.run_id)),
        "workflow_id": known.workflow_id,
        "run_id": known.run_id,
        "workflow_type": "",
        "status": "",
        "started": known.first,
        "closed": None,
        "events": None,
        **_decided(known),
        "principals": told.principals(known.workflow_id, known.run_id, known.first),
        "visitors": False,
    }


def _decided(known: Known | None) -> dict[str, int | None]:
    names = ("allowed", "denied", "refused", "observed")
    return {name: None if known is None else getattr(known, name) for name in names}
