"""Workers that somebody else put on our task queue, who can reach the Temporal server but not our keys.

Without ``--forge`` it is a plain worker of the SDK. With it, it does the best that it can: it takes a real receipt and
its credential out of a history, rewrites the receipt for the request at hand, and signs it with a key of its own.
Either way it claims to have paid, and has not.
"""

import argparse
import asyncio
import dataclasses
import logging
import signal
import time
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from exequatur.gate.wire import ACTIVITY_HEADER, RECEIPT, payloads_digest
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Receipt, Request
from exequatur.statements.packing import pack, unpack
from workflows.activities import Refund

READY = "The rogue is ready"

logger = logging.getLogger("workflows")


@activity.defn
async def refund_order(refund: Refund) -> str:
    return f"refunded {refund.amount} of {refund.order_id}"


@dataclasses.dataclass(frozen=True)
class ForgedSigner:
    """Signs with one key under the name of another."""

    key: SigningKey
    kid: str

    @property
    def x(self) -> str:
        return self.key.x

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data)


class Forgery(Interceptor):
    """Attaches a forged receipt to each result.

    Args:
        credential: A real worker's credential.
        receipt: A real receipt of that worker, as text.
    """

    def __init__(self, credential: str, receipt: str) -> None:
        self.credential = credential
        self.receipt = parse(receipt, Receipt)
        self.signer = ForgedSigner(SigningKey.generate(), self.receipt.kid)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Forging(next, self)


class _Forging(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, forgery: Forgery) -> None:
        super().__init__(next)
        self._forgery = forgery

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        result = await super().execute_activity(input)
        forgery, info = self._forgery, activity.info()
        [payload] = activity.payload_converter().to_payloads([result])
        request = parse(unpack(input.headers[ACTIVITY_HEADER].data)[-1], Request)
        forged = forgery.receipt.claims.model_copy(
            update={
                "iat": round(time.time(), 3),
                "request": request.claims.jti,
                "request_digest": request.digest,
                "activity_id": info.activity_id,
                "workflow_id": info.workflow_id,
                "run_id": info.workflow_run_id,
                "result": payloads_digest([payload]),
            }
        )
        payload.metadata[RECEIPT] = pack([sign(forged, forgery.signer).text], [forgery.credential])
        return RawValue(payload)


async def steal(client: Client, workflow_id: str) -> Forgery:
    """Take a credential and a receipt from the history of a workflow whose activities completed."""
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    for event in history.events:
        if event.HasField("activity_task_completed_event_attributes"):
            payload = event.activity_task_completed_event_attributes.result.payloads[0]
            return Forgery(*unpack(payload.metadata[RECEIPT]))
    raise SystemExit(f"No activity of {workflow_id} has completed")


async def serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await Client.connect(options.target, data_converter=pydantic_data_converter)
    interceptors = [await steal(client, options.forge)] if options.forge else []
    async with Worker(client, task_queue=options.task_queue, activities=[refund_order], interceptors=interceptors):
        logger.info("%s, task queue %s", READY, options.task_queue)
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker without the plugin.")
    parser.add_argument("--target", default="127.0.0.1:7233", help="host:port of the Temporal server")
    parser.add_argument("--task-queue", default="operations")
    parser.add_argument("--forge", metavar="WORKFLOW", help="forge receipts after one in this workflow's history")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
