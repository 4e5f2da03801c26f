"""Audits of real runs: what was not touched is not flagged, and what is not proven is not called so."""

from __future__ import annotations

import pytest

from exequatur.audit.evidence import NoEvidence, journals_in
from exequatur.audit.history import history_from_json
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from tests.audit.runs import Runs

NAMES = [
    "sequential", "fan-out", "retried", "local", "denied", "timed-out", "withdrawn", "parent", "parent.child",
    "continued", "continued.last", "revoked", "cancelled", "terminated", "open", "again", "again.last", "base", "reset",
]  # fmt: skip


def audited(runs: Runs, name: str) -> RunReport:
    return audit_run(history_from_json(runs.histories[name].encode()), journals_in(runs.journal), read_trust(runs.trust))


def codes(report: RunReport, *severities: Severity) -> set[str]:
    return {each.code for each in report.findings if not severities or each.severity in severities}


@pytest.mark.parametrize("name", NAMES)
async def test_an_untouched_run_is_verified(runs: Runs, name: str) -> None:
    report = audited(runs, name)
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert report.governed
    print(name, codes(report))
    assert all(each.recomputed for activity in report.activities for each in activity.decisions)
