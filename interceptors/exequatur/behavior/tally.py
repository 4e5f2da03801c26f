"""What was done before, added up from the events of a ledger.

This is the meaning of the numbers. The ledger's database adds them up in the same way, which the tests compare, and an
audit adds them up here.

Rules, numbered as the code marks them:

T1  Only what stands before in the ledger counts, whatever the clocks of the hosts say.
T2  A window of time ends at the moment of what is asked, by the clock of the host that asks, and has no upper end:
     what a host with a fast clock did is never forgotten.
T3  What was denied counts as asked and gives back its cost; what was voided counts for nothing. Both from the place on
     where the ledger says so: until then the cost is reserved.
"""

from __future__ import annotations

from collections.abc import Iterable

from exequatur.lineage.event import DAY, HOUR, MINUTE, Event, Numbers


def tally(before: Iterable[tuple[int, Event]], asked: Event) -> Numbers:
    """Add up what stands before something that is asked.

    Args:
        before: The events before it with their positions, in order (T1).
        asked: What is asked; its ``before`` is known.

    Returns:
        ``last_minute``, ``last_hour``, ``last_day``: how often this principal asked for this activity.
        ``denials_last_hour``: how often this principal was denied, whatever it asked for. ``novel``: it never ran this
        activity. ``workflow_last_hour``: how often anybody asked for this activity in workflows of this type.
        ``run_*``: count, denials, milliseconds and cost of the run. ``cost_last_day``, ``took_last_day``: cost and
        milliseconds of this principal.
        ``transition_seen``, ``shape_seen``: somebody ran this activity right after the same one in a workflow of this
        type, and with the same fields in its arguments.
    """
    counts = dict.fromkeys(("last_minute", "last_hour", "last_day", "denials_last_hour", "workflow_last_hour"), 0)
    counts |= dict.fromkeys(("run_count", "run_denials", "run_took", "run_cost", "cost_last_day", "took_last_day"), 0)
    ran, followed, shaped = set[int](), set[int](), set[int]()
    for position, event in before:
        once = 1 if event.kind == "asked" else -1 if event.kind == "voided" else 0  # [T3]
        denied = int(event.kind == "denied")
        cost = event.cost if event.kind == "asked" else -event.cost  # [T3]
        age = asked.at - event.at
        mine, same = event.principal == asked.principal, event.activity == asked.activity
        flow = same and event.workflow_type == asked.workflow_type
        if mine and same:
            for name, window in (("last_minute", MINUTE), ("last_hour", HOUR), ("last_day", DAY)):
                counts[name] += once * (age < window)  # [T2]
        counts["denials_last_hour"] += denied * (mine and age < HOUR)
        counts["cost_last_day"] += cost * (mine and age < DAY)
        counts["took_last_day"] += event.took * (mine and age < DAY)
        counts["workflow_last_hour"] += once * (flow and age < HOUR)
        if event.run == asked.run:
            counts["run_count"] += once
            counts["run_denials"] += denied
            counts["run_took"] += event.took
            counts["run_cost"] += cost
        if event.kind == "asked":
            if mine and same:
                ran.add(position)
            if flow and event.before is not None and event.before == (asked.before or ""):
                followed.add(position)
            if same and event.shape == asked.shape:
                shaped.add(position)
        elif event.kind != "ended" and event.of is not None:
            for known in (ran, followed, shaped):
                known.discard(event.of)
    return Numbers(novel=not ran, transition_seen=bool(followed), shape_seen=bool(shaped), **counts)


def before_in(events: Iterable[tuple[int, Event]], run: str) -> str:
    """The activity that a run asked for last and was not refused; retries are not among them.

    Args:
        events: Those before, with their positions, in order.
        run: The run, as events name it.
    """
    asked: dict[int, str] = {}
    for position, event in events:
        if event.run != run:
            continue
        if event.kind == "asked" and event.before is not None:
            asked[position] = event.activity
        elif event.kind in ("denied", "voided") and event.of is not None:
            asked.pop(event.of, None)
    return asked[max(asked)] if asked else ""
