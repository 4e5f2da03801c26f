"""A stage for scenarios: a folder of policies, a state folder, a plugin, clients with and without it, and workers.

Workflows and activities stand at the top level of the test modules. The workflow sandbox passes those modules through,
so a workflow module may use :mod:`pytest` and the helpers of this one; everything else is sandboxed as usual.
Activities say that they ran with :func:`happened`, which a test reads with :func:`deeds`: a refusal is proven by what
did not happen.
"""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import temporalio.client
import temporalio.worker
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur import AuthorizationPlugin, Principal, Settings
from exequatur.gate.issuing import GrantOrder
from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, START_HEADER, payloads_digest, start_header
from exequatur.lineage.record import Record, read
from exequatur.statements.jws import Token, parse, sign
from exequatur.statements.keys import Signer
from exequatur.statements.models import Grant, Receipt, Reuse, Statement
from exequatur.statements.packing import unpack

PERMIT_ALL = '@id("all") permit(principal, action, resource);\n'
BOT = Principal("Agent", "ops-bot")

_deeds: dict[str, list[Any]] = defaultdict(list)


def happened(what: Any) -> None:
    """Called by an activity's body: it ran, in this process."""
    _deeds[activity.info().workflow_id or ""].append(what)


def deeds(workflow_id: str) -> list[Any]:
    """What the activities of a workflow did, in their order."""
    return list(_deeds[workflow_id])


def unique(prefix: str = "w") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def sandbox() -> SandboxedWorkflowRunner:
    """The usual sandbox, with the test modules passed through. The plugin adds what it needs itself."""
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules("tests", "pytest", "_pytest")
    )


async def failure_of(outcome: WorkflowHandle[Any, Any] | Awaitable[Any]) -> ApplicationError:
    """The innermost failure that a workflow ends with.

    Args:
        outcome: A handle, or an awaitable that gives the workflow's result.
    """
    with pytest.raises(WorkflowFailureError) as raised:
        await (outcome.result() if isinstance(outcome, WorkflowHandle) else outcome)
    error: BaseException = raised.value
    while isinstance(error.__cause__, FailureError):
        error = error.__cause__
    assert isinstance(error, ApplicationError), repr(error)
    return error


class StartHeaders(temporalio.client.Interceptor):
    """Puts headers on every start, as any client may."""

    def __init__(self, headers: Mapping[str, Payload]) -> None:
        self.headers = headers

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        headers = self.headers

        class Outbound(temporalio.client.OutboundInterceptor):
            async def start_workflow(self, input: temporalio.client.StartWorkflowInput) -> WorkflowHandle[Any, Any]:
                input.headers = {**input.headers, **headers}
                return await super().start_workflow(input)

        return Outbound(next)


class Scheduling(temporalio.worker.Interceptor):
    """A workflow worker that changes what its workflows ask for, or hides its own wishes behind a copied header.

    Args:
        activity: Gets the input of every activity before it is scheduled.
        child: Gets the input of every child workflow before it is started.
        continued: Gets the input of every continue-as-new.
    """

    def __init__(
        self,
        activity: Callable[[Any], None] = lambda _: None,
        child: Callable[[Any], None] = lambda _: None,
        continued: Callable[[Any], None] = lambda _: None,
    ) -> None:
        class Outbound(temporalio.worker.WorkflowOutboundInterceptor):
            def start_activity(self, input: Any) -> Any:
                activity(input)
                return super().start_activity(input)

            async def start_child_workflow(self, input: Any) -> Any:
                child(input)
                return await super().start_child_workflow(input)

            def continue_as_new(self, input: Any) -> NoReturn:
                continued(input)
                super().continue_as_new(input)

        class Inbound(temporalio.worker.WorkflowInboundInterceptor):
            def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        self._inbound = Inbound

    def workflow_interceptor_class(self, input: Any) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        return self._inbound


async def events(handle: WorkflowHandle[Any, Any]) -> list[HistoryEvent]:
    return list((await handle.fetch_history()).events)


async def start_headers(handle: WorkflowHandle[Any, Any]) -> dict[str, Payload]:
    """The headers that a run was started with."""
    first = (await events(handle))[0].workflow_execution_started_event_attributes
    return {name: payload for name, payload in first.header.fields.items() if name == START_HEADER}


async def activity_headers(handle: WorkflowHandle[Any, Any]) -> list[dict[str, Payload]]:
    """The headers of a run's activities, in the order in which they were scheduled."""
    return [
        {
            name: payload
            for name, payload in event.activity_task_scheduled_event_attributes.header.fields.items()
            if name == ACTIVITY_HEADER
        }
        for event in await events(handle)
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


def headed(*tokens: Token[Any] | str) -> dict[str, Payload]:
    """A start header of tokens."""
    return {START_HEADER: start_header([each if isinstance(each, str) else each.text for each in tokens])}


def receipt_in(payload: Payload) -> Receipt:
    """The receipt on a result's payload; not verified."""
    return parse(unpack(payload.metadata[RECEIPT])[-1], Receipt).claims


@dataclass
class Stage:
    """One plugin with its folders and clients."""

    target: str
    path: Path
    plugin: AuthorizationPlugin
    client: Client
    """Has the plugin."""
    plain: Client
    """Has no plugin."""
    executor: ThreadPoolExecutor
    queue: str = field(default_factory=lambda: unique("queue"))
    """Task queue that :meth:`worker` serves unless told otherwise."""

    @property
    def policies(self) -> Path:
        return self.path / "policies"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def write(self, text: str, name: str = "main.cedar") -> None:
        """Edit a policy file."""
        (self.policies / name).write_text(text)

    async def connect(self, *plugins: Any, **options: Any) -> Client:
        """Another client to the same server."""
        return await Client.connect(self.target, plugins=plugins, **options)

    @asynccontextmanager
    async def worker(
        self,
        workflows: Sequence[type] = (),
        activities: Sequence[Callable[..., Any]] = (),
        *,
        client: Client | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> AsyncIterator[Worker]:
        """Run a worker; with the plugin unless ``client`` says otherwise."""
        options.setdefault("workflow_runner", sandbox())
        options.setdefault("activity_executor", self.executor)
        async with Worker(
            client or self.client,
            task_queue=queue or self.queue,
            workflows=workflows,
            activities=activities,
            **options,
        ) as worker:
            yield worker

    async def start(self, workflow: Any, *args: Any, client: Client | None = None, **options: Any) -> Any:
        """Start a workflow on this stage's queue under a new id; gives its handle."""
        options.setdefault("id", unique())
        options.setdefault("task_queue", self.queue)
        # A workflow task that fails is tried for ever; a scenario is not to wait for that.
        options.setdefault("execution_timeout", timedelta(seconds=120))
        return await (client or self.client).start_workflow(workflow, args=args, **options)

    async def start_with(self, headers: Mapping[str, Payload], workflow: Any, *args: Any, **options: Any) -> Any:
        """Start a workflow without the plugin, with headers that the caller made up or copied."""
        client = await self.connect(interceptors=[StartHeaders(headers)])
        return await self.start(workflow, *args, client=client, **options)

    async def grant(
        self,
        workflow_type: str,
        workflow_id: str,
        *args: Any,
        reuse: Reuse = "once",
        signer: Signer | None = None,
        authorization: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Token[Grant]:
        """A grant as the authority issues it, or with other claims, or signed with another key.

        Args:
            workflow_type: For which type of workflow.
            workflow_id: For which workflow.
            args: The workflow's arguments.
            reuse: As in the statement.
            signer: Signs instead of the authority.
            authorization: Changes to ``authorization_details``.
            changes: Changes to the claims.
        """
        issuer: Any = self.plugin._authority
        order = GrantOrder(
            principal=BOT,
            namespace="default",
            workflow_type=workflow_type,
            workflow_id=workflow_id,
            task_queue=self.queue,
            input=payloads_digest(DataConverter.default.payload_converter.to_payloads(args)),
            reuse=reuse,
            start_delay=0,
        )
        claims = parse(await issuer.issue_grant(order), Grant).claims
        if authorization:
            changes["authorization_details"] = (claims.authorization.model_copy(update=dict(authorization)),)
        return sign(claims.model_copy(update=changes), signer or issuer._state.signer("grant"))

    def records(self, kind: str | None = None) -> list[Record]:
        """What all evidence journals of the state folder hold."""
        return [
            record
            for file in sorted((self.state / "journal").glob("*.db"))
            for record in read(file)
            if kind in (None, record.kind)
        ]

    def statements(self, kind: str, model: type[Statement]) -> list[Any]:
        """The claims of the statements in the journals, for example ``statements("receipt", Receipt)``."""
        return [parse(record.body.decode().partition("~")[0], model).claims for record in self.records(kind)]

    def receipts(self, handle: WorkflowHandle[Any, Any]) -> list[Receipt]:
        """The receipts of the run that this handle started, from the journals."""
        return [claims for claims in self.statements("receipt", Receipt) if claims.run_id == handle.result_run_id]


@pytest.fixture(scope="session")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32, thread_name_prefix="activity") as pool:
        yield pool


@pytest.fixture
def stage(target: str, tmp_path: Path, executor: ThreadPoolExecutor) -> Callable[..., Awaitable[Stage]]:
    """Sets a stage: ``await stage(policies, **settings)``; more than one in a test get folders of their own.

    ``plugin=`` takes a plugin that is there already, ``client_options=`` what both clients are connected with, and
    ``state=`` the state folder of another stage to share it. The environment and ``exequatur.toml`` are not read.
    """
    count = 0

    async def set_stage(
        policies: str = PERMIT_ALL,
        *,
        principal: Principal | None = BOT,
        state: Path | None = None,
        plugin: AuthorizationPlugin | None = None,
        client_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Stage:
        nonlocal count
        count += 1
        path = tmp_path / f"stage{count}"
        (path / "policies").mkdir(parents=True)
        (path / "policies" / "main.cedar").write_text(policies)
        if state is not None:
            (path / "state").symlink_to(state, target_is_directory=True)
        plugin = plugin or AuthorizationPlugin.embedded(
            path / "policies",
            state_dir=state or path / "state",
            principal=principal,
            settings=Settings(**settings),
        )
        options = client_options or {}
        return Stage(
            target=target,
            path=path,
            plugin=plugin,
            client=await Client.connect(target, plugins=[plugin], **options),
            plain=await Client.connect(target, **options),
            executor=executor,
        )

    return set_stage
