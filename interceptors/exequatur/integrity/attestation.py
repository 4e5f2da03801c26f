"""What an authority believes about the worker that it is about to credential.

Rules, numbered as the code marks them:

V1  A manifest that is shown verifies (rules M of :mod:`exequatur.integrity.manifest`). One that does not is refused; it
    is not as if none had been shown.
V2  The same of a machine's document: one of the attesters believes it.
V3  Code is attested only where both are shown. A manifest by itself is what the worker says of itself.
V4  What nobody here can verify counts as not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exequatur.errors import ConfigurationError, StatementError
from exequatur.integrity.instance import Attested, Attester, read_attesters
from exequatur.integrity.keys import ManifestKeys, read_manifest_keys
from exequatur.integrity.manifest import Manifest, verify_manifest
from exequatur.statements.models import Code, PublicKey

Level = Literal["unmeasured", "measured", "attested"]


@dataclass(frozen=True)
class EvidenceConfig:
    """Whose word counts.

    Args:
        keys: Who may sign manifests.
        attesters: What tells where a process runs.
    """

    keys: ManifestKeys | None = None
    attesters: Sequence[Attester] = ()


@dataclass(frozen=True)
class Evidence:
    """What is known of a worker.

    Args:
        integrity: How certain it is which code it runs.
        code: Digest of its manifest, and who says so.
        build: Temporal build id, as the manifest has it.
        environment: Where it runs, as attested.
        image: Digest of its container image, as the manifest has it.
        machine: The attested machine.
    """

    integrity: Level = "unmeasured"
    code: Code | None = None
    build: str | None = None
    environment: str | None = None
    image: str | None = None
    machine: str | None = None

    def facts(self) -> dict[str, str]:
        """What policies are told of it as ``context.worker``, besides its id."""
        told = {"build": self.build, "environment": self.environment, "image": self.image}
        code = {} if self.code is None else {"code": self.code.digest}
        return {
            "integrity": self.integrity,
            **code,
            **{name: value for name, value in told.items() if value is not None},
        }


def read_evidence_config(keys: str | Path | None, instances: str | Path | None) -> EvidenceConfig:
    """Read whose word counts.

    Args:
        keys: JWK set of the manifest keys.
        instances: TOML file of the machines that count.

    Raises:
        ConfigurationError: A file cannot be used.
    """
    return EvidenceConfig(
        None if keys is None else read_manifest_keys(Path(keys)),
        () if instances is None else read_attesters(Path(instances)),
    )


def verify_evidence(
    manifest: str | None, instance: str | None, config: EvidenceConfig, *, key: PublicKey, now: float
) -> Evidence:
    """Find out what is known of a worker.

    Args:
        manifest: The signed manifest that it shows.
        instance: The signed document of its machine.
        config: Whose word counts.
        key: The worker's, which is to be credentialed.
        now: Seconds since 1970.

    Raises:
        StatementError: V1, V2.
    """
    found: Manifest | None = None
    if manifest is not None and config.keys is not None:  # V4
        found = verify_manifest(manifest, config.keys, now)  # V1
    where: Attested | None = None
    if instance is not None and config.attesters:  # V4
        where = _attested(instance, config.attesters, key, now)
    machine, environment = (where.machine, where.environment) if where else (None, None)
    if found is None:
        return Evidence(environment=environment, machine=machine)
    attested = where is not None  # V3
    return Evidence(
        "attested" if attested else "measured",
        Code(digest=found.digest, assurance="attested" if attested else "self-asserted"),
        found.measurement.build,
        environment,
        found.measurement.image,
        machine,
    )


def _attested(instance: str, attesters: Sequence[Attester], key: PublicKey, now: float) -> Attested:
    """V2."""
    refused: StatementError | None = None
    for attester in attesters:
        try:
            return attester.attest(instance, key, now)
        except StatementError as err:
            refused = err
    if refused is None:
        raise ConfigurationError("There is nobody to ask about the machine's document")
    raise refused
