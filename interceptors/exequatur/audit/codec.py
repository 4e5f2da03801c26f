"""Payloads as user code wrote them: an auditor who has the users' data converter sees what the gate saw.

What was signed are the payloads before the users' codec and external storage, and after them. Without the converter an
encoded history tells who acted when, but nothing that was signed can be checked, and the audit says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    NexusSerializationContext,
    SerializationContext,
    WorkflowSerializationContext,
)

from exequatur.audit.history import RunHistory
from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.gate.wire import ACTIVITY_HEADER, START_HEADER
from exequatur.modules import named

_OURS = {START_HEADER: b"json/plain", ACTIVITY_HEADER: b"binary/plain"}
"""Our headers' encodings. What has another is wrapped in a codec."""


_STORED = (b"ExternalStorageReference", b"external-storage-reference", b"external_storage_reference")
"""What the SDK's references to an external storage have in them, one or the other."""


def still_encoded(history: RunHistory) -> bool:
    """Whether what was signed cannot be read: our headers are in a codec's form, or payloads lie in a storage."""
    headers = [history.started.header.fields]
    headers += [
        event.activity_task_scheduled_event_attributes.header.fields
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    ours = [(name, fields[name]) for fields in headers for name in _OURS if name in fields]
    if not ours:
        return False
    # All of them: one that was relabelled must not keep the others from being checked.
    encoded = all(payload.metadata.get("encoding") != _OURS[name] for name, payload in ours)
    return encoded or any(_stored(event) for event in history.events)


def _stored(event: HistoryEvent) -> bool:
    """Whether a payload of an event lies in an external storage."""
    data = event.SerializeToString()
    return any(mark in data for mark in _STORED) and any(payload.external_payloads for payload in _payloads(event))


def _payloads(message: Any) -> Iterator[Payload]:
    for inner in _inner(message):
        if isinstance(inner, Payload):
            yield inner
        else:
            yield from _payloads(inner)


async def decoded(history: RunHistory, converter: DataConverter, *, namespace: str = "default") -> RunHistory:
    """Undo the users' payload codec, and fetch what lies in their external storage.

    Args:
        history: As Temporal has it; it is not changed.
        converter: The users' data converter.
        namespace: For codecs that want to know it.

    Returns:
        The same history with payloads and failures as user code wrote them.

    Raises:
        EvidenceError: The codec refuses a payload, or the storage does not have it.
    """
    if converter.payload_codec is None and converter.external_storage is None:
        return history
    asked: dict[int, DataConverter] = {}
    events = []
    for original in history.events:
        event = HistoryEvent()
        event.CopyFrom(original)
        attributes = getattr(event, event.WhichOneof("attributes") or "", None)
        told = asked.get(getattr(attributes, "scheduled_event_id", 0))
        if told is None:
            context = _context_of(event, attributes, history, namespace)
            told = asked[event.event_id] = converter.with_context(context)
        try:
            await _decode(event, told)
        except Exception as error:  # a users' codec may raise anything
            raise EvidenceError(
                f"event {event.event_id}: the data converter cannot decode it ({type(error).__name__}: {error}); "
                "name the one that the workers use"
            ) from error
        events.append(event)
    return replace(history, events=tuple(events))


def _context_of(event: HistoryEvent, attributes: Any, history: RunHistory, namespace: str) -> SerializationContext:
    """What the SDK tells a codec about the payloads of an event."""
    if event.HasField("activity_task_scheduled_event_attributes"):
        return ActivitySerializationContext(
            namespace=namespace,
            workflow_id=history.workflow_id,
            workflow_type=history.started.workflow_type.name,
            activity_type=attributes.activity_type.name,
            activity_id=attributes.activity_id,
            activity_task_queue=attributes.task_queue.name,
            is_local=False,
        )
    if event.HasField("nexus_operation_scheduled_event_attributes"):
        return NexusSerializationContext(
            endpoint=attributes.endpoint, service=attributes.service, operation=attributes.operation
        )
    # What goes to a child or another workflow, and what comes from it, is encoded for that one.
    other = getattr(attributes, "workflow_id", "") or getattr(
        getattr(attributes, "workflow_execution", None), "workflow_id", ""
    )
    return WorkflowSerializationContext(namespace=namespace, workflow_id=other or history.workflow_id)


def converter_of(reference: str) -> DataConverter:
    """The data converter that a reference names.

    Args:
        reference: ``MODULE:NAME``; the module is imported, also from the working directory.

    Raises:
        ConfigurationError: It cannot be imported, or what it names is none.
    """
    found = named(reference)
    if not isinstance(found, DataConverter):
        raise ConfigurationError(f"{reference} is a {type(found).__name__}, not a temporalio DataConverter")
    return found


async def _decode(message: Any, converter: DataConverter) -> None:
    """Decode every payload in a message, in place."""
    if isinstance(message, Payloads):
        fresh = await _plain(message.payloads, converter)
        del message.payloads[:]
        message.payloads.extend(fresh)
        return
    if isinstance(message, Payload):
        [payload] = await _plain([message], converter)
        message.CopyFrom(payload)
        return
    for inner in _inner(message):
        await _decode(inner, converter)


async def _plain(payloads: Sequence[Payload], converter: DataConverter) -> Sequence[Payload]:
    """What the SDK does before it converts payloads to values."""
    payloads = await converter._decode_reference_payload_sequence(payloads)
    payloads = await converter._external_retrieve_payload_sequence(payloads)
    return await converter._decode_payload_sequence(payloads)


_PLAIN = {"SearchAttributes", "Memo"}
"""The server reads search attributes, so no codec touches them; the SDK decodes a memo on its own, and nothing of it is
claimed."""


def _inner(message: Any) -> Iterable[Any]:
    for descriptor, value in message.ListFields():
        kind = descriptor.message_type
        if kind is None or kind.name in _PLAIN:
            continue
        if kind.GetOptions().map_entry:
            if kind.fields_by_name["value"].message_type is not None:
                yield from _values(value)
        elif descriptor.is_repeated:
            yield from value
        else:
            yield value


def _values(mapping: Any) -> Sequence[Any]:
    return [mapping[key] for key in mapping]
