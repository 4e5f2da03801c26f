"""Machines that a cloud vouches for: signed instance identity documents.

A document says which machine this is, in whose account and from which image, and the cloud has signed it. It can be
read by every process on the machine and holds nothing of who shows it: it says where a process runs only as far as
nobody carries the document away. So name accounts, and images or instances besides.

Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-iid.html

Rules, numbered as the code marks them:

N1  What is shown is JSON of bounded size: ``document`` with its ``signature``, or ``rsa2048``, the message that holds
    the document and its signature (rules C of :mod:`exequatur.integrity.cms`).
N2  The signature is RSA with SHA-256, by the key of a configured certificate that is valid now. No key has fewer than
    2,048 bits.
N3  The document is a JSON object without duplicates that names machine, account, region, image and start.
N4  The account is listed.
N5  So are region, image and machine, where the rule lists them.
N6  The machine was started in the past, and no longer ago than the rule allows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exequatur.errors import ConfigurationError, StatementError
from exequatur.integrity.cms import signed_content
from exequatur.integrity.keys import read_small
from exequatur.settings import Interval
from exequatur.statements.encoding import strict_json
from exequatur.statements.models import PublicKey

MAX_BYTES = 64 * 1024
"""A document has about 500 bytes, a message with certificates a few thousand."""
_SMALLEST_KEY = 2048
_LEEWAY = 300.0
"""Seconds that the machine's clock at its start may have been ahead of this one."""
_NAMES = ("instanceId", "accountId", "region", "imageId", "pendingTime")


@dataclass(frozen=True)
class Attested:
    """What is certain about where a process runs.

    Args:
        machine: Its name.
        environment: What the rule that matched says the machine belongs to.
    """

    machine: str
    environment: str | None


class Attester(Protocol):
    """What can tell from evidence where a process runs. The seam for quotes of a TPM or TEE: docs/integrity.md."""

    def attest(self, evidence: str, key: PublicKey, now: float) -> Attested:
        """Verify evidence.

        Args:
            evidence: What the worker shows.
            key: The worker's, for evidence that can be bound to one. An identity document cannot.
            now: Seconds since 1970.

        Raises:
            StatementError: It proves nothing.
        """
        ...


class InstanceRule(BaseModel):
    """Which machines count, and as what; a table ``[[instance]]``.

    Args:
        certificates: PEM files of the cloud's certificates, from the folder of the file that names them.
        accounts: Account ids.
        regions: Regions; any if left out.
        images: Image ids; any if left out.
        instances: Machine ids; any if left out.
        max_age: How long ago the machine may have been started.
        environment: Name of the environment that it belongs to, told to policies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificates: Annotated[tuple[str, ...], Field(min_length=1)]
    accounts: Annotated[tuple[str, ...], Field(min_length=1)]
    regions: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    max_age: Interval = timedelta(days=90)
    environment: Annotated[str, Field(min_length=1, max_length=100)] | None = None


@dataclass(frozen=True)
class InstanceAttester:
    """Believes instance identity documents.

    Args:
        rule: Which ones.
        certificates: The cloud's.
    """

    rule: InstanceRule
    certificates: tuple[x509.Certificate, ...]

    def attest(self, evidence: str, key: PublicKey, now: float) -> Attested:
        """See :class:`Attester`.

        Raises:
            StatementError: N1 to N6, C1 to C5.
        """
        said = _fields(self._document(evidence, now))
        rule = self.rule
        if said["accountId"] not in rule.accounts:
            raise StatementError("N4", "The machine's account is not listed")
        listed = (("region", rule.regions), ("imageId", rule.images), ("instanceId", rule.instances))
        for name, allowed in listed:
            if allowed and said[name] not in allowed:
                raise StatementError("N5", f"The machine's {name} is not listed")
        try:
            started = datetime.fromisoformat(said["pendingTime"]).timestamp()
        except (ValueError, OverflowError) as err:
            raise StatementError("N3", "The document's pendingTime is no time") from err
        if not now - rule.max_age.total_seconds() <= started <= now + _LEEWAY:
            raise StatementError("N6", "The machine was started too long ago, or will be")
        return Attested(f"{said['accountId']}/{said['region']}/{said['instanceId']}", rule.environment)

    def _document(self, evidence: str, now: float) -> bytes:
        """N1 and N2."""
        shown = _shown(evidence)
        keys = [key for each in self.certificates if (key := _key_of(each, now)) is not None]
        if "rsa2048" in shown:
            message = _decoded(shown["rsa2048"].removeprefix("-----BEGIN PKCS7-----").partition("-----END")[0])
            return signed_content(message, keys)
        document, signature = shown["document"].encode(), _decoded(shown["signature"])
        for key in keys:
            try:
                key.verify(signature, document, padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                continue
            return document
        raise StatementError("N2", "No configured certificate that is valid now has signed the machine's document")


def read_instance(path: Path) -> str:
    """Read what a worker shows of its machine.

    Args:
        path: As ``exequatur integrity instance`` writes it.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return read_small(path, MAX_BYTES, "no identity document").decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no identity document: it is not UTF-8") from None


def read_attesters(path: Path) -> tuple[InstanceAttester, ...]:
    """Read which machines count: a TOML file with tables ``[[instance]]``.

    Raises:
        ConfigurationError: It, or a certificate that it names, cannot be used.
    """
    import tomllib

    try:
        tables = tomllib.loads(read_small(path, 1024 * 1024, "no list of machines").decode())
    except (ValueError, RecursionError) as err:
        raise ConfigurationError(f"{path} is not valid TOML: {err}; correct it there") from None
    rules = tables.pop("instance", None)
    if tables or not isinstance(rules, list) or not rules:
        raise ConfigurationError(f"{path} must hold tables [[instance]] and nothing else")
    return attesters_of(rules, path)


def attesters_of(tables: Sequence[Any], source: Path) -> tuple[InstanceAttester, ...]:
    """The attesters that tables describe.

    Args:
        tables: Each with the fields of :class:`InstanceRule`.
        source: The file that they stand in; certificates are named from its folder.

    Raises:
        ConfigurationError: A table or a certificate cannot be used.
    """
    found = []
    for number, table in enumerate(tables, 1):
        try:
            rule = InstanceRule.model_validate(table)
        except ValidationError as err:
            detail = err.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, detail["loc"])) or "it"
            raise ConfigurationError(f"{source}: instance {number}: {where}: {detail['msg']}") from None
        found.append(InstanceAttester(rule, tuple(_certificate(source.parent / each) for each in rule.certificates)))
    return tuple(found)


def _certificate(path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(read_small(path, 1024 * 1024, "no certificate"))
        key = certificate.public_key()
    except ValueError as err:
        raise ConfigurationError(f"{path} is no certificate in PEM form: {err}") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < _SMALLEST_KEY:
        raise ConfigurationError(
            f"{path} has no RSA key of at least {_SMALLEST_KEY} bits; take the cloud's RSA-2048 certificate"
        )
    return certificate


def _key_of(certificate: x509.Certificate, now: float) -> RSAPublicKey | None:
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    key = certificate.public_key()
    return key if isinstance(key, RSAPublicKey) and begins <= now <= ends else None  # N2


def _shown(evidence: str) -> dict[str, str]:
    """N1."""
    if len(evidence) > MAX_BYTES:
        raise StatementError("N1", f"The machine's document has more than {MAX_BYTES >> 10} KiB")
    try:
        shown = strict_json(evidence)
    except ValueError as err:
        raise StatementError("N1", "The machine's document is not well-formed JSON without duplicates") from err
    if not isinstance(shown, dict) or set(shown) not in ({"document", "signature"}, {"rsa2048"}):
        raise StatementError("N1", "The machine's document must hold exactly document and signature, or rsa2048")
    if not all(isinstance(each, str) and each.isascii() for each in shown.values()):
        raise StatementError("N1", "The machine's document must hold text")
    return shown


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as err:
        raise StatementError("N1", "The machine's document is not base64") from err


def _fields(document: bytes) -> dict[str, str]:
    """N3."""
    try:
        said = strict_json(document)
    except ValueError as err:
        raise StatementError("N3", "The document is not well-formed JSON without duplicates") from err
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in _NAMES):
        raise StatementError("N3", f"The document must hold {', '.join(_NAMES)}, each as text")
    return said
