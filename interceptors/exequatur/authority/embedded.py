"""The authority in this process: the one-line default, and what the demo and tests run on.

Its ``iss`` begins with ``dev:``, so that an auditor can tell evidence that was notarised by those who made it.

Rules, numbered as the code marks them (Q are those of :mod:`exequatur.authority.asking`, L those of
:mod:`exequatur.authority.approvals`):

I1  A grant is issued only after Cedar strictly allowed the action ``workflow.start`` for this principal and workflow.
I2  A principal that is revoked, or whose workflow is, gets no grant.
I3  A grant names its one workflow, its input, its end and how soon the run has to start.
I4  A credential names the worker, its places, and ends after ``credential_ttl``.
I5  A grant is issued only by policies whose release has not ended.
I6  A permit is issued only after Cedar strictly allowed the principal to do that one thing, and names it.
I7  A grant lasts from the run's delayed start on, and a start is delayed no longer than a run may last at most.
I8  What a credential says of a worker's code, build and environment is what its signed manifest and its machine's
    document prove; a worker that shows one that proves nothing gets no credential.
I9  A worker that is revoked, or whose key or code is, gets no credential.
I10  A credential is believed only as the configuration of callers says (``identity_config``); without one, none is. One
     that may be used once is refused here, where other processes cannot know that it was.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from exequatur.authority.approvals import issue_approval
from exequatur.authority.asking import Asking
from exequatur.authority.renewal import renew_grant
from exequatur.authority.state import State
from exequatur.errors import ConfigurationError, IdentityError, IdentityUnavailableError, StatementError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
from exequatur.gate.gate import Gate
from exequatur.gate.issuing import ActionOrder, ApprovalOrder, GrantOrder, Leave, PermitOrder, RenewalOrder
from exequatur.identity.callers import Identifies
from exequatur.identity.workload import CredentialOrder
from exequatur.integrity.attestation import Evidence, read_evidence_config, verify_evidence
from exequatur.policy.told import (
    ACTIVITY_START_ACTION,
    NEXUS_START_ACTION,
    QUERY_ACTION,
    SIGNAL_ACTION,
    START_ACTION,
    UPDATE_ACTION,
)
from exequatur.settings import Settings
from exequatur.statements.jws import sign
from exequatur.statements.keys import thumbprint
from exequatur.statements.models import (
    Confirmation,
    Grant,
    Permit,
    WorkflowAuthorization,
    WorkloadCredential,
    first_names,
)
from exequatur.statements.standalone import standalone_id
from exequatur.statements.verification import audience

_WORKER = f"{re.sub('[^A-Za-z0-9._-]', '-', socket.gethostname())[:64] or 'host'}-{os.getpid()}"
_Order = TypeVar("_Order", GrantOrder, PermitOrder, ActionOrder, ApprovalOrder)
_ANSWERED_WITHIN = 3600.0
"""Seconds that queries, updates and Nexus operations are good for at most."""
_PERMIT_ACTIONS = {
    "signal": SIGNAL_ACTION,
    "query": QUERY_ACTION,
    "update": UPDATE_ACTION,
    "activity": ACTIVITY_START_ACTION,
    "nexus": NEXUS_START_ACTION,
}


class EmbeddedAuthority:
    """Issues what is signed with the keys of a state folder.

    Args:
        state: The open state folder.
        settings: Trust domain, lifetimes, modes.
    """

    far = False

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._evidence = read_evidence_config(settings.integrity_keys, settings.instance_trust)
        self._callers: Identifies | None = None
        if settings.identity_config is not None:
            from exequatur.identity.config import read_identity

            self._callers = read_identity(Path(settings.identity_config))

    @property
    def state(self) -> State:
        """The state folder."""
        return self._state

    def judge_by(self, gate: Gate) -> None:
        """Say whose policies, revocations and clock decide. Once: the gate in turn has its credential from here."""
        self.gate = gate
        self._asking = Asking(gate, self._state.journal)

    async def issue_grant(self, order: GrantOrder) -> str:
        """Issue a grant for one workflow start, or for what one schedule starts.

        Raises:
            AuthorizationDenied: I1, I2.
            AuthorizationUnavailable: I5, or it cannot be decided or recorded.
        """
        order = await self._identified(order)
        settings, principal = self._settings, order.principal
        longest = max(settings.grant_ttl, settings.max_lifetime).total_seconds()
        if not 0 <= order.start_delay <= longest:  # [I7]
            raise AuthorizationDenied(
                f"A start cannot be delayed by {order.start_delay:.0f} s; {longest:.0f} s is the most (max_lifetime)"
            )
        jti = secrets.token_urlsafe(12)
        run = {
            "namespace": order.namespace,
            "workflow_id": order.workflow_id,
            "workflow_type": order.workflow_type,
            "task_queue": order.task_queue,
        }
        verdict = await self._asking.ask(  # [I1] [I2] [I5]
            principal,
            START_ACTION,
            order.workflow_id,
            {"run": run},
            what=f"start {order.workflow_type}",
            record={"grant": jti},
            acting=order.acting,
        )
        now = self.gate.clock()
        started_by = now + settings.start_within.total_seconds() + order.start_delay
        ends = max(now + order.start_delay + settings.grant_ttl.total_seconds(), started_by + 1)
        if order.schedule is not None:
            ends = started_by = now + settings.schedule_grant_ttl.total_seconds()
        lasts = now + order.start_delay + settings.max_lifetime.total_seconds()
        try:
            grant = Grant(
                ver=2,
                iss=self._state.issuer,
                sub=str(principal),
                aud=audience(settings.trust_domain, settings.cluster, order.namespace),
                iat=float(int(now)),
                nbf=float(int(now)),
                exp=float(int(ends)),
                start_by=float(int(started_by)),
                jti=jti,
                attributes=dict(principal.attributes),
                parents=tuple(str(parent) for parent in principal.parents),
                act=order.acting,
                authorization_details=(
                    WorkflowAuthorization(
                        workflow_type=order.workflow_type,
                        workflow_id=order.workflow_id,
                        task_queue=order.task_queue,
                        activities=("*",),
                        continues_as=settings.continues_as.get(order.workflow_type, ()),
                        input=order.input,
                        reuse=order.reuse,
                        schedule=order.schedule,
                    ),
                ),
                bundle=self.gate.policy.bundle.digest,
                policies=first_names(ref.id for ref in verdict.policies),
                mode="observe" if settings.mode == "observe" else "enforce",
                recorded_queues=settings.recorded_queues,
                open_messages=settings.open_messages,
                renew_until=float(int(lasts)) if order.schedule is None and lasts > ends else None,
            )
            return (await self._state.sign("grant", grant)).text  # I3
        except (ValueError, OverflowError) as err:
            raise AuthorizationDenied(f"No grant can be written for {principal}: {_first_line(err)}") from err

    async def issue_permit(self, order: PermitOrder) -> str:
        """Issue a permit for one message, or for one activity or Nexus operation that stands by itself.

        Raises:
            AuthorizationDenied: I6, I2.
            AuthorizationUnavailable: It cannot be decided or recorded.
        """
        order = await self._identified(order)
        settings, principal, action = self._settings, order.principal, _PERMIT_ACTIONS[order.kind]
        jti = secrets.token_urlsafe(12)
        workflow_id = "" if order.kind in ("activity", "nexus") else order.target
        facts: dict[str, Any] = {"run": {"namespace": order.namespace, "workflow_id": workflow_id}}
        if order.kind == "activity":
            facts["activity"] = {"type": order.name, "id": order.target, "task_queue": order.task_queue or ""}
        elif order.kind == "nexus":
            facts["run"]["workflow_type"] = ""
            facts["nexus"] = {
                "endpoint": order.endpoint or "",
                "service": order.service or "",
                "operation": order.name,
            }
        else:
            facts["message"] = {"name": order.name, "sender": ""}
        verdict = await self._asking.ask(  # [I6]
            principal,
            action,
            workflow_id or standalone_id(order.target),
            facts,
            what=f"{'start' if order.kind in ('activity', 'nexus') else order.kind} {order.name}",
            subject={"activity": order.name} if order.kind == "activity" else None,
            record={"permit": jti},
            acting=order.acting,
        )
        now = self.gate.clock()
        try:
            permit = Permit(
                iss=self._state.issuer,
                sub=str(principal),
                aud=audience(settings.trust_domain, settings.cluster, order.namespace),
                iat=round(now, 3),
                exp=round(now + order.delay + self._permit_lasts(order), 3),
                jti=jti,
                attributes=dict(principal.attributes),
                parents=tuple(str(parent) for parent in principal.parents),
                act=order.acting,
                kind=order.kind,
                target=order.target,
                run_id=order.run_id,
                name=order.name,
                task_queue=order.task_queue,
                endpoint=order.endpoint,
                service=order.service,
                args=order.args,
                bundle=self.gate.policy.bundle.digest,
                policies=first_names(ref.id for ref in verdict.policies),
                mode="observe" if settings.mode == "observe" else "enforce",
            )
            return (await self._state.sign("permit", permit)).text
        except (ValueError, OverflowError) as err:
            raise AuthorizationDenied(f"No permit can be written for {principal}: {_first_line(err)}") from err

    async def _identified(self, order: _Order) -> _Order:
        """An order that names the principal of its credential, if it has one.

        Raises:
            AuthorizationDenied: I10.
            AuthorizationUnavailable: It cannot be found out now.
        """
        credential = order.credential
        if credential is None:
            return order
        if self._callers is None:  # [I10]
            raise AuthorizationDenied(
                "This authority believes no credentials; set identity_config to a file that says which it believes, or "
                "use acting_as(Principal(...))"
            )
        try:
            found = await asyncio.to_thread(self._callers.identify, credential, self.gate.clock())  # I10
        except IdentityError as err:
            raise AuthorizationDenied(f"The credential was refused: {err}") from None
        except IdentityUnavailableError as err:
            raise AuthorizationUnavailable(f"The credential cannot be verified now: {err}") from None
        if found.once:  # [I10]
            raise AuthorizationDenied("A token that may be used once is taken by an authority service only")
        return replace(order, principal=found.principal, acting=found.acting, credential=None)

    def _permit_lasts(self, order: PermitOrder) -> float:
        """Seconds. A signal and a task wait for a worker; what is answered at once need not wait long."""
        lasts = self._settings.permit_ttl.total_seconds()
        return lasts if order.kind in ("signal", "activity") else min(lasts, _ANSWERED_WITHIN)

    async def authorize(self, order: ActionOrder) -> Leave:
        """Give leave for what goes straight to the server.

        Raises:
            AuthorizationDenied: Q2, Q3.
            AuthorizationUnavailable: Q1, Q4.
        """
        order = await self._identified(order)
        of = order.facts.get("schedule", order.facts.get("activity", {})).get("id", "") or order.workflow_id
        verdict = await self._asking.ask(
            order.principal,
            order.action,
            order.workflow_id or (standalone_id(of) if of and "activity" in order.facts else of),
            order.facts,
            what=f"{order.action} {of}",
            record=order.record,
            acting=order.acting,
        )
        return Leave(str(order.principal), tuple(ref.id for ref in verdict.policies))

    async def renew_grant(self, order: RenewalOrder) -> str:
        """Issue a grant that replaces an ended one.

        Raises:
            AuthorizationDenied: Z8 to Z10.
            AuthorizationUnavailable: It cannot be decided or recorded.
        """
        return await renew_grant(order, self._asking, self._state, self._settings)

    async def issue_approval(self, order: ApprovalOrder) -> str:
        """Sign a person's decision about a challenge.

        Raises:
            AuthorizationDenied: L1, L3 to L5.
            AuthorizationUnavailable: L2, or it cannot be decided or recorded.
        """
        site = f"{self._settings.trust_domain}/{self._settings.cluster}"
        order = await self._identified(order)
        return await issue_approval(order, self._asking, self._state, site=site)

    def issue_credential(self, order: CredentialOrder, *, worker: str | None = None, ends: float | None = None) -> str:
        """Issue a workload credential.

        Args:
            order: What it is to say.
            worker: SPIFFE id; absent for a worker of this process.
            ends: When it ends at the latest, in seconds since 1970.

        Raises:
            ConfigurationError: It would be too long.
            StatementError: I8, I9.
        """
        settings, now = self._settings, int(self.gate.clock())
        proven = self.evidence_of(order)
        name = settings.worker_name or _WORKER
        sub, key = worker or f"spiffe://{settings.trust_domain}/worker/{name}", thumbprint(order.key.x)
        about: dict[str, str] = {"worker": sub, "key": key, **({"code": proven.code.digest} if proven.code else {})}
        if (revoked := self.gate.revocations.find(about)) and not revoked.everything:
            raise StatementError("I9", f"{sub} has been revoked: {revoked.reason}")  # [I9]
        credential = WorkloadCredential(
            iss=self._state.issuer,
            sub=sub,
            aud=f"{settings.trust_domain}/{settings.cluster}",
            iat=float(now),
            # A server's clock may be behind this one, and requests are dated by the server's.
            nbf=float(now) - 60 - settings.clock_leeway.total_seconds(),
            exp=float(min(now + settings.credential_ttl.total_seconds(), float("inf") if ends is None else ends)),
            jti=key[:8] + secrets.token_urlsafe(6),
            cnf=Confirmation(jwk=order.key),
            roles=order.roles,
            namespaces=order.namespaces,
            task_queues=order.task_queues,
            activities=order.activities,
            code=proven.code,  # I8
            build=proven.build,
            environment=proven.environment,
        )
        try:
            return sign(credential, self._state.signer("credential")).text  # I4
        except ValueError as err:
            raise ConfigurationError(
                f"This worker has too many task queues or activities for a credential: {err}"
            ) from err

    def evidence_of(self, order: CredentialOrder) -> Evidence:
        """What a worker proves of itself with what it shows.

        Raises:
            StatementError: It proves nothing; V1 and V2 of :mod:`exequatur.integrity.attestation`.
        """
        now = self.gate.clock()
        return verify_evidence(order.manifest, order.instance, self._evidence, key=order.key, now=now)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
