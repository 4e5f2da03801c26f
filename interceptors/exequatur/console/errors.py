"""Every error is a page, or JSON for a script: what happened, and what to do. Never a traceback, never a blank page.

Rules, numbered as the code marks them:

X1  What went wrong inside is told by the id of the request, under which the log has the rest; nothing of it is shown.
X2  Who asks for JSON gets JSON, and everybody else a page.
X3  The public view is told what happened, and nothing that an error says of this installation.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from exequatur.authority.service.answers import Refused
from exequatur.errors import ChallengeError, ConfigurationError, ExequaturError, IdentityError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable

logger = logging.getLogger("exequatur")

_LONGEST = 1000
"""Characters of a sentence."""
_INNER = re.compile(r'message: \\?"([^"\\]+)')


class ProblemError(Exception):
    """A page cannot be shown, or something not be done.

    Args:
        status: HTTP status.
        title: A few words.
        text: What happened.
        step: What to do.
        headers: What HTTP wants said with this status.
        private: Whether text and step may tell of this installation; of what went wrong in it, that is taken for
            granted.
    """

    def __init__(
        self,
        status: int,
        title: str,
        text: str,
        step: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        private: bool | None = None,
    ) -> None:
        super().__init__(text)
        self.private = status >= 500 if private is None else private
        self.status = status
        self.title = title
        self.text = text[:_LONGEST]
        self.step = step
        self.headers = dict(headers or {})


class ServerAwayError(ProblemError):
    """The Temporal server does not answer."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(
            503,
            "The Temporal server does not answer",
            f"{address}: {plainly(why.removeprefix(f'{address}: '))}",
            "Start the server, or check --address and --namespace. Decisions and policies are shown without it.",
        )


def plainly(text: str) -> str:
    """What an error of the SDK says, without how its layers wrap it."""
    inner = _INNER.search(text)
    return f"It cannot be reached: {inner[1]}" if inner else text.partition("; ")[0]


def problem_of(error: Exception) -> ProblemError:
    """What a viewer is told of an error."""
    match error:
        case ProblemError():
            return error
        case Refused():
            return ProblemError(
                error.status, _TITLES.get(error.status, "It was refused"), error.description, headers=error.headers
            )
        case AuthorizationDenied():
            step = "Ask who writes the policies; nothing was done."
            return ProblemError(403, "The policies do not permit it", error.message, step, private=True)
        case AuthorizationUnavailable():
            return ProblemError(503, "It cannot be decided now", error.message, "Nothing was done. Try again.")
        case IdentityError():
            return ProblemError(401, "It could not be told who you are", str(error), "Log in again.", private=True)
        case ChallengeError():
            return ProblemError(409, "It could not be answered", str(error), "Look at the list again.", private=True)
        case ConfigurationError():
            step = "Nothing was done. Correct it."
            return ProblemError(400, "It could not be done", str(error), step, private=True)
        case ExequaturError():
            return ProblemError(503, "It cannot be done now", str(error), "Nothing was done unless it says so.")
        case RequestValidationError():
            first = error.errors()[0]
            where = ".".join(str(each) for each in first["loc"])[:200]
            return ProblemError(400, "The address cannot be read", f"{where}: {str(first['msg'])[:200]}", "Go back.")
        case HTTPException(status_code=404):
            return ProblemError(
                404, "There is no such page", "The address leads nowhere.", "Choose a page from the menu."
            )
        case HTTPException(status_code=405):
            return ProblemError(405, "Not done", "This address takes another method.", "Go back.", error.headers)
        case HTTPException():
            return ProblemError(error.status_code, "Not done", "The request cannot be read.", "Go back.")
    logger.error("A page could not be shown", exc_info=error)
    text = "The console's log says what."
    return ProblemError(500, "Something went wrong here", text, "Try again.", private=False)  # [X1]


_TITLES = {
    400: "The request cannot be read",
    413: "That is too large",
    429: "Too many requests",
    503: "Not now",
}


def wants_json(request: Request) -> bool:
    """Whether a script asks, and not a person."""
    return (
        "application/json" in request.headers.get("accept", "")
        or request.url.path.endswith(".json")
        or request.headers.get("sec-fetch-dest") == "empty"
    )


def answer(request: Request, problem: ProblemError) -> Response:
    """The response that says so."""
    identity = request.scope.get("state", {}).get("request_id", "")
    text = f"{problem.text} (request {identity})" if problem.status == 500 else problem.text
    step = problem.step
    viewer = request.scope.get("state", {}).get("viewer")
    if problem.private and viewer is not None and viewer.public:  # [X3]
        text, step = "The public view is not told more about it.", "Try again later."
    if wants_json(request):  # [X2]
        body = {"status": problem.status, "title": problem.title, "text": text, "step": step}
        return JSONResponse(body, problem.status, headers=problem.headers)
    from exequatur.console.render import error_page

    try:
        return error_page(request, problem, text, step)
    except Exception:  # what is broken may be what every page is made of
        logger.exception("The page that tells of an error could not be made")
        return PlainTextResponse(f"{problem.title}. {text} {step}\n", problem.status, headers=problem.headers)


def answer_errors(app: FastAPI) -> None:
    """Have every error answered."""

    async def say(request: Request, error: Exception) -> Response:
        return answer(request, problem_of(error))

    # What is told to no handler is told to the last one, and raised once more, to the guard.
    for kind in (Exception, ProblemError, ExequaturError, Refused, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, say)
