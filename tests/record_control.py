"""How the histories in ``tests/histories/control`` are recorded: ``python -m tests.record_control``.

They stay as they are, because what they prove is that a control workflow which runs goes on under a later version of
its code. The first run takes pages, refuses some, which leaves nothing in its history, and continues as new; the second
goes on with what it was given.
"""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur.control.publishing import PASSTHROUGH
from exequatur.control.state import PUBLISH, TASK_QUEUE, WORKFLOW_ID, Kept, Published
from exequatur.control.workflow import Control
from exequatur.revocation.entry import revocation
from exequatur.revocation.feed import Feed
from exequatur.statements.jws import sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import RevocationHead
from exequatur.statements.trust import Anchor, TrustStore

HISTORIES = Path(__file__).parent / "histories" / "control"
AUD = "exequatur.local/default"
RUNNER = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH))
_LONG = 40
"""Events after which the server suggests to continue as new."""
_BEGAN = 1_790_000_000.0

_key = SigningKey.generate()
_ISSUER = "dev:recorder"


def _page(feed: Feed, after: int, upto: int, *, key: SigningKey = _key) -> Published:
    claims = RevocationHead(iss=_ISSUER, aud=AUD, iat=_BEGAN + feed.version, version=feed.version, head=feed.link)
    lines = [entry.line.decode() for entry in feed.entries[after:upto]]
    return Published(sign(claims, key).text, after, lines, upto < feed.version)


async def _publish(handle: WorkflowHandle[Any, Any], page: Published) -> bool:
    """Whether it was taken."""
    try:
        await handle.execute_update(PUBLISH, page, result_type=int)
    except WorkflowUpdateFailedError:
        return False
    return True


async def record() -> None:
    """Run the scenario on a dev server of its own and write down the histories."""
    HISTORIES.mkdir(parents=True, exist_ok=True)
    limit = f"limit.historyCount.suggestContinueAsNew={_LONG}"
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=shutil.which("temporal"), dev_server_extra_args=["--dynamic-config-value", limit]
    )
    try:
        await _scenario(server.client)
    finally:
        await server.shutdown()


async def _scenario(client: Client) -> None:
    anchor = Anchor(kid=_key.kid, x=_key.x, typ=(RevocationHead.typ,), iss=_ISSUER, nbf=0.0)
    kept = Kept(TrustStore([anchor]).to_jwks().decode(), AUD)
    handle = await client.start_workflow(Control.run, kept, id=WORKFLOW_ID, task_queue=TASK_QUEUE)
    feed = Feed().extended(
        (
            revocation(workflow="order-7", reason="recorded", at=_BEGAN),
            revocation(everything=True, reason="пожар", at=_BEGAN + 1, until=_BEGAN + 60),
            revocation(lifts=1, reason="it was not", at=_BEGAN + 2),
        )
    )
    # Two of the same that come with one workflow task: the second finds that the first was taken.
    both = [asyncio.ensure_future(_publish(handle, _page(feed, 0, 3))) for _ in range(2)]
    await asyncio.sleep(1)
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[Control], workflow_runner=RUNNER):
        assert sorted(await asyncio.gather(*both)) == [False, True]
        assert not await _publish(handle, _page(feed, 3, 3, key=SigningKey.generate()))
        assert not await _publish(handle, replace(_page(feed, 3, 3), after=2))
        two = feed.extended(revocation(activity=name, reason="recorded", at=_BEGAN + 3) for name in "ab")
        assert await _publish(handle, _page(two, 3, 4))  # more to come
        assert await _publish(handle, _page(two, 4, 5))
        first = (await handle.describe()).run_id
        grown = two
        while (await handle.describe()).run_id == first:
            grown = grown.extended([revocation(key="a key", reason="recorded", at=_BEGAN + grown.version)])
            assert await _publish(handle, _page(grown, grown.version - 1, grown.version))
        grown = grown.extended([revocation(worker="one", reason="recorded", at=_BEGAN + grown.version)])
        assert await _publish(handle, _page(grown, grown.version - 1, grown.version))
        await _write("first", client.get_workflow_handle(WORKFLOW_ID, run_id=first))
        await _write("second", handle)


async def _write(name: str, handle: WorkflowHandle[Any, Any]) -> None:
    history = json.loads((await handle.fetch_history()).to_json())
    (HISTORIES / f"{name}.json").write_text(json.dumps(history, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    asyncio.run(record())
