"""The revocation feed over HTTP: followed, added to, lifted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from exequatur.authority import api
from exequatur.revocation.entry import read_entry
from exequatur.revocation.feed import Feed
from exequatur.statements.jws import parse
from exequatur.statements.models import RevocationHead
from tests.authority.running import BOSS, DANA, EVE, Running, running

GRANT = {"reason": "stolen laptop", "grant": "g-1"}
ALL = {"reason": "fire", "everything": True}


async def revoke(authority: Running, body: Any, who: str = BOSS) -> Any:
    return await authority.ask("POST", api.REVOCATIONS_PATH, who, body)


async def page(authority: Running, **query: Any) -> api.FeedPage:
    answer = await authority.ask("GET", api.REVOCATIONS_PATH, params=query)
    assert answer.status_code == 200, answer.text
    return api.FeedPage.model_validate_json(answer.content)


async def test_what_is_revoked_is_in_the_signed_feed_before_the_answer(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        assert (await revoke(authority, GRANT, DANA)).json() == {"version": 1}
        assert (await revoke(authority, {"reason": "left", "principal": DANA})).json() == {"version": 2}
        found = await page(authority)
        head = parse(found.head, RevocationHead)
        authority.service.authority.state.trust.verify(head)
        feed = Feed().extended(read_entry(each) for each in found.entries)
        assert (head.claims.version, head.claims.head, head.claims.aud) == (2, feed.link, "exequatur.local/default")
        assert [entry.named for entry in feed.entries] == [{"grant": "g-1"}, {"principal": DANA}]
        assert (await page(authority, after=1)).entries == found.entries[1:]
        assert (await authority.exchange(DANA)).status_code == 403
        record = next(each for each in authority.records() if each["action"] == "revocation.add")
        assert (record["principal"], record["decision"], record["entry"]["grant"]) == (DANA, "allow", "g-1")
        assert json.loads(record["facts"])["revocation"] == {
            "everything": False,
            "reason": "stolen laptop",
            "grant": "g-1",
        }


async def test_who_waits_hears_of_a_revocation_when_it_is_made(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        waiting = asyncio.ensure_future(page(authority, after=0, wait=30))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await revoke(authority, GRANT)
        assert [each["grant"] for each in (await waiting).entries] == ["g-1"]
        assert (await page(authority, after=1, wait=0.1)).entries == ()


async def test_who_waits_is_answered_when_the_authority_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        waiting = asyncio.ensure_future(page(authority, after=0, wait=30))
        await asyncio.sleep(0.2)
        authority.stop.set()
        assert (await waiting).entries == ()


async def test_only_so_many_wait_for_long_and_who_comes_later_hears_of_news_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.authority.service.giving.BRIEFLY", 0.2)
    async with running(tmp_path, config="[limits]\npolls = 1\n") as authority:
        waiting = asyncio.ensure_future(page(authority, after=0, wait=30))
        await asyncio.sleep(0.3)
        # One caller cannot keep the others from the feed, without which they do nothing any more.
        assert (await page(authority, after=0, wait=30)).entries == ()
        assert not waiting.done()
        await revoke(authority, GRANT)
        assert len((await waiting).entries) == 1


@pytest.mark.rule("revoking.H32")
async def test_policies_decide_who_revokes_what(authority: Running) -> None:
    for who, body in [(EVE, GRANT), (DANA, ALL)]:
        answer = await revoke(authority, body, who)
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert authority.service.gate.revocations.version == 0


@pytest.mark.rule("revoking.H33")
async def test_the_kill_switch_is_lifted_only_by_who_may_press_it(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        assert (await revoke(authority, ALL)).json() == {"version": 1}
        assert (await authority.exchange(DANA)).status_code == 403
        lift = {"reason": "it was a drill", "lifts": 1}
        assert (await revoke(authority, lift, DANA)).status_code == 403
        assert (await authority.exchange(DANA)).status_code == 403
        assert (await revoke(authority, lift, BOSS)).json() == {"version": 2}
        assert (await authority.exchange(DANA)).status_code == 200


@pytest.mark.rule("revoking.H33")
async def test_that_a_workflow_is_revoked_does_not_stand_in_the_way_of_lifting_it(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        assert (await revoke(authority, {"reason": "stop", "workflow": "w-1"}, DANA)).json() == {"version": 1}
        assert (await revoke(authority, {"reason": "twice", "workflow": "w-1"}, DANA)).json() == {"version": 2}
        for number in (1, 2):
            lift = {"reason": "it was another one", "lifts": number}
            assert (await revoke(authority, lift, EVE)).status_code == 403
            assert (await revoke(authority, lift, DANA)).json() == {"version": 2 + number}
        assert authority.service.gate.revocations.find({"workflow": "w-1"}) is None


@pytest.mark.rule("revoking.H33")
async def test_who_is_revoked_lifts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as authority:
        await revoke(authority, {"reason": "suspected", "principal": BOSS}, DANA)
        await revoke(authority, {"reason": "fire", "grant": "g-1"}, DANA)
        assert (await revoke(authority, {"reason": "it is me", "lifts": 1}, BOSS)).status_code == 403
        assert (await revoke(authority, {"reason": "all clear", "lifts": 1}, DANA)).json() == {"version": 3}
        assert (await revoke(authority, ALL, BOSS)).json() == {"version": 4}
        await revoke(authority, {"reason": "again", "principal": BOSS}, DANA)
        assert (await revoke(authority, {"reason": "it is me", "lifts": 4}, BOSS)).status_code == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": "nothing"}, 400),
        ({"reason": "both", "everything": True, "grant": "g"}, 400),
        ({"reason": "", "grant": "g"}, 400),
        ({"reason": "   ", "grant": "g"}, 400),
        ({"reason": "x" * 5000, "grant": "g"}, 400),
        ({"reason": "no such", "lifts": 1}, 404),
        ({"reason": "no such", "lifts": 10**20}, 404),
        ({"reason": "no such", "lifts": 0}, 400),
        ({"reason": "over", "grant": "g", "until": 5}, 400),
        ({"reason": "other", "tenant": "t"}, 400),
        ({"grant": "g"}, 400),
        ({"reason": "half a \ud800", "grant": "g"}, 400),
        ([], 400),
        (None, 415),
    ],
)
async def test_what_revokes_nothing_is_refused(authority: Running, body: Any, status: int) -> None:
    content = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    answer = await authority.ask("POST", api.REVOCATIONS_PATH, BOSS, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert authority.service.gate.revocations.version == 0


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "after=1e400", "wait=31", "wait=-1", "wait=nan", "after=99999999999999999999"]
)
async def test_a_question_that_makes_no_sense_is_refused(authority: Running, query: str) -> None:
    answer = await authority.ask("GET", f"{api.REVOCATIONS_PATH}?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
