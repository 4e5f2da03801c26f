"""The gate's metrics, through the SDK's own meter."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from temporalio.common import MetricCounter, MetricGauge, MetricHistogramTimedelta, MetricMeter

from exequatur.gate.tally import Tally
from exequatur.policy.offer import Provenance


class Metrics:
    """Counters and the latency of the gate.

    ===================================== ===========================================
    exequatur_decisions                   by outcome, activity_type and enforced
    exequatur_gate_latency                from the task's arrival to the body's start
    exequatur_rechecks                    re-checks that judged again, by outcome
    exequatur_revocations                 attempts ended while running
    exequatur_revocation_feed_version     how many entries of the revocation feed this worker knows
    exequatur_revocation_feed_age         seconds since it was last certain that none is missing; -1 while that is never
    exequatur_policy_reloads              by outcome: in_force or refused
    exequatur_policy_in_force             1 by digest, name, version, channel and sequence; 0 once it no longer is
    exequatur_shadow_decisions            of candidate policies, by activity_type and outcome: same, would_allow,
                                          would_deny, uncounted or dropped
    exequatur_receipt_rejections          by activity_type and enforced; not on replay
    exequatur_message_refusals            by kind, workflow_type, rule and enforced; not on replay
    ===================================== ===========================================
    """

    def __init__(self, meter: MetricMeter | None = None, tally: Tally | None = None) -> None:
        meter = meter or MetricMeter.noop
        self.tally = tally or Tally()
        """What this process reports of the same, whoever reads the meter."""
        decisions = meter.create_counter("exequatur_decisions", "Decisions of the gate")
        rechecks = meter.create_counter("exequatur_rechecks", "Re-checks of running activities")
        reloads = meter.create_counter("exequatur_policy_reloads", "Policy bundles loaded or refused")
        self._in_force = meter.create_gauge("exequatur_policy_in_force", "Policy bundle in force")
        self._last_in_force: MetricGauge | None = None
        self._latency = meter.create_histogram_timedelta("exequatur_gate_latency", "Time that the gate took")
        self._shadows = meter.create_counter("exequatur_shadow_decisions", "Decisions of candidate policies")
        self._rejections = meter.create_counter("exequatur_receipt_rejections", "Results without a valid receipt")
        self._refusals = meter.create_counter("exequatur_message_refusals", "Messages that were refused or dropped")
        self._revocations = meter.create_counter("exequatur_revocations", "Attempts ended while running")
        self._feed_version = meter.create_gauge("exequatur_revocation_feed_version", "Entries of the revocation feed")
        self._feed_age = meter.create_gauge_float("exequatur_revocation_feed_age", "Age of the revocation feed", "s")

        @lru_cache(maxsize=1024)
        def decision_counter(outcome: str, activity_type: str, enforced: bool) -> MetricCounter:
            return decisions.with_additional_attributes(
                {"outcome": outcome, "activity_type": activity_type, "enforced": enforced}
            )

        @lru_cache(maxsize=256)
        def latency_of(activity_type: str) -> MetricHistogramTimedelta:
            return self._latency.with_additional_attributes({"activity_type": activity_type})

        self._decision_counter = decision_counter
        self._latency_of = latency_of
        self._rechecks = {
            outcome: rechecks.with_additional_attributes({"outcome": outcome}) for outcome in ("allow", "revoked")
        }
        self._reloads = {
            outcome: reloads.with_additional_attributes({"outcome": outcome}) for outcome in ("in_force", "refused")
        }

    def decided(self, outcome: str, activity_type: str, *, enforced: bool, seconds: float) -> None:
        self._decision_counter(outcome, activity_type, enforced).add(1)
        self._latency_of(activity_type).record(timedelta(seconds=seconds))
        self.tally.decided(outcome, seconds)

    def rechecked(self, *, allowed: bool) -> None:
        self._rechecks["allow" if allowed else "revoked"].add(1)

    def revoked(self, activity_type: str) -> None:
        self._revocations.add(1, {"activity_type": activity_type})
        self.tally.happened("revoked")

    def feed_known(self, version: int, age: float) -> None:
        self._feed_version.set(version)
        self._feed_age.set(age if age < float("inf") else -1.0)

    def shadowed(self, outcome: str, activity_type: str) -> None:
        self._shadows.add(1, {"outcome": outcome, "activity_type": activity_type})

    def receipt_rejected(self, activity_type: str, *, enforced: bool) -> None:
        self._rejections.add(1, {"activity_type": activity_type, "enforced": enforced})
        self.tally.happened("receipt")

    def message_refused(self, kind: str, workflow_type: str, rule: str, *, enforced: bool) -> None:
        self._refusals.add(1, {"kind": kind, "workflow_type": workflow_type, "rule": rule, "enforced": enforced})
        self.tally.happened("message")

    def policy_reloaded(self, *, refused: bool) -> None:
        self._reloads["refused" if refused else "in_force"].add(1)

    def policy_in_force(self, digest: str, provenance: Provenance | None) -> None:
        if self._last_in_force is not None:
            self._last_in_force.set(0)
        attributes: dict[str, str | int] = {"digest": digest}
        if provenance is not None:
            attributes |= {"name": provenance.name, "version": provenance.version, "channel": provenance.channel}
            attributes["sequence"] = provenance.sequence or 0
        self._last_in_force = self._in_force.with_additional_attributes(attributes)
        self._last_in_force.set(1)
