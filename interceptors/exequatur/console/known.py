"""Runs that the evidence tells of, as far as the console remembers it: also while the server is away.

On whose behalf a run acts, its activities' decisions say, and where there is none, what permitted its start. Who sends
a message, approves or resets is not who it is done for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exequatur.console.decision import COUNTED, Decision
from exequatur.policy.told import START_ACTION

MOST = 2_000
"""Runs, and started workflows, that are told of."""
MOST_ROWS = 500
_PRINCIPALS = 5
_STARTS = 100
"""Of one workflow id."""
_APART = 60.0
"""Seconds by which the clock that a start was permitted by may be ahead of the server's."""


@dataclass
class Known:
    """What is known of a run.

    Args:
        workflow_id: Its workflow id.
        run_id: Its run id.
        first: When it was first told of, in seconds since 1970.
        allowed: Decisions that allowed something.
        denied: Those by which policies denied it.
        refused: Those that refused it before policies were asked.
        observed: How many of the denied and refused went on, because the gate only observed.
        decided: Whether an activity of it was decided.
        principals: On whose behalf, as those decisions say.
    """

    workflow_id: str
    run_id: str
    first: float
    allowed: int = 0
    denied: int = 0
    refused: int = 0
    observed: int = 0
    decided: bool = False
    principals: set[str] = field(default_factory=set)


class Told:
    """What decisions tell of runs: of the latest :data:`MOST`.

    Args:
        rows: The decisions, the oldest first.
    """

    def __init__(self, rows: Sequence[Decision]) -> None:
        self.runs: dict[tuple[str, str], Known] = {}
        """By workflow id and run id."""
        self._starts: dict[str, list[tuple[float, str]]] = {}
        """When a start of the workflow was permitted, and for whom, the latest first. The run has no id by then."""
        for row in reversed(rows):
            if row.kind not in COUNTED or not row.workflow_id:
                continue
            if row.run_id:
                self._count(row)
            elif row.action == START_ACTION and row.outcome == "allow" and row.principal:
                starts = self._starts.get(row.workflow_id)
                if starts is None and len(self._starts) < MOST:
                    starts = self._starts[row.workflow_id] = []
                if starts is not None and len(starts) < _STARTS:
                    starts.append((row.at, row.principal))

    def _count(self, row: Decision) -> None:
        key = (row.workflow_id, row.run_id)
        known = self.runs.get(key)
        if known is None:
            if len(self.runs) >= MOST:
                return
            known = self.runs[key] = Known(*key, row.at)
        known.first = min(known.first, row.at)
        known.allowed += row.outcome == "allow"
        known.denied += row.outcome == "deny"
        known.refused += row.outcome == "none"
        known.observed += row.outcome != "allow" and not row.enforced
        if row.kind == "decision":
            known.decided = True
            if row.principal and len(known.principals) < _PRINCIPALS:
                known.principals.add(row.principal)

    def principals(self, workflow_id: str, run_id: str, started: float) -> list[str]:
        """On whose behalf a run acts; nobody where the evidence of late does not say.

        Args:
            workflow_id: Its workflow id.
            run_id: Its run id.
            started: When it started, in seconds since 1970.
        """
        known = self.runs.get((workflow_id, run_id))
        if known is not None and known.decided:
            return sorted(known.principals)
        starts = self._starts.get(workflow_id, ())
        before = [each for each in starts if each[0] <= started]
        if before:
            return [max(before)[1]]
        after = [each for each in starts if each[0] <= started + _APART]
        return [min(after)[1]] if after else []

    def workflows(self, who: str) -> list[str]:
        """Ids of workflows whose runs may act on behalf of a principal, those told of last first.

        Args:
            who: A part of the principal.
        """
        found = {
            each.workflow_id: each.first
            for each in reversed(self.runs.values())
            if any(who in name for name in each.principals)
        }
        for workflow_id, starts in self._starts.items():
            at = max((at for at, name in starts if who in name), default=None)
            if at is not None:
                found[workflow_id] = max(at, found.get(workflow_id, at))
        return sorted(found, key=lambda each: -found[each])


def rows_of(rows: Sequence[Decision], workflow_id: str, run_id: str | None) -> list[dict[str, Any]]:
    """The decisions about a run, or about all runs of a workflow, as plain data."""
    mine = [
        row.plain()
        for row in rows
        if row.workflow_id == workflow_id and run_id in (None, row.run_id) and row.kind in COUNTED
    ]
    return mine[-MOST_ROWS:]
