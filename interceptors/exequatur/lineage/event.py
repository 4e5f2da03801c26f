"""What a ledger holds: what was asked for and what came of it, in one order.

An event is never changed. What is not known when something is asked (that it was denied, how long it ran) is an event
of its own that names the first by its position, so that whoever reads the events up to a position knows what the one
who wrote there knew.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from exequatur.statements.encoding import compact_json
from exequatur.statements.models import Part

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
"""Milliseconds."""
MAX_COST = 10**12
"""Of one activity: nine million of them still fit 64 bits."""

Long = Annotated[int, Field(ge=0, lt=2**63)]


class Event(Part):
    """One entry of a ledger.

    Args:
        kind: ``asked``: an attempt asked to run, and its cost is reserved. About an earlier one of these: ``denied``,
            by policy; ``voided``, it was refused before a policy was asked or could not be decided, and counts for
            nothing; ``ended``, its body is over.
        at: Milliseconds since 1970, by the clock of the host that asked; of ``denied`` and ``voided`` those of what
            they are about, so that both leave a window together.
        principal: As ``Type::"id"``.
        workflow_type: Empty where no workflow asked.
        run: First execution run id of the workflow, so that nothing begins anew with continue-as-new or a reset; or the
            activity's own run.
        activity: Activity type.
        attempt: From 1.
        before: The activity type that the run asked for before; empty for the first, and ``None`` in a retry.
        shape: Digest of which fields the arguments have.
        cost: What it costs; of ``denied`` and ``voided`` what is given back.
        took: Milliseconds; only of ``ended``.
        of: Position of what it is about; ``None`` of ``asked``.
    """

    kind: Literal["asked", "denied", "voided", "ended"]
    at: Long
    principal: str
    workflow_type: str
    run: str
    activity: str
    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    before: str | None = None
    shape: str = ""
    cost: Annotated[int, Field(ge=0, le=MAX_COST)] = 0
    took: Long = 0
    of: Long | None = None


class Numbers(Part):
    """What was done before something was asked; the exact meaning is :func:`exequatur.behavior.tally.tally`."""

    last_minute: int = 0
    last_hour: int = 0
    last_day: int = 0
    denials_last_hour: int = 0
    novel: bool = True
    workflow_last_hour: int = 0
    run_count: int = 0
    run_denials: int = 0
    run_took: int = 0
    run_cost: int = 0
    cost_last_day: int = 0
    took_last_day: int = 0
    transition_seen: bool = False
    shape_seen: bool = False


class Counted(Part):
    """An event in its place.

    Args:
        ledger: Id of the ledger.
        position: From 0.
        event: The event.
    """

    ledger: str
    position: Long
    event: Event

    def record(self) -> bytes:
        """The body of the journal's record of it."""
        return compact_json(self.model_dump(mode="json", exclude_defaults=True))
