"""Payloads of workers that have a codec or converter of their own: their code runs here, and may do anything.

Rules, numbered as the code marks them:

C1  It runs in a thread of its own and has to answer in time, so that one that hangs holds up only what asked for it.
C2  Whatever it raises is said in a sentence, and of the run that could then not be checked.
C3  Where it has hung too often, it is called no more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import DataConverter, PayloadCodec, SerializationContext, WithSerializationContext

from exequatur.audit.codec import decoded
from exequatur.audit.history import RunHistory
from exequatur.errors import EvidenceError

logger = logging.getLogger("exequatur")

WITHIN = 20.0
"""Seconds that the converter has for a few payloads."""
EACH = 0.02
"""Seconds that it has besides for each event of a history."""
LEFT = 4
"""Threads in which it may still be at work though nobody waits any more."""

T = TypeVar("T")


class Decoder:
    """A data converter of users.

    Args:
        converter: Theirs.
        name: What it was named by.
    """

    def __init__(self, converter: DataConverter, name: str) -> None:
        self.name = name
        self._converter = converter
        self._at_work = 0
        """Threads with its code."""
        self._waiting = 0
        """Those that somebody waits for."""

    async def history(self, history: RunHistory, namespace: str) -> RunHistory:
        """A history with payloads as user code wrote them.

        Raises:
            EvidenceError: The converter raises, or does not answer in time.
        """
        within = WITHIN + EACH * len(history.events)
        return await self.called(lambda: decoded(history, self._converter, namespace=namespace), within)

    def using(self, client: Client) -> Client:
        """The same client with this converter."""
        codec = self._converter.payload_codec
        guarded = self._converter if codec is None else replace(self._converter, payload_codec=_Guarded(codec, self))
        return Client(client.service_client, namespace=client.namespace, data_converter=guarded)

    async def called(self, work: Callable[[], Awaitable[T]], within: float | None = None) -> T:
        """Run the converter's code.

        Args:
            work: Calls it.
            within: Seconds that it has; :data:`WITHIN` if it is left out.

        Raises:
            EvidenceError: It raises, or does not answer in time.
        """
        if self._at_work - self._waiting >= LEFT:  # [C3]
            raise EvidenceError(f"{self.name} hangs; correct it, and start the console again")
        loop, within = asyncio.get_running_loop(), WITHIN if within is None else within
        answer: asyncio.Future[T] = loop.create_future()

        def tell(give: Callable[[], None]) -> None:
            self._at_work -= 1
            if not answer.done():
                give()

        def run() -> None:
            try:
                result = asyncio.run(_awaited(work))
                give = partial(answer.set_result, result)
            except BaseException as error:  # it is the code of others
                give = partial(answer.set_exception, self._told(error))  # C2
            with suppress(RuntimeError):  # the console has ended meanwhile
                loop.call_soon_threadsafe(tell, give)

        self._at_work += 1
        self._waiting += 1
        # [C1] A daemon: nothing waits for it when the console ends.
        threading.Thread(target=run, name="exequatur-console-converter", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, within)
        except TimeoutError:
            raise EvidenceError(f"{self.name} did not answer within {within:.1f} s") from None
        finally:
            self._waiting -= 1

    def _told(self, error: BaseException) -> EvidenceError:
        """What the viewer is told: not what the error says, which may quote a payload."""
        logger.warning("The converter %s raised", self.name, exc_info=error)
        kind = type(error.__cause__ or error).__name__
        return EvidenceError(f"{self.name} cannot decode the payloads ({kind}); the console's log says why")


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


class _Guarded(PayloadCodec, WithSerializationContext):
    """A codec that is called by a :class:`Decoder`."""

    def __init__(self, codec: PayloadCodec, decoder: Decoder) -> None:
        self._codec = codec
        self._decoder = decoder

    def with_context(self, context: SerializationContext) -> _Guarded:
        codec = self._codec
        return (
            _Guarded(codec.with_context(context), self._decoder)
            if isinstance(codec, WithSerializationContext)
            else self
        )

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._decoder.called(lambda: self._codec.encode(payloads))

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._decoder.called(lambda: self._codec.decode(payloads))
