"""A worker that does what any gate must do and nothing else: the least that authorization can cost.

For each activity the workflow side makes one signature and verifies one, the activity side verifies one, asks Cedar,
waits until a decision is on disk, makes one signature and has it written. Nothing is built, sent, compared or believed.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import temporalio.activity
from temporalio import workflow
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

with workflow.unsafe.imports_passed_through():
    from exequatur.identity.principal import Principal
    from exequatur.lineage.journal import Journal
    from exequatur.policy.arguments import ActivitySignature, convert_arguments
    from exequatur.policy.bundle import PolicyBundle
    from exequatur.statements.keys import SigningKey, verify_signature

PRINCIPAL = Principal("Agent", "payer")
REQUEST, RECEIPT = b"x" * 900, b"x" * 1100
"""As long as the statements that are signed."""
DECISION = b"x" * 800
RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules("benchmarks", "exequatur", "cryptography")
)


class Primitives:
    """A key, a policy bundle and what is done with them."""

    def __init__(self, bundle: PolicyBundle) -> None:
        self._key = SigningKey.generate()
        self._bundle = bundle
        self._signatures = {data: self._key.sign(data) for data in (REQUEST, RECEIPT)}

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def verify(self, data: bytes) -> bool:
        return verify_signature(self._key.x, self._signatures[data], data)

    def cedar(self, activity: Any, args: Any) -> bool:
        context = {"args": convert_arguments(ActivitySignature.of(activity), args).value}
        action = f'Action::"{activity.__name__}"'
        return self._bundle.evaluate(PRINCIPAL.uid, action, 'Workflow::"w"', context).allowed


class _Activity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, primitives: Primitives, journal: Journal) -> None:
        super().__init__(next)
        self._primitives = primitives
        self._journal = journal

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = temporalio.activity.info()
        self._primitives.verify(REQUEST)
        self._primitives.cedar(input.fn, input.args)
        await self._journal.append_decision(
            DECISION, request=uuid.uuid4().hex, run=info.workflow_run_id or "", attempt=info.attempt
        )
        result = await self.next.execute_activity(input)
        self._primitives.sign(RECEIPT)
        self._journal.enqueue("receipt", RECEIPT)
        return result


class PrimitivesInterceptor(Interceptor):
    """Does the primitives around each activity, with a journal of its own."""

    def __init__(self, primitives: Primitives, folder: Path) -> None:
        self._primitives = primitives
        self._journal = Journal.open(folder)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activity(next, self._primitives, self._journal)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        primitives = self._primitives

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
                primitives.sign(REQUEST)
                handle = super().start_activity(replace(input))
                primitives.verify(RECEIPT)
                return handle

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound
