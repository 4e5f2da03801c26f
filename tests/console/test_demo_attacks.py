"""What visitors of the demo page try, and what goes wrong around them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from temporalio.testing import WorkflowEnvironment

from exequatur.console.config import read_config
from exequatur.console.demo import cookie_for
from exequatur.console.sandbox import checking, run
from exequatur.console.sandbox.checking import Checked
from exequatur.console.sandbox.home import SandboxFolder, clear_up
from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.sandbox import Sandbox
from exequatur.errors import ConfigurationError
from tests.console.running import NOWHERE, Running, running
from tests.console.test_demo_page import DEMO, Visitor, visiting
from tests.console.test_demo_sandbox import ADA, BEN, LIMITS, World, ended, until, world

__all__ = ["world"]  # a fixture

PERMITTED = '@id("all") permit (principal, action, resource);'
PUBLIC = {**DEMO, "public": True, "principal": None}
ROOT = Path(__file__).resolve().parents[2]


@pytest_asyncio.fixture(scope="module")
async def shown(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A console with the demo."""
    async with running(tmp_path_factory.mktemp("attacks"), target=target, config=DEMO) as started:
        yield started


# The bounds are settings.


def test_the_bounds_of_the_demo_are_settings_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "console.toml"
    file.write_text("[demo_limits]\nvisitors = 20\neach = 20\nidle = 60\n")

    assert read_config(file, {}).demo_limits == Limits(visitors=20, each=20, idle=60.0)
    assert read_config(None, {}).demo_limits == Limits()


@pytest.mark.parametrize(
    "line",
    [
        "visitors = -1",
        "visitors = 1000000",
        "each = true",
        'runs = "8"',
        "idle = nan",
        "age = inf",
        "idle = 0",
        "no = 1",
    ],
)
def test_a_bound_that_cannot_work_is_refused_by_name(tmp_path: Path, line: str) -> None:
    file = tmp_path / "console.toml"
    file.write_text(f"[demo_limits]\n{line}\n")

    with pytest.raises(ConfigurationError, match=rf"console\.toml: demo_limits\.{line.partition(' ')[0]}: ") as refused:
        read_config(file, {})
    assert len(str(refused.value)) < 300


# What ends in the middle.


@pytest.mark.rule("sandbox.B4")
@pytest.mark.parametrize("when", ["on its way", "started"])
async def test_a_sandbox_that_ends_while_a_run_starts_leaves_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sandbox = await world.sandboxes.enter(ADA)
    client = sandbox.worker.client
    ending: list[asyncio.Task[None]] = []
    genuine = client.start_workflow

    async def start(*arguments: Any, **options: Any) -> Any:
        if when == "on its way":
            await world.sandboxes.close(ADA)
        started = await genuine(*arguments, **options)
        ending.append(asyncio.ensure_future(world.sandboxes.close(ADA)))
        await until(lambda: sandbox.ended)
        return started

    monkeypatch.setattr(client, "start_workflow", start)
    with pytest.raises(SandboxError, match="has ended"):
        await sandbox.start({"activity": "refund"})
    await asyncio.gather(*ending)

    assert not sandbox.runs
    assert not sandbox._folder.exists()
    left = world.client.list_workflows(f'WorkflowId = "{sandbox.name}-1" AND ExecutionStatus = "Running"')
    deadline = time.monotonic() + 120
    while [each async for each in left] and time.monotonic() < deadline:  # the list is late
        left = world.client.list_workflows(f'WorkflowId = "{sandbox.name}-1" AND ExecutionStatus = "Running"')
    assert time.monotonic() < deadline


@pytest.mark.rule("sandbox.B4")
async def test_a_sandbox_that_ends_while_it_is_edited_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await world.sandboxes.enter(ADA)
    text = sandbox.editing.policies.policies["refunds.cedar"] + "\n// another comment\n"

    async def slow(*_: object) -> Checked:
        await world.sandboxes.close(ADA)
        return Checked((), "digest")

    monkeypatch.setattr("exequatur.console.sandbox.editing.check", slow)
    with pytest.raises(SandboxError, match="has ended") as refused:
        await sandbox.apply({"refunds.cedar": text})

    assert refused.value.why == "gone"
    assert not sandbox._folder.exists()


async def test_a_sandbox_ends_also_when_whoever_reset_it_goes_away(world: World) -> None:
    sandbox = await world.sandboxes.enter(ADA)
    await sandbox.start({"activity": "migrate"})
    reset = asyncio.ensure_future(world.sandboxes.close(ADA))
    await asyncio.sleep(0)
    reset.cancel()

    await until(lambda: not sandbox._folder.exists())
    assert sandbox._worker is not None
    await until(lambda: not sandbox._worker.working)  # type: ignore[union-attr]


async def test_a_sandbox_that_is_reset_while_it_is_made_is_gone(world: World) -> None:
    making = asyncio.ensure_future(world.sandboxes.enter(ADA))
    await asyncio.sleep(0)
    await world.sandboxes.close(ADA)

    assert (await making).ended
    assert world.sandboxes.find(ADA) is None


async def test_a_run_whose_end_the_server_never_tells_does_not_stay_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await world.sandboxes.enter(BEN)
    monkeypatch.setattr(run, "_OVERDUE", -LIMITS.run_seconds)

    async def lost(_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(run.Run, "_read", lost)
    started = await ended(await sandbox.start({"activity": "migrate"}))
    await world.sandboxes.close(BEN)

    assert started.view.sentence == "The Temporal server has not told how it ended."
    assert [step.state for step in started.view.steps] == ["skipped"]


# What is left behind.


@pytest.mark.rule("home.D1", "home.D2")
def test_what_a_killed_console_left_behind_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    script = (
        "from exequatur.console.sandbox.home import SandboxFolder; import time\n"
        "made = SandboxFolder().make(); (made / 'grant.pem').write_text('a key'); print(made, flush=True)\n"
        "time.sleep(600)"
    )
    console = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert console.stdout is not None
        left = Path(console.stdout.readline().strip())
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        clear_up()
        assert (left / "grant.pem").exists()  # of a console that runs
    finally:
        console.send_signal(signal.SIGKILL)
        console.communicate()
    assert left.exists()
    other, elsewhere = SandboxFolder(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("not of a console")
    (tmp_path / "exequatur-console-link").symlink_to(elsewhere)

    clear_up()

    assert not left.parent.exists()
    assert other.path.exists()
    assert (elsewhere / "file").exists()
    assert other.path.stat().st_mode & 0o777 == 0o700
    other.remove()
    assert not other.path.exists()


@pytest.mark.rule("home.D2")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "exequatur-console-foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    clear_up()

    assert foreign.exists()


# How much is too much.


@pytest.mark.rule("sandboxes.G4")
async def test_to_reset_is_no_way_around_the_bounds(server: WorkflowEnvironment) -> None:
    world = World(server.client, replace(LIMITS, openings=2))
    try:
        for _ in range(2):
            await world.sandboxes.enter(ADA, "10.0.0.1")
            await world.sandboxes.close(ADA)
        with pytest.raises(SandboxError, match="within an hour"):
            await world.sandboxes.enter(ADA, "10.0.0.1")
        await world.sandboxes.enter(BEN, "10.0.0.2")
        world.ahead = 3601.0
        await world.sandboxes.enter(ADA, "10.0.0.1")
    finally:
        await world.sandboxes.aclose()


@pytest.mark.rule("editing.I2")
async def test_the_checks_of_all_visitors_are_few_processes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sandboxes = [await world.sandboxes.enter(key) for key in (ADA, BEN, "c" * 43)]
    at_once: list[int] = [0]

    async def counted(*_: object) -> Checked:
        at_once.append(at_once[-1] + 1)
        await asyncio.sleep(0.05)
        at_once.append(at_once[-1] - 1)
        return Checked((), None)

    monkeypatch.setattr("exequatur.console.sandbox.editing.check", counted)
    await asyncio.gather(*(each.check({"refunds.cedar": ""}) for each in sandboxes))

    assert max(at_once) == LIMITS.checks == 2


async def test_a_check_whose_console_is_killed_ends(tmp_path: Path) -> None:
    # It reads from a pipe of the console's; when that is gone, it has read all there will ever be.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        checking.__name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.close()

    assert await asyncio.wait_for(process.wait(), 60) != 0


@pytest.mark.rule("demo.M4")
async def test_pages_that_follow_at_the_same_time_are_few(shown: Running) -> None:
    async with visiting(shown) as visitor:
        await visitor.run({"activity": "refund"})
        client = visitor.looking.client

        async def followed() -> bool:
            async with client.stream("GET", "/demo/follow") as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: "):
                        await asyncio.sleep(1)
                        return True
            return False

        told = await asyncio.gather(*(followed() for _ in range(12)))

    assert 1 <= sum(told) <= Limits().streams


@pytest.mark.rule("demo.M4")
async def test_a_page_that_follows_ends_with_its_session(shown: Running) -> None:
    async with visiting(shown) as visitor:
        await visitor.run({"activity": "refund"})
        client, sessions = visitor.looking.client, shown.console.sessions
        async with client.stream("GET", "/demo/follow") as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            sessions.close(client.cookies[sessions.cookie])
            async with asyncio.timeout(60):
                async for _ in lines:
                    pass


# What visitors find out.


def _decoded(text: str) -> str:
    """The text with all that is base64 in it, decoded as often as it can be."""
    found = text
    for each in re.findall(r"[A-Za-z0-9+/_-]{24,}={0,2}", text):
        try:
            inner = base64.urlsafe_b64decode(each.replace("+", "-").replace("/", "_").rstrip("=") + "==").decode()
        except (binascii.Error, ValueError):
            continue
        found += _decoded(inner)
    return found


def _secrets_of(sandbox: Sandbox) -> list[str]:
    """The private keys, as files have them and as bare bytes."""
    found: list[str] = []
    for path in (sandbox._folder / "state").rglob("*.pem"):
        pem = path.read_bytes()
        raw = load_pem_private_key(pem, None).private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        found += [pem.decode().splitlines()[1][-40:], raw.hex()]
        found += [coded(raw).decode().rstrip("=") for coded in (base64.b64encode, base64.urlsafe_b64encode)]
    return found


async def _all_that_is_told(visitor: Visitor) -> str:
    await visitor.run({"activity": "complaint"})
    text = [(await visitor.looking.get("/demo")).text]
    text += [(await visitor.get(path)).text for path in ("state.json", "policies.json", "history.json?run=1")]
    for change in ("receipt", "arguments"):
        events = json.loads(text[3])["events"]
        event = next(each for each in events if any(one["kind"] == change for one in each["changes"]))
        text.append((await visitor.post("audit", {"run": 1, "event": event["id"], "change": change})).text)
    async with visitor.looking.client.stream("GET", "/demo/follow") as stream:
        text.append(await anext(stream.aiter_lines()))
    return "\n".join(text)


@pytest.mark.rule("worker.O3")
async def test_no_private_key_and_nothing_of_this_machine_reaches_a_page(target: str, tmp_path: Path) -> None:
    async with (
        running(tmp_path, policies=PERMITTED, target=target, config=PUBLIC) as open_,
        visiting(open_, None) as visitor,
    ):
        told = _decoded(await _all_that_is_told(visitor))
        assert open_.console.demo is not None
        [held] = open_.console.demo._held.values()
        secret = _secrets_of(held.sandbox)
        folder = str(held.sandbox._folder)

    assert len(secret) >= 4 * 5
    assert not [each for each in secret if each in told]
    assert "exequatur-receipt+jwt" in told  # all the way into the statements
    assert f"{os.getpid()}@" not in told
    assert f"{os.uname().nodename}-{os.getpid()}" not in told
    assert not [each for each in (folder, str(tmp_path), str(ROOT), target) if each in told]


@pytest.mark.rule("demo.M5")
async def test_what_goes_wrong_tells_visitors_no_address_and_no_path(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with (
        running(tmp_path / "a", policies=PERMITTED, config=PUBLIC) as away,
        visiting(away, None) as visitor,
    ):
        answers = [await visitor.post("start", {"inputs": {}})]
        assert away.console.demo is not None
        monkeypatch.setattr(away.console.demo.application, "policies", tmp_path / "nowhere", raising=False)
        answers += [await visitor.get("policies.json")]
        monkeypatch.undo()
    async with (
        running(tmp_path / "b", policies=PERMITTED, target=target, config=PUBLIC) as open_,
        visiting(open_, None) as visitor,
    ):
        await visitor.run({"activity": "refund"})
        assert open_.console.demo is not None
        [held] = open_.console.demo._held.values()
        journal = held.sandbox._folder / "state" / "journal"
        (journal / "9.db").write_bytes(b"nothing that could be read" * 100)
        answers.append(await visitor.post("audit", {"run": 1, "event": 2, "change": "drop"}))
        (held.sandbox._folder / "policies").rename(held.sandbox._folder / "elsewhere")
        text = held.sandbox.editing.policies.policies["refunds.cedar"] + "// another comment\n"
        answers.append(await visitor.post("apply", {"texts": {"refunds.cedar": text}}))

    assert [answer.json()["why"] for answer in answers] == ["away", "broken", "gone", "broken"]
    for answer in answers:
        assert not [each for each in (str(tmp_path), tempfile.gettempdir(), NOWHERE, "Errno") if each in answer.text]


@pytest.mark.rule("demo.M1")
async def test_a_cookie_that_was_stolen_or_put_there_is_worth_nothing(shown: Running) -> None:
    async with visiting(shown) as visitor, shown.browser() as thief:
        await visitor.run({"activity": "refund"})
        name = cookie_for(shown.console)
        thief.client.cookies.set(name, visitor.looking.client.cookies[name], domain="127.0.0.1", path="/demo")
        state = (await thief.get("/demo/state.json")).json()
        page = (await thief.get("/demo")).text
        token = re.search(r'data-token="([^"]+)"', page)
        begun = await Visitor(thief, token[1] if token else "", await thief.csrf()).post("start", {"inputs": {}})
        mine = (await visitor.get("state.json")).json()

    assert state == {"sandbox": None}
    assert begun.json()["sandbox"]["name"] != mine["sandbox"]["name"]
    assert len(mine["sandbox"]["runs"]) == 1


@pytest.mark.parametrize("run", ["9" * 5000, "-1", "1e3", "٣", "", "1%00", "2"])
async def test_a_run_that_is_none_of_ones_own_is_plainly_not_there(hostile: Visitor, run: str) -> None:
    answered = await hostile.get(f"history.json?run={run}")

    assert answered.status_code == 404
    assert answered.json()["why"] == "gone"


@pytest_asyncio.fixture(scope="module")
async def hostile(shown: Running) -> AsyncIterator[Visitor]:
    async with visiting(shown) as visitor:
        await visitor.run({"activity": "refund"})
        yield visitor
