"""The terminal report: compact, complete in its counts, and no string of a history acts on the terminal."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from exequatur.audit.report import Report, finding
from exequatur.audit.terminal import MOST, print_report
from tests.audit.reports import HOSTILE, UNCHECKED, VERIFIED, VIOLATED, activity, run
from tests.audit.test_page import filled_with


def printed(report: Report, *, colours: bool = False, width: int = 100) -> str:
    out = io.StringIO()
    print_report(
        report, Console(file=out, width=width, force_terminal=colours, color_system="standard" if colours else None)
    )
    return out.getvalue()


def test_a_run_is_a_line_and_the_verdict_comes_last():
    lines = printed(VERIFIED).splitlines()
    assert lines[0].startswith("Verified  RefundAgent refund-4711 run 0198c1c2-")
    assert 'on behalf of User::"alice@acme.example"' in lines[0]
    assert lines[-1] == "1 run, 2 activities, 40 events; no findings"


def test_findings_stand_below_their_run_with_what_their_code_means():
    text = printed(VIOLATED)
    assert "violation receipt-missing  A result has no receipt: whoever made it was not a gated worker." in text
    assert "    event 27, activity 4: The result of event 27 has no receipt.\n" in text
    assert "2 runs, 6 activities, 80 events; 2 violations, 1 unproven point" in text
    assert text.index("receipt-missing") < text.index("time-unproven")


def test_findings_about_no_run_are_printed():
    assert "history.json: not the JSON of a workflow history" in printed(UNCHECKED)


def test_more_findings_of_one_code_than_fit_are_counted():
    found = tuple(finding("receipt-missing", f"no. {number}", event_id=number) for number in range(500))
    text = printed(Report(runs=(run(activity(), findings=found),)))
    assert f"no. {MOST - 1}\n" in text
    assert f"no. {MOST}\n" not in text
    assert "and 480 more" in text
    assert "(500 times)" in text


def test_markup_in_a_name_is_printed_as_it_is_and_control_characters_as_escapes():
    text = printed(filled_with(HOSTILE), width=400)
    assert "[bold red]x[/]" in text
    assert ":smile:" in text
    assert r"\x1b[31m \u202egrant \x9b2J" in text


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=60))
def test_no_string_reaches_the_terminal_as_a_control_sequence_or_another_line(text):
    lines = printed(filled_with(text)).split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(printed(filled_with("x")).split("\n"))


def test_a_finding_stays_on_one_line_however_narrow_the_terminal():
    assert "whoever made it was not a gated worker." in printed(VIOLATED, width=30)


def test_colours_carry_no_meaning_alone():
    coloured = printed(VIOLATED, colours=True)
    assert "\x1b[" in coloured
    assert "Violations found" in printed(VIOLATED)


def test_an_audit_of_nothing_says_so():
    assert "Nothing was audited" in printed(Report())
