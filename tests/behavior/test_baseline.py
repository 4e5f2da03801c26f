"""What is usual: learned from runs, told as what is unlike it, and never a guess about what it does not know."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.behavior import baseline
from exequatur.behavior.arguments import MAX_FIELDS, Features, features_of
from exequatur.behavior.baseline import MAX_FILE, Baseline, Learner, Ran, transitions_in
from exequatur.behavior.score import score
from exequatur.errors import ConfigurationError
from exequatur.lineage.event import Numbers


def features(*values: Any) -> Features:
    return features_of([(b"json/plain", json.dumps(value).encode()) for value in values])


def learned(*values: Any) -> Baseline:
    learner = Learner()
    for value in values:
        learner.add("W", [Ran("A", 1, 2, features(value))])
    return learner.baseline()


def ran(*spans: tuple[str, int, int | None]) -> list[Ran]:
    return [Ran(name, begin, end, None) for name, begin, end in spans]


USUAL = [{"amount": amount, "currency": "EUR", "note": f"note {amount}"} for amount in (10, 20, 30, 40, 50, 60)]


@pytest.mark.parametrize(
    ("value", "unlike"),
    [
        ({"amount": 35, "currency": "EUR", "note": "new text"}, ()),
        ({"amount": 5000, "currency": "EUR", "note": "x"}, ("1.amount is above all that is usual",)),
        ({"amount": -5000, "currency": "EUR", "note": "x"}, ("1.amount is below all that is usual",)),
        ({"amount": 35, "currency": "XXX", "note": "x"}, ("1.currency has a value that was never seen",)),
        ({"amount": "35", "currency": "EUR", "note": "x"}, ("1.amount is of another kind: text",)),
        ({"amount": 35, "currency": "EUR"}, ("1.note is missing",)),
        ({"amount": 35, "currency": "EUR", "note": "x", "to": "me"}, ("1.to is new",)),
        ("text", ("1 is of another kind: text", "1.amount is missing", "1.currency is missing", "1.note is missing")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_unlike_all_that_was_seen_is_named_without_its_value(value: Any, unlike: tuple[str, ...]) -> None:
    assert learned(*USUAL).unlike("A", features(value)) == unlike


@pytest.mark.rule("baseline.B2")
def test_of_what_it_does_not_know_a_baseline_says_nothing() -> None:
    known = learned(*USUAL)
    assert known.unlike("B", features(1)) is None
    assert known.follows("Other", "", "A") is None
    assert known.follows("W", "", "A") is True
    assert known.follows("W", "A", "A") is False


def test_the_same_runs_give_the_same_baseline_and_it_shows_no_texts() -> None:
    first, second = learned(*USUAL), learned(*USUAL)
    assert first.digest == second.digest
    assert b"EUR" not in first.text
    assert b"note 10" not in first.text
    assert Baseline.parse(first.text) == first


@pytest.mark.parametrize(
    ("spans", "found"),
    [
        ((("A", 1, 2), ("B", 3, 4)), {("", "A"), ("A", "B")}),
        ((("A", 1, 4), ("B", 2, 3)), {("", "A"), ("", "B"), ("A", "B"), ("B", "A")}),
        (
            (("A", 1, 2), ("B", 3, 6), ("C", 4, 5), ("D", 7, 8)),
            {("", "A"), ("A", "B"), ("A", "C"), ("B", "C"), ("C", "B"), ("B", "D"), ("C", "D")},
        ),
        ((("A", 1, None), ("B", 2, 3)), {("", "A"), ("", "B"), ("A", "B"), ("B", "A")}),
    ],
)
def test_activities_that_ran_at_once_may_follow_each_other_in_any_order(
    spans: tuple[tuple[str, int, int | None], ...], found: set[tuple[str, str]]
) -> None:
    assert set(transitions_in(ran(*spans))) == found


@pytest.mark.rule("baseline.B1")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"format":"exequatur-baseline-v2","runs":0,"transitions":{},"activities":{}}',
        b'{"format":"exequatur-baseline-v1","runs":0,"runs":0,"transitions":{},"activities":{}}',
        b'{"format":"exequatur-baseline-v1","runs":"0","transitions":{},"activities":{}}',
        b'{"format":"exequatur-baseline-v1","runs":0,"transitions":{},"activities":{},"more":1}',
        b'{"format":"exequatur-baseline-v1","runs":1,"transitions":{},"activities":{"A":{"seen":1,"fields":'
        b'{"1":{"kinds":["number"],"always":true,"least":-1e999,"most":5}}}}}',
        b"[" * 100_000,
    ],
    ids=lambda data: str(data[:30]),
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="exequatur behavior learn"):
        Baseline.read(path)
    assert Baseline.parse(b'{"format":"exequatur-baseline-v1","runs":0,"transitions":{},"activities":{}}').runs == 0


@pytest.mark.rule("baseline.B1")
def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="larger"):
        Baseline.parse(learned().text + b" " * MAX_FILE)
    with pytest.raises(ConfigurationError, match="No such file"):
        Baseline.read(tmp_path / "nowhere.json")


@given(st.lists(st.tuples(st.sampled_from([b"json/plain", b"binary/null", b"binary/plain", b""]), st.binary())))
def test_whatever_arguments_are_they_have_features(arguments: list[tuple[bytes, bytes]]) -> None:
    found = features_of(arguments)
    assert len(found.shape) == 22
    assert found == features_of(arguments)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 5000 + b"]" * 5000,
        b"[" + b"1," * 100_000 + b"1]",
        b"1" * 5000,
        b"-" + b"9" * 400,
        b"1e999",
        b"NaN",
        b'"\\ud800"',
        json.dumps({f"k{n}": n for n in range(5000)}).encode(),
        json.dumps({"k" * 10_000: {"k" * 10_000: 1}}).encode(),
    ],
    ids=lambda data: str(data[:20]),
)
def test_huge_and_deep_arguments_are_bounded(data: bytes) -> None:
    found = features_of([(b"json/plain", data)])
    assert len(found.fields) <= MAX_FIELDS + 1
    assert all(len(each.path) <= 210 for each in found.fields)
    learner = Learner()
    learner.add("W", [Ran("A", 1, 2, found)])
    assert Baseline.parse(learner.baseline().text).unlike("A", found) == ()


def test_a_score_is_the_sum_of_its_reasons_up_to_a_hundred() -> None:
    quiet = Numbers(novel=False)
    assert score(quiet, new_transition=False, unlike=()) == (0, ())
    points, reasons = score(
        Numbers(novel=True, denials_last_hour=9, last_hour=40, last_day=50), new_transition=True, unlike=("1 is new",)
    )
    assert points == 100
    assert reasons == (
        "arguments: 1 is new (+40)",
        "transition: never seen after the activity before it (+30)",
        "novel: this principal never ran it (+15)",
        "denials: 9 in the last hour (+30)",
        "rate: 40 in the last hour, 10 in the 23 hours before (+20)",
    )
    assert score(Numbers(novel=False, last_hour=10, last_day=10), new_transition=False, unlike=())[0] == 0
    assert score(Numbers(novel=False, last_hour=11, last_day=11), new_transition=False, unlike=())[0] == 20


def test_arguments_whose_fields_are_data_are_left_out() -> None:
    learner = Learner()
    for run in range(10):
        data = json.dumps({f"customer-{run}-{n}": n for n in range(290)}).encode()
        learner.add("W", [Ran("A", 1, 2, features_of([(b"json/plain", data)]))])
    known = Baseline.parse(learner.baseline().text)
    assert learner.left_out == {"A"}
    assert known.unlike("A", features_of([(b"json/plain", b"{}")])) is None
    assert known.follows("W", "", "A") is True


def test_more_than_can_be_read_again_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "MAX_FILE", 100)
    with pytest.raises(ConfigurationError, match="fewer"):
        learned(*USUAL)
