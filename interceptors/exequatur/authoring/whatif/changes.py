"""What two bundles say differently: policies by their ``@id``, the schema's actions and entity types, and entities."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from exequatur.authoring.whatif.uses import meaning_of, uses_by_policy
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import uid_of
from exequatur.policy.schema import ActionDeclaration, EntityDeclaration, SchemaModel
from exequatur.policy.types import CedarType, RecordType, attributes_of, written

What = Literal["policy", "action", "entity type", "entity", "schema"]
How = Literal["added", "removed", "changed"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is different.

    Args:
        what: A policy, an action or entity type of the schema, an entity; ``schema`` where only one bundle has one.
        how: Added, removed or changed.
        name: Its ``@id`` or place, its id, its name.
        details: What is different about it, a line each.
    """

    what: What
    how: How
    name: str
    details: tuple[str, ...] = ()


def differences(old: PolicyBundle, new: PolicyBundle) -> tuple[Difference, ...]:
    """Compare two bundles; white space, comments and the order of policies make no difference.

    Args:
        old: One bundle.
        new: The other.

    Returns:
        What is different, by kind and name.

    Raises:
        PolicyError: A schema or a policy cannot be analysed.
    """
    return (*_policies(old, new), *_schemas(old.model, new.model), *_entities(old, new))


def _policies(old: PolicyBundle, new: PolicyBundle) -> Iterator[Difference]:
    before, after = _by_name(old), _by_name(new)
    for how, key in _compared(before, after, lambda one, other: one[0] == other[0]):
        if how == "changed":
            lines = difflib.unified_diff(before[key][2].splitlines(), after[key][2].splitlines(), lineterm="", n=1)
            details = tuple(line for line in lines if not line.startswith(("---", "+++", "@@")))
        else:
            details = tuple((after if how == "added" else before)[key][2].splitlines())
        yield Difference("policy", how, (after.get(key) or before[key])[1], details)


def _by_name(bundle: PolicyBundle) -> dict[str, tuple[Any, str, str]]:
    """Each policy with what tells whether it changed, what people call it, and its text.

    A policy without ``@id`` has no name that another bundle could share, so it stands for itself.
    """
    found: dict[str, tuple[Any, str, str]] = {}
    for policy_id, (node, _) in uses_by_policy(bundle).items():
        place = bundle.located[policy_id]
        name = bundle.policies[policy_id].id
        meaning = meaning_of(node)
        if name == policy_id:
            found[f"unnamed {meaning}"] = (meaning, str(place), place.text)
        else:
            found[f"named {name}"] = (meaning, name, place.text)
    return found


def _schemas(old: SchemaModel | None, new: SchemaModel | None) -> Iterator[Difference]:
    if old is None or new is None:
        if old is not new:
            yield Difference("schema", "removed" if new is None else "added", "schema")
        return
    for how, name in _compared(old.actions, new.actions, lambda one, other: not tuple(_action(one, other))):
        details = tuple(_action(old.actions[name], new.actions[name])) if how == "changed" else ()
        yield Difference("action", how, name, details)
    for how, name in _compared(old.entities, new.entities, lambda one, other: not tuple(_entity_type(one, other))):
        details = tuple(_entity_type(old.entities[name], new.entities[name])) if how == "changed" else ()
        yield Difference("entity type", how, name, details)


def _action(old: ActionDeclaration, new: ActionDeclaration) -> Iterator[str]:
    yield from _names("group", (name for _, name in old.groups), (name for _, name in new.groups))
    yield from _names("principal", old.principals or (), new.principals or ())
    yield from _names("resource", old.resources or (), new.resources or ())
    yield from _attributes("context", old.context, new.context)


def _entity_type(old: EntityDeclaration, new: EntityDeclaration) -> Iterator[str]:
    yield from _names("parent", old.parents, new.parents)
    yield from _names("choice", old.choices or (), new.choices or ())
    yield from _attributes("", old.attributes, new.attributes)
    if old.tags != new.tags:
        yield f"tags: {_type(old.tags)} -> {_type(new.tags)}"


def _names(what: str, old: Iterable[str], new: Iterable[str]) -> Iterator[str]:
    before, after = set(old), set(new)
    yield from (f"- {what} {name}" for name in sorted(before - after))
    yield from (f"+ {what} {name}" for name in sorted(after - before))


def _attributes(where: str, old: RecordType, new: RecordType) -> Iterator[str]:
    before, after = (
        {".".join(filter(None, (where, *path))): each for path, each in attributes_of(record)} for record in (old, new)
    )
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None and other is not None:
            yield f"+ {name}{'' if other.required else '?'}: {_type(other.type)}"
        elif one is not None and other is None:
            yield f"- {name}{'' if one.required else '?'}: {_type(one.type)}"
        elif (
            one is not None
            and other is not None
            and (_type(one.type), one.required)
            != (
                _type(other.type),
                other.required,
            )
        ):
            before_, after_ = (f"{_type(each.type)}{'' if each.required else ' or absent'}" for each in (one, other))
            yield f"{name}: {before_} -> {after_}"


def _type(declared: CedarType | None) -> str:
    if declared is None:
        return "none"
    return "record" if isinstance(declared, RecordType) else written(declared)


def _entities(old: PolicyBundle, new: PolicyBundle) -> Iterator[Difference]:
    before, after = (
        {_name(document["uid"]): _plain(document) for document in bundle.source.entity_documents}
        for bundle in (old, new)
    )
    for how, name in _compared(before, after, lambda one, other: one == other):
        details: tuple[str, ...] = ()
        if how == "changed":
            lines = difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), lineterm="", n=0)
            details = tuple(line for line in lines if not line.startswith(("---", "+++", "@@")))
        yield Difference("entity", how, name, details)


def _name(uid: Any) -> str:
    kind, name = uid_of(uid)
    return f"{kind}::{json.dumps(name, ensure_ascii=False)}"


def _plain(document: Mapping[str, Any]) -> str:
    """An entity in one spelling, a line for each attribute and parent."""
    parents = sorted(f"parent {_name(parent)}" for parent in document.get("parents") or ())
    attributes = (document.get("attrs") or {}).items()
    values = sorted(f"{name} = {json.dumps(value, sort_keys=True, ensure_ascii=False)}" for name, value in attributes)
    return "\n".join((*parents, *values))


def _compared(old: Mapping[str, _T], new: Mapping[str, _T], same: Any) -> Iterator[tuple[How, str]]:
    yield from (("removed", name) for name in old if name not in new)
    yield from (("added", name) for name in new if name not in old)
    yield from (("changed", name) for name in old if name in new and not same(old[name], new[name]))
