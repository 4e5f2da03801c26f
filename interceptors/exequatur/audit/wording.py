"""The words of a report for people, the same in the terminal and on the page.

Names, reasons and sentences of a report come from histories and workers that the audit does not trust. Whoever prints
one passes it through :func:`shown` first.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exequatur.audit.codes import CODES
from exequatur.audit.report import (
    ActivityReport,
    AskedReport,
    Decided,
    Finding,
    MessageReport,
    Report,
    RunReport,
    Severity,
    Verdict,
)
from exequatur.statements.encoding import strict_json

LONGEST = 2000
"""Characters of one string that are shown. No name or reason that a person reads is longer; JSON has all of it."""

VERDICTS = {
    Verdict.VERIFIED: "Verified",
    Verdict.VIOLATED: "Violations found",
    Verdict.UNCHECKED: "Could not be checked",
}
SEVERITIES = {
    Severity.VIOLATION: ("violation", "violations"),
    Severity.UNCHECKED: ("gap that could not be checked", "gaps that could not be checked"),
    Severity.UNPROVEN: ("unproven point", "unproven points"),
    Severity.NOTICE: ("notice", "notices"),
}
MESSAGE_PROOFS = {
    "signed": "signed by the run",
    "history": "its own permit only; nothing signed says what the run did with it",
    "journal": "worker's journal only",
}
PROOFS = {
    "receipt": "signed receipt",
    "denial": "signed denial",
    "journal": "worker's journal only",
    "none": "none",
}


def shown(text: str, longest: int = LONGEST) -> str:
    """Text with every control, direction and invisible character written as its escape, cut where it is too long."""
    cut = f"… ({len(text):,} characters)" if len(text) > longest else ""
    text = text[:longest]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text + cut


def moment(at: float) -> str:
    """A time in UTC.

    Args:
        at: Seconds since 1970.
    """
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}.{int(at % 1 * 1000):03d}"
    except (ValueError, OverflowError, OSError):
        return f"{at} (no time of a calendar)"


def span(seconds: float) -> str:
    """A duration."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min {whole % 60} s"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def decision(decided: Decided) -> str:
    """What a gate decided about an attempt."""
    if decided.decision == "allow":
        return "allowed"
    refused = "denied by policy" if decided.decision == "deny" else "refused before policy was asked"
    return refused if decided.enforced else f"{refused}, but only observed"


def handled(message: MessageReport) -> str:
    """What became of a message."""
    return "accepted" if message.accepted else f"refused: {message.reason or 'without a reason'}"


def answered(asked: AskedReport) -> str:
    """What was answered to a question about one of the gate's own actions."""
    if asked.decision == "allow":
        return "allowed"
    refused = "denied by policy" if asked.decision == "deny" else "refused before policy was asked"
    return refused if asked.enforced else f"{refused}, but only observed"


def traffic(run: RunReport) -> list[str]:
    """What reached a run and what it sent, each in a few words; nothing where there is nothing."""
    refused = sum(not each.accepted for each in run.messages)
    dropped = sum(each.refused is not None for each in run.sent)
    counts = [
        (len(run.messages), "message", refused),
        (len(run.sent), "message sent elsewhere", dropped),
    ]
    return [
        count(number, name, name.replace("message", "messages")) + (f" ({bad:,} refused)" if bad else "")
        for number, name, bad in counts
        if number
    ]


def stood_on(activity: ActivityReport) -> list[str]:
    """What an activity stood on besides the grant and the policies, a few words each."""
    held = activity.restricted
    told = []
    if activity.approved_by:
        told.append(f"approved by {', '.join(activity.approved_by)}")
    if activity.completed_by is not None:
        told.append(f"completed from outside by {activity.completed_by}")
    if held is not None and held.activities is not None:
        told.append(f"restricted to {', '.join(held.activities) or 'no activity'}")
    if held is not None and held.until is not None:
        told.append(f"restricted to the time before {moment(held.until)} UTC")
    if held is not None and held.forbid:
        told.append(f"restricted by {count(len(held.forbid), 'text')} of policies")
    return told


def stood(run: RunReport) -> list[str]:
    """What the activities of a run stood on, counted; nothing where it was nothing but the grant and the policies."""
    counts = (
        (sum(bool(each.approved_by) for each in run.activities), "approved"),
        (sum(each.outcome == "challenged" for each in run.activities), "waited for people"),
        (sum(each.outcome == "renewed" for each in run.activities), "met an ended grant that was renewed"),
        (sum(each.restricted is not None for each in run.activities), "restricted"),
        (sum(each.completed_by is not None for each in run.activities), "completed from outside"),
    )
    return [f"{number:,} {what}" for number, what in counts if number]


def recomputed(decided: Decided | AskedReport) -> str:
    """What came out when the decision was made again."""
    return {
        True: "recomputed: same answer",
        False: "recomputed: another answer",
        None: "not recomputed",
    }[decided.recomputed]


@dataclass(frozen=True)
class Group:
    """Findings of one code.

    Args:
        code: Theirs.
        severity: The worst of theirs.
        meaning: What the code stands for.
        findings: In the order of the report.
    """

    code: str
    severity: Severity
    meaning: str
    findings: tuple[Finding, ...]


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Findings by code, the gravest first."""
    weights = list(Severity)
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    groups = [
        Group(
            code,
            min((finding.severity for finding in members), key=weights.index),
            CODES[code].meaning if code in CODES else "A code that this version does not know.",
            tuple(members),
        )
        for code, members in by_code.items()
    ]
    return sorted(groups, key=lambda group: weights.index(group.severity))


def tally(findings: Iterable[Finding]) -> str:
    """How many there are of each severity, in words."""
    counts = Counter(finding.severity for finding in findings)
    parts = [count(counts[severity], *words) for severity, words in SEVERITIES.items() if counts[severity]]
    return ", ".join(parts) or "no findings"


def all_findings(report: Report) -> list[Finding]:
    """Those of the report and of its runs."""
    return [*report.findings, *(finding for run in report.runs for finding in run.findings)]


def headline(report: Report) -> tuple[str, str]:
    """The verdict, and what it means for whoever relies on these runs."""
    verdict, total = report.verdict, len(report.runs)
    if verdict is Verdict.VIOLATED:
        bad = sum(run.verdict is Verdict.VIOLATED for run in report.runs)
        what = (
            f"{bad:,} of {total:,} runs {'holds' if bad == 1 else 'hold'}"
            if bad and total > 1
            else "What was audited holds"
        )
        graver = {each.code for each in all_findings(report) if each.severity is Severity.VIOLATION}
        if graver == {"replay-nondeterministic"}:
            return "Not deterministic", (
                "The workflow code does not replay what was audited, so it is not the code that ran. No other was "
                "found."
            )
        return VERDICTS[verdict], (
            f"{what} something that was not authorized or was changed afterwards. Each violation here says what and "
            "where; do not rely on what it touches until it is explained."
        )
    if verdict is Verdict.UNCHECKED:
        if not total:
            return "Nothing was audited", "No history could be read, so nothing is known about any run."
        return VERDICTS[verdict], (
            "No violation was found, but part of this could not be checked with what the audit was given. Each gap "
            "here says what is missing; until it is closed, nothing follows from the silence."
        )
    governed = sum(run.governed for run in report.runs)
    sentence = (
        f"In {count(governed, 'run')} every activity was authorized as far as the checks reach, every decision that "
        "could be recomputed came out the same, and nothing was found changed, added or removed."
        if governed
        else "No violation was found."
    )
    refused = sum(each.code == "not-enforced" for each in all_findings(report))
    if refused:
        sentence = (
            f"Nothing was found changed, added or removed. But {count(refused, 'attempt')} ran although the gate said "
            "no, because it only observed."
        )
    if governed < total:
        sentence += f" {count(total - governed, 'run')} had no grant, which the trust file permits for the type."
    if any(finding.severity is Severity.UNPROVEN for finding in all_findings(report)):
        sentence += (
            " For the points marked unproven, nothing speaks against them and no independent party vouches for them."
        )
    return VERDICTS[verdict], sentence


def who(run: RunReport) -> str:
    """On whose behalf a run acted."""
    if run.principal:
        return run.principal
    return "unknown" if run.governed else "nobody: it was started without a grant"


def readable(arguments: str) -> str:
    """Arguments without Cedar's notation for decimals, times and entities."""
    try:
        return json.dumps(_plain(strict_json(arguments)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments


def _plain(value: Any) -> Any:
    match value:
        case {"__extn": {"fn": str(), "arg": str(text)}} if len(value) == 1:
            return text
        case {"__entity": {"type": str(kind), "id": str(name)}} if len(value) == 1:
            return f'{kind}::"{name}"'
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list():
            return [_plain(each) for each in value]
    return value
