"""The gate next to what else people put into clients and workers: codecs, storage, converters, interceptors, plugins.

Each scenario runs the same workflow, which does a bit of everything that Temporal has, in two runs and a child. Then it
looks at what was done, at what was proven, at the histories, and lets an auditor look at them.
"""

import asyncio
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import nexusrpc.handler
import opentelemetry.trace
import pytest
import temporalio.client
import temporalio.worker
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.duration_pb2 import Duration
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, TracingInterceptor, create_tracer_provider
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    ExternalStorage,
    PayloadCodec,
    SerializationContext,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.plugin import SimplePlugin
from temporalio.service import RPCError
from temporalio.worker import Replayer, SlotReleaseContext, Worker

from exequatur import AuthorizationPlugin, ConfigurationError, Settings, approve, list_challenges
from exequatur.audit.codec import decoded
from exequatur.audit.evidence import journals_in
from exequatur.audit.history import of_events
from exequatur.audit.report import Severity, Verdict
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.gate.slots import GatedSlots
from tests.asking import ENTITIES
from tests.gate.conftest import BOT, StartHeaders, deeds, failure_of, happened, sandbox, unique
from tests.gate.single import eventually

TIMEOUT = timedelta(seconds=60)
FAY = 'User::"fay"'
SECRET = "a-marker-in-plain-text"
POLICIES = """
@id("all") permit(principal, action, resource);
@id("two-person") @approval("finance, 1, 1h") @reason("finance has to agree")
  forbid(principal, action == Action::"pay", resource)
  unless { context has approvals && context.approvals.groups.contains("finance") };
@id("no-dropping") @reason("records are kept")
  forbid(principal, action == Action::"drop", resource) when { context.args.order.amount > 0 };
"""


@dataclass
class Order:
    amount: int
    text: str
    rounds: int = 0


class OrderModel(BaseModel):
    amount: int
    text: str
    rounds: int = 0


@dataclass(frozen=True)
class Does:
    """The activities for one type of order."""

    charge: Callable[..., Awaitable[Any]]
    weigh: Callable[..., Awaitable[Any]]
    wrap: Callable[..., Awaitable[Any]]
    pay: Callable[..., Awaitable[Any]]
    drop: Callable[..., Awaitable[Any]]

    @property
    def all(self) -> list[Callable[..., Any]]:
        return [self.charge, self.weigh, self.wrap, self.pay, self.drop]


def does(kind: Any) -> Does:
    """The activities, typed for one type of order."""

    @activity.defn
    async def charge(order: kind) -> kind:
        assert type(order) is kind
        with opentelemetry.trace.get_tracer("tests").start_as_current_span("charging"):
            happened("charge")
        return kind(amount=order.amount + 1, text=order.text, rounds=order.rounds)

    @activity.defn
    async def weigh(order: kind, twice: bool) -> kind:
        assert type(order) is kind
        happened("weigh")
        return kind(amount=order.amount * (2 if twice else 1), text=order.text, rounds=order.rounds)

    @activity.defn
    async def wrap(order: kind) -> list[Any]:
        """Fails after it said how far it was; the next attempt gives what it finds."""
        happened("wrap")
        if activity.info().attempt == 1:
            activity.heartbeat(order.text, {"so far": order.amount})
            raise ApplicationError("once more")
        return list(activity.info().heartbeat_details)

    @activity.defn
    async def pay(order: kind) -> str:
        assert type(order) is kind
        happened("pay")
        return f"paid {order.amount}"

    @activity.defn
    async def drop(order: kind) -> str:
        happened("drop")
        return "dropped"

    return Does(charge, weigh, wrap, pay, drop)


PLAIN, MODELS = does(Order), does(OrderModel)


class _Whole:
    """A bit of everything. The one who starts it says something to it, asks it, and sees to the approval."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.corrected: list[str] = []
        self.stage = "begun"

    async def flow(self, order: Any, does: Does, part: Any) -> dict[str, Any]:
        limits: Any = {"start_to_close_timeout": TIMEOUT}
        charged = await workflow.execute_activity(does.charge, order, **limits)
        weighed = await workflow.execute_local_activity(does.weigh, args=[charged, True], **limits)
        name = f"{workflow.info().workflow_id}-part-{order.rounds}"
        bigger = await workflow.execute_child_workflow(part, weighed, id=name)
        self.stage = "listening"
        # The child has told it something, too.
        await workflow.wait_condition(lambda: len(self.told) == 2 and len(self.corrected) == 1)
        try:
            await workflow.execute_activity(does.drop, bigger, **limits)
            refused = None
        except ActivityError as err:
            refused = getattr(err.cause, "type", None)
        self.stage = "paying"
        paid = await workflow.execute_activity(does.pay, bigger, **limits)
        if order.rounds:
            workflow.continue_as_new(type(order)(amount=bigger.amount, text=order.text, rounds=order.rounds - 1))
        # Once is enough: the server takes a second for it.
        wrapped = await workflow.execute_activity(
            does.wrap,
            bigger,
            heartbeat_timeout=TIMEOUT,
            retry_policy=RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=10)),
            **limits,
        )
        return {
            "amount": bigger.amount,
            "text": bigger.text,
            "wrapped": wrapped,
            "told": sorted(self.told),
            "corrected": self.corrected,
            "refused": refused,
            "paid": paid,
        }

    @workflow.signal
    def tell(self, what: str) -> None:
        self.told.append(what)

    @workflow.query
    def heard(self, mark: str) -> list[str]:
        return [mark, self.stage]

    @workflow.update
    def correct(self, what: str) -> str:
        self.corrected.append(what)
        return what[::-1]

    @correct.validator
    def check_correct(self, what: str) -> None:
        if not what:
            raise ValueError("nothing")


async def _part(order: Any, does: Does) -> Any:
    """What the child does: an activity, and a word to its parent."""
    done = await workflow.execute_activity(does.charge, order, start_to_close_timeout=TIMEOUT)
    parent = workflow.info().parent
    assert parent is not None
    await workflow.get_external_workflow_handle(parent.workflow_id).signal("tell", f"child: {order.text}")
    return done


@workflow.defn
class Part:
    @workflow.run
    async def run(self, order: Order) -> Order:
        done: Order = await _part(order, PLAIN)
        return done


@workflow.defn
class PartOfModels:
    @workflow.run
    async def run(self, order: OrderModel) -> OrderModel:
        done: OrderModel = await _part(order, MODELS)
        return done


@workflow.defn
class Whole(_Whole):
    @workflow.run
    async def run(self, order: Order) -> dict[str, Any]:
        return await self.flow(order, PLAIN, Part.run)


@workflow.defn
class WholeOfModels(_Whole):
    @workflow.run
    async def run(self, order: OrderModel) -> dict[str, Any]:
        return await self.flow(order, MODELS, PartOfModels.run)


WORKFLOWS: list[type] = [Whole, WholeOfModels, Part, PartOfModels]


@pytest.fixture
def plugin(tmp_path: Path) -> AuthorizationPlugin:
    folder = tmp_path / "composed"
    folder.mkdir()
    (folder / "main.cedar").write_text(POLICIES)
    (folder / "entities.json").write_text(ENTITIES)
    return AuthorizationPlugin.embedded(folder, state_dir=tmp_path / "state", principal=BOT, settings=Settings())


async def agree(client: Client, plugin: AuthorizationPlugin, workflow_id: str) -> None:
    """Somebody of finance agrees to what the workflow asks."""
    async with asyncio.timeout(20):
        while True:
            if found := (await list_challenges(client, plugin, workflow_id=workflow_id)).challenges:
                return await approve(client, plugin, found[0], principal=FAY)
            await asyncio.sleep(0.05)


async def accompany(client: Client, plugin: AuthorizationPlugin, workflow_id: str, text: str) -> None:
    """Say something to a run, ask it and see to the approval."""
    handle = client.get_workflow_handle(workflow_id)
    await handle.signal("tell", f"client: {text}")
    assert await handle.query("heard", text, result_type=list[str]) == [text, "listening"]
    assert await handle.execute_update("correct", text, result_type=str) == text[::-1]
    await agree(client, plugin, workflow_id)


async def listening(client: Client, workflow_id: str, run_id: str | None) -> str:
    """Wait until another run than this one listens; gives its id."""
    async with asyncio.timeout(20):
        while True:
            handle = client.get_workflow_handle(workflow_id)
            found = (await handle.describe()).run_id
            if found != run_id and (await handle.query("heard", "", result_type=list[str]))[1] == "listening":
                return found
            await asyncio.sleep(0.05)


async def whole(
    client: Client, plugin: AuthorizationPlugin, queue: str, order: Any, start: Any = Whole.run
) -> list[WorkflowHandle[Any, Any]]:
    """Run everything; gives the runs, first the workflow's own in their order, then the children."""
    handle = await client.start_workflow(
        start, order, id=unique(), task_queue=queue, execution_timeout=timedelta(seconds=120)
    )
    run_ids: list[str | None] = [None]
    for _ in range(order.rounds + 1):
        run_ids.append(await listening(client, handle.id, run_ids[-1]))
        await accompany(client, plugin, handle.id, order.text)
    result = await handle.result()
    # Each run: charged, weighed twice, charged by the child.
    amount = order.amount
    for _ in range(order.rounds + 1):
        amount = 2 * (amount + 1) + 1
    assert result == {
        "amount": amount,
        "text": order.text,
        "wrapped": [order.text, {"so far": amount}],
        "told": [f"child: {order.text}", f"client: {order.text}"],
        "corrected": [order.text],
        "refused": "AuthorizationDenied",
        "paid": f"paid {amount}",
    }
    runs = order.rounds + 1
    assert deeds(handle.id) == [*["charge", "weigh", "pay"] * runs, "wrap", "wrap"]
    for number in range(runs):
        assert deeds(f"{handle.id}-part-{number}") == ["charge"]
    return [
        *(client.get_workflow_handle(handle.id, run_id=run_id) for run_id in run_ids[1:]),
        *(client.get_workflow_handle(f"{handle.id}-part-{number}") for number in reversed(range(runs))),
    ]


async def audited(
    runs: Sequence[WorkflowHandle[Any, Any]],
    state: Path,
    *,
    workflows: Sequence[type] = WORKFLOWS,
    interceptors: Sequence[temporalio.worker.Interceptor] = (),
) -> None:
    """An auditor finds nothing to object to, and every activity proven; the histories replay.

    Args:
        runs: From a client that is like the worker's.
        state: The state folder.
        workflows: Those that no plugin brings.
        interceptors: Those that the worker had and its client had not.
    """
    client = runs[0]._client
    evidence, trust = journals_in(state / "journal"), read_trust(state / "trust.jwks")
    given = client.config()
    replayer = Replayer(
        workflows=workflows,
        plugins=given["plugins"],
        interceptors=[*given["interceptors"], *interceptors],
        namespace=client.namespace,
        data_converter=given["data_converter"],
        workflow_runner=sandbox(),
    )
    for run in runs:
        history = await run.fetch_history()
        read = await decoded(of_events(history.events), client.data_converter, namespace=client.namespace)
        report = audit_run(read, evidence, trust)
        grave = [each for each in report.findings if each.severity in (Severity.VIOLATION, Severity.UNCHECKED)]
        assert not grave, grave
        assert (report.governed, report.principal) == (True, str(BOT))
        assert {each.proof for each in report.activities} <= {"receipt", "denial"}, report.activities
        await replayer.replay_workflow(history)


@asynccontextmanager
async def at_work(client: Client, *queues: str, **options: Any) -> AsyncIterator[None]:
    """A worker for each of the queues."""
    options.setdefault("workflows", WORKFLOWS)
    options.setdefault("activities", PLAIN.all)
    async with AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(Worker(client, task_queue=queue, workflow_runner=sandbox(), **options))
        yield


async def unaudited(runs: Sequence[WorkflowHandle[Any, Any]], state: Path) -> None:
    """An auditor without the converter accuses nobody, and calls nothing verified."""
    for run in runs:
        history = of_events((await run.fetch_history()).events)
        report = audit_run(history, journals_in(state / "journal"), read_trust(state / "trust.jwks"))
        assert report.verdict is Verdict.UNCHECKED
        assert [each.code for each in report.findings] == ["payload-encoded"]


class Encryption(PayloadCodec):
    """AES-GCM, as the SDK's encryption sample does it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _cipher(self) -> AESGCM:
        return AESGCM(self._key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(12)
        data = nonce + self._cipher().encrypt(nonce, payload.SerializeToString(), None)
        return Payload(metadata={"encoding": b"binary/encrypted"}, data=data)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(self._cipher().decrypt(payload.data[:12], payload.data[12:], None))
            if payload.metadata.get("encoding") == b"binary/encrypted"
            else payload
            for payload in payloads
        ]


class BoundEncryption(Encryption, WithSerializationContext):
    """Each workflow has a key of its own, which only the context tells."""

    workflow_id: str | None = None

    def with_context(self, context: SerializationContext) -> "BoundEncryption":
        bound = BoundEncryption(self._key)
        if isinstance(context, (WorkflowSerializationContext, ActivitySerializationContext)):
            bound.workflow_id = context.workflow_id
        return bound

    def _cipher(self) -> AESGCM:
        return AESGCM(hashlib.sha256(self._key + str(self.workflow_id).encode()).digest())


class Compression(PayloadCodec):
    """Zlib, where that makes it smaller, as the SDK's compression sample does it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        small = [
            Payload(metadata={"encoding": b"binary/zlib"}, data=zlib.compress(each.SerializeToString()))
            for each in payloads
        ]
        return [min(pair, key=Payload.ByteSize) for pair in zip(payloads, small, strict=True)]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(zlib.decompress(each.data)) if each.metadata["encoding"] == b"binary/zlib" else each
            for each in payloads
        ]


class Both(PayloadCodec):
    """One codec after the other."""

    def __init__(self, *codecs: PayloadCodec) -> None:
        self._codecs = codecs

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        encoded = list(payloads)
        for codec in self._codecs:
            encoded = await codec.encode(encoded)
        return encoded

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        found = list(payloads)
        for codec in reversed(self._codecs):
            found = await codec.decode(found)
        return found


class Shelf(StorageDriver):
    """Keeps payloads in memory, and counts what they are for."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def name(self) -> str:
        return "shelf"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        claims = []
        for payload in payloads:
            key = uuid.uuid4().hex
            self.kept[key] = payload.SerializeToString()
            claims.append(StorageDriverClaim(claim_data={"key": key}))
        return claims

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return [Payload.FromString(self.kept[claim.claim_data["key"]]) for claim in claims]


async def raw_history(target: str, run: WorkflowHandle[Any, Any]) -> bytes:
    """The history as the server has it."""
    plain = await Client.connect(target, namespace=run._client.namespace)
    found = await plain.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
    return b"".join(event.SerializeToString() for event in found.events)


OURS = (b"eyJhbGciOi", b"Agent::", b"User::", b"ops-bot", b"spiffe://", b"exequatur.local", b"two-person", b"finance")
"""What statements and messages of the gate are told by."""


CODECS: dict[str, Callable[[], PayloadCodec]] = {
    "encryption": lambda: Encryption(AESGCM.generate_key(256)),
    "encryption with a key for each workflow": lambda: BoundEncryption(AESGCM.generate_key(256)),
    "compression and encryption": lambda: Both(Compression(), Encryption(AESGCM.generate_key(256))),
}


@pytest.mark.parametrize("codec", CODECS)
async def test_with_an_encryption_codec_nothing_of_the_gate_stands_in_the_clear(target, plugin, tmp_path, codec):
    converter = DataConverter(
        payload_codec=CODECS[codec](), failure_converter_class=DefaultFailureConverterWithEncodedAttributes
    )
    client, queue = await Client.connect(target, plugins=[plugin], data_converter=converter), unique()
    async with at_work(client, queue):
        runs = await whole(client, plugin, queue, Order(3, SECRET, 1))
    for run in runs:
        history = await raw_history(target, run)
        assert [each for each in (SECRET.encode(), *OURS) if each in history] == []
    await audited(runs, tmp_path / "state")


async def test_with_compression(target, plugin, tmp_path):
    converter = DataConverter(payload_codec=Compression())
    client, queue = await Client.connect(target, plugins=[plugin], data_converter=converter), unique()
    async with at_work(client, queue):
        runs = await whole(client, plugin, queue, Order(3, SECRET * 200, 1))
    for run in runs:
        assert SECRET.encode() * 2 not in await raw_history(target, run)
    await audited(runs, tmp_path / "state")


STORING: dict[str, tuple[int, Callable[[], PayloadCodec] | None]] = {
    "large payloads": (2000, None),
    "large payloads, encrypted": (2000, CODECS["encryption"]),
    "every payload, encrypted, headers too": (0, CODECS["encryption with a key for each workflow"]),
}


@pytest.mark.parametrize("what", STORING)
async def test_payloads_that_lie_in_an_external_storage_are_proven_as_any_other(target, plugin, tmp_path, what):
    threshold, codec = STORING[what]
    shelf = Shelf()
    converter = DataConverter(
        payload_codec=codec() if codec else None,
        external_storage=ExternalStorage([shelf], payload_size_threshold=threshold),
    )
    client, queue = await Client.connect(target, plugins=[plugin], data_converter=converter), unique()
    async with at_work(client, queue):
        runs = await whole(client, plugin, queue, Order(3, SECRET * 200, 1))
    assert shelf.kept
    for run in runs:
        assert SECRET.encode() not in await raw_history(target, run)
    await audited(runs, tmp_path / "state")
    await unaudited(runs, tmp_path / "state")


async def test_with_pydantic_models(target, plugin, tmp_path):
    client = await Client.connect(target, plugins=[plugin], data_converter=pydantic_data_converter)
    queue = unique()
    async with at_work(client, queue, activities=MODELS.all):
        runs = await whole(client, plugin, queue, OrderModel(amount=3, text=SECRET, rounds=1), WholeOfModels.run)
    await audited(runs, tmp_path / "state")


class Reports(temporalio.client.Interceptor, temporalio.worker.Interceptor):
    """Reports what fails, and notes what it sees, as the samples' interceptor for Sentry does."""

    def __init__(self) -> None:
        self.caught: list[tuple[str, str, str]] = []
        self.seen: list[tuple[str, str, str]] = []

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:
        reports = self

        class Outbound(temporalio.client.OutboundInterceptor):
            async def start_workflow(self, input: temporalio.client.StartWorkflowInput) -> WorkflowHandle[Any, Any]:
                try:
                    handle = await super().start_workflow(input)
                except Exception as err:
                    reports.caught.append(("client", input.workflow, type(err).__name__))
                    raise
                reports.seen.append(("client", input.workflow, type(input.args[0]).__name__))
                return handle

        return Outbound(next)

    def intercept_activity(
        self, next: temporalio.worker.ActivityInboundInterceptor
    ) -> temporalio.worker.ActivityInboundInterceptor:
        reports = self

        class Inbound(temporalio.worker.ActivityInboundInterceptor):
            async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:
                name = activity.info().activity_type
                reports.seen.append(("activity", name, type(input.args[0]).__name__))
                try:
                    return await super().execute_activity(input)
                except Exception as err:
                    reports.caught.append(("activity", name, type(err).__name__))
                    raise

        return Inbound(next)

    def workflow_interceptor_class(
        self, input: temporalio.worker.WorkflowInterceptorClassInput
    ) -> type[temporalio.worker.WorkflowInboundInterceptor]:
        reports = self

        class Outbound(temporalio.worker.WorkflowOutboundInterceptor):
            def start_activity(self, input: temporalio.worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
                handle = super().start_activity(input)
                if not workflow.unsafe.is_replaying():
                    reports.seen.append(("asked", input.activity, type(input.args[0]).__name__))
                return handle

        class Inbound(temporalio.worker.WorkflowInboundInterceptor):
            def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

            async def execute_workflow(self, input: temporalio.worker.ExecuteWorkflowInput) -> Any:
                try:
                    return await super().execute_workflow(input)
                except workflow.ContinueAsNewError:
                    raise
                except Exception as err:
                    if not workflow.unsafe.is_replaying():
                        reports.caught.append(("workflow", workflow.info().workflow_type, type(err).__name__))
                    raise

        return Inbound


def seen_by(reports: Reports, what: str) -> list[tuple[str, str]]:
    return [(name, kind) for each, name, kind in reports.seen if each == what]


@pytest.mark.parametrize("place", ["the client", "the worker"])
async def test_interceptors_that_trace_and_report_stand_inside_the_gate(target, plugin, tmp_path, place):
    """Their spans and reports are those of what ran: what is refused reaches no interceptor of an activity."""
    exporter, reports = InMemorySpanExporter(), Reports()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = TracingInterceptor(provider.get_tracer("tests"), always_create_workflow_spans=True)
    given: dict[str, Any] = {"interceptors": [tracing, reports]}
    of_client, of_worker = (given, {}) if place == "the client" else ({}, given)
    client, queue = await Client.connect(target, plugins=[plugin], **of_client), unique()
    async with at_work(client, queue, **of_worker):
        with provider.get_tracer("tests").start_as_current_span("everything"):
            runs = await whole(client, plugin, queue, Order(3, SECRET, 1))
    spans = exporter.get_finished_spans()
    await audited(runs, tmp_path / "state", **of_worker)

    ran = [*["charge", "weigh", "charge", "pay"] * 2, "wrap", "wrap"]
    assert seen_by(reports, "activity") == [(name, "Order") for name in ran]
    asked = [*["charge", "charge", "drop", "pay"] * 2, "wrap"]
    assert seen_by(reports, "asked") == [(name, "Order") for name in asked]
    assert reports.caught == [("activity", "wrap", "ApplicationError")]
    assert seen_by(reports, "client") == ([] if place == "the worker" else [("Whole", "Order")])
    names = [span.name for span in spans]
    assert [name.removeprefix("RunActivity:") for name in names if name.startswith("RunActivity:")] == ran
    for name, times in {"StartActivity:pay": 2, "StartActivity:drop": 2, "StartChildWorkflow:Part": 2}.items():
        assert names.count(name) == times
    if place != "the worker":
        assert {"StartWorkflow:Whole", "SignalWorkflow:tell", "QueryWorkflow:heard"} <= set(names)
        [everything] = [span for span in spans if span.name == "everything"]
        of_it = {span.name for span in spans if span.context.trace_id == everything.context.trace_id}
        assert {"RunActivity:charge", "RunActivity:pay", "RunWorkflow:Part", "HandleSignal:tell"} <= of_it


async def test_plugins_that_trace_and_report_before_and_after(target, plugin, tmp_path, monkeypatch):
    exporter, provider, reports = InMemorySpanExporter(), create_tracer_provider(), Reports()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    others: list[Any] = [OpenTelemetryPlugin(), SimplePlugin("reports", interceptors=[reports])]
    for plugins in ([*others, plugin], [plugin, *others]):
        client, queue = await Client.connect(target, plugins=plugins), unique()
        async with at_work(client, queue):
            runs = await whole(client, plugin, queue, Order(3, SECRET, 1))
        await audited(runs, tmp_path / "state")
    ran = [*["charge", "weigh", "charge", "pay"] * 2, "wrap", "wrap"] * 2
    assert seen_by(reports, "activity") == [(name, "Order") for name in ran]
    assert reports.caught == [("activity", "wrap", "ApplicationError")] * 2
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["charging"] * 8


class Shop(SimplePlugin):
    """Brings workflows, activities, interceptors, a converter and what runs around a worker."""

    def __init__(self) -> None:
        self.reports, self.running = Reports(), 0

        def converter(given: DataConverter | None) -> DataConverter:
            return replace(given or DataConverter.default, payload_converter_class=PydanticPayloadConverter)

        @asynccontextmanager
        async def around() -> AsyncIterator[None]:
            self.running += 1
            yield

        super().__init__(
            "shop",
            workflows=WORKFLOWS,
            activities=MODELS.all,
            interceptors=[self.reports],
            data_converter=converter,
            run_context=around,
        )


@pytest.mark.parametrize("order", ["before", "after"])
async def test_another_plugin_brings_everything(target, plugin, tmp_path, order):
    shop, queue = Shop(), unique()
    client = await Client.connect(target, plugins=[shop, plugin] if order == "before" else [plugin, shop])
    async with Worker(client, task_queue=queue, workflow_runner=sandbox()) as worker:
        assert not slots_of(worker).observing
        runs = await whole(client, plugin, queue, OrderModel(amount=3, text=SECRET, rounds=1), WholeOfModels.run)
        assert shop.running == 1
    assert {kind for _, kind in seen_by(shop.reports, "activity")} == {"OrderModel"}
    await audited(runs, tmp_path / "state", workflows=[])


RESERVING: Any = None
"""Fixed slots do not ask what they are reserved for."""


def slots_of(worker: Worker) -> GatedSlots:
    tuner = worker.config(active_config=True)["tuner"]
    assert tuner is not None
    slots = tuner._get_activity_task_slot_supplier()
    assert isinstance(slots, GatedSlots)
    return slots


@pytest.mark.parametrize("observed", [False, True])
async def test_the_activities_that_a_later_plugin_brings_are_not_taken_while_nothing_can_be_judged(stage, observed):
    s = await stage(observe=[{"activity": "charge"}] if observed else [])
    client = await s.connect(s.plugin, SimplePlugin("late", activities=[PLAIN.charge]))
    async with Worker(client, task_queue=s.queue) as worker:
        slots = slots_of(worker)
        await eventually(lambda: slots.observing is observed and s.plugin.gate.unavailable() is None)
        permit = slots.try_reserve_slot(RESERVING)
        assert permit is not None
        slots.release_slot(SlotReleaseContext(slot_info=None, permit=permit))
        s.plugin.gate.clock = lambda: 86_400.0
        assert (slots.try_reserve_slot(RESERVING) is not None) is observed


async def test_a_plugin_that_sets_its_own_tuner_afterwards_is_warned_of(stage, caplog):
    class Tunes(SimplePlugin):
        def configure_worker(self, config: temporalio.worker.WorkerConfig) -> temporalio.worker.WorkerConfig:
            return {**config, "tuner": temporalio.worker.WorkerTuner.create_fixed(activity_slots=2)}

    s = await stage()
    for plugins in ([s.plugin, Tunes("tunes")], [Tunes("tunes"), s.plugin]):
        caplog.clear()
        client = await s.connect(*plugins)
        async with Worker(client, task_queue=unique("queue"), activities=[PLAIN.charge]):
            await eventually(lambda: s.plugin.gate.unavailable() is None)
        assert ("nor one that a plugin sets" in caplog.text) is (plugins[0] is s.plugin)


async def test_a_worker_of_workflows_alone_is_as_without_the_plugin(stage):
    s = await stage()
    with ThreadPoolExecutor(2) as small:
        options: Any = {
            "max_concurrent_workflow_tasks": 10,
            "max_concurrent_activities": 5,
            "activity_executor": small,
            "workflow_runner": sandbox(),
        }
        async with Worker(s.client, task_queue=s.queue, workflows=[Waits], **options):
            await eventually(lambda: s.plugin.gate.unavailable() is None)
            s.plugin.gate.clock = lambda: 86_400.0
            # An ungoverned run, because nothing could be granted now.
            handles = [await s.start(Waits.run, client=s.plain) for _ in range(5)]
            assert [await handle.result() for handle in handles] == ["waited"] * 5


@workflow.defn
class Waits:
    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(0.01)
        return "waited"


@nexusrpc.handler.service_handler
class Desk:
    @nexusrpc.handler.sync_operation
    async def ask(self, ctx: nexusrpc.handler.StartOperationContext, what: str) -> str:
        return what


async def test_a_small_pool_for_nexus_is_warned_of_only_where_it_would_be_without_the_plugin(stage):
    s = await stage()
    with ThreadPoolExecutor(2) as small:
        options: Any = {
            "activities": [PLAIN.charge],
            "nexus_service_handlers": [Desk()],
            "nexus_task_executor": small,
        }
        Worker(s.client, task_queue=unique("queue"), **options)
        with pytest.warns(UserWarning, match="nexus_task_executor's max_workers is only 2"):
            Worker(s.client, task_queue=unique("queue"), max_concurrent_nexus_tasks=3, **options)


async def test_a_plugin_that_replaces_the_workflow_runner_afterwards_is_a_clear_error(stage):
    s = await stage()
    runs = SimplePlugin("runs", workflow_runner=sandbox())
    replaced = Worker(await s.connect(s.plugin, runs), task_queue=s.queue, workflows=[Waits])
    with pytest.raises(ConfigurationError, match="workflow runner"):
        await asyncio.wait_for(replaced.run(), 60)
    async with Worker(await s.connect(runs, s.plugin), task_queue=s.queue, workflows=[Waits]):
        assert await (await s.start(Waits.run)).result() == "waited"


class Stubborn(DefaultPayloadConverter):
    """Converts raw values, too."""

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(str(each)).encode()) for each in values]


async def test_a_converter_that_a_later_plugin_sets_must_pass_raw_values_too(stage):
    s = await stage()

    def stubborn(given: DataConverter | None) -> DataConverter:
        return replace(given or DataConverter.default, payload_converter_class=Stubborn)

    with pytest.raises(ConfigurationError, match="Stubborn does not pass"):
        await s.connect(s.plugin, SimplePlugin("late", data_converter=stubborn))


async def test_several_workers_and_task_queues_in_one_process(target, plugin, tmp_path):
    """Each order goes to its own queue; children and activities of all of them are told apart."""
    queues = [unique("queue") for _ in range(3)]
    encrypted = DataConverter(payload_codec=Encryption(AESGCM.generate_key(256)))
    first = await Client.connect(target, plugins=[plugin])
    second = await Client.connect(target, plugins=[plugin], data_converter=encrypted)
    async with at_work(first, *queues[:2]), at_work(second, queues[2]):
        done = await asyncio.gather(
            *(
                whole(client, plugin, queue, Order(number, SECRET, 1))
                for number, (client, queue) in enumerate(zip((first, first, second), queues, strict=True), 1)
            )
        )
    for runs in done:
        await audited(runs, tmp_path / "state")


async def test_several_namespaces_in_one_process_with_one_plugin(target, plugin, tmp_path):
    namespaces, queue = ["default", unique("ns"), unique("ns")], unique("queue")
    clients = [await connected(target, namespace, plugin) for namespace in namespaces]
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(at_work(client, queue))
        done = await asyncio.gather(*(whole(client, plugin, queue, Order(3, SECRET, 1)) for client in clients))
        # What was granted in one namespace is worth nothing in another.
        stolen = (await done[0][0].fetch_history()).events[0].workflow_execution_started_event_attributes.header.fields
        thief = await Client.connect(target, namespace=namespaces[1], interceptors=[StartHeaders(dict(stolen))])
        handle = await thief.start_workflow(Part.run, Order(3, SECRET), id=done[0][0].id, task_queue=queue)
        assert (await failure_of(handle)).type == "GrantRejected"
    for runs in done:
        await audited(runs, tmp_path / "state")


async def connected(target: str, namespace: str, plugin: AuthorizationPlugin) -> Client:
    """A client for a namespace, which is made if there is none."""
    plain = await Client.connect(target, namespace=namespace)
    if namespace != "default":
        await plain.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=Duration(seconds=86_400))
        )
    async with asyncio.timeout(20):
        while True:
            with suppress(RPCError):
                await plain.count_workflows()
                return await Client.connect(target, namespace=namespace, plugins=[plugin])
            await asyncio.sleep(0.1)
