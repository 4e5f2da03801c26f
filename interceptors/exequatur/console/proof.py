"""The page ``/proof``: evidence is verified in the viewer's own browser.

The console gives what is to be verified and, beside it, its own trust file, which the viewer may take or not. It says
nothing about either: the verdict is the browser's.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.console.addressing import who_asks
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.proof_file import proof_file
from exequatur.console.references import Place
from exequatur.console.render import page

router = APIRouter()

LONGEST_ID = 1000
"""Characters. Temporal's default limit for any id."""


@router.get("/proof")
async def show(request: Request, workflow: str = "", run: str = "", namespace: str = "") -> Response:
    """The page, with the evidence of a run if one is named."""
    await entered(request, "proof", workflow)
    shown = console_of(request).temporal.namespaces
    return page(
        request,
        "proof.html.jinja",
        workflow=workflow[:LONGEST_ID] or None,
        run=run[:LONGEST_ID] or None,
        namespace=namespace if namespace in shown else shown[0],
        namespaces=list(shown),
    )


@router.get("/proof/trust")
async def trust(request: Request) -> Response:
    """The trust file that the console itself goes by."""
    await entered(request, "proof")
    _not_in_public(request)
    path = console_of(request).runs.trust
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise ProblemError(
            503,
            "The trust file cannot be read",
            f"{path}: {error.strerror or error}",
            "Start the console with --trust.",
        ) from error
    return _file(data, "trust.jwks", "application/json")


@router.get("/proof/evidence")
async def evidence(request: Request, workflow: str, run: str = "", namespace: str = "") -> Response:
    """The evidence document of a run."""
    return _file(await _evidence(request, workflow, run, namespace), f"{workflow}.json", "application/json")


@router.get("/proof/viewer")
async def viewer(request: Request, workflow: str = "", run: str = "", namespace: str = "") -> Response:
    """The stand-alone viewer, with the evidence of a run if one is named."""
    await entered(request, "proof", workflow)
    document = await _evidence(request, workflow, run, namespace) if workflow else None
    made = await asyncio.to_thread(proof_file, f"the evidence of {workflow}" if workflow else "", document)
    return _file(made.encode(), f"{workflow or 'exequatur'}-proof.html", "text/html")


async def _evidence(request: Request, workflow: str, run: str, namespace: str) -> bytes:
    await entered(request, "proof", workflow)
    _not_in_public(request)
    if not 0 < len(workflow) <= LONGEST_ID or len(run) > LONGEST_ID:
        raise ProblemError(
            400, "No run has this name", "A workflow id has 1 to 1,000 characters.", "Correct the address."
        )
    console = console_of(request)
    place = namespace or console.temporal.namespaces[0]
    described = await console.temporal.described(place, workflow, run or None)
    return await console.runs.document(Place(place, workflow, described.run_id), who_asks(request))


def _not_in_public(request: Request) -> None:
    if viewer_of(request).public:
        raise ProblemError(
            403,
            "Not in the public view",
            "Evidence and keys name people and workers.",
            "Drop in files that you have, or look with a console of your own.",
        )


def _file(data: bytes, name: str, kind: str) -> Response:
    """A file that is saved, and never shown as a page of the console."""
    disposition = f"attachment; filename*=UTF-8''{quote(name[-200:], safe='', errors='replace')}"
    return Response(data, media_type=kind, headers={"Content-Disposition": disposition})
