"""The client signals, queries or updates a workflow: the message gets a permit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    QueryWorkflowInput,
    SignalWorkflowInput,
    StartWorkflowUpdateInput,
    WorkflowUpdateHandle,
)
from temporalio.common import RawValue
from temporalio.converter import WorkflowSerializationContext

from exequatur.gate.client.asking import Asking, raw
from exequatur.gate.issuing import PermitOrder
from exequatur.gate.wire import MESSAGE_HEADER, payloads_digest, start_header
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.models import MessageKind


class Messages(Asking):
    """Puts a permit into the header of each message."""

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        if input.signal == APPROVAL_SIGNAL:  # it proves itself
            return await super().signal_workflow(input)
        args, headers = await self._permitted(
            "signal", input.id, input.signal, input.args, input.headers, run_id=input.run_id
        )
        return await super().signal_workflow(replace(input, args=args, headers=headers))

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        args, headers = await self._permitted(
            "query", input.id, input.query, input.args, input.headers, run_id=input.run_id
        )
        return await super().query_workflow(replace(input, args=args, headers=headers))

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:
        args, headers = await self._permitted(
            "update", input.id, input.update, input.args, input.headers, run_id=input.run_id
        )
        return await super().start_workflow_update(replace(input, args=args, headers=headers))

    async def _permitted(
        self,
        kind: MessageKind,
        workflow_id: str,
        name: str,
        args: Sequence[Any],
        headers: Mapping[str, Payload] | None,
        *,
        run_id: str | None = None,
        delay: timedelta | None = None,
    ) -> tuple[Sequence[Any] | list[RawValue], Mapping[str, Payload]]:
        """The arguments as they are sent, and the headers with a permit for them.

        Args:
            kind: What it is.
            workflow_id: To whom.
            name: Of the message.
            args: Its arguments.
            headers: Those that it has.
            run_id: If the caller named one.
            delay: Of the start that it goes with.

        Raises:
            AuthorizationDenied: It is not allowed.
            AuthorizationUnavailable: It cannot be decided now.
        """
        headers = headers or {}
        if MESSAGE_HEADER in headers:
            return args, headers
        who = await self._acting(f"the {kind} {name} is sent")
        namespace = self._client().namespace
        payloads = self._payloads(args, WorkflowSerializationContext(namespace=namespace, workflow_id=workflow_id))
        permit = await self._authority.issue_permit(
            PermitOrder(
                principal=who.principal,
                namespace=namespace,
                kind=kind,
                target=workflow_id,
                name=name,
                args=payloads_digest(payloads),
                run_id=run_id or None,
                delay=delay.total_seconds() if delay else 0.0,
                acting=who.acting,
                credential=who.credential,
            )
        )
        return raw(payloads), {**headers, MESSAGE_HEADER: start_header([permit])}
