"""How a run was started: its grant, and whether it was started as granted.

The workflow worker checks the same when the run begins (rules W of :mod:`exequatur.gate.run`) and vouches for it in
each request. Here it is checked again, from what the history records.

Rules, numbered as the code marks them:

S1  The start header holds a grant first, then delegations, credentials and a seal, and nothing else.
S2  Grant and delegations verify, and are for this workflow id and a type that it may have.
S3  A first run started between the grant's issue and its ``start_by``, or within a bound of its delegation.
S4  Its input and task queue are those that were granted, or those that the seal of the run before names.
S5  A run that continues another came with that run's seal; a child was handed its delegation by its parent, unless
    that one started it with a signal.
S6  Only a grant that may be used again serves another attempt.
S7  A run with the grant of a schedule was started by that schedule for the time that its id names, and not before.
S8  A grant that renews another starts no run: it stands only where a run hands it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.common.v1 import Payload

from exequatur.audit.activities import seconds
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Finding, finding
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.wire import payloads_digest, read_start_header
from exequatur.lineage.chain import genesis
from exequatur.settings import Settings
from exequatur.statements.encoding import digest, strict_json
from exequatur.statements.jws import Token, type_of
from exequatur.statements.models import (
    Delegation,
    Grant,
    Restriction,
    Seal,
    WorkflowAuthorization,
    WorkloadCredential,
)
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain, Credentials, verify_chain, verify_seal

LEEWAY = 60.0
"""Seconds that the clocks of server and authority may differ."""
SCHEDULE_BOUND: float = Settings.model_fields["schedule_bound"].default.total_seconds()


@dataclass
class Start:
    """What the start header says.

    Args:
        trust: The anchors.
        credentials: Those that came along; those of requests are added.
        tokens: Grant, delegations and credentials, as they stand there; empty in an ungoverned run.
        chain: The verified grant with its delegations.
        seal: The verified seal of the run before.
        genesis: The head that the run's chain begins from.
        leaf: Digest of the grant, or of the last delegation.
        findings: What is wrong.
    """

    trust: TrustStore
    credentials: Credentials
    tokens: list[str] = field(default_factory=list)
    chain: Chain | None = None
    seal: Token[Seal] | None = None
    genesis: str = ""
    leaf: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def governed(self) -> bool:
        return bool(self.tokens)

    @property
    def handed(self) -> Restriction | None:
        """What the run is held to from its beginning, as the run before has it."""
        following = self.seal.claims.next if self.seal is not None else None
        return following.restriction if following is not None else None

    def wrong(self, code: str, sentence: str) -> None:
        self.findings.append(finding(code, sentence, event_id=1))


def read_start(history: RunHistory, trust: TrustStore) -> Start:
    """Read and verify a run's start header. Never raises: what is wrong is among the findings."""
    start = Start(trust, Credentials(trust))
    try:
        tokens = read_start_header(dict(history.started.header.fields))
        if tokens is None:
            return start
        kinds = [type_of(token) for token in tokens]
    except StatementError as error:  # [S1]
        start.tokens = [""]
        start.wrong("start-unreadable", f"The start header cannot be read: {error}")
        return start
    start.tokens = tokens
    belongs = {Delegation.typ, WorkloadCredential.typ, Seal.typ}
    if kinds[0] != Grant.typ or not set(kinds[1:]) <= belongs or kinds.count(Seal.typ) > 1:  # [S1]
        start.wrong("start-unreadable", "The start header does not hold a grant and what belongs to it")
        return start
    delegations = [token for token, kind in zip(tokens, kinds, strict=True) if kind == Delegation.typ]
    seals = [token for token, kind in zip(tokens, kinds, strict=True) if kind == Seal.typ]
    start.leaf = digest(delegations[-1] if delegations else tokens[0])
    try:
        for token, kind in zip(tokens, kinds, strict=True):
            if kind == WorkloadCredential.typ:
                start.credentials.add(token)
        chain = start.chain = verify_chain(tokens[0], delegations, start.credentials, trust, aud=None)  # [S2]
    except UnknownKeyError as error:
        start.wrong("key-unknown", f"{error}; add the authority's keys to the trust file")
        return start
    except StatementError as error:
        start.wrong("grant-invalid", str(error))
        return start
    started = history.started
    start.genesis = genesis(
        namespace=chain.namespace,
        workflow_id=history.workflow_id,
        workflow_type=started.workflow_type.name,
        original_run_id=history.original_run_id,
        leaf=start.leaf,
        seal=digest(seals[0]) if seals else None,
    )
    _check_binding(start, chain, history)
    _check_start(start, chain, history, seals)
    return start


def _check_binding(start: Start, chain: Chain, history: RunHistory) -> None:
    """S2."""
    leaf, workflow_type = chain.authorization, history.started.workflow_type.name
    if not leaf.is_for(history.workflow_id):
        start.wrong("grant-invalid", f"The grant is for workflow {leaf.workflow_id}, not for {history.workflow_id}")
    if workflow_type not in (leaf.workflow_type, *leaf.continues_as):
        start.wrong("grant-invalid", f"The grant is for workflow type {leaf.workflow_type}, not {workflow_type}")


def _check_start(start: Start, chain: Chain, history: RunHistory, seals: Sequence[str]) -> None:
    """S3 to S8."""
    started, leaf = history.started, chain.authorization
    again = started.attempt > 1
    recurring = leaf.reuse == "cron"
    granted = leaf.input
    if seals:
        try:
            start.seal = verify_seal(
                seals[0],
                start.credentials,
                chain,
                workflow_type=started.workflow_type.name,
                task_queue=started.task_queue.name,
            )
        except UnknownKeyError as error:
            start.wrong("key-unknown", f"{error}; add the authority's keys to the trust file")
            return
        except StatementError as error:  # [S5]
            start.wrong("start-not-granted", str(error))
            return
        seal = start.seal.claims
        granted = seal.next.input if seal.next else ""
        if seal.workflow_id != history.workflow_id:  # [S5]
            start.wrong("start-not-granted", "The seal that the run came with is of another workflow")
        if not again and not recurring and seal.run_id != started.continued_execution_run_id:  # [S5]
            start.wrong("start-not-granted", "The seal that the run came with is of another run")
    elif started.continued_execution_run_id and not again and not recurring:  # [S5]
        start.wrong("start-not-granted", "The run continues another without that run's seal")
    elif not started.continued_execution_run_id and not again:
        claims = chain.delegations[-1].claims if chain.delegations else chain.grant.claims
        ends = claims.start_by if isinstance(claims, Grant) else claims.iat + SCHEDULE_BOUND
        if not claims.iat - LEEWAY <= seconds(history.events[0]) <= ends + LEEWAY:  # [S3]
            start.wrong("start-not-granted", "The run was started too long after its grant was issued, or before")
        if leaf.workflow_type != started.workflow_type.name:
            start.wrong("start-not-granted", f"The grant starts {leaf.workflow_type}")
        if leaf.reuse == "schedule" and (sentence := _schedule_fault(history, leaf)):  # [S7]
            start.wrong("start-not-granted", sentence)
    if not seals and not chain.delegations and chain.grant.claims.renews is not None:  # [S8]
        start.wrong("start-not-granted", "The grant was made for a run that had started already")
    parent = started.parent_workflow_execution.workflow_id
    detached = bool(chain.delegations and chain.delegations[-1].claims.detached and not parent)
    if chain.delegations and not detached and not chain.handed_down_by(parent):  # [S5]
        start.wrong("start-not-granted", "The delegation comes from another workflow than the parent")
    if again and leaf.reuse == "once":  # [S6]
        start.wrong("start-not-granted", "The grant is for one attempt of the workflow, and this is another")
    if not seals and started.task_queue.name != leaf.task_queue:  # [S4]
        start.wrong("start-not-granted", f"The grant is for task queue {leaf.task_queue}")
    if payloads_digest(started.input.payloads) != granted:  # [S4]
        start.wrong("start-not-granted", "The input of the run is not the one that was granted")


def _schedule_fault(history: RunHistory, leaf: WorkflowAuthorization) -> str | None:
    """S7: what is wrong with how a schedule's run was started, by what the scheduler set on it."""
    given = history.started.search_attributes.indexed_fields
    schedule, due = (_text(given.get(name)) for name in ("TemporalScheduledById", "TemporalScheduledStartTime"))
    if schedule != leaf.schedule or due is None:
        return f"Schedule {leaf.schedule} did not start the run"
    try:
        moment = datetime.fromisoformat(due)
    except ValueError:
        moment = None
    if (
        moment is None
        or moment.tzinfo is None
        or f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" != leaf.due(history.workflow_id)
    ):
        return "The run's id names another time than the one that the schedule started it for"
    if moment.timestamp() > seconds(history.events[0]) + LEEWAY:
        return "The run was started before the schedule was due"
    return None


def _text(payload: Payload | None) -> str | None:
    """A search attribute that is a text."""
    try:
        found = strict_json(payload.data) if payload is not None else None
    except ValueError:
        return None
    return found if isinstance(found, str) else None
