"""``exequatur grant`` and ``exequatur permit``: header values for clients that have no plugin.

The Temporal CLI, and clients in other languages, put them into a header; the runs that they start are governed like any
other.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.cli.policy.finding import POLICIES
from exequatur.errors import ConfigurationError, ExequaturError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.gate.issuing import Authority
    from exequatur.identity.principal import Principal
    from exequatur.statements.models import MessageKind, Reuse

_DENIED = 1
MAX_INPUT = 4 * 1024 * 1024
"""Bytes of one input; Temporal takes 2 MB of payloads."""
MAX_DELAY = 3_200_000_000.0
"""Seconds; a hundred years."""
_WHO = (
    click.option("--as", "who", required=True, metavar='TYPE::"ID"', help="On whose behalf, e.g. 'User::\"dana\"'."),
    click.option("--parent", "parents", multiple=True, metavar='TYPE::"ID"', help="A role or group to vouch for."),
    click.option("--attr", "attributes", multiple=True, metavar="NAME=JSON", help="An attribute to vouch for."),
    click.option("--namespace", envvar="TEMPORAL_NAMESPACE", default="default", show_default=True, show_envvar=True),
    click.option(
        "--policies",
        default=str(POLICIES),
        show_default=True,
        metavar="PLACE",
        help="The policies in force: a folder, a bundle file, its URL, or store: and the URL of an evidence store.",
    ),
    click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".exequatur"),
        show_default=True,
        help="The state folder of the workers' authority.",
    ),
    click.option("--json", "as_json", is_flag=True, help="JSON on standard output: the header's name and its value."),
)
_INPUT = click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="JSON",
    help="An argument, byte for byte as the client will send it as json/plain. Give it once for each argument.",
)


def _issuing(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_WHO):
        command = option(command)
    return command


@click.group()
def grant() -> None:
    """Issue grants for clients without the plugin, such as the Temporal CLI.

    Exit codes: 0 issued, 1 the policies do not permit it, 2 it could not be done.
    """


@grant.command("issue")
@click.option("--workflow-type", "--type", "workflow_type", required=True, metavar="TYPE")
@click.option("--workflow-id", required=True, metavar="ID", help="Of a schedule: the id in its action.")
@click.option("--task-queue", required=True, metavar="NAME", help="Of the workflow.")
@_INPUT
@click.option(
    "--reuse",
    type=click.Choice(["once", "retry", "cron"]),
    default="once",
    show_default=True,
    help="What the start may bring: one run, retries of the workflow, or cron runs.",
)
@click.option(
    "--start-delay",
    type=click.FloatRange(min=0, max=MAX_DELAY),
    default=0.0,
    metavar="SECONDS",
    help="How long the start waits.",
)
@click.option("--schedule", metavar="ID", help="The grant is for all runs of this schedule.")
@_issuing
def issue_grant(
    workflow_type: str,
    workflow_id: str,
    task_queue: str,
    inputs: tuple[str, ...],
    reuse: Reuse,
    start_delay: float,
    schedule: str | None,
    **who: Any,
) -> None:
    """Print the header of a workflow start, after the policies permitted workflow.start.

    The grant is for exactly this workflow, task queue and input, and the start must follow soon. What is printed is
    what the Temporal CLI takes:

    \b
      temporal workflow start --type Refund --workflow-id refund-7 --task-queue refunds \\
        --input '{"amount": 20}' --headers "$(exequatur grant issue --type Refund \\
        --workflow-id refund-7 --task-queue refunds --input '{"amount": 20}' --as 'User::"dana"')"

    Another client puts the string, as JSON, into the header exequatur-grant. Whoever can use the state folder can issue
    a grant for anybody: it is the authority's.
    """
    from exequatur.gate.issuing import GrantOrder
    from exequatur.gate.wire import START_HEADER

    if math.isnan(start_delay):
        raise click.UsageError("--start-delay is a number of seconds")
    if schedule is not None and (reuse != "once" or start_delay):
        raise click.UsageError("--schedule goes without --reuse and --start-delay")
    digest = _digest(inputs)

    def issued(authority: Authority, principal: Principal, namespace: str) -> Awaitable[str]:
        return authority.issue_grant(
            GrantOrder(
                principal=principal,
                namespace=namespace,
                workflow_type=workflow_type,
                workflow_id=workflow_id,
                task_queue=task_queue,
                input=digest,
                reuse="schedule" if schedule is not None else reuse,
                start_delay=start_delay,
                schedule=schedule,
            )
        )

    _print(START_HEADER, issued, **who)


@click.group()
def permit() -> None:
    """Issue permits for clients without the plugin: for one message to a workflow.

    Exit codes: 0 issued, 1 the policies do not permit it, 2 it could not be done.
    """


@permit.command("issue")
@click.option("--kind", required=True, type=click.Choice(["signal", "query", "update"]))
@click.option("--name", required=True, help="Of the signal, query or update.")
@click.option("--workflow-id", required=True, metavar="ID")
@click.option("--run-id", metavar="ID", help="For this run only.")
@_INPUT
@_issuing
def issue_permit(
    kind: MessageKind, name: str, workflow_id: str, run_id: str | None, inputs: tuple[str, ...], **who: Any
) -> None:
    """Print the header of one message, after the policies permitted it (workflow.signal, .query or .update).

    The permit is for exactly this message with this input, once in a run. The Temporal CLI sends it with an update:

    \b
      temporal workflow update execute --workflow-id refund-7 --name approve --input true --headers \\
        "$(exequatur permit issue --kind update --workflow-id refund-7 --name approve --input true --as 'User::"dana"')"

    Version 1.9 of it takes --headers with signals and queries too, and does not send them. Another client puts the
    string, as JSON, into the header exequatur-message.
    """
    from exequatur.gate.issuing import PermitOrder
    from exequatur.gate.wire import MESSAGE_HEADER

    digest = _digest(inputs)

    def issued(authority: Authority, principal: Principal, namespace: str) -> Awaitable[str]:
        return authority.issue_permit(
            PermitOrder(
                principal=principal,
                namespace=namespace,
                kind=kind,
                target=workflow_id,
                name=name,
                args=digest,
                run_id=run_id,
            )
        )

    _print(MESSAGE_HEADER, issued, **who)


def _print(
    header: str,
    issued: Callable[[Authority, Principal, str], Awaitable[str]],
    *,
    who: str,
    parents: tuple[str, ...],
    attributes: tuple[str, ...],
    namespace: str,
    policies: str,
    state_dir: Path,
    as_json: bool,
) -> None:
    from exequatur.audit.wording import shown
    from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
    from exequatur.plugin import AuthorizationPlugin

    principal = _principal(who, parents, attributes)
    for name, value in click.get_current_context().params.items():
        try:
            value.encode() if isinstance(value, str) else None
        except UnicodeEncodeError:
            raise ConfigurationError(f"--{name.replace('_', '-')}: not Unicode") from None
    if not (state_dir / "trust.jwks").is_file():
        # One that is made now would be believed by nobody.
        raise ConfigurationError(
            f"{state_dir}: not the state folder of an authority; name the workers' with --state-dir"
        )
    plugin = AuthorizationPlugin.embedded(policies, state_dir=state_dir)

    async def issue() -> str:
        await plugin._serving.refresh()
        return await issued(plugin._authority, principal, namespace)

    try:
        value = asyncio.run(issue())
    except AuthorizationDenied as error:
        click.echo(shown(error.message), err=True)
        click.get_current_context().exit(_DENIED)
    except AuthorizationUnavailable as error:
        raise ExequaturError(error.message) from error
    click.echo(json.dumps({"header": header, "value": value}) if as_json else f"{header}={json.dumps(value)}")


def _principal(who: str, parents: tuple[str, ...], attributes: tuple[str, ...]) -> Principal:
    from exequatur.identity.principal import Principal

    try:
        named = Principal.parse(who)
        return Principal(named.type, named.id, dict(map(_attribute, attributes)), parents)
    except ValueError as error:
        raise ConfigurationError(f"--as, --parent or --attr: {error}") from None


def _attribute(text: str) -> tuple[str, Any]:
    from exequatur.statements.encoding import strict_json

    name, found, value = text.partition("=")
    if not found or not name:
        raise ValueError(f"{text[:60]!r} is not an attribute; write it as NAME=JSON, for example limit=500")
    try:
        return name, strict_json(value)
    except ValueError:
        raise ValueError(f"the value of {name[:60]} is not JSON; a text is written as {name[:60]}='\"text\"'") from None


def _digest(inputs: tuple[str, ...]) -> str:
    """What a grant or permit says of the arguments.

    Raises:
        ConfigurationError: One is no JSON, or too long.
    """
    from temporalio.api.common.v1 import Payload

    from exequatur.gate.wire import payloads_digest
    from exequatur.statements.encoding import strict_json

    payloads = []
    for number, text in enumerate(inputs, 1):
        try:
            data = text.encode()
            if len(data) > MAX_INPUT:
                raise ValueError(f"larger than {MAX_INPUT >> 20} MiB")
            strict_json(data)
        except ValueError as error:
            raise ConfigurationError(f"--input, number {number}: not JSON: {error}"[:200]) from None
        payloads.append(Payload(metadata={"encoding": b"json/plain"}, data=data))
    return payloads_digest(payloads)
