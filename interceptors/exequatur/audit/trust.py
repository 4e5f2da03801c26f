"""Whom an auditor believes, and what an auditor lets pass: the trust file.

It is a JWK set (RFC 7517) as the authority keeps it in ``trust.jwks``, with these members besides:

``ungoverned``  workflow types that may run without a grant, as shell patterns
``observed``    activity types that workers may only observe although the grant demands enforcement, as shell patterns
``bundles``     digests of the policy bundles that may decide; all may when it is left out
``notaries``    verifier keys (C2SP signed-note) of those whose checkpoints count
``witnesses``   verifier keys of those whose cosignatures count
``threshold``   how many witnesses must have cosigned a checkpoint; 0 when it is left out
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.lineage.note import VerifierKey
from exequatur.statements.encoding import strict_json
from exequatur.statements.models import Part
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import matches

MAX_BYTES = 4 * 1024 * 1024
"""Some ten thousand keys."""


class _Document(Part):
    keys: list[dict[str, object]]
    ungoverned: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    notaries: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    threshold: Annotated[int, Field(ge=0)] = 0


class AuditTrust:
    """What the trust file says.

    Args:
        anchors: The authority's keys.
        ungoverned: See above.
        observed: See above.
        bundles: See above.
        notaries: See above.
        witnesses: See above.
        threshold: See above.
    """

    def __init__(
        self,
        anchors: TrustStore,
        *,
        ungoverned: tuple[str, ...] = (),
        observed: tuple[str, ...] = (),
        bundles: tuple[str, ...] = (),
        notaries: tuple[VerifierKey, ...] = (),
        witnesses: tuple[VerifierKey, ...] = (),
        threshold: int = 0,
    ) -> None:
        self.anchors = anchors
        self.ungoverned = ungoverned
        self.observed = observed
        self.bundles = bundles
        self.notaries = notaries
        self.witnesses = witnesses
        self.threshold = threshold

    def exempts(self, workflow_type: str) -> bool:
        """Whether a workflow of this type may run without a grant."""
        return matches(workflow_type, self.ungoverned)

    def observes(self, activity_type: str) -> bool:
        """Whether an activity of this type may run although the gate said no."""
        return matches(activity_type, self.observed)


def read_trust(path: Path) -> AuditTrust:
    """Read a trust file.

    Raises:
        EvidenceError: It cannot be read, is not one, or asks for more witnesses than it names.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EvidenceError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which no trust file is")
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror or error}; name the authority's trust.jwks") from None
    try:
        strict_json(data)
        document = _Document.model_validate_json(data)
        anchors = TrustStore.from_jwks(data, str(path))
    except ValidationError as error:
        field = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "document"
        raise EvidenceError(f"{path}: {field} is missing, unknown or ill-typed; it must be a JWK set") from None
    except (ValueError, ConfigurationError) as error:
        raise EvidenceError(f"{path}: {error}") from None
    if document.threshold > len(document.witnesses):
        raise EvidenceError(f"{path}: threshold asks for {document.threshold} of {len(document.witnesses)} witnesses")
    try:
        notaries = tuple(map(VerifierKey.parse, document.notaries))
        witnesses = tuple(map(VerifierKey.parse, document.witnesses))
    except (EvidenceError, ConfigurationError, ValueError) as error:
        raise EvidenceError(f"{path}: {error}") from None
    return AuditTrust(
        anchors,
        ungoverned=document.ungoverned,
        observed=document.observed,
        bundles=document.bundles,
        notaries=notaries,
        witnesses=witnesses,
        threshold=document.threshold,
    )
