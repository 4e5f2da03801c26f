"""What a run forbids itself is asked as strictly as the policies in force, and can never allow anything."""

from typing import Any

import pytest

from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict, decide
from exequatur.policy.restriction import forbid_bundle, held_to
from exequatur.policy.told import CHILD_ACTION

PRINCIPAL = {"uid": {"type": "Agent", "id": "bot"}, "attrs": {}, "parents": []}
RESOURCE = {"type": "Workflow", "id": "w"}
SCHEMA = """
entity Agent, Workflow;
action "money";
action "refund" in ["money"] appliesTo {
  principal: [Agent], resource: [Workflow], context: {args: {amount: Long, note?: String}}
};
action "workflow.child" appliesTo {principal: [Agent], resource: [Workflow], context: {}};
"""
PERMIT = '@id("all") permit(principal, action, resource);'
LIMIT = '@id("limit") @reason("at most 100") forbid(principal, action == Action::"refund", resource) when {{ {} }};'
SMALL = LIMIT.format("context.args.amount > 100")


def refund(amount: int, note: str | None = None) -> None: ...


def asked(bundle: PolicyBundle, *forbid: str, amount: Any = 1, action: str = "refund") -> Verdict:
    """What becomes of an answer of the bundle under these texts."""
    arguments = convert_arguments(ActivitySignature.of(refund), (amount,))
    if action != "refund":
        arguments = convert_arguments(ActivitySignature.of(lambda: None), ())
    facts: dict[str, Any] = {}
    verdict = decide(bundle, PRINCIPAL, {"type": "Action", "id": action}, RESOURCE, arguments, facts)
    return held_to(bundle, forbid, verdict, PRINCIPAL, action, RESOURCE, arguments, facts)


def plain(policies: str = PERMIT) -> PolicyBundle:
    return PolicyBundle.from_parts(policies)


def typed(policies: str = PERMIT) -> PolicyBundle:
    return PolicyBundle.from_parts(policies, SCHEMA, strict=True)


BOTH = pytest.mark.parametrize("bundle", [plain, typed])


@BOTH
def test_a_restriction_forbids_what_the_policies_permit(bundle: Any) -> None:
    assert asked(bundle(), SMALL, amount=100).allowed
    verdict = asked(bundle(), SMALL, amount=101)
    assert not verdict.allowed
    assert [(ref.id, ref.reason) for ref in verdict.policies] == [("restriction/limit", "at most 100")]
    assert "restriction" in verdict.errors[0]
    assert verdict.arguments == {"amount": 101}


def test_what_a_restriction_read_is_recorded_also_where_it_allows() -> None:
    assert asked(plain(), amount=1).arguments == {}
    assert asked(plain(), SMALL, amount=1).arguments == {"amount": 1}


@BOTH
def test_each_of_several_restrictions_can_deny(bundle: Any) -> None:
    tiny = SMALL.replace("limit", "tiny").replace("> 100", "> 10")
    assert asked(bundle(), SMALL, tiny, amount=10).allowed
    assert [ref.id for ref in asked(bundle(), SMALL, tiny, amount=11).policies] == ["restriction/tiny"]
    assert [ref.id for ref in asked(bundle(), tiny, SMALL, amount=11).policies] == ["restriction/tiny"]


@pytest.mark.rule("restriction.L6")
def test_a_restriction_makes_no_allow_of_a_deny() -> None:
    for amount in (1, 101):
        denied = asked(plain('@id("no") forbid(principal, action, resource);'), SMALL, amount=amount)
        assert not denied.allowed
        assert [ref.id for ref in denied.policies] == ["no"]


@pytest.mark.rule("restriction.L1")
@BOTH
@pytest.mark.parametrize(
    "text",
    [
        PERMIT,
        SMALL + PERMIT,
        "forbid(principal == ?principal, action, resource);",
        SMALL + "forbid(principal == ?principal, action, resource);",
        "// forbid(principal, action, resource);",
        " ",
    ],
)
def test_a_text_that_is_not_purely_forbids_denies(bundle: Any, text: str) -> None:
    verdict = asked(bundle(), text)
    assert not verdict.allowed
    assert "cannot be used" in verdict.errors[0]
    assert verdict.fault is not None


@pytest.mark.rule("restriction.L3")
@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "forbid(principal, action, resource)",
        "forbid(principal, action, resource) when { context.args.amount > };",
        "forbid(principal, action, resource) when {" + "(" * 400 + "true" + ")" * 400 + "};",
        SMALL + SMALL,
        SMALL.replace("@reason", '@ttl("soon") @reason'),
        "nonsense",
        "\ud800",
    ],
)
def test_a_text_that_cannot_be_read_denies_whatever_it_is_about(bundle: Any, text: str) -> None:
    assert not asked(bundle(), text).allowed
    assert not asked(bundle(), text, action=CHILD_ACTION).allowed


@pytest.mark.rule("restriction.L2")
@pytest.mark.parametrize(
    "text",
    [
        LIMIT.format("context.args.amuont > 100"),
        LIMIT.format('context.args.amount > "100"'),
        SMALL.replace("refund", "refnud"),
    ],
)
def test_with_a_schema_a_misspelt_restriction_denies(text: str) -> None:
    assert not asked(typed(), text).allowed


@pytest.mark.rule("restriction.L4")
@pytest.mark.parametrize("amount", ["x", 2**70, None, 1.5])
def test_a_value_that_a_restriction_reads_and_that_has_no_such_form_denies(amount: Any) -> None:
    verdict = asked(plain(), SMALL, amount=amount)
    assert not verdict.allowed
    assert asked(plain(), amount=amount).allowed


@pytest.mark.rule("restriction.L4")
def test_a_restriction_that_errors_denies() -> None:
    assert not asked(plain(), LIMIT.format('context.frozen == "no"')).allowed


def test_entities_of_the_bundle_count_in_a_restriction() -> None:
    agent = {"uid": PRINCIPAL["uid"], "attrs": {}, "parents": [{"type": "Role", "id": "trainee"}]}
    role = {"uid": {"type": "Role", "id": "trainee"}, "attrs": {}, "parents": []}
    bundle = PolicyBundle.from_parts(PERMIT, entities=[agent, role])
    text = 'forbid(principal in Role::"trainee", action, resource);'
    assert not asked(bundle, text).allowed
    assert asked(plain(), text).allowed


@pytest.mark.rule("restriction.L5")
@BOTH
def test_of_the_gates_own_questions_only_forbids_count_that_name_them(bundle: Any) -> None:
    everything = "forbid(principal, action, resource);"
    children = 'forbid(principal, action == Action::"workflow.child", resource);'
    assert asked(bundle(), SMALL, action=CHILD_ACTION).allowed
    assert asked(bundle(), everything, action=CHILD_ACTION).allowed
    assert not asked(bundle(), everything).allowed
    assert not asked(bundle(), everything + children, action=CHILD_ACTION).allowed
    assert asked(bundle(), children).allowed


def test_another_bundle_is_another_restriction() -> None:
    group = 'forbid(principal, action in Action::"money", resource);'
    assert not asked(typed(), group).allowed
    assert asked(plain(), group).allowed


def test_a_text_is_read_once_for_each_bundle() -> None:
    bundle = plain()
    assert forbid_bundle(bundle, SMALL) is forbid_bundle(bundle, SMALL)
    assert forbid_bundle(plain(), SMALL) is forbid_bundle(bundle, SMALL)
    assert forbid_bundle(typed(), SMALL) is not forbid_bundle(bundle, SMALL)


def test_the_permit_beside_a_restriction_is_not_among_its_reasons() -> None:
    assert asked(plain(), SMALL, amount=1).policies == asked(plain(), amount=1).policies
