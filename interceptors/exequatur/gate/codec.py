"""Sees payloads as user code encoded them, without changing them.

Interceptors get decoded values, and encoding those again need not give the same bytes. This codec stands outermost,
around the user's own, and remembers what was decoded in the current task: an activity's input and heartbeat details, a
workflow's start arguments.

It also gives the user's codec the context of a client's headers, for which the SDK has none (:func:`addressed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadCodec, SerializationContext, WithSerializationContext

_KEEP = 2
"""Input and heartbeat details are the first that an activity task decodes."""

_addressee: ContextVar[SerializationContext] = ContextVar("exequatur_addressee")
_decoded: ContextVar[tuple[asyncio.Task[Any] | None, list[list[Payload]]]] = ContextVar("exequatur_decoded")


def decoded_here() -> list[list[Payload]]:
    """The first lists of payloads that the current task decoded, in their order.

    A context is inherited by the tasks that are made in it, so what another task decoded is told apart.
    """
    task, seen = _decoded.get((None, []))
    return seen if task is _current_task() else []


@contextmanager
def addressed(context: SerializationContext) -> Iterator[None]:
    """Within this, what the SDK encodes without a context is encoded with this one."""
    token = _addressee.set(context)
    try:
        yield
    finally:
        _addressee.reset(token)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class ObservingCodec(PayloadCodec):
    """Delegates to the user's codec, or passes everything through when there is none."""

    def __init__(self, inner: PayloadCodec | None) -> None:
        self.inner = inner

    @staticmethod
    def around(inner: PayloadCodec | None) -> ObservingCodec:
        """The codec to put around the user's.

        The SDK copies a converter that takes a context several times for each activity, so it takes one only if the
        user's does.
        """
        return ContextualObservingCodec(inner) if isinstance(inner, WithSerializationContext) else ObservingCodec(inner)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self.inner.encode(payloads) if self.inner else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        decoded = await self.inner.decode(payloads) if self.inner else list(payloads)
        task, seen = _decoded.get((None, []))
        current = _current_task()
        if task is not current:
            seen = []
            _decoded.set((current, seen))
        # What decodes to nothing leaves no argument and no detail behind either, so it would shift what follows.
        if decoded and len(seen) < _KEEP:
            seen.append(list(decoded))
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


class ContextualObservingCodec(ObservingCodec, WithSerializationContext):
    """Around a codec that wants to know the context.

    Args:
        inner: That codec.
        bound: Whether it knows it.
    """

    def __init__(self, inner: PayloadCodec, *, bound: bool = False) -> None:
        super().__init__(inner)
        self._bound = bound

    def with_context(self, context: SerializationContext) -> ContextualObservingCodec:
        inner: Any = self.inner
        return ContextualObservingCodec(inner.with_context(context), bound=True)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        context = None if self._bound else _addressee.get(None)
        if context is not None:
            return await self.with_context(context).encode(payloads)
        return await super().encode(payloads)
