"""What is revoked: the feed, revoking, the kill switch, and lifting.

Rules, numbered as the code marks them:

K1  Nothing is revoked or lifted without a reason, and without the person typing what it is about: the name that is
    revoked, :data:`EVERYTHING` for the kill switch, the number that is lifted.
    Who slips gets the form again as it was filled in, but for what has to be typed once more.
K2  Who does it is the session's principal, and Cedar decides (V4 of :mod:`exequatur.console.asking`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from exequatur.authority.api import RevocationBody
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError, wants_json
from exequatur.console.forms import form_of
from exequatur.console.parts import console_of, viewer_of
from exequatur.console.render import page
from exequatur.identity.principal import Principal
from exequatur.policy.told import LIFT_ACTION, REVOKE_ACTION
from exequatur.revocation.entry import NAMES, Revocation
from exequatur.revocation.feed import Feed

router = APIRouter()

EVERYTHING = "revoke everything"
WHAT = {
    "principal": 'Principal, as Type::"id"',
    "workflow": "Workflow id",
    "activity": "Activity type",
    "grant": "Grant, by its jti",
    "worker": "Worker, by its SPIFFE id",
    "key": "Key, by its thumbprint",
    "code": "Code, by its digest",
    "bundle": "Policy bundle, by its digest",
}
LASTS = {"": "until it is lifted", "1800": "30 minutes", "7200": "2 hours", "43200": "12 hours", "604800": "7 days"}
SAID = {
    "revoked": "Revoked. What matches ends within seconds, and is refused where it comes.",
    "lifted": "Lifted. What it revoked may be asked for again.",
    "everything": "Everything is revoked. Nothing runs until this is lifted.",
}
_MOST = 500
"""Entries that are shown, the newest."""
_LONGEST = 1000
"""Characters of one field that are shown again."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")


class _SlipError(ValueError):
    """Nothing is done, because of one field of the form."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@router.get("/governance/revocations")
async def show(request: Request) -> Response:
    """The feed, and what to do about it."""
    return await _page(request, None)


async def _page(request: Request, slip: Mapping[str, str] | None) -> Response:
    """The page, with what was typed and what is wrong about it, if anything is."""
    viewer = await entered(request, "governance")
    console = console_of(request)
    may = {
        "add": await console.governing.may_ever(viewer, REVOKE_ACTION),
        "lift": await console.governing.may_ever(viewer, LIFT_ACTION),
    }
    revocations = console.governing.gate.revocations
    feed, now = revocations.feed, console.clock()
    entries = [_told(feed, number, each, now) for number, each in enumerate(feed.entries, 1)]
    params = request.query_params
    what = next((name for name in WHAT if params.get(name)), "")
    return page(
        request,
        "governance_revocations.html.jinja",
        status=200 if slip is None else 400,
        tab="revocations",
        entries=entries[::-1][:_MOST],
        hidden=max(0, len(entries) - _MOST),
        everything=any(each.everything for _, each in feed.standing(now)),
        problem=revocations.doubt(),
        kinds=list(WHAT.items()),
        lasts=list(LASTS.items()),
        phrase=EVERYTHING,
        prefilled={"what": what, "value": params.get(what, "")[:_LONGEST] if what else "", "lasts": "", "reason": ""},
        slip=slip,
        may=may,
        principal=str(viewer.principal),
        said=SAID.get(params.get("said", "")),
    )


@router.post("/governance/revocations")
async def revoke(request: Request) -> Response:
    """Revoke, switch everything off, or lift. Whoever may not is denied by the policies about that, and on record."""
    form = await form_of(request)
    try:
        said, body = _asked(form, console_of(request).clock())
    except _SlipError as error:
        if wants_json(request):
            raise ProblemError(400, "Nothing was changed", str(error), "Go back and correct it.") from None
        number = form.get("lifts", "")[:10]
        named = number or ("everything" if form.get("everything", "") else "revoke")
        typed = {name: form.get(name, "")[:_LONGEST] for name in ("what", "value", "lasts", "reason")}
        return await _page(request, {**typed, "form": named, "field": error.field, "text": str(error)})
    await console_of(request).governing.revoke(viewer_of(request), body)  # K2
    return RedirectResponse(f"/governance/revocations?said={said}", 303)


def _asked(form: Mapping[str, str], now: float) -> tuple[str, RevocationBody]:
    """What is to be done, and what was typed for it.

    Raises:
        _SlipError: K1.
    """
    said, fields = _named(form, now)
    reason = form.get("reason", "")
    if not reason:  # [K1]
        raise _SlipError("reason", "Say why: those whose work ends read it.")
    try:
        return said, RevocationBody.model_validate({"reason": reason, **fields})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = "reason" if first["loc"][:1] == ("reason",) else "value"
        raise _SlipError(field, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _named(form: Mapping[str, str], now: float) -> tuple[str, dict[str, Any]]:
    typed, lifts = form.get("confirm", ""), form.get("lifts", "")
    if lifts:
        if not _NUMBER.match(lifts) or typed != lifts:  # [K1]
            raise _SlipError("confirm", f"To lift revocation {lifts[:10]}, type its number.")
        return "lifted", {"lifts": int(lifts)}
    if form.get("everything", ""):
        if typed != EVERYTHING:  # [K1]
            raise _SlipError("confirm", f"To revoke everything, type: {EVERYTHING}")
        return "everything", {"everything": True}
    what, value, lasts = form.get("what", ""), form.get("value", ""), form.get("lasts", "")
    if what not in NAMES or not value or lasts not in LASTS:
        field = "what" if what not in NAMES else "value" if not value else "lasts"
        raise _SlipError(field, "Say what is to be revoked, and for how long.")
    if typed != value:  # [K1]
        raise _SlipError("confirm", "Type once more what is to be revoked; the two were not the same.")
    if what == "principal":
        try:
            value = str(Principal.parse(value))
        except ValueError as error:
            raise _SlipError("value", f"{error}.") from None
    return "revoked", {what: value, **({"until": round(now + float(lasts), 3)} if lasts else {})}


def _told(feed: Feed, number: int, entry: Revocation, now: float) -> dict[str, Any]:
    lifted = feed.lifted_by(number)
    if entry.lifts is not None:
        state = "lifts"
    elif lifted is not None:
        state = "lifted"
    else:
        state = "in force" if entry.stands(now) else "ended"
    return {
        "number": number,
        "entered_at": entry.at if math.isfinite(entry.at) else None,
        "state": state,
        "by_number": lifted,
        "lifts": entry.lifts,
        "everything": entry.everything,
        "named": [{"kind": name, "value": value} for name, value in entry.named.items()],
        "reason": entry.reason,
        "until_at": entry.until,
    }
