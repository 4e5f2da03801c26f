"""Two processes of one authority on two hosts: the same keys, one PostgreSQL."""

from __future__ import annotations

import gc
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from exequatur.authority import api
from exequatur.authority.state import open_state
from exequatur.revocation.database import DatabaseStore
from exequatur.revocation.revocations import OwnRevocations
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, RevocationHead
from tests.authority.running import BOSS, DANA, Running, running
from tests.authority.test_enrolment import enrol, order
from tests.lineage.conftest import postgres
from tests.lineage.postgres import Postgres

__all__ = ["postgres"]


@pytest_asyncio.fixture
async def two(tmp_path: Path, postgres: Postgres) -> AsyncIterator[tuple[Running, Running]]:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    open_state(first / "state")
    shutil.copytree(first, second)
    with postgres.database() as url:
        shared = {"shared_state": url}
        async with running(first, settings=shared) as one, running(second, settings=shared) as other:
            yield one, other
        for each in (one, other):  # a process keeps these connections to its end
            feed = each.service.gate.revocations
            assert isinstance(feed, OwnRevocations)
            assert isinstance(feed._store, DatabaseStore)
            feed._store.close()


@pytest.mark.rule("enrolment.H18")
async def test_either_answers_and_what_is_good_once_is_good_once(two: tuple[Running, Running]) -> None:
    one, other = two
    grants = [parse((await each.exchange()).json()["access_token"], Grant) for each in two]
    for each in grants:
        one.service.authority.state.trust.verify(each)
        other.service.authority.state.trust.verify(each)
    body = order(SigningKey.generate())
    assert (await enrol(one, body)).status_code == 200
    again = await enrol(other, body)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_request")
    assert "used before" in again.json()["error_description"]


async def test_what_one_revokes_the_other_refuses(two: tuple[Running, Running]) -> None:
    one, other = two
    assert (await other.exchange()).status_code == 200
    entry = {"reason": "left", "principal": DANA}
    assert (await one.ask("POST", api.REVOCATIONS_PATH, BOSS, entry)).json() == {"version": 1}
    assert (await other.exchange()).status_code == 403
    page = api.FeedPage.model_validate_json((await other.ask("GET", api.REVOCATIONS_PATH)).content)
    assert parse(page.head, RevocationHead).claims.version == 1
    assert (await other.ask("POST", api.REVOCATIONS_PATH, BOSS, {"reason": "back", "lifts": 1})).status_code == 200
    assert (await one.exchange()).status_code == 200


# pg8000 leaves the socket of a connection that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_without_the_database_nothing_is_decided_and_nobody_is_ready(
    two: tuple[Running, Running], postgres: Postgres
) -> None:
    one, _ = two
    postgres.stop()
    try:
        for answer in (
            await enrol(one, order(SigningKey.generate())),
            await one.ask("POST", api.REVOCATIONS_PATH, BOSS, {"reason": "left", "principal": DANA}),
            await one.exchange(),
            await one.ask("GET", api.READY_PATH, None),
        ):
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable"), answer.text
            assert "postgres" not in answer.text.lower()
        assert (await one.ask("GET", api.LIVE_PATH, None)).status_code == 200
    finally:
        postgres.start()
    gc.collect()
    for _ in range(100):
        if (await one.ask("GET", api.READY_PATH, None)).status_code == 200:
            break
    assert (await enrol(one, order(SigningKey.generate()))).status_code == 200
