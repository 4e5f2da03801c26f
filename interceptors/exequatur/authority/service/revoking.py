"""``/v1/revocations``: the feed for those who follow it, and what is added to it.

Rules, numbered as the code marks them:

H32  Nothing is revoked, and nothing lifted, without Cedar's strict allow of ``revocation.add`` or ``revocation.lift``
     for exactly that. It is in the evidence, and on disk, before the answer.
H33  Lifting is asked about with what the entry revokes, so that a policy can tell the kill switch from a grant. What
     is revoked does not stand in its way, only that who asks is.
H34  The feed names people and reasons: only who shows a credential reads it.
"""

from __future__ import annotations

from typing import Any

from exequatur.authority.api import FeedPage, RevocationBody, Revoked
from exequatur.authority.asking import Asking
from exequatur.authority.service.answers import Refused, invalid
from exequatur.errors import ConfigurationError
from exequatur.identity.callers import Identified
from exequatur.policy.told import LIFT_ACTION, REVOKE_ACTION
from exequatur.revocation.entry import NAMES, Revocation, revocation
from exequatur.revocation.feed import Page


async def revoke(asking: Asking, body: RevocationBody, caller: Identified) -> Revoked:
    """Add an entry to the feed.

    Raises:
        Refused: There is no such entry to lift, or nothing is named.
        AuthorizationDenied: H32.
        AuthorizationUnavailable: It cannot be decided or recorded.
        ExequaturError: It could not be written; nothing was revoked.
    """
    gate = asking.gate
    fields = body.model_dump()
    try:
        entry = revocation(at=gate.clock(), **fields)
    except ConfigurationError as err:
        raise invalid(str(err)) from None
    about = entry
    if entry.lifts is not None:
        gate.revocations.refresh()
        entries = gate.revocations.entries
        if entry.lifts > len(entries):
            raise Refused(404, "not_found", f"The feed has no entry {entry.lifts}")
        about = entries[entry.lifts - 1]  # [H33]
    action = REVOKE_ACTION if entry.lifts is None else LIFT_ACTION
    await asking.ask(  # [H32]
        caller.principal,
        action,
        about.workflow or "",
        {"revocation": _told(about, entry.reason)},
        what="revoke that" if entry.lifts is None else f"lift revocation {entry.lifts}",
        acting=caller.acting,
        record={"entry": entry.model_dump(exclude_defaults=True)},
        despite_everything=True,  # [H33]
    )
    try:
        return Revoked(version=gate.revocations.add(entry))
    except ConfigurationError as err:
        raise invalid(str(err)) from None


def _told(entry: Revocation, reason: str) -> dict[str, Any]:
    named = {name: value for name in NAMES if (value := getattr(entry, name)) is not None}
    return {"everything": entry.everything, "reason": reason, **named}


def page_body(page: Page) -> FeedPage:
    """A page as it is sent."""
    entries = tuple(each.model_dump(exclude_defaults=True) for each in page.entries)
    return FeedPage(head=page.head, entries=entries, more=page.more)
