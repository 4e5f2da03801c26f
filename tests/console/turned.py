"""Converters of workers: one that turns payloads around, one that raises, one that hangs, and what is none."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec

SECRET = "the key is 4711"
released = threading.Event()
"""Ends what hangs."""


class Turned(PayloadCodec):
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"turned"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(each.data[::-1]) if each.metadata.get("encoding") == b"turned" else each
            for each in payloads
        ]


class Raising(Turned):
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise SystemExit(SECRET)


class Hanging(Turned):
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        released.wait(15)  # blocks its event loop, too
        return list(payloads)


TURNED = replace(DataConverter.default, payload_codec=Turned())
RAISING = replace(DataConverter.default, payload_codec=Raising())
HANGING = replace(DataConverter.default, payload_codec=Hanging())
NONE = object()
