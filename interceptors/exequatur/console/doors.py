"""The ways in and out: the link that was printed at the start, the login, the logout."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.console.cookies import cookie_name, cookie_of
from exequatur.console.errors import ProblemError
from exequatur.console.login import BACK, WITHIN
from exequatur.console.parts import Console, address_of, console_of, viewer_of
from exequatur.console.render import door, outside

router = APIRouter()

_LONGEST_TOKEN = 200


@router.get("/start")
async def start(request: Request) -> Response:
    """Open a session by the link that was printed at the start."""
    console = console_of(request)
    token = request.query_params.get("token", "")
    value = console.sessions.begin(token) if len(token) <= _LONGEST_TOKEN else None
    if value is None:
        if (viewer := viewer_of(request)) is not None and not viewer.public:  # this browser has used it already
            return door(request, "/")
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
    then, cookie = request.query_params.get("then", "/"), _cookie(console)
    url, browser = await console.login.begin(origin, then, cookie_of(request, cookie), address_of(request))
    response = RedirectResponse(url, 303)
    # Lax, because the provider sends the browser back from its own site.
    response.set_cookie(
        cookie, browser, path="/", max_age=int(WITHIN), httponly=True, samesite="lax", secure=console.config.secure
    )
    return response


@router.get(BACK)
async def back(request: Request) -> Response:
    """Take the provider's answer."""
    console = console_of(request)
    if console.login is None:
        raise ProblemError(404, "There is no login here", "The console opens by its link.", "Open that link.")
    answer = dict(request.query_params)
    principal, then = await console.login.finish(answer, cookie_of(request, _cookie(console)))
    response = door(request, then)
    console.sessions.give(response, console.sessions.open(principal))
    return response


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session."""
    console = console_of(request)
    console.sessions.close(cookie_of(request, console.sessions.cookie))
    response = RedirectResponse("/left", 303)
    console.sessions.take(response)
    return response


@router.get("/left")
async def left(request: Request) -> Response:
    """Say that the session has ended: where the provider still knows the person, any page would begin another one."""
    return outside(request, "left.html.jinja") if viewer_of(request) is None else RedirectResponse("/", 303)


def _cookie(console: Console) -> str:
    """What the cookie of a browser is called that has begun a login."""
    return cookie_name("login", console.standing.port, secure=console.config.secure)
