"""Where a feed is kept: in a folder and in both databases."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from exequatur.authority.feed import own_revocations
from exequatur.authority.state import open_state
from exequatur.errors import ConfigurationError, EvidenceError, ExequaturError, RevocationFeedError
from exequatur.revocation.database import DatabaseStore
from exequatur.revocation.database import entries as table
from exequatur.revocation.entry import Revocation, read_entry, revocation
from exequatur.revocation.feed import Feed
from exequatur.revocation.following import FollowedRevocations
from exequatur.revocation.publishing import KEEP_EVERY
from exequatur.revocation.revocations import OwnRevocations
from exequatur.revocation.store import FolderStore, RevocationStore
from exequatur.settings import Settings
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import Anchor
from tests.gate.single import OneActivity
from tests.lineage.postgres import Postgres
from tests.revocation.conftest import ISS, Authority, entries


@pytest.fixture
def database(url: str) -> Iterator[DatabaseStore]:
    store = DatabaseStore.open(url)
    yield store
    store.close()


@pytest.fixture(params=["folder", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RevocationStore]:
    if request.param == "folder":
        yield FolderStore(tmp_path)
        return
    with ExitStack() as stack:
        where = f"sqlite:///{tmp_path / 'feed.db'}"
        if request.param == "postgresql":
            where = stack.enter_context(request.getfixturevalue("postgres").database())
        yield stack.enter_context(closing(DatabaseStore.open(where)))


def test_what_is_added_is_read_by_everybody_in_its_order(store: RevocationStore) -> None:
    for number, entry in enumerate(entries("a", "b", "c"), 1):
        assert store.add(entry) == number
    feed = store.read(Feed())
    assert [entry.reason for entry in feed.entries] == ["a", "b", "c"]
    assert store.read(feed) == feed
    assert store.read(Feed().extended(feed.entries[:2])) == feed
    assert store.add(revocation(lifts=2, reason="over")) == 4
    with pytest.raises(ConfigurationError, match="lifted already"):
        store.add(revocation(lifts=2, reason="again"))
    assert store.read(feed).lifted_by(2) == 4


def test_those_who_add_at_the_same_time_lose_nothing(store: RevocationStore) -> None:
    def adds(name: str) -> None:
        for number in range(5):
            store.add(revocation(workflow=f"{name}{number}", reason="stop"))

    threads = [threading.Thread(target=adds, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.workflow for entry in store.read(Feed()).entries} == {f"{a}{b}" for a in "abc" for b in range(5)}


@pytest.mark.rule("RS2")
def test_a_feed_that_lacks_or_changes_what_was_known_cannot_be_used(store: RevocationStore) -> None:
    for entry in entries("a", "b"):
        store.add(entry)
    for known in (entries("a", "x"), entries("a", "b", "c")):
        with pytest.raises(RevocationFeedError, match="changed or removed"):
            store.read(Feed().extended(known))


@pytest.mark.rule("RS2")
def test_rows_that_were_edited_or_deleted_cannot_be_used(database: DatabaseStore) -> None:
    for entry in entries("a", "b", "c"):
        database.add(entry)
    whole = database.read(Feed())
    with database._engine.begin() as db:
        db.execute(update(table).where(table.c.version == 2).values(entry=entries("x")[0].line))
    with pytest.raises(RevocationFeedError, match="changed or removed"):
        database.read(Feed())
    with database._engine.begin() as db:
        db.execute(delete(table).where(table.c.version == 2))
    with pytest.raises(RevocationFeedError, match="changed or removed"):
        database.read(Feed())
    with database._engine.begin() as db:
        db.execute(delete(table))
    with pytest.raises(RevocationFeedError, match="changed or removed"):
        database.read(whole)


def test_an_empty_database_begins_with_what_the_folder_had(url: str, tmp_path: Path) -> None:
    folder = FolderStore(tmp_path)
    for entry in entries("a", "b"):
        folder.add(entry)
    store = DatabaseStore.open(url, first=folder)
    assert store.read(Feed()).entries == folder.read(Feed()).entries
    store.add(entries("c")[0])
    store.close()
    again = DatabaseStore.open(url, first=folder)
    assert again.read(Feed()).version == 3
    again.close()
    folder.add(entries("d")[0])
    with pytest.raises(ConfigurationError, match="lacks revocations that the state folder has"):
        DatabaseStore.open(url, first=folder)


def test_authorities_that_share_postgresql_share_their_feed(tmp_path: Path, postgres: Postgres) -> None:
    with postgres.database() as shared:
        settings = Settings(shared_state=shared)
        here, there = (own_revocations(open_state(tmp_path / name), settings) for name in ("here", "there"))
        assert here.slow
        assert here.add(revocation(principal='User::"eve"', reason="left")) == 1
        there.refresh()
        assert there.find({"principal": 'User::"eve"'})
        for each in (here, there):
            assert isinstance(each._store, DatabaseStore)
            each._store.close()


async def test_a_plugin_lets_go_of_the_shared_feed_with_its_last_worker_and_takes_it_up_again(
    stage: Callable[..., Any], postgres: Postgres
) -> None:
    with postgres.database() as shared:
        s = await stage(shared_state=shared)
        store = s.plugin.gate.revocations._store
        assert isinstance(store, DatabaseStore)
        for number in (1, 2):
            async with s.worker([OneActivity], []):
                assert s.plugin.revoke(workflow="w", reason="stop") == number
                assert store._engine.pool.checkedin()  # type: ignore[attr-defined]
            assert not store._engine.pool.checkedin()  # type: ignore[attr-defined]
        assert s.plugin.revoke(workflow="w", reason="without a worker") == 3
        store.close()


def test_a_feed_that_nobody_uses_any_more_holds_no_connection(url: str) -> None:
    store = DatabaseStore.open(url)
    store.add(entries("a")[0])
    pool = store._engine.pool
    assert pool.checkedin()  # type: ignore[attr-defined]
    del store
    gc.collect()
    assert not pool.checkedin()  # type: ignore[attr-defined]


def test_a_forked_child_uses_none_of_its_parents_connections(database: DatabaseStore) -> None:
    database.add(entries("a")[0])
    child = os.fork()
    if not child:
        try:
            inherited = database._engine.pool.checkedin()  # type: ignore[attr-defined]
            os._exit(0 if not inherited and database.add(entries("b")[0]) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert database.add(entries("c")[0]) == 3


def test_a_database_that_is_away_is_a_problem_and_nothing_is_revoked(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError):
        DatabaseStore.open("postgresql://nobody@127.0.0.1:1/none?sslmode=disable")
    assert not list(tmp_path.iterdir())


@pytest.mark.rule("RS1")
def test_half_a_line_was_never_acknowledged(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.add(entries("a")[0])
    with store.path.open("ab") as file:
        file.write(b'{"at":1,"reason":"b","workflow":"b"}')
    assert store.read(Feed()).version == 1
    assert store.add(entries("c")[0]) == 2
    assert [entry.reason for entry in FolderStore(tmp_path).read(Feed()).entries] == ["a", "c"]


@pytest.mark.rule("RS1")
def test_an_entry_that_the_disk_took_only_in_part_is_not_acknowledged(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.add(entries("a")[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.path.stat().st_size + 10, limits[1]))  # as on a full disk
    try:
        with pytest.raises(ExequaturError, match="was not written"):
            store.add(entries("b")[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.read(Feed()).version == 1
    assert store.add(entries("c")[0]) == 2


def test_a_long_feed_is_read_once(store: RevocationStore, tmp_path: Path) -> None:
    """Looking again, and adding, costs what is new."""
    many = Feed().extended(revocation(workflow=f"w{number}", reason="stop") for number in range(2000))
    if isinstance(store, DatabaseStore):
        assert store._insert(Feed(), many.entries)
    else:
        (tmp_path / "revocations").write_bytes(b"".join(entry.line + b"\n" for entry in many.entries))
    own = OwnRevocations(store)
    assert own.version == 2000
    parsed = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("store", "database"):
            read = partial(_counted, parsed)
            patch.setattr(f"exequatur.revocation.{module}.read_entry", read)
        own.tend()
        assert own.add(entries("x")[0]) == 2001
        own.tend()
    assert len(parsed) <= 2
    assert own.find({"workflow": "w1777"})
    assert own.feed.entries[:2000] == many.entries


def _counted(parsed: list[object], data: bytes) -> Revocation:
    parsed.append(data)
    return read_entry(data)


def test_a_feed_that_was_rolled_back_is_not_added_to(authority: Authority) -> None:
    """Another entry in the place of a lost one would be a second feed of the same authority."""
    for name in "ab":
        authority.revoke(workflow=name)
    path = authority.folder / "revocations"
    lines = path.read_bytes()
    path.write_bytes(lines.splitlines(keepends=True)[0])
    again = Authority(authority.folder, authority.key)
    with pytest.raises(RevocationFeedError, match="Nothing was revoked"):
        again.own.add(entries("c")[0])
    path.write_bytes(lines)
    assert again.own.add(entries("c")[0]) == 3


def test_an_entry_that_is_on_disk_is_not_said_to_be_missing(authority: Authority) -> None:
    store = authority.own._store
    added = store.add

    def spoiled(entry: Revocation) -> int:
        version = added(entry)
        (authority.folder / "revocations.head").write_text("nonsense")
        return version

    store.add = spoiled  # type: ignore[method-assign]
    with pytest.raises(RevocationFeedError, match=r"It was revoked \(entry 1\), but"):
        authority.own.add(entries("a")[0])


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 300 * 1024 * 1024)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"nonsense\n"),
        lambda path: path.write_bytes(b"\xff\n"),
        lambda path: path.write_bytes(b"\n"),
        lambda path: path.write_bytes(b"[" * 60_000 + b"\n"),
        _huge,
        Path.mkdir,
        os.mkfifo,
    ],
    ids=["no JSON", "no UTF-8", "an empty line", "too deep", "too large", "a folder", "a pipe"],
)
def test_a_file_that_is_no_feed_is_a_problem_and_is_not_added_to(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "revocations")
    own = OwnRevocations(FolderStore(tmp_path))
    assert own.problem
    assert own.doubt()
    with pytest.raises(ExequaturError):
        own.add(entries("a")[0])
    assert own.version == 0


@pytest.mark.rule("RH2")
def test_a_restart_does_not_forget_what_was_taken_out_of_the_file(authority: Authority) -> None:
    for name in "ab":
        authority.revoke(workflow=name)
    path = authority.folder / "revocations"
    lines = path.read_bytes().splitlines(keepends=True)
    for spoiled in (lines[0], b"", lines[1] + lines[0], lines[0] + lines[1].replace(b'"b"', b'"c"')):
        path.write_bytes(spoiled)
        again = Authority(authority.folder, authority.key)
        assert again.own.problem, spoiled
        with pytest.raises(RevocationFeedError):
            again.publisher.head()
    path.write_bytes(b"".join(lines))
    assert Authority(authority.folder, authority.key).own.problem is None


@pytest.mark.rule("RH1")
@pytest.mark.parametrize("spoil", ["forged", "nonsense", "a pipe"])
def test_a_head_that_nobody_signed_who_may_is_a_problem(authority: Authority, spoil: str) -> None:
    authority.revoke(workflow="a")
    head = authority.folder / "revocations.head"
    if spoil == "forged":
        head.write_text(authority.head(key=SigningKey.generate()).text)
    else:
        head.unlink()
        if spoil == "nonsense":
            head.write_bytes(b"\xff" * 2000)
        else:
            os.mkfifo(head)
    authority.own.refresh()
    assert "revocations.head" in (authority.own.problem or "")


@pytest.mark.rule("RH3")
def test_a_slower_process_does_not_put_an_older_head_back(authority: Authority) -> None:
    old = authority.head()
    authority.revoke(workflow="a")
    authority.publisher._file.write(old)
    held = authority.publisher._file.read()
    assert held is not None
    assert held.claims.version == 1


@pytest.mark.rule("RH3")
def test_a_head_that_was_signed_by_a_wrong_clock_is_replaced_when_the_clock_is_right(
    authority: Authority, follow: Callable[..., FollowedRevocations]
) -> None:
    authority.clock.off = 86_400
    authority.revoke(workflow="a")
    authority.clock.off = 0
    worker = follow()
    assert "in the future" in (worker.problem or "")
    authority.own.tend()
    worker.tend()
    assert (worker.version, worker.doubt()) == (1, None)


@pytest.mark.rule("RH4")
def test_a_clock_from_before_the_key_leaves_no_head_that_cannot_be_believed(authority: Authority) -> None:
    key = SigningKey.generate()
    authority.trust.add(Anchor(kid=key.kid, x=key.x, typ=(RevocationHead.typ,), iss=ISS, nbf=time.time() - 60))
    authority.key = key
    authority.clock.off = -3600
    with pytest.raises(RevocationFeedError, match="Is the clock right"):
        authority.publisher.keep()
    authority.clock.off = 0
    authority.own.tend()
    assert authority.own.doubt() is None
    assert authority.revoke(workflow="a") == 1


@pytest.mark.rule("RP1")
def test_no_head_is_signed_while_the_feed_cannot_be_read(authority: Authority) -> None:
    authority.revoke(workflow="a")
    (authority.folder / "revocations").write_text("nonsense\n")
    authority.own.tend()
    with pytest.raises(RevocationFeedError):
        authority.publisher.head()
    with pytest.raises(RevocationFeedError):
        authority.publisher.page(0)


def test_a_key_service_that_hangs_keeps_no_revocation_from_this_process(authority: Authority) -> None:
    answers = threading.Event()
    threading.Timer(2.0, answers.set).start()

    class Hangs:
        kid, x = authority.key.kid, authority.key.x

        def sign(self, data: bytes) -> bytes:
            answers.wait(10)
            return authority.key.sign(data)

    authority.publisher._signer = Hangs
    authority.own.tend()
    FolderStore(authority.folder).add(entries("a")[0])
    authority.own.tend()
    assert authority.own.find({"workflow": "a"})
    assert not answers.is_set()
    answers.set()
    until = time.monotonic() + 10
    while (held := authority.publisher._file.read()) is None or held.claims.version != 1:
        assert time.monotonic() < until
        authority.own.tend()


def test_a_head_is_signed_no_more_often_than_it_is_needed(authority: Authority) -> None:
    signed: list[bytes] = []
    key = authority.key

    class Counts:
        kid, x = key.kid, key.x

        def sign(self, data: bytes) -> bytes:
            signed.append(data)
            return key.sign(data)

    authority.revoke(workflow="a")
    twin = Authority(authority.folder, key, authority.clock)
    twin.publisher._signer = Counts
    authority.clock.off = KEEP_EVERY - 1
    twin.publisher.keep()
    assert not signed
    authority.clock.off = KEEP_EVERY + 1
    twin.publisher.keep()
    assert len(signed) == 1


@pytest.mark.rule("RP2")
async def test_whoever_knows_more_than_this_process_has_it_look_again(authority: Authority) -> None:
    FolderStore(authority.folder).add(entries("a")[0])
    page = await authority.publisher.next_page(1, 5.0)
    assert (authority.own.version, page.entries) == (1, ())
    assert (await authority.publisher.next_page(7, 5.0)).entries == ()


async def test_a_page_comes_when_there_is_something_new(authority: Authority) -> None:
    authority.own.add(entries("a")[0])
    page = await authority.publisher.next_page(0, 30.0)
    assert [entry.reason for entry in page.entries] == ["a"]
    assert (await authority.publisher.next_page(1, 30.0, ended=lambda: True)).entries == ()
    assert (await authority.publisher.next_page(1, 0.01)).entries == ()
