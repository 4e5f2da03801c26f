"""The demo's last scenes: its own runs are audited, and one history is edited to see whether that is noticed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from exequatur.audit.evidence import EvidenceReader
from exequatur.audit.history import read_history
from exequatur.audit.page import render_html
from exequatur.audit.report import Report, RunReport, Severity, Verdict
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from workflows.scene import Outcome
from workflows.stage import Stage

UNAUTHORIZED = {
    "refund-without-grant": "run-ungoverned",
    "refund-copied-grant": "grant-invalid",
    "refund-by-rogue": "receipt-missing",
    "refund-by-forger": "receipt-invalid",
}
"""The runs of the demo that an audit must not pass, and what it must say of them."""
REPORT = "audit.html"


async def audit(stage: Stage) -> Outcome:
    stage.say("An auditor reads every history with the journals and the authority's public keys, and believes nothing.")
    with OpenEvidence([str(stage.folder / "state")]) as evidence:
        runs = [_audited(stage, path, evidence) for path in sorted((stage.folder / "histories").glob("*.json"))]
    report = Report(runs=tuple(runs))
    file = stage.folder / REPORT
    file.write_text(render_html(report), encoding="utf-8")
    found = {run.workflow_id: _violations(run) for run in runs if run.verdict is Verdict.VIOLATED}
    for workflow_id, codes in found.items():
        stage.fact(f"{workflow_id}: {', '.join(sorted(codes))}")
    decisions = [each for run in runs for activity in run.activities for each in activity.decisions]
    again = sum(each.recomputed is True for each in decisions)
    verified = sum(run.verdict is Verdict.VERIFIED for run in runs)
    stage.fact(f"report:    {file}")
    stage.fact(f"histories: {stage.folder / 'histories'}")
    stage.fact(f"evidence:  {stage.folder / 'state' / 'journal'}")
    as_expected = found.keys() == UNAUTHORIZED.keys() and all(UNAUTHORIZED[name] in found[name] for name in found)
    return Outcome(
        f"{verified} of {len(runs)} runs verified, {len(found)} not; {again} decisions recomputed",
        as_expected and verified + len(found) == len(runs) and again > 0,
    )


async def edited_history(stage: Stage) -> Outcome:
    stage.say("Somebody makes 42.50 into 4250.00 in a copy of the first run's history, and has it audited.")
    original = stage.folder / "histories" / "refund-allowed.json"
    copy = stage.folder / "refund-allowed.edited.json"
    copy.write_text(json.dumps(_edited(json.loads(original.read_text(encoding="utf-8")))), encoding="utf-8")
    with OpenEvidence([str(stage.folder / "state")]) as evidence:
        before, after = (_audited(stage, path, evidence) for path in (original, copy))
    for each in after.findings:
        if each.severity is Severity.VIOLATION:
            stage.fact(f"{each.code}: {each.sentence}")
    caught = before.verdict is Verdict.VERIFIED and after.verdict is Verdict.VIOLATED
    return Outcome(f"{before.verdict}, and when it was edited {after.verdict}", caught)


def _audited(stage: Stage, path: Path, evidence: EvidenceReader) -> RunReport:
    return audit_run(read_history(path), evidence, read_trust(stage.folder / "state" / "trust.jwks"))


def _violations(run: RunReport) -> set[str]:
    return {each.code for each in run.findings if each.severity is Severity.VIOLATION}


def _edited(history: dict[str, Any]) -> dict[str, Any]:
    """The history with a hundred times the amount."""
    for event in history["events"]:
        asked = event.get("activityTaskScheduledEventAttributes")
        for payload in asked["input"]["payloads"] if asked else ():
            text = base64.b64decode(payload["data"]).replace(b"42.50", b"4250.00")
            payload["data"] = base64.b64encode(text).decode()
    return history
