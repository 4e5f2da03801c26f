"""The same as the page about health, as Prometheus metrics.

Labels are bounded: kinds, severities, states and services are words of this code, and workers are as many, and their
names as long, as the page has them (W2 of :mod:`exequatur.console.workers`). Rules, numbered as the code marks them:

M1  Where names are hidden there are no metrics of single workers.
M2  No series comes twice: one that does would spoil the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from exequatur.audit.wording import shown
from exequatur.console.workers import WORKER_STATES

STATES = ("ok", "idle", "warning", "failing")
_INFO = ("identity", "digest", "name", "version", "channel", "integrity")


def exposed(plain: Mapping[str, Any], accept: str, *, workers: bool) -> tuple[bytes, str]:
    """The metrics of a moment.

    Args:
        plain: Of :meth:`exequatur.console.condition.Health.plain`.
        accept: The ``Accept`` header of whoever asks.
        workers: Whether single workers may be named.

    Returns:
        The text, and its media type.
    """
    registry = CollectorRegistry()
    registry.register(_Moment(plain, workers=workers))
    try:
        encode, media_type = choose_encoder(accept)
    except (ValueError, TypeError):  # a version that is none
        encode, media_type = choose_encoder("")
    return encode(registry), media_type


class _Moment(Collector):
    def __init__(self, plain: Mapping[str, Any], *, workers: bool) -> None:
        self._plain = plain
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        plain = self._plain
        yield _gauge("health", "1 for the state of everything", ["state"], {(s,): s == plain["state"] for s in STATES})
        problems = Counter((each["kind"], each["severity"]) for each in plain["problems"])
        yield _gauge("problems", "What is wrong now", ["kind", "severity"], problems)
        states = {(state,): plain["states"][state] for state in WORKER_STATES}
        yield _gauge("workers", "Workers in each state", ["state"], states)
        known = [each for each in plain["services"] if each["state"] != "unknown"]
        up = {(each["service"],): each["state"] != "down" for each in known}
        yield _gauge("service_up", "1 while it answers as it should", ["service"], up)
        yield _gauge("feed_version", "Version of the authority's revocation feed", [], {(): plain["revocations"]})
        yield _gauge("evidence_sources", "Journals and stores that are followed", [], {(): plain["sources"]})
        rows = CounterMetricFamily("exequatur_console_evidence_rows", "Rows of evidence that were read")
        rows.add_metric([], plain["decisions"])
        yield rows
        if self._workers:  # M1
            yield from self._each()

    def _each(self) -> Iterator[Metric]:
        # Where two have one label, it is the graver.
        workers = list({_label(each["worker"]): each for each in reversed(self._plain["workers"])}.items())  # M2
        ready = {(name,): each["state"] == "ready" for name, each in workers}
        yield _gauge("worker_ready", "1 while it can authorize", ["worker"], ready)
        info = {(name, *(_label(each[key] or "") for key in _INFO)): 1 for name, each in workers}
        yield _gauge("worker_info", "What a worker is and has in force", ["worker", *_INFO], info)
        for metric, help_text, key in (
            ("worker_report_timestamp_seconds", "When it reported last", "at"),
            ("worker_credential_expires_timestamp_seconds", "When its credential ends", "credential_expires"),
            ("worker_release_expires_timestamp_seconds", "When the release in force ends", "expires"),
            ("worker_feed_version", "Version of the revocation feed that it knows", "revocations"),
            ("worker_feed_age_seconds", "Since it knew that nothing was missing there", "revocations_age"),
        ):
            said = {(name,): each[key] for name, each in workers if each[key] is not None}
            yield _gauge(metric, help_text, ["worker"], said)
        outcomes = CounterMetricFamily(
            "exequatur_worker_outcomes", "What its gate did since it began to count", labels=["worker", "kind"]
        )
        latency = HistogramMetricFamily(
            "exequatur_worker_gate_latency_seconds", "That its gate took", labels=["worker"]
        )
        bounds = [*(f"{each:g}" for each in self._plain["bounds"]), "+Inf"]
        for name, each in workers:
            for kind, number in each["kinds"].items():
                outcomes.add_metric([name, kind], number)
            total, buckets = 0, []
            for bound, number in zip(bounds, each["buckets"], strict=True):
                total += number
                buckets.append((bound, total))
            latency.add_metric([name], buckets, each["seconds"])
        yield outcomes
        yield latency


def _gauge(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    prefix = "exequatur_" if name.startswith("worker_") else "exequatur_console_"
    family = GaugeMetricFamily(f"{prefix}{name}", text, labels=labels)
    for label, value in values.items():
        family.add_metric(list(label), float(value))
    return family


def _label(text: str) -> str:
    """A label's value: one line of text that every encoder takes."""
    return shown(str(text).encode("utf-8", "replace").decode())
