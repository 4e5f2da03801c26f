"""What the lineage pages make of a report: folding, pages, comparison, searches, and an index of journals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.audit.evidence import journals_in
from exequatur.audit.report import LinkReport, Report, RunReport, finding
from exequatur.console import comparing, graph, timeline
from exequatur.console.errors import ProblemError
from exequatur.console.journals import Journals
from exequatur.console.known import known_runs, rows_of
from exequatur.console.redact import REDACTED, redacted
from exequatur.console.references import Place, References
from exequatur.console.runs import KEPT, Audited, Runs
from exequatur.console.searching import LONGEST, Search, literal
from exequatur.errors import EvidenceError
from exequatur.lineage.journal import Journal
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
        (given.sealed(b"a", "default").replace("YQ", "Yg"), "default"),
        (given.sealed(b"a", "default"), "default\0WorkflowType = 'Other'"),
        (given.sealed(b"a", "default"), "payments"),
        (References().sealed(b"a", "default"), "default"),
    ):
        with pytest.raises(ProblemError):
            given.unsealed(forged, listed)


def test_known_runs_are_told_of_with_their_decisions():
    from exequatur.console.decision import decision_of
    from exequatur.lineage.record import Record

    def row(number: int, **changes: object):
        made = decision_of(
            Record("l" * 16, number, float(number), "decision", None, None, None, decision(**changes), "h"), number
        )
        assert made is not None
        return made

    rows = [row(1), row(2, decision="deny"), row(3, workflow_id="other", run_id="r2")]
    known = known_runs(rows)
    assert {key[0]: (each.allowed, each.refused) for key, each in known.items()} == {"order-1": (1, 1), "other": (1, 0)}
    assert [each["outcome"] for each in rows_of(rows, "order-1", None)] == ["allow", "deny"]


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
