"""What a worker decides with is what it was when it began; who exchanges it in memory is noticed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from temporalio import activity
from temporalio.common import RawValue, WorkerDeploymentVersion
from temporalio.worker import Interceptor, Worker, WorkerDeploymentConfig

from exequatur import Settings
from exequatur.gate.gate import InForce
from exequatur.gate.watched import WatchedWorker
from exequatur.integrity.guard import Guard
from exequatur.integrity.manifest import Manifest
from exequatur.policy.bundle import PolicyBundle
from tests.gate.conftest import PERMIT_ALL, Stage
from tests.gate.single import OneActivity
from tests.integrity.test_manifest import MEASURED


class Clerk:
    @activity.defn
    async def bound(self) -> None: ...


@activity.defn
async def act() -> None: ...


@activity.defn(dynamic=True)
async def anything(args: Sequence[RawValue]) -> None: ...


@pytest.fixture
async def watched(stage: Callable[..., Awaitable[Stage]]) -> tuple[Stage, Any, WatchedWorker]:
    here = await stage()
    worker = Worker(
        here.client, task_queue=here.queue, workflows=[OneActivity], activities=[act, Clerk().bound, anything]
    )
    found = WatchedWorker(worker, here.plugin.gate, here.plugin._interceptor)
    assert list(found.changes()) == []
    return here, worker, found


@pytest.mark.rule("K6")
async def test_an_interceptor_that_is_put_before_the_gate_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    _, worker, found = watched
    worker._activity_worker._interceptors = [Interceptor(), *worker._activity_worker._interceptors]
    assert list(found.changes()) == ["another interceptor was put before the gate's"]
    worker._activity_worker._interceptors = []
    assert list(found.changes()) == ["another interceptor was put before the gate's"]


@pytest.mark.rule("K6")
async def test_an_interceptor_of_workflows_that_is_taken_away_is_noticed(
    watched: tuple[Stage, Any, WatchedWorker],
) -> None:
    _, worker, found = watched
    worker._workflow_worker._interceptor_classes.clear()
    assert list(found.changes()) == ["the interceptors of workflows were replaced in memory"]


@pytest.mark.rule("K9")
async def test_an_interceptor_that_does_something_else_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    here, worker, found = watched
    here.plugin._interceptor.intercept_activity = lambda inner: inner
    worker._activity_worker._execute_activity = print
    assert list(found.changes()) == [
        "intercept_activity of the gate's interceptor was replaced in memory",
        "_execute_activity of the activity worker was replaced in memory",
    ]
    del here.plugin._interceptor.intercept_activity, worker._activity_worker._execute_activity
    here.plugin._interceptor.plugin = object()
    assert list(found.changes()) == ["plugin of the gate's interceptor was replaced in memory"]


@pytest.mark.rule("K7")
async def test_another_object_as_an_activity_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    _, worker, found = watched
    definition = worker._activity_worker._activities["bound"]
    object.__setattr__(definition, "fn", Clerk().bound)
    assert list(found.changes()) == ["activity bound was replaced in memory"]


@pytest.mark.rule("K7")
async def test_an_activity_that_is_exchanged_or_added_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    _, worker, found = watched
    activities = worker._activity_worker._activities
    activities["later"] = activities["act"]
    assert list(found.changes()) == ["activity later was replaced in memory"]
    del activities["later"]
    activities["act"] = activities["bound"]
    assert list(found.changes()) == ["activity act was replaced in memory"]
    del activities["act"]
    worker._activity_worker._dynamic_activity = None
    assert list(found.changes()) == [f"activity {name} was replaced in memory" for name in ("(dynamic)", "act")]


@pytest.mark.rule("K7")
@pytest.mark.parametrize("function", [act, Clerk.bound, anything])
async def test_other_code_in_an_activity_is_noticed(
    watched: tuple[Stage, Any, WatchedWorker], function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(*args: Any) -> None: ...

    monkeypatch.setattr(function, "__code__", other.__code__)
    assert len(list(watched[2].changes())) == 1


@pytest.mark.rule("K8")
async def test_policies_that_the_gate_did_not_put_in_force_are_noticed(
    watched: tuple[Stage, Any, WatchedWorker],
) -> None:
    here, _, found = watched
    gate, other = here.plugin.gate, PolicyBundle.from_parts(PERMIT_ALL, strict=True)
    gate.put_in_force(other)
    assert list(found.changes()) == []
    gate.policy = InForce(other, 9, 0.0)
    assert list(found.changes()) == ["the policies in force were replaced in memory"]


@pytest.mark.rule("K8")
async def test_what_is_exchanged_in_a_bundle_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    here, _, found = watched
    bundle: Any = here.plugin.gate.policy.bundle
    bundle._policy_set = PolicyBundle.from_parts(PERMIT_ALL)._policy_set
    assert list(found.changes()) == ["_policy_set of the policy bundle was replaced in memory"]


@pytest.mark.rule("K9")
async def test_a_method_of_the_gate_that_is_exchanged_is_noticed(watched: tuple[Stage, Any, WatchedWorker]) -> None:
    here, _, found = watched
    gate: Any = here.plugin.gate
    gate.unavailable = lambda: None
    gate.clock = lambda: 0.0
    assert list(found.changes()) == [
        "unavailable of the gate was replaced in memory",
        "clock of the gate was replaced in memory",
    ]


@pytest.mark.rule("K10")
@pytest.mark.parametrize(("build", "said"), [("b1", []), ("b2", ["the worker's build id is b2 instead of b1"])])
async def test_a_worker_of_another_build_is_noticed(
    stage: Callable[..., Awaitable[Stage]], build: str, said: list[str]
) -> None:
    here = await stage()
    gate = here.plugin.gate
    gate.guard = Guard(Manifest("", "worker", "", "", MEASURED), Settings(), lambda told: None)
    version = WorkerDeploymentVersion("shop", build)
    worker = Worker(
        here.client,
        task_queue=here.queue,
        activities=[act],
        deployment_config=WorkerDeploymentConfig(version=version, use_worker_versioning=False),
    )
    assert list(WatchedWorker(worker, gate, here.plugin._interceptor).changes()) == said
