"""Whom there is to ask about: principals that files name, and somebody of each type in each group."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cedarpy import pst

from exequatur.authoring.explain.opened import OpenBundle
from exequatur.authoring.expression import parts_of, reference
from exequatur.authoring.request import read_principal
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import ACTION_TYPE, Uid, uid_of
from exequatur.policy.schema import ActionDeclaration, SchemaModel

About = Literal["entity", "policy", "group", "anyone"]

#: The principal of runs without a grant.
_UNAUTHENTICATED = "Unauthenticated"
_ANYONE = "(anyone)"


@dataclass(frozen=True, slots=True)
class Somebody:
    """Somebody who may be asked about.

    Args:
        subject: How answers call them.
        about: Whether an entity or a policy names them, or they stand for a group or for anyone.
        document: Cedar JSON entity.
        supposed: Only their type and group are known.
    """

    subject: str
    about: About
    document: Mapping[str, Any]
    supposed: bool = False

    @property
    def uid(self) -> Uid:
        return uid_of(self.document["uid"])


def somebody(bundle: PolicyBundle, principal: Any) -> Somebody:
    """Return the principal that somebody has written.

    Raises:
        PolicyError: It cannot be read.
    """
    document = read_principal(bundle, principal)
    return Somebody(reference(*uid_of(document["uid"])), "entity", document)


def named_principals(opened: OpenBundle, declared: ActionDeclaration | None) -> Iterator[Somebody]:
    """Yield the principals that the bundle's entities or policies name, of the types that an action is for."""
    kinds = declared.principals if declared is not None else None
    groups = opened.parents | opened.groups

    def is_principal(uid: Uid) -> bool:
        return uid[0] in kinds if kinds is not None else uid[0] != ACTION_TYPE and uid not in groups

    entities = [uid for uid in opened.entities if is_principal(uid)]
    named = [uid for uid in _principals_of_policies(opened) if is_principal(uid) and uid not in opened.entities]
    if kinds is not None and _UNAUTHENTICATED in kinds:
        named.append((_UNAUTHENTICATED, "anonymous"))
    for uid in sorted(entities):
        yield _named(uid, "entity")
    for uid in sorted(set(named)):
        yield _named(uid, "policy")


def _named(uid: Uid, about: About) -> Somebody:
    return Somebody(reference(*uid), about, {"uid": _reference(uid), "attrs": {}, "parents": []})


def supposed_principals(opened: OpenBundle, declared: ActionDeclaration | None) -> Iterator[Somebody]:
    """Yield somebody in each group, and somebody in none, of each type that an action is for."""
    model = opened.bundle.model
    kinds = [kind for kind in _principal_types(opened, declared) if kind != _UNAUTHENTICATED]
    known = opened.parents if model is None else opened.entities.keys()
    groups = sorted(uid for uid in opened.groups.union(known) if uid[0] != ACTION_TYPE)
    for group in groups:
        for kind in kinds:
            if model is None or _can_be_in(model, kind, group[0]):
                yield _supposed(opened, f"anyone in {reference(*group)}", "group", kind, [group])
    for kind in kinds:
        yield _supposed(opened, "anyone without a role", "anyone", kind, [])


def _can_be_in(model: SchemaModel, kind: str, group: str) -> bool:
    return kind in model.entities and group in model.entities[kind].parents


def _supposed(opened: OpenBundle, subject: str, about: About, kind: str, parents: list[Uid]) -> Somebody:
    name = _ANYONE
    while (kind, name) in opened.named or (kind, name) in opened.entities:
        name = f"({name})"
    document = {"uid": _reference((kind, name)), "attrs": {}, "parents": [_reference(uid) for uid in parents]}
    return Somebody(subject, about, document, supposed=True)


def _principal_types(opened: OpenBundle, declared: ActionDeclaration | None) -> list[str]:
    if declared is not None:
        return list(declared.principals or ())
    named = {uid[0] for uid in _principals_of_policies(opened)}
    for policy in opened.policies.values():
        named |= {
            str(part.expr.entity_type)
            for part in parts_of(policy)
            if isinstance(part.expr, pst.Is) and part.expr.base == pst.Var("principal")
        }
    held = {uid[0] for uid, each in opened.entities.items() if each.get("parents") and uid not in opened.parents}
    return sorted((named | held) - {ACTION_TYPE, _UNAUTHENTICATED}) or ["User"]


def _principals_of_policies(opened: OpenBundle) -> set[Uid]:
    """Entities that the scopes of policies compare the principal with."""
    scopes = (policy.principal for policy in opened.policies.values())
    return {
        (str(scope.entity.type), scope.entity.id)
        for scope in scopes
        if isinstance(scope, pst.ScopeEq) and isinstance(scope.entity, pst.EntityUid)
    }


def _reference(uid: Uid) -> dict[str, str]:
    return {"type": uid[0], "id": uid[1]}
