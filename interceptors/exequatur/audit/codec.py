"""Payloads as user code wrote them: an auditor who has the users' data converter sees what the gate saw.

What was signed are the payloads before the users' codec and after it. Without the converter an encoded history tells
who acted when, but nothing that was signed can be checked, and the audit says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    PayloadCodec,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from exequatur.audit.history import RunHistory
from exequatur.errors import EvidenceError
from exequatur.gate.wire import ACTIVITY_HEADER, START_HEADER

_OURS = {START_HEADER: b"json/plain", ACTIVITY_HEADER: b"binary/plain"}
"""Our headers' encodings. What has another is wrapped in a codec."""


def still_encoded(history: RunHistory) -> bool:
    """Whether our headers are in a codec's form, so that nothing in them can be read."""
    headers = [history.started.header.fields]
    headers += [
        event.activity_task_scheduled_event_attributes.header.fields
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    ours = [(name, fields[name]) for fields in headers for name in _OURS if name in fields]
    # All of them: one that was relabelled must not keep the others from being checked.
    return bool(ours) and all(payload.metadata.get("encoding") != _OURS[name] for name, payload in ours)


async def decoded(history: RunHistory, converter: DataConverter, *, namespace: str = "default") -> RunHistory:
    """Undo the users' payload codec.

    Args:
        history: As Temporal has it; it is not changed.
        converter: The users' data converter.
        namespace: For codecs that want to know it.

    Returns:
        The same history with payloads and failures as user code wrote them.

    Raises:
        EvidenceError: The codec refuses a payload.
    """
    if converter.payload_codec is None:
        return history
    whole = WorkflowSerializationContext(namespace=namespace, workflow_id=history.workflow_id)
    asked: dict[int, PayloadCodec] = {}
    events = []
    for original in history.events:
        event = HistoryEvent()
        event.CopyFrom(original)
        codec = _codec_of(converter.payload_codec, whole)
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            codec = asked[event.event_id] = _codec_of(
                converter.payload_codec,
                ActivitySerializationContext(
                    namespace=namespace,
                    workflow_id=history.workflow_id,
                    workflow_type=history.started.workflow_type.name,
                    activity_type=scheduled.activity_type.name,
                    activity_id=scheduled.activity_id,
                    activity_task_queue=scheduled.task_queue.name,
                    is_local=False,
                ),
            )
        attributes = getattr(event, event.WhichOneof("attributes") or "", None)
        codec = asked.get(getattr(attributes, "scheduled_event_id", 0), codec)
        try:
            await _decode(event, codec)
        except Exception as error:  # a users' codec may raise anything
            raise EvidenceError(
                f"event {event.event_id}: the data converter cannot decode it ({type(error).__name__}: {error}); "
                "name the one that the workers use"
            ) from error
        events.append(event)
    return replace(history, events=tuple(events))


def load_converter(name: str) -> DataConverter:
    """Import a data converter by its name, ``module:attribute``.

    Raises:
        EvidenceError: There is none of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise EvidenceError(f"{name}: there is no such data converter ({error}); write module:attribute") from None
    if not isinstance(found, DataConverter):
        raise EvidenceError(f"{name} is a {type(found).__name__}, not a temporalio DataConverter")
    return found


def _codec_of(codec: PayloadCodec, context: Any) -> PayloadCodec:
    if isinstance(codec, WithSerializationContext):
        aware: PayloadCodec = codec.with_context(context)
        return aware
    return codec


async def _decode(message: Any, codec: PayloadCodec) -> None:
    """Decode every payload in a message, in place."""
    if isinstance(message, Payloads):
        fresh = await codec.decode(list(message.payloads))
        del message.payloads[:]
        message.payloads.extend(fresh)
        return
    if isinstance(message, Payload):
        [payload] = await codec.decode([message])
        message.CopyFrom(payload)
        return
    if isinstance(message, Failure):
        await codec.decode_failure(message)
        return
    for inner in _inner(message):
        await _decode(inner, codec)


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
