"""``exequatur doctor``: what is wrong with a deployment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exequatur.audit.wording import count, shown
from exequatur.cli.server import Server, with_server

if TYPE_CHECKING:  # at run time when the command runs
    from exequatur.doctor.finding import Finding

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DEFAULT_STATE = Path(".exequatur")
_MARKS = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Path(path_type=Path),
    multiple=True,
    help="State folder of clients and workers; .exequatur if there is one. Give several to compare them.",
)
@with_server
@click.option("--offline", is_flag=True, help="Leave the Temporal server out.")
@click.option("--task-queue", "task_queues", multiple=True, help="Look at this queue besides those of known workers.")
@click.option("--authority", metavar="URL", help="The authority service.")
@click.option(
    "--authority-ca",
    type=_FILE,
    help="Certificates that vouch for it; authority_ca of the settings, or the system's, if left out.",
)
@click.option("--from", "references", multiple=True, metavar="MODULE[:NAME]", help="Where the activities are.")
@click.option("--policies", help="Folder, bundle file or URL that the workers follow.")
@click.option("--store", metavar="URL", help="Evidence store; that of the settings if left out.")
@click.option("--converter", metavar="MODULE:NAME", help="The workers' data converter.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@click.pass_context
def doctor(
    ctx: click.Context,
    states: tuple[Path, ...],
    server: Server,
    offline: bool,
    task_queues: tuple[str, ...],
    authority: str | None,
    authority_ca: Path | None,
    references: tuple[str, ...],
    policies: str | None,
    store: str | None,
    converter: str | None,
    as_json: bool,
) -> None:
    """Look at a deployment and name what is wrong with it, and the next step.

    Run it on a worker's machine, as the worker's user, with the worker's environment. It changes nothing. What is not
    named is not looked at.

    Exit codes: 0 no problem, 1 problems found, 2 it could not look.
    """
    from exequatur.audit.codec import converter_of
    from exequatur.cli.code import activities_of
    from exequatur.doctor.deployment import Deployment
    from exequatur.doctor.examine import examine
    from exequatur.doctor.host import read_settings

    settings, findings = read_settings()
    deployment = Deployment(
        settings=settings,
        states=states or ((_DEFAULT_STATE,) if _DEFAULT_STATE.is_dir() else ()),
        address=server.address,
        namespace=server.namespace,
        connect=None if offline else server.connect,
        authority=authority,
        authority_ca=authority_ca,
        activities=activities_of(references) if references else None,
        policies=policies,
        store=store,
        converter=None if converter is None else converter_of(converter),
        task_queues=task_queues,
    )
    findings = [*findings, *asyncio.run(examine(deployment))]
    if as_json:
        click.echo(json.dumps(_document(findings), indent=2))
    else:
        _print(findings)
    ctx.exit(1 if _number(findings, "problem") else 0)


def _document(findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "problems": _number(findings, "problem"),
        "warnings": _number(findings, "warning"),
        "findings": [
            {"check": each.check, "level": each.level, "text": each.text, "step": each.step} for each in findings
        ],
    }


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(each.check) for each in findings)
    for each in findings:
        click.echo(f"{_MARKS[each.level]}  {each.check:<{width}}  {shown(each.text)}")
        if each.step is not None:
            click.echo(f"{'':{len(_MARKS['ok']) + width + 4}}{shown(each.step)}")
    problems, warnings = _number(findings, "problem"), _number(findings, "warning")
    click.echo(f"{count(problems, 'problem')}, {count(warnings, 'warning')}")


def _number(findings: Sequence[Finding], level: str) -> int:
    return sum(each.level == level for each in findings)
