"""A workflow and its activities. They tell what they did in a file, because another process looks at it."""

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow


def tell(place: str, what: str) -> None:
    with Path(place).open("a") as file:
        file.write(f"{what}\n")


@activity.defn
async def wait_long(place: str) -> None:
    tell(place, "began")
    await asyncio.Event().wait()


@activity.defn
async def act(place: str) -> str:
    tell(place, "acted")
    return "done"


@workflow.defn
class Errand:
    @workflow.run
    async def run(self, name: str, place: str) -> str:
        result: str = await workflow.execute_activity(
            name, place, start_to_close_timeout=timedelta(seconds=60), result_type=str
        )
        return result
