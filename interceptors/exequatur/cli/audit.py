"""``exequatur audit``: histories from files or a server, audited and reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.cli.server import Server, with_server

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.cli.auditing import Auditing

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--trust",
        type=_FILE,
        required=True,
        help="The keys that you believe: the authority's trust.jwks, with what you exempt and which notaries count.",
    ),
    click.option(
        "--evidence",
        "sources",
        multiple=True,
        metavar="PATH_OR_URL",
        help="A journal folder or file, an exported evidence file, or the URL of a store. Repeat it for more.",
    ),
    click.option(
        "--converter",
        metavar="MODULE:NAME",
        help="The DataConverter or PayloadCodec that the workers use; it is imported, so its code runs.",
    ),
    click.option(
        "--witnesses",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Demand that this many witnesses of the trust file have cosigned each checkpoint.",
    ),
    click.option("--strict", is_flag=True, help="Exit with 2 if anything is unproven."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON (docs/audit-report.schema.json)."),
    click.option("--html", type=_FILE, metavar="OUT", help="Also write the report as one self-contained page."),
)
_HISTORIES = click.argument("files", metavar="HISTORY.json...", nargs=-1, required=True, type=_FILE)
_NAMESPACE = click.option(
    "--namespace", default="default", show_default=True, help="Of the histories, for a --converter that wants it."
)


def _reporting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every audit, as one Auditing."""

    def collected(
        trust: Path,
        sources: tuple[str, ...],
        converter: str | None,
        witnesses: int,
        strict: bool,
        as_json: bool,
        html: Path | None,
        **others: Any,
    ) -> None:
        from exequatur.cli.auditing import Auditing
        from exequatur.cli.output import Output

        output = Output(as_json=as_json, html=html, strict=strict)
        with Auditing(trust=trust, sources=sources, converter=converter, witnesses=witnesses) as auditing:
            command(auditing, **others)
            report = auditing.report()
        click.get_current_context().exit(output.write(report))

    collected.__name__, collected.__doc__ = command.__name__, command.__doc__
    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


@click.group()
def audit() -> None:
    """Verify who authorized what in workflow runs, and that nothing was changed.

    Exit codes: 0 all verified, 1 violations found, 2 could not be checked.
    """


@audit.command("file")
@_HISTORIES
@_NAMESPACE
@_reporting
def audit_file(auditing: Auditing, files: tuple[Path, ...], namespace: str) -> None:
    """Audit histories exported by the Temporal CLI, UI or SDK."""
    for path in files:
        auditing.file(path, namespace=namespace)


@audit.command("replay")
@_HISTORIES
@click.option(
    "--workflows",
    required=True,
    metavar="MODULE[:CLASS],...",
    help="The workflow code, as importable modules, or classes in them. It is imported and run.",
)
@_NAMESPACE
@_reporting
def audit_replay(auditing: Auditing, files: tuple[Path, ...], workflows: str, namespace: str) -> None:
    """Audit histories, and run the workflow code again over them."""
    from exequatur.cli.replaying import replaying

    with replaying(workflows, auditing.trust, auditing.converter) as replays:
        for path in files:
            auditing.file(path, replays, namespace=namespace)


@audit.command("run")
@click.argument("workflow_id")
@click.option("--run-id", help="The run; the latest when it is left out.")
@click.option(
    "--follow/--no-follow",
    default=True,
    help="Also audit the runs before and after it, its parent and its children. Done unless turned off.",
)
@with_server
@_reporting
def audit_run(auditing: Auditing, server: Server, workflow_id: str, run_id: str | None, follow: bool) -> None:
    """Audit a run on a Temporal server."""
    from exequatur.cli.fetching import one_run

    asyncio.run(one_run(auditing, server, workflow_id, run_id, follow=follow))


@audit.command("query")
@click.argument("query", metavar="VISIBILITY_QUERY")
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many histories are fetched, and in memory, at a time.",
)
@with_server
@_reporting
def audit_query(auditing: Auditing, server: Server, query: str, parallel: int) -> None:
    """Audit all runs that a Temporal visibility query finds.

    For example: exequatur audit query 'WorkflowType="Refund" AND CloseTime > "2026-01-01T00:00:00Z"' --trust …
    """
    from exequatur.cli.fetching import all_runs

    asyncio.run(all_runs(auditing, server, query, parallel))
