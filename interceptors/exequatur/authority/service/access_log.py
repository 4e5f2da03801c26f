"""The access log: one JSON object a line for each request.

Rules, numbered as the code marks them:

H5  It names who asked, what for by the template of the path, and what became of it. Never a token, a header, a query or
    a body.
H6  Every answer has a request id, which the log has too: the caller's own where it is short and plain, else a new one.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from datetime import UTC, datetime
from typing import TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exequatur.statements.encoding import compact_json

logger = logging.getLogger("exequatur")

REQUEST_ID = b"x-request-id"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


class AccessLog:
    """ASGI middleware, the outermost one.

    Args:
        app: What answers.
        stream: Where lines go.
    """

    def __init__(self, app: ASGIApp, stream: TextIO) -> None:
        self._app = app
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID, b"")
        request_id = given if _PLAIN.match(given) else secrets.token_urlsafe(12).encode()  # [H6]
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (REQUEST_ID, request_id)]}
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._write(scope, status, (time.perf_counter() - began) * 1000)

    def _write(self, scope: Scope, status: int, ms: float) -> None:
        state, route = scope["state"], scope.get("route")
        client = scope.get("client")
        line = {  # [H5]
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"] if scope["method"].isalpha() and len(scope["method"]) <= 10 else "other",
            "path": getattr(route, "path", "unknown"),
            "status": status,
            "ms": round(ms, 1),
            "address": client[0] if client else None,
            "caller": state.get("caller"),
            "acting": state.get("acting"),
            "error": state.get("error"),
            "request": state["request_id"],
        }
        try:
            self._stream.write(compact_json({k: v for k, v in line.items() if v is not None}).decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError) as err:
            logger.error("The access log cannot be written: %s", err)
