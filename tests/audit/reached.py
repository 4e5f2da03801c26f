"""Real runs that are sent messages and send some, for the audit to look at.

:func:`record` runs them on a real server, as :mod:`tests.audit.runs` does the others.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import workflow
from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError, WorkflowUpdateFailedError

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Settings
    from tests.audit.runs import Runs
    from tests.gate.boxes import Again, Box, Busy, Dynamic, Late, carried, note, permit, refused, with_headers
    from tests.gate.conftest import BOT, Stage
    from tests.gate.test_nexus import Caller, Case, Opener, charge, endpoint_for, serving
    from tests.gate.test_nexus import Parent as CallsFromBelow
    from tests.gate.test_signals import Listener, Reporter, Sender

TIMEOUT = timedelta(seconds=60)
POLICIES = """
@id("all") permit(principal, action, resource);
@id("calm") @reason("no shouting") forbid(principal, action == Action::"workflow.signal", resource)
when { context.message.sender like "shouter*" };
@id("no-notes-below") forbid(principal, action == Action::"workflow.child", resource)
when { context.activity.type == "nexus:front.desk/note_in_a_thread" };
@id("no-headers") @reason("headers are closed") forbid(principal, action == Action::"nexus.start", resource)
when { context.nexus.operation == "headers" };
"""


@workflow.defn
class Locally:
    """Its requests leave no event, so that what they have heard is not recorded."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.done = 0

    @workflow.signal
    def put(self, text: str) -> None:
        self.texts.append(text)

    @workflow.query
    def count(self) -> int:
        return self.done

    @workflow.run
    async def run(self) -> int:
        while self.done < 3:
            await workflow.wait_condition(lambda: len(self.texts) > self.done)
            await workflow.execute_local_activity(note, self.texts[self.done], start_to_close_timeout=TIMEOUT)
            self.done += 1
        await workflow.execute_activity(note, "all", start_to_close_timeout=TIMEOUT)
        return self.done


WORKFLOWS: list[type] = [
    Again, Box, Busy, Dynamic, Late, Locally, Sender, Listener, Reporter, Caller, Case, Opener, CallsFromBelow,
]  # fmt: skip


async def record(target: str, folder: Path) -> Runs:
    """Run everything once."""
    runs = Runs(folder / "state")
    (folder / "policies").mkdir(parents=True)
    (folder / "policies" / "main.cedar").write_text(POLICIES)
    with ThreadPoolExecutor(20) as pool:
        enforcing, observing = [
            await _stage(target, folder, pool, Settings(mode=mode, open_messages=("signal:lat?",)))
            for mode in ("enforce", "observe")
        ]
        recorder = _Recorder(runs, enforcing)
        async with (
            enforcing.worker(WORKFLOWS, [note, charge], **serving(enforcing)),
            observing.worker(WORKFLOWS, [note]),
        ):
            await asyncio.gather(
                recorder.busy("busy", enforcing),
                recorder.busy("observed", observing),
                recorder.again(),
                recorder.late(),
                recorder.locally(),
                recorder.senders(),
                recorder.family(),
                recorder.callers(),
            )
    return runs


async def _stage(target: str, folder: Path, pool: ThreadPoolExecutor, settings: Settings) -> Stage:
    plugin = AuthorizationPlugin.embedded(
        folder / "policies", state_dir=folder / "state", principal=BOT, settings=settings
    )
    client = await Client.connect(target, plugins=[plugin])
    return Stage(target, folder, plugin, client, await Client.connect(target), pool)


class _Recorder:
    def __init__(self, runs: Runs, stage: Stage) -> None:
        self._runs, self._stage = runs, stage

    async def _keep(self, name: str, workflow_id: str, run_id: str | None = None) -> None:
        handle = self._stage.plain.get_workflow_handle(workflow_id, run_id=run_id)
        with suppress(WorkflowFailureError, WorkflowContinuedAsNewError):
            await handle.result(follow_runs=False)
        self._runs.histories[name] = (await handle.fetch_history()).to_json()

    async def busy(self, name: str, s: Stage) -> None:
        """Messages of every kind: permitted, open, without a permit, with a used one, with nobody to hear them."""
        h = await s.start(Busy.run, id=_id(name))
        await h.signal(Busy.put, "one")
        once = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "two")))
        await once.signal("put", "two")
        await once.signal("put", "two")
        await s.plain.get_workflow_handle(h.id).signal("put", "nobody permits this")
        await h.query(Busy.count)
        await h.execute_update(Busy.swap, "three")
        await h.execute_update(Busy.checked, "four")
        if name == "busy":
            await refused(s.plain.get_workflow_handle(h.id).execute_update("swap", "nobody permits this"))
            await refused(s.plain.get_workflow_handle(h.id).execute_update("checked", "nobody permits this"))
        with suppress(WorkflowUpdateFailedError):
            await h.execute_update(Busy.checked, "bad")
        await h.signal("unheard", "there is no handler")
        await h.signal(Busy.close)
        await self._keep(name, h.id)

    async def again(self) -> None:
        """A permit that was used before it continued as new."""
        s = self._stage
        h = await s.start(Again.run, [], id=_id("again"))
        once = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "one")))
        await once.signal("put", "one")
        await h.execute_update(Again.swap, "here")
        await h.signal(Again.go_on)
        await self._keep("again", h.id, h.result_run_id)
        await once.signal("put", "one")
        await s.client.get_workflow_handle(h.id).execute_update(Again.swap, "there")
        await s.client.get_workflow_handle(h.id).signal(Again.close)
        await self._keep("again.last", h.id)

    async def late(self) -> None:
        """A handler that is registered after its signal came, which needs no permit."""
        h = await self._stage.start(Late.run, id=_id("late"))
        await self._stage.plain.get_workflow_handle(h.id).signal("late", "first")
        await h.signal("put", "now")
        await h.signal("close")
        await self._keep("late", h.id)

    async def locally(self) -> None:
        h = await self._stage.start(Locally.run, id=_id("locally"))
        for number in range(3):
            await h.signal(Locally.put, str(number))
            for _ in range(1000):
                if await h.query(Locally.count) > number:
                    break
                await asyncio.sleep(0.02)
        await self._keep("locally", h.id)

    async def senders(self) -> None:
        """Signals between workflows, one of them denied."""
        s = self._stage
        box = await s.start(Box.run, id=_id("box"))
        for name in ("sender", "shouter"):
            sender = await s.start(Sender.run, box.id, None, [name], id=_id(name))
            await self._keep(name, sender.id)
        await box.signal(Box.close)
        await self._keep("box", box.id)

    async def family(self) -> None:
        h = await self._stage.start(Listener.run, id=_id("listener"))
        await self._keep("listener", h.id)

    async def callers(self) -> None:
        """Nexus operations: allowed, denied, of a child, and a start with a signal."""
        s = self._stage
        endpoint = await endpoint_for(s)
        key = uuid.uuid4().hex
        called: Sequence[tuple[str, Any, list[Any]]] = (
            ("caller", Caller.run, [endpoint, "note", key]),
            ("caller.denied", Caller.run, [endpoint, "headers", key]),
            ("opener", Opener.run, [key, s.queue]),
        )
        for name, run, args in called:
            h = await s.start(run, *args, id=_id(name))
            await self._keep(name, h.id)
        await self._keep("opener.case", f"case-{key}")
        for name, operation in (("below", "note"), ("below.denied", "note_in_a_thread")):
            h = await s.start(CallsFromBelow.run, endpoint, operation, key, 1, id=_id(name))
            await self._keep(f"{name}.parent", h.id)
            history = await s.plain.get_workflow_handle(h.id).fetch_history()
            [child] = [
                event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
                for event in history.events
                if event.HasField("child_workflow_execution_started_event_attributes")
            ]
            await self._keep(name, child)


def _id(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"
