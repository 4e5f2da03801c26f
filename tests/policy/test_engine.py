"""The gate's decision: a forbid holds whatever the arguments are."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import Decision, PolicyBundle
from exequatur.policy.engine import PolicyRef, Verdict, decide

ALL = '@id("all") permit(principal, action, resource);'
PRINCIPAL = {"uid": {"type": "Agent", "id": "ops"}, "attrs": {"limit": 500}, "parents": []}
ACTION = {"type": "Action", "id": "charge"}
RESOURCE = {"type": "Workflow", "id": "w"}


@dataclass
class Order:
    id: str
    amount: Any = None


def by_parameter(amount: Any) -> None: ...
def by_key(order: dict[str, Any]) -> None: ...
def by_field(order: Order) -> None: ...


def verdict(policies: str, fn: Callable[..., Any], *args: Any, facts: dict[str, Any] | None = None) -> Verdict:
    bundle = PolicyBundle.from_parts(ALL + policies)
    conversion = convert_arguments(ActivitySignature.of(fn), args)
    return decide(bundle, PRINCIPAL, ACTION, RESOURCE, conversion, facts or {})


def test_an_allow_names_its_policies() -> None:
    assert verdict("", by_parameter, 1) == Verdict(True, (PolicyRef("all", None),), (), None)


def test_permit_all_allows_arguments_that_cedar_cannot_represent() -> None:
    assert verdict("", by_parameter, 2**70).allowed
    assert verdict("", by_parameter, b"\x00").allowed
    assert verdict("", by_parameter).allowed
    assert verdict("", by_parameter, 1, 2).allowed


AMOUNTS: list[Any] = [501, 600.5, 2**70, 0.00001, float("nan"), "501", None, [501], {"value": 501}, b"501"]
FORBIDS = [
    "{path} > 500",
    "{base} has amount && {path} > 500",
    '{base} has amount && {path}.greaterThan(decimal("500.0"))',
]


@pytest.mark.parametrize("condition", FORBIDS)
@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
@pytest.mark.rule("E1")
def test_a_forbid_on_a_parameter_holds_for_every_kind_of_amount(condition: str, amount: Any) -> None:
    policy = condition.format(base="context.args", path="context.args.amount")
    assert not verdict(f"forbid(principal, action, resource) when {{ {policy} }};", by_parameter, amount).allowed


@pytest.mark.parametrize("condition", FORBIDS)
@pytest.mark.parametrize("amount", AMOUNTS, ids=repr)
def test_a_forbid_on_a_key_of_a_dict_holds_for_every_kind_of_amount(condition: str, amount: Any) -> None:
    policy = condition.format(base="context.args.order", path="context.args.order.amount")
    forbid = f"forbid(principal, action, resource) when {{ {policy} }};"
    assert not verdict(forbid, by_key, {"amount": amount}).allowed


@pytest.mark.parametrize("condition", FORBIDS)
@pytest.mark.parametrize(
    ("fn", "args"), [(by_parameter, ()), (by_key, ({},)), (by_key, ({"Amount": 1},)), (by_key, ())]
)
def test_a_forbid_holds_for_a_missing_amount(condition: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    base = "context.args" if fn is by_parameter else "context.args.order"
    policy = condition.format(base=base, path=f"{base}.amount")
    refused = verdict(f"forbid(principal, action, resource) when {{ {policy} }};", fn, *args)
    assert not refused.allowed
    assert "amount" in refused.errors[0] or "order" in refused.errors[0]


@pytest.mark.parametrize(
    "condition",
    [
        "context has args.order.amount && context.args.order.amount > 500",
        "(if principal has x then context.args else context.args.order) has amount && context.args.order.amount > 500",
        "{o: context.args.order} has o.amount && {o: context.args.order}.o.amount > 500",
        "(if principal has x then context else context).args.order has amount",
    ],
)
def test_a_forbid_written_in_a_roundabout_way_holds_for_a_missing_amount(condition: str) -> None:
    assert not verdict(f"forbid(principal, action, resource) when {{ {condition} }};", by_key, {"id": 1}).allowed


GUARDED = (
    "forbid(principal, action, resource) when { context.args.order has amount && context.args.order.amount > 500 };"
)


def test_a_harmless_amount_is_allowed() -> None:
    assert verdict(GUARDED, by_key, {"amount": 499}).allowed
    assert verdict(GUARDED, by_field, Order("o", 499)).allowed


def test_a_declared_optional_that_is_none_is_truthfully_absent() -> None:
    assert verdict(GUARDED, by_field, Order("o")).allowed


def test_a_value_beside_the_one_that_is_read_does_not_matter() -> None:
    assert verdict(GUARDED, by_key, {"amount": 1, "blob": b"x"}).allowed


@pytest.mark.rule("E1")
def test_the_refusal_names_the_field_and_not_its_value() -> None:
    refused = verdict(GUARDED, by_field, Order("o", 2**70))
    assert refused.errors == ("args.order.amount is an integer that does not fit in 64 bits",)
    assert str(2**70) not in str(refused)


@pytest.mark.parametrize("key", ["__entity", "__extn", "__expr"])
def test_an_argument_cannot_pass_for_an_entity_or_an_extension_value(key: str) -> None:
    forged = {"__entity": {"type": "Agent", "id": "ops"}, "__extn": {"fn": "decimal", "arg": "1.0"}, "__expr": "1"}
    policy = '@id("owner") forbid(principal, action, resource) unless { context.args.order.owner == principal };'
    refused = verdict(policy, by_key, {"owner": {key: forged[key]}})
    assert not refused.allowed
    assert refused.policies == ()
    assert f"key {key}, which Cedar reserves" in refused.errors[0]


@pytest.mark.rule("E2")
def test_a_forbid_that_cedar_cannot_evaluate_denies_although_cedar_says_allow() -> None:
    policy = '@id("vip") forbid(principal, action, resource) when { principal.vip };'
    bundle = PolicyBundle.from_parts(ALL + policy)
    raw = bundle.evaluate('Agent::"ops"', 'Action::"charge"', 'Workflow::"w"', {"args": {}}, principal_entity=PRINCIPAL)
    assert raw.allowed
    refused = verdict(policy, by_parameter, 1)
    assert not refused.allowed
    assert refused.errors[0].startswith("policy vip: ")


@pytest.mark.parametrize(
    "condition",
    ['decimal(context.args.amount).lessThan(decimal("1.0"))', "context.args.amount + 9223372036854775807 > 0"],
)
def test_an_error_does_not_repeat_the_arguments(condition: str) -> None:
    for secret in ("s3cret", 424242):
        refused = verdict(f'@id("x") forbid(principal, action, resource) when {{ {condition} }};', by_parameter, secret)
        assert not refused.allowed
        assert str(secret) not in str(refused)


@pytest.mark.rule("E3")
def test_a_denial_names_the_forbidding_policy_and_its_reason() -> None:
    policy = '@id("limit") @reason("above 500") forbid(principal, action, resource) when { context.args.amount > 500 };'
    assert verdict(policy, by_parameter, 501) == Verdict(False, (PolicyRef("limit", "above 500"),), (), None)


@pytest.mark.rule("E3")
def test_nothing_is_allowed_without_a_permit() -> None:
    bundle = PolicyBundle.from_parts("// nothing")
    conversion = convert_arguments(ActivitySignature.of(by_parameter), [1])
    assert decide(bundle, PRINCIPAL, ACTION, RESOURCE, conversion, {}) == Verdict(False, (), (), None)


@pytest.mark.rule("E6")
def test_an_allow_stands_as_long_as_the_shortest_ttl_of_its_policies() -> None:
    policies = """@id("a") @ttl("5m") permit(principal, action, resource);
        @id("b") @ttl("30s") permit(principal, action, resource);
        @id("c") @ttl("1s") permit(principal, action == Action::"other", resource);"""
    assert verdict(policies, by_parameter, 1).ttl == datetime.timedelta(seconds=30)


def test_facts_stand_beside_the_arguments() -> None:
    policy = 'forbid(principal, action, resource) unless { context.run.id == "r" };'
    assert verdict(policy, by_parameter, 1, facts={"run": {"id": "r"}}).allowed
    assert not verdict(policy, by_parameter, 1, facts={"run": {"id": "s"}}).allowed


def test_facts_cannot_replace_the_arguments() -> None:
    with pytest.raises(ValueError, match="args"):
        verdict("", by_parameter, 1, facts={"args": {}})


@pytest.mark.parametrize("facts", [{"x": None}, {"x": 1.5}, {"x": b""}, {"x": object()}, {"x": float("nan")}])
def test_facts_that_cedar_cannot_read_deny(facts: dict[str, Any]) -> None:
    refused = verdict(
        "forbid(principal, action, resource) when { context has x && false };", by_parameter, 1, facts=facts
    )
    assert not refused.allowed
    assert refused.errors


@pytest.mark.parametrize(
    ("principal", "action", "resource"),
    [
        ({}, ACTION, RESOURCE),
        ({"uid": "x"}, ACTION, RESOURCE),
        (PRINCIPAL, "charge", RESOURCE),
        (PRINCIPAL, 'Action::"a\\"b"', RESOURCE),
        (PRINCIPAL, {"type": "Other", "id": "charge"}, RESOURCE),
        (PRINCIPAL, {}, RESOURCE),
        (PRINCIPAL, ACTION, "nonsense"),
        (PRINCIPAL, ACTION, {"type": "A B", "id": "x"}),
        (PRINCIPAL, ACTION, None),
    ],
)
@pytest.mark.rule("E5")
def test_a_malformed_request_is_a_denial_with_an_error(principal: Any, action: Any, resource: Any) -> None:
    conversion = convert_arguments(ActivitySignature.of(by_parameter), [1])
    refused = decide(PolicyBundle.from_parts(ALL), principal, action, resource, conversion, {})
    assert not refused.allowed
    assert refused.errors


def test_the_action_may_be_written_as_in_cedar() -> None:
    conversion = convert_arguments(ActivitySignature.of(by_parameter), [1])
    assert decide(PolicyBundle.from_parts(ALL), PRINCIPAL, 'Action::"charge"', RESOURCE, conversion, {}).allowed


@pytest.mark.rule("E7")
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ('@id("all") permit(principal, action, resource);', "already the name of"),
        ('@id("x") @ttl("soon") permit(principal, action, resource);', "is no duration"),
        ("permit(principal, action, resource) when { true || ip(1, 2).isIpv4() };", "expects 1 argument"),
    ],
)
def test_policies_that_the_gate_would_not_have_loaded_decide_nothing(policy: str, reason: str) -> None:
    refused = verdict(policy, by_parameter, 1)
    assert not refused.allowed
    assert reason in refused.errors[0]


class Naming(PolicyBundle):
    """What Cedar never does: it allows, and names other policies than the bundle has, or none."""

    def __init__(self, *names: str) -> None:
        super().__init__(PolicyBundle.from_parts(ALL).source)
        self._names = names

    def evaluate(self, *_: Any, **__: Any) -> Decision:
        return Decision(True, self._names, ())


@pytest.mark.rule("E4")
@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), "Cedar allowed without naming a policy"),
        (("no such policy",), "the decision failed (KeyError)"),
        (("policy0", "no such policy"), "the decision failed (KeyError)"),
    ],
    ids=str,
)
def test_an_allow_that_rests_on_no_policy_of_the_bundle_is_a_denial(names: tuple[str, ...], error: str) -> None:
    arguments = convert_arguments(ActivitySignature.of(by_parameter), [1])
    assert decide(Naming("policy0"), PRINCIPAL, ACTION, RESOURCE, arguments, {}).allowed
    refused = decide(Naming(*names), PRINCIPAL, ACTION, RESOURCE, arguments, {})
    assert (refused.allowed, refused.errors) == (False, (error,))
