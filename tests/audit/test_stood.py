"""Audits of runs that stand on approvals, renewed grants, restrictions, resets and completions from outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit import agreed, recompute
from exequatur.audit.activities import activities_of
from exequatur.audit.agreed import Challenges, misasked
from exequatur.audit.bundle import make_proofs, verify_proofs
from exequatur.audit.decided import Wanted, archived, as_recorded, asked_of, of_record, own_question_of, record_of
from exequatur.audit.decisions import Bundles
from exequatur.audit.evidence import Decision, DecisionRecord, NoEvidence, records_of_journal
from exequatur.audit.history import of_events
from exequatur.audit.recorded import Skipped, decisions_in
from exequatur.audit.records import Evidence
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.resets import Resets
from exequatur.audit.restrictions import narrower
from exequatur.audit.standing import Standing
from exequatur.audit.start import Start, read_start
from exequatur.authoring.request import ask
from exequatur.authority.state import State, open_state
from exequatur.errors import EvidenceError, StatementError
from exequatur.gate.wire import ACTIVITY_HEADER
from exequatur.lineage.record import Record
from exequatur.policy.arguments import Conversion
from exequatur.policy.engine import Verdict as Answer
from exequatur.policy.engine import decide
from exequatur.statements.approvals import APPROVAL_SIGNAL, Agreement
from exequatur.statements.encoding import compact_json, digest
from exequatur.statements.jws import Token, parse, sign, type_of
from exequatur.statements.models import Approval, Challenge, Grant, Receipt, Request, Restriction
from exequatur.statements.packing import pack, unpack
from tests.audit.journals import relinked
from tests.audit.judging import Bench, judged
from tests.audit.mutants import Events, attributes_of, edited, kind_of, renumbered
from tests.audit.runs import Runs
from tests.audit.stood import record
from tests.audit.test_verify import audited, codes, sentence, told

NAMES = (
    "approved", "renewed", "renewed.child", "renewed.last", "restricted", "restricted.last", "restricted.child-True",
    "restricted.child-False", "restricted.child-True-odd", "outside", "stumbles", "scheduled",
)  # fmt: skip
FAILED, ASKED, SIGNALLED = "activity_task_failed", "activity_task_scheduled", "workflow_execution_signaled"


@pytest_asyncio.fixture(scope="module")
async def stood(target: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run of each kind, with the journals of the workers that are gone by now."""
    folder: Path = tmp_path_factory.mktemp("stood")
    return await record(target, folder / "all")


@pytest.fixture(scope="module")
def bench(stood: Runs) -> Iterator[Bench]:
    bench = Bench(stood)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def state(stood: Runs) -> State:
    """The authority's keys."""
    return open_state(stood.state)


@pytest.fixture(scope="module")
def logs(stood: Runs) -> list[list[Record]]:
    """The journals of the workers."""
    return [[each for each, _ in records_of_journal(file)] for file in sorted(stood.journal.glob("*.db"))]


def places(events: Events, kind: str) -> list[int]:
    return [at for at, event in enumerate(events) if kind_of(event) == kind]


def touched(events: Events, at: int, edit: Callable[[Any], None]) -> Events:
    return (*events[:at], edited(events[at], lambda it: edit(attributes_of(it))), *events[at + 1 :])


def without(events: Events, at: int) -> Events:
    return renumbered((*events[:at], *events[at + 1 :]))


def detailed(**changes: Any) -> Callable[[Any], None]:
    """Changes what the details of a failure hold; ``None`` takes it out."""

    def edit(it: Any) -> None:
        payload = it.failure.application_failure_info.details.payloads[0]
        details = {**json.loads(payload.data), **changes}
        payload.data = json.dumps({name: value for name, value in details.items() if value is not None}).encode()

    return edit


def failing(events: Events, name: str, nth: int = 0) -> int:
    """The place of a failure whose details hold this."""
    found = [
        at
        for at in places(events, FAILED)
        if name in json.loads(attributes_of(events[at]).failure.application_failure_info.details.payloads[0].data)
    ]
    return found[nth]


def detail(event: HistoryEvent, name: str) -> str:
    text: str = json.loads(attributes_of(event).failure.application_failure_info.details.payloads[0].data)[name]
    return text


def signals(events: Events) -> list[int]:
    return [at for at in places(events, SIGNALLED) if attributes_of(events[at]).signal_name == APPROVAL_SIGNAL]


def signalled(event: HistoryEvent) -> Token[Approval]:
    return parse(json.loads(attributes_of(event).input.payloads[0].data), Approval)


def repacked(change: Callable[[list[str]], list[str]]) -> Callable[[Any], None]:
    """Changes the tokens in an activity's header."""

    def edit(it: Any) -> None:
        payload = it.header.fields[ACTIVITY_HEADER]
        payload.data = pack(change(unpack(payload.data)))

    return edit


def carrying(events: Events) -> int:
    """The place of the activity that carries approvals."""
    return next(
        at
        for at in places(events, ASKED)
        if any(
            type_of(each) == Approval.typ
            for each in unpack(attributes_of(events[at]).header.fields[ACTIVITY_HEADER].data)
        )
    )


def lying(
    bench: Bench, logs: list[list[Record]], name: str, which: Callable[[dict[str, Any]], bool], **changes: Any
) -> RunReport:
    """The audit of an untouched run with a journal in which a decision says something else."""
    run, records = bench.recorded[name, True].run_id, []
    for log in logs:
        changed = log
        for at, each in enumerate(log):
            claims = json.loads(each.body) if each.kind == "decision" else {}
            if claims.get("run_id") == run and which(claims):
                changed = relinked(log, at, compact_json({**claims, **changes}))
                break
        records += changed
    return audited(bench, name, bench.runs[name], told(records))


# What was not touched.


@pytest.mark.rule("recompute.D5")
@pytest.mark.rule("recompute.D6")
def test_no_untouched_run_is_flagged(bench: Bench) -> None:
    assert set(bench.runs) == set(NAMES)
    for (name, evidence), report in bench.recorded.items():
        assert not codes(report, Severity.VIOLATION), (name, evidence, report.findings)
        assert not evidence or report.verdict is Verdict.VERIFIED, (name, report.findings)
        if evidence:
            assert all(
                each.recomputed for one in report.activities for each in one.decisions if each.decision != "none"
            )


def test_the_report_says_what_each_activity_stood_on(bench: Bench) -> None:
    approved = bench.recorded["approved", True]
    assert [(each.outcome, each.approved_by) for each in approved.activities if each.activity_type == "transfer"] == [
        ("challenged", ()),
        ("completed", ('User::"fay"', 'User::"rob"')),
        ("challenged", ()),
        ("challenged", ()),
        ("completed", ('User::"rob"', 'User::"sam"')),
    ]
    assert [each.outcome for each in bench.recorded["renewed", True].activities][:3] == [
        "completed",
        "renewed",
        "renewed",
    ]
    assert "run-renewed" in codes(bench.recorded["renewed", True], Severity.NOTICE)
    [outside] = bench.recorded["outside", True].activities
    assert outside.completed_by == 'Agent::"auditee"'
    restricted = [each.restricted for each in bench.recorded["restricted", True].activities]
    assert restricted[0] is None
    assert restricted[1] is not None
    assert restricted[1].activities == ("look",)
    assert [each.outcome for each in bench.recorded["restricted.child-True", True].activities] == [
        "completed", "denied", "rejected",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_the_mutants_of_each_run_is_detected_or_known_to_be_neutral(bench: Bench, name: str) -> None:
    tally = judged(bench, {name: 0.05})
    assert not tally.missed, tally.table()


# Approvals.


@pytest.mark.rule("agreed.E3")
@pytest.mark.parametrize("nth", [0, 1])
def test_an_approval_that_no_signal_brought_is_missed(bench: Bench, nth: int) -> None:
    events = bench.runs["approved"]
    for changed in (
        without(events, signals(events)[nth]),
        touched(events, signals(events)[nth], lambda it: setattr(it.input.payloads[0], "data", b'"nothing"')),
        touched(events, signals(events)[nth], lambda it: setattr(it, "signal_name", "another")),
    ):
        for evidence in (bench.journals, NoEvidence()):
            report = audited(bench, "approved", changed, evidence)
            assert "approval-missing" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("agreed.E3")
def test_a_challenge_that_no_activity_failed_with_is_missed(bench: Bench) -> None:
    events = bench.runs["approved"]
    second = detail(events[failing(events, "challenge", 1)], "challenge")
    changed = touched(events, failing(events, "challenge"), detailed(challenge=second))
    found = codes(audited(bench, "approved", changed, NoEvidence()), Severity.VIOLATION)
    assert {"challenge-invalid", "approval-missing"} <= found


@pytest.mark.rule("agreed.E1")
@pytest.mark.parametrize(
    "change",
    [{"challenge": None}, {"challenge": "a.b.c"}, {"challenge": 17}, {"challenge": "x" * 20_000}],
    ids=["none", "garbage", "a number", "too long"],
)
def test_a_failure_whose_challenge_cannot_be_read_is_flagged(bench: Bench, change: dict[str, Any]) -> None:
    events = bench.runs["approved"]
    changed = touched(events, failing(events, "challenge"), detailed(**change))
    assert "challenge-invalid" in codes(audited(bench, "approved", changed, NoEvidence()), Severity.VIOLATION)


def test_a_challenge_that_is_passed_off_as_a_denial_is_flagged(bench: Bench) -> None:
    events = bench.runs["approved"]

    def denied(it: Any) -> None:
        it.failure.application_failure_info.type = "AuthorizationDenied"

    for nth in (0, 1):
        report = audited(bench, "approved", touched(events, failing(events, "challenge", nth), denied), NoEvidence())
        assert "denial-unsigned" in codes(report, Severity.VIOLATION)


def test_approvals_that_are_cut_out_of_the_header_are_missed_by_the_decision(bench: Bench) -> None:
    events = bench.runs["approved"]

    def fewer(tokens: list[str]) -> list[str]:
        last = max(at for at, each in enumerate(tokens) if type_of(each) == Approval.typ)
        return [*tokens[:last], *tokens[last + 1 :]]

    report = audited(bench, "approved", touched(events, carrying(events), repacked(fewer)))
    assert "approval-miscounted" in codes(report, Severity.VIOLATION)


def test_an_approval_in_the_header_that_does_not_verify_is_flagged(bench: Bench) -> None:
    events = bench.runs["approved"]

    def bent(tokens: list[str]) -> list[str]:
        return [f"{each[:-6]}AAAAAA" if type_of(each) == Approval.typ else each for each in tokens]

    report = audited(bench, "approved", touched(events, carrying(events), repacked(bent)), NoEvidence())
    assert "approval-invalid" in codes(report, Severity.VIOLATION)


def rejection(state: State, approval: Token[Approval], **changes: Any) -> bytes:
    claims = approval.claims.model_copy(update={"verdict": "reject", "sub": 'User::"sam"', **changes})
    return json.dumps(sign(claims, state.signer("approval")).text).encode()


@pytest.mark.rule("agreed.E4")
def test_what_somebody_rejected_before_enough_agreed_is_flagged_if_it_is_asked_for_all_the_same(
    bench: Bench, state: State
) -> None:
    events = bench.runs["approved"]
    first, second, *_ = signals(events)
    said = rejection(state, signalled(events[second]))
    extra = edited(events[first], lambda it: setattr(attributes_of(it).input.payloads[0], "data", said))
    before = renumbered((*events[: first + 1], extra, *events[first + 1 :]))
    after = renumbered((*events[: second + 1], extra, *events[second + 1 :]))
    assert "approval-rejected" in codes(audited(bench, "approved", before), Severity.VIOLATION)
    assert 'User::"sam"' in sentence(audited(bench, "approved", before), "approval-rejected")
    assert "approval-rejected" not in codes(audited(bench, "approved", after))
    # One that had ended when it came is none.
    began = signalled(events[first]).claims.iat - 30
    late = rejection(state, signalled(events[second]), iat=began, exp=began + 1)
    extra = edited(events[first], lambda it: setattr(attributes_of(it).input.payloads[0], "data", late))
    ended = renumbered((*events[: first + 1], extra, *events[first + 1 :]))
    assert "approval-rejected" not in codes(audited(bench, "approved", ended))


def test_a_signal_that_brought_nothing_is_told_of(bench: Bench) -> None:
    events = bench.runs["approved"]
    first = signals(events)[0]
    extra = edited(events[first], lambda it: setattr(attributes_of(it).input.payloads[0], "data", b'"nothing"'))
    report = audited(bench, "approved", renumbered((*events[: first + 1], extra, *events[first + 1 :])))
    assert "approval-dropped" in codes(report, Severity.NOTICE)


def counting(approvers: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(claims: dict[str, Any]) -> dict[str, Any]:
        facts = json.loads(claims["facts"])
        return {**claims, "facts": json.dumps({**facts, "approvals": {"groups": ["finance"], "approvers": approvers}})}

    return change


@pytest.mark.rule("agreed.E6")
@pytest.mark.rule("agreed.E7")
@pytest.mark.parametrize("local", [False, True])
def test_a_decision_that_counts_other_people_is_flagged(bench: Bench, logs: list[list[Record]], local: bool) -> None:
    def which(claims: dict[str, Any]) -> bool:
        facts = json.loads(claims["facts"])
        return "approvals" in facts and facts["activity"]["local"] is local

    run = bench.recorded["approved", True].run_id
    [found] = [
        claims
        for log in logs
        for each in log
        if each.kind == "decision" and (claims := json.loads(each.body))["run_id"] == run and which(claims)
    ]
    for approvers in (['User::"fay"', 'User::"ned"'], ['User::"fay"', 'User::"rob"', 'User::"sam"'], []):
        report = lying(bench, logs, "approved", which, **counting(approvers)(found))
        assert "approval-miscounted" in codes(report, Severity.VIOLATION), approvers


def test_a_decision_that_counts_approvals_without_any_is_flagged(bench: Bench, logs: list[list[Record]]) -> None:
    def which(claims: dict[str, Any]) -> bool:
        return bool(claims["activity_type"] == "look")

    run = bench.recorded["approved", True].run_id
    bodies = (json.loads(each.body) for log in logs for each in log if each.kind == "decision")
    found = next(each for each in bodies if each["run_id"] == run and which(each))
    report = lying(bench, logs, "approved", which, **counting(['User::"fay"'])(found))
    assert "approval-miscounted" in codes(report, Severity.VIOLATION)


@pytest.fixture
def challenge(bench: Bench) -> Token[Challenge]:
    events = bench.runs["approved"]
    return parse(detail(events[failing(events, "challenge")], "challenge"), Challenge)


@pytest.mark.rule("agreed.E3")
def test_a_challenge_is_answered_after_it_was_made(bench: Bench, challenge: Token[Challenge]) -> None:
    history = of_events(bench.runs["approved"])
    chain = read_start(history, bench.trust.anchors).chain
    assert chain is not None
    failed = next(each for each in activities_of(history) if each.our_failure == "AuthorizationChallenge")
    signed = failed.denial()
    assert signed is not None
    challenges = Challenges(history, chain.grant.claims.aud, bench.trust.anchors)
    challenges.failed(challenge.text, signed[1], parse(signed[0], Receipt).claims, {}, chain, 9)
    challenges.answered(Agreement(challenge, ()), 10)
    with pytest.raises(StatementError):
        challenges.answered(Agreement(challenge, ()), 9)


@pytest.mark.rule("recompute.D7")
def test_approvals_that_the_policies_ask_more_of_count_for_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "decision-differs" not in codes(bench.recorded["approved", True])
    # As if the challenge had asked one person only.
    asks_more = recompute.asks_more

    def fewer(bundle: Any, verdicts: Any, challenge: Challenge) -> bool:
        needs = tuple(each.model_copy(update={"quorum": 1}) for each in challenge.needs)
        return asks_more(bundle, verdicts, challenge.model_copy(update={"needs": needs}))

    monkeypatch.setattr(recompute, "asks_more", fewer)
    report = audited(bench, "approved", bench.runs["approved"])
    assert "than the people who agreed were asked for" in sentence(report, "decision-differs")


@pytest.mark.rule("agreed.E5")
def test_people_agree_to_one_request(bench: Bench, challenge: Token[Challenge]) -> None:
    history = of_events(bench.runs["approved"])
    challenges = Challenges(history, "exequatur.local/default/default", bench.trust.anchors)
    assert challenges.passed(challenge, "one") is None
    assert challenges.passed(challenge, "one") is None
    assert challenges.passed(challenge, "another") is not None


@pytest.mark.rule("agreed.E2")
@pytest.mark.parametrize(
    "change", [{"quorum": 1}, {"group": "everybody"}, {"ttl": 86_400.0}], ids=lambda each: next(iter(each))
)
def test_a_challenge_that_asks_for_fewer_or_others_than_the_policies_is_flagged(
    bench: Bench, challenge: Token[Challenge], change: dict[str, Any]
) -> None:
    bundle = Bundles(bench.journals).get(challenge.claims.bundle)
    assert bundle is not None
    run = {"type": "Workflow", "id": challenge.claims.workflow_id}
    entity = {"uid": {"type": "Agent", "id": "auditee"}, "attrs": {}, "parents": []}
    answer: Answer = decide(bundle, entity, {"type": "Action", "id": "transfer"}, run, Conversion({}, {}), {})
    assert misasked(challenge.claims, bundle, answer, None, None) is None
    needs = tuple(each.model_copy(update=change) for each in challenge.claims.needs)
    other = challenge.claims.model_copy(update={"needs": needs})
    assert misasked(other, bundle, answer, None, None) is not None


@pytest.mark.rule("agreed.E1")
@pytest.mark.parametrize("change", ["version", "mode", "request", "worker", "lifetime", "length"])
def test_a_challenge_is_of_the_request_that_failed_and_of_a_run_that_can_answer(
    bench: Bench, challenge: Token[Challenge], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = of_events(bench.runs["approved"])
    chain = read_start(history, bench.trust.anchors).chain
    assert chain is not None
    failed = next(each for each in activities_of(history) if each.our_failure == "AuthorizationChallenge")
    signed = failed.denial()
    assert signed is not None
    receipt = parse(signed[0], Receipt).claims
    expected: dict[str, object] = {"request": challenge.claims.request}
    challenges = Challenges(history, chain.grant.claims.aud, bench.trust.anchors)
    assert challenges.failed(challenge.text, signed[1], receipt, expected, chain, 9).digest == challenge.digest
    if change == "request":
        expected = {"request": digest("another")}
    elif change == "worker":
        receipt = receipt.model_copy(update={"iss": "another"})
    elif change == "length":
        claims = challenge.claims.model_copy(update={"exp": challenge.claims.iat + 3700})
        longer = Token(**{**vars(challenge), "claims": claims})
        monkeypatch.setattr(agreed, "verify_challenge", lambda *_, **__: longer)
    else:
        changed = {
            "version": {"ver": 1},
            "mode": {"mode": "observe"},
            "lifetime": {"renew_until": challenge.claims.iat + 1},
        }
        granted = chain.grant.claims.model_copy(update=changed[change])
        chain = type(chain)(Token(**{**vars(chain.grant), "claims": granted}), chain.delegations)
    with pytest.raises(StatementError):
        challenges.failed(challenge.text, signed[1], receipt, expected, chain, 9)


# Renewals.


@pytest.mark.rule("standing.J1")
def test_a_renewed_grant_that_renews_something_else_is_flagged(bench: Bench, state: State) -> None:
    events = bench.runs["renewed"]
    at = failing(events, "renewal")
    renewed = parse(detail(events[at], "renewal"), Grant)
    before = read_start(of_events(events), bench.trust.anchors).chain
    assert before is not None
    others = {
        "longer": {"renew_until": (before.grant.claims.renew_until or 0) + 60},
        "early": {"iat": before.expires - 120, "start_by": before.expires - 120, "nbf": before.expires - 120},
        "another leaf": {"renews": digest("another")},
        "another principal": {"sub": 'Agent::"another"'},
    }
    for what, change in others.items():
        text = sign(renewed.claims.model_copy(update=change), state.signer("grant")).text
        report = audited(bench, "renewed", touched(events, at, detailed(renewal=text)), NoEvidence())
        assert "renewal-invalid" in codes(report, Severity.VIOLATION), what
    report = audited(
        bench, "renewed", touched(events, at, detailed(renewal=f"{renewed.text[:-6]}AAAAAA")), NoEvidence()
    )
    assert "renewal-invalid" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("standing.J2")
def test_a_request_under_a_renewed_grant_that_no_failure_brought_is_flagged(bench: Bench) -> None:
    events = bench.runs["renewed"]
    for at in (failing(events, "renewal"), failing(events, "renewal", 1)):
        events = touched(events, at, detailed(renewal=None))
    report = audited(bench, "renewed", events, NoEvidence())
    assert "request-invalid" in codes(report, Severity.VIOLATION)
    assert "another grant" in sentence(report, "request-invalid")


@pytest.mark.rule("standing.J1")
@pytest.mark.parametrize("change", [{"ver": 1}, {"mode": "observe"}], ids=str)
def test_nothing_renews_the_grant_of_a_run_that_cannot_answer(bench: Bench, change: dict[str, Any]) -> None:
    events = bench.runs["renewed"]
    chain = read_start(of_events(events), bench.trust.anchors).chain
    assert chain is not None
    claims = chain.grant.claims.model_copy(update=change)
    other = type(chain)(Token(**{**vars(chain.grant), "claims": claims}))
    renewal = detail(events[failing(events, "renewal")], "renewal")
    with pytest.raises(StatementError, match="cannot answer"):
        Standing(other, bench.trust.anchors).offered(renewal, other.leaf.digest, 20)


@pytest.mark.rule("standing.J1")
@pytest.mark.rule("standing.J2")
def test_a_run_does_not_go_back_to_an_earlier_grant(bench: Bench) -> None:
    events = bench.runs["renewed"]
    chain = read_start(of_events(events), bench.trust.anchors).chain
    assert chain is not None
    standing, first = Standing(chain, bench.trust.anchors), chain.leaf.digest
    renewed = standing.offered(detail(events[failing(events, "renewal")], "renewal"), first, 20)
    assert standing.moved_to(renewed.digest, 19) is None
    assert standing.moved_to(first, 21) is not None
    assert standing.moved_to(renewed.digest, 22) is not None
    assert standing.moved_to(first, 23) is None
    assert standing.may(first, 21)
    assert standing.renewals == 1
    with pytest.raises(StatementError):
        standing.offered(renewed.text, digest("another"), 24)


def test_a_child_and_the_run_that_continues_stand_on_the_renewed_grant(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standing, "offered", lambda *_: (_ for _ in ()).throw(StatementError("J1", "not renewed")))
    found = codes(audited(bench, "renewed", bench.runs["renewed"]), Severity.VIOLATION)
    assert {"renewal-invalid", "child-undelegated", "seal-invalid", "request-invalid"} <= found


# Restrictions.


def of_type(name: str, decision: str, *, local: bool = False) -> Callable[[dict[str, Any]], bool]:
    def which(claims: dict[str, Any]) -> bool:
        here = json.loads(claims["facts"]).get("activity", {}).get("local") is local
        return here and (claims["activity_type"], claims["decision"]) == (name, decision) and "restriction" in claims

    return which


@pytest.mark.rule("restrictions.F2")
@pytest.mark.parametrize("restriction", [None, {"activities": ["*"]}, {"activities": ["look"], "forbid": []}])
def test_a_decision_that_forgets_a_restriction_is_flagged(
    bench: Bench, logs: list[list[Record]], restriction: dict[str, Any] | None
) -> None:
    report = lying(bench, logs, "restricted", of_type("look", "allow"), restriction=restriction)
    assert "restriction-contradicts" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("restrictions.F3")
def test_a_local_activity_is_held_to_what_the_run_before_was_restricted_to(
    bench: Bench, logs: list[list[Record]]
) -> None:
    which = of_type("look", "allow", local=True)
    assert "restriction-contradicts" in codes(lying(bench, logs, "restricted.last", which, restriction=None))
    assert "restriction-contradicts" not in codes(bench.recorded["restricted.last", True])


@pytest.mark.rule("recompute.D6")
@pytest.mark.parametrize("name", ["look", "leaves"])
def test_what_a_run_was_restricted_from_and_was_allowed_is_flagged(
    bench: Bench, logs: list[list[Record]], name: str
) -> None:
    changes: dict[str, Any] = {"decision": "allow", "policies": ["all"], "fault": None}
    report = lying(bench, logs, "restricted", of_type(name, "deny"), **changes)
    assert "decision-differs" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("recompute.D5")
def test_a_child_that_policies_let_do_nothing_and_that_was_allowed_is_flagged(
    bench: Bench, logs: list[list[Record]]
) -> None:
    for changes in (
        {"decision": "allow", "policies": ["all"], "question": None, "arguments": '{"number": 1}'},
        {"question": None},
        {"question": "workflow.reset"},
        {"policies": ["all"]},
    ):
        report = lying(bench, logs, "restricted.child-True-odd", lambda _: True, **changes)
        assert "decision-differs" in codes(report, Severity.VIOLATION), changes


@pytest.mark.rule("restrictions.F1")
@pytest.mark.parametrize(
    ("given", "within"),
    [
        (None, False),
        (Restriction(activities=("look",), until=50.0, forbid=("a", "b")), True),
        (Restriction(activities=("look", "pay"), until=50.0, forbid=("a",)), False),
        (Restriction(activities=("*",), until=50.0, forbid=("a",)), False),
        (Restriction(until=50.0, forbid=("a",)), False),
        (Restriction(activities=(), until=101.0, forbid=("a",)), False),
        (Restriction(activities=(), forbid=("a",)), False),
        (Restriction(activities=(), until=100.0, forbid=("b",)), False),
    ],
)
def test_a_restriction_is_held_to_another_one(given: Restriction | None, within: bool) -> None:
    assert narrower(given, Restriction(activities=("look",), until=100.0, forbid=("a",))) is within
    assert narrower(given, Restriction())


def test_what_the_run_before_restricted_is_asked_of_requests_children_and_the_run_after(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Start, "handed", Restriction(activities=("nothing",)))
    report = audited(bench, "renewed", bench.runs["renewed"])
    assert {"restriction-dropped", "child-undelegated", "seal-invalid"} <= codes(report, Severity.VIOLATION)


def test_what_the_grant_does_not_allow_was_refused(bench: Bench, logs: list[list[Record]]) -> None:
    name = "restricted.child-True"
    assert bench.recorded[name, True].activities[-1].outcome == "rejected"

    def which(claims: dict[str, Any]) -> bool:
        return bool(claims["activity_type"] == "leaves")

    changes: dict[str, Any] = {"decision": "allow", "policies": ["all"], "principal": 'Agent::"auditee"'}
    asked = [each for each in activities_of(of_events(bench.runs[name])) if each.activity_type == "leaves"]
    token = parse(unpack(asked[0].headers[ACTIVITY_HEADER].data)[-1], Request)
    changes |= {"request": token.claims.jti, "request_digest": token.digest}
    report = lying(bench, logs, name, which, **changes)
    assert "the gate did not refuse it" in sentence(report, "request-invalid")


# Resets and completions from outside.


@pytest.mark.rule("resets.F5")
def test_attempts_beyond_the_last_one_are_explained_by_a_reset_only(bench: Bench, logs: list[list[Record]]) -> None:
    run = bench.recorded["stumbles", True].run_id
    [activity] = bench.recorded["stumbles", True].activities
    attempts = [each.attempt for each in activity.decisions]
    assert len(attempts) == 4
    assert max(attempts) > activity.attempts or attempts.count(1) > 1
    kept = [
        each
        for log in logs
        for each in log
        if not (each.kind == "decision" and json.loads(each.body)["run_id"] == run and "@" in (each.request or ""))
    ]
    report = audited(bench, "stumbles", bench.runs["stumbles"], told(kept))
    if max(attempts) > activity.attempts:
        assert "activity-missing" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("resets.F4")
@pytest.mark.rule("resets.F5")
def test_a_reset_is_told_by_its_record_or_by_an_earlier_use_of_the_request(
    bench: Bench, logs: list[list[Record]]
) -> None:
    run = bench.recorded["stumbles", True].run_id
    found = [
        Decision(each, DecisionRecord.model_validate_json(each.body))
        for log in logs
        for each in log
        if _tells_of(each, run, "decision")
    ]
    again = [each for each in found if "@" in (each.record.request or "")]
    assert again
    for each in again:
        [before] = [other for other in found if other.claims.attempt == each.claims.attempt and other not in again][:1]
        unmarked = Decision(replace(each.record, request=before.record.request), each.claims)
        assert Resets([each]).precedes(each)
        assert Resets([before, unmarked]).precedes(unmarked)
        assert not Resets([unmarked]).precedes(unmarked)
        assert not Resets([before, unmarked]).precedes(before)
        assert Resets([before, each]).after(before.claims, each.claims.attempt)
        assert not Resets([before, each]).after(each.claims, each.claims.attempt)


@pytest.mark.rule("resets.F4")
def test_a_reset_that_policies_forbid_is_recomputed_as_that(
    bench: Bench, logs: list[list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(bundle: Any, entity: Any, action: Any, *rest: Any) -> Answer:
        asked.append(action["id"])
        return decide(bundle, entity, action, *rest)

    monkeypatch.setattr(recompute, "decide", noted)
    audited(bench, "stumbles", bench.runs["stumbles"])
    assert asked.count("activity.reset") >= 1
    assert asked.count("stumbles") == 4


def test_what_was_completed_from_outside_had_to_begin(bench: Bench, logs: list[list[Record]]) -> None:
    report = lying(bench, logs, "outside", lambda _: True, decision="deny")
    assert "completion-contradicts" in codes(report, Severity.VIOLATION)
    run = bench.recorded["outside", True].run_id
    about = [each for log in logs for each in log if not _tells_of(each, run, "decision")]
    assert "evidence-missing" in codes(
        audited(bench, "outside", bench.runs["outside"], told(about)), Severity.UNCHECKED
    )
    about = [each for log in logs for each in log if not _tells_of(each, run, "authority")]
    assert "completion-unproven" in codes(audited(bench, "outside", bench.runs["outside"], told(about)))
    assert "completion-unproven" not in codes(bench.recorded["outside", True])


def _tells_of(each: Record, run_id: str, kind: str) -> bool:
    return each.kind == kind and json.loads(each.body).get("run_id") == run_id


@pytest.mark.parametrize("name", ["TemporalScheduledById", "TemporalScheduledStartTime"])
def test_a_scheduled_run_that_no_schedule_started_is_flagged(bench: Bench, name: str) -> None:
    events = touched(bench.runs["scheduled"], 0, lambda it: it.search_attributes.indexed_fields.pop(name))
    assert "start-not-granted" in codes(audited(bench, "scheduled", events), Severity.VIOLATION)


# The same as evidence, and as questions.


@pytest.mark.parametrize(
    "name", ["approved", "renewed", "renewed.child", "renewed.last", "restricted.child-True", "outside"]
)
def test_an_evidence_document_of_such_a_run_stands_by_itself(bench: Bench, name: str) -> None:
    history = of_events(bench.runs[name])
    proofs = json.loads(make_proofs(history, history, []).model_dump_json())
    verified = verify_proofs(proofs, [], [], bench.trust)
    assert verified.principal == 'Agent::"auditee"'
    kinds = {type_of(each) for each in proofs["statements"]}
    assert ({Challenge.typ, Approval.typ} <= kinds) is (name == "approved")


@pytest.mark.parametrize(
    ("name", "without", "says"),
    [
        ("approved", Challenge.typ, "not the challenge that it is for"),
        ("renewed", Grant.typ, "renews nothing|another grant|under another"),
    ],
)
def test_an_evidence_document_that_lacks_what_others_stand_on_is_refused(
    bench: Bench, name: str, without: str, says: str
) -> None:
    history = of_events(bench.runs[name])
    proofs = json.loads(make_proofs(history, history, []).model_dump_json())
    those = [each for each in proofs["statements"] if type_of(each) == without]
    gone = those if without == Challenge.typ else those[1:2]
    proofs["statements"] = [each for each in proofs["statements"] if each not in gone]
    with pytest.raises(EvidenceError, match=says):
        verify_proofs(proofs, [], [], bench.trust)


def test_a_document_with_a_grant_of_another_run_is_refused(bench: Bench) -> None:
    history = of_events(bench.runs["renewed"])
    proofs = json.loads(make_proofs(history, history, []).model_dump_json())
    other = make_proofs(of_events(bench.runs["outside"]), of_events(bench.runs["outside"]), []).statements[0]
    proofs["statements"].append(other)
    with pytest.raises(EvidenceError, match="renews nothing that the run stood on"):
        verify_proofs(proofs, [], [], bench.trust)


def test_a_comparison_of_policies_asks_what_was_asked_and_leaves_restrictions_out(stood: Runs, bench: Bench) -> None:
    skipped: Skipped = Skipped()
    found = list(decisions_in(Evidence(str(stood.state)), skipped))
    children = [each for each in found if each.action == "workflow.child" and each.decision == "deny"]
    assert children
    assert all(each.where.workflow_id.endswith("-odd") for each in children)
    assert skipped["denied because the run was restricted, whatever the policies in force say"] >= 6
    counted = [each for each in found if each.action == "transfer" and "approvals" in each.facts]
    assert {each.decision for each in counted} == {"allow"}


def test_what_was_denied_to_a_child_is_explained_as_that(stood: Runs, bench: Bench) -> None:
    [event] = [each for each in bench.runs["restricted.child-True-odd"] if kind_of(each) == ASKED]
    wanted = Wanted(bench.recorded["restricted.child-True-odd", True].workflow_id, attributes_of(event).activity_id)
    place, claims, _ = record_of([str(stood.state)], wanted)
    bundle = archived([str(stood.state)], claims.bundle)
    assert bundle is not None
    decided = of_record(place, claims, bundle, None)
    asked = own_question_of(decided, asked_of(decided, bundle), bundle)
    assert asked is not None
    assert asked.action == "workflow.child"
    assert as_recorded(decided, ask(bundle, asked))


def test_what_a_restriction_denied_says_so(stood: Runs, bench: Bench) -> None:
    activities = bench.recorded["restricted", True].activities
    for nth, said in ((2, "restriction of the run besides"), (3, None)):
        wanted = Wanted(bench.recorded["restricted", True].workflow_id, activities[nth].activity_id)
        place, claims, _ = record_of(
            [str(stood.state)], replace(wanted, run_id=bench.recorded["restricted", True].run_id)
        )
        decided = of_record(place, claims, None, None)
        if said is not None:
            assert any(said in note for note in decided.notes)
        else:
            assert decided.unasked is not None
            assert "restricted to other activities" in decided.unasked


def test_challenges_are_found_under_their_run(bench: Bench) -> None:
    report = bench.recorded["approved", True]
    kinds = [record.kind for record, _ in bench.journals.records_of(report.workflow_id, frozenset({report.run_id}))]
    assert kinds.count("challenge") == 3
