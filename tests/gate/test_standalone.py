"""Activities that no workflow scheduled: they run with a permit, as Cedar says, and their client believes a receipt."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import DescribeActivityExecutionRequest
from temporalio.client import ActivityFailureError, ActivityHandle, StartActivityInput
from temporalio.common import ActivityIDConflictPolicy, RetryPolicy
from temporalio.exceptions import ApplicationError

from exequatur import Principal, acting_as
from exequatur.failures import AuthorizationDenied
from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, activity_header
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import parse, sign
from exequatur.statements.models import Permit, Receipt
from exequatur.statements.packing import unpack
from tests.gate.conftest import PERMIT_ALL, Stage, unique
from tests.gate.single import eventually

TIMEOUT = timedelta(seconds=60)

_done: dict[str, list[Any]] = defaultdict(list)
"""What the bodies did, by activity id."""


def did(what: Any) -> None:
    _done[activity.info().activity_id].append(what)


@dataclass
class Order:
    amount: int
    currency: str = "EUR"


@activity.defn
async def charge(order: Order) -> Order:
    did(order)
    return order


@activity.defn
def charge_in_thread(amount: int) -> int:
    did(amount)
    return amount


@activity.defn
async def flaky(attempts: int) -> list[Any]:
    info = activity.info()
    did(info.attempt)
    activity.heartbeat("so far", info.attempt)
    if info.attempt < attempts:
        raise ApplicationError("again")
    return list(info.heartbeat_details)


@activity.defn
async def waits(_: str) -> str:
    did("began")
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.05)


class WithHeaders(temporalio.client.Interceptor):
    """Puts headers on every activity start, as any client may."""

    def __init__(self, headers: Mapping[str, Payload]) -> None:
        self._headers = headers

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        headers = self._headers

        class Outbound(temporalio.client.OutboundInterceptor):
            async def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
                input.headers = {**input.headers, **headers}
                return await super().start_activity(input)

        return Outbound(next)


async def begin(s: Stage, fn: Any, *args: Any, client: Any = None, **options: Any) -> ActivityHandle[Any]:
    options = {"id": unique("a"), "task_queue": s.queue, "start_to_close_timeout": TIMEOUT} | options
    options.setdefault("retry_policy", RetryPolicy(maximum_attempts=1))
    handle: ActivityHandle[Any] = await (client or s.client).start_activity(fn, args=args, **options)
    return handle


async def failure_of(handle: ActivityHandle[Any]) -> ApplicationError:
    with pytest.raises(ActivityFailureError) as raised:
        await handle.result()
    assert isinstance(raised.value.cause, ApplicationError), repr(raised.value.cause)
    return raised.value.cause


async def header_of(s: Stage, handle: ActivityHandle[Any]) -> Payload:
    """The permit that an activity was started with, as whoever may look at it sees it."""
    described = await s.plain.workflow_service.describe_activity_execution(
        DescribeActivityExecutionRequest(namespace="default", activity_id=handle.id, run_id=handle.run_id or "")
    )
    return described.info.header.fields[ACTIVITY_HEADER]


async def permit_of(s: Stage, handle: ActivityHandle[Any]) -> Permit:
    return parse(unpack((await header_of(s, handle)).data)[0], Permit).claims


async def with_header(s: Stage, header: Payload) -> Any:
    """A client without the plugin that puts this into the header."""
    return await s.connect(interceptors=[WithHeaders({ACTIVITY_HEADER: header})])


async def test_it_runs_as_without_the_plugin_and_its_result_has_a_receipt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [charge, charge_in_thread]):
        handle = await begin(s, charge, Order(5))
        assert await handle.result() == Order(5)
        assert await handle.result() == Order(5)
        assert await (await begin(s, charge_in_thread, 3)).result() == 3
        described = await handle.describe()
        assert described.activity_run_id == handle.run_id
    assert isinstance(handle, ActivityHandle)
    receipt = next(each for each in s.statements("receipt", Receipt) if each.activity_id == handle.id)
    assert receipt.outcome == "completed"
    assert receipt.workflow_id == f"standalone/{handle.id}"
    assert receipt.run_id == handle.run_id
    assert receipt.policies == ("all",)
    decisions = [strict_json(each.body) for each in s.records("decision")]
    assert {each["workflow_id"] for each in decisions} >= {f"standalone/{handle.id}"}
    assert next(each for each in decisions if each["activity_id"] == handle.id)["run_id"] == handle.run_id


async def test_the_result_in_the_server_carries_the_receipt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [charge]):
        handle = await begin(s, charge, Order(5))
        await handle.result()
        described = await s.plain.workflow_service.describe_activity_execution(
            DescribeActivityExecutionRequest(
                namespace="default", activity_id=handle.id, run_id=handle.run_id, include_outcome=True
            )
        )
    [payload] = described.outcome.result.payloads
    assert parse(unpack(payload.metadata[RECEIPT])[-1], Receipt).claims.activity_id == handle.id


async def test_what_the_policies_are_told(stage: Callable[..., Any]) -> None:
    activity_id = unique("a")
    s = await stage(
        f"""
        permit(principal, action == Action::"activity.start", resource == Workflow::"standalone/{activity_id}")
        when {{ context.run.workflow_id == "" && context.activity.type == "charge"
                && context.activity.id == "{activity_id}" && context.activity.task_queue != "" }};
        permit(principal == Agent::"ops-bot", action == Action::"charge",
               resource == Workflow::"standalone/{activity_id}")
        when {{ context.run.workflow_id == "" && context.run.governed && context.run.run_id != ""
                && context.args.order.amount == 5 }};
        """
    )
    async with s.worker((), [charge]):
        assert await (await begin(s, charge, Order(5), id=activity_id)).result() == Order(5)
        failure = await failure_of(await begin(s, charge, Order(6), id=activity_id))
    assert failure.type == "AuthorizationDenied"
    assert _done[activity_id] == [Order(5)]


async def test_a_start_that_cedar_does_not_allow_never_leaves(stage: Callable[..., Any]) -> None:
    s = await stage('@id("run") permit(principal, action == Action::"charge", resource);')
    async with s.worker((), [charge]):
        activity_id = unique("a")
        with pytest.raises(AuthorizationDenied, match="start charge"):
            await begin(s, charge, Order(5), id=activity_id)
        with pytest.raises(temporalio.service.RPCError):
            await s.plain.get_activity_handle(activity_id).describe()


async def test_the_principal_of_the_permit_is_the_one_that_cedar_is_asked_about(stage: Callable[..., Any]) -> None:
    s = await stage(
        'permit(principal, action == Action::"activity.start", resource);'
        'permit(principal in Role::"payers", action, resource);'
    )
    async with s.worker((), [charge]):
        with acting_as(Principal("User", "dana", parents=('Role::"payers"',))):
            allowed = await begin(s, charge, Order(1))
        with acting_as(Principal("User", "eve")):
            refused = await begin(s, charge, Order(2))
        assert await allowed.result() == Order(1)
        assert (await failure_of(refused)).type == "AuthorizationDenied"
    assert _done[refused.id] == []


@pytest.mark.rule("A1")
async def test_without_a_permit_it_does_not_run(stage: Callable[..., Any]) -> None:
    s = await stage(allow_ungoverned=["OneActivity"])
    async with s.worker((), [charge]):
        handle = await begin(s, charge, Order(5), client=s.plain)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "carries no permit" in failure.message
    assert _done[handle.id] == []


@pytest.mark.rule("A3")
@pytest.mark.parametrize(
    ("options", "args", "rule"),
    [({"id": "another"}, (Order(5),), "Y4"), ({}, (Order(6),), "Y6"), ({}, (), "Y6")],
    ids=["another id", "other arguments", "no arguments"],
)
async def test_a_copied_permit_does_for_nothing_else(
    stage: Callable[..., Any], options: dict[str, Any], args: tuple[Any, ...], rule: str
) -> None:
    s = await stage()
    first = await begin(s, charge, Order(5))
    copied = await with_header(s, await header_of(s, first))
    # It never ran, so that nothing but the binding can refuse the copy.
    await first.terminate()
    async with s.worker((), [charge]):
        handle = await begin(s, "charge", *args, client=copied, **{"id": first.id} | options)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert rule in failure.message
    assert _done[handle.id] == []


async def test_a_copied_permit_does_for_no_other_queue_and_no_other_activity(stage: Callable[..., Any]) -> None:
    s = await stage()
    first = await begin(s, charge_in_thread, 5)
    copied = await with_header(s, await header_of(s, first))
    await first.terminate()
    other = unique("queue")
    async with s.worker((), [charge, charge_in_thread], queue=other), s.worker((), [flaky, charge_in_thread]):
        moved = await failure_of(await begin(s, charge_in_thread, 5, client=copied, id=first.id, task_queue=other))
        retyped = await failure_of(await begin(s, flaky, 5, client=copied, id=first.id))
    assert "Y5" in moved.message
    assert "Y4" in retyped.message
    assert _done[first.id] == []


@pytest.mark.rule("F5")
@pytest.mark.rule("Y8")
async def test_a_permit_serves_one_run(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [charge]):
        first = await begin(s, charge, Order(5))
        await first.result()
        copied = await with_header(s, await header_of(s, first))
        again = await begin(s, charge, Order(5), client=copied, id=first.id)
        failure = await failure_of(again)
        assert again.run_id != first.run_id
        # With a permit of its own it may.
        assert await (await begin(s, charge, Order(5), id=first.id)).result() == Order(5)
    assert failure.type == "GrantRejected"
    assert "already used" in failure.message
    assert _done[first.id] == [Order(5), Order(5)]


async def test_permits_that_ended_or_are_forged_or_no_permits_are_refused(stage: Callable[..., Any]) -> None:
    s = await stage()
    first = await begin(s, charge, Order(5))
    claims = await permit_of(s, first)
    await first.terminate()
    state: Any = s.plugin._authority
    key, grant_key = state._state.signer("permit"), state._state.signer("grant")
    ended = claims.model_copy(update={"iat": claims.iat - 1800, "exp": claims.iat - 900})
    foreign = claims.model_copy(update={"aud": "example.org/main/default"})
    grant = await s.grant("OneActivity", first.id)
    headers = {
        "Y7": activity_header([sign(ended, key).text], ()),
        "Y3": activity_header([sign(foreign, key).text], ()),
        "T2": activity_header([sign(claims, grant_key).text], ()),
        "Y1": activity_header([grant.text], ()),
        "K1": Payload(data=b"no permit at all"),
        "H2": Payload(data=b"\x01" * 70_000),
    }
    async with s.worker((), [charge]):
        for rule, header in headers.items():
            handle = await begin(s, charge, Order(5), client=await with_header(s, header), id=first.id)
            failure = await failure_of(handle)
            assert failure.type == "GrantRejected"
            assert rule in failure.message
    assert _done[first.id] == []


async def test_retries_of_the_run_are_allowed_and_get_their_heartbeat_details(stage: Callable[..., Any]) -> None:
    s = await stage()
    retries = RetryPolicy(maximum_attempts=3, initial_interval=timedelta(milliseconds=50))
    async with s.worker((), [flaky]):
        handle = await begin(s, flaky, 3, retry_policy=retries, heartbeat_timeout=TIMEOUT)
        assert await handle.result() == ["so far", 2]
    assert _done[handle.id] == [1, 2, 3]


async def test_a_revocation_ends_it_while_it_runs(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [waits]):
        for kind in ("principal", "grant", "workflow", "activity"):  # the last one ends all of them
            handle = await begin(s, waits, kind, heartbeat_timeout=TIMEOUT)
            await eventually(lambda handle=handle: _done[handle.id])
            named = {
                "principal": None,
                "grant": (await permit_of(s, handle)).jti,
                "workflow": f"standalone/{handle.id}",
                "activity": "waits",
            }[kind]
            if kind == "principal":
                other = Principal("Agent", unique("bot"))
                with acting_as(other):
                    handle = await begin(s, waits, kind, heartbeat_timeout=TIMEOUT)
                await eventually(lambda handle=handle: _done[handle.id])
                named = str(other)
            s.plugin.revoke(**{kind: named}, reason=f"by {kind}")
            failure = await failure_of(handle)
            assert failure.type == "AuthorizationRevoked"
            assert f"by {kind}" in failure.message


async def test_a_policy_that_forbids_it_ends_it_while_it_runs(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [waits]):
        handle = await begin(s, waits, "", heartbeat_timeout=TIMEOUT)
        await eventually(lambda: _done[handle.id])
        s.write(PERMIT_ALL + 'forbid(principal, action == Action::"waits", resource);')
        assert (await failure_of(handle)).type == "AuthorizationRevoked"


async def test_the_client_refuses_the_result_of_a_worker_without_the_plugin(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker((), [charge], client=s.plain):
        handle = await begin(s, charge, Order(5))
        failure = await failure_of(handle)
        # What reads it by the id alone verifies nothing.
        assert await s.client.get_activity_handle(handle.id, result_type=Order).result() == Order(5)
    assert failure.type == "ReceiptRejected"
    assert "P1" in failure.message


async def test_results_of_recorded_queues_and_in_observe_need_no_receipt(stage: Callable[..., Any]) -> None:
    for settings in ({"recorded_queues": ["*"]}, {"mode": "observe"}):
        s = await stage(**settings)
        async with s.worker((), [charge], client=s.plain):
            assert await (await begin(s, charge, Order(5))).result() == Order(5)


async def test_who_joins_a_run_that_is_there_gets_its_result(stage: Callable[..., Any]) -> None:
    s = await stage()
    first = await begin(s, charge, Order(5))
    second = await begin(s, charge, Order(5), id=first.id, id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING)
    assert second.run_id == first.run_id
    async with s.worker((), [charge]):
        assert await second.result() == await first.result() == Order(5)
    assert _done[first.id] == [Order(5)]


async def test_a_start_with_a_delay_is_good_for_longer_than_its_permit(stage: Callable[..., Any]) -> None:
    s = await stage(permit_ttl=timedelta(seconds=1), clock_leeway=timedelta(0))
    async with s.worker((), [charge]):
        handle = await begin(s, charge, Order(5), start_delay=timedelta(seconds=2))
        assert await handle.result() == Order(5)
