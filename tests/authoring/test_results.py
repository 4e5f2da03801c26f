"""What comes of policy tests: a case passes, fails with a sentence, or cannot be asked and names the place."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.authoring.cases.cases import Case, case_files, parse_cases, read_cases
from exequatur.authoring.cases.results import CaseResult, run_case, run_cases
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle

REFERENCE = Path(__file__).parents[2] / "policies"

SCHEMA = """
entity Role;
entity Agent in [Role] { region?: String };
entity Order in [Order] { owner?: Agent, total?: decimal } tags String;
type Refund = { order: Order, amount: decimal, note?: String };
action refund appliesTo {
  principal: Agent, resource: Order, context: { args: { refund: Refund }, now: datetime },
};
action count appliesTo { principal: Agent, resource: Order, context: { args: { number: Long }, now: datetime } };
"""
POLICIES = """
@id("clerks") permit(principal in Role::"clerk", action == Action::"refund", resource);
@id("small") @reason("more than 100.00 is for a person")
forbid(principal, action == Action::"refund", resource)
when { context.args.refund.amount.greaterThan(decimal("100.00")) };
@id("own") @reason("not the agent's order")
forbid(principal, action == Action::"refund", resource)
when { resource has owner && resource.owner != principal };
@id("weekdays") @reason("closed")
forbid(principal, action == Action::"refund", resource)
when { context.now >= datetime("2026-01-10") };
@id("counting") permit(principal, action == Action::"count", resource) when { context.args.number * 2 > 0 };
"""
USUAL = """
defaults:
  principal: {uid: 'Agent::"bot"', parents: ['Role::"clerk"']}
  activity: refund
  resource: 'Order::"o-1"'
  args: {refund: {order: 'Order::"o-1"', amount: 20.00}}
cases:
"""


CASE = {"name": "it", "principal": 'Agent::"bot"', "activity": "refund", "expect": "deny"}
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9).map(float)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def bundle() -> PolicyBundle:
    return PolicyBundle.from_parts(
        POLICIES, SCHEMA, [{"uid": {"type": "Role", "id": "clerk"}, "attrs": {}, "parents": []}]
    )


def cases(text: str) -> tuple[Case, ...]:
    return parse_cases(text, "t.yaml")


def result(bundle: PolicyBundle, text: str) -> CaseResult:
    (found,) = run_cases(bundle, cases(f"{USUAL}  - {{name: it, {text}}}")).cases
    return found


@pytest.mark.parametrize(
    "text",
    [
        "expect: allow",
        "expect: allow, by: clerks",
        "expect: deny, args: {refund: {amount: 100.01}}",
        "expect: deny, args: {refund: {amount: 100.01}}, by: [small], reason: for a person",
        "expect: deny, by: [], principal: 'Agent::\"stray\"'",
        "expect: deny, by: weekdays, now: 2026-01-10T00:00:00Z",
        "expect: deny, by: [weekdays, small], context: {now: 2026-01-10T00:00:00Z}, args: {refund: {amount: 101}}",
        "expect: deny, error: more than four fractional digits, args: {refund: {amount: 1.00001}}",
        "expect: deny, error: no number, args: {refund: {amount: plenty}}",
        "expect: deny, error: integer overflow, activity: count, args: {refund: , number: 9223372036854775807}",
    ],
)
def test_a_case_that_is_answered_as_expected_passes(bundle, text):
    found = result(bundle, text)
    assert (found.outcome, found.problem) == ("passed", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "expect: allow, args: {refund: {amount: 101}}",
            "expected allow, but small (more than 100.00 is for a person) forbids it",
        ),
        ("expect: deny", "expected deny, but clerks permits it"),
        (
            "expect: allow, principal: 'Agent::\"stray\"'",
            "expected allow, but no policy permits it: clerks does not hold",
        ),
        (
            "expect: deny, by: [], args: {refund: {amount: 101}}",
            "expected deny because no policy permits it, but small (more than 100.00 is for a person) forbids it",
        ),
        (
            "expect: deny, by: small, principal: 'Agent::\"stray\"'",
            "expected deny by small, but no policy permits it: clerks does not hold",
        ),
        (
            "expect: deny, by: small, args: {refund: {amount: 101}}, now: 2026-01-11T00:00:00Z",
            "expected deny by small, but small (more than 100.00 is for a person) and weekdays (closed) forbid it",
        ),
        (
            "expect: deny, reason: nothing, args: {refund: {amount: 101}}",
            "expected a denial that says 'nothing', but small (more than 100.00 is for a person) forbids it",
        ),
        (
            "expect: deny, error: overflow, args: {refund: {amount: plenty}}",
            "expected an error that says 'overflow', but the error is: args.refund.amount is a string that is no "
            "number, but a decimal is declared",
        ),
        (
            "expect: deny, error: overflow, args: {refund: {amount: 101}}",
            "expected an error that says 'overflow', but small (more than 100.00 is for a person) forbids it",
        ),
    ],
)
@pytest.mark.rule("results.T1")
def test_a_case_that_is_answered_otherwise_fails_with_a_sentence(bundle, text, problem):
    found = result(bundle, text)
    assert (found.outcome, found.problem) == ("failed", problem)
    assert found.where == "t.yaml:8:5"


@pytest.mark.rule("results.T1")
def test_a_denial_by_an_error_passes_only_where_it_is_expected(bundle):
    overflow = "expect: deny, activity: count, args: {refund: , number: 9223372036854775807}"
    found = result(bundle, overflow)
    assert found.outcome == "failed"
    assert "denied as expected, but by an error: policy counting: integer overflow" in found.problem
    assert result(bundle, f"{overflow}, error: something else").outcome == "failed"


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("args: {refund: {amount: 1.00001}}", "args.refund.amount is a number with more than four", "amount"),
        ("args: {refund: {amont: 1}}", "args.refund.amont is not declared in the schema", "amont"),
        ("args: {refund: {amount: }}", "args.refund.amount is required and not given", "refund"),
        ("args: []", "args must be a mapping", "args"),
        ("activity: refnd", "activity refnd is not in the schema. Did you mean refund?", "activity"),
        ("principal: bot", "principal: 'bot' is no entity", "principal"),
        ("principal: 'Agnt::\"bot\"'", "there is no entity type Agnt", "principal"),
        ("resource: 'Role::\"x\"'", "resource: refund is done to Order", "resource"),
        ("context: {x: 1}", "context.x is not declared", "x"),
        ("by: smal", "by: there is no policy smal. Did you mean small?", "by"),
        ("error: decimal, principal: bot, args: {refund: {amount: x}}", "principal: 'bot' is no entity", "principal"),
        ("entities: [1]", "entities[0] must be a mapping with uid", "1"),
        ("entities: [{uid: 'Order::\"o\"', attr: {}}]", "entities[0].attr is unknown", "attr"),
        ("entities: [{uid: 'Ordr::\"o\"'}]", "no entity type Ordr in the schema. Did you mean Order?", "uid"),
        ("entities: [{uid: 'Order::\"o\"', attrs: {total: x}}]", "entities[0].attrs.total is a string", "total"),
        ("entities: [{uid: 'Order::\"o\"', attrs: 3}]", "entities[0].attrs must be a mapping", "attrs"),
        ("entities: [{uid: 'Order::\"o\"', tags: 3}]", "entities[0].tags must be a mapping", "tags"),
        ("entities: [{uid: 'Order::\"o\"', tags: {k: 3}}]", "entities[0].tags.k is a whole number", "k"),
        ("entities: [{uid: 'Order::\"o\"', parents: x}]", "entities[0].parents must be a list", "parents"),
        ("entities: [{uid: 'Order::\"o\"', parents: [7]}]", "entities[0].parents[0]: '7' is no entity", "7"),
        ("entities: [{uid: 'Order::\"o\"', parents: ['Role::\"x\"']}]", "does not conform to the schema", "entities"),
        ("entities: [{uid: 'Role::\"x\"'}, {uid: 'Role::\"x\"'}]", "entities[1].uid: this entity stands in", "uid"),
    ],
)
@pytest.mark.rule("results.T2")
def test_a_case_that_cannot_be_asked_never_passes_and_names_the_place(bundle, text, problem, at):
    found = result(bundle, f"expect: deny, {text}")
    assert found.outcome == "error"
    assert problem in found.problem
    column = [match.start() for match in re.finditer(rf"\b{at}\b", f"  - {{name: it, expect: deny, {text}")][-1] + 1
    assert found.where == f"t.yaml:8:{column}"


def test_entities_of_a_case_are_added_and_take_the_place_of_the_bundles_own(bundle):
    owned = """entities: [{uid: 'Order::"o-1"', attrs: {owner: 'Agent::"other"', total: 12.50}, tags: {kind: gift}}]"""
    assert result(bundle, f"expect: deny, by: own, {owned}").outcome == "passed"
    assert result(bundle, "expect: allow").outcome == "passed"  # the bundle itself is as it was
    grouped = """principal: 'Agent::"stray"', entities: [{uid: 'Agent::"stray"', parents: ['Role::"clerk"']}]"""
    assert result(bundle, f"expect: allow, {grouped}").outcome == "passed"


def test_without_a_schema_what_cedar_cannot_evaluate_is_an_error():
    bare = PolicyBundle.from_parts(
        '@id("any") permit(principal, action, resource);\n'
        '@id("big") forbid(principal, action, resource) when { context.args.amount > 5 };'
    )
    usual = "principal: 'Agent::\"bot\"', activity: pay"
    found = run_cases(
        bare,
        cases(
            f"cases:\n- {{name: a, {usual}, expect: deny, error: amount}}\n"
            f"- {{name: b, {usual}, expect: deny}}\n"
            f"- {{name: c, {usual}, args: {{amount: 5}}, expect: allow, by: any}}\n"
            f"- {{name: d, {usual}, args: {{amount: 6}}, expect: deny, by: big, "
            "entities: [{uid: 'X::\"y\"', attrs: {z: 1}}]}\n"
        ),
    )
    assert [each.outcome for each in found.cases] == ["passed", "failed", "passed", "passed"]


@pytest.mark.rule("results.T3")
def test_the_clock_of_this_machine_counts_for_nothing(bundle):
    assert result(bundle, "expect: allow").asked.facts["now"]["__extn"]["arg"] == "2026-01-05T12:00:00.000Z"


def test_the_reference_bundle_passes_its_own_cases():
    bundle = PolicyBundle.from_folder(REFERENCE)
    found = [case for path in case_files(REFERENCE) for case in read_cases(path)]
    assert [(each.where, each.problem) for each in run_cases(bundle, found).cases if each.outcome != "passed"] == []


@given(st.sampled_from(["principal", "activity", "args", "context", "resource", "entities"]), PLAIN)
def test_no_part_of_a_case_ends_in_an_exception_or_lets_it_pass_by_accident(bundle, name, value):
    document = {
        "name": "it",
        "principal": 'Agent::"stray"',
        "activity": "refund",
        "args": {"refund": {"order": 'Order::"o-1"', "amount": 1}},
        "resource": 'Order::"o-1"',
        "expect": "allow",
        name: value,
    }
    try:
        (case,) = parse_cases(json.dumps({"cases": [document]}), "t.json")
    except PolicyError:
        return
    assert run_case(bundle, case).outcome in {"failed", "error"}


def test_a_case_as_deep_as_a_file_may_be_is_an_error(bundle):
    deep: object = 1
    for _ in range(44):
        deep = {"x": deep}
    for name in ("args", "context", "principal"):
        (found,) = parse_cases(json.dumps({"cases": [{**CASE, "expect": "allow", name: deep}]}), "t.json")
        assert run_case(bundle, found).outcome == "error"
