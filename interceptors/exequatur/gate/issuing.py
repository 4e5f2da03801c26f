"""What the gate asks an authority for: grants, permits, renewals, approvals, and leave for what goes to the server.

An order says on whose behalf. An authority in this process is told the ``principal``, and who is ``acting`` for it. One
far away believes neither: it tells both from the ``credential``, or where there is none from how this process
identifies itself. Then the principal here is ``UNAUTHENTICATED`` and nobody is acting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from exequatur.identity.credential import Credential
from exequatur.identity.principal import Principal
from exequatur.identity.workload import CredentialOrder
from exequatur.statements.models import Actor, PermitKind, Reuse


@dataclass(frozen=True)
class GrantOrder:
    """What a client asks a grant for.

    Args:
        principal: On whose behalf.
        namespace: Temporal namespace.
        workflow_type: Workflow type.
        workflow_id: Workflow id; of a schedule, the id that the ids of its runs begin with.
        task_queue: The run's.
        input: Digest of the start arguments' payloads.
        reuse: How often the grant may be used.
        start_delay: Seconds.
        schedule: Id of the schedule that the grant is bound to.
        acting: Who acts for the principal.
        credential: What proves it.
    """

    principal: Principal
    namespace: str
    workflow_type: str
    workflow_id: str
    task_queue: str
    input: str
    reuse: Reuse
    start_delay: float
    schedule: str | None = None
    acting: Actor | None = None
    credential: Credential | None = None


@dataclass(frozen=True)
class PermitOrder:
    """What a client asks a permit for.

    Args:
        principal: On whose behalf.
        namespace: Temporal namespace.
        kind: What it does.
        target: Workflow id, activity id or Nexus operation id.
        name: Of the message, activity type, or name of the Nexus operation.
        args: Digest of the arguments' payloads.
        run_id: The one run that it is for.
        task_queue: Of an activity.
        endpoint: Of a Nexus operation, as is the service.
        service: See there.
        delay: Seconds until it can arrive at the earliest: the delay of the start that it goes with.
        acting: Who acts for the principal.
        credential: What proves it.
    """

    principal: Principal
    namespace: str
    kind: PermitKind
    target: str
    name: str
    args: str
    run_id: str | None = None
    task_queue: str | None = None
    endpoint: str | None = None
    service: str | None = None
    delay: float = 0.0
    acting: Actor | None = None
    credential: Credential | None = None


@dataclass(frozen=True)
class ActionOrder:
    """What a client asks leave for, because it goes straight to the server.

    Args:
        principal: On whose behalf.
        action: One of the gate's own Cedar actions, for example ``workflow.terminate``.
        workflow_id: Of the workflow that it is done to, or that a schedule starts; may be empty for an activity that
            stands by itself.
        facts: The context, without ``now``, as :data:`exequatur.policy.told.OWN_CONTEXTS` has it.
        record: What else the evidence is to say.
        acting: Who acts for the principal.
        credential: What proves it.
    """

    principal: Principal
    action: str
    workflow_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    acting: Actor | None = None
    credential: Credential | None = None


@dataclass(frozen=True)
class RenewalOrder:
    """What a gate asks a new grant for, when a run's has ended. The authority believes nothing but what is signed.

    Args:
        namespace: Temporal namespace.
        tokens: What an activity's header holds: the ended grant first, and last the request that stands on it.
    """

    namespace: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class ApprovalOrder:
    """What a person asks to have signed.

    Args:
        principal: Who decides.
        challenge: The compact challenge token.
        worker_credential: Of the worker that signed it.
        verdict: The decision.
        reason: A sentence for those who look later.
        acting: Who acts for the principal.
        credential: What proves it.
    """

    principal: Principal
    challenge: str
    worker_credential: str
    verdict: Literal["approve", "reject"]
    reason: str | None = None
    acting: Actor | None = None
    credential: Credential | None = None


@dataclass(frozen=True)
class Leave:
    """An authority's yes to an :class:`ActionOrder`.

    Args:
        principal: On whose behalf, as the authority found out.
        policies: Ids of those that decided.
    """

    principal: str
    policies: tuple[str, ...]


class Authority(Protocol):
    """Who decides what is signed: in process, or far away.

    Every method but the last raises:

    * :class:`exequatur.failures.AuthorizationDenied`: Cedar does not allow it.
    * :class:`exequatur.failures.AuthorizationUnavailable`: It cannot be decided, or not be recorded, now.
    """

    far: bool
    """Whether it takes as long as a network does."""

    async def issue_grant(self, order: GrantOrder) -> str:
        """Issue a grant for one workflow start, or for what one schedule starts."""
        ...

    async def issue_permit(self, order: PermitOrder) -> str:
        """Issue a permit."""
        ...

    async def authorize(self, order: ActionOrder) -> Leave:
        """Give leave for something that no statement can carry."""
        ...

    async def renew_grant(self, order: RenewalOrder) -> str:
        """Issue a grant that replaces an ended one."""
        ...

    async def issue_approval(self, order: ApprovalOrder) -> str:
        """Sign a person's decision about a challenge."""
        ...

    def issue_credential(self, order: CredentialOrder) -> str:
        """Issue a workload credential.

        Raises:
            ExequaturError: It will not, or cannot now.
        """
        ...
