"""Code, schema and values agree: what is generated, what Cedar is given, and what a bundle says of the code."""

import dataclasses
import datetime
import enum
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any, Literal, NamedTuple, TypedDict

import cedarpy
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from exequatur import action
from exequatur.authoring.schema.generate import generate
from exequatur.policy.arguments import ActivitySignature, Conversion, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.conformance import unfit
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.types import CedarType, RecordType, SetType, misfit
from tests.policy.test_shapes import typed

UTC = datetime.UTC
ALL = '@id("all") permit(principal, action, resource);\n'
WHO = {"uid": {"type": "Agent", "id": "bot"}, "attrs": {}, "parents": []}
WHAT = {"type": "Workflow", "id": "w"}
FACTS: dict[str, Any] = {
    "activity": {"type": "act", "id": "1", "attempt": 1, "task_queue": "q", "local": False},
    "run": {"namespace": "n", "workflow_id": "w", "workflow_type": "t", "run_id": "r", "governed": True},
    "worker": {"id": "x", "integrity": "measured"},
    "now": {"__extn": {"fn": "datetime", "arg": "2026-01-01T00:00:00Z"}},
}


def bundle_of(fn: Callable[..., Any], policies: str = "", fragment: str | None = None) -> PolicyBundle:
    return PolicyBundle.from_parts(ALL + policies, generate({"act": fn}, fragment).text, strict=True)


def asked(bundle: PolicyBundle, fn: Callable[..., Any], *args: Any, activity: str = "act") -> Verdict:
    converted = convert_arguments(ActivitySignature.of(fn), args)
    return decide(bundle, WHO, {"type": "Action", "id": activity}, WHAT, converted, FACTS)


# What Cedar is given has the declared types.


def pay(amount: Decimal, count: int = 1, labels: dict[str, Any] | None = None) -> None: ...


LIMIT = '@id("limit") forbid(principal, action == Action::"act", resource) when { %s };'
BELOW = LIMIT % 'context.args.amount.lessThan(decimal("5.0"))'


@pytest.mark.rule("E8")
def test_an_argument_of_another_type_than_the_schema_declares_is_denied_by_name() -> None:
    bundle = bundle_of(pay, LIMIT % "context.args has count && context.args.count == 3")
    assert asked(bundle, pay, Decimal(1), 2).allowed
    verdict = asked(bundle, pay, Decimal(1), "3")
    assert not verdict.allowed
    assert verdict.fault == "args.count is a String where the schema declares a Long"
    assert verdict.errors == (verdict.fault,)
    # Cedar alone would skip the forbid, because a string never equals a number.
    assert not asked(bundle, pay, Decimal(1), 3).allowed


@pytest.mark.rule("E8")
def test_an_argument_of_an_action_that_the_schema_lacks_cannot_be_read() -> None:
    bundle = PolicyBundle.from_parts(
        ALL + '@id("x") forbid(principal, action, resource) when { context has args && context.args has secret };',
        generate({"act": typed(int)}).text,
    )
    verdict = asked(bundle, one_secret, "s", activity="unknown")
    assert not verdict.allowed


def one_secret(secret: str) -> None: ...


def test_an_argument_that_no_policy_reads_may_have_any_type() -> None:
    assert asked(bundle_of(pay), pay, "no number", [], {}).allowed
    assert asked(bundle_of(pay, BELOW), pay, Decimal(7), "no number").allowed


@pytest.mark.rule("arguments.A7")
def test_a_whole_number_is_a_decimal_where_fractions_are_declared() -> None:
    bundle = bundle_of(pay, BELOW)
    for amount, allowed in ((600, True), (Decimal("4.99"), False), (4, False), (True, False), (2**70, False)):
        assert asked(bundle, pay, amount).allowed is allowed
    assert asked(bundle, pay, 4).policies[0].id == "limit"

    def rates(values: list[float], best: float | int | None = None) -> None: ...

    converted = convert_arguments(ActivitySignature.of(rates), [[1, 2.5], 3])
    decimals = [{"__extn": {"fn": "decimal", "arg": each}} for each in ("1.0", "2.5", "3.0")]
    assert converted == Conversion({"values": decimals[:2], "best": decimals[2]}, {})


@pytest.mark.rule("arguments.A7")
def test_a_fraction_where_whole_numbers_are_declared_is_a_fault() -> None:
    converted = convert_arguments(ActivitySignature.of(pay), [Decimal(1), 2.0])
    assert converted.faults == {("count",): "args.count is a number with fractions where a whole one is declared"}
    few = LIMIT % "context.args has count && context.args.count < 3"
    assert not asked(bundle_of(pay, few), pay, Decimal(1), 5.5).allowed
    assert asked(bundle_of(pay, few), pay, Decimal(1), 5).allowed


TIER = LIMIT % 'context.args has labels && context.args.labels has tier && context.args.labels.tier == "free"'
LABELS = "type act_labels = { tier?: String };"


@pytest.mark.rule("arguments.A5")
def test_a_declared_key_of_a_dict_may_be_absent_and_others_do_not_matter() -> None:
    bundle = bundle_of(pay, TIER, LABELS)
    assert asked(bundle, pay, 1, 1, {"tier": "gold", "other": b"bytes"}).allowed
    assert asked(bundle, pay, 1, 1, {"other": 1}).allowed
    assert asked(bundle, pay, 1, 1, None).allowed
    assert not asked(bundle, pay, 1, 1, {"tier": "free"}).allowed
    # Without a schema nobody said that the key need not be there.
    assert not asked(PolicyBundle.from_parts(ALL + TIER), pay, 1, 1, {"other": 1}).allowed


def test_whether_something_is_there_can_be_asked_whatever_is_in_it() -> None:
    asks = LIMIT % "context.args has labels"
    reads = LIMIT % "context.args has labels && context.args.labels has a && context.args.labels.a == 1"
    for bundle in (PolicyBundle.from_parts(ALL + asks), bundle_of(pay, asks)):
        verdict = asked(bundle, pay, 1, 1, {"a": b"bytes"})
        assert [each.id for each in verdict.policies] == ["limit"]
        assert asked(bundle, pay, 1, 1, None).allowed
        # A value that has no Cedar form at all would look absent.
        assert "args.labels" in str(asked(bundle, pay, 1, 1, {1: "keys are no strings"}).fault)
    assert "args.labels.a" in str(asked(PolicyBundle.from_parts(ALL + reads), pay, 1, 1, {"a": b"bytes"}).fault)


@pytest.mark.parametrize("tier", [1, None, b"free", ["free"], {"__entity": {"type": "A", "id": "b"}}])
def test_a_declared_key_of_a_dict_with_another_value_is_denied(tier: Any) -> None:
    verdict = asked(bundle_of(pay, TIER, LABELS), pay, 1, 1, {"tier": tier})
    assert not verdict.allowed
    assert "args.labels.tier" in str(verdict.fault)


# Generated annotations and values that conform to them.


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: float
    y: float | None = None


class Filters(TypedDict, total=False):
    region: str
    limit: int


class Model(BaseModel):
    amount: float
    note: str | None = None


@dataclass
class Card:
    kind: Literal["card"]
    number: str
    amount: Decimal


@dataclass
class Cash:
    kind: Literal["cash"]
    amount: Decimal


Case = tuple[Any, st.SearchStrategy[Any]]

MOMENTS = st.datetimes(timezones=st.just(UTC)).map(lambda each: each.replace(microsecond=0))
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
SHORT = st.text(max_size=5)
SCALARS: list[Case] = [
    (bool, st.booleans()),
    (int, st.integers(-(2**64), 2**64)),
    (float, st.floats() | st.integers() | st.sampled_from([0.5, 120.25])),
    (int | float, st.integers() | st.floats()),
    (Decimal, NUMBERS | st.decimals() | st.integers()),
    (str, SHORT),
    (uuid.UUID, st.uuids()),
    (str | uuid.UUID, SHORT | st.uuids()),
    (datetime.datetime, MOMENTS | st.datetimes()),
    (datetime.timedelta, st.timedeltas() | st.integers(-999, 999).map(lambda each: datetime.timedelta(seconds=each))),
    (IPv4Address, st.ip_addresses(v=4)),
    (Colour, st.sampled_from(Colour)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1] | float, st.just(1) | st.floats()),
    (Point, st.builds(Point, st.integers(), st.none() | st.integers() | NUMBERS)),
    (Filters, st.fixed_dictionaries({}, optional={"region": SHORT, "limit": st.integers()})),
    (Model, st.builds(Model, amount=st.integers(-9, 9) | st.just(0.25), note=st.none() | SHORT)),
    (
        Card | Cash,
        st.builds(Card, st.just("card"), SHORT, NUMBERS) | st.builds(Cash, st.just("cash"), NUMBERS),
    ),
]


def composed(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    @st.composite
    def record(draw: Any) -> Case:
        fields = draw(st.dictionaries(st.sampled_from(["a", "b", "has", "größe"]), inner, min_size=1, max_size=3))
        cls = dataclasses.make_dataclass("Record", [(name, kind) for name, (kind, _) in fields.items()])
        return cls, st.builds(cls, **{name: values for name, (_, values) in fields.items()})

    return st.one_of(
        inner.map(lambda each: (list[each[0]], st.lists(each[1], max_size=3))),  # type: ignore[name-defined]
        inner.map(lambda each: (tuple[each[0], each[0]], st.tuples(each[1], each[1]))),  # type: ignore[name-defined]
        inner.map(lambda each: (each[0] | None, st.none() | each[1])),
        record(),
    )


CASES = st.recursive(st.sampled_from(SCALARS), composed, max_leaves=4)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def accepted_by_cedar(schema: str, args: dict[str, Any]) -> bool:
    request = {
        "principal": 'Agent::"bot"',
        "action": 'Action::"act"',
        "resource": 'Workflow::"w"',
        "context": {**FACTS, "args": args},
    }
    return cedarpy.is_authorized(request, ALL, "[]", schema=schema).allowed


def complete(value: Any, declared: CedarType) -> bool:
    """Whether no required attribute is absent."""
    if isinstance(declared, RecordType):
        return all(
            complete(value[each.name], each.type) if each.name in value else not each.required
            for each in declared.attributes
        )
    if isinstance(declared, SetType):
        return all(complete(item, declared.element) for item in value)
    return True


@QUICK
@given(CASES, st.data())
def test_a_conforming_value_is_a_fault_or_what_cedar_accepts_for_the_generated_schema(case: Case, data: Any) -> None:
    annotation, values = case
    fn = typed(annotation)
    generated = generate({"act": fn})
    bundle = PolicyBundle.from_parts(ALL, generated.text)
    declared = bundle.declared_arguments("act")
    assert declared is not None
    assume(not generated.warnings)
    converted = convert_arguments(ActivitySignature.of(fn), [data.draw(values)])
    if not converted.faults:
        assert misfit(converted.value, declared.record) is None
        assert accepted_by_cedar(generated.text, converted.value)


@QUICK
@given(CASES, CASES, st.data())
def test_what_is_no_misfit_is_what_cedar_accepts(case: Case, other: Case, data: Any) -> None:
    generated = generate({"act": typed(case[0])})
    declared = PolicyBundle.from_parts(ALL, generated.text).declared_arguments("act")
    assert declared is not None
    converted = convert_arguments(ActivitySignature.of(typed(other[0])), [data.draw(other[1])])
    if misfit(converted.value, declared.record) is None and complete(converted.value, declared.record):
        assert accepted_by_cedar(generated.text, converted.value)
    # The other way round does not hold: Cedar reads the string "1.5" as a decimal where one is declared.


# A bundle against the code.


def problems(schema_of: Callable[..., Any], code: Callable[..., Any], fragment: str | None = None) -> list[str]:
    schema = generate({"act": schema_of}, fragment).text
    return unfit(PolicyBundle.from_parts(ALL, schema), {"act": code})


def declared_as(**parameters: Any) -> Callable[..., Any]:
    """An activity with these parameters; one that is a tuple has the default in its second place."""
    code = ", ".join(f"{name}={name}[1]" if isinstance(kind, tuple) else name for name, kind in parameters.items())
    scope: dict[str, Any] = dict(parameters)
    exec(f"def act({code}): ...", scope)
    fn: Callable[..., Any] = scope["act"]
    fn.__annotations__ = {name: kind[0] if isinstance(kind, tuple) else kind for name, kind in parameters.items()}
    return fn


@dataclass
class Old:
    amount: int
    note: str


@dataclass
class New:
    amount: Decimal
    note: str | None
    extra: bool
    data: bytes


DIFFERENCES: list[tuple[Any, Any, list[str]]] = [
    (int, int, []),
    (int, str, ["args.value is a String in the code and a Long in the bundle"]),
    (list[int], list[float], ["args.value is a Set<decimal> in the code and a Set<Long> in the bundle"]),
    (list[int], int, ["args.value is a Long in the code and a Set<Long> in the bundle"]),
    (int, (int, 3), ["args.value is optional in the code and required in the bundle"]),
    ((int, 3), int, ["args.value is required in the code and optional in the bundle"]),
    (int | None, int, ["args.value is required in the code and optional in the bundle"]),
    (int, bytes, ["args.value is bytes, which Cedar cannot represent in the code, and the bundle declares it"]),
    (bytes, bytes, []),
    (Old, dict[str, int], ["args.value.amount is required in the bundle, and a key of a dict need not be there"]),
    (
        Old,
        New,
        [
            "args.value.amount is a decimal in the code and a Long in the bundle",
            "args.value.note is optional in the code and required in the bundle",
            "args.value.extra is in the code and not in the bundle",
        ],
    ),
    (New, Old, ["args.value.extra is in the bundle and not in the code"]),
]


@pytest.mark.parametrize(("before", "after", "expected"), DIFFERENCES, ids=lambda each: str(each)[:30])
@pytest.mark.rule("conformance.C1")
def test_other_types_than_the_bundle_has_are_named(before: Any, after: Any, expected: list[str]) -> None:
    found = problems(declared_as(value=before), declared_as(value=after))
    assert {f"act: {each}; run: exequatur policy schema --from MODULE" for each in expected} <= set(found)
    assert bool(found) is bool(expected)


@pytest.mark.rule("conformance.C1")
def test_parameters_that_came_or_went_are_named() -> None:
    assert problems(declared_as(a=int, b=int), declared_as(a=int, c=int)) == [
        "act: args.c is in the code and not in the bundle; run: exequatur policy schema --from MODULE",
        "act: args.b is in the bundle and not in the code; run: exequatur policy schema --from MODULE",
    ]


@pytest.mark.rule("conformance.C1")
def test_keys_that_the_bundle_declares_of_a_dict_fit_the_code() -> None:
    fragment = "type act_value = { k?: Long };"
    assert problems(typed(dict[str, int]), typed(dict[str, int]), fragment) == []
    assert problems(typed(dict[str, int]), typed(dict[str, Any]), fragment) == []
    assert "args.value.k is a String in the code" in problems(typed(dict[str, int]), typed(dict[str, str]), fragment)[0]


@pytest.mark.rule("conformance.C1")
def test_an_activity_that_the_bundle_lacks_is_named_and_without_a_schema_none_is() -> None:
    schema = generate({"act": typed(int)}).text
    fns = {"act": typed(int), "other": typed(int), "activity": typed(int)}
    assert unfit(PolicyBundle.from_parts(ALL, schema), fns) == [
        "activity: the bundle has no action for it; run: exequatur policy schema --from MODULE",
        "other: the bundle has no action for it; run: exequatur policy schema --from MODULE",
    ]
    assert unfit(PolicyBundle.from_parts(ALL), fns) == []


@pytest.mark.rule("conformance.C2")
def test_another_resource_or_a_missing_group_is_named() -> None:
    def fn(value: int) -> None: ...

    def marked(**options: Any) -> Callable[..., Any]:
        return action(**options)(declared_as(value=int))

    order = marked(groups=["money"], resource=str, resource_type="Order")
    assert list(sentences(problems(fn, order))) == [
        "it acts on Order in the code and on Workflow in the bundle",
        "it is in the group money in the code and not in the bundle",
    ]
    assert problems(order, order) == []
    assert list(sentences(problems(order, fn))) == ["it acts on Workflow in the code and on Order in the bundle"]
    nested = 'action "money" in ["regulated"]; action "regulated";'
    assert problems(marked(groups=["money"]), marked(groups=["regulated"]), nested) == []


def sentences(found: list[str]) -> Iterator[str]:
    for each in found:
        yield each.removeprefix("act: ").removesuffix("; run: exequatur policy schema --from MODULE")
