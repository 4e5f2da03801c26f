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

Whoever asks shows a credential: ``Authorization: Bearer`` and the headers of :func:`shown`, or a TLS client
certificate. In a token exchange it is ``subject_token``, and ``actor_token`` where somebody acts for the subject; the
connection's own certificate is named there by :data:`CERTIFICATE`. The trust anchors, the health and what describes the
service are for everybody.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from exequatur.identity.credential import CERTIFICATE_TYPE, JWT_TYPE, LOCAL_TYPE, Credential
from exequatur.statements.encoding import from_base64url, to_base64url
from exequatur.statements.models import Digest, Name, PermitKind, PublicKey, Reuse, Role, Time

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
OAUTH_METADATA_PATH = "/.well-known/oauth-authorization-server"
"""RFC 8414."""
AUTHZEN_METADATA_PATH = "/.well-known/authzen-configuration"
"""AuthZEN Authorization API 1.0, section 9."""

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPE = "urn:exequatur:params:oauth:token-type:grant"
PERMIT_TYPE = "urn:exequatur:params:oauth:token-type:permit"

CERTIFICATE = Credential("connection", CERTIFICATE_TYPE)
"""Stands for the client certificate of the connection, as ``subject_token`` or ``actor_token`` and their types."""
TYPE_HEADER = "Exequatur-Token-Type"
"""Type of the bearer token; a JWT unless it says otherwise."""
SUBJECT_HEADER = "Exequatur-Subject-Token"
"""On whose behalf, where that is not who asks: then who asks is the actor."""
SUBJECT_TYPE_HEADER = "Exequatur-Subject-Token-Type"

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
    """As :class:`exequatur.gate.issuing.Leave`."""

    principal: str
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
    proof: Annotated[str, Field(max_length=1000)]
    """Proof of possession of the key (RFC 7800), as :func:`exequatur.authority.possession.prove` makes it."""
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


class RevocationBody(Body):
    """As :class:`exequatur.revocation.entry.Revocation`: what matches all that is named is revoked."""

    reason: Name
    grant: Name | None = None
    principal: Name | None = None
    workflow: Name | None = None
    activity: Name | None = None
    worker: Name | None = None
    key: Name | None = None
    code: Name | None = None
    bundle: Name | None = None
    everything: bool = False
    until: Time | None = None
    lifts: Annotated[int, Field(ge=1)] | None = None
    """Number of the entry that is lifted; then nothing is named."""


class Revoked(Body):
    version: int
    """Of the feed, with the entry in it."""


class Subject(Body):
    """A Cedar entity; ``properties`` are its attributes, and ``parents`` among them a list such as
    ``["Role::\\"ops\\""]``."""

    type: Name
    id: Name
    properties: dict[str, JsonValue] = Field(default_factory=dict)


class Action(Body):
    """A Cedar action by its name; ``properties`` are the arguments."""

    name: Name
    properties: dict[str, JsonValue] = Field(default_factory=dict)


class Resource(Body):
    """A Cedar entity. Its attributes are those that the policies come with, so it has no properties of its own."""

    type: Name
    id: Name
    properties: Annotated[dict[str, JsonValue], Field(max_length=0)] = Field(default_factory=dict)


class Evaluation(Body):
    """A question (AuthZEN Authorization API 1.0, section 6.1). The moment is the authority's own."""

    subject: Subject
    action: Action
    resource: Resource
    context: dict[str, JsonValue] = Field(default_factory=dict)


class PartOfEvaluation(Body):
    """One of several questions: what it leaves out is taken from the request."""

    subject: Subject | None = None
    action: Action | None = None
    resource: Resource | None = None
    context: dict[str, JsonValue] | None = None


class EvaluationOptions(BaseModel):
    """Section 7.1.2; options that are not known mean nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    evaluations_semantic: Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"] = "execute_all"


class Evaluations(PartOfEvaluation):
    """Several questions (section 7.1); without ``evaluations`` it is one."""

    evaluations: Annotated[tuple[PartOfEvaluation, ...], Field(max_length=50)] = ()
    options: EvaluationOptions = EvaluationOptions()


class Decision(Body):
    """Section 6.2."""

    decision: bool
    context: dict[str, JsonValue] = Field(default_factory=dict)


class Decisions(Body):
    """Section 7.2: ``evaluations`` in the order in which they were asked, or ``decision`` where one was."""

    evaluations: tuple[Decision, ...] | None = None
    decision: bool | None = None
    context: dict[str, JsonValue] | None = None


ErrorCode = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_target",
    "unsupported_grant_type",
    "invalid_token",
    "access_denied",
    "not_found",
    "method_not_allowed",
    "unsupported_media_type",
    "too_large",
    "slow_down",
    "temporarily_unavailable",
    "server_error",
]
"""The names of what went wrong."""


class Problem(Body):
    """Why something was not done (RFC 6749, section 5.2)."""

    error: ErrorCode
    error_description: str
    details: dict[str, JsonValue] | None = None
    """For ``access_denied``: the principal, and the policies that decided."""


def shown(asks: Credential | None, subject: Credential | None = None) -> dict[str, str]:
    """The headers that show credentials, wherever it is not a token exchange.

    Args:
        asks: Whoever asks; ``None`` for a TLS client certificate.
        subject: On whose behalf, where that is somebody else.
    """
    headers = {}
    if asks is not None:
        headers["Authorization"] = f"Bearer {_in_header(asks)}"
        headers[TYPE_HEADER] = asks.type
    if subject is not None:
        headers[SUBJECT_HEADER] = _in_header(subject)
        headers[SUBJECT_TYPE_HEADER] = subject.type
    return headers


def credential_from(token: str, type: str | None) -> Credential:
    """The credential that a header of :func:`shown` holds.

    Args:
        token: The header, without ``Bearer``.
        type: The header that says its type.

    Raises:
        ValueError: It cannot be read.
    """
    if type == LOCAL_TYPE:
        return Credential(from_base64url(token).decode(), LOCAL_TYPE)
    return Credential(token, type or JWT_TYPE)


def _in_header(credential: Credential) -> str:
    """A local name may be in any script, and a header may not."""
    return to_base64url(credential.token.encode()) if credential.type == LOCAL_TYPE else credential.token
