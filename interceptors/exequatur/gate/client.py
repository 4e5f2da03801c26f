"""The client side of the gate: a workflow start gets a grant, after Cedar allowed the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from temporalio.client import (
    Client,
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    UpdateWithStartStartWorkflowInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.common import RawValue
from temporalio.converter import WorkflowSerializationContext

from exequatur.failures import AuthorizationDenied
from exequatur.gate.wire import START_HEADER, payloads_digest, start_header
from exequatur.identity.acting import acting_principal
from exequatur.identity.principal import Principal
from exequatur.statements.models import Reuse

Start = TypeVar("Start", StartWorkflowInput, UpdateWithStartStartWorkflowInput)


@dataclass(frozen=True)
class GrantOrder:
    """What a client asks a grant for."""

    principal: Principal
    namespace: str
    workflow_type: str
    workflow_id: str
    task_queue: str
    input: str
    """Digest of the start arguments' payloads."""
    reuse: Reuse
    start_delay: float
    """Seconds."""


class GrantIssuer(Protocol):
    """What can grant a start: an authority, in process or far away."""

    async def issue_grant(self, order: GrantOrder) -> str:
        """Issue a grant.

        Raises:
            AuthorizationDenied: Cedar does not allow the start.
            AuthorizationUnavailable: It cannot be decided now.
        """
        ...


class ClientOutbound(OutboundInterceptor):
    """Puts a grant into the header of each start."""

    def __init__(
        self,
        next: OutboundInterceptor,
        issuer: GrantIssuer,
        default_principal: Callable[[], Principal | None],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(next)
        self._issuer = issuer
        self._default_principal = default_principal
        self._refresh = refresh

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        return await super().start_workflow(await self._granted(input))

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        start = await self._granted(input.start_workflow_input)
        return await super().start_update_with_start_workflow(replace(input, start_workflow_input=start))

    async def _granted(self, input: Start) -> Start:
        """A copy of the input with a grant; the caller's own stays as it was."""
        if START_HEADER in input.headers:
            return input
        principal = acting_principal() or self._default_principal()
        if principal is None:
            raise AuthorizationDenied(
                f"Nobody is named on whose behalf {input.workflow} starts; use acting_as(Principal(...)) or give the "
                "plugin a principal"
            )
        client = self._client()
        context = WorkflowSerializationContext(namespace=client.namespace, workflow_id=input.id)
        converter = client.data_converter.with_context(context).payload_converter
        payloads = converter.to_payloads(input.args) if input.args else []
        await self._refresh()
        reuse: Reuse = "cron" if input.cron_schedule else "retry" if input.retry_policy else "once"
        grant = await self._issuer.issue_grant(
            GrantOrder(
                principal=principal,
                namespace=client.namespace,
                workflow_type=input.workflow,
                workflow_id=input.id,
                task_queue=input.task_queue,
                input=payloads_digest(payloads),
                reuse=reuse,
                start_delay=input.start_delay.total_seconds() if input.start_delay else 0.0,
            )
        )
        return replace(
            input,
            args=[RawValue(payload) for payload in payloads],
            headers={**input.headers, START_HEADER: start_header([grant])},
        )

    def _client(self) -> Client:
        """The client whose calls this interceptor sees; the SDK's own interceptor, which comes next, knows it."""
        sdk: Any = self.next
        client: Client = sdk._client
        return client
