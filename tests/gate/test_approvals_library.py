"""What runs wait for is listed and answered, and nothing that stands in a memo is believed unverified."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from exequatur import AuthorizationDenied, ChallengeError, Principal, approve, list_challenges, reject
from exequatur.approvals import MAX_CHALLENGES, MAX_MEMO_BYTES, Trusted
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Approval
from tests.asking import Refund, challenge_of, entry, finance, plugin_in
from tests.cli.conftest import MIRRORED
from tests.gate.conftest import unique

FAY = 'User::"fay"'


@pytest.fixture
def plugin(tmp_path):
    return plugin_in(tmp_path)


@asynccontextmanager
async def waiting(stage, plugin, *memos: Any, ids: Sequence[str] = (), **options: Any):
    """Runs that wait, each with a memo; ended afterwards."""
    s = await stage(plugin=plugin, **options)
    async with s.worker([Refund], client=s.plain):
        handles = []
        for number, memo in enumerate(memos):
            name = ids[number] if ids else unique()
            handles.append(await s.start(Refund.run, memo, client=s.plain, id=name))
            assert await handles[-1].query(Refund.ready)
        try:
            yield s.plain, handles
        finally:
            for handle in handles:
                if (await handle.describe()).status == 1:
                    await handle.terminate()


async def only(client: Any, plugin: Any, workflow_id: str) -> Any:
    listing = await list_challenges(client, plugin, workflow_id=workflow_id)
    assert listing.refused == ()
    [each] = listing.challenges
    return each


@pytest.mark.rule("approvals.P2")
@pytest.mark.rule("approvals.P3")
async def test_only_what_verifies_and_belongs_there_is_listed(stage, plugin, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = plugin_in(tmp_path / "other")
    name, now = unique(), time.time()
    good = challenge_of(plugin, workflow_id=name)
    memo = [
        entry(good),
        entry(challenge_of(stranger, workflow_id=name)),
        entry(challenge_of(plugin, workflow_id=name, signer=SigningKey.generate())),
        entry(challenge_of(plugin, workflow_id=name, iat=now - 60, exp=now - 30)),
        entry(challenge_of(plugin, workflow_id="another")),
        entry(challenge_of(plugin, workflow_id=name, workflow_type="Another")),
        entry(challenge_of(plugin, workflow_id=name, namespace="another", places=("another", "refunds", ("*",)))),
        {"challenge": good[0]},
        {"credential": good[1]},
        {"challenge": good[0], "credential": ["x"]},
        good[0],
        None,
        7,
        [[[[]]]],
        entry(good),
    ]
    async with waiting(stage, plugin, memo, ids=[name]) as (client, [handle]):
        listing = await list_challenges(client, plugin, workflow_id=name)
        assert [each.challenge.text for each in listing.challenges] == [good[0]]
        assert len(listing.refused) == 13
        assert all(each.startswith(f"{name}: ") for each in listing.refused)
        assert sum("of another workflow" in each for each in listing.refused) == 3
        [each] = listing.challenges
        assert (each.id, each.run_id, each.answers) == (each.claims.request, handle.result_run_id, ())
        settings = plugin.gate.settings
        anchors = Trusted(plugin.gate.trust, settings.trust_domain, settings.cluster)
        assert (await list_challenges(client, anchors, workflow_id=name)).challenges == listing.challenges
        elsewhere = Trusted(plugin.gate.trust, settings.trust_domain, "elsewhere")
        assert (await list_challenges(client, elsewhere, workflow_id=name)).challenges == ()


@pytest.mark.rule("approvals.P1")
async def test_a_memo_that_is_no_list_or_too_much_of_one_is_refused(stage, plugin):
    name = unique()
    good = entry(challenge_of(plugin, workflow_id=name))
    memos = ["text", {"challenge": "x"}, 7, [["x"]] * 40, ["x" * MAX_MEMO_BYTES], [7] * MAX_CHALLENGES + [good]]
    ids = [unique() for _ in memos[:-1]] + [name]
    async with waiting(stage, plugin, *memos, ids=ids) as (client, handles):
        for handle, says in zip(
            handles,
            ("no list", "no list", "no list", "the first 32 are read", "bytes of challenges", "the first 32 are read"),
            strict=True,
        ):
            listing = await list_challenges(client, plugin, workflow_id=handle.id)
            assert listing.challenges == ()
            assert says in listing.refused[0]
            assert len(listing.refused) <= MAX_CHALLENGES + 1


async def test_a_running_workflow_is_found_in_the_list_and_a_query_narrows_it(stage, plugin):
    names = [unique(), unique()]
    memos = [
        [entry(challenge_of(plugin, workflow_id=name, iat=time.time() - age))]
        for name, age in zip(names, (5, 50), strict=True)
    ]
    async with waiting(stage, plugin, *memos, ids=names) as (client, _):
        wanted = " OR ".join(f'WorkflowId = "{name}"' for name in names)
        for _ in range(200):  # visibility follows a little later
            listing = await list_challenges(client, plugin, query=wanted)
            if len(listing.challenges) == 2:
                break
            await asyncio.sleep(0.05)
        assert [each.claims.workflow_id for each in listing.challenges] == names[::-1], "oldest first"
        assert listing.complete
        found = await list_challenges(client, plugin, query=f'WorkflowId = "{names[0]}"')
        assert [each.claims.workflow_id for each in found.challenges] == names[:1]
        with pytest.raises(ChallengeError, match="does not say"):
            await list_challenges(client, plugin, query="no query")
        with pytest.raises(ChallengeError, match="no workflow nowhere"):
            await list_challenges(client, plugin, workflow_id="nowhere")


async def test_an_encrypted_memo_is_read_with_the_workers_converter(stage, plugin):
    name = unique()
    memo = [entry(challenge_of(plugin, workflow_id=name))]
    async with waiting(stage, plugin, memo, ids=[name], client_options={"data_converter": MIRRORED}) as (
        client,
        [handle],
    ):
        s = await stage(plugin=plugin)
        listing = await list_challenges(s.plain, plugin, workflow_id=name)
        assert listing.challenges == ()
        assert "cannot be decoded" in listing.refused[0]
        await approve(client, plugin, await only(client, plugin, name), principal=FAY)
        [answer] = (await only(client, plugin, name)).answers
        assert answer.sub == FAY
        await handle.signal(Refund.end)
        assert len(await handle.result()) == 1


async def test_an_answer_is_signed_sent_and_shown(stage, plugin):
    name = unique()
    memo = [entry(challenge_of(plugin, workflow_id=name, needs=(finance(quorum=2),)))]
    async with waiting(stage, plugin, memo, ids=[name]) as (client, [handle]):
        each = await only(client, plugin, name)
        sent = await approve(client, plugin, each.id[:8], principal=FAY, reason="seen", workflow_id=name)
        await approve(client, plugin, each.id, principal=FAY, workflow_id=name)
        await reject(client, plugin, each, principal=Principal("User", "aud"), reason="no")
        with pytest.raises(AuthorizationDenied, match="nobody but finance is asked"):
            await approve(client, plugin, each, principal='User::"mallory"')
        now = time.time()
        each = await only(client, plugin, name)
        assert [(answer.sub, answer.verdict) for answer in each.answers] == [
            (FAY, "approve"),
            (FAY, "approve"),
            ('User::"aud"', "reject"),
        ]
        assert each.answers[0] == sent
        assert each.agreed("finance", now) == (FAY,)
        assert each.agreed("finance", now + 4000) == ()
        assert each.agreed("others", now) == ()
        await handle.signal(Refund.end)
        texts = await handle.result()
        assert [parse(text, Approval).claims for text in texts] == list(each.answers)


@pytest.mark.rule("approvals.P4")
async def test_answers_that_do_not_verify_are_not_shown(stage, plugin, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = plugin_in(tmp_path / "other")
    name = unique()
    asked = challenge_of(plugin, workflow_id=name)
    async with waiting(stage, plugin, [entry(asked)], ids=[name]) as (client, [handle]):
        each = await only(client, plugin, name)
        good = await approve(client, plugin, each, principal=FAY)
        claims = good.model_copy(update={"sub": 'User::"mallory"'})
        forged = sign(claims, stranger._authority._state.signer("approval")).text
        unrelated = sign(
            claims.model_copy(update={"challenge": digest("x")}), plugin._authority._state.signer("approval")
        ).text
        for junk in (forged, unrelated, "junk", 7, None, {"a": 1}, "x" * 200_000):
            await client.get_workflow_handle(name).signal(APPROVAL_SIGNAL, junk)
        await handle.signal(APPROVAL_SIGNAL, args=["two", "arguments"])
        assert (await only(client, plugin, name)).answers == (good,)


@pytest.mark.rule("approvals.P5")
async def test_an_id_names_one_challenge_or_none(stage, plugin):
    name = unique()
    request = digest("request")
    twins = [entry(challenge_of(plugin, workflow_id=name, request=request, args=digest(text))) for text in "ab"]
    async with waiting(stage, plugin, twins, ids=[name]) as (client, [handle]):
        for given, says in (
            (request, "2 ids begin with"),
            (request[:7], "too short"),
            ("", "too short"),
            (digest("other"), "Nothing waits under the id"),
        ):
            with pytest.raises(ChallengeError, match=says):
                await approve(client, plugin, given, principal=FAY, workflow_id=name)
        await handle.signal(Refund.end)
        assert await handle.result() == []


async def test_who_answers_too_late_is_told_so(stage, plugin):
    name = unique()
    memo = [entry(challenge_of(plugin, workflow_id=name))]
    async with waiting(stage, plugin, memo, ids=[name]) as (client, [handle]):
        each = await only(client, plugin, name)
        await handle.signal(Refund.end)
        assert await handle.result() == []
        with pytest.raises(ChallengeError, match=r"could not be sent to .*: the run has ended"):
            await approve(client, plugin, each, principal=FAY)
        assert (await list_challenges(client, plugin, workflow_id=name)).challenges == ()
        with pytest.raises(ChallengeError, match="Nothing waits"):
            await approve(client, plugin, each.id, principal=FAY, workflow_id=name)


async def test_a_principal_of_another_form_is_refused(stage, plugin):
    s = await stage(plugin=plugin)
    with pytest.raises(ValueError, match="is not a Cedar entity"):
        await approve(s.plain, plugin, "x" * 43, principal="fay")
