"""Which revocation feed a command is about: options, and the feed that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.errors import ConfigurationError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.authority.connection import Connection
    from exequatur.authority.feed_source import AuthoritySource
    from exequatur.revocation.revocations import OwnRevocations
    from exequatur.settings import Settings
    from exequatur.statements.trust import TrustStore

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".exequatur"),
        show_default=True,
        help="The state folder of the authority; with --authority, a folder that remembers what was learned.",
    ),
    click.option("--authority", "url", metavar="URL", help="An authority service instead; its policies decide."),
    click.option("--token-file", type=_FILE, help="Your token for the authority service."),
    click.option("--authority-cert", "cert", type=_FILE, help="Your certificate for the authority service, as PEM."),
    click.option("--authority-key", "key_file", type=_FILE, help="Its key."),
    click.option("--authority-ca", "ca", type=_FILE, help="Who may have signed the service's certificate, as PEM."),
)


@dataclass(frozen=True)
class Place:
    """Where a feed is kept; fields are the options."""

    state: Path
    url: str | None
    token_file: Path | None
    cert: Path | None
    key_file: Path | None
    ca: Path | None

    def settings(self) -> Settings:
        """The settings of the environment and of ``exequatur.toml``.

        Raises:
            ConfigurationError: They cannot be used, or the options contradict each other.
        """
        from exequatur.settings import Settings

        if (self.cert is None) != (self.key_file is None):
            raise ConfigurationError("--authority-cert and --authority-key go together; give both or none")
        if self.url is None and (self.token_file or self.cert or self.ca):
            raise ConfigurationError("--token-file, --authority-cert and --authority-ca go with --authority")
        if self.url is not None and not (self.token_file or self.cert):
            raise ConfigurationError(
                "--authority needs to know who asks: give --token-file, or --authority-cert and --authority-key"
            )
        return Settings.load()

    def own(self, settings: Settings) -> tuple[OwnRevocations, TrustStore]:
        """The feed of the state folder, and the anchors that its heads verify with.

        Raises:
            ConfigurationError: There is no state folder, or it cannot be used.
        """
        from exequatur.authority.feed import own_revocations
        from exequatur.authority.state import open_state

        if not (self.state / "issuer").is_file():
            raise ConfigurationError(
                f"{self.state} is no state folder of an authority; name it with --state, or a service with --authority"
            )
        state = open_state(self.state)
        return own_revocations(state, settings), state.trust

    def service(self, settings: Settings) -> tuple[AuthoritySource, Connection]:
        """The feed of the authority service.

        Raises:
            ConfigurationError: The URL, the token or a certificate cannot be used.
        """
        from exequatur.authority.api import shown
        from exequatur.authority.connection import Connection
        from exequatur.authority.feed_source import AuthoritySource
        from exequatur.identity.sources import TokenFile

        timeout = settings.authority_timeout.total_seconds()
        pair = None if self.cert is None else (str(self.cert), str(self.key_file))
        ca = settings.authority_ca if self.ca is None else str(self.ca)
        connection = Connection(self.url or "", timeout=timeout, ca=ca, certificate=lambda: pair)
        token = None if self.token_file is None else TokenFile(self.token_file)

        def headers() -> Mapping[str, str]:
            return shown(token.credential() if token is not None else None)

        return AuthoritySource(connection, headers, timeout=timeout), connection


def with_place(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a feed, as one Place."""

    @wraps(command)
    def collected(**options: Any) -> None:
        place = Place(**{name: options.pop(name) for name in Place.__dataclass_fields__})
        command(place=place, **options)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected
