"""Bundles: what is refused and how the refusal reads, annotations, action groups, the vouched principal."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import PolicyError
from exequatur.policy import source
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.nesting import too_deep
from exequatur.policy.syntax import tokens

PERMIT = '@id("all")\npermit(principal, action, resource);\n'
GROUP = '@id("money")\npermit(principal, action in [Action::"money"], resource);\n'
SCHEMA = """
entity Role;
entity User in [Role] { level: Long };
entity Workflow;
action "everything";
action "money" in ["everything"];
action "charge" in ["money"] appliesTo {
  principal: [User], resource: [Workflow], context: { args: { amount: Long } }
};
"""
USER = {"type": "User", "id": "ada"}
CHARGE = {"type": "Action", "id": "charge"}
WORKFLOW = {"type": "Workflow", "id": "w"}


def allowed(bundle: PolicyBundle, principal_entity: dict[str, Any] | None = None, **context: Any) -> bool:
    return bundle.evaluate(USER, CHARGE, WORKFLOW, context, principal_entity=principal_entity).allowed


def entity(kind: str, name: str, *parents: tuple[str, str], **attrs: Any) -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attrs,
        "parents": [{"type": parent, "id": parent_id} for parent, parent_id in parents],
    }


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        PolicyBundle.from_folder(folder)
    return str(caught.value)


@pytest.mark.rule("bundle.B1")
def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, b__cedar='@id("b") permit(principal, action, resource); // no newline', a__cedar=PERMIT)
    (tmp_path / ".hidden.cedar").write_text("not Cedar")
    bundle = PolicyBundle.from_folder(tmp_path)
    assert [info.id for info in bundle.policies.values()] == ["all", "b"]


def test_a_missing_folder_is_refused_with_the_next_step(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "nowhere does not exist" in message
    assert "*.cedar" in message


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(write(tmp_path, x="") / "x")


def test_a_folder_without_policies_is_refused(tmp_path: Path) -> None:
    assert "no *.cedar file" in refusal(tmp_path)


@pytest.mark.rule("bundle.B1")
def test_a_policy_that_does_not_parse_is_refused_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, a__cedar=PERMIT, b__cedar='// a ; "comment\n' + PERMIT + "\npermit(principal action, resource);")
    assert "b.cedar:5:18: Cedar cannot parse this policy: unexpected token `action`" in refusal(tmp_path)


@pytest.mark.rule("bundle.B1")
def test_two_files_that_only_parse_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path, a__cedar="permit(principal,", b__cedar="action, resource);")
    assert "a.cedar:1:" in refusal(tmp_path)


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_bytes(b"// fine\n// \xff\n")
    assert "a.cedar:2: not valid UTF-8" in refusal(tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").mkdir()
    assert "a.cedar is not a regular file" in refusal(tmp_path)


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").symlink_to(tmp_path / "gone")
    assert "a.cedar is not a regular file" in refusal(tmp_path)


@pytest.mark.rule("bundle.B2")
def test_a_policy_that_does_not_validate_is_refused_with_file_and_line(tmp_path: Path) -> None:
    bad = PERMIT + "\npermit(principal, action, resource)\nwhen { context.args.amuont > 3 };"
    write(tmp_path, a__cedar='@id("first") permit(principal, action, resource);', b__cedar=bad)
    write(tmp_path, schema__cedarschema=SCHEMA)
    message = refusal(tmp_path)
    assert "b.cedar:4:1: attribute `args.amuont`" in message


def test_a_bad_schema_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, a__cedar=PERMIT, schema__cedarschema="entity User in [Rolle];")
    assert "schema.cedarschema: Cedar refuses the schema: failed to resolve type: Rolle" in refusal(tmp_path)


def test_two_schemas_are_refused(tmp_path: Path) -> None:
    write(tmp_path, a__cedar=PERMIT, schema__cedarschema=SCHEMA, schema__cedarschema__json="{}")
    assert "both schema.cedarschema and schema.cedarschema.json" in refusal(tmp_path)


def test_a_json_schema_is_read(tmp_path: Path) -> None:
    schema = {
        "": {
            "entityTypes": {"U": {}},
            "actions": {"a": {"appliesTo": {"principalTypes": ["U"], "resourceTypes": ["U"]}}},
        }
    }
    write(tmp_path, a__cedar=PERMIT, schema__cedarschema__json=json.dumps(schema))
    assert not any("schema" in warning for warning in PolicyBundle.from_folder(tmp_path).warnings)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "entities.json is not JSON"),
        ("{}", "must be a JSON list"),
        ("[3]", 'entity 1: has no "uid"'),
        ('[{"uid": {"type": "User"}}]', 'entity 1: has no "uid"'),
        (json.dumps([entity("User", "ada", level="high")]), 'User::"ada": entity does not conform'),
        (json.dumps([entity("Robot", "r2")]), 'Robot::"r2"'),
        (json.dumps([entity("User", "ada", level=1)] * 2), 'User::"ada" is defined twice'),
    ],
)
@pytest.mark.rule("bundle.B2")
def test_bad_entities_are_refused_by_file_and_entity(tmp_path: Path, text: str, reason: str) -> None:
    message = refusal(write(tmp_path, a__cedar=PERMIT, schema__cedarschema=SCHEMA, entities__json=text))
    assert "entities.json" in message
    assert reason in message


def test_an_oversized_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_BUNDLE_BYTES", 100)
    write(tmp_path, a__cedar=PERMIT, b__cedar="//" + "x" * 100)
    assert "larger than" in refusal(tmp_path)
    assert "b.cedar" in refusal(tmp_path)
    with pytest.raises(PolicyError, match="larger than"):
        PolicyBundle.from_parts("//" + "x" * 100)


@pytest.mark.rule("bundle.B3")
def test_two_policies_with_one_id_are_refused(tmp_path: Path) -> None:
    write(tmp_path, a__cedar=PERMIT, b__cedar="\n" + PERMIT)
    message = refusal(tmp_path)
    assert "b.cedar:2:1" in message
    assert '@id("all") is already the name of' in message


def test_an_id_that_looks_like_the_position_of_another_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="already the name"):
        PolicyBundle.from_parts(PERMIT.replace("all", "policy1") + "permit(principal, action, resource);", strict=True)


def test_a_condition_too_deep_to_be_analysed_is_refused() -> None:
    deep = " || ".join(["context.args.a == 1"] * 150)
    with pytest.raises(PolicyError, match="nesting"):
        PolicyBundle.from_parts(f"permit(principal, action, resource) when {{ {deep} }};", strict=True)


DEEP = " || ".join(['context.args.a == "1"'] * 150)
UNFIT = [
    (PERMIT + PERMIT, "already the name"),
    (PERMIT.replace("all", ""), None),
    ('@ttl("soon")' + PERMIT, "is no duration"),
    (PERMIT.replace(";", " when { context.args.amuont > 3 };"), "attribute `args.amuont`"),
    (PERMIT.replace(";", " when { true || ip(3, 4).isIpv4() };"), "expects 1 argument"),
    (PERMIT.replace(";", f" when {{ true || {DEEP} }};"), "Split the condition"),
]


@pytest.mark.parametrize(("policies", "fault"), UNFIT)
def test_parts_that_cedar_accepts_are_evaluated_and_their_fault_is_known(policies: str, fault: str | None) -> None:
    bundle = PolicyBundle.from_parts(policies, SCHEMA, [entity("User", "ada", level=1)])
    decision = bundle.evaluate(USER, CHARGE, WORKFLOW, {"args": {"amount": 4, "amuont": 4, "a": "1"}})
    assert decision.allowed
    assert decision.reasons[0] == "policy0"
    if fault is None:
        assert bundle.fault is None
    else:
        assert fault in str(bundle.fault)


@pytest.mark.parametrize(("policies", "fault"), [each for each in UNFIT if each[1]])
@pytest.mark.rule("bundle.B3")
def test_a_folder_with_policies_that_only_cedar_accepts_is_refused(tmp_path: Path, policies: str, fault: str) -> None:
    message = refusal(write(tmp_path, a__cedar=policies, schema__cedarschema=SCHEMA))
    assert "a.cedar:" in message
    assert fault in message
    with pytest.raises(PolicyError, match=r"policies:\d+:\d+: "):
        PolicyBundle.from_parts(policies, SCHEMA, strict=True)


def test_parts_may_define_an_entity_twice_in_the_same_way_as_for_cedar() -> None:
    ada = entity("User", "ada", ("Role", "ops"))
    ops = '@id("x") permit(principal in Role::"ops", action, resource);'
    ada["parents"][0]["comment"] = "Cedar does not read this"
    assert allowed(PolicyBundle.from_parts(ops, None, [ada, ada]))
    with pytest.raises(PolicyError, match="defined twice"):
        PolicyBundle.from_parts(ops, None, [ada, entity("User", "ada")])
    with pytest.raises(PolicyError, match="defined twice"):
        PolicyBundle.from_parts(ops, None, [ada, ada], strict=True)


@pytest.mark.parametrize(
    ("policies", "schema", "entities"),
    [
        ("permit(", None, None),
        (PERMIT, "entity User in [Rolle];", None),
        (PERMIT, SCHEMA, [entity("User", "ada", level="high")]),
        (PERMIT, None, [{"uid": "ada"}]),
        (PERMIT, None, [entity("User", "ada", level=float("nan"))]),
    ],
)
def test_parts_that_cedar_refuses_are_no_bundle(policies: str, schema: str | None, entities: Any) -> None:
    with pytest.raises(PolicyError):
        PolicyBundle.from_parts(policies, schema, entities)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600)])
def test_annotations_are_read(text: str, seconds: int) -> None:
    bundle = PolicyBundle.from_parts(
        f'@id("x") @reason("why") @ttl("{text}") @approval("two-eyes") forbid(principal, action, resource);'
    )
    (info,) = bundle.policies.values()
    assert (info.id, info.effect, info.reason, info.approval) == ("x", "forbid", "why", "two-eyes")
    assert info.ttl == datetime.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "5 m", "1d", "1h30m", "99999999999s", "٣s"])
@pytest.mark.rule("bundle.B3")
def test_a_bad_ttl_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="policies:1:1: @ttl"):
        PolicyBundle.from_parts(f'@id("x") @ttl("{text}") permit(principal, action, resource);', strict=True)


def test_what_is_probably_not_meant_is_a_warning() -> None:
    bundle = PolicyBundle.from_parts("permit(principal == ?principal, action, resource);")
    assert any("unvalidated" in warning for warning in bundle.warnings)
    assert any("no policies" in warning for warning in bundle.warnings)
    assert any("never linked" in warning for warning in bundle.warnings)
    assert any(
        "without @id" in item for item in PolicyBundle.from_parts("permit(principal, action, resource);").warnings
    )
    assert PolicyBundle.from_parts(PERMIT, SCHEMA).warnings == ()


def test_the_digest_covers_schema_policies_and_entities_and_nothing_else(tmp_path: Path) -> None:
    base = PolicyBundle.from_parts(PERMIT)
    digests = {
        base.digest,
        PolicyBundle.from_parts(PERMIT + " ").digest,
        PolicyBundle.from_parts(PERMIT, SCHEMA).digest,
        PolicyBundle.from_parts(PERMIT, SCHEMA + " ").digest,
        PolicyBundle.from_parts(PERMIT, None, [entity("User", "a")]).digest,
        PolicyBundle.from_parts(PERMIT, None, [entity("User", "b")]).digest,
    }
    assert len(digests) == 6
    assert PolicyBundle.from_folder(write(tmp_path, a__cedar=PERMIT)).digest == base.digest
    write(tmp_path, entities__json=json.dumps([entity("User", "a")], indent=4))
    assert PolicyBundle.from_folder(tmp_path).digest in digests
    assert len(base.digest) == 43


def test_action_groups_of_the_schema_count_in_evaluation_and_in_reads() -> None:
    policies = GROUP.replace(";", " when { context.args.amount > 5 };")
    bundle = PolicyBundle.from_parts(policies.replace('"money"]', '"everything"]'), SCHEMA)
    assert allowed(bundle, entity("User", "ada", level=1), args={"amount": 6})
    assert bundle.reads("charge") == {("amount",)}
    assert bundle.reads("other") == frozenset()


def test_action_groups_of_the_entities_count_in_evaluation_and_in_reads() -> None:
    groups = [entity("Action", "charge", ("Action", "small")), entity("Action", "small", ("Action", "money"))]
    policies = GROUP.replace(";", " when { context.args.amount > 5 };")
    bundle = PolicyBundle.from_parts(policies, None, groups)
    assert allowed(bundle, args={"amount": 6})
    assert bundle.reads("charge") == {("amount",)}
    assert not allowed(PolicyBundle.from_parts(policies), args={"amount": 6})


def test_reads_are_those_of_policies_that_can_apply() -> None:
    bundle = PolicyBundle.from_parts("""
        permit(principal, action == Action::"charge", resource) when { context.args.a };
        permit(principal, action == Action::"refund", resource) when { context.args.b };
        permit(principal, action in [Action::"refund", Action::"charge"], resource) when { context.args.c };
        permit(principal, action, resource) when { context.args.d };
        permit(principal, action == Other::Action::"charge", resource) when { context.args.e };
    """)
    assert bundle.reads("charge") == {("a",), ("c",), ("d",)}
    assert bundle.reads("refund") == {("b",), ("c",), ("d",)}


def test_a_vouched_principal_is_known_to_the_policies() -> None:
    policies = '@id("x") permit(principal in Role::"top", action, resource) when { principal.level > 3 };'
    roles = [entity("Role", "ops", ("Role", "top"))]
    bundle = PolicyBundle.from_parts(policies, None, roles)
    assert allowed(bundle, entity("User", "ada", ("Role", "ops"), level=5))
    assert not allowed(bundle, entity("User", "ada", ("Role", "ops"), level=2))
    assert not allowed(bundle, entity("User", "ada", level=5))
    assert not allowed(bundle)


def test_the_bundle_wins_over_vouched_attributes_and_parents_are_united() -> None:
    own = [entity("User", "ada", ("Role", "ops"), level=2)]
    level = PolicyBundle.from_parts(
        '@id("x") permit(principal, action, resource) when { principal.level > 3 };', None, own
    )
    assert not allowed(level, entity("User", "ada", level=9))
    assert not allowed(level, entity("User", "ada", ("Role", "new"), level=9))
    policies = """permit(principal in Role::"ops", action, resource)
        when { principal in Role::"new" && principal.level == 2 && principal.team == "blue" };"""
    united = PolicyBundle.from_parts(policies, None, own)
    assert allowed(united, entity("User", "ada", ("Role", "new"), level=9, team="blue"))
    assert not allowed(united, entity("User", "ada"))


def test_a_vouched_principal_cannot_change_what_another_request_sees() -> None:
    bundle = PolicyBundle.from_parts('@id("x") permit(principal in Role::"ops", action, resource);')
    assert allowed(bundle, entity("User", "ada", ("Role", "ops")))
    assert not allowed(bundle, entity("User", "ada"))


def test_a_vouched_principal_that_is_an_action_is_refused() -> None:
    bundle = PolicyBundle.from_parts(GROUP)
    assert not allowed(bundle, entity("Action", "charge", ("Action", "money")))


def test_a_vouched_principal_must_conform_to_the_schema() -> None:
    bundle = PolicyBundle.from_parts(PERMIT, SCHEMA)
    assert allowed(bundle, entity("User", "ada", level=1), args={"amount": 1})
    decision = bundle.evaluate(USER, CHARGE, WORKFLOW, {}, principal_entity=entity("User", "ada", level="high"))
    assert not decision.allowed
    assert 'User::"ada" is not usable with this bundle' in decision.errors[0]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"uid": "ada"},
        {"uid": USER, "attrs": 3},
        {"uid": USER, "parents": [3]},
        {"uid": USER, "attrs": {"a": None}},
        {"uid": USER, "attrs": {"a": 1.5}},
        {"uid": USER, "attrs": {"a": b""}},
        {"uid": USER, "attrs": {"a": float("nan")}},
        {"uid": USER, "attrs": {"a": "\ud800"}},
        {"uid": USER, "tags": {}},
        {"uid": USER, "parents": [USER]},
    ],
)
def test_a_malformed_principal_is_a_refusal_with_an_error(broken: dict[str, Any]) -> None:
    decision = PolicyBundle.from_parts(PERMIT).evaluate(USER, CHARGE, WORKFLOW, {}, principal_entity=broken)
    assert not decision.allowed
    assert decision.errors[0].startswith("principal entity: ")


def test_remembered_principals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exequatur.policy.entities.MAX_PRINCIPALS", 2)
    bundle = PolicyBundle.from_parts(PERMIT)
    for n in range(5):
        assert allowed(bundle, entity("User", f"u{n}"))
    assert len(bundle._entities._principals) == 2


def test_determining_policies_come_in_the_order_of_the_bundle() -> None:
    bundle = PolicyBundle.from_parts("".join(f'@id("p{n}") permit(principal, action, resource);' for n in range(12)))
    decision = bundle.evaluate('User::"ada"', 'Action::"charge"', 'Workflow::"w"', {})
    assert [bundle.policies[item].id for item in decision.reasons] == [f"p{n}" for n in range(12)]


@pytest.mark.rule("bundle.B4")
def test_a_bundle_cannot_be_changed() -> None:
    bundle: Any = PolicyBundle.from_parts(PERMIT)
    with pytest.raises(TypeError):
        bundle.policies["policy0"] = None


@pytest.mark.rule("bundle.B4")
def test_an_error_beside_an_allow_is_told_and_the_allow_is_still_cedars() -> None:
    bundle = PolicyBundle.from_parts(PERMIT + "forbid(principal, action, resource) when { context.missing };")
    decision = bundle.evaluate(USER, CHARGE, WORKFLOW, {})
    assert (decision.allowed, decision.reasons, len(decision.errors)) == (True, ("policy0",), 1)


@pytest.mark.rule("nesting.D2")
def test_a_long_text_is_not_taken_for_a_deep_one() -> None:
    condition = "[1, 2].contains(context.args.amount) && context.args.amount < 3"
    policies = "".join(f'@id("p{n}") permit(principal, action, resource) when {{ {condition} }};' for n in range(300))
    assert len(PolicyBundle.from_parts(policies).policies) == 300
    comparisons = " && ".join(["1 < 2"] * 150)
    assert too_deep(tokens(f"permit(principal, action, resource) when {{ {comparisons} }};")) is None


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 5000 + "1" + ")" * 5000 + " == 1",
        " && ".join(["true"] * 5000),
        "context" + ".a" * 5000,
        "!" * 5000 + "true",
    ],
)
@pytest.mark.rule("nesting.D1")
def test_a_policy_that_would_overflow_cedars_stack_is_refused_before_cedar_sees_it(condition: str) -> None:
    with pytest.raises(PolicyError, match=r"policies:1:\d+: this is nested more deeply"):
        PolicyBundle.from_parts(f"permit(principal, action, resource) when {{ {condition} }};")


@pytest.mark.rule("nesting.D1")
def test_a_schema_that_would_overflow_cedars_stack_is_refused_before_cedar_sees_it() -> None:
    schema = f"type Deep = {'Set<' * 30_000}Long{'>' * 30_000};"
    with pytest.raises(PolicyError, match=r"schema:1:\d+: this is nested more deeply"):
        PolicyBundle.from_parts("permit(principal, action, resource);", schema)


@pytest.mark.parametrize(
    "condition", ["context" + ".when" * 5000, "1" + " + context.when" * 5000, "true && " * 900 + "true"]
)
def test_an_attribute_named_like_a_keyword_does_not_hide_how_deep_a_policy_is(condition: str) -> None:
    with pytest.raises(PolicyError, match="nested more deeply"):
        PolicyBundle.from_parts(f"permit(principal, action, resource) when {{ {condition} }};")


def test_what_follows_a_carriage_return_is_no_comment() -> None:
    deep = "(" * 5000 + "true" + ")" * 5000
    with pytest.raises(PolicyError, match="nested more deeply"):
        PolicyBundle.from_parts(f"permit(principal, action, resource) when {{ //\r{deep} }};")


def test_many_policies_that_compare_something_called_set_are_not_deep() -> None:
    PolicyBundle.from_parts("permit(principal, action, resource) when { context.Set < 1 };\n" * 200)
