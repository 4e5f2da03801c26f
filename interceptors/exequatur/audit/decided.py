"""One recorded decision as a question, from a journal, a store or a history.

Nothing is verified here: what a history or a journal says is taken as a question, not as a proof. ``exequatur audit``
proves.

Rules:

Z1  What a record does not hold is not made up. Where the policies that are asked read more, that is an error and not an
    answer.
Z2  What had to be assumed all the same is among the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from exequatur.audit.activities import Activity, activities_of
from exequatur.audit.evidence import COUNTED, DecisionRecord, facts_of
from exequatur.audit.history import RunHistory
from exequatur.audit.recorded import everything, questions_of, receipt_of
from exequatur.audit.records import BUNDLES, Evidence
from exequatur.audit.restrictions import apart, denied_by
from exequatur.audit.wording import moment
from exequatur.authoring.request import Question, ask
from exequatur.authoring.whatif.held import Arguments, GivenArguments, shape_of
from exequatur.errors import EvidenceError, PolicyError
from exequatur.gate.attempt import place_in
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.lineage.record import Record
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.policy.source import BundleSource
from exequatur.policy.told import ACTIVITY_RESET_ACTION, RESET_ACTION

_PLACE = re.compile(r"([0-9a-f]{16}):([0-9]{1,18})", re.ASCII)
_OTHERS = (
    "receipt",
    "seal",
    "revocation",
    "shadow",
    "challenge",
    "message",
    "authority",
    "nexus",
    "integrity",
    *COUNTED,
    *BUNDLES,
)
"""Kinds of records that are no decision."""
_WORKFLOW = "Workflow"
_NO_RESOURCE = "The resource "
"""How the gate begins to say that an activity did not tell what it acts on."""
_NAMED = 20
"""Activities of a run that an error names."""


@dataclass(frozen=True)
class Wanted:
    """Which decision is meant.

    Args:
        workflow_id: Of the run.
        activity_id: The activity's id.
        run_id: The run; the latest if left out.
        attempt: The attempt; the latest if left out.
    """

    workflow_id: str
    activity_id: str
    run_id: str | None = None
    attempt: int | None = None

    def __str__(self) -> str:
        run = f" run {self.run_id}" if self.run_id else ""
        attempt = f" attempt {self.attempt}" if self.attempt else ""
        return f"activity {self.activity_id} of {self.workflow_id}{run}{attempt}"


@dataclass(frozen=True)
class Decided:
    """A decision that was made.

    Args:
        place: Where it was found.
        at: Seconds since 1970.
        workflow_id: Of the run.
        run_id: The run.
        activity_id: The activity's id.
        activity_type: Its type.
        attempt: The attempt; None where the history does not tell.
        decision: What was decided; ``none`` if it was rejected before the policies were asked; None where nothing says.
        enforced: Whether a deny kept it from running; None where nothing says.
        reason: What the gate gave as the reason.
        policies: Names of the policies that decided; None where nothing says.
        bundle: Digest of the policies.
        principal: Cedar JSON entity.
        resource: What it was done to; None where that is the workflow, or where nothing says.
        facts: The context but for the arguments, as Cedar JSON.
        arguments: The arguments as they are recorded.
        unasked: Why the policies were not asked, if they were not.
        question: Which of the gate's own actions was denied; None where it was the activity, or where nothing says.
        notes: What had to be assumed.
    """

    place: str
    at: float
    workflow_id: str
    run_id: str
    activity_id: str
    activity_type: str
    attempt: int | None
    decision: Literal["allow", "deny", "none"] | None
    enforced: bool | None
    reason: str | None
    policies: tuple[str, ...] | None
    bundle: str | None
    principal: Mapping[str, Any]
    resource: Mapping[str, str] | None
    facts: Mapping[str, Any]
    arguments: Arguments
    unasked: str | None = None
    question: str | None = None
    notes: tuple[str, ...] = field(default=())


def record_at(sources: Sequence[str], place: str) -> tuple[Record, DecisionRecord]:
    """Return the decision at a place in a log.

    Args:
        sources: The evidence.
        place: ``LOG:INDEX``.

    Raises:
        EvidenceError: There is none, or it cannot be read.
    """
    match = _PLACE.fullmatch(place)
    if match is None:
        raise EvidenceError(f"--record {place[:60]}: write it as LOG:INDEX, for example 0011223344556677:42")
    log_id, index = match.group(1), int(match.group(2))
    logs: set[str] = set()
    for record in _records(sources, "decision", *_OTHERS):
        logs.add(record.log_id)
        if (record.log_id, record.index) == (log_id, index):
            if record.kind != "decision":
                raise EvidenceError(f"--record {place}: is a {record.kind} and no decision; name the decision's place")
            return record, _claims(record)
    there = f"the log has no record {index}" if log_id in logs else f"there are the logs {', '.join(sorted(logs)[:5])}"
    raise EvidenceError(f"--record {place}: not in the evidence; {there if logs else 'it holds no record'}")


def record_of(sources: Sequence[str], wanted: Wanted) -> tuple[Record, DecisionRecord, tuple[str, ...]]:
    """Return the latest decision about an activity, with a note if there are others.

    Raises:
        EvidenceError: There is none, or the evidence cannot be read.
    """
    found: list[tuple[Record, DecisionRecord]] = []
    seen: Counter[str] = Counter()
    unreadable = 0
    for record in _records(sources, "decision"):
        try:
            claims = _claims(record)
        except EvidenceError:
            unreadable += 1
            continue
        if claims.workflow_id != wanted.workflow_id or wanted.run_id not in (None, claims.run_id):
            continue
        seen[claims.activity_id] += 1
        if claims.activity_id == wanted.activity_id and wanted.attempt in (None, claims.attempt):
            found.append((record, claims))
    if not found:
        known = f"; there are decisions about the activities {_some(seen)}" if seen else ""
        broken = f"; {unreadable} decisions cannot be read" if unreadable else ""
        raise EvidenceError(f"the evidence holds no decision about {wanted}{known}{broken}")
    record, claims = max(found, key=lambda each: (each[0].at, each[1].attempt, each[0].index))
    others = {(each.run_id, each.attempt) for _, each in found} - {(claims.run_id, claims.attempt)}
    note = f"There are {len(others)} other attempts of it, or runs; name one with --run and --attempt."
    return record, claims, (note,) if others else ()


def archived(sources: Sequence[str], address: str) -> PolicyBundle | None:
    """Return a policy bundle from the evidence, or None if it is not there.

    Raises:
        EvidenceError: The evidence cannot be read.
        PolicyError: What is archived is no bundle.
    """
    for source in sources:
        data = Evidence(source).find(address)
        if data is not None:
            return PolicyBundle(BundleSource.from_archive(data))
    return None


def of_record(
    record: Record, claims: DecisionRecord, bundle: PolicyBundle | None, principal: Mapping[str, Any] | None
) -> Decided:
    """Return a decision record as a decision.

    Args:
        record: Where it stands.
        claims: What it says.
        bundle: The policies that decided, if they are known.
        principal: Who the grant says that the principal is, for records that do not hold it.

    Raises:
        EvidenceError: It cannot be read.
    """
    place = f"{record.log_id}:{record.index}"
    try:
        arguments, facts = facts_of(claims)
        named = Principal.parse(claims.principal) if claims.principal else UNAUTHENTICATED
        notes: tuple[str, ...] = ()
        entity: Mapping[str, Any] = named.entity()
        if claims.vouched is not None:
            vouched = claims.vouched
            entity = Principal(named.type, named.id, vouched.attributes, vouched.parents).entity()
        elif principal is not None and principal["uid"] == named.uid:
            entity = principal
        elif named != UNAUTHENTICATED:  # [Z2]
            notes = ("The record does not hold the roles and attributes that the grant gave; name the --history.",)
        if denied_by(claims):
            notes += ("It was held to a restriction of the run besides, which is none of these policies.",)
    except ValueError as error:
        raise EvidenceError(f"record {place}: cannot be read: {error}") from None
    reads = bundle.reads(claims.activity_type) if bundle is not None else None
    return Decided(
        place=f"record {place}",
        at=record.at,
        workflow_id=claims.workflow_id or "",
        run_id=claims.run_id or "",
        activity_id=claims.activity_id,
        activity_type=claims.activity_type,
        attempt=claims.attempt,
        decision=claims.decision,
        enforced=claims.enforced,
        reason=claims.reason,
        policies=claims.policies,
        bundle=claims.bundle,
        principal=entity,
        resource=None if claims.resource is None else claims.resource.model_dump(),
        facts=facts,
        arguments=GivenArguments(arguments, reads, claims.fault),
        unasked=_unasked(claims),
        question=claims.question,
        notes=notes,
    )


def of_history(history: RunHistory, wanted: Wanted, *, namespace: str) -> Decided:
    """Return what a history tells of the decision about an activity.

    Args:
        history: With payloads as user code wrote them.
        wanted: Which activity; a run that the history does not have is an error.
        namespace: Of an ungoverned run.

    Raises:
        EvidenceError: The history does not have it, or its grant cannot be read.
    """
    if wanted.run_id is not None and wanted.run_id not in history.run_ids:
        raise EvidenceError(f"{wanted}: the history is of run {history.run_id}")
    activities = activities_of(history)
    activity = next((each for each in reversed(activities) if each.activity_id == wanted.activity_id), None)
    if activity is None:
        known = Counter(each.activity_id for each in activities)
        raise EvidenceError(f"{wanted}: the history has no such activity; there are {_some(known) or 'none'}")
    skipped: Counter[str] = Counter()
    asked = [
        each
        for each in questions_of(history, skipped, assumed=UNAUTHENTICATED, namespace=namespace, wanted=everything)
        if each.where.activity_id == wanted.activity_id
    ]
    if not asked:
        raise EvidenceError(f"{wanted}: {next(iter(skipped), 'it cannot be asked about')}")
    recorded = asked[-1]
    receipt = receipt_of(activity)
    notes = ["It comes from the history: the moment, and what only the gate knew, are not exactly those of the gate."]
    if receipt is None:
        notes.append("The history holds no receipt for it, so what was decided is not known from it.")
    return Decided(
        place="the history",
        at=receipt.started or receipt.iat if receipt is not None else recorded.where.at,
        workflow_id=history.workflow_id,
        run_id=recorded.where.run_id,
        activity_id=activity.activity_id,
        activity_type=activity.activity_type,
        attempt=_attempt_of(activity),
        decision=receipt.decision if receipt is not None else None,
        enforced=receipt.enforced if receipt is not None else None,
        reason=receipt.reason if receipt is not None else None,
        policies=receipt.policies if receipt is not None else None,
        bundle=receipt.bundle if receipt is not None else None,
        principal=recorded.principal,
        resource=recorded.resource,
        facts=recorded.facts,
        arguments=recorded.arguments,
        unasked="It was rejected" if receipt is not None and receipt.decision == "none" else None,
        notes=tuple(notes),
    )


def asked_of(
    decided: Decided,
    bundle: PolicyBundle,
    *,
    given: Conversion | None = None,
    instead: Arguments | None = None,
    resource: Mapping[str, str] | None = None,
) -> Question:
    """Return the question that was decided, for these policies.

    Args:
        decided: The decision.
        bundle: The policies that are to answer it.
        given: The arguments, if somebody says them.
        instead: Arguments from another record, where this one does not hold enough.
        resource: What it was done to, if somebody says it.

    Raises:
        EvidenceError: The policies read an argument that the record does not hold, or it was done to something that it
            does not name (Z1).
    """
    action = decided.activity_type
    if given is None:
        shape, reads = shape_of(bundle.model, action), bundle.reads(action)
        conversion, missing = decided.arguments.shaped(shape, action).under(reads)
        if missing is not None and instead is not None:
            conversion, missing = instead.shaped(shape, action).under(reads)
        if missing is not None:  # [Z1]
            raise EvidenceError(
                f"{decided.place} does not hold {missing}, which these policies read; add the --history, or give --args"
            )
        given = conversion
    resource = resource or decided.resource
    if resource is None:
        declared = bundle.model.actions.get(action) if bundle.model is not None else None
        kinds = declared.resources if declared is not None else None
        if kinds and _WORKFLOW not in kinds:  # [Z1]
            raise EvidenceError(f"{decided.place} does not hold which {' or '.join(kinds)} it was; give --resource")
        resource = {"type": _WORKFLOW, "id": decided.workflow_id}
    return Question(decided.principal, action, resource, given, decided.facts)


def own_question_of(decided: Decided, asked: Question, bundle: PolicyBundle) -> Question | None:
    """Return the question about one of the gate's own actions, if that was the one that was decided.

    After a reset, and in a child, the gate first asks whether that was allowed, and a deny of that is recorded as a
    deny of the activity. Early records do not say of a reset of the workflow that it was that.
    """
    workflow = {"type": _WORKFLOW, "id": decided.workflow_id}
    if decided.question is not None:
        facts = decided.facts
        if decided.question == ACTIVITY_RESET_ACTION:
            with suppress(KeyError, TypeError):
                facts = place_in(facts)
        return Question(asked.principal, decided.question, workflow, Conversion({}, {}), facts)
    if decided.decision != "deny" or as_recorded(decided, ask(bundle, asked)):
        return None
    reset = Question(asked.principal, RESET_ACTION, workflow, Conversion({}, {}), asked.facts)
    return reset if as_recorded(decided, ask(bundle, reset)) else None


def as_recorded(decided: Decided, verdict: Verdict) -> bool:
    """Whether an answer is the recorded one, by the same policies as far as the record names them."""
    if decided.decision is None or decided.policies is None:
        return True
    names = tuple(ref.id for ref in verdict.policies)
    return verdict.allowed == (decided.decision == "allow") and names[: len(decided.policies)] == decided.policies


def title_of(decided: Decided) -> str:
    """What was decided about what, and when."""
    attempt = f", attempt {decided.attempt}" if decided.attempt else ""
    return (
        f"{decided.place}: {decided.activity_type} (activity {decided.activity_id}{attempt}) of {decided.workflow_id} "
        f"run {decided.run_id} at {moment(decided.at)} UTC"
    )


def _unasked(claims: DecisionRecord) -> str | None:
    if claims.decision == "none":
        return "It was rejected"
    if apart(claims):
        return claims.fault
    if claims.fault is not None and claims.fault.startswith(_NO_RESOURCE):
        return claims.fault
    return None


def _records(sources: Sequence[str], *kinds: str) -> Iterable[Record]:
    for source in sources:
        yield from Evidence(source).records(*kinds)


def _claims(record: Record) -> DecisionRecord:
    try:
        return DecisionRecord.model_validate_json(record.body)
    except (ValidationError, ValueError, PolicyError):
        raise EvidenceError(f"record {record.log_id}:{record.index} is no decision that can be read") from None


def _attempt_of(activity: Activity) -> int | None:
    return activity.attempt or None


def _some(names: Counter[str]) -> str:
    listed = list(names)[:_NAMED]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(listed) + more
