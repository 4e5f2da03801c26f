"""The authority in this process: the one-line default, and what the demo and tests run on.

Its ``iss`` begins with ``dev:``, so that an auditor can tell evidence that was notarised by those who made it.

Rules, numbered as the code marks them:

I1  A grant is issued only after Cedar strictly allowed the action ``workflow.start`` for this principal and workflow.
I2  A principal that is revoked, or whose workflow is, gets no grant.
I3  A grant names its one workflow, its input, its end and how soon the run has to start.
I4  A credential names the worker, its places, and ends after ``credential_ttl``.
I5  A grant is issued only by policies whose release has not ended.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from datetime import UTC, datetime
from typing import Any

from exequatur.authority.state import State
from exequatur.errors import ConfigurationError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.client import GrantOrder
from exequatur.gate.gate import Gate
from exequatur.identity.workload import CredentialOrder
from exequatur.policy.engine import decide
from exequatur.policy.told import START_ACTION
from exequatur.settings import Settings
from exequatur.statements.jws import sign
from exequatur.statements.keys import thumbprint
from exequatur.statements.models import Confirmation, Grant, WorkflowAuthorization, WorkloadCredential
from exequatur.statements.verification import audience

_WORKER = f"{re.sub('[^A-Za-z0-9._-]', '-', socket.gethostname())[:64] or 'host'}-{os.getpid()}"


class EmbeddedAuthority:
    """Issues grants and credentials with the keys of a state folder.

    Args:
        state: The open state folder.
        settings: Trust domain, lifetimes, modes.
    """

    gate: Gate
    """Whose policy, revocations and clock decide. Set once: the gate in turn has its credential from here."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._settings = settings

    async def issue_grant(self, order: GrantOrder) -> str:
        """Issue a grant for one workflow start.

        Raises:
            AuthorizationDenied: I1, I2.
            AuthorizationUnavailable: I5, or it is not known what is revoked.
        """
        settings, principal, now = self._settings, order.principal, self.gate.clock()
        revocations, policy = self.gate.revocations, self.gate.policy
        revocations.refresh()
        if revocations.problem:
            raise AuthorizationUnavailable(f"It is not known what is revoked: {revocations.problem}")
        if ended := policy.ended(now):  # [I5]
            raise AuthorizationUnavailable(f"No grant can be issued: {ended}")
        revoked = revocations.find({"principal": str(principal), "workflow": order.workflow_id})
        if revoked:  # [I2]
            raise AuthorizationDenied(f"{principal} may not start {order.workflow_type}: {revoked.reason}")
        verdict = decide(
            policy.bundle,
            principal.entity(),
            {"type": "Action", "id": START_ACTION},
            {"type": "Workflow", "id": order.workflow_id},
            NO_ARGUMENTS,
            _facts(order, now),
        )
        if not verdict.allowed:  # [I1]
            why = "; ".join([f"policy {ref.id}" for ref in verdict.policies] + list(verdict.errors))
            why = why or "no policy permits the action workflow.start"
            raise AuthorizationDenied(
                f"{principal} may not start {order.workflow_type}: {why}",
                {"principal": str(principal), "policies": [ref.id for ref in verdict.policies]},
            )
        started_by = now + settings.start_within.total_seconds() + order.start_delay
        try:
            grant = Grant(
                iss=self._state.issuer,
                sub=str(principal),
                aud=audience(settings.trust_domain, settings.cluster, order.namespace),
                iat=float(int(now)),
                nbf=float(int(now)),
                exp=float(int(max(now + settings.grant_ttl.total_seconds(), started_by + 1))),
                start_by=float(int(started_by)),
                jti=secrets.token_urlsafe(12),
                attributes=dict(principal.attributes),
                parents=tuple(str(parent) for parent in principal.parents),
                authorization_details=(
                    WorkflowAuthorization(
                        workflow_type=order.workflow_type,
                        workflow_id=order.workflow_id,
                        task_queue=order.task_queue,
                        activities=("*",),
                        continues_as=settings.continues_as.get(order.workflow_type, ()),
                        input=order.input,
                        reuse=order.reuse,
                    ),
                ),
                bundle=policy.bundle.digest,
                policies=tuple(ref.id for ref in verdict.policies),
                mode="observe" if settings.mode == "observe" else "enforce",
                recorded_queues=settings.recorded_queues,
            )
            return sign(grant, self._state.grant_key).text  # I3
        except ValueError as err:
            raise AuthorizationDenied(f"No grant can be written for {principal}: {_first_line(err)}") from err

    def issue_credential(self, order: CredentialOrder) -> str:
        """Issue a workload credential for a worker of this process.

        Raises:
            ConfigurationError: It would be too long.
        """
        settings, now = self._settings, int(self.gate.clock())
        credential = WorkloadCredential(
            iss=self._state.issuer,
            sub=f"spiffe://{settings.trust_domain}/worker/{_WORKER}",
            aud=f"{settings.trust_domain}/{settings.cluster}",
            iat=float(now),
            # A server's clock may be behind this one, and requests are dated by the server's.
            nbf=float(now) - 60 - settings.clock_leeway.total_seconds(),
            exp=float(now) + settings.credential_ttl.total_seconds(),
            jti=thumbprint(order.key.x)[:8] + secrets.token_urlsafe(6),
            cnf=Confirmation(jwk=order.key),
            roles=order.roles,
            namespaces=order.namespaces,
            task_queues=order.task_queues,
            activities=order.activities,
        )
        try:
            return sign(credential, self._state.credential_key).text  # I4
        except ValueError as err:
            raise ConfigurationError(
                f"This worker has too many task queues or activities for a credential: {err}"
            ) from err


def _facts(order: GrantOrder, now: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "run": {
            "namespace": order.namespace,
            "workflow_id": order.workflow_id,
            "workflow_type": order.workflow_type,
            "task_queue": order.task_queue,
        },
        "now": {"__extn": {"fn": "datetime", "arg": moment}},
    }


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
