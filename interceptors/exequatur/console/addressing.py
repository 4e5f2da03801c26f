"""Which run an address names, and what names a run in an address.

Rules, numbered as the code marks them:

Y1  Ids are hostile: they come as query parameters, bounded in length, and go out through ``link``.
Y2  Before a run is shown, Cedar is asked about this viewer and this workflow.
Y3  A public viewer names runs by reference only (N1 of :mod:`exequatur.console.references`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from exequatur.authority.service.bounded import network_of
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.parts import address_of, console_of, viewer_of
from exequatur.console.references import Place
from exequatur.console.searching import LONGEST


@dataclass(frozen=True)
class Named:
    """What an address names.

    Args:
        namespace: Where the run is.
        workflow_id: Its workflow id.
        run_id: Its run id; ``None`` for the latest.
    """

    namespace: str
    workflow_id: str
    run_id: str | None


async def run_of(request: Request, given: Mapping[str, str] | None = None) -> Named:
    """The run that is meant, after it was asked whether this viewer may see it.

    Args:
        request: Asks.
        given: What names it; the address' own parameters where this is left out.

    Raises:
        ProblemError: None is named, or the viewer may not see it.
    """
    asked = request.query_params if given is None else given
    if viewer_of(request).public:  # [Y3]
        if not (reference := asked.get("ref", "")):
            raise ProblemError(
                404, "The public view shows runs by its own links only", "Ids are not taken.", "Open the list of runs."
            )
        place = console_of(request).runs.references.referred(reference)
        named = Named(place.namespace, place.workflow_id, place.run_id)
    else:
        workflow_id, run_id = asked.get("workflow", ""), asked.get("run", "") or None
        if not 0 < len(workflow_id) <= LONGEST or len(run_id or "") > LONGEST:  # [Y1]
            raise ProblemError(
                400, "No run is named", "The address names none, or with more than 1,000 characters.", "Search for it."
            )
        named = Named(namespace_of(request, asked), workflow_id, run_id)
    await entered(request, "lineage", named.workflow_id)  # [Y2]
    return named


def namespace_of(request: Request, asked: Mapping[str, str]) -> str:
    """The namespace that is meant; the first one where none is named.

    Raises:
        ProblemError: It is not shown here.
    """
    shown = console_of(request).temporal.namespaces
    name = asked.get("namespace") or shown[0]
    if name not in shown:
        raise ProblemError(
            404, "That namespace is not shown here", "The console shows others.", "Start it with --namespace."
        )
    return name


def at(request: Request, place: Place) -> dict[str, str]:
    """What names a run in an address of this viewer."""
    if viewer_of(request).public:  # [Y3]
        return {"ref": console_of(request).runs.references.reference(place)}
    return {"namespace": place.namespace, "workflow": place.workflow_id, "run": place.run_id}


async def visible(request: Request, workflow_id: str) -> bool:
    """Whether this viewer may see the runs of a workflow (Y2)."""
    return (await console_of(request).governing.may_see(viewer_of(request), "lineage", workflow_id)).allowed


def who_asks(request: Request) -> str:
    """Whom work is done for: the principal, and where nobody is known the network address."""
    viewer = viewer_of(request)
    if viewer.public:
        return f"public {network_of(address_of(request))}"
    return str(viewer.principal)


def number(text: str | None, name: str) -> int | None:
    """A number out of an address; ``None`` where there is none.

    Raises:
        ProblemError: It is no number.
    """
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ProblemError(400, "The address cannot be read", f"{name} is no number.", "Go back.")
    return int(text)
