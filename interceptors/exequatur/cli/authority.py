"""``exequatur authority``: the authority as a service of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from exequatur.errors import ConfigurationError

CONFIG = Path("authority.toml")


@click.group()
def authority() -> None:
    """Run the authority that issues grants, permits and worker credentials over HTTP.

    Exit codes: 0 it was told to stop, 2 it could not be done.
    """


@authority.command("serve")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CONFIG,
    show_default=True,
    help="What it is configured with; docs/authority.md lists the keys.",
)
def serve_authority(config: Path) -> None:
    """Serve until told to stop (SIGTERM or Ctrl+C).

    The state folder holds the keys: whoever can read it is the authority. Callers show credentials of the identity
    file's issuers; policies decide what each may start, send, approve and enrol. Every decision is in the evidence
    journal before it is answered.

    Standard output gets the URL once it is reachable, and then the access log, one JSON object a line.
    """
    from exequatur.cli.logs import log_to_stderr

    try:
        from exequatur.authority.service.build import build
        from exequatur.authority.service.config import read_config
        from exequatur.authority.service.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error}; run: pip install 'exequatur[authority]'") from error
    from exequatur.assembly import embedded
    from exequatur.authority.state import name_service
    from exequatur.identity.config import read_identity
    from exequatur.settings import Settings

    log_to_stderr()
    read = read_config(config)
    settings = Settings.load(**read.settings)
    identity = read_identity(read.identity)
    if not identity.believes_names:  # one for development keeps a name that says so
        name_service(read.state)
    parts = embedded(read.state, read.policies, settings)
    service = build(read, settings, parts.gate, parts.authority, identity)
    asyncio.run(serve(service, parts.serving, lambda url: click.echo(f"The authority serves {url}")))
