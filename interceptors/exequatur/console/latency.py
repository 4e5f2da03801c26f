"""Percentiles of bucket counts, and the minutes of many workers as one row of minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from exequatur.release.traffic import BOUNDS, MINUTES, Kind, Minute

KINDS: tuple[Kind, ...] = get_args(Kind)
DECIDED: tuple[Kind, ...] = ("allowed", "observed", "denied", "rejected", "challenged", "unavailable")
"""What is a decision, or the lack of one; the rest follows decisions that were made."""
OUTCOMES = ("allow", "deny", "none")
"""What the evidence tells apart."""
ERRORS: tuple[Kind, ...] = ("unavailable", "rejected", "receipt", "message")
"""What should not happen in an installation that is well, whatever its policies say."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the gate took, in milliseconds; ``None`` where nothing was decided.

    Args:
        count: Decisions.
        p50: Median.
        p95: What one in twenty took longer than.
        p99: What one in a hundred took longer than.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Span:
    """What happened in one minute, everywhere.

    Args:
        at: When it began, in seconds since 1970.
        latency: How long the gate took.
        kinds: How often what happened.
        source: Who says so: the workers themselves, or the evidence, which holds no ``unavailable`` and no times.
    """

    at: int
    latency: Latency
    kinds: dict[str, int]
    source: Literal["workers", "evidence"]


def latency_of(buckets: Sequence[int]) -> Latency:
    """Percentiles, as far as buckets tell them: between two bounds they are taken to lie evenly."""
    return Latency(sum(buckets), *(_percentile(buckets, each) for each in (0.5, 0.95, 0.99)))


def added(many: Iterable[Sequence[int]]) -> list[int]:
    """The sum of bucket counts."""
    total = [0] * (len(BOUNDS) + 1)
    for each in many:
        total = [one + other for one, other in zip(total, each, strict=True)]
    return total


def spans_of(
    workers: Sequence[Sequence[Minute]], evidence: Sequence[tuple[int, Mapping[str, int]]], now: float
) -> tuple[Span, ...]:
    """The last minutes, the oldest first; those in which nothing happened are among them.

    Args:
        workers: The minutes of each worker that tells of them.
        evidence: Begin and outcomes of minutes, as the evidence has them; taken where no worker tells.
        now: Seconds since 1970.
    """
    last = int(now // 60) * 60
    starts = [last - 60 * back for back in range(MINUTES - 1, -1, -1)]
    if not workers:
        found = dict(evidence)
        return tuple(Span(at, latency_of(added(())), _of_evidence(found.get(at, {})), "evidence") for at in starts)
    spans = []
    for at in starts:
        minutes = [each for worker in workers for each in worker if each.at == at]
        kinds: Counter[str] = Counter()
        for each in minutes:
            kinds.update(each.kinds)
        latency = latency_of(added(each.latency for each in minutes))
        spans.append(Span(at, latency, {kind: kinds[kind] for kind in KINDS}, "workers"))
    return tuple(spans)


def _of_evidence(outcomes: Mapping[str, int]) -> dict[str, int]:
    named = {"allowed": "allow", "denied": "deny", "rejected": "none"}
    return {kind: outcomes.get(named[kind], 0) if kind in named else 0 for kind in KINDS}


def _percentile(buckets: Sequence[int], part: float) -> float | None:
    total = sum(buckets)
    if not total:
        return None
    wanted, below = part * total, 0
    for place, count in enumerate(buckets):
        if count and below + count >= wanted:
            low = BOUNDS[place - 1] if place else 0.0
            # What took longer than the last bound is shown as that: nobody knows how much longer.
            high = BOUNDS[place] if place < len(BOUNDS) else low
            return round((low + (high - low) * (wanted - below) / count) * 1000, 3)
        below += count
    return None
