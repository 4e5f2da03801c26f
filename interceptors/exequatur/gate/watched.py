"""What a running worker decides with, in memory: is it what it was when the worker began?

Rules, numbered as the code marks them:

K6  Our interceptor is the first around every activity, and those around workflows are what they were.
K7  The registered activities are the functions that they were.
K8  The policies in force are those that the gate has put in force, and nothing in their bundle was exchanged.
K9  The objects that decide have their own methods and parts (K4 and K5 of :mod:`exequatur.integrity.objects`).
K10  The worker has the build id that the manifest names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from temporalio.worker import Interceptor, Worker

from exequatur.gate.gate import Gate
from exequatur.integrity.objects import Kept, functions_in, print_of

_BUNDLE = ("_source", "_digest", "_policy_set", "_schema", "_entities", "_index", "_located", "_policies")
_GATE = ("settings", "trust", "workload", "revocations", "authority", "clock", "guard")


class WatchedWorker:
    """One worker, as it is when this is made.

    Args:
        worker: The worker, before it polls.
        gate: The gate of its plugin.
        interceptor: The plugin's.
    """

    def __init__(self, worker: Worker, gate: Gate, interceptor: Interceptor) -> None:
        self._gate = gate
        self._interceptor = interceptor
        self._activity_worker: Any = worker._activity_worker
        self._workflow_worker: Any = worker._workflow_worker
        self._around_workflows = self._workflow_interceptors()
        self._definitions: Mapping[str, Any] = self._registered()
        self._functions = {name: (each.fn, _prints(each.fn)) for name, each in self._definitions.items()}
        self._kept = [
            Kept("the gate's interceptor", interceptor, ("plugin",)),
            Kept("the activity worker", self._activity_worker),
            Kept("the workflow worker", self._workflow_worker),
            Kept("the guard", gate.guard),
            Kept("the gate", gate, _GATE),
            Kept("the trust store", gate.trust),
            Kept("the revocation feed", gate.revocations),
            Kept("this worker's identity", gate.workload, ("_key", "_issuer")),
            Kept("the authority", gate.authority),
        ]
        self._bundle = Kept("the policy bundle", gate.policy.bundle, _BUNDLE)
        self._bundle_of = gate.policy.bundle
        self._build = _build_of(worker)

    def changes(self) -> Iterator[str]:
        """What has been exchanged since, a sentence each."""
        wanted = None if self._gate.guard is None else self._gate.guard.manifest.measurement.build
        if wanted is not None and self._build is not None and wanted != self._build:  # [K10]
            yield f"the worker's build id is {self._build} instead of {wanted}"
        around = () if self._activity_worker is None else (*self._activity_worker._interceptors, None)
        if around and around[0] is not self._interceptor:  # [K6]
            yield "another interceptor was put before the gate's"
        if self._workflow_interceptors() != self._around_workflows:  # [K6]
            yield "the interceptors of workflows were replaced in memory"
        now = self._registered()
        for name in sorted({*now, *self._definitions}):
            was = self._definitions.get(name)
            if was is None or now.get(name) is not was or self._replaced(name, was):  # [K7]
                yield f"activity {name} was replaced in memory"
        if not self._gate.policy_is_placed():  # [K8]
            yield "the policies in force were replaced in memory"
        bundle = self._gate.policy.bundle
        if bundle is not self._bundle_of:
            self._bundle_of, self._bundle = bundle, Kept("the policy bundle", bundle, _BUNDLE)
        yield from self._bundle.changes()  # [K8]
        for each in self._kept:
            yield from each.changes()  # [K9]

    def _registered(self) -> Mapping[str, Any]:
        if self._activity_worker is None:
            return {}
        dynamic = self._activity_worker._dynamic_activity
        return {**self._activity_worker._activities, **({"(dynamic)": dynamic} if dynamic else {})}

    def _workflow_interceptors(self) -> list[type]:
        return [] if self._workflow_worker is None else list(self._workflow_worker._interceptor_classes)

    def _replaced(self, name: str, definition: Any) -> bool:
        fn, prints = self._functions[name]
        return definition.fn is not fn or _prints(fn) != prints


def _prints(fn: object) -> list[object]:
    return [print_of(each) for each in functions_in(_called(fn))]


def _called(fn: Any) -> Any:
    """What runs when an activity is called; an object may be one, too."""
    return fn if any(True for _ in functions_in(fn)) else getattr(type(fn), "__call__", fn)  # noqa: B004


def _build_of(worker: Worker) -> str | None:
    """The build id that a worker was given; without one the SDK makes one up."""
    config = worker.config()
    deployment = config.get("deployment_config")
    return deployment.version.build_id if deployment else config.get("build_id")
