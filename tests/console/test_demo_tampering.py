"""What can be done to a copy of a history, and what the audit says of each."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.sandbox import Sandbox
from exequatur.console.sandbox.sandboxes import Sandboxes
from exequatur.console.sandbox.tampering import FREE, LABELS, LONGEST_EDIT, changes_of, readable, tampered
from workflows.console_demo import DEMO

EXPECTED = {
    "arguments": {"request-invalid", "start-not-granted"},
    "principal": {"grant-invalid"},
    "grant": {"run-ungoverned"},
    "request": {"request-missing"},
    "result": {"receipt-invalid"},
    "swap": {"receipt-invalid"},
    "receipt": {"receipt-missing"},
    "forget": {"activity-missing"},
}
"""One of these is found for each change; dropping and cutting depend on the event."""


@pytest_asyncio.fixture(scope="module")
async def sandbox(server: WorkflowEnvironment) -> AsyncIterator[Sandbox]:
    """A sandbox with a run of three steps that has ended."""

    async def connect() -> Client:
        return server.client

    sandboxes = Sandboxes(DEMO, connect, Limits(audits=1000))
    try:
        made = await sandboxes.enter("a" * 43)
        run = await made.start({"activity": "complaint"})
        assert run._following is not None
        await asyncio.wait([run._following], timeout=30)  # its seal is written behind its end
        yield made
    finally:
        await sandboxes.aclose()


def document(sandbox: Sandbox) -> dict[str, Any]:
    return sandbox._document(sandbox.runs[0])


async def test_the_audit_notices_every_change_and_verifies_the_original(sandbox: Sandbox) -> None:
    original = document(sandbox)
    changes = changes_of(original)
    tried: set[str] = set()
    for event_id, possible in changes.items():
        for change in possible:
            if change.kind in (FREE, "cut") or (change.kind == "drop" and event_id not in (5, 7, 19, len(changes))):
                continue
            answer = await sandbox.tamper(1, event_id, change.kind)
            found = {each["code"] for each in answer["copy"]["findings"]}

            assert answer["original"]["verdict"] == "verified", answer["original"]
            assert answer["copy"]["verdict"] in ("violated", "unchecked"), (event_id, change.kind)
            assert not answer["same"]
            assert not EXPECTED.get(change.kind) or EXPECTED[change.kind] & found, (event_id, change.kind, found)
            tried.add(change.kind)

    assert tried == set(LABELS) - {FREE, "cut"}
    assert document(sandbox) == original


async def test_a_history_that_was_cut_off_is_not_verified(sandbox: Sandbox) -> None:
    answer = await sandbox.tamper(1, 10, "cut")

    assert answer["copy"]["verdict"] == "unchecked"
    assert "history-cut" in {each["code"] for each in answer["copy"]["findings"]}
    assert answer["copy"]["events"] == 10


async def test_a_hundredfold_amount_is_told_in_words_with_what_stood_there(sandbox: Sandbox) -> None:
    event = next(
        each
        for each in sandbox.events(1)["events"]
        if each["id"] > 1
        and '"amount"' in each["readable"]
        and any(one["kind"] == "arguments" for one in each["changes"])
    )
    answer = await sandbox.tamper(1, event["id"], "arguments")

    assert json.loads(answer["before"])["amount"] == "42.50"
    assert json.loads(answer["after"])["amount"] == "4250.00"
    sentences = [one for each in answer["copy"]["findings"] for one in each["sentences"]]
    assert any("The arguments are not those that were requested" in one for one in sentences)


async def test_a_free_edit_is_audited_as_it_is(sandbox: Sandbox) -> None:
    event = document(sandbox)["events"][1]
    as_it_was = await sandbox.tamper(1, 2, FREE, json.dumps(event))
    other = await sandbox.tamper(1, 2, FREE, json.dumps({**event, "eventType": "EVENT_TYPE_TIMER_FIRED"}))
    unknown = await sandbox.tamper(1, 2, FREE, json.dumps({**event, "__proto__": {"x": 1}}))

    assert as_it_was["same"]
    assert as_it_was["copy"]["verdict"] == "verified"
    assert other["copy"]["verdict"] == "violated"
    assert unknown["copy"]["verdict"] == "unreadable"
    assert unknown["copy"]["sentence"].startswith("The audit cannot read it")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"event"',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"eventId": "\\ud800"}',
        "x" * (LONGEST_EDIT + 1),
        None,
    ],
    ids=["nothing", "half", "list", "null", "text", "twice", "deep", "deeper", "surrogate", "long", "none"],
)
async def test_an_edit_that_is_no_event_is_refused_or_said_to_be_unreadable(sandbox: Sandbox, text: str | None) -> None:
    with contextlib.suppress(SandboxError):
        answer = await sandbox.tamper(1, 2, FREE, text)
        assert answer["copy"]["verdict"] == "unreadable"
        return
    with pytest.raises(SandboxError) as refused:
        await sandbox.tamper(1, 2, FREE, text)
    assert refused.value.why == "input"
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (0, "drop"),
        (999, "drop"),
        (True, "grant"),
        ("5", "drop"),
        (5, "explode"),
        (5, None),
        (1, "drop"),
        (2, "receipt"),
    ],
)
async def test_what_cannot_be_done_to_an_event_is_refused(sandbox: Sandbox, event: object, kind: object) -> None:
    with pytest.raises(SandboxError) as refused:
        await sandbox.tamper(1, event, kind)

    assert refused.value.why == "input"


def test_what_was_taken_out_leaves_a_history_that_looks_whole(sandbox: Sandbox) -> None:
    original = document(sandbox)
    before = copy.deepcopy(original)
    scheduled = next(
        int(each["eventId"]) for each in original["events"] if "activityTaskScheduledEventAttributes" in each
    )
    changed = tampered(original, scheduled, "forget").document["events"]

    assert [int(each["eventId"]) for each in changed] == list(range(1, len(changed) + 1))
    assert len(changed) == len(before["events"]) - 3
    assert original == before


def test_payloads_are_shown_as_the_json_that_they_hold(sandbox: Sandbox) -> None:
    first = readable(document(sandbox)["events"][0])
    shown = first["workflowExecutionStartedEventAttributes"]["input"]["payloads"][0]

    assert shown["data"]["steps"][1]["argument"]["amount"] == "42.50"
    assert shown["metadata"]["encoding"] == "json/plain"


async def test_the_history_of_an_open_run_is_not_tampered_with(sandbox: Sandbox) -> None:
    run = await sandbox.start({"activity": "migrate"})
    try:
        with pytest.raises(SandboxError, match="still open"):
            await sandbox.tamper(run.number, 1, "grant")
        with pytest.raises(SandboxError, match="no such run"):
            await sandbox.tamper(99, 1, "grant")
        with pytest.raises(SandboxError, match="no such run"):
            sandbox.events(True)
    finally:
        await sandbox.revoke(run.number)
