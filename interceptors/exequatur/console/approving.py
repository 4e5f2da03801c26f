"""What people are asked, and their answers.

Rules, numbered as the code marks them:

A1  An answer is about one challenge by its whole id, looked up again in the workflow that waits: what a form says of it
    is not believed.
A2  Who answers is the session's principal, and Cedar decides (V4 of :mod:`exequatur.console.asking`).
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.approvals import OpenChallenge, list_challenges, named
from exequatur.audit.wording import readable
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.forms import form_of
from exequatur.console.parts import console_of
from exequatur.console.render import page
from exequatur.errors import ChallengeError
from exequatur.statements.encoding import strict_json

router = APIRouter()

_ID = 43
"""Characters of a request's id: a digest."""
SAID = {"approved": "Your approval was signed and sent to the run.", "rejected": "Your rejection was sent to the run."}


@router.get("/governance/approvals")
async def show(request: Request) -> Response:
    """The list."""
    viewer = await entered(request, "governance")
    console = console_of(request)
    asked: list[dict[str, Any]] = []
    problem, refused, complete = None, 0, True
    for namespace in console.temporal.namespaces:
        try:
            client = await console.temporal.client(namespace)
            listing = await console.temporal.ask(list_challenges(client, console.governing.trusted))
        except ServerAwayError as error:
            problem = f"{error.title}: {error.text}"
            break
        except ChallengeError as error:
            problem = str(error)
            continue
        refused += len(listing.refused)
        complete = complete and listing.complete
        asked += [_told(each, namespace, console.clock()) for each in listing.challenges]
    return page(
        request,
        "governance_approvals.html.jinja",
        tab="approvals",
        asked=asked,
        problem=problem,
        refused=refused,
        complete=complete,
        said=SAID.get(request.query_params.get("said", "")),
        principal=str(viewer.principal),
    )


@router.post("/governance/approvals")
async def answer(request: Request) -> Response:
    """Approve or reject."""
    viewer = await entered(request, "governance")
    console = console_of(request)
    form = await form_of(request)
    identity, workflow_id = form.get("id", ""), form.get("workflow", "")
    given = form.get("verdict", "")
    if given not in ("approve", "reject") or len(identity) != _ID:
        raise ProblemError(400, "The form cannot be read", "Nothing was answered.", "Reload the list and try again.")
    verdict: Literal["approve", "reject"] = "approve" if given == "approve" else "reject"
    client = await console.temporal.client(form.get("namespace", "") or None)
    listing = await console.temporal.ask(
        list_challenges(client, console.governing.trusted, workflow_id=workflow_id)  # [A1]
    )
    challenge = named(listing, identity)  # [A1]
    reason = form.get("reason", "") or None
    await console.temporal.ask(console.governing.answer(viewer, client, challenge, verdict, reason))  # A2
    return RedirectResponse(f"/governance/approvals?said={verdict}{'d' if verdict == 'approve' else 'ed'}", 303)


def _told(each: OpenChallenge, namespace: str, now: float) -> dict[str, Any]:
    claims = each.claims
    arguments = "not told, because they are too long"
    if claims.arguments is not None:
        arguments = readable(claims.arguments)
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.dumps(strict_json(arguments), indent=2, ensure_ascii=False)
    return {
        "id": each.id,
        "activity": claims.activity_type,
        "arguments": arguments,
        "principal": claims.sub,
        "namespace": namespace,
        "workflow_id": claims.workflow_id,
        "workflow_type": claims.workflow_type,
        "run_id": each.run_id,
        "reason": claims.reason,
        "policies": list(claims.policies),
        "issued_at": claims.iat,
        "ends_at": claims.exp,
        "asked": [
            {"group": need.group, "quorum": need.quorum, "agreed": list(each.agreed(need.group, now))}
            for need in claims.needs
        ],
        "answers": [
            {"by": one.sub, "verdict": one.verdict, "reason": one.reason, "given_at": one.iat} for one in each.answers
        ],
        "complete": each.complete,
    }
