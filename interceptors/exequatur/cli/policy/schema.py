"""``exequatur policy schema``: the Cedar schema of the activities' arguments, from their code."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import ConfigurationError, PolicyError

if TYPE_CHECKING:  # at run time when the command runs, so that --help is quick
    from exequatur.authoring.schema.generate import Generated


@click.command()
@click.option(
    "--from",
    "references",
    metavar="MODULE[:NAME],...",
    multiple=True,
    required=True,
    help="Where the activities are: modules, or a class, list or worker in one. May be given again.",
)
@click.option(
    "--policies",
    "folder",
    metavar="FOLDER",
    default="policies",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The policies folder.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail if the folder's schema is not that of the code.")
@click.option("--stdout", is_flag=True, help="Print the schema instead of writing it.")
def schema(references: tuple[str, ...], folder: Path, check: bool, stdout: bool) -> None:
    """Write FOLDER/schema.cedarschema: an action for each activity, with the types of its arguments.

    \b
    exequatur policy schema --from workflows.activities
    exequatur policy schema --from app.billing,app.mail --from app.worker:activities --check

    The code is imported. What the application declares itself stands in FOLDER/model.cedarschema, in Cedar's schema
    syntax: attributes of principals, own entity types (@principal for those that act), groups of groups, and the keys
    of dicts that policies read. Groups and resources of an activity are named in its code, with @exequatur.action.

    What Cedar has no type for is left out, and a warning names it.

    Exit codes: 0 written, or the same; 1 with --check, the schema is another than the code's; 2 it could not be made.
    """
    from exequatur.authoring.schema.generate import FRAGMENT_NAME, generate
    from exequatur.cli.code import activities_of
    from exequatur.policy.source import SCHEMA_NAMES, read_text

    if check and stdout:
        raise ConfigurationError("Give either --check or --stdout")
    if not folder.is_dir() and not stdout:
        raise ConfigurationError(f"There is no folder {folder}; make it, or name another one with --policies")
    fragment, path = folder / FRAGMENT_NAME, folder / SCHEMA_NAMES[0]
    if (folder / SCHEMA_NAMES[1]).exists() and not stdout:
        raise ConfigurationError(f"{folder / SCHEMA_NAMES[1]}: a folder has one schema; remove this one")
    text = read_text(fragment).text if fragment.exists() else None
    generated = generate(activities_of(references), text, str(fragment))
    for warning in generated.warnings:
        click.echo(f"warning: {shown(warning)}", err=True)
    if stdout:
        click.echo(generated.text, nl=False)
    elif check:
        _check(generated, path)
    else:
        _write(generated, path)


def _check(generated: Generated, path: Path) -> None:
    from exequatur.policy.source import read_text

    there = read_text(path).text if path.exists() else ""
    if there == generated.text:
        click.echo(f"{path} is the schema of the code")
        return
    lines = difflib.unified_diff(
        there.splitlines(keepends=True), generated.text.splitlines(keepends=True), str(path), "the code"
    )
    for line in lines:
        click.echo(shown(line.rstrip("\n")))
    click.echo(f"{path} is not the schema of the code; run this without --check", err=True)
    sys.exit(1)


def _write(generated: Generated, path: Path) -> None:
    from exequatur.files import PUBLIC, write_whole
    from exequatur.policy.bundle import PolicyBundle
    from exequatur.policy.source import read_text

    try:
        same = path.exists() and read_text(path).text == generated.text
    except PolicyError:  # what cannot be read is replaced
        same = False
    if not same:
        write_whole(path, generated.text.encode(), PUBLIC)
    actions = generated.text.count("@parameters(")
    click.echo(f"{path}: {count(actions, 'activity', 'activities')}{', unchanged' if same else ''}")
    if not any(path.parent.glob("*.cedar")):
        return
    try:
        PolicyBundle.from_folder(path.parent)
    except PolicyError as error:
        click.echo(
            f"warning: the policies do not fit this schema, and workers refuse them: {shown(str(error))}", err=True
        )


COMMANDS = (schema,)
