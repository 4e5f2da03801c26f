"""The gates' recorded decisions: are they about this history, and do they say what it says?

Whether they would be made again is for :mod:`exequatur.audit.recompute` (D3, D5 and D6).

Rules, numbered as the code marks them:

D1  A record names the workflow, run, activity, attempt, principal and argument digest that the history and the grant
    have; what Cedar was given besides says the same.
D2  It was made while the grant was valid, and about what was not revoked then as far as its own log knew, nor for
    longer than a gate may be behind: neither what was asked for, nor who asked and acted, nor their keys and policies.
D4  The receipt that names its place says the same of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from exequatur.audit.activities import seconds
from exequatur.audit.evidence import Decision, DecisionRecord, EvidenceReader, facts_of
from exequatur.audit.history import RunHistory
from exequatur.audit.proofs import Proof
from exequatur.audit.revoked import RevokedThen, subject_then
from exequatur.audit.start import LEEWAY, SCHEDULE_BOUND
from exequatur.errors import PolicyError
from exequatur.gate.counted import FACT
from exequatur.identity.actors import acting_facts
from exequatur.identity.principal import UNAUTHENTICATED
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource
from exequatur.statements.encoding import digest
from exequatur.statements.models import Approval, Receipt
from exequatur.statements.verification import Chain

Wrong = Callable[[str, str], None]
"""Takes a finding's code and its sentence."""


class Bundles:
    """Archived policy bundles, parsed once."""

    def __init__(self, evidence: EvidenceReader) -> None:
        self.reader = self._evidence = evidence
        self.get = lru_cache(maxsize=16)(self._get)

    def _get(self, address: str) -> PolicyBundle | None:
        """The bundle of this digest.

        Raises:
            PolicyError: The archive holds something else under it.
        """
        data = self._evidence.bundle(address)
        if data is None:
            return None
        bundle = _opened(data)
        if bundle.digest != address:
            raise PolicyError(f"The archived bundle {address} has another digest")
        return bundle


@lru_cache(maxsize=16)
def _opened(data: bytes) -> PolicyBundle:
    """An archived bundle; many runs of an audit share a few."""
    return PolicyBundle(BundleSource.from_archive(data))


def check_about(
    decision: Decision, proof: Proof | None, history: RunHistory, chain: Chain | None, wrong: Wrong
) -> None:
    """D1: a record against history and grant.

    Args:
        decision: The record.
        proof: Of the activity that it is about; ``None`` when only its run is known.
        history: The run.
        chain: The run's grant; ``None`` in an ungoverned run.
        wrong: Told what contradicts.
    """
    claims, record = decision.claims, decision.record
    expected: dict[str, tuple[object, object]] = {"workflow": (claims.workflow_id, history.workflow_id)}
    if claims.decision != "none":  # what is rejected may be so before it is known on whose behalf it was asked
        expected["principal"] = (claims.principal, chain.grant.claims.sub if chain else str(UNAUTHENTICATED))
        if claims.vouched is not None:
            grant = chain.grant.claims if chain else None
            vouched = (claims.vouched.attributes, claims.vouched.parents)
            expected["description of its principal"] = (vouched, grant and (grant.attributes, grant.parents))
    if record.request is not None:  # rejections are recorded without taking up the request's single use
        # After a reset of the activity, the moment stands behind the request.
        used = record.request.partition("@")[0]
        expected["place in its journal"] = (
            (used in (claims.request, claims.request_digest), record.run, record.attempt),
            (True, claims.run_id or "", claims.attempt),
        )
    if proof is not None:
        activity = proof.activity
        expected["activity type"] = (claims.activity_type, activity.activity_type)
        expected["activity id"] = (claims.activity_id, activity.activity_id)
        if proof.args is not None:
            expected["digest of the arguments"] = (claims.args, proof.args)
        if proof.request is not None:
            expected["request"] = (claims.request_digest, proof.request.digest)
    if claims.decision != "none":
        try:
            _, facts = facts_of(claims)
        except ValueError:
            wrong("decision-contradicts", "its recorded facts are not JSON objects")
            return
        # Approvals are counted again (E6), and behaviour (D8).
        told = {name: value for name, value in facts.items() if name not in ("now", "worker", "approvals", FACT)}
        expected["facts"] = (told, _expected_facts(decision, proof, history, chain, facts))
    for name, (found, due) in expected.items():
        if found != due:  # [D1]
            wrong("decision-contradicts", f"the journal has another {name} for it than the history and the grant")


def _expected_facts(
    decision: Decision, proof: Proof | None, history: RunHistory, chain: Chain | None, told: dict[str, Any]
) -> dict[str, Any]:
    """The facts that the history has, too; what it cannot know is taken as told."""
    claims = decision.claims
    return {
        **acting_facts(chain.grant.claims.act if chain is not None else None),
        "activity": {
            "type": claims.activity_type,
            "id": claims.activity_id,
            "attempt": claims.attempt,
            "task_queue": proof.activity.task_queue if proof is not None else _told(told, "activity", "task_queue"),
            "local": proof.activity.local if proof is not None else is_local(decision),
        },
        "run": {
            "namespace": chain.namespace if chain is not None else _told(told, "run", "namespace"),
            "workflow_id": history.workflow_id,
            "workflow_type": history.started.workflow_type.name,
            "run_id": claims.run_id,
            "governed": chain is not None,
        },
    }


def _told(facts: dict[str, Any], group: str, name: str) -> object:
    inner = facts.get(group)
    return inner.get(name) if isinstance(inner, dict) else None


def is_local(decision: Decision) -> bool:
    """Whether the record says that it is about a local activity."""
    try:
        _, facts = facts_of(decision.claims)
    except ValueError:
        return False
    return _told(facts, "activity", "local") is True


def check_standing(
    decision: Decision,
    proof: Proof,
    chain: Chain | None,
    revoked: RevokedThen,
    wrong: Wrong,
    *,
    earlier: bool = False,
) -> None:
    """D2: an allow against the grant's times and what had been revoked.

    Args:
        decision: The record.
        proof: Of the activity that it is about.
        chain: The run's grant; ``None`` in an ungoverned run.
        revoked: The feed, as logs knew it.
        wrong: Told what contradicts.
        earlier: The activity was reset after it, and the history tells of the later attempt of that number.
    """
    claims, at = decision.claims, decision.record.at
    activity = proof.activity
    last = claims.attempt == activity.attempt and not earlier
    if activity.started is not None and not activity.local and last:
        started = seconds(activity.started)
        if abs(started - at) > SCHEDULE_BOUND:
            wrong("decision-contradicts", "the server says that it started at another time than it was decided at")
    if claims.decision != "allow":
        return
    moment = moment_of(claims)
    if moment is None or abs(moment - at) > LEEWAY:
        wrong("decision-contradicts", "the moment that Cedar was given is not when the journal recorded the decision")
    if chain is not None:
        grant = chain.grant.claims
        if at >= chain.expires or at + LEEWAY < max(grant.nbf, grant.iat):  # [D2]
            wrong("grant-expired", "it was allowed when the grant had not begun or had ended")
    subject = subject_then(decision, proof, chain)
    receipt = proof.receipt.claims if proof.receipt is not None and last else None
    for known, vouched in revoked.certain(decision, receipt, subject):
        if vouched:  # [D2]
            wrong("grant-revoked", f"it was allowed although it had been revoked: {known.entry.reason}")
            return
        wrong(
            "evidence-unvouched", "a journal says that it had been revoked, and no worker has signed for that journal"
        )


def standing_of(decision: Decision, revoked: RevokedThen) -> tuple[Callable[[Approval], bool], ...]:
    """Whose approvals stand, in each way that a decision's worker may have known of revocations (O15).

    Args:
        decision: The record.
        revoked: The feed, as logs knew it.
    """
    claims = decision.claims

    def stands(guessed: bool, approval: Approval) -> bool:
        about = {"workflow": claims.workflow_id or "", "activity": claims.activity_type, "principal": approval.sub}
        if any(vouched for _, vouched in revoked.certain(decision, None, about)):
            return False
        return not guessed or next(revoked.possible(decision, about), None) is None

    return tuple(partial(stands, guessed) for guessed in (False, True))


def moment_of(claims: DecisionRecord) -> float | None:
    """The time that Cedar was given, in seconds since 1970."""
    try:
        _, facts = facts_of(claims)
        return datetime.fromisoformat(facts["now"]["__extn"]["arg"]).timestamp()
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def check_receipt(decision: Decision, receipt: Receipt) -> str | None:
    """D4: what a receipt says otherwise of the decision whose place it names, or ``None``."""
    claims = decision.claims
    compared: list[tuple[str, object, object]] = [
        ("request", receipt.request, claims.request),
        ("run", receipt.run_id, claims.run_id),
        ("attempt", receipt.attempt, claims.attempt),
        ("enforcement", receipt.enforced, claims.enforced),
    ]
    if receipt.rechecks == 0:  # else it tells of the decision that was made last
        compared += [("bundle", receipt.bundle, claims.bundle), ("digest of the facts", receipt.facts, _facts(claims))]
        if receipt.outcome == "completed":
            named = claims.policies[: len(receipt.policies)]
            compared += [("decision", receipt.decision, claims.decision), ("policy", receipt.policies, named)]
    for name, told, recorded in compared:
        if told != recorded:
            return f"its receipt names another {name} than the journal"
    return None


def _facts(claims: DecisionRecord) -> str:
    return digest(claims.facts)
