"""The page ``/demo``: a visitor tries out an application in a sandbox, and nothing of it is the console's own.

Rules, numbered as the code marks them:

M1  A visitor is known by a cookie of this page's own, which is not for scripts and not sent from other sites, and by
    the session: somebody else's cookie is worth nothing, stolen or put there. A sandbox is made when something is first
    started, not when somebody looks.
M2  What changes something comes with a token that belongs to that cookie and is made with a secret of this process, so
    it comes from a page of this console that this browser got. It is asked for besides what the guard asks.
M3  What a page shows of a sandbox is its visitor's own, made up for the demo; it is not redacted, and nothing else is
    shown here.
M4  What follows a sandbox ends when its viewer's session does, or when Cedar does not let the viewer look any more;
    and one visitor has only so many of them.
M5  A visitor learns nothing of the deployment from what goes wrong: no address, no path. The log has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from exequatur.authority.service.bounded import network_of
from exequatur.console.cookies import cookie_name, cookie_of
from exequatur.console.entering import entered, goes_on
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.parts import Console, console_of, viewer_of
from exequatur.console.render import json_bytes, page
from exequatur.console.sandbox.limits import SandboxError, Why
from exequatur.console.sandbox.sandbox import Sandbox
from exequatur.console.sandbox.sandboxes import Sandboxes
from exequatur.statements.encoding import strict_json

router = APIRouter()
logger = logging.getLogger("exequatur")

TOKEN = "x-demo-token"  # noqa: S105 (the name of a header)
_SECRET = secrets.token_bytes(32)
_QUIET = 15.0
"""Seconds after which a stream says that it is still there."""
_LOOK_EVERY = 2.0
"""Seconds after which a stream looks again whether its viewer may look."""
_BETWEEN = 0.05
"""Seconds between two messages of a stream."""
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_STATUS: dict[Why, tuple[int, str]] = {
    "input": (400, "That cannot be used"),
    "busy": (409, "Not now"),
    "enough": (429, "That is enough for one sandbox"),
    "gone": (404, "It is not there any more"),
    "full": (503, "All sandboxes are in use"),
    "away": (503, "The Temporal server does not answer"),
    "broken": (503, "This demo cannot be used"),
}


@router.get("/demo")
async def show(request: Request) -> Response:
    """The page."""
    await entered(request, "demo")
    console = console_of(request)
    if console.demo is None:
        return page(request, "demo_off.html.jinja", at="demo")
    cookie = _cookie(request) or secrets.token_urlsafe(32)
    application = console.demo.application
    response = page(
        request,
        "demo.html.jinja",
        own={  # M3
            "application": application,
            "approver": str(application.approver or ""),
            "token": _token(_key_of(request, cookie)),
            "namespace": console.temporal.namespaces[0],
        },
    )
    response.set_cookie(  # [M1]
        cookie_for(console),
        cookie,
        path="/" if console.config.secure else "/demo",
        httponly=True,
        samesite="strict",
        secure=console.config.secure,
        max_age=int(console.demo.limits.age),
    )
    return response


@router.get("/demo/state.json")
async def state(request: Request) -> Response:
    """All that the visitor sees; ``sandbox`` is null where there is none yet."""
    sandbox = await _found(request)
    return _json({"sandbox": None if sandbox is None else sandbox.view()})


@router.get("/demo/policies.json")
async def policies(request: Request) -> Response:
    """The policies of the visitor's sandbox, or those that a new one will have."""
    sandbox = await _found(request)
    if sandbox is not None:
        return _json(sandbox.editing.texts())
    return await _told(asyncio.to_thread(_sandboxes(request).texts))


@router.get("/demo/history.json")
async def history(request: Request) -> Response:
    """The events of a run, and what can be done to each."""
    run = request.query_params.get("run", "")
    sandbox = await _own(request)
    return await _told(asyncio.to_thread(sandbox.events, int(run) if _NUMBER.match(run) else None))


@router.get("/demo/follow")
async def follow(request: Request) -> Response:
    """The sandbox's state, each time that it changes, as server-sent events."""
    viewer, sandbox = viewer_of(request), await _own(request)
    if sandbox.streams >= _sandboxes(request).limits.streams:  # [M4]
        return _problem(SandboxError("This sandbox is followed by enough pages already. Close one of them.", "enough"))
    console = console_of(request)

    async def lines() -> AsyncIterator[bytes]:
        sandbox.streams += 1
        try:
            seen, said = -1, time.monotonic()
            while not console.standing.stopping and await goes_on(request, viewer, "demo"):  # [M4]
                looked = time.monotonic()
                while (left := looked + _LOOK_EVERY - time.monotonic()) > 0 and await sandbox.news(seen, left):
                    view = sandbox.view()
                    seen, said = view["version"], time.monotonic()
                    yield b"data: " + json_bytes(view) + b"\n\n"
                    if sandbox.ended:
                        return
                    await asyncio.sleep(_BETWEEN)
                if time.monotonic() - said > _QUIET:
                    said = time.monotonic()
                    yield b": still here\n\n"
        finally:
            sandbox.streams -= 1

    return StreamingResponse(lines(), media_type="text/event-stream")


@router.post("/demo/start")
async def start(request: Request) -> Response:
    """Start a run; the sandbox is made if there is none."""
    body = await _body(request)

    async def started() -> dict[str, Any]:
        sandbox = await _sandboxes(request).enter(_key(request) or "", _owner(request))
        run = await sandbox.start(body.get("inputs"))
        return {"run": run.number, "sandbox": sandbox.view()}

    return await _told(started())


@router.post("/demo/revoke")
async def revoke(request: Request) -> Response:
    """Revoke a run."""
    body = await _body(request)
    return await _done(request, lambda sandbox: sandbox.revoke(body.get("run")))


@router.post("/demo/answer")
async def answer(request: Request) -> Response:
    """Agree, or not, to what a run asks people."""
    body = await _body(request)
    return await _done(request, lambda sandbox: sandbox.answer(body.get("run"), agree=body.get("agree") is True))


@router.post("/demo/check")
async def check(request: Request) -> Response:
    """Check an edit of the policies."""
    return await _edit(request, apply=False)


@router.post("/demo/apply")
async def apply(request: Request) -> Response:
    """Check an edit of the policies, and put it in force if it is good."""
    return await _edit(request, apply=True)


@router.post("/demo/restore")
async def restore(request: Request) -> Response:
    """Put the original policies in force again."""
    await _body(request)

    async def restored() -> dict[str, Any]:
        sandbox = await _own(request)
        await sandbox.restore()
        return sandbox.editing.texts()

    return await _told(restored())


@router.post("/demo/audit")
async def audit(request: Request) -> Response:
    """Change a copy of a run's history, and audit both."""
    body = await _body(request)
    sandbox = await _own(request)
    return await _told(
        sandbox.tamper(body.get("run"), body.get("event"), body.get("change"), body.get("text")),
    )


@router.post("/demo/reset")
async def reset(request: Request) -> Response:
    """End the visitor's sandbox; the next run begins in a new one."""
    await _body(request)
    await _sandboxes(request).close(_key(request) or "")
    return _json({"sandbox": None})


async def _edit(request: Request, *, apply: bool) -> Response:
    body = await _body(request)

    async def edited() -> dict[str, Any]:
        sandbox = await _sandboxes(request).enter(_key(request) or "", _owner(request))
        checked = await (sandbox.apply if apply else sandbox.check)(body.get("texts"))
        return {
            "good": checked.good,
            "problems": [asdict(each) for each in checked.problems],
            **sandbox.editing.texts(),
        }

    return await _told(edited())


async def _done(request: Request, what: Any) -> Response:
    async def done() -> dict[str, Any]:
        sandbox = await _own(request)
        await what(sandbox)
        return {"sandbox": sandbox.view()}

    return await _told(done())


def _sandboxes(request: Request) -> Sandboxes:
    """The sandboxes of this console.

    Raises:
        ProblemError: It has none.
    """
    found = console_of(request).demo
    if found is None:
        raise ProblemError(404, "There is no demo here", "This console shows no demo.", "Start it with --demo.")
    return found


async def _found(request: Request) -> Sandbox | None:
    """The visitor's sandbox, if there is one."""
    await entered(request, "demo")
    sandboxes, key = _sandboxes(request), _key(request)
    return None if key is None else sandboxes.find(key)


async def _own(request: Request) -> Sandbox:
    """The visitor's sandbox.

    Raises:
        ProblemError: There is none.
    """
    sandbox = await _found(request)
    if sandbox is None:
        status, title = _STATUS["gone"]
        raise ProblemError(status, title, "Your sandbox has ended, or was never made.", "Start a run to make one.")
    return sandbox


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that a script sent, from a page that this browser got.

    Raises:
        ProblemError: M2, or it is no object.
    """
    await entered(request, "demo")
    key = _key(request)
    given = request.headers.get(TOKEN, "")
    if key is None or not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), _token(key).encode()):  # [M2]
        raise ProblemError(403, "Not done", "The page is an old one, or of another browser.", "Load the page again.")
    try:
        body = strict_json(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ProblemError(400, "That cannot be used", "The request is not a JSON object.", "Load the page again.")
    return body


def _key(request: Request) -> str | None:
    """The visitor's secret."""
    cookie = _cookie(request)
    return None if cookie is None else _key_of(request, cookie)


def _key_of(request: Request, cookie: str) -> str:
    return f"{viewer_of(request).csrf} {cookie}"  # [M1]


def _cookie(request: Request) -> str | None:
    cookie = cookie_of(request, cookie_for(console_of(request)))
    return cookie if 40 <= len(cookie) <= 64 and cookie.isascii() else None


def cookie_for(console: Console) -> str:
    """What the visitor's cookie is called."""
    return cookie_name("demo", console.standing.port, secure=console.config.secure)


def _token(key: str) -> str:
    return hmac.new(_SECRET, key.encode(), hashlib.sha256).hexdigest()


def _owner(request: Request) -> str:
    return network_of(request.client.host if request.client else "")


async def _told(what: Awaitable[dict[str, Any]]) -> Response:
    """The answer, or why there is none."""
    try:
        return _json(await what)
    except SandboxError as error:
        return _problem(error)
    except ServerAwayError as error:
        logger.info("%s", error)
        return _problem(SandboxError("The Temporal server does not answer. Nothing was done; try again.", "away"))
    except ProblemError:
        raise
    except Exception:
        logger.exception("The demo page could not do what a visitor asked for")
        return _problem(SandboxError("The demo could not do this; the console's log says why.", "broken"))  # [M5]


def _problem(error: SandboxError) -> Response:
    status, title = _STATUS[error.why]
    body = {"status": status, "title": title, "text": str(error), "step": "", "why": error.why, "field": error.field}
    response = _json(body, status)
    if error.why in ("full", "away", "enough"):
        response.headers["Retry-After"] = "60" if error.why == "full" else "5"
    return response


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json_bytes(body), status, media_type="application/json")  # M3
