"""What every request has to keep to before anybody looks at it.

Rules, numbered as the code marks them (H3 is that of :mod:`exequatur.authority.service.limits`):

H23  A body is read whole, within a time and a size, before anything is done with it. One whose end is told in two ways
     is not read (RFC 9112, section 6.1): others may see another end.
H38  Of cookies, only plain ones are handed on. A browser sends those of every program on the host; Python's parser
     gives up at the first odd one, and for its escapes takes time that grows with their square.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exequatur.authority.service.answers import Refused, answer, invalid
from exequatur.authority.service.config import Limits
from exequatur.authority.service.limits import Buckets

BODY_WITHIN = 10.0
"""Seconds in which a body has to arrive."""
_DRAINED = 4
"""How many times too much is read and thrown away, so that who sends it gets to read the answer."""
_PLAIN = re.compile(rb"[!#-+.^`|~\w-]+=[!#-+\-./:<-\[\]-~\w]*\Z", re.ASCII)
"""A cookie without quotation marks, spaces, backslashes (RFC 6265, section 4.1.1)."""
_CLOSE = {"Connection": "close"}
_FREE = ("/health/live", "/health/ready")
"""What may be asked as often as a monitor likes."""


def _said(refused: Refused, scope: Scope) -> Response:
    return answer(refused, scope["state"]["request_id"])


class Bounded:
    """ASGI middleware: counts requests by address, and reads bodies.

    Args:
        app: What answers.
        limits: As configured.
        say: The response that says no.
    """

    def __init__(self, app: ASGIApp, limits: Limits, say: Callable[[Refused, Scope], Response] = _said) -> None:
        self._app = app
        self._say = say
        self._most = limits.body
        self._addresses = Buckets(limits.per_address, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"] not in _FREE:
                self._addresses.take(network_of(str((scope.get("client") or ("",))[0])))  # H3
            body = await self._body(scope, receive)
        except Refused as refused:
            scope["state"]["error"] = refused.error
            await self._say(refused, scope)(scope, receive, send)
            return
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        scope["headers"] = plain_cookies(scope["headers"])
        await self._app(scope, again, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            Refused: H23.
        """
        too_large = Refused(413, "too_large", f"The body has more than {self._most} bytes", headers=_CLOSE)
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and b"content-length" in headers:  # [H23]
            raise Refused(400, "invalid_request", "The body's end is told in two ways", headers=_CLOSE)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most * _DRAINED:
            raise too_large
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(BODY_WITHIN):  # H23
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise invalid("The connection ended before the body")
                    part = message.get("body", b"")
                    size += len(part)
                    if size <= self._most:
                        body += part
                    elif size > self._most * _DRAINED or not message.get("more_body", False):  # [H23]
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            late = f"The body did not arrive within {BODY_WITHIN:.0f} s"
            raise Refused(400, "invalid_request", late, headers=_CLOSE) from None


def plain_cookies(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers without odd cookies (H38)."""
    kept = [(name, value) for name, value in headers if name != b"cookie"]
    given = [each.strip() for name, value in headers if name == b"cookie" for each in value.split(b";")]
    cookies = [each for each in given if _PLAIN.match(each)]  # [H38]
    return [*kept, (b"cookie", b"; ".join(cookies))] if cookies else kept


def network_of(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the /64 that one host of IPv6 has addresses of."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
