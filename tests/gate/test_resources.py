"""An activity names what it acts on; whatever goes wrong with that, its body does not run."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from exequatur import action
from exequatur.audit.evidence import RecordedEvidence, records_of_journal
from exequatur.audit.history import history_from_json
from exequatur.audit.report import RunReport, Severity
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.lineage.record import Record
from exequatur.policy.bundle import PolicyBundle
from exequatur.statements.encoding import compact_json
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, start_one


@dataclass
class Order:
    id: str
    amount: int = 1


@activity.defn
@action(resource=lambda order: order.id, resource_type="Order")
async def charge(order: Order) -> str:
    happened(order.id)
    return order.id


@activity.defn
@action(resource=lambda order_id, prefix: f"{prefix}{order_id}", resource_type="Order")
def charge_by_id(order_id: int, prefix: str = "o-") -> str:
    happened(f"{prefix}{order_id}")
    return f"{prefix}{order_id}"


class Shop:
    @action(resource=lambda order: order.id, resource_type="Order")
    @activity.defn
    async def refund(self, order: Order) -> str:
        happened(order.id)
        return order.id


class Lying:
    __class__ = property(lambda self: 1 / 0)  # type: ignore[assignment]


def odd(returned: Any) -> Any:
    if returned == "raises":
        raise RuntimeError("secret")
    if returned == "exits":
        raise SystemExit(0)
    if returned == "lying":
        return Lying()
    return {"number": 7, "nothing": None, "empty": "", "surrogate": "\ud800", "long": "x" * 5000, "bytes": b"x"}.get(
        returned, returned
    )


@activity.defn
@action(resource=odd, resource_type="Order")
async def oddly(returned: str) -> None:
    happened(returned)


class Awaited:
    async def __call__(self, order: Order) -> str:
        return order.id


@activity.defn
@action(resource=Awaited(), resource_type="Order")
async def later(order: Order) -> None:
    happened(order.id)


def changing(order: Order) -> str:
    order.amount = 1
    return order.id


@activity.defn
@action(resource=changing, resource_type="Order")
async def change(order: Order) -> None:
    happened(order.amount)


@activity.defn
@action(resource=lambda: activity.info().workflow_id, resource_type="Workflow")
async def own() -> None:
    happened("own")


@activity.defn
@action(resource=lambda other: other, resource_type="Workflow")
async def cancel(other: str) -> None:
    happened(other)


ONE = PERMIT_ALL + (
    '@id("o-1") forbid(principal, action, resource) unless { resource is Workflow || resource == Order::"o-1" };\n'
)


@pytest.mark.parametrize(
    ("act", "good", "bad"),
    [(charge, Order("o-1"), Order("o-2")), (charge_by_id, 1, 2), (Shop().refund, Order("o-1"), Order("o-2"))],
    ids=["async", "thread, with a default", "method"],
)
async def test_policies_judge_the_resource_that_the_arguments_name(
    stage: Callable[..., Any], act: Callable[..., Any], good: Any, bad: Any
) -> None:
    s = await stage(ONE)
    async with s.worker([OneActivity], [act]):
        allowed, denied = await start_one(s, act, good), await start_one(s, act, bad)
        assert await allowed.result() == "o-1"
        failure = await failure_of(denied)
    assert failure.type == "AuthorizationDenied"
    assert "o-1" in failure.message
    assert (deeds(allowed.id), deeds(denied.id)) == (["o-1"], [])


@pytest.mark.rule("A10", "action.R1", "action.R2")
@pytest.mark.parametrize(
    ("returned", "why"),
    [
        ("raises", "The resource could not be told: its resolver raised RuntimeError"),
        ("exits", "The resource could not be told: its resolver raised SystemExit"),
        ("number", "The resource could not be told: its resolver returned no id"),
        ("nothing", "The resource could not be told: its resolver returned no id"),
        ("empty", "The resource could not be told: its resolver returned an empty id"),
        ("bytes", "The resource could not be told: its resolver returned no id"),
        ("surrogate", "The resource has an id that is not valid Unicode"),
        ("long", "The resource has an id of more than 4096 bytes"),
        ("lying", "The resource could not be told: its resolver raised ZeroDivisionError"),
    ],
)
async def test_a_resource_that_cannot_be_told_is_a_denial(stage: Callable[..., Any], returned: str, why: str) -> None:
    s = await stage()
    async with s.worker([OneActivity], [oddly]):
        handle = await start_one(s, oddly, returned)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert why in failure.message
    assert "secret" not in failure.message
    assert deeds(handle.id) == []
    [decision] = decisions(s)
    assert (decision["decision"], decision["policies"]) == ("deny", [])
    assert why in decision["fault"]
    assert "resource" not in decision


@pytest.mark.rule("A10")
async def test_a_resolver_that_gives_a_coroutine_is_a_denial(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [later]):
        handle = await start_one(s, later, Order("o-1"))
        assert (await failure_of(handle)).type == "AuthorizationDenied"
    assert deeds(handle.id) == []


async def test_a_resolver_that_changes_the_arguments_gets_the_activity_rejected(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [change]):
        handle = await start_one(s, change, Order("o-1", 1000))
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "changed" in failure.message
    assert deeds(handle.id) == []


async def test_the_journal_names_a_resource_that_is_not_the_workflow(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [charge, own, cancel]):
        await (await start_one(s, charge, Order("o-7"))).result()
        await (await start_one(s, own)).result()
        await (await start_one(s, cancel, "another")).result()
    assert [each.get("resource") for each in decisions(s)] == [
        {"type": "Order", "id": "o-7"},
        None,
        {"type": "Workflow", "id": "another"},
    ]


async def test_the_audit_makes_the_decision_again_with_the_recorded_resource(stage: Callable[..., Any]) -> None:
    s = await stage(ONE)
    async with s.worker([OneActivity], [charge]):
        allowed, denied = await start_one(s, charge, Order("o-1")), await start_one(s, charge, Order("o-2"))
        await allowed.result()
        await failure_of(denied)
    for handle in (allowed, denied):
        report = await audited(s, handle)
        assert not [each for each in report.findings if each.severity in (Severity.VIOLATION, Severity.UNCHECKED)]
        assert "resource-unproven" in {each.code for each in report.findings}
        assert report.activities[0].decisions[0].recomputed


@pytest.mark.parametrize("resource", [None, {"type": "Order", "id": "o-2"}, {"type": "Account", "id": "o-1"}])
async def test_the_audit_notices_another_resource_under_which_the_answer_is_another(
    stage: Callable[..., Any], resource: dict[str, str] | None
) -> None:
    s = await stage(
        PERMIT_ALL + '@id("o-1") forbid(principal, action == Action::"charge", resource)'
        ' unless { resource == Order::"o-1" };'
    )
    async with s.worker([OneActivity], [charge]):
        handle = await start_one(s, charge, Order("o-1"))
        await handle.result()

    def told(claims: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in claims.items() if name != "resource"}
        return rest if resource is None else {**rest, "resource": resource}

    report = await audited(s, handle, told)
    assert "decision-differs" in {each.code for each in report.findings if each.severity is Severity.VIOLATION}
    assert not report.activities[0].decisions[0].recomputed


async def test_a_resource_is_found_out_once(stage: Callable[..., Any]) -> None:
    seen: list[int] = []

    @activity.defn(name="counted")
    @action(resource=lambda: seen.append(threading.get_ident()) or "one", resource_type="Order")  # type: ignore[func-returns-value]
    async def counted() -> None:
        for number in range(3):
            activity.heartbeat(number)
            await asyncio.sleep(0.05)

    s = await stage()
    async with s.worker([OneActivity], [counted]):
        handle = await start_one(s, "counted", heartbeat=10)
        await asyncio.sleep(0.05)
        s.plugin.gate.put_in_force(s.plugin.gate.policy.bundle)
        await handle.result()
    assert len(seen) == 1


@activity.defn
@action(resource=lambda account: account.decode(), resource_type="Order")
async def transfer(account: bytes) -> None:
    happened(account)


class Swapping(Interceptor):
    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                input.args = [b"o-2"]
                return await super().execute_activity(input)

        return Inbound(next)


@pytest.mark.rule("B2")
async def test_a_body_does_not_run_on_another_resource_than_the_one_that_was_judged(stage: Callable[..., Any]) -> None:
    s = await stage(ONE)
    async with s.worker([OneActivity], [transfer], interceptors=[Swapping()]):
        handle = await start_one(s, transfer, b"o-1")
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(handle.id) == []


ORDERS = """
entity User, Service, Agent; entity Workflow; entity Order;
type R = { namespace: String, workflow_id: String, workflow_type: String, task_queue: String };
action "workflow.start" appliesTo {
  principal: [User, Agent, Service], resource: [Workflow], context: { args: {}, run: R, now: datetime },
};
action "activity";
action "charge" in ["activity"] appliesTo {
  principal: [User, Agent, Service], resource: [Order], context: { args: { order: { id: String, amount: Long } } },
};
"""


@pytest.mark.rule("D3")
@pytest.mark.parametrize("resource", [None, {"type": "Account", "id": "o-1"}], ids=["left out", "of another type"])
async def test_the_audit_notices_a_resource_that_the_archived_schema_rules_out(
    stage: Callable[..., Any], resource: dict[str, str] | None
) -> None:
    s = await stage()
    frozen = '@id("frozen") forbid(principal, action == Action::"charge", resource == Order::"o-9");'
    s.plugin.gate.put_in_force(PolicyBundle.from_parts(PERMIT_ALL + frozen, ORDERS, strict=True))
    async with s.worker([OneActivity], [charge]):
        handle = await start_one(s, charge, Order("o-1"))
        await handle.result()

    def edited(claims: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in claims.items() if name != "resource"}
        return rest if resource is None else {**rest, "resource": resource}

    assert (await audited(s, handle, lambda claims: claims)).activities[0].decisions[0].recomputed
    report = await audited(s, handle, edited)
    assert "decision-differs" in {each.code for each in report.findings if each.severity is Severity.VIOLATION}
    assert not report.activities[0].decisions[0].recomputed


@activity.defn(dynamic=True)
async def anything(args: Sequence[RawValue]) -> str:
    happened(activity.info().activity_type)
    return "ran"


@pytest.mark.rule("E9")
async def test_an_activity_that_the_schema_lacks_does_not_run_even_if_everything_is_permitted(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    grouped = PERMIT_ALL + '@id("none") forbid(principal, action in Action::"activity", resource);'
    s.plugin.gate.put_in_force(PolicyBundle.from_parts(grouped, ORDERS, strict=True))
    async with s.worker([OneActivity], [charge, anything]):
        handle = await start_one(s, "charge_v2", Order("o-1"))
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "the schema of the policies has no action charge_v2" in failure.message
    assert deeds(handle.id) == []


def decisions(s: Stage) -> list[dict[str, Any]]:
    return [json.loads(record.body) for record in s.records("decision")]


async def audited(
    s: Stage, handle: WorkflowHandle[Any, Any], told: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> RunReport:
    """The audit of a run, with what ``told`` makes of its decision in the place of the recorded one."""
    history = history_from_json((await handle.fetch_history()).to_json().encode())
    records: list[tuple[Record, bool]] = [
        pair for path in sorted((s.state / "journal").glob("*.db")) for pair in records_of_journal(path)
    ]
    if told is not None:
        records = [
            (replace(each, body=compact_json(told(json.loads(each.body)))) if each.kind == "decision" else each, sound)
            for each, sound in records
        ]
    return audit_run(history, RecordedEvidence(records), read_trust(s.state / "trust.jwks"))
