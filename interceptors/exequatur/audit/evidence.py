"""The evidence beside a history: the journals' records about one run, read without believing them.

Rules, numbered as the code marks them:

V1  A record's head follows from the head before it: so its place in its log, which receipts name, binds its content.
V2  A bundle is the one that its digest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from exequatur.errors import EvidenceError, JournalError, StatementError
from exequatur.lineage.link import Link, check_link, genesis_of
from exequatur.lineage.record import Record, read
from exequatur.lineage.subject import subject_of
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.statements.encoding import digest, strict_json
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Digest, MessageKind, Name, Part, Receipt, Seal, Time

COUNTED = ("behavior", "baseline")
"""The kinds of records that are about no single run: events of a ledger, and what is usual."""
MAX_RECORDS = 2_000_000
"""Of one run: a run has at most 51,200 events, and each attempt of an activity leaves two records."""


class Vouched(Part):
    """What the grant says of the principal, in Cedar's form."""

    attributes: dict[str, JsonValue]
    parents: tuple[str, ...]


class Resource(Part):
    """What an activity acted on."""

    type: Name
    id: str


class Held(Part):
    """What a run was restricted to (A11 to A13 of :mod:`exequatur.gate.attempt`)."""

    activities: tuple[Name, ...] | None = None
    until: Time | None = None
    forbid: tuple[str, ...] = ()


class CountedPlace(Part):
    """Where an attempt stands in a ledger."""

    ledger: Name
    position: Annotated[int, Field(ge=0)]
    baseline: Digest | None = None
    """What is usual, as the gate knew it."""


class DecisionRecord(Part):
    """What a gate wrote down before an attempt (the body of a ``decision`` record)."""

    request: Digest | None
    request_digest: Digest | None
    workflow_id: str | None
    run_id: str | None
    activity_id: Name
    activity_type: Name
    attempt: Annotated[int, Field(ge=1)]
    first_scheduled: Time | None = None
    """When Temporal scheduled the activity; not in the records of early workers, nor of local activities."""
    scheduled: Time | None = None
    """When it scheduled the attempt; the same."""
    principal: str
    vouched: Vouched | None = None
    """Not in the records of early workers, nor where there is no grant."""
    args: Digest
    arguments: str
    """What Cedar was given of the arguments, as JSON."""
    fault: str | None
    resource: Resource | None = None
    """As the activity named it from its arguments; without it, it is the workflow."""
    facts: str
    """What else Cedar was given, as JSON."""
    counted: CountedPlace | None = None
    """There only where policies were told of behaviour."""
    restriction: Held | None = None
    """What the request and its delegations restrict besides; forbids are evaluated with the bundle's entities."""
    question: Name | None = None
    """Which of the gate's own actions was denied; without it, that of the activity."""
    decision: Literal["allow", "deny", "none"]
    enforced: bool
    reason: str | None
    policies: tuple[str, ...]
    bundle: Digest
    bundle_sequence: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Decision:
    """A decision record and where it stands."""

    record: Record
    claims: DecisionRecord


class IntegrityRecord(Part):
    """What a worker wrote down about what it is (the body of an ``integrity`` record)."""

    state: Literal["verified", "violated", "unknown"]
    manifest: Digest
    differences: tuple[str, ...]
    worker: Name | None = None
    """SPIFFE id; absent before the first credential."""


class MessageRecord(Part):
    """What a run's worker wrote down about a message (the body of a ``message`` record)."""

    workflow_id: str
    workflow_type: str
    run_id: str
    original_run_id: str
    kind: MessageKind
    name: str
    args: Digest | None
    token: Digest | None
    """Of the last token that it came with."""
    statement: str | None
    """``jti`` of the permit, or of the sending run's message."""
    principal: str | None
    sender: str | None
    accepted: bool
    enforced: bool
    rule: str | None
    reason: str | None
    message: Digest | None
    """What was folded into the head of the messages; absent for what no replay repeats."""
    messages: Digest | None


class OwnRecord(BaseModel):
    """What was decided about one of the gate's own actions (the body of an ``authority`` or a ``nexus`` record).

    Whoever asks says more, by names of its own.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    action: Name
    workflow_id: str | None
    principal: str | None
    vouched: Vouched | None
    facts: str
    """What Cedar was given, as JSON; empty where it was not asked."""
    decision: Literal["allow", "deny", "none"]
    reason: str | None
    policies: tuple[str, ...]
    bundle: Digest
    bundle_sequence: Annotated[int, Field(ge=1)]
    forbid: tuple[str, ...] = ()
    question: Name | None = None
    """Which other of the gate's own actions was denied."""
    fault: str | None = None
    enforced: bool = True
    grant: str | None = None
    """``jti`` of the grant that was asked for, or on which a renewal or message stands."""
    permit: str | None = None
    approval: str | None = None
    verdict: str | None = None
    renews: Digest | None = None
    message: Digest | None = None
    sender: str | None = None
    statement: Digest | None = None
    """Of the token that a Nexus operation came with."""
    request_id: str | None = None
    handler: dict[str, str] | None = None
    worker: dict[str, str] | str | None = None
    run_id: str | None = None


@dataclass
class RunEvidence:
    """What the journals hold about one run.

    Args:
        decisions: In the order of their logs.
        receipts: Receipts of every attempt.
        seals: Seals; there are several if the workflow task that closed the run was tried again.
        credentials: Those that came with seals.
        revocations: What each log knew to be revoked, with its place.
        integrity: What the workers found about themselves, with its place.
        messages: What the run's workers wrote down about messages.
        asked: Decisions about the gate's own actions, by an authority, by the run's workers or by a Nexus handler.
        places: Every record by log, index and head.
        invalid: What is wrong with records, a sentence each.
    """

    decisions: list[Decision] = field(default_factory=list)
    receipts: list[tuple[Record, Token[Receipt]]] = field(default_factory=list)
    seals: list[tuple[Record, Token[Seal]]] = field(default_factory=list)
    credentials: list[str] = field(default_factory=list)
    revocations: list[tuple[Record, Revocation]] = field(default_factory=list)
    integrity: list[tuple[Record, IntegrityRecord]] = field(default_factory=list)
    messages: list[tuple[Record, MessageRecord]] = field(default_factory=list)
    asked: list[tuple[Record, OwnRecord]] = field(default_factory=list)
    places: dict[tuple[str, int, str], Record] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)


class EvidenceReader(Protocol):
    """Where evidence comes from."""

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        """The records about these runs, those about the workflow that name no run, and all revocations and looks of
        workers at themselves; false with one that breaks V1."""
        ...

    def counted(self) -> Iterator[tuple[Record, bool]]:
        """The events of ledgers and the baselines, whatever run they are about; false with one that breaks V1."""
        ...

    def bundle(self, address: str) -> bytes | None:
        """An archived policy bundle by its digest."""
        ...

    def checkpoints(self, origin: str) -> Sequence[str]:
        """Signed checkpoints of a log."""
        ...


def evidence_of(reader: EvidenceReader, workflow_id: str, run_ids: frozenset[str]) -> RunEvidence:
    """Collect what is known of a run.

    Raises:
        EvidenceError: There is more than any run can leave.
    """
    found = RunEvidence()
    for count, (record, sound) in enumerate(reader.records_of(workflow_id, run_ids)):
        if count >= MAX_RECORDS:
            raise EvidenceError(f"The evidence holds more than {MAX_RECORDS} records about {workflow_id}")
        place = f"record {record.index} of log {record.log_id}"
        if not sound:  # [V1]
            found.invalid.append(f"{place} does not follow from those before it")
            continue
        found.places[record.log_id, record.index, record.head] = record
        try:
            _sort(found, record)
        except (StatementError, ValidationError, ValueError):
            found.invalid.append(f"{place} is no {record.kind} that can be read")
    return found


def _sort(found: RunEvidence, record: Record) -> None:
    match record.kind:
        case "decision":
            found.decisions.append(Decision(record, DecisionRecord.model_validate_json(_checked(record.body))))
        case "receipt":
            found.receipts.append((record, parse(record.body.decode("ascii"), Receipt)))
        case "seal":
            seal, _, credential = record.body.decode("ascii").partition("~")
            found.seals.append((record, parse(seal, Seal)))
            if credential:
                found.credentials.append(credential)
        case "revocation":
            found.revocations.append((record, read_entry(record.body)))
        case "integrity":
            found.integrity.append((record, IntegrityRecord.model_validate_json(_checked(record.body))))
        case "message":
            found.messages.append((record, MessageRecord.model_validate_json(_checked(record.body))))
        case "authority" | "nexus":
            found.asked.append((record, OwnRecord.model_validate_json(_checked(record.body))))
        case _:
            pass


def _checked(body: bytes) -> bytes:
    strict_json(body)
    return body


class NoEvidence:
    """The history is all there is."""

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        return iter(())

    def counted(self) -> Iterator[tuple[Record, bool]]:
        return iter(())

    def bundle(self, address: str) -> bytes | None:
        return None

    def checkpoints(self, origin: str) -> Sequence[str]:
        return ()


class RecordedEvidence:
    """Evidence from records that are at hand, such as those of journal files.

    Args:
        records: With whether each follows from the one before it (V1).
        checkpoints: Signed checkpoints by their origin.
    """

    def __init__(self, records: Iterable[tuple[Record, bool]], checkpoints: dict[str, list[str]] | None = None) -> None:
        self._by_run: dict[str, list[tuple[Record, bool]]] = {}
        self._by_workflow: dict[str, list[tuple[Record, bool]]] = {}
        self._everywhere: list[tuple[Record, bool]] = []
        self._counted: list[tuple[Record, bool]] = []
        self._bundles: dict[str, bytes] = {}
        self._checkpoints = checkpoints or {}
        for record, sound in records:
            if record.kind == "bundle":  # what was only a candidate decided nothing
                self._bundles[digest(record.body)] = record.body  # [V2]
            elif record.kind in ("revocation", "integrity"):
                self._everywhere.append((record, sound))
            elif record.kind in COUNTED:
                self._counted.append((record, sound))
            elif (subject := subject_of(record.kind, record.body)).run_id:
                self._by_run.setdefault(subject.run_id, []).append((record, sound))
            elif subject.workflow_id:
                self._by_workflow.setdefault(subject.workflow_id, []).append((record, sound))

    def records_of(self, workflow_id: str, run_ids: frozenset[str]) -> Iterator[tuple[Record, bool]]:
        for run_id in sorted(run_ids):
            yield from self._by_run.get(run_id, ())
        yield from self._by_workflow.get(workflow_id, ())
        yield from self._everywhere

    def counted(self) -> Iterator[tuple[Record, bool]]:
        return iter(self._counted)

    def bundle(self, address: str) -> bytes | None:
        return self._bundles.get(address)

    def checkpoints(self, origin: str) -> Sequence[str]:
        return self._checkpoints.get(origin, ())


def records_of_journal(path: Path) -> Iterator[tuple[Record, bool]]:
    """The records of a journal file, each with whether it follows from the one before it (V1).

    Raises:
        JournalError: The file is not a journal.
    """
    previous: str | None = None
    for record in read(path):
        yield record, follows(Link(record, genesis_of(record.log_id) if previous is None else previous))
        previous = record.head


def follows(link: Link) -> bool:
    """V1."""
    try:
        check_link(link)
    except EvidenceError:
        return False
    return True


def journals_in(place: Path) -> RecordedEvidence:
    """The evidence of a journal file, or of a folder of them.

    Raises:
        EvidenceError: There is none, or one cannot be read.
    """
    files = sorted(place.glob("*.db")) if place.is_dir() else [place]
    if not files:
        raise EvidenceError(f"{place}: there is no journal in this folder")
    try:
        return RecordedEvidence(each for file in files for each in records_of_journal(file))
    except JournalError as error:
        raise EvidenceError(str(error)) from None


def facts_in(text: str) -> dict[str, Any]:
    """What Cedar was given besides arguments.

    Raises:
        ValueError: It is not a JSON object.
    """
    facts = strict_json(text.encode())
    if not isinstance(facts, dict):
        raise ValueError("not a JSON object")
    return facts


def facts_of(claims: DecisionRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Cedar was given: the arguments that policies read, and the other facts.

    Raises:
        ValueError: One of them is not a JSON object.
    """
    arguments, facts = (strict_json(text.encode()) for text in (claims.arguments, claims.facts))
    if not isinstance(arguments, dict) or not isinstance(facts, dict):
        raise ValueError("not JSON objects")
    return arguments, facts
