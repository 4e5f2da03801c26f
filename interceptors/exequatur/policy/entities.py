"""The entities of a bundle, the action groups among them, and the principal that a grant vouches for."""

import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from cedarpy import Entities, Schema

from exequatur.errors import PolicyError
from exequatur.policy.source import BundleSource

#: What Cedar wants in every entity, as it is written where there is nothing to say.
_MEMBERS = {"attrs": '"attrs": {}', "parents": '"parents": []'}

Uid = tuple[str, str]

ACTION_TYPE = "Action"
#: Principals that are remembered in their parsed form.
MAX_PRINCIPALS = 1024
#: A remembered principal holds a map of all entities of the bundle; this bounds what all of them hold together.
MAX_REMEMBERED_ENTITIES = 1_000_000


def uid_of(value: Any) -> Uid:
    """Return type and id of an entity reference in Cedar JSON, with or without its ``__entity`` escape.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, Mapping) and set(value) == {"__entity"}:
        value = value["__entity"]
    if isinstance(value, Mapping) and {"type", "id"} <= set(value) and "__entity" not in value:
        kind, name = value["type"], value["id"]
        if isinstance(kind, str) and isinstance(name, str):
            return kind, name
    raise ValueError('an entity reference must be {"type": "...", "id": "..."}')


def missing_members(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what an entity lacks of the members that Cedar asks for, and the next step; None if it has them."""
    missing = {each: text for each, text in _MEMBERS.items() if each not in document}
    if not missing:
        return None
    return (
        f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing",
        f"write {', '.join(missing.values())}",
    )


class EntityStore:
    """The parsed entities of one bundle.

    Args:
        source: The bundle's texts.
        schema: The parsed schema; entities must conform to it, and its action groups are added.
        strict: Refuse an entity that is defined twice in the same way, which Cedar does not mind.

    Raises:
        PolicyError: An entity is malformed, defined twice or does not conform to the schema.
    """

    def __init__(self, source: BundleSource, schema: Schema | None, *, strict: bool = True) -> None:
        self._schema = schema
        self._documents: dict[Uid, dict[str, Any]] = {}
        name = source.entities.name if source.entities else "entities"
        for index, document in enumerate(source.entity_documents):
            try:
                uid = uid_of(document["uid"])
            except (ValueError, KeyError, TypeError, IndexError):
                raise PolicyError(
                    f'{name}, entity {index + 1}: has no "uid" of the form {{"type": ..., "id": ...}}. Add it.'
                ) from None
            if uid in self._documents and (strict or self._documents[uid] != document):
                raise PolicyError(f"{name}: {_shown(uid)} is defined twice. Merge the two entries.")
            self._documents[uid] = document
        self._base = self._parse_base(name)
        self._groups = self._action_groups()
        self._principals: OrderedDict[str, Entities] = OrderedDict()
        self._capacity = max(1, min(MAX_PRINCIPALS, MAX_REMEMBERED_ENTITIES // max(1, len(self._base))))
        self._lock = Lock()

    def with_principal(self, entity: Mapping[str, Any] | None) -> Entities:
        """Return the entities with a vouched principal added.

        Attributes that the bundle gives to the same entity win over vouched ones, since they are newer; parents are
        united.

        Args:
            entity: Cedar JSON entity with ``uid``, ``attrs`` and ``parents``, or None for the bundle's entities alone.

        Returns:
            A handle for evaluation.

        Raises:
            ValueError: The entity is malformed, is an action, or does not conform to the schema.
        """
        if entity is None:
            return self._base
        key = json.dumps(entity, sort_keys=True, allow_nan=False)
        with self._lock:
            known = self._principals.get(key)
            if known is not None:
                self._principals.move_to_end(key)
                return known
        parsed = self._merge(json.loads(key))
        with self._lock:
            self._principals[key] = parsed
            while len(self._principals) > self._capacity:
                self._principals.popitem(last=False)
        return parsed

    @property
    def actions(self) -> frozenset[str]:
        """Ids of the actions that the schema or the entities declare."""
        return frozenset(name for kind, name in self._groups if kind == ACTION_TYPE)

    def groups_of(self, action_id: str) -> frozenset[Uid]:
        """Return the action itself and every action group that contains it, directly or not."""
        found: set[Uid] = set()
        waiting: list[Uid] = [(ACTION_TYPE, action_id)]
        while waiting:
            uid = waiting.pop()
            if uid not in found:
                found.add(uid)
                waiting.extend(self._groups.get(uid, ()))
        return frozenset(found)

    def _merge(self, vouched: dict[str, Any]) -> Entities:
        if not {"uid"} <= set(vouched) <= {"uid", "attrs", "parents"}:
            raise ValueError("the principal entity must have uid, attrs and parents, and nothing else")
        uid = uid_of(vouched["uid"])
        if uid[0] == ACTION_TYPE or uid[0].endswith(f"::{ACTION_TYPE}"):
            # It could put an action into a group and so under another policy.
            raise ValueError("a principal cannot be an action")
        attrs, parents = vouched.get("attrs", {}), vouched.get("parents", [])
        if not isinstance(attrs, dict) or not isinstance(parents, list):
            raise ValueError("the principal's attrs must be an object and its parents a list")
        wanted = {uid_of(parent) for parent in parents}
        own = self._documents.get(uid)
        if own is None:
            document = {
                "uid": _reference(uid),
                "attrs": attrs,
                "parents": [_reference(item) for item in sorted(wanted)],
            }
            return self._conforming(uid, lambda: self._base.with_added_json_str(json.dumps([document]), self._schema))
        held = {uid_of(parent) for parent in own.get("parents", [])}
        if wanted <= held and set(attrs) <= set(own.get("attrs", {})):
            return self._base
        merged = {
            **own,
            "attrs": {**attrs, **own.get("attrs", {})},
            "parents": [_reference(item) for item in sorted(wanted | held)],
        }
        documents = list({**self._documents, uid: merged}.values())
        return self._conforming(uid, lambda: Entities.from_json_str(json.dumps(documents), self._schema))

    def _conforming(self, uid: Uid, parse: Any) -> Entities:
        try:
            entities: Entities = parse()
        except ValueError as error:
            raise ValueError(f"the principal {_shown(uid)} is not usable with this bundle: {error}") from None
        return entities

    def _parse_base(self, name: str) -> Entities:
        documents = list(self._documents.values())
        try:
            return Entities.from_json_str(json.dumps(documents), self._schema, release_gil=True)
        except ValueError as error:
            for uid, document in self._documents.items():
                try:
                    Entities.from_json_str(json.dumps([document]), self._schema)
                except ValueError as single:
                    if lacking := missing_members(document):
                        raise PolicyError(f"{name}: {_shown(uid)}: {lacking[0]}. {lacking[1].capitalize()}.") from None
                    raise PolicyError(f"{name}: {_shown(uid)}: {single}. Correct this entity.") from None
            raise PolicyError(f"{name}: {error}. Correct the entities.") from None

    def _action_groups(self) -> dict[Uid, set[Uid]]:
        documents = list(self._documents.values())
        if self._schema is not None:
            # Cedar adds the schema's actions to the entities; from there its groups count in evaluation too.
            documents += json.loads(str(Entities.from_json_str("[]", self._schema)))
        groups: dict[Uid, set[Uid]] = {}
        for document in documents:
            uid = uid_of(document["uid"])
            groups.setdefault(uid, set()).update(uid_of(parent) for parent in document.get("parents", []))
        return groups


def _reference(uid: Uid) -> dict[str, str]:
    return {"type": uid[0], "id": uid[1]}


def _shown(uid: Uid) -> str:
    return f"{uid[0]}::{json.dumps(uid[1])}"
