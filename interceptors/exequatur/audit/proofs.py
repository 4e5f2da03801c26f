"""The signed statements of a run's activities: requests, receipts and denials, against what the history records.

Rules, numbered as the code marks them (R are those of :mod:`exequatur.statements.requests`, P those of
:mod:`exequatur.statements.receipts`):

Q1  Every scheduled activity has a request that is for this very activity (R1 to R14 but for R8, O1 to O14).
Q2  It stands on what the run stood on then (rules J of :mod:`exequatur.audit.standing`), and was made by the run that
    was going on when it was scheduled: before a reset, that is the run that was reset.
Q3  Every result has a receipt by a credentialed worker for that request and result (P1 to P7), unless the grant lets
    the task queue leave it out.
Q4  A receipt repeats the request's digest, the activity's id and type, its attempt and its run.
Q5  A failure that claims to be the gate's carries a receipt of the worker that says the same.
Q6  A local activity is one that the grant allows, and ran where the workflow did: its worker may make requests.
Q7  A run that another one handed on is held to what that one's seal says, in all that it asks for.
Q8  A failure that asks people, or brings a renewed grant, does that rightly (rules E and J).
Q9  What the grant does not allow (R8) the gate refused, before Cedar was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from exequatur.audit.activities import Activity, seconds
from exequatur.audit.agreed import Challenges
from exequatur.audit.chain import Asked
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Finding, finding
from exequatur.audit.restrictions import narrower
from exequatur.audit.standing import Standing
from exequatur.audit.start import SCHEDULE_BOUND, Start
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.failures import (
    AuthorizationChallenge,
    AuthorizationDenied,
    AuthorizationRevoked,
    AuthorizationUnavailable,
    GrantRejected,
)
from exequatur.gate.wire import payloads_digest, read_activity_header
from exequatur.statements.encoding import digest
from exequatur.statements.jws import Token, parse, type_of
from exequatur.statements.models import Approval, Challenge, Grant, Receipt, Request, RequestCore, WorkloadCredential
from exequatur.statements.packing import unpack
from exequatur.statements.receipts import verify_receipt
from exequatur.statements.requests import Authorized, Task, allows, core_of, read_request
from exequatur.statements.verification import Chain, Credentials, Scope, matches

_SAYS = {
    AuthorizationDenied.__name__: "denied",
    GrantRejected.__name__: "rejected",
    AuthorizationRevoked.__name__: "revoked",
}
"""The outcome that the receipt of each failure names. What could not be decided has no receipt."""
_ASKING = ("challenge", "renewal")
"""What the details of a failure hold that asks people, or brings a renewed grant."""
_HELP = "add the authority's keys to the trust file"


@dataclass
class Proof:
    """What was found about one activity.

    Args:
        activity: As the history records it.
        request: The verified request; ``None`` for a local activity, and where there is no valid one.
        core: Its core, which the receipt of a local activity repeats.
        receipt: The verified receipt or denial.
        folded: The digest of what the workflow folded into its chain.
        chain: The grant and delegations that the request stands on.
        authorized: The verified request with all that came with it; ``None`` where there is no request.
        challenge: The verified challenge that it failed with.
        renewal: The verified renewed grant that it failed with.
        beyond: The grant does not allow such an activity: the gate has to refuse it.
    """

    activity: Activity
    request: Token[Request] | None = None
    core: RequestCore | None = None
    receipt: Token[Receipt] | None = None
    folded: str | None = None
    chain: Chain | None = None
    authorized: Authorized | None = None
    challenge: Token[Challenge] | None = None
    renewal: Token[Grant] | None = None
    beyond: bool = False

    @property
    def args(self) -> str | None:
        """Digest of the arguments: of the recorded ones, or as a local activity's worker has signed it."""
        if not self.activity.local:
            return payloads_digest(self.activity.input)
        return self.receipt.claims.args if self.receipt else None


class Proofs:
    """The statements of one run.

    Args:
        history: The run.
        start: How it was started.
        chain: Its verified grant.
        wanted: Called before each of them; what it raises ends the audit.
    """

    def __init__(
        self, history: RunHistory, start: Start, chain: Chain, wanted: Callable[[], object] = lambda: None
    ) -> None:
        self._wanted = wanted
        self._history = history
        self._start = start
        self._chain = chain
        self.standing = Standing(chain, start.trust)
        self.challenges = Challenges(history, chain.grant.claims.aud, start.trust)
        self.receivers = Credentials(start.trust)
        self.findings: list[Finding] = []

    def of(self, activities: Sequence[Activity]) -> list[Proof]:
        """Verify them all, requests and ends in the order in which they came."""
        proofs = [Proof(activity) for activity in activities]
        steps: list[tuple[int, Proof, Callable[[Proof], None]]] = []
        for proof in proofs:
            local = proof.activity.local
            if not local:
                steps.append((proof.activity.event.event_id, proof, self._request))
            if proof.activity.ended is not None:
                steps.append((_ended_at(proof), proof, self._local if local else self._end))
        for _, proof, check in sorted(steps, key=lambda step: step[0]):
            self._wanted()
            self._attempt(proof, check)
        return proofs

    def wrong(self, code: str, sentence: str, activity: Activity, *, at_end: bool = False) -> None:
        event = activity.ended if at_end and activity.ended is not None else activity.event
        name = f"{activity.activity_type or 'activity'} ({activity.activity_id})"
        self.findings.append(
            finding(code, f"{name}: {sentence}", event_id=event.event_id, activity_id=activity.activity_id)
        )

    def _attempt(self, proof: Proof, check: Callable[[Proof], None]) -> None:
        try:
            check(proof)
        except UnknownKeyError as error:
            self.wrong("key-unknown", f"{error}; {_HELP}", proof.activity)

    def _request(self, proof: Proof) -> None:
        """Q1 and Q2."""
        activity, history = proof.activity, self._history
        task = Task(
            namespace=self._chain.namespace,
            workflow_id=history.workflow_id,
            workflow_type=history.started.workflow_type.name,
            run_id=history.run_id,
            activity_id=activity.activity_id,
            activity_type=activity.activity_type,
            task_queue=activity.task_queue,
            scheduled=seconds(activity.event),
            args=payloads_digest(activity.input),
            local=False,
        )
        tokens: list[str] | None = None
        bare: list[str] = []
        try:
            tokens = read_activity_header(activity.headers)
            if tokens is None:
                self.wrong("request-missing", "it was scheduled without a signed request", activity)
                return
            for token in tokens:
                if type_of(token) == WorkloadCredential.typ:
                    self._start.credentials.add(token)
            agreed = {Challenge.typ, Approval.typ}
            bare = [token for token in tokens if type_of(token) not in agreed]
            authorized = self._read(tokens, task)  # [Q1]
        except UnknownKeyError:
            raise
        except StatementError as error:
            of_approvals = 0 < len(bare) < len(tokens or ()) and self._holds(bare, task)
            code = "approval-invalid" if of_approvals else "request-invalid"
            self.wrong(code, str(error), activity)
            return
        claims = authorized.request.claims
        chain = self.standing.moved_to(claims.grant, activity.event.event_id)
        if chain is None:  # [Q2]
            self.wrong("request-invalid", "its request stands on another grant than the run", activity)
        elif claims.original_run_id != history.original_run_id or claims.run_id != history.run_at(
            activity.event
        ):  # [Q2]
            self.wrong("request-invalid", "its request was made by another run", activity)
        elif claims.first_run_id != history.started.first_execution_run_id:  # [Q2]
            self.wrong("request-invalid", "its request was made by another execution of the workflow", activity)
        else:
            proof.request, proof.core = authorized.request, core_of(claims)
            proof.chain, proof.authorized = chain, authorized
            proof.beyond = not allows(chain, activity.activity_type)
            self._check_narrowed(proof)
            self._check_agreement(proof, authorized)

    def _read(self, tokens: Sequence[str], task: Task) -> Authorized:
        """Verify a request.

        Raises:
            StatementError: It does not authorize the task.
        """
        aud = self._chain.grant.claims.aud
        return read_request(tokens, task, self._start.trust, aud=aud, max_depth=64, schedule_bound=SCHEDULE_BOUND)

    def _holds(self, tokens: Sequence[str], task: Task) -> bool:
        """Whether a request is right but for the approvals that were taken out."""
        try:
            self._read(tokens, task)
        except StatementError:
            return False
        return True

    def _check_narrowed(self, proof: Proof) -> None:
        """Q7."""
        before = self._start.handed
        if before is None or proof.authorized is None:
            return
        if not narrower(proof.authorized.request.claims.restriction, before):  # [Q7]
            sentence = "the run before restricted this one, and its request leaves that out"
            self.wrong("restriction-dropped", sentence, proof.activity)

    def _check_agreement(self, proof: Proof, authorized: Authorized) -> None:
        """Rules E3 and E4."""
        if authorized.agreement is None:
            return
        try:
            self.challenges.answered(authorized.agreement, proof.activity.event.event_id)
        except UnknownKeyError:
            raise
        except StatementError as error:
            self.wrong("approval-rejected" if error.rule == "E4" else "approval-missing", str(error), proof.activity)

    def _scope(self, activity: Activity) -> Scope:
        return Scope(self._chain.site, self._chain.namespace, activity.task_queue, activity.activity_type)

    def _end(self, proof: Proof) -> None:
        activity = proof.activity
        if activity.our_failure is not None:
            self._denial(proof)
        if activity.outcome != "completed":
            return
        packed = activity.packed_receipt
        if packed is None:
            recorded = matches(activity.task_queue, self._chain.grant.claims.recorded_queues)
            if recorded:  # [Q3]
                self.wrong("result-recorded", "its result came without a receipt, which the grant allows", activity)
            else:
                self.wrong("receipt-missing", "its result has no receipt", activity, at_end=True)
            return
        if proof.core is None:
            return  # without a valid request there is nothing that a receipt could be for
        self._receipt(proof, packed, proof.core, None)

    def _local(self, proof: Proof) -> None:
        activity = proof.activity
        if activity.our_failure is not None:
            self._denial(proof)
        if activity.outcome != "completed":
            return
        packed = activity.packed_receipt
        if packed is None:
            self.wrong("receipt-missing", "its result has no receipt", activity)
            return
        try:
            claims = parse(unpack(packed)[-1], Receipt).claims
        except (StatementError, IndexError) as error:
            self.wrong("receipt-invalid", str(error), activity)
            return
        if claims.core is None or claims.args is None:
            self.wrong("receipt-invalid", "its receipt does not repeat the request, which is not recorded", activity)
            return
        if self._made_here(claims.core, proof):
            self._receipt(proof, packed, claims.core, claims.args)
            if proof.folded is not None:  # believed only now: what nobody has signed names no request
                proof.core = claims.core
        else:
            self.wrong("receipt-invalid", "its receipt repeats a request of another run or activity", activity)

    def _made_here(self, core: RequestCore, proof: Proof) -> bool:
        activity, event_id = proof.activity, proof.activity.event.event_id
        named = (core.workflow_id, core.original_run_id, core.activity_type)
        own = (self._history.workflow_id, self._history.original_run_id, activity.activity_type)
        leaf = self.standing.find(core.grant)
        if named != own or leaf is None or leaf.event_id > event_id:
            return False
        # A marker stands where the activity ended; the run may have moved on meanwhile.
        self.standing.moved_to(core.grant, event_id)
        proof.chain = leaf.chain
        proof.beyond = not allows(leaf.chain, activity.activity_type)
        return True

    def _receipt(self, proof: Proof, packed: bytes, core: RequestCore, local_args: str | None) -> None:
        """Q3 and Q4."""
        activity = proof.activity
        result = payloads_digest(activity.results)
        try:
            receipt = verify_receipt(  # [Q3]
                packed, core, result, self.receivers, self._scope(activity), local_args=local_args
            )
            if activity.local:  # [Q6]
                self.receivers.verify(receipt, "request", self._scope(activity))
        except UnknownKeyError:
            raise
        except StatementError as error:
            self.wrong("receipt-invalid", str(error), activity, at_end=True)
            return
        proof.folded = receipt.digest
        if problem := self._misplaced(receipt.claims, proof):
            self.wrong("receipt-invalid", problem, activity, at_end=True)
        else:
            proof.receipt = receipt
            self._check_refused(proof, receipt.claims)

    def _check_refused(self, proof: Proof, claims: Receipt) -> None:
        """Q9."""
        if proof.beyond and claims.decision != "none":  # [Q9]
            sentence = "the grant does not allow such an activity, and the gate did not refuse it"
            self.wrong("request-invalid", sentence, proof.activity)

    def _denial(self, proof: Proof) -> None:
        """Q5."""
        activity, kind = proof.activity, proof.activity.our_failure
        signed = activity.denial()
        if kind == AuthorizationUnavailable.__name__:
            return
        asks = kind == AuthorizationChallenge.__name__
        if signed is None:
            if kind in _SAYS or asks:
                self.wrong("denial-unsigned", f"it failed as {kind} without a signed record", activity, at_end=True)
            return
        # The SDK gives the workflow a local activity's failure bare, and the gate folds what an ActivityError brings.
        proof.folded = None if activity.local else digest(signed[0])
        try:
            receipt = parse(signed[0], Receipt)
            receivers = Credentials(self._start.trust)
            receivers.add(signed[1])
            receivers.verify(receipt, "receipt", self._scope(activity))
        except UnknownKeyError:
            raise
        except StatementError as error:
            self.wrong("denial-unsigned", f"the record of its failure is not valid: {error}", activity, at_end=True)
            return
        claims = receipt.claims
        # Only what nothing but an ended grant refuses is renewed, and that is before Cedar is asked.
        due = ("rejected" if "renewal" in activity.details else "denied") if asks else _SAYS.get(kind or "")
        if not asks and not activity.details.keys().isdisjoint(_ASKING):  # [Q8]
            self.wrong("denial-unsigned", f"it failed as {kind}, and asks for something", activity, at_end=True)
        elif claims.outcome != due:  # [Q5]
            self.wrong(
                "denial-unsigned", f"it failed as {kind}, its record says {claims.outcome}", activity, at_end=True
            )
        elif activity.local and claims.core is not None and not self._made_here(claims.core, proof):
            self.wrong("denial-unsigned", "its record is of another run or activity", activity, at_end=True)
        elif problem := self._misplaced(claims, proof):
            self.wrong("denial-unsigned", problem, activity, at_end=True)
        else:
            proof.receipt = receipt
            if activity.local:
                proof.core = claims.core
            self._check_refused(proof, claims)
            if asks:
                self._asks(proof, receipt, signed[1])

    def _asks(self, proof: Proof, receipt: Token[Receipt], credential: str) -> None:
        """Q8."""
        activity, core, chain = proof.activity, proof.core, proof.chain
        challenge, renewal = (activity.details.get(name) for name in _ASKING)
        event_id = _ended_at(proof)
        if core is None or chain is None:
            return  # of what nobody asked for, nothing can be asked
        try:
            if isinstance(renewal, str):
                proof.renewal = self.standing.offered(renewal, core.grant, event_id)
                return
            if not isinstance(challenge, str):
                raise StatementError("Q8", "Nothing says what is asked for")
            expected = {
                "request": core.hash(),
                "request_digest": receipt.claims.request_digest,
                "grant": core.grant,
                "namespace": self._chain.namespace,
                "workflow_id": core.workflow_id,
                "workflow_type": self._history.started.workflow_type.name,
                "original_run_id": core.original_run_id,
                "task_queue": activity.task_queue,
                "activity_type": core.activity_type,
                "args": proof.args,
            }
            proof.challenge = self.challenges.failed(challenge, credential, receipt.claims, expected, chain, event_id)
        except UnknownKeyError:
            raise
        except StatementError as error:  # [Q8]
            code = "renewal-invalid" if isinstance(renewal, str) else "challenge-invalid"
            self.wrong(code, str(error), activity, at_end=True)

    def _misplaced(self, claims: Receipt, proof: Proof) -> str | None:
        """Q4: what a receipt is for that is not this activity."""
        activity = proof.activity
        if claims.run_id not in self._history.run_ids:
            return f"its receipt is of run {claims.run_id}"
        if claims.activity_type != activity.activity_type or claims.activity_id != activity.activity_id:
            return f"its receipt is of {claims.activity_type} ({claims.activity_id})"
        if claims.attempt != activity.attempt:
            return f"its receipt is of attempt {claims.attempt}, and the history ends with attempt {activity.attempt}"
        if claims.outcome == "rejected" and claims.request_digest is None:
            # The gate had not got so far as to believe any request.
            return None if claims.workflow_id == self._history.workflow_id else "its receipt is of another workflow"
        if proof.request is not None and claims.request_digest != proof.request.digest:
            return "its receipt is for another request"
        return None


def _ended_at(proof: Proof) -> int:
    return proof.activity.ended.event_id if proof.activity.ended is not None else 0


def asked_by(proofs: Sequence[Proof]) -> Iterator[Asked]:
    """The requests as the chain sees them."""
    for proof in proofs:
        if proof.core is not None:
            seen = None if proof.request is None else proof.request.claims.seen
            yield Asked(proof.core.seq, proof.core.hash(), proof.core.prev, seen, proof.activity.event.event_id)


def received_by(proofs: Sequence[Proof]) -> list[tuple[int, str]]:
    """What the workflow believed, in the order in which it came."""
    ended = sorted((proof for proof in proofs if proof.activity.ended is not None), key=_ended_at)
    return [(proof.core.seq, proof.folded) for proof in ended if proof.core is not None and proof.folded is not None]
