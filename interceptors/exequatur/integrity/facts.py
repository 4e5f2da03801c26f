"""What policies are told of the process that runs, as ``context.worker`` without its id."""

from __future__ import annotations

from exequatur.integrity.attestation import Evidence
from exequatur.integrity.guard import Guard
from exequatur.settings import Settings
from exequatur.statements.models import Code, WorkloadCredential


def of_process(settings: Settings, guard: Guard | None, credential: WorkloadCredential) -> dict[str, str]:
    """What policies are told.

    Args:
        settings: What the process was told about itself.
        guard: What it verifies itself by.
        credential: What the authority says of it; an attested environment counts more than the setting.
    """
    environment = credential.environment or settings.environment
    if guard is None:
        return Evidence(environment=environment, image=settings.image_digest).facts()
    found, said = guard.manifest, credential.code
    attested = said is not None and said.assurance == "attested" and said.digest == found.digest
    return Evidence(
        "attested" if attested else "measured",
        Code(digest=found.digest, assurance="attested" if attested else "self-asserted"),
        found.measurement.build,
        environment,
        found.measurement.image or settings.image_digest,
    ).facts()
