"""What a run was restricted to, and whether those who decided knew it.

Rules, numbered as the code marks them:

F1  Of two restrictions the second is held to the first if it allows no other activity, ends no later, and forbids all
    that the first forbids.
F2  A decision was made under all that the request and what it stands on restrict, and nothing else.
F3  Of a local activity, whose request Temporal does not record, it was made under all that its grant or delegation
    restricts, and the run before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exequatur.audit.evidence import DecisionRecord, facts_of
from exequatur.gate.attempt import outside_of
from exequatur.policy.restriction import HELD_TO, PREFIX, UNUSABLE
from exequatur.statements.models import Restriction, WorkflowAuthorization
from exequatur.statements.requests import Held, held_under
from exequatur.statements.verification import Chain, covers

if TYPE_CHECKING:
    from exequatur.audit.proofs import Proof


def narrower(given: Restriction | None, before: Restriction) -> bool:
    """Whether a restriction is held to another one (F1).

    Args:
        given: What is claimed to be held to it; ``None`` restricts nothing.
        before: The other one.
    """
    held = given or Restriction()
    if before.activities is not None and (
        held.activities is None or not covers(before.activities, held.activities)
    ):  # [F1]
        return False
    if before.until is not None and (held.until is None or held.until > before.until):  # [F1]
        return False
    return set(before.forbid) <= set(held.forbid)  # [F1]


def of_authorization(held: WorkflowAuthorization) -> Restriction:
    """What a grant or delegation comes to as a restriction."""
    return Restriction(activities=held.activities, until=held.until, forbid=held.forbid)


def recorded(claims: DecisionRecord) -> Held | None:
    """What a decision says that it was made under."""
    held = claims.restriction
    return None if held is None else Held(held.activities, held.until, held.forbid)


def denied_by(claims: DecisionRecord) -> bool:
    """Whether a decision says that it was the restriction that denied, and not the policies in force."""
    held = recorded(claims)
    if held is None or claims.decision != "deny":
        return False
    if claims.policies:
        return all(name.startswith(PREFIX) for name in claims.policies)
    return apart(claims) or any(told in (claims.reason or "") for told in (HELD_TO, UNUSABLE))


def apart(claims: DecisionRecord) -> bool:
    """Whether a decision says that the run was restricted to something else, so that no policy was asked."""
    try:
        outside = outside_of(recorded(claims), claims.activity_type, facts_of(claims)[1])
    except (ValueError, KeyError, TypeError, OverflowError):
        return False
    return outside is not None and claims.fault == outside


def unheld(claims: DecisionRecord, proof: Proof, chain: Chain | None, before: Restriction | None) -> str | None:
    """What a decision leaves out of what its run was restricted to, or adds.

    Args:
        claims: The record.
        proof: Of the activity.
        chain: What its request stands on; ``None`` in an ungoverned run.
        before: What the run before restricted this one to.
    """
    told = recorded(claims)
    if proof.authorized is not None:
        due = proof.authorized.held
    elif chain is None or not proof.activity.local:
        due = None
    else:  # [F3]
        least = held_under(chain.authorization, before) or Held()
        asked = Restriction(activities=least.activities, until=least.until, forbid=least.forbid)
        said = told or Held()
        stated = Restriction(activities=said.activities, until=said.until, forbid=said.forbid)
        due = told if narrower(stated, asked) else least
    return None if told == due else "the journal has another restriction for it than its request and grant"  # [F2]
