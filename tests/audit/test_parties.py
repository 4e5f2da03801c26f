"""Audits of runs in which somebody did not play along, or was not asked to: rogue workers, observe, recorded, cron."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowContinuedAsNewError, WorkflowFailureError
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError

from exequatur.audit.evidence import RecordedEvidence, journals_in
from exequatur.audit.history import of_events
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from exequatur.gate.wire import RECEIPT, payloads_digest, read_activity_header
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt, Request, Seal
from exequatur.statements.packing import pack
from exequatur.statements.requests import core_of
from tests.gate.conftest import PERMIT_ALL, events

T = timedelta(seconds=60)
NO_STEP = PERMIT_ALL + '@id("no") forbid(principal, action == Action::"step", resource);'


@activity.defn
async def step(number: int) -> int:
    return number


@workflow.defn
class One:
    """One activity on the queue that is named; what it fails with is not passed on."""

    @workflow.run
    async def run(self, queue: str) -> int | None:
        with suppress(ActivityError):
            once = RetryPolicy(maximum_attempts=1)
            return await workflow.execute_activity(
                step, 7, task_queue=queue or None, start_to_close_timeout=T, retry_policy=once
            )
        return None


def codes(report: RunReport, *severities: Severity) -> set[str]:
    return {each.code for each in report.findings if not severities or each.severity in severities}


async def audit_of(stage: Any, handle: Any, *, exempt: tuple[str, ...] = ()) -> RunReport:
    trust = read_trust(stage.state / "trust.jwks")
    history = of_events(await events(handle), workflow_id=handle.id)
    return audit_run(history, journals_in(stage.state / "journal"), AuditTrust(trust.anchors, ungoverned=exempt))


async def test_a_worker_without_the_plugin_that_completed_an_activity_is_shown(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([One], []), s.worker([], [step], client=s.plain, queue=f"{s.queue}-rogue"):
        handle = await s.start(One.run, f"{s.queue}-rogue")
        assert await handle.result() is None  # the workflow refused it, too
    report = await audit_of(s, handle)
    assert codes(report, Severity.VIOLATION) == {"receipt-missing"}


async def test_a_rogue_worker_s_forged_receipt_is_shown(stage: Callable[..., Any]) -> None:
    """A worker of another authority signs a receipt that is right in every word."""
    s, other = await stage(), await stage()
    async with s.worker([One], []), other.worker([], [step], queue=f"{s.queue}-elsewhere"):
        handle = await s.start(One.run, f"{s.queue}-rogue")

        @activity.defn(name="step")
        async def forged(number: int) -> RawValue:
            [payload] = activity.payload_converter().to_payloads([number])
            receipt = await _receipt(other, handle, payloads_digest([payload]))
            payload.metadata[RECEIPT] = pack([receipt.text], [other.plugin.gate.workload.credential.text])
            return RawValue(payload)

        async with s.worker([], [forged], client=s.plain, queue=f"{s.queue}-rogue"):
            for _ in range(2000):
                if any(each.HasField("activity_task_completed_event_attributes") for each in await events(handle)):
                    break
                await asyncio.sleep(0.05)
        await handle.terminate("seen")
    report = await audit_of(s, handle)
    assert report.verdict is not Verdict.VERIFIED
    # An authority that the trust file does not know may be one that is missing there: it is no verdict.
    assert "key-unknown" in codes(report)


async def _receipt(other: Any, handle: Any, result: str) -> Any:
    [scheduled] = [
        each.activity_task_scheduled_event_attributes
        for each in await events(handle)
        if each.HasField("activity_task_scheduled_event_attributes")
    ]
    tokens = read_activity_header(scheduled.header.fields) or []
    request = parse(tokens[-1], Request)
    assert core_of(request.claims).hash() == request.claims.jti
    workload = other.plugin.gate.workload
    return workload.sign(
        Receipt(
            iss=workload.id,
            iat=request.claims.iat + 1,
            request=request.claims.jti,
            request_digest=request.digest,
            activity_id=scheduled.activity_id,
            activity_type="step",
            run_id=request.claims.run_id,
            attempt=1,
            decision="allow",
            enforced=True,
            outcome="completed",
            result=result,
        )
    )


async def test_a_queue_that_may_leave_receipts_out_is_unproven(stage: Callable[..., Any]) -> None:
    s = await stage(recorded_queues=["*-old"])
    async with s.worker([One], []), s.worker([], [step], client=s.plain, queue=f"{s.queue}-old"):
        handle = await s.start(One.run, f"{s.queue}-old")
        assert await handle.result() == 7
    report = await audit_of(s, handle)
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert "result-recorded" in codes(report, Severity.UNPROVEN)
    assert report.activities[0].proof == "none"


async def test_what_was_only_observed_is_said_to_be(stage: Callable[..., Any]) -> None:
    s = await stage(NO_STEP, mode="observe")
    async with s.worker([One], [step]):
        handle = await s.start(One.run, "")
        assert await handle.result() == 7
    report = await audit_of(s, handle)
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert {"run-observed", "not-enforced"} <= codes(report, Severity.NOTICE)
    [decided] = report.activities[0].decisions
    assert (decided.decision, decided.enforced, decided.recomputed) == ("deny", False, True)


async def test_an_ungoverned_run_on_gated_workers_is_judged_by_the_trust_file(stage: Callable[..., Any]) -> None:
    s = await stage(allow_ungoverned=["One"])
    async with s.worker([One], [step]):
        handle = await s.start(One.run, "", client=s.plain)
        assert await handle.result() == 7
    assert "run-ungoverned" in codes(await audit_of(s, handle), Severity.VIOLATION)
    report = await audit_of(s, handle, exempt=("One",))
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert "run-exempt" in codes(report, Severity.UNPROVEN)
    [decided] = report.activities[0].decisions
    assert decided.recomputed


@pytest.mark.parametrize(
    "changes", [{"head": digest("another")}, {"seq": 2}, {"outcome": "failed"}, {"grant": digest("")}]
)
async def test_a_seal_of_another_end_is_a_violation(stage: Callable[..., Any], changes: dict[str, Any]) -> None:
    """The workflow worker itself signs it, so that only what it says is wrong."""
    s = await stage()
    async with s.worker([One], [step]):
        handle = await s.start(One.run, "")
        await handle.result()
    [sealed] = s.records("seal")
    token, _, credential = sealed.body.decode().partition("~")
    other = s.plugin.gate.workload.sign(parse(token, Seal).claims.model_copy(update=changes))
    body = "~".join(filter(None, (other.text, credential))).encode()
    evidence = RecordedEvidence(
        (replace(each, body=body) if each.kind == "seal" else each, True) for each in s.records()
    )
    trust = read_trust(s.state / "trust.jwks")
    history = of_events(await events(handle))
    assert audit_run(history, journals_in(s.state / "journal"), trust).verdict is Verdict.VERIFIED
    assert codes(audit_run(history, evidence, trust), Severity.VIOLATION) == {"seal-invalid"}


async def test_the_runs_of_a_cron_workflow_are_verified(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([One], [step]):
        handle = await s.start(One.run, "", cron_schedule="@every 1s")
        runs = [handle.result_run_id]
        for _ in range(2):
            following = s.plain.get_workflow_handle(handle.id, run_id=runs[-1])
            with suppress(WorkflowFailureError, WorkflowContinuedAsNewError):
                await following.result(follow_runs=False)
            latest = (await s.plain.get_workflow_handle(handle.id).describe()).run_id
            runs.append(latest)
        await s.plain.get_workflow_handle(handle.id).terminate()
    for run in runs[:2]:
        report = await audit_of(s, s.plain.get_workflow_handle(handle.id, run_id=run))
        assert report.verdict is Verdict.VERIFIED, report.findings
        assert report.outcome == "completed"
