"""Plain values by declared type: exact, or refused with the field's name."""

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.policy.types import (
    BOOL,
    DATETIME,
    DECIMAL,
    DURATION,
    IPADDR,
    LONG,
    STRING,
    Attribute,
    CedarType,
    EntityType,
    RecordType,
    SetType,
    misfit,
)
from exequatur.policy.values import convert_plain, entity_of

NOON = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)


def extension(fn: str, arg: str) -> dict[str, Any]:
    return {"__extn": {"fn": fn, "arg": arg}}


def converted(value: Any, declared: CedarType | None) -> Any:
    record = None if declared is None else RecordType((Attribute("x", declared),))
    found = convert_plain({"x": value}, record)
    return found.value["x"] if not found.faults else "; ".join(found.faults.values())


@pytest.mark.parametrize(
    ("value", "declared", "cedar"),
    [
        (5, LONG, 5),
        (5, DECIMAL, extension("decimal", "5.0")),
        (120.5, DECIMAL, extension("decimal", "120.5")),
        ("120.50", DECIMAL, extension("decimal", "120.5")),
        ("120.5005", DECIMAL, extension("decimal", "120.5005")),
        ("2026-01-05T12:00:00Z", DATETIME, extension("datetime", "2026-01-05T12:00:00.000Z")),
        (NOON, DATETIME, extension("datetime", "2026-01-05T12:00:00.000Z")),
        ("1h30m", DURATION, extension("duration", "5400000ms")),
        ("-90s", DURATION, extension("duration", "-90000ms")),
        (1.5, DURATION, extension("duration", "1500ms")),
        ("10.0.0.0/8", IPADDR, extension("ip", "10.0.0.0/8")),
        (["b", "a"], SetType(STRING), ["b", "a"]),
        ('User::"a\\"b"', EntityType("User"), {"__entity": {"type": "User", "id": 'a"b'}}),
        (5, None, 5),
        (5.25, None, extension("decimal", "5.25")),
        ({"a": [1, 2], "b": None}, None, {"a": [1, 2]}),
    ],
)
@pytest.mark.rule("values.V2")
def test_a_value_becomes_what_its_type_says(value: Any, declared: CedarType | None, cedar: Any) -> None:
    assert converted(value, declared) == cedar


@pytest.mark.parametrize(
    ("value", "declared", "sentence"),
    [
        ("5", LONG, "args.x is a string, but a Long is declared"),
        (True, LONG, "args.x is true or false, but a Long is declared"),
        (True, DECIMAL, "args.x is true or false, but a decimal is declared"),
        (5.5, LONG, "args.x is a number, but a Long is declared"),
        (2**63, LONG, "args.x is an integer that does not fit in 64 bits"),
        (0.00001, DECIMAL, "more than four fractional digits"),
        ("a lot", DECIMAL, "args.x is a string that is no number"),
        (float("nan"), DECIMAL, "args.x is not a finite number"),
        ("noon", DATETIME, "args.x is no point in time"),
        ("2026-01-05T12:00:00", DATETIME, "args.x is a datetime without a time zone"),
        ("soon", DURATION, "args.x is no duration"),
        ("", DURATION, "args.x is no duration"),
        ("999999999999d", DURATION, "too long"),
        ("10.0.0.300", IPADDR, "args.x is no IP address"),
        ("abc", SetType(STRING), "args.x is a string, but a list is declared"),
        (["a", 1], SetType(STRING), "args.x holds an element that is a whole number"),
        ('Role::"a"', EntityType("User"), "args.x is a Role, but a User is declared"),
        ("nobody", EntityType("User"), "write it as Type::"),
        ("\ud800", STRING, "not valid Unicode"),
        ({"y": 1}, STRING, "args.x is a record, but a String is declared"),
        ({"__extn": {"fn": "ip", "arg": "::1"}}, None, "that Cedar reserves"),
        ({"__entity": {"type": "User", "id": "a"}}, RecordType(()), "args.x.__entity is not declared"),
        (b"bytes", None, "which Cedar cannot represent"),
    ],
)
@pytest.mark.rule("values.V1", "values.V2", "values.V3")
def test_what_has_no_exact_form_is_named(value: Any, declared: CedarType | None, sentence: str) -> None:
    assert sentence in converted(value, declared)


def test_undeclared_and_missing_members_are_both_named() -> None:
    declared = RecordType((Attribute("amount", DECIMAL), Attribute("note", STRING, required=False)))
    found = convert_plain({"amuont": 5}, declared)
    assert sorted(found.faults) == [("amount",), ("amuont",)]
    assert "there is amount, note" in found.faults["amuont",]


@pytest.mark.rule("values.V1")
def test_a_deep_value_ends_in_a_fault() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    [fault] = convert_plain({"x": value}, None).faults.values()
    assert fault.endswith("is nested more than 32 levels deep")


@pytest.mark.rule("values.V1")
def test_more_values_than_a_decision_may_carry_are_a_fault_over_everything() -> None:
    found = convert_plain({str(number): number for number in range(10_000)}, None)
    assert len(found.faults) == 1
    assert "holds more than 10000 values" in next(iter(found.faults.values()))


@pytest.mark.rule("values.V1")
def test_a_value_that_is_no_record_at_all_is_a_fault_over_everything() -> None:
    found = convert_plain(5, RecordType(()))
    assert (found.value, found.faults) == ({}, {(): "args is a whole number, but {} is declared"})


@pytest.mark.parametrize("text", ["User", 'User::"a', 'User::a"', '::"a"', 5, None, {"type": "User"}, 'Us er::"a"'])
def test_what_is_no_entity_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="write it as Type"):
        entity_of(text)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.datetimes() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abxy"), inner, max_size=3),
    max_leaves=8,
)
DECLARED = st.recursive(
    st.sampled_from([BOOL, LONG, STRING, DECIMAL, DATETIME, DURATION, IPADDR, EntityType("User")]),
    lambda inner: (
        inner.map(SetType)
        | st.lists(inner, max_size=3).map(
            lambda types: RecordType(
                tuple(Attribute(name, each, required=name == "a") for name, each in zip("abx", types, strict=False))
            )
        )
    ),
    max_leaves=5,
)


@given(PLAIN, DECLARED)
def test_whatever_is_converted_has_the_declared_type(value: Any, declared: CedarType) -> None:
    found = convert_plain({"x": value}, RecordType((Attribute("x", declared),)))
    if not found.faults:
        assert misfit(found.value, RecordType((Attribute("x", declared),))) is None


@given(PLAIN)
def test_without_a_type_nothing_crashes(value: Any) -> None:
    convert_plain(value, None)
