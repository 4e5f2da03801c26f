"""The Temporal server: whether it is there, has the namespace, and tells the same time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.settings import Settings, duration_text

if TYPE_CHECKING:
    from temporalio.client import Client

_PATIENCE = timedelta(seconds=5)
_BLOB = 256 * 1024
"""Bytes of a payload that the gate's statements must fit beside; Temporal's default is eight times that."""
_SHORT_RETENTION = timedelta(days=1)


async def examine_server(
    client: Client, namespace: str, settings: Settings, clock: Callable[[], float]
) -> list[Finding]:
    """Look at a server that answers."""
    from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
    from temporalio.service import RPCError

    findings = []
    try:
        about = await client.workflow_service.get_system_info(GetSystemInfoRequest(), timeout=_PATIENCE)
        findings.append(fine("server", f"version {about.server_version or 'unknown'}"))
    except RPCError as error:
        findings.append(
            warning("server", f"it does not tell its version: {error.message}", "Check its rights for you.")
        )
    known = await examine_namespace(client, namespace)
    findings += known
    if all(each.level != "problem" for each in known):
        findings.append(await _clock(client, namespace, settings, clock))
    return findings


async def examine_namespace(client: Client, namespace: str) -> list[Finding]:
    """Look at a namespace: whether it is there, what it limits, and how long it keeps histories."""
    from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
    from temporalio.service import RPCError, RPCStatusCode

    try:
        answer = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=namespace), timeout=_PATIENCE
        )
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            step = "Give --namespace as the workers have it, or make it: temporal operator namespace create."
            return [problem("namespace", f"the server has no namespace {namespace}", step)]
        step = "Give credentials that may describe the namespace."
        return [warning("namespace", f"{namespace} could not be described: {error.message}", step)]
    findings = [fine("namespace", f"{namespace} is there")]
    blob = answer.namespace_info.limits.blob_size_limit_error
    if 0 < blob < _BLOB:
        step = "Raise limit.blobSize.error; grants and receipts need room beside the payloads."
        findings.append(warning("limits", f"a payload may have {blob:,} bytes only", step))
    else:
        findings.append(fine("limits", f"a payload may have {blob:,} bytes" if blob else "the server tells no limits"))
    kept = answer.config.workflow_execution_retention_ttl.ToTimedelta()
    if timedelta() < kept < _SHORT_RETENTION:
        text = f"histories are kept for {duration_text(kept)}, and what is gone cannot be audited"
        findings.append(warning("retention", text, "Keep them longer, or export and audit them sooner."))
    elif kept:
        findings.append(
            fine("retention", f"histories are kept for {duration_text(kept)}; audit or export them by then")
        )
    return findings


async def _clock(client: Client, namespace: str, settings: Settings, clock: Callable[[], float]) -> Finding:
    """Compare the clocks: the server notes when it was last polled, so a queue that nobody uses is polled once."""
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, PollActivityTaskQueueRequest
    from temporalio.service import RPCError

    service = client.workflow_service
    queue = TaskQueue(name=f"exequatur-doctor-{secrets.token_hex(8)}")
    poll = PollActivityTaskQueueRequest(namespace=namespace, task_queue=queue, identity=queue.name)
    asked = DescribeTaskQueueRequest(namespace=namespace, task_queue=queue, task_queue_type=2)  # type: ignore[arg-type]
    before = clock()
    polling = asyncio.ensure_future(service.poll_activity_task_queue(poll, timeout=_PATIENCE))
    try:
        while not polling.done():
            await asyncio.sleep(0.05)
            answer = await service.describe_task_queue(asked, timeout=_PATIENCE)
            if answer.pollers:
                there = answer.pollers[0].last_access_time.ToDatetime(UTC).timestamp()
                return clock_finding("the server", before, there, clock(), settings)
    except RPCError as error:
        return warning("clock", f"the server's clock cannot be read: {error.message}", "Compare the clocks by hand.")
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    return warning("clock", "the server's clock cannot be read", "Compare the clocks by hand.")


def clock_finding(whose: str, before: float, there: float, after: float, settings: Settings) -> Finding:
    """Compare another clock with this one.

    Args:
        whose: Clock it is.
        before: This clock, before the other was read; in seconds since 1970 like the others.
        there: The other clock.
        after: This clock, when the other had been read.
        settings: How far they may be apart.
    """
    apart = there - after if there > after else min(0.0, there - before)
    leeway = settings.clock_leeway.total_seconds()
    text = f"{whose} is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this clock"
    allowed = f"clock_leeway is {duration_text(settings.clock_leeway)}"
    if abs(apart) > leeway:
        return problem("clock", f"{text}, and {allowed}", "Synchronize the clocks (NTP): statements are refused.")
    if abs(apart) > max(1.0, leeway / 2):
        return warning("clock", f"{text}, and {allowed}", "Synchronize the clocks (NTP).")
    return fine("clock", f"{whose} and this machine tell the same time, within {max(abs(apart), after - before):.1f} s")
