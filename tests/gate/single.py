"""The workflow of scenarios that need one activity, and patience."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.common import RetryPolicy

from exequatur.gate.wire import START_HEADER
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant


@workflow.defn
class OneActivity:
    """Executes the activity that it is told to, and gives its result."""

    @workflow.run
    async def run(self, name: str, args: list[Any], attempts: int, heartbeat: float, seconds: float) -> Any:
        return await workflow.execute_activity(
            name,
            args=args,
            start_to_close_timeout=timedelta(seconds=seconds),
            heartbeat_timeout=timedelta(seconds=heartbeat) if heartbeat else None,
            retry_policy=RetryPolicy(maximum_attempts=attempts, initial_interval=timedelta(milliseconds=50)),
        )


async def start_one(
    stage: Any,
    activity: Callable[..., Any] | str,
    *args: Any,
    attempts: int = 1,
    heartbeat: float = 0,
    seconds: float = 60,
    **options: Any,
) -> WorkflowHandle[Any, Any]:
    """Start a workflow of one activity, which is tried ``attempts`` times (0: without end), ``seconds`` long."""
    name = activity if isinstance(activity, str) else activity.__name__
    handle: WorkflowHandle[Any, Any] = await stage.start(
        OneActivity.run, name, list(args), attempts, heartbeat, seconds, **options
    )
    return handle


async def eventually(condition: Callable[[], Any], within: float = 60) -> None:
    """Wait until a condition holds."""
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        await asyncio.sleep(0.02)


async def grant_of(handle: WorkflowHandle[Any, Any]) -> Grant:
    """The grant that a run was started with."""
    history = await handle.fetch_history()
    fields = history.events[0].workflow_execution_started_event_attributes.header.fields
    return parse(json.loads(fields[START_HEADER].data).split("~")[0], Grant).claims
