"""``exequatur policy build``, ``keygen``, ``sign``, ``verify`` and ``show``: a bundle file and its releases."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import ConfigurationError, PolicyError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.policy.offer import Provenance
    from exequatur.release.file import BundleFile, Contents

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
NAME = click.option("--name", default="policies", show_default=True, help="What the policies are released under.")
BUNDLE = click.argument("bundle", metavar="BUNDLE", type=FILE)


@click.command()
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.option("--version", required=True, help="Your name for this state of the policies, for example 1.4.0.")
@click.option("--author", envvar="GIT_AUTHOR_NAME", help="Who answers for it; GIT_AUTHOR_NAME if left out.")
@NAME
@click.option("--time", "moment", help="RFC 3339 time to put in; SOURCE_DATE_EPOCH or now if left out.")
@click.option("-o", "--output", type=FILE, help="The file to write; NAME.bundle if left out.")
@AS_JSON
def build(
    folder: Path, version: str, author: str | None, name: str, moment: str | None, output: Path | None, as_json: bool
) -> None:
    """Make one file of a folder of policies; what does not parse or validate is refused.

    The same inputs give the same bytes. The file is named by its content; to release it, sign it.
    """
    from exequatur.files import PUBLIC, write_whole
    from exequatur.policy.source import read_folder
    from exequatur.release.file import build as built
    from exequatur.release.file import manifest_of

    source = read_folder(folder)
    if not author:
        raise ConfigurationError("Nobody answers for the bundle; give --author, or set GIT_AUTHOR_NAME")
    manifest = manifest_of({"name": name, "version": version, "author": author, "time": _time(moment)})
    path = writable(output or Path(f"{name}.bundle"))
    try:
        file, bundle = built(source, manifest)
    except PolicyError as error:
        raise PolicyError(f"{error} `exequatur policy check {folder}` says more.") from None
    write_whole(path, file.to_bytes(), PUBLIC)
    if as_json:
        _echo_json({"file": str(path), "address": file.address, "digest": bundle.digest, "warnings": bundle.warnings})
        return
    for warning in bundle.warnings:
        click.echo(f"warning: {shown(warning)}", err=True)
    click.echo(f"{path}: {count(len(bundle.policies), 'policy', 'policies')}, not signed yet")
    click.echo(f"address {file.address}\ndigest  {bundle.digest}")


@click.command()
@click.argument("folder", metavar="FOLDER", type=FOLDER)
@click.option("--issuer", default="policy", show_default=True, help="Who signs with it; every release names it.")
@click.option("--keys", type=FILE, help="File of trusted keys to add it to; FOLDER/policy-keys.jwks if left out.")
def keygen(folder: Path, issuer: str, keys: Path | None) -> None:
    """Make a policy key: FOLDER/policy-key.pem, which signs, and policy-keys.jwks, which workers trust.

    Who reads policy-key.pem can release policies. To exchange a key, make the next one with --keys and the file that
    the workers trust, sign with both for a while, and then remove the old one from that file.
    """
    from exequatur.release.keys import KEY_NAME, KEYS_NAME, make_key

    trusted = keys or folder / KEYS_NAME
    new = keys is not None and not trusted.exists()
    key = make_key(folder, trusted, issuer)
    click.echo(f"{folder / KEY_NAME}: signs, keep it secret\n{trusted}: give it to workers as policy_keys")
    if new:
        click.echo(f"made {trusted}, which was not there", err=True)
    click.echo(f"key {key.kid}")


@click.command()
@BUNDLE
@click.option("--key", required=True, type=FILE, help="The policy-key.pem to sign with.")
@click.option("--issuer", default="policy", show_default=True, help="As given to keygen.")
@click.option("--share", type=click.IntRange(1, 100), help="A canary for so many per cent of the workers.")
@click.option("--expires", metavar="TIME", help="When it ends: 30d, 12h, or 2026-01-31T12:00:00Z.")
@click.option("--sequence", type=click.IntRange(1, 2**53 - 1), help="Higher than any before; now if left out.")
@click.option("-o", "--output", type=FILE, help="The file to write; BUNDLE itself if left out.")
def sign(
    bundle: Path,
    key: Path,
    issuer: str,
    share: int | None,
    expires: str | None,
    sequence: int | None,
    output: Path | None,
) -> None:
    """Release a bundle: for all workers, or with --share for a canary.

    Workers never go back to a lower sequence. To roll back, sign the older bundle again; to promote a canary, sign the
    same bundle again without --share. A release that ends leaves the workers without policies: they then take no work.
    """
    from exequatur.files import PUBLIC, write_whole
    from exequatur.release.keys import read_signing_key
    from exequatur.release.signing import sign_bundle

    path = writable(output or bundle)
    file, contents = _opened(bundle)
    now = time.time()
    signed, release = sign_bundle(
        file,
        contents,
        read_signing_key(key),
        issuer=issuer,
        now=now,
        sequence=sequence,
        share=share,
        expires=_expiry(expires, now),
    )
    write_whole(path, signed.to_bytes(), PUBLIC)
    click.echo(
        f"{path}: release {release.sequence} of {release.name}, {_audience(release.share)}, {_until(release.exp)}"
    )


@click.command()
@BUNDLE
@click.option("--keys", required=True, type=FILE, help="The JWK set of the policy keys that you trust.")
@NAME
@click.option("--canary", is_flag=True, help="Verify its canary release instead of its stable one.")
@AS_JSON
def verify(bundle: Path, keys: Path, name: str, canary: bool, as_json: bool) -> None:
    """Verify a bundle as a worker does: signature, content, times, and that the policies are valid.

    What a worker has adopted before is not known here. Exit code 1 if it does not verify.
    """
    from exequatur.release.keys import read_policy_keys
    from exequatur.release.signing import verify_bundle

    trust, data = read_policy_keys(keys), _bytes(bundle)
    try:
        verified, provenance = verify_bundle(
            data, str(bundle), trust, follows=name, channel="canary" if canary else "stable", now=time.time()
        )
    except PolicyError as error:
        if as_json:
            _echo_json({"verified": False, "reason": str(error)})
        else:
            click.echo(f"not verified: {shown(str(error))}")
        raise click.exceptions.Exit(1) from None
    if as_json:
        _echo_json({"verified": True, "digest": verified.digest, **_fields(provenance)})
        return
    click.echo(f"verified: release {provenance.sequence} of {shown(provenance.name)} {shown(provenance.version)}")
    click.echo(f"by key {provenance.key}, {_until(provenance.expires)}")
    click.echo(f"digest {verified.digest}")


@click.command()
@BUNDLE
@AS_JSON
def show(bundle: Path, as_json: bool) -> None:
    """Show what a bundle says: manifest, releases and policies. Its signatures are not verified."""
    from exequatur.policy.bundle import PolicyBundle
    from exequatur.release.pushing import releases_of

    file, contents = _opened(bundle)
    policies, manifest, releases = PolicyBundle(contents.source), contents.manifest, releases_of(file)
    if as_json:
        _echo_json(
            {
                "address": file.address,
                "digest": policies.digest,
                "manifest": manifest.model_dump(),
                "releases": [release.model_dump(exclude_none=True) for release in releases],
                "policies": [{"id": info.id, "effect": info.effect} for info in policies.policies.values()],
                "schema": contents.source.schema is not None,
                "entities": len(contents.source.entity_documents),
            }
        )
        return
    click.echo(f"name     {shown(manifest.name)}\nversion  {shown(manifest.version)}")
    click.echo(f"author   {shown(manifest.author)}\ntime     {manifest.time}")
    click.echo(f"address  {file.address}\ndigest   {policies.digest}")
    schema = "with a schema" if contents.source.schema else "without a schema"
    click.echo(f"content  {schema}, {count(len(contents.source.entity_documents), 'entity', 'entities')}")
    for release in releases:
        by = f"by {shown(release.iss)}, not verified here"
        click.echo(f"release  {release.sequence}, {_audience(release.share)}, {_until(release.exp)}, {by}")
    if not releases:
        click.echo("release  none: it is not signed")
    for info in policies.policies.values():
        click.echo(f"policy   {info.effect} {shown(info.id)}")


def writable(path: Path) -> Path:
    """A file that is to be written, if there is a folder for it.

    Raises:
        ConfigurationError: There is none; said before the work, not after it.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"-o {path}: there is no folder {path.parent}; make it first")
    return path


def _opened(path: Path) -> tuple[BundleFile, Contents]:
    from exequatur.release.file import BundleFile

    file = BundleFile.read(_bytes(path), str(path))
    return file, file.open(str(path))


def _bytes(path: Path) -> bytes:
    from exequatur.release.directory import read_file

    return read_file(path)


def _time(text: str | None) -> str:
    """The time to put into a manifest."""
    if text is not None:
        return text
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"SOURCE_DATE_EPOCH is {epoch!r}; write seconds since 1970, or give --time") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _expiry(text: str | None, now: float) -> float | None:
    """When a release ends, in seconds since 1970.

    Raises:
        ConfigurationError: ``text`` is neither a duration nor a time to come.
    """
    from pydantic import TypeAdapter, ValidationError

    from exequatur.settings import Interval

    if text is None:
        return None
    try:
        ends = now + TypeAdapter(Interval).validate_python(text).total_seconds()
    except ValidationError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigurationError(
                f"--expires {text}: neither a duration nor a time; write it as 30d or 2026-01-31T12:00:00Z"
            ) from None
        ends = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if ends <= now:
        raise ConfigurationError(f"--expires {text}: that has passed; name a time to come")
    return float(int(ends))


def _audience(share: int | None) -> str:
    return "for all workers" if share is None else f"canary for {share} % of the workers"


def _until(expires: float | None) -> str:
    return "without an end" if expires is None else f"until {datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _fields(provenance: Provenance) -> dict[str, Any]:
    return {field: getattr(provenance, field) for field in provenance.__slots__}


def _echo_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


COMMANDS = (build, keygen, sign, verify, show)
