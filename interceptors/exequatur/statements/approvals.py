"""Have the people that a policy asks for agreed to this very request? Challenges and approvals, from bytes alone.

A *challenge* is the gate's: it would let one request pass if these people agreed. An *approval* is what one of them
decided, signed by the authority. Pure: only where a time is passed in does a clock decide. Rules, numbered as the code
marks them (V, T and C are those of :mod:`exequatur.statements.jws`, :mod:`~exequatur.statements.trust` and
:mod:`~exequatur.statements.verification`):

O1  A challenge is signed by a worker in the role ``receipt``, for the namespace, task queue and activity type that it
    names (C1 to C7).
O2  It ends after it was issued.
O3  It has not ended (only with a clock).
O4  It names each group once, and no more people than an activity's header has room for.
O5  An approval is signed by an anchor for approvals, one that the challenge names.
O6  Its audience is this trust domain, cluster and namespace.
O7  It is for this challenge, and names the same request, workflow, run, activity type and arguments.
O8  It is given for groups that the challenge asks for, and for at least one.
O9  It was given while the challenge was open, and ends after that, but no later than its groups' ``ttl`` allows.
O10  It has not ended (only with a clock).
O11  Each person counts once for a group, and only for as long as that group's ``ttl``; a group has agreed when its
     quorum has.
O12  Approvals come to the gate with the one challenge that they are for, which the request says that it answers.
O13  That challenge is of the same run and principal, and of the same activity with the same arguments and queue.
O14  All of them approve, and they are no more than :data:`MAX_APPROVALS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import Approval, Challenge, Needed, Request
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain, Credentials, Scope

APPROVAL_SIGNAL = "exequatur.approval"
"""The signal that brings an approval to a run; its one argument is the compact token. It proves itself."""
CHALLENGES_MEMO = "exequatur.challenges"
"""The field of a run's memo that lists its open challenges, each a mapping of ``challenge`` and ``credential``."""
MAX_APPROVALS = 24
"""What all quorums of a challenge add up to at most: so many approvals fit into an activity's header."""
SKEW = 60.0
"""Seconds that the clocks of the worker that challenges and of the authority may be apart."""


def verify_challenge(
    text: str, credential: str, trust: TrustStore, *, site: str, now: float | None = None
) -> Token[Challenge]:
    """Verify a challenge.

    Args:
        text: Compact token.
        credential: That of the worker that signed it.
        trust: The anchors.
        site: This trust domain and cluster, as ``domain/cluster``.
        now: Seconds since 1970; without it, a challenge that has ended is taken for what it says.

    Raises:
        UnknownKeyError: The trust store does not know the key that signed the credential: not a verdict.
        StatementError: V, T, C, O1 to O4.
    """
    credentials = Credentials(trust)
    credentials.add(credential)
    return verify_challenge_among(text, credentials, site=site, now=now)


def verify_challenge_among(
    text: str, credentials: Credentials, *, site: str, now: float | None = None
) -> Token[Challenge]:
    """Verify a challenge whose worker's credential is one of those that came along; as :func:`verify_challenge`.

    Raises:
        StatementError: V, C2 to C7, O1 to O4.
    """
    token = parse(text, Challenge)
    claims = token.claims
    credentials.verify(token, "receipt", Scope(site, claims.namespace, claims.task_queue, claims.activity_type))  # [O1]
    if not claims.iat < claims.exp:
        raise StatementError("O2", "The challenge ends before it begins")
    if now is not None and now >= claims.exp:
        raise StatementError("O3", f"The challenge ended {now - claims.exp:.0f} s ago; nobody can answer it any more")
    check_needs(claims.needs)  # [O4]
    return token


def check_needs(needs: Sequence[Needed]) -> None:
    """Check that what is asked of people can be answered.

    Raises:
        StatementError: O4.
    """
    if len({need.group for need in needs}) != len(needs):
        raise StatementError("O4", "The challenge names a group twice")
    people = sum(need.quorum for need in needs)
    if people > MAX_APPROVALS:
        raise StatementError(
            "O4", f"{people} people would have to agree, and an activity carries {MAX_APPROVALS} approvals"
        )


def verify_approval(
    text: str, challenge: Token[Challenge], trust: TrustStore, *, aud: str, now: float | None = None
) -> Token[Approval]:
    """Verify one person's decision about a challenge, whichever it is.

    Args:
        text: Compact token.
        challenge: Verified.
        trust: The anchors.
        aud: This trust domain, cluster and namespace.
        now: Seconds since 1970; without it, an approval that has ended is taken for what it says.

    Raises:
        UnknownKeyError: The challenge names the key that signed it, and the trust store does not know it: not a
            verdict.
        StatementError: V, T, O5 to O10.
    """
    token = parse(text, Approval)
    claims, asked = token.claims, challenge.claims
    if token.kid not in asked.keys:  # [O5]
        raise StatementError("O5", "The approval is signed with a key that its challenge does not name")
    trust.verify(token)  # [O5]
    if claims.aud != aud:
        raise StatementError("O6", f"The approval is for {claims.aud}, not for {aud}")
    if claims.challenge != challenge.digest:
        raise StatementError("O7", "The approval is for another challenge")
    for name in ("request", "workflow_id", "original_run_id", "activity_type", "args"):
        if getattr(claims, name) != getattr(asked, name):
            raise StatementError("O7", f"The approval names another {name.replace('_', ' ')} than its challenge")
    spans = {need.group: need.ttl for need in asked.needs}
    if not claims.groups or not set(claims.groups) <= set(spans):
        raise StatementError("O8", f"{claims.sub} is not of a group that the challenge asks for")
    if not asked.iat - SKEW <= claims.iat <= asked.exp:
        raise StatementError("O9", "The approval was not given while the challenge was open")
    if not claims.iat < claims.exp <= claims.iat + max(spans[group] for group in claims.groups) + 1:
        raise StatementError("O9", "The approval ends before it begins, or counts for longer than it may")
    if now is not None and now >= claims.exp:
        raise StatementError("O10", f"The approval of {claims.sub} ended {now - claims.exp:.0f} s ago")
    return token


def satisfied(
    challenge: Challenge, approvals: Iterable[Approval], *, now: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Count who has agreed.

    Args:
        challenge: Verified.
        approvals: Verified against it; rejections among them do not count.
        now: Seconds since 1970.

    Returns:
        The groups whose quorum is reached, and all people who have agreed and still count, both sorted.
    """
    counted = [(group, sub) for group, sub, ends in _counting(challenge, approvals) if now < ends]
    groups = [
        need.group
        for need in challenge.needs
        if len({sub for group, sub in counted if group == need.group}) >= need.quorum  # [O11]
    ]
    return tuple(sorted(groups)), tuple(sorted({sub for _, sub in counted}))


def lasts_until(challenge: Challenge, approvals: Iterable[Approval], *, now: float) -> float:
    """Until when the count stays as it is now, in seconds since 1970; infinity where nobody counts.

    Args:
        challenge: As for :func:`satisfied`, as are the others.
        approvals: See there.
        now: See there.
    """
    return min((ends for _, _, ends in _counting(challenge, approvals) if now < ends), default=float("inf"))


def _counting(challenge: Challenge, approvals: Iterable[Approval]) -> list[tuple[str, str, float]]:
    """O11: for which group who counts, until when."""
    spans = {need.group: need.ttl for need in challenge.needs}
    return [
        (group, each.sub, min(each.exp, each.iat + spans[group]))
        for each in approvals
        if each.verdict == "approve"  # [O11]
        for group in dict.fromkeys(each.groups)
        if group in spans
    ]


def enough(challenge: Challenge, approvals: Iterable[Token[Approval]], *, now: float) -> list[Token[Approval]]:
    """As few approvals as each quorum takes, those that last longest.

    Args:
        challenge: As for :func:`satisfied`, as are the others.
        approvals: One of each person.
        now: See there.
    """
    by_person = {each.claims.sub: each for each in approvals}
    chosen: set[str] = set()
    for need in challenge.needs:
        lasting = [
            (-ends, sub)
            for group, sub, ends in _counting(challenge, (each.claims for each in by_person.values()))
            if group == need.group and now < ends
        ]
        chosen |= {sub for _, sub in sorted(lasting)[: need.quorum]}
    return [by_person[sub] for sub in sorted(chosen)]


@dataclass(frozen=True)
class Agreement:
    """What came with a request besides the chain: a challenge and who approves."""

    challenge: Token[Challenge]
    approvals: tuple[Token[Approval], ...]


def verify_agreement(
    tokens: Sequence[str], request: Request, chain: Chain, credentials: Credentials, trust: TrustStore
) -> Agreement | None:
    """Verify the challenge and the approvals in an activity's header, without a clock.

    Args:
        tokens: Of the header.
        request: Verified.
        chain: That it stands on, verified.
        credentials: Those that came along.
        trust: The anchors.

    Returns:
        ``None`` where there are none.

    Raises:
        StatementError: V, T, C, O1, O2, O4 to O9, O12 to O14.
    """
    kinds = [type_of(token) for token in tokens]
    challenges = [token for token, kind in zip(tokens, kinds, strict=True) if kind == Challenge.typ]
    texts = [token for token, kind in zip(tokens, kinds, strict=True) if kind == Approval.typ]
    if not challenges and not texts:
        return None
    if len(challenges) != 1:
        raise StatementError("O12", "Approvals must come with the one challenge that they are for")
    challenge = verify_challenge_among(challenges[0], credentials, site=chain.site)
    asked = challenge.claims
    if request.answers != asked.request:
        raise StatementError("O12", "The request does not say that it answers the challenge that came along")
    for name in (
        "namespace",
        "workflow_id",
        "workflow_type",
        "original_run_id",
        "task_queue",
        "activity_type",
        "args",
    ):
        if getattr(asked, name) != getattr(request, name):
            raise StatementError("O13", f"The challenge is for another {name.replace('_', ' ')}")
    if asked.sub != chain.grant.claims.sub:
        raise StatementError("O13", "The challenge is for another principal")
    if len(texts) > MAX_APPROVALS:
        raise StatementError("O14", f"There are {len(texts)} approvals; {MAX_APPROVALS} are allowed")
    approvals = tuple(verify_approval(text, challenge, trust, aud=chain.grant.claims.aud) for text in texts)
    if any(each.claims.verdict != "approve" for each in approvals):
        raise StatementError("O14", "Somebody has rejected what was asked for")
    return Agreement(challenge, approvals)
