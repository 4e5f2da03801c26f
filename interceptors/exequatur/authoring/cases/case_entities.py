"""The entities that a policy test adds to those of its bundle."""

import json
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import Uid, uid_of
from exequatur.policy.source import SourceFile
from exequatur.policy.types import CedarType
from exequatur.policy.values import convert_plain, entity_of

_KNOWN = ("uid", "attrs", "parents", "tags")


def bundle_with(bundle: PolicyBundle, entities: tuple[Any, ...]) -> PolicyBundle:
    """Return a bundle to which entities are added; one with the uid of another takes its place.

    Args:
        bundle: The bundle; it stays as it is.
        entities: Mappings with ``uid`` and optionally ``attrs``, ``parents`` and ``tags``, in plain values.

    Raises:
        PolicyError: An entity cannot be read or does not conform to the schema; the message begins with
            ``entities[0]`` or the like.
    """
    if not entities:
        return bundle
    added: dict[Uid, dict[str, Any]] = {}
    for index, written in enumerate(entities):
        document = _entity(bundle, written, f"entities[{index}]")
        uid = uid_of(document["uid"])
        if uid in added:
            raise PolicyError(f"entities[{index}].uid: this entity stands in the list already. Merge the two.")
        added[uid] = document
    kept = [each for each in bundle.source.entity_documents if uid_of(each["uid"]) not in added]
    return _furnished(bundle, json.dumps([*kept, *added.values()], sort_keys=True))


@lru_cache(16)
def _furnished(bundle: PolicyBundle, entities: str) -> PolicyBundle:
    # Under this name the case's place is found for a message.
    return PolicyBundle(replace(bundle.source, entities=SourceFile("entities", entities)))


def _entity(bundle: PolicyBundle, written: Any, name: str) -> dict[str, Any]:
    if not isinstance(written, Mapping) or "uid" not in written:
        raise PolicyError(f"{name} must be a mapping with uid.")
    for key in written:
        if key not in _KNOWN:
            raise PolicyError(f"{name}.{key} is unknown: an entity has {', '.join(_KNOWN)}.")
    kind, identity = _uid(written["uid"], f"{name}.uid")
    parents = written.get("parents") or []
    if not isinstance(parents, list):
        raise PolicyError(f'{name}.parents must be a list such as [Role::"operations"].')
    document: dict[str, Any] = {
        "uid": {"type": kind, "id": identity},
        "attrs": {},
        "parents": [_reference(parent, f"{name}.parents[{index}]") for index, parent in enumerate(parents)],
    }
    attributes, tags = _declared(bundle, kind, f"{name}.uid")
    document["attrs"] = _converted(written.get("attrs") or {}, attributes, f"{name}.attrs")
    given = written.get("tags") or {}
    if not isinstance(given, Mapping):
        raise PolicyError(f"{name}.tags must be a mapping.")
    if given:
        document["tags"] = {key: _converted(value, tags, f"{name}.tags.{key}") for key, value in given.items()}
    return document


def _declared(bundle: PolicyBundle, kind: str, name: str) -> tuple[CedarType | None, CedarType | None]:
    """The types of attributes and tags; None where nothing is declared."""
    if bundle.model is None:
        return None, None
    found = bundle.model.entities.get(kind)
    if found is None:
        close = get_close_matches(kind, bundle.model.entities, 1)
        step = f" Did you mean {close[0]}?" if close else ""
        raise PolicyError(f"{name}: there is no entity type {kind[:80]} in the schema.{step}")
    return found.attributes, found.tags


def _uid(written: Any, name: str) -> Uid:
    try:
        return entity_of(written)
    except ValueError as error:
        raise PolicyError(f"{name}: {error}.") from None


def _reference(written: Any, name: str) -> dict[str, str]:
    kind, identity = _uid(written, name)
    return {"type": kind, "id": identity}


def _converted(value: Any, declared: CedarType | None, name: str) -> Any:
    if name.endswith(".attrs") and not isinstance(value, Mapping):
        raise PolicyError(f"{name} must be a mapping.")
    converted = convert_plain(value, declared, name)
    if converted.faults:
        raise PolicyError(f"{'; '.join(list(converted.faults.values())[:5])}.")
    return converted.value
