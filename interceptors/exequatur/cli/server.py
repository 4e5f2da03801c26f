"""Which Temporal server, and how to reach it: options by the names that the Temporal CLI has for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.errors import ConfigurationError, EvidenceError

if TYPE_CHECKING:  # at run time when a command connects
    from temporalio.client import Client

_REASON = re.compile(r'(?:message|error): "([^"]+)"')
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--address", envvar="TEMPORAL_ADDRESS", default="localhost:7233", show_default=True, show_envvar=True),
    click.option("--namespace", envvar="TEMPORAL_NAMESPACE", default="default", show_default=True, show_envvar=True),
    click.option(
        "--api-key",
        envvar="TEMPORAL_API_KEY",
        show_envvar=True,
        help="Prefer the variable: other users of this machine can read arguments.",
    ),
    click.option("--tls", is_flag=True, envvar="TEMPORAL_TLS", show_envvar=True, help="Implied by the options below."),
    click.option("--tls-cert", type=_FILE, envvar="TEMPORAL_TLS_CLIENT_CERT_PATH", show_envvar=True),
    click.option("--tls-key", type=_FILE, envvar="TEMPORAL_TLS_CLIENT_KEY_PATH", show_envvar=True),
    click.option("--tls-ca", type=_FILE, envvar="TEMPORAL_TLS_SERVER_CA_CERT_PATH", show_envvar=True),
    click.option("--tls-server-name", envvar="TEMPORAL_TLS_SERVER_NAME", show_envvar=True),
)


@dataclass(frozen=True)
class Server:
    """A Temporal server; fields are the options."""

    address: str
    namespace: str
    api_key: str | None
    tls: bool
    tls_cert: Path | None
    tls_key: Path | None
    tls_ca: Path | None
    tls_server_name: str | None

    async def connect(self) -> Client:
        """Connect.

        Raises:
            ConfigurationError: A certificate without its key, or the reverse.
            EvidenceError: The server cannot be reached.
        """
        from temporalio.client import Client
        from temporalio.service import RPCError, TLSConfig

        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key go together; give both or none")
        special = (self.tls_cert, self.tls_ca, self.tls_server_name)
        tls: TLSConfig | bool = self.tls or self.api_key is not None
        if any(option is not None for option in special):
            tls = TLSConfig(
                server_root_ca_cert=_bytes(self.tls_ca),
                domain=self.tls_server_name,
                client_cert=_bytes(self.tls_cert),
                client_private_key=_bytes(self.tls_key),
            )
        try:
            return await Client.connect(self.address, namespace=self.namespace, api_key=self.api_key, tls=tls)
        except (RuntimeError, ValueError, RPCError) as error:
            raise EvidenceError(
                f"{self.address}: cannot connect: {_why(error)}; start the server, or check --address and TLS"
            ) from error


def with_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a server, as one Server."""

    @wraps(command)
    def collected(**options: Any) -> None:
        server = Server(**{name: options.pop(name) for name in Server.__dataclass_fields__})
        command(server=server, **options)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


def _why(error: Exception) -> str:
    """What a person makes of an error of the transport, which tells of all its layers."""
    text = str(error)
    said = _REASON.findall(text) if "transport::Error" in text else []
    return said[-1][:1].lower() + said[-1][1:] if said else text


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
