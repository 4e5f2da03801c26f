"""How the service says no.

Rules, numbered as the code marks them:

H1  A refusal says what was refused and, where the caller can do something about it, the next step. What went wrong
    inside says nothing but the id of the request, under which the log has the rest.
H2  Only an answer that says 200 allows anything, and what allows is never to be stored on the way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from exequatur.authority.api import ErrorCode, Problem
from exequatur.errors import (
    ConfigurationError,
    ExequaturError,
    IdentityError,
    StatementError,
)
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable

logger = logging.getLogger("exequatur")

NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}
"""Of every answer to a question (RFC 6749, section 5.1)."""
RETRY_AFTER = 1
"""Seconds after which it is worth asking again."""
_LONGEST = 600
"""Characters of a sentence."""


class Refused(Exception):
    """A request is not answered with what it asks for.

    Args:
        status: HTTP status.
        error: Its name.
        description: A sentence for the caller.
        details: What a machine may read besides.
        headers: What HTTP wants said with this status.
    """

    def __init__(
        self,
        status: int,
        error: ErrorCode,
        description: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.status = status
        self.error: ErrorCode = error
        self.description = description
        self.details = details
        self.headers = dict(headers or {})


def invalid(description: str) -> Refused:
    """The request itself is wrong."""
    return Refused(400, "invalid_request", description)


def unavailable(reason: str, *, after: int = RETRY_AFTER) -> Refused:
    """It cannot be decided now; the reason goes to the log only."""
    logger.error("A request was not answered: %s", reason)
    return Refused(
        503,
        "temporarily_unavailable",
        "It cannot be decided or recorded now; ask again",  # [H1]
        headers={"Retry-After": str(after)},
    )


def refusal(error: Exception) -> Refused:
    """What the caller is told of an error."""
    match error:
        case Refused():
            return error
        case AuthorizationDenied():
            details = error.details[0] if error.details else None
            return Refused(403, "access_denied", error.message, details=details)
        case AuthorizationUnavailable():
            return unavailable(error.message)
        case IdentityError():
            return Refused(
                401,
                "invalid_token",
                str(error),
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        case StatementError() | ConfigurationError():
            return invalid(str(error))
        case ExequaturError():  # what is kept or fetched elsewhere cannot be used now
            return unavailable(str(error))
    logger.error("A request could not be answered", exc_info=error)
    return Refused(500, "server_error", "Something went wrong here; the log says what")  # [H1]


def answer(refused: Refused, request_id: str) -> JSONResponse:
    """The response that says so."""
    description = refused.description
    if refused.status >= 500:
        description = f"{description} (request {request_id})"
    problem = Problem(
        error=refused.error,
        error_description=_shown(description),
        details=None if refused.details is None else _plain(refused.details),
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        refused.status,
        headers={**NOT_STORED, **refused.headers},  # [H2]
    )


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in details.items()}


def _shown(text: str) -> str:
    """One line of Unicode, whatever was quoted in it."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
