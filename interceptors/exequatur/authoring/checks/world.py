"""What policies speak about: the schema's actions and types, the entities, and who is in what."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from cedarpy import pst

from exequatur.policy.entities import ACTION_TYPE, Uid, uid_of
from exequatur.policy.schema import ActionDeclaration, SchemaModel
from exequatur.policy.told import OWN_ACTIONS
from exequatur.policy.types import EntityType, RecordType


class World:
    """What is declared.

    Args:
        model: The schema; None if there is none, or none that can be read.
        entities: Cedar JSON entities that are sound; None without entities.json.
    """

    def __init__(self, model: SchemaModel | None, entities: Iterable[Mapping[str, Any]] | None) -> None:
        self.model = model
        self.has_entities = entities is not None
        self._parents: dict[Uid, set[Uid]] = {}
        for document in entities or ():
            self._parents.setdefault(uid_of(document["uid"]), set()).update(map(uid_of, document.get("parents", [])))
        declared: dict[Uid, ActionDeclaration] = {}
        if model is not None:
            declared = {(ACTION_TYPE, name): each for name, each in model.actions.items()} | dict(model.others)
            for uid, each in declared.items():
                self._parents.setdefault(uid, set()).update(each.groups)
        self.actions = {uid: each for uid, each in declared.items() if each.principals is not None}
        self._above: dict[Uid, frozenset[Uid]] = {}

    @cached_property
    def entities(self) -> frozenset[Uid]:
        """The entities that entities.json has, without actions."""
        return frozenset(uid for uid in self._parents if not is_action(uid[0]))

    @cached_property
    def group_types(self) -> frozenset[str]:
        """Types of entities that others are in: roles, groups, tenants."""
        found = {kind for parents in self._parents.values() for kind, _ in parents if not is_action(kind)}
        if self.model is not None:
            found.update(parent for each in self.model.entities.values() for parent in each.parents)
        return frozenset(found)

    @cached_property
    def principal_types(self) -> frozenset[str]:
        """Types that act."""
        return frozenset(kind for each in self.actions.values() for kind in each.principals or ())

    def above(self, uid: Uid) -> frozenset[Uid]:
        """Return an entity or action itself and everything that it is in, directly or not."""
        if uid not in self._above:
            found: set[Uid] = set()
            waiting = [uid]
            while waiting:
                each = waiting.pop()
                if each not in found:
                    found.add(each)
                    waiting.extend(self._parents.get(each, ()))
            self._above[uid] = frozenset(found)
        return self._above[uid]

    def members(self, group: Uid) -> set[Uid]:
        """Return the principals that entities.json puts into a group, directly or not."""
        acting = self.principal_types
        return {
            uid
            for uid in self.entities
            if uid != group
            and group in self.above(uid)
            and (uid[0] in acting if acting else uid[0] != group[0] and uid[0] not in self.group_types)
        }

    def records(self, policy: pst.Template, variable: str, path: tuple[str, ...]) -> Iterator[RecordType]:
        """Yield the types that a path may have in a policy, as far as they are records or entities."""
        roots: set[RecordType] = set()
        for declared in map(self.actions.__getitem__, self.covered(policy.action)):
            if variable == "context":
                roots.add(declared.context)
                continue
            scope = policy.principal if variable == "principal" else policy.resource
            kind = getattr(scope, "entity_type", None)
            kinds = (declared.principals if variable == "principal" else declared.resources) or ()
            roots.update(self._record(EntityType(each)) for each in kinds if kind is None or str(kind) == each)
        for root in roots:
            at = root
            for name in path:
                attribute = at.get(name)
                if attribute is None or not isinstance(attribute.type, RecordType | EntityType):
                    break
                at = self._record(attribute.type)
            else:
                yield at

    def _record(self, kind: RecordType | EntityType) -> RecordType:
        if isinstance(kind, RecordType):
            return kind
        found = self.model.entities.get(kind.name) if self.model is not None else None
        return found.attributes if found is not None else RecordType()

    def covered(self, scope: pst.ActionConstraint) -> frozenset[Uid]:
        """Return the declared actions that a scope admits."""
        if isinstance(scope, pst.ScopeAny):
            return frozenset(self.actions)
        if isinstance(scope, pst.ActionEq):
            return frozenset({uid_of_node(scope.entity)} & self.actions.keys())
        groups = {uid_of_node(each) for each in scope.entities}
        return frozenset(uid for uid in self.actions if groups & self.above(uid))


def is_action(kind: str) -> bool:
    """Tell whether a type of entities is that of actions."""
    return kind == ACTION_TYPE or kind.endswith(f"::{ACTION_TYPE}")


def is_own(uid: Uid) -> bool:
    """Tell whether an action is one that the gate asks about itself, not an activity."""
    return uid[0] == ACTION_TYPE and uid[1] in OWN_ACTIONS


def uid_of_node(entity: pst.EntityUid) -> Uid:
    """Return type and id of an entity in a policy."""
    return str(entity.type), entity.id
