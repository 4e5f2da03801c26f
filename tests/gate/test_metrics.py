"""The gate counts what it does through the SDK's own meter."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from temporalio import activity
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one

POLICIES = PERMIT_ALL + '@id("no") forbid(principal, action == Action::"forbidden", resource);'


@activity.defn
async def act() -> str:
    return "done"


@activity.defn
async def forbidden() -> None:
    happened("ran")


@activity.defn
async def sleeps() -> None:
    happened("began")
    await asyncio.sleep(60)


class Meter:
    """What was measured so far, by metric and attributes."""

    def __init__(self, buffer: MetricBuffer) -> None:
        self.buffer = buffer
        self.counts: dict[tuple[str, frozenset[tuple[str, Any]]], float] = {}

    def of(self, name: str, **attributes: Any) -> float:
        for update in self.buffer.retrieve_updates():
            if update.metric.name.startswith("exequatur"):
                ours = {key: update.attributes[key] for key in update.attributes if key in KEYS}
                place = update.metric.name, frozenset(ours.items())
                # A histogram is counted; its values are durations.
                amount = update.value if update.metric.kind == 0 else 1
                self.counts[place] = self.counts.get(place, 0) + amount
        wanted = set(attributes.items())
        return sum(count for (metric, has), count in self.counts.items() if metric == name and wanted <= has)


KEYS = ("outcome", "activity_type", "enforced")


@pytest.fixture
def meter() -> tuple[Meter, dict[str, Any]]:
    """A meter, and the client options that feed it."""
    buffer = MetricBuffer(10_000)
    return Meter(buffer), {"runtime": Runtime(telemetry=TelemetryConfig(metrics=buffer))}


async def test_decisions_are_counted_by_outcome_and_activity_type(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(POLICIES, client_options=options)
    async with s.worker([OneActivity], [act, forbidden]):
        for _ in range(3):
            await (await start_one(s, act)).result()
        await failure_of(await start_one(s, forbidden))
        await failure_of(await start_one(s, act, client=s.plain))
    assert measured.of("exequatur_decisions", outcome="allowed", activity_type="act") == 3
    assert measured.of("exequatur_decisions", outcome="AuthorizationDenied", activity_type="forbidden") == 1
    assert measured.of("exequatur_decisions", outcome="GrantRejected", activity_type="act") == 1
    assert measured.of("exequatur_decisions") == 5
    assert measured.of("exequatur_gate_latency", activity_type="act") == 4
    assert measured.of("exequatur_gate_latency", activity_type="forbidden") == 1


async def test_what_is_only_observed_is_counted_as_such(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(POLICIES, client_options=options, mode="observe")
    async with s.worker([OneActivity], [forbidden]):
        await (await start_one(s, forbidden)).result()
    assert measured.of("exequatur_decisions", outcome="observed", activity_type="forbidden", enforced=False) == 1


async def test_rechecks_and_revocations_are_counted(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(client_options=options)
    async with s.worker([OneActivity], [sleeps]):
        handle = await start_one(s, sleeps)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow="another", reason="stop")
        await eventually(lambda: measured.of("exequatur_rechecks", outcome="allow") == 1)
        s.plugin.revoke(workflow=handle.id, reason="stop")
        await failure_of(handle)
    assert measured.of("exequatur_rechecks", outcome="revoked") == 1
    assert measured.of("exequatur_revocations", activity_type="sleeps") == 1


async def test_what_a_worker_knows_of_the_revocation_feed_is_measured(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(client_options=options)
    async with s.worker([OneActivity], [act]):
        s.plugin.revoke(workflow="another", reason="stop")
        await eventually(lambda: measured.of("exequatur_revocation_feed_version") == 1)
        assert measured.of("exequatur_revocation_feed_age") >= 0


async def test_policy_reloads_are_counted_by_outcome(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(client_options=options)
    async with s.worker([OneActivity], [act]):
        await (await start_one(s, act)).result()
        s.write(POLICIES)
        await eventually(lambda: measured.of("exequatur_policy_reloads", outcome="in_force") == 1)
        s.write("permit(")
        await eventually(lambda: measured.of("exequatur_policy_reloads", outcome="refused") == 1)


async def test_results_without_a_receipt_are_counted(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(client_options=options)
    async with s.worker([OneActivity], (), no_remote_activities=True), s.worker((), [act], client=s.plain):
        failure = await failure_of(await start_one(s, act))
    assert failure.type == "ReceiptRejected"
    assert measured.of("exequatur_receipt_rejections", activity_type="act") == 1


async def test_what_could_not_be_decided_is_counted(stage: Callable[..., Any], meter: Any) -> None:
    measured, options = meter
    s = await stage(client_options=options, unavailable_wait="100ms", unavailable_retry_delay="100ms")
    async with s.worker([OneActivity], [act], max_concurrent_activities=1, max_concurrent_activity_task_polls=1):
        await (await start_one(s, act)).result()
        now = s.plugin.gate.clock
        handle = await start_one(s, act, attempts=0)
        s.plugin.gate.clock = lambda: 0.0
        try:
            await eventually(
                lambda: (
                    measured.of("exequatur_decisions", outcome="AuthorizationUnavailable")
                    or measured.of("exequatur_decisions", outcome="allowed") == 2
                )
            )
        finally:
            s.plugin.gate.clock = now
        await handle.result()
