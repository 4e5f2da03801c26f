"""Who can run an activity, and what a principal can run, as far as policies and entities tell.

Rules:

Z1  Where everything that a policy can read is given, the answer is the gate's own and final.
Z2  Otherwise it comes from partial evaluation (:mod:`exequatur.authoring.explain.residual`): a no is a no whatever the
    rest, a yes holds if every value that policies read is there, and what depends on more is said with its conditions.
Z3  Answers are about the entities of the bundle, those that policies name, and anybody in a group. Whom only a grant
    vouches for is not listed by name, because no file names them.
"""

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from cedarpy import Entities, pst

from exequatur.authoring.explain.opened import OpenBundle, references_in
from exequatur.authoring.explain.principals import About, Somebody, named_principals, somebody, supposed_principals
from exequatur.authoring.explain.residual import Known, Partial, Residual, closed
from exequatur.authoring.expression import chains_in, parts_of
from exequatur.authoring.request import Question, ask, read_arguments
from exequatur.errors import PolicyError
from exequatur.policy.arguments import Conversion, dotted
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.policy.entities import ACTION_TYPE, Uid
from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.types import Attribute, RecordType
from exequatur.policy.values import convert_plain, entity_of

Answered = Literal["yes", "no", "conditional"]

_SOME_WORKFLOW = "(any)"


@dataclass(frozen=True, slots=True)
class Named:
    """A policy by name, effect and place."""

    id: str
    effect: str
    place: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A policy that may or may not apply.

    Args:
        policy: The policy.
        texts: What must all be true for it to apply, as Cedar text.
        approval: Its ``@approval``.
    """

    policy: Named
    texts: tuple[str, ...]
    approval: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about one principal, or one action.

    Args:
        subject: Whom or what it is about: ``User::"dana"``, ``anyone in Role::"operations"``, or an action's id.
        about: What the subject is: an entity of the bundle, one that a policy names, a group, anyone, an action.
        types: For a group or anyone: the types of principals.
        answer: Yes, no, or under conditions.
        final: It is the gate's own answer (Z1).
        policies: The policies that decide: permits for a yes, forbids for a no.
        conditions: One of the permits among them must apply, unless a permit is among ``policies``; no forbid may.
        errors: Why the gate denies, other than by policy.
    """

    subject: str
    about: About | Literal["action"]
    types: tuple[str, ...]
    answer: Answered
    final: bool
    policies: tuple[Named, ...]
    conditions: tuple[Condition, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """Answers to one question.

    Args:
        asked: The activity, or the principal.
        bundle: Digest of the policies.
        answers: The answers.
        reads: What policies read; the gate says no where one of these values is missing or has no form in Cedar.
        notes: What limits the answers.
    """

    asked: str
    bundle: str
    answers: tuple[Answer, ...]
    reads: tuple[str, ...]
    notes: tuple[str, ...]


def who_can(
    bundle: PolicyBundle,
    activity: str,
    *,
    args: Any = None,
    context: Any = None,
    resource: Any = None,
    now: datetime.datetime | None = None,
) -> Access:
    """Tell who can run an activity.

    Args:
        bundle: The policies.
        activity: The activity type, or an action of the gate's own.
        args: The arguments by parameter name; unknown if absent.
        context: What is known of the circumstances; the rest is unknown.
        resource: ``Type::"id"``; unknown if absent.
        now: The moment; unknown if absent.

    Returns:
        An answer for each principal among the entities and policies, each group, and anyone.

    Raises:
        PolicyError: The activity is unknown, or a value cannot be read; each is named.
    """
    opened = OpenBundle(bundle)
    asking = _Asking(opened, activity, args, context, resource, now)
    named = list(named_principals(opened, asking.declared))
    supposed = list(supposed_principals(opened, asking.declared))
    entities = closed(opened, None, *(who.uid for who in named), *asking.mentioned)
    answers = [asking.answer(who, entities) for who in named]
    groups = [asking.answer(who, _with(entities, who.document)) for who in supposed]
    notes = [
        "Whom only a grant vouches for is not listed by name; a role stands for all in it and in no other.",
        *_without_schema(opened),
    ]
    if not named:
        notes.append("No entity of the bundle is a principal, so there are answers for roles only.")
    return Access(activity, bundle.digest, (*answers, *_united(groups)), asking.reads, tuple(notes))


def can(
    bundle: PolicyBundle,
    principal: Any,
    *,
    context: Any = None,
    resource: Any = None,
    now: datetime.datetime | None = None,
) -> Access:
    """Tell what a principal can run.

    Args:
        bundle: The policies.
        principal: ``Agent::"ops-bot"``, or a mapping with ``uid`` and optionally ``attrs`` and ``parents``.
        context: What is known of the circumstances of every action; the rest is unknown.
        resource: ``Type::"id"``; unknown if absent.
        now: The moment; unknown if absent.

    Returns:
        An answer for each action of the schema, or without one for each that policies name.

    Raises:
        PolicyError: The principal or a value cannot be read.
    """
    opened = OpenBundle(bundle)
    who = somebody(bundle, principal)
    asked = [(action, _Asking(opened, action, None, context, resource, now)) for action in _actions(opened)]
    entities = closed(opened, who.document, who.uid, *(uid for _, asking in asked for uid in asking.mentioned))
    answers = [replace(asking.answer(who, entities), subject=action, about="action") for action, asking in asked]
    reads = dict.fromkeys(read for _, asking in asked for read in asking.reads)
    notes = ["A grant can vouch for further roles and attributes of this principal.", *_without_schema(opened)]
    if any(not _names_action(policy) for policy in opened.policies.values()):
        notes.append("Policies that name no action also decide about activities that are not listed.")
    if not answers:
        notes.append("Neither the schema nor a policy names an activity.")
    return Access(who.subject, bundle.digest, tuple(answers), tuple(reads), tuple(notes))


class _Asking:
    """One action with what is known of the question."""

    def __init__(
        self,
        opened: OpenBundle,
        activity: str,
        args: Any,
        context: Any,
        resource: Any,
        now: datetime.datetime | None,
    ) -> None:
        self._opened = opened
        self._bundle = opened.bundle
        self._action = activity
        self.declared = _declared(opened, activity)
        facts = _facts(self.declared, context, now)
        converted = None if args is None else read_arguments(opened.bundle, activity, args)
        uid, kind = _resource(self.declared, resource)
        self._known = Known(None if converted is None else converted.value, facts, uid, kind)
        self._arguments = converted or Conversion({}, {})
        self._partial = Partial(opened, activity, self._known)
        self.mentioned = (*([] if uid is None else [uid]), *references_in([facts, self._arguments.value]))

    @property
    def reads(self) -> tuple[str, ...]:
        """What policies for the action read of arguments and circumstances."""
        paths = (f"context.{dotted(path)}" for path in sorted(self._bundle.reads(self._action)))
        facts = self._bundle.fact_reads(self._action)
        others = ["context"] if facts is None else [f"context.{name}" for name in sorted(facts - {"args"})]
        return (*paths, *others)

    def answer(self, who: Somebody, entities: Entities) -> Answer:
        if self._complete and not who.supposed:  # [Z1]
            return self._final(who)
        return self._told(who, self._partial.evaluate(who.uid, entities, supposed=who.supposed))

    def _told(self, who: Somebody, left: Iterable[Residual]) -> Answer:  # [Z2]
        by_state: dict[tuple[str, str], list[Residual]] = {}
        for each in left:
            by_state.setdefault((self._bundle.policies[each.policy].effect, each.state), []).append(each)

        def of(effect: str, state: str) -> list[Residual]:
            return by_state.get((effect, state), [])

        permits, forbids = of("permit", "applies"), of("forbid", "applies")
        failed = of("permit", "fails") + of("forbid", "fails")
        open_ = of("permit", "depends"), of("forbid", "depends")
        errors = tuple(f"policy {self._named(each).id}: {each.error}" for each in failed)
        kind = who.uid[0]
        blank = Answer(who.subject, who.about, (kind,) if who.supposed else (), "no", False, (), (), errors)
        if forbids or failed:
            return replace(blank, policies=tuple(map(self._named, forbids)))
        if not permits and not open_[0]:
            return blank
        if permits and not open_[1]:
            return replace(blank, answer="yes", policies=tuple(map(self._named, permits)))
        # Beside a permit that applies, other permits make no difference.
        undecided = open_[1] if permits else open_[0] + open_[1]
        return replace(
            blank,
            answer="conditional",
            policies=tuple(map(self._named, permits)),
            conditions=tuple(
                Condition(self._named(each), each.conditions, self._bundle.policies[each.policy].approval)
                for each in undecided
            ),
        )

    def _final(self, who: Somebody) -> Answer:
        run = self._known.facts.get("run", {})
        some = {"type": self._known.resource_type or "Workflow", "id": run.get("workflow_id", _SOME_WORKFLOW)}
        resource = (
            some if self._known.resource is None else {"type": self._known.resource[0], "id": self._known.resource[1]}
        )
        asked = Question(who.document, self._action, resource, self._arguments, self._known.facts)
        verdict: Verdict = ask(self._bundle, asked)
        ids = {ref.id for ref in verdict.policies}
        policies = tuple(
            self._name(policy_id) for policy_id in self._bundle.policies if self._bundle.policies[policy_id].id in ids
        )
        answer: Answered = "yes" if verdict.allowed else "no"
        return Answer(who.subject, who.about, (), answer, True, policies, (), verdict.errors)

    @property
    def _complete(self) -> bool:
        """Everything that a policy for the action can read is given."""
        facts = self._bundle.fact_reads(self._action)
        if facts is None or (self._bundle.reads(self._action) and self._known.args is None):
            return False
        if self._known.resource is None and self._reads_resource:
            return False
        return all(self._covered(name) for name in facts - {"args"})

    def _covered(self, name: str) -> bool:
        found = self._known.facts.get(name)
        if found is None or not isinstance(found, Mapping) or "__extn" in found or "__entity" in found:
            return found is not None
        attribute = self.declared.context.get(name) if self.declared is not None else None
        if attribute is None or not isinstance(attribute.type, RecordType):
            return False
        return all(each.name in found for each in attribute.type.attributes)

    @property
    def _reads_resource(self) -> bool:
        return any(
            part.origin == "resource" or _mentions(part.expr, "resource")
            for policy in self._opened.applicable(self._action).values()
            for part in parts_of(policy)
        )

    def _named(self, residual: Residual) -> Named:
        return self._name(residual.policy)

    def _name(self, policy_id: str) -> Named:
        info = self._bundle.policies[policy_id]
        return Named(info.id, info.effect, str(self._bundle.located[policy_id]))


def _declared(opened: OpenBundle, activity: str) -> ActionDeclaration | None:
    known = _actions(opened)
    if activity in known:
        model = opened.bundle.model
        return model.actions.get(activity) if model is not None else None
    if not activity:
        raise PolicyError("activity must be the name of an activity type.")
    close = get_close_matches(activity, known, 1)
    if opened.bundle.model is not None:
        step = f"Did you mean {close[0]}?" if close else f"There is {', '.join(known) or 'none'}."
        raise PolicyError(f"activity {activity[:80]} is not in the schema. {step}")
    if close and not opened.applicable(activity):
        raise PolicyError(f"No policy is about the activity {activity[:80]}. Did you mean {close[0]}?")
    return None


def _actions(opened: OpenBundle) -> list[str]:
    """What can be asked for: the schema's actions, or those that policies and entities name and that are no groups."""
    model = opened.bundle.model
    if model is not None:
        return sorted(name for name, each in model.actions.items() if each.principals is not None)
    found = opened.named.union(opened.entities) - opened.parents
    return sorted(name for kind, name in found if kind == ACTION_TYPE)


def _without_schema(opened: OpenBundle) -> Iterator[str]:
    if opened.bundle.model is None:
        yield "Without a schema, actions and types are those that policies and entities name, groups among them."


def _facts(declared: ActionDeclaration | None, context: Any, now: datetime.datetime | None) -> dict[str, Any]:
    if not isinstance(context, Mapping | None):
        raise PolicyError("context must be a mapping.")
    given = dict(context or {})
    if "args" in given:
        raise PolicyError("context must not have args; give the arguments as args.")
    if now is not None:
        given["now"] = now.replace(microsecond=now.microsecond // 1000 * 1000)
    record = None
    if declared is not None:
        record = _partial_record(tuple(each for each in declared.context.attributes if each.name != "args"))
    return _sound(convert_plain(given, record, "context")).value


def _partial_record(attributes: tuple[Attribute, ...]) -> RecordType:
    """A record of which a part may be given."""
    return RecordType(
        tuple(
            replace(
                each,
                type=_partial_record(each.type.attributes) if isinstance(each.type, RecordType) else each.type,
                required=False,
            )
            for each in attributes
        )
    )


def _sound(converted: Conversion) -> Conversion:
    if converted.faults:
        sentences = list(converted.faults.values())
        more = f" ({len(sentences) - 5} more)" if len(sentences) > 5 else ""
        raise PolicyError(f"{'; '.join(sentences[:5])}{more}.")
    return converted


def _resource(declared: ActionDeclaration | None, resource: Any) -> tuple[Uid | None, str | None]:
    """The resource, or its type where there is only one."""
    kinds = (declared.resources or ()) if declared is not None else ()
    if resource is None:
        return None, kinds[0] if len(kinds) == 1 else None
    try:
        uid = entity_of(resource)
    except ValueError as error:
        raise PolicyError(f"resource: {error}.") from None
    if declared is not None and uid[0] not in kinds:
        wanted = " or ".join(f'{each}::"…"' for each in kinds)
        raise PolicyError(f"resource: {declared.id} is done to {wanted}, not to a {uid[0]}.")
    return uid, uid[0]


def _united(answers: Iterable[Answer]) -> Iterator[Answer]:
    """Answers about the same group that differ in nothing but the type of principal, as one."""
    united: dict[Answer, tuple[str, ...]] = {}
    for each in answers:
        key = replace(each, types=())
        united[key] = united.get(key, ()) + each.types
    for answer, types in united.items():
        yield replace(answer, types=types)


def _with(entities: Entities, document: Mapping[str, Any]) -> Entities:
    return entities.with_added_json_str(json.dumps([document]))


def _names_action(policy: pst.Template) -> bool:
    return not isinstance(policy.action, pst.ScopeAny)


def _mentions(expr: pst.Expr, variable: str) -> bool:
    return any(name == variable for name, _ in chains_in(expr))
