"""What goes over HTTP between an authority service and those who ask it: paths, bodies and errors.

The service and its client are both written against this module and nothing else of each other. Times are in seconds
since 1970, digests as in :mod:`exequatur.statements.models`.

=============================  =====================================================================================
``POST /oauth/token``          RFC 8693 token exchange: a credential for a grant or a permit. Form-encoded; what is
                               asked for stands in ``authorization_details`` (RFC 9396)
``POST /v1/authorizations``    leave for what goes straight to the Temporal server
``POST /v1/renewals``          a grant that replaces an ended one. Believes nothing but what is signed
``POST /v1/approvals``         a person's decision about a challenge
``POST /v1/credentials``       a workload credential for a worker
``GET  /v1/trust``             the trust anchors, retired ones among them, as ``trust.jwks`` has them; the same at
                               ``/.well-known/jwks.json``
``GET  /v1/bundles/{file}``    released policies, as ``exequatur policy pull`` reads them
``GET  /v1/revocations``       the revocation feed after ``after``, waiting up to ``wait`` seconds for something new
``POST /v1/revocations``       add a revocation, or lift one
``POST /access/v1/evaluation`` AuthZEN Authorization API 1.0; ``/access/v1/evaluations`` for several at once
``GET  /health/live|ready``    whether the process runs, and whether it can decide
=============================  =====================================================================================

Whoever asks shows a credential: ``Authorization: Bearer``, or a TLS client certificate. In a token exchange it is
``subject_token``, and ``actor_token`` where somebody acts for the subject.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from exequatur.statements.models import Digest, Name, PermitKind, PublicKey, Reuse, Role

TOKEN_PATH = "/oauth/token"  # noqa: S105
AUTHORIZATIONS_PATH = "/v1/authorizations"
RENEWALS_PATH = "/v1/renewals"
APPROVALS_PATH = "/v1/approvals"
CREDENTIALS_PATH = "/v1/credentials"
TRUST_PATH = "/v1/trust"
JWKS_PATH = "/.well-known/jwks.json"
BUNDLES_PATH = "/v1/bundles"
REVOCATIONS_PATH = "/v1/revocations"
EVALUATION_PATH = "/access/v1/evaluation"
EVALUATIONS_PATH = "/access/v1/evaluations"
LIVE_PATH = "/health/live"
READY_PATH = "/health/ready"

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPE = "urn:exequatur:params:oauth:token-type:grant"
PERMIT_TYPE = "urn:exequatur:params:oauth:token-type:permit"

MAX_BODY_BYTES = 256 * 1024
"""The longest request is a renewal or an approval with the statements that it stands on."""
MAX_WAIT = 30.0
"""Seconds that a long poll waits at most."""


class Body(BaseModel):
    """Base of what is sent. What is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86_400, allow_inf_nan=False)]


class WorkflowDetails(Body):
    """``authorization_details`` of a grant, as :class:`exequatur.gate.issuing.GrantOrder`."""

    type: Literal["temporal_workflow"] = "temporal_workflow"
    namespace: Name
    workflow_type: Name
    workflow_id: Name
    task_queue: Name
    input: Digest
    reuse: Reuse
    start_delay: Seconds = 0.0
    schedule: Name | None = None


class MessageDetails(Body):
    """``authorization_details`` of a permit, as :class:`exequatur.gate.issuing.PermitOrder`."""

    type: Literal["temporal_message"] = "temporal_message"
    namespace: Name
    kind: PermitKind
    target: Name
    name: Name
    args: Digest
    run_id: Name | None = None
    task_queue: Name | None = None
    endpoint: Name | None = None
    service: Name | None = None
    delay: Seconds = 0.0


class Exchanged(Body):
    """Answer of a token exchange (RFC 8693, section 2.2.1)."""

    access_token: str
    """The grant or permit. It is no bearer token, so ``token_type`` says that it has no such type."""
    issued_token_type: str
    token_type: Literal["N_A"] = "N_A"  # noqa: S105
    expires_in: int
    """Seconds."""


class AuthorizationBody(Body):
    """As :class:`exequatur.gate.issuing.ActionOrder`."""

    action: Name
    workflow_id: str
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    record: dict[str, JsonValue] = Field(default_factory=dict)


class Authorized(Body):
    policies: tuple[str, ...]


class RenewalBody(Body):
    """As :class:`exequatur.gate.issuing.RenewalOrder`."""

    namespace: Name
    tokens: Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]


class Renewed(Body):
    grant: str


class ApprovalBody(Body):
    """As :class:`exequatur.gate.issuing.ApprovalOrder`."""

    challenge: str
    credential: str
    verdict: Literal["approve", "reject"]
    reason: str | None = None


class Approved(Body):
    approval: str


class CredentialBody(Body):
    """As :class:`exequatur.identity.workload.CredentialOrder`."""

    key: PublicKey
    roles: tuple[Role, ...]
    namespaces: tuple[Name, ...]
    task_queues: tuple[Name, ...]
    activities: tuple[Name, ...]
    proof: str
    """Compact JWS over this very order with the key that is to be credentialed: proof of possession (RFC 7800)."""
    manifest: str | None = None
    """The signed manifest that the worker verified itself against, as a DSSE envelope."""
    instance: str | None = None
    """The signed identity document of the machine."""


class Credentialed(Body):
    credential: str


class FeedPage(Body):
    """Entries of the revocation feed and the signed head that they lead to."""

    head: str
    entries: tuple[dict[str, JsonValue], ...]
    """Those after the version that was asked for, oldest first; what is left out comes with the next request."""
    more: bool = False


class Problem(Body):
    """Why something was not done (RFC 6749, section 5.2)."""

    error: Literal[
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "invalid_target",
        "unsupported_grant_type",
        "invalid_token",
        "access_denied",
        "not_found",
        "too_large",
        "slow_down",
        "temporarily_unavailable",
    ]
    error_description: str
    details: dict[str, JsonValue] | None = None
    """For ``access_denied``: the principal, and the policies that decided."""
