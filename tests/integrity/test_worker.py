"""A worker process that is not what its manifest says does nothing, and one that was stops when it is no longer."""

import asyncio
import contextlib
import datetime
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle

from exequatur import AuthorizationPlugin, Principal, Settings
from exequatur.audit.evidence import RecordedEvidence, records_of_journal
from exequatur.audit.history import history_from_json
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.lineage.record import Record, read
from tests.gate.conftest import PERMIT_ALL, failure_of, unique
from tests.gate.single import eventually
from tests.integrity.conftest import Installation
from tests.integrity.test_credential import trusting
from tests.integrity.test_instance import DOCUMENT, Cloud

BOT = Principal("Agent", "ops-bot")


class Deployment:
    """A client in this process, and a worker in another one."""

    def __init__(self, installation: Installation, client: Client, target: str) -> None:
        self.installation = installation
        self.client = client
        self.target = target
        self.queue = unique("queue")
        self.place = installation.path / "deeds"

    @property
    def policies(self) -> Path:
        return self.installation.path / "policies"

    @property
    def state(self) -> Path:
        return self.installation.path / "state"

    @property
    def log(self) -> Path:
        return self.installation.path / "worker.log"

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[Process]:
        here = self.installation
        chosen = {"integrity_manifest": str(here.manifest), "integrity_keys": str(here.keys), **settings}
        with self.log.open("wb") as log:
            process = await self._begin(log, {"integrity_interval": "100ms", "unavailable_wait": "200ms", **chosen})
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            print(self.log.read_text()[-4000:])

    async def _begin(self, log: IO[bytes], settings: dict[str, Any]) -> Process:
        here = self.installation
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-S", str(here.app / "worker.py"), self.target, self.queue, str(self.policies), str(self.state)),
            json.dumps(settings),
            env=here.environment(),
            cwd=here.path,
            stdout=log,
            stderr=log,
        )

    async def start(self, activity: str) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(
            "Errand", args=[activity, str(self.place)], id=unique(), task_queue=self.queue
        )

    def deeds(self) -> list[str]:
        return self.place.read_text().splitlines() if self.place.exists() else []

    def records(self, kind: str) -> list[Record]:
        return [
            each for file in sorted((self.state / "journal").glob("*.db")) for each in read(file) if each.kind == kind
        ]

    def states(self) -> list[str]:
        return [json.loads(each.body)["state"] for each in self.records("integrity")]


@pytest_asyncio.fixture
async def deployment(installation: Installation, target: str) -> Deployment:
    policies = installation.path / "policies"
    policies.mkdir()
    (policies / "main.cedar").write_text(PERMIT_ALL)
    plugin = AuthorizationPlugin.embedded(
        policies, state_dir=installation.path / "state", principal=BOT, settings=Settings()
    )
    installation.sign()
    return Deployment(installation, await Client.connect(target, plugins=[plugin]), target)


@pytest.mark.rule("U6")
@pytest.mark.rule("guard.G2")
async def test_a_changed_source_file_stops_a_running_activity_and_all_that_comes_after(deployment: Deployment) -> None:
    async with deployment.worker() as process:
        running = await deployment.start("wait_long")
        await eventually(lambda: deployment.deeds() == ["began"], within=60)
        assert deployment.states() == ["verified"]
        prices = deployment.installation.app / "shop" / "prices.py"
        prices.write_text(prices.read_text().replace("500", "500_000"))

        failure = await failure_of(running)
        assert failure.type == "AuthorizationRevoked"
        assert "prices.py was changed" in failure.message
        await eventually(lambda: deployment.states() == ["verified", "violated"])
        told = json.loads(deployment.records("integrity")[-1].body)
        assert told["differences"] == [f"{prices} was changed"]
        assert told["worker"].startswith("spiffe://")

        later = await deployment.start("act")
        await asyncio.sleep(1)
        assert deployment.deeds() == ["began"]
        assert process.returncode is None
        await later.terminate()


@pytest.mark.rule("guard.G1")
async def test_a_worker_that_is_not_what_its_manifest_says_does_not_start(deployment: Deployment) -> None:
    (deployment.installation.app / "shop" / "helper.py").write_text("print('hello')\n")
    handle = await deployment.start("act")
    async with deployment.worker() as process:
        await asyncio.wait_for(process.wait(), 60)
    assert process.returncode != 0
    assert "helper.py is not in the manifest" in deployment.log.read_text()
    assert deployment.states() == ["violated"]
    assert deployment.deeds() == []
    await handle.terminate()


ATTESTED = """
@id("starts") permit(principal, action == Action::"workflow.start", resource);
@id("attested") permit(principal, action == Action::"act", resource) when {
    context.worker.integrity == "attested" && context.worker.environment == "production" &&
    context.worker has build && context.worker.build == "b1"
};
"""


@pytest.mark.rule("measured.D10")
@pytest.mark.rule("measured.D11")
@pytest.mark.rule("measured.D12")
@pytest.mark.rule("measured.D13")
async def test_policies_demand_attested_code_and_the_audit_checks_what_they_were_told(
    deployment: Deployment,
) -> None:
    path, cloud = deployment.installation.path, Cloud()
    _, settings = trusting(path, cloud)
    started = datetime.datetime.now(datetime.UTC).isoformat()
    (path / "instance.json").write_text(cloud.signed(json.dumps({**DOCUMENT, "pendingTime": started})))
    machine = {"instance_trust": settings["instance_trust"], "instance_document": str(path / "instance.json")}
    (deployment.policies / "main.cedar").write_text(ATTESTED)
    handle = await deployment.start("act")
    async with deployment.worker(**machine):
        assert await asyncio.wait_for(handle.result(), 60) == "done"
    assert deployment.deeds() == ["acted"]

    history = history_from_json((await handle.fetch_history()).to_json().encode())
    trust = read_trust(deployment.state / "trust.jwks")

    def found(edit: Edit = lambda each: each) -> set[str]:
        records = [each for file in (deployment.state / "journal").glob("*.db") for each, _ in records_of_journal(file)]
        told = RecordedEvidence((changed, True) for each in records if (changed := edit(each)) is not None)
        report = audit_run(replace(history, workflow_id=handle.id), told, trust)
        return {each.code for each in report.findings if each.code.startswith("integrity")}

    def integrity(**changes: str) -> Edit:
        return lambda each: changed(each, **changes) if each.kind == "integrity" else each

    def worker(**changes: str) -> Edit:
        def edit(each: Record) -> Record:
            if each.kind != "decision":
                return each
            facts = json.loads(json.loads(each.body)["facts"])
            facts["worker"] |= changes
            return changed(each, facts=json.dumps(facts))

        return edit

    other = "A" * 43
    assert found() == set()
    assert found(lambda each: None if each.kind == "integrity" else each) == {"integrity-unchecked"}  # D13
    assert found(integrity(manifest=other)) == {"integrity-contradicts"}  # D10
    assert found(integrity(state="violated")) == {"integrity-contradicts"}  # D11
    assert found(lambda each: worker(code=other)(integrity(manifest=other)(each))) == {"integrity-contradicts"}  # D12


Edit = Callable[[Record], Record | None]


def changed(record: Record, **changes: str) -> Record:
    return replace(record, body=json.dumps(json.loads(record.body) | changes).encode())
