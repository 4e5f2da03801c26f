"""Where a request comes from, where a proxy stands between.

Rules, numbered as the code marks them:

P1  Only a proxy that the configuration names says for whom it asks. It adds the address to the end of
    ``X-Forwarded-For``: from there, the first that is no such proxy counts. What stands before it, anybody may have
    written. Where that is no address, the proxy itself is who asks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORT = re.compile(r"\A(?:\[([^]]*)\](?::\d+)?|(\d[\d.]*):\d+)\Z")


class Forwarded:
    """ASGI middleware: puts the address in the scope for which a trusted proxy asks.

    Args:
        app: What answers.
        proxies: Those that are trusted.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[Network]) -> None:
        self._app = app
        self._proxies = tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._trusted(client := str((scope.get("client") or ("",))[0])):  # [P1]
            given = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
            first = next((each for each in map(_bare, reversed(given)) if not self._trusted(each)), "")  # [P1]
            scope = {**scope, "client": (first if _address(first) else client, 0)}  # [P1]
        await self._app(scope, receive, send)

    def _trusted(self, text: str) -> bool:
        found = _address(text)
        return found is not None and any(found in each for each in self._proxies)


def _bare(text: str) -> str:
    """An address without its port."""
    found = _PORT.match(text.strip())
    return (found[1] or found[2] or "") if found else text.strip()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
