"""A question to the policies as people write it: who, which activity, which arguments, in which circumstances."""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from exequatur.errors import PolicyError
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.entities import ACTION_TYPE
from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.told import OWN_CONTEXTS
from exequatur.policy.types import RecordType
from exequatur.policy.values import convert_plain, entity_of

_QUIET: Mapping[str, Any] = {
    "last_minute": 0,
    "last_hour": 0,
    "last_day": 0,
    "denials_last_hour": 0,
    "novel": False,
    "workflow_last_hour": 0,
    "run": {"count": 0, "denials": 0, "seconds": 0, "cost": 0},
    "cost": 0,
    "cost_last_day": 0,
    "seconds_last_day": 0,
    "new_transition": False,
    "new_arguments": False,
    "score": 0,
    "reasons": (),
}
"""What is filled in where something is said of the behaviour."""
_ATTEMPT: Mapping[str, Any] = {"id": "1", "attempt": 1, "task_queue": "default", "local": False}
_RUN: Mapping[str, Any] = {"namespace": "default", "workflow_id": "workflow-1", "workflow_type": "Workflow"}
_RUN_ID = "00000000-0000-0000-0000-000000000000"
_OWN: Mapping[str, Any] = {
    "message": {"name": "message", "sender": ""},
    "schedule": {"id": "schedule-1"},
    "nexus": {"endpoint": "endpoint", "service": "Service", "operation": "operation"},
    "approval": {"activity": "activity", "principal": 'User::"requester"', "groups": []},
}
"""What only the gate's own questions have."""


@dataclass(frozen=True)
class Question:
    """What the gate would ask.

    Args:
        principal: Cedar JSON entity: ``uid``, ``attrs``, ``parents``.
        action: The activity type, or an action of the gate's own.
        resource: What it is done to: ``{"type": ..., "id": ...}``.
        arguments: The converted arguments.
        facts: The other attributes of the context, as Cedar JSON.
    """

    principal: Mapping[str, Any]
    action: str
    resource: Mapping[str, str]
    arguments: Conversion
    facts: Mapping[str, Any]


def ask(bundle: PolicyBundle, asked: Question) -> Verdict:
    """Return what the gate would answer."""
    return decide(
        bundle,
        asked.principal,
        {"type": ACTION_TYPE, "id": asked.action},
        asked.resource,
        asked.arguments,
        asked.facts,
    )


def question(
    bundle: PolicyBundle,
    *,
    principal: Any,
    activity: str,
    args: Any = None,
    context: Any = None,
    resource: Any = None,
    now: datetime.datetime | None = None,
) -> Question:
    """Read a question.

    What is not said of the circumstances is filled in: attempt 1 of an activity of a governed run on the task queue and
    in the namespace ``default``.

    Args:
        bundle: Its schema, if it has one, declares the types.
        principal: ``Agent::"ops-bot"``, or a mapping with ``uid`` and optionally ``attrs`` and ``parents``.
        activity: The activity type, or an action of the gate's own.
        args: The arguments by parameter name, as plain JSON or YAML values.
        context: What differs from the filled-in circumstances, for example ``{"run": {"workflow_type": "Refund"}}``.
        resource: ``Type::"id"``; the workflow if absent.
        now: The moment, aware; the present if absent and not in the context.

    Returns:
        The question.

    Raises:
        PolicyError: A part cannot be read or has another type than the schema declares; each is named.
    """
    declared = _declared(bundle, activity)
    who = read_principal(bundle, principal)
    arguments = read_arguments(bundle, activity, {} if args is None else args)
    facts = _facts(activity, declared, context, now)
    return Question(who, activity, _resource(resource, declared, facts), arguments, facts)


def _declared(bundle: PolicyBundle, activity: Any) -> ActionDeclaration | None:
    if not isinstance(activity, str) or not activity:
        raise PolicyError("activity must be the name of an activity type.")
    model = bundle.model
    if model is None:
        return None
    found = model.actions.get(activity)
    if found is None or found.principals is None:
        known = [name for name, each in model.actions.items() if each.principals is not None]
        close = get_close_matches(activity, known, 1)
        step = f"Did you mean {close[0]}?" if close else f"There is {', '.join(sorted(known)) or 'none'}."
        raise PolicyError(f"activity {activity[:80]} is not in the schema. {step}")
    return found


def read_arguments(bundle: PolicyBundle, activity: str, args: Any) -> Conversion:
    """Read the arguments of an activity.

    Args:
        bundle: Its schema, if it has one, declares the types.
        activity: The activity type.
        args: The arguments by parameter name, as plain JSON or YAML values.

    Raises:
        PolicyError: They cannot be read or have another type than the schema declares.
    """
    declared = _declared(bundle, activity)
    if not isinstance(args, Mapping):
        raise PolicyError("args must be a mapping of parameter names to values.")
    arguments = convert_plain(args, declared.args if declared else None)
    _refuse(arguments)
    return arguments


def read_principal(bundle: PolicyBundle, written: Any) -> dict[str, Any]:
    """Read a principal.

    Args:
        bundle: Its schema, if it has one, declares the types.
        written: ``Agent::"ops-bot"``, or a mapping with ``uid`` and optionally ``attrs`` and ``parents``.

    Returns:
        Cedar JSON entity.

    Raises:
        PolicyError: It cannot be read or has another type than the schema declares.
    """
    document = dict(written) if isinstance(written, Mapping) and "uid" in written else {"uid": written}
    unknown = set(document) - {"uid", "attrs", "parents"}
    if unknown:
        raise PolicyError(f"principal has {', '.join(sorted(map(str, unknown)))}; it takes uid, attrs and parents.")
    kind, name = _entity("principal", document["uid"])
    parents = document.get("parents") or []
    if not isinstance(parents, list):
        raise PolicyError('principal: parents must be a list such as [Role::"operations"].')
    attrs = document.get("attrs") or {}
    if not isinstance(attrs, Mapping):
        raise PolicyError("principal: attrs must be a mapping.")
    model = bundle.model
    declared: RecordType | None = None
    if model is not None:
        if kind not in model.entities:
            raise PolicyError(f"principal: there is no entity type {kind} in the schema.")
        # What is required may come from entities.json.
        declared = RecordType(tuple(each for each in model.entities[kind].attributes.attributes if each.name in attrs))
    converted = convert_plain(attrs, declared, "principal.attrs")
    _refuse(converted)
    return {
        "uid": {"type": kind, "id": name},
        "attrs": converted.value,
        "parents": [
            {"type": kind, "id": name} for kind, name in (_entity("principal: parents", parent) for parent in parents)
        ],
    }


def _facts(
    activity: str, declared: ActionDeclaration | None, context: Any, now: datetime.datetime | None
) -> dict[str, Any]:
    if not isinstance(context, Mapping | None):
        raise PolicyError("context must be a mapping.")
    given = dict(context or {})
    if "args" in given:
        raise PolicyError("context must not have args; give the arguments as args.")
    moment = now or datetime.datetime.now(datetime.UTC)
    usual: dict[str, Any] = {
        "now": moment.replace(microsecond=moment.microsecond // 1000 * 1000),
        "activity": {"type": activity, **_ATTEMPT},
        "run": {**_RUN, "run_id": _RUN_ID, "governed": True},
        "worker": {"id": "worker", "integrity": "unmeasured"},
    }
    if (own := OWN_CONTEXTS.get(activity)) is not None:
        usual = _within({**usual, **_OWN, "run": {**usual["run"], "task_queue": "default"}}, own)
    record: RecordType | None = None
    if declared is not None:
        record = RecordType(tuple(each for each in declared.context.attributes if each.name != "args"))
        usual = _within(usual, record)
    for name, value in given.items():
        base = usual.get(name, _QUIET if name == "behavior" else None)
        usual[name] = {**base, **value} if isinstance(value, Mapping) and isinstance(base, Mapping) else value
    converted = convert_plain(usual, record, "context")
    _refuse(converted)
    return converted.value


def _within(usual: Mapping[str, Any], declared: RecordType) -> dict[str, Any]:
    """The part of the usual circumstances that a schema declares."""
    out: dict[str, Any] = {}
    for name, value in usual.items():
        attribute = declared.get(name)
        if attribute is not None and isinstance(attribute.type, RecordType) and isinstance(value, Mapping):
            out[name] = _within(value, attribute.type)
        elif attribute is not None:
            out[name] = value
    return out


def _resource(written: Any, declared: ActionDeclaration | None, facts: Mapping[str, Any]) -> dict[str, str]:
    if written is not None:
        kind, name = _entity("resource", written)
    else:
        run = facts.get("run")
        kind, name = "Workflow", str(run.get("workflow_id", "") if isinstance(run, Mapping) else "")
    if declared is not None and kind not in (declared.resources or ()):
        wanted = " or ".join(f'{each}::"…"' for each in declared.resources or ())
        raise PolicyError(f"resource: {declared.id} is done to {wanted}, not to a {kind}.")
    return {"type": kind, "id": name}


def _entity(name: str, written: Any) -> tuple[str, str]:
    try:
        return entity_of(written)
    except ValueError as error:
        raise PolicyError(f"{name}: {error}.") from None


def _refuse(converted: Conversion) -> None:
    if converted.faults:
        sentences = list(converted.faults.values())
        more = f" ({len(sentences) - 5} more)" if len(sentences) > 5 else ""
        raise PolicyError(f"{'; '.join(sentences[:5])}{more}.")
    try:
        json.dumps(converted.value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise PolicyError(f"A value cannot be given to Cedar: {error}.") from None
