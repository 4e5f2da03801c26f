"""A real authority service in a process of its own, and somebody who stands between it and those who ask."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.serving import hosting

PERMIT_ALL = '@id("all") permit(principal, action, resource);\n'
IDENTITY = """\
[[verifier]]
name = "names"
kind = "local"

[[workload]]
principal = 'Service::"*"'
path = "workers/one"
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class AuthorityProcess:
    """``exequatur authority serve``, which may be ended and started again on the same port.

    Args:
        folder: Its state, policies, bundles and configuration.
        settings: As ``exequatur.toml`` has them.
        policies: What decides.
        identity: Who is who.
        tls: Paths of certificate and key.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    policies: str = PERMIT_ALL
    identity: str = IDENTITY
    tls: tuple[Path, Path] | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        for name in ("policies", "bundles"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "policies" / "main.cedar").write_text(self.policies)
        (self.folder / "identity.toml").write_text(self.identity)
        tls = ""
        if self.tls is not None:
            tls = f'\n[tls]\ncert = "{self.tls[0]}"\nkey = "{self.tls[1]}"\n'
        settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.settings.items())
        (self.folder / "authority.toml").write_text(
            f'state = "state"\npolicies = "policies"\nbundles = "bundles"\nidentity = "identity.toml"\n'
            f'access_log = "access.log"\nlisten = "127.0.0.1:{self.port}"\n{tls}\n'
            "[limits]\nper_caller = 100000\nper_address = 100000\n\n"
            f"[settings]\n{settings}"
        )

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self) -> None:
        """Start it, and wait until it is reachable."""
        command = [sys.executable, "-m", "exequatur.cli.main", "authority", "serve", "--config", "authority.toml"]
        with (self.folder / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment()
            )
        line = line_of(self.process, 30)
        assert self.url in line, (line, (self.folder / "stderr").read_text())

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
            self.process = None

    def run(self, *command: str) -> str:
        """Run another command of ours in its folder."""
        done = subprocess.run(
            [sys.executable, "-m", "exequatur.cli.main", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout


def environment() -> dict[str, str]:
    """This one's, without settings, and with the package of these tests."""
    package = Path(__import__("exequatur").__file__).parent.parent
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXEQUATUR_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(package), str(Path(__file__).parent.parent.parent)])}


def line_of(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""


Answer = Callable[[Request], Any]


class Between:
    """Somebody who reads and changes what goes over the wire.

    ``instead`` holds an answer for a path, which is given in the authority's stead; ``asked`` and ``answered`` change
    the body of a request or of an answer on its way, as JSON or as the fields of a form. ``seen`` lists what came by.
    While ``away`` is set, nothing gets through.
    """

    def __init__(self, url: str) -> None:
        self.target = url
        self.port = 0
        self.clear()

    def clear(self) -> None:
        self.away = False
        self.instead: dict[str, Answer] = {}
        self.asked: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.answered: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for there, _, body in self.seen if there == path]

    async def pass_on(self, request: Request) -> Response:
        path = request.url.path
        data = await request.body()
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        body = dict(parse_qsl(data.decode())) if form else json.loads(data) if data else {}
        self.seen.append((path, dict(request.headers), body))
        if self.away:
            return PlainTextResponse("Bad Gateway", 502)
        if path in self.instead:
            answer = self.instead[path](request)
            return await answer if asyncio.iscoroutine(answer) else answer
        if path in self.asked:
            changed = self.asked[path](body) or body
            data = urlencode(changed).encode() if form else json.dumps(changed).encode()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in ("host", "content-length", "connection")
        }
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{self.target}{path}?{request.url.query}"
            found = await client.request(request.method, url, content=data, headers=headers)
        content = found.content
        if path in self.answered and found.status_code == 200:
            said = json.loads(content)
            content = json.dumps(self.answered[path](said) or said).encode()
        kept = {name: value for name, value in found.headers.items() if name in ("content-type", "retry-after", "etag")}
        return Response(content, found.status_code, headers=kept)


@contextmanager
def between(url: str) -> Iterator[Between]:
    """Stand between, in a thread of its own."""
    middle = Between(url)
    app = Starlette(routes=[Route("/{path:path}", middle.pass_on, methods=["GET", "POST"])])
    with hosting(app) as middle.port:
        yield middle
