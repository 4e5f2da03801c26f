"""Signs what a person decides about a challenge.

Rules, numbered as the code marks them (O are those of :mod:`exequatur.statements.approvals`, Q those of
:mod:`exequatur.authority.asking`):

L1  The challenge verifies from its bytes for this trust domain and cluster, and has not ended (O1 to O4). It takes what
    this authority signs; one from before a rotation is answered with a key that it knows.
L2  It was not issued in the future of this clock.
L3  Only who is in a group that is asked decides: by the parents that are vouched for and the entities of the policies
    in force, transitively. Whoever else tries is refused, and that is in the evidence.
L4  Cedar strictly allows ``approval.approve`` or ``approval.reject``.
L5  It allows ``approval.self`` besides, where people agree to what is asked on their own behalf, or by themselves on
    somebody else's: who decides, or acts for who decides, is the run's principal or acts for it.
L6  The approval names the challenge and what it is about, the groups that the person is in, and no others. It counts
    for none of them longer than that group's ``ttl`` (O11).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from exequatur.authority.asking import Asking
from exequatur.authority.state import State
from exequatur.errors import StatementError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
from exequatur.gate.issuing import ApprovalOrder
from exequatur.identity.actors import involved
from exequatur.identity.principal import Principal
from exequatur.policy.entities import Uid, uid_of
from exequatur.policy.told import APPROVE_ACTION, REJECT_ACTION, SELF_ACTION
from exequatur.statements.approvals import SKEW, verify_challenge
from exequatur.statements.models import Approval, Challenge, Needed, first_names
from exequatur.statements.verification import audience

MAX_REASON = 400
"""Characters; what an approval has room for."""


async def issue_approval(order: ApprovalOrder, asking: Asking, state: State, *, site: str) -> str:
    """Sign a person's decision.

    Args:
        order: Who decides what.
        asking: Asks Cedar and keeps the evidence.
        state: Holds the trust anchors and the key for approvals.
        site: This trust domain and cluster, as ``domain/cluster``.

    Returns:
        The compact approval.

    Raises:
        AuthorizationDenied: L1, L3 to L5; or the reason is too long to be signed.
        AuthorizationUnavailable: L2, or it cannot be decided or recorded.
    """
    principal, gate = order.principal, asking.gate
    _check_reason(order.reason)
    now = gate.clock()
    try:
        challenge = verify_challenge(order.challenge, order.worker_credential, state.trust, site=site, now=now)  # L1
    except StatementError as err:
        raise AuthorizationDenied(f"The challenge cannot be answered: {err}") from err
    claims = challenge.claims
    if state.signer_among("approval", claims.keys) is None:  # [L1]
        raise AuthorizationDenied("The challenge was issued by a worker that does not know this authority's key")
    if now + SKEW < claims.iat:  # [L2]
        raise AuthorizationUnavailable(
            f"The challenge was issued {claims.iat - now:.0f} s in the future; check the clocks"
        )
    groups = groups_of(principal, gate.policy.bundle.source.entity_documents, claims.needs)
    jti = secrets.token_urlsafe(12)
    facts = facts_of(claims, groups)
    record = {
        "approval": jti,
        "verdict": order.verdict,
        "because": order.reason,
        "challenge": challenge.digest,
        "request": claims.request,
        "run_id": claims.original_run_id,
        "activity_type": claims.activity_type,
        "args": claims.args,
    }
    asked = " or ".join(need.group for need in claims.needs)
    fault = None if groups else f"nobody but {asked} is asked"  # L3
    what = f"{order.verdict} {claims.activity_type} of workflow {claims.workflow_id}"
    actions = [APPROVE_ACTION if order.verdict == "approve" else REJECT_ACTION]  # L4
    own = involved(str(principal), order.acting) & involved(claims.sub, claims.act)
    if order.verdict == "approve" and own:
        actions.append(SELF_ACTION)  # [L5]
    policies: list[str] = []
    for action in actions:
        verdict = await asking.ask(
            principal,
            action,
            claims.workflow_id,
            facts,
            what=what,
            record=record,
            fault=fault,
            acting=order.acting,
        )
        policies += [ref.id for ref in verdict.policies]
    issued = round(gate.clock(), 3)
    domain, _, cluster = site.partition("/")
    lasts = max(need.ttl for need in claims.needs if need.group in groups)
    try:
        approval = Approval(
            iss=state.issuer,
            sub=str(principal),
            aud=audience(domain, cluster, claims.namespace),
            iat=issued,
            exp=round(issued + lasts, 3),
            jti=jti,
            verdict=order.verdict,
            challenge=challenge.digest,
            request=claims.request,
            workflow_id=claims.workflow_id,
            original_run_id=claims.original_run_id,
            activity_type=claims.activity_type,
            args=claims.args,
            groups=groups,
            reason=order.reason,
            bundle=gate.policy.bundle.digest,
            policies=first_names(dict.fromkeys(policies)),
        )
        return (await state.sign("approval", approval, among=claims.keys)).text  # L6
    except ValueError as err:
        first = str(err).partition("\n")[0]
        raise AuthorizationDenied(f"No approval can be written for {principal}: {first}") from err


def facts_of(claims: Challenge, groups: Sequence[str]) -> dict[str, Any]:
    """What Cedar is told of an answer, without the time.

    Args:
        claims: What is asked.
        groups: Those that are asked and that who answers is in.
    """
    return {
        "run": {
            "namespace": claims.namespace,
            "workflow_id": claims.workflow_id,
            "workflow_type": claims.workflow_type,
        },
        "approval": {"activity": claims.activity_type, "principal": claims.sub, "groups": list(groups)},
    }


def groups_of(principal: Principal, entities: Iterable[Mapping[str, Any]], needs: Sequence[Needed]) -> tuple[str, ...]:
    """The groups that are asked and that a principal is in.

    A group is named by an entity's id, or by type and id as ``Role::finance`` where ids of several types are alike.

    Args:
        principal: With the parents that are vouched for.
        entities: Those of the policies, as Cedar JSON.
        needs: Who is asked.
    """
    parents: dict[Uid, list[Uid]] = {}
    for document in entities:
        parents.setdefault(uid_of(document["uid"]), []).extend(uid_of(each) for each in document.get("parents", ()))
    above: set[Uid] = set()
    waiting = [(each.type, each.id) for each in principal.parents if isinstance(each, Principal)]
    waiting += parents.get((principal.type, principal.id), [])
    while waiting:
        uid = waiting.pop()
        if uid not in above:
            above.add(uid)
            waiting += parents.get(uid, [])
    names = {name for kind, id in above for name in (id, f"{kind}::{id}", f'{kind}::"{id}"')}
    return tuple(need.group for need in needs if need.group in names)


def _check_reason(reason: str | None) -> None:
    """Check that a reason can be signed, before anybody is asked.

    Raises:
        AuthorizationDenied: It cannot.
    """
    if reason is None:
        return
    if len(reason) > MAX_REASON:
        raise AuthorizationDenied(f"The reason has {len(reason)} characters; say it in {MAX_REASON}")
    try:
        reason.encode()
    except UnicodeEncodeError as err:
        raise AuthorizationDenied("The reason is not Unicode text; write it as UTF-8") from err
