"""What the benchmark runs: a sequential workflow and a fan-out, with an activity that does nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow

TIMEOUT = timedelta(seconds=60)


@dataclass
class Payment:
    """An argument of ordinary shape."""

    account: str
    amount: int
    currency: str
    reference: str
    urgent: bool


def payment(number: int) -> Payment:
    return Payment("account-4711", 100 + number, "EUR", f"invoice {number}", urgent=False)


@activity.defn
async def pay(order: Payment) -> str:
    return order.reference


@workflow.defn
class Sequential:
    @workflow.run
    async def run(self, count: int) -> int:
        for number in range(count):
            await workflow.execute_activity(pay, payment(number), start_to_close_timeout=TIMEOUT)
        return count


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, count: int) -> int:
        await asyncio.gather(
            *(
                workflow.execute_activity(pay, payment(number), start_to_close_timeout=TIMEOUT)
                for number in range(count)
            )
        )
        return count
