"""What each statement says (DESIGN section 2).

Registered JWT claim names are used wherever one exists (RFC 7519, RFC 7800 ``cnf``, RFC 8693 ``act``, RFC 9396
``authorization_details``). Times are seconds since 1970-01-01 UTC. Digests are SHA-256, base64url. A model takes
exactly its own fields: an unknown one is an error, so that nothing that was signed is silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from exequatur.statements.encoding import compact_json, digest

Digest = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Time = Annotated[float, Field(ge=0, le=32_503_680_000, allow_inf_nan=False)]
"""Up to the year 3000, so that a clock in the wrong century is refused where it shows."""
BundleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""What policies are released under; it is part of file names."""


def _empty(value: tuple[object, ...]) -> bool:
    return not value


Heard = Annotated[tuple[str, ...], Field(max_length=256, exclude_if=_empty)]
"""Short digests of messages; left out when there is none."""
_NAMED_BYTES = 800
"""Of the ids of policies in one statement."""
MAX_SEQUENCE = 2**53 - 1
"""The largest integer that every reader of JSON takes (RFC 8259, section 6)."""

Role = Literal["request", "receipt", "delegate", "seal"]
MessageKind = Literal["signal", "query", "update"]
PermitKind = Literal["signal", "query", "update", "activity", "nexus"]
Forbid = Annotated[str, Field(min_length=1, max_length=2000)]
"""Cedar policies, each a ``forbid``."""
Forbids = Annotated[tuple[Forbid, ...], Field(max_length=16, exclude_if=_empty)]
Mode = Literal["enforce", "observe"]
Reuse = Literal["once", "retry", "cron", "schedule"]
_DUE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
SealOutcome = Literal["completed", "failed", "cancelled", "continued"]
Outcome = Literal["completed", "failed", "cancelled", "async", "denied", "rejected", "unavailable", "revoked"]


class Part(BaseModel):
    """Base of everything inside a statement."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Statement(Part):
    """Base of the statements."""

    typ: ClassVar[str]
    max_bytes: ClassVar[int]
    """Of the compact token. Checked before anything is decoded."""


class PublicKey(Part):
    """An Ed25519 public key as a JWK (RFC 8037, section 2)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    x: Digest


class Confirmation(Part):
    """Proof-of-possession key (RFC 7800, section 3.2)."""

    jwk: PublicKey


class Code(Part):
    """What code a worker says, or was attested, to run."""

    digest: Digest
    assurance: Literal["self-asserted", "attested"]


class WorkloadCredential(Statement):
    """This key is this worker, in these roles and places."""

    typ: ClassVar[str] = "exequatur-workload+jwt"
    max_bytes: ClassVar[int] = 4096

    iss: Name
    sub: Name
    aud: Name
    iat: Time
    nbf: Time
    exp: Time
    jti: Name
    cnf: Confirmation
    roles: tuple[Role, ...]
    namespaces: tuple[Name, ...]
    task_queues: tuple[Name, ...]
    activities: tuple[Name, ...]
    code: Code | None = None
    build: Name | None = None
    """Temporal build id, as the signed manifest has it."""
    environment: Name | None = None
    """Where it runs, as attested; without attestation it is not said."""


class Actor(Part):
    """Who acts for the subject (RFC 8693, section 4.1)."""

    sub: Name
    act: Actor | None = None


class WorkflowAuthorization(Part):
    """What a grant or delegation allows: one workflow, and the activities it may ask for (RFC 9396)."""

    type: Literal["temporal_workflow"] = "temporal_workflow"
    workflow_type: Name
    workflow_id: Name
    task_queue: Name
    activities: tuple[Name, ...]
    """Activity types; ``*`` and ``?`` as in a shell pattern."""
    continues_as: tuple[Name, ...] = ()
    """Other workflow types that the run may continue as."""
    input: Digest
    reuse: Reuse
    forbid: Forbids = ()
    """What is forbidden besides, whatever the policies in force permit."""
    until: Time | None = None
    """When it ends for good, whatever is renewed."""
    child: Literal[True] | None = None
    """Its run was started by another one, which handed this down."""
    schedule: Name | None = None
    """Id of the schedule whose runs it is for, where ``reuse`` says ``schedule``. Their ids begin with
    ``workflow_id``."""

    def is_for(self, workflow_id: str) -> bool:
        """Whether a workflow id is the one that is named; of a schedule, whether the schedule gives its runs such ids.

        Temporal gives them the id of the schedule's action, a dash, and the second in UTC at which they were due.
        """
        return workflow_id == self.workflow_id if self.reuse != "schedule" else self.due(workflow_id) is not None

    def due(self, workflow_id: str) -> str | None:
        """When a run of the schedule was due, as its id says it; ``None`` where it is none."""
        base, found = f"{self.workflow_id}-", self.reuse == "schedule" and self.schedule is not None
        due = workflow_id.removeprefix(base) if found and workflow_id.startswith(base) else ""
        return due if _DUE.match(due) else None


class Grant(Statement):
    """On whose behalf a run acts, and what the workflow side must know for the whole run."""

    typ: ClassVar[str] = "exequatur-grant+jwt"
    max_bytes: ClassVar[int] = 16_384

    ver: Literal[1, 2] = 1
    """From 2 on, the run takes no message without a permit and answers challenges. It is fixed for a run, because
    replay must repeat what the run did."""
    iss: Name
    sub: Name
    aud: Name
    iat: Time
    nbf: Time
    exp: Time
    start_by: Time
    jti: Name
    attributes: dict[str, JsonValue] = Field(default_factory=dict)
    parents: tuple[Name, ...] = ()
    act: Actor | None = None
    authorization_details: Annotated[tuple[WorkflowAuthorization, ...], Field(min_length=1, max_length=1)]
    bundle: Digest
    policies: tuple[Name, ...]
    mode: Mode
    recorded_queues: tuple[Name, ...] = ()
    open_messages: Annotated[tuple[Name, ...], Field(exclude_if=_empty)] = ()
    """Messages that need no permit, as ``kind:name`` with ``*`` and ``?`` as in a shell pattern."""
    renews: Digest | None = None
    """Of the grant or delegation that this one replaces in a run."""
    renew_until: Time | None = None
    """The end of the run's absolute lifetime; without it, the grant is not renewed."""

    @property
    def authorization(self) -> WorkflowAuthorization:
        return self.authorization_details[0]


class Delegation(Statement):
    """A parent run hands a child a part of what it holds."""

    typ: ClassVar[str] = "exequatur-delegation+jwt"
    max_bytes: ClassVar[int] = 16_384

    iss: Name
    aud: Name
    iat: Time
    exp: Time
    jti: Name
    parent: Digest
    """Of the parent's grant or delegation token."""
    parent_run_id: Name
    """Original execution run id of the parent run."""
    parent_first_run_id: Name | None = None
    """First execution run id of the parent run; earlier delegations do not say it."""
    start_fault: str | None = None
    """Why the start of the parent run was found not covered; absent when it was."""
    depth: Annotated[int, Field(ge=1, le=64)]
    authorization_details: Annotated[tuple[WorkflowAuthorization, ...], Field(min_length=1, max_length=1)]
    detached: Literal[True] | None = None
    """The run is started with a signal, and Temporal does not know it as a child."""

    @property
    def authorization(self) -> WorkflowAuthorization:
        return self.authorization_details[0]


class RequestCore(Part):
    """The part of a request that replay recomputes; its hash is the request's ``jti``."""

    grant: Digest
    """Of the leaf: the grant token, or the last delegation token."""
    workflow_id: Name
    original_run_id: Name
    seq: Annotated[int, Field(ge=1)]
    activity_type: Name
    prev: Digest

    def hash(self) -> str:
        """SHA-256 over the JSON array of a domain tag and the fields in their order here."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        return digest(
            compact_json(
                [
                    "exequatur request core v1",
                    self.grant,
                    self.workflow_id,
                    self.original_run_id,
                    self.seq,
                    self.activity_type,
                    self.prev,
                ]
            )
        )


MAX_RESTRICTION_BYTES = 6000
"""Of a restriction as JSON, so that delegations and seals keep room for the rest of what they say."""


class Restriction(Part):
    """What a run asks to be held to besides what it holds."""

    activities: tuple[Name, ...] | None = None
    """Activity types; ``*`` and ``?`` as in a shell pattern. Without it, all that the run holds."""
    until: Time | None = None
    forbid: Forbids = ()


class Request(Statement, RequestCore):
    """A run asks for one activity. The fields of the core are replayed; the others are only signed."""

    typ: ClassVar[str] = "exequatur-request+jwt"
    max_bytes: ClassVar[int] = 32_768

    iss: Name
    jti: Digest
    iat: Time
    """Workflow time, so that it is the same for all attempts."""
    namespace: Name
    workflow_type: Name
    run_id: Name
    first_run_id: Name
    task_queue: Name
    args: Digest
    seen: tuple[int, ...] = ()
    """``seq`` of the requests whose receipts were folded into the chain since the request before, in that order."""
    knows: tuple[str, ...] = ()
    """Short digests of the credentials that the workflow has seen with receipts; they need not come again."""
    activity_id: Name | None = None
    local: bool = False
    start_fault: str | None = None
    """Why the workflow worker found the start not covered by the grant; absent when it is."""
    restriction: Restriction | None = None
    answers: Digest | None = None
    """``jti`` of the challenged request that this one repeats with what was asked for."""
    heard: Heard = ()
    """Short digests of the messages that were handled since the request before, in that order; the first ones."""
    messages: Digest | None = None
    """Head over all messages that were handled so far; absent before the first."""


def short_digest(token_digest: str) -> str:
    """Enough of a digest to name one of a few tokens that both sides hold."""
    return token_digest[:8]


def first_names(policies: Iterable[str]) -> tuple[str, ...]:
    """The ids of the deciding policies that a statement names: the first ones if there are many, because it has a cap.

    The evidence journal's record of the decision names all.
    """
    names: list[str] = []
    room = _NAMED_BYTES
    for each in policies:
        room -= len(each.encode()) + len('"",')
        if room < 0:
            break
        names.append(each)
    return tuple(names)


class RevocationState(Part):
    """The revocation feed as the gate knew it."""

    version: Annotated[int, Field(ge=0)]
    age: Annotated[float, Field(ge=0)]
    """Seconds since the feed was last read."""


class LogPlace(Part):
    """Where the decision stands in the worker's evidence journal."""

    id: Name
    index: Annotated[int, Field(ge=0)]
    head: Digest


class Receipt(Statement):
    """What the gate decided about one attempt, and what came of it."""

    typ: ClassVar[str] = "exequatur-receipt+jwt"
    max_bytes: ClassVar[int] = 12_288

    iss: Name
    iat: Time
    request: Digest | None = None
    """``jti`` of the request; absent when none could be read."""
    request_digest: Digest | None = None
    activity_id: Name
    activity_type: Name
    workflow_id: Name | None = None
    """Only where there is no request to name it."""
    run_id: Name | None = None
    attempt: Annotated[int, Field(ge=1)]
    decision: Literal["allow", "deny", "none"]
    enforced: bool
    policies: tuple[Name, ...] = ()
    reason: Annotated[str, Field(max_length=400)] | None = None
    bundle: Digest | None = None
    bundle_sequence: Annotated[int, Field(ge=0)] = 0
    revocations: RevocationState | None = None
    facts: Digest | None = None
    rechecks: Annotated[int, Field(ge=0)] = 0
    started: Time | None = None
    outcome: Outcome
    result: Digest | None = None
    log: LogPlace | None = None
    core: RequestCore | None = None
    """Only for local activities, whose headers Temporal does not record."""
    args: Digest | None = None
    """Only for local activities."""
    completed_by: Name | None = None
    """The principal that completed the activity from outside; its policies are in ``policies``."""


class NextRun(Part):
    """The run that continues a sealed one."""

    workflow_type: Name
    task_queue: Name
    input: Digest
    restriction: Restriction | None = None
    """What that run is held to from its beginning."""


class Seal(Statement):
    """The final head of a run's chain."""

    typ: ClassVar[str] = "exequatur-seal+jwt"
    max_bytes: ClassVar[int] = 24_576

    iss: Name
    iat: Time
    grant: Digest
    workflow_id: Name
    workflow_type: Name
    original_run_id: Name
    run_id: Name
    seq: Annotated[int, Field(ge=0)]
    head: Digest
    outcome: SealOutcome
    start_fault: str | None = None
    """Why the start of the run was found not covered; absent when it was."""
    next: NextRun | None = None
    heard: Heard = ()
    messages: Digest | None = None
    """Head over all messages that the run handled; absent when there was none."""
    used: Heard = ()
    """The permits that the run used of late, each as short digest and when it was issued; they are not good again."""
    used_until: Time | None = None
    """Other permits that were issued no later are not good either; set where ``used`` could not hold them all."""


class Permit(Statement):
    """A client may do this one thing: send a message to a workflow, or start an activity or Nexus operation alone."""

    typ: ClassVar[str] = "exequatur-permit+jwt"
    max_bytes: ClassVar[int] = 12_288

    iss: Name
    sub: Name
    aud: Name
    iat: Time
    exp: Time
    jti: Name
    attributes: dict[str, JsonValue] = Field(default_factory=dict)
    parents: tuple[Name, ...] = ()
    act: Actor | None = None
    kind: PermitKind
    target: Name
    """Workflow id, activity id or Nexus operation id."""
    run_id: Name | None = None
    """The one run that it is for; without it, the run that is there."""
    name: Name
    """Of the message, activity type, or name of the Nexus operation."""
    task_queue: Name | None = None
    endpoint: Name | None = None
    """Of a Nexus operation, as is the service."""
    service: Name | None = None
    args: Digest
    bundle: Digest
    policies: tuple[Name, ...]
    mode: Mode


class Message(Statement):
    """A run signals another. It comes with the sender's chain."""

    typ: ClassVar[str] = "exequatur-message+jwt"
    max_bytes: ClassVar[int] = 12_288

    iss: Name
    aud: Name
    iat: Time
    exp: Time
    jti: Digest
    grant: Digest
    """Of the sender's leaf."""
    workflow_id: Name
    """Of the sender, as are the run ids."""
    original_run_id: Name
    run_id: Name
    kind: Literal["signal"] = "signal"
    target: Name
    target_run_id: Name | None = None
    name: Name
    args: Digest
    decision: Literal["allow", "deny"]
    policies: tuple[Name, ...] = ()
    reason: Annotated[str, Field(max_length=400)] | None = None
    bundle: Digest


class NexusCall(Statement):
    """A run starts a Nexus operation. It comes with the run's chain."""

    typ: ClassVar[str] = "exequatur-nexus+jwt"
    max_bytes: ClassVar[int] = 12_288

    iss: Name
    iat: Time
    exp: Time
    jti: Name
    grant: Digest
    """Of the caller's leaf."""
    namespace: Name
    """Of the caller, as are the workflow and the run ids."""
    workflow_id: Name
    workflow_type: Name
    original_run_id: Name
    run_id: Name
    first_run_id: Name
    endpoint: Name
    service: Name
    operation: Name
    args: Digest
    restriction: Restriction | None = None
    start_fault: str | None = None
    """Why the workflow worker found the start not covered by the grant; absent when it is."""


class Needed(Part):
    """Who would have to agree."""

    group: Name
    quorum: Annotated[int, Field(ge=1, le=1000)]
    ttl: Annotated[float, Field(gt=0)]
    """Seconds that an approval counts."""


class Challenge(Statement):
    """The gate would let this one request pass if these people agreed."""

    typ: ClassVar[str] = "exequatur-challenge+jwt"
    max_bytes: ClassVar[int] = 16_384

    iss: Name
    iat: Time
    exp: Time
    request: Digest
    """``jti`` of the request; it is the challenge's id."""
    request_digest: Digest
    grant: Digest
    """Of the run's leaf."""
    sub: Name
    """On whose behalf the run acts."""
    act: Actor | None = None
    """Who acts for it."""
    namespace: Name
    workflow_id: Name
    workflow_type: Name
    original_run_id: Name
    task_queue: Name
    activity_type: Name
    args: Digest
    arguments: Annotated[str, Field(max_length=4000)] | None = None
    """What Cedar was given of the arguments, as JSON, for those who are asked; absent where it is too long."""
    needs: Annotated[tuple[Needed, ...], Field(min_length=1, max_length=8)]
    keys: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=8)]
    """Thumbprints of the keys that approvals may be signed with: replay must not depend on keys that come later."""
    policies: tuple[Name, ...]
    reason: Annotated[str, Field(max_length=400)] | None = None
    bundle: Digest


class Approval(Statement):
    """A person agrees to one challenged request, or does not."""

    typ: ClassVar[str] = "exequatur-approval+jwt"
    max_bytes: ClassVar[int] = 8192

    iss: Name
    sub: Name
    """Who decided."""
    aud: Name
    iat: Time
    exp: Time
    jti: Name
    verdict: Literal["approve", "reject"]
    challenge: Digest
    """Of the challenge token."""
    request: Digest
    """``jti`` of the challenged request."""
    workflow_id: Name
    original_run_id: Name
    activity_type: Name
    args: Digest
    groups: Annotated[tuple[Name, ...], Field(max_length=8)]
    """The challenge's groups that the person belongs to."""
    reason: Annotated[str, Field(max_length=400)] | None = None
    bundle: Digest
    policies: tuple[Name, ...]


class HeartbeatMark(Statement):
    """These heartbeat details were recorded by this attempt, so that the next attempt may believe them."""

    typ: ClassVar[str] = "exequatur-heartbeat+jwt"
    max_bytes: ClassVar[int] = 2048

    iss: Name
    iat: Time
    request: Digest
    run_id: Name
    attempt: Annotated[int, Field(ge=1)]
    details: Digest


class RevocationHead(Statement):
    """This is all that has been revoked, as of now."""

    typ: ClassVar[str] = "exequatur-revocations+jwt"
    max_bytes: ClassVar[int] = 1024

    iss: Name
    aud: Name
    """Trust domain and cluster."""
    iat: Time
    """When it was signed; the same feed is signed again and again, so that a reader knows that nothing is withheld."""
    version: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    """How many entries the feed has."""
    head: Digest
    """Of the entries, each linked to the one before."""


class Release(Statement):
    """This policy bundle may be put in force: by all workers, or by a share of them first."""

    typ: ClassVar[str] = "exequatur-release+jwt"
    max_bytes: ClassVar[int] = 4096

    iss: Name
    iat: Time
    exp: Time | None = None
    name: BundleName
    bundle: Digest
    """Of the content of the bundle file."""
    digest: Digest
    """Of the policies, as decisions and receipts name them."""
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    share: Annotated[int, Field(ge=1, le=100)] | None = None
    """Per cent of the workers; without it, all of them."""


ALL: tuple[type[Statement], ...] = (
    WorkloadCredential,
    Grant,
    Delegation,
    Request,
    Receipt,
    Seal,
    HeartbeatMark,
    Release,
    Permit,
    Message,
    NexusCall,
    Challenge,
    Approval,
    RevocationHead,
)


def claims_json(statement: Statement) -> bytes:
    """The JWS payload: the fields in their declared order, absent ones left out."""
    return statement.model_dump_json(exclude_none=True).encode()


def claims_dict(statement: Statement) -> dict[str, Any]:
    """The claims as plain JSON values."""
    return statement.model_dump(mode="json", exclude_none=True)
