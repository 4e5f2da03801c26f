"""The gates' recorded decisions: are they about this history, and would they be made again?

Rules, numbered as the code marks them:

D1  A record names the workflow, run, activity, attempt, principal and argument digest that the history and the grant
    have; what Cedar was given besides says the same.
D2  It was made while the grant was valid, and about what had not been revoked as far as its own log knew, nor for
    longer than a gate may be behind.
D3  Evaluated again, with the archived bundle, the grant's principal and the recorded facts, it is the same: the answer
    and the policies that gave it.
D4  The receipt that names its place says the same of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from exequatur.audit.activities import seconds
from exequatur.audit.evidence import Decision, DecisionRecord, EvidenceReader, facts_of
from exequatur.audit.history import RunHistory
from exequatur.audit.proofs import Proof
from exequatur.audit.start import LEEWAY, SCHEDULE_BOUND
from exequatur.errors import PolicyError
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.revocations import Revocation
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.lineage.record import Record
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.source import BundleSource
from exequatur.policy.told import OWN_ACTIONS, RESET_ACTION
from exequatur.statements.encoding import digest
from exequatur.statements.models import Receipt
from exequatur.statements.verification import Chain

MAX_BEHIND = 10.0
"""Seconds that a gate may be behind the revocation feed: it refuses to decide when it has not read it for five."""

Revoked = Sequence[tuple[Record, Revocation]]
Wrong = Callable[[str, str], None]
"""Takes a finding's code and its sentence."""


class Bundles:
    """Archived policy bundles, parsed once."""

    def __init__(self, evidence: EvidenceReader) -> None:
        self._evidence = evidence
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
        expected["place in its journal"] = (
            (record.run, record.attempt),
            (claims.run_id or "", claims.attempt),
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
        told = {name: value for name, value in facts.items() if name not in ("now", "worker")}
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
    decision: Decision, proof: Proof, chain: Chain | None, revocations: Revoked, vouched: frozenset[str], wrong: Wrong
) -> None:
    """D2: an allow against the grant's times and what had been revoked.

    Args:
        decision: The record.
        proof: Of the activity that it is about.
        chain: The run's grant; ``None`` in an ungoverned run.
        revocations: What logs knew to be revoked.
        vouched: The logs that a worker's signature names.
        wrong: Told what contradicts.
    """
    claims, at = decision.claims, decision.record.at
    activity = proof.activity
    if activity.started is not None and not activity.local and claims.attempt == activity.attempt:
        started = seconds(activity.started)
        if abs(started - at) > SCHEDULE_BOUND:
            wrong("decision-contradicts", "the server says that it started at another time than it was decided at")
    if claims.decision != "allow":
        return
    moment = _moment(claims)
    if moment is None or abs(moment - at) > LEEWAY:
        wrong("decision-contradicts", "the moment that Cedar was given is not when the journal recorded the decision")
    subject = {"workflow": claims.workflow_id or "", "activity": claims.activity_type, "principal": claims.principal}
    if chain is not None:
        grant = chain.grant.claims
        subject["grant"] = grant.jti
        if at >= chain.expires or at + LEEWAY < max(grant.nbf, grant.iat):  # [D2]
            wrong("grant-expired", "it was allowed when the grant had not begun or had ended")
    for record, revocation in revocations:
        known = record.log_id == decision.record.log_id and record.index < decision.record.index
        if revocation.revokes(subject) and (known or revocation.at + MAX_BEHIND < at):  # [D2]
            if record.log_id in vouched:
                wrong("grant-revoked", f"it was allowed although it had been revoked: {revocation.reason}")
                return
            wrong(
                "evidence-unvouched",
                "a journal says that it had been revoked, and no worker has signed for that journal",
            )


def _moment(claims: Any) -> float | None:
    try:
        _, facts = facts_of(claims)
        return datetime.fromisoformat(facts["now"]["__extn"]["arg"]).timestamp()
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def recompute(
    decision: Decision, proof: Proof | None, chain: Chain | None, bundle: PolicyBundle, workflow_id: str
) -> str | None:
    """D3: make a decision again.

    Args:
        decision: The record; its decision is Cedar's, not a rule's.
        proof: Of the activity that it is about.
        chain: The run's grant; ``None`` in an ungoverned run.
        bundle: The archived one that the record names.
        workflow_id: The resource, unless the record names another.

    Returns:
        What is different, or ``None``.
    """
    claims = decision.claims
    try:
        arguments, facts = facts_of(claims)
        principal = _principal(chain)
    except ValueError as error:
        return f"it cannot be made again: {error}"

    workflow = {"type": WORKFLOW_TYPE, "id": workflow_id}
    named = workflow if claims.resource is None else claims.resource.model_dump()

    def ask(action: str, resource: dict[str, str], given: Conversion) -> Verdict:
        return decide(bundle, principal.entity(), {"type": "Action", "id": action}, resource, given, facts)

    verdict: Verdict | None = None
    request = proof.request.claims if proof is not None and proof.request is not None else None
    if request is not None and request.run_id != claims.run_id:
        verdict = ask(RESET_ACTION, workflow, NO_ARGUMENTS)
    if verdict is None or verdict.allowed:
        if claims.activity_type in OWN_ACTIONS:
            return "the activity is named like one of the gate's own actions"
        if claims.fault is not None:
            # Cedar could not be asked: an argument that a policy reads had no form in it, or there was no resource.
            return None if claims.decision == "deny" else "Cedar could not be asked, and it was allowed"
        if (other := _other_resource(bundle, claims.activity_type, named["type"])) is not None:
            return other
        verdict = ask(claims.activity_type, named, Conversion(arguments, {}))
    answer = "allow" if verdict.allowed else "deny"
    if answer != claims.decision:
        return f"the archived policies say {answer}, the journal says {claims.decision}"
    if tuple(ref.id for ref in verdict.policies) != claims.policies:
        return "other policies decide than the journal says"
    return None


def _other_resource(bundle: PolicyBundle, activity_type: str, kind: str) -> str | None:
    """What the archived schema says otherwise of the type of resource: a record could leave its resource out."""
    action = bundle.model.actions.get(activity_type) if bundle.model is not None else None
    if action is None or not action.resources or kind in action.resources:
        return None
    return f"the archived policies have it act on {' or '.join(action.resources)}, the journal says {kind}"


def _principal(chain: Chain | None) -> Principal:
    if chain is None:
        return UNAUTHENTICATED
    grant = chain.grant.claims
    named = Principal.parse(grant.sub)
    return Principal(named.type, named.id, grant.attributes, grant.parents)


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
