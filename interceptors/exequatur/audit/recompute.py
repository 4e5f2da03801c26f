"""Makes a recorded decision again, with the archived policies: the same questions, in the gate's own order.

Rules, numbered as the code marks them (A are those of :mod:`exequatur.gate.attempt`):

D3  Evaluated again, with the archived bundle, the grant's principal, the recorded facts and what the run was
    restricted to, it is the same: the answer, the policies that gave it, and the question that it was an answer to.
D5  Where the workflow or the activity had been reset, or another run had handed down what it holds, Cedar allowed that,
    too (A8, A14, A16).
D6  What the run was restricted from was not allowed (A11 to A13).
D7  Approvals counted only if those policies ask for no more than their challenge did (O27).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exequatur.audit.evidence import Decision, DecisionRecord, facts_of
from exequatur.audit.proofs import Proof
from exequatur.audit.restrictions import recorded
from exequatur.gate.attempt import NO_ARGUMENTS, asks_child, outside_of, place_in
from exequatur.gate.challenge import asks_more
from exequatur.identity.principal import UNAUTHENTICATED, Principal
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.restriction import held_to
from exequatur.policy.told import ACTIVITY_RESET_ACTION, CHILD_ACTION, OWN_ACTIONS, RESET_ACTION
from exequatur.statements.models import Challenge
from exequatur.statements.requests import Held
from exequatur.statements.verification import Chain


@dataclass(frozen=True)
class Remade:
    """What came of making a decision again.

    Args:
        problem: What is different.
        verdict: What the policies say; ``None`` where they were not asked about the activity.
    """

    problem: str | None = None
    verdict: Verdict | None = None


def recompute(
    decision: Decision,
    proof: Proof,
    chain: Chain | None,
    bundle: PolicyBundle,
    workflow_id: str,
    *,
    activity_reset: bool = False,
    answers: Challenge | None = None,
) -> Remade:
    """D3, D5 and D6: make a decision again.

    Args:
        decision: The record; its decision is Cedar's, not a rule's.
        proof: Of the activity that it is about.
        chain: What the request stands on; ``None`` in an ungoverned run.
        bundle: The archived one that the record names.
        workflow_id: The resource, unless the record names another.
        activity_reset: The activity had been reset before this attempt.
        answers: The challenge that its approvals are for.
    """
    claims = decision.claims
    try:
        arguments, facts = facts_of(claims)
        asked = _Asked(claims, bundle, principal_of(chain), workflow_id, held_in(claims, proof), facts)
        outside = outside_of(asked.held, claims.activity_type, facts)
        place = place_in(facts)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return Remade(f"it cannot be made again: {type(error).__name__} in what it records")
    if outside is not None:  # [D6]
        denied = claims.decision == "deny" and claims.fault == outside
        return Remade(None if denied else f"{outside}, and the journal says {claims.decision} for another reason")
    request = proof.request.claims if proof.request is not None else None
    questions = {
        RESET_ACTION: (request is not None and request.run_id != claims.run_id, facts),
        CHILD_ACTION: (chain is not None and asks_child(chain), facts),
        ACTIVITY_RESET_ACTION: (activity_reset or claims.question == ACTIVITY_RESET_ACTION, place),
    }
    for question, (needed, told) in questions.items():
        if needed:  # [D5]
            verdict = asked.ask(question, asked.workflow, NO_ARGUMENTS, told)
            if not verdict.allowed:
                return Remade(_difference(claims, verdict, question))
    if claims.activity_type in OWN_ACTIONS:
        return Remade("the activity is named like one of the gate's own actions")
    if claims.question is not None:
        return Remade(f"the archived policies allow {claims.question}, the journal says that it was denied")
    if claims.fault is not None:
        # Cedar could not be asked: an argument that a policy reads had no form in it, or there was no resource.
        return Remade(None if claims.decision == "deny" else "Cedar could not be asked, and it was allowed")
    named = asked.workflow if claims.resource is None else claims.resource.model_dump()
    if (other := _other_resource(bundle, claims.activity_type, named["type"])) is not None:
        return Remade(other)
    given = Conversion(arguments, {})
    verdict = asked.ask(claims.activity_type, named, given, facts)
    if verdict.allowed and answers is not None and "approvals" in facts:
        alone = {name: value for name, value in facts.items() if name != "approvals"}
        verdicts = [asked.ask(claims.activity_type, named, given, alone)]
        others = (each for each in (RESET_ACTION, CHILD_ACTION) if questions[each][0])
        verdicts += [asked.ask(question, asked.workflow, NO_ARGUMENTS, alone) for question in others]
        if asks_more(bundle, verdicts, answers):  # [D7]
            return Remade("the archived policies ask for more than the people who agreed were asked for", verdict)
    return Remade(_difference(claims, verdict, None), verdict)


@dataclass(frozen=True)
class _Asked:
    """Whom a decision asked, and on whose behalf."""

    claims: DecisionRecord
    bundle: PolicyBundle
    principal: Principal
    workflow_id: str
    held: Held | None
    facts: Mapping[str, Any]

    @property
    def workflow(self) -> dict[str, str]:
        return {"type": WORKFLOW_TYPE, "id": self.workflow_id}

    def ask(self, action: str, resource: dict[str, str], given: Conversion, facts: Mapping[str, Any]) -> Verdict:
        entity = self.principal.entity()
        verdict = decide(self.bundle, entity, {"type": "Action", "id": action}, resource, given, facts)
        forbid = () if self.held is None else self.held.forbid
        if forbid:  # [D6]
            return held_to(self.bundle, forbid, verdict, entity, action, resource, given, facts)
        return verdict


def held_in(claims: DecisionRecord, proof: Proof) -> Held | None:
    """What the attempt was held to; of a local activity, what the record says."""
    return recorded(claims) if proof.authorized is None else proof.authorized.held


def _difference(claims: DecisionRecord, verdict: Verdict, question: str | None) -> str | None:
    answer = "allow" if verdict.allowed else "deny"
    about = f" to {question}" if question is not None else ""
    if answer != claims.decision:
        return f"the archived policies say {answer}{about}, the journal says {claims.decision}"
    # The records of early workers do not name the question about a reset of the workflow.
    if claims.question != question and (claims.question is not None or question != RESET_ACTION):
        return f"the archived policies say {answer}{about}, the journal has it as the answer to another question"
    if tuple(ref.id for ref in verdict.policies) != claims.policies:
        return "other policies decide than the journal says"
    return None


def _other_resource(bundle: PolicyBundle, activity_type: str, kind: str) -> str | None:
    """What the archived schema says otherwise of the type of resource: a record could leave its resource out."""
    action = bundle.model.actions.get(activity_type) if bundle.model is not None else None
    if action is None or not action.resources or kind in action.resources:
        return None
    return f"the archived policies have it act on {' or '.join(action.resources)}, the journal says {kind}"


def principal_of(chain: Chain | None) -> Principal:
    """On whose behalf a run acts.

    Raises:
        ValueError: The grant names nobody.
    """
    if chain is None:
        return UNAUTHENTICATED
    grant = chain.grant.claims
    named = Principal.parse(grant.sub)
    return Principal(named.type, named.id, grant.attributes, grant.parents)
