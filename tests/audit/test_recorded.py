"""Recorded decisions as questions: from histories, journals, stores and exported evidence."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from exequatur.audit.history import RunHistory, read_history
from exequatur.audit.recorded import Skipped, decisions_in, everything, questions_of
from exequatur.audit.records import Evidence, evidence_in, histories_in
from exequatur.authoring.whatif.comparison import Recorded
from exequatur.authoring.whatif.held import GivenArguments, NoArguments, PlainArguments, Unreadable
from exequatur.errors import EvidenceError
from exequatur.gate.wire import START_HEADER
from exequatur.identity.principal import Principal
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import Record
from exequatur.lineage.shipper import Shipper
from exequatur.lineage.store import EvidenceStore
from exequatur.policy.bundle import PolicyBundle
from tests.record import HISTORIES

DIGEST = "A" * 43
BUNDLE = PolicyBundle.from_parts(
    'permit(principal, action, resource); forbid(principal, action == Action::"pay", resource)'
    " when { context.args.amount > 5 };"
)


def history(name: str) -> RunHistory:
    return read_history(HISTORIES / f"{name}.json")


def asked(run: RunHistory, assumed: Principal | None = None) -> tuple[list[Recorded], Skipped]:
    skipped: Skipped = Counter()
    questions = questions_of(run, skipped, assumed=assumed, namespace="default", wanted=everything)
    return list(questions), skipped


def test_a_run_is_the_question_of_its_start_and_one_for_each_activity() -> None:
    found, skipped = asked(history("sequential"))
    assert [each.action for each in found] == ["workflow.start", "step", "step", "step"]
    assert [each.arguments for each in found[1:]] == [PlainArguments((number,)) for number in (1, 2, 3)]
    assert {each.principal["uid"]["id"] for each in found} == {"recorder"}
    assert [each.decision for each in found] == ["allow"] * 4
    facts = found[1].facts
    assert facts["run"]["workflow_type"] == "Sequential"
    assert facts["run"]["governed"] is True
    assert facts["activity"]["attempt"] == 1
    assert facts["worker"]["id"].startswith("spiffe://")
    assert facts["now"]["__extn"]["fn"] == "datetime"
    assert not skipped


def test_a_denial_in_a_history_is_a_recorded_deny() -> None:
    found, _ = asked(history("denied"))
    assert [(each.action, each.decision) for each in found[1:]] == [("delete", "deny"), ("step", "allow")]


def test_a_history_says_that_nobody_agreed_and_nobody_acted_except_where_it_holds_no_header() -> None:
    found, _ = asked(history("sequential"))
    assert [each.absent for each in found[1:]] == [{"acting", "approvals"}] * 3
    found, _ = asked(history("local"))
    local = next(each for each in found if each.facts.get("activity", {}).get("local"))
    assert local.absent == {"acting"}


def test_a_local_activity_is_asked_about_without_its_arguments() -> None:
    found, _ = asked(history("local"))
    local = next(each for each in found if each.facts.get("activity", {}).get("local"))
    assert isinstance(local.arguments, NoArguments)


@pytest.mark.parametrize("name", ["child-child", "continued.last"])
def test_only_what_the_authority_was_asked_about_is_a_start(name: str) -> None:
    found, _ = asked(history(name))
    assert "workflow.start" not in {each.action for each in found}


def test_an_ungoverned_run_is_skipped_unless_it_is_said_for_whom_it_acts() -> None:
    found, skipped = asked(history("ungoverned"))
    assert found == []
    assert skipped.total() == 4
    found, skipped = asked(history("ungoverned"), Principal("Agent", "bot", {}, ('Role::"r"',)))
    assert len(found) == 4
    assert found[1].principal["parents"] == [{"type": "Role", "id": "r"}]
    assert found[1].decision is None


@pytest.mark.parametrize(
    "header",
    [
        Payload(metadata={"encoding": b"binary/encrypted"}, data=b"\x00\x01"),
        Payload(metadata={"encoding": b"json/plain"}, data=b'"no.grant.here"'),
        Payload(metadata={"encoding": b"json/plain"}, data=b'""'),
    ],
)
def test_a_grant_that_cannot_be_read_is_nobodys_question(header: Payload) -> None:
    run = history("sequential")
    run.events[0].workflow_execution_started_event_attributes.header.fields[START_HEADER].CopyFrom(header)
    found, skipped = asked(run, Principal("Agent", "bot"))
    assert found == []
    assert skipped.total() == 4
    assert "--converter" in next(iter(skipped))


def test_an_argument_that_is_no_json_is_said_to_be_unreadable() -> None:
    run = history("sequential")
    scheduled = next(
        each.activity_task_scheduled_event_attributes
        for each in run.events
        if each.HasField("activity_task_scheduled_event_attributes")
    )
    del scheduled.input.payloads[:]
    payloads = ((b"json/plain", b"[" * 100_000), (b"binary/plain", b"x"), (b"binary/null", b""), (b"\xff", b""))
    for encoding, data in payloads:
        scheduled.input.payloads.add(metadata={"encoding": encoding}, data=data)
    found, _ = asked(run)
    assert isinstance(found[1].arguments, PlainArguments)
    assert [type(value) for value in found[1].arguments.values] == [Unreadable, Unreadable, type(None), Unreadable]


def decision(**changes: Any) -> dict[str, Any]:
    return {
        "request": DIGEST,
        "request_digest": DIGEST,
        "workflow_id": "w-1",
        "run_id": "r-1",
        "activity_id": "5",
        "activity_type": "pay",
        "attempt": 1,
        "principal": 'Agent::"bot"',
        "vouched": {"attributes": {"region": "emea"}, "parents": ['Role::"r"']},
        "args": DIGEST,
        "arguments": '{"amount":7}',
        "fault": None,
        "facts": '{"run":{"workflow_id":"w-1"}}',
        "decision": "deny",
        "enforced": True,
        "reason": None,
        "policies": [],
        "bundle": BUNDLE.digest,
        "bundle_sequence": 1,
    } | changes


def journal(folder: Path, *records: tuple[str, bytes] | dict[str, Any]) -> Path:
    with Journal.open(folder) as log:
        for each in records:
            kind, body = ("decision", json.dumps(each).encode()) if isinstance(each, dict) else each
            log.enqueue(kind, body)
    return folder


def read(source: Path | str) -> tuple[list[Recorded], Skipped]:
    skipped: Skipped = Counter()
    return list(decisions_in(Evidence(str(source)), skipped)), skipped


ARCHIVE = ("bundle", BUNDLE.source.archive)


def test_a_journals_decision_is_a_question_with_what_cedar_was_given(tmp_path: Path) -> None:
    [found], skipped = read(journal(tmp_path / "journal", ARCHIVE, decision()))
    assert not skipped
    assert found.arguments == GivenArguments({"amount": 7}, frozenset({("amount",)}), None)
    assert found.principal["attrs"] == {"region": "emea"}
    assert found.principal["parents"] == [{"type": "Role", "id": "r"}]
    assert found.resource == {"type": "Workflow", "id": "w-1"}
    assert found.decision == "deny"
    assert evidence_in(str(tmp_path))
    assert read(tmp_path)[0] == [found]


def test_a_resource_that_the_activity_named_is_the_questions_resource(tmp_path: Path) -> None:
    named = decision(resource={"type": "Order", "id": "7"})
    [found, faulty], _ = read(journal(tmp_path / "journal", ARCHIVE, named, decision(fault="args.amount is odd")))
    assert found.resource == {"type": "Order", "id": "7"}
    assert faulty.resource is None


def test_without_the_archive_it_is_not_known_what_was_looked_for(tmp_path: Path) -> None:
    [found], _ = read(journal(tmp_path / "journal", decision()))
    assert isinstance(found.arguments, GivenArguments)
    assert found.arguments.known is None


def test_a_denial_without_arguments_may_be_that_of_a_reset(tmp_path: Path) -> None:
    [found], _ = read(journal(tmp_path / "journal", ARCHIVE, decision(arguments="{}")))
    assert isinstance(found.arguments, NoArguments)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (decision(decision="none"), "rejected before"),
        (decision(vouched=None), "attributes and roles"),
        (decision(fault="The resource could not be named"), "resource could not be told"),
        (decision(principal="nobody"), "cannot be read"),
        (decision(facts="[]"), "cannot be read"),
        (decision(facts='{"args":{}}'), "cannot be read"),
        (decision(arguments="{"), "cannot be read"),
        (decision(vouched={"attributes": {}, "parents": ["x"]}), "cannot be read"),
        (decision(more=1), "cannot be read"),
        (("decision", b"\xff"), "cannot be read"),
        (("decision", b"[" * 100_000), "cannot be read"),
    ],
)
def test_a_record_that_is_no_question_is_counted_with_the_reason(tmp_path: Path, record: Any, reason: str) -> None:
    found, skipped = read(journal(tmp_path / "journal", ARCHIVE, record, decision()))
    assert len(found) == 1
    assert [reason in each for each in skipped] == [True]


def test_a_run_without_a_grant_acts_for_nobody_and_needs_no_description(tmp_path: Path) -> None:
    [found], _ = read(journal(tmp_path / "journal", decision(principal='Unauthenticated::"anonymous"', vouched=None)))
    assert found.principal["parents"] == []


def test_a_store_and_an_exported_document_hold_the_same_questions(tmp_path: Path) -> None:
    folder = journal(tmp_path / "journal", ARCHIVE, decision(), decision(run_id="r-2"))
    store = str(tmp_path / "evidence.db")
    shipper = Shipper(folder, store, 1.0)
    shipper.ship_once()
    shipper.stop()
    with EvidenceStore.open(store) as opened:
        opened.export(tmp_path / "evidence.json")
    expected = read(folder)[0]
    assert len(expected) == 2
    assert read(store)[0] == expected
    assert read(tmp_path / "evidence.json")[0] == expected
    for source in (folder, store, tmp_path / "evidence.json"):
        assert Evidence(str(source)).find(BUNDLE.digest) == BUNDLE.source.archive
        assert Evidence(str(source)).find(DIGEST) is None


def test_histories_are_found_in_files_folders_and_lines(tmp_path: Path) -> None:
    problems: list[EvidenceError] = []
    lines = [(HISTORIES / f"{name}.json").read_text().strip() for name in ("sequential", "denied")]
    (tmp_path / "all.jsonl").write_text("\n".join([lines[0], "", "{}", lines[1]]))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.json").write_text(lines[0])
    (tmp_path / "inner" / "broken.json").write_text("[")
    found = [each.workflow_id for each in histories_in(str(tmp_path), problems.append)]
    assert sorted(found) == ["denied", "sequential", "sequential"]
    assert len(problems) == 2
    assert "all.jsonl:3" in str(problems[0])
    assert not evidence_in(str(tmp_path))


def test_what_does_not_exist_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="nothing-here"):
        evidence_in(str(tmp_path / "nothing-here"))
    (tmp_path / "journal").mkdir()
    with pytest.raises(EvidenceError, match="no journal"):
        read(tmp_path)
    problems: list[EvidenceError] = []
    assert list(histories_in(str(tmp_path / "journal"), problems.append)) == []
    assert "no history" in str(problems[0])


BODIES = st.binary(max_size=60) | st.builds(
    lambda changes: json.dumps(decision(**changes)).encode(),
    st.dictionaries(
        st.sampled_from(sorted(decision())),
        st.none() | st.text(max_size=6) | st.integers() | st.lists(st.text(max_size=3), max_size=2),
        max_size=3,
    ),
)


class _Bodies(Evidence):
    """Evidence of records that are at hand."""

    def __init__(self, bodies: list[bytes]) -> None:
        super().__init__("here")
        self._bodies = bodies

    def records(self, *kinds: str) -> Iterator[Any]:
        for index, body in enumerate(self._bodies):
            yield Record("0" * 16, index, 1.0, "decision", None, None, None, body, DIGEST)


@given(st.lists(BODIES, max_size=4))
def test_no_journal_record_crashes_the_reader(bodies: list[bytes]) -> None:
    skipped: Skipped = Counter()
    found = list(decisions_in(_Bodies(bodies), skipped))
    assert len(found) + skipped.total() == len(bodies)
