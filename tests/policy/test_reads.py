"""Which argument paths policies can read."""

from dataclasses import dataclass
from typing import Any

import pytest
from cedarpy import PolicySet, pst

from exequatur.policy.reads import argument_reads, fact_reads, reads_and_contents


def reads(condition: str) -> set[tuple[str, ...]]:
    nodes = PolicySet.from_str(f"forbid(principal, action, resource) when {{ {condition} }};").to_pst()
    return set(argument_reads(nodes.static_policies.values()))


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        ("true", set()),
        ("principal.amount > 5", set()),
        ("context.now > 5", set()),
        ("context has args", set()),
        ("context.run has args", set()),
        ("context.args.amount > 5", {("amount",)}),
        ('context["args"]["odd key"] > 5', {("odd key",)}),
        ("context.args has amount", {("amount",)}),
        ("context.args has order.amount", {("order",), ("order", "amount")}),
        ("context has args.order.amount", {("order",), ("order", "amount")}),
        ("!(context.args.order.amount == 5)", {("order", "amount")}),
        ('context.args.name like "a*"', {("name",)}),
        ('context.args.who is User in Group::"g"', {("who",)}),
        ('context.args.who.hasTag("x")', {("who",)}),
        ('principal.getTag(context.args.tag) == "x"', {("tag",)}),
        ("context.args.tags.contains(context.args.tag)", {("tags",), ("tag",)}),
        ("context.args.tags.isEmpty()", {("tags",)}),
        ("[context.args.a, 1].contains(2)", {("a",)}),
        ("{x: context.args.a} == {x: 1}", {("a",)}),
        ("decimal(context.args.a).lessThan(context.args.b)", {("a",), ("b",)}),
        ("context.args == {}", {()}),
        ("context == {}", {()}),
        ("[context].contains({})", {()}),
        ("context.args.order == {amount: 5}", {("order",)}),
        ("(if context.args.a then context.args.b else context.args.c).d > 5", {("a",), ("b", "d"), ("c", "d")}),
        ("(if principal.x then context.args else context.args) has amount", {("amount",)}),
        ("(if principal.x then context else context).args.amount > 5", {("amount",)}),
        ("{x: context.args.order}.x.amount > 5", {("order",), ("order", "amount")}),
        ("{x: context.args.order} has x.amount", {("order",), ("order", "amount")}),
        ("if context.args.a then true else context.args.b", {("a",), ("b",)}),
    ],
)
@pytest.mark.rule("reads.R1", "reads.R2", "reads.R3")
def test_a_condition_reads(condition: str, paths: set[tuple[str, ...]]) -> None:
    assert reads(condition) == paths


@pytest.mark.rule("reads.R1")
def test_a_has_with_several_attributes_in_one_node_reads_the_whole_chain() -> None:
    policy = next(iter(PolicySet.from_str("permit(principal, action, resource);").to_pst().static_policies.values()))
    node = pst.HasAttr(pst.GetAttr(pst.Var("context"), "args"), ("order", "amount"))
    clauses: Any = (pst.When(node),)
    changed = pst.Template(
        policy.id, policy.effect, policy.principal, policy.action, policy.resource, clauses, policy.annotations
    )
    assert argument_reads([changed]) == {("order", "amount")}


@pytest.mark.rule("reads.R4")
def test_a_node_of_a_later_cedar_reads_everything() -> None:
    @dataclass(frozen=True)
    class Tomorrow:
        name: str

    policy = next(iter(PolicySet.from_str("permit(principal, action, resource);").to_pst().static_policies.values()))
    clauses: Any = (pst.When(Tomorrow("x")),)  # type: ignore[arg-type]
    changed = pst.Template(
        policy.id, policy.effect, policy.principal, policy.action, policy.resource, clauses, policy.annotations
    )
    assert argument_reads([changed]) == {()}


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("true", set()),
        ("principal has run && principal.run == 1", set()),
        ('context.run.workflow_type == "Refund"', {"run"}),
        ("context has now && context.activity.attempt < 3", {"now", "activity"}),
        ("context.args.amount > 5", {"args"}),
        ('{"a": context.worker}.a.id == "w"', {"worker"}),
        ("[context.run].contains(context.run)", {"run"}),
        ("(if true then context else context).run.governed", None),
        ("context == {}", None),
        ('{"whole": context}.whole has run', None),
    ],
)
def test_the_facts_that_a_condition_can_read(condition: str, names: set[str] | None) -> None:
    text = f"permit(principal, action, resource) when {{ {condition} }};"
    policies = PolicySet.from_str(text).to_pst().static_policies.values()
    assert fact_reads(policies) == names


@pytest.mark.rule("reads.R4")
def test_a_node_of_a_later_cedar_can_read_any_fact() -> None:
    @dataclass(frozen=True)
    class Tomorrow:
        name: str

    clauses: Any = (pst.When(Tomorrow("x")),)  # type: ignore[arg-type]
    assert fact_reads([clauses]) is None


@pytest.mark.rule("reads.R5")
def test_whether_something_is_there_is_told_from_what_is_in_it() -> None:
    text = """permit(principal, action, resource) when {
        context.args has a.b && context.args.a has c && context.args.a.c == 1
        && context.args has d && context.args has e && [context.args.e].contains(context.args.e)
    };"""
    nodes = PolicySet.from_str(text).to_pst()
    read, contents = reads_and_contents(nodes.static_policies.values())
    assert read == {("a",), ("a", "b"), ("a", "c"), ("d",), ("e",)}
    assert contents == {("a", "c"), ("e",)}
