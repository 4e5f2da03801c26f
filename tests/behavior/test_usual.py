"""A baseline that was learned from real runs, told to policies, and checked by the audit; and the commands for it."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from temporalio import workflow

from exequatur.behavior.baseline import Baseline
from exequatur.cli.main import commands
from exequatur.lineage.record import Record
from tests.behavior.test_audit import audited, changed, codes, records
from tests.behavior.test_gate import ACTIVITIES, TWICE, told
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of
from tests.gate.single import OneActivity, start_one

CALM = """
@id("calm") permit(principal, action, resource) when { context has behavior && context.behavior.score < 40 };
@id("starts") permit(principal, action == Action::"workflow.start", resource);
"""


@workflow.defn
class Several:
    """Executes activities one after the other."""

    @workflow.run
    async def run(self, steps: list[list[Any]]) -> None:
        for name, argument in steps:
            await workflow.execute_activity(name, argument, start_to_close_timeout=timedelta(seconds=20))


def exequatur(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, [str(each) for each in arguments])


async def learned(stage: Callable[..., Any], folder: Path) -> Path:
    """A baseline of a few usual runs."""
    usual: Stage = await stage(PERMIT_ALL)
    histories = folder / "histories"
    histories.mkdir()
    async with usual.worker([Several], ACTIVITIES):
        for amount in (10, 20, 30):
            run = await usual.start(Several.run, [["look", "x"], ["pay", amount]])
            await run.result()
            (histories / f"{amount}.json").write_text((await run.fetch_history()).to_json())
    baseline = folder / "baseline.json"
    result = await asyncio.to_thread(exequatur, "behavior", "learn", histories, "-o", baseline)
    assert result.exit_code == 0, result.output
    assert "3 runs, 6 activities, 2 activity types" in result.output
    assert Baseline.read(baseline).digest in result.output
    return baseline


@pytest.mark.rule("counted.D8", "counted.D9")
async def test_what_is_unlike_all_that_was_learned_does_not_run(stage: Callable[..., Any], tmp_path: Path) -> None:
    host = await stage(CALM, behavior_baseline=str(await learned(stage, tmp_path)))
    async with host.worker([Several], ACTIVITIES):
        usual = await host.start(Several.run, [["look", "x"], ["pay", 25]])
        await usual.result()
        large = await host.start(Several.run, [["look", "x"], ["pay", 9_000]])
        assert (await failure_of(large)).type == "AuthorizationDenied"
        # Not after looking, and right after a denial: thirty points and ten.
        early = await host.start(Several.run, [["pay", 25], ["look", "x"]])
        assert (await failure_of(early)).type == "AuthorizationDenied"
    assert deeds(large.id) == ["x"]
    numbers = [(each["new_transition"], each["new_arguments"], each["novel"], each["score"]) for each in told(host)]
    assert numbers == [
        (False, False, True, 15),
        (False, False, True, 15),
        (False, False, False, 0),
        (False, True, False, 40),
        (True, False, False, 40),
    ]
    for run in (usual, large):
        report = await audited(host, run, records(host))
        assert codes(report) == set(), report.findings

    explained = exequatur("behavior", "explain", large.id, "--evidence", host.state)
    assert explained.exit_code == 0
    assert "1 is above all that is usual (+40)" in explained.output
    as_json = json.loads(exequatur("behavior", "explain", large.id, "--evidence", host.state, "--json").output)
    assert [each["decision"] for each in as_json["decisions"]] == ["allow", "deny"]
    shown = exequatur("behavior", "show", host.state)
    assert 'Agent::"ops-bot"  pay: asked 3, denied 2' in shown.output
    rows = json.loads(exequatur("behavior", "show", host.state / "ledger.db", "--json").output)["rows"]
    assert {(row["activity"], row["denied"]) for row in rows} == {("look", 0), ("pay", 2)}

    def another(record: Record) -> Record | None:
        return None if record.kind == "baseline" else record

    assert codes(await audited(host, large, records(host, another))) == {"behavior-unchecked"}

    def without(record: Record) -> Record:
        if record.kind != "decision" or json.loads(record.body)["activity_type"] != "pay":
            return record
        facts = json.loads(json.loads(record.body)["facts"])
        del facts["behavior"]
        body = json.loads(record.body)
        del body["counted"]
        return changed(Record(**{**_fields(record), "body": json.dumps(body).encode()}), facts=json.dumps(facts))

    assert "behavior-unchecked" in codes(await audited(host, large, records(host, without)))


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__slots__}


async def test_a_baseline_is_learned_from_a_server_too(stage: Callable[..., Any], tmp_path: Path, target: str) -> None:
    usual: Stage = await stage(PERMIT_ALL)
    async with usual.worker([Several], ACTIVITIES):
        run = await usual.start(Several.run, [["look", "x"], ["pay", 1]])
        await run.result()
    arguments = ("learn", "--query", f'WorkflowId="{run.id}"', "--address", target, "-o", tmp_path / "baseline.json")
    result = await asyncio.to_thread(exequatur, "behavior", *arguments)
    while result.exit_code == 2 and "no run to learn from" in result.output:  # visibility comes later
        result = await asyncio.to_thread(exequatur, "behavior", *arguments)
    assert result.exit_code == 0, result.output
    known = Baseline.read(tmp_path / "baseline.json")
    assert known.runs == 1
    assert known.follows("Several", "look", "pay") is True
    assert known.follows("Several", "", "pay") is False


async def test_a_baseline_that_cannot_be_read_keeps_the_plugin_from_starting(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    from exequatur.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="exequatur behavior learn"):
        await stage(TWICE, behavior_baseline=str(tmp_path / "nowhere.json"))


def test_the_commands_say_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_bytes(b"\xff")
    for arguments in (
        ("behavior", "learn", "-o", tmp_path / "b.json"),
        ("behavior", "learn", tmp_path / "empty", "-o", tmp_path / "b.json"),
        ("behavior", "learn", tmp_path / "bad.json", "-o", tmp_path / "b.json"),
        ("behavior", "learn", tmp_path / "nowhere.json", "-o", tmp_path / "b.json"),
        ("behavior", "show", tmp_path),
        ("behavior", "show", tmp_path / "bad.json"),
        ("behavior", "show", "postgresql://nobody@127.0.0.1:1/none"),
        ("behavior", "explain", "w", "--evidence", tmp_path / "empty"),
    ):
        result = exequatur(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert "Traceback" not in result.output
    assert not (tmp_path / "b.json").exists()


async def test_a_workflow_that_was_told_nothing_is_a_negative_answer(stage: Callable[..., Any]) -> None:
    host = await stage(PERMIT_ALL)
    async with host.worker([OneActivity], ACTIVITIES):
        run = await start_one(host, "pay", 1)
        await run.result()
    assert exequatur("behavior", "explain", run.id, "--evidence", host.state).exit_code == 1
