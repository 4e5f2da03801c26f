"""The audit judges a decision by what was revoked then: not what was lifted or had ended, and not what came later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from exequatur.audit.evidence import Decision, DecisionRecord
from exequatur.audit.history import of_events
from exequatur.audit.report import Severity
from exequatur.audit.revoked import MAX_BEHIND, MAX_FOLLOWING, RevokedThen
from exequatur.lineage.record import Record
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.statements.encoding import compact_json
from exequatur.statements.jws import kid_of
from exequatur.statements.models import Receipt, RevocationState
from tests.audit.judging import Bench
from tests.audit.test_verify import audited, codes, decision_of, records, told

__all__ = ["records"]

Said = tuple[float, dict[str, Any]]
"""Seconds from the decision, and an entry."""


def revoked(bench: Bench, records: list[Record], before: Sequence[Said], after: Sequence[Said] = ()) -> bool:
    """Whether the audit finds that the decision was made about something that was revoked."""
    at, _ = decision_of(bench, records, "timed-out")

    def kept(said: Sequence[Said], first: int) -> list[Record]:
        found = []
        for number, (off, entry) in enumerate(said):
            body = compact_json({"at": records[at].at + off, "reason": "it was stolen", **entry})
            found.append(
                replace(
                    records[at],
                    kind="revocation",
                    request=None,
                    run=None,
                    attempt=None,
                    body=body,
                    index=first + number,
                    at=records[at].at + off,
                )
            )
        return found

    index = records[at].index
    around = [*kept(before, index - len(before)), records[at], *kept(after, index + 1)]
    report = audited(bench, "timed-out", bench.runs["timed-out"], told([*records[:at], *around, *records[at + 1 :]]))
    return "grant-revoked" in codes(report, Severity.VIOLATION)


@pytest.mark.rule("decisions.D2")
def test_what_was_lifted_counts_until_then(bench: Bench, records: list[Record]) -> None:
    number = sum(record.kind == "revocation" for record in records) + 1
    everything: Said = (-100, {"everything": True})
    # The recorded journal has a feed of its own, which these entries go on.
    earlier = [record for record in records if record.kind == "revocation"]
    at, _ = decision_of(bench, records, "timed-out")
    if any(record.index > records[at].index for record in earlier):
        number = sum(record.index < records[at].index for record in earlier) + 1
    assert revoked(bench, records, [everything])
    assert not revoked(bench, records, [everything, (-50, {"lifts": number})])
    assert revoked(bench, records, [everything], [(MAX_BEHIND + 50, {"lifts": number})])
    assert revoked(bench, records, [everything, (-50, {"workflow": "another"}), (-40, {"lifts": number + 1})])


def test_a_journal_has_the_feed_once_more_for_each_process_that_wrote_to_it(records: list[Record]) -> None:
    at = records[0].at
    first = Revocation(at=at, reason="stop", workflow="w")
    everything, lifted = (
        Revocation(at=at + 1, reason="stop", everything=True),
        Revocation(at=at + 2, reason="over", lifts=2),
    )
    written = [first, first, everything, first, everything, lifted]
    places = [replace(records[0], index=place, kind="revocation") for place in range(len(written) + 1)]
    decision = Decision(replace(places[-1], kind="decision", at=at + 100), None)  # type: ignore[arg-type]

    then = RevokedThen(list(zip(places, written, strict=False)), frozenset({records[0].log_id}))

    assert {(known.number, known.entry) for known, _ in then.certain(decision, None, {"workflow": "w"})} == {(1, first)}


def test_a_decision_is_held_against_what_may_be_about_it_and_not_the_whole_feed(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = records[0].at
    written = [Revocation(at=at, reason="stop", workflow=f"w{number}") for number in range(2000)]
    written += [Revocation(at=at, reason="stop", principal='User::"eve"', activity="pay")]
    places = [replace(records[0], index=place, kind="revocation") for place in range(len(written) + 1)]
    decision = Decision(replace(places[-1], kind="decision", at=at + 100), None)  # type: ignore[arg-type]
    then = RevokedThen(list(zip(places, written, strict=False)), frozenset({records[0].log_id}))
    looked: list[Revocation] = []
    revokes = Revocation.revokes
    monkeypatch.setattr(Revocation, "revokes", lambda entry, subject: looked.append(entry) or revokes(entry, subject))

    subject = {"workflow": "w7", "principal": frozenset({'User::"eve"'}), "activity": "read"}
    assert [known.number for known, _ in then.certain(decision, None, subject)] == [8]
    assert len(looked) == 2


@pytest.mark.rule("decisions.D2")
def test_what_ends_by_itself_counts_until_then(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "timed-out")
    moment = records[at].at
    assert not revoked(bench, records, [(-100, {"everything": True, "until": moment - 1})])
    assert revoked(bench, records, [(-100, {"everything": True, "until": moment + 100})])


@pytest.mark.rule("decisions.D2")
def test_whose_keys_worker_or_policies_were_revoked_may_not_have_been_allowed(
    bench: Bench, records: list[Record]
) -> None:
    _, claims = decision_of(bench, records, "timed-out")
    history = of_events(bench.runs["timed-out"])
    tokens = json.loads(history.started.header.fields["exequatur-grant"].data).split("~")
    for named, expected in (
        ({"key": kid_of(tokens[0])}, True),
        ({"worker": json.loads(claims["facts"])["worker"]["id"]}, True),
        ({"bundle": claims["bundle"]}, True),
        ({"key": "A" * 43}, False),
        ({"worker": "spiffe://exequatur.local/worker/another"}, False),
        ({"bundle": "A" * 43}, False),
        ({"code": "A" * 43}, False),
        ({"worker": json.loads(claims["facts"])["worker"]["id"], "activity": "another"}, False),
    ):
        assert revoked(bench, records, [(-100, named)]) == expected, named


def test_a_worker_is_behind_by_as_much_as_its_receipt_says_and_no_more(bench: Bench, records: list[Record]) -> None:
    at, _ = decision_of(bench, records, "timed-out")
    decision = Decision(records[at], DecisionRecord.model_validate_json(records[at].body))
    place = next(record for record in records if record.kind == "receipt")
    receipt = Receipt.model_validate_json(_claims(place))

    def certain(entry_off: float, version: int | None, age: float = 0.0) -> bool:
        entry = Revocation(at=records[at].at + entry_off, reason="stop", everything=True)
        elsewhere = replace(records[at], log_id="another", index=1, kind="revocation", body=entry.line)
        then = RevokedThen([(elsewhere, read_entry(elsewhere.body))], frozenset({"another"}))
        state = None if version is None else RevocationState(version=version, age=age)
        told = None if state is None else receipt.model_copy(update={"revocations": state})
        return bool(list(then.certain(decision, told, {})))

    assert certain(-MAX_BEHIND - 1, 0)
    assert not certain(-MAX_BEHIND + 1, 0)
    assert not certain(-MAX_BEHIND - 1, 0, age=20.0)
    assert certain(-MAX_BEHIND - 21, 0, age=20.0)
    # Whoever knew it at the end may not have known it then.
    assert not certain(-MAX_BEHIND - 1, 1)
    assert not certain(-MAX_BEHIND - 1, None)
    assert certain(-MAX_FOLLOWING - 1, None)
    assert certain(-MAX_FOLLOWING - 1, 0, age=1e6)


def _claims(record: Record) -> bytes:
    from exequatur.statements.encoding import from_base64url

    return from_base64url(record.body.decode().partition("~")[0].split(".")[1])
