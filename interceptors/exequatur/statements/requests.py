"""Does this grant and request authorize this very activity task? The bindings that the gate checks.

Pure: the gate passes in what Temporal says about the task. Rules, numbered as the code marks them (C, D, G are those of
:mod:`exequatur.statements.verification`):

R1   The header holds a grant first, a request last, and between them delegations and credentials, and a challenge with
     approvals (rules O of :mod:`exequatur.statements.approvals`), nothing else.
R2   Grant and delegations verify (C, D, G1 to G3) for this namespace.
R3   The request is signed by a worker in the role ``request`` (C1 to C7).
R4   Its ``jti`` is the hash of its core.
R5   It names the leaf of the chain that came along.
R6   It is for this workflow id, workflow type and activity type, in this namespace.
R7   The leaf is for this workflow id, or for a schedule that gives its runs such ids, and for this workflow type or one
     that it may continue as.
R8   The leaf allows this activity type.
R9   The arguments are those whose digest was signed.
R10  It is for this task queue.
R11  It is for this activity id, where the workflow set one.
R12  A request for a local activity is used for one, and no other.
R13  The task was scheduled within the bound of the time that the request was made at. That of a local activity may be
     made anew long after, when the workflow was replayed.
R14  The workflow worker found the start covered by the grant.
R15  A request from before a reset is told apart (the gate then asks Cedar for the action ``reset``).
R16  It is held to what its own restriction says and to what its leaf forbids and ends, all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from exequatur.errors import StatementError
from exequatur.statements.approvals import Agreement, verify_agreement
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import (
    Approval,
    Challenge,
    Delegation,
    Grant,
    Request,
    RequestCore,
    Restriction,
    WorkflowAuthorization,
    WorkloadCredential,
)
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain, Credentials, Scope, matches, verify_chain


@dataclass(frozen=True)
class Task:
    """What Temporal says about an activity task."""

    namespace: str
    workflow_id: str
    workflow_type: str
    run_id: str
    activity_id: str
    activity_type: str
    task_queue: str
    scheduled: float
    """Seconds since 1970; the same for all attempts."""
    args: str
    """Digest of the arguments' payloads as this worker got them."""
    local: bool


@dataclass(frozen=True)
class Held:
    """What a request is held to, whatever the policies in force permit.

    Args:
        activities: Patterns of activity types; ``None`` for all that the leaf allows.
        until: Seconds since 1970.
        forbid: Cedar texts.
    """

    activities: tuple[str, ...] | None = None
    until: float | None = None
    forbid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Authorized:
    """A verified request with the chain that it stands on."""

    chain: Chain
    request: Token[Request]
    after_reset: bool
    """The request was made by a run that has since been reset to this one."""
    agreement: Agreement | None = None
    """The challenge that it answers and the approvals that came along; whether they still count is to be judged."""

    @cached_property
    def held(self) -> Held | None:
        """R16; ``None`` where nothing restricts it."""
        return held_under(self.chain.authorization, self.request.claims.restriction)


def held_under(leaf: WorkflowAuthorization, restriction: Restriction | None) -> Held | None:
    """What a leaf and the run's own restriction come to; ``None`` where nothing restricts."""
    asked = restriction or Restriction()
    held = Held(
        asked.activities,
        min((each for each in (leaf.until, asked.until) if each is not None), default=None),  # R16
        tuple(dict.fromkeys([*leaf.forbid, *asked.forbid])),  # R16
    )
    return None if held == Held() else held


def core_of(request: Request) -> RequestCore:
    """The replayed part of a request."""
    return RequestCore(**{name: getattr(request, name) for name in RequestCore.model_fields})


def split(tokens: Sequence[str]) -> tuple[str, list[str], list[str], str]:
    """Sort the tokens of an activity header into grant, delegations, credentials and request.

    Raises:
        StatementError: R1, V2, V3.
    """
    kinds = [type_of(token) for token in tokens]
    if len(kinds) < 2 or kinds[0] != Grant.typ or kinds[-1] != Request.typ:
        raise StatementError("R1", "The authorization header must begin with a grant and end with a request")
    if not set(kinds[1:-1]) <= {Delegation.typ, WorkloadCredential.typ, Challenge.typ, Approval.typ}:
        raise StatementError("R1", "The authorization header holds a statement that does not belong there")
    return (
        tokens[0],
        [token for token, kind in zip(tokens, kinds, strict=True) if kind == Delegation.typ],
        [token for token, kind in zip(tokens, kinds, strict=True) if kind == WorkloadCredential.typ],
        tokens[-1],
    )


def verify_request(
    tokens: Sequence[str], task: Task, trust: TrustStore, *, aud: str, max_depth: int, schedule_bound: float
) -> Authorized:
    """Verify what an activity header holds against the task that it came with.

    Args:
        tokens: Compact tokens in the header's order.
        task: What Temporal says.
        trust: The anchors.
        aud: This trust domain, cluster and namespace.
        max_depth: How many delegations are allowed.
        schedule_bound: See R13, in seconds.

    Raises:
        StatementError: R1 to R14, O, and the rules that they rest on.
    """
    authorized = read_request(tokens, task, trust, aud=aud, max_depth=max_depth, schedule_bound=schedule_bound)
    if not allows(authorized.chain, task.activity_type):
        raise StatementError("R8", f"The grant does not allow activity {task.activity_type}")
    return authorized


def allows(chain: Chain, activity_type: str) -> bool:
    """R8."""
    return matches(activity_type, chain.authorization.activities)


def read_request(
    tokens: Sequence[str], task: Task, trust: TrustStore, *, aud: str, max_depth: int, schedule_bound: float
) -> Authorized:
    """Verify who asked for what, but not whether the grant allows it: as :func:`verify_request`, without R8.

    Raises:
        StatementError: R1 to R7 and R9 to R14, O, and the rules that they rest on.
    """
    grant, delegations, credential_texts, request_text = split(tokens)
    credentials = Credentials(trust)
    for text in credential_texts:
        credentials.add(text)
    chain = verify_chain(grant, delegations, credentials, trust, aud=aud, max_depth=max_depth)  # R2
    request = parse(request_text, Request)
    claims = request.claims
    credentials.verify(  # [R3]
        request, "request", Scope(chain.site, namespace=task.namespace)
    )
    if claims.jti != claims.hash():
        raise StatementError("R4", "The request's jti is not the hash of its core")
    if claims.grant != chain.leaf.digest:
        raise StatementError("R5", "The request stands on another grant or delegation than the one that came along")
    for name in ("namespace", "workflow_id", "workflow_type", "activity_type"):
        if getattr(claims, name) != getattr(task, name):
            raise StatementError("R6", f"The request is for another {name.replace('_', ' ')}")
    leaf = chain.authorization
    if not leaf.is_for(task.workflow_id):
        raise StatementError("R7", f"The grant is for workflow {leaf.workflow_id}, not for {task.workflow_id}")
    if task.workflow_type not in (leaf.workflow_type, *leaf.continues_as):
        raise StatementError("R7", f"The grant is for workflow type {leaf.workflow_type}, not {task.workflow_type}")
    if claims.args != task.args:
        raise StatementError("R9", "The arguments are not those that were requested")
    if claims.task_queue != task.task_queue:
        raise StatementError("R10", f"The request is for task queue {claims.task_queue}, not {task.task_queue}")
    if claims.activity_id is not None and claims.activity_id != task.activity_id:
        raise StatementError("R11", "The request is for another activity id")
    if claims.local != task.local:
        raise StatementError("R12", "A request for a local activity came with another activity, or the other way round")
    late = task.scheduled - claims.iat
    if late > schedule_bound or (-late > schedule_bound and not task.local):
        raise StatementError("R13", "The activity was scheduled too long before or after it was requested")
    if claims.start_fault is not None:
        raise StatementError("R14", f"The start of the run is not covered by its grant: {claims.start_fault}")
    agreement = verify_agreement(tokens, claims, chain, credentials, trust)
    return Authorized(chain, request, claims.run_id != task.run_id, agreement)  # R15
