"""What policies are told as ``context.behavior``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exequatur.behavior.arguments import Features
from exequatur.behavior.baseline import Baseline
from exequatur.behavior.score import score
from exequatur.lineage.event import Event, Numbers

UNSEEN_FIELDS = "fields that were never seen together"


def told_of(event: Event, numbers: Numbers, features: Features, baseline: Baseline | None) -> dict[str, Any]:
    """``context.behavior`` in Cedar's form.

    Args:
        event: What is asked.
        numbers: What was done before.
        features: Of its arguments.
        baseline: What is usual; what it does not know is compared with what the ledger has seen.
    """
    unlike: Sequence[str] | None = None if baseline is None else baseline.unlike(event.activity, features)
    if unlike is None:
        unlike = () if numbers.shape_seen else (UNSEEN_FIELDS,)
    followed = True
    if event.before is not None:  # a retry follows nothing
        known = None if baseline is None else baseline.follows(event.workflow_type, event.before, event.activity)
        followed = numbers.transition_seen if known is None else known
    points, reasons = score(numbers, new_transition=not followed, unlike=tuple(unlike))
    return {
        "last_minute": numbers.last_minute,
        "last_hour": numbers.last_hour,
        "last_day": numbers.last_day,
        "denials_last_hour": numbers.denials_last_hour,
        "novel": numbers.novel,
        "workflow_last_hour": numbers.workflow_last_hour,
        "run": {
            "count": numbers.run_count,
            "denials": numbers.run_denials,
            "seconds": numbers.run_took // 1000,
            "cost": numbers.run_cost,
        },
        "cost": event.cost,
        "cost_last_day": numbers.cost_last_day,
        "seconds_last_day": numbers.took_last_day // 1000,
        "new_transition": not followed,
        "new_arguments": bool(unlike),
        "score": points,
        "reasons": list(reasons),
    }
