"""A visitor edits the policies: checked first, and in force only when they are good.

Rules, numbered as the code marks them:

I1  Only files that the application shows are edited, and of those only the text.
I2  How often, and how many at a time, is bounded.
I3  Policies that were not found good by the check, or are not in force soon, change nothing: the old ones stay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from exequatur.console.sandbox.checking import Checked, check
from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.policies import Policies

_IN_FORCE_WITHIN = 20.0
"""Seconds; a busy machine takes some."""
_LOOK = 0.05


class Editing:
    """The policies of one sandbox.

    Args:
        folder: Where a worker reads them; made here.
        original: As they are at first.
        files: Those that are shown and edited.
        limits: How often.
        checks: How many checks may run at a time, in all sandboxes together.
        in_force: Gives the digest of the policies that the worker has, or ``None`` where none works.
    """

    def __init__(
        self,
        folder: Path,
        original: Policies,
        files: Sequence[str],
        limits: Limits,
        checks: asyncio.Semaphore,
        in_force: Callable[[], str | None],
    ) -> None:
        self.original = original
        self.policies = original
        self.count = 0
        self._folder = folder
        self._files = tuple(files)
        self._limits = limits
        self._checks = checks
        self._in_force = in_force
        self._one = asyncio.Lock()
        folder.mkdir()
        original.write(folder)

    @property
    def changed(self) -> list[str]:
        """The files that are not as they were."""
        return [name for name, text in self.policies.policies.items() if self.original.policies.get(name) != text]

    async def check(self, texts: object) -> Checked:
        """Check an edit without putting it in force.

        Args:
            texts: From outside: anything.

        Raises:
            SandboxError: I1 or I2.
        """
        edited = self._edited(texts)
        async with self._only():
            return await self._checked(edited)

    async def apply(self, texts: object) -> Checked:
        """Check an edit, and put it in force if it is good.

        Raises:
            SandboxError: I1 or I2, or the worker does not take it.
        """
        edited = self._edited(texts)
        async with self._only():
            checked = await self._checked(edited)
            if checked.good:  # I3
                await self._put_in_force(edited)
        return checked

    async def restore(self) -> None:
        """Put the original policies in force again.

        Raises:
            SandboxError: I2, or the worker does not take it.
        """
        self._counted()
        async with self._only():
            await self._put_in_force(self.original)

    def texts(self) -> dict[str, Any]:
        """The policies as they are in force, as they were, and the difference, as plain data."""
        return texts_of(self._files, self.policies, self.original)

    def _edited(self, texts: object) -> Policies:
        if not isinstance(texts, Mapping) or not texts:
            raise SandboxError("There is no policy in this edit. Load the page again.", "input")
        for name, text in texts.items():
            if name not in self._files or not isinstance(text, str):  # [I1]
                raise SandboxError("This edit is of a file that the policies do not have.", "input")
        self._counted()
        return self.policies.edited({name: text.replace("\r\n", "\n") for name, text in texts.items()})

    def _counted(self) -> None:
        if self.count >= self._limits.edits:  # [I2]
            raise SandboxError("This sandbox has had enough edits. Reset it to begin anew.", "enough")
        self.count += 1

    @asynccontextmanager
    async def _only(self) -> AsyncIterator[None]:
        if self._one.locked():  # [I2]
            raise SandboxError("Another edit of yours is being looked at. Wait a moment.", "busy")
        async with self._one:
            yield

    async def _checked(self, policies: Policies) -> Checked:
        async with self._checks:  # [I2]
            return await check(policies.policies, policies.schema, policies.entities, self._limits)

    async def _put_in_force(self, policies: Policies) -> None:
        before = self.policies
        await asyncio.to_thread(policies.write, self._folder, before)
        wanted, until = policies.digest, time.monotonic() + _IN_FORCE_WITHIN
        while (now := self._in_force()) != wanted:
            if now is None or time.monotonic() > until:
                await asyncio.to_thread(before.write, self._folder, policies)  # [I3]
                raise SandboxError("The worker did not take these policies. The ones before stay in force.", "busy")
            await asyncio.sleep(_LOOK)
        self.policies = policies


def texts_of(files: Sequence[str], policies: Policies, original: Policies | None = None) -> dict[str, Any]:
    """Policies as plain data.

    Args:
        files: Which of them, in this order.
        policies: As they are.
        original: As they were, if that is something else.
    """
    before = original or policies
    return {
        "files": [
            {"name": name, "text": policies.policies[name], "original": before.policies[name]}
            for name in files
            if name in policies.policies
        ],
        "difference": before.difference(policies),
    }
