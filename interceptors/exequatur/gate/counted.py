"""How an attempt is counted: what of it stands in the ledger, when, and what came of it (rules C of
:mod:`exequatur.gate.counting`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exequatur.behavior.arguments import Features, features_of
from exequatur.failures import AuthorizationChallenge, AuthorizationFailure
from exequatur.gate.reservation import Reservation
from exequatur.lineage.event import Event
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.restriction import forbid_bundle
from exequatur.policy.told import CHILD_ACTION, RESET_ACTION

if TYPE_CHECKING:
    from exequatur.gate.attempt import Attempt, Judgement

FACT = "behavior"


async def count(attempt: Attempt) -> None:
    """C1: count an attempt before policies that read behaviour are asked about it.

    Args:
        attempt: Not judged yet, or to be judged again.

    Raises:
        JournalError: It cannot be counted (C2).
    """
    counting = attempt.gate.counting
    if counting is None or attempt.reservation is not None or not _counts(attempt):
        return
    if attempt.mark.cost is not None and attempt.identified() is not None:
        attempt.cost()  # also where nobody reads it here: a budget elsewhere adds it up (A17)
    if not _read(attempt):
        return
    reservation = _reservation(attempt)
    if reservation is not None:
        await counting.ask(reservation)
        attempt.reservation = reservation


def untold(attempt: Attempt, bundle: PolicyBundle) -> bool:
    """Whether policies can read behaviour about an attempt, and nobody counted it for them (A18).

    Args:
        attempt: Identified.
        bundle: The policies.
    """
    known = attempt.reservation is not None and attempt.reservation.numbers is not None
    return not known and read_by(bundle, attempt.info.activity_type, _forbid(attempt))


def undecided(attempt: Attempt) -> None:
    """C3: say that an attempt ended before it was decided. Never raises and never waits."""
    if attempt.gate.counting is not None and attempt.reservation is not None:
        attempt.gate.counting.voided(attempt.reservation)


def came_of(attempt: Attempt, judgement: Judgement, failure: AuthorizationFailure | None = None) -> None:
    """C3 and C4: say what was decided. Never raises and never waits.

    Args:
        attempt: The attempt.
        judgement: The decision that stands.
        failure: What the attempt ends with instead of running.
    """
    counting, decision = attempt.gate.counting, judgement.decision
    if counting is None:
        return
    if attempt.reservation is None:
        if decision == "none" or not _counts(attempt):
            return
        attempt.reservation = _reservation(attempt)
        if attempt.reservation is None:
            return
        counting.note(attempt.reservation)
    if isinstance(failure, AuthorizationChallenge) or (decision == "none" and attempt.enforced):
        # What people are asked about counts when it comes again with their answer.
        counting.voided(attempt.reservation)
    elif decision == "deny":
        counting.denied(attempt.reservation, ran=not attempt.enforced)


def ran(attempt: Attempt, took: float) -> None:
    """Say that the body is over.

    Args:
        attempt: Its attempt.
        took: Seconds.
    """
    if attempt.gate.counting is not None and attempt.reservation is not None:
        attempt.gate.counting.ended(attempt.reservation, took)


def _read(attempt: Attempt) -> bool:
    """Whether the policies in force, or what the run is restricted by, can read behaviour about this attempt."""
    return read_by(attempt.gate.policy.bundle, attempt.info.activity_type, _forbid(attempt))


def _forbid(attempt: Attempt) -> Sequence[str]:
    """The policies of its own that the run is restricted by."""
    return () if attempt.identified() is None or attempt.held is None else attempt.held.forbid


def read_by(bundle: PolicyBundle, activity_type: str, forbid: Sequence[str]) -> bool:
    """Whether policies can read behaviour about an activity.

    Args:
        bundle: The policies.
        activity_type: Of the activity.
        forbid: The texts that its run is restricted by.
    """
    if bundle.reads_fact(FACT):
        reads = (bundle.fact_reads(action) for action in (activity_type, RESET_ACTION, CHILD_ACTION))
        if any(each is None or FACT in each for each in reads):
            return True
    return _reads(bundle, forbid)


def _reads(bundle: PolicyBundle, forbid: Sequence[str]) -> bool:
    """Whether texts can read behaviour; one that cannot be asked reads nothing and denies."""
    asked = (forbid_bundle(bundle, text).all for text in forbid)
    return any(rules is not None and rules.reads_fact(FACT) for rules in asked)


def _counts(attempt: Attempt) -> bool:
    """C4."""
    counting = attempt.gate.counting
    if counting is None:
        return False
    bundle = attempt.gate.policy.bundle
    return counting.shared or bundle.reads_fact(FACT) or _reads(bundle, _forbid(attempt))


def _reservation(attempt: Attempt) -> Reservation | None:
    """What of an attempt is counted; ``None`` where it is not known on whose behalf it is."""
    principal = attempt.identified()
    if principal is None:
        return None
    info, features = attempt.info, _features(attempt)
    authorized = attempt.authorized
    event = Event(
        kind="asked",
        at=round(attempt.gate.clock() * 1000),
        principal=principal,
        workflow_type=info.workflow_type or "",
        run=attempt.run_id if authorized is None else authorized.request.claims.first_run_id,
        activity=info.activity_type,
        attempt=info.attempt,
        shape=features.shape,
        cost=attempt.cost() or 0,
    )
    return Reservation(event, features)


def _features(attempt: Attempt) -> Features:
    return features_of([(payload.metadata.get("encoding", b""), payload.data) for payload in attempt.input])
