"""One run's evidence in one document: it verifies offline, and nothing in it can be changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exequatur.audit.bundle import make_proofs, verify_proofs
from exequatur.audit.history import of_events
from exequatur.audit.notary import Notary
from exequatur.audit.trust import AuditTrust
from exequatur.errors import EvidenceError
from exequatur.lineage.checkpoint import run_origin
from exequatur.lineage.note import COSIGNATURE, VerifierKey
from exequatur.lineage.record import read
from exequatur.lineage.store import EvidenceStore
from exequatur.lineage.subject import subject_of
from exequatur.statements.jws import type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Request
from tests.audit.runs import Runs
from tests.audit.test_seals import NAME, SITE, history_of, notary, store, trust_of

__all__ = ["notary", "store"]  # fixtures

Made = tuple[dict[str, Any], list[str], AuditTrust]


@pytest.fixture
def made(runs: Runs, notary: Notary, store: EvidenceStore) -> Made:
    """The proofs of a run with three checkpoints, the notes, and a trust file for them."""
    history = history_of(runs, "denied")
    for count in (5, 11, len(history.events)):
        notary.seal(of_events(history.events[:count], workflow_id=history.workflow_id))
    notes = list(store.checkpoints(run_origin(SITE, "default", history.workflow_id, history.run_id)))
    proofs = make_proofs(history, history, notes).model_dump(mode="json")
    return json.loads(json.dumps(proofs)), notes, trust_of(runs, notary.key)


def test_a_document_verifies_without_history_or_store(made: Made) -> None:
    proofs, notes, trust = made
    found = verify_proofs(proofs, notes, [], trust)
    assert found.principal == 'Agent::"auditee"'
    assert found.statements >= 7  # a grant, three requests, two denials, a receipt
    assert {1, found.sizes[-1]} < set(found.events)
    assert len(found.sizes) == 3


def change(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(proofs: dict[str, Any]) -> None:
        *way, last = path
        place: Any = proofs
        for step in way:
            place = place[step]
        place[last] = value(place[last]) if callable(value) else value

    return apply


@pytest.mark.parametrize(
    "apply",
    [
        change(["version"], "exequatur proofs v2"),
        change(["run_id"], "another"),
        change(["workflow_id"], "another"),
        change(["more"], 1),
        change(["inclusion", 1, "leaf"], lambda text: text.replace("eventId", "eventIe")),
        change(["inclusion", 1, "index"], lambda index: index + 1),
        change(["inclusion", 1, "hashes"], lambda hashes: hashes[1:]),
        change(["inclusion", 1, "hashes", 0], "!"),
        change(["consistency"], []),
        change(["consistency", 0, "hashes"], lambda hashes: hashes[::-1]),
        change(["consistency", 0, "later"], 9),
        change(["statements"], lambda tokens: [token for token in tokens if len(token) != len(tokens[0])]),
        change(["statements", 0], lambda token: token[:-4] + "AAAA"),
        change(["statements", -1], lambda token: token[:-4] + "AAAA"),
        change(["statements"], lambda tokens: [tokens[0], *tokens[2:]]),
        change(["statements"], lambda tokens: [*tokens, "x.y.z"]),
    ],
)
def test_a_document_that_was_changed_does_not_verify(made: Made, apply: Callable[[dict[str, Any]], None]) -> None:
    proofs, notes, trust = made
    apply(proofs)
    with pytest.raises(EvidenceError):
        verify_proofs(proofs, notes, [], trust)


@pytest.mark.parametrize("wrong", [None, 1, "", [], {}, {"version": "exequatur proofs v1"}])
def test_what_is_no_proof_is_refused(made: Made, wrong: Any) -> None:
    _, notes, trust = made
    with pytest.raises(EvidenceError):
        verify_proofs(wrong, notes, [], trust)


def test_the_readers_trust_decides(runs: Runs, made: Made) -> None:
    proofs, notes, trust = made
    with pytest.raises(EvidenceError, match=r"."):
        verify_proofs(proofs, notes, [], trust_of(runs))
    stranger = Notary(EvidenceStore.open("sqlite://"), SigningKey.generate(), NAME, site=SITE, namespace="default")
    with pytest.raises(EvidenceError, match=r"."):
        verify_proofs(proofs, notes, [], trust_of(runs, stranger.key))
    with pytest.raises(EvidenceError, match="trust store has no key"):
        verify_proofs(proofs, notes, [], AuditTrust(type(trust.anchors)(), notaries=trust.notaries))


def test_a_proof_without_its_checkpoint_proves_nothing(made: Made) -> None:
    proofs, _, trust = made
    with pytest.raises(EvidenceError, match="no checkpoint of this run"):
        verify_proofs(proofs, [], [], trust)


def test_a_run_without_checkpoints_still_has_its_statements(runs: Runs) -> None:
    history = history_of(runs, "sequential")
    proofs = make_proofs(history, history, []).model_dump(mode="json")
    found = verify_proofs(proofs, [], [], trust_of(runs))
    assert (found.sizes, found.events) == ((), ())
    assert found.statements == 7


def test_a_checkpoint_of_another_history_is_refused(runs: Runs, made: Made) -> None:
    _, notes, _ = made
    history = history_of(runs, "sequential")
    with pytest.raises(EvidenceError, match="not of this history"):
        make_proofs(history, history, notes)
    with pytest.raises(EvidenceError, match="no checkpoint covers event 99"):
        denied = history_of(runs, "denied")
        make_proofs(denied, denied, notes, [99])


def test_seals_in_the_records_verify_too(runs: Runs, made: Made) -> None:
    proofs, notes, trust = made
    bodies = [each.body for file in runs.journal.glob("*.db") for each in read(file) if each.kind == "seal"]
    own = [body.decode() for body in bodies if subject_of("seal", body).workflow_id == proofs["workflow_id"]]
    before = verify_proofs(proofs, notes, [], trust).statements
    assert verify_proofs(proofs, notes, own, trust).statements == before + len(own) == before + 1
    with pytest.raises(EvidenceError):
        verify_proofs(proofs, notes, [own[0].replace("~", "AAAA~")], trust)
    with pytest.raises(EvidenceError, match="of workflow"):
        verify_proofs(proofs, notes, [bodies[0].decode(), bodies[1].decode()], trust)


def test_the_grant_of_another_workflow_is_refused(runs: Runs, made: Made) -> None:
    proofs, notes, trust = made
    other = make_proofs(history_of(runs, "sequential"), history_of(runs, "sequential"), [])
    for statements in (list(other.statements), [other.statements[0], *proofs["statements"][1:]]):
        with pytest.raises(EvidenceError):
            verify_proofs(proofs | {"statements": statements}, notes, [], trust)
    stolen = {"inclusion": [], "consistency": [], "statements": [other.statements[0]]}
    with pytest.raises(EvidenceError, match="its grant is for workflow"):
        verify_proofs(proofs | stolen, [], [], trust)


def test_a_receipt_whose_request_is_not_there_is_refused(made: Made) -> None:
    proofs, notes, trust = made
    requests = [text for text in proofs["statements"] if type_of(text) == Request.typ]
    without = [text for text in proofs["statements"] if text != requests[-1]]
    with pytest.raises(EvidenceError, match="a request that it does not hold"):
        verify_proofs(proofs | {"statements": without}, notes, [], trust)


def test_witnesses_that_the_reader_demands_must_have_cosigned(made: Made) -> None:
    proofs, notes, trust = made
    witness = VerifierKey("w1", SigningKey.generate().x, COSIGNATURE)
    demanding = AuditTrust(trust.anchors, notaries=trust.notaries, witnesses=(witness,), threshold=1)
    with pytest.raises(EvidenceError, match="cosigned by 0"):
        verify_proofs(proofs, notes, [], demanding)
