"""The schema from code: the same every time, read by Cedar, with the application's own declarations in it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cedarpy import Schema
from hypothesis import given
from hypothesis import strategies as st

from exequatur import ConfigurationError, PolicyError, action
from exequatur.authoring.schema.generate import Generated, base_model, generate
from exequatur.cli.code import activities_of
from exequatur.policy.action import ActionMark, mark_of
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.schema import SchemaModel, read_schema
from exequatur.policy.shapes import arguments_of
from exequatur.policy.told import OWN_ACTIONS, untold
from exequatur.policy.types import STRING, EntityType, RecordType, written
from tests.policy.test_shapes import ANNOTATIONS, typed

ROOT = Path(__file__).parents[2]


@dataclass
class Refund:
    """Pay back a part of an order."""

    order_id: str
    amount: Decimal
    labels: dict[str, str]


@action(groups=["money"], resource=lambda refund, note="": refund.order_id, resource_type="Order")
def refund_order(refund: Refund, note: str = "") -> str:
    """Pays money back.

    At once.
    """
    return f"{refund}{note}"


def ping() -> None: ...


ACTIVITIES: dict[str, Callable[..., Any]] = {"refund_order": refund_order, "ping": ping}


def model_of(generated: Generated) -> SchemaModel:
    Schema.from_str(generated.text)
    return read_schema(generated.text)


def refusal(fragment: str, activities: dict[str, Callable[..., Any]] | None = None) -> str:
    with pytest.raises(PolicyError) as raised:
        generate(activities or ACTIVITIES, fragment)
    return str(raised.value)


def test_each_activity_is_an_action_with_the_types_of_its_arguments() -> None:
    model = model_of(generate(ACTIVITIES))
    refund = model.actions["refund_order"]
    assert refund.args is not None
    assert written(refund.args) == ("{ refund: { order_id: String, amount: decimal, labels: {} }, note?: String }")
    assert refund.groups == (("Action", "activity"), ("Action", "money"))
    assert refund.resources == ("Order",)
    assert refund.principals == ("Agent", "User", "Service", "Unauthenticated")
    assert refund.annotations == {"doc": "Pays money back.", "parameters": "refund,note"}
    assert model.actions["ping"].args == RecordType()
    assert model.actions["ping"].annotations == {"parameters": ""}
    assert model.actions["ping"].resources == ("Workflow",)


def test_the_context_has_what_the_gate_tells() -> None:
    context = model_of(generate(ACTIVITIES)).actions["ping"].context
    assert {each.name: each.required for each in context.attributes} == {
        "args": True,
        "activity": True,
        "run": True,
        "worker": True,
        "now": True,
        "behavior": False,
        "approvals": False,
        "acting": False,
    }


def test_the_order_of_the_activities_does_not_matter() -> None:
    assert generate(ACTIVITIES) == generate(dict(reversed(ACTIVITIES.items())))
    assert generate(ACTIVITIES).text.endswith("};\n")


def test_the_committed_schema_of_the_reference_application_is_that_of_its_code() -> None:
    folder = ROOT / "policies"
    generated = generate(activities_of(["workflows.activities"]), (folder / "model.cedarschema").read_text())
    assert generated.text == (folder / "schema.cedarschema").read_text()
    assert generated.warnings == ()
    assert not any("schema" in warning for warning in PolicyBundle.from_folder(folder).warnings)


def test_the_base_model_stands_by_itself() -> None:
    model = read_schema(base_model())
    assert set(model.actions) == {"activity", "messages", "operations", "schedules", "authority"} | OWN_ACTIONS
    assert [list(untold(model.actions[name])) for name in OWN_ACTIONS] == [[]] * len(OWN_ACTIONS)
    assert model_of(generate({})).actions.keys() == model.actions.keys()


FRAGMENT = """
// Agents work for a region.
entity Agent in [Role, Team] { region?: String };
@principal entity Team in [Role];
entity Order { owner: User };
type refund_order_refund_labels = { tier?: String, "a b"?: String };
action "money" in ["regulated"];
action "regulated";
"""


def test_declarations_of_the_application_take_the_place_of_those_of_the_base_model() -> None:
    model = model_of(generate(ACTIVITIES, FRAGMENT))
    assert model.entities["Agent"].parents == ("Role", "Team")
    assert model.entities["Order"].attributes.get("owner").type == EntityType("User")  # type: ignore[union-attr]
    assert model.actions["money"].groups == (("Action", "regulated"),)
    principals = ("Agent", "User", "Service", "Unauthenticated", "Team")
    assert set(model.actions["ping"].principals or ()) == set(principals)
    # Without a grant nothing is started.
    assert set(model.actions["workflow.start"].principals or ()) == set(principals) - {"Unauthenticated"}
    assert set(model.actions["workflow.reset"].principals or ()) == set(principals) - {"Unauthenticated"}


def test_the_application_says_which_keys_of_a_dict_policies_read() -> None:
    plain, declared = generate(ACTIVITIES), generate(ACTIVITIES, FRAGMENT)
    assert plain.warnings == (
        "refund_order: args.refund.labels is a dict; policies can read those of its keys that model.cedarschema "
        "declares, for example: type refund_order_refund_labels = { key?: String };",
    )
    assert declared.warnings == ()
    args = model_of(declared).actions["refund_order"].args
    assert args is not None
    labels = args.get("refund").type.get("labels").type  # type: ignore[union-attr]
    assert [(each.name, each.type, each.required) for each in labels.attributes] == [
        ("tier", STRING, False),
        ("a b", STRING, False),
    ]


@pytest.mark.parametrize(
    ("fragment", "message"),
    [
        ("entity Agent {", "own.cedarschema:1:15: a name is expected, but the text ends."),
        ("entity A;\nentity X in [Nope];", "own.cedarschema:2:14: there is no entity type Nope."),
        ("entity A;\ntype T = { a: Foo };", "own.cedarschema:2:15: there is no type Foo."),
        ("type T = Set<T>;", "own.cedarschema:1:6: the type T refers to itself."),
        ('action "a" in ["b"];', "own.cedarschema:1:16: undeclared action"),
        ("entity A;\n\nentity A;", "own.cedarschema:3:8: error parsing schema: `A` is declared twice"),
        ('// mine\naction "refund_order";', "own.cedarschema:2:1: the action refund_order is generated"),
        (
            "type refund_order_refund_labels = { tier: String };",
            "own.cedarschema:1:6: refund_order_refund_labels does not fit refund_order: args.refund.labels.tier is "
            "required in the fragment",
        ),
        (
            "type refund_order_refund_labels = { tier?: Long };",
            "args.refund.labels.tier is a String in the code and a Long in the fragment",
        ),
        ("type refund_order_refund_labels = Long;", "is a dict in the code and a Long in the fragment"),
        ("\x00", "own.cedarschema:1:1"),
        ("type T = " + "Set<" * 500, "own.cedarschema:1:"),
        ("namespace A { entity B in [C]; }", "own.cedarschema:1:28: there is no entity type C"),
    ],
)
def test_what_is_wrong_in_a_fragment_is_named_with_its_place(fragment: str, message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        generate(ACTIVITIES, fragment, "own.cedarschema")
    assert message in str(raised.value)


def test_names_that_would_clash_are_refused() -> None:
    assert "an activity and a group of this name" in refusal("", {"money": ping, "refund_order": refund_order})
    assert "name of an action of the gate" in refusal("", {"workflow.start": ping})
    assert "name of an action of the gate" in refusal("", {"ping": action(groups=["workflow.reset"])(lambda: None)})


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), ANNOTATIONS, min_size=1, max_size=3),
    st.lists(st.text(min_size=1, max_size=10), max_size=3),
)
def test_whatever_the_names_and_types_cedar_reads_the_schema(annotations: dict[str, Any], groups: list[str]) -> None:
    activities = {name: action(groups=groups)(typed(annotation)) for name, annotation in annotations.items()}
    try:
        generated = generate(activities)
    except PolicyError as error:
        assert set(groups) & set(annotations) or "name of an action of the gate" in str(error)  # noqa: PT017
        return
    model = model_of(generated)
    for name, fn in activities.items():
        shape = arguments_of(fn).record
        declared = model.actions[name].args or RecordType()
        # A dict that no fragment describes is a record without attributes.
        assert written(declared) == written(shape)
        assert {("Action", group) for group in groups} <= set(model.actions[name].groups)


@given(st.text())
def test_no_fragment_makes_it_fail_otherwise_than_with_a_place(fragment: str) -> None:
    try:
        generated = generate(ACTIVITIES, fragment)
    except PolicyError as error:
        assert str(error).startswith("model.cedarschema")  # noqa: PT017
    else:
        model_of(generated)


@given(st.lists(st.sampled_from(re.findall(r"\w+|\S", base_model() + FRAGMENT)), max_size=20))
def test_no_words_of_a_fragment_make_it_fail_otherwise(words: list[str]) -> None:
    test_no_fragment_makes_it_fail_otherwise_than_with_a_place.hypothesis.inner_test(" ".join(words))


class Marked:
    @action(groups=["a"])
    def method(self) -> None: ...

    @action(groups=["b"])
    def __call__(self) -> None: ...


@action(groups=["c"])
class MarkedClass:
    def __call__(self) -> None: ...


def test_the_decorator_leaves_a_callable_as_it_is_and_is_found_on_any() -> None:
    def plain() -> None: ...

    assert action(groups=["x"])(plain) is plain
    assert mark_of(plain) == ActionMark(("x",))
    assert mark_of(Marked().method).groups == ("a",)
    assert mark_of(Marked()).groups == ("b",)
    assert mark_of(MarkedClass()).groups == ("c",)
    assert mark_of(ping) == ActionMark()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [""]}, "no name of a group"),
        ({"groups": [1]}, "no name of a group"),
        ({"resource": lambda: "x"}, "together"),
        ({"resource_type": "Order"}, "together"),
        ({"resource": lambda: "x", "resource_type": "not a type"}, "no entity type"),
        ({"resource": lambda: "x", "resource_type": 'Order::"x"'}, "no entity type"),
        ({"resource": "order", "resource_type": "Order"}, "plain function"),
    ],
)
def test_a_decorator_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        action(**options)


def test_a_resolver_that_would_have_to_be_awaited_is_refused() -> None:
    async def resolver() -> str:
        return "x"

    with pytest.raises(ConfigurationError, match="plain function"):
        action(resource=resolver, resource_type="Order")  # type: ignore[arg-type]
