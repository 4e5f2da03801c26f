"""The HTTP surface: paths, what they take and what they answer, as :mod:`exequatur.authority.api` has them."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from exequatur.authority.service import deciding, giving
from exequatur.authority.service.parts import Service
from exequatur.authority.service.requests import answer_errors

DOCUMENT_PATH = "/openapi.json"


def create_app(service: Service) -> FastAPI:
    """The application, without the middleware that it is served behind.

    The pages that show its documentation are off: they would load scripts from elsewhere.
    """
    app = FastAPI(
        title="Exequatur authority",
        version="1",
        summary="Exchanges credentials for grants and permits, enrols workers, and keeps the revocation feed.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    answer_errors(app)
    app.include_router(deciding.router)
    app.include_router(giving.router)

    @app.get(DOCUMENT_PATH, include_in_schema=False)
    async def document(request: Request) -> Response:
        return JSONResponse(request.app.openapi())

    return app
