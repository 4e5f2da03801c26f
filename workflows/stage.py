"""What the scenes of the demo stand on: the folder, the clients, the worker, and how a run ended."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, StartWorkflowInput, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from exequatur import AuthorizationPlugin
from workflows.agent import OperationsAgent, Plan, Step
from workflows.ledger import Ledger
from workflows.processes import Child, Processes
from workflows.terminal import Terminal
from workflows.worker import READY

QUEUE = "operations"
OBSERVED_QUEUE = "operations-observed"
PATIENCE = 150.0
"""Seconds after which what should have happened did not; a process may take a minute to start on a busy machine."""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        how: ``completed``, or the type of its failure.
        message: Of the failure.
        policies: Ids of the policies that a denial names.
    """

    how: str
    message: str = ""
    policies: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.how} by {', '.join(self.policies)}" if self.policies else self.how

    def is_(self, how: str, policy: str | None = None) -> bool:
        """Whether it ended so, by this policy and no other."""
        return self.how == how and self.policies == ((policy,) if policy else ())


@dataclass
class Stage:
    """What a scene uses."""

    folder: Path
    target: str
    terminal: Terminal
    processes: Processes
    plugin: AuthorizationPlugin
    client: Client
    """With the plugin, on behalf of the agent."""
    stranger: Client
    """Of somebody without the plugin."""
    ledger: Ledger
    worker: Child
    observer: Child

    @property
    def policies(self) -> Path:
        return self.folder / "policies"

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def journals(self) -> list[Path]:
        return sorted((self.folder / "state" / "journal").glob("*.db"))

    def say(self, text: str) -> None:
        self.terminal.say(text)

    def fact(self, text: str) -> None:
        self.terminal.fact(text)

    async def decide(self, workflow_id: str, *steps: Step, client: Client | None = None, queue: str = QUEUE) -> Ending:
        """Let an agent run through these steps."""
        handle = await (client or self.client).start_workflow(
            OperationsAgent.run, Plan(list(steps)), id=workflow_id, task_queue=queue
        )
        return await self.end_of(handle)

    async def end_of(self, handle: WorkflowHandle[Any, Any]) -> Ending:
        """Wait for a run, keep its history in a file, and tell how it ended.

        Raises:
            TimeoutError: It has not ended in time.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                result = await handle.result()
            ending = Ending("completed", ", ".join(map(str, result if isinstance(result, list) else [result])))
        except WorkflowFailureError as err:
            ending = _failure(err)
        except TimeoutError:
            raise TimeoutError(f"{handle.id} did not end within {PATIENCE:g} seconds") from None
        history = await self.stranger.get_workflow_handle(handle.id).fetch_history()
        (self.folder / "histories" / f"{handle.id}.json").write_text(history.to_json(), encoding="utf-8")
        self.fact(f"{handle.id}: {ending}" + (f": {ending.message}" if ending.message else ""))
        return ending

    async def until(self, what: str, happened: Callable[[], bool]) -> float:
        """Wait until something happens, and return how many seconds it took.

        Raises:
            TimeoutError: It did not happen in time.
        """
        begun = time.monotonic()
        while not happened():
            if time.monotonic() - begun > PATIENCE:
                raise TimeoutError(f"Waited {PATIENCE:g} seconds in vain for this: {what}")
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    def refunds(self) -> list[tuple[str, Decimal]]:
        return self.ledger.refunds()

    def show_ledger(self) -> None:
        refunds = self.refunds()
        paid = ", ".join(f"{amount} of {order}" for order, amount in refunds) or "none"
        self.fact(f"ledger.db, refunds: {paid}")

    def start_worker(self, name: str, *more: str, queue: str = QUEUE) -> Child:
        """Start a worker process with the plugin."""
        places = {
            "--target": self.target,
            "--task-queue": queue,
            "--ledger": self.ledger.path,
            "--exports": self.exports,
            "--policies": self.policies,
            "--state-dir": self.folder / "state",
        }
        arguments = [part for name_and_value in places.items() for part in map(str, name_and_value)]
        return self.processes.python(name, "workflows.worker", *arguments, *more)

    async def ready(self, child: Child, text: str = READY) -> None:
        await self.until(f"{child.name} is ready", lambda: child.has_logged(text))


def _failure(error: WorkflowFailureError) -> Ending:
    """The innermost failure that has a type."""
    cause: BaseException | None = error
    found = Ending(type(error.cause).__name__, str(error.cause))
    while cause is not None:
        if isinstance(cause, ApplicationError):
            details = cause.details[0] if cause.details and isinstance(cause.details[0], dict) else {}
            named = tuple(policy["id"] for policy in details.get("policies", ()))
            found = Ending(cause.type or "ApplicationError", cause.message, named)
        cause = cause.__cause__
    return found


class WithHeaders(temporalio.client.Interceptor):
    """Starts workflows with given headers, as anybody can who reaches the server."""

    def __init__(self, headers: Mapping[str, Payload]) -> None:
        self._headers = headers

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        return _Outbound(next, self._headers)


class _Outbound(temporalio.client.OutboundInterceptor):
    def __init__(self, next: temporalio.client.OutboundInterceptor, headers: Mapping[str, Payload]) -> None:
        super().__init__(next)
        self._headers = headers

    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        input.headers = {**input.headers, **self._headers}
        return await super().start_workflow(input)


def with_headers(client: Client, headers: Mapping[str, Payload]) -> Client:
    """The client, adding these headers to every start."""
    return Client(client.service_client, data_converter=client.data_converter, interceptors=[WithHeaders(headers)])
