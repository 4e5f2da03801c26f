"""The workflows: an agent that chooses its next activity itself, one that hands a case on, and a long migration."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from exequatur.workflow import restricted
    from workflows.activities import Migration, Operations

SMALL_REFUNDS = """
@id("case-limit")
@reason("whoever takes a case over refunds 50.00 at most")
forbid(principal, action == Action::"refund_order", resource)
when { context.args.refund.amount.greaterThan(decimal("50.00")) };
"""


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
        return [await _do(step) for step in plan.steps]


@workflow.defn
class RefundDesk:
    """Hands its plan to a child that may do nothing but refund, and not much."""

    @workflow.run
    async def run(self, plan: Plan) -> list[Any]:
        with restricted(activities=["refund_order"], forbid=SMALL_REFUNDS):
            return await workflow.execute_child_workflow(RefundCase.run, plan, id=f"{workflow.info().workflow_id}-case")


@workflow.defn
class RefundCase:
    """A case: does what it decides to do, like the agent, with what it was handed."""

    @workflow.run
    async def run(self, plan: Plan) -> list[Any]:
        return [await _do(step) for step in plan.steps]


async def _do(step: Step) -> Any:
    return await workflow.execute_activity(
        step.activity,
        step.argument,
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(maximum_attempts=3),
    )


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
