"""A question as people write it: what is not said is filled in, what is wrong is named."""

import datetime
from typing import Any

import pytest

from exequatur.authoring.request import ask, question
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle

POLICIES = """
@id("small")
permit(principal in Role::"ops", action == Action::"refund", resource)
when { context.args.amount.lessThan(decimal("100.0")) && context.run.workflow_type == "Refund" };
@id("start")
permit(principal, action == Action::"workflow.start", resource) when { principal has region };
"""
SCHEMA = """
entity Role;
entity Agent in [Role] { region?: String, limit?: decimal };
entity Workflow;
entity Account;
action refund appliesTo {
  principal: [Agent],
  resource: [Workflow],
  context: { args: { amount: decimal }, run: { workflow_type: String, workflow_id: String }, now: datetime },
};
action pay appliesTo { principal: [Agent], resource: [Account], context: { args: {}, ip: ipaddr } };
action "workflow.start" appliesTo { principal: [Agent], resource: [Workflow], context: { now: datetime } };
"""
OPS = {"uid": 'Agent::"a"', "parents": ['Role::"ops"']}


@pytest.fixture(scope="module")
def bundle() -> PolicyBundle:
    return PolicyBundle.from_parts(POLICIES, SCHEMA)


def test_a_question_is_answered_as_the_gate_would(bundle: PolicyBundle) -> None:
    context = {"run": {"workflow_type": "Refund"}}
    asked = question(bundle, principal=OPS, activity="refund", args={"amount": 50}, context=context)
    assert ask(bundle, asked).allowed
    more = question(bundle, principal=OPS, activity="refund", args={"amount": 100}, context=context)
    assert not ask(bundle, more).allowed
    other = question(bundle, principal=OPS, activity="refund", args={"amount": 50})
    assert not ask(bundle, other).allowed


def test_only_declared_circumstances_are_filled_in(bundle: PolicyBundle) -> None:
    noon = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)
    asked = question(bundle, principal=OPS, activity="refund", args={"amount": 5}, now=noon)
    assert asked.facts == {
        "run": {"workflow_type": "Workflow", "workflow_id": "workflow-1"},
        "now": {"__extn": {"fn": "datetime", "arg": "2026-01-05T12:00:00.000Z"}},
    }
    assert asked.resource == {"type": "Workflow", "id": "workflow-1"}


def test_attributes_of_the_principal_are_typed(bundle: PolicyBundle) -> None:
    who = {"uid": 'Agent::"a"', "attrs": {"region": "emea", "limit": 5}}
    asked = question(bundle, principal=who, activity="workflow.start")
    assert asked.principal["attrs"]["limit"] == {"__extn": {"fn": "decimal", "arg": "5.0"}}
    assert ask(bundle, asked).allowed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"principal": "Agent"}, "principal: 'Agent' is no entity"),
        ({"principal": 'Agnt::"a"'}, "no entity type Agnt"),
        ({"principal": {"uid": 'Agent::"a"', "roles": []}}, "principal has roles"),
        ({"principal": {"uid": 'Agent::"a"', "parents": 'Role::"ops"'}}, "parents must be a list"),
        ({"principal": {"uid": 'Agent::"a"', "attrs": {"regoin": "x"}}}, "principal.attrs.regoin is not declared"),
        ({"principal": None}, "principal: 'None' is no entity"),
        ({"activity": "refnud"}, "Did you mean refund?"),
        ({"activity": 5}, "activity must be the name"),
        ({"args": {"amuont": 5}}, "args.amuont is not declared in the schema; there is amount"),
        ({"args": [5]}, "args must be a mapping"),
        ({"args": {}}, "args.amount is required and not given"),
        ({"context": []}, "context must be a mapping"),
        ({"context": {"args": {}}}, "give the arguments as args"),
        ({"context": {"run": {"typ": 1}}}, "context.run.typ is not declared"),
        ({"resource": 'Account::"1"'}, 'refund is done to Workflow::"…", not to a Account'),
        ({"resource": "x"}, "resource: 'x' is no entity"),
        ({"activity": "pay", "args": {}, "resource": 'Account::"1"'}, "context.ip is required and not given"),
        ({"activity": "pay", "args": {}, "context": {"ip": "::1"}}, "is done to Account"),
    ],
)
def test_what_is_wrong_is_named(bundle: PolicyBundle, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        question(bundle, **{"principal": OPS, "activity": "refund", "args": {"amount": 5}, **changed})
    assert message in str(caught.value)


def test_without_a_schema_values_are_taken_as_they_are() -> None:
    bundle = PolicyBundle.from_parts("permit(principal, action, resource) when { context.args.n == 5 };")
    assert ask(bundle, question(bundle, principal='Agent::"a"', activity="anything", args={"n": 5})).allowed
