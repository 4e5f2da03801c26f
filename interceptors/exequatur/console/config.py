"""What a console is configured with: options of ``exequatur console``, and ``console.toml`` for shared use.

Paths in the file are relative to it. What is not known there is refused.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationError, model_validator
from pydantic_core import ErrorDetails

from exequatur.authority.service.config import LISTEN, Limits, Listening, is_loopback
from exequatur.console.sandbox import limits as sandbox
from exequatur.errors import ConfigurationError
from exequatur.settings import Interval

_MAX_FILE = 1024 * 1024
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (they are refused)
_SENT = re.compile(r"[!-~]+\Z")
_PATHS = ("state", "trust", "identity", "access_log")
Url = Annotated[str, Field(max_length=2000, pattern=r"\Ahttps?://[^\s]+\z")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Login(_Table):
    """The OpenID provider that people log in with.

    Args:
        issuer: As it calls itself in ``iss``.
        client_id: Of this console, there.
        client_secret_env: Name of the environment variable with the client's secret, where it has one.
        scopes: What is asked for besides ``openid``.
        prompt: What the provider is to ask the person, such as ``select_account``.
    """

    issuer: Url
    client_id: Annotated[str, Field(min_length=1, max_length=500)]
    client_secret_env: Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\z")] | None = None
    scopes: tuple[Annotated[str, Field(pattern=r"\A[!#-\[\]-~]+\z")], ...] = ("profile", "email")
    prompt: Annotated[str, Field(pattern=r"\A[a-z_ ]+\z")] | None = None

    @model_validator(mode="after")
    def _safe(self) -> Self:
        parts = urlsplit(self.issuer)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("only https is safe beyond this machine")
        return self


class ConsoleLimits(Limits):
    """How much one address may ask for."""

    body: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 500


class ConsoleConfig(Listening):
    """A console.

    Args:
        state: State folder of the authority: its keys sign approvals and revocations.
        policies: The policies in force: folder, bundle file or URL, as a plugin takes it. They decide who sees what.
        evidence: More evidence: journal folders, or URLs of evidence stores.
        trust: ``trust.jwks``, where it is not that of the state folder.
        authority: URL of an authority service, whose health is shown.
        address: ``host:port`` of the Temporal server.
        namespaces: The namespaces that are shown, the first by default.
        temporal_ui: URL of the Temporal UI, for links to it.
        listen: ``host:port``; port 0 takes a free one.
        url: What browsers reach it by, where that is another name.
        principal: Who looks, as ``Type::"id"``, where people do not log in.
        login: Where people log in.
        identity: Who is who: makes a principal of a person's ID token.
        public: Everybody may look, at what names nobody, and change nothing.
        demo: ``module:name`` of the sandbox that the demo page offers.
        converter: ``module:name`` of the workers' data converter, where payloads are encoded.
        proxies: Addresses and networks of proxies that say for whom they ask (``X-Forwarded-For``).
        demo_limits: How much the visitors of the demo page may use.
        grace: How long requests may go on after it was told to stop.
        access_log: File of the access log; none is kept without it.
        monitoring_token_env: Name of the environment variable with the token by which metrics and health are read.
    """

    state: Path = Path(".exequatur")
    policies: str = "policies"
    evidence: tuple[str, ...] = ()
    trust: Path | None = None
    authority: Url | None = None
    address: str = "localhost:7233"
    namespaces: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)] = ("default",)
    temporal_ui: Url | None = None
    listen: Annotated[str, Field(pattern=LISTEN)] = "127.0.0.1:8400"
    url: Url | None = None
    principal: str | None = None
    login: Login | None = None
    identity: Path | None = None
    public: bool = False
    demo: Annotated[str, Field(pattern=r"\A[\w.]+:\w+\z")] | None = None
    converter: Annotated[str, Field(pattern=r"\A[\w.]+:\w+\z")] | None = None
    grace: Interval = Field(default="2s", validate_default=True)
    monitoring_token_env: Annotated[str, Field(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\z")] | None = None
    limits: ConsoleLimits = ConsoleLimits()
    proxies: tuple[IPvAnyNetwork, ...] = ()
    demo_limits: sandbox.Limits = sandbox.Limits()

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.url is not None and urlsplit(self.url).path.strip("/"):
            raise ValueError("url: write it as https://HOST[:PORT]")
        if self.url is None and self.host in _EVERYWHERE:
            raise ValueError(f"listen: {self.host} is every address of this machine; say by url how browsers reach it")
        if any(each.prefixlen == 0 for each in self.proxies):
            raise ValueError("proxies: a network that everybody is in; name the proxies")
        if (self.login is None) != (self.identity is None):
            raise ValueError("login and identity go together: the one proves who it is, the other says whom that makes")
        if self.public and self.principal is not None:
            raise ValueError("public and principal (--as): whoever looks at a public console is nobody; leave out one")
        if self.public and self.login is not None:
            raise ValueError("public and login: a public console has no people who log in; run one of each")
        if not is_loopback(self.host) and self.login is None and not self.public:
            raise ValueError(
                f"listen: {self.host} is reached over a network; add [login] and identity, or show only what is public"
            )
        return self

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders in which workers may report: the state folder, and those of more evidence."""
        return (self.state, *(Path(each) for each in self.evidence if "://" not in each))

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS, here or at a proxy before it."""
        return self.tls is not None or (self.url or "").startswith("https://")

    @property
    def pinned(self) -> bool:
        """Whether browsers are told to use nothing but TLS for its name; not for one that other programs have, too."""
        name = self.host if self.url is None else urlsplit(self.url).hostname
        return self.secure and not is_loopback(name or "")

    def secret(self) -> str | None:
        """The client's secret at the OpenID provider.

        Raises:
            ConfigurationError: The variable is not set.
        """
        if self.login is None or self.login.client_secret_env is None:
            return None
        return _variable(self.login.client_secret_env, "login.client_secret_env")

    def monitoring(self) -> str | None:
        """The token by which metrics and health are read.

        Raises:
            ConfigurationError: The variable is not set, or the token can be guessed.
        """
        if self.monitoring_token_env is None:
            return None
        token = _variable(self.monitoring_token_env, "monitoring_token_env")
        if len(token) < 20 or not _SENT.match(token):
            raise ConfigurationError(
                f"monitoring_token_env: {self.monitoring_token_env} has to be 20 letters and digits or more"
            )
        return token


def port_of(url: str) -> int:
    """The port of a URL."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _variable(name: str, setting: str) -> str:
    if not (value := os.environ.get(name)):
        raise ConfigurationError(f"{setting}: the environment variable {name} is not set")
    return value


def read_config(path: Path | None, given: Mapping[str, Any]) -> ConsoleConfig:
    """Make a configuration of ``console.toml`` and what was given besides.

    Args:
        path: The file, if there is one.
        given: By name; it stands before what the file says.

    Raises:
        ConfigurationError: The file cannot be read, or something cannot work; the message names it.
    """
    document = {} if path is None else _absolute(_read(path), path.absolute().parent)
    try:
        return ConsoleConfig.model_validate({**document, **given})
    except ValidationError as err:
        where = "The console" if path is None else str(path)
        lines = [
            f"{where}: {'.'.join([*map(str, each['loc']), ''])[:-1]}{': ' if each['loc'] else ''}{_fault(each)}"
            for each in err.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(lines[:5])) from None


def _fault(error: ErrorDetails) -> str:
    """What is wrong, in words for who writes the file."""
    if error["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return error["msg"].removeprefix("Value error, ")
    *tables, key = map(str, error["loc"])
    known = _keys(ConsoleConfig)
    for name in tables:
        kinds = (known[name], *get_args(known[name]))
        known = next(keys for each in kinds if (keys := _keys(each)))
    near = get_close_matches(key, known, 1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; there are {', '.join(sorted(known))}"


def _keys(table: Any) -> dict[str, Any]:
    """The keys of a table, with the types of their values; nothing for what is none."""
    if isinstance(table, type) and issubclass(table, BaseModel):
        return {name: each.annotation for name, each in table.model_fields.items()}
    return {each.name: each.type for each in fields(table)} if is_dataclass(table) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ValueError("larger than 1 MiB")
        return tomllib.loads(data.decode())
    except OSError as err:
        raise ConfigurationError(f"{path} cannot be read: {err.strerror or err}; name another with --config") from err
    except (ValueError, RecursionError) as err:
        raise ConfigurationError(f"{path} is not valid TOML: {err}; correct it there") from None


def _absolute(document: dict[str, Any], base: Path) -> dict[str, Any]:
    """The same with paths that do not depend on the working directory."""
    made = dict(document)
    for name in _PATHS:
        if isinstance(value := document.get(name), str):
            made[name] = base / value
    if isinstance(tls := document.get("tls"), dict):
        made["tls"] = {
            name: base / value if isinstance(value, str) and name != "client_required" else value
            for name, value in tls.items()
        }
    policies = document.get("policies")
    if isinstance(policies, str) and "://" not in policies and not policies.startswith("store:"):
        made["policies"] = str(base / policies)
    evidence = document.get("evidence")
    if isinstance(evidence, list):
        made["evidence"] = [
            str(base / each) if isinstance(each, str) and "://" not in each else each for each in evidence
        ]
    return made
