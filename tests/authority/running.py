"""An authority service in this process, on a free port of the loopback interface, and those who ask it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from exequatur.assembly import Parts, embedded
from exequatur.authority import api
from exequatur.authority.service.build import build
from exequatur.authority.service.config import read_config
from exequatur.authority.service.parts import Service
from exequatur.authority.service.serve import serve
from exequatur.identity.config import read_identity
from exequatur.identity.credential import LOCAL_TYPE, Credential
from exequatur.lineage.record import read
from exequatur.settings import Settings
from exequatur.statements.encoding import digest

POLICIES = """
@id("anybody") permit(principal, action, resource);
@id("not-eve") @reason("eve has left") forbid(principal == User::"eve", action, resource);
@id("no-actor") forbid(principal, action == Action::"workflow.start", resource)
  when { context has acting && context.acting.by == "Service::\\"untrusted\\"" };
@id("queues") forbid(principal, action == Action::"worker.enroll", resource)
  when { context.worker.task_queues.contains("payroll") };
@id("switch") forbid(principal, action in [Action::"revocation.add", Action::"revocation.lift"], resource)
  unless { !context.revocation.everything || principal == User::"boss" };
@id("evaluators") forbid(principal, action == Action::"policy.evaluate", resource)
  unless { principal == Service::"pep" };
@id("big") forbid(principal, action == Action::"transfer", resource) unless { context.args.amount < 100 };
@id("night") forbid(principal, action == Action::"transfer", resource) unless { context.shift == "day" };
"""
IDENTITY = """
[[verifier]]
name = "dev"
kind = "local"
[[workload]]
principal = 'Service::"worker-*"'
path = "fleet/one"
"""
LIMITS = "[limits]\nper_caller = 100000\nper_address = 100000\n"
DANA, EVE, BOSS = 'User::"dana"', 'User::"eve"', 'User::"boss"'
WORKER, PEP = 'Service::"worker-1"', 'Service::"pep"'


@dataclass
class Running:
    """A service that runs.

    Args:
        url: Of the service.
        folder: Of its configuration.
        service: Its parts.
        parts: Of the authority behind it.
        client: Connects to it.
        stop: Tells it to stop.
    """

    url: str
    folder: Path
    service: Service
    parts: Parts
    client: httpx.AsyncClient
    stop: asyncio.Event

    async def ask(
        self, method: str, path: str, who: str | None = DANA, body: Any = None, **more: Any
    ) -> httpx.Response:
        """Ask as somebody; with ``subject`` on somebody's behalf."""
        subject = more.pop("subject", None)
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers |= api.shown(local(who), local(subject) if subject else None)
        if body is not None:
            more["json"] = body
        return await self.client.request(method, path, headers=headers, **more)

    async def exchange(self, who: str = DANA, **changes: Any) -> httpx.Response:
        """Ask for a grant."""
        return await self.client.post(api.TOKEN_PATH, data=form(who, **changes))

    def records(self, kind: str = "authority") -> list[dict[str, Any]]:
        """What the evidence journals hold."""
        files = (self.folder / "state" / "journal").glob("*.db")
        return [json.loads(each.body) for file in files for each in read(file) if each.kind == kind]

    def log(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def local(who: str) -> Credential:
    return Credential(who, LOCAL_TYPE)


def workflow(**changes: Any) -> dict[str, Any]:
    """Details of a workflow start."""
    details = {
        "type": "temporal_workflow",
        "namespace": "default",
        "workflow_type": "Order",
        "workflow_id": "order-1",
        "task_queue": "orders",
        "input": digest("input"),
        "reuse": "once",
    }
    return details | changes


def message(**changes: Any) -> dict[str, Any]:
    """Details of a signal."""
    details = {
        "type": "temporal_message",
        "namespace": "default",
        "kind": "signal",
        "target": "order-1",
        "name": "cancel",
        "args": digest("args"),
    }
    return details | changes


def form(who: str = DANA, **changes: Any) -> dict[str, str]:
    """A token exchange; ``None`` leaves a parameter out."""
    fields = {
        "grant_type": api.EXCHANGE,
        "subject_token": who,
        "subject_token_type": LOCAL_TYPE,
        "authorization_details": [workflow()],
    }
    fields |= changes
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
        if value is not None
    }


@asynccontextmanager
async def running(
    folder: Path,
    *,
    policies: str = POLICIES,
    identity: str = IDENTITY,
    config: str = "",
    listen: str = "127.0.0.1:0",
    settings: Mapping[str, Any] | None = None,
    client: Mapping[str, Any] | None = None,
) -> AsyncIterator[Running]:
    """Run a service.

    Args:
        folder: Its configuration and state, which may be there already.
        policies: Cedar; empty for those that are there.
        identity: The identity file.
        config: More of ``authority.toml``.
        listen: Where.
        settings: Of the authority.
        client: Options of the HTTP client.
    """
    if policies:
        (folder / "policies").mkdir(exist_ok=True)
        (folder / "policies" / "main.cedar").write_text(policies)
    (folder / "identity.toml").write_text(identity)
    (folder / "authority.toml").write_text(
        f'state = "state"\npolicies = "policies"\nidentity = "identity.toml"\nlisten = "{listen}"\n'
        f'access_log = "access.log"\n{config}'
    )
    read_in = read_config(folder / "authority.toml")
    chosen = Settings(**(settings or {}))
    parts = embedded(read_in.state, read_in.policies, chosen)
    service = build(read_in, chosen, parts.gate, parts.authority, read_identity(read_in.identity))
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    served = asyncio.ensure_future(serve(service, parts.serving, url.set_result, stop))
    await asyncio.wait([served, url], return_when=asyncio.FIRST_COMPLETED)
    if served.done():
        await served
    try:
        async with httpx.AsyncClient(base_url=url.result(), timeout=30, **(client or {})) as connected:
            yield Running(url.result(), folder, service, parts, connected, stop)
    finally:
        stop.set()
        await served


async def eventually(condition: Any, within: float = 60.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
