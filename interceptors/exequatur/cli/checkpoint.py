"""``exequatur checkpoint``: a notary's key and signatures, and proofs that verify without a server."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exequatur.audit.wording import count, moment, shown
from exequatur.cli.logs import log_to_stderr
from exequatur.cli.server import Server, with_server
from exequatur.errors import ConfigurationError, EvidenceError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.audit.notary import Notary
    from exequatur.audit.trust import AuditTrust
    from exequatur.statements.keys import SigningKey

_FILE = click.Path(dir_okay=False, path_type=Path)
_NAME = click.option("--name", required=True, metavar="NAME", help="Of the notary's key, such as example.org/notary.")
NOT_WHAT_WAS_SIGNED = 1
MAX_BYTES = 16 * 1024 * 1024
"""A note is a few hundred bytes; a proof holds one event, which fits a message of Temporal, 4 MB, and grows as text."""


@click.group()
def checkpoint() -> None:
    """Sign heads of histories outside the server that could rewrite them, and prove what they cover."""


@checkpoint.command()
@click.argument("file", type=_FILE)
@_NAME
def key(file: Path, name: str) -> None:
    """Make a notary's key, unless FILE is one, and print its public part.

    What is printed goes into the member "notaries" of auditors' trust files. Whoever reads FILE is the notary.
    """
    from exequatur.lineage.note import VerifierKey, check_name
    from exequatur.statements.keys import SigningKey

    try:
        check_name(name)
    except ValueError as error:
        raise ConfigurationError(f"--name: {error}") from error
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(SigningKey.generate().to_pem())
    click.echo(str(VerifierKey(name, _signer(file).x)))


@checkpoint.command()
@click.argument("workflow_id", required=False)
@click.option("--run-id", help="The run; the latest when it is left out.")
@click.option("--query", metavar="VISIBILITY_QUERY", help="All runs that this finds, instead of one.")
@click.option("--follow", is_flag=True, help="Runs as they close, and open ones as they grow, until interrupted.")
@click.option("--key", "file", type=_FILE, required=True, help="The notary's key, from `exequatur checkpoint key`.")
@_NAME
@click.option("--site", required=True, metavar="TRUST_DOMAIN/CLUSTER", help="As the workers' settings have them.")
@click.option("--store", required=True, metavar="STORE", help="Where checkpoints and the namespace's log are kept.")
@with_server
def seal(
    server: Server,
    workflow_id: str | None,
    run_id: str | None,
    query: str | None,
    follow: bool,
    file: Path,
    name: str,
    site: str,
    store: str,
) -> None:
    """Sign the head of a run, or of many, and print the signed note of one."""
    from exequatur.audit.notary import Notary
    from exequatur.lineage.store import EvidenceStore

    if [workflow_id is not None, query is not None, follow].count(True) != 1:
        raise click.UsageError("Give one of WORKFLOW_ID, --query and --follow")
    if run_id is not None and workflow_id is None:
        raise click.UsageError("--run-id goes with WORKFLOW_ID")
    with EvidenceStore.open(store) as opened:
        notary = Notary(opened, _signer(file), name, site=site, namespace=server.namespace)
        if workflow_id is not None:
            click.echo(asyncio.run(_seal_one(notary, server, workflow_id, run_id)), nl=False)
            return
        log_to_stderr()
        if query is None:
            asyncio.run(_follow(notary, server))
            return
        sealed, failed = asyncio.run(_seal_all(notary, server, query))
        click.echo(f"{count(sealed, 'run')} sealed")
        if failed or not sealed:
            raise EvidenceError(f"{count(failed, 'run')} could not be sealed" if failed else "no run was sealed")


@checkpoint.command()
@click.argument("history", type=_FILE)
@click.argument("note", type=_FILE)
@click.option("--event", type=click.IntRange(min=1), required=True, help="Its id in the history.")
def prove(history: Path, note: Path, event: int) -> None:
    """Print a proof that an event of HISTORY is covered by the checkpoint in NOTE."""
    from exequatur.audit.history import read_history
    from exequatur.audit.notary import prove as made

    click.echo(json.dumps(made(read_history(history), _read(note).decode("utf-8", "replace"), event), indent=2))


@checkpoint.command()
@click.argument("file", type=_FILE)
@click.option("--trust", type=_FILE, required=True, help="The trust file whose notaries and witnesses count.")
@click.option("--history", type=_FILE, help="The history that a checkpoint is of.")
def verify(file: Path, trust: Path, history: Path | None) -> None:
    """Verify FILE, a checkpoint or a proof, offline.

    Exit codes: 0 verified, 1 the history is not what was signed, 2 could not be verified.
    """
    from exequatur.audit.notary import verify_proof
    from exequatur.audit.trust import read_trust

    believed, data = read_trust(trust), _read(file)
    if not believed.notaries:
        raise EvidenceError(f'{trust}: names no notary; add its key to the member "notaries"')
    if data.lstrip().startswith(b"{"):
        head, event = verify_proof(data, believed)
        click.echo(f"The checkpoint of {shown(head.origin)} covers this event:\n{json.dumps(event, indent=2)}")
        return
    _verify_note(data, file, believed, history)


def _verify_note(data: bytes, file: Path, trust: AuditTrust, history: Path | None) -> None:
    from exequatur.audit.history import read_history
    from exequatur.audit.leaves import tree_of
    from exequatur.lineage import checkpoint as checkpoints
    from exequatur.lineage import note as notes

    parsed = notes.parse(data)
    notary = next((each for each in trust.notaries if notes.bodies_by(parsed, each)), None)
    if notary is None:
        raise EvidenceError(f"{file}: no notary of the trust file has signed it")
    found = checkpoints.verify_checkpoint(data, notary=notary, witnesses=trust.witnesses, threshold=trust.threshold)
    head = found.checkpoint
    click.echo(f"{shown(head.origin)}: {count(head.size, 'event')} signed by {notary.name}")
    for witness, at in sorted(found.cosigned.items()):
        click.echo(f"seen by {shown(witness)} at {moment(at)} UTC")
    if history is None:
        return
    events = read_history(history).events
    if len(events) < head.size or tree_of(events[: head.size]).root() != head.root:
        click.echo(f"{history} is not what was signed: events were changed, or are missing", err=True)
        click.get_current_context().exit(NOT_WHAT_WAS_SIGNED)
    click.echo(f"The first {count(head.size, 'event')} of {history} are those that were signed")


async def _seal_one(notary: Notary, server: Server, workflow_id: str, run_id: str | None) -> str:
    from exequatur.cli.fetching import fetched

    return notary.seal(await fetched(await server.connect(), workflow_id, run_id)).run


async def _seal_all(notary: Notary, server: Server, query: str) -> tuple[int, int]:
    return await notary.seal_all(await server.connect(), query)


async def _follow(notary: Notary, server: Server) -> None:
    client = await server.connect()
    click.echo("sealing runs as they close; interrupt to stop", err=True)
    await notary.follow(client)


def _signer(file: Path) -> SigningKey:
    from exequatur.statements.keys import SigningKey

    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"{file} is open to others (mode {mode:o}); whoever reads it is the notary. Run: chmod go-rwx {file}"
        )
    try:
        return SigningKey.from_pem(file.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{file} is {error}; name the file that `exequatur checkpoint key` made") from error


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise EvidenceError(f"{file}: larger than any checkpoint or proof")
    return data
