"""Workflow code that was changed after its runs: it asks for another activity first."""

from datetime import timedelta

from temporalio import workflow


@workflow.defn
class Sequential:
    @workflow.run
    async def run(self, number: int) -> int:
        await workflow.sleep(timedelta(seconds=1))
        return number
