"""The client changes schedules: what a schedule starts gets a grant that is bound to it.

The grant stands in the header of the schedule's start action, so the server hands it to every run. It is good for this
schedule only, for its workflow type, input and task queue, and until it ends. An update keeps it while it fits, and
gets another once more than half of its time has passed.

What user code reads of a schedule, and what it hands back, has no header of ours: it is taken out where a schedule is
described, and put in where it leaves. A header that user code sets itself is left alone, as with a start.

Rules, numbered as the code marks them:

Y1  A schedule is created or changed only after Cedar allowed it (rules L of :mod:`exequatur.gate.client.operations`).
Y2  What it starts gets a grant, for which Cedar also allowed the action ``workflow.start``.
Y3  A grant is kept only while it is for what the schedule starts.
Y4  A grant that does not verify, or is revoked, is not kept.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.schedule.v1 import Schedule as ScheduleProto
from temporalio.api.schedule.v1 import SchedulePatch
from temporalio.client import (
    CreateScheduleInput,
    DescribeScheduleInput,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleUpdate,
    ScheduleUpdateInput,
    UpdateScheduleInput,
)
from temporalio.common import HeaderCodecBehavior, RawValue
from temporalio.converter import WorkflowSerializationContext

from exequatur.errors import StatementError
from exequatur.gate.client.asking import Asking
from exequatur.gate.client.operations import Question, of_schedule, patched, updated
from exequatur.gate.client.service import asked
from exequatur.gate.issuing import GrantOrder
from exequatur.gate.wire import START_HEADER, payloads_digest, read_start_header, start_header
from exequatur.identity.actors import involved
from exequatur.policy.told import SCHEDULE_CREATE_ACTION, SCHEDULE_UPDATE_ACTION
from exequatur.statements.jws import kid_of
from exequatur.statements.verification import Credentials, audience, verify_chain


class Schedules(Asking):
    """Asks before a schedule is created or changed, and binds a grant to what it starts.

    What is done to a schedule otherwise is asked by :class:`exequatur.gate.client.service.AskingService`.
    """

    async def create_schedule(self, input: CreateScheduleInput) -> ScheduleHandle:
        namespace, proto = self._client().namespace, _proto(input.schedule)
        begins = SchedulePatch(backfill_request=[each._to_proto() for each in input.backfill])
        if input.trigger_immediately:
            begins.trigger_immediately.SetInParent()
        await self._ask_all(  # [Y1]
            [
                of_schedule(SCHEDULE_CREATE_ACTION, namespace, input.id, proto),
                *patched(namespace, input.id, proto, begins),
            ]
        )
        granted = await self._granted_schedule(input.id, input.schedule, None)
        token = asked.set(_told("create_schedule", input.schedule))
        try:
            return await super().create_schedule(replace(input, schedule=granted))
        finally:
            asked.reset(token)

    async def describe_schedule(self, input: DescribeScheduleInput) -> ScheduleDescription:
        return _without_ours(await super().describe_schedule(input))

    async def update_schedule(self, input: UpdateScheduleInput) -> None:
        async def updater(given: ScheduleUpdateInput) -> ScheduleUpdate | None:
            before = given.description.raw_description.schedule
            held = before.action.start_workflow.header.fields.get(START_HEADER)
            found = input.updater(replace(given, description=_without_ours(given.description)))
            update: ScheduleUpdate | None = await found if inspect.iscoroutine(found) else found  # type: ignore[assignment]
            if not isinstance(update, ScheduleUpdate):
                return update
            namespace, after = self._client().namespace, _proto(update.schedule)
            await self._ask_all(updated(before, after, SCHEDULE_UPDATE_ACTION, namespace, input.id))  # [Y1]
            granted = await self._granted_schedule(input.id, update.schedule, held)
            asked.set(_told("update_schedule", update.schedule))
            return replace(update, schedule=granted)

        token = asked.set("")
        try:
            await super().update_schedule(replace(input, updater=updater))
        finally:
            asked.reset(token)

    async def _ask_all(self, questions: Sequence[Question]) -> None:
        for question in questions:
            await self._leave(question.action, question.workflow_id, question.facts, question.what)

    async def _granted_schedule(self, schedule_id: str, schedule: Schedule, held: Payload | None) -> Schedule:
        """A copy of the schedule whose action has a grant; the caller's own stays as it was.

        Args:
            schedule_id: Its id.
            schedule: As it is to be.
            held: The header that it has at the server, as that has it.
        """
        action = schedule.action
        if not isinstance(action, ScheduleActionStartWorkflow) or START_HEADER in (action.headers or {}):
            return schedule
        payloads = await self._inputs(action)
        who = await self._acting(f"schedule {schedule_id} starts {action.workflow}")
        order = GrantOrder(
            principal=who.principal,
            namespace=self._client().namespace,
            workflow_type=action.workflow,
            workflow_id=action.id,
            task_queue=action.task_queue,
            input=payloads_digest(payloads),
            reuse="schedule",
            start_delay=0.0,
            schedule=schedule_id,
            acting=who.acting,
            credential=who.credential,
        )
        header = await self._kept(held, order) if held is not None else None
        if header is None:
            header = start_header([await self._authority.issue_grant(order)])  # [Y2]
        if action._from_raw and self._encodes_headers:
            # The SDK takes the headers of what it read from the server to be encoded.
            header = await self._client().data_converter._transform_outbound_payload(header)
        granted = copy.copy(action)
        # An argument that came from the server goes back as it came.
        granted.args = [
            given if isinstance(given, Payload) else RawValue(payload)
            for given, payload in zip(action.args, payloads, strict=True)
        ]
        granted.headers = {**(action.headers or {}), START_HEADER: header}
        return replace(schedule, action=granted)

    async def _kept(self, held: Payload, order: GrantOrder) -> Payload | None:
        """The header that the schedule has, decoded, if its grant still serves (Y3, Y4)."""
        header = held
        if self._encodes_headers:
            try:
                header = await self._client().data_converter._transform_inbound_payload(held)
            except Exception:  # whatever the user's codec raises
                return None
        try:
            [token] = read_start_header({START_HEADER: header}) or []
            gate = self._gate
            aud = audience(gate.settings.trust_domain, gate.settings.cluster, order.namespace)
            claims = verify_chain(token, [], Credentials(gate.trust), gate.trust, aud=aud).grant.claims  # Y4
        except (StatementError, ValueError):
            return None
        leaf = claims.authorization
        subject: dict[str, str | frozenset[str]] = {
            "grant": claims.jti,
            "principal": involved(claims.sub, claims.act),
            "workflow": leaf.workflow_id,
            "key": kid_of(token),
        }
        if gate.revocations.find(subject):  # [Y4]
            return None
        same = (leaf.workflow_type, leaf.workflow_id, leaf.task_queue, leaf.input, leaf.reuse, leaf.schedule) == (
            order.workflow_type,
            order.workflow_id,
            order.task_queue,
            order.input,
            order.reuse,
            order.schedule,
        )
        fresh = gate.clock() < claims.iat + (claims.exp - claims.iat) / 2
        return header if same and fresh else None  # [Y3]

    async def _inputs(self, action: ScheduleActionStartWorkflow) -> list[Payload]:
        """The arguments as a run's worker decodes them, one payload each."""
        client = self._client()
        converter = client.data_converter.with_context(
            WorkflowSerializationContext(namespace=client.namespace, workflow_id=action.id)
        )
        return [
            await converter._transform_inbound_payload(each)
            if isinstance(each, Payload)
            else converter.payload_converter.to_payloads([each])[0]
            for each in action.args
        ]

    @property
    def _encodes_headers(self) -> bool:
        return self._client().config(active_config=True)["header_codec_behavior"] == HeaderCodecBehavior.CODEC


def _proto(schedule: Schedule) -> ScheduleProto:
    """What is asked about of a schedule."""
    found, action = ScheduleProto(), schedule.action
    found.state.paused = schedule.state.paused
    if isinstance(action, ScheduleActionStartWorkflow):
        starts = found.action.start_workflow
        starts.workflow_id, starts.workflow_type.name = action.id, action.workflow
        starts.task_queue.name = action.task_queue
    return found


def _told(call: str, schedule: Schedule) -> str:
    """The call, if what was asked of the schedule is all that it says; otherwise its bytes are to be asked (Y1)."""
    return call if type(schedule.action) is ScheduleActionStartWorkflow else ""


def _without_ours(description: ScheduleDescription) -> ScheduleDescription:
    """The description as user code wrote it. What the server said is still in ``raw_description``."""
    action: Any = description.schedule.action
    headers: Mapping[str, Payload] | None = getattr(action, "headers", None)
    if headers and START_HEADER in headers:
        action.headers = {name: value for name, value in headers.items() if name != START_HEADER} or None
    return description
