"""Decisions that were made, as questions for a comparison of policies: from journals, stores and histories.

Nothing is verified here: what a history or a journal says is taken as a question, not as a proof. ``exequatur audit``
proves.

Rules:

Q1  What a record does not hold is not made up: it is left out and said to be missing, or the record is skipped and
    counted with the reason.
Q2  Whose principal is not known, with attributes and parents, is nobody's question.
Q3  One record at a time: memory does not grow with the length of what is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from temporalio.api.common.v1 import Payload

from exequatur.audit.activities import Activity, activities_of, seconds
from exequatur.audit.evidence import DecisionRecord, OwnRecord
from exequatur.audit.history import RunHistory
from exequatur.audit.records import BUNDLES, Evidence
from exequatur.audit.restrictions import denied_by
from exequatur.authoring.whatif.comparison import Recorded, Where
from exequatur.authoring.whatif.held import Arguments, GivenArguments, NoArguments, PlainArguments, Unreadable
from exequatur.errors import PolicyError, StatementError
from exequatur.gate.attempt import place_in
from exequatur.gate.wire import read_activity_header, read_start_header
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.lineage.record import Record
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.restriction import HELD_TO, PREFIX, UNUSABLE
from exequatur.policy.source import BundleSource
from exequatur.policy.told import ACTIVITY_RESET_ACTION, OWN_ACTIONS, START_ACTION
from exequatur.statements.jws import parse, type_of
from exequatur.statements.models import Approval, Grant, Receipt
from exequatur.statements.packing import unpack

_PARSED = 32
"""Archived bundles that are kept parsed."""

_OWN = ("authority", "nexus")
"""Kinds of the records of what was decided about the gate's own actions."""

Skipped = Counter[str]
"""Reason to how many."""
Wanted = Callable[[str, float], bool]
"""Whether a decision is asked about, by its action and time in seconds since 1970."""


def everything(action: str, at: float) -> bool:
    """No decision is left out."""
    return True


def decisions_in(
    evidence: Evidence, skipped: Skipped, *, known: Sequence[PolicyBundle] = (), wanted: Wanted = everything
) -> Iterator[Recorded]:
    """The decisions that evidence holds, as questions.

    Args:
        evidence: Where they are.
        skipped: Counts what is none.
        known: Bundles that are at hand.
        wanted: Which to ask about.

    Raises:
        EvidenceError: The evidence cannot be read.
    """
    by_digest = {each.digest: each for each in known}

    @lru_cache(maxsize=_PARSED)
    def bundle_of(address: str) -> PolicyBundle | None:
        if address in by_digest:
            return by_digest[address]
        data = evidence.met(address)
        try:
            return PolicyBundle(BundleSource.from_archive(data)) if data is not None else None
        except PolicyError:
            return None

    # A gate archives a bundle before the first decision by it, so that it has been met.
    for record in evidence.records("decision", *_OWN, *BUNDLES):
        if record.kind not in BUNDLES:
            found = _of_own(record, wanted) if record.kind in _OWN else _of_record(record, bundle_of, wanted)
            if isinstance(found, Recorded):
                yield found
            elif found is not None:
                skipped[found] += 1


def questions_of(
    history: RunHistory, skipped: Skipped, *, assumed: Principal | None, namespace: str, wanted: Wanted
) -> Iterator[Recorded]:
    """A run's start and its activities, as questions; each activity as it was asked for the first time.

    Args:
        history: With payloads as user code wrote them.
        skipped: Counts what is none.
        assumed: On whose behalf an ungoverned run is taken to act.
        namespace: Of an ungoverned run.
        wanted: Which to ask about.
    """
    activities = activities_of(history)
    grant: Grant | None = None
    try:
        tokens = read_start_header(dict(history.started.header.fields))
        if tokens is not None:
            grant = parse(tokens[0], Grant).claims
            named = Principal.parse(grant.sub)
            principal = Principal(named.type, named.id, grant.attributes, grant.parents)
        elif assumed is not None:
            principal = assumed
        else:
            skipped["the run carries no grant; --principal says on whose behalf to ask"] += 1 + len(activities)
            return
    except (StatementError, ValueError):  # [Q2]
        reason = "the grant in the start header cannot be read; --converter names the workers' data converter"
        skipped[reason] += 1 + len(activities)
        return
    run = _Run(history, principal.entity(), grant, namespace if grant is None else grant.aud.rpartition("/")[2])
    start = run.start()
    if start is not None and wanted(START_ACTION, start.where.at):
        yield start
    for activity in activities:
        if activity.activity_type in OWN_ACTIONS or not activity.activity_type:
            skipped["an activity without a type, or named like one of the gate's own actions"] += 1
        elif wanted(activity.activity_type, seconds(activity.event)):
            yield run.activity(activity)


class _Run:
    """A run on whose behalf it is known."""

    def __init__(self, history: RunHistory, entity: Mapping[str, Any], grant: Grant | None, namespace: str) -> None:
        self._history = history
        self._entity = entity
        self._grant = grant
        self._facts: dict[str, Any] = {
            "namespace": namespace,
            "workflow_id": history.workflow_id,
            "workflow_type": history.started.workflow_type.name,
        }

    def start(self) -> Recorded | None:
        """The question whether it may start, if the authority was asked for this run."""
        started = self._history.started
        again = started.attempt > 1 or started.continued_execution_run_id or started.parent_workflow_execution.run_id
        if again:
            return None
        at = self._grant.iat if self._grant is not None else seconds(self._history.events[0])
        return Recorded(
            Where(self._history.workflow_id, self._history.original_run_id, "", at, "history"),
            self._entity,
            START_ACTION,
            None,
            PlainArguments(()),
            {"run": {**self._facts, "task_queue": started.task_queue.name}, "now": _moment(at)},
            True,
            "allow" if self._grant is not None else None,
        )

    def activity(self, activity: Activity) -> Recorded:
        at, run_id = seconds(activity.event), self._history.run_at(activity.event)
        receipt = receipt_of(activity)
        facts: dict[str, Any] = {
            "activity": {
                "type": activity.activity_type,
                "id": activity.activity_id,
                "attempt": 1,
                "task_queue": activity.task_queue,
                "local": activity.local,
            },
            "run": {
                **self._facts,
                "run_id": run_id,
                "governed": self._grant is not None or self._entity["uid"] != UNAUTHENTICATED.uid,
            },
            "now": _moment(at),
        }
        decision: Literal["allow", "deny"] | None = None
        if receipt is not None:
            facts["worker"] = {"id": receipt.iss}
            decision = receipt.decision if receipt.decision != "none" else None
        return Recorded(
            Where(self._history.workflow_id, run_id, activity.activity_id, at, "history"),
            self._entity,
            activity.activity_type,
            None,
            _arguments_of(activity),
            facts,
            False,
            decision,
            self._absent(activity),
        )

    def _absent(self, activity: Activity) -> frozenset[str]:
        """Which facts were not told, by what the history holds of grant and request."""
        absent = {"acting"} if self._grant is None or self._grant.act is None else set()
        with suppress(StatementError):
            tokens = read_activity_header(activity.headers)
            if tokens is not None and Approval.typ not in map(type_of, tokens):
                absent.add("approvals")
        return frozenset(absent)


def _of_record(
    record: Record, bundle_of: Callable[[str], PolicyBundle | None], wanted: Wanted
) -> Recorded | str | None:
    """A decision record as a question, or why it is none, or ``None`` where nobody asks about it."""
    try:
        claims = DecisionRecord.model_validate_json(record.body)
        if not wanted(claims.question or claims.activity_type, record.at):
            return None
        if denied_by(claims):
            return "denied because the run was restricted, whatever the policies in force say"
        if claims.decision == "none":
            return "rejected before the policies were asked"
        if claims.fault is not None and claims.fault.startswith("The resource "):
            return "denied because its resource could not be told, before the policies were asked"
        facts, arguments = from_json(claims.facts), from_json(claims.arguments)
        if claims.vouched is not None:
            entity = _entity(claims.principal, to_json(claims.vouched.attributes), claims.vouched.parents)
        elif claims.principal == str(UNAUTHENTICATED):
            entity = UNAUTHENTICATED.entity()
        else:  # [Q2]
            return "the record does not hold the principal's attributes and roles; compare with the histories"
    except (ValidationError, ValueError):
        return "the record cannot be read"
    if not isinstance(facts, dict) or not isinstance(arguments, dict) or "args" in facts:
        return "the record cannot be read"
    where = Where(
        claims.workflow_id or "", claims.run_id or "", claims.activity_id, record.at, "journal", claims.attempt
    )
    if claims.question is not None:
        try:
            told = place_in(facts) if claims.question == ACTIVITY_RESET_ACTION else facts
        except (KeyError, TypeError):
            return "the record cannot be read"
        nothing = GivenArguments({}, frozenset(), None)
        return Recorded(where, entity, claims.question, None, nothing, told, True, claims.decision)
    bundle = bundle_of(claims.bundle)
    known = bundle.reads(claims.activity_type) if bundle is not None else None
    given: Arguments = GivenArguments(arguments, known, claims.fault)
    if claims.decision == "deny" and claims.fault is None and not arguments and known != frozenset():
        # It may have been the reset of the workflow that was denied, for which no arguments are given.
        given = NoArguments("the arguments")
    return Recorded(
        where,
        entity,
        claims.activity_type,
        _resource_of(claims),
        given,
        facts,
        True,
        claims.decision,
    )


def _of_own(record: Record, wanted: Wanted) -> Recorded | str | None:
    """A decision about one of the gate's own actions, as :func:`_of_record` gives one about an activity."""
    try:
        claims = OwnRecord.model_validate_json(record.body)
        if not wanted(claims.question or claims.action, record.at):
            return None
        if claims.decision == "none" or claims.principal is None or claims.vouched is None:
            return "rejected before the policies were asked"
        reason = claims.reason or ""
        held = [*(name.startswith(PREFIX) for name in claims.policies), HELD_TO in reason, UNUSABLE in reason]
        if claims.fault is not None or any(held):
            return "denied because the run was restricted, not by the policies"
        if claims.question is not None:  # [Q1]
            return "an operation whose record does not hold all that was asked about it"
        facts = from_json(claims.facts)
        entity = _entity(claims.principal, to_json(claims.vouched.attributes), claims.vouched.parents)
    except (ValidationError, ValueError):
        return "the record cannot be read"
    if not isinstance(facts, dict) or claims.action not in OWN_ACTIONS:
        return "the record cannot be read"
    return Recorded(
        Where(claims.workflow_id or "", claims.run_id or "", "", record.at, "journal"),
        entity,
        claims.action,
        {"type": WORKFLOW_TYPE, "id": claims.workflow_id or ""},
        PlainArguments(()),
        facts,
        True,
        claims.decision,
    )


@lru_cache(maxsize=4096)
def _entity(name: str, attributes: bytes, parents: tuple[str, ...]) -> Mapping[str, Any]:
    """A principal in Cedar's form; a worker has few of them, and records name them again and again.

    Raises:
        ValueError: It is none.
    """
    named = Principal.parse(name)
    return Principal(named.type, named.id, from_json(attributes), parents).entity()


def _resource_of(claims: DecisionRecord) -> dict[str, str] | None:
    if claims.resource is not None:
        return claims.resource.model_dump()
    # Where Cedar was not asked, the resource may not have been told either.
    return {"type": WORKFLOW_TYPE, "id": claims.workflow_id or ""} if claims.fault is None else None


def _arguments_of(activity: Activity) -> Arguments:
    if activity.local:
        return NoArguments("the arguments: Temporal records none of a local activity")
    return PlainArguments(tuple(map(_plain, activity.input)))


def _plain(payload: Payload) -> Any:
    """A payload's value as plain JSON."""
    encoding = payload.metadata.get("encoding", b"")
    if encoding == b"binary/null":
        return None
    if encoding != b"json/plain":
        return Unreadable(f"its encoding is {encoding.decode('utf-8', 'replace')[:40] or 'not given'}")
    try:
        return json.loads(payload.data)
    except (ValueError, RecursionError):
        return Unreadable("it does not parse")


def receipt_of(activity: Activity) -> Receipt | None:
    """What a worker signed about it, unverified."""
    try:
        if (packed := activity.packed_receipt) is not None:
            texts = [text for text in unpack(packed) if text]
        else:
            denial = activity.denial() if activity.our_failure else None
            texts = [denial[0]] if denial is not None else []
    except StatementError:
        return None
    for text in texts:
        try:
            return parse(text, Receipt).claims
        except StatementError:
            continue
    return None


def _moment(at: float) -> dict[str, Any]:
    """As the gate tells Cedar the time."""
    try:
        text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        text = ""
    return {"__extn": {"fn": "datetime", "arg": text}}
