"""What the gate tells policies besides the arguments, and the questions that it asks of its own.

Rules:

O1  A schema requires of a context only what the gate tells, and of the same type. ``context has frozen`` is false for
    what it never tells; a schema that says otherwise would let a ``forbid`` validate that never applies.
"""

from collections.abc import Iterator
from types import MappingProxyType

from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.types import (
    BOOL,
    DATETIME,
    LONG,
    STRING,
    Attribute,
    CedarType,
    Path,
    RecordType,
    SetType,
    written,
)

START_ACTION = "workflow.start"
RESET_ACTION = "workflow.reset"
CHILD_ACTION = "workflow.child"
SIGNAL_ACTION = "workflow.signal"
QUERY_ACTION = "workflow.query"
UPDATE_ACTION = "workflow.update"
CANCEL_ACTION = "workflow.cancel"
TERMINATE_ACTION = "workflow.terminate"
DELETE_ACTION = "workflow.delete"
PAUSE_ACTION = "workflow.pause"
UNPAUSE_ACTION = "workflow.unpause"
OPTIONS_ACTION = "workflow.options"
RENEW_ACTION = "grant.renew"
APPROVE_ACTION = "approval.approve"
REJECT_ACTION = "approval.reject"
SELF_ACTION = "approval.self"
"""Asked besides ``approval.approve`` where people approve what is done on their own behalf."""
ACTIVITY_START_ACTION = "activity.start"
ACTIVITY_COMPLETE_ACTION = "activity.complete"
ACTIVITY_CANCEL_ACTION = "activity.cancel"
ACTIVITY_TERMINATE_ACTION = "activity.terminate"
ACTIVITY_PAUSE_ACTION = "activity.pause"
ACTIVITY_UNPAUSE_ACTION = "activity.unpause"
ACTIVITY_RESET_ACTION = "activity.reset"
ACTIVITY_OPTIONS_ACTION = "activity.options"
SCHEDULE_CREATE_ACTION = "schedule.create"
SCHEDULE_UPDATE_ACTION = "schedule.update"
SCHEDULE_TRIGGER_ACTION = "schedule.trigger"
SCHEDULE_BACKFILL_ACTION = "schedule.backfill"
SCHEDULE_PAUSE_ACTION = "schedule.pause"
SCHEDULE_UNPAUSE_ACTION = "schedule.unpause"
SCHEDULE_DELETE_ACTION = "schedule.delete"
NEXUS_START_ACTION = "nexus.start"
NEXUS_CANCEL_ACTION = "nexus.cancel"

ENROLL_ACTION = "worker.enroll"
"""May this be a worker, in these roles and places? Asked by an authority service before it issues a credential."""
REVOKE_ACTION = "revocation.add"
LIFT_ACTION = "revocation.lift"
EVALUATE_ACTION = "policy.evaluate"
"""May this ask an authority service what the policies say about others?"""
VIEW_ACTION = "console.view"
"""May this person see this page of the console? It is about the workflow that the page shows, if it shows one."""


def _record(**types: CedarType) -> RecordType:
    return RecordType(tuple(Attribute(name, kind) for name, kind in types.items()))


def _sometimes(name: str, kind: CedarType) -> Attribute:
    return Attribute(name, kind, required=False)


_WORKER = RecordType(
    (
        *_record(id=STRING, integrity=STRING).attributes,
        *(_sometimes(name, STRING) for name in ("code", "build", "environment", "image")),
    )
)
_RUN: dict[str, CedarType] = {"namespace": STRING, "workflow_id": STRING, "workflow_type": STRING}
_ATTEMPT: dict[str, CedarType] = {
    "activity": _record(type=STRING, id=STRING, attempt=LONG, task_queue=STRING, local=BOOL),
    "run": _record(**_RUN, run_id=STRING, governed=BOOL),
    "worker": _WORKER,
    "now": DATETIME,
}
_APPROVALS = _sometimes("approvals", _record(groups=SetType(STRING), approvers=SetType(STRING)))
_ACTING = _sometimes("acting", _record(by=STRING, chain=SetType(STRING)))
_BEHAVIOR = _sometimes(
    "behavior",
    _record(
        last_minute=LONG,
        last_hour=LONG,
        last_day=LONG,
        denials_last_hour=LONG,
        novel=BOOL,
        workflow_last_hour=LONG,
        run=_record(count=LONG, denials=LONG, seconds=LONG, cost=LONG),
        cost=LONG,
        cost_last_day=LONG,
        seconds_last_day=LONG,
        new_transition=BOOL,
        new_arguments=BOOL,
        score=LONG,
        reasons=SetType(STRING),
    ),
)
_OF_ACTIVITIES = RecordType((*_record(**_ATTEMPT).attributes, _APPROVALS, _ACTING, _BEHAVIOR))
_OF_STARTS = _record(run=_record(**_RUN, task_queue=STRING), now=DATETIME)
_PLACE = _record(namespace=STRING, workflow_id=STRING)
_OF_MESSAGES = _record(run=_PLACE, message=_record(name=STRING, sender=STRING), now=DATETIME)
"""The sender is a workflow's id, and empty where a client sends."""
_OF_WORKFLOWS = _record(run=_PLACE, now=DATETIME)
_OF_STANDING = _record(run=_record(**_RUN), now=DATETIME)
_OF_ONE_ACTIVITY = _record(run=_PLACE, activity=_record(type=STRING, id=STRING, task_queue=STRING), now=DATETIME)
_OF_SCHEDULES = _record(run=_record(**_RUN, task_queue=STRING), schedule=_record(id=STRING), now=DATETIME)
_OF_APPROVALS = _record(
    run=_record(**_RUN),
    approval=_record(activity=STRING, principal=STRING, groups=SetType(STRING)),
    now=DATETIME,
)
_OF_NEXUS = _record(run=_record(**_RUN), nexus=_record(endpoint=STRING, service=STRING, operation=STRING), now=DATETIME)
_OF_WORKERS = _record(
    worker=RecordType(
        (
            *_WORKER.attributes,
            *_record(
                roles=SetType(STRING),
                namespaces=SetType(STRING),
                task_queues=SetType(STRING),
                activities=SetType(STRING),
            ).attributes,
        )
    ),
    now=DATETIME,
)
_OF_REVOCATIONS = _record(
    revocation=RecordType(
        (
            *_record(everything=BOOL, reason=STRING).attributes,
            *(
                _sometimes(name, STRING)
                for name in ("grant", "principal", "workflow", "activity", "worker", "key", "code", "bundle")
            ),
        )
    ),
    now=DATETIME,
)
_OF_EVALUATIONS = _record(evaluation=_record(action=STRING, principal=STRING), now=DATETIME)
_OF_VIEWS = _record(console=_record(page=STRING, redacted=BOOL), now=DATETIME)

_OWN_CONTEXTS = {
    ENROLL_ACTION: _OF_WORKERS,
    REVOKE_ACTION: _OF_REVOCATIONS,
    LIFT_ACTION: _OF_REVOCATIONS,
    EVALUATE_ACTION: _OF_EVALUATIONS,
    VIEW_ACTION: _OF_VIEWS,
    START_ACTION: _OF_STARTS,
    RESET_ACTION: _OF_ACTIVITIES,
    CHILD_ACTION: _OF_ACTIVITIES,
    RENEW_ACTION: _OF_STANDING,
    **dict.fromkeys((SIGNAL_ACTION, QUERY_ACTION, UPDATE_ACTION), _OF_MESSAGES),
    **dict.fromkeys(
        (CANCEL_ACTION, TERMINATE_ACTION, DELETE_ACTION, PAUSE_ACTION, UNPAUSE_ACTION, OPTIONS_ACTION),
        _OF_WORKFLOWS,
    ),
    **dict.fromkeys((APPROVE_ACTION, REJECT_ACTION, SELF_ACTION), _OF_APPROVALS),
    **dict.fromkeys(
        (
            ACTIVITY_START_ACTION,
            ACTIVITY_COMPLETE_ACTION,
            ACTIVITY_CANCEL_ACTION,
            ACTIVITY_TERMINATE_ACTION,
            ACTIVITY_PAUSE_ACTION,
            ACTIVITY_UNPAUSE_ACTION,
            ACTIVITY_RESET_ACTION,
            ACTIVITY_OPTIONS_ACTION,
        ),
        _OF_ONE_ACTIVITY,
    ),
    **dict.fromkeys(
        (
            SCHEDULE_CREATE_ACTION,
            SCHEDULE_UPDATE_ACTION,
            SCHEDULE_TRIGGER_ACTION,
            SCHEDULE_BACKFILL_ACTION,
            SCHEDULE_PAUSE_ACTION,
            SCHEDULE_UNPAUSE_ACTION,
            SCHEDULE_DELETE_ACTION,
        ),
        _OF_SCHEDULES,
    ),
    **dict.fromkeys((NEXUS_START_ACTION, NEXUS_CANCEL_ACTION), _OF_NEXUS),
}
OWN_CONTEXTS = MappingProxyType(
    {
        # Whoever asks may act for somebody else.
        action: context if context.get(_ACTING.name) else RecordType((*context.attributes, _ACTING))
        for action, context in _OWN_CONTEXTS.items()
    }
)
"""The gate's own questions, and what it tells with each."""
OWN_ACTIONS = frozenset(OWN_CONTEXTS)


def untold(action: ActionDeclaration) -> Iterator[str]:
    """Yield what a schema promises of an action's context and the gate does not keep (O1).

    Args:
        action: An activity's action, or one of the gate's own.
    """
    told = OWN_CONTEXTS.get(action.id, _OF_ACTIVITIES)
    declared = RecordType(tuple(each for each in action.context.attributes if each.name != "args"))
    yield from _beyond(declared, told, ("context",))


def _beyond(declared: RecordType, told: RecordType, path: Path) -> Iterator[str]:
    for attribute in declared.attributes:
        here, ours = (*path, attribute.name), told.get(attribute.name)
        name = ".".join(here)
        if ours is None:
            if attribute.required:  # [O1]
                yield f"{name} is required, and the gate does not tell it"
        elif attribute.required and not ours.required:  # [O1]
            yield f"{name} is required, and the gate tells it only sometimes"
        elif isinstance(ours.type, RecordType) and isinstance(attribute.type, RecordType):
            yield from _beyond(attribute.type, ours.type, here)
        elif ours.type != attribute.type:  # [O1]
            kind = "record" if isinstance(ours.type, RecordType) else written(ours.type)
            yield f"{name} is a {kind}, and the schema declares something else"
