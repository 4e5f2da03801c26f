"""The mutation suite, in part; ``make audit-mutants`` runs all of it and prints the table."""

from __future__ import annotations

from typing import Any

import pytest

from exequatur.audit.report import Verdict
from tests.audit.judging import Bench, judged
from tests.audit.neutral import NEUTRAL

WHOLE = ("continued", "retried", "parent")
"""Runs that all mutants are made of here; of the others, a part that is the same at each time."""
PART = 0.08


def test_no_unmodified_history_is_flagged(bench: Bench) -> None:
    for (name, evidence), report in bench.recorded.items():
        # Without the journals, receipts name records that are not there; and a reset alone could hide what the run
        # before it did. Neither is a violation.
        due = (Verdict.VERIFIED,) if evidence and name != "reset" else (Verdict.VERIFIED, Verdict.UNCHECKED)
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


def test_a_checkpoint_shows_what_is_neutral_without_one(bench: Bench) -> None:
    tally = judged(bench, {"talkative": 0.2})
    assert not tally.missed, tally.table()
    assert tally.convicted == tally.neutral.total() > 50


def test_the_reviewed_list_has_a_reason_for_each_rule_and_no_reason_twice() -> None:
    reasons = [rule.reason for rule in NEUTRAL]
    assert all(reasons)
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    ("name", "where", "switched"),
    [
        ("sequential", "events: ", ("verify.check_events", lambda history: [])),
        ("parent", "start_child", ("verify.check_children", lambda *_: ())),
        ("continued", "workflow_execution_continued_as_new", ("handover._told", lambda asked: {})),
        ("retried", "activity_task_started", ("proofs.Proofs._misplaced", lambda *_: None)),
        ("sequential", "workflow_execution_started", ("start._check_start", lambda *_: None)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_the_suite_notices_when_a_check_is_switched_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, where: str, switched: tuple[str, Any]
) -> None:
    """What it judges by are reports, so a check that is gone shows as a mutant that is missed."""
    chosen = [mutant for mutant in bench.mutants(name) if mutant.where.startswith(where)]
    target, without = switched
    monkeypatch.setattr(f"exequatur.audit.{target}", without)
    judgements = (bench.judge(mutant, evidence=evidence) for mutant in chosen for evidence in (False, True))
    assert any(each.verdict == "missed" for each in judgements)
