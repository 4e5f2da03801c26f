"""``exequatur integrity``: what a worker is, measured, signed and verified."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import ConfigurationError, StatementError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.integrity.manifest import Measurement

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)
_PLACE = click.Path(exists=True, path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output instead of text.")
_FROM = click.option(
    "--from", "modules", multiple=True, metavar="MODULE", help="Import this first, as the worker does; may be repeated."
)
_IMAGE = click.option("--image", metavar="sha256:...", help="Digest of the container image.")
DIFFERS = 1
_SHOWN = 20
_FITS_AUTHORITY = 180 * 1024
"""Bytes. What an authority service takes in one request, less the rest of the order."""


@click.group()
def integrity() -> None:
    """Record what a worker is, sign it, and verify that a worker still is it."""


@integrity.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--keys", type=_NEW, help="The JWK set to add the public part to; FOLDER/manifest-keys.jwks if left out.")
@click.option("--issuer", default="manifest", show_default=True, help="Who signs with the key.")
def keygen(folder: Path, keys: Path | None, issuer: str) -> None:
    """Make a key that signs manifests, in FOLDER.

    Keep FOLDER away from the workers: they need the JWK set only (setting integrity_keys), as does the authority.
    """
    from exequatur.integrity.keys import KEY_NAME, KEYS_NAME, make_manifest_key

    trusted = keys or folder / KEYS_NAME
    key = make_manifest_key(folder, trusted, issuer)
    click.echo(f"{folder / KEY_NAME}: key {key.kid}, keep it secret")
    click.echo(f"{trusted}: the keys that may sign manifests")


@integrity.command()
@_FROM
@click.option("--source", "sources", type=_PLACE, multiple=True, help="A folder or file of source code besides.")
@click.option("--config", "files", type=_FILE, multiple=True, help="A configuration file; may be repeated.")
@click.option("--env", "variables", multiple=True, metavar="NAME", help="An environment variable; may be repeated.")
@_IMAGE
@click.option("--build", metavar="BUILD_ID", help="Temporal build id of the worker's deployment.")
@click.option("-o", "--output", type=_NEW, help="The file to write; standard output if left out.")
def measure(
    modules: tuple[str, ...],
    sources: tuple[Path, ...],
    files: tuple[Path, ...],
    variables: tuple[str, ...],
    image: str | None,
    build: str | None,
    output: Path | None,
) -> None:
    """Measure what a worker is that runs here with this interpreter.

    Run it where the worker will run: the same image, the same working folder, the same interpreter and environment.
    exequatur.toml and the variables EXEQUATUR_..., LD_PRELOAD and their like are measured without being named. Of
    variables, digests of their values are written; do not name one that holds a short secret, which could be guessed.

    Exit codes: 0 measured, 1 an installed distribution is not what was published, 2 could not be measured.
    """
    from exequatur.files import PUBLIC, write_whole
    from exequatur.integrity.compare import deviations
    from exequatur.integrity.files import Reader
    from exequatur.integrity.manifest import measurement_json
    from exequatur.integrity.measure import (
        Plan,
        Sites,
        editable_sources,
        outermost,
        own_variables,
        settings_files,
        sources_of,
    )
    from exequatur.integrity.measure import measure as measured

    before = frozenset(sys.modules)
    _import(modules)
    sites = Sites.here()
    # Of what this command itself has loaded, only the package counts.
    mine = {name: each for name, each in sys.modules.items() if name not in before or name == "exequatur"}
    roots = outermost(
        [*sources_of(mine, sites), *editable_sources(sites), *(each.resolve() for each in sources)],
    )
    configuration = tuple({each.resolve() for each in files} | set(settings_files()))
    plan = Plan(roots, configuration, tuple({*variables, *own_variables()}), image, build)
    found = measured(plan, Reader(), sites).measurement
    text = measurement_json(found)
    if output is None:
        click.echo(text.decode())
    else:
        write_whole(output, text + b"\n", PUBLIC)
        click.echo(_summary(found), err=True)
    if wrong := deviations(found):
        _list("Not as published", wrong)
        click.get_current_context().exit(DIFFERS)


@integrity.command()
@click.argument("measurement", type=_FILE)
@click.option("--key", "files", type=_FILE, multiple=True, required=True, help="Who signs; may be repeated.")
@click.option("--name", default="worker", show_default=True, help="What the worker is called.")
@click.option("--with-deviations", is_flag=True, help="Sign although distributions are not what was published.")
@click.option("-o", "--output", type=_NEW, required=True, help="The manifest to write.")
def sign(measurement: Path, files: tuple[Path, ...], name: str, with_deviations: bool, output: Path) -> None:
    """Sign MEASUREMENT, as `exequatur integrity measure` wrote it: a DSSE envelope around an in-toto statement.

    Exit codes: 0 signed, 1 an installed distribution is not what was published, 2 could not be signed.
    """
    from exequatur.files import PUBLIC, write_whole
    from exequatur.integrity.compare import deviations
    from exequatur.integrity.keys import read_manifest_key
    from exequatur.integrity.manifest import sign_manifest

    found = _read_measurement(measurement)
    wrong = deviations(found)
    if wrong and not with_deviations:
        _list("Not signed, because installed files are not as published", wrong)
        click.get_current_context().exit(DIFFERS)
    try:
        manifest = sign_manifest(found, name, *(read_manifest_key(each) for each in files))
    except ValueError as error:
        raise ConfigurationError(f"{measurement}: {error}") from None
    write_whole(output, manifest.encode() + b"\n", PUBLIC)
    click.echo(f"{output}: {shown(name)}, {_summary(found)}")
    if len(manifest) > _FITS_AUTHORITY:
        click.echo("It is too large to be shown to an authority service; name fewer folders of sources", err=True)


@integrity.command()
@click.argument("manifest", type=_FILE)
@click.option("--keys", type=_FILE, required=True, help="The JWK set of the keys that may sign manifests.")
@_FROM
@_IMAGE
@_AS_JSON
def verify(manifest: Path, keys: Path, modules: tuple[str, ...], image: str | None, as_json: bool) -> None:
    """Verify that what is here is what MANIFEST says, and name each difference.

    Exit codes: 0 nothing differs, 1 something does, 2 could not be verified.
    """
    from exequatur.integrity.compare import differences
    from exequatur.integrity.files import Reader
    from exequatur.integrity.keys import read_manifest_keys, read_small
    from exequatur.integrity.loaded import Loaded
    from exequatur.integrity.manifest import verify_manifest
    from exequatur.integrity.measure import Plan
    from exequatur.integrity.measure import measure as measured

    text = read_small(manifest, 16 * 1024 * 1024, "no manifest").decode("utf-8", "replace")
    try:
        believed = verify_manifest(text, read_manifest_keys(keys), time.time())
    except StatementError as error:
        raise ConfigurationError(f"{manifest}: {error}") from None
    before = frozenset(sys.modules)
    _import(modules)
    found = measured(Plan.of(believed.measurement, image), Reader())
    wrong = differences(believed.measurement, found.measurement)
    if modules:
        loaded = Loaded(lambda path: path in found.reader.seen, lambda place: True, lambda path: False)
        only = {name: each for name, each in sys.modules.items() if name not in before}
        wrong += loaded.changes(found.reader, only)
    if as_json:
        said = {"manifest": believed.digest, "name": believed.name, "key": believed.key, "differences": wrong}
        click.echo(json.dumps(said, indent=2))
    elif wrong:
        _list(f"This is not {shown(believed.name)}", wrong, every=True)
    else:
        click.echo(f"This is {shown(believed.name)}: {_summary(believed.measurement)}, code {believed.digest}")
    if wrong:
        click.get_current_context().exit(DIFFERS)


@integrity.command()
@click.option("--document", type=_FILE, help="The identity document, with --signature.")
@click.option("--signature", type=_FILE, help="Its RSA signature in base64.")
@click.option("--rsa2048", type=_FILE, help="The PKCS #7 message that holds both, instead.")
@click.option("-o", "--output", type=_NEW, required=True, help="The file for the setting instance_document.")
def instance(document: Path | None, signature: Path | None, rsa2048: Path | None, output: Path) -> None:
    """Put what a cloud's metadata service said of this machine into one file. Nothing is verified here."""
    from exequatur.files import PUBLIC, write_whole
    from exequatur.integrity.instance import read_instance

    if (rsa2048 is None) == (document is None) or (document is None) != (signature is None):
        raise click.UsageError("Give --rsa2048, or --document and --signature")
    given = {"rsa2048": rsa2048} if rsa2048 else {"document": document, "signature": signature}
    texts = {name: read_instance(path) for name, path in given.items() if path is not None}
    write_whole(output, json.dumps(texts).encode() + b"\n", PUBLIC)
    click.echo(f"{output}: set instance_document to it")


def _import(modules: tuple[str, ...]) -> None:
    if modules:
        sys.path.insert(0, str(Path.cwd()))
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigurationError(f"--from {name}: {type(error).__name__}: {error}") from error


def _read_measurement(path: Path) -> Measurement:
    from pydantic import ValidationError

    from exequatur.integrity.envelope import MAX_BYTES
    from exequatur.integrity.keys import read_small
    from exequatur.integrity.manifest import Measurement
    from exequatur.statements.encoding import strict_json

    data = read_small(path, MAX_BYTES, "no measurement")
    try:
        strict_json(data)
        return Measurement.model_validate_json(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))[:200]
        raise ConfigurationError(f"{path} is no measurement: {where} is missing, unknown or ill-typed") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is no measurement: {error}") from None


def _summary(measurement: Measurement) -> str:
    files = sum(map(len, measurement.sources.values()))
    return f"{count(len(measurement.distributions), 'distribution')}, {count(files, 'source file')}"


def _list(head: str, sentences: list[str], *, every: bool = False) -> None:
    told = sentences if every else sentences[:_SHOWN]
    click.echo(f"{head}:", err=not every)
    for each in told:
        click.echo(f"  {shown(each)}", err=not every)
    if len(told) < len(sentences):
        click.echo(f"  and {len(sentences) - len(told)} more", err=True)
