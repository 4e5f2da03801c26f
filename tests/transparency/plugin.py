"""A pytest plugin for the SDK's test suite: a real server of this machine, and in every client the gate.

Loaded with ``-p tests.transparency.plugin`` in the SDK's folder. ``TRANSPARENCY_COUNTS`` names the file that the
counts are written to; ``TRANSPARENCY_GATED`` set to 1 adds the plugin under a policy that permits everything.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import temporalio.client
import temporalio.testing
import temporalio.worker
import temporalio.worker._activity as activities

GATED = os.environ.get("TRANSPARENCY_GATED") == "1"
COUNTS = os.environ.get("TRANSPARENCY_COUNTS")
STATE = Path(tempfile.mkdtemp(prefix="exequatur-transparency-")) / "state"

_bodies: Counter[str] = Counter()


def _count_bodies() -> None:
    """Count how often the SDK itself runs an activity: behind every interceptor."""
    run = activities._ActivityInboundImpl.execute_activity

    @functools.wraps(run)
    async def counted(self: Any, input: Any) -> Any:
        _bodies["executions"] += 1
        return await run(self, input)

    activities._ActivityInboundImpl.execute_activity = counted  # type: ignore[method-assign]


def _use_the_server_that_is_here() -> None:
    start = temporalio.testing.WorkflowEnvironment.start_local

    @functools.wraps(start)
    async def here(*args: Any, **options: Any) -> Any:
        options["dev_server_existing_path"] = shutil.which("temporal")
        options.pop("dev_server_download_version", None)
        options.setdefault("dev_server_log_level", "error")
        return await start(*args, **options)

    temporalio.testing.WorkflowEnvironment.start_local = here  # type: ignore[method-assign]


def _add_the_gate() -> None:
    from exequatur import AuthorizationPlugin, Principal

    policies = STATE.parent / "policies"
    policies.mkdir()
    (policies / "all.cedar").write_text('@id("all") permit(principal, action, resource);\n')
    gate = AuthorizationPlugin.embedded(policies, state_dir=STATE, principal=Principal("Agent", "sdk"))
    client, replayer = temporalio.client.Client.__init__, temporalio.worker.Replayer.__init__

    def with_gate(plugins: Any) -> list[Any]:
        return [*(each for each in plugins or () if each is not gate), gate]

    @functools.wraps(client)
    def connected(self: Any, *args: Any, **options: Any) -> None:
        client(self, *args, **options | {"plugins": with_gate(options.get("plugins"))})

    @functools.wraps(replayer)
    def replaying(self: Any, **options: Any) -> None:
        replayer(self, **options | {"plugins": with_gate(options.get("plugins"))})

    temporalio.client.Client.__init__ = connected  # type: ignore[method-assign]
    temporalio.worker.Replayer.__init__ = replaying  # type: ignore[method-assign]


def _evidence() -> Counter[str]:
    """What the journals of the run hold, by kind; receipts by outcome as well."""
    from exequatur.lineage.record import read
    from exequatur.statements.jws import parse
    from exequatur.statements.models import Receipt

    found: Counter[str] = Counter()
    for file in (STATE / "journal").glob("*.db"):
        for record in read(file):
            found[record.kind] += 1
            if record.kind == "decision" and record.request:
                found["requests"] += 1
            if record.kind == "receipt":
                found[f"receipt {parse(record.body.decode(), Receipt).claims.outcome}"] += 1
    return found


_use_the_server_that_is_here()
_count_bodies()
if GATED:
    _add_the_gate()


def pytest_unconfigure() -> None:
    if COUNTS:
        Path(COUNTS).write_text(json.dumps({**_bodies, **(_evidence() if GATED else {})}))
    shutil.rmtree(STATE.parent, ignore_errors=True)
