"""Which runs belong to a run: those before and after it, those that it was reset from, its parent and its children."""

from __future__ import annotations

from collections.abc import Iterator

from exequatur.audit.history import RunHistory


def linked(history: RunHistory, namespace: str | None = None) -> Iterator[tuple[str, str]]:
    """Workflow and run ids of the runs that belong to one.

    Args:
        history: Of the run.
        namespace: Where it is; parents and children elsewhere are left out. Without it they are not.
    """
    started = history.started
    for _, base, _ in history.resets:
        yield history.workflow_id, base

    def here(name: str) -> bool:
        return namespace is None or name in ("", namespace)

    if started.continued_execution_run_id:
        yield history.workflow_id, started.continued_execution_run_id
    if started.HasField("parent_workflow_execution") and here(started.parent_workflow_namespace):
        yield started.parent_workflow_execution.workflow_id, started.parent_workflow_execution.run_id
    for event in history.events:
        if event.HasField("child_workflow_execution_started_event_attributes"):
            child = event.child_workflow_execution_started_event_attributes
            if here(child.namespace):
                yield child.workflow_execution.workflow_id, child.workflow_execution.run_id
    last = history.events[-1]
    following = getattr(getattr(last, str(last.WhichOneof("attributes")), None), "new_execution_run_id", "")
    if following:
        yield history.workflow_id, following
