"""The worker of one sandbox, with a plugin whose authority, policies and evidence nobody else has.

Rules, numbered as the code marks them:

O1  It has keys of its own: a grant of one sandbox is worth nothing in another, nor in what the console watches.
O2  It is configured by what stands here; the environment and ``exequatur.toml`` are for something else.
O3  What it signs, and what the server writes down of it, names neither this machine, nor this process, nor its files:
    visitors see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from temporalio import workflow
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.converter import DataConverter, PayloadConverter
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur.console.sandbox.application import Application, Program
from exequatur.console.sandbox.limits import PREFIX, Limits
from exequatur.plugin import PASSTHROUGH, AuthorizationPlugin
from exequatur.settings import Settings

logger = logging.getLogger("exequatur")

_NAME = "sandbox"
"""What it calls itself."""
_THREADS = 4
_STOPPING = 2.0
"""Seconds that the worker has for ending."""


class _Denials(logging.Filter):
    """Keeps from the log what the SDK says of an activity that was denied in a sandbox: there it is what is shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        of = getattr(record, "temporal_activity", None)
        return not (isinstance(of, dict) and str(of.get("task_queue")).startswith(PREFIX))


_DENIALS = _Denials()


class _Client(Client):
    """A client that does not say which process it is of."""

    @property
    def identity(self) -> str:
        return _NAME  # [O3]


def _untraced(converter: DataConverter) -> DataConverter:
    """The same, whose failures have no stack traces."""

    class Untraced(converter.failure_converter_class):  # type: ignore[name-defined, misc]
        def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
            super().to_failure(exception, payload_converter, failure)
            told: Failure | None = failure
            while told is not None:
                told.stack_trace = ""  # [O3]
                told = told.cause if told.HasField("cause") else None

    return replace(converter, failure_converter_class=Untraced)


class SandboxWorker:
    """A worker.

    Args:
        folder: Of the sandbox, with ``policies`` in it; the rest is made.
        queue: Its task queue.
        application: What it runs.
        plain: A client of the server, without the plugin.
        limits: Of the sandbox.
        ended: Called when it has ended.
    """

    def __init__(
        self,
        folder: Path,
        queue: str,
        application: Application,
        plain: Client,
        limits: Limits,
        ended: Callable[[], None],
    ) -> None:
        self.data = folder / "data"
        self.state = folder / "state"
        self.data.mkdir()
        settings = Settings(  # O2
            worker_name=_NAME,  # [O3]
            approval_wait=timedelta(seconds=limits.run_seconds),
            policy_poll_interval=timedelta(milliseconds=150),
        )
        self.plugin = AuthorizationPlugin.embedded(folder / "policies", state_dir=self.state, settings=settings)  # O1
        self.client = _Client(
            plain.service_client,
            namespace=plain.namespace,
            data_converter=_untraced(application.converter),
            plugins=[self.plugin],
        )
        self._queue = queue
        self._ended = ended
        self._program = application.program(self.data)
        _warm_up(self._program)
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="exequatur-demo")
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, on this event loop."""
        logging.getLogger("temporalio.activity").addFilter(_DENIALS)
        self._worker = Worker(
            self.client,
            task_queue=self._queue,
            identity=_NAME,  # [O3]
            workflows=self._program.workflows,
            activities=self._program.activities,
            activity_executor=self._executor,
            max_concurrent_activities=_THREADS,
            max_concurrent_workflow_tasks=2,
            max_concurrent_activity_task_polls=2,
            max_concurrent_workflow_task_polls=2,
            max_cached_workflows=8,
            graceful_shutdown_timeout=timedelta(0),
        )
        self._working = asyncio.get_running_loop().create_task(self._worker.run())
        self._working.add_done_callback(self._stopped)

    @property
    def working(self) -> bool:
        """Whether it works."""
        return self._working is not None and not self._working.done()

    def _stopped(self, working: asyncio.Task[None]) -> None:
        if not working.cancelled() and (error := working.exception()) is not None:
            logger.error("The worker of a sandbox of the demo page ended", exc_info=error)
        self._ended()

    async def stop(self) -> None:
        """End it."""
        if self._worker is not None and self._working is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_STOPPING):
                    await self._worker.shutdown()
            self._working.cancel()
            await asyncio.wait([self._working], timeout=_STOPPING)
        self._executor.shutdown(wait=False, cancel_futures=True)


def _warm_up(program: Program) -> None:
    """Import what the SDK's workflow sandbox needs, apart from the event loop; the first time it takes seconds."""
    runner = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH))

    async def prepare() -> None:
        for each in program.workflows:
            runner.prepare_workflow(workflow._Definition.must_from_class(each))

    asyncio.run(prepare())
