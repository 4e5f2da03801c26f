"""The lineage pages over HTTP: real runs of a real server, and those who would like to see more than they may."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import sqlite3
import uuid
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from temporalio.client import Client

from exequatur.audit import wording
from exequatur.audit.bundle import verify_proofs
from exequatur.audit.evidence import journals_in
from exequatur.audit.history import of_events
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.console import examining, runs
from exequatur.console.references import Place
from exequatur.console.searching import STATUSES
from exequatur.console.turns import Turns
from exequatur.errors import EvidenceError
from exequatur.gate.wire import payloads_digest
from exequatur.lineage import document
from tests.authority.running import eventually
from tests.console.lineage_runs import HOSTILE, Made
from tests.console.running import MALLORY, NOWHERE, Looking, Running, decision, running, write

VIEWS = ("timeline", "graph", "messages", "findings", "family")


def at(made: Made, name: str, path: str = "/lineage/run", **more: Any) -> str:
    return f"{path}?{urlencode({'workflow': made.ids[name], **more})}"


async def text_of(viewer: Looking, path: str, status: int = 200) -> str:
    """What a page says, without its markup."""
    answer = await viewer.client.get(path, follow_redirects=True)
    assert answer.status_code == status, answer.text
    body = re.sub(r"<script.*?</script>|<[^>]*>", " ", answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(body))


async def every_page(viewer: Looking, path: str) -> str:
    """What a list says, page after page: other tests have their runs on this server too."""
    said = ""
    while True:
        said += await text_of(viewer, path)
        following = re.search(r'rel="next" href="([^"]+)"', (await viewer.get(path)).text)
        if following is None:
            return said
        path = unescape(following[1])


async def test_runs_are_found_by_what_is_known_of_them(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        everything = await every_page(viewer, "/lineage")
        assert all(made_runs.ids[name] in everything for name in ("agent", "other", "child", "refund"))
        assert 'for Agent::"ops-bot"' in everything
        some = await text_of(viewer, f"/lineage?{urlencode({'id': made_runs.ids['agent']})}")
        assert made_runs.ids["agent"] in some
        assert made_runs.ids["other"] not in some
        assert made_runs.ids["refund"] in await every_page(viewer, "/lineage?type=Refunds&status=Completed")
        assert "No run was found" in await text_of(viewer, "/lineage?who=fay")  # she approved only
        assert "No run was found" in await text_of(viewer, "/lineage?id=nobody-has-this")


async def test_on_whose_behalf_is_searched_together_with_what_the_server_knows(
    explorer: Running, made_runs: Made
) -> None:
    async with explorer.browser() as viewer:
        all_of_them = await text_of(viewer, "/lineage?who=ops-bot")
        for name in ("agent", "other", "child", "refund", "hostile", "tricky", "long"):
            assert wording.shown(made_runs.ids[name], 200) in all_of_them, name
        assert made_runs.ids["loose"] not in all_of_them
        ended = await viewer.get("/lineage?who=ops-bot&status=Terminated")
        assert ended.text.count('data-label="Took"') == ended.text.count(">terminated</span>") == 1
        assert not re.search(r'data-label="Took" class="num"></td>', ended.text)
        assert "1 run" in await text_of(viewer, "/lineage?who=ops-bot&status=Terminated&type=Refunds")
        for nothing in ("status=Terminated&type=Agent", "since=2100-01-01", "status=TimedOut", "id=nobody"):
            assert "No run was found" in await text_of(viewer, f"/lineage?who=ops-bot&{nothing}"), nothing


async def test_a_run_is_listed_for_whom_it_acts_and_not_for_who_approved(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        page = await text_of(viewer, f"/lineage?{urlencode({'id': made_runs.ids['refund']})}")
        assert 'for Agent::"ops-bot"' in page
        assert "fay" not in page
        agent = await text_of(viewer, f"/lineage?{urlencode({'id': made_runs.ids['agent'], 'type': 'Agent'})}")
        assert re.search(r"\d+ allowed, 2 denied ", agent)


async def test_more_workflows_than_are_asked_about_are_said(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.console.run_list.MOST_IDS", 2)
    async with explorer.browser() as viewer:
        assert "There may be more" in await text_of(viewer, "/lineage?who=ops-bot")


async def test_what_the_server_does_not_have_is_said(target: str, tmp_path: Path) -> None:
    async with running(tmp_path, target=target) as console, console.browser() as viewer:
        write(tmp_path, decision(workflow_id=f"gone-{uuid.uuid4()}"))
        await eventually(lambda: console.console.decisions.place)
        assert "1 run that it names is not listed" in await text_of(viewer, "/lineage?who=ops-bot")


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("since", "nonsense", "That is no time; write it as 2026-01-31"),
        ("status", "Done", "There is no such status. There are Running, Completed, "),
        ("id", "x" * 1001, "longer than 1,000 characters"),
    ],
)
async def test_a_typo_in_the_search_keeps_the_form(explorer: Running, field: str, typed: str, said: str) -> None:
    asked = {"type": "Agent", "who": "ops-bot", "since": "2026-01-31", "status": "Failed", field: typed}
    async with explorer.browser() as viewer:
        answer = await viewer.get(f"/lineage?{urlencode(asked)}")
        assert answer.status_code == 400
        assert said in answer.text
        assert answer.text.count('aria-invalid="true"') == 1
        assert f'aria-describedby="{field}-wrong"' in answer.text
        for name in asked.keys() - {"status"}:
            assert f'name="{name}" value="{asked[name]}"' in answer.text
        assert ("<option selected>Failed<" in answer.text) == (field != "status")
        told = await viewer.get(f"/lineage?{urlencode(asked)}", headers={"accept": "application/json"})
        assert (told.status_code, told.json()["title"]) == (400, "That cannot be searched for")


@pytest.mark.rule("references.N2")
async def test_everybody_can_search_by_status_and_reads_no_principal(
    made_runs: Made, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    config = {"public": True, "principal": None}
    async with (
        running(tmp_path, policies=made_runs.folder / "policies", target=target, config=config) as console,
        console.browser(None) as viewer,
    ):
        page = (await viewer.get("/lineage?type=Refunds&since=2026-01-31")).text
        options = re.findall(r"<option[^>]*>([^<]*)<", page)
        assert options == ["any", *STATUSES]
        assert 'name="type" value="Refunds"' in page
        assert 'name="since" value="2026-01-31"' in page
        assert "for redacted" not in page
        for status in STATUSES:
            assert (await viewer.get(f"/lineage?status={status}")).status_code == 200
        monkeypatch.setattr("exequatur.console.run_list.RESULTS", 1)
        first = await viewer.get("/lineage?type=Agent")
        following = re.search(r'rel="next" href="([^"]+)"', first.text)
        assert following
        second = await viewer.get(unescape(following[1]))
        assert (second.status_code, 'name="type" value="Agent"' in second.text) == (200, True)
        assert not any(run_id in unquote(following[1]) for run_id in made_runs.first_runs.values())
        typo = await viewer.get("/lineage?since=nonsense")
        assert (typo.status_code, 'value="nonsense"' in typo.text) == (400, True)


@pytest.mark.rule("searching.B1")
async def test_a_search_holds_whatever_is_typed(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        for name in ("hostile", "tricky"):
            path = f"/lineage?{urlencode({'id': made_runs.ids[name]})}"
            assert "1 run " in await text_of(viewer, path)
        for typed in ("' OR WorkflowType = 'Agent", "x' OR 'a' = 'a", "\\", "\\' OR 1=1 --", "%", "\u202e"):
            assert "No run was found" in await text_of(viewer, f"/lineage?{urlencode({'id': typed})}")


async def test_a_link_of_another_page_leads_to_the_run(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        answer = await viewer.client.get(at(made_runs, "agent", "/lineage", activity="6"), follow_redirects=True)
        assert answer.url.params["run"] == made_runs.first_runs["agent"]
        assert 'class="meant"' in answer.text


async def test_the_page_says_what_the_audit_says(explorer: Running, made_runs: Made, target: str) -> None:
    client = await Client.connect(target)
    evidence = journals_in(made_runs.folder / "state" / "journal")
    trust = read_trust(made_runs.folder / "state" / "trust.jwks")
    async with explorer.browser() as viewer:
        for name in ("agent", "refund", "loose", "hostile", "tricky", "child"):
            history = await client.get_workflow_handle(made_runs.ids[name]).fetch_history()
            due = audit_run(of_events(history.events, workflow_id=made_runs.ids[name]), evidence, trust)
            report = (await viewer.get(at(made_runs, name, "/lineage/report.json"))).json()
            assert report["runs"][0] == json.loads(due.model_dump_json()) | {"verdict": due.verdict.value}


async def test_every_activity_is_shown_with_what_decided_it(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        page = await text_of(viewer, at(made_runs, "agent"))
    assert "Verified" in page
    assert 'On behalf of Agent::"ops-bot"' in page
    assert "denied by policy by no-deletion" in page
    assert "Records are kept for ten years" in page
    assert "Attempt 3: allowed, by all" in page
    assert page.count("signed receipt") == 5
    assert page.count("signed denial") == 2
    assert "recomputed: same answer" in page


async def test_an_approval_shows_who_agreed(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        page = await text_of(viewer, at(made_runs, "refund"))
        assert "waited for people" in page
        assert 'approved by User::"fay"' in page
        assert "approval.approve" in await text_of(viewer, at(made_runs, "refund", tab="messages"))


async def test_children_and_continued_runs_are_followed(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        for _ in range(50):
            page = await text_of(viewer, at(made_runs, "agent", tab="family"))
            if "under way" not in page:
                break
            await asyncio.sleep(0.1)
        assert f"{made_runs.ids['child']} Continued" in page
        assert "child of " + made_runs.ids["agent"] in page
        assert "continued by" in page
        assert page.count("Verified") == 4
        last = await text_of(viewer, at(made_runs, "child"))
        assert "continues" in last
        assert "1. to Continued" in last


async def test_a_run_without_a_grant_is_a_violation(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        page = await text_of(viewer, at(made_runs, "loose", tab="findings"))
    assert "Violations found" in page
    assert "run-ungoverned" in page


async def test_a_journal_that_was_edited_is_a_violation(made_runs: Made, target: str, tmp_path: Path) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    edited = 0
    for file in (tmp_path / "state" / "journal").glob("*.db"):
        db = sqlite3.connect(file)
        found = db.execute("SELECT idx, body FROM records WHERE kind = 'decision'").fetchall()
        for index, body in found:
            if made_runs.ids["agent"].encode() in body and b'"deny"' in body:
                db.execute("UPDATE records SET body = ? WHERE idx = ?", (body.replace(b'"deny"', b'"allow"'), index))
                edited += 1
        db.commit()
        db.close()
    assert edited
    async with (
        running(tmp_path, policies=made_runs.folder / "policies", target=target) as console,
        console.browser() as viewer,
    ):
        page = await text_of(viewer, at(made_runs, "agent", tab="findings"))
    assert "Violations found" in page
    assert "does not follow from those before it" in page


async def test_why_it_was_allowed_or_not_is_explained_with_the_policies(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        allowed = await text_of(viewer, at(made_runs, "agent", "/lineage/why", activity="5", attempt="2"))
        assert "Why was this allowed? pay: allowed Attempt 2 of activity 5" in allowed
        assert '@id("all") permit(principal, action, resource);' in allowed
        assert "context.args.order.amount is 20" in allowed
        denied = await text_of(viewer, at(made_runs, "agent", "/lineage/why", activity="7"))
        assert "pay: denied by policy" in denied
        assert "must be at most 1000, and is 5000" in denied
        assert "Would permit it, and does not count all permit" in denied
        await text_of(viewer, at(made_runs, "agent", "/lineage/why", activity="no-such"), 503)


async def test_without_evidence_the_history_explains(made_runs: Made, target: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    for name in ("keys", "issuer", "trust.jwks"):
        source = made_runs.folder / "state" / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "state" / name)
        elif source.exists():
            shutil.copy(source, tmp_path / "state" / name)
    async with (
        running(tmp_path, policies=made_runs.folder / "policies", target=target) as console,
        console.browser() as viewer,
    ):
        page = await text_of(viewer, at(made_runs, "agent", "/lineage/why", activity="6"))
    assert "Found in: the history" in page
    assert "delete_record: denied by policy" in page
    assert "forbid(principal, action == Action::" in page


async def test_the_report_tells_of_arguments_receipts_places_and_related_runs(
    explorer: Running, made_runs: Made, target: str
) -> None:
    async with explorer.browser() as viewer:
        agent = (await viewer.get(at(made_runs, "agent", "/lineage/report.json"))).json()["runs"][0]
        last = (await viewer.get(at(made_runs, "child", "/lineage/report.json"))).json()["runs"][0]
    client = await Client.connect(target)
    events = (await client.get_workflow_handle(made_runs.ids["agent"]).fetch_history()).events
    for activity in agent["activities"]:
        scheduled = events[activity["event_id"] - 1].activity_task_scheduled_event_attributes
        assert activity["arguments"] == payloads_digest(scheduled.input.payloads)
        assert events[activity["closed_event"] - 1].WhichOneof("attributes").startswith("activity_task_")
        assert (len(activity["request"]), len(activity["receipt"]), activity["rechecks"]) == (43, 43, 0)
        assert all(len(each["log"]) == 16 and each["index"] >= 0 for each in activity["decisions"])
    (child,) = agent["links"]
    assert (child["relation"], child["workflow_id"], child["outcome"]) == ("child", made_runs.ids["child"], "completed")
    assert [each["relation"] for each in last["links"]] == ["continues", "parent"]
    (handed,) = last["delegations"]
    assert (handed["depth"], handed["parent_run_id"]) == (1, made_runs.first_runs["agent"])


@pytest.mark.rule("addressing.Y1")
async def test_an_id_longer_than_any_is_not_looked_for(explorer: Running) -> None:
    async with explorer.browser() as viewer:
        for path in ("", "?workflow=" + "x" * 1001, "?workflow=a&run=" + "x" * 1001):
            assert "No run is named" in await text_of(viewer, f"/lineage/run{path}", 400)


@pytest.mark.rule("runs.U1")
async def test_a_run_that_has_not_gone_on_is_not_audited_again(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise EvidenceError("it was audited again")

    async with explorer.browser() as viewer:
        await text_of(viewer, at(made_runs, "agent"))
        monkeypatch.setattr(examining, "audit_run", broken)
        await text_of(viewer, at(made_runs, "agent"))
        monkeypatch.setattr(runs, "FRESH", 0.0)
        assert "it was audited again" in await text_of(viewer, at(made_runs, "agent"), 503)


@pytest.mark.rule("runs.U2")
async def test_no_more_audits_begin_than_can_be_borne(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer.console.runs, "_turns", Turns(2, 0, 4))
    place = Place("default", made_runs.ids["other"], made_runs.first_runs["other"])
    explorer.console.runs._kept.pop(place, None)
    async with explorer.browser() as viewer:
        assert "0 audits and exports are under way" in await text_of(viewer, at(made_runs, "other"), 429)


async def test_two_runs_are_compared_in_words(explorer: Running, made_runs: Made) -> None:
    async with explorer.browser() as viewer:
        page = await text_of(viewer, at(made_runs, "agent", "/lineage/compare", other=made_runs.ids["other"]))
        assert "1 difference." in page
        assert "other arguments" in page
        other = await text_of(viewer, at(made_runs, "agent", "/lineage/compare", other=made_runs.ids["refund"]))
        assert "only in the first" in other
        assert "only in the second" in other
        same = await text_of(viewer, at(made_runs, "agent", "/lineage/compare", other=made_runs.ids["agent"]))
        assert "No activity differs" in same


@pytest.mark.rule("run_exports.D2")
async def test_exported_evidence_verifies_offline(explorer: Running, made_runs: Made) -> None:
    trust = read_trust(made_runs.folder / "state" / "trust.jwks")
    async with explorer.browser() as viewer:
        answer = await viewer.get(at(made_runs, "agent", "/lineage/evidence.json"))
        assert answer.headers["content-disposition"].startswith("attachment; ")
        content = document.read(io.BytesIO(answer.content))
        seals = [each.record.body.decode() for each in content.links if each.record.kind == "seal"]
        found = verify_proofs(content.proofs, content.checkpoints, seals, trust)
        assert found.principal == 'Agent::"ops-bot"'
        assert {each.record.kind for each in content.links} >= {"decision", "receipt", "seal", "bundle"}
        page = await viewer.get(at(made_runs, "hostile", "/lineage/report.html"))
        assert page.headers["content-disposition"].startswith("attachment; ")
        assert "\n" not in page.headers["content-disposition"]
        assert HOSTILE not in page.text
        assert "<script>" not in page.text


async def test_while_the_server_is_away_the_evidence_tells(made_runs: Made, tmp_path: Path) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    async with (
        running(tmp_path, policies=made_runs.folder / "policies", target=NOWHERE) as console,
        console.browser() as viewer,
    ):
        page = await text_of(viewer, "/lineage")
        assert "The Temporal server does not answer" in page
        assert made_runs.ids["agent"] in page
        run = await text_of(viewer, at(made_runs, "agent"), 503)
        assert "Start the server" in run
        assert "delete_record" in run
        assert "denied" in run
        missing = await viewer.get(f"/lineage/run?{urlencode({'workflow': 'nothing'})}")
        assert "The evidence tells nothing of it" in missing.text


async def test_what_was_audited_is_shown_while_the_server_is_away(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        from exequatur.console.errors import ServerAwayError

        raise ServerAwayError("here:7233", "it is gone")

    async with explorer.browser() as viewer:
        path = at(made_runs, "agent", run=made_runs.first_runs["agent"])
        await text_of(viewer, path)
        monkeypatch.setattr(explorer.console.temporal, "described", away)
        page = await text_of(viewer, path)
        assert "What you see may be old." in page
        assert "here:7233: it is gone" in page
        assert "delete_record" in page


async def test_nobody_waits_for_a_long_audit(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "WAIT", 0.0)
    place = Place("default", made_runs.ids["other"], made_runs.first_runs["other"])
    explorer.console.runs._kept.pop(place, None)
    async with explorer.browser() as viewer:
        page = await text_of(viewer, at(made_runs, "other"), 202)
        assert "The run is being audited" in page
        for _ in range(100):
            told = (await viewer.get(at(made_runs, "other", "/lineage/state.json"))).json()
            if told["state"] == "audited":
                break
            await asyncio.sleep(0.05)
        assert "Verified" in await text_of(viewer, at(made_runs, "other"))


async def test_why_an_audit_failed_is_told_to_who_waited(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("default", made_runs.ids["other"], made_runs.first_runs["other"])
    explorer.console.runs._kept.pop(place, None)

    def broken(*_: object) -> None:
        raise EvidenceError("the disk is on fire; put it out")

    monkeypatch.setattr(runs, "WAIT", 0.0)
    monkeypatch.setattr(examining, "audit_run", broken)
    async with explorer.browser() as viewer:
        await text_of(viewer, at(made_runs, "other"), 202)
        under_way = [each.task for each in explorer.console.runs._running.values() if each.task is not None]
        await asyncio.wait([*under_way, asyncio.ensure_future(asyncio.sleep(0))])
        assert "the disk is on fire; put it out" in await text_of(viewer, at(made_runs, "other"), 503)


@pytest.mark.rule("addressing.Y3", "run_list.L1", "run_exports.D1")
async def test_the_public_view_names_nobody_and_exports_nothing(made_runs: Made, target: str) -> None:
    config = {"public": True, "principal": None}
    async with (
        running(made_runs.folder, policies=made_runs.folder / "policies", target=target, config=config) as console,
        console.browser(None) as viewer,
    ):
        listed = await viewer.get("/lineage")
        assert listed.status_code == 200
        references = re.findall(r'href="/lineage/run\?ref=([0-9a-f]{24})"', listed.text)
        assert len(references) > 5
        shown = listed.text
        for reference in references:
            for tab in VIEWS:
                answer = await viewer.get(f"/lineage/run?ref={reference}&tab={tab}")
                assert answer.status_code in (200, 202), answer.text
                shown += answer.text
            graph = await viewer.get(f"/lineage/graph.json?ref={reference}")
            why = await viewer.get(f"/lineage/why?ref={reference}&event=5")
            shown += graph.text + why.text
            assert (await viewer.get(f"/lineage/evidence.json?ref={reference}")).status_code == 403
            assert (await viewer.get(f"/lineage/report.html?ref={reference}")).status_code == 403
        for name in (
            "ops-bot",
            "fay",
            "operations",
            *made_runs.ids.values(),
            *filter(None, made_runs.first_runs.values()),
        ):
            assert name not in unescape(shown)
        assert (await viewer.get(at(made_runs, "agent"))).status_code == 404
        assert (await viewer.get(at(made_runs, "agent", "/lineage/why", activity="5"))).status_code == 404
        for typed in ({"id": made_runs.ids["agent"]}, {"who": "ops-bot"}):
            found = await viewer.get(f"/lineage?{urlencode(typed)}")
            assert len(re.findall(r'href="/lineage/run\?ref=', found.text)) == len(references)


@pytest.mark.rule("addressing.Y2")
async def test_cedar_decides_which_runs_a_viewer_sees(made_runs: Made, target: str, tmp_path: Path) -> None:
    shutil.copytree(made_runs.folder / "state", tmp_path / "state", ignore=shutil.ignore_patterns("*.lock"))
    policies = (
        'permit(principal, action == Action::"console.view", resource);\n'
        'forbid(principal == User::"mallory", action == Action::"console.view", resource)\n'
        f'when {{ resource == Workflow::"{made_runs.ids["agent"]}" }};'
    )
    async with running(tmp_path, policies=policies, target=target) as console, console.browser(MALLORY) as viewer:
        assert (await viewer.get(at(made_runs, "other"))).status_code in (200, 202, 303)
        paths = ["run", "why", "compare", "graph.json", "state.json", "report.html", "report.json", "evidence.json"]
        for path in paths:
            answer = await viewer.get(at(made_runs, "agent", f"/lineage/{path}", activity="5"))
            assert answer.status_code == 403, path
        answer = await viewer.get(at(made_runs, "other", "/lineage/compare", other=made_runs.ids["agent"]))
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/lineage/run",
        "/lineage/run?workflow=" + "x" * 1001,
        "/lineage/run?workflow=a&run=" + "x" * 1001,
        "/lineage/run?workflow=nobody",
        "/lineage/run?workflow=nobody&run=not-a-uuid",
        "/lineage/run?workflow=a&namespace=elsewhere",
        "/lineage/run?workflow=a&tab=../../etc",
        "/lineage/run?workflow={agent}&event=one",
        "/lineage/run?workflow={agent}&first=99999999999",
        "/lineage/why?workflow={agent}",
        "/lineage/why?workflow={agent}&activity=" + "x" * 1001,
        "/lineage/why?workflow={agent}&activity=5&attempt=-1",
        "/lineage/compare?workflow={agent}&other=nobody",
        "/lineage/compare?workflow={agent}&other={agent}&first=%F0%9F%92%A3",
        "/lineage/evidence.json?workflow=nobody",
        "/lineage/graph.json",
        "/lineage?page=%00",
        "/lineage?page=AAAA",
        "/lineage?page=" + "A" * 5000,
        "/lineage?since=soon",
        "/lineage?status=x",
        "/lineage?namespace=elsewhere",
        "/lineage?id=" + "x" * 1001,
    ],
)
async def test_an_address_that_leads_nowhere_is_answered_with_a_page(
    explorer: Running, made_runs: Made, path: str
) -> None:
    async with explorer.browser() as viewer:
        answer = await viewer.client.get(path.replace("{agent}", made_runs.ids["agent"]), follow_redirects=True)
        assert 400 <= answer.status_code < 500
        assert "Traceback" not in answer.text
