"""``exequatur keys``: the keys that an authority signs with."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import moment, shown
from exequatur.errors import ConfigurationError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.authority.keyring import KeyRole, RingKey
    from exequatur.authority.rotation import Keys

_ROLES = ("grant", "credential", "permit", "approval", "revocation")
_SHORT = 12
"""Characters of a key's id that are shown."""
_BRIEF = 60.0
"""Seconds of an overlap below which a worker may not have learned the key."""
_STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".exequatur"),
    show_default=True,
    help="The authority's state folder.",
)
_ROLE = click.argument("role", type=click.Choice(_ROLES))
_KEY = click.argument("key", metavar="KEY")
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
_PASSPHRASES = (
    click.option(
        "--passphrase-env", metavar="NAME", help="Environment variable with the passphrase of the key's file."
    ),
    click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with that passphrase, for its owner only.",
    ),
)


def _with_passphrase(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``passphrase``, as the ring writes it."""

    @functools.wraps(command)
    def given(passphrase_env: str | None, passphrase_file: Path | None, **others: Any) -> None:
        if passphrase_env is not None and passphrase_file is not None:
            raise click.UsageError("Give one of --passphrase-env and --passphrase-file")
        place = None if passphrase_env is None else f"env:{passphrase_env}"
        if passphrase_file is not None:
            place = f"file:{passphrase_file.absolute()}"
        command(passphrase=place, **others)

    for option in reversed(_PASSPHRASES):
        given = option(given)
    return given


@click.group()
def keys() -> None:
    """The keys that an authority signs with: one role each, replaced without interrupting what runs.

    ROLE is grant, credential, permit, approval or revocation. KEY is a key's id, or how it begins. Running processes
    follow within two seconds.

    Exit codes: 0 done, 2 could not be done, and nothing was changed unless it says so.
    """


@keys.command("list")
@_STATE
@_JSON
def list_keys(state: Path, as_json: bool) -> None:
    """Show the keys, and which of them signs.

    Each signs since or from a time, waits to be told when, verifies what it signed before, is retired, or is revoked.
    The source says where its private part is: "none" for a key that is only known as a trust anchor.
    """
    from exequatur.authority.rotation import read_keys

    rows = _rows(read_keys(state), time.time())
    if as_json:
        click.echo(json.dumps([row.document for row in rows], indent=2))
        return
    kind, source = max(len(row.role) for row in rows), max(len(row.source) for row in rows)
    for row in rows:
        click.echo(f"{row.role:<{kind}}  {row.kid[:_SHORT]}  {shown(row.source):<{source}}  {row.says}")


@keys.command()
@_ROLE
@_STATE
@_with_passphrase
@_JSON
def generate(role: KeyRole, state: Path, passphrase: str | None, as_json: bool) -> None:
    """Make a key and publish it. It signs when `exequatur keys rotate` says so.

    The first key of a role signs at once. With a passphrase the key's file is encrypted; the passphrase itself is
    never written down, only where it is.
    """
    from exequatur.authority.rotation import generate

    _tell_added(generate(state, role, passphrase=passphrase), state, as_json)


@keys.command("import")
@_ROLE
@click.option("--pem", type=click.Path(dir_okay=False, path_type=Path), help="A file with the key. It is copied.")
@click.option("--env", metavar="NAME", help="An environment variable of the authority that holds the key as PEM.")
@click.option("--signer", metavar="MODULE:FUNCTION", help="A function that gives a Signer: for a KMS or an HSM.")
@click.option("--argument", metavar="TEXT", help="What that function is given, such as the key's name in the KMS.")
@_STATE
@_with_passphrase
@_JSON
def import_key(
    role: KeyRole,
    pem: Path | None,
    env: str | None,
    signer: str | None,
    argument: str | None,
    state: Path,
    passphrase: str | None,
    as_json: bool,
) -> None:
    """Take a key from elsewhere and publish it. It signs when `exequatur keys rotate` says so.

    The first key of a role signs at once: import into a new state folder what must never be a file.
    """
    from exequatur.authority.rotation import take

    if [pem, env, signer].count(None) != 2:
        raise click.UsageError("Give one of --pem, --env and --signer")
    if argument is not None and signer is None:
        raise click.UsageError("--argument goes with --signer")
    if passphrase is not None and signer is not None:
        raise click.UsageError("A passphrase goes with --pem or --env")
    source = None if pem is not None else f"env:{env}" if env is not None else f"signer:{signer}"
    if signer is not None and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    _tell_added(take(state, role, pem=pem, source=source, passphrase=passphrase, argument=argument), state, as_json)


@keys.command()
@_ROLE
@click.option(
    "--overlap",
    default="10m",
    show_default=True,
    help="How long the new key is published before it signs, such as 90s, 10m or 1d.",
)
@click.option("--to", metavar="KEY", help="The key that is to sign; else the newest that waits, or a new one.")
@_STATE
@_with_passphrase
@_JSON
def rotate(role: KeyRole, overlap: str, to: str | None, state: Path, passphrase: str | None, as_json: bool) -> None:
    """Let another key sign in a role, once everybody has learned it.

    The new key is published at once and signs after the overlap. The old one signs until then, and verifies what it
    signed for good: running workflows go on, and old histories verify.
    """
    from exequatur.authority.rotation import rotate

    seconds = _seconds(overlap)
    done = rotate(state, role, seconds, to=to, passphrase=passphrase)
    if as_json:
        before = None if done.before is None else done.before.kid
        click.echo(json.dumps({"role": role, "kid": done.key.kid, "signs_from": done.at, "before": before}, indent=2))
        return
    click.echo(f"Key {done.key.kid} signs {role}s from {moment(done.at)} UTC")
    if done.before is not None and done.before.kid != done.key.kid:
        until = (
            "until then, and verifies what it signed. When" if seconds else "no more, and verifies what it signed. When"
        )
        click.echo(f"Key {done.before.kid} signs {until} nothing needs it: exequatur keys retire {_short(done.before)}")
    if seconds < _BRIEF:
        click.echo(
            f"Workers that do not learn the key within {overlap} refuse messages that stand on it; other work waits",
            err=True,
        )


@keys.command()
@_KEY
@_STATE
@_JSON
def retire(key: str, state: Path, as_json: bool) -> None:
    """Let a key sign no more. What it signed goes on verifying.

    A key that signs now is rotated first. A retired key is never put back.
    """
    from exequatur.authority.rotation import retire

    retired = retire(state, key)
    if as_json:
        click.echo(json.dumps({"kid": retired.kid, "retired": retired.retired}, indent=2))
        return
    click.echo(f"Key {retired.kid} signs no more; what it signed before {moment(retired.retired or 0.0)} UTC verifies")
    if retired.source.startswith("file:"):
        click.echo(f"{state / 'keys' / retired.source.removeprefix('file:')} is not needed any more; delete it")


@keys.command()
@_KEY
@click.option("--reason", required=True, help="A sentence for those whose work ends.")
@click.option("--yes", is_flag=True, help="Also if nothing can sign in its role afterwards.")
@_STATE
@_JSON
def revoke(key: str, reason: str, yes: bool, state: Path, as_json: bool) -> None:
    """Let nobody believe any more what a key signed, from now on.

    For a key that somebody else may have. Work that stands on it ends: running activities are stopped, and workflows
    have to be started again. What was done before it was revoked still verifies in an audit. Rotate first, so that
    another key signs.
    """
    from exequatur.authority.feed import own_store
    from exequatur.authority.rotation import revoke
    from exequatur.authority.state import read_anchors
    from exequatur.revocation.entry import revocation
    from exequatur.revocation.head import HEAD, HeadFile
    from exequatur.revocation.revocations import OwnRevocations
    from exequatur.settings import Settings

    def revoked(found: RingKey) -> int:
        head = HeadFile(state / HEAD, read_anchors(state))
        own = OwnRevocations(own_store(state, Settings.load()), head=head)
        return own.add(revocation(key=found.kid, reason=reason))

    found, version, after = revoke(state, key, revoked, last=yes)
    if as_json:
        signs = None if after is None else after.kid
        click.echo(json.dumps({"kid": found.kid, "version": version, "signs": signs}, indent=2))
        return
    click.echo(f"Key {found.kid} is revoked; the revocation feed is at version {version}")
    if after is not None:
        click.echo(f"Key {after.kid} signs {found.role}s")
    else:
        click.echo(f"Nothing signs {found.role}s now; run: exequatur keys rotate {found.role} --overlap 0s", err=True)


@dataclass(frozen=True)
class _Row:
    role: str
    kid: str
    source: str
    standing: str
    at: float | None
    """What the standing is since, until or from, in seconds since 1970."""

    @property
    def says(self) -> str:
        return self.standing if self.at is None else f"{self.standing} {moment(self.at)} UTC"

    @property
    def document(self) -> dict[str, object]:
        return {"role": self.role, "kid": self.kid, "source": self.source, "standing": self.standing, "at": self.at}


def _rows(known: Keys, now: float) -> list[_Row]:
    """All keys, role by role, oldest first; those that are anchors only come first."""
    from exequatur.authority.keyring import KEYS

    described = {key.kid for key in known.ring.keys}
    rows = []
    for role, typ in KEYS.items():
        for anchor in known.trust:
            if anchor.typ == (typ,) and anchor.kid not in described:
                standing = "verifies" if anchor.exp is None else "retired"
                rows.append(_Row(role, anchor.kid, "none", standing, anchor.exp))
        signing = known.ring.signing(role, now)
        rows += [_row(key, now, signs=key == signing) for key in known.ring.of(role)]
    if not rows:
        raise ConfigurationError("The state folder has no keys; start a worker, or run: exequatur keys generate")
    return rows


def _row(key: RingKey, now: float, *, signs: bool) -> _Row:
    standing, at = "verifies", key.signs_from
    if key.revoked:
        standing, at = "revoked", key.retired
    elif key.retired is not None:
        standing, at = "retired", key.retired
    elif key.signs_from is None:
        standing, at = "waits", None
    elif signs:
        standing = "signs since"
    elif key.signs_from > now:
        standing = "signs from"
    else:
        at = None
    return _Row(key.role, key.kid, key.source, standing, at)


def _tell_added(key: RingKey, state: Path, as_json: bool) -> None:
    if as_json:
        document = {"role": key.role, "kid": key.kid, "source": key.source, "signs_from": key.signs_from}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"Key {key.kid} is published in {state / 'trust.jwks'}")
    if key.signs_from is None:
        click.echo(f"It waits; let it sign with: exequatur keys rotate {key.role} --to={key.kid[:_SHORT]}")
    else:
        click.echo(f"It is the first for {key.role}s and signs now")


def _short(key: RingKey) -> str:
    """The key as an argument; one in 64 begins like an option."""
    short = key.kid[:_SHORT]
    return f"-- {short}" if short.startswith("-") else short


def _seconds(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from exequatur.settings import Duration

    try:
        return float(TypeAdapter(Duration).validate_python(text).total_seconds())
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"--overlap: {problem}") from None
