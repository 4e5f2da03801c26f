"""The check: what it finds in policies, schema, entities and folders, where, and what it leaves alone."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exequatur.authoring.checks import check as module
from exequatur.authoring.checks.check import Checked, check, check_folder, check_source
from exequatur.authoring.checks.findings import RULES, Finding
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource, SourceFile, read_folder

ROOT = Path(__file__).parents[2]
SCHEMA = """
entity Role in [Role];
entity Agent in [Role] { region?: String };
entity User in [Role];
entity Tier enum ["gold", "basic"];
entity Workflow;

action "activity";
action "money" in ["activity"];

action refund in ["money"] appliesTo {
  principal: [Agent, User],
  resource: Workflow,
  context: {
    args: { amount: Long, price: decimal, note?: String, reason: String, address: String },
    run: { workflow_type: String },
    now: datetime,
  },
};
action export in ["activity"] appliesTo {
  principal: [Agent],
  resource: Workflow,
  context: { args: { region: String }, run: { workflow_type: String }, now: datetime },
};
"""
EXPORTS = '@id("exports") permit (principal in Role::"ops", action == Action::"export", resource);\n'
REFUNDS = '@id("refunds") permit (principal in Role::"ops", action == Action::"refund", resource);\n'


def entity(kind: str, name: str, *parents: str, **attrs: Any) -> dict[str, Any]:
    roles = [{"type": "Role", "id": parent} for parent in parents]
    return {"uid": {"type": kind, "id": name}, "attrs": attrs, "parents": roles}


ENTITIES = [entity("Role", "ops"), entity("User", "ada", "ops"), entity("User", "bob", "ops")]


def found(
    policies: str, schema: str | None = SCHEMA, entities: Any = ENTITIES, *, all_permitted: bool = True
) -> list[Finding]:
    """What is found in one file of policies, with every action permitted so that none is unused."""
    text = policies + ("\n" + EXPORTS + REFUNDS if all_permitted else "")
    written = entities if isinstance(entities, str | None) else json.dumps(entities, indent=1)
    return check(
        BundleSource(
            (SourceFile("p.cedar", text),),
            SourceFile("s.cedarschema", schema) if schema is not None else None,
            SourceFile("entities.json", written) if written is not None else None,
        )
    )


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def rules(findings: list[Finding]) -> list[str]:
    return [each.rule for each in findings]


def marked(finding: Finding, text: str) -> str:
    return text.split("\n")[finding.line - 1][finding.column - 1 : finding.end_column - 1]


def forbid(condition: str, action: str = 'action == Action::"refund"') -> str:
    return f'@id("f") forbid (principal, {action}, resource) when {{ {condition} }};'


def test_the_reference_policies_are_clean() -> None:
    checked = check_folder(ROOT / "policies")
    assert checked.findings == ()
    assert checked.policies > 0


def test_sound_policies_have_no_findings() -> None:
    assert found(forbid('context.args.amount > 500 && context.args.reason != "agreed"')) == []


# Every finding at once (K1)


@pytest.mark.rule("check.K1")
def test_everything_that_is_wrong_is_found_at_once() -> None:
    findings = check(
        BundleSource(
            (
                SourceFile(
                    "a.cedar", 'permit(principal, action resource);\n@id("x") allow(principal, action, resource);'
                ),
                SourceFile("b.cedar", EXPORTS + REFUNDS + forbid("context.args.amuont > 1")),
                SourceFile("c.cedar", "permit"),
            ),
            SourceFile("s.cedarschema", SCHEMA),
            SourceFile("entities.json", json.dumps([entity("Rol", "x"), entity("Role", "ops", extra=1)])),
        )
    )
    places = [(each.file, each.line, each.column, each.rule) for each in findings if each.severity == "error"]
    assert ("a.cedar", 1, 26, "syntax") in places
    assert ("a.cedar", 2, 10, "syntax") in places
    assert ("b.cedar", 3, 87, "unknown-argument") in places
    assert ("c.cedar", 1, 7, "syntax") in places
    assert sum(each[3] == "entities" for each in places) == 2


@pytest.mark.rule("check.K1")
def test_a_broken_schema_does_not_hide_a_broken_policy() -> None:
    findings = found("permit(principal", schema=SCHEMA + "entyty Oops;", all_permitted=False)
    assert sorted(rules(findings)) == ["schema", "syntax"]


# Syntax


@pytest.mark.parametrize(
    ("policy", "at", "fix"),
    [
        ("permit(principal, action, resource)", "", "semicolon"),
        ("permit(principal, action, resource) permit(principal, action, resource);", "(", "semicolon"),
        ("permit(principal, action, resource) when { 'a' == 1 };", "'", "double quotes"),
        ('permit(principal, action, resource) when { "a };', '"', "double quote"),
        ("/* no */ permit(principal, action, resource);", "/", "//"),
        ("permit(principal, action, resource) when { true and true };", "and", "&&"),
        ('@id("a") @id("b") permit(principal, action, resource);', "@id", "remove"),
        ("permit(principal, action, resource) when { contain(1) };", "contain", ""),
        ("permit(principal, action, resource) when { context.args.contain(1) };", "contain", "contains"),
        ("permit(principal, action, resource) when { principle == principal };", "principle", "principal?"),
        ("permit(principal, action, resource) when { 99999999999999999999 > 1 };", "99999999999999999999", "up to"),
        ('permit(principal, action, resource) when { "\\q" == "q" };', '"\\q"', "backslash"),
        ("permit(principal, action, resource) when { 1 < 2 < 3 };", "<", "&&"),
        ("permit(principal, resource, action);", "resource", "order"),
        ("permit(principal, action, resource) where { true };", "where", "when or unless"),
        ("allow(principal, action, resource);", "allow", "permit or forbid"),
        ("permit(principal, action, resource) when { {a: 1, a: 2}.a == 1 };", "a", "remove"),
        ("permit(principal, action, resource) when { context.a = 1 };", "=", "=="),
        ("permit(principal, action, resource) when { 5 / 1 == 1 };", "/", "no division"),
        ("permit(principal, action, resource) when {};", "when {}", "remove the clause"),
        ("permit(principal, action, resource) when { decimal(1, 2) == 1 };", "decimal", "arguments"),
        ("permit(principal == User, action, resource);", "User", "Type::"),
        ('permit(principal, action == Foo::"a", resource);', 'Foo::"a"', "Type::"),
        ("permit(principal, action is Foo, resource);", "is", "action in"),
        ("permit(principal, action == ?principal, resource);", "?principal", "name the entity"),
        ("permit(principal, action, resource) when { context.if };", "if", "write"),
        ("permit(principal, action);", "permit", "(principal, action, resource)"),
        ("permit(principal, action, resource) when { !!!!!true };", "!", "once"),
    ],
)
def test_what_cedar_cannot_parse_is_marked_and_has_a_next_step(policy: str, at: str, fix: str) -> None:
    text = f'// a comment; "here"\n\n  {policy}'
    finding = next(each for each in found(text, all_permitted=False) if each.rule == "syntax")
    assert finding.line == 3
    assert marked(finding, text) == at
    assert fix in finding.fix


@pytest.mark.parametrize(
    "inner",
    ["(" * 5000 + "true" + ")" * 5000, "true && " * 20000 + "true", "if true then " * 3000 + "true", "[" * 700],
    ids=["parentheses", "and", "if", "sets"],
)
def test_a_condition_that_would_end_the_process_is_refused_without_cedar(inner: str) -> None:
    findings = found(f"permit(principal, action, resource) when {{ {inner} }};", None, None, all_permitted=False)
    assert "nested too deeply" in next(each.message for each in findings if each.rule == "syntax")


def test_a_schema_that_would_end_the_process_is_refused_without_cedar() -> None:
    findings = found(EXPORTS, "entity A { a: " + "Set<" * 20000 + "Long" + ">" * 20000 + "};")
    assert "nested too deeply" in next(each.message for each in findings if each.rule == "schema")


def test_a_condition_that_cedar_parses_and_cannot_show_is_found() -> None:
    policy = "permit(principal, action, resource) when { " + "true && " * 150 + "true };"
    finding = only([each for each in found(policy, all_permitted=False) if each.rule == "syntax"])
    assert "split" in finding.fix


# Validation


@pytest.mark.parametrize(
    ("policy", "rule", "at", "fix"),
    [
        ('@id("f") forbid (principal, action == Action::"refnd", resource);', "unknown-activity", '"refnd"', "refund?"),
        (
            '@id("f") forbid (principal, action in [Action::"refund", Action::"mony"], resource);',
            "unknown-activity",
            '"mony"',
            "money?",
        ),
        (forbid("context.args.amuont > 5"), "unknown-argument", "amuont", "amount?"),
        (forbid('context["args"]["amuont"] > 5'), "unknown-argument", '"amuont"', "amount?"),
        (forbid("context.args has amuont && context.now == context.now"), "unknown-argument", "amuont", "amount?"),
        (forbid("context.args.amount > 5", "action"), "unknown-argument", "amount", "other actions"),
        (forbid('context.args.note == "x"'), "optional-unguarded", "note", "has note"),
        (forbid('principal is Agent && principal.region == "x"'), "optional-unguarded", "region", "has region"),
        (forbid('principal is Agent && principal has region && principal.regin == "x"'), "type", "regin", "region?"),
        (forbid("principal is Agent && principal has regoin"), "type", "regoin", "region?"),
        (forbid('context.args.amount > "5"'), "type", 'context.args.amount > "5"', "one type"),
        (forbid('true == true && context.args.price == "5.0"'), "type", 'context.args.price == "5.0"', "decimal("),
        (forbid('context.args.price == decimal("5.00000")'), "type", '"5.00000"', "literal"),
        (forbid("decimal(context.args.reason) == context.args.price"), "may-error", "decimal", "own type"),
        (forbid('[Tier::"golden"].contains(Tier::"gold")'), "type", '"golden"', "gold?"),
        (forbid("[].contains(1)"), "type", "[]", "isEmpty"),
        ('@id("f") forbid (principal is Agnt, action, resource);', "type", "Agnt", "Agent?"),
        ('@id("f") forbid (principal is Workflow, action, resource);', "never-applies", "Workflow", "Agent, User"),
        ('@id("f") forbid (principal, action == Action::"money", resource);', "never-applies", '"money"', "action in"),
    ],
)
def test_what_does_not_fit_the_schema_is_marked_and_has_a_next_step(policy: str, rule: str, at: str, fix: str) -> None:
    text = f"// refund amuont note\n{policy}"
    finding = only([each for each in found(text) if each.policy == "f"])
    assert (finding.rule, finding.severity) == (rule, "error")
    assert marked(finding, text) == at
    assert fix in finding.fix


def test_the_occurrence_that_cedar_means_is_marked_not_a_guarded_one() -> None:
    policy = forbid(
        '!(context.args has note && context.args.note == "x") && context.args.amount > 1 && context.args.note == "y"'
    )
    finding = only(found(policy))
    assert finding.rule == "optional-unguarded"
    assert policy[: finding.end_column - 1].endswith("amount > 1 && context.args.note")


def test_a_message_that_cedar_repeats_for_every_action_is_said_once() -> None:
    finding = only(found(forbid("context.args.missing == 1", 'action in Action::"activity"')))
    assert "export" in finding.message
    assert "refund" in finding.message


def test_a_misspelt_argument_behind_has_is_a_hole_that_cedar_does_not_see() -> None:
    policy = forbid("context.args has amuont && context.args.amount > 1")
    PolicyBundle.from_parts(policy, SCHEMA, strict=True)
    assert only(found(policy)).message == "context.args never has amuont"


# Rules about one policy


@pytest.mark.parametrize(
    "policy",
    [
        '@id("p") permit (principal, action, resource);',
        '@id("p") permit (principal, action, resource) when { true };',
        '@id("p") permit (principal, action, resource) unless { 1 > 2 };',
        '@id("p") permit (principal, action, resource is Workflow);',
        '@id("p") permit (principal, action in Action::"activity", resource);',
    ],
)
def test_a_permit_that_nothing_restricts_is_found(policy: str) -> None:
    finding = only(found(policy, all_permitted=False))
    assert (finding.rule, finding.severity) == ("unrestricted-permit", "error")
    assert marked(finding, policy) == "permit"


@pytest.mark.parametrize(
    "policy",
    [
        '@id("p") permit (principal in Role::"ops", action, resource);',
        '@id("p") permit (principal is Agent, action, resource);',
        '@id("p") permit (principal, action == Action::"refund", resource);',
        '@id("p") permit (principal, action in Action::"money", resource);',
        '@id("p") permit (principal, action, resource == Workflow::"w");',
        '@id("p") permit (principal, action, resource) when { context.run.workflow_type == "x" };',
        '@id("p") forbid (principal, action, resource);',
    ],
)
def test_a_restricted_permit_is_not_called_unrestricted(policy: str) -> None:
    assert "unrestricted-permit" not in rules(found(policy, all_permitted=False))


@pytest.mark.parametrize(
    ("condition", "at"),
    [
        ("false", "false"),
        ("1 > 2", "1 > 2"),
        ("context.args.amount > 5 && 1 == 2", "1 == 2"),
        ('context.args.amount > 5 && (true && "a" like "b*")', '"a" like "b*"'),
        ("context.args.amount > 5 && false && context.args.amount < 9", "false"),
        ("context.args.amount > 5 && context.args.amount < 3", "context.args.amount < 3"),
        ("5 < context.args.amount && 5 > context.args.amount", "5 > context.args.amount"),
        ('context.args.reason == "a" && context.args.reason == "b"', 'context.args.reason == "b"'),
        (
            'context.args.price.lessThan(decimal("1.0")) && context.args.price.greaterThanOrEqual(decimal("1.0"))',
            'context.args.price.greaterThanOrEqual(decimal("1.0"))',
        ),
        ("9223372036854775807 + 1 > 0", "9223372036854775807 + 1 > 0"),
    ],
)
def test_a_condition_that_nothing_meets_is_found(condition: str, at: str) -> None:
    policy = forbid(condition)
    finding = only(found(policy))
    assert (finding.rule, finding.severity) == ("never-applies", "error")
    assert marked(finding, policy) == at
    assert "hole" in finding.message


@pytest.mark.parametrize(
    "condition",
    [
        "context.args.amount > 5 && context.args.amount < 7",
        "context.args.amount >= 5 && context.args.amount <= 5",
        "context.args.amount > 5 || context.args.amount < 3",
        'context.args.reason == "a" || context.args.reason == "b"',
        'context.args.price.lessThanOrEqual(decimal("1.0")) && context.args.price.greaterThanOrEqual(decimal("1.0"))',
        "context.args.amount != 5 && context.args.amount != 6",
        "!(context.args.amount > 5)} unless { context.args.amount < 3",
    ],
)
def test_a_condition_that_something_meets_is_left_alone(condition: str) -> None:
    assert found(forbid(condition)) == []


def test_arithmetic_with_an_argument_may_overflow_and_with_a_count_of_the_gate_does_not() -> None:
    policy = forbid("context.args.amount * 2 > 5")
    finding = only(found(policy))
    assert (finding.rule, finding.severity, marked(finding, policy)) == ("may-overflow", "warning", "amount")
    assert rules(found(forbid("context.activity.attempt * 2 > 5"), None)).count("may-overflow") == 0


@pytest.mark.parametrize(
    ("annotation", "entities", "message"),
    [
        ("ops, 2, 24h", ENTITIES, None),
        ("Role::ops, 2, 24h", ENTITIES, None),
        ("User::ops, 2, 24h", ENTITIES, "no User::ops"),
        ("ops", ENTITIES, "3"),
        ("ops, 0, 24h", ENTITIES, "0 people"),
        ("ops, 2, soon", ENTITIES, "time"),
        ("finance, 1, 1h", ENTITIES, "no finance"),
        ("ops, 3, 24h", ENTITIES, "takes 3 of ops, and 2 are in it"),
        ("ops, 1, 24h", [entity("Role", "ops"), entity("Role", "deputies", "ops")], "nobody is in it"),
        ("ops, 1, 24h", [entity("Role", "ops"), entity("Role", "d", "ops"), entity("User", "a", "d")], None),
        ("ops, 1, 24h", None, "without entities.json"),
    ],
)
def test_an_approval_that_nobody_can_give_is_found(annotation: str, entities: Any, message: str | None) -> None:
    policy = forbid("context.args.amount > 5").replace("forbid", f'@approval("{annotation}") forbid')
    findings = [each for each in found(policy, entities=entities) if each.rule == "approval"]
    if message is None:
        assert findings == []
    else:
        finding = only(findings)
        assert message in finding.message
        assert marked(finding, policy) == f'"{annotation}"'


def test_a_ttl_that_a_worker_refuses_is_found_and_others_are_not() -> None:
    for text, wrong in (
        ("30s", False),
        ("5m", False),
        ("1h", False),
        ("1d", True),
        ("0s", True),
        ("", True),
        ("5 m", True),
    ):
        policy = forbid("context.args.amount > 5").replace("forbid", f'@ttl("{text}") forbid')
        assert ("ttl" in rules(found(policy))) is wrong
        if wrong:
            with pytest.raises(PolicyError):
                PolicyBundle.from_parts(policy, SCHEMA, strict=True)


def test_a_template_and_a_policy_without_id_are_found() -> None:
    findings = found('permit (principal == ?principal, action == Action::"refund", resource);')
    assert sorted(rules(findings)) == ["missing-id", "template"]
    assert "?principal" in next(each.message for each in findings if each.rule == "template")


def test_a_role_that_the_entities_lack_is_found_and_a_principal_is_not() -> None:
    policy = '@id("p") permit (principal in Role::"opps", action == Action::"refund", resource);'
    finding = only(found(policy))
    assert (finding.rule, finding.severity, marked(finding, policy)) == ("role-unknown", "warning", '"opps"')
    assert 'Role::"ops"' in finding.fix
    assert "role-unknown" not in rules(found(policy, entities=None))
    assert "role-unknown" not in rules(found(policy, entities=[entity("User", "ada")]))
    assert found('@id("p") permit (principal == User::"zoe", action == Action::"refund", resource);') == []


# Without a schema


@pytest.mark.parametrize(
    ("condition", "unguarded"),
    [
        ('principal.region == "x"', "principal.region"),
        ('principal has region && principal.region == "x"', None),
        ('principal.region == "x" && principal has region', "principal.region"),
        ('principal has home && principal.home.city == "x"', "principal.home.city"),
        ('principal has home.city && principal.home.city == "x"', None),
        ('!(principal has region) || principal.region == "x"', None),
        ('if principal has region then principal.region == "x" else false', None),
        ('if principal has region then true else principal.region == "x"', "principal.region"),
        ('principal has region || principal.region == "x"', "principal.region"),
        ("context.behavior.last_hour > 5", "context.behavior"),
        ("context has behavior && context.behavior has last_hour && context.behavior.last_hour > 5", None),
        ('context.args.anything == 1 && context.run.workflow_type == "x" && context.worker.id == "y"', None),
        ("context.run.nothing == 1", "context.run.nothing"),
        ('principal.hasTag("a") && principal.getTag("a") == 1', None),
        ('principal.getTag("a") == 1', "a tag of principal"),
        ('principal has region} unless {principal.region == "x"', None),
        ('true} unless {!(principal has region) || principal.region == "x"', None),
    ],
)
def test_what_may_be_absent_must_be_asked_for_without_a_schema_too(condition: str, unguarded: str | None) -> None:
    findings = [each for each in found(forbid(condition), None) if each.rule == "optional-unguarded"]
    if unguarded is None:
        assert findings == []
    else:
        finding = only(findings)
        assert finding.message.startswith(f"{unguarded} may be absent")
        assert finding.severity == "error"
        assert "hole" in finding.message


def test_an_unguarded_permit_without_a_schema_is_a_warning() -> None:
    policy = forbid('principal.region == "x"').replace("forbid", "permit")
    finding = only([each for each in found(policy, None) if each.rule == "optional-unguarded"])
    assert finding.severity == "warning"
    assert marked(finding, policy) == "region"


def test_a_constructor_of_something_else_than_a_literal_may_fail() -> None:
    policy = forbid("ip(context.args.address).isLoopback()")
    finding = only([each for each in found(policy, None) if each.rule == "may-error"])
    assert (finding.severity, marked(finding, policy)) == ("warning", "address")


def test_a_policy_for_all_actions_that_reads_arguments_fails_on_a_start() -> None:
    findings = [
        each for each in found(forbid("context.args.amount > 5", "action"), None) if each.rule == "optional-unguarded"
    ]
    assert "a start of a workflow has none" in only(findings).message


def test_a_bundle_without_a_schema_is_said_to_be_unchecked() -> None:
    assert rules(found("", None)) == ["no-schema"]


# Rules about policies together


def test_ids_that_two_policies_share_are_found_at_the_second_one() -> None:
    text = REFUNDS + REFUNDS.replace('"ops"', '"dev"')
    finding = next(each for each in found(text, entities=None, all_permitted=False) if each.rule == "duplicate-id")
    assert (finding.line, marked(finding, text)) == (2, '"refunds"')
    assert "p.cedar:1:1" in finding.message


def test_an_id_that_is_the_position_of_another_policy_is_found() -> None:
    text = '@id("policy1") permit (principal is User, action == Action::"refund", resource);\n'
    text += 'permit (principal is Agent, action == Action::"refund", resource);'
    findings = found(text)
    assert "shadowed-id" in rules(findings)
    with pytest.raises(PolicyError):
        PolicyBundle.from_parts(text, SCHEMA, strict=True)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ('permit (principal, action == Action::"refund", resource) when { context.args.amount < 5 };',) * 2,
        (
            'permit (principal in Role::"ops", action == Action::"refund", resource);',
            'permit (principal in Role::"ops", action == Action::"refund", resource) when { context.args.amount < 5 };',
        ),
        (
            'permit (principal in Role::"ops", action in Action::"money", resource);',
            'permit (principal == User::"ada", action == Action::"refund", resource == Workflow::"w");',
        ),
        (
            'permit (principal is User, action, resource) when { context.run.workflow_type == "a" };',
            'permit (principal is User in Role::"ops", action == Action::"refund", resource) '
            'when { context.args.amount < 5 && context.run.workflow_type == "a" };',
        ),
        (
            'forbid (principal, action in [Action::"refund", Action::"export"], resource) '
            'when { context.run.workflow_type == "a" };',
            'forbid (principal, action == Action::"export", resource) when { context.run.workflow_type == "a" };',
        ),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_policy_that_another_one_makes_superfluous_is_found(wide: str, narrow: str, turned: bool) -> None:
    pair = [f'@id("wide") {wide}', f'@id("narrow") {narrow}']
    findings = [
        each
        for each in found("\n".join(reversed(pair) if turned else pair), all_permitted=False)
        if each.rule == "shadowed"
    ]
    finding = only(findings)
    if wide == narrow:
        assert finding.line == 2
    else:
        assert finding.policy == "narrow"
        assert "wide (p.cedar" in finding.message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            'permit (principal in Role::"ops", action == Action::"refund", resource);',
            'permit (principal in Role::"dev", action == Action::"refund", resource);',
        ),
        (
            'permit (principal, action == Action::"refund", resource) when { context.args.amount < 5 };',
            'permit (principal, action == Action::"refund", resource) when { context.args.amount < 6 };',
        ),
        (
            'permit (principal in Role::"ops", action == Action::"refund", resource);',
            '@ttl("5s") permit (principal == User::"ada", action == Action::"refund", resource);',
        ),
        (
            'permit (principal in Role::"ops", action == Action::"refund", resource);',
            'forbid (principal == User::"ada", action == Action::"refund", resource);',
        ),
        (
            'permit (principal == User::"ada", action == Action::"refund", resource);',
            'permit (principal is User, action == Action::"export", resource);',
        ),
    ],
)
def test_policies_that_each_make_a_difference_are_left_alone(one: str, other: str) -> None:
    findings = found(f'@id("one") {one}\n@id("other") {other}', entities=None, all_permitted=False)
    assert "shadowed" not in rules(findings)


def test_a_permit_that_a_forbid_always_overrules_is_found() -> None:
    text = '@id("never") permit (principal == User::"ada", action == Action::"refund", resource) '
    text += "when { context.args.amount < 5 };\n"
    text += '@id("stop") forbid (principal in Role::"ops", action in Action::"money", resource);'
    finding = only([each for each in found(text, all_permitted=False) if each.rule == "shadowed"])
    assert finding.policy == "never"
    assert "stop (p.cedar:2:1) forbids all of it" in finding.message


def test_an_activity_that_nobody_may_run_is_found_in_the_schema() -> None:
    finding = only(found(REFUNDS, all_permitted=False))
    assert (finding.rule, finding.severity, finding.file) == ("unused-action", "warning", "s.cedarschema")
    assert marked(finding, SCHEMA) == "export"
    never = '@id("n") permit (principal, action == Action::"export", resource) when { false };'
    assert "unused-action" in rules(found(REFUNDS + never, all_permitted=False))
    users = '@id("n") permit (principal is User, action, resource) when { context.run.workflow_type == "x" };'
    assert "unused-action" in rules(found(REFUNDS + users, all_permitted=False))
    meant = '@id("n") forbid (principal, action == Action::"export", resource);'
    assert found(REFUNDS + meant, all_permitted=False) == []


# Comments that allow (K4)


@pytest.mark.parametrize(
    "text",
    [
        '// exequatur: allow unrestricted-permit\n@id("p") permit (principal, action, resource);',
        "// why\n// exequatur: allow missing-id, unrestricted-permit (in development)\n\n"
        '@id("p")\npermit (principal, action, resource);',
        '@id("p") permit (principal, action, resource); // exequatur: allow unrestricted-permit',
        '@id("p")\npermit (\n  principal, // exequatur: allow unrestricted-permit -- for now\n  action, resource);',
    ],
)
@pytest.mark.rule("check.K4")
def test_a_comment_exempts_its_policy_from_a_rule(text: str) -> None:
    assert found(text, all_permitted=False) == []


@pytest.mark.rule("check.K4")
def test_a_comment_exempts_no_other_policy_and_from_no_other_rule() -> None:
    text = '// exequatur: allow unrestricted-permit\n@id("p") permit (principal, action, resource);\n'
    text += "permit (principal, action, resource);"
    assert sorted(rules(found(text, all_permitted=False))) == ["missing-id", "shadowed", "unrestricted-permit"]
    text = "// exequatur: allow unrestricted-permit\npermit (principal, action, resource);"
    assert rules(found(text, all_permitted=False)) == ["missing-id"]


@pytest.mark.parametrize(
    ("comment", "fix"),
    [
        ("// exequatur: allow unrestricted-permits", "unrestricted-permit?"),
        ("// exequatur: allow type", "correct"),
        ("// exequatur: allow", "allow RULE"),
        ("// exequatur: ignore missing-id", "allow RULE"),
    ],
)
@pytest.mark.rule("check.K4")
def test_a_comment_that_names_no_rule_is_a_finding(comment: str, fix: str) -> None:
    finding = only(found(f"{comment}\n"))
    assert (finding.rule, finding.line) == ("unknown-rule", 1)
    assert fix in finding.fix


def test_a_comment_behind_all_policies_is_a_finding() -> None:
    assert rules(found(EXPORTS + REFUNDS + "\n// exequatur: allow missing-id\n", all_permitted=False)) == [
        "unknown-rule"
    ]


@pytest.mark.rule("check.K2")
def test_what_a_worker_refuses_cannot_be_allowed() -> None:
    text = "// exequatur: allow never-applies, optional-unguarded\n"
    for policy in ('@id("f") forbid (principal is Workflow, action, resource);', forbid('context.args.note == "x"')):
        finding = only(found(text + policy))
        assert finding.severity == "error"
        assert finding.rule in {"never-applies", "optional-unguarded"}


def test_a_text_in_a_string_is_no_comment() -> None:
    text = '@id("// exequatur: allow unrestricted-permit") permit (principal, action, resource);'
    assert rules(found(text, all_permitted=False)) == ["unrestricted-permit"]


# Schema and entities


@pytest.mark.parametrize(
    ("schema", "at", "fix"),
    [
        ("entyty A;", "entyty", ""),
        ("entity A in [Agnet]; entity Agent;", "Agnet", "Agent?"),
        ("entity A { x: Strng };", "Strng", "String?"),
        ("entity A; entity A;", "A", "remove"),
        ("action a in [b];", "b", "declare"),
        ("entity A { x: Long, x: String };", "x", "remove"),
        ("entity A { x: Long", "", ""),
    ],
)
def test_a_schema_that_cedar_refuses_is_marked(schema: str, at: str, fix: str) -> None:
    finding = next(
        each for each in found("", f"// A b x\n{schema}", None, all_permitted=False) if each.rule == "schema"
    )
    assert finding.line == 2
    assert marked(finding, f"// A b x\n{schema}") == at
    assert fix in finding.fix


def test_types_that_mean_each_other_are_found() -> None:
    finding = next(each for each in found("", "type T = U;\ntype U = T;", all_permitted=False) if each.rule == "schema")
    assert finding.message.startswith("cycle")
    assert finding.column == 6


def test_every_type_that_the_schema_lacks_is_found() -> None:
    findings = found("", "action a appliesTo { principal: X, resource: Y };", None, all_permitted=False)
    assert [each.column for each in findings if each.rule == "schema"] == [33, 46]


def test_a_schema_in_json_is_checked_too() -> None:
    broken = '{\n "": {"entityTypes": {"A": {"shapes": 1}}, "actions": {}}}'
    finding = next(each for each in found("", broken, None, all_permitted=False) if each.rule == "schema")
    assert finding.line == 2
    assert "shapes" in finding.message
    assert next(e for e in found("", "{", None, all_permitted=False) if e.rule == "schema").line == 1


@pytest.mark.parametrize(
    ("entities", "line", "at", "message"),
    [
        ('[\n {"uid": }\n]', 2, "}", "JSON"),
        ("[\n {},\n]", 3, "]", "another entity"),
        ("[] []", 1, "[", "follows"),
        ("{}", 1, "{", "no list"),
        ("", 1, "", "JSON"),
        ("[NaN]", 1, "[", "NaN"),
        ('[\n {"uid": {"type": "Role"}}\n]', 2, '{"uid": {"type": "Role"}}', "entity reference"),
        ("[\n 1\n]", 2, "1", "no uid"),
        (
            '[{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": []},\n'
            ' {"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": []}]',
            2,
            '{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": []}',
            "already on line 1",
        ),
        ('[\n {"uid": {"type": "Rol", "id": "a"}, "attrs": {}, "parents": []}]', 2, '"type"', "no entity type Rol"),
        (
            '[\n {"uid": {"type": "Agent", "id": "a"}, "attrs": {"regoin": "x"}, "parents": []}]',
            2,
            '"regoin"',
            "regoin",
        ),
        ('[\n {"uid": {"type": "Agent", "id": "a"}, "attrs": {"region": 1}, "parents": []}]', 2, '"region"', "Long"),
        (
            '[\n {"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": [{"type": "User", "id": "u"}]}]',
            2,
            '"u"',
            "cannot be in",
        ),
        (
            '[\n {"uid": {"type": "Tier", "id": "golden"}, "attrs": {}, "parents": []}]',
            2,
            '"id"',
            "not one of its type",
        ),
        (
            '[{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": [{"type": "Role", "id": "b"}]},\n'
            ' {"uid": {"type": "Role", "id": "b"}, "attrs": {}, "parents": [{"type": "Role", "id": "a"}]}]',
            1,
            '{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": [{"type": "Role", "id": "b"}]}',
            "in each other",
        ),
    ],
)
def test_entities_that_are_wrong_are_marked(entities: str, line: int, at: str, message: str) -> None:
    finding = next(each for each in found("", entities=entities) if each.rule == "entities")
    assert (finding.line, finding.file) == (line, "entities.json")
    assert marked(finding, entities).startswith(at) if at else finding.column == 1
    assert message in finding.message


def test_entities_are_nested_and_circular_without_end() -> None:
    for text in ("[" * 100_000, '[{"uid": ' + '{"a": ' * 50_000):
        assert "entities" in rules(found("", entities=text))
    chain = [entity("Role", f"r{index}", f"r{index + 1}") for index in range(2000)] + [entity("Role", "r2000", "r0")]
    assert "in each other" in next(each.message for each in found("", entities=chain) if each.rule == "entities")


# Folders


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text)
    return folder


def in_folder(folder: Path) -> list[tuple[str, str]]:
    return [(each.rule, Path(each.file).name) for each in check_folder(folder).findings]


def test_a_folder_without_policies_is_an_error(tmp_path: Path) -> None:
    assert in_folder(tmp_path) == [("no-policies", tmp_path.name)]
    assert check_folder(tmp_path).errors == 1
    assert in_folder(write(tmp_path, a__cedar="// nothing")) == [("no-policies", "a.cedar"), ("no-schema", "a.cedar")]
    assert check_folder(tmp_path).errors == 0


def test_a_subfolder_with_a_schema_is_a_bundle_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, a__cedar=EXPORTS + REFUNDS, schema__cedarschema=SCHEMA)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", b__cedar="permit", schema__cedarschema=SCHEMA)
    assert in_folder(tmp_path) == []


def test_files_that_nobody_reads_are_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__cedar=EXPORTS,
        b__cedar__txt="",
        c__CEDAR="",
        old__cedarschema="",
        Entities__json="[]",
        README__md="",
        notes__txt="",
    )
    for name in ("sub", "tests"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, x__cedar="")
    ignored = [name for rule, name in in_folder(tmp_path) if rule == "file-ignored"]
    assert sorted(ignored) == ["Entities.json", "b.cedar.txt", "c.CEDAR", "old.cedarschema", "x.cedar"]


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path, a__cedar="permit")
    (tmp_path / "b.cedar").write_bytes(b"// caf\xe9\n")
    (tmp_path / "c.cedar").mkdir()
    os.mkfifo(tmp_path / "d.cedar")
    (tmp_path / "e.cedar").write_bytes(b"permit(principal, action, resource);\0")
    found_rules = in_folder(tmp_path)
    assert {("syntax", "a.cedar"), ("syntax", "e.cedar")} <= set(found_rules)
    assert [name for rule, name in found_rules if rule == "unreadable"] == ["b.cedar", "c.cedar", "d.cedar"]
    latin = next(each for each in check_folder(tmp_path).findings if each.file.endswith("b.cedar"))
    assert (latin.line, latin.column) == (1, 7)


def test_two_schemas_and_a_broken_fragment_are_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__cedar=EXPORTS + REFUNDS,
        schema__cedarschema=SCHEMA,
        schema__cedarschema__json="{}",
        model__cedarschema="entity A in [Elsewhere];\nentity;",
    )
    findings = check_folder(tmp_path).findings
    assert [(each.rule, each.line) for each in findings] == [("schema", 2), ("schema", 1)]


def test_a_missing_folder_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        check_folder(tmp_path / "nowhere")
    with pytest.raises(PolicyError, match="not a folder"):
        check(write(tmp_path, a__cedar="") / "a.cedar")


@pytest.mark.rule("check.K3")
def test_a_bundle_that_is_too_large_is_found_without_being_parsed() -> None:
    source = BundleSource((SourceFile("a.cedar", "//" + "x" * 17_000_000),))
    assert rules(check(source)) == ["unreadable"]
    assert rules(check(BundleSource((SourceFile("a.cedar", "\ud800"),)))) == ["unreadable"]


# Whatever comes (K2, K3)

_WORKING = (ROOT / "policies" / "personal-data.cedar").read_text() + (ROOT / "policies" / "refunds.cedar").read_text()
_REFERENCE = read_folder(ROOT / "policies")
_PIECES = st.one_of(
    st.sampled_from(list(';"(){}[]!@\\.-?&|/:\0\né\ufeff\U0001f600')),
    st.sampled_from(["", "&&", "||", "::", "//", "\r\n", "when", "unless", "permit", "has", "in", "is", "like", "if"]),
    st.sampled_from(["principal", "context.args", "Action::", "true", "decimal", "9" * 20, "// exequatur: allow x\n"]),
)


def within(checked: Checked) -> None:
    for each in checked.findings:
        assert each.rule in RULES
        assert each.message
        assert each.end_column > each.column >= 1
        if each.file in checked.texts:
            lines = checked.texts[each.file].text.split("\n")
            assert 1 <= each.line <= len(lines)
            assert each.column <= len(lines[each.line - 1]) + 1
    assert list(checked.findings) == sorted(checked.findings, key=lambda each: each.order)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + draw(st.one_of(_PIECES, st.just(text[end : end + 40]))) + text[end:]
    return text


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated(_WORKING), st.booleans())
def test_whatever_policies_become_findings_lie_within_and_no_error_means_that_a_worker_loads(
    text: str, with_schema: bool
) -> None:
    schema = _REFERENCE.schema if with_schema else None
    source = BundleSource((SourceFile("p.cedar", text),), schema, _REFERENCE.entities)
    checked = check_source(source)
    within(checked)
    refused = any(each.binding and each.severity == "error" for each in checked.findings)
    try:
        PolicyBundle(source)
    except PolicyError:
        assert refused
    except RecursionError:
        assert refused


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_schema_and_entities_become_findings_lie_within(data: st.DataObject) -> None:
    assert _REFERENCE.schema is not None
    assert _REFERENCE.entities is not None
    schema = SourceFile("s", data.draw(mutated(_REFERENCE.schema.text)))
    entities = SourceFile("e", data.draw(mutated(_REFERENCE.entities.text)))
    within(check_source(BundleSource((SourceFile("p.cedar", _WORKING),), schema, entities)))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.one_of(st.none(), st.text(max_size=60)), st.one_of(st.none(), st.text(max_size=60)))
def test_any_text_is_checked(policies: str, schema: str | None, entities: str | None) -> None:
    files = [SourceFile(name, text) if text is not None else None for name, text in (("s", schema), ("e", entities))]
    within(check_source(BundleSource((SourceFile("p.cedar", policies),), *files)))


@pytest.mark.rule("check.K2")
def test_an_error_that_no_other_rule_finds_is_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(each.rule != "refused" for each in found(forbid("context.args.amount > 1")))
    many = "\n".join(EXPORTS.replace("exports", f"e{index}") for index in range(300))
    assert {each.rule for each in found(many)} == {"shadowed"}

    def refuses(source: BundleSource) -> None:
        raise PolicyError("only a worker knows why")

    monkeypatch.setattr(module, "PolicyBundle", refuses)
    refused = only(found(forbid("context.args.amount > 1")))
    assert (refused.rule, refused.severity) == ("refused", "error")
    assert "only a worker knows why" in refused.message


@pytest.mark.parametrize(
    ("condition", "fix"),
    [
        ("context.args.price > 500.0", 'Cedar has no fractions: write .greaterThan(decimal("500.0"))'),
        ("context.args.price <= -0.5", 'Cedar has no fractions: write .lessThanOrEqual(decimal("-0.5"))'),
        ("context.args.price == 1.5", 'Cedar has no fractions: write == decimal("1.5")'),
        ("context.args.price == decimal(500.00)", 'Cedar has no fractions: write decimal("500.00")'),
        ("contxt.args.amount > 5", "did you mean context?"),
        ("context.amount > 5", "write context.args.amount"),
        ("context has amount", "write context.args has amount"),
    ],
)
def test_what_newcomers_write_has_a_next_step(condition: str, fix: str) -> None:
    text = f'@id("p") permit (principal, action == Action::"refund", resource) when {{ {condition} }};'
    assert fix in {each.fix for each in found(text)}


@pytest.mark.parametrize(
    ("scope", "word"),
    [
        ("principal action, resource", "action"),
        ('principal, action == Action::"refund" resource', "resource"),
        ('principal, action in [Action::"money"] resource', "resource"),
    ],
)
def test_a_comma_that_is_missing_in_the_scope_is_named(scope: str, word: str) -> None:
    assert f"a comma is missing before {word}" in {each.fix for each in found(f'@id("p") permit ({scope});')}


def test_a_string_without_its_end_is_marked_where_it_begins() -> None:
    text = '// it\'s "ours\n@id("a") permit (principal in Role::"ops,\n  action, resource);\n' + EXPORTS
    finding = next(each for each in found(text) if each.rule == "syntax")
    assert (finding.line, finding.column) == (2, 37)
    assert finding.fix == "end the string with a double quote"
    with pytest.raises(PolicyError, match=r"p\.cedar:2:37"):
        PolicyBundle(BundleSource((SourceFile("p.cedar", text),)))


def test_an_annotation_that_is_almost_one_of_the_gates_is_named_and_others_are_free() -> None:
    for name, meant in (("tll", "ttl"), ("reson", "reason"), ("aproval", "approval"), ("ID", "id")):
        finding = only([each for each in found(f'@{name}("x")\n{REFUNDS}') if each.rule == "unknown-annotation"])
        assert (finding.fix, finding.line, finding.column) == (f"did you mean @{meant}?", 1, 2)
    for name in ("title", "owner", "ad", "doc", "ticket"):
        assert found(f'@{name}("x")\n{REFUNDS}{EXPORTS}', all_permitted=False) == []


def test_a_parent_that_the_entities_do_not_have_is_named() -> None:
    finding = only(found("", entities=[*ENTITIES, entity("User", "eve", "opps")]))
    assert (finding.rule, finding.severity, finding.fix) == ("role-unknown", "warning", 'did you mean Role::"ops"?')
    assert found("", entities=None) == []


def test_every_finding_about_json_and_the_schema_has_a_next_step() -> None:
    for entities in ("", "{", "[", "[1]", '[{"uid": "x"}]', '[{"a" 1}]', '["x]', "[" * 50_000, "{}", "[] []"):
        assert all(each.fix for each in found("", entities=entities) if each.rule == "entities"), entities
    bare = only(found("", entities='[{"uid": {"type": "User", "id": "a"}}]', all_permitted=False)[:1])
    assert (bare.message, bare.fix) == ('User::"a": attrs and parents are missing', 'write "attrs": {}, "parents": []')
    for schema, fix in (
        ("entity User", "end the declaration with a semicolon"),
        ("entity User = { a String };", "a colon is missing before String"),
        ("action a appliesTo { principal: [User] resource: [User] };", "a comma is missing before resource"),
        ('entity "x";', "write the name without quotes"),
        ("permit (principal, action, resource);", "write policies into a file that ends in .cedar"),
        ("{", "correct the JSON here"),
    ):
        assert fix in {each.fix for each in found("", schema=schema)}, schema
