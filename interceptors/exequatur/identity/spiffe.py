"""SPIFFE: JWT-SVIDs and X.509-SVIDs of one trust domain.

Rules, numbered as the code marks them (S1 and S2 are those of :mod:`exequatur.identity.spiffe_id`, R of
:mod:`exequatur.identity.tokens`, K of :mod:`exequatur.identity.keyset`, O of :mod:`exequatur.identity.oidc`, X of
:mod:`exequatur.identity.certificates`):

P1  A JWT-SVID is signed by RSA or ECDSA with a key of the trust domain's bundle that is for JWT-SVIDs (JWT-SVID,
    sections 2.1 and 6). Its ``typ`` is absent, ``JWT`` or ``JOSE`` (2.3).
P2  Its ``sub`` is a SPIFFE id of the trust domain (3.1), ``aud`` names this authority (3.2, O5), and ``exp`` is there
    and has not passed (3.3, O6).
P3  An X.509-SVID chains to an authority of the bundle, and is a leaf with critical key usage of digital signatures
    (X509-SVID, sections 4 and 5; X1, X2).
P4  It has exactly one URI among its alternative names, and that is a SPIFFE id of the trust domain with a path
    (X509-SVID, sections 2 and 5.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from exequatur.errors import IdentityError
from exequatur.identity.certificates import Authorities, ends, names_of, parsed, verify
from exequatur.identity.credential import JWT_TYPE, Credential
from exequatur.identity.documents import Kept
from exequatur.identity.mapping import SPIFFE_PATH
from exequatur.identity.oidc import Keys, bound_to, check_audience, check_times, check_type
from exequatur.identity.spiffe_id import SpiffeId
from exequatur.identity.tokens import read
from exequatur.identity.verifier import Claims

SVID_ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
"""JWT-SVID, section 2.1."""


@dataclass(frozen=True)
class JwtSvidVerifier:
    """Believes the JWT-SVIDs of a trust domain.

    Args:
        name: As the configuration calls it.
        trust_domain: Whose.
        audiences: Names of this authority.
        keys: Of the bundle.
        leeway: Seconds that clocks may differ.
        max_lifetime: Seconds that a token may live; ``None`` for any.
    """

    name: str
    trust_domain: str
    audiences: tuple[str, ...]
    keys: Keys
    leeway: float = 30.0
    max_lifetime: float | None = None

    def accepts(self, credential: Credential) -> bool:
        if credential.type != JWT_TYPE:
            return False
        try:
            subject = read(credential.token).claims.get("sub")
        except IdentityError:
            return False
        return isinstance(subject, str) and subject.startswith(f"spiffe://{self.trust_domain}/")

    def verify(self, credential: Credential, now: float) -> Claims:
        """Verify a JWT-SVID.

        Raises:
            IdentityError: R1 to R4, K1, K3 to K6, P1, P2, O5 to O7, O11.
            IdentityUnavailableError: The bundle cannot be had now.
        """
        token = read(credential.token)
        self.keys.for_token(token).verify(token, SVID_ALGORITHMS)  # [P1]
        check_type(token, ("jwt", "jose"), required=False)  # [P1]
        subject = _member(token.claims.get("sub"), self.trust_domain)
        check_audience(token.claims, self.audiences)  # [P2]
        expires = check_times(token.claims, now, self.leeway, self.max_lifetime)  # [P2]
        return Claims(
            verifier=self.name,
            issuer=f"spiffe://{self.trust_domain}",
            subject=str(subject),
            values={**token.claims, **_parts(subject)},
            expires=expires,
            certificate=bound_to(token.claims),
            workload=subject.path,
        )


@dataclass(frozen=True)
class X509SvidVerifier:
    """Believes the X.509-SVIDs of a trust domain.

    Args:
        name: As the configuration calls it.
        trust_domain: Whose.
        authorities: Of the bundle.
    """

    name: str
    trust_domain: str
    authorities: Kept[Authorities]

    def accepts_certificate(self, certificate: bytes) -> bool:
        try:
            names = names_of(parsed(certificate), x509.UniformResourceIdentifier)
        except Exception:  # accepting proves nothing, and must not raise
            return False
        return any(each.startswith(f"spiffe://{self.trust_domain}/") for each in names)

    def verify_certificate(self, certificate: bytes, now: float) -> Claims:
        """Verify an X.509-SVID.

        Raises:
            IdentityError: X1, X2, P3, P4.
            IdentityUnavailableError: The bundle cannot be had now.
        """
        found = parsed(certificate)
        verify(found, self.authorities.get(), now, usage_required=False)  # [P3]
        try:
            usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        except x509.ExtensionNotFound:
            raise IdentityError("P3", "The X.509-SVID has no key usage") from None
        if not usage.critical or not usage.value.digital_signature:  # [P3]
            raise IdentityError("P3", "The key usage of the X.509-SVID is not critical, or not for digital signatures")
        names = names_of(found, x509.UniformResourceIdentifier)
        if len(names) != 1:  # [P4]
            raise IdentityError("P4", f"The X.509-SVID has {len(names)} URIs, not one")
        subject = _member(names[0], self.trust_domain, rule="P4")
        return Claims(
            verifier=self.name,
            issuer=f"spiffe://{self.trust_domain}",
            subject=str(subject),
            values={"sub": str(subject), **_parts(subject)},
            expires=ends(found),
            workload=subject.path,
        )


def _member(text: object, trust_domain: str, rule: str = "P2") -> SpiffeId:
    """A SPIFFE id of the trust domain that names a workload.

    Raises:
        IdentityError: P2 or P4.
    """
    try:
        found = SpiffeId.parse(text if isinstance(text, str) else "")
    except ValueError as err:
        raise IdentityError(rule, f"The subject cannot be read: {err}") from None
    if found.trust_domain != trust_domain or not found.path:  # [P2]
        raise IdentityError(rule, f"The subject is no workload of the trust domain {trust_domain}")
    return found


def _parts(subject: SpiffeId) -> Mapping[str, Any]:
    """Claims that rules of the mapping can use, whatever the token itself says under their names."""
    return {"trust_domain": subject.trust_domain, SPIFFE_PATH: subject.path}
