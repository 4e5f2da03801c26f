"""``exequatur approvals``: what runs wait for people to agree to, and their answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from exequatur.cli.policy.finding import POLICIES
from exequatur.cli.server import Server, with_server
from exequatur.errors import ConfigurationError, ExequaturError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from temporalio.client import Client

    from exequatur.approvals import Listing, OpenChallenge, Trusted

_DENIED = 1
_ID = re.compile(r"-[A-Za-z0-9_-]{7,42}")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
_WORKFLOW = click.option(
    "--workflow-id", metavar="ID", help="Look at this workflow only. Shows at once what a list may show a little later."
)
_CONVERTER = click.option(
    "--converter",
    metavar="MODULE:NAME",
    help="The DataConverter or PayloadCodec that the workers use; it is imported, so its code runs.",
)
_STATE = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".exequatur"),
    show_default=True,
    help="The state folder of the workers' authority.",
)
_TRUST = click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The authority's trust.jwks, for those who have no state folder.",
)
_ANSWERING = (
    click.option(
        "--as", "who", required=True, metavar='TYPE::"ID"', help="Who answers, for example 'User::\"alice\"'."
    ),
    click.option("--reason", metavar="TEXT", help="A sentence for those who look later; it is signed, too."),
    _WORKFLOW,
    click.option(
        "--policies",
        default=str(POLICIES),
        show_default=True,
        metavar="PLACE",
        help="The policies in force: a folder, a bundle file, its URL, or store: and the URL of an evidence store.",
    ),
    _STATE,
    _CONVERTER,
)


class _ByIdCommand(click.Command):
    """Takes an id that begins with a dash, as one in 64 does, for what it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {name: each for each in self.get_params(ctx) for name in each.opts}
        ids: list[str] = []
        rest: list[str] = []
        for arg in args:
            before = options.get(rest[-1]) if rest else None
            valued = isinstance(before, click.Option) and not before.is_flag
            known = arg in options or arg in ctx.help_option_names
            (ids if _ID.fullmatch(arg) and not known and not valued else rest).append(arg)
        return super().parse_args(ctx, [*rest, "--", *ids] if ids and "--" not in rest else [*rest, *ids])


@click.group()
def approvals() -> None:
    """Answer what workflows wait for: activities that a policy permits only if people agree.

    ID is that of a list, or its first characters, eight or more. Everything that is shown was signed by a worker of
    yours; what was not is left out, and standard error says so.

    Exit codes: 0 done, 1 the policies do not let this person answer, 2 it could not be done.
    """


@approvals.command("list")
@click.option("--query", help="A Temporal visibility query that narrows the running workflows that are looked at.")
@_WORKFLOW
@_TRUST
@_STATE
@_CONVERTER
@_JSON
@with_server
def list_(
    server: Server,
    query: str | None,
    workflow_id: str | None,
    trust: Path | None,
    state_dir: Path,
    converter: str | None,
    as_json: bool,
) -> None:
    """List what people are asked: which activity, for whom, how many have agreed."""
    from exequatur.cli.challenges import listed, listing_document, shortcomings

    found = _found(server, _trusted(trust, state_dir), converter, query, workflow_id)
    if as_json:
        _echo_json(listing_document(found, time.time()))
    else:
        for line in listed(found, time.time()):
            click.echo(line)
    for line in shortcomings(found):
        click.echo(line, err=True)


@approvals.command(cls=_ByIdCommand)
@click.argument("id_", metavar="ID")
@_WORKFLOW
@_TRUST
@_STATE
@_CONVERTER
@_JSON
@with_server
def show(
    server: Server,
    id_: str,
    workflow_id: str | None,
    trust: Path | None,
    state_dir: Path,
    converter: str | None,
    as_json: bool,
) -> None:
    """Show one: who asks, which activity with which arguments, why, who must agree and who did, until when."""
    from exequatur.approvals import named
    from exequatur.cli.challenges import document, told

    each = named(_found(server, _trusted(trust, state_dir), converter, None, workflow_id), id_)
    if as_json:
        _echo_json(document(each, time.time()))
        return
    for line in told(each, time.time()):
        click.echo(line)


def _answering(command: Callable[..., None]) -> Callable[..., None]:
    command = with_server(command)
    for option in reversed(_ANSWERING):
        command = option(command)
    return click.argument("id_", metavar="ID")(command)


@approvals.command(cls=_ByIdCommand)
@_answering
def approve(**options: Any) -> None:
    """Agree. The activity runs once as many people agree as the policy asks for.

    The authority signs it if the person is in a group that is asked, and policies permit approval.approve; to agree to
    what is done on one's own behalf takes approval.self besides. Whoever can use the state folder can answer as
    anybody: it is the authority's.
    """
    _answer("approve", **options)


@approvals.command(cls=_ByIdCommand)
@_answering
def reject(**options: Any) -> None:
    """Refuse. The activity ends in AuthorizationDenied, whoever else agrees.

    The authority signs it if the person is in a group that is asked, and policies permit approval.reject.
    """
    _answer("reject", **options)


def _answer(
    verdict: Literal["approve", "reject"],
    server: Server,
    id_: str,
    who: str,
    reason: str | None,
    workflow_id: str | None,
    policies: str,
    state_dir: Path,
    converter: str | None,
) -> None:
    from exequatur.approvals import approve, list_challenges, named, reject
    from exequatur.audit.wording import shown
    from exequatur.cli.challenges import progress
    from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
    from exequatur.identity.principal import Principal
    from exequatur.plugin import AuthorizationPlugin

    try:
        principal = Principal.parse(who)
    except ValueError as error:
        raise ConfigurationError(f"--as: {error}") from None
    _state(state_dir)
    plugin = AuthorizationPlugin.embedded(policies, state_dir=state_dir)

    async def answered() -> OpenChallenge:
        client = await _connected(server, converter)
        found = named(await list_challenges(client, plugin, workflow_id=workflow_id), id_)
        act = approve if verdict == "approve" else reject
        sent = await act(client, plugin, found, principal=principal, reason=reason)
        return found.with_answer(sent)

    try:
        each = asyncio.run(answered())
    except AuthorizationDenied as error:
        click.echo(shown(error.message), err=True)
        click.get_current_context().exit(_DENIED)
    except AuthorizationUnavailable as error:
        raise ExequaturError(error.message) from error
    claims = each.claims
    click.echo(
        f"{principal} {'approved' if verdict == 'approve' else 'rejected'} {shown(claims.activity_type)} for "
        f"{shown(claims.sub)}, workflow {shown(claims.workflow_id)}"
    )
    if verdict == "approve":
        click.echo(f"asked: {progress(each, time.time())}")


def _found(
    server: Server, trusted: Trusted, converter: str | None, query: str | None, workflow_id: str | None
) -> Listing:
    from exequatur.approvals import list_challenges

    async def listed() -> Listing:
        client = await _connected(server, converter)
        return await list_challenges(client, trusted, query=query, workflow_id=workflow_id)

    return asyncio.run(listed())


async def _connected(server: Server, converter: str | None) -> Client:
    """A client without the plugin: an answer needs no permit, because it proves itself."""
    from temporalio.client import Client

    from exequatur.audit.codec import converter_of

    converting = None if converter is None else converter_of(converter)
    client = await server.connect()
    if converting is None:
        return client
    return Client(client.service_client, namespace=client.namespace, data_converter=converting)


def _trusted(trust: Path | None, state_dir: Path) -> Trusted:
    from exequatur.approvals import Trusted
    from exequatur.settings import Settings
    from exequatur.statements.trust import TrustStore

    file = _state(state_dir) if trust is None else trust
    settings = Settings.load()
    return Trusted(TrustStore.from_jwks(file.read_bytes(), str(file)), settings.trust_domain, settings.cluster)


def _state(folder: Path) -> Path:
    """The trust anchors of a state folder that is there: one that is made now would be believed by nobody.

    Raises:
        ConfigurationError: It is not.
    """
    file = folder / "trust.jwks"
    if not file.is_file():
        raise ConfigurationError(f"{folder}: not the state folder of an authority; name the workers' with --state-dir")
    return file


def _echo_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))
