"""The client's service, which asks before a call leaves that no worker could stop.

Every call of a client passes here: those of its own methods, and those that user code makes through
``client.workflow_service``. The service that the user gave stays as it is, for clients without the plugin. Rules L are
those of :mod:`exequatur.gate.client.operations`; besides:

L6  What was asked is what is sent: the call is copied before.
L7  A call is asked once.
L8  A call that ends a Nexus operation is asked for it, with the service and operation that the server says it is of.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from google.protobuf.message import Message
from temporalio.api.nexus.v1 import NexusOperationExecutionInfo
from temporalio.api.schedule.v1 import Schedule
from temporalio.api.workflowservice.v1 import (
    DescribeNexusOperationExecutionRequest,
    DescribeScheduleRequest,
    ListActivityExecutionsRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

from exequatur.gate.client.nexus import ENDINGS, of_operation
from exequatur.gate.client.operations import QUESTIONS, Batch, Question, of_schedule, patched, updated
from exequatur.policy.told import SCHEDULE_CREATE_ACTION, SCHEDULE_DELETE_ACTION, SCHEDULE_UPDATE_ACTION

Ask = Callable[[Question], Awaitable[None]]

_PAGE = 1000
"""How many executions of a batch are looked up at a time."""

asked: ContextVar[str] = ContextVar("exequatur_asked", default="")
"""The name of the call that the interceptor in this context has asked for (L7)."""


class AskingService(ServiceClient):
    """Asks, then lets the service do it.

    Args:
        inner: The service that the user gave.
        ask: Raises unless it is allowed.
    """

    def __init__(self, inner: ServiceClient, ask: Ask) -> None:
        super().__init__(inner.config)
        self.inner = inner
        self._ask = ask

    @classmethod
    def around(cls, inner: ServiceClient, ask: Ask) -> AskingService:
        """The service to give a client; one that asks the same already is not asked twice (L7)."""
        return inner if isinstance(inner, cls) and inner._ask == ask else cls(inner, ask)

    @property
    def worker_service_client(self) -> Any:
        """What workers poll with."""
        return self.inner.worker_service_client

    def update_rpc_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self.inner.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        self.inner.update_api_key(api_key)

    async def _rpc_call(self, rpc: str, req: Message, resp_type: type[Any], *, service: str, **call: Any) -> Any:
        if service == "workflow" and asked.get() != rpc and (rpc in QUESTIONS or rpc in _LOOKED_UP):  # L7
            copied = type(req)()
            copied.CopyFrom(req)
            req = copied  # [L6]
            options = {"metadata": call["metadata"], "timeout": call["timeout"]}
            async for question in self._questions(rpc, req, options):
                await self._ask(question)
        return await self.inner._rpc_call(rpc, req, resp_type, service=service, **call)

    async def _questions(self, rpc: str, req: Any, options: Mapping[str, Any]) -> AsyncIterator[Question]:
        if rpc in QUESTIONS:
            for question in QUESTIONS[rpc](req):
                yield question
        elif rpc in ENDINGS:
            yield await self._operation(req, options)
        elif rpc == "start_batch_operation":
            async for question in self._batch(Batch(req), options):
                yield question
        else:
            for question in await self._schedule(rpc, req, options):
                yield question

    async def _schedule(self, rpc: str, req: Any, options: Mapping[str, Any]) -> list[Question]:
        """L3."""
        namespace, schedule_id = req.namespace, req.schedule_id
        if rpc == "create_schedule":
            created = of_schedule(SCHEDULE_CREATE_ACTION, namespace, schedule_id, req.schedule)
            return [created, *patched(namespace, schedule_id, req.schedule, req.initial_patch)]
        there = await self._described(namespace, schedule_id, options)
        if rpc == "patch_schedule":
            return patched(namespace, schedule_id, there, req.patch)
        if rpc == "delete_schedule":
            return [of_schedule(SCHEDULE_DELETE_ACTION, namespace, schedule_id, there)]
        return updated(there, req.schedule, SCHEDULE_UPDATE_ACTION, namespace, schedule_id)

    async def _operation(self, req: Any, options: Mapping[str, Any]) -> Question:
        """L8."""
        described = DescribeNexusOperationExecutionRequest(
            namespace=req.namespace, operation_id=req.operation_id, run_id=req.run_id
        )
        service = self.inner.workflow_service
        try:
            found = (await service.describe_nexus_operation_execution(described, retry=True, **options)).info
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            found = NexusOperationExecutionInfo()  # of which the call itself will say so
        return of_operation(req.namespace, req.operation_id, found)

    async def _described(self, namespace: str, schedule_id: str, options: Mapping[str, Any]) -> Schedule:
        """The schedule as it is there; an empty one where there is none, of which the call itself will say so."""
        described = DescribeScheduleRequest(namespace=namespace, schedule_id=schedule_id)
        try:
            return (await self.inner.workflow_service.describe_schedule(described, retry=True, **options)).schedule
        except RPCError as err:
            if err.status != RPCStatusCode.NOT_FOUND:
                raise
            return Schedule()

    async def _batch(self, batch: Batch, options: Mapping[str, Any]) -> AsyncIterator[Question]:
        """L4."""
        if not batch.actions:
            return
        for id in batch.named:
            for question in batch.questions(id):
                yield question
        if not batch.named:
            for question in batch.questions(""):
                yield question
            async for id in self._found(batch, options):
                for question in batch.questions(id):
                    yield question

    async def _found(self, batch: Batch, options: Mapping[str, Any]) -> AsyncIterator[str]:
        """The ids of what the query of a batch finds, each once."""
        service, query, seen = self.inner.workflow_service, batch.req.visibility_query, set[str]()
        token = b""
        while True:
            page: dict[str, Any] = {
                "namespace": batch.req.namespace,
                "query": query,
                "page_size": _PAGE,
                "next_page_token": token,
            }
            found: Any
            if batch.of_activities:
                found = await service.list_activity_executions(
                    ListActivityExecutionsRequest(**page), retry=True, **options
                )
                ids = [each.activity_id for each in found.executions]
            else:
                found = await service.list_workflow_executions(
                    ListWorkflowExecutionsRequest(**page), retry=True, **options
                )
                ids = [each.execution.workflow_id for each in found.executions]
            for id in ids:
                if id not in seen:
                    seen.add(id)
                    yield id
            token = found.next_page_token
            if not token:
                return


_LOOKED_UP = ENDINGS | {
    "start_batch_operation",
    "create_schedule",
    "update_schedule",
    "patch_schedule",
    "delete_schedule",
}
"""Calls that do not themselves say all that is asked."""
