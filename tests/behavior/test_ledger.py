"""The ledger on both databases: who is first, one order, and the same numbers as the events add up to."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from exequatur.behavior.tally import before_in, tally
from exequatur.errors import EvidenceError, StoreUnavailableError
from exequatur.lineage.event import DAY, HOUR, MINUTE, Event, Numbers
from exequatur.lineage.ledger import Ledger
from exequatur.lineage.store import EvidenceStore
from tests.lineage.postgres import Postgres

NOW = 1_800_000_000_000


def asked(**changes: object) -> Event:
    named = {"kind": "asked", "at": NOW, "principal": 'User::"a"', "workflow_type": "W", "run": "r", "activity": "A"}
    return Event.model_validate({**named, "attempt": 1, "shape": "s", "cost": 5, **changes})


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened


@pytest.mark.rule("ledger.L1")
def test_the_first_holder_keeps_a_name(url: str, ledger: Ledger) -> None:
    with Ledger.open(url) as other:
        assert ledger.id == other.id
        assert ledger.pin("grant", "one")
        assert not other.pin("grant", "two")
        assert other.pin("grant", "one")
        assert not ledger.pin("grant", "two")
    with Ledger.open(url) as later:
        assert not later.pin("grant", "two")


@pytest.mark.rule("ledger.L1")
def test_of_many_who_ask_at_once_one_is_first(url: str, ledger: Ledger) -> None:
    barrier, winners = threading.Barrier(6), []

    def ask(holder: str) -> None:
        with Ledger.open(url) as mine:
            barrier.wait(30)
            winners.extend(holder for name in ("a", "b", "c") if mine.pin(name, holder))

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(winners) == 3


def test_two_who_pin_the_same_names_in_another_order_do_not_wait_for_each_other(url: str, ledger: Ledger) -> None:
    names = [f"n{number}" for number in range(40)]
    with Ledger.open(url) as other:
        thread = threading.Thread(target=lambda: other.pins([(name, "b") for name in reversed(names)]))
        thread.start()
        mine = ledger.pins([(name, "a") for name in names])
        thread.join(60)
        assert mine == [ledger.pin(name, "a") for name in names]


@pytest.mark.rule("ledger.L4")
def test_neither_a_name_nor_its_holder_is_stored(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.pin("zxq-name", "zxq-holder")
    assert all(b"zxq" not in file.read_bytes() for file in tmp_path.iterdir())


def test_a_pin_is_kept_until_its_time_is_over(ledger: Ledger) -> None:
    assert ledger.pin("token", "one", until=100.0)
    assert ledger.pin("grant", "one")
    assert ledger.forget(99.0) == 0
    assert ledger.forget(101.0) == 1
    assert ledger.pin("token", "two", until=200.0)
    assert not ledger.pin("grant", "two")


@pytest.mark.rule("ledger.L2")
def test_events_of_many_hosts_stand_in_one_order_and_none_is_told_the_same(url: str, ledger: Ledger) -> None:
    told: list[int] = []

    def host() -> None:
        with Ledger.open(url) as mine:
            for _ in range(8):
                [(_, numbers)] = mine.add([(asked(), True)])
                assert numbers is not None
                told.append(numbers.cost_last_day)

    threads = [threading.Thread(target=host) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == [5 * number for number in range(32)]
    assert [each.position for each in ledger.events()] == list(range(32))
    assert ledger.size() == 32


@pytest.mark.rule("ledger.L3")
def test_a_batch_that_cannot_be_stored_leaves_nothing(ledger: Ledger) -> None:
    with ledger._engine.begin() as db:
        db.execute(text("INSERT INTO ledger_events SELECT 1, '', 0, x, x, x, x, NULL, NULL, 0, 0, 0, 0, 0, x FROM"
                        " (SELECT name AS x FROM ledger_pins UNION ALL SELECT id FROM ledger_head) AS one"
                        if ledger._engine.dialect.name == "sqlite" else
                        "INSERT INTO ledger_events SELECT 1, '', 0, x, x, x, x, NULL, NULL, 0, 0, 0, 0, 0, x FROM"
                        " (SELECT id::bytea AS x FROM ledger_head) AS one"))  # fmt: skip
    with pytest.raises(StoreUnavailableError):
        ledger.add([(asked(), False), (asked(), False)])
    assert ledger.size() == 0


def test_an_edited_event_is_an_error_and_no_event(ledger: Ledger) -> None:
    ledger.add([(asked(), False)])
    with ledger._engine.begin() as db:
        db.execute(text("UPDATE ledger_events SET body = :body"), {"body": b'{"kind":"asked"}'})
    with pytest.raises(EvidenceError, match="edited"):
        list(ledger.events())
    with pytest.raises(EvidenceError, match="edited"):
        ledger.add([(asked(), True)])


def test_a_ledger_that_another_took_the_place_of_is_refused(ledger: Ledger) -> None:
    with ledger._engine.begin() as db:
        db.execute(text("UPDATE ledger_head SET id = 'other'"))
    with pytest.raises(EvidenceError, match="restart"):
        ledger.add([(asked(), True)])


@pytest.mark.rule("ledger.L5")
def test_a_ledger_that_has_fewer_events_than_it_had_is_refused(ledger: Ledger) -> None:
    ledger.add([(asked(), False), (asked(), False)])
    with ledger._engine.begin() as db:
        db.execute(text("DELETE FROM ledger_events WHERE position = 1"))
        db.execute(text("UPDATE ledger_head SET size = 1"))
    with pytest.raises(EvidenceError, match="backup"):
        ledger.add([(asked(), True)])
    assert ledger.size() == 1


def test_a_ledger_of_a_later_version_is_refused(url: str, ledger: Ledger) -> None:
    with ledger._engine.begin() as db:
        db.execute(text("UPDATE ledger_version SET version = 99"))
    with pytest.raises(EvidenceError, match="upgrade"):
        Ledger.open(url)


def test_a_file_of_something_else_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    EvidenceStore.open(tmp_path / "evidence.db").close()
    with pytest.raises(EvidenceError, match="not a ledger"):
        Ledger.open(tmp_path / "evidence.db")


def test_a_ledger_and_an_evidence_store_share_a_database(postgres: Postgres) -> None:
    with postgres.database() as url, EvidenceStore.open(url), Ledger.open(url) as ledger:
        assert ledger.pin("a", "b")


@pytest.mark.rule("tally.T3")
def test_a_denial_counts_and_gives_its_cost_back_and_what_is_voided_counts_for_nothing(ledger: Ledger) -> None:
    ledger.add([(asked(), False), (asked(), False), (asked(), False)])
    ledger.add([(asked(kind="denied", of=0), False), (asked(kind="voided", of=1), False)])
    ledger.add([(asked(kind="ended", of=2, took=2500, cost=0), False)])
    [(counted, numbers)] = ledger.add([(asked(), True)])
    assert counted.event.before == "A"
    assert numbers == Numbers(
        last_minute=2,
        last_hour=2,
        last_day=2,
        denials_last_hour=1,
        novel=False,
        workflow_last_hour=2,
        run_count=2,
        run_denials=1,
        run_took=2500,
        run_cost=5,
        cost_last_day=5,
        took_last_day=2500,
        transition_seen=True,
        shape_seen=True,
    )


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["asked", "asked", "asked", "denied", "voided", "ended"]),
        st.sampled_from([0, 1, MINUTE - 1, MINUTE, MINUTE + 1, HOUR, HOUR + 1, DAY - 1, DAY, DAY + 1, -5]),
        st.sampled_from(["p", "q"]),
        st.sampled_from(["W", "V"]),
        st.sampled_from(["r1", "r2"]),
        st.sampled_from(["A", "B"]),
        st.sampled_from([1, 1, 2]),
        st.sampled_from(["s", "t"]),
        st.integers(0, 9),
    ),
    max_size=12,
)


@pytest.mark.rule("tally.T1", "tally.T2", "tally.T3")
@given(_EVENTS)
@settings(max_examples=60)
def test_the_database_adds_up_what_the_events_add_up_to(drawn: list[tuple[object, ...]]) -> None:
    with Ledger.open("sqlite://") as ledger:
        compare(ledger, drawn)


@pytest.mark.rule("tally.T1", "tally.T2", "tally.T3")
def test_both_databases_add_up_the_same(ledger: Ledger) -> None:
    ages = [0, 1, MINUTE - 1, MINUTE, MINUTE + 1, HOUR - 1, HOUR, HOUR + 1, DAY - 1, DAY, DAY + 1, -5]
    compare(
        ledger,
        [
            (kind, age, "pq"[n % 2], "WV"[n % 3 % 2], f"r{n % 2}", "AB"[n % 5 % 2], 1 + n % 4 // 3, "st"[n % 2], n % 7)
            for n, (kind, age) in enumerate(
                (kind, age) for age in ages for kind in ("asked", "asked", "denied", "ended", "voided")
            )
        ],
    )


def compare(ledger: Ledger, drawn: list[tuple[object, ...]]) -> None:
    """Put events into a ledger, and compare what each is told with what those before it add up to."""
    written: list[tuple[int, Event]] = []
    open_asks: list[int] = []
    for kind, age, principal, flow, run, activity, attempt, shape, cost in drawn:
        assert isinstance(age, int)
        event = Event.model_validate(
            {"kind": "asked", "at": NOW - age, "principal": principal, "workflow_type": flow, "run": run,
             "activity": activity, "attempt": attempt, "shape": shape, "cost": cost}
        )  # fmt: skip
        if kind != "asked":
            if not open_asks:
                continue
            about = open_asks.pop(0)
            changed = {"kind": kind, "of": about, "before": None, "shape": "", "took": 1234 if kind == "ended" else 0}
            changed |= {"cost": 0} if kind == "ended" else {}
            event = written[about][1].model_copy(update=changed)
        [(counted, numbers)] = ledger.add([(event, kind == "asked")])
        if kind == "asked":
            if attempt == 1:
                assert counted.event.before == before_in(written, event.run)
            assert numbers == tally(written, counted.event)
            open_asks.append(counted.position)
        written.append((counted.position, counted.event))
    assert [(each.position, each.event) for each in ledger.events()] == written
