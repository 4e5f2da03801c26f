"""Does what came along authorize this very Nexus operation? The bindings that the handler's gate checks.

A workflow sends its chain and a statement about this one operation; a client that starts an operation by itself sends
a permit. Pure: the gate passes in what Temporal says. Rules, numbered as the code marks them (C, D, G are those of
:mod:`exequatur.statements.verification`, V and T those of :mod:`exequatur.statements.jws` and
:mod:`exequatur.statements.trust`):

N21  There is one permit; or a grant first, the call last, and between them delegations and credentials, nothing else.
N22  Grant and delegations verify (C, D, G1 to G3), or the permit does, for this trust domain and cluster. The
     namespace is the caller's, which need not be the handler's: whether it may call is for Cedar.
N23  The call is signed by a worker in the role ``request`` (C1 to C7), credentialed for the caller's namespace.
N24  It names the leaf of the chain that came along.
N25  The leaf is for the workflow and namespace that the call names, and for its type or one that it may continue as.
N26  It is for this endpoint, service and operation.
N27  The input is that whose digest was signed.
N28  The server says that it comes from the very run, or the very operation, that it names.
N29  The workflow worker found the start covered by the grant.
N30  The leaf allows the operation among its activity types, as ``nexus:service/operation``.
N31  What came along has begun and has not ended (only with a clock).

A request to cancel repeats the headers of the start and brings neither input nor origin, so N27 and N28 are not asked
for it. It begins nothing, so it may come until the grant could have been renewed; a permit bounds the start only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from exequatur.errors import StatementError
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import Delegation, Grant, NexusCall, Permit, WorkloadCredential
from exequatur.statements.requests import Held, held_under
from exequatur.statements.standalone import standalone_id
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import (
    Chain,
    Credentials,
    Scope,
    matches,
    site_of,
    verify_chain,
)


@dataclass(frozen=True)
class Origin:
    """Where the server says that a start comes from: a workflow's run, or an operation that stands by itself."""

    namespace: str
    workflow_id: str | None
    operation_id: str | None
    run_id: str


@dataclass(frozen=True)
class Start:
    """What only a start brings.

    Args:
        args: Digest of the input's payload as this worker got it.
        origins: Of the request, as the server linked them.
    """

    args: str
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Operation:
    """What Temporal says about a request to a handler.

    Args:
        endpoint: That it was addressed to.
        service: Of the operation.
        operation: Its name.
        start: ``None`` for a request to cancel.
    """

    endpoint: str
    service: str
    operation: str
    start: Start | None

    @property
    def name(self) -> str:
        """What stands for an activity type, in grants, restrictions, revocations and settings."""
        return f"nexus:{self.service}/{self.operation}"


@dataclass(frozen=True)
class Called:
    """A verified call with the chain that it stands on, or a verified permit."""

    statement: Token[NexusCall] | Token[Permit]
    vouched: Grant | Permit
    """What names the principal."""
    chain: Chain | None = None

    @property
    def namespace(self) -> str:
        return self.vouched.aud.rpartition("/")[2]

    @property
    def workflow_id(self) -> str:
        """The caller's; empty where no workflow calls."""
        claims = self.statement.claims
        return claims.workflow_id if isinstance(claims, NexusCall) else ""

    @property
    def workflow_type(self) -> str:
        claims = self.statement.claims
        return claims.workflow_type if isinstance(claims, NexusCall) else ""

    @property
    def run_id(self) -> str:
        claims = self.statement.claims
        return claims.run_id if isinstance(claims, NexusCall) else ""

    @property
    def first_run_id(self) -> str:
        claims = self.statement.claims
        return claims.first_run_id if isinstance(claims, NexusCall) else ""

    @property
    def resource_id(self) -> str:
        """The workflow's id, or what stands for it."""
        claims = self.statement.claims
        return claims.workflow_id if isinstance(claims, NexusCall) else standalone_id(claims.target)

    @property
    def held(self) -> Held | None:
        """What it is held to; ``None`` where nothing restricts it."""
        claims = self.statement.claims
        if self.chain is None or not isinstance(claims, NexusCall):
            return None
        return held_under(self.chain.authorization, claims.restriction)


def verify_operation(
    tokens: Sequence[str], asked: Operation, trust: TrustStore, *, site: str, max_depth: int
) -> Called:
    """Verify what the headers of a Nexus operation hold against the request that they came with.

    Args:
        tokens: Compact tokens in the header's order.
        asked: What Temporal says.
        trust: The anchors.
        site: This trust domain and cluster.
        max_depth: How many delegations are allowed.

    Raises:
        UnknownKeyError: The trust store does not know the key of the grant or permit.
        StatementError: N21 to N30, and the rules that they rest on.
    """
    kinds = [type_of(token) for token in tokens]
    if kinds == [Permit.typ]:
        return _verify_permit(tokens[0], asked, trust, site)
    if len(kinds) < 2 or kinds[0] != Grant.typ or kinds[-1] != NexusCall.typ:
        raise StatementError("N21", "The authorization must be a permit, or begin with a grant and end with a call")
    if not set(kinds[1:-1]) <= {Delegation.typ, WorkloadCredential.typ}:
        raise StatementError("N21", "The authorization holds a statement that does not belong there")
    credentials = Credentials(trust)
    for token, kind in zip(tokens, kinds, strict=True):
        if kind == WorkloadCredential.typ:
            credentials.add(token)
    delegations = [token for token, kind in zip(tokens, kinds, strict=True) if kind == Delegation.typ]
    chain = verify_chain(tokens[0], delegations, credentials, trust, aud=None, max_depth=max_depth)  # N22
    if chain.site != site:  # [N22]
        raise StatementError("N22", f"The grant is for {chain.site}, not for {site}")
    call = parse(tokens[-1], NexusCall)
    claims, leaf = call.claims, chain.authorization
    credentials.verify(call, "request", Scope(site, namespace=chain.namespace))  # [N23]
    if claims.grant != chain.leaf.digest:
        raise StatementError("N24", "The call stands on another grant or delegation than the one that came along")
    if claims.namespace != chain.namespace or not leaf.is_for(claims.workflow_id):
        raise StatementError("N25", f"The grant is for workflow {leaf.workflow_id} in {chain.namespace}")
    if claims.workflow_type not in (leaf.workflow_type, *leaf.continues_as):
        raise StatementError("N25", f"The grant is for workflow type {leaf.workflow_type}, not {claims.workflow_type}")
    if (claims.endpoint, claims.service, claims.operation) != (asked.endpoint, asked.service, asked.operation):
        raise StatementError("N26", "The call is for another operation, service or endpoint")
    _check_start(
        asked.start,
        claims.args,
        Origin(claims.namespace, workflow_id=claims.workflow_id, operation_id=None, run_id=claims.run_id),
    )
    if claims.start_fault is not None:
        raise StatementError("N29", f"The start of the run is not covered by its grant: {claims.start_fault}")
    if not matches(asked.name, leaf.activities):
        raise StatementError("N30", f"The grant does not allow {asked.name}")
    return Called(call, chain.grant.claims, chain)


def _verify_permit(text: str, asked: Operation, trust: TrustStore, site: str) -> Called:
    permit = parse(text, Permit)
    claims = permit.claims
    trust.verify(permit)  # [N22]
    if site_of(claims.aud) != site:
        raise StatementError("N22", f"The permit is for {claims.aud}, not for {site}")
    named = (claims.kind, claims.endpoint, claims.service, claims.name)
    if named != ("nexus", asked.endpoint, asked.service, asked.operation):
        raise StatementError("N26", "The permit is for another operation, service or endpoint, or for something else")
    run_id = asked.start.origins[0].run_id if asked.start and asked.start.origins else ""  # not known beforehand
    namespace = claims.aud.rpartition("/")[2]
    _check_start(
        asked.start, claims.args, Origin(namespace, workflow_id=None, operation_id=claims.target, run_id=run_id)
    )
    return Called(permit, claims)


def _check_start(start: Start | None, args: str, origin: Origin) -> None:
    """N27 and N28."""
    if start is None:
        return
    if start.args != args:
        raise StatementError("N27", "The input is not the one that was signed")
    if not start.origins or any(each != origin for each in start.origins):
        raise StatementError("N28", "The server says that the operation comes from somewhere else, or does not say it")


def check_times(called: Called, now: float, leeway: float, *, starts: bool) -> None:
    """Check that a call or permit, and what it stands on, has begun and not ended.

    Args:
        called: Verified.
        now: Seconds since 1970.
        leeway: How far the clocks may differ, in seconds. It never prolongs.
        starts: Whether the operation is to be started, not cancelled.

    Raises:
        StatementError: N31.
    """
    claims, chain = called.statement.claims, called.chain
    begins, ends = claims.iat, claims.exp if starts else math.inf
    if chain is not None:
        grant = chain.grant.claims
        begins = max(begins, grant.nbf, grant.iat)
        ends = min(ends, chain.expires if starts else max(chain.expires, grant.renew_until or 0))
    if now + leeway < begins:  # [N31]
        raise StatementError("N31", f"It begins {begins - now:.0f} s from now; check the clocks")
    if now >= ends:  # [N31]
        raise StatementError("N31", f"It ended {now - ends:.0f} s ago; start the operation or the workflow again")
