"""``make bench-audit``: how fast a history is audited, with recomputation of every decision, on one core.

Long runs are made (:mod:`benchmarks.long_history`) and each is audited in a process of its own, so that nothing is
remembered from making it. The floor is what its signatures and Cedar decisions cost in a loop in that same process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from temporalio.api.history.v1 import History

from benchmarks.gate import POLICIES, microseconds
from benchmarks.long_history import write
from benchmarks.primitives import REQUEST, Primitives
from benchmarks.workload import pay, payment
from exequatur.audit.evidence import journals_in
from exequatur.audit.history import of_events
from exequatur.audit.report import Verdict
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.policy.bundle import PolicyBundle

SIZES = (5_000, 10_000, 20_000, 50_000)
"""Events; Temporal ends a history at 51,200."""
MANY = 40
"""Audits of one history in a row, to see whether memory grows."""


def measure(folder: Path, *, many: bool) -> dict[str, float]:
    """Audit a run in this process."""
    trust = read_trust(folder / "trust.jwks")
    began = time.process_time()
    history = of_events(History.FromString((folder / "history.bin").read_bytes()).events)
    evidence = journals_in(folder / "journal")
    report = audit_run(history, evidence, trust)
    took = time.process_time() - began
    if report.verdict is not Verdict.VERIFIED:
        raise SystemExit(f"The audit found {report.findings[:5]}")
    activities = len(report.activities)
    primitives = Primitives(PolicyBundle.from_parts(POLICIES))
    verify = microseconds(lambda: primitives.verify(REQUEST))
    cedar = microseconds(lambda: primitives.cedar(pay, [payment(1)]))
    figures = {
        "events": len(history.events),
        "seconds": took,
        "floor": activities * (2 * verify + cedar) / 1e6,
        "memory": _memory(),
    }
    if many:
        for _ in range(MANY):
            audit_run(history, evidence, trust)
        figures["memory after"] = _memory()
    return figures


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--many", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, many=given.many)))
        return
    print(f"{'events':>8} {'seconds':>8} {'events/s':>9} {'floor':>6} {'MiB':>6}")
    flat = ""
    with tempfile.TemporaryDirectory(prefix="exequatur-bench-") as scratch:
        for size in given.sizes:
            folder = Path(scratch) / str(size)
            write(folder, (size - 5) // 6)
            options = ["--many"] if size == min(given.sizes) else []
            found = _measured(folder, options)
            events, took = found["events"], found["seconds"]
            share = found["floor"] / took
            print(f"{events:8.0f} {took:8.2f} {events / took:9.0f} {share:6.0%} {found['memory']:6.0f}")
            if options:
                flat = f"{MANY} more audits in that process: {found['memory after']:.0f} MiB"
    print(f"CPU of one process. The floor is the share of two signatures and one Cedar decision an activity.\n{flat}.")


def _measured(folder: Path, options: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.audit", "--measure", str(folder), *options]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


if __name__ == "__main__":
    main()
