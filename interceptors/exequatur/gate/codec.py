"""Sees payloads as user code encoded them, without changing them.

Interceptors get decoded values, and encoding those again need not give the same bytes. This codec stands outermost,
around the user's own, and remembers what was decoded in the current task: an activity's input and heartbeat details, a
workflow's start arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadCodec, SerializationContext, WithSerializationContext

_KEEP = 2
"""Input and heartbeat details are the first that an activity task decodes."""

_decoded: ContextVar[list[list[Payload]] | None] = ContextVar("exequatur_decoded", default=None)


def decoded_here() -> list[list[Payload]]:
    """The first lists of payloads that the current task decoded, in their order."""
    return _decoded.get() or []


class ObservingCodec(PayloadCodec, WithSerializationContext):
    """Delegates to the user's codec, or passes everything through when there is none."""

    def __init__(self, inner: PayloadCodec | None, seen: list[list[Payload]] | None = None) -> None:
        self.inner = inner
        self._seen = seen

    def with_context(self, context: SerializationContext) -> ObservingCodec:
        inner: Any = self.inner
        if isinstance(inner, WithSerializationContext):
            inner = inner.with_context(context)
        seen: list[list[Payload]] = []
        _decoded.set(seen)
        return ObservingCodec(inner, seen)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self.inner.encode(payloads) if self.inner else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        decoded = await self.inner.decode(payloads) if self.inner else list(payloads)
        if self._seen is not None and len(self._seen) < _KEEP:
            self._seen.append(list(decoded))
        return decoded

    async def encode_wrapper(self, payloads: Payloads) -> None:
        if self.inner:
            await self.inner.encode_wrapper(payloads)

    async def decode_wrapper(self, payloads: Payloads) -> None:
        if self.inner:
            await self.inner.decode_wrapper(payloads)

    async def encode_failure(self, failure: Failure) -> None:
        if self.inner:
            await self.inner.encode_failure(failure)

    async def decode_failure(self, failure: Failure) -> None:
        if self.inner:
            await self.inner.decode_failure(failure)
