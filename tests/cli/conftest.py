"""Real runs on the test server with their evidence, and the command as a user starts it."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, Principal, Settings
from exequatur.cli.main import commands
from tests import record

ROOT = Path(__file__).parents[2]
QUEUE = "cli"
COMPLETED = f'TaskQueue = "{QUEUE}" AND ExecutionStatus = "Completed"'


class Mirror(PayloadCodec):
    """Stands for encryption: what went through it cannot be read without it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"mirrored"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if any(each.metadata.get("encoding") != b"mirrored" for each in payloads):
            raise ValueError("not mirrored")
        return [Payload.FromString(each.data[::-1]) for each in payloads]


MIRRORED = DataConverter(payload_codec=Mirror())


@dataclass
class Recorded:
    """What the runs left.

    Args:
        target: The server's address.
        state: The state folder, with ``trust.jwks`` and the folder ``journal``.
        histories: Of each scenario, by its workflow id.
        runs: Run ids by workflow id, of the first run.
    """

    target: str
    state: Path
    histories: Path
    runs: dict[str, str]

    @property
    def trust(self) -> str:
        return str(self.state / "trust.jwks")

    @property
    def journal(self) -> str:
        return str(self.state / "journal")

    def history(self, name: str) -> str:
        return str(self.histories / f"cli-{name}.json")

    @property
    def believing(self) -> list[str]:
        """The options of an auditor who has everything."""
        return ["--trust", self.trust, "--evidence", self.journal]

    @property
    def at_server(self) -> list[str]:
        return ["--address", self.target, *self.believing]


@pytest_asyncio.fixture(scope="session")
async def recorded(target: str, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "policies").mkdir()
    (folder / "histories").mkdir()
    (folder / "policies" / "main.cedar").write_text(record.POLICIES)
    plugin = AuthorizationPlugin.embedded(
        folder / "policies",
        state_dir=folder / "state",
        principal=Principal("Agent", "clerk"),
        settings=Settings(allow_ungoverned=("Sequential",)),
    )
    plugin.revoke(workflow="elsewhere", reason="recorded")
    result = Recorded(target, folder / "state", folder / "histories", {})
    plain = await Client.connect(target)
    client = await Client.connect(target, plugins=[plugin])
    mirrored = await Client.connect(target, plugins=[plugin], data_converter=MIRRORED)

    async def run(name: str, start: Any, *args: Any, by: Client, queue: str = QUEUE) -> None:
        handle = await by.start_workflow(start, args=args, id=f"cli-{name}", task_queue=queue)
        result.runs[handle.id] = handle.result_run_id or ""
        try:
            await handle.result()
        except WorkflowFailureError:
            pytest.fail(f"{name} failed")
        first = plain.get_workflow_handle(handle.id, run_id=handle.result_run_id)
        (result.histories / f"{handle.id}.json").write_text((await first.fetch_history()).to_json())

    activities: list[Callable[..., Any]] = [record.step, record.delete]
    with ThreadPoolExecutor(10) as pool:
        options: dict[str, Any] = {
            "workflows": record.WORKFLOWS,
            "activities": activities,
            "activity_executor": pool,
        }
        async with (
            Worker(client, task_queue=QUEUE, **options),
            Worker(mirrored, task_queue=f"{QUEUE}-mirrored", **options),
        ):
            await run("sequential", record.Sequential.run, 1, by=client)
            await run("denied", record.Denied.run, 1, by=client)
            await run("continued", record.Continued.run, 1, by=client)
            await run("child", record.WithChild.run, 1, by=client)
            await run("ungoverned", record.Sequential.run, 1, by=plain)
            await run("mirrored", record.Sequential.run, 1, by=mirrored, queue=f"{QUEUE}-mirrored")
    await _visible(plain, COMPLETED, 6)
    return result


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "interceptors"), str(ROOT)])} | changes


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "exequatur.cli.main", *args]


@pytest.fixture(scope="session")
def exequatur() -> Callable[..., Ended]:
    """Run the command in this process, which is quick."""

    def run(*args: str, **changes: str) -> Ended:
        result = CliRunner().invoke(commands, args, env=changes)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def process() -> Callable[..., Ended]:
    """Run the command as a user does, in a process of its own."""

    def run(*args: str, **changes: str) -> Ended:
        ended = subprocess.run(command(*args), capture_output=True, timeout=90, env=environment(**changes), check=False)
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


def edited(history: str, folder: Path) -> str:
    """A copy of a history in which the first activity has answered something else."""
    document = json.loads(Path(history).read_text())
    for event in document["events"]:
        if completed := event.get("activityTaskCompletedEventAttributes"):
            completed["result"]["payloads"][0]["data"] = base64.b64encode(b"7").decode()
            break
    copy = folder / "edited.json"
    copy.write_text(json.dumps(document))
    return str(copy)


async def _visible(client: Client, query: str, count: int) -> None:
    """Wait until the server's visibility store shows so many runs."""
    for _ in range(1500):
        if (await client.count_workflows(query)).count >= count:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the server does not show {count} runs")
