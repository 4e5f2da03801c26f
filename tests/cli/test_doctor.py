"""The doctor names what is wrong with a deployment, and changes nothing."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, Settings
from exequatur.authority.rotation import retire, rotate
from exequatur.authority.state import open_state
from exequatur.doctor.deployment import Deployment
from exequatur.doctor.examine import examine
from exequatur.doctor.finding import Finding
from exequatur.integrity.files import Reader
from exequatur.integrity.guard import ALTERED
from exequatur.integrity.keys import make_manifest_key
from exequatur.integrity.manifest import sign_manifest
from exequatur.integrity.measure import Plan, Sites, measure
from exequatur.lineage.store import EvidenceStore
from exequatur.release.report import HOST, InForceReport, Standing, write_report
from tests import record
from tests.authority.running import eventually as became
from tests.authority.running import running
from tests.cli.conftest import MIRRORED, ROOT, Ended
from tests.gate.conftest import unique
from tests.release.parties import serving

_POLICIES = str(ROOT / "policies")
_HEARTBEAT = timedelta(seconds=1)


@dataclass
class Fleet:
    """A worker with the plugin, and a runtime whose workers tell the server quickly which plugins they have."""

    target: str
    queue: str
    state: Path
    policies: Path
    runtime: Runtime
    gated: Client
    plain: Client

    def deployment(self, **changes: Any) -> Deployment:
        async def connect() -> Client:
            return self.plain

        given = Deployment(Settings(), states=(self.state,), connect=connect, policies=str(self.policies))
        return replace(given, **changes)


@pytest_asyncio.fixture(scope="module")
async def fleet(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "policies").mkdir()
    (folder / "policies" / "main.cedar").write_text(record.POLICIES)
    plugin = AuthorizationPlugin.embedded(folder / "policies", state_dir=folder / "state")
    runtime = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=_HEARTBEAT)
    client = await Client.connect(target, plugins=[plugin], runtime=runtime)
    queue = unique("doctor")
    async with Worker(client, task_queue=queue, activities=[record.long]):
        plain = await Client.connect(target)
        yield Fleet(target, queue, folder / "state", folder / "policies", runtime, client, plain)


def of(findings: Sequence[Finding], check: str, level: str | None = None) -> list[str]:
    """What was said about one thing."""
    return [each.text for each in findings if each.check == check and level in (None, each.level)]


def problems(findings: Sequence[Finding]) -> list[str]:
    return [f"{each.check}: {each.text}" for each in findings if each.level == "problem"]


async def eventually(look: Callable[[], Any]) -> Any:
    """Look until there is something."""
    for _ in range(500):
        if found := await look():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return open_state(tmp_path / "state").path


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    }


# A healthy one.


async def test_a_healthy_deployment_has_no_problem(fleet: Fleet, process: Callable[..., Ended]) -> None:
    options = ("--state", str(fleet.state), "--policies", str(fleet.policies), "--json")

    ended = await asyncio.to_thread(process, "doctor", "--address", fleet.target, *options)

    assert ended.code == 0, ended.out + ended.err
    said = {(each["check"], each["level"]) for each in ended.report["findings"]}
    healthy = ("settings", "state", "trust", "keys", "disk", "server", "namespace", "clock", "queues", "workers")
    assert {(name, "ok") for name in healthy if name != "trust"} <= said
    assert ended.report["problems"] == 0
    assert all(each["step"] for each in ended.report["findings"] if each["level"] != "ok")


def test_a_person_reads_a_line_for_each_check_and_the_next_step(
    exequatur: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = exequatur("doctor", "--offline", "--state", str(tmp_path / "none\x1b[31m"))

    assert ended.code == 1
    assert "PROBLEM  state" in ended.out
    assert "Start a worker with this state_dir" in ended.out
    assert "\x1b" not in ended.out
    assert ended.out.rstrip().endswith("1 problem, 1 warning")


def test_the_doctor_changes_nothing(exequatur: Callable[..., Ended], state: Path, tmp_path: Path) -> None:
    before = tree(state)

    exequatur(
        "doctor", "--offline", "--state", str(state), "--store", str(tmp_path / "none.db"), "--policies", _POLICIES
    )

    assert tree(state) == before
    assert not (tmp_path / "none.db").exists()


def test_settings_that_cannot_be_used_are_a_problem(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("doctor", "--offline", EXEQUATUR_GRANT_TTL="soon")

    assert ended.code == 1
    assert "EXEQUATUR_GRANT_TTL" in ended.out


def test_what_is_only_observed_is_a_warning(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("doctor", "--offline", "--json", EXEQUATUR_MODE="observe", EXEQUATUR_ALLOW_UNGOVERNED="Nightly")

    warned = [each["text"] for each in ended.report["findings"] if each["level"] == "warning"]
    assert ended.code == 0
    assert any("observes everywhere" in text for text in warned)
    assert any("Nightly act without a grant" in text for text in warned)


def test_a_module_that_cannot_be_imported_ends_the_command(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("doctor", "--offline", "--policies", _POLICIES, "--from", "no.such.module")

    assert ended.code == 2
    assert "no.such.module" in ended.err


# State folders.


async def looked_at(*states: Path, **more: Any) -> list[Finding]:
    return await examine(Deployment(Settings(), states=states, **more))


def of_a_worker(state: Path, tmp_path: Path) -> Path:
    """What a worker has learned of an authority."""
    folder = tmp_path / "worker"
    shutil.copytree(state, folder, ignore=shutil.ignore_patterns("keys", "issuer"))
    return folder


async def test_a_state_folder_that_is_open_to_others_is_a_problem(state: Path) -> None:
    (state / "keys" / "grant.pem").chmod(0o644)

    assert any("grant.pem (mode 644)" in text for text in of(await looked_at(state), "state", "problem"))


async def test_state_folders_that_do_not_belong_together_are_a_problem(state: Path, tmp_path: Path) -> None:
    other = open_state(tmp_path / "other").path
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)

    assert any("no key in common" in text for text in of(await looked_at(state, other), "state-match", "problem"))
    assert of(await looked_at(state, copy), "state-match", "problem") == []


async def test_a_state_folder_that_lacks_one_anchor_of_another_is_a_problem(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    document = json.loads((copy / "trust.jwks").read_text())
    gone = document["keys"].pop(0)
    (copy / "trust.jwks").write_text(json.dumps(document))

    findings = await looked_at(state, copy)

    assert any(gone["kid"] in text for text in of(findings, "state-match", "problem"))
    assert any("nobody trusts the" in text for text in of(findings, "keys", "problem"))


async def test_a_worker_that_has_not_learned_a_rotated_key_yet_is_a_warning(state: Path, tmp_path: Path) -> None:
    """Its folder has no keys of an authority, so it learns them by itself."""
    worker = of_a_worker(state, tmp_path)
    new = rotate(state, "grant", 600.0).key.kid

    findings = await looked_at(worker, state)

    assert of(findings, "state-match", "problem") == []
    assert of(findings, "state-match", "warning") == [
        f"{worker} does not trust key {new} (exequatur-grant+jwt), which {state} trusts"
    ]


async def test_a_worker_that_still_trusts_a_retired_key_is_a_warning(state: Path, tmp_path: Path) -> None:
    before = rotate(state, "grant", 0.0).before
    assert before is not None
    worker = of_a_worker(state, tmp_path)
    retire(state, before.kid)

    findings = await looked_at(worker, state)

    assert of(findings, "state-match", "problem") == []
    assert any(before.kid in text for text in of(findings, "state-match", "warning"))


async def test_an_authority_that_lacks_a_key_of_its_workers_is_a_problem(state: Path, tmp_path: Path) -> None:
    """As when its folder was restored from a backup that is too old."""
    old = Path(shutil.copytree(state, tmp_path / "backup"))
    new = rotate(state, "grant", 0.0).key.kid

    [said] = of(await looked_at(of_a_worker(state, tmp_path), old), "state-match", "problem")

    assert said.startswith(f"{old} does not trust key {new}")


async def test_without_a_state_folder_it_is_said_that_workers_are_not_looked_at() -> None:
    assert any("are not looked at" in text for text in of(await looked_at(), "state", "warning"))


async def test_one_key_in_two_roles_is_a_problem(state: Path) -> None:
    shutil.copy(state / "keys" / "grant.pem", state / "keys" / "permit.pem")

    assert any("one key is used for grant and permit" in text for text in of(await looked_at(state), "keys", "problem"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe" * 100),
        lambda path: path.write_bytes(b'{"keys": [{"kty": "RSA"}]}'),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(bytes(2 * 1024 * 1024)),
        lambda path: path.mkdir(),
        os.mkfifo,
    ],
    ids=["empty", "not-utf8", "foreign", "deep", "huge", "folder", "fifo"],
)
@pytest.mark.parametrize("name", ["trust.jwks", "keys/credential.pem"])
async def test_a_damaged_file_of_a_state_folder_is_named(state: Path, name: str, damage: Callable[[Path], Any]) -> None:
    (state / name).unlink()
    damage(state / name)

    found = problems(await looked_at(state))

    assert any(Path(name).name in text for text in found), found


async def test_a_state_folder_without_anchors_is_a_problem(state: Path) -> None:
    (state / "trust.jwks").unlink()

    assert any("trust.jwks is missing" in text for text in of(await looked_at(state), "trust", "problem"))


async def test_a_workers_folder_without_authority_keys_is_fine(state: Path) -> None:
    shutil.rmtree(state / "keys")

    assert any("holds no authority key" in text for text in of(await looked_at(state), "keys", "ok"))


# Policies and activities.


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(_POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("worked", "agents")))


async def compared(policies: Path, **activities: Any) -> list[Finding]:
    return await examine(Deployment(Settings(), policies=str(policies), activities=activities))


async def test_an_activity_that_the_policies_do_not_know_is_a_problem(policies: Path) -> None:
    findings = await compared(policies, long=record.long)

    assert any(text.startswith("long: the bundle has no action for it") for text in of(findings, "actions", "problem"))
    assert any(text.startswith("refund_order: the policies know it") for text in of(findings, "actions", "warning"))


async def test_activities_without_policies_to_compare_them_with_are_a_warning() -> None:
    findings = await examine(Deployment(Settings(), activities={"long": record.long}))

    assert any("no policies to compare them with" in text for text in of(findings, "actions", "warning"))


def test_the_reference_application_and_its_policies_fit(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("doctor", "--offline", "--policies", _POLICIES, "--from", "workflows.activities", "--json")

    assert ended.code == 0, ended.out
    assert [each["text"] for each in ended.report["findings"] if each["check"] == "actions"] == [
        "the policies know all 4 activities"
    ]


async def test_an_activity_that_nothing_permits_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "main.cedar").write_text('@id("one") permit(principal, action == Action::"step", resource);')

    findings = await compared(tmp_path, step=record.step, long=record.long)

    assert [text for text in of(findings, "actions", "problem") if "always denied" in text] == [
        "long: no policy permits it, so it is always denied"
    ]


async def test_policies_that_cannot_be_used_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "main.cedar").write_text("permit(principal")

    assert of(await compared(tmp_path), "policies", "problem")
    assert of(await compared(tmp_path / "none"), "policies", "problem")


# Workers.


def reported(state: Path, *, pid: int | None = None, **said: Any) -> None:
    standing = {"at": time.time(), "namespaces": ("default",), "credential_expires": time.time() + 3600}
    report = {name: said.pop(name) for name in ("digest", "expires") if name in said}
    write_report(
        state,
        InForceReport(
            host=HOST,
            pid=pid or os.getpid(),
            since=time.time(),
            standing=Standing.model_validate({**standing, **said}),
            **{"digest": "d" * 43, **report},
        ),
    )


@pytest.mark.parametrize(
    ("said", "check", "level", "text"),
    [
        ({"unavailable": "the evidence journal cannot be written"}, "workers", "problem", "takes no work, because the"),
        ({"unavailable": f"{ALTERED}: a.py was changed"}, "workers", "problem", "because this worker is not what"),
        ({"task_queues": ()}, "workers", "ok", "serves no task queue"),
        ({"at": time.time() - 600}, "workers", "warning", "has not reported since"),
        ({"at": time.time() + 600}, "clock", "problem", "ahead of this one"),
        ({"credential_expires": 1.0}, "credential", "problem", "its credential ended at 1970"),
        ({"credential_expires": None}, "credential", "problem", "has no credential"),
        ({"namespaces": ("staging",)}, "namespace", "problem", "works in namespace staging, not in default"),
        ({"expires": 1.0}, "release", "problem", "its release ended"),
        ({"expires": time.time() + 3600}, "release", "warning", "its release ends at"),
        ({"expires": 1e300, "credential_expires": 1e300}, "credential", "ok", "credential until"),
    ],
)
async def test_what_a_worker_reports_is_judged(
    state: Path, said: dict[str, Any], check: str, level: str, text: str
) -> None:
    reported(state, **said)

    assert any(text in each for each in of(await looked_at(state), check, level))


async def test_a_worker_that_was_changed_does_not_go_on_by_itself(state: Path) -> None:
    reported(state, unavailable=f"{ALTERED}: a.py was changed")

    [step] = [each.step for each in await looked_at(state) if each.check == "workers"]

    assert step is not None
    assert "start the worker again" in step
    assert "goes on by itself" not in step


async def test_a_worker_with_other_policies_than_these_is_a_problem(state: Path) -> None:
    reported(state)

    findings = await looked_at(state, policies=_POLICIES)

    assert any("bundle dddddddddddd is in force" in text for text in of(findings, "policies-in-force", "problem"))


async def test_a_worker_that_lacks_a_revocation_is_a_problem(state: Path) -> None:
    reported(state, revocations=3)
    reported(state, pid=os.getppid(), revocations=2)

    assert any(
        f"{os.getppid()} does not have it" in text for text in of(await looked_at(state), "revocations", "problem")
    )


async def test_a_report_that_is_none_is_named_and_does_not_stop_the_others(state: Path) -> None:
    reported(state)
    (state / "in-force" / "x.json").write_bytes(b"\xff{")

    findings = await looked_at(state)

    assert any("is not a worker's report" in text for text in of(findings, "workers", "warning"))
    assert of(findings, "credential", "ok")


# The server, its clock and its queues.


def test_a_server_that_is_not_there_is_a_problem(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("doctor", "--address", "127.0.0.1:1", "--json")

    assert ended.code == 1
    assert any(each["check"] == "server" and each["level"] == "problem" for each in ended.report["findings"])


async def test_a_namespace_that_is_not_there_is_a_problem(fleet: Fleet) -> None:
    findings = await examine(fleet.deployment(namespace="nowhere"))

    assert "the server has no namespace nowhere" in of(findings, "namespace", "problem")
    assert of(findings, "queues") == []


@pytest.mark.parametrize(("ahead", "level"), [(0.0, "ok"), (20.0, "warning"), (-20.0, "warning"), (3600.0, "problem")])
async def test_a_clock_that_is_apart_from_the_servers_is_named(fleet: Fleet, ahead: float, level: str) -> None:
    findings = await examine(fleet.deployment(states=(), clock=lambda: time.time() + ahead))

    [said] = of(findings, "clock", level)
    assert ahead == 0 or ("behind" if ahead > 0 else "ahead of") in said


async def test_a_queue_that_is_served_without_the_plugin_is_a_problem(fleet: Fleet) -> None:
    rogue = await Client.connect(fleet.target, identity="rogue", runtime=fleet.runtime)
    queue = unique("mixed")
    mixed = fleet.deployment(task_queues=(queue,))

    async def noticed() -> list[str]:
        return of(await examine(mixed), "queues", "problem")

    async with Worker(rogue, task_queue=queue, activities=[record.long]):
        [said] = await eventually(noticed)
        recorded = await examine(replace(mixed, settings=Settings(recorded_queues=("mixed-*",))))

    assert said == f"{queue}: served without the plugin by rogue (activity tasks)"
    assert of(recorded, "queues", "problem") == []
    assert said in of(recorded, "queues", "warning")


async def test_a_worker_without_the_plugin_is_found_in_a_process_that_has_it(fleet: Fleet) -> None:
    """Its identity is then that of a worker with the plugin, and its heartbeat is not."""
    second = await Client.connect(fleet.target, runtime=fleet.runtime)
    queue = unique("second")

    async def noticed() -> list[str]:
        findings = await examine(fleet.deployment(task_queues=(queue,)))
        return [text for text in of(findings, "queues", "problem") if text.startswith(queue)]

    async with (
        Worker(fleet.gated, task_queue=queue, activities=[record.long]),
        Worker(second, task_queue=queue, activities=[record.long]),
    ):
        [said] = await eventually(noticed)

    assert f"{os.getpid()}@" in said


async def test_a_worker_that_has_stopped_is_not_counted_as_a_poller(fleet: Fleet) -> None:
    """The server names it for minutes yet."""
    leaving = await Client.connect(fleet.target, identity="leaving", runtime=fleet.runtime)
    queue = unique("left")

    async def served() -> list[str]:
        findings = await examine(fleet.deployment(task_queues=(queue,)))
        return [text for text in of(findings, "queues") if text.startswith(f"{queue}: served without")]

    async def left() -> list[str]:
        findings = await examine(fleet.deployment(task_queues=(queue,)))
        return [text for text in of(findings, "queues") if text == f"{queue}: nobody polls it"]

    async with Worker(leaving, task_queue=queue, activities=[record.long]):
        await eventually(served)
    await eventually(left)


async def test_a_poller_that_nobody_knows_is_a_warning(fleet: Fleet) -> None:
    quiet = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=None)
    stranger = await Client.connect(fleet.target, identity="stranger", runtime=quiet)
    queue = unique("quiet")

    async def polls() -> list[str]:
        findings = await examine(fleet.deployment(task_queues=(queue,)))
        return [text for text in of(findings, "queues", "warning") if "it is not known" in text]

    async with Worker(stranger, task_queue=queue, activities=[record.long]):
        [said] = await eventually(polls)

    assert said == f"{queue}: it is not known whether stranger (activity tasks) has the plugin"


async def test_a_queue_that_nobody_polls_is_a_warning(fleet: Fleet) -> None:
    findings = await examine(fleet.deployment(task_queues=("deserted",)))

    assert "deserted: nobody polls it" in of(findings, "queues", "warning")


async def test_workers_without_heartbeats_are_known_by_their_reports(fleet: Fleet, tmp_path: Path) -> None:
    quiet = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=None)
    plugin = AuthorizationPlugin.embedded(fleet.policies, state_dir=tmp_path / "state")
    queue = unique("reported")

    async def polled() -> list[str]:
        findings = await examine(fleet.deployment(states=(tmp_path / "state",), task_queues=(queue,)))
        return [text for text in of(findings, "queues", "ok") if text.startswith(queue)]

    async with AsyncExitStack() as stack:
        client = await Client.connect(fleet.target, plugins=[plugin], runtime=quiet)
        await stack.enter_async_context(Worker(client, task_queue=queue, activities=[record.long]))
        [said] = await eventually(polled)

    assert said == f"{queue}: 1 poller, all with the plugin"


# Databases.


async def stored(where: str | Path, **settings: Any) -> list[Finding]:
    return await examine(Deployment(Settings(**settings), store=str(where)))


async def test_a_store_is_looked_at_and_not_made(tmp_path: Path) -> None:
    EvidenceStore.open(tmp_path / "evidence.db").close()

    assert of(await stored(tmp_path / "evidence.db"), "store", "ok")
    assert of(await stored(tmp_path / "none.db"), "store", "problem")
    assert of(await stored(tmp_path), "store", "problem")
    assert not (tmp_path / "none.db").exists()


async def test_a_database_that_is_none_or_cannot_be_reached_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no database" * 1000)
    secret = "postgresql://exequatur:hunter2@127.0.0.1:1/evidence"

    assert of(await stored(tmp_path / "text"), "store", "problem")
    assert of(await stored("mysql://somewhere/x"), "store", "problem")
    [said] = of(await stored(secret), "store", "problem")
    assert "hunter2" not in said
    assert of(await examine(Deployment(Settings(shared_state=secret))), "shared-state", "problem")


# The data converter.


class Losing(PayloadCodec):
    """Keeps the data and forgets the metadata."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"lost"}, data=each.data) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"json/plain"}, data=each.data) for each in payloads]


class Failing(PayloadCodec):
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise RuntimeError("no key")

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise RuntimeError("no key")


@pytest.mark.parametrize(
    ("converter", "level", "text"),
    [
        (MIRRORED, "ok", "gives back what it was given, and hides it"),
        (DataConverter.default, "warning", "has no codec"),
        (DataConverter(payload_codec=Losing()), "problem", "receipts would be lost"),
        (DataConverter(payload_codec=Failing()), "problem", "RuntimeError: no key"),
    ],
    ids=["good", "none", "losing", "failing"],
)
async def test_the_data_converter_must_give_back_what_it_was_given(
    converter: DataConverter, level: str, text: str
) -> None:
    [said] = of(await examine(Deployment(Settings(), converter=converter)), "converter", level)

    assert text in said


# The authority service.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an authority service."""
    made = tmp_path / "service"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    "url",
    [
        "http://authority.example",
        "ftp://authority.example",
        "https://user:secret@authority.example",
        "x",
        "",
        "https://",
    ],
)
async def test_an_authority_that_is_not_named_by_https_is_refused(url: str) -> None:
    findings = await examine(Deployment(Settings(), authority=url))

    [said] = of(findings, "authority", "problem")
    assert said.startswith("authority ")
    assert "secret" not in said


async def test_an_authority_that_is_not_there_is_a_problem() -> None:
    findings = await examine(Deployment(Settings(), authority="https://127.0.0.1:1"))

    assert any("cannot be reached" in text for text in of(findings, "authority", "problem"))


async def test_an_authority_and_those_who_trust_its_keys_are_fine(folder: Path, state: Path) -> None:
    async with running(folder) as service:
        own, foreign = service.folder / "state", state
        findings = await examine(Deployment(Settings(), states=(own,), authority=service.url))
        others = await examine(Deployment(Settings(), states=(foreign,), authority=service.url))
        late = await examine(Deployment(Settings(), authority=service.url, clock=lambda: time.time() + 3600))

    assert problems(findings) == []
    assert of(findings, "authority", "ok") == [f"{service.url} is ready"]
    assert f"{own} trusts what the authority publishes" in of(findings, "anchors", "ok")
    assert any("which the authority does not publish" in text for text in of(others, "anchors", "problem"))
    assert any("the authority is 3" in text and "behind" in text for text in of(late, "clock", "problem"))


async def test_an_authority_that_cannot_decide_is_a_problem(folder: Path) -> None:
    async with running(folder) as service:
        with (service.folder / "state" / "revocations").open("ab") as feed:
            feed.write(b"{}\n")
        await became(lambda: service.parts.gate.unavailable() is not None)
        findings = await examine(Deployment(Settings(), authority=service.url))

    assert any("is not ready" in text for text in of(findings, "authority", "problem"))


async def test_a_server_that_is_no_authority_is_named() -> None:
    with serving() as other:
        other.files["/v1/trust"] = b"<html>welcome</html>"
        findings = await examine(Deployment(Settings(), authority=other.url("")))

    assert any("is not ready: it answers 404" in text for text in of(findings, "authority", "problem"))
    assert any("is not a JWK set" in text for text in of(findings, "anchors", "problem"))


# The revocation feed of a state folder.


def revoked(state: Path, policies: Path, **what: Any) -> None:
    AuthorizationPlugin.embedded(policies, state_dir=state).revoke(reason="tried", **what)


async def test_a_kill_switch_that_is_on_is_a_warning(fleet: Fleet, state: Path) -> None:
    revoked(state, fleet.policies, workflow="w")
    assert any("version 1, 1 revocations stand" in text for text in of(await looked_at(state), "feed", "ok"))

    revoked(state, fleet.policies, everything=True)

    assert any("everything is revoked, by entry 2" in text for text in of(await looked_at(state), "feed", "warning"))


async def test_a_feed_in_a_shared_database_is_not_looked_for_in_the_folder(state: Path) -> None:
    (state / "revocations").write_text("left over")
    settings = Settings(shared_state="postgresql://exequatur@127.0.0.1:1/shared")

    assert of(await examine(Deployment(settings, states=(state,))), "feed", "problem") == []


async def test_a_feed_that_cannot_be_read_is_a_problem(state: Path) -> None:
    (state / "revocations").write_text('{"at": 1.0}\n')

    assert of(await looked_at(state), "feed", "problem")


# The runtime manifest.


async def test_an_installation_is_compared_with_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The application is enough here; to read all that is installed takes seconds each time.
    monkeypatch.setattr(Sites, "here", lambda: Sites((), ()))
    source = tmp_path / "app" / "work.py"
    source.parent.mkdir()
    source.write_text("ANSWER = 42\n")
    keys, manifest = tmp_path / "manifest-keys.jwks", tmp_path / "worker.manifest"
    key = make_manifest_key(tmp_path, keys, "build")
    measured = measure(Plan(sources=(source.parent,)), Reader()).measurement
    manifest.write_text(sign_manifest(measured, "worker", key))
    settings = Settings(integrity_manifest=str(manifest), integrity_keys=str(keys))

    assert of(await examine(Deployment(settings)), "manifest", "ok")
    source.write_text("ANSWER = 43\n")
    assert any("work.py" in text for text in of(await examine(Deployment(settings)), "manifest", "problem"))
    manifest.write_text("{}")
    assert of(await examine(Deployment(settings)), "manifest", "problem")
