"""The client starts a workflow: it gets a grant, after Cedar allowed the start.

A signal or update that goes with the start gets a permit, too: each is asked for by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from temporalio.client import (
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    UpdateWithStartStartWorkflowInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.converter import WorkflowSerializationContext

from exequatur.gate.client.asking import raw
from exequatur.gate.client.messages import Messages
from exequatur.gate.issuing import GrantOrder
from exequatur.gate.wire import START_HEADER, payloads_digest, start_header
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.models import Reuse

Start = TypeVar("Start", StartWorkflowInput, UpdateWithStartStartWorkflowInput)


class Starts(Messages):
    """Puts a grant into the header of each start."""

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        granted = await self._granted(input)
        if granted.start_signal is not None and granted.start_signal != APPROVAL_SIGNAL:
            args, headers = await self._permitted(
                "signal",
                input.id,
                granted.start_signal,
                granted.start_signal_args,
                granted.headers,
                delay=input.start_delay,
            )
            granted = replace(granted, start_signal_args=args, headers=headers)
        return await super().start_workflow(granted)

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        update = input.update_workflow_input
        try:
            start = await self._granted(input.start_workflow_input)
            args, headers = await self._permitted(
                "update", start.id, update.update, update.args, update.headers, delay=start.start_delay
            )
        except BaseException as err:
            # Else whoever waits for the handle of the start would wait for ever.
            input._on_start_error(err)
            raise
        update = replace(update, args=args, headers=headers)
        return await super().start_update_with_start_workflow(
            replace(input, start_workflow_input=start, update_workflow_input=update)
        )

    async def _granted(self, input: Start) -> Start:
        """A copy of the input with a grant; the caller's own stays as it was."""
        if START_HEADER in input.headers:
            return input
        who = await self._acting(f"{input.workflow} starts")
        namespace = self._client().namespace
        payloads = self._payloads(input.args, WorkflowSerializationContext(namespace=namespace, workflow_id=input.id))
        reuse: Reuse = "cron" if input.cron_schedule else "retry" if input.retry_policy else "once"
        grant = await self._authority.issue_grant(
            GrantOrder(
                principal=who.principal,
                namespace=namespace,
                workflow_type=input.workflow,
                workflow_id=input.id,
                task_queue=input.task_queue,
                input=payloads_digest(payloads),
                reuse=reuse,
                start_delay=input.start_delay.total_seconds() if input.start_delay else 0.0,
                acting=who.acting,
                credential=who.credential,
            )
        )
        return replace(input, args=raw(payloads), headers={**input.headers, START_HEADER: start_header([grant])})
