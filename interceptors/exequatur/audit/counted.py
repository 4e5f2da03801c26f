"""What policies were told of behaviour, added up again from the events in the evidence.

Rules, numbered as the code marks them:

D8  What was told is what the events of the ledger before the attempt's own add up to, with the baseline that is named;
    and the attempt's own event is about it, and about no other.
D9  Where an event before it or the baseline is not in the evidence, it could not be checked; where journals tell of
    different events in one place, that contradicts.
D10  What takes back an event is about one that stands before it, and takes back no more and not twice; what ran is not
    taken back.
D11  Where a journal tells of another ledger before this one, what was counted there is not counted here.

An event says what a worker wrote there. The costs of activities and how long they ran are its word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from exequatur.audit.decisions import Wrong, moment_of
from exequatur.audit.evidence import CountedPlace, Decision, EvidenceReader, facts_of
from exequatur.audit.proofs import Proof
from exequatur.audit.recompute import held_in
from exequatur.audit.start import LEEWAY
from exequatur.behavior.arguments import Features, features_of
from exequatur.behavior.baseline import Baseline
from exequatur.behavior.tally import before_in, tally
from exequatur.behavior.told import told_of
from exequatur.errors import ConfigurationError
from exequatur.gate.counted import FACT, read_by
from exequatur.gate.counting import BASELINE_RECORD
from exequatur.lineage.event import Counted, Event
from exequatur.lineage.record import Record
from exequatur.policy.bundle import PolicyBundle
from exequatur.statements.encoding import digest, strict_json

MAX_EVENTS = 2_000_000
"""Of all ledgers, held in memory."""
_FROM_ARGUMENTS = ("new_arguments", "score", "reasons")


@dataclass
class _Ledger:
    events: dict[int, Event] = field(default_factory=dict)
    places: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """Where what concerns a principal, an activity or a run stands."""
    torn: int | None = None
    """The first place of which journals tell different events."""
    whole: int = 0
    """There is no gap before this place."""
    taken_back: dict[int, int] = field(default_factory=dict)
    """By the place of what was denied or voided, where that stands."""
    false: set[int] = field(default_factory=set)
    """Where an event says what came of another one, and cannot (D10)."""
    named: dict[int, tuple[object, ...]] = field(default_factory=dict)
    """The attempt that a decision puts in a place."""

    def add(self, position: int, event: Event) -> None:
        known = self.events.setdefault(position, event)
        if known != event:
            self.torn = position if self.torn is None else min(self.torn, position)

    def index(self) -> None:
        for position, event in sorted(self.events.items()):
            for key in _keys(event):
                self.places[key].append(position)
            if event.kind != "asked":
                self._end(position, event)
        while self.whole in self.events:
            self.whole += 1

    def _end(self, position: int, event: Event) -> None:
        """D10: what came of an attempt."""
        about = -1 if event.of is None else event.of
        asked = self.events.get(about)
        if asked is None or about >= position:  # [D10]
            self.false.add(position)
            return
        same = {"of": None, "kind": "asked", "took": 0, "before": asked.before, "shape": asked.shape}
        changed = event.model_copy(update=same | {"cost": asked.cost})
        if changed != asked or event.cost > asked.cost:  # [D10]
            self.false.add(position)
        if event.kind != "ended" and self.taken_back.setdefault(about, position) != position:  # [D10]
            self.false.add(position)

    def before(self, position: int, event: Event) -> list[tuple[int, Event]]:
        """What stands before a place and can make a difference to what is asked there."""
        concerned = {place for key in _keys(event) for place in self.places[key] if place < position}
        return [(place, self.events[place]) for place in sorted(concerned)]


class Ledgers:
    """The events and baselines in the evidence.

    Args:
        records: Those of both kinds, each with whether it follows from the one before it (V1).
    """

    def __init__(self, records: Iterable[tuple[Record, bool]]) -> None:
        self._ledgers: dict[str, _Ledger] = defaultdict(_Ledger)
        self._baselines: dict[str, bytes] = {}
        self._first: dict[str, dict[str, int]] = defaultdict(dict)
        """Of each log, where it first tells of which ledger."""
        self.problem: str | None = None
        for count, (record, sound) in enumerate(records):
            if count >= MAX_EVENTS:
                self.problem = f"the evidence holds more than {MAX_EVENTS} events"
                break
            if sound and record.kind == BASELINE_RECORD:
                self._baselines[digest(record.body)] = record.body
            elif sound:
                try:
                    strict_json(record.body)
                    counted = Counted.model_validate_json(record.body)
                except (ValidationError, ValueError):
                    continue  # what it may have said is missing
                self._ledgers[counted.ledger].add(counted.position, counted.event)
                first = self._first[record.log_id]
                first[counted.ledger] = min(record.index, first.get(counted.ledger, record.index))
        for ledger in self._ledgers.values():
            ledger.index()

    def baseline(self, address: str) -> Baseline | None:
        """The baseline of this digest."""
        body = self._baselines.get(address)
        try:
            return None if body is None else Baseline.parse(body)
        except ConfigurationError:
            return None

    def ledger(self, name: str) -> _Ledger | None:
        return self._ledgers.get(name)

    def restarted(self, name: str) -> bool:
        """Whether this is not the ledger that a journal told of first (D11)."""
        return any(name in first and first[name] > min(first.values()) for first in self._first.values())


_read: WeakKeyDictionary[EvidenceReader, Ledgers] = WeakKeyDictionary()


def ledgers_of(reader: EvidenceReader) -> Ledgers:
    """What the evidence holds, read once for all runs."""
    if reader not in _read:
        _read[reader] = Ledgers(reader.counted())
    return _read[reader]


def check_counted(
    decision: Decision, proof: Proof, bundle: PolicyBundle | None, reader: EvidenceReader, first_run: str, wrong: Wrong
) -> bool:
    """D8 to D11: what a decision was told of behaviour.

    Args:
        decision: The record; its decision is Cedar's, not a rule's.
        proof: Of the activity that it is about.
        bundle: The archived one that it names; ``None`` if the evidence lacks it, which has been said.
        reader: Where the events are.
        first_run: First execution run id of the run, as what is signed says.
        wrong: Told what contradicts or could not be checked.

    Returns:
        Whether counting had begun anew (D11).
    """
    claims, ledgers = decision.claims, ledgers_of(reader)
    try:
        told = facts_of(claims)[1].get(FACT)
    except ValueError:
        return False  # said by check_about
    if told is None and claims.counted is None:
        held = held_in(claims, proof)
        forbid = () if held is None else held.forbid
        if bundle is not None and read_by(bundle, claims.activity_type, forbid):  # [D9]
            wrong("behavior-unchecked", "the policies read behaviour, and the record tells none")
        return False
    if told is None or claims.counted is None:  # [D8]
        wrong("behavior-contradicts", "the record tells of behaviour and not where it was counted, or the other way")
        return False
    code, problem = _checked(decision, claims.counted, told, proof, ledgers, first_run)
    if problem is not None:
        wrong(code, problem)
    return ledgers.restarted(claims.counted.ledger)


def _checked(
    decision: Decision, place: CountedPlace, told: Any, proof: Proof, ledgers: Ledgers, first_run: str
) -> tuple[str, str | None]:
    missing, contradicts = "behavior-unchecked", "behavior-contradicts"
    ledger, position = ledgers.ledger(place.ledger), place.position
    if ledgers.problem is not None:
        return missing, ledgers.problem
    if ledger is not None and ledger.torn is not None and ledger.torn <= position:  # [D9]
        return contradicts, f"journals tell of different events in place {ledger.torn} of ledger {place.ledger}"
    if ledger is None or ledger.whole <= position:  # [D9]
        gap = 0 if ledger is None else ledger.whole
        return missing, f"the evidence lacks event {gap} of ledger {place.ledger}; add the journals of all its workers"
    event = ledger.events[position]
    before = ledger.before(position, event)
    if (other := _other(decision, event, proof, first_run)) is not None:  # [D8]
        return contradicts, f"its event in ledger {place.ledger} is about another {other}"
    if event.before != (before_in(before, event.run) if event.attempt == 1 else None):  # [D8]
        return contradicts, "its event names another activity before it than the ledger"
    attempt = (decision.claims.run_id, proof.activity.activity_id, decision.claims.attempt, decision.claims.scheduled)
    if ledger.named.setdefault(position, attempt) != attempt:  # [D8]
        return contradicts, f"place {position} of ledger {place.ledger} is that of another attempt, too"
    if false := next((each for each, _ in before if each in ledger.false), None):  # [D10]
        return contradicts, f"event {false} of ledger {place.ledger} takes back what was not there to be taken back"
    if position in ledger.taken_back and _ran(decision, proof):  # [D10]
        return contradicts, f"it ran, and event {ledger.taken_back[position]} of ledger {place.ledger} takes it back"
    baseline = None if place.baseline is None else ledgers.baseline(place.baseline)
    if place.baseline is not None and baseline is None:  # [D9]
        return missing, f"the evidence lacks the baseline {place.baseline}"
    due = told_of(event, tally(before, event), _features(proof), baseline)
    found = dict(told) if isinstance(told, dict) else {}
    if proof.activity.local and baseline is not None:  # the history does not have its arguments
        for name in _FROM_ARGUMENTS:
            due.pop(name), found.pop(name, None)
    if found != due:  # [D8]
        names = sorted(name for name in found.keys() | due.keys() if found.get(name) != due.get(name))
        return contradicts, f"what the policies were told of behaviour is not what the events add up to: {names}"
    return missing, None


def _other(decision: Decision, event: Event, proof: Proof, first_run: str) -> str | None:
    """What an event says otherwise than the decision and the history."""
    claims, moment = decision.claims, moment_of(decision.claims)
    expected: dict[str, tuple[object, object]] = {
        "kind of event": (event.kind, "asked"),
        "principal": (event.principal, claims.principal),
        "activity": (event.activity, claims.activity_type),
        "attempt": (event.attempt, claims.attempt),
        "run": (event.run, first_run),
        "moment": (moment is not None and abs(event.at / 1000 - moment) <= LEEWAY, True),
    }
    if not proof.activity.local:
        expected["shape of arguments"] = (event.shape, _features(proof).shape)
    return next((name for name, (found, due) in expected.items() if found != due), None)


def _ran(decision: Decision, proof: Proof) -> bool:
    """Whether a receipt says that the attempt was allowed and completed."""
    receipt, claims = proof.receipt, decision.claims
    if receipt is None or (receipt.claims.run_id, receipt.claims.attempt) != (claims.run_id, claims.attempt):
        return False
    return claims.decision == "allow" and receipt.claims.outcome == "completed"


def _features(proof: Proof) -> Features:
    return features_of([(payload.metadata.get("encoding", b""), payload.data) for payload in proof.activity.input])


def _keys(event: Event) -> tuple[tuple[str, str], ...]:
    return ("principal", event.principal), ("activity", event.activity), ("run", event.run)
