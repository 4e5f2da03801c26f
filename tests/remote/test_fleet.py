"""An authority, two workers and a client, each a process of its own, on a bad day."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from temporalio.client import WorkflowHandle

from exequatur import AuthorizationUnavailable
from exequatur.statements.jws import parse
from exequatur.statements.models import Grant
from tests.gate.conftest import Stage, failure_of, unique
from tests.release.parties import PolicyTeam
from tests.remote.parties import AuthorityProcess, environment, line_of
from tests.remote.test_workers import grant_of
from tests.remote.worker import STEPS, Steps

Remote = Callable[..., Awaitable[Stage]]


@contextmanager
def workers(count: int, stage: Stage, authority: AuthorityProcess, keys: Path, deeds: Path) -> Iterator[None]:
    """Workers in processes of their own, each with its own state folder, as on machines of their own."""
    deeds.touch()
    processes = []
    try:
        for number in range(count):
            state = stage.path / f"worker{number}"
            command = [sys.executable, "-m", "tests.remote.worker", stage.target, authority.url]
            command += [str(state), str(keys), stage.queue, str(deeds)]
            with (stage.path / f"worker{number}.log").open("w") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
                )
            processes.append(process)
        for process in processes:
            assert line_of(process, 60).strip() == "ready"
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def begin(stage: Stage, deletes: bool, pause: float) -> WorkflowHandle[Steps, int]:
    """Start a workflow as a client does that knows that the authority may be away for a moment."""
    workflow_id = unique()
    while True:
        try:
            handle: WorkflowHandle[Steps, int] = await stage.start(Steps, pause, deletes, id=workflow_id)
            return handle
        except AuthorizationUnavailable:
            await asyncio.sleep(0.1)


@pytest.mark.rule("T6")
async def test_an_outage_and_a_key_rotation_lose_nothing_and_allow_nothing(
    own_authority: Callable[..., AuthorityProcess], remote: Remote, team: PolicyTeam
) -> None:
    authority = own_authority()
    authority.start()
    s = await remote(authority.url, policy_keys=None)
    deeds = s.path / "deeds"
    with workers(2, s, authority, team.keys, deeds):
        handles, refused = [], []

        async def load(rounds: int) -> None:
            for _ in range(rounds):
                handles.append(await begin(s, deletes=False, pause=0.2))
                refused.append(await begin(s, deletes=True, pause=0.1))
                await asyncio.sleep(0.1)

        await load(2)
        for role in ("grant", "credential"):
            await asyncio.to_thread(authority.run, "keys", "rotate", role, "--overlap", "1s", "--state", "state")
        await load(2)
        authority.kill()
        # Nothing new begins, and what has begun goes on.
        with pytest.raises(AuthorizationUnavailable):
            await s.start(Steps, 0.0, False)
        waiting = asyncio.ensure_future(load(2))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        await asyncio.to_thread(authority.start)
        await waiting
        await asyncio.sleep(0.5)
        await load(2)
        assert await asyncio.gather(*(handle.result() for handle in handles)) == [STEPS] * len(handles)
        for handle in refused:
            assert "records are kept" in (await failure_of(handle)).message
    done = sorted(deeds.read_text().splitlines())
    assert done == sorted(f"{handle.id} {number}" for handle in handles + refused for number in range(STEPS))
    signers = {parse(await grant_of(handle), Grant).kid for handle in handles}
    assert len(signers) == 2
