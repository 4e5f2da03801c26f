"""What the gate tells policies besides the arguments, and the questions that it asks of its own.

Rules:

O1  A schema requires of a context only what the gate tells, and of the same type. ``context has frozen`` is false for
    what it never tells; a schema that says otherwise would let a ``forbid`` validate that never applies.
"""

from collections.abc import Iterator
from types import MappingProxyType

from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.types import BOOL, DATETIME, LONG, STRING, Attribute, CedarType, Path, RecordType, written

START_ACTION = "workflow.start"
RESET_ACTION = "workflow.reset"
OWN_ACTIONS = frozenset({START_ACTION, RESET_ACTION})


def _record(**types: CedarType) -> RecordType:
    return RecordType(tuple(Attribute(name, kind) for name, kind in types.items()))


_RUN = {"namespace": STRING, "workflow_id": STRING, "workflow_type": STRING}
_OF_ACTIVITIES = _record(
    activity=_record(type=STRING, id=STRING, attempt=LONG, task_queue=STRING, local=BOOL),
    run=_record(**_RUN, run_id=STRING, governed=BOOL),
    worker=_record(id=STRING),
    now=DATETIME,
)
_OF_STARTS = _record(run=_record(**_RUN, task_queue=STRING), now=DATETIME)
_TOLD = MappingProxyType({START_ACTION: _OF_STARTS})


def untold(action: ActionDeclaration) -> Iterator[str]:
    """Yield what a schema promises of an action's context and the gate does not keep (O1).

    Args:
        action: An activity's action, or one of the gate's own.
    """
    told = _TOLD.get(action.id, _OF_ACTIVITIES)
    declared = RecordType(tuple(each for each in action.context.attributes if each.name != "args"))
    yield from _beyond(declared, told, ("context",))


def _beyond(declared: RecordType, told: RecordType, path: Path) -> Iterator[str]:
    for attribute in declared.attributes:
        here, ours = (*path, attribute.name), told.get(attribute.name)
        name = ".".join(here)
        if ours is None:
            if attribute.required:  # [O1]
                yield f"{name} is required, and the gate does not tell it"
        elif isinstance(ours.type, RecordType) and isinstance(attribute.type, RecordType):
            yield from _beyond(attribute.type, ours.type, here)
        elif ours.type != attribute.type:  # [O1]
            kind = "record" if isinstance(ours.type, RecordType) else written(ours.type)
            yield f"{name} is a {kind}, and the schema declares something else"
