"""``exequatur policy reference``: what policies can read, as a page."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--policies",
    "folder",
    metavar="FOLDER",
    default="policies",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The policies folder.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def reference(folder: Path, output: Path | None) -> None:
    """Describe what policies can read, in Markdown.

    Every activity with its groups, principals, resource, arguments and the policies that can decide about it; the
    circumstances that the gate tells; the types of entities and their attributes.

    Exit codes: 0 written; 2 the policies could not be read, or have no schema.
    """
    from exequatur.authoring.schema.reference import reference as page_of
    from exequatur.files import PUBLIC, write_whole
    from exequatur.policy.bundle import PolicyBundle

    page = page_of(PolicyBundle.from_folder(folder))
    if output is None:
        click.echo(page, nl=False)
    else:
        write_whole(output, page.encode(), PUBLIC)
        click.echo(f"{output}: written")


COMMANDS = (reference,)
