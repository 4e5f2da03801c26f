"""Explanations: what decided, what nearly did, and what is missing; Cedar answers for every part."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exequatur.authoring.explain.explain import MAX_VALUE, ExplainedPolicy, Explanation, explain
from exequatur.authoring.request import Question, question
from exequatur.errors import PolicyError
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle

POLICIES = """
@id("operators") permit(principal in Role::"operations", action in Action::"money", resource);
@id("small") @reason("above 500 a person decides")
forbid(principal, action == Action::"refund", resource) when { context.args.amount > 500 };
@id("own-region")
forbid(principal is Agent, action == Action::"refund", resource)
unless { principal has region && principal.region == context.args.region };
@id("elsewhere") permit(principal, action == Action::"other", resource);
"""
SCHEMA = """
entity Role; entity Agent in [Role] { region?: String }; entity User in [Role]; entity Workflow;
action money;
action refund in [money] appliesTo {
  principal: [Agent, User], resource: Workflow,
  context: { args: { amount: Long, region: String }, now: datetime }
};
action other appliesTo { principal: User, resource: Workflow, context: { args: {} } };
"""
OPERATOR = {"uid": 'Agent::"a"', "parents": ['Role::"operations"'], "attrs": {"region": "emea"}}


def explained(policies: str = POLICIES, schema: str | None = SCHEMA, **asked: Any) -> Explanation:
    bundle = PolicyBundle.from_parts(policies, schema, strict=True)
    fields = {"principal": OPERATOR, "activity": "refund", "args": {"amount": 1, "region": "emea"}} | asked
    return explain(bundle, question(bundle, **fields))


def without_schema(condition: str, **asked: Any) -> Explanation:
    permit = f'@id("p") permit(principal, action, resource) when {{ {condition} }};'
    return explained(permit, None, **{"args": {}, "principal": 'User::"u"', **asked})


def names(policies: tuple[ExplainedPolicy, ...]) -> list[str]:
    return [policy.id for policy in policies]


def sentences(found: Explanation) -> list[str]:
    return [each.sentence for each in found.missing]


def outcomes(policy: ExplainedPolicy) -> dict[str, str]:
    return {part.text: part.outcome for part in policy.parts}


def test_an_allow_names_what_decided_and_the_forbids_that_stood_aside() -> None:
    found = explained()
    assert found.verdict.allowed
    assert names(found.determining) == ["operators"]
    assert names(found.near) == ["small", "own-region"]
    assert found.missing == ()


def test_a_policy_is_shown_with_its_place_and_its_text() -> None:
    [policy] = explained(args={"amount": 501, "region": "emea"}).determining
    assert (policy.id, policy.effect, policy.reason) == ("small", "forbid", "above 500 a person decides")
    assert policy.place == "policies:3:1"
    assert policy.text.startswith('@id("small") @reason')
    assert policy.text.endswith("context.args.amount > 500 };")


def test_a_forbid_that_overrules_a_permit_shows_both_and_the_bound() -> None:
    found = explained(args={"amount": 501, "region": "emea"})
    assert not found.verdict.allowed
    assert names(found.determining) == ["small"]
    assert names(found.overruled) == ["operators"]
    assert names(found.near) == []
    assert [(each.kind, each.policy) for each in found.missing] == [("argument", "small")]
    assert sentences(found) == ["context.args.amount must be at most 500, and is 501"]


def test_a_missing_role_is_named() -> None:
    found = explained(principal='User::"dana"')
    assert names(found.near) == ["operators"]
    assert [(each.kind, each.sentence) for each in found.missing] == [
        ("role", 'the principal must be in Role::"operations"')
    ]
    [part] = found.near[0].parts
    assert (part.origin, part.outcome) == ("principal", "unmet")
    assert [(read.path, read.value) for read in part.values] == [
        ("principal", 'User::"dana", which is in no group'),
    ]


def test_policies_for_other_actions_are_not_mentioned() -> None:
    found = explained(principal='User::"dana"')
    assert "elsewhere" not in names(found.determining + found.near + found.overruled + found.failed)


def test_when_nothing_permits_an_action_to_anybody_that_is_said() -> None:
    found = explained('@id("x") permit(principal, action == Action::"other", resource);')
    assert found.near == ()
    assert sentences(found) == ["no policy permits this to anybody; write a permit for it"]


def test_the_policy_with_the_fewest_unmet_parts_comes_first() -> None:
    policies = """
    @id("two") permit(principal, action, resource) when { context.args.a == 1 && context.args.b == 2 };
    @id("one") permit(principal, action, resource) when { context.args.a == 1 && context.args.b == 3 };
    """
    found = explained(policies, None, args={"a": 2, "b": 3}, principal='User::"u"')
    assert names(found.near) == ["one", "two"]
    assert sentences(found) == ["context.args.a must be 1, and is 2"]


@pytest.mark.rule("explain.X3")
def test_a_part_behind_one_that_is_not_met_is_not_blamed() -> None:
    found = without_schema("context has approvals && context.approvals.finance == 2")
    assert outcomes(found.near[0]) == {
        "context has approvals": "unmet",
        "context.approvals.finance == 2": "unreached",
    }
    assert [each.kind for each in found.missing] == ["approval"]
    assert [[read.path for read in part.values] for part in found.near[0].parts] == [["context.approvals"], []]


def test_a_policy_that_cedar_cannot_evaluate_is_shown_with_the_error() -> None:
    found = explained(
        '@id("all") permit(principal, action, resource);'
        '@id("broken") forbid(principal, action, resource) when { context.now == 1 && principal.level > 3 };'
        '@id("hole") forbid(principal, action, resource) when { principal.level > 3 };',
        None,
        principal='User::"u"',
    )
    assert not found.verdict.allowed
    assert names(found.failed) == ["hole"]
    assert names(found.determining) == []
    assert names(found.overruled) == ["all"]
    assert found.failed[0].parts[0].outcome == "error"
    assert [(each.kind, each.policy) for each in found.missing] == [("error", "hole")]
    assert sentences(found)[0].startswith("hole must not fail: ")


def test_an_argument_that_cedar_was_never_asked_about_is_the_reason() -> None:
    bundle = PolicyBundle.from_parts(POLICIES, SCHEMA)
    asked = question(bundle, principal=OPERATOR, activity="refund", args={"amount": 1, "region": "emea"})
    faulty = Question(
        asked.principal,
        asked.action,
        asked.resource,
        Conversion({"region": "emea"}, {("amount",): "args.amount is not finite"}),
        asked.facts,
    )
    found = explain(bundle, faulty)
    assert found.verdict.fault == "args.amount is not finite"
    assert sentences(found) == ["args.amount is not finite"]


def test_an_approval_that_a_policy_names_is_what_is_missing() -> None:
    found = explained(
        '@id("p") permit(principal, action, resource);'
        '@id("big") @approval("finance, 2, 24h") forbid(principal, action, resource)'
        " when { context.args.amount > 1 } unless { context has approvals };",
        None,
        args={"amount": 2},
        principal='User::"u"',
    )
    assert [(each.kind, each.sentence) for each in found.missing] == [
        ("approval", "an approval by 2 people of finance, not longer ago than 1d")
    ]


def test_a_malformed_approval_is_shown_as_it_is_written() -> None:
    found = explained(
        '@id("p") @approval("ask the boss") permit(principal, action, resource) when { context.args.amount > 2 };',
        None,
        args={"amount": 2},
        principal='User::"u"',
    )
    assert sentences(found) == ["an approval: ask the boss", "context.args.amount must be more than 2, and is 2"]


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("context.args.a == 2", "context.args.a must be 2, and is 1"),
        ("context.args.a != 1", "context.args.a must not be 1, and is 1"),
        ("2 <= context.args.a", "context.args.a must be at least 2, and is 1"),
        ("!(context.args.a == 1)", "context.args.a must not be 1, and is 1"),
        ("context.args.d.lessThan(decimal(\"1.0\"))", "context.args.d must be less than 1.0, and is 2.5"),
        ('["x", "y"].contains(context.args.s)', 'context.args.s must be one of ["x", "y"], and is "z"'),
        ('context.args.list.contains("b")', 'context.args.list must contain "b", and is ["a"]'),
        ("principal.limit >= context.args.a * 2", "principal.limit must be at least context.args.a * 2, and is 1"),
        ("context.args.a * 2 == context.args.a", "context.args.a must be context.args.a * 2, and is 1"),
        ('if context.args.a == 1 then false else true', "`if context.args.a == 1 then false else true` must be true"),
        ("principal.limit > context.args.a", "context.args.a must be less than principal.limit, and is 1"),
        ('principal in [Role::"a", Role::"b"]', 'the principal must be in [Role::"a", Role::"b"]'),
        ("principal is Agent", "the principal must be of type Agent"),
        ('principal == Agent::"x"', 'the principal must be Agent::"x"'),
        ("context.args has other", "context.args.other must be given"),
        ("context.run.workflow_type == \"Refund\"", 'context.run.workflow_type must be "Refund", and is "Workflow"'),
        ("context.args.a > 2 || principal.limit > 2",
         "(context.args.a must be more than 2, and is 1, or principal.limit must be more than 2, and is 1)"),
    ],
)  # fmt: skip
def test_what_is_missing_is_a_sentence(condition: str, sentence: str) -> None:
    who = {"uid": 'User::"u"', "attrs": {"limit": 1}}
    found = without_schema(condition, args={"a": 1, "d": 2.5, "s": "z", "list": ["a"]}, principal=who)
    assert not found.verdict.allowed
    assert sentences(found) == [sentence]


@pytest.mark.rule("explain.X4")
def test_a_long_value_is_cut_and_a_value_that_no_part_reads_is_not_shown() -> None:
    found = without_schema('context.args.a == "x"', args={"a": "y" * 5000, "secret": "hush"})
    [read] = found.near[0].parts[0].values
    assert len(read.value) < MAX_VALUE + 40
    assert read.value.endswith("… (5002 characters)")
    assert "hush" not in repr(found)


def test_attributes_come_from_the_bundle_and_through_entities() -> None:
    entities: list[dict[str, Any]] = [
        {
            "uid": {"type": "User", "id": "u"},
            "attrs": {"boss": {"__entity": {"type": "User", "id": "b"}}},
            "parents": [],
        },
        {"uid": {"type": "User", "id": "b"}, "attrs": {"level": 2}, "parents": []},
    ]
    bundle = PolicyBundle.from_parts(
        '@id("p") permit(principal, action, resource) when { principal.boss.level > 2 };', None, entities
    )
    found = explain(bundle, question(bundle, principal='User::"u"', activity="x"))
    assert [(read.path, read.value) for read in found.near[0].parts[0].values] == [("principal.boss.level", "2")]


def test_a_principal_that_does_not_fit_the_schema_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"principal: .*Compare"):
        explained(principal={"uid": 'User::"u"', "parents": ['User::"v"']})


CONDITIONS = st.lists(
    st.sampled_from(
        [
            "context.args.a == 1",
            "context.args.b == 2",
            "context.args has a && context.args.a > 3",
            "principal.level > 1",
            "principal is User",
            'principal in Role::"r"',
            "(context.args.a == 1 || context.args.b == 1)",
            "context.missing",
        ]
    ),
    min_size=1,
    max_size=3,
).map(" && ".join)
WRITTEN = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), st.sampled_from(["when", "unless"]), CONDITIONS), max_size=4
)


@settings(max_examples=100, deadline=None)
@given(WRITTEN, st.fixed_dictionaries({"a": st.integers(1, 4), "b": st.integers(1, 2)}), st.integers(1, 2))
@pytest.mark.rule("explain.X1")
@pytest.mark.rule("explain.X2")
def test_the_parts_of_a_policy_tell_the_same_as_cedar_does_of_the_whole(
    policies: list[tuple[str, str, str]], args: dict[str, int], level: int
) -> None:
    text = "".join(
        f'@id("{number}") {effect}(principal, action, resource) {clause} {{ {condition} }};'
        for number, (effect, clause, condition) in enumerate(policies)
    )
    bundle = PolicyBundle.from_parts(text)
    asked = question(bundle, principal={"uid": 'User::"u"', "attrs": {"level": level}}, activity="x", args=args)
    found = explain(bundle, asked)
    cedar = bundle.evaluate(
        {"type": "User", "id": "u"},
        {"type": "Action", "id": "x"},
        asked.resource,
        {**asked.facts, "args": args},
        principal_entity=asked.principal,
    )
    assert found.verdict.allowed == (cedar.allowed and not cedar.errors)
    assert len(found.failed) == len(cedar.errors)
    reasons = {bundle.policies[policy_id].id for policy_id in cedar.reasons}
    assert reasons <= set(names(found.determining + found.overruled))
    for policy in found.determining + found.overruled:
        assert all(part.outcome == "met" for part in policy.parts)
    for policy in found.near + found.failed:
        assert any(part.outcome in ("unmet", "error") for part in policy.parts)
    assert bool(found.missing) is not found.verdict.allowed
