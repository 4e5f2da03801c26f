"""A recorded decision as a question: what a record does not hold is said, and never made up."""

import json
from typing import Any

import pytest

from exequatur.audit.decided import Decided, as_recorded, asked_of, of_record, own_question_of
from exequatur.audit.evidence import DecisionRecord
from exequatur.authoring.request import ask
from exequatur.errors import EvidenceError
from exequatur.identity.principal import Principal
from exequatur.lineage.record import Record
from exequatur.policy.bundle import PolicyBundle

DIGEST = "A" * 43
POLICIES = """
@id("ops") permit(principal in Role::"ops", action == Action::"step", resource);
@id("few") forbid(principal, action == Action::"step", resource) when { context.args.number > 2 };
"""
MORE = '@id("named") permit(principal, action == Action::"step", resource) when { context.args.name == "x" };'


def claims(**changes: Any) -> DecisionRecord:
    body = {
        "request": None,
        "request_digest": None,
        "workflow_id": "w",
        "run_id": "r",
        "activity_id": "1",
        "activity_type": "step",
        "attempt": 1,
        "principal": 'Agent::"a"',
        "args": DIGEST,
        "arguments": '{"number":1}',
        "fault": None,
        "facts": "{}",
        "decision": "allow",
        "enforced": True,
        "reason": None,
        "policies": ["ops"],
        "bundle": DIGEST,
        "bundle_sequence": 1,
        "vouched": {"attributes": {}, "parents": ['Role::"ops"']},
    }
    return DecisionRecord.model_validate_json(json.dumps(body | changes))


def decided(bundle: PolicyBundle | None, grant: dict[str, Any] | None = None, **changes: Any) -> Decided:
    record = Record("0011223344556677", 3, 1_800_000_000.0, "decision", None, None, None, b"", "")
    return of_record(record, claims(**changes), bundle, grant)


BUNDLE = PolicyBundle.from_parts(POLICIES)


def test_a_record_is_asked_again_with_what_it_holds() -> None:
    found = decided(BUNDLE)
    verdict = ask(BUNDLE, asked_of(found, BUNDLE))
    assert verdict.allowed
    assert as_recorded(found, verdict)
    assert found.notes == ()


def test_a_record_without_the_principals_roles_takes_them_from_the_grant_or_says_so() -> None:
    without = decided(BUNDLE, vouched=None)
    assert any("roles and attributes" in note for note in without.notes)
    assert not ask(BUNDLE, asked_of(without, BUNDLE)).allowed
    grant = Principal("Agent", "a", {}, ('Role::"ops"',)).entity()
    known = decided(BUNDLE, grant, vouched=None)
    assert (known.notes, ask(BUNDLE, asked_of(known, BUNDLE)).allowed) == ((), True)
    of_another = decided(BUNDLE, Principal("Agent", "b", {}, ('Role::"ops"',)).entity(), vouched=None)
    assert not ask(BUNDLE, asked_of(of_another, BUNDLE)).allowed


@pytest.mark.rule("decided.Z1")
def test_policies_that_read_more_than_the_record_holds_are_not_answered_for() -> None:
    more = PolicyBundle.from_parts(POLICIES + MORE)
    with pytest.raises(EvidenceError, match=r"does not hold args\.name"):
        asked_of(decided(BUNDLE), more)
    # Without the policies that decided, nobody knows what they looked at.
    with pytest.raises(EvidenceError, match="does not hold"):
        asked_of(decided(None, arguments="{}"), BUNDLE)


def test_a_denied_reset_is_the_question_that_was_answered() -> None:
    reset = decided(BUNDLE, decision="deny", policies=[], arguments="{}", activity_type="other")
    asked = asked_of(reset, BUNDLE)
    assert own_question_of(reset, asked, BUNDLE) is None  # the activity itself is denied in the same way
    bundle = PolicyBundle.from_parts(
        '@id("all") permit(principal, action, resource);'
        '@id("no-reset") forbid(principal, action == Action::"workflow.reset", resource);'
    )
    denied = decided(bundle, decision="deny", policies=["no-reset"], arguments="{}")
    found = own_question_of(denied, asked_of(denied, bundle), bundle)
    assert found is not None
    assert found.action == "workflow.reset"
    allowed = decided(bundle, policies=["all"], arguments="{}")
    assert own_question_of(allowed, asked_of(allowed, bundle), bundle) is None


@pytest.mark.parametrize("changes", [{"facts": "[]"}, {"arguments": "x"}, {"principal": "nobody"}])
def test_a_record_that_cannot_be_read_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="0011223344556677:3"):
        decided(BUNDLE, **changes)


def test_a_record_whose_policies_were_not_asked_says_why() -> None:
    assert decided(BUNDLE, decision="none", reason="forged").unasked == "It was rejected"
    fault = "The resource cannot be told: KeyError."
    assert decided(BUNDLE, decision="deny", fault=fault).unasked == fault
    assert decided(BUNDLE, decision="deny", fault="args.number is not finite").unasked is None


def test_what_it_was_done_to_is_recorded_or_the_workflow_or_has_to_be_said() -> None:
    assert asked_of(decided(BUNDLE), BUNDLE).resource == {"type": "Workflow", "id": "w"}
    account = {"type": "Account", "id": "42"}
    assert asked_of(decided(BUNDLE, resource=account), BUNDLE).resource == account
    schema = """entity Role; entity Agent in [Role]; entity Account;
    action step appliesTo { principal: Agent, resource: Account, context: { args: { number: Long } } };"""
    typed = PolicyBundle.from_parts(POLICIES, schema)
    with pytest.raises(EvidenceError, match="does not hold which Account it was; give --resource"):
        asked_of(decided(typed), typed)
    assert asked_of(decided(typed), typed, resource=account).resource == account
