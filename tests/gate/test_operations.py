"""What goes straight to the server, and no worker can stop, leaves a client only after Cedar allowed it."""

import asyncio
import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from temporalio import workflow
from temporalio.api.batch.v1 import (
    BatchOperationCancelActivities,
    BatchOperationCancellation,
    BatchOperationDeletion,
    BatchOperationReset,
    BatchOperationSignal,
    BatchOperationTermination,
    BatchOperationUnpauseActivities,
)
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.schedule.v1 import SchedulePatch
from temporalio.api.workflow.v1 import PostResetOperation
from temporalio.api.workflowservice import v1
from temporalio.api.workflowservice.v1 import StartBatchOperationRequest
from temporalio.client import BuildIdOpAddNewDefault, Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import CancelledError, TerminatedError
from temporalio.service import RPCError, ServiceClient

from exequatur import AuthorizationDenied, Principal, acting_as
from exequatur.authoring.schema.generate import generate
from exequatur.gate.client.operations import _BATCHES, QUESTIONS
from exequatur.gate.client.service import AskingService
from exequatur.policy.told import OWN_ACTIONS
from tests.gate.conftest import PERMIT_ALL, Stage, unique
from tests.gate.single import eventually


@workflow.defn
class Waits:
    """Until it is told, or ended."""

    done = False

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.done)
        return "done"


class Counting(ServiceClient):
    """The server's service, which remembers what left for it."""

    def __init__(self, inner: ServiceClient) -> None:
        super().__init__(inner.config)
        self._inner = inner
        self.left: list[tuple[str, Message]] = []

    @property
    def worker_service_client(self) -> Any:
        return self._inner.worker_service_client

    def update_rpc_metadata(self, metadata: Any) -> None:
        self._inner.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        self._inner.update_api_key(api_key)

    async def _rpc_call(self, rpc: str, req: Message, *args: Any, **call: Any) -> Any:
        self.left.append((rpc, req))
        return await self._inner._rpc_call(rpc, req, *args, **call)


def counted(s: Stage) -> tuple[Client, Counting]:
    """A client with the plugin, and what leaves it."""
    service = Counting(s.plain.service_client)
    return Client(service, plugins=[s.plugin]), service


def forbidding(action: str, when: str = "") -> str:
    return f'{PERMIT_ALL}@id("no") forbid(principal, action == Action::"{action}", resource){when};'


def decisions(s: Stage) -> list[tuple[str, str | None, str]]:
    """What the authority was asked, for which workflow, and what it said."""
    found = [json.loads(record.body) for record in s.records("authority")]
    return [(each["action"], each["workflow_id"], each["decision"]) for each in found]


W, A = "the-workflow", "the-activity"
EXECUTION = {"workflow_execution": WorkflowExecution(workflow_id=W)}
RAW: dict[str, tuple[str, dict[str, Any]]] = {
    "request_cancel_workflow_execution": ("workflow.cancel", EXECUTION),
    "terminate_workflow_execution": ("workflow.terminate", EXECUTION),
    "delete_workflow_execution": ("workflow.delete", EXECUTION),
    "pause_workflow_execution": ("workflow.pause", {"workflow_id": W}),
    "unpause_workflow_execution": ("workflow.unpause", {"workflow_id": W}),
    "update_workflow_execution_options": ("workflow.options", EXECUTION),
    "reset_workflow_execution": ("workflow.reset", EXECUTION),
    "pause_activity": ("activity.pause", {"execution": WorkflowExecution(workflow_id=W), "id": A}),
    "unpause_activity": ("activity.unpause", {"execution": WorkflowExecution(workflow_id=W), "type": A}),
    "reset_activity": ("activity.reset", {"execution": WorkflowExecution(workflow_id=W), "match_all": True}),
    "update_activity_options": ("activity.options", {"execution": WorkflowExecution(workflow_id=W), "id": A}),
    "request_cancel_activity_execution": ("activity.cancel", {"activity_id": A}),
    "terminate_activity_execution": ("activity.terminate", {"activity_id": A}),
    "delete_activity_execution": ("activity.terminate", {"activity_id": A}),
    "pause_activity_execution": ("activity.pause", {"activity_id": A}),
    "unpause_activity_execution": ("activity.unpause", {"activity_id": A, "workflow_id": W}),
    "reset_activity_execution": ("activity.reset", {"activity_id": A}),
    "update_activity_execution_options": ("activity.options", {"activity_id": A}),
    "trigger_workflow_rule": ("activity.pause", {"execution": WorkflowExecution(workflow_id=W), "id": "rule"}),
    "create_workflow_rule": ("activity.pause", {}),
    "update_worker_build_id_compatibility": ("workflow.options", {"task_queue": "queue"}),
    "update_worker_versioning_rules": ("workflow.options", {"task_queue": "queue"}),
    "set_current_deployment": ("workflow.options", {}),
    "set_worker_deployment_current_version": ("workflow.options", {"deployment_name": "d"}),
    "set_worker_deployment_ramping_version": ("workflow.options", {"deployment_name": "d"}),
    "create_schedule": ("schedule.create", {"schedule_id": "s"}),
    "update_schedule": ("schedule.update", {"schedule_id": "s"}),
    "delete_schedule": ("schedule.delete", {"schedule_id": "s"}),
    "patch_schedule": ("schedule.pause", {"schedule_id": "s", "patch": SchedulePatch(pause="now")}),
    "start_batch_operation": (
        "workflow.terminate",
        {"executions": [WorkflowExecution(workflow_id=W)], "termination_operation": BatchOperationTermination()},
    ),
}


def request_of(rpc: str, fields: dict[str, Any]) -> Any:
    name = "".join(part.capitalize() for part in rpc.split("_")) + "Request"
    return getattr(v1, name)(namespace="default", **fields)


@pytest.mark.rule("operations.L1")
@pytest.mark.rule("operations.L2")
@pytest.mark.rule("operations.L5")
@pytest.mark.parametrize("rpc", RAW)
async def test_a_raw_call_that_is_not_permitted_does_not_leave(stage: Any, rpc: str) -> None:
    action, fields = RAW[rpc]
    s = await stage(forbidding(action))
    client, service = counted(s)
    with pytest.raises(AuthorizationDenied) as denied:
        await getattr(client.workflow_service, rpc)(request_of(rpc, fields))
    assert action in denied.value.message
    assert rpc not in [name for name, _ in service.left]
    [(asked, workflow_id, decision)] = decisions(s)
    assert (asked, decision) == (action, "deny")
    if "workflow_id" in str(fields):
        assert workflow_id == W


def test_every_question_is_one_of_the_gates_own_and_has_a_scenario() -> None:
    assert {action for action, _ in RAW.values()} <= OWN_ACTIONS
    starts = {"start_workflow_execution", "signal_with_start_workflow_execution", "execute_multi_operation"}
    assert set(QUESTIONS) - starts <= set(RAW)


@pytest.mark.parametrize("rpc", RAW)
async def test_what_is_asked_is_as_the_schema_declares_it(stage: Any, rpc: str) -> None:
    action, fields = RAW[rpc]
    s = await stage()
    s.write(generate({}).text, "schema.cedarschema")
    client, service = counted(s)
    with suppress(RPCError):  # what is not there cannot be changed
        await getattr(client.workflow_service, rpc)(request_of(rpc, fields))
    assert rpc in [name for name, _ in service.left]
    assert [(asked, decision) for asked, _, decision in decisions(s)] == [(action, "allow")]


@pytest.mark.rule("service.L7")
async def test_the_methods_of_a_client_are_asked_once_each(stage: Any) -> None:
    s = await stage()
    client, _ = counted(s)
    async with s.worker([Waits]):
        one, other = await s.start(Waits.run), await s.start(Waits.run)
        await client.get_workflow_handle(one.id).cancel(reason="enough")
        await client.get_workflow_handle(other.id).terminate("enough")
        for handle, kind in ((one, CancelledError), (other, TerminatedError)):
            with pytest.raises(WorkflowFailureError) as ended:
                await handle.result()
            assert isinstance(ended.value.cause, kind)
    assert decisions(s) == [
        ("workflow.start", one.id, "allow"),
        ("workflow.start", other.id, "allow"),
        ("workflow.cancel", one.id, "allow"),
        ("workflow.terminate", other.id, "allow"),
    ]


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_workflow_that_a_client_may_not_end_goes_on(stage: Any, how: str) -> None:
    s = await stage(forbidding(f"workflow.{how}", ' unless { principal == User::"dana" }'))
    async with s.worker([Waits]):
        handle = await s.start(Waits.run)
        with pytest.raises(AuthorizationDenied) as denied:
            await getattr(handle, how)()
        assert "policy no" in denied.value.message
        assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        with acting_as(Principal("User", "dana")):
            await getattr(handle, how)()
        with pytest.raises(WorkflowFailureError):
            await handle.result()


@pytest.mark.parametrize("how", ["cancel", "terminate", "pause", "unpause", "restore_original_options"])
async def test_an_activity_that_stands_by_itself_is_asked_for_before_it_is_changed(stage: Any, how: str) -> None:
    action = "options" if "options" in how else how
    s = await stage(forbidding(f"activity.{action}", ' when { context.activity.id == "a" }'))
    client, service = counted(s)
    with pytest.raises(AuthorizationDenied):
        await getattr(client.get_activity_handle("a"), how)()
    assert not service.left
    assert [each[0] for each in decisions(s)] == [f"activity.{action}"]


async def test_build_ids_are_asked_for_before_they_are_changed(stage: Any) -> None:
    s = await stage(forbidding("workflow.options"))
    client, service = counted(s)
    with pytest.raises(AuthorizationDenied):
        await client.update_worker_build_id_compatibility("queue", BuildIdOpAddNewDefault("1"))
    assert not service.left


@pytest.mark.rule("operations.L1")
@pytest.mark.parametrize(
    "policy",
    [
        {"id_conflict_policy": WorkflowIDConflictPolicy.TERMINATE_EXISTING},
        {"id_reuse_policy": WorkflowIDReusePolicy.TERMINATE_IF_RUNNING},
    ],
    ids=["conflict", "reuse"],
)
async def test_a_start_that_would_end_the_one_that_runs_is_asked_for_both(stage: Any, policy: dict[str, Any]) -> None:
    s = await stage(forbidding("workflow.terminate"))
    async with s.worker([Waits]):
        handle = await s.start(Waits.run)
        with pytest.raises(AuthorizationDenied):
            await s.start(Waits.run, id=handle.id, **policy)
        with pytest.raises(AuthorizationDenied):
            await s.start(Waits.run, id=handle.id, start_signal="finish", **policy)
        assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
        await s.plain.get_workflow_handle(handle.id).terminate()


@pytest.mark.rule("operations.L1")
async def test_a_reset_that_changes_options_is_asked_for_both(stage: Any) -> None:
    s = await stage(forbidding("workflow.options"))
    client, service = counted(s)
    options = PostResetOperation.UpdateWorkflowOptions()
    req = request_of("reset_workflow_execution", EXECUTION)
    req.post_reset_operations.append(PostResetOperation(update_workflow_options=options))
    with pytest.raises(AuthorizationDenied):
        await client.workflow_service.reset_workflow_execution(req)
    assert not service.left
    assert [each[::2] for each in decisions(s)] == [("workflow.reset", "allow"), ("workflow.options", "deny")]


# Batches.


def batch(job_id: str = "", **fields: Any) -> StartBatchOperationRequest:
    """A batch; the server refuses one without an id, of which it runs only one at a time."""
    return StartBatchOperationRequest(namespace="default", job_id=job_id, reason="a test", **fields)


@pytest.mark.rule("operations.L4")
async def test_a_batch_does_not_reach_a_workflow_that_may_not_be_ended(stage: Any) -> None:
    s = await stage()
    async with s.worker([Waits]):
        kept, other = await s.start(Waits.run), await s.start(Waits.run)
        permissive = s.plugin.in_force.digest
        s.write(forbidding("workflow.terminate", f' when {{ resource == Workflow::"{kept.id}" }}'))
        query = f'WorkflowId IN ("{kept.id}", "{other.id}")'

        for _ in range(1000):
            if (await s.plain.count_workflows(query)).count == 2:
                break
            await asyncio.sleep(0.05)
        await eventually(lambda: s.plugin.in_force.digest != permissive)
        client, service = counted(s)
        ending = BatchOperationTermination()
        ids = [WorkflowExecution(workflow_id=each.id) for each in (other, kept)]
        for which in ({"visibility_query": query}, {"executions": ids}):
            req = batch(**which, termination_operation=ending)
            with pytest.raises(AuthorizationDenied):
                await client.workflow_service.start_batch_operation(req)
        assert "start_batch_operation" not in [name for name, _ in service.left]
        permitted = batch(unique("job"), executions=ids[:1], termination_operation=ending)
        await client.workflow_service.start_batch_operation(permitted)
        with pytest.raises(WorkflowFailureError):
            await other.result()
        assert (await kept.describe()).status == WorkflowExecutionStatus.RUNNING
        await s.plain.get_workflow_handle(kept.id).terminate()


@pytest.mark.rule("operations.L4")
@pytest.mark.parametrize(
    ("operation", "actions"),
    [
        ({"cancellation_operation": BatchOperationCancellation()}, ["workflow.cancel"]),
        ({"deletion_operation": BatchOperationDeletion()}, ["workflow.delete"]),
        ({"reset_operation": BatchOperationReset()}, ["workflow.reset"]),
        (
            {
                "reset_operation": BatchOperationReset(
                    post_reset_operations=[
                        PostResetOperation(update_workflow_options=PostResetOperation.UpdateWorkflowOptions())
                    ]
                )
            },
            ["workflow.reset", "workflow.options"],
        ),
        ({"unpause_activities_operation": BatchOperationUnpauseActivities(type="act")}, ["activity.unpause"]),
        ({"cancel_activities_operation": BatchOperationCancelActivities()}, ["activity.cancel"]),
        ({"signal_operation": BatchOperationSignal(signal="finish")}, []),
        ({}, ["workflow.terminate"]),
    ],
)
async def test_a_batch_by_query_is_asked_for_nothing_in_particular_first(
    stage: Any, operation: dict[str, Any], actions: list[str]
) -> None:
    s = await stage()
    client, _ = counted(s)
    with suppress(RPCError):
        await client.workflow_service.start_batch_operation(batch(visibility_query='WorkflowId="nobody"', **operation))
    assert decisions(s) == [(action, None, "allow") for action in actions]


def test_every_batch_that_the_server_knows_is_known_here() -> None:
    fields = StartBatchOperationRequest.DESCRIPTOR.oneofs_by_name["operation"].fields
    assert {field.name for field in fields} == set(_BATCHES)


# What stays as it was.


@pytest.mark.rule("service.L6")
async def test_what_was_asked_is_what_is_sent(stage: Any) -> None:
    s = await stage()
    client, service = counted(s)
    req = request_of("terminate_workflow_execution", {"workflow_execution": WorkflowExecution(workflow_id=unique())})
    asked_for = req.workflow_execution.workflow_id
    call = asyncio.ensure_future(client.workflow_service.terminate_workflow_execution(req))
    await asyncio.sleep(0)
    req.workflow_execution.workflow_id = "another"
    with pytest.raises(RPCError):
        await call
    [(_, sent)] = service.left
    assert sent.workflow_execution.workflow_id == asked_for  # type: ignore[attr-defined]
    assert decisions(s) == [("workflow.terminate", asked_for, "allow")]


async def test_a_client_without_the_plugin_on_the_same_service_is_not_asked(stage: Any) -> None:
    s = await stage(forbidding("workflow.terminate"))
    plain = Client(s.plain.service_client)
    gated = Client(s.plain.service_client, plugins=[s.plugin])
    assert isinstance(gated.service_client, AskingService)
    assert gated.service_client.inner is s.plain.service_client
    with pytest.raises(AuthorizationDenied):
        await gated.get_workflow_handle("w").terminate()
    with pytest.raises(RPCError):
        await plain.get_workflow_handle(unique()).terminate()


@pytest.mark.rule("service.L7")
async def test_a_client_that_is_made_from_another_is_asked_once(stage: Any) -> None:
    s = await stage()
    again = Client(s.client.service_client, plugins=[s.plugin])
    assert again.service_client is s.client.service_client
    copied = Client(**s.client.config())
    with pytest.raises(RPCError):
        await copied.get_workflow_handle(unique()).terminate()
    assert len(decisions(s)) == 1


async def test_metadata_and_api_key_reach_the_service_that_the_user_gave(stage: Any) -> None:
    s = await stage()
    client, service = counted(s)
    client.rpc_metadata = {"a": "b"}
    assert service.config.rpc_metadata == {"a": "b"}
    assert client.rpc_metadata == {"a": "b"}
    assert await client.service_client.check_health()
    assert client.identity == s.plain.identity


async def test_without_a_principal_nothing_is_ended(stage: Any) -> None:
    s = await stage(principal=None)
    client, service = counted(s)
    with pytest.raises(AuthorizationDenied) as denied:
        await client.get_workflow_handle("w").terminate()
    assert "acting_as" in denied.value.message
    assert not service.left


async def test_a_service_that_is_none_is_said_to_be_unasked(stage: Any, caplog: Any) -> None:
    s = await stage()
    service = SimpleNamespace()
    config: Any = {"service_client": service, "data_converter": DataConverter.default}
    assert s.plugin.configure_client(config)["service_client"] is service
    assert "SimpleNamespace is no ServiceClient, so calls that go straight to the server are not asked" in caplog.text
