"""``exequatur behavior``: what is usual, what was counted, and why something scored as it did."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.cli.server import Server, with_server

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.audit.history import RunHistory
    from exequatur.behavior.baseline import Learner
    from exequatur.lineage.event import Counted

_FILE = click.Path(dir_okay=False, path_type=Path)
_MOST = 10_000
"""Histories that a query learns from."""


@click.group()
def behavior() -> None:
    """Learn what is usual, and show what principals did.

    Policies are told of it as context.behavior.
    """


@behavior.command()
@click.argument("histories", nargs=-1, metavar="HISTORY...")
@click.option("--query", help="Learn from the runs that this visibility query finds on the server, instead of files.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=1000, show_default=True, help="Runs of the query.")
@click.option(
    "--converter",
    metavar="MODULE:NAME",
    help="The DataConverter that the workers use; it is imported, so its code runs.",
)
@click.option("-o", "--output", type=_FILE, required=True, help="The baseline; set behavior_baseline to it.")
@with_server
def learn(
    server: Server, histories: tuple[str, ...], query: str | None, limit: int, converter: str | None, output: Path
) -> None:
    """Learn which activities follow which, and what their arguments are like.

    HISTORY is a file that the Temporal CLI, UI or SDK exported, one with a history a line (*.jsonl), or a folder of
    both. What the gate refused is left out. Learn from runs that you audited: what a run did becomes usual.

    Exit codes: 0 learned, 2 could not be done.
    """
    from exequatur.audit.codec import converter_of
    from exequatur.audit.wording import shown
    from exequatur.behavior.baseline import Learner
    from exequatur.errors import ConfigurationError, EvidenceError
    from exequatur.files import write_whole

    if bool(histories) == (query is not None):
        raise click.UsageError("name histories, or give --query; not both")
    learning = _Learning(Learner(), converter_of(converter) if converter else None, server.namespace)
    if query is not None:
        asyncio.run(learning.from_server(server, query, limit))
    for source in histories:
        asyncio.run(learning.from_files(source))
    if not learning.runs:
        raise EvidenceError("there was no run to learn from")
    found = learning.learner.baseline()
    try:
        write_whole(output, found.text)
    except OSError as error:
        raise ConfigurationError(f"{output}: {error.strerror}; name a file in a folder that you can write") from error
    for name in sorted(learning.learner.left_out):
        click.echo(f"{shown(name, 60)}: its arguments have ever other fields; they are left out", err=True)
    click.echo(f"{learning.runs} runs, {learning.activities} activities, {len(found.activities)} activity types")
    click.echo(f"{output}: baseline {found.digest}")


@dataclass
class _Learning:
    learner: Learner
    converter: Any
    namespace: str
    runs: int = 0
    activities: int = 0

    async def from_files(self, source: str) -> None:
        from exequatur.audit.records import histories_in
        from exequatur.errors import EvidenceError

        def unreadable(error: EvidenceError) -> None:
            # A part of what is usual would make the rest unusual.
            raise error

        for history in histories_in(source, unreadable):
            await self._add(history)

    async def from_server(self, server: Server, query: str, limit: int) -> None:
        from exequatur.cli.fetching import GoneError, fetched, listed

        client = await server.connect()
        async for execution in listed(client, query):
            if self.runs == limit:
                click.echo(f"The query finds more than {limit} runs; the others are left out (--limit)", err=True)
                break
            try:
                await self._add(await fetched(client, *execution))
            except GoneError as error:
                click.echo(f"{error}; it is left out", err=True)

    async def _add(self, history: RunHistory) -> None:
        from exequatur.audit.codec import decoded, still_encoded
        from exequatur.audit.usual import learn as learn_from
        from exequatur.errors import EvidenceError

        if self.converter is not None:
            history = await decoded(history, self.converter, namespace=self.namespace)
        if still_encoded(history):
            raise EvidenceError("a history is encoded by the workers' codec; name their data converter: --converter")
        self.activities += learn_from(self.learner, history)
        self.runs += 1


@behavior.command()
@click.argument("ledger", metavar="PATH_OR_URL")
@click.option("--principal", metavar='TYPE::"ID"', help="Only what was done on behalf of this principal.")
@click.option("--since", type=click.FloatRange(min=0), default=24, show_default=True, help="Only the last hours.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def show(ledger: str, principal: str | None, since: float, as_json: bool) -> None:
    """Show what a ledger counts: how often who asked for what, how often that was denied, and what it cost.

    PATH_OR_URL is a state folder, its ledger.db, or the database that shared_state names.

    Exit codes: 0 shown, 2 could not be read.
    """
    from exequatur.audit.wording import shown
    from exequatur.errors import EvidenceError
    from exequatur.gate.counting import LEDGER
    from exequatur.lineage.ledger import Ledger

    path = Path(ledger)
    where = str(path / LEDGER) if path.is_dir() else ledger
    if "://" not in where and not Path(where).is_file():
        raise EvidenceError(f"{where}: there is no ledger; policies that read context.behavior make one")
    with Ledger.open(where, create=False) as opened:
        rows = _rows(opened.events(), principal, since * 3600)
    if as_json:
        click.echo(json.dumps({"rows": rows}, indent=2))
        return
    for row in rows:
        click.echo(
            f"{shown(row['principal'], 60)}  {shown(row['activity'], 60)}: asked {row['asked']}, denied {row['denied']}"
            f", cost {row['cost']}, ran {row['seconds']} s"
        )
    if not rows:
        click.echo("nothing was counted in this time")


def _rows(events: Any, principal: str | None, window: float) -> list[dict[str, Any]]:
    """What was done in a time before now, by principal and activity."""
    import time

    begin = (time.time() - window) * 1000
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("asked", "denied", "cost", "took"), 0)
    )
    each: Counted
    for each in events:
        event = each.event
        if event.at < begin or principal not in (None, event.principal):
            continue
        row = found[event.principal, event.activity]
        row["asked"] += 1 if event.kind == "asked" else -1 if event.kind == "voided" else 0
        row["denied"] += event.kind == "denied"
        row["cost"] += event.cost if event.kind == "asked" else -event.cost
        row["took"] += event.took
    return [
        {
            "principal": who,
            "activity": what,
            "asked": row["asked"],
            "denied": row["denied"],
            "cost": row["cost"],
            "seconds": row["took"] // 1000,
        }
        for (who, what), row in sorted(found.items())
    ]


@behavior.command()
@click.argument("workflow_id")
@click.option(
    "--evidence",
    "sources",
    multiple=True,
    required=True,
    metavar="PATH_OR_URL",
    help="A state or journal folder, exported evidence, or a store. Repeat it for more.",
)
@click.option("--activity", metavar="TYPE", help="Only decisions about this activity type.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def explain(workflow_id: str, sources: tuple[str, ...], activity: str | None, as_json: bool) -> None:
    """Explain what policies were told of behaviour in a workflow's decisions, and what each score is made of.

    It shows what the gate recorded. exequatur audit adds it up again.

    Exit codes: 0 explained, 1 no decision was told of behaviour, 2 could not be read.
    """
    from exequatur.audit.wording import shown

    found = list(_told(workflow_id, sources, activity))
    if as_json:
        click.echo(json.dumps({"decisions": found}, indent=2))
    for each in () if as_json else found:
        told = each["behavior"]
        click.echo(
            f"{shown(each['activity'], 60)} ({shown(each['activity_id'], 60)}), attempt {each['attempt']}: "
            f"{each['decision']}, score {told.get('score')}"
        )
        for reason in told.get("reasons", ()):
            click.echo(f"  {shown(str(reason))}")
        numbers = {**told, **{f"run.{name}": value for name, value in dict(told.get("run", {})).items()}}
        listed = (f"{name}={value}" for name, value in numbers.items() if isinstance(value, int))
        click.echo(shown("  " + ", ".join(listed)))
    if not found:
        click.echo("no decision of this workflow was told of behaviour", err=True)
        click.get_current_context().exit(1)


def _told(workflow_id: str, sources: tuple[str, ...], activity: str | None) -> Any:
    from pydantic import ValidationError

    from exequatur.audit.evidence import DecisionRecord, facts_of
    from exequatur.audit.records import Evidence

    for source in sources:
        for record in Evidence(source).records("decision"):
            try:
                claims = DecisionRecord.model_validate_json(record.body)
                told = facts_of(claims)[1].get("behavior")
            except (ValidationError, ValueError):
                continue  # exequatur audit says so
            if (
                claims.workflow_id == workflow_id
                and isinstance(told, dict)
                and activity in (None, claims.activity_type)
            ):
                yield {
                    "activity": claims.activity_type,
                    "activity_id": claims.activity_id,
                    "attempt": claims.attempt,
                    "decision": claims.decision,
                    "behavior": told,
                    "counted": claims.counted.model_dump(exclude_none=True) if claims.counted else None,
                }
