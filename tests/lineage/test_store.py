"""The evidence store, on SQLite and PostgreSQL: what it takes in follows, what is there stays, forks are refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from exequatur.errors import ConfigurationError, EvidenceError, StoreUnavailableError
from exequatur.lineage import store_schema
from exequatur.lineage.checkpoint import Checkpoint, cosign, run_origin, sign
from exequatur.lineage.journal import Journal
from exequatur.lineage.link import Link, check_link, genesis_of
from exequatur.lineage.record import Record, fold, head_text, record_bytes, verify
from exequatur.lineage.store import EvidenceStore, Run
from exequatur.lineage.store_records import Log, fitting
from exequatur.statements.encoding import digest, to_base64url
from exequatur.statements.keys import SigningKey
from tests.lineage.chained import AT, LOG, OTHER, bundle, chained, decision, decisions, receipt, records_of
from tests.lineage.postgres import Postgres

INTERCEPTORS = Path(__file__).parents[2] / "interceptors"
START = genesis_of(LOG)


def all_of(store: EvidenceStore) -> list[Record]:
    return [record for log in store.logs() for record in records_of(store.records(log.log_id))]


def run_in_sql(store: EvidenceStore, statement: str) -> None:
    """Edit the database behind the store's back."""
    with store._engine.begin() as db:
        db.execute(text(statement))


# Adding to a log.


def test_records_come_back_as_they_were_with_the_head_before_each(store: EvidenceStore) -> None:
    records = chained(decision(), receipt(run_id="run-1"), bundle("permit(principal, action, resource);"))
    assert store.append(LOG, records, START) == 3
    links = list(store.records(LOG))
    heads = [START, records[0].head, records[1].head]
    assert links == [Link(record, before) for record, before in zip(records, heads, strict=True)]
    for link in links:
        check_link(link)
    assert store.log(LOG) == Log(LOG, 3, records[2].head)
    assert list(store.logs()) == [store.log(LOG)]


def test_a_log_that_nobody_shipped_is_empty(store: EvidenceStore) -> None:
    assert store.log(LOG) == Log(LOG, 0, START)
    assert list(store.logs()) == []
    assert store.append(LOG, [], START) == 0


def test_what_is_there_already_is_left_alone(store: EvidenceStore) -> None:
    records = decisions(5)
    assert store.append(LOG, records[:3], START) == 3
    assert store.append(LOG, records[:3], START) == 0
    assert store.append(LOG, records[1:2], records[0].head) == 0
    assert store.append(LOG, records[1:], records[0].head) == 2
    assert all_of(store) == records


def test_more_records_than_a_page_are_added_and_read(store: EvidenceStore) -> None:
    records = decisions(1203)
    assert store.append(LOG, records, START) == 1203
    assert all_of(store) == records
    assert records_of(store.of_run("refund-1", ["run-1"])) == records


def test_records_behind_the_end_of_the_log_are_refused(store: EvidenceStore) -> None:
    records = decisions(3)
    store.append(LOG, records[:1], START)
    with pytest.raises(EvidenceError, match="it ends at 1"):
        store.append(LOG, records[2:], records[1].head)
    assert all_of(store) == records[:1]


@pytest.mark.parametrize(
    "change",
    [
        {"at": AT + 0.5},
        {"kind": "receipt"},
        {"request": None},
        {"run": "another"},
        {"attempt": 2},
        {"body": b"{}"},
        {"head": digest("another")},
        {"index": 2},
        {"index": 7},
        {"log_id": OTHER},
    ],
    ids=str,
)
def test_a_record_that_does_not_follow_refuses_all_that_came_with_it(
    store: EvidenceStore, change: dict[str, Any]
) -> None:
    records = decisions(2)
    records[1] = replace(records[1], **change)
    with pytest.raises(EvidenceError):
        store.append(LOG, records, START)
    assert list(store.logs()) == []


def test_records_of_another_log_are_refused(store: EvidenceStore) -> None:
    with pytest.raises(EvidenceError, match=OTHER):
        store.append(OTHER, decisions(1), START)
    assert list(store.logs()) == []


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -0.0, -1.0])
def test_a_time_that_a_database_would_not_give_back_is_refused(store: EvidenceStore, at: float) -> None:
    with pytest.raises(EvidenceError, match="time that no clock shows"):
        store.append(LOG, chained(decision(), at=[at]), START)


def test_a_body_that_no_journal_takes_is_refused(store: EvidenceStore) -> None:
    limit = 16 * 1024 * 1024
    assert store.append(LOG, chained(("receipt", b"x" * limit)), START) == 1
    with pytest.raises(EvidenceError, match="length"):
        store.append(OTHER, chained(("receipt", b"x" * (limit + 1)), log_id=OTHER), genesis_of(OTHER))


@pytest.mark.parametrize("change", [{"attempt": -1}, {"attempt": 2**63}, {"kind": "\ud800"}])
def test_a_value_that_cannot_be_hashed_is_refused(store: EvidenceStore, change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="no journal writes"):
        store.append(LOG, [replace(decisions(1)[0], **change)], START)


def test_a_link_to_something_that_is_no_head_is_refused() -> None:
    record = replace(decisions(1)[0], index=1)
    hashed = record_bytes(record.kind, record.at, record.request, record.run, record.attempt, record.body)
    for before in (b"", b"x" * 31, b"x" * 33):
        link = Link(replace(record, head=head_text(fold(before, hashed))), to_base64url(before))
        with pytest.raises(EvidenceError, match="no head"):
            check_link(link)


def test_a_first_record_after_anything_but_the_genesis_is_refused(store: EvidenceStore) -> None:
    moved = chained(decision(), after=replace(decisions(1)[0], index=-1))
    with pytest.raises(EvidenceError, match="Z10"):
        store.append(LOG, moved, decisions(1)[0].head)


@pytest.mark.parametrize("after", ["", "no head", digest("another"), START + "="])
def test_records_after_something_else_are_refused(store: EvidenceStore, after: str) -> None:
    with pytest.raises(EvidenceError):
        store.append(LOG, decisions(1), after)


@pytest.mark.parametrize("log_id", ["", "00112233AABBCCDD", "zz", LOG + "00", LOG + "\n"])
def test_what_is_no_log_id_is_refused(store: EvidenceStore, log_id: str) -> None:
    with pytest.raises(EvidenceError, match="not the id of a log"):
        store.log(log_id)
    with pytest.raises(EvidenceError):
        store.append(log_id, decisions(1), START)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_log_that_goes_another_way_is_a_fork_and_nothing_of_it_is_stored(store: EvidenceStore, count: int) -> None:
    """Within what is there, up to its end, and beyond it."""
    records = decisions(3)
    store.append(LOG, records, START)
    forged = chained(*(decision(forged=number) for number in range(count)), after=records[0])
    with pytest.raises(EvidenceError, match="log forked: record 1"):
        store.append(LOG, forged, records[0].head)
    with pytest.raises(EvidenceError, match="log forked: record 1"):
        store.append(LOG, [records[0], *forged], START)
    assert all_of(store) == records
    assert store.log(LOG).size == 3


def test_a_fork_right_behind_the_end_of_the_log_is_refused(store: EvidenceStore) -> None:
    records, forged = decisions(3), chained(decision(forged=1), decision(forged=2))
    store.append(LOG, records[:1], START)
    with pytest.raises(EvidenceError, match="log forked: record 1"):
        store.append(LOG, forged[1:], forged[0].head)
    assert all_of(store) == records[:1]


@pytest.mark.parametrize("name", ["a\0b", "naïve ☃ \U0001f600", "x" * 2048, "'; DROP TABLE evidence_records; --", " "])
def test_names_are_kept_exactly_whatever_characters_they_hold(store: EvidenceStore, name: str) -> None:
    records = chained(decision(name, "run-1"), (name, b"a kind of its own"))
    store.append(LOG, records, START)
    assert records_of(store.of_run(name, ["run-1"])) == records[:1]
    assert list(store.runs()) == [Run(name, "run-1")]
    assert all_of(store) == records


def test_a_name_too_long_for_any_index_does_not_stop_the_log(store: EvidenceStore) -> None:
    noise = os.urandom(3000).hex()
    assert store.append(LOG, chained(decision(noise, noise)), START) == 1
    assert list(store.runs()) == []


# Reading.


def test_a_run_has_the_records_of_all_logs_that_name_it(store: EvidenceStore) -> None:
    one = chained(
        decision("refund-1", "run-1"),
        decision("refund-1", "run-2"),
        receipt(run_id="run-1"),
        receipt(workflow_id="another", run_id="run-1"),
        decision("refund-1", None),
        bundle("text"),
    )
    other = chained(decision("refund-1", "run-1"), ("seal", b"not a seal"), log_id=OTHER)
    store.append(LOG, one, START)
    store.append(OTHER, other, genesis_of(OTHER))
    assert records_of(store.of_run("refund-1", ["run-1"])) == [one[0], one[2], other[0], one[4]]
    both = records_of(store.of_run("refund-1", ["run-2", "run-1", "run-2"]))
    assert both == [one[1], one[0], one[2], other[0], one[4]]
    assert records_of(store.of_run("refund-1", [])) == [one[4]]
    assert records_of(store.of_run("another", ["run-1"])) == [one[2], one[3]]
    assert records_of(store.of_run("nobody", ["run-9"])) == []


def test_the_runs_are_those_that_records_name(store: EvidenceStore) -> None:
    store.append(
        LOG,
        chained(
            decision("refund-1", "run-1"),
            receipt(run_id="run-1"),
            decision("refund-2", "run-2"),
            decision("refund-1", "run-3"),
            receipt(run_id="run-4"),
            decision("refund-1", None),
        ),
        START,
    )
    assert list(store.runs()) == [
        Run("refund-1", "run-1"),
        Run("refund-2", "run-2"),
        Run("refund-1", "run-3"),
        Run(None, "run-4"),
    ]
    assert list(store.runs("refund-1")) == [Run("refund-1", "run-1"), Run("refund-1", "run-3")]


def test_more_runs_than_a_page_are_listed(store: EvidenceStore) -> None:
    records = chained(*(decision(run_id=f"run-{number:04}") for number in range(1100)))
    store.append(LOG, records, START)
    assert [run.run_id for run in store.runs()] == [f"run-{number:04}" for number in range(1100)]


def test_large_bodies_are_read_a_few_at_a_time() -> None:
    assert fitting([100] * 500) == 500
    assert fitting([4 << 20, 4 << 20, 1]) == 2
    assert fitting([16 << 20, 1]) == 1


def test_a_reader_can_stop_in_the_middle_and_others_go_on(store: EvidenceStore) -> None:
    records = decisions(3)
    store.append(LOG, records[:2], START)
    reading = store.records(LOG)
    assert next(reading).record == records[0]
    store.append(LOG, records[2:], records[1].head)
    assert next(reading).record == records[1]
    del reading
    assert all_of(store) == records


def test_a_policy_bundle_is_found_by_its_digest(store: EvidenceStore) -> None:
    store.append(LOG, chained(bundle("one"), bundle("two"), bundle("one"), ("receipt", b"three")), START)
    assert store.bundle(digest("one")) == b"one"
    assert store.bundle(digest("two")) == b"two"
    assert store.bundle(digest("three")) is None


def test_a_policy_bundle_that_was_edited_in_the_store_is_refused(store: EvidenceStore) -> None:
    store.append(LOG, chained(bundle("one")), START)
    bytes_type = "BYTEA" if "postgresql" in str(store) else "BLOB"
    run_in_sql(store, f"UPDATE evidence_records SET body = CAST('two' AS {bytes_type})")
    with pytest.raises(EvidenceError, match="was edited"):
        store.bundle(digest("one"))


@pytest.mark.parametrize("change", ["body = 'text'", "at = 'text'", "kind = 7", "run = x'ff'", "attempt = 1.5"])
def test_a_value_of_another_type_is_an_error_and_no_traceback(tmp_path: Path, change: str) -> None:
    with EvidenceStore.open(tmp_path / "evidence.db") as store:
        store.append(LOG, decisions(1), START)
        run_in_sql(store, f"UPDATE evidence_records SET {change}")
        with pytest.raises(EvidenceError, match="edited"):
            all_of(store)


# Checkpoints.

ORIGIN = run_origin("example.org/main", "default", "refund-1", "run-1")
ROOT, OTHER_ROOT = b"\1" * 32, b"\2" * 32


def signed(size: int = 3, root: bytes = ROOT, origin: str = ORIGIN) -> str:
    return sign(Checkpoint(origin, size, root), "example.org/notary", SigningKey.generate())


def test_checkpoints_of_a_log_are_kept_by_size(store: EvidenceStore) -> None:
    late, early, another = signed(12), signed(3), signed(5, origin="another")
    assert all([store.add_checkpoint(late, ORIGIN, 12, ROOT), store.add_checkpoint(early, ORIGIN, 3, ROOT)])
    store.add_checkpoint(another, "another", 5, ROOT)
    assert list(store.checkpoints(ORIGIN)) == [early, late]
    assert sorted(store.checkpoints()) == sorted([early, late, another])
    assert list(store.checkpoints("nobody")) == []


def test_signatures_on_the_same_checkpoint_are_merged(store: EvidenceStore) -> None:
    note = signed()
    one = cosign(note, "witness.example.org/one", SigningKey.generate(), 1_800_000_000)
    two = cosign(note, "witness.example.org/two", SigningKey.generate(), 1_800_000_001)
    assert store.add_checkpoint(one, ORIGIN, 3, ROOT)
    assert store.add_checkpoint(two, ORIGIN, 3, ROOT)
    assert not store.add_checkpoint(note, ORIGIN, 3, ROOT)
    assert list(store.checkpoints(ORIGIN)) == [one + two.removeprefix(note)]


def test_two_roots_for_one_size_are_both_kept(store: EvidenceStore) -> None:
    notes = [signed(), signed(root=OTHER_ROOT)]
    store.add_checkpoint(notes[0], ORIGIN, 3, ROOT)
    store.add_checkpoint(notes[1], ORIGIN, 3, OTHER_ROOT)
    assert sorted(store.checkpoints(ORIGIN)) == sorted(notes)


def test_a_checkpoint_under_another_name_is_refused(store: EvidenceStore) -> None:
    for origin, size, root in (("another", 3, ROOT), (ORIGIN, 4, ROOT), (ORIGIN, 3, OTHER_ROOT)):
        with pytest.raises(EvidenceError):
            store.add_checkpoint(signed(), origin, size, root)
    with pytest.raises(EvidenceError):
        store.add_checkpoint("no note", ORIGIN, 3, ROOT)
    assert list(store.checkpoints()) == []


def test_a_checkpoint_does_not_take_more_signatures_than_a_note_may_have(store: EvidenceStore) -> None:
    note = signed()
    text_, line = note.split("\n\n")
    crowd = [f"{line.strip()[:-8]}{number:04}AAA=\n" for number in range(150)]
    store.add_checkpoint(f"{text_}\n\n" + "".join(crowd[:90]), ORIGIN, 3, ROOT)
    with pytest.raises(EvidenceError, match="N1"):
        store.add_checkpoint(f"{text_}\n\n" + "".join(crowd[90:]), ORIGIN, 3, ROOT)


# Merging.


def test_a_store_takes_in_all_of_another_and_nothing_twice(store: EvidenceStore, tmp_path: Path) -> None:
    records, other = decisions(700), decisions(3, OTHER)
    store.append(LOG, records[:600], START)
    with EvidenceStore.open(tmp_path / "other.db") as away:
        away.append(LOG, records, START)
        away.append(OTHER, other, genesis_of(OTHER))
        away.add_checkpoint(signed(), ORIGIN, 3, ROOT)
        assert store.merge(away) == 103
        assert store.merge(away) == 0
    assert all_of(store) == records + other
    assert store.log(LOG).size == 700
    assert len(list(store.checkpoints())) == 1


def test_a_store_moves_from_one_database_to_the_other(store: EvidenceStore, tmp_path: Path) -> None:
    records = chained(decision("a\0b", "run-ü"), receipt(run_id="run-1"), bundle("text"))
    store.append(LOG, records, START)
    with EvidenceStore.open(tmp_path / "other.db") as other:
        assert other.merge(store) == 3
        assert list(other.records(LOG)) == list(store.records(LOG))


def test_a_store_that_went_another_way_is_refused_whole(store: EvidenceStore, tmp_path: Path) -> None:
    records = decisions(2)
    store.append(LOG, records, START)
    with EvidenceStore.open(tmp_path / "other.db") as forked:
        forked.append("0000000000000000", decisions(1, "0000000000000000"), genesis_of("0000000000000000"))
        forked.append(LOG, chained(decision(forged=1)), START)
        with pytest.raises(EvidenceError, match="log forked: record 0"):
            store.merge(forked)
    assert all_of(store) == records
    assert [log.log_id for log in store.logs()] == [LOG]


def test_an_edited_record_of_another_store_is_refused(store: EvidenceStore, tmp_path: Path) -> None:
    with EvidenceStore.open(tmp_path / "other.db") as edited:
        edited.append(LOG, decisions(2), START)
        run_in_sql(edited, "UPDATE evidence_records SET attempt = 2 WHERE idx = 1")
        with pytest.raises(EvidenceError, match="record 1"):
            store.merge(edited)
    assert all_of(store) == []


@pytest.mark.parametrize("shift", [0, 1])
def test_two_writers_of_one_log_lose_and_double_nothing(url: str, shift: int) -> None:
    """The second writer's batches lie like the first one's, or across them."""
    records = decisions(400)
    failures: list[BaseException] = []
    added: list[int] = []

    def ship(store: EvidenceStore, first: int) -> None:
        try:
            for start in range(first, len(records), 40):
                batch = records[max(start - 40, 0) : start + 40]
                before = records[batch[0].index - 1].head if batch[0].index else START
                added.append(store.append(LOG, batch, before))
        except BaseException as failure:
            failures.append(failure)

    with EvidenceStore.open(url) as one, EvidenceStore.open(url) as two:
        ways = ((one, 0), (one, 0), (two, shift * 20), (two, 0))
        threads = [threading.Thread(target=ship, args=way) for way in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert sum(added) == 400
        assert all_of(one) == records
        assert one.log(LOG).size == 400


def test_of_two_writers_that_fork_a_log_one_is_refused(url: str) -> None:
    ways = [decisions(50), decisions(50, forged=True)]
    barrier = threading.Barrier(2)
    refused: list[int] = []

    def ship(number: int) -> None:
        with EvidenceStore.open(url) as store:
            barrier.wait(30)
            try:
                store.append(LOG, ways[number], START)
            except EvidenceError:
                refused.append(number)

    threads = [threading.Thread(target=ship, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with EvidenceStore.open(url) as store:
        assert len(refused) == 1
        assert all_of(store) == ways[1 - refused[0]]


# Retention.


def test_old_records_are_pruned_and_what_remains_still_verifies(store: EvidenceStore) -> None:
    records = chained(*(decision(number=number) for number in range(6)), at=[1, 2, 3, 9, 2, 9])
    store.append(LOG, records, START)
    store.add_checkpoint(signed(), ORIGIN, 3, ROOT)
    assert store.prune(3) == 3
    assert [link.record.index for link in store.records(LOG)] == [2, 3, 5]
    for link in store.records(LOG):
        check_link(link)
    assert store.log(LOG) == Log(LOG, 6, records[5].head)
    assert len(list(store.checkpoints(ORIGIN))) == 1
    more = chained(decision(), after=records[5])
    assert store.append(LOG, more, records[5].head) == 1


def test_what_was_pruned_does_not_come_back_with_its_journal_but_with_an_archive(
    store: EvidenceStore, tmp_path: Path
) -> None:
    records = decisions(4)
    store.append(LOG, records, START)
    with EvidenceStore.open(tmp_path / "archive.db") as archive:
        archive.merge(store)
        assert store.prune(AT + 2) == 2
        assert store.append(LOG, records, START) == 0
        assert all_of(store) == records[2:]
        assert store.merge(archive) == 2
    assert all_of(store) == records


def test_a_log_that_was_pruned_whole_still_knows_its_end(store: EvidenceStore) -> None:
    records = decisions(2)
    store.append(LOG, records, START)
    assert store.prune(AT + 100) == 2
    forged = chained(decision(forged=1), after=records[0])
    with pytest.raises(EvidenceError, match="log forked"):
        store.append(LOG, forged, records[0].head)
    with pytest.raises(EvidenceError, match="log forked"):
        store.append(LOG, chained(decision(), after=forged[0]), forged[0].head)
    assert store.append(LOG, chained(decision(), after=records[1]), records[1].head) == 1


def test_bundles_that_are_still_needed_stay(store: EvidenceStore) -> None:
    used = decision(bundle=digest("used"))
    store.append(
        LOG,
        chained(bundle("used"), bundle("unused"), bundle("used"), bundle("in force"), used, at=[1, 2, 3, 4, 100]),
        START,
    )
    store.append(OTHER, chained(bundle("in force"), bundle("elsewhere"), log_id=OTHER, at=[5, 6]), genesis_of(OTHER))
    assert store.prune(50) == 3
    assert [(record.log_id, record.index) for record in all_of(store)] == [(LOG, 2), (LOG, 3), (LOG, 4), (OTHER, 1)]
    for text_ in ("used", "in force", "elsewhere"):
        assert store.bundle(digest(text_)) == text_.encode()
    assert store.bundle(digest("unused")) is None
    assert store.prune(50) == 0


# The database.


def test_the_tables_are_the_ones_that_the_code_knows(store: EvidenceStore) -> None:
    found = inspect(store._engine)
    for table in store_schema._metadata.tables.values():
        there = {column["name"]: column for column in found.get_columns(table.name)}
        assert set(there) == {column.name for column in table.columns}
        assert set(found.get_pk_constraint(table.name)["constrained_columns"]) == {c.name for c in table.primary_key}
        for column in table.columns:
            assert column.primary_key or there[column.name]["nullable"] == column.nullable


def test_a_store_opened_again_is_the_same(url: str) -> None:
    with EvidenceStore.open(url) as store:
        store.append(LOG, decisions(2), START)
    with EvidenceStore.open(url, create=False) as store:
        assert all_of(store) == decisions(2)


def test_two_that_open_a_new_store_at_once_make_it_once(url: str) -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(4)

    def open_it() -> None:
        barrier.wait(30)
        try:
            with EvidenceStore.open(url) as store:
                store.append(LOG, decisions(1), START)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_store_of_a_later_version_is_refused(url: str) -> None:
    with EvidenceStore.open(url) as store:
        run_in_sql(store, "UPDATE evidence_version SET version = 99")
    with pytest.raises(EvidenceError, match="version 99"):
        EvidenceStore.open(url)


def test_an_older_store_is_brought_up_to_date(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EvidenceStore.open(url) as store:
        store.append(LOG, decisions(1), START)
    added = ("CREATE TABLE evidence_new (x {bytes})", "INSERT INTO evidence_new SELECT body FROM evidence_records")
    monkeypatch.setattr(store_schema, "STEPS", (*store_schema.STEPS, added))
    for _ in range(2):
        with EvidenceStore.open(url) as store, store._reading() as db:
            assert db.execute(text("SELECT count(*) FROM evidence_new")).scalar_one() == 1
            assert db.execute(text("SELECT version FROM evidence_version")).scalar_one() == len(store_schema.STEPS)


def test_a_step_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EvidenceStore.open(url) as store:
        store.append(LOG, decisions(1), START)
    honest = store_schema.STEPS
    monkeypatch.setattr(store_schema, "STEPS", (*honest, ("DROP TABLE evidence_records", "DROP TABLE nowhere")))
    with pytest.raises(StoreUnavailableError):
        EvidenceStore.open(url)
    monkeypatch.setattr(store_schema, "STEPS", honest)
    with EvidenceStore.open(url) as store:
        assert all_of(store) == decisions(1)


def test_a_journal_is_not_taken_for_a_store(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.enqueue(*decision())
    before = journal.path.read_bytes()
    with pytest.raises(EvidenceError, match="not an evidence store"):
        EvidenceStore.open(journal.path)
    assert verify(journal.path) == 1
    assert journal.path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.db"
    path.write_bytes(b"not a database, but longer than the head of one" * 10)
    with pytest.raises(EvidenceError, match=r"evidence\.db"):
        EvidenceStore.open(path)


def test_a_file_that_is_not_there_is_made_for_its_owner_only_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.db"
    with pytest.raises(EvidenceError, match="no such file"):
        EvidenceStore.open(path, create=False)
    assert not path.exists()
    with EvidenceStore.open(path) as store:
        store.append(LOG, decisions(1), START)
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(StoreUnavailableError):
        EvidenceStore.open(tmp_path / "nowhere" / "evidence.db")


def test_a_store_in_memory_needs_no_file(tmp_path: Path) -> None:
    with EvidenceStore.open("sqlite://") as store, EvidenceStore.open("sqlite://") as other:
        store.append(LOG, decisions(600), START)
        assert other.merge(store) == 600
        assert all_of(other) == decisions(600)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("mysql://user:secret@host/db", "mysql"),
        ("postgresql+asyncpg://user:secret@host/db", "asyncpg"),
        ("postgresql://user:secret@host/db?sslmode=maybe", "sslmode"),
        ("postgresql://user:secret@host/db?options=-c", "options"),
        ("postgresql://user:secret@host/db?sslmode=verify-full&sslrootcert=/nowhere", "sslrootcert"),
        ("postgresql://user:secret@host:port/db", "port"),
        ("sqlite://relative.db", "slash"),
        ("sqlite:///evidence.db?mode=ro", "path"),
        ("://", "URL"),
    ],
)
def test_a_url_that_is_not_that_of_a_store_says_what_to_write(written: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EvidenceStore.open(written)
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+pg8000"])
def test_a_postgresql_url_may_be_written_as_usual(postgres: Postgres, scheme: str) -> None:
    with postgres.database() as url, EvidenceStore.open(url.replace("postgresql", scheme)) as store:
        assert str(store).startswith("postgresql+pg8000://postgres:***@")


def test_a_server_without_tls_is_refused_when_tls_is_demanded(postgres: Postgres) -> None:
    with postgres.database() as url, pytest.raises(StoreUnavailableError, match="SSL"):
        EvidenceStore.open(url + "&sslmode=verify-full")


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1") as caught:
        EvidenceStore.open("postgresql://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


def test_a_store_outlives_a_restart_of_its_server(postgres: Postgres) -> None:
    with postgres.database() as url, EvidenceStore.open(url) as store:
        store.append(LOG, decisions(1), START)
        postgres.stop()
        try:
            with pytest.raises(StoreUnavailableError):
                store.append(LOG, decisions(2), START)
        finally:
            postgres.start()
        assert store.append(LOG, decisions(2), START) == 1
        postgres.stop()
        postgres.start()
        assert store.append(LOG, decisions(3), START) == 1


def test_no_message_holds_what_was_to_be_stored(url: str) -> None:
    with EvidenceStore.open(url) as store:
        run_in_sql(store, "ALTER TABLE evidence_records RENAME COLUMN bundle TO gone")
        with pytest.raises(StoreUnavailableError) as caught:
            store.append(LOG, chained(("decision", b"a secret body")), START)
        assert "secret body" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tried here
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(url: str) -> None:
    with EvidenceStore.open(url) as store:
        store.append(LOG, decisions(1), START)
        child = os.fork()
        if not child:
            code = 1
            try:
                inherited = store._engine.pool.checkedin()  # type: ignore[attr-defined]
                code = 0 if not inherited and store.append(LOG, decisions(2), START) == 1 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.append(LOG, decisions(3), START) == 1
        assert all_of(store) == decisions(3)


def test_a_worker_without_a_shared_store_does_not_load_sqlalchemy() -> None:
    program = "import sys, exequatur, exequatur.lineage.journal; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(INTERCEPTORS)}, check=True)
