"""Who may have said it, and does it hang together: credentials, grants, delegations, seals and heartbeat marks.

Pure functions over bytes: no clock, no file, no network. What is recorded decides, so the same bytes always get the
same answer; only :func:`check_current` takes a time. Rules V are in :mod:`exequatur.statements.jws`, T in
:mod:`exequatur.statements.trust`.

Credential, for a statement that a worker signed:

C1  The credential is signed by an anchor for credentials.
C2  It is for the same trust domain and cluster.
C3  The statement was issued while it was valid.
C4  The statement is signed with the key that it confirms (RFC 7800).
C5  It gives the role that the statement needs.
C6  It covers the namespace, the task queue and the activity type.
C7  The statement's ``iss`` is its ``sub``.

Grant and delegations:

G1  The grant is signed by an anchor for grants.
G2  Its audience is this trust domain, cluster and namespace.
G3  Its times are in order.
G4  It has begun and has not ended (only with a clock).
D1  A delegation is signed by a worker in the role ``delegate`` (C1 to C7).
D2  It names the digest of the token before it.
D3  Its depth is its place, within the bound.
D4  It allows no activity that the one before does not allow.
D5  It ends no later than the one before. Under a grant that cannot be renewed it was issued before it ends.
D6  Its audience is the grant's.
D7  It repeats everything that the one before forbids.
D8  What ends for good under the one before ends no later under it.

Seal, on a run that continues another:

S1  It is signed by a worker in the role ``seal`` (C1 to C7).
S2  It seals a run of the same workflow under the same leaf, as continued.
S3  It names this run's type and task queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, check_signature, parse
from exequatur.statements.keys import thumbprint
from exequatur.statements.models import (
    Challenge,
    Delegation,
    Grant,
    HeartbeatMark,
    Message,
    NexusCall,
    Receipt,
    Request,
    Role,
    Seal,
    WorkflowAuthorization,
    WorkloadCredential,
)
from exequatur.statements.trust import TrustStore

W = TypeVar("W", Delegation, Request, Receipt, Seal, HeartbeatMark, Message, NexusCall, Challenge)

MAX_DEPTH = 64


def audience(trust_domain: str, cluster: str, namespace: str) -> str:
    """The ``aud`` of a grant."""
    return f"{trust_domain}/{cluster}/{namespace}"


def site_of(aud: str) -> str:
    """The trust domain and cluster of a grant's audience, which is the ``aud`` of a credential."""
    return aud.rpartition("/")[0]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of the shell patterns."""
    return any(pattern in (name, "*") or fnmatchcase(name, pattern) for pattern in patterns)


def covers(wider: Iterable[str], narrower: Iterable[str]) -> bool:
    """Whether every pattern of ``narrower`` is certain to match only what ``wider`` matches.

    A pattern with wildcards is covered by ``*`` and by itself only: comparing patterns in general is a guess.
    """
    wider = tuple(wider)
    return all(
        pattern in wider or "*" in wider or (not set(pattern) & set("*?[") and matches(pattern, wider))
        for pattern in narrower
    )


def narrowed(these: Iterable[str], those: Iterable[str]) -> tuple[str, ...]:
    """The patterns that are certain to match only what both match.

    What two patterns with wildcards might both match is left out where neither covers the other.
    """
    these, those = tuple(these), tuple(those)
    both = [pattern for pattern in those if covers(these, [pattern])]
    return tuple(dict.fromkeys([*both, *(pattern for pattern in these if covers(those, [pattern]))]))


@dataclass(frozen=True)
class Scope:
    """Where a worker acted; ``None`` where the verifier cannot know."""

    site: str
    namespace: str | None = None
    task_queue: str | None = None
    activity_type: str | None = None


class Credentials:
    """Workload credentials that came along, by the key that they confirm.

    A worker renews its credential and keeps its key, so there may be several for one key, each for its own time.
    """

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._by_kid: dict[str, list[Token[WorkloadCredential]]] = {}

    def add(self, text: str) -> Token[WorkloadCredential]:
        """Verify a credential and keep it.

        Raises:
            UnknownKeyError: The trust store does not know the key that signed it.
            StatementError: V1 to V7, T2 to T4, C1.
        """
        token = parse(text, WorkloadCredential)
        claims = token.claims
        self._trust.verify(token)  # [C1]
        held = self._by_kid.setdefault(thumbprint(claims.cnf.jwk.x), [])
        if token not in held:
            held.append(token)
        return token

    def latest(self, count: int) -> list[Token[WorkloadCredential]]:
        """The credentials of the last keys that were added."""
        return [held[-1] for held in self._by_kid.values()][-count:]

    def of(self, kid: str, at: float) -> list[WorkloadCredential]:
        """The credentials of a key that were valid at a time.

        Args:
            kid: Of the worker's key.
            at: Seconds since 1970.
        """
        return [each.claims for each in self._by_kid.get(kid, ()) if each.claims.nbf <= at <= each.claims.exp]

    def verify(self, token: Token[W], role: Role, scope: Scope) -> Token[W]:
        """Check a statement that a worker signed.

        Raises:
            StatementError: V7, C2 to C7.
        """
        kind = type(token.claims).__name__
        held = self._by_kid.get(token.kid)
        if held is None:
            raise StatementError("C4", f"{kind} came without a credential for the key that signed it")
        then = [each for each in held if each.claims.nbf <= token.claims.iat <= each.claims.exp]
        claims = (then or held)[-1].claims
        if claims.aud != scope.site:
            raise StatementError("C2", f"The credential behind {kind} is for {claims.aud}, not for {scope.site}")
        if not claims.nbf <= token.claims.iat <= claims.exp:
            raise StatementError("C3", f"{kind} was issued when its worker's credential was not valid")
        if role not in claims.roles:
            raise StatementError("C5", f"{claims.sub} has no role {role}, which {kind} needs")
        for name, patterns, what in (
            (scope.namespace, claims.namespaces, "namespace"),
            (scope.task_queue, claims.task_queues, "task queue"),
            (scope.activity_type, claims.activities, "activity type"),
        ):
            if name is not None and not matches(name, patterns):
                raise StatementError("C6", f"The credential of {claims.sub} does not cover {what} {name}")
        if token.claims.iss != claims.sub:
            raise StatementError("C7", f"{kind} names another issuer than its worker's credential")
        check_signature(token, claims.cnf.jwk.x)
        return token


@dataclass(frozen=True)
class Chain:
    """A verified grant with the delegations under it."""

    grant: Token[Grant]
    delegations: tuple[Token[Delegation], ...] = ()

    @property
    def leaf(self) -> Token[Grant] | Token[Delegation]:
        return self.delegations[-1] if self.delegations else self.grant

    @property
    def authorization(self) -> WorkflowAuthorization:
        return self.leaf.claims.authorization

    def handed_down_by(self, workflow_id: str) -> bool:
        """Whether the leaf was handed down by this workflow; without delegations, whether the grant is for it."""
        before = self.delegations[-2] if len(self.delegations) > 1 else self.grant
        return before.claims.authorization.is_for(workflow_id)

    @property
    def handovers(self) -> list[tuple[Token[Grant] | Token[Delegation], Token[Delegation]]]:
        """Each delegation, and before it the token that it stands on."""
        before: list[Token[Grant] | Token[Delegation]] = [self.grant, *self.delegations]
        return list(zip(before, self.delegations, strict=False))

    @property
    def expires(self) -> float:
        return self.leaf.claims.exp

    @property
    def site(self) -> str:
        return site_of(self.grant.claims.aud)

    @property
    def namespace(self) -> str:
        return self.grant.claims.aud.rpartition("/")[2]


def verify_chain(
    grant: str,
    delegations: Sequence[str],
    credentials: Credentials,
    trust: TrustStore,
    *,
    aud: str | None,
    max_depth: int = MAX_DEPTH,
) -> Chain:
    """Verify a grant and the delegations under it, root first.

    Args:
        grant: Compact token.
        delegations: Compact tokens.
        credentials: Those that came along.
        trust: The anchors.
        aud: Where it must be for, or ``None`` where only the recorded bytes may decide.
        max_depth: How many delegations are allowed.

    Raises:
        UnknownKeyError: The trust store does not know the key of the grant.
        StatementError: V, T, C, G1 to G3, D1 to D8.
    """
    root = parse(grant, Grant)
    claims = root.claims
    trust.verify(root)  # [G1]
    if claims.aud.count("/") != 2 or (aud is not None and claims.aud != aud):
        raise StatementError("G2", f"The grant is for {claims.aud}, not for {aud}")
    if not (claims.nbf < claims.exp and claims.iat <= claims.start_by <= claims.exp):
        raise StatementError("G3", "The times of the grant are not in order")
    if len(delegations) > max_depth:
        raise StatementError("D3", f"There are {len(delegations)} delegations; {max_depth} are allowed")
    chain = Chain(root)
    for text in delegations:
        token = parse(text, Delegation)
        scope = Scope(chain.site, namespace=chain.namespace)
        credentials.verify(token, "delegate", scope)  # [D1]
        before, after = chain.leaf, token.claims
        if after.parent != before.digest:
            raise StatementError("D2", "A delegation does not follow the token before it")
        if after.depth != len(chain.delegations) + 1:
            raise StatementError("D3", "A delegation is not at the depth that it names")
        if not covers(chain.authorization.activities, after.authorization.activities):
            raise StatementError("D4", "A delegation allows an activity that its parent does not hold")
        # The run of a renewable grant may have slept past its end; its child has its own renewed.
        if after.exp > before.claims.exp or (after.iat > after.exp and claims.renew_until is None):
            raise StatementError("D5", "A delegation outlives its parent")
        if after.aud != claims.aud:
            raise StatementError("D6", "A delegation is for another place than its grant")
        held, given = chain.authorization, after.authorization
        if not set(held.forbid) <= set(given.forbid):
            raise StatementError("D7", "A delegation leaves out what is forbidden to its parent")
        if held.until is not None and (given.until is None or given.until > held.until):
            raise StatementError("D8", "A delegation goes on after the end that its parent is restricted to")
        chain = Chain(root, (*chain.delegations, token))
    return chain


def check_current(chain: Chain, now: float, leeway: float) -> None:
    """Check that a chain has begun and not ended.

    Args:
        chain: Verified.
        now: Seconds since 1970.
        leeway: How far the clocks may differ, in seconds. It never prolongs: an ended grant has ended.

    Raises:
        StatementError: G4.
    """
    claims = chain.grant.claims
    if now + leeway < max(claims.nbf, claims.iat):
        raise StatementError("G4", f"The grant begins {claims.nbf - now:.0f} s from now; check the clocks")
    if now >= chain.expires:
        raise StatementError("G4", f"The grant ended {now - chain.expires:.0f} s ago; start the workflow again")


def verify_seal(
    text: str, credentials: Credentials, chain: Chain, *, workflow_type: str, task_queue: str | None = None
) -> Token[Seal]:
    """Verify the seal of the run that this one continues.

    Args:
        text: Compact token.
        credentials: Those that came along.
        chain: The verified chain that came along.
        workflow_type: Of the continuing run.
        task_queue: Of the continuing run; ``None`` where it is not known.

    Raises:
        StatementError: V, C, S1 to S3.
    """
    token = parse(text, Seal)
    credentials.verify(token, "seal", Scope(chain.site, namespace=chain.namespace))  # [S1]
    claims = token.claims
    if (
        claims.grant != chain.leaf.digest
        or not chain.authorization.is_for(claims.workflow_id)
        or claims.outcome != "continued"
    ):
        raise StatementError("S2", "The seal is not of a run that this one continues")
    if claims.next is None or claims.next.workflow_type != workflow_type:
        raise StatementError("S3", "The seal names another workflow type for the next run")
    if task_queue is not None and claims.next.task_queue != task_queue:
        raise StatementError("S3", "The seal names another task queue for the next run")
    return token
