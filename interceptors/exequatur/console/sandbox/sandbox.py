"""One visitor's sandbox: policies, keys, evidence, a worker and runs that nobody else has.

Rules, numbered as the code marks them:

B1  Everything that a sandbox writes is in its own folder, which only this user can read; ending it removes the folder.
B2  Its task queue and workflow ids begin with random bits that only its visitor's page is told.
B3  How many runs and audits it has, how many at a time and how long is bounded; the server ends what is late.
B4  What ends while something is asked of it leaves nothing running: neither a run nor who follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from exequatur.approvals import approve, list_challenges, reject
from exequatur.console.sandbox.application import Application, read_inputs
from exequatur.console.sandbox.auditing import compared, listed
from exequatur.console.sandbox.checking import Checked
from exequatur.console.sandbox.editing import Editing
from exequatur.console.sandbox.limits import PREFIX, Limits, SandboxError
from exequatur.console.sandbox.policies import Policies
from exequatur.console.sandbox.run import JournalTail, Run, answers
from exequatur.console.sandbox.tampering import Document
from exequatur.console.sandbox.worker import SandboxWorker
from exequatur.errors import ChallengeError
from exequatur.failures import AuthorizationDenied
from exequatur.identity.acting import acting_as

logger = logging.getLogger("exequatur")

_RPC = timedelta(seconds=5)
"""How long the server may take to answer."""
_AWAY = "The Temporal server does not answer. Nothing was done; try again when it is back."
_REVOKED = "revoked by the visitor of the demo page"


class Sandbox:
    """A sandbox; made by :meth:`open`, used on one event loop.

    Args:
        folder: Its own, empty.
        application: What runs in it.
        client: Of the server, without the plugin.
        limits: Its bounds.
        checks: How many checks of policies may run at a time, in all sandboxes together.
    """

    def __init__(
        self, folder: Path, application: Application, client: Client, limits: Limits, checks: asyncio.Semaphore
    ) -> None:
        self.name = f"{PREFIX}{secrets.token_urlsafe(12)}"  # B2
        self.tag = hashlib.sha256(self.name.encode()).hexdigest()[:12]
        """What links to it call it, so that a link that is passed on gives the name to nobody (B2)."""
        self.opened = self.used = time.monotonic()
        self.ended = False
        self.version = 0
        self.streams = 0
        self.runs: list[Run] = []
        self.audits = 0
        self.editing: Editing
        self._numbered = 0
        self._folder = folder
        self._application = application
        self._plain = client
        self._limits = limits
        self._checks = checks
        self._news = asyncio.Event()
        self._auditing = asyncio.Lock()
        self._tail = JournalTail(folder / "state" / "journal")
        self._facts: list[dict[str, str]] = []
        self._worker: SandboxWorker | None = None

    @classmethod
    async def open(
        cls, folder: Path, application: Application, client: Client, limits: Limits, checks: asyncio.Semaphore
    ) -> Sandbox:
        """Make a sandbox and start its worker.

        Raises:
            SandboxError: The server does not answer.
            ExequaturError: The application's policies cannot be used.
        """
        made = cls(folder, application, client, limits, checks)
        try:
            await made._start()
        except BaseException:
            await made.end()
            raise
        return made

    async def _start(self) -> None:
        original = await asyncio.to_thread(Policies.read, self._application.policies)
        folder, files = self._folder / "policies", self._application.files
        self.editing = await asyncio.to_thread(
            Editing, folder, original, files, self._limits, self._checks, self._in_force
        )
        await self._knock()
        self._worker = await asyncio.to_thread(
            SandboxWorker, self._folder, self.name, self._application, self._plain, self._limits, self._changed
        )
        self._worker.start()
        await self._look_at_facts()

    @property
    def worker(self) -> SandboxWorker:
        """Its worker.

        Raises:
            SandboxError: It does not work any more.
        """
        if self._worker is None or not self._worker.working:
            raise SandboxError("The worker of this sandbox has ended. Reset it to begin anew.", "gone")
        return self._worker

    def _in_force(self) -> str | None:
        return self._worker.plugin.in_force.digest if self._worker is not None and self._worker.working else None

    async def end(self) -> None:
        """End everything, and leave nothing behind."""
        if self.ended:
            return
        self.ended = True
        self._changed()
        for run in self.runs:
            await run.leave()
        still = [run for run in self.runs if run.open]
        if still and await answers(self._plain):
            await asyncio.gather(*map(self._terminate, still))
        if self._worker is not None:
            await self._worker.stop()
        await self._remove()

    async def _terminate(self, run: Run) -> None:
        with contextlib.suppress(RPCError):
            await self._plain.get_workflow_handle(run.workflow_id).terminate("the sandbox ended", rpc_timeout=_RPC)

    @property
    def busy(self) -> bool:
        """Whether a run is open."""
        return any(run.open for run in self.runs)

    def _changed(self) -> None:
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seen: int, patience: float) -> bool:
        """Wait for something new to see.

        Args:
            seen: The version that was seen.
            patience: Seconds.

        Returns:
            Whether there is.
        """
        if self.version == seen and not self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()
        return self.version != seen

    async def start(self, inputs: object) -> Run:
        """Start a run.

        Args:
            inputs: From outside: anything.

        Raises:
            SandboxError: An input is wrong, a bound is reached, or the server does not answer.
        """
        async with self._asked():
            planned = self._application.plan(read_inputs(self._application, inputs))
            await self._knock()
            self._use()
            if self._numbered >= self._limits.runs:  # [B3]
                raise SandboxError(
                    f"This sandbox has had its {self._limits.runs} runs. Reset it to begin anew.", "enough"
                )
            if sum(run.open for run in self.runs) >= self._limits.at_once:  # [B3]
                raise SandboxError("Wait until a run of yours has ended, or revoke it.", "busy")
            client = self.worker.client
            self._numbered = number = self._numbered + 1
            run = Run(
                number,
                planned,
                f"{self.name}-{number}",
                self._plain,
                self._tail,
                self._limits,
                self._changed,
                self._look_at_facts,
            )
            self.runs.append(run)
            self._changed()
            try:
                await self._begin(run, client)
            except BaseException:
                self.runs.remove(run)
                self._changed()
                raise
            return run

    async def _begin(self, run: Run, client: Client) -> None:
        """Start a run on the server, and follow it."""
        planned = run.planned
        try:
            with acting_as(planned.principal):
                handle = await client.start_workflow(
                    planned.workflow,
                    planned.argument,
                    id=run.workflow_id,
                    task_queue=self.name,
                    execution_timeout=timedelta(seconds=self._limits.run_seconds),  # B3
                    rpc_timeout=_RPC,
                )
        except AuthorizationDenied as error:
            await run.refuse(error.message)
            return
        except RPCError as error:
            logger.info("A run of the demo page was not started: %s", error)
            raise SandboxError(_AWAY, "away") from error
        if self.ended:  # [B4]
            await self._terminate(run)
            self._use()
        run.follow(handle)

    async def _knock(self) -> None:
        """See that the server is there.

        Raises:
            SandboxError: It is not.
        """
        if not await answers(self._plain):
            raise SandboxError(_AWAY, "away")

    async def _look_at_facts(self) -> None:
        """See what the activities have done."""
        try:
            facts = await asyncio.to_thread(self._application.facts, self._folder / "data")
        except Exception:  # the application's own code
            if not self.ended:
                logger.exception("The demo's application cannot tell what it has done")
            return
        found = [asdict(each) for each in facts]
        if found != self._facts:
            self._facts = found
            self._changed()

    def run(self, number: object) -> Run:
        """One of its runs.

        Raises:
            SandboxError: There is none of this number.
        """
        for run in self.runs:
            if isinstance(number, int) and not isinstance(number, bool) and run.number == number:
                return run
        raise SandboxError("This sandbox has no such run. Load the page again.", "gone")

    async def revoke(self, number: object) -> None:
        """Revoke what a run may do. What is running under it ends.

        Raises:
            SandboxError: There is no such run, or it has ended.
        """
        async with self._asked():
            run = self.run(number)
            if not run.open:
                raise SandboxError("This run has ended already: there is nothing to revoke.", "busy")
            if run.revoked:
                return
            run.revoked = True  # from here on, so that it is done once
            try:
                await asyncio.to_thread(self.worker.plugin.revoke, workflow=run.workflow_id, reason=_REVOKED)
            except BaseException:
                run.revoked = False
                raise
            finally:
                self._changed()

    async def answer(self, number: object, *, agree: bool) -> None:
        """Answer what a run asks people, as the application's approver.

        Raises:
            SandboxError: There is no such run, or it asks nobody.
        """
        async with self._asked():
            run = self.run(number)
            if self._application.approver is None:
                raise SandboxError("This application has nobody who could agree.", "input")
            await self._knock()
            say = approve if agree else reject
            try:
                plugin = self.worker.plugin
                listing = await list_challenges(self._plain, plugin, workflow_id=run.workflow_id)
                if not listing.challenges:
                    raise SandboxError("This run does not wait for anybody.", "busy")
                await say(
                    self.worker.client,
                    plugin,
                    listing.challenges[0],
                    principal=self._application.approver,
                    reason="answered on the demo page",
                )
            except AuthorizationDenied as error:
                raise SandboxError(f"The policies do not let them answer: {error.message}", "input") from None
            except (ChallengeError, RPCError) as error:
                logger.info("A run of the demo page was not answered: %s", error)
                raise SandboxError("It could not be answered just now. Try again.", "busy") from error
            run.answered = "agreed" if agree else "rejected"
            self._changed()

    async def check(self, texts: object) -> Checked:
        """Check edited policies without putting them in force; see :class:`Editing`."""
        async with self._asked():
            return await self.editing.check(texts)

    async def apply(self, texts: object) -> Checked:
        """Check edited policies, and put them in force if they are good; see :class:`Editing`."""
        async with self._asked():
            try:
                return await self.editing.apply(texts)
            finally:
                self._changed()

    async def restore(self) -> None:
        """Put the original policies in force again; see :class:`Editing`."""
        async with self._asked():
            await self.editing.restore()
            self._changed()

    def events(self, number: object) -> dict[str, Any]:
        """The history of a run that has ended, and what can be done to a copy of it.

        Raises:
            SandboxError: There is no such run, it is open, or it has no history.
        """
        run = self.run(number)
        return {"run": run.number, "title": run.planned.title, "events": listed(self._document(run))}

    async def tamper(self, number: object, event_id: object, kind: object, text: object = None) -> dict[str, Any]:
        """Change a copy of a run's history, and have both audited.

        Raises:
            SandboxError: There is no such run or event, it is open, or this cannot be done to the event.
        """
        async with self._asked():
            document = self._document(self.run(number))
            if self.audits >= self._limits.audits:  # [B3]
                raise SandboxError("This sandbox has had enough audits. Reset it to begin anew.", "enough")
            self.audits += 1
            if type(event_id) is not int or not isinstance(kind, str) or not isinstance(text, str | None):
                raise SandboxError("Choose an event, and what to do to it.", "input")
            state = self._folder / "state"
            async with self._auditing:
                return await asyncio.to_thread(compared, document, event_id, kind, text, state, self._limits)

    def _document(self, run: Run) -> Document:
        if run.open:
            raise SandboxError("This run is still open. Its history can be tampered with when it has ended.", "busy")
        history = run.history()
        if not history.events:
            raise SandboxError("This run was never started, so it has no history.", "busy")
        document: Document = history.to_json_dict()
        return document

    def view(self) -> dict[str, Any]:
        """All that its visitor sees, as plain data."""
        now = time.monotonic()
        return {
            "name": self.name,
            "tag": self.tag,
            "version": self.version,
            "ended": self.ended,
            "runs": [self._view_of(run) for run in reversed(self.runs)],
            "facts": self._facts,
            "policies": {"digest": self._in_force(), "changed": self.editing.changed},
            "left": {
                "runs": self._limits.runs - self._numbered,
                "edits": self._limits.edits - self.editing.count,
                "seconds": max(0, round(self.opened + self._limits.age - now)),
            },
        }

    def _view_of(self, run: Run) -> dict[str, Any]:
        return {
            "number": run.number,
            "workflow_id": run.workflow_id,
            "run_id": run.run_id,
            "title": run.planned.title,
            "principal": str(run.planned.principal),
            "started": run.started,
            "open": run.open,
            "revoked": run.revoked,
            "answered": run.answered,
            "problem": run.problem,
            **asdict(run.view),
        }

    def _use(self) -> None:
        if self.ended:
            raise SandboxError("This sandbox has ended. Load the page again to begin anew.", "gone")
        self.used = time.monotonic()

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        """Something is asked of it. When it ends meanwhile, that is why it fails."""
        self._use()
        try:
            yield
        except Exception:
            self._use()  # [B4]
            raise
        finally:
            if self.ended:  # [B4] what was still at work may have written once more
                await self._remove()

    async def _remove(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)  # [B1]
