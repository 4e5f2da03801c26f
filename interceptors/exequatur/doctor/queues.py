"""Who serves the task queues: workers with the plugin, or others beside them.

The server knows who polls a queue. That a poller has the plugin is known from its heartbeats to the server, which name
the plugins, and from the reports in the state folders that are looked at. The server remembers pollers for a while
after they have stopped; a heartbeat says that one is shutting down.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from exequatur.audit.wording import count
from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.release.report import InForceReport
from exequatur.settings import Settings

if TYPE_CHECKING:
    from temporalio.client import Client

PLUGIN = "exequatur.AuthorizationPlugin"
_PATIENCE = timedelta(seconds=5)
_GONE = 120.0
"""Seconds; a poll takes one minute at most, and the server remembers pollers for five."""
_ON_ITS_WAY = 10.0
"""Seconds after a worker says that it stops, in which a poll of before may reach the server."""
_MOST_QUEUES = 50
_MOST_WORKERS = 2_000
_KINDS = {1: "workflow", 2: "activity", 3: "Nexus"}


@dataclass
class _Told:
    """What the heartbeats of a queue's workers say.

    Args:
        plugged: By identity, whether all its running workers have the plugin.
        stopped: By identity, when one of its workers last said that it stops, in seconds since 1970.
    """

    plugged: dict[str, bool] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)

    def gone(self, identity: str, seen: float) -> bool:
        """Whether a poller has not polled since it said that it stops."""
        return identity not in self.plugged and seen <= self.stopped.get(identity, float("-inf")) + _ON_ITS_WAY


async def examine_queues(
    client: Client,
    namespace: str,
    queues: Sequence[str],
    reports: Sequence[InForceReport],
    settings: Settings,
    now: float,
) -> list[Finding]:
    """Look at the queues that are named, that workers report, and that workers with the plugin tell the server of."""
    from temporalio.service import RPCError

    heartbeats, told = await _heartbeats(client, namespace)
    reported: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        if report.standing is not None and namespace in report.standing.namespaces:
            for queue in report.standing.task_queues:
                reported[queue].add(f"{report.pid}@{report.host}")
    ours = {queue for queue, told_of in heartbeats.items() if any(told_of.plugged.values())}
    names = sorted({*queues, *reported, *ours})
    findings = [] if told is None else [told]
    if not names:
        findings.append(
            warning("queues", "no task queue is known", "Name them with --task-queue, or start the workers.")
        )
    for name in names[:_MOST_QUEUES]:
        try:
            pollers = await _pollers(client, namespace, name, heartbeats[name], now)
        except RPCError as error:
            step = "Give credentials that may describe task queues."
            findings.append(warning("queues", f"{name} could not be described: {error.message}", step))
            break
        findings += _judged(name, pollers, heartbeats[name].plugged, reported[name], settings)
    if len(names) > _MOST_QUEUES:
        text = f"{len(names) - _MOST_QUEUES} more task queues were not looked at"
        findings.append(warning("queues", text, "Name them with --task-queue, in several runs."))
    return findings


async def _heartbeats(client: Client, namespace: str) -> tuple[dict[str, _Told], Finding | None]:
    """What the workers of each queue tell the server."""
    from temporalio.api.enums.v1 import WorkerStatus
    from temporalio.api.workflowservice.v1 import ListWorkersRequest
    from temporalio.service import RPCError

    found: dict[str, _Told] = defaultdict(_Told)
    token, seen = b"", 0
    try:
        while seen < _MOST_WORKERS:
            asked = ListWorkersRequest(namespace=namespace, page_size=500, next_page_token=token)
            answer = await client.workflow_service.list_workers(asked, timeout=_PATIENCE)
            for info in answer.workers_info:
                seen += 1
                beat = info.worker_heartbeat
                queue, identity = found[beat.task_queue], beat.worker_identity
                if beat.status == WorkerStatus.WORKER_STATUS_RUNNING:
                    plugged = PLUGIN in {plugin.name for plugin in beat.plugins}
                    queue.plugged[identity] = queue.plugged.get(identity, True) and plugged
                else:
                    at = beat.heartbeat_time.ToDatetime(UTC).timestamp()
                    queue.stopped[identity] = max(at, queue.stopped.get(identity, at))
            token = answer.next_page_token
            if not token:
                break
    except RPCError as error:
        text = f"the server does not tell which plugins its workers have: {error.message}"
        return found, warning("queues", text, "What follows is known from the state folders only.")
    return found, None


async def _pollers(client: Client, namespace: str, queue: str, told: _Told, now: float) -> dict[str, set[int]]:
    """Kinds of tasks by the identity of who polls for them."""
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

    found: dict[str, set[int]] = defaultdict(set)
    for kind in _KINDS:
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=kind,  # type: ignore[arg-type]
            ),
            timeout=_PATIENCE,
        )
        for poller in answer.pollers:
            seen = poller.last_access_time.ToDatetime(UTC).timestamp()
            if now - seen < _GONE and not told.gone(poller.identity, seen):
                found[poller.identity].add(kind)
    return found


def _judged(
    queue: str,
    pollers: dict[str, set[int]],
    heartbeats: dict[str, bool],
    reported: set[str],
    settings: Settings,
) -> Iterator[Finding]:
    if not pollers:
        yield warning("queues", f"{queue}: nobody polls it", "Start its workers, or leave it out.")
        return
    without, unknown = [], []
    for identity, kinds in sorted(pollers.items()):
        name = f"{identity} ({', '.join(_KINDS[kind] for kind in sorted(kinds))} tasks)"
        if heartbeats.get(identity) is False:
            without.append(name)
        elif identity not in heartbeats and _as_reported(identity) not in reported:
            unknown.append(name)
    if without:
        text = f"{queue}: served without the plugin by {', '.join(without[:5])}"
        if settings.recorded(queue):
            yield warning("queues", text, "recorded_queues allows it: results from it are unproven.")
        else:
            step = "Give its client plugins=[AuthorizationPlugin...]; until then what it does is refused or unproven."
            yield problem("queues", text, step)
    if unknown:
        text = f"{queue}: it is not known whether {', '.join(unknown[:5])} has the plugin"
        step = "Look again in a minute, when it has told the server or is forgotten; or name its folder with --state."
        yield warning("queues", text, step)
    if not without and not unknown:
        yield fine("queues", f"{queue}: {count(len(pollers), 'poller')}, all with the plugin")


def _as_reported(identity: str) -> str:
    """The SDK's default identity, ``PID@HOST``, with the host as reports write it."""
    process, separator, host = identity.partition("@")
    return f"{process}{separator}{re.sub('[^A-Za-z0-9._-]', '-', host)[:64]}"
