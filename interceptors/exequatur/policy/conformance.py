"""Does a bundle's schema declare what the code has: the actions, and for each the types of its arguments?

Rules:

C1  A bundle with a schema declares an action for every activity, with exactly the types that the code has for
    ``context.args``; the keys that it declares of a dict are optional, and of the type of the dict's values.
C2  The action applies to the type of resource that the activity names, and is in the groups that the activity names: a
    ``forbid`` on a group must not miss it.
C3  Its context, and that of the gate's own questions, requires what the gate tells and nothing else (rule O1 of
    :mod:`exequatur.policy.told`).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from exequatur.policy.action import mark_of
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import ACTION_TYPE
from exequatur.policy.schema import ActionDeclaration, SchemaModel
from exequatur.policy.shapes import Arguments, DictType, arguments_of
from exequatur.policy.told import OWN_ACTIONS, untold
from exequatur.policy.types import CedarType, Path, RecordType, SetType, written

REMEDY = "run: exequatur policy schema --from MODULE"


def unfit(bundle: PolicyBundle, activities: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Return why a bundle must not judge these activities.

    Args:
        bundle: One without a schema fits everything.
        activities: By activity type.

    Returns:
        One sentence for each difference, with the activity, the argument and the next step.

    Raises:
        PolicyError: Its schema cannot be read.
    """
    model = bundle.model
    if model is None:
        return []
    found = []
    for name, fn in sorted(activities.items()):
        action = model.actions.get(name)
        if action is None or action.principals is None:  # [C1]
            found.append(f"{name}: the bundle has no action for it; {REMEDY}")
        else:
            found += [f"{name}: {problem}; {REMEDY}" for problem in _problems(model, action, fn)]
    for name in sorted(OWN_ACTIONS & model.actions.keys()):
        found += [f"{name}: {problem}; {REMEDY}" for problem in untold(model.actions[name])]  # [C3]
    return found


def _problems(model: SchemaModel, action: ActionDeclaration, fn: Callable[..., Any]) -> Iterator[str]:
    arguments, mark = arguments_of(fn), mark_of(fn)
    yield from argument_differences(arguments, action.args or RecordType())  # [C1]
    if mark.resource_type not in (action.resources or ()):  # [C2]
        there = " or ".join(action.resources or ("nothing",))
        yield f"it acts on {mark.resource_type} in the code and on {there} in the bundle"
    missing = set(mark.groups) - _groups(model, action)
    for group in sorted(missing):  # [C2]
        yield f"it is in the group {group} in the code and not in the bundle"
    yield from untold(action)  # [C3]


def argument_differences(arguments: Arguments, declared: RecordType) -> Iterator[str]:
    """Yield what is different between the arguments of the code and those of a schema (C1)."""
    reasons = dict(arguments.omitted)
    for path, problem in differences(arguments.record, declared):
        reason = reasons.get(path) or reasons.get(())
        yield f"{_dotted(path)} {f'{reason} in the code, and the bundle declares it' if reason else problem}"


def differences(shape: CedarType, declared: CedarType, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and predicate for each place where a type of the code and a declared one differ."""
    if isinstance(shape, DictType) and isinstance(declared, RecordType):
        for attribute in declared.attributes:
            here = (*path, attribute.name)
            if attribute.required:
                yield here, "is required in the bundle, and a key of a dict need not be there"
            if shape.values is not None:
                yield from differences(shape.values, attribute.type, here)
    elif isinstance(shape, RecordType) and isinstance(declared, RecordType):
        for name in dict.fromkeys(each.name for each in (*shape.attributes, *declared.attributes)):
            ours, theirs, here = shape.get(name), declared.get(name), (*path, name)
            if ours is None:
                yield here, "is in the bundle and not in the code"
            elif theirs is None:
                yield here, "is in the code and not in the bundle"
            else:
                if ours.required != theirs.required:
                    kinds = ("required", "optional") if ours.required else ("optional", "required")
                    yield here, f"is {kinds[0]} in the code and {kinds[1]} in the bundle"
                yield from differences(ours.type, theirs.type, here)
    elif isinstance(shape, SetType) and isinstance(declared, SetType):
        if next(differences(shape.element, declared.element), None) is not None:
            yield path, f"is a {written(shape)} in the code and a {written(declared)} in the bundle"
    elif shape != declared:
        yield path, f"is a {_kind(shape)} in the code and a {_kind(declared)} in the bundle"


def _kind(kind: CedarType) -> str:
    return "dict" if isinstance(kind, DictType) else "record" if isinstance(kind, RecordType) else written(kind)


def _groups(model: SchemaModel, action: ActionDeclaration) -> set[str]:
    """The groups that an action is in, directly or not."""
    found: set[str] = set()
    waiting = list(action.groups)
    while waiting:
        kind, name = waiting.pop()
        if kind == ACTION_TYPE and name not in found:
            found.add(name)
            if name in model.actions:
                waiting += model.actions[name].groups
    return found


def _dotted(path: Path) -> str:
    return ".".join(("args", *path))
