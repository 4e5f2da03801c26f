"""What Cedar says about an activity is what happens: its side effect, and a failure that says why."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError

from exequatur import Principal, acting_as
from exequatur.gate.wire import read_activity_header
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt, Request
from exequatur.statements.verification import Credentials, Scope
from tests.gate.conftest import BOT, PERMIT_ALL, activity_headers, deeds, failure_of, happened

TIMEOUT = timedelta(seconds=60)


@dataclass
class Order:
    id: str
    amount: Any = None


@activity.defn
async def refund(order: Order) -> str:
    happened(("refund", order.id))
    return f"refunded {order.id}"


@activity.defn
def charge(order: dict[str, Any]) -> str:
    happened(("charge", order))
    return "charged"


@activity.defn
def attempts(limit: int) -> int:
    attempt = activity.info().attempt
    happened(attempt)
    if attempt < limit:
        raise ApplicationError("not yet")
    return attempt


@activity.defn
def ping() -> str:
    happened("ping")
    return "pong"


@activity.defn(dynamic=True)
async def anything(args: Sequence[RawValue]) -> int:
    happened((activity.info().activity_type, [activity.payload_converter().from_payload(arg.payload) for arg in args]))
    return len(args)


@activity.defn(name="workflow.start")
def named_like_an_action() -> str:
    happened("named like an action")
    return "done"


@activity.defn(name="called")
@dataclass
class Called:
    """An activity that is an object, and one without a hash."""

    what: str

    async def __call__(self) -> str:
        happened(self.what)
        return self.what


@workflow.defn
class Refunds:
    @workflow.run
    async def run(self, amount: float) -> str:
        return await workflow.execute_activity(refund, Order("o1", amount), start_to_close_timeout=TIMEOUT)


@workflow.defn
class Calls:
    """Executes one activity by name, with any arguments."""

    @workflow.run
    async def run(self, name: str, args: list[Any]) -> Any:
        return await workflow.execute_activity(
            name, args=args, start_to_close_timeout=TIMEOUT, retry_policy=RetryPolicy(maximum_attempts=3)
        )


@workflow.defn
class Locally:
    @workflow.run
    async def run(self, name: str, args: list[Any], interval: float = 0.01) -> Any:
        return await workflow.execute_local_activity(
            name,
            args=args,
            start_to_close_timeout=TIMEOUT,
            # A backoff beyond the threshold ends the workflow task and is waited for with a timer.
            local_retry_threshold=timedelta(milliseconds=500),
            retry_policy=RetryPolicy(
                maximum_attempts=3, initial_interval=timedelta(seconds=interval), backoff_coefficient=1
            ),
        )


LIMIT = """
@id("base") permit(principal, action, resource);
@id("limit") @reason("no refund above 500") forbid(principal, action == Action::"refund", resource)
    when { context.args.order.amount.greaterThan(decimal("500.0")) };
"""


@pytest.mark.rule("A9")
@pytest.mark.rule("F2")
async def test_what_cedar_permits_happens_and_what_it_forbids_does_not(stage):
    s = await stage(LIMIT)
    async with s.worker([Refunds], [refund]):
        allowed, denied = await s.start(Refunds.run, 499.5), await s.start(Refunds.run, 500.5)
        assert await allowed.result() == "refunded o1"
        failure = await failure_of(denied)
    assert failure.type == "AuthorizationDenied"
    assert failure.non_retryable
    assert deeds(allowed.id) == [("refund", "o1")]
    assert deeds(denied.id) == []


async def test_a_denial_names_policy_and_reason_and_carries_a_signed_denial_that_verifies(stage):
    s = await stage(LIMIT)
    async with s.worker([Refunds], [refund]):
        handle = await s.start(Refunds.run, 900.0)
        failure = await failure_of(handle)
    assert "limit: no refund above 500" in failure.message
    assert str(BOT) in failure.message
    assert "refund" in failure.message
    [details] = failure.details
    assert details["policies"] == [{"id": "limit", "reason": "no refund above 500"}]
    assert details["principal"] == str(BOT)
    trust = s.plugin.gate.trust
    credentials = Credentials(trust)
    credentials.add(details["credential"])
    scope = Scope("exequatur.local/default", "default", s.queue, "refund")
    denial = credentials.verify(parse(details["receipt"], Receipt), "receipt", scope).claims
    [headers] = await activity_headers(handle)
    tokens = read_activity_header(headers)
    assert denial.request == parse(tokens[-1], Request).claims.jti
    assert (denial.decision, denial.outcome, denial.policies) == ("deny", "denied", ("limit",))
    assert denial in s.statements("receipt", Receipt)


async def test_without_a_policy_that_permits_nothing_runs(stage):
    s = await stage('@id("start") permit(principal, action == Action::"workflow.start", resource);')
    async with s.worker([Calls], [ping]):
        handle = await s.start(Calls.run, "ping", [])
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "no policy permits it" in failure.message
    assert deeds(handle.id) == []


async def test_a_policy_that_errs_denies_although_another_permits(stage):
    s = await stage(
        PERMIT_ALL + '@id("broken") forbid(principal, action == Action::"ping", resource) when { principal.rank > 3 };'
    )
    async with s.worker([Calls], [ping]):
        handle = await s.start(Calls.run, "ping", [])
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "broken" in failure.message
    assert deeds(handle.id) == []


CAP = '@id("cap") forbid(principal, action == Action::"charge", resource) when '
AMOUNTS = {
    "unguarded": CAP + "{ context.args.order.amount > 500 };",
    "guarded": CAP + "{ context.args.order has amount && context.args.order.amount > 500 };",
}


@pytest.mark.parametrize("policy", AMOUNTS)
@pytest.mark.parametrize(
    "order",
    [{"amount": 600}, {"amount": 600.5}, {"amount": 2**70}, {"amount": None}, {}],
    ids=str,
)
async def test_an_amount_that_is_too_large_or_that_cedar_cannot_represent_or_that_is_missing_is_never_charged(
    stage, policy, order
):
    s = await stage(PERMIT_ALL + AMOUNTS[policy])
    async with s.worker([Calls], [charge]):
        handle = await s.start(Calls.run, "charge", [order])
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "cap" in failure.message or "amount" in failure.message
    assert deeds(handle.id) == []


async def test_an_argument_that_cedar_cannot_represent_and_no_policy_reads_is_ignored(stage):
    s = await stage(
        PERMIT_ALL + '@id("cap") forbid(principal, action == Action::"other", resource) when '
        "{ context.args.order.amount > 500 };"
    )
    async with s.worker([Calls], [charge]):
        handle = await s.start(Calls.run, "charge", [{"amount": 2**70}])
        assert await handle.result() == "charged"
    assert deeds(handle.id) == [("charge", {"amount": 2**70})]


@pytest.mark.rule("A1")
async def test_work_of_a_run_without_a_grant_is_refused_before_cedar_is_asked(stage):
    s = await stage()
    async with s.worker([Calls], [ping]):
        handle = await s.start(Calls.run, "ping", [], client=s.plain)
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "allow_ungoverned" in failure.message
    assert deeds(handle.id) == []


async def test_a_listed_workflow_type_may_run_without_a_grant_as_nobody_if_cedar_permits(stage):
    s = await stage(
        '@id("nobody") permit(principal == Unauthenticated::"anonymous", action == Action::"ping", resource);',
        allow_ungoverned=("Calls",),
    )
    async with s.worker([Calls, Refunds], [ping, charge, refund]):
        allowed = await s.start(Calls.run, "ping", [], client=s.plain)
        assert await allowed.result() == "pong"
        denied = await s.start(Calls.run, "charge", [{}], client=s.plain)
        assert (await failure_of(denied)).type == "AuthorizationDenied"
        unlisted = await s.start(Refunds.run, 1.0, client=s.plain)
        assert (await failure_of(unlisted)).type == "GrantRejected"
    assert deeds(allowed.id) == ["ping"]
    assert deeds(denied.id) == deeds(unlisted.id) == []


@pytest.mark.rule("A7")
async def test_an_activity_named_like_an_action_of_the_gate_does_not_run(stage):
    s = await stage()
    async with s.worker([Calls], [named_like_an_action]):
        handle = await s.start(Calls.run, "workflow.start", [])
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert deeds(handle.id) == []


@pytest.mark.rule("A5")
async def test_a_revoked_activity_type_workflow_principal_or_grant_does_not_run(stage):
    s = await stage()
    async with s.worker([Calls], [ping, charge]):
        s.plugin.revoke(activity="charge", reason="no more charges")
        handle = await s.start(Calls.run, "charge", [{}])
        failure = await failure_of(handle)
        assert failure.type == "GrantRejected"
        assert "no more charges" in failure.message
        other = await s.start(Calls.run, "ping", [])
        assert await other.result() == "pong"
    assert deeds(handle.id) == []


async def test_a_dynamic_activity_is_judged_by_the_type_and_the_arguments_that_it_gets(stage):
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"erase", resource);')
    async with s.worker([Calls], [anything]):
        allowed = await s.start(Calls.run, "archive", ["a", 2])
        assert await allowed.result() == 2
        nothing = await s.start(Calls.run, "archive", [])
        assert await nothing.result() == 0
        denied = await s.start(Calls.run, "erase", ["a"])
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(allowed.id) == [("archive", ["a", 2])]
    assert deeds(denied.id) == []


async def test_an_activity_without_arguments_passes_with_the_empty_digest(stage):
    s = await stage()
    async with s.worker([Calls], [ping]):
        handle = await s.start(Calls.run, "ping", [])
        assert await handle.result() == "pong"
    assert deeds(handle.id) == ["ping"]


async def test_each_retry_is_judged_anew_and_leaves_its_own_decision_and_receipt(stage):
    s = await stage()
    async with s.worker([Calls], [attempts]):
        handle = await s.start(Calls.run, "attempts", [2])
        assert await handle.result() == 2
    assert deeds(handle.id) == [1, 2]
    receipts = s.receipts(handle)
    assert [(r.attempt, r.outcome) for r in receipts] == [(1, "failed"), (2, "completed")]
    assert len({r.request for r in receipts}) == 1


async def test_an_activity_may_be_an_object_without_a_hash(stage):
    s = await stage()
    async with s.worker([Calls], [Called("it")]):
        handle = await s.start(Calls.run, "called", [])
        assert await handle.result() == "it"
    assert deeds(handle.id) == ["it"]


async def test_however_many_policies_decide_the_receipt_has_room(stage):
    many = "".join(
        f'@id("{effect}.for.a.department.of.the.company.number.{n}") '
        f'{effect}(principal, action == Action::"{action}", resource);'
        for effect, action in (("permit", "ping"), ("forbid", "charge"))
        for n in range(100)
    )
    s = await stage(PERMIT_ALL + many)
    async with s.worker([Calls], [ping, charge]):
        allowed = await s.start(Calls.run, "ping", [])
        assert await allowed.result() == "pong"
        denied = await s.start(Calls.run, "charge", [{}])
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(allowed.id) == ["ping"]
    assert deeds(denied.id) == []
    decisions = [json.loads(record.body) for record in s.records("decision")]
    assert [len(decision["policies"]) for decision in decisions] == [101, 100]


async def test_a_local_activity_that_waits_for_its_next_attempt_outlives_its_workflows_eviction(stage):
    s = await stage()
    async with s.worker([Locally], [attempts], max_cached_workflows=0):
        handle = await s.start(Locally.run, "attempts", [3], 1.0)
        assert await handle.result() == 3
    assert deeds(handle.id) == [1, 2, 3]


@pytest.mark.parametrize("interval", [0.01, 1.0], ids=["in one workflow task", "after a backoff timer"])
async def test_a_local_activity_is_judged_on_every_attempt(stage, interval):
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"charge", resource);')
    async with s.worker([Locally], [attempts, charge]):
        allowed = await s.start(Locally.run, "attempts", [2], interval)
        assert await allowed.result() == 2
        denied = await s.start(Locally.run, "charge", [{}], interval)
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(allowed.id) == [1, 2]
    assert deeds(denied.id) == []
    [last] = [receipt for receipt in s.receipts(allowed) if receipt.outcome == "completed"]
    assert last.core is not None
    assert last.args is not None


async def test_in_observe_nothing_is_blocked_and_everything_is_recorded_as_not_enforced(stage):
    s = await stage(LIMIT, mode="observe")
    async with s.worker([Refunds], [refund]):
        denied = await s.start(Refunds.run, 900.0)
        assert await denied.result() == "refunded o1"
        ungoverned = await s.start(Refunds.run, 900.0, client=s.plain)
        assert await ungoverned.result() == "refunded o1"
    assert [(receipt.decision, receipt.enforced) for receipt in s.receipts(denied)] == [("deny", False)]
    assert [(receipt.decision, receipt.enforced) for receipt in s.receipts(ungoverned)] == [("none", False)]


async def test_an_observe_rule_blocks_nothing_where_it_applies_and_leaves_the_rest_enforced(stage):
    s = await stage(
        '@id("start") permit(principal, action == Action::"workflow.start", resource);',
        observe=({"activity": "ping"},),
    )
    async with s.worker([Calls], [ping, charge]):
        observed = await s.start(Calls.run, "ping", [])
        assert await observed.result() == "pong"
        enforced = await s.start(Calls.run, "charge", [{}])
        assert (await failure_of(enforced)).type == "AuthorizationDenied"
    assert deeds(enforced.id) == []


async def test_policies_see_the_attributes_and_roles_that_the_grant_vouches_for(stage):
    policy = """
    @id("start") permit(principal, action == Action::"workflow.start", resource);
    @id("ops") permit(principal in Role::"ops", action == Action::"ping", resource)
        when { principal.tenant == "acme" && context.run.governed && context.activity.attempt == 1 };
    """
    s = await stage(policy)
    member = Principal("User", "ann", attributes={"tenant": "acme"}, parents=['Role::"ops"'])
    stranger = Principal("User", "bob", attributes={"tenant": "other"}, parents=['Role::"ops"'])
    async with s.worker([Calls], [ping]):
        with acting_as(member):
            allowed = await s.start(Calls.run, "ping", [])
        with acting_as(stranger):
            denied = await s.start(Calls.run, "ping", [])
        assert await allowed.result() == "pong"
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(denied.id) == []
