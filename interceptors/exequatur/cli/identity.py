"""``exequatur identity``: which credentials an authority believes, and whom they stand for."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import shown
from exequatur.errors import ConfigurationError, IdentityError

if TYPE_CHECKING:
    from exequatur.identity.callers import Identified
    from exequatur.identity.credential import Credential

_TYPES = ("jwt", "access_token", "id_token", "local")


@click.group()
def identity() -> None:
    """Try out which credentials an authority believes, and whom they stand for.

    Exit codes: 0 it is believed, 1 it is refused, 2 it could not be checked.
    """


@identity.command("check")
@click.option(
    "--config",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The identity configuration, such as identity.toml.",
)
@click.option("--type", "kind", type=click.Choice(_TYPES), default="jwt", show_default=True, help="What the token is.")
@click.option(
    "--actor", type=click.Path(dir_okay=False, path_type=Path), help="File with the token of who acts for the subject."
)
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TLS client certificate of the connection, as PEM or DER; by itself, or for a token that is bound to it.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@click.argument("token", required=False, metavar="[TOKENFILE]")
def check(
    config: Path, kind: str, actor: Path | None, certificate: Path | None, as_json: bool, token: str | None
) -> None:
    """Verify a credential and print the principal that it stands for.

    TOKENFILE is a file with the token; - reads standard input. The token is not printed, and nothing is issued. Keys
    are fetched as the configuration says.

    \b
      exequatur identity check --config identity.toml token.jwt
    """
    from exequatur.identity.config import read_identity

    if token is None and certificate is None:
        raise click.UsageError("Name a file with a token, or a client certificate")
    callers = read_identity(config)
    subject = None if token is None else _credential(token, kind)
    acts = None if actor is None else _credential(str(actor), "jwt")
    der = None if certificate is None else _der(certificate)
    try:
        found = callers.identify(subject, time.time(), actor=acts, certificate=der)
    except IdentityError as error:
        if as_json:
            click.echo(json.dumps({"believed": False, "rule": error.rule, "reason": error.reason}, indent=2))
        else:
            click.echo(f"Refused: {shown(str(error))}")
        sys.exit(1)
    described = _described(found)
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        click.echo("\n".join(_lines(described)))


def _credential(place: str, kind: str) -> Credential:
    from exequatur.identity.credential import LOCAL_TYPE, MAX_TOKEN, Credential
    from exequatur.identity.documents import read_bounded
    from exequatur.identity.oidc import TOKEN_TYPES

    # The longest token, and the line's end.
    most = MAX_TOKEN + 2
    if place == "-":
        data = sys.stdin.buffer.read(most + 1)
        if len(data) > most:
            raise ConfigurationError(f"Standard input has more than {MAX_TOKEN} bytes, which is no token")
    else:
        try:
            data, _ = read_bounded(Path(place), most)
        except OSError as error:
            raise ConfigurationError(f"{place}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{place} does not hold a token, but bytes that are no text") from None
    return Credential(text, LOCAL_TYPE if kind == "local" else TOKEN_TYPES[kind])


def _der(path: Path) -> bytes:
    """The first certificate of a file, as DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from exequatur.identity.certificates import MAX_CERTIFICATE
    from exequatur.identity.documents import read_bounded

    try:
        data, _ = read_bounded(path, 2 * MAX_CERTIFICATE)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    if b"-----BEGIN" not in data:
        return data
    try:
        return x509.load_pem_x509_certificates(data)[0].public_bytes(Encoding.DER)
    except ValueError as error:
        raise ConfigurationError(f"{path} holds no certificate that can be read") from error


def _described(found: Identified) -> dict[str, Any]:
    from exequatur.identity.actors import names_of

    principal = found.principal
    return {
        "believed": True,
        "principal": str(principal),
        "acting": list(names_of(found.acting)),
        "attributes": dict(principal.attributes),
        "parents": [str(each) for each in principal.parents],
        "worker": found.worker,
        "verifiers": list(found.verifiers),
        "expires": datetime.fromtimestamp(found.expires, UTC).isoformat(timespec="seconds"),
        "single_use": bool(found.once),
    }


def _lines(described: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [f"Believed: {shown(described['principal'])}"]
    pairs = [("acts for it", each) for each in described["acting"]]
    pairs += [(f"attribute {name}", json.dumps(value)) for name, value in described["attributes"].items()]
    pairs += [("parent", each) for each in described["parents"]]
    pairs += [("may be a worker", described["worker"])] if described["worker"] is not None else []
    pairs += [("verified by", each) for each in described["verifiers"]]
    pairs += [("ends", described["expires"])]
    pairs += [("", "may be used once")] if described["single_use"] else []
    width = max(len(name) for name, _ in pairs)
    return [*lines, *(f"  {name:<{width}}  {shown(value)}".rstrip() for name, value in pairs)]
