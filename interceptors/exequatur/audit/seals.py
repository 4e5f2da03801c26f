"""Signed checkpoints of a run against its history.

Rules, numbered as the code marks them:

K1  A checkpoint counts if a notary of the trust file has signed it; another one is not checked, and that is said.
K2  It is of this run, and the events that it covers give its root.
K3  As many witnesses as the trust file demands have cosigned it.
K4  A witness's time bounds the events from above: none of those covered may be dated later.
K5  What was signed of a run that this one says it was reset from is in that run's own history.
"""

from __future__ import annotations

from collections.abc import Iterable

from exequatur.audit.activities import seconds
from exequatur.audit.bundle import notary_of, origin_of, verify_note
from exequatur.audit.evidence import EvidenceReader
from exequatur.audit.history import RunHistory
from exequatur.audit.leaves import tree_of
from exequatur.audit.report import Finding, RunReport, finding
from exequatur.audit.start import LEEWAY
from exequatur.audit.trust import AuditTrust
from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.lineage.checkpoint import verify_checkpoint


def check_checkpoints(
    report: RunReport, history: RunHistory, signed: Iterable[str], trust: AuditTrust, origin: str | None = None
) -> RunReport:
    """Check the checkpoints of a run and say in its report what they prove.

    Args:
        report: The audit of the run so far.
        history: As Temporal has it, not decoded.
        signed: Notes that are said to be of this run.
        trust: Names notaries, witnesses and how many are demanded.
        origin: The name of the run's log, where it is known.
    """
    found: list[Finding] = []
    tree = None
    covered = count = 0
    sizes: set[int] = set()
    bounded = False
    for note in signed:
        try:
            notary = notary_of(note, trust)
        except EvidenceError as error:
            found.append(finding("checkpoint-invalid", f"A checkpoint cannot be read: {error}"))
            continue
        if notary is None:  # [K1]
            found.append(
                finding("checkpoint-unverified", "A checkpoint is by a notary that the trust file does not name")
            )
            continue
        try:
            verified = verify_checkpoint(note, notary=notary, witnesses=trust.witnesses, origin=origin)
        except (EvidenceError, ConfigurationError) as error:
            found.append(finding("checkpoint-invalid", str(error)))
            continue
        head, cosigned = verified.checkpoint, verified.cosigned
        try:
            tree = tree or tree_of(history.events)
        except EvidenceError as error:  # [K2] what was signed could be written
            found.append(finding("checkpoint-invalid", str(error)))
            break
        if head.size > len(tree):  # [K2]
            sentence = f"A checkpoint covers {head.size} events, and the history has {len(tree)}"
            found.append(finding("checkpoint-invalid", sentence))
            continue
        if tree.root(head.size) != head.root:  # [K2]
            found.append(finding("checkpoint-invalid", f"The first {head.size} events are not those that were signed"))
            continue
        count, covered = count + 1, max(covered, head.size)
        sizes.add(head.size)
        if len(cosigned) < trust.threshold:  # [K3]
            sentence = f"{len(cosigned)} witnesses have cosigned at {head.size} events; {trust.threshold} are demanded"
            found.append(finding("witnesses-missing", sentence))
        elif cosigned:
            seen = min(cosigned.values())
            late = next((each for each in history.events[: head.size] if seconds(each) > seen + LEEWAY), None)
            if late is not None:  # [K4]
                sentence = f"Event {late.event_id} is dated after a witness had seen it"
                found.append(finding("checkpoint-invalid", sentence, event_id=late.event_id))
            elif head.size == len(tree):
                bounded = True
                names = ", ".join(sorted(cosigned))
                found.append(finding("time-bounded", f"Witnesses ({names}) had seen all of it by {seen} s since 1970"))
    whole = tree is not None and covered == len(tree)
    settled = {"time-unproven"} if bounded else set()
    kept = [each for each in report.findings if each.code not in settled | ({"events-unproven"} if whole else set())]
    if whole and not bounded:
        unseen = "No witness has cosigned a checkpoint of this run: its times are as server and workers say"
        kept = [each.model_copy(update={"sentence": unseen}) if each.code == "time-unproven" else each for each in kept]
    return report.model_copy(
        update={
            "findings": (*kept, *found),
            "checkpoints": count,
            "checkpointed_events": covered,
            "checkpoint_sizes": tuple(sorted(sizes)),
        }
    )


def with_checkpoints(
    report: RunReport, recorded: RunHistory, plain: RunHistory, evidence: EvidenceReader, trust: AuditTrust
) -> RunReport:
    """Look for a run's checkpoints in the evidence and check them.

    Args:
        report: The audit of the run so far.
        recorded: As Temporal has it; that is what notaries sign.
        plain: The same with payloads decoded, to read the grant, which says where the run belongs.
        evidence: Has the checkpoints.
        trust: Names notaries, witnesses and how many are demanded.
    """
    origin = origin_of(plain)
    notes = evidence.checkpoints(origin) if origin is not None else ()
    for base in sorted(plain.run_ids - {plain.run_id}):
        # A reset is the server's word: what was signed of the run that it says it was reset from must be looked at.
        other = origin_of(plain, base)
        if other is not None and (before := evidence.checkpoints(other)):
            report = _check_base(report, recorded, base, before, trust)
    if not notes and trust.threshold:  # [K3]
        missing = finding("witnesses-missing", f"There is no checkpoint; {trust.threshold} witnesses are demanded")
        return report.model_copy(update={"findings": (*report.findings, missing)})
    return check_checkpoints(report, recorded, notes, trust, origin)


def _check_base(
    report: RunReport, recorded: RunHistory, base: str, signed: Iterable[str], trust: AuditTrust
) -> RunReport:
    """K5."""
    for note in signed:
        try:
            head = verify_note(note, trust, demanding=False)
        except (EvidenceError, ConfigurationError):
            continue  # said where that run is audited
        ends = [event_id for event_id, before, _ in recorded.resets if before == base]
        shared = (ends or [recorded.resets[0][0]])[0] - 1
        if head.size > shared:  # [K5]
            sentence = f"Run {base} went further than this history shows; audit its own history, too"
            return report.model_copy(update={"findings": (*report.findings, finding("base-cut", sentence))})
    return report
