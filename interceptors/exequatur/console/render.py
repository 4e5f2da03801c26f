"""Pages and JSON: what every one of them has, and what it may show.

Rules, numbered as the code marks them:

R1  Every string is hostile: it is escaped for HTML, and its control and direction characters are written as escapes.
R2  An address is made by :func:`link`, which encodes every part that came from somewhere.
R3  What a public viewer gets went through :func:`exequatur.console.redact.redacted` first, on every path to a page or
    to JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from exequatur.audit import wording
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.redact import redacted
from exequatur.console.viewer import Viewer
from exequatur.statements.encoding import compact_json


@dataclass(frozen=True)
class Place:
    """One of the pages in the menu."""

    name: str
    title: str
    path: str
    about: str


MENU = (
    Place("governance", "Governance", "/governance", "Decisions, policies, approvals, revocations"),
    Place("lineage", "Lineage", "/lineage", "Who did what, and why it was allowed"),
    Place("proof", "Proof", "/proof", "Verify evidence in this browser"),
    Place("health", "Health", "/health", "Workers, authority, store, server"),
    Place("demo", "Demo", "/demo", "Try it: start, deny, revoke, tamper"),
)


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    at: str = "",
    own: Mapping[str, Any] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A page.

    Args:
        request: Asks for it.
        template: Its file, for example ``governance.html.jinja``.
        status: HTTP status.
        at: Name of the place in the menu that it belongs to; that of the template where it is left out.
        own: What is the viewer's own, such as a sandbox that was made for them; it is not redacted.
        values: What it shows: plain data, so that it can be redacted.
    """
    viewer = viewer_of(request)
    shown = redacted(values) if viewer.public else values  # [R3]
    text = (
        templates()
        .get_template(template)
        .render(
            **shown,
            **(own or {}),
            **_common(request, viewer, at or template.partition(".")[0].partition("_")[0]),
        )
    )
    return HTMLResponse(text, status)


def data(request: Request, body: Mapping[str, Any], status: int = 200) -> Response:
    """The same for a script: plain data as JSON, which is never HTML (R3)."""
    shown = redacted(body) if viewer_of(request).public else body  # [R3]
    return Response(json_bytes(shown), status, media_type="application/json")


def json_bytes(value: Any) -> bytes:
    """JSON, whatever numbers and surrogates somebody wrote into it."""
    return compact_json(_finite(value))


def error_page(request: Request, problem: ProblemError, text: str, step: str) -> HTMLResponse:
    """The page of an error. It shows nothing but this of the error, so it needs no viewer."""
    state = request.scope.setdefault("state", {})
    viewer: Viewer | None = state.get("viewer")
    body = (
        templates()
        .get_template("error.html.jinja")
        .render(title=problem.title, status=problem.status, text=text, step=step, **_common(request, viewer, "error"))
    )
    return HTMLResponse(body, problem.status, headers=problem.headers)


def door(request: Request, then: str) -> HTMLResponse:
    """The page that a browser goes on from once it has a session.

    The cookie is not sent on the way that began at another site (SameSite=Strict), and a redirect belongs to that way.

    Args:
        request: What opened the session.
        then: A page of this console.
    """
    return outside(request, "door.html.jinja", then=then)


def outside(request: Request, template: str, **values: str) -> HTMLResponse:
    """A page for somebody who has no session, or none yet."""
    return HTMLResponse(templates().get_template(template).render(**values, **_common(request, None, "outside")))


def link(path: str, /, **query: Any) -> Markup:
    """An address on this console, as an attribute's value.

    Args:
        path: Written in the code, not made of data.
        query: What follows it; ``None`` is left out.
    """
    asked = {name: str(value) for name, value in query.items() if value is not None}
    encoded = urlencode(asked, errors="replace", quote_via=quote, safe="")  # [R2]
    # Percent-encoded, so nothing is left in it that HTML gives a meaning to but the ampersands.
    return Markup(path + ("?" + encoded.replace("&", "&amp;") if encoded else ""))  # noqa: S704


def iso(at: float | None) -> str:
    """A time in ISO 8601 and UTC, as ``<time datetime>`` takes it; empty for what is no time of a calendar."""
    if at is None or not math.isfinite(at):
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def when(at: float | None) -> Markup:
    """A time that ``times.js`` writes in the viewer's zone."""
    if not (text := iso(at)):
        return Markup("<span>unknown</span>")
    readable = text.replace("T", " ").partition(".")[0]
    return Markup('<time datetime="{}" data-local>{} UTC</time>').format(text, readable)


@cache
def templates() -> Environment:
    """The templates of all pages."""
    environment = Environment(
        loader=PackageLoader("exequatur.console"),
        autoescape=True,  # [R1]
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"link": link, "when": when, "iso": iso, "words": wording, "menu": MENU}
    environment.filters |= {"short": short, "lines": lines, "raw": exact}
    return environment


def short(text: str, longest: int = 12) -> str:
    """The beginning of an id or digest."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def lines(text: str, most: int | None = 2000) -> Markup:
    """A text of several lines, of which each is hostile (R1).

    Args:
        text: As somebody wrote it.
        most: Lines that are shown; all of each of them for ``None``.
    """
    found = text.split("\n")
    if most is None:
        return Markup("\n").join(wording.shown(each, len(each)) for each in found)
    cut = [f"… ({len(found):,} lines)"] if len(found) > most else []
    return Markup("\n").join(wording.shown(each) for each in [*found[:most], *cut])


def exact(text: str) -> Markup:
    """A text that a form sends back unchanged: escaped for HTML, and nothing else."""
    return escape(text)


def _common(request: Request, viewer: Viewer | None, at: str) -> dict[str, Any]:
    console = console_of(request)
    return {
        "viewer": viewer,
        "public": viewer is not None and viewer.public,
        "csrf": "" if viewer is None else viewer.csrf,
        "at_place": at,
        "temporal_ui": None if viewer is None or viewer.public else console.config.temporal_ui,
        "can_login": console.login is not None,
    }


def _finalize(value: Any) -> Any:
    # [R1] What a macro returns is markup; every other string may come from a history.
    return value if isinstance(value, Markup) or not isinstance(value, str) else wording.shown(value)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {str(name): _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
