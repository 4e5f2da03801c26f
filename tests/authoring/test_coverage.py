"""What policy tests show of each policy, in both directions."""

from pathlib import Path

import pytest

from exequatur.authoring.cases.cases import case_files, parse_cases, read_cases
from exequatur.authoring.cases.coverage import PolicyCoverage, coverage
from exequatur.authoring.cases.results import run_cases
from exequatur.policy.bundle import PolicyBundle

REFERENCE = Path(__file__).parents[2] / "policies"

POLICIES = """
permit(principal in Role::"clerk", action == Action::"pay", resource);
@id("limit") forbid(principal, action == Action::"pay", resource) when { context.args.amount > 100 };
@id("read") permit(principal, action == Action::"read", resource);
@id("vip") permit(principal == Agent::"vip", action, resource);
"""
PAY = """
defaults: {principal: {uid: 'Agent::"bot"', parents: ['Role::"clerk"']}, activity: pay}
cases:
"""


@pytest.fixture(scope="module")
def bundle() -> PolicyBundle:
    return PolicyBundle.from_parts(POLICIES)


def shown(bundle: PolicyBundle, text: str) -> dict[str, PolicyCoverage]:
    found = run_cases(bundle, parse_cases(PAY + text, "t.yaml"))
    return {each.id: each for each in coverage(bundle, found)}


def counts(each: PolicyCoverage) -> tuple[int, int, int]:
    return each.decided, each.aside, each.overruled


@pytest.mark.rule("coverage.G2", "coverage.G3")
def test_a_permit_that_a_forbid_overrules_did_not_stand_aside(bundle):
    both = "- {name: a, args: {amount: 1}, expect: allow}\n- {name: b, args: {amount: 101}, expect: deny}\n"
    found = shown(bundle, both)
    assert counts(found["policy0"]) == (1, 0, 1)
    assert not found["policy0"].covered
    assert found["policy0"].missing == "no case in which it stands aside"
    assert (counts(found["limit"]), found["limit"].covered) == ((1, 1, 0), True)
    stray = "- {name: c, principal: 'Agent::\"stray\"', args: {amount: 1}, expect: deny}\n"
    found = shown(bundle, both + stray)
    assert (counts(found["policy0"]), found["policy0"].covered) == ((1, 1, 1), True)


@pytest.mark.rule("coverage.G2")
def test_a_case_of_another_action_shows_nothing(bundle):
    found = shown(bundle, "- {name: a, activity: read, expect: allow}\n")
    assert counts(found["limit"]) == counts(found["policy0"]) == (0, 0, 0)
    assert found["limit"].missing == "no case in which it denies, and none in which it stands aside"
    assert counts(found["vip"]) == (0, 1, 0)
    assert found["vip"].missing == "no case in which it allows"


@pytest.mark.rule("coverage.G3")
def test_a_policy_that_nothing_restricts_need_not_stand_aside(bundle):
    found = shown(bundle, "- {name: a, activity: read, expect: allow}\n")["read"]
    assert (found.unrestricted, found.covered, found.missing) == (True, True, None)
    assert not shown(bundle, "- {name: a, args: {amount: 1}, expect: allow}\n")["read"].covered


@pytest.mark.rule("coverage.G1")
def test_a_case_that_fails_or_ends_in_an_error_shows_nothing(bundle):
    found = shown(
        bundle,
        "- {name: a, args: {amount: 1}, expect: deny}\n"
        "- {name: b, args: {amount: many}, expect: deny, error: type}\n"
        "- {name: c, principal: bot, expect: deny}\n",
    )
    assert {counts(each) for each in found.values()} == {(0, 0, 0)}


def test_entities_of_a_case_count_for_what_is_overruled(bundle):
    grouped = """principal: 'Agent::"stray"', entities: [{uid: 'Agent::"stray"', parents: ['Role::"clerk"']}]"""
    found = shown(bundle, f"- {{name: a, args: {{amount: 101}}, expect: deny, {grouped}}}\n")
    assert counts(found["policy0"]) == (0, 0, 1)


def test_a_bundle_without_a_permit_is_counted_too():
    bundle = PolicyBundle.from_parts('@id("no") forbid(principal, action, resource);')
    assert counts(shown(bundle, "- {name: a, expect: deny, by: no}\n")["no"]) == (1, 0, 0)


def test_every_policy_of_the_reference_bundle_is_covered():
    bundle = PolicyBundle.from_folder(REFERENCE)
    found = run_cases(bundle, [case for path in case_files(REFERENCE) for case in read_cases(path)])
    assert [(each.id, each.missing) for each in coverage(bundle, found) if not each.covered] == []
