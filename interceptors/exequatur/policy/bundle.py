"""A policy bundle: schema, policies and entities, parsed once, validated, and named by their digest.

Rules:

B1  Every file parses by itself and all policies parse together; otherwise there is no bundle.
B2  With a schema, every entity conforms to it, and in a strict bundle every policy validates strictly against it.
B3  In a strict bundle two policies never share a name, so that a decision names exactly one, and annotations are sound.
B4  A bundle never changes, and :meth:`PolicyBundle.evaluate` is Cedar's answer, unchanged.

A bundle for the gate is strict. One that is not holds whatever Cedar accepts: Cedar evaluates policies that do not
validate, and knows no names. Its :attr:`PolicyBundle.fault` then says why the gate does not decide by it.
"""

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import cedarpy
from cedarpy import Schema, pst

from exequatur.errors import PolicyError
from exequatur.policy.actions import ActionIndex, Scope, scope_of
from exequatur.policy.entities import EntityStore
from exequatur.policy.parsing import (
    LocatedPolicy,
    locations,
    parse_policies,
    parse_schema,
    policy_nodes,
    position,
    told_apart,
    validation_fault,
)
from exequatur.policy.schema import SchemaModel, read_schema
from exequatur.policy.source import BundleSource, SourceFile, check_size, read_folder
from exequatur.policy.types import Path as ArgumentPath
from exequatur.policy.types import RecordType, attributes_of

__all__ = ["Decision", "EntityRef", "LocatedPolicy", "PolicyBundle", "PolicyInfo"]

EntityRef = str | Mapping[str, str]
"""An entity: ``'Type::"id"'`` or ``{"type": ..., "id": ...}``; the second form takes any id without escaping."""

_Header = tuple[pst.Effect, Mapping[str, str]]
_TTL = re.compile(r"([1-9][0-9]{0,6})(s|m|h)")
_TTL_UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What a policy says about itself.

    Args:
        id: Its ``@id``, or else the id that Cedar gave it by position.
        effect: permit or forbid.
        reason: Its ``@reason``, shown in a denial.
        ttl: Its ``@ttl``, how long an allow may stand between two checks.
        approval: Its ``@approval`` as written.
    """

    id: str
    effect: Literal["permit", "forbid"]
    reason: str | None
    ttl: datetime.timedelta | None
    approval: str | None


@dataclass(frozen=True, slots=True)
class DeclaredArguments:
    """What a schema declares for the arguments of an action.

    Args:
        record: The type of ``context.args``.
        optional: Paths of the attributes that need not be there.
    """

    record: RecordType
    optional: frozenset[ArgumentPath]


_NO_ARGUMENTS = DeclaredArguments(RecordType(), frozenset())


@dataclass(frozen=True, slots=True)
class Decision:
    """Cedar's answer.

    Args:
        allowed: Cedar says Allow.
        reasons: Cedar ids of the determining policies, in the order of the bundle.
        errors: What failed while Cedar evaluated, or why it could not.
    """

    allowed: bool
    reasons: tuple[str, ...]
    errors: tuple[str, ...]


class PolicyBundle:
    """A parsed, immutable policy bundle; build it with :meth:`from_folder` or :meth:`from_parts`."""

    def __init__(self, source: BundleSource, *, strict: bool = True) -> None:
        """Parse and validate a bundle.

        Args:
            source: The bundle's texts.
            strict: Refuse what Cedar can evaluate and the gate must not decide by (B2, B3).

        Raises:
            PolicyError: B1, B2 or B3 does not hold; the message names the file and the next step.
        """
        check_size(source)
        self._source = source
        self._digest = source.digest
        self._policy_set = parse_policies(source)  # B1
        self._located = locations(source)
        self._faults: list[str] = []
        """What B2 and B3 find, other than by validation."""
        scopes, headers = self._analysed()
        if strict and self._faults:
            raise PolicyError(self._faults[0])
        self._schema = parse_schema(source.schema) if source.schema else None
        if strict and self._validation_fault:  # [B2]
            raise PolicyError(self._validation_fault)
        self._entities = EntityStore(source, self._schema, strict=strict)
        infos, unnamed, faults = _describe(headers, self._located)
        if strict and faults:  # [B3]
            raise PolicyError(faults[0])
        self._faults += faults
        self._policies: Mapping[str, PolicyInfo] = MappingProxyType(infos)
        texts: dict[str, str] = {}
        if scopes is not None and told_apart(self._policy_set, self._located):
            texts = {policy_id: self._located[policy_id].text for policy_id in scopes}
        self._index = ActionIndex(scopes, self._policy_set, texts, self._entities.groups_of, self._entities.actions)
        templates = len(self._policy_set.templates())
        self._warnings = tuple(_warnings(self._schema, len(self._policy_set), unnamed, templates))

    @classmethod
    def from_parts(
        cls,
        policies: str,
        schema: str | None = None,
        entities: list[dict[str, Any]] | None = None,
        *,
        strict: bool = False,
    ) -> "PolicyBundle":
        """Build a bundle from texts, whatever Cedar accepts.

        Args:
            policies: Cedar policies.
            schema: Cedar schema, in Cedar or JSON syntax; without it policies are evaluated unvalidated.
            entities: Cedar JSON entities.
            strict: Refuse what the gate must not decide by, as :meth:`from_folder` does.

        Returns:
            The bundle.

        Raises:
            PolicyError: Cedar refuses it, or it is not strict and has to be.
        """
        try:
            entity_file = SourceFile("entities", _dump(entities)) if entities else None
        except (TypeError, ValueError, RecursionError) as error:
            raise PolicyError(f"The entities are not JSON: {error}.") from None
        schema_file = SourceFile("schema", schema) if schema is not None else None
        return cls(BundleSource((SourceFile("policies", policies),), schema_file, entity_file), strict=strict)

    @classmethod
    def from_folder(cls, path: str | Path) -> "PolicyBundle":
        """Build a bundle from a folder of ``*.cedar`` files, an optional schema and optional ``entities.json``.

        Args:
            path: The folder.

        Returns:
            The bundle.

        Raises:
            PolicyError: A file cannot be read, or the bundle is refused (B1 to B3).
        """
        return cls(read_folder(Path(path)))

    @property
    def source(self) -> BundleSource:
        """The texts, for the archive: the same texts give the same digest and the same decisions."""
        return self._source

    @property
    def digest(self) -> str:
        """Base64url SHA-256 of schema, policies and entities."""
        return self._digest

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant."""
        return self._warnings

    @cached_property
    def fault(self) -> str | None:
        """Why the gate must not decide by this bundle (B2, B3); None for a strict one."""
        return next(iter(self._faults), None) or self._validation_fault

    @cached_property
    def _validation_fault(self) -> str | None:
        return validation_fault(self._source, self._schema, self._located) if self._schema is not None else None

    def _analysed(self) -> tuple[Mapping[str, Scope] | None, Mapping[str, _Header]]:
        """What the policies are about and say; nothing where Cedar evaluates them and cannot show them: a fault."""
        scopes: dict[str, Scope] = {}
        headers: dict[str, _Header] = {}
        try:
            for policy_id, node in policy_nodes(self._policy_set, self._located):
                scopes[policy_id] = scope_of(node)
                headers[policy_id] = (node.effect, dict(node.annotations))
        except (PolicyError, ValueError) as error:
            self._faults.append(str(error))
            return None, {}
        return scopes, headers

    @cached_property
    def model(self) -> SchemaModel | None:
        """What the schema declares; None without a schema.

        Raises:
            PolicyError: Cedar reads the schema and this package cannot.
        """
        schema = self._source.schema
        return read_schema(schema.text, schema.name) if schema else None

    def declared_arguments(self, action_id: str) -> DeclaredArguments | None:
        """Return what the schema declares for ``context.args`` of an action; None without a schema.

        Args:
            action_id: The id of the action, whose type is ``Action``; one that is not declared has no arguments.

        Raises:
            PolicyError: As for :attr:`model`.
        """
        declared = self._declared_arguments
        return None if declared is None else declared.get(action_id, _NO_ARGUMENTS)

    def declares(self, action_id: str) -> bool:
        """Tell whether the schema declares that something can be asked about an action; true without a schema.

        Args:
            action_id: The id of the action, whose type is ``Action``; a group of actions is none.

        Raises:
            PolicyError: As for :attr:`model`.
        """
        if self.model is None:
            return True
        action = self.model.actions.get(action_id)
        return action is not None and action.principals is not None

    @cached_property
    def _declared_arguments(self) -> Mapping[str, DeclaredArguments] | None:
        model = self.model
        if model is None:
            return None
        records = {name: action.args or RecordType() for name, action in model.actions.items()}
        return {
            name: DeclaredArguments(
                record, frozenset(path for path, each in attributes_of(record) if not each.required)
            )
            for name, record in records.items()
        }

    @property
    def located(self) -> Mapping[str, LocatedPolicy]:
        """Where each policy is written, by Cedar policy id."""
        return self._located

    @property
    def policies(self) -> Mapping[str, PolicyInfo]:
        """What each policy says about itself, by Cedar policy id."""
        return self._policies

    def evaluate(
        self,
        principal: EntityRef,
        action: EntityRef,
        resource: EntityRef,
        context: Mapping[str, Any],
        *,
        principal_entity: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Return Cedar's answer, unchanged (B4).

        The schema is not applied to the request: an optional that is None or a value that no policy reads would make
        a context non-conforming, and Cedar would read typed strings differently.

        Args:
            principal: Who acts.
            action: What is to be done.
            resource: What it is done to.
            context: Cedar JSON record.
            principal_entity: The vouched entity of the principal, added to the bundle's entities.

        Returns:
            The decision; a malformed principal entity is a refusal with an error, never an exception.
        """
        try:
            entities = self._entities.with_principal(principal_entity)
        except (ValueError, TypeError, RecursionError) as error:
            return Decision(False, (), (f"principal entity: {error}",))
        request = {"principal": principal, "action": action, "resource": resource, "context": dict(context)}
        asked = self._index.slice_for(action)
        result = cedarpy.is_authorized(request, asked.policies, entities)
        diagnostics = result.diagnostics
        # Cedar reports in the order of a hash table; evidence must not depend on it.
        return Decision(
            result.allowed,
            tuple(sorted(map(asked.reason, diagnostics.reasons), key=position)),
            tuple(sorted(map(asked.error, diagnostics.errors))),
        )

    def applicable(self, action_id: str) -> tuple[str, ...]:
        """Return the Cedar ids of the policies whose scope admits an action, in the order of the bundle.

        Args:
            action_id: The id of the action, whose type is ``Action``.
        """
        return self._index.of(action_id).ids

    def reads(self, action_id: str) -> frozenset[tuple[str, ...]]:
        """Return the argument paths that policies which can apply to an action can read.

        Args:
            action_id: The id of the action, whose type is ``Action``.

        Returns:
            Paths below ``context.args``; ``()`` means all of them.
        """
        return self._index.of(action_id).reads

    def content_reads(self, action_id: str) -> frozenset[tuple[str, ...]]:
        """Return those of :meth:`reads` of which policies read more than whether they are there."""
        return self._index.of(action_id).contents

    def fact_reads(self, action_id: str) -> frozenset[str] | None:
        """Return the attributes of ``context`` that policies which can apply to an action can read.

        Args:
            action_id: The id of the action, whose type is ``Action``.

        Returns:
            Their names, ``args`` among them; None means any.
        """
        return self._index.of(action_id).facts

    def reads_fact(self, name: str) -> bool:
        """Tell whether any policy can read an attribute of ``context``, whatever the action.

        Args:
            name: Its name.
        """
        return self._index.reads_fact(name)


def _dump(entities: list[dict[str, Any]]) -> str:
    return json.dumps(entities, allow_nan=False)


def _describe(
    headers: Mapping[str, _Header], located: Mapping[str, LocatedPolicy]
) -> tuple[dict[str, PolicyInfo], list[str], list[str]]:
    """What the policies say about themselves, the places of those without a name, and what is wrong with it."""
    infos: dict[str, PolicyInfo] = {}
    named: dict[str, str] = {}
    unnamed, faults = [], []
    for policy_id, (effect, annotations) in headers.items():
        place = str(located.get(policy_id, policy_id))
        name = annotations.get("id", "") or policy_id
        if name == policy_id:
            unnamed.append(place)
        if name in named:  # [B3]
            faults.append(f'{place}: @id("{name}") is already the name of {named[name]}. Give it another @id.')
        named[name] = place
        ttl = _ttl(annotations.get("ttl"))
        if ttl is None and "ttl" in annotations:  # [B3]
            faults.append(
                f'{place}: @ttl("{annotations["ttl"]}") is no duration. Write for example "30s", "5m" or "1h".'
            )
        infos[policy_id] = PolicyInfo(name, effect, annotations.get("reason") or None, ttl, annotations.get("approval"))
    return infos, unnamed, faults


def _ttl(text: str | None) -> datetime.timedelta | None:
    match = _TTL.fullmatch(text or "")
    return datetime.timedelta(**{_TTL_UNITS[match.group(2)]: int(match.group(1))}) if match else None


def _warnings(schema: Schema | None, policies: int, unnamed: list[str], templates: int) -> list[str]:
    warnings = []
    if schema is None:
        warnings.append("no schema: policies are evaluated unvalidated")
    if not policies:
        warnings.append("no policies: everything is denied")
    warnings += [f"{place}: policy without @id; denials will name it by its position" for place in unnamed]
    if templates:
        warnings.append(f"{templates} policy templates are never linked and decide nothing")
    return warnings
