"""Activities in a gated environment: judged by the real gate, with statements that were really signed."""

import asyncio
import base64
import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio import activity
from temporalio.activity import ActivityCancellationDetails
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from exequatur import (
    AuthorizationDenied,
    AuthorizationPlugin,
    ConfigurationError,
    GrantRejected,
    PolicyError,
    Principal,
    ReceiptRejected,
    acting_as,
)
from exequatur.gate.wire import payloads_digest
from exequatur.identity.acting import OnBehalf
from exequatur.lineage.record import read
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt
from exequatur.statements.trust import TrustStore
from exequatur.testing import (
    Clock,
    GatedActivityEnvironment,
    PolicyFiles,
    assert_allowed,
    assert_denied,
    assert_rejected,
    assert_revoked,
    make_plugin,
)
from exequatur.testing.asking import AskingRun
from tests.gate.single import eventually
from tests.testing.scenes import (
    Desk,
    Refunding,
    anything,
    beats,
    beats_in_thread,
    ran,
    refund,
    refund_in_thread,
    undecorated,
)

PERMIT_ALL = '@id("all") permit (principal, action, resource);'

KINDS = [refund, refund_in_thread, Desk("a").refund, Desk("a").refund_in_thread, Refunding()]


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    ran.clear()


# What is allowed.


@pytest.mark.parametrize("fn", KINDS)
async def test_an_allowed_activity_of_any_kind_runs_and_its_result_is_proven(
    fn: Any, gated_activities: GatedActivityEnvironment
) -> None:
    assert await gated_activities.run(fn, 200) == "refunded 200"

    assert ran == [200]
    [receipt] = gated_activities.receipts
    assert (receipt.decision, receipt.outcome, receipt.enforced) == ("allow", "completed", True)
    assert receipt.policies == ("refunds-by-operations",)
    assert receipt.activity_type == "refund"


async def test_what_was_decided_is_in_a_journal_on_disk(
    gated_activities: GatedActivityEnvironment, exequatur_state: Path
) -> None:
    await gated_activities.run(refund, 200)
    with assert_denied():
        await gated_activities.run(refund, 501)

    [journal] = (exequatur_state / "journal").glob("*.db")
    records = [(record.kind, record.body) for record in read(journal)]
    decisions = [json.loads(body) for kind, body in records if kind == "decision"]
    assert [each["decision"] for each in decisions] == ["allow", "deny"]
    receipts = [parse(body.decode(), Receipt).claims for kind, body in records if kind == "receipt"]
    assert receipts == gated_activities.receipts


async def test_the_activity_sees_what_the_info_says_and_policies_judge_it(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    seen = []

    @activity.defn
    def look() -> None:
        seen.append(activity.info())

    policy_files.write(PERMIT_ALL)
    policy_files.write(
        '@id("elsewhere") forbid (principal, action == Action::"look", resource) unless'
        '  { context.activity.task_queue == "refunds" && context.activity.attempt == 3'
        '    && context.run.workflow_type == "Refunds" && context.run.workflow_id == "r-1" };',
        "elsewhere.cedar",
    )
    with assert_denied(by="elsewhere"):
        await gated_activities.run(look)

    gated_activities.info = replace(
        gated_activities.info, task_queue="refunds", attempt=3, workflow_type="Refunds", workflow_id="r-1"
    )
    await gated_activities.run(look)

    [info] = seen
    assert (info.activity_type, info.task_queue, info.attempt) == ("look", "refunds", 3)
    assert (info.workflow_type, info.workflow_id) == ("Refunds", "r-1")
    assert abs(info.scheduled_time.timestamp() - gated_activities.plugin.gate.clock()) < 60


async def test_an_activity_type_of_the_info_stands_before_the_functions_name(
    gated_activities: GatedActivityEnvironment,
) -> None:
    with assert_denied(by=(), activity="undecorated"):
        await gated_activities.run(undecorated, 1)
    gated_activities.info = replace(gated_activities.info, activity_type="refund")
    assert await gated_activities.run(undecorated, 1) == "refunded 1"


async def test_a_dynamic_activity_needs_a_type_and_gets_raw_values(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    policy_files.write(PERMIT_ALL)
    with pytest.raises(ConfigurationError, match="set activity_type"):
        await gated_activities.run(anything, [])
    gated_activities.info = replace(gated_activities.info, activity_type="AnyRefund")
    run: Any = gated_activities.run
    assert await run(anything, 7) == "AnyRefund"
    assert ran == [7]


async def test_an_error_of_the_body_comes_out_as_it_is(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    policy_files.write(PERMIT_ALL)

    @activity.defn
    async def fails() -> None:
        raise LookupError("no such order")

    with pytest.raises(LookupError, match="no such order"):
        await gated_activities.run(fails)


async def test_models_and_codecs_work_as_in_the_workers_client(policy_files: PolicyFiles) -> None:
    policy_files.write(PERMIT_ALL)
    policy_files.write(
        '@id("limit") forbid (principal, action == Action::"pay", resource) when { context.args.order.amount > 5 };',
        "limit.cedar",
    )

    class Order(BaseModel):
        amount: int

    class Turned(PayloadCodec):
        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return [
                Payload(metadata={"encoding": b"turned"}, data=base64.b64encode(each.SerializeToString()))
                for each in payloads
            ]

        async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return [Payload.FromString(base64.b64decode(each.data)) for each in payloads]

    @activity.defn
    async def pay(order: Order) -> Order:
        return Order(amount=order.amount + 1)

    environment = GatedActivityEnvironment(
        policies=policy_files,
        principal='Agent::"ops-bot"',
        data_converter=replace(pydantic_data_converter, payload_codec=Turned()),
    )
    assert await environment.run(pay, Order(amount=5)) == Order(amount=6)
    with assert_denied(by="limit"):
        await environment.run(pay, Order(amount=6))


async def test_the_users_interceptors_run_behind_the_gate(exequatur_plugin: AuthorizationPlugin) -> None:
    class Counting(Interceptor):
        seen = 0

        def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
            counting = self

            class Inbound(ActivityInboundInterceptor):
                async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                    counting.seen += 1
                    return f"{await super().execute_activity(input)}!"

            return Inbound(next)

    counting = Counting()
    environment = GatedActivityEnvironment(exequatur_plugin, interceptors=[counting])
    assert await environment.run(refund, 1) == "refunded 1!"
    with assert_denied():
        await environment.run(refund, 501)
    assert counting.seen == 1


# What is refused.


@pytest.mark.parametrize("fn", KINDS)
async def test_a_denied_activity_raises_what_a_worker_raises_and_its_body_does_not_run(
    fn: Any, gated_activities: GatedActivityEnvironment
) -> None:
    with pytest.raises(AuthorizationDenied) as denied:
        await gated_activities.run(fn, 501)

    assert ran == []
    assert denied.value.type == "AuthorizationDenied"
    assert denied.value.non_retryable
    [details] = denied.value.details
    assert details["policies"] == [{"id": "refunds-limit", "reason": "a refund above 500 needs a person"}]
    assert details["principal"] == 'Agent::"ops-bot"'
    assert [receipt.outcome for receipt in gated_activities.receipts] == ["denied"]


async def test_policies_that_are_edited_between_two_runs_count_at_once(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    await gated_activities.run(refund, 200)
    policy_files.write('@id("closed") forbid (principal, action == Action::"refund", resource);', "closed.cedar")
    with assert_denied(by="closed"):
        await gated_activities.run(refund, 200)


async def test_work_without_a_grant_is_rejected(gated_activities: GatedActivityEnvironment) -> None:
    gated_activities.governed = False
    with assert_rejected(reason="carries no grant"):
        await gated_activities.run(refund, 200)
    assert ran == []


async def test_ungoverned_work_that_is_allowed_acts_for_nobody(policy_files: PolicyFiles) -> None:
    policy_files.write('@id("nobody") permit (principal == Unauthenticated::"anonymous", action, resource);')
    environment = GatedActivityEnvironment(policies=policy_files, settings={"allow_ungoverned": ["test"]})
    environment.governed = False
    assert await environment.run(refund, 200) == "refunded 200"


async def test_a_grant_that_no_anchor_has_signed_is_rejected(gated_activities: GatedActivityEnvironment) -> None:
    await gated_activities.run(refund, 1)
    gated_activities.plugin.gate.trust = TrustStore()
    with pytest.raises(GrantRejected):
        await gated_activities.run(refund, 1)
    assert ran == [1]


async def test_a_grant_ends(exequatur_clock: Clock, gated_activities: GatedActivityEnvironment) -> None:
    await gated_activities.run(refund, 1)
    exequatur_clock.advance(timedelta(hours=23))
    await gated_activities.run(refund, 1)
    exequatur_clock.advance(timedelta(hours=2))
    with assert_rejected(reason="[G4]"):
        await gated_activities.run(refund, 1)
    assert ran == [1, 1]


async def test_an_observed_activity_runs_and_its_receipt_says_why_it_should_not(policy_files: PolicyFiles) -> None:
    policy_files.write('@id("starts") permit (principal, action == Action::"workflow.start", resource);')
    environment = GatedActivityEnvironment(
        policies=policy_files, principal='Agent::"ops-bot"', settings={"mode": "observe"}
    )
    assert await environment.run(refund, 1) == "refunded 1"
    [receipt] = environment.receipts
    assert (receipt.decision, receipt.enforced) == ("deny", False)


async def test_a_result_without_a_receipt_is_not_believed(gated_activities: GatedActivityEnvironment) -> None:
    plugin, info = gated_activities.plugin, replace(ActivityEnvironment.default_info(), activity_type="refund")
    async with gated_activities:
        await gated_activities.run(refund, 1)  # the worker has its credential
        run = await AskingRun.begin(plugin, OnBehalf(Principal("Agent", "ops-bot")), info)
        request, _ = run.ask(info, payloads_digest([]))
        [payload] = DataConverter.default.payload_converter.to_payloads(["refunded 1000000"])
        with pytest.raises(ReceiptRejected, match=r"without a receipt \[P1\]"):
            run.believe(payload, request, info)


# On whose behalf.


async def test_acting_as_stands_before_the_environments_principal(gated_activities: GatedActivityEnvironment) -> None:
    operator = Principal("User", "dana", parents=['Role::"operations"'])
    with acting_as(operator):
        await gated_activities.run(refund, 1)
    gated_activities.principal = operator
    with assert_allowed():
        await gated_activities.run(refund, 1)
    with assert_denied() as denied:
        await gated_activities.run(refund, 501)
    assert denied.refusal.principal == 'User::"dana"'


async def test_without_a_principal_it_says_how_to_name_one(policy_files: PolicyFiles) -> None:
    policy_files.write(PERMIT_ALL)
    with pytest.raises(ConfigurationError, match="acting_as"):
        await GatedActivityEnvironment(policies=policy_files).run(refund, 1)


async def test_a_start_that_is_not_permitted_is_no_denial_of_the_activity(
    gated_activities: GatedActivityEnvironment,
) -> None:
    gated_activities.principal = Principal("User", "stranger")
    with pytest.raises(ConfigurationError, match=r"workflow\.start"):
        await gated_activities.run(refund, 501)


# While it runs.


@pytest.mark.parametrize("fn", [beats, beats_in_thread])
async def test_heartbeats_are_recorded_and_seen(fn: Any, gated_activities: GatedActivityEnvironment) -> None:
    def third(*details: Any) -> None:
        assert details == ("beat",)
        if len(gated_activities.heartbeats) == 3:
            gated_activities.cancel()

    gated_activities.on_heartbeat = third
    with pytest.raises((asyncio.CancelledError, CancelledError)):
        await gated_activities.run(fn)
    assert set(gated_activities.heartbeats) == {("beat",)}


async def test_a_body_sees_why_it_was_cancelled(gated_activities: GatedActivityEnvironment) -> None:
    running = asyncio.ensure_future(gated_activities.run(beats))
    await eventually(lambda: gated_activities.heartbeats)
    gated_activities.cancel(ActivityCancellationDetails(timed_out=True))
    gated_activities.cancel()  # has no effect any more
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ran == ["cancelled False"]


async def test_a_thread_is_cancelled(gated_activities: GatedActivityEnvironment) -> None:
    running = asyncio.ensure_future(gated_activities.run(beats_in_thread))
    await eventually(lambda: gated_activities.heartbeats)
    gated_activities.cancel()
    with pytest.raises(CancelledError):
        await running
    assert ran == ["CancelledError"]


async def test_what_was_cancelled_before_does_not_begin(gated_activities: GatedActivityEnvironment) -> None:
    gated_activities.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gated_activities.run(refund, 1)
    assert ran == []


async def test_a_test_that_gives_up_waiting_ends_the_body(gated_activities: GatedActivityEnvironment) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gated_activities.run(beats_in_thread), 0.2)
    await eventually(lambda: ran)
    assert ran == ["CancelledError"]


async def test_a_body_is_told_that_its_worker_shuts_down(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    policy_files.write(PERMIT_ALL)

    @activity.defn
    async def tidies() -> str:
        await activity.wait_for_worker_shutdown()
        return "tidied up"

    @activity.defn
    def tidies_in_thread() -> str:
        activity.wait_for_worker_shutdown_sync(timeout=10)
        return f"tidied up: {activity.is_worker_shutdown()}"

    running = asyncio.ensure_future(gated_activities.run(tidies))
    await eventually(lambda: gated_activities._executions)
    gated_activities.worker_shutdown()
    assert await running == "tidied up"
    assert await gated_activities.run(tidies_in_thread) == "tidied up: True"


@pytest.mark.parametrize("fn", [beats, beats_in_thread])
async def test_a_revocation_ends_what_runs(fn: Any, gated_activities: GatedActivityEnvironment) -> None:
    plugin = gated_activities.plugin
    running = asyncio.ensure_future(gated_activities.run(fn))
    await eventually(lambda: gated_activities.heartbeats)
    plugin.revoke(principal='Agent::"ops-bot"', reason="it was steered")
    with assert_revoked(reason="it was steered", activity=fn.__name__):
        await running
    await eventually(lambda: ran)  # the body has seen its end
    assert gated_activities.receipts[-1].outcome == "revoked"
    with assert_rejected(reason="it was steered"):
        await gated_activities.run(fn)


async def test_an_edited_policy_ends_what_runs(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    async with gated_activities:
        running = asyncio.ensure_future(gated_activities.run(beats))
        await eventually(lambda: gated_activities.heartbeats)
        policy_files.write('@id("stop") forbid (principal, action == Action::"beats", resource);', "stop.cedar")
        with assert_revoked(by="stop"):
            await asyncio.wait_for(running, 60)


async def test_the_next_attempt_gets_the_details_of_the_one_before(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    policy_files.write(PERMIT_ALL)

    @activity.defn
    async def goes_on() -> Any:
        return list(activity.info().heartbeat_details)

    gated_activities.info = replace(gated_activities.info, heartbeat_details=[17, "a"])
    with pytest.raises(ConfigurationError, match="set attempt"):
        await gated_activities.run(goes_on)
    gated_activities.info = replace(gated_activities.info, attempt=2)
    assert await gated_activities.run(goes_on) == [17, "a"]


# What it is made of.


async def test_several_runs_can_be_under_way_at_once(gated_activities: GatedActivityEnvironment) -> None:
    async with gated_activities:
        results = await asyncio.gather(*(gated_activities.run(refund_in_thread, n) for n in range(10)))
    assert results == [f"refunded {n}" for n in range(10)]
    assert len(gated_activities.receipts) == 10


async def test_arguments_by_name_are_refused_as_temporal_would(gated_activities: GatedActivityEnvironment) -> None:
    with pytest.raises(TypeError, match="by position"):
        await gated_activities.run(refund, amount=1)


def test_a_plugin_and_policies_together_are_refused(
    exequatur_plugin: AuthorizationPlugin, policy_files: PolicyFiles
) -> None:
    with pytest.raises(ConfigurationError, match="either a plugin, or policies"):
        GatedActivityEnvironment(exequatur_plugin, policies=policy_files)
    with pytest.raises(ConfigurationError, match="either a plugin, or policies"):
        GatedActivityEnvironment()


def test_a_plugin_for_tests_reads_nothing_from_outside(
    policy_files: PolicyFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy_files.write(PERMIT_ALL)
    (tmp_path / "exequatur.toml").write_text('evidence_store = "postgresql://production"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXEQUATUR_GRANT_TTL", "1s")
    settings = make_plugin(policy_files).gate.settings
    assert settings.evidence_store is None
    assert settings.grant_ttl == timedelta(hours=24)


def test_a_bad_setting_is_named(policy_files: PolicyFiles) -> None:
    policy_files.write(PERMIT_ALL)
    with pytest.raises(ConfigurationError, match=r"grant_ttl given in the test: .*not a duration"):
        make_plugin(policy_files, settings={"grant_ttl": "soon"})
    with pytest.raises(ConfigurationError, match="colour given in the test"):
        make_plugin(policy_files, settings={"colour": "red"})
    with pytest.raises(ConfigurationError, match="principal cannot be read"):
        make_plugin(policy_files, principal="bot")


def test_a_temporary_state_folder_goes_with_its_plugin(policy_files: PolicyFiles) -> None:
    policy_files.write(PERMIT_ALL)
    plugin = make_plugin(policy_files)
    folder: Path = plugin._serving._journal.parent
    assert folder.is_dir()
    del plugin
    gc.collect()
    assert not folder.exists()


async def test_an_application_error_of_the_body_is_not_taken_for_the_gates(
    policy_files: PolicyFiles, gated_activities: GatedActivityEnvironment
) -> None:
    policy_files.write(PERMIT_ALL)

    @activity.defn
    async def refuses() -> None:
        raise ApplicationError("out of stock", type="OutOfStock")

    with pytest.raises(AssertionError, match="out of stock"), assert_denied():
        await gated_activities.run(refuses)


@activity.defn(name="refund")
async def pretends(amount: int) -> None:
    ran.append(amount)
    raise ApplicationError("denied, says the body", type="AuthorizationDenied")


async def test_a_body_that_ran_and_calls_its_failure_a_denial_was_not_denied(
    gated_activities: GatedActivityEnvironment,
) -> None:
    with pytest.raises(AssertionError):
        async with assert_denied():
            await gated_activities.run(pretends, 5)


async def test_an_activity_that_the_schema_lacks_does_not_pass_a_test(
    policy_files: PolicyFiles,
) -> None:
    policy_files.write("permit(principal, action, resource);")
    policy_files.schema("""
        entity Agent, User, Service, Role; entity Workflow;
        type R = { namespace: String, workflow_id: String, workflow_type: String, task_queue: String };
        action "workflow.start" appliesTo {
          principal: [Agent, User, Service], resource: [Workflow], context: { args: {}, run: R, now: datetime },
        };
    """)
    env = GatedActivityEnvironment(policies=policy_files.path, principal='Agent::"ops-bot"')
    before = len(ran)
    with pytest.raises(PolicyError, match="refund: the bundle has no action for it"):
        await env.run(refund, 5)
    assert len(ran) == before
