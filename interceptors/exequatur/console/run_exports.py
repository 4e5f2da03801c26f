"""What is saved of a run: its report as a page or JSON, and its evidence.

Rules, numbered as the code marks them:

D1  Nothing is exported to a public viewer.
D2  What is exported is sent as a download that no browser renders as a page of this console, under a name without
    anything that a header or a file system gives a meaning to.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.audit.document import to_json
from exequatur.audit.page import render_html
from exequatur.console.addressing import who_asks
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.run_pages import finished
from exequatur.console.runs import Audited

router = APIRouter()


@router.get("/lineage/report.html")
async def report_page(request: Request) -> Response:
    """The audit's HTML report."""
    found = await _exported(request)
    text = await console_of(request).runs.written(found, who_asks(request), render_html)
    return saved(text.encode("utf-8", "replace"), "text/html; charset=utf-8", found.place, "html")


@router.get("/lineage/report.json")
async def report_json(request: Request) -> Response:
    """The audit's report as JSON."""
    found = await _exported(request)
    text = await console_of(request).runs.written(found, who_asks(request), to_json)
    return saved(text.encode("ascii", "replace"), "application/json", found.place, "report.json")


@router.get("/lineage/evidence.json")
async def evidence(request: Request) -> Response:
    """The evidence bundle of a run."""
    found = await _exported(request)
    body = await console_of(request).runs.document(found.place, who_asks(request))
    return saved(body, "application/json", found.place, "evidence.json")


async def _exported(request: Request) -> Audited:
    if viewer_of(request).public:  # [D1]
        await entered(request, "lineage")
        raise ProblemError(
            403, "The public view exports nothing", "Exports name people.", "Ask for an export at the console itself."
        )
    return await finished(request)


def saved(body: bytes, kind: str, place: Place, ending: str) -> Response:
    """A file that a browser saves (D2)."""
    workflow, run = _plain(place.workflow_id)[:60] or "run", _plain(place.run_id)[:8]
    headers = {"Content-Disposition": f'attachment; filename="{workflow}-{run}.{ending}"'}
    return Response(body, media_type=kind, headers=headers)


def _plain(text: str) -> str:
    return "".join(each if each.isascii() and (each.isalnum() or each in "-_") else "-" for each in text)
