"""Runs that the evidence tells of, as far as the console remembers it: also while the server is away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exequatur.console.decision import COUNTED, Decision

MOST = 2_000
"""Runs that are told of."""
MOST_ROWS = 500
_PRINCIPALS = 5


@dataclass
class Known:
    """What is known of a run.

    Args:
        workflow_id: Its workflow id.
        run_id: Its run id.
        first: When it was first told of, in seconds since 1970.
        last: The same, last.
        allowed: Decisions that allowed something.
        refused: Those that did not.
        principals: On whose behalf.
    """

    workflow_id: str
    run_id: str
    first: float
    last: float
    allowed: int = 0
    refused: int = 0
    principals: set[str] = field(default_factory=set)


def known_runs(rows: Sequence[Decision]) -> dict[tuple[str, str], Known]:
    """The runs that decisions are about, the latest :data:`MOST` of them."""
    found: dict[tuple[str, str], Known] = {}
    for row in reversed(rows):
        if row.kind not in COUNTED or not row.workflow_id or not row.run_id:
            continue
        key = (row.workflow_id, row.run_id)
        known = found.get(key)
        if known is None:
            if len(found) >= MOST:
                continue
            known = found[key] = Known(row.workflow_id, row.run_id, row.at, row.at)
        known.first, known.last = min(known.first, row.at), max(known.last, row.at)
        known.allowed += row.outcome == "allow"
        known.refused += row.outcome != "allow"
        if row.principal and len(known.principals) < _PRINCIPALS:
            known.principals.add(row.principal)
    return found


def rows_of(rows: Sequence[Decision], workflow_id: str, run_id: str | None) -> list[dict[str, Any]]:
    """The decisions about a run, or about all runs of a workflow, as plain data."""
    mine = [
        row.plain()
        for row in rows
        if row.workflow_id == workflow_id and run_id in (None, row.run_id) and row.kind in COUNTED
    ]
    return mine[-MOST_ROWS:]
