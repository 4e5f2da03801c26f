"""Tells the codec for whom a call's headers are.

The SDK encodes the headers of a call without a serialization context, and the worker decodes them with one. A codec
that has a key for each workflow could not read ours.
"""

from __future__ import annotations

from typing import Any

from temporalio.client import (
    ActivityHandle,
    Client,
    OutboundInterceptor,
    QueryWorkflowInput,
    SignalWorkflowInput,
    StartActivityInput,
    StartWorkflowInput,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.converter import ActivitySerializationContext, WorkflowSerializationContext

from exequatur.gate.codec import addressed


class Addressing(OutboundInterceptor):
    """Stands right before the SDK's own interceptor."""

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        with addressed(self._workflow(input.id)):
            return await super().start_workflow(input)

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        with addressed(self._workflow(input.start_workflow_input.id)):
            return await super().start_update_with_start_workflow(input)

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        with addressed(self._workflow(input.id)):
            await super().signal_workflow(input)

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        with addressed(self._workflow(input.id)):
            return await super().query_workflow(input)

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:
        with addressed(self._workflow(input.id)):
            return await super().start_workflow_update(input)

    async def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
        with addressed(self._activity(input)):
            return await super().start_activity(input)

    def _workflow(self, workflow_id: str) -> WorkflowSerializationContext:
        return WorkflowSerializationContext(namespace=self._client().namespace, workflow_id=workflow_id)

    def _activity(self, input: StartActivityInput) -> ActivitySerializationContext:
        """As the SDK describes an activity that no workflow starts."""
        return ActivitySerializationContext(
            namespace=self._client().namespace,
            activity_id=input.id,
            activity_type=input.activity_type,
            activity_task_queue=input.task_queue,
            is_local=False,
            workflow_id=None,
            workflow_type=None,
        )

    def _client(self) -> Client:
        """The client whose calls this interceptor sees; the SDK's own interceptor, which comes next, knows it."""
        sdk: Any = self.next
        client: Client = sdk._client
        return client
