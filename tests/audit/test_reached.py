"""Audits of what reached runs and what they sent: messages, signals, Nexus calls, and who was asked for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from exequatur.audit import heard, messages, traffic
from exequatur.audit.bundle import make_proofs, verify_proofs
from exequatur.audit.evidence import EvidenceReader, NoEvidence, RecordedEvidence, records_of_journal
from exequatur.audit.history import of_events
from exequatur.audit.recorded import decisions_in
from exequatur.audit.records import Evidence
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.verify import audit_run
from exequatur.errors import EvidenceError, StatementError
from exequatur.lineage.chain import handled_message
from exequatur.lineage.record import Record
from exequatur.statements.encoding import compact_json
from exequatur.statements.jws import type_of
from exequatur.statements.models import Message, NexusCall, Permit
from tests.audit.journals import relinked
from tests.audit.judging import Bench, judged
from tests.audit.mutants import Events, attributes_of, edited, kind_of, renumbered
from tests.audit.reached import record
from tests.audit.runs import Runs

SIGNALED, ACCEPTED = "workflow_execution_signaled", "workflow_execution_update_accepted"
SENT, CALLED = "signal_external_workflow_execution_initiated", "nexus_operation_scheduled"
VIOLATION = Severity.VIOLATION


@pytest_asyncio.fixture(scope="module")
async def reached(target: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder: Path = tmp_path_factory.mktemp("reached")
    return await record(target, folder / "all")


@pytest.fixture(scope="module")
def bench(reached: Runs) -> Iterator[Bench]:
    bench = Bench(reached)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def records(reached: Runs) -> list[Record]:
    """The journals of the workers, whole."""
    return [each for file in sorted(reached.journal.glob("*.db")) for each, _ in records_of_journal(file)]


def codes(report: RunReport, *severities: Severity) -> list[str]:
    return [each.code for each in report.findings if not severities or each.severity in severities]


def sentences(report: RunReport, code: str) -> list[str]:
    return [each.sentence for each in report.findings if each.code == code]


def places(bench: Bench, name: str, kind: str) -> list[int]:
    return [at for at, event in enumerate(bench.runs[name]) if kind_of(event) == kind]


def touched(bench: Bench, name: str, kind: str, edit: Callable[[Any], None], *, nth: int = 0) -> Events:
    """A run's events with the attributes of one changed."""
    events, place = bench.runs[name], places(bench, name, kind)[nth]
    changed = edited(events[place], lambda it: edit(attributes_of(it)))
    return (*events[:place], changed, *events[place + 1 :])


def audited(bench: Bench, events: Events, evidence: EvidenceReader | None = None) -> RunReport:
    return audit_run(of_events(events), evidence or bench.journals, bench.trust)


def lying(bench: Bench, records: list[Record], run_name: str, kind: str, wanted: Any, /, **changes: Any) -> RunReport:
    """The audit of an untouched run with a journal in which the first record that is wanted says something else."""
    logs = dict.fromkeys(record.log_id for record in records)
    told: list[Record] = []
    done = False
    for log in logs:
        mine = [each for each in records if each.log_id == log]
        for at, each in enumerate(mine):
            if not done and each.kind == kind and wanted(claims := json.loads(each.body)):
                told += relinked(mine, at, compact_json({**claims, **changes}))
                done = True
                break
        else:
            told += mine
    assert done
    return audited(bench, bench.runs[run_name], RecordedEvidence((each, True) for each in told))


def of_run(bench: Bench, run_name: str, /, **claims: Any) -> Callable[[dict[str, Any]], bool]:
    run = bench.recorded[run_name, True].run_id

    def wanted(body: dict[str, Any]) -> bool:
        return body.get("run_id") == run and all(body.get(key) == value for key, value in claims.items())

    return wanted


# What was not touched.


def test_no_untouched_run_is_flagged(bench: Bench) -> None:
    for (name, evidence), report in bench.recorded.items():
        assert not codes(report, VIOLATION), (name, evidence, report.findings)
        assert not evidence or report.verdict is Verdict.VERIFIED, (name, report.findings)
        assert not evidence or all(each.recomputed for each in report.asked if each.decision != "none"), name


def test_a_report_says_which_messages_came_from_whom_and_what_became_of_them(bench: Bench) -> None:
    report = bench.recorded["busy", True]
    bot = 'Agent::"ops-bot"'
    told = [(each.kind, each.name, each.principal, each.accepted, each.proof) for each in report.messages]
    assert told == [
        ("signal", "put", bot, True, "signed"),
        ("signal", "put", bot, True, "signed"),
        ("signal", "put", bot, False, "signed"),
        ("signal", "put", None, False, "signed"),
        ("update", "swap", bot, True, "signed"),
        ("update", "checked", bot, True, "signed"),
        ("update", "swap", None, False, "signed"),
        ("signal", "close", bot, True, "signed"),
        ("query", "count", bot, True, "journal"),
        ("update", "checked", None, False, "journal"),
    ]
    assert [each[-5:] for each in sentences(report, "message-refused")] == ["[M31]", "[M11]", "[M11]"]


def test_what_a_run_only_observed_is_said_to_have_been_handled(bench: Bench) -> None:
    report = bench.recorded["observed", True]
    assert len(sentences(report, "message-observed")) == 2
    assert "message-refused" not in codes(report)


def test_a_signal_that_nobody_hears_and_one_that_waited_for_its_handler_are_told_apart_from_what_is_proven(
    bench: Bench,
) -> None:
    [unheard] = sentences(bench.recorded["busy", True], "message-unmatched")
    assert "unheard" in unheard
    [late] = sentences(bench.recorded["late", True], "message-unmatched")
    assert "handler came late" in late
    [opened] = [each for each in bench.recorded["late", True].messages if each.name == "late"]
    assert (opened.principal, opened.accepted, opened.proof) == (None, True, "signed")


def test_permits_that_the_run_before_used_are_refused_in_the_run_that_continues_it(bench: Bench) -> None:
    refused = [(each.name, each.accepted) for each in bench.recorded["again.last", True].messages]
    assert refused == [("put", False), ("swap", True), ("close", True)]


def test_requests_that_left_no_event_hide_no_message(bench: Bench) -> None:
    for evidence in (True, False):
        report = bench.recorded["locally", evidence]
        handled = [each for each in report.messages if each.event_id is not None]
        assert [each.proof for each in handled] == ["signed"] * 3


def test_signals_between_workflows_are_shown_on_both_sides(bench: Bench) -> None:
    [sent] = bench.recorded["sender", True].sent
    assert (sent.kind, sent.proven, sent.refused) == ("signal", True, None)
    [denied] = bench.recorded["shouter", True].sent
    assert (denied.proven, "no shouting" in (denied.refused or "")) == (True, True)
    box = bench.recorded["box", True]
    assert [(each.sender or "", each.accepted) for each in box.messages[:2]] == [
        (bench.recorded["sender", True].workflow_id, True),
        ("", False),
    ]
    assert bench.recorded["listener", True].messages[0].sender


def test_nexus_calls_are_shown_with_what_their_handler_decided(bench: Bench) -> None:
    for name, decision in (
        ("caller", "allow"),
        ("caller.denied", "deny"),
        ("below", "allow"),
        ("below.denied", "deny"),
    ):
        report = bench.recorded[name, True]
        [call] = report.sent
        assert (call.kind, call.proven) == ("nexus", True)
        decided = [each for each in report.asked if each.by == "nexus"]
        assert {(each.statement, each.decision, each.recomputed) for each in decided} == {("call", decision, True)}
    [opened] = bench.recorded["opener", True].sent
    assert (opened.kind, opened.proven, opened.refused) == ("signal-with-start", True, None)


def test_every_grant_and_permit_is_found_with_who_was_asked_for_it(bench: Bench) -> None:
    for name in ("busy", "again", "again.last", "listener", "sender", "below"):
        report = bench.recorded[name, True]
        assert "authority-unrecorded" not in codes(report), name
        assert "grant" in {each.statement for each in report.asked}, name
    assert "authority-unrecorded" in codes(bench.recorded["busy", False], Severity.UNPROVEN)
    assert "call-unrecorded" in codes(bench.recorded["caller", False], Severity.UNPROVEN)


# What was.


@pytest.mark.rule("heard.I5")
@pytest.mark.parametrize("kind", [SIGNALED, ACCEPTED])
def test_a_message_that_was_taken_out_is_missed(bench: Bench, kind: str) -> None:
    events, place = bench.runs["busy"], places(bench, "busy", kind)[0]
    report = audited(bench, renumbered([*events[:place], *events[place + 1 :]]), NoEvidence())
    assert "message-missing" in codes(report, VIOLATION)


@pytest.mark.rule("messages.I1", "messages.I3")
@pytest.mark.parametrize(
    "edit",
    [
        lambda it: setattr(it.input.payloads[0], "data", b'"another"'),
        lambda it: setattr(it, "signal_name", "close"),
        lambda it: it.header.fields.clear(),
        lambda it: it.input.payloads.add(data=b"1"),
    ],
    ids=["arguments", "name", "permit", "an argument more"],
)
def test_a_message_that_was_changed_is_flagged(bench: Bench, edit: Callable[[Any], None]) -> None:
    report = audited(bench, touched(bench, "busy", SIGNALED, edit), NoEvidence())
    assert "message-missing" in codes(report, VIOLATION)


def test_an_update_that_was_changed_is_flagged(bench: Bench) -> None:
    def other(it: Any) -> None:
        it.accepted_request.input.args.payloads[0].data = b'"another"'

    assert "message-missing" in codes(audited(bench, touched(bench, "busy", ACCEPTED, other), NoEvidence()), VIOLATION)


@pytest.mark.rule("heard.I6")
def test_a_run_that_accepted_what_nobody_permitted_is_flagged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the auditor finds wrong with a message that the run took: here, that its permit is for somebody else."""

    def refusing(*args: Any, **kwargs: Any) -> Any:
        raise StatementError("M14", "The permit is for another")

    monkeypatch.setattr(messages, "verify_message", refusing)
    assert "message-unpermitted" in codes(audited(bench, bench.runs["busy"], NoEvidence()), VIOLATION)


@pytest.mark.rule("heard.I7")
def test_a_run_that_accepted_a_permit_twice_is_flagged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(heard.Used):
        def take(self, digest: str, iat: float) -> None:
            raise StatementError("M31", "It was used before")

    monkeypatch.setattr(traffic, "Used", Forgetful)
    assert "message-unpermitted" in codes(audited(bench, bench.runs["busy"], NoEvidence()), VIOLATION)


@pytest.mark.rule("heard.I8")
def test_messages_in_another_order_are_flagged(bench: Bench) -> None:
    events = list(bench.runs["busy"])
    first, second = places(bench, "busy", SIGNALED)[:2]
    events[first], events[second] = events[second], events[first]
    assert "messages-broken" in codes(audited(bench, renumbered(events), NoEvidence()), VIOLATION)


@pytest.mark.rule("heard.I9")
def test_an_update_that_was_added_is_flagged_and_a_signal_that_was_added_is_not_called_handled(bench: Bench) -> None:
    for kind, code in ((ACCEPTED, "messages-broken"), (SIGNALED, "message-unmatched")):
        events, place = bench.runs["busy"], places(bench, "busy", kind)[0]
        report = audited(bench, renumbered([*events[:place], events[place], *events[place:]]), NoEvidence())
        before = bench.recorded["busy", False]
        assert len(sentences(report, code)) > len(sentences(before, code))
        assert len([each for each in report.messages if each.proof == "signed"]) == len(
            [each for each in before.messages if each.proof == "signed"]
        )


@pytest.mark.rule("heard.I10")
def test_a_seal_that_hands_on_other_permits_than_were_used_is_flagged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard.Used, "carried", lambda *_: ((), None))
    assert "messages-broken" in codes(audited(bench, bench.runs["again"]), VIOLATION)


@pytest.mark.rule("traffic.I11")
def test_a_signal_that_a_journal_tells_of_and_the_history_does_not_have_is_flagged(
    bench: Bench, records: list[Record]
) -> None:
    wanted = of_run(bench, "busy", name="put", accepted=True)
    claims = next(
        body for body in (json.loads(each.body) for each in records if each.kind == "message") if wanted(body)
    )
    item = handled_message("signal", "elsewhere", claims["args"], claims["token"], None)
    report = lying(bench, records, "busy", "message", wanted, name="elsewhere", message=item)
    assert "message-missing" in codes(report, VIOLATION)
    for changes in ({"rule": "M11"}, {"principal": 'User::"other"'}, {"statement": "another"}, {"message": item}):
        assert "evidence-invalid" in codes(lying(bench, records, "busy", "message", wanted, **changes), VIOLATION)


@pytest.mark.rule("sent.U1")
@pytest.mark.parametrize(
    "edit",
    [
        lambda it: it.header.fields.clear(),
        lambda it: setattr(it, "signal_name", "close"),
        lambda it: setattr(it.workflow_execution, "workflow_id", "another"),
        lambda it: setattr(it.input.payloads[0], "data", b'"another"'),
    ],
    ids=["message", "name", "target", "arguments"],
)
@pytest.mark.parametrize("name", ["sender", "shouter"])
def test_a_signal_that_left_otherwise_than_it_was_signed_is_flagged(
    bench: Bench, name: str, edit: Callable[[Any], None]
) -> None:
    report = audited(bench, touched(bench, name, SENT, edit), NoEvidence())
    assert "signal-unsigned" in codes(report, VIOLATION)


@pytest.mark.rule("sent.U1")
def test_the_message_of_another_run_is_flagged(bench: Bench) -> None:
    def borrowed(it: Any) -> None:
        other = bench.runs["shouter"][places(bench, "shouter", SENT)[0]]
        it.CopyFrom(attributes_of(other))

    report = audited(bench, touched(bench, "sender", SENT, borrowed), NoEvidence())
    assert "signal-unsigned" in codes(report, VIOLATION)


@pytest.mark.rule("sent.U2")
@pytest.mark.parametrize(
    "edit",
    [
        lambda it: it.nexus_header.clear(),
        lambda it: setattr(it, "operation", "another"),
        lambda it: setattr(it, "endpoint", "another"),
        lambda it: setattr(it.input, "data", b'"another"'),
    ],
    ids=["header", "operation", "endpoint", "input"],
)
def test_a_nexus_call_that_left_otherwise_than_it_was_signed_is_flagged(
    bench: Bench, edit: Callable[[Any], None]
) -> None:
    report = audited(bench, touched(bench, "caller", CALLED, edit), NoEvidence())
    assert "call-unsigned" in codes(report, VIOLATION)


@pytest.mark.rule("sent.U3")
def test_a_start_with_a_signal_that_left_otherwise_than_it_was_signed_is_flagged(bench: Bench) -> None:
    def emptied(it: Any) -> None:
        it.input.data = it.input.data.replace(b"exequatur-grant", b"exequatur-groom")

    def lettered(it: Any) -> None:
        it.input.data = it.input.data.replace(b"close", b"clean")

    for edit in (emptied, lettered):
        report = audited(bench, touched(bench, "opener", CALLED, edit), NoEvidence())
        assert "signal-unsigned" in codes(report, VIOLATION)


@pytest.mark.rule("sent.U4")
@pytest.mark.parametrize(
    ("name", "kind", "code"), [("sender", SENT, "signal-unsigned"), ("caller", CALLED, "call-unsigned")]
)
def test_what_is_sent_twice_with_one_statement_is_flagged(bench: Bench, name: str, kind: str, code: str) -> None:
    events, [place] = bench.runs[name], places(bench, name, kind)
    report = audited(bench, renumbered([*events[:place], events[place], *events[place:]]), NoEvidence())
    assert code in codes(report, VIOLATION)


@pytest.mark.rule("asked.B1")
def test_an_authority_that_decided_otherwise_than_the_policies_is_flagged(bench: Bench, records: list[Record]) -> None:
    def permitted(body: dict[str, Any]) -> bool:
        return body["workflow_id"] == bench.recorded["busy", True].workflow_id and "permit" in body

    assert "authority-differs" in codes(
        lying(bench, records, "busy", "authority", permitted, policies=["calm"]), VIOLATION
    )
    loud = json.dumps({"run": {}, "message": {"name": "put", "sender": "shouter"}})
    assert "authority-differs" in codes(lying(bench, records, "busy", "authority", permitted, facts=loud), VIOLATION)


@pytest.mark.rule("asked.B2")
@pytest.mark.parametrize(
    "changes",
    [
        {"principal": 'User::"other"'},
        {"decision": "deny"},
        {"decision": "none"},
        {"policies": []},
        {"vouched": {"attributes": {"level": 9}, "parents": []}},
        {"action": "workflow.query"},
    ],
    ids=lambda changes: "-".join(f"{name}" for name in changes),
)
def test_a_record_that_says_another_thing_than_the_permit_is_flagged(
    bench: Bench, records: list[Record], changes: dict[str, Any]
) -> None:
    def permitted(body: dict[str, Any]) -> bool:
        there = body["workflow_id"] == bench.recorded["busy", True].workflow_id
        return there and "permit" in body and body["action"] == "workflow.signal"

    report = lying(bench, records, "busy", "authority", permitted, **changes)
    assert "authority-contradicts" in codes(report, VIOLATION)


@pytest.mark.rule("asked.B2")
def test_a_record_that_says_another_thing_than_the_grant_or_the_message_is_flagged(
    bench: Bench, records: list[Record]
) -> None:
    workflow_id = bench.recorded["sender", True].workflow_id

    def granted(body: dict[str, Any]) -> bool:
        return body["workflow_id"] == workflow_id and body["action"] == "workflow.start"

    def sent(body: dict[str, Any]) -> bool:
        return body.get("sender") == workflow_id

    for wanted in (granted, sent):
        report = lying(bench, records, "sender", "authority", wanted, principal='User::"other"')
        assert "authority-contradicts" in codes(report, VIOLATION)


@pytest.mark.rule("asked.B3")
@pytest.mark.parametrize(
    "changes",
    [{"principal": 'User::"other"'}, {"statement": "A" * 43}, {"forbid": ["forbid(principal, action, resource);"]}],
    ids=["principal", "call", "restriction"],
)
def test_a_handler_that_wrote_down_another_call_is_flagged(
    bench: Bench, records: list[Record], changes: dict[str, Any]
) -> None:
    report = lying(bench, records, "caller", "nexus", of_run(bench, "caller"), **changes)
    assert "authority-contradicts" in codes(report, VIOLATION)
    assert "authority-differs" in codes(
        lying(bench, records, "below", "nexus", of_run(bench, "below"), decision="deny"), VIOLATION
    )


# Elsewhere.


def test_what_authorities_and_handlers_decided_is_asked_again_in_a_comparison(reached: Runs) -> None:
    skipped: Counter[str] = Counter()
    asked = list(decisions_in(Evidence(str(reached.state)), skipped))
    actions = {each.action for each in asked}
    assert {"workflow.start", "workflow.signal", "workflow.update", "workflow.query", "nexus.start"} <= actions
    assert "the record cannot be read" not in skipped
    denied = next(each for each in asked if each.action == "workflow.signal" and each.decision == "deny")
    assert denied.facts["message"]["sender"].startswith("shouter")


@pytest.mark.rule("bundle.W8")
@pytest.mark.parametrize("name", ["busy", "sender", "shouter", "caller", "box"])
def test_an_evidence_document_holds_the_statements_of_messages_and_stands_by_itself(bench: Bench, name: str) -> None:
    history = of_events(bench.runs[name])
    proofs = make_proofs(history, history, [])
    document = json.loads(proofs.model_dump_json())
    without = [each for each in proofs.statements if type_of(each) not in (Permit.typ, Message.typ, NexusCall.typ)]
    held = verify_proofs(document, [], [], bench.trust).statements
    assert held > verify_proofs({**document, "statements": without}, [], [], bench.trust).statements
    if name != "sender":
        return
    other = make_proofs(*[of_events(bench.runs["shouter"])] * 2, [])
    [borrowed] = [each for each in other.statements if type_of(each) == Message.typ]
    with pytest.raises(EvidenceError):
        verify_proofs({**document, "statements": [*document["statements"], borrowed]}, [], [], bench.trust)


@pytest.mark.parametrize("name", ["box", "caller"])
def test_every_mutant_of_a_run_is_detected_or_known_to_be_neutral(bench: Bench, name: str) -> None:
    tally = judged(bench, {name: 1.0})
    assert not tally.missed, tally.table()


def test_a_sample_of_the_mutants_of_every_other_run_is_detected_or_known_to_be_neutral(bench: Bench) -> None:
    tally = judged(bench, dict.fromkeys((name for name in bench.runs if name not in ("box", "caller")), 0.05))
    assert not tally.missed, tally.table()
