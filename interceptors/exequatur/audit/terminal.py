"""The report in a terminal: a line a run, what was found in it, and the verdict at the end, where the eye is.

Of several runs, what weighs less is given by its code, and what the codes mean is said once.

Only ``Text`` is printed, which holds no markup, so that no string of a history can colour, link or hide anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from exequatur.audit.report import Finding, Report, RunReport, Severity, Verdict
from exequatur.audit.wording import VERDICTS, all_findings, count, grouped, headline, shown, stood, tally, traffic, who

MOST = 20
"""Findings of one code that are printed for a run; the JSON and HTML reports have all."""

_STYLES = {
    Verdict.VERIFIED: "bold green",
    Verdict.VIOLATED: "bold red",
    Verdict.UNCHECKED: "bold yellow",
    Severity.VIOLATION: "red",
    Severity.UNCHECKED: "yellow",
    Severity.UNPROVEN: "cyan",
    Severity.NOTICE: "dim",
}
_GRAVE = (Severity.VIOLATION, Severity.UNCHECKED)
"""What is printed in full, also where many runs are."""
_NAME = 200  # characters of an id or a type on the line of a run


def print_report(report: Report, console: Console) -> None:
    """Print a report.

    Args:
        report: What was found.
        console: Where to.
    """
    brief = len(report.runs) > 1
    for run in report.runs:
        _print_run(run, console, brief=brief)
    _print_findings(report.findings, console)
    if brief:
        _print_meanings(report, console)
    title, sentence = headline(report)
    _print(console, Text())
    _print(console, Text(title, _STYLES[report.verdict]).append(f". {sentence}", "not bold default"), wrap=True)
    runs = count(len(report.runs), "run")
    activities = count(sum(len(run.activities) for run in report.runs), "activity", "activities")
    events = count(sum(run.events for run in report.runs), "event")
    _print(console, Text(f"{runs}, {activities}, {events}; {tally(all_findings(report))}"))


def _print_run(run: RunReport, console: Console, *, brief: bool) -> None:
    name = f"{shown(run.workflow_type, _NAME)} {shown(run.workflow_id, _NAME)} run {shown(run.run_id, _NAME)}"
    facts = [
        f"on behalf of {shown(who(run), _NAME)}",
        shown(run.outcome, _NAME),
        count(len(run.activities), "activity", "activities"),
        count(run.events, "event"),
        *stood(run),
        *traffic(run),
    ]
    if run.replay != "not run":
        facts.append(f"replay {run.replay}")
    line = Text(VERDICTS[run.verdict], _STYLES[run.verdict])
    line.append(f"  {name}", "not dim bold default").append(f"  {', '.join(facts)}", "not bold default")
    _print(console, line)
    _print_findings((each for each in run.findings if not brief or each.severity in _GRAVE), console)
    for severity in Severity:
        lighter = grouped(each for each in run.findings if each.severity is severity) if severity not in _GRAVE else []
        if brief and lighter:
            line = Text("  ").append(f"{severity} ", _STYLES[severity])
            _print(console, line.append(", ".join(shown(group.code) for group in lighter), "not bold default"))


def _print_meanings(report: Report, console: Console) -> None:
    """What the codes mean that runs were only given by name."""
    lighter = [each for run in report.runs for each in run.findings if each.severity not in _GRAVE]
    if lighter:
        _print(console, Text())
    for group in grouped(lighter):
        line = Text("  ").append(shown(group.code), _STYLES[group.severity])
        _print(console, line.append(f" ({count(len(group.findings), 'time')})  {group.meaning}", "not bold default"))


def _print_findings(findings: Iterable[Finding], console: Console) -> None:
    for group in grouped(findings):
        times = f" ({len(group.findings):,} times)" if len(group.findings) > 1 else ""
        line = Text("  ").append(f"{group.severity} ", _STYLES[group.severity]).append(shown(group.code), "bold")
        _print(console, line.append(f"{times}  {group.meaning}", "not bold default"))
        for finding in group.findings[:MOST]:
            where = [] if finding.event_id is None else [f"event {finding.event_id}"]
            where += [] if finding.activity_id is None else [f"activity {shown(finding.activity_id, _NAME)}"]
            _print(console, Text(f"    {', '.join(where)}{': ' if where else ''}{shown(finding.sentence)}"))
        if len(group.findings) > MOST:
            _print(console, Text(f"    and {len(group.findings) - MOST:,} more"))


def _print(console: Console, line: Text, *, wrap: bool = False) -> None:
    # Lines are left to the terminal to wrap, so that one grep finds the whole of a finding.
    console.print(line, soft_wrap=not wrap, markup=False, highlight=False, emoji=False)
