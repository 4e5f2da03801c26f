"""What is ordered with a body of JSON: leave, renewals, approvals.

Rules, numbered as the code marks them:

H14  Leave is given only for what goes straight to the Temporal server. What a statement carries is asked for where that
     statement is issued.
H15  What a caller says of the circumstances has the form in which policies are told it, and says of the workflow what
     the question says.
H16  The evidence takes from a caller only what a report on an activity adds; the rest of a record is the authority's.
"""

from __future__ import annotations

from exequatur.authority.api import ApprovalBody, Approved, AuthorizationBody, Authorized, RenewalBody, Renewed
from exequatur.authority.service.answers import invalid
from exequatur.gate.issuing import ActionOrder, ApprovalOrder, Authority, RenewalOrder
from exequatur.identity.callers import Identified
from exequatur.policy.arguments import dotted
from exequatur.policy.told import (
    ACTIVITY_CANCEL_ACTION,
    ACTIVITY_COMPLETE_ACTION,
    ACTIVITY_OPTIONS_ACTION,
    ACTIVITY_PAUSE_ACTION,
    ACTIVITY_RESET_ACTION,
    ACTIVITY_TERMINATE_ACTION,
    ACTIVITY_UNPAUSE_ACTION,
    CANCEL_ACTION,
    DELETE_ACTION,
    NEXUS_CANCEL_ACTION,
    OPTIONS_ACTION,
    OWN_CONTEXTS,
    PAUSE_ACTION,
    RESET_ACTION,
    SCHEDULE_BACKFILL_ACTION,
    SCHEDULE_CREATE_ACTION,
    SCHEDULE_DELETE_ACTION,
    SCHEDULE_PAUSE_ACTION,
    SCHEDULE_TRIGGER_ACTION,
    SCHEDULE_UNPAUSE_ACTION,
    SCHEDULE_UPDATE_ACTION,
    TERMINATE_ACTION,
    UNPAUSE_ACTION,
)
from exequatur.policy.types import RecordType, misfit
from exequatur.statements.standalone import standalone_id

STRAIGHT = frozenset(
    {
        RESET_ACTION,
        CANCEL_ACTION,
        TERMINATE_ACTION,
        DELETE_ACTION,
        PAUSE_ACTION,
        UNPAUSE_ACTION,
        OPTIONS_ACTION,
        ACTIVITY_COMPLETE_ACTION,
        ACTIVITY_CANCEL_ACTION,
        ACTIVITY_TERMINATE_ACTION,
        ACTIVITY_PAUSE_ACTION,
        ACTIVITY_UNPAUSE_ACTION,
        ACTIVITY_RESET_ACTION,
        ACTIVITY_OPTIONS_ACTION,
        SCHEDULE_CREATE_ACTION,
        SCHEDULE_UPDATE_ACTION,
        SCHEDULE_TRIGGER_ACTION,
        SCHEDULE_BACKFILL_ACTION,
        SCHEDULE_PAUSE_ACTION,
        SCHEDULE_UNPAUSE_ACTION,
        SCHEDULE_DELETE_ACTION,
        NEXUS_CANCEL_ACTION,
    }
)
"""What no statement carries."""
_RECORDED = frozenset({"activity_id", "run_id", "request", "outcome", "result"})
_LONGEST = 1000
"""Characters of one of these."""
_TOLD_HERE = frozenset({"now", "acting"})
"""What the authority says itself."""


async def give_leave(authority: Authority, body: AuthorizationBody, caller: Identified) -> Authorized:
    """Give leave for what goes straight to the server.

    Raises:
        Refused: H14 to H16.
        AuthorizationDenied: See :class:`exequatur.gate.issuing.Authority`.
        AuthorizationUnavailable: See there.
    """
    if body.action not in STRAIGHT:  # [H14]
        raise invalid(f"action: leave is not given for {body.action[:100]}; there are {', '.join(sorted(STRAIGHT))}")
    declared = OWN_CONTEXTS[body.action].attributes
    told = RecordType(tuple(each for each in declared if each.name not in _TOLD_HERE))
    fault = misfit(body.facts, told)
    if fault is not None:  # [H15]
        raise invalid(f"facts: {dotted(fault[0])[:200]} {fault[1]}")
    run, activity = body.facts.get("run"), body.facts.get("activity")
    said = run.get("workflow_id") if isinstance(run, dict) else None
    alone = isinstance(activity, dict) and body.workflow_id == standalone_id(str(activity.get("id")))
    if said is not None and said != body.workflow_id and not (said == "" and alone):  # [H15]
        raise invalid("facts: run.workflow_id is another workflow than workflow_id")
    for name, value in body.record.items():
        if name not in _RECORDED:  # [H16]
            raise invalid(f"record: {name[:100]} is not added by callers; there is {', '.join(sorted(_RECORDED))}")
        if value is not None and not (isinstance(value, str) and len(value) <= _LONGEST):  # [H16]
            raise invalid(f"record: {name} is a text of at most {_LONGEST} characters")
    leave = await authority.authorize(
        ActionOrder(caller.principal, body.action, body.workflow_id, body.facts, body.record, acting=caller.acting)
    )
    return Authorized(principal=leave.principal, policies=leave.policies)


async def renew(authority: Authority, body: RenewalBody) -> Renewed:
    """Issue a grant that replaces an ended one. Who asks does not matter: only what is signed counts (Z8).

    Raises:
        AuthorizationDenied: See :class:`exequatur.gate.issuing.Authority`.
        AuthorizationUnavailable: See there.
    """
    return Renewed(grant=await authority.renew_grant(RenewalOrder(body.namespace, body.tokens)))


async def approve(authority: Authority, body: ApprovalBody, caller: Identified) -> Approved:
    """Sign a person's decision.

    Raises:
        AuthorizationDenied: See :class:`exequatur.gate.issuing.Authority`.
        AuthorizationUnavailable: See there.
    """
    order = ApprovalOrder(
        principal=caller.principal,
        challenge=body.challenge,
        worker_credential=body.credential,
        verdict=body.verdict,
        reason=body.reason,
        acting=caller.acting,
    )
    return Approved(approval=await authority.issue_approval(order))
