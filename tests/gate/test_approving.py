"""A run waits for people, they answer by library call, and it goes on or ends."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow

from exequatur import (
    AuthorizationDenied,
    AuthorizationPlugin,
    ChallengeError,
    Principal,
    Settings,
    acting_as,
    approve,
    list_challenges,
    reject,
)
from tests.asking import ENTITIES
from tests.cli.conftest import MIRRORED
from tests.gate.conftest import BOT, deeds, failure_of, happened

FAY, AUD = 'User::"fay"', 'User::"aud"'
POLICIES = """
@id("all") permit(principal, action, resource)
  unless {
    [Action::"approval.approve", Action::"approval.reject", Action::"approval.self", Action::"workflow.signal"]
      .contains(action)
  };
@id("answers") permit(principal is User, action in [Action::"approval.approve", Action::"approval.reject"], resource);
@id("large") @approval("finance, QUORUM, 1h") @reason("more than 500 needs finance")
  forbid(principal, action == Action::"pay", resource)
  when { context.args.amount > 500 }
  unless { context has approvals && context.approvals.groups.contains("finance") };
"""


@activity.defn
async def pay(amount: int) -> str:
    happened(amount)
    return f"paid {amount}"


@workflow.defn
class Pay:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(pay, amount, start_to_close_timeout=timedelta(seconds=20))


def plugin_for(folder: Path, quorum: int = 1, **settings: Any) -> AuthorizationPlugin:
    policies = folder / "asking"
    policies.mkdir()
    (policies / "main.cedar").write_text(POLICIES.replace("QUORUM", str(quorum)))
    (policies / "entities.json").write_text(ENTITIES)
    return AuthorizationPlugin.embedded(
        policies, state_dir=folder / "asked", principal=BOT, settings=Settings(**settings)
    )


async def asked(client: Any, plugin: Any, workflow_id: str) -> Any:
    """What a run waits for, as soon as it does."""
    for _ in range(1000):
        if found := (await list_challenges(client, plugin, workflow_id=workflow_id)).challenges:
            return found[0]
        await asyncio.sleep(0.05)
    return pytest.fail("nobody is asked")


async def test_once_enough_people_agree_the_activity_runs_once(stage, tmp_path):
    plugin = plugin_for(tmp_path, quorum=2)
    s = await stage(plugin=plugin)
    async with s.worker([Pay], [pay]):
        handle = await s.start(Pay.run, 900)
        each = await asked(s.plain, plugin, handle.id)
        assert (each.claims.activity_type, each.claims.sub) == ("pay", str(BOT))
        assert each.claims.arguments == '{"amount":900}'
        assert [(need.group, need.quorum) for need in each.claims.needs] == [("finance", 2)]
        await approve(s.client, plugin, each, principal=FAY, reason="first")
        await approve(s.plain, plugin, each.id, principal=FAY, workflow_id=handle.id)
        with pytest.raises(AuthorizationDenied, match="nobody but finance"):
            await approve(s.client, plugin, each, principal='User::"mallory"')
        each = await asked(s.client, plugin, handle.id)
        assert each.agreed("finance", plugin.gate.clock()) == (FAY,)
        assert deeds(handle.id) == []
        await approve(s.client, plugin, each, principal=AUD)
        assert await handle.result() == "paid 900"
        assert deeds(handle.id) == [900]
        assert (await list_challenges(s.plain, plugin, workflow_id=handle.id)).challenges == ()
        with pytest.raises(ChallengeError, match="the run has ended"):
            await approve(s.plain, plugin, each, principal=AUD)


async def test_where_payloads_are_encrypted_people_answer_with_the_workers_converter(stage, tmp_path):
    plugin = plugin_for(tmp_path)
    s = await stage(plugin=plugin, client_options={"data_converter": MIRRORED})
    stranger = await s.connect()
    async with s.worker([Pay], [pay]):
        handle = await s.start(Pay.run, 900)
        each = await asked(s.plain, plugin, handle.id)
        listing = await list_challenges(stranger, plugin, workflow_id=handle.id)
        assert listing.challenges == ()
        assert "cannot be decoded" in listing.refused[0]
        await approve(s.plain, plugin, each, principal=FAY)
        assert await handle.result() == "paid 900"


async def test_who_rejects_ends_it(stage, tmp_path):
    plugin = plugin_for(tmp_path)
    s = await stage(plugin=plugin)
    async with s.worker([Pay], [pay]):
        handle = await s.start(Pay.run, 900)
        each = await asked(s.plain, plugin, handle.id)
        await reject(s.plain, plugin, each, principal=FAY, reason="never heard of it")
        failure = await failure_of(handle)
        assert failure.type == "AuthorizationDenied"
        assert f"{FAY} rejected it: never heard of it" in failure.message
        assert deeds(handle.id) == []


async def test_nobody_agrees_to_what_is_done_on_their_own_behalf(stage, tmp_path):
    plugin = plugin_for(tmp_path)
    s = await stage(plugin=plugin)
    async with s.worker([Pay], [pay]):
        with acting_as(Principal("User", "fay")):
            handle = await s.start(Pay.run, 900)
        each = await asked(s.plain, plugin, handle.id)
        with pytest.raises(AuthorizationDenied, match=r"approval\.self"):
            await approve(s.plain, plugin, each, principal=FAY)
        await approve(s.plain, plugin, each, principal=AUD)
        assert await handle.result() == "paid 900"


async def test_a_rejection_by_somebody_who_may_not_answer_ends_nothing(stage, tmp_path):
    plugin = plugin_for(tmp_path)
    s = await stage(plugin=plugin)
    async with s.worker([Pay], [pay]):
        handle = await s.start(Pay.run, 900)
        each = await asked(s.plain, plugin, handle.id)
        for who in ('User::"mallory"', 'Agent::"bot"'):
            with pytest.raises(AuthorizationDenied):
                await reject(s.plain, plugin, each, principal=who)
        await approve(s.plain, plugin, each, principal=FAY)
        assert await handle.result() == "paid 900"
