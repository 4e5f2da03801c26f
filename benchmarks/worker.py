"""A worker process of the benchmark: serves one task queue and answers questions on standard input.

``cpu`` prints the CPU seconds of this process so far, all threads; ``latency`` prints the gate latencies in ms that
were recorded since it was last asked, as a JSON list; the end of input stops the worker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from temporalio.client import Client
from temporalio.runtime import MetricBuffer, MetricBufferDurationFormat, Runtime, TelemetryConfig
from temporalio.worker import Interceptor, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from benchmarks.primitives import RUNNER, Primitives, PrimitivesInterceptor
from benchmarks.workload import FanOut, Sequential, pay
from exequatur import AuthorizationPlugin
from exequatur.policy.bundle import PolicyBundle


async def serve(
    target: str, queue: str, policies: Path | None, state: Path, *, primitives: bool, latencies: bool
) -> None:
    buffer = MetricBuffer(100_000, MetricBufferDurationFormat.MILLISECONDS) if latencies else None
    runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer)) if buffer else None
    plugins = [AuthorizationPlugin.embedded(policies, state_dir=state)] if policies and not primitives else []
    interceptors: list[Interceptor] = []
    if policies and primitives:
        interceptors.append(PrimitivesInterceptor(Primitives(PolicyBundle.from_folder(policies)), state / "primitives"))
    client = await Client.connect(target, plugins=plugins, runtime=runtime)
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Sequential, FanOut],
        activities=[pay],
        interceptors=interceptors,
        workflow_runner=RUNNER if primitives else SandboxedWorkflowRunner(),
    ):
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "latency" and buffer:
                updates = [u for u in buffer.retrieve_updates() if u.metric.name == "exequatur_gate_latency"]
                print(json.dumps([u.value for u in updates]), flush=True)
            else:
                print(time.process_time(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("queue")
    parser.add_argument("state", type=Path)
    parser.add_argument("--policies", type=Path)
    parser.add_argument("--primitives", action="store_true")
    parser.add_argument("--latencies", action="store_true")
    given = parser.parse_args()
    asyncio.run(
        serve(
            given.target,
            given.queue,
            given.policies,
            given.state,
            primitives=given.primitives,
            latencies=given.latencies,
        )
    )


if __name__ == "__main__":
    main()
