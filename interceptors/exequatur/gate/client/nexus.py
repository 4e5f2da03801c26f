"""The client starts or ends a Nexus operation that stands by itself, without a workflow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from temporalio.api.nexus.v1 import NexusOperationExecutionInfo
from temporalio.client import NexusOperationHandle, StartNexusOperationInput
from temporalio.converter import NexusSerializationContext

from exequatur.failures import AuthorizationDenied
from exequatur.gate.client.asking import Asking, raw
from exequatur.gate.client.operations import Question
from exequatur.gate.issuing import PermitOrder
from exequatur.gate.wire import MAX_NEXUS_BYTES, NEXUS_HEADER, fits_nexus, nexus_headers, payloads_digest
from exequatur.policy.told import NEXUS_CANCEL_ACTION
from exequatur.statements.standalone import standalone_id

ENDINGS = frozenset(
    {
        "request_cancel_nexus_operation_execution",
        "terminate_nexus_operation_execution",
        "delete_nexus_operation_execution",
    }
)
"""Calls of the workflow service that end an operation; :mod:`exequatur.gate.client.service` asks before them."""


class Nexus(Asking):
    """Puts a permit into the headers of each start."""

    async def start_nexus_operation(self, input: StartNexusOperationInput) -> NexusOperationHandle[Any]:
        headers = input.headers or {}
        if NEXUS_HEADER in headers:
            return await super().start_nexus_operation(input)
        who = await self._acting(f"{input.service}/{input.operation} starts")
        context = NexusSerializationContext(endpoint=input.endpoint, service=input.service, operation=input.operation)
        payloads = self._payloads([input.arg], context)
        permit = await self._authority.issue_permit(
            PermitOrder(
                principal=who.principal,
                namespace=self._client().namespace,
                kind="nexus",
                target=input.id,
                name=input.operation,
                args=payloads_digest(payloads),
                endpoint=input.endpoint,
                service=input.service,
                acting=who.acting,
                credential=who.credential,
            )
        )
        headers = nexus_headers(headers, [permit])
        if not fits_nexus(headers):
            raise AuthorizationDenied(
                f"The permit of {who} does not fit into the {MAX_NEXUS_BYTES} bytes that Nexus headers may have; "
                "give the principal fewer attributes and parents, or the operation fewer headers"
            )
        return await super().start_nexus_operation(replace(input, arg=raw(payloads)[0], headers=headers))


def of_operation(namespace: str, operation_id: str, found: NexusOperationExecutionInfo) -> Question:
    """What is asked before an operation is ended.

    Args:
        namespace: Of the operation.
        operation_id: Its id.
        found: What the server says it is.
    """
    return Question(
        NEXUS_CANCEL_ACTION,
        standalone_id(operation_id),
        {
            "run": {"namespace": namespace, "workflow_id": "", "workflow_type": ""},
            "nexus": {"endpoint": found.endpoint, "service": found.service, "operation": found.operation},
        },
    )
