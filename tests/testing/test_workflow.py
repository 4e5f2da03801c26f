"""Workflows behind the gate on a server of their own, on one that is there, and where time is skipped."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, ConfigurationError
from exequatur.testing import (
    GatedEnvironment,
    PolicyFiles,
    assert_allowed,
    assert_denied,
    assert_rejected,
    assert_revoked,
    gated_environment,
    make_plugin,
)
from tests.gate.conftest import sandbox, unique
from tests.gate.single import eventually
from tests.testing.scenes import Delegates, Refunds, RefundsLocally, Waits, beats, ran, refund

TWO_DAYS = 48.0


@asynccontextmanager
async def working(gated: GatedEnvironment) -> AsyncIterator[Any]:
    """Serve the scenes; gives what starts one and awaits its result."""
    queue = unique("queue")

    async def execute(workflow: Any, *args: Any) -> Any:
        return await asyncio.wait_for(
            gated.client.execute_workflow(workflow, args=args, id=unique(), task_queue=queue), 30
        )

    workflows = [Refunds, RefundsLocally, Delegates, Waits]
    async with Worker(
        gated.client,
        task_queue=queue,
        workflows=workflows,
        activities=[refund, beats],
        workflow_runner=sandbox(),
    ):
        yield execute


async def test_workflows_run_behind_the_gate_on_a_server_of_the_test(exequatur_policies: Path) -> None:
    ran.clear()
    async with (
        gated_environment(policies=exequatur_policies, principal='Agent::"ops-bot"') as gated,
        working(gated) as execute,
    ):
        with assert_allowed():
            assert await execute(Refunds.run, 200, 0.0) == "refunded 200"
        with assert_denied(by="refunds-limit", activity="refund"):
            await execute(Refunds.run, 501, 0.0)
        with pytest.raises(AssertionError) as failed, assert_denied(by="refunds-limit"):
            await execute(Refunds.run, 2, 0.0)
    assert 'refund for Agent::"ops-bot" was allowed by refunds-by-operations' in str(failed.value)
    assert ran == [200, 2]


async def test_an_environment_that_is_there_gets_the_gate_and_stays(
    server: WorkflowEnvironment, exequatur_plugin: AuthorizationPlugin
) -> None:
    clock = exequatur_plugin.gate.clock
    async with gated_environment(exequatur_plugin, environment=server) as gated:
        assert exequatur_plugin.gate.clock is clock
        async with working(gated) as execute:
            assert await execute(Refunds.run, 200, 0.0) == "refunded 200"
    assert await server.client.service_client.check_health()


async def test_a_start_that_is_denied_reads_like_any_denial(
    server: WorkflowEnvironment, policy_files: PolicyFiles
) -> None:
    policy_files.write('@id("closed") forbid (principal, action == Action::"workflow.start", resource);')
    async with gated_environment(policies=policy_files, principal='User::"a"', environment=server) as gated:
        with assert_denied(by="closed"):
            await gated.client.start_workflow(Refunds.run, args=[1, 0.0], id=unique(), task_queue="none")


async def test_a_client_without_the_plugin_is_rejected(
    server: WorkflowEnvironment, exequatur_plugin: AuthorizationPlugin
) -> None:
    async with (
        gated_environment(exequatur_plugin, environment=server) as gated,
        Worker(gated.client, task_queue="bare", workflows=[Refunds], activities=[refund], workflow_runner=sandbox()),
    ):
        with assert_rejected(reason="carries no grant"):
            await server.client.execute_workflow(Refunds.run, args=[1, 0.0], id=unique(), task_queue="bare")


# Where time is skipped: Temporal's own server, which gives each workflow a time of its own.


@pytest.fixture
def dated(policy_files: PolicyFiles) -> PolicyFiles:
    """Policies that go by the time: refunds only from tomorrow on."""
    tomorrow = (datetime.now(UTC) + timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
    policy_files.write('@id("all") permit (principal, action, resource);')
    policy_files.write(
        '@id("not-yet") forbid (principal, action in [Action::"refund"], resource) '
        f'when {{ context.now < datetime("{tomorrow}") }};',
        "dated.cedar",
    )
    return policy_files


async def test_policies_and_grants_go_by_the_time_that_was_skipped(dated: PolicyFiles) -> None:
    began = time.time()
    async with (
        gated_environment(
            policies=dated,
            principal='Agent::"ops-bot"',
            settings={"grant_ttl": "7d", "max_lifetime": "7d"},
            time_skipping=True,
        ) as gated,
        working(gated) as execute,
    ):
        for workflow in (Refunds.run, RefundsLocally.run, Delegates.run):
            assert await execute(workflow, 200, TWO_DAYS) == "refunded 200", workflow
        with assert_denied(by="not-yet"):
            await execute(Refunds.run, 200, 1.0)
        # Each has its own time, also when they run at once.
        outcomes = await asyncio.gather(
            *(execute(Refunds.run, 1, hours) for hours in (1.0, TWO_DAYS, 2.0, 100.0)), return_exceptions=True
        )
        assert [isinstance(each, str) for each in outcomes] == [False, True, False, True]
        with assert_rejected(reason="[G4]"):
            await execute(Refunds.run, 200, 8 * 24.0)
    assert time.time() - began < 24 * 3600


async def test_a_recheck_goes_by_the_time_of_the_activity_that_runs(dated: PolicyFiles) -> None:
    # With every epoch a running activity is judged again, from a thread that knows nothing of its time.
    dated.write((dated.path / "dated.cedar").read_text().replace('Action::"refund"', 'Action::"beats"'), "dated.cedar")
    async with (
        gated_environment(
            policies=dated, principal='Agent::"ops-bot"', settings={"grant_ttl": "7d"}, time_skipping=True
        ) as gated,
        working(gated) as execute,
    ):
        running = asyncio.ensure_future(execute(Waits.run, TWO_DAYS))
        await eventually(lambda: gated.plugin.gate.running)
        [attempt] = gated.plugin.gate.running
        gated.plugin.revoke(principal='User::"somebody-else"', reason="another epoch")
        await eventually(lambda: attempt.rechecks)
        assert attempt.revoked is None
        gated.plugin.revoke(principal='Agent::"ops-bot"', reason="enough")
        with assert_revoked(reason="enough"):
            await running


async def test_credentials_that_would_end_while_time_is_skipped_are_refused(
    exequatur_plugin: AuthorizationPlugin,
) -> None:
    with pytest.raises(ConfigurationError, match="credential_ttl"):
        async with gated_environment(exequatur_plugin, time_skipping=True):
            pass


# A stand-in for a server whose one clock is ahead: the machine's is set back instead.


async def test_the_gate_goes_by_a_server_whose_clock_is_ahead_of_the_machines(
    server: WorkflowEnvironment, exequatur_policies: Path
) -> None:
    plugin = make_plugin(exequatur_policies, principal='Agent::"ops-bot"')
    # As far as keys of this machine are trusted before they were made.
    plugin.gate.clock = behind = lambda: time.time() - 1800
    async with gated_environment(plugin, environment=server) as gated, working(gated) as execute:
        for workflow in (Refunds.run, RefundsLocally.run, Delegates.run):
            assert await execute(workflow, 200, 0.0) == "refunded 200", workflow
    assert plugin.gate.clock is behind
    # Without the environment the same start is refused: it happens half an hour after the grant may be used.
    client = await Client.connect(server.client.service_client.config.target_host, plugins=[plugin])
    async with working(GatedEnvironment(client, plugin, server)) as execute:
        with assert_rejected(reason="[R14]"):
            await execute(Refunds.run, 200, 0.0)


# What cannot work is said before anything is started.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either a plugin, or policies"),
        ({"policies": "x", "environment": "an environment", "time_skipping": True}, "either an environment, or how"),
        ({"policies": "x", "environment": "an environment", "port": 7233}, "either an environment, or how"),
    ],
)
async def test_arguments_that_contradict_each_other_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        async with gated_environment(**given):
            pass


async def test_a_machine_without_temporal_is_told_how_to_get_it(
    exequatur_policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=r"exequatur\[testing\]"):
        async with gated_environment(policies=exequatur_policies):
            pass
