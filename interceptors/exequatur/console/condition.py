"""How everything is: one frozen model that the page, the JSON and the metrics are all made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from exequatur.console.latency import OUTCOMES, Latency, Span, added, latency_of, spans_of
from exequatur.console.probes import Service
from exequatur.console.problems import Authority, Problem, problems_of
from exequatur.console.workers import LATELY, WORKER_STATES, Reports, WorkerHealth, workers_of
from exequatur.release.traffic import BOUNDS

HealthState = Literal["failing", "warning", "idle", "ok"]
MOST_WORKERS = 200
MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Health:
    """How everything is.

    Args:
        at: When, in seconds since 1970 like all times.
        state: In one word: ``failing`` while anything fails closed, ``idle`` where no worker reports.
        problems: What is wrong, in order of weight.
        workers: Those with problems first.
        unlisted: Workers that are not listed, because there are too many.
        states: How many workers are in which state.
        services: What the workers stand on.
        minutes: What happened in the last minutes.
        telling: Workers that told it: those that run, and those that left their report behind.
        decided: What the evidence has of these minutes, by outcome; of workers that have ended, too.
        latency: How long the gates took in the last minutes.
        decisions: Rows of evidence that were read since the console began, and journals and stores that are followed.
        sources: See there.
        revocations: Version of the authority's feed.
        reports_age: Seconds since the reports were read; ``None`` where they never were.
    """

    at: float
    state: HealthState
    problems: tuple[Problem, ...]
    workers: tuple[WorkerHealth, ...]
    unlisted: int
    states: dict[str, int]
    services: tuple[Service, ...]
    minutes: tuple[Span, ...]
    telling: int
    decided: dict[str, int]
    latency: Latency
    decisions: int
    sources: int
    revocations: int
    reports_age: float | None

    def plain(self) -> dict[str, Any]:
        """The same for JSON, templates and metrics."""
        return {**asdict(self), "bounds": list(BOUNDS)}


def health_of(
    reports: Reports,
    services: Sequence[Service],
    authority: Authority,
    evidence: Mapping[str, Any],
    minutes: Sequence[tuple[int, Mapping[str, int]]],
    now: float,
) -> Health:
    """Put together what was seen.

    Args:
        reports: Of the workers.
        services: What was found by probes.
        authority: What the console's own authority knows.
        evidence: ``facts()`` of the console's decisions.
        minutes: Begin and outcomes of minutes, as the evidence has them.
        now: Seconds since 1970.
    """
    workers = workers_of(reports, now)
    problems = problems_of(workers, reports, services, authority, evidence, now)
    told = [
        each.standing.traffic.minutes
        for each in (*reports.running, *reports.ended)
        if each.standing is not None and each.standing.traffic is not None
    ]
    spans = spans_of(told, minutes, now)
    recent = [outcomes for at, outcomes in minutes if at >= spans[0].at]
    state: HealthState = "ok"
    if any(each.severity == "violation" for each in problems):
        state = "failing"
    elif reports.unread is None and not any(each.state == "ready" for each in workers):
        state = "idle"
    elif any(each.severity == "unchecked" for each in problems):
        state = "warning"
    return Health(
        at=now,
        state=state,
        problems=tuple(problems[:MOST_PROBLEMS]),
        workers=tuple(workers[:MOST_WORKERS]),
        unlisted=max(0, len(workers) - MOST_WORKERS),
        states={state: sum(each.state == state for each in workers) for state in WORKER_STATES},
        services=tuple(services),
        minutes=spans,
        telling=len(told),
        decided={name: sum(each.get(name, 0) for each in recent) for name in OUTCOMES},
        latency=latency_of(added(each.latency for worker in told for each in worker if now - each.at < LATELY)),
        decisions=int(evidence.get("rows", 0)),
        sources=int(evidence.get("sources", 0)),
        revocations=authority.revocations,
        reports_age=reports.age,
    )
