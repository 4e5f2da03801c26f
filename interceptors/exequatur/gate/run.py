"""A governed run, as its own workflow code sees it: the grant it was started with, its chain, and its verdicts.

Everything here runs inside the workflow sandbox. What replay must repeat (the chain, the verdict on a receipt, the
run's modes) depends only on what history records: the start header, results, and anchors that are only ever added. What
is signed but never recomputed (times, names, digests) may use the worker's own knowledge, and is made only when the
workflow is not replaying.

Rules, numbered as the code marks them:

W1  A start header that cannot be read gives a run that may not schedule anything.
W2  A grant that does not verify, or is for another workflow, gives a run with the strictest modes: its mode and its
    recorded queues are not believed. The gate refuses its requests.
W3  A key that is not known yet is no verdict: the workflow task fails and is tried again.
W4  A first run started in time, with the input that was granted.
W5  A run that continues another came with that run's seal, which names its type, queue and input.
W6  A retry or a cron run is one that the grant may be used again for.
W7  A run with a delegation is a child of the workflow that delegated, unless that one started it with a signal.
W8  A run with the grant of a schedule was started by that schedule for the time that its id names, and not before.
W10  A run that continues another is held to what that run's seal hands on.
W9  A grant that renews another starts no run: it stands only where a run hands it on.
W12  A run whose start is not covered covers no other: neither a child nor the run that continues it.
W13  An enforced run signs nothing with a credential that has ended while the authority is away: what it asked for would
     be refused for good, and what it sealed could not be continued. Its workflow task fails and is tried again,
     whatever the workflow's code catches.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from functools import cached_property
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import SearchAttributeKey

from exequatur.errors import ExequaturError, StatementError, UndecidedError, UnknownKeyError
from exequatur.gate.challenges import Challenges
from exequatur.gate.codec import decoded_here
from exequatur.gate.gate import Gate
from exequatur.gate.heard import Heard
from exequatur.gate.restricting import handed_on, wanted
from exequatur.gate.wire import activity_header, payloads_digest, read_start_header, start_header
from exequatur.identity.workload import Workload
from exequatur.lineage.chain import fold, genesis
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.keys import thumbprint
from exequatur.statements.models import (
    Delegation,
    Grant,
    NextRun,
    Request,
    RequestCore,
    Restriction,
    Reuse,
    Seal,
    SealOutcome,
    WorkflowAuthorization,
    WorkloadCredential,
    short_digest,
)
from exequatur.statements.renewal import verify_renewal
from exequatur.statements.verification import Chain, Credentials, Scope, matches, verify_chain, verify_seal
from exequatur.workflow import restrictions

_KNOWN = 4
"""How many credentials a request names as known; a worker renews its own once in a while."""
_CORE = tuple(RequestCore.model_fields)
_SCHEDULED_BY = SearchAttributeKey.for_keyword("TemporalScheduledById")
_SCHEDULED_FOR = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
"""What the server's scheduler sets on each run that it starts."""


class GovernedRun:
    """One run that carries a start header of ours.

    Raises:
        UnknownKeyError: W3.
    """

    def __init__(self, gate: Gate, info: workflow.Info, tokens: Sequence[str] | None, unreadable: str | None) -> None:
        self.gate = gate
        self.info = info
        self.unreadable = unreadable
        """W1: why nothing may be scheduled."""
        self._first_input = decoded_here()[:1]
        self.tokens: list[str] = []
        self._seal: str | None = None
        self._credentials = Credentials(gate.trust)
        self.receivers = Credentials(gate.trust)
        """The credentials that came with receipts, which a later receipt may leave out."""
        self.chain: Chain | None = None
        """What the run stands on."""
        self.began: Chain | None = None
        """What it stood on when it started."""
        self.challenges = Challenges(self)
        self.fault: str | None = unreadable
        """Why the start is not covered by the grant."""
        if tokens:
            self._read(tokens)
        self.seq = 0
        self.seen: list[int] = []
        self.heard = Heard()
        self.head = ""
        if unreadable is None:
            self.leaf = digest(self._leaf_text)
            self.head = genesis(
                namespace=self.chain.namespace if self.chain else "",
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                original_run_id=info.original_execution_run_id,
                leaf=self.leaf,
                seal=digest(self._seal) if self._seal else None,
            )

    @classmethod
    def of(cls, gate: Gate, info: workflow.Info) -> GovernedRun | None:
        """The run, or ``None`` when its start header holds nothing of ours.

        Raises:
            UnknownKeyError: W3.
        """
        try:
            tokens = read_start_header(info.headers)
            if tokens is None:
                return None
            kinds = [type_of(token) for token in tokens]
            if kinds[0] != Grant.typ or not set(kinds[1:]) <= {Delegation.typ, WorkloadCredential.typ, Seal.typ}:
                raise StatementError("W1", "The start header does not hold a grant and what belongs to it")
            try:
                # A request carries them on.
                activity_header((), tokens)
            except ValueError as err:
                raise StatementError("W1", f"The start header holds something that is no statement: {err}") from err
        except UnknownKeyError:
            raise
        except StatementError as err:  # [W1]
            return cls(gate, info, None, str(err))
        return cls(gate, info, tokens, None)

    def _read(self, tokens: Sequence[str]) -> None:
        """W2: sort the tokens and verify the chain."""
        delegations = [token for token in tokens if type_of(token) == Delegation.typ]
        credentials = [token for token in tokens if type_of(token) == WorkloadCredential.typ]
        seals = [token for token in tokens if type_of(token) == Seal.typ]
        self._seal = seals[0] if seals else None
        self._leaf_text = delegations[-1] if delegations else tokens[0]
        # What an activity's header needs of it: the seal stays behind.
        self.tokens = [token for token in tokens if type_of(token) != Seal.typ]
        try:
            held = {text: self._credentials.add(text).claims for text in credentials}
            chain = verify_chain(tokens[0], delegations, self._credentials, self.gate.trust, aud=None)
            leaf = chain.authorization
            if not leaf.is_for(self.info.workflow_id):
                raise StatementError("W2", f"The grant is for workflow {leaf.workflow_id}")
            if self.info.workflow_type not in (leaf.workflow_type, *leaf.continues_as):
                raise StatementError("W2", f"The grant is for workflow type {leaf.workflow_type}")
            self.chain = self.began = chain
            # Those who continued the runs before signed only seals. Kept, they would fill the header in time.
            signed = [(token.kid, token.claims.iat) for token in chain.delegations]
            spent = {
                text
                for text, claims in held.items()
                if not any(thumbprint(claims.cnf.jwk.x) == kid and claims.nbf <= at <= claims.exp for kid, at in signed)
            }
            self.tokens = [token for token in self.tokens if token not in spent]
        except UnknownKeyError:  # W3
            raise
        except StatementError as err:
            self.fault = str(err)

    @property
    def enforced(self) -> bool:
        """Whether a result without a valid receipt is refused."""
        return self.chain is None or self.chain.grant.claims.mode == "enforce"

    @property
    def can_sign(self) -> bool:
        """Whether this process has a credential; a replayer has none."""
        try:
            return bool(self.gate.workload.credential)
        except ExequaturError:
            return False

    def ready(self, *, closing: bool = False) -> Workload:
        """This process's identity, to sign with.

        Args:
            closing: The run ends with it, and asks for nothing more.

        Raises:
            UndecidedError: W13.
        """
        ended = self.gate.ready_to_sign(closing=closing)
        # What a replay signs for a local activity is mostly not sent; if it is, the gate of that activity waits.
        if ended and (not self.can_sign or (self.enforced and not workflow.unsafe.is_replaying())):
            fail_task(UndecidedError(f"Nothing can be signed now: {ended}"))  # [W13]
        return self.gate.workload

    @cached_property
    def ver(self) -> int:
        """Version of the grant, verified or not; one that cannot be read is taken for the newest."""
        try:
            return parse(self.tokens[0], Grant).claims.ver if self.tokens else 2
        except StatementError:
            return 2

    @property
    def sealed(self) -> bool:
        """Whether it came with the seal of another run."""
        return self._seal is not None

    @cached_property
    def before(self) -> Seal | None:
        """What the run that this one continues sealed, if that verifies."""
        if self.began is not None and self._seal:
            try:
                seal = verify_seal(self._seal, self._credentials, self.began, workflow_type=self.info.workflow_type)
            except UnknownKeyError:  # W3
                raise
            except StatementError:  # W5: the gate refuses its requests
                pass
            else:
                return seal.claims
        return None

    @property
    def _continues(self) -> NextRun | None:
        """What the run before says of this one, if this one continues it."""
        return self.before.next if self.before else None

    @property
    def task_queue(self) -> str | None:
        """The run's own task queue as far as it is recorded: a run may continue another on another queue."""
        if self.chain is None:
            return None
        return self._continues.task_queue if self._continues else self.chain.authorization.task_queue

    def restriction(self) -> Restriction | None:
        """What the run asks to be held to here and now.

        Raises:
            GrantRejected: X5.
        """
        held = self._continues.restriction if self._continues else None  # [W10]
        return wanted(held, restrictions())

    def handed_on(self, restriction: Restriction | None) -> WorkflowAuthorization | None:
        """What a child may hold of what this run holds; ``None`` where that is nothing.

        Raises:
            GrantRejected: X5.
        """
        return None if self.chain is None else handed_on(self.chain.authorization, restriction)

    def recorded_queue(self, task_queue: str | None) -> bool:
        """Whether results of this task queue may come without a receipt."""
        queue = task_queue or self.task_queue
        return self.chain is not None and queue is not None and matches(queue, self.chain.grant.claims.recorded_queues)

    def scope(self, activity_type: str, task_queue: str | None) -> Scope:
        """Where an activity's worker must be credentialed for."""
        if self.chain is None:
            return Scope("")
        return Scope(self.chain.site, self.chain.namespace, task_queue or self.task_queue, activity_type)

    @property
    def workflow_type(self) -> str:
        return self.info.workflow_type

    def renew(self, text: str) -> None:
        """Stand on a renewed grant from now on.

        Raises:
            UnknownKeyError: The trust store does not know its key: not a verdict.
            StatementError: Z1 to Z5, or the run's own grant does not verify.
        """
        if self.chain is None:
            raise StatementError("Z2", "The run's own grant does not verify")
        self.chain = verify_renewal(text, self.chain, self.gate.trust)
        self.leaf = self.chain.leaf.digest
        self.tokens = [text]

    def next_core(self, activity_type: str) -> RequestCore:
        return RequestCore(
            grant=self.leaf,
            workflow_id=self.info.workflow_id,
            original_run_id=self.info.original_execution_run_id,
            seq=self.seq + 1,
            activity_type=activity_type,
            prev=self.head,
        )

    def header_for(
        self,
        core: RequestCore,
        *,
        args: str,
        task_queue: str,
        activity_id: str | None,
        local: bool,
        restriction: Restriction | None,
        answers: str | None = None,
        challenge: Sequence[str] = (),
    ) -> Payload:
        """Sign the request and pack it with what it stands on.

        Args:
            core: What replay recomputes.
            args: Digest of the arguments' payloads.
            task_queue: Where it is to run.
            activity_id: If the user set one.
            local: Whether it is a local activity.
            restriction: What it is to be held to.
            answers: ``jti`` of the challenged request that this one repeats.
            challenge: The credential of the challenge, the challenge, and the approvals.
        """
        workload, info = self.ready(), self.info
        request = workload.sign(
            Request(
                **{name: getattr(core, name) for name in _CORE},
                iss=workload.id,
                jti=core.hash(),
                # In a replay the workflow's time may be older than this worker's credential.
                iat=round(self.gate.clock() if workflow.unsafe.is_replaying() else workflow.time(), 3),
                namespace=info.namespace,
                workflow_type=info.workflow_type,
                run_id=info.run_id,
                first_run_id=info.first_execution_run_id,
                task_queue=task_queue,
                args=args,
                seen=tuple(self.seen),
                knows=tuple(short_digest(each.digest) for each in self.receivers.latest(_KNOWN)),
                activity_id=activity_id,
                local=local,
                start_fault=self.start_fault,
                restriction=restriction,
                answers=answers,
                **self.heard.told(),
            )
        )
        kept = list(dict.fromkeys([*self.tokens, workload.credential.text]))
        return activity_header([*(each for each in challenge if each not in kept), request.text], kept)

    def requested(self, core: RequestCore) -> None:
        """Fold a request that was scheduled into the chain."""
        self.seq = core.seq
        self.seen = []
        self.heard.requested()
        self.head = fold(self.head, "request", core.hash())

    def received(self, seq: int, receipt_digest: str) -> None:
        """Fold a receipt that the workflow has seen into the chain."""
        self.seen.append(seq)
        self.head = fold(self.head, "receipt", receipt_digest)

    @cached_property
    def start_fault(self) -> str | None:
        """W4 to W9 and W12, from what this worker sees now. Never part of what replay repeats."""
        if self.fault or self.began is None:
            return (self.fault or "the grant does not verify")[:400]
        info, chain, leaf = self.info, self.began, self.began.authorization
        for delegation in chain.delegations:
            if delegation.claims.start_fault is not None:  # [W12]
                return f"the run that handed it down was not covered: {delegation.claims.start_fault}"[:400]
        started = info.workflow_start_time.timestamp()
        granted_input = leaf.input
        if self._seal:
            try:
                seal = verify_seal(self._seal, self._credentials, chain, workflow_type=info.workflow_type).claims
            except StatementError as err:
                return str(err)[:400]
            granted_input = seal.next.input if seal.next else ""
            if seal.start_fault is not None:  # [W12]
                return f"the run that it continues was not covered: {seal.start_fault}"[:400]
            # A retry continues the attempt before it, and a cron run the run before it; both keep the header.
            if seal.workflow_id != info.workflow_id:  # [W5]
                return "the seal that it came with is of another workflow"
            first = info.attempt == 1 and leaf.reuse != "cron"
            if first and seal.run_id != info.continued_run_id:  # [W5]
                return "the seal that it came with is of another run"
        elif info.continued_run_id and info.attempt == 1 and leaf.reuse != "cron":  # [W5]
            return "it continues another run without that run's seal"
        elif not info.continued_run_id and info.attempt == 1:
            leeway = self.gate.settings.clock_leeway.total_seconds()
            begins, ends = self._start_window(chain)
            if not begins - leeway <= started <= ends + leeway:  # [W4]
                return "it was started too long after the grant was issued, or before"
            if leaf.workflow_type != info.workflow_type:
                return f"the grant starts {leaf.workflow_type}"
            if leaf.reuse == "schedule" and (fault := self._schedule_fault(leaf)):  # [W8]
                return fault
        if not self._seal and not chain.delegations and chain.grant.claims.renews is not None:  # [W9]
            return "its grant was made for a run that had started already"
        detached = chain.delegations[-1].claims.detached and info.parent is None if chain.delegations else False
        parent = info.parent.workflow_id if info.parent else ""
        if chain.delegations and not detached and not chain.handed_down_by(parent):  # [W7]
            return "its delegation comes from another workflow than its parent"
        if info.attempt > 1 and leaf.reuse == "once":  # [W6]
            return "the grant is for one attempt of the workflow and this is another"
        if self._observed_input() != granted_input:  # [W4]
            return "its input is not the one that was granted"
        return None

    def _schedule_fault(self, leaf: WorkflowAuthorization) -> str | None:
        """W8. What the scheduler sets is the server's word only against other schedules: a start by hand can set it."""
        info, given = self.info, self.info.typed_search_attributes
        due = given.get(_SCHEDULED_FOR)
        if given.get(_SCHEDULED_BY) != leaf.schedule or due is None:  # [W8]
            return f"schedule {leaf.schedule} did not start it"
        try:
            due = due.astimezone(UTC)
        except OverflowError:  # whoever starts a run may set any time
            return "its scheduled time is beyond the calendar"
        if f"{due:%Y-%m-%dT%H:%M:%SZ}" != leaf.due(info.workflow_id):  # [W8]
            return "its id names another time than the one that the schedule started it for"
        leeway = self.gate.settings.clock_leeway.total_seconds()
        if due.timestamp() > info.workflow_start_time.timestamp() + leeway:  # [W8]
            return "it was started before the schedule was due"
        return None

    def _start_window(self, chain: Chain) -> tuple[float, float]:
        if not chain.delegations:
            return chain.grant.claims.iat, chain.grant.claims.start_by
        claims = chain.delegations[-1].claims
        return claims.iat, claims.iat + self.gate.settings.schedule_bound.total_seconds()

    def _observed_input(self) -> str:
        count = len(_workflow_args())
        return payloads_digest(self._first_input[0] if count and self._first_input else [])

    def delegate(
        self,
        *,
        workflow_type: str,
        workflow_id: str,
        task_queue: str,
        input_digest: str,
        reuse: Reuse,
        holds: WorkflowAuthorization | None,
        detached: bool = False,
    ) -> Payload:
        """Sign a delegation for a child workflow and pack the child's start header.

        Args:
            workflow_type: Of the child, as are the next four.
            workflow_id: Its id.
            task_queue: Its task queue.
            input_digest: Digest of its arguments' payloads.
            reuse: How often it may use the delegation.
            holds: What it may hold, from :meth:`handed_on`. Its end is this run's end, or the restriction's.
            detached: It is started with a signal, which makes it no child for Temporal.
        """
        chain = self.chain
        if chain is None or holds is None:
            return start_header(self.tokens)
        workload = self.ready()
        now = round(workflow.time(), 3)
        expires = chain.expires if holds.until is None else min(chain.expires, max(holds.until, now))
        delegation = workload.sign(
            Delegation(
                iss=workload.id,
                aud=chain.grant.claims.aud,
                iat=now,
                exp=expires,
                jti=digest(f"{self.head} {workflow_id} {workflow.time()}"),
                parent=chain.leaf.digest,
                parent_run_id=self.info.original_execution_run_id,
                parent_first_run_id=self.info.first_execution_run_id,
                start_fault=self.start_fault,
                depth=len(chain.delegations) + 1,
                authorization_details=(
                    WorkflowAuthorization(
                        workflow_type=workflow_type,
                        workflow_id=workflow_id,
                        task_queue=task_queue,
                        activities=holds.activities,
                        continues_as=self.gate.settings.continues_as.get(workflow_type, ()),
                        input=input_digest,
                        reuse=reuse,
                        forbid=holds.forbid,
                        until=holds.until,
                        child=True,
                    ),
                ),
                detached=True if detached else None,
            )
        )
        return start_header(list(dict.fromkeys([*self.tokens, workload.credential.text, delegation.text])))

    def seal(self, outcome: SealOutcome, following: NextRun | None = None) -> Token[Seal]:
        """Sign the final head."""
        workload, info, now = self.ready(closing=True), self.info, round(workflow.time(), 3)
        seal = Seal(
            iss=workload.id,
            iat=now,
            grant=self.leaf,
            workflow_id=info.workflow_id,
            workflow_type=info.workflow_type,
            original_run_id=info.original_execution_run_id,
            run_id=info.run_id,
            seq=self.seq,
            head=self.head,
            outcome=outcome,
            start_fault=None if self.unreadable else self.start_fault,
            next=following,
        )
        continued = outcome == "continued"
        try:
            return workload.sign(seal.model_copy(update=self.heard.sealed(now, continued=continued)))
        except ValueError:
            # Next to very long names there is no room to list messages.
            return workload.sign(seal.model_copy(update=self.heard.sealed(now, continued=continued, room=0)))

    def continued_header(self, seal: Token[Seal]) -> Payload:
        """The start header of the run that continues this one."""
        kept = [*self.tokens, self.gate.workload.credential.text, seal.text]
        return start_header(list(dict.fromkeys(kept)))


def fail_task(error: UndecidedError) -> NoReturn:
    """Fail the workflow task, also where the workflow's code catches every exception."""
    instance: Any = workflow._Runtime.current()
    instance._current_activation_error = error
    raise error


def _workflow_args() -> Sequence[object]:
    """The start arguments as the SDK decoded them; one element per payload."""
    instance = workflow._Runtime.current()
    given = getattr(instance, "_workflow_input", None)
    if given is None:
        return ()
    args: Sequence[object] = given.args
    definition = getattr(instance, "_defn", None)
    if definition is not None and not definition.name and args:
        return args[0]  # type: ignore[return-value]
    return args
