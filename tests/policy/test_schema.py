"""A Cedar schema as data: every declaration, resolved as Cedar resolves it, and nothing that Cedar would not accept."""

import json
from pathlib import Path

import pytest
from cedarpy import Schema
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import PolicyError
from exequatur.policy.declarations import declared_names
from exequatur.policy.schema import read_schema
from exequatur.policy.types import (
    BOOL,
    DECIMAL,
    LONG,
    STRING,
    Attribute,
    EntityType,
    RecordType,
    SetType,
    attributes_of,
    misfit,
    written,
)

REFERENCE = Path("policies/schema.cedarschema")

SCHEMA = """\
entity Role;
// A comment; with a semicolon
@doc("who acts")
entity User, Bot in [Role] = { "full name"?: String, @doc("years") age: Long, seen: Set<{ at: datetime, ip?: ipaddr }> }
  tags String;
entity Color enum ["red", "blue"];
type Order = { amount: decimal, lines: Set<Line> };
type Line = { item: String, color: Color };
action "money", activity;
@parameters("order, note")
action refund in ["money", Action::"activity"] appliesTo {
  principal: [User, Bot],
  resource: Role,
  context: { args: { order: Order, note?: String }, "now": datetime },
};
namespace Shop {
  type Order = Long;
  entity User;
  entity Cart in [User] { order: Order, owner: User, role: Role };
  action buy in [Action::"all"] appliesTo { principal: User, resource: Cart, context: { order: Order } };
  action all;
}
"""


def refused(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        read_schema(text, "s.cedarschema")
    return str(caught.value)


def test_every_declaration_is_read_and_resolved() -> None:
    model = read_schema(SCHEMA)
    assert list(model.entities) == ["Role", "User", "Bot", "Color", "Shop::User", "Shop::Cart"]
    bot = model.entities["Bot"]
    assert (bot.parents, bot.tags, dict(bot.annotations)) == (("Role",), STRING, {"doc": "who acts"})
    assert [(each.name, each.required) for each in bot.attributes.attributes] == [
        ("full name", False),
        ("age", True),
        ("seen", True),
    ]
    assert model.entities["Color"].choices == ("red", "blue")
    refund = model.actions["refund"]
    assert refund.groups == (("Action", "money"), ("Action", "activity"))
    assert (refund.principals, refund.resources) == (("User", "Bot"), ("Role",))
    assert dict(refund.annotations) == {"parameters": "order, note"}
    line = RecordType((Attribute("item", STRING), Attribute("color", EntityType("Color"))))
    order = RecordType((Attribute("amount", DECIMAL), Attribute("lines", SetType(line))))
    assert refund.args == RecordType((Attribute("order", order), Attribute("note", STRING, required=False)))
    assert model.actions["money"].principals is None


@pytest.mark.rule("schema.S2")
def test_a_common_type_goes_before_an_entity_type_and_that_before_a_primitive_one() -> None:
    text = "entity Label; entity String; type Label = Long; entity Box { label: Label, text: String };"
    Schema.from_str(text)
    box = read_schema(text).entities["Box"]
    assert [each.type for each in box.attributes.attributes] == [LONG, EntityType("String")]


@pytest.mark.rule("schema.S2")
def test_names_mean_what_they_mean_in_their_namespace() -> None:
    model = read_schema(SCHEMA)
    cart = model.entities["Shop::Cart"]
    assert [each.type for each in cart.attributes.attributes] == [LONG, EntityType("Shop::User"), EntityType("Role")]
    assert cart.parents == ("Shop::User",)
    buy = model.others["Shop::Action", "buy"]
    assert buy.groups == (("Action", "all"),)
    assert written(buy.context) == "{ order: Long }"


def test_json_syntax_says_the_same() -> None:
    text = json.dumps(
        {
            "": {
                "entityTypes": {
                    "User": {},
                    "Doc": {"shape": {"type": "Record", "attributes": {"n": {"type": "Long"}}}},
                },
                "actions": {
                    "view": {
                        "appliesTo": {
                            "principalTypes": ["User"],
                            "resourceTypes": ["Doc"],
                            "context": {
                                "type": "Record",
                                "attributes": {"args": {"type": "Record", "attributes": {"ok": {"type": "Boolean"}}}},
                            },
                        }
                    }
                },
            }
        }
    )
    model = read_schema(text)
    assert model.actions["view"].args == RecordType((Attribute("ok", BOOL),))
    assert [path for path, _ in attributes_of(model.entities["Doc"].attributes)] == [("n",)]


def test_what_was_read_is_what_cedar_writes_again() -> None:
    again = read_schema(str(Schema.from_str(REFERENCE.read_text())))
    assert again.actions.keys() == read_schema(REFERENCE.read_text()).actions.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entity User\nentity Role;", "s.cedarschema:2:1: ; is expected, but found entity"),
        ("type Order = Ordr;", "s.cedarschema:1:14: there is no type Ordr"),
        ("entity User in [Rolle];", "s.cedarschema:1:17: there is no entity type Rolle"),
        ("type A = B;\ntype B = Set<A>;", "s.cedarschema:1:6: the type A refers to itself"),
        ("action a appliesTo { principal: [User", "but the text ends"),
        ("action a appliesTo { nothing: X };", "1:22: principal, resource or context is expected"),
        ("entity", "1:7: the entity's name is expected"),
        ("%", "1:1: entity, action, type or namespace is expected"),
        (f"type A = {'Set<' * 70}Long{'>' * 70};", "fewer than 64 types in one another"),
        ("{}x", "Cedar refuses the schema"),
        ("namespace A { namespace B { entity C; } }", "1:15: entity, action, type or namespace"),
    ],
)
@pytest.mark.rule("schema.S1", "declarations.S1", "schema.S3", "declarations.S3")
def test_what_cannot_be_read_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refused(text)


def test_a_fragment_names_what_it_declares_without_what_it_refers_to() -> None:
    assert declared_names("entity Agent in [Role] { r: Region };\naction a, b;\ntype T = Elsewhere;") == {
        "Agent",
        'Action::"a"',
        'Action::"b"',
        "T",
    }


@given(st.lists(st.sampled_from([*"{}[]<>:;,?=@()", "entity", "type", "action", "A", '"s"', "Set", "in"]), max_size=30))
def test_no_sequence_of_words_crashes_the_reader(words: list[str]) -> None:
    try:
        read_schema(" ".join(words))
    except PolicyError:
        return
    Schema.from_str(" ".join(words))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"amount": {"__extn": {"fn": "decimal", "arg": "1.0"}}}, None),
        ({"amount": 1}, (("amount",), "is a Long where the schema declares a decimal")),
        ({"amuont": 1}, (("amuont",), "is not declared in the schema")),
        ({"names": ["a", 1]}, (("names",), "holds an element that is a Long where the schema declares a String")),
        ({"names": "a"}, (("names",), "is a String where the schema declares a Set<String>")),
        ({"inner": {"on": True}}, None),
        ({"inner": True}, (("inner",), "is a Bool where the schema declares a record")),
        (
            {"inner": {"__extn": {"fn": "ip", "arg": "::1"}}},
            (("inner",), "is a ipaddr where the schema declares a record"),
        ),
        ({"who": {"__entity": {"type": "User", "id": "a"}}}, None),
        ({"who": {"__entity": {"type": "Role", "id": "a"}}}, (("who",), "is a Role where the schema declares a User")),
        ({}, None),
        ([], ((), "is a Set where the schema declares a record")),
    ],
)
def test_a_value_of_another_type_is_named(value: object, found: object) -> None:
    declared = RecordType(
        (
            Attribute("amount", DECIMAL),
            Attribute("names", SetType(STRING)),
            Attribute("inner", RecordType((Attribute("on", BOOL),))),
            Attribute("who", EntityType("User")),
        )
    )
    assert misfit(value, declared) == found
