"""``make bench``: what the gate costs.

Three workers take turns against one server: an ungated one, one that does the gate's primitives and nothing else
(:mod:`benchmarks.primitives`), and a gated one. Each is a process of its own, so that its CPU time (all threads) is the
worker's alone. A fourth, gated worker is asked for the gate's latency, so that collecting it costs the others nothing.

What the primitives cost is measured both ways: in a loop, and in that worker. Between two tasks a worker's memory goes
cold, and there they cost several times as much.
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

from benchmarks.primitives import PRINCIPAL, REQUEST, Primitives
from benchmarks.workload import FanOut, Sequential, pay, payment
from exequatur import AuthorizationPlugin
from exequatur.policy.bundle import PolicyBundle

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
SIDES = ("ungated", "primitives", "gated")
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


def in_a_loop() -> dict[str, float]:
    """CPU microseconds of one signature, one verification and one Cedar decision with the benchmark's policies."""
    primitives = Primitives(PolicyBundle.from_parts(POLICIES))
    return {
        "sign": microseconds(lambda: primitives.sign(REQUEST)),
        "verify": microseconds(lambda: primitives.verify(REQUEST)),
        "Cedar": microseconds(lambda: primitives.cedar(pay, [payment(1)])),
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
    figures = {(kind, side): Figures() for kind in KINDS for side in SIDES}
    try:
        async with await WorkflowEnvironment.start_local(
            dev_server_existing_path=terminal, dev_server_log_level="error"
        ) as server:
            target = server.client.service_client.config.target_host
            plugin = AuthorizationPlugin.embedded(policies, state_dir=state, principal=PRINCIPAL)
            plain, client = await Client.connect(target), await Client.connect(target, plugins=[plugin])
            clients = {"ungated": plain, "primitives": plain, "gated": client}
            gate = ("--policies", str(policies))
            async with (
                worker(target, "ungated", state) as ungated,
                worker(target, "primitives", state, *gate, "--primitives") as primitives,
                worker(target, "gated", state, *gate) as gated,
                worker(target, "timed", state, *gate, "--latencies") as timed,
            ):
                processes = dict(zip(SIDES, (ungated, primitives, gated), strict=True))
                for number in range(rounds + 1):
                    for kind in KINDS:
                        for side, process in processes.items():
                            kept = figures[kind, side] if number else None  # the first round warms up
                            await run_once(clients[side], side, kind, process, kept)
                latencies = {}
                for kind in KINDS:
                    for _ in range(3):
                        await run_once(client, "timed", kind, timed, None)
                    latencies[kind] = json.loads(await timed.ask("latency"))
    finally:
        shutil.rmtree(folder)
    report(figures, latencies, in_a_loop(), rounds)


def report(
    figures: dict[tuple[str, str], Figures],
    latencies: dict[str, list[float]],
    raw: dict[str, float],
    rounds: int,
) -> None:
    print(
        f"\nMedians of {rounds} rounds; 100 activities a run; 50 policies. Worker CPU is all threads of its process;\n"
        "the ratio is the median of those of each round.\n"
    )
    print(f"{'':12} {'':10} {'CPU ms/act':>11} {'ratio':>6} {'act/s':>7} {'history B/act':>14}")
    for kind in KINDS:
        plain = figures[kind, "ungated"]
        for side in SIDES:
            each = figures[kind, side]
            cpu, wall = statistics.median(each.cpu), statistics.median(each.wall)
            ratio = statistics.median(after / before for before, after in zip(plain.cpu, each.cpu, strict=True))
            print(f"{kind:12} {side:10} {cpu:11.3f} {ratio:6.2f} {1 / wall:7.0f} {each.bytes:14.0f}")
        least, whole = (
            statistics.median(after - before for before, after in zip(plain.cpu, figures[kind, side].cpu, strict=True))
            for side in SIDES[1:]
        )
        print(
            f"{'':12} The gate adds {whole * 1000:.0f} µs of CPU an activity, {whole / least:.2f} times the "
            f"{least * 1000:.0f} of its primitives,\n"
            f"{'':12} and {figures[kind, 'gated'].bytes - plain.bytes:.0f} bytes of history."
        )
        gate = latencies[kind]
        print(
            f"{'':12} Gate latency with the journal's fsync: p50 {percentile(gate, 0.5):.1f} ms, "
            f"p99 {percentile(gate, 0.99):.1f} ms ({len(gate)} activities).\n"
        )
    floor = 2 * raw["sign"] + 2 * raw["verify"] + raw["Cedar"]
    print(
        f"In a loop, CPU µs: {', '.join(f'{name} {cost:.0f}' for name, cost in raw.items())}. An activity needs two\n"
        f"signatures, two verifications and one decision, {floor:.0f}, and a commit of the journal."
    )
    print("The gated worker serves both sides, and does not verify again what it signed itself.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    asyncio.run(bench(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
