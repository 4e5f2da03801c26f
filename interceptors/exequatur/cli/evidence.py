"""``exequatur evidence``: journals into a store, and what is in a store out of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import count, shown
from exequatur.cli.logs import log_to_stderr
from exequatur.errors import ConfigurationError, EvidenceError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.lineage.store import EvidenceStore

_FILE = click.Path(dir_okay=False, path_type=Path)
_STORE = click.argument("store", metavar="STORE")


@click.group()
def evidence() -> None:
    """Keep the evidence of the gates: ship, list, export, import, merge, prune, verify, view.

    STORE is the path of a SQLite file, or postgresql://USER:PASSWORD@HOST/DATABASE.
    """


@evidence.command()
@click.argument("folder", metavar="JOURNAL_FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "store", required=True, metavar="STORE", help="Where to; a SQLite file is made.")
@click.option("--follow", is_flag=True, help="Go on shipping until interrupted.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds, for --follow."
)
def ship(folder: Path, store: str, follow: bool, interval: float) -> None:
    """Ship the journals of a folder to a store; what is there already is not shipped again."""
    from exequatur.lineage.shipper import Shipper

    if not follow and not any(folder.glob("*.db")):
        raise EvidenceError(f"{folder}: holds no journal; name the folder `journal` in a worker's state folder")
    shipper = Shipper(folder, store, interval)
    if not follow:
        try:
            click.echo(f"{count(shipper.ship_once(), 'record')} shipped")
        finally:
            shipper.stop()
        return
    log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    shipper.start()
    click.echo(f"shipping {folder} every {interval:g} seconds; interrupt to stop", err=True)
    stop.wait()
    shipper.stop()


@evidence.command("list")
@_STORE
@click.option("--workflow-id", help="Only the runs of this workflow.")
def list_(store: str, workflow_id: str | None) -> None:
    """List the logs of a store and the runs that they tell of, tab-separated."""
    with _existing(store) as opened:
        if workflow_id is None:
            for log in opened.logs():
                click.echo(f"log\t{log.log_id}\t{log.size}")
        for run in opened.runs(workflow_id):
            click.echo(f"run\t{shown(run.workflow_id or '')}\t{shown(run.run_id)}")


@evidence.command("export")
@_STORE
@click.argument("out", metavar="FILE", type=_FILE)
@click.option("--workflow-id", help="Only what is about this workflow.")
@click.option("--trust", type=_FILE, help="A trust.jwks to put in, for readers to compare with their own.")
@click.option(
    "--history",
    type=_FILE,
    help="Of one run: puts in its statements and the proofs for its checkpoints, so that the file verifies offline.",
)
@click.option("--event", "events", type=click.IntRange(min=1), multiple=True, help="Prove these events of --history.")
@click.option("--converter", metavar="MODULE:NAME", help="The workers' data converter, for --history.")
def export(
    store: str,
    out: Path,
    workflow_id: str | None,
    trust: Path | None,
    history: Path | None,
    events: tuple[int, ...],
    converter: str | None,
) -> None:
    """Write evidence to a file for somebody who has no access to the store."""
    if history is None and (events or converter):
        raise click.UsageError("--event and --converter go with --history")
    with _existing(store) as opened:
        proofs = None
        if history is not None:
            workflow_id, proofs = _proofs(opened, history, workflow_id, events, converter)
        written = opened.export(out, workflow_id, trust=None if trust is None else _json(trust), proofs=proofs)
    click.echo(f"{count(written, 'record')} written to {out}")


def _proofs(
    store: EvidenceStore, path: Path, workflow_id: str | None, events: tuple[int, ...], converter: str | None
) -> tuple[str, Any]:
    from exequatur.audit.bundle import make_proofs, origin_of
    from exequatur.audit.codec import converter_of, decoded
    from exequatur.audit.history import read_history

    recorded = read_history(path)
    if workflow_id not in (None, recorded.workflow_id):
        raise ConfigurationError(f"{path} is of workflow {shown(recorded.workflow_id)}, not of {workflow_id}")
    plain = recorded if converter is None else asyncio.run(decoded(recorded, converter_of(converter)))
    origin = origin_of(plain)
    notes = [] if origin is None else list(store.checkpoints(origin))
    return recorded.workflow_id, make_proofs(recorded, plain, notes, events or None).model_dump(mode="json")


@evidence.command()
@click.argument("file", type=_FILE)
@click.option("--trust", type=_FILE, required=True, help="The keys that you believe; what FILE says of trust is not.")
def verify(file: Path, trust: Path) -> None:
    """Verify a file that `evidence export --history` wrote, offline: its records, statements and proofs."""
    from exequatur.audit.bundle import verify_proofs
    from exequatur.audit.trust import read_trust
    from exequatur.lineage import document
    from exequatur.lineage.link import check_link
    from exequatur.lineage.subject import subject_of

    believed = read_trust(trust)
    with file.open("rb") as stream:
        content = document.read(stream)
    for link in content.links:
        check_link(link)
    if content.proofs is None:
        raise EvidenceError(f"{file}: holds no statements and proofs; write it with --history [W0]")
    run = content.proofs.get("run_id") if isinstance(content.proofs, dict) else None
    seals = [
        link.record.body.decode("ascii", "replace")
        for link in content.links
        if link.record.kind == "seal" and subject_of("seal", link.record.body).run_id == run
    ]
    found = verify_proofs(content.proofs, content.checkpoints, seals, believed)
    click.echo(f"on behalf of {shown(found.principal)}: {count(found.statements, 'statement')} verified")
    click.echo(f"{count(len(content.links), 'record')} verified")
    click.echo(f"checkpoints at {', '.join(map(str, found.sizes))} events" if found.sizes else "no checkpoint")
    if found.events:
        click.echo(f"proven events: {', '.join(map(str, found.events))}")


@evidence.command()
@click.argument("file", metavar="[FILE]", required=False, type=_FILE)
@click.option("-o", "--output", "out", required=True, type=_FILE, help="The HTML file to write.")
def viewer(file: Path | None, out: Path) -> None:
    """Write the proof viewer as one HTML file, with FILE in it, to look into evidence in a browser, offline.

    The reader chooses the trust file; there is none in it. It comes to the same verdict as `verify`.
    """
    from exequatur.console.proof_file import proof_file
    from exequatur.lineage.document import MAX_BYTES

    if file is None:
        made = proof_file()
    else:
        with file.open("rb") as stream:
            made = proof_file(file.name, stream.read(MAX_BYTES + 1))
        if out.exists() and out.samefile(file):
            raise click.UsageError(f"{out} is the evidence itself; name another file")
    out.write_text(made, "utf-8")
    click.echo(f"{out} written; open it in a browser")


@evidence.command("import")
@_STORE
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
def import_(store: str, files: tuple[Path, ...]) -> None:
    """Add exported files to a store; nothing of a file is added unless all of its records verify.

    Checkpoints are added as they are: an audit verifies them.
    """
    with _opened(store) as opened:
        for path in files:
            with path.open("rb") as stream:
                try:
                    added = opened.import_(stream)
                except EvidenceError as error:
                    raise EvidenceError(f"{path}: {error}") from error
            click.echo(f"{path}: {count(added.records, 'new record')}, {count(added.checkpoints, 'new checkpoint')}")


@evidence.command()
@_STORE
@click.argument("others", metavar="OTHER...", nargs=-1, required=True)
def merge(store: str, others: tuple[str, ...]) -> None:
    """Add all that other stores hold to a store; they stay as they are."""
    with _opened(store) as opened:
        for other in others:
            with _existing(other) as source:
                click.echo(f"{source}: {count(opened.merge(source), 'new record')}")


@evidence.command()
@_STORE
@click.option(
    "--before", required=True, metavar="TIME", help="As 2026-01-31 or 2026-01-31T12:00:00+01:00; UTC if bare."
)
def prune(store: str, before: str) -> None:
    """Delete records older than a time; checkpoints stay, and what remains still verifies."""
    try:
        time = datetime.fromisoformat(before)
    except ValueError:
        raise ConfigurationError(f"--before {before}: not a time; write it as 2026-01-31T12:00:00Z") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    with _existing(store) as opened:
        click.echo(f"{count(opened.prune(time.timestamp()), 'record')} deleted")


def _opened(store: str, *, create: bool = True) -> EvidenceStore:
    from exequatur.lineage.store import EvidenceStore

    return EvidenceStore.open(store, create=create)


def _existing(store: str) -> EvidenceStore:
    # A mistyped path must not become an empty store.
    return _opened(store, create=False)


def _json(path: Path) -> dict[str, Any]:
    from exequatur.statements.encoding import strict_json

    try:
        found = strict_json(path.read_bytes())
    except ValueError as error:
        raise EvidenceError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise EvidenceError(f"{path}: not a JWK set")
    return found
