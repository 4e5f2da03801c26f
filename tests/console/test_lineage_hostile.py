"""The lineage pages against hostile histories, servers that misbehave, and what changes behind a report."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from exequatur.audit.history import of_events
from exequatur.audit.report import LinkReport, Report
from exequatur.console import examining, graph, run_pages, runs, server
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.examining import Examiner
from exequatur.console.family import MOST, family_of
from exequatur.console.references import Place
from exequatur.console.run_exports import saved
from exequatur.console.runs import Audited, Runs
from exequatur.console.searching import Search
from exequatur.console.server import Temporal
from exequatur.console.visitors import named_as_a_visitors
from exequatur.errors import EvidenceError
from exequatur.lineage.journal import Journal
from tests.audit.reports import activity, run
from tests.console.lineage_runs import Made
from tests.console.running import MALLORY, Running, decision, running
from tests.console.test_lineage import VIEWS, at, every_page, text_of

Event = HistoryEvent


def place_of(made: Made, name: str) -> Place:
    return Place("default", made.ids[name], made.first_runs[name])


# What Cedar does not show


@pytest.mark.rule("run_list.L2", "family.F1")
async def test_what_cedar_hides_is_not_in_the_list_the_family_or_the_runs_to_compare_with(
    made_runs: Made, target: str, tmp_path: Path
) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    child = made_runs.ids["child"]
    policies = (
        'permit(principal, action == Action::"console.view", resource);\n'
        'forbid(principal == User::"mallory", action == Action::"console.view", resource)\n'
        f'when {{ resource == Workflow::"{child}" || resource == Workflow::"{made_runs.ids["other"]}" }};'
    )
    async with running(tmp_path, policies=policies, target=target) as console, console.browser(MALLORY) as viewer:
        listed = await every_page(viewer, "/lineage")
        assert made_runs.ids["agent"] in listed
        assert child not in listed
        assert "the policies do not show" in listed
        await audited(console, made_runs, "agent")
        family = await text_of(viewer, at(made_runs, "agent", tab="family"))
        assert "The policies do not show it to you." in family
        assert family.count("Verified") == 2  # the headline, and the run itself
        offered = await text_of(viewer, at(made_runs, "agent", "/lineage/compare"))
        assert made_runs.ids["other"] not in offered
        assert child not in offered


async def audited(console: Running, made: Made, name: str) -> Audited:
    place = place_of(made, name)
    found = await console.console.runs.audited("default", place.workflow_id, place.run_id, who="test", wait=60)
    assert isinstance(found, Audited)
    return found


# The second run of a comparison


async def test_a_second_run_is_chosen_from_those_next_to_it_and_of_its_type(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        await audited(explorer, made_runs, "agent")
        page = (await viewer.client.get(at(made_runs, "agent", "/lineage/compare"), follow_redirects=True)).text
        links = [
            each.replace("&amp;", "&") for each in re.findall(r'href="(/lineage/compare\?[^"]*other=[^"]*)"', page)
        ]
        assert any(f"other={made_runs.ids['child']}" in each for each in links)
        (other,) = (each for each in links if f"other={made_runs.ids['other']}&" in each)
        assert not any(f"other={made_runs.ids['agent']}&" in each for each in links)
        await audited(explorer, made_runs, "other")
        assert "other arguments" in await text_of(viewer, other)


async def test_the_public_compares_by_reference(made_runs: Made, target: str) -> None:
    config = {"public": True, "principal": None}
    policies = made_runs.folder / "policies"
    async with running(made_runs.folder, policies=policies, target=target, config=config) as console:
        mine = await audited(console, made_runs, "agent")
        await audited(console, made_runs, "other")
        reference = console.console.runs.references.reference(mine.place)
        async with console.browser(None) as viewer:
            page = (await viewer.get(f"/lineage/compare?ref={reference}")).text
            offered = [each.replace("&amp;", "&") for each in re.findall(r'href="(/lineage/compare\?[^"]+)"', page)]
            assert all(re.search(r"[?&]other_ref=[0-9a-f]{24}", each) for each in offered)
            other = console.console.runs.references.reference(place_of(made_runs, "other"))
            shown = (await viewer.get(f"/lineage/compare?ref={reference}&other_ref={other}")).text
            assert "other arguments" in shown
            for name in (*made_runs.ids.values(), "ops-bot"):
                assert name not in page + shown
            for forged in ("0" * 24, made_runs.ids["other"]):
                assert (await viewer.get(f"/lineage/compare?ref={reference}&other_ref={forged}")).status_code == 404


# Runs of the demo page's visitors


@pytest.mark.parametrize(
    ("workflow_id", "queue", "is_one"),
    [
        ("demo-AAAAAAAAAAAAAAAA-1", "demo-AAAAAAAAAAAAAAAA", True),
        ("demo-AAAAAAAAAAAAAAAA-1-child", "demo-AAAAAAAAAAAAAAAA", True),
        ("demo-AAAAAAAAAAAAAAAA-1", "payments", False),
        ("order-1", "demo-AAAAAAAAAAAAAAAA", False),
        ("demo-BBBBBBBBBBBBBBBB-1", "demo-AAAAAAAAAAAAAAAA", False),
        ("demo--1", "demo-", False),
        ("demo-AAAAAAAAAAAAAAAA\n-1", "demo-AAAAAAAAAAAAAAAA\n", False),
    ],
)
def test_a_visitors_run_is_told_by_all_of_its_names(workflow_id: str, queue: str, is_one: bool) -> None:
    assert named_as_a_visitors(workflow_id, queue) is is_one


async def test_a_name_like_a_visitors_changes_words_and_no_verdict(
    explorer: Running, made_runs: Made, target: str
) -> None:
    queue = f"demo-{uuid.uuid4().hex[:16]}"
    client = await Client.connect(target)
    handle = await client.start_workflow("Payments", id=f"{queue}-1", task_queue=queue)
    try:
        async with explorer.browser() as viewer:
            listed = await text_of(viewer, f"/lineage?{urlencode({'id': handle.id})}")
            for _ in range(500):  # until the server's index has it
                if handle.id in listed:
                    break
                await asyncio.sleep(0.02)
                listed = await text_of(viewer, f"/lineage?{urlencode({'id': handle.id})}")
            assert "a visitor's sandbox, by its name" in listed
            page = await text_of(viewer, f"/lineage/run?{urlencode({'workflow': handle.id})}")
            assert "cannot be verified here" in page
            assert "A name proves nothing" in page
            assert "Violations found" in page
    finally:
        await handle.terminate()


# What changes behind a report


@pytest.mark.rule("runs.U1")
async def test_a_report_does_not_outlive_the_trust_file_or_what_the_journals_tell(
    made_runs: Made, target: str, tmp_path: Path
) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    async with running(tmp_path, policies=made_runs.folder / "policies", target=target) as console:
        first = await audited(console, made_runs, "agent")
        assert first.run.verdict.value == "verified"
        assert (await audited(console, made_runs, "agent")).at == first.at
        with Journal.open(tmp_path / "state" / "journal") as journal:
            body = decision(workflow_id=made_runs.ids["agent"], run_id=made_runs.first_runs["agent"], activity_id="77")
            await journal.append("decision", body)
        second = await audited(console, made_runs, "agent")
        assert second.at > first.at
        (tmp_path / "state" / "trust.jwks").write_text('{"keys": []}')
        found = await audited(console, made_runs, "agent")
        assert found.at > second.at
        assert found.run.verdict.value != "verified"


async def test_a_new_audit_is_begun_once_and_not_each_time_the_page_is_loaded(
    explorer: Running, made_runs: Made
) -> None:
    first = await audited(explorer, made_runs, "agent")
    async with explorer.browser() as viewer:
        path = at(made_runs, "agent", run=made_runs.first_runs["agent"], again=1, tab="findings")
        answer = await viewer.get(path)
        assert answer.status_code == 303
        assert "again" not in answer.headers["location"]
        assert "tab=findings" in answer.headers["location"]
    assert (await audited(explorer, made_runs, "agent")).at > first.at


@pytest.mark.rule("runs.U3")
async def test_a_run_that_goes_on_faster_than_it_is_audited_is_shown_all_the_same(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(made_runs, "refund")
    before = await audited(explorer, made_runs, "refund")
    kept = explorer.console.runs
    described, grown = explorer.console.temporal.described, 0

    async def growing(*named: Any) -> Any:
        nonlocal grown
        told, grown = await described(*named), grown + 10
        return SimpleNamespace(run_id=told.run_id, task_queue="", history_length=told.history_length + grown)

    monkeypatch.setattr(explorer.console.temporal, "described", growing)
    kept.keep(Audited(place, before.report, explorer.console.clock(), took=60.0))
    try:
        async with explorer.browser() as viewer:
            page = await text_of(viewer, at(made_runs, "refund", run=place.run_id))
            assert "What you see may be old. The run has gone on" in page
            again = explorer.console.clock() - 200
            kept.keep(Audited(place, before.report, again, took=60.0))
            found = await audited(explorer, made_runs, "refund")
            assert found.at > again
    finally:
        kept.keep(before)


async def test_why_an_audit_failed_is_not_told_long_after(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(made_runs, "other")
    explorer.console.runs._kept.pop(place, None)
    explorer.console.runs._failed[place] = (-1e9, EvidenceError("the disk was on fire yesterday"))
    assert (await audited(explorer, made_runs, "other")).run.verdict.value == "verified"


async def test_a_reset_run_is_another_run(explorer: Running, made_runs: Made, target: str) -> None:
    first = await audited(explorer, made_runs, "agent")
    assert explorer.console.runs.kept(Place("default", made_runs.ids["agent"], "another run")) is None
    assert explorer.console.runs.kept(Place("payments", made_runs.ids["agent"], first.place.run_id)) is None


async def test_evidence_that_does_not_answer_keeps_no_page_waiting(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    await audited(explorer, made_runs, "agent")
    monkeypatch.setattr(runs, "WAIT", 0.3)
    monkeypatch.setattr(runs, "_LOOK", 0.3)
    end = threading.Event()
    held = [explorer.console.runs._looks.submit(end.wait) for _ in range(runs.THREADS)]
    try:
        async with explorer.browser() as viewer:
            run_id = made_runs.first_runs["agent"]
            page = await text_of(viewer, at(made_runs, "agent", run=run_id))
            assert "The evidence does not answer" in page
            why = await text_of(viewer, at(made_runs, "agent", "/lineage/why", run=run_id, activity="5"), 503)
            assert "The evidence does not answer" in why
    finally:
        end.set()
        assert all(each.result(60) for each in held)


async def test_a_locked_journal_is_said_and_what_was_audited_is_shown_as_old(
    made_runs: Made, target: str, tmp_path: Path
) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    async with (
        running(tmp_path, policies=made_runs.folder / "policies", target=target) as console,
        console.browser() as viewer,
    ):
        await audited(console, made_runs, "agent")
        file = max((tmp_path / "state" / "journal").glob("*.db"), key=lambda each: each.stat().st_size)
        content = file.read_bytes()
        file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
        try:
            page = await text_of(viewer, at(made_runs, "agent", run=made_runs.first_runs["agent"]))
            assert "What you see may be old." in page
            other = await text_of(viewer, at(made_runs, "other", run=made_runs.first_runs["other"]), 503)
            assert file.name in other
            assert "Traceback" not in other
        finally:
            file.write_bytes(content)
        with closing(sqlite3.connect(file)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            answer = await viewer.get(at(made_runs, "refund", run=made_runs.first_runs["refund"]))
            assert answer.status_code in (200, 202, 503)
            assert "Traceback" not in answer.text


# Histories


def _no_first(events: list[Event]) -> list[Event]:
    return events[1:]


def _cut(events: list[Event]) -> list[Event]:
    return events[: len(events) // 2]


def _twice(events: list[Event]) -> list[Event]:
    return [each for event in events for each in (event, event)]


def _numbered_alike(events: list[Event]) -> list[Event]:
    for each in events:
        each.event_id = 7
    return events


def _huge_numbers(events: list[Event]) -> list[Event]:
    for each in events:
        each.event_id = 2**63 - 1
        each.event_time.seconds = 2**62
    return events


def _before_all_time(events: list[Event]) -> list[Event]:
    for each in events:
        each.event_time.seconds = -(2**62)
    return events


def _deep(events: list[Event]) -> list[Event]:
    deep = b"[" * 50_000 + b"]" * 50_000
    for each in events:
        if each.HasField("activity_task_scheduled_event_attributes"):
            inputs = each.activity_task_scheduled_event_attributes.input.payloads
            del inputs[:]
            inputs.append(Payload(metadata={"encoding": b"json/plain"}, data=deep))
    return events


def _large_headers(events: list[Event]) -> list[Event]:
    for each in events:
        if each.HasField("activity_task_scheduled_event_attributes"):
            for payload in each.activity_task_scheduled_event_attributes.header.fields.values():
                payload.data = b"." * 1_000_000
    return events


def _large_grant(events: list[Event]) -> list[Event]:
    for payload in events[0].workflow_execution_started_event_attributes.header.fields.values():
        payload.data = b'"' + b"ey.." * 250_000 + b'"'
    return events


def _nan(events: list[Event]) -> list[Event]:
    for each in events:
        if each.HasField("activity_task_scheduled_event_attributes"):
            for payload in each.activity_task_scheduled_event_attributes.input.payloads:
                payload.data = b'{"amount": NaN, "note": 1' + b"0" * 5_000 + b"}"
    return events


def _own_parent(events: list[Event]) -> list[Event]:
    started = events[0].workflow_execution_started_event_attributes
    started.parent_workflow_execution.workflow_id = started.workflow_id
    started.parent_workflow_execution.run_id = started.original_execution_run_id
    started.continued_execution_run_id = started.original_execution_run_id
    return events


def _many_children(events: list[Event]) -> list[Event]:
    made = [*events[:-1]]
    for number in range(3_000):
        child = Event(event_id=len(made) + 1)
        child.event_type = EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
        told = child.child_workflow_execution_started_event_attributes
        told.workflow_execution.workflow_id = f"<b>child</b> {number}"
        told.workflow_execution.run_id = str(uuid.uuid4())
        told.workflow_type.name = "x" * 1_000
        made.append(child)
    return [*made, events[-1]]


def _unknown_types(events: list[Event]) -> list[Event]:
    for each in events[1:]:
        each.event_type = 9_999  # type: ignore[assignment]
    return events


HISTORIES = [
    _no_first, _cut, _twice, _numbered_alike, _huge_numbers, _before_all_time, _deep, _large_headers, _large_grant,
    _nan, _own_parent, _many_children, _unknown_types,
]  # fmt: skip


@pytest.mark.parametrize("change", HISTORIES, ids=lambda each: each.__name__.strip("_"))
async def test_a_hostile_history_is_a_page_that_calls_it_what_it_is(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Event]], list[Event]]
) -> None:
    place = place_of(made_runs, "agent")
    genuine = await explorer.console.temporal.history(place.namespace, place.workflow_id, place.run_id)
    events = [Event.FromString(each.SerializeToString()) for each in genuine.events]
    kept = explorer.console.runs
    before = await audited(explorer, made_runs, "agent")

    async def hostile(*_: Any) -> Any:
        return of_events(change(events), workflow_id=place.workflow_id, source="the run")

    monkeypatch.setattr(explorer.console.temporal, "history", hostile)
    monkeypatch.setattr(runs, "WAIT", 120.0)
    del kept._kept[place]
    try:
        async with explorer.browser() as viewer:
            first = await viewer.get(at(made_runs, "agent", run=place.run_id))
            assert first.status_code in (200, 503), first.text
            assert "Traceback" not in first.text
            assert "verdict good" not in first.text
            if first.status_code == 503:
                assert "What to do" in first.text or "the run:" in first.text
                return
            if (made := kept.kept(place)) is not None:
                kept.keep(Audited(place, made.report, made.at, took=1_000.0))
            for tab in VIEWS[1:4]:
                page = await viewer.get(at(made_runs, "agent", run=place.run_id, tab=tab))
                assert page.status_code == 200, page.text
                assert len(page.content) < 2_000_000
            for path in ("/lineage/graph.json", "/lineage/report.html", "/lineage/report.json"):
                assert (await viewer.get(at(made_runs, "agent", path, run=place.run_id))).status_code == 200
            for event in ("0", "999999999", "1"):
                why = await viewer.get(at(made_runs, "agent", "/lineage/why", run=place.run_id, event=event))
                assert why.status_code == 404
                page = await viewer.get(at(made_runs, "agent", run=place.run_id, event=event))
                assert page.status_code == 200
    finally:
        kept.keep(before)


async def test_a_family_that_goes_in_circles_or_has_no_end_is_followed_so_far(tmp_path: Path) -> None:
    asked: list[str] = []

    class Endless(Runs):
        async def audited(self, namespace: str, workflow_id: str, run_id: str | None, **_: Any) -> Audited:
            asked.append(str(run_id))
            number = int(str(run_id))
            links = (
                LinkReport(relation="continues", workflow_id="w", run_id=str(number - 1), event_id=1),
                LinkReport(relation="parent", workflow_id="w", run_id=str(number), event_id=1),
                LinkReport(relation="parent", workflow_id="w", run_id="0", event_id=1),
                LinkReport(relation="continued by", workflow_id="w", run_id=str(number + 1), event_id=9),
                LinkReport(relation="child", workflow_id="elsewhere", run_id="1", namespace="other", event_id=9),
            )
            found = Audited(Place("default", "w", str(run_id)), Report(runs=(run(activity(), links=links),)), 0.0)
            self.keep(found)
            return found

    async def everything(_: str) -> bool:
        return True

    endless = Endless(None, None)  # type: ignore[arg-type]
    first = await endless.audited("default", "w", "0")
    for _ in range(3 * MOST):
        family = await family_of(endless, first, ("default",), "kim", everything)
        assert len(family.members) <= MOST
    named = [(each.workflow_id, each.run_id) for each in family.members]
    assert len(named) == len(set(named))
    assert family.left_out or family.pending
    assert len(asked) <= 3 * MOST * 2 + 1
    endless.close()


def test_after_thousands_of_children_the_next_run_is_still_drawn() -> None:
    children = [
        LinkReport(relation="child", workflow_id=f"c{number}", run_id="r", event_id=number) for number in range(3_000)
    ]
    following = LinkReport(relation="continued by", workflow_id="w", run_id="next", event_id=9_999)
    told = graph.graph_of(run(activity(), links=(*children, following)))
    assert "Goes on as" in [each["heading"] for each in told["nodes"]]
    assert len(told["nodes"]) < graph.MOST + graph.MOST_LINKS + 10


# Addresses


@pytest.mark.rule("run_exports.D2")
@pytest.mark.parametrize(
    "name", ['"; filename="x.html', "../../etc/passwd", "a\r\nSet-Cookie: b=c", "", "\udcff", "\u202etxt"]
)
def test_a_saved_file_has_a_name_that_means_nothing_else(name: str) -> None:
    found = saved(b"", "application/json", Place("default", name, name), "json").headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="[A-Za-z0-9_-]+\.json"', found)


@pytest.mark.parametrize(
    "since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-31T12:00:00.1+25:00"]
)
def test_a_time_at_the_end_of_the_calendar_is_refused(since: str) -> None:
    with pytest.raises(ProblemError, match="no time"):
        Search(since=since).query()


async def test_a_reference_of_one_console_is_worth_nothing_at_another(made_runs: Made, target: str) -> None:
    config = {"public": True, "principal": None}
    policies = made_runs.folder / "policies"
    async with (
        running(made_runs.folder, policies=policies, target=target, config=config) as one,
        running(made_runs.folder, policies=policies, target=target, config=config) as other,
        other.browser(None) as viewer,
    ):
        reference = one.console.runs.references.reference(place_of(made_runs, "agent"))
        assert (await viewer.get(f"/lineage/run?ref={reference}")).status_code == 404


# The server


class Pages:
    """What a client's iterator over events is, with pages as a hostile server sends them."""

    def __init__(self, pages: Sequence[list[Event]]) -> None:
        self._pages = pages
        self._next = 0
        self.current_page: list[Event] = []
        self.next_page_token: bytes | None = b"more"

    async def fetch_next_page(self) -> None:
        self.current_page = self._pages[min(self._next, len(self._pages) - 1)]
        self._next += 1
        assert self._next < 100_000, "it never ends"


def serving(pages: Sequence[list[Event]]) -> Temporal:
    handle = SimpleNamespace(fetch_history_events=lambda: Pages(pages))
    client: Any = SimpleNamespace(get_workflow_handle=lambda *_, **__: handle)

    async def connect(_: str) -> Client:
        return client

    return Temporal(connect, "here:7233", ["default"])


@pytest.mark.rule("server.S1")
@pytest.mark.parametrize(
    "page",
    [[], [Event()] * 1_000, [Event(worker_may_ignore=True, task_id=2**62, links=[]) for _ in range(3)]],
    ids=["no events", "too many", "a few for ever"],
)
async def test_a_server_that_sends_without_end_is_read_to_a_bound(page: list[Event]) -> None:
    with pytest.raises(EvidenceError, match="no history has"):
        await serving([page]).history("default", "w", "r")


@pytest.mark.rule("server.S1")
async def test_a_history_of_too_many_bytes_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_BYTES", 100_000)
    large = Event()
    large.workflow_execution_signaled_event_attributes.input.payloads.append(Payload(data=b"x" * 60_000))
    with pytest.raises(EvidenceError, match="no history has"):
        await serving([[large]]).history("default", "w", "r")


@pytest.mark.rule("server.S1")
async def test_the_history_of_another_run_is_not_taken(explorer: Running, made_runs: Made) -> None:
    place, other = place_of(made_runs, "agent"), place_of(made_runs, "other")
    genuine = await explorer.console.temporal.history("default", other.workflow_id, other.run_id)
    temporal = serving([list(genuine.events)])
    handle = (await temporal.plain()).get_workflow_handle("")
    pages: Any = handle.fetch_history_events()
    pages.next_page_token = None
    handle.fetch_history_events = lambda: pages  # type: ignore[method-assign, misc, assignment]
    with pytest.raises(EvidenceError, match="another run"):
        await temporal.history("default", other.workflow_id, place.run_id)


@pytest.mark.rule("server.S2")
async def test_those_who_wait_for_a_server_that_hangs_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CONNECT_WITHIN", 0.3)
    tries: list[str] = []

    async def connect(namespace: str) -> Client:
        tries.append(namespace)
        await asyncio.Event().wait()
        raise AssertionError

    temporal = Temporal(connect, "here:7233", ["default", "payments"])
    asked = [temporal.plain("default") for _ in range(20)] + [temporal.plain("payments")]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, ServerAwayError) for each in answers)
    assert tries == ["default", "payments"]
    assert temporal._connecting == {}


async def test_a_server_that_comes_back_is_used_again() -> None:
    tries: list[str] = []

    async def connect(namespace: str) -> Client:
        tries.append(namespace)
        if len(tries) < 3:
            raise RPCError("refused", RPCStatusCode.UNAVAILABLE, b"")
        return SimpleNamespace(namespace=namespace)  # type: ignore[return-value]

    temporal = Temporal(connect, "here:7233", ["default"])
    for _ in range(2):
        with pytest.raises(ServerAwayError, match="refused"):
            await temporal.plain()
    assert (await temporal.plain()).namespace == "default"
    await temporal.plain()
    assert len(tries) == 3


async def test_who_leaves_while_the_server_is_connected_to_spoils_it_for_nobody() -> None:
    let = asyncio.Event()

    async def connect(namespace: str) -> Client:
        await let.wait()
        return SimpleNamespace(namespace=namespace)  # type: ignore[return-value]

    temporal = Temporal(connect, "here:7233", ["default"])
    leaving, staying = (asyncio.ensure_future(temporal.plain()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    let.set()
    assert (await staying).namespace == "default"


# The event loop


async def test_long_work_is_not_done_on_the_event_loop(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, places = threading.get_ident(), dict[str, set[int]]()

    def watched(module: Any, name: str) -> None:
        original = getattr(module, name)

        def call(*args: Any, **more: Any) -> Any:
            places.setdefault(name, set()).add(threading.get_ident())
            return original(*args, **more)

        monkeypatch.setattr(module, name, call)

    for module, names in (
        (server, ("of_events",)),
        (examining, ("audit_run", "with_checkpoints", "make_proofs")),
        (run_pages.run_view, ("beginning_of", "timeline_of", "findings_of", "traffic_of")),
        (run_pages.graph, ("graph_of",)),
    ):
        for name in names:
            watched(module, name)
    watched(Examiner, "standing")
    del explorer.console.runs._kept[(await audited(explorer, made_runs, "agent")).place]
    await audited(explorer, made_runs, "agent")
    async with explorer.browser() as viewer:
        for tab in VIEWS[:4]:
            await text_of(viewer, at(made_runs, "agent", tab=tab))
        assert (await viewer.get(at(made_runs, "agent", "/lineage/evidence.json"))).status_code == 200
    assert len(places) == 10
    assert not any(here in each for each in places.values()), places
