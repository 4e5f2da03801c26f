"""One run as a timeline: its activities as rows of plain data, page by page, and how they lie in time.

Pure over the audit's report.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exequatur.audit import wording
from exequatur.audit.report import ActivityReport, RunReport
from exequatur.console.graph import flags_of, state_of

ROWS = 200
"""Activities on a page; a browser lays them out at once."""
BUCKETS = 72
"""Columns of the overview."""
MOST_TYPES = 200
"""Activity types that a filter offers."""

SHOW = {
    "all": "All activities",
    "refused": "Denied or refused",
    "findings": "With findings",
    "again": "Tried or checked again",
    "people": "Answered by people",
    "unproven": "Without proof",
}
"""What a page can be limited to."""


@dataclass(frozen=True)
class Part:
    """Some of a run's activities.

    Args:
        rows: Of this page.
        total: How many match.
        first: Position of the first row among those, from 1.
        before: Position from which the page before begins; ``None`` on the first.
        after: The same of the page after.
    """

    rows: list[dict[str, Any]]
    total: int
    first: int
    before: int | None
    after: int | None


def part_of(run: RunReport, *, show: str = "all", kind: str = "", first: int = 1, event: int | None = None) -> Part:
    """A page of the timeline.

    Args:
        run: The run.
        show: One of :data:`SHOW`.
        kind: Only activities of this type.
        first: Position of the first row, from 1.
        event: Show the page that this event is on instead.
    """
    flags = flags_of(run)
    found = [each for each in run.activities if (not kind or each.activity_type == kind) and _shown(each, show, flags)]
    if event is not None:
        place = next((at for at, each in enumerate(found) if event in (each.event_id, each.closed_event)), 0)
        first = place - place % ROWS + 1
    first = min(max(first, 1), max(len(found), 1))
    begin, end = _span(run)
    rows = [row_of(run, each, flags, begin, end) for each in found[first - 1 : first - 1 + ROWS]]
    return Part(
        rows,
        len(found),
        first,
        max(1, first - ROWS) if first > 1 else None,
        first + ROWS if first + ROWS <= len(found) else None,
    )


def row_of(run: RunReport, activity: ActivityReport, flags: dict[int, str], begin: float, end: float) -> dict[str, Any]:
    """One activity as plain data."""
    words, tone = state_of(activity)
    end_of = activity.closed_event or activity.event_id
    place = bisect_left(run.checkpoint_sizes, end_of)
    left, width = _bar(activity, begin, end)
    return {
        "event": activity.event_id,
        "closed_event": activity.closed_event,
        "activity_id": activity.activity_id,
        "activity_type": activity.activity_type,
        "local": activity.local,
        "queue": activity.task_queue,
        "scheduled": activity.scheduled,
        "took": None if activity.closed is None else activity.closed - activity.scheduled,
        "left": left,
        "width": width,
        "label": words,
        "tone": tone,
        "flag": flags.get(activity.event_id, ""),
        "arguments": activity.arguments,
        "attempts": activity.attempts,
        "rechecks": activity.rechecks,
        "receipt": activity.receipt,
        "proof": activity.proof,
        "proof_words": wording.PROOFS[activity.proof],
        "worker": activity.worker,
        "requested_by": activity.requested_by,
        "checkpoint": run.checkpoint_sizes[place] if place < len(run.checkpoint_sizes) else None,
        "stood_on": wording.stood_on(activity),
        "decisions": [
            {
                "attempt": each.attempt,
                "decision": each.decision,
                "enforced": each.enforced,
                "decided_words": wording.decision(each),
                "recomputed": each.recomputed,
                "recomputed_words": wording.recomputed(each),
                "at": each.at,
                "policies": list(each.policies),
                "reason": each.reason,
                "bundle": each.bundle,
                "log": each.log,
                "index": each.index,
            }
            for each in activity.decisions
        ],
    }


def types_of(run: RunReport) -> list[dict[str, Any]]:
    """The activity types of a run and how often each stands in it, the commonest first."""
    counted = Counter(each.activity_type for each in run.activities)
    return [{"activity_type": name, "times": times} for name, times in counted.most_common(MOST_TYPES)]


def overview_of(run: RunReport) -> list[dict[str, Any]]:
    """How many activities were scheduled in each part of the run's time, by what came of them."""
    begin, end = _span(run)
    if not run.activities or not (math.isfinite(begin) and math.isfinite(end)):
        return []
    length = max(end - begin, 1e-9)
    buckets: list[Counter[str]] = [Counter() for _ in range(BUCKETS)]
    firsts: list[int | None] = [None] * BUCKETS
    for each in run.activities:
        share = (each.scheduled - begin) / length
        if not math.isfinite(share):
            continue
        number = min(max(int(share * BUCKETS), 0), BUCKETS - 1)
        buckets[number][_said(each)] += 1
        if firsts[number] is None:
            firsts[number] = each.event_id
    most = max(sum(each.values()) for each in buckets) or 1
    return [
        {
            "number": number,
            "event": firsts[number],
            **{name: each[name] for name in ("allow", "deny", "none")},
            **{f"{name}_height": round(60 * each[name] / most, 2) for name in ("allow", "deny", "none")},
        }
        for number, each in enumerate(buckets)
    ]


def _said(activity: ActivityReport) -> str:
    """What the gate said of it in the end: ``deny`` by policy, ``none`` where it was refused otherwise."""
    last = activity.decisions[-1] if activity.decisions else None
    if activity.outcome == "denied":
        return "deny"
    if activity.outcome in ("rejected", "revoked"):
        return "none"
    return last.decision if last is not None and not last.enforced else "allow"


def _shown(activity: ActivityReport, show: str, flags: dict[int, str]) -> bool:
    match show:
        case "refused":
            return activity.outcome in ("denied", "rejected", "revoked") or any(
                each.decision != "allow" for each in activity.decisions
            )
        case "findings":
            return activity.event_id in flags
        case "again":
            return activity.attempts > 1 or bool(activity.rechecks)
        case "people":
            return bool(activity.approved_by) or activity.outcome == "challenged" or activity.completed_by is not None
        case "unproven":
            return activity.proof in ("none", "journal") and activity.outcome != "open"
    return True


def _span(run: RunReport) -> tuple[float, float]:
    times: Sequence[float] = [
        run.started,
        *([] if run.closed is None else [run.closed]),
        *(each.scheduled for each in run.activities),
        *(each.closed for each in run.activities if each.closed is not None),
    ]
    return min(times), max(times)


def _bar(activity: ActivityReport, begin: float, end: float) -> tuple[float, float]:
    """Where in the run's time it lies: hundredths of its length."""
    length = end - begin
    if not (0 < length < math.inf):
        return 0.0, 100.0
    left = min(max((activity.scheduled - begin) / length, 0.0), 1.0) * 100
    closed = end if activity.closed is None else activity.closed
    width = min(max((closed - activity.scheduled) / length, 0.0), 1.0) * 100
    return round(min(left, 99.2), 2), round(min(max(width, 0.8), 100 - min(left, 99.2)), 2)
