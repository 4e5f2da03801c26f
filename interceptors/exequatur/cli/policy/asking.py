"""What people type about a question, as values: principals, arguments, circumstances, and which policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import shown
from exequatur.errors import ConfigurationError, PolicyError
from exequatur.statements.encoding import strict_json

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.policy.bundle import PolicyBundle

MAX_JSON = 4 * 1024 * 1024
"""Bytes of a value; an activity's arguments are at most 2 MB in Temporal."""


def bundle_at(path: Path) -> PolicyBundle:
    """The policies in a folder or a bundle file; signatures are not looked at.

    Raises:
        PolicyError: They are refused.
    """
    from exequatur.policy.bundle import PolicyBundle

    if not path.is_file():
        return PolicyBundle.from_folder(path)
    from exequatur.release.directory import read_file
    from exequatur.release.file import BundleFile

    name = str(path)
    return PolicyBundle(BundleFile.read(read_file(path), name).open(name).source)


def json_of(option: str, text: str | None) -> Any:
    """The JSON value of an option, or of the file that ``@FILE`` names; None if it was not given.

    Raises:
        ConfigurationError: It is no JSON; line and column are named.
    """
    if text is None:
        return None
    source = option
    if text.startswith("@"):
        path = Path(text[1:])
        source = f"{option} {path}"
        if not path.is_file():
            raise ConfigurationError(f"{source}: there is no such file")
        with path.open("rb") as stream:
            data = stream.read(MAX_JSON + 1)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if len(text) > MAX_JSON:
        raise ConfigurationError(f"{source}: larger than {MAX_JSON >> 20} MiB")
    try:
        return strict_json(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{source}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: not JSON: {error}") from None


def moment_of(text: str | None) -> datetime | None:
    """The time that ``--now`` says, in UTC if it names no zone.

    Raises:
        ConfigurationError: It is none.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--now {text[:60]}: not a time; write it as 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def entity_of(option: str, text: str | None) -> dict[str, str] | None:
    """The entity of an option in Cedar's form; None if it was not given.

    Raises:
        PolicyError: It is none.
    """
    from exequatur.policy import values

    if text is None:
        return None
    try:
        kind, name = values.entity_of(text)
    except ValueError as error:
        raise PolicyError(f"{option}: {error}.") from None
    return {"type": kind, "id": name}


def principal_of(
    bundle: PolicyBundle, principal: str, parents: tuple[str, ...], attributes: tuple[str, ...]
) -> dict[str, Any]:
    """A principal as it is typed: ``Type::"id"``, parents, and attributes as ``name=value``.

    Raises:
        PolicyError: An attribute has another form.
    """
    from exequatur.authoring.checks.findings import did_you_mean
    from exequatur.authoring.checks.folder import FRAGMENT_NAME
    from exequatur.policy.types import STRING

    declared: Mapping[str, Any] = {}
    modelled = False
    kind = (entity_of("principal", principal) or {})["type"]
    if bundle.model is not None and kind in bundle.model.entities:
        modelled = True
        declared = {each.name: each.type for each in bundle.model.entities[kind].attributes.attributes}
    attrs: dict[str, Any] = {}
    for text in attributes:
        name, found, value = text.partition("=")
        if not found or not name:
            raise PolicyError(f"--attr {text[:60]}: write it as NAME=VALUE, for example region=emea.")
        if modelled and name not in declared:
            step = did_you_mean(name, declared) or f"declare them in {FRAGMENT_NAME}"
            raise PolicyError(
                f"--attr {name[:60]}: {kind} has no {'such attribute' if declared else 'attributes'}; {step}"
            )
        # What is declared a string is not to be written in quotes.
        attrs[name] = value if declared.get(name) == STRING else _value(value)
    _note_unknown(bundle, parents)
    return {"uid": principal, "parents": list(parents), "attrs": attrs}


def _note_unknown(bundle: PolicyBundle, parents: tuple[str, ...]) -> None:
    """Say which parents the entities do not have, although they have others of that type."""
    from exequatur.authoring.checks.findings import did_you_mean
    from exequatur.authoring.expression import reference
    from exequatur.policy import values
    from exequatur.policy.entities import uid_of

    known = {uid_of(each["uid"]) for each in bundle.source.entity_documents} if parents else set()
    for text in parents:
        try:
            uid = values.entity_of(text)
        except ValueError:
            continue  # It is refused where it is used.
        beside = [reference(*each) for each in known if each[0] == uid[0]]
        if beside and uid not in known:
            step = did_you_mean(reference(*uid), beside)
            click.echo(shown(f"note: the entities have no {reference(*uid)[:80]}; {step}"), err=True)


def _value(text: str) -> Any:
    try:
        return strict_json(text)
    except (ValueError, RecursionError):
        return text
