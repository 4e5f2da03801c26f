"""One decision: what Cedar was told, what it said, and where to look further."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from exequatur.audit.wording import readable
from exequatur.console.decision import MAX_BODY, decision_of
from exequatur.console.entering import entered
from exequatur.console.errors import ProblemError
from exequatur.console.parts import console_of
from exequatur.console.render import page
from exequatur.lineage.record import Record
from exequatur.statements.encoding import strict_json

router = APIRouter()

_LOG = re.compile(r"[0-9a-f]{16}\Z")
_INDEX = re.compile(r"[0-9]{1,15}\Z")
LONGEST = 200_000
"""Characters of one text that are shown."""


@router.get("/governance/decision")
async def show(request: Request) -> Response:
    """The page."""
    viewer = await entered(request, "governance")
    log, index = request.query_params.get("log", ""), request.query_params.get("index", "")
    if not _LOG.match(log) or not _INDEX.match(index):
        raise ProblemError(
            400, "The address names no decision", "It needs a journal and a position.", "Choose one from the list."
        )
    record = await asyncio.to_thread(console_of(request).decisions.record, log, int(index))
    row = None if record is None else decision_of(record, 0)
    if record is None or row is None:
        raise ProblemError(
            404,
            "There is no such decision",
            "No journal or store that is followed here has it.",
            "It may have been pruned, or be in another state folder: add it with --evidence.",
        )
    said = {} if viewer.public else await asyncio.to_thread(told, record)
    return page(request, "governance_decision.html.jinja", tab="live", row=row.plain(), said=said)


def told(record: Record) -> dict[str, Any]:
    """What the record says besides the row, as texts that are hostile."""
    try:
        body = strict_json(record.body) if len(record.body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return {}
    texts = {name: body[name] for name in ("facts", "arguments", "fault", "request") if isinstance(body.get(name), str)}
    said = {name: pretty(text) if name in ("facts", "arguments") else text[:LONGEST] for name, text in texts.items()}
    vouched = body.get("vouched")
    if isinstance(vouched, dict):
        said["vouched"] = pretty(json.dumps(vouched))
    return {"head": record.head, **said}


def pretty(text: str) -> str:
    """JSON that a person reads, as far as :data:`LONGEST` goes; the text itself where it is none."""
    made: list[str] = []
    left = LONGEST
    try:
        # Bit by bit: what is deep grows a thousandfold once each level is indented.
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(json.loads(readable(text))):
            made.append(part)
            left -= len(part)
            if left < 0:
                return "".join([*made, "\n…"])
    except (ValueError, RecursionError):
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n…"
    return "".join(made)
