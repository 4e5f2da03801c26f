"""The workflows: an agent that chooses its next activity itself, and a long migration."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from workflows.activities import Migration, Operations


@dataclass(frozen=True)
class Step:
    """One thing that the agent decides to do."""

    activity: str
    argument: Any


@dataclass(frozen=True)
class Plan:
    """What the agent will decide, one step after the other."""

    steps: list[Step]


@workflow.defn
class OperationsAgent:
    """Does whatever it decides to do. A model would choose here; the plan stands for it, good advice or bad."""

    @workflow.run
    async def run(self, plan: Plan) -> list[Any]:
        return [
            await workflow.execute_activity(
                step.activity,
                step.argument,
                start_to_close_timeout=timedelta(seconds=30),
                retry_policy=RetryPolicy(maximum_attempts=3),
            )
            for step in plan.steps
        ]


@workflow.defn
class LedgerMigration:
    """Migrates the ledger's entries."""

    @workflow.run
    async def run(self, migration: Migration) -> int:
        return await workflow.execute_activity_method(
            Operations.migrate_ledger,
            migration,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
