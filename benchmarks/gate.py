"""``make bench``: what the gate costs.

Ungated and gated workers take turns against one server. Each is a process of its own, so that its CPU time (all
threads) is the worker's alone. A third, gated worker is asked for the gate's latency, so that collecting it costs the
others nothing. The raw cost of the primitives is measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from benchmarks.workload import FanOut, Sequential, pay, payment
from exequatur import AuthorizationPlugin, Principal
from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.statements.keys import SigningKey, verify_signature

POLICIES = "\n".join(
    [
        '@id("agents-may-pay") permit(principal is Agent, action == Action::"pay", resource);',
        '@id("agents-may-start") permit(principal is Agent, action == Action::"workflow.start", resource);',
        '@id("limit") @reason("No payment above 10,000") forbid(principal, action == Action::"pay", resource)'
        " when { context.args.order.amount > 10000 };",
        *(
            f'@id("account-{number}-closed") forbid(principal, action == Action::"pay", resource)'
            f' when {{ context.args.order.account == "account-{number}" }};'
            for number in range(47)
        ),
    ]
)
PRINCIPAL = Principal("Agent", "payer")
KINDS: dict[str, tuple[Any, int]] = {"sequential": (Sequential.run, 100), "fan-out": (FanOut.run, 100)}


class WorkerProcess:
    """A worker that answers questions."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, question: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{question}\n".encode())
        return (await self._process.stdout.readline()).decode()

    async def cpu(self) -> float:
        return float(await self.ask("cpu"))


@asynccontextmanager
async def worker(target: str, queue: str, state: Path, *options: str) -> AsyncIterator[WorkerProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.worker", target, queue, str(state), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        assert process.stdout
        assert process.stdin
        if (await process.stdout.readline()).strip() != b"ready":
            raise SystemExit("The worker did not start")
        yield WorkerProcess(process)
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Figures:
    """CPU milliseconds and wall seconds per activity, and history bytes per activity, of one kind of worker."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.bytes = 0.0


async def run_once(client: Client, queue: str, kind: str, process: WorkerProcess, figures: Figures | None) -> None:
    run, count = KINDS[kind]
    before, began = await process.cpu(), time.perf_counter()
    handle = await client.start_workflow(run, count, id=f"bench-{uuid.uuid4()}", task_queue=queue)
    await handle.result()
    took, used = time.perf_counter() - began, await process.cpu() - before
    if figures is not None:
        figures.cpu.append(used / count * 1000)
        figures.wall.append(took / count)
        figures.bytes = sum(event.ByteSize() for event in (await handle.fetch_history()).events) / count


def microseconds(action: Callable[[], object], times: int = 2000) -> float:
    """Median CPU time of one call over ten batches."""
    batches = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(times // 10):
            action()
        batches.append((time.process_time() - began) / (times // 10) * 1e6)
    return statistics.median(batches)


def primitives() -> dict[str, float]:
    """CPU microseconds of one signature, one verification and one Cedar decision with the benchmark's policies."""
    key, data = SigningKey.generate(), b"x" * 900
    signature = key.sign(data)
    bundle = PolicyBundle.from_parts(POLICIES)
    context = {"args": convert_arguments(ActivitySignature.of(pay), [payment(1)]).value}

    def cedar() -> object:
        return bundle.evaluate(PRINCIPAL.uid, 'Action::"pay"', 'Workflow::"w"', context)

    return {
        "sign": microseconds(lambda: key.sign(data)),
        "verify": microseconds(lambda: verify_signature(key.x, signature, data)),
        "Cedar": microseconds(cedar),
    }


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def bench(rounds: int) -> None:
    terminal = shutil.which("temporal")
    if terminal is None:
        raise SystemExit("There is no `temporal` on the PATH; run this with `make bench`")
    folder = Path(tempfile.mkdtemp(prefix="exequatur-bench-"))
    policies = folder / "policies"
    policies.mkdir()
    (policies / "bench.cedar").write_text(POLICIES)
    state = folder / "state"
    figures = {(kind, gated): Figures() for kind in KINDS for gated in (False, True)}
    try:
        async with await WorkflowEnvironment.start_local(
            dev_server_existing_path=terminal, dev_server_log_level="error"
        ) as server:
            target = server.client.service_client.config.target_host
            plugin = AuthorizationPlugin.embedded(policies, state_dir=state, principal=PRINCIPAL)
            clients = {False: await Client.connect(target), True: await Client.connect(target, plugins=[plugin])}
            gate = ("--policies", str(policies))
            async with (
                worker(target, "plain", state) as plain,
                worker(target, "gated", state, *gate) as gated,
                worker(target, "timed", state, *gate, "--latencies") as timed,
            ):
                sides = {False: ("plain", plain), True: ("gated", gated)}
                for number in range(rounds + 1):
                    for kind in KINDS:
                        for side, (queue, process) in sides.items():
                            kept = figures[kind, side] if number else None  # the first round warms up
                            await run_once(clients[side], queue, kind, process, kept)
                latencies = {}
                for kind in KINDS:
                    for _ in range(3):
                        await run_once(clients[True], "timed", kind, timed, None)
                    latencies[kind] = json.loads(await timed.ask("latency"))
    finally:
        shutil.rmtree(folder)
    report(figures, latencies, primitives(), rounds)


def report(
    figures: dict[tuple[str, bool], Figures],
    latencies: dict[str, list[float]],
    raw: dict[str, float],
    rounds: int,
) -> None:
    print(
        f"\nMedians of {rounds} rounds; 100 activities a run; 50 policies. Worker CPU is all threads of its process.\n"
    )
    print(f"{'':12} {'':9} {'CPU ms/act':>11} {'act/s':>8} {'history B/act':>14}")
    floor = 2 * raw["sign"] + 2 * raw["verify"] + raw["Cedar"]
    for kind in KINDS:
        plain, gated = figures[kind, False], figures[kind, True]
        for name, each in (("ungated", plain), ("gated", gated)):
            cpu, wall = statistics.median(each.cpu), statistics.median(each.wall)
            print(f"{kind:12} {name:9} {cpu:11.3f} {1 / wall:8.0f} {each.bytes:14.0f}")
        pairs = [after / before for before, after in zip(plain.cpu, gated.cpu, strict=True)]
        more = (statistics.median(gated.cpu) - statistics.median(plain.cpu)) * 1000
        print(
            f"{kind:12} {'ratio':9} {statistics.median(pairs):11.2f} "
            f"{statistics.median(plain.wall) / statistics.median(gated.wall):8.2f} "
            f"{gated.bytes - plain.bytes:+14.0f}"
        )
        print(f"{'':12} the gate costs {more:.0f} µs of CPU an activity, {more / floor:.2f} times its primitives")
        gate = latencies[kind]
        print(
            f"{'':12} gate latency with the journal's fsync: p50 {percentile(gate, 0.5):.1f} ms, "
            f"p99 {percentile(gate, 0.99):.1f} ms ({len(gate)} activities)\n"
        )
    print("Primitives, CPU µs: " + ", ".join(f"{name} {cost:.0f}" for name, cost in raw.items()))
    print(
        f"An activity needs two signatures, two verifications and one decision: {floor:.0f} µs. In this benchmark one"
    )
    print("process serves both sides, and a signature that a process made or verified is not verified again.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asyncio.run(bench(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
