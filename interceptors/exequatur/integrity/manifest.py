"""What a worker is, as a signed manifest says it: an in-toto statement in a DSSE envelope.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md

Rules, numbered as the code marks them:

M1  The envelope verifies (rules E of :mod:`exequatur.integrity.envelope`).
M2  It holds an in-toto Statement v1, and its predicate is of our type and has exactly our fields.
M3  The statement is about one subject, whose digest is that of the predicate, so that who collects attestations by
    subject collects the right one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from exequatur.errors import StatementError
from exequatur.integrity.envelope import opened, seal
from exequatur.integrity.keys import ManifestKeys
from exequatur.statements.encoding import compact_json, digest, strict_json
from exequatur.statements.keys import Signer
from exequatur.statements.models import Name, Part

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://exequatur.dev/attestation/runtime/v1"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, in hex as in-toto writes it."""
Path = Annotated[str, Field(min_length=1, max_length=4096)]
Image = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Interpreter(Part):
    """The Python that runs.

    Args:
        implementation: For example ``cpython``.
        version: For example ``3.12.4``.
        executable: Of the file that was started.
        library: Of the shared library that it is linked with, where there is one.
        standard: Digest of each package of the standard library; single modules are together under ``.``.
        flags: What changes which code runs: optimization, isolation, and how compiled files are trusted.
    """

    implementation: Name
    version: Name
    executable: Hash
    library: Hash | None = None
    standard: dict[str, Hash]
    flags: dict[str, int | str]


class Distribution(Part):
    """An installed distribution.

    Args:
        version: Its version.
        digest: Of the names and digests of all its files but compiled ones.
        files: How many these are.
        editable: It is installed by a reference to its source, which is among the sources.
        changed: Files that are not as its RECORD says.
        missing: Files that RECORD names and that are not there.
    """

    version: Name
    digest: Hash
    files: Annotated[int, Field(ge=0)]
    editable: bool = False
    changed: tuple[Path, ...] = ()
    missing: tuple[Path, ...] = ()


class Measurement(Part):
    """Everything that was measured of a worker; the predicate of the statement."""

    interpreter: Interpreter
    distributions: dict[Name, Distribution]
    """By normalized name."""
    extra: dict[Path, Hash]
    """Files beside the distributions that belong to none, below the folder in which distributions are installed."""
    sources: dict[Path, dict[Path, Hash]]
    """The application's files of code, below each of its folders."""
    configuration: dict[Path, Hash]
    environment: dict[Name, Hash | None]
    """Digests of named variables' values; ``null`` for one that is not set."""
    image: Image | None = None
    build: Name | None = None


class _Subject(Part):
    name: Name
    digest: dict[str, str]


class _Statement(Part):
    model_config = ConfigDict(populate_by_name=True)

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Literal["https://exequatur.dev/attestation/runtime/v1"] = Field(alias="predicateType")
    predicate: Measurement


@dataclass(frozen=True)
class Manifest:
    """A verified manifest.

    Args:
        envelope: As it was read.
        name: What the statement is about.
        key: Id of the key that signed it.
        digest: Of the signed payload; what credentials and policies name as ``code``.
        measurement: What the worker must be.
    """

    envelope: str
    name: str
    key: str
    digest: str
    measurement: Measurement


def measurement_json(measurement: Measurement) -> bytes:
    """A measurement in the one form in which it is signed: members sorted, nothing that is absent."""
    return compact_json(_sorted(measurement.model_dump(mode="json", exclude_none=False)))


def sign_manifest(measurement: Measurement, name: str, *signers: Signer) -> str:
    """Sign what was measured.

    Args:
        measurement: What the worker is.
        name: What it is called.
        signers: Manifest keys.

    Raises:
        ValueError: It is too large for a manifest, or the name is none.
    """
    if not 0 < len(name) <= 1000:
        raise ValueError("the name must be 1 to 1000 characters long")
    predicate = measurement_json(measurement)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(predicate).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": strict_json(predicate),
    }
    return seal(PAYLOAD_TYPE, compact_json(statement), signers)


def verify_manifest(text: str, keys: ManifestKeys, now: float) -> Manifest:
    """Verify a manifest.

    Args:
        text: The DSSE envelope.
        keys: Who may sign it.
        now: Seconds since 1970.

    Raises:
        StatementError: M1 to M3.
    """
    payload, key = opened(text, PAYLOAD_TYPE, keys, now)  # M1
    try:
        strict_json(payload)
        statement = _Statement.model_validate_json(payload)
    except ValidationError as err:
        field = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))[:200]
        raise StatementError("M2", f"The manifest has a missing, unknown or ill-typed field: {field}") from err
    except ValueError as err:
        raise StatementError("M2", "The manifest is not well-formed JSON without duplicates") from err
    subject, measured = statement.subject[0], measurement_json(statement.predicate)
    if subject.digest != {"sha256": hashlib.sha256(measured).hexdigest()}:
        raise StatementError("M3", "The manifest's subject has another digest than what was measured")
    return Manifest(text, subject.name, key, digest(payload), statement.predicate)


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
