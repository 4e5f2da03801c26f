"""``exequatur console``: the pages in the browser."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.cli.policy.finding import POLICIES
from exequatur.cli.server import Server, with_server
from exequatur.errors import ConfigurationError

if TYPE_CHECKING:  # at run time when a command connects
    from temporalio.client import Client

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--config", type=_FILE, help="console.toml, for shared use; options stand before what it says.")
@click.option("--state", type=_FOLDER, help="The state folder of the workers' authority.  [default: .exequatur]")
@click.option(
    "--policies",
    metavar="PLACE",
    help=f"The policies in force: a folder, a bundle file or its URL.  [default: {POLICIES}]",
)
@click.option(
    "--evidence", multiple=True, metavar="PLACE", help="More evidence: a folder of journals, or the URL of a store."
)
@click.option("--trust", type=_FILE, help="The authority's trust.jwks, where it is not that of the state folder.")
@click.option("--authority", metavar="URL", help="An authority service whose health is shown.")
@click.option("--temporal-ui", metavar="URL", help="The Temporal UI, for links to it.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.  [default: 127.0.0.1:8400]")
@click.option("--as", "principal", metavar='TYPE::"ID"', help='Who looks.  [default: User::"<you on this machine>"]')
@click.option("--public", is_flag=True, help="Everybody may look, at what names nobody, and change nothing.")
@click.option("--demo", metavar="MODULE:NAME", help="The sandbox that the demo page offers; it is imported.")
@click.option(
    "--converter",
    metavar="MODULE:NAME",
    help="The workers' data converter, where their payloads are encoded; it is imported, so its code runs.",
)
@with_server
def console(server: Server, config: Path | None, public: bool, **options: Any) -> None:
    """See what happens: decisions as they are made, runs and their proofs, health, approvals, revocations.

    \b
      exequatur console --as 'User::"kim"'
      exequatur console --config console.toml

    It listens on this machine only and prints a link that opens one session; whoever has the link looks as the
    principal of --as. The policies decide what that principal sees (console.view) and does (approval.approve,
    approval.reject, revocation.add, revocation.lift), and what is done is in the evidence. For shared use, let people
    log in: docs/console.md.

    Exit codes: 0 it was told to stop, 2 it could not be done.
    """
    from exequatur.cli.logs import log_to_stderr

    try:
        from exequatur.authority.service.config import is_loopback
        from exequatur.console.config import read_config
        from exequatur.console.serve import build, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{error}; run: pip install 'exequatur[console]'") from error
    from exequatur.settings import Settings

    log_to_stderr()
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if public:
        given["public"] = True
    context = click.get_current_context()
    for name, value in (("address", server.address), ("namespaces", (server.namespace,))):
        option = "namespace" if name == "namespaces" else name
        if config is None or context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT:
            given[name] = value
    read = read_config(config, given)

    async def connect(namespace: str) -> Client:
        from dataclasses import replace

        return await replace(server, namespace=namespace, address=read.address).connect()

    for place in read.evidence:
        if "://" not in place and not Path(place).exists():
            click.echo(f"Warning: --evidence {place}: it is not there; it is followed once it is.", err=True)
    built = build(read, connect, Settings.load())

    def told(url: str) -> None:
        click.echo(f"The console is at {url}")
        if read.url is None and is_loopback(read.host) and "SSH_CONNECTION" in os.environ:
            port = built.standing.port
            click.echo(f"From your own machine: ssh -L {port}:{read.host}:{port} <this host>, then open it", err=True)

    asyncio.run(serve(built, told))
