"""A policy bundle: schema, policies and entities, parsed once, validated, and named by their digest.

Rules:

B1  Every file parses by itself and all policies parse together; otherwise there is no bundle.
B2  With a schema, every policy validates strictly against it and every entity conforms to it.
B3  Two policies never share a name, so that a decision names exactly one.
B4  A bundle never changes, and :meth:`PolicyBundle.evaluate` is Cedar's answer, unchanged.
"""

import datetime
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import cedarpy
from cedarpy import PolicySet, Schema, pst

from exequatur.errors import PolicyError
from exequatur.policy.entities import ACTION_TYPE, EntityStore
from exequatur.policy.reads import argument_reads, fact_reads
from exequatur.policy.schema import SchemaModel, read_schema
from exequatur.policy.source import BundleSource, SourceFile, check_size, read_folder
from exequatur.policy.syntax import Place, parse_error_offset, place_of, statements

EntityRef = str | Mapping[str, str]
"""An entity: ``'Type::"id"'`` or ``{"type": ..., "id": ...}``; the second form takes any id without escaping."""

_T = TypeVar("_T")
_TTL = re.compile(r"([1-9][0-9]{0,6})(s|m|h)")
_TTL_UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}
#: Distinct actions whose reads are remembered; a worker has at most some hundred activity types.
_MAX_ACTIONS = 4096


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
class LocatedPolicy:
    """Where a policy is written.

    Args:
        file: The file's name.
        start: Offset of its first word in that file.
        place: Line and column of that word.
        text: The policy, without comments before it.
    """

    file: str
    start: int
    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.place}"


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

    def __init__(self, source: BundleSource) -> None:
        """Parse and validate a bundle.

        Args:
            source: The bundle's texts.

        Raises:
            PolicyError: B1, B2 or B3 does not hold; the message names the file and the next step.
        """
        check_size(source)
        self._source = source
        self._digest = source.digest
        templates = [_parse_file(file) for file in source.policies]
        self._policy_set = _parse_together(source)
        nodes = self._policy_set.to_pst()
        self._located = located = _locations(source)
        self._static = dict(sorted(nodes.static_policies.items(), key=lambda item: _position(item[0])))
        self._order = {policy_id: index for index, policy_id in enumerate(self._static)}
        schema = _parse_schema(source.schema) if source.schema else None
        if schema is not None:
            _validate(source, schema, located)
        self._entities = EntityStore(source, schema)
        infos, unnamed = _describe(self._static, located)
        self._policies: Mapping[str, PolicyInfo] = MappingProxyType(infos)
        self._warnings = tuple(_warnings(schema, infos, unnamed, sum(templates)))
        self._reads: Callable[[str], frozenset[tuple[str, ...]]] = lru_cache(_MAX_ACTIONS)(self._compute_reads)
        self._fact_reads: Callable[[str], frozenset[str] | None] = lru_cache(_MAX_ACTIONS)(self._compute_fact_reads)

    @classmethod
    def from_parts(
        cls, policies: str, schema: str | None = None, entities: list[dict[str, Any]] | None = None
    ) -> "PolicyBundle":
        """Build a bundle from texts.

        Args:
            policies: Cedar policies.
            schema: Cedar schema, in Cedar or JSON syntax; without it policies are evaluated unvalidated.
            entities: Cedar JSON entities.

        Returns:
            The bundle.

        Raises:
            PolicyError: It is refused (B1 to B3).
        """
        try:
            entity_file = SourceFile("entities", _dump(entities)) if entities else None
        except (TypeError, ValueError, RecursionError) as error:
            raise PolicyError(f"The entities are not JSON: {error}.") from None
        schema_file = SourceFile("schema", schema) if schema is not None else None
        return cls(BundleSource((SourceFile("policies", policies),), schema_file, entity_file))

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
    def model(self) -> SchemaModel | None:
        """What the schema declares; None without a schema.

        Raises:
            PolicyError: Cedar reads the schema and this package cannot.
        """
        schema = self._source.schema
        return read_schema(schema.text, schema.name) if schema else None

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
        a context non-conforming, and Cedar would read typed strings differently. Policies and entities are validated.

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
        result = cedarpy.is_authorized(request, self._policy_set, entities)
        diagnostics = result.diagnostics
        # Cedar reports in the order of a hash table; evidence must not depend on it.
        reasons = sorted(diagnostics.reasons, key=lambda policy_id: (self._order.get(policy_id, -1), policy_id))
        return Decision(result.allowed, tuple(reasons), tuple(sorted(diagnostics.errors)))

    def reads(self, action_id: str) -> frozenset[tuple[str, ...]]:
        """Return the argument paths that policies which can apply to an action can read.

        Args:
            action_id: The id of the action, whose type is ``Action``.

        Returns:
            Paths below ``context.args``; ``()`` means all of them.
        """
        return self._reads(action_id)

    def fact_reads(self, action_id: str) -> frozenset[str] | None:
        """Return the attributes of ``context`` that policies which can apply to an action can read.

        Args:
            action_id: The id of the action, whose type is ``Action``.

        Returns:
            Their names, ``args`` among them; None means any.
        """
        return self._fact_reads(action_id)

    def _compute_reads(self, action_id: str) -> frozenset[tuple[str, ...]]:
        return argument_reads(self._applicable(action_id))

    def _compute_fact_reads(self, action_id: str) -> frozenset[str] | None:
        return fact_reads(self._applicable(action_id))

    def _applicable(self, action_id: str) -> list[pst.Template]:
        groups = self._entities.groups_of(action_id)
        own = (ACTION_TYPE, action_id)
        return [policy for policy in self._static.values() if _can_apply(policy.action, own, groups)]


def _can_apply(constraint: pst.ActionConstraint, own: tuple[str, str], groups: frozenset[tuple[str, str]]) -> bool:
    if isinstance(constraint, pst.ActionEq):
        return (str(constraint.entity.type), constraint.entity.id) == own
    if isinstance(constraint, pst.ActionIn):
        return any((str(entity.type), entity.id) in groups for entity in constraint.entities)
    return True


def _dump(entities: list[dict[str, Any]]) -> str:
    return json.dumps(entities, allow_nan=False)


def _position(policy_id: str) -> tuple[int, str]:
    digits = policy_id.removeprefix("policy")
    return (int(digits) if digits.isdecimal() else -1, policy_id)


def _parse_file(file: SourceFile) -> int:
    """Parse one file by itself, so that an error names it; return how many templates it holds (B1)."""
    try:
        parsed = PolicySet.from_str(file.text, release_gil=True)
    except ValueError as error:
        raise PolicyError(
            f"{_place_of_error(file)}: Cedar cannot parse this policy: {error}. Correct it and save it again."
        ) from None
    try:
        return len(parsed.to_pst().templates)
    except ValueError as error:
        raise PolicyError(f"{file.name}: {error}. Split the condition into several policies.") from None


def _place_of_error(file: SourceFile) -> str:
    """Where the first policy that Cedar refuses is wrong, as exactly as Cedar's parser can tell."""
    for statement in statements(file.text):
        if _refused(PolicySet.from_str, statement.text):
            inside = parse_error_offset(statement.text, PolicySet.from_str) or 0
            return f"{file.name}:{place_of(file.text, statement.start + inside)}"
    return file.name


def _refused(parse: Callable[[str], _T], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return True
    return False


def _parse_together(source: BundleSource) -> PolicySet:
    try:
        return PolicySet.from_str(source.policy_text, release_gil=True)
    except ValueError as error:
        names = ", ".join(file.name for file in source.policies)
        raise PolicyError(
            f"{names}: each parses, but not together: {error}. End every policy with a semicolon."
        ) from None


def _parse_schema(file: SourceFile) -> Schema:
    parse = Schema.from_json_str if file.text.lstrip().startswith("{") else Schema.from_str
    try:
        return parse(file.text, release_gil=True)
    except ValueError as error:
        raise PolicyError(f"{file.name}: Cedar refuses the schema: {error}. Correct it and save it again.") from None


def _validate(source: BundleSource, schema: Schema, located: Mapping[str, LocatedPolicy]) -> None:  # B2
    result = cedarpy.validate_policies(source.policy_text, schema, release_gil=True)
    if not result.validation_passed:
        found = [
            f"{located.get(error.policy_id, 'policies')}: "
            + error.error.removeprefix(f"for policy `{error.policy_id}`, ")
            for error in result.errors
        ]
        more = f" ({len(found) - 5} more)" if len(found) > 5 else ""
        raise PolicyError(
            f"{'; '.join(found[:5])}{more}. Change the policy, or the schema if the activity's signature changed."
        )


def _locations(source: BundleSource) -> dict[str, LocatedPolicy]:
    """Each policy by its Cedar id, which counts policies from the first file to the last."""
    places = [
        LocatedPolicy(file.name, each.start, place_of(file.text, each.start), each.text)
        for file in source.policies
        for each in statements(file.text)
    ]
    return {f"policy{index}": place for index, place in enumerate(places)}


def _describe(
    static: Mapping[str, pst.Template], located: Mapping[str, LocatedPolicy]
) -> tuple[dict[str, PolicyInfo], list[str]]:
    infos: dict[str, PolicyInfo] = {}
    named: dict[str, str] = {}
    unnamed = []
    for policy_id, policy in static.items():
        place = str(located.get(policy_id, policy_id))
        name = policy.annotations.get("id", "") or policy_id
        if name == policy_id:
            unnamed.append(place)
        if name in named:  # B3
            raise PolicyError(f'{place}: @id("{name}") is already the name of {named[name]}. Give it another @id.')
        named[name] = place
        annotations = policy.annotations
        infos[policy_id] = PolicyInfo(
            id=name,
            effect=policy.effect,
            reason=annotations.get("reason") or None,
            ttl=_ttl(annotations["ttl"], place) if "ttl" in annotations else None,
            approval=annotations.get("approval"),
        )
    return infos, unnamed


def _ttl(text: str, place: str) -> datetime.timedelta:
    match = _TTL.fullmatch(text)
    if match is None:
        raise PolicyError(f'{place}: @ttl("{text}") is no duration. Write for example "30s", "5m" or "1h".')
    return datetime.timedelta(**{_TTL_UNITS[match.group(2)]: int(match.group(1))})


def _warnings(schema: Schema | None, infos: Mapping[str, PolicyInfo], unnamed: list[str], templates: int) -> list[str]:
    warnings = []
    if schema is None:
        warnings.append("no schema: policies are evaluated unvalidated")
    if not infos:
        warnings.append("no policies: everything is denied")
    warnings += [f"{place}: policy without @id; denials will name it by its position" for place in unnamed]
    if templates:
        warnings.append(f"{templates} policy templates are never linked and decide nothing")
    return warnings
