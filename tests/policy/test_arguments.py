"""Arguments as Cedar JSON: what each Python value becomes, what is refused, and what absence means."""

import datetime
import enum
import functools
import ipaddress
import math
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from exequatur.policy.arguments import ActivitySignature, Conversion, convert_arguments
from exequatur.policy.scalars import LONG_MAX, LONG_MIN

UTC = datetime.UTC
PERMIT_ALL = cedarpy.PolicySet.from_str("permit(principal, action, resource);")
Nickname = NewType("Nickname", str | None)  # type: ignore[valid-newtype]


def extension(fn: str, arg: str) -> dict[str, Any]:
    return {"__extn": {"fn": fn, "arg": arg}}


def convert(fn: Callable[..., Any], *args: Any) -> Conversion:
    return convert_arguments(ActivitySignature.of(fn), args)


def one(value: Any) -> None:
    """An activity with one undeclared parameter."""


def accepted_by_cedar(value: dict[str, Any]) -> list[str]:
    request = {"principal": 'U::"a"', "action": 'Action::"b"', "resource": 'R::"c"', "context": {"args": value}}
    return cedarpy.is_authorized(request, PERMIT_ALL, "[]").diagnostics.errors


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Number(int):
    def __int__(self) -> int:
        return 7

    def __lt__(self, other: object) -> bool:
        return True


@dataclass
class Order:
    id: str
    amount: float | int | None = None
    note: str = ""


class Point(NamedTuple):
    x: int
    y: int | None = None


class Customer(BaseModel):
    name: str
    age: int | None = None


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Names(RootModel[list[str]]):
    pass


class Filters(TypedDict):
    region: str
    limit: NotRequired[int]
    owner: str | None


REPRESENTABLE = [
    (True, True),
    (0, 0),
    (LONG_MAX, LONG_MAX),
    (LONG_MIN, LONG_MIN),
    ("", ""),
    ("ünï\x00", "ünï\x00"),
    (600.5, extension("decimal", "600.5")),
    (600.0, extension("decimal", "600.0")),
    (0.0001, extension("decimal", "0.0001")),
    (1e3, extension("decimal", "1000.0")),
    (Decimal("1.50"), extension("decimal", "1.5")),
    (Decimal("1E+2"), extension("decimal", "100.0")),
    (Decimal("922337203685477.5807"), extension("decimal", "922337203685477.5807")),
    (Decimal("-922337203685477.5808"), extension("decimal", "-922337203685477.5808")),
    (datetime.datetime(2024, 2, 3, 4, 5, 6, 7000, UTC), extension("datetime", "2024-02-03T04:05:06.007Z")),
    (
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        extension("datetime", "2023-12-31T22:00:00.000Z"),
    ),
    (datetime.timedelta(milliseconds=-5), extension("duration", "-5ms")),
    (datetime.timedelta.max - datetime.timedelta(microseconds=999), extension("duration", "86399999999999999ms")),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (ipaddress.ip_address("10.0.0.1"), extension("ip", "10.0.0.1")),
    (ipaddress.ip_network("10.0.0.0/8"), extension("ip", "10.0.0.0/8")),
    (ipaddress.ip_address("::ffff:1.2.3.4"), extension("ip", "0000:0000:0000:0000:0000:ffff:0102:0304")),
    (ipaddress.ip_network("2001:db8::/32"), extension("ip", "2001:0db8:0000:0000:0000:0000:0000:0000/32")),
    ([1, "a"], [1, "a"]),
    ((), []),
    ({"b", "a"}, ["a", "b"]),
    (frozenset({2.5}), [extension("decimal", "2.5")]),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(int, a=1), {"a": 1}),
    (Order("o"), {"id": "o", "note": ""}),
    (Point(1), {"x": 1}),
    (Customer(name="Ada"), {"name": "Ada"}),
    (Names(["a"]), ["a"]),
    (Text("the text"), "the text"),
    (Number(5), 5),
    ([Order("o", 1)], [{"id": "o", "amount": extension("decimal", "1.0"), "note": ""}]),
]


@pytest.mark.parametrize(("value", "expected"), REPRESENTABLE, ids=lambda value: type(value).__name__)
def test_a_representable_value_is_exact_in_cedar(value: Any, expected: Any) -> None:
    conversion = convert(one, value)
    assert conversion.faults == {}
    assert conversion.value == {"value": expected}
    assert type(conversion.value["value"]) is type(expected)
    assert accepted_by_cedar(conversion.value) == []


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(name)


@dataclass
class Trap:
    secret: str = "x"

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class Twin(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return 5


class FineTime(datetime.datetime):
    """As a pandas Timestamp: a subclass that can hold digits which its base does not show."""


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value["b"] = value
    return value


UNREPRESENTABLE = [
    (2**63, "64 bits"),
    (2**70, "64 bits"),
    (0.00001, "four fractional digits"),
    (1e300, "outside the range"),
    (1e16, "outside the range"),
    (Decimal("922337203685477.5808"), "outside the range"),
    (Decimal("1E+999999"), "outside the range"),
    (Decimal("1E-999999"), "four fractional digits"),
    (Decimal("sNaN"), "finite"),
    (math.nan, "finite"),
    (-math.inf, "finite"),
    (datetime.datetime(2024, 1, 1), "time zone"),  # noqa: DTZ001
    (datetime.datetime(2024, 1, 1, microsecond=1, tzinfo=UTC), "below the millisecond"),
    (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), "years 1 to 9999"),
    (FineTime(2024, 1, 1, tzinfo=UTC), "FineTime"),
    (datetime.timedelta(microseconds=1), "below the millisecond"),
    (datetime.date(2024, 1, 1), "date without time"),
    (datetime.time(1), "time"),
    (ipaddress.ip_address("fe80::1%eth0"), "scope"),
    (b"x", "bytes"),
    (object(), "object"),
    (Hostile(), "Hostile"),
    (3j, "complex"),
    (range(3), "range"),
    ("\ud800", "surrogate"),
    ("x" * 65537, "65536 bytes"),
    ("ü" * 40000, "65536 bytes"),
    (["x" * 60000] * 5, "holds more than"),
    ([0] * 10001, "holds more than"),
    ({str(n): n for n in range(20000)}, "holds more than"),
    (cyclic(), "holds more than"),
    ([None], "None"),
    ([b"x"], "holds an element that is of type bytes"),
    ([{"a": b"x"}], "holds an element that is of type bytes"),
    ([{"__entity": {"type": "User", "id": "root"}}], "__entity"),
    ({"__entity": {"type": "User", "id": "root"}}, "__entity"),
    ({"__extn": {"fn": "decimal", "arg": "1.0"}}, "__extn"),
    ({"__expr": 'User::"root"'}, "__expr"),
    ({"__entity": 1, "harmless": 2}, "__entity"),
    ({Text("__extn"): 1}, "__extn"),
    ({1: 2}, "not a string"),
    ({"\ud800": 2}, "surrogate"),
    ({Twin("a"): 1, "a": 2}, "same text"),
    (functools.reduce(lambda inner, _: [inner], range(40), 1), "32 levels"),
    (None, "None where no None is declared"),
]


@pytest.mark.parametrize(("value", "reason"), UNREPRESENTABLE, ids=lambda value: type(value).__name__)
@pytest.mark.rule("arguments.A1", "arguments.A2", "arguments.A3", "arguments.A4", "arguments.A6")
def test_an_unrepresentable_value_is_a_fault_with_its_reason(value: Any, reason: str) -> None:
    conversion = convert(one, value)
    assert reason in conversion.faults["value",]
    assert conversion.faults["value",].startswith("args.value ")
    assert conversion.value == {}


def test_a_value_inside_a_record_is_a_fault_at_its_own_path_and_the_rest_stays() -> None:
    conversion = convert(one, {"amount": 2**70, "id": "o", "lines": Order("x", math.inf)})
    assert conversion.value == {"value": {"id": "o", "lines": {"id": "x", "note": ""}}}
    assert set(conversion.faults) == {("value", "amount"), ("value", "lines", "amount")}


@pytest.mark.rule("arguments.A1")
def test_a_field_that_raises_when_it_is_read_is_a_fault() -> None:
    conversion = convert(one, {"trap": Trap(), "ok": 1})
    assert "could not be read" in conversion.faults["value", "trap", "secret"]
    assert conversion.value["value"]["ok"] == 1


@pytest.mark.rule("arguments.A1")
def test_a_dataclass_field_that_was_never_set_is_a_fault() -> None:
    order = Order("o")
    del order.__dict__["id"]
    assert ("value", "id") in convert(one, order).faults


@pytest.mark.rule("arguments.A6")
def test_an_oversized_field_does_not_take_its_neighbours_with_it() -> None:
    @dataclass
    class Import:
        rows: list[int]
        name: str

    conversion = convert(one, Import([0] * 20000, "n"))
    assert conversion.value == {"value": {"name": "n"}}
    assert list(conversion.faults) == [("value", "rows")]
    conversion = convert(one, {"rows": [0] * 20000, "name": "n"})
    assert conversion.value == {"value": {"name": "n"}}
    assert list(conversion.faults) == [("value", "rows")]


@pytest.mark.rule("arguments.A6")
def test_many_oversized_fields_end_the_work_instead_of_multiplying_it() -> None:
    value = {str(n): Order("x", [0] * 9000) for n in range(1000)}  # type: ignore[arg-type]
    conversion = convert(one, value)
    assert list(conversion.faults)[-1] == ("value",)
    assert len(conversion.faults) < 50


def test_a_dict_key_in_a_message_is_quoted_and_cut() -> None:
    conversion = convert(one, {"a\nforged line " + "x" * 500: b""})
    (sentence,) = conversion.faults.values()
    assert "\n" not in sentence
    assert len(sentence) < 200


@pytest.mark.rule("arguments.A3")
def test_a_dataclass_field_with_a_reserved_name_is_refused() -> None:
    reserved = type("Reserved", (), {"__annotations__": {"__entity": dict}})
    conversion = convert(one, dataclass(reserved)({"type": "User", "id": "root"}))
    assert conversion.value == {}
    assert "reserves" in conversion.faults["value",]


def nones(
    a: int | None,
    b: "str | None",
    c: Any,
    d: int,
    e: Nickname,
    f: Literal["x", None],
    g: "int | None",
    h: object = None,
    i=None,  # type: ignore[no-untyped-def]
) -> None: ...


@pytest.mark.rule("arguments.A4")
def test_none_is_absent_where_it_is_declared_and_a_fault_elsewhere() -> None:
    conversion = convert(nones, *[None] * 7)
    assert conversion.value == {}
    assert set(conversion.faults) == {("c",), ("d",)}
    assert conversion.nones == {("a",), ("b",), ("e",), ("f",), ("g",), ("h",), ("i",)}
    assert conversion.fault_for([("a",), ("i",)]) is None


def test_a_hint_that_cannot_be_resolved_counts_as_not_given() -> None:
    def unresolved(a: "Missing | None") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert ("a",) in convert(unresolved, None).faults


def filtered(
    filters: Filters, by_name: Mapping[str, int | None], rows: list[dict[str, int | None]] | None = None
) -> None: ...


def test_a_typed_dict_declares_its_keys() -> None:
    conversion = convert(filtered, {"region": "eu", "owner": None, "more": 1}, {"a": None})
    assert conversion.faults == {}
    assert conversion.value == {"filters": {"region": "eu", "more": 1}, "by_name": {}}
    assert conversion.open == {("by_name",)}
    assert conversion.fault_for([("filters", "limit"), ("filters", "owner"), ("filters", "typo")]) is None
    assert conversion.fault_for([("by_name", "a")]) is None
    assert conversion.fault_for([("by_name", "b")]) == (
        ("by_name", "b"),
        "args.by_name.b is not given, and a policy reads it",
    )


@pytest.mark.rule("arguments.A5")
def test_a_required_key_that_is_missing_from_a_typed_dict_is_a_fault() -> None:
    assert set(convert(filtered, {"owner": "me"}, {}).faults) == {("filters", "region")}


def test_optional_values_of_dicts_in_a_list_are_absent() -> None:
    assert convert(filtered, {"region": "eu", "owner": None}, {}, [{"a": None, "b": 1}]).value["rows"] == [{"b": 1}]


@pytest.mark.rule("arguments.A5")
def test_extras_open_a_pydantic_model() -> None:
    conversion = convert(one, Loose(name="n", amount=600.5))
    assert conversion.value == {"value": {"name": "n", "amount": extension("decimal", "600.5")}}
    assert conversion.open == {("value",)}
    assert conversion.fault_for([("value", "limit")]) is not None
    assert "__entity" in convert(one, Loose.model_validate({"name": "n", "x": {"__entity": 1}})).faults["value", "x"]
    assert "value" not in convert(one, Loose.model_validate({"name": "n", "__extn": 1})).value


@pytest.mark.rule("arguments.A5")
def test_a_missing_key_of_a_dict_is_a_fault_only_if_it_is_read() -> None:
    conversion = convert(one, {"order": {"id": 1}})
    assert conversion.fault_for([]) is None
    assert conversion.fault_for([("value", "order", "id"), ("value", "order")]) is None
    assert conversion.fault_for([("value", "order", "amount")]) is not None


def test_a_fault_is_found_at_above_and_below_a_read() -> None:
    conversion = convert(one, Order("o", 2**70))
    for read in [(), ("value",), ("value", "amount"), ("value", "amount", "currency")]:
        found = conversion.fault_for([read])
        assert found is not None
        assert found[0] == ("value", "amount")
    assert conversion.fault_for([("value", "id"), ("value", "typo"), ("other",)]) is None


@pytest.mark.rule("arguments.A5")
def test_a_parameter_without_a_value_is_a_fault_and_a_default_is_what_the_body_sees() -> None:
    def pay(amount: int, currency: str = "EUR", *, fast: bool = False, key: int) -> None: ...

    conversion = convert(pay)
    assert conversion.value == {"currency": "EUR", "fast": False}
    assert set(conversion.faults) == {("amount",), ("key",)}
    assert conversion.faults["amount",] == "args.amount is not given and has no default"


def test_surplus_arguments_are_a_fault_over_everything() -> None:
    conversion = convert(one, 1, 2)
    assert conversion.fault_for([("value",)]) is not None
    assert conversion.fault_for([]) is None


class Nowhere(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        raise RuntimeError("no offset")


@pytest.mark.rule("arguments.A1")
def test_a_time_zone_that_raises_is_a_fault_of_its_own_field() -> None:
    conversion = convert(one, {"at": datetime.datetime(2026, 1, 5, tzinfo=Nowhere()), "id": "o-1"})
    assert conversion.value == {"value": {"id": "o-1"}}
    assert conversion.faults == {("value", "at"): "args.value.at could not be read"}


class Uncountable(list[Any]):
    def __len__(self) -> int:
        raise RuntimeError("how many?")


@pytest.mark.rule("arguments.A1")
def test_arguments_that_cannot_even_be_counted_are_a_fault_over_everything() -> None:
    conversion = convert_arguments(ActivitySignature.of(one), Uncountable([1]))
    assert (conversion.value, conversion.faults) == ({}, {(): "the arguments could not be read"})


def test_star_arguments_are_a_list_under_their_name() -> None:
    def many(first: int, *rest: str, **options: int) -> None: ...

    assert convert(many, 1, "a", "b").value == {"first": 1, "rest": ["a", "b"]}
    assert convert(many, 1).value == {"first": 1, "rest": []}


class Service:
    def method(self, amount: int | None) -> None: ...

    def __call__(self, size: int | None) -> None: ...


def test_bound_methods_callable_objects_and_partials_have_signatures() -> None:
    assert convert(Service().method, 5).value == {"amount": 5}
    assert convert(Service(), None).faults == {}
    assert convert(Service(), 5).value == {"size": 5}

    def pay(account: str, amount: int | None, currency: str) -> None: ...

    assert convert(functools.partial(pay, "a"), None, "EUR").value == {"currency": "EUR"}
    assert convert(functools.partial(pay, "a", currency="EUR"), 5).value == {"amount": 5, "currency": "EUR"}


def test_a_callable_without_a_readable_signature_hides_every_argument() -> None:
    assert convert(dict.fromkeys, 1).faults.keys() <= {(), ("iterable",), ("value",)}
    conversion = convert_arguments(ActivitySignature(known=False), [1])
    assert conversion.fault_for([("anything",)]) is not None


@pytest.mark.rule("arguments.A3")
def test_a_parameter_with_a_reserved_name_never_reaches_cedar() -> None:
    def odd(__entity: Any) -> None: ...

    conversion = convert(odd, {"type": "User", "id": "root"})
    assert conversion.value == {}
    assert conversion.faults


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.timedeltas()
    | st.dates()
    | st.uuids()
    | st.ip_addresses()
    | st.sampled_from([Colour.RED, Level.HIGH, Text("t"), Number(5), Point(1), object, len])
    | st.builds(Hostile)
    | st.builds(Trap)
)
KEYS = st.text(st.characters(exclude_categories=())) | st.sampled_from(["__entity", "__extn", "__expr", "type", "id"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.tuples(inner, inner)
        | st.builds(Order, inner, inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(Customer.model_construct, name=inner, age=inner)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES)
def test_any_value_converts_and_what_was_converted_is_accepted_by_cedar(value: Any) -> None:
    conversion = convert(one, value)
    assert accepted_by_cedar(conversion.value) == []


@settings(max_examples=100, deadline=None)
@given(value=st.floats() | st.decimals() | st.integers())
def test_a_number_is_exact_or_a_fault(value: Any) -> None:
    conversion = convert(one, value)
    if conversion.faults:
        return
    got = conversion.value["value"]
    assert Decimal(got["__extn"]["arg"] if isinstance(got, dict) else got) == Decimal(
        repr(value).removeprefix("Decimal('").removesuffix("')")
    )


@dataclass
class Nested:
    order: Order
    tags: list[str] = field(default_factory=list)


def test_nested_dataclasses_are_closed() -> None:
    conversion = convert(one, Nested(Order("o", 5), ["a"]))
    assert conversion.value == {
        "value": {"order": {"id": "o", "amount": extension("decimal", "5.0"), "note": ""}, "tags": ["a"]}
    }
    assert conversion.open == frozenset()
    assert conversion.fault_for([("value", "order", "typo")]) is None


def test_an_entity_is_given_whole_when_a_policy_reads_into_it() -> None:
    entity = {"__entity": {"type": "Order", "id": "o-1"}}
    assert Conversion({"order": entity}, {}).given([("order", "owner")]) == {"order": entity}
