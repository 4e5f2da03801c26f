"""Decisions as they happen: a table that follows by server-sent events, with filters that are part of the address.

Rules, numbered as the code marks them:

T1  What a viewer may not see is not to be found out by filtering: where names are redacted, they are no filter.
T2  A stream is bounded: so many rows in one batch, so many streams at a time. What is not sent is counted, and said.
T3  A stream ends when its session does, or when Cedar does not let the viewer look any more.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from exequatur.console.cookies import cookie_of
from exequatur.console.decision import COUNTED, Decision
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.evidence import Counts
from exequatur.console.parts import Console, address_of, console_of
from exequatur.console.redact import redacted
from exequatur.console.render import json_bytes, page
from exequatur.console.viewer import Viewer

router = APIRouter()

EVERY = 0.2
"""Seconds between two batches."""
ROWS = 300
"""Rows in one batch, and on the page: as many as its table holds."""
_LOOK_EVERY = 2.0
"""Seconds after which a stream looks again whether its viewer may look."""
_PING_EVERY = 10.0
_LONGEST = 500
"""Characters of a filter."""
_PROBLEMS = 10
"""Sources that cannot be read and are named."""
_PLACE = re.compile(r"([0-9]{1,15})(?:-([0-9a-f]{8}))?\Z")
"""A place in a ring, and which ring."""
_OUTCOMES = ("allow", "deny", "none")
_KINDS = ("shadow", "receipt", "authority", "nexus", "decision", "message")


@dataclass(frozen=True)
class Filter:
    """Which decisions are wanted; empty for any. Texts are found anywhere in what they are about."""

    principal: str = ""
    activity: str = ""
    outcome: str = ""
    policy: str = ""
    workflow: str = ""
    kind: str = ""

    @classmethod
    def of(cls, request: Request, viewer: Viewer) -> Filter:
        """What an address asks for.

        Raises:
            ProblemError: There is no such outcome or kind.
        """
        given = {each.name: request.query_params.get(each.name, "").strip()[:_LONGEST] for each in fields(cls)}
        if viewer.public:  # [T1]
            given |= {"principal": "", "workflow": ""}
        for name, known in (("outcome", _OUTCOMES), ("kind", _KINDS)):
            if given[name] and given[name] not in known:
                text = f"There is no such {name}: it is {', '.join(known[:-1])} or {known[-1]}."
                raise ProblemError(400, "That cannot be searched for", text, "Change what is searched for.")
        return cls(**given)

    def wants(self, row: Decision) -> bool:
        """Whether it is one of them."""
        return (
            (row.kind == self.kind if self.kind else row.kind in COUNTED)
            and (not self.outcome or row.outcome == self.outcome)
            and _in(self.principal, row.principal)
            and _in(self.activity, row.action)
            and (_in(self.workflow, row.workflow_id) or self.workflow == row.run_id)
            and (not self.policy or any(_in(self.policy, each) for each in row.policies))
        )

    def plain(self) -> dict[str, str]:
        """What was asked for, by name; what was not is left out."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}


def _in(wanted: str, text: str) -> bool:
    return not wanted or wanted.casefold() in text.casefold()


@router.get("/governance")
async def show(request: Request) -> Response:
    """The page, which needs no script to show what was decided when it was asked for."""
    viewer = await entered(request, "governance")
    decisions = console_of(request).decisions
    wanted = Filter.of(request, viewer)
    batch = decisions.since(0)
    found = await _wanted(batch.rows, wanted)
    problems = list(decisions.problems.values())
    return page(
        request,
        "governance_live.html.jinja",
        tab="live",
        rows=[row.plain() for row in reversed(found[-ROWS:])],
        found=len(found),
        stream_place=f"{batch.place}-{decisions.began}",
        counts=told(decisions.counts(), minutes=True),
        asked=wanted.plain(),
        names={
            "activities": _commonest(row.action for row in batch.rows[-5000:]),
            "principals": [] if viewer.public else _commonest(row.principal for row in batch.rows[-5000:]),
            "policies": _commonest(each for row in batch.rows[-5000:] for each in row.policies),
        },
        problems=problems[:_PROBLEMS],
        more_problems=max(0, len(problems) - _PROBLEMS),
        kinds=list(_KINDS),
    )


@router.get("/governance/events")
async def events(request: Request) -> Response:
    """The stream: batches of rows, and counts."""
    viewer = await entered(request, "governance")
    console = console_of(request)
    given = request.headers.get("last-event-id") or request.query_params.get("after", "")
    named = _PLACE.match(given)
    if given and not named:
        raise ProblemError(
            400, "The address cannot be read", "after: it is no place in the stream.", "Reload the page."
        )
    address = address_of(request)
    if not console.streams.free(address):  # [T2]
        raise ProblemError(
            503, "Too many look at once", "Too many pages follow what is decided.", "Close some.", {"Retry-After": "10"}
        )
    place = int(named[1]) if named else console.decisions.place
    fresh = named is not None and (named[2] or console.decisions.began) != console.decisions.began
    stream = _stream(request, console, viewer, Filter.of(request, viewer), 0 if fresh else place, address, fresh)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _stream(
    request: Request, console: Console, viewer: Viewer, wanted: Filter, place: int, address: str, fresh: bool
) -> AsyncIterator[bytes]:
    decisions = console.decisions
    cookie = cookie_of(request, console.sessions.cookie)
    looked = said = time.monotonic()
    counted = 0.0
    with console.streams.taken(address):
        yield b"retry: 1000\n\n"
        while not console.standing.stopping:
            now = time.monotonic()
            if now - looked >= _LOOK_EVERY:
                known = viewer.public or console.sessions.alive(cookie)
                if not known or not (await console.governing.may_see(viewer, "governance")).allowed:  # [T3]
                    yield _event("ended", {"title": "Your session has ended"})
                    return
                looked = now
            batch = decisions.since(place)
            found = await _wanted(batch.rows, wanted)
            body: dict[str, Any] = {}
            if found or batch.lost or fresh:
                sent = found[-ROWS:]  # [T2]
                body = {
                    "rows": [row.plain() for row in sent],
                    "skipped": len(found) - len(sent),
                    "lost": batch.lost,
                    "fresh": fresh,  # the console was started again: what the page has may come once more
                }
                fresh = False
            if batch.rows or now - counted >= _LOOK_EVERY:
                minutes = now - counted >= _LOOK_EVERY
                body["counts"] = told(decisions.counts(), minutes=minutes)
                counted = now if minutes else counted
            if body:
                said = now
                place = batch.place
                yield _event("batch", redacted(body) if viewer.public else body, f"{place}-{decisions.began}")
            elif now - said >= _PING_EVERY:
                said = now
                yield b": still here\n\n"
            place = batch.place
            await asyncio.sleep(EVERY)


async def _wanted(rows: Sequence[Decision], wanted: Filter) -> list[Decision]:
    """The rows that a filter lets through, the oldest first; many of them without holding up the event loop."""

    def found() -> list[Decision]:
        # Each journal comes in its order, and they come one after the other.
        return sorted((row for row in rows if wanted.wants(row)), key=lambda row: row.order)

    return found() if len(rows) <= ROWS else await asyncio.to_thread(found)


def _event(name: str, body: dict[str, Any], place: str = "") -> bytes:
    # JSON has no line breaks, so nothing in it ends the event.
    identity = f"id: {place}\n" if place else ""
    return f"event: {name}\n{identity}data: ".encode() + json_bytes(body) + b"\n\n"


def told(counts: Counts, *, minutes: bool) -> dict[str, Any]:
    """The numbers for the page.

    Args:
        counts: What was counted.
        minutes: Whether the last minutes are told, too.
    """
    said: dict[str, Any] = {
        "total": counts.total,
        **counts.outcomes,
        "observed": counts.observed,
        "disagreements": counts.shadow,
        "rate": round(counts.rate, 1),
    }
    if minutes:
        said["minutes"] = [[at, *(each.get(name, 0) for name in _OUTCOMES)] for at, each in counts.minutes]
    return said


def _commonest(names: Any, most: int = 50) -> Sequence[str]:
    counted: dict[str, int] = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    return sorted(sorted(counted, key=lambda name: -counted[name])[:most])
