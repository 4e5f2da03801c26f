"""The sandboxes of all visitors: each found by a secret that only its visitor has, and never more than there may be.

Rules, numbered as the code marks them:

G1  A sandbox is found by 256 random bits, of which only the digest is kept here.
G2  There are at most so many, and fewer for one network address; one that nobody uses makes room for another visitor,
    one that is used does not.
G3  A sandbox ends when nobody has used it for a while, and at a certain age in any case.
G4  One network address opens only so many in an hour: to reset one is no way around what one may use.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from exequatur.console.sandbox.application import Application
from exequatur.console.sandbox.editing import texts_of
from exequatur.console.sandbox.home import SandboxFolder, clear_up
from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.policies import Policies
from exequatur.console.sandbox.sandbox import Sandbox

logger = logging.getLogger("exequatur")

_LOOK = 5.0
"""Seconds between two looks whether a sandbox is to be ended."""
_HOUR = 3600.0


@dataclass(frozen=True)
class _Held:
    """A sandbox, and the address that its visitor came from."""

    sandbox: Sandbox
    owner: str


class Sandboxes:
    """All sandboxes of a console; used on one event loop.

    Args:
        application: What runs in each.
        connect: Gives a client of the server, without the plugin.
        limits: The bounds.
        clock: Seconds; never goes back.
    """

    def __init__(
        self,
        application: Application,
        connect: Callable[[], Awaitable[Client]],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.application = application
        self.limits = limits or Limits()
        self._connect = connect
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._opening: dict[str, asyncio.Task[Sandbox]] = {}
        self._owners: dict[str, str] = {}
        """Of those that are being opened."""
        self._opened_at: dict[str, deque[float]] = {}
        """When each network address opened one, lately."""
        self._checks = asyncio.Semaphore(self.limits.checks)
        self._base: SandboxFolder | None = None
        self._making = threading.Lock()
        self._tending: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        clear_up()

    def __len__(self) -> int:
        return len(self._held)

    def texts(self) -> dict[str, Any]:
        """The policies that a new sandbox has. It blocks.

        Raises:
            PolicyError: They cannot be read.
        """
        return texts_of(self.application.files, Policies.read(self.application.policies))

    def find(self, key: str) -> Sandbox | None:
        """The sandbox of a visitor, if there is one."""
        held = self._held.get(_digest(key))  # G1
        return None if held is None or held.sandbox.ended else held.sandbox

    async def enter(self, key: str, owner: str = "") -> Sandbox:
        """The sandbox of a visitor; it is made for one who has none.

        Args:
            key: The visitor's secret.
            owner: The network address that it comes from.

        Raises:
            SandboxError: There is no room, or the server does not answer.
            ExequaturError: The application's policies cannot be used.
        """
        if (found := self.find(key)) is not None:
            return found
        name = _digest(key)
        opening = self._opening.get(name)
        if opening is None:
            self._make_room(owner)
            opening = asyncio.get_running_loop().create_task(self._open(name, owner))
            self._opening[name] = opening
            self._owners[name] = owner
            opening.add_done_callback(lambda done: self._opened(name, done))
        # Whoever asks may go away meanwhile; somebody else may wait for the same.
        return await asyncio.shield(opening)

    def _opened(self, name: str, done: asyncio.Task[Sandbox]) -> None:
        del self._opening[name], self._owners[name]
        if not done.cancelled():
            done.exception()  # whoever waited has got it

    async def _open(self, name: str, owner: str) -> Sandbox:
        client = await self._connect()
        folder = await asyncio.to_thread(self._folder)
        sandbox = await Sandbox.open(folder, self.application, client, self.limits, self._checks)
        if self._closed:
            await sandbox.end()
            raise SandboxError("The console is being stopped.", "full")
        self._held[name] = _Held(sandbox, owner)
        self._opened_at.setdefault(owner, deque()).append(self._clock())
        if self._tending is None:
            self._tending = asyncio.get_running_loop().create_task(self._tend())
        return sandbox

    def _make_room(self, owner: str) -> None:
        """See that one more may be opened.

        Raises:
            SandboxError: G2.
        """
        if self._closed:
            raise SandboxError("The console is being stopped.", "full")
        self.tend()
        owners = [*(each.owner for each in self._held.values()), *self._owners.values()]
        if owners.count(owner) >= self.limits.each:  # [G2]
            raise SandboxError(
                f"From where you are, {self.limits.each} sandboxes are in use. Come back when one of them has ended.",
                "full",
            )
        if len(self._opened_at.get(owner, ())) >= self.limits.openings:  # [G4]
            raise SandboxError(
                f"From where you are, {self.limits.openings} sandboxes were opened within an hour. Come back later.",
                "full",
            )
        if len(owners) + len(self._ending) < self.limits.visitors:
            return
        now = self._clock()
        unused = [
            (each.sandbox.used, name)
            for name, each in self._held.items()
            if not each.sandbox.busy and now - each.sandbox.used > self.limits.yielding
        ]
        if not unused:  # [G2]
            raise SandboxError(f"All {self.limits.visitors} sandboxes are in use. Come back in a few minutes.", "full")
        self._begin_end(min(unused)[1])

    def _folder(self) -> Path:
        with self._making:
            if self._base is None:
                self._base = SandboxFolder()
            return self._base.make()

    async def close(self, key: str) -> None:
        """End a visitor's sandbox, also one that is just being made, and wait until it has."""
        name = _digest(key)
        if (opening := self._opening.get(name)) is not None:
            await asyncio.wait([opening])
        if name in self._held:
            await asyncio.shield(self._end(name))  # whoever waits may go away; it ends all the same

    def tend(self) -> None:
        """End what is to be ended."""
        now = self._clock()
        for owner, opened in list(self._opened_at.items()):
            while opened and now - opened[0] > _HOUR:
                opened.popleft()
            if not opened:
                del self._opened_at[owner]
        for name, held in list(self._held.items()):
            each = held.sandbox
            late = now - each.opened > self.limits.age
            if late or (now - each.used > self.limits.idle and not each.busy):  # [G3]
                self._begin_end(name)

    def _begin_end(self, name: str) -> None:
        self._ending.add(self._end(name))

    def _end(self, name: str) -> asyncio.Task[None]:
        ending = asyncio.get_running_loop().create_task(self._held.pop(name).sandbox.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                self.tend()
            except Exception:  # this task must not end
                logger.exception("Sandboxes of the demo page could not be looked at")

    async def aclose(self) -> None:
        """End all of them, and leave nothing behind."""
        self._closed = True
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
        if self._opening:
            await asyncio.wait(self._opening.values())
        for name in list(self._held):
            self._begin_end(name)
        await asyncio.gather(*self._ending, return_exceptions=True)
        base, self._base = self._base, None
        if base is not None:
            await asyncio.to_thread(base.remove)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
