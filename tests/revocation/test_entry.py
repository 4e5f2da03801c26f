"""What an entry revokes, until when, and what lifts it."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import ConfigurationError
from exequatur.revocation.entry import NAMES, Revocation, read_entry, revocation
from exequatur.revocation.feed import PAGE_ENTRIES, Feed, page_of

NOW = 1_800_000_000.0


def one(**named: Any) -> Feed:
    return Feed().extended([revocation(reason="stop", at=NOW, **named)])


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_named_is_revoked_and_nothing_else(name: str) -> None:
    feed = one(**{name: "a"})
    assert feed.find({name: "a"}, NOW)
    assert feed.find({name: frozenset({"b", "a"})}, NOW)
    assert not feed.find({name: "b"}, NOW)
    assert not feed.find({name: frozenset({"b"})}, NOW)
    assert not feed.find({other: "a" for other in NAMES if other != name}, NOW)
    assert not feed.find({}, NOW)


def test_what_is_named_together_must_match_together() -> None:
    feed = one(worker="w", activity="charge")
    assert feed.find({"worker": "w", "activity": "charge", "grant": "g"}, NOW)
    assert not feed.find({"worker": "w", "activity": "refund"}, NOW)
    assert not feed.find({"activity": "charge"}, NOW)


def test_the_kill_switch_is_about_everything() -> None:
    feed = one(everything=True)
    assert feed.find({}, NOW)
    assert feed.find({"grant": "g"}, NOW)


def test_a_revocation_ends_by_itself_at_its_time() -> None:
    feed = one(workflow="w", until=NOW + 10)
    assert feed.find({"workflow": "w"}, NOW + 9.999)
    assert not feed.find({"workflow": "w"}, NOW + 10)
    assert list(feed.standing(NOW + 10)) == []


def test_a_lifted_revocation_counts_no_more_and_the_others_do() -> None:
    feed = one(everything=True).extended([revocation(workflow="w", reason="stop"), revocation(lifts=1, reason="over")])
    assert not feed.find({"workflow": "x"}, NOW)
    assert feed.find({"workflow": "w"}, NOW)
    assert feed.lifted_by(1) == 3
    assert [number for number, _ in feed.standing(NOW)] == [2]


def test_what_lifts_does_not_revoke_anything() -> None:
    feed = Feed().extended([revocation(lifts=1, reason="early")])
    assert not feed.find({"workflow": "w"}, NOW)
    assert not feed.entries[0].revokes({})


def test_an_entry_can_lift_only_what_stands_before_it() -> None:
    feed = Feed().extended([revocation(lifts=2, reason="early"), revocation(workflow="w", reason="stop")])
    assert feed.find({"workflow": "w"}, NOW)


@pytest.mark.parametrize(
    ("lifts", "why"), [(4, "no revocation 4"), (2, "no revocation 2"), (1, "has been lifted already")]
)
def test_what_is_not_there_or_lifted_already_cannot_be_lifted(lifts: int, why: str) -> None:
    feed = one(everything=True).extended([revocation(lifts=1, reason="over"), revocation(key="k", reason="lost")])
    with pytest.raises(ConfigurationError, match=why):
        feed.admit(revocation(lifts=lifts, reason="again"))
    feed.admit(revocation(lifts=3, reason="found"))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "name a grant"),
        ({"everything": True, "key": "k"}, "not both"),
        ({"lifts": 1, "key": "k"}, "names nothing else"),
        ({"lifts": 1, "until": NOW + 1}, "names nothing else"),
        ({"lifts": 0}, "greater than or equal to 1"),
        ({"key": ""}, "between 1 and 1000"),
        ({"key": "k" * 1001}, "between 1 and 1000"),
        ({"key": "k", "until": NOW - 1}, "before it begins"),
        ({"key": "k", "until": float("nan")}, "finite"),
        ({"key": "\ud800"}, "surrogate"),
        ({"key": "k", "reason": " "}, "for what reason"),
        ({"key": "k", "reason": "r" * 1001}, "between 1 and 1000"),
    ],
    ids=str,
)
def test_what_means_nothing_cannot_be_revoked(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Nothing was revoked: .*{why}"):
        revocation(**{"reason": "stop", "at": NOW, **fields})


def test_lines_of_earlier_versions_are_read_as_they_were_meant() -> None:
    entry = read_entry(b'{"at":1790000000.5,"reason":"key leaked","principal":"Agent::\\"x\\"","activity":"pay"}')
    assert entry.named == {"principal": 'Agent::"x"', "activity": "pay"}
    assert entry.until is None
    assert entry.line == b'{"at":1790000000.5,"reason":"key leaked","principal":"Agent::\\"x\\"","activity":"pay"}'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"at":1,"reason":"r"}',
        b'{"at":1,"reason":"r","everything":true,"new":1}',
        b'{"at":1,"reason":"r","key":"a","key":"b"}',
        b'{"at":NaN,"reason":"r","key":"a"}',
        b'{"at":1e999,"reason":"r","key":"a"}',
        b'{"at":1,"reason":{"deep":1},"key":"a"}',
        b"[" * 50_000,
        b'{"at":1,"reason":"' + b"r" * 70_000 + b'","key":"a"}',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_what_is_no_entry_is_not_read(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_entry(line)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_an_entry_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_entry(data)


def test_pages_hold_all_entries_once_and_in_order() -> None:
    feed = Feed().extended(
        Revocation(at=NOW, reason="r" * (1000 if number % 7 else 40_000), workflow=str(number))
        for number in range(PAGE_ENTRIES + 300)
    )
    got: list[Revocation] = []
    more = True
    while more:
        found, more = page_of(feed, len(got))
        assert found
        got += found
    assert tuple(got) == feed.entries
    assert page_of(feed, feed.version) == ((), False)
    assert page_of(feed, feed.version + 5) == ((), False)


def test_every_change_of_an_entry_changes_the_link() -> None:
    base = {"at": NOW, "reason": "stop", "workflow": "w"}
    links = {
        Feed().extended([Revocation(**{**base, **change})]).link
        for change in ({}, {"at": NOW + 1}, {"reason": "go"}, {"workflow": "v"}, {"until": NOW}, {"key": "k"})
    }
    assert len(links) == 6
    first, second = Revocation(**base), Revocation(**{**base, "workflow": "v"})
    assert Feed().extended([first, second]).link != Feed().extended([second, first]).link


def test_looking_somebody_up_does_not_read_the_whole_feed() -> None:
    feed = Feed().extended(Revocation(at=NOW, reason="r", grant=f"g{number}") for number in range(20_000))
    feed.find({"grant": "x"}, NOW)
    began = time.process_time()
    for _ in range(1000):
        assert not feed.find({"grant": "x", "principal": "p", "workflow": "w"}, NOW)
    # A walk over all entries would take about a thousand times as long.
    assert time.process_time() - began < 5
