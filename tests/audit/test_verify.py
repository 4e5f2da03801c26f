"""Audits of real runs: what was not touched is not flagged, and what is not proven is not called so."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.codes import CODES
from exequatur.audit.decisions import check_receipt
from exequatur.audit.evidence import (
    Decision,
    DecisionRecord,
    EvidenceReader,
    NoEvidence,
    RecordedEvidence,
    journals_in,
    records_of_journal,
)
from exequatur.audit.history import of_events
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.trust import AuditTrust
from exequatur.audit.verify import audit_run
from exequatur.errors import EvidenceError
from exequatur.gate.wire import RECEIPT
from exequatur.lineage.record import Record
from exequatur.statements.encoding import compact_json
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt, Seal
from exequatur.statements.packing import unpack
from tests.audit.journals import relinked
from tests.audit.judging import Bench
from tests.audit.mutants import Events, attributes_of, edited, families, kind_of, renumbered, stripped
from tests.audit.runs import Runs

NAMES = [
    "sequential", "fan-out", "retried", "local", "denied", "timed-out", "withdrawn", "parent", "parent.child",
    "continued", "continued.last", "revoked", "cancelled", "terminated", "open", "again", "again.last", "base", "reset",
    "talkative", "turned", "turned-local",
]  # fmt: skip
GRAVE = (Severity.VIOLATION, Severity.UNCHECKED)


def codes(report: RunReport, *severities: Severity) -> set[str]:
    return {each.code for each in report.findings if not severities or each.severity in severities}


def sentence(report: RunReport, code: str) -> str:
    return next(each.sentence for each in report.findings if each.code == code)


def touched(bench: Bench, name: str, kind: str, edit: Callable[[Any], None], *, nth: int = 0) -> Events:
    """A run's events with the attributes of one changed."""
    events = bench.runs[name]
    place = [at for at, event in enumerate(events) if kind_of(event) == kind][nth]
    changed = edited(events[place], lambda it: edit(attributes_of(it)))
    return (*events[:place], changed, *events[place + 1 :])


def without(bench: Bench, name: str, nth: int) -> Events:
    """A run's events without those of one activity, numbered anew."""
    events = bench.runs[name]
    gone = list(families(events).values())[nth]
    return renumbered([event for at, event in enumerate(events) if at not in gone])


def audited(
    bench: Bench, name: str, events: Events, evidence: EvidenceReader | None = None, trust: AuditTrust | None = None
) -> RunReport:
    if evidence is None and trust is None:
        return bench.audited(name, events, evidence=True)
    return audit_run(of_events(events), evidence or bench.journals, trust or bench.trust)


@pytest.fixture(scope="module")
def records(runs: Runs) -> list[Record]:
    """The journal of the workers."""
    [file] = runs.journal.glob("*.db")
    return [record for record, _ in records_of_journal(file)]


def told(records: Iterable[Record]) -> RecordedEvidence:
    """Evidence that is well linked, whatever it says."""
    return RecordedEvidence((record, True) for record in records)


def decision_of(bench: Bench, records: list[Record], name: str, attempt: int = 1) -> tuple[int, dict[str, Any]]:
    """The place and the claims of a decision about a run's first activity."""
    run = bench.recorded[name, True].run_id
    for at, record in enumerate(records):
        if record.kind == "decision":
            claims: dict[str, Any] = json.loads(record.body)
            if (claims["run_id"], claims["attempt"]) == (run, attempt):
                return at, claims
    raise AssertionError(name)


def lying(bench: Bench, records: list[Record], name: str, **changes: Any) -> RunReport:
    """The audit of an untouched run with the journal of a worker that wrote down something else."""
    at, claims = decision_of(bench, records, name)
    return audited(bench, name, bench.runs[name], told(relinked(records, at, compact_json({**claims, **changes}))))


# What was not touched.


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_run_is_verified(bench: Bench, name: str) -> None:
    report = bench.recorded[name, True]
    if name == "reset":
        # Together with the run that was reset it is; alone it could hide what that one did.
        graver = {each.code for each in report.findings if each.severity in (Severity.VIOLATION, Severity.UNCHECKED)}
        assert graver == {"base-cut"}
    else:
        assert report.verdict is Verdict.VERIFIED, report.findings
    assert report.governed
    assert all(each.recomputed for activity in report.activities for each in activity.decisions)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_journals_nothing_is_a_violation_and_lost_decisions_are_missed(bench: Bench, name: str) -> None:
    report = bench.recorded[name, False]
    assert report.verdict is not Verdict.VIOLATED
    receipts = any(each.proof in ("receipt", "denial") for each in report.activities)
    assert ("evidence-missing" in codes(report)) == receipts
    assert not any(each.decisions for each in report.activities)


def test_a_report_says_who_did_what_and_how_it_is_proven(bench: Bench) -> None:
    report = bench.recorded["denied", True]
    assert report.principal == 'Agent::"auditee"'
    assert (report.mode, report.outcome) == ("enforce", "completed")
    assert [(each.activity_type, each.outcome, each.proof) for each in report.activities] == [
        ("delete", "denied", "denial"),
        ("pay", "denied", "denial"),
        ("step", "completed", "receipt"),
    ]
    # A decision is made again when something is revoked meanwhile, so there may be more than one.
    assert [each.decisions[-1].policies for each in report.activities] == [("no-deletion",), ("limit",), ("all",)]


def test_every_attempt_of_a_retried_activity_has_its_decision(bench: Bench) -> None:
    flaky, fails = bench.recorded["retried", True].activities
    assert {each.attempt for each in flaky.decisions} == {1, 2, 3}
    assert (fails.outcome, fails.proof) == ("failed", "journal")
    assert "end-unproven" not in codes(bench.recorded["retried", True])


def test_a_reset_run_is_told_apart_and_believed(bench: Bench) -> None:
    report = bench.recorded["reset", True]
    assert "run-reset" in codes(report)
    assert report.run_id != bench.recorded["base", True].run_id


# What is unproven is said to be.


@pytest.mark.parametrize(
    ("name", "evidence", "code"),
    [
        ("sequential", True, "self-notarised"),
        ("sequential", True, "time-unproven"),
        ("sequential", True, "events-unproven"),
        ("sequential", False, "seal-missing"),
        ("terminated", True, "seal-missing"),
        ("timed-out", True, "end-unproven"),
        ("open", True, "run-open"),
        ("withdrawn", True, "request-withdrawn"),
        ("retried", False, "attempt-unaccounted"),
        ("ungoverned", True, "run-exempt"),
    ],
)
def test_what_nobody_vouches_for_is_called_unproven(bench: Bench, name: str, evidence: bool, code: str) -> None:
    report = bench.recorded[name, evidence]
    assert code in codes(report, Severity.UNPROVEN)
    assert CODES[code].severity == "unproven"


def test_the_id_of_a_run_that_asked_for_nothing_is_unproven(bench: Bench) -> None:
    events = bench.runs["sequential"][:4]
    assert "run-id-unproven" in codes(audited(bench, "sequential", events, NoEvidence()))
    assert "run-id-unproven" not in codes(bench.recorded["sequential", False])


# The run.


def test_a_run_without_a_grant_is_a_violation_unless_its_type_is_exempt(bench: Bench) -> None:
    events = bench.runs["ungoverned"]
    assert "run-ungoverned" in codes(audited(bench, "ungoverned", events, trust=bench.trust), Severity.VIOLATION)
    assert bench.recorded["ungoverned", True].verdict is Verdict.VERIFIED
    assert not bench.recorded["ungoverned", True].governed


def test_a_history_that_is_stripped_of_its_statements_is_not_laundered_by_an_exempt_type(bench: Bench) -> None:
    events = tuple(edited(event, stripped) for event in bench.runs["sequential"])
    assert "run-ungoverned" in codes(audited(bench, "sequential", events, NoEvidence()))
    exempting = AuditTrust(bench.trust.anchors, ungoverned=("Sequential",))
    report = audited(bench, "sequential", events, trust=exempting)
    assert "activity-missing" in codes(report, Severity.VIOLATION)


def test_a_history_that_is_stripped_of_its_grant_only_is_not_laundered_at_all(bench: Bench) -> None:
    events = bench.runs["sequential"]
    exempting = AuditTrust(bench.trust.anchors, ungoverned=("*",))
    report = audited(bench, "sequential", (edited(events[0], stripped), *events[1:]), NoEvidence(), exempting)
    assert "request-invalid" in codes(report, Severity.VIOLATION)


def test_the_grant_of_another_run_is_refused(bench: Bench) -> None:
    def put(it: Any) -> None:
        it.header.CopyFrom(attributes_of(bench.runs["base"][0]).header)

    report = audited(bench, "sequential", touched(bench, "sequential", "workflow_execution_started", put))
    assert "grant-invalid" in codes(report, Severity.VIOLATION)


@pytest.mark.parametrize(
    "edit",
    [
        lambda it: setattr(it.input.payloads[0], "data", b"4"),
        lambda it: setattr(it.task_queue, "name", "elsewhere"),
        lambda it: setattr(it, "attempt", 2),
        lambda it: setattr(it, "continued_execution_run_id", "another"),
    ],
    ids=["input", "task queue", "attempt", "continued"],
)
def test_a_run_that_was_started_otherwise_than_granted_is_flagged(bench: Bench, edit: Callable[[Any], None]) -> None:
    report = audited(bench, "sequential", touched(bench, "sequential", "workflow_execution_started", edit))
    assert "start-not-granted" in codes(report, Severity.VIOLATION)


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_a_run_that_was_started_long_before_or_after_its_grant_is_flagged(bench: Bench, seconds: int) -> None:
    def later(it: Any) -> None:
        it.event_time.seconds += seconds

    events = bench.runs["open"]
    report = audited(bench, "open", (edited(events[0], later), *events[1:]))
    assert "start-not-granted" in codes(report, Severity.VIOLATION)


def test_a_child_is_followed_by_the_delegation_that_it_was_handed(bench: Bench) -> None:
    kind = "start_child_workflow_execution_initiated"
    for edit in (
        lambda it: it.header.fields.clear(),
        lambda it: setattr(it, "workflow_id", "another"),
        lambda it: setattr(it, "namespace", "another"),
        lambda it: setattr(it.workflow_type, "name", "Another"),
        lambda it: setattr(it.task_queue, "name", "another"),
        lambda it: setattr(it.input.payloads[0], "data", b"3"),
        lambda it: it.header.CopyFrom(attributes_of(bench.runs["parent"][0]).header),
        lambda it: it.header.CopyFrom(attributes_of(bench.runs["sequential"][0]).header),
    ):
        report = audited(bench, "parent", touched(bench, "parent", kind, edit), NoEvidence())
        assert "child-undelegated" in codes(report, Severity.VIOLATION)


def test_a_run_that_continues_hands_on_its_seal_so_that_its_end_needs_no_journal(bench: Bench) -> None:
    assert "seal-missing" not in codes(bench.recorded["continued", False])
    assert "seal-invalid" in codes(audited(bench, "continued", without(bench, "continued", 0), NoEvidence()))
    kind = "workflow_execution_continued_as_new"
    for edit in (
        lambda it: it.header.fields.clear(),
        lambda it: it.header.CopyFrom(attributes_of(bench.runs["continued"][0]).header),
        lambda it: it.header.CopyFrom(attributes_of(bench.runs["sequential"][0]).header),
        lambda it: setattr(it.workflow_type, "name", "Another"),
        lambda it: setattr(it.input.payloads[0], "data", b"9"),
    ):
        report = audited(bench, "continued", touched(bench, "continued", kind, edit), NoEvidence())
        assert "seal-invalid" in codes(report, Severity.VIOLATION)


def test_a_history_of_another_workflow_than_was_asked_for_is_refused(bench: Bench) -> None:
    with pytest.raises(EvidenceError, match="not of another"):
        of_events(bench.runs["sequential"], workflow_id="another")


# Activities.


def test_an_activity_without_a_request_is_flagged(bench: Bench) -> None:
    events = touched(bench, "timed-out", "activity_task_scheduled", lambda it: it.header.fields.clear())
    assert "request-missing" in codes(audited(bench, "timed-out", events, NoEvidence()), Severity.VIOLATION)


def test_arguments_that_were_changed_after_they_were_requested_are_flagged(bench: Bench) -> None:
    def raised(it: Any) -> None:
        it.input.payloads[0].data = b'{"amount": 900, "note": ""}'

    report = audited(bench, "sequential", touched(bench, "sequential", "activity_task_scheduled", raised, nth=1))
    assert "arguments" in sentence(report, "request-invalid")


def test_a_result_without_a_receipt_is_flagged_where_it_came(bench: Bench) -> None:
    events = touched(
        bench, "sequential", "activity_task_completed", lambda it: it.result.payloads[0].metadata.pop(RECEIPT)
    )
    report = audited(bench, "sequential", events, NoEvidence())
    found = next(each for each in report.findings if each.code == "receipt-missing")
    assert found.event_id == next(each.event_id for each in events if kind_of(each) == "activity_task_completed")


@pytest.mark.parametrize(
    "edit",
    [
        lambda it: setattr(it.result.payloads[0], "data", b"1000"),
        lambda it: it.result.payloads[0].metadata.__setitem__(RECEIPT, b"\x01"),
        lambda it: it.result.payloads.add(),
        lambda it: setattr(it.result.payloads[0], "data", b""),
    ],
    ids=["another result", "an empty receipt", "a second payload", "no result"],
)
def test_a_result_that_its_receipt_is_not_for_is_flagged(bench: Bench, edit: Callable[[Any], None]) -> None:
    report = audited(bench, "sequential", touched(bench, "sequential", "activity_task_completed", edit), NoEvidence())
    assert "receipt-invalid" in codes(report, Severity.VIOLATION)


def test_a_receipt_for_another_attempt_is_flagged(bench: Bench) -> None:
    events = touched(bench, "retried", "activity_task_started", lambda it: setattr(it, "attempt", 1))
    report = audited(bench, "retried", events)
    assert "attempt 3" in sentence(report, "receipt-invalid")


@pytest.mark.parametrize("kind", ["GrantRejected", "AuthorizationRevoked"])
def test_a_failure_of_ours_that_its_record_contradicts_is_flagged(bench: Bench, kind: str) -> None:
    def other(it: Any) -> None:
        it.failure.application_failure_info.type = kind

    report = audited(bench, "denied", touched(bench, "denied", "activity_task_failed", other), NoEvidence())
    assert "denial-unsigned" in codes(report, Severity.VIOLATION)


def test_a_failure_that_only_claims_to_be_ours_is_flagged(bench: Bench) -> None:
    def claimed(it: Any) -> None:
        it.failure.application_failure_info.type = "AuthorizationDenied"

    report = audited(bench, "retried", touched(bench, "retried", "activity_task_failed", claimed), NoEvidence())
    assert "denial-unsigned" in codes(report, Severity.VIOLATION)


def test_an_activity_taken_out_of_the_middle_breaks_the_chain_without_any_evidence(bench: Bench) -> None:
    report = audited(bench, "sequential", without(bench, "sequential", 1), NoEvidence())
    assert "chain-broken" in codes(report, Severity.VIOLATION)


def test_the_last_activity_taken_out_is_missed_by_the_seal_and_by_the_journal(bench: Bench) -> None:
    report = audited(bench, "sequential", without(bench, "sequential", 2))
    assert {"seal-invalid", "activity-missing"} <= codes(report, Severity.VIOLATION)
    assert "seal-missing" in codes(audited(bench, "sequential", without(bench, "sequential", 2), NoEvidence()))


def test_requests_that_stand_in_another_order_than_they_were_made_in_break_the_chain(bench: Bench) -> None:
    events = list(bench.runs["fan-out"])
    first = next(at for at, event in enumerate(events) if kind_of(event) == "activity_task_scheduled")
    events[first], events[first + 1] = events[first + 1], events[first]
    assert "chain-broken" in codes(audited(bench, "fan-out", renumbered(events), NoEvidence()))


@pytest.mark.parametrize("length", [1, 4, 8, 12, -1])
def test_a_history_that_was_cut_off_is_incomplete_when_the_journals_know_more(bench: Bench, length: int) -> None:
    report = audited(bench, "sequential", bench.runs["sequential"][:length])
    assert report.verdict is Verdict.UNCHECKED
    assert "history-cut" in codes(report)


def test_an_open_run_whose_journal_has_gone_on_since_is_no_violation(bench: Bench) -> None:
    """The history was read first and the evidence later, as auditors do."""
    report = audited(bench, "open", bench.runs["open"][:4])
    assert codes(report, *GRAVE) == {"history-cut"}


@pytest.mark.parametrize(
    "make",
    [
        lambda events: (*events[:6], *events[7:]),
        lambda events: (*events[:6], events[6], *events[6:]),
        lambda events: renumbered((*events[:5], events[5], *events[5:])),
        lambda events: renumbered((*events[:6], events[6], *events[6:])),
        lambda events: (*events[:6], events[7], events[6], *events[8:]),
        lambda events: renumbered((*events[:-1], events[-1], events[-1])),
        lambda events: renumbered((events[0], *events)),
        lambda events: (edited(events[0], lambda it: setattr(it, "event_type", 5)), *events[1:]),
        lambda events: (*events[:4], edited(events[4], lambda it: it.ClearField(it.WhichOneof("attributes")))),
    ],
    ids=["gap", "twice", "started twice", "completed twice", "swapped", "closed twice", "begun twice", "type", "empty"],
)  # fmt: skip
def test_events_that_are_no_history_are_flagged(bench: Bench, make: Callable[[Events], Events]) -> None:
    report = audited(bench, "sequential", make(bench.runs["sequential"]), NoEvidence())
    assert "history-events" in codes(report, Severity.VIOLATION)


# The journals.


def test_an_edited_record_is_found_by_its_link(bench: Bench, runs: Runs, records: list[Record], tmp_path: Path) -> None:
    at, claims = decision_of(bench, records, "timed-out")
    folder = tmp_path / "journal"
    shutil.copytree(runs.journal, folder)
    [file] = folder.glob("*.db")
    with closing(sqlite3.connect(file)) as db, db:
        body = compact_json({**claims, "reason": "because"})
        db.execute("UPDATE records SET body = ? WHERE idx = ?", (body, records[at].index))
    report = audited(bench, "timed-out", bench.runs["timed-out"], journals_in(folder))
    assert f"record {records[at].index} " in sentence(report, "evidence-invalid")
    assert report.verdict is Verdict.VIOLATED


def test_a_record_that_is_not_the_one_that_a_receipt_names_is_found_though_it_is_well_linked(
    bench: Bench, records: list[Record]
) -> None:
    report = lying(bench, records, "sequential", reason="because")
    assert "place of its receipt" in sentence(report, "evidence-invalid")


@pytest.mark.rule("decisions.D4")
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"request": "A" * 43}, "request"),
        ({"run_id": "another"}, "run"),
        ({"attempt": 2}, "attempt"),
        ({"enforced": False}, "enforcement"),
        ({"bundle": "A" * 43}, "bundle"),
        ({"facts": "{}"}, "digest of the facts"),
        ({"decision": "deny"}, "decision"),
        ({"policies": ["another"]}, "policy"),
    ],
)
def test_a_receipt_that_says_otherwise_than_the_record_in_its_place_is_named(
    bench: Bench, records: list[Record], changes: dict[str, Any], name: str
) -> None:
    at, claims = decision_of(bench, records, "sequential")
    completed = next(each for each in bench.runs["sequential"] if kind_of(each) == "activity_task_completed")
    [*_, token] = unpack(attributes_of(completed).result.payloads[0].metadata[RECEIPT])
    receipt = parse(token, Receipt).claims

    def problem(body: dict[str, Any]) -> str | None:
        return check_receipt(Decision(records[at], DecisionRecord.model_validate_json(json.dumps(body))), receipt)

    assert problem(claims) is None
    assert problem({**claims, **changes}) == f"its receipt names another {name} than the journal"


def test_a_journal_that_was_lost_could_not_be_checked(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "sequential")
    report = audited(bench, "sequential", bench.runs["sequential"], told(records[:at] + records[at + 1 :]))
    assert codes(report, *GRAVE) == {"evidence-missing"}


def test_decisions_whose_policies_are_not_archived_could_not_be_recomputed(bench: Bench, records: list[Record]) -> None:
    evidence = told(record for record in records if record.kind != "bundle")
    report = audited(bench, "sequential", bench.runs["sequential"], evidence)
    assert codes(report, *GRAVE) == {"bundle-missing"}
    assert {decided.recomputed for each in report.activities for decided in each.decisions} == {None}


@pytest.mark.parametrize(
    "changes",
    [{"decision": "deny"}, {"policies": ["limit"]}, {"policies": []}, {"fault": "it has no form"}],
    ids=["answer", "policy", "no policy", "fault"],
)
@pytest.mark.rule("recompute.D3")
def test_a_decision_that_comes_out_otherwise_when_it_is_made_again_is_a_violation(
    bench: Bench, records: list[Record], changes: dict[str, Any]
) -> None:
    report = lying(bench, records, "timed-out", **changes)
    assert "decision-differs" in codes(report, Severity.VIOLATION)
    assert report.activities[0].decisions[0].recomputed is False


@pytest.mark.parametrize(
    "changes",
    [{"principal": 'User::"root"'}, {"args": "A" * 43}, {"activity_type": "step"}, {"activity_id": "9"},
     {"request_digest": "A" * 43}, {"attempt": 2}, {"workflow_id": "another"}, {"facts": "[]"}, {"facts": "{}"},
     {"vouched": {"attributes": {"admin": True}, "parents": []}},
     {"vouched": {"attributes": {}, "parents": ['Role::"root"']}}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
@pytest.mark.rule("decisions.D1")
def test_a_decision_about_something_else_than_the_history_has_is_a_violation(
    bench: Bench, records: list[Record], changes: dict[str, Any]
) -> None:
    assert "decision-contradicts" in codes(lying(bench, records, "timed-out", **changes), Severity.VIOLATION)


@pytest.mark.parametrize("group", ["activity", "run"])
@pytest.mark.rule("decisions.D1")
def test_facts_that_the_history_contradicts_are_a_violation(bench: Bench, records: list[Record], group: str) -> None:
    _, claims = decision_of(bench, records, "timed-out")
    facts = json.loads(claims["facts"])
    for name in facts[group]:
        false = {**facts, group: {**facts[group], name: "something else"}}
        report = lying(bench, records, "timed-out", facts=json.dumps(false))
        assert "decision-contradicts" in codes(report, Severity.VIOLATION), name


@pytest.mark.rule("decisions.D2")
def test_what_was_allowed_although_it_had_been_revoked_is_a_violation(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "timed-out")
    run = bench.recorded["timed-out", True]
    for subject, revoked in (
        ({"workflow": run.workflow_id}, True),
        ({"grant": run.grant}, True),
        ({"principal": run.principal}, True),
        ({"activity": "silent"}, True),
        ({"everything": True}, True),
        ({"workflow": "another"}, False),
        ({"workflow": run.workflow_id, "activity": "pay"}, False),
    ):
        body = compact_json({"at": records[at].at - 100, "reason": "it was stolen", **subject})
        known = replace(records[at], kind="revocation", request=None, run=None, attempt=None, body=body)
        before = [*records[:at], replace(known, index=records[at].index - 1), *records[at:]]
        report = audited(bench, "timed-out", bench.runs["timed-out"], told(before))
        assert ("grant-revoked" in codes(report, Severity.VIOLATION)) == revoked, subject


def test_what_was_revoked_later_stays_authorized(bench: Bench) -> None:
    assert bench.recorded["revoked", True].verdict is Verdict.VERIFIED
    assert bench.recorded["revoked", True].activities[0].outcome == "revoked"


@pytest.mark.rule("decisions.D2")
def test_what_was_allowed_when_its_grant_had_ended_is_a_violation(bench: Bench, records: list[Record]) -> None:
    at, claims = decision_of(bench, records, "timed-out")
    facts = json.loads(claims["facts"])
    facts["now"]["__extn"]["arg"] = "2100-01-01T00:00:00.000Z"
    late = replace(
        records[at], at=4_102_444_800.0, body=compact_json({**claims, "facts": compact_json(facts).decode()})
    )
    report = audited(bench, "timed-out", bench.runs["timed-out"], told([*records[:at], late, *records[at + 1 :]]))
    assert "grant-expired" in codes(report, Severity.VIOLATION)


def test_a_moment_that_the_journal_contradicts_is_a_violation(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "timed-out")
    late = replace(records[at], at=records[at].at + 3600)
    report = audited(bench, "timed-out", bench.runs["timed-out"], told([*records[:at], late, *records[at + 1 :]]))
    told_so = [each.sentence for each in report.findings if each.code == "decision-contradicts"]
    assert any("the moment that Cedar was given" in each for each in told_so)
    assert any("started at another time" in each for each in told_so)


def test_an_attempt_without_a_record_is_unaccounted(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "retried", attempt=2)
    report = audited(bench, "retried", bench.runs["retried"], told(records[:at] + records[at + 1 :]))
    assert "no record of 1 attempts" in sentence(report, "attempt-unaccounted")
    assert report.verdict is Verdict.VERIFIED


def test_an_attempt_after_the_one_that_the_history_ends_with_is_a_violation(bench: Bench) -> None:
    """The history of an activity that failed in the end, as if it had ended before."""
    events = touched(bench, "retried", "activity_task_started", lambda it: setattr(it, "attempt", 2))
    report = audited(bench, "retried", events)
    assert "flaky (1), attempt 3" in sentence(report, "activity-missing")


def test_a_seal_with_another_signature_is_refused(bench: Bench, records: list[Record]) -> None:
    run = bench.recorded["sequential", True].run_id
    bent = [replace(record, body=_bent(record.body)) if _is_seal_of(record, run) else record for record in records]
    report = audited(bench, "sequential", bench.runs["sequential"], told(bent))
    assert "evidence-unvouched" in codes(report, Severity.UNCHECKED)


def _is_seal_of(record: Record, run_id: str) -> bool:
    if record.kind != "seal":
        return False
    return parse(record.body.decode().partition("~")[0], Seal).claims.run_id == run_id


def _bent(body: bytes) -> bytes:
    token, separator, rest = body.partition(b"~")
    head, dot, signature = token.rpartition(b".")
    return head + dot + (b"B" if signature[:1] == b"A" else b"A") + signature[1:] + separator + rest


def test_a_reset_that_was_made_up_to_hide_the_rest_of_a_run_is_not_verified(
    bench: Bench, records: list[Record]
) -> None:
    events = bench.runs["sequential"]
    run = bench.recorded["sequential", True].run_id
    # Cut where a workflow task completes, and say there that the run was reset to another.
    place = next(at for at, each in enumerate(events) if at > 8 and kind_of(each) == "workflow_task_completed")
    failed = HistoryEvent(event_id=place + 1, event_type=EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
    attributes = failed.workflow_task_failed_event_attributes
    attributes.base_run_id, attributes.new_run_id = run, "0198c1c2-7d7a-7c3e-9d56-a7b2f5ad0c11"
    attributes.scheduled_event_id, attributes.started_event_id = place - 1, place
    close = HistoryEvent()
    close.CopyFrom(events[-1])
    close.event_id = place + 2
    report = audit_run(of_events([*events[:place], failed, close]), bench.journals, bench.trust)
    unchecked = {each.code for each in report.findings if each.severity is Severity.UNCHECKED}
    assert {"reset-unproven", "base-cut"} <= unchecked
    # Nor does a journal speak for it that no worker has signed for.
    at, claims = decision_of(bench, records, "sequential")
    body = compact_json({**claims, "run_id": attributes.new_run_id})
    forged = replace(records[at], log_id="ff" * 8, run=attributes.new_run_id, body=body)
    told_of = told([*records, forged])
    report = audit_run(of_events([*events[:place], failed, close]), told_of, bench.trust)
    assert "reset-unproven" in codes(report, Severity.UNCHECKED)
    alone = audit_run(of_events([*events[:place], failed, close]), NoEvidence(), bench.trust)
    assert "reset-unproven" in {each.code for each in alone.findings}


def test_policies_that_the_auditor_does_not_approve_are_a_violation(bench: Bench) -> None:
    decided = bench.recorded["denied", True].activities[0].decisions[0].bundle
    for bundles, found in (((decided,), set()), (("A" * 43,), {"bundle-unapproved"})):
        trust = AuditTrust(bench.trust.anchors, bundles=bundles)
        report = audited(bench, "denied", bench.runs["denied"], trust=trust)
        assert codes(report, Severity.VIOLATION) == found


def test_policies_that_only_the_worker_vouches_for_are_unproven(bench: Bench, records: list[Record]) -> None:
    assert "bundle-unvouched" not in codes(bench.recorded["sequential", True])
    report = lying(bench, records, "timed-out", bundle="A" * 43)
    assert "bundle-unvouched" in codes(report, Severity.UNPROVEN)


def test_arguments_that_do_not_stand_in_the_input_are_unproven(bench: Bench, records: list[Record]) -> None:
    assert "arguments-unproven" not in codes(bench.recorded["sequential", True])
    report = lying(bench, records, "sequential", arguments='{"order":{"amount":777}}')
    assert "arguments-unproven" in codes(report, Severity.UNPROVEN)
