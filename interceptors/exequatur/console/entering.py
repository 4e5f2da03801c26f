"""The door of every page: whether the viewer may see it."""

from __future__ import annotations

from starlette.requests import Request

from exequatur.console.cookies import cookie_of
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.viewer import Viewer


async def entered(request: Request, page: str, workflow_id: str = "") -> Viewer:
    """The viewer, who may see the page (V1 of :mod:`exequatur.console.asking`).

    Args:
        request: Asks for it.
        page: Its name in the menu.
        workflow_id: Of the workflow that it shows, if it shows one.

    Raises:
        ProblemError: The viewer may not.
    """
    viewer = viewer_of(request)
    seen = await console_of(request).governing.may_see(viewer, page, workflow_id)
    if not seen.allowed:
        raise ProblemError(
            403,
            "You may not see this page",
            # A reason may tell of somebody (X3 of errors).
            f"{viewer.principal} may not see {page}{'' if viewer.public else f': {seen.why}'}.",
            seen.step
            or "A policy has to permit it, for example:\n"
            f'permit (principal == {viewer.principal}, action == Action::"console.view", resource)\n'
            f'when {{ context.console.page == "{page}" }};',
        )
    return viewer


async def goes_on(request: Request, viewer: Viewer, page: str) -> bool:
    """Whether a stream goes on: its viewer's session has not ended, and Cedar still lets the viewer look."""
    console = console_of(request)
    known = viewer.public or console.sessions.alive(cookie_of(request, console.sessions.cookie))
    return known and (await console.governing.may_see(viewer, page)).allowed
