"""The shipper: what a journal holds arrives once, a changed journal is refused, and no outage harms the worker."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from exequatur.errors import ConfigurationError, EvidenceError, StoreUnavailableError
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import Record, fold, head_text, read, record_bytes
from exequatur.lineage.shipper import Shipper
from exequatur.lineage.store import EvidenceStore
from exequatur.statements.encoding import from_base64url
from tests.lineage.chained import decision, records_of
from tests.lineage.postgres import Postgres

INTERCEPTORS = Path(__file__).parents[2] / "interceptors"
SHIP = """
import pathlib, sys
from exequatur.lineage.shipper import Shipper
print(Shipper(pathlib.Path(sys.argv[1]), sys.argv[2]).ship_once())
"""


def write(folder: Path, count: int, first: int = 0) -> Path:
    """Let a worker write so many records, and end."""
    with Journal.open(folder) as journal:
        for number in range(first, first + count):
            journal.enqueue(*decision(number=number))
    return journal.path


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def rewrite(path: Path, honest: list[Record]) -> None:
    """Replace all but the first record of a journal with records that follow from it."""
    head, records = honest[0].head, honest[1:]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for record in records:
            hashed = record_bytes(record.kind, record.at, record.request, record.run, record.attempt, b"forged")
            head = head_text(fold(from_base64url(head), hashed))
            new = (b"forged", from_base64url(head), record.index)
            db.execute("UPDATE records SET body = ?, head = ? WHERE idx = ?", new)


def shipped(store: EvidenceStore) -> dict[str, list[Record]]:
    return {log.log_id: records_of(store.records(log.log_id)) for log in store.logs()}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def test_all_that_the_journals_hold_is_shipped_once(store: EvidenceStore, tmp_path: Path) -> None:
    folder = tmp_path / "j"
    with Journal.open(folder) as one, Journal.open(folder) as two:
        for number in range(3):
            one.enqueue(*decision(number=number))
            two.enqueue(*decision(number=number))
    shipper = Shipper(folder, store)
    assert shipper.ship_once() == 6
    assert shipper.ship_once() == 0
    assert shipped(store) == {journal.log_id: list(read(journal.path)) for journal in (one, two)}


def test_a_journal_is_shipped_while_its_worker_writes(store: EvidenceStore, tmp_path: Path) -> None:
    shipper = Shipper(tmp_path / "j", store)
    with Journal.open(tmp_path / "j") as journal:
        assert shipper.ship_once() == 0
        for number in range(2):
            journal.enqueue(*decision(number=number))
            until(lambda: shipper.ship_once() == 1)
        assert journal.healthy
    assert shipped(store) == {journal.log_id: list(read(journal.path))}


def test_a_long_journal_is_shipped_in_batches(
    store: EvidenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.lineage.shipper._BATCH", 7)
    path = write(tmp_path / "j", 30)
    assert Shipper(tmp_path / "j", store).ship_once() == 30
    assert list(shipped(store).values()) == [list(read(path))]


def test_records_larger_than_a_batch_are_shipped_one_by_one(
    store: EvidenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.lineage.shipper._BATCH_BYTES", 10)
    path = write(tmp_path / "j", 5)
    assert Shipper(tmp_path / "j", store).ship_once() == 5
    assert list(shipped(store).values()) == [list(read(path))]


def test_no_journals_are_nothing_to_ship(store: EvidenceStore, tmp_path: Path) -> None:
    assert Shipper(tmp_path / "nowhere", store).ship_once() == 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: tamper(path, "UPDATE records SET head = zeroblob(32) WHERE idx = 2"), id="edited"),
        pytest.param(lambda path: tamper(path, "DELETE FROM records WHERE idx > 0"), id="cut"),
        pytest.param(lambda path: tamper(path, "DELETE FROM records"), id="emptied"),
        pytest.param(lambda path: rewrite(path, list(read(path))), id="rewritten"),
    ],
)
def test_a_journal_that_is_not_what_was_shipped_is_refused(
    store: EvidenceStore, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "a", 3)
    shipper = Shipper(tmp_path / "a", store)
    shipper.ship_once()
    before = shipped(store)
    change(path)
    with pytest.raises(EvidenceError, match=r"0\.db.*does not hold record 2"):
        shipper.ship_once()
    assert shipped(store) == before


def test_a_record_that_does_not_follow_from_what_was_shipped_is_refused(store: EvidenceStore, tmp_path: Path) -> None:
    path = write(tmp_path / "a", 2)
    shipper = Shipper(tmp_path / "a", store)
    shipper.ship_once()
    before = shipped(store)
    write(tmp_path / "a", 2, first=2)
    tamper(path, "UPDATE records SET body = CAST('{}' AS BLOB) WHERE idx = 3")
    with pytest.raises(EvidenceError, match=r"0\.db.*record 3"):
        shipper.ship_once()
    assert shipped(store) == before


def test_a_journal_that_goes_another_way_than_its_copy_is_refused(store: EvidenceStore, tmp_path: Path) -> None:
    write(tmp_path / "a", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "a", 1, first=2)
    write(tmp_path / "b", 2, first=7)
    Shipper(tmp_path / "a", store).ship_once()
    before = shipped(store)
    with pytest.raises(EvidenceError, match="does not hold record 2"):
        Shipper(tmp_path / "b", store).ship_once()
    assert shipped(store) == before


def test_a_refused_journal_does_not_hold_up_the_others(store: EvidenceStore, tmp_path: Path) -> None:
    folder = tmp_path / "j"
    with Journal.open(folder) as bad, Journal.open(folder) as good:
        bad.enqueue(*decision())
        good.enqueue(*decision())
    tamper(bad.path, "UPDATE records SET body = CAST('{}' AS BLOB)")
    (folder / "2.db").write_bytes(b"not a database at all, but long enough to be looked at")
    with pytest.raises(EvidenceError, match=r"0\.db.*2\.db"):
        Shipper(folder, store).ship_once()
    assert list(shipped(store)) == [good.log_id]


def test_a_journal_begun_anew_is_a_log_of_its_own(store: EvidenceStore, tmp_path: Path) -> None:
    path = write(tmp_path / "j", 2)
    Shipper(tmp_path / "j", store).ship_once()
    path.unlink()
    write(tmp_path / "j", 1)
    assert Shipper(tmp_path / "j", store).ship_once() == 1
    assert sorted(map(len, shipped(store).values())) == [1, 2]


def test_what_was_pruned_is_not_shipped_again(store: EvidenceStore, tmp_path: Path) -> None:
    write(tmp_path / "j", 3)
    shipper = Shipper(tmp_path / "j", store)
    shipper.ship_once()
    assert store.prune(time.time() + 60) == 3
    assert shipper.ship_once() == 0
    path = write(tmp_path / "j", 1, first=3)
    assert shipper.ship_once() == 1
    assert list(shipped(store).values()) == [list(read(path))[3:]]


def test_a_store_that_lost_its_last_records_gets_them_again(tmp_path: Path) -> None:
    where = tmp_path / "evidence.db"
    write(tmp_path / "j", 2)
    with EvidenceStore.open(where) as store:
        Shipper(tmp_path / "j", store).ship_once()
    backup = tmp_path / "backup.db"
    shutil.copy(where, backup)
    path = write(tmp_path / "j", 2, first=2)
    with EvidenceStore.open(backup) as restored:
        assert Shipper(tmp_path / "j", restored).ship_once() == 2
        assert list(shipped(restored).values()) == [list(read(path))]


def test_two_processes_that_ship_the_same_journals_lose_and_double_nothing(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "j"
    with Journal.open(folder) as one, Journal.open(folder) as two:
        for number in range(1500):
            one.enqueue(*decision(number=number))
            two.enqueue(*decision(number=number))
    shippers = [
        subprocess.Popen(
            [sys.executable, "-c", SHIP, str(folder), url],
            env={**os.environ, "PYTHONPATH": str(INTERCEPTORS)},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    counts = [int(shipper.communicate(timeout=60)[0]) for shipper in shippers]
    assert [shipper.returncode for shipper in shippers] == [0, 0]
    assert sum(counts) == 3000
    with EvidenceStore.open(url) as store:
        assert shipped(store) == {journal.log_id: list(read(journal.path)) for journal in (one, two)}


# In the background.


def test_the_shipper_ships_in_the_background_and_what_is_left_when_it_stops(url: str, tmp_path: Path) -> None:
    shipper = Shipper(tmp_path / "j", url, interval=0.01)
    shipper.start()
    shipper.start()
    with Journal.open(tmp_path / "j") as journal:
        journal.enqueue(*decision())
        with EvidenceStore.open(url) as store:
            until(lambda: store.log(journal.log_id).size == 1)
            shipper.stop()
            journal.enqueue(*decision())
    shipper = Shipper(tmp_path / "j", url, interval=3600)
    shipper.start()
    shipper.stop()
    with EvidenceStore.open(url) as store:
        assert shipped(store) == {journal.log_id: list(read(journal.path))}


def test_an_outage_is_logged_once_and_over_when_the_store_is_back(
    postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.lineage.shipper._LONGEST_WAIT", 0.02)
    with postgres.database() as url, EvidenceStore.open(url) as store, Journal.open(tmp_path / "j") as journal:
        rounds = 0
        # Held while the server starts or stops: the driver leaves its socket open when it is turned away just then.
        may_try = threading.Lock()
        shipper = Shipper(tmp_path / "j", store, interval=0.01)
        honest = shipper._round

        def counted() -> tuple[int, dict[Path, str]]:
            nonlocal rounds
            rounds += 1
            with may_try:
                return honest()

        monkeypatch.setattr(shipper, "_round", counted)
        journal.enqueue(*decision())
        shipper.start()
        until(lambda: store.log(journal.log_id).size == 1)
        with may_try:
            postgres.stop()
        try:
            journal.enqueue(*decision())
            until(lambda: bool(caplog.records))
            more = rounds + 3
            until(lambda: rounds > more)
        finally:
            with may_try:
                postgres.start()
        until(lambda: store.log(journal.log_id).size == 2)
        shipper.stop()
        assert journal.healthy
    ours = [record.levelno for record in caplog.records if record.name.startswith("exequatur")]
    assert ours == [logging.ERROR, logging.WARNING]
    assert "secret" not in caplog.text


def test_a_refused_journal_is_logged_once(
    store: EvidenceStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "j", 2)
    tamper(path, "UPDATE records SET body = CAST('{}' AS BLOB) WHERE idx = 1")
    shipper = Shipper(tmp_path / "j", store, interval=0.001)
    shipper.start()
    until(lambda: bool(caplog.records))
    shipper.stop()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "record 1" in caplog.text


def test_a_store_that_is_not_there_yet_is_no_error_for_the_worker(tmp_path: Path) -> None:
    write(tmp_path / "j", 1)
    shipper = Shipper(tmp_path / "j", f"sqlite:///{tmp_path / 'later' / 'evidence.db'}")
    with pytest.raises(StoreUnavailableError):
        shipper.ship_once()
    (tmp_path / "later").mkdir()
    assert shipper.ship_once() == 1
    shipper.stop()


def test_a_shipper_without_the_packages_of_a_store_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "exequatur.lineage.store")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigurationError, match=r"exequatur\[store\]"):
        Shipper(tmp_path, "sqlite://")
