"""Judges mutants: each is detected, or neutral by the reviewed list of :mod:`tests.audit.neutral`, or missed.

A mutant is *detected* when an auditor sees that something is wrong: with the journals, when the verdict is not
"verified"; without any evidence, when there is a violation, or something that could not be checked, that the recorded
history did not have.

It is *neutral* when a rule of the list names what was touched, and the report claims what it claimed before. What the
report tells otherwise has to be covered by a finding that calls just that unproven (``COVERED``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from exequatur.audit.codec import decoded
from exequatur.audit.evidence import EvidenceReader, NoEvidence, journals_in
from exequatur.audit.history import history_from_json, of_events
from exequatur.audit.leaves import leaf, tree_of
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.seals import check_checkpoints
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from exequatur.errors import ExequaturError
from exequatur.lineage.checkpoint import Checkpoint, sign
from exequatur.lineage.note import VerifierKey
from exequatur.statements.keys import SigningKey
from tests.audit.mutants import Events, Mutant, Pool, mutants
from tests.audit.neutral import COVERED, EVERYTHING, NEUTRAL, Neutral
from tests.audit.runs import CONVERTER, Runs, record

ENCODED = "turned"
"""Runs whose names begin so are as Temporal has them, and decoded when they are audited."""
EXEMPT = "ungoverned"
"""The run whose type the trust file exempts, for without that it is flagged to begin with."""
NOTARY = "example.org/notary"
ALIKE = 2
"""How many events of one kind are edited in the same way in each run."""
_GRAVE = (Severity.VIOLATION, Severity.UNCHECKED)


def claims_of(report: RunReport) -> dict[str, Any]:
    """What a report claims, by the names that :data:`tests.audit.neutral.COVERED` has for it."""
    proven = [each for each in report.activities if each.proof in ("receipt", "denial")]
    unproven = [each for each in report.activities if each.proof not in ("receipt", "denial")]
    return {
        "run": (
            report.workflow_id, report.workflow_type, report.governed, report.principal, report.grant, report.issuer,
            report.mode,
        ),
        "run id": report.run_id,
        "end": report.outcome,
        "times": (
            report.started, report.closed,
            *((each.scheduled, each.closed) for each in report.activities),
        ),
        "events": (report.events, *(each.event_id for each in report.activities)),
        "activities": [
            (each.activity_id, each.activity_type, each.local, each.attempts, each.outcome, each.worker,
             each.requested_by, each.decisions, each.proof)
            for each in proven
        ],
        "unproven activities": [
            (each.activity_id, each.activity_type, each.local, each.attempts, each.outcome, each.requested_by,
             each.decisions, each.proof)
            for each in unproven
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What became of one mutant.

    Args:
        mutant: It.
        evidence: Whether the journals were there.
        verdict: ``detected``, ``neutral`` or ``missed``.
        rule: Why it is neutral.
        why: What the report says otherwise, where it was missed.
    """

    mutant: Mutant
    evidence: bool
    verdict: str
    rule: Neutral | None = None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.mutant} / {'with' if self.evidence else 'without'} evidence: {self.why or self.verdict}"


class Bench:
    """Recorded runs, and how an auditor judges what was made of them.

    Args:
        runs: As they were recorded.
    """

    def __init__(self, runs: Runs) -> None:
        self.texts = runs.histories
        self.runs: dict[str, Events] = {
            name: tuple(history_from_json(text.encode()).events) for name, text in runs.histories.items()
        }
        self.journals: EvidenceReader = journals_in(runs.journal)
        self.trust = read_trust(runs.trust)
        exempt = [
            events[0].workflow_execution_started_event_attributes.workflow_type.name
            for name, events in self.runs.items()
            if name == EXEMPT
        ]
        self._exempting = AuditTrust(self.trust.anchors, ungoverned=tuple(exempt))
        self._loop = asyncio.new_event_loop()
        for name in [name for name in self.runs if name.startswith(ENCODED)]:
            # Also as an auditor with the converter sees them, so that the statements in them can be bent.
            self.runs[f"decoded {name}"] = tuple(self._decoded(self.runs[name]))
        key = SigningKey.generate()
        self._believing = AuditTrust(self.trust.anchors, notaries=(VerifierKey(NOTARY, key.x),))
        self.notes = {
            name: sign(Checkpoint(name, len(events), tree_of(events).root()), NOTARY, key)
            for name, events in self.runs.items()
        }
        self.pool = Pool(self.runs)
        self.recorded = {
            (name, evidence): self.audited(name, events, evidence=evidence)
            for name, events in self.runs.items()
            for evidence in (True, False)
        }

    def close(self) -> None:
        self._loop.close()

    def _decoded(self, events: Events) -> Events:
        history = self._loop.run_until_complete(decoded(of_events(events), CONVERTER))
        return tuple(history.events)

    def audited(self, run: str, events: Events, *, evidence: bool) -> RunReport:
        """The audit of a history that is said to be of a run.

        Raises:
            ExequaturError: It cannot be audited.
        """
        if run.startswith(ENCODED):
            events = self._decoded(events)
        trust = self._exempting if run == EXEMPT else self.trust
        return audit_run(of_events(events), self.journals if evidence else NoEvidence(), trust)

    def mutants(self, run: str) -> Iterator[Mutant]:
        return mutants(run, self.runs, self.pool, most=ALIKE)

    def convicted(self, mutant: Mutant) -> bool:
        """Whether the checkpoint of the run as it was recorded shows that a mutant is another history.

        A mutant whose events are written the same, or only go on from those that were signed, is none.
        """
        try:
            history = of_events(mutant.events)
        except ExequaturError:
            return True
        report = check_checkpoints(self.recorded[mutant.run, True], history, [self.notes[mutant.run]], self._believing)
        if any(each.code == "checkpoint-invalid" for each in report.findings):
            return True
        signed = self.runs[mutant.run]
        return list(map(leaf, mutant.events[: len(signed)])) == list(map(leaf, signed))

    def judge(self, mutant: Mutant, *, evidence: bool) -> Judgement:
        """Audit a mutant and judge what the audit says."""
        original = self.recorded[mutant.run, evidence]
        try:
            report = self.audited(mutant.run, mutant.events, evidence=evidence)
        except ExequaturError:
            return Judgement(mutant, evidence, "detected")
        if self._seen(original, report, evidence):
            return Judgement(mutant, evidence, "detected")
        before, after = claims_of(original), claims_of(report)
        codes = {each.code for each in report.findings}
        differs = [name for name in before if before[name] != after[name]]
        if "activities" in differs:
            differs[differs.index("activities")] = _less(before, after)
        open_claims = [name for name in differs if not codes & {EVERYTHING, *COVERED[name]}]
        rules = [each for each in NEUTRAL if each.matches(mutant, evidence)]
        rule = next((each for each in rules if not each.covered_by or codes & set(each.covered_by)), None)
        if rule is not None and not set(open_claims) - set(rule.tells):
            return Judgement(mutant, evidence, "neutral", rule)
        why = f"rule {rule.where!r}" if rule is not None else f"no rule ({len(rules)} not covered)"
        if open_claims:
            why += f"; claims {', '.join(f'{name}: {after.get(name)} for {before.get(name)}' for name in open_claims)}"
        elif differs:
            why += f"; differs in {', '.join(differs)}"
        return Judgement(mutant, evidence, "missed", rule, f"{why}; {sorted(codes)}")

    def _seen(self, original: RunReport, report: RunReport, evidence: bool) -> bool:
        if evidence and original.verdict is Verdict.VERIFIED:
            return report.verdict is not Verdict.VERIFIED
        return bool(_grave(report) - _grave(original))


def _less(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What of the proven activities is not claimed any more; ``activities`` if something else is claimed of them."""
    if _within(after["activities"], before["activities"]):
        gone = [each for each in before["activities"] if each not in after["activities"]]
        named = {each[:2] for each in after["unproven activities"]}
        return "receipts" if all(each[:2] in named for each in gone) else "fewer activities"
    return "order" if sorted(map(str, after["activities"])) == sorted(map(str, before["activities"])) else "activities"


def _within(fewer: Sequence[object], more: Sequence[object]) -> bool:
    """Whether these are some of those, in the same order."""
    rest = iter(more)
    return all(any(each == other for other in rest) for each in fewer)


def _grave(report: RunReport) -> Counter[str]:
    return Counter(each.code for each in report.findings if each.severity in _GRAVE)


@dataclass
class Tally:
    """What became of many mutants."""

    tried: Counter[str] = field(default_factory=Counter)
    detected: Counter[str] = field(default_factory=Counter)
    neutral: Counter[str] = field(default_factory=Counter)
    reasons: dict[bool, Counter[str]] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    missed: list[Judgement] = field(default_factory=list)
    convicted: int = 0
    """How many of the neutral ones a checkpoint shows to be another history, or the same one."""

    def add(self, judgement: Judgement) -> None:
        run = judgement.mutant.run
        self.tried[run] += 1
        if judgement.verdict == "detected":
            self.detected[run] += 1
        elif judgement.rule is not None and judgement.verdict == "neutral":
            self.neutral[run] += 1
            self.reasons[judgement.evidence][judgement.rule.reason] += 1
        else:
            self.missed.append(judgement)

    def table(self, shown: int = 40) -> str:
        """What ``make mutate-audit`` prints."""
        missed = Counter(each.mutant.run for each in self.missed)
        lines = [f"{'run':<24}{'tried':>8}{'detected':>10}{'neutral':>9}{'missed':>8}"]
        for run, tried in self.tried.items():
            lines.append(f"{run:<24}{tried:>8}{self.detected[run]:>10}{self.neutral[run]:>9}{missed[run]:>8}")
        totals = (self.tried.total(), self.detected.total(), self.neutral.total(), len(self.missed))
        lines.append(f"{'all':<24}{totals[0]:>8}{totals[1]:>10}{totals[2]:>9}{totals[3]:>8}")
        if self.convicted:
            shown_by = f"{self.convicted} of the {totals[2]} neutral ones are shown by a checkpoint to be changed,"
            lines += ["", shown_by, "or are written just as the recorded run is."]
        lines += ["", "Neutral, because (with the journals, without any evidence):"]
        both = self.reasons[True] + self.reasons[False]
        lines += [
            f"{self.reasons[True][reason]:>7}{self.reasons[False][reason]:>7}  {reason}"
            for reason, _ in both.most_common()
        ]
        if self.missed:
            lines += ["", "Missed:", *(f"  {each}" for each in self.missed[:shown])]
        return "\n".join(lines)


def sampled(made: Iterable[Mutant], share: float) -> Iterator[Mutant]:
    """A part of the mutants, the same at each time: each name has its own lot."""
    bound = int(share * 2**32)
    for mutant in made:
        named = f"{mutant.run.partition(' ')[0]} {mutant.where} {mutant.how} {mutant.event_id}"
        if int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big") < bound:
            yield mutant


def judged(bench: Bench, shares: Mapping[str, float]) -> Tally:
    """Judge the mutants of runs, each with the journals and without.

    Args:
        bench: The runs.
        shares: Which runs, and how much of each.
    """
    tally = Tally()
    for run, share in shares.items():
        for mutant in sampled(bench.mutants(run), share):
            for evidence in (True, False):
                judgement = bench.judge(mutant, evidence=evidence)
                tally.add(judgement)
                if judgement.verdict == "neutral":
                    if bench.convicted(mutant):
                        tally.convicted += 1
                    else:
                        tally.missed.append(replace(judgement, verdict="missed", why="the checkpoint does not show it"))
    return tally


async def recorded(folder: Path) -> Runs:
    """Record the runs on a server of their own."""
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=shutil.which("temporal"), dev_server_log_level="error"
    )
    try:
        return await record(server.client.service_client.config.target_host, folder)
    finally:
        await server.shutdown()


def main(names: list[str]) -> int:
    """Print the table; 1 when a mutant was missed."""
    logging.disable(logging.WARNING)  # denials are what these runs are for
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asyncio.run(recorded(Path(folder) / "all")))
        began = time.monotonic()
        tally = judged(bench, dict.fromkeys(names or sorted(bench.runs), 1.0))
        bench.close()
    print(tally.table())
    print(f"\n{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if tally.missed else 0
