"""Activities and workflows that the tests run behind the gate. A body that ran has said so in ``ran``."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RawValue

TIMEOUT = timedelta(seconds=60)

ran: list[object] = []


@activity.defn
async def refund(amount: int) -> str:
    ran.append(amount)
    return f"refunded {amount}"


@activity.defn(name="refund")
def refund_in_thread(amount: int) -> str:
    ran.append(amount)
    return f"refunded {amount}"


class Desk:
    def __init__(self, name: str) -> None:
        self.name = name

    @activity.defn(name="refund")
    async def refund(self, amount: int) -> str:
        ran.append(amount)
        return f"refunded {amount}"

    @activity.defn(name="refund")
    def refund_in_thread(self, amount: int) -> str:
        ran.append(amount)
        return f"refunded {amount}"


@activity.defn(name="refund")
class Refunding:
    async def __call__(self, amount: int) -> str:
        ran.append(amount)
        return f"refunded {amount}"


def undecorated(amount: int) -> str:
    ran.append(amount)
    return f"refunded {amount}"


@activity.defn(dynamic=True)
async def anything(args: Sequence[RawValue]) -> str:
    [amount] = [activity.payload_converter().from_payload(arg.payload, int) for arg in args]
    ran.append(amount)
    return activity.info().activity_type


@activity.defn
async def beats() -> str:
    try:
        while True:
            activity.heartbeat("beat")
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        details = activity.cancellation_details()
        ran.append(f"cancelled {bool(details and details.cancel_requested)}")
        raise
    except Exception as err:
        ran.append(type(err).__name__)
        raise


@activity.defn
def beats_in_thread() -> str:
    try:
        while True:
            activity.heartbeat("beat")
            time.sleep(0.01)
    except BaseException as err:
        ran.append(type(err).__name__)
        raise


@workflow.defn
class Refunds:
    @workflow.run
    async def run(self, amount: int, hours: float) -> str:
        await asyncio.sleep(hours * 3600)
        return await workflow.execute_activity(refund, amount, start_to_close_timeout=TIMEOUT)


@workflow.defn
class RefundsLocally:
    @workflow.run
    async def run(self, amount: int, hours: float) -> str:
        await asyncio.sleep(hours * 3600)
        return await workflow.execute_local_activity(refund, amount, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Delegates:
    @workflow.run
    async def run(self, amount: int, hours: float) -> str:
        await asyncio.sleep(hours * 3600)
        return await workflow.execute_child_workflow(
            Refunds.run, args=[amount, hours], id=f"{workflow.info().workflow_id}-child"
        )


@workflow.defn
class Waits:
    """Executes an activity that goes on until it is ended."""

    @workflow.run
    async def run(self, hours: float) -> str:
        await asyncio.sleep(hours * 3600)
        return await workflow.execute_activity(
            beats, start_to_close_timeout=TIMEOUT, heartbeat_timeout=timedelta(seconds=5)
        )
