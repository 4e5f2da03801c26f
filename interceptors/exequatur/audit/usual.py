"""What a history teaches a baseline: which activities ran, in which order, and with what."""

from __future__ import annotations

from exequatur.audit.activities import activities_of
from exequatur.audit.history import RunHistory
from exequatur.behavior.arguments import features_of
from exequatur.behavior.baseline import Learner, Ran


def learn(learner: Learner, history: RunHistory) -> int:
    """Learn from a run.

    What the gate refused is left out: it did not run, so it is no example. A local activity teaches what it follows,
    but no arguments, because the history does not have them.

    Args:
        learner: Gets what is learned.
        history: As user code wrote its payloads. It is not verified: learn from runs that were audited.

    Returns:
        How many activities there were.
    """
    ran = []
    for each in activities_of(history):
        if each.our_failure is not None or not each.activity_type:
            continue
        known = [(payload.metadata.get("encoding", b""), payload.data) for payload in each.input]
        ran.append(
            Ran(
                each.activity_type,
                each.event.event_id,
                None if each.ended is None else each.ended.event_id,
                None if each.local else features_of(known),
            )
        )
    learner.add(history.started.workflow_type.name, ran)
    return len(ran)
