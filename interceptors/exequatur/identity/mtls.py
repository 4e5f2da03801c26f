"""TLS client certificates of an authority of one's own.

Rules, numbered as the code marks them (X are those of :mod:`exequatur.identity.certificates`):

T1  The subject is an alternative name of the configured kind: a URI, a DNS name or an email address. Never the common
    name, which authorities do not check.
T2  There is exactly one of that kind; which of several is meant would be a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptography import x509

from exequatur.errors import IdentityError, IdentityUnavailableError
from exequatur.identity.certificates import Authorities, ends, names_of, parsed, verify
from exequatur.identity.documents import Kept
from exequatur.identity.verifier import Claims

Subject = Literal["uri", "dns", "email"]
_KINDS: dict[Subject, type[x509.GeneralName]] = {
    "uri": x509.UniformResourceIdentifier,
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
}


@dataclass(frozen=True)
class MtlsVerifier:
    """Believes the client certificates of some authorities.

    Args:
        name: As the configuration calls it.
        authorities: Who issues them.
        subject: Which alternative name says who it is.
    """

    name: str
    authorities: Kept[Authorities]
    subject: Subject = "uri"

    def accepts_certificate(self, certificate: bytes) -> bool:
        try:
            found = parsed(certificate)
            return bool(names_of(found, _KINDS[self.subject])) and _issued(found, self.authorities)
        except IdentityUnavailableError:
            return True  # whose it is cannot be told; verifying says so
        except Exception:  # accepting proves nothing, and must not raise
            return False

    def verify_certificate(self, certificate: bytes, now: float) -> Claims:
        """Verify a client certificate.

        Raises:
            IdentityError: X1, X2, T1, T2.
            IdentityUnavailableError: The authorities cannot be read now.
        """
        found = parsed(certificate)
        verify(found, self.authorities.get(), now, usage_required=True)
        names = names_of(found, _KINDS[self.subject])
        if len(names) != 1:  # [T2]
            raise IdentityError(
                "T2", f"The client certificate has {len(names)} names of the kind {self.subject}, not one"
            )
        values = {
            "sub": names[0],
            "uris": names_of(found, x509.UniformResourceIdentifier),
            "dns": names_of(found, x509.DNSName),
            "emails": names_of(found, x509.RFC822Name),
            "serial": format(found.serial_number, "x"),
        }
        return Claims(self.name, found.issuer.rfc4514_string(), names[0], values, ends(found))


def _issued(certificate: x509.Certificate, authorities: Kept[Authorities]) -> bool:
    """Whether the certificate names one of these authorities as its issuer."""
    known = authorities.get()
    return certificate.issuer in [each.subject for each in (*known.roots, *known.intermediates)]
