"""The evidence journal: what was acknowledged stays, what was tampered with shows, and what is broken says so."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from exequatur.errors import JournalError, ReplayedRequestError
from exequatur.lineage import journal as journal_module
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import Entry, read, verify

INTERCEPTORS = Path(__file__).parents[2] / "interceptors"
NOBODY = 65534


def stored(folder: Path, *bodies: bytes) -> Path:
    """A closed journal that holds ``bodies``."""
    with Journal.open(folder) as journal:
        for body in bodies:
            journal.enqueue("receipt", body)
    return journal.path


def bodies(path: Path) -> list[bytes]:
    return [record.body for record in read(path)]


def tamper(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def append(journal: Journal, body: bytes = b"{}") -> Entry:
    return asyncio.run(journal.append("receipt", body))


def decide(journal: Journal, request: str = "req", run: str = "run", attempt: int = 1) -> Entry:
    return asyncio.run(journal.append_decision(b"{}", request=request, run=run, attempt=attempt))


def impatient(folder: Path) -> Journal:
    return Journal.open(folder, retry_interval=0.02)


@contextmanager
def an_outage(journal: Journal) -> Iterator[None]:
    """The database file is away for a while."""
    away = journal.path.with_suffix(".away")
    journal.path.rename(away)
    until(lambda: not journal.healthy)
    yield
    away.rename(journal.path)
    until(lambda: journal.healthy)


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(INTERCEPTORS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# The chain.


def test_an_auditor_recomputes_the_heads_from_the_documented_layout(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        first = append(journal, b'{"a":1}')
        second = decide(journal, "req-ü", "run-1", 3)

    def field(value: bytes | None) -> bytes:
        return b"\xff" * 4 if value is None else struct.pack(">I", len(value)) + value

    sha = hashlib.sha256
    one, two = read(journal.path)
    head = sha(b"exequatur journal v1" + bytes.fromhex(journal.log_id)).digest()
    record = field(b"receipt") + field(struct.pack(">d", one.at)) + field(None) * 3 + field(b'{"a":1}')
    head = sha(head + sha(record).digest()).digest()
    assert first == Entry(0, urlsafe_b64encode(head).decode().rstrip("="))
    record = (
        field(b"decision")
        + field(struct.pack(">d", two.at))
        + field("req-ü".encode())
        + field(b"run-1")
        + field(struct.pack(">q", 3))
        + field(b"{}")
    )
    head = sha(head + sha(record).digest()).digest()
    assert second == Entry(1, urlsafe_b64encode(head).decode().rstrip("="))
    assert (two.log_id, two.index, two.attempt, two.head) == (journal.log_id, 1, 3, second.head)
    assert verify(journal.path) == 2


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE records SET body = CAST('{\"n\":9}' AS BLOB) WHERE idx = 2", 2),
        ("UPDATE records SET body = '{\"n\":2}' WHERE idx = 2", 2),
        ("UPDATE records SET kind = 'denial' WHERE idx = 2", 2),
        ("UPDATE records SET at = at + 1 WHERE idx = 2", 2),
        ("UPDATE records SET request = 'r' WHERE idx = 2", 2),
        ("UPDATE records SET run = '' WHERE idx = 2", 2),
        ("UPDATE records SET attempt = 1 WHERE idx = 2", 2),
        ("UPDATE records SET attempt = -1 WHERE idx = 2", 2),
        ("UPDATE records SET head = zeroblob(32) WHERE idx = 2", 2),
        ("DELETE FROM records WHERE idx = 0", 0),
        ("DELETE FROM records WHERE idx BETWEEN 2 AND 3", 2),
        ("UPDATE records SET idx = idx + 1 WHERE idx = 4", 4),
        (
            "INSERT INTO records SELECT -1, at, kind, request, run, attempt, body, head FROM records WHERE idx = 0",
            0,
        ),
        ("UPDATE meta SET value = '0000000000000000' WHERE name = 'log_id'", 0),
    ],
)
def test_an_edited_journal_names_the_first_record_that_is_wrong(tmp_path: Path, statement: str, bad: int) -> None:
    path = stored(tmp_path / "j", *(b'{"n":%d}' % n for n in range(5)))
    assert verify(path) == 5
    tamper(path, statement)
    with pytest.raises(JournalError, match=rf"record (-1|{bad}|{bad + 1}) "):
        verify(path)
    with pytest.raises(JournalError, match=r"move it|keep the file"):
        Journal.open(tmp_path / "j")


def test_two_records_that_changed_places_are_detected(tmp_path: Path) -> None:
    path = stored(tmp_path / "j", *(b'{"n":%d}' % n for n in range(5)))
    tamper(path, *(f"UPDATE records SET idx = {new} WHERE idx = {old}" for old, new in ((1, 99), (3, 1), (99, 3))))
    with pytest.raises(JournalError, match="record 1 "):
        verify(path)


def test_a_journal_longer_than_what_is_checked_on_opening_is_continued(tmp_path: Path) -> None:
    path = stored(tmp_path / "j", *(b'{"n":%d}' % n for n in range(300)))
    with Journal.open(tmp_path / "j") as journal:
        assert append(journal).index == 300
    assert verify(path) == 301
    tamper(path, "UPDATE records SET kind = 'x' WHERE idx = 299")
    with pytest.raises(JournalError, match="record 299 "):
        Journal.open(tmp_path / "j")


def test_two_hundred_appends_at_once_keep_their_order(tmp_path: Path) -> None:
    async def all_at_once(journal: Journal) -> list[Entry]:
        return await asyncio.gather(*(journal.append("receipt", b"%d" % n) for n in range(200)))

    with Journal.open(tmp_path / "j") as journal:
        entries = asyncio.run(all_at_once(journal))
    assert [entry.index for entry in entries] == list(range(200))
    assert [(r.body, r.head) for r in read(journal.path)] == [(b"%d" % n, e.head) for n, e in enumerate(entries)]
    assert verify(journal.path) == 200


def test_two_event_loops_in_two_threads_and_plain_threads_share_a_journal(tmp_path: Path) -> None:
    entries: list[Entry] = []

    async def many(journal: Journal) -> None:
        entries.extend(await asyncio.gather(*(journal.append("receipt", b"{}") for _ in range(100))))

    with Journal.open(tmp_path / "j") as journal:
        threads = [threading.Thread(target=lambda: asyncio.run(many(journal))) for _ in range(2)]
        threads += [threading.Thread(target=journal.enqueue, args=("seal", b"{}")) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({entry.index for entry in entries}) == 200
    assert verify(journal.path) == 210


def test_a_cancelled_waiter_disturbs_nobody_and_its_record_is_stored(tmp_path: Path) -> None:
    async def scenario(journal: Journal) -> None:
        tasks = [asyncio.create_task(journal.append("receipt", b"%d" % n)) for n in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        assert sum(isinstance(result, Entry) for result in results) == 9

    with Journal.open(tmp_path / "j") as journal:
        asyncio.run(scenario(journal))
        assert append(journal).index == 10
    assert bodies(journal.path)[3] == b"3"


def test_a_loop_that_was_closed_while_it_waited_disturbs_nobody(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(journal.append("receipt", b"{}"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        assert append(journal).index == 1
        del waiting


def test_a_running_journal_is_read_and_verified_by_others(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        append(journal, b"1")
        assert bodies(journal.path) == [b"1"]
        append(journal, b"2")
        assert verify(journal.path) == 2
        assert [record.index for record in read(journal.path)] == [0, 1]


def test_what_no_journal_can_store_is_the_callers_error_and_stops_nothing(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        with pytest.raises(ValueError, match="digest"):
            journal.enqueue("receipt", b"x" * (16 * 1024 * 1024 + 1))
        with pytest.raises(ValueError, match="surrogates"):
            decide(journal, request="\ud800")
        with pytest.raises(ValueError, match="surrogates"):
            asyncio.run(journal.pin("\ud800", "run"))
        with pytest.raises(ValueError, match="64 bits"):
            decide(journal, attempt=2**63)
        assert journal.healthy
        assert append(journal).index == 0


# Single use and pins.


def test_a_request_is_decided_once_for_a_run_and_attempt(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        decide(journal)
        with pytest.raises(ReplayedRequestError, match=r"request req .* attempt 1 of run run"):
            decide(journal)
        assert decide(journal, attempt=2).index == 1
        assert decide(journal, run="other").index == 2
        assert decide(journal, request="other").index == 3
    with Journal.open(tmp_path / "j") as again, pytest.raises(ReplayedRequestError):
        decide(again)
    assert verify(journal.path) == 4


def test_a_replay_in_the_same_batch_is_refused_and_the_rest_is_stored(tmp_path: Path) -> None:
    async def scenario(journal: Journal) -> list[Entry | BaseException]:
        decisions = (journal.append_decision(b"{}", request="req", run="run", attempt=1) for _ in range(50))
        others = (journal.append("receipt", b"{}") for _ in range(50))
        return await asyncio.gather(*decisions, *others, return_exceptions=True)

    with Journal.open(tmp_path / "j") as journal:
        results = asyncio.run(scenario(journal))
    assert sum(isinstance(result, Entry) for result in results[:50]) == 1
    assert sum(isinstance(result, ReplayedRequestError) for result in results[:50]) == 49
    assert sorted(result.index for result in results if isinstance(result, Entry)) == list(range(51))
    assert verify(journal.path) == 51


def test_a_journal_without_its_unique_index_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "j")
    tamper(path, "DROP INDEX records_once")
    with pytest.raises(JournalError, match="not a journal of this version"):
        Journal.open(tmp_path / "j")


def test_a_grant_stays_pinned_to_its_first_run(tmp_path: Path) -> None:
    async def scenario(journal: Journal) -> list[bool]:
        return list(await asyncio.gather(*(journal.pin("grant", f"run-{n}") for n in (1, 2, 1))))

    with Journal.open(tmp_path / "j") as journal:
        assert asyncio.run(scenario(journal)) == [True, False, True]
        assert asyncio.run(scenario(journal)) == [True, False, True]
        assert asyncio.run(journal.pin("other", "run-2"))
    with Journal.open(tmp_path / "j") as again:
        assert asyncio.run(scenario(again)) == [True, False, True]


def test_a_known_pin_is_answered_from_memory_even_in_an_outage(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal:
        assert asyncio.run(journal.pin("grant", "run"))
        with an_outage(journal):
            assert asyncio.run(journal.pin("grant", "run"))
            assert not asyncio.run(journal.pin("grant", "copy"))
            with pytest.raises(JournalError):
                asyncio.run(journal.pin("unknown", "run"))


def test_a_pin_that_left_the_memory_is_found_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_PINS_REMEMBERED", 2)
    with Journal.open(tmp_path / "j") as journal:
        for number in range(5):
            assert asyncio.run(journal.pin(f"grant-{number}", "run"))
        assert not asyncio.run(journal.pin("grant-0", "copy"))


# Processes.


def test_what_a_killed_process_had_acknowledged_is_there_and_is_continued(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from exequatur.lineage.journal import Journal
async def main():
    with Journal.open(Path(sys.argv[1])) as journal:
        async def worker(name):
            for number in range(10**9):
                entry = await journal.append_decision(b"{}", request=f"{name}-{number}", run="run", attempt=1)
                print(entry.index, entry.head, f"{name}-{number}", flush=True)
        await asyncio.gather(*(worker(name) for name in range(5)))
asyncio.run(main())
"""
    with python(program, tmp_path / "j") as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().split() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line.split() for line in process.stdout.read().splitlines() if line.count(" ") == 2]
    with Journal.open(tmp_path / "j") as journal:
        size = verify(journal.path)
        there = {record.index: record for record in read(journal.path)}
        for index, head, request in acknowledged:
            assert (there[int(index)].head, there[int(index)].request) == (head, request)
        with pytest.raises(ReplayedRequestError):
            decide(journal, request=acknowledged[0][2])
        assert journal.path.name == "0.db"
        assert append(journal).index == size
    assert verify(journal.path) == size + 1


def test_two_processes_write_two_files_and_a_free_one_is_taken_over(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from exequatur.lineage.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal:
    print(journal.path.name, journal.log_id, flush=True)
    sys.stdin.readline()
"""
    with python(program, tmp_path / "j") as process:
        assert process.stdout is not None
        name, log_id = process.stdout.readline().split()
        with Journal.open(tmp_path / "j") as mine, Journal.open(tmp_path / "j") as third:
            assert [name, mine.path.name, third.path.name] == ["0.db", "1.db", "2.db"]
            assert len({log_id, mine.log_id, third.log_id}) == 3
        process.communicate("\n")
    with Journal.open(tmp_path / "j") as journal:
        assert (journal.path.name, journal.log_id) == ("0.db", log_id)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_write_nothing_and_does_not_keep_the_lock(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    append(journal)
    asyncio.run(journal.pin("grant", "run"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        refused = 0
        calls: list[Callable[[], object]] = [
            lambda: append(journal),
            lambda: decide(journal),
            lambda: journal.enqueue("x", b"{}"),
            lambda: asyncio.run(journal.pin("grant", "run")),
            journal.close,
        ]
        for call in calls:
            try:
                call()
            except JournalError:
                refused += 1
        os.write(writing, b"%d %d" % (refused, journal.healthy))
        time.sleep(60)
        os._exit(0)
    try:
        assert os.read(reading, 10) == b"5 0"
        assert append(journal).index == 1
        journal.close()
        with Journal.open(tmp_path / "j") as again:
            assert again.path == journal.path
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert verify(journal.path) == 2


def test_folder_and_files_belong_to_the_owner_alone(tmp_path: Path) -> None:
    stored(tmp_path / "deep" / "j")
    (tmp_path / "deep" / "j" / "0.db").chmod(0o644)
    with Journal.open(tmp_path / "deep" / "j") as journal:
        append(journal)
        assert journal.path.parent.stat().st_mode & 0o777 == 0o700
        files = {file.name: file.stat().st_mode & 0o777 for file in journal.path.parent.iterdir()}
    assert files == dict.fromkeys(("0.db", "0.db-wal", "0.db-shm", "0.lock"), 0o600)


# Closing.


def test_what_was_enqueued_before_a_close_is_on_disk(tmp_path: Path) -> None:
    path = stored(tmp_path / "j", *(b"%d" % n for n in range(2000)))
    assert sorted(file.name for file in path.parent.iterdir()) == ["0.db", "0.lock"]
    assert bodies(path) == [b"%d" % n for n in range(2000)]


def test_a_process_that_forgets_to_close_loses_nothing_when_it_ends(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from exequatur.lineage.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
for number in range(1000):
    journal.enqueue("receipt", b"{}")
"""
    with python(program, tmp_path / "j") as process:
        process.communicate()
    assert verify(tmp_path / "j" / "0.db") == 1000


def test_a_closed_journal_refuses_everything(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    asyncio.run(journal.pin("grant", "run"))
    journal.close()
    journal.close()
    assert not journal.healthy
    for call in (lambda: append(journal), lambda: decide(journal), lambda: journal.enqueue("x", b"{}")):
        with pytest.raises(JournalError, match="closed"):
            call()
    with pytest.raises(JournalError, match="closed"):
        asyncio.run(journal.pin("grant", "run"))


# Broken files and disks.


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so permissions mean nothing to it."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_used_is_named_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "j"):
        with pytest.raises(JournalError, match=f"{folder}.*name a folder that this user can write"):
            Journal.open(folder)
    stored(tmp_path / "j")
    (tmp_path / "j").chmod(0o500)
    with unprivileged(), pytest.raises(JournalError, match="this user can write"):
        Journal.open(tmp_path / "j")
    (tmp_path / "j").chmod(0o700)


def test_a_file_that_is_no_journal_is_refused_and_the_lock_let_go(tmp_path: Path) -> None:
    path = tmp_path / "j" / "0.db"
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"0\.db: file is not a database; keep the file"):
            Journal.open(tmp_path / "j")
    with pytest.raises(JournalError, match="not a database"):
        list(read(path))
    path.unlink()
    tamper(path, "CREATE TABLE something (x)")
    with pytest.raises(JournalError, match="not a journal"):
        Journal.open(tmp_path / "j")
    with pytest.raises(JournalError, match="not a journal"):
        verify(path)
    with pytest.raises(JournalError, match="no such file"):
        verify(tmp_path / "missing.db")


def test_a_journal_on_read_only_storage_can_be_audited(tmp_path: Path) -> None:
    path = stored(tmp_path / "j", b"1")
    if not os.geteuid():
        os.chown(path, NOBODY, NOBODY)
        os.chown(path.parent, NOBODY, NOBODY)
        for parent in (tmp_path, *tmp_path.parents[:3]):  # one is of the process that shares the tests
            parent.chmod(parent.stat().st_mode | 0o011)
    path.chmod(0o400)
    path.parent.chmod(0o500)
    with unprivileged():
        assert verify(path) == 1
    path.parent.chmod(0o700)


def test_a_missing_file_stops_everything_until_it_is_back(tmp_path: Path) -> None:
    seen: list[bool] = []
    with impatient(tmp_path / "j") as journal:
        journal.on_health(lambda healthy: {}[healthy])
        journal.on_health(seen.append)
        append(journal, b"before")
        with an_outage(journal):
            with pytest.raises(JournalError, match=r"0\.db.*No such file"):
                append(journal, b"refused")
            with pytest.raises(JournalError):
                decide(journal)
            journal.enqueue("receipt", b"kept 1")
            journal.enqueue("receipt", b"kept 2")
        assert seen == [False, True]
        append(journal, b"after")
        assert decide(journal).index == 4
    assert bodies(journal.path) == [b"before", b"kept 1", b"kept 2", b"after", b"{}"]
    assert verify(journal.path) == 5


def put_in_place(copy: Path, journal: Journal) -> None:
    copy.chmod(0o600)
    copy.rename(journal.path)
    time.sleep(0.2)


def test_an_older_copy_of_the_file_is_not_accepted_and_the_original_is(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copy(stored(tmp_path / "j", b"1"), copy)
    with impatient(tmp_path / "j") as journal:
        decide(journal)
        with an_outage(journal):
            put_in_place(copy, journal)
            with pytest.raises(JournalError, match=r"changed under us: 2 records .* holds 1 "):
                append(journal)
            assert not journal.healthy
        with pytest.raises(ReplayedRequestError):
            decide(journal)
    assert verify(journal.path) == 2


def test_a_file_that_was_replaced_in_one_step_is_noticed(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal:
        stored(tmp_path / "other").rename(journal.path)
        until(lambda: not journal.healthy)
        with pytest.raises(JournalError, match=r"replaced while in use|changed under us"):
            append(journal)


def test_every_commit_is_forced_to_the_disk(tmp_path: Path) -> None:
    """A power failure cannot be had, so this looks at the setting: 2 is FULL."""
    with Journal.open(tmp_path / "j") as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_another_journals_file_is_not_accepted(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal, an_outage(journal):
        put_in_place(stored(tmp_path / "other"), journal)
        with pytest.raises(JournalError, match="changed under us"):
            append(journal)


def without_the_record(copy: Path) -> None:
    tamper(copy, "UPDATE records SET kind = 'x' WHERE idx = 0")


def without_the_index_entry(copy: Path) -> None:
    """Takes the decision out of the index alone, so that its request could be used again."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        (row,) = db.execute("SELECT * FROM records WHERE idx = 0")
        (index,) = db.execute("SELECT * FROM sqlite_master WHERE name = 'records_once'")
        db.execute("DELETE FROM records WHERE idx = 0")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE name = 'records_once'")
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)


def holds(path: Path, count: int) -> bool:
    """Whether a file that nobody writes any more is a whole journal of so many records."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        try:
            return db.execute("SELECT count(*) FROM records").fetchone() == (count,)
        except sqlite3.Error:
            return False


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda copy: None, None),
        (without_the_record, "record 0 does not follow"),
        (without_the_index_entry, "row 1 missing from index records_once"),
    ],
)
def test_a_restored_copy_is_accepted_only_if_all_of_it_is_right(
    tmp_path: Path, edit: Callable[[Path], None], reason: str | None
) -> None:
    with impatient(tmp_path / "j") as journal:
        decide(journal)
        for number in range(300):
            journal.enqueue("receipt", b"%d" % number)
        append(journal)
        with an_outage(journal):
            copy, away = tmp_path / "copy", journal.path.with_suffix(".away")
            # The writer takes its last records along into the file that was moved away; a copy has to wait for that.
            until(lambda: not away.with_name(away.name + "-wal").exists() and holds(away, 302))
            shutil.copy(away, copy)
            edit(copy)
            put_in_place(copy, journal)
            if reason is None:
                assert journal.healthy
            else:
                with pytest.raises(JournalError, match=reason):
                    append(journal)


def test_a_write_ahead_log_that_was_removed_is_noticed_and_nothing_is_lost(tmp_path: Path) -> None:
    seen: list[bool] = []
    with impatient(tmp_path / "j") as journal:
        journal.on_health(seen.append)
        append(journal, b"1")
        journal.path.with_name("0.db-wal").unlink()
        until(lambda: seen == [False, True])
        append(journal, b"2")
    assert bodies(journal.path) == [b"1", b"2"]


def test_a_removed_lock_stops_the_journal_for_good(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal:
        lock = journal.path.with_suffix(".lock")
        lock.unlink()
        until(lambda: not journal.healthy)
        lock.touch(0o600)
        time.sleep(0.1)
        with pytest.raises(JournalError, match=r"0\.lock: replaced while in use"):
            append(journal)


def test_a_file_that_was_opened_to_others_stops_the_journal_until_it_is_private_again(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal:
        journal.path.chmod(0o666)
        until(lambda: not journal.healthy)
        with pytest.raises(JournalError, match="permissions became 666; run chmod 600"):
            append(journal)
        journal.path.chmod(0o600)
        until(lambda: journal.healthy)
        append(journal)


def test_a_second_writer_that_ignores_the_lock_is_noticed(tmp_path: Path) -> None:
    with impatient(tmp_path / "j") as journal:
        append(journal)
        tamper(journal.path, "INSERT INTO records SELECT 1, at, kind, 'x', run, attempt, body, head FROM records")
        with pytest.raises(JournalError, match=r"UNIQUE constraint failed: records.idx"):
            append(journal)
        assert not journal.healthy
        time.sleep(0.1)
        with pytest.raises(JournalError, match="record 1 does not follow"):
            append(journal)


def test_a_commit_that_was_reported_as_failed_but_had_reached_the_disk_is_taken_back(tmp_path: Path) -> None:
    """A failing fsync cannot be had on demand, so the error stands in for it; the file is real."""
    with impatient(tmp_path / "j") as journal:
        append(journal, b"1")
        commit = journal._commit

        def failing_after_the_fact() -> None:
            journal._commit = commit  # type: ignore[method-assign]
            commit()
            raise sqlite3.OperationalError("disk I/O error")

        journal._commit = failing_after_the_fact  # type: ignore[method-assign]
        with pytest.raises(JournalError, match="disk I/O error"):
            decide(journal)
        until(lambda: journal.healthy)
        assert decide(journal).index == 1
    assert verify(journal.path) == 2


def test_enqueued_records_beyond_the_room_to_keep_them_are_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "_KEPT", 3)
    with impatient(tmp_path / "j") as journal:
        with an_outage(journal):
            for number in range(5):
                journal.enqueue("receipt", b"%d" % number)
            until(lambda: journal.dropped == 2)
        assert bodies(journal.path) == [b"0", b"1", b"2"]
    assert "new ones are being lost" in caplog.text
    assert "2 records were lost so far" in caplog.text


def test_closing_in_an_outage_says_how_much_is_lost(tmp_path: Path) -> None:
    journal = impatient(tmp_path / "j")
    journal.path.rename(tmp_path / "away")
    until(lambda: not journal.healthy)
    journal.enqueue("receipt", b"{}")
    with pytest.raises(JournalError, match="closed with 1 records lost"):
        journal.close()
    assert journal.dropped == 1
    (tmp_path / "away").rename(journal.path)
    with Journal.open(tmp_path / "j") as again:
        assert append(again).index == 0


def test_a_full_disk_stops_the_journal_until_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        with impatient(disk / "j") as journal:
            ballast = disk / "ballast"
            acknowledged = 1
            append(journal)
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * 4096)
            with pytest.raises(JournalError, match=r"full|I/O"):
                while True:
                    append(journal, b"x" * 4000)
                    acknowledged += 1
            assert not journal.healthy
            journal.enqueue("receipt", b"kept")
            ballast.unlink()
            until(lambda: journal.healthy)
            assert append(journal).index == acknowledged + 1
            assert verify(journal.path) == acknowledged + 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_may_not_grow_stops_the_journal_until_it_may(tmp_path: Path) -> None:
    program = """
import asyncio, resource, sys, time
from pathlib import Path
from exequatur.errors import JournalError
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import verify
with Journal.open(Path(sys.argv[1]), retry_interval=0.02) as journal:
    append = lambda: asyncio.run(journal.append("receipt", b"x" * 4000))
    append()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    stored = 1
    try:
        while True:
            append()
            stored += 1
    except JournalError as error:
        print(error, file=sys.stderr)
    assert not journal.healthy
    journal.enqueue("receipt", b"kept")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while not journal.healthy:
        time.sleep(0.01)
    assert append().index == stored + 1
    assert verify(journal.path) == stored + 2
    print("recovered")
"""
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        pytest.skip("the size of files is limited here")
    with python(program, tmp_path / "j") as process:
        assert process.communicate(timeout=60)[0] == "recovered\n"
