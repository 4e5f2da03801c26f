"""What an authority service is configured with: ``authority.toml``.

Paths in it are relative to the file. What is not known there is refused.
"""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exequatur.authority.api import MAX_BODY_BYTES
from exequatur.errors import ConfigurationError
from exequatur.settings import Interval

_MAX_FILE = 1024 * 1024
LISTEN = r"\A(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):[0-9]{1,5}\z"
"""``host:port``."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(_Table):
    """Certificate and key of the service, and whose client certificates it takes."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False


class Limits(_Table):
    """How much one address may ask for; each process counts for itself."""

    per_address: Annotated[float, Field(gt=0, le=1_000_000)] = 200.0
    """Requests a second, on average."""
    burst: Annotated[float, Field(ge=1, le=3600)] = 4.0
    """Seconds' worth of requests that may come at once."""
    body: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = MAX_BODY_BYTES
    """Bytes."""
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2000


class ServiceLimits(Limits):
    """The same, and how much one caller may ask for."""

    per_caller: Annotated[float, Field(gt=0, le=1_000_000)] = 50.0
    """Requests a second of one principal, on average."""
    threads: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests that are decided at the same time."""
    polls: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Requests that wait long for the revocation feed at the same time; others wait for a second."""


class Listening(_Table):
    """Where a service is reached, which the authority and the console have in common."""

    listen: Annotated[str, Field(pattern=LISTEN)]
    url: str | None = None
    access_log: Path | None = None
    tls: Tls | None = None

    @model_validator(mode="after")
    def _reached_safely(self) -> Self:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"listen: there is no port {self.port}")
        if self.tls is None and not is_loopback(self.host):
            raise ValueError(
                f"listen: {self.host} is reached over a network, and tokens in the clear are anybody's; "
                "add [tls] with cert and key, or listen on 127.0.0.1"
            )
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment:
                raise ValueError("url: write it as https://HOST[:PORT]")
            if "@" in parts.netloc:
                raise ValueError("url: it has a user in it, and everybody reads it; write it as https://HOST[:PORT]")
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                raise ValueError("url: only https is safe beyond this machine")
        if self.tls is not None and self.tls.client_required and self.tls.client_ca is None:
            raise ValueError("tls: client_required needs client_ca")
        return self

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class AuthorityConfig(Listening):
    """An authority service.

    Args:
        state: State folder, with keys, trust anchors and evidence.
        policies: Folder, bundle file or URL, as a plugin takes it.
        identity: Who is who: the file that ``exequatur identity check`` checks.
        listen: ``host:port``; port 0 takes a free one.
        url: What others reach it by; told in the metadata.
        bundles: Folder of released bundle files that are handed to workers.
        bundles_for: To ``callers`` with a credential only, or to ``everybody`` who reaches the service.
        access_log: File of the access log; standard output without it.
        grace: How long requests may go on after it was told to stop.
        settings: Settings, as ``exequatur.toml`` has them.
    """

    state: Path
    policies: str
    identity: Path
    listen: Annotated[str, Field(pattern=LISTEN)] = "127.0.0.1:8443"
    bundles: Path | None = None
    bundles_for: Literal["callers", "everybody"] = "callers"
    grace: Interval = Field(default="10s", validate_default=True)
    limits: ServiceLimits = ServiceLimits()
    settings: dict[str, Any] = Field(default_factory=dict)


def read_config(path: Path) -> AuthorityConfig:
    """Read ``authority.toml``.

    Raises:
        ConfigurationError: It cannot be read, or something in it cannot work; the message names it.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ValueError("larger than 1 MiB")
        document = tomllib.loads(data.decode())
    except OSError as err:
        raise ConfigurationError(f"{path} cannot be read: {err.strerror or err}; name another with --config") from err
    except (ValueError, RecursionError) as err:
        raise ConfigurationError(f"{path} is not valid TOML: {err}; correct it there") from None
    try:
        config = AuthorityConfig.model_validate(document)
    except ValidationError as err:
        lines = [
            f"{path}: {'.'.join(map(str, each['loc'])) or 'file'}: {each['msg'].removeprefix('Value error, ')}"
            for each in err.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(lines[:5])) from None
    return _absolute(config, path.absolute().parent)


def _absolute(config: AuthorityConfig, base: Path) -> AuthorityConfig:
    """The same with paths that do not depend on the working directory."""
    paths = {
        name: base / value
        for name in ("state", "identity", "bundles", "access_log")
        if (value := getattr(config, name)) is not None
    }
    tls = config.tls
    if tls is not None:
        files = {name: base / value for name in ("cert", "key", "client_ca") if (value := getattr(tls, name))}
        tls = tls.model_copy(update=files)
    local = "://" not in config.policies and not config.policies.startswith("store:")
    policies = str(base / config.policies) if local else config.policies
    return config.model_copy(update={**paths, "tls": tls, "policies": policies})


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
