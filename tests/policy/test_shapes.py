"""Type hints as Cedar types: every Python type has its Cedar type or a reason why there is none."""

import datetime
import enum
import functools
import ipaddress
import typing
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar

import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from exequatur.policy.shapes import MAX_ATTRIBUTES, Arguments, DictType, Omitted, arguments_of, shape_of
from exequatur.policy.types import LONG, RecordType, attributes_of, written

T = TypeVar("T")
Bounded = TypeVar("Bounded", bound=int)
Constrained = TypeVar("Constrained", int, float)
Age = NewType("Age", int)
Json = typing_extensions.TypeAliasType("Json", dict[str, "Json"])
Names = typing_extensions.TypeAliasType("Names", list[str])


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Nobody(enum.Enum):
    pass


class WithNone(enum.Enum):
    A = "a"
    B = None


class Text(str):
    __slots__ = ()


class Moment(datetime.datetime):
    pass


@dataclass
class Order:
    """What is bought."""

    id: str
    amount: Decimal
    note: str | None = None
    tags: list[str] = field(default_factory=list)
    quantity: int = 1


@dataclass
class Node:
    name: str
    parent: Optional["Node"] = None
    children: "list[Node]" = field(default_factory=list)


@dataclass
class Card:
    kind: Literal["card"]
    number: str
    amount: float
    data: bytes
    code: int = 0


@dataclass
class Transfer:
    kind: Literal["transfer"]
    iban: str
    amount: float
    data: str
    code: str = ""


@dataclass
class Box(Generic[T]):
    value: T
    more: list[T]


@dataclass
class IntBox(Box[int]):
    flag: bool


class Customer(BaseModel):
    name: str = Field(min_length=1, max_length=80, description="as on the\ninvoice")
    age: Annotated[int, Field(ge=0, le=150)]
    limit: Decimal = Field(gt=0, multiple_of=Decimal("0.5"), decimal_places=2)
    colour: Colour = Colour.RED
    code: str = Field(default="a", pattern="^a+$")
    friend: Optional["Customer"] = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class PydanticBox(BaseModel, Generic[T]):
    value: T


class Numbers(RootModel[list[int]]):
    pass


class Maybe(RootModel[int | None]):
    pass


class Point(NamedTuple):
    x: int
    y: float | None = None


class Filters(TypedDict, total=False):
    region: typing.Required[str]
    limit: int
    owner: NotRequired[str | None]


class Filters2(typing_extensions.TypedDict):
    region: str
    limit: typing_extensions.NotRequired[typing_extensions.ReadOnly[int]]


SHAPES: list[tuple[Any, str]] = [
    (bool, "Bool"),
    (int, "Long"),
    (float, "decimal"),
    (Decimal, "decimal"),
    (int | float, "decimal"),
    (int | float | Decimal | None, "decimal"),
    (str, "String"),
    (Text, "String"),
    (uuid.UUID, "String"),
    (str | uuid.UUID, "String"),
    (datetime.datetime, "datetime"),
    (pydantic.AwareDatetime, "datetime"),
    (datetime.timedelta, "duration"),
    (ipaddress.IPv4Address, "ipaddr"),
    (ipaddress.IPv4Address | ipaddress.IPv6Network, "ipaddr"),
    (pydantic.IPvAnyAddress, "ipaddr"),
    (pydantic.EmailStr, "String"),
    (Colour, "String"),
    (Level, "Long"),
    (Literal["a", "b"], "String"),
    (Literal[1, 2, None], "Long"),
    (Literal[Colour.RED], "String"),
    (Literal[1] | float, "decimal"),
    (list[int], "Set<Long>"),
    (set[Colour], "Set<String>"),
    (frozenset[Decimal], "Set<decimal>"),
    (tuple[str, ...], "Set<String>"),
    (tuple[int, int], "Set<Long>"),
    (Sequence[str], "Set<String>"),
    (list[list[int]], "Set<Set<Long>>"),
    (list[int] | set[int], "Set<Long>"),
    (list[Filters], "Set<{ region: String, limit?: Long, owner?: String }>"),
    (Order, "{ id: String, amount: decimal, note?: String, tags: Set<String>, quantity: Long }"),
    (Order | None, "{ id: String, amount: decimal, note?: String, tags: Set<String>, quantity: Long }"),
    (Customer, "{ name: String, age: Long, limit: decimal, colour: String, code: String }"),
    (Point, "{ x: Long, y?: decimal }"),
    (Filters, "{ region: String, limit?: Long, owner?: String }"),
    (Filters2, "{ region: String, limit?: Long }"),
    (Card | Transfer, "{ kind: String, number?: String, amount: decimal, iban?: String }"),
    (Node, "{ name: String }"),
    (Box[int], "{ value: Long, more: Set<Long> }"),
    (Box[list[str]], "{ value: Set<String>, more: Set<Set<String>> }"),
    (IntBox, "{ value: Long, more: Set<Long>, flag: Bool }"),
    (PydanticBox[datetime.datetime], "{ value: datetime }"),
    (Open, "{ name: String }"),
    (Numbers, "Set<Long>"),
    (Age, "Long"),
    (Annotated[int, "anything"], "Long"),
    (Bounded, "Long"),
    (Constrained, "decimal"),
    (Names, "Set<String>"),
]


@pytest.mark.parametrize(("annotation", "expected"), SHAPES, ids=lambda value: str(value)[:50])
@pytest.mark.rule("shapes.H2")
def test_a_type_hint_has_a_cedar_type(annotation: Any, expected: str) -> None:
    shape = shape_of(annotation)
    assert not isinstance(shape, Omitted), shape
    assert written(shape) == expected


LEFT_OUT: list[tuple[Any, str]] = [
    (Any, "is of any type"),
    (object, "is of any type"),
    (None, "is always None"),
    (bytes, "is bytes"),
    (datetime.date, "is a date"),
    (datetime.time, "is a time of day"),
    (pydantic.NaiveDatetime, "without a time zone"),
    (Moment, "is of type Moment"),
    (complex, "is of type complex"),
    (Callable[[int], str], "is of type Callable"),
    (int | str, "may be a Long or a String"),
    (bool | int, "may be a Bool or a Long"),
    (Level | str, "may be a Long or a String"),
    (Order | str, "may be a record or a String"),
    (dict[str, int] | Order, "may be a dict or a record"),
    (list[int] | list[float], "may be a Set<Long> or a Set<decimal>"),
    (tuple[int, str], "is a tuple of several types (Long and String)"),
    (tuple[()], "no declared type"),
    (list, "no declared type"),
    (list[Any], "holds elements of which one is of any type"),
    (list[Card], "holds elements of which data is bytes"),
    (list[Node], "holds elements of which parent refers to itself"),
    (list[dict[str, int]], "holds dicts"),
    (list[Open], "holds elements of which *"),
    (dict[int, str], "keys are not strings"),
    (dict[Level, str], "keys are not strings"),
    (Mixed, "has members of several types"),
    (Nobody, "has members of several types"),
    (WithNone, "has members of several types"),
    (Literal[1, "a"], "has members of several types"),
    (Maybe, "whose root may be None"),
    (T, "which nothing binds"),
    ("Order", "Cedar cannot represent"),
    (42, "Cedar cannot represent"),
    (TypedDict("Reserved", {"__entity": str}), "a name that Cedar reserves"),
]


@pytest.mark.parametrize(("annotation", "reason"), LEFT_OUT, ids=lambda value: str(value)[:50])
@pytest.mark.rule("shapes.H2", "shapes.H3")
def test_what_cedar_cannot_say_is_left_out_with_a_reason(annotation: Any, reason: str) -> None:
    shape = shape_of(annotation)
    assert isinstance(shape, Omitted), written(shape)
    assert reason in shape.reason


def omitted(arguments: Arguments) -> dict[str, str]:
    return {".".join(path): reason for path, reason in arguments.omitted}


@pytest.mark.rule("shapes.H2")
def test_a_left_out_part_of_a_record_is_named_with_its_path() -> None:
    def act(paid: Card | Transfer, node: Node, open_one: Open) -> None: ...

    found = omitted(arguments_of(act))
    assert found.keys() == {"paid.data", "paid.code", "node.parent", "node.children", "open_one.*"}
    assert found["paid.data"] == "is bytes, which Cedar cannot represent"
    assert found["paid.code"] == "has another type in each of the classes that it may be a field of"
    assert found["node.parent"] == "refers to itself (Node)"


def test_a_parameter_is_required_unless_it_may_be_absent() -> None:
    def act(a: int, b: int = 1, c: int | None = None, *rest: str) -> None: ...

    found = arguments_of(act)
    assert written(found.record) == "{ a: Long, b?: Long, c?: Long, rest: Set<String> }"
    assert found.names == ("a", "b", "c", "*rest")
    assert found.omitted == ()


def test_parameters_that_have_no_type_keep_their_place() -> None:
    def act(a, b: int, *, c: int = 1, __entity: int = 2, **more: int) -> None:  # type: ignore[no-untyped-def]
        """Its kinds of parameters."""

    found = arguments_of(act)
    assert found.names == ("a", "b")
    assert written(found.record) == "{ b: Long }"
    assert omitted(found) == {
        "a": "has no type hint, or none that can be resolved",
        "c": "can only be given by keyword, and Temporal passes arguments by position",
        "__entity": "can only be given by keyword, and Temporal passes arguments by position",
    }


def test_a_parameter_with_a_name_that_cedar_reserves_is_left_out() -> None:
    def act(__entity: int, __extn: str = "") -> None: ...

    found = arguments_of(act)
    assert found.names == ("__entity", "__extn")
    assert found.record == RecordType()
    assert set(omitted(found).values()) == {"has a name that Cedar reserves"}


def test_methods_partials_and_callable_objects_are_read_without_what_is_bound() -> None:
    class Operations:
        def act(self, order: Order, count: int = 1) -> None: ...

        def __call__(self, count: int) -> None: ...

    assert [each.name for each in arguments_of(Operations().act).record.attributes] == ["order", "count"]
    assert [each.name for each in arguments_of(Operations()).record.attributes] == ["count"]
    assert arguments_of(functools.partial(Operations.act, Operations())).names == ("order", "count")


@pytest.mark.rule("shapes.H1")
def test_a_callable_without_a_signature_has_a_reason() -> None:
    class Odd:
        __signature__ = "none"

        def __call__(self) -> None: ...

    assert omitted(arguments_of(Odd())) == {"": "cannot be told: Python does not know its parameters"}


def test_hints_that_cannot_be_resolved_leave_the_parameters_out() -> None:
    def act(a: "Missing", b: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert set(omitted(arguments_of(act))) == {"a", "b"}


def test_bounds_choices_and_descriptions_become_notes() -> None:
    def act(customer: Customer, level: Annotated[Level | None, Field(description="how urgent")] = None) -> None: ...

    record = arguments_of(act).record
    notes = {".".join(path): dict(each.annotations).get("doc") for path, each in attributes_of(record)}
    assert notes == {
        "customer": None,
        "customer.name": "as on the invoice, length at least 1, length at most 80",
        "customer.age": "at least 0, at most 150",
        "customer.limit": "more than 0, a multiple of 0.5, at most 2 decimal places",
        "customer.colour": "one of red, blue",
        "customer.code": "matching ^a+$",
        "level": "one of 1, 2, how urgent",
    }


def test_the_docstring_of_a_class_is_a_note_and_one_that_python_made_is_none() -> None:
    def act(order: Order, card: Box[int]) -> None: ...

    order, card = arguments_of(act).record.attributes
    assert order.annotations == (("doc", "What is bought."),)
    assert card.annotations == ()


def test_a_dict_is_a_record_whose_keys_are_data() -> None:
    for annotation in (dict[str, int], Mapping[str, int], OrderedDict[str, int], dict[Text, int], Mapping[Colour, int]):
        expected = DictType((), LONG) if annotation != Mapping[Colour, int] else None
        assert (shape_of(annotation) == expected) is (expected is not None)
    for untyped in (dict, dict[str, Any], dict[str, bytes], dict[str, int | str], Json):
        assert isinstance(found := shape_of(untyped), DictType)
        assert found.values is None or untyped is Json
    assert shape_of(dict[str, int]) != RecordType()


@pytest.mark.rule("shapes.H4")
def test_what_is_too_large_is_cut_with_a_reason() -> None:
    level: Any = int
    for depth in range(40):
        level = pydantic.create_model(f"Level{depth}", inner=(level, ...))
    assert "nested more than" in next(iter(omitted(arguments_of(typed(level))).values()))
    wide: Any = int
    for depth in range(12):
        wide = pydantic.create_model(f"Wide{depth}", left=(wide, ...), right=(wide, ...))
    found = arguments_of(typed(wide))
    assert len(list(attributes_of(found.record))) <= MAX_ATTRIBUTES
    assert any(f"after the {MAX_ATTRIBUTES}" in reason for reason in omitted(found).values())


def typed(annotation: Any) -> Callable[..., Any]:
    def act(value: Any) -> None: ...

    act.__annotations__ = {"value": annotation}
    return act


SEEDS = st.sampled_from([annotation for annotation, _ in [*SHAPES, *LEFT_OUT] if not isinstance(annotation, int | str)])


def unions(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, min_size=1, max_size=3).map(lambda each: typing.Union[tuple(each)])  # noqa: UP007


ANNOTATIONS = st.recursive(
    SEEDS,
    lambda inner: st.one_of(
        inner.map(lambda each: list[each]),  # type: ignore[valid-type]
        inner.map(lambda each: dict[str, each]),  # type: ignore[valid-type]
        inner.map(lambda each: tuple[each, ...]),  # type: ignore[valid-type]
        inner.map(lambda each: Box[each]),  # type: ignore[valid-type]
        inner.map(lambda each: Annotated[each, Field(ge=1, description="x" * 500)]),
        unions(inner),
    ),
    max_leaves=6,
)


@given(ANNOTATIONS)
def test_every_annotation_has_an_answer(annotation: Any) -> None:
    shape = shape_of(annotation)
    if isinstance(shape, Omitted):
        assert shape.reason
    else:
        assert written(shape)
    found = arguments_of(typed(annotation))
    assert found.names == ("value",)
    assert found.record.attributes or found.omitted


class Hostile(type):
    def __subclasscheck__(cls, other: type) -> bool:
        raise RuntimeError

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError

    def __hash__(cls) -> int:
        raise RuntimeError


@pytest.mark.rule("shapes.H1")
def test_a_hostile_class_has_an_answer() -> None:
    odd = Hostile("Odd", (), {})
    assert shape_of(odd) == Omitted("has a type hint that cannot be read")
