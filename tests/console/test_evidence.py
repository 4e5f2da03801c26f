"""Following journals and stores: bounded, and stopped by nothing that is wrong with one of them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from exequatur.console import evidence as module
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
    monkeypatch.setattr(module, "FIRST", 1000)
    write(tmp_path, *[decision(activity_type=f"a-{n}", policies=[f"p-{n}"]) for n in range(25)])
    decisions = Decisions([tmp_path / "state"])
    decisions.look()
    batch = decisions.since(3)
    assert [row.action for row in batch.rows] == [f"a-{n}" for n in range(15, 25)]
    assert (batch.place, batch.lost) == (25, 12)
    assert decisions.since(0).lost == 0
    counts = decisions.counts()
    assert (counts.total, len(counts.policies)) == (25, 5)
    for minute in range(500):
        decisions._count(batch.rows[0].__class__(**{**batch.rows[0].plain(), "at": 60.0 * minute, "policies": ()}))
    assert len(decisions._minutes) <= module.MINUTES
    assert len(decisions._seconds) <= 60


async def test_only_the_end_of_a_long_journal_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST", 3)
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
