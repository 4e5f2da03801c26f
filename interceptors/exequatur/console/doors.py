"""The ways in and out: the link that was printed at the start, the login, the logout."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.console.errors import ProblemError
from exequatur.console.login import BACK, inside
from exequatur.console.parts import console_of
from exequatur.console.render import door

router = APIRouter()

_BROWSER = "exequatur-login"
_LONGEST_TOKEN = 200


@router.get("/start")
async def start(request: Request) -> Response:
    """Open a session by the link that was printed at the start."""
    console = console_of(request)
    token = request.query_params.get("token", "")
    value = console.sessions.begin(token) if len(token) <= _LONGEST_TOKEN else None
    if value is None:
        raise ProblemError(
            403,
            "This link opens nothing any more",
            "A link opens one session, and only for an hour after the console was started.",
            "Start `exequatur console` again: it prints a new link.",
        )
    response = door(request, "/")
    console.sessions.give(response, value)
    return response


@router.get("/login")
async def login(request: Request) -> Response:
    """Send the browser to the OpenID provider."""
    console = console_of(request)
    if console.login is None:
        raise ProblemError(404, "There is no login here", "The console opens by its link.", "Open that link.")
    origin = (console.config.url or console.standing.origin).rstrip("/")
    url, browser = await console.login.begin(origin, request.query_params.get("then", "/"))
    response = RedirectResponse(url, 303)
    # Lax, because the provider sends the browser back from its own site.
    response.set_cookie(
        _BROWSER, browser, path=BACK, max_age=600, httponly=True, samesite="lax", secure=console.config.secure
    )
    return response


@router.get(BACK)
async def back(request: Request) -> Response:
    """Take the provider's answer."""
    console = console_of(request)
    if console.login is None:
        raise ProblemError(404, "There is no login here", "The console opens by its link.", "Open that link.")
    answer = dict(request.query_params)
    principal, then = await console.login.finish(answer, request.cookies.get(_BROWSER, ""))
    response = door(request, inside(then))
    console.sessions.give(response, console.sessions.open(principal, "login"))
    response.delete_cookie(_BROWSER, path=BACK)
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session."""
    console = console_of(request)
    console.sessions.close(request.cookies.get(console.sessions.cookie, ""))
    response = RedirectResponse("/", 303)
    console.sessions.take(response)
    return response
