"""``exequatur grant`` and ``permit``: what they print lets clients without the plugin start governed runs."""

import asyncio
import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from temporalio import activity, workflow

from exequatur.cli.main import commands
from exequatur.gate.wire import START_HEADER, start_header
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant, Permit
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, executor, failure_of, happened, stage, unique

__all__ = ["executor", "stage"]

TIMEOUT = timedelta(seconds=60)
ORDER = '{"amount": 20,  "note": "caf\\u00e9 é"}'


@activity.defn
async def act(order: dict[str, Any], count: int) -> int:
    happened(order)
    return int(order["amount"]) * count


@workflow.defn
class Orders:
    def __init__(self) -> None:
        self.added = 0

    @workflow.update
    def add(self, number: int) -> int:
        self.added += number
        return self.added

    @workflow.run
    async def run(self, order: dict[str, Any], count: int) -> int:
        if count > 2:
            await workflow.wait_condition(lambda: bool(self.added))
        return await workflow.execute_activity(act, args=[order, count], start_to_close_timeout=TIMEOUT)


def exequatur(s: Stage, *words: str) -> Result:
    return CliRunner().invoke(
        commands, [*words, "--as", 'User::"dana"', "--policies", str(s.policies), "--state-dir", str(s.state)]
    )


def started(s: Stage, workflow_id: str, *more: str, inputs: tuple[str, ...] = (ORDER, "2")) -> list[str]:
    given = [word for text in inputs for word in ("--input", text)]
    return ["--type", "Orders", "--workflow-id", workflow_id, "--task-queue", s.queue, *given, *more]


async def printed(s: Stage, *words: str) -> str:
    result = await asyncio.to_thread(exequatur, s, *words)
    assert result.exit_code == 0, result.output
    return result.stdout.removesuffix("\n")


async def temporal(s: Stage, *words: str) -> str:
    path = shutil.which("temporal")
    assert path
    ended = await asyncio.to_thread(
        subprocess.run, [path, *words, "--address", s.target], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return str(ended.stdout)


async def test_the_temporal_cli_starts_a_governed_run_with_the_printed_header(stage: Any) -> None:
    s, workflow_id = await stage(), unique()
    async with s.worker([Orders], [act]):
        header = await printed(s, "grant", "issue", *started(s, workflow_id))
        await temporal(s, "workflow", "start", *started(s, workflow_id, "--headers", header))
        assert await s.plain.get_workflow_handle(workflow_id).result() == 40
    assert len(deeds(workflow_id)) == 1
    name, _, value = header.partition("=")
    grant = parse(json.loads(value), Grant).claims
    assert (name, grant.sub) == (START_HEADER, 'User::"dana"')
    assert b"workflow.start" in s.records("authority")[-1].body


@pytest.mark.parametrize("difference", ["input", "spacing", "id", "no header"])
async def test_with_anything_else_the_printed_header_gains_nothing(stage: Any, difference: str) -> None:
    s, workflow_id = await stage(), unique()
    inputs = {"input": (ORDER.replace("20", "21"), "2"), "spacing": (ORDER.replace("  ", " "), "2")}
    async with s.worker([Orders], [act]):
        header = await printed(s, "grant", "issue", *started(s, workflow_id))
        other = unique() if difference == "id" else workflow_id
        await temporal(
            s,
            "workflow",
            "start",
            *started(s, other, inputs=inputs.get(difference, (ORDER, "2"))),
            *([] if difference == "no header" else ["--headers", header]),
        )
        failure = await failure_of(s.plain.get_workflow_handle(other))
    assert failure.type == "GrantRejected"
    assert deeds(other) == []


async def test_what_policies_do_not_permit_is_not_printed(stage: Any) -> None:
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"workflow.start", resource);')
    result = await asyncio.to_thread(exequatur, s, "grant", "issue", *started(s, "w"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "policy no" in result.stderr


async def test_what_is_vouched_for_and_what_it_may_be_used_for_stand_in_the_grant(stage: Any) -> None:
    s = await stage('permit(principal in Role::"clerk", action, resource) when { principal.limit > 400 };')
    vouched = ["--parent", 'Role::"clerk"', "--attr", "limit=500", "--json", "--namespace", "other"]
    document = json.loads(await printed(s, "grant", "issue", *started(s, "base"), *vouched, "--schedule", "nightly"))
    grant = parse(document["value"], Grant).claims
    assert document["header"] == START_HEADER
    assert (grant.attributes, grant.parents) == ({"limit": 500}, ('Role::"clerk"',))
    assert (grant.aud.rpartition("/")[2], grant.authorization.schedule) == ("other", "nightly")
    assert grant.authorization.reuse == "schedule"
    assert grant.authorization.is_for("base-2026-01-01T00:00:00Z")
    assert not grant.authorization.is_for("base")
    cron = json.loads(await printed(s, "grant", "issue", *started(s, "w"), *vouched, "--reuse", "cron"))
    assert parse(cron["value"], Grant).claims.authorization.reuse == "cron"


async def test_another_client_starts_a_governed_run_with_the_value(stage: Any) -> None:
    s, workflow_id = await stage(), unique()
    text = '{"amount":5}'
    async with s.worker([Orders], [act]):
        document = json.loads(
            await printed(s, "grant", "issue", *started(s, workflow_id, "--json", inputs=(text, "1")))
        )
        header = {START_HEADER: start_header([document["value"]])}
        handle = await s.start_with(header, Orders.run, {"amount": 5}, 1, id=workflow_id)
        assert await handle.result() == 5


async def test_the_temporal_cli_sends_an_update_with_a_printed_permit(stage: Any) -> None:
    s, workflow_id = await stage(), unique()
    words = ["--workflow-id", workflow_id, "--name", "add"]
    async with s.worker([Orders], [act]):
        start = started(s, workflow_id, inputs=(ORDER, "3"))
        header = await printed(s, "grant", "issue", *start)
        await temporal(s, "workflow", "start", *start, "--headers", header)
        header = await printed(s, "permit", "issue", "--kind", "update", *words, "--input", "7")
        with pytest.raises(AssertionError, match="permit"):
            await temporal(s, "workflow", "update", "execute", *words, "--input", "8", "--headers", header)
        await temporal(s, "workflow", "update", "execute", *words, "--input", "7", "--headers", header)
        assert await s.plain.get_workflow_handle(workflow_id).result() == 60
    permit = parse(json.loads(header.partition("=")[2]), Permit).claims
    assert (permit.kind, permit.target, permit.name, permit.sub) == ("update", workflow_id, "add", 'User::"dana"')


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--input", "{bad"], "--input, number 3: not JSON"),
        (["--input", "[" * 100_000], "--input, number 3: not JSON"),
        (["--input", "\udcff"], "--input, number 3: not JSON"),
        (["--input", '"' + "x" * (5 << 20) + '"'], "larger than 4 MiB"),
        (["--parent", "clerk"], "is not a Cedar entity"),
        (["--attr", "limit"], "write it as NAME=JSON"),
        (["--attr", "limit=x"], "is not JSON"),
        (["--schedule", "s", "--reuse", "cron"], "--schedule goes without"),
        (["--start-delay", "-1"], "--start-delay"),
        (["--start-delay", "inf"], "--start-delay"),
        (["--start-delay", "nan"], "--start-delay"),
        (["--namespace", "\udcff"], "not Unicode"),
        (["--reuse", "schedule"], "--reuse"),
    ],
)
async def test_what_cannot_be_issued_is_said_in_a_line(stage: Any, words: list[str], sentence: str) -> None:
    s = await stage()
    result = await asyncio.to_thread(exequatur, s, "grant", "issue", *started(s, "w"), *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_a_folder_that_is_no_state_folder_is_not_made_one(tmp_path: Path) -> None:
    for words in (
        ["grant", "issue", "--type", "T", "--task-queue", "q"],
        ["permit", "issue", "--kind", "signal", "--name", "n"],
    ):
        result = CliRunner().invoke(
            commands, [*words, "--workflow-id", "w", "--as", 'User::"dana"', "--state-dir", str(tmp_path / "none")]
        )
        assert result.exit_code == 2
        assert "--state-dir" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_principal_that_is_none_is_said() -> None:
    result = CliRunner().invoke(
        commands, ["grant", "issue", "--type", "T", "--task-queue", "q", "--workflow-id", "w", "--as", "dana"]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a Cedar entity" in result.stderr
