"""Activity slots that are handed out only while the worker can authorize.

A worker that polls and then refuses would drain the queue of work that a healthy worker could do. So it does not poll.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    ResourceBasedSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

from exequatur.gate.gate import Gate

_LOOK_INTERVAL = 0.1
"""Seconds between two looks whether the worker can authorize again."""

SlotSupplier = FixedSizeSlotSupplier | ResourceBasedSlotSupplier | CustomSlotSupplier


class FixedSlots(CustomSlotSupplier):
    """A fixed number of slots, as the SDK's own supplier gives them."""

    def __init__(self, size: FixedSizeSlotSupplier) -> None:
        self._free = size.num_slots
        self._lock = threading.Lock()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._free > 0:
                    self._free -= 1
                    return SlotPermit()
                waiter = loop.create_future()
                self._waiting.append((loop, waiter))
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():  # woken for nothing: another is to have the slot
                    self._wake_one()
                raise

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        with self._lock:
            if self._free <= 0:
                return None
            self._free -= 1
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Nothing to do: a slot is taken when it is reserved."""

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        with self._lock:
            self._free += 1
        self._wake_one()

    def _wake_one(self) -> None:
        with self._lock:
            if not self._waiting:
                return
            loop, waiter = self._waiting.popleft()
        try:
            loop.call_soon_threadsafe(self._wake, waiter)
        except RuntimeError:  # its worker's loop has ended
            self._wake_one()

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():  # it gave up waiting
            self._wake_one()
        else:
            waiter.set_result(None)


class GatedSlots(CustomSlotSupplier):
    """Withholds the slots of another supplier while the gate cannot decide.

    Args:
        gate: Whose slots.
        inner: Who has them.
    """

    def __init__(self, gate: Gate, inner: CustomSlotSupplier) -> None:
        self._gate = gate
        self._inner = inner
        self.observing = False
        """All of the worker's activities are only observed, so nothing may be withheld. Set when it runs, because
        another plugin may still bring some."""

    def _withheld(self) -> bool:
        return not self.observing and self._gate.unavailable() is not None

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        while True:
            while self._withheld():  # noqa: ASYNC110 (the gate has many reasons and no single event)
                await asyncio.sleep(_LOOK_INTERVAL)
            permit = await self._inner.reserve_slot(ctx)
            if not self._withheld():
                return permit
            self._inner.release_slot(SlotReleaseContext(slot_info=None, permit=permit))

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        return None if self._withheld() else self._inner.try_reserve_slot(ctx)

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        self._inner.mark_slot_used(ctx)

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        self._inner.release_slot(ctx)


class GatedTuner(WorkerTuner):
    """Another tuner, with activity slots that the gate may withhold.

    Args:
        inner: That tuner.
        activities: The activity slots in the place of its own.
        activities_max: How many activities at a time the user asked for, if any; the SDK compares it with the threads.
        nexus_max: The same for Nexus tasks.
    """

    def __init__(
        self, inner: WorkerTuner, activities: GatedSlots, *, activities_max: int | None, nexus_max: int | None
    ) -> None:
        self._inner = inner
        self._activities = activities
        self._activities_max = activities_max
        self._nexus_max = nexus_max

    def _get_workflow_task_slot_supplier(self) -> SlotSupplier:
        return self._inner._get_workflow_task_slot_supplier()

    def _get_activity_task_slot_supplier(self) -> SlotSupplier:
        return self._activities

    def _get_local_activity_task_slot_supplier(self) -> SlotSupplier:
        return self._inner._get_local_activity_task_slot_supplier()

    def _get_nexus_slot_supplier(self) -> SlotSupplier:
        return self._inner._get_nexus_slot_supplier()

    def _get_activities_max(self) -> int | None:
        return self._activities_max

    def _get_nexus_tasks_max(self) -> int | None:
        return self._nexus_max
