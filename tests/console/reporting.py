"""Reports as workers write them, with whatever a scenario changes about them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from exequatur.release.report import HOST, InForceReport, Standing, write_report
from exequatur.release.traffic import BOUNDS, Minute, Traffic
from exequatur.statements.encoding import digest

ELSEWHERE = "elsewhere"
"""A host of which nobody here can tell whether a process runs."""


def traffic(at: float, *latencies: float, **kinds: int) -> Traffic:
    """What one minute's decisions look like.

    Args:
        at: Seconds since 1970.
        latencies: Seconds that each took.
        kinds: How often what happened.
    """
    buckets = [0] * (len(BOUNDS) + 1)
    for each in latencies:
        buckets[sum(each > bound for bound in BOUNDS)] += 1
    minute = Minute.model_validate({"at": int(at // 60) * 60, "latency": tuple(buckets), "kinds": kinds})
    return Traffic.model_validate(
        {
            "since": at,
            "seconds": sum(latencies),
            "latency": tuple(buckets),
            "kinds": kinds,
            "minutes": (minute,),
        }
    )


def report(pid: int = 1, *, host: str = ELSEWHERE, **said: Any) -> InForceReport:
    """A report of a worker that is well but for what is said."""
    now = time.time()
    top = {
        name: said.pop(name) for name in ("digest", "name", "version", "channel", "expires", "since") if name in said
    }
    standing = {
        "at": now,
        "worker": "spiffe://local/worker",
        "namespaces": ("default",),
        "task_queues": ("orders",),
        "credential_expires": now + 600,
        "state_since": now - 60,
        **said,
    }
    given = {"since": now - 100, "digest": digest("bundle"), **top}
    return InForceReport(host=host, pid=pid, standing=Standing.model_validate(standing), **given)


def reported(folder: Path, *reports: InForceReport) -> None:
    """Write reports into the state folder of a scenario."""
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    for each in reports:
        write_report(folder / "state", each)


__all__ = ["ELSEWHERE", "HOST", "report", "reported", "traffic"]
