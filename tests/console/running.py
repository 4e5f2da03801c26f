"""A console in this process, on a free port of the loopback interface, and those who look at it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from temporalio.client import Client

from exequatur.authority.state import open_state
from exequatur.console.config import read_config
from exequatur.console.parts import Console
from exequatur.console.serve import build, serve
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import read
from exequatur.settings import Settings
from exequatur.statements.encoding import compact_json, digest

REFERENCE = Path(__file__).resolve().parents[2] / "policies"
KIM, FAY, MALLORY = 'User::"kim"', 'User::"fay"', 'User::"mallory"'
NOWHERE = "127.0.0.1:1"
"""No Temporal server answers there."""


@dataclass
class Running:
    """A console that runs.

    Args:
        url: Of the console, without a path.
        opening: What it told to open: with a token, where people do not log in.
        folder: With its state folder.
        console: Its parts.
        stop: Tells it to stop.
    """

    url: str
    opening: str
    folder: Path
    console: Console
    stop: asyncio.Event

    def link(self, who: str = KIM) -> str:
        """Another link that opens a session, for somebody else."""
        from exequatur.identity.principal import Principal

        return f"{self.url}/start?token={self.console.sessions.offer(Principal.parse(who))}"

    @asynccontextmanager
    async def browser(self, who: str | None = KIM) -> AsyncIterator[Looking]:
        """Somebody who looks over HTTP, with a session; without one for ``None``."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            looking = Looking(client, self.url)
            if who is not None:
                answered = await client.get(self.link(who))
                assert answered.status_code == 200
                await client.get("/left")  # comes back with the cookie, as the page has a browser do
            yield looking

    def records(self, kind: str = "authority") -> list[dict[str, Any]]:
        """What the evidence journals hold."""
        files = (self.folder / "state" / "journal").glob("*.db")
        return [json.loads(each.body) for file in files for each in read(file) if each.kind == kind]


@dataclass
class Looking:
    """A client with the cookies of a session."""

    client: httpx.AsyncClient
    url: str

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, **more)

    async def csrf(self) -> str:
        """The token that a form brings along."""
        found = re.search(r'data-csrf="([^"]+)"', (await self.get("/governance")).text)
        return found[1] if found else ""

    async def post(
        self, path: str, form: Mapping[str, str], *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form as a page of the console does."""
        body = {"csrf": await self.csrf(), **form}
        return await self.client.post(path, data=body, headers={"Origin": self.url, **(headers or {})})


@asynccontextmanager
async def running(
    folder: Path,
    *,
    policies: str | Path = REFERENCE,
    target: str = NOWHERE,
    config: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Running]:
    """Run a console.

    Args:
        folder: Its state is in ``state`` there, which may be there already.
        policies: Cedar text, or the folder of policies.
        target: The Temporal server.
        config: More of its configuration.
        settings: Of the authority.
    """
    if isinstance(policies, str):
        (folder / "policies").mkdir(exist_ok=True)
        (folder / "policies" / "main.cedar").write_text(policies)
        policies = folder / "policies"
    open_state(folder / "state")
    given = {
        "state": folder / "state",
        "policies": str(policies),
        "address": target,
        "listen": "127.0.0.1:0",
        "principal": None if (config or {}).get("public") else KIM,
        "limits": {"per_address": 100_000, "body": 4 * 1024 * 1024},
        **(config or {}),
    }

    async def connect(namespace: str) -> Client:
        return await Client.connect(target, namespace=namespace)

    console = build(read_config(None, given), connect, Settings(**(settings or {})))
    stop, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    served = asyncio.ensure_future(serve(console, told.set_result, stop))
    await asyncio.wait([served, told], return_when=asyncio.FIRST_COMPLETED)
    if served.done():
        await served
    try:
        opening = told.result()
        yield Running(console.standing.origin, opening, folder, console, stop)
    finally:
        stop.set()
        await served


def decision(**changes: Any) -> bytes:
    """The body of a decision record, as a worker writes one."""
    body = {
        "request": digest("request"),
        "request_digest": digest("token"),
        "workflow_id": "order-1",
        "run_id": "0198f3c2-0000-7000-8000-000000000001",
        "activity_id": "1",
        "activity_type": "refund_order",
        "attempt": 1,
        "principal": 'Agent::"ops-bot"',
        "vouched": {"attributes": {}, "parents": []},
        "args": digest("arguments"),
        "arguments": "{}",
        "fault": None,
        "facts": "{}",
        "decision": "allow",
        "enforced": True,
        "reason": None,
        "policies": ["refunds-by-operations"],
        "bundle": digest("bundle"),
        "bundle_sequence": 1,
    }
    return compact_json(body | changes)


def write(folder: Path, *bodies: bytes, kind: str = "decision") -> None:
    """Write records into a journal of a state folder, and close it."""
    with Journal.open(folder / "state" / "journal") as journal:
        for body in bodies:
            journal.enqueue(kind, body)
