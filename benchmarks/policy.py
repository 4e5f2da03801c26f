"""``make bench-policy``: what the engine adds to a bare Cedar decision, and what loading a bundle does to decisions.

The policies are those of the reference application, filled up with more of their kind: all for the activity that is
asked about (``one``), or spread over fifty activities (``spread``). Bare is ``cedarpy.is_authorized`` with the handles
of the bundle, which hold all policies, and the request that the gate would make of the same facts. Every side takes its
turn in every round; differences are taken within a round.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import cedarpy

from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import decide
from exequatur.policy.source import BundleSource, SourceFile, read_folder
from exequatur.policy.syntax import statements
from workflows.activities import Refund

SIZES = (10, 100, 1000)
ACTIVITIES = 50
PRINCIPAL: dict[str, Any] = {
    "uid": {"type": "Agent", "id": "ops-bot"},
    "attrs": {"region": "eu"},
    "parents": [{"type": "Role", "id": "operations"}],
}
ACTION = {"type": "Action", "id": "refund_order"}
RESOURCE = {"type": "Workflow", "id": "operations-1"}
FACTS: dict[str, Any] = {
    "activity": {"type": "refund_order", "id": "1", "attempt": 1, "task_queue": "operations", "local": False},
    "run": {
        "namespace": "default",
        "workflow_id": "operations-1",
        "workflow_type": "OperationsAgent",
        "run_id": "01981b3c-31c4-7c35-9c41-1f2c6ad2bd4f",
        "governed": True,
    },
    "worker": {"id": "spiffe://exequatur.dev/worker/operations"},
    "now": {"__extn": {"fn": "datetime", "arg": "2026-01-05T09:30:00.000Z"}},
}


def refund_order(refund: Refund) -> str:
    """The parameters of the reference application's activity."""
    return refund.order_id


ARGUMENTS = convert_arguments(
    ActivitySignature.of(refund_order), (Refund("order-17", Decimal("120.50"), "arrived late"),)
)
APPLIES_TO = "principal: Agent, resource: Workflow, context: { args: { refund: { order_id: String } } }"
CONTEXT = {**FACTS, "args": ARGUMENTS.value}


def source(size: int, *, spread: bool) -> BundleSource:
    """The reference application's bundle with so many policies."""
    given = read_folder(Path(__file__).parent.parent / "policies")
    # Those of refunds first, so that the smallest bundle has them.
    files = sorted(given.policies, key=lambda file: "refunds" not in file.name)
    policies = [statement.text for file in files for statement in statements(file.text)][:size]
    schema = given.schema.text if given.schema else ""
    actions = [f"other_{number}" for number in range(ACTIVITIES)] if spread else ["refund_order"]
    if spread:
        schema += f"\naction {', '.join(actions)} appliesTo {{ {APPLIES_TO} }};"
    for number in range(size - len(policies)):
        policies.append(
            f'@id("order-{number}-is-disputed") @reason("the order is disputed")\n'
            f'forbid (principal, action == Action::"{actions[number % len(actions)]}", resource)\n'
            f'when {{ context.args.refund.order_id == "disputed-{number}" }};'
        )
    return BundleSource((SourceFile("policies", "\n".join(policies)),), SourceFile("schema", schema), given.entities)


@dataclass
class Sides:
    """One bundle, and the ways to ask it."""

    bundle: PolicyBundle

    def __post_init__(self) -> None:
        self._policies = self.bundle._policy_set
        self._entities = self.bundle._entities.with_principal(PRINCIPAL)
        self.request = {"principal": PRINCIPAL["uid"], "action": ACTION, "resource": RESOURCE, "context": CONTEXT}

    def bare(self) -> bool:
        return cedarpy.is_authorized(self.request, self._policies, self._entities).allowed

    def batch(self, count: int) -> None:
        cedarpy.is_authorized_batch([self.request] * count, self._policies, self._entities)

    def evaluate(self) -> bool:
        return self.bundle.evaluate(PRINCIPAL["uid"], ACTION, RESOURCE, CONTEXT, principal_entity=PRINCIPAL).allowed

    def decide(self) -> bool:
        return decide(self.bundle, PRINCIPAL, ACTION, RESOURCE, ARGUMENTS, FACTS).allowed


def microseconds(action: Callable[[], object], times: int) -> float:
    """CPU time of one call of this thread."""
    began = time.thread_time()
    for _ in range(times):
        action()
    return (time.thread_time() - began) / times * 1e6


def decisions(size: int, *, spread: bool, rounds: int) -> str:
    """One line of the table: the sides, and what they add to the bare decision."""
    sides = Sides(PolicyBundle(source(size, spread=spread)))
    assert sides.bare() == sides.evaluate() == sides.decide()
    times = max(5, 2_000 // (size + 50))
    batch = 25
    figures: dict[str, list[float]] = {"bare": [], "evaluate": [], "decide": [], "batch": []}
    for _ in range(rounds):
        for name in ("bare", "evaluate", "decide"):
            figures[name].append(microseconds(getattr(sides, name), times))
        figures["batch"].append(microseconds(lambda: sides.batch(batch), max(1, times // batch)) / batch)
    median = {name: statistics.median(values) for name, values in figures.items()}
    added = {
        name: statistics.median(own - bare for own, bare in zip(figures[name], figures["bare"], strict=True))
        for name in ("evaluate", "decide")
    }
    columns = (
        f"{size:8} {'spread' if spread else 'one':7}",
        f"{median['bare']:8.0f}",
        *(f"{median[name]:9.0f} {added[name]:+6.0f}" for name in ("evaluate", "decide")),
        f"{median['batch']:11.0f} {1e6 / (2 * median['decide']):9.0f}",
    )
    return " ".join(columns)


@contextmanager
def beside(action: Callable[[], object] | None) -> Iterator[list[float]]:
    """Another thread that does nothing else; how long each time took, in seconds."""
    took: list[float] = []
    stopped = threading.Event()

    def work() -> None:
        while action is not None and not stopped.is_set():
            began = time.perf_counter()
            action()
            took.append(time.perf_counter() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stopped.set()
        thread.join()


def latencies(seconds: float, action: Callable[[], object] | None) -> tuple[list[float], list[float]]:
    """Milliseconds of each decision that was made beside another thread, and seconds of what that one did."""
    sides = Sides(PolicyBundle(source(100, spread=True)))
    found: list[float] = []
    with beside(action) as took:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            sides.decide()
            found.append((time.perf_counter() - began) * 1e3)
    return sorted(found), took


def reloads(seconds: float) -> None:
    large = source(1000, spread=True)
    others: dict[str, Callable[[], object] | None] = {
        "nothing": None,
        "a computation": lambda: sum(range(100_000)),
        "loading 1,000 policies": lambda: PolicyBundle(large),
    }
    print(f"\n{'beside':24} {'decisions/s':>12} {'p50 ms':>8} {'p99 ms':>8} {'worst ms':>9} {'each load s':>12}")
    for name, action in others.items():
        found, took = latencies(seconds, action)
        load = f"{statistics.median(took):12.2f}" if "loading" in name and took else ""
        print(
            f"{name:24} {len(found) / seconds:12.0f} {found[len(found) // 2]:8.3f} {found[int(len(found) * 0.99)]:8.3f}"
            f" {found[-1]:9.2f} {load}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    print(
        f"\nCPU µs of one decision, medians of {options.rounds} rounds; + is what is added to the bare one. Bare and\n"
        "batch are given the whole context. A pair is the decision of an old and of a new bundle, in one thread.\n"
    )
    heads = (
        "policies",
        "for    ",
        "    bare",
        " evaluate",
        "     +",
        "   decide",
        "     +",
        "      batch",
        "  pairs/s",
    )
    print(" ".join(heads))
    for spread in (False, True):
        for size in SIZES:
            print(decisions(size, spread=spread, rounds=options.rounds))
    reloads(options.seconds)


if __name__ == "__main__":
    main()
