"""Hostile histories and journals: an error or a finding, never a traceback, never verified."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exequatur.audit.evidence import NoEvidence, RecordedEvidence, records_of_journal
from exequatur.audit.history import MAX_BYTES, UnknownFieldsError, history_from_json, of_events
from exequatur.audit.report import RunReport, Verdict
from exequatur.audit.trust import AuditTrust
from exequatur.audit.verify import audit_run
from exequatur.errors import EvidenceError
from exequatur.lineage.record import Record
from exequatur.statements.trust import TrustStore
from tests.audit.journals import relinked
from tests.audit.judging import Bench
from tests.audit.mutants import edited, field_edits, kind_of, renumbered
from tests.audit.runs import Runs

NOBODY = AuditTrust(TrustStore())
STARTED: dict[str, Any] = {
    "eventId": "1",
    "eventTime": "2026-11-23T00:00:00Z",
    "eventType": "EVENT_TYPE_WORKFLOW_EXECUTION_STARTED",
    "workflowExecutionStartedEventAttributes": {"workflowType": {"name": "A"}, "workflowId": "a"},
}
fuzzing = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def started(**attributes: Any) -> dict[str, Any]:
    kept = STARTED["workflowExecutionStartedEventAttributes"]
    return {**STARTED, "workflowExecutionStartedEventAttributes": {**kept, **attributes}}


def nested(depth: int) -> dict[str, Any]:
    failure: dict[str, Any] = {"message": "innermost"}
    for _ in range(depth):
        failure = {"message": "outer", "cause": failure}
    return failure


def text_of(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


UNREADABLE = {
    "nothing": b"",
    "no JSON": b"events",
    "half of it": text_of(STARTED)[:-10],
    "NUL": b"\0" * 1000,
    "not UTF-8": b'{"events": [{"eventId": "\xff\xfe"}]}',
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "no events": b'{"events": []}',
    "events that are an object": b'{"events": {}}',
    "events that are no objects": b'{"events": [1, null, "x"]}',
    "an event that is a list": b'{"events": [[]]}',
    "members twice": b'{"events": [], "events": [{}]}',
    "members twice, far in": text_of(STARTED).replace(b'"eventId": "1"', b'"eventId": "1", "eventId": "2"'),
    "NaN": b'{"events": [{"eventId": NaN}]}',
    "infinity": b'{"events": [{"eventId": 1e999}]}',
    "a number of ten thousand digits": b'{"events": [{"eventId": ' + b"9" * 10_000 + b"}]}",
    "an event id beyond 64 bits": text_of({**STARTED, "eventId": str(2**64)}),
    "a negative task id beyond 64 bits": text_of({**STARTED, "taskId": str(-(2**64))}),
    "an attempt beyond 32 bits": text_of(started(attempt=2**40)),
    "an attempt that is no number": text_of(started(attempt="once")),
    "an attempt of 1.5": text_of(started(attempt=1.5)),
    "a name that is a list": text_of(started(workflowType=["A"])),
    "a type that is a string": text_of(started(workflowType="A")),
    "a time that is none": text_of({**STARTED, "eventTime": "yesterday"}),
    "a time of a year that no calendar has": text_of({**STARTED, "eventTime": "99999-01-01T00:00:00Z"}),
    "data that is a number": text_of(started(header={"fields": {"a": {"data": 1}}})),
    "half a surrogate pair": text_of(STARTED).replace(b'"A"', b'"\\ud800"'),
    "an enum value that nobody knows": text_of({**STARTED, "eventType": "EVENT_TYPE_TELEPORTED"}),
    "an enum that is an object": text_of({**STARTED, "eventType": {"a": 1}}),
    "attributes of two kinds": text_of({**STARTED, "timerStartedEventAttributes": {}}),
    "attributes that are a string": text_of({**STARTED, "workflowExecutionStartedEventAttributes": "x"}),
    "no start": text_of({"eventId": "1", "timerStartedEventAttributes": {}}),
    "a deep list": b'{"events": ' + b"[" * 200_000,
    "a deep object": b'{"events": [' + b'{"a":' * 200_000,
    "failures in failures": text_of(started(continuedFailure=nested(400))),
    "failures in failures beyond any stack": text_of(STARTED).replace(
        b'"workflowId"', b'"continuedFailure": ' + b'{"cause": ' * 50_000 + b"{}" + b"}" * 50_000 + b', "workflowId"'
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_history_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        history_from_json(data, "some.json")
    assert str(caught.value).startswith("some.json: ")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "event",
    [{**STARTED, "novelty": 1}, started(novelty={"a": 1}), started(taskQueue={"name": "a", "novelty": True})],
    ids=["event", "attributes", "inner"],
)
def test_a_field_of_a_later_version_could_not_be_checked(event: dict[str, Any]) -> None:
    with pytest.raises(UnknownFieldsError, match="version"):
        history_from_json(text_of(event))


def test_a_field_of_a_later_version_from_a_server_could_not_be_checked(bench: Bench) -> None:
    event = edited(bench.runs["sequential"][0], lambda it: None)
    event.MergeFromString(b"\xfa\xff\x03\x01x")  # field 8191, which no version has
    with pytest.raises(UnknownFieldsError, match="event 1 has fields"):
        of_events((event, *bench.runs["sequential"][1:]))


@pytest.mark.parametrize(
    "garbage",
    [b"\0", b"[", b"{", b"[],", b'{"events":[', b'"\\u0000', b"9", b" ", b"{},"],
    ids=["NUL", "lists", "objects", "empty lists", "events", "text", "digits", "space", "empty objects"],
)
def test_a_hundred_megabytes_of_garbage_are_refused_in_bounded_time(garbage: bytes) -> None:
    data = garbage * (100_000_000 // len(garbage))
    for hostile in (data, b'{"events":[' + data + b"{}]}"):
        began = time.process_time()
        with pytest.raises(EvidenceError):
            history_from_json(hostile)
        assert time.process_time() - began < 10


def test_more_than_any_history_holds_is_refused_unread() -> None:
    with pytest.raises(EvidenceError, match="larger than"):
        history_from_json(b" " * (MAX_BYTES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    for text in (data, b'{"events":[' + data + b"]}"):
        with pytest.raises(EvidenceError):
            history_from_json(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@fuzzing
@given(st.sampled_from(["local", "denied", "parent", "reset"]), st.integers(0, 10_000), anything)
def test_no_value_in_any_place_of_a_history_crashes_the_audit(bench: Bench, name: str, number: int, value: Any) -> None:
    document = json.loads(bench.texts[name])
    places = list(_places(document["events"]))
    *path, last = places[number % len(places)]
    at: Any = document["events"]
    for step in path:
        at = at[step]
    at[last] = value
    _audited(bench, json.dumps(document).encode())


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*path, key))


def _audited(bench: Bench, data: bytes) -> RunReport | None:
    try:
        history = history_from_json(data)
    except EvidenceError:
        return None
    for evidence in (bench.journals, NoEvidence()):
        report = audit_run(history, evidence, bench.trust)
        report.model_dump_json()
    return report


@fuzzing
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_no_pile_of_edits_crashes_the_audit(bench: Bench, chosen: list[int], random: Any) -> None:
    """Several edits at once, and events in any order: whatever comes of it is an error or a report."""
    events = list(bench.runs[random.choice(["local", "denied", "reset", "continued"])])
    for number in chosen:
        place = random.randrange(len(events))
        edits = list(field_edits(events[place], bench.pool))
        events[place] = edited(events[place], edits[number % len(edits)][2])
    if random.random() < 0.3:
        random.shuffle(events)
    for form in (tuple(events), renumbered(events)):
        try:
            history = of_events(form)
        except EvidenceError:
            continue
        audit_run(history, bench.journals, bench.trust).model_dump_json()


@pytest.mark.parametrize(
    "header",
    [b"", b"null", b'""', b'"~~~"', b'"a.b.c"', b"[" * 100_000, b'"' + b"a" * 60_000 + b'"', b"\xff", b'"\\ud800"',
     b'"e30.e30.e30"'],
    ids=["nothing", "null", "empty", "empty tokens", "no token", "deep", "long", "bytes", "surrogate", "no header"],
)  # fmt: skip
def test_a_start_header_that_is_none_is_a_violation(bench: Bench, header: bytes) -> None:
    def put(it: Any) -> None:
        it.workflow_execution_started_event_attributes.header.fields["exequatur-grant"].data = header

    events = bench.runs["sequential"]
    report = audit_run(of_events((edited(events[0], put), *events[1:])), bench.journals, bench.trust)
    assert "start-unreadable" in {each.code for each in report.findings}
    assert report.verdict is Verdict.VIOLATED


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"activity_id": "\\ud800", "activity_type": "\\udfff"}', b"\xff",
     b'{"activity_id": 1, "activity_type": [], "attempt": 1e999}', b'{"attempt": -1}', b'{"attempt": true}'],
)  # fmt: skip
def test_a_local_activity_that_says_nothing_readable_of_itself_is_flagged(bench: Bench, data: bytes) -> None:
    events = bench.runs["local"]
    place = next(at for at, event in enumerate(events) if kind_of(event) == "marker_recorded")

    def put(it: Any) -> None:
        it.marker_recorded_event_attributes.details["data"].payloads[0].data = data

    changed = (*events[:place], edited(events[place], put), *events[place + 1 :])
    report = audit_run(of_events(changed), bench.journals, bench.trust)
    report.model_dump_json()
    assert report.verdict is Verdict.VIOLATED


def test_a_claim_to_have_made_a_billion_requests_is_no_work(bench: Bench) -> None:
    """A run of fifty thousand events without a statement, and one whose marker repeats a request of a huge number."""
    many = renumbered(
        [*bench.runs["sequential"][:4], *bench.runs["sequential"][4:10] * 800, *bench.runs["sequential"][10:]]
    )
    report = audit_run(of_events(many), bench.journals, bench.trust)
    assert report.verdict is Verdict.VIOLATED


def test_whom_nobody_trusts_could_not_be_checked(bench: Bench) -> None:
    report = audit_run(of_events(bench.runs["sequential"]), bench.journals, NOBODY)
    assert {each.code for each in report.findings} >= {"key-unknown"}
    assert report.verdict is not Verdict.VERIFIED


# Journals.

odd_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def records(runs: Runs) -> list[Record]:
    [file] = runs.journal.glob("*.db")
    return [record for record, _ in records_of_journal(file)]


@fuzzing
@given(st.integers(0, 10_000), st.integers(0, 10_000), odd_json)
def test_no_decision_that_a_worker_writes_crashes_the_audit(
    bench: Bench, records: list[Record], number: int, member: int, value: Any
) -> None:
    """The journal of a worker that lies: well linked, with anything in a decision."""
    run = bench.recorded["sequential", True].run_id
    places = [at for at, record in enumerate(records) if record.kind == "decision" and run.encode() in record.body]
    at = places[number % len(places)]
    claims = json.loads(records[at].body)
    names = sorted(claims)
    name = names[number % len(names)]
    changed: Any = value
    inner = json.loads(claims[name]) if name in ("facts", "arguments") else None
    if inner:
        inner[sorted(inner)[member % len(inner)]] = value
        changed = json.dumps(inner)
    body = json.dumps({**claims, name: changed}).encode()
    lying = RecordedEvidence((record, True) for record in relinked(records, at, body))
    report = audit_run(of_events(bench.runs["sequential"]), lying, bench.trust)
    report.model_dump_json()
    if json.loads(body) != claims:
        assert report.verdict is not Verdict.VERIFIED


@fuzzing
@given(st.sampled_from(["decision", "receipt", "seal", "revocation", "bundle", "surprise"]), st.binary(max_size=60))
def test_no_record_crashes_the_audit(bench: Bench, records: list[Record], kind: str, body: bytes) -> None:
    run = bench.recorded["sequential", True].run_id
    at = next(at for at, record in enumerate(records) if record.kind == "decision" and run.encode() in record.body)
    hostile = [(replace(record, kind=kind, body=body) if at == place else record, True)
               for place, record in enumerate(records)]  # fmt: skip
    report = audit_run(of_events(bench.runs["sequential"]), RecordedEvidence(hostile), bench.trust)
    report.model_dump_json()
    assert report.verdict is not Verdict.VERIFIED
