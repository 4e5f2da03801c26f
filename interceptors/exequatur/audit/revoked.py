"""What was revoked at the time of a decision, as far as the journals tell.

Each process that writes to a journal puts the revocation feed into it from its first entry on, so an entry's number is
its place after the last time that the first one came. An entry that was lifted counts until then, and one that ends by
itself until its end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exequatur.audit.evidence import Decision, facts_of
from exequatur.audit.proofs import Proof
from exequatur.audit.start import LEEWAY
from exequatur.identity.actors import involved
from exequatur.lineage.record import Record
from exequatur.revocation.entry import Revocation, Subject
from exequatur.revocation.feed import place_of, places_of
from exequatur.statements.models import Receipt
from exequatur.statements.verification import Chain

MAX_BEHIND = 10.0
"""Seconds that a gate may be behind the feed of its own authority: it refuses to decide when it has not read it for
five."""
MAX_FOLLOWING = 660.0
"""Seconds that a gate may be behind a feed that it follows: ten minutes at most by its settings, and its clock may be
wrong. How far it was behind stands in its receipts."""


@dataclass(frozen=True)
class Known:
    """An entry of the feed in one journal.

    Args:
        record: Where.
        entry: What it says.
        number: Of the entry.
    """

    record: Record
    entry: Revocation
    number: int


class RevokedThen:
    """The feed as the journals have it.

    Args:
        revocations: What each log knew to be revoked, with its place.
        vouched: The logs that a worker's signature names.
    """

    def __init__(self, revocations: Sequence[tuple[Record, Revocation]], vouched: frozenset[str]) -> None:
        self._vouched = vouched
        by_log: dict[str, list[tuple[Record, Revocation]]] = defaultdict(list)
        for record, entry in sorted(revocations, key=lambda each: each[0].index):
            by_log[record.log_id].append((record, entry))
        self._known: dict[tuple[str, str], list[Known]] = defaultdict(list)
        """As :func:`exequatur.revocation.feed.place_of` has them."""
        self._lifts: dict[tuple[int, bytes], list[Known]] = defaultdict(list)
        """By number and content of what they lift: two journals may be of two feeds."""
        for entries in by_log.values():
            feed: list[bytes] = []
            number = 0
            for record, entry in entries:
                number = 1 if feed and entry.line == feed[0] else number + 1  # another process begins with the first
                feed[number - 1 : number] = [entry.line]
                known = Known(record, entry, number)
                if entry.lifts is None:
                    self._known[place_of(entry)].append(known)
                elif entry.lifts < number:
                    self._lifts[entry.lifts, feed[entry.lifts - 1]].append(known)

    def certain(self, decision: Decision, receipt: Receipt | None, subject: Subject) -> Iterator[tuple[Known, bool]]:
        """Yield what the decision's worker had to know and go by, and whether its journal is vouched for.

        Args:
            decision: The record.
            receipt: Of the same attempt, if there is one.
            subject: Whom it revokes.
        """
        at = decision.record.at
        for known in self._about(subject):
            entry = known.entry
            if _precedes(known, decision) or entry.at + _behind(known, receipt) < at:
                lifted = any(_precedes(each, decision) or each.entry.at <= at + MAX_BEHIND for each in self._of(known))
                if not lifted and entry.stands(at):
                    yield known, known.record.log_id in self._vouched

    def possible(self, decision: Decision, subject: Subject) -> Iterator[Known]:
        """Yield what the decision's worker may have known and gone by, and that revokes a subject."""
        at = decision.record.at
        for known in self._about(subject):
            entry = known.entry
            lifted = any(_precedes(each, decision) for each in self._of(known))
            if entry.at <= at + LEEWAY and entry.stands(at - LEEWAY) and not lifted:
                yield known

    def _about(self, subject: Subject) -> Iterator[Known]:
        for place in places_of(subject):
            yield from (known for known in self._known.get(place, ()) if known.entry.revokes(subject))

    def _of(self, known: Known) -> list[Known]:
        """What lifts an entry."""
        return self._lifts.get((known.number, known.entry.line), [])


def _precedes(known: Known, decision: Decision) -> bool:
    """Whether the decision's own journal had it before."""
    record = known.record
    return record.log_id == decision.record.log_id and record.index < decision.record.index


def _behind(known: Known, receipt: Receipt | None) -> float:
    """Seconds for which the worker need not have known an entry."""
    told = None if receipt is None else receipt.revocations
    if told is None or told.version >= known.number:
        return MAX_FOLLOWING
    return min(MAX_BEHIND + told.age, MAX_FOLLOWING)


def subject_then(decision: Decision, proof: Proof, chain: Chain | None) -> Subject:
    """Who acted, by what may be revoked.

    Args:
        decision: The record.
        proof: Of the activity that it is about.
        chain: The run's grant; ``None`` in an ungoverned run.
    """
    claims = decision.claims
    subject: dict[str, str | frozenset[str]] = {
        "workflow": claims.workflow_id or "",
        "activity": claims.activity_type,
        "principal": claims.principal,
        "bundle": claims.bundle,
    }
    workers, code, keys = set(), set(), set()
    try:
        told = facts_of(claims)[1].get("worker")
    except ValueError:
        told = None  # said where the facts are checked
    if isinstance(told, dict):
        workers.add(str(told.get("id", "")))
        code.add(str(told.get("code", "")))
    if proof.request is not None:
        workers.add(proof.request.claims.iss)
        keys.add(proof.request.kid)
    if chain is not None:
        grant = chain.grant.claims
        subject |= {"grant": grant.jti, "principal": involved(claims.principal, grant.act)}
        keys |= {chain.grant.kid, *(each.kid for each in chain.delegations)}
    return subject | {"worker": frozenset(workers), "code": frozenset(code - {""}), "key": frozenset(keys)}
