"""What the gate answers with where it could say yes: people would have to agree, or the run's grant be renewed.

Rules, numbered as the code marks them (O1 to O14 are those of :mod:`exequatur.statements.approvals`, Z those of
:mod:`exequatur.statements.renewal` and :mod:`exequatur.authority.renewal`):

O15  Approvals count only while they last and while those who gave them are not revoked.
O16  A denial becomes a challenge only where Cedar was asked and reported no error, and where every policy that
     determined it carries a valid ``@approval``. Nobody is asked about what is forbidden for good.
O17  It becomes one only in an enforced run that can answer (a grant of version 2 or later, in ``enforce``).
O18  Where everybody who is asked has agreed already, asking them again would not help: it is denied.
O19  A challenge ends with the shortest ``ttl``, after ``approval_wait``, or with the run's lifetime, whatever is first.
O20  What cannot be asked (too many people or groups, too long, no key for approvals) is denied, with a sentence.
O27  Approvals count only where they were given for as many people, and for no longer, as the policies in force ask:
     what was asked before a policy was tightened, or before another one came into play, is asked again.
Z6   Only a grant that has ended and may be renewed is renewed, in a run that can answer; whether it is, the authority
     decides. Without an authority it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exequatur.errors import StatementError
from exequatur.failures import AuthorizationDenied
from exequatur.gate.gate import Gate
from exequatur.gate.issuing import RenewalOrder
from exequatur.gate.wire import read_activity_header
from exequatur.policy.approval import parse_approval
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.statements.approvals import Agreement, check_needs, lasts_until, satisfied
from exequatur.statements.jws import Token
from exequatur.statements.models import Approval, Challenge, Needed
from exequatur.statements.requests import Authorized

if TYPE_CHECKING:
    from exequatur.gate.attempt import Attempt, Judgement

_MAX_GROUPS = 8
_MAX_ARGUMENTS = 4000
"""Characters of the arguments that a challenge shows."""
_MAX_KEYS = 8


@dataclass(frozen=True)
class Agreed:
    """Who has agreed to a request, now.

    Args:
        groups: Those whose quorum is reached.
        approvers: Everybody who counts.
        until: Until when it stays so, in seconds since 1970.
    """

    groups: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    until: float = float("inf")


@dataclass(frozen=True)
class Offer:
    """What would help.

    Args:
        details: What the failure carries besides.
        sentence: For those who read it.
        record: What the evidence is to hold.
    """

    sentence: str
    details: dict[str, str] = field(default_factory=dict)
    record: bytes | None = None


def agreed(gate: Gate, authorized: Authorized, now: float) -> Agreed:
    """Count the approvals that came with a request.

    Args:
        gate: Knows who is revoked.
        authorized: The verified request.
        now: Seconds since 1970.
    """
    agreement = authorized.agreement
    if agreement is None:
        return Agreed()
    request = authorized.request.claims
    about = {"workflow": request.workflow_id, "activity": request.activity_type}
    standing = [
        each.claims
        for each in agreement.approvals
        if gate.revocations.find({**about, "principal": each.claims.sub, "key": each.kid}) is None  # [O15]
    ]
    groups, approvers = satisfied(agreement.challenge.claims, standing, now=now)  # [O15]
    return Agreed(groups, approvers, lasts_until(agreement.challenge.claims, standing, now=now))


def asks_more(bundle: PolicyBundle, verdicts: Iterable[Verdict], challenge: Challenge) -> bool:
    """Whether policies ask a group for more than a challenge did (O27).

    Args:
        bundle: The policies in force.
        verdicts: What they say where nobody has agreed.
        challenge: Verified.
    """
    asked = {need.group: need for need in challenge.needs}
    denying = {ref.id for verdict in verdicts if not verdict.allowed for ref in verdict.policies}
    for info in bundle.policies.values():
        if info.id not in denying or info.approval is None:
            continue
        try:
            wanted = parse_approval(info.approval)
        except ValueError:
            continue  # it names no group that could have agreed
        need = asked.get(wanted.group)
        if need is not None and (wanted.quorum > need.quorum or wanted.ttl.total_seconds() < need.ttl):
            return True
    return False


def answerable(attempt: Attempt) -> bool:
    """O17: whether the run that asked can answer a challenge."""
    authorized = attempt.authorized
    if authorized is None or not attempt.enforced:
        return False
    grant = authorized.chain.grant.claims
    return grant.ver >= 2 and grant.mode == "enforce"


def asked_for(
    bundle: PolicyBundle, verdict: Verdict, agreement: Agreement | None, already: Agreed
) -> tuple[Needed, ...]:
    """Who would have to agree for a denial to become an allow; nobody where that would not help.

    Args:
        bundle: The policies that denied.
        verdict: What they said.
        agreement: The challenge that the request answers, if it answers one.
        already: Who has agreed to it.
    """
    if verdict.allowed or verdict.errors or verdict.fault or not verdict.policies:  # [O16]
        return ()
    denying = {ref.id for ref in verdict.policies}
    needs: dict[str, Needed] = {}
    if agreement is not None:
        # A new challenge takes the place of the one before, and so asks for all that it asked for.
        needs = {need.group: need for need in agreement.challenge.claims.needs}
    asked: set[str] = set()
    if denying != {info.id for info in bundle.policies.values() if info.id in denying}:  # [O16]
        return ()
    for info in bundle.policies.values():
        if info.id not in denying:
            continue
        try:
            wanted = parse_approval(info.approval or "")
        except ValueError:  # [O16]
            return ()
        need = Needed(group=wanted.group, quorum=wanted.quorum, ttl=wanted.ttl.total_seconds())
        asked.add(need.group)
        known = needs.get(need.group, need)
        needs[need.group] = Needed(
            group=need.group, quorum=max(need.quorum, known.quorum), ttl=min(need.ttl, known.ttl)
        )
    if asked <= set(already.groups) and agreement is not None:
        before = {need.group: need for need in agreement.challenge.claims.needs}
        if all(needs[group] == before.get(group) for group in asked):  # [O18]
            return ()
    return tuple(needs.values())


async def offer(attempt: Attempt, judgement: Judgement) -> Offer | None:
    """What would turn a refusal into an allow, if anything does.

    Raises:
        AuthorizationUnavailable: It cannot be decided now.
    """
    if judgement.needs:
        return _challenge(attempt, judgement)
    if judgement.renewable:
        return await _renewal(attempt)
    return None


def _challenge(attempt: Attempt, judgement: Judgement) -> Offer:
    gate, authorized, needs = attempt.gate, attempt.authorized, judgement.needs
    asked = " and ".join(f"{need.quorum} of {need.group}" for need in needs)
    try:
        if authorized is None or len(needs) > _MAX_GROUPS:
            raise ValueError(f"{len(needs)} groups would have to agree, and a challenge asks {_MAX_GROUPS}")
        check_needs(needs)
        challenge = _signed(gate, authorized, judgement, needs)
    except StatementError as err:  # [O20]
        return Offer(f"Nobody can be asked to agree: {err.reason}")
    except ValueError as err:  # [O20]
        return Offer(f"Nobody can be asked to agree: {str(err).partition(chr(10))[0][:200]}")
    credential = gate.workload.credential.text
    return Offer(
        f"It waits until {asked} agree",
        {"challenge": challenge.text},
        f"{challenge.text}~{credential}".encode(),
    )


def _signed(gate: Gate, authorized: Authorized, judgement: Judgement, needs: Sequence[Needed]) -> Token[Challenge]:
    """Sign a challenge.

    Raises:
        ValueError: O20.
    """
    request, grant = authorized.request.claims, authorized.chain.grant.claims
    now = round(gate.clock(), 3)
    keys = sorted(
        (anchor for anchor in gate.trust if Approval.typ in anchor.typ and (anchor.exp is None or now < anchor.exp)),
        key=lambda anchor: -anchor.nbf,
    )
    if not keys:
        raise ValueError("there is no key that approvals are signed with")
    last = grant.renew_until or authorized.chain.expires
    wait = min(gate.settings.approval_wait.total_seconds(), *(need.ttl for need in needs))  # [O19]
    arguments = judgement.arguments.decode()
    challenge = Challenge(
        iss=gate.workload.id,
        iat=now,
        exp=round(min(now + wait, last), 3),  # [O19]
        request=request.jti,
        request_digest=authorized.request.digest,
        grant=request.grant,
        sub=grant.sub,
        act=grant.act,
        namespace=request.namespace,
        workflow_id=request.workflow_id,
        workflow_type=request.workflow_type,
        original_run_id=request.original_run_id,
        task_queue=request.task_queue,
        activity_type=request.activity_type,
        args=request.args,
        arguments=arguments if len(arguments) <= _MAX_ARGUMENTS else None,
        needs=tuple(needs),
        keys=tuple(anchor.kid for anchor in keys[:_MAX_KEYS]),
        policies=tuple(ref.id for ref in judgement.policies),
        reason=judgement.reason[:400] if judgement.reason else None,
        bundle=judgement.bundle,
    )
    try:
        return gate.workload.sign(challenge)
    except ValueError:
        return gate.workload.sign(challenge.model_copy(update={"arguments": None}))


async def _renewal(attempt: Attempt) -> Offer:
    authority, tokens = attempt.gate.authority, read_activity_header(attempt.headers)
    if authority is None or tokens is None:  # [Z6]
        return Offer("This worker has no authority that could renew it")
    try:
        grant = await authority.renew_grant(RenewalOrder(attempt.info.namespace, tuple(tokens)))
    except AuthorizationDenied as err:
        return Offer(f"It was not renewed: {err.message}")
    return Offer("It was renewed", {"renewal": grant})


def renewable(attempt: Attempt, error: StatementError, now: float) -> bool:
    """Z6: whether it was refused only because its grant has ended, and the authority may renew that."""
    authorized = attempt.authorized
    if error.rule != "G4" or authorized is None or not answerable(attempt):
        return False
    until = authorized.chain.grant.claims.renew_until
    return until is not None and authorized.chain.expires <= now < until
