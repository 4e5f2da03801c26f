"""Recorded decisions, made again under two bundles: what flips, why, and what cannot be told."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.authoring.whatif import compare as module
from exequatur.authoring.whatif.changes import differences
from exequatur.authoring.whatif.compare import compare
from exequatur.authoring.whatif.comparison import Comparison, Recorded, Where
from exequatur.authoring.whatif.held import Arguments, GivenArguments, NoArguments, PlainArguments, Unreadable
from exequatur.authoring.whatif.once import Once
from exequatur.authoring.whatif.uses import uses_by_policy
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import decide

SCHEMA = """
entity Role; entity Agent in [Role]; entity Workflow; entity Order;
@parameters("amount,note")
action pay appliesTo { principal: Agent, resource: Workflow, context: {
  args: { amount: Long, note?: String }, run: { workflow_id: String, workflow_type: String }, now: datetime,
  behavior?: { novel: Bool },
} };
action count appliesTo { principal: Agent, resource: Workflow, context: { args: { number: Long } } };
action ship appliesTo { principal: Agent, resource: Order, context: { args: {} } };
"""
PERMIT = '@id("all") permit(principal, action, resource);\n'
LIMIT = '@id("limit") forbid(principal, action == Action::"pay", resource) when { context.args.amount > %d };\n'
NOTE = (
    '@id("noted") forbid(principal, action == Action::"pay", resource)'
    ' when { context.args has note && context.args.note == "x" };\n'
)


def bundle(policies: str, schema: str | None = SCHEMA) -> PolicyBundle:
    return PolicyBundle.from_parts(policies, schema, strict=True)


def paid(
    arguments: Arguments | None = None,
    *,
    action: str = "pay",
    decision: Any = None,
    complete: bool = True,
    facts: dict[str, Any] | None = None,
    roles: tuple[str, ...] = (),
    workflow: str = "w-1",
    absent: frozenset[str] = frozenset(),
) -> Recorded:
    return Recorded(
        where=Where(workflow, "r-1", "5", 1_769_860_800.0, "history"),
        principal={
            "uid": {"type": "Agent", "id": "bot"},
            "attrs": {},
            "parents": [{"type": "Role", "id": role} for role in roles],
        },
        action=action,
        resource=None,
        arguments=arguments if arguments is not None else PlainArguments((700, None)),
        facts=facts if facts is not None else FACTS,
        complete=complete,
        decision=decision,
        absent=absent,
    )


FACTS: dict[str, Any] = {
    "run": {"workflow_id": "w-1", "workflow_type": "Refund"},
    "now": {"__extn": {"fn": "datetime", "arg": "2026-01-31T12:00:00.000Z"}},
}


def changes(found: Comparison) -> dict[str, int]:
    return {str(change): number for change, number in found.changes.items() if number}


def causes(found: Comparison) -> list[tuple[str, int]]:
    return [(group.cause, group.count) for group in found.groups]


def test_a_lower_limit_flips_the_decisions_between_the_two_and_no_others() -> None:
    asked = [paid(PlainArguments((amount, None))) for amount in (100, 400, 401, 500, 501, 900)]
    found = compare(bundle(PERMIT + LIMIT % 500), bundle(PERMIT + LIMIT % 400), asked)
    assert (found.asked, found.same, found.flips) == (6, 4, 2)
    assert changes(found) == {"allow_to_deny": 2}
    assert causes(found) == [("limit forbids", 2)]
    assert [each.values for each in found.groups[0].examples] == [{"args.amount": "401"}, {"args.amount": "500"}]
    assert found.groups[0].examples[0].principal == 'Agent::"bot"'


def test_a_higher_limit_is_the_other_direction() -> None:
    found = compare(bundle(PERMIT + LIMIT % 500), bundle(PERMIT + LIMIT % 900), [paid()])
    assert changes(found) == {"deny_to_allow": 1}
    assert causes(found) == [("limit no longer forbids", 1)]


def test_a_permit_that_is_taken_away_is_the_cause() -> None:
    role = '@id("operators") permit(principal in Role::"operators", action, resource);'
    found = compare(bundle(PERMIT), bundle(role), [paid(roles=()), paid(roles=("operators",))])
    assert causes(found) == [("all no longer permits", 1), ("all before, operators now", 1)]
    assert changes(found) == {"allow_to_deny": 1, "other_policies": 1}


@pytest.mark.rule("compare.C1")
def test_the_recorded_circumstances_decide() -> None:
    condition = 'context.now > datetime("2026-01-31")'
    late = f'@id("late") forbid(principal, action == Action::"pay", resource) when {{ {condition} }};'
    found = compare(bundle(PERMIT), bundle(PERMIT + late), [paid()])
    assert (changes(found), causes(found)) == ({"allow_to_deny": 1}, [("late forbids", 1)])


@pytest.mark.rule("compare.C1")
def test_an_argument_that_cedar_cannot_hold_flips_to_a_denial_that_says_so() -> None:
    found = compare(bundle(PERMIT), bundle(PERMIT + LIMIT % 500), [paid(PlainArguments((2**63, None)))])
    assert changes(found) == {"allow_to_deny": 1}
    assert "args.amount" in found.groups[0].cause


@pytest.mark.rule("compare.C3")
def test_a_principal_that_the_new_schema_does_not_know_is_denied() -> None:
    other = SCHEMA.replace("entity Agent in [Role];", "entity Agent in [Role] { region: String };")
    found = compare(bundle(PERMIT), bundle(PERMIT, other), [paid()])
    assert changes(found) == {"allow_to_deny": 1}


@pytest.mark.rule("compare.C2", "held.H1")
def test_what_the_history_does_not_hold_is_undecidable_and_never_absent() -> None:
    old, new = bundle(PERMIT), bundle(PERMIT + NOTE)
    missing = {
        "the default of an argument that was not given": PlainArguments((1,)),
        "an argument in another encoding": PlainArguments((1, Unreadable("it is encrypted"))),
        "the arguments of a local activity": NoArguments("the arguments"),
    }
    for why, arguments in missing.items():
        found = compare(old, new, [paid(arguments)])
        assert changes(found) == {"undecidable": 1}, why
        assert found.groups[0].cause.startswith("the record does not hold"), why
    assert changes(compare(old, new, [paid(PlainArguments((1, None)))])) == {}
    assert changes(compare(old, new, [paid(PlainArguments((1, "x")))])) == {"allow_to_deny": 1}


def test_more_arguments_than_the_schema_names_are_undecidable() -> None:
    found = compare(bundle(PERMIT), bundle(PERMIT + NOTE), [paid(PlainArguments((1, "x", "y")))])
    assert changes(found) == {"undecidable": 1}
    assert "which of its 3 arguments is which" in found.groups[0].cause


def test_without_a_schema_on_either_side_arguments_have_no_names() -> None:
    old, new = bundle(PERMIT, None), bundle(PERMIT + LIMIT % 500, None)
    found = compare(old, new, [paid()])
    assert changes(found) == {"undecidable": 1}
    assert "@parameters" in found.groups[0].cause
    with_schema = compare(old, bundle(PERMIT + LIMIT % 500), [paid()])
    assert changes(with_schema) == {"allow_to_deny": 1}


def test_a_single_parameter_needs_no_annotation() -> None:
    limit = '@id("few") forbid(principal, action == Action::"count", resource) when { context.args.number > 5 };'
    asked = [paid(PlainArguments((number,)), action="count") for number in (5, 6)]
    assert changes(compare(bundle(PERMIT), bundle(PERMIT + limit), asked)) == {"allow_to_deny": 1}


def test_a_parameter_that_takes_the_rest_holds_a_list() -> None:
    schema = SCHEMA.replace("amount,note", "amount,*tags").replace("note?: String", "tags: Set<String>")
    tagged = '@id("t") forbid(principal, action == Action::"pay", resource) when { context.args.tags.contains("x") };'
    asked = [(1,), (1, "y"), (1, "y", "x"), (), (1, Unreadable("it is encrypted"))]
    found = compare(bundle(PERMIT, schema), bundle(PERMIT + tagged, schema), map(paid, map(PlainArguments, asked)))
    assert changes(found) == {"allow_to_deny": 1, "undecidable": 1}
    assert found.same == 3


@pytest.mark.parametrize(
    ("value", "known", "expected"),
    [
        ({"amount": 1, "note": "x"}, {("amount",), ("note",)}, "allow_to_deny"),
        ({"amount": 1}, {("amount",), ("note",)}, None),  # somebody looked: it was absent
        ({"amount": 1}, {("amount",)}, "undecidable"),
        ({"amount": 1}, None, "undecidable"),
        ({"note": "x"}, None, "allow_to_deny"),
        ({}, {()}, None),
        ({}, set(), "undecidable"),
    ],
)
@pytest.mark.rule("held.H1")
def test_a_journal_holds_what_its_policies_read_and_nothing_else(value: Any, known: Any, expected: str | None) -> None:
    given = GivenArguments(value, known if known is None else frozenset(known))
    found = compare(bundle(PERMIT), bundle(PERMIT + NOTE), [paid(given)])
    assert changes(found) == ({expected: 1} if expected else {})


def test_a_fault_in_the_journal_is_met_again_by_whoever_reads_as_much() -> None:
    given = GivenArguments({}, frozenset({("amount",)}), "args.amount is too large")
    same = compare(bundle(PERMIT + LIMIT % 5), bundle(PERMIT + LIMIT % 5 + NOTE), [paid(given, decision="deny")])
    assert (same.same, same.not_reproduced) == (1, 0)
    freed = compare(bundle(PERMIT + LIMIT % 5), bundle(PERMIT), [paid(given)])
    assert causes(freed) == [("no longer: args.amount is too large", 1)]
    unclear = compare(bundle(PERMIT + LIMIT % 5), bundle(PERMIT + NOTE), [paid(given)])
    assert changes(unclear) == {"undecidable": 1}


@pytest.mark.rule("compare.C2")
def test_a_recorded_value_of_another_type_than_is_declared_now_is_undecidable() -> None:
    other = SCHEMA.replace("amount: Long", "amount: decimal")
    limit = (
        PERMIT
        + '@id("l") forbid(principal, action == Action::"pay", resource)'
        + (' when { context.args.amount.greaterThan(decimal("5.0")) };')
    )
    given = GivenArguments({"amount": 7}, frozenset({("amount",)}))
    found = compare(bundle(PERMIT + LIMIT % 5), bundle(limit, other), [paid(given)])
    assert changes(found) == {"undecidable": 1}
    assert "declared type" in found.groups[0].cause
    # A history has the plain value, which has a form in both.
    assert changes(compare(bundle(PERMIT + LIMIT % 5), bundle(limit, other), [paid()])) == {"other_policies": 1}


@pytest.mark.rule("compare.C2")
def test_a_fact_that_the_record_does_not_hold_is_undecidable() -> None:
    novel = '@id("n") forbid(principal, action == Action::"pay", resource)'
    novel += " when { context has behavior && context.behavior.novel };"
    asked = paid(complete=False)
    assert causes(compare(bundle(PERMIT), bundle(PERMIT + novel), [asked])) == [
        ("the record does not hold context.behavior (new policies)", 1)
    ]
    # The gate gave Cedar all that there was.
    assert changes(compare(bundle(PERMIT), bundle(PERMIT + novel), [paid(complete=True)])) == {}
    needs = '@id("t") forbid(principal, action == Action::"pay", resource) when { context.run.workflow_type == "X" };'
    without = paid(facts={"now": FACTS["now"]})
    assert changes(compare(bundle(PERMIT), bundle(PERMIT + needs), [without])) == {"undecidable": 1}


def test_a_resource_that_is_not_recorded_is_undecidable_where_it_matters() -> None:
    mine = '@id("mine") forbid(principal, action == Action::"ship", resource == Order::"7");'
    asked = paid(PlainArguments(()), action="ship")
    assert changes(compare(bundle(PERMIT), bundle(PERMIT + mine), [asked])) == {"undecidable": 1}
    assert changes(compare(bundle(PERMIT), bundle(PERMIT), [asked])) == {}
    known = dataclasses.replace(asked, resource={"type": "Order", "id": "7"})
    assert changes(compare(bundle(PERMIT), bundle(PERMIT + mine), [known])) == {"allow_to_deny": 1}


def test_policies_without_a_name_are_the_same_wherever_they_stand() -> None:
    unnamed = "permit(principal, action, resource);\n"
    first = 'forbid(principal, action == Action::"count", resource);\n'
    found = compare(bundle(unnamed), bundle(first + unnamed), [paid()])
    assert (found.same, changes(found)) == (1, {})


@pytest.mark.rule("compare.C3")
def test_an_answer_for_one_resource_is_not_taken_for_another() -> None:
    own = '@id("own") forbid(principal, action, resource == Workflow::"w-2");'
    found = compare(bundle(PERMIT), bundle(PERMIT + own), [paid(workflow=f"w-{number}") for number in (1, 2, 3)])
    assert changes(found) == {"allow_to_deny": 1}


@pytest.mark.rule("compare.C3")
def test_the_same_policies_with_other_entities_are_asked_again() -> None:
    role = '@id("operators") permit(principal in Role::"operators", action, resource);'
    member = {
        "uid": {"type": "Agent", "id": "bot"},
        "attrs": {},
        "parents": [{"type": "Role", "id": "operators"}],
    }
    with_member = PolicyBundle.from_parts(role, SCHEMA, [member], strict=True)
    found = compare(bundle(role), with_member, [paid()])
    assert changes(found) == {"deny_to_allow": 1}


def test_a_decision_that_old_would_not_have_made_is_not_reproduced() -> None:
    asked = [paid(decision="allow"), paid(decision="deny"), paid()]
    assert compare(bundle(PERMIT), bundle(PERMIT), asked).not_reproduced == 1


@pytest.mark.rule("compare.C4")
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 2)
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    old, new = bundle(PERMIT, None), bundle("", None)
    found = compare(
        old, new, [paid(action=f"a{number % 4}", workflow=f"w{number}") for number in range(40)], examples=2
    )
    assert [group.count for group in found.groups] == [10, 10]
    assert [len(group.examples) for group in found.groups] == [2, 2]
    assert (found.flips, found.ungrouped) == (40, 20)
    comparing = module.Comparing(old, new)
    for number in range(40):
        comparing.add(paid(action=f"a{number}"))
    assert len(comparing._old._remembered) <= 3


RUN = st.fixed_dictionaries({"workflow_id": st.sampled_from("ab"), "workflow_type": st.sampled_from("xy")})
CONDITIONS = [
    'context.run.workflow_type == "x"',
    'context.run == {"workflow_id": "a", "workflow_type": "y"}',
    "context.args.amount > 1",
    'context.args has note && context.args.note like "n*"',
    'resource == Workflow::"a"',
    'principal in Role::"r1"',
    '(if principal in Role::"r2" then context.run else {"workflow_id": "b", "workflow_type": "y"}).workflow_id == "b"',
    'context.now < datetime("2026-02-01")',
    "context has behavior",
]
POLICIES = st.lists(
    st.tuples(st.sampled_from(["permit", "forbid"]), st.sampled_from(CONDITIONS), st.booleans()), min_size=1, max_size=4
)


PAY = ' == Action::"pay"'


def written(policies: list[tuple[str, str, bool]]) -> str:
    return "\n".join(
        f'@id("p{number}") {effect}(principal, action{PAY if narrow else ""}, resource) when {{ {condition} }};'
        for number, (effect, condition, narrow) in enumerate(policies)
    )


QUESTIONS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([None, "n", "m"]),
        RUN,
        st.sets(st.sampled_from(["r1", "r2"])),
        st.sampled_from(["2026-01-31T12:00:00.000Z", "2026-02-01T12:00:00.000Z"]),
    ),
    max_size=12,
)


@given(POLICIES, POLICIES, QUESTIONS)
@pytest.mark.rule("compare.C3")
def test_what_is_remembered_never_changes_an_answer(old: Any, new: Any, questions: Any) -> None:
    bundles = [PolicyBundle.from_parts(written(each), strict=True) for each in (old, new)]
    expected: Counter[str] = Counter()
    asked = []
    for amount, note, run, roles, now in questions:
        facts = {"run": run, "now": {"__extn": {"fn": "datetime", "arg": now}}}
        value = {"amount": amount} | ({"note": note} if note else {})
        each = paid(
            GivenArguments(value, frozenset({()})), facts=facts, roles=tuple(sorted(roles)), workflow=run["workflow_id"]
        )
        asked.append(each)
        verdicts = [
            decide(
                one,
                each.principal,
                'Action::"pay"',
                {"type": "Workflow", "id": run["workflow_id"]},
                Conversion(value, {}),
                facts,
            )
            for one in bundles
        ]
        if verdicts[0].allowed != verdicts[1].allowed:
            expected["allow_to_deny" if verdicts[0].allowed else "deny_to_allow"] += 1
        elif {ref.id for ref in verdicts[0].policies} != {ref.id for ref in verdicts[1].policies}:
            expected["other_policies"] += 1
    assert changes(compare(bundles[0], bundles[1], asked)) == dict(expected)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, st.sampled_from([None, frozenset(), frozenset({()}), frozenset({("amount",)})]))
def test_no_recorded_value_crashes_a_comparison(one: Any, other: Any, known: Any) -> None:
    old, new = ANY
    value = one if isinstance(one, dict) else {"amount": one}
    asked = [paid(PlainArguments((one, other))), paid(GivenArguments(value, known)), paid(PlainArguments((one,) * 3))]
    found = compare(old, new, asked)
    assert found.asked == 3


ANY = bundle(PERMIT + LIMIT % 5), bundle(PERMIT + LIMIT % 4 + NOTE)


def test_what_a_policy_looks_at_is_named_down_to_the_attribute() -> None:
    found = bundle(
        '@id("p") permit(principal, action, resource) when { context.run.workflow_type == "x"'
        ' && context.args has note && context.args.note == "y" };',
        None,
    )
    [(_, uses)] = uses_by_policy(found).values()
    assert uses.context == {("run", "workflow_type"), ("args", "note")}
    assert not uses.resource
    assert uses.facts() == {("run", "workflow_type")}


def test_the_texts_of_two_bundles_are_compared_by_name_and_meaning() -> None:
    old = PolicyBundle.from_parts(
        PERMIT + LIMIT % 500 + NOTE,
        SCHEMA,
        [{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": []}],
        strict=True,
    )
    new = PolicyBundle.from_parts(
        "// moved\n" + (LIMIT % 400) + PERMIT.replace("permit(", "permit (  ") + '@id("new") ' + NOTE[12:],
        SCHEMA.replace("number: Long }", "number: Long, more?: Long }"),
        [{"uid": {"type": "Role", "id": "b"}, "attrs": {}, "parents": []}],
        strict=True,
    )
    found = {(each.what, each.how, each.name): each.details for each in differences(old, new)}
    assert set(found) == {
        ("policy", "changed", "limit"),
        ("policy", "removed", "noted"),
        ("policy", "added", "new"),
        ("action", "changed", "count"),
        ("entity", "removed", 'Role::"a"'),
        ("entity", "added", 'Role::"b"'),
    }
    assert found["action", "changed", "count"] == ("+ context.args.more?: Long",)
    assert [line[0] for line in found["policy", "changed", "limit"]] == ["-", "+"]
    assert differences(old, old) == ()


def test_a_decision_of_several_sources_is_passed_on_once_with_the_most_arguments() -> None:
    added: list[Recorded] = []
    once = Once(added.append, 3)
    coded, journaled = paid(PlainArguments((Unreadable("coded"), None))), paid(GivenArguments({}, None))
    local = dataclasses.replace(coded, arguments=NoArguments("local"), where=Where("w-1", "r-1", "6", 1.0, "history"))
    for each in (coded, local):
        once.add(each)
    once.end_source()
    once.add(journaled)
    again = dataclasses.replace(journaled, where=dataclasses.replace(journaled.where, attempt=2))
    once.add(again)
    once.end_source()
    once.add(journaled)
    once.end_source()
    # What no source had arguments for is still a decision, and asked about at the end.
    assert (added, once.repeated) == ([journaled, again, local], 2)


def test_decisions_of_runs_that_are_not_known_are_never_taken_for_the_same() -> None:
    added: list[Recorded] = []
    once = Once(added.append, 2)
    unknown = dataclasses.replace(paid(), where=Where("w-1", "", "5", 1.0, "journal"))
    once.add(unknown)
    once.end_source()
    once.add(unknown)
    once.end_source()
    assert (added, once.repeated) == ([unknown, unknown], 0)


@pytest.mark.rule("compare.C2")
def test_a_fact_that_is_known_to_have_been_absent_is_not_missing() -> None:
    novel = '@id("novel") forbid(principal, action == Action::"pay", resource) when { context has behavior };'
    old, new = bundle(PERMIT), bundle(PERMIT + novel)
    assert changes(compare(old, new, [paid(complete=False)])) == {"undecidable": 1}
    assert compare(old, new, [paid(complete=False, absent=frozenset({"behavior"}))]).same == 1


@pytest.mark.rule("compare.C2")
@pytest.mark.parametrize("complete", [True, False])
def test_a_fact_that_the_record_holds_in_part_is_missing_where_policies_read_it(complete: bool) -> None:
    kind = '@id("kind") forbid(principal, action == Action::"pay", resource) when { context.run.workflow_type == "X" };'
    record = paid(complete=complete, facts={**FACTS, "run": {"workflow_id": "w-1"}})
    found = compare(bundle(PERMIT), bundle(PERMIT + kind), [record])
    assert causes(found) == [("the record does not hold context.run.workflow_type (new policies)", 1)]
    assert compare(bundle(PERMIT), bundle(PERMIT + LIMIT % 900), [record]).same == 1
