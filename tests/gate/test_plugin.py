"""One plugin, registered in every way a user may think of: it works, or says clearly why it cannot."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import temporalio.client
import temporalio.worker
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultPayloadConverter, EncodingPayloadConverter, PayloadCodec
from temporalio.plugin import SimplePlugin
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from exequatur import ConfigurationError
from exequatur.gate.wire import START_HEADER
from tests.gate.conftest import PERMIT_ALL, deeds, events, failure_of, happened, sandbox, unique

TIMEOUT = timedelta(seconds=60)


class Order(BaseModel):
    id: str
    amount: int


@activity.defn
async def pay(order: Order) -> Order:
    happened(order.id)
    return order


@activity.defn
def act(what: str) -> str:
    happened(what)
    return what


@workflow.defn
class Acts:
    @workflow.run
    async def run(self, what: str) -> str:
        return await workflow.execute_activity(act, what, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Pays:
    @workflow.run
    async def run(self, order: Order) -> Order:
        return await workflow.execute_activity(pay, order, start_to_close_timeout=TIMEOUT)


class Seen(Interceptor, temporalio.client.Interceptor):
    """Notes which activities it sees, with their arguments and results."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        seen = self.seen

        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                result = await super().execute_activity(input)
                seen.append((*input.args, result))
                return result

        return Inbound(next)


async def runs(s: Any, client: Client, queue: str, what: str = "x") -> str:
    handle = await s.start(Acts.run, what, client=client, task_queue=queue)
    assert await handle.result() == what
    assert deeds(handle.id) == [what]
    return handle.id


async def test_workers_inherit_the_plugin_from_their_client_and_use_the_sandbox_unchanged(stage):
    s = await stage()
    async with Worker(s.client, task_queue=s.queue, workflows=[Acts], activities=[act], activity_executor=s.executor):
        await runs(s, s.client, s.queue)
    assert {"authority", "bundle", "decision", "receipt", "seal"} == {record.kind for record in s.records()}


@pytest.mark.filterwarnings("ignore:The same plugin type")  # the SDK's own advice
@pytest.mark.parametrize("where", ["twice on the client", "on client and worker"])
async def test_the_same_plugin_registered_twice_decides_once(stage, where):
    s = await stage()
    twice = where == "twice on the client"
    client = await s.connect(s.plugin, *([s.plugin] if twice else []))
    async with s.worker([Acts], [act], client=client, plugins=[] if twice else [s.plugin]):
        await runs(s, client, s.queue)
    assert [record.kind for record in s.records()].count("decision") == 1


@pytest.mark.filterwarnings("ignore:The same plugin type")  # the SDK's own advice
async def test_two_different_plugins_are_refused(stage):
    s, other = await stage(), await stage()
    with pytest.raises(ConfigurationError, match="Two different"):
        await s.connect(s.plugin, other.plugin)
    with pytest.raises(ConfigurationError, match="Two different"):
        Worker(s.client, task_queue=s.queue, activities=[act], activity_executor=s.executor, plugins=[other.plugin])


async def test_a_plugin_given_only_to_a_worker_is_a_clear_error(stage):
    s = await stage()
    with pytest.raises(ConfigurationError, match=r"Client\.connect"):
        Worker(s.plain, task_queue=s.queue, activities=[act], activity_executor=s.executor, plugins=[s.plugin])


async def test_one_plugin_serves_two_clients_and_three_workers_one_after_another_too(stage):
    s = await stage()
    second = await s.connect(s.plugin)
    queues = [unique("queue") for _ in range(3)]
    for _ in range(2):
        async with (
            s.worker([Acts], [act], queue=queues[0]),
            s.worker([Acts], [act], queue=queues[1], client=second),
        ):
            async with s.worker([Acts], [act], queue=queues[2], client=second):
                await runs(s, s.client, queues[2])
            await runs(s, s.client, queues[1])
            await runs(s, second, queues[0])


async def test_interceptors_of_the_user_see_what_is_allowed_and_nothing_of_what_is_denied(stage):
    s = await stage(
        PERMIT_ALL
        + '@id("no") forbid(principal, action == Action::"act", resource) when { context.args.what == "bad" };'
    )
    of_client, of_worker = Seen(), Seen()
    client = await s.connect(s.plugin, interceptors=[of_client])
    async with s.worker([Acts], [act], client=client, interceptors=[of_worker]):
        await runs(s, client, s.queue, "good")
        bad = await s.start(Acts.run, "bad", client=client)
        assert (await failure_of(bad)).type == "AuthorizationDenied"
    assert of_client.seen == of_worker.seen == [("good", "good")]
    assert deeds(bad.id) == []


class InFront(SimplePlugin):
    """Another plugin that puts its interceptor before those that are there."""

    def __init__(self, interceptor: Seen) -> None:
        super().__init__("in-front")
        self.interceptor = interceptor

    def configure_client(self, config: temporalio.client.ClientConfig) -> temporalio.client.ClientConfig:
        config["interceptors"] = [self.interceptor, *config.get("interceptors", [])]
        return config


async def test_a_plugin_that_puts_its_interceptor_before_the_gate_is_a_clear_error(stage):
    s = await stage()
    client = await s.connect(s.plugin, InFront(Seen()))
    with pytest.raises(ConfigurationError, match="Seen runs before the gate"):
        Worker(client, task_queue=s.queue, activities=[act], activity_executor=s.executor)


async def test_the_same_plugins_in_the_other_order_work(stage):
    s = await stage()
    seen = Seen()
    client = await s.connect(InFront(seen), s.plugin)
    async with s.worker([Acts], [act], client=client):
        await runs(s, client, s.queue)
    assert seen.seen == [("x", "x")]


async def test_a_plugin_that_replaces_the_data_converter_afterwards_is_a_clear_error(stage):
    s = await stage()
    with pytest.raises(ConfigurationError, match="data converter"):
        await s.connect(s.plugin, SimplePlugin("late", data_converter=lambda _: DataConverter.default))


async def test_policies_read_the_fields_of_pydantic_models(stage):
    s = await stage(
        PERMIT_ALL
        + '@id("cap") forbid(principal, action == Action::"pay", resource) when { context.args.order.amount > 500 };',
        client_options={"data_converter": pydantic_data_converter},
    )
    async with s.worker([Pays], [pay]):
        allowed = await s.start(Pays.run, Order(id="o1", amount=5))
        assert await allowed.result() == Order(id="o1", amount=5)
        denied = await s.start(Pays.run, Order(id="o2", amount=501))
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(allowed.id) == ["o1"]
    assert deeds(denied.id) == []


class Encryption(PayloadCodec):
    """AES-GCM, as the SDK's encryption sample does it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(12)
        data = nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), None)
        return Payload(metadata={"encoding": b"binary/encrypted"}, data=data)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(self._cipher.decrypt(payload.data[:12], payload.data[12:], None))
            if payload.metadata.get("encoding") == b"binary/encrypted"
            else payload
            for payload in payloads
        ]


async def test_with_an_encryption_codec_no_statement_is_readable_in_the_history(stage):
    converter = replace(DataConverter.default, payload_codec=Encryption(AESGCM.generate_key(128)))
    s = await stage(
        PERMIT_ALL
        + '@id("no") forbid(principal, action == Action::"act", resource) when { context.args.what == "bad" };',
        client_options={"data_converter": converter},
    )
    async with s.worker([Acts], [act]):
        handle = await s.start(Acts.run, "marker-in-plain-text")
        assert await handle.result() == "marker-in-plain-text"
        denied = await s.start(Acts.run, "bad")
        assert (await failure_of(denied)).type == "AuthorizationDenied"
    assert deeds(denied.id) == []
    bare = await s.connect()
    history = await events(bare.get_workflow_handle(handle.id))
    raw = b"".join(event.SerializeToString() for event in history)
    assert START_HEADER.encode() in raw
    for readable in (b"marker-in-plain-text", b"eyJ", b"Agent::", b"spiffe://"):
        assert readable not in raw
    result = next(
        event.activity_task_completed_event_attributes.result.payloads[0]
        for event in history
        if event.HasField("activity_task_completed_event_attributes")
    )
    assert set(result.metadata) == {"encoding"}


class OnlyStrings(EncodingPayloadConverter):
    @property
    def encoding(self) -> str:
        return "text/own"

    def to_payload(self, value: Any) -> Payload | None:
        return Payload(metadata={"encoding": b"text/own"}, data=str(value).encode())

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return payload.data.decode()


class NoRawValues(DefaultPayloadConverter):
    """Converts everything itself, raw values included."""

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        own = OnlyStrings()
        return [payload for value in values if (payload := own.to_payload(value)) is not None]


async def test_a_converter_that_does_not_pass_raw_values_is_a_clear_error(stage):
    s = await stage()
    with pytest.raises(ConfigurationError, match="NoRawValues does not pass"):
        await s.connect(s.plugin, data_converter=DataConverter(payload_converter_class=NoRawValues))


@dataclass
class Plain:
    text: str
    number: int | None = None


@activity.defn
async def give(value: Plain) -> Plain:
    return value


@workflow.defn
class Gives:
    @workflow.run
    async def run(self) -> bool:
        value = await workflow.execute_activity(give, Plain("x", 3), start_to_close_timeout=TIMEOUT)
        by_name: Any = await workflow.execute_activity("give", Plain("x"), start_to_close_timeout=TIMEOUT)
        typed = await workflow.execute_activity("give", Plain("x"), start_to_close_timeout=TIMEOUT, result_type=Plain)
        return (value, by_name, typed) == (Plain("x", 3), {"text": "x", "number": None}, Plain("x"))


async def test_results_are_decoded_to_the_types_that_they_have_without_the_plugin(stage):
    s = await stage()
    for client in (s.client, s.plain):
        async with s.worker([Gives], [give], client=client, workflow_runner=sandbox()):
            handle = await s.start(Gives.run, client=client)
            assert await handle.result()
