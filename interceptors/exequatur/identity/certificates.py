"""Verifies client certificates against a bundle of authorities (RFC 5280); ``cryptography`` validates the path.

What a handshake has shown is not asked here again: that the other side holds the key. That the certificate is of the
bundle's authorities is, for a TLS server may trust more of them than one verifier does. Rules, numbered as the code
marks them:

X1  The certificate chains to an authority of the bundle, is within its validity, and each extension that is critical is
    understood (RFC 5280, section 6.1). It is a leaf whose key signs no certificates, and if it says what it is for, it
    says client authentication. Keys are RSA or ECDSA.
X2  It does say that it is for client authentication, unless the verifier lets that be left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from exequatur.errors import IdentityError
from exequatur.statements.encoding import strict_json

MAX_CERTIFICATE = 32_768
"""Bytes of DER."""
_DEPTH = 4
"""Intermediate authorities."""


@dataclass(frozen=True)
class Authorities:
    """Certificates that may sign: roots, and intermediates below them.

    Args:
        roots: Trusted.
        intermediates: Only a way to a root.
    """

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()

    @classmethod
    def of(cls, certificates: Sequence[x509.Certificate]) -> Authorities:
        """Sort certificates: those that issued themselves are roots.

        Raises:
            ValueError: None of them is a root.
        """
        roots = tuple(each for each in certificates if each.issuer == each.subject)
        if not roots:
            raise ValueError("it has no certificate of a root authority")
        return cls(roots, tuple(each for each in certificates if each.issuer != each.subject))


def authorities_in_pem(data: bytes) -> Authorities:
    """Read a PEM file.

    Raises:
        ValueError: It holds no certificate of a root authority.
    """
    try:
        return Authorities.of(x509.load_pem_x509_certificates(data))
    except ValueError as err:
        raise ValueError(f"the certificates cannot be read: {str(err)[:100]}") from None


def authorities_in_bundle(document: Any) -> Authorities:
    """The authorities of X.509-SVIDs in a SPIFFE bundle (X509-SVID specification, section 6.2).

    Raises:
        ValueError: There is none.
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    found = []
    for each in keys if isinstance(keys, list) else ():
        chain = each.get("x5c") if isinstance(each, dict) and each.get("use") == "x509-svid" else None
        if isinstance(chain, list) and chain and isinstance(chain[0], str):
            try:
                found.append(x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True)))
            except (ValueError, binascii.Error):
                raise ValueError("a certificate of the bundle cannot be read") from None
    if not found:
        raise ValueError("the bundle has no authority for X.509-SVIDs")
    return Authorities(tuple(found))


def parsed(certificate: bytes) -> x509.Certificate:
    """Read a certificate.

    Raises:
        IdentityError: X1.
    """
    try:
        if len(certificate) > MAX_CERTIFICATE:  # [X1]
            raise ValueError
        return x509.load_der_x509_certificate(certificate)
    except ValueError:
        raise IdentityError("X1", "The client certificate cannot be read") from None


def verify(certificate: x509.Certificate, authorities: Authorities, now: float, *, usage_required: bool) -> None:
    """Verify a client certificate.

    Args:
        certificate: The leaf.
        authorities: Who may have issued it.
        now: Seconds since 1970.
        usage_required: Whether it has to say that it is for client authentication.

    Raises:
        IdentityError: X1, X2.
    """
    moment = datetime.fromtimestamp(now, UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:  # [X1]
        raise IdentityError("X1", "The client certificate has ended or not begun; renew it, and check the clocks")
    policy = (
        PolicyBuilder().store(Store(list(authorities.roots))).time(moment.replace(tzinfo=None)).max_chain_depth(_DEPTH)
    )
    try:
        policy.build_client_verifier().verify(certificate, list(authorities.intermediates))  # [X1]
    except (VerificationError, ValueError):
        raise IdentityError("X1", "The client certificate is not of the authorities that are trusted for it") from None
    if usage_required:
        try:
            certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except x509.ExtensionNotFound:  # [X2]
            raise IdentityError("X2", "The client certificate does not say that it is for clients") from None


def names_of(certificate: x509.Certificate, kind: type[Any]) -> list[str]:
    """The subject's alternative names of one kind."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each) for each in names.get_values_for_type(kind)]


def ends(certificate: x509.Certificate) -> float:
    """When a certificate ends, in seconds since 1970."""
    return certificate.not_valid_after_utc.timestamp()


def authorities_in(data: bytes) -> Authorities:
    """Read a PEM file, or a SPIFFE bundle.

    Raises:
        ValueError: It has no authority.
    """
    if data.lstrip()[:1] != b"{":
        return authorities_in_pem(data)
    return authorities_in_bundle(strict_json(data))
