"""What the lineage pages make of a report: folding, pages, comparison, searches, and an index of journals."""

from __future__ import annotations

import sqlite3
from base64 import urlsafe_b64decode
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.audit.evidence import journals_in
from exequatur.audit.report import LinkReport, Report, RunReport, finding
from exequatur.console import comparing, graph, run_view, timeline
from exequatur.console.decision import Decision, decision_of
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.family import Family, Member
from exequatur.console.journals import Journals
from exequatur.console.known import Told, rows_of
from exequatur.console.redact import REDACTED, redacted
from exequatur.console.references import Place, References
from exequatur.console.runs import KEPT, Audited, Runs
from exequatur.console.searching import LONGEST, Search, SearchError, literal, parts
from exequatur.errors import EvidenceError
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import Record
from exequatur.statements.encoding import digest
from tests.audit.reports import HOSTILE, activity, decided, run
from tests.console.running import decision, write

DENIED = {"outcome": "denied", "proof": "denial", "decisions": (decided(decision="deny", reason="no"),)}


@cache
def long_run(count: int = 10_000, denied: int = 40) -> RunReport:
    every = max(count // denied, 1)
    names = ("look_up", "pay", "notify")
    return run(
        *(
            activity(number, activity_type=names[number % 7 % 3], **(DENIED if number % every == 0 else {}))
            for number in range(1, count + 1)
        ),
        events=6 * count,
    )


def test_what_repeats_is_drawn_once_and_says_how_often():
    told = graph.graph_of(run(*(activity(number) for number in range(1, 13)), activity(13, **DENIED), activity(14)))
    steps = [each for each in told["nodes"] if each["kind"] == "activity"]
    assert [(each["times"], each["label"]) for each in steps] == [
        (12, "allowed, completed"),
        (1, "denied by policy"),
        (1, "allowed, completed"),
    ]
    assert steps[0]["heading"] == "12 in a row, events 5 to 71"
    assert "drawn once" in told["words"]


@pytest.mark.parametrize(("count", "denied"), [(1_000, 1), (10_000, 40), (1_000, 500), (61, 61)])
def test_ten_thousand_activities_fit_into_a_drawing_and_none_is_left_out(count: int, denied: int):
    told = graph.graph_of(long_run(count, denied))
    steps = [each for each in told["nodes"] if each["times"]]
    assert len(steps) <= graph.MOST
    assert sum(each["times"] for each in steps) == told["steps"] == count
    assert "drawn" in told["words"]


def test_what_was_refused_stays_visible_while_the_rest_is_folded():
    told = graph.graph_of(long_run(1_000, 20))
    alone = [each for each in told["nodes"] if each["label"] == "denied by policy"]
    assert len(alone) == 20
    assert all(each["times"] == 1 for each in alone)


def test_a_violation_marks_its_step():
    one = run(activity(), findings=(finding("receipt-missing", "no receipt", event_id=5),))
    step = graph.graph_of(one)["nodes"][-1]
    assert (step["tone"], step["label"]) == ("violation", "allowed, completed; violation")


def test_those_behind_a_run_and_the_runs_around_it_are_nodes():
    one = run(
        activity(),
        actors=('Agent::"helper"',),
        links=(
            LinkReport(relation="parent", workflow_id="boss", run_id="r1", event_id=1),
            LinkReport(relation="child", workflow_id="kid", run_id="r2", event_id=9, outcome="failed"),
            LinkReport(relation="continued by", workflow_id="refund-4711", run_id="r3", event_id=40),
        ),
    )
    told = graph.graph_of(one)
    kinds = [(each["kind"], each["heading"]) for each in told["nodes"]]
    assert kinds[:3] == [("who", "On behalf of"), ("who", "Acts for it"), ("grant", "Grant")]
    assert {"Started by", "Goes on as"} <= {heading for _, heading in kinds}
    child = next(each for each in told["nodes"] if each["kind"] == "child")
    assert (child["label"], child["link"]) == ("child, failed", 1)
    numbers = {each["number"] for each in told["nodes"]}
    assert all({edge["from"], edge["to"]} <= numbers for edge in told["edges"])


def test_every_activity_is_on_exactly_one_page():
    whole, seen, first = long_run(), [], 1
    while first is not None:
        part = timeline.part_of(whole, first=first)
        seen += [row["event"] for row in part.rows]
        assert len(part.rows) <= timeline.ROWS
        first = part.after
    assert seen == [each.event_id for each in whole.activities]


def test_an_event_is_found_on_its_page_and_filters_hold():
    whole = long_run()
    wanted = whole.activities[7_654].event_id
    assert wanted in [row["event"] for row in timeline.part_of(whole, event=wanted).rows]
    refused = timeline.part_of(whole, show="refused")
    assert refused.total == 40
    assert {row["label"] for row in refused.rows} == {"denied by policy"}
    assert timeline.part_of(whole, kind="nothing of the sort").total == 0
    assert timeline.part_of(whole, first=10**9).rows


def test_the_overview_counts_every_activity_once():
    buckets = timeline.overview_of(long_run())
    assert len(buckets) == timeline.BUCKETS
    assert sum(each[name] for each in buckets for name in ("allow", "deny", "none")) == 10_000


def test_denied_and_refused_are_two_things_and_what_was_observed_only_is_what_it_would_have_been():
    observed = {"decisions": (decided(decision="deny", reason="no", enforced=False),)}
    rejected = {"outcome": "rejected", "proof": "denial", "decisions": (decided(decision="none", reason="no"),)}
    told = run(activity(1, **DENIED), activity(2, **observed), activity(3, **rejected), activity(4), mode="observe")
    drawn = timeline.overview_of(told)
    assert [sum(each[name] for each in drawn) for name in ("allow", "deny", "none")] == [1, 2, 1]
    labels = [row["label"] for row in timeline.part_of(told).rows]
    assert labels == [
        "denied by policy",
        "denied by policy, but only observed",
        "refused before policy was asked",
        "allowed, completed",
    ]
    found = Audited(Place("default", "w", "r"), Report(runs=(told,)), 0.0)
    counts = run_view.beginning_of(found, "timeline", lambda place: {}, None, ())["counts"]
    assert counts == {"allow": 1, "deny": 2, "none": 1, "observed": 1}
    member = Member("this", None, 0, "w", "r", "W", Place("default", "w", "r"), found)
    (row,) = run_view.family_data(Family([member], False, False), lambda place: {})["members"]
    assert (row["denied"], row["refused"]) == (1, 1)


def test_a_verdict_says_first_what_it_says_of_this_run():
    def split(*codes: str) -> tuple[str, str]:
        told = run(activity(1), findings=tuple(finding(code, "it is so") for code in codes))
        found = run_view.beginning_of(
            Audited(Place("default", "w", "r"), Report(runs=(told,)), 0.0), "timeline", lambda place: {}, None, ()
        )
        assert " ".join(filter(None, (found["verdict_first"], found["verdict_rest"]))) == found["verdict_words"]
        return found["verdict_first"], found["verdict_rest"]

    assert split()[1] == ""
    observed, rest = split("not-enforced")
    assert (observed.endswith("because it only observed."), rest) == (True, "")
    for code in ("history-events", "payload-encoded"):
        first, rest = split(code)
        assert len(first.split()) < 30
        assert rest.startswith("Each ")


@pytest.mark.parametrize("at", [float("inf"), float("nan"), -1e300])
def test_times_that_are_none_break_no_drawing(at: float):
    odd = run(activity(scheduled=at, closed=at), started=at, closed=at)
    row = timeline.part_of(odd).rows[0]
    assert 0 <= row["left"] <= 100
    assert 0 <= row["width"] <= 100
    timeline.overview_of(odd)
    graph.graph_of(odd)


def test_the_checkpoint_that_covers_an_activity_first_is_named():
    rows = timeline.part_of(
        run(
            activity(1, closed_event=7), activity(2, closed_event=20), activity(3, closed_event=30),
            checkpoint_sizes=(10, 25),
        )
    ).rows  # fmt: skip
    assert [row["checkpoint"] for row in rows] == [10, 25, None]


def test_runs_are_compared_activity_by_activity():
    left = run(activity(1, arguments="a"), activity(2), activity(3, activity_type="notify"))
    right = run(
        activity(1, arguments="b"), activity(2, activity_type="log"), activity(3, **DENIED), activity(4), activity(5)
    )
    pairs = comparing.compared(left, right)
    assert [(each.activity_type, each.number, bool(each.left), bool(each.right)) for each in pairs] == [
        ("refund_payment", 1, True, True),
        ("log", 1, False, True),
        ("refund_payment", 2, True, True),
        ("notify", 1, True, False),
        ("refund_payment", 3, False, True),
        ("refund_payment", 4, False, True),
    ]
    assert pairs[0].differences == ("other arguments",)
    assert "another decision" in pairs[2].differences
    assert pairs[3].differences == ("only in the first",)


def test_a_run_is_no_different_from_itself():
    whole = long_run(1_000)
    assert all(each.same for each in comparing.compared(whole, whole))
    assert all(each["same"] for each in comparing.run_differences(whole, whole))


@pytest.mark.rule("searching.B1")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_what_is_typed_is_one_literal(text: str):
    made = literal(text)
    inner, position, end = made[1:-1], 0, False
    assert made[0] == made[-1] == "'"
    while position < len(inner):  # as the server's scanner reads it
        if inner[position] == "\\" or inner[position : position + 2] == "''":
            position += 1
        else:
            end = end or inner[position] == "'"
        position += 1
    assert not end
    assert position == len(inner)


@pytest.mark.parametrize(
    "search",
    [
        Search(workflow_id="x" * (LONGEST + 1)),
        Search(workflow_id="a\0b"),
        Search(workflow_type="\ud800"),
        Search(status="Running' OR 1=1"),
        Search(since="yesterday"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(search: Search):
    with pytest.raises(ProblemError, match=r"characters|status|time"):
        search.query()


@pytest.mark.rule("journals.J1", "journals.J2")
def test_an_index_of_journals_gives_an_audit_the_same_as_the_files(tmp_path: Path):
    write(tmp_path, decision(), decision(workflow_id="other", run_id="r2"), decision(run_id="r3", activity_id="9"))
    write(tmp_path, b'{"not": "about a run"}', b"\xff\x00", kind="authority")
    write(tmp_path, b"a bundle", kind="bundle")
    indexed, whole = Journals([tmp_path / "state"]).reader(), journals_in(tmp_path / "state" / "journal")
    run_id = "0198f3c2-0000-7000-8000-000000000001"
    for workflow_id, run_ids in (("order-1", {run_id}), ("order-1", {"r3"}), ("other", {"r2", run_id}), ("no", {"x"})):
        same = [list(each.records_of(workflow_id, frozenset(run_ids))) for each in (indexed, whole)]
        assert same[0] == same[1]
    assert indexed.bundle(digest(b"a bundle")) == b"a bundle" == whole.bundle(digest(b"a bundle"))
    assert indexed.bundle(digest(b"another")) is None


async def test_an_index_grows_with_its_journal(tmp_path: Path):
    journals = Journals([tmp_path / "state"])
    assert list(journals.reader().records_of("order-1", frozenset({"r"}))) == []
    with Journal.open(tmp_path / "state" / "journal") as journal:
        for number in range(3):
            await journal.append("decision", decision(run_id="r", activity_id=str(number)))
            assert len(list(journals.reader().records_of("order-1", frozenset({"r"})))) == number + 1


@pytest.mark.rule("journals.J1")
def test_a_record_that_does_not_follow_is_said_not_to(tmp_path: Path):
    write(tmp_path, decision(), decision(attempt=2), decision(attempt=3))
    (file,) = (tmp_path / "state" / "journal").glob("*.db")
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE records SET body = ? WHERE idx = 1", (decision(attempt=2, decision="deny"),))
        db.commit()
    found = (
        Journals([tmp_path / "state"])
        .reader()
        .records_of("order-1", frozenset({"0198f3c2-0000-7000-8000-000000000001"}))
    )
    assert [sound for _, sound in found] == [True, False, True]


@pytest.mark.rule("journals.J2")
def test_a_bundle_that_was_exchanged_is_not_given_for_the_one_that_was_there(tmp_path: Path):
    write(tmp_path, b"a bundle", kind="bundle")
    journals = Journals([tmp_path / "state"])
    assert journals.reader().bundle(digest(b"a bundle")) == b"a bundle"
    (file,) = (tmp_path / "state" / "journal").glob("*.db")
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE records SET body = ?", (b"another",))
        db.commit()
    assert journals.reader().bundle(digest(b"a bundle")) is None


@pytest.mark.rule("journals.J3")
def test_more_journals_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, decision(), decision(attempt=2))
    monkeypatch.setattr("exequatur.console.journals.MOST", 1)
    with pytest.raises(EvidenceError, match="evidence store"):
        Journals([tmp_path / "state"]).reader()


@pytest.mark.rule("references.N2")
@pytest.mark.parametrize("text", ["AAAA", "AAAA.", "AAAA.0123", "!", ".", "\ud800.x"])
def test_a_token_that_was_not_given_out_for_this_list_is_not_passed_on(text: str):
    given = References()
    assert given.unsealed(given.sealed(b"\x00of the server", "default"), "default") == b"\x00of the server"
    assert given.unsealed("", "default") is None
    for forged, listed in (
        (text, "default"),
        (f"AAAA{given.sealed(b'a', 'default')[4:]}", "default"),
        (given.sealed(b"a", "default"), "default\0WorkflowType = 'Other'"),
        (given.sealed(b"a", "default"), "payments"),
        (References().sealed(b"a", "default"), "default"),
    ):
        with pytest.raises(ProblemError):
            given.unsealed(forged, listed)
    assert b"an id" not in urlsafe_b64decode(given.sealed(b"an id", "default"))


def told_at(at: float, kind: str = "decision", **changes: object) -> Decision:
    """A row of a record that was written at a time."""
    made = decision_of(Record("l" * 16, int(at), at, kind, None, None, None, decision(**changes), "h"), int(at))
    assert made is not None
    return made


def permitted(at: float, workflow_id: str, principal: str, outcome: str = "allow") -> Decision:
    """The start of a workflow was asked for."""
    said = {"action": "workflow.start", "workflow_id": workflow_id, "run_id": None, "decision": outcome}
    return told_at(at, "authority", principal=principal, **said)


def test_known_runs_are_told_of_with_their_decisions():
    rows = [
        told_at(1),
        told_at(2, decision="deny"),
        told_at(3, decision="deny", enforced=False),
        told_at(4, decision="none"),
        told_at(5, workflow_id="other", run_id="r2"),
    ]
    known = {key[0]: (each.allowed, each.denied, each.refused, each.observed) for key, each in Told(rows).runs.items()}
    assert known == {"order-1": (1, 2, 1, 1), "other": (1, 0, 0, 0)}
    assert [each["outcome"] for each in rows_of(rows, "order-1", None)] == ["allow", "deny", "deny", "none"]


def test_a_message_without_a_good_permit_is_refused_and_not_denied_by_a_policy():
    assert told_at(1, "message", accepted=False).outcome == "none"
    assert told_at(1, "message", accepted=True).outcome == "allow"


def test_who_approves_is_not_who_it_is_done_for():
    rows = [
        permitted(1, "order-1", 'Agent::"ops-bot"'),
        told_at(2, "authority", action="approval.approve", run_id="r", principal='User::"dana"', decision="none"),
        told_at(3, "authority", action="approval.approve", run_id="r", principal='User::"fay"'),
        told_at(4, "message", run_id="r", principal='User::"fay"', accepted=True),
    ]
    assert Told(rows).principals("order-1", "r", 1.5) == ['Agent::"ops-bot"']
    told = Told([*rows, told_at(5, run_id="r", principal='Agent::"ops-bot"')])
    assert told.principals("order-1", "r", 1.5) == ['Agent::"ops-bot"']
    assert told.workflows("fay") == told.workflows("dana") == []
    assert told.workflows("ops-bot") == ["order-1"]


def test_a_run_that_did_nothing_acts_for_whom_its_start_was_permitted():
    told = Told(
        [
            permitted(1, "nightly", 'User::"ann"'),
            permitted(50, "nightly", 'User::"bob"'),
            permitted(60, "nightly", 'User::"eve"', "deny"),
            permitted(1000, "ahead", 'User::"ann"'),
            permitted(70, "taken", 'User::"ann"'),
            told_at(80, workflow_id="taken", run_id="r", principal="", decision="none"),
        ]
    )
    assert told.principals("nightly", "r1", 2) == ['User::"ann"']
    assert told.principals("nightly", "r2", 51) == told.principals("nightly", "r3", 9999) == ['User::"bob"']
    assert told.principals("ahead", "r", 990) == ['User::"ann"']  # its clock is ahead of the server's
    assert told.principals("ahead", "r", 900) == []
    assert told.principals("taken", "r", 71) == []  # that run came with no grant
    assert told.workflows("ann") == ["ahead", "taken", "nightly"]
    assert told.workflows("eve") == []


@pytest.mark.rule("searching.B1")
def test_workflows_that_the_evidence_names_are_asked_for_as_literals():
    ids = ["plain", "it's", 'a"b', "", '"', "\ud800", "\0", "x" * (LONGEST + 1)]
    (part,) = parts(ids)
    assert part == ["plain", "it's", 'a"b']
    assert Search(status="Failed").query(part) == (
        "ExecutionStatus = 'Failed' AND (WorkflowId IN ('plain', 'it''s') OR WorkflowId STARTS_WITH 'a')"
    )
    assert list(parts([])) == []
    assert [len(each) for each in parts([f"{number:0900}" for number in range(20)])] == [8, 8, 4]


def test_what_cannot_be_searched_for_names_its_field():
    for name, search in {
        "status": Search(status="Done"),
        "since": Search(since="nonsense"),
        "id": Search(workflow_id="x" * (LONGEST + 1)),
        "type": Search(workflow_type="x" * (LONGEST + 1)),
    }.items():
        with pytest.raises(SearchError) as wrong:
            search.query()
        assert (wrong.value.name, wrong.value.status) == (name, 400)


def test_the_address_of_a_server_that_is_away_is_said_once():
    why = "localhost:7233: cannot connect: connection refused; start the server, or check --address and TLS"
    assert ServerAwayError("localhost:7233", why).text == "localhost:7233: cannot connect: connection refused"


@pytest.mark.rule("runs.U2")
def test_reports_that_there_is_no_room_for_are_forgotten(tmp_path: Path):
    runs = Runs(None, None)  # type: ignore[arg-type]
    report = Report(runs=(run(activity()),))
    for number in range(KEPT + 5):
        runs.keep(Audited(Place("default", f"w{number}", "r"), report, 0.0))
    assert runs.kept(Place("default", "w0", "r")) is None
    assert runs.kept(Place("default", f"w{KEPT + 4}", "r")) is not None
    runs.close()


@pytest.mark.rule("references.N1")
def test_a_reference_names_one_run_and_no_other_can_be_made_up():
    given = References()
    place = Place("default", "w", "r")
    reference = given.reference(place)
    assert given.referred(reference) == place
    assert given.reference(Place("default", "w", "s")) != reference
    assert given.reference(Place("default", "w\0r", "")) != given.reference(Place("default", "w", "\0r"))
    for made_up in (reference[::-1], "", References().reference(place), f"{reference} "):
        with pytest.raises(ProblemError):
            given.referred(made_up)


def test_a_reference_that_is_used_is_not_forgotten_for_new_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("exequatur.console.references.MOST", 3)
    given = References()
    used, unused = given.reference(Place("default", "w", "used")), given.reference(Place("default", "w", "unused"))
    for number in range(2):
        given.referred(used)
        given.reference(Place("default", "w", str(number)))
    assert given.referred(used).run_id == "used"
    with pytest.raises(ProblemError):
        given.referred(unused)


def test_a_public_viewer_sees_no_name_in_a_graph():
    told = redacted(graph.graph_of(run(activity(), principal=HOSTILE, issuer=HOSTILE, actors=(HOSTILE,))))
    assert {each["who"] for each in told["nodes"]} <= {REDACTED, None}
    assert HOSTILE not in repr(told)
