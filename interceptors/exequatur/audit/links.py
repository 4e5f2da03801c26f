"""Which runs belong to a run: those before and after it, those that it was reset from, its parent and its children."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.history import RunHistory
from exequatur.audit.report import DelegationReport, LinkReport
from exequatur.statements.models import Grant
from exequatur.statements.verification import Chain

_CHILD_ENDS = {
    "child_workflow_execution_completed_event_attributes": "completed",
    "child_workflow_execution_failed_event_attributes": "failed",
    "child_workflow_execution_canceled_event_attributes": "cancelled",
    "child_workflow_execution_timed_out_event_attributes": "timed out",
    "child_workflow_execution_terminated_event_attributes": "terminated",
}


def linked(history: RunHistory, namespace: str | None = None) -> Iterator[tuple[str, str]]:
    """Workflow and run ids of the runs that belong to one.

    Args:
        history: Of the run.
        namespace: Where it is; parents and children elsewhere are left out. Without it they are not.
    """
    for link in links_of(history):
        if link.run_id is not None and (namespace is None or link.namespace in (None, namespace)):
            yield link.workflow_id, link.run_id


def links_of(history: RunHistory) -> Iterator[LinkReport]:
    """The runs that belong to one, as its history tells of them.

    Args:
        history: Of the run.
    """
    started, here = history.started, history.workflow_id
    for event_id, base, _ in history.resets:
        yield LinkReport(relation="reset of", workflow_id=here, run_id=base, event_id=event_id)
    if started.continued_execution_run_id:
        before = started.continued_execution_run_id
        yield LinkReport(relation="continues", workflow_id=here, run_id=before, event_id=1)
    if started.HasField("parent_workflow_execution"):
        parent, where = started.parent_workflow_execution, started.parent_workflow_namespace
        yield LinkReport(
            relation="parent",
            workflow_id=parent.workflow_id,
            run_id=parent.run_id,
            namespace=where or None,
            event_id=1,
        )
    yield from _children(history)
    last = history.events[-1]
    attributes: Any = getattr(last, str(last.WhichOneof("attributes")), None)
    following = getattr(attributes, "new_execution_run_id", "")
    if following:
        kind = attributes.workflow_type.name if hasattr(attributes, "workflow_type") else ""
        yield LinkReport(
            relation="continued by",
            workflow_id=here,
            run_id=following,
            workflow_type=kind or None,
            event_id=last.event_id,
        )


def _children(history: RunHistory) -> Iterator[LinkReport]:
    ends: dict[int, str] = {}
    for event in history.events:
        if (outcome := _CHILD_ENDS.get(str(event.WhichOneof("attributes")))) is not None:
            ends[getattr(event, str(event.WhichOneof("attributes"))).initiated_event_id] = outcome
    for event in history.events:
        if event.HasField("child_workflow_execution_started_event_attributes"):
            yield _child(event, ends)


def _child(event: HistoryEvent, ends: dict[int, str]) -> LinkReport:
    child = event.child_workflow_execution_started_event_attributes
    return LinkReport(
        relation="child",
        workflow_id=child.workflow_execution.workflow_id,
        run_id=child.workflow_execution.run_id,
        namespace=child.namespace or None,
        workflow_type=child.workflow_type.name or None,
        event_id=event.event_id,
        outcome=ends.get(child.initiated_event_id, "open"),
    )


def actors_of(grant: Grant) -> tuple[str, ...]:
    """Who acts for the principal of a grant, the nearest first (RFC 8693, section 4.1)."""
    actors, each = [], grant.act
    while each is not None:
        actors.append(each.sub)
        each = each.act
    return tuple(actors)


def handed_down(chain: Chain) -> tuple[DelegationReport, ...]:
    """The delegations by which a grant came to a run."""
    return tuple(
        DelegationReport(
            workflow_id=said.authorization.workflow_id,
            workflow_type=said.authorization.workflow_type,
            by=said.iss,
            parent_run_id=said.parent_run_id,
            depth=said.depth,
            until=said.exp,
            activities=said.authorization.activities,
        )
        for said in (token.claims for token in chain.delegations)
    )
