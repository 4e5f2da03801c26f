"""Checkpoints outside of the server: a notary signs what a history was, and nothing in it can change unnoticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.history.v1 import History
from temporalio.client import Client

from exequatur.audit.codec import decoded
from exequatur.audit.evidence import NoEvidence, journals_in
from exequatur.audit.history import RunHistory, history_from_json, of_events
from exequatur.audit.leaves import settled
from exequatur.audit.notary import Notary, prove, verify_proof
from exequatur.audit.report import RunReport, Severity, Verdict
from exequatur.audit.seals import check_checkpoints, with_checkpoints
from exequatur.audit.sources import StoreEvidence
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from exequatur.errors import EvidenceError
from exequatur.lineage.checkpoint import Checkpoint, cosign, namespace_origin, run_origin, verify
from exequatur.lineage.note import COSIGNATURE, VerifierKey
from exequatur.lineage.store import EvidenceStore
from exequatur.statements.keys import SigningKey
from tests.audit.runs import CONVERTER, Runs

SITE = "exequatur.local/default"
NAME = "example.org/notary"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EvidenceStore]:
    with EvidenceStore.open(tmp_path / "evidence.db") as opened:
        yield opened


@pytest.fixture
def notary(store: EvidenceStore) -> Notary:
    return Notary(store, SigningKey.generate(), NAME, site=SITE, namespace="default")


def history_of(runs: Runs, name: str) -> RunHistory:
    return history_from_json(runs.histories[name].encode())


def trust_of(
    runs: Runs, *notaries: VerifierKey, witnesses: tuple[VerifierKey, ...] = (), threshold: int = 0
) -> AuditTrust:
    anchors = read_trust(runs.trust).anchors
    return AuditTrust(anchors, notaries=notaries, witnesses=witnesses, threshold=threshold)


def audited(runs: Runs, history: RunHistory, notes: list[str], trust: AuditTrust) -> RunReport:
    return check_checkpoints(audit_run(history, journals_in(runs.journal), trust), history, notes, trust)


def codes(report: RunReport) -> dict[str, Severity]:
    return {each.code: each.severity for each in report.findings}


def up_to(history: RunHistory, count: int) -> RunHistory:
    return of_events(history.events[:count], workflow_id=history.workflow_id)


def changed(history: RunHistory, event_id: int) -> RunHistory:
    """The same history, but that an event says it was logged under another number: nothing else protects that."""
    copy = History()
    copy.CopyFrom(History(events=history.events))
    copy.events[event_id - 1].task_id += 1
    return of_events(copy.events, workflow_id=history.workflow_id)


def test_a_run_with_a_checkpoint_is_verified_and_covered(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    sealed = notary.seal(history)
    report = audited(runs, history, [sealed.run], trust_of(runs, notary.key))
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert (report.checkpoints, report.checkpointed_events) == (1, len(history.events))


@pytest.mark.parametrize("event_id", [1, 7, 12])
def test_what_no_statement_covers_is_covered_by_the_checkpoint(runs: Runs, notary: Notary, event_id: int) -> None:
    history = history_of(runs, "sequential")
    sealed, other = notary.seal(history), changed(history, event_id)
    assert audited(runs, other, [], trust_of(runs, notary.key)).verdict is Verdict.VERIFIED
    report = audited(runs, other, [sealed.run], trust_of(runs, notary.key))
    assert codes(report)["checkpoint-invalid"] is Severity.VIOLATION


def test_a_history_that_was_cut_is_shorter_than_its_checkpoint(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    sealed = notary.seal(history)
    report = audited(runs, up_to(history, 9), [sealed.run], trust_of(runs, notary.key))
    assert codes(report)["checkpoint-invalid"] is Severity.VIOLATION


def test_the_checkpoint_of_another_run_proves_nothing(runs: Runs, notary: Notary) -> None:
    other = notary.seal(history_of(runs, "fan-out"))
    report = audited(runs, history_of(runs, "sequential"), [other.run], trust_of(runs, notary.key))
    assert codes(report)["checkpoint-invalid"] is Severity.VIOLATION
    assert report.checkpoints == 0


def test_a_notary_that_nobody_named_does_not_count(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    report = audited(runs, history, [notary.seal(history).run], trust_of(runs))
    assert codes(report)["checkpoint-unverified"] is Severity.UNCHECKED
    assert report.checkpoints == 0


def test_a_note_that_is_none_is_refused(runs: Runs, notary: Notary) -> None:
    for note in ("", "x", "\x00", "a\n1\nb\n\n— c d\n"):
        report = audited(runs, history_of(runs, "sequential"), [note], trust_of(runs, notary.key))
        assert report.verdict is Verdict.VIOLATED
        assert "checkpoint-invalid" in codes(report)


def test_witnesses_bound_the_time(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    note, keys = notary.seal(history).run, []
    closed = int(history.events[-1].event_time.seconds)
    for name in ("w1", "w2"):
        key = SigningKey.generate()
        note = cosign(note, name, key, closed + 5)
        keys.append(VerifierKey(name, key.x, COSIGNATURE))
    report = audited(runs, history, [note], trust_of(runs, notary.key, witnesses=tuple(keys), threshold=2))
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert "time-bounded" in codes(report)
    assert "time-unproven" not in codes(report)


def test_a_witness_that_saw_it_before_it_happened_is_a_contradiction(runs: Runs, notary: Notary) -> None:
    history, key = history_of(runs, "sequential"), SigningKey.generate()
    note = cosign(notary.seal(history).run, "w1", key, int(history.events[0].event_time.seconds) - 3600)
    trust = trust_of(runs, notary.key, witnesses=(VerifierKey("w1", key.x, COSIGNATURE),))
    assert audited(runs, history, [note], trust).verdict is Verdict.VIOLATED


def test_too_few_witnesses_are_reported(runs: Runs, notary: Notary) -> None:
    history, key = history_of(runs, "sequential"), SigningKey.generate()
    trust = trust_of(runs, notary.key, witnesses=(VerifierKey("w1", key.x, COSIGNATURE),), threshold=1)
    report = audited(runs, history, [notary.seal(history).run], trust)
    assert codes(report)["witnesses-missing"] is Severity.UNCHECKED


def test_a_runs_checkpoints_are_found_in_the_evidence(runs: Runs, notary: Notary, store: EvidenceStore) -> None:
    history, trust = history_of(runs, "sequential"), trust_of(runs, notary.key)
    notary.seal(history)
    report = audit_run(history, journals_in(runs.journal), trust)
    found = with_checkpoints(report, history, history, StoreEvidence(store), trust)
    assert (found.checkpoints, found.checkpointed_events) == (1, len(history.events))
    other = history_of(runs, "fan-out")
    report = audit_run(other, journals_in(runs.journal), trust)
    assert with_checkpoints(report, other, other, StoreEvidence(store), trust).checkpoints == 0


async def test_of_an_encoded_run_the_recorded_events_are_what_was_signed(
    runs: Runs, notary: Notary, store: EvidenceStore
) -> None:
    history, trust = history_of(runs, "turned"), trust_of(runs, notary.key)
    notary.seal(history)
    plain = await decoded(history, CONVERTER)
    report = audit_run(plain, journals_in(runs.journal), trust)
    assert with_checkpoints(report, history, plain, StoreEvidence(store), trust).checkpoints == 1


def test_witnesses_that_are_demanded_are_missed_where_there_is_no_checkpoint(runs: Runs) -> None:
    history, key = history_of(runs, "sequential"), SigningKey.generate()
    trust = trust_of(runs, witnesses=(VerifierKey("w1", key.x, COSIGNATURE),), threshold=1)
    report = audit_run(history, journals_in(runs.journal), trust)
    found = with_checkpoints(report, history, history, NoEvidence(), trust)
    assert codes(found)["witnesses-missing"] is Severity.UNCHECKED


def test_a_growing_run_is_sealed_again_and_each_seal_holds(runs: Runs, notary: Notary, store: EvidenceStore) -> None:
    history = history_of(runs, "sequential")
    notes = [notary.seal(up_to(history, count)) for count in (4, 4, 10, len(history.events))]
    assert [each.fresh for each in notes] == [True, False, True, True]
    origin = run_origin(SITE, "default", history.workflow_id, history.run_id)
    assert [verify(each, (notary.key,)).size for each in store.checkpoints(origin)] == [4, 10, len(history.events)]
    report = audited(runs, history, list(store.checkpoints(origin)), trust_of(runs, notary.key))
    assert (report.verdict, report.checkpoints) == (Verdict.VERIFIED, 3)


def test_a_history_that_was_rewritten_is_not_sealed_again(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    notary.seal(up_to(history, 10))
    with pytest.raises(EvidenceError, match="not those that were signed before"):
        notary.seal(changed(history, 5))
    with pytest.raises(EvidenceError, match="not those that were signed before"):
        notary.seal(up_to(history, 5))


def test_a_workflow_task_that_may_go_away_is_not_sealed(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    assert settled(history.events) == len(history.events)
    assert settled(history.events[:3]) == 1
    assert verify(notary.seal(up_to(history, 3)).run, (notary.key,)).size == 1


def test_the_namespaces_log_holds_every_head(runs: Runs, notary: Notary, store: EvidenceStore) -> None:
    for name in ("sequential", "fan-out", "denied"):
        last = notary.seal(history_of(runs, name))
    head = verify(last.namespace, (notary.key,))
    assert (head.origin, head.size) == (namespace_origin(SITE, "default"), 3)
    [log] = store.logs()
    assert next(json.loads(link.record.body)["size"] for link in store.records(log.log_id)) == 23
    assert Checkpoint.parse(next(iter(store.checkpoints(head.origin))).partition("\n\n")[0] + "\n").size == 1


def test_two_notaries_of_one_namespace_lose_nothing(runs: Runs, store: EvidenceStore) -> None:
    key = SigningKey.generate()
    notaries = [Notary(store, key, NAME, site=SITE, namespace="default") for _ in range(2)]
    notaries[0].seal(history_of(runs, "sequential"))
    notaries[1].seal(history_of(runs, "fan-out"))
    last = notaries[0].seal(history_of(runs, "denied"))
    assert verify(last.namespace, (notaries[0].key,)).size == 3


def test_an_event_is_proven_offline(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    note = notary.seal(history).run
    for event_id in (1, 6, len(history.events)):
        proof = json.dumps(prove(history, note, event_id)).encode()
        head, event = verify_proof(proof, trust_of(runs, notary.key))
        assert (head.size, event["eventId"]) == (len(history.events), str(event_id))


def test_a_proof_that_was_changed_is_refused(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    proof = prove(history, notary.seal(history).run, 6)
    other = prove(history, notary.seal(history).run, 7)
    for name in ("index", "leaf", "hashes"):
        with pytest.raises(EvidenceError):
            verify_proof(json.dumps(proof | {name: other[name]}).encode(), trust_of(runs, notary.key))
    for wrong in (
        proof | {"version": "2"},
        proof | {"more": 1},
        proof | {"index": "5"},
        proof | {"hashes": [1]},
        [],
        1,
    ):
        with pytest.raises(EvidenceError):
            verify_proof(json.dumps(wrong).encode(), trust_of(runs, notary.key))
    with pytest.raises(EvidenceError):
        verify_proof(json.dumps(proof).encode(), trust_of(runs, VerifierKey(NAME, SigningKey.generate().x)))
    witness = VerifierKey("w1", SigningKey.generate().x, COSIGNATURE)
    with pytest.raises(EvidenceError, match="cosigned by 0"):
        demanding = trust_of(runs, notary.key, witnesses=(witness,), threshold=1)
        verify_proof(json.dumps(proof).encode(), demanding)
    for event_id in (0, 99):
        with pytest.raises(EvidenceError):
            prove(history, proof["checkpoint"], event_id)


async def test_a_notary_that_follows_seals_runs_as_they_close(
    runs: Runs, notary: Notary, store: EvidenceStore, target: str
) -> None:
    history = history_of(runs, "sequential")
    client = await Client.connect(target)
    following = asyncio.ensure_future(notary.follow(client, every=timedelta(seconds=0.2)))
    origin = run_origin(SITE, "default", history.workflow_id, history.run_id)
    try:
        for _ in range(1000):
            if list(store.checkpoints(origin)):
                break
            await asyncio.sleep(0.1)
    finally:
        following.cancel()
    [note] = store.checkpoints(origin)
    report = audited(runs, history, [note], trust_of(runs, notary.key))
    assert (report.verdict, report.checkpointed_events) == (Verdict.VERIFIED, len(history.events))


def test_an_event_that_cannot_be_written_as_json_is_a_finding(runs: Runs, notary: Notary) -> None:
    history = history_of(runs, "sequential")
    sealed = notary.seal(history)
    copy = History(events=history.events)
    bound = copy.events[0].workflow_execution_started_event_attributes.workflow_run_timeout
    bound.seconds, bound.nanos = 1, -1
    other = of_events(copy.events, workflow_id=history.workflow_id)
    report = audited(runs, other, [sealed.run], trust_of(runs, notary.key))
    assert codes(report)["checkpoint-invalid"] is Severity.VIOLATION
    with pytest.raises(EvidenceError, match="event 1 cannot be written as JSON"):
        notary.seal(other)
