"""The audit of one run: pure over its history, its evidence and the trust file.

What is checked stands in the modules that check it: the events (:mod:`exequatur.audit.history`), the start
(:mod:`exequatur.audit.start`), the statements (:mod:`exequatur.audit.proofs`), the chain (:mod:`exequatur.audit.chain`)
and the recorded decisions (:mod:`exequatur.audit.accounts`, rules A2 to A4 and A9). Here they are put together.

Rules, numbered as the code marks them:

A1  A run without a grant is a violation unless its type is exempt; so is an activity of it that has our header.
A5  A run that has closed is sealed with its final head.
A6  What nothing signed speaks for is said to be unproven (rules N of :mod:`exequatur.audit.unproven`).
A7  A reset is the server's word, and could hide what came after it: something signed names the run that goes on, and
    the run that was reset is to be audited, too, if the evidence knows more of it.
A8  What journals hold counts for or against a run only where a worker's signature vouches for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from exequatur.audit.accounts import Accounts
from exequatur.audit.activities import Activity, activities_of, seconds
from exequatur.audit.chain import Asked, Kind, Rebuilt, rebuild
from exequatur.audit.codec import still_encoded
from exequatur.audit.decisions import Bundles
from exequatur.audit.evidence import EvidenceReader, RunEvidence, evidence_of
from exequatur.audit.handover import check_children, handed_seal, hands_on
from exequatur.audit.history import RunHistory, check_events
from exequatur.audit.links import actors_of, handed_down, links_of
from exequatur.audit.proofs import Proof, Proofs, asked_by, received_by
from exequatur.audit.report import Finding, RunReport, finding
from exequatur.audit.standing import Standing
from exequatur.audit.start import Start, read_start
from exequatur.audit.traffic import Traffic, check_traffic
from exequatur.audit.trust import AuditTrust
from exequatur.audit.unproven import unproven
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.wire import PREFIX
from exequatur.statements.jws import Token
from exequatur.statements.models import Receipt, RequestCore, Role, Seal
from exequatur.statements.verification import Chain, Scope

DEVELOPMENT_ISSUER = "dev:"
_CLOSES_AS = {"completed": "completed", "failed": "failed", "cancelled": "cancelled", "continued as new": "continued"}
"""The seal's outcome for each way to close that the workflow worker sees."""


def audit_run(
    history: RunHistory, evidence: EvidenceReader, trust: AuditTrust, wanted: Callable[[], object] = lambda: None
) -> RunReport:
    """Audit one run.

    Args:
        history: With payloads as user code wrote them; see :func:`exequatur.audit.codec.decoded`.
        evidence: What there is of journals, bundles and checkpoints.
        trust: Whom to believe.
        wanted: Called again and again while it goes on; what it raises ends the audit.

    Returns:
        What was found. Nothing is called verified that was not verified.

    Raises:
        EvidenceError: There is more evidence than any run can leave.
    """
    return _Audit(history, evidence, trust, wanted).report()


class _Audit:
    def __init__(
        self, history: RunHistory, evidence: EvidenceReader, trust: AuditTrust, wanted: Callable[[], object]
    ) -> None:
        self._history = history
        self._trust = trust
        self._wanted = wanted
        self._findings: list[Finding] = check_events(history)
        self._start: Start = read_start(history, trust.anchors)
        self._findings += self._start.findings
        self._reader, self._bundles = evidence, Bundles(evidence)
        self._evidence: RunEvidence = evidence_of(evidence, history.workflow_id, history.run_ids)
        self._accounts = Accounts(history, self._start, trust, self._evidence, self._bundles, wanted)
        self._statements: Proofs | None = None
        self._counted: Counter[str] = Counter()
        self._receivers = self._start.credentials
        self._receipts: list[Token[Receipt]] = []
        self._seals: list[Token[Seal]] = []
        self._vouched: frozenset[str] = frozenset()
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
        if start.chain is not None or not start.governed:  # else nothing can be believed, and that has been said
            accounts = self._accounts
            accounts.check(proofs, self._statements, self._vouched)
            self._findings += accounts.findings
            self._counted += accounts.counted
            self._named = self._named or accounts.named
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
            activities=tuple(self._accounts.report(proof) for proof in proofs),
            messages=self._traffic.messages,
            sent=self._traffic.sent,
            asked=self._traffic.asked,
            findings=tuple(sorted(self._findings, key=lambda each: each.event_id or 0)),
            actors=actors_of(grant) if grant else (),
            delegations=handed_down(start.chain) if start.chain else (),
            links=tuple(links_of(history)),
        )

    def _unreadable(self, activities: Sequence[Activity]) -> RunReport:
        """Nothing that was signed can be read, so nothing is said but that."""
        history = self._history
        self._findings = check_events(history)
        self._found("payload-encoded", "What was signed is encoded or lies elsewhere; name the workers' data converter")
        return RunReport(
            workflow_id=history.workflow_id,
            run_id=history.run_id,
            workflow_type=history.started.workflow_type.name,
            governed=True,
            started=seconds(history.events[0]),
            closed=None if history.outcome == "open" else seconds(history.events[-1]),
            outcome=history.outcome,
            events=len(history.events),
            activities=tuple(self._accounts.report(Proof(activity)) for activity in activities),
            findings=tuple(self._findings),
            links=tuple(links_of(history)),
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
        statements = self._statements = Proofs(history, start, chain, self._wanted)
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

    def _check_resets(self, proofs: Sequence[Proof]) -> None:
        """A7."""
        history = self._history
        signed = [each for proof in proofs for each in (proof.request, proof.receipt) if each is not None]
        if history.resets and not self._named and all(each.claims.run_id != history.run_id for each in signed):  # [A7]
            self._found(
                "reset-unproven",
                f"Nothing that was signed names run {history.run_id}, which the server says is a reset",
            )
        bases = {token.claims.run_id for token in self._seals} | self._accounts.bases
        for base in sorted(bases & (history.run_ids - {history.run_id})):  # [A7]
            self._found("base-cut", f"Run {base} went further than this history shows; audit its own history, too")

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
            "behavior-restarted": "For {n} decisions, counting had begun anew in another ledger: what was done before "
            "was not counted",
            "bundle-missing": "{n} decisions were made by policies that are not archived in the evidence",
            "evidence-missing": "The evidence lacks the journal records that {n} receipts name: a journal was lost, or "
            "not shipped; their decisions were not recomputed",
            "attempt-unaccounted": "The evidence has no record of {n} attempts",
        }
        for code, count in sorted(self._counted.items()):
            self._found(code, sentences[code].format(n=count))
        if self._start.chain is not None:
            self._found("time-unproven", "No checkpoint covers this run: its times are as server and workers say")
