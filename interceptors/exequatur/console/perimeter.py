"""What every request has to keep to, and every answer says, whichever page it is about.

Rules, numbered as the code marks them (S are those of :mod:`exequatur.console.sessions`):

G1  The ``Host`` is one that this console is reached by. A name that somebody pointed at this address is refused (DNS
    rebinding).
G2  Every answer forbids scripts, styles and frames from elsewhere and inline, sniffing, telling other sites, and being
    embedded. Pages are not stored.
G3  There is GET, HEAD and POST. A POST comes from a page of this console: its ``Origin`` is ours to the letter, and
    the browser says nothing else (``Sec-Fetch-Site``).
G4  What another site's page asks for is refused, unless a person goes there (``Sec-Fetch-Mode: navigate``). Another
    port of this host is another site.
G5  A POST has the CSRF token of its session, in the header ``X-CSRF-Token`` or the form's field ``csrf``.
G6  Without a session there is nothing but the way to get one. Everybody may look where the console is public, and may
    change nothing.
    What a visitor does in a sandbox of the demo page changes nothing of the console; that page has a token of its own
    for it (M2 of :mod:`exequatur.console.demo`).
G7  Metrics and health are read by whoever has the monitoring token, where one is configured; by that, nothing else is.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exequatur.authority.service.config import is_loopback
from exequatur.console.config import port_of
from exequatur.console.cookies import cookie_of
from exequatur.console.errors import ProblemError, answer, problem_of, wants_json
from exequatur.console.login import BACK, inside
from exequatur.console.parts import Console
from exequatur.console.render import door
from exequatur.console.viewer import PUBLIC, Viewer
from exequatur.identity.principal import Principal

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Nothing is told to other sites. With no-referrer, browsers would give our own forms the origin "null" (G3).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
STATIC = "/static/"
SANDBOXED = "/demo/"
READY = "/health/ready"
OPEN = ("/start", "/login", BACK, "/left", READY)
MONITORED = ("/health.json", "/metrics")
MONITORING = Viewer(Principal("Service", "monitoring"), "local")


class Headed:
    """ASGI middleware: puts the headers on every answer (G2).

    Args:
        app: What answers.
        pinned: Whether browsers are to use nothing but TLS for its name.
    """

    def __init__(self, app: ASGIApp, *, pinned: bool) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        if pinned:  # [G2]
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in self._headers}
                kept = [each for each in message.get("headers", ()) if each[0].lower() not in ours]
                cached = any(name.lower() == b"cache-control" for name, _ in kept)
                stored = [] if cached else [(b"cache-control", b"no-store")]
                message = {**message, "headers": [*kept, *self._headers, *stored]}  # [G2]
            await send(message)

        await self._app(scope, receive, headed)


class Guard:
    """ASGI middleware: lets through what keeps the rules, with the viewer in the scope's state.

    Args:
        app: What answers.
        console: Whose sessions count.
    """

    def __init__(self, app: ASGIApp, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["app"] = scope.get("app") or self._app
        scope.setdefault("state", {})["viewer"] = None
        request = Request(scope, receive)
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            refused, replay = await self._look(request, receive)
            if refused is None:
                await self._app(scope, replay, noted)
                return
            response: Response = refused
        except ProblemError as problem:
            response = answer(request, problem)
        except Exception as error:
            if begun:  # answered already; what was wrong has been logged
                return
            response = answer(request, problem_of(error))
        await response(scope, receive, send)

    async def _look(self, request: Request, receive: Receive) -> tuple[Response | None, Receive]:
        """Keep G1 and G3 to G7; what is to be answered instead, if anything.

        Raises:
            ProblemError: One of them is broken.
        """
        headers, path = request.headers, request.scope["path"]
        self._host(headers)
        if request.method not in ("GET", "HEAD", "POST"):  # [G3]
            raise ProblemError(405, "Not done", "The console takes GET and POST.", headers={"Allow": "GET, HEAD, POST"})
        self._site(request)
        if path.startswith(STATIC) and request.method != "POST":
            return None, receive
        viewer = self._viewer(request)
        request.scope["state"]["viewer"] = viewer
        if viewer is not None:
            request.scope["state"]["caller"] = str(viewer.principal)
        if request.method == "POST":
            return None, await self._own(request, viewer, receive)
        if viewer is None and path not in OPEN:  # [G6]
            return self._stranger(request), receive
        return None, receive

    def _host(self, headers: Headers) -> None:
        given = headers.getlist("host")
        if len(given) != 1 or given[0].lower() not in self._names():  # [G1]
            raise ProblemError(
                421,
                "This is not the address of the console",
                "The browser asked for a name that this console does not have.",
                "Open the address that the console printed, or configure its name as url.",
            )

    def _names(self) -> frozenset[str]:
        """The hosts that it is reached by, with their ports."""
        console = self._console
        own = urlsplit(console.standing.origin)
        names = {own.netloc.lower()}
        if is_loopback(console.config.host):
            names |= {f"{each}:{own.port}" for each in ("localhost", "127.0.0.1", "[::1]")}
        if console.config.url is not None:
            named = urlsplit(console.config.url)
            names |= {named.netloc.lower(), f"{named.hostname}:{port_of(console.config.url)}"}
        return frozenset(names)

    def _site(self, request: Request) -> None:
        headers = request.headers
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site in ("same-origin", "none"):
            return
        goes = mode == "navigate" and headers.get("sec-fetch-dest", "document") == "document"
        if request.method == "POST" or not goes:  # [G4]
            raise ProblemError(403, "Not done", "Another site asked for it.", "Open the console itself.")

    def _viewer(self, request: Request) -> Viewer | None:
        console = self._console
        viewer = console.sessions.find(cookie_of(request, console.sessions.cookie))
        if viewer is not None:
            return viewer
        if console.monitoring is not None and request.method != "POST" and request.scope["path"] in MONITORED:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(token.strip().encode(), console.monitoring.encode())
            if scheme.lower() == "bearer" and same:  # [G7]
                return MONITORING
        return PUBLIC if console.config.public else None

    async def _own(self, request: Request, viewer: Viewer | None, receive: Receive) -> Receive:
        """Keep G3, G5 and G6 for a POST; gives the body to who reads it next."""
        headers = request.headers
        given = headers.getlist("origin")
        if len(given) != 1 or given[0] not in self._origins(headers):  # [G3]
            raise ProblemError(403, "Not done", "The form is not of this console.", "Open the console and try there.")
        if viewer is not None and viewer.public and request.scope["path"].startswith(SANDBOXED):
            return receive
        if viewer is None or viewer.public or not viewer.csrf:  # [G6]
            raise ProblemError(
                401 if viewer is None else 403,
                "Not done",
                "Only who has a session may change something.",
                "Open the link that the console printed when it started, or log in.",
            )
        message = await receive()
        body: bytes = message.get("body", b"")
        token = headers.get("x-csrf-token") or _field(headers, body)
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), viewer.csrf.encode()):  # [G5]
            raise ProblemError(
                403, "Not done", "The form is of another session, or an old one.", "Reload the page and try again."
            )
        handed = False

        async def again() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return message

        return again

    def _origins(self, headers: Headers) -> tuple[str, ...]:
        """What ``Origin`` a page of this console has, given the host that it asked (G1 was kept)."""
        scheme = "https" if self._console.config.secure else "http"
        return (f"{scheme}://{headers['host'].lower()}",)

    def _stranger(self, request: Request) -> Response:
        """What somebody without a session gets.

        Raises:
            ProblemError: There is no way to get one from here.
        """
        query = request.url.query
        asked = inside(request.scope["path"] + (f"?{query}" if query else ""))
        if request.headers.get("sec-fetch-site") == "cross-site":
            # Who comes by a link of another site may have a session: its cookie was not sent (SameSite=Strict).
            return door(request, asked)
        if self._console.login is None:
            raise ProblemError(
                401,
                "Open the console by its link",
                "This browser has no session here, or it has ended.",
                "Open the link that `exequatur console` printed when it started. It opens one session; start the "
                "console again for another link.",
            )
        if wants_json(request):
            raise ProblemError(401, "Log in", "The session has ended.", "Reload the page.")
        return RedirectResponse(f"/login?then={quote(asked, safe='')}", 303)


def _field(headers: Headers, body: bytes) -> str:
    """The field ``csrf`` of a form."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return ""
    try:
        found = parse_qs(body.decode("utf-8"), strict_parsing=False, max_num_fields=1000).get("csrf", [])
    except ValueError:
        return ""
    return found[0] if len(found) == 1 else ""
