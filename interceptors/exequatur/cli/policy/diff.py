"""``exequatur policy diff``: what two bundles say differently, in their texts or about decisions that were made."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import count, moment, shown
from exequatur.cli.server import Server, with_server

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.authoring.whatif.changes import Difference
    from exequatur.authoring.whatif.comparison import Answer, Comparison, Example, Group
    from exequatur.cli.policy.comparing import Gathering
    from exequatur.policy.bundle import PolicyBundle

_CHANGES = {
    "allow_to_deny": ("allow -> deny", "red"),
    "deny_to_allow": ("deny -> allow", "yellow"),
    "undecidable": ("undecidable", "cyan"),
    "other_policies": ("other policies", None),
}
_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_LINES = 40
"""Lines of one difference; JSON has all."""


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "--against",
    "sources",
    multiple=True,
    metavar="WHAT",
    help="Recorded decisions: a journal or state folder, an evidence store or exported evidence, a history as JSON, a "
    "folder or *.jsonl of histories, or 'query:VISIBILITY QUERY' for a server. Repeat it for more.",
)
@click.option("--activity", "activities", multiple=True, metavar="GLOB", help="Only these activity types.")
@click.option("--since", metavar="TIME", help="Only later decisions: 2026-01-31, 2026-01-31T12:00:00Z or 7d.")
@click.option("--principal", metavar='TYPE::"ID"', help="On whose behalf ungoverned runs are taken to act.")
@click.option("--parent", "parents", multiple=True, metavar='TYPE::"ID"', help="A role or group of --principal.")
@click.option("--converter", metavar="MODULE:NAME", help="The workers' DataConverter or PayloadCodec, for histories.")
@click.option("--examples", type=click.IntRange(0, 100), default=3, show_default=True, help="Shown for each cause.")
@click.option("--strict", is_flag=True, help="Exit with 2 if anything is undecidable or cannot be read.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@with_server
def diff(
    old: str,
    new: str,
    sources: tuple[str, ...],
    activities: tuple[str, ...],
    since: str | None,
    principal: str | None,
    parents: tuple[str, ...],
    converter: str | None,
    examples: int,
    strict: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Compare two bundles: what would have been decided otherwise?

    OLD and NEW are folders of policies, bundle files, or digests of bundles that the evidence of --against archives.
    With --against, every recorded decision is made again under both, and those that flip are shown by cause. Nothing
    of what is read is verified; `exequatur audit` does that. Without --against, the bundles' texts are compared.

    Exit codes: 0 nothing flips, or no difference; 1 something flips, or there are differences; 2 could not be compared.
    """
    from exequatur.audit.codec import converter_of
    from exequatur.authoring.whatif.compare import Comparing
    from exequatur.cli.policy.comparing import QUERY, Gathering, bundle_at, moment_of, principal_of

    context = click.get_current_context()
    archives = [each for each in sources if not each.startswith(QUERY)]
    bundles = bundle_at(old, archives), bundle_at(new, archives)
    if not sources:
        context.exit(_texts(bundles, (old, new), as_json=as_json))
    comparing = Comparing(*bundles, examples=examples)
    gathering = Gathering(
        comparing,
        bundles,
        activities,
        moment_of(since),
        principal_of(principal, parents),
        None if converter is None else converter_of(converter),
        server,
    )
    asyncio.run(gathering.gather(sources))
    found = comparing.result()
    if as_json:
        _echo_json(_head(bundles, (old, new)) | _document(found, gathering))
    else:
        _print(found, gathering)
    for sentence in gathering.unreadable:
        click.echo(shown(sentence), err=True)
    if gathering.failed > len(gathering.unreadable):
        click.echo(f"{gathering.failed - len(gathering.unreadable)} more cannot be read", err=True)
    if not found.asked:
        click.echo("No recorded decision could be compared", err=True)
        context.exit(2)
    if strict and not found.flips and (found.changes["undecidable"] or gathering.failed):
        click.echo("With --strict, what is undecidable or cannot be read counts as not compared", err=True)
        context.exit(2)
    context.exit(1 if found.flips else 0)


COMMANDS = (diff,)


def _print(found: Comparison, gathering: Gathering) -> None:
    flips = count(found.flips, "decision flips", "decisions flip")
    click.echo(f"{count(found.asked, 'recorded decision')} compared: {flips}, {found.same:,} the same")
    for change, (title, colour) in _CHANGES.items():
        groups = [each for each in found.groups if each.change == change]
        if groups:
            number = sum(each.count for each in groups)
            click.echo()
            click.secho(f"{title}: {number:,}", fg=colour, bold=True)
            for group in groups:
                _print_group(group)
    click.echo()
    if found.ungrouped:
        click.echo(f"{count(found.ungrouped, 'more change')} by further causes")
    if found.not_reproduced:
        said = count(found.not_reproduced, "decision was", "decisions were")
        click.echo(f"{said} recorded otherwise than OLD says: made by other policies than OLD")
    if gathering.repeated:
        click.echo(f"{count(gathering.repeated, 'decision')} stood in more than one source and count once")
    for reason, number in sorted(gathering.skipped.items(), key=lambda item: -item[1]):
        click.echo(f"{number:,} skipped: {shown(reason)}")
    if gathering.histories:
        click.echo("Histories were read as they are; `exequatur audit` verifies them")


def _print_group(group: Group) -> None:
    click.echo(f"  {group.count:,} {shown(group.activity, 100)}: {shown(group.cause, 300)}")
    for each in group.examples:
        click.echo(f"      {_example(each)}")


def _example(each: Example) -> str:
    where = each.where
    parts = [shown(where.workflow_id, 100)]
    if where.activity_id:
        parts.append(f"activity {shown(where.activity_id, 60)}")
    parts += [moment(where.at), shown(each.principal, 100)]
    values = ", ".join(f"{shown(name)} = {shown(value)}" for name, value in each.values.items())
    return ", ".join(parts) + (f": {values}" if values else "")


def _head(bundles: tuple[PolicyBundle, PolicyBundle], names: tuple[str, str]) -> dict[str, Any]:
    return {
        side: {"name": name, "digest": bundle.digest}
        for side, name, bundle in zip(("old", "new"), names, bundles, strict=True)
    }


def _document(found: Comparison, gathering: Gathering) -> dict[str, Any]:
    return {
        "asked": found.asked,
        "same": found.same,
        "flips": found.flips,
        **{str(change): number for change, number in found.changes.items()},
        "not_reproduced": found.not_reproduced,
        "repeated": gathering.repeated,
        "skipped": dict(gathering.skipped),
        "unreadable": gathering.failed,
        "groups": [
            {
                "change": group.change,
                "activity": group.activity,
                "cause": group.cause,
                "policies": list(group.policies),
                "count": group.count,
                "examples": [
                    {
                        "workflow_id": each.where.workflow_id,
                        "run_id": each.where.run_id,
                        "activity_id": each.where.activity_id,
                        "at": each.where.at,
                        "source": each.where.source,
                        "principal": each.principal,
                        "old": _answer(each.old),
                        "new": _answer(each.new),
                        "values": dict(each.values),
                    }
                    for each in group.examples
                ],
            }
            for group in found.groups
        ],
        "ungrouped": found.ungrouped,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {"decision": answer.word, "policies": list(answer.policies), "why": answer.why}


def _texts(bundles: tuple[PolicyBundle, PolicyBundle], names: tuple[str, str], *, as_json: bool) -> int:
    from exequatur.authoring.whatif.changes import differences

    found = differences(*bundles)
    if as_json:
        listed = [{"what": each.what, "how": each.how, "name": each.name, "details": each.details} for each in found]
        _echo_json(_head(bundles, names) | {"differences": listed})
    elif not found:
        click.echo("No difference")
    for each in () if as_json else found:
        _print_difference(each)
    return 1 if found else 0


def _print_difference(each: Difference) -> None:
    sign, colour = _SIGNS[each.how]
    click.secho(f"{sign} {each.what} {shown(each.name, 200)}", fg=colour, bold=True)
    for line in each.details[:_LINES]:
        click.echo(f"    {shown(line, 300)}")
    if len(each.details) > _LINES:
        click.echo(f"    … {len(each.details) - _LINES} more lines")


def _echo_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))
