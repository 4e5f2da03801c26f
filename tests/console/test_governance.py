"""The governance page over HTTP: what is shown to whom, what filters find, and what is done in whose name."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from markupsafe import escape

from exequatur.console import decided, live
from exequatur.console.foreseen import may_ever
from exequatur.console.redact import PLAIN, REDACTED, redacted
from exequatur.identity.principal import Principal
from exequatur.lineage.journal import Journal
from exequatur.policy.bundle import PolicyBundle
from exequatur.release.report import Standing, report_of, write_report
from exequatur.statements.encoding import compact_json, digest
from tests.authority.running import eventually
from tests.console.running import FAY, KIM, MALLORY, REFERENCE, Looking, Running, decision, running, write

SECRET = "the-secret-customer"
DENIED = {
    "activity_type": "export_customers",
    "decision": "deny",
    "principal": f'User::"{SECRET}"',
    "policies": ["exports-of-the-own-region"],
    "reason": f"policy exports-of-the-own-region: {SECRET}",
    "workflow_id": f"export-{SECRET}",
    "run_id": f"run-{SECRET}",
    "arguments": json.dumps({"customer": SECRET}),
    "facts": json.dumps({"run": {"workflow_id": SECRET}}),
}


@pytest_asyncio.fixture(scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A console with a few decisions."""
    folder = tmp_path_factory.mktemp("told")
    bundle = PolicyBundle.from_folder(REFERENCE)
    rows = [decision(bundle=bundle.digest), decision(**DENIED), decision(decision="none", policies=[], enforced=False)]
    async with running(folder) as console:
        write(folder, *rows)
        beside = {"bundle": bundle.digest, "decision": "allow", "policies": []}
        body = {"activity_type": "refund_order", "decision": "deny", "policies": ["tighter"], "enforced": beside}
        write(folder, compact_json({**body, "bundle": digest("candidate"), "workflow_id": "w-9"}), kind="shadow")
        await eventually(lambda: console.console.decisions.counts().shadow == 1)
        yield console


async def stream(looking: Looking, path: str, until: Any, within: float = 60.0) -> list[dict[str, Any]]:
    """The batches of a stream, until one of them is what is waited for."""
    batches = []
    async with asyncio.timeout(within), looking.client.stream("GET", path) as answered:
        assert answered.status_code == 200
        assert answered.headers["content-type"].startswith("text/event-stream")
        async for line in answered.aiter_lines():
            if line.startswith("data: "):
                batches.append(json.loads(line[6:]))
                if until(batches[-1]):
                    break
    return batches


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", {"refund_order", "export_customers"}),
        ("?activity=EXPORT", {"export_customers"}),
        ("?outcome=allow", {"refund_order"}),
        ("?outcome=deny&activity=refund", set()),
        ("?principal=ops-bot", {"refund_order"}),
        ("?policy=own-region", {"export_customers"}),
        ("?workflow=order-", {"refund_order"}),
        ("?kind=nexus", set()),
        ("?kind=shadow", {"refund_order"}),
    ],
)
async def test_filters_stand_in_the_address(told, query, seen):
    async with told.browser() as kim:
        page = (await kim.get(f"/governance{query}")).text
    table = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert {name for name in ("refund_order", "export_customers") if name in table} == seen
    assert ('id="empty" hidden' in page) == bool(seen)


@pytest.mark.parametrize("path", ["/governance", "/governance/events"])
@pytest.mark.parametrize(("name", "known"), [("outcome", "allow, deny or none"), ("kind", "decision or message")])
async def test_an_outcome_or_kind_that_there_is_not_is_refused_and_the_known_ones_are_named(told, path, name, known):
    async with told.browser() as kim:
        refused = await kim.get(f"{path}?{name}=denied&principal=Agent")
    assert refused.status_code == 400
    assert f"There is no such {name}" in refused.text
    assert known in refused.text


async def test_the_page_is_by_time_whatever_journal_is_read_first(tmp_path):
    """Journals that are found later hold what was decided earlier, and one has a clock that is a day ahead."""
    now = time.time()
    names = ["late", "middle", "early"]
    async with running(tmp_path) as console, console.browser() as kim:
        decisions = console.console.decisions
        for at, name in zip((now - 1, now - 5, now - 9), names, strict=True):
            place = decisions.place
            write(tmp_path / name, decision(workflow_id=f"{name}-1"), decision(workflow_id=f"{name}-2"))
            move(tmp_path / name, tmp_path, at)
            await eventually(lambda place=place: decisions.place == place + 2)
        write(tmp_path / "ahead", decision(workflow_id="ahead-1"), decision(workflow_id="ahead-2"))
        move(tmp_path / "ahead", tmp_path, now + 86_400)
        await eventually(lambda: decisions.place == 8)
        write(tmp_path, decision(workflow_id="newest"))
        await eventually(lambda: decisions.place == 9)
        page = (await kim.get("/governance")).text
        [batch] = await stream(kim, "/governance/events?after=1", lambda batch: batch.get("rows"))
    listed = re.findall(r">(\w+-[12]|newest)</a>", page)
    assert listed == ["newest", "ahead-2", "ahead-1", *(f"{name}-{n}" for name in names for n in (2, 1))]
    # A batch is in the order of time, too; the first row that was read is before the place that was asked for.
    assert [row["workflow_id"] for row in batch["rows"]] == [each for each in listed[::-1] if each != "late-1"]


def move(folder: Path, to: Path, at: float) -> None:
    """Give the journal of a folder another time, and another folder."""
    [path] = (folder / "state" / "journal").glob("*.db")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE records SET at = ? + idx / 1000.0", [at])
    there = to / "state" / "journal" / f"{folder.name}.db"
    there.parent.mkdir(exist_ok=True)
    path.rename(there)


async def test_new_decisions_come_by_the_stream_and_the_filter_holds_there_too(told):
    async with told.browser() as kim:
        place = told.console.decisions.place
        following = asyncio.create_task(
            stream(kim, f"/governance/events?after={place}&activity=streamed", lambda batch: batch.get("rows"))
        )
        await asyncio.sleep(0.3)
        write(told.folder, decision(activity_type="other"), decision(activity_type="streamed"))
        [row] = (await following)[-1]["rows"]
    assert (row["action"], row["outcome"], row["policies"]) == ("streamed", "allow", ["refunds-by-operations"])


@pytest.mark.rule("live.T2")
async def test_a_stream_sends_no_more_than_fits_and_says_what_it_left_out(told, monkeypatch):
    monkeypatch.setattr(live, "ROWS", 5)
    async with told.browser() as kim:
        write(told.folder, *[decision(activity_type=f"many-{n}") for n in range(12)])
        await eventually(lambda: told.console.decisions.since(0).rows[-1].action == "many-11")
        batches = await stream(kim, "/governance/events?after=1&activity=many-", lambda batch: batch.get("rows"))
    assert [row["action"] for row in batches[-1]["rows"]] == [f"many-{n}" for n in range(7, 12)]
    assert batches[-1]["skipped"] == 7


@pytest.mark.rule("live.T2")
async def test_no_more_than_some_follow_at_a_time(told, monkeypatch):
    monkeypatch.setattr(told.console.streams, "free", lambda _: False)
    async with told.browser() as kim:
        answered = await kim.get("/governance/events", headers={"Accept": "application/json"})
    assert answered.status_code == 503
    assert answered.json()["title"] == "Too many look at once"


@pytest.mark.rule("live.T3")
@pytest.mark.parametrize("how", ["logout", "revoked"])
async def test_a_stream_ends_with_its_session_and_with_the_right_to_look(tmp_path, monkeypatch, how):
    from exequatur.revocation.entry import revocation

    monkeypatch.setattr(live, "_LOOK_EVERY", 0.1)
    async with running(tmp_path) as console, console.browser() as kim:
        cookie = next(iter(kim.client.cookies.values()))
        following = asyncio.create_task(stream(kim, "/governance/events", lambda batch: "title" in batch))
        await asyncio.sleep(0.3)
        if how == "logout":
            console.console.sessions.close(cookie)
        else:
            console.console.governing.gate.revocations.add(revocation(reason="he left", principal=KIM))
        assert (await following)[-1] == {"title": "Your session has ended"}


async def test_one_decision_has_a_page_with_what_cedar_was_told(told):
    row = next(row for row in told.console.decisions.since(0).rows if row.action == "export_customers")
    async with told.browser() as kim:
        page = (await kim.get(f"/governance/decision?log={row.log}&index={row.index}")).text
        other = await kim.get(f"/governance/decision?log={row.log}&index=99999")
    for part in (SECRET, "export_customers", "exports-of-the-own-region", "Arguments that Cedar was given", "denied"):
        assert part in page
    assert other.status_code == 404


def bomb() -> str:
    """Small, and hundreds of megabytes once each level is indented."""
    return "[" * 300 + "1," * 200_000 + "1" + "]" * 300


def test_arguments_that_grow_when_they_are_indented_fill_no_memory():
    tracemalloc.start()
    try:
        text = decided.pretty(bomb())
        assert len(text) < 2 * decided.LONGEST
        assert text.endswith("…")
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    assert decided.pretty(deep) == deep
    assert len(decided.pretty("x" * 1_000_000)) < 2 * decided.LONGEST


async def test_workers_of_other_state_folders_are_shown_too(tmp_path):
    other = tmp_path / "other"
    standing = Standing(at=time.time(), worker="spiffe://x/elsewhere", task_queues=("q",))
    async with running(tmp_path, config={"evidence": [str(other / "state")]}) as console, console.browser() as kim:
        (other / "state").mkdir(parents=True)
        write_report(other / "state", report_of(digest("b"), None, time.time(), standing))
        await eventually(lambda: console.console.watch.reports().running)
        assert "spiffe://x/elsewhere" in (await kim.get("/governance/policies")).text


async def test_sources_that_cannot_be_read_do_not_fill_the_page(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        console.console.decisions.problems.update({f"/nowhere/{n}": f"/nowhere/{n}: gone" for n in range(5000)})
        page = (await kim.get("/governance")).text
    assert 9 <= page.count("/nowhere/") <= 10
    assert re.search(r"And 4,99\d more", page)


@pytest.mark.rule("asking.V4", "revoking.K2")
async def test_what_somebody_tries_who_may_not_even_look_is_recorded_too(tmp_path):
    async with running(tmp_path) as console, console.browser(MALLORY) as mallory:
        form = {"csrf": "", "everything": "yes", "confirm": "revoke everything", "reason": "chaos"}
        assert (await mallory.get("/governance")).status_code == 403
        form["csrf"] = re.search(r'data-csrf="([^"]+)"', (await mallory.get("/governance")).text)[1]
        refused = await mallory.post(FEED, form)
        assert refused.status_code == 403
        [record] = console.records()
        assert (record["principal"], record["action"], record["decision"]) == (MALLORY, "revocation.add", "deny")
        assert console.console.governing.gate.revocations.entries == ()


async def test_a_stream_of_a_console_that_ended_begins_anew_here(told):
    async with told.browser() as kim:
        place = f"1-{'0' * 8}"
        [batch] = await stream(kim, f"/governance/events?after={place}", lambda batch: batch.get("rows"))
        assert batch["fresh"] is True
        assert len(batch["rows"]) >= 3
        place = f"1-{told.console.decisions.began}"
        [batch] = await stream(kim, f"/governance/events?after={place}", lambda batch: batch.get("rows"))
        assert batch["fresh"] is False
        for forged in ("x", "1-", "-1", "1-zzzzzzzz", "9" * 16, "1\r\ndata: x"):
            answered = await kim.client.get("/governance/events", params={"after": forged})
            assert answered.status_code == 400


async def test_the_policies_in_force_on_each_worker_are_shown_with_how_often_each_decided(told):
    bundle = PolicyBundle.from_folder(REFERENCE)
    standing = Standing(at=time.time(), worker="spiffe://x/w", task_queues=("operations",), unavailable="no credential")
    write_report(told.folder / "state", report_of(bundle.digest, None, time.time(), standing))
    await eventually(lambda: told.console.watch.reports().running)
    async with told.browser() as kim:
        page = (await kim.get("/governance/policies")).text
    for part in ("spiffe://x/w", "no credential", "refunds-limit", "in force on 1 worker", "tighter", "would deny"):
        assert part in page
    assert "a refund above 5000.00 is not paid from here" in page


@pytest.mark.rule("render.R3", "live.T1", "perimeter.G6")
async def test_a_public_console_shows_what_happened_and_not_to_whom(tmp_path):
    async with running(tmp_path, config={"public": True}) as console, console.browser(None) as anybody:
        write(tmp_path, decision(**DENIED))
        await eventually(lambda: console.console.decisions.place)
        row = console.console.decisions.since(0).rows[0]
        pages = [
            (await anybody.get(path)).text
            for path in (
                "/governance",
                "/governance/policies",
                "/governance/approvals",
                "/governance/revocations",
                f"/governance/decision?log={row.log}&index={row.index}",
            )
        ]
        batches = await stream(anybody, "/governance/events?after=0", lambda batch: batch.get("rows"))
        for path in ("/governance/approvals", "/governance/revocations"):
            assert all(f'href="{path}"' in page for page in pages[:4])
        assert "export_customers" in pages[0]
        assert "exports-of-the-own-region" in pages[0]
        assert batches[-1]["rows"][0]["principal"] == REDACTED
        for text in (*pages, json.dumps(batches)):
            assert SECRET not in text
            assert str(tmp_path) not in text
        # What is hidden is not to be found out by asking for it.
        for name in ("principal", "workflow"):
            both = [(await anybody.get(f"/governance?{name}={value}")).text for value in (SECRET, "nobody")]
            assert all("export_customers" in each.partition("<tbody>")[2] for each in both)
        # And nothing is changed.
        for path in ("/governance/revocations", "/governance/approvals", "/logout"):
            answered = await anybody.client.post(path, data={"everything": "yes"}, headers={"Origin": console.url})
            assert answered.status_code == 403
        assert "csrf" not in "".join(pages)
        assert console.records() == []


@pytest.mark.rule("redact.D1", "redact.D2", "redact.D3", "redact.D4")
def test_what_is_not_known_to_name_nobody_is_hidden():
    value = {
        "action": "refund_order",
        "principal": SECRET,
        "new_field": SECRET,
        "workflow_id": f"order-{SECRET}",
        "short": 7,
        "amount": 900,
        "arguments": {"action": SECRET, "n": 1},
        "rows": [{"reason": SECRET, "policies": ["a", "b"], "enforced": True, "none": None}],
        "odd": {1: SECRET, "bytes": SECRET.encode(), "set": {SECRET}},
        "empty": "",
    }
    code = redacted(value)["workflow_id"]
    assert re.fullmatch("[0-9a-f]{6}", code)
    assert redacted("smith", "workflow_id") != redacted("smyth", "workflow_id")
    assert "smith" not in redacted("smith", "workflow_id")
    assert redacted(value) == {
        "action": "refund_order",
        "principal": REDACTED,
        "new_field": REDACTED,
        "workflow_id": code,
        "short": 7,
        "amount": REDACTED,
        "arguments": REDACTED,
        "rows": [{"reason": REDACTED, "policies": ["a", "b"], "enforced": True, "none": None}],
        "odd": {"bytes": REDACTED, "set": REDACTED},
        "empty": "",
    }
    assert not PLAIN & {"principal", "reason", "name", "id", "text", "arguments", "value"}


@pytest.mark.rule("redact.D2")
def test_nobody_makes_the_code_of_an_id_that_they_guess():
    ask = "from exequatur.console.redact import redacted; print(redacted('order-1', 'workflow_id'))"
    other = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    assert re.fullmatch("[0-9a-f]{6}", other)
    assert other != redacted("order-1", "workflow_id")


FEED = "/governance/revocations"


async def test_a_revocation_is_authorized_recorded_and_in_the_feed(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        form = {"what": "principal", "value": 'Agent::"ops-bot"', "lasts": "1800", "reason": "its token leaked"}
        done = await kim.post(FEED, {**form, "confirm": form["value"]})
        assert (done.status_code, done.headers["location"]) == (303, f"{FEED}?said=revoked")
        [entry] = console.console.governing.gate.revocations.entries
        assert (entry.principal, entry.reason) == ('Agent::"ops-bot"', "its token leaked")
        assert entry.until is not None
        assert 1700 < entry.until - time.time() < 1900
        [record] = console.records()
        assert (record["action"], record["principal"], record["decision"]) == ("revocation.add", KIM, "allow")
        assert record["policies"] == ["revocations-by-operations"]
        page = (await kim.get(f"{FEED}?said=revoked")).text
        for part in ("its token leaked", "Agent::&#34;ops-bot&#34;", "in force", "Revoked. What matches ends"):
            assert part in page


@pytest.mark.rule("asking.V4", "revoking.K2")
async def test_who_may_not_revoke_is_refused_and_that_is_recorded(tmp_path):
    async with running(tmp_path) as console, console.browser(FAY) as fay:
        form = {"what": "principal", "value": 'User::"kim"', "confirm": 'User::"kim"', "reason": "a quarrel"}
        refused = await fay.post(FEED, {**form, "as": KIM, "principal": KIM})
        assert refused.status_code == 403
        assert "The policies do not permit it" in refused.text
        [record] = console.records()
        assert (record["principal"], record["decision"], record["action"]) == (FAY, "deny", "revocation.add")
        assert console.console.governing.gate.revocations.entries == ()


@pytest.mark.rule("revoking.K1")
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"what": "principal", "value": 'User::"eve"', "confirm": 'User::"eve"'},
        {"what": "principal", "value": 'User::"eve"', "confirm": 'User::"eva"', "reason": "r"},
        {"what": "principal", "value": "eve", "confirm": "eve", "reason": "r"},
        {"what": "everything", "value": "x", "confirm": "x", "reason": "r"},
        {"what": "workflow", "value": "", "confirm": "", "reason": "r"},
        {"what": "workflow", "value": "w", "confirm": "w", "reason": "r", "lasts": "1"},
        {"everything": "yes", "confirm": "yes", "reason": "r"},
        {"everything": "yes", "confirm": "revoke everything", "reason": "  "},
        {"everything": "yes", "confirm": "Revoke Everything", "reason": "r"},
        {"lifts": "1", "confirm": "2", "reason": "r"},
        {"lifts": "1", "confirm": "", "reason": "r"},
        {"lifts": "0", "confirm": "0", "reason": "r"},
        {"lifts": "9" * 50, "confirm": "9" * 50, "reason": "r"},
    ],
)
async def test_nothing_is_revoked_by_a_slip(console, form):
    async with console.browser() as kim:
        refused = await kim.post(FEED, form)
        assert refused.status_code == 400
        assert "Nothing was changed" in refused.text
        asked = "reason" in form and form["reason"].strip()
        assert asked or "confirm" not in form or "Say why" in refused.text
    assert console.console.governing.gate.revocations.entries == ()
    assert console.records() == []


@pytest.mark.rule("revoking.K1")
@pytest.mark.parametrize(
    ("form", "field", "kept"),
    [
        (
            {"what": "workflow", "value": 'o"1', "lasts": "7200", "reason": "it <b>leaks</b>", "confirm": "o1"},
            "confirm",
            ['value="o&#34;1"', '<option value="workflow" selected>', '<option value="7200" selected>'],
        ),
        ({"what": "principal", "value": "eve", "confirm": "eve", "reason": "r"}, "value", ['value="eve"']),
        ({"everything": "yes", "confirm": "yes", "reason": "it <b>leaks</b>"}, "k-confirm", []),
        ({"lifts": "1", "confirm": "11", "reason": "it <b>leaks</b>"}, "lc-1", ["<details open>"]),
    ],
)
async def test_a_slip_gives_the_form_again_as_it_was_filled_in(tmp_path, form, field, kept):
    async with running(tmp_path) as console, console.browser() as kim:
        before = {"what": "activity", "value": "x", "confirm": "x", "reason": "r"}
        assert (await kim.post(FEED, before)).status_code == 303
        refused = await kim.post(FEED, form)
        assert len(console.console.governing.gate.revocations.entries) == 1
    assert refused.status_code == 400
    for part in (*kept, "Nothing was changed", f'value="{escape(form["reason"])}"'):
        assert part in refused.text
    [wrong] = re.findall(r"<\w+ [^>]*aria-invalid[^>]*>", refused.text)
    assert f'id="{field}"' in wrong
    assert "autofocus" in wrong
    assert refused.text.count('id="wrong"') == 1
    # What is to be typed once more is not filled in.
    assert all("value=" not in each for each in re.findall(r'<input [^>]*name="confirm"[^>]*>', refused.text))


async def test_a_slip_shows_the_feed_to_nobody_who_may_not_see_it(tmp_path):
    async with running(tmp_path) as console, console.browser(MALLORY) as mallory:
        csrf = re.search(r'data-csrf="([^"]+)"', (await mallory.get("/governance")).text)[1]
        refused = await mallory.post(FEED, {"csrf": csrf, "everything": "yes", "confirm": "x", "reason": "r"})
    assert refused.status_code == 403
    assert "You may not see this page" in refused.text


async def test_who_may_not_revoke_is_told_so_beforehand_and_nothing_of_it_is_recorded(tmp_path):
    async with running(tmp_path) as console:
        async with console.browser() as kim:
            form = {"what": "activity", "value": "x", "confirm": "x", "reason": "r"}
            assert (await kim.post(FEED, form)).status_code == 303
            seen = {"kim": (await kim.get(FEED)).text}
        async with console.browser(FAY) as fay:
            seen["fay"] = (await fay.get(FEED)).text
        assert len(console.records()) == 1
    for part in ("<h2>Revoke</h2>", "<h2>Kill switch</h2>", "Lift 1"):
        assert part in seen["kim"]
        assert part not in seen["fay"]
    assert re.search('No policy permits <span class="hostile">User::&#34;fay&#34;</span> to revoke', seen["fay"])


@pytest.mark.parametrize(
    ("policies", "possible"),
    [
        ("permit(principal, action, resource);", True),
        (
            'permit(principal, action in [Action::"revocation.add"], resource) when { context.revocation.everything };',
            True,
        ),
        ('permit(principal, action, resource == Workflow::"w");', True),
        ('permit(principal is User in Role::"ops", action, resource);', True),
        ("permit(principal is Agent, action, resource);", False),
        ('permit(principal == User::"fay", action, resource);', False),
        ('permit(principal, action == Action::"revocation.lift", resource);', False),
        (
            "permit(principal, action, resource);"
            "forbid(principal, action, resource) when { context.revocation.everything };",
            True,
        ),
        ('permit(principal, action, resource); forbid(principal, action, resource == Workflow::"w");', True),
        ('permit(principal, action, resource); forbid(principal == User::"kim", action, resource);', False),
        ("", False),
    ],
)
def test_a_form_is_left_out_only_where_no_answer_could_permit_it(policies, possible):
    entities = [{"uid": {"type": "User", "id": "kim"}, "attrs": {}, "parents": [{"type": "Role", "id": "ops"}]}]
    bundle = PolicyBundle.from_parts(policies, entities=entities)
    assert may_ever(bundle, Principal.parse(KIM), "revocation.add") is possible


async def test_the_kill_switch_is_switched_and_lifted(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        on = {"everything": "yes", "confirm": "revoke everything", "reason": "incident 512"}
        assert (await kim.post(FEED, on)).headers["location"] == f"{FEED}?said=everything"
        assert "Everything is revoked" in (await kim.get(FEED)).text
        missing = await kim.post(FEED, {"lifts": "7", "confirm": "7", "reason": "over"})
        assert missing.status_code == 404
        off = {"lifts": "1", "confirm": "1", "reason": "it is over"}
        assert (await kim.post(FEED, off)).headers["location"] == f"{FEED}?said=lifted"
        assert (await kim.post(FEED, off)).status_code == 400
        assert "lifted by 2" in (await kim.get(FEED)).text
    assert [each["action"] for each in console.records()][:2] == ["revocation.add", "revocation.lift"]


@pytest.mark.rule("asking.V4")
@pytest.mark.parametrize("broken", ["journal", "feed"])
async def test_what_cannot_be_recorded_or_told_is_not_done(tmp_path, broken):
    async with running(tmp_path) as console, console.browser() as kim:
        csrf = await kim.csrf()
        state = tmp_path / "state"
        if broken == "journal":
            (state / "journal").mkdir(exist_ok=True)
            shutil.rmtree(state / "journal")
            (state / "journal").write_text("")
        else:
            (state / "revocations").write_bytes(b"{garbage\n")
        form = {"csrf": csrf, "what": "workflow", "value": "w", "confirm": "w", "reason": "r"}
        answered = await kim.client.post(FEED, data=form, headers={"Origin": console.url})
        assert answered.status_code == 503
        assert "<h1>" in answered.text
        assert console.console.governing.gate.revocations.entries == ()
        assert (await kim.get(FEED)).status_code == 200
        if broken == "feed":
            assert "Cannot be told" in (await kim.get(FEED)).text


async def test_two_people_lift_at_once_and_it_is_lifted_once(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        on = {"everything": "yes", "confirm": "revoke everything", "reason": "incident"}
        assert (await kim.post(FEED, on)).status_code == 303
        form = {"csrf": await kim.csrf(), "lifts": "1", "confirm": "1", "reason": "over"}
        answers = await asyncio.gather(
            *(kim.client.post(FEED, data=form, headers={"Origin": console.url}) for _ in range(4))
        )
        assert sorted(each.status_code for each in answers) == [303, 400, 400, 400]
        assert len(console.console.governing.gate.revocations.entries) == 2


async def test_who_may_not_lift_is_refused_and_that_is_recorded(tmp_path):
    async with running(tmp_path) as console:
        async with console.browser() as kim:
            on = {"everything": "yes", "confirm": "revoke everything", "reason": "incident"}
            assert (await kim.post(FEED, on)).status_code == 303
        async with console.browser(FAY) as fay:
            refused = await fay.post(FEED, {"lifts": "1", "confirm": "1", "reason": "it is over, they say"})
            assert refused.status_code == 403
        denied = console.records()[-1]
        assert (denied["principal"], denied["action"], denied["decision"]) == (FAY, "revocation.lift", "deny")
        assert len(console.console.governing.gate.revocations.entries) == 1


async def test_twenty_viewers_of_two_hundred_decisions_a_second_miss_none(tmp_path):
    async with running(tmp_path) as console, console.browser() as kim:
        await kim.csrf()
        place = console.console.decisions.place

        async def follow() -> int:
            seen = 0
            async with kim.client.stream("GET", f"/governance/events?after={place}") as answered:
                async for line in answered.aiter_lines():
                    if line.startswith("data: "):
                        batch = json.loads(line[6:])
                        seen += len(batch.get("rows", ())) + batch.get("skipped", 0) + batch.get("lost", 0)
                        if seen >= 200:
                            return seen
            return seen

        viewers = [asyncio.create_task(follow()) for _ in range(20)]
        with Journal.open(tmp_path / "state" / "journal") as journal:
            for _ in range(10):
                for _ in range(20):
                    journal.enqueue("decision", decision())
                await asyncio.sleep(0.1)
            async with asyncio.timeout(60):
                assert await asyncio.gather(*viewers) == [200] * 20


async def test_without_a_temporal_server_the_list_says_so(console):
    async with console.browser() as kim:
        page = await kim.get("/governance/approvals")
    assert page.status_code == 200
    assert "The Temporal server does not answer" in page.text
