"""The mutation suite, in part; ``make audit-mutants`` runs all of it and prints the table."""

from __future__ import annotations

import pytest

from exequatur.audit.report import Verdict
from tests.audit.judging import Bench, judged, sampled
from tests.audit.neutral import NEUTRAL

WHOLE = ("continued", "retried", "parent")
"""Runs that all mutants are made of here; of the others, a part that is the same at each time."""
PART = 0.08


def test_no_unmodified_history_is_flagged(bench: Bench) -> None:
    for (name, evidence), report in bench.recorded.items():
        # Without the journals, receipts name records that are not there; that is no violation.
        due = (Verdict.VERIFIED,) if evidence else (Verdict.VERIFIED, Verdict.UNCHECKED)
        assert report.verdict in due, (name, evidence, report.findings)


@pytest.mark.parametrize("name", WHOLE)
def test_every_mutant_of_a_run_is_detected_or_known_to_be_neutral(bench: Bench, name: str) -> None:
    tally = judged(bench, {name: 1.0})
    assert not tally.missed, tally.table()
    assert tally.detected[name] > tally.tried[name] / 3


def test_a_sample_of_the_mutants_of_every_other_run_is_detected_or_known_to_be_neutral(bench: Bench) -> None:
    tally = judged(bench, dict.fromkeys((name for name in bench.runs if name not in WHOLE), PART))
    assert not tally.missed, tally.table()


def test_a_history_whose_statements_are_taken_out_is_detected_without_any_evidence(bench: Bench) -> None:
    for name in bench.runs:
        for mutant in bench.mutants(name):
            if mutant.where == "statements" and "everything" in mutant.how:
                assert bench.judge(mutant, evidence=False).verdict == "detected", str(mutant)


def test_a_checkpoint_convicts_what_is_neutral_without_one(bench: Bench) -> None:
    mutants = list(sampled(bench.mutants("sequential"), 0.02))
    assert mutants
    for mutant in mutants:
        judgement = bench.judge(mutant, evidence=True, checkpointed=lambda mutant, report: True)
        assert judgement.verdict == "detected"


def test_the_reviewed_list_has_a_reason_for_each_rule_and_no_reason_twice() -> None:
    reasons = [rule.reason for rule in NEUTRAL]
    assert all(reasons)
    assert len(set(reasons)) == len(reasons)
