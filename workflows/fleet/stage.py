"""What the scenes of the fleet stand on: the parts, the terminal, and how clients fared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from temporalio.client import Client

from workflows.fleet.parts import Fleet, until
from workflows.processes import Child
from workflows.terminal import Terminal

AUTHORITY_READY = "The authority serves"


@dataclass(frozen=True)
class Fared:
    """How one run of a client fared.

    Args:
        id: Workflow id.
        started: Whether there was a grant for it.
        how: ``completed``, or the type of the failure.
        message: Of the failure.
        policies: Ids of the policies that a denial names.
    """

    id: str
    started: bool
    how: str
    message: str = ""
    policies: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.how} by {', '.join(self.policies)}" if self.policies else self.how


@dataclass
class Stage:
    """What a scene uses."""

    fleet: Fleet
    terminal: Terminal
    stranger: Client
    """A plain Temporal client, to look at histories."""

    def say(self, text: str) -> None:
        self.terminal.say(text)

    def fact(self, text: str) -> None:
        self.terminal.fact(text)

    def child(self, name: str) -> Child:
        return self.fleet.children[name]

    def refunds(self) -> list[tuple[str, Decimal]]:
        return self.fleet.ledger.refunds()

    async def run(self, name: str, token: Path, *options: str) -> Fared:
        """Let a client process start one run, and wait for its end."""
        client = self.fleet.start_client(name, token, *options)
        [fared] = await self.fared(client)
        return fared

    async def fared(self, client: Child) -> list[Fared]:
        """Wait for a client process to end, and tell how its runs fared.

        Raises:
            RuntimeError: It broke.
        """
        await until(f"{client.name} has ended", lambda: client.ended)
        lines = [line for line in client.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
        if not lines:
            raise RuntimeError(f"{client.name} told nothing: {client.tail()}")
        found = [_fared(json.loads(line)) for line in lines]
        if len(found) == 1:
            self.fact(f"{found[0].id}: {found[0]}" + (f": {found[0].message}" if found[0].message else ""))
        return found

    async def ready(self, *names: str) -> None:
        """Wait until workers can authorize."""
        for name in names:
            await until(f"{name} can authorize", lambda name=name: self.standing(name) == "")  # type: ignore[misc]

    def standing(self, name: str) -> str | None:
        """Why a worker can authorize nothing; empty when it can, ``None`` when it does not say."""
        try:
            [file] = (self.fleet.folder / f"state-{name}" / "in-force").glob("*.json")
            said = json.loads(file.read_text(encoding="utf-8"))["standing"]
        except (OSError, ValueError, KeyError):
            return None
        unavailable: str = said.get("unavailable", "")
        return unavailable

    async def keep_histories(self) -> list[Path]:
        """Write the history of each run to a file."""
        files = []
        async for run in self.stranger.list_workflows():
            history = await self.stranger.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
            file = self.fleet.folder / "histories" / f"{run.id}.json"
            await asyncio.to_thread(file.write_text, history.to_json(), encoding="utf-8")
            files.append(file)
        return sorted(files)


def among(fared: Sequence[Fared], **having: Any) -> list[Fared]:
    """Those with these values."""
    return [each for each in fared if all(getattr(each, name) == value for name, value in having.items())]


def _fared(told: dict[str, Any]) -> Fared:
    return Fared(told["id"], told["started"], told["how"], told.get("message", ""), tuple(told.get("policies", ())))
