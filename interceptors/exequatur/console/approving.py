"""What people are asked, and their answers.

Rules, numbered as the code marks them:

A1  An answer is about the one challenge that was shown, by the digest of all that was signed, looked up again in the
    workflow that waits: what else a form says of it is not believed. All that was signed is shown.
A2  Who answers is the session's principal, and Cedar decides (V4 of :mod:`exequatur.console.asking`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.approvals import OpenChallenge, list_challenges
from exequatur.audit.wording import readable
from exequatur.console.asking import Seen
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.forms import form_of
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.render import page
from exequatur.errors import ChallengeError
from exequatur.statements.encoding import strict_json

router = APIRouter()

_MOST_INDENTED = 100_000
"""Characters. What is deep grows a thousandfold once each level is indented."""
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
        for each in listing.challenges:
            may = {} if viewer.public else console.governing.may_answer(viewer, each.claims)
            asked.append(_told(each, namespace, console.clock()) | {"may": _may(may)})
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
    """Approve or reject. Whoever may not is denied by the policies about that, and on record."""
    console = console_of(request)
    form = await form_of(request)
    signed, workflow_id, given = (form.get(name, "") for name in ("challenge", "workflow", "verdict"))
    if given not in ("approve", "reject") or not signed or not workflow_id:
        raise ProblemError(400, "The form cannot be read", "Nothing was answered.", "Reload the list and try again.")
    verdict: Literal["approve", "reject"] = "approve" if given == "approve" else "reject"
    client = await console.temporal.client(form.get("namespace", "") or None)
    listing = await console.temporal.ask(list_challenges(client, console.governing.trusted, workflow_id=workflow_id))
    challenge = next((each for each in listing.challenges if each.challenge.digest == signed), None)  # A1
    if challenge is None:
        raise ChallengeError("Nothing waits for this answer: it was given, it has ended, or another one is asked")
    reason = form.get("reason", "") or None
    await console.temporal.ask(
        console.governing.answer(viewer_of(request), client, challenge, verdict, reason)  # A2
    )
    return RedirectResponse(f"/governance/approvals?said={verdict}{'d' if verdict == 'approve' else 'ed'}", 303)


def _may(foreseen: Mapping[Literal["approve", "reject"], Seen]) -> dict[str, Any]:
    """Which buttons there are, and why not the others."""
    why = [each.why for each in foreseen.values() if not each.allowed]
    return {name: each.allowed for name, each in foreseen.items()} | {"why": list(dict.fromkeys(why))}


def _told(each: OpenChallenge, namespace: str, now: float) -> dict[str, Any]:
    claims = each.claims
    arguments = f"not told, because they are too long; their digest is {claims.args}"
    if claims.arguments is not None:
        arguments = readable(claims.arguments)
        with contextlib.suppress(ValueError, RecursionError):
            indented = json.dumps(strict_json(arguments), indent=2, ensure_ascii=False)
            if len(indented) < _MOST_INDENTED:
                arguments = indented
    return {
        "id": each.id,
        "challenge": each.challenge.digest,
        "activity": claims.activity_type,
        "arguments": arguments,
        "args_digest": claims.args,
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
