"""Nexus operations pass the handler's gate: on whose behalf, by which policies, and what never runs."""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import nexusrpc
import nexusrpc.handler
import pytest
import temporalio.nexus
import temporalio.worker
from google.protobuf.duration_pb2 import Duration
from temporalio import activity, workflow
from temporalio.api.nexus.v1 import EndpointSpec, EndpointTarget
from temporalio.api.operatorservice.v1 import CreateNexusEndpointRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, NexusOperationFailureError, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, NexusOperationError
from temporalio.service import RPCError
from temporalio.worker import Replayer

from exequatur import Principal, acting_as
from exequatur.gate.wire import MAX_NEXUS_BYTES, NEXUS_HEADER, START_HEADER, nexus_headers, read_nexus_headers
from exequatur.identity.acting import acting_now
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import NexusCall
from exequatur.workflow import restricted
from tests.gate.conftest import (
    BOT,
    PERMIT_ALL,
    Stage,
    events,
    failure_of,
    headed,
    sandbox,
    start_headers,
    unique,
)
from tests.gate.single import eventually
from tests.simulator import bend

DENY_NOTES = PERMIT_ALL + (
    '@id("no-notes") @reason("notes are closed") forbid(principal, action == Action::"nexus.start", resource)\n'
    'when { context.nexus.operation == "note" };\n'
)
OPERATION = 'action == Action::"nexus.start"'

_handled: dict[str, list[Any]] = defaultdict(list)
_failures: dict[str, int] = defaultdict(int)


def handled(key: str) -> list[Any]:
    """What handlers did with this input: proof that one ran."""
    return list(_handled[key])


@activity.defn
async def charge(key: str) -> str:
    _handled[key].append("charged")
    return key


@workflow.defn
class Case:
    """What an operation starts."""

    def __init__(self) -> None:
        self.open = True

    @workflow.run
    async def run(self, key: str, wait: bool) -> str:
        await workflow.execute_activity(charge, key, start_to_close_timeout=timedelta(seconds=10))
        if wait:
            await workflow.wait_condition(lambda: not self.open)
        return "closed"

    @workflow.signal
    def close(self) -> None:
        self.open = False


@nexusrpc.handler.service_handler(name="front.desk")
class Desk:
    @nexusrpc.handler.sync_operation
    async def note(self, ctx: nexusrpc.handler.StartOperationContext, key: str) -> str:
        _handled[key].append(str(acting_now()))
        return key

    @nexusrpc.handler.sync_operation
    def note_in_a_thread(self, ctx: nexusrpc.handler.StartOperationContext, key: str) -> str:
        _handled[key].append(str(acting_now()))
        return key

    @nexusrpc.handler.sync_operation
    async def nothing(self, ctx: nexusrpc.handler.StartOperationContext, nothing: None) -> str:
        return repr(nothing)

    @nexusrpc.handler.sync_operation
    async def headers(self, ctx: nexusrpc.handler.StartOperationContext, key: str) -> list[str]:
        return sorted(ctx.headers)

    @nexusrpc.handler.sync_operation
    async def flaky(self, ctx: nexusrpc.handler.StartOperationContext, key: str) -> str:
        _handled[key].append(ctx.request_id)
        if len(_handled[key]) < 3:
            raise nexusrpc.HandlerError("not yet", type=nexusrpc.HandlerErrorType.UNAVAILABLE)
        return key

    @nexusrpc.handler.sync_operation
    async def tell(self, ctx: nexusrpc.handler.StartOperationContext, workflow_id: str) -> str:
        await temporalio.nexus.client().get_workflow_handle(workflow_id).signal(Case.close)
        return "told"

    @temporalio.nexus.workflow_run_operation
    async def open_case(
        self, ctx: temporalio.nexus.WorkflowRunOperationContext, key: str
    ) -> temporalio.nexus.WorkflowHandle[str]:
        return await ctx.start_workflow(Case.run, args=[key, False], id=f"case-{key}")

    @temporalio.nexus.workflow_run_operation
    async def keep_case(
        self, ctx: temporalio.nexus.WorkflowRunOperationContext, key: str
    ) -> temporalio.nexus.WorkflowHandle[str]:
        return await ctx.start_workflow(Case.run, args=[key, True], id=f"case-{key}")


@workflow.defn
class Caller:
    @workflow.run
    async def run(self, endpoint: str, operation: str, key: str | None) -> Any:
        desk = workflow.create_nexus_client(service="front.desk", endpoint=endpoint)
        return await desk.execute_operation(
            operation, key, schedule_to_close_timeout=timedelta(seconds=15), headers={"X-Own": "mine"}
        )


@workflow.defn
class Canceller:
    @workflow.run
    async def run(self, endpoint: str, key: str) -> str:
        desk = workflow.create_nexus_client(service="front.desk", endpoint=endpoint)
        operation = await desk.start_operation("keep_case", key, schedule_to_close_timeout=timedelta(seconds=15))
        operation.cancel()
        try:
            return str(await operation)
        except NexusOperationError as err:
            return type(err.cause).__name__


@workflow.defn
class Twice:
    """Calls once, waits to be told, and calls again."""

    def __init__(self) -> None:
        self.told = False

    @workflow.run
    async def run(self, endpoint: str, key: str, again: str, operation: str) -> None:
        desk = workflow.create_nexus_client(service="front.desk", endpoint=endpoint)
        await desk.execute_operation("note", key)
        await workflow.wait_condition(lambda: self.told)
        await desk.execute_operation(operation, again)

    @workflow.signal
    def go_on(self) -> None:
        self.told = True


@workflow.defn
class Held:
    @workflow.run
    async def run(self, endpoint: str, key: str, activities: list[str] | None, forbid: str | None) -> str:
        desk = workflow.create_nexus_client(service="front.desk", endpoint=endpoint)
        with restricted(activities=activities, forbid=forbid):
            return str(await desk.execute_operation("note", key))


@workflow.defn
class Parent:
    @workflow.run
    async def run(self, endpoint: str, operation: str, key: str, depth: int) -> Any:
        if depth:
            return await workflow.execute_child_workflow(Parent.run, args=[endpoint, operation, key, depth - 1])
        desk = workflow.create_nexus_client(service="front.desk", endpoint=endpoint)
        return await desk.execute_operation(operation, key)


@workflow.defn
class Opener:
    """Starts a case with a signal, by the system's own Nexus endpoint."""

    @workflow.run
    async def run(self, key: str, queue: str) -> str:
        case = await workflow.signal_with_start_workflow(
            Case.run, args=[key, True], id=f"case-{key}", task_queue=queue, signal=Case.close
        )
        return case.id


WORKFLOWS = (Opener, Caller, Canceller, Case, Twice, Held, Parent)


async def endpoint_for(stage: Stage, namespace: str = "default", queue: str | None = None) -> str:
    name = unique("desk")
    await stage.plain.operator_service.create_nexus_endpoint(
        CreateNexusEndpointRequest(
            spec=EndpointSpec(
                name=name,
                target=EndpointTarget(
                    worker=EndpointTarget.Worker(namespace=namespace, task_queue=queue or stage.queue)
                ),
            )
        )
    )
    return name


def serving(stage: Stage) -> dict[str, Any]:
    return {
        "nexus_service_handlers": [Desk()],
        "nexus_task_executor": stage.executor,
        "max_concurrent_nexus_tasks": 20,
    }


@asynccontextmanager
async def desk(stage: Stage, **options: Any) -> Any:
    """A worker that handles the operations and runs the workflows."""
    async with stage.worker(
        WORKFLOWS,
        [charge],
        **serving(stage),
        **options,
    ):
        yield await endpoint_for(stage)


async def refusal_of(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    """The failure that the caller's workflow ends with: its cause says which."""
    with pytest.raises(WorkflowFailureError) as raised:
        await handle.result()
    return innermost(raised.value)


def innermost(error: BaseException) -> ApplicationError:
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, ApplicationError), repr(error)
    return error


async def tried_in_vain(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether an operation of the run has failed for uncertainty, and waits to be tried again."""
    for _ in range(300):
        if "AuthorizationUnavailable" in str((await handle.describe()).raw_description):
            return True
        await asyncio.sleep(0.05)
    return False


async def call_headers(handle: WorkflowHandle[Any, Any]) -> list[dict[str, str]]:
    """The headers of a run's operations."""
    return [
        dict(event.nexus_operation_scheduled_event_attributes.nexus_header)
        for event in await events(handle)
        if event.HasField("nexus_operation_scheduled_event_attributes")
    ]


def decisions(stage: Stage) -> list[dict[str, Any]]:
    return [strict_json(record.body) for record in stage.records("nexus")]


class Headers(temporalio.worker.Interceptor):
    """A workflow worker without the gate that puts headers of its own on every operation."""

    def __init__(self, headers: Mapping[str, str], skip: int = 0) -> None:
        outer = self
        self.calls = 0

        class Outbound(temporalio.worker.WorkflowOutboundInterceptor):
            async def start_nexus_operation(self, input: Any) -> Any:
                input.headers = {**(input.headers or {}), **headers}
                outer.calls += 1
                return await super().start_nexus_operation(input)

        class Inbound(temporalio.worker.WorkflowInboundInterceptor):
            def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        self._inbound = Inbound

    def workflow_interceptor_class(self, input: Any) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        return self._inbound


@pytest.mark.parametrize("operation", ["note", "note_in_a_thread"])
@pytest.mark.rule("N48")
@pytest.mark.rule("N51")
async def test_an_operation_runs_on_behalf_of_the_callers_principal_and_is_recorded_first(
    stage: Any, operation: str
) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        handle = await here.start(Caller.run, endpoint, operation, key)
        assert await handle.result() == key
    assert handled(key) == [str(BOT)]
    [decided] = decisions(here)
    assert decided["decision"] == "allow"
    assert decided["action"] == "nexus.start"
    assert decided["enforced"] is True
    assert decided["principal"] == str(BOT)
    assert decided["workflow_id"] == handle.id
    assert decided["policies"] == ["all"]
    facts = strict_json(decided["facts"])
    assert facts["run"] == {"namespace": "default", "workflow_id": handle.id, "workflow_type": "Caller"}
    assert facts["nexus"] == {"endpoint": endpoint, "service": "front.desk", "operation": operation}
    [headers] = await call_headers(handle)
    call = parse((read_nexus_headers(headers) or [])[-1], NexusCall)
    assert decided["statement"] == call.digest


@pytest.mark.rule("N47")
@pytest.mark.rule("N48")
async def test_a_denied_operation_never_runs_and_the_workflow_reads_that_it_was_denied(stage: Any) -> None:
    here, key = await stage(DENY_NOTES), unique()
    async with desk(here) as endpoint:
        error = await refusal_of(await here.start(Caller.run, endpoint, "note", key))
    assert error.type == "AuthorizationDenied"
    assert "notes are closed" in error.message
    assert str(BOT) in error.message
    assert handled(key) == []
    [decided] = decisions(here)
    assert (decided["decision"], decided["policies"]) == ("deny", ["no-notes"])


async def test_without_a_policy_that_permits_it_no_operation_runs(stage: Any) -> None:
    here, key = await stage('permit(principal, action == Action::"workflow.start", resource);'), unique()
    async with desk(here) as endpoint:
        error = await refusal_of(await here.start(Caller.run, endpoint, "note", key))
    assert error.type == "AuthorizationDenied"
    assert "no policy permits the action nexus.start" in error.message
    assert handled(key) == []


async def test_an_operation_without_an_input_is_bound_to_that(stage: Any) -> None:
    here = await stage()
    async with desk(here) as endpoint:
        assert await (await here.start(Caller.run, endpoint, "nothing", None)).result() == "None"


async def test_a_workflow_that_an_operation_starts_acts_for_the_callers_principal(stage: Any) -> None:
    here, key = await stage(principal=None), unique()
    alice = Principal("User", "alice", {"team": "claims"}, ('Role::"clerk"',))
    async with desk(here) as endpoint:
        with acting_as(alice):
            handle = await here.start(Caller.run, endpoint, "open_case", key)
        assert await handle.result() == "closed"
    assert handled(key) == ["charged"]
    acted = [strict_json(record.body) for record in here.records("decision")]
    assert [each["principal"] for each in acted] == [str(alice)]
    assert acted[0]["vouched"] == {"attributes": {"team": "claims"}, "parents": ['Role::"clerk"']}


@pytest.mark.rule("N51")
async def test_a_workflow_that_an_operation_starts_acts_through_whom_its_caller_does(stage: Any) -> None:
    here, key = await stage(principal=None), unique()
    async with desk(here) as endpoint:
        with acting_as(Principal("User", "alice"), through=['Agent::"bot"']):
            handle = await here.start(Caller.run, endpoint, "open_case", key)
        assert await handle.result() == "closed"
    told = {"by": 'Agent::"bot"', "chain": ['Agent::"bot"']}
    kinds = ("decision", "authority", "nexus")
    facts = [strict_json(strict_json(record.body)["facts"]) for kind in kinds for record in here.records(kind)]
    assert len(facts) == 4
    assert [each["acting"] for each in facts] == [told] * 4


async def test_a_workflow_that_the_callers_principal_may_not_start_is_not_started_by_an_operation(stage: Any) -> None:
    policies = PERMIT_ALL + (
        '@id("no-cases") forbid(principal, action == Action::"workflow.start", resource)\n'
        'when { context.run.workflow_type == "Case" };\n'
    )
    here, key = await stage(policies), unique()
    async with desk(here) as endpoint:
        error = await refusal_of(await here.start(Caller.run, endpoint, "open_case", key))
    assert error.type == "AuthorizationDenied"
    with pytest.raises(RPCError):
        await here.plain.get_workflow_handle(f"case-{key}").describe()


async def test_a_signal_from_an_operation_is_sent_for_the_callers_principal(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        case = await here.start(Case.run, key, True)
        with acting_as(Principal("User", "alice")):
            assert await (await here.start(Caller.run, endpoint, "tell", case.id)).result() == "told"
        assert await case.result() == "closed"
    asked = [strict_json(record.body) for record in here.records("authority")]
    [signal] = [each for each in asked if each["action"] == "workflow.signal"]
    assert signal["principal"] == 'User::"alice"'


async def test_an_operation_is_cancelled_where_policies_permit_it(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        assert await (await here.start(Canceller.run, endpoint, key)).result() == "CancelledError"
    cancelled = decisions(here)[-1]
    assert (cancelled["action"], cancelled["decision"]) == ("nexus.cancel", "allow")
    assert cancelled["token"] is not None


@pytest.mark.rule("N47")
async def test_an_operation_that_may_not_be_cancelled_goes_on(stage: Any) -> None:
    policies = PERMIT_ALL + '@id("no-cancels") forbid(principal, action == Action::"nexus.cancel", resource);\n'
    here, key = await stage(policies), unique()
    async with desk(here) as endpoint:
        handle = await here.start(Canceller.run, endpoint, key)
        await eventually(lambda: [each for each in decisions(here) if each["action"] == "nexus.cancel"])
        case = here.client.get_workflow_handle(f"case-{key}")
        assert (await case.describe()).status is not None
        await case.signal(Case.close)
        assert await handle.result() == "closed"
    assert decisions(here)[-1]["policies"] == ["no-cancels"]


@pytest.mark.rule("N42")
async def test_an_operation_that_a_worker_without_the_gate_calls_is_refused(stage: Any) -> None:
    here, key, elsewhere = await stage(allow_ungoverned=("Caller",)), unique(), unique("plain")
    async with (
        desk(here) as endpoint,
        here.worker([Caller], client=here.plain, queue=elsewhere),
    ):
        error = await refusal_of(
            await here.start(Caller.run, endpoint, "note", key, client=here.plain, task_queue=elsewhere)
        )
    assert error.type == "GrantRejected"
    assert "called without a grant" in error.message
    assert handled(key) == []
    assert [each["decision"] for each in decisions(here)] == ["none"]


@pytest.mark.rule("N42")
async def test_an_operation_of_an_ungoverned_run_is_refused_also_from_a_worker_with_the_gate(stage: Any) -> None:
    here, key = await stage(allow_ungoverned=("Caller",)), unique()
    async with desk(here) as endpoint:
        error = await refusal_of(await here.start(Caller.run, endpoint, "note", key, client=here.plain))
    assert error.type == "GrantRejected"
    assert handled(key) == []


async def test_an_ungoverned_caller_is_let_through_and_reported_where_operations_are_only_observed(stage: Any) -> None:
    here, key = await stage(mode="observe"), unique()
    async with desk(here) as endpoint:
        handle = await here.start(Caller.run, endpoint, "note", key, client=here.plain)
        assert await handle.result() == key
    assert handled(key) == ["None"]
    assert [(each["decision"], each["enforced"]) for each in decisions(here)] == [("none", False)]


@pytest.mark.rule("N43")
async def test_a_header_that_another_workflow_copied_is_refused(stage: Any) -> None:
    here, key, elsewhere = await stage(), unique(), unique("thief")
    async with desk(here) as endpoint:
        honest = await here.start(Caller.run, endpoint, "note", key)
        await honest.result()
        [headers] = await call_headers(honest)
        thief = Headers({NEXUS_HEADER: headers[NEXUS_HEADER]})
        async with here.worker([Caller], client=here.plain, queue=elsewhere, interceptors=[thief]):
            error = await refusal_of(
                await here.start(Caller.run, endpoint, "note", key, client=here.plain, task_queue=elsewhere)
            )
    assert error.type == "GrantRejected"
    assert "[N28]" in error.message
    assert handled(key) == [str(BOT)]


@pytest.mark.parametrize(
    ("again", "operation", "why"),
    [
        (None, "note", "already used to start another operation"),
        ("other", "note", "[N27]"),
        (None, "note_in_a_thread", "[N26]"),
    ],
)
@pytest.mark.rule("N49")
async def test_a_header_does_not_serve_a_second_operation_of_the_same_run(
    stage: Any, again: str | None, operation: str, why: str
) -> None:
    here, key = await stage(), unique()
    second = key if again is None else unique()
    async with here.worker([], [], queue=f"{here.queue}-desk", **serving(here)):
        endpoint = await endpoint_for(here, queue=f"{here.queue}-desk")
        async with here.worker([Twice]):
            handle = await here.start(Twice.run, endpoint, key, second, operation)
            await eventually(lambda: handled(key))
            headers = await call_headers(handle)
        stolen = Headers({NEXUS_HEADER: headers[0][NEXUS_HEADER]})
        async with here.worker([Twice], client=here.plain, interceptors=[stolen]):
            await handle.signal(Twice.go_on)
            error = await refusal_of(handle)
    assert error.type == "GrantRejected"
    assert why in error.message
    assert handled(key) == [str(BOT)]
    assert again is None or handled(second) == []


async def test_a_header_that_was_tampered_with_is_refused(stage: Any) -> None:
    here, key, elsewhere = await stage(), unique(), unique("thief")
    async with desk(here) as endpoint:
        honest = await here.start(Caller.run, endpoint, "note", key)
        await honest.result()
        [headers] = await call_headers(honest)
        *chain, call = read_nexus_headers(headers) or []
        workflow_id = unique()
        bent = bend(call, SigningKey.generate(), workflow_id=workflow_id)
        thief = Headers(nexus_headers({}, [*chain, bent]))
        async with here.worker([Caller], client=here.plain, queue=elsewhere, interceptors=[thief]):
            error = await refusal_of(
                await here.start(
                    Caller.run, endpoint, "note", key, client=here.plain, task_queue=elsewhere, id=workflow_id
                )
            )
    assert error.type == "GrantRejected"
    assert "[C4]" in error.message
    assert len(handled(key)) == 1


@pytest.mark.parametrize("header", ["", "no-base64url!", "AQ", "A" * 4000, "!99999"])
@pytest.mark.rule("N43")
async def test_a_header_that_is_none_is_refused(stage: Any, header: str) -> None:
    here, key, elsewhere = await stage(), unique(), unique("thief")
    async with (
        desk(here) as endpoint,
        here.worker([Caller], client=here.plain, queue=elsewhere, interceptors=[Headers({NEXUS_HEADER: header})]),
    ):
        error = await refusal_of(
            await here.start(Caller.run, endpoint, "note", key, client=here.plain, task_queue=elsewhere)
        )
    assert error.type == "GrantRejected"
    assert handled(key) == []


async def test_what_the_server_tries_again_runs_again(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        assert await (await here.start(Caller.run, endpoint, "flaky", key)).result() == key
    requests = handled(key)
    assert len(requests) == 3
    assert len(set(requests)) == 1
    assert [each["decision"] for each in decisions(here)] == ["allow"] * 3


@pytest.mark.rule("N41")
async def test_what_cannot_be_decided_is_tried_again_until_it_can(stage: Any) -> None:
    here = await stage()
    there = await stage(state=here.state, unavailable_wait="0s")
    key = unique()
    async with here.worker([Caller]), there.worker([], [], **serving(there)):
        endpoint = await endpoint_for(there)
        there.plugin.gate.clock = lambda: 0.0
        handle = await here.start(Caller.run, endpoint, "note", key)
        assert await tried_in_vain(handle)
        assert handled(key) == []
        there.plugin.gate.clock = time.time
        assert await handle.result() == key
    assert handled(key) == [str(BOT)]


@pytest.mark.rule("N45")
@pytest.mark.parametrize("revoked", [{"activity": "nexus:front.desk/note"}, {"principal": 'Service::"post"'}], ids=str)
async def test_a_revoked_operation_is_not_started_any_more_nor_one_whose_actor_is_revoked(
    stage: Any, revoked: dict[str, str]
) -> None:
    here, key, second = await stage(), unique(), unique()
    async with desk(here) as endpoint:
        with acting_as(BOT, through=['Agent::"clerk"', 'Service::"post"']):
            handle = await here.start(Twice.run, endpoint, key, second, "note")
        await eventually(lambda: handled(key))
        here.plugin.revoke(**revoked, reason="the desk is closed")
        await handle.signal(Twice.go_on)
        error = await refusal_of(handle)
    assert error.type == "GrantRejected"
    assert "the desk is closed" in error.message
    assert handled(second) == []


@pytest.mark.rule("N52")
async def test_a_second_execution_under_a_copied_grant_calls_nothing(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        honest = await here.start(Caller.run, endpoint, "note", key)
        await honest.result()
        thief = await here.start_with(await start_headers(honest), Caller.run, endpoint, "note", key, id=honest.id)
        error = await refusal_of(thief)
    assert error.type == "GrantRejected"
    assert "another execution" in error.message
    assert handled(key) == [str(BOT)]


@pytest.mark.rule("N43")
async def test_a_grant_that_has_not_begun_calls_nothing(stage: Any) -> None:
    here, key, workflow_id, later = await stage(), unique(), unique(), time.time() + 1000
    async with desk(here) as endpoint:
        args = (endpoint, "note", key)
        grant = await here.grant("Caller", workflow_id, *args, nbf=later, exp=later + 1000)
        error = await refusal_of(await here.start_with(headed(grant), Caller.run, *args, id=workflow_id))
    assert error.type == "GrantRejected"
    assert "[N31]" in error.message
    assert handled(key) == []


@pytest.mark.rule("N50")
async def test_a_policy_that_changes_while_the_decision_is_being_written_decides(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, stricter, key = await stage(), await stage(DENY_NOTES), unique()
    gate = here.plugin.gate
    async with desk(here) as endpoint:
        await eventually(lambda: gate.journal is not None)
        journal = gate.require_journal()
        append = journal.append

        async def written_while_the_policy_changes(kind: str, body: bytes) -> Any:
            entry = await append(kind, body)
            if kind == "nexus":
                monkeypatch.undo()
                gate.put_in_force(stricter.plugin.gate.policy.bundle)
            return entry

        monkeypatch.setattr(journal, "append", written_while_the_policy_changes)
        error = await refusal_of(await here.start(Caller.run, endpoint, "note", key))
    assert error.type == "AuthorizationDenied"
    assert handled(key) == []
    assert [each["decision"] for each in decisions(here)] == ["allow", "deny"]


@pytest.mark.rule("N51")
async def test_the_handler_and_its_interceptors_see_the_headers_without_ours(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        seen = await (await here.start(Caller.run, endpoint, "headers", key)).result()
    assert "x-own" in seen
    assert not [name for name in seen if "exequatur" in name]


@pytest.mark.parametrize("depth", [0, 2])
async def test_a_call_replays_with_and_without_the_gate(stage: Any, depth: int) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        handle = await here.start(Parent.run, endpoint, "note", key, depth)
        assert await handle.result() == key
    history = await handle.fetch_history()
    for plugins in ([here.plugin], []):
        replayer = Replayer(workflows=[Parent], plugins=plugins, workflow_runner=sandbox())
        await replayer.replay_workflow(history)


@pytest.mark.rule("N46")
async def test_a_child_calls_under_its_delegation_where_children_may_act(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        assert await (await here.start(Parent.run, endpoint, "note", key, 3)).result() == key
        here.write(PERMIT_ALL + '@id("no-children") forbid(principal, action == Action::"workflow.child", resource);')
        await eventually(lambda: here.plugin.gate.policy.sequence > 1)
        second = unique()
        error = await refusal_of(await here.start(Parent.run, endpoint, "note", second, 1))
    assert error.type == "AuthorizationDenied"
    assert "no-children" in error.message
    assert (handled(key), handled(second)) == ([str(BOT)], [])


@pytest.mark.parametrize(
    ("activities", "forbid", "allowed"),
    [
        (["nexus:front.desk/note"], None, True),
        (["charge"], None, False),
        (None, f"forbid(principal, {OPERATION}, resource);", False),
        (None, 'forbid(principal, action == Action::"nexus.cancel", resource);', True),
    ],
)
@pytest.mark.rule("N44")
@pytest.mark.rule("N47")
async def test_a_restriction_holds_for_operations_too(
    stage: Any, activities: list[str] | None, forbid: str | None, allowed: bool
) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        handle = await here.start(Held.run, endpoint, key, activities, forbid)
        if allowed:
            assert await handle.result() == key
        else:
            assert (await refusal_of(handle)).type == "AuthorizationDenied"
    assert handled(key) == ([str(BOT)] if allowed else [])


async def test_statements_that_do_not_fit_fail_the_operation_and_not_the_workflow_task(stage: Any) -> None:
    here, key = await stage(), unique()
    attributes = {f"claim{number}": secrets.token_urlsafe(24) for number in range(220)}
    async with desk(here) as endpoint:
        with acting_as(Principal("Agent", "ops-bot", attributes)):
            handle = await here.start(Caller.run, endpoint, "note", key)
        error = await refusal_of(handle)
    assert error.type == "GrantRejected"
    assert f"do not fit into the {MAX_NEXUS_BYTES} bytes" in error.message
    assert handled(key) == []
    replayer = Replayer(workflows=[Caller], plugins=[here.plugin], workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


@pytest.mark.rule("X1")
async def test_a_run_whose_start_header_cannot_be_read_calls_nothing(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        honest = await here.start(Caller.run, endpoint, "note", key)
        await honest.result()
        headers = await start_headers(honest)
        headers[START_HEADER].data = b'"nonsense"'
        second = unique()
        error = await refusal_of(await here.start_with(headers, Caller.run, endpoint, "note", second))
    assert error.type == "GrantRejected"
    assert handled(second) == []


async def test_a_grant_that_another_workflow_took_calls_nothing(stage: Any) -> None:
    here, key, second = await stage(), unique(), unique()
    async with desk(here) as endpoint:
        honest = await here.start(Caller.run, endpoint, "note", key)
        await honest.result()
        error = await refusal_of(
            await here.start_with(await start_headers(honest), Caller.run, endpoint, "note", second)
        )
    assert error.type == "GrantRejected"
    assert handled(second) == []


async def test_a_handler_in_another_namespace_serves_whom_policies_permit(stage: Any, target: str) -> None:
    policies = PERMIT_ALL + (
        f'@id("strangers") forbid(principal, {OPERATION}, resource)\n'
        'when { context.run.namespace == "default" && context.nexus.operation == "note_in_a_thread" };\n'
    )
    here, key, second = await stage(policies), unique(), unique()
    namespace = unique("ns")
    await here.plain.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=Duration(seconds=86_400))
    )
    other = await _connected(here, target, namespace)
    async with (
        here.worker(WORKFLOWS, [charge]),
        here.worker([], [], client=other, **serving(here), queue="far-desk"),
    ):
        endpoint = await endpoint_for(here, namespace, "far-desk")
        assert await (await here.start(Caller.run, endpoint, "note", key)).result() == key
        error = await refusal_of(await here.start(Caller.run, endpoint, "note_in_a_thread", second))
    assert error.type == "AuthorizationDenied"
    assert "strangers" in error.message
    assert (handled(key), handled(second)) == ([str(BOT)], [])
    assert {each["handler"]["namespace"] for each in decisions(here)} == {namespace}


async def _connected(stage: Stage, target: str, namespace: str) -> Client:
    client = await Client.connect(target, namespace=namespace, plugins=[stage.plugin])
    while True:
        try:
            await client.count_workflows()
        except RPCError:
            await asyncio.sleep(0.1)
        else:
            return client


async def test_an_authority_of_another_site_is_not_believed(stage: Any) -> None:
    here = await stage()
    there = await stage(state=here.state, cluster="elsewhere")
    key = unique()
    async with (
        here.worker([Caller]),
        there.worker([], [], **serving(here)),
    ):
        endpoint = await endpoint_for(there)
        error = await refusal_of(await here.start(Caller.run, endpoint, "note", key))
    assert error.type == "GrantRejected"
    assert "[N22]" in error.message
    assert handled(key) == []


async def test_a_workflow_that_is_started_with_a_signal_acts_under_a_delegation(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here):
        handle = await here.start(Opener.run, key, here.queue)
        case = here.client.get_workflow_handle(await handle.result())
        assert await case.result() == "closed"
    assert handled(key) == ["charged"]
    [acted] = [strict_json(record.body) for record in here.records("decision")]
    assert (acted["principal"], acted["decision"]) == (str(BOT), "allow")
    replayer = Replayer(workflows=[Opener, Case], plugins=[here.plugin], workflow_runner=sandbox())
    for each in (handle, case):
        await replayer.replay_workflow(await each.fetch_history())


async def test_a_delegation_for_a_start_with_a_signal_serves_no_other_workflow(stage: Any) -> None:
    here, key, second = await stage(), unique(), unique()
    async with desk(here):
        handle = await here.start(Opener.run, key, here.queue)
        case = here.client.get_workflow_handle(await handle.result())
        await case.result()
        error = await failure_of(await here.start_with(await start_headers(case), Case.run, second, False))
    assert error.type == "GrantRejected"
    assert handled(second) == []


# Operations that stand by themselves.


async def test_a_client_starts_an_operation_with_a_permit(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        client = here.client.create_nexus_client("front.desk", endpoint)
        assert await client.execute_operation("note", key, id=unique(), schedule_to_close_timeout=_SHORT) == key
    assert handled(key) == [str(BOT)]
    [decided] = decisions(here)
    assert decided["workflow_id"].startswith("standalone/")
    assert strict_json(decided["facts"])["run"] == {"namespace": "default", "workflow_id": "", "workflow_type": ""}


async def test_a_client_that_may_not_start_an_operation_sends_nothing(stage: Any) -> None:
    here, key, operation_id = await stage(DENY_NOTES), unique(), unique()
    async with desk(here) as endpoint:
        client = here.client.create_nexus_client("front.desk", endpoint)
        with pytest.raises(ApplicationError, match="notes are closed"):
            await client.start_operation("note", key, id=operation_id, schedule_to_close_timeout=_SHORT)
        with pytest.raises(RPCError):
            await here.plain.get_nexus_operation_handle(operation_id).describe()
    assert handled(key) == []
    assert decisions(here) == []


async def test_an_operation_that_a_client_without_the_gate_starts_is_refused(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        client = here.plain.create_nexus_client("front.desk", endpoint)
        with pytest.raises(NexusOperationFailureError) as raised:
            await client.execute_operation("note", key, id=unique(), schedule_to_close_timeout=_SHORT)
    assert innermost(raised.value).type == "GrantRejected"
    assert handled(key) == []


async def test_a_permit_does_not_serve_another_operation_id(stage: Any) -> None:
    here, key = await stage(), unique()
    async with desk(here) as endpoint:
        client = here.client.create_nexus_client("front.desk", endpoint)
        handle = await client.start_operation("note", key, id=unique(), schedule_to_close_timeout=_SHORT)
        await handle.result()
        header = (await handle.describe()).raw_description.nexus_header[NEXUS_HEADER]
        plain = here.plain.create_nexus_client("front.desk", endpoint)
        with pytest.raises(NexusOperationFailureError) as raised:
            await plain.execute_operation(
                "note", key, id=unique(), schedule_to_close_timeout=_SHORT, headers={NEXUS_HEADER: header}
            )
    assert "[N28]" in innermost(raised.value).message
    assert len(handled(key)) == 1


@pytest.mark.parametrize("end", ["cancel", "terminate"])
@pytest.mark.rule("service.L8")
async def test_an_operation_is_ended_by_a_client_only_where_policies_permit_it(stage: Any, end: str) -> None:
    policies = PERMIT_ALL + (
        '@id("kept") forbid(principal, action == Action::"nexus.cancel", resource)\n'
        'when { context.nexus.service == "front.desk" };\n'
    )
    here, key = await stage(policies), unique()
    async with desk(here) as endpoint:
        client = here.client.create_nexus_client("front.desk", endpoint)
        handle = await client.start_operation("keep_case", key, id=unique(), schedule_to_close_timeout=_SHORT)
        with pytest.raises(ApplicationError, match="kept"):
            await getattr(handle, end)()
        here.write(PERMIT_ALL)
        await eventually(lambda: here.plugin.gate.policy.sequence > 1)
        await getattr(handle, end)()
        with pytest.raises(NexusOperationFailureError):
            await handle.result()
    asked = [strict_json(record.body) for record in here.records("authority")]
    assert [each["decision"] for each in asked if each["action"] == "nexus.cancel"] == ["deny", "allow"]


_SHORT = timedelta(seconds=15)
