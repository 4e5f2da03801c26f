"""Policies by action: asking Cedar with those that can apply is asking with all of them."""

import json
from dataclasses import replace
from typing import Any

import cedarpy
import pytest
from cedarpy import Entities, PolicySet
from hypothesis import given
from hypothesis import strategies as st

from exequatur.policy import actions
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.parsing import policy_nodes

GROUPS = [
    {"uid": {"type": "Action", "id": name}, "attrs": {}, "parents": [{"type": "Action", "id": parent}]}
    for name, parent in (
        ("charge", "money"),
        ("refund", "money"),
        ("money", "all"),
        ("export", "data"),
        ("idle", "all"),
    )
]
NAMES = ["charge", "refund", "export", "money", "all", "data", "never"]
SCOPES = st.one_of(
    st.just("action"),
    st.sampled_from(NAMES).map(lambda name: f'action == Action::"{name}"'),
    st.sampled_from(NAMES).map(lambda name: f'action in Action::"{name}"'),
    st.lists(st.sampled_from([f'Action::"{name}"' for name in NAMES]), max_size=3).map(
        lambda listed: f"action in [{', '.join(listed)}]"
    ),
    st.just('action == Other::Action::"charge"'),
)
CONDITIONS = ["", " when { context.amount > 3 }", " when { context.missing }", ' when { action == Action::"charge" }']
POLICIES = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), SCOPES, st.sampled_from(CONDITIONS)), max_size=6
).map(lambda parts: "".join(f"{effect}(principal, {scope}, resource){when};\n" for effect, scope, when in parts))
ASKED = st.one_of(
    st.sampled_from([*NAMES, "unheard of"]).map(lambda name: {"type": "Action", "id": name}),
    st.sampled_from(['Action::"charge"', 'Action::"ref\\u{75}nd"', 'Other::Action::"charge"', "nonsense"]),
    st.just({"type": "Other::Action", "id": "charge"}),
)


@given(POLICIES, ASKED)
@pytest.mark.rule("actions.N1", "actions.N2")
def test_the_answer_is_that_of_all_policies(policies: str, action: Any) -> None:
    decision = PolicyBundle.from_parts(policies, None, GROUPS).evaluate('U::"a"', action, 'R::"b"', {"amount": 5})
    request = {"principal": 'U::"a"', "action": action, "resource": 'R::"b"', "context": {"amount": 5}}
    all_of_them = cedarpy.is_authorized(
        request, PolicySet.from_str(policies), Entities.from_json_str(json.dumps(GROUPS))
    )
    assert decision.allowed == all_of_them.allowed
    assert sorted(decision.reasons) == sorted(all_of_them.diagnostics.reasons)
    assert sorted(decision.errors) == sorted(all_of_them.diagnostics.errors)


FOUR = """
    permit(principal, action == Action::"charge", resource);
    forbid(principal, action in [Action::"money"], resource) when { context.args.amount > 3 };
    permit(principal, action == Action::"export", resource) when { context.run.id == "r" };
    permit(principal, action == Action::"rename", resource) when { principal == context };
"""


def sizes(bundle: PolicyBundle, *names: str) -> list[int]:
    return [len(bundle._index.slice_for({"type": "Action", "id": name}).policies) for name in names]


@pytest.mark.rule("actions.N3")
def test_cedar_is_given_the_policies_that_can_apply() -> None:
    bundle = PolicyBundle.from_parts(FOUR, None, GROUPS)
    assert sizes(bundle, "charge", "refund", "export", "rename", "idle") == [2, 1, 1, 1, 0]


@pytest.mark.rule("actions.N2")
def test_an_action_that_nothing_names_is_asked_of_all_policies() -> None:
    bundle = PolicyBundle.from_parts(FOUR, None, GROUPS)
    assert sizes(bundle, "unheard of") == [4]
    for odd in ('Action::"unheard of"', 'Action::"charge\\u{21}"', 'Shop::Action::"charge"'):
        assert len(bundle._index.slice_for(odd).policies) == 4, odd
    assert bundle.reads("unheard of") == frozenset()


@pytest.mark.rule("actions.N1")
def test_what_a_policy_for_another_action_reads_is_not_read() -> None:
    bundle = PolicyBundle.from_parts(FOUR, None, GROUPS)
    assert bundle.fact_reads("charge") == {"args"}
    assert bundle.fact_reads("export") == {"run"}
    assert bundle.fact_reads("rename") is None
    assert bundle.reads("rename") == {()}


def test_what_cannot_be_analysed_may_read_everything() -> None:
    bundle = PolicyBundle.from_parts("permit(principal, action, resource) when { ip(1, 2).isIpv4() };")
    assert bundle.reads("charge") == {()}
    assert bundle.fact_reads("charge") is None


def test_templates_do_not_shift_the_names_of_policies() -> None:
    bundle = PolicyBundle.from_parts(
        '@id("t") permit(principal == ?principal, action, resource);'
        '@id("a") permit(principal, action == Action::"charge", resource);'
        '@id("b") permit(principal, action == Action::"refund", resource);'
    )
    for name, policy_id in (("charge", "policy1"), ("refund", "policy2")):
        assert bundle.evaluate('U::"a"', f'Action::"{name}"', 'R::"b"', {}).reasons == (policy_id,)
    assert [info.id for info in bundle.policies.values()] == ["a", "b"]


def test_what_slices_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_MAX_COPIES", 0)
    bundle = PolicyBundle.from_parts(FOUR, None, GROUPS)
    assert sizes(bundle, "charge") == [4]
    assert bundle.evaluate('U::"a"', 'Action::"charge"', 'R::"b"', {"args": {"amount": 1}}).reasons == ("policy0",)


def test_policies_that_our_splitting_does_not_tell_apart_are_taken_from_cedar() -> None:
    policies = PolicySet.from_str(FOUR)
    found = dict(policy_nodes(policies, {}))
    assert list(found) == ["policy0", "policy1", "policy2", "policy3"]
    one_by_one = dict(policy_nodes(policies, PolicyBundle.from_parts(FOUR).located))
    assert {policy_id: replace(node, id=policy_id) for policy_id, node in one_by_one.items()} == found


def test_an_error_names_the_policy_as_the_whole_bundle_does() -> None:
    policies = FOUR + 'permit(principal, action == Action::"refund", resource) when { context.missing };'
    decision = PolicyBundle.from_parts(policies, None, GROUPS).evaluate('U::"a"', 'Action::"refund"', 'R::"b"', {})
    assert sorted(error.split("`")[1] for error in decision.errors) == ["policy1", "policy4"]
