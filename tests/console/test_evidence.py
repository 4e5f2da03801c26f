"""Following journals and stores: bounded, and stopped by nothing that is wrong with one of them."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import sqlite3
import threading
import time
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from exequatur.console import evidence as module
from exequatur.console import tails
from exequatur.console.decision import MAX_BODY, decision_of
from exequatur.console.evidence import Decisions
from exequatur.lineage.journal import Journal
from exequatur.lineage.link import linked
from exequatur.lineage.record import Record, genesis, head_text, read
from exequatur.lineage.store import EvidenceStore
from exequatur.statements.encoding import compact_json
from tests.authority.running import eventually
from tests.console.running import decision, write


def actions(decisions: Decisions, place: int = 0) -> list[str]:
    return [row.action for row in decisions.since(place).rows]


async def test_what_is_written_is_seen_and_nothing_twice(tmp_path):
    write(tmp_path, decision(activity_type="first"))
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    assert actions(decisions) == ["first"]
    with Journal.open(tmp_path / "state" / "journal") as journal:
        await journal.append("decision", decision(activity_type="second", decision="deny", enforced=False))
        decisions.look()
        decisions.look()
    assert actions(decisions) == ["first", "second"]
    assert actions(decisions, 1) == ["second"]
    counts = decisions.counts()
    assert (counts.total, counts.outcomes, counts.observed) == (2, {"allow": 1, "deny": 1, "none": 0}, 1)
    assert sum(counts.policies.values()) == 2
    assert sum(sum(each.values()) for _, each in counts.minutes) == 2
    decisions.look()
    assert decisions.since(2).rows == ()


async def test_two_workers_are_followed_at_the_same_time(tmp_path):
    decisions = Decisions([tmp_path / "state"])
    folder = tmp_path / "state" / "journal"
    with Journal.open(folder) as one, Journal.open(folder) as other:
        for number in range(5):
            await one.append("decision", decision(activity_type=f"one-{number}"))
            await other.append("decision", decision(activity_type=f"other-{number}"))
            decisions.look()
    assert sorted(actions(decisions)) == sorted(f"{who}-{n}" for who in ("one", "other") for n in range(5))


@pytest.mark.rule("evidence.E1")
async def test_a_source_that_cannot_be_read_is_named_and_stops_nobody_else(tmp_path):
    write(tmp_path, decision(activity_type="seen"))
    folder = tmp_path / "state" / "journal"
    (folder / "garbage.db").write_bytes(os.urandom(4096))
    (folder / "empty.db").write_bytes(b"")
    with sqlite3.connect(folder / "other.db") as db:
        db.execute("CREATE TABLE x (y)")
    (folder / "folder.db").mkdir()
    document = tmp_path / "bundle.json"
    document.write_text("{}")
    missing = f"sqlite:///{tmp_path}/none.db"
    decisions = Decisions([tmp_path / "state", tmp_path / "nowhere", document, missing, "postgresql://127.0.0.1:1/x"])
    decisions.look()
    assert actions(decisions) == ["seen"]
    assert {name.rpartition("/")[2] for name in decisions.problems} >= {
        "garbage.db",
        "empty.db",
        "other.db",
        "folder.db",
        "nowhere",
        "bundle.json",
        "none.db",
    }
    assert all("Traceback" not in each for each in decisions.problems.values())
    row = decisions.since(0).rows[0]
    [path] = [Path(name) for name, tail in decisions._tails.items() if tail.one(row.log, row.index)]
    path.write_bytes(os.urandom(4096))
    assert decisions.record(row.log, row.index) is None
    assert str(path) in decisions.problems


@pytest.mark.rule("evidence.E1")
async def test_a_journal_that_is_locked_is_followed_again_once_it_is_free(tmp_path):
    write(tmp_path, decision(activity_type="before"))
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    [path] = (tmp_path / "state" / "journal").glob("*.db")
    shutil.move(path, path.with_suffix(".away"))
    decisions.look()
    assert decisions.problems
    shutil.move(path.with_suffix(".away"), path)
    decisions._due.clear()
    decisions.look()
    assert actions(decisions) == ["before"]


@pytest.mark.rule("evidence.E2", "evidence.E3")
async def test_memory_is_bounded_and_a_slow_reader_is_told_what_it_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 10)
    monkeypatch.setattr(module, "MOST_NAMES", 5)
    monkeypatch.setattr(tails, "FIRST", 1000)
    rows = [decision(activity_type=f"a-{n}", policies=[f"p-{n}"]) for n in range(25)]
    decisions = Decisions([tmp_path / "state"])
    with Journal.open(tmp_path / "state" / "journal") as journal:
        for row in rows:
            await journal.append("decision", row)
            decisions.look()
    batch = decisions.since(3)
    assert [row.action for row in batch.rows] == [f"a-{n}" for n in range(15, 25)]
    assert (batch.place, batch.lost) == (25, 12)
    assert decisions.since(0).lost == 0
    counts = decisions.counts()
    assert (counts.total, len(counts.policies)) == (25, 5)
    for minute in range(500):
        decisions._count(replace(batch.rows[0], at=time.time() - 60.0 * minute))
    assert len(decisions._minutes) <= module.MINUTES
    assert len(decisions._seconds) <= 60
    monkeypatch.setattr(module, "MOST_BYTES", 12_000)
    long = [replace(batch.rows[0], index=n, reason="x" * 3000) for n in range(100, 108)]
    decisions._take(long)
    assert [row.index for row in decisions.since(0).rows] == [105, 106, 107]
    assert decisions._bytes == sum(row.size for row in decisions.since(0).rows)


@pytest.mark.rule("evidence.E2")
async def test_one_look_brings_no_more_than_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 20_000)
    decisions = Decisions([tmp_path / "state"])
    with Journal.open(tmp_path / "state" / "journal") as journal:
        await journal.append("decision", decision())
        decisions.look()
        for number in range(40):
            journal.enqueue("decision", decision(activity_type=f"a-{number}", reason="x" * 900))
        await journal.append("decision", decision(activity_type="last"))
    taken: list[int] = []
    monkeypatch.setattr(decisions, "_take", lambda rows, take=decisions._take: (taken.append(len(rows)), take(rows)))
    for _ in range(6):
        decisions.look()
    assert max(taken) < 25
    assert sum(taken) == 41
    assert actions(decisions)[-1] == "last"


@pytest.mark.rule("evidence.E2")
async def test_one_look_at_many_journals_brings_no_more_than_fits(tmp_path, monkeypatch):
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders:
        folder.mkdir()
        write(folder, decision(reason="x" * 900))
    monkeypatch.setattr(module, "MOST_BYTES", 5_000)
    decisions = Decisions([folder / "state" for folder in folders])
    decisions.look()
    assert 0 < decisions.counts().total < 6


@pytest.mark.rule("evidence.E2")
def test_clocks_of_workers_push_nothing_out_of_the_counts(tmp_path):
    decisions, now = Decisions([tmp_path]), time.time()
    ahead = [now + 86400 * 365 + 60 * n for n in range(100)]
    times = [now - 1.5, *ahead, float("nan"), float("inf"), -1e300, 1e300, now - 1e7]
    found = [
        decision_of(Record("0" * 16, n, at, "decision", None, None, None, decision(), "x"), 0)
        for n, at in enumerate(times)
    ]
    decisions._take([row for row in found if row is not None])
    counts = decisions.counts()
    assert counts.total == len(times)
    assert sum(sum(each.values()) for _, each in counts.minutes) == 1
    assert counts.rate > 0


@pytest.mark.rule("evidence.E4")
@pytest.mark.parametrize("apart", [True, False])
async def test_a_record_counts_once_wherever_it_is_followed(tmp_path, apart):
    write(tmp_path, decision(activity_type="a"), decision(activity_type="b"))
    [path] = (tmp_path / "state" / "journal").glob("*.db")
    records = list(read(path))
    other: str | Path = f"sqlite:///{tmp_path}/evidence.db"
    if apart:
        with EvidenceStore.open(other) as store:
            store.append(records[0].log_id, records, head_text(genesis(records[0].log_id)))
    else:
        other = tmp_path / "copies"
        other.mkdir()
        shutil.copy(path, other / "copy.db")
    decisions = Decisions([tmp_path / "state", other])
    decisions.look()
    assert actions(decisions) == ["a", "b"]
    assert decisions.counts().total == 2


@pytest.mark.rule("tails.W1")
@pytest.mark.parametrize("grown", [False, True])
async def test_a_journal_that_is_rolled_back_is_named_and_followed_on(tmp_path, grown):
    folder = tmp_path / "state" / "journal"
    write(tmp_path, decision(activity_type="a"))
    [path] = folder.glob("*.db")
    shutil.copy(path, tmp_path / "old")
    for number in range(3):
        with Journal.open(folder) as journal:
            await journal.append("decision", decision(activity_type=f"b{number}"))
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    for file in folder.glob(f"{path.name}*"):
        file.unlink()
    shutil.copy(tmp_path / "old", path)
    if grown:
        for number in range(5):
            with Journal.open(folder) as journal:
                await journal.append("decision", decision(activity_type=f"c{number}"))

    def look() -> str:
        decisions._due.clear()
        decisions.look()
        return decisions.problems.get(str(path), "")

    assert "rolled back" in look()
    with Journal.open(folder) as journal:
        await journal.append("decision", decision(activity_type="new"))
    assert "rolled back" in look()  # also while it goes on
    assert actions(decisions)[-1] == "new"
    assert "rolled back" in look()


async def test_another_journal_in_the_place_of_one_is_followed(tmp_path):
    write(tmp_path, decision(activity_type="a"), decision(activity_type="b"))
    [path] = (tmp_path / "state" / "journal").glob("*.db")
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    path.unlink()
    (tmp_path / "another").mkdir()
    write(tmp_path / "another", decision(activity_type="c"))
    [other] = (tmp_path / "another" / "state" / "journal").glob("*.db")
    shutil.move(other, path)
    decisions.look()
    assert actions(decisions) == ["a", "b", "c"]
    assert not decisions.problems


async def test_the_newest_come_last_also_where_an_old_journal_is_longer(tmp_path):
    for name, count in (("old", 2500), ("new", 10)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, *[decision(activity_type=name)] * count)
        [path] = (tmp_path / name / "state" / "journal").glob("*.db")
        os.utime(path, (1e9, 1e9 + (name == "new")))
    decisions = Decisions([tmp_path / "old" / "state", tmp_path / "new" / "state"])
    for _ in range(3):
        decisions.look()
    assert actions(decisions)[-11:] == ["old", *["new"] * 10]


@pytest.mark.rule("evidence.E1")
async def test_a_position_that_nobody_can_count_on_stops_nobody_else(tmp_path):
    write(tmp_path, decision(activity_type="seen"))
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", decision(activity_type="odd"))
    [path] = (tmp_path / "other" / "state" / "journal").glob("*.db")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET idx = 9223372036854775807 WHERE idx = (SELECT max(idx) FROM records)")
    decisions = Decisions([tmp_path / "other" / "state", tmp_path / "state"])
    for _ in range(3):
        decisions.look()
    assert "seen" in actions(decisions)


async def test_of_journals_that_the_first_look_has_no_time_for_what_is_new_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WITHIN", 0.0)
    write(tmp_path, decision(activity_type="before"))
    decisions = Decisions([tmp_path / "state"])
    for _ in range(3):
        decisions.look()
    assert actions(decisions) == []
    with Journal.open(tmp_path / "state" / "journal") as journal:
        await journal.append("decision", decision(activity_type="after"))
    decisions._due.clear()
    decisions.look()
    assert actions(decisions) == ["after"]


@pytest.mark.rule("evidence.E1")
@pytest.mark.parametrize("says", [b"", b"X" * 200], ids=["nothing", "garbage"])
async def test_a_store_that_says_nothing_holds_up_nothing(tmp_path, says):
    write(tmp_path, decision(activity_type="before"))
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with suppress(OSError):
            while says:
                with server.accept()[0] as asked:
                    asked.sendall(says)

    threading.Thread(target=answer, daemon=True).start()
    url = f"postgresql://exequatur:hunter2@127.0.0.1:{server.getsockname()[1]}/evidence"
    decisions = Decisions([tmp_path / "state", url])
    try:
        decisions.start()
        assert actions(decisions) == ["before"]
        write(tmp_path, decision(activity_type="after"))
        await eventually(lambda: actions(decisions)[-1] == "after")
        if says:
            await eventually(lambda: decisions.problems)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        await asyncio.to_thread(decisions.close)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a driver that was cut off leaves its socket open
        await eventually(lambda: not any(each.is_alive() for each in decisions._threads))
        gc.collect()
    assert "hunter2" not in repr(decisions.problems)


@pytest.mark.rule("evidence.E1")
def test_no_password_of_a_store_is_told(tmp_path):
    urls = [
        "postgresql://exequatur:hunter2@127.0.0.1:1/x",
        "postgresql://exequatur:hunter2@127.0.0.1:1/x?sslmode=hunter2",
        "mysql://exequatur:hunter2@127.0.0.1/x",
        "postgresql://exequatur:hun@ter2:hunter2@127.0.0.1:x/x",
    ]
    decisions = Decisions(urls)
    decisions.look()
    assert len(decisions.problems) >= 3
    assert "hunter2" not in repr(decisions.facts())


async def test_only_the_end_of_a_long_journal_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "FIRST", 3)
    write(tmp_path, *[decision(activity_type=f"a-{n}") for n in range(10)])
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    assert actions(decisions) == ["a-7", "a-8", "a-9"]


async def test_a_store_is_followed(tmp_path):
    write(tmp_path, decision(activity_type="shipped"))
    [path] = (tmp_path / "state" / "journal").glob("*.db")
    url = f"sqlite:///{tmp_path}/evidence.db"
    records = list(read(path))
    with EvidenceStore.open(url) as store:
        store.append(records[0].log_id, records, head_text(genesis(records[0].log_id)))
    assert linked(records, head_text(genesis(records[0].log_id)))
    decisions = Decisions([url])
    decisions.look()
    assert actions(decisions) == ["shipped"]
    row = decisions.since(0).rows[0]
    assert decisions.record(row.log, row.index) == records[row.index]
    decisions.close()


async def test_a_console_follows_by_itself(tmp_path):
    decisions = Decisions([tmp_path / "state"])
    decisions.start()
    try:
        write(tmp_path, decision(activity_type="soon"))
        await eventually(lambda: decisions.place)
    finally:
        decisions.close()
    assert actions(decisions) == ["soon"]


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":1,"a":2}',
    compact_json({"decision": 1, "policies": "x", "attempt": -1, "principal": [], "workflow_id": {}}),
    compact_json({"activity_type": "x" * 10_000, "policies": ["p" * 5000] * 50, "attempt": 2**70}),
    compact_json({"enforced": {"decision": ["x"]}, "kind": 7, "name": None}),
    b'"' + b"x" * (MAX_BODY + 1) + b'"',
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("kind", ["decision", "authority", "nexus", "message", "receipt", "shadow", "bundle", "x"])
def test_a_record_that_is_anything_makes_a_small_row_or_none(kind, body):
    row = decision_of(Record("0" * 16, 0, float("nan"), kind, None, None, None, body, "x"), 1)
    if row is not None:
        assert len(repr(row)) < 50_000
        assert row.outcome in ("allow", "deny", "none")
        assert isinstance(row.attempt, int)
