"""``/lineage``: the list of runs.

Rules, numbered as the code marks them:

L1  A public viewer searches by nothing that names anybody.
L2  A run that Cedar does not show to this viewer is not listed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from temporalio.client import WorkflowExecution

from exequatur.console.addressing import at, namespace_of, visible
from exequatur.console.entering import entered
from exequatur.console.errors import ServerAwayError
from exequatur.console.known import Known, known_runs
from exequatur.console.parts import console_of
from exequatur.console.references import Place
from exequatur.console.render import link, page
from exequatur.console.searching import STATUSES, Search
from exequatur.console.visitors import named_as_a_visitors

router = APIRouter()

RESULTS = 50
"""Runs on a page of the list."""


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
    listed = f"{namespace}\0{search.query()}"
    known = await asyncio.to_thread(lambda: known_runs(console.decisions.since(0).rows))
    away: dict[str, str] | None = None
    found: list[dict[str, Any]] = []
    following: str | None = None
    if not who:
        try:
            token = console.runs.references.unsealed(asked.get("page", ""), listed)
            executions, token = await console.temporal.page(namespace, search.query(), RESULTS, token)
        except ServerAwayError as error:
            away = {"problem": error.text, "step": error.step}
        else:
            following = None if token is None else console.runs.references.sealed(token, listed)
            found = [
                _row(request, namespace, each, known.get((each.id, each.run_id)))
                for each in executions
                if search.takes(each.id)
            ]
    if who or away:
        those = [each for each in known.values() if not who or any(who in name for name in each.principals)]
        found = [_known(request, namespace, each) for each in those if search.takes(each.workflow_id)]
        found = sorted(found, key=lambda each: -each["started"])[: 4 * RESULTS]
    seen = [each for each in found if await visible(request, each["workflow_id"])]  # L2
    return page(
        request,
        "lineage.html.jinja",
        runs=seen,
        hidden=len(found) - len(seen),
        away=away,
        by_evidence=bool(who) or away is not None,
        asked={
            "id": search.workflow_id, "type": search.workflow_type, "status": search.status, "since": search.since,
            "who": who, "namespace": namespace,
        },
        empty_search=search == Search() and not who and not found,
        statuses=list(STATUSES),
        namespaces=list(console.temporal.namespaces),
        following=following,
        later=bool(asked.get("page")),
    )  # fmt: skip


def status_of(run: WorkflowExecution) -> str:
    """Its status in words."""
    return "unknown" if run.status is None else run.status.name.replace("_", " ").lower()


def _row(request: Request, namespace: str, run: WorkflowExecution, told: Known | None) -> dict[str, Any]:
    """A run that the server lists, as plain data."""
    return {
        "at": at(request, Place(namespace, run.id, run.run_id)),
        "workflow_id": run.id,
        "run_id": run.run_id,
        "workflow_type": run.workflow_type,
        "status": status_of(run),
        "started": run.start_time.timestamp(),
        "closed": None if run.close_time is None else run.close_time.timestamp(),
        "events": run.history_length,
        "allowed": told.allowed if told else None,
        "refused": told.refused if told else None,
        "principals": sorted(told.principals)[:3] if told else [],
        "visitors": named_as_a_visitors(run.id, run.task_queue),
    }


def _known(request: Request, namespace: str, known: Known) -> dict[str, Any]:
    return {
        "at": at(request, Place(namespace, known.workflow_id, known.run_id)),
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
        "visitors": False,
    }
