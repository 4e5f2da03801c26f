"""How requests are read, decided elsewhere and answered.

Rules, numbered as the code marks them:

H24  Whatever goes wrong, the answer is a problem of the documented form. No traceback, no path of a file, no name of a
     library.
H28  A body is JSON without duplicates, or a form where one is asked for, and its type says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from exequatur.authority import api
from exequatur.authority.service.answers import NOT_STORED, Refused, answer, invalid, refusal, unavailable
from exequatur.authority.service.callers import Shown, shown_in
from exequatur.authority.service.parts import Service
from exequatur.identity.callers import Identified
from exequatur.statements.encoding import strict_json

T = TypeVar("T")

_SAID = {
    400: "The request is not as documented",
    401: "No credential, or one that does not verify",
    403: "Cedar does not allow it",
    404: "There is none",
    413: "The body is too large",
    415: "The body is of another type",
    429: "Too many requests",
    503: "It cannot be decided or recorded now",
}


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return strict_json(await self.body())  # [H28]
        except ValueError as err:
            raise invalid(f"The body is no JSON: {err}") from None


class Route(APIRoute):
    """A path whose errors are answered as documented."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            try:
                return await handler(_StrictRequest(request.scope, request.receive))
            except (HTTPException, RequestValidationError):
                raise
            except Exception as error:  # [H24]
                return _answered(request, refusal(error))

        return strict


def answer_errors(app: FastAPI) -> None:
    """Have what the framework refuses by itself answered as documented, too."""

    async def say(request: Request, error: Exception) -> Response:
        return _answered(request, _said_by_framework(error))

    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, say)  # [H24]


def _said_by_framework(error: Exception) -> Refused:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])[:200]
        return invalid(f"{where}: {str(first['msg'])[:200]}")
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
        match error.status_code:
            case 404:
                return Refused(404, "not_found", "There is no such path; /openapi.json lists them", headers=headers)
            case 405:
                return Refused(405, "method_not_allowed", "This path takes another method", headers=headers)
            case 400 | 422:
                return invalid("The request cannot be read")
    return refusal(error)


def _answered(request: Request, refused: Refused) -> Response:
    request.state.error = refused.error
    return answer(refused, request.state.request_id)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the documentation of a path says of its refusals."""
    return {each: {"model": api.Problem, "description": _SAID[each]} for each in (*statuses, 413, 429)}


def order(name: str, model: type[BaseModel], summary: str, *, more: tuple[int, ...] = ()) -> dict[str, Any]:
    """What the documentation says of a path that decides."""
    return {
        "operation_id": name,
        "response_model": model,
        "summary": summary,
        "responses": problems(400, 401, 403, 415, 503, *more),
    }


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service


def certificate_of(request: Request) -> bytes | None:
    """DER of the connection's client certificate, which the server has verified."""
    certificate: bytes | None = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_der")
    return certificate


def shown(request: Request) -> Shown:
    """The credentials of a request that is no token exchange.

    Raises:
        Refused: H8.
    """
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name, []).append(value)
    return shown_in(headers, certificate_of(request))


def require(request: Request, type: str) -> None:
    """Refuse a body of another type.

    Raises:
        Refused: H28.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != type:  # [H28]
        raise Refused(415, "unsupported_media_type", f"Content-Type must be {type}")


def require_json(request: Request) -> None:
    """Refuse a body that is no JSON by its type.

    Raises:
        Refused: H28.
    """
    require(request, "application/json")


async def elsewhere(request: Request, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do something that may block.

    Raises:
        Refused: The service is stopping, or cannot keep up.
    """
    service = service_of(request)
    if service.health.stopping:  # H26
        raise unavailable("the authority is stopping")
    return await service.offload(work)


def caller_of(request: Request, shown: Shown) -> Identified:
    """Who asks, noted for the log and counted. May block.

    Raises:
        Refused: H3, H8.
        IdentityError: H7, H9.
        IdentityUnavailableError: It cannot be found out now.
        StoreUnavailableError: It cannot be remembered that a token was used.
    """
    service = service_of(request)
    caller = service.callers.find(shown)
    request.state.caller = str(caller.principal)
    if caller.acting is not None:
        request.state.acting = caller.acting.sub
    service.buckets.take(str(caller.asks))  # H3
    service.callers.use_up(caller)  # H9
    return caller


async def decided(
    request: Request, decide: Callable[[Service, Identified], Awaitable[BaseModel]], credentials: Shown | None = None
) -> Response:
    """Find out who asks, decide, and answer.

    Args:
        request: Of whoever asks.
        decide: Gives what is answered.
        credentials: Where they are not in the headers.
    """
    given = shown(request) if credentials is None else credentials

    async def work() -> BaseModel:
        return await decide(service_of(request), caller_of(request, given))

    return told(await elsewhere(request, work))


def told(body: BaseModel) -> Response:
    """An answer that is not to be stored."""
    return JSONResponse(body.model_dump(mode="json", exclude_none=True), headers=NOT_STORED)  # [H2]
