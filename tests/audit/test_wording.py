"""What people read: strings of an attacker are inert in it, and a verdict never says more than was found."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.audit import wording
from exequatur.audit.report import Finding, Report, Severity, Verdict, finding
from tests.audit.reports import HOSTILE, UNCHECKED, VERIFIED, VIOLATED, activity, run


@given(st.text())
def test_every_text_is_shown_in_printable_characters(text):
    assert wording.shown(text).isprintable()


def test_text_of_a_person_is_shown_as_it_is():
    for text in ("refund-4711", "Müller & Söhne", "退款", "שלום", "a \\ b"):
        assert wording.shown(text) == text


def test_what_is_cut_says_how_much_there_was():
    assert wording.shown("a" * 5000, 10) == "aaaaaaaaaa… (5,000 characters)"


def test_a_lone_surrogate_is_shown_as_its_escape():
    assert wording.shown("a\ud800b") == "a\\ud800b"


@given(st.floats())
def test_every_number_has_words(number):
    assert wording.moment(number)
    assert wording.span(number)


def test_moments_and_spans_read_as_people_write_them():
    assert wording.moment(1_767_261_600.25) == "2026-01-01 10:00:00.250"
    spans = [0.012, 1.5, 59.999, 61, 3661, 90000, math.inf]
    assert [wording.span(one) for one in spans] == [
        "12 ms",
        "1.50 s",
        "60.00 s",
        "1 min 1 s",
        "1 h 1 min",
        "1 d 1 h",
        "unknown",
    ]


def test_groups_stand_in_the_order_of_their_weight():
    groups = wording.grouped(VIOLATED.runs[0].findings)
    assert [group.severity for group in groups] == [Severity.VIOLATION, Severity.VIOLATION, Severity.UNPROVEN]


def test_a_code_of_a_later_version_is_grouped_and_says_so():
    (group,) = wording.grouped([Finding(code="new", severity=Severity.VIOLATION, sentence="x")])
    assert "does not know" in group.meaning


@pytest.mark.parametrize("report", [VIOLATED, UNCHECKED, Report()])
def test_the_headline_says_verified_of_nothing_else(report):
    title, sentence = wording.headline(report)
    assert report.verdict is not Verdict.VERIFIED
    assert "erified" not in title + sentence


def test_the_headline_of_a_verified_report_names_what_is_unproven_and_what_had_no_grant():
    assert wording.headline(VERIFIED)[0] == "Verified"
    assert "unproven" not in wording.headline(VERIFIED)[1]
    unproven = run(activity(), findings=(finding("time-unproven", "No checkpoint."),))
    exempt = run(governed=False, principal=None, findings=(finding("run-exempt", "Exempt."),))
    sentence = wording.headline(Report(runs=(unproven, exempt)))[1]
    assert "1 run had no grant" in sentence
    assert "no independent party vouches" in sentence


def test_a_refusal_that_was_only_observed_says_so():
    from tests.audit.reports import decided

    assert wording.decision(decided(decision="deny", enforced=False)) == "denied by policy, but only observed"
    assert wording.decision(decided(decision="none")) == "refused before policy was asked"
    assert wording.shown(HOSTILE) != HOSTILE
