"""The audit of one run: pure over its history, its evidence and the trust file.

What is checked stands in the modules that check it: the events (:mod:`exequatur.audit.history`), the start
(:mod:`exequatur.audit.start`), the statements (:mod:`exequatur.audit.proofs`), the chain (:mod:`exequatur.audit.chain`)
and the recorded decisions (:mod:`exequatur.audit.decisions`). Here they are put together.

Rules, numbered as the code marks them:

A1  A run without a grant is a violation unless its type is exempt; so is an activity of it that has our header.
A2  Every attempt that the history tells of has its decision in the evidence, or is reported as unaccounted.
A3  A receipt's place in its worker's journal is in the evidence, and the record there is about the same.
A4  The evidence tells of no activity, and of no later attempt of one, that the history does not have.
A5  A run that has closed is sealed with its final head.
A6  What nothing signed speaks for is said to be unproven (rules N of :mod:`exequatur.audit.unproven`).
A7  A reset is the server's word, and could hide what came after it: something signed names the run that goes on, and
    the run that was reset is to be audited, too, if the evidence knows more of it.
A8  What journals hold counts for or against a run only where a worker's signature vouches for it.
A9  What was completed from outside of the worker had begun there with an allow, and an authority that recorded it let
    the one who completed it do that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from exequatur.audit.activities import Activity, activities_of, seconds
from exequatur.audit.agreed import misasked
from exequatur.audit.arguments import stand_in
from exequatur.audit.chain import Asked, Kind, Rebuilt, rebuild
from exequatur.audit.codec import still_encoded
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
from exequatur.audit.evidence import Decision, DecisionRecord, EvidenceReader, RunEvidence, evidence_of, facts_of
from exequatur.audit.handover import check_children, handed_seal, hands_on
from exequatur.audit.history import RunHistory, check_events
from exequatur.audit.proofs import Proof, Proofs, asked_by, received_by
from exequatur.audit.recompute import Remade, recompute
from exequatur.audit.report import ActivityReport, Decided, Finding, Restricted, RunReport, Severity, finding
from exequatur.audit.resets import Resets
from exequatur.audit.restrictions import recorded, unheld
from exequatur.audit.standing import Standing
from exequatur.audit.start import Start, read_start
from exequatur.audit.traffic import Traffic, check_traffic
from exequatur.audit.trust import AuditTrust
from exequatur.audit.unproven import unproven
from exequatur.errors import PolicyError, StatementError, UnknownKeyError
from exequatur.gate.wire import PREFIX
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.told import ACTIVITY_COMPLETE_ACTION
from exequatur.statements.jws import Token
from exequatur.statements.models import Receipt, RequestCore, Role, Seal
from exequatur.statements.verification import Chain, Scope

DEVELOPMENT_ISSUER = "dev:"
_CLOSES_AS = {"completed": "completed", "failed": "failed", "cancelled": "cancelled", "continued as new": "continued"}
"""The seal's outcome for each way to close that the workflow worker sees."""


def audit_run(history: RunHistory, evidence: EvidenceReader, trust: AuditTrust) -> RunReport:
    """Audit one run.

    Args:
        history: With payloads as user code wrote them; see :func:`exequatur.audit.codec.decoded`.
        evidence: What there is of journals, bundles and checkpoints.
        trust: Whom to believe.

    Returns:
        What was found. Nothing is called verified that was not verified.

    Raises:
        EvidenceError: There is more evidence than any run can leave.
    """
    return _Audit(history, evidence, trust).report()


class _Audit:
    def __init__(self, history: RunHistory, evidence: EvidenceReader, trust: AuditTrust) -> None:
        self._history = history
        self._trust = trust
        self._findings: list[Finding] = check_events(history)
        self._start: Start = read_start(history, trust.anchors)
        self._findings += self._start.findings
        self._reader, self._bundles = evidence, Bundles(evidence)
        self._evidence: RunEvidence = evidence_of(evidence, history.workflow_id, history.run_ids)
        self._statements: Proofs | None = None
        self._resets = Resets(self._evidence.decisions)
        self._decided: dict[int, list[Decided]] = {}
        self._recorded: dict[int, list[Decision]] = {}
        self._counted: Counter[str] = Counter()
        self._receivers = self._start.credentials
        self._known_places = {place[:2] for place in self._evidence.places}
        self._receipts: list[Token[Receipt]] = []
        self._seals: list[Token[Seal]] = []
        self._vouched: frozenset[str] = frozenset()
        self._completions = set(_completions(self._evidence))
        self._bases: set[str] = set()
        """Runs before a reset that the evidence knows more of."""
        self._sealed: Seal | None = None
        self._traffic = Traffic()
        self._named = False
        """Whether a seal or a journal's record vouches for the run's id."""

    def report(self) -> RunReport:
        history, start = self._history, self._start
        activities = activities_of(history)
        if still_encoded(history):
            return self._unreadable(activities)
        if start.chain is not None:
            proofs = self._governed(activities, start.chain)
        else:
            proofs = [Proof(activity) for activity in activities]
            if not start.governed:
                self._ungoverned(activities)
        for sentence in self._evidence.invalid:
            self._found("evidence-invalid", f"In the evidence, {sentence}")
        self._decisions(proofs, start.chain)
        self._check_resets(proofs)
        if start.chain is not None:
            receipts = self._receipts
            vouching = (self._receivers, start.credentials)
            self._findings += unproven(history, proofs, start.chain, receipts, vouching, named=self._named)
        self._summarise()
        grant = start.chain.grant.claims if start.chain else None
        return RunReport(
            workflow_id=history.workflow_id,
            run_id=history.run_id,
            workflow_type=history.started.workflow_type.name,
            governed=start.governed,
            principal=grant.sub if grant else None,
            grant=grant.jti if grant else None,
            issuer=grant.iss if grant else None,
            mode=grant.mode if grant else None,
            started=seconds(history.events[0]),
            closed=None if history.outcome == "open" else seconds(history.events[-1]),
            outcome=history.outcome,
            events=len(history.events),
            activities=tuple(self._activity(proof) for proof in proofs),
            messages=self._traffic.messages,
            sent=self._traffic.sent,
            asked=self._traffic.asked,
            findings=tuple(sorted(self._findings, key=lambda each: each.event_id or 0)),
        )

    def _unreadable(self, activities: Sequence[Activity]) -> RunReport:
        """Nothing that was signed can be read, so nothing is said but that."""
        history = self._history
        self._findings = check_events(history)
        self._found("payload-encoded", "Its statements are encoded with a codec; name the workers' data converter")
        return RunReport(
            workflow_id=history.workflow_id,
            run_id=history.run_id,
            workflow_type=history.started.workflow_type.name,
            governed=True,
            started=seconds(history.events[0]),
            closed=None if history.outcome == "open" else seconds(history.events[-1]),
            outcome=history.outcome,
            events=len(history.events),
            activities=tuple(self._activity(Proof(activity)) for activity in activities),
            findings=tuple(self._findings),
        )

    def _found(self, code: str, sentence: str, activity: Activity | None = None) -> None:
        self._findings.append(
            finding(
                code,
                sentence,
                event_id=activity.event.event_id if activity else None,
                activity_id=activity.activity_id if activity else None,
            )
        )

    def _about(self, activity: Activity, code: str, sentence: str) -> None:
        self._found(code, f"{activity.activity_type} ({activity.activity_id}): {sentence}", activity)

    def _ungoverned(self, activities: Sequence[Activity]) -> None:
        """A1."""
        workflow_type = self._history.started.workflow_type.name
        exempt = self._trust.exempts(workflow_type)
        if exempt:
            self._found("run-exempt", f"{workflow_type} runs without a grant, which the trust file allows")
        else:  # [A1]
            self._found("run-ungoverned", f"{workflow_type} was started without a grant")
        for activity in activities:
            marked = any(name.startswith(PREFIX) for name in activity.headers)
            if marked or activity.packed_receipt is not None:  # [A1]
                self._about(activity, "request-invalid", "it carries statements, and its run has no grant")

    def _governed(self, activities: Sequence[Activity], chain: Chain) -> list[Proof]:
        history, start = self._history, self._start
        statements = self._statements = Proofs(history, start, chain)
        proofs = statements.of(activities)
        self._findings += statements.findings
        self._receivers = statements.receivers
        grant = chain.grant.claims
        if grant.mode == "observe":
            self._found("run-observed", "The run was in observe mode: nothing was enforced")
        if grant.iss.startswith(DEVELOPMENT_ISSUER):
            self._found(
                "self-notarised",
                f"The issuer {grant.iss} is an embedded development authority: whoever reads its state folder can "
                "issue grants, and nobody else vouches for them",
            )
        for event_id, base, _ in history.resets:
            self._findings.append(
                finding("run-reset", f"The run is a reset, says the server, of run {base}", event_id=event_id)
            )
        self._findings += check_children(history, start, statements.standing)
        self._tell(statements)
        self._believe(proofs, chain)
        self._chain(proofs, chain, statements.standing)
        self._traffic = check_traffic(
            history,
            start,
            chain,
            statements.standing,
            proofs,
            self._evidence,
            self._reader,
            self._bundles,
            self._trust,
            signals=statements.challenges.signals,
            seal=self._sealed,
            vouched=self._vouched,
        )
        self._findings += self._traffic.findings
        self._counted += self._traffic.counted
        return proofs

    def _tell(self, statements: Proofs) -> None:
        """What is worth knowing of renewals and approvals."""
        if count := statements.standing.renewals:
            self._found("run-renewed", f"The run outlived its grant, which was renewed {count} times")
        try:
            unused = statements.challenges.unused()
        except UnknownKeyError as error:
            self._found("key-unknown", f"{error}; add the authority's keys to the trust file")
            return
        for event_id in unused:
            sentence = "A signal brought no approval that counts for a challenge of this run"
            self._findings.append(finding("approval-dropped", sentence, event_id=event_id))

    def _believe(self, proofs: Sequence[Proof], chain: Chain) -> None:
        """A8: which statements of the journals a worker has signed, and which journals those vouch for."""
        for text in self._evidence.credentials:
            # One that does not verify vouches for nothing.
            with suppress(StatementError):
                self._start.credentials.add(text)
        scope = Scope(chain.site, namespace=chain.namespace)

        def signed(token: Token[Any], role: Role) -> bool:
            for held in (self._receivers, self._start.credentials):
                with suppress(StatementError):
                    held.verify(token, role, scope)
                    return True
            return False

        self._receipts = [token for _, token in self._evidence.receipts if signed(token, "receipt")]  # [A8]
        self._seals = [token for _, token in self._evidence.seals if signed(token, "seal")]  # [A8]
        told = [*self._receipts, *(proof.receipt for proof in proofs if proof.receipt is not None)]
        self._vouched = frozenset(token.claims.log.id for token in told if token.claims.log is not None)

    def _chain(self, proofs: Sequence[Proof], chain: Chain, standing: Standing) -> None:
        history = self._history

        def core_of(seq: int, kind: Kind, prev: str) -> str:
            leaf, activity_type = kind
            return RequestCore.model_construct(
                grant=leaf,
                workflow_id=history.workflow_id,
                original_run_id=history.original_run_id,
                seq=seq,
                activity_type=activity_type,
                prev=prev,
            ).hash()

        asked = list(asked_by(proofs))
        known = {each.seq for each in asked}
        # A local activity that failed left its request in the journal only.
        for receipt in self._receipts:
            core = receipt.claims.core
            if core is not None and core.seq not in known and core.original_run_id == history.original_run_id:
                known.add(core.seq)
                asked.append(Asked(core.seq, core.hash(), core.prev, None, None))
        seals = [token.claims for token in self._seals if token.claims.run_id == history.run_id]
        types = sorted(
            {proof.activity.activity_type for proof in proofs}
            | {decision.claims.activity_type for decision in self._evidence.decisions}
        )
        sealed = max((seal.seq for seal in seals), default=None)
        kinds = [(leaf, each) for leaf in standing.leaves for each in types]
        rebuilt = rebuild(self._start.genesis, asked, received_by(proofs), core_of, kinds, sealed)
        for broken in rebuilt.broken:
            self._findings.append(finding("chain-broken", broken.sentence, event_id=broken.event_id))
        if rebuilt.given_up:
            self._found("chain-unchecked", "Too many requests are missing to find out whether they were withdrawn")
        for seq in () if any(each.code == "request-invalid" for each in self._findings) else rebuilt.withdrawn:
            self._found("request-withdrawn", f"Request {seq} left no event in the history")
        self._seal(rebuilt, chain, standing)

    def _seal(self, rebuilt: Rebuilt, chain: Chain, standing: Standing) -> None:
        """A5."""
        history = self._history
        due = _CLOSES_AS.get(history.outcome)
        seals = [token for token in self._seals if token.claims.run_id == history.run_id]
        if history.outcome == "open" or (due is None and seals):
            if seals:
                told = f"The evidence has a seal of this run, which {seals[0].claims.outcome}"
                self._found("history-cut", f"{told}, and in the history it is {history.outcome}")
            return
        if hands_on(history.events[-1]):
            try:
                seals = [handed_seal(history.events[-1], self._start, standing)]
            except UnknownKeyError as error:
                self._found("key-unknown", f"{error}; add the authority's keys to the trust file")
                return
            except StatementError as error:
                self._found("seal-invalid", str(error))
                return
        unsigned = [token for _, token in self._evidence.seals if token.claims.run_id == history.run_id]
        if not seals and unsigned:
            self._found("evidence-unvouched", "The evidence has a seal of this run that no worker has signed")
            return
        if not seals:
            self._found("seal-missing", "The evidence has no seal of this run, so its end rests on the history alone")
            return
        problem = "its head is not the one that the history gives"
        for token in seals:
            claims = token.claims
            try:
                scope = Scope(chain.site, namespace=chain.namespace)
                self._start.credentials.verify(token, "seal", scope)
            except StatementError as error:
                problem = str(error)
                continue
            named = (claims.workflow_id, claims.original_run_id, claims.outcome)
            stood = standing.may(claims.grant, history.events[-1].event_id)
            if not stood or named != (history.workflow_id, history.original_run_id, due):
                problem = f"it says that the run {claims.outcome}, or is of another run"
            elif (claims.run_id, claims.seq) == (history.run_id, rebuilt.count) and (
                rebuilt.broken or rebuilt.given_up or rebuilt.ends_with(claims.head)
            ):
                self._named, self._sealed = True, claims
                return
        self._found("seal-invalid", f"No seal of this run is right: {problem}")  # [A5]

    def _decisions(self, proofs: Sequence[Proof], chain: Chain | None) -> None:
        if self._start.governed and chain is None:
            return  # nothing of it can be believed, and that has been said
        of_request: dict[str, Proof] = {}
        of_id: dict[str, Proof] = {}
        for proof in proofs:
            if proof.core is not None:
                of_request[proof.core.hash()] = proof
            elif chain is None or proof.activity.local:
                of_id[proof.activity.activity_id] = proof
        accounted: set[tuple[int, int]] = set()
        for decision in self._evidence.decisions:
            claims = decision.claims
            key = claims.request
            found = of_request.get(key) if key is not None else None
            if found is None and (key is None or is_local(decision)):
                found = of_id.get(claims.activity_id)
            if claims.run_id != self._history.run_id and (found is None or not _same(decision, found)):
                # Of a run that this one was reset from, after the point that it was reset to; or the reset is made up.
                self._bases.add(claims.run_id or "")
                continue
            if found is None:
                self._stray(decision)
                continue
            if self._beyond(claims, found.activity):
                self._stray(decision)
            accounted.add((id(found), claims.attempt))
            self._recorded.setdefault(id(found), []).append(decision)
            vouched = chain is None or decision.record.log_id in self._vouched
            self._named = self._named or (vouched and claims.run_id == self._history.run_id)
            self._decision(decision, found, chain)
        by_place = {
            (each.record.log_id, each.record.index, each.record.head): each for each in self._evidence.decisions
        }
        for proof in proofs:
            self._accounted(proof, accounted, by_place, chain)

    def _check_resets(self, proofs: Sequence[Proof]) -> None:
        """A7."""
        history = self._history
        signed = [each for proof in proofs for each in (proof.request, proof.receipt) if each is not None]
        if history.resets and not self._named and all(each.claims.run_id != history.run_id for each in signed):  # [A7]
            self._found(
                "reset-unproven",
                f"Nothing that was signed names run {history.run_id}, which the server says is a reset",
            )
        bases = {token.claims.run_id for token in self._seals} | self._bases
        for base in sorted(bases & (history.run_ids - {history.run_id})):  # [A7]
            self._found("base-cut", f"Run {base} went further than this history shows; audit its own history, too")

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
        before = len(self._findings)

        def wrong(code: str, sentence: str) -> None:
            self._about(activity, code, f"attempt {claims.attempt}: {sentence}")

        chain = proof.chain or chain
        reset = self._resets.precedes(decision)
        earlier = self._resets.after(claims, claims.attempt)
        check_about(decision, proof, self._history, chain, wrong)
        check_standing(decision, proof, chain, self._evidence.revocations, self._vouched, wrong, earlier=earlier)
        recomputed: bool | None = None
        if claims.decision != "none":
            self._vouching(decision, proof, chain, wrong)
            if (problem := unheld(claims, proof, chain, self._start.handed)) is not None:
                wrong("restriction-contradicts", problem)
            if proof.beyond:
                wrong("request-invalid", "the grant does not allow such an activity, and the gate did not refuse it")
            self._agreed(decision, proof, wrong)
            try:
                bundle = self._bundles.get(claims.bundle)
            except PolicyError as error:
                bundle = None
                wrong("evidence-invalid", str(error))
            if bundle is None:
                self._counted["bundle-missing"] += 1
            else:
                made = recompute(decision, proof, chain, bundle, self._history.workflow_id, activity_reset=reset)
                recomputed = made.problem is None
                if made.problem is not None:
                    wrong("decision-differs", made.problem)
                self._asked(decision, proof, bundle, made, wrong)
        if claims.decision != "allow" and not claims.enforced:
            self._unenforced(activity, f"attempt {claims.attempt}: the gate said no, and it ran: {claims.reason}")
        contradicted = any(each.severity is Severity.VIOLATION for each in self._findings[before:])
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
            )
        )

    def _agreed(self, decision: Decision, proof: Proof, wrong: Wrong) -> None:
        """Rules E5 to E7: whose approvals a decision counts."""
        claims = decision.claims
        try:
            told = facts_of(claims)[1].get("approvals")
        except ValueError:
            return  # said by check_about
        statements, at = self._statements, moment_of(claims)
        if statements is None or at is None or proof.core is None:
            problem = None if told is None else "it counts approvals, and nothing shows any"
        else:
            challenges, problem = statements.challenges, None
            standing = standing_of(decision, self._evidence.revocations, self._vouched)
            agreement = proof.authorized.agreement if proof.authorized is not None else None
            answers = agreement.challenge if agreement is not None else None
            event_id = proof.activity.event.event_id
            if not proof.activity.local:
                problem = challenges.miscounted(agreement, told, at, standing)
            elif told is not None:
                with suppress(UnknownKeyError):  # said where signals are told of
                    answers, problem = challenges.of_local(proof.core, proof.args, told, at, event_id, standing)
            if answers is not None and claims.decision == "allow":
                again = challenges.passed(answers, proof.core.hash())
                if again is not None:
                    wrong("approval-reused", again)
        if problem is not None:
            wrong("approval-miscounted", problem)

    def _asked(self, decision: Decision, proof: Proof, bundle: PolicyBundle, made: Remade, wrong: Wrong) -> None:
        """Rule E2: whom a challenge asks for, where this is the decision that it came of."""
        claims = decision.claims
        place = proof.receipt.claims.log if proof.receipt is not None else None
        here = (decision.record.log_id, decision.record.index)
        if proof.challenge is None or place is None or (place.id, place.index) != here:
            return
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
            self._counted["bundle-unvouched"] += 1
        with suppress(ValueError):  # said by check_about
            arguments, _ = facts_of(claims)
            if arguments and (proof.activity.local or not stand_in(arguments, proof.activity.input)):
                self._counted["arguments-unproven"] += 1
        if claims.resource is not None:
            self._counted["resource-unproven"] += 1

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
                self._counted["evidence-missing"] += 1
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
                self._counted["attempt-unaccounted"] += 1

    def _completed(self, proof: Proof, receipt: Receipt, accounted: set[tuple[int, int]]) -> None:
        """A9."""
        activity = proof.activity
        decided = [each for each in self._decided.get(id(proof), ()) if each.attempt == receipt.attempt]
        if (id(proof), receipt.attempt) not in accounted:
            self._counted["evidence-missing"] += 1
        elif decided and not any(each.decision == "allow" or not each.enforced for each in decided):  # [A9]
            self._about(
                activity, "completion-contradicts", f"{receipt.completed_by} completed what the gate had not let begin"
            )
        told = (receipt.request, receipt.run_id, receipt.result, receipt.completed_by)
        if told not in self._completions:  # [A9]
            self._counted["completion-unproven"] += 1

    def _summarise(self) -> None:
        """What would be one sentence for each of many activities."""
        sentences = {
            "arguments-unproven": "For {n} decisions, what Cedar was given of the arguments does not all stand in the "
            "recorded input: defaults of the code, a local activity, or made up by the worker",
            "bundle-unvouched": "{n} decisions were made by other policies than the grant names, as workers have them: "
            "list those that you approve as bundles in the trust file",
            "resource-unproven": "For {n} decisions, the activity's code named the resource from its arguments, and "
            "nothing signed names it",
            "completion-unproven": "{n} results came from outside of the workers, and no record of an authority that "
            "allowed it is in the evidence",
            "authority-unrecorded": "For {n} grants, permits, renewals, approvals or signals, the evidence lacks the "
            "decision: an authority elsewhere keeps its own",
            "call-unrecorded": "For {n} Nexus calls, the evidence has no record of how their handler decided",
            "bundle-missing": "{n} decisions were made by policies that are not archived in the evidence",
            "evidence-missing": "The evidence lacks the journal records that {n} receipts name: a journal was lost, or "
            "not shipped; their decisions were not recomputed",
            "attempt-unaccounted": "The evidence has no record of {n} attempts",
        }
        for code, count in sorted(self._counted.items()):
            self._found(code, sentences[code].format(n=count))
        if self._start.chain is not None:
            self._found("time-unproven", "No checkpoint covers this run: its times are as server and workers say")

    def _activity(self, proof: Proof) -> ActivityReport:
        activity, receipt, request = proof.activity, proof.receipt, proof.request
        decided = tuple(self._decided.get(id(proof), ()))
        outcome, agreement = activity.outcome, proof.authorized.agreement if proof.authorized is not None else None
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
            approved_by=tuple(sorted(each.claims.sub for each in agreement.approvals)) if agreement else (),
            completed_by=receipt.claims.completed_by if receipt else None,
            restricted=_restricted(proof, self._recorded.get(id(proof), ())),
            proof=proven if receipt is not None else "journal" if decided else "none",  # type: ignore[arg-type]
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
