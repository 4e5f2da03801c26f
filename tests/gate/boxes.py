"""Workflows that note what they hear, and a client that sends whatever header a scenario made up."""

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer

from exequatur.gate.issuing import PermitOrder
from exequatur.gate.wire import MESSAGE_HEADER, payloads_digest, start_header
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.jws import Token, parse, sign
from exequatur.statements.keys import Signer
from exequatur.statements.models import MessageKind, Permit
from tests.gate.conftest import BOT, Stage, happened, sandbox

TIMEOUT = timedelta(seconds=60)


@activity.defn
async def note(text: str) -> str:
    happened(text)
    return text


class Noting:
    """What the workflows here have in common."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.closed = False

    @workflow.signal
    def put(self, text: str) -> None:
        self.heard.append(text)

    @workflow.signal
    def close(self) -> None:
        self.closed = True

    @workflow.query
    def count(self) -> int:
        return len(self.heard)

    @workflow.update
    def swap(self, text: str) -> list[Any]:
        self.heard.append(text)
        return self.heard

    @workflow.update
    def checked(self, text: str) -> str:
        self.heard.append(text)
        return text.upper()

    @checked.validator
    def _check(self, text: str) -> None:
        if text == "bad":
            raise ApplicationError("not that", type="Taste")

    async def until_closed(self) -> list[Any]:
        await workflow.wait_condition(lambda: self.closed)
        return self.heard


@workflow.defn
class Box(Noting):
    @workflow.run
    async def run(self) -> list[Any]:
        return await self.until_closed()


@workflow.defn(failure_exception_types=[Exception])
class Strict(Box):
    """Fails of every exception."""

    @workflow.run
    async def run(self) -> list[Any]:
        return await self.until_closed()


@workflow.defn
class Busy(Noting):
    """Asks for an activity after each signal."""

    @workflow.run
    async def run(self) -> list[Any]:
        done = 0
        while not self.closed or done < len(self.heard):
            await workflow.wait_condition(lambda: self.closed or len(self.heard) > done)  # noqa: B023 (it is awaited)
            if done < len(self.heard):
                await workflow.execute_activity(note, self.heard[done], start_to_close_timeout=TIMEOUT)
                done += 1
        return self.heard


@workflow.defn
class Again(Noting):
    """Continues as new when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.next = False

    @workflow.signal
    def go_on(self) -> None:
        self.next = True

    @workflow.run
    async def run(self, before: list[Any]) -> list[Any]:
        await workflow.wait_condition(lambda: self.next or self.closed)
        if self.next:
            workflow.continue_as_new([*before, *self.heard, "|"])
        return [*before, *self.heard]


@workflow.defn
class Late(Noting):
    """Registers a handler only after it was told to."""

    @workflow.run
    async def run(self) -> list[Any]:
        await workflow.wait_condition(lambda: "now" in self.heard)
        workflow.set_signal_handler("late", self.put)
        return await self.until_closed()


@workflow.defn
class Dynamic(Noting):
    """Has a handler for every name."""

    @workflow.run
    async def run(self) -> list[Any]:
        return await self.until_closed()

    @workflow.signal(dynamic=True)
    def any_signal(self, name: str, args: Sequence[RawValue]) -> None:
        self.heard.append([name, len(args)])

    @workflow.query(dynamic=True)
    def any_query(self, name: str, args: Sequence[RawValue]) -> str:
        return f"{name} {len(args)}"

    @workflow.update(dynamic=True)
    def any_update(self, name: str, args: Sequence[RawValue]) -> str:
        self.heard.append([name, len(args)])
        return f"{name} {len(args)}"


@workflow.defn
class Posing(Noting):
    """Has a handler of its own for the signal that brings approvals."""

    @workflow.run
    async def run(self) -> list[Any]:
        return await self.until_closed()

    @workflow.signal(name=APPROVAL_SIGNAL)
    def approved(self, text: str) -> None:
        self.heard.append(text)


WORKFLOWS: list[type] = [Box, Strict, Busy, Again, Late, Dynamic, Posing]


class MessageHeaders(temporalio.client.Interceptor):
    """Puts headers on every message, as any client may."""

    def __init__(self, headers: Mapping[str, Payload]) -> None:
        self.headers = dict(headers)

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        headers = self.headers

        class Outbound(temporalio.client.OutboundInterceptor):
            async def signal_workflow(self, input: Any) -> None:
                await super().signal_workflow(replace(input, headers=headers))

            async def query_workflow(self, input: Any) -> Any:
                return await super().query_workflow(replace(input, headers=headers))

            async def start_workflow_update(self, input: Any) -> Any:
                return await super().start_workflow_update(replace(input, headers=headers))

        return Outbound(next)


def carried(*tokens: Token[Any] | str) -> dict[str, Payload]:
    """A message header of tokens."""
    return {MESSAGE_HEADER: start_header([each if isinstance(each, str) else each.text for each in tokens])}


async def permit(
    stage: Stage,
    kind: MessageKind,
    target: str,
    name: str,
    /,
    *args: Any,
    signer: Signer | None = None,
    **changes: Any,
) -> Token[Permit]:
    """A permit as the authority issues it, or with other claims, or signed with another key."""
    issuer: Any = stage.plugin._authority
    digest = payloads_digest(DataConverter.default.payload_converter.to_payloads(args))
    order = PermitOrder(principal=BOT, namespace="default", kind=kind, target=target, name=name, args=digest)
    claims = parse(await issuer.issue_permit(order), Permit).claims
    return sign(claims.model_copy(update=changes), signer or issuer._state.signer("permit"))


async def with_headers(
    stage: Stage, handle: WorkflowHandle[Any, Any], headers: Mapping[str, Payload]
) -> WorkflowHandle[Any, Any]:
    """The same workflow through a client without the plugin that puts these headers on every message."""
    client = await stage.connect(interceptors=[MessageHeaders(headers)])
    return client.get_workflow_handle(handle.id)


async def replays(stage: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    """Replay what was recorded of a run, with the plugin."""
    replayer = Replayer(workflows=WORKFLOWS, plugins=[stage.plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


def records(stage: Stage, handle: WorkflowHandle[Any, Any]) -> list[dict[str, Any]]:
    """What the evidence says of a workflow's messages."""
    bodies = [json.loads(record.body) for record in stage.records("message")]
    return [body for body in bodies if body["workflow_id"] == handle.id]


def refusals(stage: Stage, handle: WorkflowHandle[Any, Any]) -> list[tuple[str, str]]:
    return [(body["kind"], body["rule"]) for body in records(stage, handle) if not body["accepted"]]


async def refused(sending: Awaitable[Any]) -> str:
    """Why a query or update was refused."""
    with pytest.raises((WorkflowQueryFailedError, WorkflowUpdateFailedError)) as raised:
        await sending
    error = raised.value
    if isinstance(error, WorkflowUpdateFailedError):
        assert isinstance(error.cause, ApplicationError)
        assert error.cause.type == "GrantRejected"
        assert error.cause.non_retryable
        return error.cause.message
    return error.message


async def go_on(s: Stage, workflow_id: str) -> None:
    """Have a run continue as new, and wait for the run that continues it."""
    h = s.client.get_workflow_handle(workflow_id)
    before = (await h.describe()).run_id
    await h.signal(Again.go_on)
    for _ in range(2500):
        if (await h.describe()).run_id != before:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no run continues it")
