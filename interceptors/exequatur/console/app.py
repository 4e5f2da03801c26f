"""The application: its pages, what is served beside them, and how its errors are answered."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TextIO

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from exequatur.authority.service.access_log import AccessLog
from exequatur.authority.service.answers import Refused
from exequatur.authority.service.bounded import Bounded
from exequatur.console import demo, doors, governance, health, lineage, proof
from exequatur.console.errors import answer, answer_errors, problem_of
from exequatur.console.forwarded import Forwarded
from exequatur.console.parts import Console
from exequatur.console.perimeter import Guard, Headed

PAGES = (governance, lineage, proof, health, demo)
"""Modules with a router each."""


class _Static(StaticFiles):
    """Files of this package, asked for again each time; they change with a new version only."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(console: Console) -> FastAPI:
    """The application, without the middleware that it is served behind."""
    app = FastAPI(title="Exequatur console", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.console = console
    answer_errors(app)

    @app.get("/")
    async def first() -> Response:
        return RedirectResponse("/governance", 303)

    app.include_router(doors.router)
    for page in PAGES:
        app.include_router(page.router)
    app.mount("/static", _Static(directory=Path(str(files("exequatur.console") / "static"))))
    return app


def guarded(app: FastAPI, console: Console, log: TextIO) -> ASGIApp:
    """The same behind everything that every request has to keep to.

    Args:
        app: Of :func:`create_app`.
        console: See there.
        log: Where the access log goes.
    """

    def say(refused: Refused, scope: Scope) -> Response:
        return answer(Request({**scope, "app": app}), problem_of(refused))

    inner = Bounded(Guard(app, console), console.config.limits, say)
    return Forwarded(AccessLog(Headed(inner, pinned=console.config.pinned), log), console.config.proxies)
