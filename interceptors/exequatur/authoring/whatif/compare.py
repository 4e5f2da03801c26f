"""What would have been decided otherwise: recorded decisions, each made again under an old and a new bundle.

Rules:

C1  Both answers are the gate's own (:func:`exequatur.policy.engine.decide`), from the same recorded request.
C2  Where a bundle reads what the record does not hold, or holds in another type than the schema declares, the question
    is undecidable under it, and is never counted as the same or as a flip.
C3  An answer stands for another request only if that differs in nothing a policy for the action can look at, and for
    the other bundle only if schema, entities and all policies that may apply to the action are the same there.
C4  Memory does not grow with the number of questions: answers, groups and examples are bounded, and what is left out
    is counted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from exequatur.authoring.whatif.comparison import Answer, Change, Comparison, Example, Group, Recorded
from exequatur.authoring.whatif.held import Held, Shape, shape_of
from exequatur.authoring.whatif.uses import Uses, meaning_of, together, uses_by_policy
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.entities import ACTION_TYPE
from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.types import RecordType

#: Answers that are remembered for each bundle, some 600 bytes each.
MAX_REMEMBERED = 20_000
#: Combinations of change, activity and cause that are told apart.
MAX_GROUPS = 1_000
#: Values beside an example, and characters of each.
MAX_VALUES, MAX_VALUE = 6, 80
#: Bytes of a request beyond which its digest stands for it.
_LONG_KEY = 512
_MAX_ACTIONS = 4096
_WORKFLOW = "Workflow"


class Comparing:
    """A comparison that questions are added to.

    Args:
        old: One bundle.
        new: The other.
        examples: How many are kept of each group.
    """

    def __init__(self, old: PolicyBundle, new: PolicyBundle, *, examples: int = 3) -> None:
        self._old, self._new = _Side("old", old), _Side("new", new)
        self._shapes = lru_cache(_MAX_ACTIONS)(self._compute_shapes)
        self._alike = lru_cache(_MAX_ACTIONS)(self._compute_alike)
        self._examples = examples
        self._changes: Counter[Change] = Counter()
        self._groups: dict[tuple[Change, str, str], Group] = {}
        self._asked = self._same = self._not_reproduced = self._ungrouped = 0

    def add(self, recorded: Recorded) -> None:
        """Ask both bundles."""
        self._asked += 1
        shapes = self._shapes(recorded.action)
        held = recorded.arguments.shaped(shapes[0], recorded.action)
        old = self._old.answer(recorded, held)
        if shapes[0] != shapes[1]:
            held = recorded.arguments.shaped(shapes[1], recorded.action)
        new = old if self._alike(recorded.action) else self._new.answer(recorded, held)  # C3
        if recorded.decision is not None and old.allowed is not None and old.word != recorded.decision:
            self._not_reproduced += 1
        change: Change
        if old.allowed is None or new.allowed is None:  # [C2]
            change = "undecidable"
        elif old.allowed != new.allowed:
            change = "allow_to_deny" if old.allowed else "deny_to_allow"
        elif old.same_as != new.same_as:
            change = "other_policies"
        else:
            self._same += 1
            return
        self._changes[change] += 1
        self._file(change, recorded, held, old, new)

    def result(self) -> Comparison:
        """What came of those that were added."""
        groups = sorted(self._groups.values(), key=lambda each: (_ORDER[each.change], -each.count, each.activity))
        changes = {change: self._changes[change] for change in _ORDER}
        return Comparison(self._asked, self._same, changes, self._not_reproduced, tuple(groups), self._ungrouped)

    def _compute_shapes(self, action: str) -> tuple[Shape | None, Shape | None]:
        """What each bundle says of the arguments; where one has no schema for them, what the other says."""
        old, new = (shape_of(side.bundle.model, action) for side in (self._old, self._new))
        return old or new, new or old

    def _compute_alike(self, action: str) -> bool:
        """Whether the bundles cannot differ about an action (C3)."""
        one, other = self._old.bundle.source, self._new.bundle.source
        schemas = [each.schema.text if each.schema is not None else None for each in (one, other)]
        return (
            schemas[0] == schemas[1]
            and one.entity_documents == other.entity_documents
            and self._old.meanings(action) == self._new.meanings(action)
        )

    def _file(self, change: Change, recorded: Recorded, held: Held, old: Answer, new: Answer) -> None:
        side, policies, cause = self._cause(change, old, new)
        key = (change, recorded.action, cause)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:  # [C4]
                self._ungrouped += 1
                return
            group = self._groups[key] = Group(change, recorded.action, cause, policies)
        group.count += 1
        if len(group.examples) < self._examples:  # [C4]
            values = side.values(recorded, held, new.ids if side is self._new else old.ids)
            uid = recorded.principal.get("uid", {})
            name = f"{uid.get('type')}::{json.dumps(uid.get('id'), ensure_ascii=False)}"
            group.examples.append(Example(recorded.where, name, old, new, values))

    def _cause(self, change: Change, old: Answer, new: Answer) -> tuple["_Side", tuple[str, ...], str]:
        """Which bundle's policies make the difference, and how."""
        if change == "undecidable":
            if old.allowed is None and new.allowed is None and old.why == new.why:
                return self._new, (), f"the record does not hold {new.why}"
            side, answer = (self._new, new) if new.allowed is None else (self._old, old)
            return side, (), f"the record does not hold {answer.why} ({side.name} policies)"
        if change == "other_policies":
            return self._new, new.policies, f"{_named(old, 'nothing')} before, {_named(new, 'nothing')} now"
        if change == "allow_to_deny":
            if new.why is not None:
                return self._new, new.policies, new.why
            if new.policies:
                return self._new, new.policies, f"{_named(new)} {_verb(new, 'forbid')}"
            return self._old, old.policies, f"{_named(old)} no longer {_verb(old, 'permit')}"
        if old.why is not None:
            return self._new, new.policies, f"no longer: {old.why}"
        if old.policies:
            return self._old, old.policies, f"{_named(old)} no longer {_verb(old, 'forbid')}"
        return self._new, new.policies, f"{_named(new)} {_verb(new, 'permit')}"


def compare(old: PolicyBundle, new: PolicyBundle, recorded: Iterable[Recorded], *, examples: int = 3) -> Comparison:
    """Make recorded decisions again under two bundles.

    Args:
        old: One bundle.
        new: The other.
        recorded: The decisions; read one after the other and not kept.
        examples: How many are kept of each group.

    Returns:
        What is the same and what is not.
    """
    comparing = Comparing(old, new, examples=examples)
    for each in recorded:
        comparing.add(each)
    return comparing.result()


_ORDER: Mapping[Change, int] = {"allow_to_deny": 0, "deny_to_allow": 1, "undecidable": 2, "other_policies": 3}


@dataclass(frozen=True, slots=True)
class _ActionSide:
    """What one bundle needs to know for an action."""

    reads: frozenset[tuple[str, ...]]
    facts: frozenset[str] | None
    uses: Uses
    paths: tuple[tuple[str, ...], ...]
    declared: ActionDeclaration | None


class _Side:
    """One of the two bundles."""

    def __init__(self, name: str, bundle: PolicyBundle) -> None:
        self.name = name
        self.bundle = bundle
        self._policies = uses_by_policy(bundle)
        self._of: Callable[[str], _ActionSide] = lru_cache(_MAX_ACTIONS)(self._compute)
        self._remembered: dict[tuple[str, bytes], Answer] = {}
        self._ids = {info.id: policy_id for policy_id, info in bundle.policies.items()}

    def answer(self, recorded: Recorded, held: Held) -> Answer:
        side = self._of(recorded.action)
        conversion, missing = held.under(side.reads)
        missing = missing or _missing_fact(recorded, side) or _missing_resource(recorded, side)
        if missing is not None:  # [C2]
            return Answer(None, why=missing)
        key = self._key(recorded, side, conversion)
        known = self._remembered.get(key) if key is not None else None
        if known is None:
            known = self._answer(recorded, conversion)
            if key is not None:
                if len(self._remembered) >= MAX_REMEMBERED:  # [C4]
                    self._remembered.clear()
                self._remembered[key] = known
        return known

    def meanings(self, action: str) -> list[Any]:
        """What the policies that may apply to an action say, in their order."""
        return [meaning_of(self._policies[policy_id][0]) for policy_id in self.bundle.applicable(action)]

    def values(self, recorded: Recorded, held: Held, ids: tuple[str, ...]) -> dict[str, str]:
        """What the policies of these ids, or else all for the action, read of the request."""
        side = self._of(recorded.action)
        conversion, _ = held.under(side.reads)
        uses = together(self._policies[policy_id][1] for policy_id in ids) if ids else side.uses
        context = {**recorded.facts, "args": conversion.value}
        found: dict[str, str] = {}
        for path in sorted(uses.context):
            value = _at(context, path)
            if value is not None and len(found) < MAX_VALUES:
                found[".".join(path)[:MAX_VALUE]] = _shown(value)
        return found

    def _compute(self, action: str) -> _ActionSide:
        uses = together(self._policies[policy_id][1] for policy_id in self.bundle.applicable(action))
        model = self.bundle.model
        return _ActionSide(
            self.bundle.reads(action),
            self.bundle.fact_reads(action),
            uses,
            tuple(sorted(uses.facts())),
            model.actions.get(action) if model is not None else None,
        )

    def _key(self, recorded: Recorded, side: _ActionSide, conversion: Conversion) -> tuple[str, bytes] | None:
        """All that the answer can depend on (C3), or None where it has no exact form."""
        if conversion.faults or conversion.open:
            return None
        facts = recorded.facts
        looked_at = [_nearest(facts, path) for path in side.paths] if () not in side.paths else facts
        resource = _resource(recorded) if side.uses.resource else None
        try:
            parts = [recorded.principal, conversion.given(side.reads), looked_at, resource]
            key = to_json(parts, inf_nan_mode="strings")
        except ValueError:
            return None
        return recorded.action, key if len(key) <= _LONG_KEY else hashlib.sha256(key).digest()  # [C4]

    def _answer(self, recorded: Recorded, conversion: Conversion) -> Answer:
        verdict = decide(
            self.bundle,
            recorded.principal,
            {"type": ACTION_TYPE, "id": recorded.action},
            _resource(recorded),
            conversion,
            recorded.facts,
        )
        if verdict.fault is not None and not conversion.faults:  # [C2]
            # What the activity's argument would be under this schema is not known.
            return Answer(None, why=f"the arguments in the declared types: {verdict.fault}")
        return self._read(verdict)

    def _read(self, verdict: Verdict) -> Answer:
        shown, same_as, ids = [], [], []
        for ref in verdict.policies:
            policy_id = self._ids[ref.id]
            place = self.bundle.located.get(policy_id)
            unnamed = policy_id == ref.id and place is not None
            # The position of an unnamed policy says nothing about the same policy in another bundle.
            shown.append(str(place) if unnamed else ref.id)
            same_as.append(place.text if unnamed and place is not None else ref.id)
            ids.append(policy_id)
        why = "; ".join(verdict.errors) or None
        return Answer(verdict.allowed, tuple(shown), frozenset(same_as), why, tuple(ids))


def _resource(recorded: Recorded) -> Mapping[str, str]:
    return recorded.resource or {"type": _WORKFLOW, "id": recorded.where.workflow_id}


def _missing_fact(recorded: Recorded, side: _ActionSide) -> str | None:
    facts = recorded.facts
    if not recorded.complete:
        if side.facts is None:
            return "all of context"
        known = recorded.absent | {"args"}
        missing = [name for name in side.facts if name not in facts and name not in known]
    elif side.declared is not None:
        required = (each.name for each in side.declared.context.attributes if each.required)
        missing = [
            name for name in required if name not in facts and name != "args" and name in (side.facts or (name,))
        ]
    else:
        missing = []
    if not missing and side.declared is not None:
        missing = [name for name in _partly(side.declared, facts) if name.partition(".")[0] in (side.facts or (name,))]
    return f"context.{min(missing)}" if missing else None


def _partly(declared: ActionDeclaration, facts: Mapping[str, Any]) -> Iterator[str]:
    """What a schema requires of facts that the record holds in part: a gate of before told less of them."""
    for each in declared.context.attributes:
        told = facts.get(each.name)
        if isinstance(each.type, RecordType) and isinstance(told, Mapping):
            yield from (
                f"{each.name}.{one.name}" for one in each.type.attributes if one.required and one.name not in told
            )


def _missing_resource(recorded: Recorded, side: _ActionSide) -> str | None:
    if recorded.resource is not None or side.declared is None or not side.uses.resource:
        return None
    kinds = side.declared.resources or ()
    return None if _WORKFLOW in kinds or not kinds else f"which {' or '.join(kinds)} it was done to"


def _nearest(value: Any, path: tuple[str, ...]) -> Any:
    """The value at a path, or on the way to it where the way ends: what an expression that reads it depends on."""
    for name in path:
        if type(value) is not dict or "__extn" in value or "__entity" in value:
            return value
        if name not in value:
            return None
        value = value[name]
    return value


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _shown(value: Any) -> str:
    """A value as people write it, bounded."""
    if isinstance(value, Mapping) and isinstance(value.get("__extn"), Mapping):
        return str(value["__extn"].get("arg"))[:MAX_VALUE]
    if isinstance(value, str):
        text = value[: MAX_VALUE + 1]
    else:
        try:
            text = to_json(value, inf_nan_mode="strings").decode()
        except ValueError:
            return "…"
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def _named(answer: Answer, nobody: str = "") -> str:
    return ", ".join(answer.policies) or nobody


def _verb(answer: Answer, verb: str) -> str:
    return f"{verb}s" if len(answer.policies) == 1 else verb
