"""The bundle file: schema, policies, entities and manifest in one file that is named by its content.

It is ``{"content":{...},"releases":["<JWS>",...]}``: JSON with sorted members and no white space, so that the same
inputs give the same bytes. The content's address is the SHA-256 of its bytes. The releases beside it are signed
statements about that address; they can be added to without changing it.

Rules, numbered as the code marks them:

J11  A file is no larger than :data:`MAX_FILE_BYTES`, and holds at most :data:`MAX_RELEASES` releases.
J12  Content and releases are told apart by their bytes. So a signature is checked before any of the content is parsed.
J13  The content is the one JSON text for what it says: no second spelling, no member twice, nothing unknown.
J14  Policies have file names, each once, in order; the manifest names the bundle, its version, author and time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import MAX_BUNDLE_BYTES, BundleSource, SourceFile
from exequatur.statements.encoding import digest, strict_json
from exequatur.statements.models import BundleName, Part

FORMAT = "exequatur policy bundle file v1"
SUFFIX = ".bundle"
MAX_FILE_BYTES = MAX_BUNDLE_BYTES + 1024 * 1024
"""A bundle of the largest size, with file names, manifest and releases."""
MAX_RELEASES = 8
"""A stable and a canary release by each of several keys, while keys are being exchanged."""

_HEAD, _MIDDLE, _TAIL = b'{"content":', b',"releases":[', b"]}"
_MAX_TAIL = MAX_RELEASES * len('"",' + "x" * 4096)
"""No expression is tried on more than this before a signature was looked at."""
_RELEASES = re.compile(rb'(?:"[A-Za-z0-9_.-]{1,4096}"(?:,"[A-Za-z0-9_.-]{1,4096}")*)?')


def _not_a_canary(name: str) -> str:
    if name.endswith(".canary"):
        raise ValueError("the canary of a bundle is released under the bundle's own name")
    return name


def _utc(text: str) -> str:
    if datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") != text:
        raise ValueError("not a time")
    return text


Name = Annotated[BundleName, AfterValidator(_not_a_canary)]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Manifest(Part):
    """What a bundle says about itself."""

    name: Name
    version: Line
    author: Line
    time: Annotated[str, AfterValidator(_utc)]
    """RFC 3339, in UTC and to the second: ``2026-01-31T12:00:00Z``."""


class _File(Part):
    name: str
    text: str


class _Content(Part):
    format: Literal["exequatur policy bundle file v1"]
    manifest: Manifest
    bundle_schema: str | None = Field(alias="schema")
    policies: Annotated[list[_File], Field(min_length=1)]
    entities: list[dict[str, Any]]


@dataclass(frozen=True)
class Contents:
    """A bundle file's content, parsed; its policies are not yet."""

    manifest: Manifest
    source: BundleSource


@dataclass(frozen=True)
class BundleFile:
    """A bundle file whose content is not parsed and whose releases are not verified.

    Args:
        content: The bytes that releases are about.
        releases: Compact tokens.
    """

    content: bytes
    releases: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: bytes, name: str) -> BundleFile:
        """Tell content and releases apart (J11, J12).

        Args:
            data: The file.
            name: What messages call it.

        Raises:
            PolicyError: It is not a bundle file.
        """
        if len(data) > MAX_FILE_BYTES:  # [J11]
            raise PolicyError(f"{name}: larger than {MAX_FILE_BYTES >> 20} MiB, which no bundle file is.")
        at = data.rfind(_MIDDLE)
        tail = data[at + len(_MIDDLE) : -len(_TAIL)]
        framed = len(tail) <= _MAX_TAIL and data.startswith(_HEAD) and at >= len(_HEAD) and data.endswith(_TAIL)
        if not framed or not _RELEASES.fullmatch(tail):  # [J12]
            raise PolicyError(
                f"{name}: not a whole bundle file. Make it with `exequatur policy build`, and transfer all of it."
            )
        releases = tuple(part.strip('"') for part in tail.decode().split(",")) if tail else ()
        if len(releases) > MAX_RELEASES:  # [J11]
            raise PolicyError(f"{name}: holds {len(releases)} releases, and a bundle file at most {MAX_RELEASES}.")
        return cls(data[len(_HEAD) : at], releases)

    def to_bytes(self) -> bytes:
        """The file."""
        return _HEAD + self.content + _MIDDLE + ",".join(f'"{token}"' for token in self.releases).encode() + _TAIL

    @cached_property
    def address(self) -> str:
        """SHA-256 of the content, base64url."""
        return digest(self.content)

    def open(self, name: str) -> Contents:
        """Parse the content (J13, J14).

        Args:
            name: What messages call the file.

        Raises:
            PolicyError: It is malformed.
        """
        try:
            document = strict_json(self.content)
            if _canonical(document) != self.content:  # [J13]
                raise ValueError("it is not in canonical form")
            read = _Content.model_validate(document)
        except ValidationError as error:
            field = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "content"
            raise _malformed(name, f"{field} is missing, unknown or not as it must be") from None
        except (ValueError, RecursionError) as error:
            raise _malformed(name, str(error)) from None
        names = [file.name for file in read.policies]
        if names != sorted(set(names)) or not all(map(_is_cedar_name, names)):  # [J14]
            raise _malformed(name, "its policies are not named files in order")
        source = BundleSource(
            tuple(SourceFile(file.name, file.text) for file in read.policies),
            None if read.bundle_schema is None else SourceFile("schema.cedarschema", read.bundle_schema),
            SourceFile("entities.json", _canonical(read.entities).decode()) if read.entities else None,
        )
        return Contents(read.manifest, source)


def build(source: BundleSource, manifest: Manifest) -> tuple[BundleFile, PolicyBundle]:
    """Make a bundle file; the same arguments give the same bytes.

    Args:
        source: As read from a folder.
        manifest: What it says about itself.

    Returns:
        The file without a release, and the bundle that a worker makes of it.

    Raises:
        PolicyError: The policies do not parse or validate, or are too large.
    """
    content = {
        "format": FORMAT,
        "manifest": manifest.model_dump(),
        "schema": None if source.schema is None else source.schema.text,
        "policies": [{"name": PurePosixPath(file.name).name, "text": file.text} for file in source.policies],
        "entities": _entities(source),
    }
    bundle = PolicyBundle(source)
    try:
        file = BundleFile(_canonical(content))
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"The policies cannot be written as JSON: {error}.") from None
    if PolicyBundle(file.open(manifest.name).source).digest != bundle.digest:
        raise PolicyError("The policies read differently from a bundle file. Report it with the policies.")
    return file, bundle


def manifest_of(values: Mapping[str, str]) -> Manifest:
    """A manifest of what a person wrote.

    Raises:
        PolicyError: A value cannot be one.
    """
    try:
        return Manifest.model_validate(dict(values))
    except ValidationError as error:
        field = str(error.errors(include_input=False)[0]["loc"][0])
        raise PolicyError(f"The {field} {values.get(field, '')!r} cannot be used. {_FORMS[field]}") from None


_FORMS = {
    "name": "Write letters, digits, dots, dashes and underscores, at most 100, and not .canary at its end.",
    "version": "Write one line of at most 200 characters.",
    "author": "Write one line of at most 200 characters.",
    "time": "Write it as 2026-01-31T12:00:00Z.",
}


def _entities(source: BundleSource) -> list[Any]:
    """The entities; unlike Cedar's binding, this does not choose between two members of one name."""
    if source.entities is None:
        return []
    try:
        strict_json(source.entities.text.encode())
    except ValueError as error:
        raise PolicyError(f"{source.entities.name}: {error}. Correct it and build again.") from None
    return source.entity_documents


def _is_cedar_name(name: str) -> bool:
    return name.endswith(".cedar") and name.isprintable() and not set(name) & set('/\\"')


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _malformed(name: str, why: str) -> PolicyError:
    return PolicyError(f"{name}: a malformed bundle file: {why}. Make it with `exequatur policy build`.")
