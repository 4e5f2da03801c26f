"""Which request is an activity of, that somebody outside of its worker reports on?

What is known at first is a task token, or ids. The server says whether the activity is pending and at which attempt,
and the run's history (or the description of an activity that no workflow scheduled) holds the header that came with it.

A task token is the server's own: a protobuf message, ``temporal.server.api.token.v1.Task``. Workers hold tokens while a
server is upgraded, so its fields keep their numbers. Only those that name the activity are read here, by the rules of
protobuf and not by position. Each token names it twice: by ids, and by what the server goes by when it is told the
outcome, which is the event that scheduled it, or what the server keeps an activity as that no workflow scheduled. A
token that names nothing (another server may encrypt its own) is refused with a sentence, because what cannot be told
apart cannot be decided.

Rules, numbered as the code marks them:

N1  A token names an activity.
N2  The header's request authorizes this very activity (rules R, or rules Y where no workflow scheduled it).
N3  What a token names twice is one activity: whoever sends it may have put two tokens together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeActivityExecutionRequest,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import AsyncActivityIDReference, Client
from temporalio.common import HeaderCodecBehavior, RawValue
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.service import RPCError, RPCStatusCode

from exequatur.errors import StatementError
from exequatur.failures import GrantRejected
from exequatur.gate.gate import Gate
from exequatur.gate.wire import PREFIX, payloads_digest, read_activity_header
from exequatur.statements.jws import Token
from exequatur.statements.models import Permit
from exequatur.statements.requests import Authorized, Task, verify_request
from exequatur.statements.standalone import Lone, verify_standalone
from exequatur.statements.verification import audience

_STRING, _BYTES, _INT32, _INT64 = 9, 12, 5, 3
_TOKEN = {
    "namespace_id": (1, _STRING),
    "workflow_id": (2, _STRING),
    "run_id": (3, _STRING),
    "event": (4, _INT64),
    "attempt": (5, _INT32),
    "activity_id": (6, _STRING),
    "component": (14, _BYTES),
}
_COMPONENT = {"namespace_id": (1, _STRING), "activity_id": (2, _STRING), "run_id": (3, _STRING)}
"""What the server keeps an activity as that no workflow scheduled."""
_MAX_TOKEN = 65_536


@dataclass(frozen=True)
class Named:
    """An activity as somebody names it.

    Args:
        workflow_id: Empty where no workflow scheduled it.
        run_id: Of the workflow, or of the activity that stands by itself; may be empty.
        activity_id: Its id.
        attempt: Where a token names it.
        event: Id of the event that scheduled it, where a token names one.
    """

    workflow_id: str
    run_id: str
    activity_id: str
    attempt: int | None = None
    event: int | None = None


@dataclass(frozen=True)
class Pending:
    """An activity as far as the server knows it.

    Args:
        named: With the run that it was found in.
        activity_type: Its type; empty where none such is pending.
        task_queue: Where it was to run; the same.
        attempt: The one that is being worked on.
        authorized: Its verified request; ``None`` where it has none.
        permit: Its verified permit; the same.
        fault: Why its header does not verify.
    """

    named: Named
    activity_type: str = ""
    task_queue: str = ""
    attempt: int = 1
    authorized: Authorized | None = None
    permit: Token[Permit] | None = None
    fault: str | None = None

    @property
    def request(self) -> str | None:
        """``jti`` of the request, or digest of the permit."""
        if self.authorized is not None:
            return self.authorized.request.claims.jti
        return None if self.permit is None else self.permit.digest

    @property
    def request_digest(self) -> str | None:
        """Of the request's or permit's token."""
        token = self.permit if self.authorized is None else self.authorized.request
        return None if token is None else token.digest


@lru_cache(maxsize=1)
def _types() -> dict[str, type[Message]]:
    """Protobuf messages with the fields of a task token, and of a component in it, that are read here."""
    file = descriptor_pb2.FileDescriptorProto(name="exequatur/token.proto", package="exequatur", syntax="proto3")
    for name, fields in (("Token", _TOKEN), ("Component", _COMPONENT)):
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            message.field.add(name=field, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"exequatur.{name}") for name in ("Token", "Component"))
    return {each.name: message_factory.GetMessageClass(each) for each in found}


def named_by(id_or_token: AsyncActivityIDReference | bytes) -> Named:
    """What a handle names.

    Raises:
        GrantRejected: N1, N3.
    """
    if isinstance(id_or_token, AsyncActivityIDReference):
        return Named(id_or_token.workflow_id or "", id_or_token.run_id or "", id_or_token.activity_id)
    token = _parsed("Token", id_or_token)
    kept = _parsed("Component", token.component)
    run_id = token.run_id if token.workflow_id else kept.run_id
    if not token.activity_id or not run_id or token.attempt < 0:  # [N1]
        raise GrantRejected(
            "It cannot be told from the task token which activity it is of; use workflow_id, run_id and activity_id"
        )
    alone = (token.namespace_id, token.activity_id) == (kept.namespace_id, kept.activity_id)
    if (token.workflow_id and token.component) or (not token.workflow_id and not alone):  # [N3]
        raise GrantRejected("The task token names two activities")
    return Named(token.workflow_id, run_id, token.activity_id, token.attempt or None, token.event or None)


def _parsed(kind: str, message: bytes) -> Any:
    """The fields of a message that are read here; none of them where it is no such message."""
    found = _types()[kind]
    try:
        return found.FromString(message) if len(message) <= _MAX_TOKEN else found()
    except DecodeError:
        return found()


async def find_pending(client: Client, gate: Gate, named: Named) -> Pending:
    """Ask the server about an activity. Where none such is pending, it will refuse what it is told, too.

    Raises:
        GrantRejected: N3.
        RPCError: The server could not be asked.
    """
    try:
        found = await (_of_workflow if named.workflow_id else _alone)(client, gate, named)
    except RPCError as err:
        if err.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise
        found = None
    return found or Pending(named)


async def _of_workflow(client: Client, gate: Gate, named: Named) -> Pending | None:
    service, execution = client.workflow_service, WorkflowExecution(workflow_id=named.workflow_id, run_id=named.run_id)
    described = await service.describe_workflow_execution(
        DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution), retry=True
    )
    found = next((each for each in described.pending_activities if each.activity_id == named.activity_id), None)
    info = described.workflow_execution_info
    event = None if found is None else await _scheduled(client, info.execution, named.activity_id)
    if found is None or event is None:
        return None
    if named.event not in (None, event.event_id):  # [N3]
        raise GrantRejected("The task token names two activities")
    asked = event.activity_task_scheduled_event_attributes
    pending = Pending(
        Named(named.workflow_id, info.execution.run_id, named.activity_id, named.attempt),
        asked.activity_type.name,
        asked.task_queue.name,
        named.attempt or found.attempt,
    )
    header, input = await _decoded(client, pending, asked.header.fields, asked.input.payloads, info.type.name)
    settings = gate.settings
    try:
        tokens = read_activity_header(header)
        if tokens is None:
            return pending
        task = Task(
            namespace=client.namespace,
            workflow_id=named.workflow_id,
            workflow_type=info.type.name,
            run_id=info.execution.run_id,
            activity_id=named.activity_id,
            activity_type=pending.activity_type,
            task_queue=pending.task_queue,
            scheduled=event.event_time.ToNanoseconds() / 1e9,
            args=payloads_digest(input),
            local=False,
        )
        authorized = verify_request(  # N2
            tokens,
            task,
            gate.trust,
            aud=audience(settings.trust_domain, settings.cluster, client.namespace),
            max_depth=settings.max_delegation_depth,
            schedule_bound=settings.schedule_bound.total_seconds(),
        )
    except StatementError as err:
        return replace(pending, fault=str(err))
    return replace(pending, authorized=authorized)


async def _scheduled(client: Client, execution: WorkflowExecution, activity_id: str) -> HistoryEvent | None:
    """The event that scheduled a pending activity: the last one of its id. It is looked for from the end."""
    page = b""
    while True:
        answer = await client.workflow_service.get_workflow_execution_history_reverse(
            GetWorkflowExecutionHistoryReverseRequest(
                namespace=client.namespace, execution=execution, next_page_token=page
            ),
            retry=True,
        )
        for event in answer.history.events:
            if event.activity_task_scheduled_event_attributes.activity_id == activity_id:
                return event
        page = answer.next_page_token
        if not page:
            return None


async def _alone(client: Client, gate: Gate, named: Named) -> Pending | None:
    described = await client.workflow_service.describe_activity_execution(
        DescribeActivityExecutionRequest(
            namespace=client.namespace, activity_id=named.activity_id, run_id=named.run_id, include_input=True
        ),
        retry=True,
    )
    info = described.info
    pending = Pending(
        Named("", info.run_id, named.activity_id, named.attempt),
        info.activity_type.name,
        info.task_queue,
        named.attempt or info.attempt,
    )
    header, input = await _decoded(client, pending, info.header.fields, described.input.payloads, None)
    settings = gate.settings
    try:
        tokens = read_activity_header(header)
        if tokens is None:
            return pending
        permit = verify_standalone(  # N2
            tokens,
            Lone(
                activity_id=named.activity_id,
                activity_type=pending.activity_type,
                task_queue=pending.task_queue,
                scheduled=info.schedule_time.ToNanoseconds() / 1e9,
                args=payloads_digest(input),
            ),
            gate.trust,
            aud=audience(settings.trust_domain, settings.cluster, client.namespace),
            leeway=settings.clock_leeway.total_seconds(),
        )
    except StatementError as err:
        return replace(pending, fault=str(err))
    return replace(pending, permit=permit)


async def _decoded(
    client: Client, pending: Pending, header: Mapping[str, Payload], input: Sequence[Payload], workflow_type: str | None
) -> tuple[dict[str, Payload], list[Payload]]:
    """Header and arguments as they were before the user's codec."""
    converter = client.data_converter.with_context(
        ActivitySerializationContext(
            namespace=client.namespace,
            workflow_id=pending.named.workflow_id or None,
            workflow_type=workflow_type,
            activity_type=pending.activity_type,
            activity_id=pending.named.activity_id,
            activity_task_queue=pending.task_queue,
            is_local=False,
        )
    )
    coded = client.config(active_config=True)["header_codec_behavior"] != HeaderCodecBehavior.NO_CODEC
    names = [name for name in header if name.startswith(PREFIX)]
    values = [header[name] for name in names]
    values = await _before_codec(converter, values) if coded else values
    return dict(zip(names, values, strict=True)), await _before_codec(converter, input)


async def _before_codec(converter: DataConverter, payloads: Sequence[Payload]) -> list[Payload]:
    if not payloads:
        return []
    return [value.payload for value in await converter.decode(payloads, [RawValue] * len(payloads))]
