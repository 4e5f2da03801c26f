"""Policies that were made for other code are not put in force: not by a worker that starts, nor in one that runs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.common import RawValue

from exequatur import AuthorizationPlugin, PolicyError, Principal, Settings, action
from exequatur.authoring.schema.generate import generate
from exequatur.policy.conformance import REMEDY
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one

SCHEMA = "schema.cedarschema"


@dataclass
class Refund:
    order_id: str
    amount: Decimal


@activity.defn
async def refund_order(refund: Refund) -> str:
    happened(refund.order_id)
    return refund.order_id


@activity.defn
@action(groups=["money"])
async def pay(amount: int) -> int:
    happened(amount)
    return amount


@activity.defn(dynamic=True)
async def anything(args: Sequence[RawValue]) -> str:
    happened(activity.info().activity_type)
    return "done"


def schema_of(**activities: Any) -> str:
    return generate(activities).text


def paid_otherwise(amount: Decimal) -> None: ...


async def refusals(stage: Stage, caplog: pytest.LogCaptureFixture) -> str:
    def errors() -> list[str]:
        return [each.getMessage() for each in caplog.records if "were refused" in each.getMessage()]

    await eventually(errors)
    return errors()[0]


def reloaded(s: Stage) -> AuthorizationPlugin:
    """Another plugin on the folders of a stage, as another process would make it."""
    return AuthorizationPlugin.embedded(
        s.policies, state_dir=s.state, principal=Principal("Agent", "ops-bot"), settings=Settings()
    )


async def test_a_worker_whose_activities_the_schema_has_starts(stage: Callable[..., Any]) -> None:
    s = await stage()
    s.write(schema_of(refund_order=refund_order, pay=pay, more=pay), SCHEMA)
    client = await s.connect(reloaded(s))
    async with s.worker([OneActivity], [refund_order, pay], client=client):
        assert await (await start_one(s, pay, 5, client=client)).result() == 5


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"refund_order": refund_order}, f"pay: the bundle has no action for it; {REMEDY}"),
        (
            {"refund_order": refund_order, "pay": action(groups=["money"])(paid_otherwise)},
            f"pay: args.amount is a Long in the code and a decimal in the bundle; {REMEDY}",
        ),
    ],
    ids=["an action is missing", "an argument has another type"],
)
@pytest.mark.rule("conformance.C1")
async def test_a_worker_does_not_start_under_policies_for_other_code(
    stage: Callable[..., Any], schema: dict[str, Any], sentence: str
) -> None:
    s = await stage()
    s.write(schema_of(**schema), SCHEMA)
    client = await s.connect(reloaded(s))
    handle = await start_one(s, pay, 5, client=client)
    with pytest.raises(PolicyError) as raised:
        async with s.worker([OneActivity], [refund_order, pay], client=client):
            await asyncio.sleep(30)  # the error ends it
    assert sentence in str(raised.value)
    assert deeds(handle.id) == []
    await handle.terminate()


def without_arguments() -> None: ...


async def test_a_worker_that_only_runs_workflows_or_dynamic_activities_starts(stage: Callable[..., Any]) -> None:
    s = await stage()
    s.write(schema_of(other=pay, known=without_arguments), SCHEMA)
    client = await s.connect(reloaded(s))
    async with s.worker([OneActivity], [anything], client=client):
        handle = await start_one(s, "known", client=client)
        assert await handle.result() == "done"
        unknown = await start_one(s, "unknown", client=client)
        assert "has no action unknown" in (await failure_of(unknown)).message
    assert (deeds(handle.id), deeds(unknown.id)) == (["known"], [])


async def test_policies_for_other_code_change_nothing_in_a_running_worker(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage()
    before = s.plugin.gate.policy
    async with s.worker([OneActivity], [pay]):
        s.write(schema_of(pay=action(groups=["money"])(paid_otherwise)), SCHEMA)
        message = await refusals(s, caplog)
        assert s.plugin.gate.policy is before
        assert await (await start_one(s, pay, 5)).result() == 5
        s.write(schema_of(pay=pay), SCHEMA)
        await eventually(lambda: s.plugin.gate.policy is not before)
        assert await (await start_one(s, pay, 6)).result() == 6
    assert "pay: args.amount is a Long in the code and a decimal in the bundle" in message


@pytest.mark.rule("conformance.C1")
async def test_the_policies_of_a_process_fit_all_of_its_workers(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage()
    before = s.plugin.gate.policy
    async with s.worker([OneActivity], [pay]):
        async with s.worker([], [refund_order], queue="other"):
            s.write(schema_of(pay=pay), SCHEMA)
            assert "refund_order: the bundle has no action for it" in await refusals(s, caplog)
            assert s.plugin.gate.policy is before
        # Once that worker has gone, the same policies fit, and an edit puts them in force.
        s.write(schema_of(pay=pay) + "\n", SCHEMA)
        await eventually(lambda: s.plugin.gate.policy is not before)
        assert await (await start_one(s, pay, 5)).result() == 5


@pytest.mark.rule("conformance.C1")
async def test_a_bundle_that_is_handed_to_the_gate_itself_is_refused_too(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [pay]):
        await (await start_one(s, pay, 5)).result()
        before = s.plugin.gate.policy
        s.write(schema_of(refund_order=refund_order), SCHEMA)
        other = reloaded(s).gate.policy.bundle
        with pytest.raises(PolicyError, match="do not fit"):
            s.plugin.gate.put_in_force(other)
        assert s.plugin.gate.policy is before


def test_a_schema_that_cannot_be_read_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "main.cedar").write_text(PERMIT_ALL)
    deep = "type T = " + "Set<" * 80 + "Long" + ">" * 80 + ";"
    (tmp_path / SCHEMA).write_text(schema_of(pay=pay) + deep)
    with pytest.raises(PolicyError, match="fewer than 64 types"):
        AuthorizationPlugin.embedded(tmp_path, state_dir=tmp_path / "state", settings=Settings())
