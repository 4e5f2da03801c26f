"""A bundle opened up for questions other than the gate's: its policies as data, and its entities one by one.

Cedar answers them all the same: with small policies that each hold one part of a real one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import cedarpy
from cedarpy import Entities, PolicySet, Schema, pst

from exequatur.authoring.expression import Origin, groups_in, parts_of, written
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import ACTION_TYPE, EntityStore, Uid, uid_of

Outcome = Literal["met", "unmet", "error", "unreached"]

_ERROR = re.compile(r"error while evaluating policy `([0-9]+)`: (.*)", re.DOTALL)
_ANY = pst.ScopeAny()


@dataclass(frozen=True, slots=True)
class JudgedPart:
    """A part of a policy and what Cedar says of it.

    Args:
        origin: In which clause it stands.
        expr: What is written there.
        text: The same as Cedar text.
        outcome: ``met`` or ``unmet``; ``error`` if Cedar failed on it; ``unreached`` if it would fail, but an earlier
            part is not met, so that Cedar never looks at it.
        error: What Cedar says of the error.
    """

    origin: Origin
    expr: pst.Expr
    text: str
    outcome: Outcome
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JudgedPolicy:
    """A policy and each of its parts, in the order of evaluation.

    Args:
        id: Cedar's id of the policy.
        parts: All but the scope's action.
    """

    id: str
    parts: tuple[JudgedPart, ...]

    @property
    def applies(self) -> bool:
        """Every part is met."""
        return all(part.outcome == "met" for part in self.parts)

    @property
    def unmet(self) -> tuple[JudgedPart, ...]:
        """What keeps it from applying."""
        return tuple(part for part in self.parts if part.outcome in ("unmet", "error"))

    @property
    def error(self) -> str | None:
        """Why Cedar skips it."""
        return next((part.error for part in self.parts if part.outcome == "error"), None)


class OpenBundle:
    """A bundle's policies as nodes and its entities as documents.

    Args:
        bundle: The bundle.

    Raises:
        PolicyError: A policy cannot be shown as data.
    """

    def __init__(self, bundle: PolicyBundle) -> None:
        self.bundle = bundle
        source = bundle.source
        try:
            found = PolicySet.from_str(source.policy_text).to_pst().static_policies
        except ValueError as error:
            raise PolicyError(f"The policies cannot be taken apart: {error}. Split the condition.") from None
        self.policies: Mapping[str, pst.Template] = {
            policy_id: found[policy_id] for policy_id in bundle.policies if policy_id in found
        }
        schema = None
        if source.schema is not None:
            json_schema = source.schema.text.lstrip().startswith("{")
            schema = (Schema.from_json_str if json_schema else Schema.from_str)(source.schema.text)
        self._store = EntityStore(source, schema)
        self._applicable = lru_cache(maxsize=64)(self._admitting)

    @cached_property
    def entities(self) -> Mapping[Uid, Mapping[str, Any]]:
        """The bundle's entities by type and id, the schema's actions among them; parents are those of any degree."""
        return documents_of(self._store.with_principal(None))

    @cached_property
    def named(self) -> frozenset[Uid]:
        """The entities that policies name, actions among them."""
        return frozenset(_uid(each) for policy in self.policies.values() for each in pst.entity_uids(policy))

    @cached_property
    def groups(self) -> frozenset[Uid]:
        """The entities that policies ask the principal to be in."""
        parts = (part for policy in self.policies.values() for part in parts_of(policy))
        return frozenset(_uid(each) for part in parts for each in groups_in(part.expr))

    @cached_property
    def parents(self) -> frozenset[Uid]:
        """The entities that others of the bundle are in."""
        documents = self.entities.values()
        return frozenset(uid_of(parent) for document in documents for parent in document.get("parents", []))

    def applicable(self, action: str) -> Mapping[str, pst.Template]:
        """Return the policies whose scope admits an action, by Cedar id, in the order of the bundle."""
        return self._applicable(action)

    def _admitting(self, action: str) -> Mapping[str, pst.Template]:
        nobody = {"type": ACTION_TYPE, "id": action}
        request = {"principal": nobody, "action": nobody, "resource": nobody, "context": {}}
        scopes = {
            policy_id: [part.clause for part in parts_of(policy) if part.origin == "action"]
            for policy_id, policy in self.policies.items()
        }
        scoped = [policy_id for policy_id, clauses in scopes.items() if clauses]
        answer = _ask_each((scopes[policy_id][0] for policy_id in scoped), request, self.with_principal(None))
        met = set() if answer is None else {scoped[number] for number in answer[0]}
        return {
            policy_id: policy
            for policy_id, policy in self.policies.items()
            if not scopes[policy_id] or policy_id in met
        }

    def with_principal(self, entity: Mapping[str, Any] | None) -> Entities:
        """Return the entities with a vouched principal among them, as the gate unites them.

        Raises:
            PolicyError: The principal is malformed or does not conform to the schema.
        """
        try:
            return self._store.with_principal(entity)
        except (ValueError, TypeError, RecursionError) as error:
            raise PolicyError(f"principal: {error}. Compare its parents and attributes with the schema.") from None

    def judge(
        self, entities: Entities, principal: Uid, action: str, resource: Mapping[str, str], context: Mapping[str, Any]
    ) -> list[JudgedPolicy]:
        """Ask Cedar about every part of every policy whose scope admits the action.

        Args:
            entities: From :meth:`with_principal`.
            principal: Who acts.
            action: The action's id.
            resource: What it is done to.
            context: Cedar JSON record.

        Returns:
            The policies in the order of the bundle; none if Cedar cannot evaluate the request at all.
        """
        numbered = [
            (policy_id, part)
            for policy_id, policy in self.applicable(action).items()
            for part in parts_of(policy)
            if part.origin != "action"
        ]
        request = {
            "principal": {"type": principal[0], "id": principal[1]},
            "action": {"type": ACTION_TYPE, "id": action},
            "resource": dict(resource),
            "context": dict(context),
        }
        answer = _ask_each((part.clause for _, part in numbered), request, entities)
        if answer is None:
            return []
        met, errors = answer
        judged: dict[str, list[JudgedPart]] = {policy_id: [] for policy_id in self.applicable(action)}
        for number, (policy_id, part) in enumerate(numbered):
            before = judged[policy_id]
            outcome: Outcome = "met" if number in met else "error" if number in errors else "unmet"
            if outcome == "error" and any(each.outcome != "met" for each in before):
                outcome = "unreached"
            error = errors[number] if outcome == "error" else None
            before.append(JudgedPart(part.origin, part.expr, written(part.expr), outcome, error))
        return [JudgedPolicy(policy_id, tuple(found)) for policy_id, found in judged.items()]


def documents_of(entities: Entities) -> dict[Uid, dict[str, Any]]:
    """Return entities as Cedar JSON documents, by type and id."""
    return {uid_of(document["uid"]): document for document in json.loads(str(entities))}


def _uid(entity: pst.EntityUid) -> Uid:
    return str(entity.type), entity.id


def _ask_each(
    clauses: Iterable[pst.Clause], request: Mapping[str, Any], entities: Entities
) -> tuple[set[int], dict[int, str]] | None:
    """Return the numbers of the conditions that are met, and what is wrong with those that failed.

    None if Cedar cannot evaluate the request at all.
    """
    policies = {
        str(number): pst.Template(str(number), "permit", _ANY, _ANY, _ANY, (clause,), pst.FrozenMap())
        for number, clause in enumerate(clauses)
    }
    together = PolicySet.from_pst(pst.PolicySet({}, policies, ()))
    diagnostics = cedarpy.is_authorized(dict(request), together, entities).diagnostics
    errors: dict[int, str] = {}
    for error in diagnostics.errors:
        match = _ERROR.fullmatch(error)
        if match is None:
            return None
        errors[int(match.group(1))] = match.group(2)
    return {int(number) for number in diagnostics.reasons}, errors


def references_in(value: Any) -> Iterator[Uid]:
    """Yield the entities that a value in Cedar JSON refers to."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, Mapping):
            if "__entity" in each:
                yield uid_of(each)
            else:
                waiting += each.values()
