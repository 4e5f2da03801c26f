"""Every attempt is accounted for: the evidence's decisions and the receipts against the activities of the history.

What is checked of one decision stands in :mod:`exequatur.audit.decisions`, :mod:`exequatur.audit.recompute`,
:mod:`exequatur.audit.restrictions` and :mod:`exequatur.audit.agreed`. Here they are put together.

Rules, numbered as the code marks them:

A2  Every attempt that the history tells of has its decision in the evidence, or is reported as unaccounted.
A3  A receipt's place in its worker's journal is in the evidence, and the record there is about the same.
A4  The evidence tells of no activity, and of no later attempt of one, that the history does not have.
A9  What was completed from outside of the worker had begun there with an allow, and an authority that recorded it let
    the one who completed it do that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from exequatur.audit.activities import Activity, seconds
from exequatur.audit.agreed import misasked
from exequatur.audit.arguments import stand_in
from exequatur.audit.counted import check_counted
from exequatur.audit.decisions import (
    Bundles,
    Wrong,
    check_about,
    check_receipt,
    check_standing,
    is_local,
    moment_of,
    standing_of,
)
from exequatur.audit.evidence import Decision, DecisionRecord, RunEvidence, facts_of
from exequatur.audit.history import RunHistory
from exequatur.audit.measured import check_measured
from exequatur.audit.proofs import Proof, Proofs
from exequatur.audit.recompute import Remade, recompute
from exequatur.audit.report import ActivityReport, Decided, Finding, Restricted, Severity, finding
from exequatur.audit.resets import Resets
from exequatur.audit.restrictions import recorded, unheld
from exequatur.audit.revoked import RevokedThen
from exequatur.audit.start import Start
from exequatur.audit.trust import AuditTrust
from exequatur.errors import PolicyError, UnknownKeyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.told import ACTIVITY_COMPLETE_ACTION
from exequatur.statements.jws import Token
from exequatur.statements.models import Challenge, Receipt
from exequatur.statements.verification import Chain


class Accounts:
    """The decisions about one run's activities.

    Args:
        history: The run.
        start: How it was started.
        trust: Whom to believe.
        evidence: What the journals hold about the run.
        bundles: Archived policies.
        wanted: Called before each decision; what it raises ends the audit.
    """

    def __init__(
        self,
        history: RunHistory,
        start: Start,
        trust: AuditTrust,
        evidence: RunEvidence,
        bundles: Bundles,
        wanted: Callable[[], object] = lambda: None,
    ) -> None:
        self._wanted = wanted
        self._history = history
        self._start = start
        self._trust = trust
        self._evidence = evidence
        self._bundles = bundles
        self._statements: Proofs | None = None
        self._vouched: frozenset[str] = frozenset()
        self._revoked = RevokedThen((), frozenset())
        self._resets = Resets(evidence.decisions)
        self._known_places = {place[:2] for place in evidence.places}
        self._completions = set(_completions(evidence))
        self._decided: dict[int, list[Decided]] = {}
        self._recorded: dict[int, list[Decision]] = {}
        self._approvers: dict[int, tuple[str, ...]] = {}
        self.findings: list[Finding] = []
        self.counted: Counter[str] = Counter()
        """What would be one sentence for each of many activities."""
        self.bases: set[str] = set()
        """Runs before a reset that the evidence knows more of."""
        self.named = False
        """Whether a journal's record vouches for the run's id."""

    def check(self, proofs: Sequence[Proof], statements: Proofs | None, vouched: frozenset[str]) -> None:
        """Account for all attempts.

        Args:
            proofs: Of the activities.
            statements: Of the run; ``None`` where it is ungoverned.
            vouched: The logs that a worker's signature names.
        """
        self._statements, self._vouched = statements, vouched
        self._revoked = RevokedThen(self._evidence.revocations, vouched)
        chain = self._start.chain
        of_request: dict[str, Proof] = {}
        of_id: dict[str, Proof] = {}
        for proof in proofs:
            if proof.core is not None:
                of_request[proof.core.hash()] = proof
            elif chain is None or proof.activity.local:
                of_id[proof.activity.activity_id] = proof
        accounted: set[tuple[int, int]] = set()
        for decision in self._evidence.decisions:
            self._wanted()
            claims = decision.claims
            key = claims.request
            found = of_request.get(key) if key is not None else None
            if found is None and (key is None or is_local(decision)):
                found = of_id.get(claims.activity_id)
            if claims.run_id != self._history.run_id and (found is None or not _same(decision, found)):
                # Of a run that this one was reset from, after the point that it was reset to; or the reset is made up.
                self.bases.add(claims.run_id or "")
                continue
            if found is None:
                self._stray(decision)
                continue
            if self._beyond(claims, found.activity):
                self._stray(decision)
            accounted.add((id(found), claims.attempt))
            self._recorded.setdefault(id(found), []).append(decision)
            signed_for = chain is None or decision.record.log_id in vouched
            self.named = self.named or (signed_for and claims.run_id == self._history.run_id)
            self._decision(decision, found, chain)
        by_place = {
            (each.record.log_id, each.record.index, each.record.head): each for each in self._evidence.decisions
        }
        for proof in proofs:
            self._accounted(proof, accounted, by_place, chain)

    def _found(self, code: str, sentence: str, activity: Activity | None = None) -> None:
        event_id = activity.event.event_id if activity else None
        activity_id = activity.activity_id if activity else None
        self.findings.append(finding(code, sentence, event_id=event_id, activity_id=activity_id))

    def _about(self, activity: Activity, code: str, sentence: str) -> None:
        self._found(code, f"{activity.activity_type} ({activity.activity_id}): {sentence}", activity)

    def _beyond(self, claims: DecisionRecord, activity: Activity) -> bool:
        """Whether a decision is about an attempt after the one with which the history ends the activity."""
        known = activity.started is not None and activity.ended is not None and not activity.local
        beyond = known and claims.run_id == self._history.run_id and claims.attempt > activity.attempt
        return beyond and not self._resets.after(claims, activity.attempt)

    def _stray(self, decision: Decision) -> None:
        """A4."""
        claims = decision.claims
        if claims.decision == "none":
            return  # a rejected attempt may have come with somebody else's header
        what = f"{claims.activity_type} ({claims.activity_id}), attempt {claims.attempt}"
        if is_local(decision):
            self._found("attempt-unaccounted", f"The evidence tells of the local activity {what}, which left no marker")
        elif self._history.outcome == "open":
            self._found("history-cut", f"The evidence tells of {what}, which is not in this history yet; get it again")
        elif self._start.chain is not None and decision.record.log_id not in self._vouched:
            self._found("evidence-unvouched", f"A journal for which no worker has signed tells of {what}")
        else:  # [A4]
            self._found("activity-missing", f"The evidence tells of {what}, which the history does not have")

    def _decision(self, decision: Decision, proof: Proof, chain: Chain | None) -> None:
        activity, claims = proof.activity, decision.claims
        before = len(self.findings)

        def wrong(code: str, sentence: str) -> None:
            self._about(activity, code, f"attempt {claims.attempt}: {sentence}")

        chain = proof.chain or chain
        reset = self._resets.precedes(decision)
        earlier = self._resets.after(claims, claims.attempt)
        check_about(decision, proof, self._history, chain, wrong)
        check_standing(decision, proof, chain, self._revoked, wrong, earlier=earlier)
        recomputed: bool | None = None
        if claims.decision != "none":
            self._vouching(decision, proof, chain, wrong)
            if (problem := unheld(claims, proof, chain, self._start.handed)) is not None:
                wrong("restriction-contradicts", problem)
            if proof.beyond:
                wrong("request-invalid", "the grant does not allow such an activity, and the gate did not refuse it")
            answers = self._agreed(decision, proof, wrong)
            try:
                bundle = self._bundles.get(claims.bundle)
            except PolicyError as error:
                bundle = None
                wrong("evidence-invalid", str(error))
            check_measured(decision, proof, self._evidence.integrity, self._start.credentials, wrong)
            reader, first_run = self._bundles.reader, self._first_run(decision, proof)
            if check_counted(decision, proof, bundle, reader, first_run, wrong):
                self.counted["behavior-restarted"] += 1
            if bundle is None:
                self.counted["bundle-missing"] += 1
            else:
                made = recompute(
                    decision,
                    proof,
                    chain,
                    bundle,
                    self._history.workflow_id,
                    activity_reset=reset,
                    answers=None if answers is None else answers.claims,
                )
                recomputed = made.problem is None
                if made.problem is not None:
                    wrong("decision-differs", made.problem)
                self._asked(decision, proof, bundle, made, wrong)
        if claims.decision != "allow" and not claims.enforced:
            self._unenforced(activity, f"attempt {claims.attempt}: the gate said no, and it ran: {claims.reason}")
        contradicted = any(each.severity is Severity.VIOLATION for each in self.findings[before:])
        self._decided.setdefault(id(proof), []).append(
            Decided(
                attempt=claims.attempt,
                decision=claims.decision,
                enforced=claims.enforced,
                at=decision.record.at,
                policies=claims.policies,
                reason=claims.reason,
                bundle=claims.bundle,
                recomputed=False if contradicted else recomputed,
                log=decision.record.log_id,
                index=decision.record.index,
            )
        )

    def _first_run(self, decision: Decision, proof: Proof) -> str:
        """The first run of the execution, as its request says; a run without a grant has none."""
        if proof.request is not None:
            return proof.request.claims.first_run_id
        governed = proof.chain is not None or self._start.chain is not None
        return (self._history.started.first_execution_run_id if governed else decision.claims.run_id) or ""

    def _agreed(self, decision: Decision, proof: Proof, wrong: Wrong) -> Token[Challenge] | None:
        """Rules E5 to E7: whose approvals a decision counts, and the challenge that they are for."""
        claims = decision.claims
        try:
            told = facts_of(claims)[1].get("approvals")
        except ValueError:
            return None  # said by check_about
        statements, at = self._statements, moment_of(claims)
        answers: Token[Challenge] | None = None
        if statements is None or at is None or proof.core is None:
            problem = None if told is None else "it counts approvals, and nothing shows any"
        else:
            challenges, problem = statements.challenges, None
            standing = standing_of(decision, self._revoked)
            agreement = proof.authorized.agreement if proof.authorized is not None else None
            answers = agreement.challenge if agreement is not None else None
            event_id = proof.activity.event.event_id
            if not proof.activity.local:
                allowed = claims.decision == "allow"
                problem = challenges.miscounted(agreement, told, at, standing, allowed=allowed)
            elif told is not None:
                with suppress(UnknownKeyError):  # said where signals are told of
                    answers, problem = challenges.of_local(proof.core, proof.args, told, at, event_id, standing)
            if answers is not None and claims.decision == "allow":
                again = challenges.passed(answers, proof.core.hash())
                if again is not None:
                    wrong("approval-reused", again)
        if problem is not None:
            wrong("approval-miscounted", problem)
        elif told is not None:
            self._approvers[id(proof)] = tuple(told["approvers"])
        return answers

    def _asked(self, decision: Decision, proof: Proof, bundle: PolicyBundle, made: Remade, wrong: Wrong) -> None:
        """Rule E2: whom a challenge asks for, where this is the decision that it came of."""
        claims = decision.claims
        place = proof.receipt.claims.log if proof.receipt is not None else None
        here = (decision.record.log_id, decision.record.index)
        if self._statements is None or proof.challenge is None or place is None or (place.id, place.index) != here:
            return
        if proof.activity.local and self._statements.challenges.repeats(proof.challenge.claims):
            return  # a challenge repeats what the one before asked for, which a local activity does not show
        if made.verdict is None:
            wrong("challenge-invalid", "it was denied for a reason that nobody can agree to, and people were asked")
            return
        told = facts_of(claims)[1].get("approvals")
        agreement = proof.authorized.agreement if proof.authorized is not None else None
        problem = misasked(proof.challenge.claims, bundle, made.verdict, agreement, told)
        if problem is not None:
            wrong("challenge-invalid", problem)

    def _vouching(self, decision: Decision, proof: Proof, chain: Chain | None, wrong: Wrong) -> None:
        """What recomputing stands on and the worker could have made up: its policies, the arguments, the resource."""
        claims, approved = decision.claims, self._trust.bundles
        if approved and claims.bundle not in approved:
            wrong(
                "bundle-unapproved",
                f"it was decided by policies {claims.bundle}, which the trust file does not approve",
            )
        elif not approved and (chain is None or claims.bundle != chain.grant.claims.bundle):
            self.counted["bundle-unvouched"] += 1
        with suppress(ValueError):  # said by check_about
            arguments, _ = facts_of(claims)
            if arguments and (proof.activity.local or not stand_in(arguments, proof.activity.input)):
                self.counted["arguments-unproven"] += 1
        if claims.resource is not None:
            self.counted["resource-unproven"] += 1

    def _unenforced(self, activity: Activity, sentence: str) -> None:
        """What the gate refused ran all the same: as the grant or the trust file allows, or not."""
        grant = self._start.chain.grant.claims if self._start.chain else None
        allowed = grant is None or grant.mode == "observe" or self._trust.observes(activity.activity_type)
        self._about(activity, "not-enforced" if allowed else "enforcement-missing", sentence)

    def _accounted(
        self,
        proof: Proof,
        accounted: set[tuple[int, int]],
        by_place: dict[tuple[str, int, str], Decision],
        chain: Chain | None,
    ) -> None:
        """A2 and A3."""
        activity = proof.activity
        receipt = proof.receipt.claims if proof.receipt else None
        place = receipt.log if receipt else None
        if receipt is not None and place is not None:
            where = (place.id, place.index, place.head)
            record, decision = self._evidence.places.get(where), by_place.get(where)
            if record is None and where[:2] not in self._known_places:
                self.counted["evidence-missing"] += 1
            elif record is None or decision is None:  # [A3]
                self._about(activity, "evidence-invalid", "the journal has something else in the place of its receipt")
            elif problem := check_receipt(decision, receipt):  # [A3]
                self._about(activity, "decision-contradicts", problem)
        elif receipt is not None and receipt.completed_by is not None:
            self._completed(proof, receipt, accounted)
        elif receipt is not None and (receipt.decision == "allow" or receipt.outcome == "completed"):
            self._about(activity, "receipt-invalid", "its receipt names no place in a journal")
        if receipt is not None and receipt.outcome == "completed" and receipt.decision != "allow" and place is None:
            self._unenforced(activity, "the gate said no, and it ran, says its receipt")
        if chain is None and not self._evidence.decisions:
            return  # an exempt run on workers without the plugin
        for attempt in range(1, activity.attempt + 1):  # [A2]
            last_proved = attempt == activity.attempt and place is not None
            if (id(proof), attempt) not in accounted and not last_proved:
                self.counted["attempt-unaccounted"] += 1

    def _completed(self, proof: Proof, receipt: Receipt, accounted: set[tuple[int, int]]) -> None:
        """A9."""
        activity = proof.activity
        decided = [each for each in self._decided.get(id(proof), ()) if each.attempt == receipt.attempt]
        if (id(proof), receipt.attempt) not in accounted:
            self.counted["evidence-missing"] += 1
        elif decided and not any(each.decision == "allow" or not each.enforced for each in decided):  # [A9]
            self._about(
                activity, "completion-contradicts", f"{receipt.completed_by} completed what the gate had not let begin"
            )
        told = (receipt.request, receipt.run_id, receipt.result, receipt.completed_by)
        if told not in self._completions:  # [A9]
            self.counted["completion-unproven"] += 1

    def report(self, proof: Proof) -> ActivityReport:
        """What is reported of an activity."""
        activity, receipt, request = proof.activity, proof.receipt, proof.request
        decided = tuple(self._decided.get(id(proof), ()))
        outcome, agreement = activity.outcome, proof.authorized.agreement if proof.authorized is not None else None
        carried = {each.claims.sub for each in agreement.approvals} if agreement is not None else set()
        if receipt is not None and receipt.claims.outcome in ("denied", "rejected", "revoked"):
            outcome = receipt.claims.outcome
        if proof.challenge is not None or proof.renewal is not None:
            outcome = "challenged" if proof.challenge is not None else "renewed"
        proven = "receipt" if outcome == "completed" else "denial"
        return ActivityReport(
            event_id=activity.event.event_id,
            activity_id=activity.activity_id,
            activity_type=activity.activity_type,
            local=activity.local,
            scheduled=seconds(activity.event),
            closed=seconds(activity.ended) if activity.ended is not None else None,
            attempts=activity.attempt,
            outcome=outcome,
            worker=receipt.claims.iss if receipt else None,
            requested_by=request.claims.iss if request else None,
            decisions=decided,
            approved_by=self._approvers.get(id(proof), tuple(sorted(carried))),
            completed_by=receipt.claims.completed_by if receipt else None,
            restricted=_restricted(proof, self._recorded.get(id(proof), ())),
            proof=proven if receipt is not None else "journal" if decided else "none",  # type: ignore[arg-type]
            task_queue=activity.task_queue or None,
            arguments=proof.args,
            request=proof.core.hash() if proof.core is not None else None,
            receipt=receipt.digest if receipt else None,
            rechecks=receipt.claims.rechecks if receipt else None,
            closed_event=activity.ended.event_id if activity.ended is not None else None,
        )


def _restricted(proof: Proof, decisions: Sequence[Decision]) -> Restricted | None:
    """What an activity was restricted to, as its request says, or else the worker's journal."""
    if proof.authorized is not None:
        held = proof.authorized.held
    else:
        held = next((recorded(each.claims) for each in decisions if each.claims.restriction is not None), None)
    return None if held is None else Restricted(activities=held.activities, until=held.until, forbid=held.forbid)


def _completions(evidence: RunEvidence) -> Iterator[tuple[str | None, ...]]:
    """What an authority has let be completed from outside: request, run, digest of the result, and by whom."""
    for _, asked in evidence.asked:
        if asked.action == ACTIVITY_COMPLETE_ACTION and asked.decision == "allow":
            more = asked.model_extra or {}
            told = (more.get("request"), asked.run_id, more.get("result"), asked.principal)
            if all(isinstance(each, str) for each in told):
                yield told


def _same(decision: Decision, proof: Proof) -> bool:
    """Whether a decision of another run is about this very activity, which the run's history begins with."""
    if proof.request is not None:
        return decision.claims.request_digest == proof.request.digest
    place = proof.receipt.claims.log if proof.receipt else None
    return place is not None and (place.id, place.index) == (decision.record.log_id, decision.record.index)
