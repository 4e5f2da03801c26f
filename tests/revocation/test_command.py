"""``exequatur revoke`` and ``exequatur control`` as a security person uses them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from joserfc import jwt
from joserfc.jwk import ECKey
from temporalio.client import Client

from exequatur.authority.api import shown
from exequatur.authority.connection import Connection
from exequatur.authority.feed_source import AuthoritySource, DeniedError
from exequatur.authority.state import open_state
from exequatur.cli.main import commands
from exequatur.control.source import ControlSource
from exequatur.control.state import WORKFLOW_ID
from exequatur.errors import FeedUnreachableError
from exequatur.revocation.feed import PAGE_ENTRIES
from exequatur.revocation.following import FolderSource, FollowedRevocations, Terms
from exequatur.revocation.head import KNOWN, HeadFile
from tests.authority.running import BOSS, DANA, IDENTITY, WORKER, local, running
from tests.gate.single import eventually
from tests.revocation.conftest import AUD, BOUND, LEEWAY, entries

CORP = """
[[verifier]]
name = "corp"
kind = "oidc"
issuer = "https://login.example"
audience = ["exequatur"]
jwks = "corp.jwks"
[[principal]]
verifier = "corp"
principal = 'User::"{sub}"'
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "state"
    open_state(folder)
    return folder


def revoke(*arguments: str, state: Path | None = None) -> Result:
    where = [] if state is None else ["--state", str(state)]
    return CliRunner().invoke(commands, ["revoke", *arguments, *where])


def test_what_is_revoked_is_listed_lifted_and_ends(state: Path) -> None:
    assert "Nothing has been revoked" in revoke("--list", state=state).output
    said = revoke("--principal", 'Agent::"ops-bot"', "--reason", "its token leaked", state=state)
    assert (said.exit_code, said.output) == (0, 'Revoked: principal Agent::"ops-bot" (entry 1)\n')
    said = revoke("--all", "--for", "2h", "--reason", "incident 512", "--json", state=state)
    told = json.loads(said.output)
    assert (told["version"], told["everything"]) == (2, True)
    assert 7190 < told["until"] - time.time() < 7210
    until = revoke(
        "--worker", "w", "--activity", "pay", "--until", "2099-01-01T00:00:00Z", "--reason", "x", state=state
    )
    assert until.output == "Revoked: activity pay, worker w (entry 3), until 2099-01-01T00:00:00Z\n"
    assert revoke("--lift", "2", "--reason", "over", state=state).output == "Lifted: revocation 2 (entry 4)\n"
    again = revoke("--lift", "2", "--reason", "over", state=state)
    assert (again.exit_code, "lifted already" in again.output) == (2, True)
    lines = revoke("--list", state=state).output.splitlines()
    assert ["in force" in lines[0], "lifted by 4" in lines[1], "in force" in lines[2], "lifts" in lines[3]] == [
        True
    ] * 4
    listed = json.loads(revoke("--list", "--json", state=state).output)
    assert [each["number"] for each in listed["entries"]] == [1, 2, 3, 4]


def test_those_who_follow_the_folder_are_told_at_once(state: Path, tmp_path: Path) -> None:
    assert revoke("--workflow", "w", "--reason", "stop", state=state).exit_code == 0
    (tmp_path / "worker").mkdir()
    trust = open_state(state).trust
    worker = FollowedRevocations(
        FolderSource(state), Terms(trust, AUD, BOUND, LEEWAY), HeadFile(tmp_path / "worker" / KNOWN, trust)
    )
    assert worker.find({"workflow": "w"})
    assert worker.doubt() is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--reason", "x"], "name a grant"),
        (["--all"], "--reason"),
        (["--all", "--key", "k", "--reason", "x"], "not both"),
        (["--all", "--reason", " "], "for what reason"),
        (["--principal", "ops-bot", "--reason", "x"], "--principal"),
        (["--all", "--reason", "x", "--until", "tomorrow"], "--until tomorrow"),
        (["--all", "--reason", "x", "--until", "2099-01-01T00:00:00"], "with its zone"),
        (["--all", "--reason", "x", "--until", "2001-01-01T00:00:00Z"], "before it begins"),
        (["--all", "--reason", "x", "--for", "a while"], "--for a while"),
        (["--all", "--reason", "x", "--for", "1h", "--until", "2099-01-01T00:00:00Z"], "one of"),
        (["--list", "--all"], "--list goes alone"),
        (["--lift", "1", "--reason", "x"], "no revocation 1"),
        (["--lift", "0", "--reason", "x"], "--lift"),
        (["--all", "--reason", "x", "--token-file", "pyproject.toml"], "--token-file"),
        (["--list", "--authority", "https://127.0.0.1:1"], "who asks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_revoked(
    state: Path, arguments: list[str], why: str
) -> None:
    (state.parent / "pyproject.toml").touch()
    said = revoke(*arguments, state=state)
    assert said.exit_code == 2
    assert why in said.output
    assert "Traceback" not in said.output
    assert not (state / "revocations").exists()


def test_a_folder_that_is_no_authoritys_is_not_made_one(tmp_path: Path) -> None:
    said = revoke("--all", "--reason", "x", state=tmp_path / "typo")
    assert said.exit_code == 2
    assert "no state folder of an authority" in said.output
    assert not (tmp_path / "typo").exists()


async def test_an_authority_is_asked_and_its_policies_decide(tmp_path: Path) -> None:
    key = ECKey.generate_key("P-256", auto_kid=True)
    (tmp_path / "corp.jwks").write_text(json.dumps({"keys": [key.as_dict(private=False)]}))

    def asks(who: str) -> list[str]:
        now = int(time.time())
        claims = {"iss": "https://login.example", "aud": "exequatur", "sub": who, "iat": now, "exp": now + 300}
        (tmp_path / who).write_text(jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key))
        return ["--authority", service.url, "--token-file", str(tmp_path / who)]

    async with running(tmp_path, identity=IDENTITY + CORP) as service:
        denied = await asyncio.to_thread(revoke, "--all", "--reason", "fire", *asks("dana"))
        assert denied.exit_code == 1, denied.output
        assert 'User::"dana"' in denied.output
        done = await asyncio.to_thread(revoke, "--all", "--reason", "fire", *asks("boss"))
        assert (done.exit_code, done.output) == (0, "Revoked: everything (entry 1)\n")
        listed = await asyncio.to_thread(revoke, "--list", *asks("dana"))
        assert "everything: fire" in listed.output
        over = await asyncio.to_thread(revoke, "--lift", "1", "--reason", "out", *asks("boss"))
        assert (over.exit_code, over.output) == (0, "Lifted: revocation 1 (entry 2)\n")
    away = await asyncio.to_thread(revoke, "--list", *asks("dana"))
    assert away.exit_code == 2
    assert "cannot be reached" in away.output


async def test_workers_follow_the_authority_by_long_polls(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        for number in range(PAGE_ENTRIES + 5):  # more than one page
            service.parts.gate.revocations._store.add(entries(f"w{number}")[0])  # type: ignore[attr-defined]
        connection = Connection(service.url, timeout=10)
        source = AuthoritySource(connection, lambda: shown(local(WORKER)), timeout=10)
        (tmp_path / "worker").mkdir()
        trust = service.parts.gate.trust
        worker = FollowedRevocations(
            source, Terms(trust, AUD, BOUND, LEEWAY), HeadFile(tmp_path / "worker" / KNOWN, trust)
        )
        await eventually(lambda: service.parts.gate.revocations.version == PAGE_ENTRIES + 5)
        await worker.look()
        assert (worker.version, worker.doubt()) == (PAGE_ENTRIES + 5, None)
        worker.tend()
        boss = AuthoritySource(connection, lambda: shown(local(BOSS)), timeout=10)
        with pytest.raises(DeniedError, match="dana"):
            await asyncio.to_thread(
                AuthoritySource(connection, lambda: shown(local(DANA)), timeout=10).add,
                {"everything": True, "reason": "fire"},
            )
        await asyncio.to_thread(boss.add, {"everything": True, "reason": "fire"})
        await eventually(lambda: worker.find({}))
        nobody = AuthoritySource(connection, dict, timeout=10)
        with pytest.raises(Exception, match="refuses"):
            await asyncio.to_thread(nobody.fetch, 0, 0.0)
    with pytest.raises(FeedUnreachableError):
        await asyncio.to_thread(source.fetch, 0, 0.0)
    assert worker.doubt() is None
    worker._came -= BOUND + 1
    assert worker.doubt()


def control(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from exequatur.cli.main import main; main()", "control", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_control_carries_the_feed_into_a_namespace_until_it_is_told_to_stop(
    state: Path, target: str, tmp_path: Path
) -> None:
    assert revoke("--workflow", "w", "--reason", "stop", state=state).exit_code == 0
    process = control("--state", str(state), "--address", target)
    client = await Client.connect(target)
    source = ControlSource()
    source.attach(client.service_client, "default")

    def entries_there() -> int:
        try:
            return len(source.fetch(0, 0.0).entries)
        except FeedUnreachableError:
            return 0

    async def there(count: int) -> None:
        until = time.monotonic() + 30
        while await asyncio.to_thread(entries_there) != count:
            assert time.monotonic() < until
            assert process.poll() is None
            await asyncio.sleep(0.1)

    try:
        await there(1)
        await asyncio.to_thread(lambda: revoke("--all", "--reason", "fire", state=state))
        await there(2)
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.to_thread(process.communicate, timeout=20)
        await client.get_workflow_handle(WORKFLOW_ID).terminate()
    assert process.returncode == 0, errors
    assert "of the revocation feed is in default" in output


def test_control_says_what_it_lacks(tmp_path: Path) -> None:
    ran: Callable[..., Any] = CliRunner().invoke
    said = ran(commands, ["control", "--state", str(tmp_path / "typo")])
    assert said.exit_code == 2
    assert "no state folder" in said.output
    assert list(tmp_path.iterdir()) == []
