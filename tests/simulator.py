"""Honest parties and an attacker: real keys, real statements, and the means to bend them.

An honest :class:`Scene` is one activity of one governed run: an authority, the worker that runs the workflow and the
worker that runs the activity. Everything it makes verifies. The attacker's tools change one thing and sign again, so
that a refusal can have one cause only: :func:`bend` changes claims, :func:`forge` writes any token,
:func:`wrongly_signed` puts the signature of another key under what a key has signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.activity import Info
from temporalio.api.common.v1 import Payload
from temporalio.testing import ActivityEnvironment

from exequatur.errors import StatementError
from exequatur.gate.wire import HEARTBEAT, payloads_digest
from exequatur.statements.encoding import digest, from_base64url, to_base64url
from exequatur.statements.jws import sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import (
    Approval,
    Challenge,
    Confirmation,
    Delegation,
    Grant,
    HeartbeatMark,
    Message,
    Needed,
    NextRun,
    NexusCall,
    Permit,
    Receipt,
    Release,
    Request,
    RequestCore,
    RevocationHead,
    Seal,
    Statement,
    WorkflowAuthorization,
    WorkloadCredential,
)
from exequatur.statements.packing import pack
from exequatur.statements.requests import Authorized, Task, verify_request
from exequatur.statements.trust import Anchor, TrustStore
from exequatur.statements.verification import Chain, Credentials, verify_chain

NOW = 1_800_000_000.0
SITE = "example.org/main"
AUD = f"{SITE}/default"
HEAD = digest("the head of a chain")


@contextmanager
def refused(rule: str) -> Iterator[None]:
    """The block is refused with this rule and no other."""
    with pytest.raises(StatementError) as caught:
        yield
    assert caught.value.rule == rule, str(caught.value)


def header_of(token: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(from_base64url(token.split(".", maxsplit=1)[0]))
    return header


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(from_base64url(token.split(".")[1]))
    return claims


def forge(header: object, claims: object, key: SigningKey) -> str:
    """Sign anything: a header and claims as JSON values, or as the very bytes that shall stand there."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signing_input = ".".join(map(to_base64url, parts))
    return f"{signing_input}.{to_base64url(key.sign(signing_input.encode()))}"


def bend(token: str, key: SigningKey, /, **changes: object) -> str:
    """Change claims and sign again with ``key``; ``None`` takes a claim out."""
    claims = {name: value for name, value in (claims_of(token) | changes).items() if value is not None}
    return forge(header_of(token) | {"kid": key.kid}, claims, key)


def wrongly_signed(token: str, key: SigningKey) -> str:
    """The same header and claims, ``kid`` included, under the signature of another key."""
    signing_input = token.rpartition(".")[0]
    return f"{signing_input}.{to_base64url(key.sign(signing_input.encode()))}"


class Authority:
    """Issues grants, credentials, permits and approvals, releases policies, and is trusted for all of them."""

    def __init__(self, iss: str = "https://authority.example.org") -> None:
        self.iss = iss
        self.grant_key = SigningKey.generate()
        self.credential_key = SigningKey.generate()
        self.policy_key = SigningKey.generate()
        self.permit_key = SigningKey.generate()
        self.approval_key = SigningKey.generate()
        self.revocation_key = SigningKey.generate()
        roles = {
            Grant.typ: self.grant_key,
            WorkloadCredential.typ: self.credential_key,
            Release.typ: self.policy_key,
            Permit.typ: self.permit_key,
            Approval.typ: self.approval_key,
            RevocationHead.typ: self.revocation_key,
        }
        self.trust = TrustStore(self.anchor(key, typ) for typ, key in roles.items())

    def anchor(self, key: SigningKey, typ: str, **changes: Any) -> Anchor:
        return Anchor(**{"kid": key.kid, "x": key.x, "typ": (typ,), "iss": self.iss, "nbf": NOW - 86_400} | changes)

    def grant(self, *, authorization: WorkflowAuthorization | None = None, **changes: Any) -> str:
        claims = {
            "iss": self.iss,
            "sub": 'Agent::"ops-bot"',
            "aud": AUD,
            "iat": NOW - 60,
            "nbf": NOW - 60,
            "exp": NOW + 3600,
            "start_by": NOW + 60,
            "jti": "grant-1",
            "authorization_details": (authorization or authorize(),),
            "bundle": digest("bundle"),
            "policies": ("start",),
            "mode": "enforce",
        }
        return sign(Grant(**claims | changes), self.grant_key).text

    def credential(self, key: SigningKey, sub: str, **changes: Any) -> str:
        claims = {
            "iss": self.iss,
            "sub": sub,
            "aud": SITE,
            "iat": NOW - 300,
            "nbf": NOW - 300,
            "exp": NOW + 3300,
            "jti": "credential-1",
            "cnf": Confirmation(jwk=key.public),
            "roles": ("request", "receipt", "delegate", "seal"),
            "namespaces": ("default",),
            "task_queues": ("orders",),
            "activities": ("charge",),
        }
        return sign(WorkloadCredential(**claims | changes), self.credential_key).text

    def release(self, **changes: Any) -> str:
        claims = {
            "iss": self.iss,
            "iat": NOW - 60,
            "name": "policies",
            "bundle": digest("bundle file"),
            "digest": digest("bundle"),
            "sequence": 1,
        }
        return sign(Release(**claims | changes), self.policy_key).text

    def permit(self, **changes: Any) -> str:
        """For the signal ``stop`` to the workflow that the requests here are of."""
        claims = {
            "iss": self.iss,
            "sub": 'User::"dana"',
            "aud": AUD,
            "iat": NOW - 60,
            "exp": NOW + 3600,
            "jti": "permit-1",
            "kind": "signal",
            "target": "refund-1",
            "name": "stop",
            "args": digest("args"),
            "bundle": digest("bundle"),
            "policies": ("signals",),
            "mode": "enforce",
        }
        return sign(Permit(**claims | changes), self.permit_key).text

    def approval(self, challenge: str, **changes: Any) -> str:
        """One person's consent to a challenge."""
        asked = claims_of(challenge)
        claims = {
            "iss": self.iss,
            "sub": 'User::"fay"',
            "aud": AUD,
            "iat": NOW + 10,
            "exp": NOW + 3600,
            "jti": "approval-1",
            "verdict": "approve",
            "challenge": digest(challenge),
            "request": asked["request"],
            "workflow_id": asked["workflow_id"],
            "original_run_id": asked["original_run_id"],
            "activity_type": asked["activity_type"],
            "args": asked["args"],
            "groups": ("finance",),
            "bundle": digest("bundle"),
            "policies": ("approvals",),
        }
        return sign(Approval(**claims | changes), self.approval_key).text

    def revocation_head(self, **changes: Any) -> str:
        claims = {"iss": self.iss, "aud": SITE, "iat": NOW, "version": 3, "head": digest("entries")}
        return sign(RevocationHead(**claims | changes), self.revocation_key).text


def authorize(**changes: Any) -> WorkflowAuthorization:
    """What a grant allows: the workflow ``Refund`` with id ``refund-1`` may ask for any activity."""
    claims = {
        "workflow_type": "Refund",
        "workflow_id": "refund-1",
        "task_queue": "orders",
        "activities": ("*",),
        "input": digest("input"),
        "reuse": "once",
    }
    return WorkflowAuthorization(**claims | changes)


class Worker:
    """Holds a key, and a credential for it."""

    def __init__(self, authority: Authority, name: str, **credential: Any) -> None:
        self.id = f"spiffe://example.org/worker/{name}"
        self.key = SigningKey.generate()
        self.credential = authority.credential(self.key, self.id, **credential)

    def sign(self, statement: Statement) -> str:
        return sign(statement, self.key).text


@dataclass
class Scene:
    """One activity of one governed run, in which everybody is honest."""

    authority: Authority = field(default_factory=Authority)

    def __post_init__(self) -> None:
        self.workflows = Worker(self.authority, "workflows")
        self.activities = Worker(self.authority, "activities")
        self.attacker = SigningKey.generate()
        """A key that nobody vouches for."""
        self.grant = self.authority.grant()
        self.request = self.request_under(self.grant)
        self.task = Task(
            namespace="default",
            workflow_id="refund-1",
            workflow_type="Refund",
            run_id="run-1",
            activity_id="1",
            activity_type="charge",
            task_queue="orders",
            scheduled=NOW,
            args=digest("args"),
            local=False,
        )
        self.result = Payload(metadata={"encoding": b"json/plain"}, data=b'"charged"')
        self.details = Payload(metadata={"encoding": b"json/plain"}, data=b"17")

    @property
    def trust(self) -> TrustStore:
        return self.authority.trust

    def credentials(self, *texts: str) -> Credentials:
        """Those of the two workers, or these."""
        credentials = Credentials(self.trust)
        for text in texts or (self.workflows.credential, self.activities.credential):
            credentials.add(text)
        return credentials

    # The workflow worker's statements.

    def request_under(self, leaf: str, by: Worker | None = None, **changes: Any) -> str:
        """A request that stands on a grant or delegation. ``jti`` follows from the core unless it is given."""
        by = by or self.workflows
        claims = {
            "iss": by.id,
            "iat": NOW,
            "grant": digest(leaf),
            "workflow_id": "refund-1",
            "original_run_id": "run-1",
            "seq": 1,
            "activity_type": "charge",
            "prev": HEAD,
            "namespace": "default",
            "workflow_type": "Refund",
            "run_id": "run-1",
            "first_run_id": "run-1",
            "task_queue": "orders",
            "args": digest("args"),
        } | changes
        core = RequestCore(**{name: claims[name] for name in RequestCore.model_fields})
        return by.sign(Request(**{"jti": core.hash()} | claims))

    def delegation_under(self, before: str, depth: int = 1, by: Worker | None = None, **changes: Any) -> str:
        """A delegation to the child workflow ``refund-1``, the one that the requests here are of."""
        by = by or self.workflows
        claims = {
            "iss": by.id,
            "aud": AUD,
            "iat": NOW,
            "exp": NOW + 3600,
            "jti": f"delegation-{depth}",
            "parent": digest(before),
            "parent_run_id": "run-0",
            "depth": depth,
            "authorization_details": (authorize(),),
        }
        return by.sign(Delegation(**claims | changes))

    def seal_under(self, leaf: str, by: Worker | None = None, **changes: Any) -> str:
        """The seal of a run that continues as the same type on the same queue."""
        by = by or self.workflows
        claims = {
            "iss": by.id,
            "iat": NOW,
            "grant": digest(leaf),
            "workflow_id": "refund-1",
            "workflow_type": "Refund",
            "original_run_id": "run-1",
            "run_id": "run-1",
            "seq": 1,
            "head": HEAD,
            "outcome": "continued",
            "next": NextRun(workflow_type="Refund", task_queue="orders", input=digest("next input")),
        }
        return by.sign(Seal(**claims | changes))

    def message_under(self, leaf: str, by: Worker | None = None, **changes: Any) -> str:
        """The run ``sender-1`` signals the workflow that the requests here are of."""
        by = by or self.workflows
        claims = {
            "iss": by.id,
            "aud": AUD,
            "iat": NOW,
            "exp": NOW + 3600,
            "jti": digest("message-1"),
            "grant": digest(leaf),
            "workflow_id": "sender-1",
            "original_run_id": "run-9",
            "run_id": "run-9",
            "target": "refund-1",
            "name": "stop",
            "args": digest("args"),
            "decision": "allow",
            "bundle": digest("bundle"),
        }
        return by.sign(Message(**claims | changes))

    def call_under(self, leaf: str, by: Worker | None = None, **changes: Any) -> str:
        """The run that the requests here are of calls the Nexus operation ``transfer``."""
        by = by or self.workflows
        claims = {
            "iss": by.id,
            "iat": NOW,
            "exp": NOW + 60,
            "jti": "call-1",
            "grant": digest(leaf),
            "namespace": "default",
            "workflow_id": "refund-1",
            "workflow_type": "Refund",
            "original_run_id": "run-1",
            "run_id": "run-1",
            "first_run_id": "run-1",
            "endpoint": "bank",
            "service": "payments.v1",
            "operation": "transfer",
            "args": digest("args"),
        }
        return by.sign(NexusCall(**claims | changes))

    # The activity worker's.

    def challenge(self, by: Worker | None = None, **changes: Any) -> str:
        by = by or self.activities
        claims = {
            "iss": by.id,
            "iat": NOW + 1,
            "exp": NOW + 86_400,
            "request": self.core().hash(),
            "request_digest": digest(self.request),
            "grant": digest(self.grant),
            "sub": 'Agent::"ops-bot"',
            "namespace": "default",
            "workflow_id": "refund-1",
            "workflow_type": "Refund",
            "original_run_id": "run-1",
            "task_queue": "orders",
            "activity_type": "charge",
            "args": digest("args"),
            "needs": (Needed(group="finance", quorum=1, ttl=3600),),
            "keys": (self.authority.approval_key.kid,),
            "policies": ("large",),
            "bundle": digest("bundle"),
        }
        return by.sign(Challenge(**claims | changes))

    def core(self) -> RequestCore:
        claims = claims_of(self.request)
        return RequestCore(**{name: claims[name] for name in RequestCore.model_fields})

    def receipt(self, by: Worker | None = None, **changes: Any) -> str:
        by = by or self.activities
        claims = {
            "iss": by.id,
            "iat": NOW + 1,
            "request": self.core().hash(),
            "request_digest": digest(self.request),
            "activity_id": "1",
            "activity_type": "charge",
            "workflow_id": "refund-1",
            "run_id": "run-1",
            "attempt": 1,
            "decision": "allow",
            "enforced": True,
            "policies": ("base",),
            "outcome": "completed",
            "result": payloads_digest([self.result]),
        }
        return by.sign(Receipt(**claims | changes))

    def mark(self, by: Worker | None = None, **changes: Any) -> str:
        by = by or self.activities
        claims = {
            "iss": by.id,
            "iat": NOW + 1,
            "request": self.core().hash(),
            "run_id": "run-1",
            "attempt": 1,
            "details": payloads_digest([self.details]),
        }
        return by.sign(HeartbeatMark(**claims | changes))

    def marked(self, *tokens: str) -> list[Payload]:
        """The heartbeat details with these tokens as their mark."""
        marked = Payload()
        marked.CopyFrom(self.details)
        marked.metadata[HEARTBEAT] = pack(tokens) if tokens else b"\x01"
        return [marked]

    # What the gate does with them.

    def header(self, *, grant: str | None = None, request: str | None = None, between: Sequence[str] = ()) -> list[str]:
        """The tokens of the activity's header."""
        return [grant or self.grant, *between, self.workflows.credential, request or self.request]

    def authorized(self, tokens: Sequence[str] | None = None, /, **task: Any) -> Authorized:
        """What the gate makes of a header, for this task or one that differs from it."""
        return verify_request(
            tokens or self.header(),
            replace(self.task, **task),
            self.trust,
            aud=AUD,
            max_depth=8,
            schedule_bound=60,
        )

    def chain(self, grant: str | None = None, *delegations: str, aud: str | None = AUD, max_depth: int = 8) -> Chain:
        """The verified chain."""
        return verify_chain(
            grant or self.grant, delegations, self.credentials(), self.trust, aud=aud, max_depth=max_depth
        )

    def info(self, **changes: Any) -> Info:
        """What Temporal says about the second attempt of the activity."""
        honest = {
            "activity_id": "1",
            "activity_type": "charge",
            "attempt": 2,
            "namespace": "default",
            "scheduled_time": datetime.fromtimestamp(NOW, UTC),
            "task_queue": "orders",
            "workflow_id": "refund-1",
            "workflow_namespace": "default",
            "workflow_run_id": "run-1",
            "workflow_type": "Refund",
        }
        return replace(ActivityEnvironment.default_info(), **honest | changes)
