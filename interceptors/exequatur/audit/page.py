"""The report as one HTML file that a person reads without the code: verdict, then who, what, why and proof.

Rules, numbered as the code and the template mark them:

Y1  Every string is hostile: it is escaped for HTML, its control and direction characters are written as escapes, and
    it never becomes a URL, a style, an id or an attribute.
Y2  The file is whole: no script, no image, no font and no style from elsewhere, and a policy in it says so.
Y3  Nothing is left out in silence: what is folded or cut says how much there is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from exequatur.audit import wording
from exequatur.audit.report import ActivityReport, Finding, Report, RunReport, Severity, Verdict

ROWS = 500
"""Activities in one table; more are further tables, folded, so that a browser lays out only what is looked at."""
OPEN_RUNS = 5
"""With more runs than these, those without a violation or gap are folded."""
OPEN_FINDINGS = 10
"""Findings of one code that stand unfolded."""
MOST_NAMES = 10
"""Workers or bundles that are named for a run; the JSON report has all."""


@dataclass(frozen=True)
class _Row:
    """An activity, with the gravest of its findings and its place in the run's time as a style of numbers only."""

    activity: ActivityReport
    flag: Severity | None
    bar: str


@dataclass(frozen=True)
class _Run:
    """A run, and what the template says about it."""

    number: int
    run: RunReport
    unfolded: bool
    groups: list[wording.Group]
    tables: list[list[_Row]]
    places: _Places
    facts: list[tuple[str, str]]
    proof: list[tuple[str, str]]


@dataclass(frozen=True)
class _Places:
    """Which activity, by the event that scheduled it, a finding is about."""

    events: frozenset[int]
    by_activity: dict[str, int]

    def of(self, finding: Finding) -> int | None:
        if finding.event_id in self.events:
            return finding.event_id
        return None if finding.activity_id is None else self.by_activity.get(finding.activity_id)


def render_html(report: Report) -> str:
    """The report as a page.

    Args:
        report: What was found.

    Returns:
        A complete HTML document.
    """
    many = len(report.runs) > OPEN_RUNS
    title, sentence = wording.headline(report)
    return _template().render(
        report=report,
        title=title,
        sentence=sentence,
        runs=[_run(number, run, many) for number, run in enumerate(report.runs, 1)],
        groups=wording.grouped(report.findings),
        activities=sum(len(run.activities) for run in report.runs),
        events=sum(run.events for run in report.runs),
        tally=wording.tally(wording.all_findings(report)),
        words=wording,
        unfolded_findings=OPEN_FINDINGS,
        rows=ROWS,
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,  # [Y1]
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(files("exequatur.audit").joinpath("report.html.jinja").read_text("utf-8"))


def _finalize(value: Any) -> Any:
    # [Y1] What a macro returns is markup; every other string may come from a history.
    return value if isinstance(value, Markup) or not isinstance(value, str) else wording.shown(value)


def _run(number: int, run: RunReport, many: bool) -> _Run:
    places = _Places(
        frozenset(activity.event_id for activity in run.activities),
        {activity.activity_id: activity.event_id for activity in reversed(run.activities)},
    )
    groups = wording.grouped(run.findings)
    flags: dict[int, Severity] = {}
    for group in groups:
        for finding in group.findings:
            if (place := places.of(finding)) is not None:
                flags.setdefault(place, group.severity)
    begin, end = _extent(run)
    rows = [_Row(activity, flags.get(activity.event_id), _bar(activity, begin, end)) for activity in run.activities]
    return _Run(
        number=number,
        run=run,
        unfolded=not many or run.verdict is not Verdict.VERIFIED,
        groups=groups,
        tables=[rows[start : start + ROWS] for start in range(0, len(rows), ROWS)],
        places=places,
        facts=_facts(run),
        proof=_proof(run),
    )


def _extent(run: RunReport) -> tuple[float, float]:
    """The time that the run's bars lie in."""
    times = [run.started, *([] if run.closed is None else [run.closed])]
    for activity in run.activities:
        times += [activity.scheduled, *([] if activity.closed is None else [activity.closed])]
    return min(times), max(times)


def _bar(activity: ActivityReport, begin: float, end: float) -> str:
    length = end - begin
    if not (0 < length < math.inf):
        return "left:0%;width:100%"
    left = _percent((activity.scheduled - begin) / length)
    closed = end if activity.closed is None else activity.closed
    return f"left:{left:.2f}%;width:{min(_percent((closed - activity.scheduled) / length), 100 - left):.2f}%"


def _percent(share: float) -> float:
    return min(max(share, 0.0), 1.0) * 100


def _facts(run: RunReport) -> list[tuple[str, str]]:
    end = "still open" if run.closed is None else wording.moment(run.closed)
    took = "" if run.closed is None else f" after {wording.span(run.closed - run.started)}"
    enforced = {
        "enforce": "enforced: a refused activity did not run",
        "observe": "observed only: refusals were recorded, and nothing was kept from running",
        None: "none",
    }
    return [
        ("Acted on behalf of", wording.who(run)),
        ("Grant issued by", run.issuer or "nobody"),
        ("Grant", run.grant or "none"),
        ("Enforcement", enforced.get(run.mode, run.mode or "")),
        ("Workflow id", run.workflow_id),
        ("Run id", run.run_id),
        ("Started", f"{wording.moment(run.started)} UTC"),
        ("Ended", end if run.closed is None else f"{end} UTC{took}: {run.outcome}"),
    ]


def _proof(run: RunReport) -> list[tuple[str, str]]:
    activities, total = run.activities, len(run.activities)
    decisions = [decided for activity in activities for decided in activity.decisions]
    again = Counter(decided.recomputed for decided in decisions)
    proofs = Counter(activity.proof for activity in activities)
    covered = (
        f"{wording.count(run.checkpoints, 'checkpoint')}; the largest covers {run.checkpointed_events:,} of "
        f"{wording.count(run.events, 'event')}"
        if run.checkpoints
        else "none: no notary has signed this history, so its times are what server and workers say"
    )
    replay = {
        "deterministic": "the workflow code, run again over this history, made the same choices",
        "nondeterministic": "the workflow code, run again over this history, made other choices",
    }
    return [
        ("Requests", f"{sum(one.requested_by is not None for one in activities):,} of {total:,} activities have one"),
        ("Results", ", ".join(f"{wording.PROOFS[kind]}: {n:,}" for kind, n in proofs.most_common()) or "none"),
        (
            "Decisions",
            f"{len(decisions):,} in the evidence; recomputed with the same answer: {again[True]:,}, with another "
            f"answer: {again[False]:,}, not recomputed: {again[None]:,}",
        ),
        ("Stood on besides", ", ".join(wording.stood(run)) or "nothing but the grant and the policies"),
        ("Messages", _messages(run)),
        ("Asked of the authority", _asked(run)),
        ("Checkpoints", covered),
        ("Workers", _most(activity.worker for activity in activities)),
        ("Policy bundles", _most(decided.bundle for decided in decisions)),
        ("Replay", replay.get(run.replay, "not asked for")),
    ]


def _messages(run: RunReport) -> str:
    kinds = Counter((wording.MESSAGE_PROOFS[one.proof], one.accepted) for one in run.messages)
    told = [f"{n:,} {'accepted' if ok else 'refused'}, proven by: {proof}" for (proof, ok), n in kinds.most_common()]
    return "; ".join([*told, *(wording.traffic(run.model_copy(update={"messages": ()})))]) or "none"


def _asked(run: RunReport) -> str:
    again = Counter(one.recomputed for one in run.asked)
    if not run.asked:
        return "nothing in the evidence"
    return (
        f"{len(run.asked):,} questions in the evidence; recomputed with the same answer: {again[True]:,}, with another "
        f"answer: {again[False]:,}, not recomputed: {again[None]:,}"
    )


def _most(names: Iterable[str | None]) -> str:
    """The commonest names and how often each stands."""
    counts = Counter(name for name in names if name is not None)
    listed = [f"{wording.shown(name, 200)} ({times:,})" for name, times in counts.most_common(MOST_NAMES)]
    more = len(counts) - len(listed)
    return "; ".join([*listed, *([f"and {more:,} more"] if more else [])]) or "none"  # [Y3]
