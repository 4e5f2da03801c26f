"""Released policies in real workers: what is refused changes nothing, what is adopted decides, and it is told which."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from exequatur import AuthorizationPlugin, AuthorizationUnavailable, Settings
from exequatur.errors import ConfigurationError, PolicyError
from tests.gate.conftest import BOT, PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one
from tests.release.conftest import running_server, shelf, team
from tests.release.parties import PolicyTeam, Server, dripping, made, status

__all__ = ["running_server", "shelf", "team"]  # fixtures

FREEZE = PERMIT_ALL + '@id("freeze") forbid(principal, action == Action::"act", resource);\n'
PATH, CANARY = "/policies.bundle", "/policies.canary.bundle"


@activity.defn
async def act() -> str:
    happened("ran")
    return "done"


@pytest.fixture
def released(stage: Callable[..., Any], team: PolicyTeam, tmp_path: Path) -> Callable[..., Any]:
    """Sets a stage whose workers follow released policies."""

    async def set_stage(where: object, state: str = "state", **settings: Any) -> Stage:
        settings.setdefault("policy_keys", str(team.keys))
        settings.setdefault("policy_poll_interval", "20ms")
        settings.setdefault("policy_fetch_interval", "50ms")
        plugin = AuthorizationPlugin.embedded(
            str(where), state_dir=tmp_path / state, principal=BOT, settings=Settings(**settings)
        )
        made_stage: Stage = await stage(plugin=plugin)
        return made_stage

    return set_stage


async def outcome(s: Stage) -> tuple[str, bool]:
    """How an activity ends, and whether its body ran."""
    handle = await start_one(s, act)
    try:
        result = await handle.result()
    except Exception:
        result = (await failure_of(handle)).type
    return str(result), bool(deeds(handle.id))


async def in_force(s: Stage, sequence: int | None) -> None:
    await eventually(lambda: s.plugin.in_force.sequence == sequence)


async def test_a_release_is_in_force_in_a_running_worker_and_rolled_back_by_another(
    released: Any, shelf: Server, team: PolicyTeam
) -> None:
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        assert await outcome(s) == ("done", True)
        shelf.files[PATH] = team.released(FREEZE, 2, version="2")
        await in_force(s, 2)
        assert await outcome(s) == ("AuthorizationDenied", False)
        assert (s.plugin.in_force.version, s.plugin.in_force.channel) == ("2", "stable")
        shelf.files[PATH] = team.released(PERMIT_ALL, 3)
        await in_force(s, 3)
        assert await outcome(s) == ("done", True)


REFUSED: dict[str, Callable[[PolicyTeam, PolicyTeam], bytes]] = {
    "unsigned": lambda team, mallory: made(PERMIT_ALL).to_bytes(),
    "another key": lambda team, mallory: mallory.released(PERMIT_ALL, 9),
    "replayed": lambda team, mallory: team.released(PERMIT_ALL, 1),
    "altered": lambda team, mallory: team.released(FREEZE, 9).replace(b"forbid(", b"permit("),
    "truncated": lambda team, mallory: team.released(PERMIT_ALL, 9)[:-1],
    "expired": lambda team, mallory: team.release(
        made(PERMIT_ALL), 9, now=time.time() - 60, expires=float(int(time.time() - 30))
    ).to_bytes(),
    "garbage": lambda team, mallory: b"permit(principal, action, resource);",
}


@pytest.mark.parametrize("bad", REFUSED)
async def test_a_bundle_that_is_refused_does_not_let_an_activity_run(
    bad: str, released: Any, shelf: Server, team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.files[PATH] = team.released(FREEZE, 2)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        shelf.files[PATH] = REFUSED[bad](team, PolicyTeam(tmp_path, "mallory"))
        await eventually(lambda: "were refused and bundle" in caplog.text)
        assert await outcome(s) == ("AuthorizationDenied", False)
        assert s.plugin.in_force.sequence == 2
    assert caplog.text.count("were refused and bundle") == 1


@pytest.mark.parametrize("trouble", ["500", "dripping"])
async def test_decisions_go_on_while_the_server_is_in_trouble(
    trouble: str, released: Any, shelf: Server, team: PolicyTeam
) -> None:
    shelf.files[PATH] = team.released(FREEZE, 1)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        asked = len(shelf.requests())
        shelf.bad[PATH] = status(500) if trouble == "500" else dripping(bytes(200))
        await eventually(lambda: len(shelf.requests()) > asked)
        assert await outcome(s) == ("AuthorizationDenied", False)
        shelf.bad.clear()
    # A worker ends although its server is still dripping.


async def test_a_canary_decides_in_its_share_and_is_withdrawn(released: Any, shelf: Server, team: PolicyTeam) -> None:
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url())
    async with s.worker([OneActivity], [act]):
        shelf.files[CANARY] = team.released(FREEZE, 2, share=100)
        await in_force(s, 2)
        assert s.plugin.in_force.channel == "canary"
        assert await outcome(s) == ("AuthorizationDenied", False)
        del shelf.files[CANARY]
        await in_force(s, 1)
        assert await outcome(s) == ("done", True)


async def test_a_running_activity_ends_when_a_release_forbids_it(
    released: Any, team: PolicyTeam, tmp_path: Path
) -> None:
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(PERMIT_ALL, 1))
    s = await released(path)
    began = asyncio.Event()

    @activity.defn(name="act")
    async def waits() -> None:
        began.set()
        await asyncio.sleep(60)

    async with s.worker([OneActivity], [waits]):
        handle = await start_one(s, "act")
        await began.wait()
        path.write_bytes(team.released(FREEZE, 2))
        assert (await failure_of(handle)).type == "AuthorizationRevoked"


@pytest.mark.rule("U5")
@pytest.mark.rule("I5")
async def test_nothing_is_authorized_after_the_release_has_ended_until_there_is_another(
    released: Any, team: PolicyTeam, tmp_path: Path
) -> None:
    path = tmp_path / "policies.bundle"
    ends = float(int(time.time()) + 3)
    path.write_bytes(team.release(made(PERMIT_ALL), 1, expires=ends).to_bytes())
    s = await released(path)
    async with s.worker([OneActivity], [act]):
        assert await outcome(s) == ("done", True)
        waiting = await start_one(s, act)
        await waiting.result()
        await eventually(lambda: s.plugin.gate.unavailable() is not None)
        assert "release it again" in str(s.plugin.gate.unavailable())
        with pytest.raises(AuthorizationUnavailable, match="ended"):
            await start_one(s, act)
        path.write_bytes(team.released(PERMIT_ALL, 2))
        await in_force(s, 2)
        assert await outcome(s) == ("done", True)


async def test_a_client_without_a_worker_follows_releases_too(released: Any, shelf: Server, team: PolicyTeam) -> None:
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url(), policy_fetch_interval="1ms")
    await start_one(s, act)
    shelf.files[PATH] = team.released('permit(principal, action == Action::"other", resource);', 2)
    await asyncio.sleep(0.01)
    with pytest.raises(Exception, match=r"workflow\.start"):
        await start_one(s, act)


async def test_a_start_does_not_wait_for_a_server_that_drips(
    released: Any, shelf: Server, team: PolicyTeam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.gate.serving._PATIENCE", 0.1)
    monkeypatch.setattr("exequatur.release.web.DEADLINE", 1.0)
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url(), policy_fetch_interval="1ms")
    shelf.bad[PATH] = dripping(bytes(1000))
    await asyncio.sleep(0.01)
    await start_one(s, act)
    assert s.plugin.in_force.sequence == 1
    shelf.bad.clear()


async def test_a_worker_tells_what_is_in_force_while_it_runs(
    released: Any, shelf: Server, team: PolicyTeam, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.files[PATH] = team.released(PERMIT_ALL, 1)
    s = await released(shelf.url())
    folder = tmp_path / "state" / "in-force"
    with caplog.at_level(logging.INFO):
        async with s.worker([OneActivity], [act]):
            shelf.files[PATH] = team.released(FREEZE, 2, version="1.4.0")
            await in_force(s, 2)
            await eventually(lambda: b"1.4.0" in next(folder.glob("*.json")).read_bytes())
            report = json.loads(next(folder.glob("*.json")).read_text())
    digest = s.plugin.gate.policy.bundle.digest
    assert (report["digest"], report["sequence"], report["version"]) == (digest, 2, "1.4.0")
    standing = report.pop("standing")
    assert (standing["namespaces"], standing.get("unavailable")) == (["default"], None)
    assert s.plugin.in_force.model_dump(exclude_none=True) == report
    assert f"Policy bundle {digest} is in force" in caplog.text
    assert list(folder.glob("*.json")) == []


async def test_the_release_in_force_is_measured(released: Any, target: str, team: PolicyTeam, tmp_path: Path) -> None:
    path, buffer = tmp_path / "policies.bundle", MetricBuffer(10_000)
    path.write_bytes(team.released(PERMIT_ALL, 1))
    s = await released(path)
    measured = Runtime(telemetry=TelemetryConfig(metrics=buffer))
    client = await Client.connect(target, plugins=[s.plugin], runtime=measured)
    async with s.worker([OneActivity], [act], client=client):
        path.write_bytes(team.released(FREEZE, 2, version="2"))
        await in_force(s, 2)
    seen = [
        (update.attributes["sequence"], update.attributes["version"], update.value)
        for update in buffer.retrieve_updates()
        if update.metric.name == "exequatur_policy_in_force"
    ]
    assert seen == [(1, "1", 1), (1, "1", 0), (2, "2", 1)]


def test_a_worker_does_not_start_without_policies_that_hold(shelf: Server, team: PolicyTeam, tmp_path: Path) -> None:
    settings = Settings(policy_keys=str(team.keys))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "main.cedar").write_text(PERMIT_ALL)
    for where, said in ((shelf.url(), "holds no stable bundle"), (tmp_path / "folder", "nobody has signed")):
        with pytest.raises(PolicyError, match=said):
            AuthorizationPlugin.embedded(where, state_dir=tmp_path / "state", settings=settings)
    with pytest.raises(ConfigurationError, match="must be signed"):
        AuthorizationPlugin.embedded(shelf.url(), state_dir=tmp_path / "state", settings=Settings())


async def test_two_workers_share_what_was_adopted(released: Any, target: str, team: PolicyTeam, tmp_path: Path) -> None:
    path = tmp_path / "policies.bundle"
    older = team.released(PERMIT_ALL, 1)
    path.write_bytes(older)
    first = await released(path)
    path.write_bytes(team.released(FREEZE, 2))
    async with first.worker([OneActivity], [act]):
        await in_force(first, 2)
    path.write_bytes(older)
    with pytest.raises(PolicyError, match="older than release 2"):
        await released(path)
    assert isinstance(first.client, Client)
